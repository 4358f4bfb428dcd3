"""What draws initial values is compiled ahead, once for each kind, in threads that do not outlive the call."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations

import jscope as js
from jscope._initial_values import Drawers

KEY = jax.random.key(0)
_sizes = itertools.count(1001)  # each test draws kinds that no other test has compiled


def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("jscope")]


def assert_same_bits(one, other):
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def of_the_users_own(key, shape, dtype):
    return jax.random.normal(key, shape, dtype) / 2


def of_kinds(count, *, ends=lambda x: None, initializer=None):
    """A program with two variables of each of so many kinds that nobody has drawn, and what it is called with."""
    sizes = list(itertools.islice(_sizes, count))

    def program(x):
        for size in sizes:
            js.get_variable(f"a{size}", [size], initializer=initializer or js.random_normal_initializer())
            js.get_variable(f"b{size}", [size], initializer=initializer or js.random_normal_initializer())
        ends(x)

    return js.transform(program), jnp.ones(2)


@pytest.mark.parametrize("initializer", [None, of_the_users_own], ids=["of jscope", "the user's own"])
def test_each_kind_is_compiled_once_in_a_thread_of_its_own(initializer):
    net, x = of_kinds(3, initializer=initializer)
    with compilations() as first:
        params = net.init(KEY, x)
    assert len(first) == 3
    assert all(name.startswith("jscope") for name in first)
    assert not ours()
    with compilations() as later:
        assert net.init(KEY, x) == params
        assert net.specs(x).init(KEY) == params
    assert later == []


@pytest.mark.parametrize(("holds_a_table", "times"), [(False, 1), (True, 2)], ids=["draws", "holds a table"])
def test_a_users_own_is_called_once_by_init_unless_it_holds_a_table(holds_a_table, times):
    """A table would be held for each variable from when it is declared until it is drawn."""
    size, called = next(_sizes), []
    table = np.arange(size, dtype=np.float32)

    def initializer(key, shape, dtype):
        called.append(shape)
        return jax.random.normal(key, shape, dtype) + (jnp.asarray(table) if holds_a_table else 0)

    def program():
        js.get_variable("a", [size], initializer=initializer)
        js.get_variable("b", [size], initializer=initializer)

    net = js.transform(program)
    params = net.init(KEY)
    assert len(called) == 2 * times
    with js.build(KEY) as built:
        program()
    assert_same_bits(params, built.params)
    assert_same_bits(params, net.specs().init(KEY))
    assert_same_bits(params, jax.jit(net.init)(KEY))
    assert not np.array_equal(params["a"], params["b"])


def test_what_was_traced_with_wider_numbers_is_not_drawn_without_them():
    def initializer(key, shape, dtype):
        return jax.random.normal(key, shape).astype(dtype)

    def program():
        with jax.enable_x64(not jax.config.read("jax_enable_x64")):
            return js.get_variable("w", [size], initializer=initializer)

    size, net = next(_sizes), js.transform(program)
    assert_same_bits(net.init(KEY), net.specs().init(KEY))


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")
@pytest.mark.parametrize("initializer", [js.random_normal_initializer(), of_the_users_own])
def test_a_wide_variable_of_a_program_that_widens_numbers_for_itself_is_refused(initializer):
    def program():
        with jax.enable_x64(True):
            return js.get_variable("w", [3], jnp.float64, initializer)

    with pytest.raises(js.InitializerError, match="which is off where its value is drawn"):
        js.transform(program).init(KEY)
    with jax.enable_x64(True):
        assert js.transform(program).init(KEY)["w"].dtype == jnp.float64


def test_specs_init_compiles_in_threads_too_and_specs_nothing():
    net, x = of_kinds(3)
    with compilations() as none:
        specs = net.specs(x)
    assert none == []
    with compilations() as found:
        specs.init(KEY)
    assert len(found) == 3
    assert all(name.startswith("jscope") for name in found)
    assert not ours()


def test_compiling_begins_while_the_program_runs():
    began = threading.Event()
    net, x = of_kinds(1, ends=lambda x: began.wait(60) or pytest.fail("nothing was compiled in a minute"))

    def note_thread(event, seconds, **kwargs):
        if threading.current_thread().name.startswith("jscope"):
            began.set()

    jax.monitoring.register_event_duration_secs_listener(note_thread)
    net.init(KEY, x)


def test_the_values_are_those_of_single_draws():
    net, x = of_kinds(2)
    params = net.init(KEY, x)
    specs = net.specs(x)
    assert params == {name: spec.initial_value(KEY) for name, spec in specs.items()}
    assert params == jax.jit(net.init)(KEY, x)


@pytest.mark.parametrize(
    "settings",
    [
        lambda: jax.enable_x64(True),
        lambda: jax.default_matmul_precision("highest"),
        lambda: jax.default_device(jax.devices("cpu")[0]),
        jax.checking_leaks,
    ],
    ids=["x64", "precision", "device", "leaks"],
)
def test_what_is_compiled_ahead_is_what_is_drawn_under_any_settings(settings):
    net, x = of_kinds(2)
    with settings():
        with compilations() as found:
            params = net.init(KEY, x)
        assert len(found) == 2
        assert params == {name: spec.initial_value(KEY) for name, spec in net.specs(x).items()}


def test_other_settings_later():
    net, x = of_kinds(1)
    params = net.init(KEY, x)
    with jax.enable_x64(True):
        assert net.init(KEY, x) == params


@pytest.mark.parametrize("transform", ["jit", "scan", "checkpoint", "cond"])
def test_variables_made_in_inner_traces(transform):
    size = next(_sizes)

    def body(x):
        return x + js.get_variable("w", [size], initializer=js.random_normal_initializer())

    def program(x):
        return {
            "jit": lambda: jax.jit(body)(x),
            "scan": lambda: jax.lax.scan(lambda x, _: (body(x), None), x, None, length=2)[0],
            "checkpoint": lambda: jax.checkpoint(body)(x),
            "cond": lambda: jax.lax.cond(True, body, lambda x: x, x),
        }[transform]()

    net = js.transform(program)
    x = jnp.zeros(size)
    with compilations() as found:
        net.init(KEY, x)
    assert len(found) == 1


def test_a_program_inside_a_program():
    size = next(_sizes)
    inner = js.transform(lambda: js.get_variable("w", [size], initializer=js.random_normal_initializer()))
    with compilations() as found, js.bind({}):
        inner.init(KEY)
    assert len(found) == 1


def test_a_warm_start_inside_a_program():
    net, x = of_kinds(1)
    kept = {name: jnp.zeros(spec.shape) for name, spec in net.specs(x).items()}
    kept.popitem()
    with compilations() as found, js.bind({}):
        net.init(KEY, x, warm_start=kept)
    assert [name for name in found if name.startswith("jscope")] == found[-1:]


def test_traced_keys_start_no_thread(monkeypatch):
    net, x = of_kinds(2)
    monkeypatch.setattr("jscope._initial_values.ThreadPoolExecutor", None)
    jax.eval_shape(net.init, KEY, x)
    jax.jit(net.init)(KEY, x)
    jax.vmap(net.init, in_axes=(0, None))(jax.random.split(KEY, 2), x)
    with jax.disable_jit():
        net.init(KEY, x)


def test_what_is_kept_is_not_compiled():
    net, x = of_kinds(2)
    kept = {name: jnp.zeros(spec.shape) for name, spec in net.specs(x).items()}
    missing = kept.popitem()[0]
    with compilations() as found:
        params = net.init(KEY, x, warm_start=kept)
    assert sum(name.startswith("jscope") for name in found) == 1
    assert params[missing].any()


def test_a_program_that_fails_leaves_no_thread():
    net, x = of_kinds(3, ends=lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        net.init(KEY, x)
    assert not ours()


def test_what_was_not_compiled_in_the_end_is_compiled_the_next_time():
    fails = [True]
    net, x = of_kinds(6, ends=lambda x: 1 / 0 if fails else None)
    with compilations() as found:
        with pytest.raises(ZeroDivisionError):
            net.init(KEY, x)
        fails.clear()
        net.init(KEY, x)
    assert len(found) == 6
    assert all(name.startswith("jscope") for name in found)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("when", ["threading.Thread(target=late).start()", "atexit.register(init)"])
def test_where_no_thread_can_start_any_more(when):
    code = f"""
