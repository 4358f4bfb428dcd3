"""What pytest says when `assert params == others` fails. The plugin `jscope_pytest` asks for it."""

from __future__ import annotations

from typing import Any

import jscope as js

from .golden import declared_differences
from .trees import tree_differences


def differences(left: Any, right: Any) -> list[str]:
    """The lines to show; none where jscope does not know better than pytest."""
    if isinstance(left, js.Specs) or isinstance(right, js.Specs):
        return declared_differences(left, right) if isinstance(left, js.Specs) and isinstance(right, js.Specs) else []
    return tree_differences(left, right)
