"""Does random programs in plain Python: numbers, dicts and lists, and TF1's rules of scopes."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from random_programs import (
    CUSTOM,
    INITIAL,
    PRIME,
    SCOPE_ERRORS,
    Again,
    Assign,
    Attempt,
    Block,
    Call,
    Capture,
    Case,
    Compute,
    Default,
    Double,
    Get,
    Key,
    Losses,
    Peek,
    ReuseOn,
    Scope,
    is_int,
)

import jscope as js


class Foretold(Exception):  # noqa: N818
    """The error that the program ends in."""

    def __init__(self, error: type[js.JscopeError]) -> None:
        super().__init__(error.__name__)
        self.error = error
        self.from_custom = False


class OutOfScope(Exception):  # noqa: N818
    """What plain JAX can't do, or what its own rules leave open: nothing is foretold."""


@dataclass(frozen=True)
class Touch:
    """An op of the model alone: asks for a variable, as the condition of a while loop does, and leaves x alone."""

    name: str


@dataclass(frozen=True)
class Number:
    """A value and its derivatives by the leaves of the tree."""

    value: int
    slopes: tuple[tuple[str, int], ...] = ()

    def _with(self, value: int, parts: list[tuple[int, Number]]) -> Number:
        slopes: Counter[str] = Counter()
        for factor, number in parts:
            for name, slope in number.slopes:
                slopes[name] += factor * slope
        return Number(value, tuple(slopes.items()))

    def plus(self, number: Number, factor: int = 1) -> Number:
        return self._with(self.value + factor * number.value, [(1, self), (factor, number)])

    def times(self, number: Number) -> Number:
        return self._with(self.value * number.value, [(number.value, self), (self.value, number)])

    def cut(self) -> Number:
        return Number(self.value % PRIME, self.slopes)

    def stopped(self) -> Number:
        return Number(self.value)


@dataclass(eq=False)
class ScopeState:
    """What a scope object of TF1 holds."""

    name: str
    reuse: Any


@dataclass
class TemplateState:
    """What a template holds in one program."""

    scope: ScopeState | None = None
    completed: bool = False


@dataclass(frozen=True)
class Variable:
    """What is settled when a variable is made."""

    regularized: bool
    computed: bool


