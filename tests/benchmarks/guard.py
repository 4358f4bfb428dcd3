"""What the token guard and the explicit way around it (`lift`) cost while JAX traces. Nothing is compiled or run.

Three figures, each against its base in one run, interleaved, with the base once more as the noise of the run:

* names: a program without transforms inside, with the guard and with the guard taken out (goal: 1.02): a hard case of
  three scopes and two variables for four operations, and layers of a usual size;
* checkpoint: layers through one checkpointed function that asks for its variables, against a new closure over a nested
  dict for each layer (goal: 1.25), forward and under `jax.grad`;
* lift: layers through one checkpointed `apply` and `js.lift`, against one checkpointed pure function (goal: 1.25),
  forward and under `jax.grad`.

Times are CPU times of the tracing thread, which other processes disturb least. A ratio is the median of the ratios of
single rounds. Besides, as figures without noise: the Python and C functions called in each trace, and for each use of
the library. Run:

    python tests/benchmarks/guard.py [--layers 100] [--repeats 40] [--only GROUP] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jscope as js
from jscope import _ambient

WIDTH = 8
X = jnp.ones((4, WIDTH))

Trace = Callable[[], Any]


class Case(NamedTuple):
    """Something to trace, and what it is compared with.

    Attributes:
      name: as in the table.
      trace: traces it once, anew.
      goal: what the ratio to the group's first case should not exceed; None where the case is there to compare.
    """

    name: str
    trace: Trace
    goal: float | None = None


# The models ---------------------------------------------------------------------------------------------------------


def dense(x: jax.Array) -> jax.Array:
    w = js.get_variable("w", [WIDTH, WIDTH])
    return jnp.tanh(x @ w + js.get_variable("b", [WIDTH]))


def three_scopes(x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        with js.variable_scope(f"layer_{i}"), js.variable_scope("mlp"), js.variable_scope("dense"):
            x = dense(x)
    return x


def three_levels(tree: Any, x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        leaves = tree[f"layer_{i}"]["mlp"]["dense"]
        x = jnp.tanh(x @ leaves["w"] + leaves["b"])
    return x


def computed(tree: Any, x: jax.Array) -> jax.Array:
    """What each checkpointed layer computes: layer norm and an MLP of two layers, with a residual."""
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


block = jax.checkpoint(asked)
layer = js.transform(asked)
lifted_body = jax.checkpoint(layer.apply)
pure_body = jax.checkpoint(computed)


def checkpointed(x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        with js.variable_scope(f"layer_{i}"):
            x = block(x)
    return x


def plain_layers(x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        with js.variable_scope(f"layer_{i}"):
            x = asked(x)
    return x


def plain_by_hand(tree: Any, x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        x = computed(tree[f"layer_{i}"], x)
    return x


def closures(tree: Any, x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        leaves = tree[f"layer_{i}"]
        x = jax.checkpoint(lambda x, leaves=leaves: computed(leaves, x))(x)
    return x


def closures_named(tree: Any, x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        leaves = tree[f"layer_{i}"]
        with jax.named_scope(f"layer_{i}"):
            x = jax.checkpoint(lambda x, leaves=leaves: computed(leaves, x))(x)
    return x


def lifted(x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        with js.variable_scope(f"layer_{i}"):
            x = lifted_body(js.lift(layer, x), x)
    return x


def pure(tree: Any, x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        x = pure_body(tree[f"layer_{i}"], x)
    return x


def pure_named(tree: Any, x: jax.Array, layers: int) -> jax.Array:
    for i in range(layers):
        with jax.named_scope(f"layer_{i}"):
            x = pure_body(tree[f"layer_{i}"], x)
    return x


# Tracing ------------------------------------------------------------------------------------------------------------


def trees(layers: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trees of both models as hand-written code has them."""
    dense_leaves = {"w": jnp.ones((WIDTH, WIDTH)), "b": jnp.ones(WIDTH)}
    wide = 4 * WIDTH
    shapes = {"scale": [WIDTH], "offset": [WIDTH], "w_in": [WIDTH, wide], "b_in": [wide], "w_out": [wide, WIDTH]}
    leaves = {name: jnp.ones(shape) for name, shape in (shapes | {"b_out": [WIDTH]}).items()}
    names = [f"layer_{i}" for i in range(layers)]
    return {name: {"mlp": {"dense": dict(dense_leaves)}} for name in names}, {name: dict(leaves) for name in names}


