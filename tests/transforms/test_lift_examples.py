"""The page "JAX transforms", as far as running its blocks on one device does not show that it is true.

Its tables of what is refused say what each error says and what to do instead: here is a program for each row, and one
for each way out that the page does not run. Its `shard_map` example runs on eight devices.
"""

from __future__ import annotations

import contextvars
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import AxisType, PartitionSpec
from paths import ROOT

import jscope as js

PAGE = (ROOT / "docs" / "transforms.md").read_text()
X, XS = jnp.float32(2), jnp.arange(3.0)
KEY = jax.random.key(0)

Cases = dict[str, Callable[[], object]]


def texts(heading: str) -> list[str]:
    """What the second column of a table quotes; the names of classes aside, which are one word."""
    table = PAGE[PAGE.index(heading) :].split("\n\n")[1]
    rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in table.splitlines()[2:]]
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row[1]) if " " in text]


def counting(transform: Callable[..., object]) -> js.Transformed:
    """A program of x that counts its turns in a variable `n`, inside `transform`."""

    def program(x):
        js.get_variable("n", [], trainable=False, initializer=js.zeros_initializer())

        def count(x):
            js.assign("n", js.value("n") + 1)
            return x * 2

        return transform(count, x)

    return js.transform(program)


def update(transform: Callable[..., object], x: jax.Array = X) -> object:
    return counting(transform).update({"n": jnp.float32(0)}, x)


def updated_grad(transform: Callable[..., object]) -> object:
    return jax.grad(lambda x: update(transform, x)[0])(X)  # type: ignore[index]


def scan(body, x):
    return jax.lax.scan(lambda carry, _: (body(carry), None), x, None, length=2)[0]


def branch(f, x):
    return jax.lax.cond(x > 0, f, lambda x: x, x)


def while_loop(f, x):
    return jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, f(s[1])), (0, x))[1]


def condition(f, x):
    return jax.lax.while_loop(lambda s: f(s) < 3, lambda s: s + 1, x)


def at_once(f, x):
    with jax.ensure_compile_time_eval():
        return f(x)


def custom_jvp(f, x):
    g = jax.custom_jvp(f)
    g.defjvp(lambda primals, tangents: (f(*primals), 2 * tangents[0]))
    return g(x)


def custom_vjp(f, x):
    g = jax.custom_vjp(f)
    g.defvjp(lambda x: (f(x), None), lambda _, slope: (2 * slope,))
    return g(x)


def assigns_what_is_differentiated(x):
    js.get_variable("n", [], trainable=False)

    def f(x):
        js.assign("n", x)
        return x * x

    return jax.grad(f)(x)


def reads_what_is_differentiated(x):
    def f(x):
        with js.variable_scope("a", reuse=js.AUTO_REUSE):
            return x * js.get_variable("w", [])

    return custom_vjp(f, x)


def takes_a_default_name(x):
    with js.variable_scope(None, "d"):
        return x * js.get_variable("w", []) + jnp.float32(1)


def branches_on_a_value(f, x):
    return jax.jit(f)(x) if x > 0 else x


def partials_of_one_function():
    def turn(k, x):
        k = 0.0 if k is None else k + 1
        x = takes_a_default_name(x)
        return x + k if k else x < 2

    goes_on, body = functools.partial(turn, None), functools.partial(turn, X)
    js.transform(lambda x: jax.lax.while_loop(goes_on, body, x)).specs(X)


def assigns_by_a_python_variable():
    inside = False

    def program(x):
        js.get_variable("n", [], trainable=False)
        jax.jit(lambda x: js.assign("n", x) if inside else x)(x)

    net = js.transform(program)
    net.update({"n": X}, X)
    inside = True
    net.update({"n": X}, X)


def in_build():
    with js.build(KEY):
        jax.jit(lambda x: x * js.get_variable("w", []))(X)


def context_of_a_program(during: Callable[[contextvars.Context], object] = lambda context: None) -> contextvars.Context:
    """A copy of the context that a program ran in; `during` gets it while the program runs."""
    copies = []

    def program():
        copies.append(contextvars.copy_context())
        during(copies[0])

    js.transform(program).apply({})
    return copies[0]


def in_a_copied_context():
    context_of_a_program(lambda context: context.run(lambda: js.get_variable("w", [])))


def after_the_end():
    context_of_a_program().run(lambda: js.get_variable("w", []))


