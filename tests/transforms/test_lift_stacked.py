"""`lift(stack=n)`: equal layers as one stacked tree, scanned, beside the same layers unrolled."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope import checkpoint

KEY = jax.random.key(0)
X = jnp.ones((2, 4))
LAYERS = 3

INITIALIZERS = {
    "default": None,
    "zeros": js.zeros_initializer(),
    "constant": js.constant_initializer(np.arange(16.0).reshape(4, 4)),
    "normal": js.random_normal_initializer(stddev=0.1),
    "uniform": js.random_uniform_initializer(),
    "truncated": js.truncated_normal_initializer(),
    "orthogonal": js.orthogonal_initializer(),
    "identity": js.identity_initializer(),
    "scaled": js.variance_scaling_initializer(distribution="untruncated_normal"),
    "of jax": jax.nn.initializers.lecun_normal(),
    "own": lambda key, shape, dtype: jax.random.gamma(key, 2.0, shape, dtype),
}


def block(x: jax.Array, initializer: Any = None) -> jax.Array:
    with js.variable_scope("mlp"):
        w = js.get_variable("w", [4, 4], initializer=initializer, regularizer=decay, constraint=normed)
        shift = js.get_variable("shift", initializer=np.arange(4.0, dtype=np.float32))
        scale = js.get_variable("scale", [])
    seen = js.get_variable("seen", [], jnp.int32, trainable=False)
    js.assign(seen, seen + 1)
    return jnp.tanh(x @ w + shift) * scale


def decay(value: jax.Array) -> jax.Array:
    return jnp.sum(value**2)


def normed(value: jax.Array) -> jax.Array:
    return value / jnp.linalg.norm(value)


def unrolled(x: jax.Array, initializer: Any = None) -> jax.Array:
    with js.variable_scope("layers"):
        for i in range(LAYERS):
            with js.variable_scope(f"layer_{i}"):
                x = block(x, initializer)
    return x


def scanned(x: jax.Array, initializer: Any = None) -> jax.Array:
    net = js.transform(functools.partial(block, initializer=initializer))

    def step(x: jax.Array, layer: js.Params) -> tuple[jax.Array, js.Params]:
        return net.update(layer, x)

    with js.variable_scope("layers"):
        layers = js.lift(net, x, stack=LAYERS)
    x, new = jax.lax.scan(step, x, layers)
    js.assign(layers, new)
    return x


def programs(initializer: Any = None) -> tuple[Any, Any]:
    return tuple(js.transform(functools.partial(one, initializer=initializer)) for one in (unrolled, scanned))


def stack(params: js.Params) -> js.Params:
    return checkpoint.stack(params, "layers/layer_%d", to="layers")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("initializer", INITIALIZERS.values(), ids=INITIALIZERS)
@pytest.mark.parametrize("jitted", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "jit"])
def test_it_starts_from_the_values_of_the_unrolled_layers_to_the_bit(initializer: Any, jitted: bool) -> None:
    one_by_one, stacked = programs(initializer)
    init = jax.jit(stacked.init) if jitted else stacked.init
    assert init(KEY, X) == stack(one_by_one.init(KEY, X))


def test_build_and_specs_give_the_same_values() -> None:
    _, stacked = programs()
    params = stacked.init(KEY, X)
    assert stacked.specs(X).init(KEY) == params
    with js.build(KEY) as built, js.variable_scope("layers"):
        js.lift(js.transform(block), X, stack=LAYERS)
    assert built.params == params


def test_it_computes_what_the_unrolled_layers_compute() -> None:
    one_by_one, stacked = programs()
    params = one_by_one.init(KEY, X)

    def loss(net: Any, params: js.Params) -> tuple[jax.Array, js.Params]:
        out, new = net.update(params, X)
        return jnp.sum(out**2), new

    both = []
    for net, tree in ((one_by_one, params), (stacked, stack(params))):
        trainable, rest = net.specs(X).split(tree)
        value, new = loss(net, tree)
        gradients = jax.grad(lambda part, net=net, rest=rest: loss(net, part | rest)[0])(trainable)
        both.append((value, new, gradients))
    (value, new, gradients), (own_value, own_new, own_gradients) = both
    np.testing.assert_allclose(own_value, value, rtol=1e-6)
    assert own_new == stack(new)
    assert own_new["layers/seen"].tolist() == [1] * LAYERS
    for name, gradient in stack(gradients).flat().items():
        np.testing.assert_allclose(own_gradients[name], gradient, rtol=1e-5, atol=1e-7)


def test_regularizers_and_constraints_act_on_each_layer() -> None:
    one_by_one, stacked = programs()
    params = one_by_one.init(KEY, X)
    loss = stacked.specs(X).regularization_loss(stack(params))
    np.testing.assert_allclose(loss, one_by_one.specs(X).regularization_loss(params), rtol=1e-6)
    constrained = stacked.specs(X).constrain(stack(params))
    for name, value in stack(one_by_one.specs(X).constrain(params)).flat().items():
        np.testing.assert_allclose(constrained[name], value, rtol=1e-6)


def test_what_is_declared_of_one_layer_is_declared_of_all() -> None:
    spec = programs()[1].specs(X)["layers/seen"]
    assert (spec.shape, spec.trainable) == ((LAYERS,), False)
    assert programs()[1].specs(X) == programs()[1].specs(X)


def test_the_first_dimension_has_an_axis_of_its_own() -> None:
    net = js.transform(lambda x: x @ js.get_variable("w", [4, 4], partitioner=jax.P("embed", "mlp")))
    plain = js.transform(lambda x: x @ js.get_variable("w", [4, 4]))

    def program(x: jax.Array) -> None:
        for name, layer, more in (
            ("a", net, {}),
            ("b", net, {"axis": "stages"}),
            ("c", net, {"axis": None}),
            ("d", plain, {}),
            ("e", plain, {"axis": None}),
        ):
            with js.variable_scope(name):
                js.lift(layer, x, stack=2, **more)

    partitions = [spec.partition for spec in js.transform(program).specs(X).values()]
    assert partitions == [
        jax.P("layers", "embed", "mlp"),
        jax.P("stages", "embed", "mlp"),
        jax.P(None, "embed", "mlp"),
        jax.P("layers"),
        None,
    ]


def test_layers_may_have_other_names() -> None:
    net = js.transform(lambda: js.get_variable("w", [4]))

    def stacked() -> None:
        js.lift(net, stack=2, names="block%d/inner")

    def one_by_one() -> None:
        for i in range(2):
            with js.variable_scope(f"block{i}/inner"):
                js.get_variable("w", [4])

    params = js.transform(one_by_one).init(KEY)
    assert js.transform(stacked).init(KEY)["w"].tolist() == [params[f"block{i}/inner/w"].tolist() for i in range(2)]


def test_a_second_lift_under_reuse_finds_the_same() -> None:
    net = js.transform(block)

    def program(x: jax.Array) -> bool:
        trees = []
        for _ in range(2):
            with js.variable_scope("s", reuse=js.AUTO_REUSE):
                trees.append(js.lift(net, x, stack=2))
        first, second = (tree.flat() for tree in trees)
        return all(second[name] is first[name] for name in first)

    assert js.transform(program).apply(js.transform(program).init(KEY, X), X)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"stack": 0}, js.BadArgumentError, "stack=0: there must be one layer at least"),
        ({"stack": -1}, js.BadArgumentError, "stack=-1"),
        ({"stack": True}, js.BadTypeError, "stack is the number of layers, not True"),
        ({"stack": 2.0}, js.BadTypeError, "stack is the number of layers, not 2.0"),
        ({"stack": jax.ShapeDtypeStruct((), jnp.int32)}, js.BadTypeError, "stack is the number of layers, not"),
        ({"stack": 2, "axis": 3}, js.BadTypeError, "axis is the name of a dimension, not 3"),
        ({"stack": 2, "names": "layer"}, js.BadArgumentError, "names='layer' has no one place for the number"),
        ({"stack": 2, "names": "%d_%d"}, js.BadArgumentError, "has no one place for the number"),
        ({"stack": 2, "names": 3}, js.BadArgumentError, "names=3"),
    ],
)
def test_refused(more: dict[str, Any], error: type[js.JscopeError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        js.transform(lambda x: js.lift(js.transform(block), x, **more)).specs(X)
    assert "lift of program block with stack=" in caught.value.asked
    assert caught.value.fix


@pytest.mark.parametrize("more", [{"stak": 2}, {"names": "layer_%d"}, {"axis": None}])
def test_arguments_that_the_program_does_not_take(more: dict[str, Any]) -> None:
    with pytest.raises(js.BadTypeError, match="does not take") as caught:
        js.transform(lambda x: js.lift(js.transform(block), x, **more)).specs(X)
    assert "js.lift(net, ..., stack=" in caught.value.fix


def test_a_number_of_layers_that_jax_traces_is_refused() -> None:
    with pytest.raises(js.BadTypeError, match="it has to be known while the program is traced"):
        js.transform(lambda x, n: js.lift(js.transform(block), x, stack=n)).specs(X, jnp.int32(2))


def test_a_program_with_such_a_parameter_is_refused_by_its_name() -> None:
    net = js.transform(lambda x, names: x)
    with pytest.raises(js.BadNameError, match="which has a parameter called 'names' itself"):
        js.transform(lambda x: js.lift(net, x, stack=2, names="a")).specs(X)
    assert js.transform(lambda x: js.lift(net, x, names="a")).specs(X) == {}


def test_an_initial_value_that_the_layer_computes_is_refused() -> None:
    net = js.transform(lambda x: js.get_variable("w", initializer=jnp.mean(x)))
    with pytest.raises(js.InitializerError, match="'w' can't be lifted: the lifted program computes its initial value"):
        js.transform(lambda x: js.lift(net, x, stack=2)).specs(X)
