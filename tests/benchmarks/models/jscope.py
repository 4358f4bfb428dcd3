"""jscope."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

import jscope as js
from models import Model, inputs, maths

NORMAL = js.random_normal_initializer(stddev=maths.STDDEV)
ZEROS = js.zeros_initializer()
ONES = js.ones_initializer()


def model(program: Callable[[jax.Array], jax.Array], x: jax.Array) -> Model:
    net = js.transform(program)
    return Model(lambda key: net.init(key, x), net.apply, lambda: net.specs(x), lambda specs, key: specs.init(key))


def deep(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            with js.variable_scope(f"layer_{i}"):
                x = mlp(x)
        return x

    return model(program, inputs("deep", width))


def shared(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for _ in range(layers):
            with js.variable_scope("layer", reuse=js.AUTO_REUSE):
                x = mlp(x)
        return x

    return model(program, inputs("shared", width))


def transformer(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            with js.variable_scope(f"layer_{i}"):
                x = block(x)
        return x

    return model(program, inputs("transformer", width))


def mlp(x: jax.Array) -> jax.Array:
    with js.variable_scope("mlp"), js.variable_scope("dense"):
        width = x.shape[-1]
        w = js.get_variable("w", [width, width], initializer=NORMAL)
        return maths.dense(x, w, js.get_variable("b", [width], initializer=ZEROS))


def block(x: jax.Array) -> jax.Array:
    h = norm("attn_norm", x)
    with js.variable_scope("attn"):
        x = x + project("o", maths.attend(project("q", h), project("k", h), project("v", h)))
    h = norm("mlp_norm", x)
    with js.variable_scope("mlp"):
        h = jnp.tanh(linear("up", h, maths.WIDER * x.shape[-1]))
        return x + linear("down", h, x.shape[-1])


def norm(name: str, x: jax.Array) -> jax.Array:
    with js.variable_scope(name):
        scale = js.get_variable("scale", [x.shape[-1]], initializer=ONES)
        return maths.norm(x, scale, js.get_variable("bias", [x.shape[-1]], initializer=ZEROS))


def project(name: str, x: jax.Array) -> jax.Array:
    with js.variable_scope(name):
        return x @ js.get_variable("w", [x.shape[-1], x.shape[-1]], initializer=NORMAL)


def linear(name: str, x: jax.Array, size: int) -> jax.Array:
    with js.variable_scope(name):
        w = js.get_variable("w", [x.shape[-1], size], initializer=NORMAL)
        return maths.linear(x, w, js.get_variable("b", [size], initializer=ZEROS))
