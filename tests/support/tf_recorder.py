"""Checkpoints that the real TensorFlow writes, and the arrays in them. Needs the extra `tensorflow`.

`python tests/support/tf_recorder.py` writes those of `tests/data` anew, which the suite reads without TensorFlow.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from paths import DATA

RNG = np.random.default_rng(0)

_FLOATS = [1.5, -2, 0, np.inf]
ARRAYS = {
    "scope/b": np.array([True, False]),
    "scope/bf": np.array(_FLOATS, jnp.bfloat16),
    "scope/c16": np.array([1 + 2j, -3]),
    "scope/c8": np.array([1 + 2j, -3], np.complex64),
    "scope/f2": np.array(_FLOATS, np.float16),
    "scope/f4": np.array(_FLOATS, np.float32),
    "scope/f8": np.array(_FLOATS),
    "empty": np.zeros((0, 3), np.float32),
    "i1": np.array([-128, 127], np.int8),
    "i2": np.array([-5, 300], np.int16),
    "i4": np.array([[-5], [2**31 - 1]], np.int32),
    "i8": np.array([-5, -(2**63)], np.int64),
    "scalar": np.array(3, np.float32),
    "u1": np.array([200, 0], np.uint8),
    "u2": np.array([65535], np.uint16),
    "u4": np.array([2**32 - 1], np.uint32),
    "u8": np.array([2**64 - 1], np.uint64),
}
# TensorFlow does not write these in the first version of the format.
NOT_IN_V1 = {"scope/bf", "u4", "u8"}


def tensorflow() -> Any:
    """TensorFlow, quiet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow

        tensorflow.get_logger().setLevel("ERROR")
    return tensorflow


def graph(build: Callable[[Any], Any], prefix: Path, devices: int = 1, **saver: Any) -> dict[str, np.ndarray]:
    """Saves the variables that `build(tf.compat.v1)` makes, which have some of the values that it gives by name."""
    tf1 = tensorflow().compat.v1
    with warnings.catch_warnings(), tf1.Graph().as_default():
        warnings.simplefilter("ignore")
        values = build(tf1)
        config = tf1.ConfigProto(device_count={"CPU": devices})
        with tf1.Session(config=config) as session:
            session.run(tf1.global_variables_initializer())
            tf1.train.Saver(**saver).save(session, os.fspath(prefix), write_meta_graph=False, write_state=False)
    return values


def kinds(prefix: Path, version: str) -> dict[str, np.ndarray]:
    """An array of each dtype."""
    arrays = {name: array for name, array in ARRAYS.items() if version == "V2" or name not in NOT_IN_V1}

    def build(tf1):
        for name, array in arrays.items():
            tf1.Variable(array, name=name)
        if version == "V2":
            tf1.Variable(["text"], name="text")
        return arrays

    return graph(build, prefix, write_version=getattr(tf1_saver(), version))


def tf1_saver() -> Any:
    """What names the versions of the format."""
    return tensorflow().compat.v1.train.SaverDef


def parts(prefix: Path, rows: int, version: str) -> dict[str, np.ndarray]:
    """A variable of two columns in 16 parts, beside a whole one."""
    table = RNG.normal(size=(rows, 2)).astype(np.float32)

    def build(tf1):
        with tf1.variable_scope("emb", partitioner=tf1.fixed_size_partitioner(16)):
            tf1.get_variable("table", [rows, 2], initializer=lambda shape, dtype, partition_info: table[
                partition_info.var_offset[0] : partition_info.var_offset[0] + shape[0]
            ])  # fmt: skip
        tf1.get_variable("step", initializer=np.int64(7))
        return {"emb/table": table, "step": np.int64(7)}

    return graph(build, prefix, write_version=getattr(tf1_saver(), version))


def shards(prefix: Path, count: int) -> dict[str, np.ndarray]:
    """Variables on several devices, each of which writes a file of its own."""
    arrays = {f"layer_{i}/kernel": RNG.normal(size=(i + 1, 2)).astype(np.float32) for i in range(2 * count)}

    def build(tf1):
        for i, (name, array) in enumerate(arrays.items()):
            with tf1.device(f"/cpu:{i % count}"):
                tf1.Variable(array, name=name)
        return arrays

    return graph(build, prefix, devices=count, sharded=True, write_version=tf1_saver().V2)


def main() -> None:
    """Writes the files of `tests/data`."""
    data = DATA
    recorded = {"tf_v1.ckpt": kinds(data / "tf_v1.ckpt", "V1"), "tf_v2.ckpt": kinds(data / "tf_v2.ckpt", "V2")}
    for version in ("V1", "V2"):
        recorded[f"tf_parts_{version.lower()}.ckpt"] = parts(data / f"tf_parts_{version.lower()}.ckpt", 100, version)
    recorded["tf_shards.ckpt"] = shards(data / "tf_shards.ckpt", 5)
    flat = {
        f"{file}|{name}".replace("/", "|"): array for file, arrays in recorded.items() for name, array in arrays.items()
    }
    flat = {name: a.view(np.uint16) if a.dtype == jnp.bfloat16 else a for name, a in flat.items()}
    np.savez_compressed(data / "tf_expected.npz", **flat)


if __name__ == "__main__":
    main()
