"""The first version of the format: one file, whose arrays are the values of a table."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .dtypes import DTYPES, dtype_number, read_shape, why_not
from .faults import damaged
from .files import File
from .slices import Extent, read_slice, slice_key, within
from .table import Table
from .tensors import Contents, Tensor
from .wire import WireError, block, fields, integer, text

# By dtype number: the field of a TensorProto that has its values, and the width of the numbers there, "" for varints.
# Complex numbers are two floats side by side; half and bfloat16 are integers of the same bits.
_FIELDS = {
    1: (5, "<f4"),
    2: (6, "<f8"),
    3: (7, ""),
    4: (7, ""),
    5: (7, ""),
    6: (7, ""),
    8: (9, "<f4"),
    9: (10, ""),
    10: (11, ""),
    14: (13, ""),
    17: (7, ""),
    18: (12, "<f8"),
    19: (13, ""),
    22: (16, ""),
    23: (17, ""),
}
_CONTENT = 4  # the field that has the bytes themselves, of any dtype


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
            dtype = dtype_number(integer(value))
        elif number == 4:
            slices.append(read_slice(block(value)))
    return Meta(name, shape, dtype, tuple(slices))


def _tensor(table: Table, meta: Meta, place: int) -> Tensor:
    path, dtype = table.file.path, DTYPES[meta.number]
    # In the order in which they are stored: so no block is read twice.
    slices = sorted(meta.slices, key=lambda extents: slice_key(meta.name, extents))
    places = [(extents, within(extents, meta.shape)) for extents in slices]
    sizes = [math.prod(along.stop - along.start for along in where) for _, where in places]
    if len(set(meta.slices)) < len(sizes) or sum(sizes) != math.prod(meta.shape):
        raise WireError(0, f"the parts of '{meta.name}' do not fill it")

    def part(extents: tuple[Extent, ...], shape: tuple[int, ...], checked: bool) -> np.ndarray:
        found = table.find(slice_key(meta.name, extents), checked=checked)
        if found is None:
            raise damaged(path, place, f"a part of '{meta.name}' is missing")
        value, start = found
        try:
            return _values(_data(value, meta.name, extents), meta.number, math.prod(shape)).reshape(shape)
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


def _values(tensor: memoryview, number: int, count: int) -> np.ndarray:
    """The values of a TensorProto. In one of these files none is left out."""
    dtype = DTYPES[number]
    wanted, width = _FIELDS.get(number, (0, ""))
    content = b""
    values: list[np.ndarray] = []
    for field, value in fields(tensor):
        if field == _CONTENT:
            content = block(value)
        elif field == wanted:
            values.append(_packed(value, width))
    if content:
        values = [np.frombuffer(content, np.uint8)]
    found = np.concatenate(values) if values else np.zeros(0, width or np.uint64)
    if content or width:
        if found.nbytes != count * dtype.itemsize:
            raise WireError(0, f"it should have {count} values of {dtype}, but has {found.nbytes} bytes")
        return found != 0 if dtype.kind == "b" else found.view(dtype)
    if found.size != count:
        raise WireError(0, f"it should have {count} values of {dtype}, but has {found.size}")
    return _narrowed(found, dtype)


def _packed(value: int | memoryview, width: str) -> np.ndarray:
    """What one field holds: a number, or many side by side."""
    if not width:
        return np.array([value], np.uint64) if isinstance(value, int) else _varints(value)
    data = block(value)
    if len(data) % np.dtype(width).itemsize:
        raise WireError(0, "its last value is cut off")
    return np.frombuffer(data, width)


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
