"""What calls without `jax.jit` leave behind, and what an inner trace costs when a program has many of them.

A function that JAX remembers and that asks for variables is traced anew in each eager call (see `docs/transforms.md`),
and JAX keeps what it has traced. Here such a block, called in two scopes, is called with a new tree each time: eagerly,
under an eager `jax.grad`, and under `jax.jit(net.apply)`. All values are checked against arithmetic. Measured per call:
traces of the block, XLA compilations, arrays and their bytes, Python objects (jscope's own, and entries of its tables,
once more by themselves) and resident memory; then what frees them. Each figure has a process of its own, since memory
that is freed stays with a process, for what comes next. Beside them, what JAX keeps of as many new jitted functions
without jscope. The second part is the time per inner trace in programs with more and more of them, beside the same by
hand. Run:

    python tests/benchmarks/growth.py [--calls 200] [--grads 30] [--inner 200 800 2400] [--together] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

import jscope as js

SIZE = 1000  # numbers in a variable: enough to see an array that is kept among other bytes
WARM = 3  # calls before the first look, so that what is made once does not count

_compiles = 0


def _count_compiles(event: str, seconds: float, **kwargs: Any) -> None:
    global _compiles
    _compiles += event == "/jax/core/compile/backend_compile_duration"


# What is called -----------------------------------------------------------------------------------------------------


class Model:
    """A block that outlives the calls, as at the top of a module, and a program that calls it in two scopes."""

    def __init__(self) -> None:
        self.traces = 0
        self.kept: list[Any] = []  # only by `new_functions`

        @jax.jit
        def block(x: jax.Array) -> jax.Array:
            self.traces += 1
            return x * js.get_variable("w", [SIZE])

        def program(x: jax.Array) -> jax.Array:
            with js.variable_scope("a"):
                x = block(x)
            with js.variable_scope("b"):
                return block(x)

        self.net = js.transform(program)
        self.jitted = jax.jit(self.net.apply)


def tree(turn: int) -> dict[str, Any]:
    return {
        "a": {"w": jnp.full(SIZE, turn + 1, jnp.float32)},
        "b": {"w": jnp.full(SIZE, turn + 2, jnp.float32)},
    }


def check(value: Any, expected: float) -> None:
    np.testing.assert_array_equal(np.asarray(value), np.full(SIZE, expected, np.float32))


def eager(model: Model, turn: int) -> None:
    check(model.net.apply(tree(turn), jnp.ones(SIZE)), (turn + 1) * (turn + 2))


def eager_grad(model: Model, turn: int) -> None:
    gradient = jax.grad(lambda params: jnp.sum(model.net.apply(params, jnp.ones(SIZE))))(tree(turn))
    check(gradient["a"]["w"], turn + 2)
    check(gradient["b"]["w"], turn + 1)


def jitted(model: Model, turn: int) -> None:
    check(model.jitted(tree(turn), jnp.ones(SIZE)), (turn + 1) * (turn + 2))


def new_functions(model: Model, turn: int) -> None:
    """The same without jscope: two new functions in each call, kept as JAX keeps the block's traces."""
    leaves, x = tree(turn), jnp.ones(SIZE)
    for scope in ("a", "b"):

        def multiplied(x: jax.Array, w: jax.Array = leaves[scope]["w"]) -> jax.Array:
            model.traces += 1
            return x * w

        model.kept.append(jax.jit(lambda x, multiplied=multiplied: multiplied(x)))
        x = model.kept[-1](x)
    check(x, (turn + 1) * (turn + 2))


CALLS = {
    "eager": eager,
    "eager jax.grad": eager_grad,
    "jax.jit(net.apply)": jitted,
    "by hand, new functions kept": new_functions,
}


# What is left -------------------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """What the process holds, after a garbage collection; `traces` and `compiles` are counted from the start."""

    traces: int
    compiles: int
    arrays: int
    array_bytes: int
    objects: int
    own: int
    rss: int


