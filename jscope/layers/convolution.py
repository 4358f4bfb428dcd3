"""The convolutions of `tf.layers`: `conv1d`, `conv2d`, `conv3d` and their transposed ones."""

from __future__ import annotations

from typing import Any

import jax

import jscope as js

from .by_name import Activation, Regularizer, activation_of
from .core import NO_ACTIVITY
from .families import member
from .faults import as_flag, as_input, as_size, refuse
from .scopes import add_weight, layer_scope, options
from .windows import Windows, add_bias, convolve, convolve_transposed, windows


def conv_layer(
    how: Windows,
    *,
    inputs: Any,
    filters: int,
    activation: Activation | str | None,
    use_bias: bool,
    kernel: dict[str, Any],
    bias: dict[str, Any],
    trainable: bool | None,
    name: Any,
    reuse: Any,
    transposed: bool = False,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a convolution gives, and its variables; `kernel` and `bias` are further arguments of `add_weight`."""
    asked = how.asked
    x = as_input(inputs, asked, (len(how.size) + 2,))
    filters = as_size(filters, "filters", asked)
    activation = activation_of(activation, asked)
    use_bias = as_flag(use_bias, "use_bias", asked)
    more: dict[str, Any] = {"trainable": trainable, "at": name}
    channels = how.channels(x)
    shape = [*how.size, filters, channels] if transposed else [*how.size, channels, filters]
    with layer_scope(name, asked, reuse):
        variables = {"kernel": add_weight("kernel", shape, x.dtype, **more, **kernel)}
        if use_bias:
            variables["bias"] = add_weight("bias", [filters], x.dtype, **more, **bias)
        outputs = (convolve_transposed if transposed else convolve)(x, variables["kernel"], how)
        if use_bias:
            outputs = add_bias(outputs, variables["bias"], how)
        return outputs if activation is None else activation(outputs), variables


def _convolution(asked: str, n: int, one: Any):
    def convolution(
        inputs: Any,
        filters: int,
        kernel_size: Any,
        strides: Any = one,
        padding: str = "valid",
        data_format: str = "channels_last",
        dilation_rate: Any = one,
        activation: Activation | str | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
        kernel_regularizer: Regularizer | str | None = None,
        bias_regularizer: Regularizer | str | None = None,
        activity_regularizer: None = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        trainable: bool | None = None,
        name: str | js.VariableScope | None = None,
        reuse: Any = None,
    ) -> jax.Array:
        """A convolution over $dimensions. TF1: `tf.layers.$name`.

        Default scope `$name`; variables `kernel` of shape [*kernel_size, channels, filters] and `bias` of shape
        [filters], of the inputs' dtype.

        Args:
          inputs: shape $channels_last, floating; $channels_first with "channels_first".
          filters: the number of channels of the output.
          kernel_size: the size of the window: an integer, or $integers.
          strides: by how much the window is moved: an integer, or $integers.
          padding: "valid" or "same", in any case; "causal" too over one dimension.
          data_format: "channels_last" or "channels_first".
          dilation_rate: the distance of the elements in the window; above 1 only where the strides are 1.
          activation: a function of the output, or its name in Keras; None for none.
          use_bias: whether there is a `bias`.
          kernel_initializer, bias_initializer: default those of the scope (glorot uniform), and zeros; or names in
            Keras.
          kernel_regularizer, bias_regularizer: callables from value to scalar loss, or names in Keras.
          activity_regularizer: not supported; None only.
          kernel_constraint, bias_constraint: callables from value to value; see `Specs.constrain`.
          trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
          name, reuse: as in `dense`.

        Returns:
          Shape [batch, $new, filters], or with the channels first; the inputs' dtype.

        Raises:
          BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
          JscopeError: as `js.get_variable`.

        Example:
          >>> from jscope.layers import $name
          >>> net = js.transform(lambda x: $name(x, 4, 3, strides=2, padding="same"))
          >>> x = jnp.ones((2, $eights, 5))
          >>> net.init(jax.random.key(0), x)
          Params({$name: {bias: f32[4], kernel: f32[$threes,5,4]}})
          >>> net.apply(net.init(jax.random.key(0), x), x).shape
          (2, $fours, 4)
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
        outputs, _ = conv_layer(
            how,
            inputs=inputs,
            filters=filters,
            activation=activation,
            use_bias=use_bias,
            kernel=options(kernel_initializer, kernel_regularizer, kernel_constraint),
            bias=options(bias_initializer, bias_regularizer, bias_constraint),
            trainable=trainable,
            name=name,
            reuse=reuse,
        )
        return outputs

    return member(convolution, asked, n)


def _transposed_convolution(asked: str, n: int, one: Any):
    def transposed_convolution(
        inputs: Any,
        filters: int,
        kernel_size: Any,
        strides: Any = one,
        padding: str = "valid",
        data_format: str = "channels_last",
        activation: Activation | str | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        bias_initializer: Any = js.zeros_initializer(),  # noqa: B008
        kernel_regularizer: Regularizer | str | None = None,
        bias_regularizer: Regularizer | str | None = None,
        activity_regularizer: None = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        trainable: bool | None = None,
        name: str | js.VariableScope | None = None,
        reuse: Any = None,
    ) -> jax.Array:
        """A transposed convolution over $dimensions, which makes images larger. TF1: `tf.layers.$name`.

        Default scope `$name`; variables `kernel` of shape [*kernel_size, filters, channels] and `bias` of shape
        [filters], of the inputs' dtype. The output is `strides` times as large, with "valid" padding by as much larger
        as the window is larger than the strides.

        Args:
          inputs: shape $channels_last, floating; $channels_first with "channels_first".
          filters: the number of channels of the output.
          kernel_size: the size of the window: an integer, or $integers.
          strides: by how much the window is moved: an integer, or $integers.
          padding: "valid" or "same", in any case.
          data_format, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint, trainable, name, reuse: as in
            `conv${n}d`.

        Returns:
          Shape [batch, $new, filters], or with the channels first; the inputs' dtype.

        Raises:
          BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
          JscopeError: as `js.get_variable`.

        Example:
          >>> from jscope.layers import $name
          >>> net = js.transform(lambda x: $name(x, 4, 3, strides=2, padding="same"))
          >>> x = jnp.ones((2, $eights, 5))
          >>> net.init(jax.random.key(0), x)
          Params({$name: {bias: f32[4], kernel: f32[$threes,4,5]}})
          >>> net.apply(net.init(jax.random.key(0), x), x).shape
          (2, $sixteens, 4)
        """
        refuse(asked, NO_ACTIVITY, activity_regularizer=activity_regularizer)
        outputs, _ = conv_layer(
            windows(asked, n, kernel_size=kernel_size, strides=strides, padding=padding, data_format=data_format),
            inputs=inputs,
            filters=filters,
            activation=activation,
            use_bias=use_bias,
            kernel=options(kernel_initializer, kernel_regularizer, kernel_constraint),
            bias=options(bias_initializer, bias_regularizer, bias_constraint),
            trainable=trainable,
            name=name,
            reuse=reuse,
            transposed=True,
        )
        return outputs

    return member(transposed_convolution, asked, n)


conv1d = _convolution("conv1d", 1, 1)
conv2d = _convolution("conv2d", 2, (1, 1))
conv3d = _convolution("conv3d", 3, (1, 1, 1))
conv2d_transpose = _transposed_convolution("conv2d_transpose", 2, (1, 1))
conv3d_transpose = _transposed_convolution("conv3d_transpose", 3, (1, 1, 1))
