"""Coverage-guided fuzzing of all that reads checkpoints.

`python tests/support/fuzz_checkpoints.py READER --seconds 240` runs one reader. An input is the files of one
checkpoint. What may come out is an error of jscope's, or arrays whose size the files bound; anything else, more than
ten seconds, or memory above 32 MB and 8 times the files is a fault: the input is kept, and `--again INPUT` runs it.
Checksums are taken out of the way, since whoever makes a file can make them fit.

It needs `pip install atheris`; `fuzz_forms` knows the forms of the files.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import functools
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import fuzz_forms
import jax
import numpy as np
import tf_writer
from fuzz_forms import Change, Form
from safetensors import numpy as safetensors_numpy

import jscope as js

KINDS = ("damaged", "foreign", "not_found", "unsupported")
MOST_SECONDS = 10
MEASURED = 16  # of so many inputs the memory of one is measured, and that of each after which the process had grown
GROWN = 16_000  # kilobytes
SOUND = 0.5  # of so many changes what is changed was read
MOST_SOUND = 1000  # inputs that were read, of which one is taken
_COUNT = 4  # bytes that say how long a file is
_KEPT = re.compile(r"Test unit written to (\S+)")
_STATUS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)")


class Agrees(int):
    """A checksum that equals each other one."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


@contextlib.contextmanager
def without_checksums() -> Iterator[None]:
    """Readers find each checksum right. That of the header of safetensors is made so where the file is written."""

    def agrees(*_: Any) -> Agrees:
        return Agrees(0)

    inflate = SimpleNamespace(**{name: getattr(zlib, name) for name in ("decompressobj", "error", "MAX_WBITS")})
    inflate.crc32 = agrees
    with (
        mock.patch("jscope.checkpoint.files.crc32c", agrees),
        mock.patch("jscope.checkpoint.table.masked", agrees),
        mock.patch("jscope.checkpoint.bundle.masked", agrees),
        mock.patch("jscope.checkpoint.npz.zlib", inflate),
    ):
        yield


# Readers --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Reader:
    """What reads checkpoints of some form.

    Attributes:
      files: the names of the files; of several, one that is empty is not there.
      seeds: makes sound checkpoints, each the bytes of these files.
      forms: how each file is changed.
      path: what is opened, in the directory of the files.
      use: opens that and reads all; gives the arrays.
      gain: how many bytes of arrays a byte of the files may stand for.
      kinds: of the errors that may come out.
      other: what another package reads from the files: its arrays must be the same where it reads them.
    """

    files: tuple[str, ...]
    seeds: Callable[[], list[tuple[bytes, ...]]]
    forms: tuple[Form, ...]
    path: str
    use: Callable[[Path], dict[str, Any]]
    gain: int
    kinds: tuple[str, ...] = KINDS
    other: Callable[[tuple[bytes, ...]], dict[str, np.ndarray]] | None = None


READERS: dict[str, Reader] = {}
ARRAYS = {
    "a/kernel": np.arange(12.0).reshape(3, 4),
    "a/bias": np.arange(5, dtype=np.float32),
    "flag": np.array([True, False]),
    "n": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.int8),
    "half": np.ones(3, jax.numpy.bfloat16),
}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
STATE = {
    "params": js.Params({"a/w": np.arange(6, dtype=np.float32).reshape(2, 3)}),
    "slots": (np.zeros(3), np.array(4, np.int32)),
    "step": 7,
    "rate": 0.5,
    "key": jax.random.key(3),
}


def made(write: Callable[[Path], object], files: Sequence[str] = ("m",)) -> tuple[bytes, ...]:
    """The files that this writes, given the directory and the name of the first."""
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory) / files[0])
        places = [Path(directory) / name for name in files]
        return tuple(place.read_bytes() if place.exists() else b"" for place in places)


def opened(path: Path) -> dict[str, Any]:
    """All that `open` and what it gives can say of a file."""
    from jscope import checkpoint

    found = checkpoint.open(path)
    listing = found.listing()
    arrays = dict(found)
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        name: (spec.shape, spec.dtype) for name, spec in listing.items()
    }
    for text in (str(found), str(listing), *found.skipped.values()):
        check_printable(text)
    assert not set(found.skipped) & set(arrays)
    with contextlib.suppress(js.JscopeError):
        repr(checkpoint.load(path))
    return arrays


