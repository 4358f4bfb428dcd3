"""Many save to one path, threads and processes, and others load from it: every save is whole or did not happen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import jscope as js
from jscope import checkpoint

if not hasattr(os, "fork"):
    pytest.skip("locks of files are needed", allow_module_level=True)

# Threads that save at once, each its own number, in arrays whose sizes differ from save to save.
SAVER = """
import sys, threading
import numpy as np
from jscope import checkpoint

kind, path, first, threads, saves = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])

def work(thread):
    for turn in range(saves):
        number = (first + thread) * saves + turn
        size = 1 + number * 7919 % 3000
        getattr(checkpoint, kind)(path, {f"v{i}": np.full(size + i, number) for i in range(3)})

workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
"""


def number_in(arrays: dict[str, np.ndarray]) -> int:
    """The one number of which all arrays of a save are full."""
    values = {int(value) for array in arrays.values() for value in np.unique(array)}
    sizes = [len(arrays[f"v{i}"]) for i in range(3)]
    assert len(values) == 1, f"of several saves: {values}"
    assert sizes == [1 + min(values) * 7919 % 3000 + i for i in range(3)]
    return values.pop()


def read_while(path: Path, ended: threading.Event, seen: list[int], faults: list[BaseException]) -> None:
    """Loads over and over, at once and array by array."""
    try:
        while not ended.is_set() and not faults:
            seen.append(number_in(checkpoint.load(path).flat()))
            opened = checkpoint.open(path)
            first = opened["v0"]
            seen.append(number_in({**opened, "v0": first}))
    except BaseException as fault:
        faults.append(fault)


@pytest.mark.parametrize("kind", ["save", "save_tf"])
@pytest.mark.parametrize(
    ("processes", "threads", "saves"),
    [(1, 2, 10), pytest.param(1, 8, 125, marks=pytest.mark.slow), pytest.param(8, 1, 125, marks=pytest.mark.slow)],
)
def test_saves_side_by_side(tmp_path: Path, kind: str, processes: int, threads: int, saves: int) -> None:
    path = tmp_path / "m"
    getattr(checkpoint, kind)(path, {f"v{i}": np.full(1 + i, 0) for i in range(3)})
    seen: list[int] = []
    faults: list[BaseException] = []
    ended = threading.Event()
    readers = [threading.Thread(target=read_while, args=(path, ended, seen, faults)) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        started = [
            subprocess.Popen([sys.executable, "-c", SAVER, kind, path, *map(str, (n * threads, threads, saves))])
            for n in range(processes)
        ]
        statuses = [process.wait() for process in started]
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert not faults, faults[0]
    assert statuses == [0] * processes
    assert number_in(checkpoint.load(path).flat()) in range(processes * threads * saves)
    assert len(set(seen)) > 1  # they did read what was saved meanwhile
    left = sorted(file.name for file in tmp_path.iterdir())
    if kind == "save":
        assert left == ["m"]
    else:
        checkpoint.save_tf(path, {"v": np.ones(1)})  # which removes what the last two left to each other, if anything
        assert len(list(tmp_path.iterdir())) <= 3


def test_threads_of_one_process_do_not_damage_large_files(tmp_path: Path) -> None:
    """Large enough for one to be renamed while another is written."""
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(4):
                checkpoint.save(tmp_path / "m", {"a": np.full(number, number, np.float32)})
        except BaseException as fault:
            faults.append(fault)

    workers = [threading.Thread(target=work, args=(number,)) for number in (1_500_000, 400_000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not faults
    loaded = checkpoint.load(tmp_path / "m")["a"]
    assert set(np.unique(loaded)) == {len(loaded)}
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_one_saves_another_kind_to_the_same_path(tmp_path: Path) -> None:
    """A file and a prefix of one name are two checkpoints. The file goes before, so it may not be there first."""
    checkpoint.save_tf(tmp_path / "m", {"a": np.ones(1)})
    checkpoint.save(tmp_path / "m", {"a": np.zeros(1)})
    with pytest.raises(js.CheckpointError, match="would be read in place"):
        checkpoint.save_tf(tmp_path / "m", {"a": np.full(1, 2.0)})
    assert checkpoint.load(tmp_path / "m")["a"] == 0
    assert js.Params(checkpoint.load_tf(tmp_path / "m"))["a"] == 1
