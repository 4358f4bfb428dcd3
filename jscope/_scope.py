"""Scopes as a program opens them: `variable_scope`, `name_scope` and scope objects, under TF1's names. Floor 3.

Each call finds the running program and hands over to its `Scopes`; no rule is decided here.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import jax

from ._ambient import current, is_open_here, is_running, leaving
from ._callsite import user_line
from ._errors import STATIC_ARGNAMES, BadArgumentError, BadTypeError
from ._show import short
from ._values import is_traced
from ._variable_spec import VariableSpec
from .run.listings import collection
from .run.record import GLOBAL_VARIABLES, LOCAL_VARIABLES, TRAINABLE_VARIABLES
from .run.scopes import AUTO_REUSE, Reuse, ScopeHandle, Scopes, ScopeState


class VariableScope(ScopeHandle):
    """A scope object: what `variable_scope` yields and `get_variable_scope` returns. TF1: `tf.VariableScope`.

    It can be kept and entered again, anywhere, also in another program. Changes made to it (`reuse_variables`, `set_*`)
    hold in the running program only; outside any program its attributes are those it was made with.

    Example:
      >>> with js.build(jax.random.key(0)):
      ...     with js.variable_scope("tower", reuse=js.AUTO_REUSE) as scope:
      ...         scope.name, scope.reuse, scope.original_name_scope
      ('tower', AUTO_REUSE, 'tower/')
    """

    __slots__ = ()

    def _state(self) -> ScopeState:
        if not is_running():
            return self._made_with
        run = current("a scope's attribute", sys._getframe(2))
        return run.scopes.state_of(self, run.body)

    @property
    def name(self) -> str:
        """Full name without a final slash; `""` at the root."""
        return self._state().name

    @property
    def reuse(self) -> Reuse:
        """False, True or `AUTO_REUSE`."""
        return self._state().reuse

    @property
    def initializer(self) -> Any:
        """Default initializer of `get_variable`, or None."""
        return self._state().initializer

    @property
    def regularizer(self) -> Any:
        """Default regularizer of `get_variable`, or None."""
        return self._state().regularizer

    @property
    def dtype(self) -> Any:
        """Default dtype of `get_variable`, as it was given; float32 at the root."""
        return self._state().dtype

    @property
    def custom_getter(self) -> Any:
        """Default getter of `get_variable`, composed of those of all scopes, or None."""
        return self._state().custom_getter

    @property
    def partitioner(self) -> Any:
        """Default partitioner of `get_variable`, or None."""
        return self._state().partitioner

    @property
    def constraint(self) -> Any:
        """Default constraint of `get_variable` in this very scope (TF1 does not inherit it), or None."""
        return self._state().constraint

    @property
    def trainable(self) -> bool:
        """Whether variables of `get_variable` are trainable by default. TF1 has no such default."""
        return self._state().trainable

    @property
    def original_name_scope(self) -> str:
        """The op scope opened at the first entry, with a final slash: what `name_scope` re-enters."""
        return self._state().original_name_scope

    def _change(self, call: str, **changes: Any) -> None:
        run = current(f"VariableScope.{call}", sys._getframe(2))
        run.scopes.change(self, run.body, **changes)

    def reuse_variables(self) -> None:
        """Turns reuse on in this scope object, for scopes opened in it later as well."""
        self._change("reuse_variables", reuse=True)

    def set_initializer(self, initializer: Any) -> None:
        """Sets the default initializer."""
        self._change("set_initializer", initializer=initializer)

    def set_regularizer(self, regularizer: Any) -> None:
        """Sets the default regularizer."""
        self._change("set_regularizer", regularizer=regularizer)

    def set_dtype(self, dtype: Any) -> None:
        """Sets the default dtype."""
        self._change("set_dtype", dtype=dtype)

    def set_custom_getter(self, custom_getter: Any) -> None:
        """Sets the default getter."""
        self._change("set_custom_getter", custom_getter=custom_getter)

    def set_partitioner(self, partitioner: Any) -> None:
        """Sets the default partitioner."""
        self._change("set_partitioner", partitioner=partitioner)

    def get_collection(self, name: str) -> list[Any]:
        """The items of a collection whose names start with this scope's, as TF1 matches them (a regular expression)."""
        run = current("VariableScope.get_collection", sys._getframe(1))
        return collection(run, name, run.scopes.state_of(self, run.body).prefix)

    def global_variables(self) -> list[VariableSpec]:
        """This scope's part of `js.global_variables()`."""
        return self.get_collection(GLOBAL_VARIABLES)

    def trainable_variables(self) -> list[VariableSpec]:
        """This scope's part of `js.trainable_variables()`."""
        return self.get_collection(TRAINABLE_VARIABLES)

    def local_variables(self) -> list[VariableSpec]:
        """This scope's part of `js.local_variables()`."""
        return self.get_collection(LOCAL_VARIABLES)

    def __repr__(self) -> str:
        state = self._made_with
        return f"<VariableScope '{state.name}' made with reuse={state.reuse}>"


