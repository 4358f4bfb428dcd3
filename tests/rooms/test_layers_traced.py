"""A flag or size of a layer that `jax.jit` traces: it works, or an error names the argument and the way out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jscope as js
from jscope import layers

# What a layer takes beside inputs, and has no default for.
GIVEN = {"filters": 3, "units": 3, "num_outputs": 3, "kernel_size": 2, "strides": 1, "stride": 1, "pool_size": 2}
GIVEN |= {"vocab_size": 5, "embed_dim": 3, "depth_multiplier": 1, "rate": 0.5, "dim": 1}
# Layers that take functions or cells, and so no inputs alone.
OTHERS = {"bidirectional_dynamic_rnn", "dynamic_rnn", "repeat", "stack"}
# Whether one trains is by default True, and then it can't be run by `apply`, whatever its numbers are.
NOT_TRAINING = {"batch_norm": {"is_training": False}, "dropout": {"is_training": False}}


def arguments() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """(name, layer, name of a parameter) for each bool and number that a layer takes."""
    for room in (layers, layers.contrib):
        for name in sorted(room.__all__):
            layer = getattr(room, name)
            if inspect.isfunction(layer) and name not in OTHERS and "inputs" in inspect.signature(layer).parameters:
                for parameter in inspect.signature(layer).parameters.values():
                    value = GIVEN.get(parameter.name) if parameter.default is parameter.empty else parameter.default
                    if type(value) in (bool, int, float):
                        yield f"{room.__name__}.{name}".removeprefix("jscope."), layer, parameter.name


@pytest.mark.parametrize(("name", "layer", "argument"), [pytest.param(*case, id=f"{case[0]}-{case[2]}") for case in arguments()])  # fmt: skip  # noqa: E501
def test_a_traced_argument_works_or_is_named(name: str, layer: Callable[..., Any], argument: str) -> None:
    parameters = inspect.signature(layer).parameters
    given = {key: GIVEN[key] for key, p in parameters.items() if p.default is p.empty and key != "inputs"}
    given |= {key: flag for key, flag in NOT_TRAINING.get(layer.__name__, {}).items() if key in parameters}
    net = js.transform(lambda inputs, flag: layer(inputs, **{**given, argument: flag}))
    spatial = next((n for n in (1, 2, 3) if f"{n}d" in name), 2 if name.endswith("convolution") else 0)
    inputs = jnp.ones((2, *[4] * spatial, 4))
    value = given.get(argument, parameters[argument].default)
    params = net.specs(inputs, value).abstract()
    try:
        jax.eval_shape(net.apply, params, inputs, value)
    except js.JscopeError as error:
        assert "traced" in str(error)  # noqa: PT017 (most raise nothing)
        assert "static_argnames='flag'" in error.fix  # noqa: PT017
