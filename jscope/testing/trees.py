"""`assert_equal` and `assert_close`: which leaves of two trees differ, where, and by how much. Any trees of JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope._support import check_here, near, printable, short_type, shortened

_MOST_LINES = 20


def assert_equal(first: Any, second: Any, /) -> None:
    """Two trees have the same structure, and leaves of the same dtype, shape and numbers, to the bit.

    A NaN equals a NaN of the same bits, and 0.0 is not -0.0. NumPy's arrays and JAX's are alike. Where one tree is a
    `Params`, the other may be any nested or flat mapping of the same names. TF1: `TestCase.assertAllEqual`, which takes
    nested structures too.

    Args:
      first, second: any pytrees. A leaf that is neither an array nor a number is compared with `==`.

    Raises:
      AssertionError: naming every leaf that differs, with how many of its elements do, the greatest difference and
        where that is; leaves that one tree lacks, with names near them.

    Example:
      >>> from jscope.testing import assert_equal
      >>> tree = js.Params({"tower/kernel": jnp.ones((2, 3)), "tower/bias": jnp.zeros(3)})
      >>> assert_equal(tree, {"tower": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}})
      >>> assert_equal(tree, tree.replace({"tower/bias": jnp.array([0.0, 0.5, 0.0])}))
      Traceback (most recent call last):
      AssertionError: The trees differ in 1 leaf:
        - ['tower/bias']: 1 of 3 elements differ, by 0.5 at most, at [1]: 0.0, then 0.5
    """
    __tracebackhide__ = True
    faults = tree_differences(first, second)
    if faults:
        raise AssertionError(_told(faults))


def assert_close(first: Any, second: Any, /, *, rtol: float | None = None, atol: float = 0.0) -> None:
    """Two trees have the same structure, dtypes and shapes, and their numbers differ by rounding alone.

    An array may differ by `rtol` times its own largest finite number, plus `atol`: so numbers near zero that come out
    of sums of large ones need no `atol`. A float of Python's is compared as an array, in the dtype of the other leaf.
    Integers and bools must be equal. TF1: `TestCase.assertAllClose`.

    Args:
      first, second: any pytrees. A leaf that is neither an array nor a number is compared with `==`.
      rtol: what is allowed relative to the largest number of an array; default the square root of its dtype's
        precision, about 3e-4 for float32.
      atol: what is allowed beside that, in the unit of the numbers.

    Raises:
      AssertionError: as `assert_equal`, for the leaves that differ by more.

    Example:
      >>> from jscope.testing import assert_close
      >>> assert_close({"a": jnp.array([1.0, 1e-9])}, {"a": jnp.array([1.00001, 0.0])})
      >>> assert_close({"a": jnp.array([1.0, 1e-9])}, {"a": jnp.array([1.01, 0.0])})
      Traceback (most recent call last):
      AssertionError: The trees differ in 1 leaf, by more than 0.000345 of the largest number:
        - ['a']: 2 of 2 elements differ, by 0.01 at most, at [0]: 1.0, then 1.01
    """
    __tracebackhide__ = True
    within = Tolerance(rtol, atol)
    faults = tree_differences(first, second, within)
    if faults:
        raise AssertionError(_told(faults, within.text(first)))


# How many roundings of the largest number may add up where it cancels.
_ROUNDINGS = 8


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far arrays may be apart: `rtol` times the largest number, and `atol`.

    A `rtol` of None is the square root of the dtype's precision. `cancelled` is the largest number that may have
    cancelled on the way to these arrays: what is left of it is its rounding, however small their own numbers are. No
    more than a number 1 may be apart: a mask of -1e9 or a time of day would else allow for anything.
    """

    rtol: float | None = None
    atol: float = 0.0
    cancelled: float = 0.0

    def relative(self, dtype: Any) -> float:
        return float(jnp.finfo(dtype).eps) ** 0.5 if self.rtol is None else self.rtol

    def allows(self, array: Any) -> float:
        """How far another array may be from this one."""
        step = float(jnp.finfo(array.dtype).eps)
        rounded = min(_ROUNDINGS * step * self.cancelled, step**0.5)
        return self.relative(array.dtype) * _largest(array) + rounded + self.atol

    def text(self, tree: Any) -> str:
        inexact = {
            leaf.dtype for leaf in jax.tree.leaves(tree) if is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        }
        parts = sorted(f"{self.relative(dtype):.3g}" for dtype in inexact)
        beside = f" and {self.atol:.3g}" if self.atol else ""
        return f", by more than {' or '.join(dict.fromkeys(parts))} of the largest number{beside}" if parts else ""


