"""Variable scopes and op scopes of one running program, entered and left by TensorFlow 1's rules. Floor 2.

Explicit and pure: nothing here knows what "the current program" is. `ScopeStack` holds everything that TF1 keeps per
graph about scopes; scope objects that outlive a program (`ScopeHandle`) hold only what they were made with.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from ._errors import BadArgumentError, BadTypeError, ScopeExitError, user_line
from ._names import OpNames, ScopeCounts, join
from ._values import FLOAT32


class ReuseMode(enum.Enum):
    """The third state of `reuse`, beside True and False."""

    AUTO_REUSE = "AUTO_REUSE"

    def __repr__(self) -> str:
        return "AUTO_REUSE"

    __str__ = __repr__


AUTO_REUSE = ReuseMode.AUTO_REUSE

Reuse = bool | ReuseMode


class ScopeState(NamedTuple):
    """A variable scope's name and the defaults it gives to `get_variable`."""

    name: str = ""
    prefix: str = ""
    reuse: Reuse = False
    initializer: Any = None
    regularizer: Any = None
    dtype: Any = FLOAT32
    custom_getter: Any = None
    partitioner: Any = None
    constraint: Any = None
    original_name_scope: str = ""


class ScopeHandle:
    """A scope object: its identity, and the state it was made with. Changes to it live in the `ScopeStack`."""

    __slots__ = ("__weakref__", "_made_with")

    def __init__(self, state: ScopeState) -> None:
        self._made_with = state


class ScopeRequest(Protocol):
    """What `variable_scope(...)` was called with. Its identity stands for "the same instance entered again".

    Attributes:
      _overrides: the defaults given, by field of `ScopeState`.
      _in_short: the name, whether it is a default name, `reuse` and `auxiliary_name_scope`, where that is all there is;
        else None. Set to None as well by what answers the request from it, so that it does so once. That sets also
      _run, _meaning: the run that it did so in (`ScopeStack.run`), and what the request came to mean.
    """

    _name_or_scope: Any
    _default_name: Any
    _reuse: Reuse | None
    _overrides: dict[str, Any]
    _auxiliary_name_scope: bool
    _in_short: tuple[str, bool, Reuse | None, bool] | None
    _run: object
    _meaning: Meaning


class Meaning(NamedTuple):
    """What a request came to mean at its first entry, and means at every later one (TF1 keeps this in the instance)."""

    op_scope_name: str | None
    target: str | ScopeHandle
    original_name_scope: str
    reuse: Reuse


class _OpEntry:
    """One open op scope: what to put back when it is left."""

    __slots__ = ("before", "put_back", "shown")

    def __init__(self, before: str, shown: Any) -> None:
        self.before = before
        self.shown = shown
        self.put_back = False


class _Entry(_OpEntry):
    """One entry of a variable scope: what to put back, and what the request came to mean.

    Attributes:
      op_scope_name, target, original_name_scope, reuse: the request's `Meaning`.
      handle, name: the scope object entered and its name.
      below: the scope object that was current before.
      mark: where the counts are rolled back to; None where only those below the scope are forgotten.
      previous: the same request's entry that was open before this one, if any.
      is_open: whether it has not been left yet.
    """

    __slots__ = (
        "below",
        "handle",
        "is_open",
        "mark",
        "name",
        "op_scope_name",
        "original_name_scope",
        "previous",
        "reuse",
        "target",
    )

    def __init__(
        self, before: str, op_scope_name: str | None, target: str | ScopeHandle, original_name_scope: str, reuse: Reuse
    ) -> None:
        self.before = before
        self.put_back = op_scope_name is None  # what opened none puts none back, whatever was opened inside
        self.op_scope_name = op_scope_name
        self.target = target
        self.original_name_scope = original_name_scope
        self.reuse = reuse
        self.is_open = True


