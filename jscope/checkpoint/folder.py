"""A checkpoint of several files of safetensors: a folder, or the index in it that says which array is in which file.

An index is a stranger's file like any other. A name of a file in it that leads out of the folder is never followed, and
what it says is compared with what the files hold: everything that differs is in one error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jscope as js
from jscope._support import count_of, shown

from . import orbax_folder
from .allowance import Allowance
from .faults import damaged, fault, unreadable, user_line
from .files import File
from .locate import INDEX, is_index, is_tensorflows
from .npz import is_npz, read_npz
from .safetensors_file import read_safetensors
from .shards import MOST_INDEX, bytes_when_parsed
from .tensors import Contents, Tensor
from .wild import told

_SHARD = re.compile(r"(.+)-(\d{5,})-of-(\d{5,})(\.safetensors)")
_MOST_OPEN = 64  # files
_MOST_FAULTS = 20
_COPY = "copy or download the folder again, whole"


def read_folder(folder: str, verify: bool) -> Contents | None:
    """What a folder holds. None if there is nothing but perhaps a checkpoint of TensorFlow.

    Args:
      folder: the path.
      verify: as in `read_safetensors`.

    Raises:
      CheckpointError: if it is not clear which of several is meant, or the files are not whole.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise unreadable(folder, error) from None
    if orbax_folder.is_orbax(names):
        return orbax_folder.read_orbax(folder)
    indexes = [name for name in names if is_index(name)]
    files = [name for name in names if name.endswith(".safetensors")]
    claimed = {file for index in indexes for file in files if _may_be_shard(file, index)}
    found = indexes + [file for file in files if file not in claimed]
    tensorflow = [name for name in names if is_tensorflows(name)]
    if not found:
        if tensorflow or not names:
            return None
        raise _nothing(folder, names)
    path = os.path.join(folder, found[0])
    if len(found) > 1 or tensorflow:
        listed = ", ".join(map(shown, (found + tensorflow)[:8]))
        what = f"{folder} has more than one checkpoint in it, and nothing says which one is meant"
        if all(_SHARD.fullmatch(name) for name in found) and not tensorflow:
            what = f"{folder} has several files of safetensors, and no index that says what belongs together"
        raise fault(f"{what}.", kind="ambiguous", exists=listed, fix=f"give the path of one, such as {path!r}")
    if found == indexes:
        return read_index(path, verify)
    part = _SHARD.fullmatch(found[0])
    if part is not None and int(part[3]) != 1:
        what = f"{folder} is not whole: it has {shown(found[0])}, one of {int(part[3])} files, and no index."
        raise fault(what, kind="not_found", fix=f"{_COPY}; to open that file alone, give its path")
    return read_safetensors(File(path), verify)


def read_index(path: str, verify: bool) -> Contents:
    """What the files hold that an index names; `verify` as in `read_safetensors`.

    Raises:
      CheckpointError: if they are not just what it says; `faults` lists everything.
    """
    where = _weight_map(File(path))
    folder = os.path.dirname(path)
    shards, faults = _opened(folder, sorted(set(where.values())), verify)
    found: dict[str, int] = {}
    numbers = {file: number for number, file in enumerate(shards)}
    skipped: dict[str, str] = {}
    for file, contents in shards.items():
        for name in (*contents.tensors, *contents.skipped):
            if name in found:
                other = [*shards][found[name]]
                faults.append(f"{shown(name)} is in two files: {shown(other)} and {shown(file)}")
            elif name not in where:
                faults.append(f"{shown(name)} is in {shown(file)}, and the index does not have it")
            elif where[name] != file and name in _all_names(shards.get(where[name])):
                faults.append(f"{shown(name)} is in two files: {shown(where[name])} and {shown(file)}")
            elif where[name] != file:
                faults.append(f"{shown(name)} is in {shown(file)}, and the index says {shown(where[name])}")
            found[name] = numbers[file]
        skipped |= contents.skipped
    for file in _parts_left_out(folder, set(where.values()), verify):
        faults.append(f"{shown(file)} is a part of the same set and holds arrays, and the index does not name it")
    lacking = [name for name, file in where.items() if name not in found and file in shards]
    faults += [f"{shown(name)} is to be in {shown(where[name])}, and is not" for name in lacking]
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] * (len(faults) > _MOST_FAULTS)
        raise js.CheckpointError(
            f"{path} does not fit the files beside it: {count_of(faults)}.",
            kind="bad_index",
            faults=faults[:_MOST_FAULTS] + more,
            where=user_line(),
            fix=_COPY,
        )
    opened = list(shards.values())
    tensors = _Several({name: found[name] for name in sorted(where) if name not in skipped}, opened)
    metadata, own = _alike([each.metadata for each in opened]), _alike([each.own for each in opened])
    return Contents(path, tensors, skipped, metadata, own)


