"""The benchmarks run, at sizes that tell nothing about speed; and their counts, which have no noise, are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


def run(folder: Path, name: str, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What the script prints, and what it writes."""
    file = folder / "figures.json"
    command = [sys.executable, str(BENCHMARKS / name), *arguments, "--json", str(file)]
    paths = [str(BENCHMARKS.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    return run(tmp_path_factory.mktemp("guard"), "guard.py", "--layers", "1", "--repeats", "2")


@pytest.fixture(scope="module")
def growth(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    sizes = ["--calls", "4", "--grads", "2", "--inner", "2", "4", "--repeats", "2", "--together"]
    return run(tmp_path_factory.mktemp("growth"), "growth.py", *sizes)


def test_guard_measures_every_group(guard: tuple[str, dict[str, Any]]) -> None:
    printed, figures = guard
    groups = {row["group"] for row in figures["times"]}
    assert groups == {"names", "names, usual layers"} | {
        f"{kind}, {way}" for kind in ("checkpoint", "lift") for way in ("forward", "grad")
    }
    assert all(group in printed for group in groups)
    # One goal in each group, and the same base twice.
    for group in groups:
        rows = [row for row in figures["times"] if row["group"] == group]
        assert [row["goal"] is not None for row in rows].count(True) == 1
        assert rows[1]["calls_ratio"] == pytest.approx(1, abs=0.02)


def test_taking_the_guard_out_takes_calls_away(guard: tuple[str, dict[str, Any]]) -> None:
    _, figures = guard
    for use, count in figures["calls"]["with the guard"].items():
        assert count > figures["calls"]["without"][use]


def test_an_eager_call_traces_the_block_once_in_each_scope(growth: tuple[str, dict[str, Any]]) -> None:
    printed, figures = growth
    traces = {name: row["per call"]["traces"] for name, row in figures["growth"].items()}
    assert traces == {"eager": 2, "eager jax.grad": 2, "jax.jit(net.apply)": 0, "by hand, new functions kept": 2}
    assert figures["growth"]["jax.jit(net.apply)"]["traces before"] == 2
    assert all(name in printed for name in traces)


def test_the_library_keeps_nothing_of_an_eager_call(growth: tuple[str, dict[str, Any]]) -> None:
    _, figures = growth
    assert [row["per call"]["own"] for row in figures["growth"].values()] == [0, 0, 0, 0]


def test_arrays_are_free_without_the_block_and_without_the_caches(growth: tuple[str, dict[str, Any]]) -> None:
    _, figures = growth
    for way in ("the block dropped", "jax.clear_caches()"):
        held = figures["freeing"][way]
        assert held["after the calls"]["array_bytes"] > 0
        assert held[way]["array_bytes"] == 0
