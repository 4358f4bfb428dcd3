"""What is said of a constant stays short, whatever the constant's size: errors, tables and reprs."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js

KEY = jax.random.key(0)
ARRAY = np.random.default_rng(0).random((300, 400))
LIST = ARRAY.ravel().tolist()
TEXT = "x" * 100_000
HUGE = {"an array": ARRAY, "a JAX array": jnp.asarray(ARRAY), "a list": LIST, "a nested list": [LIST] * 3}
MOST = 1000


WRONG = {
    "shape": lambda huge: js.get_variable("v", huge),
    "dtype": lambda huge: js.get_variable("v", [2], huge),
    "name": lambda huge: js.get_variable(huge, [2]),
    "initializer with a shape": lambda huge: js.get_variable("v", [2], initializer=huge),
    "initializer of another dtype": lambda huge: js.get_variable("v", None, jnp.int32, huge),
    "regularizer": lambda huge: js.get_variable("v", [2], regularizer=huge),
    "constraint": lambda huge: js.get_variable("v", [2], constraint=huge),
    "partitioner": lambda huge: js.get_variable("v", [2], partitioner=huge),
    "partition": lambda huge: js.get_variable("v", [2], partitioner=lambda shape, dtype: huge),
    "getter": lambda huge: js.get_variable("v", [2], custom_getter=huge),
    "collections": lambda huge: js.get_variable("v", [2], collections=[huge, [huge]]),
    "scope": lambda huge: js.variable_scope(huge).__enter__(),
    "scope's reuse": lambda huge: js.variable_scope("a", reuse=huge),
    "scope's trainable": lambda huge: js.variable_scope("a", trainable=huge),
    "op scope": lambda huge: js.name_scope(huge).__enter__(),
    "key's name": lambda huge: js.next_key(huge),
    "assigned": lambda huge: js.assign(js.get_variable("v", [2], jnp.int32), huge),
    "variable as whole numbers": lambda huge: js.variable(huge, dtype=jnp.int32),
    "constant as whole numbers": lambda huge: js.get_variable(
        "v", [300, 400], jnp.int32, initializer=js.constant_initializer(huge)
    ),
    "seed": lambda huge: js.glorot_uniform_initializer(seed=huge),
    "lift": lambda huge: js.lift(huge),
    "template": lambda huge: js.make_template("t", huge),
    "arg_scope": lambda huge: js.arg_scope(huge).__enter__(),
    "loss": lambda huge: (
        js.transform(lambda: js.get_variable("v", [2], regularizer=lambda w: huge))
        .specs()
        .regularization_loss({"v": jnp.ones(2)})
    ),
    "labels": lambda huge: js.Params({"a": 1}).like(huge),
    "tree": lambda huge: js.Params(huge),
    "leaf": lambda huge: js.transform(lambda: js.get_variable("v", [2])).specs().check({"v": huge}),
    "leaf that is read": lambda huge: js.transform(lambda: js.get_variable("v", [2])).apply({"v": huge}),
    "tree of a program": lambda huge: js.transform(lambda: 0).apply(huge),
    "program": lambda huge: js.transform(huge),
}


@pytest.mark.parametrize("huge", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_errors_stay_short(wrong: Any, huge: Any) -> None:
    """With something huge in a place where it does not belong."""
    with js.build(KEY), pytest.raises((ValueError, TypeError)) as caught:
        wrong(huge)
    assert len(str(caught.value)) < MOST


INITIALIZERS = {
    "constant_initializer of an array": js.constant_initializer(ARRAY),
    "constant_initializer of a list": js.constant_initializer(LIST),
    "partial": functools.partial(lambda held, key, shape, dtype: jnp.asarray(held, dtype), ARRAY),
    "function": lambda key, shape, dtype: jnp.asarray(ARRAY, dtype),
    "JAX's": jax.nn.initializers.constant(ARRAY),
}


@pytest.mark.parametrize("initializer", INITIALIZERS.values(), ids=INITIALIZERS)
def test_what_a_program_declares_reads_short(initializer: Any) -> None:
    def program() -> None:
        js.get_variable("v", [300, 400], initializer=initializer)
        js.get_variable("given", initializer=ARRAY.astype("f4"))
        js.variable(LIST, name="listed")

    specs = js.transform(program).specs()
    for text in (str(specs), repr(specs), *map(repr, specs.values())):
        assert max(map(len, text.splitlines())) < MOST


@pytest.mark.parametrize(
    "value", [ARRAY, LIST, [LIST], tuple(LIST), set(LIST), {"a": LIST}], ids=lambda v: type(v).__name__
)
def test_an_initializer_reads_short(value: Any) -> None:
    text = repr(js.constant_initializer(value))
    assert text.startswith("constant_initializer(")
    assert len(text) < 200
    assert "\n" not in text


@pytest.mark.parametrize(
    ("initializer", "text"),
    [
        (js.constant_initializer(0.5), "constant_initializer(0.5)"),
        (js.constant_initializer(), "constant_initializer(0)"),
        (js.constant_initializer(np.ones((2, 3), "f4")), "constant_initializer(f32[2,3])"),
        (js.truncated_normal_initializer(stddev=0.02), "truncated_normal_initializer(stddev=0.02)"),
        (js.glorot_uniform_initializer(), "glorot_uniform_initializer()"),
        (js.variance_scaling_initializer(2.0, "fan_out"), "variance_scaling_initializer(scale=2, mode='fan_out')"),
    ],
)
def test_an_initializer_reads_as_the_call_that_makes_it(initializer: Any, text: str) -> None:
    assert repr(initializer) == text


def test_leaves_that_are_no_arrays_read_short() -> None:
    text = repr(js.Params({"a": LIST, "b": {"c": TEXT}, "d": "a label"}))
    assert "d: 'a label'" in text
    assert len(text) < MOST
