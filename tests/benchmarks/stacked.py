"""What equal layers cost as one stacked tree and a scan, in jscope and beside it, and unrolled.

    python tests/benchmarks/stacked.py [--layers 24 96] [--rounds 15] [--compiled 3] [--unrolled 1] [--json FILE]

The layers are the transformer blocks of the suite (`models`). In every round each form is made anew, of new functions;
the gradient of a loss is traced and lowered, and in the first rounds compiled. Garbage is collected before, and not
meanwhile. Times are seconds of the process's CPU, since other work runs on the machine, and medians; the memory is what
XLA says that the compiled program needs beside its inputs and outputs. Checkpoints are told that they stand in a scan
(`prevent_cse=False`), as JAX advises. All forms are given the same variables, and have to give the same loss and
gradients.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from models import by_hand, haiku, jscope, linen
from models import nnx as nnx_models

import jscope as js
from jscope import checkpoint

WIDTH = 64
INPUTS = (8, 64, WIDTH)  # batch, time, width
TOLERANCE = 1e-5  # between forms, relative to the largest number of each gradient: sums are added up in another order

Apply = Callable[[Any, jax.Array], jax.Array]


class Form(NamedTuple):
    """A way to write the layers.

    Attributes:
      make: a new `apply(params, x)`, and the shapes of its tree of variables.
      stacked: whether that tree is a stacked one.
    """

    make: Callable[[int], tuple[Apply, Any]]
    stacked: bool = True


def shapes_of(init: Callable[[jax.Array], Any]) -> Any:
    return jax.eval_shape(init, jax.random.key(0))


# The forms ------------------------------------------------------------------------------------------------------------


def jscope_unrolled(layers: int) -> tuple[Apply, Any]:
    net = js.transform(functools.partial(_unrolled, layers))
    return net.apply, net.specs(jnp.ones(INPUTS)).abstract()


def _unrolled(layers: int, x: jax.Array) -> jax.Array:
    for i in range(layers):
        with js.variable_scope(f"layer_{i}"):
            x = jscope.block(x)
    return x


def jscope_stacked(layers: int, checkpointed: bool = False) -> tuple[Apply, Any]:
    block = js.transform(lambda x: jscope.block(x))

    def program(x: jax.Array) -> jax.Array:
        with js.variable_scope("layers"):
            variables = js.lift(block, x, stack=layers)
        run = jax.checkpoint(block.apply, prevent_cse=False) if checkpointed else block.apply
        return jax.lax.scan(lambda x, one: (run(one, x), None), x, variables)[0]

    net = js.transform(program)
    return net.apply, net.specs(jnp.ones(INPUTS)).abstract()


def by_hand_stacked(layers: int, checkpointed: bool = False) -> tuple[Apply, Any]:
    def block(variables: Any, x: jax.Array) -> jax.Array:
        return by_hand.block(variables, x)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        run = jax.checkpoint(block, prevent_cse=False) if checkpointed else block
        return jax.lax.scan(lambda x, one: (run(one, x), None), x, params["layers"])[0]

    one = shapes_of(lambda key: by_hand.new_block(by_hand.split_once(key, 6), WIDTH))
    stack = lambda leaf: jax.ShapeDtypeStruct((layers, *leaf.shape), leaf.dtype)  # noqa: E731
    return apply, {"layers": jax.tree.map(stack, one)}


def haiku_stacked(layers: int, checkpointed: bool = False) -> tuple[Apply, Any]:
    def program(x: jax.Array) -> jax.Array:
        def layer(x: jax.Array) -> jax.Array:
            return haiku.Block(name="layers")(x)

        return hk.layer_stack(layers)(hk.remat(layer, prevent_cse=False) if checkpointed else layer)(x)

    net = hk.without_apply_rng(hk.transform(program))
    return net.apply, shapes_of(lambda key: net.init(key, jnp.ones(INPUTS)))


def linen_stacked(layers: int, checkpointed: bool = False) -> tuple[Apply, Any]:
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return linen.Block(name="layers")(x), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            layer = nn.remat(Layer, prevent_cse=False) if checkpointed else Layer
            scan = nn.scan(layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=layers)
            return scan(name="scan")(x, None)[0]

    net = Stack()
    return net.apply, shapes_of(lambda key: net.init(key, jnp.ones(INPUTS)))


def nnx_stacked(layers: int, checkpointed: bool = False) -> tuple[Apply, Any]:
    class Stack(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            @nnx.split_rngs(splits=layers)
            @nnx.vmap(in_axes=(0,), out_axes=0)
            def create(rngs: nnx.Rngs) -> nnx.Module:
                return nnx_models.Block(WIDTH, rngs)

            self.layers = create(rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            def run(x: jax.Array, layer: nnx.Module) -> jax.Array:
                return layer(x)

            run = nnx.remat(run, prevent_cse=False) if checkpointed else run
            return nnx.scan(run, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.layers)

    definition, state = nnx.split(nnx.eval_shape(lambda: Stack(nnx.Rngs(0))))
    return lambda params, x: nnx.merge(definition, params)(x), state


FORMS = {
    "jscope, unrolled": Form(jscope_unrolled, stacked=False),
    **{
        title + (", checkpoint" if checkpointed else ""): Form(functools.partial(make, checkpointed=checkpointed))
        for checkpointed in (False, True)
        for title, make in (
            ("by hand", by_hand_stacked),
            ("jscope", jscope_stacked),
            ("hk.layer_stack", haiku_stacked),
            ("nn.scan", linen_stacked),
            ("nnx.scan", nnx_stacked),
        )
    },
}


# The same variables in all --------------------------------------------------------------------------------------------


def values(layers: int) -> tuple[js.Params, js.Params]:
    """(the layers unrolled, the same stacked)."""
    unrolled = js.transform(functools.partial(_unrolled, layers)).init(jax.random.key(0), jnp.ones(INPUTS))
    return unrolled, checkpoint.stack(unrolled, "layer_%d", to="layers")


def name_in(path: Any, names: tuple[str, ...]) -> str:
    """Which variable of ours a leaf of another library's tree is: the one that its path ends with."""
    text = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path).removesuffix("/value")
    (name,) = [name for name in names if f"/{text}".endswith("/" + name.removeprefix("layers/"))]
    return name


