"""The arguments of a program, taken apart into arrays and everything else. Floor 1."""

from __future__ import annotations

import array
import collections
import copy
import functools
import inspect
import itertools
import queue
import random
import sys
import types
from collections.abc import Callable, Hashable
from inspect import Parameter
from typing import Any, NamedTuple

import jax
import numpy as np

# Values of these types never change, and equal ones of one type are the same to any program.
_PLAIN = (type(None), bool, int, str, bytes, np.dtype)


class Arguments:
    """Positional and keyword arguments as JAX sees them.

    Args:
      args, kwargs: as the program is called with them. Dicts come back in JAX's order (sorted by key), in every mode.
    """

    __slots__ = ("_leaves", "_structure")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # JAX warns of iterators that it is not told to leave whole.
        is_leaf = _is_iterator if any(map(_is_iterator, (*args, *kwargs.values()))) else None
        self._leaves, self._structure = jax.tree.flatten((args, kwargs), is_leaf)

    @property
    def arrays(self) -> list[Any]:
        """The JAX and NumPy arrays and `ShapeDtypeStruct`s among the leaves, if JAX has their dtype."""
        return [leaf for leaf in self._leaves if _is_array(leaf)]

    def filled(self, arrays: list[Any] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs), with `arrays` in the place of theirs."""
        leaves = self._leaves
        if arrays is not None:
            rest = iter(arrays)
            leaves = [next(rest) if _is_array(leaf) else leaf for leaf in leaves]
        return jax.tree.unflatten(self._structure, leaves)

    def spare(self) -> Arguments:
        """The same with copies of what a program may take things out of, for a run that only finds something out."""
        other: Arguments = object.__new__(Arguments)
        other._structure = self._structure
        other._leaves = [copy.copy(leaf) if isinstance(leaf, _TAKEN_FROM) else leaf for leaf in self._leaves]
        return other

    def used_up(self, program: Any) -> str:
        """What gives something else each time it is asked, as iterators do, and where it is; `""` if nothing does."""
        for holder, held in (("among its arguments", self._leaves), ("that it holds", [program])):
            found = next((found for one in held if (found := _giving(one)) is not None), None)
            if found is not None:
                return f"the {type(found).__name__} {holder}"
        return ""

    def kind(self) -> Hashable | None:
        """Equal for arguments with which JAX, set as it is now, traces a program alike; None where that can't be told.

        Only values that can never change count, so the answer may be kept.
        """
        try:
            kind = (
                tuple(getattr(jax.config, name) for name in _SETTINGS),
                jax.sharding.get_abstract_mesh(),
                _alike_structure(self._structure),
                *map(_alike, self._leaves),
            )
            hash(kind)
        except (_UnlikeAnyError, TypeError):
            return None
        return kind


# JAX's settings on which it may depend how a program is traced. Without jit, for one, no loop is traced, and what is
# assigned in its body is assigned outside all transforms.
_SETTINGS = (
    "jax_disable_jit",
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_threefry_partitionable",
    "jax_debug_nans",
    "jax_debug_infs",
)


class _UnlikeAnyError(Exception):
    """A value of which it can't be told whether another one is the same to any program."""


def _alike(value: Any) -> Hashable:
    """Equal only for values that are the same to any program that JAX traces; raises where that can't be told."""
    if type(value) in _PLAIN:
        return type(value), value  # the type tells 1 from True and from 1.0
    if type(value) is float:
        return float, value.hex()  # tells 0.0 from -0.0, and finds nan again
    if _is_array(value):
        type_: Any = jax.typeof(value) if isinstance(value, jax.Array) else value  # a tracer's attributes are slow
        sharding = getattr(type_, "sharding", None)
        if isinstance(sharding, jax.sharding.NamedSharding) and not sharding.mesh.axis_names:
            sharding = None
        return jax.Array, type_.shape, type_.dtype, getattr(type_, "weak_type", False), sharding
    if isinstance(value, np.generic):
        return type(value), value.tobytes()
    if type(value) in (tuple, list):
        return type(value), *map(_alike, value)
    if _is_function(value):
        return type(value), value
    raise _UnlikeAnyError


def _is_function(value: Any) -> bool:
    """Whether this is a function that lives on, and stays as it is: nobody has set an attribute of it.

    Attributes of classes are often set, and those of an object of the user's class may be.
    """
    if isinstance(value, type) or not is_importable(value):
        return False
    if value.__module__.partition(".")[0] in ("jax", "numpy"):
        return True
    return isinstance(value, _FUNCTIONS) and _SET_BY_JIT.issuperset(getattr(value, "__dict__", ()))


