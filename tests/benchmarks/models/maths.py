"""What every library computes. Only the way to the variables differs, so that only that is compared."""

from __future__ import annotations

import jax
import jax.numpy as jnp

HEADS = 2
WIDER = 2  # the hidden layer of a block's MLP is so many times wider
STDDEV = 0.05


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return STDDEV * jax.random.normal(key, shape)


def dense(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.tanh(x @ w + b)


def norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return scale * centred * jax.lax.rsqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) + bias


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attention of `HEADS` heads over [batch, time, width]."""
    split = (*q.shape[:2], HEADS, q.shape[-1] // HEADS)
    q, k, v = q.reshape(split), k.reshape(split), v.reshape(split)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / split[-1] ** 0.5
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(*split[:2], -1)


def decay(w: jax.Array) -> jax.Array:
    """A loss of the weights."""
    return 0.01 * jnp.sum(w * w)


def linear(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return x @ w + b
