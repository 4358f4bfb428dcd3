"""TensorFlow 1's layers, for ports: `tf.layers` under its names, and `tf.contrib.layers` in `jscope.layers.contrib`.

A room: it may use jscope's public names, never jscope's private modules nor another room. `import jscope` does not
import it. Arguments, default scopes, names and order of variables, collections and defaults are TensorFlow's.
"""

from __future__ import annotations

from jscope import add_arg_scope, arg_scope, arg_scoped_arguments

from . import contrib as contrib
from .contrib import (
    fully_connected,
    l1_l2_regularizer,
    l1_regularizer,
    l2_regularizer,
    layer_norm,
    sum_regularizer,
    xavier_initializer,
)
from .core import dense, dropout, flatten

__all__ = [
    "add_arg_scope",
    "arg_scope",
    "arg_scoped_arguments",
    "dense",
    "dropout",
    "flatten",
    "fully_connected",
    "l1_l2_regularizer",
    "l1_regularizer",
    "l2_regularizer",
    "layer_norm",
    "sum_regularizer",
    "xavier_initializer",
]

# Tracebacks, pickles and documentation name what users import, not the file that it happens to be written in.
for _name in __all__:
    if globals()[_name].__module__.rpartition(".")[0] == __name__:
        globals()[_name].__module__ = __name__
