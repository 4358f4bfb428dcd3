"""A step as in decoding: small matrices, a donated cache of keys and values, and very many leaves of parameters.

Every library computes the same with the same arrays in the same order: what differs is the tree that holds them. Two
programs: the step itself, and one that is handed the parameters and adds one to a number, which shows the handing over
alone. The tuple, which is the least that there can be, is measured twice: its second row is the noise of the run.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from device_parts import Found, Row, quartiles, traces, where

BASE = "tuple"
AGAIN = "tuple, again"
HEADS = 2
# The leaves of a layer in the order of their names, which is the order in which JAX sees them in each library. Before
# them come the layer's adapters, each with `scale` and `shift`.
NAMES = ("attn_k", "attn_o", "attn_q", "attn_v", "mlp_down", "mlp_up", "norm_a", "norm_b")
PROFILED_STEPS = 5
FOR_PROFILES = 3.0  # seconds that are left for each profile
ROUND = 0.03  # seconds that a case takes in one round, about


class Size(NamedTuple):
    layers: int
    adapters: int
    width: int
    time: int

    def leaves(self) -> int:
        return self.layers * (len(NAMES) + 2 * self.adapters)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one layer, by name."""
        matrix, vector = (self.width, self.width), (self.width,)
        wide = {"mlp_up": (self.width, 2 * self.width), "mlp_down": (2 * self.width, self.width)}
        return {name: wide.get(name, vector if name.startswith("norm") else matrix) for name in NAMES}

    def all_shapes(self) -> list[tuple[int, ...]]:
        return self.layers * [*(2 * self.adapters * [(self.width,)]), *self.shapes().values()]


