"""Flax NNX, as a pure function: the state is the tree, and each call merges it with the graph definition."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models import Model, maths


def deep(layers: int, width: int) -> Model:
    return model(new_deep, layers, width)


def shared(layers: int, width: int) -> Model:
    return model(Shared, layers, width)


def transformer(layers: int, width: int) -> Model:
    return model(new_transformer, layers, width)


Build = Callable[[int, int, nnx.Rngs], nnx.Module]


def model(build: Build, layers: int, width: int) -> Model:
    def init(key: jax.Array) -> Any:
        return nnx.state(build(layers, width, nnx.Rngs(key)))

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(definition(build, layers, width), params)(x)

    return Model(init, apply)


# Who has a state has its definition too, so it is no part of a first trace, nor of a cold `init`.
@functools.cache
def definition(build: Build, layers: int, width: int) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: build(layers, width, nnx.Rngs(0))))[0]


def new_deep(layers: int, width: int, rngs: nnx.Rngs) -> nnx.Module:
    return Stack([Layer(width, rngs) for _ in range(layers)])


def new_transformer(layers: int, width: int, rngs: nnx.Rngs) -> nnx.Module:
    return Stack([Block(width, rngs) for _ in range(layers)])


class Stack(nnx.Module):
    def __init__(self, layers: list[nnx.Module]) -> None:
        self.layers = nnx.List(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


class Shared(nnx.Module):
    def __init__(self, layers: int, width: int, rngs: nnx.Rngs) -> None:
        self.count = layers
        self.layer = Layer(width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.count):
            x = self.layer(x)
        return x


class Dense(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.w = nnx.Param(maths.normal(rngs.params(), (width, width)))
        self.b = nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        return maths.dense(x, self.w[...], self.b[...])


class Mlp(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.dense = Dense(width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(x)


class Layer(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.mlp = Mlp(width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.mlp(x)


class Norm(nnx.Module):
    def __init__(self, width: int) -> None:
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        return maths.norm(x, self.scale[...], self.bias[...])


class Project(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.w = nnx.Param(maths.normal(rngs.params(), (width, width)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.w[...]


class Linear(nnx.Module):
    def __init__(self, size_in: int, size: int, rngs: nnx.Rngs) -> None:
        self.w = nnx.Param(maths.normal(rngs.params(), (size_in, size)))
        self.b = nnx.Param(jnp.zeros(size))

    def __call__(self, x: jax.Array) -> jax.Array:
        return maths.linear(x, self.w[...], self.b[...])


class Attention(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.q, self.k = Project(width, rngs), Project(width, rngs)
        self.v, self.o = Project(width, rngs), Project(width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.o(maths.attend(self.q(x), self.k(x), self.v(x)))


class Hidden(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.up = Linear(width, maths.WIDER * width, rngs)
        self.down = Linear(maths.WIDER * width, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jnp.tanh(self.up(x)))


class Block(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.attn_norm, self.mlp_norm = Norm(width), Norm(width)
        self.attn, self.mlp = Attention(width, rngs), Hidden(width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.attn_norm(x))
        return x + self.mlp(self.mlp_norm(x))
