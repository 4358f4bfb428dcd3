"""The separable convolutions of `tf.layers`: one over each channel alone, then one over the channels of each point."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from .convolution import check_dilation, check_filters
from .core import NO_ACTIVITY, Activation
from .faults import check_floating, check_rank, refuse
from .scopes import Regularizer, add_weight, layer_scope
from .windows import add_bias, convolve, is_channels_first, padding_name, sizes


def depthwise(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    padding: str,
    dilation: tuple[int, ...],
    channels_first: bool,
    asked: str,
) -> jax.Array:
    """A convolution of each channel by itself; the kernel is [*window, channels, multiplier]."""
    *window, channels, multiplier = kernel.shape
    kernel = kernel.reshape(*window, 1, channels * multiplier)
    return convolve(x, kernel, strides, padding, dilation, channels_first, asked, groups=channels)


def separable_layer(
    asked: str,
    n: int,
    inputs: Any,
    filters: int,
    kernel_size: Any,
    strides: Any,
    padding: str,
    data_format: str,
    dilation_rate: Any,
    depth_multiplier: int,
    activation: Activation | None,
    *,
    use_bias: bool,
    depthwise_kernel: dict[str, Any],
    pointwise_kernel: dict[str, Any],
    bias: dict[str, Any],
    trainable: bool | None,
    name: Any,
    reuse: Any,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a separable convolution over `n` dimensions gives, and its variables; arguments as `conv_layer`."""
    x = jnp.asarray(inputs)
    check_floating(x, asked)
    check_rank(x, (n + 2,), asked)
    window = sizes(kernel_size, n, "kernel_size", asked)
    steps = sizes(strides, n, "strides", asked)
    dilation = sizes(dilation_rate, n, "dilation_rate", asked)
    (multiplier,) = sizes(depth_multiplier, 1, "depth_multiplier", asked)
    pads = padding_name(padding, asked, causal=n == 1)
    channels_first = is_channels_first(data_format, asked)
    check_filters(filters, asked)
    check_dilation(steps, dilation, asked)
    channels = x.shape[1 if channels_first else -1]
    point = (1,) * n
    with layer_scope(name, asked, reuse):
        shapes = {
            "depthwise_kernel": [*window, channels, multiplier],
            "pointwise_kernel": [*point, channels * multiplier, filters],
        }
        options = {"depthwise_kernel": depthwise_kernel, "pointwise_kernel": pointwise_kernel}
        variables = {
            key: add_weight(key, shape, x.dtype, trainable=trainable, **options[key]) for key, shape in shapes.items()
        }
        if use_bias:
            variables["bias"] = add_weight("bias", [filters], x.dtype, trainable=trainable, **bias)
        outputs = depthwise(x, variables["depthwise_kernel"], steps, pads, dilation, channels_first, asked)
        outputs = convolve(outputs, variables["pointwise_kernel"], point, "valid", point, channels_first, asked)
        if use_bias:
            outputs = add_bias(outputs, variables["bias"], channels_first)
        return outputs if activation is None else activation(outputs), variables


