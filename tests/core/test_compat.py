"""What the Python stack says of the JAX transforms around a call. Guards against changes in how JAX calls functions."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope import _ambient, _compat
from jscope._compat import depends_on, needed_only, program_key, trace_finder, trace_reader, with_constants
from jscope._stack import surroundings

X = jnp.float32(2.0)


def entered(f, x):
    """Stands for the code in which a program is entered."""
    return f(x)


def look(transform, around=lambda f: f):
    """The surroundings of a call inside `transform` inside a program inside `around`."""
    seen = []

    def body(x):
        seen.append(surroundings(entered.__code__))
        return x * 2

    around(lambda x: entered(lambda x: transform(body, x), x))(X)
    return seen[-1]


def custom(kind):
    def call(f, x):
        g = kind(f)
        if kind is jax.custom_jvp:
            g.defjvp(lambda primals, tangents: (g(*primals), tangents[0]))
        else:
            g.defvjp(lambda x: (g(x), None), lambda _, t: (t,))
        return g(x)

    return call


def while_loop(f, x):
    return jax.lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, f(s[1])), (0, x))[1]


SEEN_AS = {
    "nothing": (lambda f, x: f(x), ()),
    "jit": (lambda f, x: jax.jit(f)(x), ("trace",)),
    "checkpoint": (lambda f, x: jax.checkpoint(f)(x), ("trace", "checkpoint")),
    "scan": (lambda f, x: jax.lax.scan(lambda c, _: (f(c), None), x, None, 2)[0], ("trace", "scan")),
    "map": (lambda f, x: jax.lax.map(f, x[None]), ("trace", "scan")),
    "map in batches": (lambda f, x: jax.lax.map(f, jnp.stack([x] * 4), batch_size=2), ("vmap", "trace", "scan")),
    "fori_loop": (lambda f, x: jax.lax.fori_loop(0, 2, lambda _, c: f(c), x), ("trace", "scan")),
    "fori_loop until": (
        lambda f, x: jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda _, c: f(c), x))(2),
        ("trace", "while_loop", "trace"),
    ),
    "while_loop": (while_loop, ("trace", "while_loop")),
    "cond": (lambda f, x: jax.lax.cond(x > 0, f, jnp.negative, x), ("trace", "cond")),
    "switch": (lambda f, x: jax.lax.switch(1, [jnp.negative, f], x), ("trace", "cond")),
    "associative_scan": (lambda f, x: jax.lax.associative_scan(lambda a, b: f(a + b), jnp.stack([x, x])), ()),
    "vmap": (lambda f, x: jax.vmap(f)(x[None]), ("vmap",)),
    "grad": (lambda f, x: jax.grad(f)(x), ("derivative",)),
    "value_and_grad": (lambda f, x: jax.value_and_grad(f)(x), ("derivative",)),
    "vjp": (lambda f, x: jax.vjp(f, x), ("derivative",)),
    "jvp": (lambda f, x: jax.jvp(f, (x,), (x,)), ("derivative",)),
    "linearize": (lambda f, x: jax.linearize(f, x), ("derivative",)),
    "custom_jvp": (custom(jax.custom_jvp), ("custom_jvp",)),
    "custom_vjp": (custom(jax.custom_vjp), ("custom_vjp",)),
    "vmap of jit": (lambda f, x: jax.vmap(jax.jit(f))(x[None]), ("trace", "vmap")),
    "jit of grad of scan": (
        lambda f, x: jax.jit(jax.grad(lambda x: SEEN_AS["scan"][0](f, x)))(x),
        ("trace", "scan", "derivative", "trace"),
    ),
}


@pytest.mark.parametrize("transform", SEEN_AS)
def test_a_trace_is_told_by_itself_as_by_its_state(transform):
    find, read = trace_finder(), trace_reader()
    inside = []

    def body(x):
        inside.append((find(()) is find(()), find(()) is trace, read() == state))
        return x * 2

    def outside(x):
        nonlocal trace, state
        trace, state = find(()), read()
        out = SEEN_AS[transform][0](body, x)
        assert find(()) is trace
        return out

    trace = state = None
    outside(X)
    jax.jit(outside)(X)
    assert {same for same, _, _ in inside} == {True}
    assert [it for _, it, _ in inside] == [state for _, _, state in inside]
    assert {it for _, it, _ in inside} >= {transform in ("nothing", "associative_scan")}


@pytest.mark.parametrize("core", [types.SimpleNamespace(), types.SimpleNamespace(find_top_trace=lambda _: None)])
def test_where_jax_does_not_give_traces_their_states_tell_them(core, monkeypatch):
    monkeypatch.setattr(_compat, "_core", lambda: core)
    find = trace_finder.__wrapped__()
    monkeypatch.undo()
    assert find(()) is not find(())
    monkeypatch.setattr(_ambient, "trace_finder", lambda: find)
    double = jax.jit(lambda x: x * js.get_variable("w", []))

    def program(x):
        with js.variable_scope("a"):
            x = double(x)
        with js.variable_scope("b"):
            return double(x)

    net = js.transform(program)
    assert list(net.specs(X)) == ["a/w", "b/w"]
    for _ in range(3):
        assert jax.jit(net.apply)({"a/w": 3.0, "b/w": 5.0}, X) == 30


@pytest.mark.parametrize("name", sorted(SEEN_AS))
def test_each_transform_is_seen(name):
    transform, expected = SEEN_AS[name]
    assert look(transform).transforms == (*expected, "program")


OUTSIDE = {jax.jit: ["trace"], jax.grad: ["derivative"], jax.checkpoint: ["trace", "checkpoint"]}


@pytest.mark.parametrize("around", OUTSIDE, ids=lambda f: f.__name__)
def test_what_is_around_the_program_comes_after_it(around):
    seen = look(lambda f, x: jax.vmap(f)(x[None])[0], around)
    assert seen.transforms == ("vmap", "program", *OUTSIDE[around])
    last = OUTSIDE[around][-1]
    assert seen.within("vmap")
    assert not seen.within(last)
    assert seen.nested("vmap", last)
    assert not seen.nested(last, "vmap")
    assert not seen.nested(last, "program")


def read_in_condition(f, x):
    return jax.lax.while_loop(lambda s: f(s[1]) < s[0], lambda s: s, (0, x))[1]


def same_code(f, x):
    """Condition and body of one code: what they close over tells them apart."""

    def make(last):
        return lambda s: last(s)

    return jax.lax.while_loop(make(lambda s: s[0] < 1), make(lambda s: (s[0] + 1, f(s[1]))), (0, x))[1]


class Condition:
    def __init__(self, f):
        self.f = f

    def __call__(self, bound, s):
        return self.f(s[1]) < s[0]


@pytest.mark.parametrize(
    "loop",
    [
        read_in_condition,
        lambda f, x: jax.lax.while_loop(functools.partial(Condition(f), 1), lambda s: s, (0, x))[1],
        lambda f, x: jax.lax.while_loop(jax.jit(lambda s: f(s[1]) < s[0]), lambda s: s, (0, x))[1],
        lambda f, x: jax.lax.while_loop(jax.tree_util.Partial(lambda s: f(s[1]) < s[0]), lambda s: s, (0, x))[1],
        lambda f, x: jax.lax.while_loop(eval("lambda s: f(s[1]) < s[0]", {"f": f}), lambda s: s, (0, x))[1],
    ],
)
def test_the_condition_of_a_while_loop_is_told_from_its_body(loop):
    assert "while_condition" in look(loop).transforms
    for body in (while_loop, same_code):
        assert "while_condition" not in look(body).transforms


def test_needed_only_leaves_the_rest_out():
    ran = []

    def program(x):
        jax.debug.callback(lambda: ran.append(1))
        kept = jax.new_ref(x)
        kept[...] = kept[...] * 3
        other = jax.new_ref(x)
        other[...] = jnp.sin(other[...])
        return kept[...]

    traced = jax.make_jaxpr(program)(X)
    (value,) = jax.jit(needed_only(traced))(X)
    jax.effects_barrier()
    assert value == 6
    assert ran == []
    assert "sin" not in str(jax.make_jaxpr(needed_only(traced))(X))


def traced_with(constant, f=lambda x, constant: jnp.sin(x) * constant):
    return jax.make_jaxpr(lambda x: f(x, constant))(X)


def test_the_key_of_a_program_tells_what_it_computes_from_its_constants():
    one, two = np.ones(3, np.float32), np.full(3, 2, np.float32)
    key = program_key(traced_with(one))
    assert key == program_key(traced_with(two))
    assert key != program_key(traced_with(np.ones(4, np.float32)))
    assert key != program_key(traced_with(one, lambda x, constant: jnp.cos(x) * constant))
    assert key != program_key(traced_with(one, lambda x, constant: jnp.sin(constant) * x))
    scalars = [0.0, -0.0, 1.0, 1.0000001, 1e-30]
    assert len({program_key(traced_with(np.float32(scalar))) for scalar in scalars}) == len(scalars)
    inside = [program_key(traced_with(s, jax.jit(lambda x, s: x * s, static_argnums=1))) for s in (1.0, 2.0)]
    assert None not in inside
    assert inside[0] != inside[1]


def test_what_can_not_be_told_has_no_key():
    table = jnp.ones(3)
    assert program_key(jax.make_jaxpr(lambda x: jax.pure_callback(lambda: x, X))(X)) is None
    assert program_key(jax.make_jaxpr(lambda x: x * jax.jit(lambda: table * 2)())(X)) is None
    assert program_key(jax.make_jaxpr(lambda x: x * jax.jit(jax.nn.relu)(x))(X)) is not None


def test_a_program_takes_other_constants():
    closed = traced_with(np.arange(3, dtype=np.float32))
    (value,) = jax.jit(lambda constant: with_constants(closed, [constant])(X))(jnp.ones(3))
    np.testing.assert_allclose(value, np.full(3, np.sin(2.0)), rtol=1e-6)


def test_whether_a_result_depends_on_an_argument():
    closed = jax.make_jaxpr(lambda x, y: jnp.sin(x) * 2 + 0 * jax.lax.stop_gradient(x))(X, X)
    assert depends_on(closed, 0)
    assert not depends_on(closed, 1)
