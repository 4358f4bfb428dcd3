"""The variables of one run: TF1's `get_variable`, step by step, over explicit state. Floor 2.

A `Run` is made for one run and thrown away. It is told which trace a call comes from by a level: 0 is the trace that
the program was entered in, any other number one inner trace (of `jit`, `scan`, ...).
"""

from __future__ import annotations

import functools
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import parameters_for
from .._callsite import FILES, USER, Place, located, user_line, user_place
from .._errors import (
    AssignError,
    BadNameError,
    BadTypeError,
    InitializerError,
    JscopeError,
    UnknownNameError,
    VariableExistsError,
    VariableNotFoundError,
    add_place,
)
from .._initial_values import describe
from .._names import near
from .._show import short
from .._values import FLOAT32, PartialShape, as_dtype, as_flag, as_shape
from .._variable_spec import VariableSpec
from .arrays import Arrays
from .bodies import Body, Mark
from .call_keys import CallKeys
from .checks import (
    GLOROT,
    Asked,
    assignable,
    check_constraint,
    check_getter,
    check_initial_dtype,
    check_not_differentiated,
    check_sharding,
    check_shared,
    check_shared_partition,
    checked_collections,
    checked_initializer,
    checked_name,
    default_initializer,
    odd_key,
    op_name,
    own_shape,
    own_value,
    partition_of,
)
from .record import NOTHING, Collected, Variable
from .refs import Refs, Rehearsal
from .scopes import AUTO_REUSE, Reuse, Scopes
from .values_from import Source

_SHARE = "to share it, enter the scope with reuse=True or js.AUTO_REUSE; else use another name or scope"


def _sizes(shape: Any) -> tuple[int, ...] | None:
    """A shape in its usual form, a list or tuple of ints, as a tuple; None for any other, and for scalars."""
    if type(shape) is list or type(shape) is tuple:
        for size in shape:
            if type(size) is not int or size < 0:
                return None
        return tuple(shape)
    return None


