"""What it costs to hand a tree of parameters to a jitted function that does next to nothing.

Side by side in one run: a nested dict (the ratio's base), the same nested dict again (the noise of the run), `Params`,
a flat dict and a bare tuple of leaves (the floor). Every output is waited for. Run:

    python tests/benchmarks/dispatch.py [repeats]
"""

from __future__ import annotations

import statistics
import sys
import time

import jax
import jax.numpy as jnp

import jscope as js


def trees(count: int) -> dict[str, object]:
    nested = {f"layer_{i}": {"kernel": jnp.float32(i), "bias": jnp.float32(i)} for i in range(count // 2)}
    params = js.Params(nested)
    return {
        "nested dict": nested,
        "nested dict again": jax.tree.map(lambda leaf: leaf, nested),
        "Params": params,
        "flat dict": params.flat(),
        "tuple": tuple(params.flat().values()),
    }


@jax.jit
def nearly_nothing(tree: object, x: jax.Array) -> jax.Array:
    return x + jax.tree.leaves(tree)[0]


def measure(count: int, repeats: int) -> dict[str, list[float]]:
    x = jnp.float32(1)
    cases = trees(count)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for tree in cases.values():
        for _ in range(5):
            nearly_nothing(tree, x).block_until_ready()
    for _ in range(repeats):
        for name, tree in cases.items():
            start = time.perf_counter()
            nearly_nothing(tree, x).block_until_ready()
            times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"JAX {jax.__version__}, {jax.default_backend()}, {repeats} repeats, interleaved")
    for count in (400, 4000):
        times = measure(count, repeats)
        base = statistics.median(times["nested dict"])
        print(f"\n{count} leaves         median us   quartiles      ratio")
        for name, values in times.items():
            low, middle, high = (1e6 * q for q in statistics.quantiles(values, n=4))
            print(f"{name:20s} {middle:9.1f}   {low:.1f}-{high:.1f}   {1e-6 * middle / base:8.3f}")


if __name__ == "__main__":
    main()
