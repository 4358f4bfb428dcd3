"""`Comparison`: how a tree of parameters fits what a program declares. Floor 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ._see import seeing
from ._show import table


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a tree of parameters fits what a program declares.

    Attributes:
      kept: names that are declared and given, with the right shape and dtype.
      missing: names that are declared and not given.
      unexpected: names that are given and not declared.
      mismatched: name -> what is wrong with its shape or dtype.
      suggestions: missing or unexpected name -> close names on the other side.
    """

    kept: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, str]
    suggestions: Mapping[str, tuple[str, ...]]

    def faults(self, *, allow_missing: bool = False, allow_unexpected: bool = False) -> list[str]:
        """One line for each thing that does not fit."""
        lines = [f"'{name}': {text}" for name, text in self.mismatched.items()]
        if not allow_missing:
            lines += [f"'{name}' is missing{self._hint(name)}" for name in self.missing]
        if not allow_unexpected:
            lines += [f"'{name}' is not declared{self._hint(name)}" for name in self.unexpected]
        return lines

    def _hint(self, name: str) -> str:
        close = self.suggestions.get(name)
        return f" (near: {', '.join(map(repr, close))})" if close else ""

    def _rows(self) -> list[tuple[str, str, str]]:
        rows = [("kept", name, "") for name in self.kept]
        rows += [("missing", name, self._hint(name).strip(" ()")) for name in self.missing]
        rows += [("unexpected", name, self._hint(name).strip(" ()")) for name in self.unexpected]
        rows += [("mismatched", name, text) for name, text in self.mismatched.items()]
        return rows

    def __str__(self) -> str:
        return table(("state", "name", "note"), self._rows())

    def _repr_html_(self) -> str:
        return seeing().fragments.states("How the tree fits", ("state", "name", "note"), self._rows(), "kept")
