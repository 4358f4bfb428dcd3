"""The one file that may name a JAX API without a promise of compatibility. Floor 0.

That is parts of `jax.extend.core`, of `jax.interpreters` where it tells which module a function lives in, and what has
another name in another version of JAX.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

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


def differentiating_and_staging() -> tuple[Any, Any]:
    """A function of JAX's for derivatives, and one that traces functions: what stands in their modules does that."""
    from jax.interpreters import ad, partial_eval

    return ad.jvp, partial_eval.trace_to_jaxpr_dynamic
