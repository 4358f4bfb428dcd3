"""Law 9, "one call of JAX, one body", for every row of `tests/support/jax_callers.py`.

A function that one call of a JAX function calls several times is one body: it has one set of variables, the same random
keys, the same default names, one `js.variable`, one entry in a collection and one loss. What must come out is therefore
what the program gives when plain Python calls each body once, in the order in which JAX first calls them. Branches of
`cond` and `switch` are calls of their own, and so is each leaf of `jax.tree.map`, as written.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_callers import CALLERS, LEFT_OUT, Caller, Wrap, functions_of_functions

import jscope as js

KEY = jax.random.key(0)
BY_NAME = {row.name: row for row in CALLERS}
SEVERAL = [row for row in CALLERS if row.several]

# Where a refusal that names the reason is as good as one body, and why. Elsewhere one body is asked for.
MAY_REFUSE = {
    "lax.custom_root": "the user's solver calls the function too, on JAX 0.10 without a frame of JAX between",
    "lax.custom_linear_solve, the solver calls it": "it is called by JAX, and by the user's solver",
    "lax.custom_linear_solve, the solver is cg": "it is called by JAX, and by cg in the user's solver",
    "jax.example_libraries.optimizers": "a loop in C calls it, which looks like the calls of one pass",
    "lax.switch, partials that differ in an array": "the functions of this call differ in an array alone",
}
# Functions of JAX that take none that is traced as a whole: `jet` has no rule for what is in it, and what
# `gaussian_kde` gives is an object that is not ready yet.
TRACED_BY = {"jax.jit", "jax.checkpoint", "equinox.filter_jit"}
TAKES_NO_TRACED = {"jax.scipy.stats.gaussian_kde", "jax.experimental.jet.jet"}
REASON = re.compile(
    r"more than once|several times|a second time|again|twice|told apart|one call of|calls .* (?:anew|each)"
)


# The functions that JAX is given, as users write them.


def same(f: Callable[..., Any]) -> Callable[..., Any]:
    return f


def with_wraps(f: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return f(*args, **kwargs)

    return wrapper


def without_wraps(f: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return f(*args, **kwargs)

    return wrapper


def partial(f: Callable[..., Any]) -> Callable[..., Any]:
    def scaled(k: int, *args: Any, **kwargs: Any) -> Any:
        return f(*args, **kwargs)

    return functools.partial(scaled, 3)


def filter_jit(f: Callable[..., Any]) -> Callable[..., Any]:
    return pytest.importorskip("equinox").filter_jit(f)


def jaxtyped(f: Callable[..., Any]) -> Callable[..., Any]:
    return pytest.importorskip("jaxtyping").jaxtyped(typechecker=None)(f)


WRAPS: dict[str, Wrap] = {
    "plain": same,
    "with wraps": with_wraps,
    "without wraps": without_wraps,
    "partial": partial,
    "jax.jit": jax.jit,
    "jax.checkpoint": jax.checkpoint,
    "equinox.filter_jit": filter_jit,
    "jaxtyping.jaxtyped": jaxtyped,
}
ARRAYS_ONLY = {"jax.jit", "jax.checkpoint"}


# Programs, and what they are seen to do.


@dataclass
class Seen:
    """What a run of a program did.

    Attributes:
      names: the variables, in creation order.
      calls: `(body, key)` for each call of a body; the key is None where it is not concrete.
      after: the key that is taken after the bodies.
      collection: what the bodies added to a collection.
      losses: how many regularization losses there are.
    """

    names: list[str] = field(default_factory=list)
    calls: list[tuple[int, str | None]] = field(default_factory=list)
    after: str | None = None
    collection: list[Any] = field(default_factory=list)
    losses: int = 0

    def order(self) -> list[int]:
        """The bodies, in the order in which they were first called."""
        return list(dict.fromkeys(body for body, _ in self.calls))

    def keys(self) -> dict[int, list[str | None]]:
        """The keys that each body got, each once, in order."""
        return {i: list(dict.fromkeys(key for body, key in self.calls if body == i)) for i in self.order()}


def key_here() -> str | None:
    """The next key as text, in any trace in which the program's `rng` is concrete; None elsewhere."""
    with jax.ensure_compile_time_eval():
        key = jax.random.key_data(js.next_key())
    return None if isinstance(key, jax.core.Tracer) else np.asarray(key).tobytes().hex()


def loss_of(w: Any) -> Any:
    return jnp.sum(w**2)


