"""TensorFlow's dtypes by number, and shapes as they are stored."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .tensors import MOST_DIMENSIONS, can_be_read
from .wire import WireError, block, fields, integer, put_block, put_integer, signed

DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    8: np.dtype("<c8"),
    9: np.dtype("<i8"),
    10: np.dtype("bool"),
    14: np.dtype(jnp.bfloat16),
    17: np.dtype("<u2"),
    18: np.dtype("<c16"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
    24: np.dtype(jnp.float8_e5m2),
    25: np.dtype(jnp.float8_e4m3fn),
}
NUMBERS = {dtype: number for number, dtype in DTYPES.items()}
_OTHERS = {
    7: "strings",
    11: "quantized numbers (qint8)",
    12: "quantized numbers (quint8)",
    13: "quantized numbers (qint32)",
    15: "quantized numbers (qint16)",
    16: "quantized numbers (quint16)",
    20: "a resource",
    21: "a variant",
}


def dtype_number(stored: int) -> int:
    """Of a reference, as TensorFlow 1 had them, that of what it refers to, which is less by 100."""
    return stored - 100 if 100 < stored < 200 else stored


def why_not(number: int) -> str:
    """Why arrays of a dtype that is not in `DTYPES` are left out."""
    return f"holds {_OTHERS[number]}" if number in _OTHERS else f"has TensorFlow's dtype number {number}"


def read_shape(message: memoryview) -> tuple[int, ...]:
    """A TensorShapeProto."""
    shape = []
    for number, value in fields(message):
        if number == 2:
            size = 0
            for inner, length in fields(block(value)):
                if inner == 1:
                    size = signed(integer(length))
            if size < 0:
                raise WireError(0, f"a dimension of a shape is {size}")
            shape.append(size)
            if len(shape) > MOST_DIMENSIONS:
                raise WireError(0, f"a shape has more than {MOST_DIMENSIONS} dimensions")
        elif number == 3 and value:
            raise WireError(0, "a shape is unknown")
    if not can_be_read(shape):
        raise WireError(0, f"a shape is too large: {tuple(shape)}")
    return tuple(shape)


def put_shape(shape: tuple[int, ...]) -> bytes:
    """The same, written."""
    return b"".join(put_block(2, put_integer(1, size)) for size in shape)
