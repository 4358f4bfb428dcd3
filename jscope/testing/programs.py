"""`ScopeProgram`: a program as data, which runs and reads as its own source. Public names of jscope only."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

_HEAD = """\
import jax.numpy as jnp, jscope as js

def program():
    got = []

    def note(v):
        got.append({js.name_of(v): v})

"""
_TRY = "try:"
_EXCEPT = "except js.JscopeError as error:"
_NOTE_ERROR = "got.append({type(error).__name__: None})"


@dataclasses.dataclass(frozen=True)
class Statement:
    """One statement of a `ScopeProgram`.

    Attributes:
      code: its line of Python. It may use `js`, `jnp`, `note(variable)` and what statements before it bind.
      body: the statements below it, where it ends in a colon.
      guarded: whether a `JscopeError` of it is noted and swallowed.

    Example:
      >>> from jscope.testing import Statement
      >>> Statement('with js.variable_scope("a"):', (Statement('note(js.get_variable("w", []))'),)).code
      'with js.variable_scope("a"):'
    """

    code: str
    body: tuple[Statement, ...] = ()
    guarded: bool = False

    def lines(self) -> Iterator[str]:
        """Its source, line by line."""
        own = [self.code, *_indented(self.body)]
        if self.code.endswith(":") and not self.body:
            own.append("    pass")
        if not self.guarded:
            yield from own
            return
        yield from (_TRY, *("    " + line for line in own), _EXCEPT, "    " + _NOTE_ERROR)


def _indented(body: tuple[Statement, ...]) -> Iterator[str]:
    for statement in body:
        yield from ("    " + line for line in statement.lines())


@dataclasses.dataclass(frozen=True, repr=False)
class ScopeProgram:
    """A program of scopes and variables as data: `js.transform` takes it, and its `repr` is its source.

    Called, inside a running program, it gives a list of dicts, one for each variable it got: `{full name: value}`. A
    swallowed error stands there as `{name of its class: None}`. JAX takes this as an output.

    Attributes:
      body: its statements. Programs are put together of others' statements, too.

    Example:
      >>> from jscope.testing import ScopeProgram, Statement
      >>> get = Statement('note(js.get_variable("w", [2]))')
      >>> program = ScopeProgram((Statement('with js.variable_scope("a", reuse=js.AUTO_REUSE):', (get, get)),))
      >>> program
      import jax.numpy as jnp, jscope as js
      <BLANKLINE>
      def program():
          got = []
      <BLANKLINE>
          def note(v):
              got.append({js.name_of(v): v})
      <BLANKLINE>
          with js.variable_scope("a", reuse=js.AUTO_REUSE):
              note(js.get_variable("w", [2]))
              note(js.get_variable("w", [2]))
          return got
      >>> js.transform(program).apply({"a/w": jnp.ones(2)})
      [{'a/w': Array([1., 1.], dtype=float32)}, {'a/w': Array([1., 1.], dtype=float32)}]
    """

    body: tuple[Statement, ...]

    @property
    def source(self) -> str:
        """The source of a module that defines it as the function `program`."""
        return _HEAD + "\n".join([*_indented(self.body), "    return got"])

    def __call__(self) -> list[dict[str, Any]]:
        return _compiled(self.source)()

    def __repr__(self) -> str:
        return self.source

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # What hypothesis and IPython ask for; without it hypothesis shows the fields.
        for i, line in enumerate(self.source.splitlines()):
            if i:
                printer.break_()
            printer.text(line)


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> Callable[[], list[dict[str, Any]]]:
    # The name of no real module: jscope reports such lines as the user's own.
    namespace: dict[str, Any] = {"__name__": "scope_program"}
    exec(compile(source, "<scope program>", "exec"), namespace)
    return namespace["program"]
