"""The poolings of `tf.layers`: maximum and average over one, two and three dimensions."""

from __future__ import annotations

from typing import Any

import jax

from .families import member
from .scopes import layer_scope
from .windows import pooled, taken, windows


def _pooling(asked: str, n: int, average: bool):
    def pooling(
        inputs: Any,
        pool_size: Any,
        strides: Any,
        padding: str = "valid",
        data_format: str = "channels_last",
        name: str | None = None,
    ) -> jax.Array:
        """The $what of each window over $dimensions. TF1: `tf.layers.$name`.

        Default scope `$name`; no variables. What is padded counts for nothing.

        Args:
          inputs: $numbers, shape $channels_last; $channels_first with "channels_first".
          pool_size: the size of the window: an integer, or $integers.
          strides: by how much the window is moved: an integer, or $integers.
          padding: "valid" or "same", in any case.
          data_format: "channels_last" or "channels_first".
          name: the scope's name, made unique as TF1 does.

        Returns:
          Shape [batch, $new, channels], or with the channels first; the inputs' dtype.

        Raises:
          BadArgumentError: for arguments that mean nothing.

        Example:
          >>> from jscope.layers import $name
          >>> x = jnp.arange(4.0).reshape($ones,4,1)
          >>> js.transform(lambda x: $name(x, 2, 1, "same")).apply({}, x).ravel().tolist()
          $result
        """
        with layer_scope(None, name or asked):
            how = windows(asked, n, pool_size=pool_size, strides=strides, padding=padding, data_format=data_format)
            return pooled(inputs, how, average)

    what, result = ("average", "[0.5, 1.5, 2.5, 3.0]") if average else ("maximum", "[1.0, 2.0, 3.0, 3.0]")
    return member(pooling, asked, n, what=what, numbers=taken(average), result=result)


max_pooling1d = _pooling("max_pooling1d", 1, average=False)
max_pooling2d = _pooling("max_pooling2d", 2, average=False)
max_pooling3d = _pooling("max_pooling3d", 3, average=False)
average_pooling1d = _pooling("average_pooling1d", 1, average=True)
average_pooling2d = _pooling("average_pooling2d", 2, average=True)
average_pooling3d = _pooling("average_pooling3d", 3, average=True)
