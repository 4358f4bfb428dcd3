"""Partitioned variables: which part an entry holds, and the key under which a part is stored."""

from __future__ import annotations

from collections.abc import Sequence

from .wire import WireError, block, fields, integer, signed

Extent = tuple[int, int]  # start, length; length -1 for the full extent of a dimension

_FULL: Extent = (0, -1)
_MOST_PARTS = 20_000  # of one variable: a few bytes of the file make one, and it takes some hundred in Python


def add_slice(slices: list[tuple[Extent, ...]], message: memoryview) -> None:
    """Adds a part to those of a variable."""
    if len(slices) == _MOST_PARTS:
        raise WireError(0, f"a variable has more than {_MOST_PARTS} parts")
    slices.append(read_slice(message))


def read_slice(message: memoryview) -> tuple[Extent, ...]:
    """A TensorSliceProto."""
    extents = []
    for number, value in fields(message):
        if number == 1:
            start, length = 0, -1
            for inner, size in fields(block(value)):
                if inner == 1:
                    start = signed(integer(size))
                elif inner == 2:
                    length = signed(integer(size))
            extents.append((start, length) if (start, length) != _FULL else _FULL)
    return tuple(extents)


def within(extents: Sequence[Extent], shape: Sequence[int]) -> tuple[slice, ...]:
    """The part of an array of `shape`."""
    if len(extents) != len(shape):
        raise WireError(0, f"a part has {len(extents)} dimensions, its variable {len(shape)}")
    part = []
    for (start, length), size in zip(extents, shape, strict=True):
        stop = size if length == -1 else start + length
        if start < 0 or length < -1 or (length == -1 and start) or stop > size:
            raise WireError(0, f"a part goes from {start} to {stop} in a dimension of {size}")
        part.append(slice(start, stop))
    return tuple(part)


def slice_key(name: str, extents: Sequence[Extent]) -> bytes:
    """The key of a part: in ordered code, which sorts as what it stands for."""
    text = name.encode().replace(b"\0", b"\0\xff")  # 0xff would be escaped too, but UTF-8 has none
    return _unsigned(0) + text + b"\0\x01" + extents_key(extents)


def extents_key(extents: Sequence[Extent]) -> bytes:
    """The end of that key, by which the parts of one variable are sorted."""
    return _unsigned(len(extents)) + b"".join(_signed(start) + _signed(length) for start, length in extents)


def _unsigned(number: int) -> bytes:
    size = (number.bit_length() + 7) // 8
    return bytes([size]) + number.to_bytes(size, "big")


def _signed(number: int) -> bytes:
    """The number of leading ones is the number of bytes, all of it turned round for a negative number."""
    size = 1
    while not -(1 << 7 * size - 1) <= number < 1 << 7 * size - 1:
        size += 1
    magnitude = ~number if number < 0 else number
    ones = ((1 << size) - 1) << 8 * size - size
    code = (magnitude | ones).to_bytes(size, "big")
    return bytes(byte ^ 0xFF for byte in code) if number < 0 else code
