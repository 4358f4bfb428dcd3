"""`save`, `load` and `open`: what comes back is what was saved, to the bit, or an error says why not."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.flax
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA

import jscope as js
from jscope import checkpoint, testing
from jscope.checkpoint import npz
from jscope.checkpoint.safetensors_file import DTYPES

RNG = np.random.default_rng(0)


def error_of(f, *args, **kwargs):
    with pytest.raises(js.CheckpointError) as info:
        f(*args, **kwargs)
    assert info.value.fix
    assert info.value.where.startswith(__file__), info.value.where
    return info.value


def same(loaded, arrays):
    assert list(loaded) == sorted(arrays)
    for name, array in arrays.items():
        got = loaded[name]
        assert isinstance(got, np.ndarray)
        assert (got.shape, got.dtype) == (array.shape, array.dtype)
        assert got.tobytes() == np.asarray(array).tobytes()


@pytest.mark.parametrize("save", [checkpoint.save, checkpoint.save_tf, checkpoint.save_state, npz.save_npz])
def test_a_masked_array_is_refused(tmp_path, save):
    error = error_of(save, tmp_path / "m", {"a": np.ma.array([1.0, 2.0], mask=[0, 1])})
    assert "'a' is a masked array" in error.what
    assert not os.listdir(tmp_path)


def test_checkpoints_that_hold_the_same_are_equal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = {"a": np.arange(3), "b/c": np.ones((2, 2), jnp.bfloat16)}
    others = {"values": {**one, "a": np.arange(3) + 1}, "shape": {**one, "a": np.ones(4)}, "names": {"a": np.arange(3)}}
    others["dtype"] = {**one, "a": np.arange(3.0)}
    for name, tree in {"one": one, "same": one, **others}.items():
        checkpoint.save(name, tree)
        checkpoint.save_tf(f"{name}.ckpt", tree)
    for end, open_ in (("", checkpoint.open), (".ckpt", checkpoint.load_tf), (".ckpt", checkpoint.list_tf)):
        opened = open_(f"one{end}")
        assert (opened == open_(f"same{end}")) is True
        assert (opened != open_(f"same{end}")) is False
        for name in ("shape", "names", "dtype"):
            assert (opened == open_(f"{name}{end}")) is False
    assert checkpoint.open("one") == checkpoint.load_tf("one.ckpt") == one == js.Params(one)
    assert checkpoint.open("one") != checkpoint.open("values")
    assert checkpoint.open("one") != checkpoint.list_tf("one.ckpt")
    assert checkpoint.open("one") != "one"


def test_where_to_save_in_place_of_a_folder_is_said(tmp_path):
    assert "the path of a file" in error_of(checkpoint.save, tmp_path, {"a": 1}).fix


def test_what_is_not_tensorflows_is_told_for_what_it_is(tmp_path):
    checkpoint.save(tmp_path / "m.safetensors", {"a": 1})
    np.savez(tmp_path / "m.npz", a=1)
    for load in (checkpoint.load_tf, checkpoint.list_tf):
        for name, kind in (("m.safetensors", "one of safetensors"), ("m.npz", "a .npz file")):
            error = error_of(load, tmp_path / name)
            assert f"is no checkpoint of TensorFlow, but {kind}" in error.what
            assert "checkpoint.load(path)" in error.fix
        assert "checkpoint.load(path)" in error_of(load, tmp_path).fix


# Round trips ----------------------------------------------------------------------------------------------------------


@st.composite
def flat_arrays(draw):
    names = draw(st.lists(testing.names(), max_size=5, unique=True))
    arrays = {}
    for name in names:
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        dtype = draw(st.sampled_from(sorted(DTYPES.values(), key=str)))
        count = int(np.prod(shape)) * dtype.itemsize
        raw = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
        arrays[name] = (raw % 2 if dtype.kind == "b" else raw).view(dtype).reshape(shape)
    return arrays


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@given(arrays=flat_arrays())
@settings(max_examples=60, deadline=None)
def test_what_is_saved_is_loaded(scratch, arrays):
    checkpoint.save(scratch / "m", arrays, metadata={"é": "\n"})
    same(checkpoint.load(scratch / "m").flat(), arrays)
    same(checkpoint.open(scratch / "m"), arrays)
    assert checkpoint.open(scratch / "m").metadata == {"é": "\n"}
    raw = dict(safetensors.deserialize((scratch / "m").read_bytes()))
    assert {name: bytes(entry["data"]) for name, entry in raw.items()} == {n: a.tobytes() for n, a in arrays.items()}


def test_trees_come_back_as_they_were(tmp_path):
    tree = js.Params({"a": {"b": jnp.ones((2, 3), jnp.bfloat16)}, "n": 3, "x": np.arange(6.0).reshape(2, 3).T})
    checkpoint.save(tmp_path / "m", tree)
    loaded = checkpoint.load(tmp_path / "m")
    assert loaded == tree
    assert loaded["x"].dtype == np.float64  # whatever x64 says
    assert checkpoint.load(tmp_path / "m")["a"].names == ("b",)
    checkpoint.save(tmp_path / "m", {"big": np.arange(3, dtype=">i4")})
    same(checkpoint.load(tmp_path / "m").flat(), {"big": np.arange(3, dtype="<i4")})
    checkpoint.save(tmp_path / "m", {})
    assert checkpoint.load(tmp_path / "m") == js.Params()


def test_the_package_of_that_name_reads_and_writes_the_same(tmp_path):
    arrays = {"a/b": RNG.normal(size=(3, 2)), "c": np.array([True, False]), "d": np.zeros((0, 2), np.int8)}
    checkpoint.save(tmp_path / "m", arrays)
    same(dict(sorted(safetensors.numpy.load_file(tmp_path / "m").items())), arrays)
    assert safetensors.flax.load_file(tmp_path / "m")["a/b"].shape == (3, 2)
    safetensors.numpy.save_file(arrays, tmp_path / "m", metadata={"format": "np"})
    same(checkpoint.open(tmp_path / "m"), arrays)
    assert checkpoint.open(tmp_path / "m").metadata == {"format": "np"}


def test_arrays_are_aligned(tmp_path):
    checkpoint.save(tmp_path / "m", {"a": np.ones(3, np.int8), "b": np.ones(3), "c": np.ones(3, np.float16)})
    raw = (tmp_path / "m").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    for name, width in (("a", 1), ("b", 8), ("c", 2)):
        assert header[name]["data_offsets"][0] % width == 0


# What can't be saved --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "metadata", "kind"),
    [
        ({"k": jax.random.key(0)}, None, "bad_dtype"),
        ({"k": "text"}, None, "bad_dtype"),
        ({"k": np.array(["text"])}, None, "bad_dtype"),
        ({"k": None}, None, "bad_dtype"),
        ({"k": np.ones(2, np.complex128)}, None, "bad_dtype"),
        ({"k": jnp.ones(2, jnp.int4)}, None, "bad_dtype"),
        ({"__metadata__": 1}, None, "bad_key"),
        ({"\ud800": 1}, None, "bad_key"),
        ({}, {"step": 3}, "bad_metadata"),
        ({}, "step 3", "bad_metadata"),
        ({}, {"step": "\ud800"}, "bad_metadata"),
        ({}, {"jscope.version": "9"}, "bad_metadata"),
    ],
)
def test_what_can_not_be_saved(tmp_path, params, metadata, kind):
    error = error_of(checkpoint.save, tmp_path / "m", params, metadata=metadata)
    assert error.kind == kind
    assert not list(tmp_path.iterdir())
    if "key" in str(getattr(params.get("k"), "dtype", "")):
        assert "jax.random.key_data" in error.fix


@pytest.mark.parametrize("save", [checkpoint.save, checkpoint.save_tf])
def test_what_is_traced_can_not_be_saved(tmp_path, save):
    def traced(x):
        error = error_of(save, tmp_path / "m", {"x": x})
        assert error.kind == "traced"
        assert "outside" in error.fix
        return x

    jax.jit(traced)(jnp.ones(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("save", [checkpoint.save, checkpoint.save_tf, checkpoint.save_state])
@pytest.mark.parametrize("make", [lambda: jnp.ones(3), lambda: jax.random.split(jax.random.key(0), 3)])
def test_what_was_donated_is_named(tmp_path, save, make):
    """JAX's own error says the shape alone; the file that is there stays."""
    taken = make()
    taken.delete()
    error = error_of(save, tmp_path / "m", {"a": {"w": taken}, "b": np.ones(2)})
    assert (error.kind, error.what.partition(":")[0]) == ("deleted", "'a/w' is deleted")
    assert not os.listdir(tmp_path)


