"""The one file that may name a JAX API without a promise of compatibility. Floor 0.

That is parts of `jax.extend.core`, and of `jax.interpreters` where it tells which module a function lives in.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple

import jax


@functools.cache
def _core() -> Any:
    # Imported at the first program, since it takes as long as a third of jscope: it brings Pallas with it.
    from jax.extend import core

    return core


def trace_reader() -> Callable[[], Any]:
    """A function that tells the trace in progress by an object comparable with `==`, which holds nothing alive."""
    return _core().get_opaque_trace_state


@functools.cache
def trace_finder() -> Callable[[tuple[()]], Any]:
    """A function of `()` that gives the trace in progress itself; each time another object where JAX has no such thing.

    Four times as fast as `trace_reader`. What it gives keeps the trace alive, which JAX's leak checker minds.
    """
    find = getattr(_core(), "find_top_trace", None)
    tells: list[bool] = []
    if find is not None:
        outside = find(())
        jax.eval_shape(lambda: tells.append(find(()) is find(()) is not outside))
    # Looked at rather than believed, since a function that does not tell traces would make wrong results silently.
    return find if find is not None and tells == [True] else lambda _: object()


def is_differentiated(value: Any) -> bool:
    """Whether a value is being differentiated by the derivative in whose trace it was made."""
    # By name, since only the first of these classes can be had in public, from jax.interpreters.ad.
    return type(value).__name__ in ("JVPTracer", "LinearizeTracer")


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
    return _core().jaxpr_as_fun(closed.replace(jaxpr=pruned))


class Surroundings(NamedTuple):
    """The JAX transforms at work around a call, the innermost first.

    Attributes:
      transforms: some of "checkpoint", "scan" (map and fori_loop too), "while_loop" (fori_loop too) and perhaps
        "while_condition" after that, "cond" (and switch), "vmap", "derivative", "custom_jvp", "custom_vjp",
        "shard_map", "trace" (whatever stages its function out), and "program" where the program was entered.
      loops: for each loop within the program the frame of `lax.scan` or `lax.while_loop`, and that of the user's
        function which it traces. Left out where that function can't be told from another.
    """

    transforms: tuple[str, ...]
    loops: tuple[tuple[FrameType, FrameType], ...]

    def within(self, name: str) -> bool:
        """Whether a transform is around the call within the program."""
        return name in self.transforms[: self.transforms.index("program")]

    def nested(self, *names: str) -> bool:
        """Whether these transforms are around the call in this order, the first of them within the program."""
        rest = iter(self.transforms)
        return self.within(names[0]) and all(name in rest for name in names)


def surroundings(entry: CodeType | None) -> Surroundings:
    """The JAX transforms around the call in progress, as the Python stack shows them.

    JAX traces a function while it calls it, so whatever transforms what runs now has a frame on the stack, unless it
    is applied later to what was traced before.

    Args:
      entry: the code in which programs are entered; None where none runs.
    """
    modules, codes = _landmarks()
    found: list[str] = []
    loops: list[tuple[FrameType, FrameType]] = []
    users: list[CodeType] = []
    user = frame = sys._getframe(1)
    while frame is not None:
        code, module = frame.f_code, frame.f_globals.get("__name__", "")
        name = codes.get(id(code)) or modules.get(module)
        if code is entry and "program" not in found:
            found.append("program")
        elif name is not None and found[-1:] != [name]:
            found.append(name)
        if name in ("scan", "while_loop") and "program" not in found and _traces_one_function(frame):
            loops.append((frame, user))
        if name == "while_loop" and not _is_body(frame, users):
            found.append("while_condition")
        if name is None and module.partition(".")[0] not in ("jax", "jaxlib", "jscope"):
            user = frame
            users.append(code)
        frame = frame.f_back
    return Surroundings(tuple(found), tuple(loops))


def _traces_one_function(loop: FrameType) -> bool:
    """Whether all that a loop calls by one code is one function, called once for each time it is traced."""
    arguments = loop.f_locals
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return False  # called once for each turn
    return "cond_fun" not in arguments or _code(arguments["cond_fun"]) is not _code(arguments["body_fun"])


@functools.cache
def _landmarks() -> tuple[dict[str, str], dict[int, str]]:
    """Which modules, and which code (by id: it is slow to hash), stand for which transform."""
    from jax.interpreters import ad, partial_eval

    of_module: dict[Any, str] = {
        jax.checkpoint: "checkpoint",
        jax.lax.cond: "cond",
        jax.shard_map: "shard_map",
        ad.jvp: "derivative",
        partial_eval.trace_to_jaxpr_dynamic: "trace",
    }
    of_code: dict[Any, str] = {
        jax.lax.scan: "scan",
        jax.lax.while_loop: "while_loop",
        jax.custom_jvp.__call__: "custom_jvp",
        jax.custom_vjp.__call__: "custom_vjp",
    }
    modules = {inspect.unwrap(function).__globals__["__name__"]: name for function, name in of_module.items()}
    codes = {id(_code(function)): name for function, name in of_code.items()}
    # What jax.vmap returns: JAX's module for batching also runs what is not in a vmap, such as custom_vjp functions
    # that are called under one.
    vmapped = [constant for constant in inspect.unwrap(jax.vmap).__code__.co_consts if isinstance(constant, CodeType)]
    return modules, codes | dict.fromkeys(map(id, vmapped), "vmap")


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


def _is_body(while_loop: FrameType, running: list[CodeType]) -> bool:
    """Whether it is the body of a `lax.while_loop` that runs in it, not the condition; False where that is unsure."""
    arguments = while_loop.f_locals
    if getattr(arguments["cond_fun"], "__globals__", None) is while_loop.f_globals:
        return True  # the condition of lax.fori_loop, which is no user's
    condition, body = _code(arguments["cond_fun"]), _code(arguments["body_fun"])
    return any(code is body for code in running) and not any(code is condition for code in running)
