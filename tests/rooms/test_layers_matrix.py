"""Every layer in the settings of JAX that other libraries' layers run in: right, or refused in jscope's words.

Most of it only traces, which shows types, shapes and refusals. The slow part computes, and compares with the plain run.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import layer_matrix
import numpy as np
import pytest
from jax import export
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from layer_matrix import LAYERS, Layer

import jscope as js
import jscope.layers as layers
from jscope.layers import contrib as slim

KEY = jax.random.key(0, impl="unsafe_rbg")
DIMENSIONS = ("batch", "height", "width", "depth")
SAMPLE = ("dense", "dropout", "conv2d", "batch_normalization in training", "BasicRNNCell", "layer_norm")
every_layer = pytest.mark.parametrize("name", LAYERS)


def slowly_but(sample: tuple[str, ...]) -> pytest.MarkDecorator:
    """Every layer, those of a sample in the default suite."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in sample else pytest.mark.slow) for name in LAYERS]
    )


slowly_every_layer = slowly_but(SAMPLE)
computed_for_every_layer = slowly_but(("dense", "conv2d", "batch_normalization in training"))


def net_of(layer: Layer) -> js.Transformed:
    return js.transform(lambda x: layer.call(x))


def traced(layer: Layer, x: Any, params: Any = None) -> tuple[list[Any], js.Params]:
    """The types of what a layer gives, and of the tree after it."""
    net = net_of(layer)
    params = net.specs(x).abstract() if params is None else params
    outputs, updated = jax.eval_shape(lambda params, x: net.update(params, x, rng=KEY), params, x)
    return jax.tree.leaves(outputs), updated


def shapes(types: list[Any]) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in types]


NO_LAYERS = re.compile(r"arg_scope|regulariz|initializer|collect|convert_|^Layer$|^RNNCell$|StateTuple$")


def test_every_layer_is_in_the_matrix() -> None:
    """Under one of its names, where TF has several for one function."""
    source = inspect.getsource(layer_matrix)
    names: dict[int, list[str]] = {}
    for room in (layers, slim):
        for name in room.__all__:
            if not NO_LAYERS.search(name):
                names.setdefault(id(getattr(room, name)), []).append(name)
    assert len(names) > 60
    for several in names.values():
        assert any(re.search(rf"\b(layers|slim)\.{name}\b", source) for name in several), several


# Traced ---------------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(4)
@every_layer
def test_under_strict_ranks_and_dtypes(name: str) -> None:
    """`jax_numpy_rank_promotion="raise"` and `jax_numpy_dtype_promotion="strict"`, as other libraries test under."""
    layer = LAYERS[name]
    x = layer.input(dtype=jnp.bfloat16)  # which must be made wider before it meets what is float32
    plain, _ = traced(layer, x)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert shapes(traced(layer, x)[0]) == shapes(plain)


@slowly_every_layer
def test_of_double_precision(name: str) -> None:
    layer = LAYERS[name]
    with jax.enable_x64(True):
        outputs, params = traced(layer, layer.input(dtype=jnp.float64))
    wanted = jnp.float32 if layer.whole_numbers else jnp.float64  # numbers of rows don't say how wide the rows are
    assert {leaf.dtype for leaf in (*outputs, *params.flat().values())} == {jnp.dtype(wanted)}


@slowly_every_layer
def test_of_half_precision(name: str) -> None:
    layer = LAYERS[name]
    outputs, params = traced(layer, layer.input(dtype=jnp.bfloat16))
    if not layer.whole_numbers:
        assert {leaf.dtype for leaf in outputs} == {jnp.dtype(jnp.bfloat16)}
        wide = (
            {"beta", "gamma", "moving_mean", "moving_variance"}
            if any(word in name for word in ("batch_norm", "BatchNorm", "normalized"))
            else set()
        )
        for variable, leaf in params.flat().items():
            assert leaf.dtype == (jnp.float32 if variable.rpartition("/")[2] in wide else jnp.bfloat16)


@slowly_every_layer
@pytest.mark.parametrize("batch", [0, 1])
def test_of_a_small_batch(name: str, batch: int) -> None:
    layer = LAYERS[name]
    if layer.needs_a_batch and not batch:
        with pytest.raises(js.BadArgumentError, match=r"no mean to train with(.|\n)*Fix: +leave empty batches out"):
            traced(layer, layer.input(batch))
        return
    plain, _ = traced(layer, layer.input())
    found, _ = traced(layer, layer.input(batch))
    assert [(batch, *shape[1:]) for shape in shapes(plain) if shape[0] == 4] == [
        shape for shape, full in zip(shapes(found), shapes(plain), strict=True) if full[0] == 4
    ]


