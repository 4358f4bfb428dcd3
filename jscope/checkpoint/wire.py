"""Varints and protocol buffers on the wire: what checkpoints need of them, without the protobuf package."""

from __future__ import annotations

from collections.abc import Iterator

_MASK = (1 << 64) - 1


class WireError(ValueError):
    """Bytes that are no such message. Callers know the file, and turn it into a `CheckpointError`.

    Attributes:
      offset: where, from the start of the buffer.
    """

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset


def varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """(an unsigned integer of at most 64 bits, the position after it)."""
    value, shift, start = 0, 0, position
    while shift < 64:
        if position >= len(buffer):
            raise WireError(start, "a varint goes past the end")
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > _MASK:
                break
            return value, position
        shift += 7
    raise WireError(start, "a varint has more than 64 bits")


def signed(value: int) -> int:
    """Protobuf's int64, which a varint holds in two's complement."""
    return value - (1 << 64) if value >> 63 else value


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message: an int for varints, else the bytes of it."""
    position = 0
    while position < len(message):
        start = position
        tag, position = varint(message, position)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise WireError(start, "a field has the number 0")
        if kind == 0:
            value, position = varint(message, position)
            yield number, value
            continue
        if kind == 2:
            size, position = varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise WireError(start, f"a field has the wire type {kind}")
        if size > len(message) - position:
            raise WireError(start, "a field goes past the end of its message")
        yield number, message[position : position + size]
        position += size


def integer(value: int | memoryview) -> int:
    """The value of a field that must be a varint."""
    if not isinstance(value, int):
        raise WireError(0, "a field that must be an integer holds bytes")
    return value


def block(value: int | memoryview) -> memoryview:
    """The value of a field that must be bytes: a string or a message."""
    if isinstance(value, int):
        raise WireError(0, "a field that must hold bytes is an integer")
    return value


def text(value: int | memoryview) -> str:
    """The value of a field that must be a string."""
    try:
        return str(block(value), "utf-8")
    except UnicodeDecodeError:
        raise WireError(0, "a name is not UTF-8") from None


def fixed32(value: int | memoryview) -> int:
    """The value of a field that must be four bytes."""
    data = block(value)
    if len(data) != 4:
        raise WireError(0, "a field that must have four bytes has another length")
    return int.from_bytes(data, "little")


# Writing --------------------------------------------------------------------------------------------------------------


def put_varint(value: int) -> bytes:
    """The varint of an unsigned integer."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def put_integer(number: int, value: int) -> bytes:
    """A field that is a varint; nothing where it is 0, which is what a missing field means."""
    return put_varint(number << 3) + put_varint(value) if value else b""


def put_block(number: int, data: bytes) -> bytes:
    """A field that is bytes."""
    return put_varint(number << 3 | 2) + put_varint(len(data)) + data


def put_fixed32(number: int, value: int) -> bytes:
    """A field of four bytes."""
    return put_varint(number << 3 | 5) + value.to_bytes(4, "little")