def opened_tf(path: Path) -> dict[str, Any]:
    """As `opened`, by the functions for TensorFlow's files."""
    from jscope import checkpoint

    listed = checkpoint.list_tf(path)
    check_printable(str(listed))
    found = checkpoint.load_tf(path)
    assert {name: (spec.shape, spec.dtype) for name, spec in listed.items()} == {
        name: (spec.shape, spec.dtype) for name, spec in found.listing().items()
    }
    return dict(found)


def state(path: Path) -> dict[str, Any]:
    """The leaves of a training state."""
    from jscope import checkpoint

    loaded = checkpoint.load_state(path, STATE).state
    assert jax.tree.structure(loaded) == jax.tree.structure(STATE)
    leaves = [jax.random.key_data(loaded.pop("key")), *jax.tree.leaves(loaded)]
    return {str(number): np.asarray(leaf) for number, leaf in enumerate(leaves)}


def shell(path: Path) -> dict[str, Any]:
    """What `python -m jscope` says of a file, and what it converts it to."""
    from jscope import checkpoint
    from jscope.checkpoint.command import main

    def status(*arguments: str) -> int:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            found = main(arguments)
        check_printable(said.getvalue())
        assert found in (0, 1, 2)
        return found

    is_listed = status("ls", str(path)) == 0
    same = status("diff", str(path), str(path))
    found = checkpoint.open(path)
    assert is_listed
    arrays = dict(found)
    assert same == 0
    for name in list(arrays)[:4]:
        assert status("show", "--", str(path), name) == 0
    for target in ("converted.safetensors", "converted.npz", "converted.ckpt"):
        converted = str(path.with_name(target))
        if status("convert", "--force", "--skip", "--", str(path), converted) == 0:
            assert {**js.Params(checkpoint.open(converted))}.keys() == {**js.Params(arrays)}.keys()
            assert status("diff", str(path), converted) == (1 if found.skipped else 0), target
            names = "|".join(map(re.escape, arrays))
            assert status("diff", f"--match=^({names})\\Z", str(path), converted) == 0, target
    return arrays


def check_printable(text: str) -> None:
    """Nothing in it does anything to a terminal."""
    for line in text.split("\n"):
        assert line.isprintable(), repr(line)


def bundles() -> list[tuple[bytes, ...]]:
    rng = np.random.default_rng(1)
    arrays = {f"scope_{i % 3}/v{i}": rng.normal(size=(i, 2)).astype(np.float32) for i in range(4)}
    parts = [("w", rng.normal(size=(10, 3)).astype(np.float32), [[(0, 7), None], [(7, 3), (0, 1)], [(7, 3), (1, 2)]])]
    every = [{}, {"per_block": 2}, {"snappy": True}, {"shards": 2}, {"extra": [(b"s", tf_writer.entry(7, [2]))]}]
    write = functools.partial(tf_writer.bundle, arrays=arrays, partitioned=parts)
    made_by_hand = [made(lambda path, o=o: write(path.with_suffix(""), **o), BUNDLE) for o in every]  # type: ignore[arg-type]
    from jscope import checkpoint

    return [*made_by_hand, made(lambda path: checkpoint.save_tf(path.with_suffix(""), ARRAYS), BUNDLE)]


def single_files() -> list[tuple[bytes, ...]]:
    rng = np.random.default_rng(2)
    parts = [[(0, 7), None], [(7, 3), (0, 1)], [(7, 3), (1, 2)]]
    variables = [("w", rng.normal(size=(10, 3)).astype(np.float32), 1, parts)]
    for number, dtype in {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 9: "<i8", 18: "<c16", 19: "<f2", 23: "<u8"}.items():
        variables.append((f"v{number}", np.arange(1, 4).astype(dtype), number, [[None]]))
    variables.append(("flag", np.array([True, False]), 10, [[None]]))
    variables.append(("scalar", np.array(3, np.int64), 9, [[]]))
    every: list[dict[str, Any]] = [{}, {"per_block": 2}, {"snappy": True}]
    return [made(lambda path, o=o: tf_writer.v1_file(path, variables, **o)) for o in every]


