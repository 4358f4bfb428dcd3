"""`save_tf`: a bundle of one shard, put in place at one stroke."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

import jscope as js
from jscope._support import flush, flush_directory, left_over, new_file, permissions, replacement

from .allowance import Allowance
from .bundle import data_path, number_of_shards
from .crc32c import crc32c, masked
from .dtypes import NUMBERS, put_shape
from .faults import Path, fault, file_name, unwritable
from .leaves import bytes_of, kind_of
from .opening import is_read_alone
from .table_writer import write_table
from .wire import put_block, put_fixed32, put_integer

_KNOWN = [dtype.name for dtype in NUMBERS]


def save_tf(path: Path, params: Mapping[str, Any]) -> None:
    """Saves arrays as a checkpoint that TensorFlow reads, of the second version. TF1: `tf.train.Saver.save`.

    The names in it are the full names. It is as TensorFlow's own: one data file, `PREFIX.data-00000-of-00001`, and
    `PREFIX.index`, uncompressed.

    A checkpoint of that prefix is replaced at one stroke, when the new index takes the old one's place: a process that
    is killed at any point leaves the old checkpoint or the new one, whole. For the data of both to be there at that
    moment, their names must differ, and the only part that the format leaves open is the number of shards: so the
    second save to a prefix is one of two shards, `-of-00002`, of which the other is empty, the third one of one shard
    again. A killed save may leave a data file that no index names; the next save to the prefix removes it.

    Threads and processes may save to one prefix at the same time, and load from it: each save takes a number of shards
    that no other has, and the one that ends last stays. That needs a system and a file system with file locks
    (`flock`); where there are none, one save at a time may be under way. The file `checkpoint`, which names the latest
    one of a directory, is left alone.

    The index keeps the permissions of the one that it replaces, also where its name is a link to it, and the data gets
    the same.

    Args:
      path: the prefix, such as `"out/model.ckpt-1000"`. Its directory must exist.
      params: arrays by name, nested or flat: `js.Params`, dicts, an optax state turned into a dict. Values are numpy or
        JAX arrays, or numbers, of a dtype that TensorFlow has: float, int, uint and complex of all sizes, bool,
        bfloat16, float8_e5m2, float8_e4m3fn.

    Raises:
      CheckpointError: if a value is no such array, a name can't be a key, there is a file of another format at the
        prefix itself, or the files can't be written.
      BadTypeError, BadNameError: if `params` is no mapping of strings.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope.checkpoint import load_tf, save_tf
      >>> prefix = pathlib.Path(tempfile.mkdtemp()) / "model.ckpt"
      >>> save_tf(prefix, js.Params({"tower": {"kernel": jnp.ones((2, 3), jnp.bfloat16)}}))
      >>> sorted(file.name for file in prefix.parent.iterdir())
      ['model.ckpt.data-00000-of-00001', 'model.ckpt.index']
      >>> load_tf(prefix)["tower/kernel"].dtype
      dtype(bfloat16)
    """
    prefix = file_name(path, "unwritable")
    arrays = _checked(prefix, params)
    try:
        mode = permissions(prefix + ".index")
        _remove_unused(prefix)
        with _numbered(prefix, mode) as (shards, data):
            try:
                entries = _write_data(prefix, shards, mode, data, arrays)
                table = list(write_table(entries))
                _check_can_be_read(prefix, entries, sum(map(len, table)))
                with replacement(prefix + ".index") as index:
                    index.writelines(table)
            except BaseException:
                if _named(prefix) != shards:
                    _remove(_data_files(prefix).get(shards, []))
                raise
            _remove_unused(prefix)
    except OSError as error:
        raise unwritable(prefix, error) from error


def _checked(prefix: str, params: Mapping[str, Any]) -> dict[bytes, Any]:
    """Arrays by key, sorted. What can't be saved is found before anything is written."""
    if not os.path.basename(prefix):
        what = f"A checkpoint's prefix ends in a name, and {prefix!r} does not."
        raise fault(what, kind="bad_prefix", fix="give one such as 'out/model.ckpt-1000'")
    if is_read_alone(prefix):
        what = f"{prefix} is a file of another format, which would be read in place of the checkpoint of that prefix."
        raise fault(what, kind="other_format", fix="save to another prefix, or remove that file before")
    arrays = {}
    for name, leaf in js.Params(params).flat().items():
        try:
            key = name.encode()
        except UnicodeEncodeError:
            key = b""
        if not key or key.startswith(b"\0"):
            what = f"An array can't be saved by the name {name!r}."
            raise fault(what, kind="bad_key", fix="rename it: names are text, not empty, and do not start with a zero")
        kind = kind_of(name, leaf)
        if kind not in _KNOWN:
            what = f"'{name}' is no array that TensorFlow could read, but {kind}."
            fix = f"convert it to one of {', '.join(_KNOWN)}; of a key of jax.random, save jax.random.key_data(key)"
            raise fault(what, kind="bad_dtype", fix=fix)
        arrays[key] = leaf
    return dict(sorted(arrays.items()))


