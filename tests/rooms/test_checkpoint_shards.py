"""One checkpoint saved in several files and an index, as transformers writes large models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope import checkpoint
from jscope.checkpoint import Plan

safetensors_numpy = pytest.importorskip("safetensors.numpy")

INDEX = "model.safetensors.index.json"
NUMBERS = np.random.default_rng(0)
ARRAYS = {f"h.{i}.{kind}": NUMBERS.normal(size=10).astype(kind) for i in range(12) for kind in ("f4", "f8", "f2")}
ARRAYS |= {"large": np.arange(1000), "scalar": np.float32(3), "none": np.zeros((0, 3)), "flag": np.array([True])}


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def by_file(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """What another reader finds."""
    files = sorted(folder.glob("*.safetensors"))
    return {file.name: safetensors_numpy.load_file(file) for file in files}


@pytest.mark.parametrize("most", [1, 100, np.int64(333), 8000, 9000])
def test_a_folder_holds_what_was_saved_in_files_of_that_size(tmp_path, most):
    folder = tmp_path / "model"
    checkpoint.save(folder, ARRAYS, metadata={"format": "pt"}, max_shard_bytes=most)
    assert checkpoint.load(folder) == js.Params(ARRAYS)
    assert checkpoint.open(folder).metadata == {"format": "pt"}
    files = by_file(folder)
    for number, (file, arrays) in enumerate(files.items(), start=1):
        assert file == f"model-{number:05}-of-{len(files):05}.safetensors"
        sizes = [array.nbytes for array in arrays.values() if array.nbytes]
        assert sum(sizes) <= most or len(sizes) == 1
    index = json.loads((folder / INDEX).read_text())
    assert index["weight_map"] == {name: file for file, arrays in files.items() for name in arrays}
    assert index["metadata"] == {"total_size": sum(np.asarray(array).nbytes for array in ARRAYS.values())}


def test_files_are_filled_in_the_order_of_names(tmp_path):
    tree = {"b": {"x": jnp.ones(2), "y": jnp.ones(1)}, "a": jnp.ones(2, jnp.bfloat16), "c": jnp.ones(9)}
    checkpoint.save(tmp_path, tree, max_shard_bytes=12)
    found = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    assert [found[name][6:11] for name in ("a", "b/x", "b/y", "c")] == ["00001", "00001", "00002", "00003"]
    assert checkpoint.load(tmp_path) == js.Params(tree)


@pytest.mark.parametrize("tree", [{"a": np.ones(3)}, {}, {"a": np.zeros(0)}])
def test_what_goes_into_one_file_has_no_index(tmp_path, tree):
    (tmp_path / "config.json").write_text("{}")
    checkpoint.save(tmp_path, tree, max_shard_bytes=24)
    assert names_in(tmp_path) == ["config.json", "model.safetensors"]
    assert checkpoint.load(tmp_path) == js.Params(tree)


def test_a_folder_stays_what_was_opened_wherever_the_process_goes(tmp_path, monkeypatch):
    """Also one of more files than stay open."""
    arrays = {f"a{i}": np.full(3, i, np.float32) for i in range(70)}
    checkpoint.save(tmp_path / "here", arrays, max_shard_bytes=12)
    monkeypatch.chdir(tmp_path)
    opened = checkpoint.open("here")
    monkeypatch.chdir(tmp_path / "here")
    assert opened.read() == js.Params(arrays)


THERE = ["model.safetensors", INDEX, "model-00002-of-00002.safetensors", "a.safetensors"]
OF_OTHERS = ["_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "checkpoint", "model.ckpt-1.index"]


@pytest.mark.parametrize("there", THERE + OF_OTHERS)
def test_another_checkpoint_is_not_touched(tmp_path, there):
    (tmp_path / there).write_text("old")
    with pytest.raises(js.CheckpointError, match=f"has '{there}' in it already") as error:
        checkpoint.save(tmp_path, {"a": np.ones(3), "b": np.ones(3)}, max_shard_bytes=24)
    assert "another folder" in error.value.fix
    assert names_in(tmp_path) == [there]
    assert (tmp_path / there).read_text() == "old"


def test_a_prefix_of_the_folders_name_is_not_hidden(tmp_path):
    """`load` would give its arrays in place of the new ones."""
    old, new = {"a": np.zeros(3)}, {"a": np.ones(3), "b": np.ones(3)}
    checkpoint.save_tf(tmp_path / "prefix", old)
    with pytest.raises(js.CheckpointError, match="is the prefix of a checkpoint of TensorFlow"):
        checkpoint.save(tmp_path / "prefix", new, max_shard_bytes=24)
    assert checkpoint.load(tmp_path / "prefix") == js.Params(old)
    assert not (tmp_path / "prefix").exists()


@pytest.mark.parametrize("most", [0, -1, 1.5, "5GB", True])
def test_what_is_no_number_of_bytes_is_refused(tmp_path, most):
    with pytest.raises(js.BadArgumentError, match="max_shard_bytes is a whole number"):
        checkpoint.save(tmp_path / "model", {"a": np.ones(3)}, max_shard_bytes=most)
    assert not names_in(tmp_path)


@pytest.mark.parametrize("name", ["m.safetensors", "m.safetensors.index.json", "nowhere/model", "file"])
def test_what_can_be_no_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("text")
    with pytest.raises(js.CheckpointError):
        checkpoint.save(tmp_path / name, {"a": np.ones(3)}, max_shard_bytes=8)
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize(("folder", "is_new"), [(".", False), ("new", True)])
def test_after_an_error_nothing_is_left(tmp_path, monkeypatch, folder, is_new):
    folder = tmp_path / folder
    lost, asarray, before = jnp.ones(3), np.asarray, []

    def refuse(value, *args, **kwargs):
        if value is lost:
            before.extend(names_in(folder))
            raise RuntimeError("the device is gone")
        return asarray(value, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(np, "asarray", refuse)
        with pytest.raises(RuntimeError, match="the device is gone"):
            checkpoint.save(folder, {"a": np.ones(3), "b": lost}, max_shard_bytes=24)
    assert "model-00001-of-00002.safetensors" in before
    assert not names_in(tmp_path)
    assert folder.exists() is not is_new


KILLED = """
import os, sys
import numpy as np
from jscope import checkpoint

