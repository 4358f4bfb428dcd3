"""What trees are made from, and what a leaf is: its type, its size, when two are the same. Floor 1."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ._callsite import user_line
from ._errors import BadArgumentError, BadTypeError
from ._show import short_type, shown


def type_of(leaf: Any) -> Any:
    """Shape and dtype of an array, or of what describes one, as JAX has it; None for anything else."""
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        return None
    return tuple(shape), jax.dtypes.canonicalize_dtype(dtype) if isinstance(dtype, np.dtype) else dtype


def size_of(leaf: Any) -> int:
    """The number of elements: 1 of a Python number, 0 of what is neither number nor array."""
    shape = getattr(leaf, "shape", None)
    return int(isinstance(leaf, int | float | complex)) if shape is None else math.prod(shape)


def itemsize_of(leaf: Any) -> int:
    """The bytes of one element."""
    dtype = getattr(leaf, "dtype", None)
    return dtype.itemsize if dtype is not None else jnp.result_type(leaf).itemsize if size_of(leaf) else 0


def is_elsewhere(leaf: Any) -> bool:
    """Whether an array is spread over processes, so that one alone can't read it. Whole copies can be."""
    if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
        return False
    return not (leaf.is_fully_addressable or leaf.is_fully_replicated)


DELETED = "is deleted: a jitted function that donates its arguments has taken its memory"
KEEP_IT = "use what the function that took it returned, or leave it out of donate_argnums"


def without_value(leaf: Any) -> str:
    """Why a leaf that has a type has no value, `""` if it has one."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return "is abstract, a ShapeDtypeStruct"
    if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) and leaf.is_deleted():
        return DELETED
    return ""


def check_here(name: str, leaf: Any, done: str = "", fix: str = "") -> None:
    """Raises BadArgumentError for an array that is deleted, or in part elsewhere where what is `done` needs all."""
    if isinstance(leaf, jax.Array) and (why := without_value(leaf)):
        what = f"{shown(name)} {short_type(leaf)} {why}."
        raise BadArgumentError(what, kind="deleted", where=user_line(), fix=KEEP_IT)
    if done and is_elsewhere(leaf):
        raise BadArgumentError(
            f"{shown(name)} {short_type(leaf)} is spread over processes, and one alone can't read it: {done}.",
            kind="other_processes",
            asked=f"a value on {len(leaf.sharding.device_set)} devices, {len(leaf.addressable_shards)} of them here",
            where=user_line(),
            fix=fix,
        )


_COMPARE = (
    "compare in all processes at once: "
    "jax.jit(lambda a, b: jax.tree.reduce(jnp.logical_and, jax.tree.map(jnp.array_equal, a, b)))(a, b); "
    "what orbax saved, restore with the shardings of this tree"
)


def same_leaf(name: str, a: Any, b: Any) -> bool:
    """Whether two leaves are equal: arrays by shape, dtype and all elements.

    Raises:
      BadArgumentError: for arrays that are spread over processes, of which one alone can't tell.
    """
    if a is b:
        return True
    if not hasattr(a, "shape") and not hasattr(b, "shape"):
        # Tuples and other trees within a leaf may hold arrays, whose == is no bool.
        (parts, form), (others, other_form) = jax.tree.flatten(a), jax.tree.flatten(b)
        if len(parts) == 1 and parts[0] is a:
            return bool(a == b)
        return form == other_form and all(same_leaf(name, *pair) for pair in zip(parts, others, strict=True))
    if not hasattr(a, "shape") or not hasattr(b, "shape"):
        # A scalar equals the number that it holds; an array and anything else are never equal.
        array, other = (a, b) if hasattr(a, "shape") else (b, a)
        return isinstance(other, int | float | complex) and array.shape == () and bool(array == other)
    if a.shape != b.shape or getattr(a, "dtype", None) != getattr(b, "dtype", None):
        return False
    if isinstance(a, jax.ShapeDtypeStruct) or isinstance(b, jax.ShapeDtypeStruct):
        return a == b
    for leaf in (a, b):
        check_here(name, leaf, "== can't compare what others hold", _COMPARE)
    if jnp.issubdtype(a.dtype, jax.dtypes.extended):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return bool((np.asarray(a) == np.asarray(b)).all())


def bad_type(what: str, kind: str, fix: str) -> BadTypeError:
    return BadTypeError(what, kind=kind, where=user_line(), fix=fix)


def not_a_mapping(wanted: str, given: Any) -> BadTypeError:
    what = f"{wanted} a mapping of names, not a {type(given).__name__}."
    return bad_type(what, "not_a_mapping", "pass a dict by name, or a Params")


def as_name(key: Any) -> str:
    """The name that a key stands for which is none: that of flax's `flatten_dict`, a path of JAX's, bytes."""
    if isinstance(key, bytes):
        return key.decode(errors="backslashreplace")
    return jax.tree_util.keystr(key, simple=True, separator="/") if isinstance(key, tuple) else str(key)


def pairs(given: Any) -> list[tuple[Any, Any]]:
    """(name, value) pairs, as a dict takes them."""
    if not isinstance(given, str | bytes) and isinstance(given, Iterable):
        found = list(given)
        if all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in found):
            return found
    raise not_a_mapping("Params are made from", given)
