"""A bar on what takes long, by `rich` where that is installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

_WORTH_A_BAR = 200_000_000  # bytes


@contextlib.contextmanager
def bar(title: str, total: int, wanted: bool | None) -> Iterator[Callable[[int], object]]:
    """Gives what is to be called with each number of bytes that is done.

    Args:
      wanted: None stands for where it takes long and somebody looks at standard error.
    """
    if wanted is None:
        wanted = total >= _WORTH_A_BAR and sys.stderr.isatty()
    progress = _rich() if wanted else None
    if progress is None:
        yield lambda size: None
        return
    with progress:
        task = progress.add_task(title, total=total)
        yield lambda size: progress.advance(task, size)


def _rich() -> Any:
    """A bar on standard error, None where `rich` is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
