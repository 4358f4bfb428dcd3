"""What a result may depend on: `assert_causal`, `assert_rows_independent`, `assert_masked`. Any function of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .calls import bad_argument, quietly
from .functions import called
from .trees import Tolerance, is_array, leaf_difference, listed


def assert_causal(function: Callable[[Any], Any], x: Any, /, *, axis: int = 1) -> None:
    """What a function gives at one step depends on that step and on those before it, not on later ones.

    Later steps are changed, at two places of the sequence, and what stands before must stay. An attention without its
    mask, a mask that is off by one, a `layer_norm` over the time axis, and labels that are not shifted are found.
    Results that are all NaN are refused: they would stay whatever they depend on.

    Args:
      function: of one argument, which gives arrays with the same steps in the same axis.
      x: an array, or a tree of arrays, of at least two steps; numbers or tokens that are not all alike.
      axis: the axis of the steps.

    Raises:
      AssertionError: saying at which step the result depends on a later one.
      BadArgumentError: if there are not two steps, or what is compared is NaN everywhere.

    Example:
      >>> from jscope.testing import assert_causal
      >>> x = jnp.arange(6.0).reshape(1, 6)
      >>> assert_causal(lambda x: jnp.cumsum(x, axis=1), x)
      >>> assert_causal(lambda x: x - x.sum(axis=1, keepdims=True), x)
      Traceback (most recent call last):
      AssertionError: `<lambda>` is not causal:
        - steps before 5 depend on later ones: 5 of 5 elements differ, by 6 at most, at [0, 0]: -15.0, then -21.0
    """
    __tracebackhide__ = True
    steps = _length(x, axis)
    faults: list[str] = []
    for start in sorted({steps - 1, max(1, steps // 2)}, reverse=True):
        faults += [
            f"steps before {start} depend on later ones{fault}"
            for fault in _compare(function, x, lambda i, s=start: i >= s, lambda i, s=start: i < s, axis)
        ]
        if faults:
            raise AssertionError(listed(f"`{called(function)}` is not causal:", faults))


def assert_rows_independent(function: Callable[[Any], Any], x: Any, /, *, axis: int = 0) -> None:
    """What a function gives for one example of a batch does not depend on the other examples.

    The first example is changed, and the results of all others must stay; then the first is given alone. A norm over
    the wrong axis, statistics of the batch at evaluation, a softmax over the batch, and a mixed-up reshape are found.

    Args:
      function: of one argument, which gives arrays with the same examples in the same axis.
      x: an array, or a tree of arrays, of at least two examples.
      axis: the axis of the examples.

    Raises:
      AssertionError: saying which results differ.
      BadArgumentError: if there are not two examples, or what is compared is NaN everywhere.

    Example:
      >>> from jscope.testing import assert_rows_independent
      >>> x = jnp.arange(6.0).reshape(3, 2)
      >>> assert_rows_independent(lambda x: x / x.sum(axis=1, keepdims=True), x)
      >>> assert_rows_independent(lambda x: x - x.sum(axis=0), x)
      Traceback (most recent call last):
      AssertionError: The rows of `<lambda>` depend on each other:
        - when row 0 changes: 4 of 4 elements differ, by 2 at most, at [0, 1]: -6.0, then -8.0
    """
    __tracebackhide__ = True
    _length(x, axis)
    found = _compare(function, x, lambda i: i == 0, lambda i: i > 0, axis)
    faults = [f"when row 0 changes{fault}" for fault in found]
    if not faults:
        one = jax.tree.map(lambda leaf: _first_row(leaf, axis) if is_array(leaf) else leaf, x)
        with quietly():
            together, alone = function(x), function(one)
        faults = [f"when row 0 is alone{fault}" for fault in _differences(together, alone, lambda i: i == 0, axis)]
    if faults:
        raise AssertionError(listed(f"The rows of `{called(function)}` depend on each other:", faults))


def assert_masked(function: Callable[[Any], Any], x: Any, mask: Any, /) -> None:
    """What stands where a mask is False has no influence on what a function gives.

    Results that start with the shape of the mask are compared where it is True; all others whole.

    Args:
      function: of one argument; the mask is its own, such as `lambda x: net.apply(params, x, mask)`.
      x: an array that starts with the shape of the mask.
      mask: an array of bools, some of them False.

    Raises:
      AssertionError: saying how the results differ.
      BadArgumentError: if the mask leaves nothing out, or what is compared is NaN everywhere.

    Example:
      >>> from jscope.testing import assert_masked
      >>> x, mask = jnp.arange(6.0).reshape(2, 3), jnp.array([[True, True, False]] * 2)
      >>> assert_masked(lambda x: (x * mask).sum(axis=1), x, mask)
      >>> assert_masked(lambda x: x.sum(axis=1), x, mask)
      Traceback (most recent call last):
      AssertionError: `<lambda>` depends on what its mask leaves out:
        - 2 of 2 elements differ, by 6 at most, at [1]: 12.0, then 18.0
    """
    __tracebackhide__ = True
    mask = np.asarray(mask, bool)
    if mask.all():
        raise bad_argument("The mask leaves nothing out.", "give one with a False in it")
    if not is_array(x):
        raise bad_argument(f"The argument is no array but a {type(x).__name__}.", "give an array")
    if x.shape[: mask.ndim] != mask.shape:
        what = f"The mask has shape {mask.shape}, and the argument shape {x.shape} does not start with it."
        raise bad_argument(what, "give a mask of the first dimensions of the argument")
    wide = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    with quietly():
        first, second = function(x), function(jnp.where(wide, x, _others(x)))
    faults = []
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
        if is_array(a) and a.shape[: mask.ndim] == mask.shape:
            a, b = _read(a)[mask], _read(b)[mask]
        fault = _difference(a, b)
        if fault:
            name = jax.tree_util.keystr(path)
            faults.append(f"{name}: {fault}" if name else fault)
    if faults:
        raise AssertionError(listed(f"`{called(function)}` depends on what its mask leaves out:", faults))


def _length(x: Any, axis: int) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(x) if is_array(leaf)]
    for leaf in leaves:
        _check_axis(leaf, axis, "The argument", "give the axis that the function is asked about")
    lengths = {leaf.shape[axis] for leaf in leaves}
    if len(lengths) != 1 or min(lengths) < 2:
        what = f"Axis {axis} of the argument has {', '.join(map(str, sorted(lengths))) or 'no'} rows."
        raise bad_argument(what, "give two or more, alike in all arrays")
    return lengths.pop()


def _first_row(leaf: Any, axis: int) -> Any:
    """The first row alone: rows that are spread over devices, which one can't be, are brought together before."""
    if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, jax.NamedSharding):
        parts = [*leaf.sharding.spec, *[None] * (leaf.ndim - len(leaf.sharding.spec))]
        parts[axis] = None
        leaf = jax.device_put(leaf, jax.NamedSharding(leaf.sharding.mesh, jax.P(*parts)))
    return jax.lax.slice_in_dim(leaf, 0, 1, axis=axis)


