"""Names that were perhaps meant."""

from __future__ import annotations

from collections.abc import Iterable

from jscope._support import near, shown

_MOST_COMPARISONS = 5_000  # at some 0.1 ms each, of long names


class Near:
    """Finds close ones among some names, for the first few that are asked for: it takes long, and nobody reads more.

    Args:
      names: those to find.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._left = _MOST_COMPARISONS

    def text(self, name: str) -> str:
        """Close names, as they read at the end of a line."""
        if self._left <= 0:
            return ""
        self._left -= len(self._names)
        close = near(name, self._names)
        return f" (near: {', '.join(map(shown, close))})" if close else ""
