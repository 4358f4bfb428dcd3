"""The recurrent cells of `tf.nn.rnn_cell`.

A cell makes its variables at its first call in a program, under a default name, and shares them at every later one:
that is what `js.make_template` does, so a cell keeps nothing between programs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jscope as js

from .by_name import Activation, activation_of
from .faults import as_flag, as_input, as_size, bad_argument, check_bounds, check_cells, refuse
from .layer import snake_case
from .products import affine, multiplied, scaled
from .scopes import add_weight
from .shardings import arithmetic, by_batch
from .states import State, check_state, shown, zeros


class LSTMStateTuple(NamedTuple):
    """The state of an LSTM cell. TF1: `tf.nn.rnn_cell.LSTMStateTuple`.

    Args:
      c: what the cell remembers, shape [batch, num_units].
      h: its last output, shape [batch, num_units], or [batch, num_proj] where it is projected.

    Example:
      >>> from jscope.layers import LSTMStateTuple
      >>> LSTMStateTuple(1, 2).h
      2
    """

    c: Any
    h: Any


class RNNCell:
    """The base of all cells. TF1: `tf.nn.rnn_cell.RNNCell`.

    A cell of your own has `call(inputs, state) -> (output, new_state)`, which asks for its variables by
    `js.get_variable` or `add_weight`, and the properties `state_size` and `output_size`.

    Args:
      trainable: whether the variables that `add_weight` makes are trainable; default as the scope says.
      name: the default name of its scope, made unique; default the name of the class in lower case with underscores.
      dtype: no effect: the variables have the inputs' dtype.
      _reuse: as in `js.variable_scope`; the scope then has the default name itself.

    Example:
      >>> from jscope.layers import RNNCell
      >>> class Counter(RNNCell):
      ...     state_size = output_size = 1
      ...     def call(self, inputs, state):
      ...         return state, state + js.get_variable("step", [1])
      >>> net = js.transform(lambda x: Counter()(x, jnp.zeros((1, 1))))
      >>> list(net.specs(jnp.ones((1, 1))))
      ['counter/step']
    """

    def __init__(
        self, trainable: bool | None = None, name: str | None = None, dtype: Any = None, _reuse: Any = None
    ) -> None:
        base = name or snake_case(type(self).__name__)
        self.trainable = trainable
        self._reuse = _reuse
        self._template = js.make_template(base, self._call_in_scope, unique_name_=base if _reuse else None)

    def __call__(self, inputs: Any, state: State, scope: None = None) -> tuple[Any, State]:
        """One step.

        Args:
          inputs: shape [batch, n], floating.
          state: as `zero_state` gives it.
          scope: not supported; None only.

        Returns:
          (output of shape [batch, output_size], the new state).
        """
        refuse(type(self).__name__, "give the cell a name=", scope=scope)
        return self._template(inputs, state)

    def _call_in_scope(self, inputs: Any, state: State) -> tuple[Any, State]:
        if not self._reuse:
            return self.call(inputs, state)
        with js.variable_scope(js.get_variable_scope(), reuse=self._reuse, auxiliary_name_scope=False):
            return self.call(inputs, state)

    def call(self, inputs: Any, state: State) -> tuple[Any, State]:
        """What a step computes, in the scope of the cell."""
        raise NotImplementedError

    def add_weight(self, name: str, shape: Any, dtype: Any = None, initializer: Any = None) -> jax.Array:
        """A variable of the cell, in its scope; as `js.get_variable`."""
        return add_weight(name, shape, dtype, initializer=initializer, trainable=self.trainable)

    @property
    def variables(self) -> list[js.VariableSpec]:
        """The variables in its scope, in the running program; none before its first call there."""
        return self._template.variables

    @property
    def trainable_variables(self) -> list[js.VariableSpec]:
        """The trainable ones of them."""
        return self._template.trainable_variables

    @property
    def weights(self) -> list[js.VariableSpec]:
        """The same as `variables`."""
        return self.variables

    @property
    def trainable_weights(self) -> list[js.VariableSpec]:
        """The same as `trainable_variables`."""
        return self.trainable_variables

    @property
    def state_size(self) -> Any:
        """The size of the state: an integer, a shape, or a tuple of those."""
        raise NotImplementedError

    @property
    def output_size(self) -> Any:
        """The size of the output's last dimension."""
        raise NotImplementedError

    def zero_state(self, batch_size: int, dtype: Any) -> State:
        """The state of zeros, of shape [batch_size, size] in each part."""
        return zeros(self.state_size, batch_size, dtype)


