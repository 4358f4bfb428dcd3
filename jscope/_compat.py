"""The one file that may name a JAX API without a promise of compatibility. Floor 0.

That is parts of `jax.extend.core`, what a traced program (of `jax.make_jaxpr`) is made of, of `jax.interpreters` what
tells which module a function lives in, and what has another name in another version of JAX.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax
import numpy as np

_Function = TypeVar("_Function", bound=Callable[..., Any])


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
    """A function of `()` that gives the trace in progress itself. Where JAX has none, what it gives equals nothing.

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


def jit_inlined(function: _Function) -> _Function:
    """`jax.jit` of a function whose equations then stand in the trace that calls it, as those of jax.numpy do."""
    kinds = getattr(jax, "Inline", None)  # older versions have one kind, called True
    return jax.jit(function, inline=True if kinds is None else kinds.JAX_EARLY)  # type: ignore[return-value]  # of the same signature


def is_sharding_error(error: BaseException) -> bool:
    """Whether JAX says that it does not know how to shard a result, or can't."""
    # By name, since the classes can't be had in public.
    return type(error).__name__ in ("ShardingTypeError", "DuplicateSpecError")


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


def with_constants(closed: Any, constants: list[Any]) -> Callable[..., list[Any]]:
    """A traced program as a function, with other constants in the place of its own; they may be traced."""
    return _core().jaxpr_as_fun(closed.replace(consts=constants))


def depends_on(closed: Any, argument: int) -> bool:
    """Whether what a traced program computes depends on one of its arguments."""
    jaxpr = closed.jaxpr
    needed = {id(var) for var in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(var) in needed for var in equation.outvars):
            needed.update(id(var) for var in equation.invars)
    return id(jaxpr.invars[argument]) in needed


class _NoKeyError(Exception):
    """A traced program in which there is something of which it can't be told what it does."""


def program_key(closed: Any) -> Hashable | None:
    """Equal for traced programs that compute the same from their arguments and constants; None where that is not known.

    It holds no array: constants of the program itself are told by their types alone, those of functions in it can't be
    told at all.
    """
    try:
        key = _jaxpr_key(closed.jaxpr)
        hash(key)
    except (_NoKeyError, TypeError):  # a TypeError is of what has no hash, such as an array
        return None
    return key


# How these are differentiated is not what they compute.
_RULES = {
    "custom_jvp_call": {"jvp_jaxpr_fun"},
    "custom_vjp_call": {"fwd_jaxpr_thunk", "bwd"},
}


def _jaxpr_key(jaxpr: Any) -> Hashable:
    numbers: dict[int, int] = {}

    def atom(var: Any) -> Hashable:
        if hasattr(var, "val"):  # a literal
            value = np.asarray(var.val)
            return var.aval, value.dtype, value.tobytes()
        return numbers.setdefault(id(var), len(numbers))

    taken = [(atom(var), var.aval) for var in (*jaxpr.constvars, *jaxpr.invars)]
    steps = [
        (
            equation.primitive,
            equation.ctx,  # settings of JAX's, one object for each combination
            tuple(map(atom, equation.invars)),
            tuple((atom(var), var.aval) for var in equation.outvars),
            tuple(
                (name, _parameter_key(value))
                for name, value in sorted(equation.params.items())
                if name not in _RULES.get(equation.primitive.name, ())
            ),
        )
        for equation in jaxpr.eqns
    ]
    return tuple(taken), tuple(steps), tuple(map(atom, jaxpr.outvars))


def _parameter_key(value: Any) -> Hashable:
    if hasattr(value, "eqns"):
        if getattr(value, "consts", None):
            raise _NoKeyError
        return _jaxpr_key(getattr(value, "jaxpr", value))
    if isinstance(value, tuple | list):
        return type(value), tuple(map(_parameter_key, value))
    if callable(value) and not isinstance(value, type | jax.sharding.Mesh):  # a callback, say, may hold anything
        raise _NoKeyError
    return type(value), value.hex() if isinstance(value, float) else value  # tells 0.0 from -0.0


def differentiating_and_staging() -> tuple[Any, Any]:
    """A function of JAX's for derivatives, and one that traces functions: what stands in their modules does that."""
    from jax.interpreters import ad, partial_eval

    return ad.jvp, partial_eval.trace_to_jaxpr_dynamic


