"""Programs that TensorFlow 1 and jscope both run: `tf` is what they have in common, under TensorFlow's names.

Their variables get random values made from the name, so that both have the same ones.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

CASES: dict[str, Case] = {}
# Collections of which only the number of items is compared: of outputs, and of what updates the moving averages.
COUNTED = {"outs", "more", "update_ops", "other"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One program.

    Attributes:
      program: called with `tf` and the inputs; returns an array or a list of them.
      inputs: name of the argument -> shape, or a value.
      gradients: whether the gradients of the sum of squares of the first output are compared too.
      updates: whether the values of the variables after a run are compared too.
      one_loss_each: that jscope adds the losses of one variable up, of which TensorFlow lists two.
      error: instead of outputs, that both raise an error of this builtin class.
    """

    program: Callable[..., Any]
    inputs: dict[str, Any]
    gradients: bool = False
    updates: bool = False
    one_loss_each: bool = False
    error: type[Exception] | None = None


def case(
    gradients: bool = False, updates: bool = False, one_loss_each: bool = False, error: Any = None, **inputs: Any
) -> Callable[[Any], Any]:
    """Makes a function a case under its own name."""

    def register(program: Callable[..., Any]) -> Callable[..., Any]:
        CASES[program.__name__] = Case(program, inputs, gradients, updates, one_loss_each, error)
        return program

    return register


def random_values(name: str, shape: Any, seed: int = 0) -> np.ndarray:
    """Values that depend on the name alone; positive for variances. `RandomState` draws the same in all versions."""
    state = np.random.RandomState(zlib.crc32(name.encode()) ^ seed)
    values = 0.7 * state.standard_normal(tuple(shape))
    return (abs(values) + 0.3 if "variance" in name else values).astype(np.float32)


