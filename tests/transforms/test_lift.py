"""`lift`: another program's variables under the current scope, as an explicit tree."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from leaks import checking_leaks

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


def counted(x):
    n = js.get_variable("n", [], trainable=False, initializer=js.zeros_initializer())
    js.assign(n, n + 1)
    return x * js.get_variable("w", [], initializer=js.ones_initializer()) + n


counter = js.transform(counted)
S = jnp.float32(2)


def test_update_of_a_lifted_program():
    """The way to assign in a checkpoint that is differentiated: the new values come out as results."""

    def program(x):
        body = jax.checkpoint(counter.update)
        for name in ("a", "b", "a"):
            with js.variable_scope(name, reuse=js.AUTO_REUSE):
                tree = js.lift(counter, x)
                x, new = body(tree, x)
                assert js.assign(tree, new).names == ("n", "w")
        return x, js.value("a/n")

    net = js.transform(program)
    params = {"a": {"n": jnp.float32(10), "w": jnp.float32(3)}, "b": {"n": jnp.float32(20), "w": jnp.float32(5)}}
    expected = ((S * 3 + 10) * 5 + 20) * 3 + 11
    for update in (net.update, jax.jit(net.update)):
        (y, n), after = update(params, S)
        assert (y, n) == (expected, 12)
        assert (after["a/n"], after["b/n"], after["a/w"], after["b/w"]) == (12, 21, 3, 5)

    def loss(w, x):
        y, after = net.update({**params, "b": {"n": params["b"]["n"], "w": w}}, x)
        return y[0], after["b/n"]

    for gradient in (jax.value_and_grad(loss, has_aux=True), jax.jit(jax.value_and_grad(loss, has_aux=True))):
        (y, n), slope = gradient(jnp.float32(5), S)
        assert (y, n, slope) == (expected, 21, (S * 3 + 10) * 3)


def test_assigning_a_part_of_a_lifted_tree():
    def program(x):
        tree = js.lift(counter, x)
        js.assign(tree, {"n": x})
        with pytest.raises(js.ParamsMismatchError, match="'m' is not in the tree"):
            js.assign(tree, {"n": x + 1, "m": x})
        js.assign(tree, tree)  # nothing in it is new
        return js.value("n")

    out, after = js.transform(program).update({"n": jnp.float32(0), "w": jnp.float32(3)}, S)
    assert out == after["n"] == 2
    assert after["w"] == 3


def test_lift_inside_scan_over_stacked_parameters():
    """One lifted tree shared by all turns, and one slice of a stack for each."""

    def program(x):
        trees = []
        for i in range(3):
            with js.variable_scope(f"layer_{i}"):
                trees.append(js.lift(counter, x))
        stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

        def body(x, tree):
            with js.variable_scope("shared", reuse=js.AUTO_REUSE):
                shared = js.lift(counter, x)
                x, new = counter.update(shared, x)
                js.assign(shared, new)
            return counter.update(tree, x)

        x, new = jax.lax.scan(body, x, stack)
        for i, tree in enumerate(trees):
            js.assign(tree, jax.tree.map(lambda leaf: leaf[i], new))  # noqa: B023 (called at once)
        return x

    net = js.transform(program)
    assert net.specs(S).abstract().names == tuple(
        f"{s}/{v}" for s in ("layer_0", "layer_1", "layer_2", "shared") for v in "nw"
    )
    params = js.Params({f"layer_{i}": {"n": jnp.float32(i), "w": jnp.float32(i + 2)} for i in range(3)})
    params |= {"shared": {"n": jnp.float32(7), "w": jnp.float32(11)}}
    expected = 2.0
    for i in range(3):
        expected = (expected * 11 + 7 + i) * (i + 2) + i
    for update in (net.update, jax.jit(net.update)):
        y, after = update(params, S)
        assert y == expected
        assert [float(after[f"layer_{i}/n"]) for i in range(3)] == [1, 2, 3]
        assert after["shared/n"] == 10


def test_what_a_program_declares_is_found_out_once_for_arguments_of_one_kind():
    ran = []

    def dense(x, width, activation=None):
        ran.append((x.shape, width))
        return jnp.tanh(x @ js.get_variable("w", [x.shape[-1], width]))

    net = js.transform(dense)

    def program(x):
        for i, width in enumerate([4, 4, 5, 4, 4]):
            with js.variable_scope(f"layer_{i}"):
                js.lift(net, x, width, activation=jnp.tanh)

    specs = js.transform(program).specs(X)
    assert [spec.shape for spec in specs.values()] == [(3, 4), (3, 4), (3, 5), (3, 4), (3, 4)]
    assert ran == [((2, 3), 4), ((2, 3), 5)]
    js.transform(program).specs(jnp.ones((2, 7)))
    assert ran[2:] == [((2, 7), 4), ((2, 7), 5)]


class Width:
    """An argument that can change what it means."""

    def __init__(self, size):
        self.size = size


def test_what_a_program_declares_is_found_out_once_in_a_run():
    """As long as its arguments can't change what they mean; and nothing is kept from one run to the next."""
    ran = []

    def dense(x, *rest):
        ran.append(rest)
        return x @ js.get_variable("w", [x.shape[-1], 4])

    net = js.transform(dense)
    for rest, runs in (((1, "a"), 1), ((Width(4),), 2)):
        ran.clear()

        def program(x, rest=rest):
            for scope in "ab":
                with js.variable_scope(scope):
                    js.lift(net, x, *rest)

        js.transform(program).specs(X)
        assert len(ran) == runs
        js.transform(program).specs(X)
        assert len(ran) == 2 * runs


