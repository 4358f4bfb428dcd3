"""From what users name to the files of a checkpoint."""

from __future__ import annotations

import os
import re

from jscope._support import shown

from .faults import Path, fault, file_name
from .files import File

STATE = "checkpoint"
_MOST_STATE = 1 << 20
# No part of it can be matched in two ways: so it takes a time that grows with the file, and not with its square.
_LATEST = re.compile(rb'^[ \t]*+model_checkpoint_path[ \t]*+:[ \t]*+"((?:[^"\\\n]++|\\.)*+)"', re.MULTILINE)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
INDEX = re.compile(r".+\.safetensors\.index(\.[^.]+)?\.json")
_FILES = (".safetensors", ".npz")
_SIMPLE = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}


def is_tensorflows(name: str) -> bool:
    """Whether a file of that name shows that there is a checkpoint of TensorFlow in the folder."""
    return name == STATE or name.endswith(".index")


def is_index(path: str) -> bool:
    """Whether that is what the index of several files is called: `model.safetensors.index.json`."""
    return INDEX.fullmatch(os.path.basename(path)) is not None


def place_of_file(path: Path) -> str:
    """The path as text, where a file is to be saved.

    Raises:
      CheckpointError: if no file can have it, or one of that name would be read as something else.
    """
    target = file_name(path, "unwritable")
    if is_index(target):
        what = f"{target} is called as an index of several files, and would be read as one."
        raise fault(what, kind="other_format", fix="give it another ending, such as .safetensors")
    return target


def locate(path: Path) -> tuple[str, bool]:
    """(prefix, False) of a bundle, or (file, True) of one in the first version of the format.

    Raises:
      CheckpointError: if there is none.
    """
    given = file_name(path, "not_found")
    if os.path.isdir(given) and not os.path.isfile(given + ".index"):
        return _in_directory(given)
    if os.path.basename(given) == STATE and os.path.isfile(given):
        return _latest(given)
    found = _checkpoint(given)
    if found is None:
        directory = os.path.dirname(given) or "."
        what = f"There is no checkpoint {given}."
        fix = "give the prefix or the file of one that exists"
        raise fault(what, kind="not_found", exists=_listed(directory, files=True), fix=fix)
    return found


def _checkpoint(given: str) -> tuple[str, bool] | None:
    if os.path.isfile(given + ".index"):
        return given, False
    prefix = re.sub(r"\.index$|\.data-\d{5,}-of-\d{5,}$", "", given)
    if prefix != given and os.path.isfile(prefix + ".index"):
        return prefix, False
    return (given, True) if os.path.isfile(given) else None


def _in_directory(directory: str) -> tuple[str, bool]:
    state = os.path.join(directory, STATE)
    if os.path.isfile(state):
        return _latest(state)
    prefixes = _prefixes(directory)
    if len(prefixes) == 1:
        return os.path.join(directory, prefixes[0]), False
    what = f"{directory} has no file '{STATE}' that says which checkpoint is the latest"
    if not prefixes:
        fix = "give the path of a checkpoint of TensorFlow; jscope.checkpoint.load(path) reads other formats"
        raise fault(what + ", nor any checkpoint.", kind="not_found", exists=_listed(directory, files=True), fix=fix)
    fix = f"give one of them, such as {os.path.join(directory, prefixes[0])!r}"
    raise fault(what + ".", kind="not_found", exists=_listed(directory), fix=fix)


def _latest(state: str) -> tuple[str, bool]:
    """The checkpoint that a state file names; one of that name beside it, where the directory was moved."""
    file = File(state)
    text = file.read(0, min(file.size, _MOST_STATE))[0].tobytes()
    match = _LATEST.search(text)
    if match is None:
        what = f"{state} names no checkpoint: it has no line 'model_checkpoint_path: \"...\"'."
        raise fault(what, kind="damaged", exists=_listed(os.path.dirname(state)), fix="give the path of a checkpoint")
    name = os.fsdecode(_ESCAPE.sub(_unescaped, match[1])).replace("\0", "")
    directory = os.path.dirname(state)
    for place in (os.path.join(directory, name), os.path.join(directory, os.path.basename(name))):
        found = _checkpoint(place)
        if found is not None:
            return found
    what = f"{state} names the checkpoint {shown(name)}, which does not exist."
    raise fault(what, kind="not_found", exists=_listed(directory), fix="give the path of a checkpoint")


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8) & 0xFF]) if code.isdigit() and code < b"8" else _SIMPLE.get(code, code)


def _prefixes(directory: str) -> list[str]:
    return sorted(name.removesuffix(".index") for name in _names(directory, (".index",)))


def _names(directory: str, endings: tuple[str, ...]) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if name.endswith(endings)]
    except OSError:
        return []


def _listed(directory: str, most: int = 8, *, files: bool = False) -> str:
    """The prefixes in a directory; with `files` also those of the formats that are one file."""
    found = _names(directory or ".", _FILES) if files else []
    found = sorted(found + _prefixes(directory or "."))
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(map(shown, found[:most])) + more
