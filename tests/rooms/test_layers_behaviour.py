"""The layers where TensorFlow is no yardstick: randomness, errors, JAX's transforms, what TF1 has not or can't run."""

from __future__ import annotations

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_runs import quickly

import jscope as js
import jscope.layers as layers
from jscope.layers import contrib as slim

KEY = jax.random.key(0, impl="unsafe_rbg")  # the usual kind takes seconds to compile, in each of many programs
SHAPE = (3, 3, 10, 40)


def apply(program, params, *args, **kwargs):
    return quickly(js.transform(program).apply)(params, *args, **kwargs)


def filled(program, *args, value=None):
    """Params of random numbers, or of one."""
    specs = js.transform(program).specs(*args)
    state = np.random.RandomState(0)
    make = (lambda shape: state.rand(*shape)) if value is None else (lambda shape: np.full(shape, value))
    return js.Params({v.name: np.asarray(make(v.shape), "f4") for v in specs.values()})


def test_layers_are_not_imported_by_jscope():
    code = "import sys, jscope; sys.exit('jscope.layers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_specs_name_the_users_line():
    def program(x):
        x = layers.dense(x, 2)
        return slim.fully_connected(x, 2)

    specs = js.transform(program).specs(jnp.ones((1, 2)))
    first = program.__code__.co_firstlineno
    assert [v.created_at for v in specs.values()] == [f"{__file__}:{first + line}" for line in (1, 1, 2, 2)]


def test_names_of_operations():
    def program(x):
        with js.variable_scope("a"):
            x = layers.dense(x, 2)
            x = layers.dense(x, 2, name="named")
        return slim.fully_connected(layers.dense(x, 2, name="a/named", reuse=js.AUTO_REUSE), 2)

    x = jnp.ones((1, 2))
    net = js.transform(program)
    text = jax.jit(net.apply).lower(filled(program, x), x).as_text(debug_info=True)
    for name in ("a/dense/dot_general", "a/named/dot_general", "a/named_1/dot_general", "fully_connected/dot_general"):
        assert f"jit(program)/{name}" in text
    assert "a/a/" not in text
    assert "fully_connected/fully_connected" not in text


def test_the_compiled_program_is_the_hand_written_one():
    def net(x):
        x = layers.dense(x, 3, jnp.tanh, name="a")
        return slim.fully_connected(x, 2, scope="b")

    def by_hand(params, x):
        x = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
        return jax.nn.relu(x @ params["b"]["weights"] + params["b"]["biases"])

    x = jnp.ones((4, 5))
    params = filled(net, x)
    found = jax.jit(js.transform(net).apply).lower(params, x).as_text()
    assert found.replace("@jit_net", "@jit_by_hand") == jax.jit(by_hand).lower(params, x).as_text()


# Channels first: TensorFlow has no kernels for it on a CPU -----------------------------------------------------------


def first(x):
    return jnp.moveaxis(x, -1, 1)


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((2, 7, 3), lambda x, f: layers.conv1d(x, 4, 3, padding="causal", data_format=f)),
        ((2, 7, 6, 3), lambda x, f: layers.conv2d(x, 4, (3, 2), 2, "same", data_format=f)),
        ((2, 5, 4, 3, 2), lambda x, f: layers.conv3d(x, 4, 2, data_format=f)),
        ((2, 3, 4, 3), lambda x, f: layers.conv2d_transpose(x, 4, (3, 2), (2, 1), "same", data_format=f)),
        ((2, 2, 3, 2, 3), lambda x, f: layers.conv3d_transpose(x, 4, 2, 2, data_format=f)),
        ((2, 7, 3), lambda x, f: layers.separable_conv1d(x, 4, 3, data_format=f, depth_multiplier=2)),
        ((2, 7, 6, 3), lambda x, f: layers.separable_conv2d(x, 4, 3, 2, "same", data_format=f)),
        ((2, 7, 3), lambda x, f: layers.max_pooling1d(x, 3, 2, "same", f)),
        ((2, 7, 6, 3), lambda x, f: layers.average_pooling2d(x, (3, 2), 2, "same", f)),
        ((2, 4, 5, 4, 3), lambda x, f: layers.max_pooling3d(x, 2, 2, data_format=f)),
        ((2, 4, 5, 4, 3), lambda x, f: layers.average_pooling3d(x, 3, 2, "same", data_format=f)),
        ((2, 7, 6, 3), lambda x, f: layers.batch_normalization(x, 1 if f == "channels_first" else 3)),
        ((2, 7, 3), lambda x, f: slim.conv1d(x, 4, 3, data_format="NCW" if f == "channels_first" else "NWC")),
        ((2, 7, 6, 3), lambda x, f: slim.conv2d(x, 4, 3, data_format="NCHW" if f == "channels_first" else None)),
        ((2, 3, 4, 3), lambda x, f: slim.conv2d_transpose(x, 4, 3, 2, data_format=nc(f))),
        ((2, 7, 6, 3), lambda x, f: slim.separable_conv2d(x, 4, 3, data_format=nc(f))),
        ((2, 7, 6, 3), lambda x, f: slim.separable_conv2d(x, None, 3, 2, data_format=nc(f))),
        ((2, 7, 6, 3), lambda x, f: slim.avg_pool2d(x, 3, padding="SAME", data_format=nc(f))),
        ((2, 7, 6, 3), lambda x, f: slim.batch_norm(x, is_training=False, scale=True, data_format=nc(f))),
        ((2, 7, 6, 3), lambda x, f: slim.batch_norm(x, is_training=False, updates_collections=None, data_format=nc(f))),
    ],
)  # fmt: skip
def test_channels_first(shape, layer):
    x = jnp.asarray(np.random.RandomState(1).randn(*shape), "f4")

    def last(x):
        return layer(x, "channels_last")

    def both(params, x):
        found = js.transform(lambda x: layer(x, "channels_first")).apply(params, first(x))
        return found, first(js.transform(last).apply(params, x))

    found, expected = quickly(both)(filled(last, x), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def nc(data_format):
    return "NCHW" if data_format == "channels_first" else "NHWC"


# Dropout --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: layers.dropout(x, 0.25, training=True),
        lambda x: slim.dropout(x, 0.75),
        lambda x: layers.dropout(x, jnp.float32(0.25), training=jnp.array(True)),
    ],
)
def test_dropout_keeps_the_mean(layer):
    x = jnp.full((100, 100), 3.0)
    out = apply(layer, {}, x, rng=KEY)
    kept = out != 0
    assert abs(float(kept.mean()) - 0.75) < 0.02
    np.testing.assert_allclose(out[kept], 4.0, rtol=1e-6)


def test_dropout_draws_anew():
    def program(x):
        a, b = layers.dropout(x, training=True), layers.dropout(x, training=True)
        c, d = (layers.dropout(x, training=True, seed=seed) for seed in (1, 2))
        return jnp.stack([a, b, c, d]) != 0

    run = quickly(js.transform(program).apply)
    out = np.asarray(run({}, jnp.ones(200), rng=KEY))
    assert all((out[i] != out[j]).any() for i in range(4) for j in range(i))
    assert (out == run({}, jnp.ones(200), rng=KEY)).all()
    assert (out != run({}, jnp.ones(200), rng=jax.random.key(1, impl="unsafe_rbg"))).any()


