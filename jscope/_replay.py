"""A program's calls answered as in its last run, as long as they are the same calls. Floor 2.

What the scope rules decide depends on the calls since the beginning of the run, and on nothing else. Most programs make
the same calls in each run, so the answers of one run, its *script*, are kept, and a later run is a *reading*: each call
is compared with the script and answered from it. At the first call that differs, the calls made so far are made again
on a store, by the rules and with this run's own arguments, and the run goes on from there as if there were no script.

Four calls are in scripts: entering and leaving a scope by a name, `get_variable`, and `lift`. With `next_key`, which
changes no scope, they are all that the classes here have; so any other call, whatever it is, ends the reading, and also
the recording of a script, since later answers might depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import CodeType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _rng
from ._arguments import is_importable
from ._errors import format_location, location_of, user_instruction
from ._scope_stack import Reuse, ScopeHandle, ScopeRequest, shown_name
from ._script import (
    END,
    ODD,
    Entered,
    Got,
    Left,
    Lifted,
    LiftedThere,
    Script,
    Step,
    is_given_again,
    is_plain,
    plain_collections,
    plain_shape,
    steps_from,
)
from ._sources import Leaves
from ._specs import VariableSpec
from ._store import Store

_blank = object.__new__  # quicker than a call of a class that has an __init__


class _Front:
    """Stands between a program and its store, and has the calls of scripts. Any other call is the last it hears of.

    Args:
      store: made for this run.

    Attributes:
      level: as of the store.
      step_aside: lets the program's calls go to the store from now on; whoever puts this in front sets it, and
      look: gives the level of the call in progress.
      is_aside: whether it has stepped aside.
    """

    __slots__ = ("_store", "is_aside", "level", "look", "step_aside")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.level = 0
        self.is_aside = False
        self.step_aside: Callable[[], None] = lambda: None
        self.look = lambda: self.level

    def off(self) -> Store:
        """Steps aside, in the middle of a call; returns the store, which knows all calls made so far."""
        self._give_way()
        self._store.level = self.level
        return self._store

    def _give_way(self) -> None:
        self.is_aside = True
        self.step_aside()

    def settle(self) -> None:
        """Called at the end of the run."""

    def is_open(self, request: Any) -> bool:
        """Whether a scope is open of which the store does not know."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.off(), name)


