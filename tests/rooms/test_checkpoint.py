"""Checkpoints of TensorFlow: files that it wrote, files as it would write them, and what comes back of one's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tf_writer
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA

import jscope as js
from jscope import checkpoint, testing
from jscope.checkpoint import Checkpoint, CheckpointList, bundle, list_tf, load_tf, save_tf

GPT2 = DATA / "gpt2_small.ckpt"
MISC = DATA / "misc_v2.ckpt"
RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.normal(size=shape).astype(np.float32)


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
        assert (got.shape, got.dtype) == (array.shape, array.dtype)
        assert got.tobytes() == np.asarray(array).tobytes()


# What TensorFlow wrote ------------------------------------------------------------------------------------------------


def test_every_kind_of_array_that_tensorflow_wrote():
    loaded = load_tf(MISC)
    with np.load(DATA / "misc_expected.npz") as expected:
        assert set(loaded) == {name.replace("|", "/") for name in expected}
        for name in expected:
            got = loaded[name.replace("|", "/")]
            assert got.shape == expected[name].shape
            if name == "bf16":
                assert got.dtype == jnp.bfloat16
                got = got.astype(np.float32)
            assert got.dtype == expected[name].dtype
            np.testing.assert_array_equal(got, expected[name])
    assert loaded.skipped == {"str": "holds strings"}


def test_names_and_shapes_of_a_real_program():
    variables = json.loads((DATA / "gpt2_names.json").read_text())["variables"]
    expected = {name: tuple(shape) for name, shape in variables.items()}
    assert {name: spec.shape for name, spec in list_tf(GPT2).items()} == expected
    assert {name: array.shape for name, array in load_tf(GPT2).items()} == expected
    assert {spec.dtype for spec in list_tf(GPT2).values()} == {np.dtype(np.float32)}


def test_the_writer_gives_what_tensorflow_gave_byte_for_byte(tmp_path):
    save_tf(tmp_path / "again", load_tf(GPT2))
    for file in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"again{file}").read_bytes() == Path(f"{GPT2}{file}").read_bytes()


# The mappings ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_a_flat_immutable_mapping():
    loaded = load_tf(MISC)
    assert isinstance(loaded, Checkpoint)
    assert len(loaded) == 11
    assert "a/w" in loaded
    assert "a" not in loaded
    assert "str" not in loaded
    assert loaded.get("nothing") is None
    assert not hasattr(loaded, "__setitem__")
    assert js.Params(loaded).scope("a").names == ("b", "w")
    with pytest.raises(js.UnknownNameError, match="There is no array 'a/x'") as info:
        loaded["a/x"]
    assert set(info.value.near) == {"a/w", "a/b"}
    assert info.value.where.startswith(__file__)
    with pytest.raises(js.UnknownNameError, match="'str' holds strings"):
        loaded["str"]


def test_listing_reads_no_data(tmp_path):
    (tmp_path / "m.index").write_bytes(Path(f"{MISC}.index").read_bytes())
    listing = list_tf(tmp_path / "m")
    assert isinstance(listing, CheckpointList)
    assert listing["a/w"] == jax.ShapeDtypeStruct((3, 4), np.float32)
    assert listing["bf16"].dtype == jnp.bfloat16
    lines = str(listing).splitlines()
    assert lines[0] == repr(listing) == f"CheckpointList({str(tmp_path / 'm')!r}, 11 arrays, 325 B, 1 skipped)"
    assert lines[2].split() == ["a/b", "float64", "(4,)", "32", "B"]
    assert lines[-1] == "skipped: 'str' holds strings"
    error = error_of(load_tf, tmp_path / "m")
    assert error.kind == "not_found"
    assert "m.data-00000-of-00001" in error.what


def test_a_listing_is_compared_with_a_program():
    net = js.transform(lambda: js.get_variable("model/wte", [50, 24]))
    assert "model/wpe" in str(net.specs().compare(js.Params(list_tf(GPT2))))


# Where it is ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    save_tf(tmp_path / "m-1", {"a": np.ones(1)})
    save_tf(tmp_path / "m-2", {"a": np.ones(2)})
    return tmp_path


@pytest.mark.parametrize("named", ["m-1", "m-1.index", "m-1.data-00000-of-00001"])
def test_a_path_names_a_checkpoint(two, named):
    assert load_tf(two / named)["a"].shape == (1,)
    assert load_tf(str(two / named)).path == str(two / "m-1")


@pytest.mark.parametrize(
    "line",
    [b'"m-2"', b'"/another/machine/m-2"', b'"m\\0552"', b'"m\\x2"'[:1] + b'm-2"'],
)
def test_a_directory_stands_for_its_latest(two, line):
    (two / "checkpoint").write_bytes(b'all_model_checkpoint_paths: "m-1"\nmodel_checkpoint_path: ' + line + b"\n")
    assert load_tf(two)["a"].shape == load_tf(two / "checkpoint")["a"].shape == (2,)


def test_a_directory_of_one_needs_no_state(tmp_path):
    save_tf(tmp_path / "m", {"a": np.ones(3)})
    assert load_tf(tmp_path)["a"].shape == (3,)


def test_a_prefix_goes_before_a_directory_of_that_name(two):
    (two / "m-1").mkdir()
    assert load_tf(two / "m-1")["a"].shape == (1,)


def test_what_is_not_there_is_said(two):
    assert error_of(load_tf, two).exists == "'m-1', 'm-2'"
    assert error_of(load_tf, two / "m-3").exists == "'m-1', 'm-2'"
    (two / "checkpoint").write_text('model_checkpoint_path: "m-3"')
    assert "'m-3', which does not exist" in error_of(load_tf, two).what
    (two / "checkpoint").write_text("nothing")
    assert error_of(load_tf, two).kind == "damaged"
    (two / "empty").mkdir()
    assert "nor any checkpoint" in error_of(list_tf, two / "empty").what
    assert error_of(load_tf, "\0").kind == "not_found"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "m.index")
    assert error_of(load_tf, tmp_path / "m.index").kind == "not_found"
    assert error_of(load_tf, "/dev/zero").kind == "not_found"


# Bundles --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snappy", [False, True])
@pytest.mark.parametrize("per_block", [1, 7, 1000])
def test_many_shards_and_blocks(tmp_path, per_block, snappy):
    arrays = {f"layer_{i}/kernel": random(i, 3) for i in range(40)}
    tf_writer.bundle(tmp_path / "m", arrays, shards=7, per_block=per_block, snappy=snappy)
    same(load_tf(tmp_path / "m"), arrays)


def test_compressed_blocks_need_the_extra(tmp_path, monkeypatch):
    tf_writer.bundle(tmp_path / "m", {"a": random(2)}, snappy=True)
    monkeypatch.setitem(sys.modules, "cramjam", None)
    error = error_of(load_tf, tmp_path / "m")
    assert error.kind == "needs_extra"
    assert "jax-scope[checkpoint]" in error.fix


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff\xff\x0f", b"\xff" * 12, b"\x10\xff\xff", b"\x04\x0cabcdefg"])
def test_compressed_blocks_that_are_not_sound(tmp_path, data):
    tf_writer.bundle(tmp_path / "m", {"a": random(2)}, snappy=lambda contents: data)
    assert error_of(load_tf, tmp_path / "m").kind == "damaged"


PARTS = [[(0, 70), None], [(70, 100), (0, 1)], [(70, 100), (1, 2)]]


def test_partitioned_variables_are_put_together(tmp_path):
    whole, rows = random(170, 3), random(5, 2)
    parts = [("a/w", whole, PARTS), ("rows", rows, [[(i, 1), None] for i in range(5)])]
    tf_writer.bundle(tmp_path / "m", {"a/b": random(3)}, shards=3, partitioned=parts)
    loaded = load_tf(tmp_path / "m")
    assert set(loaded) == {"a/b", "a/w", "rows"}
    np.testing.assert_array_equal(loaded["a/w"], whole)
    np.testing.assert_array_equal(loaded["rows"], rows)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (PARTS[:2], "do not fill it"),
        ([*PARTS, PARTS[0]], "has a part twice"),
        ([[(0, 90), None], [(80, 80), None]], "overlap"),
        ([[(0, 100), None], [(100, 80), None]], "from 100 to 180 in a dimension of 170"),
        ([[(0, 170)]], "a part has 1 dimensions"),
    ],
)
def test_parts_that_are_no_partition(tmp_path, parts, text):
    tf_writer.bundle(tmp_path / "m", {}, partitioned=[("w", random(170, 3), parts)])
    assert text in error_of(lambda: load_tf(tmp_path / "m")["w"]).what


def test_object_based_names_and_what_is_no_array(tmp_path):
    key = "layer/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    graph = (b"_CHECKPOINTABLE_OBJECT_GRAPH", tf_writer.entry(7, [], data=b"xyz"))
    resource = (b"table", tf_writer.entry(20, []))
    unknown = (b"what", tf_writer.entry(55, [2]))
    tf_writer.bundle(tmp_path / "m", {key: random(2)}, extra=[graph, resource, unknown])
    loaded = load_tf(tmp_path / "m")
    assert list(loaded) == [key]
    assert loaded.skipped == {
        "_CHECKPOINTABLE_OBJECT_GRAPH": "holds strings",
        "table": "holds a resource",
        "what": "has TensorFlow's dtype number 55",
    }


def test_reference_dtypes_and_unusual_truth(tmp_path):
    tf_writer.bundle(
        tmp_path / "m", {"ref": random(2), "t": np.array([0, 1, 7], np.uint8)}, numbers={"ref": 101, "t": 10}
    )
    loaded = load_tf(tmp_path / "m")
    assert loaded["ref"].dtype == np.float32
    assert loaded["t"].tobytes() == b"\0\1\1"


def one_entry(prefix, value, head=None, data=b"\0" * 64):
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    entries = [(b"", tf_writer.header(1) if head is None else head), (b"a", value)]
    Path(f"{prefix}.index").write_bytes(tf_writer.table(entries))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (tf_writer.entry(1, [3], data=b"1234"), "has not 4 bytes"),
        (tf_writer.entry(1, [1], shard=1, data=b"1234"), "in shard 1"),
        (tf_writer.entry(1, [17], data=b"1234" * 17), "the file has 64 bytes"),
        (tf_writer.entry(1, [1], offset=1 << 63, data=b"1234"), "the file has 64 bytes"),
        (tf_writer.entry(1, [-1], data=b"1234"), "a dimension of a shape is -1"),
        (tf_writer.entry(1, [1 << 40, 1 << 40]), "too large"),
        (tf_writer.entry(1, [0, 1 << 40, 1 << 40]), "too large"),
        (tf_writer.entry(1, [1] * 33, data=b"1234"), "more than 32 dimensions"),
        (tf_writer.num(1, 1) + tf_writer.msg(2, tf_writer.num(3, 1)), "shape is unknown"),
        (tf_writer.num(0, 1), "number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x05", "past the end"),
        (b"\x08" + b"\xff" * 12, "64 bits"),
        (b"\x08\xff", "past the end"),
        (tf_writer.msg(1, b"x"), "must be an integer"),
        (tf_writer.num(2, 1), "must hold bytes"),
    ],
)
def test_entries_that_are_not_sound(tmp_path, value, text):
    one_entry(tmp_path / "m", value)
    error = error_of(load_tf, tmp_path / "m")
    assert text in error.what
    assert error.kind == "damaged"
    assert f"{tmp_path}/m." in error.what


def test_headers_that_are_not_read(tmp_path):
    value = tf_writer.entry(1, [1], data=b"1234")
    one_entry(tmp_path / "m", value, tf_writer.header(1, endianness=1))
    assert "big-endian" in error_of(load_tf, tmp_path / "m").what
    one_entry(tmp_path / "m", value, tf_writer.header(1, min_consumer=9))
    assert "version 9" in error_of(load_tf, tmp_path / "m").what
    one_entry(tmp_path / "m", value, tf_writer.header(0))
    assert "0 shards" in error_of(load_tf, tmp_path / "m").what


def test_entries_may_not_share_data(tmp_path):
    value = tf_writer.entry(1, [8], data=b"\0" * 32)
    one_entry(tmp_path / "m", value)
    entries = [(b"", tf_writer.header(1)), (b"a", value), (b"b", value)]
    (tmp_path / "m.index").write_bytes(tf_writer.table(entries))
    assert "overlap" in error_of(load_tf, tmp_path / "m").what


def test_keys_out_of_order(tmp_path):
    value = tf_writer.entry(1, [0])
    entries = [(b"", tf_writer.header(1)), (b"b", value), (b"a", value)]
    for per_block in (1, 9):
        (tmp_path / "m.index").write_bytes(tf_writer.table(entries, per_block=per_block))
        assert "in order" in error_of(load_tf, tmp_path / "m").what


def test_a_small_file_does_not_fill_the_memory(tmp_path):
    keys = [b"k" * 10_000 + b"%05d" % i for i in range(300)]
    entries = [(b"", tf_writer.header(1)), *((key, b"") for key in keys)]
    made = tf_writer.block(entries, restart=10**9)
    file = made + b"\0" + tf_writer.masked(made + b"\0").to_bytes(4, "little")
    index = tf_writer.block([(b"z", tf_writer.varint(0) + tf_writer.varint(len(made)))])
    footer = tf_writer.varint(0) + tf_writer.varint(0) + tf_writer.varint(len(file)) + tf_writer.varint(len(index))
    file += index + b"\0" + tf_writer.masked(index + b"\0").to_bytes(4, "little")
    file += footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    (tmp_path / "m.index").write_bytes(file)
    assert "far longer than the block" in error_of(load_tf, tmp_path / "m").what


def test_checksums_of_data(tmp_path):
    save_tf(tmp_path / "m", {"a": np.zeros(4), "b": np.ones(4)})
    data = tmp_path / "m.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[40] ^= 1
    data.write_bytes(raw)
    loaded = load_tf(tmp_path / "m")
    np.testing.assert_array_equal(loaded["a"], 0)
    error = error_of(lambda: loaded["b"])
    assert error.what == f"{data} is damaged at byte 32: the checksum of 'b' does not fit its 32 bytes."
    assert load_tf(tmp_path / "m", verify=False)["b"].shape == (4,)


def test_files_that_change_after_opening(tmp_path):
    save_tf(tmp_path / "m", {"a": np.zeros(4)})
    loaded = load_tf(tmp_path / "m")
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"\0" * 40)
    assert error_of(lambda: loaded["a"]).kind == "changed"


def test_what_is_open_stays_what_it_was(tmp_path):
    save_tf(tmp_path / "m", {"a": np.zeros(4)})
    loaded = load_tf(tmp_path / "m")
    for turn in (1, 2):
        save_tf(tmp_path / "m", {"a": np.full(4, turn)})
        np.testing.assert_array_equal(loaded["a"], 0)


def test_a_checkpoint_of_very_many_files_may_be_replaced(tmp_path):
    """So many files can't stay open."""
    tf_writer.bundle(tmp_path / "m", {f"v{i}": random(2) for i in range(200)}, shards=100)
    loaded = load_tf(tmp_path / "m")
    save_tf(tmp_path / "m", {"a": np.ones(1)})
    assert error_of(lambda: dict(loaded)).kind in ("changed", "not_found")


