"""The format of safetensors: a header in JSON, then the arrays one behind the other.

Read and written here, not by the package of that name: that one maps files (one that somebody shortens ends the
process), takes a name that is there twice, and gives numpy no bfloat16 and no float8. The tests hold the two together.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
import math
import re
import sys
from array import array
from collections.abc import Callable, Collection, Mapping
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope._support import shown

from .allowance import Allowance
from .atomic import replace_file
from .crc32c import crc32c
from .faults import COPY_AGAIN, Path, damaged, fault
from .files import File
from .leaves import ADVICE, bytes_of, is_text, kind_of
from .locate import place_of_file
from .shards import shared_out, write_folder
from .spread import read_part
from .tensors import Contents, Index, Tensors, can_be_read, empty

DTYPES = {
    "BOOL": np.dtype("bool"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
    "F8_E4M3": np.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": np.dtype(jnp.float8_e5m2),
    "F8_E8M0": np.dtype(jnp.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(jnp.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(jnp.float8_e5m2fnuz),
}
_NAMES = {dtype.name: name for name, dtype in DTYPES.items()}
_BITS = {name: dtype.itemsize * 8 for name, dtype in DTYPES.items()}
_BITS |= {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}  # numpy has no arrays of these
_MOST_HEADER = 100_000_000  # bytes; that of the package of that name
_METADATA = "__metadata__"
# Metadata of jscope's own. The format has no checksums: these are those of the header, with zeros in place of its own,
# and of the arrays in the order of the header.
_OWN = "jscope."
_BAD_METADATA = "the metadata are no mapping of texts"
_NO_SUM = f"{0:08x}"
_HEADER_SUM, _SUMS, _VERSION = _OWN + "header", _OWN + "crc32c", _OWN + "version"


_MOST_METADATA = 10_000  # texts that are written
_MOST_ENTRY = 4096  # bytes of what is said of one array: 32 dimensions and some spaces take fewer
_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


class _FormatError(ValueError):
    """What is wrong with a header."""


# Reading --------------------------------------------------------------------------------------------------------------


def is_safetensors(file: File) -> bool:
    """Whether it begins as one does: with the length of a header that fits, and the brace that opens the header."""
    if file.size < 10:
        return False
    start = file.read(0, 9)[0].tobytes()
    return int.from_bytes(start[:8], "little") <= file.size - 8 and start[8:] == b"{"


def read_safetensors(file: File, verify: bool = True) -> Contents:
    """What the file holds; `verify` says whether checksums of jscope's making are compared.

    Raises:
      CheckpointError: if it is no such file.
    """
    if file.size < 10:
        what = f"{file.path} is no safetensors file: it has {file.size} bytes."
        raise fault(what, kind="foreign", fix="give the path of a checkpoint")
    length = int.from_bytes(file.read(0, 8)[0].tobytes(), "little")
    if length > min(file.size - 8, _MOST_HEADER):
        what = f"{file.path} is no safetensors file, or cut off: its first bytes speak of a header of {length} bytes"
        raise fault(f"{what}, and it has {file.size}.", kind="foreign", fix="give the path of a checkpoint")
    data = file.read(8, length)[0]
    try:
        header = _Header(data, file.size - 8 - length, Allowance(file.path, file.size))
        order = _order(header)
        _check_spans(header)
        sums = _sums(file, header, data) if verify else None
    except _FormatError as error:
        raise damaged(file.path, 8, str(error)) from None
    skipped = {header.names[row]: f"holds {kind}, of which there are no arrays" for row, kind in header.others.items()}
    read = functools.partial(_read, file, header, sums, 8 + length)
    tensors = Tensors(read, functools.partial(_read_part, file, header, 8 + length), sums is not None)
    for row in order:
        kind, shape, _, _ = header.entry(row)
        if kind in DTYPES:
            tensors.add(header.names[row], shape, DTYPES[kind], row)
    own = {name: text for name, text in header.metadata.items() if name.startswith(_OWN)}
    users = {name: text for name, text in header.metadata.items() if name not in own}
    return Contents(file.path, tensors, skipped, users, own)


class _Header:
    """A header, parsed piece by piece: as a tree of Python's objects it would take some twenty times its size.

    Attributes:
      size: how many bytes of data follow on it.
      names: of the arrays, in the order of the header.
      begins, ends: where in the data the bytes of each are.
      others: the dtype of those of which there are no arrays, by their place among the names.
      metadata: texts by name.
    """

    def __init__(self, data: np.ndarray, size: int, allowance: Allowance) -> None:
        self.size = size
        self.names: list[str] = []
        self.begins, self.ends = array("Q"), array("Q")
        self.others: dict[int, str] = {}
        self.metadata: dict[str, str] = {}
        self._data = data.data
        self._places = array("Q")
        self._allowance = allowance
        end = self._after_space(self._object(0, self._member, "the header is no JSON object"))
        if end != len(data):
            raise _FormatError("the header is no JSON: something follows on its last brace")

    def entry(self, row: int) -> tuple[str, tuple[int, ...], int, int]:
        """(dtype, shape, begin, end) of an array."""
        return self._entry(self.names[row], self._places[row])[0]

    def _object(self, place: int, member: Callable[[str, int], int], what: str) -> int:
        """Reads an object. `member` is given each name and the place of its value, and gives the place behind that."""
        place = self._after_space(place)
        if self._data[place : place + 1] != b"{":
            raise _FormatError(what)
        place = self._after_space(place + 1)
        if self._data[place : place + 1] == b"}":
            return place + 1
        while True:
            name, place = self._string(place)
            place = self._after_space(place)
            if self._data[place : place + 1] != b":":
                raise _FormatError(f"the header is no JSON: there is no ':' at byte {place}")
            place = self._after_space(member(name, self._after_space(place + 1)))
            if self._data[place : place + 1] == b"}":
                return place + 1
            if self._data[place : place + 1] != b",":
                raise _FormatError(f"the header is no JSON: there is no ',' at byte {place}")
            place += 1

    def _member(self, name: str, place: int) -> int:
        if name == _METADATA:
            if self.metadata:
                raise _FormatError(f"the header has {name!r} twice")
            if self._data[place : place + 4] == b"null":  # which the package of that name reads as none
                return place + 4
            return self._object(place, self._text, _BAD_METADATA)
        self._allowance.take(name)
        (kind, _, begin, end), behind = self._entry(name, place)
        if kind not in DTYPES:
            self.others[len(self.names)] = kind
        self.names.append(name)
        self._places.append(place)
        self.begins.append(begin)
        self.ends.append(end)
        return behind

    def _text(self, name: str, place: int) -> int:
        if self._data[place : place + 1] != b'"':
            raise _FormatError(_BAD_METADATA)
        text, place = self._string(place)
        self._allowance.take(name, sys.getsizeof(text))
        if name in self.metadata:
            raise _FormatError(f"the metadata have {shown(name)} twice")
        self.metadata[name] = text
        return place

    def _entry(self, name: str, place: int) -> tuple[tuple[str, tuple[int, ...], int, int], int]:
        """((dtype, shape, begin, end), the place behind it)."""
        window = str(self._data[place : place + _MOST_ENTRY], "utf-8", "replace")
        try:
            entry, length = _DECODER.raw_decode(window)
        except _FormatError:
            raise
        except (ValueError, RecursionError):
            raise _FormatError(f"what is said of {shown(name)} is no JSON, or too long") from None
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _FormatError(f"{shown(name)} has not a dtype, a shape and data_offsets")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = _BITS.get(kind) if isinstance(kind, str) else None
        if bits is None:
            raise _FormatError(f"{shown(name)} has an unknown dtype, {kind!r:.40}")
        if not _whole(shape) or not can_be_read(shape):
            raise _FormatError(f"{shown(name)} has no usable shape: {shape!r:.80}")
        if not _whole(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= self.size:
            raise _FormatError(f"{shown(name)} lies at {offsets!r:.80}, and there are {self.size} bytes of data")
        begin, end = offsets
        if (end - begin) * 8 != math.prod(shape) * bits:
            raise _FormatError(f"{shown(name)}, {kind} of shape {tuple(shape)}, has not {end - begin} bytes")
        return (kind, tuple(shape), begin, end), place + length

    def _string(self, place: int) -> tuple[str, int]:
        """(a string, the place behind it)."""
        match = _STRING.match(self._data, self._after_space(place))
        if match is None:
            raise _FormatError(f"the header is no JSON: there is no string at byte {place}")
        try:
            text = json.loads(match[0].decode())
        except ValueError as error:
            raise _FormatError(f"the header is no JSON: {error!s:.80}") from None
        if not is_text(text):
            raise _FormatError(f"{shown(text)} is no text")
        return text, match.end()

    def _after_space(self, place: int) -> int:
        match = _SPACE.match(self._data, place)
        return place if match is None else match.end()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = collections.Counter(name for name, _ in pairs).most_common(1)
        raise _FormatError(f"the header has {shown(name)} twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _order(header: _Header) -> list[int]:
    """The places of the arrays in the header, in the order of their names."""
    names = header.names
    order = sorted(range(len(names)), key=names.__getitem__)
    for before, after in itertools.pairwise(order):
        if names[before] == names[after]:
            raise _FormatError(f"the header has {shown(names[after])} twice")
    return order


def _check_spans(header: _Header) -> None:
    """Together the arrays are all of the data, each byte once."""
    begins, ends = np.array(header.begins, np.uint64), np.array(header.ends, np.uint64)
    order = np.lexsort((ends, begins))
    reached = np.concatenate([np.zeros(1, np.uint64), ends[order]])
    wrong = np.flatnonzero(begins[order] != reached[:-1])
    if wrong.size:
        row = order[wrong[0]]
        how = "overlaps another array" if begins[row] < reached[wrong[0]] else "follows on a gap"
        raise _FormatError(f"{shown(header.names[row])} {how}")
    if reached[-1] != header.size:
        raise _FormatError(f"the arrays end at byte {reached[-1]} of {header.size}")


def _sums(file: File, header: _Header, data: np.ndarray) -> np.ndarray | None:
    """The checksums of the arrays in the order of the header. None where the file is not of jscope's making."""
    own = {name: text for name, text in header.metadata.items() if name.startswith(_OWN)}
    if not own:
        return None
    claimed, texts = own.get(_HEADER_SUM, ""), own.get(_SUMS, "")
    entry = _own_sum(claimed) if re.fullmatch("[0-9a-f]{8}", claimed) else b"?"
    found = re.search(re.escape(entry), data.data)
    start, end = found.span() if found else (0, 0)
    checksum = crc32c(data[end:], crc32c(np.frombuffer(_own_sum(_NO_SUM), np.uint8), crc32c(data[:start])))
    if found is None or f"{checksum:08x}" != claimed:
        why = (
            "the checksum of the header does not fit, or another program has written it anew, which verify=False reads"
        )
        fix = f"if another program wrote it, open it with verify=False and save it again; if not, {COPY_AGAIN}"
        raise fault(f"{file.path} is damaged at byte 8: {why}.", kind="damaged", fix=fix)
    try:
        sums = np.frombuffer(bytes.fromhex(texts), ">u4")
    except ValueError:
        raise _FormatError("a checksum is no hexadecimal number") from None
    if len(sums) != len(header.names):
        raise _FormatError(f"there are {len(sums)} checksums of {len(header.names)} arrays")
    return sums


