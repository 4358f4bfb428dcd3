"""The first version of the format: one file, whose arrays are the values of a table."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jscope._support import shown

from .dtypes import DTYPES, dtype_number, read_shape, why_not
from .faults import damaged
from .files import File
from .slices import Extent, add_slice, extents_key, read_slice, slice_key, within
from .table import Table
from .tensors import Contents, Tensors
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
_PIECE = 1 << 17  # bytes of varints that are parsed at a time: that takes some fifty times as many


class Meta(NamedTuple):
    """A SavedSliceMeta: a variable and its parts, in the order in which they are stored."""

    name: str
    shape: tuple[int, ...]
    number: int
    slices: tuple[tuple[Extent, ...], ...]


def read_single_file(file: File) -> Contents:
    """What the file holds.

    Raises:
      CheckpointError: if it is no such file.
    """
    table = Table(file)
    found = table.find(b"")
    if found is None:
        raise damaged(file.path, 0, "there is no list of its arrays")
    value, place = found
    stored: dict[str, bytes] = {}
    skipped: dict[str, str] = {}
    try:
        for message in _messages(value):
            meta = _meta(message)
            table.allowance.take(meta.name, len(message))
            if meta.name in stored or meta.name in skipped:
                raise WireError(0, f"{shown(meta.name)} is there twice")
            if meta.number in DTYPES:
                _check_parts(meta)
                stored[meta.name] = bytes(message)
            else:
                skipped[meta.name] = why_not(meta.number)
    except WireError as error:
        raise damaged(file.path, place, str(error)) from None
    tensors = Tensors(functools.partial(_read, table, stored, place))
    for name in sorted(stored):
        meta = _meta(memoryview(stored[name]))
        tensors.add(name, meta.shape, DTYPES[meta.number], 0)
    return Contents(file.path, tensors, skipped)


def _messages(value: memoryview) -> Iterator[memoryview]:
    """The SavedSliceMetas of a SavedTensorSlices."""
    for number, message in fields(value):
        if number == 1:
            for kind, inner in fields(block(message)):
                if kind == 1:
                    yield block(inner)


def _meta(message: memoryview) -> Meta:
    name, shape, dtype = "", (), 0
    slices: list[tuple[Extent, ...]] = []
    for number, value in fields(message):
        if number == 1:
            name = text(value)
        elif number == 2:
            shape = read_shape(block(value))
        elif number == 3:
            dtype = dtype_number(integer(value))
        elif number == 4:
            add_slice(slices, block(value))
    return Meta(name, shape, dtype, tuple(sorted(slices, key=extents_key)))


def _check_parts(meta: Meta) -> None:
    """The parts of a variable must fill it."""
    sizes = [math.prod(_shape(extents, meta)) for extents in meta.slices]
    if len(set(meta.slices)) < len(sizes) or sum(sizes) != math.prod(meta.shape):
        raise WireError(0, f"the parts of {shown(meta.name)} do not fill it")


def _shape(extents: tuple[Extent, ...], meta: Meta) -> tuple[int, ...]:
    return tuple(along.stop - along.start for along in within(extents, meta.shape))


def _read(table: Table, stored: dict[str, bytes], place: int, name: str, row: int, checked: bool) -> np.ndarray:
    path, meta = table.file.path, _meta(memoryview(stored[name]))

    def part(extents: tuple[Extent, ...], into: np.ndarray | None) -> None:
        """Reads a part; into nothing: checks that there are bytes enough for it."""
        found = table.find(slice_key(meta.name, extents), checked=checked)
        if found is None:
            raise damaged(path, place, f"a part of {shown(meta.name)} is missing")
        value, start = found
        try:
            tensor = _data(value, meta.name, extents)
            if into is None:
                _check_size(tensor, meta.number, math.prod(_shape(extents, meta)))
            else:
                _fill(into, tensor, meta.number)
        except WireError as error:
            raise damaged(path, start, f"{shown(meta.name)}: {error}") from None

    for extents in meta.slices:
        part(extents, None)
    whole = np.empty(meta.shape, DTYPES[meta.number])
    if len(meta.slices) == 1:
        part(meta.slices[0], whole)
        return whole
    filled = np.zeros(meta.shape, bool)
    for extents in meta.slices:
        where = within(extents, meta.shape)
        part(extents, whole[where])
        filled[where] = True
    if not filled.all():
        raise damaged(path, place, f"the parts of {shown(meta.name)} overlap")
    return whole


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


def _check_size(tensor: memoryview, number: int, count: int) -> None:
    """So many values must fit into a TensorProto: a varint has a byte at least, the others have a fixed width."""
    least = count * (1 if _FIELDS.get(number, (0, "u1"))[1] == "" else DTYPES[number].itemsize)
    if least > len(tensor):
        raise WireError(0, f"it should have {count} values of {DTYPES[number]}, but has {len(tensor)} bytes")


def _fill(array: np.ndarray, tensor: memoryview, number: int) -> None:
    """Fills an array with the values of a TensorProto. In one of these files none is left out."""
    dtype = DTYPES[number]
    wanted, width = _FIELDS.get(number, (0, ""))
    array = array.reshape(1) if array.ndim == 0 else array
    content = b""
    for field, value in fields(tensor):
        content = block(value) if field == _CONTENT else content
    if content:
        pieces = iter([np.frombuffer(content, np.uint8)])
        array = array.view(np.uint8)
    else:
        pieces = (piece for field, value in fields(tensor) if field == wanted for piece in _packed(value, width, dtype))
        array = array.view(width) if width else array
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    done = 0
    for piece in pieces:
        if done + piece.size <= array.size:
            flat[done : done + piece.size] = piece != 0 if dtype.kind == "b" else piece
        done += piece.size
    if done != array.size:
        raise WireError(0, f"it should have {array.size} values of {array.dtype}, but has {done}")


def _packed(value: int | memoryview, width: str, dtype: np.dtype) -> Iterator[np.ndarray]:
    """What one field holds: a number, or many side by side."""
    if not width:
        for found in [np.array([value], np.uint64)] if isinstance(value, int) else _varints(value):
            yield _narrowed(found, dtype)
        return
    data = block(value)
    if len(data) % np.dtype(width).itemsize:
        raise WireError(0, "its last value is cut off")
    yield np.frombuffer(data, width)


def _varints(value: memoryview) -> Iterator[np.ndarray]:
    """Varints side by side. Each ends in the first byte below 128."""
    data, start = np.frombuffer(value, np.uint8), 0
    while start < data.size:
        piece = data[start : start + _PIECE]
        ends = np.flatnonzero(piece < 0x80)
        if not ends.size:
            raise WireError(0, "its last value is cut off")
        piece = piece[: ends[-1] + 1]
        start += piece.size
        starts = np.concatenate([np.zeros(1, np.intp), ends[:-1] + 1])
        place = (np.arange(piece.size) - np.repeat(starts, ends - starts + 1)).astype(np.uint64)
        if np.any((place > 9) | ((place == 9) & (piece > 1))):
            raise WireError(0, "a varint has more than 64 bits")
        bits = (piece & 0x7F).astype(np.uint64) << place * np.uint64(7)
        yield np.bitwise_or.reduceat(bits, starts)


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
