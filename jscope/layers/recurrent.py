"""Loops over time: `tf.nn.dynamic_rnn` and `tf.nn.bidirectional_dynamic_rnn`, on `lax.scan`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

import jscope as js

from .cells import RNNCell
from .faults import as_array, as_flag, bad_argument, check_cells, check_min_rank, wide
from .shardings import arithmetic, as_sharded, by_batch, spec_of
from .states import State, shown
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
) -> tuple[Any, State]:
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
      (outputs of shape [batch, time, output_size] or [time, batch, output_size], nested as the cell's, the last state
      of each example).

    Raises:
      BadArgumentError: for what is no cell, without `initial_state` and `dtype`, for an `initial_state` that does not
        fit the cell, and for a `sequence_length` of another shape.

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
    check_cells("dynamic_rnn", cell=cell)
    time_major = as_flag(time_major, "time_major", "dynamic_rnn")
    x = as_array(inputs, "dynamic_rnn")
    check_min_rank(x, 3, "dynamic_rnn")
    if not time_major:
        x = jnp.swapaxes(x, 0, 1)
    times, batch = x.shape[:2]
    if (spec_of(x) or (None,))[0] is not None:
        raise bad_argument(
            f"inputs are sharded over time: {spec_of(x)}, with time first; steps are taken one after the other.",
            asked="dynamic_rnn",
            fix="reshard the inputs, over the batch or over nothing: jax.sharding.reshard(inputs, jax.P())",
        )
    lengths = as_lengths(sequence_length, batch, "dynamic_rnn")
    if initial_state is None:
        if dtype is None:
            raise bad_argument(
                "There is neither initial_state nor dtype.", asked="dynamic_rnn", fix="give dtype=jnp.float32"
            )
        initial_state = cell.zero_state(batch, dtype)
    state = jax.tree.map(lambda part: _start(part, x), initial_state)

    def body(old: State, step: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        time, now = step
        with js.arg_scope([step_key], step=time):
            output, new = cell(now, old)
        _check_next(old, new, cell)
        new = jax.tree.map(lambda old, new: as_sharded(new.astype(old.dtype), old), old, new)
        if lengths is not None:
            runs = time.astype(lengths.dtype) < lengths
            new = jax.tree.map(lambda old, new: _where(runs, new, old), old, new)
            output = jax.tree.map(lambda part: _where(runs, part, jnp.zeros((), part.dtype)), output)
        return new, output

    with js.variable_scope(scope or "rnn"), arithmetic("dynamic_rnn", x):
        state, outputs = jax.lax.scan(body, state, (jnp.arange(times), x))
    return outputs if time_major else _swapped(outputs), state


def as_lengths(sequence_length: Any, batch: Any, asked: str, steps: Any = None) -> jax.Array | None:
    """What is given as `sequence_length`, as integers that no number of steps is too large for.

    Args:
      sequence_length: as in `dynamic_rnn`.
      batch: the number of examples.
      asked: the public name of the function.
      steps: how many there are, where it matters that no length is beyond them.

    Raises:
      BadArgumentError: for another shape, no integers, and lengths that are beyond the steps, as far as they are known.
    """
    if sequence_length is None:
        return None
    given = as_array(sequence_length, asked)
    if given.shape != (batch,) or not jnp.issubdtype(given.dtype, jnp.integer):
        raise bad_argument(
            f"sequence_length of shape {given.shape} and dtype {given.dtype} is not one integer for each of the "
            f"{batch} examples.",
            asked=asked,
            fix="give an array of integers of shape [batch]",
        )
    lengths = wide(given)
    if steps is None:
        return lengths
    is_known = isinstance(steps, int) and not any(isinstance(x, Tracer) for x in jax.tree.leaves(sequence_length))
    if is_known and (longest := np.max(np.asarray(sequence_length), initial=0)) > steps:
        raise bad_argument(
            f"sequence_length has a length of {longest}, and there are {steps} steps.",
            asked=asked,
            fix="give lengths up to the number of steps, such as jnp.minimum(sequence_length, steps)",
        )
    return jnp.minimum(lengths, steps)


def _swapped(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def _start(given: Any, x: jax.Array) -> jax.Array:
    """A part of the first state as an array, with the batch sharded as that of `x`.

    Raises:
      BadArgumentError: for what is no array.
    """
    try:
        part = jnp.asarray(given)
    except (TypeError, ValueError):
        raise bad_argument(
            f"A part of initial_state is {given!r:.80}, which is no array.",
            asked="dynamic_rnn",
            fix="start from cell.zero_state(batch_size, dtype)",
        ) from None
    part = part.astype(part.dtype)  # never weakly typed: JAX would trace the body twice for what changes its type
    return by_batch(part, x, 1) if part.ndim else part


def _check_next(old: State, new: State, cell: RNNCell) -> None:
    """Raises BadArgumentError for a new state that is not like the old one: a loop carries one kind of state."""
    alike = jax.tree.structure(old) == jax.tree.structure(new)
    if not alike or any(a.shape != b.shape for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)):
        raise bad_argument(
            f"{type(cell).__name__} took a state such as {shown(old)}, and gave {shown(new)}.",
            asked="dynamic_rnn",
            fix="give an initial_state of the form that the cell gives, or let the cell give what it takes",
        )


def _where(of_examples: jax.Array, x: jax.Array, other: jax.Array) -> jax.Array:
    """`x` for the examples where it holds, else `other`, which is like `x` or a number."""
    mask = jax.lax.expand_dims(of_examples, range(1, x.ndim))
    return jnp.where(mask, x, other)


def reverse_sequence(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Each example's first `length` steps in reverse order, the rest as it is; [batch, time, ...]. None: all steps."""
    if lengths is None:
        return jnp.flip(x, 1)
    times, ends = jnp.arange(x.shape[1])[None, :], lengths[:, None]
    times = times.astype(ends.dtype)
    order = jnp.where(times < ends, ends - 1 - times, times)
    return jnp.take_along_axis(x, jax.lax.expand_dims(order, range(2, x.ndim)), 1)


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
) -> tuple[tuple[Any, Any], tuple[State, State]]:
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
      BadArgumentError: as `dynamic_rnn`, and for a length beyond the steps. Of lengths that JAX traces, those are taken
        for the number of steps.

    Example:
      >>> from jscope.layers import GRUCell, bidirectional_dynamic_rnn
      >>> net = js.transform(lambda x: bidirectional_dynamic_rnn(GRUCell(4), GRUCell(4), x, dtype=jnp.float32))
      >>> [name for name in net.specs(jnp.ones((2, 5, 3))) if "gates/k" in name]
      ['bidirectional_rnn/fw/gru_cell/gates/kernel', 'bidirectional_rnn/bw/gru_cell/gates/kernel']
    """
    check_cells("bidirectional_dynamic_rnn", cell_fw=cell_fw, cell_bw=cell_bw)
    x = as_array(inputs, "bidirectional_dynamic_rnn")
    check_min_rank(x, 3, "bidirectional_dynamic_rnn")
    time_major = as_flag(time_major, "time_major", "bidirectional_dynamic_rnn")
    if time_major:
        x = jnp.swapaxes(x, 0, 1)
    lengths = as_lengths(sequence_length, x.shape[0], "bidirectional_dynamic_rnn", x.shape[1])
    with js.variable_scope(scope or "bidirectional_rnn"):
        both: dict[str, Any] = {"sequence_length": lengths, "dtype": dtype}
        with js.variable_scope("fw") as forward:
            outputs_fw, state_fw = dynamic_rnn(cell_fw, x, initial_state=initial_state_fw, scope=forward, **both)
        with js.variable_scope("bw") as backward:
            x = reverse_sequence(x, lengths)
            outputs_bw, state_bw = dynamic_rnn(cell_bw, x, initial_state=initial_state_bw, scope=backward, **both)
    outputs_bw = jax.tree.map(lambda part: reverse_sequence(part, lengths), outputs_bw)
    if time_major:
        outputs_fw, outputs_bw = _swapped(outputs_fw), _swapped(outputs_bw)
    return (outputs_fw, outputs_bw), (state_fw, state_bw)
