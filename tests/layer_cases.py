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
