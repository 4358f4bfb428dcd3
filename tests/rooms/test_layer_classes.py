"""Layer classes where TensorFlow is no yardstick: several programs, JAX's transforms, what a program keeps."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_runs import quickly
from leaks import checking_leaks

import jscope as js
from jscope import layers

KEY = jax.random.key(0, impl="unsafe_rbg")
X = jnp.ones((2, 3))

module_level = layers.Dense(3)


class Scale(layers.Layer):
    """Multiplies by a variable, and adds an array that is none."""

    def build(self, input_shape):
        self.factor = self.add_weight("factor", input_shape[-1:], initializer=js.ones_initializer())
        self.offset = jnp.arange(float(input_shape[-1]))
        self.sizes = {"last": input_shape[-1]}

    def call(self, inputs):
        return inputs * self.factor + self.offset


def test_a_layer_of_the_module_serves_many_programs():
    def one(x):
        return module_level(module_level(x))

    def other(x):
        with js.variable_scope("a"):
            y = layers.Dense(3)(x)
            return module_level(y)

    for _ in range(2):
        assert list(js.transform(one).specs(X)) == ["dense/kernel", "dense/bias"]
        assert [n for n in js.transform(other).specs(X) if "bias" in n] == ["a/dense/bias", "a/dense_1/bias"]
    assert not module_level.built
    assert not hasattr(module_level, "kernel")


def test_what_build_sets_is_the_value_in_the_running_program():
    scale = Scale()

    def program(x):
        y = scale(x)
        js.assign(scale.factor, 2 * scale.factor)
        return y, scale.factor, scale(x), scale.sizes["last"]

    first, factor, second, size = js.transform(program).update({"scale": {"factor": jnp.ones(3)}}, X)[0]
    assert first[0].tolist() == [1, 2, 3]
    assert factor.tolist() == [2, 2, 2]
    assert second[0].tolist() == [2, 3, 4]
    assert size == 3
    assert set(vars(scale)) == set(vars(Scale()))
    with pytest.raises(AttributeError, match="first call"):
        _ = scale.factor


def test_layers_inside_transforms():
    dense = layers.Dense(3, name="d")

    def program(x):
        block = jax.checkpoint(lambda x: jnp.tanh(dense(x)))
        x = block(block(x))
        x, _ = jax.lax.scan(lambda c, _: (dense(c) + layers.Dense(3, name="body")(c), None), x, None, length=4)
        return jax.jit(lambda x: dense(x))(x) + dense(x) @ dense.kernel

    net = js.transform(program)
    specs = net.specs(X)
    assert list(specs) == ["d/kernel", "d/bias", "body/kernel", "body/bias"]
    random = np.random.RandomState(0)
    params = js.Params({v.name: 0.3 * random.randn(*v.shape).astype("f4") for v in specs.values()})

    def by_hand(params, x):
        def dense(name, x):
            return x @ params[name]["kernel"] + params[name]["bias"]

        for _ in range(2):
            x = jnp.tanh(dense("d", x))
        for _ in range(4):
            x = dense("d", x) + dense("body", x)
        return dense("d", x) + dense("d", x) @ params["d"]["kernel"]

    def value_and_gradient(function):
        return quickly(jax.value_and_grad(lambda p: jnp.sum(function(p, X))))(params)

    with checking_leaks():
        found = value_and_gradient(net.apply)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), found, value_and_gradient(by_hand))


def test_a_body_that_is_traced_twice_is_one_layer():
    """The carry becomes a float32 in the first turn, so that JAX traces the body again."""
    dense = layers.Dense(3)

    def program(x):
        def body(carry, _):
            return dense(x) + layers.Dense(3)(x) + carry, None

        carry, _ = jax.lax.scan(body, jnp.float32(0) * jnp.int8(1) + x[:, :1] * 0 + jnp.zeros((2, 3)), None, length=2)
        return carry + dense(x)

    assert [n for n in js.transform(program).specs(X) if "bias" in n] == ["dense/bias", "dense_1/bias"]

    def mapped(x):
        return jax.lax.map(dense, x, batch_size=2)  # three rows: the last one is a turn of its own

    assert list(js.transform(mapped).specs(jnp.ones((3, 1, 3)))) == ["dense/kernel", "dense/bias"]


def test_arrays_of_a_transform_are_not_kept():
    scale = Scale()

    def program(x):
        jax.lax.scan(lambda carry, row: (carry, scale(row)), 0, x)
        return scale.factor, scale.sizes["last"], hasattr(scale, "offset")

    factor, size, has_offset = js.transform(program).apply({"scale": {"factor": jnp.ones(3)}}, X)
    assert factor.shape == (3,)
    assert size == 3
    assert not has_offset


def test_threads_share_a_layer():
    found = {}

    def run(factor):
        params = {"dense": {"kernel": factor * jnp.eye(3), "bias": jnp.zeros(3)}}
        net = js.transform(lambda x: module_level(module_level(x)) * module_level.kernel[0, 0])
        found[factor] = float(net.apply(params, X)[0, 0])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: n**3 for n in range(1, 5)}


def test_layers_copy_and_pickle():
    dense = layers.Dense(4, name="d")
    for again in (copy.copy(dense), copy.deepcopy(dense), pickle.loads(pickle.dumps(dense))):
        program = js.transform(lambda x, again=again: dense(x) + again(x))
        assert [n for n in program.specs(X) if "bias" in n] == ["d/bias", "d_1/bias"]


def test_losses_and_updates():
    def program(x):
        dense = layers.Dense(3, kernel_regularizer=jnp.sum)
        norm = layers.BatchNormalization()
        norm(dense(dense(x)), training=True)
        norm.add_update([js.assign(norm.moving_mean, norm.moving_mean + 1), None])
        dense.add_loss(jnp.float32(3))
        updates = [v.name.rpartition("/")[2] for v in norm.updates]
        return dense.losses, updates, dense.updates, js.get_collection(js.GraphKeys.REGULARIZATION_LOSSES)

    specs = js.transform(program).specs(X)
    params = js.Params({v.name: np.ones(v.shape, "f4") for v in specs.values()})
    losses, updates, none, collected = js.transform(program).update(params, X)[0]
    assert [float(loss) for loss in losses] == [9]
    assert updates == ["moving_mean", "moving_variance", "moving_mean"]
    assert none == []
    assert [float(loss) for loss in collected] == [9, 3]


def test_the_arguments_are_attributes_that_may_be_changed():
    conv = layers.Conv2D(4, 3, name="c")
    assert (conv.filters, conv.kernel_size, conv.strides, conv.name) == (4, 3, (1, 1), "c")
    conv.filters = 5
    assert js.transform(conv).specs(jnp.ones((1, 4, 4, 2)))["c/kernel"].shape == (3, 3, 2, 5)
    assert repr(conv) == "<Conv2D 'c'>"


def test_the_compiled_program_is_that_of_the_function():
    x = jnp.ones((2, 3))
    params = js.transform(module_level).init(KEY, x)
    texts = [
        jax.jit(js.transform(program).apply).lower(params, x).as_text()
        for program in (lambda x: module_level(x), lambda x: layers.dense(x, 3))
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("call", "error", "what"),
    [
        (lambda: layers.Dense(3).scope_name, js.BadArgumentError, "has not been called"),
        (lambda: layers.Conv1D(3, 2, dtype=jnp.float16)(jnp.ones((1, 4, 2))), js.BadArgumentError, "has dtype float16"),
        (lambda: layers.Dense(3)(jnp.ones(3)), js.BadArgumentError, "dimensions"),
        (lambda: layers.Dense(3).kernel, AttributeError, "first call"),
        (lambda: layers.Conv2D(4, 3, 2, dilation_rate=2)(jnp.ones((1, 8, 8, 2))), js.BadArgumentError, "above 1"),
    ],
)  # fmt: skip
def test_errors(call, error, what):
    with pytest.raises(error, match=what):
        js.transform(call).specs()


@pytest.mark.parametrize("layer", [layers.Dense(3), layers.Conv2D(3, 3), layers.BatchNormalization(), layers.Flatten()])
def test_no_inputs(layer):
    with pytest.raises(js.BadArgumentError, match=f"{type(layer).__name__} takes an array, not None"):
        js.transform(lambda: layer(None)).specs()


def test_variables_of_the_classes_are_not_there_in_build():
    class Normed(layers.Dense):
        def build(self, input_shape):
            super().build(input_shape)
            self.norm = jnp.linalg.norm(self.kernel)

    class NormedInCall(layers.Dense):
        def call(self, inputs):
            return super().call(inputs) / jnp.linalg.norm(self.kernel)

    with pytest.raises(AttributeError, match=r"no attribute 'kernel'.*after super\(\).call\(inputs\)"):
        js.transform(lambda x: Normed(3)(x)).specs(X)
    assert list(js.transform(lambda x: NormedInCall(3)(x)).specs(X)) == ["normed_in_call/kernel", "normed_in_call/bias"]


class Own(layers.Layer):
    """Multiplies by a kernel."""

    def build(self, input_shape):
        self.kernel = self.add_weight("kernel", [input_shape[-1], 4])

    def call(self, inputs):
        return inputs @ self.kernel


def halved(getter, name, *args, **kwargs):
    """A custom getter that looks at the shape, and has a variable of its own."""
    shape = kwargs["shape"]
    half = getter(
        f"{name}_half", [], dtype=kwargs["dtype"], initializer=js.constant_initializer(0.5), reuse=kwargs["reuse"]
    )
    return half * getter(name, *args, **kwargs).reshape(shape)


@pytest.mark.parametrize("make", [Own, lambda: layers.Dense(4, use_bias=False)])
@pytest.mark.parametrize("wrapped", [lambda layer: layer, jax.checkpoint, jax.jit])
def test_an_attribute_is_what_custom_getters_give(make, wrapped):
    """As in TensorFlow, where a layer's kernel is what the asking gave; also after a first call inside a transform."""

    def program(x):
        layer = make()
        with js.variable_scope("s", custom_getter=halved):
            first = wrapped(layer)(x)
        return first, layer(x), x @ layer.kernel

    net = js.transform(program)
    assert len(net.specs(X)) == 2
    params = js.Params({name: jnp.full(v.shape, 0.5) for name, v in net.specs(X).items()})
    for found in net.apply(params, X):
        assert found.tolist() == [[0.75] * 4] * 2


