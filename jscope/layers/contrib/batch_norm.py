"""`batch_norm` of `tf.contrib.layers`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from ..._support import single_or_wider
from ..by_name import Activation
from ..faults import as_flag, as_input, as_training, bad_argument, check_keys, check_min_rank, check_numbers, refuse
from ..normalization import batch_norm_layer, batch_or_moving, normalized
from ..scopes import options
from ..shardings import arithmetic
from .collections import MODEL, collect_variable, collections_for, finish, model_variable

_UPDATE_OPS = js.GraphKeys.UPDATE_OPS
_INITIALIZERS = {
    "beta": js.zeros_initializer(),
    "gamma": js.ones_initializer(),
    "moving_mean": js.zeros_initializer(),
    "moving_variance": js.ones_initializer(),
}


@js.add_arg_scope
def batch_norm(
    inputs: Any,
    decay: Any = 0.999,
    center: bool = True,
    scale: bool = False,
    epsilon: float = 0.001,
    activation_fn: Activation | str | None = None,
    param_initializers: dict[str, Any] | None = None,
    param_regularizers: dict[str, Any] | None = None,
    updates_collections: Any = _UPDATE_OPS,
    is_training: Any = True,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    batch_weights: Any = None,
    fused: bool | None = None,
    data_format: str = "NHWC",
    zero_debias_moving_mean: bool = False,
    scope: Any = None,
    renorm: bool = False,
    renorm_clipping: None = None,
    renorm_decay: float = 0.99,
    adjustment: None = None,
) -> jax.Array:
    """Each channel made of mean 0 and variance 1, with `scale` scaled by `gamma`, and shifted by `beta`.

    TF1: `tf.contrib.layers.batch_norm`, `slim.batch_norm`. Default scope `BatchNorm`; variables `gamma` if asked for,
    `beta`, `moving_mean` and `moving_variance`, all of them model variables, the last two not trainable. As in
    TensorFlow `beta` is made before `gamma` for inputs of two dimensions, with `batch_weights`, and with another
    `updates_collections` than the default.

    In training mean and variance are those of the batch, and the moving ones are moved towards them: `js.assign` does
    it at once, so run the program by `net.update`. TensorFlow does so for `updates_collections=None` alone, and else
    leaves it to who runs the operations of the collection.

    Args:
      inputs: floating, of shape [batch, ..., channels], or [batch, channels, ...] with "NCHW".
      decay: how much of the moving mean and variance is kept in a step.
      center: whether there is a `beta`.
      scale: whether there is a `gamma`.
      epsilon: added to the variance.
      activation_fn: a function of the output; None for none.
      param_initializers: initializers by "beta", "gamma", "moving_mean", "moving_variance".
      param_regularizers: regularizers by "beta", "gamma".
      updates_collections: the collection, or list of them, in which the moved variables are listed; None for none.
      is_training: a bool, or a scalar array of bool (then `net.update` is needed in both cases).
      reuse: as in `js.variable_scope`; needs a scope.
      variables_collections: more collections for the variables: a name, a list, or a dict of those by variable.
      outputs_collections: a collection or a list of them, to which the output is added.
      trainable: whether `gamma` and `beta` are trainable; default as the scope says.
      batch_weights: shape [batch]: how often each example counts.
      fused: whether the moving variance is moved as by TensorFlow's fused kernel, see
        `jscope.layers.batch_normalization`; None for where TensorFlow uses that.
      data_format: "NHWC" or "NCHW".
      scope: the scope's name, or a scope object; None for the default name, made unique.
      zero_debias_moving_mean, renorm, renorm_clipping, adjustment: not supported; the defaults only.
      renorm_decay: no effect.

    Returns:
      Shape and dtype of the inputs.

    Raises:
      AssignError: in training, in `net.apply`.
      BadArgumentError: for arguments that mean nothing or are not supported.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import batch_norm
      >>> net = js.transform(lambda x: batch_norm(x, decay=0.5))
      >>> x = jnp.array([[1.0], [3.0]])
      >>> params = net.init(jax.random.key(0), x)
      >>> params
      Params({BatchNorm: {beta: f32[1], moving_mean: f32[1], moving_variance: f32[1]}})
      >>> out, params = net.update(params, x)
      >>> params["BatchNorm/moving_mean"].tolist()
      [1.0]
    """
    asked = "batch_norm"
    fix = "leave it out; the other variables are the same"
    refuse(asked, fix, renorm=renorm or None, renorm_clipping=renorm_clipping, adjustment=adjustment)
    refuse(asked, fix, zero_debias_moving_mean=zero_debias_moving_mean or None)
    x = as_input(inputs, asked)
    check_min_rank(x, 2, asked)
    check_numbers(asked, decay=decay, epsilon=epsilon)
    is_training = as_training(is_training, asked, "is_training")
    if data_format not in ("NHWC", "NCHW"):
        raise bad_argument(f"data_format={data_format!r} means nothing.", asked=asked, fix="give 'NHWC' or 'NCHW'")
    check_keys(param_initializers or {}, _INITIALIZERS, "param_initializers", asked)
    check_keys(param_regularizers or {}, ("beta", "gamma"), "param_regularizers", asked)
    initializers, regularizers = {**_INITIALIZERS, **(param_initializers or {})}, param_regularizers or {}
    fused = fused is None or as_flag(fused, "fused", asked)
    can_fuse = fused and batch_weights is None and x.ndim in (2, 4)
    by_layer = batch_weights is None and updates_collections == _UPDATE_OPS and not (can_fuse and x.ndim == 2)
    axis = 1 if data_format == "NCHW" else x.ndim - 1
    with js.variable_scope(scope, "BatchNorm", [inputs], reuse=reuse, custom_getter=MODEL if by_layer else None) as at:
        wanted = {
            name: options(initializers[name], regularizers.get(name))
            for name, is_wanted in (
                ("beta", as_flag(center, "center", asked)),
                ("gamma", as_flag(scale, "scale", asked)),
            )
            if is_wanted
        }
        if by_layer:
            outputs, variables = batch_norm_layer(
                asked=asked,
                inputs=x,
                axis=axis,
                momentum=decay,
                epsilon=epsilon,
                gamma=wanted.get("gamma"),
                beta=wanted.get("beta"),
                moving_mean_initializer=initializers["moving_mean"],
                moving_variance_initializer=initializers["moving_variance"],
                training=is_training,
                trainable=trainable,
                name=at,
                reuse=reuse,
                fused=fused,
            )
            for name in ("moving_mean", "moving_variance", "beta", "gamma"):
                if name in variables:
                    collect_variable(variables[name], variables_collections, name)
        else:
            if not can_fuse:  # TensorFlow takes no regularizers where it does not use its fused kernel
                wanted = {name: {**more, "regularizer": None} for name, more in wanted.items()}
            moving = {name: options(initializers[name], None) for name in ("moving_mean", "moving_variance")}
            variables = {
                name: model_variable(
                    name,
                    [x.shape[axis]],
                    single_or_wider(x.dtype),
                    collections=collections_for(variables_collections, name),
                    trainable=trainable if name in wanted else False,
                    **more,
                )
                for name, more in (wanted | moving).items()
            }
            with arithmetic(asked, x, **variables):
                outputs = _plain(
                    x,
                    axis,
                    variables,
                    decay=decay,
                    epsilon=epsilon,
                    updates_collections=updates_collections,
                    is_training=is_training,
                    batch_weights=batch_weights,
                    fused=can_fuse,
                )
        return finish(outputs, activation_fn=activation_fn, outputs_collections=outputs_collections)


def _plain(
    x: jax.Array,
    axis: int,
    variables: dict[str, jax.Array],
    *,
    decay: Any,
    epsilon: float,
    updates_collections: Any,
    is_training: Any,
    batch_weights: Any,
    fused: bool,
) -> jax.Array:
    """The normalization that TF1 does not leave to `tf.layers`."""
    wide = x.astype(variables["moving_mean"].dtype)
    weights = None
    if batch_weights is not None:
        weights = jnp.asarray(batch_weights, wide.dtype)
        if weights.shape != x.shape[:1]:
            raise bad_argument(
                f"batch_weights of shape {weights.shape} do not fit inputs of shape {x.shape}.",
                asked="batch_norm",
                fix="give one number for each example of the batch",
            )
        weights = jax.lax.expand_dims(weights, range(1, x.ndim))
    mean, variance = batch_or_moving(
        wide,
        [i for i in range(x.ndim) if i != axis],
        (variables["moving_mean"], variables["moving_variance"]),
        momentum=decay,
        training=is_training,
        fused=fused,
        updates_collections=updates_collections,
        weights=weights,
        asked="batch_norm",
    )
    shape = [n if i == axis else 1 for i, n in enumerate(x.shape)]
    return normalized(wide, mean, variance, variables, epsilon, shape).astype(x.dtype)
