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
class Call:
    """Calls a block; persistent blocks are transformed once for all calls of all programs."""

    block: int
    fresh: bool


@dataclass(frozen=True)
class Block:
    """A body under a transform; `other` is the other branch, `length` the number of turns."""

    kind: str
    body: tuple[Any, ...]
    other: tuple[Any, ...] = ()
    length: int = 1


@dataclass(frozen=True)
class Run:
    """One use of a program: `kind` is a method of `Checker`, `salt` tells its tree from others."""

    program: int
    kind: str
    salt: int
    jit: bool = False


@dataclass(frozen=True)
class Case:
    """Blocks call blocks before them; the runs share one set of persistent blocks."""

    blocks: tuple[Block, ...]
    programs: tuple[tuple[Any, ...], ...]
    runs: tuple[Run, ...]


CUSTOM = ("custom_jvp", "custom_vjp")
WHILE = ("while_loop", "while_that_reads")
SCOPE_ERRORS = (js.VariableExistsError, js.VariableNotFoundError, js.TemplateError)
INITIAL = {"w": 5, "v": 7, "n": 3}


def is_int(name: str) -> bool:
    """Whether the variable of this full name holds whole numbers, to JAX too: counters."""
    return name.rpartition("/")[2] == "n"


def leaf(name: str, salt: int) -> int:
    """The value of a variable in the tree of that salt."""
    return zlib.crc32(f"{salt}:{name}".encode()) % (PRIME - 1) + 1


# Cases ------

TRANSFORMS = (
    *("jit", "checkpoint", "scan", "fori_loop", "while_loop", "while_that_reads", "cond", "cond_true", "cond_false"),
    *("switch", "map", "vmap", "value_and_grad", "grad", "vjp", "linearize", "jvp", "custom_jvp", "custom_vjp"),
    "template",
)
LENGTHS = (2, 3, 1, 0)
KINDS = [kind for kind in TRANSFORMS for _ in range(1 if kind in (*CUSTOM, *WHILE, "vmap") else 2)]
KINDS_OF_RUNS = (
    *("update", "gradient", "vmapped", "init", "apply", "update", "gradient", "vmapped", "init"),
    *("update", "gradient", "init", "lines"),
)

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


@st.composite
def cases(draw: Any, runs: int) -> Case:
    """Most are careful: they do little that ends in an error, which would be the end of the run."""
    careful = draw(st.sampled_from([True, True, True, False]))
    ops, reuses = (careful_ops, ("auto",)) if careful else (careless_ops, ("auto", "auto", None, True))
    count = draw(st.integers(2, 4))
    blocks: list[Block] = []
    for number in range(count):
        kind = draw(st.sampled_from(KINDS))
        if careful and kind in (*CUSTOM, *WHILE) and number < count - 1:
            kind = "scan"  # few transforms can be around those
        plain = careful and kind == "vmap"
        body = draw(bodies(reading_ops if plain else ops, reuses, 0 if plain else 1, number))
        other = draw(bodies(ops, reuses, 1, number)) if kind.startswith("cond") or kind == "switch" else ()
        blocks.append(Block(kind, body, other, draw(st.sampled_from(LENGTHS))))
    programs = []
    for _ in range(draw(st.integers(1, 2))):
        body = draw(bodies(ops, reuses, 2, count)) + draw(st.sampled_from([(), (Compute(),)]))
        programs.append((Scope("m", "auto", body),) if careful or draw(st.booleans()) else body)
    which, salts = st.integers(0, len(programs) - 1), st.integers(0, 9)
    jits = st.sampled_from([True, True, True, True, False])  # what is not jitted is slow
    drawn = [Run(draw(which), draw(st.sampled_from(KINDS_OF_RUNS)), draw(salts), draw(jits)) for _ in range(runs)]
    return Case(tuple(blocks), tuple(programs), (Run(0, "specs", 0), Run(0, "update", draw(salts), draw(jits)), *drawn))
