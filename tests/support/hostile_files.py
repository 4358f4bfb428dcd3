"""Families of files that are made to take memory or time: each member of about the size that is asked for."""

from __future__ import annotations

import io
import itertools
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tf_writer

EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
FAMILIES: dict[str, Callable[[Path, int], Path]] = {}


def family(make: Callable[[Path, int], Path]) -> Callable[[Path, int], Path]:
    """Of a directory and a size in bytes; gives the path that is to be opened."""
    FAMILIES[make.__name__] = make
    return make


# Safetensors ----------------------------------------------------------------------------------------------------------


def safetensors(directory: Path, header: bytes | dict) -> Path:
    text = (
        header if isinstance(header, bytes) else json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    )
    path = directory / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


def named(directory: Path, names: list[str]) -> Path:
    return safetensors(directory, dict.fromkeys(names, EMPTY))


@family
def safetensors_one_long_name(directory: Path, size: int) -> Path:
    return named(directory, ["n" * size])


@family
def safetensors_one_long_name_among_many(directory: Path, size: int) -> Path:
    return named(directory, ["n" * (size // 2), *(f"v{i}" for i in range(size // 130))])


@family
def safetensors_many_names(directory: Path, size: int) -> Path:
    return named(directory, [f"{i:x}" for i in range(size // 60)])


@family
def safetensors_near_names(directory: Path, size: int) -> Path:
    return named(directory, [f"scope/layer_{i}/kernel" for i in range(size // 78)])


@family
def safetensors_near_names_of_two_letters(directory: Path, size: int) -> Path:
    """Of which difflib compares all pairs of letters."""
    return named(directory, [f"{i:0>180b}" for i in range(size // 235)])


@family
def safetensors_one_deep_name(directory: Path, size: int) -> Path:
    return named(directory, ["a/" * (size // 2) + "a"])


@family
def safetensors_many_deep_names(directory: Path, size: int) -> Path:
    return named(directory, ["/".join(f"{i:06x}") * 20 for i in range(size // 290)])


@family
def safetensors_letters_of_four_bytes(directory: Path, size: int) -> Path:
    """One of them makes all others of that name four times as large in Python."""
    return named(directory, ["\N{SNAKE}" + "n" * 300 + str(i) for i in range(size // 370)])


@family
def safetensors_names_of_escapes(directory: Path, size: int) -> Path:
    return safetensors(directory, b'{"%s":%s}' % (b"\\u001b" * (size // 6), json.dumps(EMPTY).encode()))


@family
def safetensors_names_of_backslashes(directory: Path, size: int) -> Path:
    return safetensors(directory, b'{"%s' % (b"\\\\" * (size // 2)))


@family
def safetensors_many_metadata(directory: Path, size: int) -> Path:
    return safetensors(directory, {"__metadata__": {f"{i:x}": "" for i in range(size // 9)}})


@family
def safetensors_metadata_of_newlines(directory: Path, size: int) -> Path:
    return safetensors(directory, {"__metadata__": {"a": "\n\x1b\u202e" * (size // 7)}})


@family
def safetensors_long_shape(directory: Path, size: int) -> Path:
    return safetensors(directory, {"a": {**EMPTY, "shape": [0] * (size // 2)}})


@family
def safetensors_lists_in_lists(directory: Path, size: int) -> Path:
    return safetensors(directory, b'{"a":' + b"[" * size)


@family
def safetensors_empty_lists(directory: Path, size: int) -> Path:
    return safetensors(directory, b'{"a":[' + b"[]," * (size // 3) + b"[]]}")


@family
def safetensors_claimed_checksums(directory: Path, size: int) -> Path:
    return safetensors(
        directory, {"__metadata__": {"jscope.header": "0" * (size // 2), "jscope.crc32c": "0 " * (size // 4)}}
    )


@family
def safetensors_spaces(directory: Path, size: int) -> Path:
    return safetensors(directory, b"{" + b" " * size)


@family
def folder_many_names(directory: Path, size: int) -> Path:
    """An index that speaks of several files, of which one is there."""
    named(directory, ["a"])
    where = {f"{i:x}": "m.safetensors" if i % 2 else "../m.safetensors" for i in range(size // 25)}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return directory / "model.safetensors.index.json"


@family
def folder_many_files(directory: Path, size: int) -> Path:
    where = {f"{i:x}": f"{i:x}.safetensors" for i in range(size // 32)}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return directory / "model.safetensors.index.json"


@family
def folder_empty_lists(directory: Path, size: int) -> Path:
    (directory / "model.safetensors.index.json").write_text('{"a":[' + "[]," * (size // 3) + "[]]}")
    return directory / "model.safetensors.index.json"


@family
def folder_lists_in_lists(directory: Path, size: int) -> Path:
    (directory / "model.safetensors.index.json").write_text('{"weight_map":' + "[" * size)
    return directory / "model.safetensors.index.json"


# TensorFlow, second version -------------------------------------------------------------------------------------------


def index(directory: Path, blocks: list[bytes], last: list[bytes], snappy: bool = False) -> Path:
    """An index of these blocks, which need not be sound, each with a key that is not below its own."""
    file, handles = b"", []

    def add(contents: bytes) -> bytes:
        nonlocal file
        kind = b"\1" if snappy else b"\0"
        contents = bytes(tf_writer.cramjam.snappy.compress_raw(contents)) if snappy else contents
        handle = tf_writer.varint(len(file)) + tf_writer.varint(len(contents))
        file += contents + kind + struct.pack("<I", tf_writer.masked(contents + kind))
        return handle

    handles = [(key, add(contents)) for key, contents in zip(last, blocks, strict=True)]
    footer = add(tf_writer.block([])) + add(tf_writer.block(handles, 1))
    (directory / "m.index").write_bytes(file + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57))
    (directory / "m.data-00000-of-00001").write_bytes(b"")
    return directory / "m"


def block(entries: Iterable[tuple[bytes, bytes]], restart: int = 10**9) -> bytes:
    """As `tf_writer.block`, in a time that grows with the bytes of the keys."""
    pieces, last = [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % restart:
            most = min(len(last), len(key))
            while shared < most:  # what is left is halved
                middle = (shared + most + 1) // 2
                shared, most = (middle, most) if last[shared:middle] == key[shared:middle] else (shared, middle - 1)
        pieces.append(tf_writer.varint(shared) + tf_writer.varint(len(key) - shared) + tf_writer.varint(len(value)))
        pieces.append(key[shared:] + value)
        last = key
    return b"".join(pieces) + struct.pack("<2I", 0, 1)


NOTHING = tf_writer.num(1, 1) + tf_writer.msg(2, tf_writer.msg(2))  # a float32 of shape (0,)
HEAD = (b"", tf_writer.header(1))


def digits(i: int) -> bytes:
    return b"%08x" % i


@family
def index_one_long_name(directory: Path, size: int) -> Path:
    return index(directory, [block([HEAD, (b"n" * size, NOTHING)])], [b"z"])


@family
def index_many_names(directory: Path, size: int) -> Path:
    return index(directory, [block([HEAD, *((digits(i), NOTHING) for i in range(size // 11))])], [b"z"])


@family
def index_names_of_one_beginning(directory: Path, size: int) -> Path:
    """Few bytes of the file make a name of ten thousand."""
    beginning = b"n" * 10_000
    entries = [HEAD, *((beginning + digits(i), NOTHING) for i in range(size // 12))]
    return index(directory, [block(entries)], [b"z"])


@family
def index_compressed_names_of_one_beginning(directory: Path, size: int) -> Path:
    beginning = b"n" * 2_000
    blocks, last = [block([HEAD])], [b"a"]
    for i in range(size // 300):
        blocks.append(block([(beginning + digits(16 * i + j), NOTHING) for j in range(16)], 16))
        last.append(beginning + digits(16 * i + 15))
    return index(directory, blocks, last, snappy=True)


@family
def index_of_compressed_runs(directory: Path, size: int) -> Path:
    """A block of zeros, twenty times as long as it is stored."""
    return index(directory, [block([HEAD, (b"n", b"\0" * (20 * size))])], [b"z"], snappy=True)


@family
def index_many_blocks(directory: Path, size: int) -> Path:
    keys = [digits(i) for i in range(size // 40)]
    return index(directory, [block([HEAD]), *(block([(key, NOTHING)]) for key in keys)], [b"", *keys])


@family
def index_many_parts(directory: Path, size: int) -> Path:
    """One variable that speaks of as many parts as fit, none of which is there."""
    parts = tf_writer.msg(7, tf_writer.msg(1)) * (size // 4)
    return index(directory, [block([HEAD, (b"n", tf_writer.num(1, 1) + parts)])], [b"z"])


@family
def index_parts_of_a_long_name(directory: Path, size: int) -> Path:
    count = size // 60
    parts = [[(i, 1)] for i in range(count)]
    name = b"n" * (size // 4)
    whole = tf_writer.num(1, 1) + tf_writer.msg(2, tf_writer.shape([count]))
    whole += b"".join(tf_writer.msg(7, tf_writer.extents(part)) for part in parts)
    keys = (b"\0" + name + b"\0\1\1\1" + _signed(i) + b"\x81" for i in range(count))  # together far larger
    part = tf_writer.num(1, 1) + tf_writer.msg(2, tf_writer.shape([1]))
    return index(directory, [block(itertools.chain([HEAD], ((key, part) for key in keys), [(name, whole)]))], [b"z"])


def _signed(number: int) -> bytes:
    if number < 64:
        return bytes([number ^ 0x80])
    return struct.pack(">H", number | 0xC000) if number < 8192 else (number | 0xE00000).to_bytes(3, "big")


@family
def index_many_dimensions(directory: Path, size: int) -> Path:
    shape = tf_writer.msg(2) * (size // 2)
    return index(directory, [block([HEAD, (b"n", tf_writer.num(1, 1) + tf_writer.msg(2, shape))])], [b"z"])


@family
def index_unknown_dtypes(directory: Path, size: int) -> Path:
    entries = [HEAD, *((digits(i), tf_writer.num(1, 1000 + i)) for i in range(size // 9))]
    return index(directory, [block(entries)], [b"z"])


@family
def state_of_newlines(directory: Path, size: int) -> Path:
    (directory / "checkpoint").write_bytes(b"\n" * size)
    return directory


@family
def state_of_beginnings(directory: Path, size: int) -> Path:
    (directory / "checkpoint").write_bytes(b'model_checkpoint_path: "\\a\n' * (size // 27))
    return directory


@family
def state_of_one_long_name(directory: Path, size: int) -> Path:
    (directory / "checkpoint").write_bytes(b'model_checkpoint_path: "' + b"\\x" * (size // 2) + b'"')
    return directory


# TensorFlow, first version --------------------------------------------------------------------------------------------


def one_file(directory: Path, metas: bytes, entries: list[tuple[bytes, bytes]] = [], snappy: bool = False) -> Path:  # noqa: B006
    made = index(directory, [block([(b"", tf_writer.msg(1, metas)), *entries])], [b"z"], snappy)
    made.with_name("m.index").rename(made)
    return made


def meta(name: bytes, dims: list[int], dtype: int, parts: list[list[tuple[int, int] | None]]) -> bytes:
    about = tf_writer.msg(1, name) + tf_writer.msg(2, tf_writer.shape(dims)) + tf_writer.num(3, dtype)
    return tf_writer.msg(1, about, *(tf_writer.msg(4, tf_writer.extents(part)) for part in parts))


def values(name: bytes, part: list[tuple[int, int] | None], tensor: bytes) -> bytes:
    return tf_writer.msg(2, tf_writer.msg(1, name), tf_writer.msg(2, tf_writer.extents(part)), tf_writer.msg(3, tensor))


def one_array(directory: Path, count: int, dtype: int, tensor: bytes, snappy: bool = False) -> Path:
    key = b"\0w\0\1\1\1\x80\x7f"
    return one_file(directory, meta(b"w", [count], dtype, [[None]]), [(key, values(b"w", [None], tensor))], snappy)


@family
def one_file_many_names(directory: Path, size: int) -> Path:
    names = (b"%x" % i for i in range(size // 18))
    return one_file(directory, b"".join(meta(name, [0], 1, [[None]]) for name in names))


@family
def one_file_parts_of_a_long_name(directory: Path, size: int) -> Path:
    count, name = size // 50, b"n" * (size // 4)
    parts: list[list[tuple[int, int] | None]] = [[(i, 1)] for i in range(count)]
    return one_file(directory, meta(name, [count], 1, parts))


@family
def one_file_values_of_a_long_name(directory: Path, size: int) -> Path:
    """And its parts are there, each with the name in it by which it is checked."""
    name, count = b"n" * 200, size // 500
    parts: list[list[tuple[int, int] | None]] = [[(i, 1)] for i in range(count)]
    entries = []
    for i, part in enumerate(parts):
        entries.append(
            (b"\0" + name + b"\0\1\1\1" + _signed(i) + b"\x81", values(name, part, tf_writer.msg(5, b"1234")))
        )
    return one_file(directory, meta(name, [count], 1, parts), entries)


@family
def one_file_of_varints(directory: Path, size: int) -> Path:
    """A byte of the file is an integer of eight."""
    return one_array(directory, size, 9, tf_writer.msg(10, b"\1" * size))


@family
def one_file_of_single_numbers(directory: Path, size: int) -> Path:
    return one_array(directory, size // 5, 1, (tf_writer.varint(5 << 3 | 5) + b"1234") * (size // 5))


@family
def one_file_of_compressed_runs(directory: Path, size: int) -> Path:
    return one_array(directory, 20 * size, 4, tf_writer.msg(4, b"\0" * (20 * size)), snappy=True)


@family
def one_file_of_claims(directory: Path, size: int) -> Path:
    return one_array(directory, 1 << 40, 4, tf_writer.msg(4, b"\0" * size))


# Zip files ------------------------------------------------------------------------------------------------------------


def npy(shape: tuple[int, ...], data: bytes, dtype: str = "|u1") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue() + data


def packed(
    directory: Path, stored: bytes, claimed: bytes, method: int, name: bytes = b"x.npy", extra: bytes = b""
) -> Path:
    """A zip file of one file, whose directory claims that it has these bytes."""
    path = directory / "m.npz"
    path.write_bytes(zip_file([(name, stored, len(claimed), zlib.crc32(claimed), method)], extra))
    return path


def zip_file(members: list[tuple[bytes, bytes, int, int, int]], extra: bytes = b"") -> bytes:
    files, directory, place = [], [], 0
    for name, stored, size, checksum, method in members:
        about = struct.pack("<5H3I2H", 20, 0, method, 0, 0, checksum, len(stored), size, len(name), 0)
        files.append(b"PK\3\4" + about + name + stored)
        head = struct.pack("<H", 20) + about[:-2] + struct.pack("<4H2I", len(extra), 0, 0, 0, 0, place)
        directory.append(b"PK\1\2" + head + name + extra)
        place += len(files[-1])
    count, length = min(len(members), 0xFFFF), sum(map(len, directory))
    return b"".join([*files, *directory, struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, length, place, 0)])


def deflated(data: bytes) -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    return pack.compress(data) + pack.flush()


@family
def npz_run_behind_a_small_claim(directory: Path, size: int) -> Path:
    small = npy((4,), b"1234")
    return packed(directory, deflated(small + b"\0" * (1000 * size)), small, zipfile.ZIP_DEFLATED)


@family
def npz_claim_behind_a_small_run(directory: Path, size: int) -> Path:
    """The directory and the array speak of a thousand times the file, which holds random bytes."""
    noise = np.random.default_rng(0).bytes(size)
    path = directory / "m.npz"
    stored = deflated(npy((1000 * size,), noise))
    header = len(npy((1000 * size,), b""))
    path.write_bytes(zip_file([(b"x.npy", stored, header + 1000 * size, 0, zipfile.ZIP_DEFLATED)]))
    return path


@family
def npz_description_of_zeros(directory: Path, size: int) -> Path:
    """Version 2 of the format counts the bytes of its description with four."""
    body = b"\x93NUMPY\2\0" + struct.pack("<I", 1000 * size) + b" " * (1000 * size)
    return packed(directory, deflated(body), body, zipfile.ZIP_DEFLATED)


@family
def npz_of_another_method(directory: Path, size: int) -> Path:
    small = npy((4,), b"1234")
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16}]
    data = lzma.compress(small + b"\0" * (100 * size), lzma.FORMAT_RAW, filters=filters)
    head = b"\x09\x04\x05\x00" + b"\x5d" + struct.pack("<I", 1 << 16)
    return packed(directory, (head + data).ljust(size, b"\0"), small, zipfile.ZIP_LZMA)


@family
def npz_many_files(directory: Path, size: int) -> Path:
    data = npy((0,), b"")
    members = [(b"%x.npy" % i, data, len(data), zlib.crc32(data), 0) for i in range(size // 230)]
    (directory / "m.npz").write_bytes(zip_file(members))
    return directory / "m.npz"


@family
def npz_many_names_of_nothing(directory: Path, size: int) -> Path:
    (directory / "m.npz").write_bytes(zip_file([(b"%x" % i, b"", 0, 0, 0) for i in range(size // 90)]))
    return directory / "m.npz"


@family
def npz_of_a_directory_alone(directory: Path, size: int) -> Path:
    """Its entries all speak of one place."""
    data = zip_file([(b"x", b"", 0, 0, 0)] * (size // 47))
    start = data.index(b"PK\1\2")
    file = data[:31] + data[start:-22]
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(data) - 22 - start, 31, 0)
    (directory / "m.npz").write_bytes(file + end)
    return directory / "m.npz"


@family
def npz_long_extra_fields(directory: Path, size: int) -> Path:
    small = npy((4,), b"1234")
    extra = b"\1\0\0\0" * (min(size, 65_000) // 4)
    members = [(b"%x.npy" % i, small, len(small), zlib.crc32(small), 0) for i in range(max(1, size // 65_000))]
    (directory / "m.npz").write_bytes(zip_file(members, extra))
    return directory / "m.npz"


@family
def npz_deep_description(directory: Path, size: int) -> Path:
    text = b"{'descr': " + b"-" * min(size, 9_000) + b"1}\n"
    body = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text
    return packed(directory, body, body, zipfile.ZIP_STORED)


@family
def npz_zeros(directory: Path, size: int) -> Path:
    """Sound, and what numpy itself writes: the array is a thousand times as large as the file."""
    np.savez_compressed(directory / "m.npz", a=np.zeros(1000 * size, np.uint8))
    return directory / "m.npz"
