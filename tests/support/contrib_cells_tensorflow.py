"""Cells of TF 1.15's `tf.contrib.rnn` made of what TensorFlow 2 still has, to record what they give."""

from __future__ import annotations

from typing import Any


def make_cells(tf: Any, slim: Any) -> dict[str, Any]:
    """The cells by name, of `tensorflow.compat.v1` and `tf_slim`."""
    state_of = tf.nn.rnn_cell.LSTMStateTuple

    class Cell(tf.nn.rnn_cell.RNNCell):
        """Of two states, as wide as `units` and `outputs`."""

        def __init__(self, units, outputs=None, name=None, reuse=None):
            super().__init__(name=name, _reuse=reuse)
            self.units, self.outputs = units, outputs or units

        @property
        def state_size(self):
            return state_of(self.units, self.outputs)

        @property
        def output_size(self):
            return self.outputs

    class LSTMBlockCell(Cell):
        """By TensorFlow's own kernel. Its name is made unique, as of all cells that are layers."""

        __call__ = tf.nn.rnn_cell.BasicLSTMCell.__call__

        def __init__(self, units, forget_bias=1.0, cell_clip=None, use_peephole=False, reuse=None, name="lstm_cell"):
            super().__init__(units, name=name, reuse=reuse)
            self.settings = {"forget_bias": forget_bias, "cell_clip": cell_clip or -1.0, "use_peephole": use_peephole}

        def call(self, inputs, state):
            kernel = tf.get_variable("kernel", [inputs.shape[1] + self.units, 4 * self.units])
            bias = tf.get_variable("bias", [4 * self.units], initializer=tf.zeros_initializer())
            peepholes = {short: tf.zeros([self.units]) for short in ("wci", "wcf", "wco")}
            if self.settings["use_peephole"]:
                peepholes = {s: tf.get_variable(f"w_{s[-1]}_diag", [self.units]) for s in peepholes}
            found = tf.raw_ops.LSTMBlockCell(
                x=inputs, cs_prev=state[0], h_prev=state[1], w=kernel, b=bias, **peepholes, **self.settings
            )
            return found.h, state_of(found.cs, found.h)

    class LayerNormBasicLSTMCell(Cell):
        """With slim's own layer norm."""

        def __init__(self, units, forget_bias=1.0, layer_norm=True, norm_gain=1.0, norm_shift=0.0, reuse=None):
            super().__init__(units, reuse=reuse)
            self.forget_bias, self.layer_norm = forget_bias, layer_norm
            self.starts = {"gamma": norm_gain, "beta": norm_shift}

        def norm(self, x, scope):
            if not self.layer_norm:
                return x
            with tf.variable_scope(scope):
                for name, start in self.starts.items():
                    tf.get_variable(name, [self.units], initializer=tf.constant_initializer(start))
            return slim.layer_norm(x, reuse=True, scope=scope)

        def call(self, inputs, state):
            c, h = state
            both = tf.concat([inputs, h], 1)
            gates = both @ tf.get_variable("kernel", [both.shape[1], 4 * self.units])
            if not self.layer_norm:
                gates += tf.get_variable("bias", [4 * self.units])
            scopes = ("input", "transform", "forget", "output")
            i, j, f, o = (self.norm(x, s) for x, s in zip(tf.split(gates, 4, 1), scopes, strict=True))
            c = self.norm(tf.sigmoid(f + self.forget_bias) * c + tf.sigmoid(i) * tf.tanh(j), "state")
            h = tf.sigmoid(o) * tf.tanh(c)
            return h, state_of(c, h)

    class NASCell(Cell):
        """After the picture in the paper (arXiv:1611.01578, figure 8)."""

        def __init__(self, units, num_proj=None, use_biases=False, reuse=None):
            super().__init__(units, num_proj, reuse=reuse)
            self.is_projected, self.use_biases = num_proj is not None, use_biases

        def call(self, inputs, state):
            c, h = state
            of_state = h @ tf.get_variable("recurrent_kernel", [self.outputs, 8 * self.units])
            of_inputs = inputs @ tf.get_variable("kernel", [inputs.shape[1], 8 * self.units])
            if self.use_biases:
                of_state += tf.get_variable("bias", [8 * self.units], initializer=tf.zeros_initializer())
            a, b = tf.split(of_inputs, 8, 1), tf.split(of_state, 8, 1)
            upper = tf.tanh(tf.sigmoid(a[0] + b[0]) * tf.nn.relu(a[1] + b[1]))
            lower = tf.tanh(tf.sigmoid(a[2] + b[2]) + tf.nn.relu(a[3] * b[3]))
            third = tf.tanh(tf.tanh(a[4] + b[4]) * tf.sigmoid(a[5] + b[5]))
            fourth = tf.sigmoid(tf.tanh(a[6] + b[6]) + tf.sigmoid(a[7] + b[7]))
            c = tf.tanh(upper + c) * lower
            h = tf.tanh(c * tf.tanh(third + fourth))
            if self.is_projected:
                h = h @ tf.get_variable("projection_weights", [self.units, self.outputs])
            return h, state_of(c, h)

    cells = (LSTMBlockCell, LayerNormBasicLSTMCell, NASCell)
    return {cell.__name__: cell for cell in cells}
