"""The error tree. Floor 0: no jax here.

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

from collections.abc import Callable, Iterable
from typing import Any

from ._show import printable, shortened, shown

_LONGEST_LINE = 10_000  # characters


def _line(text: str) -> str:
    """One line that can be printed."""
    return printable(shortened(text, _LONGEST_LINE))


# In the way out of an error about a traced value; whoever knows the program's arguments puts names for the dots.
STATIC_ARGNAMES = "static_argnames=..."


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
      inside: what it was raised in, such as the initial value of a variable or a template, the innermost first.
      told_by_call: whether `fix` has been made more precise by the call of a program that it ended.
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
        # Names and paths may come from strangers: nothing in them may steer a terminal, or pass for a line of ours.
        super().__init__(_line(what))
        self.what = _line(what)
        self.kind = kind
        self.asked = asked
        self.scope = scope
        self.where = where
        self.exists = exists
        self._near = near
        self.fix = fix
        self.faults = tuple(map(_line, faults))
        self.inside: tuple[str, ...] = ()
        self.told_by_call = False

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
        lines += [f"  In:     {place}" for place in self.inside]
        if self.exists:
            lines.append(f"  Exists: {self.exists}")
        if self.near:
            lines.append("  Near:   " + ", ".join(map(shown, self.near)))
        if self.fix:
            lines.append(f"  Fix: {self.fix}")
        return "\n".join(map(_line, lines))


def add_place(error: Exception, place: str) -> None:
    """Says in what an error was raised: in the text of one of ours, in a note (`__notes__`) of any other."""
    if isinstance(error, JscopeError):
        error.inside = (*error.inside, place)
    else:
        error.add_note(f"in {place}")


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

    Warned once for each line, as Python does with warnings.
    """
