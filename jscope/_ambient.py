"""The only state at a distance: which program is running here, and which of JAX's cached traces it may use. Floor 3.

One ContextVar holds the frame of the innermost running program. A frame answers only in the very context that opened
it, so neither another thread, nor a copied context, nor code that runs after the program's end can use it. A second one
holds what `arg_scope` collects where no program runs; no program reads it, but to refuse it.

**Why JAX's trace caches need a guard.** JAX caches traces by function object. A function that outlives one call and
reads ambient state (a module-level `jax.jit` block that calls `get_variable`) would be traced once and silently
replayed in another scope, program or tree. `jax.make_user_context` makes a value of ours part of the key of those
caches. That value is a *token*: an integer, never given out twice.

**The argument.** Call a trace *ambient* if, while it is made, an ambient call (any call through `current`) runs in
it. (Near calls, which do without, come after one that went through it in the same trace: see `current_near`.)

1. Every open frame owns its token alone: tokens come out of a pool of unused ones, so no frame of another thread, and
   no frame around this one, has the same token in force. A trace is keyed by the token in force when it starts, and
   tokens change only inside `Frame`, so a trace that is started in a frame is keyed by one of that frame's own
   tokens.
2. The first ambient call in a trace not seen before *spends* the token in force: it is never set again, and does not
   go back to the pool. If the trace started under an earlier token, then what changed the token since was the first
   ambient call of a trace inside it, which spent that earlier one. So the key of every ambient trace is spent, and no
   later call can hit it.
3. Traces without ambient calls spend nothing: under an unspent token they are shared by all programs that ever get
   that token, JAX's own among them, and that is right because they do not depend on ambient state.

So that JAX's own cached traces are found again inside the blocks, what runs in them runs under one token of the
frame's own (`_inner_token`) until that one is spent; the entry trace leaves it at its next look, for a fresh one, so
that the next block spends the fresh one instead.

A program that has spent a token starts with a token of its own from then on (`Hint`), so that it does not use up the
pooled one, with which JAX's own cached traces are found again.
"""

from __future__ import annotations

import contextvars
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import CodeType, FrameType
from typing import Any, cast

import jax

from ._compat import surroundings, trace_finder, trace_reader
from ._errors import JscopeError, OutsideProgramError, ScopeExitError, TransformError, user_line, warn_retrace
from ._passes import LoopPasses
from ._replay import Reading, Recording
from ._store import Store

_current: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("jscope_frame", default=None)
# The blocks of `arg_scope` that are open where no program runs. Frames keep their own, and never take these.
_arg_scopes: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar("jscope_arg_scopes", default=())
_in_force = jax.make_user_context(None)
_fresh = itertools.count(1)
_unspent: list[int] = []

_SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Hint:
    """What is known of a program from its earlier runs. Only speed and warnings depend on it.

    Attributes:
      spends: whether it makes ambient calls inside transforms.
      warned: whether its user knows what that costs.
    """

    __slots__ = ("spends", "warned")

    def __init__(self) -> None:
        self.spends = False
        self.warned = False


