"""What the files of this room raise."""

from __future__ import annotations

from typing import Any

import jscope as js

from .._support import user_line


def said(asked: str, fix: str, exists: str = "") -> dict[str, Any]:
    """The fields of an error about an argument."""
    return {"kind": "bad_argument", "asked": asked, "where": user_line(), "exists": exists, "fix": fix}


def bad_argument(what: str, *, asked: str, fix: str, exists: str = "") -> js.BadArgumentError:
    """An argument that means nothing here."""
    return js.BadArgumentError(what, **said(asked, fix, exists))


def bad_type(what: str, *, asked: str, fix: str) -> js.BadTypeError:
    """A value of a type that can't be meant."""
    return js.BadTypeError(what, **said(asked, fix))
