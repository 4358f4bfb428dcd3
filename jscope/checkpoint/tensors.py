"""What each format gives: arrays by name, each of which can be read, and what was left out."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

Index = tuple[slice, ...]  # along each dimension from where to where, step by step


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array in a checkpoint.

    Attributes:
      shape, dtype: what it is.
      read: reads it; its argument is whether the checksum is compared.
      read_part: reads a part of it, without a checksum; None where all has to be read for that.
      has_checksum: whether there is one to compare.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[bool], np.ndarray]
    read_part: Callable[[Index], np.ndarray] | None = None
    has_checksum: bool = True

    def part(self, index: Index, checked: bool = True) -> np.ndarray:
        """The part of it: a slice from start to stop along each dimension. A checksum is compared where all is read."""
        if self.is_whole(index) or self.read_part is None:
            return np.asarray(self.read(checked)[index])
        return self.read_part(index)

    def is_whole(self, index: Index) -> bool:
        """Whether that part is all of it."""
        return all((along.start, along.stop) == (0, size) for along, size in zip(index, self.shape, strict=True))


class Tensors(Mapping[str, Tensor]):
    """Arrays by name. A `Tensor` is made when it is asked for: of a file of many names little more is kept than these.

    Args:
      names: the names, sorted, each once.
      tensor: gives the array whose name is at this place among the names.
    """

    def __init__(self, names: Sequence[str], tensor: Callable[[int], Tensor]) -> None:
        self.names = names
        self._tensor = tensor

    def __getitem__(self, name: str) -> Tensor:
        place = self._place(name)
        if place is None:
            raise KeyError(name)
        return self._tensor(place)

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
      tensors: the arrays by name.
      skipped: why other entries are none, by name.
      metadata: what else the file says, texts by name.
    """

    path: str
    tensors: Tensors
    skipped: dict[str, str]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
