"""Faults in plain functions of JAX, and two that the assertions can't find."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from hypothesis import given, settings

from jscope import testing

from . import fault
from .jscope_models import X


@fault("backward rule that forgets the upstream gradient", "JAX", "assert_gradients")
def wrong_rule(wrong: bool) -> None:
    @jax.custom_vjp
    def scaled(x: jax.Array) -> jax.Array:
        return 2 * x

    scaled.defvjp(lambda x: (2 * x, None), lambda _, g: (jnp.full_like(g, 2.0) if wrong else 2 * g,))
    testing.assert_gradients(lambda x: (scaled(x) ** 2).sum(), jnp.array([0.5, 1.5]))


@fault("batching rule that gives every row the first one's result", "JAX", "assert_same_under")
def wrong_batching(wrong: bool) -> None:
    @jax.custom_batching.custom_vmap
    def from_the_first(x: jax.Array) -> jax.Array:
        return x - x[0]

    @from_the_first.def_vmap
    def rule(size: int, batched: Any, x: jax.Array) -> Any:
        return x - (x[:1, :1] if wrong else x[:, :1]), True

    @given(stack=testing.stacks(transforms=["jit", "scan", "cond", "vmap"]))
    @settings(testing.profile, database=None, derandomize=True, print_blob=False, max_examples=8)
    def test(stack: testing.Stack) -> None:
        testing.assert_same_under(from_the_first, X, stack=stack)

    test()


@fault("log of a probability that may be zero", "JAX", "assert_finite")
def log_of_zero(wrong: bool) -> None:
    def entropy(logits: jax.Array) -> jax.Array:
        if wrong:
            p = jax.nn.softmax(logits)
            return -(p * jnp.log(p)).sum()
        return -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum()

    @given(x=testing.arrays((3,), jnp.float32))
    @settings(testing.profile, database=None, derandomize=True, print_blob=False)
    def test(x: jax.Array) -> None:
        testing.assert_finite(entropy, 100 * x)

    test()


@fault("softmax over the batch", "JAX", "assert_rows_independent")
def softmax_over_the_batch(wrong: bool) -> None:
    testing.assert_rows_independent(functools.partial(jax.nn.softmax, axis=0 if wrong else -1), X)


@fault("one old key (`PRNGKey`) for two draws", "JAX", "JAX's check for key reuse sees typed keys alone", found=False)
def old_key(wrong: bool) -> None:
    def noisy(key: jax.Array, x: jax.Array) -> jax.Array:
        first, second = (key, key) if wrong else jax.random.split(key)
        return x + jax.random.normal(first, x.shape) + jax.random.normal(second, x.shape)

    testing.assert_strict(noisy, jax.random.PRNGKey(0), X)


@fault(
    "GELU by tanh for the exact one",
    "JAX",
    "no property tells two good functions apart: it takes the other's values",
    found=False,
)
def other_gelu(wrong: bool) -> None:
    def layer(x: jax.Array) -> jax.Array:
        return jax.nn.gelu(x, approximate=wrong)

    testing.assert_functional(layer, X)
    testing.assert_same_under(layer, X)
    testing.assert_finite(layer, X)
    testing.assert_strict(layer, X)
    testing.assert_gradients(layer, X)
    testing.assert_rows_independent(layer, X)
