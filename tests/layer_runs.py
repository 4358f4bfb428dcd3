"""Runs a case of `layer_cases` in jscope. What it gives has the form of what TensorFlow is recorded to give."""

from __future__ import annotations

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from layer_cases import Case, input_values, random_values

import jscope as js
import jscope.layers

# The collections of the cases that are not given to a variable when it is made.
OTHERS = {"outs", "more", "mine", "w", "b", "v"}


def jscope_names() -> Any:
    """What a program of `layer_cases` uses."""
    layers = jscope.layers
    names = {name: getattr(js, name) for name in dir(js) if not name.startswith("_")}
    more = {"layers": layers, "contrib": layers.contrib, "arg_scope": layers.arg_scope}
    more |= {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "concat": jnp.concatenate}
    more |= {"reduce_sum": jnp.sum, "reduce_mean": jnp.mean, "transpose": jnp.transpose, "cast": jnp.astype}
    return types.SimpleNamespace(**{**names, **more})


NAMES = jscope_names()


def run_jscope(name: str, case: Case, seed: int = 0) -> dict[str, Any]:
    """The variables of a case and what it computes from them.

    Returns:
      variables: list of [name, shape, trainable], in order of creation.
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
        noted["collections"] = {c: v if None not in v else len(v) for c, v in found.items() if v}
        return outputs if isinstance(outputs, list | tuple) else [outputs], js.get_regularization_losses()

    net = js.transform(program)
    specs = net.specs(**inputs)
    params = js.Params({spec.name: random_values(spec.name, spec.shape, seed) for spec in specs.values()})
    (outputs, losses), updated = jax.jit(net.update)(params, **inputs)
    result = {
        "variables": [[spec.name, list(spec.shape), spec.trainable] for spec in specs.values()],
        "collections": noted["collections"],
        "losses": [np.asarray(loss) for loss in losses],
        "outputs": [np.asarray(leaf) for leaf in jax.tree.leaves(outputs)],
    }
    if case.updates:
        result["updates"] = [np.asarray(updated[spec.name]) for spec in specs.values()]
    if case.gradients:
        trainable, rest = specs.split(params)

        def objective(trainable: js.Params) -> jax.Array:
            (outputs, _), _ = net.update(trainable | rest, **inputs)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(outputs))

        gradients = jax.jit(jax.grad(objective))(trainable)
        result["gradients"] = [np.asarray(gradients[s.name]) for s in specs.values() if s.trainable]
    return result