def test_a_name_that_promises_another_format(tmp_path):
    """`np.load` would find pickled data in it, or what it takes for such."""
    error = error_of(checkpoint.save, tmp_path / "m.npz", {"a": 1})
    assert error.kind == "other_format"
    assert "np.savez" in error.fix
    assert not list(tmp_path.iterdir())


def test_a_prefix_where_a_file_would_be_read_is_refused(tmp_path, monkeypatch):
    """`load` would go on giving what that file holds. One of TensorFlow's first version is not in the way."""
    monkeypatch.chdir(tmp_path)
    checkpoint.save("m.ckpt", {"a": 1})
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "m.ckpt"}}')
    np.savez("m", a=1)
    (tmp_path / "cut.safetensors").write_text("")
    there = sorted(tmp_path.iterdir())
    for prefix in ("m.ckpt", "m.npz", "cut.safetensors"):
        error = error_of(checkpoint.save_tf, prefix, {"a": 2})
        assert (error.kind, sorted(tmp_path.iterdir())) == ("other_format", there)
    shutil.copy(DATA / "tf_v1.ckpt", "first")
    for prefix in ("other", "first"):
        checkpoint.save_tf(prefix, {"a": 2})
        assert checkpoint.load(prefix)["a"] == 2
    (tmp_path / "m.ckpt").unlink()
    checkpoint.save_tf("m.ckpt", {"a": 2})
    assert checkpoint.load("m.ckpt")["a"] == 2


