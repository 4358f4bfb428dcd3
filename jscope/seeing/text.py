"""The sharing picture for a terminal: scopes as a tree, a bar for the bytes, an arrow from each line that reads."""

from __future__ import annotations

import math
from typing import Any

import jscope as js
from jscope._support import Scope, cut, format_bytes, misspelt, printable

from .data import reads_of, reads_text

_BAR = 16
_EIGHTHS = " ▏▎▍▌▋▊▉"


def to_text(specs: js.Specs, *, depth: int | None = None, width: int = 120) -> str:
    """See `Specs.to_text`."""
    root, near = Scope.of(specs.values()), misspelt(specs.values())
    lines = list(root.lines(math.inf if depth is None else depth))
    largest = max((item.bytes for _, item in lines), default=0)
    labels = [printable(label.replace("  ", "│ ")) if label.startswith(" ") else printable(label) for label, _ in lines]
    column = min(max(map(len, labels), default=0), width // 2)
    texts = []
    for label, (_, item) in zip(labels, lines, strict=True):
        size = f"{cut(label, column).ljust(column)} {_bar(item.bytes, largest)} {format_bytes(item.bytes):>9}"
        texts.append(cut_at_end(f"{size}  {_reads(item, near)}".rstrip(), width))
    shared = sum(reads_of(spec).total() > 1 for spec in specs.values())
    return "\n".join([*texts, f"{root.totals()}{f', {shared:,} shared' * bool(shared)}"])


def _bar(count: int, largest: int) -> str:
    eighths = math.ceil(8 * _BAR * count / largest) if largest else 0
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(_BAR)


def _reads(item: Any, near: dict[str, tuple[str, str]]) -> str:
    """Where a variable is read, or all below a scope; shared ones by a thick arrow."""
    if isinstance(item, Scope):
        return f"{item.count} variable{'s' * (item.count != 1)}"
    reads = reads_of(item)
    if not reads:
        return ""
    doubt = f"  ? near {printable(near[item.name][1])}" if item.name in near else ""
    arrow, frozen = "◀━━" if reads.total() > 1 else "◀──", " frozen" * (not item.trainable)
    return f"{arrow} {printable(reads_text(reads))}{frozen}{doubt}"


def cut_at_end(text: str, width: int) -> str:
    """A text of at most that many letters, cut at its end."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
