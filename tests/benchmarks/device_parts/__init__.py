"""The parts of `device.py`. Each part is a module with a function `measure(found, what, small, until)`.

A part runs in a process of its own. It hands over each row as soon as it has it (`Found.add`), so that a part that is
ended early has lost nothing but what it had not measured yet.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Found:
    """What a part has found so far. It is in a file at all times, as the process may be ended at any time."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.facts: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.write()

    def add(self, **row: Any) -> Row:
        """Adds a row. Who changes it later calls `write`."""
        self.rows.append(row)
        self.write()
        return row

    def fact(self, **facts: Any) -> None:
        """Notes what holds for the whole part."""
        self.facts.update(facts)
        self.write()

    def write(self) -> None:
        # The file is replaced as a whole: who reads it never sees half of it.
        beside = self.file.with_suffix(".part")
        beside.write_text(json.dumps({"facts": self.facts, "rows": self.rows}))
        os.replace(beside, self.file)


def where(found: Found) -> Any:
    """The device that the part runs on, which is noted."""
    import jax

    device = jax.devices()[0]
    found.fact(platform=device.platform, device=device.device_kind)
    return device


def quartiles(values: Sequence[float]) -> list[float]:
    """The lower quartile, the median and the upper one."""
    return [float(values[0])] * 3 if len(values) == 1 else statistics.quantiles(values, n=4)
