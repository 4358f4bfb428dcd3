"""`tf.contrib.layers`, which is `slim`'s: the layers whose variables are `weights` and `biases`.

All of them take default arguments from `arg_scope`.
"""

from __future__ import annotations

from jscope import add_arg_scope, arg_scope, arg_scoped_arguments

from .batch_norm import batch_norm
from .convolution import conv1d, conv2d, conv2d_transpose, conv3d, conv3d_transpose, convolution
from .core import dropout, flatten, fully_connected
from .embedding import embed_sequence
from .initializers import variance_scaling_initializer, xavier_initializer
from .normalization import layer_norm
from .pooling import avg_pool2d, avg_pool3d, max_pool2d, max_pool3d
from .regularizers import l1_l2_regularizer, l1_regularizer, l2_regularizer, sum_regularizer
from .separable import separable_conv2d
from .stacking import repeat, stack

__all__ = [
    "add_arg_scope",
    "arg_scope",
    "arg_scoped_arguments",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "convolution",
    "dropout",
    "embed_sequence",
    "flatten",
    "fully_connected",
    "l1_l2_regularizer",
    "l1_regularizer",
    "l2_regularizer",
    "layer_norm",
    "max_pool2d",
    "max_pool3d",
    "repeat",
    "separable_conv2d",
    "stack",
    "sum_regularizer",
    "variance_scaling_initializer",
    "xavier_initializer",
]

for _name in __all__:
    if globals()[_name].__module__.rpartition(".")[0] == __name__:
        globals()[_name].__module__ = __name__