def test_dropout_noise_shape():
    out = apply(lambda x: layers.dropout(x, noise_shape=[None, 1], training=True), {}, jnp.ones((50, 4)), rng=KEY)
    assert (out == out[:, :1]).all()
    assert set(np.unique(out)) == {0.0, 2.0}


def test_dropout_asks_for_rng_only_where_it_drops():
    net, x = js.transform(lambda x, **kwargs: layers.dropout(x, **kwargs)), jnp.ones(3)
    assert (net.apply({}, x) == x).all()
    assert (net.apply({}, x, rate=0.0, training=True) == x).all()
    assert (net.apply({}, x, rate=0, training=np.bool_(True)) == x).all()
    with pytest.raises(js.MissingRngError):
        net.apply({}, x, training=True)
    off = jax.jit(net.apply)({}, x, training=jnp.array(False), rng=KEY)
    assert (off == x).all()


# Batch normalization --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("traced", [False, True])
def test_training_without_update_is_refused(traced):
    training = jnp.array(True) if traced else True
    x = jnp.ones((2, 3))
    for program in (
        lambda x, training: layers.batch_normalization(x, training=training),
        lambda x, training: slim.batch_norm(x, is_training=training),
    ):
        with pytest.raises(js.AssignError, match="update"):
            js.transform(program).apply(filled(program, x, training), x, training)


def test_no_gradient_through_the_moved_average():
    def program(x):
        layers.batch_normalization(x, training=True, name="b", momentum=0.5)
        return layers.batch_normalization(jax.lax.stop_gradient(x), name="b", reuse=True)

    x = jnp.arange(6.0).reshape(3, 2)
    params = filled(program, x)
    net = js.transform(program)

    def objective(x):
        out, _ = net.update(params, x)
        return jnp.sum(out**2), out

    gradient, out = quickly(jax.grad(objective, has_aux=True))(x)
    assert not gradient.any()
    # The second call has seen the averages that the first one moved.
    moved = 0.5 * params["b/moving_mean"] + 0.5 * x.mean(0)
    assert (jnp.sign(out - params["b/beta"]) == jnp.sign(x - moved)).all()


def test_batch_normalization_in_a_scan():
    def program(xs):
        def body(carry, x):
            with js.variable_scope("s", reuse=js.AUTO_REUSE):
                return carry, layers.batch_normalization(x, momentum=0.5, training=True, name="b")

        return jax.lax.scan(body, 0, xs)[1]

    xs = jnp.stack([jnp.full((2, 1), value) for value in (8.0, 8.0, 8.0)])
    net = js.transform(program)
    params = net.init(KEY, xs)
    _, params = jax.jit(net.update)(params, xs)
    assert params["s/b/moving_mean"].tolist() == [7.0]  # 0 -> 4 -> 6 -> 7


def test_update_ops_lists_what_was_moved():
    def program(x, training):
        layers.batch_normalization(x, training=training)
        slim.batch_norm(x, is_training=training, updates_collections=["mine", "too"])
        slim.batch_norm(x, is_training=training, updates_collections=None)
        keys = (js.GraphKeys.UPDATE_OPS, "mine", "too")
        return print([[v.name for v in js.get_collection(key)] for key in keys])

    net, printed = js.transform(program), []
    program.__globals__["print"] = printed.append
    try:
        net.specs(jnp.ones((2, 3)), True)
        net.specs(jnp.ones((2, 3)), False)
    finally:
        del program.__globals__["print"]
    first = ["batch_normalization/moving_mean", "batch_normalization/moving_variance"]
    second = ["BatchNorm/moving_mean", "BatchNorm/moving_variance"]
    assert printed == [[first, second, second], [[], [], []]]


# JAX's transforms and caches ------------------------------------------------------------------------------------------


@jax.jit
def block(x):
    x = slim.fully_connected(x, 2, activation_fn=jnp.tanh, scope="fc")
    return layers.dense(slim.max_pool2d(x[:, None, :, None], [1, 1])[:, 0, :, 0], 2)


def test_a_jitted_block_in_two_scopes():
    """JAX's cache of the block knows neither the scopes nor the `arg_scope`s that are open."""

    def program(x):
        found = []
        for stride in (1, 2):
            with js.variable_scope(None, "s"), js.arg_scope([slim.max_pool2d], stride=stride):
                found.append(block(x))
        return found

    x = jnp.ones((1, 2))
    net = js.transform(program)
    specs = net.specs(x)
    assert [v.name for v in specs.values() if "kernel" in v.name] == ["s/dense/kernel", "s_1/dense/kernel"]
    assert [v.shape for v in specs.values() if "kernel" in v.name] == [(2, 2), (1, 2)]
    params = filled(program, x)
    a, b = jax.jit(net.apply)(params, x)
    by_hand = jnp.tanh(x @ params["s/fc/weights"] + params["s/fc/biases"])
    np.testing.assert_allclose(a, by_hand @ params["s/dense/kernel"] + params["s/dense/bias"], rtol=1e-6)
    by_hand = jnp.tanh(x @ params["s_1/fc/weights"] + params["s_1/fc/biases"])[:, :1]
    np.testing.assert_allclose(b, by_hand @ params["s_1/dense/kernel"] + params["s_1/dense/bias"], rtol=1e-6)


def test_layers_under_vmap_and_checkpoint():
    def program(x):
        return jax.checkpoint(lambda x: layers.dense(layers.dense(x, 3, jnp.tanh), 1))(x)

    x = jnp.ones((5, 4, 2))
    net = js.transform(program)
    params = filled(program, x[0])
    each = jax.jit(jax.vmap(net.apply, (None, 0)))(params, x)
    assert each.shape == (5, 4, 1)
    gradient = jax.jit(jax.grad(lambda p: net.apply(p, x[0]).sum()))(params)
    assert gradient["dense_1/bias"].tolist() == [4.0]


# Cells ----------------------------------------------------------------------------------------------------------------

SHARED = layers.LSTMCell(4)


def test_a_cell_keeps_nothing_between_programs():
    def program(x):
        first, _ = layers.dynamic_rnn(SHARED, x, dtype=jnp.float32)
        second, _ = layers.dynamic_rnn(SHARED, x, dtype=jnp.float32)
        return first, second

    x = jnp.ones((2, 3, 5))
    net = js.transform(program)
    expected = ["rnn/lstm_cell/kernel", "rnn/lstm_cell/bias"]
    assert list(net.specs(x)) == list(net.specs(x)) == expected
    first, second = apply(program, filled(program, x), x)
    assert (first == second).all()
    other = js.transform(lambda x: SHARED(x, SHARED.zero_state(2, jnp.float32))[0])
    assert list(other.specs(x[:, 0])) == ["lstm_cell/kernel", "lstm_cell/bias"]


class Sum(layers.RNNCell):
    """A cell of a user."""

    state_size = (2, [3, 1])
    output_size = 2

    def call(self, inputs, state):
        total, other = state
        total = total + inputs * self.add_weight("w", [2], inputs.dtype, js.ones_initializer())
        return total, (total, other + 1)


