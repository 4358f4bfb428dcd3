"""What a program declares as a table for a terminal: variables under their scopes, with totals. Floor 1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ._describe import initializer_text
from ._misspelt import misspelt
from ._show import format_bytes, printable, short_type

_LEAST = 12  # no column is cut to less
_DEEPEST = 16  # scopes one inside the other; what lies deeper keeps the rest of its name


class Placed(NamedTuple):
    """What each device holds of a variable.

    Attributes:
      spec: along which axes of the mesh each dimension is cut, as a text.
      bytes: of the part on one device.
    """

    spec: str
    bytes: int


class Scope:
    """A scope with what lies below it, in order of creation.

    Attributes:
      path: its name, with a slash at the end; empty for the root.
      variables: the specs of its own variables.
      scopes: those inside it.
      count, size, bytes: of all variables below it.
      placed: what each device holds of them, by name; None where nobody said where they shall lie.
    """

    def __init__(self, path: str = "", placed: Mapping[str, Placed] | None = None) -> None:
        self.path = path
        self.placed = placed
        self.variables: list[Any] = []
        self.scopes: dict[str, Scope] = {}
        self.count = self.size = self.bytes = self._bytes_on_each = 0

    @classmethod
    def of(cls, specs: Iterable[Any], placed: Mapping[str, Placed] | None = None) -> Scope:
        """The root, with all variables below it."""
        root = cls("", placed)
        for spec in specs:
            scope = root
            scope._add(spec)
            for part in spec.name.split("/", _DEEPEST)[:-1]:
                scope = scope.scopes.setdefault(part, cls(f"{scope.path}{part}/", placed))
                scope._add(spec)
            scope.variables.append(spec)
        return root

    def _add(self, spec: Any) -> None:
        self.count += 1
        self.size += spec.size
        self.bytes += spec.bytes
        if self.placed is not None:
            self._bytes_on_each += self.placed[spec.name].bytes

    def totals(self) -> str:
        """`2 variables, 12 elements, 48 B`, and what each device holds of it where that was said."""
        text = f"{self.count} variable{'s' * (self.count != 1)}, {self.size:,} elements, {format_bytes(self.bytes)}"
        return text if self.placed is None else f"{text}, {format_bytes(self._bytes_on_each)} on each device"

    def lines(self, depth: float = math.inf, indent: str = "") -> Iterator[tuple[str, Scope | Any]]:
        """What lies below it, down to a depth: labels, indented, and the `Scope` or the spec; variables come first."""
        for spec in self.variables:
            yield indent + spec.name[len(self.path) :], spec
        for label, scope in self.inner(depth):
            yield indent + label, scope
            below = depth - label.count("/")
            if below > 0:
                yield from scope.lines(below, indent + "  ")

    def inner(self, depth: float = math.inf) -> Iterator[tuple[str, Scope]]:
        """The scopes inside it, by their labels; one that holds a single scope and nothing else goes by that."""
        for part, scope in self.scopes.items():
            label, below = f"{part}/", depth - 1
            while below > 0 and not scope.variables and len(scope.scopes) == 1:
                ((part, scope),) = scope.scopes.items()
                label, below = f"{label}{part}/", below - 1
            yield label, scope


def specs_table(
    specs: Iterable[Any], depth: int | None = None, width: int = 120, placed: Mapping[str, Placed] | None = None
) -> str:
    """See `Specs.table`; `placed` is what each device holds, by name."""
    specs = list(specs)
    root, near = Scope.of(specs, placed), misspelt(specs) if placed is None else {}
    parted = any(spec.partition is not None for spec in specs)
    if placed is None:
        head = ("variable", "type", "trainable", "initializer", *["partition"] * parted, "reads", "created at")
    else:
        head = ("variable", "type", "axes", "spec", "on each device")
    lines = [] if depth == 0 else [(printable(label), item) for label, item in root.lines(depth or math.inf)]
    rows: list[Scope | tuple[str, ...]] = []
    for label, item in lines:
        if isinstance(item, Scope):
            rows.append(item)
        elif placed is None:
            rows.append(_row(label, item, parted, item.name in near))
        else:
            rows.append(_placed_row(label, item, placed[item.name]))
    widths = [max(map(len, column)) for column in zip(head, *(r for r in rows if isinstance(r, tuple)), strict=True)]
    totals = max((len(row.totals()) for row in rows if isinstance(row, Scope)), default=0)
    widths[0] = min(max([widths[0], *(len(label) for label, _ in lines)]), max(width - 2 - totals, _LEAST))
    widths = _fitted(widths, width)
    texts = [
        f"{_cell(label, widths[0])}  {row.totals()}" if isinstance(row, Scope) else _line(row, widths)
        for (label, _), row in zip(lines, rows, strict=True)
    ]
    return "\n".join([_line(head, widths), *texts, root.totals(), *_marks(near, width)])


def _row(label: str, spec: Any, parted: bool, marked: bool) -> tuple[str, ...]:
    return (
        label,
        short_type(spec),
        "yes" if spec.trainable else "no",
        printable(initializer_text(spec.initializer)),
        *[partition_text(spec.partition)] * parted,
        f"{1 + len(spec.used_at)}{' ?' * marked}",
        printable(short_place(spec.created_at)),
    )


def _placed_row(label: str, spec: Any, placed: Placed) -> tuple[str, ...]:
    axes = printable(partition_text(spec.partition))
    return label, short_type(spec), axes, printable(placed.spec), format_bytes(placed.bytes)


def _fitted(widths: list[int], width: int) -> list[int]:
    """Widths of columns that together take no more than `width`: the fourth gives way first, then the longest."""
    widths = list(widths)
    for column in (3, *sorted(range(len(widths)), key=lambda i: -widths[i])):
        surplus = sum(widths) + 2 * (len(widths) - 1) - width
        if surplus > 0:
            widths[column] = min(widths[column], max(widths[column] - surplus, _LEAST))
    return widths


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(map(_cell, cells, widths)).rstrip()


def _cell(text: str, width: int) -> str:
    return cut(text, width).ljust(width)


def _marks(near: dict[str, tuple[str, str]], width: int) -> list[str]:
    if not near:
        return []
    pairs = {frozenset(pair): f"{printable(pair[0])} is near {printable(pair[1])}" for pair in reversed(near.values())}
    lines = (f"  {cut(pair, width - 2)}" for pair in reversed(pairs.values()))
    return ["? read once under AUTO_REUSE, where a misspelt name makes a new variable:", *lines]


def short_place(place: str) -> str:
    """A `file:line` without the folders."""
    return place.replace("\\", "/").rpartition("/")[2]


def partition_text(partition: Any) -> str:
    """`('data', None)` of a `PartitionSpec`, empty for none."""
    return "" if partition is None else f"({', '.join(map(repr, partition))})"


def cut(text: str, width: int) -> str:
    """A text of at most that many letters, cut in the middle."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"
