"""Plain JAX transforms around ambient calls: right, or refused. Expected values come from plain arithmetic."""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope._compat import trace_finder
from jscope._initial_values import call_key

# One way to call a function of a scalar through each transform that keeps its value.
TRANSFORMS = {
    "jit": lambda f: jax.jit(f),
    "checkpoint": lambda f: jax.checkpoint(f),
    "scan": lambda f: _Persistent(lambda c, _: (f(c), None), lambda body, x: jax.lax.scan(body, x, None, length=1)[0]),
    "fori_loop": lambda f: _Persistent(lambda i, c: f(c), lambda body, x: jax.lax.fori_loop(0, 1, body, x)),
    "while_loop": lambda f: _Persistent(
        lambda s: (s[0] + 1, f(s[1])), lambda body, x: jax.lax.while_loop(lambda s: s[0] < 1, body, (0, x))[1]
    ),
    "cond": lambda f: _Persistent(f, lambda body, x: jax.lax.cond(True, body, jnp.negative, x)),
    "switch": lambda f: _Persistent(f, lambda body, x: jax.lax.switch(1, [jnp.negative, body], x)),
    "map": lambda f: _Persistent(f, lambda body, x: jax.lax.map(body, x[None])[0]),
    "vmap": lambda f: _Persistent(f, lambda body, x: jax.vmap(body)(x[None])[0]),
    "value_and_grad": lambda f: _Persistent(f, lambda body, x: jax.value_and_grad(body)(x)[0]),
    "vjp": lambda f: _Persistent(f, lambda body, x: jax.vjp(body, x)[0]),
    "jvp": lambda f: _Persistent(f, lambda body, x: jax.jvp(body, (x,), (x,))[0]),
    "linearize": lambda f: _Persistent(f, lambda body, x: jax.linearize(body, x)[0]),
    "jit_checkpoint": lambda f: jax.jit(jax.checkpoint(f)),
    "checkpoint_jit": lambda f: jax.checkpoint(jax.jit(f)),
}


class _Persistent:
    """`body` made once, handed to the transform at each call."""

    def __init__(self, body, call):
        self.body, self.call = body, call

    def __call__(self, x):
        return self.call(self.body, x)


@pytest.fixture(params=sorted(TRANSFORMS))
def through(request):
    return TRANSFORMS[request.param]


@pytest.fixture(params=["eager", "jit"])
def outer(request):
    return (lambda f: f) if request.param == "eager" else jax.jit


X = jnp.float32(2.0)


@pytest.mark.sampled(3)
def test_persistent_block_reads_each_scope(through, outer):
    block = through(lambda x: x * js.get_variable("w", []))

    def program(x):
        with js.variable_scope("a"):
            x = block(x)
        with js.variable_scope("b"):
            return block(x)

    net = js.transform(program)
    assert list(net.specs(X)) == ["a/w", "b/w"]
    assert net.init(jax.random.key(0), X).names == ("a/w", "b/w")
    apply = outer(net.apply)
    for a, b in ((3.0, 5.0), (7.0, 11.0)):
        assert apply({"a": {"w": jnp.float32(a)}, "b": {"w": jnp.float32(b)}}, X) == 2 * a * b


@pytest.mark.sampled(3)
def test_persistent_block_between_programs(through, outer):
    block = through(lambda x: x + js.get_variable("w", []))
    first = js.transform(lambda x: block(x))
    second = js.transform(lambda x: block(block_in_scope(x)))

    def block_in_scope(x):
        with js.variable_scope("s"):
            return block(x)

    with pytest.raises(js.OutsideProgramError):
        block(X)
    for w in (1.0, 2.0, 3.0):
        assert outer(first.apply)({"w": jnp.float32(w)}, X) == 2 + w
        assert outer(second.apply)({"w": jnp.float32(w), "s": {"w": jnp.float32(10)}}, X) == 12 + w
        with pytest.raises(js.OutsideProgramError):
            block(X)


