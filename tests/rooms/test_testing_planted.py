"""Faults planted in models of four libraries: each is found, in time and in few lines, and no right model is blamed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from paths import ROOT

pytest.importorskip("haiku")
pytest.importorskip("flax")

from planted import Fault, all_faults

FAULTS = all_faults()
LONGEST = 10  # lines
MOST_SECONDS = 60.0
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@dataclasses.dataclass
class Outcome:
    """What testing one model came to: the lines that a reader gets to see, none if nothing was found."""

    lines: list[str]
    seconds: float


def outcome(fault: Fault, wrong: bool) -> Outcome:
    start = time.process_time()
    try:
        fault.check(wrong)
        lines = []
    except AssertionError as error:
        # Under an empty line stands how to see the same in plain JAX.
        told = str(error).partition("\n\n")[0].splitlines()
        notes = [line for note in getattr(error, "__notes__", []) for line in note.splitlines()]
        lines = [*told, *notes]
    return Outcome(lines, time.process_time() - start)


@pytest.fixture(autouse=True)
def own_caches() -> Iterator[None]:
    """The first and the last fault take as long as if they were tested alone."""
    yield
    if len(os.environ.get("JSCOPE_PLANTED", "")):
        jax.clear_caches()


def slow_unless_quick() -> list[object]:
    return [
        pytest.param(
            fault, id=fault.check.__name__ + "-" + fault.library, marks=() if fault.quick else pytest.mark.slow
        )
        for fault in FAULTS
    ]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("fault", slow_unless_quick())
def test_the_fault_is_found_and_the_right_model_passes(fault: Fault) -> None:
    # The wrong one first, while nothing is compiled: the time is that of a first run.
    wrong, right = outcome(fault, True), outcome(fault, False)
    assert right.lines == []
    assert bool(wrong.lines) == fault.found, "list it as found, or say why it can't be found"
    assert len(wrong.lines) <= LONGEST
    assert max(right.seconds, wrong.seconds) < MOST_SECONDS
    file = os.environ.get("JSCOPE_PLANTED")
    if file:  # the figures of docs/how-to/test.md
        row = [fault.name, fault.library, fault.assertion, fault.found, wrong.seconds, len(wrong.lines)]
        with Path(file).open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")


def test_there_are_forty_and_more_and_nearly_all_are_found() -> None:
    assert len(FAULTS) >= 40
    assert sum(fault.found for fault in FAULTS) / len(FAULTS) >= 0.95
    assert {fault.library for fault in FAULTS} == {"jscope", "Haiku", "Linen", "NNX", "JAX"}
    assert 6 <= sum(fault.quick for fault in FAULTS) <= 10


def test_the_page_lists_every_fault_with_what_finds_it() -> None:
    page = (ROOT / "docs" / "how-to" / "test.md").read_text().partition("## What it finds")[2]
    rows = re.findall(
        r"^\| (?!fault|---)(.+?) \| (\w+) \| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$", page, re.MULTILINE
    )
    assert sorted(row[:3] for row in rows) == sorted(
        (fault.name, fault.library, fault.assertion) for fault in FAULTS if fault.found
    )
    assert max(float(seconds) for row in rows for seconds in row[3:5]) < MOST_SECONDS
    assert max(int(row[5]) for row in rows) <= LONGEST
    missed = re.findall(r"^\* (.+?) \((\w+)\): ", page, re.MULTILINE)
    assert sorted(missed) == sorted((fault.name, fault.library) for fault in FAULTS if not fault.found)
