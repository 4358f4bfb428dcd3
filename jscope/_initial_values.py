"""From names to random keys, and from keys to initial values: stable, and independent of every other name. Floor 1.

XLA takes some 0.2 s to compile each kind of draw (initializer, shape and dtype), far more than the draws themselves,
and needs no lock of Python's for it. So `Drawers` compiles each kind in another thread, as soon as it is known that it
will be drawn, and while the program is still being traced. What is compiled, and under which of JAX's settings, is
decided in the calling thread: if JAX's settings differ at the draw, what was compiled is not found, and the draw is
compiled again.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import os
import types
import warnings
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._arguments import is_importable, parameters_for
from ._callsite import user_line, user_location
from ._compat import depends_on, program_key, with_constants
from ._errors import BadInitialValueTypeError, BadTypeError, InitializerError, OutsideProgramError
from ._leaves import check_here
from ._show import short
from ._values import InitialValue, is_traced


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


def check_key(key: Any, what: str) -> None:
    """Raises BadTypeError for what is no random key of JAX, or several of them; `what` says who takes it."""
    fix = "pass jax.random.key(0)"
    if not isinstance(key, jax.Array):
        fault = f"takes a JAX random key, not a {type(key).__name__}"
    elif not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        config: Any = jax.config
        if key.dtype == jnp.uint32 and key.shape == _raw_shape(config.jax_default_prng_impl):
            return  # of the old kind, made by jax.random.PRNGKey
        fault = f"takes a JAX random key, not {key.dtype}{list(key.shape)}"
    elif key.shape:
        fault = f"takes one JAX random key, not {key.size}"
        fix = "pass one of them, keys[0]; for all of them use jax.vmap over the keys"
    else:
        return
    raise BadTypeError(f"{what} {fault}.", kind="bad_key", where=user_line(), fix=fix)


@functools.cache
def _raw_shape(impl: str) -> tuple[int, ...]:
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl))).shape


def draw(initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any, key: jax.Array, name: str) -> jax.Array:
    """The initial value of variable `name`: `initializer(key of that name, shape, dtype)`, always jitted.

    Jitted also when nothing else is, so that eager and jitted callers agree to the bit. An initializer of the user's is
    called for each variable anew, since nobody knows what else than its key it reads: a table, a setting, a generator
    of NumPy's. What compiles the same is compiled once.

    Raises:
      InitializerError: if the initializer gives nothing, or another shape or dtype than asked.
      BadInitialValueTypeError: if it gives what is no array.
    """
    return drawer(initializer, shape, dtype)(key, name_words(name))


def drawer(
    initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any, sharding: Any = None
) -> Callable[..., jax.Array]:
    """`draw` for many names: a function of the root key and `name_words(name)`.

    With a sharding, each device makes its own part of the value, which is the same to the bit.
    """
    if isinstance(initializer, Stacked):
        return initializer.drawer(shape, dtype, sharding)
    by_value = _ByValue.of(initializer)
    if by_value is not None:
        return _drawer_by_value(by_value, shape, dtype, sharding)
    return functools.partial(_drawn_anew, initializer, shape, dtype, sharding)


def check_draw(initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any, key: jax.Array) -> Any:
    """Raises what `draw` would raise, and makes nothing.

    Returns:
      Of an initializer that had to be called for it, what was traced: `Drawers.expect_traced` takes it. Else None.

    Raises:
      InitializerError: for a wrong result, and for an initializer that closes over values of a trace.
    """
    if isinstance(initializer, Stacked):
        check_draw(initializer.initializer, shape[1:], dtype, key)
        return None
    if type(initializer).__module__ == "jscope.initializers":
        initializer.check(shape, dtype)  # type: ignore[attr-defined]
        return None
    by_value = _ByValue.of(initializer)
    if by_value is None:
        return _checked(initializer, shape, dtype, _abstract(key))
    _check_once(by_value, shape, dtype, _abstract(key), jax.config.read("jax_enable_x64"))
    return None


def _abstract(key: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(key.shape, key.dtype)


@functools.lru_cache(maxsize=1 << 12)
def _check_once(initializer: _ByValue, shape: tuple[int, ...], dtype: Any, key: Any, x64: bool) -> None:
    # Cached, since this costs more than the rest of a declaration; what raises is not cached.
    _checked(initializer.function, shape, dtype, key)


def _checked(initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any, key: Any) -> Any:
    """An initializer traced, if it gives what it should."""
    traced = _traced(initializer, shape, dtype, key)
    if any(map(is_traced, traced.consts)):
        raise InitializerError(
            f"The initializer {describe(initializer)} closes over values that the program computes.",
            kind="init_value",
            where=user_line(),
            fix="give the value itself, without a shape: initializer=value, or initializer=lambda: value",
        )
    return traced


def _traced(initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any, key: Any) -> Any:
    """What an initializer does now, as a traced program of the variable's key."""
    # A new function each time: JAX caches traces by function, and on a hit the initializer would not run.
    return jax.make_jaxpr(lambda key: _called(initializer, key, shape, dtype))(key)


