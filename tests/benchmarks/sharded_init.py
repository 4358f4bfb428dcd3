"""What it costs to make all variables where they lie on a mesh of eight virtual devices, the first time in a process.

    python tests/benchmarks/sharded_init.py [--counts 100 400 1000] [--repeats 3] [--json FILE]

`specs.init(out_shardings=)` of that many variables of four kinds; beside it, for the smallest count, `jax.jit` of the
whole init, and the same model in Flax Linen by `jax.jit(module.init, out_shardings=)`. Each in a process of its own, of
which the seconds of CPU are counted from before the shapes are found out to when the values are there; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding

import jscope as js

DEVICES = 8
RULES = {"width": "data", "hidden": "model"}
WIDTH, HIDDEN = 64, 256


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def layers(count: int) -> js.Transformed:
    """That many variables: two kernels and two biases in each layer."""

    def program() -> None:
        for i in range(count // 4):
            with js.variable_scope(f"layer_{i}"):
                js.get_variable("up", [WIDTH, HIDDEN], partitioner=jax.P("width", "hidden"))
                js.get_variable("up_bias", [HIDDEN], partitioner=jax.P("hidden"), initializer=js.zeros_initializer())
                js.get_variable("down", [HIDDEN, WIDTH], partitioner=jax.P("hidden", "width"))
                js.get_variable("down_bias", [WIDTH], partitioner=jax.P("width"), initializer=js.zeros_initializer())

    return js.transform(program)


def jscope_out_shardings(count: int) -> Any:
    specs = layers(count).specs()
    return specs.init(jax.random.key(0), out_shardings=specs.shardings(mesh(), RULES))


def jscope_one_jit(count: int) -> Any:
    specs = layers(count).specs()
    return jax.jit(specs.init, out_shardings=specs.shardings(mesh(), RULES))(jax.random.key(0))


def linen(count: int) -> Any:
    from flax import linen as nn

    def partitioned(init: Any, *axes: str) -> Any:
        return nn.with_logical_partitioning(init, axes)

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            kernel, zeros = nn.initializers.glorot_uniform(), nn.initializers.zeros_init()
            up = self.param("up", partitioned(kernel, "width", "hidden"), (WIDTH, HIDDEN))
            up_bias = self.param("up_bias", partitioned(zeros, "hidden"), (HIDDEN,))
            down = self.param("down", partitioned(kernel, "hidden", "width"), (HIDDEN, WIDTH))
            return (x @ up + up_bias) @ down + self.param("down_bias", partitioned(zeros, "width"), (WIDTH,))

    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for i in range(count // 4):
                x = Layer(name=f"layer_{i}")(x)
            return x

    net, key, x = Layers(), jax.random.key(0), jnp.ones((1, WIDTH))
    logical = nn.get_partition_spec(jax.eval_shape(net.init, key, x))
    shardings = nn.logical_to_mesh_sharding(logical, mesh(), tuple(RULES.items()))
    return nn.unbox(jax.jit(net.init, out_shardings=shardings)(key, x))


CASES: dict[str, Callable[[int], Any]] = {
    "specs.init(out_shardings=)": jscope_out_shardings,
    "jax.jit(specs.init)": jscope_one_jit,
    "Linen, jax.jit(init)": linen,
}


def measure_here(title: str, count: int) -> float:
    """CPU seconds, in a process that has made nothing yet."""
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.block_until_ready(jnp.ones(2) + 1)  # JAX itself has started
    start = time.process_time()
    made = jax.block_until_ready(CASES[title](count))
    taken = time.process_time() - start
    leaves = jax.tree.leaves(made)
    assert len(leaves) == count // 4 * 4
    assert all(isinstance(leaf.sharding, NamedSharding) and not leaf.is_fully_replicated for leaf in leaves)
    return taken


def measure(title: str, count: int) -> float:
    """The same in a new process."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, "--case", title, "--counts", str(count)]
    return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 400, 1000], help="of variables")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each")
    parser.add_argument("--case", choices=CASES, help="one of them, in this very process")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.case:
        print(measure_here(options.case, options.counts[0]))
        return
    rows = []
    for count in options.counts:
        for title in CASES if count == min(options.counts) else [next(iter(CASES))]:
            seconds = [measure(title, count) for _ in range(options.repeats)]
            rows.append({"case": title, "variables": count, "seconds": seconds})
            print(f"{title:28} {count:5} variables  {statistics.median(seconds):6.1f} CPU s", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
