"""What each format gives: arrays by name, each of which can be read, and what was left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array in a checkpoint.

    Attributes:
      shape, dtype: what it is.
      read: reads it; its argument is whether the checksum is compared.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[bool], np.ndarray]


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
    tensors: dict[str, Tensor]
    skipped: dict[str, str]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
