"""How long a checkpoint takes to open and to read, beside `np.fromfile` of the same bytes.

    python tests/benchmarks/reading.py --bytes 1e9 --repeats 7

All of it is in the system's cache: this measures the reader, not the disk. The kinds take turns in each round, so that
what slows the machine slows all of them; given are medians, and medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jscope import checkpoint
from jscope.checkpoint import crc32c

ARRAY = 1 << 22  # numbers in each array but the last ones


def arrays(size: int) -> dict[str, np.ndarray]:
    """Float32 arrays of that many bytes in all: large ones, and a hundred small ones as biases are."""
    rng = np.random.default_rng(0)
    large = {f"layer_{i:03d}/kernel": rng.random(ARRAY, np.float32) for i in range(max(1, size // (4 * ARRAY)))}
    return large | {f"layer_{i:03d}/bias": rng.random(1024, np.float32) for i in range(100)}


def seconds(f: Callable[[], object]) -> float:
    """How long a call takes. What it gives is dropped only afterwards."""
    start = time.perf_counter()
    given = f()
    taken = time.perf_counter() - start
    del given
    return taken


def by_fromfile(path: Path, sizes: list[int]) -> list[np.ndarray]:
    """What numpy does with the same bytes: no names, no checksums."""
    with open(path, "rb") as file:
        return [np.fromfile(file, np.float32, size) for size in sizes]


def mapped(bundle: Path) -> np.ndarray:
    """What a reader would take that maps the file and does not copy: the checksums alone, which touch every page."""
    array = np.memmap(f"{bundle}.data-00000-of-00001", np.uint8, "r")
    for start in range(0, array.size, 4 * ARRAY):
        crc32c.crc32c(np.asarray(array[start : start + 4 * ARRAY]))
    return array


def measured(directory: Path, size: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each kind, round by round; those of opening are of opening alone."""
    saved = arrays(size)
    bundle, file, raw = directory / "m.ckpt", directory / "m.safetensors", directory / "m.raw"
    checkpoint.save_tf(bundle, saved)
    checkpoint.save(file, saved)
    with open(raw, "wb") as out:
        for array in saved.values():
            out.write(array.data)
    sizes = [array.size for array in saved.values()]
    del saved
    kinds = {
        # Array by array, as the others: large blocks of fresh memory are slow by themselves.
        "np.fromfile": lambda: by_fromfile(raw, sizes),
        "np.fromfile, as one": lambda: np.fromfile(raw, np.uint8),
        "np.memmap, checksums": lambda: mapped(bundle),
        "load_tf": lambda: dict(checkpoint.load_tf(bundle)),
        "load_tf, verify=False": lambda: dict(checkpoint.load_tf(bundle, verify=False)),
        "load": lambda: checkpoint.load(file, progress=False),
        "open a bundle": lambda: checkpoint.load_tf(bundle),
        "open a file of save": lambda: checkpoint.open(file),
    }
    rounds: dict[str, list[float]] = {kind: [] for kind in kinds}
    order, shuffle = list(kinds), random.Random(0).shuffle
    for _ in range(repeats + 1):
        shuffle(order)  # each finds memory as the last one left it, which makes more difference than all else
        for kind in order:
            rounds[kind].append(seconds(kinds[kind]))
    return {kind: taken[1:] for kind, taken in rounds.items()}  # the first round warms up


def report(rounds: dict[str, list[float]], size: int) -> str:
    """A table."""
    base = rounds["np.fromfile"]
    lines = [f"{size / 1e9:.2f} GB, {len(base)} rounds, checksums by google-crc32c"]
    for kind, taken in rounds.items():
        speed = statistics.median(reference / own for reference, own in zip(base, taken, strict=True))
        note = "" if kind.startswith("open") else f"{speed:.2f} of the speed of np.fromfile"
        lines.append(f"{kind:22} {1000 * statistics.median(taken):9.1f} ms  {note}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, default=1e9, help="size of the checkpoint")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(report(measured(Path(directory), int(options.bytes), options.repeats), int(options.bytes)))


if __name__ == "__main__":
    main()