def forward(function: Callable[[Any, Any], Any], tree: Any) -> Trace:
    # A new function in each trace: JAX would find the last one's again.
    return lambda: jax.make_jaxpr(lambda tree, x: function(tree, x))(tree, X)


def gradient(function: Callable[[Any, Any], Any], tree: Any) -> Trace:
    return lambda: jax.make_jaxpr(jax.grad(lambda tree, x: jnp.sum(function(tree, x))))(tree, X)


def _current_without_guard(call: str) -> Any:
    """`_ambient.current` but for the guard; its code runs in that module."""
    frame = _current.get()  # type: ignore[name-defined] # noqa: F821
    if frame is None or not frame._open:
        raise _outside(call, frame)  # type: ignore[name-defined] # noqa: F821
    try:
        _current.reset(frame._context)  # type: ignore[name-defined] # noqa: F821
    except ValueError:
        raise _outside(call, frame) from None  # type: ignore[name-defined] # noqa: F821
    frame._context = _current.set(frame)  # type: ignore[name-defined] # noqa: F821
    store = frame.front
    store.level = 0
    return store


@contextlib.contextmanager
def without_guard(tokens: bool = True) -> Iterator[None]:
    """Takes the guard out of the library: no trace is looked at, and with `tokens` JAX's context is left alone too.

    There is no public switch, and there should be none: programs with transforms inside are silently wrong without it.
    So this reaches into the one module that holds the guard. It exchanges the code of `current`, since those who call
    it have the function itself.
    """
    code, in_force = _ambient.current.__code__, _ambient._in_force
    _ambient.current.__code__ = _current_without_guard.__code__
    if tokens:
        _ambient._in_force = lambda token: contextlib.nullcontext()  # type: ignore[assignment]
    try:
        yield
    finally:
        _ambient.current.__code__, _ambient._in_force = code, in_force


def unguarded(trace: Trace, tokens: bool = True) -> Trace:
    def traced() -> None:
        with without_guard(tokens):
            trace()

    return traced