class ScopeStack:
    """The scopes of one program.

    Args:
      handle_class: the class of scope objects.
      show: opens a name in JAX's own names of operations (`jax.named_scope`), or None to show nothing.

    Attributes:
      handle_class, show: as given.
      handle: the current scope object.
      state: its state, changes included.
      op_scope: the current op scope without a final slash.
      op_names: the op-name table, shared with the variables.
      default_names: how many default names were given so far.
      run: stands for this run where something from it may be met in another.
    """

    __slots__ = (
        "_changed",
        "_counts",
        "_entries",
        "_open_op_scopes",
        "_shown",
        "default_names",
        "handle",
        "handle_class",
        "op_names",
        "op_scope",
        "run",
        "show",
        "state",
    )

    def __init__(
        self,
        handle_class: type[ScopeHandle] = ScopeHandle,
        show: Callable[[str], AbstractContextManager[Any]] | None = None,
    ) -> None:
        self.handle_class = handle_class
        self.show = show
        self._shown: list[AbstractContextManager[Any]] = []
        self._changed: dict[ScopeHandle, ScopeState] = {}
        self._counts = ScopeCounts()
        self.default_names = 0
        self.run = object()
        self._entries: dict[ScopeRequest, _Entry] = {}  # the last open one of each, else the last one
        self._open_op_scopes: dict[object, list[_OpEntry]] = {}
        self.op_names = OpNames()
        self.op_scope = ""
        self.state = ScopeState()
        self.handle = handle_class(self.state)

    def state_of(self, handle: ScopeHandle) -> ScopeState:
        """What `handle` says in this program."""
        return self._changed.get(handle, handle._made_with)

    def change(self, handle: ScopeHandle, **changes: Any) -> None:
        """`reuse_variables` and `set_*`: in force for this program, through this very object."""
        state = self.state_of(handle)._replace(**changes)
        self._changed[handle] = state
        if handle is self.handle:
            self.state = state

    # Op scopes --------------------------------------------------------------------------------------------------------

    def _open_op_scope(self, name: str) -> str:
        """Makes `name` the op scope and returns it as TF1 does, with a final slash; "" goes to the root."""
        if not isinstance(name, str):
            raise BadTypeError(
                f"An op scope's name is a string, not {name!r}.",
                kind="bad_name_type",
                where=user_line(),
                fix="give a string",
            )
        self.op_scope = self.op_names.open(self.op_scope, name)
        return self.op_scope + "/" if name else ""

    def _open_shown(self, before: str) -> Any:
        """The op scope in force, opened in JAX's names as well; None where there is nothing to open.

        JAX can only extend the names in force. An absolute op scope (a final slash, a jump to the root) therefore shows
        below the place of entry.
        """
        name = shown_name(before, self.op_scope)
        if self.show is None or not name:
            return None
        shown = self.show(name)
        shown.__enter__()
        self._shown.append(shown)
        return shown

    def _leave_op_entry(self, entry: _OpEntry) -> None:
        """Puts the op scope back, once: TF1 does so also where the variable scope has to be left a second time."""
        if not entry.put_back:
            entry.put_back = True
            self.op_scope = entry.before

    def _close_shown(self, shown: Any) -> None:
        if self._shown[-1] is shown:
            self._shown.pop()
        else:
            self._shown.remove(shown)
        shown.__exit__(None, None, None)

    def close(self) -> None:
        """Closes in JAX's names what the program leaves open there."""
        while self._shown:
            self._shown.pop().__exit__(None, None, None)

    def enter_op_scope(self, request: object, name: str | None) -> str:
        """Enters op scope `name` on behalf of `request`; None and "" go to the root."""
        before = self.op_scope
        opened = self._open_op_scope("" if name is None else name)
        self._open_op_scopes.setdefault(request, []).append(_OpEntry(before, self._open_shown(before)))
        return opened

    def leave_op_scope(self, request: object) -> None:
        """Leaves the last op scope that `request` entered.

        Raises:
          ScopeExitError: if there is none.
        """
        entries = self._open_op_scopes.get(request)
        if not entries:
            raise ScopeExitError(
                "A name_scope is left that is not open in this program.",
                kind="nesting",
                scope=self.state.name,
                where=user_line(),
                fix="use `with name_scope(...):`",
            )
        entry = entries.pop()
        self._leave_op_entry(entry)
        if entry.shown is not None:
            self._close_shown(entry.shown)

    # Variable scopes --------------------------------------------------------------------------------------------------

    def enter(self, request: ScopeRequest, handle: ScopeHandle | None = None) -> ScopeHandle:
        """Enters a scope by name, by scope object or by default name; the semantics are those of TF1's `with`.

        `handle` is the scope object that has been given out for a name, if it has.
        """
        before = self.op_scope
        last: _Entry | Meaning | None = self._entries.get(request)
        if last is None and request._run is self.run:
            last = request._meaning
        try:
            if last is None:
                entry = self._prepare(request, before)
            else:
                entry = _Entry(before, last.op_scope_name, last.target, last.original_name_scope, last.reuse)
                if last.op_scope_name is not None:
                    self._open_op_scope(last.op_scope_name)
        except BaseException:
            self.op_scope = before
            raise
        target = entry.target
        if isinstance(target, ScopeHandle):
            handle, state = target, self.state_of(target)
            self._counts.open(state.name)
            entry.mark = self._counts.mark()
        else:
            entry.reuse = entry.reuse or self.state.reuse
            state = self._inner(target, request, entry.reuse, entry.original_name_scope)
            handle = handle or self.handle_class(state)
            self._counts.open(state.name)
            entry.mark = None
        entry.shown = self._open_shown(before)
        entry.handle, entry.name, entry.below = handle, state.name, self.handle
        entry.previous = last if isinstance(last, _Entry) and last.is_open else None
        self._entries[request] = entry
        self.handle, self.state = handle, state
        return handle

    def meaning_of(self, request: ScopeRequest) -> Meaning:
        """What a request came to mean that has been entered."""
        entry = self._entries[request]
        return Meaning(entry.op_scope_name, entry.target, entry.original_name_scope, entry.reuse)

    def enter_again(self, request: ScopeRequest, handle: ScopeHandle, shown: Any) -> None:
        """Enters as `enter` does, where the scope object has been given out and the scope is shown already, or not."""
        show, self.show = self.show, None
        try:
            self.enter(request, handle)
        finally:
            self.show = show
        if shown is not None:
            self._entries[request].shown = shown
            self._shown.append(shown)

    def _prepare(self, request: ScopeRequest, before: str) -> _Entry:
        """What a request means that is entered for the first time; opens its op scope."""
        target, reuse = request._name_or_scope, request._reuse or False
        if target is not None and not isinstance(target, str | ScopeHandle):
            raise BadTypeError(
                f"variable_scope takes a string or a scope object, not {target!r}.",
                kind="bad_scope_type",
                scope=self.state.name,
                where=user_line(),
                fix="give a name, or a scope object from `with variable_scope(...) as scope` or get_variable_scope()",
            )
        if target is None and reuse:
            raise BadArgumentError(
                f"reuse={reuse} can't be used with a default name ({request._default_name!r}): which scope is meant?",
                kind="reuse_default_name",
                scope=self.state.name,
                where=user_line(),
                fix="give the scope's name, or open it inside a scope that reuses",
            )
        if isinstance(target, ScopeHandle):
            state = self.state_of(target)
            last = state.name.rpartition("/")[2]
            op_scope_name = (last or None) if request._auxiliary_name_scope else self._op_scope_in_force()
            if op_scope_name is not None:
                self._open_op_scope(op_scope_name)
            return _Entry(before, op_scope_name, self._copy(state, request), state.original_name_scope, reuse)
        name = request._default_name if target is None else target
        if request._auxiliary_name_scope:
            op_scope_name = name if target is None or target else None
        else:
            op_scope_name = self._op_scope_in_force()
        original = name if op_scope_name is None else self._open_op_scope(op_scope_name)
        if target is None:
            name = self._unique(name)
        return _Entry(before, op_scope_name, name, original, reuse)

    def _unique(self, default_name: str) -> str:
        self.default_names += 1
        return self._counts.unique(self.state.name, default_name)

    def _op_scope_in_force(self) -> str:
        """The name that opens the op scope in force again: what is opened where no auxiliary one is wanted."""
        return self.op_scope + "/" if self.op_scope else ""

    def _inner(self, name: str, request: ScopeRequest, reuse: Reuse, original_name_scope: str) -> ScopeState:
        """The state of string scope `name` opened here: TF1 inherits everything except the constraint."""
        outer = self.state
        full = join(outer.name, name)
        state = ScopeState(
            full,
            full + "/" if full else "",
            reuse,
            outer.initializer,
            outer.regularizer,
            outer.dtype,
            outer.custom_getter,
            outer.partitioner,
            None,
            original_name_scope,
        )
        return self._overridden(state, request) if request._overrides else state

    def _copy(self, state: ScopeState, request: ScopeRequest) -> ScopeHandle:
        """A new scope object after a captured one, with what the request overrides."""
        state = state._replace(reuse=request._reuse or state.reuse, constraint=None)
        return self.handle_class(self._overridden(state, request))

    @staticmethod
    def _overridden(state: ScopeState, request: ScopeRequest) -> ScopeState:
        overrides = request._overrides
        if "custom_getter" in overrides:
            getter = compose_getters(overrides["custom_getter"], state.custom_getter)
            overrides = {**overrides, "custom_getter": getter}
        return state._replace(**overrides)

    def is_open(self, request: Any) -> bool:
        """Whether `request` has been entered in this program, and not been left."""
        entry = self._entries.get(request)
        return (entry is not None and entry.is_open) or bool(self._open_op_scopes.get(request))

    def leave(self, request: ScopeRequest) -> None:
        """Leaves the last entry of `request`.

        Raises:
          ScopeExitError: if a scope opened later is still open, or this one never was. As in TF1 the variable scope
            then stays current, while its op scope has been put back.
        """
        entry = self._entries.get(request)
        if entry is None or not entry.is_open:
            raise ScopeExitError(
                "A variable_scope is left that is not open in this program.",
                kind="nesting",
                scope=self.state.name,
                where=user_line(),
                fix="use `with variable_scope(...):`",
            )
        self._leave_op_entry(entry)
        if self.handle is not entry.handle:
            raise ScopeExitError(
                f"Improper nesting: scope '{entry.name}' is left while '{self.state.name}', opened later, is open.",
                kind="nesting",
                scope=self.state.name,
                where=user_line(),
                fix="leave scopes in the reverse order of entry; `with` does",
            )
        if entry.shown is not None:
            self._close_shown(entry.shown)
        entry.is_open = False
        if entry.previous is not None:
            entry.previous.reuse = entry.reuse
            self._entries[request] = entry.previous
        if entry.mark is None:
            self._counts.leave(entry.name)
        else:
            self._counts.roll_back(entry.mark)
        self.handle = entry.below
        self.state = self.state_of(entry.below)

    def now_and_at_once_closed(self, name: str | None, default_name: str, custom_getter: Any) -> ScopeHandle:
        """The scope of a template with `create_scope_now_`: opened without any op scope, and left again.

        TF1 resets the dtype to float32 here, and inherits the rest.
        """
        name = name or self._unique(default_name)
        outer = self.state
        full = join(outer.name, name)
        state = outer._replace(
            name=full, prefix=full + "/" if full else "", dtype=FLOAT32, constraint=None, original_name_scope=name
        )
        if custom_getter is not None:
            state = state._replace(custom_getter=compose_getters(custom_getter, outer.custom_getter))
        self._counts.open(full)
        self._counts.leave(full)
        return self.handle_class(state)


def shown_name(before: str, opened: str) -> str:
    """What going from one op scope to another adds to JAX's names of operations, which can only be extended."""
    if not opened or opened == before:
        return ""
    return opened[len(before) + 1 :] if before and opened.startswith(before + "/") else opened


def compose_getters(inner: Any, outer: Any) -> Any:
    """One getter out of two scopes': the inner scope's is called first and calls outward."""
    if outer is None:
        return inner

    def both(getter: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return inner(lambda *a, **k: outer(getter, *a, **k), *args, **kwargs)

    return both
