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
