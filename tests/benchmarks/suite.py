"""jscope beside other libraries and beside the same models written by hand, in one run.

Every figure is a ratio to nested dicts written by hand, measured in the same rounds: a ratio is the median of the
ratios of single rounds, with its quartiles. The hand-written model is there twice, and ratios are to the mean of the
two; how far its two rows are apart is the noise of the run, and must be quoted beside every figure. `floor` is the
least that a library by names can do. The models are in `models`; they compute the same numbers with the same
operations in every library. `jax.jit` traces a program once, so what a user pays is a first trace. The figures:

* first: the first trace of `apply`: in each trace the model is made anew, of new functions, and transformed anew;
* variants: the same of jscope's deep model, written in other ways, and how much each is above the plain one;
* specs: the variables without making them, anew each time, beside the first trace of `apply`;
* init: eager, anew each time, the draws compiled; and what is known beforehand drawn alone;
* checkpointed: first traces of checkpointed layers, as they are and through `js.lift`; see `guard.py`;
* trace: a later trace, of the same model through a new function for `jax.jit`;
* calls, equations: the functions called in a first trace, and what it gives;
* init_jitted, init_compile: `jax.jit(init)`, a warm call and the first one;
* cold, compiles: the first `init` of a process; import: of the library, on top of JAX's; memory: the peak of `init`;
* call, sgd, adam: warm calls of the compiled `apply` and of steps of training, every output waited for;
* trees: what JAX does with the tree alone.

Run:

    python tests/benchmarks/suite.py [--layers 10 100 500] [--repeats 20] [--only FIGURE ...] [--libraries NAME ...]

It prints the tables and writes `figures.json`, `figures.md` and `first.png` to `--out`. What one call of jscope does is
counted by `way.py`.
"""

from __future__ import annotations

import argparse
import compileall
import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import models
from clock import Action, Case, again, base_of, calls, measure, quartiles, ratios
from guard import GOAL as GUARD_GOAL
from guard import groups
from models import by_hand
from models.variants import VARIANTS
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import jscope as js

Rows = list[dict[str, Any]]
Maker = Callable[[], models.Model]

BY_HAND = models.LIBRARIES[models.BASE].title
AGAIN = again(BY_HAND)
OWN = models.LIBRARIES["jscope"].title
KEY = jax.random.key(0)
LONGEST_JITTED_INIT = 20  # XLA takes seconds for some tens of draws in one program
MEMORY_WIDTH = 1024  # one layer is 4 MiB


class Figure(NamedTuple):
    """What a figure is called in the tables, its unit, and how many of that unit one second (byte, count) is."""

    title: str
    unit: str
    factor: float = 1e3


FIGURES = {
    "first": Figure("First trace of `apply`", "ms"),
    "variants": Figure("First trace of `apply`, jscope written in other ways", "ms"),
    "specs": Figure("Variables without making them, the first time: `specs`, else `jax.eval_shape(init)`", "ms"),
    "init": Figure("`init`, eager, the draws compiled", "ms"),
    "checkpointed": Figure("First trace of checkpointed layers", "ms"),
    "trace": Figure("Later trace of `apply`", "ms"),
    "calls": Figure("Python and C functions called in the first trace of `apply`", "calls", 1),
    "equations": Figure("Equations in the trace of `apply`", "equations", 1),
    "init_jitted": Figure("`jax.jit(init)`, warm", "ms"),
    "init_compile": Figure("`jax.jit(init)`, the first call", "ms"),
    "cold": Figure("First `init` of a process, eager, without imports", "ms"),
    "compiles": Figure("Compilations in the first `init` of a process", "compilations", 1),
    "import": Figure("Import, on top of JAX's", "ms"),
    "memory": Figure("Memory that `init` adds at its peak", "MiB", 2**-20),
    "call": Figure("Call of `jax.jit(apply)`", "ms"),
    "sgd": Figure("Step of SGD, jitted", "ms"),
    "adam": Figure("Step of Adam, jitted", "ms"),
    "trees": Figure("The tree alone", "ms"),
}