def test_a_cell_of_ones_own():
    def program(x):
        return layers.dynamic_rnn(Sum(trainable=False), x, jnp.array([3, 1]), dtype=jnp.float32)

    x = jnp.ones((2, 3, 2))
    net = js.transform(program)
    assert [(v.name, v.trainable) for v in net.specs(x).values()] == [("rnn/sum/w", False)]
    out, (total, other) = apply(program, {"rnn": {"sum": {"w": jnp.ones(2)}}}, x)
    assert out[:, :, 0].tolist() == [[1, 2, 3], [1, 0, 0]]
    assert total[:, 0].tolist() == [3, 1]
    assert other.shape == (2, 3, 1)
    assert other[:, 0, 0].tolist() == [3, 1]


class Echo(layers.RNNCell):
    """Gives its inputs, twice as a tuple, and counts its steps."""

    state_size = 1
    output_size = (1, 1)

    def call(self, inputs, state):
        return (inputs, 2 * inputs), state + 1


@pytest.mark.parametrize("steps", [130, 4])
def test_lengths_of_small_dtypes_and_outputs_that_are_tuples(steps):
    """There may be more steps than int8 has numbers, and outputs may be nested, as in TensorFlow."""
    lengths = [min(steps, length) for length in (3, 100)]
    x = jnp.arange(1.0, 2 * steps + 1).reshape(2, steps, 1)
    more = {"sequence_length": jnp.array(lengths, jnp.int8), "dtype": jnp.float32}

    def program(x):
        parts = list(jnp.swapaxes(x, 0, 1))
        one, state = layers.dynamic_rnn(Echo(), x, **more)
        both, states = layers.bidirectional_dynamic_rnn(Echo(), Echo(), x, **more)
        static, last = layers.static_rnn(Echo(), parts, **more)
        found = [one, *both, jax.tree.map(lambda *outputs: jnp.stack(outputs, 1), *static)]
        if steps == 4:
            static, *_ = layers.static_bidirectional_rnn(Echo(), Echo(), parts, **more)
            joined = jax.tree.map(lambda *outputs: jnp.stack(outputs, 1), *static)
            found += [jax.tree.map(lambda output, at=at: output[..., at], joined) for at in ([0], [1])]
        return found, [state, *states, last]

    outputs, states = js.transform(program).apply({}, x)
    assert all(state.ravel().tolist() == lengths for state in states)
    expected = np.array(x)
    for row, length in zip(expected, lengths, strict=True):
        row[length:] = 0
    for single, double in outputs:
        np.testing.assert_array_equal(single, expected)
        np.testing.assert_array_equal(double, 2 * expected)


def test_lengths_beyond_the_steps():
    """Those that are known are refused where an order depends on them; traced ones are taken for all steps."""
    x = jnp.arange(8.0).reshape(2, 4, 1)

    def dynamic(lengths):
        return layers.bidirectional_dynamic_rnn(Echo(), Echo(), x, lengths, dtype=jnp.float32)[0][1][0]

    def static(lengths):
        steps = list(jnp.swapaxes(x, 0, 1))
        return layers.static_bidirectional_rnn(Echo(), Echo(), steps, dtype=jnp.float32, sequence_length=lengths)[0]

    for program in (dynamic, static):
        for lengths in ([2, 9], jnp.array([2, 9], jnp.int8), np.array([9, 9])):
            with pytest.raises(js.BadArgumentError, match="length of 9, and there are 4 steps"):
                js.transform(lambda program=program, lengths=lengths: program(lengths)).specs()
    found = apply(dynamic, {}, jnp.array([2, 9]))
    assert found[..., 0].tolist() == [[0, 1, 0, 0], [4, 5, 6, 7]]


def test_names_of_cells():
    names = [
        (name, layers.cells.snake_case(name))
        for name in ("BasicLSTMCell", "LSTMCell", "GRUCell", "MultiRNNCell", "MyCell2", "A", "AB", "Ab", "aB")
    ]
    assert dict(names) == {
        "BasicLSTMCell": "basic_lstm_cell",
        "LSTMCell": "lstm_cell",
        "GRUCell": "gru_cell",
        "MultiRNNCell": "multi_rnn_cell",
        "MyCell2": "my_cell2",
        "A": "a",
        "AB": "ab",
        "Ab": "ab",
        "aB": "a_b",
    }


@pytest.mark.parametrize("where", ["input", "output", "state"])
def test_dropout_wrapper_draws_anew_in_each_step(where):
    def program(x):
        cell = layers.DropoutWrapper(layers.BasicLSTMCell(50), **{f"{where}_keep_prob": 0.5})
        return layers.dynamic_rnn(cell, x, dtype=jnp.float32)

    x = jnp.ones((1, 6, 50))
    params = filled(program, x, value=0.01)
    run = quickly(js.transform(program).apply)
    out, state = jax.tree.map(np.asarray, run(params, x, rng=KEY))
    assert (out == run(params, x, rng=KEY)[0]).all()
    if where == "output":
        zeros = out[0] == 0
        assert 0.3 < float(zeros.mean()) < 0.7
        assert all((zeros[i] != zeros[j]).any() for i in range(6) for j in range(i))
    elif where == "state":
        assert 0.3 < float((state.h == 0).mean()) < 0.7
        assert (state.c != 0).all()
    else:  # all weights are equal, so an output tells how many inputs were kept
        counts = {float(value) for value in out[0, :, 0]}
        assert len(counts) > 2
    assert (out != run(params, x, rng=jax.random.key(2, impl="unsafe_rbg"))[0]).any()


# Attention, embeddings, initializers ----------------------------------------------------------------------------------


def test_attention_by_hand():
    def program(x, memory, mask):
        return layers.multi_head_attention(x, memory, 2, key_depth=4, value_depth=6, output_depth=3, mask=mask)

    state = np.random.RandomState(0)
    x, memory = state.randn(2, 3, 5).astype("f4"), state.randn(2, 4, 7).astype("f4")
    mask = np.array([[1, 1, 0, 1], [1, 1, 1, 0]])
    params = filled(program, x, memory, mask)
    name = "multi_head_attention"
    assert list(js.transform(program).specs(x, memory, mask)) == [
        f"{name}/{part}/{v}" for part in ("query", "key", "value", "output") for v in ("kernel", "bias")
    ]
    parts = {part: params[f"{name}/{part}"] for part in ("query", "key", "value", "output")}
    q, k, v = (
        source @ parts[part]["kernel"] + parts[part]["bias"]
        for source, part in ((x, "query"), (memory, "key"), (memory, "value"))
    )
    heads = []
    for head in range(2):
        scores = q[..., 2 * head : 2 * head + 2] @ k[..., 2 * head : 2 * head + 2].transpose(0, 2, 1) / math.sqrt(2)
        weights = np.exp(scores) * mask[:, None, :]
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[..., 3 * head : 3 * head + 3])
    expected = np.concatenate(heads, -1) @ parts["output"]["kernel"] + parts["output"]["bias"]
    for form in (mask, mask[:, None, :] * np.ones((2, 3, 1)), mask[:, None, None, :] > 0):
        np.testing.assert_allclose(apply(program, params, x, memory, jnp.asarray(form)), expected, rtol=2e-5)


