"""Checkpoints that the real TensorFlow 2.21 wrote (by `tests/support/tf_recorder.py`), each array as it was given."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from paths import DATA

from jscope.checkpoint import list_tf, load_tf
from jscope.checkpoint.files import File
from jscope.checkpoint.table import Table


@pytest.mark.parametrize("file", ["tf_v1", "tf_v2", "tf_parts_v1", "tf_parts_v2", "tf_shards"])
def test_recorded(file):
    loaded, listing = load_tf(DATA / f"{file}.ckpt"), list_tf(DATA / f"{file}.ckpt")
    seen = set()
    with np.load(DATA / "tf_expected.npz") as expected:
        for entry in expected:
            of_file, _, name = entry.partition("|")
            if of_file == f"{file}.ckpt":
                name, array = name.replace("|", "/"), expected[entry]
                if name == "scope/bf":
                    array = array.view(jnp.bfloat16)
                got = loaded[name]
                assert (got.shape, got.dtype) == (array.shape, array.dtype)
                assert got.tobytes() == array.tobytes()
                assert (listing[name].shape, listing[name].dtype) == (array.shape, array.dtype)
                seen.add(name)
    assert set(loaded) == seen
    assert len(seen) == {"tf_v1": 14, "tf_v2": 17, "tf_parts_v1": 2, "tf_parts_v2": 2, "tf_shards": 10}[file]
    assert loaded.skipped == ({"text": "holds strings"} if file == "tf_v2" else {})


def test_the_recorded_files_are_what_they_are_for():
    assert len(list(DATA.glob("tf_shards.ckpt.data-*-of-00005"))) == 5
    for version in ("v1", "v2"):
        assert len(parts_of(f"tf_parts_{version}.ckpt")) == 16


def parts_of(file):
    """The keys of the parts of the only variable that has any."""
    path = DATA / file
    table = Table(File(path if path.exists() else f"{path}.index"))
    return [key for key, _, _ in table.items() if key.startswith(b"\0") and b"table" in key]
