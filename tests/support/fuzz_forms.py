"""Changes to a file that keep its form: what is changed lies deep in it, and lengths and checksums fit again.

Bytes that are changed at random are mostly refused at the first length that does not fit, so that what lies behind it
is never read. Each function takes a file, a generator, and what changes some bytes of it.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import warnings
import zipfile
from collections.abc import Callable

import cramjam
import google_crc32c
import numpy as np
import tf_writer
from spoil import VALUES, mutated

Change = Callable[[bytes], bytes]
Form = Callable[[bytes, np.random.Generator, Change], bytes]
Entries = list[tuple[bytes, bytes]]

_NUMBERS = [0, 1, 2, 3, 7, 9, 10, 14, 31, 33, 127, 1 << 31, 1 << 40, 1 << 58, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
_MOST_DATA = 4000  # bytes of an array
_HEADER_SUM = re.compile(rb'"jscope\.header":"([0-9a-f]{8})"')
_INDEX_NAMES = [
    *VALUES,
    "../m.safetensors",
    "/etc/passwd",
    "a/../b",
    "\0",
    "",
    ".",
    "m.safetensors",
    "\ud800",
    "n" * 300,
]


def raw(data: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """Any byte."""
    return change(data)


def or_raw(inner: Form, share: float = 0.25) -> Form:
    """That form; any byte for a share of the files, and where a file is none of that form any more."""

    def form(data: bytes, rng: np.random.Generator, change: Change) -> bytes:
        if rng.random() >= share:
            try:
                return inner(data, rng, change)
            except Exception:  # as many kinds as there are forms
                pass
        return change(data)

    return form


def varied(items: list, rng: np.random.Generator, change: Callable[[int], None]) -> None:
    """One item of a list is left out, doubled, or changed; seldom is it put in another place."""
    place, kind = int(rng.integers(len(items))), rng.random()
    if kind < 0.06:
        del items[place]
    elif kind < 0.12:
        items.insert(place, items[place])
    elif kind < 0.18:
        items.insert(int(rng.integers(len(items))), items.pop(place))
    else:
        change(place)


# JSON and safetensors -------------------------------------------------------------------------------------------------


@or_raw
def json_text(data: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """A value in it is another."""
    text = json.dumps(mutated(rng, json.loads(data), _INDEX_NAMES, 0.03), ensure_ascii=bool(rng.integers(2)))
    return text.encode()


@or_raw
def safetensors(data: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """The header, whose length fits again; mostly what it says of each array, too."""
    end = 8 + int.from_bytes(data[:8], "little")
    header, rest = data[8:end], data[end:]
    if rng.random() < 0.1:
        rest = change(rest)
    else:
        header = json_text(header, rng, change)
        if rng.random() < 0.7:
            header, rest = laid_out(header, rest)
    return len(header).to_bytes(8, "little") + header + rest


def laid_out(header: bytes, rest: bytes) -> tuple[bytes, bytes]:
    """A header whose arrays lie one behind the other, and data of that length."""
    spans, reached = json.loads(header), 0
    for name, span in spans.items():
        if name == "__metadata__" or not isinstance(span, dict):
            continue
        kind, shape = str(span.get("dtype")), span.get("shape")
        numbers = [n for n in shape if type(n) is int] if isinstance(shape, list) else []
        bits = re.search(r"\d+", kind.partition("_")[0])
        size = math.prod(numbers) * int(bits[0] if bits else 8) // 8
        if 0 <= size <= _MOST_DATA:
            span["data_offsets"] = [reached, reached + size]
            reached += size
    own = spans.get("__metadata__")
    if isinstance(own, dict) and "jscope.crc32c" in own:
        own["jscope.crc32c"] = " ".join(["00000000"] * (len(spans) - 1))
    text = json.dumps(spans, ensure_ascii=False, separators=(",", ":")).encode()
    return text, rest[:reached].ljust(reached, b"\1")


def with_header_sum(data: bytes) -> bytes:
    """A file of safetensors whose header has the checksum that it claims, as whoever makes a file can see to."""
    end = 8 + int.from_bytes(data[:8], "little")
    found = _HEADER_SUM.search(data[:end], 8)
    if found is None:
        return data
    start, stop = found.span(1)
    checksum = google_crc32c.value(data[8:start] + b"0" * 8 + data[stop:end])
    return data[:start] + b"%08x" % checksum + data[stop:]


# TensorFlow -----------------------------------------------------------------------------------------------------------


def varint(data: bytes, place: int) -> tuple[int, int]:
    """(the number, the place behind it)."""
    value = shift = 0
    while True:
        byte = data[place]
        value, shift, place = value | (byte & 0x7F) << shift, shift + 7, place + 1
        if byte < 0x80:
            return value, place


def table_entries(data: bytes) -> Entries:
    """All entries of a table."""

    def entries(handle: bytes, place: int) -> Entries:
        offset, place = varint(handle, place)
        size, place = varint(handle, place)
        body = data[offset : offset + size]
        if data[offset + size] == 1:
            body = bytes(cramjam.snappy.decompress_raw(body))
        end = len(body) - 4 * (1 + int.from_bytes(body[-4:], "little"))
        found, key, place = [], b"", 0
        while place < end:
            shared, place = varint(body, place)
            unshared, place = varint(body, place)
            length, place = varint(body, place)
            key = key[:shared] + body[place : place + unshared]
            place += unshared
            found.append((key, body[place : place + length]))
            place += length
        return found

    footer = data[-48:]
    place = varint(footer, varint(footer, 0)[1])[1]
    return [entry for _, handle in entries(footer, place) for entry in entries(handle, 0)]


@or_raw
def table(data: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """An entry, in blocks whose lengths and checksums fit again."""
    entries = table_entries(data)

    def changed(place: int) -> None:
        key, value = entries[place]
        if rng.random() < 0.2:
            key = change(key)
        elif rng.random() < 0.05:
            value = entries[rng.integers(len(entries))][1]
        else:
            value = message(value, rng, change)
        entries[place] = key, value

    varied(entries, rng, changed)
    if rng.random() < 0.8:
        entries.sort()
    return tf_writer.table(entries, per_block=int(rng.choice([1, 2, 1000])), snappy=rng.random() < 0.2)


def message(data: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """A field of a protocol buffer, or one of those inside it: the lengths around it fit again."""
    fields = []
    place = 0
    try:
        while place < len(data):
            tag, place = varint(data, place)
            if tag & 7 == 0:
                value, place = varint(data, place)
            else:
                size, place = varint(data, place) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], place)
                value, place = data[place : place + size], place + size
            fields.append((tag, value))
    except (IndexError, KeyError):
        fields = []
    if not fields or place != len(data) or rng.random() < 0.1:
        return change(data)

    def changed(number: int) -> None:
        tag, value = fields[number]
        if rng.random() < 0.05:
            tag = int(rng.integers(1, 20)) << 3 | tag & 7
        elif isinstance(value, int):
            value = int(rng.choice(np.array(_NUMBERS, object))) if rng.integers(2) else value + int(rng.integers(-2, 3))
        elif tag & 7 == 2:
            value = message(value, rng, change)
        else:
            value = change(value)[: len(value)].ljust(len(value), b"\0")
        fields[number] = tag, value

    varied(fields, rng, changed)
    return b"".join(
        tf_writer.varint(tag)
        + (tf_writer.varint(value) if isinstance(value, int) else tf_writer.varint(len(value)) * (tag & 7 == 2) + value)
        for tag, value in fields
    )


# Zip ------------------------------------------------------------------------------------------------------------------


@or_raw
def npy(data: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """What describes the array, with the length that counts it."""
    start = 10 if data[6] == 1 else 12
    size = int.from_bytes(data[8:start], "little")
    text, rest = data[start : start + size], data[start + size :]
    if rng.integers(2):
        about = ast.literal_eval(text.decode("latin-1"))
        wanted = ["<f4", "|b1", "<V2", "|V1", "|O", ">i8", "<U3", [("a", "<f4")], "<M8[s]", (-1,), (1 << 60,), (), True]
        about[rng.choice(list(about))] = wanted[rng.integers(len(wanted))]
        text = repr(about).encode() + b"\n"
    else:
        text = change(text)
    return data[:8] + len(text).to_bytes(start - 8, "little") + text + rest


@or_raw
def npz(data: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """A file in it, whose length and checksum fit again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]

    def changed(place: int) -> None:
        name, inner, method = members[place]
        if rng.random() < 0.2:
            name = change(name.encode()).decode("utf-8", "replace")
        elif rng.random() < 0.1:
            method = zipfile.ZIP_STORED + zipfile.ZIP_DEFLATED - method
        else:
            inner = npy(inner, rng, change)
        members[place] = name, inner, method

    varied(members, rng, changed)
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, inner, method in members:
            archive.writestr(zipfile.ZipInfo(name), inner, method)
    return out.getvalue()


def any_file(data: bytes, rng: np.random.Generator, change: Change) -> bytes:
    """By what it begins with, or ends in."""
    form = npz if data[:2] == b"PK" else safetensors if data[8:9] == b"{" else table
    return form(data, rng, change)
