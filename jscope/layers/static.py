"""Loops over time that are written out: `tf.nn.static_rnn` and `tf.nn.static_bidirectional_rnn`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from .._support import user_line
from .cells import RNNCell
from .faults import as_array, bad_argument, check_cells, check_min_rank
from .recurrent import as_lengths, reverse_sequence
from .states import State


def static_rnn(
    cell: RNNCell,
    inputs: Sequence[Any],
    initial_state: State = None,
    dtype: Any = None,
    sequence_length: Any = None,
    scope: str | js.VariableScope | None = None,
) -> tuple[list[Any], State]:
    """A cell along a list of inputs, one copy for each. TF1: `tf.nn.static_rnn`.

    Default scope `rnn`, in it that of the cell: `rnn/lstm_cell/kernel`. The steps are compiled one by one: for more
    than a few, `dynamic_rnn` compiles faster.

    Args:
      cell: a cell.
      inputs: a list of arrays of shape [batch, n], one for each step.
      initial_state: default the cell's `zero_state`.
      dtype: the dtype of that; needed without `initial_state`.
      sequence_length: shape [batch], integers: from there on the output is zero and the state stays. None for all.
      scope: the scope's name, or a scope object.

    Returns:
      (a list of outputs of shape [batch, output_size], the last state of each example).

    Raises:
      BadTypeError: for inputs that are no list.
      BadArgumentError: for an empty list, without `initial_state` and `dtype`, and for a `sequence_length` of another
        shape.

    Example:
      >>> from jscope.layers import LSTMCell, static_rnn
      >>> net = js.transform(lambda xs: static_rnn(LSTMCell(4), xs, dtype=jnp.float32))
      >>> xs = [jnp.ones((2, 3))] * 5
      >>> net.init(jax.random.key(0), xs)
      Params({rnn: {lstm_cell: {bias: f32[16], kernel: f32[7,16]}}})
      >>> outputs, state = net.apply(net.init(jax.random.key(0), xs), xs)
      >>> len(outputs), outputs[0].shape
      (5, (2, 4))
    """
    check_cells("static_rnn", cell=cell)
    steps = _steps(inputs, "static_rnn")
    lengths = as_lengths(sequence_length, steps[0].shape[0], "static_rnn")
    if initial_state is None:
        if dtype is None:
            raise bad_argument(
                "There is neither initial_state nor dtype.", asked="static_rnn", fix="give dtype=jnp.float32"
            )
        initial_state = cell.zero_state(steps[0].shape[0], dtype)
    state, outputs = initial_state, []
    with js.variable_scope(scope or "rnn") as entered:
        for time, x in enumerate(steps):
            if time:
                entered.reuse_variables()  # for cells that ask by get_variable in the scope itself
            output, new = cell(x, state)
            if lengths is not None:
                output = _where(time < lengths, output, jax.tree.map(jnp.zeros_like, output))
                new = _where(time < lengths, new, state)
            state = new
            outputs.append(output)
    return outputs, state


def static_bidirectional_rnn(
    cell_fw: RNNCell,
    cell_bw: RNNCell,
    inputs: Sequence[Any],
    initial_state_fw: State = None,
    initial_state_bw: State = None,
    dtype: Any = None,
    sequence_length: Any = None,
    scope: str | js.VariableScope | None = None,
) -> tuple[list[Any], State, State]:
    """One cell along a list of inputs, and one against it. TF1: `tf.nn.static_bidirectional_rnn`.

    Default scope `bidirectional_rnn`, in it `fw` and `bw`, in them those of the cells.

    Args:
      cell_fw, cell_bw: the cells.
      initial_state_fw, initial_state_bw: their states, default `zero_state`.
      inputs, dtype, sequence_length, scope: as in `static_rnn`.

    Returns:
      (a list of outputs of shape [batch, both output sizes], in the order of the inputs; the state forward; the state
      backward).

    Raises:
      BadTypeError, BadArgumentError: as `static_rnn`; for a length beyond the steps, as `bidirectional_dynamic_rnn`.

    Example:
      >>> from jscope.layers import GRUCell, static_bidirectional_rnn
      >>> net = js.transform(lambda xs: static_bidirectional_rnn(GRUCell(4), GRUCell(4), xs, dtype=jnp.float32)[0][0])
      >>> xs = [jnp.ones((2, 3))] * 5
      >>> [name for name in net.specs(xs) if "gates/k" in name]
      ['bidirectional_rnn/fw/gru_cell/gates/kernel', 'bidirectional_rnn/bw/gru_cell/gates/kernel']
    """
    check_cells("static_bidirectional_rnn", cell_fw=cell_fw, cell_bw=cell_bw)
    steps = _steps(inputs, "static_bidirectional_rnn")
    lengths = as_lengths(sequence_length, steps[0].shape[0], "static_bidirectional_rnn", len(steps))

    def turned(sequence: list[Any]) -> list[Any]:
        if lengths is None:
            return sequence[::-1]
        reverse = jax.tree.map(lambda *parts: reverse_sequence(jnp.stack(parts, 1), lengths), *sequence)
        return [jax.tree.map(lambda part, at=at: part[:, at], reverse) for at in range(len(sequence))]

    with js.variable_scope(scope or "bidirectional_rnn"):
        with js.variable_scope("fw") as forward:
            outputs_fw, state_fw = static_rnn(cell_fw, steps, initial_state_fw, dtype, lengths, forward)
        with js.variable_scope("bw") as backward:
            outputs_bw, state_bw = static_rnn(cell_bw, turned(steps), initial_state_bw, dtype, lengths, backward)
    joined = lambda *both: jnp.concatenate(both, 1)  # noqa: E731
    outputs = [jax.tree.map(joined, *both) for both in zip(outputs_fw, turned(outputs_bw), strict=True)]
    return outputs, state_fw, state_bw


def _steps(inputs: Any, asked: str) -> list[jax.Array]:
    if not isinstance(inputs, list | tuple):
        raise js.BadTypeError(
            f"{asked} takes a list of inputs, one for each step, not {type(inputs).__name__}.",
            kind="bad_argument",
            asked=asked,
            where=user_line(),
            fix="give list(inputs) where the first dimension is time, or call dynamic_rnn",
        )
    if not inputs:
        raise bad_argument("There are no inputs.", asked=asked, fix="give one array or more")
    steps = [as_array(x, asked) for x in inputs]
    for x in steps:
        check_min_rank(x, 2, asked)
    return steps


def _where(runs: jax.Array, new: Any, old: Any) -> Any:
    def chosen(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(runs.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(chosen, new, old)