@pytest.mark.sampled(3)
def test_one_block_called_twice_in_one_scope(through):
    """The cases that a token per scope gets wrong."""
    keyed = through(lambda x: x + jax.random.uniform(js.next_key()))
    a, b = jax.jit(js.transform(lambda x: (keyed(x), keyed(x))).apply)({}, X, rng=jax.random.key(0))
    assert a != b

    def numbered(x):
        with js.variable_scope(None, "d"):
            return x * js.get_variable("w", [])

    block = through(numbered)
    net = js.transform(lambda x: block(block(x)))
    assert list(net.specs(X)) == ["d/w", "d_1/w"]
    assert net.apply({"d": {"w": 3.0}, "d_1": {"w": 5.0}}, X) == 30

    creates = through(lambda x: x * js.get_variable("w", []))
    with pytest.raises(js.VariableExistsError):
        js.transform(lambda x: creates(creates(x))).specs(X)

    def regularized(x):
        with js.variable_scope("r", reuse=js.AUTO_REUSE):
            return x * js.get_variable("w", [], regularizer=lambda w: w)

    block = through(regularized)
    net = js.transform(lambda x: (block(block(x)), js.get_regularization_losses()))
    assert net.apply({"r": {"w": 3.0}}, X) == (18, [3.0])


@pytest.mark.sampled(3)
def test_assigning_inside(through, outer):
    """One more at each run of the body; the value read before the assignment is the one of the turn before."""

    def count(x):
        n = js.get_variable("n", [], trainable=False)
        js.assign(n, n + 1)
        return x + n

    block = through(count)

    def program(x):
        with js.variable_scope("a", reuse=js.AUTO_REUSE):
            x = block(block(x))
        with js.variable_scope("b"):
            return block(x), js.value("a/n"), js.value("b/n")

    net = js.transform(program)
    assert list(net.specs(X)) == ["a/n", "b/n"]
    params = {"a": {"n": jnp.float32(10)}, "b": {"n": jnp.float32(100)}}
    if through is TRANSFORMS["vmap"]:
        with pytest.raises(js.TransformError, match=r"inside jax.vmap") as caught:
            outer(net.update)(params, X)
        assert "test_tracing.py" in caught.value.where
        return
    (y, a, b), after = outer(net.update)(params, X)
    assert (y, a, b) == (2 + 10 + 11 + 100, 12, 101)
    assert (after["a/n"], after["b/n"]) == (12, 101)
    assert (params["a"]["n"], params["b"]["n"]) == (10, 100)
    with pytest.raises(js.AssignError):
        net.apply(params, X)


@pytest.mark.sampled(3)
def test_initial_values_made_inside_are_those_made_outside(through):
    plain = js.transform(lambda x: x * js.get_variable("w", []))
    inside = js.transform(lambda x: through(lambda x: x * js.get_variable("w", []))(x))
    key = jax.random.key(3)
    assert plain.init(key, X) == inside.init(key, X)
    assert jax.jit(inside.init)(key, X) == plain.init(key, X)


def test_an_initial_value_computed_inside_is_refused(through):
    net = js.transform(lambda x: through(lambda x: x * js.get_variable("w", initializer=x + 1))(x))
    with pytest.raises(js.TransformError, match="computed inside a JAX transform"):
        net.specs(X)


@pytest.mark.sampled(3)
def test_grad_through_blocks_equals_arithmetic(through):
    def program(x):
        total = x
        for name in "abc":
            with js.variable_scope(name):
                total = block(total)
        return total

    block = through(lambda x: x * js.get_variable("w", []))
    if isinstance(block, _Persistent) and "while" in str(block.call.__code__.co_names):
        pytest.skip("JAX has no reverse mode through while_loop")
    net = js.transform(program)
    params = js.Params({"a": {"w": jnp.float32(2)}, "b": {"w": jnp.float32(3)}, "c": {"w": jnp.float32(5)}})
    grads = jax.grad(net.apply)(params, X)
    assert grads.flat() == {"a/w": 30.0, "b/w": 20.0, "c/w": 12.0}
    assert jax.jit(jax.grad(net.apply))(params, X) == grads


def test_a_value_made_inside_does_not_leave_by_a_collection():
    net = js.transform(lambda x: jax.jit(lambda x: js.add_to_collection("c", (x * 2,)))(x))
    with pytest.raises(js.TransformError, match="nobody outside could use it"):
        net.apply({}, X)


