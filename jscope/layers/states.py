"""The states of recurrent cells: what is given is checked against the sizes that a cell has."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._support import as_dtype, short_type
from .faults import bad_argument, is_floating, whole

State = Any


def zeros(size: Any, batch_size: int, dtype: Any) -> State:
    """Zeros of `state_size`: integers are sizes, lists of integers shapes, tuples nested states.

    Raises:
      BadArgumentError: for another `state_size`.
      BadTypeError: for what is no dtype.
    """
    dtype = as_dtype(dtype)
    return _nested(size, lambda shape: jnp.zeros((batch_size, *shape), dtype))


def check_state(state: State, size: Any, batch_size: Any, asked: str) -> None:
    """Checks what a cell is given.

    Args:
      state: what is given.
      size: the cell's `state_size`.
      batch_size: the number of examples.
      asked: the class of the cell.

    Raises:
      BadArgumentError: for another nesting, other shapes, and what is not floating.
    """
    if _fits(state, size, batch_size):
        return
    fix = "start from cell.zero_state(batch_size, dtype)"
    if hasattr(size, "_fields") and isinstance(state, list | tuple) and type(state) is not type(size):
        made = f"{type(size).__name__}({', '.join(f'{field}=...' for field in size._fields)})"
        fix = f"give {made}: a plain {type(state).__name__} does not say which part is which"
    elif isinstance(size, tuple) and isinstance(state, list):
        fix = "give a tuple: tuple(state)"
    wanted = _nested(size, lambda shape: jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32))
    raise bad_argument(f"{asked} takes a state such as {shown(wanted)}, not {shown(state)}.", asked=asked, fix=fix)


def _nested(size: Any, leaf: Any) -> Any:
    """A state of a cell's sizes, of `leaf(shape without batch)`."""
    if (units := whole(size)) is not None:
        return leaf((units,))
    if isinstance(size, list):
        return leaf(tuple(size))
    if not isinstance(size, tuple):
        raise bad_argument(
            f"A cell has state_size={size!r:.80}, which is no size.",
            asked="zero_state",
            fix="make it an integer, a list of integers for a shape, or a tuple of those",
        )
    parts = [_nested(part, leaf) for part in size]
    return type(size)(*parts) if hasattr(size, "_fields") else tuple(parts)


def _fits(state: Any, size: Any, batch_size: Any) -> bool:
    if isinstance(size, list) or whole(size) is not None:
        shape = (batch_size, *(size if isinstance(size, list) else [size]))
        dtype = getattr(state, "dtype", None)
        return dtype is not None and is_floating(dtype) and state.shape == shape
    same_kind = type(state) is type(size) if hasattr(size, "_fields") else type(state) is tuple
    return (
        same_kind
        and len(state) == len(size)
        and all(_fits(part, its, batch_size) for part, its in zip(state, size, strict=True))
    )


def shown(state: Any) -> str:
    """A state as it reads in a message: nested types and shapes."""
    if hasattr(state, "_fields"):
        parts = (f"{field}={shown(part)}" for field, part in zip(state._fields, state, strict=True))
        return f"{type(state).__name__}({', '.join(parts)})"
    if isinstance(state, tuple):
        return f"({', '.join(map(shown, state))}{',' * (len(state) == 1)})"
    if isinstance(state, list):
        return f"[{', '.join(map(shown, state))}]"
    return short_type(state)[:80]
