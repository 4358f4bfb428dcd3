"""Faults in programs of jscope."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import jscope as js
from jscope import testing

from . import fault

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 3))
Y = jax.random.normal(jax.random.key(2), (4, 3))
TOKENS = jnp.array([[0, 3, 1, 2], [2, 2, 4, 0]])


def tower(x: jax.Array, scope: Any = "tower", reuse: Any = js.AUTO_REUSE) -> jax.Array:
    with js.variable_scope(scope, reuse=reuse):
        kernel = js.get_variable("kernel", [x.shape[-1], 4])
        return jnp.tanh(x @ kernel + js.get_variable("bias", [4], initializer=js.zeros_initializer()))


@fault("misspelt scope under AUTO_REUSE", "jscope", "assert_shared", quick=True)
def misspelt_scope(wrong: bool) -> None:
    def distance(a: jax.Array, b: jax.Array) -> jax.Array:
        return ((tower(a) - tower(b, "towr" if wrong else "tower")) ** 2).sum(-1)

    testing.assert_shared(distance, "tower", X, Y, uses=2)


@fault("reuse forgotten: a default name makes tower_1", "jscope", "assert_shared")
def reuse_forgotten(wrong: bool) -> None:
    def shared(x: jax.Array) -> jax.Array:
        if not wrong:
            return tower(x)
        with js.variable_scope(None, "tower"):
            return jnp.tanh(x @ js.get_variable("kernel", [3, 4]) + js.get_variable("bias", [4]))

    testing.assert_shared(lambda a, b: shared(a) - shared(b), "tower", X, Y, uses=2)


def language_model(tokens: jax.Array, tie: str) -> jax.Array:
    with js.variable_scope("embedding", reuse=js.AUTO_REUSE):
        x = js.get_variable("table", [5, 4])[tokens]
    with js.variable_scope("body"):
        x = jnp.tanh(x @ js.get_variable("kernel", [4, 4]))
    with js.variable_scope("output" if tie == "split" else "embedding", reuse=js.AUTO_REUSE):
        table = js.get_variable("table", [5, 4])
    return x @ (jax.lax.stop_gradient(table) if tie == "stopped" else table).T


@fault("table of the output untied", "jscope", "assert_shared")
def split_tie(wrong: bool) -> None:
    net = js.transform(lambda tokens: language_model(tokens, "split" if wrong else "tied"))
    testing.assert_shared(net, "embedding/table", TOKENS, uses=2)


@fault("tie stopped by stop_gradient", "jscope", "assert_shared")
def stopped_tie(wrong: bool) -> None:
    net = js.transform(lambda tokens: language_model(tokens, "stopped" if wrong else "tied"))
    testing.assert_shared(net, "embedding/table", TOKENS, uses=2)


@fault("other stddev of an initializer", "jscope", "assert_golden", quick=True)
def other_stddev(wrong: bool) -> None:
    def program(stddev: float) -> None:
        with js.variable_scope("encoder", initializer=js.truncated_normal_initializer(stddev=stddev)):
            js.get_variable("kernel", [3, 4])

    with tempfile.TemporaryDirectory() as folder:
        golden = Path(folder) / "model.txt"
        testing.assert_golden(js.transform(program).specs(0.02), golden, update=True)
        testing.assert_golden(js.transform(program).specs(0.2 if wrong else 0.02), golden)


@fault("scope captured too late", "jscope", "assert_golden")
def captured_too_late(wrong: bool) -> None:
    def program(late: bool) -> None:
        with js.variable_scope("model") as model, js.variable_scope("encoder"):
            js.get_variable("kernel", [3, 4])
            captured = js.get_variable_scope() if late else model
        with js.variable_scope(captured), js.variable_scope("decoder"):
            js.get_variable("kernel", [4, 3])

    with tempfile.TemporaryDirectory() as folder:
        golden = Path(folder) / "model.txt"
        testing.assert_golden(js.transform(program).specs(False), golden, update=True)
        testing.assert_golden(js.transform(program).specs(wrong), golden)


@fault("initializer that counts its calls", "jscope", "assert_order_independent", quick=True)
def order_dependent(wrong: bool) -> None:
    def program(names: str) -> None:
        for i, name in enumerate(names):
            seed = i if wrong else 0
            js.get_variable(name, [3], initializer=js.constant_initializer(seed))

    net = js.transform(program)
    testing.assert_order_independent(net.specs("ab"), net.specs("ba"))


@fault("float32 variable in a bfloat16 model", "jscope", "assert_strict")
def dtype_slip(wrong: bool) -> None:
    def program(x: jax.Array) -> jax.Array:
        with js.variable_scope("body", dtype=jnp.bfloat16):
            x = x @ js.get_variable("kernel", [3, 3])
            return x * js.get_variable("scale", [3], jnp.float32 if wrong else None)

    net = js.transform(program)
    testing.assert_strict(net.apply, net.init(KEY, X.astype(jnp.bfloat16)), X.astype(jnp.bfloat16))


@fault("two dropouts of one key", "jscope", "assert_strict")
def key_reuse(wrong: bool) -> None:
    def program(x: jax.Array) -> jax.Array:
        key = js.next_key()
        x = x * jax.random.bernoulli(key, 0.5, x.shape)
        return tower(x) * jax.random.bernoulli(key if wrong else js.next_key(), 0.5, (4, 4))

    net = js.transform(program)
    testing.assert_strict(net.apply, net.init(KEY, X), X, rng=KEY)


@fault("target network without stop_gradient", "jscope", "assert_trained")
def missing_stop(wrong: bool) -> None:
    def loss(x: jax.Array) -> jax.Array:
        target = tower(x, "target")
        return ((tower(x, "online") - (target if wrong else jax.lax.stop_gradient(target))) ** 2).mean()

    net = js.transform(loss)
    params = net.init(KEY, X)
    testing.assert_trained(net.apply, params, X, frozen="target")


@fault("attention mask off by one", "jscope", "assert_causal")
def not_causal(wrong: bool) -> None:
    def attend(x: jax.Array) -> jax.Array:
        query, key, value = (x @ js.get_variable(name, [3, 3]) for name in ("query", "key", "value"))
        scores = jnp.einsum("btd,bsd->bts", query, key)
        steps = jnp.arange(x.shape[1])
        seen = steps[None, :] <= steps[:, None] + (1 if wrong else 0)
        return jnp.einsum("bts,bsd->btd", jax.nn.softmax(jnp.where(seen, scores, -1e9)), value)

    net = js.transform(attend)
    x = jax.random.normal(KEY, (2, 5, 3))
    params = net.init(KEY, x)
    testing.assert_causal(lambda x: net.apply(params, x), x)


@fault("statistics of the batch at evaluation", "jscope", "assert_rows_independent")
def batch_statistics(wrong: bool) -> None:
    def program(x: jax.Array, training: bool) -> jax.Array:
        mean = js.get_variable("mean", [3], initializer=js.zeros_initializer(), trainable=False)
        if training or wrong:
            mean = js.assign(mean, 0.9 * mean + 0.1 * x.mean(0))
        return x - mean

    net = js.transform(program)
    params = net.init(KEY, X, False)
    testing.assert_rows_independent(lambda x: net.update(params, x, False)[0], X)


@fault("counter in Python inside a program", "jscope", "assert_pure")
def python_counter(wrong: bool) -> None:
    steps: list[int] = []

    def program(x: jax.Array) -> jax.Array:
        steps.append(1)
        return tower(x) * (0.9 ** len(steps) if wrong else 0.9)

    testing.assert_pure(program, js.transform(program).init(KEY, X), X)


@fault("average over the first parameters, not the new ones", "jscope", "TrainingMachine")
def stale_average(wrong: bool) -> None:
    net = js.transform(lambda x: (tower(x) ** 2).mean())
    first = net.init(KEY, X)

    class Training(testing.TrainingMachine):
        @staticmethod
        def start(key: jax.Array) -> Any:
            return {"params": first, "average": first}

        @staticmethod
        def step(state: Any, batch: jax.Array) -> Any:
            slopes = jax.grad(net.apply)(state["params"], batch)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, state["params"], slopes)
            source = first if wrong else params
            return {
                "params": params,
                "average": jax.tree.map(lambda a, p: 0.5 * a + 0.5 * p, state["average"], source),
            }

        def batches(self) -> Any:
            return testing.arrays((4, 3), jnp.float32)

        def check(self, state: Any) -> None:
            if len(self.history) == 1:
                between = jax.tree.map(lambda a, b: (a + b) / 2, first, state["params"])
                testing.assert_close(state["average"], between, rtol=1e-6)

    run_machine(Training)


def run_machine(machine: Any) -> None:
    """Runs a state machine as pytest would."""
    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test

    # In CI hypothesis adds lines to a failure, which are counted here.
    quiet = settings(testing.profile, database=None, derandomize=True, print_blob=False, max_examples=15)
    run_state_machine_as_test(machine, settings=quiet)
