"""Files of safetensors and `.npz` that are not sound: a `CheckpointError`, or the arrays that were saved."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from spoil import flipped, mutated, spoiled

import jscope as js
from jscope import checkpoint

COUNTS = [100, pytest.param(10_000, marks=pytest.mark.slow)]
FORMATS = ["safetensors", "npz", "npz, compressed"]
ARRAYS = {
    "a/kernel": np.arange(12.0).reshape(3, 4),
    "a/bias": np.arange(5, dtype=np.float32),
    "flag": np.array([True, False]),
    "n": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.int8),
}
KINDS = ("damaged", "foreign", "not_found", "unsupported")


def sound(tmp_path, kind):
    path = tmp_path / "sound"
    if kind == "safetensors":
        checkpoint.save(path, ARRAYS | {"bf": jnp.ones(3, jnp.bfloat16)}, metadata={"step": "3"})
    else:
        with open(path, "wb") as file:
            (np.savez_compressed if "compressed" in kind else np.savez)(file, **ARRAYS)  # type: ignore[arg-type]
    return path.read_bytes()


def outcome(path, data):
    """The arrays, or None where there is a `CheckpointError`. Any other exception fails the test."""
    path.write_bytes(data)
    fault, arrays = None, {}
    try:
        arrays = dict(checkpoint.open(path))
    except js.CheckpointError as error:
        fault = error
    if fault is not None:
        assert fault.kind in KINDS, fault
        assert str(path) in fault.what
        return None
    # Of a compressed byte there are 1032 at most, and a small file may be all gain.
    assert sum(array.nbytes for array in arrays.values()) <= 1100 * len(data) + (1 << 20)
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", FORMATS)
def test_flipped_bits(tmp_path, kind, count):
    """In a file of `save` the checksums find each; zip's own cover the arrays, not the names."""
    rng, data = np.random.default_rng(1), sound(tmp_path, kind)
    right = outcome(tmp_path / "m", data)
    for i in range(count):
        got = outcome(tmp_path / "m", flipped(rng, data))
        if kind == "safetensors":
            assert got is None or got == right, i
        else:
            assert got is None or set(got.values()) <= set(right.values()), i


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", FORMATS)
def test_cut_off(tmp_path, kind, count):
    rng, data = np.random.default_rng(2), sound(tmp_path, kind)
    for i in range(count):
        assert outcome(tmp_path / "m", data[: rng.integers(len(data))]) is None, i


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("start", [b"", b"PK\3\4", (64).to_bytes(8, "little") + b'{"'])
def test_random_bytes(tmp_path, start, count):
    rng = np.random.default_rng(3)
    for i in range(count):
        assert outcome(tmp_path / "m", start + rng.bytes(rng.integers(200))) is None, i


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", FORMATS)
def test_spoiled(tmp_path, kind, count):
    rng, data = np.random.default_rng(4), sound(tmp_path, kind)
    for _ in range(count):
        outcome(tmp_path / "m", spoiled(rng, data))


@pytest.mark.parametrize("count", COUNTS)
def test_headers_made_on_purpose(tmp_path, count):
    """What no checksum finds: anything may come out, but nothing else may go wrong."""
    rng, data, read = np.random.default_rng(5), sound(tmp_path, "safetensors"), 0
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {"step": "3"}
    for _ in range(count):
        text = json.dumps(mutated(rng, header)).encode()
        read += outcome(tmp_path / "m", len(text).to_bytes(8, "little") + text + data[8 + length :]) is not None
    assert 0 < read < count


def test_files_in_a_zip_do_not_overlap(tmp_path):
    """Else a small one could stand for any number of large ones."""
    out = io.BytesIO()
    np.savez(out, a=np.zeros(1000), b=np.zeros(1000))  # type: ignore[arg-type]
    data = bytearray(out.getvalue())
    second = data.rindex(b"PK\1\2")
    assert data[second + 20 : second + 24] == (1000 * 8 + 128).to_bytes(4, "little")
    data[second + 20 : second + 24] = (3 * 8000).to_bytes(4, "little")
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(js.CheckpointError, match="overlap"):
        checkpoint.open(tmp_path / "m")


def test_memory_is_bounded_by_the_file(tmp_path):
    """A header that claims much, and one that is much."""
    claims = json.dumps({"a": {"dtype": "U8", "shape": [1 << 40], "data_offsets": [0, 1 << 40]}}).encode()
    many = json.dumps({f"n{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(4_000)}).encode()
    deep = b'{"a":' + b"[" * 100_000
    out = io.BytesIO()
    np.savez_compressed(out, a=np.zeros(10_000_000, np.uint8))  # type: ignore[arg-type]
    zipped = out.getvalue()
    for text, factor in ((claims, 40), (many, 40), (deep, 40), (zipped, 1100)):
        data = text if text is zipped else len(text).to_bytes(8, "little") + text
        (tmp_path / "m").write_bytes(data)
        tracemalloc.start()
        try:
            with contextlib.suppress(js.CheckpointError):
                dict(checkpoint.open(tmp_path / "m"))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= factor * len(data) + (1 << 22), (len(data), peak)
