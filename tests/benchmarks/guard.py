"""What checkpointed layers cost in a first trace, as they are and through `js.lift`. Nothing is compiled or run.

A function that JAX calls elsewhere, such as a checkpointed one, is where jscope's guard has to look most, and where
variables have to be handed in and out. Two kinds of layers, each against its base by hand in one run, interleaved, with
the base once more as the noise of the run; forward and under `jax.grad` (goal of each: 1.15):

* checkpoint: layers through one checkpointed function that asks for its variables, against a new closure over a nested
  dict for each layer;
* lift: layers through one checkpointed `apply` and `js.lift`, against one checkpointed pure function.

All functions, checkpointed ones too, are new in each trace, by hand as in jscope. What the guard costs where nothing is
transformed is the row `floor, guarded` of `suite.py`.

Times are CPU times of the tracing thread, which other processes disturb least. A ratio is the median of the ratios of
single rounds, to the mean of the two rows by hand. Besides, as a figure without noise: the Python and C functions
called in each trace. `suite.py --only checkpointed` measures the same. Run:

    python tests/benchmarks/guard.py [--layers 100] [--repeats 20] [--only GROUP] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from clock import Action, Case, again, base_of, calls, measure, quartiles, ratios

import jscope as js

WIDTH = 8
GOAL = 1.15
BASE = "by hand"
X = jnp.ones((4, WIDTH))

Apply = Callable[[Any, jax.Array], jax.Array]


# The models ---------------------------------------------------------------------------------------------------------


def computed(tree: Any, x: jax.Array) -> jax.Array:
    """What each layer computes: layer norm and an MLP of two layers, with a residual."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6)
    hidden = jax.nn.gelu((normed * tree["scale"] + tree["offset"]) @ tree["w_in"] + tree["b_in"])
    return x + hidden @ tree["w_out"] + tree["b_out"]


def asked(x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    zeros = js.zeros_initializer()
    variables = {
        "scale": js.get_variable("scale", [width], initializer=js.ones_initializer()),
        "offset": js.get_variable("offset", [width], initializer=zeros),
        "w_in": js.get_variable("w_in", [width, 4 * width]),
        "b_in": js.get_variable("b_in", [4 * width], initializer=zeros),
        "w_out": js.get_variable("w_out", [4 * width, width]),
        "b_out": js.get_variable("b_out", [width], initializer=zeros),
    }
    return computed(variables, x)


def checkpointed(layers: int) -> Apply:
    block = jax.checkpoint(lambda x: asked(x))

    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            with js.variable_scope(f"layer_{i}"):
                x = block(x)
        return x

    return js.transform(program).apply


def closures(layers: int, names: bool = False) -> Apply:
    def apply(tree: Any, x: jax.Array) -> jax.Array:
        for i in range(layers):
            leaves = tree[f"layer_{i}"]
            if names:
                with jax.named_scope(f"layer_{i}"):
                    x = jax.checkpoint(lambda x, leaves=leaves: computed(leaves, x))(x)
            else:
                x = jax.checkpoint(lambda x, leaves=leaves: computed(leaves, x))(x)
        return x

    return apply


def lifted(layers: int) -> Apply:
    layer = js.transform(lambda x: asked(x))
    body = jax.checkpoint(layer.apply)

    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            with js.variable_scope(f"layer_{i}"):
                x = body(js.lift(layer, x), x)
        return x

    return js.transform(program).apply


def pure(layers: int, names: bool = False) -> Apply:
    body = jax.checkpoint(lambda tree, x: computed(tree, x))

    def apply(tree: Any, x: jax.Array) -> jax.Array:
        for i in range(layers):
            if names:
                with jax.named_scope(f"layer_{i}"):
                    x = body(tree[f"layer_{i}"], x)
            else:
                x = body(tree[f"layer_{i}"], x)
        return x

    return apply


# Tracing ------------------------------------------------------------------------------------------------------------


def leaves_of(layers: int) -> dict[str, Any]:
    """The tree as hand-written code has it."""
    wide = 4 * WIDTH
    shapes = {"scale": [WIDTH], "offset": [WIDTH], "w_in": [WIDTH, wide], "b_in": [wide], "w_out": [wide, WIDTH]}
    leaves = {name: jnp.ones(shape) for name, shape in (shapes | {"b_out": [WIDTH]}).items()}
    return {f"layer_{i}": dict(leaves) for i in range(layers)}


def forward(make: Callable[[], Apply], tree: Any) -> Action:
    def trace() -> Any:
        apply = make()
        return jax.jit(lambda tree, x: apply(tree, x)).trace(tree, X).jaxpr

    return trace


def gradient(make: Callable[[], Apply], tree: Any) -> Action:
    def trace() -> Any:
        apply = make()
        return jax.jit(jax.grad(lambda tree, x: jnp.sum(apply(tree, x)))).trace(tree, X).jaxpr

    return trace


def groups(layers: int) -> dict[str, list[Case]]:
    """First traces by the name of what they are about; by hand is there twice, and jscope comes last."""
    tree = leaves_of(layers)
    params = js.Params(tree)
    kinds: dict[str, tuple[Callable[..., Apply], Callable[..., Apply]]] = {
        "checkpoint": (closures, checkpointed),
        "lift": (pure, lifted),
    }
    return {
        f"{kind}, {way}": [
            Case(BASE, trace(lambda hand=hand: hand(layers), tree)),
            Case(again(BASE), trace(lambda hand=hand: hand(layers), tree)),
            Case("by hand, op names", trace(lambda hand=hand: hand(layers, names=True), tree)),
            Case("jscope", trace(lambda own=own: own(layers), params)),
        ]
        for kind, (hand, own) in kinds.items()
        for way, trace in (("forward", forward), ("grad", gradient))
    }


# Measuring ----------------------------------------------------------------------------------------------------------


def timings(group: str, cases: list[Case], repeats: int) -> list[dict[str, Any]]:
    names, times = [case.name for case in cases], measure(cases, repeats)
    base = base_of(names, times, BASE)
    called = [calls(case.action) for case in cases]
    return [
        {"group": group, "case": name, "ms": [1e3 * q for q in quartiles(values)], "ratio": ratios(values, base)}
        | {"calls": count, "calls_ratio": count / called[0], "goal": GOAL if name == "jscope" else None}
        for name, values, count in zip(names, times, called, strict=True)
    ]


def show(rows: list[dict[str, Any]]) -> None:
    print(f"\n{rows[0]['group']:28s} median ms   quartiles       ratio   quartiles      calls   ratio    goal")
    for row in rows:
        (low, middle, high), (below, ratio, above) = row["ms"], row["ratio"]
        goal = f"{row['goal']:.2f}" if row["goal"] else ""
        print(
            f"  {row['case']:27s}{middle:9.1f}   {f'{low:.1f}-{high:.1f}':13s} {ratio:7.3f}   "
            f"{f'{below:.3f}-{above:.3f}':11s} {row['calls']:8d} {row['calls_ratio']:7.3f}    {goal}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", default="", help="part of a group's name, such as lift or grad; the rest is left out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"JAX {jax.__version__}, Python {sys.version.split()[0]}, {options.layers} layers, {options.repeats} rounds")
    rows = []
    for group, cases in groups(options.layers).items():
        if options.only in group:
            rows += timings(group, cases, options.repeats)
            show([row for row in rows if row["group"] == group])
    if options.json:
        run = {"jax": jax.__version__, "python": sys.version.split()[0], **vars(options), "json": str(options.json)}
        options.json.write_text(json.dumps({"run": run, "times": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