# The first version ----------------------------------------------------------------------------------------------------

V1 = [
    ("b", np.array([True, False]), 10, [[None]]),
    ("bf", np.array([1.5, -2], jnp.bfloat16), 14, [[None]]),
    ("c/c16", np.array([1 + 2j]), 18, [[None]]),
    ("c/c8", np.array([1 + 2j, 3], np.complex64), 8, [[None]]),
    ("d", np.arange(3.0), 2, [[None]]),
    ("empty", np.zeros((0, 3), np.float32), 1, [[None, None]]),
    ("h", np.array([1.5, -2, 0], np.float16), 19, [[None]]),
    ("i1", np.array([-128, 127], np.int8), 6, [[None]]),
    ("i2", np.array([-5, 300], np.int16), 5, [[None]]),
    ("i4", np.array([-5, 2**31 - 1], np.int32), 3, [[None]]),
    ("i8", np.array([-5, -(2**63)], np.int64), 9, [[None]]),
    ("s", np.float32(3).reshape(()), 1, [[]]),
    ("u1", np.array([200, 0], np.uint8), 4, [[None]]),
    ("u2", np.array([65535], np.uint16), 17, [[None]]),
    ("u4", np.array([2**32 - 1], np.uint32), 22, [[None]]),
    ("u8", np.array([2**64 - 1], np.uint64), 23, [[None]]),
    ("w", random(170, 3), 1, PARTS),
    ("x", random(30, 30), 1, [[None, None]]),
]