def body_of(number: int, seen: Seen, creates: bool) -> Callable[[Any], Any]:
    """A body with one of each jscope call; with `creates`, also a variable that is made without reuse."""

    def body(x: Any) -> Any:
        weight = 1.0
        if creates:
            weight = js.get_variable(f"w{number}", [], initializer=js.ones_initializer(), regularizer=loss_of)
        with js.variable_scope(None, "d"):
            weight = weight * js.get_variable("u", [], initializer=js.ones_initializer(), regularizer=loss_of)
        weight = weight * js.variable(1.0, name="v")
        js.add_to_collection("bodies", number)
        seen.calls.append((number, key_here()))
        return jax.tree.map(lambda x: x * weight, x)

    return body


Call = Callable[[Any], Any]


def program_of(call: Call, seen: Seen) -> Callable[[Any], Any]:
    """`call` in a scope, and what can be seen after it."""

    def program(x: Any) -> Any:
        seen.calls.clear()
        with js.variable_scope("net"):
            y = call(x)
            seen.after = key_here()
            with js.variable_scope(None, "d"):
                js.get_variable("after", [], initializer=js.ones_initializer())
            seen.names = [v.name for v in js.global_variables()]
            seen.collection = list(js.get_collection("bodies"))
            seen.losses = len(js.get_regularization_losses())
        return y

    return program


def plainly(bodies: Sequence[Call], order: Sequence[int]) -> Call:
    """Plain Python calls the bodies."""

    def call(x: Any) -> Any:
        for i in order:
            bodies[i](jnp.float32(1))
        return x

    return call


@contextlib.contextmanager
def traced_by_sys() -> Iterator[None]:
    """A debugger or coverage is at work."""

    def tracer(*args: Any) -> Any:
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)


def run(call: Call, seen: Seen, x: Any, mode: str, names: Sequence[str] = ()) -> Seen:
    """Runs the program in one way; `seen` says what it did.

    Args:
      call: what the program calls in its scope.
      seen: what the bodies of `call` write to.
      x: the argument of `call`.
      mode: "specs", "eager", "jit", "settrace", "disable_jit", "grad", or "agree" (of init, apply and update).
      names: the variables, where JAX wants to see numbers, so that there can be no specs.
    """
    net = js.transform(program_of(call, seen))
    if mode == "specs":
        assert list(net.specs(x)) == seen.names
        return seen
    names = list(names) or list(net.specs(x))
    params = dict.fromkeys(names, jnp.float32(1))
    if mode == "eager":
        net.apply(params, x, rng=KEY)
    elif mode == "jit":
        jax.jit(lambda params: net.apply(params, x, rng=KEY))(params)
    elif mode == "settrace":
        with traced_by_sys():
            net.apply(params, x, rng=KEY)
    elif mode == "disable_jit":
        with jax.disable_jit():
            net.apply(params, x, rng=KEY)
    elif mode == "grad":
        jax.grad(lambda p: sum(map(jnp.sum, jax.tree.leaves(net.apply(p, x, rng=KEY)))))(params)
    else:
        assert mode == "agree"
        assert net.init(KEY, x).names == tuple(sorted(names))
        assert net.update(params, x, rng=KEY)[1].names == tuple(sorted(names))
    assert seen.names == names, "apply reads what specs lists"
    return seen


def expected(order: Sequence[int], count: int, creates: bool, keys: bool) -> Seen:
    """What plain Python gives that calls the bodies in this order."""
    seen = Seen()
    bodies = [body_of(i, seen, creates) for i in range(count)]
    return run(plainly(bodies, order), seen, jnp.float32(1), "eager" if keys else "specs")


def call_of(row: Caller, wrap: Wrap, seen: Seen, creates: bool, trees: bool = False) -> Call:
    """One call of the function of JAX, with bodies that write to `seen`."""
    bodies = [body_of(i, seen, creates) for i in range(row.bodies)]
    if trees:
        bodies = [functools.partial(jax.tree.map, body) for body in bodies]
    return row.build(wrap, *bodies)


def agree(got: Seen, want: Seen) -> None:
    """The two runs agree in all that one can see."""
    assert got.names == want.names
    assert got.collection == want.collection
    assert got.losses == want.losses
    if want.after is not None and got.after is not None:
        if all(key is not None for _, key in got.calls):  # in a shard_map no key is concrete
            assert got.keys() == want.keys()
        assert got.after == want.after
        assert got.after not in {key for _, key in got.calls}


def refused_rightly(row: Caller, text: str) -> None:
    """The row may be refused, and the text says why and what to do."""
    assert row.name in MAY_REFUSE, f"refused: {text}"
    assert REASON.search(text), f"the text doesn't name the reason: {text}"
    assert "Fix:" in text


