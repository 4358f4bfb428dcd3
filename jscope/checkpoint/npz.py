"""Numpy's `.npz`: a zip file of `.npy` files. Nothing is unpickled, and nothing taken on trust."""

from __future__ import annotations

import functools
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.lib import format as npy

import jscope as js
from jscope._support import shown

from .allowance import Allowance
from .atomic import replace_file
from .faults import Path, damaged, fault
from .files import File
from .leaves import ADVICE, bytes_of, is_text, kind_of
from .locate import place_of_file
from .tensors import Contents, Tensors, can_be_read
from .wild import told_of_zip

_INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
_KNOWN = ["bool", *_INTEGERS, "float16", "float32", "float64", "complex64", "complex128"]  # a .npy file names no others
# numpy.savez writes the bytes of a dtype that numpy has not itself, and no name. Of two bytes that is bfloat16 alone.
_STORED_BFLOAT16 = np.dtype("V2")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # numpy writes no others
_MOST_GAIN = 1100  # bytes out of one of zip's: its method gives 1032 at most
_PIECE = 1 << 20
_MOST_HEADER = 10_000  # bytes of the description of an array; numpy reads no longer ones either
_MOST_NAME = 65_000  # bytes, of 16 bits that count them
_KEPT = 900  # bytes that Python takes for what the directory says of a file
_LOCAL = struct.Struct("<4s5H3I2H")  # what stands before each file in a zip file


class _Member(NamedTuple):
    """A file in a zip file.

    Attributes:
      name: of the array.
      start: where its bytes begin.
      stored, size: how many they are, and how many without compression.
      checksum: that of all bytes without compression.
      method: of compression.
    """

    name: str
    start: int
    stored: int
    size: int
    checksum: int
    method: int


class _Array(NamedTuple):
    """An array in a file in a zip file.

    Attributes:
      member: the file.
      start: how many bytes describe the array; those of the array follow.
      shape, dtype: what it is.
      fortran: whether its first index moves fastest.
    """

    member: _Member
    start: int
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def is_npz(file: File) -> bool:
    """Whether it starts as a zip file."""
    return file.size >= 22 and file.read(0, 4)[0].tobytes() in (b"PK\3\4", b"PK\5\6")


def read_npz(file: File) -> Contents:
    """What the file holds.

    Raises:
      CheckpointError: if it is no such file.
    """
    found: dict[str, _Array] = {}
    skipped: dict[str, str] = {}
    allowance = Allowance(file.path, file.size)
    infos = _directory(file)
    foreign = told_of_zip(file, [info.filename for info in infos])
    if foreign is not None:
        raise foreign
    if sum(info.compress_size for info in infos) > file.size:  # else a small one could stand for many large ones
        raise damaged(file.path, 0, "the files in it overlap")
    for info in infos:
        name = info.filename.removesuffix(".npy")
        allowance.take(name, _KEPT)
        try:
            if name in found or name in skipped:
                raise ValueError(f"{shown(name)} is there twice")
            if name == info.filename:
                skipped[name] = "is no .npy file"
                continue
            member = _member(file, info, name)
            array = _described(file, member)
            if array.dtype == _STORED_BFLOAT16:
                array = array._replace(dtype=np.dtype(jnp.bfloat16))
            dtype, data = array.dtype, member.size - array.start
            if dtype.name not in (*_KNOWN, "bfloat16"):
                skipped[name] = _why_not(dtype)
            elif data != math.prod(array.shape) * dtype.itemsize:
                raise ValueError(f"{shown(name)}, {dtype} of shape {array.shape}, has not {data} bytes")
            else:
                found[name] = array
        except js.CheckpointError:
            raise
        except (ValueError, zlib.error) as error:
            raise damaged(file.path, info.header_offset, f"it is no .npz file that can be read ({error})") from None
    tensors = Tensors(functools.partial(_read, file, found))
    for name in sorted(found):
        tensors.add(name, found[name].shape, found[name].dtype.newbyteorder("="), 0)
    return Contents(file.path, tensors, skipped)


def _why_not(dtype: np.dtype) -> str:
    """Why such an array is left out."""
    if dtype.hasobject:
        return "holds Python objects"
    if dtype == np.dtype("V1"):
        return "holds numbers of one byte without their kind, as numpy.savez writes float8: save in another format"
    return f"holds {dtype!s:.80}"