@pytest.mark.parametrize("snappy", [False, True])
@pytest.mark.parametrize("per_block", [1, 3, 1000])
def test_single_files(tmp_path, per_block, snappy):
    tf_writer.v1_file(tmp_path / "m.ckpt", V1, per_block=per_block, snappy=snappy)
    arrays = {name: array for name, array, _, _ in V1}
    same(load_tf(tmp_path / "m.ckpt"), arrays)
    listing = list_tf(tmp_path / "m.ckpt")
    assert {n: (s.shape, s.dtype) for n, s in listing.items()} == {n: (a.shape, a.dtype) for n, a in arrays.items()}


def v1_of_one(path, dims, tensor, name=b"w", key="w", times=1):
    """A file that promises a float32 array `w` of shape `dims`, and what it has of it."""
    msg, full = tf_writer.msg, tf_writer.extents([None])
    about = msg(1, b"w") + msg(2, tf_writer.shape(dims)) + tf_writer.num(3, 1) + msg(4, full)
    value = msg(2, msg(1, name) + msg(2, full) + msg(3, tensor))
    entries = [(b"", msg(1, msg(1, about) * times)), (tf_writer.part_key(key, [None]), value)]
    path.write_bytes(tf_writer.table(entries))
    return load_tf(path)["w"]