def test_what_is_there_is_said(tmp_path):
    checkpoint.save(tmp_path / "there.safetensors", {"a": 1})
    error = error_of(checkpoint.load, tmp_path / "ther.safetensors")
    assert error.kind == "not_found"
    assert error.exists == "'there.safetensors'"


def test_where_nothing_can_be_saved(tmp_path):
    assert error_of(checkpoint.save, tmp_path / "no" / "m", {}).kind == "unwritable"


# What can't be loaded -------------------------------------------------------------------------------------------------


def written(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff{}", "no JSON"),
        (b"[1]", "no JSON object"),
        (
            b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
            "'a' twice",
        ),
        (b'{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}', "'dtype' twice"),
        (b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', "no text"),
        ({"__metadata__": {"a": 1}}, "metadata"),
        ({"__metadata__": []}, "metadata"),
        ({"a": 3}, "has not a dtype"),
        ({"a": entry(more=1)}, "has not a dtype"),
        ({"a": entry("F33")}, "unknown dtype"),
        ({"a": entry(["F32"])}, "unknown dtype"),
        ({"a": entry(shape=[1.0])}, "no usable shape"),
        ({"a": entry(shape=[True])}, "no usable shape"),
        ({"a": entry(shape=[-1])}, "no usable shape"),
        ({"a": entry(shape=[1] * 33)}, "no usable shape"),
        ({"a": entry(shape=[0, 1 << 62])}, "no usable shape"),
        ({"a": entry(offsets=[0, 5])}, "there are 4 bytes"),
        ({"a": entry(offsets=[4, 0])}, "there are 4 bytes"),
        ({"a": entry(offsets=[0])}, "there are 4 bytes"),
        ({"a": entry(shape=[2])}, "has not 4 bytes"),
        ({"a": entry(), "b": entry()}, "overlaps"),
        ({"a": entry("U8", offsets=[1, 2])}, "gap"),
        ({"a": entry("U8", offsets=[0, 1])}, "end at byte 1 of 4"),
        ({"__metadata__": {"jscope.version": "1"}, "a": entry()}, "checksum of the header"),
    ],
)
def test_headers_that_are_not_sound(tmp_path, header, text):
    error = error_of(checkpoint.open, written(tmp_path / "m.safetensors", header, b"\0" * 4))
    assert text in error.what
    assert error.kind == "damaged"
    assert str(tmp_path) in error.what


