"""Random programs of transforms around ambient calls, as data, and how hypothesis draws them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

import jscope as js

PRIME = 1009  # the square of a value is exact in float32

# Programs as data -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Get:
    """Asks for a variable and uses it; `then` assigns it: count (+ 1), add (+ x) or add_stopped (+ x, no gradient)."""

    name: str
    then: str = ""
    product: bool = False
    regularized: bool = False


@dataclass(frozen=True)
class Compute:
    """Asks for a variable whose initial value is x."""


@dataclass(frozen=True)
class Peek:
    """Uses the value of any variable there is, by its full name."""

    which: int


@dataclass(frozen=True)
class Assign:
    """Assigns any variable there is, by its full name; `how` as in `Get.then`."""

    which: int
    how: str


@dataclass(frozen=True)
class Key:
    """Uses the next key."""


@dataclass(frozen=True)
class Losses:
    """Uses all regularization losses."""


@dataclass(frozen=True)
class Double:
    """2 * x: no ambient call."""


@dataclass(frozen=True)
class ReuseOn:
    """Sets the current scope to reuse."""


@dataclass(frozen=True)
class Capture:
    """Keeps the current scope."""


@dataclass(frozen=True)
class Scope:
    """A named scope; `reuse` is None, "auto" or True."""

    name: str
    reuse: Any
    body: tuple[Any, ...]


@dataclass(frozen=True)
class Default:
    """A scope with a default name."""

    body: tuple[Any, ...]


@dataclass(frozen=True)
class Again:
    """Enters the scope captured last (if none was, the current one)."""

    body: tuple[Any, ...]


@dataclass(frozen=True)
class Attempt:
    """Catches errors of scope rules."""

    body: tuple[Any, ...]


@dataclass(frozen=True)
class When:
    """One of two bodies, by what the program can see of its arguments without asking for values (one of `TESTS`)."""

    test: str
    body: tuple[Any, ...]
    other: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Call:
    """Calls a block; persistent blocks are transformed once for all calls of all programs."""

    block: int
    fresh: bool


@dataclass(frozen=True)
class Block:
    """A body under a transform.

    `other` is the other branch, and `length` the number of turns, of which the number of rows follows. `dress` is what
    is put around each function before JAX gets it (one of `DRESSES`). If there is a `start`, the carry of the loop has
    a part that starts with this Python number and is a float32 from the first turn on: JAX traces the body twice if
    the number is an integer. `condition` is what the condition of a while loop does.
    """

    kind: str
    body: tuple[Any, ...]
    other: tuple[Any, ...] = ()
    length: int = 1
    dress: str = ""
    start: Any = None
    condition: tuple[Any, ...] = ()

    @property
    def traced_twice(self) -> bool:
        return type(self.start) is int


@dataclass(frozen=True)
class Run:
    """One use of a program: `kind` is a method of `Checker`, `salt` tells its tree from others.

    `form` is that of the argument (one of `FORMS`), `flag` a static argument.
    """

    program: int
    kind: str
    salt: int
    jit: bool = False
    form: str = "array"
    flag: Any = False


@dataclass(frozen=True)
class Case:
    """Blocks call blocks before them; the runs share one set of persistent blocks."""

    blocks: tuple[Block, ...]
    programs: tuple[tuple[Any, ...], ...]
    runs: tuple[Run, ...]


CUSTOM = ("custom_jvp", "custom_vjp")
WHILE = ("while_loop",)
LOOPS = ("scan", "fori_loop", "while_loop", "scan_tree")  # those whose carry can change its type
DRESSES = ("wraps", "closure", "partial", "object", "jit", "checkpoint")
# What is added to the number that a program gets, by the form of its argument: see `argument` in `random_runner.py`.
FORMS = {"array": 0, "numpy": 0, "float": 0, "int": 0, "number": 0, "pair": 1, "dict": 3}
TESTS = ("flag", "whole", "several")
SCOPE_ERRORS = (js.VariableExistsError, js.VariableNotFoundError, js.TemplateError)
INITIAL = {"w": 5, "v": 7, "n": 3}


def is_int(name: str) -> bool:
    """Whether the variable of this full name holds whole numbers, to JAX too: counters."""
    return name.rpartition("/")[2] == "n"


def leaf(name: str, salt: int) -> int:
    """The value of a variable in the tree of that salt."""
    return zlib.crc32(f"{salt}:{name}".encode()) % (PRIME - 1) + 1


def seen(form: str, flag: Any) -> dict[str, bool]:
    """The tests that a program can do on such arguments."""
    return {"flag": flag is True, "whole": form in ("int", "number", "dict"), "several": form in ("pair", "dict")}


# Cases ----------------------------------------------------------------------------------------------------------------

TRANSFORMS = (
    *("jit", "checkpoint", "scan", "fori_loop", "while_loop", "cond", "cond_true", "cond_false"),
    *("switch", "map", "vmap", "value_and_grad", "grad", "vjp", "linearize", "jvp", "custom_jvp", "custom_vjp"),
    *("template", "tree_map", "map_tree", "scan_tree", "map_rows", "associative_scan"),
)
RARE = (*CUSTOM, "vmap", "tree_map", "map_rows", "associative_scan")
LENGTHS = (2, 3, 1, 0)
KINDS = [kind for kind in TRANSFORMS for _ in range(1 if kind in RARE else 2)]
KINDS_OF_RUNS = (
    *("update", "gradient", "vmapped", "init", "apply", "update", "gradient", "vmapped", "init"),
    *("update", "gradient", "init", "lines", "lines"),
)
# How the programs are drawn: "shared" and "unshared" ones do little that ends in an error, which would be the end of
# the run; those share all by name, these make everything without reuse and under default names; "careless" ones do
# anything.
MANNERS = ("shared", "shared", "unshared", "unshared", "careless")
STARTS = (None, 0, 0, 0.0)
NO_DRESS = ("",) * 6
ASKING = (False, True, True)  # whether the condition of a while loop asks for anything
SEEING = (True, False)  # whether the program sees what its arguments are
FLAGS = (False, True, 1)

reading_ops = st.one_of(
    st.builds(Get, st.sampled_from(["w", "v", "n"]), st.just(""), st.booleans(), st.sampled_from([False, False, True])),
    st.builds(Key),
    st.builds(Peek, st.integers(0, 3)),
    st.sampled_from([Losses(), Capture(), Double()]),
)
assigning_ops = st.one_of(
    st.builds(
        Get,
        st.sampled_from(["n", "w", "v"]),
        st.sampled_from(["count", "count", "add_stopped", "add_stopped", "add"]),
        st.booleans(),
    ),
    st.builds(Assign, st.integers(0, 3), st.sampled_from(["count", "count", "add_stopped", "add_stopped", "add"])),
)
careful_ops = st.one_of(reading_ops, assigning_ops)
careless_ops = st.one_of(careful_ops, careful_ops, careful_ops, st.sampled_from([Compute(), ReuseOn()]))


@st.composite
def bodies(
    draw: Any, ops: st.SearchStrategy[Any], reuses: tuple[Any, ...], calls: int, blocks: int, depth: int = 2
) -> tuple[Any, ...]:
    """Ops in scopes, and `calls` calls of the first so many blocks, of the last of them most."""
    body = draw(st.lists(ops, min_size=1, max_size=2))
    for _ in range(calls if blocks else 0):
        number = max(draw(st.integers(0, blocks - 1)), draw(st.integers(0, blocks - 1)))
        body.append(Call(number, draw(st.sampled_from([False, False, True]))))
    body = draw(st.permutations(body))
    start, end = sorted(draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
    if depth and start < end:
        body[start:end] = [draw(container((*body[start:end], *draw(bodies(ops, reuses, 0, 0, depth - 1))), reuses))]
    return tuple(body)


def container(body: tuple[Any, ...], reuses: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    named = st.builds(Scope, st.sampled_from(["a", "b"]), st.sampled_from(reuses), st.just(body))
    others = [st.builds(kind, st.just(body)) for kind in (Default, Again, Attempt)]
    return st.one_of(named, named, *others)


def unshared(body: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same body with nothing in it shared: what could meet a name again gets a scope with a default name."""
    apart: list[Any] = []
    names: set[str] = set()
    for op in body:
        match op:
            case Get(name):
                apart.append(Default((op,)) if name in names else op)
                names.add(name)
            case Call():
                apart.append(Default((op,)))
            case Scope() | Default() | Again():
                apart.append(Default(unshared(op.body)))
            case Attempt(inside):
                apart.append(Attempt((Default(unshared(inside)),)))
            case When():
                apart.append(When(op.test, (Default(unshared(op.body)),), (Default(unshared(op.other)),)))
            case _:
                apart.append(op)
    return tuple(apart)


