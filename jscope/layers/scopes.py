"""How a layer of TF1 opens its scope and makes its variables; shared by all files of this room."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax

import jscope as js

from .by_name import Regularizer, initializer_of, regularizer_of
from .faults import bad_argument


class Asked:
    """How a variable of a layer was asked for. `again` is what TF1's attribute of a layer is: what the asking gave.

    An array would be no use: there is another one after each assignment and in each trace, and under a custom getter.
    """

    def __init__(self, name: str, shape: Any, dtype: Any) -> None:
        self._scope = js.get_variable_scope()
        self._name, self._shape, self._dtype = name, shape, dtype

    def again(self) -> Any:
        """What a layer that shares the variable would get here; one more read of it."""
        with js.variable_scope(self._scope, reuse=True, auxiliary_name_scope=False):
            return js.get_variable(self._name, self._shape, dtype=self._dtype)


class Here(dict[str, Asked]):
    """As the name of a layer: it is computed in the scope in force, which a layer class has entered.

    It then holds how the layer's variables were first asked for, by their names.
    """


def layer_scope(name: Any, default_name: str, reuse: Any = None) -> AbstractContextManager[js.VariableScope]:
    """The scope of a layer of `tf.layers`.

    TF1 enters it twice: once to find it, which makes a default name unique, and again with `reuse`, for operations to
    stand in the op scope that the first entry opened. For a name one entry does both.

    Args:
      name: a name, a scope object, or None or "" for the default name; a `Here` for the scope in force.
      default_name: made unique, unless the layer reuses; or a `Here`.
      reuse: as in `js.variable_scope`.
    """
    if isinstance(name, Here) or isinstance(default_name, Here):
        return contextlib.nullcontext(js.get_variable_scope())
    if isinstance(name, js.VariableScope):
        return _entered_twice(name, reuse)
    if name or reuse:
        return js.variable_scope(name or default_name, reuse=reuse)
    return js.variable_scope(None, default_name)


@contextlib.contextmanager
def _entered_twice(scope: js.VariableScope, reuse: Any) -> Iterator[js.VariableScope]:
    with js.variable_scope(scope) as found:
        pass
    with (
        js.variable_scope(found, reuse=reuse, auxiliary_name_scope=False) as entered,
        js.name_scope(found.original_name_scope),
    ):
        yield entered


def names_of(collections: Any) -> tuple[str, ...]:
    """The names of collections that are given as one name, several, or None."""
    return (collections,) if isinstance(collections, str) else tuple(collections or ())


def options(initializer: Any, regularizer: Any, constraint: Any = None) -> dict[str, Any]:
    """What a layer's arguments say of one variable, as arguments of `add_weight`."""
    return {"initializer": initializer, "regularizer": regularizer, "constraint": constraint}


def add_weight(
    name: str,
    shape: Any,
    dtype: Any,
    *,
    initializer: Any = None,
    regularizer: Regularizer | str | None = None,
    constraint: Any = None,
    trainable: bool | None = None,
    at: Any = None,
) -> jax.Array:
    """A variable of a layer, in the layer's scope.

    Initializer and regularizer may be given by their names in Keras. TF1 adds the layer's regularizer to the one that
    the scope brings; here they make one loss, the sum of both. `at` is the layer's name, in case it is a `Here`.
    """
    if regularizer is not None:
        regularizer = _with_inherited(regularizer_of(regularizer, name))
    if isinstance(constraint, str):
        raise bad_argument(
            f"constraint={constraint!r}: there are no constraints by name.",
            asked=name,
            fix="give a function from value to value, such as lambda w: jnp.maximum(w, 0)",
        )
    if isinstance(at, Here) and name not in at:
        at[name] = Asked(name, shape, dtype)
    return js.get_variable(
        name,
        shape,
        dtype=dtype,
        initializer=initializer_of(initializer, name),
        regularizer=regularizer,
        constraint=constraint,
        trainable=trainable,
    )


def _with_inherited(regularizer: Regularizer) -> Regularizer:
    inherited = js.get_variable_scope().regularizer
    return regularizer if inherited is None else RegularizerSum((inherited, regularizer))


@dataclasses.dataclass(frozen=True)
class RegularizerSum:
    """The sum of regularizers, of which each may give no loss."""

    regularizers: tuple[Regularizer, ...]

    def __call__(self, value: jax.Array) -> Any:
        losses = [loss for loss in (each(value) for each in self.regularizers) if loss is not None]
        return functools.reduce(operator.add, losses) if losses else None
