"""The regularizers of `tf.contrib.layers`: callables from a variable's value to a scalar loss."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js

from ..by_name import Regularizer, regularizer_of
from ..faults import bad_argument
from ..scopes import RegularizerSum


@dataclasses.dataclass(frozen=True)
class L1:
    """`scale` times the sum of absolute values."""

    scale: float

    def __call__(self, weights: jax.Array) -> jax.Array:
        return self.scale * jnp.sum(jnp.abs(weights))


@dataclasses.dataclass(frozen=True)
class L2:
    """`scale` times half the sum of squares."""

    scale: float

    def __call__(self, weights: jax.Array) -> jax.Array:
        return self.scale * 0.5 * jnp.sum(weights * weights)


def _of_scale(kind: type[L1] | type[L2], scale: Any, name: str) -> Regularizer:
    if isinstance(scale, jax.Array | np.ndarray) and scale.shape:
        raise bad_argument(
            f"{name} is called with an array of shape {scale.shape} as its scale: it makes a regularizer, and is none.",
            asked=name,
            fix=f"give what it makes, as in kernel_regularizer={name}(1e-4)",
        )
    is_integer = isinstance(scale, int | np.integer) and not isinstance(scale, bool)
    if is_integer and scale:
        raise bad_argument(f"scale={scale!r} is an integer.", asked=name, fix=f"give a float: {float(scale)}")
    if not (is_integer or isinstance(scale, float | np.floating)) or not scale >= 0:
        raise bad_argument(f"scale={scale!r:.80} is no number of at least 0.", asked=name, fix="give 0.0 or more")
    return kind(float(scale)) if scale else js.no_regularizer


def l1_regularizer(scale: float, scope: str | None = None) -> Regularizer:
    """A regularizer: `scale * sum(abs(w))`. TF1: `tf.contrib.layers.l1_regularizer`, `slim.l1_regularizer`.

    Args:
      scale: a float of at least 0; 0.0 gives no loss at all.
      scope: no effect.

    Raises:
      BadArgumentError: for an integer (as in TF1) or a negative number.

    Example:
      >>> from jscope.layers.contrib import l1_regularizer
      >>> float(l1_regularizer(0.5)(jnp.array([1., -3.])))
      2.0
    """
    return _of_scale(L1, scale, "l1_regularizer")


def l2_regularizer(scale: float, scope: str | None = None) -> Regularizer:
    """A regularizer: `scale * sum(w**2) / 2`. TF1: `tf.contrib.layers.l2_regularizer`, `slim.l2_regularizer`.

    Args:
      scale: a float of at least 0; 0.0 gives no loss at all.
      scope: no effect.

    Raises:
      BadArgumentError: for an integer (as in TF1) or a negative number.

    Example:
      >>> from jscope.layers.contrib import l2_regularizer
      >>> float(l2_regularizer(0.5)(jnp.array([1., -3.])))
      2.5
    """
    return _of_scale(L2, scale, "l2_regularizer")


def l1_l2_regularizer(scale_l1: float = 1.0, scale_l2: float = 1.0, scope: str | None = None) -> Regularizer:
    """A regularizer: the sum of `l1_regularizer` and `l2_regularizer`. TF1: `tf.contrib.layers.l1_l2_regularizer`.

    Args:
      scale_l1, scale_l2: as in `l1_regularizer` and `l2_regularizer`.
      scope: no effect.

    Raises:
      BadArgumentError: for integers or negative numbers.

    Example:
      >>> from jscope.layers.contrib import l1_l2_regularizer
      >>> float(l1_l2_regularizer(1.0, 1.0)(jnp.array([1., -3.])))
      9.0
    """
    return sum_regularizer([l1_regularizer(scale_l1), l2_regularizer(scale_l2)])


def sum_regularizer(regularizer_list: Sequence[Regularizer | None], scope: str | None = None) -> Regularizer:
    """The sum of regularizers. TF1: `tf.contrib.layers.sum_regularizer`.

    Args:
      regularizer_list: a list of regularizers, or of their names in Keras; None ones are left out.
      scope: no effect.

    Raises:
      BadArgumentError: for what is no list of regularizers.

    Example:
      >>> from jscope.layers.contrib import l1_regularizer, sum_regularizer
      >>> float(sum_regularizer([None, l1_regularizer(0.5), jnp.max])(jnp.array([1., -3.])))
      3.0
    """
    if not isinstance(regularizer_list, list | tuple):
        raise bad_argument(
            f"regularizer_list={regularizer_list!r:.80} is no list.",
            asked="sum_regularizer",
            fix="give a list of regularizers, such as [l2_regularizer(1e-4)]",
        )
    return RegularizerSum(tuple(_callable(each, "sum_regularizer") for each in regularizer_list if each is not None))


def _callable(regularizer: Any, asked: str) -> Regularizer:
    found = regularizer_of(regularizer, asked)
    if not callable(found):
        raise bad_argument(
            f"{regularizer!r:.80} is no regularizer.", asked=asked, fix="give one such as l2_regularizer(1e-4)"
        )
    return found


def apply_regularization(regularizer: Regularizer, weights_list: Sequence[Any] | None = None) -> jax.Array:
    """The sum of a regularizer's losses, added to the collection `REGULARIZATION_LOSSES` as well.

    TF1: `tf.contrib.layers.apply_regularization`.

    Args:
      regularizer: a callable from value to scalar, or its name in Keras; None from it is 0.
      weights_list: arrays, `VariableSpec`s or full names; default what is in the collection `WEIGHTS`.

    Returns:
      A scalar.

    Raises:
      BadArgumentError: if there are no weights, or no list of them, and if the regularizer is none or gives no scalar.

    Example:
      >>> from jscope.layers import apply_regularization, l2_regularizer
      >>> def program():
      ...     w = js.get_variable("w", [2], initializer=js.ones_initializer())
      ...     return apply_regularization(l2_regularizer(0.5), [w])
      >>> net = js.transform(program)
      >>> float(net.apply(net.init(jax.random.key(0))))
      0.5
    """
    regularizer = _callable(regularizer, "apply_regularization")
    if not isinstance(weights_list, list | tuple | None):
        raise bad_argument(
            f"weights_list={weights_list!r:.80} is no list.", asked="apply_regularization", fix="give a list: [weights]"
        )
    weights = list(weights_list or js.get_collection(js.GraphKeys.WEIGHTS))
    if not weights:
        raise bad_argument(
            "There are no weights to regularize.",
            asked="apply_regularization",
            fix="give a list of arrays, or put variables into the collection js.GraphKeys.WEIGHTS",
        )
    with js.name_scope("get_regularization_penalty", values=weights):
        penalties = []
        for weight in weights:
            penalty = regularizer(
                js.value(weight) if isinstance(weight, str | js.VariableSpec) else jnp.asarray(weight)
            )
            penalties.append(jnp.float32(0.0) if penalty is None else jnp.asarray(penalty))
            if penalties[-1].shape != ():
                raise bad_argument(
                    f"The regularizer gives an array of shape {penalties[-1].shape}.",
                    asked="apply_regularization",
                    fix="give one that returns a scalar",
                )
        total = functools.reduce(operator.add, penalties)
        js.add_to_collection(js.GraphKeys.REGULARIZATION_LOSSES, total)
        return total
