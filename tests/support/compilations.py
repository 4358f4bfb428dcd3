"""What XLA compiles in a block: one entry for each compilation, the name of the thread that did it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.monitoring

_compiled_in: list[str] = []


def _note(event: str, seconds: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled_in.append(threading.current_thread().name)


jax.monitoring.register_event_duration_secs_listener(_note)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Gives a list that is filled at the end of the block."""
    _compiled_in.clear()
    found: list[str] = []
    yield found
    found += _compiled_in
