"""What the files of this room raise, and the checks that raise it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

import jscope as js

from .._support import near, user_line


def bad_argument(what: str, *, asked: str, fix: str, close: Iterable[str] = ()) -> js.BadArgumentError:
    """An argument that means nothing here; `close` are names that were perhaps meant."""
    return js.BadArgumentError(what, kind="bad_argument", asked=asked, where=user_line(), fix=fix, near=close)


def unknown_name(argument: str, given: str, names: Iterable[str], *, asked: str, fix: str) -> js.BadArgumentError:
    """A name that is none of `names`."""
    names = list(names)
    what = f"{argument}={given!r} is none of the names that there are: {', '.join(names)}."
    return bad_argument(what, asked=asked, fix=fix, close=near(given, names))


def as_input(inputs: Any, asked: str, ranks: tuple[int, ...] = ()) -> jax.Array:
    """A floating input as an array, of a number of dimensions that is one of `ranks`, where those are given.

    Raises:
      BadArgumentError: for another.
    """
    x = inputs if isinstance(inputs, jax.Array) else jnp.asarray(inputs)
    check_floating(x, asked)
    if ranks:
        check_rank(x, ranks, asked)
    return x


def check_floating(x: Any, asked: str) -> None:
    """Raises BadArgumentError for an input of integers or bool: its dtype would be that of the variables."""
    if x.dtype.kind in "biu":
        raise bad_argument(
            f"{asked} takes floating numbers, and its variables have their dtype; the input has dtype {x.dtype}.",
            asked=asked,
            fix="convert it: x.astype(jnp.float32)",
        )


def check_rank(x: Any, ranks: tuple[int, ...], asked: str) -> None:
    """Raises BadArgumentError for an input whose number of dimensions is none of `ranks`."""
    if x.ndim not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise bad_argument(
            f"{asked} takes an input of {wanted} dimensions, not one of shape {x.shape}.",
            asked=asked,
            fix="reshape the input",
        )


def check_min_rank(x: Any, rank: int, asked: str) -> None:
    """Raises BadArgumentError for an input of fewer dimensions than `rank`."""
    if x.ndim < rank:
        raise bad_argument(
            f"{asked} takes an input of at least {rank} dimensions, not one of shape {x.shape}.",
            asked=asked,
            fix="reshape the input",
        )


@contextlib.contextmanager
def both_ways(training: Any) -> Iterator[None]:
    """Around what is done in training only: where it can't be done, and `training` is an array, says that this is why.

    An array may be traced, so that a layer computes what it gives in training and what it gives else, and selects.
    """
    try:
        yield
    except (js.AssignError, js.MissingRngError) as error:
        if isinstance(training, jax.Array):
            is_traced = isinstance(training, jax.core.Tracer)
            what = "traced" if is_traced else "an array"
            error.exists = f"`training` of the layer is {what}, so it computes what it gives in training, too"
            error.fix += "; or give it as plain Python, True or False"
            error.fix += ": where it comes in through jax.jit, static_argnames=..." if is_traced else ""
        raise


def refuse(asked: str, fix: str, **arguments: Any) -> None:
    """Raises BadArgumentError for the first argument that is not None: it would change values, and can't be had."""
    for name, value in arguments.items():
        if value is not None:
            raise bad_argument(f"{asked} does not support {name}={value!r}.", asked=asked, fix=fix)
