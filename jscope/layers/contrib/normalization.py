"""`layer_norm` of `tf.contrib.layers`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from ..._support import single_or_wider
from ..by_name import Activation
from ..faults import as_flag, as_input, as_whole, bad_argument
from ..products import scaled, shifted
from ..shardings import arithmetic
from .collections import collections_for, finish, model_variable


@js.add_arg_scope
def layer_norm(
    inputs: Any,
    center: bool = True,
    scale: bool = True,
    activation_fn: Activation | str | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    begin_norm_axis: int = 1,
    begin_params_axis: int = -1,
    scope: Any = None,
) -> jax.Array:
    """Each example made of mean 0 and variance 1, then scaled by `gamma` and shifted by `beta`.

    TF1: `tf.contrib.layers.layer_norm`, `slim.layer_norm`. Default scope `LayerNorm`; variables `beta`, then `gamma`,
    of shape `inputs.shape[begin_params_axis:]`, both model variables. The variance is taken plus 1e-12 (float16: 1e-3).

    **As in TF1, mean and variance are taken over all dimensions but the first.** In a model over [batch, time, n] that
    is to see the past only, each step then depends on all later ones. There, and wherever Haiku's or Flax's LayerNorm
    is meant, give `begin_norm_axis=-1`: mean and variance over the last dimension, as BERT does.

    Args:
      inputs: floating, of two dimensions or more unless the axes say otherwise.
      center: whether there is a `beta`.
      scale: whether there is a `gamma`.
      activation_fn: a function of the output; None for none.
      reuse: as in `js.variable_scope`; needs a scope.
      variables_collections: more collections for the variables: a name, a list, or a dict by "beta" and "gamma".
      outputs_collections: a collection or a list of them, to which the output is added.
      trainable: whether the variables are trainable; default as the scope says.
      begin_norm_axis: the first of the dimensions over which mean and variance are taken; -1 for the last one alone.
      begin_params_axis: the first of the dimensions of the variables.
      scope: the scope's name, or a scope object; None for the default name, made unique.

    Returns:
      Shape and dtype of the inputs.

    Raises:
      BadArgumentError: for axes that the inputs don't have, and inputs that are not floating.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import layer_norm
      >>> net = js.transform(lambda x: layer_norm(x, begin_norm_axis=-1))
      >>> x = jnp.array([[[1., 3.], [4., 8.]]])
      >>> params = net.init(jax.random.key(0), x)
      >>> params
      Params({LayerNorm: {beta: f32[2], gamma: f32[2]}})
      >>> net.apply(params, x).round(4).tolist()
      [[[-1.0, 1.0], [-1.0, 1.0]]]
    """
    x = as_input(inputs, "layer_norm")
    begin_norm_axis = as_whole(begin_norm_axis, "begin_norm_axis", "layer_norm")
    begin_params_axis = as_whole(begin_params_axis, "begin_params_axis", "layer_norm")
    center, scale = as_flag(center, "center", "layer_norm"), as_flag(scale, "scale", "layer_norm")
    if begin_norm_axis < 0:
        begin_norm_axis += x.ndim
    if not 0 <= begin_norm_axis < x.ndim or not -x.ndim <= begin_params_axis < x.ndim:
        raise bad_argument(
            f"begin_norm_axis={begin_norm_axis} and begin_params_axis={begin_params_axis} are not both dimensions of "
            f"inputs of shape {x.shape}.",
            asked="layer_norm",
            fix="give axes that the inputs have",
        )
    with js.variable_scope(scope, "LayerNorm", [inputs], reuse=reuse):
        shape = x.shape[begin_params_axis:]

        def parameter(name: str, initializer: Any) -> jax.Array:
            collections = collections_for(variables_collections, name)
            return model_variable(
                name, shape, x.dtype, initializer=initializer, collections=collections, trainable=trainable
            )

        wanted = (("beta", center, js.zeros_initializer()), ("gamma", scale, js.ones_initializer()))
        variables = {name: parameter(name, initializer) for name, is_wanted, initializer in wanted if is_wanted}
        # Moments of half precision are taken in float32, as TensorFlow does.
        wide = x.astype(single_or_wider(x.dtype))
        axes = tuple(range(begin_norm_axis, x.ndim))
        with arithmetic("layer_norm", x, **variables):
            mean = jnp.mean(wide, axes, keepdims=True)
            centered = wide - mean
            variance = jnp.mean(centered * centered, axes, keepdims=True)
            outputs = (centered * jax.lax.rsqrt(variance + (1e-3 if x.dtype == jnp.float16 else 1e-12))).astype(x.dtype)
            if scale:
                outputs = scaled(outputs, variables["gamma"])
            if center:
                outputs = shifted(outputs, variables["beta"])
        return finish(outputs, activation_fn=activation_fn, outputs_collections=outputs_collections)