def test_attention_drops_in_training():
    def program(x, training):
        return layers.multi_head_attention(x, None, 2, output_depth=0, dropout_rate=0.5, training=training)

    net, x = js.transform(program), jnp.ones((1, 8, 4))
    params = filled(program, x, False)
    assert "multi_head_attention/output/kernel" not in params.names
    out = apply(lambda x: program(x, True), params, x, rng=KEY)
    assert (out != apply(lambda x: program(x, False), params, x)).any()
    with pytest.raises(js.MissingRngError):
        net.apply(params, x, True)


def test_unknown_rows_are_loud():
    ids = jnp.array([0, 3, 4, -1])
    rows = apply(lambda ids: layers.embedding_lookup(js.get_variable("t", [4, 2]), ids), {"t": jnp.ones((4, 2))}, ids)
    assert jnp.isnan(rows).all(1).tolist() == [False, False, True, True]


def test_numbers_of_small_dtypes():
    """A table or a row of classes may have more numbers than the dtype of the labels."""
    table = jnp.arange(40000.0)[:, None]
    found = apply(lambda ids: layers.embedding_lookup(table, ids), {}, jnp.array([-1, 7, -32768], jnp.int16))
    np.testing.assert_array_equal(found.ravel(), [np.nan, 7, np.nan])
    for dtype in (jnp.uint8, jnp.int8):
        assert np.argwhere(apply(lambda x: slim.one_hot_encoding(x, 300), {}, jnp.array([5, 5], dtype))).tolist() == [
            [0, 5],
            [1, 5],
        ]
    assert not apply(lambda x: slim.one_hot_encoding(x, 200), {}, jnp.array([-100], jnp.int8)).any()


def test_rows_of_zeros_have_a_gradient_under_a_norm():
    def program(table):
        return jnp.sum(layers.embedding_lookup(table, jnp.array([0, 1]), max_norm=1.0))

    gradient = jax.grad(js.transform(program).apply, argnums=1)({}, jnp.array([[0.0, 0.0], [0.3, 0.4], [9.0, 9.0]]))
    assert gradient.tolist() == [[1, 1], [1, 1], [0, 0]]


def test_embed_sequence():
    def program(ids):
        rows = slim.embed_sequence(ids, 5, 3, scope="e", regularizer=slim.l2_regularizer(1.0))
        return rows, slim.embed_sequence(ids, scope="e", reuse=True), slim.embed_sequence(ids, 5, 2, trainable=False)

    ids = jnp.array([[0, 4]])
    specs = js.transform(program).specs(ids)
    assert [(v.name, v.shape, v.trainable) for v in specs.values()] == [
        ("e/embeddings", (5, 3), True),
        ("EmbedSequence/embeddings", (5, 2), False),
    ]
    assert all(js.GraphKeys.MODEL_VARIABLES in v.collections for v in specs.values())
    first, second, _ = apply(program, filled(program, ids), ids)
    assert (first == second).all()


@pytest.mark.parametrize(
    ("arguments", "largest", "deviation"),
    [
        ({}, 2 * math.sqrt(2.6 / 90), 0.8796 * math.sqrt(2.6 / 90)),
        ({"factor": 3.0, "mode": "FAN_OUT", "uniform": True}, math.sqrt(9 / 360), math.sqrt(3 / 360)),
        ({"factor": 1.0, "mode": "FAN_AVG"}, 2 * math.sqrt(1.3 / 225), 0.8796 * math.sqrt(1.3 / 225)),
    ],
)
def test_variance_scaling(arguments, largest, deviation):
    initializer = slim.variance_scaling_initializer(**arguments)
    values = np.asarray(initializer(KEY, SHAPE))
    assert 0.95 * largest < abs(values).max() <= 1.00001 * largest
    assert abs(values.std() / deviation - 1) < 0.03
    assert initializer == slim.variance_scaling_initializer(**arguments)
    assert hash(initializer) == hash(slim.variance_scaling_initializer(**arguments))
    assert (slim.variance_scaling_initializer(seed=1, **arguments)(KEY, SHAPE) != values).any()
    for shape, dtype in (((), jnp.float16), ((5,), jnp.float32), ((0, 3), jnp.float32)):
        made = jax.eval_shape(lambda key, shape=shape, dtype=dtype: initializer(key, shape, dtype), KEY)
        assert (made.shape, made.dtype) == (shape, dtype)


@pytest.mark.parametrize("shape", [(3, 3), (3, 4), (0, 2)], ids=str)  # of (3, 3) the limit is 1, a whole number
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("make", [slim.xavier_initializer, slim.variance_scaling_initializer])
def test_initializers_of_contrib_draw_floating_numbers(make, uniform, shape):
    with pytest.raises(js.InitializerError, match="draws floating numbers, not int32"):
        make(uniform=uniform)(KEY, shape, jnp.int32)
    assert make(uniform=uniform)(KEY, shape, jnp.bfloat16).dtype == jnp.bfloat16


def test_xavier_is_glorot():
    found, expected = slim.xavier_initializer()(KEY, SHAPE), js.glorot_uniform_initializer()(KEY, SHAPE)
    # The same draws, scaled in two ways: beside numbers of 0.1 what is near zero is rounded.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_regularizers_by_name_and_of_numpy():
    assert slim.l2_regularizer(np.float32(0.5)) == slim.l2_regularizer(0.5)
    assert slim.l1_regularizer(np.float64(0.0)) is js.no_regularizer
    assert float(slim.sum_regularizer(["l2", None, "l1"])(jnp.ones(2))) == pytest.approx(0.04)
    net = js.transform(lambda: slim.apply_regularization("l2", [jnp.ones(2)]))
    assert float(net.apply({})) == pytest.approx(0.02)


@pytest.mark.parametrize("factory", [slim.l1_regularizer, slim.l2_regularizer, slim.l1_l2_regularizer])
def test_a_regularizer_that_was_not_called(factory):
    net = js.transform(lambda: (layers.dense(ROWS, 2, kernel_regularizer=factory), js.get_regularization_loss()))
    with pytest.raises(js.BadArgumentError, match=r"array of shape \(3, 2\) as its scale") as caught:
        net.specs()
    assert "regularizer(1e-4)" in caught.value.fix


def test_regularizers_of_nothing():
    def program(x):
        return layers.dense(
            x, 2, kernel_regularizer=slim.l2_regularizer(0.0), bias_regularizer=slim.l1_regularizer(0.5)
        )

    net, x = js.transform(program), jnp.ones((1, 2))
    params = filled(program, x, value=1.0)
    assert float(net.specs(x).regularization_loss(params)) == 1.0
    assert slim.sum_regularizer([slim.l2_regularizer(0.0), None])(jnp.ones(2)) is None


# Errors ---------------------------------------------------------------------------------------------------------------

IMAGE = jnp.ones((2, 6, 6, 3))
ROWS = jnp.ones((2, 3))
STEPS = jnp.ones((2, 4, 3))
CELL = layers.BasicRNNCell(2)


