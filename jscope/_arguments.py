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
      arrays: the JAX and NumPy arrays and `ShapeDtypeStruct`s among the leaves.
    """

    __slots__ = ("_is_array", "_leaves", "_structure", "arrays")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._leaves, self._structure = jax.tree.flatten((args, kwargs))
        self._is_array = [isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct) for leaf in self._leaves]
        self.arrays = [leaf for leaf, is_array in zip(self._leaves, self._is_array, strict=True) if is_array]

    def filled(self, arrays: list[Any] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs), with `arrays` in the place of theirs."""
        leaves = self._leaves
        if arrays is not None:
            rest = iter(arrays)
            leaves = [next(rest) if is_array else leaf for leaf, is_array in zip(leaves, self._is_array, strict=True)]
        return jax.tree.unflatten(self._structure, leaves)

    def kind(self, *, plain: bool) -> Hashable | None:
        """Equal for arguments with which JAX traces a program alike; None where that can't be told.

        Args:
          plain: whether only values that can never change count as equal, so that the answer may be kept for long.
        """
        kinds: list[Hashable] = [self._structure]
        for leaf, is_array in zip(self._leaves, self._is_array, strict=True):
            if is_array:
                kinds.append((leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)))
            elif isinstance(leaf, float):
                kinds.append((float, leaf.hex()))  # tells 0.0 from -0.0, and finds nan again
            elif type(leaf) in _PLAIN or not plain:
                kinds.append((type(leaf), leaf))
            else:
                return None
        try:
            hash(tuple(kinds))
        except TypeError:
            return None
        return tuple(kinds)
