"""The sorted table of keys and values in which TensorFlow keeps an index, and its first version everything.

Blocks of entries, then an index block that says where they are, then a footer that says where that is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from .allowance import Allowance
from .crc32c import masked
from .faults import COPY_AGAIN, damaged, fault, needs_extra
from .files import File
from .wire import WireError, varint

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
TRAILER = 5  # after each block: its compression, its checksum
# Keys are stored without the beginning that they share with the one before. Every 16th is stored whole, so all of them
# have at most some 16 times the bytes of the block; to put together many more would take long.
_MOST_GROWTH = 64
_MOST_UNPACKED = 8_000_000, 3  # bytes of a compressed block, and more for each of its own; TensorFlow's have 262,144


@dataclasses.dataclass
class _Cursor:
    """How far a block has been read: the keys of a block may be far longer than the block, so they are not kept."""

    block: int
    checked: bool
    entries: Iterator[tuple[bytes, memoryview, int]]
    entry: tuple[bytes, memoryview, int] | None = None


def is_table(file: File) -> bool:
    """Whether it ends in the number by which such files are known."""
    return file.size >= FOOTER and file.read(file.size - 8, 8)[0].tobytes() == MAGIC.to_bytes(8, "little")


class Table:
    """A table in a file. Its index block is read at once, and checked, the others when they are asked for.

    Attributes:
      file: the file.
      allowance: what may be kept of it.

    Raises:
      CheckpointError: if the file is no such table.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.allowance = Allowance(file.path, file.size)
        if file.size < FOOTER:
            raise _foreign(file, f"it has {file.size} bytes, fewer than the footer of such a file")
        start = file.size - FOOTER
        footer, _ = file.read(start, FOOTER)
        if not is_table(file):
            raise _foreign(file, "it does not end in the number by which such files are known")
        try:
            view = footer.data[:-8]
            _, position = _handle(view, 0)  # of a block about the file that TensorFlow leaves empty
            index, _ = _handle(view, position)
        except WireError as error:
            raise damaged(file.path, start + error.offset, str(error)) from None
        self._end = start
        self._blocks: list[tuple[bytes, tuple[int, int]]] = []  # the last key that a block may hold, where it is
        self._cursors: list[_Cursor] = []  # at most one; who uses it takes it out, so that threads share none
        end = 0
        for key, value, place in self._entries(index, None, checked=True):
            try:
                handle, _ = _handle(value, 0)
            except WireError as error:
                raise damaged(file.path, place + error.offset, str(error)) from None
            if handle[0] < end:
                raise damaged(file.path, place, "its blocks overlap")
            end = handle[0] + handle[1] + TRAILER
            self.allowance.take(key)
            self._blocks.append((key, handle))

    def items(self) -> Iterator[tuple[bytes, memoryview, int]]:
        """(key, value, the value's place in the file) of all entries, in order of the keys."""
        before = None
        for last, handle in self._blocks:
            for entry in self._entries(handle, before, checked=True):
                before = entry[0]
                yield entry
            if before is not None and before > last:
                raise damaged(self.file.path, handle[0], "a key is in the wrong block")

    def find(self, key: bytes, *, checked: bool = True) -> tuple[memoryview, int] | None:
        """(value, its place in the file) of one key, None if there is none. Reads one block.

        Who asks for one key after the other, in their order, has each block read once.
        """
        low, high = 0, len(self._blocks)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._blocks[middle][0] < key else (low, middle)
        if low == len(self._blocks):
            return None
        try:
            cursor = self._cursors.pop()
        except IndexError:
            cursor = None
        if cursor is None or (cursor.block, cursor.checked) != (low, checked) or (cursor.entry or (b"",))[0] > key:
            cursor = _Cursor(low, checked, self._entries(self._blocks[low][1], None, checked=checked))
        while cursor.entry is None or cursor.entry[0] < key:
            entry = next(cursor.entries, None)
            if entry is None:
                break
            cursor.entry = entry
        self._cursors[:] = [cursor]
        return cursor.entry[1:] if cursor.entry is not None and cursor.entry[0] == key else None

    def _entries(
        self, handle: tuple[int, int], before: bytes | None, *, checked: bool
    ) -> Iterator[tuple[bytes, memoryview, int]]:
        """The entries of a block; their keys must go up, from `before` on."""
        contents, moved = self._block(handle, checked)
        path, start = self.file.path, handle[0]
        if len(contents) < 4:
            raise damaged(path, start, "a block has no list of restarts")
        restarts = int.from_bytes(contents[-4:], "little")
        end = len(contents) - 4 * (restarts + 1)
        if end < 0:
            raise damaged(path, start, "a block's list of restarts is longer than the block")
        position, total, key = 0, 0, b""
        body = contents[:end]
        try:
            while position < end:
                entry = position
                shared, position = varint(body, position)
                unshared, position = varint(body, position)
                size, position = varint(body, position)
                if shared > len(key) or unshared + size > end - position:
                    raise WireError(entry, "an entry goes past the end of its block")
                key = key[:shared] + bytes(body[position : position + unshared])
                total += len(key)
                if total > _MOST_GROWTH * (len(contents) + TRAILER):
                    raise WireError(entry, "the keys of a block are far longer than the block")
                if before is not None and key <= before:
                    raise WireError(entry, "keys are not in order")
                before = key
                position += unshared
                yield key, body[position : position + size], start if moved else start + position
                position += size
        except WireError as error:
            raise damaged(path, start if moved else start + error.offset, str(error)) from None

    def _block(self, handle: tuple[int, int], checked: bool) -> tuple[memoryview, bool]:
        """(the contents of a block, whether they are not in the file as they are: compressed)."""
        offset, size = handle
        file = self.file
        if offset + size + TRAILER > self._end:
            raise damaged(file.path, offset, f"a block of {size} bytes goes past the end of the file")
        # The checksum is over the contents and the byte that names the compression.
        data, checksum = file.read(offset, size + 1, checksum=checked)
        stored, _ = file.read(offset + size + 1, 4)
        if checked and masked(checksum) != int.from_bytes(stored.tobytes(), "little"):
            raise damaged(file.path, offset, "the checksum of a block does not fit its bytes")
        compression = int(data[-1])
        if compression == 0:
            return data.data[:-1].toreadonly(), False
        if compression == 1:
            return _unsnappy(file, offset, data[:-1]), True
        raise damaged(file.path, offset + size, f"a block has the unknown compression {compression}")