REFUSED: Cases = {
    "inside jax.vmap, which gives it a value for each element": lambda: update(lambda f, x: jax.vmap(f)(x[None])),
    "in a branch of lax.cond under jax.vmap, which runs every branch": lambda: jax.vmap(lambda x: update(branch, x))(
        XS
    ),
    "inside a jax.checkpoint that is differentiated, which runs it twice": lambda: updated_grad(
        lambda f, x: jax.checkpoint(f)(x)
    ),
    "in a branch of lax.cond in a loop that is differentiated": lambda: updated_grad(
        lambda f, x: scan(lambda x: branch(f, x), x)
    ),
    "in a lax.while_loop that is differentiated, which can run twice": lambda: jax.linearize(
        lambda x: update(while_loop, x)[0], X
    ),
    "in the condition of lax.while_loop": lambda: update(condition),
    "inside a jax.custom_jvp function": lambda: jax.jit(lambda x: update(custom_jvp, x))(X),
    "inside a jax.custom_vjp function that is differentiated": lambda: updated_grad(custom_vjp),
    "in a loop or a branch under jax.ensure_compile_time_eval": lambda: update(
        lambda f, x: scan(lambda x: at_once(f, x), x)
    ),
    "inside jax.shard_map": lambda: jax.jit(lambda x: update(on_one_device, x))(XS),
    "from a value that is differentiated inside the program": lambda: js.transform(
        assigns_what_is_differentiated
    ).update({"n": X}, X),
    "gives derivatives for its arguments alone": lambda: jax.grad(js.transform(reads_what_is_differentiated).apply)(
        {"a": {"w": X}}, X
    ),
    "is computed inside a JAX transform, from which it can't be carried out": lambda: js.transform(
        lambda x: jax.jit(lambda x: js.get_variable("w", initializer=x + 1))(x)
    ).specs(X),
    "nobody outside could use it": lambda: js.transform(
        lambda x: jax.jit(lambda x: js.add_to_collection("c", x + 1))(x)
    ).specs(X),
    "a rehearsal would use up the list_iterator among its arguments": lambda: counting(
        lambda f, rows: scan(f, next(rows))
    ).update({"n": X}, iter([X])),
    "the program can't be run abstractly": lambda: counting(branches_on_a_value).update({"n": X}, X),
    "that can't be told apart": partials_of_one_function,
    "was not when the program was run abstractly": assigns_by_a_python_variable,
    "A jscope call inside a JAX transform": in_build,
    "is called in a callback, which is no part of the program": lambda: js.transform(
        lambda: jax.debug.callback(lambda: js.get_variable("w", []))
    ).apply({"w": X}),
    "is called outside any program": lambda: js.get_variable("w", []),
    "is called after its program has ended": after_the_end,
    "from another thread or context": in_a_copied_context,
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    with pytest.raises(js.JscopeError) as caught:
        REFUSED[text]()
    assert text in caught.value.what
    assert caught.value.fix
    assert "test_lift_examples.py" in caught.value.where


def called_before():
    """A cond that assigns, in a function that is traced by the time it is transformed."""
    traced = jax.jit(counting(branch).update)
    traced({"n": X}, X)
    jax.vmap(traced, in_axes=(None, 0))({"n": X}, XS)


def differentiated_later():
    traced = jax.jit(counting(lambda f, x: scan(lambda x: branch(f, x), x)).update)
    traced({"n": X}, X)
    jax.grad(lambda x: traced({"n": X}, x)[0])(X)


def in_a_kernel():
    def kernel(x_ref, out_ref):
        out_ref[...] = x_ref[...] * js.get_variable("w", [])

    shape = jax.ShapeDtypeStruct((8,), jnp.float32)
    js.transform(lambda x: pl.pallas_call(kernel, out_shape=shape, interpret=True)(x)).apply({"w": X}, jnp.ones(8))


def on_one_device(f, x):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    return jax.shard_map(f, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"))(x)


def counter() -> jax.Array:
    return js.get_variable("n", [], trainable=False, initializer=js.zeros_initializer())


def assigns_outside_vmap(x):
    n = counter()
    y, new = jax.vmap(lambda x: (x * 2, n + x))(jnp.stack([x, x + 2]))
    js.assign("n", new.mean())
    return y.sum()


def assigns_where(x):
    counter()

    def turn(y, step):
        js.assign("n", jnp.where(step > 1, js.value("n") + step, js.value("n")))
        return y * x, None

    return jax.lax.scan(turn, x, jnp.arange(4.0))[0]


def carries(x):
    _, y, n = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 2, s[2] + 1), (0, x, counter()))
    js.assign("n", n)
    return y


