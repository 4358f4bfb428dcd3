"""The convolutions of `tf.layers`: `conv1d`, `conv2d`, `conv3d` and their transposed ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from .core import NO_ACTIVITY, Activation
from .faults import bad_argument, check_floating, check_rank, refuse
from .scopes import Regularizer, add_weight, layer_scope
from .windows import add_bias, convolve, convolve_transposed, is_channels_first, padding_name, sizes


def conv_layer(
    asked: str,
    n: int,
    inputs: Any,
    filters: int,
    kernel_size: Any,
    strides: Any,
    padding: str,
    data_format: str,
    dilation_rate: Any,
    activation: Activation | None,
    *,
    use_bias: bool,
    kernel: dict[str, Any],
    bias: dict[str, Any],
    trainable: bool | None,
    name: Any,
    reuse: Any,
    transposed: bool = False,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a convolution over `n` dimensions gives, and its variables.

    `kernel` and `bias` are further arguments of `add_weight`; `asked` is the public name, and the default scope's.
    """
    x = jnp.asarray(inputs)
    check_floating(x, asked)
    check_rank(x, (n + 2,), asked)
    window = sizes(kernel_size, n, "kernel_size", asked)
    steps = sizes(strides, n, "strides", asked)
    dilation = sizes(dilation_rate, n, "dilation_rate", asked)
    pads = padding_name(padding, asked, causal=n == 1 and not transposed)
    channels_first = is_channels_first(data_format, asked)
    check_filters(filters, asked)
    check_dilation(steps, dilation, asked)
    channels = x.shape[1 if channels_first else -1]
    shape = [*window, filters, channels] if transposed else [*window, channels, filters]
    with layer_scope(name, asked, reuse):
        variables = {"kernel": add_weight("kernel", shape, x.dtype, trainable=trainable, **kernel)}
        if use_bias:
            variables["bias"] = add_weight("bias", [filters], x.dtype, trainable=trainable, **bias)
        if transposed:
            outputs = convolve_transposed(x, variables["kernel"], steps, pads, channels_first)
        else:
            outputs = convolve(x, variables["kernel"], steps, pads, dilation, channels_first, asked)
        if use_bias:
            outputs = add_bias(outputs, variables["bias"], channels_first)
        return outputs if activation is None else activation(outputs), variables


def check_filters(filters: Any, asked: str) -> None:
    """Raises BadArgumentError for what is no positive integer."""
    if not isinstance(filters, int) or filters <= 0:
        raise bad_argument(f"filters={filters!r} is no positive integer.", asked=asked, fix="give a positive integer")


def check_dilation(strides: tuple[int, ...], dilation: tuple[int, ...], asked: str) -> None:
    """Raises BadArgumentError for strides and dilation both, as TensorFlow does."""
    if max(strides) > 1 and max(dilation) > 1:
        raise bad_argument(
            f"strides={strides} and dilation_rate={dilation} are both above 1.", asked=asked, fix="make one of them 1"
        )


def conv1d(
    inputs: Any,
    filters: int,
    kernel_size: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: Any = 1,
    activation: Activation | None = None,
    use_bias: bool = True,
    kernel_initializer: Any = None,
    bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    kernel_regularizer: Regularizer | None = None,
    bias_regularizer: Regularizer | None = None,
    activity_regularizer: None = None,
    kernel_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: bool | None = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
) -> jax.Array:
    """A convolution over one dimension. TF1: `tf.layers.conv1d`.

    Default scope `conv1d`; variables `kernel` of shape [*kernel_size, channels, filters] and `bias` of shape [filters],
    of the inputs' dtype.

    Args:
      inputs: shape [batch, length, channels], floating; [batch, channels, length] with "channels_first".
      filters: the number of channels of the output.
      kernel_size: the size of the window: an integer, or a list of one.
      strides: by how much the window is moved: an integer, or a list of one.
      padding: "valid" or "same", in any case; "causal" adds all of the padding in front.
      data_format: "channels_last" or "channels_first".
      dilation_rate: the distance of the elements in the window; above 1 only where the strides are 1.
      activation: a function of the output; None for none.
      use_bias: whether there is a `bias`.
      kernel_initializer, bias_initializer: default those of the scope (glorot uniform), and zeros.
      kernel_regularizer, bias_regularizer: callables from value to scalar loss.
      activity_regularizer: not supported; None only.
      kernel_constraint, bias_constraint: callables from value to value; see `Specs.constrain`.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      name, reuse: as in `dense`.

    Returns:
      Shape [batch, new length, filters], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers import conv1d
      >>> net = js.transform(lambda x: conv1d(x, 4, 3, strides=2, padding="same"))
      >>> x = jnp.ones((2, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({conv1d: {bias: f32[4], kernel: f32[3,5,4]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 4, 4)
    """
    refuse("conv1d", NO_ACTIVITY, activity_regularizer=activity_regularizer)
    return conv_layer(
        "conv1d",
        1,
        inputs,
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
        activation,
        use_bias=use_bias,
        kernel={"initializer": kernel_initializer, "regularizer": kernel_regularizer, "constraint": kernel_constraint},
        bias={"initializer": bias_initializer, "regularizer": bias_regularizer, "constraint": bias_constraint},
        trainable=trainable,
        name=name,
        reuse=reuse,
    )[0]