def held(model: Model | None) -> Held:
    gc.collect()
    arrays, objects = jax.live_arrays(), gc.get_objects()
    own = sum(str(type(item).__module__).partition(".")[0] == "jscope" for item in objects) + _entries()
    return Held(
        model.traces if model else 0,
        _compiles,
        len(arrays),
        sum(array.nbytes for array in arrays),
        len(objects),
        own,
        _resident(),
    )


def _entries() -> int:
    """How many entries the tables at the top of jscope's modules have; what they hold may be of any type."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "jscope"]
    tables = {id(value): value for module in modules for value in vars(module).values()}
    return sum(len(table) for table in tables.values() if isinstance(table, dict | list | set))


def _resident() -> int:
    """Resident bytes; 0 where there is no /proc."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def growth(name: str, calls: int) -> dict[str, Any]:
    """What each of `calls` calls adds: all in all, and in each half, which tells whether it goes on."""
    call, model = CALLS[name], Model()
    for turn in range(WARM):
        call(model, turn)
    first, middle = model.traces, calls // 2
    looks = [held(model)]
    for start, stop in ((0, middle), (middle, calls)):
        for turn in range(start, stop):
            call(model, WARM + turn)
        looks.append(held(model))
    before, between, after = looks

    def per_call(old: Held, new: Held, count: int) -> dict[str, float]:
        return {name: (b - a) / count for name, a, b in zip(Held._fields, old, new, strict=True)}

    return {
        "calls": calls,
        "traces before": first,
        "per call": per_call(before, after, calls),
        "first half": per_call(before, between, middle),
        "second half": per_call(between, after, calls - middle),
    }


def freeing(way: str, calls: int) -> dict[str, dict[str, int]]:
    """What is held over the time before: after eager calls, freed the given way, and after the same calls again."""
    found: dict[str, dict[str, int]] = {}
    model: Model | None = Model()
    eager(model, 0)
    jax.clear_caches()
    base = held(model)

    def look(name: str) -> None:
        found[name] = {field: b - a for field, a, b in zip(Held._fields, base, held(model), strict=True)}

    for turn in range(calls):
        eager(model, turn)
    look("after the calls")
    if way == "jax.clear_caches()":
        jax.clear_caches()
    else:
        model = None
    look(way)
    model = model or Model()
    for turn in range(calls):
        eager(model, turn)
    look("the same calls once more")
    return found


WAYS = ("the block dropped", "jax.clear_caches()")


def started() -> None:
    """What a process needs before it measures."""
    warnings.filterwarnings("ignore", category=js.RetraceWarning)  # what it warns of is measured here
    jax.monitoring.register_event_duration_secs_listener(_count_compiles)


