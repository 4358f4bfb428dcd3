"""The format of safetensors: a header in JSON, then the arrays one behind the other.

Read and written here, not by the package of that name: that one maps files (one that somebody shortens ends the
process), takes a name that is there twice, and gives numpy no bfloat16 and no float8. The tests hold the two together.
"""

from __future__ import annotations

import collections
import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

import jscope as js

from .atomic import replace_file
from .crc32c import crc32c
from .faults import Path, damaged, fault
from .files import File
from .leaves import ADVICE, bytes_of, kind_of
from .tensors import Contents, Tensor

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
_MOST_DIMENSIONS = 32
_MOST_BYTES = 1 << 62
_METADATA = "__metadata__"
# Metadata of jscope's own. The format has no checksums: these are those of the header, with zeros in place of its own,
# and of the arrays in the order of the header.
_OWN = "jscope."
_HEADER_SUM, _SUMS, _VERSION = _OWN + "header", _OWN + "crc32c", _OWN + "version"


class _FormatError(ValueError):
    """What is wrong with a header."""


# Reading --------------------------------------------------------------------------------------------------------------


def is_safetensors(file: File) -> bool:
    """Whether it begins as one does: with the length of a header that fits, and the brace that opens the header."""
    if file.size < 10:
        return False
    start = file.read(0, 9)[0].tobytes()
    return int.from_bytes(start[:8], "little") <= file.size - 8 and start[8:] == b"{"


def read_safetensors(path: Path) -> Contents:
    """What the file holds.

    Raises:
      CheckpointError: if it is no such file.
    """
    file = File(path)
    if file.size < 10:
        what = f"{file.path} is no safetensors file: it has {file.size} bytes."
        raise fault(what, kind="foreign", fix="give the path of a checkpoint")
    length = int.from_bytes(file.read(0, 8)[0].tobytes(), "little")
    if length > min(file.size - 8, _MOST_HEADER):
        what = f"{file.path} is no safetensors file, or cut off: its first bytes speak of a header of {length} bytes"
        raise fault(f"{what}, and it has {file.size}.", kind="foreign", fix="give the path of a checkpoint")
    header = file.read(8, length)[0].tobytes()
    try:
        entries = _parsed(header)
        metadata = _metadata(entries.pop(_METADATA, {}))
        own = {name: text for name, text in metadata.items() if name.startswith(_OWN)}
        spans = _spans(entries, file.size - 8 - length)
        sums = _sums(own, spans, header)
    except _FormatError as error:
        raise damaged(file.path, 8, str(error)) from None
    tensors, skipped = {}, {}
    for name, (kind, shape, begin, end) in spans.items():
        if kind in DTYPES:
            tensors[name] = _tensor(name, DTYPES[kind], shape, file, 8 + length + begin, end - begin, sums.get(name))
        else:
            skipped[name] = f"holds {kind}, of which there are no arrays"
    users = {name: text for name, text in metadata.items() if name not in own}
    return Contents(file.path, tensors, skipped, users)