class Frame:
    """One run of one program. Use as a context manager.

    Args:
      store: the run's variables and scopes.
      hint: kept between runs of one program.
      entry: the code that calls the program.
      refuses_inner_calls: the name of the call that opened the frame, if it allows no ambient calls inside transforms.
      front: stands before the store, until it steps aside.

    Attributes:
      arg_scopes: the blocks of `arg_scope` that are open.
      front: what calls go to: the store, or what stands before it.
      reading: the front, while it is one that needs no level; else None.
      near: the call of a function whose own calls then need no look, see `current_near`.
    """

    __slots__ = (
        "_context",
        "_entry",
        "_entry_state",
        "_entry_trace",
        "_find_trace",
        "_hint",
        "_inner_calls",
        "_inner_token",
        "_levels",
        "_nested",
        "_open",
        "_outer",
        "_passes",
        "_pooled",
        "_quiet_trace",
        "_read_trace",
        "_token",
        "_token_context",
        "arg_scopes",
        "front",
        "near",
        "reading",
        "store",
    )

    def __init__(
        self,
        store: Store,
        hint: Hint,
        entry: CodeType,
        refuses_inner_calls: str = "",
        front: Recording | Reading | None = None,
    ) -> None:
        self.store = store
        self.arg_scopes: tuple[Any, ...] = ()
        self.front: Any = store
        self.reading = front if isinstance(front, Reading) else None
        self.near: FrameType | None = None
        if front is not None:
            self.front = front
            front.step_aside = self._step_aside
            front.look = lambda: current("a jscope call").level
        self._hint = hint
        self._entry = entry
        self._inner_calls = refuses_inner_calls
        self._open = False

    def __enter__(self) -> Store:
        if self._open:
            raise ScopeExitError(
                "This program is running already.", kind="nesting", where=user_line(), fix="open another one"
            )
        self._outer = _current.get()
        self._read_trace, self._find_trace = trace_reader(), trace_finder()
        self._entry_state, self._entry_trace = self._read_trace(), self._find_trace(())
        self._quiet_trace: Any = self._entry_trace  # the entry trace, while nothing is to be done there
        self._nested: list[tuple[Any, int]] = []  # the inner traces that are being made, and their levels
        self._levels = 0
        self._passes = LoopPasses(self.store)
        self._inner_token = 0
        self._pooled = not self._hint.spends
        self._open = True
        self._token_context: Any = None
        self._set_token(_take_token() if self._pooled else next(_fresh))
        self.store.observe = self._observe_for_getter
        self._context = _current.set(self)
        return self.store

    def __exit__(self, *exception: Any) -> None:
        self._open = False
        self._entry_trace = self._quiet_trace = self.near = None  # nothing is to keep a trace alive
        try:
            if self.front is not self.store:
                self.front.settle()
        finally:
            self._step_aside()
            self._end()

    def _end(self) -> None:
        in_order = _current.get() is self
        self.store.observe = _after_the_end
        self.store.scopes.close()
        if not in_order:
            # The programs opened later are still running: the last of them puts back what is around us all.
            raise ScopeExitError(
                "A program is left while one that was opened later still runs.",
                kind="nesting",
                where=user_line(),
                fix="leave build() and bind() in reverse order of entry, in the context that entered them; `with` does",
            )
        frame: Frame | None = self
        while frame is not None and not frame._open:
            frame._token_context.__exit__(None, None, None)
            if frame._pooled:
                _unspent.append(frame._token)
            outer, frame._outer = frame._outer, None
            frame = outer
        _current.set(None)  # what is set next keeps what was set before, which is to be no run that has ended
        context = _current.set(frame)
        if frame is not None:
            frame._context = context

    def _step_aside(self) -> None:
        self.front, self.reading = self.store, None

    def _set_token(self, token: int) -> None:
        if self._token_context is not None:
            self._token_context.__exit__(None, None, None)
        self._token = token
        self._token_context = _in_force(token)
        self._token_context.__enter__()

    def _observe(self, trace: Any) -> int:
        """The level of the trace in progress: 0 for the entry trace; keeps the tokens as the module says."""
        if trace == self._entry_state:
            if self._token == self._inner_token:
                self._set_token(next(_fresh))
                self._nested.clear()
                self._quiet_trace = self._entry_trace
            return 0
        nested = self._nested
        for index in range(len(nested) - 1, -1, -1):
            if nested[index][0] == trace:
                # Traces nest, so those after it are over. One that comes back all the same counts as a new one.
                del nested[index + 1 :]
                level = nested[index][1]
                break
        else:
            self._levels = level = self._levels + 1
            nested.append((trace, level))
            self._spend()
            if not self._inner_calls:
                self._look_around(level)
        if self._inner_calls:
            raise TransformError(
                f"A jscope call inside a JAX transform, where {self._inner_calls} allows none.",
                kind="inner_call",
                scope=self.store.scopes.state.name,
                where=user_line(),
                fix=f"make the code a function and use js.transform(function) instead of {self._inner_calls}",
            )
        return level

    def _look_around(self, level: int) -> None:
        """At the first call in an inner trace: what transforms are around it, and what follows from that."""
        around = surroundings(self._entry)
        in_a_rule = any(around.nested(rule, "derivative") for rule in ("custom_jvp", "custom_vjp"))
        if self.front is not self.store and (around.loops or in_a_rule):
            self.front.off()  # what follows looks into the store
        self._passes.see(around.loops)
        if in_a_rule:
            self.store.rule_levels.add(level)
        if not self._hint.warned and "trace" not in around.transforms[around.transforms.index("program") :]:
            self._hint.warned = True
            warn_retrace()

    def _observe_for_getter(self) -> int:
        """The level, for a call by way of an object of this frame: good only where this frame is the current one."""
        if current("a getter") is not self.store:
            raise _outside("a getter", self)
        return self.store.level

    def _spend(self) -> None:
        self._pooled = False
        self._hint.spends = True
        if self._token == self._inner_token or not self._inner_token:
            self._inner_token = next(_fresh)
        self._set_token(self._inner_token)
        self._quiet_trace = None


def _take_token() -> int:
    try:
        return _unspent.pop()
    except IndexError:
        return next(_fresh)


def current(call: str) -> Store:
    """The store of the program running here, its level set. Every ambient call goes through this, but for near ones.

    Args:
      call: for messages.

    Raises:
      OutsideProgramError: where no program runs.
    """
    frame = _current.get()
    if frame is None or not frame._open:
        raise _outside(call, frame)
    try:
        # Only the context that set a token can reset it: the exact test for "the context that opened this frame".
        _current.reset(frame._context)
    except ValueError:
        raise _outside(call, frame) from None
    frame._context = _current.set(frame)
    store = frame.front
    # Most calls come from the trace the program was entered in, with nothing to do: they are kept short.
    store.level = 0 if frame._find_trace(()) is frame._quiet_trace else frame._observe(frame._read_trace())
    return store


