"""One file, read in pieces that are checked against its size."""

from __future__ import annotations

import os
import stat
import weakref

import numpy as np

from .crc32c import crc32c
from .faults import Path, damaged, fault, file_name, unreadable

_PIECE = 1 << 20  # a piece is summed while it is still in the processor's cache
_ROWS = 64  # short ones that are read between two looks at whether somebody wrote to the file
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_CAN_STAY_OPEN = hasattr(os, "preadv")  # elsewhere an open file can't be replaced by a save, nor read by two threads


class File:
    """A regular file as it was when this object was made.

    It stays open as long as this object lives: so what is read is all of one save, also where another save has put a
    new file in its place. Where it may not stay open, and where somebody writes to it, reading ends in a
    `CheckpointError`.

    Pieces are read into memory of their own, not mapped: a mapped file that somebody shortens ends the process, and one
    that somebody rewrites changes arrays that were checked already. That costs a copy: by `tests/benchmarks/reading.py`
    1 GB in the system's cache takes 0.60 s, and the checksums of the mapped file alone 0.20 s.

    Args:
      path: where it is.
      stays_open: False where there are too many files for that.

    Attributes:
      path: where it is.
      size: its length in bytes.
    """

    def __init__(self, path: Path, *, stays_open: bool = True) -> None:
        self.path = file_name(path, "not_found")
        try:
            self._place = absolute(self.path)
            # What is no regular file is not even opened: to open a device may do something.
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise fault(f"{self.path} is no regular file.", kind="unreadable", fix="give the path of a checkpoint")
            handle = os.open(self.path, _FLAGS)
            self._status = os.fstat(handle)
        except OSError as error:
            raise unreadable(self.path, error) from None
        self.size = self._status.st_size
        self._handle = handle if stays_open and _CAN_STAY_OPEN else None
        if self._handle is None:
            os.close(handle)
        else:
            weakref.finalize(self, os.close, handle)

    def read(self, offset: int, size: int, *, checksum: bool = False) -> tuple[np.ndarray, int]:
        """(`size` bytes from `offset`, their CRC-32C if asked for)."""
        self.check_inside(offset, size)
        data = np.empty(size, np.uint8)
        return data, self.read_into(data, offset, checksum=checksum)

    def read_into(self, array: np.ndarray, offset: int, *, checksum: bool = False) -> int:
        """Fills an array that is contiguous with what is stored from `offset`. Gives the CRC-32C if asked for."""
        self.check_inside(offset, array.nbytes)
        data = array.reshape(-1).view(np.uint8)
        done, total = 0, 0
        try:
            while done < data.size:
                piece = data[done : done + _PIECE if checksum else data.size]
                count = self._read_some(piece, offset + done)
                if not count:
                    raise damaged(self.path, offset + done, "the file ends there")
                if checksum:
                    total = crc32c(piece[:count], total)
                done += count
        except OSError as error:
            raise unreadable(self.path, error) from None
        return total

    def read_rows(self, array: np.ndarray, offset: int, stride: int) -> None:
        """Fills each row of an array that is contiguous with what is stored `stride` bytes behind the one before it."""
        data, width = array.reshape(-1).view(np.uint8), array.nbytes // len(array)
        self.check_inside(offset, stride * (len(array) - 1) + width)
        memory, row = data.data, 0
        try:
            for start in range(0, data.size, width):
                done = 0
                if self._handle is not None:
                    if row % _ROWS == 0:
                        self._compare(os.fstat(self._handle))
                    done = os.preadv(self._handle, [memory[start : start + width]], offset)
                if done < width:
                    self.read_into(data[start + done : start + width], offset + done)
                offset += stride
                row += 1
        except OSError as error:
            raise unreadable(self.path, error) from None

    def check_inside(self, offset: int, size: int) -> None:
        """Raises a `CheckpointError` if the file has no such bytes."""
        if offset < 0 or size < 0 or offset + size > self.size:
            what = f"{size} bytes are to be read there, but the file has {self.size} bytes"
            raise damaged(self.path, offset, what)

    def check_unchanged(self) -> None:
        """Raises a `CheckpointError` if there is another file of that name now, or somebody wrote to this one."""
        try:
            self._compare(os.stat(self._place))
        except OSError as error:
            raise unreadable(self.path, error) from None

    def is_unchanged(self) -> bool:
        """Whether `check_unchanged` raises nothing."""
        try:
            return _identity(os.stat(self._place)) == _identity(self._status)
        except OSError:
            return False

    def _read_some(self, piece: np.ndarray, offset: int) -> int:
        if self._handle is not None:
            self._compare(os.fstat(self._handle))
            return os.preadv(self._handle, [piece.data], offset)
        with open(self._place, "rb", buffering=0) as file:
            self._compare(os.fstat(file.fileno()))
            file.seek(offset)
            return file.readinto(piece.data)

    def _compare(self, status: os.stat_result) -> None:
        if _identity(status) != _identity(self._status):
            what = f"{self.path} was changed after the checkpoint was opened."
            raise fault(what, kind="changed", fix="open the checkpoint again")


def absolute(path: str) -> str:
    """A path that leads there also when the process has gone to another directory."""
    # Not by os.path.abspath, to which `link/..` is where the link lies.
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
