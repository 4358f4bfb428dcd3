"""jscope's plugin for pytest: the option `--jscope-update`, and what a failed `==` of parameters or specs says.

It stands outside the package, since a module of a package brings the package with it: pytest loads this file wherever
jscope is installed, and must not pay for JAX. It imports what it needs when a comparison fails.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_UPDATE = "JSCOPE_UPDATE_GOLDEN"


def pytest_addoption(parser: Any) -> None:
    parser.getgroup("jscope").addoption(
        "--jscope-update", action="store_true", help="write the golden files of jscope.testing.assert_golden anew"
    )


def pytest_configure(config: Any) -> None:
    if config.getoption("--jscope-update"):
        before = os.environ.get(_UPDATE)
        os.environ[_UPDATE] = "1"
        config.add_cleanup(lambda: os.environ.pop(_UPDATE) if before is None else os.environ.update({_UPDATE: before}))


def pytest_assertrepr_compare(op: str, left: Any, right: Any) -> list[str] | None:
    """The lines that pytest shows for `assert left == right`; None where this is not about jscope."""
    js = sys.modules.get("jscope")
    try:
        if js is None or op != "==" or not any([_holds(left, js), _holds(right, js)]):
            return None
    except RecursionError:  # a list that holds itself, which JAX can't go through either
        return None
    try:
        from jscope.testing.explained import differences
    except ModuleNotFoundError:  # hypothesis is not installed
        return None
    try:
        lines = differences(left, right)
    except js.JscopeError as error:  # what can't be compared, such as an array whose memory was donated
        lines = [error.what]
    except (TypeError, ValueError):  # what JAX takes for no tree, such as a dict with keys of several types
        return None
    return [f"{type(left).__name__} == {type(right).__name__}", *lines] if lines else None


def _holds(value: Any, js: Any) -> bool:
    """Whether it is jscope's, or a dict, list or tuple with such in it. All of it is looked at.

    Raises:
      RecursionError: if it holds itself.
    """
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any([isinstance(value, js.Params | js.Specs), *[_holds(part, js) for part in parts]])
