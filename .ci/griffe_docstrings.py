"""Lets the reference page show docstrings as this repository writes them.

A section called `Example:` is shown as an example, and what is made at run time (the named initializers) shows the
docstring that it has then.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites docstrings after griffe has read them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """A section that griffe knows, in place of one that it takes for a plain note."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", obj.docstring.value)

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """The docstring of a class that a call made, which no reading of the source can tell."""
        if attr.docstring is None and attr.parent is not None and attr.parent.is_module and attr.name[0] != "_":
            value = getattr(importlib.import_module(attr.parent.path), attr.name, None)
            if inspect.isclass(value) and value.__doc__:
                text = _EXAMPLE.sub(r"\1Examples:", inspect.cleandoc(value.__doc__))
                attr.docstring = griffe.Docstring(text, parent=attr)