def input_values(name: str, inputs: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """The inputs of a case: arrays of random values where only a shape is given."""
    return {
        argument: random_values(f"{name}/{argument}", given, seed) if isinstance(given, tuple) else np.asarray(given)
        for argument, given in inputs.items()
    }


X = (4, 5)


# dense, dropout, flatten ----------------------------------------------------------------------------------------------


@case(x=X, gradients=True)
def dense_names(tf, x):
    y = tf.layers.dense(x, 3, activation=tf.tanh)
    y = tf.layers.dense(y, 4, name="named")
    y = tf.layers.dense(y, 4, use_bias=False)
    with tf.variable_scope("s"):
        y = tf.layers.dense(y, 2, None, True, tf.ones_initializer(), tf.ones_initializer())
    return tf.layers.dense(y, 2)


@case(x=(2, 3, 4))
def dense_of_three_dimensions(tf, x):
    return tf.layers.dense(x, 5)


@case(x=X)
def dense_shared_by_name(tf, x):
    y = tf.layers.dense(x, 5, name="d")
    return tf.layers.dense(y, 5, name="d", reuse=True)


@case(x=X)
def dense_reuse_without_name(tf, x):
    y = tf.layers.dense(x, 5, reuse=tf.AUTO_REUSE)
    y = tf.layers.dense(y, 5, reuse=tf.AUTO_REUSE)
    y = tf.layers.dense(y, 5)
    return tf.layers.dense(y, 5, reuse=True)


@case(x=X)
def dense_unnamed_in_auto_reuse(tf, x):
    for _ in range(2):
        with tf.variable_scope("s", reuse=tf.AUTO_REUSE):
            x = tf.layers.dense(x, 5)
            x = tf.layers.dense(x, 5)
    return x


@case(x=X, error=ValueError)
def dense_unnamed_in_reuse_of_fewer(tf, x):
    with tf.variable_scope("s"):
        x = tf.layers.dense(x, 5)
    with tf.variable_scope("s", reuse=True):
        x = tf.layers.dense(x, 5)
        return tf.layers.dense(x, 5)


@case(x=X, error=ValueError)
def dense_same_name_twice(tf, x):
    return tf.layers.dense(tf.layers.dense(x, 5, name="d"), 5, name="d")


@case(x=X)
def dense_in_captured_scope(tf, x):
    with tf.variable_scope("s") as scope:
        x = tf.layers.dense(x, 5)
        with tf.variable_scope(scope):
            x = tf.layers.dense(x, 5)
        x = tf.layers.dense(x, 5, name="last")
    with tf.variable_scope("other"), tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
        x = tf.layers.dense(x, 5)
        x = tf.layers.dense(x, 5)
    with tf.variable_scope(scope, reuse=True):
        x = tf.layers.dense(x, 5)
    return tf.layers.dense(x, 5)


@case(x=X, error=ValueError)
def dense_in_captured_scope_starts_afresh(tf, x):
    with tf.variable_scope("s") as scope:
        x = tf.layers.dense(x, 5)
    with tf.variable_scope(scope):
        return tf.layers.dense(x, 5)


@case(x=X)
def dense_with_scope_as_name(tf, x):
    with tf.variable_scope("s") as scope:
        pass
    x = tf.layers.dense(x, 5, name=scope)
    with tf.variable_scope("t"):
        x = tf.layers.dense(x, 5, name=scope, reuse=True)
        return tf.layers.dense(x, 5, name=tf.get_variable_scope())


@case(x=X)
def dense_in_numbered_scopes(tf, x):
    for _ in range(2):
        with tf.variable_scope(None, "block"):
            x = tf.layers.dense(x, 5)
    with tf.variable_scope("dense"):
        x = tf.layers.dense(x, 5)
    return tf.layers.dense(x, 5)


@case(x=X)
def dense_after_variables_of_its_name(tf, x):
    v = tf.get_variable("dense", [5])
    w = tf.get_variable("d/kernel/x", [5])
    x = tf.layers.dense(x + v + w, 5)
    return tf.layers.dense(x, 5, name="d")


@case(x=X, one_loss_each=True)
def dense_regularized_by_scope_too(tf, x):
    with tf.variable_scope("s", regularizer=lambda v: 3.0 * tf.reduce_sum(v)):
        return tf.layers.dense(x, 5, kernel_regularizer=tf.contrib.l2_regularizer(0.1))


@case(x=X)
def dense_regularized(tf, x):
    with tf.variable_scope("s", regularizer=lambda v: 3.0 * tf.reduce_sum(v)):
        x = tf.layers.dense(x, 5)
    with tf.variable_scope("t", regularizer=tf.no_regularizer):
        x = tf.layers.dense(x, 5, kernel_regularizer=tf.contrib.l1_l2_regularizer(0.1, 0.2))
    x = tf.layers.dense(x, 5, name="d", kernel_regularizer=tf.contrib.l2_regularizer(0.1))
    return tf.layers.dense(x, 5, name="d", reuse=True, kernel_regularizer=tf.contrib.l1_regularizer(0.1))


@case(x=X)
def dense_not_trainable(tf, x):
    return tf.layers.dense(tf.layers.dense(x, 5, trainable=False), 5)


@case(x=X)
def dense_under_getter(tf, x):
    def getter(getter, name, *args, **kwargs):
        return getter(name.replace("kernel", "w"), *args, **{**kwargs, "trainable": "bias" in name})

    with tf.variable_scope("s", custom_getter=getter):
        return tf.layers.dense(x, 5)


@case(x=X)
def dropout_off(tf, x):
    x = tf.layers.dropout(x, 0.4)
    x = tf.layers.dropout(x, 0.0, training=True)
    x = tf.contrib.dropout(x, is_training=False)
    with tf.variable_scope(None, "dropout"):
        return tf.layers.dense(x, 2)


@case(x=(2, 3, 4, 5))
def flatten_all(tf, x):
    y = [tf.layers.flatten(x), tf.layers.flatten(x, data_format="channels_first"), tf.contrib.flatten(x)]
    with tf.variable_scope(None, "flatten"):
        return [*y, tf.layers.dense(y[0], 2)]


# contrib: fully_connected, layer_norm ---------------------------------------------------------------------------------


@case(x=X, gradients=True)
def fully_connected_names(tf, x):
    x = tf.contrib.fully_connected(x, 5)
    x = tf.contrib.fully_connected(x, 5, activation_fn=None, biases_initializer=None)
    x = tf.contrib.fully_connected(x, 5, tf.tanh, tf.contrib.layer_norm, {"scale": False}, scope="fc")
    with tf.variable_scope("s"):
        return tf.contrib.fully_connected(x, 4, tf.tanh, normalizer_fn=tf.layers.dense, normalizer_params={"units": 2})


@case(x=X)
def fully_connected_collections(tf, x):
    x = tf.contrib.fully_connected(x, 5, tf.tanh, variables_collections=["mine"], outputs_collections="outs")
    x = tf.contrib.fully_connected(
        x,
        5,
        tf.tanh,
        tf.contrib.layer_norm,
        weights_regularizer=tf.contrib.l2_regularizer(0.5),
        variables_collections={"weights": ["w"], "biases": ["b"]},
        outputs_collections=["outs", "more"],
        scope="fc",
    )
    x = tf.contrib.fully_connected(
        x, 5, tf.tanh, tf.contrib.layer_norm, variables_collections=["w", "v"], reuse=True, scope="fc"
    )
    x = tf.contrib.layer_norm(x, variables_collections={"beta": ["b"]}, outputs_collections="outs", trainable=False)
    return tf.contrib.dropout(x, is_training=False, outputs_collections="outs")


@case(x=X)
def fully_connected_under_arg_scope(tf, x):
    with tf.arg_scope([tf.contrib.fully_connected], activation_fn=tf.tanh, biases_initializer=None) as outer:
        x = tf.contrib.fully_connected(x, 5)
        with tf.arg_scope([tf.contrib.fully_connected, tf.contrib.layer_norm], trainable=False):
            x = tf.contrib.layer_norm(tf.contrib.fully_connected(x, 5))
    x = tf.contrib.fully_connected(x, 5)
    with tf.arg_scope([tf.contrib.fully_connected], num_outputs=3, scope="in"), tf.arg_scope(outer):
        return tf.contrib.fully_connected(x, 4)


@case(x=X, error=ValueError)
def fully_connected_reuse_needs_scope(tf, x):
    x = tf.contrib.fully_connected(x, 5)
    return tf.contrib.fully_connected(x, 5, reuse=True)


@case(x=X, error=TypeError)
def arg_scope_of_a_positional_argument(tf, x):
    with tf.arg_scope([tf.contrib.fully_connected], num_outputs=4):
        return tf.contrib.fully_connected(x, 5)


@case(x=X, error=ValueError)
def arg_scope_of_an_undecorated_function(tf, x):
    with tf.arg_scope([len], y=4):
        return tf.layers.dense(x, 5)


@case(x=(2, 3, 4), gradients=True)
def layer_norm_axes(tf, x):
    return [
        tf.contrib.layer_norm(x),
        tf.contrib.layer_norm(x, begin_norm_axis=-1, begin_params_axis=-1),
        tf.contrib.layer_norm(x, begin_norm_axis=2, begin_params_axis=1, activation_fn=tf.relu),
        tf.contrib.layer_norm(x, center=False, scope="n"),
        tf.contrib.layer_norm(x, center=False, scope="n", reuse=True),
    ]


@case(x=(2, 6), error=ValueError)
def layer_norm_axis_too_high(tf, x):
    return tf.contrib.layer_norm(x, begin_norm_axis=2)


# Convolutions ---------------------------------------------------------------------------------------------------------

IMAGE = (2, 7, 8, 3)


@case(x=IMAGE, gradients=True)
def conv2d_all(tf, x):
    y = tf.layers.conv2d(x, 4, 3)
    y = tf.layers.conv2d(y, 4, [3, 2], padding="SAME", activation=tf.tanh, use_bias=False)
    return [
        tf.layers.conv2d(y, 3, (2, 3), strides=2, padding="same"),
        tf.layers.conv2d(y, 3, (3, 2), strides=(2, 1), padding="valid", name="c"),
        tf.layers.conv2d(y, 2, 3, dilation_rate=2, padding="same"),
        tf.layers.conv2d(y, 2, 2, dilation_rate=(1, 3), padding="valid"),
        tf.layers.conv2d(x, 2, 4, strides=3, padding="same", kernel_regularizer=tf.contrib.l2_regularizer(0.3)),
    ]


@case(x=(2, 9, 3))
def conv1d_all(tf, x):
    return [
        tf.layers.conv1d(x, 4, 3),
        tf.layers.conv1d(x, 4, 4, strides=2, padding="same", activation=tf.relu),
        tf.layers.conv1d(x, 4, 3, padding="causal", dilation_rate=2),
        tf.layers.conv1d(x, 4, 2, padding="causal", strides=2, name="c"),
    ]


@case(x=(2, 5, 6, 4, 2))
def conv3d_all(tf, x):
    return [tf.layers.conv3d(x, 3, 2), tf.layers.conv3d(x, 3, (2, 3, 1), strides=(2, 1, 2), padding="same")]


@case(x=(2, 3, 4, 3), gradients=True)
def conv2d_transpose_all(tf, x):
    return [
        tf.layers.conv2d_transpose(x, 4, 3),
        tf.layers.conv2d_transpose(x, 4, 3, strides=2, padding="same"),
        tf.layers.conv2d_transpose(x, 4, (4, 3), strides=(2, 3), padding="same", use_bias=False),
        tf.layers.conv2d_transpose(x, 4, (4, 3), strides=(2, 3), padding="valid", activation=tf.tanh),
        tf.layers.conv2d_transpose(x, 4, 2, strides=3, padding="valid", name="t"),
        tf.layers.conv2d_transpose(x, 4, 2, strides=3, padding="same"),
    ]


@case(x=(2, 2, 3, 4, 2))
def conv3d_transpose_all(tf, x):
    return [
        tf.layers.conv3d_transpose(x, 3, 2, strides=(1, 2, 2)),
        tf.layers.conv3d_transpose(x, 3, (2, 3, 4), strides=2, padding="same", name="t"),
    ]


@case(x=IMAGE, gradients=True)
def separable_conv2d_all(tf, x):
    return [
        tf.layers.separable_conv2d(x, 4, 3),
        tf.layers.separable_conv2d(x, 4, (3, 2), strides=2, padding="same", depth_multiplier=2, activation=tf.tanh),
        tf.layers.separable_conv2d(x, 4, 2, dilation_rate=2, padding="same", use_bias=False, name="s"),
    ]


@case(x=(2, 9, 3))
def separable_conv1d_all(tf, x):
    return [
        tf.layers.separable_conv1d(x, 4, 3, depth_multiplier=2),
        tf.layers.separable_conv1d(x, 4, 3, strides=2, padding="same"),
        tf.layers.separable_conv1d(x, 4, 3, dilation_rate=2, padding="causal", name="s"),
    ]


@case(x=IMAGE, error=ValueError)
def conv2d_strides_and_dilation(tf, x):
    return tf.layers.conv2d(x, 4, 3, strides=2, dilation_rate=2)


@case(x=IMAGE, error=ValueError)
def conv2d_bad_padding(tf, x):
    return tf.layers.conv2d(x, 4, 3, padding="full")


@case(x=IMAGE, error=ValueError)
def conv2d_bad_window(tf, x):
    return tf.layers.conv2d(x, 4, (3, 3, 3))


@case(x=(2, 9, 3), error=ValueError)
def conv2d_bad_rank(tf, x):
    return tf.layers.conv2d(x, 4, 3)


@case(x=IMAGE)
def contrib_conv2d_all(tf, x):
    y = tf.contrib.conv2d(x, 4, 3)
    y = tf.contrib.conv2d(y, 4, [3, 2], stride=2, activation_fn=tf.tanh, biases_initializer=None)
    with (
        tf.variable_scope("s"),
        tf.arg_scope([tf.contrib.conv2d], padding="VALID", normalizer_fn=tf.contrib.layer_norm),
    ):
        y = tf.contrib.conv2d(y, 4, 2, weights_regularizer=tf.contrib.l2_regularizer(0.3), scope="c")
        z = tf.contrib.conv2d(y, 4, 1, normalizer_fn=None, scope="d", variables_collections={"biases": ["b"]})
        z = tf.contrib.conv2d(z, 4, 1, normalizer_fn=None, scope="d", reuse=True, outputs_collections="outs")
    return [y, z, tf.contrib.conv2d(x, 2, 3, rate=2)]


@case(x=(2, 9, 3), z=(2, 3, 4, 3, 2))
def contrib_other_convolutions(tf, x, z):
    return [
        tf.contrib.conv1d(x, 4, 3),
        tf.contrib.conv3d(z, 4, 2, 2),
        tf.contrib.convolution(x, 4, 3, 2),
        tf.contrib.convolution(z, 4, 3, data_format="NDHWC", scope="c"),
    ]


@case(x=(2, 4, 5, 3))
def contrib_conv2d_transpose_all(tf, x):
    y = tf.contrib.conv2d_transpose(x, 4, 3)
    y = tf.contrib.conv2d_transpose(y, 4, [3, 4], stride=2, scope="t", normalizer_fn=tf.contrib.layer_norm)
    return tf.contrib.conv2d_transpose(y, 2, 2, stride=(2, 1), padding="VALID", activation_fn=None)


@case(x=(2, 2, 3, 4, 2))
def contrib_conv3d_transpose(tf, x):
    return tf.contrib.conv3d_transpose(x, 3, 2, stride=2)


@case(x=IMAGE)
def contrib_separable_conv2d_all(tf, x):
    l2 = tf.contrib.l2_regularizer(0.3)
    y = tf.contrib.separable_conv2d(x, 4, 3, variables_collections=["w"], weights_regularizer=l2)
    y = tf.contrib.separable_conv2d(y, None, [3, 3], 2, stride=2, weights_regularizer=l2, outputs_collections="outs")
    y = tf.contrib.separable_conv2d(y, None, 3, variables_collections=["w"], biases_initializer=None)
    y = tf.contrib.separable_conv2d(y, None, 3, rate=2, normalizer_fn=tf.contrib.layer_norm, scope="s")
    return tf.contrib.separable_conv2d(y, 3, 2, 2, activation_fn=None, normalizer_fn=tf.contrib.layer_norm)


# Pooling --------------------------------------------------------------------------------------------------------------


@case(x=(2, 9, 3), y=IMAGE, z=(2, 4, 5, 6, 2))
def pooling_all(tf, x, y, z):
    found = []
    for padding in ("valid", "SAME"):
        for f in (tf.layers.max_pooling1d, tf.layers.average_pooling1d):
            found += [f(x, 2, 2, padding), f(x, [3], [1], padding)]
        for f in (tf.layers.max_pooling2d, tf.layers.average_pooling2d):
            found += [f(y, 2, 2, padding), f(y, (3, 2), (1, 3), padding=padding)]
        for f in (tf.layers.max_pooling3d, tf.layers.average_pooling3d):
            found += [f(z, 2, 2, padding), f(z, (3, 2, 1), (1, 3, 2), padding=padding)]
    return found


@case(x=IMAGE, gradients=True)
def pooling_gradients(tf, x):
    y = tf.layers.conv2d(x, 4, 2)
    return [
        tf.layers.max_pooling2d(y, 3, 2, "same"),
        tf.layers.average_pooling2d(y, 3, 2, "same"),
        tf.contrib.max_pool2d(y, [2, 2]),
        tf.contrib.avg_pool2d(y, 3, padding="SAME", outputs_collections="outs"),
        tf.contrib.max_pool2d(y, 3, stride=1, padding="SAME", scope="p"),
    ]


@case(x=IMAGE, z=(2, 4, 5, 6, 2))
def pooling_scopes(tf, x, z):
    found = [tf.layers.max_pooling2d(x, 2, 2), tf.contrib.max_pool2d(x, 2), tf.layers.average_pooling2d(x, 2, 2)]
    found += [tf.layers.average_pooling2d(x, 2, 2, name="p"), tf.layers.max_pooling2d(x, 2, 2, name="p")]
    for scope in ("max_pooling2d", "MaxPool2D", "average_pooling2d", "p"):
        with tf.variable_scope(None, scope):
            tf.get_variable("v", [])
    return [*found, tf.contrib.max_pool3d(z, 2), tf.contrib.avg_pool3d(z, [2, 3, 2])]


# Batch normalization --------------------------------------------------------------------------------------------------


@case(x=IMAGE, updates=True, gradients=True)
def batch_normalization_trains(tf, x):
    y = tf.tanh(tf.layers.batch_normalization(x, training=True))
    return [
        tf.layers.batch_normalization(y, momentum=0.6, center=False, training=True, name="b"),
        tf.layers.batch_normalization(0.01 * x, epsilon=1e-6, scale=False, training=True),
        tf.layers.batch_normalization(0.01 * x, epsilon=1e-5, momentum=0.6, fused=False, training=True),
    ]


@case(x=IMAGE, updates=True)
def batch_normalization_uses_moving(tf, x):
    y = tf.layers.batch_normalization(x)
    y = tf.layers.batch_normalization(y, training=False, trainable=False, name="b")
    return tf.layers.batch_normalization(y, fused=False, gamma_regularizer=tf.contrib.l2_regularizer(0.1))


@case(x=(6, 4), y=(2, 5, 3), z=(2, 3, 4, 2, 3), updates=True)
def batch_normalization_of_other_ranks(tf, x, y, z):
    return [tf.layers.batch_normalization(t, momentum=0.6, training=True) for t in (x, y, z)]


@case(x=IMAGE, updates=True)
def batch_normalization_axes(tf, x):
    return [
        tf.layers.batch_normalization(x, axis=2, momentum=0.6, training=True, fused=False),
        tf.layers.batch_normalization(x, axis=[1, 3], momentum=0.6, training=True),
        tf.layers.batch_normalization(x, axis=-2, momentum=0.6, training=True, fused=True),
    ]


@case(x=IMAGE, training=True, updates=True)
def batch_normalization_if_told(tf, x, training):
    y = tf.layers.batch_normalization(x, momentum=0.6, training=training)
    return tf.layers.batch_normalization(tf.tanh(y), momentum=0.6, fused=False, training=training)


@case(x=IMAGE, training=False, updates=True)
def batch_normalization_if_told_not(tf, x, training):
    y = tf.layers.batch_normalization(x, momentum=0.6, training=training)
    return tf.layers.batch_normalization(tf.tanh(y), momentum=0.6, fused=False, training=training)


@case(x=(1, 1, 1, 3), updates=True)
def batch_normalization_of_one(tf, x):
    return tf.layers.batch_normalization(x, momentum=0.6, training=True)


@case(x=IMAGE)
def batch_normalization_shared(tf, x):
    y = tf.layers.batch_normalization(x, name="b")
    return tf.layers.batch_normalization(y, name="b", reuse=True)


@case(x=IMAGE, updates=True, gradients=True)
def batch_norm_trains(tf, x):
    y = tf.contrib.batch_norm(x)
    y = tf.contrib.batch_norm(y, 0.6, scale=True, activation_fn=tf.tanh, variables_collections=["mine"])
    y = tf.contrib.batch_norm(y, 0.6, center=False, fused=False, scope="b")
    return tf.contrib.batch_norm(y, 0.6, scale=True, updates_collections="other", outputs_collections="outs")


@case(x=IMAGE, updates=True)
def batch_norm_in_place(tf, x):
    y = tf.contrib.batch_norm(x, 0.6, scale=True, updates_collections=None)
    y = tf.contrib.batch_norm(tf.tanh(y), 0.6, updates_collections=None, fused=False, is_training=True, scope="b")
    return tf.contrib.batch_norm(y, 0.6, updates_collections=None, epsilon=1e-7)


@case(x=(6, 4), y=(3, 5, 4), updates=True)
def batch_norm_of_other_ranks(tf, x, y):
    l2 = {"beta": tf.contrib.l2_regularizer(0.2), "gamma": tf.contrib.l2_regularizer(0.3)}
    found = []
    for t in (x, y):
        found += [
            tf.contrib.batch_norm(t, 0.6, scale=True, param_regularizers=l2),
            tf.contrib.batch_norm(t, 0.6, scale=True, param_regularizers=l2, fused=False),
            tf.contrib.batch_norm(t, 0.6, scale=True, param_regularizers=l2, updates_collections=None),
        ]
    return found


@case(x=(4, 5, 6, 3), w=(4,), updates=True)
def batch_norm_weighted(tf, x, w):
    y = tf.contrib.batch_norm(x, 0.6, batch_weights=w * w + 0.1, updates_collections=None)
    return tf.contrib.batch_norm(y, 0.6, batch_weights=w * w + 0.1)


@case(x=IMAGE, training=True, updates=True)
def batch_norm_if_told(tf, x, training):
    y = tf.contrib.batch_norm(x, 0.6, is_training=training)
    y = tf.contrib.batch_norm(tf.tanh(y), 0.6, is_training=training, updates_collections=None)
    return tf.contrib.batch_norm(tf.tanh(y), 0.6, is_training=training, updates_collections=None, fused=False)


@case(x=IMAGE, training=False, updates=True)
def batch_norm_if_told_not(tf, x, training):
    y = tf.contrib.batch_norm(x, 0.6, is_training=training)
    y = tf.contrib.batch_norm(tf.tanh(y), 0.6, is_training=training, updates_collections=None)
    return tf.contrib.batch_norm(tf.tanh(y), 0.6, is_training=training, updates_collections=None, fused=False)


@case(x=IMAGE)
def batch_norm_normalizes_convolutions(tf, x):
    params = {"is_training": False, "scale": True, "decay": 0.9}
    with tf.arg_scope(
        [tf.contrib.conv2d, tf.contrib.fully_connected],
        normalizer_fn=tf.contrib.batch_norm,
        weights_regularizer=tf.contrib.l2_regularizer(0.1),
    ) as scope:
        y = tf.contrib.conv2d(x, 4, 3, normalizer_params=params)
    with tf.arg_scope(scope), tf.arg_scope([tf.contrib.batch_norm], **params):
        y = tf.contrib.conv2d(y, 4, 3, scope="c")
        y = tf.contrib.fully_connected(tf.contrib.flatten(y), 4)
    return tf.contrib.conv2d(x, 4, 3, normalizer_fn=tf.layers.batch_normalization)


# Recurrent cells, embeddings ------------------------------------------------------------------------------------------

SEQUENCE = (3, 5, 4)


@case(x=(3, 4), y=(3, 4))
def cells_called_by_hand(tf, x, y):
    cells = tf.nn.rnn_cell
    found = []
    for cell in (
        cells.BasicRNNCell(5),
        cells.GRUCell(5),
        cells.BasicLSTMCell(5),
        cells.LSTMCell(5),
        cells.LSTMCell(5),
        cells.LSTMCell(5, name="named", activation=tf.sigmoid, forget_bias=0.3),
        cells.GRUCell(5, activation=tf.relu, bias_initializer=tf.zeros_initializer()),
    ):
        state = cell.zero_state(3, tf.float32)
        output, state = cell(x, state)
        output, state = cell(y, state)
        found += [output, state]
    return found


@case(x=(3, 4))
def cell_shared_between_scopes(tf, x):
    cell = tf.nn.rnn_cell.GRUCell(4)
    with tf.variable_scope("a"):
        y, _ = cell(x, x)
    with tf.variable_scope("b"):
        z, _ = cell(y, y)
    return [z, tf.layers.dense(z, 2)]


@case(x=(3, 4))
def cells_that_reuse(tf, x):
    for _ in range(2):
        with tf.variable_scope("s", reuse=tf.AUTO_REUSE):
            x, _ = tf.nn.rnn_cell.GRUCell(4)(x, x)
            x, _ = tf.nn.rnn_cell.BasicRNNCell(4, reuse=tf.AUTO_REUSE)(x, x)
            x, _ = tf.nn.rnn_cell.BasicRNNCell(4, reuse=tf.AUTO_REUSE, name="named")(x, x)
    return x


@case(x=(3, 4))
def cells_in_regularized_scope(tf, x):
    with tf.variable_scope("s", regularizer=tf.contrib.l2_regularizer(0.1), initializer=tf.ones_initializer()):
        x, _ = tf.nn.rnn_cell.GRUCell(4)(x, x)
    x, _ = tf.nn.rnn_cell.BasicRNNCell(4, trainable=False)(x, x)
    return x


@case(x=SEQUENCE, gradients=True)
def lstm_with_everything(tf, x):
    cell = tf.nn.rnn_cell.LSTMCell(
        6, use_peepholes=True, cell_clip=0.8, num_proj=3, proj_clip=0.5, initializer=tf.ones_initializer()
    )
    outputs, state = tf.nn.dynamic_rnn(cell, x, dtype=tf.float32)
    return [outputs, state.c, state.h]


@case(x=(3, 4))
def lstm_with_state_in_one(tf, x):
    found = []
    for cell in (
        tf.nn.rnn_cell.LSTMCell(5, num_proj=3, state_is_tuple=False),
        tf.nn.rnn_cell.BasicLSTMCell(5, state_is_tuple=False),
    ):
        found += cell(x, cell.zero_state(3, tf.float32))
    return found


@case(x=SEQUENCE, lengths=np.array([5, 0, 3]), gradients=True)
def dynamic_rnn_with_lengths(tf, x, lengths):
    cell = tf.nn.rnn_cell.BasicLSTMCell(6)
    outputs, state = tf.nn.dynamic_rnn(cell, x, sequence_length=lengths, dtype=tf.float32)
    with tf.variable_scope("second"):
        again, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(6), outputs, lengths, state.h)
    return [outputs, state, again]