def check(row: Caller, wrap_name: str, mode: str) -> None:
    """The row does what plain Python does that calls each body once, or it is refused for a reason that is named."""
    if wrap_name in ARRAYS_ONLY and not row.arrays:
        pytest.skip("the function gets what is no array")
    if wrap_name in TRACED_BY and row.name in TAKES_NO_TRACED:
        pytest.skip("JAX refuses such a function by itself")
    if wrap_name == "partial" and row.named:
        pytest.skip("JAX asks for the function's name")
    if wrap_name == "equinox.filter_jit" and row.name == "jax.make_array_from_callback" and sys.version_info < (3, 12):
        pytest.skip("the function gets a slice, which filter_jit hashes, and Python before 3.12 can't")
    if mode in row.one_branch:
        pytest.skip("only the branch that is taken is called, so default names after it are others")
    names: Sequence[str] = ()
    if row.limit in ("concrete", "untraced"):
        if mode not in ("eager", "settrace", "disable_jit"):
            pytest.skip("JAX wants to see numbers here")
        names = expected(range(row.bodies), row.bodies, row.kind == "body", keys=False).names
    if row.limit == "closes over nothing":
        pytest.skip("JAX refuses functions that close over arrays")
    creates = row.kind == "body"
    seen = Seen()
    try:
        got = run(call_of(row, WRAPS[wrap_name], seen, creates), seen, row.argument(), mode, names)
    except js.JscopeError as error:
        refused_rightly(row, str(error))
        return
    order = got.order() if creates else [body for body, _ in got.calls]
    agree(got, expected(order, row.bodies, creates, keys=mode != "specs"))


every = pytest.mark.parametrize("row", CALLERS, ids=repr)
wraps = pytest.mark.parametrize("wrap", WRAPS)


# One body.


def _slow_unless(quick: bool, *values: Any, name: str) -> Any:
    return pytest.param(*values, id=name, marks=() if quick else pytest.mark.slow)


# Of all functions of JAX that call a body several times, every third is in the suite, and the long tests have all.
IN_THE_SUITE = [row for row in SEVERAL if row.quick][::3]
NAMED = [
    _slow_unless(wrap == "plain" or (row in IN_THE_SUITE and wrap == "without wraps"), row, wrap, name=f"{row}-{wrap}")
    for row in SEVERAL
    for wrap in WRAPS
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("row", "wrap"), NAMED)
def test_names(row, wrap):
    check(row, wrap, "specs")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "row", [_slow_unless(row in IN_THE_SUITE, row, name=repr(row)) for row in SEVERAL if row.quick]
)
def test_keys(row):
    check(row, "plain", "eager")


@pytest.mark.slow
@every
@wraps
@pytest.mark.parametrize("mode", ["specs", "eager", "jit", "settrace", "disable_jit"])
def test_one_body(row, wrap, mode):
    check(row, wrap, mode)


@pytest.mark.slow
@every
def test_init_apply_and_update_agree(row):
    check(row, "plain", "agree")


# Parameters are differentiated through the loop, which JAX can't do for `while_loop`. `calls["grad"]` does not tell:
# for a carry that changes its type it counts under a gradient that does not go through the loop.
DIFFERENTIATED = [
    row
    for row in CALLERS
    if row.calls["grad"] and not row.name.startswith("lax.while_loop") and "custom_" not in row.name
]


@pytest.mark.slow
@pytest.mark.parametrize("row", DIFFERENTIATED, ids=repr)
def test_differentiated(row):
    check(row, "plain", "grad")


def _tree_of(row: Caller) -> Any:
    x = row.argument()
    return {"a": x, "b": x}


@pytest.mark.parametrize("row", [row for row in CALLERS if row.trees], ids=repr)
@pytest.mark.parametrize("mode", ["specs", pytest.param("eager", marks=pytest.mark.slow)])
def test_tree_mapped_bodies(row, mode):
    """`functools.partial(jax.tree.map, f)` calls f for each leaf, as written, and is one body in each pass."""
    seen = Seen()
    got = run(call_of(row, same, seen, creates=False, trees=True), seen, _tree_of(row), mode)
    agree(got, expected([0, 0], 1, creates=False, keys=mode != "specs"))
    assert got.names[:4] == ["net/d/u", "net/v", "net/d_1/u", "net/v_1"]


