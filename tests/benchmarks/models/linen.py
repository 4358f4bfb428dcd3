"""Flax Linen: compact modules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from models import Model, inputs, maths

NORMAL = nn.initializers.normal(maths.STDDEV)
ZEROS = nn.initializers.zeros_init()
ONES = nn.initializers.ones_init()


def model(net: nn.Module, x: jax.Array) -> Model:
    return Model(lambda key: net.init(key, x), net.apply)


def deep(layers: int, width: int) -> Model:
    return model(Deep(layers), inputs("deep", width))


def shared(layers: int, width: int) -> Model:
    return model(Shared(layers), inputs("shared", width))


def transformer(layers: int, width: int) -> Model:
    return model(Transformer(layers), inputs("transformer", width))


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        return maths.dense(x, self.param("w", NORMAL, (width, width)), self.param("b", ZEROS, (width,)))


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Dense(name="dense")(x)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Mlp(name="mlp")(x)


class Deep(nn.Module):
    layers: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.layers):
            x = Layer(name=f"layer_{i}")(x)
        return x


class Shared(nn.Module):
    layers: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = Layer(name="layer")
        for _ in range(self.layers):
            x = layer(x)
        return x


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        return maths.norm(x, self.param("scale", ONES, shape), self.param("bias", ZEROS, shape))


class Project(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.param("w", NORMAL, (x.shape[-1], x.shape[-1]))


class Linear(nn.Module):
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = self.param("w", NORMAL, (x.shape[-1], self.size))
        return maths.linear(x, w, self.param("b", ZEROS, (self.size,)))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = Project(name="q")(x), Project(name="k")(x), Project(name="v")(x)
        return Project(name="o")(maths.attend(q, k, v))


class Hidden(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = jnp.tanh(Linear(maths.WIDER * x.shape[-1], name="up")(x))
        return Linear(x.shape[-1], name="down")(h)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + Attention(name="attn")(Norm(name="attn_norm")(x))
        return x + Hidden(name="mlp")(Norm(name="mlp_norm")(x))


class Transformer(nn.Module):
    layers: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.layers):
            x = Block(name=f"layer_{i}")(x)
        return x
