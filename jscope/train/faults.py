"""What the files of this room raise, and the line of the user's code that asked."""

from __future__ import annotations

import sys
from typing import Any

import jscope as js

# Frames of these packages are never the user's own line.
_NOT_THE_USER = ("jscope", "jax", "contextlib", "collections")


def user_line() -> str:
    """The user's `file:line` of the call in progress, `""` if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _NOT_THE_USER:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def said(asked: str, fix: str, exists: str = "") -> dict[str, Any]:
    """The fields of an error about an argument."""
    return {"kind": "bad_argument", "asked": asked, "where": user_line(), "exists": exists, "fix": fix}


def bad_argument(what: str, *, asked: str, fix: str, exists: str = "") -> js.BadArgumentError:
    """An argument that means nothing here."""
    return js.BadArgumentError(what, **said(asked, fix, exists))


def bad_type(what: str, *, asked: str, fix: str) -> js.BadTypeError:
    """A value of a type that can't be meant."""
    return js.BadTypeError(what, **said(asked, fix))
