"""Why no name is of the form that a step asks for: another step gave it another, or the form says what is not meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from jscope._support import shown

from .near import Near
from .templates import Template


@dataclasses.dataclass(frozen=True)
class Unmatched:
    """That no name is of a form of which a step asks for one at least."""

    step: str
    template: Template

    def told(self, names: Iterable[str], origins: Mapping[str, tuple[str, ...]]) -> str:
        """As a fault.

        Args:
          names: those that there are at this step.
          origins: the names in the file that each of them is made of.
        """
        return f"{self.step}: no name is {self.template.text!r} at this step{self._why(list(names), origins)}"

    def _why(self, names: list[str], origins: Mapping[str, tuple[str, ...]]) -> str:
        if any(self.template.match(name) is not None for name in names):
            return ": but= leaves out all that are"
        for name in names:
            before = next((old for old in origins[name] if self.template.match(old) is not None), None)
            if before is not None:
                return f": {shown(before)} is called {shown(name)} by now"
        texts = self.template.of_texts()
        if texts is not None and any(texts.match(name) is not None for name in names):
            return f": a field such as {{i}} is a number, and {{.kind}} or {{*rest}} a text, as in {texts.text!r}"
        if any("*" in literal for literal in self.template.literals):
            return ": any text is {*rest}, and * is itself"
        return Near(names).text(self.template.fill(dict.fromkeys(self.template.fields, 0)))