@pytest.mark.parametrize("row", [row for row in CALLERS if row.limit == "closes over nothing"], ids=repr)
def test_what_jax_refuses(row):
    """Where JAX takes no function that closes over arrays, there is an error, and no wrong value."""
    seen = Seen()
    refusals = (TypeError, NotImplementedError, AssertionError, jax.errors.JAXTypeError, js.JscopeError)
    with pytest.raises(refusals):
        run(call_of(row, same, seen, creates=True), seen, row.argument(), "jit")


# Calls of their own.


@pytest.mark.sampled(3)
@pytest.mark.parametrize("row", [row for row in SEVERAL if row.kind == "body" and not row.limit], ids=repr)
@pytest.mark.parametrize("mode", ["specs", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "same_function",
    [_slow_unless(True, True, name="one function"), _slow_unless(False, False, name="another function")],
)
def test_two_calls_in_one_line_are_two(row, mode, same_function):
    """A loop of Python calls twice, as written; also where JAX gets the same function object."""
    seen = Seen()
    calls = [call_of(row, same, seen, creates=False)] * 2
    if not same_function:
        calls[1] = call_of(row, same, seen, creates=False)

    def call(x: Any) -> Any:
        results = [call(x) for call in calls]
        return results[0]

    try:
        got = run(call, seen, row.argument(), mode)
    except js.JscopeError as error:
        refused_rightly(row, str(error))
        return
    order = got.order()
    agree(got, expected(order * 2, row.bodies, creates=False, keys=mode != "specs"))
    assert "net/d_1/u" in got.names
    if mode != "specs":
        assert all(len(keys) == 2 for keys in got.keys().values())


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["lax.cond", "lax.switch", "lax.switch, one function three times"])
@pytest.mark.parametrize("wrap", [_slow_unless(w in ("plain", "without wraps"), w, name=w) for w in list(WRAPS)[:4]])
def test_branches_are_separate(name, wrap):
    row, seen = BY_NAME[name], Seen()
    got = run(call_of(row, WRAPS[wrap], seen, creates=False), seen, row.argument(), "eager")
    branches = 2 if name == "lax.cond" else 3
    assert len(got.calls) == len({key for _, key in got.calls}) == branches
    assert got.names == [
        *(f"net/{name}" for i in range(branches) for name in (f"d_{i}/u" if i else "d/u", f"v_{i}" if i else "v")),
        f"net/d_{branches}/after",
    ]