class SizedByText(layers.RNNCell):
    state_size = output_size = "3"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layers.dense(ROWS, 2, activity_regularizer=jnp.sum), "activity_regularizer"),
        (lambda: layers.dense(jnp.ones((2, 3), int), 2), "floating"),
        (lambda: layers.dense(jnp.ones((2, 3), jnp.int4), 2), "floating .* int4"),
        (lambda: layers.conv2d(IMAGE.astype(jnp.uint4), 2, 3), "floating .* uint4"),
        (lambda: layers.batch_normalization(ROWS.astype(jnp.int2)), "floating .* int2"),
        (lambda: layers.dropout(ROWS.astype(jnp.int4), training=True), "floating .* int4"),
        (lambda: slim.layer_norm(ROWS.astype(jnp.int4)), "floating .* int4"),
        (lambda: slim.unit_norm(ROWS.astype(jnp.int4), 1), "floating .* int4"),
        (lambda: layers.multi_head_attention(STEPS.astype(jnp.int4)), "floating .* int4"),
        (lambda: CELL(ROWS, jnp.zeros((2, 2), jnp.int4)), "takes a state"),
        (lambda: layers.dense(jax.random.split(KEY, 4), 2), "floating .* key"),
        (lambda: layers.dense(None, 2), "an array, not None"),
        (lambda: layers.dense("abc", 2), "an array, not 'abc'"),
        (lambda: layers.Dense(2)("abc"), "Dense takes an array"),
        (lambda: layers.flatten(None), "an array, not None"),
        (lambda: layers.dynamic_rnn(CELL, None, dtype=jnp.float32), "an array, not None"),
        (lambda: layers.static_rnn(CELL, [ROWS, None], dtype=jnp.float32), "an array, not None"),
        (lambda: slim.one_hot_encoding(None, 3), "an array, not None"),
        (lambda: layers.average_pooling2d(IMAGE.astype(int), 2, 2), "floating"),
        (lambda: layers.average_pooling1d(STEPS > 0, 2, 2), "floating"),
        (lambda: slim.avg_pool2d(IMAGE.astype(jnp.uint8), 2), "floating"),
        (lambda: layers.max_pooling2d(IMAGE > 0, 2, 2), "bool"),
        (lambda: layers.max_pooling2d(None, 2, 2), "an array, not None"),
        (lambda: layers.batch_normalization(ROWS, momentum=None), "momentum=None is no number"),
        (lambda: slim.batch_norm(ROWS, decay=None), "decay=None is no number"),
        (lambda: slim.batch_norm(ROWS, epsilon="e"), "epsilon='e' is no number"),
        (lambda: layers.dropout(ROWS, "0.5"), "rate='0.5' is no number"),
        (lambda: slim.dropout(ROWS, None), "keep_prob=None is no number"),
        (lambda: layers.DropoutWrapper(CELL, state_keep_prob="a"), "state_keep_prob='a' is no number"),
        (lambda: layers.embedding_lookup(jnp.float32(1), [0]), "at least 1 dimensions"),
        (lambda: layers.embedding_lookup(None, [0]), "an array, not None"),
        (lambda: slim.repeat(ROWS, "3", slim.fully_connected, 4), "repetitions='3'"),
        (lambda: slim.stack(ROWS, slim.fully_connected, 3), "stack_args=3"),
        (lambda: slim.stack(ROWS, slim.fully_connected, "32"), "stack_args='32'"),
        (lambda: layers.dense(jnp.ones(3), 2), "at least 2 dimensions"),
        (lambda: layers.dropout(ROWS, 1.0, training=True), "no probability"),
        (lambda: layers.dropout(ROWS, -0.1), "no probability"),
        (lambda: layers.dropout(ROWS, training=None), "learning phase"),
        (lambda: layers.dropout(ROWS, noise_shape=[3, 1], training=True), "does not spread"),
        (lambda: layers.dropout(jnp.ones(3, int), training=True), "floating"),
        (lambda: layers.flatten(ROWS, data_format="NHWC"), "data_format"),
        (lambda: layers.flatten(jnp.ones(())), "at least 1 dimensions"),
        (lambda: layers.conv2d(ROWS, 2, 3), "4 dimensions"),
        (lambda: layers.conv2d(IMAGE, 0, 3), "filters=0"),
        (lambda: layers.conv2d(IMAGE, 2, [3]), "2 of them"),
        (lambda: layers.conv2d(IMAGE, 2, "ab"), "2 of them"),
        (lambda: layers.conv2d(IMAGE, 2, 0), "positive"),
        (lambda: layers.conv2d(IMAGE, 2, 3, padding="causal"), "padding='causal'"),
        (lambda: layers.conv2d(IMAGE, 2, 3, padding=1), "padding=1"),
        (lambda: layers.conv2d(IMAGE, 2, 3, data_format="NHWC"), "data_format"),
        (lambda: layers.conv2d(IMAGE, 2, 3, 2, dilation_rate=2), "both above 1"),
        (lambda: layers.conv1d(STEPS, 2, 3, activity_regularizer=1), "activity_regularizer"),
        (lambda: layers.separable_conv2d(IMAGE, 2, 3, depth_multiplier=0), "depth_multiplier"),
        (lambda: layers.separable_conv2d(IMAGE, 2, 3, activity_regularizer=1), "activity_regularizer"),
        (lambda: layers.max_pooling2d(STEPS, 2, 2), "4 dimensions"),
        (lambda: layers.max_pooling2d(IMAGE, 2, 0), "strides=0"),
        (lambda: layers.batch_normalization(IMAGE, renorm=True), "renorm=True"),
        (lambda: layers.batch_normalization(IMAGE, virtual_batch_size=1), "virtual_batch_size"),
        (lambda: layers.batch_normalization(IMAGE, adjustment=len), "adjustment"),
        (lambda: layers.batch_normalization(IMAGE, axis=4), "axis=4"),
        (lambda: layers.batch_normalization(IMAGE, axis=[1, -3]), "one twice"),
        (lambda: layers.batch_normalization(IMAGE, training=None), "learning phase"),
        (lambda: slim.batch_norm(IMAGE, zero_debias_moving_mean=True), "zero_debias"),
        (lambda: slim.batch_norm(IMAGE, renorm=True), "renorm"),
        (lambda: slim.batch_norm(IMAGE, adjustment=len), "adjustment"),
        (lambda: slim.batch_norm(IMAGE, data_format="NWC"), "data_format"),
        (lambda: slim.batch_norm(IMAGE, batch_weights=jnp.ones(3)), "batch_weights"),
        (lambda: slim.batch_norm(jnp.ones(3)), "at least 2"),
        (lambda: slim.layer_norm(ROWS, begin_norm_axis=2), "begin_norm_axis=2"),
        (lambda: slim.layer_norm(ROWS, begin_params_axis=-3), "begin_params_axis=-3"),
        (lambda: slim.layer_norm(jnp.ones((2, 3), int)), "floating"),
        (lambda: layers.conv2d(jnp.ones((1, 2, 4, 1)), 3, 3), "window of size 3 .* 2 along dimension 1"),
        (lambda: layers.conv2d(jnp.ones((1, 4, 4, 1)), 3, 2, dilation_rate=4), "of size 5 .* 4 along dimension 1"),
        (lambda: layers.conv1d(jnp.ones((1, 1, 2)), 3, 3, data_format="channels_first"), "size 3 .* 2 along"),
        (lambda: layers.separable_conv2d(jnp.ones((1, 4, 2, 1)), 3, 3), "size 3 .* 2 along dimension 2"),
        (lambda: layers.max_pooling2d(jnp.ones((1, 2, 4, 1)), 3, 1), "size 3 .* 2 along dimension 1"),
        (lambda: layers.average_pooling1d(jnp.ones((1, 2, 1)), 3, 1), "size 3 .* 2 along dimension 1"),
        (lambda: slim.separable_conv2d(jnp.ones((1, 2, 2, 1)), None, 3, 1, padding="VALID"), "size 3 .* 2"),
        (lambda: slim.fully_connected(ROWS, "2"), "num_outputs"),
        (lambda: slim.conv2d(STEPS, 2, 3), "4 dimensions"),
        (lambda: slim.convolution(ROWS, 2, 3), "3 or 4 or 5"),
        (lambda: slim.convolution(IMAGE, 2, 3, conv_dims=1), "3 dimensions"),
        (lambda: slim.conv2d(IMAGE, 2, 3, data_format="NWC"), "data_format"),
        (lambda: slim.max_pool2d(IMAGE, 2, data_format="channels_last"), "data_format"),
        (lambda: slim.l2_regularizer(1), "integer"),
        (lambda: slim.l1_regularizer(-0.5), "at least 0"),
        (lambda: slim.l2_regularizer(float("nan")), "at least 0"),
        (lambda: layers.embedding_lookup([ROWS, ROWS], 0), "2 tables"),
        (lambda: layers.embedding_lookup(ROWS, 0.5), "ids have dtype"),
        (lambda: layers.multi_head_attention(STEPS, num_heads=2), "do not divide"),
        (lambda: layers.multi_head_attention(ROWS), "3 dimensions"),
        (lambda: layers.multi_head_attention(STEPS, STEPS[:1]), "not of one batch"),
        (lambda: layers.multi_head_attention(STEPS, mask=jnp.ones((2, 3))), "does not spread"),
        (lambda: CELL(STEPS, CELL.zero_state(2, jnp.float32)), "2 dimensions"),
        (lambda: CELL(ROWS, None, scope="s"), "scope='s'"),
        (lambda: layers.DropoutWrapper(CELL)(ROWS, None, scope="s"), "scope='s'"),
        (lambda: layers.LSTMCell(2, num_unit_shards=2), "num_unit_shards"),
        (lambda: layers.MultiRNNCell([]), "no list of cells"),
        (lambda: layers.MultiRNNCell([CELL], state_is_tuple=False), "state_is_tuple"),
        (lambda: layers.DropoutWrapper(CELL, 0.0), "probability of 0.0"),
        (lambda: layers.DropoutWrapper(CELL, variational_recurrent=True), "variational_recurrent"),
        (lambda: layers.DropoutWrapper(CELL, input_size=2), "input_size"),
        (lambda: layers.DropoutWrapper(CELL, dropout_state_filter_visitor=len), "dropout_state_filter_visitor"),
        (lambda: layers.dynamic_rnn(layers.GRUCell, STEPS, dtype=jnp.float32), "no cell"),
        (lambda: layers.dynamic_rnn("lstm", STEPS, dtype=jnp.float32), "no cell"),
        (lambda: layers.bidirectional_dynamic_rnn(CELL, 3, STEPS, dtype=jnp.float32), "cell_bw=3 is no cell"),
        (lambda: layers.static_rnn(3, [ROWS], dtype=jnp.float32), "cell=3 is no cell"),
        (lambda: layers.DropoutWrapper(3), "cell=3 is no cell"),
        (lambda: layers.MultiRNNCell([CELL, layers.GRUCell]), r"cells\[1\]=.* is no cell"),
        (lambda: layers.GRUCell("3"), "num_units='3'"),
        (lambda: layers.GRUCell(3.0), "num_units=3.0"),
        (lambda: layers.BasicRNNCell(-1), "num_units=-1"),
        (lambda: layers.LSTMCell(None), "num_units=None"),
        (lambda: layers.LSTMCell(3, num_proj="2"), "num_proj='2'"),
        (lambda: layers.NASCell(3, num_proj=0), "num_proj=0"),
        (lambda: layers.LSTMBlockCell("3"), "num_units='3'"),
        (lambda: SizedByText().zero_state(2, jnp.float32), "state_size='3'"),
        (lambda: layers.ResidualWrapper(CELL, residual_fn=3), "residual_fn=3 is no function"),
        (lambda: layers.ResidualWrapper(CELL)(ROWS, jnp.zeros((2, 2))), r"shape \(2, 3\) and gives .* \(2, 2\)"),
        (lambda: layers.dynamic_rnn(CELL, STEPS), "neither initial_state nor dtype"),
        (lambda: layers.dynamic_rnn(CELL, ROWS, dtype=jnp.float32), "at least 3"),
        (lambda: layers.dynamic_rnn(CELL, STEPS, [4, 4, 4], dtype=jnp.float32), "sequence_length"),
        (lambda: layers.dynamic_rnn(CELL, STEPS, [4.0, 4.0], dtype=jnp.float32), "sequence_length"),
        (lambda: layers.dynamic_rnn(CELL, STEPS, "4", dtype=jnp.float32), "an array, not '4'"),
        (lambda: layers.batch_normalization(IMAGE, axis=None), "axis=None names no"),
        (lambda: layers.batch_normalization(IMAGE, axis=1.0), "axis=1.0 names no"),
        (lambda: layers.batch_normalization(IMAGE, axis="channels"), "axis='channels' names no"),
        (lambda: layers.conv2d(IMAGE, 2, np.array([3.0, 3.0])), "2 of them"),
        (lambda: layers.conv2d(IMAGE, 2, np.array(3.0)), "2 of them"),
        (lambda: slim.conv2d(IMAGE, 2, 3, stride=0), "stride=0"),
        (lambda: slim.max_pool2d(IMAGE, 2, stride=0), "stride=0"),
        (lambda: slim.separable_conv2d(IMAGE, 2, 3, stride=0), "stride=0"),
        (lambda: slim.conv2d(IMAGE, "2", 3), "num_outputs='2'"),
        (lambda: slim.separable_conv2d(IMAGE, "2", 3), "num_outputs='2'"),
        (lambda: slim.separable_conv2d(IMAGE, None, 3, depth_multiplier=1.5), "depth_multiplier=1.5"),
        (lambda: slim.convolution(IMAGE, 2, 3, conv_dims="2"), "conv_dims='2'"),
        (lambda: slim.fully_connected(jnp.ones(3), 2), "^fully_connected takes an input of at least 2"),
        (lambda: slim.fully_connected(ROWS.astype(int), 2), "^fully_connected takes floating"),
        (lambda: slim.one_hot_encoding([1], None), "num_classes=None"),
        (lambda: slim.one_hot_encoding([1], "3"), "num_classes='3'"),
        (lambda: slim.unit_norm(ROWS, 1.0), "dim=1.0 is no integer"),
        (lambda: slim.layer_norm(ROWS, begin_norm_axis=1.0), "begin_norm_axis=1.0 is no integer"),
        (lambda: slim.layer_norm(ROWS, begin_params_axis=1.0), "begin_params_axis=1.0 is no integer"),
        (lambda: layers.multi_head_attention(STEPS, num_heads=3.0), "num_heads=3.0"),
        (lambda: layers.multi_head_attention(STEPS, num_heads="3"), "num_heads='3'"),
        (lambda: layers.multi_head_attention(STEPS, key_depth=0), "key_depth=0"),
        (lambda: layers.multi_head_attention(STEPS, value_depth=-3), "value_depth=-3"),
        (lambda: layers.multi_head_attention(STEPS, output_depth=3.0), "output_depth=3.0"),
        (lambda: layers.dropout(ROWS, noise_shape=3, training=True), "noise_shape=3 does not spread"),
        (lambda: layers.LSTMCell(2, cell_clip=-1.0), "cell_clip=-1.0 is no positive"),
        (lambda: layers.LSTMCell(2, num_proj=2, proj_clip=0.0), "proj_clip=0.0 is no positive"),
        (lambda: layers.LSTMBlockCell(2, cell_clip="1"), "cell_clip='1' is no number"),
        (lambda: layers.embedding_lookup(ROWS, 0, max_norm=-1.0), "max_norm=-1.0 is no positive"),
        (lambda: slim.variance_scaling_initializer(factor=-1.0), "factor=-1.0"),
        (lambda: slim.variance_scaling_initializer(factor="2"), "factor='2' is no number"),
        (lambda: slim.sum_regularizer(slim.l2_regularizer(0.1)), "is no list"),
        (lambda: slim.sum_regularizer([0.1]), "0.1 is no regularizer"),
        (lambda: slim.sum_regularizer(["l3"]), "'l3' is none of the names"),
        (lambda: slim.apply_regularization(slim.l2_regularizer(0.1), ROWS), "is no list"),
        (lambda: slim.apply_regularization(slim.l2_regularizer(0.1), "dense/kernel"), "is no list"),
        (lambda: slim.apply_regularization(None, [ROWS]), "None is no regularizer"),
        (lambda: slim.l2_regularizer("0.1"), "at least 0"),
        (lambda: slim.l2_regularizer(np.int64(1)), "integer"),
        (lambda: slim.batch_norm(ROWS, param_initializers={"gama": len}), "key='gama' .* gamma"),
        (lambda: slim.batch_norm(ROWS, param_initializers="zeros"), "param_initializers='zeros' is no dict"),
        (lambda: slim.batch_norm(ROWS, param_regularizers={"moving_mean": len}), "key='moving_mean'"),
        (lambda: slim.conv2d(IMAGE, 2, 3, variables_collections={"weight": ["a"]}), "key='weight' .* weights"),
        (lambda: slim.bias_add(ROWS, variables_collections={"bias": ["a"]}), "key='bias' .* biases"),
        (lambda: js.arg_scope([slim.linear], reuse=None), "not decorated"),
    ],
)  # fmt: skip
def test_errors(call, words):
    with pytest.raises(js.BadArgumentError, match=words) as caught:
        js.transform(call).specs()
    assert caught.value.fix
    assert caught.value.asked or caught.value.kind == "arg_scope"
    assert __file__ in caught.value.where