def symbolic(layer: Layer, open_sizes: int) -> jax.ShapeDtypeStruct:
    x = layer.input()
    sizes = [*DIMENSIONS[:open_sizes], *map(str, x.shape[open_sizes:])]
    return jax.ShapeDtypeStruct(export.symbolic_shape(", ".join(sizes)), x.dtype)


def open_sizes(name: str, layer: Layer) -> int:
    """How many sizes can be left open: all but that of the channels."""
    return 1 if "first" in name else len(layer.shape) - 1


def exported(layer: Layer, x: jax.ShapeDtypeStruct) -> export.Exported:
    net = net_of(layer)
    run = jax.jit(lambda params, x: net.update(params, x, rng=KEY)[0])
    return export.export(run)(net.specs(layer.input()).abstract(), x)


@pytest.mark.sampled(4)
@every_layer
def test_exported_with_open_sizes(name: str) -> None:
    layer = LAYERS[name]
    found = exported(layer, symbolic(layer, open_sizes(name, layer)))
    assert any("batch" in str(aval.shape) for aval in found.out_avals)


# Sharded explicitly ---------------------------------------------------------------------------------------------------

MESH = AbstractMesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)


def over_batch(x: Any) -> jax.P:
    return jax.P("data", *[None] * (x.ndim - 1))


def over_steps(x: Any) -> jax.P:
    return jax.P(None, "data")


def over_batch_and_channels(x: Any) -> jax.P:
    return jax.P("data", *[None] * (x.ndim - 2), "model")


def whole(x: Any) -> jax.P:
    return jax.P()


def over_last(axis: str) -> Callable[[Any], jax.P]:
    return lambda x: jax.P(*[None] * (x.ndim - 1), axis) if x.shape[-1] % 2 == 0 else jax.P()


def over_rows(x: Any) -> jax.P:
    return jax.P(*[None] * (x.ndim - 2), "model", None) if x.ndim > 1 and x.shape[-2] % 2 == 0 else jax.P()


Specs = Callable[[Any], jax.P]
SHARDINGS: dict[str, tuple[Specs, Specs]] = {
    "batch": (over_batch, whole),
    "batch, and variables over the last dimension": (over_batch, over_last("model")),
    "batch, and variables over the last but one": (over_batch, over_rows),
    "channels": (over_batch_and_channels, whole),
    "channels, and variables over the last dimension": (over_batch_and_channels, over_last("model")),
    "channels, and variables over the last but one": (over_batch_and_channels, over_rows),
    "steps": (over_steps, whole),
    "batch, and variables over the same axis": (over_batch, over_last("data")),
}


def as_sharded(x: Any, spec: jax.P) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(MESH, spec))


def without_tail(spec: jax.P) -> tuple[Any, ...]:
    return tuple(spec)[: max((i for i, axes in enumerate(spec, 1) if axes is not None), default=0)]


def specs_of(tree: Any) -> list[tuple[Any, ...]]:
    return [without_tail(leaf.sharding.spec) for leaf in jax.tree.leaves(tree)]


def sharded_run(layer: Layer, x: jax.P, variables: Specs, whole_variables: frozenset[str] = frozenset()) -> list[Any]:
    """Runs a layer on sharded types; what it assigns stays sharded as it was."""
    params = net_of(layer).specs(layer.input()).abstract()
    given = params.map_with_name(
        lambda name, leaf: as_sharded(leaf, jax.P() if name.rpartition("/")[2] in whole_variables else variables(leaf))
    )
    inputs = as_sharded(layer.input(), x)
    with jax.sharding.use_abstract_mesh(MESH):
        outputs, updated = traced(layer, inputs, given)
    assert specs_of(updated) == specs_of(given)
    return outputs


@pytest.mark.sampled(4)
@every_layer
def test_a_sharded_batch_stays_sharded(name: str) -> None:
    layer = LAYERS[name]
    for output in sharded_run(layer, over_batch(layer.input()), whole):
        assert without_tail(output.sharding.spec) == ((None, "data") if "time first" in name else ("data",))