def conv2d(
    inputs: Any,
    filters: int,
    kernel_size: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: Any = (1, 1),
    activation: Activation | None = None,
    use_bias: bool = True,
    kernel_initializer: Any = None,
    bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    kernel_regularizer: Regularizer | None = None,
    bias_regularizer: Regularizer | None = None,
    activity_regularizer: None = None,
    kernel_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: bool | None = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
) -> jax.Array:
    """A convolution over two dimensions. TF1: `tf.layers.conv2d`.

    Default scope `conv2d`; variables `kernel` of shape [*kernel_size, channels, filters] and `bias` of shape [filters],
    of the inputs' dtype.

    Args:
      inputs: shape [batch, height, width, channels], floating; [batch, channels, height, width] with "channels_first".
      filters: the number of channels of the output.
      kernel_size: the size of the window: an integer, or two of them.
      strides: by how much the window is moved: an integer, or two of them.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      dilation_rate: the distance of the elements in the window; above 1 only where the strides are 1.
      activation: a function of the output; None for none.
      use_bias: whether there is a `bias`.
      kernel_initializer, bias_initializer: default those of the scope (glorot uniform), and zeros.
      kernel_regularizer, bias_regularizer: callables from value to scalar loss.
      activity_regularizer: not supported; None only.
      kernel_constraint, bias_constraint: callables from value to value; see `Specs.constrain`.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      name, reuse: as in `dense`.

    Returns:
      Shape [batch, new height, new width, filters], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers import conv2d
      >>> net = js.transform(lambda x: conv2d(x, 4, 3, strides=2, padding="same"))
      >>> x = jnp.ones((2, 8, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({conv2d: {bias: f32[4], kernel: f32[3,3,5,4]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 4, 4, 4)
    """
    refuse("conv2d", NO_ACTIVITY, activity_regularizer=activity_regularizer)
    return conv_layer(
        "conv2d",
        2,
        inputs,
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
        activation,
        use_bias=use_bias,
        kernel={"initializer": kernel_initializer, "regularizer": kernel_regularizer, "constraint": kernel_constraint},
        bias={"initializer": bias_initializer, "regularizer": bias_regularizer, "constraint": bias_constraint},
        trainable=trainable,
        name=name,
        reuse=reuse,
    )[0]


def conv3d(
    inputs: Any,
    filters: int,
    kernel_size: Any,
    strides: Any = (1, 1, 1),
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: Any = (1, 1, 1),
    activation: Activation | None = None,
    use_bias: bool = True,
    kernel_initializer: Any = None,
    bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    kernel_regularizer: Regularizer | None = None,
    bias_regularizer: Regularizer | None = None,
    activity_regularizer: None = None,
    kernel_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: bool | None = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
) -> jax.Array:
    """A convolution over three dimensions. TF1: `tf.layers.conv3d`.

    Default scope `conv3d`; variables `kernel` of shape [*kernel_size, channels, filters] and `bias` of shape [filters],
    of the inputs' dtype.

    Args:
      inputs: shape [batch, depth, height, width, channels], floating; [batch, channels, depth, height, width] with
        "channels_first".
      filters: the number of channels of the output.
      kernel_size: the size of the window: an integer, or three of them.
      strides: by how much the window is moved: an integer, or three of them.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      dilation_rate: the distance of the elements in the window; above 1 only where the strides are 1.
      activation: a function of the output; None for none.
      use_bias: whether there is a `bias`.
      kernel_initializer, bias_initializer: default those of the scope (glorot uniform), and zeros.
      kernel_regularizer, bias_regularizer: callables from value to scalar loss.
      activity_regularizer: not supported; None only.
      kernel_constraint, bias_constraint: callables from value to value; see `Specs.constrain`.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      name, reuse: as in `dense`.

    Returns:
      Shape [batch, new depth, new height, new width, filters], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers import conv3d
      >>> net = js.transform(lambda x: conv3d(x, 4, 3, strides=2, padding="same"))
      >>> x = jnp.ones((2, 8, 8, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({conv3d: {bias: f32[4], kernel: f32[3,3,3,5,4]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 4, 4, 4, 4)
    """
    refuse("conv3d", NO_ACTIVITY, activity_regularizer=activity_regularizer)
    return conv_layer(
        "conv3d",
        3,
        inputs,
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        dilation_rate,
        activation,
        use_bias=use_bias,
        kernel={"initializer": kernel_initializer, "regularizer": kernel_regularizer, "constraint": kernel_constraint},
        bias={"initializer": bias_initializer, "regularizer": bias_regularizer, "constraint": bias_constraint},
        trainable=trainable,
        name=name,
        reuse=reuse,
    )[0]