def test_the_way_out_for_a_partial_of_a_layer():
    with pytest.raises(js.BadArgumentError) as caught:
        js.arg_scope([slim.linear], reuse=None)
    assert caught.value.fix == "name the function that it calls: fully_connected"


# Each layer and cell that drops at random, as a function of the probability, and whether that is the one to be kept.
DROPPING = [
    (lambda rate: layers.dropout(ROWS, rate, training=True), False),
    (lambda rate: layers.multi_head_attention(STEPS, dropout_rate=rate, training=True), False),
    (lambda keep: slim.dropout(ROWS, keep), True),
    (lambda keep: layers.LayerNormBasicLSTMCell(2, dropout_keep_prob=keep), True),
    (lambda keep: layers.DropoutWrapper(CELL, input_keep_prob=keep), True),
    (lambda keep: layers.DropoutWrapper(CELL, output_keep_prob=keep), True),
    (lambda keep: layers.DropoutWrapper(CELL, state_keep_prob=keep), True),
]


@pytest.mark.parametrize("kind", [float, np.float32, np.array, jnp.float32])
@pytest.mark.parametrize(("layer", "is_kept"), DROPPING)
def test_what_is_no_probability_is_refused(layer, is_kept, kind):
    for number in (-0.5, 0.0 if is_kept else 1.0, 1.5, 50.0, math.nan):
        given = kind(number)  # here, since JAX traces the program
        with pytest.raises(js.BadArgumentError, match="probability") as caught:
            js.transform(lambda given=given: layer(given)).specs()
        assert caught.value.fix == f"give a number in {'(0, 1]' if is_kept else '[0, 1)'}"


