"""The second version of the format: an index, and data in one or more shards."""

from __future__ import annotations

import dataclasses
import math
import os

import numpy as np

import jscope as js

from .crc32c import masked
from .dtypes import DTYPES, dtype_number, read_shape, why_not
from .faults import damaged, fault
from .files import File
from .slices import Extent, read_slice, slice_key, within
from .table import Table
from .tensors import Contents, Tensor
from .wire import WireError, block, fields, fixed32, integer, signed

_ATTEMPTS = 4
_VERSION = 1  # of the format, as far as this reader knows it


@dataclasses.dataclass(frozen=True)
class Entry:
    """A BundleEntryProto: where an array, or a part of one, lies."""

    number: int  # of the dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    slices: tuple[tuple[Extent, ...], ...]
    place: int  # of this entry in the index


@dataclasses.dataclass(frozen=True)
class Index:
    """All of an index."""

    file: File
    shards: int
    entries: dict[bytes, Entry]


def read_index(path: str) -> Index:
    """Reads a `.index` file.

    Raises:
      CheckpointError: if it is none.
    """
    file = File(path)
    shards, entries = -1, {}
    for key, value, place in Table(file).items():
        try:
            if shards < 0:
                if key:
                    raise WireError(0, "the first entry is not the header of an index")
                shards = _header(path, value)
            else:
                entries[key] = _entry(value, place, shards)
        except WireError as error:
            raise damaged(path, place, str(error)) from None
    if shards < 0:
        raise damaged(path, 0, "there is no header")
    return Index(file, shards, entries)


def data_path(prefix: str, shard: int, shards: int) -> str:
    """The name of a data file."""
    return f"{prefix}.data-{shard:05d}-of-{shards:05d}"