def test_a_swallowed_error_is_not_cached():
    @jax.jit
    def block(x):
        try:
            return x * js.get_variable("w", [])
        except js.JscopeError:
            return -x

    assert block(X) == -2
    assert js.transform(lambda x: block(x)).apply({"w": 3.0}, X) == 6
    with js.build(jax.random.key(0)):
        assert block(X) == -2  # refused there, and caught
    assert js.transform(lambda x: block(x)).apply({"w": 3.0}, X) == 6
    assert block(X) == -2


def test_nested_programs_do_not_share_traces():
    @jax.jit
    def block(x):
        return x * js.get_variable("w", [])

    inner = js.transform(lambda x: block(x))

    def program(x):
        x = block(x)
        with js.variable_scope("s"):
            x = inner.apply({"w": jnp.float32(100)}, x)
            return block(x)

    outer = js.transform(program)
    for _ in range(2):
        assert outer.apply({"w": 3.0, "s": {"w": 5.0}}, X) == 2 * 3 * 100 * 5


def by_exit_stack():
    stack = contextlib.ExitStack()
    stack.enter_context(js.variable_scope("a"))
    return stack.close


def by_generator():
    def suspended():
        with js.variable_scope("a"):
            yield

    generator = suspended()
    next(generator)
    return lambda: next(generator, None)


def by_hand():
    scope = js.variable_scope("a")
    scope.__enter__()
    return lambda: scope.__exit__(None, None, None)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("enter", [by_exit_stack, by_generator, by_hand])
@pytest.mark.parametrize("through", ["jit", "checkpoint", "scan", "cond"])
def test_scopes_that_are_left_inside_a_transform(enter, through):
    """A trace in which a scope is left and nothing else is asked for: made anew each time all the same."""
    leave = []
    block = TRANSFORMS[through](lambda x: leave[-1]() or x + 1)

    def program(x):
        names = []
        for _ in range(3):
            leave.append(enter())
            x = block(x)
            names.append(js.get_variable_scope().name)
        return x, names

    net = js.transform(program)
    for _ in range(3):
        x, names = net.apply({}, X)
        assert float(x) == 5.0
        assert names == ["", "", ""]