def new_scopes(shown: bool) -> Scopes:
    """The scopes of a new run; `shown` in the names of its operations or not."""
    return Scopes(VariableScope, jax.named_scope if shown else None)


_NONE: dict[str, Any] = {}  # of what a scope may override

# Frames of such code go on where other scopes may be open than those that they have entered.
SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class variable_scope:  # noqa: N801 (TF1's name)
    """Opens a scope of variables; a context manager that yields the `VariableScope`. TF1: `tf.variable_scope`.

    A string opens a scope inside the current one; a `VariableScope` jumps to that very scope; with None the default
    name is used, made unique (`dense`, `dense_1`). What is not given is inherited, the constraint excepted.

    Args:
      name_or_scope: a name, a scope object, or None.
      default_name: name to make unique where `name_or_scope` is None.
      values: no effect (TF1 takes the graph from them), so that `variable_scope(scope, "conv", [x])` ports unchanged.
      initializer: default initializer of variables made inside.
      regularizer: default regularizer, a callable from value to scalar.
      caching_device: no effect.
      partitioner: default partitioner, as `get_variable` takes it.
      custom_getter: a callable `(getter, name, *args, **kwargs)` around every `get_variable` inside.
      reuse: None or False to inherit, True to share existing variables only, `AUTO_REUSE` to make or share.
      dtype: default dtype of variables made inside.
      use_resource: no effect.
      constraint: default constraint, a callable from value to value, not inherited by inner scopes.
      auxiliary_name_scope: with False no op scope is opened.
      trainable: by keyword; whether variables made inside are trainable, where neither `get_variable` nor the layer is
        told. With False a whole scope is frozen. TF1 has no such argument: there it takes a custom getter.

    Raises:
      BadTypeError: no name at all, a flag that is no bool; at entry, a name that is no string.
      BadArgumentError: an unknown `reuse`; at entry, reuse with a default name.
      BadNameError: at entry, a name that TF1 refuses.
      OutsideProgramError: at entry, where no program runs.
      ScopeExitError: on leaving out of order.

    Example:
      >>> def program():
      ...     with js.variable_scope("layer"):
      ...         w = js.get_variable("w", [2])
      ...     with js.variable_scope("layer", reuse=True):
      ...         assert js.get_variable("w") is w
      >>> list(js.transform(program).specs())
      ['layer/w']
    """

    __slots__ = ("_auxiliary_name_scope", "_default_name", "_name_or_scope", "_overrides", "_reuse")

    def __init__(
        self,
        name_or_scope: str | VariableScope | None,
        default_name: str | None = None,
        values: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        custom_getter: Any = None,
        reuse: Reuse | None = None,
        dtype: Any = None,
        use_resource: Any = None,
        constraint: Any = None,
        auxiliary_name_scope: bool = True,
        *,
        trainable: bool | None = None,
    ) -> None:
        if name_or_scope is None and default_name is None:
            raise BadTypeError(
                "variable_scope needs a name, a scope object or a default name.",
                kind="no_name",
                where=user_line(),
                fix="give a name: variable_scope('layer')",
            )
        if reuse is not None and reuse is not True and reuse is not False and reuse is not AUTO_REUSE:
            raise BadArgumentError(
                f"reuse must be True, False, None or js.AUTO_REUSE, not {short(reuse)}.",
                kind="bad_reuse",
                asked=f"variable_scope({short(name_or_scope)})",
                where=user_line(),
                fix=f"it is traced; as an argument of jax.jit, {STATIC_ARGNAMES}"
                if is_traced(reuse)
                else "give one of these four",
            )
        if auxiliary_name_scope is not True and auxiliary_name_scope is not False:
            raise BadTypeError(
                f"auxiliary_name_scope must be True or False, not {short(auxiliary_name_scope)}.",
                kind="bad_aux",
                asked=f"variable_scope({short(name_or_scope)})",
                where=user_line(),
                fix=f"it is traced; as an argument of jax.jit, {STATIC_ARGNAMES}"
                if is_traced(auxiliary_name_scope)
                else "give True or False",
            )
        if trainable is not None and trainable is not True and trainable is not False:
            raise BadTypeError(
                f"trainable must be True, False or None, not {short(trainable)}.",
                kind="bad_trainable",
                asked=f"variable_scope({short(name_or_scope)})",
                where=user_line(),
                fix="give False to freeze the scope, True to train it, None to inherit",
            )
        self._name_or_scope = name_or_scope
        self._default_name = default_name
        self._reuse = reuse
        self._auxiliary_name_scope = auxiliary_name_scope
        if (
            initializer is None
            and regularizer is None
            and dtype is None
            and custom_getter is None
            and partitioner is None
            and constraint is None
            and trainable is None
        ):
            self._overrides = _NONE
        else:
            given = {"initializer": initializer, "regularizer": regularizer, "dtype": dtype}
            given |= {"custom_getter": custom_getter, "partitioner": partitioner, "constraint": constraint}
            given["trainable"] = trainable
            self._overrides = {field: value for field, value in given.items() if value is not None}

    def __enter__(self) -> VariableScope:
        caller = sys._getframe(1)
        run = current("variable_scope", caller)
        frame = None if caller.f_code.co_flags & SUSPENDS else caller
        return run.scopes.enter(self, frame, run.body)  # type: ignore[return-value]  # of `new_scopes`

    def __exit__(self, exception: type[BaseException] | None, *_: Any, is_ending: Any = sys.is_finalizing) -> None:
        # A generator is closed after its program has ended, or with Python itself, when nothing works any more: there
        # is nothing to put back.
        if exception is GeneratorExit and (is_ending() or not is_open_here(self)):
            return
        leaving("leaving a variable_scope", sys._getframe(1)).scopes.leave(self)