@dataclasses.dataclass(frozen=True)
class Named:
    """Equal where the names are equal."""

    sign: object
    width: object = dataclasses.field(default=2, compare=False)

    def __call__(self, x):
        return x * js.get_variable(type(self.sign).__name__, np.shape(np.zeros(self.width)))


@dataclasses.dataclass
class Holds:
    """Without a hash; whether two are equal has no answer."""

    table: object

    def __call__(self, x):
        return x * js.get_variable("w", self.table.shape)


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        (Named(True), Named(1), ["a/bool", "b/int"]),
        (Named(1), Named(1.0), ["a/int", "b/float"]),
        (Named(1, 2), Named(1, 3), ["a/int", "b/int"]),
        (Holds(np.ones(2)), Holds(np.ones(2)), ["a/w", "b/w"]),
        (Holds(jnp.ones(2)), Holds(jnp.ones(3)), ["a/w", "b/w"]),
    ],
)
def test_equal_programs_are_not_taken_for_one(one, other, names):
    def program(lifts):
        for scope, layer in (("a", one), ("b", other)):
            with js.variable_scope(scope):
                js.lift(js.transform(layer), 1.0) if lifts else layer(1.0)

    specs = [js.transform(program).specs(lifts) for lifts in (True, False)]
    assert list(specs[0]) == names
    assert specs[0].abstract() == specs[1].abstract()


def test_an_argument_that_has_changed_since():
    net = js.transform(lambda width: js.get_variable("w", [width.size]))
    width = Width(2)

    def program():
        for scope in "ab":
            with js.variable_scope(scope):
                js.lift(net, width)
            width.size += 1

    assert [spec.shape for spec in js.transform(program).specs().values()] == [(2,), (3,)]


def doubled(x):
    return 2 * x


class Decorated:
    def __init__(self, function):
        functools.update_wrapper(self, function)


@Decorated
def decorated(x):
    return x


doubled_at_once = jax.jit(doubled)
doubled_at_once.__qualname__ = "doubled_at_once"


@pytest.mark.parametrize("function", [doubled, decorated, doubled_at_once])
def test_a_function_whose_attribute_has_changed_since(function, monkeypatch):
    net = js.transform(lambda f: js.get_variable("w", [f.width]))

    def program():
        for scope in "ab":
            with js.variable_scope(scope):
                js.lift(net, function)
            function.width += 1

    monkeypatch.setattr(function, "width", 2, raising=False)
    assert [spec.shape for spec in js.transform(program).specs().values()] == [(2,), (3,)]


def test_an_update_after_one_with_another_attribute(monkeypatch):
    """Law 8: which variables are assigned inside is not kept from a run in which the function was another one."""

    def program(f, xs):
        js.get_variable("n", [], trainable=False, initializer=js.zeros_initializer())
        if f.counts:
            jax.lax.map(lambda x: js.assign("n", js.value("n") + x), xs)

    net, tree = js.transform(program), {"n": jnp.float32(0)}
    monkeypatch.setattr(doubled, "counts", False, raising=False)
    assert float(net.update(tree, doubled, jnp.ones(2))[1]["n"]) == 0
    doubled.counts = True
    assert float(net.update(tree, doubled, jnp.ones(2))[1]["n"]) == 2


@pytest.mark.parametrize("function", [jnp.tanh, jax.nn.relu, jax.nn.gelu, np.sin, doubled, doubled_at_once])
def test_what_a_program_declares_is_found_out_once_for_one_function(function):
    ran = []
    net = js.transform(lambda f, x: ran.append(js.get_variable("w", [])))

    def program():
        for scope in "abc":
            with js.variable_scope(scope):
                js.lift(net, function, 1.0)

    js.transform(program).specs()
    assert len(ran) == 1


def test_lifting_and_declaring_inside_leave_no_tracer():
    layer = js.transform(lambda x: x * js.get_variable("w", []))

    def program(x):
        js.lift(layer, x)
        layer.specs(x)
        return layer.init(jax.random.key(0), x)["w"] * x

    with checking_leaks():
        assert list(js.transform(program).specs(jnp.ones(3))) == ["w"]
        jax.jit(js.transform(program).apply)({"w": jnp.float32(2)}, jnp.ones(3))
