"""Arrays of a file straight to the devices that hold parts of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jscope._support import misplaced, shown

from .files import File
from .fitting import shape_and_dtype
from .operations import cast_checked
from .tensors import Index, Tensor, empty

_BLOCK = 1 << 22  # bytes that are read at once where less of them is wanted
_WORTH_A_GAP = 1 << 12  # bytes between what is wanted of two rows: a system reads no fewer from a disk


def is_spread(sharding: Any) -> bool:
    """Whether an array of that sharding lies on more than one device."""
    return isinstance(sharding, jax.sharding.Sharding) and len(sharding.device_set) > 1


def sharding_of(leaf: Any) -> Any:
    """Where a leaf of a target lies, None if it does not say; of a mesh without devices, on those of the one in force.

    `jax.eval_shape` gives such shapes under `jax.set_mesh`.
    """
    sharding = getattr(leaf, "sharding", None)
    if isinstance(sharding, jax.sharding.NamedSharding) and isinstance(sharding.mesh, jax.sharding.AbstractMesh):
        with contextlib.suppress(ValueError):  # while JAX traces, no mesh can be asked for
            mesh = jax.sharding.get_mesh()
            if mesh.abstract_mesh == sharding.mesh:
                return jax.sharding.NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)
    return sharding


def sharding_faults(wanted: Mapping[str, Any], shardings: Mapping[str, Any]) -> list[str]:
    """Why arrays can't lie as they are to: by the shardings of some names, or by those of shapes that are wanted."""
    faults = []
    for name, leaf in wanted.items():
        is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
        sharding = shardings.get(name, sharding_of(leaf) if is_shape else None)
        if name in shardings or sharding is not None:
            why = _misfit(sharding, shape_and_dtype(leaf)[0])
            faults += [f"{shown(name)} {why}"] * bool(why)
    return faults


def _misfit(sharding: Any, shape: tuple[int, ...] | None) -> str:
    """Why a sharding does not fit a shape, `""` if it does."""
    if shape is None:
        return "is given a sharding, and is no array"
    if not isinstance(sharding, jax.sharding.Sharding):
        return f"is given {sharding!r:.60}, which is no sharding: write such as NamedSharding(mesh, jax.P('data'))"
    if isinstance(getattr(sharding, "mesh", None), jax.sharding.AbstractMesh):
        return "is given a sharding over a mesh that has no devices"
    why = misplaced(sharding, shape)
    return f"does not fit its sharding: {why}" if why else ""


def spread(tensor: Tensor, sharding: jax.sharding.Sharding, dtype: Any, checked: bool) -> tuple[jax.Array, bool]:
    """(the array, whether a checksum was compared). Each process reads what its own devices hold, each part once."""
    read: dict[tuple[tuple[int, int], ...], np.ndarray] = {}
    was_whole = [tensor.has_checksum and checked]

    def part(index: Any) -> np.ndarray:
        cuts = tuple(along.indices(size)[:2] for along, size in zip(index, tensor.shape, strict=True))
        if cuts not in read:
            where = tuple(slice(*cut) for cut in cuts)
            is_whole = tensor.read_part is None or tensor.is_whole(where)
            was_whole.append(is_whole)
            array = np.asarray(tensor.read(checked)[where]) if is_whole else tensor.part(where)
            read[cuts] = array if array.dtype == dtype else cast_checked(array, dtype)
        return read[cuts]

    array = jax.make_array_from_callback(tensor.shape, sharding, part, dtype=dtype)
    return array, all(was_whole)


def read_part(file: File, offset: int, shape: tuple[int, ...], dtype: np.dtype, index: Index) -> np.ndarray:
    """A part of an array that lies in a file from `offset` on, in C order.

    Rows are read alone, and parts of rows where enough lies between them. Where less does, whole rows are read: of
    16,384 rows of 4 KB, in the system's cache, halves took 22 ms alone, and 6 ms in blocks; of 4,096 rows of 16 KB they
    took 9 and 8 ms.
    """
    wanted = tuple(along.stop - along.start for along in index)
    part = empty(wanted, dtype)
    if part.size:
        _fill(part, file, offset, shape, index)
    # A byte that is neither 0 nor 1 would be a third truth value to numpy.
    return np.not_equal(part.view(np.uint8), 0, out=part) if dtype.kind == "b" else part


def _fill(part: np.ndarray, file: File, offset: int, shape: tuple[int, ...], index: Index) -> None:
    inner = math.prod(shape[1:]) * part.dtype.itemsize
    if not shape or all((cut.start, cut.stop) == (0, size) for cut, size in zip(index[1:], shape[1:], strict=True)):
        file.read_into(part, offset + (index[0].start * inner if shape else 0))
        return
    row = math.prod(part.shape[1:]) * part.dtype.itemsize
    start = offset + index[0].start * inner
    if len(shape) > 2:
        for number in range(part.shape[0]):
            _fill(part[number], file, start + number * inner, shape[1:], index[1:])
        return
    if inner - row >= _WORTH_A_GAP or inner > _BLOCK:
        file.read_rows(part, start + index[1].start * part.dtype.itemsize, inner)
        return
    # Of short rows many are read at once, and what is wanted of them is picked out.
    rows = max(_BLOCK // inner, 1)
    for first in range(0, part.shape[0], rows):
        count = min(rows, part.shape[0] - first)
        block = np.empty((count, *shape[1:]), part.dtype)
        file.read_into(block, start + first * inner)
        part[first : first + count] = block[(slice(None), *index[1:])]
