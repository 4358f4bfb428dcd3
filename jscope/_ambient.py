"""The only state at a distance: which program is running here, and which of JAX's cached traces it may use. Floor 3.

One ContextVar holds the frame of the innermost running program. A frame answers only in the very context that opened
it, so neither another thread, nor a copied context, nor code that runs after the program's end can use it. A second one
holds what `arg_scope` collects where no program runs; no program reads it, but to refuse it.

**Why JAX's trace caches need a guard.** JAX caches traces by function object. A function that outlives one call and
reads ambient state (a module-level `jax.jit` block that calls `get_variable`) would be traced once and silently
replayed in another scope, program or tree. `jax.make_user_context` makes a value of ours part of the key of those
caches. That value is a *token*: an integer, never given out twice.

**The argument.** Call a trace *ambient* if, while it is made, an ambient call (any call through `current`) runs in
it.

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

Traces inside one another share a token until it is spent (`_inner_token`), so that JAX's own cached traces are found
again in them. At the next ambient call outside we switch to a fresh token, so that the next block spends that one.

A program that has spent a token starts with a token of its own from then on, so that it does not use up the pooled
one, with which JAX's own cached traces are found again. Only speed depends on it.
"""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

import jax

from ._callsite import ENTRY as ENTRY_FILE
from ._callsite import USER, user_line, warn_retrace
from ._compat import trace_finder, trace_reader
from ._errors import JscopeError, OutsideProgramError, ScopeExitError, TransformError
from ._stack import OnHostError, nearest, surroundings, tell_files_apart
from .run.bodies import Body, body_of
from .run.variables import Run

_current: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("jscope_frame", default=None)
# The blocks of `arg_scope` that are open where no program runs. Runs keep their own, and never take these.
_arg_scopes: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar("jscope_arg_scopes", default=())
_in_force = jax.make_user_context(None)
_fresh = itertools.count(1)
_unspent: list[int] = []


class Frame:
    """Makes a run the one that is running here. Use as a context manager, or by `call`.

    Args:
      run: the run.
      spends: whether the program is known to ask inside transforms.
      refuses_inner_calls: the name of the call that opened the frame, if it allows no ambient calls inside transforms.

    Attributes:
      run: as given.
      spends: whether it asked inside transforms, or is known to.
    """

    __slots__ = (
        "_before",
        "_context",
        "_entry_state",
        "_entry_trace",
        "_find_trace",
        "_inner_calls",
        "_inner_token",
        "_is_staged",
        "_levels",
        "_nested",
        "_open",
        "_outer",
        "_pooled",
        "_quiet_trace",
        "_read_trace",
        "_token",
        "_token_context",
        "run",
        "spends",
    )

    def __init__(self, run: Run, spends: bool = False, refuses_inner_calls: str = "") -> None:
        self.run = run
        self.spends = spends
        self._inner_calls = refuses_inner_calls
        self._open = False

    def call(self, program: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs a program."""
        with self:
            return program(*args, **kwargs)

    def __enter__(self) -> Run:
        if self._open:
            raise ScopeExitError(
                "This program is running already.", kind="nesting", where=user_line(), fix="open another one"
            )
        self._outer, self._before = _around()
        self._read_trace, self._find_trace = trace_reader(), trace_finder()
        self._entry_state, self._entry_trace = self._read_trace(), self._find_trace(())
        self._quiet_trace: Any = self._entry_trace  # the entry trace, while nothing is to be done there
        self._nested: list[tuple[Any, int]] = []  # the inner traces that are being made, and their levels
        self._levels = 0
        self._inner_token = 0
        self._is_staged: bool | None = None
        self._pooled = not self.spends
        self._open = True
        self._token_context: Any = None
        self._set_token(_take_token() if self._pooled else next(_fresh))
        self._context = _current.set(self)
        return self.run

    def __exit__(self, *exception: Any) -> None:
        self._open = False
        self._entry_trace = self._quiet_trace = None  # nothing is to keep a trace alive
        in_order = _current.get() is self
        self.run.scopes.close()
        if not in_order:
            # The programs opened later are still running; the last of them to close restores what was before.
            raise ScopeExitError(
                "A program is left while one that was opened later still runs.",
                kind="nesting",
                where=user_line(),
                fix="leave build() and bind() in reverse order of entry, in the context that entered them; `with` does",
            )
        frame: Frame | None = self
        before = self._before
        while frame is not None and not frame._open:
            frame._release()
            before = frame._before
            outer, frame._outer, frame._before = frame._outer, None, None
            frame = outer
        # What a ContextVar is set to keeps what it was before alive, so that None is put between.
        _current.set(None)
        context = _current.set(before if frame is None else frame)
        if frame is not None:
            frame._context = context

    def _release(self) -> None:
        """Gives the token back. Once: two frames that own one token would be given each other's traces."""
        context, self._token_context = self._token_context, None
        if context is not None:
            context.__exit__(None, None, None)
            if self._pooled:
                _unspent.append(self._token)

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
                scope=self.run.scopes.state.name,
                where=user_line(),
                fix=f"make the code a function and use js.transform(function) instead of {self._inner_calls}",
            )
        return level

    def _look_around(self, level: int) -> None:
        """At the first call in an inner trace: what transforms are around it, and what follows from that."""
        around = surroundings(ENTRY)
        if any(around.nested(rule, "derivative") for rule in ("custom_jvp", "custom_vjp")):
            self.run.rule_levels.add(level)
        if self._is_staged is None:
            self._is_staged = "trace" in around.transforms[around.transforms.index("program") :]
            if not self._is_staged:
                warn_retrace()

    def _spend(self) -> None:
        self._pooled = False
        self.spends = True
        if self._token == self._inner_token or not self._inner_token:
            self._inner_token = next(_fresh)
        self._set_token(self._inner_token)
        self._quiet_trace = None