import atexit, threading, jax, jscope as js
net = js.transform(lambda: js.get_variable("w", [31, 7], initializer=js.random_normal_initializer()))
def init(): print(net.init(jax.random.key(0)))
def late(): threading.main_thread().join(); init()
{when}
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert out.stdout == "Params({w: f32[31,7]})\n", out.stderr


def test_too_many_threads(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    net, x = of_kinds(2)
    monkeypatch.setattr(threading.Thread, "start", start)
    with compilations() as found:
        net.init(KEY, x)
    assert len(found) == 2


def test_an_initializer_that_fails_when_it_is_compiled_fails_in_the_draw():
    def fails(key, shape, dtype):
        raise ValueError("no values today")

    with Drawers(KEY) as drawers:
        drawers.expect(fails, (2,), jnp.dtype("float32"))
        with pytest.raises(ValueError, match="no values today"):
            drawers.draw(fails, (2,), jnp.dtype("float32"), "w")


def test_initializers_that_may_do_something_else_each_time_are_left_to_the_draw():
    calls = []

    def initializer(key, shape, dtype):
        calls.append(threading.current_thread().name)
        return jnp.ones(shape, dtype)

    js.transform(lambda: js.get_variable("w", [next(_sizes)], initializer=initializer)).init(KEY)
    assert set(calls) == {threading.current_thread().name}
