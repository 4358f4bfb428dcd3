"""A checkpoint's file takes another's place at one stroke; `jscope/_atomic.py` says how."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from jscope._support import replacement

from .faults import unwritable


def replace_file(path: str, write: Callable[[BinaryIO], None]) -> None:
    """`path` becomes what `write` writes, or stays what it was: a process killed at any point leaves one of them.

    Raises:
      CheckpointError: if the system refuses.
    """
    try:
        with replacement(path) as file:
            write(file)
    except OSError as error:
        raise unwritable(path, error) from error
