"""The one file that may name a JAX API without a promise of compatibility. Floor 0.

That is parts of `jax.extend.core`, and of `jax.interpreters` where it tells which module a function lives in.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import jax
from jax.extend import core


def trace_state() -> Any:
    """What stands for the trace in progress: comparable with `==`, and holds nothing alive."""
    return core.get_opaque_trace_state()


def needed_only(closed: Any) -> Callable[..., list[Any]]:
    """A traced program (of `jax.make_jaxpr`) as a function that computes its results and nothing else.

    What the results don't need is left out, effects such as `jax.debug.callback` among it. What touches a ref that is
    needed is kept: later reads of it see earlier writes.
    """
    jaxpr = closed.jaxpr
    needed = {id(var) for var in jaxpr.outvars}
    kept = []
    for equation in reversed(jaxpr.eqns):
        refs = [var for var in equation.invars if hasattr(getattr(var, "aval", None), "inner_aval")]
        if any(id(var) in needed for var in (*equation.outvars, *refs)):
            kept.append(equation)
            needed.update(id(var) for var in equation.invars)
    effects = set().union(*(equation.effects for equation in kept))
    pruned = jaxpr.replace(eqns=kept[::-1], effects=effects)
    return core.jaxpr_as_fun(closed.replace(jaxpr=pruned))


def enclosing_transforms(entry: CodeType) -> tuple[str, ...]:
    """The JAX transforms at work around the call in progress, the innermost first, as the Python stack shows them.

    JAX traces a function while it calls it, so whatever transforms what runs now has a frame on the stack, unless it
    is applied later to what was traced before.

    Args:
      entry: the code in which the program was entered; it reads "program" in the result.

    Returns:
      Some of "checkpoint", "loop" (scan, map, fori and while), "while_loop" and perhaps "while_condition" after that,
      "cond" (and switch), "vmap", "derivative", "custom_jvp", "custom_vjp", "trace" (whatever stages its function out),
      and "program" once.
    """
    modules, codes = _landmarks()
    found: list[str] = []
    users: set[CodeType] = set()  # what runs inside the transform that is looked for next
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code is entry and "program" not in found:
            found.append("program")
        elif code in codes:
            found.append(codes[code])
            if found[-1] == "while_loop" and not _is_body(frame, users):
                found.append("while_condition")
        else:
            name = modules.get(frame.f_globals.get("__name__", ""))
            if name is not None and found[-1:] != [name]:
                found.append(name)
            users.add(code)
        frame = frame.f_back
    return tuple(found)


@functools.cache
def _landmarks() -> tuple[dict[str, str], dict[CodeType | None, str]]:
    """Which modules and functions of JAX stand for which transform."""
    from jax.interpreters import ad, batching, partial_eval

    of_module: dict[Any, str] = {
        jax.checkpoint: "checkpoint",
        jax.lax.scan: "loop",
        jax.lax.cond: "cond",
        ad.jvp: "derivative",
        batching.broadcast: "vmap",
        partial_eval.trace_to_jaxpr_dynamic: "trace",
    }
    of_code: dict[Any, str] = {
        jax.lax.while_loop: "while_loop",
        jax.custom_jvp.__call__: "custom_jvp",
        jax.custom_vjp.__call__: "custom_vjp",
    }
    modules = {inspect.unwrap(function).__globals__["__name__"]: name for function, name in of_module.items()}
    return modules, {_code(function): name for function, name in of_code.items()}


def _code(function: Any) -> CodeType | None:
    """The code that runs when `function` is called, below wrappers; None where that is not Python's."""
    while not hasattr(function, "__code__"):
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif hasattr(function, "__func__"):
            function = function.__func__
        else:
            return getattr(type(function).__call__, "__code__", None)
    return getattr(inspect.unwrap(function), "__code__", None)


def _is_body(while_loop: FrameType, running: set[CodeType]) -> bool:
    """Whether it is the body of a `lax.while_loop` that runs in it, not the condition; False where that is unsure."""
    arguments = while_loop.f_locals
    condition, body = _code(arguments["cond_fun"]), _code(arguments["body_fun"])
    return body in running and condition not in running