def _own_sum(checksum: str) -> bytes:
    """How the checksum of the header stands in the header."""
    return f'"{_HEADER_SUM}":"{checksum}"'.encode()


def _read(
    file: File, header: _Header, sums: np.ndarray | None, start: int, name: str, row: int, checked: bool
) -> np.ndarray:
    kind, shape, begin, _ = header.entry(row)
    values = empty(shape, DTYPES[kind])
    checked = checked and sums is not None
    checksum = file.read_into(values, start + begin, checksum=checked)
    if checked and sums is not None and checksum != int(sums[row]):
        raise damaged(file.path, start + begin, f"the checksum of {shown(name)} does not fit its {values.nbytes} bytes")
    # A byte that is neither 0 nor 1 would be a third truth value to numpy.
    return np.not_equal(values.view(np.uint8), 0, out=values) if values.dtype.kind == "b" else values


def _read_part(file: File, header: _Header, start: int, name: str, row: int, index: Index) -> np.ndarray:
    kind, shape, begin, _ = header.entry(row)
    return read_part(file, start + begin, shape, DTYPES[kind], index)


# Writing --------------------------------------------------------------------------------------------------------------


def save(
    path: Path,
    params: Mapping[str, Any],
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int | None = None,
) -> None:
    """Saves a tree in one file, in the format of safetensors; or in several, in a folder. TF1: `tf.train.Saver.save`.

    Any reader of safetensors opens it. What that format lacks are checksums: they are kept in the metadata, with the
    version of jscope, and `load` compares them.

    The file takes the place of an older one at one stroke: a process that is killed at any point leaves the old file
    or the new one, whole. What it may leave beside it, `.jscope-....tmp`, is removed by the next save to the directory.
    Threads and processes may save to one path at the same time, and load from it: each reads one save, whole, and the
    one that ends last stays.

    An older file's permissions are kept, and if the path is a link to it, it stays one.

    Several files, as `save_pretrained` of transformers writes large models, take no older ones' place: the folder may
    have no checkpoint in it yet. Their index is written last; before it is there, the folder can't be loaded.

    Args:
      path: the file; with `max_shard_bytes` the folder. Its directory must exist.
      params: arrays by name, nested or flat. Values are numpy or JAX arrays, or numbers, of bool, int and uint of 8 to
        64 bits, float16 to float64, bfloat16, float8 (e4m3fn, e5m2, e8m0fnu, e4m3fnuz, e5m2fnuz) or complex64. Arrays
        that are spread over devices are gathered on this host; those that other processes hold a part of are refused.
      metadata: texts by name, to be kept in the file; `jscope.checkpoint.open(path).metadata` gives them back. Names
        that start with `jscope.` are taken.
      max_shard_bytes: how many bytes of arrays a file may have at most, where there are to be several, and
        `model.safetensors.index.json` beside them; an array that is larger has a file of its own. If all go into one,
        that is `model.safetensors`.

    Raises:
      CheckpointError: if a value is no such array, a name or the metadata can't be kept, or could not be read again,
        the path is called as another format, the folder has a checkpoint in it, or a file can't be written.
      BadTypeError, BadNameError: if `params` is no mapping of strings.
      BadArgumentError: if `max_shard_bytes` is no number of bytes.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope import checkpoint
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
      >>> checkpoint.save(file, {"tower": {"kernel": jnp.ones((2, 3), jnp.bfloat16)}}, metadata={"step": "7"})
      >>> checkpoint.load(file)
      Params({tower: {kernel: bf16[2,3]}})
      >>> checkpoint.open(file).metadata
      {'step': '7'}
      >>> folder = file.parent / "large"
      >>> checkpoint.save(folder, {"a": jnp.ones(3), "b": jnp.ones(2)}, max_shard_bytes=12)
      >>> sorted(each.name for each in folder.iterdir())[1:]
      ['model-00002-of-00002.safetensors', 'model.safetensors.index.json']
      >>> checkpoint.load(folder)
      Params({a: f32[3], b: f32[2]})
    """
    save_with({}, path, params, metadata=metadata, max_shard_bytes=max_shard_bytes)


