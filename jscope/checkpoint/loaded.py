"""What `open`, `load_tf` and `list_tf` give: mappings that read no more than what is asked for."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

import jscope as js
from jscope._support import format_bytes, near, printable, shortened, shown, table_lines

from .faults import user_line
from .progress import bar
from .tensors import Contents, Tensor

_LONGEST = 500  # characters of a name in a table
_MOST_ROWS = 10_000  # of a table: nobody reads more, and `python -m jscope ls` prints all


class _Named(Mapping[str, Any]):
    """Full names, sorted, and what was left out."""

    __slots__ = ("_contents",)

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    @property
    def path(self) -> str:
        """The prefix of the checkpoint, or its file; that which was found where a directory was given."""
        return self._contents.path

    @property
    def skipped(self) -> dict[str, str]:
        """Entries that are no arrays of numbers, by name, and why each is left out."""
        return dict(self._contents.skipped)

    @property
    def metadata(self) -> dict[str, str]:
        """Texts by name that `save` was given; other formats have none."""
        return dict(self._contents.metadata)

    def __iter__(self) -> Iterator[str]:
        return iter(self._contents.tensors)

    def __len__(self) -> int:
        return len(self._contents.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._contents.tensors

    def __eq__(self, other: object) -> bool:
        """Whether all names and arrays are the same, as of `Params`. Two arrays are read at a time."""
        if not isinstance(other, _Named):
            return js.Params(self) == other if isinstance(other, Mapping) else NotImplemented
        if type(other) is not type(self) or list(self) != list(other):
            return False
        here, there = self._contents.tensors, other._contents.tensors
        same = all((here[name].shape, here[name].dtype) == (there[name].shape, there[name].dtype) for name in self)
        return same and all(js.Params({"array": self[name]}) == {"array": other[name]} for name in self)

    __hash__ = None  # type: ignore[assignment]  # as a dict and `Params`

    def _tensor(self, name: str) -> Tensor:
        tensors = self._contents.tensors
        if name in tensors:
            return tensors[name]
        why = self._contents.skipped.get(name)
        name = str(name)
        what = f"{shown(name)} {why}, which is left out." if why else f"There is no array {shown(name)} in {self.path}."
        raise js.UnknownNameError(
            what,
            kind="unknown_name",
            where=user_line(),
            exists=f"{len(self)} arrays",
            near=lambda: near(name, tensors),
            fix="use one of its names; print(checkpoint) shows them",
        )

    def __repr__(self) -> str:
        size = sum(bytes_of_spec(tensor) for tensor in self._contents.tensors.values())
        skipped = f", {len(self._contents.skipped)} skipped" if self._contents.skipped else ""
        return f"{type(self).__name__}({self.path!r}, {len(self)} arrays, {format_bytes(size)}{skipped})"

    def __str__(self) -> str:
        rows = []
        for name in itertools.islice(self, _MOST_ROWS):
            tensor = self._contents.tensors[name]
            rows.append(
                (shortened(name, _LONGEST), tensor.dtype.name, str(tensor.shape), format_bytes(bytes_of_spec(tensor)))
            )
        lines = [repr(self), *table_lines(("name", "dtype", "shape", "bytes"), lambda: rows)]
        lines += [f"and {len(self) - _MOST_ROWS} more"] * (len(self) > _MOST_ROWS)
        skipped = sorted(self._contents.skipped)
        lines += [f"skipped: {shown(name)} {self._contents.skipped[name]}" for name in skipped[:_MOST_ROWS]]
        return "\n".join(lines)


class Checkpoint(_Named):
    """The arrays of a checkpoint by name: flat, immutable, and each read when it is asked for.

    `open` and `load_tf` make it. `checkpoint["tower/kernel"]` reads that array into memory of its own, and again each
    time; `js.Params(checkpoint)` and `checkpoint.read()` read all of them. The file stays open as long as this object
    lives, so that all arrays are of one save, also where another save has put a new file in its place. Where somebody
    writes to the file, or a checkpoint of more than 64 data files is replaced, reading ends in a `CheckpointError`.

    Attributes:
      path: the prefix of the checkpoint, or its file.
      skipped: entries that are no arrays of numbers, by name, and why each is left out.
      metadata: texts by name that `save` was given; other formats have none.
    """

    __slots__ = ("_verify",)

    def __init__(self, contents: Contents, verify: bool) -> None:
        super().__init__(contents)
        self._verify = verify

    @property
    def verifies(self) -> bool:
        """Whether the checksum of each array is compared as it is read."""
        return self._verify

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensor(name).read(self._verify)

    def read(self, *, progress: bool | None = None) -> js.Params:
        """All arrays, as a tree.

        Args:
          progress: whether a bar shows how far it is. None: where it takes long enough to be worth one, standard error
            is a terminal and the extra `jax-scope[checkpoint]` is installed.
        """
        return js.Params(read_named(self, self, progress=progress))

    def listing(self) -> CheckpointList:
        """Shapes and dtypes in place of arrays."""
        return CheckpointList(self._contents)


class CheckpointList(_Named):
    """Shape and dtype of each array in a checkpoint, as `jax.ShapeDtypeStruct`, by name. `list_tf` makes it.

    `str` of it is a table.

    Attributes:
      path: the prefix of the checkpoint, or its file.
      skipped: entries that are no arrays of numbers, by name, and why each is left out.
      metadata: texts by name that `save` was given; other formats have none.
    """

    __slots__ = ()

    def __getitem__(self, name: str) -> jax.ShapeDtypeStruct:
        tensor = self._tensor(name)
        return jax.ShapeDtypeStruct(tensor.shape, tensor.dtype)


def tensor_of(checkpoint: Checkpoint | CheckpointList, name: str) -> Tensor:
    """An array that is not read yet."""
    return checkpoint._tensor(name)


def own_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Texts that jscope put into the file for itself, by name."""
    return checkpoint._contents.own


def read_named(checkpoint: Checkpoint, names: Iterable[str], *, progress: bool | None = None) -> dict[str, Any]:
    """The arrays of these names, read with a bar."""
    listing, names = checkpoint.listing(), list(names)
    total = sum(bytes_of_spec(listing[name]) for name in names)
    with bar(f"reading {printable(os.path.basename(checkpoint.path))}", total, progress) as advance:
        read = {}
        for name in names:
            read[name] = checkpoint[name]
            advance(read[name].nbytes)
    return read


def bytes_of_spec(tensor: Any) -> int:
    """How many an array of that shape and dtype takes."""
    return math.prod(tensor.shape) * tensor.dtype.itemsize