def carries_the_condition(x):
    counter()

    def turn(state):
        js.assign("n", js.value("n") + 1)
        return js.value("n") < 3, state[1] * 2

    return jax.lax.while_loop(lambda state: state[0], turn, (True, x))[1]


def assigns_outside_custom_jvp(x):
    f = jax.custom_jvp(lambda n, x: (x * 2, n + 1))
    f.defjvp(lambda primals, tangents: (f(*primals), (2 * tangents[1], tangents[0])))
    y, n = f(counter(), x)
    js.assign("n", n)
    return y


def stops_the_gradient(x):
    counter()

    def f(x):
        js.assign("n", jax.lax.stop_gradient(3 * x))
        return x * x

    return jax.grad(f)(x)


def returns_beside_the_gradient(x):
    counter()
    slope, n = jax.grad(lambda x: (x * x, 3 * x), has_aux=True)(x)
    js.assign("n", n)
    return slope


# What a program gives for x = 2, the derivative of that, and `n`.
WAYS_OUT = [
    (assigns_outside_vmap, 4 + 8, 2 + 2, (2 + 4) / 2),
    (assigns_where, 2**5, 5 * 2**4, 2 + 3),
    (carries, 2**4, 2**3, 3),
    (carries_the_condition, 2**4, 2**3, 3),
    (assigns_outside_custom_jvp, 4, 2, 1),
    (stops_the_gradient, 4, 2, 6),
    (returns_beside_the_gradient, 4, 2, 6),
]


@pytest.mark.parametrize(("program", "y", "slope", "n"), WAYS_OUT, ids=[row[0].__name__ for row in WAYS_OUT])
def test_the_ways_out_are_right(program, y, slope, n):
    net = js.transform(program)
    tree = {"n": jnp.float32(0)}
    got, new = jax.jit(net.update)(tree, X)
    assert (float(got), float(new["n"])) == (y, n)
    if program is not carries_the_condition:  # a while_loop that assigns can't be differentiated
        primal, tangent = jax.jvp(lambda x: net.update(tree, x)[0], (X,), (jnp.float32(1),))
        assert (float(primal), float(tangent)) == (y, slope)


def test_where_is_the_way_out_under_an_outer_vmap():
    def program(x):
        counter()
        js.assign("n", jnp.where(x > 0, js.value("n") + x, js.value("n")))

    new = jax.vmap(lambda x: js.transform(program).update({"n": X}, x)[1]["n"])(jnp.array([-1.0, 1.0]))
    assert new.tolist() == [2, 3]


def test_the_way_out_of_a_body_that_is_traced_twice():
    net = js.transform(lambda x: scan(takes_a_default_name, x))
    assert list(net.specs(jnp.float32(1))) == ["d/w"]
    # Two turns of x * w + 1 with w = 3: 2 * 3 + 1, then 7 * 3 + 1.
    assert float(net.apply({"d": {"w": jnp.float32(3)}}, X)) == 22


def test_an_initializer_inside_is_the_way_out():
    initializer = lambda key, shape, dtype: jnp.full(shape, 3, dtype)  # noqa: E731
    net = js.transform(lambda x: jax.jit(lambda x: x * js.get_variable("w", [], initializer=initializer))(x))
    assert float(net.init(KEY, X)["w"]) == 3


def reading(transform: Callable[..., object]) -> js.Transformed:
    """A program that assigns `n` in a place where that is allowed, and reads it inside `transform`."""

    def program(x):
        counter()
        jax.jit(lambda: js.assign("n", js.value("n") + 1))()
        return transform(lambda x: x * js.value("n"), x)

    return js.transform(program)


def test_what_is_assigned_can_be_read_in_vmap():
    y, new = reading(lambda f, x: jax.vmap(f)(jnp.stack([x, x + 1]))).update({"n": jnp.float32(2)}, X)
    assert (y.tolist(), float(new["n"])) == ([6, 9], 3)


def slope_of_update(net: js.Transformed) -> object:
    return jax.grad(lambda x: net.update({"n": X}, x)[0])(X)


