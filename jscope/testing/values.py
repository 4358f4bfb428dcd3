"""`assert_drawn` and `assert_round_trips`: how values are distributed, and that they survive a way out and back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope._support import short_type

from .calls import bad_argument, first_sentence
from .functions import called
from .trees import is_array, listed, tree_differences


def assert_drawn(values: Any, *, stddev: float, mean: float = 0.0) -> None:
    """Initial values have the mean and the standard deviation that they should have.

    The allowance is five standard errors, of a normal distribution: a wrong `stddev` or a fan-in taken for a fan-out
    is found with a few hundred values, and a right one fails once in a million keys.

    Args:
      values: an array, or a tree whose arrays are drawn from one distribution; 100 values at least, all together.
      stddev: the standard deviation that is meant, above zero.
      mean: the mean that is meant.

    Raises:
      AssertionError: with the mean and the standard deviation that the values have.
      BadArgumentError: for fewer values, and for those that are no real numbers.

    Example:
      >>> from jscope.testing import assert_drawn
      >>> init = jax.nn.initializers.normal(0.02)
      >>> assert_drawn(init(jax.random.key(0), (64, 64)), stddev=0.02)
      >>> assert_drawn(init(jax.random.key(0), (64, 64)), stddev=0.05)
      Traceback (most recent call last):
      AssertionError: The 4096 values are not drawn as they should be:
        - their standard deviation is 0.0202, not 0.05 (by 0.00276 at most)
    """
    __tracebackhide__ = True
    leaves = [leaf for leaf in jax.tree.leaves(values) if is_array(leaf)]
    for leaf in leaves:
        if not any(jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            fix = "give real numbers; of complex ones [x.real, x.imag], each with its own standard deviation"
            raise bad_argument(f"{short_type(leaf)} holds no real numbers.", fix)
    every = np.concatenate([np.zeros(0), *(np.asarray(leaf).astype(np.float64).ravel() for leaf in leaves)])
    if every.size < 100:
        raise bad_argument(f"There are {every.size} values.", "give 100 or more, since chance decides over few")
    error = 5 * stddev / every.size**0.5
    faults = []
    for what, is_now, meant, most in (
        ("mean", every.mean(), mean, error),
        ("standard deviation", every.std(), stddev, error / 2**0.5),
    ):
        if not abs(is_now - meant) <= most:
            faults.append(f"their {what} is {is_now:.3g}, not {meant:.3g} (by {most:.3g} at most)")
    if faults:
        raise AssertionError(listed(f"The {every.size} values are not drawn as they should be:", faults))


def assert_round_trips(tree: Any, /, *ways: Callable[[Any], Any]) -> None:
    """A tree comes back the same, to the bit, from each way out and back.

    Args:
      tree: any tree; a `Params` also goes through nested and flat dicts.
      *ways: functions from a tree to what comes back, such as one that saves and loads it; pickling, copying, and
        flattening are tried always.

    Raises:
      AssertionError: naming the way, and the leaves that differ.

    Example:
      >>> from jscope.testing import assert_round_trips
      >>> def through_text(tree):
      ...     return jax.tree.map(lambda leaf: jnp.float32(f"{leaf:.3f}"), tree)
      >>> assert_round_trips({"w": jnp.float32(0.25)}, through_text)
      >>> assert_round_trips({"w": jnp.float32(0.123456)}, through_text)
      Traceback (most recent call last):
      AssertionError: The tree does not survive through_text:
        - ['w']: 1 of 1 elements differ, by 0.000456 at most, at []: 0.123456, then 0.123
    """
    __tracebackhide__ = True
    own: dict[str, Callable[[Any], Any]] = {
        "pickling": lambda tree: pickle.loads(pickle.dumps(tree)),
        "copying": copy.copy,
        "deep copying": copy.deepcopy,
        "flattening": lambda tree: jax.tree.unflatten(*reversed(jax.tree.flatten(tree))),
    }
    if isinstance(tree, js.Params):
        own["to_dict(flat=True)"] = lambda tree: js.Params.from_dict(tree.to_dict(flat=True))
        if not any(other.startswith(f"{name}/") for name in tree.names for other in tree.names):
            own["to_dict()"] = lambda tree: js.Params.from_dict(tree.to_dict())
    for name, way in [*own.items(), *((called(way), way) for way in ways)]:
        try:
            back = way(tree)
        except Exception as error:
            raise AssertionError(f"The tree does not survive {name}: {first_sentence(error)}") from error
        faults = tree_differences(tree, back)
        if faults:
            raise AssertionError(listed(f"The tree does not survive {name}:", faults))
