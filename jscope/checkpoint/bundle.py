"""The second version of the format: an index, and data in one or more shards."""

from __future__ import annotations

import functools
import math
import os
from array import array
from typing import NamedTuple

import numpy as np

import jscope as js
from jscope._support import shown

from .crc32c import masked
from .dtypes import DTYPES, dtype_number, read_shape, why_not
from .faults import damaged, fault
from .files import File
from .slices import Extent, add_slice, slice_key, within
from .table import Table
from .tensors import Contents, Tensors
from .wire import WireError, block, fields, fixed32, integer, signed

_ATTEMPTS = 1000  # each fails only where another save ended meanwhile
_MOST_OPEN = 64  # data files
_VERSION = 1  # of the format, as far as this reader knows it


class Entry(NamedTuple):
    """A BundleEntryProto: where an array, or a part of one, lies."""

    number: int  # of the dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    slices: tuple[tuple[Extent, ...], ...]
    place: int  # of this entry in the index


class _Entries:
    """The entries of an index, counted in its order: kept as they are stored, and parsed when they are asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._values, self._ends, self._places = bytearray(), array("Q"), array("Q")

    def add(self, value: memoryview, place: int) -> None:
        self._values += value
        self._ends.append(len(self._values))
        self._places.append(place)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> Entry:
        start = self._ends[row - 1] if row else 0
        return _entry(memoryview(self._values[start : self._ends[row]]), self._places[row])


class Index:
    """All of an index.

    Attributes:
      file: the file.
      shards: how many data files there are.
      entries: all entries.
      tensors: the arrays.
      skipped: why others are none, by name.
      partitioned: name and row of those that are stored in parts.
      parts: the rows of parts, by their keys.
      stored: shard, offset, size and row of all that is stored, one column each.
      files: the data files by shard, as soon as they are opened.

    Raises:
      CheckpointError: if it is none.
    """

    def __init__(self, path: str) -> None:
        self.file = File(path)
        self.shards = 0
        self.entries = _Entries(path)
        self.skipped: dict[str, str] = {}
        self.partitioned: list[tuple[str, int]] = []
        self.parts: dict[bytes, int] = {}
        self.files: dict[int, File] = {}
        self.tensors = Tensors(functools.partial(_read, self.entries, self.parts, self.files))
        columns = array("Q"), array("Q"), array("Q"), array("Q")
        table = Table(self.file)
        for key, value, place in table.items():
            try:
                if not self.shards:
                    self.shards = _first(path, key, value)
                    continue
                table.allowance.take(key, len(value))
                row, entry = len(self.entries), _entry(value, place)
                self.entries.add(value, place)
                self._add(key, row, entry)
            except WireError as error:
                raise damaged(path, place, str(error)) from None
            if not entry.slices and entry.number in DTYPES:
                for column, number in zip(columns, (entry.shard, entry.offset, entry.size, row), strict=True):
                    column.append(number)
        if not self.shards:
            raise damaged(path, 0, "there is no header")
        self.stored = np.array(columns, np.uint64)

    def _add(self, key: bytes, row: int, entry: Entry) -> None:
        if entry.shard >= self.shards:
            raise WireError(0, f"an entry is in shard {entry.shard}, but there are {self.shards}")
        if key.startswith(b"\0"):
            self.parts[key] = row
            return
        try:
            name = key.decode()
        except UnicodeDecodeError:
            raise WireError(0, f"the name {key[:40]!r} is not UTF-8") from None
        if entry.number not in DTYPES:
            self.skipped[name] = why_not(entry.number)
            return
        self.tensors.add(name, entry.shape, DTYPES[entry.number], row)
        if entry.slices:
            self.partitioned.append((name, row))


def number_of_shards(path: str) -> int:
    """That of a `.index` file; no more of it is read.

    Raises:
      CheckpointError: if it is none.
    """
    for key, value, place in Table(File(path)).items():
        try:
            return _first(path, key, value)
        except WireError as error:
            raise damaged(path, place, str(error)) from None
    raise damaged(path, 0, "there is no header")


def data_path(prefix: str, shard: int, shards: int) -> str:
    """The name of a data file."""
    return f"{prefix}.data-{shard:05d}-of-{shards:05d}"


def read_bundle(prefix: str, *, with_data: bool) -> Contents:
    """What the bundle holds; with the data, its files must be there, and as long as the index needs.

    Raises:
      CheckpointError: if it is not sound.
    """
    attempts = 0
    while True:
        index = Index(prefix + ".index")
        try:
            for name, row in index.partitioned:
                _check_parts(name, index.entries[row], index)
            if with_data:
                _open_data(prefix, index)
            return Contents(prefix, index.tensors, index.skipped)
        except js.CheckpointError:
            # The data of an index stays as long as that is the one in use. If it is not, these were files of another.
            attempts += 1
            if attempts == _ATTEMPTS or index.file.is_unchanged():
                raise


def _first(path: str, key: bytes, value: memoryview) -> int:
    """The number of shards, which the first entry holds."""
    if key:
        raise WireError(0, "the first entry is not the header of an index")
    return _header(path, value)


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


def _entry(message: memoryview, place: int) -> Entry:
    """Reads a BundleEntryProto."""
    dtype = shard = offset = size = checksum = 0
    shape: tuple[int, ...] = ()
    slices: list[tuple[Extent, ...]] = []
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
            add_slice(slices, block(value))
    if dtype in DTYPES and not slices and size != math.prod(shape) * DTYPES[dtype].itemsize:
        raise WireError(0, f"{DTYPES[dtype]} of shape {shape} has not {size} bytes")
    return Entry(dtype, shape, shard, offset, size, checksum, tuple(slices), place)


def _open_data(prefix: str, index: Index) -> None:
    """Opens the data files that hold an array, each checked to hold all of its entries, none of them twice.

    Entries that overlap would let a small file fill the memory.
    """
    shards, offsets, sizes, rows = index.stored[:, np.lexsort(index.stored[2::-1])]
    index.files.update((number, _data_file(prefix, number, index)) for number in np.unique(shards).tolist())
    lengths = np.array([index.files[number].size for number in shards.tolist()], np.uint64)
    outside = np.flatnonzero((offsets > lengths) | (sizes > lengths - np.minimum(offsets, lengths)))
    if outside.size:
        bad, file = outside[0], index.files[int(shards[outside[0]])]
        what = f"the index has {sizes[bad]} bytes there, but the file has {file.size} bytes"
        raise damaged(file.path, int(offsets[bad]), what)
    filled = np.flatnonzero(sizes)
    before, after = filled[:-1], filled[1:]
    overlap = after[(shards[before] == shards[after]) & (offsets[after] < offsets[before] + sizes[before])]
    if overlap.size:
        raise damaged(index.file.path, index.entries[int(rows[overlap[0]])].place, "two arrays overlap")
    index.file.check_unchanged()  # else these could be the files of the next checkpoint of that name


def _data_file(prefix: str, shard: int, index: Index) -> File:
    path = data_path(prefix, shard, index.shards)
    if not os.path.exists(path):
        what = f"{prefix} lacks a data file: {os.path.basename(path)}."
        fix = "copy all data files to where the index is"
        raise fault(what, kind="not_found", exists=index.file.path, fix=fix)
    return File(path, stays_open=index.shards <= _MOST_OPEN)


def _check_parts(name: str, entry: Entry, index: Index) -> None:
    """The parts of a partitioned variable must fill it."""
    try:
        if len(set(entry.slices)) < len(entry.slices):
            raise WireError(0, f"{shown(name)} has a part twice")
        size = 0
        for extents in entry.slices:
            shape = tuple(along.stop - along.start for along in within(extents, entry.shape))
            row = index.parts.get(slice_key(name, extents))
            if row is None:
                raise WireError(0, f"a part of {shown(name)} is missing")
            part = index.entries[row]
            if (part.number, part.shape, part.slices) != (entry.number, shape, ()):
                raise WireError(0, f"a part of {shown(name)} is not of its shape and dtype")
            size += math.prod(shape)
        if entry.slices and size != math.prod(entry.shape):
            raise WireError(0, f"the parts of {shown(name)} do not fill it")
    except WireError as error:
        raise damaged(index.file.path, entry.place, str(error)) from None


def _read(
    entries: _Entries, parts: dict[bytes, int], files: dict[int, File], name: str, row: int, checked: bool
) -> np.ndarray:
    entry = entries[row]
    if not entry.slices:
        return _stored(name, entry, files[entry.shard], checked)
    whole = np.empty(entry.shape, DTYPES[entry.number])
    filled = np.zeros(entry.shape, bool)
    for extents in entry.slices:
        where, part = within(extents, entry.shape), entries[parts[slice_key(name, extents)]]
        whole[where] = _stored(name, part, files[part.shard], checked)
        filled[where] = True
    if not filled.all():
        raise damaged(entries.path, entry.place, f"the parts of {shown(name)} overlap")
    return whole


def _stored(name: str, entry: Entry, file: File, checked: bool) -> np.ndarray:
    values = np.empty(entry.shape, DTYPES[entry.number])
    checksum = file.read_into(values, entry.offset, checksum=checked)
    if checked and masked(checksum) != entry.checksum:
        raise damaged(file.path, entry.offset, f"the checksum of {shown(name)} does not fit its {entry.size} bytes")
    # A byte that is neither 0 nor 1 would be a third truth value to numpy.
    return np.not_equal(values.view(np.uint8), 0, out=values) if values.dtype.kind == "b" else values
