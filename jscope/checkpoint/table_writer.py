"""Writes the table that `table` reads, as TensorFlow writes it: uncompressed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .crc32c import crc32c, masked
from .table import FOOTER, MAGIC
from .wire import put_varint

_BLOCK = 262144
_RESTART = 16  # every so many keys one is stored whole


def write_table(entries: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """The pieces of a file with these entries, which are sorted by key."""
    offset, blocks = 0, {}
    for last, block in _blocks(entries):
        blocks[last] = put_varint(offset) + put_varint(len(block))
        piece = _sealed(block)
        offset += len(piece)
        yield piece
    handles = b""
    for block in (_block({}, 1), _block(blocks, 1)):
        handles += put_varint(offset) + put_varint(len(block))
        piece = _sealed(block)
        offset += len(piece)
        yield piece
    yield handles.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little")


def _blocks(entries: Mapping[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(a key that is not below any of its own nor above any of the next one's, contents) of each block."""
    held: dict[bytes, bytes] = {}
    size = 0
    for key, value in entries.items():
        if size > _BLOCK:
            yield next(reversed(held)), _block(held, _RESTART)
            held, size = {}, 0
        held[key] = value
        size += len(key) + len(value)
    if held:
        yield _after(next(reversed(held))), _block(held, _RESTART)


def _after(key: bytes) -> bytes:
    """A short key that is not below `key`."""
    for place, byte in enumerate(key):
        if byte != 0xFF:
            return key[:place] + bytes([byte + 1])
    return key


def _block(entries: Mapping[bytes, bytes], restart: int) -> bytes:
    out, restarts, before = bytearray(), [0], b""
    for count, (key, value) in enumerate(entries.items()):
        shared = 0
        if count % restart:
            while shared < min(len(before), len(key)) and before[shared] == key[shared]:
                shared += 1
        elif count:
            restarts.append(len(out))
        out += put_varint(shared) + put_varint(len(key) - shared) + put_varint(len(value)) + key[shared:] + value
        before = key
    return bytes(out) + np.array([*restarts, len(restarts)], "<u4").tobytes()


def _sealed(block: bytes) -> bytes:
    contents = block + b"\0"  # no compression
    return contents + masked(crc32c(np.frombuffer(contents, np.uint8))).to_bytes(4, "little")
