"""Scripts of abstract runs: later `specs` and `init` give what a first one would."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_programs import Runs, X, inserted, programs, shared, written

import jscope as js
from jscope._script import NEVER, Script

few = settings(max_examples=25, deadline=None)
KEY = jax.random.key(0)


def follows(net):
    """Whether the next abstract run follows the last one."""
    return [type(known.script) for known in net._known.values()] == [Script]


def every_field(specs):
    fields = [field.name for field in dataclasses.fields(js.VariableSpec) if field.name != "initializer"]
    return [[*(getattr(spec, field) for field in fields), repr(spec.initializer)] for spec in specs.values()]


def declared(runs, ops):
    """All that is declared, and what the program saw of its calls."""
    return every_field(runs.specs(ops)), runs.player.seen


@few
@given(st.lists(written, max_size=4).map(shared), programs, st.integers(0, 12), st.booleans())
def test_declarations_that_leave_the_script(ops, new, place, stops):
    other = inserted(ops, [*new, ("stop",)] if stops else new, place)[0]
    runs, first = Runs(), declared(Runs(), ops)
    assert [declared(runs, ops) for _ in range(3)] == [first] * 3
    assert declared(runs, other) == declared(Runs(), other)
    assert declared(runs, ops) == first


@few
@given(programs, programs)
def test_declarations_of_any_programs(ops, other):
    runs, first = Runs(), declared(Runs(), ops)
    assert [declared(runs, ops) for _ in range(3)] == [first] * 3
    assert [declared(runs, other) for _ in range(2)] == [declared(Runs(), other)] * 2
    assert declared(runs, ops) == first


def mlp(x):
    with js.variable_scope("layer"):
        x = x @ js.get_variable("w", [2, 2])
    with js.variable_scope("layer", reuse=True):
        x = x @ js.get_variable("w")
    return x + js.get_variable("b", [2], initializer=js.ones_initializer(), trainable=False)


def test_declarations_are_followed_from_the_third_run_on():
    net = js.transform(mlp)
    net.specs(X)
    assert not follows(net)
    first = net.init(KEY, X)
    assert follows(net)
    (known,) = net._known.values()
    for _ in range(2):
        again = net.init(KEY, X)
        assert again.names == first.names
        assert all(map(np.array_equal, again.flat().values(), first.flat().values()))
        assert net._known == {next(iter(net._known)): known}
    net.specs(jnp.ones((3, 2)))
    assert len(net._known) == 2


def test_what_a_run_brings_along_is_its_own():
    def program():
        js.get_variable("a", [2], initializer=functions[0], regularizer=functions[1], constraint=functions[2])
        js.get_variable("b", [2])

    net = js.transform(program)
    for number in range(4):
        functions = [lambda key, shape, dtype, n=number: jnp.full(shape, n, dtype), lambda v: v.sum(), lambda v: v]
        spec = net.specs()["a"]
        assert [spec.initializer, spec.regularizer, spec.constraint] == functions
        assert net.init(KEY)["a"].tolist() == [number, number]
        functions = [functions[0], None, None]
        assert net.specs()["a"].regularizer is None
    assert follows(net)


def test_lines_are_those_of_the_run():
    """Which line a call comes from is in no script."""

    def program():
        with js.variable_scope("", reuse=js.AUTO_REUSE):
            if above:
                js.get_variable("a", [2])
                js.get_variable("a", [2])
            else:
                js.get_variable("a", [2])
                js.get_variable("a", [2])
        if leaves:
            js.global_variables()

    net, first_line = js.transform(program), inspect.getsourcelines(program)[1]
    for run in ((True, False), (True, False), (False, False), (True, False), (False, True)):
        above, leaves = run
        spec = net.specs()["a"]
        lines = [int(place.rpartition(":")[2]) - first_line for place in (spec.created_at, *spec.used_at)]
        assert lines == ([3, 4] if above else [6, 7])


def good(key, shape, dtype):
    return jnp.zeros(shape, dtype)


def bad_shape(key, shape, dtype):
    return jnp.zeros((7,), dtype)


def boom(key, shape, dtype):
    raise ValueError("boom")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (good, bad_shape),
        (good, boom),
        (good, lambda: 1),
        (js.constant_initializer([1.0, 2.0]), js.constant_initializer([1.0, 2.0, 3.0])),
    ],
)
@pytest.mark.parametrize("catches", [False, True])
def test_an_initializer_that_fails_in_a_later_run(first, then, catches):
    def program():
        js.get_variable("before", [2])
        try:
            js.get_variable("a", [2], initializer=initializer)
        except Exception as error:
            if not catches:
                raise
            caught.append((str(error), error.__notes__))
        js.get_variable("after", [2])

    def outcome(net):
        try:
            return every_field(net.specs())
        except Exception as error:
            return str(error), error.__notes__

    net, initializer, caught = js.transform(program), first, []
    outcome(net), outcome(net)
    assert follows(net)
    assert not caught
    initializer = then
    assert outcome(net) == outcome(js.transform(program))
    assert len(caught) == 2 * catches
    assert caught[:1] == caught[1:]


def test_an_initializer_that_calls_jscope_in_a_later_run():
    """Its variable is there before the one that it is for."""

    def plain(key, shape, dtype):
        return jnp.zeros(shape, dtype)

    def calling(key, shape, dtype):
        js.get_variable("other", [2])
        return jnp.zeros(shape, dtype)

    def program():
        with js.variable_scope("", reuse=js.AUTO_REUSE):
            js.get_variable("outer", [2], initializer=initializer)
            if initializer is plain:
                js.get_variable("other", [2])

    net, initializer = js.transform(program), plain
    for _ in range(3):
        assert list(net.specs()) == ["outer", "other"]
    initializer = calling
    assert list(net.specs()) == ["other", "outer"]


class Flaky:
    calls, fails = 0, False

    def __call__(self, key, shape, dtype):
        self.calls += 1
        if self.fails and self.calls == 1:
            raise ValueError("the first time")
        return jnp.zeros(shape, dtype)


def test_an_initializer_that_fails_once(monkeypatch):
    """A failure counts, whether or not the same call would go well a second time."""
    net = js.transform(lambda: js.get_variable("a", [2], initializer=Flaky()))
    for _ in range(3):
        net.specs()
    monkeypatch.setattr(Flaky, "fails", True)
    with pytest.raises(ValueError, match="the first time"):
        net.specs()


@pytest.mark.parametrize("holds", [False, True])
def test_declarations_keep_nothing_of_a_run(holds):
    """Scripts hold neither tracers nor the functions that a run gives, nor classes, which may hold tracers too."""
    alive, kept = [], []

    def program():
        held = kept.pop()

        def zeros(key, shape, dtype):
            return jnp.zeros(shape, dtype)

        class Holding:
            def __call__(self, key, shape, dtype):
                return jnp.zeros(shape, dtype) if held is not None else None

        functions = [zeros, lambda v: jnp.sum(v * held), Holding()]
        alive.extend(map(weakref.ref, (*functions[1:], held)))
        js.get_variable("a", [2], initializer=functions[2 if holds else 0], regularizer=functions[1])

    def declared(x):
        kept.append(x)
        return len(net.specs())

    net = js.transform(program)
    with jax.checking_leaks():
        for _ in range(4):
            jax.make_jaxpr(lambda x: declared(x * 2))(X)
    assert follows(net) is not holds
    gc.collect()
    assert {ref() for ref in alive} == {None}


def test_what_the_program_computes_is_in_no_script():
    def program(x):
        a = js.get_variable("a", initializer=x * 3)
        return a + js.get_variable("b", [2])

    net = js.transform(program)
    for _ in range(4):
        np.testing.assert_array_equal(net.init(KEY, X)["a"], [3, 3])
    assert [known.script for known in net._known.values()] == [NEVER]


def test_lifted_programs_are_declared_by_the_rules():
    def program(x):
        with js.variable_scope("in"):
            js.lift(inner, x)
        return js.get_variable("last", [2])

    inner, net = js.transform(mlp), js.transform(program)
    assert [list(net.specs(X)) for _ in range(4)] == [["in/layer/w", "in/b", "last"]] * 4


def test_a_program_that_declares_less_later():
    def program():
        for name in names:
            js.get_variable(name, [2])

    net = js.transform(program)
    for names in ("abc", "bc", "bc", "abc", "c", "c", "abcd", "d"):
        assert list(net.specs()) == list(names)
        assert net.init(KEY).names == tuple(names)


def test_blocks_that_live_longer_in_abstract_runs():
    block = jax.jit(lambda x: x @ js.get_variable("w", [2, 2]))

    def program(x):
        with js.variable_scope("a"):
            x = block(x)
        return jax.lax.scan(lambda c, _: (inside(c), None), x, None, 3)[0]

    def inside(c):
        with js.variable_scope("b", reuse=js.AUTO_REUSE):
            return block(c)

    net = js.transform(program)
    first = every_field(js.transform(program).specs(X))
    assert [every_field(net.specs(X)) for _ in range(4)] == [first] * 4


def test_other_keys_have_their_own_default():
    """Placeholders of keys are of the kind in force."""
    net = js.transform(lambda: js.get_variable("a", [2], initializer=seen))
    kinds = []

    def seen(key, shape, dtype):
        kinds.append(jax.random.key_impl(key))
        return jnp.zeros(shape, dtype)

    for kind in ("threefry2x32", "rbg", "threefry2x32"):
        with jax.default_prng_impl(kind):
            net.specs()
    assert list(map(str, kinds)) == ["threefry2x32", "rbg", "threefry2x32"]
