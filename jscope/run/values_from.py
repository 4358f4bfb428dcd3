"""Where the variables of a run get their values: nowhere (abstract), from initializers, or from a given tree. Floor 2.

The scope rules are the same over all three; only this differs between `specs`, `init` / `build` and `apply` / `bind`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .._callsite import located
from .._compat import trace_finder
from .._errors import ParamsMismatchError, add_place
from .._initial_values import Drawers, check_draw, drawer, name_words
from .._leaves import without_value
from .._mismatch import mismatch, mismatch_error
from .._names import near
from .._params import Params
from .._partitions import ExplicitTypes
from .._values import FLOAT32, FromProgram, InitialValue, as_initial_value, is_of_keys, is_traced
from ..initializers import FIT_FLOATS
from .record import Variable


def abstract_key() -> Any:
    """Shape and dtype of a key of JAX's default kind."""
    config: Any = jax.config
    return _abstract_key(config.jax_default_prng_impl)


@functools.cache
def _abstract_key(impl: str) -> Any:
    return jax.eval_shape(lambda: jax.random.key(0, impl=impl))


class Source(Protocol):
    """What a run asks when a variable is declared, or read in a trace that has no value of it yet.

    Attributes:
      makes_values: whether initial values are made: initializers run (at least abstractly), and a value is bound to the
        trace it was made in. Otherwise values are given, and good in every trace.
    """

    makes_values: bool

    def make(self, variable: Variable) -> Any:
        """The value of a variable, made in the current trace; raises what its initializer raises."""
        ...


class Abstract:
    """Placeholders of the right shape and dtype, for tracing: nobody computes with them.

    Args:
      key: a key of the kind that initializers are called with.
      drawers: told what will be drawn, if it will be.
      types: how variables are cut in their types, where they are.
    """

    makes_values = True

    def __init__(self, key: jax.Array, drawers: Drawers | None = None, types: ExplicitTypes | None = None) -> None:
        self._key = key
        self._types = types
        self._drawers = drawers
        self._find_trace = trace_finder()
        self._entry_trace = self._find_trace(())
        self._spare: dict[Any, list[Any]] = {}
        self._made: Counter[Any] = Counter()

    def make(self, variable: Variable) -> Any:
        """A placeholder, good in the current trace; raises what the initializer would raise."""
        initializer, shape, dtype = variable.initializer, variable.shape, variable.dtype
        is_sure = dtype is FLOAT32 and type(initializer) in FIT_FLOATS  # most are
        if not isinstance(initializer, InitialValue | FromProgram):
            traced = None if is_sure else check_draw(initializer, shape, dtype, self._key)
            if self._drawers is not None:
                if traced is None:
                    self._drawers.expect(initializer, shape, dtype)
                else:
                    self._drawers.expect_traced(variable.name, traced)
        if self._types is not None:
            return self._types.give(_placeholder(shape, dtype), variable)
        kind = shape, dtype
        spare = self._spare.get(kind)
        if spare:
            return spare.pop() if self._find_trace(()) is self._entry_trace else _placeholder(shape, dtype)
        if self._find_trace(()) is not self._entry_trace:
            return _placeholder(shape, dtype)
        # In the trace that the program is entered in, twice as many each time: an operation for each would take a third
        # of the run. This one gives as many results as it takes arguments, and nothing in JAX takes it apart.
        number = self._made[kind] = max(1, 2 * self._made[kind])
        one = _placeholder(shape, dtype)
        more = self._spare[kind] = jax.lax.optimization_barrier([one] * number) if number > 1 else [one]
        return more.pop()


def _placeholder(shape: tuple[int, ...], dtype: Any) -> Any:
    if not isinstance(dtype, np.dtype):  # random keys
        return jax.lax.empty(shape, dtype)
    # One primitive, unlike jnp.zeros; and, unlike lax.empty on JAX 0.10, one that vmap leaves alone.
    return jax.lax.broadcast_in_dim(np.zeros((), dtype), shape, ())


class Drawn:
    """Initial values, each from the root key and the variable's own name.

    Args:
      key: the root key.
      types: how variables are cut in their types, where they are.
    """

    makes_values = True

    def __init__(self, key: jax.Array, types: ExplicitTypes | None = None) -> None:
        self._key = key
        self._types = types
        # By the initializer's id, as in `Drawers`; it is kept alive beside it.
        self._drawers: dict[Any, tuple[Any, Callable[..., jax.Array]]] = {}

    def make(self, variable: Variable) -> Any:
        """The initial value, computed in the current trace."""
        initializer, shape, dtype = variable.initializer, variable.shape, variable.dtype
        kind = id(initializer), shape, dtype
        found = self._drawers.get(kind)
        if found is None and not isinstance(initializer, InitialValue | FromProgram):
            found = self._drawers[kind] = initializer, drawer(initializer, shape, dtype)
        if found is None:
            value = variable.spec().initial_value(self._key)
        else:
            value = found[1](self._key, name_words(variable.name))
        return value if self._types is None else self._types.give(value, variable)