RESHARD = re.compile(r"jax\.sharding\.reshard\((\w+), (jax\.P\(.*?\))\)")


@slowly_every_layer
@pytest.mark.parametrize("sharding", list(SHARDINGS)[1:])
def test_sharded_explicitly(name: str, sharding: str) -> None:
    """It runs, or says what to reshard; who does what it says, as often as it says so, gets through."""
    layer, (of_inputs, variables) = LAYERS[name], SHARDINGS[sharding]
    x, whole_variables = of_inputs(layer.input()), frozenset[str]()
    for _ in range(6):
        try:
            sharded_run(layer, x, variables, whole_variables)
            return
        except js.BadArgumentError as error:
            fix = error.fix
        found = RESHARD.search(fix)
        assert found is not None
        what, spec = found.groups()
        if what == "inputs":
            assert eval(spec, {"jax": jax}) != x
            x = eval(spec, {"jax": jax})
        else:
            assert what not in whole_variables
            whole_variables |= {what}
    pytest.fail("resharding did not help")


def test_an_assignment_of_another_sharding_is_refused() -> None:
    def program(x: jax.Array) -> None:
        mean = js.get_variable("mean", [6], trainable=False)
        js.assign(mean, x.mean(0))

    net = js.transform(program)
    given = {"mean": as_sharded(jnp.ones(6), jax.P())}
    x = as_sharded(jnp.ones((4, 6)), jax.P(None, "model"))
    with jax.sharding.use_abstract_mesh(MESH):
        with pytest.raises(js.AssignError, match=r"'mean' sharded by jax.P\(\) is assigned .*\('model',\)") as caught:
            jax.eval_shape(net.update, given, x)
        assert "jax.sharding.reshard(value, jax.P())" in caught.value.fix
        assert __file__ in caught.value.where


# Computed -------------------------------------------------------------------------------------------------------------


def computed(layer: Layer, x: Any, params: Any = None) -> list[np.ndarray]:
    net = net_of(layer)
    params = filled(layer, x.dtype) if params is None else params
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(net.update)(params, x, rng=KEY)[0])]


def filled(layer: Layer, dtype: Any = jnp.float32) -> js.Params:
    """Random numbers that are the same for each dtype."""
    random = np.random.default_rng(0)
    return (
        net_of(layer)
        .specs(layer.input(dtype=dtype))
        .abstract()
        .map_with_name(lambda name, leaf: jnp.asarray(abs(random.standard_normal(leaf.shape)) * 0.3 + 0.1, leaf.dtype))
    )


