"""The arguments of a plan's methods, checked before there is a step: what can't be meant is refused at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import jscope as js

from . import steps
from .faults import user_line
from .operations import Axes
from .templates import Template, same_fields, templates


def pairs(names: Any) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    """The names of the file and those of the program."""
    if not isinstance(names, Mapping):
        raise bad(f"rename takes a mapping from name to name, not {names!r:.80}", 'write {"old.{i}": "new/{i}"}')
    old, new = templates(tuple(names.keys())), templates(tuple(names.values()))
    for one, other in zip(old, new, strict=True):
        same_fields(one, other)
    return old, new


def pieces(
    one: str, many: Sequence[str], axis: int, shares: Sequence[int] | None, groups: int, joins: bool, may_miss: bool
) -> steps.Step:
    """The step of `split`, or of `concatenate` where `joins` says so."""
    template, found = Template(one), templates(many)
    for piece in found:
        same_fields(template, piece)
    shares = (1,) * len(found) if shares is None else _listed(shares, "shares")
    if isinstance(many, str) or len(shares) != len(found) or not found:
        raise bad(f"{len(found)} pieces can't have the shares {shares}", "give one share for each of several names")
    if not all(is_whole(number) and number > 0 for number in (*shares, groups)) or not is_whole(axis):
        raise bad(f"shares {shares}, groups {groups} and axis {axis!r} are not whole numbers", "give whole numbers")
    return steps.Pieces(template, found, int(axis), tuple(map(int, shares)), int(groups), joins, may_miss)


def numbered(many: str, one: str, stacks: bool, may_miss: bool) -> steps.Step:
    """The step of `stack`, or of `unstack`."""
    several, stacked = Template(many), Template(one)
    fields = [field for field in several.fields if field not in stacked.fields]
    if len(fields) != 1 or several.kinds[fields[0]]:
        fix = "write such as 'layers.{i}.{*name}' and 'layers.{*name}'; of two numbers, stack one, then the other"
        raise bad(f"{many!r} has not one number more than {one!r}", fix)
    same_fields(several, stacked, but=fields[0])
    return steps.Numbered(several, stacked, fields[0], stacks, may_miss)


def order_of(axes: Any) -> tuple[int, ...] | None:
    """The order of axes that `transpose` is given; None where they are turned round."""
    if axes is None:
        return None
    order = _listed(axes, "axes")
    if not all(map(is_whole, order)) or sorted(order) != [*range(len(order))]:
        raise bad(f"{order} is no order of axes", "write such as (1, 0)")
    return tuple(map(int, order))


def _listed(given: Any, what: str) -> tuple[Any, ...]:
    if not isinstance(given, Iterable):
        raise bad(f"{what} are whole numbers in a tuple, not {given!r:.80}", "write such as (2, 1)")
    return tuple(given)


_GROUP = re.compile(r"\(([^()]*)\)|([^\s()]+)")


def axes_of(text: Any, sizes: Mapping[str, int]) -> Axes:
    """The operation that a text in the notation of einops stands for."""
    sides = text.split("->") if isinstance(text, str) else []
    if len(sides) != 2 or any(_GROUP.sub("", side).strip() for side in sides):
        raise bad(f"{text!r:.80} says not how axes go", "write such as 'out in -> in out'")
    groups: list[tuple[tuple[str, ...], ...]] = []
    for side in sides:
        found = (match[1].split() if match[2] is None else [match[2]] for match in _GROUP.finditer(side))
        groups.append(tuple(tuple(axis for axis in group if axis != "1") for group in found))
    left, right = ([axis for group in side for axis in group] for side in groups)
    if sorted(left) != sorted(right) or len(set(left)) < len(left) or not all(map(str.isidentifier, left)):
        raise bad(f"{text!r} has not the same axes on both sides, each once", "write such as 'out in -> in out'")
    if not set(sizes) <= set(left) or not all(is_whole(size) and size > 0 for size in sizes.values()):
        raise bad(f"sizes {dict(sizes)} are not those of axes in {text!r}", "give whole numbers by the axes' names")
    return Axes(groups[0], groups[1], tuple((axis, int(size)) for axis, size in sizes.items()))


def is_whole(given: Any) -> bool:
    """Whether it is a whole number, of Python's or numpy's."""
    return isinstance(given, int | np.integer) and not isinstance(given, bool)


def dtype_of(given: Any) -> np.dtype:
    """A dtype of numpy."""
    try:
        return np.dtype(given)
    except (TypeError, ValueError, SyntaxError):  # the last of a text of several that numpy can't parse
        raise bad(f"{given!r:.80} is no dtype", "write such as jnp.float32") from None


def bad(what: str, fix: str) -> js.BadArgumentError:
    """The error for arguments that can't be meant."""
    return js.BadArgumentError(f"{what}.", kind="bad_plan", where=user_line(), fix=fix)
