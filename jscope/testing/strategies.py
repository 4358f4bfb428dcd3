"""Strategies for the small things: names, shapes, dtypes, arrays, and trees of them. Public names of jscope only."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import jscope as js
from jscope._support import user_line

from .calls import bad_argument

# TensorFlow's pattern for names at the root; inside a scope more is allowed.
_ROOT_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
# What a part after a slash may not begin with, where it has to stand at the root on its own.
_BAD_PART = re.compile(r"/[_\\>-]")

_VARIABLES = ("w", "b", "kernel", "bias", "gamma")
_SCOPES = ("a", "b", "tower", "head", "layer_1")
_WIDE = ("float64", "int64")
_DTYPES = ("float32", "int32", "float16", "bfloat16", "bool", "uint8")


def names(*, odd: bool = True) -> SearchStrategy[str]:
    """Names of variables, valid everywhere: mostly short and plain, so that failures shrink to readable ones.

    Args:
      odd: whether to give names that few people write and TF1 allows as well: with slashes, empty parts (`a//v`), upper
        case, digits, dots, dashes. None ends in a slash.

    Returns:
      A strategy for strings.

    Example:
      >>> from hypothesis import given, settings
      >>> from jscope.testing import names
      >>> @given(names())
      ... @settings(max_examples=10, deadline=None)
      ... def test(name):
      ...     assert list(js.transform(lambda: js.get_variable(name, [])).specs()) == [name]
      >>> test()
    """
    return _names(_VARIABLES, odd).filter(lambda name: not name.endswith("/"))


def scope_names(*, odd: bool = True) -> SearchStrategy[str]:
    """Names of variable scopes, valid everywhere.

    That is less than TF1 takes at first: a scope `a/_b` opens, but entered again through its scope object at the root
    it is refused, since the op scope is then called `_b`.

    Args:
      odd: as in `names`; these may end in a slash.

    Returns:
      A strategy for strings.

    Example:
      >>> from hypothesis import given, settings
      >>> from jscope.testing import scope_names
      >>> @given(scope_names())
      ... @settings(max_examples=10, deadline=None)
      ... def test(name):
      ...     with js.build(jax.random.key(0)), js.variable_scope(name) as scope:
      ...         assert scope.name == name
      >>> test()
    """
    return _names(_SCOPES, odd).filter(lambda name: not _BAD_PART.search(name))


def _names(common: tuple[str, ...], odd: bool) -> SearchStrategy[str]:
    plain = st.sampled_from(common) | st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=3)
    if not odd:
        return plain
    parts = st.lists(st.text("0aZ_.->\\", max_size=3), min_size=1, max_size=3)
    return plain | parts.map("/".join).filter(_ROOT_NAME.fullmatch)


def shapes(*, max_dims: int = 3, max_side: int = 3) -> SearchStrategy[tuple[int, ...]]:
    """Shapes, scalars and empty ones included.

    They are small and few by default: JAX compiles an initializer once for each shape and dtype.

    Args:
      max_dims: most dimensions.
      max_side: largest dimension.

    Returns:
      A strategy for tuples of ints.

    Example:
      >>> from hypothesis import given
      >>> from jscope.testing import shapes
      >>> @given(shapes(max_dims=2, max_side=4))
      ... def test(shape):
      ...     assert len(shape) <= 2 and max(shape, default=0) <= 4
      >>> test()
    """
    return st.lists(st.integers(0, max_side), max_size=max_dims).map(tuple)


def dtypes() -> SearchStrategy[Any]:
    """Dtypes of variables that JAX has, and for which TF1 has a default initializer; of 64 bits too where x64 is on.

    Returns:
      A strategy for NumPy dtypes.

    Example:
      >>> from hypothesis import given, settings
      >>> from jscope.testing import dtypes
      >>> @given(dtypes())
      ... @settings(max_examples=10, deadline=None)
      ... def test(dtype):
      ...     assert jnp.zeros([2], dtype).dtype == dtype
      >>> test()
    """
    return _dtypes()


@st.composite
def _dtypes(draw: st.DrawFn) -> Any:
    # Asked when one is drawn: the strategy is made when a file is imported, before `jax.enable_x64` is entered.
    has_wide = jax.dtypes.canonicalize_dtype("int64") == np.int64
    return jnp.dtype(draw(st.sampled_from(_DTYPES + _WIDE if has_wide else _DTYPES)))


def arrays(
    shapes: SearchStrategy[tuple[int, ...]] | tuple[int, ...] | None = None,
    dtypes: SearchStrategy[Any] | Any = None,
    *,
    elements: SearchStrategy[Any] | None = None,
    special: bool = False,
) -> SearchStrategy[jax.Array]:
    """JAX arrays of small numbers that every dtype holds exactly: multiples of a half from -2.5 to 2.5, or integers.

    A failure shows them as code that can be pasted: `jnp.float32([0.5, 1.0])`. NaN and infinity stand there as `nan`
    and `inf`, which `math` has.

    Args:
      shapes: a shape or a strategy for shapes; default `shapes()`.
      dtypes: a dtype or a strategy for dtypes; default `dtypes()`.
      elements: a strategy for the numbers, each of which is then drawn on its own: slower, for small arrays.
      special: whether some elements are what breaks formulas: NaN, infinities, -0.0, the smallest normal and subnormal
        number, the largest; of integers the smallest and the largest.

    Returns:
      A strategy for arrays, of 32 bits where 64-bit types are off. It raises BadArgumentError for what is no shape, and
      for elements that the dtype can't hold.

    Example:
      >>> from hypothesis import given, settings
      >>> from hypothesis import strategies as st
      >>> from jscope.testing import arrays
      >>> @given(arrays((2,), jnp.float32), arrays((), jnp.float32, elements=st.floats(0, 1, width=32)))
      ... @settings(max_examples=10, deadline=None)
      ... def test(x, y):
      ...     assert (abs(x) <= 2.5).all() and 0 <= y <= 1
      >>> test()
    """
    # Where it is made: when it is drawn, no line of the user's need be running.
    return _arrays(shapes, dtypes, elements, special, user_line())


@st.composite
def _arrays(draw: st.DrawFn, of_shape: Any, of_dtype: Any, elements: Any, special: bool, where: str) -> jax.Array:
    shape = _draw_or_take(draw, shapes() if of_shape is None else of_shape)
    check_shape(shape, where)
    dtype = jax.dtypes.canonicalize_dtype(_draw_or_take(draw, dtypes() if of_dtype is None else of_dtype))
    size = math.prod(shape)
    if elements is not None:
        values = _converted(draw(st.lists(elements, min_size=size, max_size=size)), dtype, where)
    else:
        # Two numbers for the whole array: drawing every element would be slow and would shrink slowly.
        start, step = draw(st.integers(-5, 5)), draw(st.integers(0, 10))
        values = (start + 5 + step * np.arange(size)) % 11 - 5
        if jnp.issubdtype(dtype, jnp.inexact):
            values = values / 2
        elif not jnp.issubdtype(dtype, jnp.signedinteger):
            values = abs(values) % 2 if dtype.kind == "b" else abs(values)
        values = values.astype(dtype)
    if special and size and dtype.kind != "b":
        for place in draw(st.lists(st.integers(0, size - 1), max_size=3, unique=True)):
            values[place] = draw(st.sampled_from(_special(dtype)))
    # Drawn by a call, since hypothesis shows calls; and by a short one, since it prefers a shorter `repr`.
    if not size:
        return draw(st.builds(_empty, st.just(shape), st.just(dtype.name)))
    return draw(st.builds(_maker(dtype.name), st.just(_shortest(values.reshape(shape)))))


def check_shape(shape: Any, where: str | None = None) -> None:
    """Raises BadArgumentError for what is no shape."""
    if not isinstance(shape, Sequence) or not all(isinstance(side, int | np.integer) and side >= 0 for side in shape):
        raise bad_argument(f"{shape!r:.80} is no shape.", "give a tuple of sizes from 0 on, such as (2, 3)", where)


def _converted(numbers: list[Any], dtype: Any, where: str) -> np.ndarray:
    """Numbers as an array of that dtype: those that are finite stay so, and integers are no others."""
    try:
        with np.errstate(over="ignore"):
            given, values = np.array(numbers), np.array(numbers, dtype)
        if jnp.issubdtype(dtype, jnp.inexact):
            holds = np.isfinite(values) == np.isfinite(given.astype(np.complex128))
        else:
            holds = values == given
    except (OverflowError, TypeError, ValueError):  # too large, a complex number for a float, a text
        holds, values = np.array(False), None
    if values is None or not holds.all():
        what = f"elements= gave {numbers!r:.80}, which {dtype} can't hold."
        raise bad_argument(what, "draw numbers of that dtype", where)
    return values


def _shortest(values: np.ndarray) -> Any:
    """As lists of Python's numbers: 0.1 where float32 holds 0.10000000149011612, which is the same in that dtype."""
    if values.dtype.kind in "biuc":
        return values.tolist()
    return np.vectorize(lambda number: float(str(number)), otypes=[object])(values).tolist()


