"""What the files of this room raise, and the line of the user's code that asked."""

from __future__ import annotations

import os
import sys

import jscope as js

Path = str | os.PathLike[str]

COPY_AGAIN = "copy or download the checkpoint again; if it was so when it was saved, load an older one"


# Frames of these packages are never the user's own line; a mapping calls itself through `collections`.
_NOT_THE_USER = ("jscope", "jax", "contextlib", "collections")


def user_line() -> str:
    """The user's `file:line` of the call in progress, `""` if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _NOT_THE_USER:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def fault(what: str, *, kind: str, fix: str, asked: str = "", exists: str = "") -> js.CheckpointError:
    """An error with the user's line in it."""
    return js.CheckpointError(what, kind=kind, asked=asked, where=user_line(), exists=exists, fix=fix)


def damaged(path: Path, offset: int, what: str) -> js.CheckpointError:
    """The bytes at `offset` are not what the format has there."""
    return fault(f"{os.fspath(path)} is damaged at byte {offset}: {what}.", kind="damaged", fix=COPY_AGAIN)


def unreadable(path: Path, error: OSError) -> js.CheckpointError:
    """The operating system gives no bytes."""
    what = f"{os.fspath(path)} can't be read: {error.strerror or error}."
    kind = "not_found" if isinstance(error, FileNotFoundError) else "unreadable"
    return fault(what, kind=kind, fix="give a path that exists and that you may read")
