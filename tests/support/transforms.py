"""JAX's transforms, each as a wrapper of a function of one scalar, with what it does to that function's value.

A `Transform` has two halves that know nothing of each other:

* `wrap(f)` puts `f` under the transform, in plain JAX. What JAX sees as the transformed function is made once, by
  `wrap`; the result may be called any number of times, so JAX may remember the traces.
* `traces` and `run` say in plain Python what must come out. `f` is `traces` bodies, which JAX calls to learn what they
  do; each of these is a *site*. `run(sites, x)` calls the sites as often, and in the order, as the compiled program
  executes them.

`model` puts the second halves together for transforms inside transforms. Numbers go through it exactly as arrays go
through the wrapped function, so it is where the tests take their expected values from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

Scalar = Callable[[Any], Any]


@dataclass(frozen=True)
class Transform:
    """One way to put a function of a scalar under a transform of JAX.

    Attributes:
      wrap: `f` to the transformed function, which gives what `run` says.
      traces: how many bodies `f` is, for one call of the transformed function.
      calls: how often JAX calls each of these bodies.
      run: `(sites, x) -> result` in plain Python.
      traits: what decides how it goes with others: "loop", "while", "branches", "checkpoint", "batches" (it has vmap),
        "reverse" and "forward" (it differentiates, in that mode), "custom" and "custom_jvp" (it has its own rule for
        derivatives), "at_once" (what depends on no tracer is done while JAX traces).
    """

    name: str
    wrap: Callable[[Scalar], Scalar]
    traces: int = 1
    calls: int = 1
    run: Callable[[Sequence[Scalar], Any], Any] = lambda sites, x: sites[0](x)
    traits: frozenset[str] = field(default_factory=frozenset)

    def __repr__(self) -> str:
        return self.name


Nesting = tuple[Transform, ...]


def name_of(nesting: Nesting) -> str:
    """`scan3-jit`: the outermost first."""
    return "-".join(t.name for t in nesting)


def wrapped(nesting: Nesting, f: Scalar) -> Scalar:
    """`f` under all of `nesting`, the first outermost."""
    for transform in reversed(nesting):
        f = transform.wrap(f)
    return f


def model(nesting: Nesting, new_site: Callable[[], Scalar]) -> Scalar:
    """`nesting` in plain Python: `new_site` gives the function of each site, in the order in which JAX traces them."""
    if not nesting:
        return new_site()
    first, *rest = nesting
    sites = [model(tuple(rest), new_site) for _ in range(first.traces)]
    return lambda x: first.run(sites, x)


def sites(nesting: Nesting) -> int:
    """How many bodies a function is, for one call of it under `nesting`."""
    return math.prod(transform.traces for transform in nesting)


def calls(nesting: Nesting) -> int:
    """How often JAX calls a function for one call of it under `nesting`."""
    return sites(nesting) * math.prod(transform.calls for transform in nesting)


def executions(nesting: Nesting) -> int:
    """How often the compiled program applies the function for one call of it under `nesting`."""
    applied = itertools.count()
    model(nesting, lambda: lambda x: x + 0 * next(applied))(0)
    return next(applied)


def depth(nesting: Nesting) -> int:
    """How often the function is applied on the way from the argument to the result."""
    return model(nesting, lambda: lambda x: x + 1)(0)


def nestings(deep: int) -> list[Nesting]:
    """All nestings of `deep` transforms."""
    return list(itertools.product(TRANSFORMS, repeat=deep))


# The wrappers. What each hands to JAX is made before it is called, so that JAX sees the same function at every call.


def _scan(length: int) -> Callable[[Scalar], Scalar]:
    def wrap(f: Scalar) -> Scalar:
        def body(carry: Any, _: None) -> Any:
            return f(carry), None

        return lambda x: jax.lax.scan(body, x, None, length=length)[0]

    return wrap


def _fori_loop(f: Scalar) -> Scalar:
    def body(_: Any, carry: Any) -> Any:
        return f(carry)

    return lambda x: jax.lax.fori_loop(0, 2, body, x)


def _fori_until(f: Scalar) -> Scalar:
    """To a bound that JAX may not know while it traces: it then makes a while_loop with a condition of its own."""

    def body(_: Any, carry: Any) -> Any:
        return f(carry)

    return lambda x: jax.lax.fori_loop(0, 2 + jnp.int32(0 * x), body, x)


def _while_loop(ask: Callable[[], None]) -> Callable[[Scalar], Scalar]:
    def wrap(f: Scalar) -> Scalar:
        def goes_on(state: Any) -> Any:
            ask()
            return state[0] < 2

        def body(state: Any) -> Any:
            return state[0] + 1, f(state[1])

        return lambda x: jax.lax.while_loop(goes_on, body, (0, x))[1]

    return wrap


def _ambient_call() -> None:
    js.get_variable_scope()


def _cond(f: Scalar) -> Scalar:
    def other(x: Any) -> Any:
        return -f(x)

    return lambda x: jax.lax.cond(x < jnp.inf, f, other, x)


def _cond_not(f: Scalar) -> Scalar:
    def other(x: Any) -> Any:
        return -f(x)

    return lambda x: jax.lax.cond(False, other, f, x)


def _switch(f: Scalar) -> Scalar:
    def other(x: Any) -> Any:
        return -f(x)

    def plain(x: Any) -> Any:
        return 2 * x

    return lambda x: jax.lax.switch(1, [other, f, plain], x)


def _map(f: Scalar) -> Scalar:
    return lambda x: jax.lax.map(f, jnp.stack([x, x + 1]))[0]


def _map_batch(f: Scalar) -> Scalar:
    return lambda x: jax.lax.map(f, jnp.stack([x, x + 1, x + 2]), batch_size=2)[0]


def _associative_scan(f: Scalar) -> Scalar:
    # Three elements: on two, JAX would call the function once more, with no elements.
    def combine(a: Any, _: Any) -> Any:
        return f(a[0])[None]

    return lambda x: jax.lax.associative_scan(combine, jnp.stack([x, x, x]))[-1]


def _vmap(f: Scalar) -> Scalar:
    batched = jax.vmap(f)
    return lambda x: batched(jnp.stack([x, x + 1]))[0]


# A derivative is taken and added zero times, so that the value is that of the function and yet nothing can be left out.


def _grad(f: Scalar) -> Scalar:
    def twice(x: Any) -> Any:
        y = f(x)
        return y, y

    gradient = jax.grad(twice, has_aux=True)

    def call(x: Any) -> Any:
        slope, y = gradient(x)
        return y + 0 * slope

    return call


def _value_and_grad(f: Scalar) -> Scalar:
    both = jax.value_and_grad(f)

    def call(x: Any) -> Any:
        y, slope = both(x)
        return y + 0 * slope

    return call


def _vjp(f: Scalar) -> Scalar:
    def call(x: Any) -> Any:
        y, pull = jax.vjp(f, x)
        return y + 0 * pull(jnp.ones_like(y))[0]

    return call


def _linearize(f: Scalar) -> Scalar:
    def call(x: Any) -> Any:
        y, push = jax.linearize(f, x)
        return y + 0 * push(jnp.ones_like(x))

    return call


def _jvp(f: Scalar) -> Scalar:
    def call(x: Any) -> Any:
        y, slope = jax.jvp(f, (x,), (jnp.ones_like(x),))
        return y + 0 * slope

    return call


def _custom_jvp(f: Scalar) -> Scalar:
    primal = jax.custom_jvp(f)
    primal.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    return primal


def _custom_vjp(f: Scalar) -> Scalar:
    primal = jax.custom_vjp(f)
    primal.defvjp(lambda x: (x, None), lambda _, slope: (slope,))
    return primal


def _closure_convert(f: Scalar) -> Scalar:
    def call(x: Any) -> Any:
        converted, closed_over = jax.closure_convert(f, x)
        return converted(x, *closed_over)

    return call


def _compile_time_eval(f: Scalar) -> Scalar:
    def call(x: Any) -> Any:
        with jax.ensure_compile_time_eval():
            return f(x)

    return call


def _second(sites: Sequence[Scalar], x: Any) -> Any:
    return sites[1](x)


def _times(n: int) -> Callable[[Sequence[Scalar], Any], Any]:
    def run(sites: Sequence[Scalar], x: Any) -> Any:
        for _ in range(n):
            x = sites[0](x)
        return x

    return run


def _each(*numbers: int) -> Callable[[Sequence[Scalar], Any], Any]:
    """Element i of `x, x + 1, ...` goes to the site of that number; the result is that of the first."""

    def run(sites: Sequence[Scalar], x: Any) -> Any:
        first, *_ = [sites[number](x + i) for i, number in enumerate(numbers)]
        return first

    return run


def _traits(*names: str) -> frozenset[str]:
    return frozenset(names)


TRANSFORMS = (
    Transform("jit", jax.jit),
    Transform("checkpoint", jax.checkpoint, traits=_traits("checkpoint")),
    Transform("scan1", _scan(1), traits=_traits("loop")),
    Transform("scan3", _scan(3), run=_times(3), traits=_traits("loop")),
    Transform("fori", _fori_loop, run=_times(2), traits=_traits("loop")),
    Transform("fori_until", _fori_until, run=_times(2), traits=_traits("loop", "while")),
    Transform("while", _while_loop(lambda: None), run=_times(2), traits=_traits("loop", "while")),
    Transform("while_ambient", _while_loop(_ambient_call), run=_times(2), traits=_traits("loop", "while")),
    Transform("cond", _cond, traces=2, traits=_traits("branches")),
    Transform("cond_not", _cond_not, traces=2, run=_second, traits=_traits("branches")),
    Transform("switch", _switch, traces=2, run=_second, traits=_traits("branches")),
    Transform("map", _map, run=_each(0, 0), traits=_traits("loop")),
    Transform("map_batch", _map_batch, calls=2, run=_each(0, 0, 0), traits=_traits("loop", "batches")),
    Transform("associative_scan", _associative_scan, calls=2, run=_times(2)),
    Transform("vmap", _vmap, run=_each(0, 0), traits=_traits("batches")),
    Transform("grad", _grad, traits=_traits("reverse")),
    Transform("value_and_grad", _value_and_grad, traits=_traits("reverse")),
    Transform("vjp", _vjp, traits=_traits("reverse")),
    Transform("linearize", _linearize, traits=_traits("forward")),
    Transform("jvp", _jvp, traits=_traits("forward")),
    Transform("custom_jvp", _custom_jvp, traits=_traits("custom", "custom_jvp")),
    Transform("custom_vjp", _custom_vjp, traits=_traits("custom")),
    Transform("closure_convert", _closure_convert),
    Transform("compile_time_eval", _compile_time_eval, traits=_traits("at_once")),
)
