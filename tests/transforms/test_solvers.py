"""Solvers that hand the function to be solved on to a `jax.custom_vjp` function: what it assigns can't be carried."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import ode, sparse
from paths import ROOT

import jscope as js

PAGE = (ROOT / "docs" / "transforms.md").read_text()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def repeated(f: Callable[..., Any], held: Any, y: Any) -> Any:
    return jax.lax.fori_loop(0, 3, lambda _, y: f(y, *held), y)


repeated.defvjp(
    lambda f, held, y: (repeated(f, held, y), None),
    lambda f, held, _, cotangent: (cotangent / 8,),
)


def solve(f: Callable[..., Any], y: Any) -> Any:
    """As solvers of differential equations do: by a rule of their own where, and only where, it is differentiated."""
    f, held = jax.closure_convert(f, y)
    is_differentiated = type(y).__name__ in ("JVPTracer", "LinearizeTracer")
    return repeated(f, held, y) if is_differentiated else repeated.fun(f, held, y)


def program(y: Any, assigns: bool) -> Any:
    js.get_variable("count", [], initializer=js.zeros_initializer(), trainable=False)

    def field(y: Any) -> Any:
        if assigns:
            js.assign("count", js.value("count") + 1)
        return y * 0.5

    return solve(field, y)


net = js.transform(program)


def test_what_is_not_differentiated_assigns() -> None:
    out, params = net.update({"count": jnp.zeros(())}, 1.0, True)
    assert (float(out), float(params["count"])) == (0.125, 3)


def test_what_assigns_nothing_is_differentiated() -> None:
    assert jax.grad(lambda y: net.update({"count": jnp.zeros(())}, y, False)[0])(1.0) == 0.125


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_what_assigns_is_refused_at_its_line(wrap: Callable[..., Any]) -> None:
    with pytest.raises(js.TransformError, match="can't carry its value") as info:
        wrap(jax.grad(lambda y: net.update({"count": jnp.zeros(())}, y, True)[0]))(1.0)
    line = program.__code__.co_firstlineno + 5
    assert info.value.where == f"{__file__}:{line}"
    assert isinstance(info.value.__cause__, jax.errors.UnexpectedTracerError)


def test_the_same_error_about_something_else_stays() -> None:
    def other(y: Any) -> Any:
        js.get_variable("count", [])
        return repeated(lambda y, held: y * held, [y], y)

    with pytest.raises(jax.errors.UnexpectedTracerError):
        jax.grad(lambda y: js.transform(other).update({"count": jnp.zeros(())}, y)[0])(1.0)


# Functions that take another one: how each is called, which transform is around, what JAX says.
UNSEEN: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "custom_linear_solve": (
        lambda f, x: jax.lax.custom_linear_solve(f, x, lambda matvec, b: matvec(b), symmetric=True),
        jax.jit,
        "JaxprInputEffect",
    ),
    "custom_linear_solve, not called": (
        lambda f, x: jax.lax.custom_linear_solve(f, x, lambda matvec, b: b, symmetric=True),
        jax.jit,
        "No state discharge rule",
    ),
    "linear_call": (
        lambda f, x: jax.custom_derivatives.linear_call(lambda _, y: f(y), lambda _, y: y, (), x),
        jax.jit,
        "No state discharge rule",
    ),
    "custom_root": (
        lambda f, x: jax.lax.custom_root(lambda y: f(y) - x, x, lambda g, y: y - g(y), lambda g, y: y / g(x)),
        jax.jit if jax.__version_info__ < (0, 11) else jax.grad,
        "No state discharge rule|no attribute 'ref'",
    ),
    "odeint": (
        lambda f, x: ode.odeint(lambda y, t: -f(y), x, jnp.array([0.0, 1.0])).sum(),
        jax.grad,
        r"no attribute 'ref'|args\[2\]",
    ),
    "sparsify": (lambda f, x: sparse.sparsify(f)(x), lambda f: f, "a Ref can't be passed|Out of bound indexer"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_jscope_can_not_see_ends_in_an_error_of_jax(name: str) -> None:
    solved, around, said = UNSEEN[name]
    assert f"{name.partition(',')[0]}`" in PAGE.partition("**JAX's own errors.**")[2]

    def program(x: Any) -> Any:
        js.get_variable("count", [], jnp.int32, trainable=False)

        def assigns(y: Any) -> Any:
            js.assign("count", js.value("count") + 1)
            return y * 1.0

        return solved(assigns, x)

    with pytest.raises((AttributeError, NotImplementedError, TypeError, ValueError), match=said) as info:
        around(lambda x: js.transform(program).update({"count": jnp.int32(0)}, x)[0])(jnp.float32(1))
    assert not isinstance(info.value, js.JscopeError)
