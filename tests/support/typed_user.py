"""A user's file as type checkers see it; `tests/core/test_typed_user.py` runs them. It is never run itself.

A line that must be an error says so in a comment; every other line must be none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import assert_type

import jax
import jax.numpy as jnp

import jscope as js


def classify(x: jax.Array, training: bool, scale: float = 1.0, *, name: str = "") -> tuple[jax.Array, int]:
    return x * js.get_variable("w", []) * scale, 3


net = js.transform(classify)
key, x = jax.random.key(0), jnp.ones(3)

params = net.init(key, x, True)
assert_type(params, js.Params)
assert_type(net.init(key, x, training=True, name="a"), js.Params)
assert_type(net.init(key, x, True, warm_start=params), js.Params)
assert_type(net.init(key, x, True, warm_start={"w": 1.0}), js.Params)
assert_type(net.specs(x, False), js.Specs)
assert_type(net.specs(jax.ShapeDtypeStruct((3,), jnp.float32), False), js.Specs)
assert_type(net.apply(params, x, True), tuple[jax.Array, int])
assert_type(net.apply({"w": 1.0}, x, training=True, scale=2.0), tuple[jax.Array, int])
assert_type(net.apply(params, x, True, rng=key), tuple[jax.Array, int])
assert_type(net.apply(params, x, True, rng=None), tuple[jax.Array, int])
assert_type(net.update(params, x, False), tuple[tuple[jax.Array, int], js.Params])
assert_type(net.update(params, x, False, rng=key), tuple[tuple[jax.Array, int], js.Params])
assert_type(net.__wrapped__(x, True), tuple[jax.Array, int])

net.apply(params)  # error: x is missing
net.apply(params, x)  # error: training is missing
net.apply(params, x, "yes")  # error: training is a bool
net.apply(params, x, True, 1.0, 2.0)  # error: one too many
net.apply(params, x, trainig=True)  # error: misspelt
net.apply(params, x, True, name=3)  # error: name is a string
net.apply(params, key, x, True)  # error: keys go by keyword
net.apply(3, x, True)  # error: no tree
net.apply(params, x, True, rng=0)  # error: no key
net.apply(params=params, x=x, training=True)  # error: the tree goes by position
net.update(params, x)  # error: training is missing
net.init(key)  # error: no inputs
net.init(key, x, training=1.5)  # error: training is a bool
net.init(params, x, True)  # error: no key
net(x, True)  # error: a transformed program can't be called
loss: float = net.apply(params, x, True)  # error: it returns a tuple


@js.transform
def decorated(x: jax.Array, /, *scales: float, params: int = 0, **more: bool) -> jax.Array:
    return x


assert_type(decorated.apply(params, x, 1.0, 2.0, params=3, flag=True), jax.Array)
decorated.apply(params, x=x)  # error: x goes by position
decorated.apply(params, x, "a")  # error: scales are floats


class Model:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: jax.Array) -> jax.Array:
        return x

    def logits(self, x: jax.Array, temperature: float = 1.0) -> jax.Array:
        return x


assert_type(js.transform(Model(3)).apply(params, x), jax.Array)
assert_type(js.transform(Model(3).logits).apply(params, x, 0.5), jax.Array)
assert_type(js.transform(Model).apply(params, 3), Model)
assert_type(js.transform(Model.logits).apply(params, Model(3), x), jax.Array)
js.transform(Model(3)).apply(params, x, x)  # error: one too many
js.transform(lambda x: x).apply(params, x)
js.transform(partial(classify, training=True)).apply(params, x)
js.transform(jax.jit(classify)).apply(params, x, True)
js.transform(3)  # error: no function


def train(program: js.Transformed[[jax.Array, bool], jax.Array], step: Callable[[js.Params], None]) -> None:
    """A function that takes programs says which ones."""
    assert_type(program.apply(params, x, True), jax.Array)
    step(program.init(key, x, True))


def pair(x: jax.Array, training: bool) -> jax.Array:
    return x


train(js.transform(pair), print)
train(net, print)  # error: it returns a tuple


def outer(x: jax.Array) -> jax.Array:
    tree = js.lift(net, x, True)
    assert_type(tree, js.Params)
    js.lift(net, x)  # error: training is missing
    js.lift(classify, x, True)  # error: not transformed
    return net.apply(tree, x, True)[0]


jitted = jax.jit(net.apply, static_argnames="training")
jitted(params, x, True)