def rounding(*trees: Any, rtol: float | None = None, atol: float = 0.0) -> Tolerance:
    """What rounding may do to one computation that is done in two ways, such as jitted and not.

    Args:
      trees: what went into the computation, and what came out.
      rtol, atol: as for `assert_close`.
    """
    arrays = [leaf for leaf in jax.tree.leaves(trees) if is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)]
    here = [array for array in arrays if getattr(array, "is_fully_addressable", True)]  # others are refused, in words
    return Tolerance(rtol, atol, max(map(_largest, here), default=0.0))


def _largest(array: Any) -> float:
    """The largest finite number of an array, without its sign."""
    wide = np.asarray(array).astype(np.complex128)
    return float(np.max(np.abs(wide), initial=0.0, where=np.isfinite(wide)))


def _told(faults: list[str], allowed: str = "") -> str:
    leaves = "1 leaf" if len(faults) == 1 else f"{len(faults)} leaves"
    return listed(f"The trees differ in {leaves}{allowed}:", faults)


def tree_differences(first: Any, second: Any, within: Tolerance | None = None) -> list[str]:
    """One line for each leaf that differs or that one tree lacks.

    Args:
      first, second: any pytrees.
      within: what rounding may do; None: nothing.
    """
    if isinstance(first, js.Params) != isinstance(second, js.Params):
        first, second = _as_params(first), _as_params(second)
    ours, theirs = _by_path(first), _by_path(second)
    faults = []
    for path, leaf in ours.items():
        if path not in theirs:
            faults.append(f"{path or 'it'} is only in the first{_hint(path, theirs, ours)}")
        elif fault := leaf_difference(leaf, theirs[path], within, path or "the array"):
            faults.append(f"{path}: {fault}" if path else fault)
    faults += [
        f"{path or 'it'} is only in the second{_hint(path, ours, theirs)}" for path in theirs if path not in ours
    ]
    if not faults and jax.tree.structure(first) != jax.tree.structure(second):
        kinds = [shortened(str(jax.tree.structure(tree)), 160) for tree in (first, second)]
        faults.append(f"the leaves are the same, in other containers: {kinds[0]}, then {kinds[1]}")
    return faults


def _as_params(tree: Any) -> Any:
    return js.Params(tree) if isinstance(tree, Mapping) and not isinstance(tree, js.Params) else tree


