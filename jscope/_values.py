"""What TensorFlow 1 accepts as a dtype, a shape or an initial value, read as JAX needs it. Floor 1."""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ._callsite import user_line, user_location
from ._errors import STATIC_ARGNAMES, BadArgumentError, BadInitialValueTypeError, BadTypeError
from ._leaves import check_here, is_elsewhere
from ._show import short, short_type

FLOAT32 = np.dtype("float32")

Shape = tuple[int, ...]
PartialShape = tuple[int | None, ...]

# Python's own types mean what they mean in TF1, not in NumPy.
_PARSED: dict[Any, Any] = {
    float: FLOAT32,
    int: np.dtype("int32"),
    bool: np.dtype("bool"),
    complex: np.dtype("complex64"),
}
# What numbers of each kind are where nobody says: TF1's 32 bits, whatever JAX's 64-bit mode says.
_NARROW: dict[str, Any] = {"f": np.float32, "i": np.int32, "u": np.int32, "c": np.complex64}
_WIDE = frozenset(map(np.dtype, ("float64", "int64", "uint64", "complex128")))


def as_dtype(dtype: Any) -> Any:
    """A NumPy dtype from a dtype, its name, a NumPy or JAX scalar type; 64-bit ones as narrow as JAX makes them.

    Raises:
      BadTypeError: for anything else (TF1: "Cannot convert the argument `type_value`").
    """
    try:
        parsed = _PARSED[dtype]
    except (KeyError, TypeError):
        parsed = _parse_dtype(dtype)
    if parsed in _WIDE:
        narrow = jax.dtypes.canonicalize_dtype(parsed)
        if narrow != parsed:
            message = f"dtype {parsed} is {narrow} here: JAX's 64-bit mode (jax_enable_x64) is off"
            warnings.warn_explicit(message, UserWarning, *(user_location() or ("<unknown>", 0)))
        return narrow
    return parsed


def single_or_wider(dtype: Any) -> Any:
    """The dtype to compute in, as in TensorFlow: float32 for half precision and integers, else the dtype itself."""
    # Not jnp.promote_types, which refuses that where jax_numpy_dtype_promotion is "strict".
    is_narrow = not jnp.issubdtype(dtype, jnp.inexact) or jnp.finfo(dtype).bits < 32
    return FLOAT32 if is_narrow else dtype


def sum_of_losses(losses: Sequence[Any]) -> jax.Array:
    """The sum, in the widest of their dtypes; a float32 zero where there are none."""
    with jax.numpy_dtype_promotion("standard"):  # regularizers of variables of several dtypes, added by us
        return functools.reduce(operator.add, losses) if losses else jnp.float32(0.0)


def check_loss(loss: Any, name: str, exists: str) -> None:
    """Raises BadArgumentError for what is no number; `exists` says what the variable is whose regularizer gave it."""
    if not isinstance(loss, int | float) and getattr(loss, "shape", None) != ():
        raise BadArgumentError(
            f"The regularizer of '{name}' gave {short_type(loss)}, no scalar.",
            kind="bad_regularizer",
            exists=exists,
            where=user_line(),
            fix="let it return one number, as in lambda w: jnp.sum(w**2), or None for no loss",
        )


def is_of_keys(dtype: Any) -> bool:
    """Whether this is the dtype of random keys."""
    return not isinstance(dtype, str | type) and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _parse_dtype(dtype: Any) -> Any:
    try:
        # jnp.dtype gives the dtype of an array, too, and of None float64; of that of random keys it knows nothing.
        is_array = dtype is None or isinstance(dtype, jax.Array)
        parsed = None if is_array else dtype if is_of_keys(dtype) else jnp.dtype(dtype)
    except (TypeError, ValueError):
        parsed = None
    if parsed is None or (isinstance(parsed, np.dtype) and parsed.kind in "OSUMmT"):  # JAX has no such arrays
        raise BadTypeError(
            f"{short(dtype)} is not a dtype of JAX.",
            kind="bad_dtype",
            where=user_line(),
            fix='give a dtype such as jnp.float32, np.int32 or "bfloat16"'
            + ("; an initializer is given by name: initializer=..." if callable(dtype) else ""),
        )
    _PARSED[dtype] = parsed
    return parsed


