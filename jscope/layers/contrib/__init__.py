"""`tf.contrib.layers`, which is `slim`'s: the layers whose variables are `weights` and `biases`.

All of them take default arguments from `arg_scope`.
"""

from __future__ import annotations

from jscope import add_arg_scope, arg_scope, arg_scoped_arguments

from .core import dropout, flatten, fully_connected
from .initializers import variance_scaling_initializer, xavier_initializer
from .normalization import layer_norm
from .regularizers import l1_l2_regularizer, l1_regularizer, l2_regularizer, sum_regularizer

__all__ = [
    "add_arg_scope",
    "arg_scope",
    "arg_scoped_arguments",
    "dropout",
    "flatten",
    "fully_connected",
    "l1_l2_regularizer",
    "l1_regularizer",
    "l2_regularizer",
    "layer_norm",
    "sum_regularizer",
    "variance_scaling_initializer",
    "xavier_initializer",
]

for _name in __all__:
    if globals()[_name].__module__.rpartition(".")[0] == __name__:
        globals()[_name].__module__ = __name__
