"""What is wrong with a tree, or with a leaf of it, that should fit a program. Floor 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ._callsite import user_line
from ._errors import BadInitialValueTypeError, ParamsMismatchError
from ._show import count_of, short
from ._values import as_initial_value


def mismatch(leaf: Any, shape: tuple[int, ...], dtype: Any) -> str:
    """What is wrong with a leaf that should have this shape and dtype, `""` if nothing."""
    found_shape, found_dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
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
        return f"has shape {tuple(found_shape)}, declared {shape}"
    if found_dtype != dtype:
        return f"has dtype {found_dtype}, declared {dtype}"
    return ""


def without_values(report: Any, params: Mapping[str, Any]) -> list[str]:
    """One line for each leaf that fits what is declared (a `Comparison` says so), and has no value."""
    abstract = [name for name in report.kept if isinstance(params[name], jax.ShapeDtypeStruct)]
    return [f"'{name}' is abstract, a ShapeDtypeStruct" for name in abstract]


_SEE = "print(net.specs(...)) shows what is declared, print(net.specs(...).compare(params)) how the tree differs"


def mismatch_error(faults: list[str], where: str = "", fix: str = _SEE) -> ParamsMismatchError:
    """One error for everything about a tree that does not fit."""
    return ParamsMismatchError(
        f"The parameters do not fit the program: {count_of(faults)}.",
        kind="params_mismatch",
        faults=faults,
        where=where or user_line(),
        fix=fix,
    )
