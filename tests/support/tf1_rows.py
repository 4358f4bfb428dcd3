"""Runs a row of TensorFlow's recorded semantics as a jscope program, in every mode, and compares what it prints.

A row is a function that prints with `P`, as the recorded TensorFlow program did, and TensorFlow's output. What differs
from the recorded output by design:

* names have no `:0`; dtypes print as `float32`, AUTO_REUSE as `AUTO`;
* an error is the builtin class that TensorFlow raised, with jscope's kind in place of TensorFlow's message;
* ordinary operations, which jscope can't see, are op scopes of the same name (`op("Add")`): they take names alike.
"""
# ruff: noqa: N802

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import pytest

import jscope as js

AUTO = js.AUTO_REUSE
vs, gv, cur, ns = js.variable_scope, js.get_variable, js.get_variable_scope, js.name_scope

LOSSES = js.GraphKeys.REGULARIZATION_LOSSES
UNKNOWN = "?"  # stands for a value in a pass that makes none

_lines: list[str] = []


class _Unknown:
    def __repr__(self) -> str:
        return UNKNOWN


def P(*values: Any) -> None:
    """Prints one line."""
    _lines.append(" ".join("AUTO" if value is AUTO else str(value) for value in values))


def E(call: Callable[[], Any]) -> None:
    """Calls and prints the error; what is not jscope's own prints its message only if the row itself raised it."""
    try:
        call()
    except js.JscopeError as error:
        builtin = next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")
        P(builtin, error.kind)
    except KeyError as error:
        P("KeyError:", error)
    except Exception as error:
        P(type(error).__name__)


def val(array: Any, show: Callable[[np.ndarray], Any] = lambda value: value) -> Any:
    """The value of an array as `show` has it; a stand-in that matches anything where the pass is abstract."""
    if isinstance(array, jax.core.Tracer):
        return _Unknown()
    return show(np.asarray(array)[()])


def nm(array: Any) -> str:
    """TF1's `v.op.name`."""
    return js.name_of(array)


def spec(array: Any) -> js.VariableSpec:
    """What is known of a variable that is in one of the standard collections."""
    listed = [*js.global_variables(), *js.local_variables(), *js.trainable_variables()]
    return next(v for v in listed if v.name == js.name_of(array))


def names(variables: Iterable[js.VariableSpec]) -> list[str]:
    return [v.name for v in variables]


def op(name: str) -> str:
    """The op name of an ordinary operation made here."""
    with ns(name) as opened:
        return opened.removesuffix("/")


def op_scope() -> str:
    """The op scope in force, without touching the op-name table."""
    with vs("looking", auxiliary_name_scope=False) as scope:
        return scope.original_name_scope.removesuffix("/")


def _run(program: Callable[[], None]) -> list[str]:
    """The lines of one run."""
    _lines.clear()
    # A scope that the program leaves open must not show in the next test's op names.
    with jax.named_scope("row"):
        program()
    return _lines.copy()


def _in_build(program: Callable[[], None]) -> dict[str, list[str]]:
    with js.build(jax.random.key(0)) as built:
        made = _run(program)
    with js.bind(built.params):
        read = _run(program)
    return {"build": made, "bind": read}


def _in_transform(program: Callable[[], None]) -> dict[str, list[str]]:
    runs: dict[str, list[str]] = {}
    call = ""

    def run() -> None:
        runs[f"{call}, run {len(runs)}"] = _run(program)

    net = js.transform(run)
    call = "specs"
    net.specs()
    call = "init"
    params = net.init(jax.random.key(0))
    call = "apply"
    net.apply(params)
    call = "traced apply"
    jax.make_jaxpr(lambda params: net.apply(params))(params)
    return runs


_MODES = {"build": _in_build, "transform": _in_transform}


def matches(found: list[str], expected: list[str]) -> bool:
    """Whether lines agree, where an unknown value agrees with any text."""
    patterns = [".+?".join(map(re.escape, line.split(UNKNOWN))) for line in found]
    return len(found) == len(expected) and all(map(re.fullmatch, patterns, expected))


def row(expected: str, *, x64: bool = False) -> Callable[[Callable[[], None]], Callable[..., None]]:
    """Makes a test of a program and the lines that it must print, in every mode."""
    lines = expected.strip("\n").split("\n") if expected.strip() else []

    def decorate(program: Callable[[], None]) -> Callable[..., None]:
        @pytest.mark.parametrize("mode", _MODES)
        def test(mode: str) -> None:
            with jax.enable_x64(x64):
                runs = _MODES[mode](program)
            assert len(runs) >= 2
            wrong = {run: found for run, found in runs.items() if not matches(found, lines)}
            assert not wrong, f"{wrong}\ninstead of {lines}"

        test.__name__ = test.__qualname__ = program.__name__
        test.__doc__ = program.__doc__
        test.expected = lines  # type: ignore[attr-defined]
        return test

    return decorate
