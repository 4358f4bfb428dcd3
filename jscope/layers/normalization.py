"""`batch_normalization` of `tf.layers`, and the parts of it that `tf.contrib.layers` needs too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from .._support import single_or_wider
from .by_name import Regularizer
from .faults import (
    as_flag,
    as_input,
    as_training,
    bad_argument,
    both_ways,
    check_numbers,
    items,
    of_variables,
    refuse,
    whole,
)
from .scopes import add_weight, layer_scope, names_of, options
from .shardings import arithmetic, as_sharded

_NO_RENORM = "leave it out; plain batch normalization has the same variables but for renorm's own"


def moments(x: jax.Array, axes: Sequence[int], weights: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and variance over `axes`, which are left out; weighted by an array that spreads over `x`."""
    if weights is None:
        mean = jnp.mean(x, axes, keepdims=True)
        variance = jnp.mean(jnp.square(x - mean), axes)
        return jnp.squeeze(mean, axes), variance
    weights = jnp.broadcast_to(weights, x.shape)
    total = jnp.sum(weights, axes, keepdims=True)
    mean = jnp.sum(weights * x, axes, keepdims=True) / total
    variance = jnp.sum(weights * jnp.square(x - mean), axes) / jnp.squeeze(total, axes)
    return jnp.squeeze(mean, axes), variance


def without_bias(variance: jax.Array, count: Any) -> jax.Array:
    """The estimate of the variance that `count` numbers come from: what TensorFlow's fused kernels give to be kept."""
    if isinstance(count, int):
        return variance * (count / max(count - 1, 1))
    count = jnp.asarray(count, variance.dtype)  # a size that `jax.export` leaves open
    return variance * (count / jnp.maximum(count - 1, 1))


def normalized(
    x: jax.Array, mean: Any, variance: Any, variables: dict[str, jax.Array], epsilon: float, shape: Sequence[int]
) -> jax.Array:
    """`(x - mean) / sqrt(variance + epsilon) * gamma + beta`, as far as there are gamma and beta.

    The statistics and the variables take `shape` for that.
    """
    scale = jax.lax.rsqrt(variance + epsilon)
    if "gamma" in variables:
        scale = scale * variables["gamma"]
    outputs = (x - mean.reshape(shape)) * scale.reshape(shape)
    return outputs + variables["beta"].reshape(shape) if "beta" in variables else outputs


def is_array(training: Any) -> bool:
    """Whether it is only known when the program runs if it trains."""
    return isinstance(training, jax.Array)


def batch_or_moving(
    x: jax.Array,
    axes: Sequence[int],
    moving: tuple[jax.Array, jax.Array],
    *,
    momentum: Any,
    training: Any,
    fused: bool,
    updates_collections: Any,
    weights: jax.Array | None = None,
    asked: str,
) -> tuple[jax.Array, jax.Array]:
    """The mean and variance to normalize with: those of the batch in training, having moved the moving ones.

    Args:
      x: the inputs, in the dtype of the variables.
      axes: over which the batch's are taken.
      moving: the variables `moving_mean` and `moving_variance`.
      momentum: how much of the moving ones is kept.
      training: as `as_training` gives it.
      fused: whether the moving variance is moved to the estimate without bias.
      updates_collections: the collection or collections that list the variables that are moved; None for none.
      weights: of the batch.
      asked: the layer's public name.

    Raises:
      BadArgumentError: in training, for an empty batch.
    """
    if not is_array(training) and not training:
        return moving
    shape, count = moving[0].shape, math.prod(x.shape[axis] for axis in axes)
    if isinstance(count, int) and not count:
        raise bad_argument(
            f"An input of shape {x.shape} has no mean to train with: the moving averages would become nan.",
            asked=asked,
            fix="leave empty batches out, or give training=False for them",
        )

    def of_batch() -> tuple[jax.Array, jax.Array]:
        mean, variance = moments(x, axes, weights)
        return as_sharded(mean.reshape(shape), moving[0]), as_sharded(variance.reshape(shape), moving[1])

    mean, variance = jax.lax.cond(training, of_batch, lambda: moving) if is_array(training) else of_batch()
    new = mean, without_bias(variance, count) if fused else variance
    for variable, value in zip(moving, new, strict=True):
        for collection in names_of(updates_collections):
            js.add_to_collection(collection, variable)
        moved = variable - (variable - value) * (1 - jnp.asarray(momentum, variable.dtype))
        if is_array(training):
            moved = jnp.where(training, moved, variable)
        # As in TensorFlow: who reads the new value in the same run has no gradient through it.
        with both_ways(training), of_variables(asked):
            js.assign(variable, jax.lax.stop_gradient(moved))
    return mean, variance


