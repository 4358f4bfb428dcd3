"""The variables of one running program: TF1's `get_variable`, step by step, over explicit state. Floor 2.

A `Store` is made for one run and thrown away. It is told which trace a call comes from by a level: 0 is the trace that
the program was entered in, any other number one inner trace (of `jit`, `scan`, ...).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._carried import Carried, Rehearsal
from ._declare import (
    Asked,
    assignable,
    check_constraint,
    check_getter,
    check_initial_dtype,
    check_not_differentiated,
    check_shared,
    checked_initializer,
    checked_name,
    collections_of,
    default_initializer,
    odd_key,
    op_name,
    own_shape,
    own_value,
    partition_of,
)
from ._errors import (
    AssignError,
    BadTypeError,
    InitializerError,
    JscopeError,
    VariableExistsError,
    VariableNotFoundError,
    format_location,
    user_line,
    user_location,
)
from ._names import near
from ._registry import Registry
from ._rng import CallKeys
from ._scope_stack import Reuse, ScopeHandle, ScopeRequest, ScopeStack
from ._sources import Source
from ._specs import VariableSpec
from ._values import (
    FLOAT32,
    PartialShape,
    as_dtype,
    as_shape,
)
from ._variable import NOTHING, Variable

_SHARE = "to share it, enter the scope with reuse=True or js.AUTO_REUSE; else use another name or scope"
_TRACED_TWICE = ". If a loop's body is traced twice, since its carry changes type: start it with the type it returns"


class Store:
    """Everything that TF1 keeps per graph about variables.

    Args:
      source: where values come from.
      scopes: the scopes of this run.
      rng: root of `next_key`, or None.
      can_assign: whether `assign` is allowed.
      carried: the variables that are assigned inside transforms; default a rehearsal of them.

    Attributes:
      level: the level of the call in progress; whoever owns the store sets it.
      observe: looks up the level anew, for user code (getters) that may have entered another trace meanwhile.
      registry: the variables, by key, name, array and collection.
      computed: name -> initial value computed by the program.
      keys: the keys of `next_key`.
      rule_levels: levels of traces in which a custom derivative rule calls its function.
      templates, lifted: what `make_template` and `lift` keep for one run.
    """

    __slots__ = (
        "can_assign",
        "carried",
        "computed",
        "keys",
        "level",
        "lifted",
        "observe",
        "registry",
        "rule_levels",
        "scopes",
        "source",
        "templates",
    )

    def __init__(
        self,
        source: Source,
        scopes: ScopeStack | None = None,
        *,
        rng: jax.Array | None = None,
        can_assign: bool = True,
        carried: Carried | Rehearsal | None = None,
    ) -> None:
        self.source = source
        self.scopes = scopes or ScopeStack()
        self.can_assign = can_assign
        self.carried = carried or Rehearsal()
        self.level = 0
        self.rule_levels: set[int] = set()
        self.observe: Callable[[], int] = lambda: self.level
        self.computed: dict[str, Any] = {}
        self.templates: dict[Any, Any] = {}
        self.lifted: dict[Any, Any] = {}
        self.registry = Registry()
        self.keys = CallKeys(rng)

    def enter(self, request: ScopeRequest) -> ScopeHandle:
        """Enters a scope."""
        return self.scopes.enter(request)

    def leave(self, request: ScopeRequest) -> None:
        """Leaves the scope that was entered by `request`."""
        self.scopes.leave(request)

    # get_variable -----------------------------------------------------------------------------------------------------

    def get_variable(
        self,
        name: Any,
        shape: Any = None,
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        trainable: bool | None = None,
        collections: Any = None,
        partitioner: Any = None,
        custom_getter: Any = None,
        constraint: Any = None,
        without_effect: tuple[Any, Any, Any] = (None, True, None),
    ) -> Any:
        """TF1's `get_variable` in the current scope.

        `caching_device`, `validate_shape` and `use_resource`, which have no effect, reach custom getters alone.
        """
        state = self.scopes.state
        if dtype is not None and initializer is not None and not callable(initializer):
            check_initial_dtype(initializer, dtype, name, functools.partial(self._asked, name, shape, dtype))
        try:
            key = state.prefix + name
        except TypeError:
            key = odd_key(name, state.name)
        if initializer is None:
            initializer = state.initializer
        if regularizer is None:
            regularizer = state.regularizer
        if dtype is None:
            dtype = state.dtype
        if custom_getter is None:
            custom_getter = state.custom_getter
        if partitioner is None:
            partitioner = state.partitioner
        if constraint is None:
            constraint = state.constraint
        if custom_getter is None:
            reuse = state.reuse
            return self.get_by_key(
                key, shape, dtype, initializer, regularizer, reuse, trainable, collections, partitioner, constraint
            )
        check_getter(custom_getter, name, state.name)
        caching_device, validate_shape, use_resource = without_effect
        before, self.scopes.op_scope = self.scopes.op_scope, ""  # what a getter makes is named from the op root
        try:
            return custom_getter(
                getter=self._true_getter,
                name=key,
                shape=shape,
                dtype=as_dtype(dtype),
                initializer=initializer,
                regularizer=regularizer,
                reuse=state.reuse,
                trainable=True if trainable is None else trainable,
                collections=collections,
                partitioner=partitioner,
                constraint=constraint,
                caching_device=caching_device,
                validate_shape=validate_shape,
                use_resource=use_resource,
            )
        finally:
            self.scopes.op_scope = before

    def _true_getter(
        self,
        name: Any,
        shape: Any = None,
        dtype: Any = FLOAT32,
        initializer: Any = None,
        regularizer: Any = None,
        reuse: Reuse | None = None,
        trainable: bool | None = None,
        collections: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        validate_shape: bool = True,
        use_resource: Any = None,
        constraint: Any = None,
    ) -> Any:
        """What a custom getter calls: `get_variable` by full key, with the rest as the getter chose it."""
        self.level = self.observe()
        more = initializer, regularizer, reuse, trainable, collections, partitioner, constraint
        return self.get_by_key(name, shape, dtype, *more, self.scopes.op_scope)

    def get_by_key(
        self,
        key: Any,
        shape: Any,
        dtype: Any,
        initializer: Any,
        regularizer: Any,
        reuse: Reuse | None,
        trainable: bool | None,
        collections: Any,
        partitioner: Any,
        constraint: Any,
        op_scope: str = "",
    ) -> Any:
        """TF1's steps from a full key on, everything resolved; `op_scope` is what a getter has opened."""
        if initializer is not None and shape is not None and not callable(initializer):
            raise InitializerError(
                "If the initializer is a constant, the shape is its own and can't be given too.",
                **self._asked(key, shape, dtype, "const_shape"),
                fix="there are no initializers by name: give js.zeros_initializer() or another callable"
                if isinstance(initializer, str)
                else "leave shape out, or use constant_initializer(value)",
            )
        try:
            dtype, wanted = as_dtype(dtype), as_shape(shape)
        except JscopeError as error:
            error.complete(self._asked(key, shape, dtype, error.kind))
            raise
        variable = self.registry.by_key.get(key)
        if variable is None:
            if reuse is True:
                known = [k for k in self.registry.by_key if isinstance(k, str)]
                raise VariableNotFoundError(
                    f"Variable '{key}' does not exist, and reuse=True makes no new ones.",
                    **self._asked(key, wanted, dtype, "missing"),
                    near=functools.partial(near, str(key), known),
                    fix="make it before without reuse, enter the scope with reuse=js.AUTO_REUSE, or correct the name",
                )
            more = initializer, regularizer, trainable, collections, partitioner, constraint
            return self._create(key, wanted, dtype, *more, op_scope)
        if reuse is False:
            raise VariableExistsError(
                f"Variable '{key}' already exists, and reuse is off here.",
                **self._asked(key, wanted, dtype, "exists"),
                exists=variable.origin(),
                fix=_SHARE + (_TRACED_TWICE if self.level and variable.created_at == user_location() else ""),
            )
        if (wanted is not None and wanted != variable.shape) or dtype != variable.dtype:
            check_shared(variable, wanted, dtype, functools.partial(self._asked, key, wanted, dtype))
        if self.source.makes_values:
            variable.used_at.append(user_location())
        return self.read(variable)

    def _create(
        self,
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
        def asked(kind: str) -> dict[str, Any]:
            return self._asked(key, shape, dtype, kind)

        if initializer is None:
            initializer = default_initializer(key, shape, dtype, asked)
        initializer, by_shape = checked_initializer(initializer, key, shape, asked)
        if constraint is not None:
            check_constraint(constraint, key, asked)
        trainable = trainable is None or bool(trainable)
        collections = collections_of(collections, trainable, key, asked)
        partition = None if partitioner is None or not by_shape else partition_of(partitioner, key, shape, dtype, asked)
        name = self._fresh(op_name(key, self.scopes.op_names, op_scope))
        computed, place, level = None, user_location(), self.level
        if not by_shape:
            initializer, found, dtype, computed = self._initial(key, initializer, asked)
            shape = own_shape(found, shape, key, asked)
            partition = partition_of(partitioner, key, shape, dtype, asked)
        self.level = level  # a partitioner may have called from an inner trace
        return self._declare(
            Variable(
                name, key, shape, dtype, initializer, trainable, collections, regularizer, constraint, partition, place
            ),
            computed,
            shared=True,
        )

    def lift(self, lifted: Any, place: tuple[str, int] | None = None) -> tuple[Any, ...]:
        """The values of another program's variables in the current scope, by its names."""
        return lifted.under(self, place or user_location())

    def adopt(self, spec: VariableSpec, key: str, place: Any) -> Any:
        """Makes a variable that another program has declared; only the beginning of its name is new, and checked."""
        name = self._fresh(self.scopes.op_names.unique(key))
        return self._declare(Variable.after(spec, name, key, place), None, shared=True)

    def _declare(self, variable: Variable, computed: Any, *, shared: bool) -> Any:
        """Registers a variable whose name is taken; `computed` is its initial value if the program computed that."""
        variable.bound = self.source.makes_values
        if computed is not None and self.source.makes_values:
            value = self.computed[variable.name] = jnp.array(computed, variable.dtype, copy=True)
            self._remember(variable, value)
        else:
            value = self._make(variable)
        if variable.name in self.carried.names and self.carried.takes(variable, value):
            value = self.read(variable)
        if variable.shape is None:  # a bare initializer that did not run: the given value says what it is
            variable.shape, variable.dtype = value.shape, value.dtype
        self.registry.add(variable, shared)
        regularizer = variable.regularizer
        if regularizer is not None and not callable(regularizer):
            variable.regularizer = None  # the variable exists nevertheless, as in TF1
            raise BadTypeError(
                f"The regularizer of '{variable.name}' is not callable: {regularizer!r}.",
                **self._asked(variable.name, variable.shape, variable.dtype, "bad_regularizer"),
                fix="give a function from the value to a scalar, or js.no_regularizer",
            )
        return value

    # Values -----------------------------------------------------------------------------------------------------------

    def read(self, variable: Variable) -> Any:
        """The current value; in one trace the same object until it is assigned."""
        if variable.value is not NOTHING:
            if self.rule_levels:
                self._check_rule(variable, variable.value)
            return variable.value
        reference = variable.inner.get(self.level)
        value = None if reference is None else reference()
        return self._make(variable) if value is None else value

    def _make(self, variable: Variable) -> Any:
        level = self.level
        if variable.carried is not None:
            value = variable.carried.read(variable, self._done_to(variable, "value of ") if level else None)
            self._remember(variable, value)
            return value
        try:
            value = self.source.make(variable)
        except Exception as error:
            if self.source.makes_values:
                error.add_note(
                    f"in the initial value of '{variable.name}', asked for at {format_location(variable.created_at)}"
                )
            raise
        self.level = level  # an initializer may have called from an inner trace
        if self.rule_levels:
            self._check_rule(variable, value)
        self._remember(variable, value)
        return value

    def _check_rule(self, variable: Variable, value: Any) -> None:
        if self.level in self.rule_levels:
            check_not_differentiated(variable, value, functools.partial(self._done_to, variable, "value of "))

    def _remember(self, variable: Variable, value: Any) -> None:
        if variable.bound and (self.level or variable.carried is not None):
            variable.inner[self.level] = self.registry.remember_weakly(value, variable)
        else:
            variable.value = value
            self.registry.remember(value, variable)

    def assign(self, reference: Any, value: Any) -> Any:
        """Sets a variable for the rest of this run; returns the new value as an array."""
        variable = self.find(reference, "assign")
        asked = self._done_to(variable, "assign to ")
        if not self.can_assign:
            raise AssignError(
                f"'{variable.name}' is assigned, but this call gives no tree back.",
                kind="assign",
                **asked,
                fix="call net.update(params, ...), which returns (out, params with all assignments)",
            )
        value = assignable(variable, value, asked)
        if self.registry.knows(value):
            value = jnp.array(value, copy=True)  # an object of its own, so that each array still tells its variable
        if variable.carried is not None:
            variable.carried.write(variable, value, asked if self.level else None)
        elif self.level:
            self.carried.assign_inside(variable, asked)
        variable.forget()
        variable.assigned = True
        self._remember(variable, value)
        return value

    def assigned(self) -> dict[str, Any]:
        """name -> value of all variables that the program assigned."""
        return {
            name: variable.value if variable.carried is None else variable.carried.final(variable)
            for name, variable in self.registry.by_name.items()
            if variable.assigned
        }

    def values(self) -> dict[str, Any]:
        """name -> current value of all variables."""
        return {name: self.read(variable) for name, variable in self.registry.by_name.items()}

    def specs(self) -> list[VariableSpec]:
        """All declarations in order."""
        return [variable.spec() for variable in self.registry.by_name.values()]

    def find(self, reference: Any, call: str) -> Variable:
        """The variable meant by an array of `get_variable`, a `VariableSpec` or a full name."""
        return self.registry.find(reference, call, self.scopes.state.name)

    def release(self) -> None:
        """Lets go of all values, so that no tracer outlives the run."""
        self.registry = Registry()
        self.computed = {}

    # Variables that are never shared ----------------------------------------------------------------------------------

    def variable(self, initial_value: Any, name: str | None, trainable: bool, dtype: Any, collections: Any) -> Any:
        """TF1's `tf.Variable`: a name of its own in the op scope, never found by `get_variable`."""
        if initial_value is None:
            raise InitializerError(
                "variable needs an initial value.",
                kind="no_value",
                scope=self.scopes.state.name,
                where=user_line(),
                fix="give a number or array",
            )
        trainable, name = bool(trainable), checked_name(name, self.scopes.state.name)
        asked = functools.partial(self._asked, name, None, dtype, call="variable")
        collections = collections_of(collections, trainable, name, asked)
        op_names = self.scopes.op_names
        name = self._fresh(op_names.open(self.scopes.op_scope, name) or op_names.unique("VariableV2"))
        dtype = None if dtype is None else as_dtype(dtype)
        initializer, shape, found, computed = self._initial(name, initial_value, asked, dtype)
        dtype = found if dtype is None else dtype
        variable = Variable(
            name, None, shape, dtype, initializer, trainable, collections, None, None, None, user_location()
        )
        return self._declare(variable, computed, shared=False)

    def next_key(self, name: str) -> jax.Array:
        """The next key of this scope under `name`."""
        return self.keys.next(self.scopes.state.name, name)

    # The steps of a creation ------------------------------------------------------------------------------------------

    def _fresh(self, name: str) -> str:
        """An op name just taken; raises if a variable has it."""
        if name in self.registry.by_name:
            raise self.registry.taken(name, self.scopes.state.name)
        return name

    def _done_to(self, variable: Variable, what: str) -> dict[str, Any]:
        """The fields of an error about what is done to a variable."""
        return {"asked": f"{what}'{variable.name}'", "scope": self.scopes.state.name, "where": user_line()}

    def _asked(self, key: Any, shape: Any, dtype: Any, kind: str, call: str = "get_variable") -> dict[str, Any]:
        """The fields of an error about a call that asks for a variable."""
        shown = f"{call}('{key}'" + (f", shape={shape}" if shape is not None else "")
        state = self.scopes.state
        return {
            "kind": kind,
            "asked": f"{shown}, dtype={getattr(dtype, 'name', dtype)}) with reuse={state.reuse}",
            "scope": state.name,
            "where": user_line(),
        }

    def _initial(self, key: Any, initializer: Any, asked: Asked, dtype: Any = None) -> tuple[Any, Any, Any, Any]:
        """What `own_value` gives, of an initializer with a shape of its own."""
        makes_values = self.source.makes_values
        if callable(initializer):
            if not makes_values:
                return initializer, None, None, None
            self.level, initializer = self.level, initializer()  # it may call from an inner trace; the level stays
        return own_value(key, initializer, dtype, asked, is_inside=bool(self.level), is_kept=makes_values)