def as_shape(shape: Any) -> PartialShape | None:
    """A tuple of dimensions from an int, list or tuple; None is an unknown dimension, or alone an unknown shape.

    Raises:
      BadArgumentError: for a negative dimension.
      BadTypeError: for what can't be a dimension.
    """
    if shape is None:
        return None
    try:
        dims: Any = tuple(shape)
    except TypeError:
        dims = (shape,)
    try:
        known = dims if None not in dims else [dim for dim in dims if dim is not None]
        sizes = tuple(map(operator.index, known))
    except (TypeError, ValueError):  # arrays as dimensions can't even be compared
        if any(map(is_traced, dims)):
            raise BadTypeError(
                f"Shape {short(shape)} has a size that JAX traces; shapes must be known before the program runs.",
                kind="bad_shape",
                where=user_line(),
                fix=f"take sizes from x.shape, or give a Python int: as an argument of jax.jit, {STATIC_ARGNAMES}",
            ) from None
        raise BadTypeError(
            f"{short(shape)} is not a shape.",
            kind="bad_shape",
            where=user_line(),
            fix="give an int, or a list or tuple of ints",
        ) from None
    if sizes and min(sizes) < 0:
        raise BadArgumentError(
            f"Shape {short(shape)} has a negative dimension.",
            kind="bad_shape",
            where=user_line(),
            fix="dimensions are >= 0",
        )
    if known is dims:
        return sizes
    rest = iter(sizes)
    return tuple(None if dim is None else next(rest) for dim in dims)


def is_compatible(asked: PartialShape | None, found: Shape) -> bool:
    """Whether a shape asked for, unknown parts matching anything, fits a variable's."""
    if asked is None or asked == found:
        return True
    return len(asked) == len(found) and all(a is None or a == f for a, f in zip(asked, found, strict=True))


def as_initial_value(value: Any, dtype: Any = None) -> jax.Array | np.ndarray:
    """An array from what TF1 takes as a constant: arrays keep their dtype; numbers get `dtype`, or float32 or int32.

    Raises:
      BadInitialValueTypeError: for what is no number, list or array, and for numbers of another kind than `dtype`.
    """
    if isinstance(value, jax.Array):
        check_here("initial value", value)
        # A weak 64-bit array stands for a Python number that jax.jit was given.
        if value.dtype in _WIDE and getattr(value, "weak_type", False):
            return value.astype(_NARROW[value.dtype.kind])
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise BadInitialValueTypeError(
            "The mask of a masked array of numpy would be lost.",
            kind="init_value",
            where=user_line(),
            fix="give array.filled(value), or array.data",
        )
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        array = np.asarray(None)
    kind = array.dtype.kind
    if kind in "OSUMmT":
        raise BadInitialValueTypeError(
            f"An initial value of type {type(value).__name__} does not convert to an array: {short(value)}.",
            kind="init_value",
            where=user_line(),
            fix="give a number, a (nested) list of numbers, or an array",
        )
    if not isinstance(value, np.ndarray | np.generic):
        if dtype is not None and array.size and (is_of_keys(dtype) or not _holds(dtype, kind)):
            raise _does_not_fit(value, dtype)
        return converted(array, _NARROW.get(kind, array.dtype) if dtype is None else dtype, value)
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if kind in "iu" and narrow != array.dtype:
        return converted(array, narrow, value)
    return array.astype(narrow, copy=False)


def _holds(dtype: Any, kind: str) -> bool:
    """Whether TF1 takes numbers of this NumPy kind for that dtype: no floats, even whole ones, for integers."""
    wider = (jnp.bool_, "b"), (jnp.integer, "biu"), (jnp.floating, "biuf"), (jnp.generic, "biufc")
    return kind in next(kinds for kind_of_dtype, kinds in wider if jnp.issubdtype(dtype, kind_of_dtype))