# What gives the same numbers in another form: a read of its result is a read of what it was made of.
_VIEWS = {
    "broadcast_in_dim", "convert_element_type", "copy", "copy_p", "reduce_precision", "reshape", "sharding_constraint",
    "squeeze", "transpose",
}  # fmt: skip
_CALLS = {"jit", "pjit"}  # by version of JAX


class _Watched:
    """An array whose readers are counted, and what was done to its form since."""

    def __init__(self, array: Any, views: tuple[Callable[[Any], Any], ...] = ()) -> None:
        self.array = array
        self.views = views

    def viewed(self, view: Callable[..., list[Any]]) -> _Watched:
        return _Watched(self.array, (*self.views, lambda array: view(array)[0]))

    def now(self, array: Any) -> Any:
        """Another array in the form that this one has by now."""
        return functools.reduce(lambda value, view: view(value), self.views, array)


def run_watched(closed: Any, arguments: list[Any], watched: int, read: Callable[[Any, str], Any]) -> list[Any]:
    """Runs a traced program, asking what each operation that reads one of its arguments reads in its place.

    An operation is an equation outside `jit`: what stands in a `scan`, a `cond` or a `checkpoint` is one operation.
    Changes of form, such as a transposition or a cast, are none.

    Args:
      closed: of `jax.make_jaxpr`.
      arguments: its arguments.
      watched: which of them.
      read: from the argument, and where the operation stands, to the array that it reads instead.
    """
    values = [_Watched(value) if i == watched else value for i, value in enumerate(arguments)]
    results = _run_watched(closed.jaxpr, closed.consts, values, read)
    return [value.now(value.array) if isinstance(value, _Watched) else value for value in results]


def _run_watched(jaxpr: Any, constants: Any, arguments: list[Any], read: Callable[[Any, str], Any]) -> list[Any]:
    values = {
        id(var): value for var, value in zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True)
    }
    for equation in jaxpr.eqns:
        inputs = [var.val if hasattr(var, "val") else values[id(var)] for var in equation.invars]
        inner = equation.params.get("jaxpr") if equation.primitive.name in _CALLS else None
        seen = [value for value in inputs if isinstance(value, _Watched)]
        if inner is not None:
            results = _run_watched(inner.jaxpr, inner.consts, inputs, read)
        elif not seen:
            results = _equation(jaxpr, equation)(*inputs)
        elif equation.primitive.name in _VIEWS:
            results = [seen[0].viewed(_equation(jaxpr, equation))]
        else:
            results = _equation(jaxpr, equation)(*_read(inputs, _place(jaxpr, equation), read))
        values.update((id(var), value) for var, value in zip(equation.outvars, results, strict=True))
    return [var.val if hasattr(var, "val") else values[id(var)] for var in jaxpr.outvars]


def _read(inputs: list[Any], place: str, read: Callable[[Any, str], Any]) -> list[Any]:
    found: dict[int, Any] = {}
    taken = []
    for value in inputs:
        if isinstance(value, _Watched):
            if id(value.array) not in found:
                found[id(value.array)] = read(value.array, place)
            value = value.now(found[id(value.array)])
        taken.append(value)
    return taken


def _equation(jaxpr: Any, equation: Any) -> Callable[..., list[Any]]:
    """One equation as a function of its inputs."""
    variables = [var for var in equation.invars if not hasattr(var, "val")]
    distinct = list({id(var): var for var in variables}.values())
    alone = jaxpr.replace(
        constvars=[], invars=distinct, outvars=list(equation.outvars), eqns=[equation], effects=equation.effects
    )
    function = _core().jaxpr_as_fun(_core().ClosedJaxpr(alone, []))

    def run(*inputs: Any) -> list[Any]:
        given = {id(var): value for var, value in zip(equation.invars, inputs, strict=True)}
        return function(*(given[id(var)] for var in distinct))

    return run


_SOURCE = re.compile(r"# (\S+?:\d+)")


def _place(jaxpr: Any, equation: Any) -> str:
    """`dot_general at model.py:12`, as far as JAX's own listing tells where an equation was made."""
    text = jaxpr.replace(eqns=[equation]).pretty_print(source_info=True, use_color=False)
    found = _SOURCE.search(text)
    return f"{equation.primitive.name} at {found[1]}" if found else equation.primitive.name