_JITTED = jax.jit(lambda: None)
_FUNCTIONS = types.FunctionType, types.BuiltinFunctionType, type(_JITTED)
_SET_BY_JIT = frozenset(vars(_JITTED))  # among it all that functools.wraps sets


def _alike_structure(structure: Any) -> Hashable:
    """The same for the structure of a pytree, whose equality takes True for 1."""
    node = structure.node_data()
    if node is None:
        return "leaf"
    made, static = node
    if not is_importable(made):
        raise _UnlikeAnyError
    return made, _alike(static), *map(_alike_structure, structure.children())


# Lists and dicts are taken apart into leaves, and each run is given its own.
_TAKEN_FROM = collections.deque, set, bytearray, array.array

_GIVING = np.random.Generator, np.random.RandomState, random.Random, queue.Queue, queue.SimpleQueue


def _giving(value: Any, depth: int = 3) -> Any:
    """What gives something else each time: the value, or what it asks if it is a method, a partial or a function."""
    if _is_iterator(value) or isinstance(value, _GIVING):
        return value
    held = []
    if isinstance(value, types.MethodType | types.BuiltinMethodType | types.MethodWrapperType):
        held = [value.__self__]
    elif isinstance(value, functools.partial):
        held = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        held += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        # Of globals iterators alone; a counter is not used up, and a library may have one for its own purposes.
        named = map(value.__globals__.get, value.__code__.co_names)
        held += [one for one in named if _is_iterator(one) and not isinstance(one, itertools.count)]
    return next((found for inner in held if depth and (found := _giving(inner, depth - 1)) is not None), None)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_iterator(leaf: Any) -> bool:
    return hasattr(type(leaf), "__next__")


def _is_array(leaf: Any) -> bool:
    """Whether JAX can have it, or an abstract one like it. An array of strings, objects or dates it can't."""
    return isinstance(leaf, jax.Array) or (
        isinstance(leaf, np.ndarray | jax.ShapeDtypeStruct)
        and (not isinstance(leaf.dtype, np.dtype) or _is_known_to_jax(leaf.dtype))  # else a random key
    )


@functools.lru_cache(maxsize=1 << 8)
def _is_known_to_jax(dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "T":  # JAX takes NumPy's new strings until it has to do something with them
        return False
    try:
        jax.typeof(np.zeros((), dtype))
    except TypeError:
        return False
    return True


class Argument(NamedTuple):
    """One argument of a program.

    Attributes:
      path: as JAX names it: `x`, `args[1]`, `kwargs['training']`.
      number: its place where a key or tree comes first, as in `apply`; None if it is given by name.
      name: by which it can be given; None if that goes by position only.
      value: the argument.
    """

    path: str
    number: int | None
    name: str | None
    value: Any


def each_argument(
    signature: inspect.Signature, before: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Argument]:
    """The program's arguments in a call of a member, whose signature has `before` parameters before the program's."""
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    by_position = [name for name, kind in kinds.items() if kind <= Parameter.POSITIONAL_OR_KEYWORD][before:]
    rest = {kind: name for name, kind in kinds.items()}
    found = []
    for index, value in enumerate(args):
        is_own = index < len(by_position)
        path = by_position[index] if is_own else f"{rest.get(Parameter.VAR_POSITIONAL)}[{index - len(by_position)}]"
        name = path if kinds.get(path) is Parameter.POSITIONAL_OR_KEYWORD else None
        found.append(Argument(path, 1 + index, name, value))
    for name, value in kwargs.items():
        is_own = kinds.get(name) in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        path = name if is_own else f"{rest.get(Parameter.VAR_KEYWORD)}[{name!r}]"
        found.append(Argument(path, None, name, value))
    return found


def parameters_for(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[str], bool]:
    """(names of the parameters, whether they take such a call); `([], True)` where that can't be told."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return [], True
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return list(signature.parameters), False
    return list(signature.parameters), True


def is_importable(thing: Any) -> bool:
    """Whether a class or function is what its module has under its name, and so lives on, whoever keeps it."""
    if getattr(thing, "__module__", None) == "builtins":  # the types of None and of functions have no name there
        return True
    found: Any = sys.modules.get(getattr(thing, "__module__", None) or "")
    for name in getattr(thing, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found is not None and found is thing
