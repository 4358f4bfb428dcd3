"""`assert_traces` and `assert_donation_safe`: what `jax.jit` costs, and whether it may take the memory of arguments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jscope._support import short_type

from .calls import bad_argument, first_sentence, quietly
from .functions import called
from .trees import copies, is_array, listed, rounding, tree_differences


def assert_traces(function: Callable[..., Any], /, *calls: Sequence[Any], traces: int = 1, **jit_options: Any) -> None:
    """Jitted, a function is traced as many times as said, however often it is called.

    A trace more for each call is the commonest reason why JAX is slow: a shape that changes, a Python number where an
    array was, a new function object among the arguments, a dict with other keys.

    Args:
      function: any function, as it is, not yet jitted.
      *calls: the positional arguments of each call, a tuple for each.
      traces: how many times the body of the function may run for all of them together.
      **jit_options: of `jax.jit`, such as `static_argnames`.

    Raises:
      AssertionError: saying which calls were traced anew, and in what their arguments differ from the call before.

    Example:
      >>> from jscope.testing import assert_traces
      >>> def double(x):
      ...     return 2 * x
      >>> assert_traces(double, (jnp.ones(2),), (jnp.zeros(2),))
      >>> assert_traces(double, (jnp.ones(2),), (jnp.ones(3),))
      Traceback (most recent call last):
      AssertionError: `double` is traced 2 times in 2 calls, not 1 time:
        - call 1: arguments[0] was f32[2], is f32[3]
    """
    __tracebackhide__ = True
    if not all(isinstance(call, tuple | list) for call in calls):
        raise bad_argument("Each call is a tuple of arguments.", "write assert_traces(f, (x,), (y,))")
    count = [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return function(*args, **kwargs)

    # static_argnames asks for the parameters' names.
    counted.__wrapped__ = function  # type: ignore[attr-defined]
    jitted, anew = jax.jit(counted, **jit_options), []
    for i, call in enumerate(calls):
        before = count[0]
        jitted(*call)
        if count[0] > before and i:
            anew.append(f"call {i}: {_otherwise(calls[i - 1], call)}")
    if count[0] != traces:
        times = [f"{number} time{'' if number == 1 else 's'}" for number in (count[0], traces)]
        head = f"`{called(function)}` is traced {times[0]} in {len(calls)} calls, not {times[1]}"
        raise AssertionError(listed(f"{head}:", anew) if anew else f"{head}.")


def _otherwise(before: Sequence[Any], now: Sequence[Any]) -> str:
    ours, theirs = (dict(jax.tree_util.tree_leaves_with_path(tuple(call))) for call in (before, now))
    changes, numbers = [], []
    for path, leaf in theirs.items():
        name = f"arguments{jax.tree_util.keystr(path)}"
        if path not in ours:
            changes.append(f"{name} is new")
        elif _kind(ours[path]) != _kind(leaf):
            changes.append(f"{name} was {_kind(ours[path])}, is {_kind(leaf)}")
        elif not is_array(leaf) and ours[path] is not leaf and not isinstance(leaf, int | float | complex):
            changes.append(f"{name} is another {type(leaf).__name__}")
        elif not is_array(leaf) and ours[path] != leaf:
            numbers.append(f"{name} was {ours[path]}, is {leaf}")
    changes += [f"arguments{jax.tree_util.keystr(path)} is gone" for path in ours if path not in theirs]
    # Another number is a reason only where it is static, and JAX does not tell which are.
    told = ", ".join((changes or numbers)[:5])
    return told or "its arguments are of the same kinds: the function itself, or JAX's settings, changed"


def _kind(leaf: Any) -> str:
    if not is_array(leaf):
        return f"a Python {type(leaf).__name__}"
    return short_type(leaf) + (" of weak type" if getattr(leaf, "weak_type", False) else "")


def assert_donation_safe(
    function: Callable[..., Any], /, *args: Any, donate: Sequence[int] = (0,), repeats: int = 3
) -> None:
    """A function gives the same when JAX may reuse the memory of its arguments, also called again with its own results.

    It is jitted with and without `donate_argnums`. Where it gives one donated argument, or a tuple that starts with the
    donated ones, it is called again with these, as a training loop does. So one array that stands in a tree twice
    (parameters and their average, made by `ema = params`), and memory that is donated for nothing, are found.

    Args:
      function: any function of positional arguments, not yet jitted, such as `step(state, batch)`.
      *args: its arguments; they are copied, and stay as they are.
      donate: positions of the arguments that are donated.
      repeats: how many times it is called.

    Raises:
      AssertionError: naming leaves that are one array, what can't be reused, or what differs.

    Example:
      >>> from jscope.testing import assert_donation_safe
      >>> def step(state, x):
      ...     return {"w": state["w"] - x, "ema": 0.9 * state["ema"] + 0.1 * state["w"]}
      >>> w = jnp.ones(3)
      >>> assert_donation_safe(step, {"w": w, "ema": w.copy()}, 1.0)
      >>> assert_donation_safe(step, {"w": w, "ema": w}, 1.0)
      Traceback (most recent call last):
      AssertionError: `step` can't take the memory of its arguments:
        - [0]['ema'] and [0]['w'] are one array, which can be donated once only
    """
    __tracebackhide__ = True
    if not isinstance(donate, Sequence) or not all(i in range(len(args)) for i in donate):
        raise bad_argument(
            f"donate={donate!r:.80} are no positions of the {len(args)} arguments.", "give a tuple such as donate=(0,)"
        )
    name = f"`{called(function)}` can't take the memory of its arguments"
    twice = _one_array([args[i] for i in donate])
    if twice:
        raise AssertionError(listed(f"{name}:", twice))
    plain, donating = (
        jax.jit(lambda *given: function(*given)),
        jax.jit(lambda *given: function(*given), donate_argnums=donate),
    )
    expected = given = tuple(args)
    for i in range(repeats):
        wanted = plain(*expected)
        with warnings.catch_warnings(record=True) as caught, quietly():
            warnings.simplefilter("always")
            try:
                got = donating(*(copies(arg) if j in donate and not i else arg for j, arg in enumerate(given)))
            except (RuntimeError, ValueError) as error:
                raise AssertionError(f"{name} in call {i}: {first_sentence(error)}") from error
        unused = [str(warning.message).splitlines()[0] for warning in caught if _is_of_donation(warning)]
        for warning in caught:
            if not _is_of_donation(warning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        faults = unused or tree_differences(wanted, got, rounding(expected, wanted))
        if faults:
            raise AssertionError(listed(f"{name}:", faults))
        again = [_next(result, args, donate) for result in (wanted, got)]
        if again[0] is None or again[1] is None:
            return
        expected, given = (_merged(args, donate, values) for values in again)


def _is_of_donation(warning: warnings.WarningMessage) -> bool:
    return "donated buffers" in str(warning.message)


def _one_array(trees: Any) -> list[str]:
    first: dict[int, str] = {}
    faults = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        name = jax.tree_util.keystr(path)
        if isinstance(leaf, jax.Array) and first.setdefault(id(leaf), name) != name:
            faults.append(f"{first[id(leaf)]} and {name} are one array, which can be donated once only")
    return faults


def _next(result: Any, args: tuple[Any, ...], donate: Sequence[int]) -> list[Any] | None:
    """What the donated arguments are in the next call, None where the function does not give them."""
    if len(donate) == 1 and jax.tree.structure(result) == jax.tree.structure(args[donate[0]]):
        return [result]
    given = list(result[: len(donate)]) if isinstance(result, tuple | list) else []
    alike = [jax.tree.structure(new) == jax.tree.structure(args[i]) for new, i in zip(given, donate, strict=False)]
    return given if len(alike) == len(donate) and all(alike) else None


def _merged(args: tuple[Any, ...], donate: Sequence[int], values: list[Any]) -> tuple[Any, ...]:
    merged = list(args)
    for i, value in zip(donate, values, strict=True):
        merged[i] = value
    return tuple(merged)
