"""The way of one call through jscope: which files it passes, in order, and which functions it calls there.

For each mode (`specs`, `apply`, `bind` and `build`) and for each of four calls, in the first run of a new transform:

* create: a `get_variable` that makes its variable;
* found: a `get_variable` that finds a shared variable again;
* enter, exit: `variable_scope` entered, made included, and left again.

A program counts with `sys.setprofile` while it runs. Functions of jscope are counted, generated ones as `__init__`
too, not those of Python or JAX, wherever they are called from; C functions are not functions of jscope. The program
ran once before as another function under another transform, and the call is not its first: modules are imported, draws
are compiled, and the line is known. With `--cold` none of this is so, in the first mode that is asked for.

Run:

    python tests/benchmarks/way.py [--modes apply ...] [--calls create ...] [--cold] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jscope as js

ROOT = Path(js.__file__).parent
MODES = ("specs", "apply", "bind", "build")
CALLS = ("create", "found", "enter", "exit")
NORMAL = js.random_normal_initializer(stddev=0.05)
SHAPE = [16, 16]
NAMES = [f"layer_{i}/mlp/dense/w" for i in range(2)]

# Functions and files that a call should pass at most.
GOALS = {("create", mode): (12, 6) for mode in ("specs", "apply", "bind")} | {("create", "build"): (20, 8)}


class Step(NamedTuple):
    """One function of jscope that was called: how deep among these, in which file, and its name."""

    depth: int
    file: str
    function: str


Ways = dict[str, list[Step]]


@contextmanager
def watching(steps: list[Step]) -> Iterator[None]:
    """Notes every function of jscope that is called meanwhile."""
    within: list[FrameType] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")  # of generated functions too, whose code is in no file
        if module != "jscope" and not module.startswith("jscope."):
            return
        if event == "call":
            file = Path(frame.f_globals["__file__"]).relative_to(ROOT.parent)
            steps.append(Step(len(within), str(file), frame.f_code.co_qualname))
            within.append(frame)
        elif event == "return" and within and within[-1] is frame:
            within.pop()

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def new_program(ways: Ways, cold: bool) -> Callable[[], None]:
    """Layers of three scopes and one variable, the last of them watched; with `cold` there is no other."""

    def layer(i: int, ways: Ways) -> None:
        create, found, enter, leave = (ways[call] for call in CALLS)
        with js.variable_scope(f"layer_{i}"), js.variable_scope("mlp"):
            with watching(enter):
                scope = js.variable_scope("dense")
                scope.__enter__()
            with watching(create):
                js.get_variable("w", SHAPE, initializer=NORMAL)
            with watching(leave):
                scope.__exit__(None, None, None)
            with js.variable_scope("dense", reuse=js.AUTO_REUSE), watching(found):
                js.get_variable("w", SHAPE, initializer=NORMAL)

    def program() -> None:
        if not cold:
            layer(0, {call: [] for call in CALLS})
        layer(1, ways)

    return program


def run(mode: str, program: Callable[[], None]) -> None:
    params = dict.fromkeys(NAMES, jnp.zeros(SHAPE))
    if mode == "specs":
        js.transform(program).specs()
    elif mode == "apply":
        jax.jit(js.transform(program).apply).trace(params)
    elif mode == "bind":
        with js.bind(params):
            program()
    else:
        with js.build(jax.random.key(0)):
            program()


def way(mode: str, cold: bool = False) -> Ways:
    """What each of the calls passes."""
    ways: Ways = {}
    for _ in range(1 if cold else 2):
        ways = {call: [] for call in CALLS}
        run(mode, new_program(ways, cold))
    return ways


# Output -------------------------------------------------------------------------------------------------------------


def files(steps: Sequence[Step]) -> list[str]:
    """The files in the order in which they are first passed."""
    return list(dict.fromkeys(step.file for step in steps))


def table(found: dict[str, Ways], wanted: Sequence[str]) -> str:
    """The counts beside their goals."""
    lines = ["| call | mode | functions | goal | files | goal | the files in order |", "|---" * 7 + "|"]
    for call in wanted:
        for mode, ways in found.items():
            steps, goal = ways[call], GOALS.get((call, mode))
            functions, passed = [f"<= {most}" for most in goal] if goal else ("", "")
            own = files(steps)
            names = ", ".join(file.removeprefix("jscope/") for file in own)
            lines.append(f"| {call} | {mode} | {len(steps)} | {functions} | {len(own)} | {passed} | {names} |")
    return "\n".join(lines)


def listing(title: str, steps: Sequence[Step]) -> str:
    """Every function in the order of the calls, indented by who calls whom."""
    wide = max((len(step.file) for step in steps), default=0)
    lines = [f"{i:3d}  {step.file:{wide}s}  {'  ' * step.depth}{step.function}" for i, step in enumerate(steps, 1)]
    return "\n".join([f"{title}: {len(steps)} functions, {len(files(steps))} files", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=list(CALLS))
    parser.add_argument("--cold", action="store_true", help="the first call of its kind in this process")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {mode: way(mode, options.cold) for mode in options.modes}
    print(f"jscope {js.__version__}, JAX {jax.__version__}, Python {sys.version.split()[0]}\n")
    print(table(found, options.calls))
    for call in options.calls:
        for mode, ways in found.items():
            print("\n" + listing(f"{call}, {mode}", ways[call]))
    if options.json:
        plain = {
            mode: {call: [step._asdict() for step in ways[call]] for call in CALLS} for mode, ways in found.items()
        }
        options.json.write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
