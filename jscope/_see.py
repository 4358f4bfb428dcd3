"""The door up into the room that shows things: it is loaded when somebody looks, not with jscope. Floor 0."""

from __future__ import annotations

import importlib
from typing import Any


def seeing() -> Any:
    """The room `jscope.seeing`."""
    return importlib.import_module("jscope.seeing")
