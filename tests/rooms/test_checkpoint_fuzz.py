"""Files that are not sound end in a `CheckpointError`, or give the arrays that were saved: nothing else."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tf_writer
from paths import DATA

import jscope as js
from jscope.checkpoint import list_tf, load_tf

COUNTS = [300, pytest.param(10_000, marks=pytest.mark.slow)]
PARTS = [[(0, 7), None], [(7, 3), (0, 1)], [(7, 3), (1, 2)]]


def many(rng):
    return {f"scope_{i % 3}/v{i}": rng.normal(size=(i, 2)).astype(np.float32) for i in range(6)}


def write(kind, prefix, **options):
    """A sound checkpoint of some form; `options` are those of its table."""
    rng = np.random.default_rng(1)
    partitioned = rng.normal(size=(10, 3)).astype(np.float32)
    if kind == "one file":
        variables = [(name, array, 1, [[None] * 2]) for name, array in many(rng).items()]
        variables += [("w", partitioned, 1, PARTS), ("i", np.array([-3, 300]), 9, [[None]])]
        tf_writer.v1_file(prefix, variables, **options)
    else:
        parts = [("w", partitioned, PARTS)]
        tf_writer.bundle(prefix, many(rng), shards=2, partitioned=parts, **options)


@functools.cache
def sound():
    """(files by the end of their names, arrays) of each form."""
    forms = []
    with tempfile.TemporaryDirectory() as directory:
        for name in ("misc_v2.ckpt", "gpt2_small.ckpt"):
            forms.append(taken(DATA, name))
        for kind in ("bundle", "one file"):
            for options in ({}, {"per_block": 2}, {"snappy": True}):
                name = f"{kind} {len(forms)}"
                write(kind, Path(directory) / name, **options)
                forms.append(taken(Path(directory), name))
    return forms


def taken(directory, name):
    files = {
        file.name.removeprefix(name): file.read_bytes() for file in directory.iterdir() if file.name.startswith(name)
    }
    return files, {name: array.tobytes() for name, array in load_tf(directory / name).items()}


def outcome(directory, files):
    """The arrays, or None where there is a `CheckpointError`. Any other exception fails the test."""
    fault = None
    for file in directory.iterdir():
        file.unlink()
    for end, data in files.items():
        (directory / f"m{end}").write_bytes(data)
    try:
        list_tf(directory / "m")
        loaded = load_tf(directory / "m")
        arrays = dict(loaded)
    except js.CheckpointError as error:
        fault = error
    if fault is not None:
        assert fault.kind in ("damaged", "foreign", "not_found", "unsupported"), fault
        assert str(directory) in fault.what
        return None
    size = sum(map(len, files.values()))
    # A compressed byte stands for 32 at most, and a byte of a varint for a number of 8.
    assert sum(array.nbytes for array in arrays.values()) <= 8 * 32 * size
    return {name: array.tobytes() for name, array in arrays.items()}


def flipped(rng, data):
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        out[rng.integers(len(out))] ^= 1 << rng.integers(8)
    return bytes(out)


def spoiled(rng, data):
    """Something else than a flipped bit, too: bytes set, left out, or doubled."""
    place, kind = int(rng.integers(len(data))), rng.integers(4)
    if kind == 0:
        return flipped(rng, data)
    if kind == 1:
        return (
            data[:place] + bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])]) * int(rng.integers(1, 12)) + data[place + 1 :]
        )
    length = int(rng.integers(1, 20))
    return data[:place] + (data[place : place + length] * 2 if kind == 2 else b"") + data[place + length :]


@pytest.mark.parametrize("count", COUNTS)
def test_flipped_bits(tmp_path, count):
    rng = np.random.default_rng(2)
    for i in range(count):
        files, arrays = sound()[i % len(sound())]
        end = sorted(files)[rng.integers(len(files))]
        if files[end]:
            got = outcome(tmp_path, {**files, end: flipped(rng, files[end])})
            assert got is None or got == arrays, i


@pytest.mark.parametrize("count", COUNTS)
def test_cut_off(tmp_path, count):
    rng = np.random.default_rng(3)
    for i in range(count):
        files, arrays = sound()[i % len(sound())]
        end = sorted(files)[rng.integers(len(files))]
        got = outcome(tmp_path, {**files, end: files[end][: rng.integers(len(files[end]) + 1)]})
        assert got is None or got == arrays, i


@pytest.mark.parametrize("count", COUNTS)
def test_random_bytes(tmp_path, count):
    rng = np.random.default_rng(4)
    magic = bytes.fromhex("57fb808b247547db")
    for i in range(count):
        data = rng.bytes(rng.integers(200)) + (magic if i % 2 else b"")
        assert outcome(tmp_path, {"" if i % 3 else ".index": data}) is None, i


@pytest.mark.parametrize("count", COUNTS)
def test_spoiled_before_the_checksums(tmp_path, count):
    """What no checksum finds, as in a file made on purpose: anything may come out, but nothing else may go wrong."""
    rng = np.random.default_rng(5)
    read = 0
    for i in range(count):
        for file in tmp_path.iterdir():
            file.unlink()
        at, calls = rng.integers(4), iter(range(100))
        options = {"per_block": int(rng.choice([2, 1000])), "snappy": i % 5 == 0}
        kind = ("bundle", "one file")[i % 2]
        write(kind, tmp_path / "m", spoil=lambda c, at=at, n=calls: spoiled(rng, c) if next(n) == at else c, **options)
        files = {file.name.removeprefix("m"): file.read_bytes() for file in tmp_path.iterdir()}
        read += outcome(tmp_path, files) is not None
    assert 0 < read < count