def test_attributes_of_a_mixed_precision_getter_have_the_dtype_that_was_asked_for():
    def kept_in_single(getter, name, *args, **kwargs):
        return getter(name, *args, **{**kwargs, "dtype": jnp.float32}).astype(kwargs["dtype"])

    dtypes = []

    def program(x):
        with js.variable_scope("s", custom_getter=kept_in_single):
            for layer in (layers.Dense(4), Own(), layers.BatchNormalization()):
                layer(x)
                dtypes.append(layer.gamma.dtype if hasattr(layer, "gamma") else layer.kernel.dtype)

    js.transform(program).specs(X.astype(jnp.bfloat16))
    assert dtypes == [jnp.bfloat16, jnp.bfloat16, jnp.float32]


def test_reads_of_attributes_and_second_calls_are_uses():
    dense, own = layers.Dense(4, use_bias=False, name="d"), Own(name="o")

    def program(x):
        dense(x) @ dense.kernel.T
        own(x) @ own.kernel.T
        own(x)

    specs = js.transform(program).specs(X)
    line = program.__code__.co_firstlineno
    used = {name: [place.rpartition(":")[2] for place in v.used_at] for name, v in specs.items()}
    assert used == {"d/kernel": [str(line + 1)], "o/kernel": [str(line + 2), str(line + 3)]}


