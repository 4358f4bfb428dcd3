"""Checkpoint files made by hand, in every form that TensorFlow writes them and in forms that it never does.

Written from the format's description, apart from the package's own writer: so that the two do not share a mistake.
"""

from __future__ import annotations

import struct

import cramjam
import google_crc32c
import numpy as np


def masked(data):
    checksum = google_crc32c.value(bytes(data))
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number):
    number &= (1 << 64) - 1
    out = []
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def num(field, value):
    return varint(field << 3) + varint(value)


def msg(field, *parts):
    data = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(data)) + data


def block(entries, restart=16):
    """Entries of a block, and its restarts."""
    out, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % restart == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return out + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def table(entries, per_block=1000, snappy=False, spoil=lambda contents: contents):
    """A whole table file. `entries`: list of (key, value), as they are to stand in it.

    `spoil` changes the contents of blocks before they get their checksum; `snappy` may be another compressor.
    """
    file, handles = b"", []

    def add(contents):
        nonlocal file
        contents = spoil(contents)
        kind = b"\1" if snappy else b"\0"
        if snappy:
            contents = bytes((cramjam.snappy.compress_raw if snappy is True else snappy)(contents))
        handle = varint(len(file)) + varint(len(contents))
        file += contents + kind + struct.pack("<I", masked(contents + kind))
        return handle

    for i in range(0, len(entries), per_block):
        part = entries[i : i + per_block]
        handles.append((part[-1][0], add(block(part))))
    footer = add(block([])) + add(block(handles, 1))
    return file + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def shape(dims):
    return b"".join(msg(2, num(1, size) if size else b"") for size in dims)


def extents(part):
    """A TensorSliceProto. `part`: (start, length) of each dimension, None for all of it."""
    return b"".join(msg(1, b"" if e is None else (num(1, e[0]) if e[0] else b"") + num(2, e[1])) for e in part)


def part_key(name, part):
    """Only for numbers below 64 and for 64 to 8191, which take two bytes."""

    def code(number):
        return bytes([number ^ 0x80 & 0xFF]) if number < 64 else struct.pack(">H", number | 0xC000)

    out = b"\0" + name.encode() + b"\0\1" + b"\1" + bytes([len(part)]) if part else b"\0" + name.encode() + b"\0\1\0"
    for e in part:
        out += b"\x80\x7f" if e is None else code(e[0]) + code(e[1])
    return out


def header(shards, endianness=0, min_consumer=0):
    version = num(1, 1) + (num(2, min_consumer) if min_consumer else b"")
    return num(1, shards) + (num(2, endianness) if endianness else b"") + msg(3, version)


def entry(dtype, dims, shard=0, offset=0, data=b"", parts=()):
    out = num(1, dtype) + msg(2, shape(dims))
    out += (num(3, shard) if shard else b"") + (num(4, offset) if offset else b"")
    if parts:
        return out + b"".join(msg(7, extents(part)) for part in parts)
    return out + num(5, len(data)) + varint(6 << 3 | 5) + struct.pack("<I", masked(data))


def bundle(prefix, arrays, shards=1, partitioned=(), extra=(), numbers=None, **options):
    """Writes a bundle of float32 arrays (or of the dtype numbers given), spread over its shards in turn.

    `partitioned`: list of (name, array, parts). `extra`: further (key, value) of the index.
    """
    numbers = numbers or {}
    data, entries = [b""] * shards, [(b"", header(shards)), *extra]
    turn = 0

    def put(key, array, dtype):
        nonlocal turn
        shard, turn = turn % shards, turn + 1
        raw = array.tobytes()
        entries.append((key, entry(dtype, array.shape, shard, len(data[shard]), raw)))
        data[shard] += raw

    for name, array in arrays.items():
        put(name.encode(), array, numbers.get(name, 1))
    for name, array, parts in partitioned:
        entries.append((name.encode(), entry(1, array.shape, parts=parts)))
        for part in parts:
            where = tuple(slice(None) if e is None else slice(e[0], e[0] + e[1]) for e in part)
            put(part_key(name, part), np.ascontiguousarray(array[where]), 1)
    for shard, raw in enumerate(data):
        with open(f"{prefix}.data-{shard:05d}-of-{shards:05d}", "wb") as file:
            file.write(raw)
    with open(f"{prefix}.index", "wb") as file:
        file.write(table(sorted(dict(entries).items()), **options))


def v1_values(array, number):
    """The typed field of a TensorProto, packed."""
    if number in (1, 2, 8, 18):
        return msg({1: 5, 2: 6, 8: 9, 18: 12}[number], array.tobytes())
    if number in (14, 19):
        return msg(13, *(varint(int(bits)) for bits in array.reshape(-1).view(np.uint16)))
    field = {3: 7, 4: 7, 5: 7, 6: 7, 17: 7, 9: 10, 10: 11, 22: 16, 23: 17}[number]
    return msg(field, *(varint(int(value)) for value in array.reshape(-1)))


def v1_file(path, variables, **options):
    """Writes a file of the first version. `variables`: list of (name, array, dtype number, parts)."""
    metas, entries = b"", []
    for name, array, number, parts in variables:
        about = msg(1, name.encode()) + msg(2, shape(array.shape)) + num(3, number)
        metas += msg(1, about, *(msg(4, extents(part)) for part in parts))
        for part in parts:
            where = tuple(slice(None) if e is None else slice(e[0], e[0] + e[1]) for e in part)
            values = np.ascontiguousarray(array[where]).reshape(array[where].shape)
            tensor = num(1, number) + msg(2, shape(values.shape)) + v1_values(values, number)
            value = msg(2, msg(1, name.encode()) + msg(2, extents(part)) + msg(3, tensor))
            entries.append((part_key(name, part), value))
    with open(path, "wb") as file:
        file.write(table([(b"", msg(1, metas)), *sorted(entries)], **options))