def _check_can_be_read(prefix: str, entries: Mapping[bytes, bytes], size: int) -> None:
    """Nothing is saved that `load_tf` would refuse: very many names that are stored in very few bytes each."""
    allowance = Allowance(prefix, size)
    try:
        for key, value in entries.items():
            allowance.take(key, len(value))
    except js.CheckpointError:
        what = f"{len(entries) - 1:,} arrays are too many for an index of {size:,} bytes: it could not be read again."
        raise fault(what, kind="too_many", fix="save them in one file, by jscope.checkpoint.save") from None


def _named(prefix: str) -> int | None:
    """The number of shards of which the index speaks, None if there is no index that can be read."""
    try:
        return number_of_shards(prefix + ".index")
    except js.CheckpointError:
        return None


@contextlib.contextmanager
def _numbered(prefix: str, mode: int | None) -> Iterator[tuple[int, BinaryIO]]:
    """(a number of shards that no other data of this prefix has, its first data file, locked for all of it)."""
    named = _named(prefix)
    # Data of an index that can't be read here must be spared.
    taken = set(_data_files(prefix)) if named is None and os.path.exists(prefix + ".index") else {named}
    count, file = 0, None
    while file is None:
        count += 1
        if count not in taken:
            with contextlib.suppress(FileExistsError):
                file = new_file(data_path(prefix, 0, count), mode)
    with file:
        yield count, file


def _write_data(
    prefix: str, shards: int, mode: int | None, file: BinaryIO, arrays: dict[bytes, Any]
) -> dict[bytes, bytes]:
    """Writes the data files. Gives the entries of their index, sorted."""
    entries = {b"": put_integer(1, shards) + put_block(3, put_integer(1, 1))}
    offset = 0
    for key, leaf in arrays.items():
        array, data = bytes_of(leaf)
        file.write(data.data)
        entries[key] = _entry(array, offset, masked(crc32c(data)))
        offset += data.size
    flush(file)
    _remove([data_path(prefix, empty, shards) for empty in range(1, shards)])  # what a killed save left
    for empty in range(1, shards):
        with new_file(data_path(prefix, empty, shards), mode) as other:
            flush(other)
    flush_directory(prefix)
    return entries


def _entry(array: np.ndarray, offset: int, checksum: int) -> bytes:
    """A BundleEntryProto in shard 0."""
    return (
        put_integer(1, NUMBERS[array.dtype])
        + put_block(2, put_shape(array.shape))
        + put_integer(4, offset)
        + put_integer(5, array.nbytes)
        + put_fixed32(6, checksum)
    )


def _data_files(prefix: str) -> dict[int, list[str]]:
    """The data files of a prefix by their number of shards."""
    directory, name = os.path.split(prefix)
    pattern = re.compile(re.escape(name) + r"\.data-\d{5,}-of-(\d{5,})")
    files: dict[int, list[str]] = {}
    for file in os.listdir(directory or "."):
        match = pattern.fullmatch(file)
        if match is not None:
            files.setdefault(int(match[1]), []).append(os.path.join(directory, file))
    return files


def _remove_unused(prefix: str) -> None:
    """Removes data that no index names and no save is writing."""
    for count, files in _data_files(prefix).items():
        with left_over(data_path(prefix, 0, count)) as is_left_over:
            # Only who has the lock can write an index that names this data: so the index is read while nobody else has.
            if is_left_over is not False and _named(prefix) not in (None, count):
                _remove(files)


def _remove(files: list[str]) -> None:
    """Removes data files, that of shard 0, which stands for all of them, last."""
    for file in sorted(files, reverse=True):
        # On Windows a file that somebody reads can't be removed; the next save does it.
        with contextlib.suppress(OSError):
            os.remove(file)
