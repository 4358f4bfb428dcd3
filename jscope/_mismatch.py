"""What is wrong with a tree, or with a leaf of it, that should fit a program. Floor 1."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ._callsite import user_line
from ._errors import BadInitialValueTypeError, ParamsMismatchError
from ._leaves import DELETED, KEEP_IT, without_value
from ._show import count_of, short
from ._values import as_initial_value


def mismatch(leaf: Any, shape: tuple[int, ...], dtype: Any) -> str:
    """What is wrong with a leaf that should have this shape and dtype, `""` if nothing."""
    found_shape, found_dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if isinstance(leaf, np.ma.MaskedArray):
        return "is a masked array of numpy, whose mask would be lost: give array.filled(value)"
    if isinstance(leaf, np.ndarray | np.generic):
        found_dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        if leaf.dtype.kind in "iu" and found_dtype != leaf.dtype:
            try:
                as_initial_value(leaf)
            except BadInitialValueTypeError as error:
                return error.what.rstrip(".")
    if found_shape is None or found_dtype is None:
        try:
            leaf = as_initial_value(leaf)
            found_shape, found_dtype = leaf.shape, leaf.dtype
        except TypeError:
            return f"is no array but {short(leaf)}"
    if tuple(found_shape) != shape:
        return f"has shape {tuple(found_shape)}, declared {shape}{_perhaps_a_part(tuple(found_shape), shape)}"
    if found_dtype != dtype:
        return f"has dtype {found_dtype}, declared {dtype}"
    return ""


def _perhaps_a_part(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """In the body of a `jax.shard_map`: that a shape is what one device holds of the one wanted, if it is."""
    mesh = jax.sharding.get_abstract_mesh()
    sizes = {axis: mesh.shape[axis] for axis in mesh.manual_axes}
    if not sizes or len(found) != len(wanted):
        return ""
    cuts: dict[int, tuple[str, ...]] = {}
    for dimension, (part, whole) in enumerate(zip(found, wanted, strict=True)):
        if part != whole:
            left = [axis for axis in sizes if not any(axis in cut for cut in cuts.values())]
            choices = (cut for count in range(1, len(left) + 1) for cut in itertools.combinations(left, count))
            fitting = (cut for cut in choices if math.prod(sizes[axis] for axis in cut) * part == whole)
            cuts[dimension] = next(fitting, ())
            if not cuts[dimension]:
                return ""
    along = " and ".join(f"dimension {dimension} along {', '.join(map(repr, cut))}" for dimension, cut in cuts.items())
    gathered = "leaf"
    for dimension, cut in cuts.items():
        axes = repr(cut[0] if len(cut) == 1 else cut)
        gathered = f"jax.lax.all_gather({gathered}, {axes}, axis={dimension}, tiled=True)"
    return f"; {_PART}, cut in {along}: {gathered} is the whole"


def without_values(report: Any, params: Mapping[str, Any]) -> list[str]:
    """One line for each leaf that fits what is declared (a `Comparison` says so), and has no value."""
    return [f"'{name}' {why}" for name in report.kept if (why := without_value(params[name]))]


# How a fault says that a leaf may be a part.
_PART = "here, in a jax.shard_map body, it may be one device's part"
_GATHER = (
    "give the body whole variables, by jax.P() in the in_specs of shard_map, or gather the parts in it before they are "
    "used, as said of each; a body that computes with parts asks for variables of their shapes"
)
_WAYS = {_PART: _GATHER, DELETED: KEEP_IT}  # by what a fault says
_SEE = "print(net.specs(...)) shows what is declared, print(net.specs(...).compare(params)) how the tree differs"


def mismatch_error(faults: list[str], where: str = "", fix: str = "") -> ParamsMismatchError:
    """One error for everything about a tree that does not fit."""
    fix = fix or next((way for sign, way in _WAYS.items() if any(sign in fault for fault in faults)), _SEE)
    return ParamsMismatchError(
        f"The parameters do not fit the program: {count_of(faults)}.",
        kind="params_mismatch",
        faults=faults,
        where=where or user_line(),
        fix=fix,
    )
