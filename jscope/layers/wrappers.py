"""Cells around a cell: `DropoutWrapper` and `ResidualWrapper` of `tf.nn.rnn_cell`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

import jscope as js

from .cells import LSTMStateTuple, RNNCell
from .core import kept_and_scaled
from .faults import as_array, as_flag, as_probability, bad_argument, check_cells, refuse
from .states import State


@js.add_arg_scope
def step_key(step: Any = None) -> jax.Array:
    """A random key for the step in progress.

    JAX traces the body of a loop once, so that `js.next_key` in it is one key for all steps. `dynamic_rnn` sets the
    number of the step by `arg_scope`, which every cell sees however deep it is.
    """
    key = js.next_key()
    return key if step is None else jax.random.fold_in(key, step)


class _Wrapper(RNNCell):
    """Has the sizes of its cell, and no scope of its own."""

    def __init__(self, cell: RNNCell) -> None:
        check_cells(type(self).__name__, cell=cell)
        super().__init__()
        self._cell = cell

    @property
    def state_size(self) -> Any:
        """That of the cell."""
        return self._cell.state_size

    @property
    def output_size(self) -> Any:
        """That of the cell."""
        return self._cell.output_size

    @property
    def variables(self) -> list[js.VariableSpec]:
        """Those of the cell."""
        return self._cell.variables

    @property
    def trainable_variables(self) -> list[js.VariableSpec]:
        """Those of the cell."""
        return self._cell.trainable_variables

    def zero_state(self, batch_size: int, dtype: Any) -> State:
        """That of the cell."""
        return self._cell.zero_state(batch_size, dtype)

    def __call__(self, inputs: Any, state: State, scope: None = None) -> tuple[Any, State]:
        """One step, in the scope of the cell."""
        refuse(type(self).__name__, "give the cell a name=", scope=scope)
        return self.call(inputs, state)


class DropoutWrapper(_Wrapper):
    """Sets inputs, outputs or states of a cell to zero at random, anew in each step.

    TF1: `tf.nn.rnn_cell.DropoutWrapper`. The random keys are those of `js.next_key()`, so a run that drops needs
    `rng=`. Of an `LSTMStateTuple` only `h` is dropped, as in TensorFlow.

    Args:
      cell: a cell.
      input_keep_prob, output_keep_prob, state_keep_prob: the probability of an element to be kept, in (0, 1], or a
        scalar array; 1.0 for no dropout.
      variational_recurrent, input_size, dropout_state_filter_visitor: not supported; the defaults only.
      dtype: no effect.
      seed: folded into the keys.

    Raises:
      BadArgumentError: for what is no cell, a probability outside (0, 1], and what is not supported.
      MissingRngError: at a step that drops in a call that was given no `rng`.

    Example:
      >>> from jscope.layers import BasicRNNCell, DropoutWrapper
      >>> cell = DropoutWrapper(BasicRNNCell(99), output_keep_prob=0.5)
      >>> net = js.transform(lambda x: cell(x, cell.zero_state(1, jnp.float32))[0])
      >>> x = jnp.ones((1, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> params
      Params({basic_rnn_cell: {bias: f32[99], kernel: f32[101,99]}})
      >>> bool((net.apply(params, x, rng=jax.random.key(1)) == 0).any())
      True
    """

    def __init__(
        self,
        cell: RNNCell,
        input_keep_prob: Any = 1.0,
        output_keep_prob: Any = 1.0,
        state_keep_prob: Any = 1.0,
        variational_recurrent: bool = False,
        input_size: None = None,
        dtype: Any = None,
        seed: int | None = None,
        dropout_state_filter_visitor: Callable[..., Any] | None = None,
    ) -> None:
        variational = as_flag(variational_recurrent, "variational_recurrent", "DropoutWrapper")
        refuse("DropoutWrapper", "write a cell that drops so", variational_recurrent=variational or None)
        refuse("DropoutWrapper", "leave it out", input_size=input_size)
        refuse("DropoutWrapper", "leave it out", dropout_state_filter_visitor=dropout_state_filter_visitor)
        super().__init__(cell)
        self._input_keep_prob, self._output_keep_prob, self._state_keep_prob = (
            as_probability(given, name, "DropoutWrapper", is_kept=True)
            for name, given in (
                ("input_keep_prob", input_keep_prob),
                ("output_keep_prob", output_keep_prob),
                ("state_keep_prob", state_keep_prob),
            )
        )
        self._seed = seed

    def _dropped(self, x: Any, keep_prob: Any) -> Any:
        if isinstance(keep_prob, float) and keep_prob == 1:
            return x
        key = step_key()
        if self._seed is not None:
            key = jax.random.fold_in(key, self._seed % 2**32)
        return kept_and_scaled(x, 1 - keep_prob, x.shape, key)

    def _dropped_state(self, state: State) -> State:
        if isinstance(state, LSTMStateTuple):
            return LSTMStateTuple(state.c, self._dropped(state.h, self._state_keep_prob))
        if isinstance(state, tuple):
            parts = [self._dropped_state(part) for part in state]
            return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
        return self._dropped(state, self._state_keep_prob)

    def call(self, inputs: Any, state: State) -> tuple[Any, State]:
        """A step of the cell, with dropout of its inputs, outputs or states."""
        output, new = self._cell(self._dropped(inputs, self._input_keep_prob), state)
        if not (isinstance(self._state_keep_prob, float) and self._state_keep_prob == 1):
            new = self._dropped_state(new)
        return self._dropped(output, self._output_keep_prob), new


class ResidualWrapper(_Wrapper):
    """Adds the inputs of a cell to its outputs. TF1: `tf.nn.rnn_cell.ResidualWrapper`.

    Args:
      cell: a cell whose outputs have the shape of its inputs.
      residual_fn: called `(inputs, outputs)` instead of adding them.

    Raises:
      BadArgumentError: for what is no cell or no function; at a step whose outputs have another shape than its inputs.

    Example:
      >>> from jscope.layers import BasicRNNCell, ResidualWrapper
      >>> cell = ResidualWrapper(BasicRNNCell(2))
      >>> net = js.transform(lambda x: cell(x, cell.zero_state(1, jnp.float32))[0])
      >>> x = jnp.ones((1, 2))
      >>> params = {"basic_rnn_cell": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)}}
      >>> net.apply(params, x).tolist()
      [[1.0, 1.0]]
    """

    def __init__(self, cell: RNNCell, residual_fn: Callable[[Any, Any], Any] | None = None) -> None:
        super().__init__(cell)
        if residual_fn is not None and not callable(residual_fn):
            raise bad_argument(
                f"residual_fn={residual_fn!r:.80} is no function.",
                asked="ResidualWrapper",
                fix="give a function of (inputs, outputs), or leave it out",
            )
        self._residual_fn = residual_fn

    def call(self, inputs: Any, state: State) -> tuple[Any, State]:
        """A step of the cell, with its inputs added."""
        outputs, new = self._cell(inputs, state)
        if self._residual_fn is not None:
            return self._residual_fn(inputs, outputs), new
        inputs = as_array(inputs, "ResidualWrapper")
        if inputs.shape != outputs.shape:
            raise bad_argument(
                f"The cell takes inputs of shape {inputs.shape} and gives outputs of shape {outputs.shape}: they can't "
                "be added.",
                asked="ResidualWrapper",
                fix="give the cell the size of its inputs, or a residual_fn= that makes one of both",
            )
        return inputs + outputs, new