def test_single_files_that_are_not_sound(tmp_path):
    path, one = tmp_path / "m.ckpt", tf_writer.msg(5, np.ones(1, "<f4").tobytes())
    assert v1_of_one(path, [1], one) == 1
    assert v1_of_one(path, [1], tf_writer.msg(4, np.ones(1, "<f4").tobytes())) == 1  # its content as bytes
    assert "should have 1099511627776 values of float32" in error_of(v1_of_one, path, [1 << 40], one).what
    assert "should have 2 values" in error_of(v1_of_one, path, [2], tf_writer.msg(4, b"1234")).what
    assert "cut off" in error_of(v1_of_one, path, [1], tf_writer.msg(5, b"123")).what
    assert "another variable's" in error_of(v1_of_one, path, [1], one, b"v").what
    assert "a part of 'w' is missing" in error_of(v1_of_one, path, [1], one, key="v").what
    assert "there twice" in error_of(v1_of_one, path, [1], one, times=2).what
    assert "a part has 1 dimensions" in error_of(v1_of_one, path, [], one).what
    path.write_bytes(tf_writer.table([(b"a", b"")]))
    assert "no list of its arrays" in error_of(load_tf, path).what


def test_foreign_files(tmp_path):
    for data, text in [(b"", "has 0 bytes"), (b"x" * 100, "does not end in the number"), (b"\0" * 48, "number")]:
        (tmp_path / "m.ckpt").write_bytes(data)
        error = error_of(load_tf, tmp_path / "m.ckpt")
        assert (error.kind, text in error.what) == ("foreign", True)
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    assert error_of(load_tf, tmp_path / "arrays.npz").kind == "foreign"