class _Several(Mapping[str, Tensor]):
    """The arrays of several files.

    Args:
      numbers: of the file that each is in, by name.
      files: all of them.
    """

    def __init__(self, numbers: dict[str, int], files: list[Contents]) -> None:
        self._numbers = numbers
        self._files = files

    def __getitem__(self, name: str) -> Tensor:
        return self._files[self._numbers[name]].tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def _opened(folder: str, files: list[str], verify: bool) -> tuple[dict[str, Contents], list[str]]:
    """(the files that can be opened, what is wrong with the others)."""
    shards, faults = {}, []
    for file in files:
        if not _is_plain(file):
            faults.append(f"{shown(file)} is no name of a file in this folder, and is not followed")
            continue
        path = os.path.join(folder, file)
        if not os.path.isfile(path):
            faults.append(f"{shown(file)} is missing")
            continue
        try:
            opened = File(path, stays_open=len(files) <= _MOST_OPEN)
            foreign = None if _begins_as_safetensors(opened) else told(opened)
            if foreign is not None:
                raise foreign
            shards[file] = read_safetensors(opened, verify)
        except js.CheckpointError as error:
            faults.append(error.what)
    return shards, faults


def _begins_as_safetensors(file: File) -> bool:
    return file.size >= 10 and file.read(8, 1)[0].tobytes() == b"{"


def _all_names(contents: Contents | None) -> Any:
    return () if contents is None else {**contents.skipped, **dict.fromkeys(contents.tensors)}


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\:\0") and name.endswith(".safetensors")


def _weight_map(file: File) -> dict[str, str]:
    """From the name of each array to that of the file that has it."""
    if file.size > MOST_INDEX:
        raise damaged(file.path, 0, f"an index of {file.size} bytes is not read")
    data = file.read(0, file.size)[0].tobytes()
    foreign = None if data.lstrip()[:1] == b"{" else told(file)
    if foreign is not None:
        raise foreign
    Allowance(file.path, file.size).take(b"", bytes_when_parsed(data))
    try:
        index = json.loads(data)
        where = index.get("weight_map") if isinstance(index, dict) else None
    except (ValueError, RecursionError) as error:
        raise damaged(file.path, 0, f"the index is no JSON ({error!s:.80})") from None
    if not isinstance(where, dict) or not where:
        raise damaged(file.path, 0, "the index has no weight_map, which says where each array is")
    if not all(isinstance(shard, str) for shard in where.values()):
        raise damaged(file.path, 0, "the weight_map is no mapping of texts")
    return where


def _alike(metadata: list[dict[str, str]]) -> dict[str, str]:
    """What all files say alike, and what one alone says."""
    merged: dict[str, str] = {}
    differ = set()
    for texts in metadata:
        for name, text in texts.items():
            if merged.setdefault(name, text) != text:
                differ.add(name)
    return {name: text for name, text in merged.items() if name not in differ}


def _parts_left_out(folder: str, listed: set[str], verify: bool) -> list[str]:
    """Files that hold arrays and are not listed, and are called like the listed ones but for the number of the part."""
    sets = {part.group(1, 3, 4) for part in map(_SHARD.fullmatch, listed) if part is not None}
    try:
        names = sorted(os.listdir(folder)) if sets else []
    except OSError as error:
        raise unreadable(folder, error) from None
    parts = {name: _SHARD.fullmatch(name) for name in names if name not in listed}
    beside = [name for name, part in parts.items() if part is not None and part.group(1, 3, 4) in sets]
    opened, _ = _opened(folder, beside, verify)
    return [name for name in beside if name not in opened or opened[name].tensors or opened[name].skipped]


def _may_be_shard(file: str, index: str) -> bool:
    """Whether a file is called as one of those that an index of that name speaks of: of its stem and its variant."""
    match = INDEX.fullmatch(index)
    part = _SHARD.fullmatch(file)
    if match is None or part is None:
        return False
    stem = index[: index.index(".safetensors.index")]
    return part[1] in (stem, stem + (match[1] or ""))


def _nothing(folder: str, names: list[str]) -> Exception:
    """What the files of a folder are, where none of them is read."""
    faults = []
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not name.endswith((".json", ".txt", ".md", ".py")) and len(faults) < _MOST_FAULTS:
            faults.append(_what_it_is(path).replace(path, name))
    listed = ", ".join(map(shown, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    fix = "give the path of one file, or a folder with model.safetensors or model.safetensors.index.json in it"
    step = orbax_folder.latest_in(folder, names)
    if step is not None:
        fix = f"give the path of one of the steps that orbax saved there, such as {os.path.join(folder, step)!r}"
    return js.CheckpointError(
        f"{folder} has no checkpoint in it that is read.",
        kind="not_found",
        where=user_line(),
        faults=faults,
        exists=listed,
        fix=fix,
    )


def _what_it_is(path: str) -> str:
    try:
        file = File(path)
        if is_npz(file):
            read_npz(file)
        error = told(file)
    except js.CheckpointError as raised:
        error = raised
    return error.what if isinstance(error, js.CheckpointError) else f"{path} can be opened, if it is a checkpoint."