# What the ratio of jscope should not exceed, by figure and model.
GOALS = {
    ("first", "deep"): "1.25",
    ("first", "shared"): "1.25",
    ("first", "transformer"): "1.08",
    ("init", "deep"): "1.6",
}


class Job(NamedTuple):
    """A part of a run: what the progress bar says, and what measures it, given what to call after each round."""

    title: str
    measure: Callable[[Callable[[float], None]], Rows]


# Rows ---------------------------------------------------------------------------------------------------------------


def rows(figure: str, case: str, names: Sequence[str], values: Sequence[Sequence[float]], **more: Any) -> Rows:
    """A row for each name. Ratios are to the first, or to the mean of its two rows; where it is zero there are none."""
    base = base_of(names, values, names[0])
    return [
        {"figure": figure, "case": case, **more, "library": name, "unit": FIGURES[figure].unit}
        | {"quartiles": [FIGURES[figure].factor * value for value in quartiles(own)]}
        | {"ratio": ratios(own, base) if all(base) else None}
        | ({"goal": GOALS[figure, more["model"]]} if name == OWN and (figure, more.get("model")) in GOALS else {})
        for name, own in zip(names, values, strict=True)
    ]


def timed(figure: str, case: str, cases: Sequence[Case], *how: Any, **more: Any) -> Rows:
    return rows(figure, case, [case.name for case in cases], measure(cases, *how), **more)


# What is measured ---------------------------------------------------------------------------------------------------


