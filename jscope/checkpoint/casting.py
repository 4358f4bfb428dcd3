"""Which dtypes may become which: precision may be lost, never kind nor range."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

_KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)  # each may become those behind it


def cast_fault(old: Any, new: Any) -> str:
    """Why arrays of dtype `old` can't become arrays of dtype `new`, `""` if they can."""
    kinds = [next((i for i, kind in enumerate(_KINDS) if jnp.issubdtype(dtype, kind)), None) for dtype in (old, new)]
    if None in kinds or kinds[0] > kinds[1]:  # type: ignore[operator]
        return f"has dtype {old}, which can't be cast to {new}"
    return ""


def _has_infinity(dtype: Any) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isinf(np.array(np.inf).astype(dtype)))


def cast_array(array: Any, dtype: Any) -> np.ndarray:
    """The array in that dtype.

    Raises:
      ValueError: if a value is out of its range.
    """
    old = np.asarray(array)
    with np.errstate(over="ignore", invalid="ignore"):
        new = old.astype(dtype)
    if not jnp.issubdtype(dtype, jnp.inexact):
        fits = True
        if old.size and old.dtype != np.bool_:
            limits = jnp.iinfo(dtype)
            fits = int(old.min()) >= int(limits.min) and int(old.max()) <= int(limits.max)
    elif _has_infinity(dtype):
        fits = bool((np.isfinite(new) >= np.isfinite(old)).all())
    else:
        # Without an infinity, what is out of range becomes NaN, or in a dtype without NaN some number. What is nearer
        # to the largest number than to the next one that there would be is rounded.
        most = np.float64(jnp.finfo(dtype).max)  # of numpy's: a narrower dtype is compared in this one
        most += float(jnp.finfo(dtype).eps) * 2.0 ** math.floor(math.log2(most)) / 2
        fits = bool(((np.isnan(new) == np.isnan(old)) & ~((old > most) | (old < -most))).all())
    if not fits:
        raise ValueError(f"has values that are out of the range of {np.dtype(dtype)}")
    return new
