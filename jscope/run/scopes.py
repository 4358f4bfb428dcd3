"""Variable scopes and op scopes of one run, entered and left by TensorFlow 1's rules. Floor 2.

`Scopes` holds everything that TF1 keeps per graph about scopes; scope objects that outlive a program (`ScopeHandle`)
hold only what they were made with.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, NamedTuple, Protocol

from .._callsite import user_line
from .._errors import BadArgumentError, BadTypeError, ScopeExitError
from .._names import OpNames, ScopeCounts, join
from .._show import short
from .._values import FLOAT32
from .bodies import NO_BODY, Body, Mark, mark_in


class ReuseMode(enum.Enum):
    """The third state of `reuse`, beside True and False."""

    AUTO_REUSE = "AUTO_REUSE"

    def __repr__(self) -> str:
        return "AUTO_REUSE"

    __str__ = __repr__


AUTO_REUSE = ReuseMode.AUTO_REUSE

Reuse = bool | ReuseMode


_blank = object.__new__  # quicker than the call of a class that has an __init__


class ScopeState:
    """A variable scope's name and the defaults it gives to `get_variable`; that of the root if made by itself.

    It is never changed: `but` makes another one. No named tuple, whose fields take twice as long to read.
    """

    __slots__ = (
        "constraint",
        "custom_getter",
        "dtype",
        "initializer",
        "name",
        "original_name_scope",
        "partitioner",
        "prefix",
        "regularizer",
        "reuse",
        "trainable",
    )

    def __init__(self) -> None:
        self.name = ""
        self.prefix = ""
        self.reuse: Reuse = False
        self.initializer: Any = None
        self.regularizer: Any = None
        self.dtype: Any = FLOAT32
        self.custom_getter: Any = None
        self.partitioner: Any = None
        self.constraint: Any = None
        self.original_name_scope = ""
        self.trainable: bool = True

    def but(self, **changes: Any) -> ScopeState:
        """The same with other values in some fields."""
        state: ScopeState = _blank(ScopeState)
        for field in ScopeState.__slots__:
            setattr(state, field, changes[field] if field in changes else getattr(self, field))
        return state


class ScopeHandle:
    """A scope object: its identity, and the state it was made with. Changes to it live in the `Scopes` of a run."""

    __slots__ = ("__weakref__", "_made_with")

    def __init__(self, state: ScopeState) -> None:
        self._made_with = state


class ScopeRequest(Protocol):
    """What `variable_scope(...)` was called with. Its identity stands for "the same instance entered again".

    Attributes:
      _overrides: the defaults given, by field of `ScopeState`.
    """

    _name_or_scope: Any
    _default_name: Any
    _reuse: Reuse | None
    _overrides: dict[str, Any]
    _auxiliary_name_scope: bool


class _OpEntry(NamedTuple):
    """One open op scope: the op scope to put back, and what shows it in JAX's names of operations, or None."""

    before: str
    shown: Any


class _Meaning:
    """What a request came to mean when it was first entered, kept for when it is entered again (TF1 does so).

    Attributes:
      op_scope_name: what opens its op scope; None if it has none.
      target: the scope's name, or a scope object.
      original_name_scope: of the scope.
      reuse: of the scope; stays on once it was on.
      made: the body in which it came to mean this, and the turn.
    """

    __slots__ = ("made", "op_scope_name", "original_name_scope", "reuse", "target")

    def __init__(
        self,
        op_scope_name: str | None,
        target: str | ScopeHandle,
        original_name_scope: str,
        reuse: Reuse,
        made: Mark,
    ) -> None:
        self.op_scope_name = op_scope_name
        self.target = target
        self.original_name_scope = original_name_scope
        self.reuse = reuse
        self.made = made


class _Entry:
    """One entry of a variable scope, from a `with` to its end.

    Attributes:
      request: what was entered; None for the root.
      below: the entry that was innermost before.
      before: the op scope to put back; None where that is done, or where no op scope was opened.
      frame: the Python frame that entered it, while it is open; None for one that can be suspended.
      body: the body that this frame runs in.
      handle: the scope object entered.
      shown: what shows it in JAX's names of operations, or None.
      mark: where the counts are rolled back to; None where only those below the scope are forgotten.
    """

    __slots__ = ("before", "below", "body", "frame", "handle", "mark", "request", "shown")

    request: ScopeRequest | None
    below: _Entry | None
    before: str | None
    frame: FrameType | None
    body: Body | None
    handle: ScopeHandle
    shown: Any
    mark: int | None