def converted(array: Any, dtype: Any, value: Any) -> Any:
    """`array`, made of `value`, in another dtype.

    Raises:
      BadInitialValueTypeError: if numbers do not survive it: fractions and overflow, imaginary parts as reals, and what
        a float of eight bits has not.
    """
    changed = array.astype(dtype)
    exact = jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)
    if (
        (exact and (np.asarray(changed) != np.asarray(array)).any())
        or (jnp.iscomplexobj(array) and not jnp.iscomplexobj(changed))
        or not is_held(array, dtype)
    ):
        raise _does_not_fit(value, dtype)
    return changed


def is_small_float(dtype: Any) -> bool:
    """Whether it is a float of eight bits or fewer."""
    return getattr(dtype, "itemsize", 1) == 1 and jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize == 1


def is_held(array: Any, dtype: Any) -> bool:
    """Whether real numbers are in the range of a dtype, where that is a float of eight bits or fewer; else True.

    Some of these have no zero, no sign or no infinity, and make a NaN of it.
    """
    if not is_small_float(dtype):
        return True
    array, largest = np.asarray(array, np.float64), float(jnp.finfo(dtype).max)
    lost = np.isnan(array.astype(dtype).astype(np.float64)) & ~np.isnan(array)
    return not (lost | (np.isfinite(array) & (abs(array) > largest))).any()


def _does_not_fit(value: Any, dtype: Any) -> BadInitialValueTypeError:
    return BadInitialValueTypeError(
        f"{short(value)} can't be held by dtype {dtype if is_of_keys(dtype) else np.dtype(dtype).name}.",
        kind="init_value",
        where=user_line(),
        fix="give a value that fits, or another dtype",
    )


def is_traced(value: Any) -> bool:
    """Whether an array belongs to a trace."""
    return isinstance(value, jax.core.Tracer)


def as_flag(value: Any, what: str) -> bool:
    """True or False as Python knows it; `what` says whose it is.

    Raises:
      BadTypeError: for a value that JAX traces, and for what is no flag: text such as "False" is true.
    """
    if is_traced(value):
        raise BadTypeError(
            f"{what} is traced by JAX; it must be known before the compiled program runs.",
            kind="traced",
            where=user_line(),
            fix=f"give True or False: as an argument of jax.jit, {STATIC_ARGNAMES}",
        )
    if not (isinstance(value, int | np.bool_) and value in (0, 1)):
        raise BadTypeError(
            f"{what} is neither True nor False, but {short(value)}.",
            kind="bad_trainable",
            where=user_line(),
            fix="give True or False",
        )
    return bool(value)


class InitialValue:
    """An array given as initial value. Each variable that starts from it gets an array of its own."""

    __slots__ = ("array",)

    def __init__(self, array: jax.Array | np.ndarray) -> None:
        self.array = array

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InitialValue):
            return False
        a, b = self.array, other.array
        return a is b or (a.shape == b.shape and a.dtype == b.dtype and _bytes(a) == _bytes(b))

    def __hash__(self) -> int:
        return hash((self.array.shape, self.array.dtype))

    def __repr__(self) -> str:
        short = self.array.size <= 4 and isinstance(self.array.dtype, np.dtype) and not is_elsewhere(self.array)
        return f"array {np.asarray(self.array).tolist()}" if short else "array"


def _bytes(array: Any) -> bytes:
    check_here("initial value", array, "it can't be compared with another one", "give it by an initializer callable")
    if not isinstance(array.dtype, np.dtype):  # random keys
        array = jax.random.key_data(array)
    return np.asarray(array).tobytes()


class FromProgram:
    """Marks an initial value that the program computes: only running the program (`net.init`) can tell it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FromProgram)

    def __hash__(self) -> int:
        return hash(FromProgram)

    def __repr__(self) -> str:
        return "from the program"