def save_with(
    own: Mapping[str, str],
    path: Path,
    params: Mapping[str, Any],
    *,
    metadata: Mapping[str, str] | None,
    max_shard_bytes: int | None = None,
) -> None:
    """As `save`, with metadata of jscope's own."""
    target = place_of_file(path)
    if target.endswith(".npz"):
        what = f"{target} would not be a .npz file: this saves in the format of safetensors."
        fix = "name it .safetensors; for numpy use np.savez(path, **js.Params(params).flat())"
        raise fault(what, kind="other_format", fix=fix)
    arrays = _checked(params)
    kept = {**_checked_metadata({} if metadata is None else metadata), **own}

    if max_shard_bytes is None:
        replace_file(target, lambda file: _write(file, arrays, kept))
        return
    sizes = {
        name: np.size(leaf) * DTYPES[_NAMES[kind_of(name, leaf)]].itemsize for name, leaf in sorted(arrays.items())
    }

    def write(names: Collection[str], file: BinaryIO) -> None:
        _write(file, {name: leaf for name, leaf in arrays.items() if name in names}, kept)

    write_folder(target, shared_out(sizes, max_shard_bytes), sum(sizes.values()), write)


def _write(file: BinaryIO, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    # The checksums come before the arrays: the first pass sums, the second writes, and no second copy is held.
    spans, sums, offset = {}, [], 0
    for name, leaf in arrays.items():
        array, data = bytes_of(leaf)
        end = offset + data.size
        spans[name] = {"dtype": _NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [offset, end]}
        sums.append(f"{crc32c(data):08x}")
        offset = end
    file.write(_header({_VERSION: js.__version__, _SUMS: " ".join(sums), **metadata}, spans))
    for leaf in arrays.values():
        file.write(bytes_of(leaf)[1].data)


def _header(metadata: dict[str, str], spans: dict[str, Any]) -> bytes:
    entries = {_METADATA: {_HEADER_SUM: _NO_SUM, **metadata}, **spans}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    if len(text) > _MOST_HEADER:
        what = f"Names and metadata take {len(text):,} bytes of the file, and could not be read again."
        raise fault(what, kind="too_many", fix="keep shorter texts in metadata=, or fewer arrays in one file")
    checksum = f"{crc32c(np.frombuffer(text, np.uint8)):08x}"
    return len(text).to_bytes(8, "little") + text.replace(_own_sum(_NO_SUM), _own_sum(checksum), 1)


def _checked(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by name in the order of the file: the widest numbers first, so that each is aligned."""
    flat = js.Params(params).flat()
    for name, leaf in flat.items():
        if name == _METADATA or not is_text(name):
            what = f"An array can't be saved by the name {name!r}."
            raise fault(what, kind="bad_key", fix=f"rename it: names are text, and {_METADATA!r} is taken")
        kind = kind_of(name, leaf)
        if kind not in _NAMES:
            what = f"'{name}' is no array that safetensors could hold, but {kind}."
            fix = f"convert it to one of {', '.join(_NAMES)}; save_tf also takes complex128; {ADVICE}"
            raise fault(what, kind="bad_dtype", fix=fix)
    widths = {name: DTYPES[_NAMES[kind_of(name, leaf)]].itemsize for name, leaf in flat.items()}
    return {name: flat[name] for name in sorted(flat, key=lambda name: (-widths[name], name))}


def _checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(metadata, Mapping):
        what = f"Metadata are texts by name, not {metadata!r:.40}."
        raise fault(what, kind="bad_metadata", fix='give a dict, such as {"step": "7"}')
    if len(metadata) > _MOST_METADATA:
        what = f"There are {len(metadata):,} texts of metadata, and at most {_MOST_METADATA:,} are kept."
        raise fault(what, kind="bad_metadata", fix="put them into one text, by json.dumps")
    for name, text in metadata.items():
        if not (isinstance(name, str) and isinstance(text, str) and is_text(name) and is_text(text)):
            what = f"Metadata are texts by name, not {name!r:.40}: {text!r:.40}."
            raise fault(what, kind="bad_metadata", fix="convert it: json.dumps makes a text of most things")
        if name.startswith(_OWN):
            raise fault(f"The metadata {name!r} is jscope's own.", kind="bad_metadata", fix="give it another name")
    return dict(metadata)
