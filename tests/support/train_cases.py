"""Programs of `tf.train` that TensorFlow 1 and jscope both run, several times, each time from what the last one left.

`tf` is what they have in common. A program returns what is to be run (in jscope it has run), and notes: names, numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CASES: dict[str, Callable[..., Any]] = {}
STEPS = 3
SHAPE = (2, 3)  # of the input, another one in each step


def case(program: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function a case under its own name."""
    CASES[program.__name__] = program
    return program


def names_to_restore(ema: Any, of: Any) -> list[list[str]]:
    return sorted([name, of(variable)] for name, variable in ema.variables_to_restore().items())


@case
def averages_of_all(tf, x):
    with tf.variable_scope("a"):
        w = tf.get_variable("w", [2, 3])
    tf.get_variable("v", [3], trainable=False)
    tf.get_local_variable("local", [])
    b = tf.get_variable("b", [])
    ema = tf.train.ExponentialMovingAverage(0.9)
    before = [ema.average_name(w), ema.average(w) is None]
    with tf.control_dependencies([tf.assign(w, w + x), tf.assign(b, 2 * b)]):
        op = ema.apply()
    return [op], [*before, ema.average_name(w), tf.of(ema.average(w)), names_to_restore(ema, tf.of), ema.name]


@case
def averages_in_scopes(tf, x):
    with tf.variable_scope("a"):
        w = tf.get_variable("w", [2, 3])
    b = tf.get_variable("b", [3])
    ops, names = [], []
    first, second = tf.train.ExponentialMovingAverage(0.9), tf.train.ExponentialMovingAverage(0.8)
    named = tf.train.ExponentialMovingAverage(0.7, name="mine")
    with tf.control_dependencies([tf.assign(w, w + x)]):
        with tf.variable_scope("s"):
            ops.append(first.apply([w]))
        ops += [second.apply([w, b]), named.apply([b]), first.apply([b])]
        names += [ema.average_name(v) for ema in (first, second, named) for v in (w, b)]
    names += [[tf.of(v) for v in tf.get_collection("moving_average_variables")]]
    return ops, [*names, *(names_to_restore(ema, tf.of) for ema in (first, second, named))]


@case
def averages_of_early_steps(tf, x):
    w = tf.get_variable("w", [2, 3])
    step = tf.train.get_or_create_global_step()
    ema = tf.train.ExponentialMovingAverage(0.15, num_updates=step)
    with tf.control_dependencies([tf.assign(w, w - x)]):
        op = ema.apply([w])
    with tf.control_dependencies([op]):
        return [op, tf.assign(step, step + 1)], [tf.of(step)]


@case
def averages_of_values(tf, x):
    zeros = tf.zeros_initializer()
    with tf.variable_scope("a"):
        plain = tf.get_variable("plain", [2, 3], initializer=zeros, trainable=False)
        mean = tf.get_variable("mean", [2, 3], initializer=zeros, trainable=False)
    ops = [tf.assign_moving_average(plain, x, 0.9, zero_debias=False)]
    with tf.variable_scope("s"):
        ops.append(tf.assign_moving_average(mean, x, 0.6))
    with tf.control_dependencies(ops):
        ops.append(tf.assign_moving_average(mean, 2 * x, 0.6))
        with tf.control_dependencies(ops), tf.variable_scope("s"):
            ops.append(tf.assign_moving_average(mean, x + 1, 0.6))
    return ops, []


@case
def averages_of_values_that_reuse(tf, x):
    ops = []
    for _ in range(2):
        with tf.control_dependencies(ops), tf.variable_scope("s", reuse=tf.AUTO_REUSE):
            mean = tf.get_variable("mean", [2, 3], initializer=tf.zeros_initializer(), trainable=False)
            ops.append(tf.assign_moving_average(mean, x, 0.6))
    return ops, []


@case
def global_steps(tf, x):
    none = tf.train.get_global_step() is None
    with tf.variable_scope("s"):
        step = tf.train.create_global_step()
    assert tf.of(tf.train.get_or_create_global_step()) == tf.of(step)
    try:
        tf.train.create_global_step()
    except ValueError:
        collected = [tf.of(v) for v in tf.get_collection("global_step")]
        return [tf.assign(step, step + 2)], [none, collected, len(tf.trainable_variables())]


@case
def global_step_of_ones_own(tf, x):
    zeros = tf.zeros_initializer()
    step = tf.get_variable("global_step", [], tf.int32, zeros, trainable=False, use_resource=False)
    return [tf.assign(step, step + 1)], [tf.of(tf.train.get_or_create_global_step())]


@case
def global_step_of_no_integers(tf, x):
    tf.get_variable("global_step", [], trainable=False, use_resource=False)
    try:
        tf.train.get_global_step()
    except TypeError:
        return [], ["refused"]
