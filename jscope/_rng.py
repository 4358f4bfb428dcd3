"""From names to random keys, and from keys to initial values: stable, and independent of every other name. Floor 1."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._errors import InitializerError, user_line


@functools.lru_cache(maxsize=1 << 16)
def name_words(name: str) -> np.ndarray:
    """64 bits of a stable hash of `name`, as two uint32."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    words = np.frombuffer(digest, "<u4").astype(np.uint32)
    words.flags.writeable = False
    return words


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """`key` with 64 bits of the hash of `name` folded in."""
    high, low = name_words(name)
    return jax.random.fold_in(jax.random.fold_in(key, high), low)


def call_key(key: jax.Array, scope: str, name: str, count: int) -> jax.Array:
    """The key of the `count`-th `next_key(name)` in `scope`; the zero byte keeps it apart from variables' names."""
    return fold_name(key, f"{scope}\0{name}\0{count}")


def draw(initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any, key: jax.Array, name: str) -> jax.Array:
    """The initial value of variable `name`: `initializer(key of that name, shape, dtype)`, always jitted.

    Jitted also when nothing else is, so that eager and jitted callers agree to the bit; one compilation serves all
    variables of one shape, dtype and initializer.

    Raises:
      InitializerError: if the initializer gives another shape or dtype than asked.
    """
    return _draw(_ByContent(initializer), shape, dtype, key, name_words(name))


def check_draw(initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any) -> None:
    """Raises what `draw` would raise, and makes nothing."""
    check = getattr(initializer, "check", None)
    if check is not None:
        check(shape, dtype)
    else:
        _check_abstractly(_ByContent(initializer), shape, dtype, jax.config.read("jax_enable_x64"))


@functools.lru_cache(maxsize=1 << 12)
def _check_abstractly(initializer: _ByContent, shape: tuple[int, ...], dtype: Any, x64: bool) -> None:
    # Cached, since this costs more than the rest of a declaration; what raises is not cached.
    key = jax.eval_shape(lambda: jax.random.key(0))
    jax.eval_shape(lambda key: _checked_call(initializer.function, key, shape, dtype), key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _draw(initializer: _ByContent, shape: tuple[int, ...], dtype: Any, key: jax.Array, words: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])
    return _checked_call(initializer.function, key, shape, dtype)


def _checked_call(initializer: Callable[..., Any], key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    value = jnp.asarray(initializer(key, shape, dtype))
    if value.shape != shape or value.dtype != dtype:
        raise InitializerError(
            f"The initializer {describe(initializer)} gave {value.dtype}{list(value.shape)}, "
            f"but {np.dtype(dtype)}{list(shape)} was asked for.",
            kind="init_value",
            where=user_line(),
            fix="let it use the shape and dtype that it is called with: init(key, shape, dtype)",
        )
    return value


def describe(function: Any) -> str:
    """A short name for a callable in messages and tables."""
    return getattr(function, "__name__", None) or repr(function)


class _ByContent:
    """A callable that compares equal to others that do the same: same code over equal closed-over values.

    `jax.nn.initializers.normal(0.02)`, called anew for each variable, gives a new function each time. By identity each
    would be compiled anew; by content they share one compilation.
    """

    __slots__ = ("_key", "function")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._key = _content(function)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByContent) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _content(value: Any) -> Hashable:
    """A hashable stand-in, equal only for values that behave alike; where that can't be known, the identity."""
    if isinstance(value, types.FunctionType):
        cells = value.__closure__ or ()
        try:
            closed = tuple(_content(cell.cell_contents) for cell in cells)
        except ValueError:  # a cell that is still empty
            return _Identity(value)
        defaults = tuple(map(_content, value.__defaults__ or ()))
        keywords = tuple((k, _content(v)) for k, v in sorted((value.__kwdefaults__ or {}).items()))
        return value.__code__, id(value.__globals__), closed, defaults, keywords
    if isinstance(value, functools.partial):
        keywords = tuple((k, _content(v)) for k, v in sorted(value.keywords.items()))
        return functools.partial, _content(value.func), tuple(map(_content, value.args)), keywords
    if isinstance(value, float):
        return float, value.hex()  # tells 0.0 from -0.0, and finds nan again
    if value is None or isinstance(value, int | str | bytes | np.dtype | type):
        return type(value), value  # the type tells 1 from True and from 1.0
    if isinstance(value, tuple):
        return tuple, tuple(map(_content, value))
    if getattr(type(value), "compares_by_value", False):
        return value
    return _Identity(value)


class _Identity:
    """Equal only for the very same object, which it keeps alive so that its id is not given away."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
