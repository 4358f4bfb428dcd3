"""The dtype that layers sum in."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp


def single_or_wider(dtype: Any) -> Any:
    """float32 for half precision and integers, as in TensorFlow; else the dtype itself."""
    # Not jnp.promote_types, which refuses that where jax_numpy_dtype_promotion is "strict".
    is_narrow = not jnp.issubdtype(dtype, jnp.inexact) or jnp.finfo(dtype).bits < 32
    return jnp.dtype(jnp.float32) if is_narrow else dtype
