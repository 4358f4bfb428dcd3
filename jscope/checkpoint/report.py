"""What `assign_from` did."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jscope as js
from jscope._support import seeing, table_lines

_HEAD = ("state", "name", "note")


@dataclasses.dataclass(frozen=True)
class AssignReport:
    """What became of each name; `str` of it is a table. `assign_from` makes it.

    Attributes:
      loaded: names whose values came from the source.
      kept: names that the source lacks, whose values in the target stayed.
      initialised: names that the source lacks, whose values were made anew.
      unused: names of the source that nothing took.
      skipped: entries of the source that are no arrays of numbers, by name, and why each is left out.
      cast: from name to how its dtype was changed; all of them are loaded.
      sources: from each loaded name to its name in the source; of several the first.
      unverified: loaded names of which no checksum was compared: the file has none, or only parts were read.
    """

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    initialised: tuple[str, ...]
    unused: tuple[str, ...]
    skipped: Mapping[str, str]
    cast: Mapping[str, str]
    sources: Mapping[str, str]
    unverified: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([*table_lines(_HEAD, self._rows), self._counts()])

    def _repr_html_(self) -> str:
        return seeing().fragments.states(self._counts(), _HEAD, self._rows(), "loaded")

    def _counts(self) -> str:
        states = {"loaded": f" ({len(self.cast)} cast)", "kept": "", "initialised": "", "unused": ""}
        return ", ".join(f"{len(getattr(self, state))} {state}{note}" for state, note in states.items())

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for name in self.loaded:
            source, cast = self.sources[name], self.cast.get(name, "")
            notes = [f"from {source}"] * (source != name) + [cast] * bool(cast)
            yield "cast" if cast else "loaded", name, ", ".join(notes)
        for state in ("kept", "initialised", "unused"):
            yield from ((state, name, "") for name in getattr(self, state))
        yield from (("skipped", name, why) for name, why in sorted(self.skipped.items()))


class Assigned(NamedTuple):
    """What `assign_from` gives: `params, report = assign_from(...)`.

    Attributes:
      params: the target's tree with the source's values.
      report: an `AssignReport`.
    """

    params: js.Params
    report: AssignReport