def safetensors_files() -> list[tuple[bytes, ...]]:
    from jscope import checkpoint

    own = made(lambda path: checkpoint.save(path, ARRAYS, metadata={"step": "3"}))
    plain = {name: array for name, array in ARRAYS.items() if name != "half"}
    few = {"a": np.ones(2, np.float32)}
    return [own, (safetensors_numpy.save(plain, {"format": "pt"}),), (safetensors_numpy.save(few),)]


def npz_files() -> list[tuple[bytes, ...]]:
    from jscope.checkpoint.npz import save_npz

    plain: Any = {name: array for name, array in ARRAYS.items() if name != "half"}
    columns: Any = {"f": np.asfortranarray(np.ones((2, 3))), "big": np.arange(3, dtype=">i4"), "t": np.array(["x"])}
    return [
        made(lambda path: save_npz(path, plain)),
        made(lambda path: np.savez(str(path), **plain), ("m.npz",)),
        made(lambda path: np.savez_compressed(str(path), **ARRAYS), ("m.npz",)),  # type: ignore[arg-type]
        made(lambda path: np.savez(str(path), **columns), ("m.npz",)),
        made(lambda path: np.savez_compressed(str(path), a=np.zeros(40_000, np.uint8)), ("m.npz",)),
    ]


def folders() -> list[tuple[bytes, ...]]:
    from jscope import checkpoint

    first, second = dict(list(ARRAYS.items())[:3]), dict(list(ARRAYS.items())[3:])
    where = dict.fromkeys(first, SHARDS[0]) | dict.fromkeys(second, SHARDS[1])
    index = json.dumps({"metadata": {"total_size": 132}, "weight_map": where}).encode()
    shards = [made(lambda path, a=arrays: checkpoint.save(path, a))[0] for arrays in (first, second)]
    plain = safetensors_numpy.save({"b": np.ones(2, np.float32)})
    small = json.dumps({"weight_map": {"b": SHARDS[0]}}).encode()
    return [
        *((index, *shards, b""), (small, plain, b"", b""), (small, b"", plain, shards[0]), (b"", *shards, b"")),
        *((b"", b"", b"", shards[0]), (b"", plain, b"", b"")),
    ]


def states() -> list[tuple[bytes, ...]]:
    from jscope import checkpoint

    return [made(lambda path: checkpoint.save_state(path, STATE, metadata={"note": "x"}))]


def latest() -> list[tuple[bytes, ...]]:
    texts = [
        b'model_checkpoint_path: "m"\nall_model_checkpoint_paths: "m"\n',
        b'model_checkpoint_path: "/a/b/m"\n',
        b' model_checkpoint_path :  "\\155\\n"\n',
    ]
    return [(text, *files[:2]) for text, files in zip(texts, bundles(), strict=False)]


