"""`assert_golden`: what a program declares, written down, so that no change of it goes unnoticed."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jscope as js
from jscope._support import initializer_text, partition_text, printable, short_type, write_text

from .calls import bad_argument

_HEAD = (
    "# What the program declares, in full; written by jscope.testing.assert_golden, anew by `pytest --jscope-update`"
)
_HOW = "run pytest once with --jscope-update (or JSCOPE_UPDATE_GOLDEN=1 in the environment)"


def assert_golden(variables: Mapping[str, Any], path: str | os.PathLike[str], *, update: bool | None = None) -> None:
    """What a program declares equals what stands in a file: checkpoints still load, and training starts the same.

    The file has one line for each variable, sorted by name, and goes into version control: dtype and shape; and of
    `Specs` also the initializer with its arguments, how many times the variable is read, and, where they are not as
    usual, `trainable`, collections and partition. Of an initializer that you wrote, its arguments are what it holds of
    numbers, texts, arrays and functions; a large array is told by a hash, and code is not compared. Lines that start
    with `#` are comments. Files of earlier versions, which hold dtypes and shapes alone or initializers cut short, are
    still read: what they don't hold is not compared.

    Args:
      variables: `Specs`, or `Params`, or any nested or flat mapping of arrays, of which dtypes and shapes are compared.
      path: the file.
      update: whether to write the file instead of comparing; default: whether pytest was given `--jscope-update`, or
        the environment variable `JSCOPE_UPDATE_GOLDEN` is set to anything but `0`.

    Raises:
      AssertionError: showing what is gone (`-`), new (`+`) and changed (`~`), a whole scope in one line; also if there
        is no such file.
      BadArgumentError: for the path of a directory.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope.testing import assert_golden
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "net.txt"
      >>> def program(width):
      ...     with js.variable_scope("tower"):
      ...         js.get_variable("kernel", [2, width], initializer=js.random_normal_initializer(stddev=0.05))
      >>> assert_golden(js.transform(program).specs(3), file, update=True)
      >>> print(file.read_text().splitlines()[1])
      tower/kernel  f32[2,3]  init=random_normal(stddev=0.05)  uses=1
      >>> assert_golden(js.transform(program).specs(3), file)
      >>> try:
      ...     assert_golden(js.transform(program).specs(4), file)
      ... except AssertionError as error:
      ...     print(str(error).splitlines()[1])
        ~ tower/kernel: f32[2,3] is now f32[2,4]
    """
    __tracebackhide__ = True
    path = Path(path)
    if path.is_dir():
        raise bad_argument(f"{path} is a directory.", "give the path of a file in it")
    if os.environ.get("JSCOPE_UPDATE_GOLDEN", "0") not in ("", "0") if update is None else update:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join([_HEAD, *(row.line() for row in _rows_of(variables).values()), ""]))
        return
    if not path.exists():
        raise AssertionError(f"There is no golden file {path}.\n  To write it, {_HOW}.")
    text = path.read_text(encoding="utf-8", errors="replace")
    changes = _changes(_rows_in(text), _rows_of(variables, in_full=_HEAD in text.splitlines()))
    if changes:
        shown = "\n".join("  " + printable(line) for line in changes)
        raise AssertionError(f"The variables differ from {path}:\n{shown}\n  If that is meant, {_HOW}.")


def declared_differences(first: js.Specs, second: js.Specs) -> list[str]:
    """What is gone in the second (`-`), new (`+`) and changed (`~`): the lines of `assert_golden`."""
    return _changes(_rows_of(first), _rows_of(second))


@dataclasses.dataclass(frozen=True)
class _Row:
    """One variable: its dtype and shape, and what else is known of it, `{}` where that is not known."""

    name: str
    type: str
    details: Mapping[str, str]

    def line(self) -> str:
        return "  ".join([self.name, self.type, *(f"{key}={value}" for key, value in self.details.items())])


def _rows_of(variables: Mapping[str, Any], in_full: bool = True) -> dict[str, _Row]:
    if isinstance(variables, js.Specs):
        rows = [_Row(_written(spec.name), short_type(spec), _details(spec, in_full)) for spec in variables.values()]
        return {row.name: row for row in sorted(rows, key=lambda row: row.name)}
    leaves = js.Params(variables).flat()
    return {_written(name): _Row(_written(name), _type(leaf), {}) for name, leaf in leaves.items()}


def _written(name: str) -> str:
    """A name as it stands in a file: not as a comment, and with no two spaces, which stand between fields."""
    return re.sub(r"^#|^ | $|(?<= ) ", lambda found: f"\\x{ord(found[0]):02x}", printable(name))


def _type(leaf: Any) -> str:
    return short_type(leaf) if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else type(leaf).__name__


def _details(spec: js.VariableSpec, in_full: bool) -> dict[str, str]:
    initializer = " ".join(initializer_text(spec.initializer, in_full).split())
    if not in_full:
        # Where a lambda stands is no part of what it is: the next line that somebody adds above would change it.
        initializer = re.sub(r" at \S+:\d+", "", initializer)
    details = {"init": initializer, "uses": str(1 + len(spec.used_at))}
    usual = (js.GraphKeys.GLOBAL_VARIABLES, *((js.GraphKeys.TRAINABLE_VARIABLES,) if spec.trainable else ()))
    if not spec.trainable:
        details["trainable"] = "False"
    if sorted(spec.collections) != sorted(usual):
        details["collections"] = ",".join(spec.collections) or "none"
    if spec.partition is not None:
        details["partition"] = " ".join(partition_text(spec.partition).split())
    return details


def _rows_in(text: str) -> dict[str, _Row]:
    rows = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            # Two spaces stand between fields; somebody may have typed one, or a tab.
            fields = re.split(r"\s{2,}|\t", line.strip())
            if len(fields) == 1:
                fields = line.strip().rsplit(maxsplit=1)
            name, kind, *rest = fields if len(fields) > 1 else (fields[0], "")
            details = {key: value for key, _, value in (detail.partition("=") for detail in rest)}
            rows[name] = _Row(name, kind, details)
    return rows


def _changes(then: Mapping[str, _Row], now: Mapping[str, _Row]) -> list[str]:
    gone = _by_scope([name for name in then if name not in now], now)
    new = _by_scope([name for name in now if name not in then], then)
    changes = []
    for scope, names in list(gone.items()):
        moved = next((other for other in new if _alike(scope, names, other, new[other], then, now)), None)
        if moved is not None:
            del gone[scope], new[moved]
            changes.append((scope, f"~ {scope} is now {moved}  ({len(names)} variables)"))
    for sign, rows, groups in (("-", then, gone), ("+", now, new)):
        for scope, names in groups.items():
            text = rows[names[0]].line() if scope == names[0] else f"{scope}  ({len(names)} variables)"
            changes.append((scope, f"{sign} {text}"))
    changes += [
        (name, f"~ {name}: {text}") for name in then if name in now and (text := _change(then[name], now[name]))
    ]
    return [line for _, line in sorted(changes, key=lambda change: change[0])]


def _by_scope(names: Iterable[str], others: Iterable[str]) -> dict[str, list[str]]:
    """The names by the outermost scope (`tower/`) in which the other side has none; a name alone stands for itself."""
    taken = {name[: i + 1] for name in others for i, letter in enumerate(name) if letter == "/"}
    groups: dict[str, list[str]] = {}
    for name in names:
        scopes = [name[: i + 1] for i, letter in enumerate(name) if letter == "/"]
        groups.setdefault(next((scope for scope in scopes if scope not in taken), name), []).append(name)
    return {scope if len(found) > 1 else found[0]: found for scope, found in groups.items()}


def _alike(scope: str, names: list[str], other: str, others: list[str], then: Any, now: Any) -> bool:
    """Whether two scopes hold the same, so that it was renamed."""

    def inside(start: str, rows: Mapping[str, _Row], found: list[str]) -> set[tuple[str, str]]:
        return {(name.removeprefix(start), rows[name].type) for name in found}

    return len(names) > 1 and inside(scope, then, names) == inside(other, now, others)


def _change(then: _Row, now: _Row) -> str:
    changes = [f"{then.type} is now {now.type}"] if then.type != now.type else []
    if then.details and now.details:
        for key in dict.fromkeys([*then.details, *now.details]):
            was, is_now = then.details.get(key, "as usual"), now.details.get(key, "as usual")
            if was != is_now:
                changes.append(f"{key} {was} is now {is_now}")
    return ", ".join(changes)
