"""Nested dicts, written by hand. What everything else is compared with.

The key is split once, into as many as there are draws. Warm, that is the quickest way; the first time, JAX compiles
the taking apart of so many keys, which `key_by_key` does without.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from models import Model, maths

KeysOf = Callable[[jax.Array, int], Iterator[jax.Array]]


def split_once(key: jax.Array, count: int) -> Iterator[jax.Array]:
    return iter(jax.random.split(key, count))


def deep(layers: int, width: int, keys_of: KeysOf = split_once) -> Model:
    def init(key: jax.Array) -> Any:
        keys = keys_of(key, layers)
        return {f"layer_{i}": new_layer(keys, width) for i in range(layers)}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        for i in range(layers):
            p = params[f"layer_{i}"]["mlp"]["dense"]
            x = maths.dense(x, p["w"], p["b"])
        return x

    return Model(init, apply)


def with_losses(layers: int, width: int) -> Model:
    """`deep`, and the sum of a loss for each variable."""
    plain = deep(layers, width)

    def apply(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses = []
        for i in range(layers):
            p = params[f"layer_{i}"]["mlp"]["dense"]
            losses += [maths.decay(p["w"]), maths.decay(p["b"])]
        return plain.apply(params, x), functools.reduce(operator.add, losses)

    return Model(plain.init, apply)


def shared(layers: int, width: int) -> Model:
    def init(key: jax.Array) -> Any:
        return {"layer": new_layer(iter([key]), width)}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        for _ in range(layers):
            p = params["layer"]["mlp"]["dense"]
            x = maths.dense(x, p["w"], p["b"])
        return x

    return Model(init, apply)


def transformer(layers: int, width: int, keys_of: KeysOf = split_once) -> Model:
    def init(key: jax.Array) -> Any:
        keys = keys_of(key, 6 * layers)
        return {f"layer_{i}": new_block(keys, width) for i in range(layers)}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        for i in range(layers):
            x = block(params[f"layer_{i}"], x)
        return x

    return Model(init, apply)


def new_layer(keys: Iterator[jax.Array], width: int) -> Any:
    return {"mlp": {"dense": {"w": maths.normal(next(keys), (width, width)), "b": jnp.zeros(width)}}}


def new_block(keys: Iterator[jax.Array], width: int) -> Any:
    hidden = maths.WIDER * width
    return {
        "attn_norm": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
        "attn": {name: {"w": maths.normal(next(keys), (width, width))} for name in "qkvo"},
        "mlp_norm": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
        "mlp": {
            "up": {"w": maths.normal(next(keys), (width, hidden)), "b": jnp.zeros(hidden)},
            "down": {"w": maths.normal(next(keys), (hidden, width)), "b": jnp.zeros(width)},
        },
    }


def block(p: Any, x: jax.Array) -> jax.Array:
    h = maths.norm(x, p["attn_norm"]["scale"], p["attn_norm"]["bias"])
    attn, mlp = p["attn"], p["mlp"]
    x = x + maths.attend(h @ attn["q"]["w"], h @ attn["k"]["w"], h @ attn["v"]["w"]) @ attn["o"]["w"]
    h = maths.norm(x, p["mlp_norm"]["scale"], p["mlp_norm"]["bias"])
    h = jnp.tanh(maths.linear(h, mlp["up"]["w"], mlp["up"]["b"]))
    return x + maths.linear(h, mlp["down"]["w"], mlp["down"]["b"])