def test_experts_by_partial_are_never_shared():
    """Functions of one call that differ in an array alone are told apart, or refused; never one set in silence."""
    row, seen = BY_NAME["lax.switch, partials that differ in an array"], Seen()
    try:
        got = run(call_of(row, same, seen, creates=False), seen, row.argument(), "specs")
    except js.JscopeError as error:
        refused_rightly(row, str(error))
    else:
        assert [name for name in got.names if name.endswith("/u")] == ["net/d/u", "net/d_1/u", "net/d_2/u"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("wrap", [_slow_unless(w in ("plain", "without wraps"), w, name=w) for w in list(WRAPS)[:5]])
@pytest.mark.parametrize("name", ["lax.while_loop, condition too", "lax.while_loop, condition too, carry changes type"])
def test_condition_and_body_are_two_functions(name, wrap):
    row, seen = BY_NAME[name], Seen()
    got = run(call_of(row, WRAPS[wrap], seen, creates=True), seen, row.argument(), "eager")
    keys = got.keys()
    assert set(keys) == {0, 1}
    assert all(len(k) == 1 for k in keys.values())
    assert keys[0] != keys[1]
    assert [name for name in got.names if name.endswith("/u")] == ["net/d/u", "net/d_1/u"]


def test_tree_map_is_as_written():
    seen = Seen()
    body = body_of(0, seen, creates=False)
    got = run(lambda x: jax.tree.map(body, [x, x, x])[0], seen, jnp.float32(1), "eager")
    agree(got, expected([0, 0, 0], 1, creates=False, keys=True))
    assert len(got.keys()[0]) == 3


# Loops in loops.

OUTER = ["lax.scan, carry changes type", "lax.fori_loop, carry changes type", "lax.while_loop, carry changes type"]
INNER = [
    "lax.map",
    "lax.map, batch_size=2 of 5",
    "lax.associative_scan, 5",
    "lax.scan, carry changes type",
    "lax.while_loop, condition too, carry changes type",
    "jax.scipy.sparse.linalg.cg, M",
    "jnp.frompyfunc, reduce",
    "jax.checkpoint",
    "lax.cond",
    "jax.tree.map",
]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("mode", ["specs", *(pytest.param(m, marks=pytest.mark.slow) for m in ("eager", "settrace"))])
def test_nested(outer, inner, mode):
    """A body that JAX runs again has all of its calls again, and each is the same as in the first pass."""
    row, seen = BY_NAME[inner], Seen()
    creates = row.kind == "body"
    inside = call_of(row, same, seen, creates)
    total = lambda tree: sum(map(jnp.sum, jax.tree.leaves(tree)))  # noqa: E731
    call = BY_NAME[outer].build(same, lambda c: c * jnp.float32(1) + total(inside(row.argument())))
    got = run(call, seen, 1, mode)
    alone = Seen()
    run(call_of(row, same, alone, creates), alone, row.argument(), "specs")
    order = alone.order() if creates else [body for body, _ in alone.calls]
    assert len(got.calls) > len(order), "the outer loop is traced again: the premise of this test"
    agree(got, expected(order, row.bodies, creates, keys=mode != "specs"))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("inner", ["lax.map, batch_size=2 of 5", "lax.associative_scan, 5"])
def test_two_calls_in_a_body_that_runs_again(inner):
    """Two calls of one function in the same line of a loop's body are two in each pass."""
    row, seen = BY_NAME[inner], Seen()
    inside = call_of(row, same, seen, creates=False)
    outer = BY_NAME["lax.scan, carry changes type"]
    call = outer.build(same, lambda c: c * jnp.float32(1) + sum(inside(row.argument()).sum() for _ in range(2)))
    got = run(call, seen, 1, "eager")
    agree(got, expected([0, 0], 1, creates=False, keys=True))
    assert len(got.keys()[0]) == 2


# After a body.


@pytest.mark.parametrize(
    "name", ["lax.scan, carry changes type", "lax.map, batch_size=2 of 5", "lax.associative_scan, 5"]
)
def test_nothing_is_given_out_again(name):
    """What is taken before and after a body that runs several times is never what the body got."""
    row, seen = BY_NAME[name], Seen()
    inside = call_of(row, same, seen, creates=False)
    outside: list[str | None] = []

    def taken() -> None:
        outside.append(key_here())
        with js.variable_scope(None, "d"):
            js.get_variable("outside", [])

    def call(x: Any) -> Any:
        outside.clear()
        taken()
        y = inside(x)
        taken()
        return y

    got = run(call, seen, row.argument(), "eager")
    every_key = [*outside, *got.keys()[0], got.after]
    assert len(set(every_key)) == len(every_key) == 4
    assert got.names == ["net/d/outside", "net/d_1/u", "net/v", "net/d_2/outside", "net/d_3/after"]


# The table itself.


def count_calls(row: Caller, mode: str) -> tuple[int, ...] | None:
    """How often JAX calls each body, in plain JAX; None where JAX can't."""
    counts = [0] * row.bodies

    def counted(i: int) -> Call:
        def body(x: Any) -> Any:
            counts[i] += 1
            return jax.tree.map(lambda x: x * jnp.float32(1), x)

        return body

    call = row.build(same, *(counted(i) for i in range(row.bodies)))
    x = row.argument()
    try:
        if mode == "jit":
            jax.jit(lambda: call(x))() if row.weak else jax.jit(call)(x)
        elif mode == "grad":
            total = lambda x: sum(map(jnp.sum, jax.tree.leaves(call(x))))  # noqa: E731
            jax.grad(lambda y: y * total(x))(1.0) if row.weak else jax.grad(total)(x)
        else:
            with jax.disable_jit(mode == "disable_jit"):
                call(x)
    except (TypeError, ValueError, NotImplementedError, AssertionError, jax.errors.JAXTypeError):
        return None
    return tuple(counts)


def test_no_function_of_jax_is_missing():
    """Each public function of JAX that takes a function has a row, or a reason to have none."""
    rows = {row.name.split(",")[0].split(" ")[0] for row in CALLERS}
    rows = {re.sub("^(lax|jnp)[.]", lambda m: {"lax": "jax.lax.", "jnp": "jax.numpy."}[m[1]], name) for name in rows}
    left_out = {name for names in LEFT_OUT.values() for name in names}
    within = {name for name in functions_of_functions() if name.rpartition(".")[0] in rows}  # optimizers.optimizer
    assert functions_of_functions() - rows - left_out - within == set()


@pytest.mark.slow
@every
@pytest.mark.parametrize("mode", ["eager", "jit", "disable_jit", "grad"])
def test_how_often_jax_calls(row, mode):
    """The counts of the table are what this JAX does; programs must not depend on them."""
    assert count_calls(row, mode) == row.calls[mode]
