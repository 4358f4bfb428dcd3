"""Loop bodies that JAX traces twice, because their carry changes its type: as if they were traced once, or refused."""

from __future__ import annotations

import functools
import sys

import jax
import jax.numpy as jnp
import pytest

import jscope as js

KEY = jax.random.key(0)
WEAK = 1  # a carry that starts as a Python integer, and is a float32 from the first turn on


def scan(body, x):
    return jax.lax.scan(lambda carry, _: (body(carry), None), x, None, length=2)[0]


def fori_loop(body, x):
    return jax.lax.fori_loop(0, 2, lambda _, carry: body(carry), x)


def while_loop(body, x):
    return jax.lax.while_loop(lambda state: state[0] < 2, lambda state: (state[0] + 1, body(state[1])), (0, x))[1]


def nested(body, x):
    return scan(lambda x: while_loop(jax.checkpoint(body), x), x)


@pytest.fixture(params=[scan, fori_loop, while_loop, nested])
def loop(request):
    return request.param


@pytest.fixture
def traces(loop):
    """How often JAX traces the body: the premise of these tests."""
    count = []
    loop(lambda x: count.append(1) or jnp.float32(2) * x, WEAK)
    assert len(count) > 1
    return len(count)


def test_keys_count_as_if_it_were_traced_once(loop, traces):
    def keys(x):
        first = js.next_key()
        inside = []

        def body(x):
            inside.append(js.next_key())
            return x + jnp.float32(1)

        def plain(x):
            js.next_key()
            return x

        loop(body, x) if traced else plain(x)
        assert len(inside) >= (traces if traced else 0)
        return jax.random.key_data(first), jax.random.key_data(js.next_key())

    net = js.transform(keys)
    got = []
    for traced in (True, False):  # noqa: B007 (the program reads it)
        got.append(net.apply({}, WEAK, rng=KEY))
    (first, last), (same_first, same_last) = got
    assert (first == same_first).all()
    assert (last == same_last).all()
    assert (first != last).any()


def test_sharing_by_name(loop, traces):
    def body(x):
        with js.variable_scope("a", reuse=js.AUTO_REUSE):
            w = js.get_variable("w", [], regularizer=lambda w: w)
            n = js.get_variable("n", [], trainable=False, initializer=js.zeros_initializer())
        js.assign(n, n + 1)
        return x * w

    def program(x):
        y = loop(body, x)
        return y, js.get_regularization_losses(), [v.name for v in js.trainable_variables()]

    net = js.transform(program)
    assert list(net.specs(WEAK)) == ["a/w", "a/n"]
    turns = 4 if loop is nested else 2
    (y, losses, names), after = net.update({"a": {"w": jnp.float32(3), "n": jnp.float32(0)}}, WEAK)
    assert (y, losses, names) == (3.0**turns, [3], ["a/w"])
    assert after["a/n"] == turns


def test_making_without_reuse_names_the_second_trace(loop, traces):
    net = js.transform(lambda x: loop(lambda x: x * js.get_variable("w", []), x))
    for call in (net.specs, functools.partial(net.apply, {"w": 3.0})):
        with pytest.raises(js.VariableExistsError) as caught:
            call(WEAK)
        assert "traced twice" in caught.value.fix
        assert "test_passes.py" in caught.value.where


def defaults(x):
    with js.variable_scope(None, "d"):
        return x * js.get_variable("w", [])


def unshared(x):
    return x * js.variable(3.0, name="v")


def collects(x):
    js.add_to_collection("seen", "it")
    return x * jnp.float32(3)


def templates(x):
    return js.make_template("t", lambda x: x * js.get_variable("w", []))(x)


@pytest.mark.parametrize("body", [defaults, unshared, collects, templates])
@pytest.mark.parametrize("loop", [scan, fori_loop, while_loop])
def test_what_would_be_done_twice_is_refused(loop, body):
    net = js.transform(lambda x: loop(body, x))
    with pytest.raises(js.TransformError, match="a second time") as caught:
        net.specs(WEAK)
    assert "test_passes.py" in caught.value.where
    specs = net.specs(jnp.float32(WEAK))
    params = {name: jnp.float32(3) for name in specs}
    assert net.apply(params, jnp.float32(WEAK)) == 9


def test_functions_of_one_code_are_not_taken_for_a_second_trace():
    """Both functions of the loop come out of one `def`: it must not be taken for one body that runs twice."""

    def make(last):
        def function(state):
            with js.variable_scope(None, "d"):
                w = js.get_variable("w", [])
            return last(state, w)

        return function

    def program(x):
        step = make(lambda state, w: (state[0] + 1, state[1] * w))
        return jax.lax.while_loop(make(lambda state, w: state[0] < w), step, (0, x))[1]

    net = js.transform(program)
    assert list(net.specs(jnp.float32(1))) == ["d/w", "d_1/w"]
    assert net.apply({"d/w": jnp.float32(2), "d_1/w": jnp.float32(5)}, jnp.float32(1)) == 25


def test_without_jit_each_turn_is_a_run_of_its_own():
    """Under disable_jit, JAX calls the body once for each turn, and what is traced in it is traced each time."""

    def program(x):
        with js.variable_scope("a", reuse=js.AUTO_REUSE):
            return scan(lambda x: jax.vmap(keyed)(x[None])[0], x)

    keys = []

    def keyed(x):
        keys.append(jax.random.key_data(js.next_key()))
        return x * jnp.float32(2)

    with jax.disable_jit():
        assert js.transform(program).apply({}, jnp.float32(1), rng=KEY) == 4
    assert len(keys) == 2
    assert (keys[0] != keys[1]).any()


def test_a_debugger_sees_what_it_would_see_without():
    """The tags that tell frames apart take the place of trace functions, where there are none."""
    lines = []

    def trace(frame, event, argument):
        if frame.f_code.co_name == "debugged":
            lines.append(event)
        return trace

    def debugged(x):
        return x * js.get_variable("w", [])

    net = js.transform(lambda x: scan(debugged, x))
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        out = net.apply({"w": jnp.float32(3)}, jnp.float32(1))
    finally:
        sys.settrace(before)
    assert out == 9
    assert lines[0] == "call"
    assert lines[-1] == "return"
    assert "line" in lines


def test_nothing_that_a_loop_holds_is_kept_alive(loop):
    net = js.transform(lambda x: loop(lambda x: x * js.get_variable("w", []) + jax.random.uniform(js.next_key()), x))
    with jax.checking_leaks():
        net.specs(jnp.float32(1))
        jax.jit(lambda x: net.apply({"w": jnp.float32(3)}, x, rng=KEY))(jnp.float32(1))
