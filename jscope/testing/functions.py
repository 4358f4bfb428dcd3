"""`assert_functional` and `assert_strict`: what JAX asks of every function that it transforms."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .calls import Call, bad_argument, first_sentence, quietly, raised_at, running_at
from .trees import Tolerance, listed, rounding, tree_differences


def assert_functional(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """A function depends on its arguments alone, changes none of them, leaks nothing, and means the same under jit.

    It is run twice as it is, which must agree to the bit, and twice under `jax.jit`, once with JAX's check for leaked
    tracers. Jitted it may differ by rounding: as in `assert_close`, and, since that is what is left where large numbers
    cancel, by 8 steps of the precision of the largest number that goes in or comes out, but for no number by more than
    `assert_close` allows for a 1. So randomness that is not from a key, counters, caches, `print`-like side effects on
    what it is given, and `isinstance(x, Tracer)` are found.

    Args:
      function: any function, of jscope or not: `net.apply`, a Flax module's `apply`, a training step.
      *args, **kwargs: its arguments. Arrays among them, keys too, are traced under `jax.jit`, all else stays as it is.

    Raises:
      AssertionError: saying what differs between which runs, or what was leaked.

    Example:
      >>> from jscope.testing import assert_functional
      >>> seen = []
      >>> def scaled(x):
      ...     seen.append(1)
      ...     return x * len(seen)
      >>> assert_functional(scaled, jnp.ones(2))
      Traceback (most recent call last):
      AssertionError: `scaled` is no function of its arguments: a second run differs from the first:
        - 2 of 2 elements differ, by 1 at most, at [0]: 1.0, then 2.0
    """
    __tracebackhide__ = True
    name = f"`{called(function)}` is no function of its arguments"
    given = {"args": args, "kwargs": kwargs}
    before, call = _held(given), Call(function, args, kwargs)
    runs = []
    for _ in range(2):
        with quietly():
            runs.append(_held(function(*args, **kwargs)))
        _agree(before, given, f"{name}: it changed what it was given", None)
    first, second = runs
    _agree(first, second, f"{name}: a second run differs from the first", None)
    _agree(first, call.jitted(), f"{name}: jitted, it gives something else", rounding(given, first))
    broken = _broken(call, jax.checking_leaks())
    if broken is not None:
        raise AssertionError(f"{name}: {leak_of(broken)}") from broken


def _held(tree: Any) -> Any:
    """The tree as it is now, in containers and arrays of NumPy of its own: nobody else changes them."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, tree)


def _agree(first: Any, second: Any, what: str, within: Tolerance | None) -> None:
    __tracebackhide__ = True
    faults = tree_differences(first, second, within)
    if faults:
        raise AssertionError(listed(f"{what}:", faults))


def called(function: Callable[..., Any]) -> str:
    """The name of a function, or what stands for it."""
    return getattr(function, "__name__", None) or type(function).__name__