@st.composite
def blocks_of(draw: Any, manner: str, number: int, last: bool) -> Block:
    """A block that may call those before it, of which there are so many."""
    careful = manner != "careless"
    ops, reuses = (careful_ops, ("auto",)) if careful else (careless_ops, ("auto", "auto", None, True))
    kind = draw(st.sampled_from(KINDS))
    if careful and kind in (*CUSTOM, *WHILE) and not last:
        kind = "scan"  # few transforms can be around those
    plain = kind == "associative_scan" or (careful and kind in ("vmap", "map_rows"))
    parts = {"body": draw(bodies(reading_ops if plain else ops, reuses, 0 if plain else 1, number))}
    if kind.startswith("cond") or kind == "switch":
        parts["other"] = draw(bodies(ops, reuses, 1, number))
    if kind in WHILE and draw(st.sampled_from(ASKING)):
        parts["condition"] = draw(bodies(reading_ops, reuses, 0, 0))
    if manner == "unshared":
        parts = {part: unshared(body) for part, body in parts.items()}
    return Block(
        kind,
        length=draw(st.sampled_from(LENGTHS)),
        dress=draw(st.sampled_from(NO_DRESS + (DRESSES[:4] if kind == "template" else DRESSES))),
        start=draw(st.sampled_from(STARTS)) if kind in LOOPS else None,
        **parts,
    )


