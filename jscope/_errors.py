"""The error tree, and where in the user's code a call was made. Floor 0: no jax here.

    JscopeError
    ├── ValueError    VariableExistsError, VariableNotFoundError, ShapeMismatchError, DtypeMismatchError,
    │                 BadNameError, InitializerError, BadArgumentError, ParamsMismatchError, TemplateError,
    │                 CheckpointError
    ├── TypeError     BadTypeError, BadInitialValueTypeError
    ├── KeyError      UnknownNameError
    └── RuntimeError  OutsideProgramError, ScopeExitError, TransformError, AssignError, MissingRngError

Each is also the builtin that TensorFlow 1 raises for the same fault: ported code that catches `ValueError` goes on
working.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any


class JscopeError(Exception):
    """Base of everything that jscope raises on its own.

    The message is built from the fields, and pickling keeps them.

    Attributes:
      what: one sentence that says what went wrong.
      kind: a short stable word for the fault (`"exists"`, `"missing"`, `"shape_mismatch"`, ...).
      asked: the call as jscope understood it.
      scope: the name of the variable scope in force, `""` at the root, None where there was none.
      where: the user's `file:line` of the failing call.
      exists: what is there already, with its origin.
      fix: one way out.
      faults: where one error gathers several, one line each.
    """

    def __init__(
        self,
        what: str,
        *,
        kind: str = "other",
        asked: str = "",
        scope: str | None = None,
        where: str = "",
        exists: str = "",
        near: Iterable[str] | Callable[[], Iterable[str]] = (),
        fix: str = "",
        faults: Iterable[str] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.kind = kind
        self.asked = asked
        self.scope = scope
        self.where = where
        self.exists = exists
        self._near = near
        self.fix = fix
        self.faults = tuple(faults)

    @property
    def near(self) -> tuple[str, ...]:
        """Close names, best first; looked for only when somebody asks: programs may catch errors by the hundred."""
        self._near = tuple(self._near() if callable(self._near) else self._near)
        return self._near

    def complete(self, asked: dict[str, Any]) -> None:
        """Takes from `asked` what is missing here: what raises it may be too far below to know who asked."""
        self.asked = self.asked or asked.get("asked", "")
        self.scope = asked.get("scope") if self.scope is None else self.scope

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what,), {**self.__dict__, "_near": self.near}

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  - {fault}" for fault in self.faults]
        place = []
        if self.scope is not None:
            place.append(f"in scope '{self.scope}'" if self.scope else "at the root scope")
        if self.where:
            place.append(f"at {self.where}")
        if self.asked or place:
            lines.append("  Asked:  " + " ".join([self.asked, *place]).strip())
        if self.exists:
            lines.append(f"  Exists: {self.exists}")
        if self.near:
            lines.append("  Near:   " + ", ".join(f"'{name}'" for name in self.near))
        if self.fix:
            lines.append(f"  Fix: {self.fix}")
        return "\n".join(lines)


class VariableExistsError(JscopeError, ValueError):
    """A variable is made a second time where reuse is off (TF1: "already exists, disallowed")."""


class VariableNotFoundError(JscopeError, ValueError):
    """A variable is asked for under `reuse=True` that nobody made (TF1: "does not exist")."""


class ShapeMismatchError(JscopeError, ValueError):
    """A shared variable is asked for, or assigned, with another shape than it has."""


class DtypeMismatchError(JscopeError, ValueError):
    """A shared variable is asked for, or assigned, with another dtype than it has."""


class BadNameError(JscopeError, ValueError):
    """A variable, scope or parameter name that can't be used."""


class InitializerError(JscopeError, ValueError):
    """An initial value can't be made as asked: no shape, shape and constant both, a wrong result."""


class BadArgumentError(JscopeError, ValueError):
    """An argument has the right type but a value that means nothing here."""


class ParamsMismatchError(JscopeError, ValueError):
    """A tree of parameters does not fit the program: names missing, misspelt, of wrong shape or dtype.

    `faults` lists all of them, one line each.
    """


