"""How much may be kept of a file: memory is to grow with the file, and not faster.

To open a file, to list it, to show it and to fail on it takes at most 32 MB and 8 times the size of the file,
whoever made it. Reading takes what it reads besides: the arrays that are given back. Before memory for an array is
taken, the file is known to hold that array.

Few files come near. An entry of a few bytes may ask for a name that is a hundred times longer, since names are stored
without what they share with the one before, and each thing takes some hundred bytes in Python. So each reader says what
it is about to keep, and stops where that is too much.
"""

from __future__ import annotations

import sys

from .faults import COPY_AGAIN, fault

_FREE = 20_000_000  # bytes
_FACTOR = 7
_THING = 300  # bytes that a name, its place in tables, and an array of nothing take
_ROW = 500  # bytes that an array takes which another was taken apart into, and what an error says of it


def room_for(size: int) -> int:
    """Bytes that may be taken for what is made of arrays of so many. An array of nothing may have any shape."""
    return _FREE + _FACTOR * size


def bytes_of_rows(name: str, count: int) -> int:
    """Bytes that so many arrays take, of names as long as that."""
    return count * (_ROW + sys.getsizeof(name))


class Allowance:
    """What may still be kept of a file.

    Args:
      path: the file.
      size: its length in bytes.
    """

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._left = _FREE + _FACTOR * size

    def take(self, name: str | bytes, size: int = 0) -> None:
        """Says that this name is kept, with so many bytes that belong to it.

        Raises:
          CheckpointError: if it is too much for such a file.
        """
        self._left -= _THING + sys.getsizeof(name) + size
        if self._left < 0:
            what = f"{self._path} is damaged, or made to fill the memory: what it lists is far larger than the file."
            raise fault(what, kind="damaged", fix=COPY_AGAIN)