def test_the_losses_of_a_layer_are_not_those_of_names_alike():
    def program(x):
        one, other = (layers.Dense(2, name=name, kernel_regularizer=jnp.sum) for name in ("a.b", "axb"))
        one(x), other(x)
        noted.append(len(one.losses))

    noted = []
    js.transform(program).specs(X)
    assert noted == [1]


def test_outside_a_program():
    with pytest.raises(js.OutsideProgramError):
        layers.Dense(3)(X)
    layer = layers.Dense(3, _scope="s")  # no program to open it in: the first call does

    def program(x):
        with js.variable_scope("a"):
            return layer(x)

    assert list(js.transform(program).specs(X)) == ["a/s/kernel", "a/s/bias"]


def test_layers_in_a_frozen_scope():
    def program(x):
        with js.variable_scope("frozen", trainable=False):
            x = Scale()(layers.Dense(3)(x))
            x = layers.Dense(3, trainable=True, name="thawed")(x)
        return layers.Dense(3)(x)

    assert [v.name for v in js.transform(program).specs(X).values() if v.trainable] == [
        "frozen/thawed/kernel",
        "frozen/thawed/bias",
        "dense/kernel",
        "dense/bias",
    ]


SCOPES = st.recursive(
    st.sampled_from(["dense", "conv1d", "flatten", "named"]),
    lambda inner: st.tuples(st.sampled_from(["a", "b", "dense"]), st.booleans(), st.lists(inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(SCOPES, max_size=6))
def test_objects_called_once_have_the_names_of_functions(script):
    """Whatever scopes they stand in: the first call of a layer is the call of the function."""

    def of_objects(kind, x):
        made = {
            "dense": lambda: layers.Dense(3),
            "conv1d": lambda: layers.Conv1D(3, 1),
            "flatten": lambda: layers.Flatten(),
            "named": lambda: layers.Dense(3, _scope="named", _reuse=js.AUTO_REUSE),
        }[kind]()
        return made(x).reshape(x.shape)

    def of_functions(kind, x):
        made = {
            "dense": lambda: layers.dense(x, 3),
            "conv1d": lambda: layers.conv1d(x, 3, 1),
            "flatten": lambda: layers.flatten(x),
            "named": lambda: layers.dense(x, 3, name="named", reuse=js.AUTO_REUSE),
        }[kind]()
        return made.reshape(x.shape)

    def program(call, script, x):
        for part in script:
            if isinstance(part, str):
                x = call(part, x)
                js.variable(0.0, name="mark")  # named by the op scope in force
            else:
                name, is_unique, inner = part
                scope = js.variable_scope(None, name) if is_unique else js.variable_scope(name, reuse=js.AUTO_REUSE)
                with scope:
                    x = program(call, inner, x)
        return x

    x = jnp.ones((1, 2, 3))
    names = [
        [(v.name, v.key, v.shape) for v in js.transform(program).specs(call, script, x).values()]
        for call in (of_objects, of_functions)
    ]
    assert names[0] == names[1]


CLASSES = [
    name
    for name, value in vars(js.layers).items()
    if inspect.isclass(value) and issubclass(value, js.layers.Layer) and value is not js.layers.Layer
]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_takes_the_arguments_of_its_function(name: str) -> None:
    """Beside those of the call: the inputs, `training`, and what the function's `reuse` says."""
    function = getattr(js.layers, re.sub(r"(?<=[a-z]|D)(?=[A-Z][a-z])", "_", name).lower())
    _, *arguments = inspect.signature(function).parameters
    of_class = set(inspect.signature(getattr(js.layers, name)).parameters)
    assert set(arguments) - {"training", "reuse"} <= of_class
    assert of_class - set(arguments) <= {"dtype", "_scope", "_reuse", "trainable"}
