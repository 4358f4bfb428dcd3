"""Faults in models of Haiku."""

from __future__ import annotations

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from jscope import testing

from . import fault
from .jscope_models import KEY, X, Y, run_machine


@fault("jitted block that is filed by its function: both layers read one", "Haiku", "assert_trained")
def filed_block(wrong: bool) -> None:
    def block(x: jax.Array) -> jax.Array:
        return x * hk.get_parameter("w", [3], init=jnp.ones)

    block = jax.jit(block) if wrong else block

    def model(x: jax.Array) -> jax.Array:
        with hk.experimental.name_scope("a"):
            x = block(x)
        with hk.experimental.name_scope("b"):
            return block(x)

    net = hk.without_apply_rng(hk.transform(model))
    params = {"a": {"w": jnp.ones(3)}, "b": {"w": 2 * jnp.ones(3)}}
    testing.assert_trained(net.apply, params, X)


@fault("encoder made twice instead of shared", "Haiku", "assert_uses")
def split_encoder(wrong: bool) -> None:
    def model(a: jax.Array, b: jax.Array) -> jax.Array:
        encoder = hk.Linear(4, name="encoder")
        other = hk.Linear(4, name="encoder") if wrong else encoder
        return encoder(a) - other(b)

    net = hk.without_apply_rng(hk.transform(model))
    testing.assert_uses(net.apply, net.init(KEY, X, Y), X, Y, of="encoder/w", uses=2)


@fault("norm over the axis of the batch", "Haiku", "assert_rows_independent")
def wrong_axis(wrong: bool) -> None:
    def model(x: jax.Array) -> jax.Array:
        return hk.LayerNorm(axis=0 if wrong else -1, create_scale=False, create_offset=False)(hk.Linear(4)(x))

    net = hk.without_apply_rng(hk.transform(model))
    params = net.init(KEY, X)
    testing.assert_rows_independent(lambda x: net.apply(params, x), X)


@fault("activations kept in a global", "Haiku", "assert_functional")
def leaked_tracer(wrong: bool) -> None:
    kept: dict[str, Any] = {}

    def model(x: jax.Array) -> jax.Array:
        hidden = jnp.tanh(hk.Linear(4)(x))
        if wrong:
            kept["hidden"] = hidden
        return hidden.sum(-1)

    net = hk.without_apply_rng(hk.transform(model))
    testing.assert_functional(net.apply, net.init(KEY, X), X)


@fault("one key for two layers of dropout", "Haiku", "assert_strict")
def key_reuse(wrong: bool) -> None:
    def model(x: jax.Array) -> jax.Array:
        key = hk.next_rng_key()
        x = hk.dropout(key, 0.5, x)
        return hk.dropout(key if wrong else hk.next_rng_key(), 0.5, hk.Linear(3)(x))

    net = hk.transform(model)
    testing.assert_strict(net.apply, net.init(KEY, X), KEY, X, allow=["leaks"])


@fault("NaN in the gradient of a norm at zero", "Haiku", "assert_finite", quick=True)
def nan_at_zero(wrong: bool) -> None:
    def model(x: jax.Array) -> jax.Array:
        squares = (hk.Linear(4, with_bias=False)(x) ** 2).sum(-1)
        return jnp.sqrt(squares if wrong else squares + 1e-6)

    net = hk.without_apply_rng(hk.transform(model))
    testing.assert_finite(net.apply, net.init(KEY, X), jnp.zeros((4, 3)))


@fault("mask ignored where rows are averaged", "Haiku", "assert_masked")
def mask_ignored(wrong: bool) -> None:
    mask = jnp.array([[True, True, False], [True, False, False]])

    def model(x: jax.Array) -> jax.Array:
        hidden = jnp.tanh(hk.Linear(4)(x))
        if wrong:
            return hidden.mean(1)
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)

    net = hk.without_apply_rng(hk.transform(model))
    x = jax.random.normal(KEY, (2, 3, 3))
    params = net.init(KEY, x)
    testing.assert_masked(lambda x: net.apply(params, x), x, mask)


@fault("fan-out taken for fan-in in the initializer", "Haiku", "assert_drawn")
def other_stddev(wrong: bool) -> None:
    mode = "fan_out" if wrong else "fan_in"

    def model(x: jax.Array) -> jax.Array:
        return hk.Linear(16, w_init=hk.initializers.VarianceScaling(1.0, mode, "normal"))(x)

    params = hk.transform(model).init(KEY, jnp.ones((1, 64)))
    testing.assert_drawn(params["linear"]["w"], stddev=64**-0.5)


@fault("state that is not carried through the loop", "Haiku", "TrainingMachine")
def state_dropped(wrong: bool) -> None:
    def model(x: jax.Array) -> jax.Array:
        count = hk.get_state("count", [], jnp.int32, init=jnp.zeros)
        hk.set_state("count", count + 1)
        return x * hk.get_parameter("w", [3], init=jnp.ones)

    net = hk.without_apply_rng(hk.transform_with_state(model))

    class Training(testing.TrainingMachine):
        @staticmethod
        def start(key: jax.Array) -> Any:
            return net.init(key, X)

        @staticmethod
        def step(state: Any, batch: jax.Array) -> Any:
            params, before = state
            _, after = net.apply(params, before, batch)
            return params, before if wrong else after

        def batches(self) -> Any:
            return testing.arrays((4, 3), jnp.float32)

        def check(self, state: Any) -> None:
            assert state[1]["~"]["count"] == len(self.history)

    run_machine(Training)
