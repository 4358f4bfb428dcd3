"""One checkpoint in several files: which array goes into which, and the index that says so, written last.

A file that is there is never replaced: an older index would then speak of files of two saves.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

import jscope as js
from jscope._support import flush, flush_directory, new_file, shown

from .allowance import Allowance
from .atomic import replace_file
from .faults import fault, unwritable, user_line
from .locate import is_tensorflows
from .orbax_folder import is_orbax

MOST_INDEX = 30_000_000  # bytes; one of 100,000 arrays has some 9 MB
_THING = 160  # bytes that a text, a place in a dict or a list takes in Python
_ONE = "model.safetensors"
_INDEX = f"{_ONE}.index.json"
_ELSEWHERE = "save to another folder, or remove what is there before"


def shared_out(sizes: Mapping[str, int], most: Any) -> list[list[str]]:
    """The names of each file, in the order of `sizes`; one that is larger than `most` bytes has a file of its own.

    Raises:
      BadArgumentError: if `most` is no number of bytes.
    """
    if not isinstance(most, int | np.integer) or isinstance(most, bool) or most < 1:
        what = f"max_shard_bytes is a whole number of bytes from 1 on, not {most!r:.40}."
        raise js.BadArgumentError(what, kind="bad_size", where=user_line(), fix="write such as 5_000_000_000")
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if size > room or not groups:
            groups.append([])
            room = int(most)
        groups[-1].append(name)
        room -= size
    return groups or [[]]


def write_folder(
    folder: str, groups: Sequence[Sequence[str]], total: int, write: Callable[[Collection[str], BinaryIO], None]
) -> None:
    """Writes a file for each group of names, and the index. A single file is `model.safetensors`, without one.

    Args:
      folder: is made if it is not there.
      groups: the names in each file.
      total: bytes of all arrays.
      write: writes the arrays of a group.

    Raises:
      CheckpointError: if there is a checkpoint already, the index could not be read again, or the system refuses.
    """
    if folder.endswith((".safetensors", ".json")):
        what = f"{folder} is called as a file, and max_shard_bytes= is for a folder."
        raise fault(what, kind="other_format", fix="give the path of a folder, or leave max_shard_bytes= out")
    if os.path.isfile(f"{folder}.index"):
        what = f"{folder} is the prefix of a checkpoint of TensorFlow, which would be read in place of the folder."
        raise fault(what, kind="unwritable", fix=_ELSEWHERE)
    files = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    where = {name: file for file, names in zip(files, groups, strict=True) for name in names}
    index = _index(where, total) if len(groups) > 1 else b""
    made: list[str] = []
    is_new = not os.path.isdir(folder)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        if there := sorted(name for name in os.listdir(folder) if _is_of_a_checkpoint(name)):
            raise _there_already(folder, there[0])
        if len(groups) == 1:
            replace_file(os.path.join(folder, _ONE), lambda file: write(set(groups[0]), file))
            return
        for file_name, names in zip(files, groups, strict=True):
            path = os.path.join(folder, file_name)
            with new_file(path) as file:
                made.append(path)
                write(set(names), file)
                flush(file)
        flush_directory(os.path.join(folder, _INDEX))
        replace_file(os.path.join(folder, _INDEX), lambda file: _write_all(file, index))
    except BaseException as error:
        for path in made:
            with contextlib.suppress(OSError):
                os.remove(path)
        if is_new:
            with contextlib.suppress(OSError):  # another save has put something into it
                os.rmdir(folder)
        if isinstance(error, FileExistsError) and error.errno == errno.EEXIST:
            raise _there_already(folder, os.path.basename(str(error.filename))) from None
        if isinstance(error, OSError):
            raise unwritable(folder, error) from error
        raise


def bytes_when_parsed(index: bytes) -> int:
    """Bytes that it takes as a tree of Python's objects: many times those that it is written in."""
    return _THING * (index.count(b'"') // 2 + sum(map(index.count, (b",", b":", b"[", b"{"))))


def _index(where: Mapping[str, str], total: int) -> bytes:
    """What says in which file each array is.

    Raises:
      CheckpointError: if it would be refused by `open`.
    """
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    text = json.dumps(index, ensure_ascii=False, indent=2).encode()
    try:
        Allowance(_INDEX, len(text)).take(b"", bytes_when_parsed(text))
        is_too_large = len(text) > MOST_INDEX
    except js.CheckpointError:
        is_too_large = True
    if is_too_large:
        what = f"{len(where):,} arrays are too many for an index of several files: it could not be read again."
        raise fault(what, kind="too_many", fix="save them in one file, without max_shard_bytes=")
    return text


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _is_of_a_checkpoint(name: str) -> bool:
    """Whether a file of that name is what `open` looks for in a folder."""
    is_safetensors = name.endswith(".safetensors") or ".safetensors.index." in name
    return is_safetensors or is_tensorflows(name) or is_orbax([name])


def _there_already(folder: str, name: str) -> js.CheckpointError:
    what = f"{folder} has {shown(name)} in it already; a checkpoint of several files takes no other's place."
    return fault(what, kind="unwritable", fix=_ELSEWHERE)
