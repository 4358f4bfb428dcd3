"""What notebooks show of jscope's objects: HTML without a script, in the colours that stand around it."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jscope as js
from jscope._support import (
    Scope,
    format_bytes,
    initializer_text,
    misspelt,
    partition_text,
    printable,
    short_type,
)

from .data import TIMES, reads_of, reads_text

_ROWS = 1000  # in one piece of HTML
_OPEN_ROWS = 60  # shown unfolded

_STYLE = """\
<style>
.jscope-seen { font-size: 13px; line-height: 1.5; color: inherit; max-width: 1100px; overflow-x: auto; }
.jscope-seen details { margin: 1px 0 1px 1px; padding-left: 14px; border-left: 1px solid rgba(128, 128, 128, 0.35); }
.jscope-seen summary { cursor: pointer; margin-left: -12px; }
.jscope-seen table { border-collapse: collapse; margin: 0 0 2px; }
.jscope-seen td, .jscope-seen th { border: 0; padding: 0 14px 0 0; text-align: left; background: none; }
.jscope-seen th, .jscope-seen .soft { opacity: 0.65; font-weight: normal; }
.jscope-seen code { background: none; color: inherit; padding: 0; font-size: 12px; }
.jscope-seen .shared { color: #d9480f; font-weight: 600; }
.jscope-seen .doubt { color: #c2257a; font-weight: 600; }
</style>"""

Cell = tuple[str, str]  # a class and a text


def specs(given: js.Specs) -> str:
    """What a program declares: foldable scopes with their totals; shared variables and doubtful names stand out."""
    near = misspelt(given.values())
    parted = any(spec.partition is not None for spec in given.values())

    def cells(spec: js.VariableSpec) -> Iterator[Cell]:
        reads = reads_of(spec)
        yield "code", short_type(spec)
        yield "soft", initializer_text(spec.initializer)
        if parted:
            yield "code", partition_text(spec.partition)
        yield "soft", "" if spec.trainable else "frozen"
        yield (
            ("shared", f"read {TIMES}{reads.total()}") if reads.total() > 1 else ("soft", "read once" if reads else "")
        )
        yield "soft", reads_text(reads)
        if spec.name in near:
            yield "doubt", f"near {near[spec.name][1]}"

    return _tree(repr(given).strip("<>"), given.values(), cells)


class _Leaf(NamedTuple):
    name: str
    size: int
    bytes: int
    text: str


def params(given: js.Params) -> str:
    """A tree of parameters: foldable scopes with their totals, the type of each leaf; no array is read."""

    def leaf(name: str, value: Any) -> _Leaf:
        text = short_type(value)
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        size = math.prod(shape) if shape is not None and dtype is not None else 0
        return _Leaf(name, size, size * getattr(dtype, "itemsize", 0), text if len(text) <= 80 else f"{text[:79]}…")

    leaves = [leaf(name, value) for name, value in given.flat().items()]
    size, count = sum(leaf.size for leaf in leaves), sum(leaf.bytes for leaf in leaves)
    head = f"Params: {len(leaves)} variable{'s' * (len(leaves) != 1)}, {size:,} elements, {format_bytes(count)}"
    return _tree(head, leaves, lambda leaf: [("code", leaf.text)])


def states(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], usual: str) -> str:
    """A table of what became of each name; what is not in the usual state stands out.

    Args:
      title: a line above it.
      head: the names of its columns, the state first.
      rows: texts.
      usual: the state that is as it should be.
    """
    rows = list(rows)
    lines = ["<tr>" + "".join(f"<th>{_text(cell)}</th>" for cell in head) + "</tr>"]
    for state, *cells in rows[:_ROWS]:
        kind = "soft" if state == usual else "shared"
        lines.append(
            "<tr>" + "".join(_cell((k, t)) for k, t in [(kind, state), *(("", cell) for cell in cells)]) + "</tr>"
        )
    return _page(f"<div>{_text(title)}</div><table>{''.join(lines)}</table>{_left_out(len(rows))}")


def _tree(head: str, leaves: Iterable[Any], cells: Callable[[Any], Iterable[Cell]]) -> str:
    leaves = list(leaves)
    root = Scope.of(leaves[:_ROWS])
    is_open = len(leaves) <= _OPEN_ROWS
    return _page(f"<div><b>{_text(head)}</b></div>{_inside(root, cells, is_open)}{_left_out(len(leaves))}")


def _inside(scope: Scope, cells: Callable[[Any], Iterable[Cell]], is_open: bool) -> str:
    rows = []
    for leaf in scope.variables:
        texts = [("", leaf.name[len(scope.path) :]), *cells(leaf)]
        rows.append(f'<tr title="{_text(leaf.name)}">{"".join(map(_cell, texts))}</tr>')
    parts = [f"<table>{''.join(rows)}</table>"] * bool(rows)
    for label, inner in scope.inner():
        summary = f'<bdi>{_text(label)}</bdi> <span class="soft">{_text(inner.totals())}</span>'
        parts.append(
            f"<details{' open' * is_open}><summary>{summary}</summary>{_inside(inner, cells, is_open)}</details>"
        )
    return "".join(parts)


def _cell(cell: Cell) -> str:
    kind, text = cell
    inner = f"<code>{_text(text)}</code>" if kind == "code" else f"<bdi>{_text(text)}</bdi>"
    return f'<td class="{kind}">{inner}</td>' if kind not in ("", "code") else f"<td>{inner}</td>"


def _left_out(count: int) -> str:
    return f'<div class="soft">and {count - _ROWS:,} more</div>' if count > _ROWS else ""


def _page(inside: str) -> str:
    return f'<div class="jscope-seen">{_STYLE}{inside}</div>'


def _text(text: str) -> str:
    return html.escape(printable(text))
