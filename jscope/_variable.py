"""One declared variable of a running program: what is known of it, and its value. Floor 2."""

from __future__ import annotations

from typing import Any

from ._errors import format_location
from ._show import short_type
from ._specs import VariableSpec

NOTHING: Any = object()


class Variable:
    """A variable and its value in this run; the fields of `VariableSpec`, as cheap to make as Python allows.

    Attributes:
      value: its value where that is good in every trace; `NOTHING` while there is none.
      inner: level -> weak reference to the value, for values that are bound to one trace.
      bound: whether a value is bound to the trace it is made in.
      carried: the run's refs, if JAX carries its value in one of them, else None.
      assigned: whether the program assigned it.
      created_at: (file, line) of the call that made it.
      used_at: the same of each later read.
    """

    __slots__ = (
        "assigned",
        "bound",
        "carried",
        "collections",
        "constraint",
        "created_at",
        "dtype",
        "initializer",
        "inner",
        "key",
        "name",
        "partition",
        "regularizer",
        "shape",
        "trainable",
        "used_at",
        "value",
    )

    def __init__(
        self,
        name: str,
        key: Any,
        shape: Any,
        dtype: Any,
        initializer: Any,
        trainable: bool,
        collections: tuple[str, ...],
        regularizer: Any,
        constraint: Any,
        partition: Any,
        created_at: tuple[str, int] | None,
    ) -> None:
        self.name = name
        self.key = key
        self.shape = shape
        self.dtype = dtype
        self.initializer = initializer
        self.trainable = trainable
        self.collections = collections
        self.regularizer = regularizer
        self.constraint = constraint
        self.partition = partition
        self.created_at = created_at
        self.used_at: list[tuple[str, int] | None] = []
        self.value: Any = NOTHING
        self.inner: dict[int, Any] = {}
        self.bound = False
        self.carried: Any = None
        self.assigned = False

    @classmethod
    def after(cls, spec: VariableSpec, name: str, key: Any, created_at: tuple[str, int] | None) -> Variable:
        """One of another name that is declared as `spec` is."""
        return cls(
            name,
            key,
            spec.shape,
            spec.dtype,
            spec.initializer,
            spec.trainable,
            spec.collections,
            spec.regularizer,
            spec.constraint,
            spec.partition,
            created_at,
        )

    def forget(self) -> None:
        """Lets go of the values known so far: another one is assigned."""
        self.value = NOTHING
        self.inner.clear()

    def spec(self) -> VariableSpec:
        """What is known of it so far, as a value."""
        return VariableSpec(
            self.name,
            self.key,
            self.shape,
            self.dtype,
            self.initializer,
            self.trainable,
            self.collections,
            self.regularizer,
            self.constraint,
            self.partition,
            format_location(self.created_at),
            tuple(map(format_location, self.used_at)),
        )

    def origin(self) -> str:
        """What it is and where it was first made, for messages."""
        made = f", made at {format_location(self.created_at)}" if self.created_at else ""
        return f"'{self.name}' {short_type(self)}{made}"
