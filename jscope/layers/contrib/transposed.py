"""The transposed convolutions of `tf.contrib.layers`."""

from __future__ import annotations

from typing import Any

import jax

import jscope as js

from ..core import Activation
from ..scopes import Regularizer
from .convolution import contrib_convolution
from .initializers import xavier_initializer


@js.add_arg_scope
def conv2d_transpose(
    inputs: Any,
    num_outputs: int,
    kernel_size: Any,
    stride: Any = 1,
    padding: str = "SAME",
    data_format: str | None = "NHWC",
    activation_fn: Activation | None = jax.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: dict[str, Any] | None = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    weights_regularizer: Regularizer | None = None,
    biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
    biases_regularizer: Regularizer | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    scope: Any = None,
) -> jax.Array:
    """A transposed convolution over two dimensions, which makes images larger.

    TF1: `tf.contrib.layers.conv2d_transpose`. Default scope `Conv2d_transpose`; variables `weights` of shape
    [*kernel_size, num_outputs, channels] and, without a normalizer, `biases` of shape [num_outputs], all of them model
    variables.

    Args:
      inputs: shape [batch, height, width, channels] or, with the channels first, [batch, channels, height, width];
        floating.
      data_format: "NHWC"; "NCHW" for channels first.
      num_outputs, kernel_size, stride, padding, activation_fn, normalizer_fn, normalizer_params, weights_initializer,
        weights_regularizer, biases_initializer, biases_regularizer, reuse, variables_collections, outputs_collections,
        trainable, scope: as in `convolution`.

    Returns:
      Shape [batch, new height, new width, num_outputs], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import conv2d_transpose
      >>> net = js.transform(lambda x: conv2d_transpose(x, 4, 3, stride=2, scope="c"))
      >>> x = jnp.ones((2, 8, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({c: {biases: f32[4], weights: f32[3,3,4,5]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 16, 16, 4)
    """
    return contrib_convolution(
        "conv2d_transpose",
        "Conv2d_transpose",
        2,
        inputs,
        num_outputs,
        kernel_size,
        stride,
        padding,
        data_format,
        1,
        activation_fn,
        normalizer_fn,
        normalizer_params,
        weights_initializer,
        weights_regularizer,
        biases_initializer,
        biases_regularizer,
        reuse,
        variables_collections,
        outputs_collections,
        trainable,
        scope,
        transposed=True,
    )


@js.add_arg_scope
def conv3d_transpose(
    inputs: Any,
    num_outputs: int,
    kernel_size: Any,
    stride: Any = 1,
    padding: str = "SAME",
    data_format: str | None = "NDHWC",
    activation_fn: Activation | None = jax.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: dict[str, Any] | None = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    weights_regularizer: Regularizer | None = None,
    biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
    biases_regularizer: Regularizer | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    scope: Any = None,
) -> jax.Array:
    """A transposed convolution over three dimensions, which makes images larger.

    TF1: `tf.contrib.layers.conv3d_transpose`. Default scope `Conv3d_transpose`; variables `weights` of shape
    [*kernel_size, num_outputs, channels] and, without a normalizer, `biases` of shape [num_outputs], all of them model
    variables.

    Args:
      inputs: shape [batch, depth, height, width, channels] or, with the channels first, [batch, channels, depth,
        height, width]; floating.
      data_format: "NDHWC"; "NCDHW" for channels first.
      num_outputs, kernel_size, stride, padding, activation_fn, normalizer_fn, normalizer_params, weights_initializer,
        weights_regularizer, biases_initializer, biases_regularizer, reuse, variables_collections, outputs_collections,
        trainable, scope: as in `convolution`.

    Returns:
      Shape [batch, new depth, new height, new width, num_outputs], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import conv3d_transpose
      >>> net = js.transform(lambda x: conv3d_transpose(x, 4, 3, stride=2, scope="c"))
      >>> x = jnp.ones((2, 8, 8, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({c: {biases: f32[4], weights: f32[3,3,3,4,5]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 16, 16, 16, 4)
    """
    return contrib_convolution(
        "conv3d_transpose",
        "Conv3d_transpose",
        3,
        inputs,
        num_outputs,
        kernel_size,
        stride,
        padding,
        data_format,
        1,
        activation_fn,
        normalizer_fn,
        normalizer_params,
        weights_initializer,
        weights_regularizer,
        biases_initializer,
        biases_regularizer,
        reuse,
        variables_collections,
        outputs_collections,
        trainable,
        scope,
        transposed=True,
    )