def checked(inputs: Any, state: State, cell: RNNCell) -> jax.Array:
    """The inputs of a step as an array, after checks of them and of the state."""
    asked = type(cell).__name__
    x = as_input(inputs, asked, (2,))
    check_state(state, cell.state_size, x.shape[0], asked)
    return x


def joined(cell: RNNCell, x: jax.Array, state: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`[x, state] @ kernel + bias`; `x` says how both are sharded: over the batch alone."""
    with arithmetic(type(cell).__name__, x, state=state, kernel=kernel, bias=bias):
        return affine(jnp.concatenate([by_batch(x, x), by_batch(state, x)], 1), kernel, bias)


class _OneState(RNNCell):
    """A cell whose output is its state."""

    _num_units: int

    @property
    def state_size(self) -> int:
        """`num_units`."""
        return self._num_units

    @property
    def output_size(self) -> int:
        """`num_units`."""
        return self._num_units


class BasicRNNCell(_OneState):
    """The output, which is the state: `activation([inputs, state] @ kernel + bias)`.

    TF1: `tf.nn.rnn_cell.BasicRNNCell`. Default scope `basic_rnn_cell`; variables `kernel` of shape
    [n + num_units, num_units] and `bias`.

    Args:
      num_units: the size of state and output.
      activation: a function, or its name in Keras; default tanh.
      reuse: as in `RNNCell`.
      name: as in `RNNCell`.
      dtype: no effect.

    Example:
      >>> from jscope.layers import BasicRNNCell
      >>> net = js.transform(lambda x: BasicRNNCell(3)(x, jnp.zeros((1, 3)))[0])
      >>> net.init(jax.random.key(0), jnp.ones((1, 2)))
      Params({basic_rnn_cell: {bias: f32[3], kernel: f32[5,3]}})
    """

    def __init__(
        self,
        num_units: int,
        activation: Activation | str | None = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool | None = None,
    ) -> None:
        super().__init__(trainable, name, dtype, reuse)
        self._num_units = as_size(num_units, "num_units", type(self).__name__)
        self._activation = activation_of(activation, type(self).__name__) or jnp.tanh

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """The output, twice."""
        x = checked(inputs, state, self)
        kernel = self.add_weight("kernel", [x.shape[-1] + self._num_units, self._num_units], x.dtype)
        bias = self.add_weight("bias", [self._num_units], x.dtype, js.zeros_initializer())
        output = self._activation(joined(self, x, state, kernel, bias))
        return output, output


class GRUCell(_OneState):
    """A gated recurrent unit. TF1: `tf.nn.rnn_cell.GRUCell`.

    Default scope `gru_cell`; variables `gates/kernel` of shape [n + num_units, 2 * num_units], `gates/bias`,
    `candidate/kernel` of shape [n + num_units, num_units] and `candidate/bias`.

    Args:
      num_units: the size of state and output.
      activation: of the candidate, a function or its name in Keras; default tanh.
      reuse: as in `RNNCell`.
      kernel_initializer: default that of the scope (glorot uniform).
      bias_initializer: default ones for the gates and zeros for the candidate.
      name: as in `RNNCell`.
      dtype: no effect.

    Example:
      >>> from jscope.layers import GRUCell
      >>> net = js.transform(lambda x: GRUCell(3)(x, jnp.zeros((1, 3)))[0])
      >>> print(*net.specs(jnp.ones((1, 2))))
      gru_cell/gates/kernel gru_cell/gates/bias gru_cell/candidate/kernel gru_cell/candidate/bias
    """

    def __init__(
        self,
        num_units: int,
        activation: Activation | str | None = None,
        reuse: Any = None,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool | None = None,
    ) -> None:
        super().__init__(trainable, name, dtype, reuse)
        self._num_units = as_size(num_units, "num_units", type(self).__name__)
        self._activation = activation_of(activation, type(self).__name__) or jnp.tanh
        self._kernel_initializer = kernel_initializer
        self._bias_initializer = bias_initializer

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """The new state, twice."""
        x = checked(inputs, state, self)
        n = self._num_units

        def weights(part: str, size: int, default: Any) -> tuple[jax.Array, jax.Array]:
            initializer = default if self._bias_initializer is None else self._bias_initializer
            return (
                self.add_weight(f"{part}/kernel", [x.shape[-1] + n, size], x.dtype, self._kernel_initializer),
                self.add_weight(f"{part}/bias", [size], x.dtype, initializer),
            )

        kernel, bias = weights("gates", 2 * n, js.ones_initializer())
        reset, update = jnp.split(jax.nn.sigmoid(joined(self, x, state, kernel, bias)), 2, 1)
        kernel, bias = weights("candidate", n, js.zeros_initializer())
        candidate = self._activation(joined(self, x, reset * state, kernel, bias))
        new = update * state + (1 - update) * candidate
        return new, new


class LSTMCell(RNNCell):
    """A long short-term memory, with peepholes, clipping and projection if asked for. TF1: `tf.nn.rnn_cell.LSTMCell`.

    Default scope `lstm_cell`; variables `kernel` of shape [n + output, 4 * num_units] and `bias` of shape
    [4 * num_units] for input gate, new input, forget gate and output gate in this order; with peepholes `w_f_diag`,
    `w_i_diag` and `w_o_diag` of shape [num_units]; with a projection `projection/kernel` of shape
    [num_units, num_proj].

    Args:
      num_units: the size of `c`, and of `h` unless that is projected.
      use_peepholes: whether the gates see `c`.
      cell_clip: `c` is clipped to [-cell_clip, cell_clip]; a positive number.
      initializer: of the kernels and peepholes; default that of the scope (glorot uniform).
      num_proj: the size that `h` is projected to; None for none.
      proj_clip: the projection is clipped to [-proj_clip, proj_clip]; a positive number.
      num_unit_shards, num_proj_shards: not supported; None only.
      forget_bias: added to the forget gate. Checkpoints of cuDNN's LSTM need 0.
      state_is_tuple: with False, c and h are one array, one behind the other.
      activation: of the new input and of `c`, a function or its name in Keras; default tanh.
      reuse: as in `RNNCell`.
      name: as in `RNNCell`.
      dtype: no effect.

    Raises:
      BadArgumentError: for shards, and for what is no positive number to clip to.

    Example:
      >>> from jscope.layers import LSTMCell
      >>> cell = LSTMCell(3)
      >>> net = js.transform(lambda x: cell(x, cell.zero_state(1, jnp.float32))[0])
      >>> net.init(jax.random.key(0), jnp.ones((1, 2)))
      Params({lstm_cell: {bias: f32[12], kernel: f32[5,12]}})
    """

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        initializer: Any = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        num_unit_shards: None = None,
        num_proj_shards: None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Activation | str | None = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool | None = None,
    ) -> None:
        refuse(
            type(self).__name__,
            "give a partitioner to the scope",
            num_unit_shards=num_unit_shards,
            num_proj_shards=num_proj_shards,
        )
        super().__init__(trainable, name, dtype, reuse)
        check_bounds(type(self).__name__, cell_clip=cell_clip, proj_clip=proj_clip)
        self._num_units = as_size(num_units, "num_units", type(self).__name__)
        self._use_peepholes = as_flag(use_peepholes, "use_peepholes", type(self).__name__)
        self._cell_clip = cell_clip
        self._initializer = initializer
        self._num_proj = None if num_proj is None else as_size(num_proj, "num_proj", type(self).__name__)
        self._proj_clip = proj_clip
        self._forget_bias = forget_bias
        self._state_is_tuple = as_flag(state_is_tuple, "state_is_tuple", type(self).__name__)
        self._activation = activation_of(activation, type(self).__name__) or jnp.tanh

    @property
    def state_size(self) -> Any:
        """The sizes of c and h; their sum where the state is one array."""
        sizes = LSTMStateTuple(self._num_units, self.output_size)
        return sizes if self._state_is_tuple else sum(sizes)

    @property
    def output_size(self) -> int:
        """`num_proj`, else `num_units`."""
        return self._num_proj or self._num_units

    def call(self, inputs: Any, state: Any) -> tuple[Any, Any]:
        """`h`, and the new state."""
        x = checked(inputs, state, self)
        n = self._num_units
        c, h = state if self._state_is_tuple else (state[:, :n], state[:, n:])
        kernel = self.add_weight("kernel", [x.shape[-1] + self.output_size, 4 * n], x.dtype, self._initializer)
        bias = self.add_weight("bias", [4 * n], x.dtype, js.zeros_initializer())
        i, j, f, o = jnp.split(joined(self, x, h, kernel, bias), 4, 1)
        f = f + self._forget_bias
        peepholes = {}
        if self._use_peepholes:
            names = ("w_f_diag", "w_i_diag", "w_o_diag")
            peepholes = {name: self.add_weight(name, [n], x.dtype, self._initializer) for name in names}
            f, i = f + scaled(c, peepholes["w_f_diag"]), i + scaled(c, peepholes["w_i_diag"])
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * self._activation(j)
        if self._cell_clip is not None:
            c = jnp.clip(c, -self._cell_clip, self._cell_clip)
        if self._use_peepholes:
            o = o + scaled(c, peepholes["w_o_diag"])
        h = jax.nn.sigmoid(o) * self._activation(c)
        if self._num_proj is not None:
            h = multiplied(h, self.add_weight("projection/kernel", [n, self._num_proj], x.dtype, self._initializer))
            if self._proj_clip is not None:
                h = jnp.clip(h, -self._proj_clip, self._proj_clip)
        return h, LSTMStateTuple(c, h) if self._state_is_tuple else jnp.concatenate([c, h], 1)


class BasicLSTMCell(LSTMCell):
    """A long short-term memory. TF1: `tf.nn.rnn_cell.BasicLSTMCell`.

    Default scope `basic_lstm_cell`; variables `kernel` and `bias` as in `LSTMCell`.

    Args:
      num_units, forget_bias, state_is_tuple, activation, reuse, name, dtype: as in `LSTMCell`.

    Example:
      >>> from jscope.layers import BasicLSTMCell
      >>> cell = BasicLSTMCell(3)
      >>> net = js.transform(lambda x: cell(x, cell.zero_state(1, jnp.float32))[0])
      >>> net.init(jax.random.key(0), jnp.ones((1, 2)))
      Params({basic_lstm_cell: {bias: f32[12], kernel: f32[5,12]}})
    """

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Activation | str | None = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool | None = None,
    ) -> None:
        super().__init__(
            num_units,
            forget_bias=forget_bias,
            state_is_tuple=state_is_tuple,
            activation=activation,
            reuse=reuse,
            name=name,
            dtype=dtype,
            trainable=trainable,
        )


class MultiRNNCell(RNNCell):
    """Cells one on top of the other. TF1: `tf.nn.rnn_cell.MultiRNNCell`.

    Default scope `multi_rnn_cell`, in it one for each cell: `cell_0`, `cell_1`, ...

    Args:
      cells: a list of cells. The same cell twice shares its variables.
      state_is_tuple: True only: the state is a tuple of the states of the cells.

    Raises:
      BadArgumentError: for no cells, and for `state_is_tuple=False`.

    Example:
      >>> from jscope.layers import GRUCell, MultiRNNCell
      >>> cell = MultiRNNCell([GRUCell(3), GRUCell(2)])
      >>> net = js.transform(lambda x: cell(x, cell.zero_state(1, jnp.float32))[0])
      >>> [name for name in net.specs(jnp.ones((1, 2))) if "gates/k" in name]
      ['multi_rnn_cell/cell_0/gru_cell/gates/kernel', 'multi_rnn_cell/cell_1/gru_cell/gates/kernel']
    """

    def __init__(self, cells: list[RNNCell], state_is_tuple: bool = True) -> None:
        is_tuple = as_flag(state_is_tuple, "state_is_tuple", "MultiRNNCell")
        refuse("MultiRNNCell", "use the tuple of the states", state_is_tuple=None if is_tuple else False)
        if not isinstance(cells, list | tuple) or not cells:
            raise bad_argument(
                f"cells={cells!r} is no list of cells.", asked="MultiRNNCell", fix="give a list of cells"
            )
        check_cells("MultiRNNCell", **{f"cells[{i}]": cell for i, cell in enumerate(cells)})
        super().__init__()
        self._cells = tuple(cells)

    @property
    def state_size(self) -> tuple[Any, ...]:
        """The sizes of the states of the cells."""
        return tuple(cell.state_size for cell in self._cells)

    @property
    def output_size(self) -> Any:
        """That of the last cell."""
        return self._cells[-1].output_size

    def call(self, inputs: Any, state: State) -> tuple[Any, State]:
        """The output of the last cell, and the new states of all."""
        if type(state) is not tuple or len(state) != len(self._cells):
            raise bad_argument(
                f"MultiRNNCell takes a tuple of {len(self._cells)} states, not {shown(state)}.",
                asked="MultiRNNCell",
                fix="give one state for each cell, tuple(states), or start from cell.zero_state(batch_size, dtype)",
            )
        states = []
        for number, (cell, old) in enumerate(zip(self._cells, state, strict=True)):
            with js.variable_scope(f"cell_{number}"):
                inputs, new = cell(inputs, old)
            states.append(new)
        return inputs, tuple(states)
