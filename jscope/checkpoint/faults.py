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


def unwritable(path: str, error: OSError) -> js.CheckpointError:
    """The operating system takes no bytes."""
    what = f"The checkpoint {path} can't be written: {error.strerror or error}."
    fix = "save to a directory that exists, has room, and may be written"
    if isinstance(error, IsADirectoryError):
        fix = "give the path of a file, such as one in that folder; save(max_shard_bytes=) writes several files there"
    return fault(what, kind="unwritable", fix=fix)


def needs_extra(what: str) -> js.CheckpointError:
    """A package that only the extra installs is missing."""
    return fault(what, kind="needs_extra", fix='pip install "jax-scope[checkpoint]"')


def file_name(path: Path, kind: str) -> str:
    """The path as text, of which the system can make the name of a file.

    Raises:
      CheckpointError: of this kind, if it can't.
      BadTypeError: if it is no path.
    """
    try:
        name = os.fsdecode(path)
        can_be = "\0" not in name and bool(os.fsencode(name))
    except UnicodeError:
        name, can_be = os.fspath(path), False
    except TypeError:
        what = f"A path of a checkpoint is a text or a pathlib.Path, not a {type(path).__name__}."
        raise js.BadTypeError(what, kind="bad_path", where=user_line(), fix="give the path of a file") from None
    if not can_be:
        what = f"No file can have the path {name!r:.200}."
        fix = "give a path without zeros and without halves of surrogate pairs" if name else "give the path of a file"
        raise fault(what, kind=kind, fix=fix)
    return name