@pytest.mark.parametrize("kind", [int, float, np.float32, np.int64, np.array])
def test_nothing_is_dropped_where_that_is_known(kind):
    """So no `rng` is needed."""

    def program():
        cell = layers.DropoutWrapper(CELL, kind(1), kind(1), kind(1))
        cell(ROWS, cell.zero_state(2, jnp.float32))
        return layers.dropout(ROWS, kind(0), training=True), slim.dropout(ROWS, kind(1))

    net = js.transform(program)
    assert all((out == ROWS).all() for out in net.apply(net.init(KEY)))


# Each layer and cell with a flag that says what is computed, as a function of the flag.
OPTIONS = [
    (lambda flag: layers.dense(ROWS, 2, use_bias=flag), "use_bias"),
    (lambda flag: layers.Dense(2, use_bias=flag)(ROWS), "use_bias"),
    (lambda flag: layers.conv2d(IMAGE, 2, 2, use_bias=flag), "use_bias"),
    (lambda flag: layers.separable_conv2d(IMAGE, 2, 2, use_bias=flag), "use_bias"),
    (lambda flag: layers.multi_head_attention(STEPS, use_bias=flag), "use_bias"),
    (lambda flag: layers.batch_normalization(ROWS, center=flag), "center"),
    (lambda flag: layers.batch_normalization(ROWS, scale=flag), "scale"),
    (lambda flag: layers.batch_normalization(ROWS, fused=flag), "fused"),
    (lambda flag: slim.batch_norm(ROWS, center=flag, is_training=False), "center"),
    (lambda flag: slim.batch_norm(ROWS, scale=flag, is_training=False), "scale"),
    (lambda flag: slim.batch_norm(ROWS, fused=flag, is_training=False), "fused"),
    (lambda flag: slim.layer_norm(ROWS, center=flag), "center"),
    (lambda flag: slim.layer_norm(ROWS, scale=flag), "scale"),
    (lambda flag: slim.xavier_initializer(uniform=flag), "uniform"),
    (lambda flag: layers.dynamic_rnn(CELL, STEPS, dtype=jnp.float32, time_major=flag), "time_major"),
    (lambda flag: layers.bidirectional_dynamic_rnn(CELL, CELL, STEPS, time_major=flag, dtype="f4"), "time_major"),
    (lambda flag: layers.LSTMCell(2, use_peepholes=flag), "use_peepholes"),
    (lambda flag: layers.LSTMCell(2, state_is_tuple=flag), "state_is_tuple"),
    (lambda flag: layers.BasicLSTMCell(2, state_is_tuple=flag), "state_is_tuple"),
    (lambda flag: layers.NASCell(2, use_biases=flag), "use_biases"),
    (lambda flag: layers.LSTMBlockCell(2, use_peephole=flag), "use_peephole"),
    (lambda flag: layers.LayerNormBasicLSTMCell(2, layer_norm=flag), "layer_norm"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "name"), OPTIONS)
