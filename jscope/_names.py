"""The grammar of names: which are allowed, how they are joined, made unique, counted, matched. Floor 0: no jax here."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections.abc import Iterable

from ._callsite import user_line
from ._errors import STATIC_ARGNAMES, BadArgumentError, BadNameError

# TensorFlow's patterns for operation names, at the root and inside an op scope.
_ROOT_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_INNER_NAME = re.compile(r"[A-Za-z0-9_.\\/>-]*")

_LONGEST_COMPARED = 300  # characters of a name that is compared with others
_MOST_CANDIDATES = 50_000
_MOST_COMPARED = 1_000_000  # pairs of characters: at worst half a second


def shows_traced(text: str) -> bool:
    """Whether a text holds what JAX shows for a value that it traces."""
    return re.search(r"Tracer\W|Traced<", text) is not None


def join(scope: str, name: str) -> str:
    """`scope/name`, or `name` alone at the root."""
    return f"{scope}/{name}" if scope else name


def split(name: str) -> list[str]:
    """The parts of a full name, empty ones kept (`a//v` is `a`, ``, `v`): joining with `/` gives the name back."""
    return name.split("/")


def near(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of `names` that look like `name`, best first; letter case does not count.

    First those that have a scope more or less at their beginning. Where there are very many names, those are compared
    that have the longest beginning or end in common with `name`: to compare all would take seconds.
    """
    folded = name.casefold()
    if len(folded) > _LONGEST_COMPARED:
        return []
    by_folded: dict[str, str] = {}
    moved, alike = [], []
    for candidate in names:
        other = candidate.casefold() if len(candidate) <= _LONGEST_COMPARED else ""
        # difflib's ratio, which is to be 0.6, is at most twice the shorter length by the sum of both.
        is_alike = 0.6 * (len(other) + len(folded)) <= 2 * min(len(other), len(folded))
        is_moved = other.endswith("/" + folded) or folded.endswith("/" + other)
        if (is_alike or is_moved) and other not in by_folded:
            by_folded[other] = candidate
            moved += [other] * is_moved
            alike += [other] * is_alike
            if len(by_folded) == _MOST_CANDIDATES:
                break
    moved.sort(key=lambda other: abs(len(other) - len(folded)))
    most = _MOST_COMPARED // (len(folded) + 1) ** 2
    if len(alike) > most:
        alike = _neighbours(folded, alike, most // 4)
    alike = difflib.get_close_matches(folded, alike, n=count, cutoff=0.6)
    return [by_folded[other] for other in dict.fromkeys((*moved[:count], *alike))][:count]


def _neighbours(name: str, names: list[str], count: int) -> list[str]:
    """Those next to `name` in the order of names, and in the order of names read backwards: `count` to each side."""
    found: dict[str, None] = {}
    for step in (1, -1):
        ordered = sorted(other[::step] for other in names)
        place = bisect_left(ordered, name[::step])
        found.update(dict.fromkeys(other[::step] for other in ordered[max(place - count, 0) : place + count]))
    return list(found)


def matcher(pattern: str) -> re.Pattern[str]:
    """`pattern` compiled, for `re.match` on full names as TF1's `scope=` arguments do.

    Raises:
      BadArgumentError: if it is not a regular expression.
    """
    try:
        compiled = re.compile(pattern)
        compiled.match("")  # which one of bytes refuses
    except (re.error, TypeError, OverflowError) as error:
        several = isinstance(pattern, list | tuple) and pattern and all(isinstance(one, str) for one in pattern)
        raise BadArgumentError(
            f"{pattern!r:.200} is not a regular expression: {error}.",
            kind="bad_pattern",
            where=user_line(),
            fix=f"write one pattern for all of them: {'|'.join(pattern)!r:.200}"
            if several
            else "give a text, which is matched with re.match; escape special characters with re.escape",
        ) from None
    return compiled


class OpNames:
    """TensorFlow's op-name table: every op scope and variable takes a name here, a second taker gets `_1`.

    Scopes and variables share the table, and letter case does not tell names apart.
    """

    __slots__ = ("_good", "_taken")

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}
        self._good: set[str] = set()  # names that are allowed inside a scope

    def unique(self, name: str) -> str:
        """Takes full name `name`, or the first free `name_k`."""
        taken = self._taken
        key = name.lower()
        if key not in taken:
            taken[key] = 1
            return name
        base, count = key, taken[key]
        while key in taken:
            key = f"{base}_{count}"
            count += 1
        # TF1 adds one to the count instead, and tries again what is taken; names are never given back.
        taken[base] = count
        taken[key] = 1
        return f"{name}_{count - 1}"

    def open(self, scope: str, name: str) -> str:
        """The full op scope that `name` opens inside op scope `scope`; a final slash makes it absolute and not unique.

        Raises:
          BadNameError: for a name that TensorFlow refuses; nothing is taken then.
        """
        if not name:
            return ""
        if not scope:
            if _ROOT_NAME.fullmatch(name) is None:
                self.check(scope, name)
        elif name not in self._good:
            self.check(scope, name)
            self._good.add(name)
        if name[-1] == "/":
            return name[:-1]
        full = scope + "/" + name if scope else "" + name  # a plain text, also of a name that is one of an Enum's
        taken, key = self._taken, full.lower()
        count = taken.get(key)
        if count is None:
            taken[key] = 1
            return full
        numbered = f"{key}_{count}"
        if numbered in taken:
            return self.unique(full)
        taken[key], taken[numbered] = count + 1, 1
        return f"{full}_{count}"

    @staticmethod
    def check(scope: str, name: str) -> None:
        """Raises BadNameError for a name that TensorFlow refuses inside op scope `scope`."""
        pattern = _INNER_NAME if scope else _ROOT_NAME
        if pattern.fullmatch(name) is None:
            where = "inside a scope" if scope else "at the root"
            raise BadNameError(
                f"{name!r} is not a valid name {where}.",
                kind="bad_name",
                scope=scope,
                where=user_line(),
                fix="the name holds the text of a value that JAX traces: count in Python, or make that value static in "
                f"the jax.jit around, {STATIC_ARGNAMES}"
                if shows_traced(name)
                else f"use letters, digits and any of . _ - / \\ > (TF1's pattern {where} is ^{pattern.pattern}$)",
            )


