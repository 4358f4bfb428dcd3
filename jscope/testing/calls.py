"""One call of any function, as JAX's transforms need it: arrays in, a list of arrays out, all else held still."""

from __future__ import annotations

import contextlib
import re
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope._support import matcher, near, user_line

from .trees import is_array

# For what is run once, to look at derivatives or transforms, not at what XLA makes of them: half the time to compile.
QUICK = {"xla_backend_optimization_level": 0}


class Call:
    """A function and what it is called with.

    Attributes:
      arrays: the arrays among the arguments, in the order of `jax.tree.leaves`.
      count: how many arrays the function gave in the run made last.
      filled: from such a list to `(args, kwargs)` with these arrays in them.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function = function
        self.arrays, self.filled = _split((args, kwargs))
        self._refilled: Callable[[list[Any]], Any] = list
        self.count = 0

    def run(self, *arrays: Any) -> list[Any]:
        """The arrays that the function gives for these arguments."""
        args, kwargs = self.filled(list(arrays))
        out, self._refilled = _split(self.function(*args, **kwargs))
        self.count = len(out)
        return out

    def whole(self, results: Any) -> Any:
        """All that the function gives, with these arrays in it; what is no array is that of the run made last."""
        return self._refilled(list(results))

    def jitted(self) -> Any:
        """What the function gives under `jax.jit`, where arrays alone are traced."""
        # A function of its own, so that JAX knows nothing of it: it files traces by function.
        return self.whole(jax.jit(lambda *arrays: self.run(*arrays))(*self.arrays))


def _split(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays of a tree, and a function that puts others in their place. It holds none, as they may be traced."""
    leaves, structure = jax.tree.flatten(tree)
    others = [None if is_array(leaf) else leaf for leaf in leaves]
    where = [i for i, leaf in enumerate(leaves) if is_array(leaf)]

    def filled(arrays: list[Any]) -> Any:
        every = list(others)
        for i, array in zip(where, arrays, strict=True):
            every[i] = array
        return jax.tree.unflatten(structure, every)

    return [leaves[i] for i in where], filled


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is an array that has derivatives."""
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def names_of(tree: Any) -> list[str]:
    """The names of the leaves of a tree: `tower/kernel`, for `Params` and nested dicts alike."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]


def meant_by(pattern: str, names: Iterable[str]) -> set[str]:
    """The name of that text, or those in the scope of it; else those that it matches from their start, as in TF1.

    Raises:
      AssertionError: if there is none: what is said of none would hold.
    """
    __tracebackhide__ = True
    names = list(names)
    exact = {name for name in names if name == pattern or name.startswith(f"{pattern}/")}
    found = exact or set(filter(matcher(pattern).match, names))
    if not found:
        raise AssertionError(f"No leaf is called {pattern!r}{instead(pattern, names)}.")
    return found


def instead(wanted: str, names: list[str]) -> str:
    """What may have been meant by a name that there is none of."""
    close = near(wanted, names)
    return f"; near it: {', '.join(close)}" if close else f"; there are {', '.join(names[:8])}" if names else ""


def weighted_sum(results: Any) -> jax.Array:
    """One number that depends on every element of what a function gives, on each to another extent.

    A plain sum would not do: that of a softmax is 1, and has no derivative. The sum has at least the precision of each.
    """
    leaves = [leaf for leaf in jax.tree.leaves(results) if is_inexact(leaf)]
    dtypes = [jnp.finfo(leaf.dtype).dtype for leaf in leaves]  # of a complex dtype, that of its parts
    total = jnp.zeros([], max([jnp.dtype("float32"), *dtypes], key=lambda dtype: dtype.itemsize))
    for leaf in leaves:
        parts = [(leaf.real, jnp.sin), (leaf.imag, jnp.cos)] if jnp.iscomplexobj(leaf) else [(leaf, jnp.sin)]
        for part, wave in parts:
            weights = 1 + 0.5 * wave(jnp.arange(leaf.size, dtype=total.dtype)).reshape(leaf.shape)
            total = total + (part.astype(total.dtype) * weights).sum()
    return total


def moved(leaf: Any) -> Any:
    """An inexact array with each element a little moved, as by training: no longer zero, nor all alike."""
    return leaf + (0.1 * np.cos(np.arange(leaf.size))).reshape(leaf.shape).astype(leaf.dtype)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the warning for programs that run without `jax.jit`: under test they do so on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", js.RetraceWarning)
        yield


def bad_argument(what: str, fix: str, where: str | None = None) -> js.BadArgumentError:
    """The error for what an assertion or strategy can't be asked, at the user's line that is running by default."""
    return js.BadArgumentError(what, kind="bad_argument", where=user_line() if where is None else where, fix=fix)


_LIBRARIES = re.compile(r"[\\/](?:site|dist)-packages[\\/]|[\\/]lib[\\/]python3\.\d+[\\/]|^<")
_HOUSE = str(Path(js.__file__).parent)


def raised_at(error: BaseException) -> str:
    """` (at file:line)`: where the user's own code raised, or called what raised; `""` where none of it is there."""
    places = _own(traceback.walk_tb(error.__traceback__))
    return f" (at {places[-1]})" if places else ""


def running_at() -> str:
    """` (at file:line)`: the user's own line that is running; `""` where none is."""
    places = _own(traceback.walk_stack(None))
    return f" (at {places[0]})" if places else ""


def _own(frames: Iterable[tuple[types.FrameType, int]]) -> list[str]:
    files = [(frame.f_code.co_filename, line) for frame, line in frames]
    return [f"{file}:{line}" for file, line in files if not (_LIBRARIES.search(file) or file.startswith(_HOUSE))]


def first_sentence(error: BaseException) -> str:
    """The class of an error and the first sentence of what it says."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {re.split(_END, text)[0][:200]}".rstrip(": .")


_END = r"\.\s+(?=[A-Z])"