class Recording(_Front):
    """A run that may become a script.

    Args:
      store: made for this run.
      tree: where it has its values from.
      lifts: whether `lift` may be in the script.
    """

    __slots__ = ("_lifts", "_steps", "_tree")

    def __init__(self, store: Store, tree: Leaves, *, lifts: bool = True) -> None:
        super().__init__(store)
        self._tree = tree
        self._lifts = lifts
        self._steps: list[Step] = []

    def script(self) -> Script | None:
        """The script of this run, which has ended; None if it made calls that are in no script."""
        return None if self.is_aside else Script(self._steps, self._tree)

    def enter(self, request: ScopeRequest) -> ScopeHandle:
        asked = request._in_short
        if self.is_aside or asked is None:
            return self.off().enter(request)
        scopes = self._store.scopes
        before = scopes.op_scope
        handle = self._done(self._store.enter, request)
        request._in_short = None  # entered again, it is not what a request alike would be
        shown = shown_name(before, scopes.op_scope)
        self._steps.append(Entered(asked, shown, scopes.state, scopes.meaning_of(request)))
        return handle

    def leave(self, request: ScopeRequest) -> None:
        if self.is_aside:
            self.off().leave(request)
        else:
            self._done(self._store.leave, request)
            self._steps.append(Left())

    def get_variable(
        self,
        name: Any,
        shape: Any,
        dtype: Any,
        initializer: Any,
        regularizer: Any,
        trainable: bool | None,
        collections: Any,
        partitioner: Any,
        custom_getter: Any,
        constraint: Any,
        without_effect: Any,
    ) -> Any:
        more = initializer, regularizer, trainable, collections, partitioner, custom_getter, constraint, without_effect
        known, key = self._store.registry.by_key, self._store.scopes.state.prefix + name if type(name) is str else None
        is_known = key is not None and key in known
        size = plain_shape(shape)
        if (
            self.is_aside
            or key is None
            or size is ODD
            or (size is None and not is_known)
            or not isinstance(dtype, type(None) | type | np.dtype)
            or plain_collections(collections) is ODD
            or partitioner is not None
            or custom_getter is not None
            or not is_plain(initializer, regularizer, constraint)
            or not is_importable(type(initializer))  # made by the program, perhaps, and holds what it computes
            or not (trainable is None or trainable is True or trainable is False)
        ):
            return self.off().get_variable(name, shape, dtype, *more)
        value = self._done(self._store.get_variable, name, shape, dtype, *more)
        variable = known[key]
        leaf = self._leaf(key, value)
        if leaf is None or (dtype is not None and jnp.dtype(dtype) != variable.dtype):
            self.off()  # a dtype that JAX narrows is warned of each time
        else:
            given = size if size is None else type(shape)(size)
            asked = name, size, given, dtype, trainable, plain_collections(collections)
            self._steps.append(Got(*asked, type(initializer), leaf, not is_known))
        return value

    def lift(self, lifted: Lifted) -> tuple[Any, ...]:
        if self.is_aside or not self._lifts or not lifted.lasts:
            return self.off().lift(lifted)
        prefix = self._store.scopes.state.prefix
        values = self._done(self._store.lift, lifted)
        found = [self._leaf(prefix + name, value) for name, value in zip(lifted.names, values, strict=True)]
        leaves = tuple(leaf for leaf in found if leaf is not None)
        if len(leaves) < len(found):
            self.off()
        else:
            self._steps.append(LiftedThere(lifted, leaves))
        return values

    def next_key(self, name: str) -> Any:
        return self._store.next_key(name)

    def _done(self, call: Callable[..., Any], *args: Any) -> Any:
        self._store.level = self.level
        try:
            return call(*args)
        except BaseException:
            self.off()
            raise

    def _leaf(self, key: str, value: Any) -> int | None:
        """The place in the tree of a variable's value, if that is what it is."""
        leaf = self._tree.index.get(self._store.registry.by_key[key].name)
        return leaf if leaf is not None and self._tree.leaves[leaf] is value else None


_Place = tuple[CodeType, int] | None  # in the user's code

# What a call brings along that is in no step: the initializer, regularizer and constraint, if it makes a variable, and
# where it is. A call that finds one brings nothing that the rules ask for.
_Call = tuple[Any, Any, Any, _Place]


