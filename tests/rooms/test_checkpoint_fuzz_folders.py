"""Folders of several files, and training states, that are not sound: a `JscopeError`, or the arrays that were saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from spoil import VALUES, flipped, mutated, spoiled

import jscope as js
from jscope import checkpoint

COUNTS = [100, pytest.param(10_000, marks=pytest.mark.slow)]
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
ARRAYS = [
    {"a.kernel": np.arange(12.0).reshape(3, 4), "a.bias": np.arange(5, dtype=np.float32)},
    {"b.kernel": np.ones((2, 2), np.float16), "n": np.array(7, np.int64)},
]
INDEX = {
    "metadata": {"total_size": 132},
    "weight_map": {name: shard for shard, arrays in zip(SHARDS, ARRAYS, strict=True) for name in arrays},
}
NAMES = [*VALUES, *SHARDS, "../secret.safetensors", "/etc/passwd", "a/../b", "model-00003-of-00002.safetensors", "\0"]
STATE = {
    "params": js.Params({"a/w": np.arange(6, dtype=np.float32).reshape(2, 3)}),
    "slots": (np.zeros(3), np.array(4, np.int32)),
    "step": 7,
    "key": jax.random.key(3),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, arrays in zip(SHARDS, ARRAYS, strict=True):
        checkpoint.save(tmp_path / name, arrays)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps(INDEX, indent=2))
    return tmp_path


def read(folder: Path) -> dict[str, Any] | None:
    """The arrays, or None where there is a `CheckpointError`. Any other exception fails the test."""
    fault, arrays = None, {}
    try:
        arrays = dict(checkpoint.open(folder))
    except js.CheckpointError as error:
        fault = error
    if fault is not None:
        assert str(folder) in fault.what
        return None
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("spoil", [flipped, spoiled])
@pytest.mark.parametrize("name", ["model.safetensors.index.json", *SHARDS])
def test_a_file_of_a_folder_is_spoiled(folder, name, spoil, count):
    """Whatever comes out is what was saved: a whole array of a shard under its own name."""
    rng, right, file = np.random.default_rng(1), read(folder), folder / name
    data = file.read_bytes()
    for i in range(count):
        file.write_bytes(spoil(rng, data))
        got = read(folder)
        if got is not None and file.suffix == ".json":
            assert got == right, i
        elif got is not None:
            assert set(got.values()) <= set(right.values()), i


@pytest.mark.parametrize("count", COUNTS)
def test_an_index_made_on_purpose(folder, count):
    """It says what is in which file; nothing outside the folder is ever opened, and nothing is left out silently."""
    rng, right, told = np.random.default_rng(2), read(folder), 0
    (folder.parent / "secret.safetensors").write_bytes(b"no file of this folder")
    for i in range(count):
        text = json.dumps(mutated(rng, INDEX, NAMES, share=0.04))
        (folder / "model.safetensors.index.json").write_text(text)
        got = read(folder)
        told += got is None
        assert got is None or got == right, (i, text)
    assert 0 < told < count


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("spoil", [flipped, spoiled])
def test_a_training_state_is_spoiled(tmp_path, spoil, count):
    rng, file = np.random.default_rng(3), tmp_path / "state.safetensors"
    checkpoint.save_state(file, STATE)
    data = file.read_bytes()
    for i in range(count):
        file.write_bytes(spoil(rng, data))
        try:
            state = checkpoint.load_state(file, STATE).state
        except (js.CheckpointError, js.ParamsMismatchError):
            continue
        assert state["step"] == 7, i
        assert state["params"] == STATE["params"], i
        assert jnp.array_equal(jax.random.key_data(state["key"]), jax.random.key_data(STATE["key"])), i


STARTS = [
    b"\x80\x04",
    b"PK\3\4",
    b"\x89HDF\r\n\x1a\n",
    b"GGUF",
    b"\x93NUMPY",
    b"version https://git-lfs",
    b"{",
    b"\x82",
    b"",
]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("start", STARTS, ids=repr)
def test_files_of_other_kinds(tmp_path, start, count):
    """Told for what they seem to be, whatever follows."""
    rng, file = np.random.default_rng(4), tmp_path / "model.bin"
    for _ in range(count):
        file.write_bytes(start + rng.bytes(rng.integers(120)))
        assert read(file) is None


def test_a_part_that_the_index_does_not_name_is_told(folder: Path) -> None:
    where = {name: shard for name, shard in INDEX["weight_map"].items() if shard == SHARDS[0]}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    with pytest.raises(js.CheckpointError) as error:
        checkpoint.open(folder)
    assert error.value.faults == (
        f"'{SHARDS[1]}' is a part of the same set and holds arrays, and the index does not name it",
    )
    checkpoint.save(folder / SHARDS[1], {})  # an empty one has nothing to name
    assert list(checkpoint.open(folder)) == sorted(where)
