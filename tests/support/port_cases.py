"""More programs that TensorFlow 1 and jscope both run, as those of `layer_cases`: what ports of TF1 programs use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from layer_cases import Case

CASES: dict[str, Case] = {}
X = (4, 5)
IMAGE = (2, 7, 6, 3)
SEQUENCE = (3, 5, 4)


def case(gradients: bool = False, updates: bool = False, error: Any = None, **inputs: Any) -> Callable[[Any], Any]:
    """Makes a function a case under its own name."""

    def register(program: Callable[..., Any]) -> Callable[..., Any]:
        CASES[program.__name__] = Case(program, inputs, gradients, updates, error=error)
        return program

    return register


# Layer classes --------------------------------------------------------------------------------------------------------


@case(x=X, gradients=True)
def dense_objects(tf, x):
    first, second = tf.layers.Dense(5, tf.tanh), tf.layers.Dense(5)
    with tf.variable_scope("s"):
        y = first(second(x))  # the first call gives the name: second is s/dense
    y = first(y)
    with tf.variable_scope("t", reuse=tf.AUTO_REUSE):
        y = second(first(y))
        y = tf.layers.Dense(5)(y)
        y = tf.layers.Dense(5, name="d")(y)
        y = tf.layers.Dense(5, name="d")(y)
    with tf.variable_scope("t", reuse=True):
        y = tf.layers.Dense(5)(y)
        y = tf.layers.Dense(5, name="d")(y)
    return tf.layers.dense(y, 2)


@case(x=X)
def objects_with_scope_and_reuse(tf, x):
    x = tf.layers.Dense(5, name="a", _scope="b")(x)
    x = tf.layers.Dense(5, _scope="b", _reuse=True)(x)
    x = tf.layers.Dense(5, name="b", _reuse=True)(x)
    x = tf.layers.Dense(5, _reuse=tf.AUTO_REUSE)(x)
    x = tf.layers.Dense(5, _reuse=tf.AUTO_REUSE)(x)
    with tf.variable_scope("s") as scope:
        pass
    return tf.layers.Dense(5, _scope=scope, use_bias=False)(x)


@case(x=X)
def scope_at_construction(tf, x):
    with tf.variable_scope("s"):
        layer = tf.layers.Dense(5, _scope="a")
        other = tf.layers.Dense(5)
    with tf.variable_scope("t"):
        return other(layer(x))


@case(x=X, error=ValueError)
def scope_of_another_object(tf, x):
    x = tf.layers.Dense(5, _scope="b")(x)
    return tf.layers.Dense(5, _scope="b")(x)


@case(x=X, y=(4, 6), error=ValueError)
def object_called_with_other_sizes(tf, x, y):
    dense = tf.layers.Dense(5)
    return [dense(x), dense(y)]


@case(x=X)
def variables_of_objects(tf, x):
    dense = tf.layers.Dense(5, kernel_regularizer=tf.contrib.l2_regularizer(0.1))
    frozen = tf.layers.Dense(5, trainable=False)
    norm = tf.layers.BatchNormalization()
    later = tf.layers.Dense(5)
    later.trainable = False
    y = norm(later(frozen(dense(x))))
    for layer in (norm, dense, frozen, later):
        for collection, variables in (
            ("mine", layer.variables),
            ("w", layer.trainable_variables + layer.trainable_weights),
            ("v", layer.non_trainable_variables + layer.weights),
        ):
            for variable in variables:
                tf.add_to_collection(collection, variable)
    return y @ tf.transpose(dense.kernel) + dense.bias + norm.gamma * norm.moving_mean


@case(x=IMAGE, gradients=True)
def convolution_objects(tf, x):
    conv = tf.layers.Conv2D(3, 3, padding="same", activation=tf.tanh)
    y = conv(conv(x))
    y = tf.layers.Conv2D(4, (3, 2), (2, 1), use_bias=False, name="named")(y)
    y = tf.layers.Conv2DTranspose(3, 2, 2, "same")(y)
    separable = tf.layers.SeparableConv2D(3, 2, depth_multiplier=2)
    y = separable(separable(y))
    with tf.variable_scope("s", reuse=tf.AUTO_REUSE):
        return tf.layers.Conv2D(2, 1, kernel_initializer=tf.ones_initializer())(y)


@case(x=(2, 9, 3), z=(2, 3, 4, 3, 2))
def convolution_objects_of_other_ranks(tf, x, z):
    return [
        tf.layers.Conv1D(4, 3, dilation_rate=2)(x),
        tf.layers.SeparableConv1D(4, 3, 2)(x),
        tf.layers.Conv3D(4, 2)(z),
        tf.layers.Conv3DTranspose(4, 2, 2)(z),
    ]


@case(x=(2, 9, 3), y=IMAGE, z=(2, 4, 5, 6, 2))
def pooling_objects(tf, x, y, z):
    found = []
    for _ in range(2):
        found += [tf.layers.MaxPooling1D(2, 2)(x), tf.layers.AveragePooling1D(3, 1, "same")(x)]
        found += [tf.layers.MaxPooling2D(2, 2)(y), tf.layers.AveragePooling2D((3, 2), 2, "same")(y)]
        found += [tf.layers.MaxPooling3D(2, 2)(z), tf.layers.AveragePooling3D(2, (1, 2, 1))(z)]
    pool = tf.layers.MaxPooling2D(2, 2)
    found += [pool(y), pool(y), tf.layers.Flatten()(y), tf.layers.Dropout(0.3)(y)]
    for scope in ("max_pooling2d", "average_pooling1d", "flatten", "dropout"):
        with tf.variable_scope(None, scope):
            tf.get_variable("v", [])
    return found


@case(x=X, updates=True)
def batch_normalization_object(tf, x):
    norm = tf.layers.BatchNormalization(momentum=0.6)
    before = norm(x)
    y = norm(x, training=True)
    return [before, tf.layers.BatchNormalization(momentum=0.6, name="other", center=False)(y, training=True)]


@case(x=X, gradients=True)
def layer_of_ones_own(tf, x):
    class Scale(tf.layers.Layer):
        def __init__(self, offset, **kwargs):
            super().__init__(**kwargs)
            self.offset = offset
            self.factor = None

        def build(self, input_shape):
            self.factor = self.add_weight("factor", [int(input_shape[-1])], initializer=tf.ones_initializer())
            self.shift = self.add_variable("shift", [], trainable=False)
            self.built = True

        def call(self, inputs, times=1.0):
            return times * (inputs * self.factor + self.shift + self.offset)

    scale, named = Scale(1.0), Scale(2.0, name="named", trainable=False)
    y = scale(scale(named(x)), times=2.0)
    with tf.variable_scope("s"):
        return Scale(0.5)(scale.apply(y)) + scale.shift


@case(x=X)
def layers_in_a_layer(tf, x):
    class Encoder(tf.layers.Layer):
        def __init__(self):
            super().__init__(name="encoder")
            self.hidden = tf.layers.Dense(5, name="hidden")

        def build(self, input_shape):
            with tf.variable_scope("shared", reuse=tf.AUTO_REUSE):
                self.table = tf.get_variable("table", [5, 3])
            self.out, self.more = tf.layers.Dense(5), [tf.layers.Dense(5), tf.layers.Dense(5)]
            super().build(input_shape)

        def call(self, inputs):
            y = self.out(self.hidden(inputs))
            for layer in self.more:
                y = layer(y)
            return y @ self.table

        def transposed(self, inputs):
            return self.hidden(inputs @ tf.transpose(self.table))

    encoder, second = Encoder(), Encoder()
    y = encoder.transposed(encoder(x))
    return [encoder(y), second(x), second.transposed(second(y))]


@case(x=X, ids=np.array([1, 0, 2]))
def layer_takes_dtype_of_inputs(tf, x, ids):
    class Counts(tf.layers.Layer):
        def build(self, input_shape):
            self.counts = self.add_weight("counts", input_shape, initializer=tf.zeros_initializer())
            self.others = self.add_weight("others", [2], "float32")

        def call(self, inputs):
            return inputs + self.counts

    return [Counts()(tf.cast(ids, tf.int32)), tf.layers.Dense(2, dtype="float32")(tf.cast(x, tf.float16))]


# Cells of tf.contrib.rnn, loops that are written out ------------------------------------------------------------------


@case(x=(3, 4), y=(3, 4))
def block_cells(tf, x, y):
    cells = tf.contrib_rnn
    found = []
    for cell in (
        cells.LSTMBlockCell(5),
        cells.LSTMBlockCell(5, forget_bias=0.3, cell_clip=0.4, use_peephole=True),
        cells.LSTMBlockCell(5, name="named"),
    ):
        output, state = cell(x, cell.zero_state(3, tf.float32))
        output, state = cell(y, state)
        found += [output, state]
    return found


@case(x=(3, 4), y=SEQUENCE)
def normalized_cells(tf, x, y):
    cells = tf.contrib_rnn
    norm, plain = cells.LayerNormBasicLSTMCell(4), cells.LayerNormBasicLSTMCell(4, 0.5, layer_norm=False)
    cell = tf.nn.rnn_cell.MultiRNNCell([norm, plain])
    output, state = cell(x, cell.zero_state(3, tf.float32))
    output, state = cell(output, state)
    with tf.variable_scope("s"):
        more, _ = tf.nn.dynamic_rnn(cells.LayerNormBasicLSTMCell(3, norm_gain=0.5), y, dtype=tf.float32)
    return [output, state, more]


@case(x=(3, 4), y=SEQUENCE)
def nas_cells(tf, x, y):
    cell = tf.contrib_rnn.NASCell(4)
    output, state = cell(x, cell.zero_state(3, tf.float32))
    output, state = cell(output, state)
    cell = tf.contrib_rnn.NASCell(5, num_proj=3, use_biases=True)
    with tf.variable_scope("s"):
        more, last = tf.nn.dynamic_rnn(cell, y, dtype=tf.float32)
    return [output, state, more, last]


@case(x=(3, 4), y=(3, 4), lengths=np.array([2, 0]))
def static_rnns(tf, x, y, lengths):
    x, y = x[:2], y[:2]
    outputs, state = tf.nn.static_rnn(tf.nn.rnn_cell.LSTMCell(4), [x, y], dtype=tf.float32)
    cell = tf.nn.rnn_cell.MultiRNNCell([tf.nn.rnn_cell.GRUCell(4), tf.nn.rnn_cell.BasicRNNCell(4)])
    more, states = tf.nn.static_rnn(cell, outputs, dtype=tf.float32, sequence_length=lengths, scope="more")
    with tf.variable_scope("again", reuse=tf.AUTO_REUSE):
        last, _ = tf.nn.static_rnn(tf.nn.rnn_cell.BasicRNNCell(4), more, initial_state=state.h)
        last, _ = tf.nn.static_rnn(tf.nn.rnn_cell.BasicRNNCell(4), last, initial_state=states[0])
    return [outputs, state, more, states, last]


@case(x=(3, 4), y=(3, 4), lengths=np.array([3, 0, 1]))
def static_bidirectional_rnns(tf, x, y, lengths):
    cells = [tf.nn.rnn_cell.LSTMCell(4) for _ in range(4)]
    first = tf.nn.static_bidirectional_rnn(*cells[:2], [x, y, x + y], dtype=tf.float32, sequence_length=lengths)
    return [*first, *tf.nn.static_bidirectional_rnn(*cells[2:], first[0], dtype=tf.float32, scope="b")]


@case(x=SEQUENCE, error=ValueError)
def static_rnn_without_dtype(tf, x):
    return tf.nn.static_rnn(tf.nn.rnn_cell.GRUCell(4), [x[0]])[0]


# slim -----------------------------------------------------------------------------------------------------------------


@case(x=IMAGE, y=X)
def end_points(tf, x, y):
    slim = tf.contrib
    with tf.variable_scope("net") as scope:
        ends = scope.name + "_end_points"
        functions = [slim.conv2d, slim.fully_connected, slim.max_pool2d, slim.batch_norm, slim.dropout, slim.flatten]
        with tf.arg_scope(functions, outputs_collections=ends):
            x = slim.repeat(x, 2, slim.conv2d, 4, [3, 3], scope="conv1")
            x = slim.max_pool2d(x, [2, 2], scope="pool1")
            x = slim.max_pool2d(slim.batch_norm(x, is_training=False), 2)
            x = slim.flatten(slim.dropout(x, is_training=False))
            y = slim.fully_connected(y, 4, activation_fn=None, scope="logits")
        slim.utils.collect_named_outputs([ends, "others"], scope.name + "/sum/", y + 1)
    found = slim.utils.convert_collection_to_dict(ends)
    for name in found:
        tf.add_to_collection("mine", tf.get_variable(name.replace("/", "_"), []))
    return list(found.values())


@case(x=X)
def small_layers(tf, x):
    slim = tf.contrib
    y = slim.bias_add(x, activation_fn=tf.tanh, regularizer=slim.l2_regularizer(0.3), variables_collections=["b"])
    y = slim.linear(y, 3)
    y = slim.relu(y, 4, scope="r")
    y = slim.unit_norm(slim.bias_add(y, scope="b"), 1)
    with tf.variable_scope(None, "UnitNorm"), tf.variable_scope(None, "BiasAdd"):
        y = slim.linear(y, 3)
    z = slim.softmax(y)
    with tf.variable_scope(None, "softmax"):
        return [z, slim.relu6(z, 2), slim.elu(z, 2)]


@case(x=IMAGE, y=(2, 9, 3))
def long_names(tf, x, y):
    slim = tf.contrib
    with tf.arg_scope([slim.convolution2d], padding="VALID"):
        found = [slim.conv2d(x, 2, 3), slim.convolution1d(y, 2, 3), slim.convolution2d_transpose(x, 2, 3)]
    return [*found, slim.separable_convolution2d(x, 2, 3, 1), slim.repeat(x, 2, slim.convolution2d, 2, 1)]


@case(labels=np.array([[1, 0], [3, 7]]))
def one_hot_encodings(tf, labels):
    slim = tf.contrib
    return [slim.one_hot_encoding(labels, 4), slim.one_hot_encoding(labels, 4, 2.0, -1.0)]


@case(x=X)
def regularization_applied(tf, x):
    slim = tf.contrib
    x = slim.fully_connected(x, 5, variables_collections={"weights": [tf.GraphKeys.WEIGHTS]})
    x = tf.layers.dense(x, 5, kernel_regularizer=slim.l2_regularizer(0.1))
    kernel = tf.get_variable("kernel", [3])
    first = slim.apply_regularization(slim.l2_regularizer(0.3))
    second = slim.apply_regularization(slim.l1_regularizer(0.3), [kernel, kernel])
    return [x, first, second, slim.apply_regularization(tf.no_regularizer, [kernel])]