def _parsed(header: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            ((name, _),) = collections.Counter(name for name, _ in pairs).most_common(1)
            raise _FormatError(f"the header has {name!r} twice")
        return found

    try:
        entries = json.loads(header.decode(), object_pairs_hook=unique)
    except _FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise _FormatError(f"the header is no JSON: {str(error)[:80]}") from None
    if not isinstance(entries, dict):
        raise _FormatError("the header is no JSON object")
    return entries


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _FormatError("the metadata is no mapping of texts")
    return value


def _spans(entries: dict[str, Any], size: int) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """(dtype, shape, begin, end) by name. Together they are all of the `size` bytes, each byte once."""
    spans = {}
    for name, entry in entries.items():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise _FormatError(f"the name {name!r} is no text") from None
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _FormatError(f"'{name}' has not a dtype, a shape and data_offsets")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = _BITS.get(kind) if isinstance(kind, str) else None
        if bits is None:
            raise _FormatError(f"'{name}' has an unknown dtype, {kind!r:.40}")
        if not _whole(shape) or len(shape) > _MOST_DIMENSIONS or math.prod(n or 1 for n in shape) > _MOST_BYTES // 16:
            raise _FormatError(f"'{name}' has no usable shape: {shape!r:.80}")
        if not _whole(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size:
            raise _FormatError(f"'{name}' lies at {offsets!r:.80}, and there are {size} bytes of data")
        if (offsets[1] - offsets[0]) * 8 != math.prod(shape) * bits:
            raise _FormatError(f"'{name}', {kind} of shape {tuple(shape)}, has not {offsets[1] - offsets[0]} bytes")
        spans[name] = (kind, tuple(shape), *offsets)
    reached = 0
    for name, (_, _, begin, end) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if begin != reached:
            raise _FormatError(f"'{name}' {'overlaps another array' if begin < reached else 'follows on a gap'}")
        reached = end
    if reached != size:
        raise _FormatError(f"the arrays end at byte {reached} of {size}")
    return spans


def _whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _sums(own: dict[str, str], names: Mapping[str, Any], header: bytes) -> dict[str, int]:
    """The checksums by name. Empty where the file is not of jscope's making."""
    if not own:
        return {}
    claimed, sums = own.get(_HEADER_SUM, ""), own.get(_SUMS, "").split()
    entry = f'"{_HEADER_SUM}":"{claimed}"'.encode()
    zeroed = header.replace(entry, f'"{_HEADER_SUM}":"{0:08x}"'.encode(), 1)
    if entry not in header or f"{crc32c(np.frombuffer(zeroed, np.uint8)):08x}" != claimed:
        raise _FormatError("the checksum of the header does not fit, or another program has written it anew")
    if len(sums) != len(names):
        raise _FormatError(f"there are {len(sums)} checksums of {len(names)} arrays")
    try:
        return {name: int(text, 16) for name, text in zip(names, sums, strict=True)}
    except ValueError:
        raise _FormatError("a checksum is no hexadecimal number") from None


def _tensor(
    name: str, dtype: np.dtype, shape: tuple[int, ...], file: File, offset: int, size: int, expected: int | None
) -> Tensor:
    def read(checked: bool) -> np.ndarray:
        checked = checked and expected is not None
        data, checksum = file.read(offset, size, checksum=checked)
        if checked and checksum != expected:
            raise damaged(file.path, offset, f"the checksum of '{name}' does not fit its {size} bytes")
        # A byte that is neither 0 nor 1 would be a third truth value to numpy.
        return (data != 0 if dtype.kind == "b" else data.view(dtype)).reshape(shape)

    return Tensor(shape, dtype, read)


# Writing --------------------------------------------------------------------------------------------------------------


def save(path: Path, params: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None) -> None:
    """Saves a tree in one file, in the format of safetensors. TF1: `tf.train.Saver.save`.

    Any reader of safetensors opens it. What that format lacks are checksums: they are kept in the metadata, with the
    version of jscope, and `load` compares them.

    The file takes the place of an older one at one stroke: a process that is killed at any point leaves the old file
    or the new one, whole. What it may leave beside it, `PATH.tmp`, is written over by the next save. One process at a
    time may save to a path.

    Args:
      path: the file. Its directory must exist.
      params: arrays by name, nested or flat. Values are numpy or JAX arrays, or numbers, of bool, int and uint of 8 to
        64 bits, float16 to float64, bfloat16, float8 (e4m3fn, e5m2, e8m0fnu, e4m3fnuz, e5m2fnuz) or complex64. Arrays
        that are spread over devices are gathered on this host.
      metadata: texts by name, to be kept in the file; `jscope.checkpoint.open(path).metadata` gives them back. Names
        that start with `jscope.` are taken.

    Raises:
      CheckpointError: if a value is no such array, a name or the metadata can't be kept, the path ends in `.npz`, or
        the file can't be written.
      BadTypeError, BadNameError: if `params` is no mapping of strings.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope import checkpoint
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
      >>> checkpoint.save(file, {"tower": {"kernel": jnp.ones((2, 3), jnp.bfloat16)}}, metadata={"step": "7"})
      >>> checkpoint.load(file)
      Params({tower: {kernel: bf16[2,3]}})
      >>> checkpoint.open(file).metadata
      {'step': '7'}
    """
    if os.fsdecode(path).endswith(".npz"):
        what = f"{os.fsdecode(path)} would not be a .npz file: this saves in the format of safetensors."
        fix = "name it .safetensors; for numpy use np.savez(path, **js.Params(params).flat())"
        raise fault(what, kind="other_format", fix=fix)
    arrays = _checked(params)
    kept = _checked_metadata({} if metadata is None else metadata)

    def write(file: BinaryIO) -> None:
        # The checksums come before the arrays: the first pass sums, the second writes, and no second copy is held.
        spans, sums, offset = {}, [], 0
        for name, leaf in arrays.items():
            array, data = bytes_of(leaf)
            end = offset + data.size
            spans[name] = {
                "dtype": _NAMES[array.dtype.name],
                "shape": list(array.shape),
                "data_offsets": [offset, end],
            }
            sums.append(f"{crc32c(data):08x}")
            offset = end
        file.write(_header({_VERSION: js.__version__, _SUMS: " ".join(sums), **kept}, spans))
        for leaf in arrays.values():
            file.write(bytes_of(leaf)[1].data)

    replace_file(os.fsdecode(path), write)


def _header(metadata: dict[str, str], spans: dict[str, Any]) -> bytes:
    empty = f"{0:08x}"
    entries = {_METADATA: {_HEADER_SUM: empty, **metadata}, **spans}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    own = f'"{_HEADER_SUM}":"{empty}"'.encode()
    text = text.replace(own, own.replace(empty.encode(), f"{crc32c(np.frombuffer(text, np.uint8)):08x}".encode()), 1)
    return len(text).to_bytes(8, "little") + text


def _checked(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by name in the order of the file: the widest numbers first, so that each is aligned."""
    flat = js.Params(params).flat()
    for name, leaf in flat.items():
        if name == _METADATA or not _is_text(name):
            what = f"An array can't be saved by the name {name!r}."
            raise fault(what, kind="bad_key", fix=f"rename it: names are text, and {_METADATA!r} is taken")
        kind = kind_of(leaf)
        if kind not in _NAMES:
            what = f"'{name}' is no array that safetensors could hold, but {kind}."
            fix = f"convert it to one of {', '.join(_NAMES)}; save_tf also takes complex128; {ADVICE}"
            raise fault(what, kind="bad_dtype", fix=fix)
    widths = {name: DTYPES[_NAMES[kind_of(leaf)]].itemsize for name, leaf in flat.items()}
    return {name: flat[name] for name in sorted(flat, key=lambda name: (-widths[name], name))}


def _checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(metadata, Mapping):
        what = f"Metadata are texts by name, not {metadata!r:.40}."
        raise fault(what, kind="bad_metadata", fix='give a dict, such as {"step": "7"}')
    for name, text in metadata.items():
        if not (isinstance(name, str) and isinstance(text, str) and _is_text(name) and _is_text(text)):
            what = f"Metadata are texts by name, not {name!r:.40}: {text!r:.40}."
            raise fault(what, kind="bad_metadata", fix="convert it: json.dumps makes a text of most things")
        if name.startswith(_OWN):
            raise fault(f"The metadata {name!r} is jscope's own.", kind="bad_metadata", fix="give it another name")
    return dict(metadata)


def _is_text(text: str) -> bool:
    """Whether it can be encoded: no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