class Reading(_Front):
    """A run that follows a script.

    Args:
      store: made for this run; nothing has been done to it yet.
      script: of a run for arguments of the same kind.
      tree: the values; they fit the script.
    """

    __slots__ = ("_brought", "_first", "_handle_class", "_leaves", "_open", "_read_at", "_run", "_show", "_step")

    def __init__(self, store: Store, script: Script, tree: Leaves) -> None:
        super().__init__(store)
        self._first = self._step = script.first
        self._leaves = tree.leaves
        self._handle_class, self._show = store.scopes.handle_class, store.scopes.show
        self._run = store.scopes.run
        # The scope object that was given out, and what shows the scope in JAX's names. All go when the scope is left,
        # since what is kept for each call makes JAX's own work slower, too.
        self._open: list[tuple[ScopeRequest, ScopeHandle, Any]] = []
        self._brought: list[_Call] = []
        self._read_at: list[_Place] = []  # of the calls that find a variable, where the rules would note it

    def off(self) -> Store:
        self.level = self.look()  # before anything is changed: it may find that the call is not the program's
        return super().off()

    def _give_way(self) -> None:
        if not self.is_aside:
            done, self._step = list(steps_from(self._first, self._step)), END
            self._make_again(done)
        super()._give_way()

    def settle(self) -> None:
        """Ends the reading where scopes are open: the store is to know them."""
        if self._open:
            self._give_way()

    def _make_again(self, steps: Sequence[Any]) -> None:
        store, scopes = self._store, self._store.scopes
        brought, read_at = iter(self._brought), iter(self._read_at)
        is_open = dict(zip(_open_after(steps), self._open, strict=True))
        for request, _, _ in self._open:
            request._run = None  # it is entered for the first time, as far as the rules know
        inside: list[Any] = []
        for step in steps:
            if type(step) is Left:
                scopes.leave(inside.pop())
            elif type(step) is Entered:
                entry = is_open.get(step) or (_AskedAgain(*step.asked), scopes.handle_class(step.state), None)
                inside.append(entry[0])
                scopes.enter_again(*entry)
            elif type(step) is Got:
                initializer, regularizer, constraint, place = next(brought) if step.is_new else (None, None, None, None)
                # The step's shape and collections: the program may have changed its own lists since.
                asked = step.name, step.shape, step.dtype, initializer, regularizer, step.trainable, step.collections
                store.get_variable(*asked, constraint=constraint)
                variable = store.registry.by_key[scopes.state.prefix + step.name]
                if step.is_new:
                    variable.created_at = location_of(place)
                elif variable.used_at:
                    variable.used_at[-1] = location_of(next(read_at))
            else:
                store.lift(step.lifted, location_of(next(brought)[-1]))

    def enter(self, request: ScopeRequest) -> ScopeHandle:
        step = self._step
        if type(step) is not Entered or request._in_short != step.asked:
            return self.off().enter(request)
        self._step = step.next
        request._in_short = None  # entered again, an instance stays what it came to mean here: that is for the rules
        request._run, request._meaning = self._run, step.meaning
        handle, shown = _blank(self._handle_class), None
        handle._made_with = step.state
        if step.shown and self._show is not None:
            shown = self._show(step.shown)
            shown.__enter__()
        self._open.append((request, handle, shown))
        return handle

    def leave(self, request: ScopeRequest) -> None:
        step = self._step
        if type(step) is not Left or self._open[-1][0] is not request:
            self.off().leave(request)
            return
        self._step = step.next
        shown = self._open.pop()[2]
        if shown is not None:
            shown.__exit__(None, None, None)

    def get_variable(
        self,
        name: Any,
        shape: Any,
        dtype: Any,
        initializer: Any,
        regularizer: Any,
        trainable: bool | None,
        collections: Any,
        partitioner: Any,
        custom_getter: Any,
        constraint: Any,
        without_effect: Any,
    ) -> Any:
        step = self._step
        if (
            type(step) is not Got
            or type(name) is not str
            or name != step.name
            or type(initializer) is not step.initializer_type
            or dtype is not step.dtype
            or trainable is not step.trainable
            or (not is_given_again(shape, step.given) and plain_shape(shape) != step.shape)
            or (regularizer is not None and not callable(regularizer))
            or (collections is not step.collections and plain_collections(collections) != step.collections)
            or partitioner is not None
            or custom_getter is not None
            or (constraint is not None and not callable(constraint))
        ):
            more = partitioner, custom_getter, constraint, without_effect
            return self.off().get_variable(name, shape, dtype, initializer, regularizer, trainable, collections, *more)
        self._step = step.next
        if step.is_new:
            self._brought.append((initializer, regularizer, constraint, user_instruction()))
        return self._leaves[step.leaf]

    def lift(self, lifted: Lifted) -> tuple[Any, ...]:
        step = self._step
        if type(step) is not LiftedThere or step.lifted is not lifted:
            return self.off().lift(lifted)
        self._step = step.next
        self._brought.append((None, None, None, user_instruction()))
        return tuple([self._leaves[leaf] for leaf in step.leaves])

    def next_key(self, name: str) -> Any:
        if self.is_aside:
            return self.off().next_key(name)
        return self._store.keys.next(self._open[-1][1]._made_with.name if self._open else "", name)

    def is_open(self, request: Any) -> bool:
        return any(opened is request for opened, _, _ in self._open)


