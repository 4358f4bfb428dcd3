"""Faults in models of Flax NNX, as functions of their state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jscope import testing

from . import fault
from .jscope_models import KEY, TOKENS, X


def pure(model: nnx.Module) -> tuple[Callable[..., Any], Any]:
    """The model as a function of a nested dict of its arrays, and that dict."""
    graph, state = nnx.split(model)
    return lambda tree, *args: nnx.merge(graph, _filled(state, tree))(*args), nnx.to_pure_dict(state)


def _filled(state: Any, tree: Any) -> Any:
    state = jax.tree.map(lambda leaf: leaf, state)
    nnx.replace_by_pure_dict(state, tree)
    return state


class Tied(nnx.Module):
    def __init__(self, tie: str) -> None:
        rngs = nnx.Rngs(0)
        self.tie = tie
        self.table = nnx.Embed(5, 4, rngs=rngs)
        self.body = nnx.Linear(4, 4, rngs=rngs)
        self.output = nnx.Embed(5, 4, rngs=nnx.Rngs(0)) if tie == "split" else self.table

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = jnp.tanh(self.body(self.table(tokens)))
        table = self.output.embedding[...]
        return x @ (jax.lax.stop_gradient(table) if self.tie == "stopped" else table).T


@fault("shared table that was copied", "NNX", "assert_uses")
def split_tie(wrong: bool) -> None:
    apply, params = pure(Tied("split" if wrong else "tied"))
    name = next(name for name in ("table/embedding", "output/embedding") if name.split("/")[0] in params)
    testing.assert_uses(apply, params, TOKENS, of=name, uses=2)


@fault("tie stopped by stop_gradient", "NNX", "assert_uses", quick=True)
def stopped_tie(wrong: bool) -> None:
    apply, params = pure(Tied("stopped" if wrong else "tied"))
    name = next(name for name in ("table/embedding", "output/embedding") if name.split("/")[0] in params)
    testing.assert_uses(apply, params, TOKENS, of=name, uses=2)


@fault("model.eval() forgotten: statistics of the batch", "NNX", "assert_rows_independent")
def batch_statistics(wrong: bool) -> None:
    model = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    if not wrong:
        model.eval()
    testing.assert_rows_independent(lambda x: nnx.clone(model)(x), X)


@fault("noise of NumPy in the forward pass", "NNX", "assert_functional")
def numpy_noise(wrong: bool) -> None:
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    generator = np.random.default_rng()

    def forward(x: jax.Array) -> jax.Array:
        return model(x) + (generator.normal() if wrong else 0.0)

    testing.assert_functional(forward, X)


@fault("norm that divides by the wrong axis", "NNX", "assert_rows_independent")
def wrong_axis(wrong: bool) -> None:
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))

    def forward(x: jax.Array) -> jax.Array:
        x = model(x)
        return x / jnp.linalg.norm(x, axis=0 if wrong else 1, keepdims=True)

    testing.assert_rows_independent(forward, X)


@fault("key that is not split from layer to layer of a scan", "NNX", "assert_strict")
def key_reuse_in_scan(wrong: bool) -> None:
    def forward(key: jax.Array, x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, layer_key: jax.Array) -> Any:
            used = key if wrong else layer_key
            return x * jax.random.bernoulli(used, 0.5, x.shape), None

        return jax.lax.scan(layer, x, jax.random.split(key if not wrong else jax.random.clone(key), 3))[0]

    testing.assert_strict(forward, KEY, X)


@fault("step number as a static argument", "NNX", "assert_traces")
def traced_anew(wrong: bool) -> None:
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))

    def forward(x: jax.Array, step: Any) -> jax.Array:
        return model(x) * 0.9**step

    steps = [(X, step if wrong else jnp.asarray(step)) for step in range(3)]
    testing.assert_traces(forward, *steps, **({"static_argnums": 1} if wrong else {}))


@fault("checkpoint that keeps bfloat16 as float32", "NNX", "assert_round_trips")
def lost_dtype(wrong: bool) -> None:
    _, params = pure(nnx.Linear(3, 4, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))

    def saved_and_loaded(tree: Any) -> Any:
        saved = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)
        return jax.tree.map(lambda leaf, new: jnp.asarray(new, None if wrong else leaf.dtype), tree, saved)

    testing.assert_round_trips(params, saved_and_loaded)
