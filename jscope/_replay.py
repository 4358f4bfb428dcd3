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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _rng
from ._errors import format_location, user_location
from ._scope_stack import ScopeHandle, ScopeRequest, shown_name
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
    is_plain,
    names_of,
    size_of,
    steps_from,
)
from ._sources import Leaves
from ._specs import VariableSpec
from ._store import Store
from ._variable import Variable


class _Front:
    """Stands between a program and its store, and has the calls of scripts. Any other call is the last it hears of.

    Args:
      store: made for this run.

    Attributes:
      level: as of the store.
      step_aside: lets the program's calls go to the store from now on; whoever puts this in front sets it.
      is_aside: whether it has stepped aside.
    """

    __slots__ = ("_store", "is_aside", "level", "step_aside")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.level = 0
        self.is_aside = False
        self.step_aside: Callable[[], None] = lambda: None

    def off(self) -> Store:
        """Steps aside; returns the store, which knows all calls made so far."""
        self.is_aside = True
        self.step_aside()
        self._store.level = self.level
        return self._store

    def settle(self) -> None:
        """Called at the end of the run."""

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
        asked = request.in_short
        if self.is_aside or asked is None:
            return self.off().enter(request)
        scopes = self._store.scopes
        before = scopes.op_scope
        handle = self._done(self._store.enter, request)
        self._steps.append(Entered(asked, shown_name(before, scopes.op_scope), scopes.state))
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
        size = size_of(shape)
        if (
            self.is_aside
            or key is None
            or size is ODD
            or (size is None and not is_known)
            or not isinstance(dtype, type(None) | type | np.dtype)
            or names_of(collections) is ODD
            or partitioner is not None
            or custom_getter is not None
            or not is_plain(initializer, regularizer, constraint)
            or "<locals>" in type(initializer).__qualname__  # made by the program, perhaps, and holds what it computes
        ):
            return self.off().get_variable(name, shape, dtype, *more)
        value = self._done(self._store.get_variable, name, shape, dtype, *more)
        variable = known[key]
        leaf = self._leaf(key, value)
        if leaf is None or (dtype is not None and jnp.dtype(dtype) != variable.dtype):
            self.off()  # a dtype that JAX narrows is warned of each time
        else:
            asked = name, size, dtype, trainable, names_of(collections)
            place = None if is_known else variable.created_at
            self._steps.append(Got(*asked, type(initializer), leaf, not is_known, place))
        return value

    def lift(self, lifted: Lifted, place: tuple[str, int] | None = None) -> tuple[Any, ...]:
        if self.is_aside or not self._lifts or not lifted.lasts:
            return self.off().lift(lifted, place)
        place = user_location()
        prefix = self._store.scopes.state.prefix
        values = self._done(self._store.lift, lifted, place)
        found = [self._leaf(prefix + name, value) for name, value in zip(lifted.names, values, strict=True)]
        leaves = tuple(leaf for leaf in found if leaf is not None)
        if len(leaves) < len(found):
            self.off()
        else:
            self._steps.append(LiftedThere(lifted, leaves, place))
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