def _check_axis(leaf: Any, axis: int, whose: str, fix: str) -> None:
    if not is_array(leaf) or axis not in range(-leaf.ndim, leaf.ndim) or not isinstance(axis, int | np.integer):
        kind = f"an array of shape {leaf.shape}" if is_array(leaf) else f"a {type(leaf).__name__}"
        raise bad_argument(f"{whose} is {kind}, which has no axis {axis}.", fix)


def _compare(function: Callable[[Any], Any], x: Any, changed: Any, kept: Any, axis: int) -> list[str]:
    """How the rows to keep differ when the others are changed."""

    def change(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        where = changed(np.arange(leaf.shape[axis])).reshape(
            [-1 if i == axis % leaf.ndim else 1 for i in range(leaf.ndim)]
        )
        return jnp.where(where, _others(leaf), leaf)

    with quietly():
        return _differences(function(x), function(jax.tree.map(change, x)), kept, axis)


def _differences(first: Any, second: Any, kept: Any, axis: int) -> list[str]:
    faults = []
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
        whose = f"The result{jax.tree_util.keystr(path)}"
        _check_axis(a, axis, whose, "let the function give what it has for each row")
        rows = kept(np.arange(a.shape[axis])), kept(np.arange(b.shape[axis]))
        a, b = (np.compress(some, _read(leaf), axis=axis % leaf.ndim) for some, leaf in zip(rows, (a, b), strict=True))
        fault = _difference(a, b)
        if fault:
            faults.append(f"{jax.tree_util.keystr(path)}: {fault}")
    return faults


def _difference(a: Any, b: Any) -> str:
    """How two results differ, that of the argument and that of the changed one; `""` if they don't."""
    fault = leaf_difference(a, b, Tolerance())
    if not fault and is_array(a) and a.size and jnp.issubdtype(a.dtype, jnp.inexact) and np.isnan(np.asarray(a)).all():
        fix = "look for the first NaN: assert_finite(function, x), or jax.config.update('jax_debug_nans', True)"
        raise bad_argument("All that is compared is NaN, which stays NaN whatever it depends on.", fix)
    return fault


def _read(leaf: Any) -> np.ndarray:
    """The numbers of an array; of a random key, those that it is made of, in a last dimension."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _others(x: Any) -> Any:
    """Other values of the same kind: numbers further away, and tokens that are in the array already; other keys."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.random.key_data(x) ^ 1, impl=jax.random.key_impl(x))
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return (x + 1 + jnp.abs(x)).astype(x.dtype)
    if x.dtype == bool:
        return ~x
    if x.min() == x.max():
        raise bad_argument("All tokens are the same, so none can be changed.", "give at least two")
    mirrored = x.min() + x.max() - x
    return jnp.where(mirrored == x, x.max(), mirrored)
