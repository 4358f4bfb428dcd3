"""Runs a case of `layer_cases` in jscope. What it gives has the form of what TensorFlow is recorded to give."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from layer_cases import COUNTED, Case, input_values, random_values

import jscope as js
import jscope.layers

# The collections of the cases that are not given to a variable when it is made.
OTHERS = {*COUNTED, "mine", "w", "b", "v", "weights"}


def jscope_names() -> Any:
    """What a program of `layer_cases` uses."""
    layers = jscope.layers
    names = {name: getattr(js, name) for name in dir(js) if not name.startswith("_")}
    more = {"layers": layers, "contrib": layers.contrib, "arg_scope": layers.arg_scope}
    more |= {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "concat": jnp.concatenate}
    more |= {"reduce_sum": jnp.sum, "reduce_mean": jnp.mean, "transpose": jnp.transpose, "cast": jnp.astype}
    more |= {"float32": jnp.float32, "float16": jnp.float16, "int32": jnp.int32}
    more["contrib_rnn"] = layers
    more["nn"] = types.SimpleNamespace(rnn_cell=layers, **{name: getattr(layers, name) for name in layers.__all__})
    return types.SimpleNamespace(**{**names, **more})


NAMES = jscope_names()


def quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` that saves on compiling, where the time of such small programs goes."""

    def call(*args: Any, **kwargs: Any) -> Any:
        lowered = jax.jit(function).lower(*args, **kwargs)
        options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
        try:
            compiled = lowered.compile(options)
        except jax.errors.JaxRuntimeError:  # newer versions have no other emitters
            compiled = lowered.compile({"xla_backend_optimization_level": 0})
        return compiled(*args, **kwargs)

    return call


def run_jscope(name: str, case: Case, seed: int = 0) -> dict[str, Any]:
    """The variables of a case and what it computes from them.

    Returns:
      variables: list of [name, dtype, shape, trainable], in order of creation.
      collections: name -> names of the variables in it, or for other items their number.
      outputs, gradients, updates: lists of arrays; the latter two where the case asks for them.
      losses: the regularization losses.
    """
    inputs = input_values(name, case.inputs, seed)
    noted: dict[str, Any] = {}

    def program(**inputs: Any) -> Any:
        outputs = case.program(NAMES, **inputs)
        specs = js.global_variables() + js.local_variables()
        collections = {c for spec in specs for c in spec.collections}
        found = {c: [getattr(v, "name", None) for v in js.get_collection(c)] for c in sorted(collections | OTHERS)}
        noted["collections"] = {c: len(v) if c in COUNTED else v for c, v in found.items() if v}
        return outputs if isinstance(outputs, list | tuple) else [outputs], js.get_regularization_losses()

    net = js.transform(program)
    specs = net.specs(**inputs)
    params = js.Params(
        {spec.name: random_values(spec.name, spec.shape, seed).astype(spec.dtype) for spec in specs.values()}
    )
    trainable, rest = specs.split(params)

    def run(trainable: js.Params, inputs: dict[str, Any]) -> Any:
        (outputs, losses), updated = net.update(trainable | rest, **inputs)
        outputs = jax.tree.leaves(outputs)
        objective = sum(jnp.sum(leaf**2) for leaf in outputs) if case.gradients else None
        return objective, {"outputs": outputs, "losses": losses, "updates": updated}

    def with_gradients(trainable: js.Params, inputs: dict[str, Any]) -> Any:
        gradients, result = jax.grad(run, has_aux=True)(trainable, inputs)
        return None, {**result, "gradients": gradients}

    _, found = quickly(with_gradients if case.gradients else run)(trainable, inputs)
    result: dict[str, Any] = {
        "variables": [[spec.name, spec.dtype.name, list(spec.shape), spec.trainable] for spec in specs.values()],
        "collections": noted["collections"],
        "losses": [np.asarray(loss) for loss in found["losses"]],
        "outputs": [np.asarray(output) for output in found["outputs"]],
    }
    if case.updates:
        result["updates"] = [np.asarray(found["updates"][spec.name]) for spec in specs.values()]
    if case.gradients:
        result["gradients"] = [np.asarray(found["gradients"][s.name]) for s in specs.values() if s.trainable]
    return result