class Suite(NamedTuple):
    """The sizes of a run, and what it is about; see `main`."""

    layers: list[int]
    repeats: int
    only: list[str]
    libraries: list[str]
    models: list[str]
    processes: int
    compiled: int
    leaves: list[int]
    megabytes: int

    def jobs(self) -> Iterator[Job]:
        compiled = self.layers_to(self.compiled)
        parts: list[tuple[list[str], Callable[..., Rows], list[str], list[int]]] = [
            (["first", "calls", "equations"], self.firsts, self.models, self.layers),
            (["variants"], self.variants, ["deep"], self.layers),
            (["specs"], self.specs, self.models, self.layers),
            (["init"], self.inits, self.models, self.layers),
            (["checkpointed"], self.checkpointed, ["deep"], compiled),
            (["trace"], self.traces, self.models, self.layers),
            (["init_jitted", "init_compile"], self.jitted_inits, ["deep"], self.layers_to(LONGEST_JITTED_INIT)),
            (["call"], self.compiled_calls, ["deep"], compiled),
            (["sgd"], functools.partial(self.steps, "sgd"), ["deep"], compiled),
            (["adam"], functools.partial(self.steps, "adam"), ["deep"], compiled),
            (["cold", "compiles"], self.cold, ["deep"], self.layers),
        ]
        for figures, measured, kinds, sizes in parts:
            wanted = [figure for figure in figures if figure in self.only]
            for kind in kinds if wanted else []:
                for layers in sizes:
                    title = f"{', '.join(wanted)}: {kind}, {layers} layers"
                    yield Job(title, functools.partial(measured, kind, layers))
        if "trees" in self.only:
            for count in self.leaves:
                yield Job(f"trees: {count} leaves", functools.partial(self.trees, count))
        if "import" in self.only:
            yield Job("import", self.imports)
        if "memory" in self.only:
            yield Job("memory", self.memory)

    def layers_to(self, most: int) -> list[int]:
        """The numbers of layers, none above `most`."""
        return sorted({min(layers, most) for layers in self.layers})

    def rounds(self, layers: int) -> int:
        """Fewer for long traces, which differ less from one to the next."""
        return max(3, round(self.repeats * min(2, 100 / layers)))

    def named(self, init: bool = False) -> list[tuple[str, str]]:
        """The libraries by the names of their rows, the base first and once more; for `init` also its other ways."""
        libraries = [library for library in self.libraries if init or not models.LIBRARIES[library].only_init]
        names = [(models.LIBRARIES[library].title, library) for library in libraries]
        return [names[0], (AGAIN, models.BASE), *names[1:]]

    def makers(self, kind: str, layers: int, init: bool = False) -> list[tuple[str, Maker]]:
        """What makes the model anew, in every library."""
        return [(name, functools.partial(models.make, library, kind, layers)) for name, library in self.named(init)]

    def made(self, kind: str, layers: int, init: bool = False) -> list[tuple[str, models.Model]]:
        """The model in every library."""
        return [(name, make()) for name, make in self.makers(kind, layers, init)]

    def firsts(self, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        x = models.inputs(kind)
        cases = [Case(name, first_trace(make, make().init(KEY), x)) for name, make in self.makers(kind, layers)]
        names = [case.name for case in cases]
        jaxprs = [case.action() for case in cases]
        what: dict[str, Any] = {"model": kind, "layers": layers}
        title = f"{kind}, {layers} layers"
        found: Rows = []
        if "first" in self.only:
            found += timed("first", title, cases, self.rounds(layers), time.thread_time, tick, **what)
        if "calls" in self.only:
            for case in cases:
                case.action()
            found += rows("calls", title, names, [[calls(case.action)] for case in cases], **what)
        if "equations" in self.only:
            found += rows("equations", title, names, [[equations(jaxpr.jaxpr)] for jaxpr in jaxprs], **what)
        for row in found:
            row["op_names"] = writes_names(jaxprs[names.index(row["library"])].jaxpr)
        return found

    def variants(self, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        """Each to by hand with the same arithmetic, and how much more than the plain model it takes on top of that.

        That is in times of the plain model by hand, also where the arithmetic is more.
        """
        x = models.inputs(kind)
        hands = {"deep": BY_HAND, "with_losses": f"{BY_HAND}, with losses"}
        makers: dict[str, Maker] = {}
        for hand, name in hands.items():
            makers |= dict.fromkeys(
                [name, again(name)], functools.partial(getattr(by_hand, hand), layers, models.WIDTH)
            )
        makers[OWN] = functools.partial(models.make, "jscope", kind, layers)
        for name, variant in VARIANTS.items():
            makers[name] = functools.partial(variant.make, layers, models.WIDTH)
        cases = [Case(name, first_trace(make, make().init(KEY), x)) for name, make in makers.items()]
        seconds = measure(cases, self.rounds(layers), time.thread_time, tick)
        bases = {hand: base_of(list(makers), seconds, name) for hand, name in hands.items()}
        plain = more_than(seconds[list(makers).index(OWN)], bases["deep"])
        found = rows("variants", f"deep, {layers} layers", list(makers), seconds, model=kind, layers=layers)
        for row, own in zip(found, seconds, strict=True):
            variant = VARIANTS.get(row["library"])
            base = bases[variant.hand if variant else "with_losses" if "losses" in row["library"] else "deep"]
            row["ratio"] = ratios(own, base)
            if variant:
                above = ratios(more_than(more_than(own, base), plain), bases["deep"])
                row |= {"beside": {"above plain": above}, "goal": variant.goal}
        return found

    def specs(self, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        """Next to a model that knows its variables beforehand is the first trace of its `apply`: the goal is about it.

        There is also that of by hand, which has no names to look for.
        """
        cases, x = [], models.inputs(kind)
        for name, make in self.makers(kind, layers):
            model = make()
            cases.append(Case(name, new_specs(make)))
            if model.specs or name == BY_HAND:
                cases.append(Case(traced(name), first_trace(make, model.init(KEY), x)))
        seconds = measure(cases, self.rounds(layers), time.thread_time, tick)
        names = [case.name for case in cases]
        found = rows("specs", f"{kind}, {layers} layers", names, seconds, model=kind, layers=layers)
        of = dict(zip(names, seconds, strict=True))
        for row in found:
            own = of[row["library"]]
            row["beside"] = {"to the first trace by hand": ratios(own, of[traced(BY_HAND)])}
            if row["library"] != BY_HAND and traced(row["library"]) in of:
                row["beside"]["to its own first trace"] = ratios(own, of[traced(row["library"])])
                if row["library"] == OWN:
                    row["goal"] = "1.3 of its own first trace"
        return found

    def inits(self, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        """Anew each time. A model that knows its variables beforehand is there again, with them known: the draws."""
        cases = []
        for name, make in self.makers(kind, layers, init=True):
            model = make()
            cases.append(Case(name, waiting(lambda make=make: make().init(KEY))))
            if model.specs and model.draw:
                cases.append(Case(f"{name}, draw", waiting(model.draw, model.specs(), KEY)))
        title = f"{kind}, {layers} layers"
        return timed("init", title, cases, self.rounds(layers), time.perf_counter, tick, model=kind, layers=layers)

    def checkpointed(self, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        found: Rows = []
        parts = groups(layers)
        for group, cases in parts.items():
            title, what = f"{group}, {layers} layers", {"model": group, "layers": layers}
            how = self.rounds(layers), time.thread_time, lambda part: tick(part / len(parts))
            found += timed("checkpointed", title, cases, *how, **what)
        return [row | ({"goal": f"{GUARD_GOAL}"} if row["library"] == OWN else {}) for row in found]

    def traces(self, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        x = models.inputs(kind)
        cases = [Case(name, later_trace(model, model.init(KEY), x)) for name, model in self.made(kind, layers)]
        title = f"{kind}, {layers} layers"
        return timed("trace", title, cases, self.rounds(layers), time.thread_time, tick, model=kind, layers=layers)

    def jitted_inits(self, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        first, cases = [], []
        for name, model in self.made(kind, layers, init=True):
            init = waiting(jax.jit(lambda key, model=model: model.init(key)), KEY)
            start = time.perf_counter()
            init()
            first.append([time.perf_counter() - start])
            cases.append(Case(name, init))
        title, names = f"{kind}, {layers} layers", [case.name for case in cases]
        found = rows("init_compile", title, names, first, model=kind, layers=layers)
        warm = timed("init_jitted", title, cases, self.repeats, time.perf_counter, tick, model=kind, layers=layers)
        return [row for row in found + warm if row["figure"] in self.only]

    def compiled_calls(self, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        x = models.inputs(kind)
        cases = [
            Case(name, waiting(jax.jit(model.apply), model.init(KEY), x)) for name, model in self.made(kind, layers)
        ]
        return self.steady("call", kind, layers, cases, tick)

    def steps(self, optimizer: str, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        cases = [Case(name, training(model, optimizer, kind)) for name, model in self.made(kind, layers)]
        return self.steady(optimizer, kind, layers, cases, tick)

    def steady(self, figure: str, kind: str, layers: int, cases: list[Case], tick: Callable[[float], None]) -> Rows:
        # More rounds: other processes disturb these more than traces.
        title, rounds = f"{kind}, {layers} layers", 5 * self.repeats
        return timed(figure, title, cases, rounds, time.perf_counter, tick, model=kind, layers=layers)

    def trees(self, count: int, tick: Callable[[float], None]) -> Rows:
        params = js.Params(nested(count))
        trees = {
            "nested dict": nested(count),
            "nested dict, again": nested(count),
            "jscope": params,
            "flat dict": params.flat(),
            "tuple": tuple(params.flat().values()),
        }
        actions: dict[str, Callable[[Any], Action]] = {
            "flatten": lambda tree: lambda: jax.tree.flatten(tree),
            "unflatten": unflattening,
            "map": lambda tree: lambda: jax.tree.map(lambda leaf: leaf, tree),
        }
        found: Rows = []
        for what, action in actions.items():
            cases = [Case(name, action(tree)) for name, tree in trees.items()]
            title = f"{what}, {count} leaves"
            found += timed("trees", title, cases, self.repeats, time.thread_time, lambda part: tick(part / 3))
        return found

    def imports(self, tick: Callable[[float], None]) -> Rows:
        """Without ratios: by hand there is nothing to import."""
        # As pip does at an installation. Else a checkout is compiled at each import where no file may be written.
        compileall.compile_dir(Path(js.__file__).parent, quiet=1)
        libraries = [library for library in self.libraries if models.LIBRARIES[library].imports]
        found = self.alone("import", libraries, 0, 0, tick)
        names = [models.LIBRARIES[library].title for library in libraries]
        seconds = [[run["seconds"] for run in runs] for runs in found]
        return [row | {"ratio": None} for row in rows("import", "", names, seconds)]

    def cold(self, kind: str, layers: int, tick: Callable[[float], None]) -> Rows:
        names, libraries = zip(*self.named(init=True), strict=True)
        found = self.alone("init", libraries, layers, models.WIDTH, tick)
        title, what = f"{kind}, {layers} layers", {"model": kind, "layers": layers}
        new = rows("cold", title, names, [[run["seconds"] for run in runs] for runs in found], **what)
        new += rows("compiles", title, names, [[runs[0]["compiles"]] for runs in found], **what)
        return [row for row in new if row["figure"] in self.only]

    def memory(self, tick: Callable[[float], None]) -> Rows:
        names, libraries = zip(*self.named(init=True), strict=True)
        layers = max(1, self.megabytes * 2**20 // (4 * MEMORY_WIDTH**2))
        found = self.alone("memory", libraries, layers, MEMORY_WIDTH, tick)
        size = found[0][0]["bytes"]
        peaks = [[run["peak"] for run in runs] for runs in found]
        title = f"a tree of {size / 2**20:.0f} MiB"
        return rows("memory", title, ["the tree itself", *names], [[size] * self.processes, *peaks])

    def alone(
        self, what: str, libraries: Sequence[str], layers: int, width: int, tick: Callable[[float], None]
    ) -> list[list[dict[str, float]]]:
        """What `alone.py` finds for each library, in `processes` new processes, one after another."""
        found: list[list[dict[str, float]]] = [[] for _ in libraries]
        for turn in range(self.processes):
            for index in [(turn + i) % len(libraries) for i in range(len(libraries))]:
                found[index].append(in_new_process(what, libraries[index], layers, width))
                tick(1 / (self.processes * len(libraries)))
        return found


def first_trace(make: Maker, params: Any, x: jax.Array) -> Action:
    """Makes the model anew in each call and traces it, so that nothing is known of it but its text."""
    return lambda: trace_of(make(), params, x)


def later_trace(model: models.Model, params: Any, x: jax.Array) -> Action:
    return lambda: trace_of(model, params, x)


def trace_of(model: models.Model, params: Any, x: jax.Array) -> Any:
    # A new function each time: JAX would find the last trace again, also by an equal method of an equal module.
    return jax.jit(lambda params, x: model.apply(params, x)).trace(params, x).jaxpr


def traced(name: str) -> str:
    return f"{name}, first trace of apply"


def new_specs(make: Maker) -> Action:
    def specs() -> Any:
        model = make()
        return model.specs() if model.specs else jax.eval_shape(lambda key: model.init(key), KEY)

    return specs


def more_than(values: Sequence[float], base: Sequence[float]) -> list[float]:
    return [own - other for own, other in zip(values, base, strict=True)]


def waiting(function: Callable[..., Any], *arguments: Any) -> Action:
    """Calls it and waits for every output: a call returns before what it starts is done."""
    return lambda: jax.block_until_ready(function(*arguments))


def training(model: models.Model, name: str, kind: str) -> Action:
    import optax

    optimizer = optax.sgd(1e-3) if name == "sgd" else optax.adam(1e-3)
    params, x = model.init(KEY), models.inputs(kind)

    def loss_of(params: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(model.apply(params, x) ** 2)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(params, x)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    return waiting(step, params, optimizer.init(params), x)


def nested(count: int) -> dict[str, Any]:
    """So many leaves, in the order in which one writes them, which is not JAX's."""
    return {f"layer_{i}": {"kernel": jnp.float32(i), "bias": jnp.float32(i)} for i in range(count // 2)}


def unflattening(tree: Any) -> Action:
    leaves, structure = jax.tree.flatten(tree)
    return lambda: jax.tree.unflatten(structure, leaves)


def equations(jaxpr: Any) -> int:
    """Equations, calls inside counted with what they call."""
    inner = [value.jaxpr for eqn in jaxpr.eqns for value in eqn.params.values() if hasattr(value, "jaxpr")]
    return len(jaxpr.eqns) + sum(map(equations, inner))


def writes_names(jaxpr: Any) -> bool:
    """Whether the operations carry the names of the scopes or modules that they are in."""
    return any("layer" in str(eqn.source_info.name_stack) for eqn in jaxpr.eqns)


def in_new_process(what: str, library: str, layers: int, width: int) -> dict[str, float]:
    # The jscope that is measured there is the one that is measured here.
    root = str(Path(js.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(Path(__file__).with_name("alone.py")), what, library, str(layers), str(width)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# Output -------------------------------------------------------------------------------------------------------------


def tables(found: Rows, notes: Sequence[str]) -> str:
    """One Markdown table for each figure."""
    where = f"JAX {jax.__version__}, Python {sys.version.split()[0]}, {jax.default_backend()}, {os.cpu_count()} cores"
    lines = [
        f"{where}. Ratios are to the first row of a case, "
        f"or to the mean of the two where it is there again: `{AGAIN}` is the noise of the run.",
        *notes,
    ]
    for name, figure in FIGURES.items():
        own = [row for row in found if row["figure"] == name]
        if not own:
            continue
        named, aimed = (any(key in row for row in own) for key in ("op_names", "goal"))
        beside = list(dict.fromkeys(label for row in own for label in row.get("beside", ())))
        head = ["case", "library", figure.unit, "quartiles", "ratio", "quartiles"]
        head += [cell for label in beside for cell in (label, "quartiles")]
        head += ["goal"] * aimed + ["op names"] * named
        lines += ["", f"### {figure.title}", "", line(head), line(["---"] * len(head))]
        case = None
        for row in own:
            cells = ["" if row["case"] == case else row["case"], row["library"]]
            cells += spread(list(map(number, row["quartiles"])))
            for quarters in (row["ratio"], *(row.get("beside", {}).get(label) for label in beside)):
                cells += spread([f"{value:.3f}" for value in quarters or ()])
            cells += [row.get("goal", "")] * aimed
            lines.append(line(cells + ["yes" if row.get("op_names") else "no"] * named))
            case = row["case"]
    return "\n".join(lines) + "\n"


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def spread(quarters: list[str]) -> tuple[str, str]:
    """The median, and the quartiles where there are any and they differ."""
    if not quarters:
        return "", ""
    low, middle, high = quarters
    return middle, f"{low} to {high}" if low != high else ""


def number(value: float) -> str:
    """Three digits that count, and whole numbers whole."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def draw(found: Rows, file: Path) -> None:
    """The ratio of a first trace against the number of layers, a picture for each model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    traces = [row for row in found if row["figure"] == "first"]
    kinds = [kind for kind in models.KINDS if any(row["model"] == kind for row in traces)]
    sizes = sorted({row["layers"] for row in traces})
    picture, panels = pyplot.subplots(
        1, len(kinds), figsize=(4 * len(kinds) + 2, 5), layout="constrained", sharey=True, squeeze=False
    )
    for kind, panel in zip(kinds, panels[0], strict=True):
        own = [row for row in traces if row["model"] == kind]
        for name in dict.fromkeys(row["library"] for row in own):
            mine = [row for row in own if row["library"] == name]
            label = name + ("" if mine[0]["op_names"] else " (no op names)")
            ratios = [row["ratio"][1] for row in mine]
            panel.plot(
                [row["layers"] for row in mine], ratios, marker="o", label=label, markersize=4, **STYLES.get(name, {})
            )
        panel.set(xscale="log", yscale="log", title=kind, xlabel="layers")
        panel.set_xticks(sizes, map(str, sizes))
        panel.set_yticks([1, 1.1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 15], ["1", "1.1", "1.2", "1.5", *"23457", "10", "15"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("time of the first trace, ratio to by hand")
    picture.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    picture.savefig(file, dpi=110)
    pyplot.close(picture)


# How a line of the picture differs from the others.
STYLES: dict[str, dict[str, Any]] = {
    OWN: {"color": "black", "linewidth": 2.5, "zorder": 5},
    BY_HAND: {"color": "grey"},
    AGAIN: {"color": "grey", "linestyle": ":"},
    "floor": {"color": "tab:cyan", "linestyle": "--"},
    "floor, guarded": {"color": "tab:olive", "linestyle": "--"},
}


# The command --------------------------------------------------------------------------------------------------------


def left_out(libraries: Sequence[str], only: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The libraries and figures that can be measured here, and a note for each that can't."""
    missing = [library for library in libraries if not models.installed(library)]
    notes = [
        f"{models.LIBRARIES[library].title} is left out, as it is not installed: "
        f"`pip install 'jax-scope[{models.LIBRARIES[library].extra}]'`."
        for library in missing
    ]
    figures = list(only)
    if {"sgd", "adam"} & set(only) and importlib.util.find_spec("optax") is None:
        figures = [figure for figure in only if figure not in ("sgd", "adam")]
        notes.append("Training is left out, as optax is not installed: `pip install 'jax-scope[bench]'`.")
    if "memory" in only and not Path("/proc/self/clear_refs").exists():
        figures.remove("memory")
        notes.append("Memory is left out, as there is no /proc/self/clear_refs.")
    rest = [library for library in models.LIBRARIES if library in libraries or library == models.BASE]
    return [library for library in rest if library not in missing], figures, notes


def main(arguments: Sequence[str] | None = None) -> Rows:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument("--repeats", type=int, default=20, help="rounds at 100 layers")
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURE")
    parser.add_argument("--libraries", nargs="+", choices=models.LIBRARIES, default=list(models.LIBRARIES))
    parser.add_argument(
        "--models",
        nargs="+",
        choices=models.KINDS,
        default=list(models.KINDS),
        help="of first, trace, specs, init; the rest is deep",
    )
    parser.add_argument("--processes", type=int, default=3, help="new processes for each row of cold, import, memory")
    parser.add_argument("--compiled", type=int, default=100, help="the most layers in what is compiled")
    parser.add_argument("--leaves", type=int, nargs="+", default=[400, 4000], help="of the trees")
    parser.add_argument("--megabytes", type=int, default=200, help="size of the tree in memory")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    options["libraries"], options["only"], notes = left_out(options["libraries"], options["only"])
    suite = Suite(**options)
    run = {"jax": jax.__version__, "python": sys.version.split()[0], "backend": jax.default_backend()}
    run |= {"cores": os.cpu_count(), "notes": notes, **options}
    out.mkdir(parents=True, exist_ok=True)
    jobs = list(suite.jobs())
    found: Rows = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(jobs))
        for index, job in enumerate(jobs):
            progress.update(task, description=job.title)
            found += job.measure(lambda part: progress.advance(task, part))
            progress.update(task, completed=index + 1)
            # After each part, so that a run that is ended early leaves what it found.
            (out / "figures.json").write_text(json.dumps({"run": run, "rows": found}, indent=1) + "\n")
            (out / "figures.md").write_text(tables(found, notes))
    print(tables(found, notes))
    if "first" in suite.only:
        draw(found, out / "first.png")
    return found


if __name__ == "__main__":
    main()
