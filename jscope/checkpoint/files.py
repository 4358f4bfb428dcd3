"""One file, read in pieces that are checked against its size."""

from __future__ import annotations

import os
import stat

import numpy as np

from .crc32c import crc32c
from .faults import Path, damaged, fault, unreadable

_PIECE = 1 << 20  # a piece is summed while it is still in the processor's cache


class File:
    """A regular file as it was when this object was made. Nothing stays open.

    Pieces are read into memory of their own, not mapped: a mapped file that somebody shortens ends the process, and one
    that somebody rewrites changes arrays that were checked already. That costs a copy: by `tests/benchmarks/reading.py`
    1 GB in the system's cache takes 0.60 s, and the checksums of the mapped file alone 0.20 s.

    Attributes:
      path: where it is.
      size: its length in bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = os.fspath(path)
        try:
            status = os.stat(self.path)
        except (OSError, ValueError) as error:
            raise unreadable(self.path, error if isinstance(error, OSError) else OSError(str(error))) from None
        if not stat.S_ISREG(status.st_mode):
            raise fault(f"{self.path} is no regular file.", kind="unreadable", fix="give the path of a checkpoint")
        self.size = status.st_size
        self._identity = _identity(status)

    def read(self, offset: int, size: int, *, checksum: bool = False) -> tuple[np.ndarray, int]:
        """(`size` bytes from `offset`, their CRC-32C if asked for)."""
        if offset < 0 or size < 0 or offset + size > self.size:
            what = f"{size} bytes are to be read there, but the file has {self.size} bytes"
            raise damaged(self.path, offset, what)
        data, done, total = np.empty(size, np.uint8), 0, 0
        try:
            with open(self.path, "rb", buffering=0) as file:
                self._compare(os.fstat(file.fileno()))
                file.seek(offset)
                while done < size:
                    count = file.readinto(data.data[done : done + _PIECE if checksum else size])
                    if not count:
                        raise damaged(self.path, offset + done, "the file ends there")
                    if checksum:
                        total = crc32c(data[done : done + count], total)
                    done += count
        except OSError as error:
            raise unreadable(self.path, error) from None
        return data, total

    def check_unchanged(self) -> None:
        """Raises a `CheckpointError` if the file is no longer the one that it was."""
        try:
            self._compare(os.stat(self.path))
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _compare(self, status: os.stat_result) -> None:
        if _identity(status) != self._identity:
            what = f"{self.path} was changed after the checkpoint was opened."
            raise fault(what, kind="changed", fix="open the checkpoint again")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
