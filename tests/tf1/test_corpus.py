"""TF1 fidelity: every recorded program gives TensorFlow's names, sharing, values, errors, collections and losses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from dsl import LEFT_OUT, load, run_in_build, run_in_transform
from paths import DATA

# More recorded programs, such as a held-out file, can be added: JSCOPE_CORPUS=path[:path...].
FILES = [
    DATA / "cases.jsonl",
    DATA / "corpus.jsonl",
    *map(Path, filter(None, os.environ.get("JSCOPE_CORPUS", "").split(":"))),
]
PROGRAMS = [program for path in FILES for program in load(path) if not LEFT_OUT & set(program["tags"])]

# Programs whose trace differs from TensorFlow's, each with its reason.
DIFFERENT: dict[str, str] = {}


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def same_values(found: Any, recorded: Any) -> bool:
    if found is None or isinstance(found, str) or recorded is None or isinstance(recorded, str):
        return found == recorded
    found, recorded = np.asarray(found), np.asarray(recorded)
    return found.shape == recorded.shape and np.allclose(
        found.astype(np.float64), recorded.astype(np.float64), rtol=2e-3, atol=1e-6
    )


def differences(found: dict[str, Any], recorded: dict[str, Any], params: Any = None) -> list[str]:
    lines = []
    for field in ("aborted", "globals", "trainables", "locals", "reg_losses"):
        if found[field] != recorded[field]:
            lines.append(f"{field}: {found[field]} instead of {recorded[field]}")
    if len(found["events"]) != len(recorded["events"]):
        lines.append(f"{len(found['events'])} events instead of {len(recorded['events'])}")
    for i, (ours, theirs) in enumerate(zip(found["events"], recorded["events"], strict=False)):
        ours, theirs = dict(ours), dict(theirs)
        value, recorded_value = ours.pop("init", None), theirs.pop("init", None)
        if isinstance(value, tuple):  # an abstract pass: the value is what `init` made under that name
            value = np.asarray(params[value[1]]).astype(np.float64 if "float" in ours["dtype"] else None).tolist()
        if ours != theirs or not same_values(value, recorded_value):
            lines.append(f"event {i}: {ours} {value} instead of {theirs} {recorded_value}")
    return lines


def test_enough_programs():
    assert len(PROGRAMS) >= 405
    assert set(DIFFERENT) <= {p["id"] for p in PROGRAMS}
    for program in PROGRAMS:  # no statement is left out silently
        assert not {"thread", "graph"} & {s["op"] for s in program["program"]}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("recorded", PROGRAMS, ids=lambda p: p["id"])
def test_build(recorded):
    found = differences(run_in_build(recorded["program"]), recorded["trace"])
    assert bool(found) == (recorded["id"] in DIFFERENT), "\n".join(found)


@pytest.mark.parametrize("recorded", PROGRAMS, ids=lambda p: p["id"])
def test_transform(recorded):
    traces, params = run_in_transform(recorded["program"])
    assert len(traces) >= 3  # specs, init, apply
    for trace in traces:
        found = differences(trace, recorded["trace"], params)
        assert bool(found) == (recorded["id"] in DIFFERENT), "\n".join(found)
