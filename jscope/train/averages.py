"""Moving averages of variables: `tf.train.ExponentialMovingAverage` and `assign_moving_average`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js

from .._support import user_line
from .faults import bad_argument, bad_type

# What stands for a variable: an array of `get_variable`, what the listings hold, or its full name.
Variable = jax.Array | js.VariableSpec | str


def assign_moving_average(
    variable: Variable, value: Any, decay: Any, zero_debias: bool = True, name: str | None = None
) -> jax.Array:
    """Moves a variable towards a value: it becomes `decay * variable + (1 - decay) * value`.

    TF1: `moving_averages.assign_moving_average` of `tensorflow.python.training`. It acts at once, as `js.assign` does,
    so run the program by `net.update`.

    Args:
      variable: an array of `get_variable`, a `VariableSpec`, or a full name.
      value: a number or an array of the variable's shape.
      decay: how much of the variable is kept: a number, or a scalar array.
      zero_debias: whether the variable started at zero, and the bias is to be taken out that this gives. The average
        without the bias is then what the variable holds, and two more variables are made in the scope in force:
        `VARIABLE/biased` and `VARIABLE/local_step`.
      name: of the op scope, default `AssignMovingAvg`.

    Returns:
      The new value; it has no gradient, as in TensorFlow.

    Raises:
      AssignError: in `net.apply`.
      BadTypeError: for a variable that is not floating, and a value or decay that is none.
      ShapeMismatchError: for a value of another shape that can't be broadcast to the variable's.
      JscopeError: as `js.assign`.

    Example:
      >>> from jscope.train import assign_moving_average
      >>> def program(loss):
      ...     mean = js.get_variable("mean", [], initializer=js.zeros_initializer(), trainable=False)
      ...     return assign_moving_average(mean, loss, 0.9)
      >>> net = js.transform(program)
      >>> params = net.init(jax.random.key(0), 2.0)
      >>> print(*params.names)
      mean mean/biased mean/local_step
      >>> mean, params = net.update(params, 2.0)
      >>> float(mean.round(4))
      2.0
    """
    old = js.value(variable)
    if not jnp.issubdtype(old.dtype, jnp.inexact):
        raise _not_floating(old, "assign_moving_average", "make it a variable of floating numbers")
    _check_number("value", value, "assign_moving_average")
    _check_number("decay", decay, "assign_moving_average")
    _check_shape(old, jnp.shape(value))
    with js.name_scope(name, "AssignMovingAvg"):
        share = jnp.asarray(1.0 - decay, old.dtype)
        if zero_debias:
            biased, local_step = _debias_variables(old)
            total = js.value(biased)
            total = js.assign(biased, _constant(total - (total - value) * share))
            steps = js.assign(local_step, _constant(js.value(local_step) + 1))
            new = total / (1 - jnp.power(1 - share, steps))
        else:
            new = old - (old - value) * share
        return js.assign(variable, _constant(new))


def _check_number(argument: str, given: Any, asked: str) -> None:
    is_array = isinstance(given, jax.Array | np.ndarray | np.generic) or hasattr(given, "__jax_array__")
    if is_array:
        dtype = jnp.result_type(given)
        is_number = dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.number)
    else:
        is_number = isinstance(given, int | float | complex)
    if not is_number:
        what = f"The {argument} of a moving average is a number or an array of numbers, not {given!r:.80}."
        raise bad_type(what, asked=asked, fix="give numbers; a name by name=")


def _check_shape(old: jax.Array, shape: tuple[int, ...]) -> None:
    try:
        is_wider = shape not in ((), old.shape) and jnp.broadcast_shapes(shape, old.shape) != old.shape
    except ValueError:
        is_wider = True
    if is_wider:
        raise js.ShapeMismatchError(
            f"'{js.name_of(old)}' of shape {old.shape} is moved towards a value of shape {shape}.",
            kind="shape_mismatch",
            asked="assign_moving_average",
            where=user_line(),
            fix="give a value of the variable's shape",
        )


def _not_floating(value: jax.Array, asked: str, fix: str) -> Exception:
    what = f"The variable '{js.name_of(value)}' has dtype {value.dtype}; averages are of floating numbers."
    return bad_type(what, asked=asked, fix=fix)


def _constant(value: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(value)


def _debias_variables(variable: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two variables under the name of `variable` in the scope in force; others than before unless that reuses."""
    with js.variable_scope(js.name_of(variable)) as scope:
        taken = set() if scope.reuse else {v.name for v in scope.global_variables()}

        def make(name: str, shape: tuple[int, ...]) -> jax.Array:
            number, unique = 0, name
            while f"{scope.name}/{unique}" in taken:
                number += 1
                unique = f"{name}_{number}"
            zeros = js.zeros_initializer()
            return js.get_variable(unique, shape, variable.dtype, initializer=zeros, trainable=False)

        return make("biased", variable.shape), make("local_step", ())


