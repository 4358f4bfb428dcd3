"""How much memory, and how long, it takes to load a folder of 1 GB. Long: run with -m slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

from jscope import checkpoint

LOADING = """
import os, sys, threading, time
import jax.numpy as jnp, numpy as np
from jscope import checkpoint
from jscope.checkpoint import Plan

folder, how = sys.argv[1:]
jnp.zeros(3).block_until_ready()
opened = checkpoint.open(folder)
listing = opened.listing()
total = sum(spec.size * spec.dtype.itemsize for spec in listing.values())
ways = {
    "fromfile": lambda: [np.fromfile(entry.path, np.uint8) for entry in os.scandir(folder) if "-of-" in entry.name],
    "load": lambda: checkpoint.load(folder),
    "assign": lambda: checkpoint.assign_from(dict(listing), folder),
    "transpose": lambda: transposed.load(transposed.leads_to(folder), folder),
    "stack": lambda: stacked.load(stacked.leads_to(folder), folder),
    "split": lambda: split.load(split.leads_to(folder), folder),
}
transposed = Plan().transpose("layers.{i}.a").separator()
stacked = Plan().stack("layers.{i}.{*name}", "layers.{*name}")
split = Plan().split("layers.{i}.a", ["layers.{i}.q", "layers.{i}.k"], axis=1).separator()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

peak, done = [resident()], threading.Event()
before = peak[0]

def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], resident())

watcher = threading.Thread(target=watch)
watcher.start()
start = time.process_time()
kept = ways[how]()
seconds = time.process_time() - start
done.set()
watcher.join()
print((peak[0] - before) / total, seconds)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As safetensors writes it: without checksums."""
    save_file = pytest.importorskip("safetensors.numpy").save_file
    folder = tmp_path_factory.mktemp("large")
    block = np.random.default_rng(0).random((2000, 4000), np.float32)
    where = {}
    for shard in range(4):
        file = f"model-{shard + 1:05d}-of-00004.safetensors"
        tensors = {f"layers.{2 * shard + i}.{name}": block for i in range(2) for name in "abcd"}
        save_file(tensors, folder / file)
        where |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def measured(folder: Path, how: str) -> tuple[float, float]:
    """(what is held at most, in trees; seconds of the processor)."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", LOADING, str(folder), how]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    peak, seconds = map(float, done.stdout.split())
    return peak, seconds


@pytest.mark.slow
@pytest.mark.parametrize("how", ["load", "assign", "transpose", "stack", "split"])
def test_little_more_is_held_than_the_tree(folder, how):
    peak, _ = measured(folder, how)
    assert peak <= 1.1


@pytest.mark.slow
def test_loading_takes_little_longer_than_reading_the_bytes(folder):
    """Each best of three: the first times read a cold cache."""
    bare = min(measured(folder, "fromfile")[1] for _ in range(3))
    loaded = min(measured(folder, "load")[1] for _ in range(3))
    assert bare / loaded >= 0.7
    assert len(checkpoint.open(folder)) == 32