@jax.jit
def _fold(key: jax.Array, words: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])


def jitted(function: Callable[..., Any], sharding: Any) -> Callable[..., Any]:
    """`jax.jit`, told where the results shall lie; with None it is told nothing."""
    return jax.jit(function) if sharding is None else jax.jit(function, out_shardings=sharding)


@functools.lru_cache(maxsize=1 << 12)
def _drawer_by_value(
    initializer: _ByValue, shape: tuple[int, ...], dtype: Any, sharding: Any
) -> Callable[..., jax.Array]:
    function = initializer.function

    # One function for each shape and dtype: static arguments would be compared at each call, which takes longer.
    def draw(key: jax.Array, words: jax.Array) -> jax.Array:
        return _called(function, _fold(key, words), shape, dtype)

    return jitted(draw, sharding)


def _drawn_anew(
    initializer: Callable[..., Any],
    shape: tuple[int, ...],
    dtype: Any,
    sharding: Any,
    key: jax.Array,
    words: np.ndarray,
) -> jax.Array:
    """What the initializer gives now, by a program that is shared with whatever computes the same."""
    traced = functools.partial(_traced, initializer, shape, dtype, key)
    closed = traced()
    if is_traced(key) and not depends_on(closed, 0) and not _alike(closed, traced()):
        message = (
            f"The initializer {_with_line(initializer)} does not draw from its key: asked twice, it gave two results. "
            "Inside jax.jit or jax.vmap it is called once for each variable, so all keys get the same numbers. "
            "Let it use jax.random and its key, or call init outside."
        )
        warnings.warn_explicit(message, UserWarning, *(user_location() or ("<unknown>", 0)))
    # As arguments the constants are neither compiled in nor kept: a table may take megabytes.
    constants = [_placed_anywhere(constant) for constant in closed.consts]
    return _compiled(closed, sharding, constants, key, words)(constants, key, words)


_programs: dict[Hashable, Callable[..., jax.Array]] = {}
_MOST_PROGRAMS = 1 << 12


def _compiled(
    closed: Any, sharding: Any, constants: list[Any], key: jax.Array, words: np.ndarray
) -> Callable[..., jax.Array]:
    """A traced initializer, jitted as a function of its constants, the root key and the words of a name.

    It is one function for all that compute the same.
    """
    program = program_key(closed)
    name = None if program is None else (program, sharding)
    found = None if name is None else _programs.get(name)
    if found is not None:
        return found

    def with_barrier(constants: list[Any], key: jax.Array, words: jax.Array) -> jax.Array:
        # The barrier keeps XLA from computing with constants ahead of time, where this is part of a greater program:
        # that gives other last bits. And it makes a new array of a constant that is returned as it is.
        return with_constants(closed, jax.lax.optimization_barrier(constants))(_fold(key, words))[0]

    computes = jax.make_jaxpr(with_barrier)(constants, key, words)  # holds no constant
    made = jitted(lambda constants, *args: with_constants(computes, [])(*constants, *args)[0], sharding)
    if name is not None:
        if len(_programs) >= _MOST_PROGRAMS:
            _programs.clear()
        _programs[name] = made
    return made