def groups(layers: int) -> dict[str, list[Case]]:
    deep, flat = trees(layers)
    deep_params, flat_params = js.Params(deep), js.Params(flat)
    # By hand: functions of the tree. The library's: `apply`, made once, so that each trace knows its program's hint.
    names = js.transform(lambda x: three_scopes(x, layers)).apply
    plain = js.transform(lambda x: plain_layers(x, layers)).apply
    checkpoints = js.transform(lambda x: checkpointed(x, layers)).apply
    lifts = js.transform(lambda x: lifted(x, layers)).apply

    def by_hand(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
        return lambda tree, x: function(tree, x, layers)

    def with_and_without(apply: Trace, hand: Trace) -> list[Case]:
        return [
            Case("guard taken out", unguarded(apply)),
            Case("guard taken out again", unguarded(apply)),
            Case("only the look at traces out", unguarded(apply, tokens=False)),
            Case("with the guard", apply, goal=1.02),
            Case("by hand, no names", hand),
        ]

    found = {
        "names": with_and_without(forward(names, deep_params), forward(by_hand(three_levels), deep)),
        "names, usual layers": with_and_without(forward(plain, flat_params), forward(by_hand(plain_by_hand), flat)),
    }
    for way, trace in (("forward", forward), ("grad", gradient)):
        found[f"checkpoint, {way}"] = [
            Case("closures by hand", trace(by_hand(closures), flat)),
            Case("closures by hand again", trace(by_hand(closures), flat)),
            Case("closures, op names", trace(by_hand(closures_named), flat)),
            Case("one block", trace(checkpoints, flat_params), goal=1.25),
        ]
        found[f"lift, {way}"] = [
            Case("one function by hand", trace(by_hand(pure), flat)),
            Case("one function again", trace(by_hand(pure), flat)),
            Case("one function, op names", trace(by_hand(pure_named), flat)),
            Case("lift", trace(lifts, flat_params), goal=1.25),
        ]
    return found


def equations() -> dict[str, int]:
    """Equations of one layer, calls inside it counted with what they call."""
    deep, flat = trees(1)
    return {
        "names": _equations(jax.make_jaxpr(lambda tree: three_levels(tree, X, 1))(deep).jaxpr),
        "checkpoint, lift": _equations(jax.make_jaxpr(computed)(flat["layer_0"], X).jaxpr),
    }


def _equations(jaxpr: Any) -> int:
    inner = [value.jaxpr for eqn in jaxpr.eqns for value in eqn.params.values() if hasattr(value, "jaxpr")]
    return len(jaxpr.eqns) + sum(map(_equations, inner))


# Measuring ----------------------------------------------------------------------------------------------------------


def measure(cases: list[Case], repeats: int) -> list[list[float]]:
    """Seconds of each case in each round; every round starts with another case."""
    times: list[list[float]] = [[] for _ in cases]
    for _ in range(2):
        for case in cases:
            case.trace()
    gc.collect()
    gc.freeze()  # what is there by now is not looked through again
    for turn in range(repeats):
        for index in [(turn + i) % len(cases) for i in range(len(cases))]:
            gc.collect()
            gc.disable()
            start = time.thread_time()
            cases[index].trace()
            times[index].append(time.thread_time() - start)
            gc.enable()
    gc.unfreeze()
    return times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def timings(group: str, cases: list[Case], repeats: int) -> list[dict[str, Any]]:
    times = measure(cases, repeats)
    called = [calls(case.trace) for case in cases]
    rows = []
    for case, values, count in zip(cases, times, called, strict=True):
        ratios = quartiles([value / base for value, base in zip(values, times[0], strict=True)])
        rows.append(
            {"group": group, "case": case.name, "ms": [1e3 * q for q in quartiles(values)], "ratio": ratios}
            | {"calls": count, "calls_ratio": count / called[0], "goal": case.goal}
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(f"\n{rows[0]['group']:28s} median ms   quartiles       ratio   quartiles      calls   ratio    goal")
    for row in rows:
        (low, middle, high), (below, ratio, above) = row["ms"], row["ratio"]
        goal = f"{row['goal']:.2f}" if row["goal"] else ""
        print(
            f"  {row['case']:27s}{middle:9.1f}   {f'{low:.1f}-{high:.1f}':13s} {ratio:7.3f}   "
            f"{f'{below:.3f}-{above:.3f}':11s} {row['calls']:8d} {row['calls_ratio']:7.3f}    {goal}"
        )


def calls(action: Callable[[], Any]) -> int:
    """Python and C functions that are called while `action` runs, itself among them."""
    count = 0

    def counter(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counter)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count - 1  # setprofile itself


def call_counts() -> dict[str, int]:
    """Functions called for one use of the library in a program, in the trace of the program's entry."""
    found: dict[str, int] = {}

    def scope() -> None:
        with js.variable_scope("scope"):
            pass

    def program() -> None:
        found["get_variable, the first time"] = calls(lambda: js.get_variable("v", [WIDTH]))
        with js.variable_scope("", reuse=True):
            found["get_variable, found again"] = calls(lambda: js.get_variable("v", [WIDTH]))
        found["variable_scope, in and out"] = calls(scope)

    net = js.transform(program)
    jax.make_jaxpr(net.apply)(js.Params({"v": jnp.ones(WIDTH)}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--only", default="", help="part of a group's name, such as lift or grad; the rest is left out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"JAX {jax.__version__}, Python {sys.version.split()[0]}, {options.layers} layers, {options.repeats} rounds")
    with_guard = call_counts()
    with without_guard():
        plain = call_counts()
    print("\nfunctions called for one              with the guard   without")
    for name, count in with_guard.items():
        print(f"  {name:34s} {count:13d} {plain[name]:9d}")
    sizes = equations()
    print("\nequations of one layer: " + "; ".join(f"{name} {count}" for name, count in sizes.items()))
    rows = []
    for group, cases in groups(options.layers).items():
        if options.only not in group:
            continue
        # The finest goal needs the most rounds, and has short traces; the longest traces have the widest goal.
        rounds = {"names": 4 * options.repeats, "checkpoint, grad": max(3, options.repeats // 4)}
        new = timings(group, cases, rounds.get(group, options.repeats))
        rows += new
        show(new)
    if options.json:
        run = {"jax": jax.__version__, "python": sys.version.split()[0], **vars(options), "json": str(options.json)}
        result = {"run": run, "calls": {"with the guard": with_guard, "without": plain}, "equations": sizes}
        result["times"] = rows
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
