"""What a file is that is no checkpoint of a kind that is read: by its first bytes, and how to convert it."""

from __future__ import annotations

import re
from typing import Any

from .faults import fault
from .files import File

_START = 600  # bytes that are looked at: the sign of a tar archive stands at byte 257
_TORCH = (
    "with torch: safetensors.torch.save_file(torch.load(path, weights_only=True), 'model.safetensors'), or with "
    "transformers: model.save_pretrained(folder) writes safetensors"
)
_PICKLE = "load it with what wrote it, if you trust it: a pickle runs code. Then jscope.checkpoint.save(path, arrays)"
_HDF = "with h5py: read its datasets into a dict, then jscope.checkpoint.save('model.safetensors', arrays)"
_MSGPACK = "with flax: flax.serialization.msgpack_restore(bytes) gives a tree, jscope.checkpoint.save(path, tree)"
_GGUF = "with transformers: AutoModel.from_pretrained(folder, gguf_file=name).save_pretrained(out)"
_NPY = "with numpy: jscope.checkpoint.save('model.safetensors', {'name': numpy.load(path)})"
_LFS = "download the file itself, with `git lfs pull`: this stands in its place"
_UNPACK = "unpack it first"
_DOWNLOAD = "download the file again, and look at what came: a page says why it did not"

# What a file starts with, what it is then, and how to convert it.
_SIGNS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x93NUMPY", "a .npy file of numpy: one array without a name", _NPY),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (.h5), as Keras writes them", _HDF),
    (b"GGUF", "a GGUF file, of llama.cpp", _GGUF),
    (b"version https://git-lfs", "a pointer of git-lfs, not the file that it points to", _LFS),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch file (.pt, .bin) of before 2020, a pickle", _TORCH),
    (b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ\0", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"%PDF-", "a PDF document", "give the path of a checkpoint"),
    (b"\x7fELF", "a program", "give the path of a checkpoint"),
)
_PAGE = re.compile(rb"\s*<(!doctype html|html|head|\?xml|error)", re.IGNORECASE)
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[\[{][ \t\r\n]*[\"\[{\]}0-9tfn-]")


def told(file: File) -> Exception | None:
    """The error that says what the file is. None if its first bytes tell nothing."""
    start = file.read(0, min(file.size, _START))[0].tobytes()
    found = _kind(start, file.size)
    if found is None:
        return None
    what, fix = found
    return fault(f"{file.path} is {what}, no checkpoint that is read here.", kind="foreign", fix=fix)


def told_of_zip(file: File, names: list[str]) -> Exception | None:
    """The same of a zip file with these names in it. None for what may be a `.npz` file."""
    lasts = {name.rpartition("/")[2] for name in names}
    if "data.pkl" in lasts:
        what, fix = "a PyTorch file (.pt, .bin): a zip file with a pickle in it", _TORCH
    elif "model.weights.h5" in lasts:
        what, fix = "a Keras file (.keras): a zip file with HDF5 in it", "unpack it first; model.weights.h5 is in it"
    elif names and not any(name.endswith(".npy") for name in names):
        what, fix = "a zip archive without any .npy file in it", _UNPACK
    else:
        return None
    return fault(f"{file.path} is {what}, no checkpoint that is read here.", kind="foreign", fix=fix)


def _kind(start: bytes, size: int) -> tuple[str, str] | None:
    """(what it is, how to convert it) by how it starts."""
    if not size:
        return "empty", "download or save it again"
    for sign, what, fix in _SIGNS:
        if start.startswith(sign):
            return what, fix
    if start[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model", "give the checkpoint that it was made from"
    if _PAGE.match(start):
        return "a web page", _DOWNLOAD
    if _JSON.match(start):
        what = "a JSON file, which holds no arrays"
        return what, "give the folder that it lies in, or a file of arrays beside it"
    if start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5" and size > 2:
        return "a Python pickle", _PICKLE
    if start[8:10] in (b'{"', b"{}") and size < 8 + int.from_bytes(start[:8], "little") < 100_000_008:
        return "a safetensors file that is cut off", "download or copy it again"
    if _is_msgpack(start):
        return "a msgpack file, as Flax wrote them", f"{_MSGPACK} writes safetensors"
    if not any(start) and size >= 16:
        return "nothing but zeros at its beginning: a download that was broken off", "download it again"
    return None


def _is_msgpack(start: bytes) -> bool:
    """Whether it starts as a map whose first key is a text."""
    first: Any = start[:1]
    if b"\x80" < first <= b"\x8f":
        place = 1
    elif first in (b"\xde", b"\xdf"):
        place = 3 if first == b"\xde" else 5
    else:
        return False
    head = start[place : place + 1]
    if b"\xa0" < head <= b"\xbf":
        key = start[place + 1 : place + 1 + head[0] - 0xA0]
    elif head == b"\xd9":
        key = start[place + 2 : place + 2 + (start[place + 1 : place + 2] or b"\0")[0]]
    else:
        return False
    return bool(key) and key.isascii() and key.decode("ascii").isprintable()
