"""From the names of a checkpoint to those of a program."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jscope as js
from jscope._support import matcher

from .faults import user_line
from .near import Near

Rename = Mapping[str, str] | Sequence[tuple[str, str]] | Callable[[str], str]


def renamer(rename: Rename | None, names: Iterable[str]) -> tuple[Callable[[str], str], list[str]]:
    """(new name of a name, what is wrong with `rename` for a source that has these names).

    Raises:
      BadTypeError: if it is none of the three forms.
      BadArgumentError: if a pattern is no regular expression.
    """
    if rename is None:
        return lambda name: name, []
    if isinstance(rename, Mapping):
        return _by_map(rename, list(names))
    if callable(rename):
        return _by_call(rename), []
    return _by_patterns(rename), []


def _bad(given: Any) -> js.BadTypeError:
    return js.BadTypeError(
        f"rename takes a mapping of names, (pattern, replacement) pairs, or a function, not {given!r:.80}.",
        kind="bad_rename",
        where=user_line(),
        fix='write {"old/": "new/"} or [(r"layer_(\\d+)", r"h\\1")]',
    )


def _by_map(rename: Mapping[str, str], names: list[str]) -> tuple[Callable[[str], str], list[str]]:
    scopes, exact, faults, near = {}, {}, [], Near(names)
    for old, new in rename.items():
        if not (isinstance(old, str) and isinstance(new, str)):
            raise _bad(rename)
        if old.endswith("/") != new.endswith("/") and old and new:
            faults.append(f"rename {old!r} -> {new!r}: both are scopes, which end in '/', or neither is")
        if old.endswith("/") or new.endswith("/") or not old:
            prefix = "" if old == "/" else old
            scopes[prefix] = "" if new == "/" else new
            found = any(name.startswith(prefix) for name in names)
        else:
            exact[old] = new
            found = old in names
        if not found:
            faults.append(f"rename {old!r} -> {new!r}: the source has no such name{near.text(old)}")
    longest_first = sorted(scopes, key=len, reverse=True)

    def renamed(name: str) -> str:
        if name in exact:
            return exact[name]
        for prefix in longest_first:
            if name.startswith(prefix):
                return scopes[prefix] + name[len(prefix) :]
        return name

    return renamed, faults


def _by_patterns(rename: Sequence[tuple[str, str]]) -> Callable[[str], str]:
    try:
        pairs = [(pattern, replacement) for pattern, replacement in rename]
    except (TypeError, ValueError):
        raise _bad(rename) from None
    rules = [(matcher(pattern), replacement) for pattern, replacement in pairs]

    def renamed(name: str) -> str:
        for pattern, replacement in rules:
            try:
                name = pattern.sub(replacement, name)
            except (re.error, IndexError, TypeError) as error:
                what = f"rename: {replacement!r} is no replacement for {pattern.pattern!r}: {error}."
                fix = r"refer to the groups of the pattern as \1, \2"
                raise js.BadArgumentError(what, kind="bad_pattern", where=user_line(), fix=fix) from None
        return name

    return renamed


def _by_call(rename: Callable[[str], str]) -> Callable[[str], str]:
    def renamed(name: str) -> str:
        new = rename(name)
        if not isinstance(new, str):
            what = f"rename gives {new!r:.80} for {name!r}, which is no name."
            fix = "return the name itself where it stays; allow_unused is for what is not wanted"
            raise js.BadTypeError(what, kind="bad_rename", where=user_line(), fix=fix)
        return new

    return renamed