def size_of(leaves: int, small: bool) -> Size:
    """So many leaves; a small run has few of them, in the same shape."""
    if small:
        return Size(layers=2, adapters=max(1, leaves // 400), width=8, time=4)
    layers = 10
    return Size(layers, (leaves // layers - len(NAMES)) // 2, width=64, time=128)


class Leaves(NamedTuple):
    """One layer's arrays, taken out of whatever tree holds them."""

    matrices: Sequence[jax.Array]
    adapters: Sequence[tuple[jax.Array, jax.Array]]


Cache = tuple[tuple[jax.Array, ...], tuple[jax.Array, ...], jax.Array]
Apply = Callable[[Any, Cache, jax.Array], tuple[jax.Array, Cache]]


# What is computed ---------------------------------------------------------------------------------------------------


def normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * scale


def layer(
    x: jax.Array, leaves: Leaves, keys: jax.Array, values: jax.Array, position: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One token through one layer: it looks at all that is in the cache, and puts itself there."""
    wk, wo, wq, wv, down, up, norm_a, norm_b = leaves.matrices
    h = normed(x, norm_a)
    keys = jax.lax.dynamic_update_slice(keys, h @ wk, (position, jnp.int32(0)))
    values = jax.lax.dynamic_update_slice(values, h @ wv, (position, jnp.int32(0)))
    heads = (HEADS, x.shape[-1] // HEADS)
    q, k, v = (a.reshape(a.shape[0], *heads) for a in (h @ wq, keys, values))
    seen = jnp.arange(keys.shape[0], dtype=jnp.int32) <= position
    weights = jnp.exp(jnp.einsum("qhd,thd->hqt", q, k) / heads[1] ** 0.5) * seen.astype(x.dtype)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    x = x + jnp.einsum("hqt,thd->qhd", weights, v).reshape(x.shape) @ wo
    h = normed(x, norm_b)
    x = x + jnp.tanh(h @ up) @ down
    scales, shifts = zip(*leaves.adapters, strict=True)
    return x * (1 + total(scales)) + total(shifts), keys, values


def total(arrays: Sequence[jax.Array]) -> jax.Array:
    """The sum, in groups: a GPU's kernel has few enough inputs then, and there is no chain of thousands."""
    sums = [functools.reduce(jnp.add, arrays[i : i + 50]) for i in range(0, len(arrays), 50)]
    return functools.reduce(jnp.add, sums)


def run(
    size: Size,
    leaves_of: Callable[[int], Leaves],
    cache: Cache,
    x: jax.Array,
    scope: Callable[[int], Any] = lambda i: contextlib.nullcontext(),
) -> tuple[jax.Array, Cache]:
    """The step, given how to get at the leaves of a layer, and how to enter its scope where there are scopes."""
    keys, values, position = list(cache[0]), list(cache[1]), cache[2]
    for i in range(size.layers):
        with scope(i):
            x, keys[i], values[i] = layer(x, leaves_of(i), keys[i], values[i], position)
    following = jax.lax.rem(position + jnp.int32(1), jnp.int32(size.time))
    return normed(x, jnp.ones((), x.dtype)), (tuple(keys), tuple(values), following)


# The libraries ------------------------------------------------------------------------------------------------------


def array(shape: tuple[int, ...]) -> jax.Array:
    return jnp.zeros(shape, jnp.bfloat16)


def in_tuple(size: Size) -> tuple[Any, Apply]:
    def apply(params: Any, cache: Cache, x: jax.Array) -> Any:
        leaves = iter(params)

        def leaves_of(i: int) -> Leaves:
            adapters = [(next(leaves), next(leaves)) for _ in range(size.adapters)]
            return Leaves([next(leaves) for _ in NAMES], adapters)

        return run(size, leaves_of, cache, x)

    return tuple(jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in size.all_shapes()), apply


def in_dict(size: Size) -> tuple[Any, Apply]:
    def apply(params: Any, cache: Cache, x: jax.Array) -> Any:
        def leaves_of(i: int) -> Leaves:
            own = params[f"layer_{i:02d}"]
            adapters = [own[f"adapter_{j:03d}"] for j in range(size.adapters)]
            return Leaves([own[name] for name in NAMES], [(one["scale"], one["shift"]) for one in adapters])

        return run(size, leaves_of, cache, x)

    vector = jax.ShapeDtypeStruct((size.width,), jnp.bfloat16)
    adapters = {f"adapter_{j:03d}": {"scale": vector, "shift": vector} for j in range(size.adapters)}
    matrices = {name: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in size.shapes().items()}
    return {f"layer_{i:02d}": {**adapters, **matrices} for i in range(size.layers)}, apply


def in_jscope(size: Size) -> tuple[Any, Apply]:
    import jscope as js

    def leaves_of(i: int) -> Leaves:
        adapters = []
        for j in range(size.adapters):
            with js.variable_scope(f"adapter_{j:03d}"):
                adapters.append((js.get_variable("scale", [size.width]), js.get_variable("shift", [size.width])))
        return Leaves([js.get_variable(name, shape) for name, shape in size.shapes().items()], adapters)

    def program(cache: Cache, x: jax.Array) -> Any:
        with js.variable_scope("", dtype=jnp.bfloat16):
            return run(size, leaves_of, cache, x, lambda i: js.variable_scope(f"layer_{i:02d}"))

    net = js.transform(program)
    return net.specs(*inputs(size)).abstract(), net.apply


def in_nnx(size: Size) -> tuple[Any, Apply]:
    """As its guide does it for `jax.jit`: the state is the argument, and merged with the graph definition inside."""
    from flax import nnx

    class Adapter(nnx.Module):
        def __init__(self) -> None:
            self.scale, self.shift = nnx.Param(array((size.width,))), nnx.Param(array((size.width,)))

    class Layer(nnx.Module):
        def __init__(self) -> None:
            self.adapters = nnx.List([Adapter() for _ in range(size.adapters)])
            for name, shape in size.shapes().items():
                setattr(self, name, nnx.Param(array(shape)))

        def leaves(self) -> Leaves:
            adapters = [(one.scale[...], one.shift[...]) for one in self.adapters]
            return Leaves([getattr(self, name)[...] for name in NAMES], adapters)

    class Net(nnx.Module):
        def __init__(self) -> None:
            self.layers = nnx.List([Layer() for _ in range(size.layers)])

    definition, state = nnx.split(nnx.eval_shape(Net))

    def apply(params: Any, cache: Cache, x: jax.Array) -> Any:
        net = nnx.merge(definition, params)
        return run(size, lambda i: net.layers[i].leaves(), cache, x)

    return state, apply


def in_equinox(size: Size) -> tuple[Any, Apply]:
    """The model is the tree. All of its leaves are arrays, so nothing has to be filtered out for JAX."""
    import equinox as eqx

    class Adapter(eqx.Module):
        scale: jax.Array
        shift: jax.Array

    class Layer(eqx.Module):
        adapters: list[Adapter]
        attn_k: jax.Array
        attn_o: jax.Array
        attn_q: jax.Array
        attn_v: jax.Array
        mlp_down: jax.Array
        mlp_up: jax.Array
        norm_a: jax.Array
        norm_b: jax.Array

        def leaves(self) -> Leaves:
            adapters = [(one.scale, one.shift) for one in self.adapters]
            return Leaves([getattr(self, name) for name in NAMES], adapters)

    class Net(eqx.Module):
        layers: list[Layer]

        def __call__(self, cache: Cache, x: jax.Array) -> Any:
            return run(size, lambda i: self.layers[i].leaves(), cache, x)

    def build() -> Net:
        def adapter() -> Adapter:
            return Adapter(array((size.width,)), array((size.width,)))

        matrices = [array(shape) for shape in size.shapes().values()]
        return Net([Layer([adapter() for _ in range(size.adapters)], *matrices) for _ in range(size.layers)])

    return jax.eval_shape(build), lambda net, cache, x: net(cache, x)


LIBRARIES: dict[str, Callable[[Size], tuple[Any, Apply]]] = {
    BASE: in_tuple,
    AGAIN: in_tuple,
    "jscope": in_jscope,
    "nested dict": in_dict,
    "Flax NNX": in_nnx,
    "Equinox": in_equinox,
}


# Measuring ----------------------------------------------------------------------------------------------------------


def inputs(size: Size) -> tuple[Cache, jax.Array]:
    """An empty cache and a first token. Both are new: the step eats its cache."""
    empty = [tuple(array((size.time, size.width)) for _ in range(size.layers)) for _ in range(2)]
    token = jnp.linspace(-1, 1, size.width, dtype=jnp.float32).astype(jnp.bfloat16)[None]
    return (empty[0], empty[1], jnp.int32(0)), token


class Case:
    """One program with one tree: how to call it many times in a row, and how long one call takes to return."""

    def __init__(self, library: str, tree: Any, step: Callable[..., Any], carry: tuple[Any, ...]) -> None:
        self.library, self._tree, self._step, self._carry = library, tree, step, carry

    def steps(self, count: int) -> Any:
        """Each step takes what the one before it gave; the last is waited for."""
        tree, step, carry = self._tree, self._step, self._carry
        for _ in range(count):
            carry = step(tree, *carry)
        self._carry = jax.block_until_ready(carry)
        return self._carry

    def returning(self, count: int) -> float:
        """Seconds until a call returns when nothing is under way before it: the median."""
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            carry = self._step(self._tree, *self._carry)
            seconds.append(time.perf_counter() - start)
            self._carry = jax.block_until_ready(carry)
        return statistics.median(seconds)


def tree_of(abstract: Any, leaves: Sequence[jax.Array]) -> Any:
    """The library's tree with the arrays in it that all libraries share."""
    own, structure = jax.tree.flatten(abstract)
    if [leaf.shape for leaf in own] != [leaf.shape for leaf in leaves]:
        raise AssertionError("this library's tree has its leaves in another order")
    return jax.tree.unflatten(structure, leaves)


def measure(found: Found, what: Sequence[str], small: bool, until: float) -> None:
    """`what` is the number of leaves."""
    size = size_of(int(what[0]), small)
    with compiled_once():
        device = where(found)
        steps, handed, rows = cases_of(found, size)
        profiles = FOR_PROFILES * len(steps) if device.platform != "cpu" else 0
        end = until - profiles
        now = time.monotonic()
        timed(found, steps, rows, 3 if small else 40, now + 0.7 * (end - now))
        timed(found, handed, rows, 3 if small else 40, end)
        # Afterwards, as the profiler may slow down what comes after it.
        for case in steps:
            rows[id(case)]["device_us"] = device_time(case)
            found.write()


def cases_of(found: Found, size: Size) -> tuple[list[Case], list[Case], dict[int, Row]]:
    """The two programs in each library, called once, and the beginnings of their rows."""
    numbers = np.random.default_rng(0)
    spread = 0.3 / size.leaves() ** 0.5
    leaves = [
        jnp.asarray(numbers.normal(0, spread if len(shape) == 1 else size.width**-0.5, shape), jnp.bfloat16)
        for shape in size.all_shapes()
    ]
    handed, steps = [], []
    rows: dict[int, Row] = {}
    first: dict[str, Any] = {}
    for library, make in LIBRARIES.items():
        try:
            abstract, apply = make(size)
            tree = tree_of(abstract, leaves)
            step, facts = compiled_step(apply, tree, size)
            case = Case(library, tree, step, inputs(size)[::-1])
            out = np.asarray(case.steps(1)[0], np.float32)
        except Exception as error:  # one library that is missing or too old must not take the others along
            found.add(case="step", leaves=size.leaves(), library=library, error=repr(error)[:300])
            continue
        first = first or {"program": facts["program"], "out": out}
        row = {"case": "step", "leaves": size.leaves(), "library": library, "first_call_s": facts["seconds"]}
        row |= {"same_program": facts["program"] == first["program"]}
        row |= {"same_numbers": bool(np.array_equal(out, first["out"]))}
        found.fact(**{f"seconds of the first call, {library}": round(facts["seconds"], 2)})
        steps.append(case)
        handing = jax.jit(lambda tree, x: (x + 1,), keep_unused=True)
        handed.append(Case(library, tree, handing, (jnp.float32(0),)))
        handed[-1].steps(1)
        rows |= {id(case): row, id(handed[-1]): {"case": "handing over", "leaves": size.leaves(), "library": library}}
    return steps, handed, rows


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """The libraries' programs are the same, so that XLA compiles the first only; the others are read from its cache.

    It must be there before anything is compiled: JAX looks for it once.
    """
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        yield
        jax.config.update("jax_compilation_cache_dir", None)


def compiled_step(apply: Apply, tree: Any, size: Size) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The jitted step, which has been called once, seconds for that, and a sum of its program's text."""

    # The function has one name in all libraries: it is part of the program's text.
    def step(params: Any, x: jax.Array, cache: Cache) -> Any:
        return apply(params, cache, x)

    jitted = jax.jit(step, donate_argnums=2)
    cache, x = inputs(size)
    start = time.perf_counter()
    text = jitted.lower(tree, x, cache).as_text()
    jax.block_until_ready(jitted(tree, x, cache))
    return jitted, {"seconds": time.perf_counter() - start, "program": hashlib.sha256(text.encode()).hexdigest()}


def timed(found: Found, cases: Sequence[Case], rows: dict[int, Row], rounds: int, until: float) -> None:
    """Rounds over all cases until time is up, each beginning with another case; then the rows have their figures."""
    if not cases:
        return
    counts = []
    for case in cases:
        case.steps(2)
        start = time.perf_counter()
        case.steps(3)
        counts.append(max(3, min(300, round(ROUND * 3 / max(time.perf_counter() - start, 1e-9)))))
    count = min(counts)  # as many for each: a longer queue may be cheaper per step
    each: list[list[float]] = [[] for _ in cases]
    returns: list[list[float]] = [[] for _ in cases]
    gc.collect()
    gc.freeze()
    for turn in range(rounds):
        if turn >= 3 and time.monotonic() > until:
            break
        for index in [(turn + i) % len(cases) for i in range(len(cases))]:
            gc.collect()
            gc.disable()
            start = time.perf_counter()
            cases[index].steps(count)
            each[index].append((time.perf_counter() - start) / count)
            returns[index].append(cases[index].returning(max(3, count // 5)))
            gc.enable()
    gc.unfreeze()
    for index, case in enumerate(cases):
        row = rows[id(case)]
        row |= {"rounds": len(each[index]), "steps_a_round": count}
        row |= spread_of("step", each[index], each[0]) | spread_of("return", returns[index], returns[0])
        found.add(**row)
        rows[id(case)] = found.rows[-1]


def spread_of(name: str, own: Sequence[float], base: Sequence[float]) -> Row:
    """Microseconds, and the ratios to the base in the same rounds, both with quartiles."""
    return {
        f"{name}_us": [1e6 * value for value in quartiles(own)],
        f"{name}_ratio": quartiles([a / b for a, b in zip(own, base, strict=True)]),
    }


def device_time(case: Case) -> float | None:
    """Microseconds of a step in which the device worked; None where the profile has no device, as on a CPU."""
    with traces.profiled() as folder:
        case.steps(PROFILED_STEPS)
    found = traces.kernels_in(folder)
    return traces.busy(found) / PROFILED_STEPS if found else None