# The code in which programs are entered: what is further out on the stack is not the program's.
ENTRY = Frame.call.__code__
tell_files_apart(ENTRY)


def _around() -> tuple[Frame | None, Frame | None]:
    """(the frame that is open in this context; what else the context holds, to be put back).

    A context that was copied in a program holds that program's frame, which is to be left alone: it belongs to the
    context that opened it, and may end before what runs here.
    """
    frame = _current.get()
    if frame is None or not frame._open:
        return None, None
    try:
        _current.reset(frame._context)
    except (ValueError, RuntimeError):
        return None, frame
    frame._context = _current.set(frame)
    return frame, None


def _take_token() -> int:
    try:
        return _unspent.pop()
    except IndexError:
        return next(_fresh)


def current(call: str, caller: FrameType | None = None) -> Run:
    """The run of the program running here, told where the call comes from. Every ambient call goes through this.

    Args:
      call: for messages.
      caller: the Python frame that called; None if it does not matter which body it runs in.

    Raises:
      OutsideProgramError: where no program runs.
    """
    frame = _current.get()
    if frame is None or not frame._open:
        raise _outside(call, frame)
    try:
        # Only the context that set a token can reset it: the exact test for "the context that opened this frame".
        _current.reset(frame._context)
    except (ValueError, RuntimeError):  # RuntimeError: while the program itself does the same in its thread
        raise _outside(call, frame) from None
    frame._context = _current.set(frame)
    run = frame.run
    # Most calls come from the trace the program was entered in, with nothing to do: they are kept short.
    run.level = 0 if frame._find_trace(()) is frame._quiet_trace else frame._observe(frame._read_trace())
    if caller is not None:
        # And from the Python frame that has entered the innermost scope, or from one that it has called.
        entry = run.scopes.innermost
        run.body = entry.body if caller is entry.frame else _body(call, caller, run)
        if run.scopes.changed:
            run.scopes.look_again(run.body)
    return run


def _body(call: str, caller: FrameType, run: Run) -> Body | None:
    """The body that a call comes from whose Python frame has not entered the innermost scope."""
    entry = run.scopes.innermost
    found = nearest(caller, entry.frame)
    if found == USER:
        return entry.body
    if found == ENTRY_FILE:
        return None
    try:
        return body_of(caller, run.mark, entry.frame, entry.body)
    except OnHostError:
        raise _error(call, f"{call} is called in a callback, which is no part of the program.") from None


def leaving(call: str, caller: FrameType) -> Run:
    """As `current`, for what leaves a scope: most often the call of a function that has entered the innermost one.

    Its frame is in the context and the trace that it entered the scope in, so there is nothing to look at.
    """
    frame = _current.get()
    if frame is not None and frame._open and frame.run.scopes.innermost.frame is caller:
        return frame.run
    return current(call)


def is_running() -> bool:
    """Whether a program runs here."""
    frame = _current.get()
    return frame is not None and frame._open


def is_open_here(scope: Any) -> bool:
    """Whether the program running here has entered `scope` and not left it. Asking is no ambient call.

    Python may close a suspended generator, with the scopes it is in, at any moment, also within one of our own calls.
    """
    frame = _current.get()
    return frame is not None and frame._open and frame.run.scopes.is_open(scope)


def arg_scopes(call: str) -> tuple[Any, ...]:
    """The blocks of `arg_scope` that are open here, the innermost last."""
    return current(call).arg_scopes if is_running() else _arg_scopes.get()


def set_arg_scopes(call: str, entries: tuple[Any, ...]) -> None:
    """Puts other blocks in the place of those that are open here."""
    if is_running():
        current(call).arg_scopes = entries
    else:
        _arg_scopes.set(entries)


def arg_scopes_around() -> Iterator[tuple[Any, ...]]:
    """The blocks open around the program running here: those of the next program outside it first."""
    frame = _current.get()
    while frame is not None and (frame := frame._outer or frame._before) is not None:
        yield frame.run.arg_scopes
    yield _arg_scopes.get()


def caches_here() -> Callable[[], AbstractContextManager[Any]]:
    """Makes contexts in which JAX finds again what the code running now finds, also within a program that it starts.

    For what makes no ambient calls: no token would be spent for it.
    """
    frame = _current.get()
    token = frame._token if frame is not None and frame._open else None
    return lambda: _in_force(token)


def of_another(call: str, fix: str) -> JscopeError:
    """The error for a call by way of an object that belongs to another run than the one running here."""
    what = f"{call} belongs to another program than the one that runs here."
    return OutsideProgramError(what, kind="outside", asked=call, where=user_line(), fix=fix)


def _outside(call: str, frame: Frame | None) -> JscopeError:
    if frame is None:
        return _error(call, f"{call} is called outside any program.")
    if frame._open:
        return _error(call, f"{call} is called from another thread or context than the one that runs the program.")
    return _error(call, f"{call} is called after its program has ended.")


def _error(call: str, what: str) -> JscopeError:
    fix = "call it in a function that js.transform wraps, or inside `with js.build(key):` or `with js.bind(params):`"
    around = surroundings(None).transforms
    if "callback" in around:
        fix = "ask for it in the program, and give the array to the callback as an argument: it runs on the host, later"
    elif "derivative" in around:
        fix = "give a derivative rule what it needs as arguments of its function: it runs by itself; or " + fix
    return OutsideProgramError(what, kind="outside", asked=call, where=user_line(), fix=fix)