def test_files_that_are_cut_off_or_foreign(tmp_path):
    file = tmp_path / "m.safetensors"
    for raw in (b"", b"\0" * 9, (1 << 63).to_bytes(8, "little") + b"{}", b"\xff" * 40):
        file.write_bytes(raw)
        assert error_of(checkpoint.open, file).kind == "foreign"
    assert error_of(checkpoint.open, tmp_path / "other").kind == "not_found"
    (tmp_path / "m").write_bytes(b"x" * 100)
    assert error_of(checkpoint.open, tmp_path / "m").kind == "foreign"


def test_checksums(tmp_path):
    file = tmp_path / "m"
    checkpoint.save(file, {"a": np.zeros(4), "b": np.ones(4)})
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    opened = checkpoint.open(file)
    np.testing.assert_array_equal(opened["a"], 0)
    assert "checksum of 'b' does not fit its 32 bytes" in error_of(lambda: opened["b"]).what
    assert "checksum of 'b'" in error_of(checkpoint.load, file).what
    assert checkpoint.load(file, verify=False)["b"].shape == (4,)
    raw[raw.index(b'"a"') + 1] ^= 2
    file.write_bytes(raw)
    assert "checksum of the header" in error_of(checkpoint.open, file).what


def test_dtypes_without_arrays_are_said(tmp_path):
    header = {"a": entry("F4", [2], [0, 1]), "b": entry("U8", [1], [1, 2])}
    opened = checkpoint.open(written(tmp_path / "m", header, b"\0\1"))
    assert list(opened) == ["b"]
    assert opened.read() == {"b": np.ones(1, np.uint8)}
    assert opened.skipped == {"a": "holds F4, of which there are no arrays"}
    error = error_of(checkpoint.load, tmp_path / "m")
    assert error.kind == "skipped"
    assert "'a' holds F4" in error.what


@pytest.mark.parametrize("save", [checkpoint.save, npz.save_npz])
def test_files_that_change_after_opening(tmp_path, save):
    """A file that takes its place changes nothing; who writes to the file itself does."""
    path = os.fspath(tmp_path / "m")
    save(path, {"a": np.zeros(4)})
    opened = checkpoint.open(path)
    save(path, {"a": np.zeros(5)})
    assert opened["a"].shape == (4,)
    again = checkpoint.open(path)
    with open(path, "ab") as file:
        file.write(b"more")
    assert error_of(lambda: again["a"]).kind == "changed"
    assert opened["a"].shape == (4,)


# Other formats --------------------------------------------------------------------------------------------------------


def test_open_finds_the_format_in_the_file(tmp_path):
    arrays = {"a/b": RNG.normal(size=(2, 3)), "c": np.ones(())}
    checkpoint.save_tf(tmp_path / "tf", arrays)
    checkpoint.save(tmp_path / "one", arrays)
    np.savez(tmp_path / "two.npz", **arrays)
    os.rename(tmp_path / "two.npz", tmp_path / "two")
    for name in ("tf", "tf.index", "one", "two"):
        same(checkpoint.load(tmp_path / name).flat(), arrays)
    assert str(checkpoint.open(tmp_path / "one").listing()).count("float64") == 2


def test_npz_both_ways(tmp_path):
    arrays = {"file": np.arange(6.0).reshape(2, 3).T, "t": np.array([True]), "e": np.zeros((0, 2), np.int8)}
    npz.save_npz(os.fspath(tmp_path / "m.npz"), {"a": {**arrays, "n": 3, "j": jnp.ones(2, jnp.complex64)}})
    with np.load(tmp_path / "m.npz", allow_pickle=False) as read:
        assert set(read) == {"a/file", "a/t", "a/e", "a/n", "a/j"}
        np.testing.assert_array_equal(read["a/file"], arrays["file"])
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "m.npz", f=np.asfortranarray(RNG.normal(size=(3, 4))), big=np.arange(3, dtype=">i4"))
        loaded = checkpoint.load(tmp_path / "m.npz")
        with np.load(tmp_path / "m.npz") as read:
            np.testing.assert_array_equal(loaded["f"], read["f"])
            np.testing.assert_array_equal(loaded["big"], read["big"])
        assert loaded["big"].dtype == np.int32
    np.savez(tmp_path / "m.npz", o=np.array([{}], object), s=np.array(["x"]), a=np.ones(1))
    opened = checkpoint.open(tmp_path / "m.npz")
    assert list(opened) == ["a"]
    assert set(opened.skipped) == {"o", "s"}


