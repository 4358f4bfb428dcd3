"""Faults in models of Flax Linen."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jscope import testing

from . import fault
from .jscope_models import KEY, TOKENS, X


class Tied(nn.Module):
    split: bool
    stopped: bool = False

    def setup(self) -> None:
        self.table = nn.Embed(5, 4)
        self.body = nn.Dense(4)
        self.output = nn.Dense(5, use_bias=False)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = jnp.tanh(self.body(self.table(tokens)))
        return self.output(x) if self.split else self.table.attend(x)


@fault("table of the output untied", "Linen", "assert_uses")
def split_tie(wrong: bool) -> None:
    net = Tied(split=wrong)
    params = net.init(KEY, TOKENS)
    testing.assert_uses(net.apply, params, TOKENS, of="params/table", uses=2)


@fault("(n, 1) less (n,) in the loss", "Linen", "assert_strict", quick=True)
def broadcast_slip(wrong: bool) -> None:
    net, target = nn.Dense(1), jnp.arange(4.0)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        prediction = net.apply(params, x)
        return ((prediction if wrong else prediction[:, 0]) - target).mean()

    testing.assert_strict(loss, net.init(KEY, X), X)


@fault("layer that computes in float32 in a bfloat16 model", "Linen", "assert_strict")
def dtype_slip(wrong: bool) -> None:
    class Residual(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return x + nn.Dense(3, dtype=jnp.float32 if wrong else jnp.bfloat16)(x)

    x = X.astype(jnp.bfloat16)
    testing.assert_strict(Residual().apply, Residual().init(KEY, x), x)


class Attention(nn.Module):
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        mask = nn.make_causal_mask(x[..., 0]) if self.causal else None
        return nn.MultiHeadDotProductAttention(num_heads=1)(x, x, mask=mask)


@fault("attention without its mask", "Linen", "assert_causal")
def not_causal(wrong: bool) -> None:
    net, x = Attention(causal=not wrong), jax.random.normal(KEY, (2, 4, 4))
    params = net.init(KEY, x)
    testing.assert_causal(lambda x: net.apply(params, x), x)


@fault("use_running_average forgotten at evaluation", "Linen", "assert_rows_independent")
def batch_statistics(wrong: bool) -> None:
    net = nn.BatchNorm(use_running_average=not wrong)
    params = nn.BatchNorm(use_running_average=False).init(KEY, X)
    testing.assert_rows_independent(lambda x: net.apply(params, x, mutable=["batch_stats"])[0], X)


@fault("target network without stop_gradient", "Linen", "assert_trained", quick=True)
def missing_stop(wrong: bool) -> None:
    net = nn.Dense(2)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        target = net.apply(params["target"], x)
        return ((net.apply(params["online"], x) - (target if wrong else jax.lax.stop_gradient(target))) ** 2).mean()

    params = {"online": net.init(KEY, X), "target": net.init(jax.random.key(1), X)}
    testing.assert_trained(loss, params, X, frozen="target")


@fault("dropout that is on at evaluation", "Linen", "assert_equal")
def dropout_on(wrong: bool) -> None:
    net = nn.Dropout(0.5, deterministic=not wrong)

    def evaluated(key: jax.Array) -> jax.Array:
        return net.apply({}, X, rngs={"dropout": key})

    testing.assert_equal(evaluated(jax.random.key(1)), evaluated(jax.random.key(2)))


@fault("layers of a scan that share their parameters", "Linen", "assert_golden")
def shared_layers(wrong: bool) -> None:
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: Any) -> Any:
            return jnp.tanh(nn.Dense(3)(x)), None

    def params_of(shared: bool) -> Any:
        axes: Any = {"variable_broadcast": "params"} if shared else {"variable_axes": {"params": 0}}
        layers = nn.scan(Layer, split_rngs={"params": not shared}, length=6, **axes)()
        return layers.init(KEY, X, None)["params"]

    with tempfile.TemporaryDirectory() as folder:
        golden = Path(folder) / "model.txt"
        testing.assert_golden(params_of(False), golden, update=True)
        testing.assert_golden(params_of(wrong), golden)


@fault("average that starts as the parameters themselves, donated", "Linen", "assert_donation_safe")
def donated_twice(wrong: bool) -> None:
    net = nn.Dense(2)
    params = net.init(KEY, X)

    def step(state: Any, x: jax.Array) -> Any:
        slopes = jax.grad(lambda p: (net.apply(p, x) ** 2).mean())(state["params"])
        new = jax.tree.map(lambda p, g: p - 0.1 * g, state["params"], slopes)
        return {"params": new, "average": jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, state["average"], new)}

    average = params if wrong else jax.tree.map(jnp.copy, params)
    testing.assert_donation_safe(step, {"params": params, "average": average}, X)


@fault("declared and not used: a bias that is not added", "Linen", "assert_trained")
def unused_bias(wrong: bool) -> None:
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = x @ self.param("kernel", nn.initializers.lecun_normal(), (3, 4))
            bias = self.param("bias", nn.initializers.zeros, (4,))
            return x if wrong else x + bias

    testing.assert_trained(Layer().apply, Layer().init(KEY, X), X)