@st.composite
def cases(draw: Any, runs: int) -> Case:
    """A few blocks, one or two programs that call them, and some runs, of which the first two see all variables."""
    manner = draw(st.sampled_from(MANNERS))
    careful = manner != "careless"
    ops, reuses = (careful_ops, ("auto",)) if careful else (careless_ops, ("auto", "auto", None, True))
    count = draw(st.integers(2, 4))
    blocks = tuple(draw(blocks_of(manner, number, number == count - 1)) for number in range(count))
    programs = []
    for _ in range(draw(st.integers(1, 2))):
        body = draw(bodies(ops, reuses, 2, count))
        if draw(st.sampled_from(SEEING)):
            when, otherwise = draw(bodies(ops, reuses, 1, count)), draw(bodies(ops, reuses, 0, 0))
            body += (When(draw(st.sampled_from(TESTS)), when, otherwise),)
        body += draw(st.sampled_from([(), (Compute(),)]))
        if manner == "unshared":
            programs.append((Scope("m", None, unshared(body)),))
        else:
            programs.append((Scope("m", "auto", body),) if careful or draw(st.booleans()) else body)
    which, salts = st.integers(0, len(programs) - 1), st.integers(0, 9)
    jits = st.sampled_from([True, True, True, True, False])  # what is not jitted is slow
    forms, flags = st.sampled_from(list(FORMS)), st.sampled_from(FLAGS)
    kinds = st.sampled_from(KINDS_OF_RUNS)
    drawn = [Run(*(draw(part) for part in (which, kinds, salts, jits, forms, flags))) for _ in range(runs)]
    return Case(blocks, tuple(programs), (Run(0, "specs", 0), Run(0, "update", draw(salts), draw(jits)), *drawn))