# Round trips ----------------------------------------------------------------------------------------------------------

DTYPES = [
    "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool", "complex64", "complex128", "float8_e5m2", "float8_e4m3fn",
]  # fmt: skip


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@st.composite
def flat_arrays(draw):
    names = draw(st.lists(testing.names(), max_size=5, unique=True))
    arrays = {}
    for name in names:
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        dtype = jnp.dtype(draw(st.sampled_from(DTYPES)))
        count = int(np.prod(shape)) * dtype.itemsize
        raw = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
        arrays[name] = (raw % 2 if dtype.kind == "b" else raw).view(dtype).reshape(shape)
    return arrays


@given(arrays=flat_arrays())
@settings(max_examples=60, deadline=None)
def test_what_is_saved_is_loaded(scratch, arrays):
    save_tf(scratch / "m", arrays)
    same(load_tf(scratch / "m"), arrays)


def test_trees_of_jax_arrays(tmp_path):
    params = js.Params({"a": {"b": jnp.ones((2, 3), jnp.bfloat16)}, "n": 3, "x": np.arange(6.0).reshape(2, 3).T})
    save_tf(tmp_path / "m", params)
    loaded = load_tf(tmp_path / "m")
    assert loaded["a/b"].dtype == jnp.bfloat16
    assert loaded["n"] == 3
    np.testing.assert_array_equal(loaded["x"], params["x"])
    save_tf(tmp_path / "m", {"big": np.arange(3, dtype=">i4")})
    same(load_tf(tmp_path / "m"), {"big": np.arange(3, dtype="<i4")})


