"""How trees, arrays and tables read in a terminal. Floor 0: no jax here."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from typing import Any

_SHORT_KINDS = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c", "bool": "bool"}


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

    A scope that shares its name with a variable is shown as `name/`.
    """
    tree: dict[str, Any] = {}
    for name, text in flat.items():
        *scopes, last = (part or "''" for part in name.split("/"))
        node = tree
        for part in scopes:
            # In sorted order the variable comes first.
            node = node.setdefault(part + "/" if isinstance(node.get(part), str) else part, {})
        node[last] = text
    line = _one_line(tree)
    return line if len(line) <= 100 else _many_lines(tree, "")


def _one_line(tree: dict[str, Any]) -> str:
    items = (f"{key}: {_one_line(value) if isinstance(value, dict) else value}" for key, value in tree.items())
    return "{" + ", ".join(items) + "}"


def _many_lines(tree: dict[str, Any], indent: str) -> str:
    inner = indent + "  "
    lines = []
    for key, value in tree.items():
        text = value
        if isinstance(value, dict):
            text = _one_line(value)
            if len(inner) + len(key) + len(text) > 100:
                text = _many_lines(value, inner)
        lines.append(f"{inner}{key}: {text},\n")
    return "{\n" + "".join(lines) + indent + "}"


def some(names: Iterable[str], count: int = 8) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    shown = ", ".join(f"'{name}'" for name in names[:count])
    return shown + (f" and {len(names) - count} more" if len(names) > count else "")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Left-aligned columns."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def format_bytes(count: float) -> str:
    """`1.5 MB`: decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
