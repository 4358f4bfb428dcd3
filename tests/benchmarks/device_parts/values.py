"""Initial values: the same on the GPU as on the CPU, and the same however they are made, bit for bit.

JAX promises the same random bits everywhere, and nothing about the last digit of a logarithm. So random bits and
constants must be equal on both devices; the rest is compared, and each difference is told by name and size. On one
device all ways to make a tree should agree.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from device_parts import Found, where

KEY = 7
BASE = "net.init"
PROMISED = ("random bits", "zeros_initializer", "ones_initializer", "constant_initializer", "identity_initializer")
SHAPES = {"matrix": (64, 48), "kernel": (3, 3, 8, 16)}
FEW = ("zeros_initializer", "random_normal_initializer")  # of a small run


def initializers(small: bool = False) -> dict[str, Any]:
    """Every initializer of jscope, with its defaults."""
    more = {"constant_initializer": js.constant_initializer(0.1)}
    names = FEW if small else js.initializers.__all__
    return {name: more.get(name, getattr(js, name)()) for name in names}


def program(small: bool, dtype: Any, kind: str) -> Callable[[], None]:
    """Declares a variable of one shape by every initializer, such as `glorot_normal_initializer/matrix`."""

    def declares() -> None:
        for name, initializer in initializers(small).items():
            if kind == "matrix" or name != "identity_initializer":
                with js.variable_scope(name):
                    js.get_variable(kind, SHAPES[kind], dtype, initializer=initializer)

    return declares


def built(declares: Callable[[], None], key: jax.Array) -> Any:
    """Line by line: each value is drawn when it is asked for."""
    with js.build(key) as frame:
        declares()
    return frame.params


def ways(declares: Callable[[], None]) -> dict[str, Callable[[jax.Array], Any]]:
    """The ways to make the tree of one program from a key."""
    net = js.transform(declares)
    return {
        BASE: net.init,
        "js.build": lambda key: built(declares, key),
        "specs.init": net.specs().init,
        "jax.jit(net.init)": jax.jit(net.init),
        "jax.vmap(net.init)": lambda key: jax.tree.map(lambda leaf: leaf[0], jax.vmap(net.init)(key[None])),
    }


def measure(found: Found, what: Sequence[str], small: bool, until: float) -> None:
    first = where(found)
    devices = {"CPU": jax.devices("cpu")[0]}
    if first.platform != "cpu":
        devices = {"GPU": first, **devices}
    alike(found, "random bits", "uint32", "bits", devices, lambda key: jax.random.bits(key, (4096,)))
    # First what differs between devices, then what differs between ways.
    kinds = [("bfloat16", "matrix"), ("float32", "kernel"), ("float32", "matrix")]
    for dtype, kind in kinds[2 if small else 0 :]:
        made = ways(program(small, jnp.dtype(dtype), kind))
        bases = at_once(devices, {BASE: made[BASE]})
        if len(bases) == 2:
            for variable, values in bases[BASE, "GPU"].items():
                compare(found, variable, dtype, "GPU to CPU", values, bases[BASE, "CPU"][variable])
    del made[BASE]
    for (way, name), tree in at_once(devices, made).items():
        for variable, values in tree.items():
            compare(found, variable, dtype, f"{name}: {way} to {BASE}", values, bases[BASE, name][variable])
    direct(found, devices, small)


def at_once(devices: dict[str, Any], made: dict[str, Callable[[jax.Array], Any]]) -> dict[tuple[str, str], Any]:
    """Makes each tree on each device, in threads: most of the time is XLA's, which compiles each draw anew."""
    pairs = list(itertools.product(made, devices))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        trees = list(threads.map(lambda pair: flat(on(devices[pair[1]], made[pair[0]])), pairs))
    return dict(zip(pairs, trees, strict=True))


def flat(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by name, or one array under no name."""
    arrays = tree.flat() if isinstance(tree, js.Params) else {"": tree}
    return {name: np.asarray(array) for name, array in arrays.items()}


def direct(found: Found, devices: dict[str, Any], small: bool) -> None:
    """The initializers called by themselves: eager, under `jax.jit`, and under `jax.vmap` over one key."""
    made: dict[str, Callable[[jax.Array], Any]] = {}
    for name, initializer in initializers(small).items():

        def draw(key: jax.Array, initializer: Any = initializer) -> jax.Array:
            return initializer(key, SHAPES["matrix"], jnp.float32)

        made[f"{name}: eager call"] = draw
        made[f"{name}: jit"] = jax.jit(draw)
        made[f"{name}: vmapped call"] = lambda key, draw=draw: jax.vmap(draw)(key[None])[0]
    values = at_once(devices, made)
    for name, way, place_ in itertools.product(initializers(small), ("eager call", "vmapped call"), devices):
        one, other = values[f"{name}: {way}", place_][""], values[f"{name}: jit", place_][""]
        compare(found, f"{name}/matrix", "float32", f"{place_}: {way} to jit", one, other)


def alike(
    found: Found, name: str, dtype: str, kind: str, devices: dict[str, Any], make: Callable[[jax.Array], jax.Array]
) -> None:
    values = [np.asarray(on(device, make)) for device in devices.values()]
    if len(values) == 2:
        compare(found, f"{name}/{kind}", dtype, "GPU to CPU", *values)


def on(device: Any, make: Callable[[jax.Array], Any]) -> Any:
    with jax.default_device(device):
        return jax.block_until_ready(make(jax.random.key(KEY)))


def compare(found: Found, variable: str, dtype: str, pair: str, one: np.ndarray, other: np.ndarray) -> None:
    """Adds a row that says in how many elements two arrays differ, and by how much."""
    name, _, kind = variable.partition("/")
    steps = ulps(one, other)
    found.add(
        initializer=name,
        shape=kind,
        dtype=dtype,
        pair=pair,
        promised=name in PROMISED,
        size=int(steps.size),
        differ=int(np.count_nonzero(steps)),
        ulps=int(steps.max(initial=0)),
        largest=float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0)),
    )


def ulps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How many numbers of the dtype lie between two arrays' elements: 0 is the same bits (but -0 is next to 0)."""
    return np.abs(place(one) - place(other))


def place(array: np.ndarray) -> np.ndarray:
    """The elements by their place among all numbers of the dtype, the most negative one first."""
    width = array.dtype.itemsize
    bits = array.view(f"i{width}").astype(np.int64)
    if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
        return bits
    # Floating-point numbers are in order as integers, except that negative ones count downwards.
    return np.where(bits < 0, -(bits & ((1 << (8 * width - 1)) - 1)) - 1, bits)
