"""Checkpoints and the real TensorFlow: each reads what the other wrote. Needs the extra `tensorflow`."""

from __future__ import annotations

import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tf_recorder

import jscope as js
from jscope import checkpoint
from jscope.checkpoint import assign_from, list_tf, load_tf, save_tf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorflow")

tf = tf_recorder.tensorflow()
tf1 = tf.compat.v1
pytestmark = pytest.mark.filterwarnings("ignore")
RNG = np.random.default_rng(0)


@pytest.fixture
def version_two():
    """The tests of layers switch TensorFlow 2 off, for their whole process."""
    if not tf.executing_eagerly():
        pytest.skip("TensorFlow 2 was switched off in this process; run this file by itself")


def same(loaded, arrays):
    assert list(loaded) == sorted(arrays)
    for name, array in arrays.items():
        got = loaded[name]
        assert (got.shape, got.dtype) == (array.shape, array.dtype), name
        assert got.tobytes() == np.asarray(array).tobytes(), name


# What TensorFlow wrote ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_every_dtype(tmp_path, version):
    arrays = tf_recorder.kinds(tmp_path / "m", version)
    loaded = load_tf(tmp_path / "m")
    same(loaded, arrays)
    assert loaded.skipped == ({"text": "holds strings"} if version == "V2" else {})


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_a_large_variable_in_sixteen_parts(tmp_path, version):
    arrays = tf_recorder.parts(tmp_path / "m", 100_000, version)
    same(load_tf(tmp_path / "m"), arrays)
    assert list_tf(tmp_path / "m")["emb/table"].shape == (100_000, 2)


def test_many_shards(tmp_path):
    arrays = tf_recorder.shards(tmp_path / "m", 12)
    assert len(list(tmp_path.glob("*.data-*-of-00012"))) == 12
    same(load_tf(tmp_path / "m"), arrays)


@pytest.mark.usefixtures("version_two")
def test_objects_of_the_second_tensorflow(tmp_path):
    layer = tf.Module()
    layer.kernel = tf.Variable(RNG.normal(size=(2, 3)).astype(np.float32))
    saver = tf.train.CheckpointManager(tf.train.Checkpoint(layer=layer, step=tf.Variable(7)), tmp_path, 2)
    saver.save()
    saver.save()
    loaded = load_tf(tmp_path)  # its latest, which the file `checkpoint` names
    assert loaded.path == tf.train.latest_checkpoint(tmp_path)
    assert set(loaded) == {f"{n}/.ATTRIBUTES/VARIABLE_VALUE" for n in ("layer/kernel", "step", "save_counter")}
    np.testing.assert_array_equal(loaded["layer/kernel/.ATTRIBUTES/VARIABLE_VALUE"], layer.kernel.numpy())
    assert loaded.skipped == {"_CHECKPOINTABLE_OBJECT_GRAPH": "holds strings"}
    strip = [("/.ATTRIBUTES/VARIABLE_VALUE$", "")]
    target = {"layer/kernel": jnp.zeros((2, 3)), "step": jnp.int32(0)}
    params, _ = assign_from(target, tmp_path, rename=strip, allow_unused="save_counter")
    assert params["step"] == 7


# What TensorFlow reads ------------------------------------------------------------------------------------------------

KINDS = tf_recorder.ARRAYS


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_every_dtype_is_read_by_tensorflow(tmp_path, saves):
    for _ in range(saves):  # each time with another number of shards
        save_tf(tmp_path / "m", KINDS)
    reader = tf.train.load_checkpoint(os.fspath(tmp_path / "m"))
    assert dict(tf.train.list_variables(os.fspath(tmp_path / "m"))) == {n: list(a.shape) for n, a in KINDS.items()}
    same({name: np.asarray(reader.get_tensor(name)) for name in sorted(KINDS)}, KINDS)


