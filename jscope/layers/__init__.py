"""TensorFlow 1's layers, for ports: `tf.layers` under its names, and `tf.contrib.layers` in `jscope.layers.contrib`.

A room: it may use jscope's public names, never jscope's private modules nor another room. `import jscope` does not
import it. Arguments, default scopes, names and order of variables, collections and defaults are TensorFlow's.
"""

from __future__ import annotations

from jscope import add_arg_scope, arg_scope, arg_scoped_arguments

from . import contrib as contrib
from .attention import multi_head_attention
from .cells import BasicLSTMCell, BasicRNNCell, GRUCell, LSTMCell, LSTMStateTuple, MultiRNNCell, RNNCell
from .classes import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from .contrib import (
    apply_regularization,
    batch_norm,
    embed_sequence,
    fully_connected,
    l1_l2_regularizer,
    l1_regularizer,
    l2_regularizer,
    layer_norm,
    sum_regularizer,
    xavier_initializer,
)
from .contrib_cells import LayerNormBasicLSTMCell, LSTMBlockCell, NASCell
from .convolution import conv1d, conv2d, conv2d_transpose, conv3d, conv3d_transpose
from .convolution_classes import (
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
    SeparableConv1D,
    SeparableConv2D,
)
from .core import dense, dropout, flatten
from .embedding import embedding_lookup
from .layer import Layer
from .normalization import batch_normalization
from .pooling import (
    average_pooling1d,
    average_pooling2d,
    average_pooling3d,
    max_pooling1d,
    max_pooling2d,
    max_pooling3d,
)
from .recurrent import bidirectional_dynamic_rnn, dynamic_rnn
from .separable import separable_conv1d, separable_conv2d
from .static import static_bidirectional_rnn, static_rnn
from .wrappers import DropoutWrapper, ResidualWrapper

__all__ = [
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "BasicLSTMCell",
    "BasicRNNCell",
    "BatchNormalization",
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dense",
    "Dropout",
    "DropoutWrapper",
    "Flatten",
    "GRUCell",
    "LSTMBlockCell",
    "LSTMCell",
    "LSTMStateTuple",
    "Layer",
    "LayerNormBasicLSTMCell",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "MultiRNNCell",
    "NASCell",
    "RNNCell",
    "ResidualWrapper",
    "SeparableConv1D",
    "SeparableConv2D",
    "add_arg_scope",
    "apply_regularization",
    "arg_scope",
    "arg_scoped_arguments",
    "average_pooling1d",
    "average_pooling2d",
    "average_pooling3d",
    "batch_norm",
    "batch_normalization",
    "bidirectional_dynamic_rnn",
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "dense",
    "dropout",
    "dynamic_rnn",
    "embed_sequence",
    "embedding_lookup",
    "flatten",
    "fully_connected",
    "l1_l2_regularizer",
    "l1_regularizer",
    "l2_regularizer",
    "layer_norm",
    "max_pooling1d",
    "max_pooling2d",
    "max_pooling3d",
    "multi_head_attention",
    "separable_conv1d",
    "separable_conv2d",
    "static_bidirectional_rnn",
    "static_rnn",
    "sum_regularizer",
    "xavier_initializer",
]

# Tracebacks, pickles and documentation name what users import, not the file that it happens to be written in.
for _name in __all__:
    if globals()[_name].__module__.rpartition(".")[0] == __name__:
        globals()[_name].__module__ = __name__
