"""Equinox: the model is the tree. All of its leaves are arrays, so nothing has to be filtered out for JAX."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from models import Model, maths


def model(build: Callable[[jax.Array], eqx.Module]) -> Model:
    return Model(build, lambda net, x: net(x))


def deep(layers: int, width: int) -> Model:
    return model(lambda key: Stack([Layer(width, key) for key in jax.random.split(key, layers)]))


def shared(layers: int, width: int) -> Model:
    return model(lambda key: Shared(layers, Layer(width, key)))


def transformer(layers: int, width: int) -> Model:
    return model(lambda key: Stack([Block(width, key) for key in jax.random.split(key, layers)]))


class Stack(eqx.Module):
    layers: list[eqx.Module]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


class Dense(eqx.Module):
    w: jax.Array
    b: jax.Array

    def __init__(self, width: int, key: jax.Array) -> None:
        self.w = maths.normal(key, (width, width))
        self.b = jnp.zeros(width)

    def __call__(self, x: jax.Array) -> jax.Array:
        return maths.dense(x, self.w, self.b)


class Mlp(eqx.Module):
    dense: Dense

    def __init__(self, width: int, key: jax.Array) -> None:
        self.dense = Dense(width, key)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(x)


class Layer(eqx.Module):
    mlp: Mlp

    def __init__(self, width: int, key: jax.Array) -> None:
        self.mlp = Mlp(width, key)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.mlp(x)


class Shared(eqx.Module):
    count: int = eqx.field(static=True)
    layer: Layer

    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.count):
            x = self.layer(x)
        return x


class Norm(eqx.Module):
    scale: jax.Array
    bias: jax.Array

    def __init__(self, width: int) -> None:
        self.scale = jnp.ones(width)
        self.bias = jnp.zeros(width)

    def __call__(self, x: jax.Array) -> jax.Array:
        return maths.norm(x, self.scale, self.bias)


class Project(eqx.Module):
    w: jax.Array

    def __init__(self, width: int, key: jax.Array) -> None:
        self.w = maths.normal(key, (width, width))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.w


class Linear(eqx.Module):
    w: jax.Array
    b: jax.Array

    def __init__(self, size_in: int, size: int, key: jax.Array) -> None:
        self.w = maths.normal(key, (size_in, size))
        self.b = jnp.zeros(size)

    def __call__(self, x: jax.Array) -> jax.Array:
        return maths.linear(x, self.w, self.b)


class Attention(eqx.Module):
    q: Project
    k: Project
    v: Project
    o: Project

    def __init__(self, width: int, key: jax.Array) -> None:
        self.q, self.k, self.v, self.o = (Project(width, key) for key in jax.random.split(key, 4))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.o(maths.attend(self.q(x), self.k(x), self.v(x)))


class Hidden(eqx.Module):
    up: Linear
    down: Linear

    def __init__(self, width: int, key: jax.Array) -> None:
        up, down = jax.random.split(key)
        self.up = Linear(width, maths.WIDER * width, up)
        self.down = Linear(maths.WIDER * width, width, down)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jnp.tanh(self.up(x)))


class Block(eqx.Module):
    attn_norm: Norm
    attn: Attention
    mlp_norm: Norm
    mlp: Hidden

    def __init__(self, width: int, key: jax.Array) -> None:
        attn, mlp = jax.random.split(key)
        self.attn_norm, self.mlp_norm = Norm(width), Norm(width)
        self.attn, self.mlp = Attention(width, attn), Hidden(width, mlp)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.attn_norm(x))
        return x + self.mlp(self.mlp_norm(x))
