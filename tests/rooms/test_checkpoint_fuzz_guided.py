"""What `tests/support/fuzz_checkpoints.py` runs, guided by nothing but chance: files that are changed in their form."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_checkpoints import READERS, changed, outcome, pack, unpack, without_checksums
from spoil import spoiled

import jscope as js

COUNTS = [40, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", READERS)
def test_an_input_is_the_files_of_a_checkpoint(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    came = []
    with without_checksums():
        for files in reader.seeds():
            assert unpack(pack(files), len(reader.files)) == files
            came.append(outcome(reader, tmp_path, pack(files)))
    assert "read" in came
    assert set(came) <= {"read", *reader.kinds}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", READERS)
def test_a_file_is_changed_in_its_form(tmp_path: Path, name: str, count: int) -> None:
    rng, reader = np.random.default_rng(1), READERS[name]
    seeds = [pack(files) for files in reader.seeds()]
    read = 0
    with without_checksums():
        for i in range(count):
            data = changed(reader, seeds[i % len(seeds)], rng, lambda data: spoiled(rng, data) if data else b"x")
            read += outcome(reader, tmp_path, data, i % 16 == 0) == "read"
    assert 0 < read < count


def other_error(path: Path) -> dict[str, Any]:
    raise KeyError(str(path))


def unknown_kind(path: Path) -> dict[str, Any]:
    raise js.CheckpointError(f"{path} is odd.", kind="odd")


def without_its_path(path: Path) -> dict[str, Any]:
    raise js.CheckpointError("It is damaged.", kind="damaged")


def much_memory(path: Path) -> dict[str, Any]:
    return {"a": np.zeros(len(bytearray(40_000_000)) // 10_000_000)}


def large_arrays(path: Path) -> dict[str, Any]:
    return {"a": np.zeros(20_000_000, np.uint8)}


def other_arrays(path: Path) -> dict[str, Any]:
    return {"a": np.zeros(2, np.float32)}


@pytest.mark.parametrize(
    "use",
    [other_error, unknown_kind, without_its_path, much_memory, large_arrays, other_arrays],
    ids=lambda use: use.__name__,
)
def test_a_fault_is_told(tmp_path: Path, use: Any) -> None:
    reader = READERS["safetensors"]
    data = pack(reader.seeds()[-1])
    assert outcome(reader, tmp_path, data) == "read"
    with pytest.raises((AssertionError, KeyError)):
        outcome(dataclasses.replace(reader, use=use), tmp_path, data)
