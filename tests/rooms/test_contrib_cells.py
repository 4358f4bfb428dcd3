"""Cells of `tf.contrib.rnn` against their equations in NumPy, and where TensorFlow is no yardstick."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_runs import quickly

import jscope as js
from jscope import layers
from jscope.layers import contrib as slim

KEY = jax.random.key(0, impl="unsafe_rbg")  # the usual kind takes seconds to compile
RANDOM = np.random.RandomState(0)
X, C, H = (RANDOM.randn(3, n).astype("f4") for n in (4, 5, 5))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def step_of(cell, x=X, c=C, h=H):
    """One step from random variables: the variables by their short names, and (output, c, h)."""
    net = js.transform(lambda x, c, h: cell(x, layers.LSTMStateTuple(c, h)))
    params = js.Params({v.name: RANDOM.randn(*v.shape).astype("f4") for v in net.specs(x, c, h).values()})
    output, state = quickly(net.apply)(params, x, c, h)
    return {name.partition("/")[2]: value for name, value in params.flat().items()}, (output, *state)


def assert_close(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_searched_cell():
    """Zoph and Le, arXiv:1611.01578, figure 8, right; with a projection and biases of the state's part."""
    v, found = step_of(layers.NASCell(5, num_proj=2, use_biases=True), h=H[:, :2])
    a = np.split(X @ v["kernel"], 8, 1)
    b = np.split(H[:, :2] @ v["recurrent_kernel"] + v["bias"], 8, 1)
    left = np.tanh(sigmoid(a[0] + b[0]) * relu(a[1] + b[1]))
    gate = np.tanh(sigmoid(a[2] + b[2]) + relu(a[3] * b[3]))
    right = np.tanh(np.tanh(a[4] + b[4]) * sigmoid(a[5] + b[5]))
    last = sigmoid(np.tanh(a[6] + b[6]) + sigmoid(a[7] + b[7]))
    c = np.tanh(left + C) * gate
    h = np.tanh(c * np.tanh(right + last)) @ v["projection_weights"]
    assert_close(found, (h, c, h))


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_normalized_cell(layer_norm):
    v, found = step_of(layers.LayerNormBasicLSTMCell(5, 0.5, layer_norm=layer_norm))

    def norm(x, scope):
        if not layer_norm:
            return x
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * v[f"{scope}/gamma"] + v[f"{scope}/beta"]

    gates = np.concatenate([X, H], 1) @ v["kernel"] + (0 if layer_norm else v["bias"])
    i, j, f, o = np.split(gates, 4, 1)
    c = C * sigmoid(norm(f, "forget") + 0.5) + sigmoid(norm(i, "input")) * np.tanh(norm(j, "transform"))
    c = norm(c, "state")
    h = np.tanh(c) * sigmoid(norm(o, "output"))
    assert_close(found, (h, c, h))


def test_the_block_cell_is_the_usual_one():
    """Without peepholes it has the variables of `LSTMCell`, by the same names, and gives the same."""
    v, found = step_of(layers.LSTMBlockCell(5, 0.3, cell_clip=0.4))
    usual = js.transform(
        lambda x, c, h: layers.LSTMCell(5, cell_clip=0.4, forget_bias=0.3)(x, layers.LSTMStateTuple(c, h))
    )
    params = {"lstm_cell": v}
    assert set(usual.specs(X, C, H)) == set(js.Params(params).names)
    output, state = quickly(usual.apply)(params, X, C, H)
    assert_close(found, (output, *state))


def test_recurrent_dropout():
    cell = layers.LayerNormBasicLSTMCell(200, layer_norm=False, forget_bias=-100.0, dropout_keep_prob=0.5)
    net = js.transform(lambda x: layers.dynamic_rnn(cell, x, dtype=jnp.float32)[0])
    x = jnp.ones((1, 2, 3))
    params = js.Params({v.name: np.full(v.shape, 0.1, "f4") for v in net.specs(x).values()})
    with pytest.raises(js.MissingRngError):
        net.apply(params, x)
    first, second = quickly(net.apply)(params, x, rng=KEY)[0]
    assert 0.3 < float(np.mean(first == 0)) < 0.7
    assert ((first == 0) != (second == 0)).any()  # anew in each step


