"""Assertions about any function, beyond their words: what else they find, and what is right and not blamed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope import testing

KEY = jax.random.key(0)
X = jnp.arange(6.0).reshape(2, 3)


def text_of(test: Callable[[], Any]) -> str:
    with pytest.raises(AssertionError) as caught:
        test()
    return str(caught.value)


def appends(given: Any, x: jax.Array) -> jax.Array:
    given.append(x)
    return x


def takes_out(given: Any, x: jax.Array) -> jax.Array:
    return x * given.pop("w")  # which a second run does not find


@pytest.mark.parametrize(
    ("function", "given", "fault"),
    [
        (appends, [X], "['args'][0][1] is only in the second"),
        (takes_out, {"w": X}, "['args'][0]['w'] is only in the first"),
        (
            lambda given, x: given.update(w=2 * given["w"]),
            {"w": jnp.ones(2)},
            "['args'][0]['w']: 2 of 2 elements differ, by 1 at most, at [0]: 1.0, then 2.0",
        ),
    ],
)
def test_a_container_that_a_function_changes(function: Any, given: Any, fault: str) -> None:
    assert text_of(lambda: testing.assert_functional(function, given, X)).endswith(
        f" is no function of its arguments: it changed what it was given:\n  - {fault}"
    )


def test_an_array_that_a_function_gives_and_changes_later() -> None:
    kept = np.zeros(2)

    def counts() -> Any:
        kept[:] += 1
        return kept

    assert "a second run differs from the first" in text_of(lambda: testing.assert_functional(counts))


RULES = ["key_reuse", "outer_broadcast", "dtype_promotion"]


@pytest.mark.parametrize(
    "call",
    [testing.assert_functional, pytest.param(partial(testing.assert_strict, allow=RULES), marks=pytest.mark.slow)],
)
def test_what_a_jitted_function_keeps(call: Any) -> None:
    kept: list[Any] = []

    @jax.jit
    def keeps(x: jax.Array) -> jax.Array:
        kept.append(x)
        return 2 * x

    keeps(X)  # JAX has a trace of it
    for function in (keeps, lambda x: keeps(x) + 1):
        text = text_of(lambda function=function: call(function, X))
        assert "it keeps JitTracer(float32[2,3]) after the trace has ended" in text


@pytest.mark.parametrize(
    "call", [testing.assert_functional, partial(testing.assert_same_under, stack=testing.Stack("jit"))]
)
@pytest.mark.parametrize("beside", [jnp.float32(-1e9), np.float32(1.7e9)])
def test_a_large_number_beside_does_not_allow_for_anything(call: Any, beside: Any) -> None:
    def model(x: jax.Array, beside: Any, slip: float = 0.0) -> jax.Array:
        weights = jax.nn.softmax(jnp.where(x > 3, x + beside, x))
        return weights * (1 + slip * isinstance(x, jax.core.Tracer))

    call(model, X, beside)
    assert "gives something else" in text_of(lambda: call(model, X, beside, slip=0.01))


@pytest.mark.parametrize("jitted", [False, True])
def test_trained_by_update(jitted: bool) -> None:
    def program(x: jax.Array) -> jax.Array:
        mean = js.get_variable("moving/mean", [3], initializer=js.zeros_initializer(), trainable=False)
        js.assign(mean, 0.9 * mean + x.mean(0))
        js.get_variable("unused", [2])
        return x @ js.get_variable("used", [3])

    net = js.transform(program)
    params, update = net.init(KEY, X), jax.jit(net.update) if jitted else net.update
    assert text_of(lambda: testing.assert_trained(update, params, X, frozen="moving")) == (
        "`program_update` does not train what it should:\n  - 'unused' gets no gradient"
    )


ZERO, ONES = jnp.zeros((3, 3)), jnp.ones((3, 3))


def residual(p: Any) -> jax.Array:
    return X + p["gate"] * jnp.tanh(X @ p["a"] @ p["b"])


def test_what_is_trained_once_another_is_no_longer_zero() -> None:
    testing.assert_trained(residual, {"gate": jnp.ones([]), "a": ONES, "b": ZERO})
    testing.assert_trained(residual, {"gate": jnp.zeros([]), "a": ONES, "b": ZERO + 0.1})
    for tree, frozen, silent in (
        ({"gate": jnp.ones([]), "a": ZERO, "b": ZERO}, None, ("gate", "a", "b")),  # they hold each other at zero
        ({"gate": jnp.zeros([]), "a": ONES, "b": ONES}, "gate", ("a", "b")),
        ({"gate": jnp.ones([]), "a": ONES, "b": ZERO, "c": ONES}, None, ("c",)),
    ):
        text = text_of(lambda tree=tree, frozen=frozen: testing.assert_trained(residual, tree, frozen=frozen))
        assert {name for name in tree if f"'{name}' gets no gradient" in text} == set(silent)


@jax.custom_jvp
def wrong_slope(x: jax.Array) -> jax.Array:
    return jnp.sin(x)


wrong_slope.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 3 * tangents[0]))


def test_complex_results() -> None:
    x = jnp.array([0.5, 1.0])
    testing.assert_gradients(lambda x: 1j * jnp.sin(x), x)
    testing.assert_gradients(lambda x: x**2 * (1 + 2j), x + 1j)
    text_of(lambda: testing.assert_gradients(lambda x: 1j * wrong_slope(x), x))
    testing.assert_trained(lambda p: p["a"] + 1j * p["b"], {"a": x, "b": x})
    testing.assert_uses(lambda p: x + 1j * p["b"], {"b": x}, of="b", uses=1)


def test_gradients_of_64_bits() -> None:
    with jax.enable_x64(True):
        x = jnp.array([0.5, 1.0])
        testing.assert_gradients(lambda x: 1e4 + x**2, x)
        testing.assert_trained(lambda p: 1e-60 * p["a"], {"a": x})
        text_of(lambda: testing.assert_gradients(lambda x: 1e4 + wrong_slope(x), x))


def normal_of(keys: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.normal)(keys)


def test_dependence_of_keys() -> None:
    keys = jax.random.split(KEY, 3)
    testing.assert_rows_independent(normal_of, keys)
    testing.assert_rows_independent(lambda keys: keys, keys)
    tree = {"x": X, "k": jax.random.split(KEY, (2, 3))}
    testing.assert_causal(lambda t: t["x"] + normal_of(t["k"].ravel()).reshape(2, 3), tree)
    testing.assert_masked(lambda keys: normal_of(keys)[0], keys, jnp.array([True, False, True]))
    mask = jnp.array([True, True, False])
    for call in (
        lambda: testing.assert_rows_independent(lambda keys: normal_of(keys[::-1]), keys),
        lambda: testing.assert_rows_independent(lambda keys: keys[::-1], keys),
        lambda: testing.assert_causal(lambda keys: normal_of(keys[::-1]), keys, axis=0),
        lambda: testing.assert_masked(lambda keys: keys[2], keys, mask),
    ):
        assert "elements differ" in text_of(call)


def test_rows_that_are_spread_over_an_explicit_axis() -> None:
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    x = jax.device_put(jnp.arange(8.0).reshape(2, 4), jax.NamedSharding(mesh, jax.P(None, "data")))
    for axis in (1, -1):
        testing.assert_rows_independent(lambda x: 2 * x, x, axis=axis)
        text_of(lambda axis=axis: testing.assert_rows_independent(lambda x: x / x.shape[1], x, axis=axis))


def nothing_but_nan(x: jax.Array) -> jax.Array:
    return x * jnp.nan


@pytest.mark.parametrize(
    "ask",
    [
        lambda: testing.assert_causal(nothing_but_nan, X),
        lambda: testing.assert_rows_independent(nothing_but_nan, X),
        lambda: testing.assert_masked(nothing_but_nan, X, np.array([True, False])),
        lambda: testing.assert_gradients(nothing_but_nan, X),
        lambda: testing.assert_gradients(lambda x: jnp.log(x - x), X),
    ],
    ids=["causal", "rows", "masked", "gradients", "infinity"],
)
def test_what_is_nan_shows_nothing(ask: Callable[[], Any]) -> None:
    with pytest.raises(js.BadArgumentError, match=r"NaN.*\n.*\n  Fix: .*assert_finite"):
        ask()


def test_some_nan_is_compared_as_it_is() -> None:
    given = X.at[0, 1].set(jnp.nan)  # a number that is missing
    testing.assert_rows_independent(jnp.sin, given)
    text = text_of(lambda: testing.assert_causal(lambda x: x - x[:, -1:], given))
    assert "steps before 2 depend on later ones" in text


def test_a_gradient_that_is_nan_trains_nothing() -> None:
    tree = {"w": jnp.zeros(3), "b": jnp.ones(3)}
    text = text_of(lambda: testing.assert_trained(lambda p: jnp.linalg.norm(p["w"]) + p["b"].sum(), tree))
    assert "'w' gets a gradient that is not finite: nan" in text
    assert "'b'" not in text
