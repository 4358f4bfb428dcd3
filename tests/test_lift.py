"""`lift`: another program's variables under the current scope, as an explicit tree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js

KEY = jax.random.key(0)
X = jnp.ones((2, 3))


def block(x):
    with js.variable_scope("dense"):
        w = js.get_variable("w", [3, 3], regularizer=jnp.sum)
    scale = js.get_variable("scale", initializer=np.float32(2), trainable=False)
    return jnp.tanh(x @ w) * scale


layer = js.transform(block)


def stacked(x):
    for i in range(3):
        with js.variable_scope(f"layer_{i}"):
            x = jax.checkpoint(layer.apply)(js.lift(layer, x), x)
    return x


def inlined(x):
    for i in range(3):
        with js.variable_scope(f"layer_{i}"):
            x = block(x)
    return x


def test_same_variables_and_values_as_the_function_itself():
    lifted, plain = js.transform(stacked), js.transform(inlined)
    assert lifted.specs(X) == plain.specs(X)
    params = lifted.init(KEY, X)
    assert params == plain.init(KEY, X)
    np.testing.assert_allclose(lifted.apply(params, X), plain.apply(params, X), rtol=1e-6)
    grads = jax.jit(jax.grad(lambda p: lifted.apply(p, X).sum()))(params)
    expected = jax.grad(lambda p: plain.apply(p, X).sum())(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), grads, expected)


def test_one_trace_for_all_layers():
    traced = []

    def counted(x):
        traced.append(1)
        return block(x)

    one = js.transform(counted)
    body = jax.checkpoint(one.apply)

    def program(x):
        for i in range(10):
            with js.variable_scope(f"layer_{i}"):
                tree = js.lift(one, x)
                before = len(traced)
                x = body(tree, x)
                bodies.append(len(traced) - before)
        return x

    bodies: list[int] = []
    js.transform(program).specs(X)
    assert bodies == [1] + 9 * [0]


def test_under_reuse_it_finds_the_same_variables():
    def program(x):
        with js.variable_scope("a"):
            first = js.lift(layer, x)
        with js.variable_scope("a", reuse=True):
            second = js.lift(layer, x)
            assert js.get_variable("dense/w") is first["dense/w"]
        assert all(one is other for one, other in zip(first.flat().values(), second.flat().values(), strict=True))
        assert js.name_of(first["dense/w"]) == "a/dense/w"
        with pytest.raises(js.VariableExistsError), js.variable_scope("a"):
            js.lift(layer, x)
        with pytest.raises(js.VariableNotFoundError), js.variable_scope("b", reuse=True):
            js.lift(layer, x)
        return layer.apply(second, x)

    net = js.transform(program)
    params = net.init(KEY, X)
    assert params.names == ("a/dense/w", "a/scale")
    net.apply(params, X)


def test_nested_lifts():
    two = js.transform(lambda x: layer.apply(js.lift(layer, x), x))

    def program(x):
        with js.variable_scope("outer"):
            return two.apply(js.lift(two, x), x)

    net = js.transform(program)
    assert net.init(KEY, X).names == ("outer/dense/w", "outer/scale")
    np.testing.assert_allclose(net.apply(net.init(KEY, X), X), block_by_hand(net.init(KEY, X)["outer"], X), rtol=1e-6)


def block_by_hand(p, x):
    return jnp.tanh(x @ p["dense/w"]) * p["scale"]


def test_collections_and_losses_are_the_outer_programs():
    def program(x):
        js.lift(layer, x)
        return [v.name for v in js.trainable_variables()], js.get_regularization_loss()

    net = js.transform(program)
    params = net.init(KEY, X)
    names, loss = net.apply(params, X)
    assert names == ["dense/w"]
    np.testing.assert_allclose(loss, params["dense/w"].sum(), rtol=1e-6)


def test_scope_defaults_do_not_reach_into_it():
    def program(x):
        with js.variable_scope("s", dtype=jnp.float16, initializer=js.ones_initializer(), regularizer=jnp.max):
            js.lift(layer, x)

    spec = js.transform(program).specs(X)["s/dense/w"]
    assert (spec.dtype, spec.initializer, spec.regularizer) == (jnp.float32, js.glorot_uniform_initializer(), jnp.sum)


def test_in_build_and_refusals():
    with js.build(KEY) as built, js.variable_scope("a"):
        tree = js.lift(layer, X)
        assert tree.names == ("dense/w", "scale")
        with pytest.raises(js.BadTypeError, match="takes a transformed program"):
            js.lift(block, X)
        own = js.transform(lambda x: js.get_variable("m", initializer=jnp.mean(x)))
        with pytest.raises(js.InitializerError, match="'m' can't be lifted"):
            js.lift(own, X)
    assert built.params.names == ("a/dense/w", "a/scale")
    with pytest.raises(js.OutsideProgramError):
        js.lift(layer, X)