@pytest.mark.usefixtures("version_two")
def test_float8_is_read_by_tensorflow(tmp_path):
    arrays = {"e5": np.array([1.5, -2], jnp.float8_e5m2), "e4": np.array([1.5, -2], jnp.float8_e4m3fn)}
    save_tf(tmp_path / "m", arrays)
    for name, array in arrays.items():
        (read,) = tf.raw_ops.RestoreV2(
            prefix=os.fspath(tmp_path / "m"), tensor_names=[name], shape_and_slices=[""], dtypes=[array.dtype.name]
        )
        assert read.numpy().tobytes() == array.tobytes()


def test_a_saver_restores_what_a_program_trained(tmp_path):
    def program():
        with js.variable_scope("tower"):
            w = js.get_variable("kernel", [3, 2])
            b = js.get_variable("bias", [2], initializer=js.ones_initializer())
        return w, b

    params = js.transform(program).init(jax.random.key(0))
    prefix = os.fspath(tmp_path / "m")
    save_tf(prefix, params)
    with tf.Graph().as_default(), tf1.Session() as session:
        with tf1.variable_scope("tower"):
            variables = [tf1.get_variable("kernel", [3, 2]), tf1.get_variable("bias", [2])]
        tf1.train.Saver().restore(session, prefix)
        for variable, name in zip(variables, ("kernel", "bias"), strict=True):
            np.testing.assert_array_equal(session.run(variable), params["tower"][name])


def test_many_names(tmp_path):
    arrays = {f"{'scope/' * 30}layer_{i:05d}/kernel": np.full(1, i, np.int32) for i in range(2000)} | {"é": np.ones(1)}
    save_tf(tmp_path / "m", arrays)
    reader = tf.train.load_checkpoint(os.fspath(tmp_path / "m"))
    assert set(reader.get_variable_to_shape_map()) == set(arrays)
    for name in [*list(arrays)[::100], "é"]:  # it looks each up anew, which takes long
        assert reader.get_tensor(name) == arrays[name]


# Renames --------------------------------------------------------------------------------------------------------------


NEW = ["new/old/a/w", "new/old/b", "new/step"]


@pytest.mark.parametrize(
    ("assignment", "names"),
    [
        ({"/": "new/"}, [*NEW, "a/w"]),
        ({"old/": "new/old/"}, [*NEW, "a/w"]),
        ({"old/a/": "new/old/a/", "old/b": "new/old/b"}, [*NEW, "b"]),
        ({"old/": "new/old/", "step": "new/step"}, [*NEW, "b"]),
        ({"old/": "/"}, ["a/w", "b"]),
    ],
)
def test_assignment_maps_mean_what_they_mean_in_tensorflow(tmp_path, assignment, names):
    """Each variable that TensorFlow initialises from the checkpoint gets that value from assign_from, no other does."""
    save_tf(tmp_path / "m", {"old/a/w": f32(1), "old/b": f32(2), "step": f32(3)})
    with tf.Graph().as_default(), tf1.Session() as session:
        variables = {}
        for name in names:
            scope, _, last = name.rpartition("/")
            with tf1.variable_scope(scope or tf1.get_variable_scope()):
                variables[name] = tf1.get_variable(last, [1], initializer=tf1.zeros_initializer())
        tf1.train.init_from_checkpoint(os.fspath(tmp_path / "m"), assignment)
        session.run(tf1.global_variables_initializer())
        expected = {name: float(session.run(variable)[0]) for name, variable in variables.items()}
    assert any(expected.values())
    target = {name: f32(0) for name in names}
    params, _ = assign_from(target, tmp_path / "m", rename=assignment, allow_missing=True, allow_unused=True)
    assert {name: float(params[name][0]) for name in names} == expected


def f32(value):
    return np.full(1, value, np.float32)


def test_convert_and_back(tmp_path):
    tf_recorder.kinds(tmp_path / "m", "V2")
    given = load_tf(tmp_path / "m")
    arrays = {name: array for name, array in given.items() if array.dtype != np.complex128}
    checkpoint.save(tmp_path / "m.safetensors", arrays)
    save_tf(tmp_path / "again", checkpoint.load(tmp_path / "m.safetensors"))
    reader = tf.train.load_checkpoint(os.fspath(tmp_path / "again"))
    same({name: np.asarray(reader.get_tensor(name)) for name in sorted(arrays)}, arrays)