class ExponentialMovingAverage:
    """Keeps moving averages of variables, as variables beside them. TF1: `tf.train.ExponentialMovingAverage`.

    The average of `a/w` is `a/w/ExponentialMovingAverage`, in front of it the scope in which `apply` is called. It is
    not trainable, and starts at the variable's value. The object keeps nothing between programs: it may be made
    anywhere, and be applied in several of them.

    Args:
      decay: how much of an average is kept in a step: a number, or a scalar array.
      num_updates: the number of steps so far, a number or scalar array: in the first steps the decay is then
        `(1 + num_updates) / (10 + num_updates)`, while that is less.
      zero_debias: no effect: it is for the averages of tensors, which are not kept here.
      name: the last part of the averages' names.

    Example:
      >>> from jscope.train import ExponentialMovingAverage
      >>> ema = ExponentialMovingAverage(0.5)
      >>> def program():
      ...     w = js.get_variable("w", [2])
      ...     ema.apply([w])
      ...     return ema.average(w)
      >>> net = js.transform(program)
      >>> params = net.init(jax.random.key(0)).replace({"w": jnp.ones(2), "w/ExponentialMovingAverage": jnp.zeros(2)})
      >>> print(net.update(params)[0])
      [0.5 0.5]
      >>> {name: v.name for name, v in ema.variables_to_restore(net.specs()).items()}
      {'w/ExponentialMovingAverage': 'w'}
    """

    def __init__(
        self,
        decay: Any,
        num_updates: Any = None,
        zero_debias: bool = False,
        name: str = "ExponentialMovingAverage",
    ) -> None:
        asked = "ExponentialMovingAverage"
        _check_number("decay", decay, asked)
        if num_updates is not None:
            _check_number("number of updates", num_updates, asked)
        if not isinstance(name, str) or not name or name != name.strip("/"):
            what = f"The name of averages is the last part of theirs, without / at its ends, not {name!r:.80}."
            raise bad_argument(what, asked=asked, fix="write such as name='Average', or leave it out")
        self._decay = decay
        self._num_updates = num_updates
        self.name = name

    def apply(self, var_list: Iterable[Variable] | None = None) -> list[jax.Array]:
        """Makes the averages at the first call in a program, and moves them towards the variables' values at each.

        It acts at once: call it behind what assigns the variables, and run the program by `net.update`.

        Args:
          var_list: variables of floating dtype: arrays of `get_variable`, `VariableSpec`s or full names. Default all
            trainable ones. An average that is made starts at the array that is given, so at the variable's own initial
            value if it is the one that `get_variable` gave; of the others at the current value.

        Returns:
          The new averages, in the order of the variables.

        Raises:
          AssignError: in `net.apply`.
          BadArgumentError: for an array that is no variable's.
          BadTypeError: for a variable that is not floating.
        """
        given = list(js.trainable_variables() if var_list is None else var_list)
        variables = [self._value(variable) for variable in given]
        averages = [
            self._found(_name(variable)) or self._make(variable, variable if isinstance(variable, jax.Array) else value)
            for variable, value in zip(given, variables, strict=True)
        ]
        with js.name_scope(self.name):
            decay = jnp.float32(self._decay)
            if self._num_updates is not None:
                steps = jnp.asarray(self._num_updates, jnp.float32)
                decay = jnp.minimum(decay, (1 + steps) / (10 + steps))
            return [
                assign_moving_average(average, value, decay, zero_debias=False)
                for average, value in zip(averages, variables, strict=True)
            ]

    def _value(self, variable: Variable) -> jax.Array:
        try:
            value = js.value(variable)
        except js.BadArgumentError:
            raise bad_argument(
                "A moving average is asked for of an array that is no variable's, and arrays have no names here.",
                asked="ExponentialMovingAverage.apply",
                fix="keep it in a variable of your own: assign_moving_average(js.get_variable(...), array, decay)",
            ) from None
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise _not_floating(value, "ExponentialMovingAverage.apply", "leave it out of var_list")
        return value

    def _make(self, variable: Variable, initial_value: jax.Array) -> str:
        name = _name(variable)
        with js.variable_scope(None, f"{name}/{self.name}"):
            average = js.get_variable("", initializer=initial_value, trainable=False)
        made = js.name_of(average)
        js.add_to_collection(js.GraphKeys.MOVING_AVERAGE_VARIABLES, variable)
        js.add_to_collection(self, (name, made))  # type: ignore[arg-type]  # any hashable is a key, as in TF1
        return made

    def _found(self, name: str) -> str | None:
        """The name of the average of a variable, None if there is none in the running program."""
        return dict(js.get_collection(self)).get(name)  # type: ignore[arg-type]

    def average(self, var: Variable) -> jax.Array | None:
        """The average of a variable, its current value in the running program; None if there is none.

        Args:
          var: as in `apply`.
        """
        name = self._found(_name(var))
        return None if name is None else js.value(name)

    def average_name(self, var: Variable) -> str:
        """The name of a variable's average: the one that it has, else the one that it would have without a scope.

        Args:
          var: as in `apply`; outside of programs a `VariableSpec` or a full name.
        """
        name = _name(var)
        try:
            found = self._found(name)
        except js.OutsideProgramError:
            found = None
        return found or f"{name}/{self.name}"

    def _averages_in(self, specs: js.Specs, variables: set[str]) -> dict[str, str]:
        """The averages that a program declares, in whatever scopes, by these variables' names, where that is clear."""
        # a/b/w/Average may be that of b/w in a scope a, or of w in a/b: the scope that has averages of more is meant.
        found: dict[str, dict[str, str]] = {}
        for average in specs:
            parts = average.removesuffix(f"/{self.name}").split("/") if average.endswith(f"/{self.name}") else []
            for start in range(len(parts)):
                variable = "/".join(parts[start:])
                if variable in variables:
                    found.setdefault(variable, {})["/".join(parts[:start])] = average
        counts = Counter(scope for averages in found.values() for scope in averages)
        chosen = {}
        for variable, averages in found.items():
            most = max(counts[scope] for scope in averages)
            best = [average for scope, average in averages.items() if counts[scope] == most]
            if len(best) == 1:
                chosen[variable] = best[0]
        times = Counter(chosen.values())
        return {variable: average for variable, average in chosen.items() if times[average] == 1}

    def variables_to_restore(self, moving_avg_variables: Any = None) -> dict[str, js.VariableSpec]:
        """The variables by the names that an evaluation reads in a checkpoint: an average's where there is one.

        Args:
          moving_avg_variables: the variables that have averages, as in `apply`; default the trainable ones, and those
            of the collection `MOVING_AVERAGE_VARIABLES`. Outside of programs: `net.specs(...)`, of the program that
            calls `apply`, where that is done in a scope.

        Returns:
          For each variable that is not local: its name in the checkpoint -> the `VariableSpec`. So the tree is
          `js.Params({v.name: checkpoint[name] for name, v in found.items()})`.

        Raises:
          OutsideProgramError: outside of programs for anything but `net.specs(...)`.
        """
        averages: dict[str, str] = {}
        if isinstance(moving_avg_variables, js.Specs):
            listed = [v for v in moving_avg_variables.values() if js.GraphKeys.LOCAL_VARIABLES not in v.collections]
            averaged = [v for v in listed if v.trainable or js.GraphKeys.MOVING_AVERAGE_VARIABLES in v.collections]
            averages = self._averages_in(moving_avg_variables, {v.name for v in averaged})
        else:
            try:
                listed = js.global_variables()
            except js.OutsideProgramError:
                raise js.OutsideProgramError(
                    "Which variables have averages is asked for outside any program.",
                    kind="outside",
                    asked="ExponentialMovingAverage.variables_to_restore",
                    where=user_line(),
                    fix="give what the program declares: variables_to_restore(net.specs(...))",
                ) from None
            averaged = moving_avg_variables
            if averaged is None:
                averaged = js.trainable_variables() + js.get_collection(js.GraphKeys.MOVING_AVERAGE_VARIABLES)
        names = {_name(v) for v in averaged}
        found = {averages.get(v.name) or self.average_name(v): v for v in listed if v.name in names}
        return found | {v.name: v for v in listed if v.name not in names and v.name not in found}


def _name(variable: Variable) -> str:
    if isinstance(variable, js.VariableSpec):
        return variable.name
    return variable if isinstance(variable, str) else js.name_of(variable)
