"""Cells of `tf.contrib.rnn`, which TensorFlow 2 has no more: with layer norm, found by search, and of one kernel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from .by_name import Activation, activation_of
from .cells import LSTMStateTuple, RNNCell, checked, joined
from .contrib.normalization import layer_norm
from .core import kept_and_scaled
from .faults import as_flag, as_probability, as_size, check_numbers
from .products import multiplied
from .shardings import arithmetic, by_batch
from .wrappers import step_key


def row(vector: jax.Array) -> jax.Array:
    """A vector as what spreads over the examples of a batch."""
    return jax.lax.expand_dims(vector, (0,))


class _CellOfTwo(RNNCell):
    """A cell whose state is `c` and `h`, of `num_units` and `output_size`."""

    def __init__(self, num_units: int, reuse: Any, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype, _reuse=reuse)
        self._num_units = as_size(num_units, "num_units", type(self).__name__)

    @property
    def state_size(self) -> LSTMStateTuple:
        """The sizes of c and h."""
        return LSTMStateTuple(self._num_units, self.output_size)

    @property
    def output_size(self) -> int:
        """`num_units`."""
        return self._num_units


class LayerNormBasicLSTMCell(_CellOfTwo):
    """A long short-term memory whose gates, new input and `c` are normalized, with dropout of the new input.

    TF1: `tf.contrib.rnn.LayerNormBasicLSTMCell`. Default scope `layer_norm_basic_lstm_cell`; variables `kernel` of
    shape [n + num_units, 4 * num_units] for input gate, new input, forget gate and output gate in this order, and
    `gamma` and `beta` of shape [num_units] in each of the scopes `input`, `transform`, `forget`, `output` and `state`.
    Without normalization `kernel` and `bias`.

    Args:
      num_units: the size of `c` and `h`.
      forget_bias: added to the forget gate.
      input_size: no effect.
      activation: of the new input and of `c`, a function or its name in Keras.
      layer_norm: whether there is normalization.
      norm_gain, norm_shift: initial values of `gamma` and `beta`.
      dropout_keep_prob: the probability of an element of the new input to be kept, in (0, 1], or a scalar array; 1.0
        for no dropout. The random keys are those of `js.next_key()`, so a run that drops needs `rng=`.
      dropout_prob_seed: folded into the keys.
      reuse: as in `RNNCell`.

    Raises:
      BadArgumentError: for a probability outside (0, 1].

    Example:
      >>> from jscope.layers import LayerNormBasicLSTMCell
      >>> cell = LayerNormBasicLSTMCell(3)
      >>> net = js.transform(lambda x: cell(x, cell.zero_state(1, jnp.float32))[0])
      >>> print(*[name.partition("/")[2] for name in net.specs(jnp.ones((1, 2)))][:3])
      kernel input/gamma input/beta
    """

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        input_size: Any = None,
        activation: Activation | str = jnp.tanh,
        layer_norm: bool = True,
        norm_gain: float = 1.0,
        norm_shift: float = 0.0,
        dropout_keep_prob: Any = 1.0,
        dropout_prob_seed: int | None = None,
        reuse: Any = None,
    ) -> None:
        super().__init__(num_units, reuse)
        self._forget_bias = forget_bias
        self._activation = activation_of(activation, "LayerNormBasicLSTMCell") or jnp.tanh
        self._layer_norm = as_flag(layer_norm, "layer_norm", "LayerNormBasicLSTMCell")
        self._gain = js.constant_initializer(norm_gain)
        self._shift = js.constant_initializer(norm_shift)
        self._keep_prob = as_probability(dropout_keep_prob, "dropout_keep_prob", "LayerNormBasicLSTMCell", is_kept=True)
        self._seed = dropout_prob_seed

    def _normalized(self, x: jax.Array, scope: str) -> jax.Array:
        if not self._layer_norm:
            return x
        with js.variable_scope(scope):
            self.add_weight("gamma", x.shape[-1:], x.dtype, self._gain)
            self.add_weight("beta", x.shape[-1:], x.dtype, self._shift)
        return layer_norm(x, reuse=True, scope=scope)

    def _dropped(self, x: jax.Array) -> jax.Array:
        if isinstance(self._keep_prob, float) and self._keep_prob == 1:
            return x
        key = step_key()
        if self._seed is not None:
            key = jax.random.fold_in(key, self._seed % 2**32)
        return kept_and_scaled(x, 1 - self._keep_prob, x.shape, key)

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """`h`, and the new state."""
        x = checked(inputs, state, self)
        c, h = state
        size = 4 * self._num_units
        kernel = self.add_weight("kernel", [x.shape[-1] + self._num_units, size], x.dtype)
        if self._layer_norm:
            with arithmetic(type(self).__name__, x, state=h, kernel=kernel):
                gates = multiplied(jnp.concatenate([by_batch(x, x), by_batch(h, x)], 1), kernel)
        else:
            gates = joined(self, x, h, kernel, self.add_weight("bias", [size], x.dtype))
        i, j, f, o = jnp.split(gates, 4, 1)
        i, j = self._normalized(i, "input"), self._normalized(j, "transform")
        f, o = self._normalized(f, "forget"), self._normalized(o, "output")
        new_input = self._dropped(self._activation(j))
        c = c * jax.nn.sigmoid(f + self._forget_bias) + jax.nn.sigmoid(i) * new_input
        c = self._normalized(c, "state")
        h = self._activation(c) * jax.nn.sigmoid(o)
        return h, LSTMStateTuple(c, h)


class NASCell(_CellOfTwo):
    """The cell that neural architecture search found. TF1: `tf.contrib.rnn.NASCell`.

    Default scope `nas_cell`; variables `recurrent_kernel` of shape [output, 8 * num_units], `kernel` of shape
    [n, 8 * num_units], with biases `bias` of shape [8 * num_units], with a projection `projection_weights` of shape
    [num_units, num_proj].

    Args:
      num_units: the size of `c`, and of `h` unless that is projected.
      num_proj: the size that `h` is projected to; None for none.
      use_biases: whether there is a `bias`.
      reuse: as in `RNNCell`.

    Example:
      >>> from jscope.layers import NASCell
      >>> cell = NASCell(3)
      >>> net = js.transform(lambda x: cell(x, cell.zero_state(1, jnp.float32))[0])
      >>> net.init(jax.random.key(0), jnp.ones((1, 2)))
      Params({nas_cell: {kernel: f32[2,24], recurrent_kernel: f32[3,24]}})
    """

    def __init__(
        self, num_units: int, num_proj: int | None = None, use_biases: bool = False, reuse: Any = None
    ) -> None:
        super().__init__(num_units, reuse)
        self._num_proj = None if num_proj is None else as_size(num_proj, "num_proj", type(self).__name__)
        self._use_biases = as_flag(use_biases, "use_biases", type(self).__name__)

    @property
    def output_size(self) -> int:
        """`num_proj`, else `num_units`."""
        return self._num_proj or self._num_units

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """`h`, and the new state."""
        x = checked(inputs, state, self)
        c, h = state
        size = 8 * self._num_units
        recurrent = self.add_weight("recurrent_kernel", [self.output_size, size], x.dtype)
        kernel = self.add_weight("kernel", [x.shape[-1], size], x.dtype)
        with arithmetic("NASCell", x, state=h, recurrent_kernel=recurrent, kernel=kernel):
            of_inputs = multiplied(x, kernel)
            of_state = multiplied(by_batch(h, x), recurrent)
        if self._use_biases:
            of_state += row(self.add_weight("bias", [size], x.dtype, js.zeros_initializer()))
        pairs = list(zip(jnp.split(of_inputs, 8, 1), jnp.split(of_state, 8, 1), strict=True))
        sigmoid, tanh, relu = jax.nn.sigmoid, jnp.tanh, jax.nn.relu
        # The tree that the search found: its eight leaves, of which the fourth alone is a product.
        leaves = [
            f(a * b if number == 3 else a + b)
            for number, (f, (a, b)) in enumerate(
                zip((sigmoid, relu, sigmoid, relu, tanh, sigmoid, tanh, sigmoid), pairs, strict=True)
            )
        ]
        remembered = tanh(tanh(leaves[0] * leaves[1]) + c)
        c = remembered * tanh(leaves[2] + leaves[3])
        h = tanh(c * tanh(tanh(leaves[4] * leaves[5]) + sigmoid(leaves[6] + leaves[7])))
        if self._num_proj is not None:
            h = multiplied(h, self.add_weight("projection_weights", [self._num_units, self._num_proj], x.dtype))
        return h, LSTMStateTuple(c, h)


class LSTMBlockCell(_CellOfTwo):
    """A long short-term memory, as `LSTMCell` and with its checkpoints. TF1: `tf.contrib.rnn.LSTMBlockCell`.

    TensorFlow has one kernel for all of it; XLA makes one of any cell. Default scope `lstm_cell`; variables `kernel`
    and `bias` as in `LSTMCell`, with peepholes `w_i_diag`, `w_f_diag` and `w_o_diag` of shape [num_units].

    Args:
      num_units: the size of `c` and `h`.
      forget_bias: added to the forget gate.
      cell_clip: `c` is clipped to [-cell_clip, cell_clip]; None or a negative number for no clipping.
      use_peephole: whether the gates see `c`.
      dtype: no effect.
      reuse, name: as in `RNNCell`.

    Example:
      >>> from jscope.layers import LSTMBlockCell
      >>> cell = LSTMBlockCell(3)
      >>> net = js.transform(lambda x: cell(x, cell.zero_state(1, jnp.float32))[0])
      >>> net.init(jax.random.key(0), jnp.ones((1, 2)))
      Params({lstm_cell: {bias: f32[12], kernel: f32[5,12]}})
    """

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        cell_clip: float | None = None,
        use_peephole: bool = False,
        dtype: Any = None,
        reuse: Any = None,
        name: str | None = "lstm_cell",
    ) -> None:
        super().__init__(num_units, reuse, name, dtype)
        self._forget_bias = forget_bias
        if cell_clip is not None:
            check_numbers(type(self).__name__, cell_clip=cell_clip)
        self._cell_clip = cell_clip
        self._use_peephole = as_flag(use_peephole, "use_peephole", type(self).__name__)

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """`h`, and the new state."""
        x = checked(inputs, state, self)
        c, h = state
        n = self._num_units
        kernel = self.add_weight("kernel", [x.shape[-1] + n, 4 * n], x.dtype)
        bias = self.add_weight("bias", [4 * n], x.dtype, js.zeros_initializer())
        i, j, f, o = jnp.split(joined(self, x, h, kernel, bias), 4, 1)
        f += self._forget_bias
        peepholes = []
        if self._use_peephole:
            peepholes = [row(self.add_weight(name, [n], x.dtype)) for name in ("w_i_diag", "w_f_diag", "w_o_diag")]
            i, f = i + c * peepholes[0], f + c * peepholes[1]
        c = jnp.tanh(j) * jax.nn.sigmoid(i) + c * jax.nn.sigmoid(f)
        if self._cell_clip is not None and self._cell_clip > 0:
            c = jnp.clip(c, -self._cell_clip, self._cell_clip)
        if self._use_peephole:
            o += c * peepholes[2]
        h = jnp.tanh(c) * jax.nn.sigmoid(o)
        return h, LSTMStateTuple(c, h)
