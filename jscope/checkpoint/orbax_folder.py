"""Folders that orbax wrote, read by orbax: names, shapes and dtypes, and an array when it is asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

import jscope as js
from jscope._support import shown

from .faults import COPY_AGAIN, fault
from .files import File, absolute
from .tensors import Contents, Tensor

_TREE = "_METADATA"
_SIGNS = {_TREE, "_CHECKPOINT_METADATA", "manifest.ocdbt"}
_INSTALL = 'pip install "orbax-checkpoint"'


def is_orbax(names: Sequence[str]) -> bool:
    """Whether a folder of these files is one."""
    return not _SIGNS.isdisjoint(names)


def read_orbax(folder: str) -> Contents:
    """What such a folder holds.

    Raises:
      CheckpointError: if orbax is not installed, does not read it, or it has several trees in it.
    """
    place = absolute(_tree_in(folder))
    saved = File(os.path.join(place, _TREE))  # each save writes it anew
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        what = f"{folder} was written by orbax, and orbax is not installed."
        raise fault(what, kind="needs_extra", fix=_INSTALL) from None
    with _orbax_reads(folder), ocp.PyTreeCheckpointer() as checkpointer:
        metadata: Any = checkpointer.metadata(place).item_metadata
        if metadata is None:
            raise ValueError("it does not say what is in it")
        leaves, structure = jax.tree_util.tree_flatten_with_path(metadata.tree)
    found: dict[str, tuple[int, Any]] = {}
    skipped: dict[str, str] = {}
    for row, (path, leaf) in enumerate(leaves):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
        if name in found or name in skipped:
            raise fault(f"{folder} has two entries by the name {shown(name)}.", kind="damaged", fix=COPY_AGAIN)
        try:
            found[name] = row, (tuple(shape), np.dtype(dtype))  # type: ignore[arg-type]
        except TypeError:
            skipped[name] = "is no array of numbers"

    def read(row: int) -> np.ndarray:
        saved.check_unchanged()
        item = structure.unflatten([leaf if i == row else ocp.PLACEHOLDER for i, (_, leaf) in enumerate(leaves)])
        how = structure.unflatten([ocp.RestoreArgs(restore_type=np.ndarray) for _ in leaves])
        with _orbax_reads(folder), ocp.PyTreeCheckpointer() as checkpointer:
            restored = checkpointer.restore(place, args=ocp.args.PyTreeRestore(item=item, restore_args=how))
            array = np.asarray(structure.flatten_up_to(restored)[row])
        saved.check_unchanged()
        return array

    def tensor(name: str, row: int, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        def read_as_listed(checked: bool) -> np.ndarray:
            array = read(row)
            if (array.shape, array.dtype) != (shape, dtype):
                what = f"{folder} is damaged: {shown(name)} is {array.dtype} of shape {array.shape}, and listed as "
                raise fault(f"{what}{dtype} of shape {shape}.", kind="damaged", fix=COPY_AGAIN)
            return array

        return Tensor(shape, dtype, read_as_listed, has_checksum=False)

    tensors = {name: tensor(name, row, *kind) for name, (row, kind) in sorted(found.items())}
    return Contents(folder, tensors, skipped)


def latest_in(folder: str, names: Sequence[str]) -> str | None:
    """The name of the latest step of orbax among these folders in a folder, such as a `CheckpointManager` keeps."""
    for name in sorted(names, key=lambda name: (len(name), name), reverse=True):
        place = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if os.path.isdir(place) and is_orbax(os.listdir(place)):
                return name
    return None


def _tree_in(folder: str) -> str:
    """The folder itself, or the one tree that a `CheckpointManager` put in it."""
    if os.path.isfile(os.path.join(folder, _TREE)):
        return folder
    inner = [name for name in sorted(os.listdir(folder)) if os.path.isfile(os.path.join(folder, name, _TREE))]
    if len(inner) == 1:
        return os.path.join(folder, inner[0])
    what = f"{folder} was written by orbax, and has {len(inner)} trees in it."
    fix = f"restore it with what wrote it; else {COPY_AGAIN}"
    if inner:
        fix = f"give the path of one of them, such as {os.path.join(folder, inner[0])!r}"
    raise fault(what, kind="ambiguous" if inner else "foreign", exists=", ".join(map(shown, inner[:8])), fix=fix)


@contextlib.contextmanager
def _orbax_reads(folder: str) -> Iterator[None]:
    """Whatever orbax says of a folder is a fault of the checkpoint."""
    try:
        yield
    except js.JscopeError:
        raise
    except Exception as error:
        what = f"{folder} was written by orbax, which can't read it: {type(error).__name__}: {error!s:.300}"
        raise fault(what, kind="damaged", fix=COPY_AGAIN) from None
