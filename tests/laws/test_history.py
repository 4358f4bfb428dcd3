"""Law 8: what a call does depends on its arguments, the program and JAX's configuration, on nothing else.

Not on earlier runs in the process, nor on who watches: a debugger, a profiler, coverage.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js

KEY = jax.random.key(0)
XS = jnp.arange(1.0, 6.0)


def asks(x: Any) -> Any:
    """Makes without reuse, under a default name, and takes a key."""
    with js.variable_scope(None, "d"):
        w = js.get_variable("w", [], initializer=js.ones_initializer())
    return x * w + jax.random.uniform(js.next_key())


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def retraced(x: Any) -> Any:
    return jax.lax.scan(lambda c, _: (asks(c), None), 0, None, length=2)[0] + x


def rows(xs: Any) -> Any:
    return jax.lax.map(asks, xs, batch_size=2)


def loop(x: Any) -> Any:
    state = jax.lax.while_loop(
        logged(lambda s: s[0] + 0 * asks(s[1]) < 2), logged(lambda s: (s[0] + 1, asks(s[1]))), (0, x)
    )
    return state[1]


def counted(xs: Any) -> Any:
    js.get_variable("n", [], jnp.int32, initializer=js.zeros_initializer(), trainable=False)

    def turn(total: Any, x: Any) -> Any:
        js.assign("n", js.value("n") - 1)
        return total + asks(x), js.value("n")

    return jax.lax.scan(turn, 0.0, xs)


PROGRAMS = {"retraced": (retraced, 1.0), "rows": (rows, XS), "loop": (loop, 1.0), "counted": (counted, XS)}
over_programs = pytest.mark.parametrize("name", PROGRAMS)


def outcome(net: js.Transformed, x: Any) -> Any:
    """All that one can see of a program: its declarations, initial values, results and state."""
    specs = net.specs(x)
    params = net.init(KEY, x)
    out, after = net.update(params, x, rng=KEY)
    told = [(spec.name, spec.shape, spec.collections, spec.created_at) for spec in specs.values()]
    return told, *(np.asarray(leaf).tolist() for leaf in jax.tree.leaves((params.flat(), out, after.flat())))


def fresh(name: str) -> tuple[js.Transformed, Any]:
    """A new transform of a new function."""
    function, x = PROGRAMS[name]
    return js.transform(lambda x: function(x)), x


@contextlib.contextmanager
def traced() -> Iterator[None]:
    """As a debugger watches: every line, looking at variables."""

    def look(frame: Any, event: str, argument: Any) -> Any:
        frame.f_locals.get("self")  # not at all of them: Python 3.13.0 itself crashes on that in some code of JAX's
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def profiled() -> Iterator[None]:
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: None)
    try:
        yield
    finally:
        sys.setprofile(before)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("watched", [traced, profiled])
@over_programs
def test_nothing_depends_on_who_watches(name: str, watched: Any) -> None:
    want = outcome(*fresh(name))
    with watched():
        got = outcome(*fresh(name))
    assert got == want


@pytest.mark.sampled(2)
@over_programs
def test_a_program_run_before_answers_as_a_new_one(name: str) -> None:
    want = outcome(*fresh(name))
    net, x = fresh(name)
    assert [outcome(net, x) for _ in range(3)] == [want] * 3


@pytest.mark.sampled(2)
@over_programs
def test_after_runs_that_failed_and_runs_of_other_arguments(name: str) -> None:
    fails = [True]
    function, x = PROGRAMS[name]

    def program(x: Any) -> Any:
        out = function(x)
        if fails[0]:
            raise ZeroDivisionError
        return out

    net = js.transform(program)
    params = fresh(name)[0].init(KEY, x)
    for run in (lambda: net.specs(x), lambda: net.init(KEY, x), lambda: net.update(params, x, rng=KEY)):
        with pytest.raises(ZeroDivisionError):
            run()
    fails[0] = False
    with contextlib.suppress(TypeError):  # JAX's own, of a carry that changes its type
        net.specs(jnp.asarray(x).astype(jnp.bfloat16))
    told, *rest = outcome(net, x)
    want = outcome(*fresh(name))
    assert [spec[:3] for spec in told] == [spec[:3] for spec in want[0]]
    assert tuple(rest) == want[1:]


def test_a_copied_context_is_refused_in_the_first_run_and_in_later_ones() -> None:
    def program() -> str:
        with js.variable_scope("s"):
            try:
                contextvars.copy_context().run(js.get_variable, "w", [])
            except js.OutsideProgramError:
                js.get_variable("w", [])
                return "refused"
            return "answered"

    net = js.transform(program)
    assert [net.apply({"s/w": 1.0}) for _ in range(3)] == ["refused"] * 3


def test_jax_s_configuration_inside_the_program_counts_each_time() -> None:
    wide = [True]

    def program() -> Any:
        with jax.enable_x64(wide[0]):
            return js.get_variable("w", [], jnp.float64)

    net = js.transform(program)
    with jax.enable_x64(True):
        params = {"w": jnp.float64(1)}
    net.apply(params)
    wide[0] = False
    with pytest.warns(UserWarning, match="64-bit mode"), pytest.raises(js.ParamsMismatchError):
        net.apply(params)


# Rehearsals -----------------------------------------------------------------------------------------------------------


def test_an_iterator_gives_each_item_once() -> None:
    def program(rows: Iterator[int]) -> int:
        js.get_variable("n", [], jnp.int32, trainable=False)
        return next(rows)

    net, rows = js.transform(program), iter(range(9))
    assert [net.update({"n": jnp.int32(0)}, rows)[0] for _ in range(3)] == [0, 1, 2]


def test_what_a_rehearsal_found_holds_for_calls_with_a_key_or_without_one() -> None:
    def program(xs: Any) -> Any:
        n = js.get_variable("n", [], trainable=False)
        try:
            js.next_key()
        except js.MissingRngError:
            return n
        jax.lax.scan(lambda c, x: (c, js.assign("n", js.value("n") + x)), 0.0, xs)
        return js.value("n")

    net, params = js.transform(program), {"n": jnp.float32(0)}
    assert net.update(params, XS)[0] == 0
    assert net.update(params, XS, rng=KEY)[0] == 15


def assigns_by_shape(xs: Any) -> Any:
    n = js.get_variable("n", initializer=lambda: jnp.zeros(2))
    js.get_variable("s", [], trainable=False)
    if n.shape == (3,):
        jax.lax.scan(lambda c, x: (c, js.assign("s", js.value("s") + x)), 0.0, xs)
    return js.value("s")


def test_what_a_rehearsal_found_holds_for_trees_of_one_shape() -> None:
    net = js.transform(assigns_by_shape)
    for size, want in ((2, 0), (3, 15)):
        assert net.update({"n": jnp.zeros(size), "s": jnp.float32(0)}, XS)[0] == want


def assigns_without(xs: Any) -> Any:
    js.get_variable("s", [], trainable=False)
    try:
        js.get_variable("n", [3])
    except js.ParamsMismatchError:
        jax.lax.scan(lambda c, x: (c, js.assign("s", js.value("s") + x)), 0.0, xs)
    return js.value("s")


@pytest.mark.parametrize("program", [assigns_by_shape, assigns_without])
@pytest.mark.parametrize("before", ["specs", "init", "update"])
def test_what_other_runs_declared_does_not_hold_for_another_tree(program: Any, before: str) -> None:
    net, s = js.transform(program), jnp.float32(0)
    if before == "specs":
        net.specs(XS)
    elif before == "init":
        net.init(KEY, XS)
    else:
        assert net.update({"n": jnp.zeros(2 if program is assigns_by_shape else 3), "s": s}, XS)[0] == 0
    tree = {"n": jnp.zeros(3), "s": s} if program is assigns_by_shape else {"s": s}
    assert net.update(tree, XS)[0] == 15


@pytest.mark.parametrize("take", [collections.deque.popleft, set.pop], ids=["deque", "set"])
def test_what_a_program_takes_out_is_taken_once(take: Any) -> None:
    def program(given: Any) -> Any:
        js.get_variable("n", [], jnp.int32, trainable=False)
        return take(given)

    given = {collections.deque.popleft: collections.deque, set.pop: set}[take](range(9))
    net = js.transform(program)
    net.specs(given)
    assert [net.update({"n": jnp.int32(0)}, given)[0] for _ in range(3)] == [0, 1, 2]


def test_an_iterator_that_the_program_holds_gives_each_item_once() -> None:
    rows = iter(range(9))

    def program() -> int:
        js.get_variable("n", [], jnp.int32, trainable=False)
        return next(rows)

    assert [js.transform(program).update({"n": jnp.int32(0)})[0] for _ in range(3)] == [0, 1, 2]
    bound = js.transform(functools.partial(lambda rows: (js.get_variable("n", [], jnp.int32), next(rows))[1], rows))
    assert [bound.update({"n": jnp.int32(0)})[0] for _ in range(3)] == [3, 4, 5]


def test_a_program_that_branches_on_numbers_of_numpy() -> None:
    def program(xs: Any) -> Any:
        js.get_variable("s", [], trainable=False)
        if xs[0] > 0:
            jax.lax.scan(lambda c, x: (c, js.assign("s", js.value("s") + x)), 0.0, xs)
        return js.value("s")

    net, params = js.transform(program), {"s": jnp.float32(0)}
    for xs, want in ((np.float32([-1, 2]), 0), (np.float32([1, 2]), 3)):
        assert net.update(params, xs)[0] == want


DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "bool"]


@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "uint64"])
def test_state_of_integers_survives_loops_and_debug_nans(dtype: str) -> None:
    """Every value, the extreme ones and those whose bits are no number among them."""
    with jax.enable_x64(dtype.endswith("64")), jax.debug_nans(True):
        if dtype == "bool":
            values = jnp.array([False, True, True, False])
        else:
            info = jnp.iinfo(dtype)
            some = [0, 1, info.max, info.min, info.max // 3, info.max - 1, info.min // 2]
            values = jnp.array([value for value in some if info.min <= value <= info.max], dtype)

        def program(xs: Any) -> Any:
            js.get_variable("n", [], dtype, initializer=js.zeros_initializer(), trainable=False)

            def turn(c: Any, x: Any) -> Any:
                js.assign("n", x)
                return c, js.value("n")

            return jax.lax.scan(turn, 0.0, xs)[1]

        net = js.transform(program)
        out, after = net.update({"n": jnp.zeros((), dtype)}, values)
        assert out.dtype == after["n"].dtype == jnp.dtype(dtype)
        assert out.tolist() == values.tolist()
        assert after["n"] == values[-1]


@pytest.mark.slow
def test_the_whole_is_alike_under_coverage_and_without_assertions(tmp_path: Path) -> None:
    """In processes of their own: as it is, with `python -O`, and measured by coverage."""
    code = """
import test_history as here
print([here.outcome(*here.fresh(name)) for name in here.PROGRAMS])
"""
    paths = [str(Path(js.__file__).parents[1]), str(Path(__file__).parent)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}

    def printed(*command: str) -> str:
        run = functools.partial(subprocess.run, capture_output=True, text=True, check=True, env=env, cwd=tmp_path)
        return run([sys.executable, *command]).stdout

    file = tmp_path / "program.py"
    file.write_text(code)
    want = printed(str(file))
    assert printed("-O", str(file)) == want
    pytest.importorskip("coverage")
    assert printed("-m", "coverage", "run", "--source", str(Path(js.__file__).parent), str(file)) == want
