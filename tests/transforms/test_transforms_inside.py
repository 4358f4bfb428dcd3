"""One behaviour at a time inside each transform.

In the cells of `test_transforms_matrix.py` one call may do what another fails to do. Here it is alone: in a block that
JAX may remember, which is called twice in one scope and then in another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from matrix import (
    CHEAP,
    CONTEXTS,
    DERIVATIVES,
    HERE_TWICE,
    SINGLES,
    THREEFRY,
    X,
    agrees,
    arrays,
    caller,
    counting,
    in_scopes,
    in_sites,
    is_in,
    may_be_refused,
    number,
    numbers,
    over_singles,
    plain_jax_lacks,
    twice,
    with_trait,
)
from transforms import Nesting, depth, executions, name_of, sites, wrapped
from transforms import calls as calls_of

import jscope as js


def enter(scope: Any) -> None:
    with scope:
        pass


AMBIENT_CALLS: dict[str, Callable[[], Any]] = {
    "get_variable": lambda: js.get_variable("v", []),
    "get_local_variable": lambda: js.get_local_variable("v", []),
    "variable": lambda: js.variable(1.0),
    "variable_scope": lambda: enter(js.variable_scope("inner")),
    "default_name": lambda: enter(js.variable_scope(None, "d")),
    "name_scope": lambda: enter(js.name_scope("inner")),
    "get_variable_scope": lambda: js.get_variable_scope(),
    "template": lambda: js.make_template("t", lambda: None)(),
    "template_now": lambda: js.make_template("t", lambda: None, create_scope_now_=True),
    "value": lambda: js.value("a/v"),
    "assign": lambda: js.assign("a/v", 1.0),
    "next_key": lambda: js.next_key(),
    "global_variables": lambda: js.global_variables(),
    "trainable_variables": lambda: js.trainable_variables(),
    "local_variables": lambda: js.local_variables(),
    "get_collection": lambda: js.get_collection("c"),
    "add_to_collection": lambda: js.add_to_collection("c", 1),
    "get_regularization_losses": lambda: js.get_regularization_losses(),
    "get_regularization_loss": lambda: js.get_regularization_loss(),
    "lift": lambda: js.lift(js.transform(lambda: None)),
}


def check_never_used_again(nesting: Nesting, call: str, run: Callable[..., Any]) -> None:
    calls: list[str] = []
    now = ""

    def body(x: Any) -> Any:
        calls.append(now)
        AMBIENT_CALLS[call]()
        return x

    block = wrapped(nesting, body)

    def program(x: Any) -> Any:
        nonlocal now
        calls.clear()
        for scope, times in HERE_TWICE:
            with js.variable_scope(scope, reuse=js.AUTO_REUSE):
                js.get_variable("v", [])
                for i in range(times):
                    now = f"{scope}{i}"
                    x = block(x)
        return x

    net, once = js.transform(program), calls_of(nesting)
    tree = dict.fromkeys(net.specs(jnp.float32(X)), jnp.float32(1))
    run(caller(net, "update"), tree, jnp.float32(X))
    assert calls == ["a0"] * once + ["a1"] * once + ["b0"] * once


@pytest.mark.sampled(3)
@pytest.mark.parametrize("call", AMBIENT_CALLS)
@over_singles
def test_no_call_lets_a_trace_be_used_again(nesting, call):
    if call != "assign" or not may_be_refused(nesting):
        check_never_used_again(nesting, call, jax.eval_shape)


@pytest.mark.slow
@pytest.mark.parametrize("call", AMBIENT_CALLS)
@over_singles
def test_no_call_lets_a_trace_be_used_again_eagerly(nesting, call):
    if call != "assign" or not may_be_refused(nesting):
        check_never_used_again(nesting, call, lambda f, *args: f(*args))


@over_singles
def test_made_inside(nesting):
    """The names in their order, and the values that they have if they are made outside."""

    def make(x):
        for name in ("second", "first"):
            x = x + jnp.sum(js.get_variable(name, [2, 3], initializer=js.random_normal_initializer()))
        return x

    block = wrapped(nesting, make)

    def program(x, block=block):
        for name in ("b", "a"):
            with js.variable_scope(name, reuse=js.AUTO_REUSE):
                x = block(x)
        return x

    inside, outside = js.transform(program), js.transform(functools.partial(program, block=make))
    assert list(inside.specs(jnp.float32(X))) == ["b/second", "b/first", "a/second", "a/first"]
    made = inside.init(THREEFRY, jnp.float32(X))
    assert made == outside.init(THREEFRY, jnp.float32(X))
    assert len({float(leaf[0, 0]) for leaf in made.flat().values()}) == 4


@pytest.mark.sampled(3)
@over_singles
def test_read_inside(nesting):
    """Products, so that derivatives depend on values: of each scope, of each tree, in two programs."""
    block = wrapped(nesting, lambda x: x * js.get_variable("w", []))

    def program(x, scopes):
        for scope in scopes:
            with js.variable_scope(scope, reuse=js.AUTO_REUSE):
                x = block(x)
        return x

    n = depth(nesting)
    derive = not plain_jax_lacks(nesting, "grad")
    for scopes in ("ab", "bc"):
        f = js.transform(functools.partial(program, scopes=scopes)).apply
        f = jax.jit(jax.value_and_grad(f) if derive else f)
        for v, w in ((2.0, 8.0), (-0.5, 4.0)):
            tree = {scopes[0]: {"w": jnp.float32(v)}, scopes[1]: {"w": jnp.float32(w)}}
            want = X * v**n * w**n
            if derive:
                want = (want, {scopes[0]: {"w": n * want / v}, scopes[1]: {"w": n * want / w}})
            agrees(f(tree, jnp.float32(X)), want)


# The five cases that a token per scope gets wrong: one block, called twice in one scope.


@over_singles
@pytest.mark.parametrize("rng", ["cheap", pytest.param("threefry", marks=pytest.mark.slow)])
def test_case_a_each_call_has_its_own_keys(nesting, rng):
    net = js.transform(twice(wrapped(nesting, lambda x: x + number(js.next_key()))))
    keys = numbers("a", rng)
    assert len(set(keys[: 2 * sites(nesting)])) == 2 * sites(nesting), "these numbers don't tell the keys apart"
    got = jax.jit(net.apply)({}, jnp.float32(X), rng=CHEAP if rng == "cheap" else THREEFRY)
    assert got == in_sites(nesting, lambda i, x: x + keys[i])


@over_singles
def test_case_b_each_call_has_its_own_default_name(nesting):
    def body(x):
        with js.variable_scope(None, "d"):
            return x + js.get_variable("v", [])

    net = js.transform(twice(wrapped(nesting, body)))
    names = ["a/d/v"] + [f"a/d_{i}/v" for i in range(1, 2 * sites(nesting))]
    assert list(net.specs(jnp.float32(X))) == names
    tree = {name: jnp.float32(2**i) for i, name in enumerate(names)}
    assert jax.jit(net.apply)(tree, jnp.float32(X)) == in_sites(nesting, lambda i, x: x + 2**i)


@pytest.mark.sampled(3)
@over_singles
def test_case_c_the_second_call_makes_what_exists(nesting):
    traced = []

    def body(x):
        traced.append(1)
        return x * js.get_variable("w", [])

    net = js.transform(twice(wrapped(nesting, body)))
    for call in (lambda: net.specs(jnp.float32(X)), lambda: net.apply({"a/w": jnp.float32(1)}, jnp.float32(X))):
        traced.clear()
        with pytest.raises(js.VariableExistsError) as caught:
            call()
        assert is_in(body, caught.value.where)
        assert len(traced) == nesting[0].calls + 1


@pytest.mark.sampled(3)
@over_singles
def test_case_d_each_call_counts(nesting):
    def body(x):
        with js.variable_scope(js.get_variable_scope(), reuse=js.AUTO_REUSE):
            n = js.get_variable("n", [], jnp.int32, js.zeros_initializer(), trainable=False)
        js.assign(n, n + 1)
        return x

    net = js.transform(twice(wrapped(nesting, body)))
    if may_be_refused(nesting):
        with pytest.raises(js.TransformError) as caught:
            jax.jit(net.update)({"a/n": jnp.int32(5)}, jnp.float32(X))
        assert is_in(body, caught.value.where)
        return
    assert jax.jit(net.update)({"a/n": jnp.int32(5)}, jnp.float32(X))[1]["a/n"] == 5 + 2 * executions(nesting)


@over_singles
def test_case_e_one_variable_has_one_loss(nesting):
    def body(x):
        with js.variable_scope(js.get_variable_scope(), reuse=js.AUTO_REUSE):
            return x * js.get_variable("w", [], regularizer=lambda w: 7 * w)

    program = twice(wrapped(nesting, body))
    net = js.transform(lambda x: (program(x), js.get_regularization_losses(), js.get_regularization_loss()))
    _, losses, loss = jax.jit(net.apply)({"a/w": jnp.float32(2)}, jnp.float32(X))
    assert losses == [14]
    assert loss == 14


# Each other behaviour alone.


@over_singles
def test_one_template_shares_its_variables(nesting):
    scale = js.make_template("scale", lambda x: x * js.get_variable("s", []))
    block = wrapped(nesting, scale)
    net = js.transform(lambda x: block(scale(block(x))))
    assert list(net.specs(jnp.float32(X))) == ["scale/s"]
    assert jax.jit(net.apply)({"scale/s": jnp.float32(2)}, jnp.float32(X)) == X * 2 ** (2 * depth(nesting) + 1)


@pytest.mark.sampled(3)
@over_singles
def test_a_template_in_a_block_is_one_for_each_trace(nesting):
    block = wrapped(nesting, lambda x: js.make_template("t", lambda x: x + js.get_variable("v", []))(x))
    net = js.transform(twice(block))
    names = ["a/t/v"] + [f"a/t_{i}/v" for i in range(1, 2 * sites(nesting))]
    assert list(net.specs(jnp.float32(X))) == names
    tree = {name: jnp.float32(2**i) for i, name in enumerate(names)}
    assert jax.jit(net.apply)(tree, jnp.float32(X)) == in_sites(nesting, lambda i, x: x + 2**i)


@pytest.mark.sampled(3)
@over_singles
def test_losses_and_collections_inside(nesting):
    """A regularizer that is asked inside, and what is collected inside, in the order of the calls."""
    found = []

    def body(x):
        with js.variable_scope(js.get_variable_scope(), reuse=js.AUTO_REUSE):
            w = js.get_variable("w", [], regularizer=lambda w: 7 * w, collections=["mine"])
        js.add_to_collection("order", js.get_variable_scope().name)
        found.append([v.name for v in js.get_collection("mine")])
        return x + js.get_regularization_loss() + 0 * w

    block = wrapped(nesting, body)

    def program(x):
        found.clear()
        for scope, times in HERE_TWICE:
            with js.variable_scope(scope):
                for _ in range(times):
                    x = block(x)
        return x, js.get_collection("order")

    once, there, outside = sites(nesting), [], js.transform(lambda x: there.append(program(x)[1]))
    outside.specs(jnp.float32(X))
    assert there == [["a"] * 2 * once + ["b"] * once]
    often = calls_of(nesting)
    assert found == [["a/w"]] * 2 * often + [["a/w", "b/w"]] * often
    net = js.transform(lambda x: program(x)[0])
    tree = {"a/w": jnp.float32(2), "b/w": jnp.float32(3)}
    assert jax.jit(net.apply)(tree, jnp.float32(X)) == X + depth(nesting) * (2 * 14 + 35)


@over_singles
def test_what_is_missing_is_not_found(nesting):
    def body(x):
        with js.variable_scope("inner", reuse=True):
            return x * js.get_variable("w", [])

    net = js.transform(twice(wrapped(nesting, body)))
    for call in (lambda: net.specs(jnp.float32(X)), lambda: net.apply({"a/inner/w": 1.0}, jnp.float32(X))):
        with pytest.raises(js.VariableNotFoundError) as caught:
            call()
        assert is_in(body, caught.value.where)


@pytest.mark.sampled(3)
@over_singles
def test_faults_of_the_tree_are_found_inside(nesting):
    net = js.transform(twice(wrapped(nesting, lambda x: x * js.get_variable("w", []))))
    with pytest.raises(js.ParamsMismatchError, match="'a/w' is missing"):
        net.apply({}, jnp.float32(X))
    with pytest.raises(js.AssignError, match="update"):
        js.transform(wrapped(nesting, counting)).apply({"m/n": 0.0, "m/total": 0.0}, jnp.float32(X))
    with pytest.raises(js.MissingRngError):
        js.transform(wrapped(nesting, lambda x: x + number(js.next_key()))).apply({}, jnp.float32(X))


@pytest.mark.parametrize("nesting", [row for row in SINGLES if "reverse" not in row[0].traits], ids=name_of)
def test_a_condition_reads(nesting):
    """`cond_fun` of a `while_loop` in the transform asks for variables, in each scope and tree."""

    def go_on(state):
        return state < js.get_variable("limit", [])

    def turn(state):
        return state * js.get_variable("w", [])

    net = js.transform(in_scopes(wrapped(nesting, lambda x: jax.lax.while_loop(go_on, turn, x)), "ab"))
    assert list(net.specs(jnp.float32(X))) == ["a/limit", "a/w", "b/limit", "b/w"]
    for a, b in ((10.0, 100.0), (1.0, 7.0)):
        tree = {"a": {"limit": a, "w": 2.0}, "b": {"limit": b, "w": 3.0}}
        want = X
        for limit, w in ((a, 2.0), (b, 3.0)):
            while want < limit:  # once is enough: where the transform does it again, it is past the limit
                want *= w
        assert jax.jit(net.apply)(tree, jnp.float32(X)) == want


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nesting", with_trait(*DERIVATIVES), ids=name_of)
def test_a_differentiated_value_is_not_assigned(nesting):
    """Inside a derivative, the value that a variable gets must not depend on what the derivative is taken by."""

    def body(x, stop):
        last = js.get_variable("last", [], trainable=False)
        js.assign(last, last + stop(x))
        return x * x

    refused = js.transform(wrapped(nesting, lambda x: body(x, lambda x: x)))
    with pytest.raises(js.TransformError, match="stop_gradient") as caught:
        refused.update({"last": 2.0}, jnp.float32(X))
    assert is_in(body, caught.value.where)
    right = js.transform(wrapped(nesting, lambda x: body(x, jax.lax.stop_gradient)))
    out, after = jax.jit(right.update)({"last": 2.0}, jnp.float32(X))
    assert (out, after["last"]) == (X * X, 2 + X)


def test_what_a_program_raises_after_it_has_assigned_is_its_own():
    """Also where it has no class, as what JAX raises at an assignment of a value that is differentiated."""

    def body(x):
        js.assign("last", jax.lax.stop_gradient(x))
        return x * x

    def program(x):
        js.get_variable("last", [], trainable=False)
        jax.grad(body)(x)
        raise Exception("mine")

    with pytest.raises(Exception, match=r"^mine$"):
        js.transform(program).update({"last": 2.0}, jnp.float32(X))


@pytest.mark.parametrize("nesting", with_trait("branches"), ids=name_of)
def test_what_jscope_can_not_see(nesting):
    """A cond that assigns, traced before and under vmap only then: jscope does not run any more, and JAX refuses."""
    net = js.transform(wrapped(nesting, counting))
    tree = arrays({"m/n": 0.0, "m/total": 0.0})
    with pytest.raises(NotImplementedError, match="vmap-of-cond"):
        CONTEXTS["vmap_of_traced"](net.update)(tree, jnp.float32(X))
