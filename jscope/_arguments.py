"""The arguments of a program, taken apart into arrays and everything else. Floor 1."""

from __future__ import annotations

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

    Attributes:
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
          plain: whether only values that can never change count as equal, so that the answer may be kept for long.
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
        return kind


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


class ByKind(dict[Hashable, Any]):
    """What is known of a program for arguments of each kind, in a size that does not grow without bounds."""

    _MOST = 64

    def keep(self, kind: Hashable | None, known: Any) -> Any:
        """Notes `known`, unless the kind can't be told, and returns it."""
        if kind is not None:
            if len(self) >= self._MOST:
                self.clear()
            self[kind] = known
        return known
