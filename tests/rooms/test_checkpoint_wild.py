"""Checkpoints as they lie about: folders of several files, indexes that lie, files of other kinds."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import jscope as js
from jscope import checkpoint
from jscope.checkpoint.command import main

W, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(3, dtype=np.float16)


def two_shards(folder: Path, *, variant: str = "", **changes: Any) -> Path:
    """A folder as `save_pretrained` writes it. `changes` of the index are by the file's own keys."""
    names = [f"model{variant}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    checkpoint.save(folder / names[0], {"a.w": W, "a.b": B}, metadata={"format": "pt"})
    checkpoint.save(folder / names[1], {"c.w": W + 1}, metadata={"format": "pt", "lm_head.weight": "a.w"})
    index = {"metadata": {"total_size": 54}, "weight_map": {"a.w": names[0], "a.b": names[0], "c.w": names[1]}}
    path = folder / f"model.safetensors.index{variant}.json"
    path.write_text(json.dumps(index | changes))
    return path


def error_of(path: object) -> js.CheckpointError:
    with pytest.raises(js.CheckpointError) as caught:
        checkpoint.load(path)
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    return caught.value


# Folders --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_a_folder_of_several_files_is_one_checkpoint(tmp_path, variant):
    index = two_shards(tmp_path, variant=variant)
    for path in (tmp_path, str(tmp_path), index):
        opened = checkpoint.open(path)
        assert list(opened) == ["a.b", "a.w", "c.w"]
        assert opened.metadata == {"format": "pt", "lm_head.weight": "a.w"}
        np.testing.assert_array_equal(opened["c.w"], W + 1)
    assert checkpoint.load(tmp_path) == js.Params({"a.w": W, "a.b": B, "c.w": W + 1})


def test_what_another_program_has_written_anew_is_read_without_checksums(tmp_path):
    """The package of that name keeps the metadata, jscope's checksums of the old file among them."""
    checkpoint.save_state(tmp_path / "m", {"a": W, "key": jax.random.key(1)}, metadata={"step": "1"})
    with safetensors.safe_open(tmp_path / "m", "np") as file:
        arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    arrays["a"] = arrays["a"] * 2
    folder = tmp_path / "folder"
    folder.mkdir()
    safetensors.numpy.save_file(arrays, folder / "model-00001-of-00001.safetensors", metadata=metadata)
    where = dict.fromkeys(arrays, "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    for path in (folder / "model-00001-of-00001.safetensors", folder):
        error = error_of(path)
        assert "another program has written it anew, which verify=False reads" in str(error)
        np.testing.assert_array_equal(checkpoint.load(path, verify=False)["a"], W * 2)
        opened = checkpoint.open(path, verify=False)
        assert opened.metadata == {"step": "1"}
        checkpoint.save(tmp_path / "again", opened.read(), metadata=opened.metadata)
        assert checkpoint.load(tmp_path / "again") == opened
        template = {"a": W, "key": jax.random.key(0)}
        state, report = checkpoint.load_state(path, template, verify=False)
        assert (state["key"] == jax.random.key(1)).all()
        assert report.unverified == ("a", "key")
    assert "open it with verify=False" in error_of(folder / "model-00001-of-00001.safetensors").fix


def test_metadata_that_are_null_are_none(tmp_path):
    """Rust's serde reads them as None, so the package of that name takes such a file."""
    header = b'{"__metadata__":null,"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\7")
    opened = checkpoint.open(tmp_path / "m.safetensors")
    assert (opened.metadata, opened["a"].tolist()) == ({}, [7])
    with safetensors.safe_open(tmp_path / "m.safetensors", "np") as file:
        assert file.metadata() is None


def test_a_folder_with_one_file_is_that_file(tmp_path):
    checkpoint.save(tmp_path / "any name.safetensors", {"w": W})
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert checkpoint.load(tmp_path) == js.Params({"w": W})


def test_links_are_followed_where_the_folder_has_them(tmp_path):
    """The cache of the hub is made of links."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    index = two_shards(tmp_path / "blobs")
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert checkpoint.load(tmp_path / "snapshot") == checkpoint.load(index)


def test_what_is_not_clear_is_refused(tmp_path):
    two_shards(tmp_path)
    checkpoint.save(tmp_path / "model.safetensors", {"w": W})
    error = error_of(tmp_path)
    assert error.kind == "ambiguous"
    assert error.fix == f"give the path of one, such as {str(tmp_path / 'model.safetensors.index.json')!r}"
    assert "model.safetensors'" in error.exists
    assert "index.json" in error.exists


def test_an_index_of_another_variant_beside_the_files_is_told(tmp_path):
    two_shards(tmp_path)
    (tmp_path / "model.safetensors.index.json").rename(tmp_path / "model.safetensors.index.fp16.json")
    assert checkpoint.load(tmp_path)["a.w"].shape == (2, 3)  # it names the files that are there
    index = tmp_path / "model.safetensors.index.fp16.json"
    index.write_text(index.read_text().replace("model-", "model.fp16-"))
    assert any("fp16-00001-of-00002.safetensors' is missing" in fault for fault in error_of(tmp_path).faults)


def test_two_indexes_are_refused(tmp_path):
    two_shards(tmp_path)
    two_shards(tmp_path, variant=".fp16")
    assert error_of(tmp_path).kind == "ambiguous"
    assert checkpoint.load(tmp_path / "model.safetensors.index.fp16.json")["a.b"].dtype == np.float16


def test_files_without_their_index_are_refused(tmp_path):
    two_shards(tmp_path).unlink()
    assert "no index" in str(error_of(tmp_path))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "one of 2 files" in str(error_of(tmp_path))
    assert list(checkpoint.open(tmp_path / "model-00001-of-00002.safetensors")) == ["a.b", "a.w"]


def test_a_checkpoint_of_tensorflow_beside_is_not_guessed_away(tmp_path):
    checkpoint.save(tmp_path / "model.safetensors", {"w": W})
    checkpoint.save_tf(tmp_path / "model.ckpt", {"w": W})
    assert error_of(tmp_path).kind == "ambiguous"
    assert list(checkpoint.load_tf(tmp_path)) == ["w"]


# What an index says ---------------------------------------------------------------------------------------------------

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ({"a.w": ONE, "a.b": ONE, "c.w": "model-00003-of-00003.safetensors"}, "is missing"),
        ({"a.w": ONE, "a.b": TWO, "c.w": ONE}, f"'c.w' is in '{TWO}', and the index says '{ONE}'"),
        ({"a.w": ONE, "a.b": ONE, "c.w": ONE}, f"'c.w' is to be in '{ONE}', and is not"),
        ({"a.w": ONE, "c.w": TWO}, f"'a.b' is in '{ONE}', and the index does not have it"),
        ({"a.w": ONE, "a.b": ONE, "c.w": TWO, "d": TWO}, f"'d' is to be in '{TWO}', and is not"),
        ({"a.w": ONE, "a.b": ONE, "c.w": f"../{TWO}"}, "is not followed"),
        ({"a.w": ONE, "a.b": ONE, "c.w": "/etc/passwd"}, "is not followed"),
        ({"a.w": ONE, "a.b": ONE, "c.w": "C:\\model.safetensors"}, "is not followed"),
        ({"a.w": ONE, "a.b": ONE, "c.w": ""}, "is not followed"),
    ],
)
def test_an_index_that_does_not_fit_is_told(tmp_path, where, fault):
    two_shards(tmp_path, weight_map=where)
    assert any(fault in line for line in error_of(tmp_path).faults)


def test_every_fault_of_an_index_is_told_at_once(tmp_path):
    two_shards(tmp_path, weight_map={"a.w": ONE, "x": ONE, "c.w": "../x.safetensors", "y": "z.safetensors"})
    assert len(error_of(tmp_path).faults) == 5  # a.b, x, c.w's file, y's file, the part that is not named


def test_an_array_in_two_files_is_told(tmp_path):
    two_shards(tmp_path)
    checkpoint.save(tmp_path / TWO, {"c.w": W, "a.w": W})
    assert f"'a.w' is in two files: '{ONE}' and '{TWO}'" in error_of(tmp_path).faults


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git-lfs"),
        (b"\x10\0\0\0\0\0\0\0{", "9 bytes"),
    ],
)
def test_a_shard_that_is_none_is_told(tmp_path, content, fault):
    two_shards(tmp_path)
    (tmp_path / TWO).write_bytes(content)
    assert any(fault in line for line in error_of(tmp_path).faults)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": null}}',
        "[" * 100_000,
        '{"weight_map": {"\\ud800": "x\\u0000.safetensors"}}',
        "version https://git-lfs.github.com/spec/v1",
    ],
)
def test_what_is_no_index_is_a_fault_of_the_checkpoint(tmp_path, text):
    two_shards(tmp_path).write_text(text)
    error_of(tmp_path)


FAMILIES = {
    "many names": lambda n: {"weight_map": {f"{i:x}": "" for i in range(n // 10)}},
    "many files": lambda n: {"weight_map": {f"{i:x}": f"{i:x}.safetensors" for i in range(n // 30)}},
    "a long name": lambda n: {"weight_map": {"n" * n: ONE}},
    "a long file": lambda n: {"weight_map": {"n": "f" * (n - 20) + ".safetensors"}},
    "empty lists": lambda n: {"weight_map": [[]] * (n // 4)},
    "numbers": lambda n: {"weight_map": list(range(n // 8))},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_index_takes_no_more_memory_than_it_may(tmp_path, family):
    size = 2_000_000
    index = two_shards(tmp_path)
    index.write_text(json.dumps(FAMILIES[family](size), separators=(",", ":")))
    tracemalloc.start()
    try:
        str(error_of(tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 32_000_000 + 8 * index.stat().st_size


# Orbax ----------------------------------------------------------------------------------------------------------------


def test_folders_of_orbax_are_read(tmp_path, capsys):
    ocp = pytest.importorskip("orbax.checkpoint")
    params = js.Params({"tower/kernel": jnp.ones((2, 3), jnp.bfloat16), "tower/bias": jnp.arange(3.0)})
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", params)
        checkpointer.save(tmp_path / "state", {"step": 7, "params": params, "slots": (jnp.zeros(2), [jnp.ones(1)])})
        checkpointer.wait_until_finished()
    assert checkpoint.load(tmp_path / "params") == params
    state = checkpoint.open(tmp_path / "state")
    assert list(state) == ["params/tower/bias", "params/tower/kernel", "slots/0", "slots/1/0", "step"]
    assert state["step"] == 7
    assert main(["ls", str(tmp_path / "params")]) == 0
    assert "tower/kernel  bfloat16  2x3" in capsys.readouterr().out
    out = str(tmp_path / "out.safetensors")
    assert main(["convert", str(tmp_path / "params"), out]) == 0
    assert main(["diff", str(tmp_path / "params"), out]) == 0
    (tmp_path / "params" / "_METADATA").write_text("{")
    error_of(tmp_path / "params")


def saved_by_orbax(folder, tree, **options):
    ocp = pytest.importorskip("orbax.checkpoint")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, tree, **options)


def test_a_folder_of_orbax_stays_what_was_opened(tmp_path, monkeypatch):
    """Wherever the process goes; and where it is saved again, no arrays of two saves are mixed."""
    (tmp_path / "other").mkdir()
    saved_by_orbax(tmp_path / "run", {"a": jnp.ones(3), "b": jnp.ones(3)})
    saved_by_orbax(tmp_path / "other" / "run", {"a": jnp.zeros(3), "b": jnp.zeros(3)})
    monkeypatch.chdir(tmp_path)
    opened = checkpoint.open("run")
    monkeypatch.chdir(tmp_path / "other")
    np.testing.assert_array_equal(opened["a"], np.ones(3))
    saved_by_orbax(tmp_path / "run", {"a": jnp.full(3, 9.0), "b": jnp.full(3, 9.0)}, force=True)
    with pytest.raises(js.CheckpointError, match="was changed after the checkpoint was opened") as error:
        opened["b"]
    assert error.value.fix == "open the checkpoint again"
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "run")["b"], np.full(3, 9.0))


def test_arrays_of_orbax_that_are_not_as_listed_are_no_values(tmp_path):
    """The data of another save, put under what the first one lists."""
    for name, shape in (("one", (3,)), ("two", (5,))):
        saved_by_orbax(tmp_path / name, {"a": jnp.ones(shape)})
    opened = checkpoint.open(tmp_path / "one")
    not_the_tree = shutil.ignore_patterns("_METADATA")
    shutil.copytree(tmp_path / "two", tmp_path / "one", ignore=not_the_tree, dirs_exist_ok=True)
    with pytest.raises(js.CheckpointError, match="damaged") as error:
        opened["a"]
    assert "'a' is float32 of shape (5,), and listed as float32 of shape (3,)" in str(error.value)


def test_rows_of_arrays_of_orbax_are_said_to_be_unverified(tmp_path):
    saved_by_orbax(tmp_path / "run", {"a": jnp.arange(6.0).reshape(2, 3)})
    plan = checkpoint.Plan().unstack("a", "a.{i}")
    params, report = plan.load({"a.0": np.zeros(3, np.float32), "a.1": np.zeros(3, np.float32)}, tmp_path / "run")
    np.testing.assert_array_equal(params["a.1"], [3, 4, 5])
    assert report.unverified == ("a.0", "a.1")


def test_the_root_of_a_checkpoint_manager_names_its_last_step(tmp_path):
    for step in (2, 10):
        saved_by_orbax(tmp_path / "run" / str(step) / "default", {"a": jnp.full(2, step)})
        (tmp_path / "run" / str(step) / "_CHECKPOINT_METADATA").write_text("{}")
    fix = error_of(tmp_path / "run").fix
    assert fix.endswith(f"such as {str(tmp_path / 'run' / '10')!r}")
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "run" / "10")["a"], [10, 10])
    saved_by_orbax(tmp_path / "run" / "10" / "more", {"b": jnp.ones(2)})
    assert error_of(tmp_path / "run" / "10").fix.endswith(f"such as {str(tmp_path / 'run' / '10' / 'default')!r}")


# Files of other kinds -------------------------------------------------------------------------------------------------


def zipped(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 30)
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return data.getvalue()


def npy() -> bytes:
    data = io.BytesIO()
    np.save(data, np.ones(3))
    return data.getvalue()


KINDS = {
    "x.npy": (npy(), "numpy.load"),
    "pytorch_model.bin": (zipped("archive/data.pkl", "archive/data/0"), "save_file(torch.load"),
    "old.pt": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\0" * 90, "PyTorch"),
    "model.keras": (zipped("config.json", "model.weights.h5"), "Keras"),
    "some.zip": (zipped("readme.txt"), "zip archive"),
    "w.h5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "h5py"),
    "flax_model.msgpack": (b"\x82\xa6params\x81" + b"\0" * 90, "msgpack_restore"),
    "big.msgpack": (b"\xde\x00\x20\xd9\x28" + b"k" * 40 + b"\0" * 90, "msgpack"),
    "m.gguf": (b"GGUF\x03\0\0\0" + b"\0" * 90, "llama.cpp"),
    "p.pkl": (pickle.dumps({"w": [1.0] * 50}), "pickle"),
    "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "page.safetensors": (b"<!DOCTYPE html><html>404</html>" + b" " * 90, "web page"),
    "config.json": (b'{"architectures": ["GPT2LMHeadModel"]}' + b" " * 90, "JSON"),
    "list.json": (b"[1, 2, 3]" + b" " * 90, "JSON"),
    "w.tar": (tarred(), "tar archive"),
    "w.tar.gz": (b"\x1f\x8b\x08" + b"\0" * 90, "gzip"),
    "cut.bin": ((5000).to_bytes(8, "little") + b'{"w":{"dtype"' + b" " * 90, "cut off"),
    "broken.safetensors": (b"\0" * 500, "zeros"),
    "nothing": (b"", "is empty"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_another_kind_is_told_for_what_it_is(tmp_path, name):
    content, words = KINDS[name]
    (tmp_path / name).write_bytes(content)
    error = error_of(tmp_path / name)
    assert words in str(error).replace(str(tmp_path), "").replace(name, "")
    assert error.fix


@pytest.mark.parametrize("name", [name for name in KINDS if not name.endswith((".safetensors", ".json"))])
def test_a_folder_of_such_files_says_what_they_are(tmp_path, name):
    content, words = KINDS[name]
    (tmp_path / name).write_bytes(content)
    text = str(error_of(tmp_path))
    assert name in text
    assert words in text or f"{name} is " in text


def test_a_folder_without_anything_says_so(tmp_path):
    assert error_of(tmp_path).kind == "not_found"


def test_a_checkpoint_of_tensorflow_is_none_of_them(tmp_path):
    """Whatever its data begin with."""
    for start in (b"\x93NUMPY", b"GGUF", b"\x80\x04", b"PK\3\4", b'{"a"', b"\x1f\x8b", b"\x81\xa1a"):
        value = np.frombuffer(start.ljust(40, b"\0"), np.uint8)
        checkpoint.save_tf(tmp_path / "m", {"w": value})
        for path in ("m", "m.index", "m.data-00000-of-00001"):
            np.testing.assert_array_equal(checkpoint.load(tmp_path / path)["w"], value)


def test_bfloat16_as_numpy_saves_it(tmp_path):
    params = js.Params({"a/w": jnp.ones((2, 2), jnp.bfloat16), "a/b": jnp.ones(2), "e": jnp.zeros(0, jnp.bfloat16)})
    for save in (np.savez, np.savez_compressed):
        save(
            tmp_path / "p.npz",
            **params.flat(),
            fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3).astype(jnp.bfloat16)),
        )
        loaded = checkpoint.load(tmp_path / "p.npz")
        assert loaded["fortran"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(loaded["fortran"].astype(int), np.arange(6).reshape(2, 3))
        assert js.Params({name: loaded[name] for name in params.names}) == params


def test_float8_as_numpy_saves_it_is_left_out_with_the_reason(tmp_path):
    np.savez(tmp_path / "p.npz", w=np.ones(3, jnp.float8_e4m3fn))
    assert "float8" in str(error_of(tmp_path / "p.npz"))


@pytest.mark.parametrize("ending", [".bin", ".h5", ".npy", ".pt", ".safetensor", ".msgpack", ".json"])
def test_convert_refuses_an_ending_that_it_does_not_know(tmp_path, ending, capsys):
    checkpoint.save(tmp_path / "m.safetensors", {"w": W})
    target = tmp_path / f"out{ending}"
    assert main(["convert", str(tmp_path / "m.safetensors"), str(target)]) == 2
    assert ending in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors"]


@pytest.mark.parametrize("name", ["out", "out.ckpt", "out.ckpt-1000", "out-7"])
def test_convert_takes_a_prefix_for_one_of_tensorflow(tmp_path, name):
    checkpoint.save(tmp_path / "m.safetensors", {"w": W})
    assert main(["convert", str(tmp_path / "m.safetensors"), str(tmp_path / name)]) == 0
    np.testing.assert_array_equal(checkpoint.load_tf(tmp_path / name)["w"], W)


def test_the_command_takes_folders(tmp_path, capsys):
    two_shards(tmp_path)
    out = str(tmp_path / "out.npz")
    assert main(["ls", str(tmp_path)]) == 0
    assert "3 arrays" in capsys.readouterr().out
    assert main(["show", str(tmp_path), "c.w"]) == 0
    assert main(["convert", str(tmp_path), out]) == 0
    assert main(["diff", str(tmp_path / "model.safetensors.index.json"), out]) == 0