def test_threads_do_not_share_traces():
    @jax.jit
    def block(x):
        return x * js.get_variable("w", [])

    def program(x):
        for _ in range(3):
            with js.variable_scope("s", reuse=js.AUTO_REUSE):
                x = block(x)
        return block(x)

    net = js.transform(program)
    results: dict[int, list[float]] = {}

    def work(n):
        results[n] = [float(net.apply({"w": float(n), "s": {"w": 2.0}}, X)) for _ in range(6)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {n: [16.0 * n] * 6 for n in range(1, 5)}


def test_programs_without_inner_calls_share_jax_own_traces():
    traced = []

    @jax.jit
    def helper(x):
        traced.append(1)
        return x + 1

    for w in range(5):
        js.transform(lambda x: helper(x) * js.get_variable("w", [])).apply({"w": float(w)}, X)
    assert len(traced) == 1


@pytest.mark.parametrize("length", [1, 4])
def test_scan_over_stacked_parameters_read_inside(length):
    def program(x):
        w = js.get_variable("w", [])
        return jax.lax.scan(lambda c, _: (c * w + js.get_variable("b", []), None), x, None, length=length)[0]

    net = js.transform(program)
    assert list(net.specs(X)) == ["w", "b"]
    expected = 2.0
    for _ in range(length):
        expected = expected * 3 + 1
    assert jax.jit(net.apply)({"w": 3.0, "b": 1.0}, X) == expected


def test_custom_jvp_primal_reads():
    @jax.custom_jvp
    def f(x):
        return x * js.get_variable("w", [])

    f.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    assert js.transform(lambda x: f(x)).apply({"w": 3.0}, X) == 6


def test_specs_and_init_under_transforms():
    net = js.transform(lambda x: jnp.sum(x @ js.get_variable("w", [x.shape[-1], 3])))
    x = jnp.ones((2, 4))
    keys = jax.random.split(jax.random.key(0), 5)
    many = jax.vmap(net.init, in_axes=(0, None))(keys, x)
    assert many["w"].shape == (5, 4, 3)
    for i, key in enumerate(keys):
        np.testing.assert_array_equal(many["w"][i], net.init(key, x)["w"])
    assert jax.eval_shape(net.init, keys[0], x) == net.specs(x).abstract()
    exported = jax.export.export(jax.jit(net.apply))(net.specs(x).abstract(), x)
    again = jax.export.deserialize(exported.serialize())
    params = net.init(keys[0], x)
    np.testing.assert_allclose(again.call(params, x), net.apply(params, x), rtol=1e-6)
    compiled = jax.jit(net.apply).lower(params, x).compile()
    np.testing.assert_allclose(compiled(params, x), net.apply(params, x), rtol=1e-6)


@partial(jax.jit, static_argnums=0)
def module_level(flag, x):
    return x * js.get_variable("w", []) if flag else x


def test_static_arguments():
    def program(x):
        return module_level(True, module_level(False, x))

    for w in (3.0, 4.0):
        assert js.transform(program).apply({"w": w}, X) == 2 * w


@pytest.mark.sampled(4)
@pytest.mark.parametrize("transform", [jax.jit, jax.checkpoint, lambda f: lambda x: jax.lax.map(f, x[None])[0]])
def test_compile_time_eval_inside_a_persistent_block(transform, outer):
    """`ensure_compile_time_eval` hides from the calls in it that a trace is being made around them."""

    @transform
    def block(x):
        with jax.ensure_compile_time_eval():
            key = jax.random.key_data(js.next_key())[1].astype(jnp.float32)
        return x + key

    def program(x):
        first = block(x)
        with js.variable_scope("a"):
            second = block(x)
        with js.variable_scope("b"):
            third = block(x)
        with js.variable_scope("c"):
            fourth = block(x)
        return first, second, third, fourth, block(x)

    def expected(x):
        scopes = ["", "a", "b", "c"]
        keys = [call_key(KEY, scope, "default", 0) for scope in scopes] + [call_key(KEY, "", "default", 1)]
        return tuple(x + jax.random.key_data(key)[1].astype(jnp.float32) for key in keys)

    net = js.transform(program)
    # The rng is no argument of the outer jit: what is evaluated while compiling has to be concrete.
    apply = outer(lambda x: net.apply({}, x, rng=KEY))
    assert apply(X) == expected(X)
    assert apply(X + 1) == expected(X + 1)


KEY = jax.random.key(0)


def test_a_while_loop_under_linearize_is_not_counted_twice():
    """JAX runs such a loop once for the value and once for the linear function: two turns would count as four."""

    def program(x):
        js.get_variable("n", [], initializer=js.zeros_initializer(), trainable=False)

        def body(state):
            js.assign("n", js.value("n") + 1)
            return state[0] + 1, state[1] * 2

        y, linear = jax.linearize(lambda x: jax.lax.while_loop(lambda s: s[0] < 2, body, (0, x))[1], x)
        return y, linear(x)

    for call in (js.transform(program).update, jax.jit(js.transform(program).update)):
        with pytest.raises(js.TransformError, match=r"lax.while_loop that is differentiated"):
            call({"n": jnp.float32(0)}, X)


@pytest.mark.parametrize("kind", [jax.custom_jvp, jax.custom_vjp])
def test_differentiating_what_a_custom_derivative_reads_is_refused(kind):
    """Its rule gives derivatives for its arguments alone: right for x, nothing that could be right for w."""

    def scale(x):
        return x * js.get_variable("w", [])

    f = kind(scale)
    if kind is jax.custom_jvp:
        f.defjvp(lambda primals, tangents: (f(*primals), 7 * tangents[0]))
    else:
        f.defvjp(lambda x: (scale(x), None), lambda _, g: (7 * g,))

    def program(x):
        with js.variable_scope("a", reuse=js.AUTO_REUSE):
            return f(x)

    net = js.transform(program)
    params = {"a": {"w": jnp.float32(3)}}
    for wrap in (lambda f: f, jax.jit):
        assert wrap(net.apply)(params, X) == 6
        assert wrap(jax.grad(net.apply, argnums=1))(params, X) == 7
        with pytest.raises(js.TransformError, match=r"read inside a jax.custom_jvp or jax.custom_vjp") as caught:
            wrap(jax.grad(net.apply))(params, X)
        assert "test_tracing.py" in caught.value.where
    # Where the program was traced before it is differentiated, jscope is not asked again: the error is JAX's own.
    if kind is jax.custom_vjp:
        with pytest.raises(Exception, match="closed-over value"):
            jax.grad(jax.jit(lambda params, x: net.apply(params, x)))(params, X)
    else:  # ... or the rule's, which calls its function after the program's end
        with pytest.raises(js.OutsideProgramError, match="give a derivative rule what it needs as arguments"):
            jax.grad(jax.jit(lambda params, x: net.apply(params, x)))(params, X)


def test_eager_calls_of_inner_calls_warn_once_at_each_line():
    block = jax.jit(lambda x: x * js.get_variable("w", []))
    net = js.transform(lambda x: block(x))
    params = {"w": jnp.float32(3)}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert net.specs(X)["w"].shape == ()
        assert net.init(KEY, X).names == ("w",)
        assert jax.jit(net.apply)(params, X) == 6
        assert jax.jit(jax.grad(net.apply, argnums=1))(params, X) == 3
        assert js.transform(lambda x: x * js.get_variable("w", [])).apply(params, X) == 6
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            assert net.apply(params, X) == 6
    assert [(warning.category, warning.filename) for warning in caught] == [(js.RetraceWarning, __file__)]
    assert "jax.jit(net.apply)" in str(caught[0].message)
    with pytest.warns(js.RetraceWarning):
        jax.grad(js.transform(lambda x: block(x)).apply)(params, X)


def test_a_program_that_changes_between_calls_is_not_half_carried():
    """What is assigned inside transforms is known from a rehearsal; a program that then does otherwise is refused."""
    inside = False

    def program(xs):
        js.get_variable("n", [], trainable=False, initializer=js.zeros_initializer())

        def body(carry, x):
            if inside:
                js.assign("n", js.value("n") + x)
            return carry, None

        jax.lax.scan(body, jnp.float32(0), xs)

    net = js.transform(program)
    params, xs = {"n": jnp.float32(1)}, jnp.arange(4.0)
    assert net.update(params, xs)[1]["n"] == 1
    inside = True
    with pytest.raises(js.TransformError, match="does not carry its value") as caught:
        net.update(params, xs)
    assert "test_tracing.py" in caught.value.where
    assert net.update(params, jnp.arange(5.0))[1]["n"] == 11
    assert js.transform(program).update(params, xs)[1]["n"] == 7


def test_an_initial_value_that_is_computed_from_what_a_loop_has_assigned():
    def program(xs):
        n = js.get_variable("n", [], trainable=False, initializer=js.constant_initializer(5.0))

        def body(carry, x):
            js.assign("n", js.value("n") + x)
            return carry, None

        jax.lax.scan(body, jnp.float32(0), xs)
        return js.get_variable("m", initializer=js.value("n") * 2) + n

    net = js.transform(program)
    params = net.init(KEY, jnp.arange(4.0))
    assert (params["n"], params["m"]) == (5, 22)
    out, after = net.update(params, jnp.arange(4.0))
    assert (out, after["n"], after["m"]) == (27, 11, 22)


def test_programs_that_assign_at_their_own_level_alone_make_no_ref():
    def program(x):
        n = js.get_variable("n", [], trainable=False)
        js.assign(n, n + jax.lax.scan(lambda c, _: (c + 1, None), x, None, length=3)[0])

    traced = jax.make_jaxpr(js.transform(program).update)({"n": jnp.float32(1)}, X)
    assert "Ref" not in str(traced)


INSIDE_A_DERIVATIVE = {
    "plain": lambda f, x: f(x),
    "jit": lambda f, x: jax.jit(f)(x),
    "scan": lambda f, x: jax.lax.scan(lambda c, _: (f(c), None), x, None, length=1)[0],
    "cond": lambda f, x: jax.lax.cond(x > 0, jax.jit(f), jnp.negative, x),
    "grad": lambda f, x: jax.grad(jax.jit(f))(x),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", sorted(INSIDE_A_DERIVATIVE))
def test_assigning_inside_a_derivative(name, outer):
    """What is differentiated there can't be assigned; what is not can, also under another derivative around it all."""

    def program(x, stop):
        js.get_variable("n", [], trainable=False, initializer=js.zeros_initializer())

        def f(x):
            js.assign("n", js.value("n") + (jax.lax.stop_gradient(x) if stop else x))
            return x * x * x

        return jax.grad(lambda x: INSIDE_A_DERIVATIVE[name](f, x))(x)

    net = js.transform(program)
    params = {"n": jnp.float32(5)}
    expected = 6 * X if name == "grad" else 3 * X**2
    out, after = outer(lambda params: net.update(params, X, True))(params)
    assert (out, after["n"]) == (expected, 7)
    with pytest.raises(js.TransformError, match="differentiated inside the program") as caught:
        outer(lambda params: net.update(params, X, False))(params)
    assert "test_tracing.py" in caught.value.where
    assert "stop_gradient" in caught.value.fix
    for which, slope in ((0, {"n": 0.0}), (1, 6 if name == "grad" else 6 * X)):
        (out, n), found = outer(
            jax.value_and_grad(lambda *args: _out_and(net.update(*args, True)), which, has_aux=True)
        )(params, X)
        assert (out, n) == (expected, 7)
        assert found == slope


def _out_and(result):
    out, after = result
    return out, after["n"]


def test_a_custom_vjp_function_under_vmap_is_inside_no_vmap_of_the_program():
    @jax.custom_vjp
    def f(x):
        js.assign("n", js.value("n") + 1)
        return x

    f.defvjp(lambda x: (f(x), None), lambda _, g: (g,))

    def program(x):
        js.get_variable("n", [], trainable=False)
        return f(x)

    _, after = jax.vmap(js.transform(program).update, in_axes=(None, 0))({"n": jnp.float32(1)}, jnp.arange(3.0))
    assert after["n"].tolist() == [2, 2, 2]


def test_an_associative_scan_is_no_loop():
    """Its function is called in the trace around it, as often as its way of combining takes: two calls for three."""

    def program(xs):
        js.get_variable("n", [], trainable=False)

        def add(a, b):
            js.assign("n", js.value("n") + 1)
            return jax.lax.cond(True, count, lambda x: x, a + b)

        def count(x):
            js.assign("n", js.value("n") + 100)
            return x

        return jax.lax.associative_scan(add, xs)[-1]

    def loss(xs):
        return _out_and(js.transform(program).update({"n": jnp.float32(0)}, xs))

    (out, n), slope = jax.value_and_grad(loss, has_aux=True)(jnp.arange(3.0))
    assert (out, n, slope.tolist()) == (3, 202, [1, 1, 1])


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", ["jit", "scan", "cond"])
@pytest.mark.parametrize("new", [lambda old, x: 3.0, lambda old, x: jax.lax.stop_gradient(0.5 * old + x)])
@pytest.mark.parametrize("which", ["n", "w", "x"])
def test_gradients_where_what_is_assigned_has_none(name, new, which, outer):
    """A running mean is mostly kept out of the gradient; JAX 0.10 can't transpose that without help."""

    def program(x):
        w = js.get_variable("w", [])
        js.get_variable("n", [], trainable=False)

        def f(x):
            n = js.value("n")
            js.assign("n", new(n, x))
            return x * w + n

        return INSIDE_A_DERIVATIVE[name](f, x)

    def loss(value):
        values = {"n": jnp.float32(10), "w": jnp.float32(3), "x": X, which: value}
        return _out_and(js.transform(program).update({"n": values["n"], "w": values["w"]}, values["x"]))

    value = {"n": jnp.float32(10), "w": jnp.float32(3), "x": X}[which]
    (out, n), slope = outer(jax.value_and_grad(loss, has_aux=True))(value)
    assert (out, slope) == (16, {"n": 1, "w": 2, "x": 3}[which])
    assert n == (3 if new(10, X) == 3 else 7)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", ["plain", "jit", "scan", "cond"])
@pytest.mark.parametrize(
    ("dtype", "before", "after"),
    [
        (jnp.int32, -3, -2),
        (jnp.int32, 2**31 - 2, 2**31 - 1),
        (jnp.uint32, 2**32 - 2, 2**32 - 1),
        (jnp.int8, 126, 127),
        (jnp.uint8, 254, 255),
        (jnp.int16, -(2**15), -(2**15) + 1),
        (jnp.bool_, False, True),
    ],
)
def test_counting_with_integers_under_a_gradient(name, dtype, before, after, outer):
    """JAX 0.10 can't transpose what writes to a ref of integers."""

    def program(x):
        w = js.get_variable("w", [])
        js.get_variable("n", [2], dtype, trainable=False)

        def f(x):
            n = js.value("n")
            js.assign("n", ~n if dtype is jnp.bool_ else n + jnp.ones((), dtype))
            assert js.value("n").dtype == dtype
            return x * w

        return INSIDE_A_DERIVATIVE[name](f, x)

    def loss(w):
        return _out_and(js.transform(program).update({"n": jnp.full(2, before, dtype), "w": w}, X))

    (out, n), slope = outer(jax.value_and_grad(loss, has_aux=True))(jnp.float32(3))
    assert (out, slope) == (6, 2)
    assert n.dtype == dtype
    assert n.tolist() == [after, after]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", ["jit", "scan", "cond"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32])
def test_assigned_outside_before_it_is_assigned_inside(name, dtype, outer):
    """The first writes to the ref where the gradient is taken, the second in what JAX transposes."""

    def program(x):
        w = js.get_variable("w", [])
        js.get_variable("n", [], dtype, trainable=False)

        def f(x):
            js.assign("n", 2 * js.value("n"))
            return x * w + js.value("n")

        js.assign("n", 5)
        return INSIDE_A_DERIVATIVE[name](f, x)

    def loss(w):
        return _out_and(js.transform(program).update({"n": jnp.ones((), dtype), "w": w}, X))

    (out, n), slope = outer(jax.value_and_grad(loss, has_aux=True))(jnp.float32(3))
    assert (out, n, slope) == (16, 10, 2)


@pytest.mark.parametrize("name", ["scan", "cond"])
@pytest.mark.parametrize("call", ["assign", "value"])
def test_compile_time_eval_of_what_a_loop_carries(name, call, outer):
    """Without jit the refs are no tracers, so JAX would read and set them once, while it traces."""

    def program(x):
        js.get_variable("n", [], trainable=False)

        def f(x):
            with jax.ensure_compile_time_eval():
                n = js.value("n")
                if call == "assign":
                    js.assign("n", n + 1)
            js.assign("n", js.value("n") + 1)
            return x + n

        return INSIDE_A_DERIVATIVE[name](f, x)

    run = outer(js.transform(program).update)
    if outer is jax.jit:
        out, after = run({"n": jnp.float32(5)}, X)
        assert (out, after["n"]) == (X + 5, 6 if call == "value" else 7)
    else:
        with pytest.raises(js.TransformError, match="ensure_compile_time_eval") as caught:
            run({"n": jnp.float32(5)}, X)
        assert "test_tracing.py" in caught.value.where


@pytest.mark.parametrize("kind", ["closure_convert", "make_jaxpr", "loop"])
@pytest.mark.parametrize("outer", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_trace_that_assigns_does_so_each_time_it_runs(kind, outer):
    """JAX runs it without jscope, so what was read before is not the value any more."""

    def counts(x):
        js.assign("n", js.value("n") + 1)
        return x + 1.0

    def program(x):
        js.get_variable("n", [], jnp.int32, trainable=False)
        if kind == "make_jaxpr":
            jaxpr = jax.make_jaxpr(jax.jit(counts))(x)
            again = partial(jax.core.eval_jaxpr, jaxpr.jaxpr, jaxpr.consts)
        else:
            converted, constants = jax.closure_convert(counts, x)
            again = lambda x: converted(x, *constants)  # noqa: E731
        seen = [js.value("n")]
        for start in (None, None, 10):
            held = js.value("n") if start is None else js.assign("n", start)
            jax.lax.fori_loop(0, 1, lambda _, x: again(x), x) if kind == "loop" else again(x)
            seen.append(js.value("n"))
            assert seen[-1] is not held
        return seen

    seen, params = outer(js.transform(program).update)({"n": jnp.int32(0)}, jnp.float32(1))
    assert [int(n) for n in seen] == [0, 1, 2, 11]
    assert params["n"] == 11


def test_a_program_that_has_ended_keeps_no_trace():
    kept, traces, key = [], [], jax.random.key(0)

    def step(x):
        with js.build(key) as built, js.variable_scope("a"):
            kept.append(built)
            traces.append(weakref.ref(trace_finder()(())))
        return x

    jax.jit(step)(1.0)
    gc.collect()
    assert [trace() for trace in traces] == [None]
