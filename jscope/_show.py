"""How trees, arrays and tables read in a terminal. Floor 0: no jax here.

Names may come out of a stranger's file. So nothing in them reaches a terminal that could steer it, and what is printed
grows with them, not faster.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

_SHORT_KINDS = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c", "bool": "bool"}
_WIDEST = 100  # characters to which a column is filled up: one long name must not lengthen every row
_LONGEST = 200  # characters of a name in an error
_DEEPEST = 16  # scopes that are shown one inside the other
_PIECE = 4096


def printable(text: str) -> str:
    """The text with escapes in place of what is no letter: control characters, newlines, marks of direction."""
    if text.isprintable():
        return text
    # In pieces: a list of all characters would take many times as much.
    pieces = (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
    return "".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in piece) for piece in pieces)


def shown(name: str) -> str:
    """A name as it stands in an error: in quotes, and not whole where it is very long."""
    return f"'{printable(shortened(name))}'"


def shortened(text: str, longest: int = _LONGEST) -> str:
    """The text without its middle where it is longer."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


def short_type(leaf: Any) -> str:
    """`f32[2,3]` for an array of that dtype and shape, the `repr` of anything else, in short."""
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        return short(leaf)
    name = getattr(dtype, "name", str(dtype))
    kind = name.rstrip("0123456789")
    return f"{_SHORT_KINDS.get(kind, kind)}{name[len(kind) :]}[{','.join(map(str, shape))}]"


_MOST = 160
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _MOST


def short(value: Any) -> str:
    """The `repr` of a value in one short line, however much it holds; of an array its type alone."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype") and (len(shape) > 1 or math.prod(shape) > 4):
        return short_type(value)
    text = " ".join(_SHORT.repr(value).split())
    return text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."


def nested(flat: dict[str, str]) -> str:
    """Texts by full name, sorted, as nested dicts: in one line if it is short, else indented.

    A scope that shares its name with a variable is shown as `name/`. Very deep scopes are shown by their full names.
    """
    tree: dict[str, Any] = {}
    for name, text in flat.items():
        *scopes, last = (printable(part) or "''" for part in name.split("/", _DEEPEST))
        node = tree
        for part in scopes:
            # In sorted order the variable comes first.
            node = node.setdefault(part + "/" if isinstance(node.get(part), str) else part, {})
        node[last] = printable(text)
    line = _one_line(tree, 100)
    return _many_lines(tree, "") if line is None else line


def _one_line(tree: dict[str, Any], room: int) -> str | None:
    """The tree in one line, None if it takes more than `room` characters."""
    items, left = [], room - 2
    for key, value in tree.items():
        text = _one_line(value, left) if isinstance(value, dict) else value
        left -= len(key) + 2 + (room if text is None else len(text)) + 2 * bool(items)
        if text is None or left < 0:
            return None
        items.append(f"{key}: {text}")
    return "{" + ", ".join(items) + "}"


def _many_lines(tree: dict[str, Any], indent: str) -> str:
    inner = indent + "  "
    lines = []
    for key, value in tree.items():
        text = value
        if isinstance(value, dict):
            text = _one_line(value, 100 - len(inner) - len(key)) or _many_lines(value, inner)
        lines.append(f"{inner}{key}: {text},\n")
    return "{\n" + "".join(lines) + indent + "}"


def some(names: Iterable[str], count: int = 8) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    listed = ", ".join(map(shown, names[:count]))
    return listed + (f" and {len(names) - count} more" if len(names) > count else "")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Left-aligned columns."""
    rows = list(rows)
    return "\n".join(table_lines(head, lambda: rows))


def table_lines(head: Sequence[str], rows: Callable[[], Iterable[Sequence[str]]]) -> Iterator[str]:
    """The lines of a table, one for each row. The rows are gone through twice, so that nobody holds all of them."""
    widths = [len(cell) for cell in head]
    for row in rows():
        widths = [max(width, min(len(printable(cell)), _WIDEST)) for width, cell in zip(widths, row, strict=True)]
    yield _line(head, widths)
    for row in rows():
        yield _line(row, widths)


def _line(row: Sequence[str], widths: list[int]) -> str:
    return "  ".join(printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def count_of(faults: Sequence[str], what: str = "fault") -> str:
    """`1 fault`, `2 faults`."""
    return f"{len(faults)} {what}{'s' if len(faults) != 1 else ''}"


def format_bytes(count: float) -> str:
    """`1.5 MB`: decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
