"""`VariableSpec`: what a program declares of one variable. Floor 1."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._callsite import user_line
from ._errors import InitializerError
from ._initial_values import check_key, draw
from ._values import FromProgram, InitialValue


@dataclasses.dataclass(frozen=True, slots=True)
class VariableSpec:
    """One variable as its program declares it.

    Attributes:
      name: full op name, unique: the name in `Params`, checkpoints and random keys. TF1: `v.op.name`.
      key: store key (scope name + name) by which reuse finds it; None for a `variable`, which is never shared.
      shape: its dimensions.
      dtype: its NumPy dtype.
      initializer: a callable `init(key, shape, dtype)`, or a marker for a given array or a value of the program.
      trainable: whether it is in the trainable collection.
      collections: the collections it is in.
      regularizer: a callable from value to scalar loss (or None), or None.
      constraint: a callable from value to value, or None.
      partition: a `jax.sharding.PartitionSpec` from the partitioner, or None.
      created_at: the user's `file:line` that made it, or the cell of a notebook: `cell 3, line 2`. Not compared.
      used_at: the `file:line` of each later read of it: where it is shared. Not compared.
      auto_reuse: whether it was made under AUTO_REUSE, where a misspelt name makes a new variable. Not compared.

    Example:
      >>> spec = js.transform(lambda: js.get_variable("v", [2])).specs()["v"]
      >>> spec.shape, spec.dtype.name, spec.trainable
      ((2,), 'float32', True)
    """

    name: str
    key: str | None
    shape: tuple[int, ...]
    dtype: Any
    initializer: Any
    trainable: bool = True
    collections: tuple[str, ...] = ()
    regularizer: Callable[[Any], Any] | None = None
    constraint: Callable[[Any], Any] | None = None
    partition: Any = None
    created_at: str = dataclasses.field(default="", compare=False)
    used_at: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    auto_reuse: bool = dataclasses.field(default=False, compare=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes that the value takes."""
        return self.size * self.dtype.itemsize

    def abstract(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype in JAX's own form."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def initial_value(self, key: jax.Array) -> jax.Array:
        """A fresh array with the initial value under the root key `key`.

        Raises:
          InitializerError: if the program itself computes it, or the initializer gives the wrong shape or dtype.
          BadTypeError: for what is no JAX random key.
        """
        check_key(key, "initial_value")
        if isinstance(self.initializer, InitialValue):
            return jnp.array(self.initializer.array, self.dtype, copy=True)
        if isinstance(self.initializer, FromProgram):
            raise InitializerError(
                f"The initial value of '{self.name}' is computed by the program, which its spec does not hold.",
                kind="from_program",
                exists=f"made at {self.created_at}",
                where=user_line(),
                fix="call net.init(key, *args) instead of specs.init(key)",
            )
        return draw(self.initializer, self.shape, self.dtype, key, self.name)
