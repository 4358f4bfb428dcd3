"""What layers do with an input and a vector or matrix of their own.

Ranks are made alike before, which `jax_numpy_rank_promotion="raise"` asks for. Each function is one that JAX traces
once for all layers of one size; two calls of jax.numpy would take twice the time.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._support import jit_inlined
from .shardings import sharding, spec_of


@jit_inlined
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`x @ kernel + bias`."""
    return multiplied(x, kernel) + _spread(bias, x)


@jit_inlined
def shifted(x: jax.Array, by: jax.Array) -> jax.Array:
    """`x + by`, along the last dimensions."""
    return x + _spread(by, x)


@jit_inlined
def scaled(x: jax.Array, by: jax.Array) -> jax.Array:
    """`x * by`, along the last dimensions."""
    return x * _spread(by, x)


def multiplied(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel`. What is summed over sharded dimensions is added up, so that the result has every sum in full."""
    left, right = spec_of(x), spec_of(kernel)
    if left is None or right is None:
        return jnp.matmul(x, kernel)
    return jnp.matmul(x, kernel, out_sharding=sharding((*left[:-1], right[-1]), x))


def _spread(of_last: jax.Array, like: jax.Array) -> jax.Array:
    return jax.lax.expand_dims(of_last, range(like.ndim - of_last.ndim))