def current_near(call: str, caller: FrameType) -> Store:
    """The same, with no look at where the call comes from if it is near: made by `caller`, a call of a function.

    JAX makes a trace by calling a function, and Python enters a context by calling one. So what one call of a function
    does, it does where it entered a scope, unless it can be suspended and go on elsewhere: generators are never near.
    The look is what costs most. Without it the level is not known, which only a store needs, and a reading finds out
    when it hands over to its store.

    Two things go on in the same call and are elsewhere. Under `jax.ensure_compile_time_eval` nothing is traced, so no
    cache can bring it back. And `Context.run(get_variable, ...)`, given one of our own functions, is answered if it is
    what the script has next, in the same thread and with the right value.

    A token that an inner trace has left in force stays until the next look: it is not spent, and the next block may
    spend it as well as a fresh one.
    """
    frame = _current.get()
    if frame is not None and frame.near is caller and frame.reading is not None:
        return frame.reading  # type: ignore[return-value]  # it has what the store has
    return current(call)


class Scoped:
    """Enters and leaves `variable_scope`s; while one is open, other calls by the call that entered it are near."""

    # The subclass is in floor 3 as well, and has all else that `Store.enter` takes. What follows is written out rather
    # than made of calls: nothing else is done so often while JAX traces.
    __slots__ = ("_near_before",)

    _near_before: FrameType | None  # what was near when it was entered

    def __enter__(self) -> Any:
        caller = sys._getframe(1)
        frame = _current.get()
        if frame is not None and frame.near is caller and frame.reading is not None:
            self._near_before = caller
            return frame.reading.enter(self)  # type: ignore[arg-type]
        scope = current("variable_scope").enter(self)  # type: ignore[arg-type]
        frame = cast(Frame, frame)
        self._near_before, frame.near = frame.near, None if caller.f_code.co_flags & _SUSPENDS else caller
        if self._near_before is None and caller.f_back is not None and caller.f_back.f_code is frame._entry:
            self._near_before = frame.near  # the program's own call, which lasts as long as the run
        return scope

    def __exit__(self, exception: type[BaseException] | None, value: Any = None, traceback: Any = None) -> None:
        frame = _current.get()
        before, self._near_before = self._near_before, None
        if frame is not None and frame.near is sys._getframe(1):
            frame.near = before
            frame.front.leave(self)
        elif exception is not GeneratorExit or is_open_here(self):
            if frame is not None:
                frame.near = None  # it may be a call that has ended, and nothing is to keep what that held
            current("leaving a variable_scope").leave(self)  # type: ignore[arg-type]
        # Else a generator is closed after its program has ended: there is nothing to put back.


def _after_the_end() -> int:
    raise _outside("a getter", None)


def is_running() -> bool:
    """Whether a program runs here."""
    frame = _current.get()
    return frame is not None and frame._open


def is_open_here(scope: Any) -> bool:
    """Whether the program running here has entered `scope` and not left it. Asking is no ambient call.

    Python may close a suspended generator, with the scopes it is in, at any moment, also within one of our own calls.
    """
    frame = _current.get()
    if frame is None or not frame._open:
        return False
    return frame.store.scopes.is_open(scope) or (frame.front is not frame.store and frame.front.is_open(scope))


def arg_scopes(call: str) -> tuple[Any, ...]:
    """The blocks of `arg_scope` that are open here, the innermost last."""
    return _looked_at(call).arg_scopes if is_running() else _arg_scopes.get()


def set_arg_scopes(call: str, entries: tuple[Any, ...]) -> None:
    """Puts other blocks in the place of those that are open here."""
    if is_running():
        _looked_at(call).arg_scopes = entries
    else:
        _arg_scopes.set(entries)


def _looked_at(call: str) -> Frame:
    """The frame of the program running here, after the look at where the call comes from."""
    current(call)
    frame: Any = _current.get()
    return frame


def caches_here() -> Callable[[], AbstractContextManager[Any]]:
    """Makes contexts in which JAX finds again what the code running now finds, also within a program that it starts.

    For what makes no ambient calls: no token would be spent for it.
    """
    frame = _current.get()
    token = frame._token if frame is not None and frame._open else None
    return lambda: _in_force(token)


def arg_scopes_around() -> Iterator[tuple[Any, ...]]:
    """The blocks open around the program running here: those of the next program outside it first."""
    frame = _current.get()
    while frame is not None and frame._outer is not None:
        frame = frame._outer
        yield frame.arg_scopes
    yield _arg_scopes.get()


def _outside(call: str, frame: Frame | None) -> JscopeError:
    if frame is None:
        what = f"{call} is called outside any program."
    elif frame._open:
        what = f"{call} is called from another thread or context than the one that runs the program."
    else:
        what = f"{call} is called after its program has ended."
    fix = "call it in a function that js.transform wraps, or inside `with js.build(key):` or `with js.bind(params):`"
    if "derivative" in surroundings(None).transforms:
        fix = "give a derivative rule what it needs as arguments of its function: it runs by itself; or " + fix
    return OutsideProgramError(what, kind="outside", asked=call, where=user_line(), fix=fix)