@case(x=SEQUENCE, state=(5, 6))
def dynamic_rnn_time_major(tf, x, state):
    cell = tf.nn.rnn_cell.GRUCell(6)
    outputs, last = tf.nn.dynamic_rnn(cell, x, initial_state=state, time_major=True, scope="mine")
    more, _ = tf.nn.dynamic_rnn(cell, x, initial_state=last, time_major=True)
    return [outputs, last, more]


@case(x=SEQUENCE, gradients=True)
def dynamic_rnn_of_many(tf, x):
    cells = [tf.nn.rnn_cell.LSTMCell(6), tf.nn.rnn_cell.GRUCell(4), tf.nn.rnn_cell.BasicRNNCell(4)]
    cells[2] = tf.nn.rnn_cell.ResidualWrapper(tf.nn.rnn_cell.DropoutWrapper(cells[2]))
    cell = tf.nn.rnn_cell.MultiRNNCell(cells)
    outputs, states = tf.nn.dynamic_rnn(cell, x, dtype=tf.float32)
    return [outputs, states]


@case(x=SEQUENCE)
def dynamic_rnn_twice(tf, x):
    y, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(4), x, dtype=tf.float32)
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        y, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(4), y, dtype=tf.float32)
        y, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(4, name="other"), y, dtype=tf.float32)
    return y


