"""What TF1 lists of a run: collections, and the losses of regularizers; worked out when somebody asks. Floor 2."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import Any

import jax

from .._callsite import user_line
from .._errors import BadTypeError, TransformError
from .._names import matcher
from .._show import short
from .._values import check_loss, is_traced
from .._variable_spec import VariableSpec
from .record import REGULARIZATION_LOSSES, Collected, Variable
from .variables import Run


def add_to_collection(run: Run, key: str, value: Any) -> None:
    """Appends; an array of `get_variable` and a `VariableSpec` stand for their variable.

    Raises:
      TransformError: for another value of an inner trace.
      BadTypeError: for a collection that can't be looked up.
    """
    _check_key(run, key)
    if isinstance(value, VariableSpec) or run.arrays.knows(value):
        value = run.find(value, "add_to_collection")
    elif run.level and any(map(is_traced, jax.tree.leaves(value))):
        raise TransformError(
            f"A value made inside a JAX transform is added to collection {short(key)}: nobody outside could use it.",
            kind="leak",
            scope=run.scopes.state.name,
            where=user_line(),
            fix="return it from the transformed function and add it outside",
        )

    def append() -> Collected:
        run.collected.append(Collected(key, value, len(run.by_name)))
        return run.collected[-1]

    if run.body is None:
        append()
    else:
        collected = run.body.take(("collected", key), append)
        collected.item, collected.mark = value, run.body.mark()


def _check_key(run: Run, key: Any) -> None:
    if not isinstance(key, Hashable):
        raise BadTypeError(
            f"A collection's name is a string, not {short(key)}.",
            kind="bad_name_type",
            scope=run.scopes.state.name,
            where=user_line(),
            fix="give a string; for several collections call it for each",
        )


def _items(run: Run, key: str) -> list[Any]:
    """The items in the order in which they came into the collection."""
    listed = [(number, v) for number, v in enumerate(_variables(run), 1) if key in v.listed_in()]
    listed += [(c.after, c.item) for c in run.collected if c.collection == key and not run.is_to_come(c.mark)]
    return [item for _, item in sorted(listed, key=lambda numbered: numbered[0])]


def _variables(run: Run) -> list[Variable]:
    if run.body is None:
        return list(run.by_name.values())
    return [variable for variable in run.by_name.values() if not run.is_to_come(variable.mark)]


def collection(run: Run, key: str, scope: str | None = None) -> list[Any]:
    """TF1's `get_collection`: a new list, variables as specs.

    Args:
      scope: matched at the start of TF1's `.name`, of a variable its full name + ":0"; what has none is left out.

    Raises:
      BadTypeError: for a collection that can't be looked up.
    """
    _check_key(run, key)
    items = _items(run, key)
    if scope is not None:
        match = matcher(scope).match
        items = [item for item in items if (name := _name_in_tf1(item)) is not None and match(name)]
    listed = _of_regularizers(run, scope) if key == REGULARIZATION_LOSSES else []
    return listed + [item.spec() if isinstance(item, Variable) else item for item in items]


def _name_in_tf1(item: Any) -> str | None:
    """What TF1 takes for the name of an item; None for one that has none."""
    if isinstance(item, Variable):
        return item.name + ":0"
    name = getattr(item, "name", None)
    return name if isinstance(name, str) else None


def adds_to(run: Run, key: str, variables: int, collected: int) -> bool:
    """Whether a collection has grown since there were so many variables, and so many things collected."""
    new = itertools.islice(run.by_name.values(), variables, None)
    return any(key in variable.listed_in() for variable in new) or any(
        added.collection == key for added in run.collected[collected:]
    )


def losses(run: Run, scope: str | None = None) -> list[Any]:
    """One scalar for each regularizer that gives one, computed now, then what the program added to the collection."""
    added = collection(run, REGULARIZATION_LOSSES, scope)
    return [run.read(run.find(loss, "a loss")) if isinstance(loss, VariableSpec) else loss for loss in added]


def _of_regularizers(run: Run, scope: str | None) -> list[Any]:
    """The losses of variables; `scope` is matched on the loss's op name."""
    match = matcher(scope or "").match
    found, here = [], (run.level, run.body)
    for variable in _variables(run):
        regularizer = variable.regularizer
        if regularizer is not None and match(f"{variable.key}/Regularizer/"):
            loss = regularizer(run.read(variable))
            run.level, run.body = here  # a regularizer may have called in another place
            if loss is not None:
                check_loss(loss, variable.name, variable.origin())
                found.append(loss)
    return found