def test_many_names_and_long_ones(tmp_path):
    arrays = {f"{'scope/' * 40}layer_{i:05d}/kernel": np.full(1, i, np.int32) for i in range(3000)}
    arrays |= {"é/ü": np.ones(1), "a": np.ones(()), "a/b": np.ones(2), "a.b": np.ones(3)}
    save_tf(tmp_path / "m", arrays)
    same(load_tf(tmp_path / "m"), arrays)


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"k": jax.random.key(0)}, "bad_dtype"),
        ({"k": "text"}, "bad_dtype"),
        ({"k": np.array(["text"])}, "bad_dtype"),
        ({"k": None}, "bad_dtype"),
        ({"k": jnp.ones(2, jnp.int4)}, "bad_dtype"),
        ({"\0k": 1}, "bad_key"),
        ({"\ud800": 1}, "bad_key"),
    ],
)
def test_what_can_not_be_saved(tmp_path, params, kind):
    assert error_of(save_tf, tmp_path / "m", params).kind == kind
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("writes", range(5))
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, writes):
    """There is room for so many files."""
    save_tf(tmp_path / "m", {"a": np.ones(3)})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    room = iter(range(writes))

    def fsync(handle, call=os.fsync):
        if next(room, None) is None:
            raise OSError(28, "No space left on device")
        call(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert "No space left" in error_of(save_tf, tmp_path / "m", {"a": np.zeros(3)}).what
    if writes < 4:  # of the data, the empty shard, the directory and the index
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    else:
        assert load_tf(tmp_path / "m")["a"][0] == 0


def test_an_index_that_can_not_be_read_keeps_its_data(tmp_path, monkeypatch):
    save_tf(tmp_path / "m", {"a": np.ones(3)})
    (tmp_path / "m.index").write_bytes(b"not an index")
    data = (tmp_path / "m.data-00000-of-00001").read_bytes()

    def replace(*args):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        assert error_of(save_tf, tmp_path / "m", {"a": np.zeros(3)}).kind == "unwritable"
    assert (tmp_path / "m.data-00000-of-00001").read_bytes() == data
    save_tf(tmp_path / "m", {"a": np.zeros(3)})
    assert load_tf(tmp_path / "m")["a"][0] == 0


def test_where_nothing_can_be_saved(tmp_path):
    assert error_of(save_tf, tmp_path / "no" / "m", {}).kind == "unwritable"
    assert error_of(save_tf, f"{tmp_path}/", {}).kind == "bad_prefix"


# Saving at one stroke -------------------------------------------------------------------------------------------------


def test_saves_take_turns_and_leave_nothing_behind(tmp_path):
    def files():
        return sorted(file.name for file in tmp_path.iterdir())

    one = ["m.data-00000-of-00001", "m.index"]
    two = ["m.data-00000-of-00002", "m.data-00001-of-00002", "m.index"]
    for turn in range(4):
        save_tf(tmp_path / "m", {"a": np.full(3, turn)})
        assert files() == (two if turn % 2 else one)
        assert load_tf(tmp_path / "m")["a"][0] == turn
    (tmp_path / "m.data-00000-of-00009").write_bytes(b"")
    (tmp_path / "m.data-00000-of-00001x").write_bytes(b"")
    (tmp_path / "m2.data-00000-of-00009").write_bytes(b"")
    save_tf(tmp_path / "m", {"a": np.full(3, turn)})
    assert files() == sorted([*one, "m.data-00000-of-00001x", "m2.data-00000-of-00009"])


STEPS = ["open", "fsync", "replace", "remove"]


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_save_that_stops_anywhere_leaves_a_whole_checkpoint(tmp_path, monkeypatch, stop):
    """Stopped before each of its calls of the system in turn, with no chance to clear up."""
    save_tf(tmp_path / "m", {"a": np.zeros(1000)})
    save_tf(tmp_path / "m", {"a": np.ones(1000)})
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
        for name in STEPS:
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            save_tf(tmp_path / "m", {"a": np.full(1000, 2.0)})
            finished = True
        except KeyboardInterrupt:
            finished = False
    values = set(load_tf(tmp_path / "m")["a"].tolist())
    assert values == {2.0} if finished else values in ({1.0}, {2.0})
    save_tf(tmp_path / "m", {"a": np.full(1000, 3.0)})
    assert load_tf(tmp_path / "m")["a"][0] == 3
    assert len(list(tmp_path.iterdir())) in (2, 3)


SAVER = """
import sys, itertools, numpy as np
from jscope.checkpoint import save_tf
for turn in itertools.count(int(sys.argv[2])):
    print(turn, flush=True)
    save_tf(sys.argv[1], {f"v{i}": np.full(50_000, turn) for i in range(8)})
"""


def kill_while_saving(prefix, times):
    """A process that saves over and over is killed at some moment; then the next one goes on."""
    turn = 0
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(prefix), str(turn)], stdout=subprocess.PIPE)
        assert process.stdout
        with process.stdout as out:
            out.readline()
            second = out.readline()  # so the first save is done
            until = time.monotonic() + float(RNG.uniform(0, 0.1))
            while time.monotonic() < until:
                whole(load_tf(prefix))  # also while it is being replaced
            process.send_signal(signal.SIGKILL)
            process.wait()
            begun = int((out.read().split() or [second])[-1])
        assert whole(load_tf(prefix)) in (begun - 1, begun)
        turn = begun + 1
    leftovers = [file.name for file in prefix.parent.iterdir()]
    assert len(leftovers) <= 5, leftovers


