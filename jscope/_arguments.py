"""The arguments of a program, taken apart into arrays and everything else. Floor 1."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import Any

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
        self._leaves, self._structure = jax.tree.flatten((args, kwargs))

    @property
    def arrays(self) -> list[Any]:
        """The JAX and NumPy arrays and `ShapeDtypeStruct`s among the leaves."""
        return [leaf for leaf in self._leaves if _is_array(leaf)]

    def filled(self, arrays: list[Any] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs), with `arrays` in the place of theirs."""
        leaves = self._leaves
        if arrays is not None:
            rest = iter(arrays)
            leaves = [next(rest) if _is_array(leaf) else leaf for leaf in leaves]
        return jax.tree.unflatten(self._structure, leaves)

    def kind(self, *, plain: bool) -> Hashable | None:
        """Equal for arguments with which JAX, set as it is now, traces a program alike; None where that can't be told.

        Args:
          plain: whether the answer may be kept for long: only values that can never change count as equal, and what
            it holds lives on in any case.
        """
        config: Any = jax.config
        # Without jit no loop is traced, and what is assigned in its body is assigned outside all transforms.
        kinds: list[Hashable] = [self._structure, config.jax_disable_jit, config.jax_enable_x64]
        for leaf in self._leaves:
            if type(leaf) in _PLAIN:
                kinds.append((type(leaf), leaf))
            elif isinstance(leaf, float):
                kinds.append((float, leaf.hex()))  # tells 0.0 from -0.0, and finds nan again
            elif _is_array(leaf):
                array = jax.typeof(leaf) if isinstance(leaf, jax.Array) else leaf  # a tracer's attributes are slow
                kinds.append((array.shape, array.dtype, getattr(array, "weak_type", False)))
            elif not plain:
                kinds.append((type(leaf), leaf))
            else:
                return None
        kind = tuple(kinds)
        try:
            hash(kind)
        except TypeError:
            return None
        return kind if not plain or _is_lasting(self._structure) else None


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def is_importable(thing: Any) -> bool:
    """Whether a class or function is what its module has under its name, and so lives on, whoever keeps it."""
    if getattr(thing, "__module__", None) == "builtins":  # the types of None and of functions have no name there
        return True
    found: Any = sys.modules.get(getattr(thing, "__module__", None) or "")
    for name in getattr(thing, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found is not None and found is thing


class ByKind(dict[Hashable, Any]):
    """What is known of a program for arguments of each kind, in a size that does not grow without bounds."""

    _MOST = 64

    @property
    def is_full(self) -> bool:
        """Whether what is kept for one kind more drives out the rest."""
        return len(self) >= self._MOST

    def keep(self, kind: Hashable | None, known: Any) -> Any:
        """Notes `known`, unless the kind can't be told, and returns it."""
        if kind is not None:
            if self.is_full and kind not in self:
                self.clear()
            self[kind] = known
        return known


_lasting = ByKind()  # the structures found to be so


def _is_lasting(structure: Any) -> bool:
    """Whether the static parts of a pytree are plain: some types have functions there, which may hold tracers."""
    return structure in _lasting or (_lasts(structure) and _lasting.keep(structure, True))


def _lasts(structure: Any) -> bool:
    node = structure.node_data()
    if node is None:  # a leaf
        return True
    made, static = node
    return is_importable(made) and _is_plain(static) and all(map(_lasts, structure.children()))


def _is_plain(static: Any) -> bool:
    if type(static) is tuple or type(static) is list:  # a dict's keys are in a list
        return all(map(_is_plain, static))
    return type(static) in _PLAIN or isinstance(static, float) or is_importable(static)