def alone(measure: Callable[[str, int], Any], name: str, calls: int) -> Any:
    """`measure(name, calls)` in a new process."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, initializer=started) as process:
        return process.submit(measure, name, calls).result()


def together(measure: Callable[[str, int], Any], name: str, calls: int) -> Any:
    return measure(name, calls)


# Many inner traces --------------------------------------------------------------------------------------------------


@jax.jit
def small(x: jax.Array) -> jax.Array:
    return x * js.get_variable("w", [])


def asking(x: jax.Array, count: int) -> jax.Array:
    for i in range(count):
        with js.variable_scope(f"layer_{i}"):
            x = small(x)
    return x


def by_hand(leaves: Any, x: jax.Array, count: int) -> jax.Array:
    for i in range(count):
        x = jax.jit(lambda x, w=leaves[f"layer_{i}"]["w"]: x * w)(x)
    return x


def inner_traces(counts: list[int], repeats: int) -> list[dict[str, Any]]:
    """CPU time per inner trace, in microseconds, in rounds over all counts."""
    cases: list[tuple[str, int, Callable[[], Any]]] = []
    x = jnp.float32(1)
    for count in counts:
        leaves = {f"layer_{i}": {"w": jnp.float32(1)} for i in range(count)}
        params = js.Params(leaves)
        apply = js.transform(lambda x, count=count: asking(x, count)).apply
        # New functions each time: JAX would find the last trace again.
        cases.append(("jscope", count, lambda a=apply, p=params: jax.make_jaxpr(lambda p: a(p, x))(p)))
        cases.append(
            ("by hand", count, lambda p=leaves, count=count: jax.make_jaxpr(lambda p: by_hand(p, x, count))(p))
        )
    times: list[list[float]] = [[] for _ in cases]
    for turn in range(repeats + 1):
        for (_, count, trace), seconds in zip(cases, times, strict=True):
            gc.collect()
            gc.disable()
            start = time.thread_time()
            trace()
            if turn:  # the first round is for what is made once
                seconds.append(1e6 * (time.thread_time() - start) / count)
            gc.enable()
    return [
        {"case": name, "inner traces": count, "us": statistics.quantiles(seconds, n=4), "base": base}
        for (name, count, _), seconds, base in zip(cases, times, _bases(times), strict=True)
    ]


def _bases(times: list[list[float]]) -> Iterator[float]:
    """For each case the median ratio to the same case at the smallest count."""
    for index, seconds in enumerate(times):
        yield statistics.median(b / a for a, b in zip(times[index % 2], seconds, strict=True))


# Output -------------------------------------------------------------------------------------------------------------


def show_growth(name: str, row: dict[str, Any]) -> None:
    for part in ("per call", "first half", "second half"):
        each = Held(**row[part])
        title = f"{name}, {row['calls']}" if part == "per call" else f"  its {part}"
        print(
            f"{title:33s} {each.traces:8.2f} {each.compiles:9.2f} {each.arrays:7.2f} {each.array_bytes:12.1f} "
            f"{each.objects:9.1f} {each.own:13.2f} {each.rss:13.0f}",
            flush=True,
        )


def show_freeing(ways: dict[str, dict[str, dict[str, int]]], calls: int) -> None:
    print(f"\n{f'held over {calls} eager calls':28s}   arrays  array bytes   objects  jscope's own     RSS bytes")
    for rows in ways.values():
        for name, row in rows.items():
            print(
                f"{name:28s} {row['arrays']:8d} {row['array_bytes']:12d} {row['objects']:9d} {row['own']:13d} "
                f"{row['rss']:13d}"
            )


def show_inner(rows: list[dict[str, Any]]) -> None:
    print("\ninner traces in one program   us for each   quartiles           to the fewest")
    for row in rows:
        low, middle, high = row["us"]
        print(
            f"{row['case']:12s} {row['inner traces']:16d} {middle:13.1f}   {f'{low:.1f}-{high:.1f}':18s} "
            f"{row['base']:12.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--grads", type=int, default=30, help="calls of jax.grad, and before freeing")
    parser.add_argument("--inner", type=int, nargs="+", default=[200, 800, 2400])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--together", action="store_true", help="one process: quicker, memory says nothing then")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"JAX {jax.__version__}, Python {sys.version.split()[0]}, {jax.default_backend()}")
    started()
    columns = "traces  compiles  arrays  array bytes   objects  jscope's own     RSS bytes"
    print(f"\n{'per call, number of calls':33s}   {columns}")
    run = together if options.together else alone
    rows = {}
    for name, call in CALLS.items():
        rows[name] = run(growth, name, options.grads if call is eager_grad else options.calls)
        show_growth(name, rows[name])
    freed = {way: run(freeing, way, options.grads) for way in WAYS}
    show_freeing(freed, options.grads)
    inner = inner_traces(options.inner, options.repeats)
    show_inner(inner)
    if options.json:
        made = {"jax": jax.__version__, "python": sys.version.split()[0], **vars(options), "json": str(options.json)}
        result = {"run": made, "growth": rows, "freeing": freed, "inner traces": inner}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