class Given:
    """The leaves of a tree, checked against what the program declares.

    Args:
      params: the tree.
      all_faults: called at the first fault for the list of all of them, so that one error can name them together.

    Attributes:
      has_its_say: whether the tree has said more than the program knows: a shape, or that a variable is not there.
    """

    makes_values = False

    def __init__(self, params: Params, all_faults: Callable[[], list[str]] | None = None) -> None:
        self._params = params
        self._index = params._layout.index
        self._leaves = list(params._leaves)
        if len(set(map(id, self._leaves))) < len(self._leaves):
            self._leaves = _objects_of_their_own(self._leaves)
        self._types: list[Any] = []
        for index, leaf in enumerate(self._leaves):
            type_ = _array_type(leaf)
            self._types.append(type_)
            if type_ is not None and type_.weak_type and not without_value(leaf):
                # A variable is never weakly typed. Converted here, in the entry trace, where the value is good in all.
                self._leaves[index] = jnp.asarray(leaf, type_.dtype)
        self._all_faults = all_faults
        self.has_its_say = False

    def has(self, variables: Iterable[tuple[str, tuple[int, ...], Any]]) -> bool:
        """Whether the tree has arrays of JAX of these names, shapes and dtypes."""
        for name, shape, dtype in variables:
            index = self._index.get(name)
            type_ = None if index is None else self._types[index]
            if type_ is None or type_.shape != shape or type_.dtype != dtype:
                return False
        return True

    def make(self, variable: Variable) -> Any:
        """The leaf of that name, if it is as declared."""
        index = self._index.get(variable.name)
        if index is None:
            raise self._missing(variable)
        leaf, type_ = self._leaves[index], self._types[index]
        if (
            type_ is not None
            and type_.shape == variable.shape
            and type_.dtype == variable.dtype
            and (isinstance(leaf, jax.core.Tracer) or not leaf.is_deleted())
        ):
            return leaf
        if why := without_value(leaf):
            raise self._fault(variable.name, f" {why}")
        self.has_its_say = True
        if variable.shape is not None:
            fault = mismatch(leaf, variable.shape, variable.dtype)
            if fault:
                raise self._fault(variable.name, f": {fault}")
        return _array(leaf)

    def _missing(self, variable: Variable) -> ParamsMismatchError:
        # An initializer that fails made no variable in `init` either: it must fail here the same way, so that a program
        # that catches the error goes the same way.
        try:
            if variable.shape is None:
                jax.eval_shape(lambda: jnp.asarray(as_initial_value(variable.initializer())))
            elif callable(variable.initializer):
                check_draw(variable.initializer, variable.shape, variable.dtype, abstract_key())
        except Exception as error:
            add_place(error, f"the initial value of '{variable.name}', asked for at {located(variable.made_at)}")
            raise
        self.has_its_say = True
        close = near(variable.name, self._params.names)
        hint = f" (near: {', '.join(map(repr, close))})" if close else ""
        return self._fault(variable.name, f" is missing{hint}")

    def start(self, name: str) -> Any:
        """The leaf of that name as an array; None where the tree has none."""
        index = self._index.get(name)
        leaf = None if index is None else self._leaves[index]
        return None if leaf is None or without_value(leaf) else _array(leaf)

    def _fault(self, name: str, fault: str) -> ParamsMismatchError:
        """The error for a variable that does not fit, and all others that don't; each is listed once."""
        faults = self._all_faults() if self._all_faults is not None else []
        is_listed = any(line.startswith((f"'{name}' ", f"'{name}':")) for line in faults)
        return mismatch_error(faults if is_listed else [f"'{name}'{fault}", *faults])


def _array_type(leaf: Any) -> Any:
    """Shape, dtype and weakness of a `jax.Array`; None for anything else that may be in a tree."""
    if _on_host[type(leaf)]:
        return None
    try:
        type_ = jax.typeof(leaf)
    except TypeError:
        return None
    return type_ if isinstance(type_, jax.core.ShapedArray) else None


def _objects_of_their_own(leaves: list[Any]) -> list[Any]:
    """The same with another object for each array that stands under several names, as a tied or copied network has it.

    A program may say which variable it means by the array that it was given.
    """
    seen: set[int] = set()
    own = []
    for leaf in leaves:
        own.append(_again(leaf) if id(leaf) in seen else leaf)
        seen.add(id(leaf))
    return own


def _again(leaf: Any) -> Any:
    """Another array object; of concrete values, another one on the same memory."""
    if is_traced(leaf) or (isinstance(leaf, jax.Array) and is_of_keys(leaf.dtype)):
        return jnp.array(leaf, copy=True)
    if isinstance(leaf, jax.Array) and not leaf.is_deleted():
        parts = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts)
    return leaf  # JAX makes an array of each for itself


class _OnHost(dict[type, bool]):
    """Type -> whether it is one of those that JAX would make an array of. Kept, since each run asks for each leaf."""

    def __missing__(self, type_: type) -> bool:
        on_host = (np.ndarray, np.generic, bool, int, float, complex, jax.ShapeDtypeStruct)
        self[type_] = issubclass(type_, on_host)
        return self[type_]


_on_host = _OnHost()


def _array(leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array):
        return leaf
    # Concrete in whatever trace this is the first read, since later reads may come from another.
    with jax.ensure_compile_time_eval():
        return jnp.asarray(as_initial_value(leaf))