def filled(shapes: Any, given: js.Params) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: given[name_in(path, given.names)], shapes)


def by_name(tree: Any, names: tuple[str, ...]) -> js.Params:
    return js.Params({name_in(path, names): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)})


# Measuring ------------------------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """Of one round; `compile` and `temporary` of those alone in which it was compiled."""

    lower: float
    compile: float | None = None
    temporary: int | None = None


def gradient_of(apply: Apply) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(lambda params, x: jnp.mean(apply(params, x) ** 2)))


def measured(form: Form, layers: int, given: js.Params, *, compiles: bool) -> Measured:
    """Once, of new functions."""
    apply, shapes = form.make(layers)
    params, x = filled(shapes, given), jnp.ones(INPUTS)
    gc.collect()
    gc.disable()
    start = time.process_time()
    lowered = gradient_of(apply).lower(params, x)
    traced = time.process_time()
    compiled = lowered.compile() if compiles else None
    done = time.process_time()
    gc.enable()
    if compiled is None:
        return Measured(traced - start)
    return Measured(traced - start, done - traced, compiled.memory_analysis().temp_size_in_bytes)


def same_results(layers: int) -> float:
    """By how much losses and gradients differ at most from those of the unrolled form, relative to the largest."""
    unrolled, stacked = values(layers)
    x = jax.random.normal(jax.random.key(1), INPUTS)
    results: dict[str, js.Params] = {}
    for title, form in FORMS.items():
        apply, shapes = form.make(layers)
        given = stacked if form.stacked else unrolled
        loss, gradient = gradient_of(apply)(filled(shapes, given), x)
        gradient = by_name(gradient, given.names)
        if not form.stacked:
            gradient = checkpoint.stack(gradient, "layer_%d", to="layers")
        results[title] = js.Params({"loss": loss, "gradient": gradient})
    first, *others = results.values()
    return max(_difference(first[name], other[name]) for other in others for name in first.names)


def _difference(a: jax.Array, b: jax.Array) -> float:
    return float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a)))


def measure(layers: int, rounds: int, compiled: int, unrolled_rounds: int) -> dict[str, list[Measured]]:
    """Of each form, round by round; every round has another order. The first ones compile, too."""
    unrolled, stacked = values(layers)
    found: dict[str, list[Measured]] = {title: [] for title in FORMS}
    order, shuffle = list(FORMS), random.Random(0).shuffle
    for number in range(rounds + 1):  # in round 0 jnp's own functions are traced; it does not count
        shuffle(order)
        for title in order:
            form = FORMS[title]
            if form.stacked:
                own = measured(form, layers, stacked, compiles=0 < number <= compiled)
            elif 0 < number <= unrolled_rounds:
                own = measured(form, layers, unrolled, compiles=number <= compiled)
            else:
                continue
            if number:
                found[title].append(own)
    return found


def rows(layers: int, found: dict[str, list[Measured]]) -> list[dict[str, Any]]:
    """Medians; of the time to lower also the ratio to by hand, which is the median of those of single rounds."""
    made = []
    for title, own in found.items():
        if not own:
            continue
        base = found["by hand, checkpoint" if title.endswith("checkpoint") else "by hand"]
        compiled = [each.compile for each in own if each.compile is not None]
        made.append(
            {
                "layers": layers,
                "form": title,
                "lower": statistics.median(each.lower for each in own),
                "ratio": statistics.median(one.lower / other.lower for one, other in zip(own, base, strict=False)),
                "compile": statistics.median(compiled) if compiled else None,
                "temporary": own[0].temporary,
                "rounds": len(own),
            }
        )
    return made


def text_of(row: dict[str, Any]) -> str:
    lower = f"{row['layers']:6}  {row['form']:28} {row['lower']:7.3f} s {row['ratio']:7.2f}"
    if row["compile"] is None:
        return lower
    return f"{lower} {row['compile']:7.2f} s {row['temporary'] / 1e6:9.2f} MB"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[24, 96])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compiled", type=int, default=3, help="rounds that compile, too")
    parser.add_argument("--unrolled", type=int, default=1, help="rounds of the unrolled form, which takes long")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for layers in options.layers:
        found += rows(layers, measure(layers, options.rounds, options.compiled, options.unrolled))
    print(f"{'layers':>6}  {'form':28} {'lower':>9} {'ratio':>7} {'compile':>9} {'temporary':>12}")
    print("\n".join(map(text_of, found)), flush=True)
    difference = same_results(min(options.layers)) if options.compiled else None
    if difference is not None:
        assert difference < TOLERANCE, difference
        print(f"Losses and gradients of {min(options.layers)} layers differ by {difference:.1e} of the largest number.")
    print(f"JAX {jax.__version__}")
    if options.json:
        options.json.write_text(json.dumps({"difference": difference, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