class Reading(_Front):
    """A run that follows a script.

    Args:
      store: made for this run; nothing has been done to it yet.
      script: of a run for arguments of the same kind.
      tree: the values; they fit the script.
    """

    __slots__ = ("_entered", "_first", "_gets", "_leaves", "_new_handle", "_open", "_show", "_step")

    def __init__(self, store: Store, script: Script, tree: Leaves) -> None:
        super().__init__(store)
        self._first = self._step = script.first
        self._leaves = tree.leaves
        self._new_handle, self._show = store.scopes.new_handle, store.scopes.show
        self._entered: list[ScopeRequest] = []
        # The scope object that was given out, and what shows the scope in JAX's names. Both go when the scope is left,
        # since what is kept for each call makes JAX's own work slower, too.
        self._open: list[tuple[ScopeRequest, ScopeHandle, Any]] = []
        self._gets: list[tuple[Any, Any, Any]] = []  # initializer, regularizer and constraint

    def off(self) -> Store:
        if not self.is_aside:
            done, self._step = steps_from(self._first, self._step), END
            self._make_again(done)
        return super().off()

    def settle(self) -> None:
        """Ends the reading where scopes are open: the store is to know them."""
        if self._open:
            self.off()

    def _make_again(self, steps: Iterable[Any]) -> None:
        store, scopes = self._store, self._store.scopes
        entered, gets = iter(self._entered), enumerate(self._gets)
        given_out = {request: (handle, shown) for request, handle, shown in self._open}
        inside: list[ScopeRequest] = []
        for step in steps:
            if type(step) is Left:
                scopes.leave(inside.pop())
            elif type(step) is Entered:
                request = next(entered)
                inside.append(request)
                scopes.enter_again(request, *(given_out.get(request) or (scopes.new_handle(step.state), None)))
            elif type(step) is Got:
                number, (initializer, regularizer, constraint) = next(gets)
                # The step's shape and collections: the program may have changed its own lists since.
                asked = step.name, step.shape, step.dtype, initializer, regularizer, step.trainable, step.collections
                store.get_variable(*asked, constraint=constraint)
                self._set_place(store.registry.by_key[scopes.state.prefix + step.name], step, number)
            else:
                store.lift(step.lifted, step.place)

    def _set_place(self, variable: Variable, step: Got, number: int) -> None:
        """Says where the `number`-th call of `get_variable` came from, not where it is made again."""
        if step.is_new:
            variable.created_at = step.place

    def enter(self, request: ScopeRequest) -> ScopeHandle:
        step = self._step
        if type(step) is not Entered or request.in_short != step.asked:
            return self.off().enter(request)
        self._step = step.next
        self._entered.append(request)
        request.in_short = None  # entered again, an instance stays what it came to mean here: that is for the rules
        handle, shown = self._new_handle(step.state), None
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
            or type(initializer) is not step.kind
            or dtype is not step.dtype
            or trainable is not step.trainable
            or size_of(shape) != step.shape
            or (regularizer is not None and not callable(regularizer))
            or (collections is not step.collections and names_of(collections) != step.collections)
            or partitioner is not None
            or custom_getter is not None
            or (constraint is not None and not callable(constraint))
        ):
            more = partitioner, custom_getter, constraint, without_effect
            return self.off().get_variable(name, shape, dtype, initializer, regularizer, trainable, collections, *more)
        self._step = step.next
        self._gets.append((initializer, regularizer, constraint))
        return self._leaves[step.leaf]

    def lift(self, lifted: Lifted, place: tuple[str, int] | None = None) -> tuple[Any, ...]:
        step = self._step
        if type(step) is not LiftedThere or step.lifted is not lifted:
            return self.off().lift(lifted, place)
        self._step = step.next
        return tuple([self._leaves[leaf] for leaf in step.leaves])

    def next_key(self, name: str) -> Any:
        if self.is_aside:
            return self.off().next_key(name)
        return self._store.keys.next(self._open[-1][1]._made_with.name if self._open else "", name)


class Declaring(Reading):
    """A reading that finds out what the program declares, with this run's own initializers, lines and so on.

    Args:
      store, script, tree: as of a reading; the tree is of placeholders.
      alike: what `script.alike` gave.
      key: a key of the kind that initializers are called with.
    """

    __slots__ = ("_alike", "_key", "_places", "_types")

    def __init__(
        self, store: Store, script: Script, tree: Leaves, alike: Sequence[VariableSpec], key: jax.Array
    ) -> None:
        super().__init__(store, script, tree)
        self._alike = alike
        self._types = tree.types
        self._key = key
        self._places: list[tuple[str, int] | None] = []

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
        self._places.append(user_location())
        if step.is_new and initializer is not None:
            try:
                _rng.check_draw(initializer, step.shape, self._types[step.leaf].dtype, self._key)
            except Exception:
                self._step = step  # not one of the calls made so far: the rules say what is wrong with it
                return self.off().get_variable(name, shape, dtype, *more)
        return value

    def _set_place(self, variable: Variable, step: Got, number: int) -> None:
        if step.is_new:
            variable.created_at = self._places[number]
        else:
            variable.used_at[-1] = self._places[number]

    def specs(self) -> list[VariableSpec]:
        """All declarations in order, at the end of the run."""
        if self.is_aside:
            return self._store.specs()
        reads: dict[int, list[str]] = {}
        made: list[tuple[VariableSpec, tuple[Any, Any, Any], str, list[str]]] = []
        alike, gets, places = iter(self._alike), iter(self._gets), iter(self._places)
        for step in steps_from(self._first, self._step):
            if type(step) is Got:
                functions, place = next(gets), format_location(next(places))
                if step.is_new:
                    made.append((next(alike), functions, place, reads.setdefault(step.leaf, [])))
                else:
                    reads[step.leaf].append(place)
        return [_declared_again(spec, *functions, place, used) for spec, functions, place, used in made]


def _declared_again(
    spec: VariableSpec, initializer: Any, regularizer: Any, constraint: Any, created_at: str, used_at: list[str]
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
        created_at,
        tuple(used_at),
    )
