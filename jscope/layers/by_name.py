"""Activations, initializers and regularizers by their names in Keras, which `tf.layers` takes since TensorFlow 1.13."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp

import jscope as js

from .faults import bad_argument, unknown_name

Activation = Callable[[jax.Array], jax.Array]
Regularizer = Callable[[jax.Array], Any]


def _linear(x: jax.Array) -> jax.Array:
    return x


def _hard_sigmoid(x: jax.Array) -> jax.Array:
    """Keras's, which is not JAX's of the same name."""
    return jnp.clip(0.2 * x + 0.5, 0, 1)


_ACTIVATIONS: dict[str, Activation] = {
    "elu": jax.nn.elu,
    "exponential": jnp.exp,
    "hard_sigmoid": _hard_sigmoid,
    "linear": _linear,
    "relu": jax.nn.relu,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "tanh": jnp.tanh,
}

# With Keras's arguments where those are not the ones of TF1's own initializers.
_INITIALIZERS = {
    "constant": js.zeros_initializer(),
    "glorot_normal": js.glorot_normal_initializer(),
    "glorot_uniform": js.glorot_uniform_initializer(),
    "he_normal": js.he_normal_initializer(),
    "he_uniform": js.he_uniform_initializer(),
    "identity": js.identity_initializer(),
    "lecun_normal": js.lecun_normal_initializer(),
    "lecun_uniform": js.lecun_uniform_initializer(),
    "normal": js.random_normal_initializer(0.0, 0.05),
    "one": js.ones_initializer(),
    "ones": js.ones_initializer(),
    "orthogonal": js.orthogonal_initializer(),
    "random_normal": js.random_normal_initializer(0.0, 0.05),
    "random_uniform": js.random_uniform_initializer(-0.05, 0.05),
    "truncated_normal": js.truncated_normal_initializer(0.0, 0.05),
    "uniform": js.random_uniform_initializer(-0.05, 0.05),
    "variance_scaling": js.variance_scaling_initializer(),
    "zero": js.zeros_initializer(),
    "zeros": js.zeros_initializer(),
}


def _l1(weights: jax.Array) -> jax.Array:
    return 0.01 * jnp.sum(jnp.abs(weights))


def _l2(weights: jax.Array) -> jax.Array:
    return 0.01 * jnp.sum(jnp.square(weights))


def _l1_l2(weights: jax.Array) -> jax.Array:
    return _l1(weights) + _l2(weights)


_REGULARIZERS: dict[str, Regularizer] = {"l1": _l1, "l2": _l2, "l1_l2": _l1_l2}


def activation_of(given: Any, asked: str, argument: str = "activation") -> Activation | None:
    """An activation that is given as a function, a name of Keras's or None.

    Raises:
      BadArgumentError: for anything else.
    """
    if isinstance(given, str):
        if given not in _ACTIVATIONS:
            raise unknown_name(argument, given, _ACTIVATIONS, asked=asked, fix="give a function, such as jax.nn.relu")
        return _ACTIVATIONS[given]
    if given is None or callable(given):
        return cast("Activation | None", given)
    raise bad_argument(f"{argument}={given!r} is no function.", asked=asked, fix="give such as jax.nn.relu")


def initializer_of(given: Any, asked: str) -> Any:
    """An initializer by its name in Keras; what is no name, as it is.

    Raises:
      BadArgumentError: for another name.
    """
    if not isinstance(given, str):
        return given
    if given not in _INITIALIZERS:
        raise unknown_name("initializer", given, _INITIALIZERS, asked=asked, fix="give such as js.zeros_initializer()")
    return _INITIALIZERS[given]


def regularizer_of(given: Any, asked: str) -> Any:
    """A regularizer by its name in Keras; what is no name, as it is.

    Raises:
      BadArgumentError: for another name.
    """
    if not isinstance(given, str):
        return given
    if given not in _REGULARIZERS:
        raise unknown_name("regularizer", given, _REGULARIZERS, asked=asked, fix="give such as l2_regularizer(0.01)")
    return _REGULARIZERS[given]
