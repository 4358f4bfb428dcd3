"""Does random programs in plain Python: numbers, dicts and lists, and TF1's rules of scopes.

A function that one call of JAX calls several times is one body: each later pass of it starts with the scopes, names,
keys and variables with which the first one started, finds what an earlier one made when it comes to make it, and leaves
nothing else behind. So it does what the first one did.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
    When,
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
class Inner:
    """An op of the model alone: a transform that a function was put into before JAX got it."""

    kind: str
    body: tuple[Any, ...]


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


@dataclass(eq=False)
class TemplateState:
    """What a template holds in one program."""

    scope: ScopeState | None = None
    completed: bool = False


@dataclass(frozen=True)
class Variable:
    """What is settled when a variable is made."""

    regularized: bool
    computed: bool


@dataclass(frozen=True)
class Settled:
    """What ambient calls change, values aside, at one moment: the lists are of objects and what they hold."""

    made: dict[str, Variable]
    counts: dict[str, int]
    keys: Counter[str]
    scope: ScopeState
    reuses: list[tuple[ScopeState, Any]]
    templates: list[tuple[TemplateState, ScopeState | None, bool]]
    captured: ScopeState | None


@dataclass
class OneCall:
    """One call of a JAX function: how the first pass of each of its functions found things, and how it left them."""

    found: dict[str, Settled] = field(default_factory=dict)
    left: dict[str, Any] = field(default_factory=dict)


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
      seen: what the program can see of its arguments.

    Attributes:
      made: full name -> variable, in order; in a later pass of a body, only what its first one knew and what this one
        came to make.
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
        seen: dict[str, bool] | None = None,
    ) -> None:
        self.case, self.mode, self.leaf, self.key, self.lines = case, mode, leaf, key, lines
        self.carried, self.seen = carried, seen or {}
        self.made: dict[str, Variable] = {}
        self.made_by_any_pass: dict[str, Variable] = {}
        self.assigned_inside: set[str] = set()
        self.refusals: set[str] = set()
        # Scopes.
        self.scope = ScopeState("", False)
        self.counts: dict[str, int] = {}
        self.captured: ScopeState | None = None
        self.captured_in_earlier_pass = False
        self.templates: dict[Any, TemplateState] = {}
        self.all_scopes, self.all_templates = [self.scope], []
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
            case Inner(kind, body):
                getattr(self, f"_{kind}")(Block(kind, body))
            case When(test, body, other):
                self.do_all(body if self.seen[test] else other)
            case Double():
                self.step(lambda: self.set_x(self.x.plus(self.x).cut()))
            case ReuseOn():
                self.scope.reuse = True
            case Capture():
                self.captured, self.captured_in_earlier_pass = self.scope, False
            case Scope(name, reuse, body):
                with self.entered(self.new_scope(self.full(name), reuse or self.scope.reuse)):
                    self.do_all(body)
            case Default(body):
                with self.entered(self.new_scope(self.unique("d"), self.scope.reuse)):
                    self.do_all(body)
            case Again(body):
                if self.captured_in_earlier_pass:
                    raise OutOfScope("the body itself carries a scope from one of its passes to the next")
                with self.entered_again(self.captured or self.scope, None):
                    self.do_all(body)
            case Attempt(body):
                self.attempt(body)
            case Call(number, fresh):
                block = self.case.blocks[number]
                if block.kind == "template":
                    state = TemplateState() if fresh else self.templates.setdefault(number, TemplateState())
                    if state not in self.all_templates:
                        self.all_templates.append(state)
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
        if name in self.made_by_any_pass:  # an earlier pass of this body made it
            self.made[name] = self.made_by_any_pass[name]
            return name
        self.made[name] = self.made_by_any_pass[name] = Variable(regularized, computed)
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

    def new_scope(self, name: str, reuse: Any) -> ScopeState:
        scope = ScopeState(name, reuse)
        self.all_scopes.append(scope)
        return scope

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
        outer, self.scope = self.scope, self.new_scope(scope.name, reuse or scope.reuse)
        self.counts[scope.name] = self.counts.get(scope.name, 0) + 1
        restored = dict(self.counts)
        try:
            yield self.scope
        finally:
            self.scope, self.counts = outer, restored

    def template(self, state: TemplateState, body: tuple[Any, ...]) -> None:
        if state.scope is None:
            state.scope = self.new_scope(self.unique("t"), self.scope.reuse)
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

    # Passes -----------------------------------------------------------------------------------------------------------

    def settled(self) -> Settled:
        return Settled(
            dict(self.made),
            dict(self.counts),
            Counter(self.keys),
            self.scope,
            [(scope, scope.reuse) for scope in self.all_scopes],
            [(state, state.scope, state.completed) for state in self.all_templates],
            self.captured,
        )

    def settle(self, settled: Settled) -> None:
        """Puts back all but the scope captured last, which is the program's own affair."""
        self.made, self.counts, self.keys = dict(settled.made), dict(settled.counts), Counter(settled.keys)
        self.scope = settled.scope
        for scope, reuse in settled.reuses:
            scope.reuse = reuse
        for state in self.all_templates:
            state.scope, state.completed = None, False
        for state, scope, completed in settled.templates:
            state.scope, state.completed = scope, completed

    def left(self) -> Any:
        """What all passes of one body must leave alike for the law to say what counts after them."""
        begun = {number: state for number, state in self.templates.items() if state.scope is not None}
        templates = {number: (state.scope.name, state.completed) for number, state in begun.items()}
        return +Counter(self.counts), +self.keys, self.scope.reuse, templates

    @contextlib.contextmanager
    def one_pass(self, call: OneCall, function: str = "body") -> Iterator[None]:
        """One pass of a function that this call of JAX calls."""
        if function not in call.found:
            call.found[function] = self.settled()
            yield
            call.left[function] = self.left()
            return
        before = self.settled()
        self.settle(call.found[function])
        if self.captured is not call.found[function].captured:
            self.captured_in_earlier_pass = True
        try:
            yield
            if self.left() != call.left[function]:
                raise OutOfScope("passes of one body take different ways, and other names or keys")
        finally:
            made = self.made
            self.settle(before)
            self.made = before.made | {name: made[name] for name in made if name not in before.made}
            self.captured_in_earlier_pass = False

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
        with self.within(*kinds):
            return self.noted(lambda: self.do_all(ops), staged)

    def noted(self, going: Callable[[], None], staged: bool) -> Callable[[], None]:
        """The steps of what is gone through by that function, to be done later."""
        before = self.recording, self.staged
        self.recording, self.staged = steps, _ = [], staged or self.staged
        try:
            going()
        finally:
            self.recording, self.staged = before
        return lambda: do_steps(steps)

    def now(self, ops: tuple[Any, ...], *kinds: str) -> None:
        """Goes through a body as if the transform were not there."""
        with self.within(*kinds, level=0):
            self.do_all(ops)

    def dressed(self, block: Block, ops: tuple[Any, ...]) -> tuple[Any, ...]:
        """What JAX gets does what it is put into, if that is a transform itself."""
        return (Inner(block.dress, ops),) if block.dress in ("jit", "checkpoint") else ops

    def dressed_condition(self, block: Block) -> tuple[Any, ...]:
        return block.condition if block.dress == "checkpoint" else self.dressed(block, block.condition)

    def turns(
        self,
        going: Callable[[], None],
        times: int,
        ready: Callable[[int], None] = lambda turn: None,
        traces: int = 1,
    ) -> None:
        """The turns of a loop, each made ready; JAX traces the body so many times and keeps the last of the traces."""
        call = OneCall()
        if self.lines:
            for turn in range(times):
                self.step(functools.partial(ready, turn))
                with self.one_pass(call), self.within("loop", level=0):
                    going()
            return
        for _ in range(traces):
            with self.one_pass(call), self.within("loop"):
                steps = self.noted(going, staged=True)

        def take() -> None:
            for turn in range(times):
                ready(turn)
                steps()

        self.step(take)

    def _jit(self, block: Block) -> None:
        body = self.dressed(block, block.body)
        if self.lines:
            self.now(body, "trace")
        else:
            self.step(self.recorded(body, "trace"))

    def _checkpoint(self, block: Block) -> None:
        self.step(self.recorded(self.dressed(block, block.body), "checkpoint"))

    def _scan(self, block: Block) -> None:
        if self.lines and not block.length:
            raise OutOfScope("disable_jit has no loops of length zero")
        self._fori_loop(block)

    def _fori_loop(self, block: Block) -> None:
        body = self.dressed(block, block.body)
        self.turns(lambda: self.do_all(body), block.length, traces=1 + block.traced_twice)
        self.add_start(block, block.length)

    def add_start(self, block: Block, turns: int) -> None:
        """The part of the carry that changes its type counts the turns."""
        if block.start is not None:
            self.step(lambda: self.set_x(self.x.plus(Number(turns)).cut()))

    def _while_loop(self, block: Block) -> None:
        if "reverse" in self.around:
            raise OutOfScope("JAX can't")
        call = OneCall()
        condition, body = self.dressed_condition(block), self.dressed(block, block.body)
        turns = [0]

        def goes_on(steps: Callable[[], None]) -> bool:
            return turns[0] < block.length + (self.odd(steps) if condition else 0)

        def start() -> None:
            turns[0] = 0

        def turn() -> None:
            turns[0] += 1

        def end() -> None:
            if block.start is not None:
                self.set_x(self.x.plus(Number(turns[0])).cut())

        if self.lines and not self.staged:
            if condition and self.recording is not None:
                raise OutOfScope("JAX knows the condition here, the model does not")
            start()
            while True:
                with self.one_pass(call, "condition"), self.within("while_loop", "while_condition", level=0):
                    if not goes_on(lambda: self.do_all(condition)):
                        break
                with self.one_pass(call):
                    self.now(body, "while_loop")
                turn()
            self.add_start(block, turns[0])
            return
        if self.lines:  # JAX finds out that it does not know the condition by asking for it
            with self.one_pass(call, "condition"):
                self.recorded(condition, "while_loop", "while_condition")
        for _ in range(1 + block.traced_twice):
            with self.one_pass(call, "condition"):
                asks = self.recorded(condition, "while_loop", "while_condition")
            with self.one_pass(call):
                steps = self.recorded(body, "while_loop")

        def take() -> None:
            start()
            while goes_on(asks):
                steps()
                turn()
            end()

        self.step(take)

    def odd(self, steps: Callable[[], None]) -> int:
        """What the condition of a while loop makes of a 1: 1 if that is an odd number."""
        before, self.x = self.x, Number(1)
        steps()
        x, self.x = self.x, before
        return x.value % 2

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

        known = pick if self.recording is None else None
        self.branches(known, pick, self.dressed(block, block.body), self.dressed(block, block.other))

    def _cond_true(self, block: Block) -> None:
        self.branches(lambda: 0, lambda: 0, self.dressed(block, block.body), self.dressed(block, block.other))

    def _cond_false(self, block: Block) -> None:
        self.branches(lambda: 1, lambda: 1, self.dressed(block, block.other), self.dressed(block, block.body))

    def _switch(self, block: Block) -> None:
        def pick() -> int:
            return self.x.value % PRIME % 3

        known = pick if self.recording is None else None
        branches = self.dressed(block, block.body), self.dressed(block, block.other), (Double(),)
        self.branches(known, pick, *branches)

    def _map(self, block: Block) -> None:
        body, rows = self.dressed(block, block.body), Rows()
        self.step(lambda: rows.start(self.x, 2))
        self.turns(lambda: self.do_all(body), 2, lambda turn: self.set_x(rows.next(self.x)))
        self.step(lambda: self.set_x(rows.end(self.x).joined()))

    def leaves(self, leaves: Leaves, ops: tuple[Any, ...]) -> None:
        """Goes through a body that `jax.tree.map` calls for one leaf and for the other, as written."""
        self.step(lambda: self.set_x(leaves.first))
        self.do_all(ops)
        self.step(lambda: self.set_x(leaves.change(self.x, leaves.second).second))
        self.do_all(ops)
        self.step(lambda: self.set_x(leaves.change(leaves.first, self.x).joined()))

    def start_leaves(self, leaves: Leaves) -> None:
        leaves.change(self.x, self.x.plus(Number(2)).cut())

    def _tree_map(self, block: Block) -> None:
        leaves = Leaves()
        self.step(lambda: self.start_leaves(leaves))
        self.leaves(leaves, self.dressed(block, block.body))

    def _scan_tree(self, block: Block) -> None:
        if self.lines and not block.length:
            raise OutOfScope("disable_jit has no loops of length zero")
        leaves, body = Leaves(), self.dressed(block, block.body)
        self.step(lambda: self.start_leaves(leaves))
        self.turns(lambda: self.leaves(leaves, body), block.length, traces=1 + block.traced_twice)
        self.step(lambda: self.set_x(leaves.joined()))
        self.add_start(block, block.length)

    def _map_tree(self, block: Block) -> None:
        leaves, firsts, seconds, body = Leaves(), Rows(), Rows(), self.dressed(block, block.body)

        def start() -> None:
            self.start_leaves(leaves)
            firsts.start(leaves.first, 2)
            seconds.start(leaves.second, 2)

        def end() -> None:
            first, second = firsts.end(leaves.first), seconds.end(leaves.second)
            self.set_x(first.joined().plus(second.joined(), 2).cut())

        def ready(turn: int) -> None:
            leaves.change(firsts.next(leaves.first), seconds.next(leaves.second))

        self.step(start)
        self.turns(lambda: self.leaves(leaves, body), 2, ready)
        self.step(end)

    def _vmap(self, block: Block) -> None:
        self.lanes(2, self.recorded(self.dressed(block, block.body), "vmap", staged=False))

    def lanes(self, count: int, steps: Callable[[], None]) -> None:
        rows = Rows()

        def take() -> None:
            rows.start(self.x, count)
            for _ in range(count):
                self.set_x(rows.next(self.x))
                steps()
            self.set_x(rows.end(self.x).joined())

        self.step(take)

    def _map_rows(self, block: Block) -> None:
        """By `lax.map` in batches of two: a loop of a vmap, and a vmap of the row that is left over."""
        body, call, rows = self.dressed(block, block.body), OneCall(), Rows()
        count = block.length + 2
        batches = count // 2
        self.step(lambda: rows.start(self.x, count))

        def take(steps: Callable[[], None], lanes: int) -> None:
            for _ in range(lanes):
                self.set_x(rows.next(self.x))
                steps()

        for _ in range(batches if self.lines else 1):
            with self.one_pass(call), self.within("loop", level=0 if self.lines else 1):
                steps = self.recorded(body, "vmap", staged=not self.lines)
            self.step(functools.partial(take, steps, 2 if self.lines else 2 * batches))
        if count % 2:
            with self.one_pass(call):
                steps = self.recorded(body, "vmap", staged=False)
            self.step(functools.partial(take, steps, 1))
        self.step(lambda: self.set_x(rows.end(self.x).weighed()))

    def _associative_scan(self, block: Block) -> None:
        """Combines slices: no trace of its own."""
        body, call = self.dressed(block, block.body), OneCall()
        count = block.length + 2
        passes = []
        for _ in range(combinations(count)):
            with self.one_pass(call):
                passes.append(self.noted(lambda: self.do_all(body), staged=False))

        def combine(steps: Callable[[], None], first: Number, second: Number) -> Number:
            self.set_x(first.plus(second, 2).cut())
            steps()
            return self.x

        def take() -> None:
            rows = Rows()
            rows.done = associative_scan(iter(passes), combine, [self.x.plus(Number(n)) for n in range(count)])
            self.set_x(rows.weighed())

        self.step(take)

    def _jvp(self, block: Block) -> None:
        with self.within("derivative"):
            self.do_all(self.dressed(block, block.body))

    def _vjp(self, block: Block) -> None:
        with self.within("reverse", "derivative"):
            self.do_all(self.dressed(block, block.body))

    _linearize = _jvp
    _value_and_grad = _grad = _vjp

    def _custom(self, block: Block) -> None:
        if "derivative" in self.around:
            raise OutOfScope("the rule is asked, not the function")
        body = self.dressed(block, block.body)
        try:
            if self.lines or self.recording is None:
                self.now(body, block.kind)
            else:
                self.step(self.recorded(body, block.kind))
        except Foretold as ending:
            ending.from_custom = True
            raise

    _custom_jvp = _custom_vjp = _custom