class Declaring(Reading):
    """A reading that finds out what the program declares, with this run's own initializers, lines and so on.

    Args:
      store, script, tree: as of a reading; the tree is of placeholders.
      alike: what `script.alike` gave.
      key: a key of the kind that initializers are called with.
    """

    __slots__ = ("_alike", "_key", "_types")

    def __init__(
        self, store: Store, script: Script, tree: Leaves, alike: Sequence[VariableSpec], key: jax.Array
    ) -> None:
        super().__init__(store, script, tree)
        self._alike = alike
        self._types = tree.types
        self._key = key

    def get_variable(
        self,
        name: Any,
        shape: Any,
        dtype: Any,
        initializer: Any,
        regularizer: Any,
        trainable: bool | None,
        collections: Any,
        partitioner: Any,
        custom_getter: Any,
        constraint: Any,
        without_effect: Any,
    ) -> Any:
        more = initializer, regularizer, trainable, collections, partitioner, custom_getter, constraint, without_effect
        step: Any = self._step
        value = super().get_variable(name, shape, dtype, *more)
        if self.is_aside:
            return value
        if not step.is_new:
            self._read_at.append(user_instruction())
        elif initializer is not None and not self._is_good(initializer, step.leaf):
            # Not one of the calls made so far: the rules say what is wrong with it.
            self._step = step
            self._brought.pop()
            return self.off().get_variable(name, shape, dtype, *more)
        return value

    def _is_good(self, initializer: Any, leaf: int) -> bool:
        """Whether the initializer is known to give what is asked. One that may be asked once only is for the rules."""
        type_ = self._types[leaf]
        try:
            return _rng.check_by_value(initializer, type_.shape, type_.dtype, self._key)
        except Exception:
            return False

    def specs(self) -> list[VariableSpec]:
        """All declarations in order, at the end of the run."""
        if self.is_aside:
            return self._store.specs()
        reads: dict[int, list[str]] = {}
        made: list[tuple[VariableSpec, _Call, list[str]]] = []
        alike, brought, read_at = iter(self._alike), iter(self._brought), iter(self._read_at)
        for step in steps_from(self._first, self._step):
            if type(step) is not Got:
                continue
            if step.is_new:
                made.append((next(alike), next(brought), reads.setdefault(step.leaf, [])))
            else:
                reads[step.leaf].append(format_location(location_of(next(read_at))))
        return [_declared_again(spec, *call, used) for spec, call, used in made]


def _open_after(steps: Iterable[Any]) -> list[Entered]:
    """The entries among these steps after which no leaving comes, the outermost first."""
    entered: list[Entered] = []
    for step in steps:
        if type(step) is Entered:
            entered.append(step)
        elif type(step) is Left:
            entered.pop()
    return entered


class _AskedAgain:
    """A request that was answered and is over, as far as a script holds it."""

    def __init__(self, name: str, is_default: bool, reuse: Reuse | None, auxiliary_name_scope: bool) -> None:
        self._name_or_scope = None if is_default else name
        self._default_name = name if is_default else None
        self._reuse = reuse
        self._auxiliary_name_scope = auxiliary_name_scope
        self._overrides: dict[str, Any] = {}
        self._in_short: tuple[str, bool, Reuse | None, bool] | None = None
        self._run: object = None
        self._meaning: Any = None


def _declared_again(
    spec: VariableSpec, initializer: Any, regularizer: Any, constraint: Any, place: Any, used_at: list[str]
) -> VariableSpec:
    # Not dataclasses.replace, which takes as long as all that a reading does besides.
    return VariableSpec(
        spec.name,
        spec.key,
        spec.shape,
        spec.dtype,
        spec.initializer if initializer is None else initializer,
        spec.trainable,
        spec.collections,
        regularizer,
        constraint,
        None,
        format_location(location_of(place)),
        tuple(used_at),
    )
