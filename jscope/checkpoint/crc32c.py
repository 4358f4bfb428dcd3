"""CRC-32C, as TensorFlow masks it: by `google-crc32c` where that is installed, else by numpy."""

from __future__ import annotations

import functools
import warnings

import numpy as np

_POLYNOMIAL = 0x82F63B78
_LANE = 1024  # bytes whose checksum one lane of the numpy version takes
_LANES = 4096  # lanes at a time: 4 MB, so that a large array is not copied whole


def masked(checksum: int) -> int:
    """The form that is stored: a checksum of bytes that hold their own checksum would be a weak one."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: np.ndarray, before: int = 0) -> int:
    """The checksum of one-dimensional uint8 `data`, or that of all bytes so far, where `before` is that of the rest."""
    extend = _compiled()
    return extend(before, data) if extend is not None else by_numpy(data, before)


@functools.cache
def _compiled():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where its compiled part is missing
        try:
            import google_crc32c
        except ImportError:
            return None
    return google_crc32c.extend if google_crc32c.implementation == "c" else None


def by_numpy(data: np.ndarray, before: int = 0) -> int:
    """The same without `google-crc32c`: many lanes side by side, then joined, for checksums are linear."""
    if data.size < 4:
        return _bytewise(data, before)
    # In front zeros change nothing when the register starts at zero, so that all lanes can be full.
    padded = np.zeros(-(-data.size // _LANE) * _LANE, np.uint8)
    start = padded.size - data.size
    padded[start:] = data
    # A register that does not start at zero is the same as zero and other first bytes.
    padded[start : start + 4] ^= np.frombuffer((before ^ 0xFFFFFFFF).to_bytes(4, "little"), np.uint8)
    lanes = padded.view("<u4").reshape(-1, _LANE // 4)
    sums = np.concatenate([_of_lanes(lanes[i : i + _LANES]) for i in range(0, len(lanes), _LANES)])
    return _joined(sums) ^ 0xFFFFFFFF


def _bytewise(data: np.ndarray, before: int) -> int:
    register, table = before ^ 0xFFFFFFFF, _tables()[0]
    for byte in data.tolist():
        register = int(table[(register ^ byte) & 0xFF]) ^ register >> 8
    return register ^ 0xFFFFFFFF


@functools.cache
def _tables() -> np.ndarray:
    """[k, byte]: what `byte`, followed by k zero bytes, leaves in the register."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ _POLYNOMIAL, table >> 1).astype(np.uint32)
    tables = np.stack([table] * 4)
    for k in range(1, 4):
        tables[k] = table[tables[k - 1] & 0xFF] ^ tables[k - 1] >> 8
    return tables


def _apply(operator: np.ndarray, registers: np.ndarray) -> np.ndarray:
    """A linear map of 32-bit registers, given as [byte's place, byte's value]."""
    return (
        operator[0][registers & 0xFF]
        ^ operator[1][registers >> 8 & 0xFF]
        ^ operator[2][registers >> 16 & 0xFF]
        ^ operator[3][registers >> 24]
    )


@functools.cache
def _word() -> np.ndarray:
    """What four zero bytes do to the register."""
    return _tables()[::-1].copy()


@functools.cache
def _lane() -> np.ndarray:
    """What a lane of zero bytes does to the register."""
    operator = _word()
    for _ in range((_LANE // 4).bit_length() - 1):
        operator = _apply(operator, operator)
    return operator


def _of_lanes(lanes: np.ndarray) -> np.ndarray:
    registers, word = np.zeros(len(lanes), np.uint32), _word()
    for column in np.ascontiguousarray(lanes.T):
        registers = _apply(word, registers ^ column)
    return registers


def _joined(sums: np.ndarray) -> int:
    """The register after all lanes: each time, pairs of neighbours become one."""
    operator = _lane()
    while len(sums) > 1:
        if len(sums) % 2:
            sums = np.concatenate([np.zeros(1, np.uint32), sums])
        sums = _apply(operator, sums[0::2]) ^ sums[1::2]
        operator = _apply(operator, operator)
    return int(sums[0])
