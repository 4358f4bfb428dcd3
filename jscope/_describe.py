"""Initializers as short texts: `random_normal(stddev=0.05)`. Floor 1."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ._show import short_type

_LONGEST = 60
_SHOWN_VALUES = 4
_DEEPEST = 3  # functions and lists one inside the other that a text in full goes into: they may hold themselves


def initializer_text(initializer: Any, in_full: bool = False) -> str:
    """An initializer with the arguments that are not its defaults, short whatever its constants hold.

    Args:
      initializer: that of a `VariableSpec`: one of jscope's or JAX's, any other callable, or a marker for a value.
      in_full: for files that are compared, not for tables: with all digits, however long, large arrays by a hash, and
        with what a function of a function holds (numbers, texts, arrays, functions); but not with its place in a file.

    Example:
      >>> from jscope._describe import initializer_text
      >>> initializer_text(js.random_normal_initializer(stddev=0.05)), initializer_text(jax.nn.initializers.normal(0.1))
      ('random_normal(stddev=0.05)', 'normal(stddev=0.1)')
      >>> initializer_text(js.constant_initializer(np.ones((30, 40))))
      'constant(f64[30,40])'
    """
    if in_full:
        return _text(initializer, _DEEPEST)
    text = _text(initializer)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


# `depth` is how deep a text in full still goes; 0 makes a short one.


def _text(initializer: Any, depth: int = 0) -> str:
    if isinstance(initializer, functools.partial):
        arguments = [_value(value, depth) for value in initializer.args]
        return _call(_text(initializer.func, depth), [*arguments, *_named(initializer.keywords, depth)])
    if inspect.isfunction(initializer):
        return _function(initializer, depth)
    name = getattr(initializer, "__name__", None)  # a class, a method, a function built in or compiled by JAX
    if isinstance(name, str):
        if depth and inspect.ismethod(initializer):
            return f"{_made(initializer.__self__, depth)}.{name}"
        if depth and inspect.isfunction(getattr(initializer, "__wrapped__", None)):
            return _function(initializer.__wrapped__, depth)
        return name.removesuffix("_initializer")
    if not callable(initializer):  # a marker for a value, which shows few numbers itself
        is_long = depth and repr(initializer) == "array"
        return f"array {_value(initializer.array, depth)}" if is_long else repr(initializer)
    return _made(initializer, depth)


def _made(instance: Any, depth: int) -> str:
    """An object by its class, and what that was called with; in full also what is kept under a private name."""
    kind, kept = type(instance), getattr(instance, "__dict__", {})
    if depth:
        none = inspect.Parameter.empty
        found = ((name, getattr(instance, name, getattr(instance, f"_{name}", none))) for name in _parameters(kind))
        kept = {name: value for name, value in found if value is not none}
    return _call(kind.__name__.removesuffix("_initializer"), _arguments(kind, kept, depth))


def _function(function: Any, depth: int) -> str:
    """A function by its name; one that a factory made, as JAX's initializers are, by the factory and its arguments."""
    factory, separator, _ = function.__qualname__.rpartition(".<locals>.")
    maker: Any = function.__globals__.get(factory) if separator else None
    held = dict(_contents(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)))
    parameters = _parameters(maker) if inspect.isfunction(maker) else {}
    # What keeps none of its arguments need not be made by a factory: it may stand in a program, for that program.
    if held.keys() & parameters.keys():
        rest = {name: value for name, value in held.items() if name not in parameters} if depth else {}
        return _call(factory, [*_arguments(maker, held, depth), *_named(rest, depth)])
    name, code = function.__name__, function.__code__
    if name == "<lambda>":
        name = "lambda" if depth else f"lambda at {os.path.basename(code.co_filename)}:{code.co_firstlineno}"
    if not depth:
        return name
    # Of one made while something ran, defaults may be values of that, as in `lambda key, shape, dtype, scale=scale`.
    if separator or name == "lambda":
        last = code.co_varnames[: code.co_argcount][-len(function.__defaults__ or ()) :]
        held |= dict(zip(last, function.__defaults__ or (), strict=False)) | (function.__kwdefaults__ or {})
    return _call(name, _named(held, depth))


def _call(name: str, arguments: Sequence[str]) -> str:
    return f"{name}({', '.join(arguments)})" if arguments else name


def _contents(held: Any) -> Iterator[tuple[str, Any]]:
    for name, cell in held:
        try:
            yield name, cell.cell_contents
        except ValueError:  # still empty
            continue


def arguments_text(maker: Callable[..., Any], values: Mapping[str, Any]) -> str:
    """`(name=value, ...)` of what a class or factory was called with, as far as it was kept under the same names."""
    return _call("", _arguments(maker, values, 0))


def _arguments(maker: Callable[..., Any], values: Mapping[str, Any], depth: int) -> list[str]:
    given = []
    for name, parameter in _parameters(maker).items():
        if name == "value" and name in values:
            given.append(_value(values[name], depth))  # of a constant: all there is to it
        elif name in values and not _same(values[name], parameter.default):
            given += _named({name: values[name]}, depth)
    return given


def _parameters(maker: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(maker).parameters
    except (TypeError, ValueError):
        return {}


def _same(value: Any, default: Any) -> bool:
    if value is default:
        return True
    return isinstance(value, bool | int | float | str | tuple) and type(value) is type(default) and value == default


def _named(values: Mapping[str, Any], depth: int) -> list[str]:
    return [f"{name}={_value(value, depth)}" for name, value in values.items()]


def _value(value: Any, depth: int) -> str:
    """A text for an argument. In short, no array of JAX's is looked into: it may be traced, or still be computed."""
    is_array = getattr(value, "shape", None) is not None and getattr(value, "dtype", None) is not None
    if depth and is_array:
        with contextlib.suppress(Exception):  # what is traced, a key, deleted or elsewhere goes by its type alone
            value = np.asarray(value)
    if isinstance(value, np.ndarray | np.generic | list | tuple):
        try:
            array = np.asarray(value)
        except ValueError:  # ragged
            array = None
        if array is not None and array.dtype.kind in "biufc":
            return _numbers(array, depth) if array.size <= _SHOWN_VALUES else short_type(array) + _hash(array, depth)
        if depth and isinstance(value, list | tuple):
            return f"[{', '.join(_value(item, depth - 1) for item in value)}]"
        if array is None:
            return type(value).__name__
        if depth:
            return short_type(array) + _hash(array, depth)
        return f"{type(value).__name__} of {array.size}" if array.size > _SHOWN_VALUES else f"{value!r:.30}"
    if isinstance(value, bool | int | str) or value is None:
        return repr(value) if depth else f"{value!r:.30}"
    if isinstance(value, float):
        return _float(value, depth)
    if is_array:
        return short_type(value)
    if depth and callable(value):
        return _text(value, depth - 1)
    return getattr(value, "__name__", None) or getattr(value, "name", None) or type(value).__name__


def _numbers(array: Any, depth: int) -> str:
    if array.ndim:
        return f"[{', '.join(_numbers(part, depth) for part in array)}]"
    return _float(array[()], depth) if array.dtype.kind == "f" else repr(array.item())


def _float(value: Any, depth: int) -> str:
    """In full, with as many digits as its own type needs."""
    text = f"{value:.6g}"
    return text if not depth or type(value)(text) == value else str(value)


def _hash(array: Any, depth: int) -> str:
    """In full, what tells an array from another one; one of objects has no bytes that last."""
    return f"#{hashlib.sha256(array.tobytes()).hexdigest()[:8]}" if depth and array.dtype != object else ""
