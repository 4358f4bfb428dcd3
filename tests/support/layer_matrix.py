"""Every layer of `jscope.layers`, as a program of one input, for the settings of JAX that `test_layers_matrix` runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
import jscope.layers as layers
from jscope.layers import contrib as slim

ROWS, STEPS, IMAGE, VOLUME = (4, 6), (4, 8, 6), (4, 8, 8, 6), (4, 8, 8, 8, 6)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
      call: the program.
      shape: of its input; the batch first.
      whole_numbers: whether the input is numbers of rows instead of floating ones.
      needs_a_batch: whether it refuses an empty one.
    """

    call: Callable[[Any], Any]
    shape: tuple[int, ...]
    whole_numbers: bool = False
    needs_a_batch: bool = False

    def program(self, x: Any) -> Any:
        """A fresh function for each use is not needed: `js.transform` is called on this bound method."""
        return self.call(x)

    def input(self, batch: int | None = None, dtype: Any = jnp.float32) -> jax.Array:
        """An input of another batch size or dtype."""
        shape = self.shape if batch is None else (batch, *self.shape[1:])
        numbers = np.random.default_rng(len(shape)).standard_normal(shape)
        return jnp.asarray(abs(numbers) * 3 % 5, jnp.int32) if self.whole_numbers else jnp.asarray(numbers, dtype)


def rnn(cell: Callable[[], Any], **more: Any) -> Callable[[Any], Any]:
    """A cell along time."""

    def program(x: Any) -> Any:
        outputs, state = layers.dynamic_rnn(cell(), x, dtype=x.dtype, **more)
        return outputs, jax.tree.leaves(state)

    return program


def lengths_of(x: Any) -> Any:
    return jnp.arange(x.shape[0]) + 1


def with_lengths(x: Any) -> Any:
    return layers.dynamic_rnn(layers.GRUCell(6), x, lengths_of(x), dtype=x.dtype)[0]


def both_ways(x: Any) -> Any:
    cells = layers.GRUCell(6), layers.LSTMCell(4)
    return layers.bidirectional_dynamic_rnn(*cells, x, dtype=x.dtype)[0]


def both_ways_with_lengths(x: Any) -> Any:
    cells = layers.GRUCell(6), layers.GRUCell(4)
    return layers.bidirectional_dynamic_rnn(*cells, x, lengths_of(x), dtype=x.dtype)[0]


def one_step(x: Any) -> Any:
    cell = layers.MultiRNNCell([layers.LSTMCell(4), layers.GRUCell(2)])
    return jax.tree.leaves(cell(x, cell.zero_state(x.shape[0], x.dtype)))


def written_out(cell: Callable[[], Any]) -> Callable[[Any], Any]:
    """A cell along two steps that are written out."""

    def program(x: Any) -> Any:
        outputs, state = layers.static_rnn(cell(), [x, x], dtype=x.dtype)
        return outputs, jax.tree.leaves(state)

    return program


def looked_up(ids: Any) -> Any:
    return layers.embedding_lookup(js.get_variable("table", [5, 6]), ids, max_norm=1.0)


def attention(x: Any) -> Any:
    return layers.multi_head_attention(x, num_heads=2, mask=jnp.ones(x.shape[:2]), dropout_rate=0.5, training=True)


def twice(layer: Any, x: Any) -> Any:
    return layer(layer(x))