class Run:
    """Everything that TF1 keeps per graph about variables, for one run of a program.

    Args:
      source: where values come from.
      scopes: the scopes of this run.
      rng: root of `next_key`, or None.
      can_assign: whether `assign` is allowed.
      refs: what carries the variables that are assigned inside transforms; default a rehearsal of them.
      rules: of axes, as `transform` was given them.

    Attributes:
      source, scopes, refs, rules: as given.
      mark: stands for this run.
      level, body: of the call in progress; whoever finds the run sets them.
      keys: the keys of `next_key`.
      by_key: store key -> variable, of those that can be shared.
      by_name: op name -> variable, of all, in order of creation.
      arrays: which variable an array is the value of.
      computed: name -> initial value computed by the program.
      rule_levels: levels of traces in which a custom derivative rule calls its function.
      collected: what the program added to collections.
      templates, lifted, arg_scopes: what `make_template`, `lift` and `arg_scope` keep for one run.
    """

    __slots__ = (
        "_can_assign",
        "arg_scopes",
        "arrays",
        "body",
        "by_key",
        "by_name",
        "collected",
        "computed",
        "keys",
        "level",
        "lifted",
        "mark",
        "refs",
        "rule_levels",
        "rules",
        "scopes",
        "source",
        "templates",
    )

    def __init__(
        self,
        source: Source,
        scopes: Scopes | None = None,
        *,
        rng: jax.Array | None = None,
        can_assign: bool = True,
        refs: Refs | Rehearsal | None = None,
        rules: Any = None,
    ) -> None:
        self.source = source
        self.scopes = scopes or Scopes()
        self.refs = refs or Rehearsal()
        self.rules = rules
        self.mark = object()
        self.level = 0
        self.body: Body | None = None
        self.keys = CallKeys(rng)
        self.rule_levels: set[int] = set()
        self.templates: dict[Any, Any] = {}
        self.lifted: dict[Any, Any] = {}
        self.arg_scopes: tuple[Any, ...] = ()
        self._can_assign = can_assign
        self.release()

    def release(self) -> None:
        """Lets go of all values, so that no tracer outlives the run."""
        self.by_key: dict[Any, Variable] = {}
        self.by_name: dict[str, Variable] = {}
        self.collected: list[Collected] = []
        self.computed: dict[str, Any] = {}
        self.arrays = Arrays(self.by_name)

    # get_variable -----------------------------------------------------------------------------------------------------

    def get_variable(
        self,
        caller: FrameType,
        name: Any,
        shape: Any = None,
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        trainable: bool | None = None,
        collections: Any = None,
        partitioner: Any = None,
        constraint: Any = None,
        getter: Any = None,
        resolved: tuple[Reuse | None, str, Place | None] | None = None,
    ) -> Any:
        """TF1's `get_variable` in the current scope.

        Args:
          caller: the frame that called.
          name, shape, dtype, initializer, regularizer, trainable, collections, partitioner, constraint: as in TF1.
          getter: the custom getter to ask instead, if there is one; it finds its way back by itself.
          resolved: `reuse`, the op scope that a custom getter has opened, and where the user asked the getter, where
            `name` is a full key and the rest is as it shall be; None where the scope says what is not given.
        """
        if resolved is not None:
            key = name
            reuse, op_scope, asked_at = resolved
        else:
            state = self.scopes.state
            if dtype is not None and initializer is not None and not callable(initializer):
                check_initial_dtype(initializer, dtype, name, functools.partial(self._asked, name, shape, dtype))
            try:
                key = state.prefix + name
            except TypeError:
                key = odd_key(name, state.name)
            reuse, op_scope, asked_at = state.reuse, "", None
            if initializer is None:
                initializer = state.initializer
            if regularizer is None:
                regularizer = state.regularizer
            if dtype is None:
                dtype = state.dtype
            if partitioner is None:
                partitioner = state.partitioner
            if constraint is None:
                constraint = state.constraint
            if trainable is None:
                trainable = state.trainable
            if getter is not None:
                more = regularizer, reuse, trainable, collections, partitioner, constraint
                return self._ask(getter, key, shape, dtype, initializer, *more)
        if shape is not None and initializer is not None and not callable(initializer):
            raise InitializerError(
                "If the initializer is a constant, the shape is its own and can't be given too.",
                **self._asked(key, shape, dtype, "const_shape"),
                fix="there are no initializers by name: give js.zeros_initializer() or another callable"
                if isinstance(initializer, str)
                else "leave shape out, or use constant_initializer(value)",
            )
        try:
            if dtype is not FLOAT32:
                dtype = as_dtype(dtype)
            wanted = None if shape is None else _sizes(shape) or as_shape(shape)
        except JscopeError as error:
            error.complete(self._asked(key, shape, dtype, error.kind))
            raise
        variable, is_again = self.by_key.get(key), False
        if variable is not None and self.body is not None and self.body.made_earlier(variable.mark):
            # An earlier turn of this body made it. For this turn it is not there yet, as it was not for that one.
            if reuse is True:
                variable = None
            else:
                variable.mark, is_again = self.body.mark(), True
                variable.regularizer, variable.constraint = regularizer, constraint  # they may hold what it computes
        if variable is not None:
            if reuse is False and not is_again:
                raise VariableExistsError(
                    f"Variable '{key}' already exists, and reuse is off here.",
                    **self._asked(key, wanted, dtype, "exists"),
                    exists=variable.origin(),
                    fix=_SHARE,
                )
            if (wanted is not None and wanted != variable.shape) or dtype != variable.dtype:
                check_shared(variable, wanted, dtype, functools.partial(self._asked, key, wanted, dtype), is_again)
            if partitioner is not None:
                check_shared_partition(variable, partitioner, functools.partial(self._asked, key, wanted, dtype))
            if self.source.makes_values and (self.body is None or not self.body.repeats()):
                if variable.read_at is None:
                    variable.read_at = []
                variable.read_at.append(asked_at or user_place(caller))
            value = variable.value
            return self.read(variable) if value is NOTHING or self.rule_levels else value
        if reuse is True:
            known = [k for k in self.by_key if isinstance(k, str)]
            raise VariableNotFoundError(
                f"Variable '{key}' does not exist, and reuse=True makes no new ones.",
                **self._asked(key, wanted, dtype, "missing"),
                near=functools.partial(near, str(key), known),
                fix="make it before without reuse, enter the scope with reuse=js.AUTO_REUSE, or correct the name",
            )
        return self._create(
            caller,
            asked_at,
            reuse,
            key,
            wanted,
            dtype,
            initializer,
            regularizer,
            trainable,
            collections,
            partitioner,
            constraint,
            op_scope,
        )

    def _ask(
        self,
        getter: Any,
        key: Any,
        shape: Any,
        dtype: Any,
        initializer: Any,
        regularizer: Any,
        reuse: Reuse,
        trainable: bool | None,
        collections: Any,
        partitioner: Any,
        constraint: Any,
    ) -> Any:
        """What a custom getter gives."""
        check_getter(getter, key, self.scopes.state.name)
        before, self.scopes.op_scope = self.scopes.op_scope, ""  # what a getter makes is named from the op root
        try:
            return getter(
                name=key,
                shape=shape,
                dtype=as_dtype(dtype),
                initializer=initializer,
                regularizer=regularizer,
                reuse=reuse,
                trainable=trainable,
                collections=collections,
                partitioner=partitioner,
                constraint=constraint,
            )
        finally:
            self.scopes.op_scope = before

    def _create(
        self,
        caller: FrameType,
        asked_at: Place | None,
        reuse: Reuse | None,
        key: Any,
        shape: PartialShape | None,
        dtype: Any,
        initializer: Any,
        regularizer: Any,
        trainable: bool | None,
        collections: Any,
        partitioner: Any,
        constraint: Any,
        op_scope: str,
    ) -> Any:
        if initializer is None and dtype is FLOAT32 and shape is not None:
            initializer = GLOROT
        if type(trainable) is not bool:
            trainable = trainable is None or as_flag(trainable, f"trainable= of '{key}'")
        by_shape = shape is not None and None not in shape and callable(initializer)
        is_plain = by_shape and partitioner is None and constraint is None and collections is None
        partition = computed = None
        op_names = self.scopes.op_names
        if is_plain and type(key) is str and key and not isinstance(initializer, type):
            name = self._fresh(op_names.open(op_scope, key))
        else:
            here = self.level, self.body  # what is the user's (partitioners, initializers) may call in other places
            asked = functools.partial(self._asked, key, shape, dtype)
            if initializer is None:
                initializer = default_initializer(key, shape, dtype, asked)
            initializer, by_shape = checked_initializer(initializer, key, shape, asked)
            check_constraint(constraint, key, asked)
            if collections is not None:
                collections = checked_collections(collections, trainable, key, asked)
            if by_shape:
                partition = partition_of(partitioner, key, shape, dtype, asked)
            name = self._fresh(op_name(key, op_names, op_scope))
            if not by_shape:
                initializer, found, dtype, computed = self._initial(key, initializer, asked)
                shape = own_shape(found, shape, key, asked)
                partition = partition_of(partitioner, key, shape, dtype, asked)
            self.level, self.body = here
        code, place = caller.f_code, asked_at
        if place is None:
            place = (code, caller.f_lasti) if FILES.get(code.co_filename) == USER else user_place(caller)
        variable = Variable(
            name, key, shape, dtype, initializer, trainable, collections, regularizer, constraint, partition, place
        )
        if reuse is AUTO_REUSE:
            variable.auto_reuse = True
        return self._declare(variable, computed, shared=True)

    def adopt(self, spec: VariableSpec, key: str, place: Place | None) -> Any:
        """Makes a variable that another program has declared; only the beginning of its name is new, and checked."""
        name = self._fresh(self.scopes.op_names.unique(key))
        more = spec.initializer, spec.trainable, spec.collections, spec.regularizer, spec.constraint, spec.partition
        variable = Variable(name, key, spec.shape, spec.dtype, *more, place)
        variable.auto_reuse = spec.auto_reuse or self.scopes.state.reuse is AUTO_REUSE
        return self._declare(variable, None, shared=True)

    def _declare(self, variable: Variable, computed: Any, *, shared: bool) -> Any:
        """Registers a variable whose name is taken; `computed` is its initial value if the program computed that."""
        source = self.source
        if not source.makes_values and not self.rule_levels:
            value = variable.value = source.make(variable)
        else:
            variable.bound = source.makes_values
            if computed is not None and source.makes_values:
                value = self.computed[variable.name] = jnp.array(computed, variable.dtype, copy=True)
                self._remember(variable, value)
            else:
                value = self._make(variable)
        if variable.shape is None:  # a bare initializer that did not run: the given value says what it is
            variable.shape, variable.dtype = value.shape, value.dtype
        if self.refs.names and self.refs.takes(variable, value):
            value = self.read(variable)
        self.by_name[variable.name] = variable
        if shared:
            self.by_key[variable.key] = variable
        if self.body is not None:
            variable.mark = self.body.mark()
        regularizer = variable.regularizer
        if regularizer is not None and not callable(regularizer):
            variable.regularizer = None  # the variable exists nevertheless, as in TF1
            raise BadTypeError(
                f"The regularizer of '{variable.name}' is not callable: {short(regularizer)}.",
                **self._asked(variable.name, variable.shape, variable.dtype, "bad_regularizer"),
                fix="give a function from the value to a scalar, or js.no_regularizer",
            )
        return value

    # Values -----------------------------------------------------------------------------------------------------------

    def read(self, variable: Variable) -> Any:
        """The current value; in one trace the same object until it is assigned."""
        value = variable.value
        if value is not NOTHING:
            if self.rule_levels:
                self._check_rule(variable, value)
            return value
        reference = None if variable.inner is None else variable.inner.get(self.level)
        value = None if reference is None else reference()
        return self._make(variable) if value is None else value

    def _make(self, variable: Variable) -> Any:
        if variable.carried is not None:
            asked = self._done_to(variable, "value of ") if self.level else None
            value = variable.carried.read(variable, asked)
            self._remember(variable, value)
            return value
        if not variable.bound:  # given, and good in every trace
            value = variable.value = self.source.make(variable)
            if self.rule_levels:
                self._check_rule(variable, value)
            return value
        here = self.level, self.body
        try:
            value = self.source.make(variable)
        except Exception as error:
            add_place(error, f"the initial value of '{variable.name}', asked for at {located(variable.made_at)}")
            raise
        self.level, self.body = here  # an initializer may have called in another place
        if self.rule_levels:
            self._check_rule(variable, value)
        if self.level:
            self._remember(variable, value)
        else:
            variable.value = value
            if variable.name in self.by_name:  # it was made in an inner trace, and has no value yet that lasts
                self.arrays.note(variable)
        return value

    def _check_rule(self, variable: Variable, value: Any) -> None:
        if self.level in self.rule_levels:
            check_not_differentiated(variable, value, functools.partial(self._done_to, variable, "value of "))

    def _remember(self, variable: Variable, value: Any) -> None:
        if variable.carried is not None:
            # Not kept, but read again: JAX may set the ref in a trace that it runs again.
            self.arrays.note_weakly(value, variable)
        elif variable.bound and self.level:
            # It is bound to an inner trace, and may not be kept longer than the trace.
            reference = self.arrays.note_weakly(value, variable)
            variable.inner = {**(variable.inner or {}), self.level: reference}
        else:
            variable.value = value

    def assign(self, reference: Any, value: Any) -> Any:
        """Sets a variable for the rest of this run; returns the new value as an array."""
        variable = self.find(reference, "assign")
        asked = self._done_to(variable, "assign to ")
        if not self._can_assign:
            raise AssignError(
                f"'{variable.name}' is assigned, but this call gives no tree back.",
                kind="assign",
                **asked,
                fix="call net.update(params, ...), which returns (out, params with all assignments); under "
                "js.bind, make the block a function and give it to js.transform",
            )
        value = assignable(variable, value, asked)
        if not self.source.makes_values:
            check_sharding(variable, value, self.source.make(variable), asked)
        if self.arrays.knows(value):
            value = jnp.array(value, copy=True)  # an object of its own, so that each array still tells its variable
        if variable.carried is not None:
            variable.carried.write(variable, value, asked if self.level else None)
        elif self.level:
            self.refs.assign_inside(variable, asked)
        self.arrays.note(variable)
        variable.forget()
        variable.assigned = True
        self._remember(variable, value)
        self.arrays.note(variable)
        return value

    def assigned(self) -> dict[str, Any]:
        """name -> value of all variables that the program assigned."""
        return {
            name: variable.value if variable.carried is None else variable.carried.final(variable)
            for name, variable in self.by_name.items()
            if variable.assigned
        }

    def values(self) -> dict[str, Any]:
        """name -> current value of all variables."""
        return {name: self.read(variable) for name, variable in self.by_name.items()}

    def types(self) -> list[tuple[str, tuple[int, ...], Any]]:
        """Name, shape and dtype of all variables, in order."""
        return [(variable.name, variable.shape, variable.dtype) for variable in self.by_name.values()]

    def specs(self) -> list[VariableSpec]:
        """All declarations in order."""
        return [variable.spec() for variable in self.by_name.values()]

    # Variables that are never shared ----------------------------------------------------------------------------------

    def variable(
        self, caller: FrameType, initial_value: Any, name: Any, trainable: Any, dtype: Any, collections: Any
    ) -> Any:
        """TF1's `tf.Variable`: a name of its own in the op scope, never found by `get_variable`."""
        if initial_value is None:
            raise InitializerError(
                "variable needs an initial value.",
                kind="no_value",
                scope=self.scopes.state.name,
                where=user_line(),
                fix="give a number or array",
            )
        name = checked_name(name, self.scopes.state.name)
        trainable = trainable is None or as_flag(trainable, f"trainable= of '{name}'")
        asked = functools.partial(self._asked, name, None, dtype, call="variable")
        if isinstance(initial_value, type) and parameters_for(initial_value)[1]:
            initial_value = initial_value()  # as get_variable does
        if callable(initial_value) and not parameters_for(initial_value)[1]:
            raise InitializerError(
                f"variable calls {describe(initial_value)} without arguments, and it takes some.",
                **asked("bad_init"),
                fix="give a value; an initializer is given to get_variable, with a shape: "
                "js.get_variable(name, shape, initializer=...)",
            )
        if collections is not None:
            collections = checked_collections(collections, trainable, name, asked)
        op_names, op_scope = self.scopes.op_names, self.scopes.op_scope

        def take() -> str:
            return op_names.open(op_scope, name) or op_names.unique("VariableV2")

        if self.body is None:
            full = take()
        else:
            full = self.body.take(("variable", op_scope, name), take)
            known = self.by_name.get(full)
            if known is not None and self.body.made_earlier(known.mark):
                known.mark = self.body.mark()
                return self.read(known)
        given = None if dtype is None else as_dtype(dtype)
        initializer, shape, found, computed = self._initial(self._fresh(full), initial_value, asked, given)
        what = full, None, shape, found if given is None else given, initializer, trainable, collections
        variable = Variable(*what, None, None, None, user_place(caller))
        return self._declare(variable, computed, shared=False)

    # Finding one ------------------------------------------------------------------------------------------------------

    def is_to_come(self, mark: Mark) -> bool:
        """Whether an earlier turn of a body that runs now made what has this mark, and this one has not yet."""
        return self.body is not None and self.body.made_earlier(mark)

    def find(self, reference: Any, call: str) -> Variable:
        """The variable meant by an array of `get_variable`, a `VariableSpec` or a full name.

        Raises:
          UnknownNameError: for a name that is not declared so far.
          BadArgumentError: for an array that is no variable's.
        """
        if not isinstance(reference, str | VariableSpec):
            return self.arrays.find(reference, call, self.scopes.state.name)
        name = reference if isinstance(reference, str) else reference.name
        variable = self.by_name.get(name)
        if variable is not None and not self.is_to_come(variable.mark):
            return variable
        raise UnknownNameError(
            f"{call}: no variable '{name}' has been declared in this program so far.",
            kind="unknown_name",
            scope=self.scopes.state.name,
            where=user_line(),
            near=near(name, self.by_name),
            fix="give the variable's name without ':0', which TF1 adds to name its value"
            if name.endswith(":0")
            else "give the full name of a variable that get_variable has returned before",
        )

    # What the steps have in common ------------------------------------------------------------------------------------

    def _taken(self, name: str) -> BadNameError:
        """The error of an op name that a variable has already; only names with a final slash are not made unique."""
        return BadNameError(
            f"There already is a variable with the op name '{name}'.",
            exists=self.by_name[name].origin(),
            scope=self.scopes.state.name,
            where=user_line(),
            fix="don't end names in a slash",
        )

    def _fresh(self, name: str) -> str:
        """An op name just taken; raises if a variable has it."""
        if name in self.by_name:
            raise self._taken(name)
        return name

    def _done_to(self, variable: Variable, what: str) -> dict[str, Any]:
        """The fields of an error about what is done to a variable."""
        return {"asked": f"{what}'{variable.name}'", "scope": self.scopes.state.name, "where": user_line()}

    def _asked(self, key: Any, shape: Any, dtype: Any, kind: str, call: str = "get_variable") -> dict[str, Any]:
        """The fields of an error about a call that asks for a variable."""
        shown = f"{call}('{key}'" + (f", shape={short(shape)}" if shape is not None else "")
        state = self.scopes.state
        return {
            "kind": kind,
            "asked": f"{shown}, dtype={getattr(dtype, 'name', None) or short(dtype)}) with reuse={state.reuse}",
            "scope": state.name,
            "where": user_line(),
        }

    def _initial(self, key: Any, initializer: Any, asked: Asked, dtype: Any = None) -> tuple[Any, Any, Any, Any]:
        """What `own_value` gives, of an initializer with a shape of its own."""
        makes_values = self.source.makes_values
        if callable(initializer):
            if not makes_values:
                return initializer, None, None, None
            here = self.level, self.body
            initializer = initializer()  # it may call in another place
            self.level, self.body = here
        return own_value(key, initializer, dtype, asked, is_inside=bool(self.level), is_kept=makes_values)
