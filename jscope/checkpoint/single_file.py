"""The first version of the format: one file, whose arrays are the values of a table."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .dtypes import DTYPES, read_shape, why_not
from .faults import damaged
from .files import File
from .slices import Extent, read_slice, slice_key, within
from .table import Table
from .tensors import Contents, Tensor
from .wire import WireError, block, fields, integer, text

# The field of a TensorProto that has the values of a dtype, and what is stored there: numbers of a fixed width, or
# varints.
_FIXED = {"f4": (5, "<f4"), "f8": (6, "<f8"), "c8": (9, "<c8"), "c16": (12, "<c16")}
_VARINTS = {"i4": 7, "u1": 7, "i2": 7, "i1": 7, "u2": 7, "i8": 10, "b1": 11, "f2": 13, "u4": 16, "u8": 17}
_HALVES = 13  # where bfloat16 and the 8-bit floats are, as the integers of their bits
_CONTENT = 4  # the bytes themselves, of any dtype


@dataclasses.dataclass(frozen=True)
class Meta:
    """A SavedSliceMeta: a variable and its parts."""

    name: str
    shape: tuple[int, ...]
    number: int
    slices: tuple[tuple[Extent, ...], ...]


def read_single_file(path: str) -> Contents:
    """What the file holds.

    Raises:
      CheckpointError: if it is no such file.
    """
    table = Table(File(path))
    found = table.find(b"")
    if found is None:
        raise damaged(path, 0, "there is no list of its arrays")
    value, place = found
    tensors, skipped = {}, {}
    try:
        for meta in _metas(value):
            if meta.name in tensors or meta.name in skipped:
                raise WireError(0, f"'{meta.name}' is there twice")
            if meta.number not in DTYPES:
                skipped[meta.name] = why_not(meta.number)
                continue
            tensors[meta.name] = _tensor(table, meta, place)
    except WireError as error:
        raise damaged(path, place, str(error)) from None
    return Contents(path, tensors, skipped)


def _metas(value: memoryview) -> list[Meta]:
    metas = []
    for number, message in fields(value):
        if number == 1:
            metas += [_meta(block(inner)) for kind, inner in fields(block(message)) if kind == 1]
    return metas


def _meta(message: memoryview) -> Meta:
    name, shape, dtype, slices = "", (), 0, []
    for number, value in fields(message):
        if number == 1:
            name = text(value)
        elif number == 2:
            shape = read_shape(block(value))
        elif number == 3:
            dtype = integer(value) % 100
        elif number == 4:
            slices.append(read_slice(block(value)))
    return Meta(name, shape, dtype, tuple(slices))


def _tensor(table: Table, meta: Meta, place: int) -> Tensor:
    path, dtype = table.file.path, DTYPES[meta.number]
    places = [(extents, within(extents, meta.shape)) for extents in meta.slices]
    sizes = [math.prod(along.stop - along.start for along in where) for _, where in places]
    if len(set(meta.slices)) < len(sizes) or sum(sizes) != math.prod(meta.shape):
        raise WireError(0, f"the parts of '{meta.name}' do not fill it")

    def part(extents: tuple[Extent, ...], shape: tuple[int, ...], checked: bool) -> np.ndarray:
        found = table.find(slice_key(meta.name, extents), checked=checked)
        if found is None:
            raise damaged(path, place, f"a part of '{meta.name}' is missing")
        value, start = found
        try:
            return _values(_data(value, meta.name, extents), dtype, math.prod(shape)).reshape(shape)
        except WireError as error:
            raise damaged(path, start, f"'{meta.name}': {error}") from None

    def read(checked: bool) -> np.ndarray:
        if len(places) == 1:
            return part(places[0][0], meta.shape, checked)
        # First the parts: together they are as large as the whole, which is only then known to be justified.
        parts = [
            (where, part(extents, tuple(along.stop - along.start for along in where), checked))
            for extents, where in places
        ]
        whole, filled = np.empty(meta.shape, dtype), np.zeros(meta.shape, bool)
        for where, array in parts:
            whole[where] = array
            filled[where] = True
        if not filled.all():
            raise damaged(path, place, f"the parts of '{meta.name}' overlap")
        return whole

    return Tensor(meta.shape, dtype, read)


def _data(value: memoryview, name: str, extents: tuple[Extent, ...]) -> memoryview:
    """The TensorProto of a SavedSlice, which must be the one that was asked for."""
    tensor = None
    for number, message in fields(value):
        if number == 2:
            for inner, content in fields(block(message)):
                if inner == 1 and text(content) != name:
                    raise WireError(0, "the entry has another variable's values")
                if inner == 2 and read_slice(block(content)) != extents:
                    raise WireError(0, "the entry has another part's values")
                if inner == 3:
                    tensor = block(content)
    if tensor is None:
        raise WireError(0, "there are no values")
    return tensor


def _values(tensor: memoryview, dtype: np.dtype, count: int) -> np.ndarray:
    """The values of a TensorProto. In one of these files none is left out."""
    wanted, stored = _FIXED.get(dtype.str[1:], (_VARINTS.get(dtype.str[1:], _HALVES), ""))
    content = b""
    values: list[np.ndarray] = []
    for number, value in fields(tensor):
        if number == _CONTENT:
            content = block(value)
        elif number == wanted:
            values.append(_packed(value, stored))
    if content:
        if len(content) != count * dtype.itemsize:
            raise WireError(0, f"it should have {count} values of {dtype}, but has {len(content)} bytes")
        data = np.frombuffer(content, np.uint8)
        return (data != 0) if dtype.kind == "b" else data.view(dtype).copy()
    found = np.concatenate(values) if values else np.zeros(0, stored or np.uint64)
    if stored:
        if found.nbytes % dtype.itemsize:
            raise WireError(0, "its last value is cut off")
        found = found.view(dtype)
    if found.size != count:
        raise WireError(0, f"it should have {count} values, but has {found.size}")
    return found if stored else _narrowed(found, dtype)


def _packed(value: int | memoryview, stored: str) -> np.ndarray:
    """What one field holds: a number, or many side by side."""
    if not stored:
        return np.array([value], np.uint64) if isinstance(value, int) else _varints(value)
    value = block(value)
    # Complex numbers are stored as twice as many floats.
    width = {"<c8": "<f4", "<c16": "<f8"}.get(stored, stored)
    if len(value) % np.dtype(width).itemsize:
        raise WireError(0, "its last value is cut off")
    return np.frombuffer(value, width).copy()


def _varints(value: memoryview) -> np.ndarray:
    """Varints side by side. Each ends in the first byte below 128."""
    data = np.frombuffer(value, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    if data.size and (not ends.size or ends[-1] != data.size - 1):
        raise WireError(0, "its last value is cut off")
    starts = np.concatenate([np.zeros(min(1, ends.size), np.intp), ends[:-1] + 1])
    place = (np.arange(data.size) - np.repeat(starts, ends - starts + 1)).astype(np.uint64)
    if np.any((place > 9) | ((place == 9) & (data > 1))):
        raise WireError(0, "a varint has more than 64 bits")
    bits = (data & 0x7F).astype(np.uint64) << place * np.uint64(7)
    return np.bitwise_or.reduceat(bits, starts) if starts.size else np.zeros(0, np.uint64)


def _narrowed(found: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Unsigned 64 bits as what they stand for; negative numbers are there in two's complement."""
    if dtype.kind == "b":
        return found != 0
    if dtype.kind in "iu":
        narrow = found.astype(f"u{dtype.itemsize}").view(dtype)
        if np.any(narrow.astype(np.int64).view(np.uint64) != found):
            raise WireError(0, f"a value is out of the range of {dtype}")
        return narrow
    if np.any(found >= 1 << 8 * dtype.itemsize):
        raise WireError(0, f"a value is out of the range of {dtype}")
    return found.astype(f"u{dtype.itemsize}").view(dtype)
