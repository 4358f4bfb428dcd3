"""The layer classes of `tf.layers` for convolutions; made as those in `classes`."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import convolution, separable
from .by_name import Activation, Regularizer
from .classes import ZEROS, OfFunction


@dataclasses.dataclass(eq=False, repr=False)
class _Convolution(OfFunction):
    """The arguments of the convolutions; the classes say what default the sizes have."""

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: str = "channels_last"
    dilation_rate: Any = 1
    activation: Activation | str | None = None
    use_bias: bool = True
    kernel_initializer: Any = None
    bias_initializer: Any = ZEROS
    kernel_regularizer: Regularizer | str | None = None
    bias_regularizer: Regularizer | str | None = None
    activity_regularizer: None = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
    trainable: bool | None = None
    name: str | None = None


@dataclasses.dataclass(eq=False, repr=False)
class Conv1D(_Convolution):
    """A convolution over one dimension, as `conv1d`. TF1: `tf.layers.Conv1D`.

    Default scope `conv1d`; variables `kernel` and `bias`, made at the first call and shared at every later one.

    Args:
      filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, kernel_initializer,
        bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint,
        bias_constraint: as in `conv1d`.
      trainable, name, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import Conv1D
      >>> js.transform(Conv1D(4, 3)).init(jax.random.key(0), jnp.ones((2, 8, 5)))
      Params({conv1d: {bias: f32[4], kernel: f32[3,5,4]}})
    """

    function = staticmethod(convolution.conv1d)


@dataclasses.dataclass(eq=False, repr=False)
class Conv2D(_Convolution):
    """A convolution over two dimensions, as `conv2d`. TF1: `tf.layers.Conv2D`. Haiku: `hk.Conv2D`; Flax: `nn.Conv`.

    Default scope `conv2d`; variables `kernel` and `bias`, made at the first call and shared at every later one.

    Args:
      filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, kernel_initializer,
        bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint,
        bias_constraint: as in `conv2d`.
      trainable, name, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import Conv2D
      >>> conv = Conv2D(4, 3, padding="same")
      >>> net = js.transform(lambda a, b: conv(a) + conv(b))
      >>> net.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), jnp.ones((1, 8, 8, 3)))
      Params({conv2d: {bias: f32[4], kernel: f32[3,3,3,4]}})
    """

    function = staticmethod(convolution.conv2d)

    strides: Any = (1, 1)
    dilation_rate: Any = (1, 1)


@dataclasses.dataclass(eq=False, repr=False)
class Conv3D(_Convolution):
    """A convolution over three dimensions, as `conv3d`. TF1: `tf.layers.Conv3D`.

    Default scope `conv3d`; variables `kernel` and `bias`, made at the first call and shared at every later one.

    Args:
      filters, kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, kernel_initializer,
        bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint,
        bias_constraint: as in `conv3d`.
      trainable, name, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import Conv3D
      >>> js.transform(Conv3D(4, 2)).init(jax.random.key(0), jnp.ones((1, 4, 4, 4, 3)))
      Params({conv3d: {bias: f32[4], kernel: f32[2,2,2,3,4]}})
    """

    function = staticmethod(convolution.conv3d)

    strides: Any = (1, 1, 1)
    dilation_rate: Any = (1, 1, 1)


@dataclasses.dataclass(eq=False, repr=False)
class Conv2DTranspose(OfFunction):
    """The transpose of a convolution over two dimensions, as `conv2d_transpose`. TF1: `tf.layers.Conv2DTranspose`.

    Default scope `conv2d_transpose`; variables `kernel` and `bias`, made at the first call and shared at every later
    one.

    Args:
      filters, kernel_size, strides, padding, data_format, activation, use_bias, kernel_initializer, bias_initializer,
        kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint: as in
        `conv2d_transpose`.
      trainable, name, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import Conv2DTranspose
      >>> js.transform(Conv2DTranspose(4, 3, 2)).init(jax.random.key(0), jnp.ones((1, 4, 4, 3)))
      Params({conv2d_transpose: {bias: f32[4], kernel: f32[3,3,4,3]}})
    """

    function = staticmethod(convolution.conv2d_transpose)

    filters: int
    kernel_size: Any
    strides: Any = (1, 1)
    padding: str = "valid"
    data_format: str = "channels_last"
    activation: Activation | str | None = None
    use_bias: bool = True
    kernel_initializer: Any = None
    bias_initializer: Any = ZEROS
    kernel_regularizer: Regularizer | str | None = None
    bias_regularizer: Regularizer | str | None = None
    activity_regularizer: None = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
    trainable: bool | None = None
    name: str | None = None


@dataclasses.dataclass(eq=False, repr=False)
class Conv3DTranspose(Conv2DTranspose):
    """The transpose of a convolution over three dimensions, as `conv3d_transpose`. TF1: `tf.layers.Conv3DTranspose`.

    Default scope `conv3d_transpose`; variables `kernel` and `bias`, made at the first call and shared at every later
    one.

    Args:
      filters, kernel_size, strides, padding, data_format, activation, use_bias, kernel_initializer, bias_initializer,
        kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint: as in
        `conv3d_transpose`.
      trainable, name, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import Conv3DTranspose
      >>> js.transform(Conv3DTranspose(4, 2)).init(jax.random.key(0), jnp.ones((1, 2, 2, 2, 3)))
      Params({conv3d_transpose: {bias: f32[4], kernel: f32[2,2,2,4,3]}})
    """

    function = staticmethod(convolution.conv3d_transpose)

    strides: Any = (1, 1, 1)


@dataclasses.dataclass(eq=False, repr=False)
class SeparableConv1D(OfFunction):
    """A convolution of each channel, then one of size 1, as `separable_conv1d`. TF1: `tf.layers.SeparableConv1D`.

    Default scope `separable_conv1d`; variables `depthwise_kernel`, `pointwise_kernel` and `bias`, made at the first
    call and shared at every later one.

    Args:
      filters, kernel_size, strides, padding, data_format, dilation_rate, depth_multiplier, activation, use_bias,
        depthwise_initializer, pointwise_initializer, bias_initializer, depthwise_regularizer, pointwise_regularizer,
        bias_regularizer, activity_regularizer, depthwise_constraint, pointwise_constraint, bias_constraint: as in
        `separable_conv1d`.
      trainable, name, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import SeparableConv1D
      >>> print(*js.transform(SeparableConv1D(4, 3)).specs(jnp.ones((1, 8, 3))))
      separable_conv1d/depthwise_kernel separable_conv1d/pointwise_kernel separable_conv1d/bias
    """

    function = staticmethod(separable.separable_conv1d)
    made = ("depthwise_kernel", "pointwise_kernel", "bias")

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    data_format: str = "channels_last"
    dilation_rate: Any = 1
    depth_multiplier: int = 1
    activation: Activation | str | None = None
    use_bias: bool = True
    depthwise_initializer: Any = None
    pointwise_initializer: Any = None
    bias_initializer: Any = ZEROS
    depthwise_regularizer: Regularizer | str | None = None
    pointwise_regularizer: Regularizer | str | None = None
    bias_regularizer: Regularizer | str | None = None
    activity_regularizer: None = None
    depthwise_constraint: Any = None
    pointwise_constraint: Any = None
    bias_constraint: Any = None
    trainable: bool | None = None
    name: str | None = None


@dataclasses.dataclass(eq=False, repr=False)
class SeparableConv2D(SeparableConv1D):
    """A convolution of each channel, then one of size 1, as `separable_conv2d`. TF1: `tf.layers.SeparableConv2D`.

    Default scope `separable_conv2d`; variables `depthwise_kernel`, `pointwise_kernel` and `bias`, made at the first
    call and shared at every later one.

    Args:
      filters, kernel_size, strides, padding, data_format, dilation_rate, depth_multiplier, activation, use_bias,
        depthwise_initializer, pointwise_initializer, bias_initializer, depthwise_regularizer, pointwise_regularizer,
        bias_regularizer, activity_regularizer, depthwise_constraint, pointwise_constraint, bias_constraint: as in
        `separable_conv2d`.
      trainable, name, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import SeparableConv2D
      >>> print(*js.transform(SeparableConv2D(4, 3)).specs(jnp.ones((1, 8, 8, 3))))
      separable_conv2d/depthwise_kernel separable_conv2d/pointwise_kernel separable_conv2d/bias
    """

    function = staticmethod(separable.separable_conv2d)

    strides: Any = (1, 1)
    dilation_rate: Any = (1, 1)