def read_bundle(prefix: str, *, with_data: bool) -> Contents:
    """What the bundle holds; with the data, its files must be there, and as long as the index needs.

    Raises:
      CheckpointError: if it is not sound.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _read(prefix, with_data)
        except js.CheckpointError as error:
            # It may be replaced just now: then there soon is a whole one again.
            if error.kind not in ("changed", "not_found"):
                raise
    return _read(prefix, with_data)


def _read(prefix: str, with_data: bool) -> Contents:
    index = read_index(prefix + ".index")
    tensors, skipped = {}, {}
    files = _shards(prefix, index) if with_data else {}
    for key, entry in index.entries.items():
        if key.startswith(b"\0"):
            continue  # a part, which its variable names
        try:
            try:
                name = key.decode()
            except UnicodeDecodeError:
                raise WireError(0, f"the name {key!r:.80} is not UTF-8") from None
            if entry.number not in DTYPES:
                skipped[name] = why_not(entry.number)
                continue
            parts = _parts(name, entry, index)
        except WireError as error:
            raise damaged(index.file.path, entry.place, str(error)) from None
        tensors[name] = _tensor(index.file.path, name, entry, parts, files)
    return Contents(prefix, tensors, skipped)


def _header(path: str, message: memoryview) -> int:
    """Reads a BundleHeaderProto: the number of shards."""
    shards = big_endian = oldest = 0
    for number, value in fields(message):
        if number == 1:
            shards = integer(value)
        elif number == 2:
            big_endian = integer(value)
        elif number == 3:
            oldest = max([signed(integer(least)) for inner, least in fields(block(value)) if inner == 2], default=0)
    if big_endian:
        what = f"{path} was written on a big-endian machine."
        raise fault(what, kind="unsupported", fix="read it with TensorFlow and save it on another machine")
    if oldest > _VERSION:
        what = f"{path} needs a reader of version {oldest} of the format, and this is one of version {_VERSION}."
        raise fault(what, kind="unsupported", fix="update jscope, or save the checkpoint with an older TensorFlow")
    if not 0 < shards < 1 << 31:
        raise WireError(0, f"the header speaks of {shards} shards")
    return shards


def _entry(message: memoryview, place: int, shards: int) -> Entry:
    """Reads a BundleEntryProto."""
    dtype = shard = offset = size = checksum = 0
    shape: tuple[int, ...] = ()
    slices = []
    for number, value in fields(message):
        if number == 1:
            dtype = dtype_number(integer(value))
        elif number == 2:
            shape = read_shape(block(value))
        elif number == 3:
            shard = integer(value)
        elif number == 4:
            offset = integer(value)
        elif number == 5:
            size = integer(value)
        elif number == 6:
            checksum = fixed32(value)
        elif number == 7:
            slices.append(read_slice(block(value)))
    if shard >= shards:
        raise WireError(0, f"an entry is in shard {shard}, but there are {shards}")
    if dtype in DTYPES and not slices and size != math.prod(shape) * DTYPES[dtype].itemsize:
        raise WireError(0, f"{DTYPES[dtype]} of shape {shape} has not {size} bytes")
    return Entry(dtype, shape, shard, offset, size, checksum, tuple(slices), place)


def _shards(prefix: str, index: Index) -> dict[int, File]:
    """The data files that hold an array, each checked to hold all of its entries, none of them twice.

    Entries that overlap would let a small file fill the memory.
    """
    files: dict[int, File] = {}
    end = {}
    stored = (entry for entry in index.entries.values() if not entry.slices and entry.number in DTYPES)
    for entry in sorted(stored, key=lambda entry: (entry.shard, entry.offset, entry.size)):
        if entry.shard not in files:
            path = data_path(prefix, entry.shard, index.shards)
            if not os.path.exists(path):
                what = f"{prefix} lacks a data file: {os.path.basename(path)}."
                fix = "copy all data files to where the index is"
                raise fault(what, kind="not_found", exists=index.file.path, fix=fix)
            files[entry.shard] = File(path)
        file = files[entry.shard]
        if entry.offset + entry.size > file.size:
            index.file.check_unchanged()  # else it may be the file of a later save, which is under way
            what = f"the index has {entry.size} bytes there, but the file has {file.size} bytes"
            raise damaged(file.path, entry.offset, what)
        if entry.size and entry.offset < end.get(entry.shard, 0):
            raise damaged(index.file.path, entry.place, "two arrays overlap")
        end[entry.shard] = max(entry.offset + entry.size, end.get(entry.shard, 0))
    index.file.check_unchanged()  # else these could be the files of the next checkpoint of that name
    return files


def _parts(name: str, entry: Entry, index: Index) -> list[tuple[tuple[slice, ...], Entry]]:
    """The parts of a partitioned variable, which must fill it."""
    if len(set(entry.slices)) < len(entry.slices):
        raise WireError(0, f"'{name}' has a part twice")
    parts = []
    for extents in entry.slices:
        where = within(extents, entry.shape)
        part = index.entries.get(slice_key(name, extents))
        if part is None:
            raise WireError(0, f"a part of '{name}' is missing")
        shape = tuple(along.stop - along.start for along in where)
        if (part.number, part.shape, part.slices) != (entry.number, shape, ()):
            raise WireError(0, f"a part of '{name}' is not of its shape and dtype")
        parts.append((where, part))
    if parts and sum(math.prod(part.shape) for _, part in parts) != math.prod(entry.shape):
        raise WireError(0, f"the parts of '{name}' do not fill it")
    return parts


def _tensor(
    path: str, name: str, entry: Entry, parts: list[tuple[tuple[slice, ...], Entry]], files: dict[int, File]
) -> Tensor:
    def read(checked: bool) -> np.ndarray:
        if not parts:
            return _array(name, entry, files[entry.shard], checked)
        whole = np.empty(entry.shape, DTYPES[entry.number])
        filled = np.zeros(entry.shape, bool)
        for where, part in parts:
            whole[where] = _array(name, part, files[part.shard], checked)
            filled[where] = True
        if not filled.all():
            raise damaged(path, entry.place, f"the parts of '{name}' overlap")
        return whole

    return Tensor(entry.shape, DTYPES[entry.number], read)


def _array(name: str, entry: Entry, file: File, checked: bool) -> np.ndarray:
    data, checksum = file.read(entry.offset, entry.size, checksum=checked)
    if checked and masked(checksum) != entry.checksum:
        raise damaged(file.path, entry.offset, f"the checksum of '{name}' does not fit its {entry.size} bytes")
    dtype = DTYPES[entry.number]
    # A byte that is neither 0 nor 1 would be a third truth value to numpy.
    return (data != 0 if dtype.kind == "b" else data.view(dtype)).reshape(entry.shape)
