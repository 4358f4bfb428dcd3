"""Numpy's `.npz`: a zip file of `.npy` files. Nothing is unpickled, and nothing taken on trust."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

import jscope as js

from .atomic import replace_file
from .faults import damaged, fault
from .files import File
from .leaves import ADVICE, bytes_of, kind_of
from .tensors import Contents, Tensor

_INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
_KNOWN = ["bool", *_INTEGERS, "float16", "float32", "float64", "complex64", "complex128"]  # a .npy file names no others
_MOST_GAIN = 1100  # bytes out of one of zip's: its method gives 1032 at most
_PIECE = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def is_npz(file: File) -> bool:
    """Whether it starts as a zip file."""
    return file.size >= 22 and file.read(0, 4)[0].tobytes() in (b"PK\3\4", b"PK\5\6")


def read_npz(path: str) -> Contents:
    """What the file holds.

    Raises:
      CheckpointError: if it is no such file.
    """
    file = File(path)
    tensors, skipped = {}, {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.compress_size for info in archive.infolist()) > file.size:
                raise ValueError("the files in it overlap")  # else a small one could stand for any number of large ones
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in tensors or name in skipped:
                    raise ValueError(f"'{name}' is there twice")
                if name == info.filename:
                    skipped[name] = "is no .npy file"
                    continue
                if info.file_size > _MOST_GAIN * info.compress_size + _PIECE:
                    raise ValueError(f"'{name}' would be {info.file_size} bytes of {info.compress_size}")
                with archive.open(info) as member:
                    shape, fortran, dtype = _header(member)
                    start = member.tell()
                if dtype.name not in _KNOWN:
                    skipped[name] = "holds Python objects" if dtype.hasobject else f"holds {dtype}"
                    continue
                if info.file_size - start != math.prod(shape) * dtype.itemsize:
                    raise ValueError(f"'{name}', {dtype} of shape {shape}, has not {info.file_size - start} bytes")
                tensors[name] = _tensor(file, info, name, start, shape, fortran, dtype)
    except _DAMAGE as error:
        raise damaged(path, 0, f"it is no .npz file that can be read ({str(error)[:200]})") from None
    file.check_unchanged()
    return Contents(path, tensors, skipped)


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(member)
    if version not in read:
        raise ValueError(f"version {version} of .npy is not read")
    shape, fortran, dtype = read[version](member)
    if any(size < 0 for size in shape):
        raise ValueError(f"a shape is {shape}")
    return shape, fortran, dtype


def _tensor(
    file: File, info: zipfile.ZipInfo, name: str, start: int, shape: tuple[int, ...], fortran: bool, dtype: np.dtype
) -> Tensor:
    def read(checked: bool) -> np.ndarray:
        """Zip's own checksum is always compared."""
        file.check_unchanged()
        data, done = np.empty(info.file_size - start, np.uint8), 0
        try:
            with zipfile.ZipFile(file.path) as archive, archive.open(info) as member:
                member.read(start)
                while done < data.size:
                    piece = member.read(min(_PIECE, data.size - done))
                    if not piece:
                        raise EOFError("the file ends too early")
                    data[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
                    done += len(piece)
                member.read(1)  # the end, at which the checksum is compared
        except _DAMAGE as error:
            raise damaged(file.path, info.header_offset, f"'{name}' can't be read ({str(error)[:200]})") from None
        array = (data != 0 if dtype.kind == "b" else data.view(dtype)).reshape(shape[::-1] if fortran else shape)
        array = array.T if fortran else array
        return array.astype(dtype.newbyteorder("="), order="C", copy=False)

    return Tensor(shape, dtype.newbyteorder("="), read)


def save_npz(path: str, params: Mapping[str, Any]) -> None:
    """Writes one, at one stroke.

    Raises:
      CheckpointError: if a value is no array that a `.npy` file can name, or the file can't be written.
    """
    arrays = js.Params(params).flat()
    for name, leaf in arrays.items():
        kind = kind_of(leaf)
        if kind not in _KNOWN:
            what = f"'{name}' is no array that a .npz file could hold, but {kind}."
            raise fault(what, kind="bad_dtype", fix=f"save it in another format, or convert it; {ADVICE}")

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, leaf in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    npy.write_array(member, bytes_of(leaf)[0], allow_pickle=False)

    replace_file(path, write)
