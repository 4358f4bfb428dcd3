"""The one file that may name a JAX API without a promise of compatibility: parts of `jax.extend.core`. Floor 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
