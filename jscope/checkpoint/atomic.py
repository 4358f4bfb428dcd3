"""Files that take another's place at one stroke, and last."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import BinaryIO

from .faults import fault


def flush(file: BinaryIO) -> None:
    """What was written is on the disk after this, not only with the operating system."""
    file.flush()
    os.fsync(file.fileno())


def flush_directory(path: str) -> None:
    """Makes names last; where the system has no such thing, they do by themselves."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def replace_file(path: str, write: Callable[[BinaryIO], None]) -> None:
    """`path` becomes what `write` writes, or stays what it was: a process killed at any point leaves one of them.

    Raises:
      CheckpointError: if the system refuses.
    """
    temporary = path + ".tmp"  # always the same: what a killed save leaves is written over
    try:
        try:
            with open(temporary, "wb") as file:
                write(file)
                flush(file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(temporary)
            raise
        os.replace(temporary, path)
        flush_directory(path)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str, error: OSError) -> Exception:
    """The `CheckpointError` where the operating system takes no bytes."""
    what = f"The checkpoint {path} can't be written: {error.strerror or error}."
    fix = "save to a directory that exists, has room, and may be written"
    return fault(what, kind="unwritable", fix=fix)