LAYERS = {
    "dense": Layer(lambda x: layers.dense(x, 4, "relu"), ROWS),
    "dense of steps": Layer(lambda x: layers.dense(x, 4, jnp.tanh), STEPS),
    "dropout": Layer(lambda x: layers.dropout(x, 0.5, training=True), STEPS),
    "dropout of channels": Layer(lambda x: layers.dropout(x, 0.5, [x.shape[0], 1, x.shape[2]], training=True), STEPS),
    "flatten": Layer(layers.flatten, IMAGE),
    "conv1d": Layer(lambda x: layers.conv1d(x, 4, 3, activation="elu"), STEPS),
    "conv1d causal": Layer(lambda x: layers.conv1d(x, 4, 3, padding="causal", dilation_rate=2), STEPS),
    "conv2d": Layer(lambda x: layers.conv2d(x, 4, 3, 2), IMAGE),
    "conv2d same": Layer(lambda x: layers.conv2d(x, 4, 3, 2, "same"), IMAGE),
    "conv2d channels_first": Layer(lambda x: layers.conv2d(x, 4, 3, data_format="channels_first"), IMAGE),
    "conv3d": Layer(lambda x: layers.conv3d(x, 4, 3), VOLUME),
    "conv2d_transpose": Layer(lambda x: layers.conv2d_transpose(x, 4, 3, 2), IMAGE),
    "conv2d_transpose same": Layer(lambda x: layers.conv2d_transpose(x, 4, 3, 2, "same"), IMAGE),
    "conv3d_transpose": Layer(lambda x: layers.conv3d_transpose(x, 4, 3, 2), VOLUME),
    "separable_conv1d": Layer(lambda x: layers.separable_conv1d(x, 4, 3), STEPS),
    "separable_conv2d": Layer(lambda x: layers.separable_conv2d(x, 4, 3, depth_multiplier=2), IMAGE),
    "batch_normalization": Layer(layers.batch_normalization, IMAGE),
    "batch_normalization in training": Layer(
        lambda x: layers.batch_normalization(x, training=True), IMAGE, needs_a_batch=True
    ),
    "batch_normalization in training or not": Layer(
        lambda x: layers.batch_normalization(x, training=jnp.asarray(True)), STEPS, needs_a_batch=True
    ),
    "max_pooling1d": Layer(lambda x: layers.max_pooling1d(x, 2, 2), STEPS),
    "max_pooling2d": Layer(lambda x: layers.max_pooling2d(x, 2, 2, "same"), IMAGE),
    "max_pooling3d": Layer(lambda x: layers.max_pooling3d(x, 2, 2), VOLUME),
    "average_pooling1d": Layer(lambda x: layers.average_pooling1d(x, 2, 2), STEPS),
    "average_pooling2d": Layer(lambda x: layers.average_pooling2d(x, 3, 2, "same"), IMAGE),
    "average_pooling3d": Layer(lambda x: layers.average_pooling3d(x, 2, 2), VOLUME),
    "embedding_lookup": Layer(looked_up, (4, 8), whole_numbers=True),
    "BasicRNNCell": Layer(rnn(lambda: layers.BasicRNNCell(6)), STEPS),
    "GRUCell": Layer(rnn(lambda: layers.GRUCell(6, activation="relu")), STEPS),
    "BasicLSTMCell": Layer(rnn(lambda: layers.BasicLSTMCell(6)), STEPS),
    "LSTMCell": Layer(
        rnn(lambda: layers.LSTMCell(6, use_peepholes=True, cell_clip=1.0, num_proj=4, proj_clip=1.0)), STEPS
    ),
    "LSTMCell of one array": Layer(rnn(lambda: layers.LSTMCell(6, state_is_tuple=False)), STEPS),
    "MultiRNNCell": Layer(rnn(lambda: layers.MultiRNNCell([layers.LSTMCell(4), layers.GRUCell(2)])), STEPS),
    "MultiRNNCell, one step": Layer(one_step, ROWS),
    "DropoutWrapper": Layer(rnn(lambda: layers.DropoutWrapper(layers.LSTMCell(6), 0.5, 0.5, 0.5)), STEPS),
    "ResidualWrapper": Layer(rnn(lambda: layers.ResidualWrapper(layers.GRUCell(6))), STEPS),
    "LayerNormBasicLSTMCell": Layer(rnn(lambda: layers.LayerNormBasicLSTMCell(6, dropout_keep_prob=0.5)), STEPS),
    "LayerNormBasicLSTMCell, not normalized": Layer(
        written_out(lambda: layers.LayerNormBasicLSTMCell(6, layer_norm=False)), ROWS
    ),
    "NASCell": Layer(rnn(lambda: layers.NASCell(6, num_proj=4, use_biases=True)), STEPS),
    "LSTMBlockCell": Layer(written_out(lambda: layers.LSTMBlockCell(6, cell_clip=1.0, use_peephole=True)), ROWS),
    "static_bidirectional_rnn with lengths": Layer(
        lambda x: layers.static_bidirectional_rnn(
            layers.GRUCell(6), layers.GRUCell(4), [x, x], dtype=x.dtype, sequence_length=jnp.ones(x.shape[0], int)
        )[0],
        ROWS,
    ),
    "dynamic_rnn, time first": Layer(
        lambda x: layers.dynamic_rnn(layers.GRUCell(6), jnp.swapaxes(x, 0, 1), dtype=x.dtype, time_major=True)[0],
        STEPS,
    ),
    "dynamic_rnn with lengths": Layer(with_lengths, STEPS),
    "bidirectional_dynamic_rnn": Layer(both_ways, STEPS),
    "bidirectional_dynamic_rnn with lengths": Layer(both_ways_with_lengths, STEPS),
    "multi_head_attention": Layer(attention, STEPS),
    "fully_connected": Layer(lambda x: slim.fully_connected(x, 4), ROWS),
    "fully_connected, normalized": Layer(
        lambda x: slim.fully_connected(x, 4, normalizer_fn=slim.batch_norm), ROWS, needs_a_batch=True
    ),
    "contrib convolution": Layer(lambda x: slim.convolution(x, 4, [3, 1], padding="VALID"), IMAGE),
    "contrib conv1d": Layer(lambda x: slim.conv1d(x, 4, 3), STEPS),
    "contrib conv2d": Layer(lambda x: slim.conv2d(x, 4, 3, normalizer_fn=slim.layer_norm), IMAGE),
    "contrib conv3d": Layer(lambda x: slim.conv3d(x, 4, 3, stride=2), VOLUME),
    "contrib conv2d_transpose": Layer(lambda x: slim.conv2d_transpose(x, 4, 3, 2), IMAGE),
    "contrib conv3d_transpose": Layer(lambda x: slim.conv3d_transpose(x, 4, 3, 2), VOLUME),
    "contrib separable_conv2d": Layer(lambda x: slim.separable_conv2d(x, 4, 3), IMAGE),
    "contrib separable_conv2d, depthwise": Layer(lambda x: slim.separable_conv2d(x, None, 3, 2), IMAGE),
    "batch_norm": Layer(lambda x: slim.batch_norm(x, scale=True), IMAGE, needs_a_batch=True),
    "batch_norm of weighted examples": Layer(
        lambda x: slim.batch_norm(x, batch_weights=jnp.ones(x.shape[0])), STEPS, needs_a_batch=True
    ),
    "batch_norm, not in training": Layer(lambda x: slim.batch_norm(x, is_training=False), ROWS),
    "layer_norm": Layer(slim.layer_norm, STEPS),
    "layer_norm of the last dimension": Layer(lambda x: slim.layer_norm(x, begin_norm_axis=-1), STEPS),
    "embed_sequence": Layer(lambda ids: slim.embed_sequence(ids, 5, 6), (4, 8), whole_numbers=True),
    "contrib dropout": Layer(lambda x: slim.dropout(x, 0.5), STEPS),
    "contrib flatten": Layer(slim.flatten, STEPS),
    "max_pool2d": Layer(lambda x: slim.max_pool2d(x, 2), IMAGE),
    "max_pool3d": Layer(lambda x: slim.max_pool3d(x, 2), VOLUME),
    "avg_pool2d": Layer(lambda x: slim.avg_pool2d(x, 2, padding="SAME"), IMAGE),
    "avg_pool3d": Layer(lambda x: slim.avg_pool3d(x, 2), VOLUME),
    "bias_add": Layer(lambda x: slim.bias_add(x, activation_fn="relu"), IMAGE),
    "unit_norm": Layer(lambda x: slim.unit_norm(x, 1), STEPS),
    "linear": Layer(lambda x: slim.linear(x, 4), ROWS),
    "relu": Layer(lambda x: slim.relu(x, 4), ROWS),
    "relu6": Layer(lambda x: slim.relu6(x, 4), ROWS),
    "elu": Layer(lambda x: slim.elu(x, 4), ROWS),
    "softmax": Layer(slim.softmax, STEPS),
    "one_hot_encoding": Layer(lambda ids: slim.one_hot_encoding(ids, 5), (4, 8), whole_numbers=True),
    "Dense twice": Layer(lambda x: twice(layers.Dense(6, "relu"), x), ROWS),
    "Dropout": Layer(lambda x: layers.Dropout(0.5)(x, training=True), STEPS),
    "Flatten": Layer(lambda x: layers.Flatten()(x), IMAGE),
    "Conv1D twice": Layer(lambda x: twice(layers.Conv1D(6, 3, padding="same"), x), STEPS),
    "Conv2D twice": Layer(lambda x: twice(layers.Conv2D(6, 3, padding="same"), x), IMAGE),
    "Conv3D twice": Layer(lambda x: twice(layers.Conv3D(6, 1), x), VOLUME),
    "Conv2DTranspose twice": Layer(lambda x: twice(layers.Conv2DTranspose(6, 3, padding="same"), x), IMAGE),
    "Conv3DTranspose twice": Layer(lambda x: twice(layers.Conv3DTranspose(6, 1), x), VOLUME),
    "SeparableConv1D twice": Layer(lambda x: twice(layers.SeparableConv1D(6, 3, padding="same"), x), STEPS),
    "SeparableConv2D twice": Layer(lambda x: twice(layers.SeparableConv2D(6, 3, padding="same"), x), IMAGE),
    "BatchNormalization": Layer(lambda x: layers.BatchNormalization()(x, training=True), IMAGE, needs_a_batch=True),
    "MaxPooling1D": Layer(lambda x: layers.MaxPooling1D(2, 2)(x), STEPS),
    "MaxPooling2D": Layer(lambda x: layers.MaxPooling2D(2, 2)(x), IMAGE),
    "MaxPooling3D": Layer(lambda x: layers.MaxPooling3D(2, 2)(x), VOLUME),
    "AveragePooling1D": Layer(lambda x: layers.AveragePooling1D(2, 2)(x), STEPS),
    "AveragePooling2D": Layer(lambda x: layers.AveragePooling2D(2, 2)(x), IMAGE),
    "AveragePooling3D": Layer(lambda x: layers.AveragePooling3D(2, 2)(x), VOLUME),
    "repeat": Layer(lambda x: slim.repeat(x, 2, slim.fully_connected, 4), ROWS),
    "stack": Layer(lambda x: slim.stack(x, slim.fully_connected, [4, 2]), ROWS),
}
