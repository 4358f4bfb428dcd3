"""A plugin for pytest that watches every line of every test, as a debugger does. Nothing may depend on it.

`PYTHONPATH=tests/support python -m pytest -p watched -n auto` runs the suite under it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest


def watch(frame: FrameType, event: str, argument: Any) -> Any:
    """Asks for every line of every frame, and does nothing with it."""
    return watch


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(watch)
    threading.settrace(watch)
    try:
        return (yield)
    finally:
        sys.settrace(before)
        threading.settrace(None)  # type: ignore[arg-type]