@pytest.mark.parametrize("leaf", [jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float8_e5m2), "text", jax.random.key(0)])
def test_what_npz_can_not_hold(tmp_path, leaf):
    assert error_of(npz.save_npz, os.fspath(tmp_path / "m.npz"), {"a": leaf}).kind == "bad_dtype"
    assert not list(tmp_path.iterdir())


def npy(shape, size, dtype="<f4"):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue() + b"\0" * size


def test_a_small_npz_does_not_fill_the_memory(tmp_path):
    for data, text in [(npy((1 << 40,), 4), "has not 4 bytes"), (npy((-1,), 4), "shape")]:
        with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
            archive.writestr("a.npy", data)
        assert text in error_of(checkpoint.open, tmp_path / "m.npz").what


# At one stroke --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [checkpoint.save, npz.save_npz])
@pytest.mark.parametrize("stop", range(1, 7))
def test_a_save_that_stops_anywhere_leaves_a_whole_checkpoint(tmp_path, monkeypatch, stop, save):
    """Stopped before each of its calls of the system in turn, with no chance to clear up."""
    path = os.fspath(tmp_path / "m")
    save(path, {"a": np.zeros(1000)})
    calls = 0

    def counted(call):
        def wrapper(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls >= stop:
                raise KeyboardInterrupt
            return call(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        for name in ("open", "fsync", "replace"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            save(path, {"a": np.ones(1000)})
            finished = True
        except KeyboardInterrupt:
            finished = False
    values = set(checkpoint.load(path)["a"].tolist())
    assert values == {1.0} if finished else values in ({0.0}, {1.0})
    assert finished == (stop > 5)
    save(path, {"a": np.full(1000, 3.0)})
    assert checkpoint.load(path)["a"][0] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "m", {"a": np.ones(3)})

    def fsync(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert "No space left" in error_of(checkpoint.save, tmp_path / "m", {"a": np.zeros(3)}).what
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    assert checkpoint.load(tmp_path / "m")["a"][0] == 1


SAVER = """
import sys, itertools, numpy as np
from jscope.checkpoint import save
for turn in itertools.count(int(sys.argv[2])):
    print(turn, flush=True)
    save(sys.argv[1], {f"v{i}": np.full(50_000, turn) for i in range(8)})
"""


def kill_while_saving(path, times):
    """A process that saves over and over is killed at some moment; then the next one goes on."""
    turn = 0
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(path), str(turn)], stdout=subprocess.PIPE)
        assert process.stdout
        with process.stdout as out:
            out.readline()
            second = out.readline()  # so the first save is done
            time.sleep(float(RNG.uniform(0, 0.1)))
            process.send_signal(signal.SIGKILL)
            process.wait()
            begun = int((out.read().split() or [second])[-1])
        values = {
            float(value) for array in checkpoint.load(path).flat().values() for value in (array.min(), array.max())
        }
        assert values in ({begun - 1}, {begun})
        turn = begun + 1
    checkpoint.save(path, {"a": np.ones(1)})
    assert [file.name for file in path.parent.iterdir()] == ["m"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
@pytest.mark.parametrize("times", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_saves_leave_whole_checkpoints(tmp_path, times):
    kill_while_saving(tmp_path / "m", times)


# A bar ----------------------------------------------------------------------------------------------------------------


def test_a_bar_where_it_is_asked_for(tmp_path, capsys, monkeypatch):
    checkpoint.save(tmp_path / "m", {"a": np.ones(1000)})
    assert checkpoint.load(tmp_path / "m").names == ("a",)
    assert checkpoint.load(tmp_path / "m", progress=False).names == ("a",)
    assert capsys.readouterr() == ("", "")
    checkpoint.load(tmp_path / "m", progress=True)
    out, err = capsys.readouterr()
    assert not out
    assert "reading m " in err
    assert "8.0/8.0 kB" in err
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert checkpoint.load(tmp_path / "m", progress=True).names == ("a",)
    assert capsys.readouterr() == ("", "")
