"""How a layer of TF1 opens its scope and makes its variables; shared by all files of this room.

TF1's layer finds its scope first (that is when a default name is made unique), enters it again with `reuse`, and puts
its operations under the op scope that the first entry opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax

import jscope as js

Regularizer = Callable[[jax.Array], Any]

# As the name of a layer: it is computed in the scope in force, which a layer class has entered.
HERE: Any = object()


@contextlib.contextmanager
def layer_scope(name: Any, default_name: str, reuse: Any = None) -> Iterator[js.VariableScope]:
    """The scope of a layer of `tf.layers`.

    Args:
      name: a name, a scope object, or None or "" for the default name; `HERE` for the scope in force.
      default_name: made unique, unless the layer reuses; or `HERE`.
      reuse: as in `js.variable_scope`.
    """
    if name is HERE or default_name is HERE:
        yield js.get_variable_scope()
        return
    if name:
        scope = js.variable_scope(name)
    elif reuse:
        scope = js.variable_scope(default_name)
    else:
        scope = js.variable_scope(None, default_name)
    with scope as found:
        pass
    with (
        js.variable_scope(found, reuse=reuse, auxiliary_name_scope=False) as entered,
        js.name_scope(found.original_name_scope),
    ):
        yield entered


def names_of(collections: Any) -> tuple[str, ...]:
    """The names of collections that are given as one name, several, or None."""
    return (collections,) if isinstance(collections, str) else tuple(collections or ())


def add_weight(
    name: str,
    shape: Any,
    dtype: Any,
    *,
    initializer: Any = None,
    regularizer: Regularizer | None = None,
    constraint: Any = None,
    trainable: bool | None = None,
) -> jax.Array:
    """A variable of a layer, in the layer's scope.

    TF1 adds the layer's regularizer to the one that the scope brings; here they make one loss, the sum of both.
    """
    inherited = js.get_variable_scope().regularizer
    if regularizer is not None and inherited is not None:
        regularizer = RegularizerSum((inherited, regularizer))
    return js.get_variable(
        name,
        shape,
        dtype=dtype,
        initializer=initializer,
        regularizer=regularizer,
        constraint=constraint,
        trainable=trainable,
    )


@dataclasses.dataclass(frozen=True)
class RegularizerSum:
    """The sum of regularizers, of which each may give no loss."""

    regularizers: tuple[Regularizer, ...]

    def __call__(self, value: jax.Array) -> Any:
        losses = [loss for loss in (each(value) for each in self.regularizers) if loss is not None]
        return functools.reduce(operator.add, losses) if losses else None