class CheckpointError(JscopeError, ValueError):
    """A checkpoint is not there, is damaged, is none, or can't be written: which file, and at what byte."""


class TemplateError(JscopeError, ValueError):
    """A template made a trainable variable in a call after the first."""


class BadTypeError(JscopeError, TypeError):
    """An argument of a type that can't be meant."""


class BadInitialValueTypeError(JscopeError, TypeError):
    """An initial value whose type does not convert to the variable's dtype."""


class UnknownNameError(JscopeError, KeyError):
    """A full name given as a string is not in the tree, or not declared in the program."""


class OutsideProgramError(JscopeError, RuntimeError):
    """An ambient call where no program runs: outside, in another thread or context, or after its end."""


class ScopeExitError(JscopeError, RuntimeError):
    """A scope or a program was left out of order (TF1: "Improper nesting of variable_scope.")."""


class TransformError(JscopeError, RuntimeError):
    """Something that can't be done inside a JAX transform."""


class AssignError(JscopeError, RuntimeError):
    """`assign` where nothing can be assigned."""


class MissingRngError(JscopeError, RuntimeError):
    """`next_key` in a call that was given no `rng`."""


class RetraceWarning(UserWarning):
    """A program that asks for variables inside JAX transforms is run without `jax.jit`, so each call traces them anew.

    Warned once for each program that `transform` made.
    """


def warn_retrace() -> None:
    """Warns at the user's line."""
    message = (
        "This program calls jscope inside JAX transforms and runs without jax.jit: it is right, but each call traces "
        "and compiles those functions anew. jax.jit(net.apply), or jax.jit around the whole step, does it once."
    )
    warnings.warn_explicit(message, RetraceWarning, *(user_location() or ("<unknown>", 0)))


# Frames of these packages are never the user's own line.
_NOT_THE_USER = frozenset({"jscope", "jax", "jaxlib", "contextlib", "functools"})


def user_location() -> tuple[str, int] | None:
    """(file, line) of the innermost frame that belongs to neither jscope nor JAX, None if there is none."""
    frame = _user_frame(sys._getframe(1))
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else None


def user_instruction() -> tuple[CodeType, int] | None:
    """The same as (code, offset), for `location_of`: finding the line takes longest, and few of them are asked for.

    For code that is called by what the user calls.
    """
    frame: FrameType | None = sys._getframe(3)
    if not _is_the_users[frame.f_globals.get("__name__", "")]:
        frame = _user_frame(frame)
    return (frame.f_code, frame.f_lasti) if frame is not None else None


def location_of(instruction: tuple[CodeType, int] | None) -> tuple[str, int] | None:
    """The (file, line) of what `user_instruction` gave."""
    if instruction is None:
        return None
    code, offset = instruction
    lines = (line for start, end, line in code.co_lines() if start <= offset < end)
    return code.co_filename, next(lines, None) or code.co_firstlineno


def _user_frame(frame: FrameType | None) -> FrameType | None:
    while frame is not None and not _is_the_users[frame.f_globals.get("__name__", "")]:
        frame = frame.f_back
    return frame


class _IsTheUsers(dict[str, bool]):
    """Module name -> whether it is the user's, kept for the modules seen so far: one call looks at several frames."""

    def __missing__(self, module: str) -> bool:
        self[module] = theirs = module.partition(".")[0] not in _NOT_THE_USER
        return theirs


_is_the_users = _IsTheUsers()


def parameters_for(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[str], bool]:
    """(names of the parameters, whether they take such a call); `([], True)` where that can't be told."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return [], True
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return list(signature.parameters), False
    return list(signature.parameters), True


def user_line() -> str:
    """The user's `file:line` of the call in progress, `""` if there is none."""
    return format_location(user_location())


def format_location(location: tuple[str, int] | None) -> str:
    """`file:line`, as editors and terminals link it."""
    return f"{location[0]}:{location[1]}" if location else ""
