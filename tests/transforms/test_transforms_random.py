"""Random programs of JAX transforms around ambient calls, against an interpreter of such programs in plain Python.

A `Case` (of `random_programs.py`) is data: programs, and blocks that the programs and other blocks call through a
transform of JAX. It is done twice. `Runner` does it with jscope and JAX. `Model` does it with Python numbers, dicts and
lists, and knows two ways:

* *traced*: a body is gone through once, when its names, scopes and keys are settled; what it computes is noted and run
  as often as the transform says. So a loop asks for one key, not one a turn, and `cond` makes the variables of both
  branches.
* *line by line*, as `jax.disable_jit` does it: a loop goes through its body at each turn, `cond` through one branch.

Either way a function that one call of JAX calls several times is one body: each pass of it has the same keys and names,
and finds what an earlier one made. What `jax.tree.map` calls, it calls as written.

Values are whole numbers below `PRIME`, so results are compared for equality: one step left out, done twice or done
with another variable changes everything after it. What the contract lets jscope refuse is listed in
`Model.note_refusals`; a refusal at any other place is a failure, and so is any error that the model did not foretell.

The runs of a case are of the same programs with other arguments. Each must answer as if it were the first: the last run
of a case is done once more with everything new.

A failing case prints as an expression that can be given to `check` as it stands. `python -m pytest -m slow` does 2,000.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, seed, settings
from random_model import Foretold, Model, Number, OutOfScope, combinations
from random_programs import FORMS, INITIAL, Case, Run, cases, is_int, leaf, seen
from random_runner import Runner, argument, digest, get_plain, pair

import jscope as js


@functools.cache
def key_of(salt: int, scope: str, count: int) -> int:
    """The digest of a key, from a program without transforms."""

    def program() -> Any:
        with js.variable_scope(scope) if scope else contextlib.nullcontext():
            return [js.next_key() for _ in range(count + 1)][-1]

    return int(digest(js.transform(program).apply({}, rng=jax.random.key(salt))))


@dataclass
class Answer:
    """What the model says of a run: the value, or how the run ends."""

    model: Model
    value: Number
    ending: Foretold | None


class Checker:
    """Does the runs of a case; each method but the first few is a kind of run."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.runner = Runner(case)

    def check(self, run: Run) -> None:
        self.run = run
        self.ops = self.case.programs[run.program]
        self.net = self.runner.nets[run.program]
        self.form = "array" if run.kind == "vmapped" else run.form
        self.number = run.salt % 50 + 2
        self.x = Number(self.number + FORMS[self.form])
        self.told: Any = None
        self.rng = jax.random.key(run.salt)
        self.key = functools.partial(key_of, run.salt)
        self.rehearsed = self.answer("specs")
        self.carried = frozenset(self.rehearsed.model.assigned_inside)
        getattr(self, run.kind)()

    def answer(self, mode: str, x: Number | None = None, **options: Any) -> Answer:
        model = Model(self.case, mode, seen=seen(self.form, self.run.flag), **options)
        try:
            return Answer(model, model.run(self.ops, x or self.x), None)
        except Foretold as ending:
            return Answer(model, Number(0), ending)

    def leaf(self, name: str) -> Number:
        return Number(leaf(name, self.run.salt))

    def tree(self, *models: Model) -> dict[str, Any]:
        names = {name for model in (self.rehearsed.model, *models) for name in model.made}
        return {name: array(name, leaf(name, self.run.salt)) for name in names}

    def argument(self) -> Any:
        return argument(self.form, self.number)

    def method(self, name: str) -> Callable[..., Any]:
        """A method of the net, with the flag of this run."""
        if self.run.jit:
            return self.runner.jitted(self.run.program, name, self.run.flag)
        return functools.partial(getattr(self.net, name), flag=self.run.flag)

    def outer(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What is around the whole."""
        return jax.jit(function) if self.run.jit else function

    def outcome(self, call: Callable[[], Any], answer: Answer) -> Any:
        """The result; None if an error was foretold and raised, or a refusal is allowed."""
        ending, refusals, raised = answer.ending, answer.model.refusals, None
        try:
            result = call()
        except js.JscopeError as error:
            if ending is not None and type(error) is ending.error:
                event(f"{self.run.kind}: {type(error).__name__}, foretold")
            elif type(error) is js.TransformError and refusals:
                event(f"refused: {', '.join(sorted(refusals))}")
            else:
                raise
            raised = error
        self.told = jax.tree.map(np.asarray, result) if raised is None else (type(raised), str(raised))
        if raised is not None:
            assert Path(raised.where.rpartition(":")[0]).name == "random_runner.py", raised
            return None
        assert ending is None, f"{ending.error.__name__} is foretold, and nothing is raised"
        model = answer.model
        kind = self.run.kind + "_jit" * self.run.jit
        event(f"{kind}: right, {'assigned inside, ' * bool(model.carried)}{model.deepest} deep")
        for refusal in refusals:
            event(f"right where a refusal is allowed: {refusal}")
        return result

    # Kinds of runs ----------------------------------------------------------------------------------------------------

    def specs(self) -> None:
        specs = self.outcome(lambda: self.net.specs(self.argument(), flag=self.run.flag), self.rehearsed)
        if specs is not None:
            assert list(specs) == list(self.rehearsed.model.made)
            self.told = list(specs)

    def init(self) -> None:
        answer = self.rehearsed
        if answer.ending is None and any(variable.computed for variable in answer.model.made.values()):
            answer = self.answer("init", key=self.key, carried=self.carried)
        else:
            for name in answer.model.made:
                answer.model.initial[name] = Number(INITIAL.get(name.rpartition("/")[2], 0))
        params = self.outcome(lambda: self.method("init")(self.rng, self.argument()), answer)
        if params is not None:
            assert_equal(params, {name: answer.model.initial[name] for name in answer.model.made})

    def apply(self) -> None:
        answer = self.answer("apply", leaf=self.leaf, key=self.key)
        out = self.outcome(lambda: self.method("apply")(self.tree(), self.argument(), rng=self.rng), answer)
        if out is not None:
            assert int(out) == answer.value.value

    def update(self) -> None:
        answer = self.answer("update", leaf=self.leaf, key=self.key, carried=self.carried)
        self.compare_update(self.method("update"), answer)

    def compare_update(self, function: Any, answer: Answer) -> None:
        tree = self.tree(answer.model)
        result = self.outcome(lambda: function(tree, self.argument(), rng=self.rng), answer)
        if result is not None:
            out, after = result
            assert int(out) == answer.value.value
            assert_equal(after, {name: self.leaf(name) for name in tree} | answer.model.values)

    def lines(self) -> None:
        """Under `jax.disable_jit`."""
        self.rehearsed = self.answer("specs", lines=True)
        carried = frozenset(self.rehearsed.model.assigned_inside)
        answer = self.answer("update", leaf=self.leaf, key=self.key, carried=carried, lines=True)
        with jax.disable_jit():
            self.compare_update(functools.partial(self.net.update, flag=self.run.flag), answer)

    def vmapped(self) -> None:
        """Under `jax.vmap` of x."""
        tree, options = self.tree(), {"leaf": self.leaf, "key": self.key, "carried": self.carried, "outer": ("vmap",)}
        answers = [self.answer("update", x=x, **options) for x in (self.x, self.x.plus(Number(1)))]
        mapped = self.outer(jax.vmap(lambda x: self.net.update(tree, x, rng=self.rng, flag=self.run.flag)))
        result = self.outcome(lambda: mapped(pair(self.argument())), answers[0])
        if result is not None:
            for lane, answer in enumerate(answers):
                out, after = jax.tree.map(lambda leaf, lane=lane: leaf[lane], result)
                assert int(out) == answer.value.value
                assert_equal(after, {name: self.leaf(name) for name in tree} | answer.model.values)

    def gradient(self) -> None:
        """Of a sum of everything that comes out, by all leaves of the tree."""
        tree = self.tree()
        floats = {name: leaf for name, leaf in tree.items() if not is_int(name)}

        def own_slope(name: str) -> Number:
            return Number(self.leaf(name).value, () if is_int(name) else ((name, 1),))

        def loss(floats: dict[str, Any]) -> Any:
            out, after = self.net.update(tree | floats, self.argument(), rng=self.rng, flag=self.run.flag)
            return out + 3 * sum(after[name] for name in floats)

        outer = ("reverse", "derivative")
        answer = self.answer("update", leaf=own_slope, key=self.key, carried=self.carried, outer=outer)
        total = answer.value
        for name in floats:
            total = total.plus(answer.model.values.get(name, own_slope(name)), 3)
        slopes = dict(total.slopes)
        if max(slopes.values(), default=0) > 1e30:
            raise OutOfScope("the slopes don't fit into float32")
        result = self.outcome(lambda: self.outer(jax.value_and_grad(loss))(floats), answer)
        if result is not None:
            value, gradient = result
            assert int(value) == total.value
            for name in floats:
                np.testing.assert_allclose(gradient[name], float(slopes.get(name, 0)), rtol=1e-4, err_msg=name)


def array(name: str, number: int) -> jax.Array:
    return jnp.asarray(number, jnp.int32 if is_int(name) else jnp.float32)


def assert_equal(params: js.Params, expected: dict[str, Number]) -> None:
    got = {name: float(value) for name, value in params.flat().items()}
    assert got == {name: float(number.value) for name, number in expected.items()}
    assert all(value.dtype == (jnp.int32 if is_int(name) else jnp.float32) for name, value in params.flat().items())


def check(case: Case) -> None:
    """Does all runs of a case, and the last once more where nothing has been before it."""
    checker = Checker(case)
    for run in case.runs:
        told = done(checker, run)
    again = done(Checker(case), case.runs[-1])
    assert jax.tree.structure(again) == jax.tree.structure(told)
    np.testing.assert_equal(jax.tree.leaves(again), jax.tree.leaves(told), "another answer after other runs")


def done(checker: Checker, run: Run) -> Any:
    """Does a run, and gives what it told; None if nothing is foretold."""
    try:
        checker.check(run)
    except OutOfScope as reason:
        event(f"out of scope: {reason}")
        return None
    return checker.told


WARNINGS = "ignore::jscope.RetraceWarning"
ANY = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.filterwarnings(WARNINGS)
@given(case=cases(runs=1))
@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=ANY)
def test_random_programs(case):
    check(case)


@pytest.mark.slow
@pytest.mark.filterwarnings(WARNINGS)
@pytest.mark.parametrize("part", range(40))
def test_many_random_programs(part: int) -> None:
    """2,000 in parts, so that several processes can share them."""

    @seed(part)
    @given(case=cases(runs=1))
    @settings(max_examples=50, deadline=None, database=None, suppress_health_check=ANY)
    def each(case: Case) -> None:
        check(case)

    each()


@pytest.mark.filterwarnings(WARNINGS)
@pytest.mark.parametrize("outer", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_carry_that_changes_its_type(outer):
    """JAX traces the body of such a loop twice; nothing may show it. (The random programs have strong types only.)"""

    def program(x):
        def turn(carry, _):
            with js.variable_scope("a", reuse=js.AUTO_REUSE):
                n = get_plain("n")
                js.assign(n, n + 1)
                return carry + get_plain("w") + digest(js.next_key()).astype(jnp.float32), n

        total, counted = jax.lax.scan(turn, 0.0, None, length=3)
        with js.variable_scope("a"):
            return total + x, counted, digest(js.next_key())

    net = js.transform(program)
    x, key = jnp.float32(2), jax.random.key(4)
    assert list(net.specs(x)) == ["a/n", "a/w"]
    (out, counted, after_it), params = outer(net.update)({"a/n": jnp.int32(10), "a/w": jnp.float32(100)}, x, rng=key)
    assert out == 2 + 3 * (100 + key_of(4, "a", 0))
    assert list(counted) == [10, 11, 12]
    assert after_it == key_of(4, "a", 1)
    assert_equal(params, {"a/n": Number(13), "a/w": Number(100)})


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=ANY)
@given(case=cases(runs=0))
def test_the_model_sees_no_second_trace(case):
    """What it foretells of a body that JAX traces twice is what it foretells of the same body traced once."""
    once = dataclasses.replace(case, blocks=tuple(dataclasses.replace(block, start=0.0) for block in case.blocks))
    twice = dataclasses.replace(case, blocks=tuple(dataclasses.replace(block, start=0) for block in case.blocks))
    with contextlib.suppress(OutOfScope):
        assert foretold(once) == foretold(twice)


def foretold(case: Case) -> Any:
    checker = Checker(case)
    checker.run, checker.form, checker.ops = case.runs[1], "array", case.programs[0]
    answer = checker.answer("update", x=Number(5), leaf=checker.leaf, key=lambda scope, count: leaf(scope, count))
    model = answer.model
    return answer.value, str(answer.ending), list(model.made), model.values, +model.keys, model.left()


def test_how_often_jax_calls_a_body():
    """What the model counts on, and what makes these programs worth their while."""
    calls: list[Any] = []

    def called(x: Any, y: Any = 0) -> Any:
        calls.append(x)
        return x + y

    def count(call: Callable[[], Any]) -> int:
        calls.clear()
        call()
        return len(calls)

    one = jnp.float32(1)
    for start, traces in ((0, 2), (0.0, 1), (one, 1)):
        assert count(lambda: jax.lax.scan(lambda c, _: (called(c, one), None), start, None, length=3)) == traces  # noqa: B023
        assert count(lambda: jax.lax.fori_loop(0, 3, lambda _, c: called(c, one), start)) == traces  # noqa: B023
        assert count(lambda: jax.lax.while_loop(lambda c: c < 3, lambda c: called(c, one), start)) == traces  # noqa: B023
        assert count(lambda: jax.lax.while_loop(lambda c: called(c) < 3, lambda c: c + one, start)) == traces  # noqa: B023
    for rows in (2, 3, 4, 5):
        x = jnp.arange(rows, dtype=jnp.float32)
        assert count(lambda: jax.lax.map(called, x, batch_size=2)) == 1 + rows % 2  # noqa: B023
        assert count(lambda: jax.lax.associative_scan(called, x)) == combinations(rows)  # noqa: B023


def test_keys_differ():
    """What the model takes from jscope are the keys: of them it must be known that they differ."""
    numbers = [(salt, scope, count) for salt in range(4) for scope in ("", "a", "b", "a/b", "d") for count in range(4)]
    keys = {number: key_of(*number) for number in numbers}
    assert len(set(keys.values())) > 0.9 * len(keys)
