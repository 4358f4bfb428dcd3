"""`tf.contrib.layers`, which is `slim`'s: the layers whose variables are `weights` and `biases`.

All of them take default arguments from `arg_scope`.
"""

from __future__ import annotations

from jscope import add_arg_scope, arg_scope, arg_scoped_arguments

from . import utils as utils
from .batch_norm import batch_norm
from .convolution import conv1d, conv2d, conv2d_transpose, conv3d, conv3d_transpose, convolution
from .core import dropout, flatten, fully_connected
from .embedding import embed_sequence
from .initializers import variance_scaling_initializer, xavier_initializer
from .normalization import layer_norm
from .pooling import avg_pool2d, avg_pool3d, max_pool2d, max_pool3d
from .regularizers import (
    apply_regularization,
    l1_l2_regularizer,
    l1_regularizer,
    l2_regularizer,
    sum_regularizer,
)
from .separable import separable_conv2d
from .small import bias_add, elu, linear, one_hot_encoding, relu, relu6, softmax, unit_norm
from .stacking import repeat, stack
from .utils import collect_named_outputs, convert_collection_to_dict

# Their long names, which are the same functions.
convolution1d = conv1d
convolution2d = conv2d
convolution3d = conv3d
convolution2d_transpose = conv2d_transpose
convolution3d_transpose = conv3d_transpose
separable_convolution2d = separable_conv2d

__all__ = [
    "add_arg_scope",
    "apply_regularization",
    "arg_scope",
    "arg_scoped_arguments",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bias_add",
    "collect_named_outputs",
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "convert_collection_to_dict",
    "convolution",
    "convolution1d",
    "convolution2d",
    "convolution2d_transpose",
    "convolution3d",
    "convolution3d_transpose",
    "dropout",
    "elu",
    "embed_sequence",
    "flatten",
    "fully_connected",
    "l1_l2_regularizer",
    "l1_regularizer",
    "l2_regularizer",
    "layer_norm",
    "linear",
    "max_pool2d",
    "max_pool3d",
    "one_hot_encoding",
    "relu",
    "relu6",
    "repeat",
    "separable_conv2d",
    "separable_convolution2d",
    "softmax",
    "stack",
    "sum_regularizer",
    "unit_norm",
    "variance_scaling_initializer",
    "xavier_initializer",
]

for _name in __all__:
    if globals()[_name].__module__.rpartition(".")[0] == __name__:
        globals()[_name].__module__ = __name__
