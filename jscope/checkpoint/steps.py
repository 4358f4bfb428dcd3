"""The steps of a plan: which operation goes from which names to which, forward to a program and back to a file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jscope._support import shown

from .allowance import bytes_of_rows, room_for
from .cutting import Join, Split
from .loaded import bytes_of_spec
from .operations import (
    Axes,
    Cast,
    Drop,
    Operation,
    Same,
    Spec,
    Stack,
    Tie,
    Unstack,
)
from .templates import Template
from .unmatched import Unmatched

Header = Mapping[str, Spec | None]  # None of what a fault was found with already
_SAME = Same()


@dataclasses.dataclass(frozen=True, slots=True)  # there may be one for each name of a file
class Move:
    """One operation, and the names of what it takes and gives."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operation: Operation


Found = Iterator[Move | Unmatched | str]


class Step:
    """Gives moves for the names of a header, and what is wrong with them. Other names stay as they are."""

    def forward(self, header: Header) -> Found:
        """From a file to a program."""
        raise NotImplementedError

    def backward(self, header: Header) -> Found:
        """From a program to a file."""
        raise NotImplementedError

    def __str__(self) -> str:
        raise NotImplementedError


class Names:
    """Which template fits a name: one without fields before one with fields, and else the first."""

    def __init__(self, templates: Sequence[Template]) -> None:
        self._exact = {template.text: row for row, template in reversed([*enumerate(templates)]) if not template.fields}
        self._open = [(row, template) for row, template in enumerate(templates) if template.fields]

    def find(self, name: str) -> tuple[int, dict[str, Any]] | None:
        """(the place of the template, the fields)."""
        if name in self._exact:
            return self._exact[name], {}
        for row, template in self._open:
            fields = template.match(name)
            if fields is not None:
                return row, fields
        return None

    def found(self, header: Header) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(name, the place of the template, the fields) of all names that one fits."""
        for name in header:
            match = self.find(name)
            if match is not None:
                yield name, *match


@dataclasses.dataclass(frozen=True)
class Rename(Step):
    """Names by other names."""

    old: tuple[Template, ...]
    new: tuple[Template, ...]
    goes_back: bool = True

    def forward(self, header: Header) -> Found:
        # Before any name a prefix that some files leave out: what has it matches, too.
        stays = [] if self.goes_back else [new for old, new in self._pairs() if not any(old.literals)]
        return _renamed(header, self.old, self.new, stays)

    def backward(self, header: Header) -> Found:
        return _renamed(header, self.new, self.old) if self.goes_back else iter(())

    def _pairs(self) -> Iterator[tuple[Template, Template]]:
        return zip(self.old, self.new, strict=True)

    def __str__(self) -> str:
        pairs = ", ".join(f"{old.text} -> {new.text}" for old, new in self._pairs())
        return f"{'rename' if self.goes_back else 'also'} {pairs}"


def _renamed(
    header: Header, old: Sequence[Template], new: Sequence[Template], stays: Sequence[Template] = ()
) -> Iterator[Move]:
    for name, row, fields in Names(old).found(header):
        other = new[row].fill(fields)
        if other != name and not (new[row] in stays and new[row].match(name)):
            yield Move((name,), (other,), _SAME)


@dataclasses.dataclass(frozen=True)
class Separator(Step):
    """One character for another in all names."""

    old: str
    new: str

    def forward(self, header: Header) -> Found:
        return self._moves(header, self.old, self.new)

    def backward(self, header: Header) -> Found:
        return self._moves(header, self.new, self.old)

    def _moves(self, header: Header, old: str, new: str) -> Found:
        for name in header:
            if new in name:
                yield f"{shown(name)} has a {new!r}, which could not be told from what was {old!r}"
            elif old in name:
                yield Move((name,), (name.replace(old, new),), _SAME)

    def __str__(self) -> str:
        return f"separator {self.old} -> {self.new}"


@dataclasses.dataclass(frozen=True)
class Each(Step):
    """An operation on each array of some names, which stay.

    Attributes:
      names: of the arrays.
      but: names that are left out: a misspelt one would leave out nothing.
      may_miss, but_may_miss: whether there need be none of them.
    """

    names: tuple[Template, ...]
    but: tuple[Template, ...]
    may_miss: bool
    but_may_miss: bool

    def ahead(self, spec: Spec | None) -> Operation:
        """What is done to an array of a file."""
        raise NotImplementedError

    def back(self, spec: Spec | None) -> Operation | None:
        """What is done to an array of a program; None for nothing."""
        raise NotImplementedError

    def forward(self, header: Header) -> Found:
        found = [False] * len(self.names)
        meant = [*self._meant(header)]
        for name, row in meant:
            found[row] = True
            yield Move((name,), (name,), self.ahead(header[name]))
        if not self.may_miss:
            # What another of the templates took is no less there.
            found = [
                is_found or any(template.match(name) is not None for name, _ in meant)
                for template, is_found in zip(self.names, found, strict=True)
            ]
            yield from _unmatched(self, self.names, found)
        if not self.but_may_miss:
            found = [any(template.match(name) is not None for name in header) for template in self.but]
            yield from _unmatched(self, self.but, found)

    def backward(self, header: Header) -> Found:
        for name, _ in self._meant(header):
            operation = self.back(header[name])
            if operation is not None:
                yield Move((name,), (name,), operation)

    def _meant(self, header: Header) -> Iterator[tuple[str, int]]:
        """(name, the place of the template) of all that are not left out."""
        left_out = Names(self.but)
        return ((name, row) for name, row, _ in Names(self.names).found(header) if left_out.find(name) is None)


@dataclasses.dataclass(frozen=True)
class Transpose(Each):
    """The axes of each array in another order; turned round where it is None."""

    axes: tuple[int, ...] | None

    def ahead(self, spec: Spec | None) -> Operation:
        return _permuted(self._order(spec))

    def back(self, spec: Spec | None) -> Operation:
        return _permuted(tuple(int(place) for place in np.argsort(self._order(spec))))

    def _order(self, spec: Spec | None) -> tuple[int, ...]:
        if self.axes is not None:
            return self.axes
        return tuple(reversed(range(len(spec.shape) if spec is not None else 0)))

    def __str__(self) -> str:
        return f"transpose {_listed(self.names, self.but)}"


@functools.lru_cache(maxsize=100)
def _permuted(order: tuple[int, ...]) -> Operation:
    return Axes(tuple((f"a{axis}",) for axis in sorted(order)), tuple((f"a{axis}",) for axis in order))


@dataclasses.dataclass(frozen=True)
class Rearrange(Each):
    """The axes of each array taken apart, put together and in another order."""

    there: Axes
    text: str

    def ahead(self, spec: Spec | None) -> Operation:
        return self.there

    def back(self, spec: Spec | None) -> Operation:
        return Axes(self.there.right, self.there.left, self.there.sizes)

    def __str__(self) -> str:
        return f"rearrange {_listed(self.names, self.but)}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Converted(Each):
    """The numbers of each array in another dtype."""

    to: np.dtype
    stored: np.dtype | None

    def ahead(self, spec: Spec | None) -> Operation:
        return Cast(self.to)

    def back(self, spec: Spec | None) -> Operation | None:
        return None if self.stored is None else Cast(self.stored)

    def __str__(self) -> str:
        return f"cast {_listed(self.names, self.but)} to {self.to.name}"


@dataclasses.dataclass(frozen=True)
class Pieces(Step):
    """One array of a file is several of a program; or the other way round."""

    one: Template
    many: tuple[Template, ...]
    axis: int
    shares: tuple[int, ...]
    groups: int
    joins: bool
    may_miss: bool

    def forward(self, header: Header) -> Found:
        found = False
        for move in self._join(header) if self.joins else self._split(header):
            found = True
            yield move
        if not found and not self.may_miss:
            yield from _unmatched(self, (self.one,) if not self.joins else self.many, [False])

    def backward(self, header: Header) -> Found:
        return self._split(header) if self.joins else self._join(header)

    def _split(self, header: Header) -> Found:
        for name, _, fields in Names((self.one,)).found(header):
            names = tuple(template.fill(fields) for template in self.many)
            yield Move((name,), names, Split(self.axis, self.shares, self.groups))

    def _join(self, header: Header) -> Found:
        for fields, names in _gathered(header, self.many):
            lacking = [template.fill(fields) for template, name in zip(self.many, names, strict=True) if name is None]
            if lacking:
                there = next(name for name in names if name is not None)
                yield f"{shown(lacking[0])} is missing, which belongs to {shown(there)} and others"
                continue
            yield Move(tuple(map(str, names)), (self.one.fill(fields),), Join(self.axis, self.shares, self.groups))

    def __str__(self) -> str:
        one, many = self.one.text, _listed(self.many)
        return f"concatenate {many} -> {one}" if self.joins else f"split {one} -> {many}"


@dataclasses.dataclass(frozen=True)
class Numbered(Step):
    """Numbered arrays of a file are one of a program; or the other way round."""

    many: Template
    one: Template
    field: str
    stacks: bool
    may_miss: bool

    def forward(self, header: Header) -> Found:
        found = False
        for move in self._stacked(header) if self.stacks else self._taken_apart(header):
            found = True
            yield move
        if not found and not self.may_miss:
            yield from _unmatched(self, (self.many if self.stacks else self.one,), [False])

    def backward(self, header: Header) -> Found:
        return self._taken_apart(header) if self.stacks else self._stacked(header)

    def _stacked(self, header: Header) -> Found:
        groups: dict[tuple[Any, ...], dict[int, str]] = {}
        for name, _, fields in Names((self.many,)).found(header):
            key = tuple(fields[field] for field in self.one.fields)
            groups.setdefault(key, {})[fields[self.field]] = name
        # All arrays of a layer are there as often as the layer; but one tower or stage may have more than the next.
        most: dict[tuple[Any, ...], int] = {}
        for key, names in groups.items():
            stage = self._stage(key)
            most[stage] = max(most.get(stage, 0), len(names))
        for key, names in groups.items():
            fields, count = dict(zip(self.one.fields, key, strict=True)), most[self._stage(key)]
            lacking = next((number for number in range(count) if number not in names), None)
            if lacking is not None:
                name = self.many.fill({**fields, self.field: lacking})
                yield f"{shown(name)} is missing, of the {count} that are to be {shown(self.one.fill(fields))}"
                continue
            sources = tuple(names[number] for number in range(len(names)))
            yield Move(sources, (self.one.fill(fields),), Stack())

    def _stage(self, key: tuple[Any, ...]) -> tuple[Any, ...]:
        """Of the fields of a stacked array those that stand before the number of the layer."""
        before = self.many.fields[: self.many.fields.index(self.field)]
        return tuple(value for field, value in zip(self.one.fields, key, strict=True) if field in before)

    def _taken_apart(self, header: Header) -> Found:
        left = room_for(sum(bytes_of_spec(spec) for spec in header.values() if spec is not None))
        for name, _, fields in Names((self.one,)).found(header):
            spec = header[name]
            if spec is not None and not (spec.shape and spec.shape[0]):
                yield f"{shown(name)} has shape {spec.shape}, and nothing along a first axis"
                continue
            count = spec.shape[0] if spec is not None else 0
            if spec is not None and not bytes_of_spec(spec):  # what has bytes pays for its rows
                left -= bytes_of_rows(name, count)
                if left < 0:
                    yield f"{shown(name)} has shape {spec.shape}, which is too many arrays for the bytes that there are"
                    continue
            targets = tuple(self.many.fill({**fields, self.field: number}) for number in range(count))
            yield Move((name,), targets, Unstack(count))

    def __str__(self) -> str:
        many, one = self.many.text, self.one.text
        return f"stack {many} -> {one}" if self.stacks else f"unstack {one} -> {many}"


@dataclasses.dataclass(frozen=True)
class Tied(Step):
    """Several names of a file for one variable, which goes on under the first."""

    names: tuple[Template, ...]

    def forward(self, header: Header) -> Found:
        for fields, names in _gathered(header, self.names):
            sources = tuple(name for name in names if name is not None)
            target = self.names[0].fill(fields)
            if sources != (target,):
                yield Move(sources, (target,), Tie())

    def backward(self, header: Header) -> Found:
        return iter(())

    def __str__(self) -> str:
        return f"tie {_listed(self.names)}"


@dataclasses.dataclass(frozen=True)
class Preferred(Step):
    """Arrays that are taken in place of others, which are dropped."""

    chosen: Template
    plain: Template

    def forward(self, header: Header) -> Found:
        for name, _, fields in Names((self.chosen,)).found(header):
            plain = self.plain.fill(fields)
            if plain in header:
                yield Move((plain,), (), Drop())
            yield Move((name,), (plain,), _SAME)

    def backward(self, header: Header) -> Found:
        return iter(())

    def __str__(self) -> str:
        return f"prefer {self.chosen.text} to {self.plain.text}"


@dataclasses.dataclass(frozen=True)
class Dropped(Step):
    """Arrays of a file that are nothing of the program."""

    names: tuple[Template, ...]

    def forward(self, header: Header) -> Found:
        for name, _, _ in Names(self.names).found(header):
            yield Move((name,), (), Drop())

    def backward(self, header: Header) -> Found:
        return iter(())

    def __str__(self) -> str:
        return f"drop {_listed(self.names)}"


def _gathered(header: Header, templates: Sequence[Template]) -> Iterator[tuple[dict[str, Any], list[str | None]]]:
    """(fields, the name that each template has with them, None where it is not there) of all that are there."""
    groups: dict[tuple[Any, ...], list[str | None]] = {}
    order = sorted(templates[0].fields)
    for place, template in enumerate(templates):
        for name, _, fields in Names((template,)).found(header):
            key = tuple(fields[field] for field in order)
            groups.setdefault(key, [None] * len(templates))[place] = name
    for key, names in groups.items():
        yield dict(zip(order, key, strict=True)), names


def _unmatched(step: Step, templates: Sequence[Template], found: Sequence[bool]) -> Iterator[Unmatched]:
    for template, is_found in zip(templates, found, strict=False):
        if not is_found:
            yield Unmatched(str(step), template)


def _listed(templates: Sequence[Template], but: Sequence[Template] = ()) -> str:
    return ", ".join(template.text for template in templates) + (f" but {_listed(but)}" if but else "")
