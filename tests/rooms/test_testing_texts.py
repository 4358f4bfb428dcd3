"""What each assertion says when it fails, word for word; `HERE` stands for a line of this file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.stateful import run_state_machine_as_test

import jscope as js
from jscope import testing

KEY = jax.random.key(0)
X = jnp.arange(6.0).reshape(2, 3)
# In CI hypothesis adds a line to its failures that reproduces them.
QUIET = settings(testing.profile, derandomize=True, database=None, print_blob=False)
HEAD = re.compile(r"(Failing test case|Falsifying example):( <state machine>)?")  # by version of hypothesis


def text_of(test: Callable[[], Any]) -> str:
    """The message, and what hypothesis adds to it."""
    with pytest.raises(AssertionError) as caught:
        test()
    told = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    return re.sub(r"/\S+?test_testing_texts\.py:\d+", "HERE", HEAD.sub("Hypothesis:", "\n".join(told)))


def test_equal() -> None:
    params = js.Params({"tower/kernel": jnp.ones((2, 3)), "tower/bias": jnp.zeros(3)})
    other = {"tower": {"kernel": jnp.ones((2, 3), jnp.bfloat16), "bais": jnp.zeros(3)}}
    assert text_of(lambda: testing.assert_equal(params, other)) == (
        "The trees differ in 3 leaves:\n"
        "  - ['tower/bias'] is only in the first (near it: ['tower/bais'])\n"
        "  - ['tower/kernel']: f32[2,3], then bf16[2,3]\n"
        "  - ['tower/bais'] is only in the second (near it: ['tower/bias'])"
    )
    assert text_of(lambda: testing.assert_equal([1, "a", KEY], [2, "a", jax.random.key(1)])) == (
        "The trees differ in 2 leaves:\n  - [0]: 1, then 2\n  - [2]: 1 of 2 elements differ, first at [1]: 0, then 1"
    )
    assert text_of(lambda: testing.assert_equal(jnp.zeros(2), -jnp.zeros(2))) == (
        "The trees differ in 1 leaf:\n  - 2 of 2 elements differ in sign, first at [0]: 0.0, then -0.0"
    )
    assert text_of(lambda: testing.assert_equal((1,), [1])) == (
        "The trees differ in 1 leaf:\n"
        "  - the leaves are the same, in other containers: PyTreeDef((*,)), then PyTreeDef([*])"
    )
    testing.assert_equal({"a": np.array([np.nan, 1])}, {"a": np.array([np.nan, 1])})


def test_close() -> None:
    assert text_of(lambda: testing.assert_close(X, X + 0.1, atol=0.01)) == (
        "The trees differ in 1 leaf, by more than 0.000345 of the largest number and 0.01:\n"
        "  - 6 of 6 elements differ, by 0.1 at most, at [0, 1]: 1.0, then 1.1"
    )
    assert text_of(lambda: testing.assert_close(X.at[1, 1].set(jnp.nan), X)) == (
        "The trees differ in 1 leaf, by more than 0.000345 of the largest number:\n"
        "  - 1 of 6 elements differ, first at [1, 1]: nan, then 4.0"
    )
    testing.assert_close(X, X + 1e-3)
    testing.assert_close(X, X + 0.4, rtol=0.1)


def test_numbers_of_python_are_compared_as_arrays_are() -> None:
    nan = float("nan")
    testing.assert_close({"loss": 1.0, "z": 1 + 1j}, {"loss": jnp.float32(1.001), "z": 1 + 1.001j}, rtol=1e-2)
    testing.assert_equal({"a": nan, "b": 0.1, "c": [1.0, 2]}, {"a": float("nan"), "b": np.float32(0.1), "c": [1.0, 2]})
    assert text_of(lambda: testing.assert_close({"loss": 1.0}, {"loss": 1.1})) == (
        "The trees differ in 1 leaf:\n  - ['loss']: 1 of 1 elements differ, by 0.1 at most, at []: 1.0, then 1.1"
    )
    for a, b in ((1, 2), (True, False), (1.0, 2), (1j, np.float32(1)), (1.0, np.ones(1))):
        text_of(lambda a=a, b=b: testing.assert_close(a, b, atol=5.0))
    text_of(lambda: testing.assert_equal(0.0, -0.0))


def test_what_leaves_hold_is_printable() -> None:
    class Hostile:
        def __repr__(self) -> str:
            return "\x1b[2J"

    first, second = (np.array([text, None], object) for text in ("\x1b[31m", "b"))
    assert text_of(lambda: testing.assert_equal([Hostile(), first], [1, second])) == (
        "The trees differ in 2 leaves:\n"
        "  - [0]: \\x1b[2J, then 1\n"
        "  - [1]: 1 of 2 elements differ, first at [0]: '\\x1b[31m', then 'b'"
    )
    texts = np.array(["a\x1b"]), np.array(["bc"])
    assert text_of(lambda: testing.assert_equal(*texts)).endswith("first at [0]: a\\x1b, then bc")


def test_functional() -> None:
    def drawn(x: jax.Array) -> jax.Array:
        return x + isinstance(x, jax.core.Tracer)

    kept: list[Any] = []
    assert text_of(lambda: testing.assert_functional(drawn, X)) == (
        "`drawn` is no function of its arguments: jitted, it gives something else:\n"
        "  - 6 of 6 elements differ, by 1 at most, at [0, 0]: 0.0, then 1.0"
    )
    assert text_of(lambda: testing.assert_functional(lambda x: kept.append(x), X)) == (
        "`<lambda>` is no function of its arguments: it keeps JitTracer(float32[2,3]) after the trace has ended "
        "(a global, an attribute or a default argument holds it)"
    )


def test_strict() -> None:
    def model(x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key) + jax.random.normal(key)
        return (x[:, :1] - y[:, 0]) * noise.astype(jnp.bfloat16)

    assert text_of(lambda: testing.assert_strict(model, X, X, KEY)) == (
        "`model` breaks 3 of the strict rules:\n"
        "  - key_reuse: KeyReuseError: In jit, argument 0 is already consumed\n"
        "  - outer_broadcast: (2, 1) and (2,) make (2, 2) (at HERE)\n"
        "  - dtype_promotion: bfloat16 and float32 are mixed (at HERE)"
    )
    testing.assert_strict(model, X, X, KEY, allow=["key_reuse", "outer_broadcast", "dtype_promotion"])
    with pytest.raises(
        js.BadArgumentError, match=r"There is no rule keys\.(?s:.*)Fix: allow some of key_reuse, outer_b"
    ):
        testing.assert_strict(model, X, X, KEY, allow=["keys"])


def test_trained() -> None:
    def loss(params: Any) -> jax.Array:
        return params["a"]["w"] * params["target"]

    params = {"a": {"w": jnp.ones([]), "v": jnp.ones([])}, "target": 2 * jnp.ones([])}
    assert text_of(lambda: testing.assert_trained(loss, params, frozen="target")) == (
        "`loss` does not train what it should:\n"
        "  - 'a/v' gets no gradient\n"
        "  - 'target' is frozen, and gets a gradient of 1 at most"
    )
    assert text_of(lambda: testing.assert_trained(lambda p: p["a"] ** 2, {"a": 1.0, "b": 2.0, "n": 3})) == (
        "`<lambda>` does not train what it should:\n  - 'b' gets no gradient"
    )
    with pytest.raises(js.BadArgumentError, match="No leaf of the tree has a derivative"):
        testing.assert_trained(lambda p: p["n"] ** 2, {"n": 3})


def test_gradients() -> None:
    @jax.custom_jvp
    def double(x: jax.Array) -> jax.Array:
        return 2 * x

    double.defjvp(lambda primals, tangents: (2 * primals[0], 3 * tangents[0]))
    text = text_of(lambda: testing.assert_gradients(double, jnp.ones([])))
    assert text.startswith("The derivatives of `double` are not those of its values:\n  - reverse mode: ")
    assert "\n  - forward mode: " in text
    assert "ifference" in text


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", b"w", ["w"], 3])
def test_what_is_no_pattern(pattern: Any) -> None:
    for call in (
        lambda: testing.assert_uses(lambda p: 2.0 * p["w"], {"w": X}, of=pattern),
        lambda: testing.assert_trained(lambda p: 2.0 * p["w"], {"w": X}, frozen=pattern),
    ):
        with pytest.raises(js.BadArgumentError, match="is not a regular expression"):
            call()


def test_a_name_of_no_leaf_is_a_fault() -> None:
    tree = {"encoder": {"w": jnp.ones([])}, "head": jnp.ones([])}

    def loss(p: Any) -> jax.Array:
        return p["encoder"]["w"] * p["head"]

    for call in (
        lambda name: testing.assert_trained(loss, tree, frozen=name),
        lambda name: testing.assert_uses(loss, tree, of=name),
    ):
        assert text_of(lambda call=call: call("encodr/w")) == "No leaf is called 'encodr/w'; near it: encoder/w."
        assert text_of(lambda call=call: call("x.*")) == "No leaf is called 'x.*'; there are encoder/w, head."


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: testing.assert_same_under(jnp.sin, X, stack="jit"), "stack='jit' is no Stack"),
        (lambda: testing.assert_causal(lambda x: x.sum(), X), r"result is an array of shape \(\), .* no axis 1"),
        (lambda: testing.assert_causal(lambda x: {"a": 1.0}, X), r"result\['a'\] is a float, .* no axis 1"),
        (lambda: testing.assert_causal(lambda x: x, X, axis=9), r"argument is .* \(2, 3\), which has no axis 9"),
        (lambda: testing.assert_causal(lambda x: x, X, axis=-3), "no axis -3"),
        (lambda: testing.assert_rows_independent(lambda x: x.mean(), X), "has no axis 0"),
        (lambda: testing.assert_rows_independent(lambda x: x, [X, jnp.ones([])]), "has no axis 0"),
        (lambda: testing.assert_masked(jnp.sum, X, [True, False, True]), r"shape \(3,\), .* \(2, 3\) does not start"),
        (lambda: testing.assert_masked(jnp.sum, X, jnp.zeros((2, 3, 1), bool)), "does not start with it"),
        (lambda: testing.assert_masked(jnp.sum, [1.0, 2.0], [True, False]), "The argument is no array but a list"),
        (lambda: testing.assert_causal(lambda x: x, X, axis=1.0), r"which has no axis 1\.0"),
        (lambda: testing.assert_drawn(X.astype(complex), stddev=1.0), r"c64\[2,3\] holds no real numbers"),
        (lambda: testing.assert_drawn({"k": KEY}, stddev=1.0), r"key<fry>\[\] holds no real numbers"),
        (lambda: testing.assert_drawn(np.array(["a"]), stddev=1.0), "holds no real numbers"),
        (lambda: testing.assert_donation_safe(jnp.sin, X, donate=(1,)), r"donate=\(1,\) are no positions of the 1"),
        (lambda: testing.assert_donation_safe(jnp.sin, X, donate=0), "donate=0 are no positions"),
    ],
)
def test_what_an_assertion_can_not_be_asked(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(js.BadArgumentError, match=words) as caught:
        call()
    assert caught.value.fix
    assert __file__ in caught.value.where


@pytest.mark.parametrize(
    ("function", "x", "what"),
    [
        (lambda x: x**2, 2.0, "No argument is an array of floats"),
        (lambda x: 2.0 * x, jnp.arange(3), "No argument is an array of floats"),
        (jnp.argmax, X, "No result is an array of floats"),
        (lambda x: (x**2).sum(), X.astype(jnp.bfloat16), "Differences of bfloat16 have too few digits"),
        (lambda x: (x**2).astype(jnp.float16), X, "Differences of float16 have too few digits"),
    ],
)
def test_gradients_of_what_has_none_to_compare(function: Any, x: Any, what: str) -> None:
    with pytest.raises(js.BadArgumentError, match=what):
        testing.assert_gradients(function, x)


def test_finite() -> None:
    def model(params: Any, x: jax.Array) -> Any:
        return {"loss": jnp.log(params["w"] * x), "norm": jnp.sqrt((x**2).sum())}

    assert text_of(lambda: testing.assert_finite(model, {"w": jnp.ones(3)}, x=jnp.array([1.0, 0.0, -1.0]))) == (
        "`model` is not finite:\n"
        "  - the result['loss']: 2 of 3 elements, first at [1]: -inf\n"
        "  - the gradient of argument 0['w']: 1 of 3 elements, first at [1]: nan\n"
        "  - the gradient of x: 1 of 3 elements, first at [1]: inf"
    )
    assert text_of(lambda: testing.assert_finite(lambda x: {"loss": x * float("inf")}, 4.0)) == (
        "`<lambda>` is not finite:\n  - the result['loss']: 1 of 1 elements, first at []: inf"
    )


def test_uses() -> None:
    def model(params: Any, x: jax.Array) -> jax.Array:
        hidden = jnp.tanh(x @ params["table"])
        return hidden @ jax.lax.stop_gradient(params["table"]).T

    params = {"table": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    assert text_of(lambda: testing.assert_uses(model, params, X, of="table", uses=3)) == (
        "`model` does not share what it should:\n"
        "  - 'table' is read in 2 places, not in 3:\n"
        "      dot_general at HERE\n"
        "      stop_gradient at HERE"
    )
    assert text_of(lambda: testing.assert_uses(model, params, X, of="table", uses=2)) == (
        "`model` does not share what it should:\n  - 'table' gets no gradient from stop_gradient at HERE"
    )
    assert text_of(lambda: testing.assert_uses(model, params, X, of="bias")) == (
        "`model` does not share what it should:\n  - 'bias' is not read at all"
    )
    assert text_of(lambda: testing.assert_uses(model, params, X, of="tabel")) == (
        "No leaf is called 'tabel'; near it: table."
    )


def tower(x: jax.Array, scope: str = "tower") -> jax.Array:
    with js.variable_scope(scope, reuse=js.AUTO_REUSE):
        return jnp.tanh(x @ js.get_variable("kernel", [3, 2]))


def test_shared() -> None:
    def misspelt(x: jax.Array) -> jax.Array:
        return tower(x) - tower(2 * x, "towr")

    def stopped(x: jax.Array) -> jax.Array:
        return tower(x) - jax.lax.stop_gradient(tower(2 * x))

    assert text_of(lambda: testing.assert_shared(misspelt, "tower", X, uses=2)) == (
        "'tower' is not shared by 2 uses:\n"
        "  - 'tower/kernel' is read 1 time (at HERE)\n"
        "      'towr/kernel' looks like a copy of it: f32[3,2] (made at HERE)"
    )
    assert text_of(lambda: testing.assert_shared(stopped, "tower", X, uses=2)) == (
        "'tower' is not shared by 2 uses:\n  - 'tower/kernel' gets no gradient from dot_general at HERE"
    )
    assert text_of(lambda: testing.assert_shared(misspelt, "towre", X, uses=2)) == (
        "There is no variable 'towre', nor one in a scope of that name; near it: towr, tower."
    )
    testing.assert_shared(stopped, "tower", X, uses=2, gradients=False)


def test_dependence() -> None:
    assert text_of(lambda: testing.assert_causal(lambda x: x - x[:, -1:], X)) == (
        "`<lambda>` is not causal:\n"
        "  - steps before 2 depend on later ones: 4 of 4 elements differ, by 6 at most, at [1, 0]: -2.0, then -8.0"
    )
    assert text_of(lambda: testing.assert_rows_independent(lambda x: x[::-1], X)) == (
        "The rows of `<lambda>` depend on each other:\n"
        "  - when row 0 changes: 3 of 3 elements differ, by 3 at most, at [0, 2]: 2.0, then 5.0"
    )
    assert text_of(lambda: testing.assert_masked(lambda x: x.sum(0), X, jnp.array([False, True]))) == (
        "`<lambda>` depends on what its mask leaves out:\n"
        "  - 3 of 3 elements differ, by 3 at most, at [2]: 7.0, then 10.0"
    )
    testing.assert_masked(lambda x: x[:, :1], X, jnp.array([False, True]))


def test_traces_of_another_number() -> None:
    calls = (X, 1, "a"), (X, 2, "a"), (X, True, "a")
    assert text_of(lambda: testing.assert_traces(lambda x, n, s: x * n, *calls, static_argnums=(1, 2))) == (
        "`<lambda>` is traced 3 times in 3 calls, not 1 time:\n"
        "  - call 1: arguments[1] was 1, is 2\n"
        "  - call 2: arguments[1] was a Python int, is a Python bool"
    )


def test_traces() -> None:
    def model(x: Any, scale: Any) -> Any:
        return x * scale

    assert text_of(lambda: testing.assert_traces(model, (X, 1.0), (X, jnp.ones([])), (X[:1], 1), (X[:1], 2))) == (
        "`model` is traced 3 times in 4 calls, not 1 time:\n"
        "  - call 1: arguments[1] was a Python float, is f32[]\n"
        "  - call 2: arguments[0] was f32[2,3], is f32[1,3], arguments[1] was f32[], is a Python int"
    )
    testing.assert_traces(model, (X, 1), (X, 2), traces=2, static_argnames="scale")


def test_donation() -> None:
    def drops(state: Any) -> Any:
        return {"w": state["w"].sum()}

    text = text_of(lambda: testing.assert_donation_safe(drops, {"w": X}))
    assert text == (
        "`drops` can't take the memory of its arguments:\n  - Some donated buffers were not usable: float32[2,3]."
    )


def test_drawn() -> None:
    assert text_of(lambda: testing.assert_drawn({"a": jnp.ones(400)}, stddev=1.0)) == (
        "The 400 values are not drawn as they should be:\n"
        "  - their mean is 1, not 0 (by 0.25 at most)\n"
        "  - their standard deviation is 0, not 1 (by 0.177 at most)"
    )


def test_round_trips() -> None:
    def lossy(tree: Any) -> Any:
        return tree.map_with_name(lambda name, leaf: leaf.astype(jnp.bfloat16))

    def fails(tree: Any) -> Any:
        raise OSError("the disk is full")

    params = js.Params({"a/w": X})
    assert text_of(lambda: testing.assert_round_trips(params, lossy)) == (
        "The tree does not survive lossy:\n  - ['a/w']: f32[2,3], then bf16[2,3]"
    )
    assert text_of(lambda: testing.assert_round_trips(params, fails)) == (
        "The tree does not survive fails: OSError: the disk is full"
    )


def test_arrays_and_trees_can_be_pasted() -> None:
    @given(x=testing.arrays((2,), jnp.float32), tree=testing.params(min_leaves=1, colliding=False))
    @settings(QUIET)
    def test(x: jax.Array, tree: js.Params) -> None:
        assert x[0] < 1

    assert text_of(test).endswith(
        "Hypothesis: test(\n    x=jnp.float32([1.0, 1.0]),\n    tree=js.Params({'w-': jnp.float32(0.0)}),\n)"
    )
    assert jnp.float32([1.0, 1.0]).dtype == jnp.float32


def test_a_training_loop_is_shown_as_its_steps_and_no_file_of_jscope() -> None:
    class Training(testing.TrainingMachine):
        @staticmethod
        def start(key: jax.Array) -> Any:
            return {"w": jnp.ones(2)}

        @staticmethod
        def step(state: Any, batch: Any) -> Any:
            return {"w": state["w"] / batch}

        def batches(self) -> Any:
            return testing.arrays((2,), jnp.float32)

    text = text_of(lambda: run_state_machine_as_test(Training, settings=QUIET))
    assert text == (
        "These are no longer finite:\n"
        "  - 'w'\n"
        "Hypothesis:\n"
        "state = Training()\n"
        "state.begin(seed=0)\n"
        "state.train(batch=jnp.float32([0.0, 0.0]))\n"
        "state.teardown()"
    )