@pytest.mark.parametrize(
    ("call", "error", "what"),
    [
        (lambda: layers.NASCell(5)(X, jnp.asarray(C)), js.BadArgumentError, "takes a state such as"),
        (lambda: layers.LSTMBlockCell(5)(X[0], layers.LSTMStateTuple(C, H)), js.BadArgumentError, "dimensions"),
        (lambda: layers.LayerNormBasicLSTMCell(5, dropout_keep_prob=0.0), js.BadArgumentError, "probability"),
        (lambda: layers.static_rnn(layers.GRUCell(4), jnp.asarray(X), dtype=jnp.float32), js.BadTypeError, "list"),
        (lambda: layers.static_rnn(layers.GRUCell(4), [], dtype=jnp.float32), js.BadArgumentError, "no inputs"),
        (lambda: layers.static_rnn(layers.GRUCell(4), [X]), js.BadArgumentError, "initial_state"),
        (
            lambda: layers.static_rnn(layers.GRUCell(4), [X], dtype=jnp.float32, sequence_length=[1.0]),
            js.BadArgumentError,
            "sequence_length",
        ),
        (lambda: slim.bias_add(X, data_format="NCHW"), js.BadArgumentError, "4 dimensions"),
        (lambda: slim.bias_add(X, data_format="NC"), js.BadArgumentError, "data_format"),
        (lambda: slim.one_hot_encoding(X, 3), js.BadArgumentError, "integers"),
        (lambda: slim.unit_norm(X, 2), js.BadArgumentError, "no dimension"),
        (lambda: slim.softmax(X[0]), js.BadArgumentError, "at least 2"),
        (lambda: slim.apply_regularization(jnp.sum), js.BadArgumentError, "no weights"),
        (lambda: slim.apply_regularization(jnp.abs, [X]), js.BadArgumentError, "shape"),
        (lambda: slim.convert_collection_to_dict("c", clear_collection=True), js.BadArgumentError, "clear_collection"),
        (
            lambda: (js.add_to_collection("c", jnp.ones(2)), slim.convert_collection_to_dict("c")),
            js.BadArgumentError,
            "without a name",
        ),
    ],
)
def test_errors(call, error, what):
    with pytest.raises(error, match=what) as raised:
        js.transform(call).specs()
    assert "Fix:" in str(raised.value)
    assert __file__ in str(raised.value)


def test_cells_of_ones_own_in_static_rnn():
    """A cell that asks by `get_variable` in the scope in force finds its variables from the second step on."""

    class Counter(layers.RNNCell):
        state_size = output_size = 1

        def __call__(self, inputs, state, scope=None):
            with js.variable_scope(scope or "counter"):
                state = state + js.get_variable("step", [1])
            return state, state

    net = js.transform(lambda x: layers.static_rnn(Counter(), [x, x, x], jnp.zeros((3, 1)))[1])
    assert net.apply({"rnn/counter/step": jnp.ones(1)}, X)[0, 0] == 3


def test_end_points_of_the_current_values():
    def program(x):
        v = js.get_variable("v", [3], initializer=js.zeros_initializer())
        js.add_to_collection("ends", v)
        js.assign(v, v + 1)
        slim.linear(x, 2, scope="a", outputs_collections=["ends", "more"])
        return slim.utils.convert_collection_to_dict("ends"), slim.convert_collection_to_dict("more")

    net = js.transform(program)
    (ends, more), _ = net.update(net.init(KEY, X), X)
    assert {name: end.shape for name, end in ends.items()} == {"v": (3,), "a": (3, 2)}
    assert ends["v"].tolist() == [1, 1, 1]
    assert list(more) == ["a"]


def test_losses_that_are_applied_are_regularization_losses():
    def program():
        w = js.get_variable("w", [2], initializer=js.ones_initializer(), regularizer=jnp.sum)
        slim.apply_regularization(lambda w: 10 * jnp.sum(w), [w, "w"])
        return js.get_regularization_loss(), js.get_regularization_losses("w"), js.get_regularization_losses()

    total, of_w, every = js.transform(program).apply({"w": jnp.ones(2)})
    assert total == 42
    assert [float(loss) for loss in of_w] == [2]
    assert [float(loss) for loss in every] == [2, 40]


def test_variables_of_cells():
    cell = layers.DropoutWrapper(layers.MultiRNNCell([layers.GRUCell(4, trainable=False), layers.NASCell(4)]))
    noted = []

    def program(x):
        noted.append(cell.variables)
        cell(x, cell.zero_state(3, jnp.float32))
        noted.extend([v.name.rpartition("/")[2] for v in listed] for listed in (cell.weights, cell.trainable_weights))

    js.transform(program).specs(X)
    assert noted == [
        [],
        ["kernel", "bias", "kernel", "bias", "recurrent_kernel", "kernel"],
        ["recurrent_kernel", "kernel"],
    ]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.NASCell(3, 2, use_biases=True),
        lambda: layers.LayerNormBasicLSTMCell(3, layer_norm=False),
        lambda: layers.LSTMBlockCell(3, use_peephole=True),
    ],
)
def test_cells_in_other_dtypes_without_rank_promotion(make, dtype):
    noted = []

    def program(x):
        outputs, _ = layers.static_rnn(make(), [x, x], dtype=dtype, sequence_length=jnp.array([2, 1, 0]))
        noted.extend(output.dtype for output in outputs)

    with jax.numpy_rank_promotion("raise"):
        specs = js.transform(program).specs(jnp.ones((3, 4), dtype))
    assert {v.dtype for v in specs.values()} == set(noted) == {jnp.dtype(dtype)}
