"""Calls from the call that entered a scope are not looked at in later runs: they must do as in a first run, though."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import weakref

import jax
import jax.numpy as jnp
import pytest

import jscope as js
from jscope._ambient import _current

X = jnp.arange(2.0)
TREE = js.Params({"a/w": X, "a/v": 10 + X, "b/w": 100 + X, "b/v": 1000 + X})


@jax.jit
def block(x):
    return x * js.get_variable("w", [2])


def near():
    """Whether the call that asks is near."""
    import sys

    frame = _current.get()
    return frame.near is sys._getframe(1) and frame.reading is not None


def runs(program, tree=TREE, count=3, **kwargs):
    """What the same program gives in its first run and in later ones, which follow the script."""
    net = js.transform(program)
    return [net.apply(tree, X, **kwargs) for _ in range(count)]


def test_which_calls_are_near():
    def inner():
        return near()

    def program(x):
        seen = [near()]
        with js.variable_scope("a"):
            seen += [near(), inner()]
            js.get_variable("w", [2])
            with js.variable_scope(""):
                seen.append(near())
        seen.append(near())  # the program's own call lasts as long as the run
        return seen

    assert runs(program) == [[False] * 5, *[[False, True, False, True, True]] * 2]


def test_blocks_that_live_longer_between_near_calls():
    def program(x):
        found = []
        for scope in ("a", "b"):
            with js.variable_scope(scope):
                found += [block(x), js.get_variable("v", [2]), block(x + 1)]
        with js.variable_scope("b", reuse=True):
            found += [block(x), js.get_variable("v", [2])]
        return jnp.stack(found)

    def reused(x):
        with js.variable_scope("", reuse=js.AUTO_REUSE):
            return program(x)

    first = js.transform(reused).apply(TREE, X)
    for run in (reused, jax.checkpoint(reused)):
        net = js.transform(run)
        for _ in range(3):
            assert (jax.jit(lambda tree, net=net: net.apply(tree, X))(TREE) == first).all()
            assert (net.apply(TREE, X) == first).all()


def test_a_reading_that_ends_in_a_near_call_knows_the_level():
    """A variable made in an inner trace has a value of its own there, which the store must know."""
    departs = []

    def body(x):
        with js.variable_scope("", reuse=js.AUTO_REUSE):
            js.get_variable("w", [2])
            if departs:
                x = x + js.get_variable("new", [2])
            return x

    def program(x):
        with js.variable_scope("", reuse=js.AUTO_REUSE):
            x = jax.jit(body)(x)
            return x + js.get_variable("new", [2]) if departs else x

    net = js.transform(program)
    for _ in range(3):
        net.specs(X)
    departs.append(True)
    assert list(net.specs(X)) == ["w", "new"]


def test_what_is_asked_while_nothing_is_traced():
    def program(x):
        with js.variable_scope("a"):
            w = js.get_variable("w", [2])
            with jax.ensure_compile_time_eval():
                v = js.get_variable("v", [2])
                if more:
                    js.get_variable_scope().reuse_variables()
                    assert js.get_variable("v") is v
            return w + v + x

    more = []
    net = js.transform(program)
    for _ in range(3):
        assert (jax.jit(net.apply)(TREE, X) == 10 + 3 * X).all()
        jax.clear_caches()
    more.append(True)
    assert (jax.jit(net.apply)(TREE, X) == 10 + 3 * X).all()


def test_calls_of_a_copied_context_that_are_in_no_script_are_refused_in_later_runs_too():
    def program(x):
        with js.variable_scope("a"):
            if asks:
                with pytest.raises(js.OutsideProgramError):
                    contextvars.copy_context().run(js.get_variable, "u", [2])
                with pytest.raises(js.OutsideProgramError):
                    contextvars.copy_context().run(lambda: js.get_variable("w", [2]))
            return js.get_variable("w", [2])

    asks = []
    net = js.transform(program)
    assert net.apply(TREE, X) is X
    asks.append(True)
    assert net.apply(TREE, X) is X
    assert net.apply(TREE, X) is X


class Kept:
    """What the user holds somewhere."""


@pytest.mark.parametrize("leaves", ["a function", "inner function", "another function", "generator", "exit stack"])
def test_a_scope_that_was_left_keeps_no_call_alive(leaves):
    """The calls that entered scopes hold what the user has there, tracers among it."""
    alive = []
    instances = []  # which the user keeps

    def new():
        instances.append(js.variable_scope("a"))
        kept = Kept()
        alive.append(weakref.ref(kept))
        return instances[-1], kept

    def function():
        scope, _kept = new()
        with scope:
            return js.get_variable("w", [2])

    def outer():
        kept = Kept()
        alive.append(weakref.ref(kept))
        with js.variable_scope(""):
            return inner()

    def inner():
        instances.append(js.variable_scope("a"))
        with instances[-1]:
            return js.get_variable("w", [2])

    def entered():
        scope, _kept = new()
        scope.__enter__()
        return scope

    def generator():
        scope, kept = new()
        with scope:
            yield kept

    def program(x):
        if leaves == "a function":
            value = function()
        elif leaves == "inner function":
            value = outer()
        elif leaves == "another function":
            scope = entered()
            value = js.get_variable("w", [2])
            scope.__exit__(None, None, None)
        elif leaves == "generator":
            iterator = generator()
            next(iterator)
            value = js.get_variable("w", [2])
            next(iterator, None)
        else:
            with contextlib.ExitStack() as stack:
                stack.enter_context(new()[0])
                value = js.get_variable("w", [2])
        assert alive.pop()() is None
        return value

    net = js.transform(program)
    for _ in range(3):
        assert net.apply(TREE, X) is X


def test_a_generator_that_goes_on_in_another_trace():
    """It is not where it entered its scope, so a block that asks through it must not be found again."""

    def asks():
        with js.variable_scope("a", reuse=js.AUTO_REUSE):
            while True:
                yield js.get_variable("w", [2])
                yield js.get_variable("v", [2])

    def program(x):
        generator[:] = [asks()]
        next(generator[0])
        found = through(x), through(x)
        generator[0].close()
        return found

    generator = []
    through = jax.jit(lambda x: x + next(generator[0]))
    net = js.transform(program)
    for scale in (1, 2, 3):
        tree = jax.tree.map(lambda leaf, scale=scale: scale * leaf, TREE)
        first, second = net.apply(tree, X)
        assert (first == tree["a/v"] + X).all()
        assert (second == tree["a/w"] + X).all()


def test_instances_entered_again_after_a_reading():
    """What an instance came to mean in a reading, it means when the rules go on; not so from another run."""
    for first_departs, enters in itertools.product((1, 2, 3), (0, 1)):
        kept, count = [], []

        def program(x, first_departs=first_departs, enters=enters, kept=kept, count=count):
            count.append(1)
            scopes = [js.variable_scope(None, "d"), js.variable_scope(None, "d")]
            names = []
            for scope in scopes:
                with scope, js.variable_scope("s") as entered:
                    names.append(entered.name if len(count) > first_departs else None)
                    js.get_variable("w", [2])
            if len(count) > first_departs:
                with js.variable_scope("other"):
                    js.get_variable("w", [2])
                again = kept[-1] if enters and kept else scopes[1]
                with again as entered:
                    names += [entered.name, js.get_variable("more", [2])]
            kept.append(scopes[0])
            return names

        tree = {f"{name}/w": X for name in ("d/s", "d_1/s", "other")} | {
            f"{name}/more": X for name in ("d", "d_1", "d_2")
        }
        net, fresh = js.transform(program), js.transform(program)
        for _ in range(first_departs):
            net.apply(tree, X)
        found = net.apply(tree, X)
        expected = fresh.apply(tree, X)  # a first run of the same program, in the same state
        assert [str(item) for item in found] == [str(item) for item in expected]
        if not enters:
            assert found[2] == "d_1"