def _by_path(tree: Any) -> dict[str, Any]:
    return {printable(jax.tree_util.keystr(path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _hint(path: str, others: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    close = near(path, [other for other in others if other not in own])
    return f" (near it: {', '.join(close)})" if close else ""


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of JAX's or NumPy's, or one of NumPy's numbers."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def copies(tree: Any) -> Any:
    """The tree with arrays of its own, for a function that takes the memory of its arguments."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True) if is_array(leaf) else leaf, tree)


_IN_ONE_PROCESS = "call the assertion with arrays on this process's own devices: jax.local_devices()"


def leaf_difference(a: Any, b: Any, within: Tolerance | None = None, name: str = "an array") -> str:
    """How two leaves differ, `""` if they don't.

    Raises:
      BadArgumentError: for arrays of which other processes hold a part.
    """
    for leaf in (a, b):
        check_here(name, leaf, "it can't be compared", _IN_ONE_PROCESS)
    a, b = _as_arrays(a, b)
    if not (is_array(a) and is_array(b)):
        return "" if a is b or _same(a, b) else f"{printable(repr(a)):.80}, then {printable(repr(b)):.80}"
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"{short_type(a)}, then {short_type(b)}"
    if jnp.issubdtype(a.dtype, jax.dtypes.extended):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    a, b = np.asarray(a), np.asarray(b)
    if a.tobytes() == b.tobytes():
        return ""
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        where = np.unravel_index(np.argmax(a != b), a.shape)
        return f"{np.sum(a != b)} of {a.size} elements differ, first at {_place(where)}: {_then(a[where], b[where])}"
    return _difference_of_numbers(a, b, within)


def _as_arrays(a: Any, b: Any) -> tuple[Any, Any]:
    """Floats and complex numbers of Python's as arrays; where one of the two is an array, the other gets its dtype."""
    numbers = [leaf for leaf in (a, b) if not is_array(leaf)]
    arrays = [leaf for leaf in (a, b) if is_array(leaf)]
    if not numbers or not all(isinstance(leaf, float | complex) for leaf in numbers):
        return a, b
    if any(leaf.shape or not jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in arrays):
        return a, b
    dtype = arrays[0].dtype if arrays else np.result_type(*map(type, numbers))
    if any(isinstance(leaf, complex) for leaf in numbers) and not jnp.issubdtype(dtype, jnp.complexfloating):
        return a, b
    a, b = (leaf if is_array(leaf) else np.asarray(leaf).astype(dtype) for leaf in (a, b))
    return a, b


def _same(a: Any, b: Any) -> bool:
    same = a == b
    return bool(same) if isinstance(same, bool | np.bool_) else False


def _difference_of_numbers(a: Any, b: Any, within: Tolerance | None) -> str:
    # Wide enough for all, so that differences of bfloat16 are not rounded.
    wide_a, wide_b = a.astype(np.complex128), b.astype(np.complex128)
    finite = np.isfinite(wide_a) & np.isfinite(wide_b)
    with np.errstate(invalid="ignore"):
        apart = np.where(finite, np.abs(wide_a - wide_b), np.inf)
    differs = _bits(a) != _bits(b)
    if within is not None:
        alike = (apart <= within.allows(a)) | (np.isnan(wide_a) & np.isnan(wide_b))
        if (alike | ~differs).all():
            return ""
    count = f"{np.sum(differs)} of {a.size} elements differ"
    where = np.unravel_index(np.argmax(np.where(differs, apart, -1.0)), a.shape)
    values = f"at {_place(where)}: {_then(a[where], b[where])}"
    if not finite[where]:
        return f"{count}, first {values}"
    return f"{count}, by {apart[where]:.3g} at most, {values}" if apart[where] else f"{count} in sign, first {values}"


def _bits(array: np.ndarray) -> np.ndarray:
    raw = np.ascontiguousarray(array).view(np.uint8).reshape((*array.shape, array.dtype.itemsize))
    # All bytes of an element as one number of Python's own comparison: a void scalar of its size.
    return raw.view(f"V{array.dtype.itemsize}")[..., 0]


def _place(where: Any) -> str:
    return f"[{', '.join(str(int(i)) for i in where)}]" if where else "[]"


def _then(a: Any, b: Any) -> str:
    return f"{_number(a)}, then {_number(b)}"


def _number(value: Any) -> str:
    """A number as its dtype holds it: `0.1`, where Python would widen float32 to 0.10000000149011612."""
    if not is_array(value):  # of an array of objects
        return f"{printable(repr(value)):.80}"
    return printable(str(value.item() if value.dtype.kind in "biu" else value))


def listed(head: str, lines: list[str], most: int = _MOST_LINES) -> str:
    """The head, and a line for each fault, up to a point."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([head, *(f"  - {line}" for line in [*lines[:most], *more])])