@computed_for_every_layer
def test_values_do_not_depend_on_the_setting(name: str) -> None:
    """Strict ranks and dtypes, a batch of one, double and half precision."""
    layer = LAYERS[name]
    x = layer.input()
    plain = computed(layer, x)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        for mine, theirs in zip(computed(layer, x), plain, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    if "dropout" in name.lower() or name == "multi_head_attention":
        return  # what is drawn depends on dtype and shape
    with jax.enable_x64(True):
        double = computed(layer, layer.input(dtype=jnp.float64))
    half = computed(layer, layer.input(dtype=jnp.bfloat16))
    for mine, theirs, coarse in zip(double, plain, half, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=1e-4)
        assert np.isfinite(coarse.astype(np.float32)).all()
        np.testing.assert_allclose(coarse.astype(np.float32), theirs, rtol=0.1, atol=0.2)


@computed_for_every_layer
def test_what_is_exported_computes_the_same(name: str) -> None:
    layer = LAYERS[name]
    found = exported(layer, symbolic(layer, open_sizes(name, layer)))
    params = filled(layer)
    for x in (layer.input(), layer.input(3)):
        for mine, theirs in zip(jax.tree.leaves(found.call(params, x)), computed(layer, x), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


ON_DEVICES = """
import json, sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding
from layer_matrix import LAYERS
from test_layers_matrix import SAMPLE, computed, filled, over_batch, over_last

mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)

def put(x, spec):
    return jax.device_put(x, NamedSharding(mesh, spec))

def check(name, plain):
    layer = LAYERS[name]
    x = put(layer.input(), over_batch(layer.input()))
    for specs in (lambda leaf: jax.P(), over_last("model")):
        found = computed(layer, x, jax.tree.map(lambda leaf: put(leaf, specs(leaf)), filled(layer)))
        for mine, theirs in zip(found, plain, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5, err_msg=name)

for name in json.loads(sys.argv[1]):
    plain = computed(LAYERS[name], LAYERS[name].input())
    with jax.set_mesh(mesh):
        check(name, plain)
    if name in SAMPLE:  # the arrays alone tell the mesh
        check(name, plain)
    print(name)
"""


@pytest.mark.slow
def test_values_on_a_mesh_are_those_of_one_device() -> None:
    here = os.path.dirname(__file__)
    path = os.pathsep.join([here, os.path.join(here, "..", "support"), *sys.path])
    flags = os.environ | {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4",
        "PYTHONPATH": path,
    }
    command = [sys.executable, "-c", ON_DEVICES, json.dumps(list(LAYERS))]
    done = subprocess.run(command, capture_output=True, text=True, env=flags | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == list(LAYERS)


# Names that Keras knows, and states that do not fit -------------------------------------------------------------------


def expected_activations(x: np.ndarray) -> dict[str, np.ndarray]:
    """Keras's formulas."""
    exp = np.exp(x)
    return {
        "elu": np.where(x > 0, x, exp - 1),
        "exponential": exp,
        "hard_sigmoid": np.clip(0.2 * x + 0.5, 0, 1),
        "linear": x,
        "relu": np.maximum(x, 0),
        "selu": 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (exp - 1)),
        "sigmoid": 1 / (1 + 1 / exp),
        "softmax": exp / exp.sum(-1, keepdims=True),
        "softplus": np.log1p(exp),
        "softsign": x / (1 + abs(x)),
        "tanh": np.tanh(x),
    }


X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32) * 2


@pytest.mark.parametrize("name", expected_activations(X))
def test_activation_by_name(name: str) -> None:
    wanted = expected_activations(X)[name]

    def program(x: jax.Array) -> Any:
        return layers.dense(x, 4, name, use_bias=False), slim.fully_connected(x, 4, name, biases_initializer=None)

    params = {"dense/kernel": jnp.eye(4), "fully_connected/weights": jnp.eye(4)}
    for found in js.transform(program).apply(params, jnp.asarray(X)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, name: layers.conv1d(x[..., None], 2, 3, activation=name),
        lambda x, name: layers.conv2d_transpose(x[:, None, :, None], 2, 3, activation=name),
        lambda x, name: layers.separable_conv1d(x[..., None], 2, 3, activation=name),
        lambda x, name: layers.GRUCell(4, name)(x, x),
        lambda x, name: layers.LSTMCell(4, activation=name)(x, (x, x)),
        lambda x, name: slim.conv1d(x[..., None], 2, 3, activation_fn=name),
        lambda x, name: slim.batch_norm(x, activation_fn=name),
    ],
)
def test_an_activation_that_there_is_none_of(call: Callable[[Any, str], Any]) -> None:
    for name in ("rellu", 3):
        with pytest.raises(js.BadArgumentError, match=str(name)) as caught:
            js.transform(lambda x, name=name: call(x, name)).specs(jnp.asarray(X))
        assert set(caught.value.near) == ({"relu", "selu", "elu"} if name == "rellu" else set())
        assert __file__ in caught.value.where


def test_initializers_and_regularizers_by_name() -> None:
    def program(x: jax.Array) -> jax.Array:
        x = layers.dense(x, 4, kernel_initializer="ones", bias_initializer="zeros", kernel_regularizer="l2")
        return slim.fully_connected(x, 4, weights_initializer="glorot_uniform", weights_regularizer="l1_l2")

    net, x = js.transform(program), jnp.asarray(X)
    params = net.init(KEY, x)
    assert (params["dense/kernel"] == 1).all()
    named = np.asarray(params["fully_connected/weights"])
    assert 0 < abs(named).max() <= np.sqrt(6 / 8)
    wanted = 0.01 * 16 + 0.01 * abs(named).sum() + 0.01 * (named**2).sum()
    np.testing.assert_allclose(net.specs(x).regularization_loss(params), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kernel_initializer": "glorot"}, "initializer='glorot'.*glorot_normal"),
        ({"kernel_regularizer": "l3"}, "regularizer='l3'"),
        ({"kernel_constraint": "non_neg"}, "no constraints by name"),
    ],
)
def test_a_name_that_there_is_none_of(arguments: dict[str, str], words: str) -> None:
    with pytest.raises(js.BadArgumentError, match=words):
        js.transform(lambda x: layers.dense(x, 4, **arguments)).specs(jnp.asarray(X))


