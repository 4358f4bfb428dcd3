"""Haiku: modules made where they are called, `hk.transform`."""

from __future__ import annotations

from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp

from models import Model, inputs, maths

NORMAL = hk.initializers.RandomNormal(maths.STDDEV)


def model(program: Callable[[jax.Array], jax.Array], x: jax.Array) -> Model:
    net = hk.without_apply_rng(hk.transform(program))
    return Model(lambda key: net.init(key, x), net.apply)


def deep(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            x = Layer(name=f"layer_{i}")(x)
        return x

    return model(program, inputs("deep", width))


def shared(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        layer = Layer(name="layer")
        for _ in range(layers):
            x = layer(x)
        return x

    return model(program, inputs("shared", width))


def transformer(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            x = Block(name=f"layer_{i}")(x)
        return x

    return model(program, inputs("transformer", width))


class Dense(hk.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        w = hk.get_parameter("w", [width, width], init=NORMAL)
        return maths.dense(x, w, hk.get_parameter("b", [width], init=jnp.zeros))


class Mlp(hk.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return Dense(name="dense")(x)


class Layer(hk.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return Mlp(name="mlp")(x)


class Norm(hk.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = hk.get_parameter("scale", [x.shape[-1]], init=jnp.ones)
        return maths.norm(x, scale, hk.get_parameter("bias", [x.shape[-1]], init=jnp.zeros))


class Project(hk.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ hk.get_parameter("w", [x.shape[-1], x.shape[-1]], init=NORMAL)


class Linear(hk.Module):
    def __init__(self, size: int, name: str) -> None:
        super().__init__(name=name)
        self.size = size

    def __call__(self, x: jax.Array) -> jax.Array:
        w = hk.get_parameter("w", [x.shape[-1], self.size], init=NORMAL)
        return maths.linear(x, w, hk.get_parameter("b", [self.size], init=jnp.zeros))


class Attention(hk.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = Project(name="q")(x), Project(name="k")(x), Project(name="v")(x)
        return Project(name="o")(maths.attend(q, k, v))


class Hidden(hk.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        h = jnp.tanh(Linear(maths.WIDER * x.shape[-1], name="up")(x))
        return Linear(x.shape[-1], name="down")(h)


class Block(hk.Module):
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + Attention(name="attn")(Norm(name="attn_norm")(x))
        return x + Hidden(name="mlp")(Norm(name="mlp_norm")(x))