def strangers() -> list[tuple[bytes, ...]]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    starts = [
        *(b"\x93NUMPY\1\0", b"\x89HDF\r\n\x1a\n", b"GGUF\3\0\0\0", b"version https://git-lfs.github.com/spec/v1\n"),
        *(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x1f\x8b\x08", b"<!DOCTYPE html><html>", b'{"a": [1]}'),
        *(b"\x80\x04\x95\0\0", b"\x81\xa6params\x81\xa1w", b"\xde\0\1\xd9\1a", b"\0" * 64, b"", b"PK\3\4" + b"\0" * 30),
    ]
    return [(start,) for start in (*starts, packed.getvalue()[:1024])] + safetensors_files() + npz_files()[:1]


def files_of_each_format() -> list[tuple[bytes, ...]]:
    return safetensors_files() + npz_files() + single_files()


def by_numpy(files: tuple[bytes, ...]) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(files[0]), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def by_safetensors(files: tuple[bytes, ...]) -> dict[str, np.ndarray]:
    return safetensors_numpy.load(files[0])


BUNDLE = ("m.index", "m.data-00000-of-00001", "m.data-00000-of-00002", "m.data-00001-of-00002")
FOLDER = (INDEX, *SHARDS, "model.safetensors")
TABLE, PLAIN, TENSORS = fuzz_forms.table, fuzz_forms.raw, fuzz_forms.safetensors
# Of a Snappy block a byte stands for 32 at most, and a byte of a varint for a number of 8.
READERS["bundle"] = Reader(BUNDLE, bundles, (TABLE, PLAIN, PLAIN, PLAIN), "m", opened_tf, 8 * 32)
READERS["single"] = Reader(("m",), single_files, (TABLE,), "m", opened_tf, 8 * 32)
READERS["latest"] = Reader(("checkpoint", *BUNDLE[:2]), latest, (PLAIN, TABLE, PLAIN), "", opened_tf, 8 * 32)
READERS["safetensors"] = Reader(("m",), safetensors_files, (TENSORS,), "m", opened, 8, other=by_safetensors)
READERS["npz"] = Reader(("m",), npz_files, (fuzz_forms.npz,), "m", opened, 1100, other=by_numpy)
READERS["folder"] = Reader(
    FOLDER,
    folders,
    (fuzz_forms.json_text, TENSORS, TENSORS, TENSORS),
    "",
    opened,
    8,
    (*KINDS, "ambiguous", "bad_index"),
)
READERS["state"] = Reader(("m",), states, (TENSORS,), "m", state, 8)
READERS["shell"] = Reader(("m",), files_of_each_format, (fuzz_forms.any_file,), "m", shell, 1100)
READERS["stranger"] = Reader(("m.bin",), strangers, (fuzz_forms.any_file,), "m.bin", opened, 1100)


# An input -------------------------------------------------------------------------------------------------------------


def pack(files: Sequence[bytes]) -> bytes:
    """The files of one checkpoint as one input."""
    return b"".join(len(file).to_bytes(_COUNT, "little") + file for file in files)


def unpack(data: bytes, count: int) -> tuple[bytes, ...]:
    """So many files, whatever the input is."""
    files = []
    for number in range(count):
        size = int.from_bytes(data[:_COUNT], "little") if number < count - 1 else len(data)
        files.append(data[_COUNT : _COUNT + size])
        data = data[_COUNT + size :]
    return tuple(files)


def changed(reader: Reader, data: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """One file of an input is another; seldom is it not there."""
    files = list(unpack(data, len(reader.files)))
    there = [number for number, file in enumerate(files) if file] or [0]
    number = there[rng.integers(len(there))]
    gone = len(files) > 1 and rng.random() < 0.01
    files[number] = b"" if gone else reader.forms[number](files[number], rng, change)
    return pack(files)


def outcome(reader: Reader, directory: Path, data: bytes, is_measured: bool = True) -> str:
    """What came out: `read`, or the kind of the error. What may not come out raises.

    Args:
      reader: what reads.
      directory: where the files are put.
      data: the input.
      is_measured: whether the memory is measured, with which it takes three times as long.

    Raises:
      AssertionError: or any other error, if there is a fault.
    """
    files = tuple(fuzz_forms.with_header_sum(file) for file in unpack(data, len(reader.files)))
    for name, file in zip(reader.files, files, strict=True):
        if file or len(files) == 1:
            (directory / name).write_bytes(file)
        else:
            (directory / name).unlink(missing_ok=True)
    size, fault, arrays, peak = sum(map(len, files)), None, {}, 0
    if is_measured:
        tracemalloc.start()
    try:
        arrays = reader.use(directory / reader.path)
    except (js.CheckpointError, js.ParamsMismatchError) as error:
        fault = error
    finally:
        if is_measured:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    given = sum(np.asarray(array).nbytes for array in arrays.values())
    assert peak - 2 * given <= 32e6 + 8 * size, (peak, given, size)
    if isinstance(fault, js.CheckpointError):
        assert fault.kind in reader.kinds, fault
        assert str(directory) in fault.what, fault
    if fault is not None:
        check_printable(str(fault))
        return fault.kind
    assert given <= reader.gain * size + (1 << 20), (given, size)
    if reader.other is not None:
        compare(arrays, reader.other, files)
    return "read"


def compare(
    arrays: dict[str, np.ndarray], read: Callable[..., dict[str, np.ndarray]], files: tuple[bytes, ...]
) -> None:
    """What another package reads is the same."""
    try:
        others = read(files)
    except Exception:  # it reads less, and says so in many ways
        return
    for name in arrays.keys() & others.keys():
        mine, other = arrays[name], others[name]
        assert mine.shape == other.shape, name
        if mine.dtype != bool and other.dtype.kind != "V":
            other = other.astype(other.dtype.newbyteorder("="))
            assert (mine.dtype, mine.tobytes()) == (other.dtype, other.tobytes()), name


# A run ----------------------------------------------------------------------------------------------------------------


def place() -> tempfile.TemporaryDirectory[str]:
    """A directory in memory, where there is one."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def fuzz(reader: Reader, arguments: list[str], told: Path) -> None:
    """Runs inputs until it is ended; writes to a file what came out."""
    atheris: Any = importlib.import_module("atheris")
    resource: Any = importlib.import_module("resource")
    with atheris.instrument_imports(include=["jscope.checkpoint"]):
        importlib.import_module("jscope.checkpoint")
    counts: collections.Counter[str] = collections.Counter()
    slowest, most = 0.0, 0
    sound = [pack(files) for files in reader.seeds()]

    def one(data: bytes) -> None:
        nonlocal slowest, most
        number = sum(counts.values())
        start = time.perf_counter()
        came = outcome(reader, directory, data, number % MEASURED == 0)
        counts[came] += 1
        if came == "read":
            place = counts[came] % MOST_SOUND
            sound[place : place + 1] = [data]
        slowest = max(slowest, time.perf_counter() - start)
        before, most = most, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if most > before + GROWN:
            outcome(reader, directory, data)
        if number % 200 == 0:
            told.write_text(json.dumps({"slowest": slowest, **counts}))

    def change(data: bytes) -> bytes:
        return bytes(atheris.Mutate(data, len(data) + 100))

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        # Most ways through a reader end in an error, and so most inputs that are kept: from those little is found.
        start = sound[rng.integers(len(sound))] if rng.random() < SOUND else data
        out = changed(reader, start, rng, change)
        return out if len(out) <= most else data

    warnings.simplefilter("error")
    with place() as name, without_checksums():
        directory = Path(name)
        atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=mutate)
        atheris.Fuzz()


def run(name: str, seconds: int, corpus: Path) -> int:
    """Runs the fuzzer in a process of its own, which ends where there is a fault. Gives the status of a shell."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, files in enumerate(READERS[name].seeds()):
        (corpus / f"seed-{number}").write_bytes(pack(files))
    with tempfile.TemporaryDirectory() as directory:
        told = Path(directory) / "told.json"
        told.write_text("{}")
        options = [
            f"-max_total_time={seconds}",
            f"-timeout={MOST_SECONDS}",
            "-max_len=32768",
            "-mutate_depth=2",
            "-rss_limit_mb=4096",
        ]
        options += [f"-artifact_prefix={corpus.parent}/{name}-", "-print_final_stats=1", str(corpus)]
        command = [sys.executable, __file__, name, "--told", str(told), "--", *options]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        counts = json.loads(told.read_text())
    slowest = counts.pop("slowest", 0.0)
    status = _STATUS.findall(ended.stdout)
    executions = re.search(r"number_of_executed_units: (\d+)", ended.stdout)
    coverage, features, inputs, size = status[-1] if status else ("?",) * 4
    number = executions[1] if executions else f"some {sum(counts.values())}"
    came = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))
    if ended.returncode or executions is None:
        print(ended.stdout[-6000:])
        kept = _KEPT.findall(ended.stdout)
        print(f"A fault. Run it again: python {sys.argv[0]} {name} --again {kept[-1] if kept else 'INPUT'}")
    print(
        f"{name}: {number} executions, coverage {coverage} ({features} features), corpus {inputs} inputs ({size}); "
        f"slowest {slowest:.2f} s; {came}"
    )
    return 1 if ended.returncode or executions is None else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz a reader of checkpoints; a fault ends it with status 1.")
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=240)
    parser.add_argument("--corpus", type=Path, help="a directory of inputs to start from, and to keep those found in")
    parser.add_argument("--again", type=Path, metavar="INPUT", help="run one input that was kept")
    parser.add_argument("--told", type=Path, help=argparse.SUPPRESS)
    own, arguments = sys.argv[1:], []
    if "--" in own:
        own, arguments = own[: own.index("--")], own[own.index("--") + 1 :]
    options = parser.parse_args(own)
    if options.told is not None:
        fuzz(READERS[options.reader], arguments, options.told)
    if options.again is not None:
        with place() as directory, without_checksums():
            print(outcome(READERS[options.reader], Path(directory), options.again.read_bytes()))
        return 0
    if options.corpus is not None:
        return run(options.reader, options.seconds, options.corpus)
    return run(options.reader, options.seconds, Path(tempfile.mkdtemp(prefix="jscope-fuzz-")) / options.reader)


if __name__ == "__main__":
    sys.exit(main())