def conv2d_transpose(
    inputs: Any,
    filters: int,
    kernel_size: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str = "channels_last",
    activation: Activation | None = None,
    use_bias: bool = True,
    kernel_initializer: Any = None,
    bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    kernel_regularizer: Regularizer | None = None,
    bias_regularizer: Regularizer | None = None,
    activity_regularizer: None = None,
    kernel_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: bool | None = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
) -> jax.Array:
    """A transposed convolution over two dimensions, which makes images larger. TF1: `tf.layers.conv2d_transpose`.

    Default scope `conv2d_transpose`; variables `kernel` of shape [*kernel_size, filters, channels] and `bias` of shape
    [filters], of the inputs' dtype. The output is `strides` times as large, with "valid" padding by as much larger as
    the window is larger than the strides.

    Args:
      inputs: shape [batch, height, width, channels], floating; [batch, channels, height, width] with "channels_first".
      filters: the number of channels of the output.
      kernel_size: the size of the window: an integer, or two of them.
      strides: by how much the window is moved: an integer, or two of them.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      activation: a function of the output; None for none.
      use_bias: whether there is a `bias`.
      kernel_initializer, bias_initializer: default those of the scope (glorot uniform), and zeros.
      kernel_regularizer, bias_regularizer: callables from value to scalar loss.
      activity_regularizer: not supported; None only.
      kernel_constraint, bias_constraint: callables from value to value; see `Specs.constrain`.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      name, reuse: as in `dense`.

    Returns:
      Shape [batch, new height, new width, filters], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers import conv2d_transpose
      >>> net = js.transform(lambda x: conv2d_transpose(x, 4, 3, strides=2, padding="same"))
      >>> x = jnp.ones((2, 8, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({conv2d_transpose: {bias: f32[4], kernel: f32[3,3,4,5]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 16, 16, 4)
    """
    refuse("conv2d_transpose", NO_ACTIVITY, activity_regularizer=activity_regularizer)
    return conv_layer(
        "conv2d_transpose",
        2,
        inputs,
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        1,
        activation,
        use_bias=use_bias,
        kernel={"initializer": kernel_initializer, "regularizer": kernel_regularizer, "constraint": kernel_constraint},
        bias={"initializer": bias_initializer, "regularizer": bias_regularizer, "constraint": bias_constraint},
        trainable=trainable,
        name=name,
        reuse=reuse,
        transposed=True,
    )[0]


def conv3d_transpose(
    inputs: Any,
    filters: int,
    kernel_size: Any,
    strides: Any = (1, 1, 1),
    padding: str = "valid",
    data_format: str = "channels_last",
    activation: Activation | None = None,
    use_bias: bool = True,
    kernel_initializer: Any = None,
    bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    kernel_regularizer: Regularizer | None = None,
    bias_regularizer: Regularizer | None = None,
    activity_regularizer: None = None,
    kernel_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: bool | None = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
) -> jax.Array:
    """A transposed convolution over three dimensions, which makes images larger. TF1: `tf.layers.conv3d_transpose`.

    Default scope `conv3d_transpose`; variables `kernel` of shape [*kernel_size, filters, channels] and `bias` of shape
    [filters], of the inputs' dtype. The output is `strides` times as large, with "valid" padding by as much larger as
    the window is larger than the strides.

    Args:
      inputs: shape [batch, depth, height, width, channels], floating; [batch, channels, depth, height, width] with
        "channels_first".
      filters: the number of channels of the output.
      kernel_size: the size of the window: an integer, or three of them.
      strides: by how much the window is moved: an integer, or three of them.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      activation: a function of the output; None for none.
      use_bias: whether there is a `bias`.
      kernel_initializer, bias_initializer: default those of the scope (glorot uniform), and zeros.
      kernel_regularizer, bias_regularizer: callables from value to scalar loss.
      activity_regularizer: not supported; None only.
      kernel_constraint, bias_constraint: callables from value to value; see `Specs.constrain`.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      name, reuse: as in `dense`.

    Returns:
      Shape [batch, new depth, new height, new width, filters], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing, and `activity_regularizer`.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers import conv3d_transpose
      >>> net = js.transform(lambda x: conv3d_transpose(x, 4, 3, strides=2, padding="same"))
      >>> x = jnp.ones((2, 8, 8, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({conv3d_transpose: {bias: f32[4], kernel: f32[3,3,3,4,5]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 16, 16, 16, 4)
    """
    refuse("conv3d_transpose", NO_ACTIVITY, activity_regularizer=activity_regularizer)
    return conv_layer(
        "conv3d_transpose",
        3,
        inputs,
        filters,
        kernel_size,
        strides,
        padding,
        data_format,
        1,
        activation,
        use_bias=use_bias,
        kernel={"initializer": kernel_initializer, "regularizer": kernel_regularizer, "constraint": kernel_constraint},
        bias={"initializer": bias_initializer, "regularizer": bias_regularizer, "constraint": bias_constraint},
        trainable=trainable,
        name=name,
        reuse=reuse,
        transposed=True,
    )[0]
