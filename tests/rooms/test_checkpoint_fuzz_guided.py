"""What `tests/support/fuzz_checkpoints.py` runs, guided by nothing but chance: files that are changed in their form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz_checkpoints import READERS, changed, outcome, pack, unpack, without_checksums
from spoil import spoiled

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