class Rows:
    """Rows on which a body is done one after the other: from a number on, each one more."""

    def __init__(self) -> None:
        self.todo: list[Number] = []
        self.done: list[Number] = []
        self.first = True

    def start(self, x: Number, count: int) -> None:
        self.todo = [x.plus(Number(number)) for number in range(count)]
        self.done, self.first = [], True

    def next(self, x: Number) -> Number:
        """The next row; x is what came of the last one, if there was one."""
        if not self.first:
            self.done.append(x)
        self.first = False
        return self.todo.pop(0)

    def end(self, x: Number) -> Rows:
        self.done.append(x)
        return self

    def joined(self) -> Number:
        first, second = self.done
        return first.plus(second, 2).cut()

    def weighed(self) -> Number:
        total = Number(0)
        for number, row in enumerate(self.done):
            total = total.plus(row, number + 1)
        return total.cut()


@dataclass
class Leaves:
    """The two leaves of a tree."""

    first: Number = Number(0)
    second: Number = Number(0)

    def change(self, first: Number, second: Number) -> Leaves:
        self.first, self.second = first, second
        return self

    def joined(self) -> Number:
        return self.first.plus(self.second, 2).cut()


def combinations(count: int) -> int:
    """How often `jax.lax.associative_scan` calls its function for so many rows, with slices that may be empty."""
    return 2 + combinations(count // 2) if count > 1 else 0


def associative_scan(
    passes: Iterator[Callable[[], None]],
    combine: Callable[[Callable[[], None], Number, Number], Number],
    rows: list[Number],
) -> list[Number]:
    """As JAX does it: neighbours first, then what is between them."""
    if len(rows) < 2:
        return rows
    steps = next(passes)
    pairs = [combine(steps, first, second) for first, second in zip(rows[0:-1:2], rows[1::2], strict=True)]
    odd = associative_scan(passes, combine, pairs)
    steps = next(passes)
    even = rows[:1] + [combine(steps, first, second) for first, second in zip(odd, rows[2::2], strict=False)]
    return [row for both in itertools.zip_longest(even, odd) for row in both if row is not None]


def do_steps(steps: list[Callable[[], None]]) -> None:
    for step in steps:
        step()


def has_in_order(around: list[str], *kinds: str) -> bool:
    """Whether these transforms are around, the first outermost."""
    rest = iter(around)
    return all(kind in rest for kind in kinds)
