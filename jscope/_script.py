"""A script: the calls of one run of a program, and the answers that scope rules gave to them. Floor 2.

It holds names, shapes, dtypes and places in the tree, and what `lift` keeps anyway; nothing that a run computes, and no
lines of the program. How scripts are made and followed is in `_replay`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from operator import index as as_index
from typing import Any, Protocol

from ._scope_stack import Meaning, Reuse, ScopeState
from ._sources import Leaves
from ._specs import VariableSpec
from ._store import Store


class Lifted(Protocol):
    """What `lift` found another program to declare.

    Attributes:
      names: the variables' names in that program, sorted.
      lasts: whether later runs get this very object for the same call.
    """

    names: tuple[str, ...]
    lasts: bool

    def under(self, store: Store, place: tuple[str, int] | None) -> tuple[Any, ...]:
        """The values by `names`, declared in the store's current scope by code at `place`."""
        ...


# JAX runs a program for each trace of it, so what a reading looks at is quick to get: it is in slots, and each step
# knows the next one.


class Step:
    """A call that a program made, and what it was answered.

    Attributes:
      next: the call after it.
    """

    __slots__ = ("next",)

    next: Step


@dataclasses.dataclass(slots=True, eq=False)
class Entered(Step):
    """A scope was entered.

    Attributes:
      asked: the request in short.
      shown: what this added to JAX's names of operations, or "".
      state: of the scope that was opened.
      meaning: what the request came to mean.
    """

    asked: tuple[str, bool, Reuse | None, bool]
    shown: str
    state: ScopeState
    meaning: Meaning


class Left(Step):
    """The innermost scope was left."""

    __slots__ = ()


@dataclasses.dataclass(slots=True, eq=False)
class Got(Step):
    """`get_variable` was called.

    Attributes:
      name, shape, dtype, trainable, collections: what was asked.
      given: the shape in the form that it was given in, a list, a tuple or None.
      initializer_type: the type of the initializer.
      leaf: the place of the value in the tree.
      is_new: whether this made the variable.
    """

    name: str
    shape: tuple[int, ...] | None
    given: list[int] | tuple[int, ...] | None
    dtype: Any
    trainable: bool | None
    collections: tuple[str, ...] | None
    initializer_type: type
    leaf: int
    is_new: bool


@dataclasses.dataclass(slots=True, eq=False)
class LiftedThere(Step):
    """`lift` was called.

    Attributes:
      lifted: what was lifted.
      leaves: the places of the values in the tree.
    """

    lifted: Lifted
    leaves: tuple[int, ...]


END = Step()  # of the run


def steps_from(first: Step, until: Step = END) -> Iterator[Any]:
    """The steps from `first` on, without the last."""
    while first is not until:
        yield first
        first = first.next


class Script:
    """The calls of a run and their answers.

    Args:
      steps: the calls in order.
      tree: what the run read; only the types are kept.

    Attributes:
      first: the first step; after the last comes `END`.
    """

    __slots__ = ("_dtypes", "_shapes", "first")

    def __init__(self, steps: list[Step], tree: Leaves) -> None:
        self.first = END
        for step in reversed(steps):
            step.next, self.first = self.first, step
        self._shapes = [type_.shape for type_ in tree.types]
        self._dtypes = [type_.dtype for type_ in tree.types]

    def alike(self, specs: list[VariableSpec]) -> list[VariableSpec]:
        """The specs of the run, without the functions that each run brings along; default initializers stay."""
        given = [step.initializer_type for step in steps_from(self.first) if type(step) is Got and step.is_new]
        defaults = [spec.initializer if type_ is type(None) else None for type_, spec in zip(given, specs, strict=True)]
        return [
            dataclasses.replace(spec, initializer=initializer, regularizer=None, constraint=None)
            for spec, initializer in zip(specs, defaults, strict=True)
        ]

    def fits(self, tree: Leaves) -> bool:
        """Whether a tree of the same names has leaves of the same types, too."""
        types = tree.types
        return (
            tree.is_of_arrays
            and [type_.shape for type_ in types] == self._shapes
            and [type_.dtype for type_ in types] == self._dtypes
        )


class Never:
    """In the place of a script: a program that made other calls once is not followed again."""

    def fits(self, tree: Leaves) -> bool:
        """No tree fits."""
        return False


NEVER = Never()


class _Odd:
    """In the place of an argument that the rules look at more closely."""


ODD: Any = _Odd()


def plain_shape(shape: Any) -> tuple[int, ...] | None:
    """A shape that says all its dimensions, as the rules read it, or None; `ODD` for any other."""
    if type(shape) is not list and type(shape) is not tuple:
        return None if shape is None else ODD
    try:
        return tuple(map(as_index, shape))
    except (TypeError, ValueError):
        return ODD


def is_given_again(shape: Any, given: list[int] | tuple[int, ...] | None) -> bool:
    """Whether a shape is as it was given before, told in half the time that `plain_shape` takes.

    False also where it is the same in another form.
    """
    if type(shape) is not type(given):
        return False
    if shape is not None:
        for size in shape:
            if type(size) is not int:  # a float may equal an int, and JAX's symbolic sizes can't be compared
                return False
    return shape == given


def plain_collections(collections: Any) -> tuple[str, ...] | None:
    """Collections, where they are a list of names, or None; `ODD` for any others."""
    if type(collections) is not list and type(collections) is not tuple:
        return None if collections is None else ODD
    return tuple(collections) if all(type(name) is str for name in collections) else ODD


def is_plain(initializer: Any, regularizer: Any, constraint: Any) -> bool:
    """Whether the rules treat these as any other callables, or as none."""
    return (
        (initializer is None or (callable(initializer) and not isinstance(initializer, type)))
        and (regularizer is None or callable(regularizer))
        and (constraint is None or callable(constraint))
    )