@case(x=SEQUENCE, error=ValueError)
def dynamic_rnn_without_dtype(tf, x):
    return tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(4), x)[0]


@case(x=SEQUENCE, lengths=np.array([5, 0, 3]))
def bidirectional(tf, x, lengths):
    cells = tf.nn.rnn_cell.LSTMCell(6), tf.nn.rnn_cell.LSTMCell(6)
    outputs, states = tf.nn.bidirectional_dynamic_rnn(*cells, x, lengths, dtype=tf.float32)
    cells = tf.nn.rnn_cell.GRUCell(6), tf.nn.rnn_cell.GRUCell(6)
    more, _ = tf.nn.bidirectional_dynamic_rnn(*cells, x, dtype=tf.float32, time_major=True, scope="b")
    return [outputs, states, more]


@case(ids=np.array([[1, 0, 6], [6, 6, 2]]), gradients=True)
def embeddings(tf, ids):
    table = tf.get_variable("table", [7, 4])
    return [
        tf.nn.embedding_lookup(table, ids),
        tf.nn.embedding_lookup([table], ids),
        tf.nn.embedding_lookup(table, ids, max_norm=1.0),
    ]


@case(x=IMAGE)
def repeat_and_stack(tf, x):
    y = tf.contrib.repeat(x, 2, tf.contrib.conv2d, 4, 3, activation_fn=tf.tanh)
    y = tf.contrib.repeat(y, 2, tf.contrib.conv2d, 4, [3, 3], scope="conv1")
    y = tf.contrib.stack(y, tf.contrib.conv2d, [(3, [3, 3]), [2, 1, 2]], padding="VALID")
    y = tf.contrib.flatten(y)
    y = tf.contrib.stack(y, tf.contrib.fully_connected, [5, 4], scope="fc", activation_fn=tf.tanh)
    return tf.contrib.stack(y, tf.contrib.fully_connected, [3])


@case(x=IMAGE, y=(4, 6), updates=True)
def half_precision(tf, x, y):
    x, y = tf.cast(x, tf.float16), tf.cast(y, tf.float16)
    return [
        tf.layers.dense(y, 3),
        tf.layers.conv2d(x, 3, 2),
        tf.layers.average_pooling2d(x, 2, 2),
        tf.contrib.layer_norm(y),
        tf.layers.batch_normalization(x, momentum=0.6, training=True),
        tf.layers.batch_normalization(y, momentum=0.6, training=True),
        tf.layers.batch_normalization(x),
        tf.contrib.batch_norm(x, 0.6, scale=True),
        tf.contrib.batch_norm(x, 0.6, scale=True, updates_collections=None),
        tf.contrib.batch_norm(x, is_training=False),
    ]
