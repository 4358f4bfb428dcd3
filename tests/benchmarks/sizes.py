"""How the time of every operation grows with the number of variables: 100, 1,000, 10,000 and 100,000.

A program declares `n` variables in scopes of ten. Times are CPU times of one call, the least of some, in microseconds
for each variable that the operation touches: where a row stays level the operation is linear, where it falls it is
better. The last column is the exponent between the two largest sizes (1 is linear). An operation that touches one
variable or scope is shown by call. Run:

    python tests/benchmarks/sizes.py [--sizes 100 1000 10000 100000] [--least 0.2] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from rich.progress import Progress

import jscope as js

IN_A_SCOPE = 10
ZEROS = js.zeros_initializer()

Action = Callable[[], Any]


def program(scopes: int) -> Callable[[], None]:
    def declare() -> None:
        for i in range(scopes):
            with js.variable_scope(f"scope_{i}"):
                for j in range(IN_A_SCOPE):
                    js.get_variable(f"v{j}", [], initializer=ZEROS)

    return declare


def default_names(count: int) -> Callable[[], None]:
    def declare() -> None:
        for _ in range(count):
            with js.variable_scope(None, "scope"):
                pass

    return declare


def listed(scopes: int) -> Callable[[], None]:
    declare = program(scopes)

    def ask() -> None:
        declare()
        js.trainable_variables()
        js.get_regularization_losses()

    return ask


def actions(size: int) -> tuple[dict[str, Action], dict[str, Action]]:
    """Operations on `size` variables, and operations on one of them or on one scope."""
    scopes = size // IN_A_SCOPE
    net = js.transform(program(scopes))
    specs = net.specs()
    params = specs.init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    nested, flat, stored = params.to_dict(), params.flat(), pickle.dumps(params)
    half = params.select(lambda name, _: name[-1] < "5")[0]
    ask = js.transform(listed(scopes))

    def first_apply() -> None:
        js.transform(program(scopes)).apply(params)

    def first_specs() -> None:
        js.transform(program(scopes)).specs()

    many = {
        "specs, the first time": first_specs,
        "specs": net.specs,
        "specs.init": lambda: jax.block_until_ready(specs.init(jax.random.key(0))),
        "apply, the first time": first_apply,
        "apply": lambda: net.apply(params),
        "apply, with listings": lambda: ask.apply(params),
        "default names": js.transform(default_names(size)).specs,
        "specs.check": lambda: specs.check(params),
        "specs.split": lambda: specs.split(params),
        "str(specs)": lambda: str(specs),
        "flatten": lambda: jax.tree.flatten(params),
        "unflatten": lambda: jax.tree.unflatten(structure, leaves),
        "tree.map": lambda: jax.tree.map(lambda leaf: leaf, params),
        "Params(nested dict)": lambda: js.Params(nested),
        "Params(flat dict)": lambda: js.Params(flat),
        "to_dict": params.to_dict,
        "map_with_name": lambda: params.map_with_name(lambda name, leaf: leaf),
        "select(pattern)": lambda: params.select(".*/v[0-4]"),
        "like(patterns)": lambda: params.like([(".*/v[0-4]", 0), (".*", 1)]),
        "a or b": lambda: params | half,
        "repr": lambda: repr(params),
        "unpickle": lambda: pickle.loads(stored),
    }
    one = {
        "params[name]": lambda: params["scope_0/v0"],
        "params[scope]": lambda: params["scope_0"],
        "name in params": lambda: "scope_0/v0" in params,
        "specs[name]": lambda: specs["scope_0/v0"],
        **in_a_program(size),
    }
    return many, one


def in_a_program(size: int) -> dict[str, Action]:
    """Calls in a program that has `size` variables already."""
    net = js.transform(program(size // IN_A_SCOPE))
    built = js.build(jax.random.key(0))
    built.__enter__()
    net.__wrapped__()
    numbers = iter(range(10**9))

    def found_again() -> None:
        with js.variable_scope("scope_0", reuse=True):
            js.get_variable("v0")

    def default_name() -> None:
        with js.variable_scope(None, "scope"):
            pass

    return {
        "get_variable, new": lambda: js.get_variable(f"new_{next(numbers)}", [], initializer=ZEROS),
        "get_variable, found again": found_again,
        "variable_scope, default name": default_name,
    }


def seconds(action: Action, least: float) -> float:
    """CPU time of one call: the least of at least three, and of as many as take `least` seconds."""
    found: list[float] = []
    gc.collect()
    gc.disable()
    while len(found) < 3 or (sum(found) < least and len(found) < 1000):
        start = time.thread_time()
        action()
        found.append(time.thread_time() - start)
    gc.enable()
    return min(found)


def measure(sizes: list[int], least: float) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    with Progress(transient=True) as progress:
        for size in sizes:
            many, one = actions(size)
            task = progress.add_task(f"{size:,} variables", total=len(many) + len(one))
            for name, action in (many | one).items():
                row = rows.setdefault(name, {"name": name, "of": "each" if name in many else "call", "us": []})
                row["us"].append(1e6 * seconds(action, least) / (size if name in many else 1))
                progress.advance(task)
    for row in rows.values():
        *_, before, last = row["us"]
        slope = math.log(last / before) / math.log(sizes[-1] / sizes[-2])
        row["exponent"] = slope + (row["of"] == "each")
    return list(rows.values())


def show(sizes: list[int], rows: list[dict[str, Any]]) -> None:
    print("| microseconds | of | " + " | ".join(f"{size:,}" for size in sizes) + " | exponent |")
    print("|---" * (len(sizes) + 3) + "|")
    for row in rows:
        cells = " | ".join(f"{value:.3g}" for value in row["us"])
        print(f"| {row['name']} | {row['of']} | {cells} | {row['exponent']:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--least", type=float, default=0.2, help="seconds for each operation")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"JAX {jax.__version__}, Python {sys.version.split()[0]}")
    rows = measure(options.sizes, options.least)
    show(options.sizes, rows)
    if options.json:
        options.json.write_text(json.dumps({"sizes": options.sizes, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