@functools.cache
def _maker(dtype: str) -> Callable[[Any], jax.Array]:
    def make(values: Any) -> jax.Array:
        return jnp.array(values, dtype)

    make.__name__ = f"jnp.{dtype}" if dtype != "bool" else "jnp.bool_"
    return make


def _empty(shape: tuple[int, ...], dtype: str) -> jax.Array:
    return jnp.zeros(shape, dtype)


_empty.__name__ = "jnp.zeros"


def _special(dtype: Any) -> list[Any]:
    if jnp.issubdtype(dtype, jnp.integer):
        limits = jnp.iinfo(dtype)
        return [0, limits.min, limits.max]
    limits = jnp.finfo(dtype)
    return [0.0, -0.0, limits.tiny, limits.smallest_subnormal, limits.max, limits.min, np.nan, np.inf, -np.inf]


def _draw_or_take(draw: st.DrawFn, value: Any) -> Any:
    return draw(value) if isinstance(value, SearchStrategy) else value


def params(
    *,
    names: SearchStrategy[str] | None = None,
    leaves: SearchStrategy[Any] | None = None,
    min_leaves: int = 0,
    max_leaves: int = 6,
    colliding: bool = True,
) -> SearchStrategy[js.Params]:
    """Trees of parameters, nested up to three names deep; some names differ by an ending only (`w`, `w-`, `w0`).

    Args:
      names: a strategy for the names that full names are put together from; default `names()`.
      leaves: a strategy for leaves; default `arrays()`.
      min_leaves, max_leaves: least and most leaves.
      colliding: whether a variable and a scope may have one name (`a` and `a/b`), which no nested dict can hold.

    Returns:
      A strategy for `Params`.

    Example:
      >>> from hypothesis import given, settings
      >>> from jscope.testing import params
      >>> @given(params(colliding=False))
      ... @settings(max_examples=10, deadline=None)
      ... def test(tree):
      ...     assert js.Params(tree.to_dict()) == tree
      >>> test()
    """
    return _params(names, leaves, min_leaves, max_leaves, colliding)


