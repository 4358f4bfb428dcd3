"""What the files of this room raise, and the checks that raise it."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

import jscope as js

from .._support import near, user_line


def bad_argument(what: str, *, asked: str, fix: str, close: Iterable[str] = ()) -> js.BadArgumentError:
    """An argument that means nothing here; `close` are names that were perhaps meant."""
    return js.BadArgumentError(what, kind="bad_argument", asked=asked, where=user_line(), fix=fix, near=close)


def unknown_name(argument: str, given: str, names: Iterable[str], *, asked: str, fix: str) -> js.BadArgumentError:
    """A name that is none of `names`."""
    names = list(names)
    what = f"{argument}={given!r} is none of the names that there are: {', '.join(names)}."
    return bad_argument(what, asked=asked, fix=fix, close=near(str(given), names))


def as_input(inputs: Any, asked: str, ranks: tuple[int, ...] = ()) -> jax.Array:
    """A floating input as an array, of a number of dimensions that is one of `ranks`, where those are given.

    Raises:
      BadArgumentError: for another.
    """
    x = as_array(inputs, asked)
    check_floating(x, asked)
    if ranks:
        check_rank(x, ranks, asked)
    return x


def as_array(inputs: Any, asked: str) -> jax.Array:
    """An input as an array.

    Raises:
      BadArgumentError: for what is none, such as None or text.
    """
    if isinstance(inputs, jax.Array):
        return inputs
    try:
        return jnp.asarray(inputs)
    except (TypeError, ValueError) as error:
        raise bad_argument(
            f"{asked} takes an array, not {inputs!r:.80}.", asked=asked, fix="give an array, or a list of numbers"
        ) from error


def is_floating(dtype: Any) -> bool:
    """Whether a dtype is one of floating or complex numbers."""
    # The kind tells most of them, and far sooner; some of JAX's own have the kind of raw bytes, or none.
    return getattr(dtype, "kind", "V") in "fc" or jnp.issubdtype(dtype, jnp.inexact)


def check_floating(x: Any, asked: str) -> None:
    """Raises BadArgumentError for integers, bools and keys: what comes out, and the variables, have the same dtype."""
    if not is_floating(x.dtype):
        raise bad_argument(
            f"{asked} takes floating numbers, and gives the dtype that it is given; the input has dtype {x.dtype}.",
            asked=asked,
            fix="give an array of numbers, such as x.astype(jnp.float32)",
        )


def whole(number: Any) -> int | None:
    """A whole number of Python's, NumPy's or JAX's as one of Python's; None for anything else, and for a traced one."""
    try:
        return operator.index(number)
    except TypeError:
        return None


def as_whole(number: Any, name: str, asked: str) -> int:
    """A whole number.

    Raises:
      BadArgumentError: for anything else.
    """
    found = whole(number)
    if found is None:
        raise bad_argument(f"{name}={number!r:.80} is no integer.", asked=asked, fix="give an integer")
    return found


def as_size(size: Any, name: str, asked: str) -> int:
    """A positive integer.

    Raises:
      BadArgumentError: for anything else.
    """
    found = whole(size)
    if found is None or found <= 0:
        raise bad_argument(f"{name}={size!r:.80} is no positive integer.", asked=asked, fix="give a positive integer")
    return found


def items(value: Any) -> tuple[Any, ...] | None:
    """What a list, tuple or array holds; None for a single thing."""
    is_several = isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "shape", None) != ()
    return tuple(value) if is_several else None


def wide(integers: jax.Array) -> jax.Array:
    """Integers of 32 bits or more: in fewer, the sizes that they are compared with would wrap around."""
    return integers.astype(jnp.int32) if integers.dtype.itemsize < 4 else integers


def as_training(training: Any, asked: str, name: str = "training") -> bool | jax.Array:
    """The flag that tells training from the rest, as a bool of Python's, or the array that it is.

    As in TensorFlow, what is neither a bool, nor 0 or 1, nor a scalar array is refused: text such as "False" is true.

    Raises:
      BadArgumentError: for anything else.
    """
    if training is True or training is False:
        return training
    if isinstance(training, jax.Array):
        is_scalar = not training.shape and _holds_numbers(training)
        if is_scalar and (isinstance(training, jax.core.Tracer) or training.item() in (0, 1)):
            return training
    else:
        plain = training[()] if isinstance(training, np.ndarray) else training
        if isinstance(plain, int | float | np.generic) and plain in (0, 1):
            return bool(plain)
    phase = "; there is no learning phase of Keras" if training is None else ""
    raise bad_argument(
        f"{name}={training!r:.80} is neither True nor False, nor a scalar array of them{phase}.",
        asked=asked,
        fix=f"give {name}=True or {name}=False",
    )


def as_flag(flag: Any, name: str, asked: str) -> bool:
    """A flag that is known before anything is computed, as a bool of Python's; JAX refuses one that it traces.

    Raises:
      BadArgumentError: for what is neither a bool, nor 0 or 1: text such as "False" is true.
    """
    return bool(as_training(flag, asked, name))


def as_probability(given: Any, name: str, asked: str, *, is_kept: bool = False) -> float | jax.Array:
    """A probability to be dropped, in [0, 1), or to be kept, in (0, 1], as a float, or the array that it is.

    Raises:
      BadArgumentError: for another number, as far as it is known, and for what is none.
    """
    check_numbers(asked, **{name: given})
    if isinstance(given, jax.core.Tracer):
        return given
    number = np.asarray(given)
    if not ((number > 0) & (number <= 1) if is_kept else (number >= 0) & (number < 1)).all():
        what, allowed = f"{name}={given!r:.80} is no probability below 1.", "[0, 1)"
        if is_kept:
            what, allowed = f"{name}: a probability of {given!r:.80} to be kept is not in (0, 1].", "(0, 1]"
        raise bad_argument(what, asked=asked, fix=f"give a number in {allowed}")
    return given if isinstance(given, jax.Array) or number.ndim else float(number)


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


def check_numbers(asked: str, **given: Any) -> None:
    """Raises BadArgumentError for what is neither a number nor an array, under the name of its argument."""
    for name, value in given.items():
        is_array = isinstance(value, np.generic | np.ndarray | jax.Array)
        if not (_holds_numbers(value) if is_array else isinstance(value, int | float)):
            raise bad_argument(f"{name}={value!r:.80} is no number.", asked=asked, fix=f"give a number as {name}=")


def _holds_numbers(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.number) or jnp.issubdtype(array.dtype, jnp.bool_)


def check_bounds(asked: str, **given: Any) -> None:
    """Raises BadArgumentError for a bound of sizes that is not positive, as far as it is known; None is no bound."""
    for name, value in given.items():
        if value is None:
            continue
        check_numbers(asked, **{name: value})
        if not isinstance(value, jax.core.Tracer) and not (np.asarray(value) > 0).all():
            raise bad_argument(
                f"{name}={value!r:.80} is no positive number.",
                asked=asked,
                fix="give one above 0, or None for no bound",
            )


def check_keys(given: Any, names: Iterable[str], argument: str, asked: str) -> None:
    """Raises BadArgumentError for what is no dict, and for a key that is none of `names`."""
    if not isinstance(given, Mapping):
        raise bad_argument(
            f"{argument}={given!r:.80} is no dict.", asked=asked, fix="give a dict by the names of variables"
        )
    for key in given:
        if key not in names:
            raise unknown_name(f"{argument}: key", key, names, asked=asked, fix="correct the key, or leave it out")


@contextlib.contextmanager
def of_variables(asked: str) -> Iterator[None]:
    """Around what needs the very arrays of variables: says that a custom getter has given others, where one has."""
    try:
        yield
    except js.BadArgumentError as error:
        if error.kind == "not_a_variable" and js.get_variable_scope().custom_getter is not None:
            error.exists = f"a custom getter is in force, and has given {asked} something else than the variable"
            error.fix = (
                "let the custom getter give on what `getter(name, *args, **kwargs)` gave, as it is, for the variables "
                "that the layer moves or lists; it can tell them by their names"
            )
        raise


def check_cells(asked: str, **cells: Any) -> None:
    """Raises BadArgumentError for what is no cell, under the name of its argument."""
    for name, cell in cells.items():
        if isinstance(cell, type) or not hasattr(cell, "zero_state"):
            raise bad_argument(
                f"{name}={cell!r:.80} is no cell.", asked=asked, fix="give an object such as LSTMCell(num_units)"
            )


def refuse(asked: str, fix: str, **arguments: Any) -> None:
    """Raises BadArgumentError for the first argument that is not None: it would change values, and can't be had."""
    for name, value in arguments.items():
        if value is not None:
            raise bad_argument(f"{asked} does not support {name}={value!r}.", asked=asked, fix=fix)
