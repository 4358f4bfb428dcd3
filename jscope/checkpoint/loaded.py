"""What `open`, `load_tf` and `list_tf` give: mappings that read no more than what is asked for."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

import jscope as js

from .faults import user_line
from .progress import bar
from .tensors import Contents


class _Named(Mapping[str, Any]):
    """Full names, sorted, and what was left out."""

    __slots__ = ("_contents", "_names")

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._names = tuple(sorted(contents.tensors))

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
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._contents.tensors

    def _tensor(self, name: str) -> Any:
        tensor = self._contents.tensors.get(name)
        if tensor is not None:
            return tensor
        why = self._contents.skipped.get(name)
        what = f"'{name}' {why}, which is left out." if why else f"There is no array {name!r} in {self.path}."
        raise js.UnknownNameError(
            what,
            kind="unknown_name",
            where=user_line(),
            exists=f"{len(self)} arrays",
            near=lambda: difflib.get_close_matches(str(name), self._names),
            fix="use one of its names; print(checkpoint) shows them",
        )

    def __repr__(self) -> str:
        size = sum(bytes_of_spec(tensor) for tensor in self._contents.tensors.values())
        skipped = f", {len(self._contents.skipped)} skipped" if self._contents.skipped else ""
        return f"{type(self).__name__}({self.path!r}, {len(self)} arrays, {format_bytes(size)}{skipped})"

    def __str__(self) -> str:
        rows = [("name", "dtype", "shape", "bytes")]
        for name in self._names:
            tensor = self._contents.tensors[name]
            rows.append((name, tensor.dtype.name, str(tensor.shape), format_bytes(bytes_of_spec(tensor))))
        skipped = [f"skipped: '{name}' {why}" for name, why in sorted(self._contents.skipped.items())]
        return "\n".join([repr(self), text_table(rows), *skipped])


class Checkpoint(_Named):
    """The arrays of a checkpoint by name: flat, immutable, and each read when it is asked for.

    `open` and `load_tf` make it. `checkpoint["tower/kernel"]` reads that array into memory of its own, and again each
    time; `js.Params(checkpoint)` and `checkpoint.read()` read all of them. Nothing stays open: where the files change
    in between, reading ends in a `CheckpointError`.

    Attributes:
      path: the prefix of the checkpoint, or its file.
      skipped: entries that are no arrays of numbers, by name, and why each is left out.
      metadata: texts by name that `save` was given; other formats have none.
    """

    __slots__ = ("_verify",)

    def __init__(self, contents: Contents, verify: bool) -> None:
        super().__init__(contents)
        self._verify = verify

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensor(name).read(self._verify)

    def read(self, *, progress: bool | None = None) -> js.Params:
        """All arrays, as a tree.

        Args:
          progress: whether a bar shows how far it is. None: where it takes long enough to be worth one, standard error
            is a terminal and the extra `jscope[checkpoint]` is installed.
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


def read_named(checkpoint: Checkpoint, names: Iterable[str], *, progress: bool | None = None) -> dict[str, Any]:
    """The arrays of these names, read with a bar."""
    listing = checkpoint.listing()
    sizes = {name: bytes_of_spec(listing[name]) for name in names}
    with bar(f"reading {os.path.basename(checkpoint.path)}", sum(sizes.values()), progress) as advance:
        read = {}
        for name, size in sizes.items():
            read[name] = checkpoint[name]
            advance(size)
    return read


def text_table(rows: list[tuple[str, ...]]) -> str:
    """Left-aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def bytes_of_spec(tensor: Any) -> int:
    """How many an array of that shape and dtype takes."""
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def format_bytes(count: float) -> str:
    """`1.5 MB`: decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