@st.composite
def _params(
    draw: st.DrawFn,
    of_name: SearchStrategy[str] | None,
    leaves: SearchStrategy[Any] | None,
    min_leaves: int,
    max_leaves: int,
    colliding: bool,
) -> js.Params:
    # Few parts for many names: so scopes hold more than one variable, and names collide.
    parts = draw(st.lists(names() if of_name is None else of_name, min_size=1, max_size=3, unique=True))
    if of_name is None:
        # In sorted order these stand around what lies in scope parts[0], "-" before the slash and "0" after it.
        parts = [*parts, parts[0] + "-", parts[0] + "0"]
    if colliding:
        # Drawn part by part, which shrinks to fewer and shorter names than a choice from all that the parts make.
        found = ["/".join(chosen) for depth in (1, 2, 3) for chosen in itertools.product(parts, repeat=depth)]
        one = st.lists(st.sampled_from(parts), min_size=1, max_size=3).map("/".join)
    else:
        # No part is a scope here and a variable there; a part may have a slash in it, hence the last line.
        scopes, last = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        chosen = [chosen for depth in (0, 1, 2) for chosen in itertools.product(scopes, repeat=depth)]
        found = ["/".join([*scope, name]) for scope in chosen for name in last]
        found = [name for name in found if not any(other.startswith(name + "/") for other in found)]
        one = st.sampled_from(found)
    found = list(dict.fromkeys(found))
    if len(found) < min_leaves:
        reject()
    most = min(max(max_leaves, min_leaves), len(found))
    chosen_names = draw(st.lists(one, min_size=min_leaves, max_size=most, unique=True))
    of_leaf = arrays() if leaves is None else leaves
    tree = {name: draw(of_leaf) for name in chosen_names}
    return draw(st.builds(_tree, st.just(tree)))


def _tree(leaves: dict[str, Any]) -> js.Params:
    return js.Params(leaves)


_tree.__name__ = "js.Params"