class Scopes:
    """The scopes of one run.

    Args:
      handle_class: the class of scope objects.
      show: opens a name in JAX's own names of operations (`jax.named_scope`), or None to show nothing.

    Attributes:
      handle: the current scope object.
      state: its state, changes included.
      op_scope: the current op scope without a final slash.
      op_names: the op-name table, shared with the variables.
      innermost: the entry of the current scope; the run's own stands for the root.
      changed: scope object -> the states that the program has set, each with its mark.
    """

    __slots__ = (
        "_counts",
        "_handle_class",
        "_meanings",
        "_open_op_scopes",
        "_show",
        "_shown",
        "changed",
        "handle",
        "innermost",
        "op_names",
        "op_scope",
        "state",
    )

    def __init__(
        self,
        handle_class: type[ScopeHandle] = ScopeHandle,
        show: Callable[[str], AbstractContextManager[Any]] | None = None,
    ) -> None:
        self._handle_class = handle_class
        self._show = show
        self._shown: list[AbstractContextManager[Any]] = []
        self.changed: dict[ScopeHandle, list[tuple[ScopeState, Mark]]] = {}
        self._counts = ScopeCounts()
        # Each request that was entered, and what it means: for a plain name that was entered once, only the
        # original_name_scope and the reuse of its scope. The entry and the state are not kept, so that the next scope
        # uses their memory again, which is quicker.
        self._meanings: dict[ScopeRequest, _Meaning | tuple[str, Reuse]] = {}
        self._open_op_scopes: dict[object, list[_OpEntry]] = {}
        self.op_names = OpNames()
        self.op_scope = ""
        self.state = ScopeState()
        self.handle = handle_class(self.state)
        self.innermost: _Entry = _blank(_Entry)
        self.innermost.request = self.innermost.below = self.innermost.frame = self.innermost.body = None
        self.innermost.handle = self.handle

    def state_of(self, handle: ScopeHandle, body: Body | None) -> ScopeState:
        """What `handle` says in this run, in that body."""
        for state, mark in reversed(self.changed.get(handle, ())):
            if body is None or not body.made_earlier(mark):
                return state
        return handle._made_with

    def change(self, handle: ScopeHandle, body: Body | None, **changes: Any) -> None:
        """`reuse_variables` and `set_*`: in force for this run, through this very object."""
        state = self.state_of(handle, body).but(**changes)
        self.changed.setdefault(handle, []).append((state, mark_in(body)))
        self.look_again(body)

    def look_again(self, body: Body | None) -> None:
        """Finds out anew what the current scope says: it may be another in another turn of a body."""
        self.state = self.state_of(self.handle, body)

    # Op scopes --------------------------------------------------------------------------------------------------------

    def _open_op_scope(self, name: Any, body: Body | None) -> str:
        """Makes `name` the op scope and returns it as TF1 does, with a final slash; "" goes to the root."""
        if not isinstance(name, str):
            raise _no_string("An op scope's name", name)
        before = self.op_scope
        if body is None:
            self.op_scope = self.op_names.open(before, name)
        else:
            self.op_scope = body.take(("op scope", before, name), lambda: self.op_names.open(before, name))
        return self.op_scope + "/" if name else ""

    def _open_shown(self, before: str) -> Any:
        """The op scope in force, opened in JAX's names as well; None where there is nothing to open.

        JAX can only extend the names in force. An absolute op scope (a final slash, a jump to the root) therefore shows
        below the place of entry.
        """
        opened = self.op_scope
        if self._show is None or not opened or opened == before:
            return None
        shown = self._show(opened[len(before) + 1 :] if before and opened.startswith(before + "/") else opened)
        shown.__enter__()
        self._shown.append(shown)
        return shown

    def _close_shown(self, shown: Any) -> None:
        """Closes a name in JAX's names, from under those that were opened later and stay open."""
        later = []
        while (last := self._shown.pop()) is not shown:
            last.__exit__(None, None, None)
            later.append(last)
        shown.__exit__(None, None, None)
        for name in reversed(later):
            name.__enter__()
            self._shown.append(name)

    def close(self) -> None:
        """Closes in JAX's names what the program leaves open there, and lets go of the user's frames."""
        while self._shown:
            self._shown.pop().__exit__(None, None, None)
        entry: _Entry | None = self.innermost
        while entry is not None:
            entry.frame = None
            entry = entry.below

    def enter_op_scope(self, request: object, name: str | None, body: Body | None) -> str:
        """Enters op scope `name` on behalf of `request`; None and "" go to the root."""
        before = self.op_scope
        opened = self._open_op_scope("" if name is None else name, body)
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
        self.op_scope = entry.before
        if entry.shown is not None:
            self._close_shown(entry.shown)

    # Variable scopes --------------------------------------------------------------------------------------------------

    def enter(self, request: ScopeRequest, frame: FrameType | None, body: Body | None) -> ScopeHandle:
        """Enters a scope by name, by scope object or by default name; the semantics are those of TF1's `with`.

        Args:
          request: what was called.
          frame: the Python frame that enters; None if it can be suspended, and go on where other scopes are open.
          body: the body that the frame runs in.
        """
        before, target, last = self.op_scope, request._name_or_scope, self._meanings.get(request)
        entry: _Entry = _blank(_Entry)
        entry.request = request
        entry.before = before
        entry.below = self.innermost
        entry.frame = frame
        entry.body = body
        entry.mark = None
        if last is None and body is None and type(target) is str and target and request._auxiliary_name_scope:
            # What nearly all scopes are: what follows, written out.
            opened = self.op_scope = self.op_names.open(before, target)
            original_name_scope, reuse = opened + "/", request._reuse or self.state.reuse
            self._meanings[request] = original_name_scope, reuse
            if self._show is None:
                entry.shown = None
            else:
                absolute = target[-1] == "/" or not before
                shown = entry.shown = self._show(opened if absolute else opened[len(before) + 1 :])
                shown.__enter__()
                self._shown.append(shown)
        else:
            meaning = self._meanings[request] = self._meaning(request, last, body)
            if meaning.op_scope_name is None:
                entry.before = None  # nothing is opened, and nothing put back, whatever is opened inside
            target, original_name_scope = meaning.target, meaning.original_name_scope
            reuse = meaning.reuse = meaning.reuse or (not isinstance(target, ScopeHandle) and self.state.reuse)
            entry.shown = self._open_shown(before)
            if isinstance(target, ScopeHandle):
                self.state = self.state_of(target, body)
                self._counts.written.append(self.state.name)
                entry.mark = self._counts.mark()
                self.handle = entry.handle = target
                self.innermost = entry
                return target
        outer = self.state
        full = outer.prefix + target
        state: ScopeState = _blank(ScopeState)
        state.name = full
        state.prefix = full + "/" if full else ""
        state.reuse = reuse
        state.initializer = outer.initializer
        state.regularizer = outer.regularizer
        state.dtype = outer.dtype
        state.custom_getter = outer.custom_getter
        state.partitioner = outer.partitioner
        state.constraint = None  # which TF1 does not inherit
        state.trainable = outer.trainable
        state.original_name_scope = original_name_scope
        if request._overrides:
            state = self._overridden(state, request)
        self._counts.written.append(full)
        handle: ScopeHandle = _blank(self._handle_class)
        handle._made_with = state
        self.handle = entry.handle = handle
        self.state = state
        self.innermost = entry
        return handle

    def _meaning(
        self, request: ScopeRequest, meaning: _Meaning | tuple[str, Reuse] | None, body: Body | None
    ) -> _Meaning:
        """What a request means, now or since it was first entered; opens its op scope."""
        if meaning is None:
            return self._first_meaning(request, body)
        if isinstance(meaning, tuple):  # of a plain name, which was not entered again until now
            name = request._name_or_scope
            meaning = _Meaning(name, name, *meaning, NO_BODY)
        elif body is not None and body.made_earlier(meaning.made):
            return self._first_meaning(request, body)  # an earlier turn of this body entered it first
        if meaning.op_scope_name is not None:
            self._open_op_scope(meaning.op_scope_name, body)
        return meaning

    def _first_meaning(self, request: ScopeRequest, body: Body | None) -> _Meaning:
        """What a request means that is entered for the first time; opens its op scope."""
        target, reuse = request._name_or_scope, request._reuse or False
        if target is not None and not isinstance(target, str | ScopeHandle):
            raise BadTypeError(
                f"variable_scope takes a string or a scope object, not {short(target)}.",
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
        made = mark_in(body)
        if isinstance(target, ScopeHandle):
            state = self.state_of(target, body)
            last = state.name.rpartition("/")[2]
            op_scope_name = (last or None) if request._auxiliary_name_scope else self._op_scope_in_force()
            if op_scope_name is not None:
                self._open_op_scope(op_scope_name, body)
            return _Meaning(op_scope_name, self._copy(state, request), state.original_name_scope, reuse, made)
        name = request._default_name if target is None else target
        if request._auxiliary_name_scope:
            op_scope_name = name if target is None or target else None
        else:
            op_scope_name = self._op_scope_in_force()
        original = name if op_scope_name is None else self._open_op_scope(op_scope_name, body)
        if target is None:
            name = self._unique(name, body)
        return _Meaning(op_scope_name, name, original, reuse, made)

    def _unique(self, default_name: str, body: Body | None) -> str:
        if not isinstance(default_name, str):
            raise _no_string("A scope's default name", default_name)
        scope = self.state.name
        if body is None:
            return self._counts.unique(scope, default_name)
        return body.take(("default name", scope, default_name), lambda: self._counts.unique(scope, default_name))

    def _op_scope_in_force(self) -> str:
        """The name that opens the op scope in force again: what is opened where no auxiliary one is wanted."""
        return self.op_scope + "/" if self.op_scope else ""

    def _copy(self, state: ScopeState, request: ScopeRequest) -> ScopeHandle:
        """A new scope object after a captured one, with what the request overrides."""
        state = state.but(reuse=request._reuse or state.reuse, constraint=None)
        return self._handle_class(self._overridden(state, request))

    @staticmethod
    def _overridden(state: ScopeState, request: ScopeRequest) -> ScopeState:
        overrides = request._overrides
        if "custom_getter" in overrides:
            getter = compose_getters(overrides["custom_getter"], state.custom_getter)
            overrides = {**overrides, "custom_getter": getter}
        return state.but(**overrides)

    def is_open(self, request: Any) -> bool:
        """Whether `request` has been entered in this run, and not been left."""
        return self._open_entry(request) is not None or bool(self._open_op_scopes.get(request))

    def _open_entry(self, request: Any) -> _Entry | None:
        """The last entry of `request` that is open."""
        entry: _Entry | None = self.innermost
        while entry is not None and entry.request is not request:
            entry = entry.below
        return entry

    def leave(self, request: ScopeRequest) -> None:
        """Leaves the last entry of `request`.

        Raises:
          ScopeExitError: if a scope opened later is still open, or this one never was. As in TF1 the variable scope
            then stays current, while its op scope has been put back.
        """
        entry = self.innermost
        if entry.request is not request:
            entry = self._open_entry(request)
            if entry is None:
                raise ScopeExitError(
                    "A variable_scope is left that is not open in this program.",
                    kind="nesting",
                    scope=self.state.name,
                    where=user_line(),
                    fix="use `with variable_scope(...):`",
                )
        if entry.before is not None:
            self.op_scope = entry.before
            entry.before = None  # once: TF1 does so also where the variable scope has to be left a second time
        if entry is not self.innermost:
            raise ScopeExitError(
                f"Improper nesting: scope '{entry.handle._made_with.name}' is left while '{self.state.name}', opened "
                "later, is open.",
                kind="nesting",
                scope=self.state.name,
                where=user_line(),
                fix="leave scopes in the reverse order of entry; `with` does",
            )
        shown = entry.shown
        if shown is not None:
            if self._shown[-1] is shown:
                self._shown.pop()
                shown.__exit__(None, None, None)
            else:
                self._close_shown(shown)
        entry.frame = None
        if entry.mark is None:
            self._counts.written.append((entry.handle._made_with.name,))
        else:
            self._counts.roll_back(entry.mark)
        below: Any = entry.below  # only the root has none
        self.innermost = below
        self.handle = below.handle
        self.state = below.handle._made_with
        if self.changed:
            self.look_again(below.body)

    def now_and_at_once_closed(
        self, name: str | None, default_name: str, custom_getter: Any, body: Body | None
    ) -> ScopeHandle:
        """The scope of a template with `create_scope_now_`: opened without any op scope, and left again.

        TF1 resets the dtype to float32 here, and inherits the rest.
        """
        name = name or self._unique(default_name, body)
        if not isinstance(name, str):
            raise _no_string("The name of a template's scope", name)
        outer = self.state
        full = join(outer.name, name)
        state = outer.but(
            name=full, prefix=full + "/" if full else "", dtype=FLOAT32, constraint=None, original_name_scope=name
        )
        if custom_getter is not None:
            state = state.but(custom_getter=compose_getters(custom_getter, outer.custom_getter))
        self._counts.written += [full, (full,)]
        return self._handle_class(state)


def _no_string(what: str, name: Any) -> BadTypeError:
    return BadTypeError(
        f"{what} is a string, not {short(name)}.", kind="bad_name_type", where=user_line(), fix="give a string"
    )


def compose_getters(inner: Any, outer: Any) -> Any:
    """One getter out of two scopes': the inner scope's is called first and calls outward."""
    if outer is None:
        return inner

    def both(getter: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return inner(lambda *a, **k: outer(getter, *a, **k), *args, **kwargs)

    return both
