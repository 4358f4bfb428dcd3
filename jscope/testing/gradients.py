"""`assert_trained`, `assert_gradients`, `assert_finite`: derivatives reach what learns, are right, and are numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np

import jscope as js

from .calls import QUICK, Call, bad_argument, is_inexact, meant_by, moved, names_of, quietly, weighted_sum
from .functions import called
from .trees import listed


def assert_trained(
    loss: Callable[..., Any], tree: Any, /, *args: Any, frozen: str | None = None, **kwargs: Any
) -> None:
    """Every parameter gets a gradient, except those that are meant to be frozen, which get none.

    It finds what is declared and not used, what is used behind a `stop_gradient` too many, a block that reads another
    block's parameters, and the `stop_gradient` that is missing in front of a target network. What gets none only as
    long as another one is zero, such as the first factor of a LoRA, is no fault: those that get a gradient are moved a
    little, and it is asked for again.

    Args:
      loss: `loss(tree, *args, **kwargs)`, of jscope or not; it may give several arrays, as `net.apply` does. Of
        `net.update`, for programs that assign, the output counts, and the tree that it gives beside that does not.
      tree: the parameters. Leaves that have no derivative, such as counters, are left out.
      *args, **kwargs: the other arguments.
      frozen: a scope, a name, or a regular expression matched from the start of the names, of those that must get none.
        At least one leaf must be meant.

    Raises:
      AssertionError: listing the leaves that get no gradient, or one that is not finite, and frozen ones that get one.
      BadArgumentError: if no leaf has a derivative, so that there is nothing to say.

    Example:
      >>> from jscope.testing import assert_trained
      >>> def loss(p, x):
      ...     return (p["online"] * x - p["target"]) ** 2 / 2
      >>> assert_trained(loss, {"online": jnp.ones([]), "target": jnp.zeros([])}, 3.0, frozen="target")
      Traceback (most recent call last):
      AssertionError: `loss` does not train what it should:
        - 'target' is frozen, and gets a gradient of 3 at most
    """
    __tracebackhide__ = True
    leaves, structure = jax.tree.flatten(tree)
    learns = [i for i, leaf in enumerate(leaves) if is_inexact(leaf) or isinstance(leaf, float | complex)]
    if not learns:
        raise bad_argument("No leaf of the tree has a derivative.", "give the parameters first: arrays of floats")

    names, faults = names_of(tree), []
    still = meant_by(frozen, names) if frozen is not None else set()

    def total(given: list[Any]) -> jax.Array:
        filled = dict(zip(learns, given, strict=True))
        merged = [filled.get(i, leaf) for i, leaf in enumerate(leaves)]
        out = loss(jax.tree.unflatten(structure, merged), *args, **kwargs)
        if isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], js.Params):
            out = out[0]  # of `update`: in the tree beside it every leaf has a gradient, its own
        return weighted_sum(out)

    slopes = jax.jit(jax.grad(total), compiler_options=QUICK)

    def largest_at(values: list[Any]) -> list[float]:
        with quietly():
            found = [np.abs(np.asarray(slope, np.complex128)) for slope in slopes(values)]
        return [float(np.max(sizes, initial=0.0)) for sizes in found]

    values = [jnp.asarray(leaves[i]) for i in learns]
    largest = dict(zip(learns, largest_at(values), strict=True))
    silent, before = {i for i in learns if not largest[i] and names[i] not in still}, None
    while silent and silent != before:
        moves = [i not in silent and names[i] not in still for i in learns]
        values = [moved(value) if may else value for value, may in zip(values, moves, strict=True)]
        now = dict(zip(learns, largest_at(values), strict=True))
        silent, before = {i for i in silent if not now[i] > 0}, silent
    for i in learns:
        if i in silent:
            faults.append(f"'{names[i]}' gets no gradient")
        elif names[i] in still and largest[i]:
            faults.append(f"'{names[i]}' is frozen, and gets a gradient of {largest[i]:.3g} at most")
        elif not np.isfinite(largest[i]):
            faults.append(f"'{names[i]}' gets a gradient that is not finite: {largest[i]}")
    if faults:
        raise AssertionError(listed(f"`{called(loss)}` does not train what it should:", faults))


def assert_gradients(
    function: Callable[..., Any], /, *args: Any, rtol: float = 2e-2, atol: float = 2e-3, **kwargs: Any
) -> None:
    """The derivatives that JAX computes are those of the function, by differences of its values.

    Both modes are compared, for the inexact arrays among the arguments: a rule of `custom_vjp` or `custom_jvp` that is
    wrong, and a `stop_gradient` in the middle, are found. A function that has one on purpose fails.

    Args:
      function: any function; of its results, the inexact arrays count.
      *args, **kwargs: its arguments, away from kinks such as that of `abs` at 0.
      rtol, atol: as in `jax.test_util.check_grads`; float32 leaves about three digits of a difference.

    Raises:
      AssertionError: saying which of the modes differ, and by how much.
      BadArgumentError: if no argument or no result has a derivative, if a result is not finite, and for half precision,
        whose digits are too few for differences.

    Example:
      >>> from jscope.testing import assert_gradients
      >>> assert_gradients(lambda x: jnp.sin(x).sum(), jnp.array([0.5, 1.0]))
      >>> def straight_through(x):
      ...     return x + jax.lax.stop_gradient(jnp.sin(x) - x)
      >>> try:
      ...     assert_gradients(straight_through, jnp.array(0.5))
      ... except AssertionError as error:
      ...     print(str(error).splitlines()[0])
      The derivatives of `straight_through` are not those of its values:
    """
    __tracebackhide__ = True
    call = Call(function, args, kwargs)
    learns = [i for i, array in enumerate(call.arrays) if is_inexact(array)]
    if not learns:
        fix = "give an array, jnp.float32(2.0) for 2.0: numbers of Python's are held still"
        raise bad_argument("No argument is an array of floats, so there is no derivative to look at.", fix)

    def total(*given: Any) -> jax.Array:
        arrays = list(call.arrays)
        for i, array in zip(learns, given, strict=True):
            arrays[i] = array
        out = call.run(*arrays)
        inexact = [leaf for leaf in out if is_inexact(leaf)]
        if not inexact:
            raise bad_argument("No result is an array of floats, so it has no derivative.", "return one")
        if coarse := [str(leaf.dtype) for leaf in (*given, *inexact) if jnp.finfo(leaf.dtype).eps > _COARSE]:
            what = f"Differences of {coarse[0]} have too few digits to tell a derivative."
            raise bad_argument(what, "give and compute in float32")
        return weighted_sum(out)

    arrays = [jnp.asarray(call.arrays[i]) for i in learns]
    with quietly():
        if not jnp.isfinite(total(*arrays)):
            what = "The results hold NaN or infinity, which have no differences."
            raise bad_argument(what, "look for them with assert_finite, or let the function return the others alone")
    faults = []
    # By reverse mode alone first: what has a rule for it alone refuses the other.
    for mode in ("rev", "fwd"):
        try:
            with quietly():
                jax.test_util.check_grads(total, arrays, order=1, modes=[mode], rtol=rtol, atol=atol)
        except AssertionError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            numbers = [
                line for line in lines if "ifference" in line or line.startswith(("ACTUAL", "DESIRED", "x:", "y:"))
            ]
            faults.append(f"{'reverse' if mode == 'rev' else 'forward'} mode: {'; '.join(numbers[:4]) or lines[0]}")
        except TypeError as error:
            if mode == "rev" or "custom_vjp" not in str(error):
                raise
    if faults:
        raise AssertionError(listed(f"The derivatives of `{called(function)}` are not those of its values:", faults))


_COARSE = 1e-4  # half precision


def assert_finite(function: Callable[..., Any], /, *args: Any, gradients: bool = True, **kwargs: Any) -> None:
    """What a function gives, and its gradient, hold no NaN and no infinity.

    A norm, a square root or a logarithm at zero has a finite value or none, and a NaN in its gradient: with zeros among
    the arguments this finds it.

    Args:
      function: any function, of jscope or not.
      *args, **kwargs: its arguments.
      gradients: whether to look at the gradient with respect to all inexact arguments, too.

    Raises:
      AssertionError: naming the result or the argument, and how many elements are not finite.

    Example:
      >>> from jscope.testing import assert_finite
      >>> def length(x):
      ...     return jnp.sqrt((x**2).sum())
      >>> assert_finite(length, jnp.ones(3))
      >>> assert_finite(length, jnp.zeros(3))
      Traceback (most recent call last):
      AssertionError: `length` is not finite:
        - the gradient of argument 0: 3 of 3 elements, first at [0]: nan
    """
    __tracebackhide__ = True
    call = Call(function, args, kwargs)
    with quietly():
        out = call.jitted()
    faults = [f"the result{path}: {fault}" for path, fault in _not_finite(out)]
    learns = [i for i, array in enumerate(call.arrays) if is_inexact(array)]
    if gradients and learns and any(map(is_inexact, jax.tree.leaves(out))):
        with quietly():
            found = jax.jit(jax.grad(lambda *arrays: weighted_sum(call.run(*arrays)), argnums=tuple(learns)))(
                *call.arrays
            )
        given = dict(zip(learns, found, strict=True))
        by_position, by_name = call.filled([given.get(i) for i in range(len(call.arrays))])
        labels = {f"argument {i}": value for i, value in enumerate(by_position)} | by_name
        for label, value in labels.items():
            faults += [f"the gradient of {label}{path}: {fault}" for path, fault in _not_finite(value)]
    if faults:
        raise AssertionError(listed(f"`{called(function)}` is not finite:", faults))


def _not_finite(tree: Any) -> list[tuple[str, str]]:
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if is_inexact(leaf) or isinstance(leaf, float | complex):
            values = np.asarray(leaf).astype(np.complex128)
            bad = ~np.isfinite(values)
            if bad.any():
                where = np.unravel_index(np.argmax(bad), bad.shape)
                place = ", ".join(str(int(i)) for i in where)
                text = f"{bad.sum()} of {bad.size} elements, first at [{place}]: {np.asarray(leaf)[where]}"
                found.append((jax.tree_util.keystr(path), text))
    return found
