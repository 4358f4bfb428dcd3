"""`make_template`: functions that make variables once and share them from then on. Floor 3."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ._ambient import current
from ._callsite import user_line
from ._errors import BadArgumentError, BadTypeError, TemplateError, add_place
from ._scope import VariableScope, variable_scope
from ._show import short
from ._variable_spec import VariableSpec
from .run import listings
from .run.bodies import Mark, mark_in
from .run.record import GLOBAL_VARIABLES, LOCAL_VARIABLES, TRAINABLE_VARIABLES
from .run.variables import Run


class _State:
    """What TF1 keeps in a template, for one run.

    Attributes:
      scope: the template's, once it is open.
      started, completed: whether its first call has begun, and has ended well.
      mark: the body of its first call, and the turn.
    """

    __slots__ = ("completed", "mark", "scope", "started")

    def __init__(self, scope: VariableScope | None, mark: Mark) -> None:
        self.scope = scope
        self.mark = mark
        self.started = False
        self.completed = False


class Template:
    """A function whose first call makes its variables and whose later calls share them; see `make_template`."""

    __slots__ = ("__weakref__", "_func", "_getter", "_keywords", "_made_at", "_scope_made_with", "_unique_name", "name")

    def __init__(
        self,
        name: str,
        func: Callable[..., Any],
        unique_name: str | None,
        custom_getter: Any,
        scope: VariableScope | None,
        keywords: dict[str, Any],
    ) -> None:
        self.name = name
        self._func = func
        self._unique_name = unique_name
        self._getter = custom_getter
        self._scope_made_with = scope
        self._keywords = keywords
        self._made_at = user_line()

    def _state(self, run: Run) -> _State:
        state = run.templates.get(self)
        if state is None or run.is_to_come(state.mark):
            state = run.templates[self] = _State(self._scope_made_with, mark_in(run.body))
        return state

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = self._state(current(f"template {self.name!r}", sys._getframe()))
        if state.scope is None:
            scope = variable_scope(self._unique_name, self.name, custom_getter=self._getter)
        else:
            scope = variable_scope(state.scope, reuse=state.started)
        with scope as entered:
            if state.scope is None:
                state.scope = entered
            try:
                return self._call(state, args, {**self._keywords, **kwargs})
            except Exception as error:
                add_place(error, f"template {self.name!r}, defined at {self._made_at}")
                raise

    def _call(self, state: _State, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not state.completed:
            if state.started:  # it calls itself in its first call
                return self._func(*args, **kwargs)
            state.started = True
            try:
                result = self._func(*args, **kwargs)
            except BaseException:
                state.started = False
                raise
            state.completed = True
            return result
        run = current(f"template {self.name!r}")
        variables, collected = len(run.by_name), len(run.collected)
        result = self._func(*args, **kwargs)
        if listings.adds_to(run, TRAINABLE_VARIABLES, variables, collected):
            raise TemplateError(
                f"Template {self.name!r} made a trainable variable in a call after its first.",
                kind="template_trainable",
                scope=state.scope.name if state.scope else None,
                where=user_line(),
                fix="use get_variable, which later calls share, instead of variable",
            )
        return result

    @property
    def variable_scope(self) -> VariableScope | None:
        """Its scope in the running program; None before the first call."""
        return self._state(current("Template.variable_scope", sys._getframe(1))).scope

    @property
    def variable_scope_name(self) -> str | None:
        """The full name of its scope with a final slash; None before the first call."""
        scope = self.variable_scope
        if scope is None:
            return None
        return scope.name.removesuffix("/") + "/" if scope.name else ""

    def _collection(self, key: str) -> list[VariableSpec]:
        state = self._state(current("a template's variables", sys._getframe(2)))
        return state.scope.get_collection(key) if state.completed and state.scope is not None else []

    @property
    def variables(self) -> list[VariableSpec]:
        """All variables in its scope, global ones first."""
        return self.global_variables + self.local_variables

    @property
    def global_variables(self) -> list[VariableSpec]:
        """The global variables in its scope."""
        return self._collection(GLOBAL_VARIABLES)

    @property
    def local_variables(self) -> list[VariableSpec]:
        """The local variables in its scope."""
        return self._collection(LOCAL_VARIABLES)

    @property
    def trainable_variables(self) -> list[VariableSpec]:
        """The trainable variables in its scope."""
        return self._collection(TRAINABLE_VARIABLES)

    def __repr__(self) -> str:
        return f"<template {self.name!r} of {getattr(self._func, '__name__', self._func)}>"


def make_template(
    name_: str,
    func_: Callable[..., Any],
    create_scope_now_: bool = False,
    unique_name_: str | None = None,
    custom_getter_: Any = None,
    **kwargs: Any,
) -> Template:
    """A function that makes its variables at the first call of a program and shares them at every later one.

    TF1: `tf.make_template`. The template itself keeps nothing between programs.

    Args:
      name_: default name of its scope.
      func_: the function; it should use `get_variable`.
      create_scope_now_: fix the scope here instead of at the first call; needs a running program.
      unique_name_: name of its scope, used as it is.
      custom_getter_: a getter for its scope.
      **kwargs: bound to `func_`.

    Raises:
      BadArgumentError: if `name_` is None.
      BadTypeError: if `func_` is not callable.
      OutsideProgramError: for `create_scope_now_=True` where no program runs.
      TemplateError: at a later call that makes a trainable variable.

    Example:
      >>> scale = js.make_template("scale", lambda x: x * js.get_variable("s", []))
      >>> list(js.transform(lambda x: scale(scale(x))).specs(jnp.ones(2)))
      ['scale/s']
    """
    if name_ is None:
        raise BadArgumentError("A template needs a name.", kind="template_name", where=user_line(), fix="give name_=")
    if not callable(func_):
        raise BadTypeError(
            f"Template {name_!r} takes a function, not {short(func_)}.",
            kind="not_a_function",
            where=user_line(),
            fix="give the function that calls get_variable",
        )
    scope = None
    if create_scope_now_:
        run = current("make_template with create_scope_now_=True", sys._getframe(1))
        scope = run.scopes.now_and_at_once_closed(unique_name_, name_, custom_getter_, run.body)
    return Template(name_, func_, unique_name_, custom_getter_, scope, kwargs)  # type: ignore[arg-type]
