"""When two declarations of one name are the same, as where two programs share a variable. Floor 1."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

import jax

from ._callsite import user_line
from ._errors import BadArgumentError
from ._initial_values import describe
from ._partitions import same_partition
from ._show import count_of, short


def united(one: dict[str, Any], other: dict[str, Any]) -> list[Any]:
    """The specs of both by name, each name once; where it is read is put together.

    Raises:
      BadArgumentError: for names that the two declare differently; all of them at once.
    """
    both, faults = dict(one), []
    for name, spec in other.items():
        found = both.setdefault(name, spec)
        if found is spec:
            continue
        differences = [
            f"{field.name} {_both(getattr(found, field.name), getattr(spec, field.name))}"
            for field in dataclasses.fields(spec)
            if field.compare and not _same(getattr(found, field.name), getattr(spec, field.name))
        ]
        if differences:
            made = f"made at {found.created_at or 'an unknown place'} and at {spec.created_at or 'an unknown place'}"
            faults.append(f"'{name}' has {', '.join(differences)}; {made}")
        known = {found.created_at, *found.used_at}
        more = tuple(place for place in (spec.created_at, *spec.used_at) if place and place not in known)
        if more:
            both[name] = dataclasses.replace(found, used_at=(*found.used_at, *more))
    if faults:
        raise BadArgumentError(
            f"The two programs declare {count_of(faults, 'variable')} of one name differently.",
            kind="other_declaration",
            faults=faults,
            where=user_line(),
            fix="give one of the programs a scope of its own, or let both ask for the variable in the same way",
        )
    return list(both.values())


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a declaration mean the same: equal, or functions of one text that close over the same.

    A program makes its functions anew in each run, so a `lambda` in it is another object each time.
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, jax.sharding.PartitionSpec):
        return same_partition(one, other)
    if isinstance(one, types.FunctionType):
        return one.__code__ is other.__code__ and _same(_held(one), _held(other))
    if isinstance(one, functools.partial):
        return _same((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    try:
        return bool(one == other)
    except Exception:  # arrays can't be asked so
        return False


def _held(function: types.FunctionType) -> tuple[Any, ...]:
    try:
        closed = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a cell that is still empty
        closed = (object(),)
    return function.__defaults__, function.__kwdefaults__, closed


def _both(one: Any, other: Any) -> str:
    """Both values, in more words where the few are the same."""
    for shown in (_shown, _in_full):
        texts = shown(one), shown(other)
        if texts[0] != texts[1]:
            return " and ".join(texts)
    return " and another ".join(texts)


def _shown(value: Any) -> str:
    return describe(value) if callable(value) else short(value)


def _in_full(value: Any) -> str:
    """A function with its line and what it closes over, an initializer with its arguments as they are."""
    if isinstance(value, types.FunctionType):
        held = ", ".join(short(part) for part in _held(value) if part)
        return (
            f"{describe(value)} ({value.__code__.co_filename}:{value.__code__.co_firstlineno})"
            + f" with {held}" * bool(held)
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        arguments = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return f"{type(value).__name__}({', '.join(f'{name}={short(argument)}' for name, argument in arguments)})"
    return short(value)
