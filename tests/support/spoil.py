"""Ways to spoil files and headers, at random."""

from __future__ import annotations

from typing import Any

import numpy as np

VALUES = [0, -1, 1, 3.5, 1 << 40, 1 << 70, "F32", "U8", "BOOL", "F4", None, True, [], {}, [1 << 40], [0, 8], "x", [[1]]]


def flipped(rng: np.random.Generator, data: bytes) -> bytes:
    """One to three bits are others."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        out[rng.integers(len(out))] ^= 1 << rng.integers(8)
    return bytes(out)


def spoiled(rng: np.random.Generator, data: bytes) -> bytes:
    """Something else than a flipped bit: bytes set, left out, or doubled."""
    place, kind = int(rng.integers(len(data))), rng.integers(3)
    if kind == 0:
        return data[:place] + bytes([rng.integers(256)]) * int(rng.integers(1, 12)) + data[place + 1 :]
    length = int(rng.integers(1, 20))
    return data[:place] + (data[place : place + length] * 2 if kind == 1 else b"") + data[place + length :]


def mutated(rng: np.random.Generator, value: Any, values: list[Any] = VALUES, share: float = 0.08) -> Any:
    """A header with some parts of it replaced by others, or gone."""
    if rng.random() < share:
        return values[rng.integers(len(values))]
    if isinstance(value, dict):
        return {key: mutated(rng, inner, values, share) for key, inner in value.items() if rng.random() > 0.02}
    return [mutated(rng, inner, values, share) for inner in value] if isinstance(value, list) else value
