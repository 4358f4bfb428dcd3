"""Loops over time: `tf.nn.dynamic_rnn` and `tf.nn.bidirectional_dynamic_rnn`, on `lax.scan`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from .cells import RNNCell, State
from .faults import bad_argument, check_min_rank
from .wrappers import step_key


def dynamic_rnn(
    cell: RNNCell,
    inputs: Any,
    sequence_length: Any = None,
    initial_state: State = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | js.VariableScope | None = None,
) -> tuple[jax.Array, State]:
    """A cell along time. TF1: `tf.nn.dynamic_rnn`.

    Default scope `rnn`, in it that of the cell: `rnn/lstm_cell/kernel`. The loop is `lax.scan`.

    Args:
      cell: a cell.
      inputs: shape [batch, time, n], or [time, batch, n] with `time_major`.
      sequence_length: shape [batch], integers: from there on the output is zero and the state stays. None for all.
      initial_state: default the cell's `zero_state`.
      dtype: the dtype of that; needed without `initial_state`.
      parallel_iterations, swap_memory: no effect.
      time_major: whether the first dimension of inputs and outputs is time.
      scope: the scope's name, or a scope object.

    Returns:
      (outputs of shape [batch, time, output_size] or [time, batch, output_size], the last state of each example).

    Raises:
      BadArgumentError: without `initial_state` and `dtype`, and for a `sequence_length` of another shape.

    Example:
      >>> from jscope.layers import LSTMCell, dynamic_rnn
      >>> net = js.transform(lambda x: dynamic_rnn(LSTMCell(4), x, dtype=jnp.float32))
      >>> x = jnp.ones((2, 5, 3))
      >>> params = net.init(jax.random.key(0), x)
      >>> params
      Params({rnn: {lstm_cell: {bias: f32[16], kernel: f32[7,16]}}})
      >>> outputs, state = jax.jit(net.apply)(params, x)
      >>> outputs.shape, state.c.shape
      ((2, 5, 4), (2, 4))
    """
    x = jnp.asarray(inputs)
    check_min_rank(x, 3, "dynamic_rnn")
    if not time_major:
        x = jnp.swapaxes(x, 0, 1)
    times, batch = x.shape[:2]
    lengths = None
    if sequence_length is not None:
        lengths = jnp.asarray(sequence_length)
        if lengths.shape != (batch,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise bad_argument(
                f"sequence_length of shape {lengths.shape} and dtype {lengths.dtype} is not one integer for each of "
                f"the {batch} examples.",
                asked="dynamic_rnn",
                fix="give an array of integers of shape [batch]",
            )
    if initial_state is None:
        if dtype is None:
            raise bad_argument(
                "There is neither initial_state nor dtype.", asked="dynamic_rnn", fix="give dtype=jnp.float32"
            )
        initial_state = cell.zero_state(batch, dtype)
    # JAX would trace the body twice for a state that changes its type after the first step.
    state = jax.tree.map(lambda part: jnp.asarray(part, jnp.asarray(part).dtype), initial_state)

    def body(old: State, step: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        time, now = step
        with js.arg_scope([step_key], step=time):
            output, new = cell(now, old)
        new = jax.tree.map(lambda old, new: new.astype(old.dtype), old, new)
        if lengths is not None:
            runs = time < lengths
            new = jax.tree.map(lambda old, new: jnp.where(_spread(runs, new), new, old), old, new)
            output = jnp.where(_spread(runs, output), output, jnp.zeros_like(output))
        return new, output

    with js.variable_scope(scope or "rnn"):
        state, outputs = jax.lax.scan(body, state, (jnp.arange(times), x))
    return outputs if time_major else jnp.swapaxes(outputs, 0, 1), state


def _spread(of_examples: jax.Array, like: jax.Array) -> jax.Array:
    return of_examples.reshape(-1, *[1] * (like.ndim - 1))


def reverse_sequence(x: jax.Array, lengths: Any) -> jax.Array:
    """Each example's first `length` steps in reverse order, the rest as it is; [batch, time, ...]."""
    times = jnp.arange(x.shape[1])
    ends = jnp.asarray(lengths)[:, None]
    order = jnp.where(times < ends, ends - 1 - times, times)
    return jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), 1)


def bidirectional_dynamic_rnn(
    cell_fw: RNNCell,
    cell_bw: RNNCell,
    inputs: Any,
    sequence_length: Any = None,
    initial_state_fw: State = None,
    initial_state_bw: State = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | js.VariableScope | None = None,
) -> tuple[tuple[jax.Array, jax.Array], tuple[State, State]]:
    """One cell along time, and one against it. TF1: `tf.nn.bidirectional_dynamic_rnn`.

    Default scope `bidirectional_rnn`, in it `fw` and `bw`, in them those of the cells.

    Args:
      cell_fw, cell_bw: the cells.
      initial_state_fw, initial_state_bw: their states, default `zero_state`.
      inputs, sequence_length, dtype, parallel_iterations, swap_memory, time_major, scope: as in `dynamic_rnn`.

    Returns:
      ((outputs forward, outputs backward), (state forward, state backward)), each as in `dynamic_rnn`; the outputs
      backward are in the order of the inputs.

    Raises:
      BadArgumentError: as `dynamic_rnn`.

    Example:
      >>> from jscope.layers import GRUCell, bidirectional_dynamic_rnn
      >>> net = js.transform(lambda x: bidirectional_dynamic_rnn(GRUCell(4), GRUCell(4), x, dtype=jnp.float32))
      >>> [name for name in net.specs(jnp.ones((2, 5, 3))) if "gates/k" in name]
      ['bidirectional_rnn/fw/gru_cell/gates/kernel', 'bidirectional_rnn/bw/gru_cell/gates/kernel']
    """
    x = jnp.asarray(inputs)
    check_min_rank(x, 3, "bidirectional_dynamic_rnn")
    if time_major:
        x = jnp.swapaxes(x, 0, 1)
    lengths = jnp.full(x.shape[:1], x.shape[1]) if sequence_length is None else sequence_length
    with js.variable_scope(scope or "bidirectional_rnn"):
        with js.variable_scope("fw") as forward:
            outputs_fw, state_fw = dynamic_rnn(cell_fw, x, sequence_length, initial_state_fw, dtype, scope=forward)
        with js.variable_scope("bw") as backward:
            outputs_bw, state_bw = dynamic_rnn(
                cell_bw, reverse_sequence(x, lengths), sequence_length, initial_state_bw, dtype, scope=backward
            )
    outputs_bw = reverse_sequence(outputs_bw, lengths)
    if time_major:
        outputs_fw, outputs_bw = jnp.swapaxes(outputs_fw, 0, 1), jnp.swapaxes(outputs_bw, 0, 1)
    return (outputs_fw, outputs_bw), (state_fw, state_bw)
