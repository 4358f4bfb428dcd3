"""The poolings of `tf.layers`: maximum and average over one, two and three dimensions."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .faults import check_rank
from .scopes import layer_scope
from .windows import check_fits, is_channels_first, padding_name, sizes


def pooled(
    asked: str, x: jax.Array, n: int, pool_size: Any, strides: Any, padding: str, data_format: str, average: bool
) -> jax.Array:
    """The maximum or the average of each window; what is padded counts in neither."""
    check_rank(x, (n + 2,), asked)
    channels_first = is_channels_first(data_format, asked)
    pads = padding_name(padding, asked)
    window, steps = sizes(pool_size, n, "pool_size", asked), sizes(strides, n, "strides", asked)
    check_fits(x, window, (1,) * n, pads, channels_first, asked)
    pads = pads.upper()
    spread = (lambda t: (1, 1, *t)) if channels_first else (lambda t: (1, *t, 1))
    if not average:
        least = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else np.iinfo(x.dtype).min
        least = np.asarray(least, x.dtype)[()]
        return jax.lax.reduce_window(x, least, jax.lax.max, spread(window), spread(steps), pads)
    # Sums of half precision are taken in float32.
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    zero = np.zeros((), wide.dtype)[()]
    total = jax.lax.reduce_window(wide, zero, jax.lax.add, spread(window), spread(steps), pads)
    if pads == "VALID":
        return (total / math.prod(window)).astype(x.dtype)
    inside = jnp.ones(spread(x.shape[2:] if channels_first else x.shape[1:-1]), wide.dtype)
    count = jax.lax.reduce_window(inside, zero, jax.lax.add, spread(window), spread(steps), pads)
    return (total / count).astype(x.dtype)


def max_pooling1d(
    inputs: Any,
    pool_size: Any,
    strides: Any,
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """The maximum of each window over one dimension. TF1: `tf.layers.max_pooling1d`.

    Default scope `max_pooling1d`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, length, channels]; [batch, channels, length] with "channels_first".
      pool_size: the size of the window: an integer, or a list of one.
      strides: by how much the window is moved: an integer, or a list of one.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      name: the scope's name, made unique as TF1 does.

    Returns:
      Shape [batch, new length, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers import max_pooling1d
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> js.transform(lambda x: max_pooling1d(x, 2, 1)).apply({}, x).ravel().tolist()
      [1.0, 2.0, 3.0]
    """
    with layer_scope(None, name or "max_pooling1d"):
        return pooled("max_pooling1d", jnp.asarray(inputs), 1, pool_size, strides, padding, data_format, average=False)


def average_pooling1d(
    inputs: Any,
    pool_size: Any,
    strides: Any,
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """The average of each window over one dimension. TF1: `tf.layers.average_pooling1d`.

    Default scope `average_pooling1d`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, length, channels]; [batch, channels, length] with "channels_first".
      pool_size: the size of the window: an integer, or a list of one.
      strides: by how much the window is moved: an integer, or a list of one.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      name: the scope's name, made unique as TF1 does.

    Returns:
      Shape [batch, new length, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers import average_pooling1d
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> js.transform(lambda x: average_pooling1d(x, 2, 1)).apply({}, x).ravel().tolist()
      [0.5, 1.5, 2.5]
    """
    with layer_scope(None, name or "average_pooling1d"):
        return pooled(
            "average_pooling1d", jnp.asarray(inputs), 1, pool_size, strides, padding, data_format, average=True
        )


def max_pooling2d(
    inputs: Any,
    pool_size: Any,
    strides: Any,
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """The maximum of each window over two dimensions. TF1: `tf.layers.max_pooling2d`.

    Default scope `max_pooling2d`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, height, width, channels]; [batch, channels, height, width] with "channels_first".
      pool_size: the size of the window: an integer, or two of them.
      strides: by how much the window is moved: an integer, or two of them.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      name: the scope's name, made unique as TF1 does.

    Returns:
      Shape [batch, new height, new width, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers import max_pooling2d
      >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
      >>> js.transform(lambda x: max_pooling2d(x, 2, 1)).apply({}, x).ravel().tolist()
      [3.0]
    """
    with layer_scope(None, name or "max_pooling2d"):
        return pooled("max_pooling2d", jnp.asarray(inputs), 2, pool_size, strides, padding, data_format, average=False)


def average_pooling2d(
    inputs: Any,
    pool_size: Any,
    strides: Any,
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """The average of each window over two dimensions. TF1: `tf.layers.average_pooling2d`.

    Default scope `average_pooling2d`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, height, width, channels]; [batch, channels, height, width] with "channels_first".
      pool_size: the size of the window: an integer, or two of them.
      strides: by how much the window is moved: an integer, or two of them.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      name: the scope's name, made unique as TF1 does.

    Returns:
      Shape [batch, new height, new width, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers import average_pooling2d
      >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
      >>> js.transform(lambda x: average_pooling2d(x, 2, 1)).apply({}, x).ravel().tolist()
      [1.5]
    """
    with layer_scope(None, name or "average_pooling2d"):
        return pooled(
            "average_pooling2d", jnp.asarray(inputs), 2, pool_size, strides, padding, data_format, average=True
        )


def max_pooling3d(
    inputs: Any,
    pool_size: Any,
    strides: Any,
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """The maximum of each window over three dimensions. TF1: `tf.layers.max_pooling3d`.

    Default scope `max_pooling3d`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, depth, height, width, channels]; [batch, channels, depth, height, width] with
        "channels_first".
      pool_size: the size of the window: an integer, or three of them.
      strides: by how much the window is moved: an integer, or three of them.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      name: the scope's name, made unique as TF1 does.

    Returns:
      Shape [batch, new depth, new height, new width, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers import max_pooling3d
      >>> x = jnp.arange(4.0).reshape(1, 1, 2, 2, 1)
      >>> js.transform(lambda x: max_pooling3d(x, [1, 2, 2], 1)).apply({}, x).ravel().tolist()
      [3.0]
    """
    with layer_scope(None, name or "max_pooling3d"):
        return pooled("max_pooling3d", jnp.asarray(inputs), 3, pool_size, strides, padding, data_format, average=False)


def average_pooling3d(
    inputs: Any,
    pool_size: Any,
    strides: Any,
    padding: str = "valid",
    data_format: str = "channels_last",
    name: str | None = None,
) -> jax.Array:
    """The average of each window over three dimensions. TF1: `tf.layers.average_pooling3d`.

    Default scope `average_pooling3d`; no variables. What is padded counts for nothing.

    Args:
      inputs: shape [batch, depth, height, width, channels]; [batch, channels, depth, height, width] with
        "channels_first".
      pool_size: the size of the window: an integer, or three of them.
      strides: by how much the window is moved: an integer, or three of them.
      padding: "valid" or "same", in any case.
      data_format: "channels_last" or "channels_first".
      name: the scope's name, made unique as TF1 does.

    Returns:
      Shape [batch, new depth, new height, new width, channels], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.

    Example:
      >>> from jscope.layers import average_pooling3d
      >>> x = jnp.arange(4.0).reshape(1, 1, 2, 2, 1)
      >>> js.transform(lambda x: average_pooling3d(x, [1, 2, 2], 1)).apply({}, x).ravel().tolist()
      [1.5]
    """
    with layer_scope(None, name or "average_pooling3d"):
        return pooled(
            "average_pooling3d", jnp.asarray(inputs), 3, pool_size, strides, padding, data_format, average=True
        )
