"""Uses of a parameter are counted and differentiated one by one, whatever of JAX's stands around and between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope.testing import assert_shared, assert_uses

X = jnp.arange(1.0, 7.0).reshape(2, 3)
TREE = {"w": 0.1 * jnp.arange(1.0, 10.0).reshape(3, 3), "count": np.int32(2)}


@jax.custom_vjp
def with_own_rule(x: jax.Array, w: jax.Array) -> jax.Array:
    return x @ w


with_own_rule.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))


@jax.custom_jvp
def with_forward_rule(w: jax.Array) -> jax.Array:
    return jnp.sin(w)


with_forward_rule.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), jnp.cos(primals[0]) * tangents[0]))


def in_a_scan(p: Any, x: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda carry, row: (jnp.tanh(carry @ p["w"] + row), None), x[0], x)[0]


MODELS: dict[str, tuple[Callable[[Any, jax.Array], Any], int]] = {
    "two products": (lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"], 2),
    "its square": (lambda p, x: x @ (p["w"] * p["w"]), 1),
    "a transposed cast": (lambda p, x: x.astype(jnp.bfloat16) @ p["w"].astype(jnp.bfloat16).T, 1),
    "one cast for two": (lambda p, x: (lambda w: (x @ w) @ w)(p["w"].astype(jnp.float16)), 2),
    "jit in jit": (jax.jit(lambda p, x: jax.jit(lambda y: y @ p["w"])(x) @ p["w"]), 2),
    "a checkpoint": (lambda p, x: jax.checkpoint(lambda y: jnp.sin(y @ p["w"]))(x), 1),
    "a scan": (in_a_scan, 1),
    "a branch": (lambda p, x: jax.lax.cond(x.sum() > 0, lambda w: x @ w, lambda w: x - w.sum(), p["w"]), 1),
    "a rule of its own": (lambda p, x: with_own_rule(x, p["w"]) + with_own_rule(2 * x, p["w"]), 2),
    "a forward rule": (lambda p, x: x @ with_forward_rule(p["w"]), 1),
    "vmap": (lambda p, x: jax.vmap(lambda row: row @ p["w"])(x), 1),
    "given back as well": (lambda p, x: (p["w"].T, x @ p["w"]), 1),
    "an index": (lambda p, x: p["w"][jnp.array([0, 2])], 1),
    "a text among the results": (lambda p, x: {"y": x @ p["w"], "kind": "linear"}, 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_uses_are_counted(name: str) -> None:
    model, uses = MODELS[name]
    assert_uses(model, TREE, X, of="w", uses=uses)
    with pytest.raises(AssertionError, match=rf"'w' is read in {uses} places, not in {uses + 1}:"):
        assert_uses(model, TREE, X, of="w", uses=uses + 1)


def test_no_use_can_be_asked_for() -> None:
    assert_uses(lambda p, x: x, TREE, X, of="w", uses=0)
    with pytest.raises(AssertionError, match="'w' is read in 1 places, not in 0"):
        assert_uses(lambda p, x: x @ p["w"], TREE, X, of="w", uses=0)
    with pytest.raises(AssertionError, match="'w' is not read at all"):
        assert_uses(lambda p, x: x, TREE, X, of="w")


def test_each_use_is_asked_for_its_own_gradient() -> None:
    stop = jax.lax.stop_gradient
    for model in (
        lambda p, x: x @ p["w"] + stop(x @ p["w"]),
        lambda p, x: x @ p["w"] + jnp.round(p["w"]).sum(),
        lambda p, x: (x @ p["w"]) + 0 * p["w"].sum(),
        jax.jit(lambda p, x: x @ p["w"] + jax.jit(stop)(p["w"]).sum()),
    ):
        with pytest.raises(AssertionError, match="'w' gets no gradient from "):
            assert_uses(model, TREE, X, of="w", uses=2)


def test_integers_are_counted_alone() -> None:
    assert_uses(lambda p, x: x * p["count"], TREE, X, of="count", uses=1)


def test_names_are_exact_before_they_are_patterns() -> None:
    tree = {"a": jnp.ones(2), "a_1": jnp.ones(2), "b": {"a": jnp.ones(2)}}

    def model(p: Any) -> jax.Array:
        return p["a"] * p["a"].sum() + p["a_1"] + p["b"]["a"]

    assert_uses(model, tree, of="a", uses=2)
    assert_uses(model, tree, of=r"a_\d", uses=1)
    assert_uses(model, tree, of="b", uses=1)


def test_sharing_holds_through_scopes_templates_loops_and_lift() -> None:
    def cell(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ js.get_variable("kernel", [3, 3]))

    def by_template(x: jax.Array) -> jax.Array:
        template = js.make_template("cell", cell)
        return template(template(x))

    def by_lift(x: jax.Array) -> jax.Array:
        net = js.transform(cell)
        with js.variable_scope("cell", reuse=js.AUTO_REUSE):
            first, second = js.lift(net, x), js.lift(net, x)
        return net.apply(second, net.apply(first, x))

    def by_loop(x: jax.Array) -> jax.Array:
        def turn(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
            with js.variable_scope("cell", reuse=js.AUTO_REUSE):
                return cell(carry), None

        return jax.lax.scan(turn, x, None, length=3)[0]

    assert_shared(by_template, "cell", X, uses=2)
    assert_shared(by_lift, "cell", X, uses=2)
    assert_shared(by_loop, "cell", X, uses=1)


def test_programs_that_assign_can_be_asked() -> None:
    def twice(x: jax.Array, stop: Any = lambda y: y) -> jax.Array:
        def tower(x: jax.Array) -> jax.Array:
            with js.variable_scope("tower", reuse=js.AUTO_REUSE):
                mean = js.get_variable("mean", [3], initializer=js.zeros_initializer(), trainable=False)
                js.assign(mean, 0.9 * mean + 0.1 * x.mean(0))
                return jnp.tanh(x @ js.get_variable("kernel", [3, 3]))

        return tower(x) + stop(tower(2 * x))

    assert_shared(twice, "tower", X, uses=2)
    with pytest.raises(AssertionError, match="'tower/kernel' gets no gradient from dot_general"):
        assert_shared(lambda x: twice(x, jax.lax.stop_gradient), "tower", X, uses=2)


def test_a_kernel_that_starts_at_zero_is_no_fault() -> None:
    def program(x: jax.Array) -> jax.Array:
        for _ in range(2):
            with js.variable_scope("layer", reuse=js.AUTO_REUSE):
                x = x @ js.get_variable("kernel", [3, 3], initializer=js.zeros_initializer())
        return x

    assert_shared(program, "layer", X, uses=2)
