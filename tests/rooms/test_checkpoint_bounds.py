"""Whoever made a file: time grows with it and not faster, and memory is at most 32 MB and 8 times the file.

What is given back, arrays, comes on top. Time is that of the processor, so that a busy machine does not count.
"""

from __future__ import annotations

import contextlib
import gc
import io
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_files
import jax
import numpy as np
import pytest

import jscope as js
from jscope import checkpoint
from jscope.checkpoint import safetensors_file, shards
from jscope.checkpoint.command import main
from jscope.checkpoint.npz import save_npz


class Nowhere(io.TextIOBase):
    """Takes what is printed, and keeps none of it."""

    def write(self, text: str) -> int:
        return len(text)


def shell(*arguments: str) -> None:
    with contextlib.redirect_stdout(Nowhere()), contextlib.redirect_stderr(Nowhere()):
        main(arguments)


def convert(path: Path) -> None:
    directory = path if path.is_dir() else path.parent
    shell("convert", str(path), str(directory / "converted.safetensors"), "--force", "--skip")


def load(path: Path) -> int:
    """Gives the bytes of all arrays."""
    return sum(array.nbytes for array in checkpoint.load(path).flat().values())


USES: dict[str, Callable[[Path], object]] = {
    "open": checkpoint.open,
    "list_tf": checkpoint.list_tf,
    "load": load,
    "str": lambda path: str(checkpoint.open(path)),
    "repr": lambda path: repr(checkpoint.load(path)),
    "an unknown name": lambda path: checkpoint.open(path)["scope/kernel"],
    "an unknown name of the tree": lambda path: checkpoint.load(path)["scope/kernel"],
    "ls": lambda path: shell("ls", str(path)),
    "show": lambda path: shell("show", str(path), "a", "--all"),
    "diff": lambda path: shell("diff", str(path), str(path)),
    "convert": convert,
}
QUICK = ("load", "ls")


def used(use: Callable[[Path], object], path: Path) -> object:
    """What it gives, or the error of jscope. Any other error fails the test."""
    try:
        return use(path)
    except js.JscopeError as error:
        return str(error)


def measured(use: Callable[[Path], object], path: Path) -> tuple[float, int]:
    """(seconds of the processor, peak of memory besides the arrays that are given back)."""
    gc.collect()
    start = time.process_time()
    given = used(use, path)
    seconds = time.process_time() - start
    given = given if isinstance(given, int) else 0
    return seconds, peak_of(use, path) - given


def peak_of(use: Callable[[Path], object], path: Path) -> int:
    """The most bytes that were taken at a time."""
    gc.collect()
    tracemalloc.start()
    try:
        used(use, path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def compare(tmp_path: Path, name: str, sizes: list[int], uses: tuple[str, ...], is_timed: bool = True) -> list[str]:
    """A row of the table for each use and size; fails where one grows too fast."""
    rows = []
    before: dict[str, tuple[float, int]] = {}
    for size in sizes:
        directory = tmp_path / str(size)
        directory.mkdir()
        path = hostile_files.FAMILIES[name](directory, size)
        stored = sum(file.stat().st_size for file in directory.iterdir())
        # A sound file whose arrays are larger than it is: what is printed of them may take as much as they.
        arrays = load(path) if name in ("npz_zeros", "one_file_of_varints") else 0
        for use in uses:
            seconds, peak = measured(USES[use], path)
            row = f"{name:45} {use:28} {stored / 1e3:8.0f} kB {seconds:7.3f} s {peak / 1e6:7.1f} MB"
            rows.append(row)
            assert peak <= 32e6 + 8 * stored + 2 * arrays, row
            assert not is_timed or seconds <= 1 + 20e-6 * stored + 5e-6 * arrays, row
            if use in before and is_timed:
                earlier, smaller = before[use]
                assert seconds <= 0.5 + 2 * earlier * stored / smaller, (row, earlier, smaller)
            before[use] = seconds, stored
    return rows


# Of each format some, as the rest takes long.
ALWAYS = {name for number, name in enumerate(hostile_files.FAMILIES) if number % 20 == 0}


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in hostile_files.FAMILIES]
)
def test_what_a_hostile_file_takes(tmp_path: Path, name: str) -> None:
    size = 100_000 if name.startswith("npz_") and "many" not in name else 8_000
    compare(tmp_path, name, [size], QUICK, is_timed=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile_files.FAMILIES)
def test_how_it_grows(tmp_path: Path, name: str) -> None:
    """`pytest -s` prints the table."""
    rows, uses = [], tuple(USES)
    if name == "npz_zeros":  # of which `show --all` prints a thousand numbers for each byte: that takes hours
        rows, uses = (
            compare(tmp_path, name, [500, 1_000, 2_000], ("show",)),
            tuple(use for use in uses if use != "show"),
        )
    print("", *rows, *compare(tmp_path, name, [50_000, 200_000, 800_000], uses), sep="\n")


