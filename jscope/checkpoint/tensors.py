"""What each format gives: arrays by name, each of which can be read, and what was left out."""

from __future__ import annotations

import dataclasses
import functools
import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

Index = tuple[slice, ...]  # along each dimension from where to where, step by step


MOST_DIMENSIONS = 32  # of a numpy array, in its first major version
_MOST_NUMBERS = 1 << 58
_ALIGNED = 64  # bytes; JAX takes over such memory on a CPU, and copies other


def can_be_read(shape: Sequence[int]) -> bool:
    """Whether a reader takes an array of that shape, so that a writer may write it."""
    # Also where one dimension is 0, numpy multiplies the others.
    return len(shape) <= MOST_DIMENSIONS and math.prod(length or 1 for length in shape) <= _MOST_NUMBERS


def empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """As `numpy.empty`, in memory that `jax.device_put` need not copy on a CPU."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNED - 1, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    return memory[start : start + size].view(dtype).reshape(shape)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array in a checkpoint.

    Attributes:
      shape, dtype: what it is.
      read: reads it; its argument is whether the checksum is compared.
      read_part: reads a part of it, without a checksum; None where all has to be read for that.
      has_checksum: whether there is one to compare.
      is_of_more: whether the checksum is of more than this: then `read` reads more of the file, to compare it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[bool], np.ndarray]
    read_part: Callable[[Index], np.ndarray] | None = None
    has_checksum: bool = True
    is_of_more: bool = False

    def part(self, index: Index) -> np.ndarray:
        """The part of it: a slice from start to stop along each dimension.

        A checksum is compared where nothing more has to be read for that.
        """
        if self.read_part is None or (self.is_whole(index) and not self.is_of_more):
            return np.asarray(self.read(True)[index])
        return self.read_part(index)

    def is_whole(self, index: Index) -> bool:
        """Whether that part is all of it."""
        return all((along.start, along.stop) == (0, size) for along, size in zip(index, self.shape, strict=True))


class Tensors(Mapping[str, Tensor]):
    """Arrays by name. A `Tensor` is made when it is asked for: of a file of very many names little is kept of each.

    Args:
      read: reads an array, given its name, its row, and whether the checksum is compared.
      read_part: reads a part of one, given its name, its row and the part; None where all has to be read for that.
      has_checksums: whether there are checksums to compare.

    Attributes:
      names: sorted.
    """

    def __init__(
        self,
        read: Callable[[str, int, bool], np.ndarray],
        read_part: Callable[[str, int, Index], np.ndarray] | None = None,
        has_checksums: bool = True,
    ) -> None:
        self.names: list[str] = []
        self._shapes: list[tuple[int, ...]] = []
        self._dtypes: list[np.dtype] = []
        self._rows = array("Q")
        self._read = read
        self._read_part = read_part
        self._has_checksums = has_checksums

    def add(self, name: str, shape: tuple[int, ...], dtype: np.dtype, row: int) -> None:
        """Adds an array whose name is greater than all so far; `row` is what the reader knows it by."""
        self.names.append(name)
        self._shapes.append(self._shapes[-1] if self._shapes and self._shapes[-1] == shape else shape)
        self._dtypes.append(dtype)
        self._rows.append(row)

    def __getitem__(self, name: str) -> Tensor:
        place = self._place(name)
        if place is None:
            raise KeyError(name)
        shape, dtype, row = self._shapes[place], self._dtypes[place], self._rows[place]
        part = None if self._read_part is None else functools.partial(self._read_part, name, row)
        return Tensor(shape, dtype, functools.partial(self._read, name, row), part, self._has_checksums)

    def __contains__(self, name: object) -> bool:
        return self._place(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def _place(self, name: object) -> int | None:
        if not isinstance(name, str):
            return None
        place = bisect_left(self.names, name)
        return place if place < len(self.names) and self.names[place] == name else None


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    Attributes:
      path: where, as users name it.
      tensors: the arrays by name, sorted.
      skipped: why other entries are none, by name.
      metadata: what else the file says, texts by name.
      own: what jscope put beside that, texts by name.
    """

    path: str
    tensors: Mapping[str, Tensor]
    skipped: dict[str, str]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    own: dict[str, str] = dataclasses.field(default_factory=dict)