def _placed_anywhere(constant: Any) -> Any:
    """A constant that binds its result to no device, as one that is compiled in."""
    is_placed = isinstance(constant, jax.Array) and not is_traced(constant) and constant.committed
    if is_placed and not jnp.issubdtype(constant.dtype, jax.dtypes.extended):
        return np.asarray(constant)
    return constant


def _alike(closed: Any, other: Any) -> bool:
    """Whether two traces of one initializer compute the same, as far as can be told."""
    name = program_key(closed)
    return name is None or (
        name == program_key(other)
        and all(
            one is two or (not is_traced(one) and not is_traced(two) and InitialValue(one) == InitialValue(two))
            for one, two in zip(closed.consts, other.consts, strict=True)
        )
    )


def _with_line(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return describe(function) + (f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else "")


def _called(initializer: Callable[..., Any], key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """What an initializer gives: an array of that shape and dtype."""
    try:
        # In a context of its own, where no program runs: whether one does depends on who draws, and when.
        result = contextvars.copy_context().run(initializer, key, shape, dtype)
    except OutsideProgramError as error:
        raise InitializerError(
            f"The initializer {describe(initializer)} calls jscope ({error.asked}). It is no part of the program: init "
            "calls it after the program has run, and apply never does.",
            kind="init_value",
            where=error.where,
            fix="ask before get_variable, and give what comes out as the value, without a shape: initializer=value",
        ) from None
    except Exception as error:
        parameters, takes_them = parameters_for(initializer, key, shape, dtype)
        if not takes_them or parameters[:1] == ["shape"]:  # TensorFlow's begin with the shape
            taken = f"an initializer is called with (key, shape, dtype); this one takes ({', '.join(parameters)})"
            fix = "wrap it, initializer=lambda key, shape, dtype: ..."
            if not isinstance(error, TypeError):  # it stays what it is
                error.add_note(f"{taken}. Fix: {fix}")
                raise
            raise BadTypeError(
                f"The initializer {describe(initializer)} failed, {error}; {taken}.",
                kind="init_value",
                where=user_line(),
                fix=fix,
            ) from error
        raise
    if result is None:
        raise InitializerError(
            f"The initializer {describe(initializer)} gave None.",
            kind="init_value",
            where=user_line(),
            fix="return an array of the shape and dtype that it is called with",
        )
    check_here("initial value", result)
    try:
        value = jnp.asarray(result)
    except TypeError:
        name = describe(initializer)
        raise BadInitialValueTypeError(
            f"The initializer {name} gave a {type(result).__name__}, no array.",
            kind="init_value",
            where=user_line(),
            fix=f"call it, since it makes initializers: initializer={name}()"
            if callable(result)
            else "return an array",
        ) from None
    if isinstance(dtype, np.dtype) and jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise InitializerError(
            f"A variable of dtype {dtype} was made under jax.enable_x64, which is off where its value is drawn.",
            kind="init_value",
            where=user_line(),
            fix="put jax.enable_x64 around init and apply, not into the program",
        )
    if value.shape != shape or value.dtype != dtype:
        raise InitializerError(
            f"The initializer {describe(initializer)} gave {value.dtype}{list(value.shape)}, "
            f"but {np.dtype(dtype)}{list(shape)} was asked for.",
            kind="init_value",
            where=user_line(),
            fix="let it use the shape and dtype that it is called with: init(key, shape, dtype)",
        )
    return value


class Stacked:
    """The initial values of some equal layers in one array, each as under its own name.

    Args:
      initializer: of each layer.
      names: the full name of the variable in each layer.
    """

    def __init__(self, initializer: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.initializer = initializer
        self.names = names
        self.__name__ = f"{len(names)} x {describe(initializer)}"

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """The values under the root key `key`, which other initializers do not see."""
        return self.drawer(tuple(shape), dtype)(key, name_words(""))

    def drawer(self, shape: tuple[int, ...], dtype: Any, sharding: Any = None) -> Callable[..., jax.Array]:
        """As `drawer`; the name of the whole does not matter."""
        one, names = drawer(self.initializer, shape[1:], dtype), self.names

        def draw(key: jax.Array, _: Any) -> jax.Array:
            words = np.stack([name_words(name) for name in names])
            if hasattr(one, "lower"):  # one function for all names, of which the values are the only results in memory
                return _in_turn(one, sharding)(key, words)
            return jitted(jnp.stack, sharding)([one(key, word) for word in words])

        return draw

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stacked) and (self.initializer, self.names) == (other.initializer, other.names)

    __hash__ = None  # type: ignore[assignment]  # its initializer may have none


@functools.lru_cache(maxsize=1 << 10)
def _in_turn(draw: Callable[..., jax.Array], sharding: Any) -> Callable[..., jax.Array]:
    return jitted(lambda key, words: jax.lax.map(lambda word: draw(key, word), words), sharding)


def describe(function: Any) -> str:
    """A short name for a callable in messages and tables."""
    return getattr(function, "__name__", None) or short(function)


class _ByValue:
    """An initializer that equals others which do the same, although they are other objects.

    `jax.nn.initializers.normal(0.02)`, called anew for each variable, gives a new function each time. By value they
    share one compilation, and are not even traced again. Only where that is certain: jscope's own initializers and
    functions of JAX's, with what they close over and are bound to. Arrays are left out: they would be kept for ever.
    """

    __slots__ = ("_key", "function")

    def __init__(self, function: Callable[..., Any], key: Hashable) -> None:
        self.function = function
        self._key = key

    @classmethod
    def of(cls, function: Callable[..., Any]) -> _ByValue | None:
        """None where only a call can tell what the function does now."""
        try:
            return cls(function, _value(function))
        except _UnknownError:
            return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByValue) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class _UnknownError(Exception):
    """What a value does can't be told from looking at it."""


def _value(value: Any, depth: int = 0) -> Hashable:
    """A hashable stand-in, equal only for values that behave alike; raises `_UnknownError` where that can't be told."""
    if depth > 8:
        raise _UnknownError
    inner = functools.partial(_value, depth=depth + 1)
    if type(value).__module__.startswith("jscope.") and callable(value):  # not a class of the user's that inherits
        if np.ndim(getattr(value, "value", 0)):
            raise _UnknownError  # a constant with a table
        try:
            hash(value)
        except TypeError:  # one that holds a list
            raise _UnknownError from None
        return value
    if isinstance(value, types.FunctionType):
        if not _is_of_jax(value.__globals__.get("__name__")):
            raise _UnknownError
        try:
            closed = tuple(inner(cell.cell_contents) for cell in value.__closure__ or ())
        except ValueError:  # a cell that is still empty
            raise _UnknownError from None
        keywords = tuple((k, inner(v)) for k, v in sorted((value.__kwdefaults__ or {}).items()))
        return value.__code__, closed, tuple(map(inner, value.__defaults__ or ())), keywords
    if isinstance(value, functools.partial):
        keywords = tuple((k, inner(v)) for k, v in sorted(value.keywords.items()))
        return functools.partial, inner(value.func), tuple(map(inner, value.args)), keywords
    if isinstance(value, float):
        return type(value), value.hex()  # tells 0.0 from -0.0, and finds nan again
    if value is None or isinstance(value, int | str | bytes | np.dtype):
        return type(value), value  # the type tells 1 from True and from 1.0
    if isinstance(value, tuple):
        return tuple, tuple(map(inner, value))
    module = getattr(value, "__module__", None)
    if (_is_of_jax(module) or (isinstance(value, type) and module in _DTYPES)) and is_importable(value):
        return id(value), value  # it never goes away
    raise _UnknownError


_DTYPES = frozenset({"numpy", "ml_dtypes", "builtins"})  # where the classes are that stand for dtypes


def _is_of_jax(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == "jax"


# Drawn side by side --------------------------------------------------------------------------------------------------

# XLA keeps more than one processor busy with one compilation. With more threads than this, twelve kinds took a tenth
# less on two idle processors, and a quarter more beside other work.
_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
_THREADS = max(1, _PROCESSORS // 2)

# What some thread has begun to compile. For other settings it is compiled where it is called, as any jitted function.
_begun: weakref.WeakSet[Any] = weakref.WeakSet()


class Drawers:
    """Initial values out of one key. A context manager, so that no thread outlives it.

    Args:
      key: the root key. If it is traced, nothing is compiled here.
      settings: makes a context in which JAX is set as it is for the draws, where kinds are expected in other ones.

    Attributes:
      key: as given.
    """

    __slots__ = ("_compiled", "_drawers", "_may_compile", "_settings", "_threads", "_traced", "_x64", "key")

    def __init__(
        self,
        key: jax.Array,
        settings: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        config: Any = jax.config
        self.key = key
        self._settings = settings
        self._may_compile = not is_traced(key) and not config.jax_disable_jit
        self._x64 = config.jax_enable_x64
        self._threads: ThreadPoolExecutor | None = None
        # By the initializer's id, since few have a hash; it is kept alive beside it. Most variables of a program differ
        # in nothing but their names.
        self._drawers: dict[Any, tuple[Any, Callable[..., jax.Array]]] = {}
        self._traced: dict[str, Callable[..., jax.Array]] = {}
        self._compiled: dict[Any, Future[Any]] = {}

    def __enter__(self) -> Drawers:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            _begun.difference_update(draw for draw, compiled in self._compiled.items() if compiled.cancelled())

    def expect(self, initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any, sharding: Any = None) -> None:
        """Begins to compile what draws such variables, if nobody has."""
        kind = id(initializer), shape, dtype, sharding
        if kind not in self._drawers:
            draw = drawer(initializer, shape, dtype, sharding)
            self._drawers[kind] = initializer, draw
            # What initializers do that are no known functions is found out at the draws.
            if hasattr(draw, "lower"):
                self._compile(draw, self.key, name_words(""))

    def expect_traced(self, name: str, traced: Any) -> None:
        """Begins to compile what draws a variable, of whose initializer `check_draw` has just traced what it does.

        It is not called again then. Where it brings constants it is: they may be tables, which would all be held at
        once until they are drawn. So it is where the program has set `jax.enable_x64` for itself, and what was traced
        is of no use outside.
        """
        config: Any = jax.config
        if self._may_compile and not traced.consts and config.jax_enable_x64 == self._x64:
            draw = self._traced[name] = _compiled(traced, None, [], self.key, name_words(""))
            self._compile(draw, [], self.key, name_words(""))

    def _compile(self, draw: Any, *args: Any) -> None:
        """Begins to compile a draw, if nobody has."""
        if not self._may_compile or draw in _begun:
            return
        _begun.add(draw)
        try:
            with self._settings():
                lowered = draw.lower(*args)
        except Exception:  # the draw says it
            return
        self._threads = self._threads or ThreadPoolExecutor(_THREADS, "jscope")
        try:
            self._compiled[draw] = self._threads.submit(lowered.compile)
        except RuntimeError:  # no thread can start: there are too many, or the interpreter is about to end
            self._may_compile = False

    def draw(
        self, initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any, name: str, sharding: Any = None
    ) -> jax.Array:
        """The initial value of variable `name`.

        Raises:
          InitializerError, BadInitialValueTypeError: as `draw`.
        """
        args: tuple[Any, ...] = self.key, name_words(name)
        draw = self._traced.pop(name, None)
        if draw is not None:
            args = [], *args
        else:
            kind = id(initializer), shape, dtype, sharding
            if kind not in self._drawers:
                self.expect(initializer, shape, dtype, sharding)
            draw = self._drawers[kind][1]
        if self._compiled:
            compiled = self._compiled.pop(draw, None)
            if compiled is not None:
                compiled.exception()  # waits; what fails here fails in the draw again, where it can be told
        return draw(*args)