def _handle(buffer: memoryview, position: int) -> tuple[tuple[int, int], int]:
    """((offset, size) of a block, the position after it)."""
    offset, position = varint(buffer, position)
    size, position = varint(buffer, position)
    return (offset, size), position


def _unsnappy(file: File, offset: int, data: np.ndarray) -> memoryview:
    try:
        import cramjam
    except ImportError:
        raise needs_extra(f"{file.path} has blocks compressed with Snappy, and cramjam is not installed.") from None
    free, factor = _MOST_UNPACKED
    try:
        size, _ = varint(data.data, 0)
        if size > free + factor * data.size:
            raise WireError(0, f"a compressed block claims to be one of {size} bytes")
        contents = np.zeros(size, np.uint8)
        if cramjam.snappy.decompress_raw_into(data.data, contents.data) != size:
            raise WireError(0, "a compressed block has another length than it claims")
    except (WireError, cramjam.DecompressionError) as error:
        raise damaged(file.path, offset, str(error)) from None
    return contents.data.toreadonly()


def _foreign(file: File, why: str) -> Exception:
    what = f"{file.path} is no TensorFlow checkpoint: {why}."
    exists = f"{file.size} bytes"
    fix = f"give the prefix of a checkpoint, such as 'model.ckpt-1000'; if this is one, {COPY_AGAIN}"
    return fault(what, kind="foreign", exists=exists, fix=fix)
