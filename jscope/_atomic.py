"""Files that take another's place at one stroke, and last, however many save to one path. Floor 0: no jax here.

Each save writes to a file of its own, whose name nobody can foresee, and renames it when it is whole. While it is at
work it holds a lock on that file. Nobody ever waits for such a lock: it only tells the file of a save that is under way
from one that a killed save left behind, which the next save removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a file that somebody has open can't be removed by another
    fcntl = None

_TEMPORARY = re.compile(r"\.jscope-[0-9a-f]{32}\.tmp")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_OLD = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A file becomes this text, in UTF-8, or stays what it was. What is no regular file, such as a pipe, gets the text.

    Raises:
      OSError: if the system refuses.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        data = text.encode("utf-8")
        with replacement(os.fspath(path)) as file, _named(path):
            file.write(data)


@contextlib.contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """What the system refuses is told with the path that was asked for, not with one made up on the way, or none."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        del error.filename2  # of a file that could not be renamed
        raise


@contextlib.contextmanager
def replacement(path: str) -> Iterator[BinaryIO]:
    """A new file beside `path`, which takes the place of `path` at the end; after an error nothing is left of it.

    A file that is there keeps its permissions, and a link to it stays a link. What is there but no regular file is
    refused.

    Raises:
      OSError: if the system refuses, with that path.
    """
    with _named(path):
        target, temporary, file = _beside(path)
    try:
        with file:
            yield file  # what is refused to the writer may be another file
            with _named(path):
                flush(file)
                if fcntl is None:
                    file.close()  # where an open file can't be renamed
                os.replace(temporary, target)  # while it is locked: else another save could take it for left over
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    with _named(path):
        flush_directory(target)


def _beside(path: str) -> tuple[str, str, BinaryIO]:
    """Where a path leads to, and a new file beside that."""
    if not os.path.basename(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    target = os.path.realpath(path)
    mode = permissions(target)
    _remove_left_over(os.path.dirname(target))
    while True:
        temporary = os.path.join(os.path.dirname(target), f".jscope-{secrets.token_hex(16)}.tmp")
        with contextlib.suppress(FileExistsError):
            return target, temporary, new_file(temporary, mode)


def new_file(path: str, mode: int | None = None) -> BinaryIO:
    """Makes a file that is not there, locked until it is closed. Its permissions are `mode`; None: those of new files.

    Raises:
      FileExistsError: if there is anything of that name.
    """
    handle = os.open(path, _NEW, 0o666 if mode is None else 0o600)
    try:
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(handle, mode)
        # Before it was locked, another save may have taken it for left over.
        if _lock(handle) is False or not os.fstat(handle).st_nlink:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return open(handle, "wb")
    except BaseException:
        os.close(handle)
        raise


@contextlib.contextmanager
def left_over(path: str) -> Iterator[bool | None]:
    """Whether no save is at work on that file, nor will be as long as the context lasts. None if nobody can tell."""
    try:
        try:
            handle = os.open(path, os.O_WRONLY | _OLD)  # which locks on a network need
        except PermissionError:
            handle = os.open(path, os.O_RDONLY | _OLD)  # the file may not be written to, but may be removed
    except OSError:
        yield False  # it is gone, somebody else's, or no file at all
        return
    try:
        locked = stat.S_ISREG(os.fstat(handle).st_mode) and _lock(handle)
        # Before it was locked, another may have removed it, and a save may have made a new one of that name.
        yield locked if os.fstat(handle).st_nlink else False
    finally:
        os.close(handle)


def permissions(path: str) -> int | None:
    """Those of a file that is there, None if there is none.

    Raises:
      OSError: if there is something else than a regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is there, and no regular file")
    return stat.S_IMODE(mode) & 0o777


def _lock(handle: int) -> bool | None:
    """Whether it is locked now, until all that have this handle close it: False if somebody else has it locked.

    None where the file system has no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_left_over(directory: str) -> None:
    """Removes what killed saves left behind."""
    with contextlib.suppress(OSError):  # somebody else's, or a directory that may not be listed
        for name in os.listdir(directory):
            if _TEMPORARY.fullmatch(name):
                path = os.path.join(directory, name)
                with left_over(path) as is_left_over:
                    if is_left_over:
                        os.remove(path)