def leak_of(error: BaseException) -> str:
    """What an error of JAX's check for leaks says, in one line."""
    if "Leaked" not in str(error):
        return first_sentence(error) + raised_at(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = next((line for line in lines[1:] if "Tracer" in line), lines[0])
    return f"it keeps {kept} after the trace has ended (a global, an attribute or a default argument holds it)"


def _is_key(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def _mixed(error: Exception) -> list[str]:
    """The dtypes of which JAX says that they have no promotion path."""
    return sorted(re.findall(r"'(\w+)'", str(error).partition("have no")[0]))


def _is_harmless(rule: str, error: Exception) -> bool:
    """Whether JAX refuses what is right: a float times a bool or an integer, where no other float is widened."""
    return rule == "dtype_promotion" and any(dtype.startswith(("bool", "int", "uint")) for dtype in _mixed(error))


def _told(rule: str, error: Exception) -> str:
    match rule:
        case "leaks":
            return leak_of(error)
        case "outer_broadcast":
            return str(error)
        case "dtype_promotion" if _mixed(error):
            return f"{' and '.join(_mixed(error))} are mixed{raised_at(error)}"
        case _:
            return first_sentence(error) + raised_at(error)


def _broken(call: Call, setting: contextlib.AbstractContextManager[Any]) -> Exception | None:
    """What a jitted run raises under a setting of JAX's, where nothing is taken from earlier traces."""
    try:
        with _unseen(next(_numbers)), setting:
            call.jitted()
    except Exception as error:
        return error
    return None


# JAX files what it traced, and finds leaks and ranks only while it traces. A number that it has not seen is part of the
# key.
_unseen = jax.make_user_context(None)
_numbers = itertools.count()


class _OuterBroadcastError(Exception):
    """Raised at the end of a run in which two arrays of other ranks were both widened."""


@contextlib.contextmanager
def _no_outer_broadcast() -> Iterator[None]:
    found: list[str] = []

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        shapes = [tuple(map(int, re.findall(r"\d+", shape))) for shape in re.findall(r"\(([\d, ]*)\)", str(message))]
        if "rank promotion" in str(message) and shapes:
            together = np.broadcast_shapes(*shapes)
            if all(math.prod(shape) < math.prod(together) for shape in shapes):
                found.append(f"{' and '.join(map(str, shapes))} make {together}{running_at()}")

    with warnings.catch_warnings(), jax.numpy_rank_promotion("warn"):
        warnings.simplefilter("always")
        warnings.showwarning = note
        yield
    if found:
        raise _OuterBroadcastError("; ".join(dict.fromkeys(found)))


# What is refused, by the name that `allow` takes.
_RULES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "key_reuse": lambda: jax.debug_key_reuse(True),
    "outer_broadcast": _no_outer_broadcast,
    "dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "leaks": jax.checking_leaks,
}


def assert_strict(function: Callable[..., Any], /, *args: Any, allow: Collection[str] = (), **kwargs: Any) -> None:
    """A function passes strict checks that JAX leaves off by default, all of them at once.

    It runs once under `jax.jit` for each rule:

    * `key_reuse`: no random key is consumed twice: two dropouts of one key drop the same.
    * `outer_broadcast`: no `(n, 1)` meets an `(n,)`, which makes an `(n, n)` silently. A bias `(m,)` may be added
      to an `(n, m)`.
    * `dtype_promotion`: no `float32` array meets a `bfloat16` one, which widens all that comes after. JAX stops at the
      first mixture; if that is a float with a bool or an integer, which is right, this rule sees no further.
    * `leaks`: no tracer outlives its trace.

    Args:
      function: any function, of jscope or not.
      *args, **kwargs: its arguments. Keys must be typed ones (`jax.random.key`) for `key_reuse`.
      allow: names of the rules that need not hold.

    Raises:
      AssertionError: listing each rule that is broken, with JAX's own message and the user's line.

    Example:
      >>> from jscope.testing import assert_strict
      >>> def loss(prediction, target):
      ...     return ((prediction - target) ** 2).mean()
      >>> assert_strict(loss, jnp.ones((3, 1)), jnp.ones((3, 1)))
      >>> try:
      ...     assert_strict(loss, jnp.ones((3, 1)), jnp.ones(3))
      ... except AssertionError as error:
      ...     print(str(error).partition(" (at ")[0])
      `loss` breaks 1 of the strict rules:
        - outer_broadcast: (3, 1) and (3,) make (3, 3)
    """
    __tracebackhide__ = True
    unknown = set(allow) - set(_RULES)
    if unknown:
        raise bad_argument(f"There is no rule {', '.join(sorted(unknown))}.", f"allow some of {', '.join(_RULES)}")
    call = Call(function, args, kwargs)
    call.jitted()  # what fails without any rule is no broken rule
    # JAX notes in a key itself that it was consumed, by an earlier test perhaps.
    call.arrays = [jax.random.clone(array) if _is_key(array) else array for array in call.arrays]
    broken = {rule: _broken(call, _RULES[rule]()) for rule in _RULES if rule not in allow}
    found = {rule: error for rule, error in broken.items() if error is not None and not _is_harmless(rule, error)}
    if found:
        told = [f"{rule}: {_told(rule, error)}" for rule, error in found.items()]
        cause = next(iter(found.values()))
        raise AssertionError(listed(f"`{called(function)}` breaks {len(told)} of the strict rules:", told)) from cause