class name_scope:  # noqa: N801
    """Opens an op scope only: names operations, not variables of `get_variable`. TF1: `tf.name_scope`.

    A context manager that yields the op scope with a final slash. Names show in the compiled program and in profiles
    (`jit(f)/layer/add`).

    Args:
      name: made unique inside the op scope in force; with a final slash it is absolute and not made unique; None and ""
        go to the root (JAX shows such operations below the place of entry all the same).
      default_name: used where `name` is None.
      values: no effect.

    Raises:
      BadNameError: at entry, for a name that TF1 refuses.
      OutsideProgramError: at entry, where no program runs.

    Example:
      >>> def program():
      ...     with js.name_scope("n") as a, js.name_scope("n") as b: print(a, b)
      ...     with js.name_scope("n") as c: print(c)
      >>> _ = js.transform(program).specs()
      n/ n/n/
      n_1/
    """

    __slots__ = ("_name",)

    def __init__(self, name: str | None, default_name: str | None = None, values: Any = None) -> None:
        self._name = default_name if name is None else name

    def __enter__(self) -> str:
        run = current("name_scope", sys._getframe(1))
        return run.scopes.enter_op_scope(self, self._name, run.body)

    def __exit__(self, exception: type[BaseException] | None, *_: Any, is_ending: Any = sys.is_finalizing) -> None:
        if exception is GeneratorExit and (is_ending() or not is_open_here(self)):
            return
        current("leaving a name_scope").scopes.leave_op_scope(self)


def get_variable_scope() -> VariableScope:
    """The current scope object. TF1: `tf.get_variable_scope`.

    Raises:
      OutsideProgramError: where no program runs.

    Example:
      >>> with js.build(jax.random.key(0)), js.variable_scope("a"):
      ...     js.get_variable_scope().name
      'a'
    """
    return current("get_variable_scope").scopes.handle  # type: ignore[return-value]