def batch_norm_layer(
    *,
    asked: str,
    inputs: Any,
    axis: Any,
    momentum: Any,
    epsilon: float,
    gamma: dict[str, Any] | None,
    beta: dict[str, Any] | None,
    moving_mean_initializer: Any,
    moving_variance_initializer: Any,
    training: Any,
    trainable: bool | None,
    name: Any,
    reuse: Any,
    fused: bool | None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What `batch_normalization` gives, and its variables; `gamma` and `beta` are further arguments of `add_weight`."""
    x = as_input(inputs, asked)
    kept = _checked_axes(axis, x, asked)
    check_numbers(asked, momentum=momentum, epsilon=epsilon)
    training = as_training(training, asked)
    fused = fused is None or as_flag(fused, "fused", asked)
    # Variables, statistics and sums of half precision are float32, as in TensorFlow.
    dtype = single_or_wider(x.dtype)
    spread = [n if i in kept else 1 for i, n in enumerate(x.shape)]
    shape = [x.shape[kept[0]]] if len(kept) == 1 else spread
    wanted = {
        "gamma": gamma and {**gamma, "trainable": trainable},
        "beta": beta and {**beta, "trainable": trainable},
        "moving_mean": {"initializer": moving_mean_initializer, "trainable": False},
        "moving_variance": {"initializer": moving_variance_initializer, "trainable": False},
    }
    with layer_scope(name, "batch_normalization", reuse):
        variables = {key: add_weight(key, shape, dtype, at=name, **more) for key, more in wanted.items() if more}
        wide = x.astype(dtype)
        with arithmetic(asked, wide, **variables):
            mean, variance = batch_or_moving(
                wide,
                [i for i in range(x.ndim) if i not in kept],
                (variables["moving_mean"], variables["moving_variance"]),
                momentum=momentum,
                training=training,
                fused=_is_fused(fused, kept, x),
                updates_collections=js.GraphKeys.UPDATE_OPS,
                asked=asked,
            )
            return normalized(wide, mean, variance, variables, epsilon, spread).astype(x.dtype), variables


def _checked_axes(axis: Any, x: jax.Array, asked: str) -> list[int]:
    several = items(axis)
    given = [whole(a) for a in ((axis,) if several is None else several)]
    found = [a + x.ndim if a < 0 else a for a in given if a is not None]
    is_fine = found and len(set(found)) == len(given) and all(0 <= a < x.ndim for a in found)
    if not is_fine:
        raise bad_argument(
            f"axis={axis!r:.80} names no dimensions of inputs of shape {x.shape}, or one twice.",
            asked=asked,
            fix="give the dimension of the channels, -1 for the last one",
        )
    return found


def _is_fused(fused: bool, kept: list[int], x: jax.Array) -> bool:
    """Whether TensorFlow would take its fused kernel, which keeps another variance."""
    half_or_single = x.dtype in (jnp.float32, jnp.float16, jnp.bfloat16)
    return fused and x.ndim in (4, 5) and half_or_single and kept in ([1], [x.ndim - 1])


def batch_normalization(
    inputs: Any,
    axis: Any = -1,
    momentum: Any = 0.99,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    beta_initializer: Any = js.zeros_initializer(),  # noqa: B008 (frozen values, as in TF1's signature)
    gamma_initializer: Any = js.ones_initializer(),  # noqa: B008
    moving_mean_initializer: Any = js.zeros_initializer(),  # noqa: B008
    moving_variance_initializer: Any = js.ones_initializer(),  # noqa: B008
    beta_regularizer: Regularizer | str | None = None,
    gamma_regularizer: Regularizer | str | None = None,
    beta_constraint: Any = None,
    gamma_constraint: Any = None,
    training: Any = False,
    trainable: bool | None = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
    renorm: bool = False,
    renorm_clipping: None = None,
    renorm_momentum: float = 0.99,
    fused: bool | None = None,
    virtual_batch_size: None = None,
    adjustment: None = None,
) -> jax.Array:
    """Each channel made of mean 0 and variance 1, scaled by `gamma` and shifted by `beta`.

    TF1: `tf.layers.batch_normalization`. Default scope `batch_normalization`; variables `gamma`, `beta`, `moving_mean`
    and `moving_variance`, in this order, the last two not trainable, of the inputs' dtype (float32 for half precision).

    In training mean and variance are those of the batch, and the moving ones are moved towards them: `js.assign` does
    it at once, so run the program by `net.update`. There are no update operations to be run; the collection
    `UPDATE_OPS` lists the variables that were moved. Otherwise mean and variance are the moving ones.

    Args:
      inputs: floating; of shape [batch, ..., channels] with the default axis.
      axis: the dimension of the channels, or a list of dimensions.
      momentum: how much of the moving mean and variance is kept in a step.
      epsilon: added to the variance.
      center: whether there is a `beta`.
      scale: whether there is a `gamma`.
      beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer: default zeros, ones,
        zeros and ones; or names in Keras.
      beta_regularizer, gamma_regularizer: callables from value to scalar loss, or names in Keras.
      beta_constraint, gamma_constraint: callables from value to value; see `Specs.constrain`.
      training: a bool, or a scalar array of bool (then `net.update` is needed in both cases).
      trainable: whether `gamma` and `beta` are trainable; default as the scope says.
      name, reuse: as in `dense`.
      fused: TensorFlow uses its fused kernel for inputs of four and five dimensions, the second or last of them the
        channels, unless this is False. The moving variance is then moved towards n / (n - 1) times the variance of the
        batch's n numbers, here too.
      renorm, renorm_clipping, virtual_batch_size, adjustment: not supported; the defaults only.
      renorm_momentum: no effect.

    Returns:
      Shape and dtype of the inputs.

    Raises:
      AssignError: in training, in `net.apply`.
      BadArgumentError: for arguments that mean nothing or are not supported.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers import batch_normalization
      >>> net = js.transform(lambda x, training: batch_normalization(x, momentum=0.5, training=training))
      >>> x = jnp.array([[1.0], [3.0]])
      >>> params = net.init(jax.random.key(0), x, True)
      >>> out, params = net.update(params, x, True)
      >>> out.round(2).ravel().tolist(), params["batch_normalization/moving_mean"].tolist()
      ([-1.0, 1.0], [1.0])
      >>> net.apply(params, x, False).round(2).ravel().tolist()
      [0.0, 2.0]
    """
    asked = "batch_normalization"
    refuse(asked, _NO_RENORM, renorm=renorm or None, renorm_clipping=renorm_clipping)
    refuse(asked, "normalize over the whole batch", virtual_batch_size=virtual_batch_size)
    refuse(asked, "scale and shift the output yourself", adjustment=adjustment)
    outputs, _ = batch_norm_layer(
        asked=asked,
        inputs=inputs,
        axis=axis,
        momentum=momentum,
        epsilon=epsilon,
        gamma=options(gamma_initializer, gamma_regularizer, gamma_constraint)
        if as_flag(scale, "scale", asked)
        else None,
        beta=options(beta_initializer, beta_regularizer, beta_constraint) if as_flag(center, "center", asked) else None,
        moving_mean_initializer=moving_mean_initializer,
        moving_variance_initializer=moving_variance_initializer,
        training=training,
        trainable=trainable,
        name=name,
        reuse=reuse,
        fused=fused,
    )
    return outputs