def separable_conv1d(
    inputs: Any,
    filters: int,
    kernel_size: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: Any = 1,
    depth_multiplier: int = 1,
    activation: Activation | None = None,
    use_bias: bool = True,
    depthwise_initializer: Any = None,
    pointwise_initializer: Any = None,
    bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    depthwise_regularizer: Regularizer | None = None,
    pointwise_regularizer: Regularizer | None = None,
    bias_regularizer: Regularizer | None = None,
    activity_regularizer: None = None,
    depthwise_constraint: Any = None,
    pointwise_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: bool | None = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
) -> jax.Array:
    """A convolution of each channel by itself, then one over the channels of each point.

    TF1: `tf.layers.separable_conv1d`. Default scope `separable_conv1d`; variables `depthwise_kernel` of shape
    [*kernel_size, channels, depth_multiplier], `pointwise_kernel` of shape
    [1, channels * depth_multiplier, filters] and `bias` of shape [filters].

    Args:
      inputs, filters, kernel_size, strides, padding, data_format, dilation_rate: as in `conv1d`.
      depth_multiplier: how many channels the first convolution makes of each.
      activation: a function of the output; None for none.
      use_bias: whether there is a `bias`.
      depthwise_initializer, pointwise_initializer, bias_initializer: default those of the scope (glorot uniform), and
        zeros.
      depthwise_regularizer, pointwise_regularizer, bias_regularizer: callables from value to scalar loss.
      activity_regularizer: not supported; None only.
      depthwise_constraint, pointwise_constraint, bias_constraint: callables from value to value.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      name, reuse: as in `dense`.

    Returns:
      As `conv1d`.

    Raises:
      BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers import separable_conv1d
      >>> net = js.transform(lambda x: separable_conv1d(x, 4, 3, name="s", use_bias=False))
      >>> net.init(jax.random.key(0), jnp.ones((2, 8, 5)))
      Params({s: {depthwise_kernel: f32[3,5,1], pointwise_kernel: f32[1,5,4]}})
    """
    refuse("separable_conv1d", NO_ACTIVITY, activity_regularizer=activity_regularizer)
    return separable_layer(
        "separable_conv1d",
        1,
        inputs,
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
        depth_multiplier,
        activation,
        use_bias=use_bias,
        depthwise_kernel={
            "initializer": depthwise_initializer,
            "regularizer": depthwise_regularizer,
            "constraint": depthwise_constraint,
        },
        pointwise_kernel={
            "initializer": pointwise_initializer,
            "regularizer": pointwise_regularizer,
            "constraint": pointwise_constraint,
        },
        bias={"initializer": bias_initializer, "regularizer": bias_regularizer, "constraint": bias_constraint},
        trainable=trainable,
        name=name,
        reuse=reuse,
    )[0]


def separable_conv2d(
    inputs: Any,
    filters: int,
    kernel_size: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: Any = (1, 1),
    depth_multiplier: int = 1,
    activation: Activation | None = None,
    use_bias: bool = True,
    depthwise_initializer: Any = None,
    pointwise_initializer: Any = None,
    bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    depthwise_regularizer: Regularizer | None = None,
    pointwise_regularizer: Regularizer | None = None,
    bias_regularizer: Regularizer | None = None,
    activity_regularizer: None = None,
    depthwise_constraint: Any = None,
    pointwise_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: bool | None = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
) -> jax.Array:
    """A convolution of each channel by itself, then one over the channels of each point.

    TF1: `tf.layers.separable_conv2d`. Default scope `separable_conv2d`; variables `depthwise_kernel` of shape
    [*kernel_size, channels, depth_multiplier], `pointwise_kernel` of shape
    [1, 1, channels * depth_multiplier, filters] and `bias` of shape [filters].

    Args:
      inputs, filters, kernel_size, strides, padding, data_format, dilation_rate: as in `conv2d`.
      depth_multiplier: how many channels the first convolution makes of each.
      activation: a function of the output; None for none.
      use_bias: whether there is a `bias`.
      depthwise_initializer, pointwise_initializer, bias_initializer: default those of the scope (glorot uniform), and
        zeros.
      depthwise_regularizer, pointwise_regularizer, bias_regularizer: callables from value to scalar loss.
      activity_regularizer: not supported; None only.
      depthwise_constraint, pointwise_constraint, bias_constraint: callables from value to value.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      name, reuse: as in `dense`.

    Returns:
      As `conv2d`.

    Raises:
      BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers import separable_conv2d
      >>> net = js.transform(lambda x: separable_conv2d(x, 4, 3, name="s", use_bias=False))
      >>> net.init(jax.random.key(0), jnp.ones((2, 8, 8, 5)))
      Params({s: {depthwise_kernel: f32[3,3,5,1], pointwise_kernel: f32[1,1,5,4]}})
    """
    refuse("separable_conv2d", NO_ACTIVITY, activity_regularizer=activity_regularizer)
    return separable_layer(
        "separable_conv2d",
        2,
        inputs,
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
        depth_multiplier,
        activation,
        use_bias=use_bias,
        depthwise_kernel={
            "initializer": depthwise_initializer,
            "regularizer": depthwise_regularizer,
            "constraint": depthwise_constraint,
        },
        pointwise_kernel={
            "initializer": pointwise_initializer,
            "regularizer": pointwise_regularizer,
            "constraint": pointwise_constraint,
        },
        bias={"initializer": bias_initializer, "regularizer": bias_regularizer, "constraint": bias_constraint},
        trainable=trainable,
        name=name,
        reuse=reuse,
    )[0]