class Model:
    """One run of one program.

    What the program computes is a list of steps, functions of no arguments that change `x` and `values`. They are done
    at once where JAX would do them at once, and else recorded.

    Args:
      case: the case.
      mode: "specs", "init" (of initial values that the program computes), "apply" or "update".
      leaf: full name -> the value in the tree.
      key: (scope, count) -> the digest of that key.
      lines: whether line by line.
      outer: the transforms around the whole program.
      carried: the variables that are assigned inside transforms.

    Attributes:
      made: full name -> variable, in order.
      assigned_inside: the variables that were assigned inside transforms.
      refusals: why jscope may refuse what it was asked to do so far.
      deepest: how many transforms were around at most.
    """

    def __init__(
        self,
        case: Case,
        mode: str,
        leaf: Callable[[str], Number] = lambda name: Number(0),
        key: Callable[[str, int], int] = lambda scope, count: 0,
        lines: bool = False,
        outer: tuple[str, ...] = (),
        carried: frozenset[str] = frozenset(),
    ) -> None:
        self.case, self.mode, self.leaf, self.key, self.lines = case, mode, leaf, key, lines
        self.carried = carried
        self.made: dict[str, Variable] = {}
        self.assigned_inside: set[str] = set()
        self.refusals: set[str] = set()
        # Scopes.
        self.scope = ScopeState("", False)
        self.counts: dict[str, int] = {}
        self.captured: ScopeState | None = None
        self.templates: dict[Any, TemplateState] = {}
        self.keys: Counter[str] = Counter()
        # Values.
        self.x = Number(0)
        self.saved: dict[Any, Number] = {}
        self.values: dict[str, Number] = {}
        self.initial: dict[str, Number] = {}
        # Transforms: those around, the outermost first.
        self.around: list[str] = [*outer, "program"]
        self.level = self.deepest = 0
        self.recording: list[Callable[[], None]] | None = [] if mode == "specs" else None
        self.staged = mode == "specs"

    def run(self, ops: tuple[Any, ...], x: Number) -> Number:
        self.x = x
        self.do_all(ops)
        return self.x

    def do_all(self, ops: tuple[Any, ...]) -> None:
        for op in ops:
            self.do(op)

    def do(self, op: Any) -> None:
        match op:
            case Get():
                name = self.declare(op.name, op.regularized)
                self.read(name)
                before = object()
                self.step(lambda: self.save(before, self.values[name]))
                if op.then:
                    self.assign(name, op.then)
                self.step(lambda: self.use(self.saved[before], op.product))
            case Compute():
                name = self.declare("c", False, computed=True)
                self.read(name)
                self.step(lambda: self.use(self.values[name], False))
            case Peek(which):
                if self.made:
                    name = self.any_variable(which)
                    self.read(name)
                    self.step(lambda: self.use(self.values[name], False))
            case Assign(which, how):
                if self.made:
                    name = self.any_variable(which)
                    self.read(name)
                    self.assign(name, how)
            case Key():
                number = self.key(self.scope.name, self.keys[self.scope.name])
                self.keys[self.scope.name] += 1
                self.step(lambda: self.use(Number(number), False))
            case Losses():
                names = [name for name, variable in self.made.items() if variable.regularized]
                for name in names:
                    self.read(name)
                self.step(lambda: self.add_losses(names))
            case Touch(short):
                self.read(self.declare(short, False))
            case Double():
                self.step(lambda: self.set_x(self.x.plus(self.x).cut()))
            case ReuseOn():
                self.scope.reuse = True
            case Capture():
                self.captured = self.scope
            case Scope(name, reuse, body):
                with self.entered(ScopeState(self.full(name), reuse or self.scope.reuse)):
                    self.do_all(body)
            case Default(body):
                with self.entered(ScopeState(self.unique("d"), self.scope.reuse)):
                    self.do_all(body)
            case Again(body):
                with self.entered_again(self.captured or self.scope, None):
                    self.do_all(body)
            case Attempt(body):
                self.attempt(body)
            case Call(number, fresh):
                block = self.case.blocks[number]
                if block.kind == "template":
                    state = TemplateState() if fresh else self.templates.setdefault(number, TemplateState())
                    self.template(state, block.body)
                else:
                    getattr(self, f"_{block.kind}")(block)

    # Steps ------------------------------------------------------------------------------------------------------------

    def step(self, action: Callable[[], None]) -> None:
        if self.recording is None:
            action()
        else:
            self.recording.append(action)

    def set_x(self, x: Number) -> None:
        self.x = x

    def save(self, place: Any, number: Number) -> None:
        self.saved[place] = number

    def use(self, value: Number, product: bool) -> None:
        self.x = (self.x.times(value).plus(Number(1)) if product else self.x.plus(self.x).plus(value, 3)).cut()

    def add_losses(self, names: list[str]) -> None:
        for name in names:
            self.x = self.x.plus(self.values[name], 2)
        self.x = self.x.cut()

    def change(self, name: str, how: str) -> None:
        added = Number(1) if how == "count" else self.x.stopped() if how == "add_stopped" else self.x
        value = self.values[name].plus(added).cut()
        self.values[name] = value.stopped() if is_int(name) else value

    def attempt(self, body: tuple[Any, ...]) -> None:
        before = object()
        self.step(lambda: self.save(before, self.x))
        try:
            self.do_all(body)
        except Foretold as ending:
            if ending.error not in SCOPE_ERRORS:
                raise
            if ending.from_custom:
                raise OutOfScope("whether steps before the error were done depends on what is around") from None
            self.step(lambda: self.set_x(self.saved[before].plus(Number(7)).cut()))

    # Variables --------------------------------------------------------------------------------------------------------

    def full(self, name: str) -> str:
        return f"{self.scope.name}/{name}" if self.scope.name else name

    def any_variable(self, which: int) -> str:
        return list(self.made)[which % len(self.made)]

    def declare(self, short: str, regularized: bool, computed: bool = False) -> str:
        name = self.full(short)
        if name in self.made:
            if self.scope.reuse is False:
                raise Foretold(js.VariableExistsError)
            return name
        if self.scope.reuse is True:
            raise Foretold(js.VariableNotFoundError)
        if computed and any(kind in self.around for kind in CUSTOM):
            raise OutOfScope("without jit the trace around is that of the program")
        if computed and self.level:
            raise Foretold(js.TransformError)
        self.made[name] = Variable(regularized, computed)
        if self.mode == "init" and computed:
            self.values[name] = self.initial[name] = self.x  # not inside any transform, so nothing is recorded
        else:
            value = Number(INITIAL[short]) if self.mode == "init" else self.leaf(name)
            self.values[name] = self.initial[name] = value
        return name

    def read(self, name: str) -> None:
        self.note_refusals(name, "read")

    def assign(self, name: str, how: str) -> None:
        if self.mode == "apply":
            raise Foretold(js.AssignError)
        if self.level:
            self.assigned_inside.add(name)
        if "vmap" in self.inside() and self.mode != "specs":
            raise Foretold(js.TransformError)
        self.note_refusals(name, how)
        if self.lines and self.level and name not in self.carried:
            self.refusals.add("not foreseen, since line by line the program is another one when run abstractly")
        self.step(lambda: self.change(name, how))

    def inside(self) -> list[str]:
        """The transforms around within the program, the outermost first."""
        return self.around[self.around.index("program") + 1 :]

    def note_refusals(self, name: str, done: str) -> None:
        """Notes which rows of the contract let jscope refuse to read a variable, or to assign it ("count", "add" ...).

        They are about variables that are assigned inside a transform somewhere in the program.
        """
        if name not in self.carried or self.mode == "specs":
            return
        inside, everything = self.inside(), self.around
        differentiated = "derivative" in everything
        if "cond" in inside and has_in_order(everything, "vmap", "cond"):
            self.refusals.add("cond under vmap")
        if "checkpoint" in inside and has_in_order(everything, "derivative", "checkpoint"):
            self.refusals.add("checkpoint differentiated")
        if "cond" in inside and has_in_order(everything, "derivative", "loop", "cond"):
            self.refusals.add("cond in a loop differentiated")
        if "while_loop" in inside and has_in_order(everything, "derivative", "while_loop"):
            self.refusals.add("while differentiated")
        if "custom_jvp" in inside:
            self.refusals.add("custom_jvp")
        if "custom_vjp" in inside and differentiated:
            self.refusals.add("custom_vjp differentiated")
        if "while_condition" in inside:
            self.refusals.add("condition of while")
        if done == "add" and "derivative" in inside:
            self.refusals.add("assigned from a differentiated value")

    # Scopes, as in TF1 ------------------------------------------------------------------------------------------------

    def unique(self, name: str) -> str:
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
        return next(self.full(n) for n in names if not self.counts.get(self.full(n)))

    @contextlib.contextmanager
    def entered(self, scope: ScopeState) -> Iterator[None]:
        outer, self.scope = self.scope, scope
        self.counts[scope.name] = self.counts.get(scope.name, 0) + 1
        try:
            yield
        finally:
            self.scope = outer
            for name in self.counts:
                if name.startswith(scope.name + "/"):
                    self.counts[name] = 0

    @contextlib.contextmanager
    def entered_again(self, scope: ScopeState, reuse: Any) -> Iterator[ScopeState]:
        outer, self.scope = self.scope, ScopeState(scope.name, reuse or scope.reuse)
        self.counts[scope.name] = self.counts.get(scope.name, 0) + 1
        restored = dict(self.counts)
        try:
            yield self.scope
        finally:
            self.scope, self.counts = outer, restored

    def template(self, state: TemplateState, body: tuple[Any, ...]) -> None:
        if state.scope is None:
            state.scope = ScopeState(self.unique("t"), self.scope.reuse)
            scope = self.entered(state.scope)
        else:
            scope = self.entered_again(state.scope, True if state.completed else None)
        with scope:
            before = self.trainable()
            self.do_all(body)
            if state.completed and self.trainable() != before:
                raise Foretold(js.TemplateError)
            state.completed = True

    def trainable(self) -> int:
        return sum(not is_int(name) for name in self.made)

    # Transforms -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def within(self, *kinds: str, level: int = 1) -> Iterator[None]:
        self.around.extend(kinds)
        self.level += level
        self.deepest = max(self.deepest, len(self.inside()))
        try:
            yield
        finally:
            self.level -= level
            del self.around[-len(kinds) :]

    def recorded(self, ops: tuple[Any, ...], *kinds: str, staged: bool = True) -> Callable[[], None]:
        """The steps of a body, to be done later; `staged` if nothing in it is known while it is gone through."""
        before = self.recording, self.staged
        self.recording, self.staged = steps, _ = [], staged or self.staged
        try:
            with self.within(*kinds):
                self.do_all(ops)
        finally:
            self.recording, self.staged = before
        return lambda: do_steps(steps)

    def now(self, ops: tuple[Any, ...], *kinds: str) -> None:
        """Goes through a body as if the transform were not there."""
        with self.within(*kinds, level=0):
            self.do_all(ops)

    def _jit(self, block: Block) -> None:
        if self.lines:
            self.now(block.body, "trace")
        else:
            self.step(self.recorded(block.body, "trace"))

    def _checkpoint(self, block: Block) -> None:
        self.step(self.recorded(block.body, "checkpoint"))

    def _scan(self, block: Block) -> None:
        if self.lines and not block.length:
            raise OutOfScope("disable_jit has no loops of length zero")
        if self.lines:
            for _ in range(block.length):
                self.now(block.body, "loop")
        else:
            steps = self.recorded(block.body, "loop")
            self.step(lambda: repeat(steps, block.length))

    def _fori_loop(self, block: Block) -> None:
        if self.lines and not block.length:
            return
        self._scan(block)

    def _while_loop(self, block: Block, condition: tuple[Any, ...] = ()) -> None:
        if "reverse" in self.around:
            raise OutOfScope("JAX can't")
        if self.lines and not self.staged:
            for _ in range(block.length):
                self.now(condition, "while_loop", "while_condition")
                self.now(block.body, "while_loop")
            self.now(condition, "while_loop", "while_condition")
            return
        if self.lines:  # JAX finds out that it does not know the condition by asking for it
            self.recorded(condition, "while_loop", "while_condition")
        self.recorded(condition, "while_loop", "while_condition")
        steps = self.recorded(block.body, "while_loop")
        self.step(lambda: repeat(steps, block.length))

    def _while_that_reads(self, block: Block) -> None:
        self._while_loop(block, (Touch("w"),))

    def branches(self, known: Callable[[], int] | None, pick: Callable[[], int], *bodies: tuple[Any, ...]) -> None:
        """`pick` gives the number of the branch when it is run; `known` gives it beforehand, if it can be known."""
        if self.lines and known is not None:
            self.now(bodies[known()], "cond")
            return
        branches = [self.recorded(body, "cond") for body in bodies]
        self.step(lambda: branches[pick()]())

    def _cond(self, block: Block) -> None:
        def pick() -> int:
            return self.x.value % 2

        self.branches(pick if self.recording is None else None, pick, block.body, block.other)

    def _cond_true(self, block: Block) -> None:
        self.branches(lambda: 0, lambda: 0, block.body, block.other)

    def _cond_false(self, block: Block) -> None:
        self.branches(lambda: 1, lambda: 1, block.other, block.body)

    def _switch(self, block: Block) -> None:
        def pick() -> int:
            return self.x.value % PRIME % 3

        self.branches(pick if self.recording is None else None, pick, block.body, block.other, (Double(),))

    def _map(self, block: Block) -> None:
        first, second = object(), object()
        if self.lines:
            self.step(lambda: self.save(first, self.x))
            self.now(block.body, "loop")
            self.step(lambda: self.next_lane(first, second))
            self.now(block.body, "loop")
            self.step(lambda: self.combine(second))
        else:
            self.step(functools.partial(self.lanes, self.recorded(block.body, "loop")))

    def _vmap(self, block: Block) -> None:
        self.step(functools.partial(self.lanes, self.recorded(block.body, "vmap", staged=False)))

    def lanes(self, steps: Callable[[], None]) -> None:
        x = self.x
        steps()
        y, self.x = self.x, x.plus(Number(1))
        steps()
        self.x = y.plus(self.x, 2).cut()

    def next_lane(self, first: Any, second: Any) -> None:
        self.saved[second], self.x = self.x, self.saved[first].plus(Number(1))

    def combine(self, second: Any) -> None:
        self.x = self.saved[second].plus(self.x, 2).cut()

    def _jvp(self, block: Block) -> None:
        with self.within("derivative"):
            self.do_all(block.body)

    def _vjp(self, block: Block) -> None:
        with self.within("reverse", "derivative"):
            self.do_all(block.body)

    _linearize = _jvp
    _value_and_grad = _grad = _vjp

    def _custom(self, block: Block) -> None:
        if "derivative" in self.around:
            raise OutOfScope("the rule is asked, not the function")
        try:
            if self.lines or self.recording is None:
                self.now(block.body, block.kind)
            else:
                self.step(self.recorded(block.body, block.kind))
        except Foretold as ending:
            ending.from_custom = True
            raise

    _custom_jvp = _custom_vjp = _custom


def do_steps(steps: list[Callable[[], None]]) -> None:
    for step in steps:
        step()


def repeat(steps: Callable[[], None], times: int) -> None:
    for _ in range(times):
        steps()


def has_in_order(around: list[str], *kinds: str) -> bool:
    """Whether these transforms are around, the first outermost."""
    rest = iter(around)
    return all(kind in rest for kind in kinds)