READS: dict[str, Callable[[], object]] = {
    "branch in vmap": lambda: reading(lambda f, x: jax.vmap(lambda x: branch(f, x))(x[None])).update({"n": X}, X),
    "branch under an outer vmap": lambda: jax.vmap(lambda x: reading(branch).update({"n": X}, x))(XS),
    "checkpoint": lambda: slope_of_update(reading(lambda f, x: jax.checkpoint(f)(x))),
    "branch in a loop": lambda: slope_of_update(reading(lambda f, x: scan(lambda x: branch(f, x), x))),
    "while_loop": lambda: jax.linearize(lambda x: reading(while_loop).update({"n": X}, x)[0], X),
    "condition": lambda: reading(condition).update({"n": X}, X),
    "custom_jvp": lambda: jax.jit(lambda x: reading(custom_jvp).update({"n": X}, x))(X),
    "custom_vjp": lambda: slope_of_update(reading(custom_vjp)),
    "shard_map": lambda: jax.jit(lambda x: reading(on_one_device).update({"n": X}, x))(XS),
}


@pytest.mark.parametrize("case", READS)
def test_what_is_assigned_can_be_read_nowhere_else_where_it_can_not_be_assigned(case):
    with pytest.raises(js.TransformError, match="'n' is read in"):
        READS[case]()


def assigned_in_a_loop(x):
    """The value after two turns of x * n, where each turn adds its x to n, which is 2 at first."""

    def turn(x):
        value = x * js.value("n")
        js.assign("n", js.value("n") + jax.lax.stop_gradient(x))
        return value

    def program(x):
        js.get_variable("n", [], trainable=False)
        return scan(turn, x)

    return js.transform(program).update({"n": X}, x)[0]


def regularizer_of_a_turn():
    def turn(x):
        return x * js.get_variable("w", [], regularizer=lambda w: w * x)

    js.transform(lambda x: scan(turn, x) + js.get_regularization_loss()).apply({"w": X}, X)


OWN: Cases = {
    "NotImplementedError: State effect not supported in vmap-of-cond.": called_before,
    "NotImplementedError: State effect not supported in cond partial-eval.": differentiated_later,
    "Detected differentiation of a custom_vjp function with respect to a closed-over value": lambda: jax.grad(
        jax.jit(js.transform(reads_what_is_differentiated).apply)
    )({"a": {"w": X}}, X),
    "Reverse-mode differentiation does not work for lax.while_loop": lambda: jax.grad(
        lambda x: while_loop(lambda x: x * 2, x)
    )(X),
    "ValueError: at vmap out_axes[0], got axis spec None but output was batched on axis 0": lambda: jax.hessian(
        assigned_in_a_loop
    )(X),
    "captures constants": in_a_kernel,
    "UnexpectedTracerError: Encountered an unexpected tracer.": regularizer_of_a_turn,
}


@pytest.mark.parametrize("text", OWN)
def test_what_ends_in_errors_of_jax(text):
    """A failure here means that JAX or jscope has changed, and that the page must change."""
    with pytest.raises(Exception, match=re.escape(text.split(": ")[-1])) as caught:
        OWN[text]()
    assert not isinstance(caught.value, js.JscopeError)
    assert text in f"{type(caught.value).__name__}: {caught.value}"


def test_second_derivatives_of_what_a_loop_assigns():
    def by_hand(x):
        return x * X * (X + jax.lax.stop_gradient(x))

    slope, want = jax.grad(assigned_in_a_loop), jax.grad(by_hand)
    one = (X,), (jnp.float32(1),)
    assert float(slope(X)) == float(want(X))
    assert float(jax.jvp(slope, *one)[1]) == float(jax.jvp(want, *one)[1])
    again = jax.grad(slope)
    if jax.__version_info__ >= (0, 11):
        assert float(again(X)) == float(jax.grad(want)(X))
    else:
        with pytest.raises(AttributeError, match="has no attribute accum"):
            again(X)


def test_each_row_of_the_page_has_its_program():
    assert texts("**Refused.**") == list(REFUSED)
    assert texts("**JAX's own errors.**") == list(OWN)


def test_shard_map_on_eight_devices():
    section = PAGE[PAGE.index("### A `shard_map` body") :]
    code, output = re.search(r"```python\n(.*?)```\s*```output\n(.*?)```", section, re.DOTALL).groups()
    program = "\n".join(
        [
            "import jax, jax.numpy as jnp, jscope as js",
            code,
            'print("all-reduce" in jax.jit(net.apply).lower(params, x).compile().as_text(), jax.device_count())',
        ]
    )
    # The layer gives i + 2 for row i of eight; the loss is the mean of the squares.
    loss = sum((i + 2) ** 2 for i in range(8)) / 8
    slopes = [sum(2 * (i + 2) * factor for i, factor in enumerate(factors)) / 8 for factors in (range(8), [1] * 8)]
    assert output.split() == [str(loss), f"[{slopes[0]:.0f}.", f"{slopes[1]:.0f}.]"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == output + "True 8\n"