class ScopeCounts:
    """Which scope names are in use, for TF1's numbering of default names (`d`, `d_1`, ...).

    TF1 keeps a count per full scope name, sets everything below a scope to zero when that scope is left, and puts the
    whole table back when a captured scope is left. Only "is the count positive" is ever asked, and only for default
    names. So entering and leaving a scope are just written down, and looked at when somebody asks. Then this notes
    *when* a name was last opened and *when* a scope was last left: a name is in use if it was opened after each scope
    around it was last left. That costs O(1) for each scope, whatever their number.

    Attributes:
      written: what was written down and not looked at yet: a name was opened, or (name,), it was left.
    """

    __slots__ = ("_clock", "_first_free", "_left", "_marks", "_opened", "_rolled_back", "_undo", "written")

    def __init__(self) -> None:
        self.written: list[str | tuple[str]] = []
        self._clock = 0
        self._opened: dict[str, int] = {}
        self._left: dict[str, int] = {}
        # While captured scopes are open: (table, name, time before), to be put back.
        self._marks = 0
        self._undo: list[tuple[dict[str, int], str, int]] = []
        self._rolled_back = 0
        # base name -> (when found, first number not yet tried): keeps n default names linear.
        self._first_free: dict[str, tuple[int, int]] = {}

    def _read(self) -> None:
        """Notes the times of what was written down."""
        for written in self.written:
            self._clock += 1
            table, name = (self._opened, written) if isinstance(written, str) else (self._left, written[0])
            if self._marks:
                self._undo.append((table, name, table.get(name, 0)))
            table[name] = self._clock
        self.written.clear()

    def mark(self) -> int:
        """A point to come back to; each is rolled back to once."""
        self._read()
        self._marks += 1
        return len(self._undo)

    def roll_back(self, mark: int) -> None:
        """Forgets everything since `mark`, openings and leavings alike."""
        self._read()
        self._marks -= 1
        self._clock += 1
        self._rolled_back = self._clock
        while len(self._undo) > mark:
            table, name, before = self._undo.pop()
            table[name] = before

    def unique(self, scope: str, name: str) -> str:
        """The first of `name`, `name_1`, `name_2`, ... not in use inside `scope` (TF1's default names)."""
        self._read()
        full = join(scope, name)
        emptied = self._emptied(full)
        if self._opened.get(full, 0) <= emptied:
            return name
        found, number = self._first_free.get(full, (0, 1))
        if found <= max(emptied, self._rolled_back):
            number = 1
        while self._opened.get(f"{full}_{number}", 0) > emptied:
            number += 1
        self._clock += 1
        self._first_free[full] = (self._clock, number)
        return f"{name}_{number}"

    def _emptied(self, name: str) -> int:
        """When the latest of the scopes around `name` was last left."""
        latest = 0
        end = name.find("/")
        while end >= 0:
            latest = max(latest, self._left.get(name[:end], 0))
            end = name.find("/", end + 1)
        return latest
