"""The poolings of `tf.contrib.layers`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from ..pooling import pooled
from .collections import collect_outputs
from .convolution import layers_format


def _pool(
    asked: str,
    default_scope: str,
    inputs: Any,
    n: int,
    kernel_size: Any,
    stride: Any,
    padding: str,
    data_format: str,
    outputs_collections: Any,
    scope: str | None,
    average: bool,
) -> jax.Array:
    layout = layers_format(data_format, n, asked)
    with js.name_scope(scope, default_scope, [inputs]) as name:
        outputs = pooled(asked, jnp.asarray(inputs), n, kernel_size, stride, padding, layout, average)
        return collect_outputs(outputs_collections, outputs, name)


@js.add_arg_scope
def max_pool2d(
    inputs: Any,
    kernel_size: Any,
    stride: Any = 2,
    padding: str = "VALID",
    data_format: str = "NHWC",
    outputs_collections: Any = None,
    scope: str | None = None,
) -> jax.Array:
    """The maximum of each window over two dimensions. TF1: `tf.contrib.layers.max_pool2d`, `slim.max_pool2d`.

    Opens the op scope `MaxPool2D`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, height, width, channels] or, with the channels first, [batch, channels, height, width].
      kernel_size: the size of the window: an integer, or two of them.
      stride: by how much the window is moved: an integer, or two of them.
      padding: "VALID" or "SAME", in any case.
      data_format: "NHWC" or "NCHW".
      outputs_collections: a collection or a list of them, to which the output is added.
      scope: the op scope's name.

    Returns:
      Shape [batch, new height, new width, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers.contrib import max_pool2d
      >>> js.transform(lambda x: max_pool2d(x, 2)).apply({}, jnp.ones((2, 8, 8, 5))).shape
      (2, 4, 4, 5)
    """
    return _pool(
        "max_pool2d",
        "MaxPool2D",
        inputs,
        2,
        kernel_size,
        stride,
        padding,
        data_format,
        outputs_collections,
        scope,
        False,
    )


@js.add_arg_scope
def avg_pool2d(
    inputs: Any,
    kernel_size: Any,
    stride: Any = 2,
    padding: str = "VALID",
    data_format: str = "NHWC",
    outputs_collections: Any = None,
    scope: str | None = None,
) -> jax.Array:
    """The average of each window over two dimensions. TF1: `tf.contrib.layers.avg_pool2d`, `slim.avg_pool2d`.

    Opens the op scope `AvgPool2D`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, height, width, channels] or, with the channels first, [batch, channels, height, width].
      kernel_size: the size of the window: an integer, or two of them.
      stride: by how much the window is moved: an integer, or two of them.
      padding: "VALID" or "SAME", in any case.
      data_format: "NHWC" or "NCHW".
      outputs_collections: a collection or a list of them, to which the output is added.
      scope: the op scope's name.

    Returns:
      Shape [batch, new height, new width, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers.contrib import avg_pool2d
      >>> js.transform(lambda x: avg_pool2d(x, 2)).apply({}, jnp.ones((2, 8, 8, 5))).shape
      (2, 4, 4, 5)
    """
    return _pool(
        "avg_pool2d",
        "AvgPool2D",
        inputs,
        2,
        kernel_size,
        stride,
        padding,
        data_format,
        outputs_collections,
        scope,
        True,
    )


@js.add_arg_scope
def max_pool3d(
    inputs: Any,
    kernel_size: Any,
    stride: Any = 2,
    padding: str = "VALID",
    data_format: str = "NDHWC",
    outputs_collections: Any = None,
    scope: str | None = None,
) -> jax.Array:
    """The maximum of each window over three dimensions. TF1: `tf.contrib.layers.max_pool3d`, `slim.max_pool3d`.

    Opens the op scope `MaxPool3D`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, depth, height, width, channels] or, with the channels first, [batch, channels, depth,
        height, width].
      kernel_size: the size of the window: an integer, or three of them.
      stride: by how much the window is moved: an integer, or three of them.
      padding: "VALID" or "SAME", in any case.
      data_format: "NDHWC" or "NCDHW".
      outputs_collections: a collection or a list of them, to which the output is added.
      scope: the op scope's name.

    Returns:
      Shape [batch, new depth, new height, new width, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers.contrib import max_pool3d
      >>> js.transform(lambda x: max_pool3d(x, 2)).apply({}, jnp.ones((2, 8, 8, 8, 5))).shape
      (2, 4, 4, 4, 5)
    """
    return _pool(
        "max_pool3d",
        "MaxPool3D",
        inputs,
        3,
        kernel_size,
        stride,
        padding,
        data_format,
        outputs_collections,
        scope,
        False,
    )


@js.add_arg_scope
def avg_pool3d(
    inputs: Any,
    kernel_size: Any,
    stride: Any = 2,
    padding: str = "VALID",
    data_format: str = "NDHWC",
    outputs_collections: Any = None,
    scope: str | None = None,
) -> jax.Array:
    """The average of each window over three dimensions. TF1: `tf.contrib.layers.avg_pool3d`, `slim.avg_pool3d`.

    Opens the op scope `AvgPool3D`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, depth, height, width, channels] or, with the channels first, [batch, channels, depth,
        height, width].
      kernel_size: the size of the window: an integer, or three of them.
      stride: by how much the window is moved: an integer, or three of them.
      padding: "VALID" or "SAME", in any case.
      data_format: "NDHWC" or "NCDHW".
      outputs_collections: a collection or a list of them, to which the output is added.
      scope: the op scope's name.

    Returns:
      Shape [batch, new depth, new height, new width, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers.contrib import avg_pool3d
      >>> js.transform(lambda x: avg_pool3d(x, 2)).apply({}, jnp.ones((2, 8, 8, 8, 5))).shape
      (2, 4, 4, 4, 5)
    """
    return _pool(
        "avg_pool3d",
        "AvgPool3D",
        inputs,
        3,
        kernel_size,
        stride,
        padding,
        data_format,
        outputs_collections,
        scope,
        True,
    )