def test_an_array_that_is_larger_than_its_file_is_checked_first(tmp_path: Path) -> None:
    """Then memory for it is taken: of zeros numpy stores a thousandth."""
    path = tmp_path / "m.npz"
    np.savez_compressed(path, a=np.zeros(30_000_000, np.uint8))
    sound = path.read_bytes()
    assert len(checkpoint.load(path)["a"]) == 30_000_000
    spoiled = bytearray(sound)
    spoiled[sound.rindex(b"PK\1\2") + 16] ^= 1  # of the checksum in the directory
    path.write_bytes(spoiled)
    tracemalloc.start()
    try:
        with pytest.raises(js.CheckpointError, match="checksum"):
            checkpoint.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("w", (1_000_000, 0)),
        ("w" * 100_000, (1_000, 0)),
        pytest.param("w", (1_000, 1_000, 0), marks=pytest.mark.slow),
    ],
)
def test_arrays_of_nothing_are_not_taken_apart_without_end(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    """A file of some bytes has arrays of any shape, if they have no elements."""
    path = tmp_path / "m"
    checkpoint.save(path, {f"h/{name}": np.zeros(shape, np.float32)})
    plan = checkpoint.Plan().unstack("h/{*n}", "h/{i}/{*n}")
    twice = plan.unstack("h/{i}/{*n}", "h/{i}/{j}/{*n}") if len(shape) > 2 else plan
    header = {f"h/{name}": jax.ShapeDtypeStruct(shape, np.float32)}
    uses: dict[str, Callable[[Path], object]] = {
        "check": lambda path: twice.check({}, path),
        "leads_to": twice.leads_to,
        "back": lambda path: checkpoint.Plan().stack("h/{i}/{*n}", "h/{*n}").back(checkpoint.load(path)),
        "unstack": lambda path: checkpoint.unstack(checkpoint.load(path), "h", to="h%d"),
        "unstack of shapes": lambda path: checkpoint.unstack(header, "h", to="h%d"),
    }
    for what, use in uses.items():
        assert peak_of(use, path) <= 32e6 + 8 * path.stat().st_size, what


def test_the_names_of_a_large_program_are_no_attack(tmp_path: Path) -> None:
    names = [f"model/layer_{i // 100}/expert_{i % 100}/kernel" for i in range(20_000)]
    checkpoint.save_tf(tmp_path / "m", dict.fromkeys(names, np.float32(1)))
    checkpoint.save(tmp_path / "s", dict.fromkeys(names, np.float32(1)))
    np.savez(tmp_path / "z.npz", **dict.fromkeys(names[:2_000], np.ones(1)))  # type: ignore[arg-type]
    assert list(checkpoint.list_tf(tmp_path / "m")) == sorted(names)
    assert list(checkpoint.open(tmp_path / "s")) == sorted(names)
    assert list(checkpoint.open(tmp_path / "z.npz")) == sorted(names[:2_000])


@pytest.mark.parametrize("save", [checkpoint.save, checkpoint.save_state, checkpoint.save_tf, save_npz])
@pytest.mark.parametrize("shape", [(1,) * 40, (1 << 59, 0)])
def test_no_shape_is_saved_that_could_not_be_read_again(tmp_path: Path, save: Any, shape: tuple[int, ...]) -> None:
    save(tmp_path / "m", {"a": np.ones((1,) * 32)})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(js.CheckpointError, match=r"'a' has the shape .* could not be read again"):
        save(tmp_path / "m", {"a": np.empty(shape, np.float32)})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert checkpoint.load(tmp_path / "m")["a"].ndim == 32


def test_no_header_is_saved_that_could_not_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_file, "_MOST_HEADER", 2_000)
    old = {"a": np.ones(3)}
    for save in (checkpoint.save, checkpoint.save_state):
        save(tmp_path / "m", old, metadata={"log": "x" * 1_500})
        with pytest.raises(js.CheckpointError, match=r"take 2,.* bytes of the file, and could not be read again"):
            save(tmp_path / "m", {"b": np.ones(2)}, metadata={"log": "x" * 2_000})
        assert checkpoint.load(tmp_path / "m") == js.Params(old)
    with pytest.raises(js.CheckpointError, match="could not be read again"):
        checkpoint.save(tmp_path / "f", {"a": 1.0, "b": 2.0}, max_shard_bytes=8, metadata={"log": "x" * 2_000})
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_no_index_is_saved_that_could_not_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {f"a{i}": np.ones(1, np.float32) for i in range(20)}
    for change in ({"MOST_INDEX": 500}, {"_THING": 1_000_000}):
        with monkeypatch.context() as patch:
            for name, value in change.items():
                patch.setattr(shards, name, value)
            with pytest.raises(js.CheckpointError, match="20 arrays are too many for an index") as info:
                checkpoint.save(tmp_path / "f", arrays, max_shard_bytes=40)
            assert "without max_shard_bytes=" in info.value.fix
            assert not list(tmp_path.iterdir())
            checkpoint.save(tmp_path / "f", arrays, max_shard_bytes=1_000)  # one file has no index
            (tmp_path / "f" / "model.safetensors").unlink()
            (tmp_path / "f").rmdir()


@pytest.mark.parametrize("save", [checkpoint.save, checkpoint.save_state, save_npz])
@pytest.mark.parametrize("name", ["model.safetensors.index.json", "m.safetensors.index.fp16.json"])
def test_a_file_that_would_be_read_as_an_index_is_not_saved(tmp_path: Path, save: Any, name: str) -> None:
    with pytest.raises(js.CheckpointError, match="is called as an index") as info:
        save(tmp_path / name, {"a": np.ones(1)})
    assert "another ending" in info.value.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_nothing_is_saved_that_could_not_be_read_again(tmp_path: Path) -> None:
    many = dict.fromkeys((f"{i:x}" for i in range(130_000)), np.float32(1))
    with pytest.raises(js.CheckpointError) as info:
        checkpoint.save_tf(tmp_path / "m", many)
    assert info.value.kind == "too_many"
    with pytest.raises(js.CheckpointError, match="texts of metadata"):
        checkpoint.save(tmp_path / "s", {"a": 1}, metadata=dict.fromkeys(map(str, range(20_000)), ""))
    assert not list(tmp_path.iterdir())
