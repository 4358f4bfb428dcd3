"""Initializers as short texts: `random_normal(stddev=0.05)`. Floor 1."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ._show import short_type

_LONGEST = 60
_SHOWN_VALUES = 4


def initializer_text(initializer: Any) -> str:
    """An initializer with the arguments that are not its defaults, short whatever its constants hold.

    Args:
      initializer: that of a `VariableSpec`: one of jscope's or JAX's, any other callable, or a marker for a value.

    Example:
      >>> from jscope._describe import initializer_text
      >>> initializer_text(js.random_normal_initializer(stddev=0.05)), initializer_text(jax.nn.initializers.normal(0.1))
      ('random_normal(stddev=0.05)', 'normal(stddev=0.1)')
      >>> initializer_text(js.constant_initializer(np.ones((30, 40))))
      'constant(f64[30,40])'
    """
    text = _text(initializer)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _text(initializer: Any) -> str:
    if isinstance(initializer, functools.partial):
        arguments = [*map(_value, initializer.args), *_named(initializer.keywords.items())]
        return f"{_text(initializer.func)}({', '.join(arguments)})"
    if inspect.isfunction(initializer):
        return _function(initializer)
    name = getattr(initializer, "__name__", None)  # a class, a built-in function, or one that JAX has compiled
    if isinstance(name, str):
        return name.removesuffix("_initializer")
    if not callable(initializer):
        return repr(initializer)  # a marker for a value
    kind, attributes = type(initializer), getattr(initializer, "__dict__", {})
    return kind.__name__.removesuffix("_initializer") + arguments_text(kind, attributes)


def _function(function: Any) -> str:
    """A function by its name; one that a factory made, as JAX's initializers are, by the factory and its arguments."""
    factory, separator, _ = function.__qualname__.rpartition(".<locals>.")
    maker = function.__globals__.get(factory) if separator else None
    if inspect.isfunction(maker):
        held = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        return factory + arguments_text(maker, dict(_contents(held)))
    if function.__name__ == "<lambda>":
        code = function.__code__
        return f"lambda at {os.path.basename(code.co_filename)}:{code.co_firstlineno}"
    return function.__name__


def _contents(held: Any) -> Iterator[tuple[str, Any]]:
    for name, cell in held:
        try:
            yield name, cell.cell_contents
        except ValueError:  # still empty
            continue


def arguments_text(maker: Callable[..., Any], values: Mapping[str, Any]) -> str:
    """`(name=value, ...)` of what a class or factory was called with, as far as it was kept under the same names."""
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):
        return ""
    given = []
    for parameter in parameters:
        if parameter.name == "value" and parameter.name in values:
            given.append(_value(values["value"]))  # of a constant: all there is to it
        elif parameter.name in values and not _same(values[parameter.name], parameter.default):
            given += _named([(parameter.name, values[parameter.name])])
    return f"({', '.join(given)})" if given else ""


def _same(value: Any, default: Any) -> bool:
    if value is default:
        return True
    return isinstance(value, bool | int | float | str | tuple) and type(value) is type(default) and value == default


def _named(pairs: Any) -> list[str]:
    return [f"{name}={_value(value)}" for name, value in pairs]


def _value(value: Any) -> str:
    """A short text for an argument. No array of JAX's is looked into: it may be traced, or still be computed."""
    if isinstance(value, np.ndarray | np.generic | list | tuple):
        try:
            array = np.asarray(value)
        except ValueError:  # ragged
            return type(value).__name__
        if array.dtype.kind not in "biufc":
            return f"{type(value).__name__} of {array.size}" if array.size > _SHOWN_VALUES else f"{value!r:.30}"
        return _numbers(array.tolist()) if array.size <= _SHOWN_VALUES else short_type(array)
    if isinstance(value, bool | int | str) or value is None:
        return f"{value!r:.30}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if getattr(value, "shape", None) is not None and getattr(value, "dtype", None) is not None:
        return short_type(value)
    return getattr(value, "__name__", None) or getattr(value, "name", None) or type(value).__name__


def _numbers(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_numbers, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
