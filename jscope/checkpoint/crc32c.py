"""CRC-32C by `google-crc32c`, and as TensorFlow masks it."""

from __future__ import annotations

import numpy as np

from .faults import needs_extra


def masked(checksum: int) -> int:
    """The form that is stored: a checksum of bytes that hold their own checksum would be a weak one."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: np.ndarray, before: int = 0) -> int:
    """The checksum of one-dimensional uint8 `data`, or that of all bytes so far, where `before` is that of the rest.

    Raises:
      CheckpointError: if `google-crc32c` is not installed.
    """
    try:
        from google_crc32c import extend
    except ImportError:
        raise needs_extra("Checksums of checkpoints need google-crc32c, which is not installed.") from None
    return extend(before, data)
