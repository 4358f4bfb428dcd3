"""Lets the reference page show docstrings as this repository writes them.

A section called `Example:` is shown as an example. Names of arguments that share an item stay together where they fill
more than one line. What is made at run time (the named initializers) shows the docstring that it has then; functions
made so show their signature too.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_NAMES = re.compile(r"^ *(?:\w+,\s+)+\w+:(?= )", re.MULTILINE)  # those that one item of `Args:` is about


class Docstrings(griffe.Extension):
    """Rewrites docstrings after griffe has read them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """A section that griffe knows, in place of one that it takes for a plain note."""
        if obj.docstring is not None:
            obj.docstring.value = _rewritten(obj.docstring.value)

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """The docstring of what a call made, which no reading of the source can tell."""
        value = _made_at_run_time(attr)
        if value is not None and value.__doc__:
            attr.docstring = griffe.Docstring(_text(value), parent=attr)

    def on_module_members(self, *, mod: griffe.Module, **_: Any) -> None:
        """Functions that a call made (the members of a family of layers), with their signatures."""
        for attr in [member for member in mod.members.values() if isinstance(member, griffe.Attribute)]:
            value = _made_at_run_time(attr)
            if inspect.isfunction(value):
                parameters = griffe.Parameters(*map(_parameter, inspect.signature(value).parameters.values()))
                function = griffe.Function(attr.name, parameters=parameters, lineno=attr.lineno)
                function.docstring = griffe.Docstring(_text(value), parent=function)
                mod.set_member(attr.name, function)


def _made_at_run_time(attr: griffe.Attribute) -> Any:
    """The class or function that a public attribute of a module is; None for any other."""
    if attr.docstring is not None or attr.parent is None or not attr.parent.is_module or attr.name[0] == "_":
        return None
    value = getattr(importlib.import_module(attr.parent.path), attr.name, None)
    return value if inspect.isclass(value) or inspect.isfunction(value) else None


def _text(value: Any) -> str:
    return _rewritten(inspect.cleandoc(value.__doc__ or ""))


def _rewritten(text: str) -> str:
    return _EXAMPLE.sub(r"\1Examples:", _NAMES.sub(lambda names: re.sub(r"\n\s+", " ", names[0]), text))


def _parameter(parameter: inspect.Parameter) -> griffe.Parameter:
    kind = griffe.ParameterKind[parameter.kind.name.lower()]
    return griffe.Parameter(parameter.name, kind=kind, default=_shown(parameter.default))


def _shown(default: Any) -> str | None:
    """A default as the source has it: a function by its name, an initializer as it is made."""
    if default is inspect.Parameter.empty:
        return None
    if default is None or isinstance(default, bool | int | float | str | tuple):
        return repr(default)
    return getattr(default, "__name__", f"{type(default).__name__}()")
