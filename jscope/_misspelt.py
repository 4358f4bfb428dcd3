"""Names that look like misspellings of another: AUTO_REUSE makes a new variable of them, without a word. Floor 1."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ._names import split

_DIGITS = re.compile(r"\d+")
_SEPARATORS = re.compile(r"[_.\-]+")
_DEEPEST = 64  # scopes: the time goes by the square of their number, and nobody's own names are as deep


def misspelt(specs: Iterable[Any]) -> dict[str, tuple[str, str]]:
    """Variables made under AUTO_REUSE that are read once and differ from another by one part of the name, a little.

    The other has the same shape and dtype: else the call that was meant to share it would have been an error. Parts
    that differ in their numbers are not near (`layer_1`, `layer_2`), nor are short ones (`w_q`, `w_k`).

    Args:
      specs: `VariableSpec`s.

    Returns:
      name -> (its beginning down to the part that may be misspelt, the same of the other).
    """
    specs = list(specs)
    if not any(map(_is_suspect, specs)):
        return {}
    # What is the same but for one part, by that part.
    alike: dict[Any, dict[str, bool]] = defaultdict(dict)
    places: list[tuple[str, list[str], int, Any]] = []
    for spec in specs:
        parts = split(spec.key or spec.name)
        if len(parts) > _DEEPEST:
            continue
        suspect = _is_suspect(spec)
        for i, part in enumerate(parts):
            numbers = tuple(_DIGITS.findall(part))
            kind = tuple(parts[:i]), tuple(parts[i + 1 :]), numbers, spec.shape, spec.dtype
            alike[kind][part] = True
            if suspect:
                places.append((spec.name, parts, i, kind))
    found: dict[str, tuple[str, str]] = {}
    for name, parts, i, kind in places:
        for other in alike[kind]:
            if other != parts[i] and _near(parts[i], other):
                found.setdefault(name, ("/".join(parts[: i + 1]), "/".join([*parts[:i], other])))
    return found


def _is_suspect(spec: Any) -> bool:
    return spec.auto_reuse and not spec.used_at


def _near(a: str, b: str) -> bool:
    """Whether one may be the other, mistyped: in letter case, in separators, or in one word of theirs."""
    words, others = (_SEPARATORS.split(text.casefold()) for text in (a, b))
    if "".join(words) == "".join(others):
        return sum(map(len, words)) > 2  # w and W are two names
    if len(words) != len(others):
        return False
    ((word, other), *more) = [pair for pair in zip(words, others, strict=True) if pair[0] != pair[1]]
    return not more and _is_slip(word, other)


def _is_slip(a: str, b: str) -> bool:
    """One slip of the fingers (a letter more, less, another, or two swapped); two in long words."""
    longer = max(len(a), len(b))
    if longer < 4:
        return False
    if a[0] != b[0] and sorted(a[:2]) != sorted(b[:2]) and longer < 6:
        return False  # beta and zeta, local and focal
    if a[:-1] == b[:-1] and ({a[-1], b[-1]} <= set("abcd") or {a[-1], b[-1]} <= set("xyz")):
        return False  # letters that count: branchA and branchB
    slips = _slips(a, b)
    return slips == 1 or (slips == 2 and longer >= 8 and a[0] == b[0])


def _slips(a: str, b: str) -> int:
    """The least number of slips from one to the other (optimal string alignment)."""
    if abs(len(a) - len(b)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        two_before, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                best = min(best, two_before[j - 2] + 1)
            row.append(best)
    return row[-1]
