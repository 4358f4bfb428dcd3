"""What can be saved: the values in a tree that are arrays of numbers, and their bytes."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jscope._support import is_elsewhere, shown, without_value

from .faults import fault
from .tensors import can_be_read

ADVICE = "of a key of jax.random, save jax.random.key_data(key)"


def is_key(leaf: Any) -> bool:
    """Whether it is a key of `jax.random`, or the type of one."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def check_is_here(name: str, leaf: Any) -> None:
    """Raises a CheckpointError for an array that is deleted, and for one that this process can't read alone."""
    if isinstance(leaf, jax.Array) and without_value(leaf):
        fix = "save what the function that took it returned, or before it is called"
        raise fault(f"{shown(name)} {without_value(leaf)}.", kind="deleted", fix=fix)
    if is_elsewhere(leaf):
        what = f"{shown(name)} is spread over processes, and one file is written by one process."
        raise fault(what, kind="other_processes", fix="save it with orbax, where each process writes what it has")


def kind_of(name: str, leaf: Any) -> str:
    """The name of an array's dtype; of anything else that of its type.

    Raises:
      CheckpointError: for a value that JAX traces, and for an array that is masked, deleted, partly in other
        processes, or of a shape that no reader takes.
    """
    check_is_here(name, leaf)
    if isinstance(leaf, jax.core.Tracer):
        what = "A value can't be saved while JAX traces the function that computes it."
        raise fault(what, kind="traced", fix="save outside of jax.jit and JAX's other transforms")
    if isinstance(leaf, np.ma.MaskedArray):
        what = f"{shown(name)} is a masked array of numpy, whose mask would be lost."
        raise fault(what, kind="masked", fix="save array.filled(value), and array.mask beside it if it is needed")
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        if not can_be_read(leaf.shape):
            what = f"{shown(name)} has the shape {leaf.shape!s:.200}, and could not be read again."
            raise fault(what, kind="bad_shape", fix="reshape it: an array that is read has 32 dimensions at most")
        return leaf.dtype.name
    return np.asarray(leaf).dtype.name if isinstance(leaf, bool | int | float | complex) else type(leaf).__name__


def bytes_of(leaf: Any) -> tuple[np.ndarray, np.ndarray]:
    """(the array in C order and little-endian, its bytes)."""
    array = np.asarray(leaf)
    array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return array, array.reshape(-1).view(np.uint8)


def is_text(name: str) -> bool:
    """Whether it can be encoded: no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