def whole(loaded):
    """The one number of which all arrays are full; None where a save came in between."""
    try:
        values = {float(value) for array in loaded.values() for value in (array.min(), array.max())}
    except js.CheckpointError as error:
        if error.kind not in ("changed", "not_found"):
            raise
        return None
    assert len(values) == 1
    return values.pop()


def test_opening_while_two_saves_begin(tmp_path, monkeypatch):
    """The first is done between the reading of index and data, and the second is writing to the data of the index."""
    prefix, read_index = tmp_path / "m", bundle.Index
    save_tf(prefix, {"v": np.zeros(1000)})

    def slow(path):
        index = read_index(path)
        if index.shards == 1:
            save_tf(prefix, {"v": np.ones(1000)})
            (tmp_path / "m.data-00000-of-00001").write_bytes(b"begun")
        return index

    monkeypatch.setattr(bundle, "Index", slow)
    assert whole(load_tf(prefix)) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_a_killed_save_leaves_a_whole_checkpoint(tmp_path):
    kill_while_saving(tmp_path / "m", 2)


@pytest.mark.slow
def test_fifty_killed_saves_leave_whole_checkpoints(tmp_path):
    kill_while_saving(tmp_path / "m", 50)


# Checksums ------------------------------------------------------------------------------------------------------------


def test_checksums_need_the_extra(tmp_path, monkeypatch):
    """And arrays whose checksum nobody asks for do not."""
    save_tf(tmp_path / "m", {"a": np.ones(1)})
    checkpoint.save(tmp_path / "s", {"a": np.ones(1)})
    safetensors.numpy.save_file({"a": np.ones(1)}, tmp_path / "foreign")
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    for call in (
        lambda: save_tf(tmp_path / "n", {"a": 1}),
        lambda: checkpoint.save(tmp_path / "n", {"a": 1}),
        lambda: load_tf(tmp_path / "m"),
        lambda: list_tf(tmp_path / "m"),
        lambda: checkpoint.open(tmp_path / "s"),
    ):
        error = error_of(call)
        assert (error.kind, error.fix) == ("needs_extra", 'pip install "jax-scope[checkpoint]"')
    assert sorted(file.name for file in tmp_path.iterdir()) == ["foreign", "m.data-00000-of-00001", "m.index", "s"]
    assert checkpoint.load(tmp_path / "foreign")["a"][0] == 1