real, left = os.fsync, [int(sys.argv[2])]

def fsync(handle):
    left[0] -= 1
    if not left[0]:
        os._exit(7)
    real(handle)

os.fsync = fsync
checkpoint.save(sys.argv[1], {name: np.ones(3) for name in "abc"}, max_shard_bytes=24)
"""


def test_what_a_killed_save_left_is_not_taken_for_a_checkpoint(tmp_path):
    for step in (1, 3, 5):  # in the first file, in the last, in the index
        folder = tmp_path / str(step)
        done = subprocess.run([sys.executable, "-c", KILLED, folder, str(step)], check=False)
        assert done.returncode == 7
        with pytest.raises(js.CheckpointError):
            checkpoint.load(folder)
        with pytest.raises(js.CheckpointError, match="in it already"):
            checkpoint.save(folder, {"a": np.ones(3)}, max_shard_bytes=24)


def test_a_plan_saves_in_several_files_what_it_loaded_from_several(tmp_path):
    plan: Any = Plan().tie("wte", "head").drop("mask").transpose("h.{i}.w").stack("h.{i}.w", "h")
    file = {f"h.{i}.w": NUMBERS.normal(size=(2, 3)) for i in range(11)} | {"mask": np.tri(4), "head": np.ones(5)}
    checkpoint.save(tmp_path / "old", file, metadata={"format": "pt"}, max_shard_bytes=200)
    target = {name: np.zeros(spec.shape, spec.dtype) for name, spec in plan.leads_to(tmp_path / "old").items()}
    params, _ = plan.load(target, tmp_path / "old")
    plan.save(tmp_path / "new", params, like=tmp_path / "old", max_shard_bytes=200)
    assert names_in(tmp_path / "new") == names_in(tmp_path / "old")
    for name in names_in(tmp_path / "new"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "old" / name).read_bytes()