def test_options_are_flags(layer, name):
    for flag in ("False", "", 2, [], len):
        with pytest.raises(js.BadArgumentError, match=f"{name}=.*neither True nor False"):
            js.transform(lambda flag=flag: layer(flag)).specs()
    for no in (np.bool_(False), 0):
        assert js.transform(lambda: layer(False)).specs() == js.transform(lambda no=no: layer(no)).specs()


def test_text_as_trainable_is_refused():
    for layer in (layers.dense, slim.fully_connected, lambda x, n, **more: layers.Dense(n, **more)(x)):
        with pytest.raises(js.BadTypeError, match=r"trainable= of '.*' is neither True nor False, but 'False'"):
            js.transform(lambda layer=layer: layer(ROWS, 2, trainable="False")).specs()


@pytest.mark.parametrize("flag", [0.5, 7, math.nan])
def test_arrays_that_are_known_are_flags_only_as_zero_or_one(flag):
    array = jnp.asarray(flag)
    for layer in FLAGGED:
        with pytest.raises(js.BadArgumentError, match="neither True nor False"):
            js.transform(lambda layer=layer: layer(array)).specs()


class SizedByNumpy(layers.RNNCell):
    state_size = output_size = np.int64(1)

    def call(self, inputs, state):
        return state, state


@pytest.mark.parametrize("kind", [int, np.int64, jnp.int32])
def test_whole_numbers_of_every_kind(kind):
    whole = {number: kind(number) for number in (-1, 1, 2, 3, 6)}.get

    def program():
        layers.batch_normalization(IMAGE, axis=whole(-1))
        layers.batch_normalization(IMAGE, axis=np.array([1, -1]))
        layers.conv2d(IMAGE, whole(2), whole(2), strides=[whole(1), whole(2)])
        layers.conv2d(IMAGE, 2, np.array([2, 2]))
        layers.separable_conv2d(IMAGE, 2, 2, depth_multiplier=whole(2))
        layers.max_pooling2d(IMAGE, whole(2), whole(2))
        slim.repeat(ROWS, whole(2), slim.fully_connected, whole(3))
        slim.layer_norm(ROWS, begin_norm_axis=whole(-1), begin_params_axis=whole(1))
        slim.unit_norm(ROWS, whole(1))
        slim.one_hot_encoding([1], whole(3))
        layers.multi_head_attention(STEPS, num_heads=whole(3), key_depth=whole(6), output_depth=whole(2))
        return layers.dynamic_rnn(SizedByNumpy(), STEPS, dtype=jnp.float32)[0]

    specs = js.transform(program).specs()
    channels = IMAGE.shape[-1]
    assert specs["conv2d/kernel"].shape == specs["separable_conv2d/depthwise_kernel"].shape == (2, 2, channels, 2)
    assert all(type(size) is int for v in specs.values() for size in v.shape)


def test_collections_of_variables_by_one_name():
    def program():
        slim.fully_connected(ROWS, 2, variables_collections="mine")
        slim.bias_add(ROWS, variables_collections="mine")
        slim.layer_norm(ROWS, variables_collections={"beta": "mine"})
        slim.conv2d(IMAGE, 2, 2, variables_collections={"weights": "mine", "moving_mean": ["other"]})
        slim.batch_norm(IMAGE, is_training=False, variables_collections={"weights": "mine", "moving_mean": "other"})
        noted.extend([v.name for v in js.get_collection(key)] for key in ("mine", "other", "m"))

    noted = []
    js.transform(program).specs()
    assert noted == [
        ["fully_connected/weights", "fully_connected/biases", "BiasAdd/biases", "LayerNorm/beta", "Conv/weights"],
        ["BatchNorm/moving_mean"],
        [],
    ]


def test_a_custom_getter_that_changes_what_a_layer_moves_or_lists():
    """The error says so, and what it says to do is enough."""

    def stopped(getter, name, *args, **kwargs):
        return jax.lax.stop_gradient(getter(name, *args, **kwargs))

    def but_for_those(getter, name, *args, **kwargs):
        value = getter(name, *args, **kwargs)
        return value if "moving_" in name or name.endswith("weights") else jax.lax.stop_gradient(value)

    def program(layer, getter):
        with js.variable_scope("s", custom_getter=getter):
            return layer()

    for layer in (
        lambda: layers.batch_normalization(ROWS, training=True),
        lambda: slim.batch_norm(ROWS),
        lambda: slim.fully_connected(ROWS, 2, biases_initializer=None, variables_collections="mine"),
    ):
        with pytest.raises(js.BadArgumentError, match="custom getter is in force") as caught:
            js.transform(program).specs(layer, stopped)
        assert "as it is" in caught.value.fix
        js.transform(program).specs(layer, but_for_those)


# Each layer that tells training from the rest, as a function of the flag.
FLAGGED = [
    lambda flag: layers.dropout(ROWS, training=flag),
    lambda flag: layers.batch_normalization(ROWS, training=flag),
    lambda flag: slim.dropout(ROWS, is_training=flag),
    lambda flag: slim.batch_norm(ROWS, is_training=flag),
    lambda flag: slim.batch_norm(ROWS, is_training=flag, updates_collections=None),
    lambda flag: layers.multi_head_attention(STEPS, dropout_rate=0.5, training=flag),
]


@pytest.mark.parametrize("flag", ["False", "", 2, None, len, [], jnp.array([True, False]), np.array([True]), KEY])
@pytest.mark.parametrize("layer", FLAGGED)
def test_what_is_no_flag_is_refused(layer, flag):
    with pytest.raises(js.BadArgumentError, match=r"training=.*neither True nor False") as caught:
        js.transform(lambda: layer(flag)).specs()
    assert "training=True" in caught.value.fix


@pytest.mark.parametrize("kind", [bool, int, float, np.bool_, np.int64, np.array, jnp.array])
def test_flags_of_every_kind(kind):
    net = js.transform(lambda flag: FLAGGED[0](flag))
    assert (net.apply({}, kind(False), rng=KEY) == ROWS).all()
    assert not (net.apply({}, kind(True), rng=KEY) == ROWS).any()


def test_units_of_numpy_and_averages_of_halves():
    net = js.transform(lambda: layers.dynamic_rnn(layers.GRUCell(np.int64(3)), STEPS, dtype="bfloat16")[1])
    assert jax.eval_shape(net.apply, net.specs().abstract()).dtype == jnp.bfloat16
    for dtype in (jnp.int4, jnp.uint8, jnp.float8_e4m3fn):
        largest = apply(lambda x: layers.max_pooling1d(x, 2, 2), {}, jnp.arange(4).astype(dtype).reshape(1, 4, 1))
        assert largest.dtype == dtype
        assert largest.ravel().tolist() == [1, 3]


def test_what_is_no_dtype_of_a_state():
    with pytest.raises(js.BadTypeError, match="flot32"):
        js.transform(lambda: layers.dynamic_rnn(CELL, STEPS, dtype="flot32")).specs()


def test_a_mode_that_means_nothing():
    with pytest.raises(TypeError, match="FAN_SUM"):
        slim.variance_scaling_initializer(mode="FAN_SUM")


@pytest.mark.parametrize("layer", [layers.flatten, slim.flatten, lambda x: slim.max_pool2d(x, 2)])
def test_outside_programs(layer):
    with pytest.raises(js.OutsideProgramError):
        layer(IMAGE)
