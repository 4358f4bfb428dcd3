"""Transforms as data: they change nothing, they shrink, they read as plain JAX, and 2,000 of them agree with eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import find, given, settings

import jscope as js
from jscope import testing
from jscope.testing import Stack, assert_same_under, stacks

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (3, 4))


def tower(x: jax.Array) -> jax.Array:
    with js.variable_scope("tower", reuse=js.AUTO_REUSE):
        return jnp.tanh(x @ js.get_variable("kernel", [4, 2]))


def distance(a: jax.Array, b: jax.Array) -> jax.Array:
    return ((tower(a) - tower(b)) ** 2).sum(-1)


def scanned(x: jax.Array) -> jax.Array:
    def turn(carry: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
        return jnp.tanh(carry + row @ js.get_variable("kernel", [4, 4])), None

    return jax.lax.scan(turn, jnp.zeros(4), x)[0]


def noisy(x: jax.Array) -> jax.Array:
    return x * jax.random.bernoulli(js.next_key(), 0.5, x.shape)


def checkpointed(x: jax.Array) -> jax.Array:
    for i in range(2):
        with js.variable_scope(f"layer_{i}"):
            x = jax.checkpoint(lambda x: jnp.sin(x @ js.get_variable("kernel", [4, 4])))(x)
    return x


def counting(x: jax.Array) -> jax.Array:
    count = js.get_variable("count", [], initializer=js.zeros_initializer(), trainable=False)
    return x + js.assign(count, count + 1)


def program(function: Callable[..., Any], *args: Any, method: str = "apply", **kwargs: Any) -> tuple[Any, ...]:
    net = js.transform(function)
    return getattr(net, method), (net.init(KEY, *args), *args), kwargs


def plain(function: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    return function, args, {}


@jax.custom_vjp
def clipped(x: jax.Array) -> jax.Array:
    return x


clipped.defvjp(lambda x: (x, x), lambda x, g: (jnp.clip(g, -0.1, 0.1),))

# name -> (function, arguments, keywords, names of transforms that JAX can't do to it)
FUNCTIONS: dict[str, tuple[tuple[Any, ...], set[str]]] = {
    "a shared tower": (program(distance, X, 2 * X), set()),
    "a scan": (program(scanned, X), set()),
    "dropout": (program(noisy, X, rng=KEY), set()),
    "checkpointed layers": (program(checkpointed, X), set()),
    "an assignment": (program(counting, X, method="update"), set()),
    "a dense layer": (program(lambda x: js.get_variable("w", [4, 4])[:2] @ x.T, X), set()),
    "sorting": (plain(jnp.sort, X), set()),
    "integers": (plain(lambda i: jnp.cumsum(i) % 5, jnp.arange(6)), set()),
    "bools": (plain(lambda x: x > 0, X), set()),
    "a text among the results": (plain(lambda x: {"y": jnp.sin(x), "kind": "sine"}, X), set()),
    "no arguments": (plain(lambda: jnp.arange(3.0)), set()),
    "keys": (plain(lambda key: jax.random.normal(key, (3,)), KEY), set()),
    "softmax": (plain(jax.nn.softmax, X), set()),
    "a norm": (plain(lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), X), set()),
    "a while loop": (
        plain(lambda x: jax.lax.while_loop(lambda v: v.sum() < 9, lambda v: 2 * v, jnp.abs(x)), X),
        {"grad"},
    ),
    "a branch": (plain(lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), X), set()),
    "a reverse rule": (plain(clipped, X), {"jvp"}),
    "bfloat16": (plain(lambda x: (x @ x.T).sum(), X.astype(jnp.bfloat16)), set()),
    "complex numbers": (plain(lambda x: jnp.abs(x * (1 + 2j)), X), set()),
    "an inverse": (plain(lambda x: jnp.linalg.inv(x @ x.T + jnp.eye(3)), X), set()),
}


def check(name: str, stack: Stack) -> None:
    (function, args, kwargs), limits = FUNCTIONS[name]
    if not limits & set(stack.names):
        assert_same_under(function, *args, stack=stack, **kwargs)


@pytest.mark.parametrize("name", ["a text among the results"])
def test_a_function_is_the_same_under_few_stacks(name: str) -> None:
    @given(stack=stacks())
    @settings(testing.profile, max_examples=5, derandomize=True, database=None)
    def test(stack: Stack) -> None:
        check(name, stack)

    test()


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_the_same_under_a_hundred_stacks(name: str) -> None:
    tried: list[Stack] = []

    @given(stack=stacks(max_size=4))
    @settings(testing.profile, max_examples=100, derandomize=True, database=None)
    def test(stack: Stack) -> None:
        tried.append(stack)
        check(name, stack)

    test()
    jax.clear_caches()
    assert len(tried) >= 100


@pytest.mark.parametrize("name", ["a while loop", "a reverse rule"])
def test_what_jax_can_not_do_is_told_as_such(name: str) -> None:
    (function, args, kwargs), limits = FUNCTIONS[name]
    with pytest.raises((ValueError, TypeError)):
        assert_same_under(function, *args, stack=Stack(*limits), **kwargs)


def test_a_planted_fault_shrinks_to_one_transform() -> None:
    def traced_twice(x: jax.Array) -> jax.Array:
        return x + isinstance(x, jax.core.Tracer)

    @given(stack=stacks())
    @settings(testing.profile, derandomize=True, database=None)
    def test(stack: Stack) -> None:
        assert_same_under(traced_twice, X, stack=stack)

    with pytest.raises(AssertionError) as caught:
        test()
    assert str(caught.value).startswith("`traced_twice` gives something else under Stack('jit'):\n")
    assert caught.value.__notes__[0].endswith(": test(\n    stack=Stack('jit'),\n)")


def test_a_slope_of_complex_numbers_is_compared() -> None:
    def turned(x: jax.Array) -> jax.Array:
        is_batched = type(x).__name__ == "BatchTracer"
        return 1j * (jax.lax.stop_gradient(x) if is_batched else x)

    assert_same_under(lambda x: 1j * jnp.sin(x), X, stack=Stack("grad", "vmap"))
    with pytest.raises(AssertionError, match="derivative "):
        assert_same_under(turned, X, stack=Stack("grad", "vmap"))


def test_a_fault_that_needs_two_transforms_shrinks_to_two() -> None:
    fault = find(stacks(), lambda stack: "grad" in stack.names and "scan" in stack.names[stack.names.index("grad") :])
    assert fault == Stack("grad", "scan")


def test_a_stack_reads_as_plain_jax() -> None:
    stack = Stack("grad", "vmap", "scan")
    namespace: dict[str, Any] = {"f": lambda x: [jnp.sin(x)]}
    exec("import jax, jax.numpy as jnp, numpy as np\n" + stack.code(), namespace)
    value, slope = namespace["f"](X)
    found, (found_slope,) = stack(jnp.sin)(X)
    testing.assert_close([value, slope], [found, found_slope])
    assert eval(repr(stack), {"Stack": Stack}) == stack


def test_an_unknown_transform_is_refused() -> None:
    with pytest.raises(
        js.BadArgumentError, match=r"There is no transform 'pmap'\.(?s:.*)Fix: take some of jit, checkp"
    ):
        Stack("pmap")


def test_transforms_can_be_chosen() -> None:
    drawn: set[str] = set()

    @given(stack=stacks(transforms=["jit", "grad"], derivatives=False, max_size=2))
    @settings(max_examples=20, database=None)
    def collect(stack: Stack) -> None:
        drawn.update(stack.names)

    collect()
    assert drawn == {"jit"}


def test_what_is_not_the_same_twice_is_told_first() -> None:
    calls: list[int] = []

    def counts(x: jax.Array) -> jax.Array:
        calls.append(1)
        return x + len(calls)

    with pytest.raises(AssertionError, match="`counts` gives something else when it is called again:"):
        assert_same_under(counts, X)


def test_what_can_not_be_traced_is_told_with_its_line() -> None:
    def branches(x: jax.Array) -> jax.Array:
        return x if x.sum() > 0 else -x

    with pytest.raises(
        AssertionError, match=r"`branches` can't run under Stack\('jit'\): .* \(at .*test_testing_stacks"
    ):
        assert_same_under(branches, X)
