"""The separable convolutions of `tf.layers`: one over each channel alone, then one over the channels of each point."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

import jscope as js

from .by_name import Activation, Regularizer, activation_of
from .core import NO_ACTIVITY
from .families import member
from .faults import as_flag, as_input, as_size, refuse
from .scopes import add_weight, layer_scope, options
from .shardings import whole
from .windows import Windows, add_bias, convolve, sizes, windows


def depthwise(x: jax.Array, kernel: jax.Array, how: Windows) -> jax.Array:
    """A convolution of each channel by itself; the kernel is [*window, channels, multiplier]."""
    *window, channels, multiplier = kernel.shape
    kernel = whole(kernel).reshape(*window, 1, channels * multiplier)  # JAX can't merge sharded dimensions
    return convolve(x, kernel, how, groups=channels)


def separable_layer(
    how: Windows,
    *,
    inputs: Any,
    filters: int,
    depth_multiplier: int,
    activation: Activation | str | None,
    use_bias: bool,
    depthwise_kernel: dict[str, Any],
    pointwise_kernel: dict[str, Any],
    bias: dict[str, Any],
    trainable: bool | None,
    name: Any,
    reuse: Any,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a separable convolution gives, and its variables; the dicts are further arguments of `add_weight`."""
    asked, n = how.asked, len(how.size)
    x = as_input(inputs, asked, (n + 2,))
    (multiplier,) = sizes(depth_multiplier, 1, "depth_multiplier", asked)
    filters = as_size(filters, "filters", asked)
    activation = activation_of(activation, asked)
    use_bias = as_flag(use_bias, "use_bias", asked)
    at: dict[str, Any] = {"trainable": trainable, "at": name}
    channels, ones = how.channels(x), (1,) * n
    kernels = {
        "depthwise_kernel": ([*how.size, channels, multiplier], depthwise_kernel),
        "pointwise_kernel": ([*ones, channels * multiplier, filters], pointwise_kernel),
    }
    points = dataclasses.replace(how, size=ones, strides=ones, dilation=ones, padding="valid")
    with layer_scope(name, asked, reuse):
        variables = {key: add_weight(key, shape, x.dtype, **at, **more) for key, (shape, more) in kernels.items()}
        if use_bias:
            variables["bias"] = add_weight("bias", [filters], x.dtype, **at, **bias)
        outputs = convolve(depthwise(x, variables["depthwise_kernel"], how), variables["pointwise_kernel"], points)
        if use_bias:
            outputs = add_bias(outputs, variables["bias"], how)
        return outputs if activation is None else activation(outputs), variables


def _separable_convolution(asked: str, n: int, one: Any):
    def separable_convolution(
        inputs: Any,
        filters: int,
        kernel_size: Any,
        strides: Any = one,
        padding: str = "valid",
        data_format: str = "channels_last",
        dilation_rate: Any = one,
        depth_multiplier: int = 1,
        activation: Activation | str | None = None,
        use_bias: bool = True,
        depthwise_initializer: Any = None,
        pointwise_initializer: Any = None,
        bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
        depthwise_regularizer: Regularizer | str | None = None,
        pointwise_regularizer: Regularizer | str | None = None,
        bias_regularizer: Regularizer | str | None = None,
        activity_regularizer: None = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        trainable: bool | None = None,
        name: str | js.VariableScope | None = None,
        reuse: Any = None,
    ) -> jax.Array:
        """A convolution of each channel by itself, then one over the channels of each point. TF1: `tf.layers.$name`.

        Default scope `$name`; variables `depthwise_kernel` of shape [*kernel_size, channels, depth_multiplier],
        `pointwise_kernel` of shape [$ones, channels * depth_multiplier, filters] and `bias` of shape [filters].

        Args:
          inputs, filters, kernel_size, strides, padding, data_format, dilation_rate: as in `conv${n}d`.
          depth_multiplier: how many channels the first convolution makes of each.
          activation: a function of the output, or its name in Keras; None for none.
          use_bias: whether there is a `bias`.
          depthwise_initializer, pointwise_initializer, bias_initializer: default those of the scope (glorot uniform),
            and zeros; or names in Keras.
          depthwise_regularizer, pointwise_regularizer, bias_regularizer: callables from value to scalar loss, or names
            in Keras.
          activity_regularizer: not supported; None only.
          depthwise_constraint, pointwise_constraint, bias_constraint: callables from value to value.
          trainable: whether the variables are trainable; default as the scope says.
          name, reuse: as in `dense`.

        Returns:
          As `conv${n}d`.

        Raises:
          BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
          JscopeError: as `js.get_variable`.

        Example:
          >>> from jscope.layers import $name
          >>> net = js.transform(lambda x: $name(x, 4, 3, name="s", use_bias=False))
          >>> net.init(jax.random.key(0), jnp.ones((2, $eights, 5)))
          Params({s: {depthwise_kernel: f32[$threes,5,1], pointwise_kernel: f32[$ones,5,4]}})
        """
        refuse(asked, NO_ACTIVITY, activity_regularizer=activity_regularizer)
        how = windows(
            asked,
            n,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            causal=n == 1,
        )
        outputs, _ = separable_layer(
            how,
            inputs=inputs,
            filters=filters,
            depth_multiplier=depth_multiplier,
            activation=activation,
            use_bias=use_bias,
            depthwise_kernel=options(depthwise_initializer, depthwise_regularizer, depthwise_constraint),
            pointwise_kernel=options(pointwise_initializer, pointwise_regularizer, pointwise_constraint),
            bias=options(bias_initializer, bias_regularizer, bias_constraint),
            trainable=trainable,
            name=name,
            reuse=reuse,
        )
        return outputs

    return member(separable_convolution, asked, n)


separable_conv1d = _separable_convolution("separable_conv1d", 1, 1)
separable_conv2d = _separable_convolution("separable_conv2d", 2, (1, 1))
