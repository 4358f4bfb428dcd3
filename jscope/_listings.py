"""What TF1 lists of a running program: collections, and the losses of regularizers. Floor 2."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import jax

from ._declare import REGULARIZATION_LOSSES
from ._errors import BadTypeError, TransformError, user_line
from ._names import matcher
from ._specs import VariableSpec
from ._store import Store
from ._values import is_traced
from ._variable import Variable


def add_to_collection(store: Store, key: str, value: Any) -> None:
    """Appends; an array of `get_variable` and a `VariableSpec` stand for their variable.

    Raises:
      TransformError: for another value of an inner trace.
      BadTypeError: for a collection that can't be looked up.
    """
    _check_key(store, key)
    if isinstance(value, VariableSpec) or store.registry.knows(value):
        value = store.find(value, "add_to_collection")
    elif store.level and any(map(is_traced, jax.tree.leaves(value))):
        raise TransformError(
            f"A value made inside a JAX transform is added to collection {key!r}: nobody outside could use it.",
            kind="leak",
            scope=store.scopes.state.name,
            where=user_line(),
            fix="return it from the transformed function and add it outside",
        )
    store.registry.collect(key, value)
    store.registry.extras += 1


def _check_key(store: Store, key: Any) -> None:
    if not isinstance(key, Hashable):
        raise BadTypeError(
            f"A collection's name is a string, not {key!r}.",
            kind="bad_name_type",
            scope=store.scopes.state.name,
            where=user_line(),
            fix="give a string; for several collections call it for each",
        )


def collection(store: Store, key: str, scope: str | None = None) -> list[Any]:
    """TF1's `get_collection`: a new list, variables as specs.

    Raises:
      BadTypeError: for a collection that can't be looked up.
    """
    _check_key(store, key)
    listed = losses(store, scope) if key == REGULARIZATION_LOSSES else []
    items = store.registry.collected(key, scope)
    return listed + [item.spec() if isinstance(item, Variable) else item for item in items]


def losses(store: Store, scope: str | None = None) -> list[Any]:
    """One scalar for each regularizer that gives one, computed now; `scope` is matched on the loss's op name."""
    match = matcher(scope or "").match
    found, level = [], store.level
    for variable in list(store.registry.by_name.values()):
        regularizer = variable.regularizer
        if regularizer is not None and match(f"{variable.key}/Regularizer/"):
            found.append(regularizer(store.read(variable)))
            store.level = level  # a regularizer may have called from an inner trace
    return [loss for loss in found if loss is not None]
