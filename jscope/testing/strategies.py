"""Strategies for the small things: names, shapes, dtypes, arrays, and trees of them. Public names of jscope only."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import jscope as js

# TensorFlow's pattern for names at the root; inside a scope more is allowed.
_ROOT_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
# What a part after a slash may not begin with, where it has to stand at the root on its own.
_BAD_PART = re.compile(r"/[_\\>-]")

_VARIABLES = ("w", "b", "kernel", "bias", "gamma")
_SCOPES = ("a", "b", "tower", "head", "layer_1")
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
    """Dtypes of variables that JAX has without x64 and for which TF1 has a default initializer.

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
    return st.sampled_from(_DTYPES).map(jnp.dtype)


def arrays(
    shapes: SearchStrategy[tuple[int, ...]] | tuple[int, ...] | None = None,
    dtypes: SearchStrategy[Any] | Any = None,
) -> SearchStrategy[jax.Array]:
    """JAX arrays of small numbers that every dtype holds exactly: multiples of a half from -2.5 to 2.5, or integers.

    Args:
      shapes: a shape or a strategy for shapes; default `shapes()`.
      dtypes: a dtype or a strategy for dtypes; default `dtypes()`.

    Returns:
      A strategy for arrays.

    Example:
      >>> from hypothesis import given, settings
      >>> from jscope.testing import arrays
      >>> @given(arrays((2,), jnp.float32))
      ... @settings(max_examples=10, deadline=None)
      ... def test(x):
      ...     assert (abs(x) <= 2.5).all()
      >>> test()
    """
    return _arrays(shapes, dtypes)


@st.composite
def _arrays(draw: st.DrawFn, of_shape: Any, of_dtype: Any) -> jax.Array:
    shape = _draw_or_take(draw, shapes() if of_shape is None else of_shape)
    dtype = jnp.dtype(_draw_or_take(draw, dtypes() if of_dtype is None else of_dtype))
    # Two numbers for the whole array: drawing every element would be slow and would shrink slowly.
    start, step = draw(st.integers(-5, 5)), draw(st.integers(0, 10))
    values = (start + 5 + step * np.arange(np.prod(shape, dtype=int))) % 11 - 5
    if jnp.issubdtype(dtype, jnp.inexact):
        values = values / 2
    elif not jnp.issubdtype(dtype, jnp.signedinteger):
        values = abs(values) % 2 if dtype.kind == "b" else abs(values)
    return jnp.asarray(values.reshape(shape).astype(dtype))


def _draw_or_take(draw: st.DrawFn, value: Any) -> Any:
    return draw(value) if isinstance(value, SearchStrategy) else value


def params(
    *,
    names: SearchStrategy[str] | None = None,
    leaves: SearchStrategy[Any] | None = None,
    max_leaves: int = 6,
    colliding: bool = True,
) -> SearchStrategy[js.Params]:
    """Trees of parameters, nested up to three names deep; some names differ by an ending only (`w`, `w-`, `w0`).

    Args:
      names: a strategy for the names that full names are put together from; default `names()`.
      leaves: a strategy for leaves; default `arrays()`.
      max_leaves: most leaves.
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
    return _params(names, leaves, max_leaves, colliding)


@st.composite
def _params(
    draw: st.DrawFn,
    of_name: SearchStrategy[str] | None,
    leaves: SearchStrategy[Any] | None,
    max_leaves: int,
    colliding: bool,
) -> js.Params:
    # Few parts for many names: so scopes hold more than one variable, and names collide.
    parts = draw(st.lists(names() if of_name is None else of_name, min_size=1, max_size=3, unique=True))
    if of_name is None:
        # In sorted order these stand around what lies in scope parts[0], "-" before the slash and "0" after it.
        parts = [*parts, parts[0] + "-", parts[0] + "0"]
    full_names = st.lists(st.sampled_from(parts), min_size=1, max_size=3).map("/".join)
    found = draw(st.lists(full_names, max_size=max_leaves, unique=True))
    if not colliding:
        found = [name for name in found if not any(other.startswith(name + "/") for other in found)]
    return js.Params({name: draw(arrays() if leaves is None else leaves) for name in found})
