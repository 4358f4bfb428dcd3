"""The one file that may name a JAX API without a promise of compatibility. Floor 0.

That is parts of `jax.extend.core`, what a traced program (of `jax.make_jaxpr`) is made of, of `jax.interpreters` what
tells which module a function lives in, and what has another name in another version of JAX.
"""

from __future__ import annotations

import functools
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