ZERO = jnp.zeros((2, 3))


@pytest.mark.parametrize(
    ("cell", "state", "words", "fix"),
    [
        (lambda: layers.LSTMCell(3), (ZERO, ZERO), r"Tuple\(c=f32\[2,3\], h=f32\[2,3\]\), not \(f32", "c=..., h="),
        (lambda: layers.LSTMCell(3), [ZERO, ZERO], r"not \[f32\[2,3\], f32", "c=..., h="),
        (lambda: layers.LSTMCell(3), ZERO, r"not f32\[2,3\]", "zero_state"),
        (lambda: layers.LSTMCell(3), layers.LSTMStateTuple(ZERO, None), "h=None", "zero_state"),
        (lambda: layers.LSTMCell(3, num_proj=2), layers.LSTMStateTuple(ZERO, ZERO), r"h=f32\[2,2\]", "zero_state"),
        (lambda: layers.LSTMCell(3, state_is_tuple=False), ZERO, r"f32\[2,6\], not f32\[2,3\]", "zero_state"),
        (lambda: layers.GRUCell(3), jnp.zeros((2, 4)), r"f32\[2,3\], not f32\[2,4\]", "zero_state"),
        (lambda: layers.GRUCell(3), jnp.zeros((1, 3)), r"not f32\[1,3\]", "zero_state"),
        (lambda: layers.GRUCell(3), jnp.zeros(3), r"not f32\[3\]", "zero_state"),
        (lambda: layers.GRUCell(3), jnp.zeros((2, 3), int), r"not i32\[2,3\]", "zero_state"),
        (lambda: layers.GRUCell(3), (ZERO,), r"not \(f32\[2,3\],\)", "zero_state"),
        (lambda: layers.GRUCell(3), "zeros", "no array", "zero_state"),
        (lambda: layers.MultiRNNCell([layers.GRUCell(3)]), [ZERO], r"tuple of 1 states, not \[f32", "tuple"),
        (lambda: layers.MultiRNNCell([layers.GRUCell(3)]), (ZERO, ZERO), "tuple of 1 states", "tuple"),
        (lambda: layers.MultiRNNCell([layers.GRUCell(3)]), ZERO, "tuple of 1 states", "tuple"),
        (lambda: layers.DropoutWrapper(layers.GRUCell(3), 0.5), jnp.zeros((2, 4)), r"not f32\[2,4\]", "zero_state"),
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit(cell: Callable[[], Any], state: Any, words: str, fix: str) -> None:
    """In a loop, in the loop of two cells, and in one step."""
    x = jnp.ones((2, 4, 3))
    calls = [
        lambda: layers.dynamic_rnn(cell(), x, initial_state=state),
        lambda: layers.bidirectional_dynamic_rnn(cell(), cell(), x, None, None, state, jnp.float32),
    ]
    if state != "zeros":
        calls.append(lambda: cell()(x[:, 0], state))
    for call in calls:
        with pytest.raises(js.BadArgumentError, match=words) as caught:
            js.transform(call).specs()
        assert fix in caught.value.fix
        assert __file__ in caught.value.where


def test_a_cell_that_gives_another_state_than_it_takes() -> None:
    class Growing(layers.RNNCell):
        state_size = output_size = 3

        def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
            return inputs, jnp.concatenate([state, state], 1)

    with pytest.raises(js.BadArgumentError, match=r"Growing took .* f32\[2,3\], and gave f32\[2,6\]"):
        js.transform(lambda x: layers.dynamic_rnn(Growing(), x, dtype=jnp.float32)).specs(jnp.ones((2, 4, 3)))


# Causal models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "leaks"), [({}, True), ({"begin_norm_axis": -1}, False)])
def test_layer_norm_sees_later_steps_unless_told_otherwise(arguments: dict[str, int], leaks: bool) -> None:
    net, x = js.transform(lambda x: slim.layer_norm(x, **arguments)), jnp.asarray(X).reshape(1, 4, 3)
    params = net.init(KEY, x)
    changed = net.apply(params, x.at[:, -1].add(1.0))[:, :-1] != net.apply(params, x)[:, :-1]
    assert changed.any() == leaks
    for words in ("all dimensions but the first", "begin_norm_axis=-1"):
        assert words in (slim.layer_norm.__doc__ or "")
