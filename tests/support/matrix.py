"""What the tests of the matrix of transforms share: its rows, the contexts around them, and what must come out.

Rows are the transforms of `transforms.py` and all nestings of two and three of them. What must come out is computed by
the plain Python model that `transforms.py` has of each transform: numbers, lists and loops. Neither JAX nor jscope
takes part in it. Only random keys, whose arithmetic is their own, are those that the same program gets where there is
no transform.

A cell is left out only where plain JAX has nothing to give, and that by a rule (`plain_jax_lacks`).
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import define_prng_impl
from transforms import Nesting, model, name_of, nestings, sites

import jscope as js

X = 3.0

# Keys whose arithmetic is one multiplication: with threefry, XLA would compile each cell four times as long.
CHEAP = jax.random.key(
    5,
    impl=define_prng_impl(
        key_shape=(1,),
        seed=lambda seed: jnp.asarray(seed).astype(jnp.uint32)[None],
        split=lambda key, shape: key + jnp.arange(np.prod(shape), dtype=jnp.uint32).reshape(*shape, 1),
        random_bits=lambda key, width, shape: jnp.broadcast_to(key[0], shape),
        fold_in=lambda key, data: jax.lax.add(jax.lax.mul(key, np.uint32([2654435761])), jax.lax.reshape(data, [1])),
        name="cheap",
        tag="cheap",
    ),
)
THREEFRY = jax.random.key(5)


def number(key: jax.Array) -> jax.Array:
    """A small number that tells one key from another."""
    last = jax.lax.index_in_dim(jax.random.key_data(key), -1, keepdims=False)
    return jax.lax.convert_element_type(jax.lax.rem(last, np.uint32(251)), np.float32)


@functools.cache
def numbers(scope: str, rng: str = "cheap") -> list[float]:
    """The numbers of the first keys of a scope, as a program gets them that has no transform in it."""

    def program():
        with js.variable_scope(scope):
            return [number(js.next_key()) for _ in range(16)]

    found = js.transform(program).apply({}, rng=CHEAP if rng == "cheap" else THREEFRY)
    return [float(one) for one in found]


# Rows ----------------------------------------------------------------------------------------------------------------


DERIVATIVES = {"reverse", "forward"}
AROUND = {"grad": {"reverse"}, "grad_of_traced": {"reverse"}, "vmap": {"batches"}, "vmap_of_traced": {"batches"}}


def plain_jax_lacks(nesting: Nesting, context: str = "") -> str:
    """Why plain JAX has no such thing, with or without variables; empty where it has."""
    levels = [AROUND.get(context, set()), *(t.traits for t in nesting)]
    for i, traits in enumerate(levels):
        inside = set().union(*levels[i + 1 :])
        if "reverse" in traits and "while" in inside:
            return "JAX has no reverse mode through while_loop"
        if traits & DERIVATIVES and "custom" in inside:
            return "the function's own rule runs in its place: nothing that it does happens"
    return ""


def jax_refuses_itself(nesting: Nesting, context: str) -> bool:
    """Where JAX refuses what was traced before, and jscope no longer runs; see `test_what_jscope_can_not_see`."""
    return context == "vmap_of_traced" and any("branches" in t.traits for t in nesting)


def may_be_refused(nesting: Nesting, context: str = "") -> str:
    """Why JAX can't carry an assigned variable through; empty where it can, and the cell must be right.

    Each reason was seen in plain JAX: a `jax.new_ref` that the transformed function closes over, reads and sets.
    """
    levels = [AROUND.get(context, set()), *(t.traits for t in nesting)]
    everywhere = set().union(*levels)
    if "batches" in set().union(*levels[1:]):
        return "vmap sets the variable to a batch of values"
    if "custom_jvp" in everywhere:
        return "JAX has no rule for refs in custom_jvp"
    if context == "eager" and "at_once" in everywhere and everywhere & {"loop", "branches"}:
        return "refs are no tracers there: JAX reads and sets them once, while it traces"
    for i, traits in enumerate(levels):
        inside = set().union(*levels[i + 1 :])
        if "batches" in traits and "branches" in inside:
            return "cond under vmap runs all branches: JAX refuses refs there"
        if traits & DERIVATIVES and "checkpoint" in inside:
            return "checkpoint runs twice: JAX fails, or counts twice and says nothing"
        if traits & DERIVATIVES and "while" in inside:
            return "linearize runs the loop twice: JAX counts twice and says nothing"
        for j, around in enumerate(levels[i + 1 :], i + 1):
            if traits & DERIVATIVES and "loop" in around and "branches" in set().union(*levels[j + 1 :]):
                return "JAX can't split a loop with a cond in it into what is known and what is linear"
    return ""


def rows(deep: int) -> list[Nesting]:
    """The nestings of `deep` transforms that plain JAX has."""
    return [nesting for nesting in nestings(deep) if not plain_jax_lacks(nesting)]


SINGLES, PAIRS, TRIPLES = rows(1), rows(2), rows(3)


def with_trait(*traits: str) -> list[Nesting]:
    return [row for row in SINGLES if row[0].traits & set(traits)]


# Contexts: ways to call a function `(tree, x) -> arrays`. Each gives the function's value.


def vmapped(f: Callable[..., Any]) -> Callable[..., Any]:
    def call(tree: Any, x: Any) -> Any:
        out = jax.jit(jax.vmap(f, in_axes=(None, 0)))(tree, jnp.stack([x, x + 1]))
        return jax.tree.map(lambda leaf: leaf[0], out)

    return call


def exported(f: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        there = jax.export.export(jax.jit(f))(*args).serialize()
        return jax.export.deserialize(there).call(*args)

    return call


def under_grad(f: Callable[..., Any]) -> Callable[..., Any]:
    """With the derivative by `x` taken of the first result."""

    def call(tree: Any, x: Any) -> Any:
        def first_and_all(x: Any) -> Any:
            out = f(tree, x)
            return jax.tree.leaves(out)[0], out

        return jax.jit(jax.grad(first_and_all, has_aux=True))(x)[1]

    return call


def of_traced(around: Callable[..., Any]) -> Callable[..., Any]:
    """`around` what JAX has traced before, with nothing around."""

    def wrap(f: Callable[..., Any]) -> Callable[..., Any]:
        jitted = jax.jit(f)

        def call(tree: Any, x: Any) -> Any:
            jitted(tree, x)
            return around(jitted)(tree, x)

        return call

    return wrap


CONTEXTS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "grad": under_grad,
    "vmap": vmapped,
    "grad_of_traced": of_traced(under_grad),
    "vmap_of_traced": of_traced(vmapped),
    "export": exported,
    "aot": lambda f: lambda *args: jax.jit(f).lower(*args).compile()(*args),
}


# Everything together --------------------------------------------------------------------------------------------------

template = js.make_template("t", lambda x: x + js.get_variable("v", [], initializer=js.constant_initializer(5)))


def everything(x: Any) -> Any:
    """Makes and reads variables, in a shared scope, in one by default name and in a template; takes a key; collects."""
    with js.variable_scope("s", reuse=js.AUTO_REUSE):
        x = x * js.get_variable("w", [], initializer=js.constant_initializer(-1), regularizer=lambda w: 3 * w)
    with js.variable_scope(None, "d"):
        x = x + js.get_variable("v", [], initializer=js.ones_initializer())
    js.add_to_collection("places", js.get_variable_scope().name)
    return template(x + number(js.next_key()))


def counting(x: Any) -> Any:
    """Counts how often it runs, adds up its arguments, and gives a value that depends on the count."""
    with js.variable_scope("m", reuse=js.AUTO_REUSE):
        n = js.get_variable("n", [], initializer=js.zeros_initializer(), trainable=False)
        total = js.get_variable("total", [], initializer=js.zeros_initializer(), trainable=False)
        js.assign(n, n + 1)
        js.assign(total, total + jax.lax.stop_gradient(x))
        return x + js.get_variable("n", [])


def everything_counted(x: Any) -> Any:
    return counting(everything(x))


# Which scopes a program calls its block in, and how often in each.
HERE_TWICE = (("a", 2), ("b", 1))
Scopes = tuple[tuple[str, int], ...]


def program_of(block: Callable[[Any], Any], scopes: Scopes = HERE_TWICE) -> Callable[[Any], Any]:
    """A program that calls `block` in scopes, and looks from outside at what it left."""

    def program(x: Any) -> Any:
        for scope, times in scopes:
            with js.variable_scope(scope):
                for _ in range(times):
                    x = block(x)
        places = Counter(js.get_collection("places"))
        counts = [js.value(v) for v in js.global_variables() if v.name.endswith("/n")]
        return x, counts, js.get_regularization_losses(), [jnp.int32(places[scope]) for scope, _ in scopes]

    return program


class Expected:
    """`program_of(wrapped(nesting, everything), scopes)` in plain Python; with `counted`, `everything_counted`.

    Attributes:
      names: of the variables, in order of creation.
      tree: values for them, small numbers that tell them apart; `w` is 1 or -1, so that all sums are exact.
      after: their values after the run.
    """

    def __init__(self, nesting: Nesting, scopes: Scopes = HERE_TWICE, seed: int = 0, counted: bool = False) -> None:
        self.nesting, self.scopes, self.counted = nesting, scopes, counted
        names: dict[str, float] = {}
        self._run(X, lambda name: names.setdefault(name, 1.0), {})
        self.names = list(names)
        signs = itertools.cycle([-1.0, 1.0] if seed % 2 else [1.0, -1.0])
        self.tree = {name: float((i * 7 + seed * 5) % 41 + 1) for i, name in enumerate(names)}
        self.tree |= {name: next(signs) for name in names if name.endswith("/w")}

    def _run(self, x: Any, get: Callable[[str], Any], state: dict[str, Any]) -> Any:
        template_scope = self.scopes[0][0]

        def one_site(scope: str, i: int) -> Callable[[Any], Any]:
            w, v = get(f"{scope}/s/w"), get(f"{scope}/d_{i}/v" if i else f"{scope}/d/v")
            t, key = get(f"{template_scope}/t/v"), numbers(scope)[i]
            n, total = f"{scope}/m/n", f"{scope}/m/total"
            if self.counted:
                state.setdefault(n, get(n))
                state.setdefault(total, get(total))

            def run(x: Any) -> Any:
                x = x * w + v + key + t
                if self.counted:
                    state[n] += 1
                    state[total] += x.real  # no derivative: a derivative is a step along the imaginary axis
                    x += state[n]
                return x

            return run

        for scope, times in self.scopes:
            sites_here = map(functools.partial(one_site, scope), itertools.count())
            for _ in range(times):
                x = model(self.nesting, sites_here.__next__)(x)
        return x

    def out(self, x: float = X) -> tuple[float, list[float], list[float], list[int]]:
        """What the program returns."""
        state: dict[str, float] = {}
        value = self._run(x, self.tree.__getitem__, state)
        counts = [state[name] for name in state if name.endswith("/n")]
        losses = [3 * self.tree[name] for name in self.names if name.endswith("/w")]
        return value, counts, losses, [times * sites(self.nesting) for _, times in self.scopes]

    def after(self, x: float = X) -> dict[str, float]:
        """The tree that `update` returns."""
        state: dict[str, float] = {}
        self._run(x, self.tree.__getitem__, state)
        return self.tree | state

    def gradients(self) -> dict[str, float]:
        """The derivatives of the value by the variables that are trainable."""
        step = 2.0**-70  # a power of two, so that nothing is rounded
        return {
            name: self._run(complex(X), lambda v, of=name: complex(self.tree[v], step * (v == of)), {}).imag / step
            for name in self.trainable()
        }

    def trainable(self) -> list[str]:
        return [name for name in self.names if "/m/" not in name]

    def initial(self) -> dict[str, float]:
        by_end = {"s/w": -1.0, "t/v": 5.0, "m/n": 0.0, "m/total": 0.0}
        return {name: by_end.get(name.partition("/")[2], 1.0) for name in self.names}


def arrays(tree: dict[str, float]) -> dict[str, jax.Array]:
    return {name: jnp.float32(value) for name, value in tree.items()}


def agrees(got: Any, want: Any) -> None:
    """The same structure, and exactly the same numbers."""
    assert jax.tree.map(float, got) == jax.tree.map(float, want)


def caller(net: Any, member: str = "apply") -> Callable[[Any, Any], Any]:
    return lambda tree, x: getattr(net, member)(tree, x, rng=CHEAP)


def is_in(function: Any, where: str) -> bool:
    """Whether `where` is a line of the function."""
    file, _, line = where.rpartition(":")
    lines = {line for _, _, line in function.__code__.co_lines()}
    return file == function.__code__.co_filename and int(line) in lines


PAIR_CONTEXTS = ("eager", "jit", "grad", "vmap")
EAGER_IS_SLOW = [pytest.param("eager", marks=pytest.mark.slow), "jit"]
over_singles = pytest.mark.parametrize("nesting", SINGLES, ids=name_of)


def cells(rows: Iterable[Nesting], *contexts: str) -> pytest.MarkDecorator:
    """Parametrizes over rows and contexts, without what plain JAX lacks."""
    possible = [(row, context) for row in rows for context in contexts if not plain_jax_lacks(row, context)]
    ids = [f"{name_of(row)}-{context}" for row, context in possible]
    return pytest.mark.parametrize(("nesting", "context"), possible, ids=ids)


# Programs that call one block several times ---------------------------------------------------------------------------


def product(x: Any) -> Any:
    return x * js.get_variable("w", [])


def twice(block: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """In a scope of its own, so that the numbers of its keys are known."""

    def program(x: Any) -> Any:
        with js.variable_scope("a"):
            return block(block(x))

    return program


def in_sites(nesting: Nesting, f: Callable[[int, Any], Any], times: int = 2) -> float:
    """`times` calls in plain Python, of a function that also gets the number of its site."""
    sites_here = (functools.partial(f, i) for i in itertools.count())
    x: Any = X
    for _ in range(times):
        x = model(nesting, sites_here.__next__)(x)
    return x


def in_scopes(block: Callable[[Any], Any], scopes: str) -> Callable[[Any], Any]:
    def program(x: Any) -> Any:
        for scope in scopes:
            with js.variable_scope(scope, reuse=js.AUTO_REUSE):
                x = block(x)
        return x

    return program
