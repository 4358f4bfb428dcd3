"""The poolings of `tf.contrib.layers`."""

from __future__ import annotations

from typing import Any

import jax

import jscope as js

from ..families import member
from ..windows import pooled, taken, windows
from .collections import collect_outputs
from .convolution import FORMATS, layers_format


def _pooling(asked: str, n: int, op_scope: str, average: bool):
    last, first = FORMATS[n]

    @js.add_arg_scope
    def pooling(
        inputs: Any,
        kernel_size: Any,
        stride: Any = 2,
        padding: str = "VALID",
        data_format: str = last,
        outputs_collections: Any = None,
        scope: str | None = None,
    ) -> jax.Array:
        """The $what of each window over $dimensions. TF1: `tf.contrib.layers.$name`, `slim.$name`.

        Opens the op scope `$op_scope`; no variables. What is padded counts for nothing.

        Args:
          inputs: $numbers, shape $channels_last or, with the channels first, $channels_first.
          kernel_size: the size of the window: an integer, or $integers.
          stride: by how much the window is moved: an integer, or $integers.
          padding: "VALID" or "SAME", in any case.
          data_format: "$last" or "$first".
          outputs_collections: a collection or a list of them, to which the output is added.
          scope: the op scope's name.

        Returns:
          Shape [batch, $new, channels], or with the channels first; the inputs' dtype.

        Raises:
          BadArgumentError: for arguments that mean nothing.

        Example:
          >>> from jscope.layers.contrib import $name
          >>> js.transform(lambda x: $name(x, 2)).apply({}, jnp.ones((2, $eights, 5))).shape
          (2, $fours, 5)
        """
        layout = layers_format(data_format, n, asked)
        with js.name_scope(scope, op_scope, [inputs]) as op_name:
            how = windows(asked, n, kernel_size=kernel_size, stride=stride, padding=padding, data_format=layout)
            return collect_outputs(outputs_collections, pooled(inputs, how, average), op_name)

    what = "average" if average else "maximum"
    return member(pooling, asked, n, what=what, numbers=taken(average), op_scope=op_scope, last=last, first=first)


max_pool2d = _pooling("max_pool2d", 2, "MaxPool2D", average=False)
max_pool3d = _pooling("max_pool3d", 3, "MaxPool3D", average=False)
avg_pool2d = _pooling("avg_pool2d", 2, "AvgPool2D", average=True)
avg_pool3d = _pooling("avg_pool3d", 3, "AvgPool3D", average=True)