class _Counted(io.RawIOBase):
    """A file as `zipfile` reads its directory, which it does before anything can be said of it.

    Raises:
      ValueError: if what is read lists more files than the file could hold: each would take a thousand bytes.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._place = 0
        self._left = 20_000 + file.size // 160  # files in it; an array of no bytes takes more than 160

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._file.size)[whence]
        if self._place < 0:
            raise OSError("there is nothing before the file")
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(self._file.size - self._place, 0)
        data = self._file.read(self._place, left if size < 0 else min(size, left))[0].tobytes() if left else b""
        self._left -= data.count(b"PK\1\2")
        if self._left < 0:
            raise ValueError("it lists more files than it could hold")
        self._place += len(data)
        return data


def _directory(file: File) -> list[zipfile.ZipInfo]:
    try:
        return zipfile.ZipFile(_Counted(file)).infolist()
    except js.CheckpointError:
        raise
    except Exception as error:  # whatever that package says of bytes that it does not expect
        raise damaged(file.path, 0, f"it is no .npz file that can be read ({error!s:.200})") from None


def _member(file: File, info: zipfile.ZipInfo, name: str) -> _Member:
    if info.compress_type not in _METHODS:
        raise ValueError(f"{shown(name)} is compressed by method {info.compress_type}, which numpy never uses")
    if info.file_size > _MOST_GAIN * info.compress_size + _PIECE:
        raise ValueError(f"{shown(name)} would be {info.file_size} bytes of {info.compress_size}")
    local = file.read(info.header_offset, _LOCAL.size)[0].tobytes()
    sign, _, flags, *_, name_size, extra_size = _LOCAL.unpack(local)
    if sign != b"PK\3\4" or (flags | info.flag_bits) & 1:
        raise ValueError(f"{shown(name)} is encrypted, or not where the directory says")
    start = info.header_offset + _LOCAL.size
    encoding = "utf-8" if flags & 0x800 else "cp437"
    if file.read(start, name_size)[0].tobytes().decode(encoding) != info.orig_filename:
        raise ValueError(f"{shown(name)} has another name in the directory")
    start += name_size + extra_size
    file.check_inside(start, info.compress_size)
    return _Member(name, start, info.compress_size, info.file_size, info.CRC, info.compress_type)


def _pieces(file: File, member: _Member, most: int = _PIECE) -> Iterator[np.ndarray]:
    """The bytes of a file without compression, piece by piece.

    Raises:
      ValueError, zlib.error: if they are not as many as the directory says, or not those: zip's own checksum is always
        compared.
    """
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == zipfile.ZIP_DEFLATED else None
    done, taken, checksum = 0, 0, 0
    data: Any = b""
    while done < member.size:
        if not data and taken < member.stored:
            data = file.read(member.start + taken, min(most, member.stored - taken))[0].data
            taken += len(data)
        if (not data and inflate is None) or (inflate is not None and inflate.eof):
            raise ValueError(f"{shown(member.name)} ends too early")
        if inflate is None:
            piece, data = np.frombuffer(data, np.uint8), b""
        else:
            piece = np.frombuffer(inflate.decompress(data, min(most, member.size - done)), np.uint8)
            if not piece.size and not data:
                raise ValueError(f"{shown(member.name)} ends too early")
            data = inflate.unconsumed_tail
        checksum = zlib.crc32(piece.data, checksum)
        done += piece.size
        yield piece
    if done > member.size or checksum != member.checksum:
        raise ValueError(f"the checksum of {shown(member.name)} does not fit")


def _described(file: File, member: _Member) -> _Array:
    beginning = bytearray()
    for piece in _pieces(file, member, 1 << 14):
        beginning += piece.data
        if len(beginning) >= 12 + _MOST_HEADER:
            break
    version = bytes(beginning[6:8])
    if beginning[:6] != npy.MAGIC_PREFIX or version not in (b"\1\0", b"\2\0"):
        raise ValueError(f"{shown(member.name)} is no .npy file of version 1 or 2")
    start = 10 if version == b"\1\0" else 12
    size = int.from_bytes(beginning[8:start], "little")
    if size > _MOST_HEADER:
        raise ValueError(f"{shown(member.name)} has a description of {size} bytes")
    read = npy.read_array_header_1_0 if version == b"\1\0" else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = read(io.BytesIO(beginning[8 : start + size]))
    except Exception as error:  # numpy has it parsed as Python: that can end in anything, a MemoryError included
        raise ValueError(f"{shown(member.name)} has no description that numpy reads: {error!s:.200}") from None
    if any(length < 0 for length in shape) or not can_be_read(shape):
        raise ValueError(f"{shown(member.name)} has the shape {shape!s:.80}")
    return _Array(member, start + size, shape, fortran, dtype)


def _read(file: File, found: dict[str, _Array], name: str, row: int, checked: bool) -> np.ndarray:
    """The array. Zip's checksum is always compared."""
    member, start, shape, fortran, dtype = found[name]
    try:
        if member.size > 8 * member.stored:
            for _ in _pieces(file, member):
                pass  # whether so few bytes are indeed so many, before there is memory for them
        array = np.empty(shape[::-1] if fortran else shape, dtype)
        data, done = array.reshape(-1).view(np.uint8), -start
        for piece in _pieces(file, member):
            kept = piece[max(-done, 0) :]
            done += piece.size
            data[done - kept.size : done] = kept
    except js.CheckpointError:
        raise
    except (ValueError, zlib.error) as error:
        raise damaged(file.path, member.start, f"{shown(member.name)} can't be read ({error})") from None
    if dtype.kind == "b":
        np.not_equal(array.view(np.uint8), 0, out=array)  # else there would be a third truth value to numpy
    elif not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return array.T if fortran else array


def save_npz(path: Path, params: Mapping[str, Any]) -> None:
    """Writes one, at one stroke.

    Raises:
      CheckpointError: if a value is no array that a `.npy` file can name, a name can't be that of a file in it, or the
        file can't be written.
    """
    target = place_of_file(path)
    arrays = js.Params(params).flat()
    for name, leaf in arrays.items():
        kind = kind_of(name, leaf)
        if kind not in _KNOWN:
            what = f"'{name}' is no array that a .npz file could hold, but {kind}."
            raise fault(what, kind="bad_dtype", fix=f"save it in another format, or convert it; {ADVICE}")
        if "\0" in name or not is_text(name) or len(name.encode()) > _MOST_NAME:
            what = f"An array can't be saved by the name {name!r:.80}."
            raise fault(
                what, kind="bad_key", fix="rename it: names in a .npz file are text without zeros, not too long"
            )

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, leaf in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    npy.write_array(member, bytes_of(leaf)[0], allow_pickle=False)

    replace_file(target, write)
