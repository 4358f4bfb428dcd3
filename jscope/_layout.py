"""`Layout`: the names of a tree of parameters, without its arrays. Floor 1."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, ClassVar

from jax.tree_util import DictKey

from ._show import some

# JAX's errors compare the texts of two layouts character by character: they must stay short.
_SHOWN = 20
_COMPARED = 300  # characters of a name in which scopes are looked for


class Layout:
    """The names of a `Params`: sorted, without arrays, one object per set of names.

    Being interned, two trees with the same names share one layout, and JAX compares their structure by identity. Names
    that share a prefix are neighbours in sorted order, so every scope is a slice.
    """

    __slots__ = ("__weakref__", "_children", "_jax_keys", "_scopes", "index", "names")

    _interned: ClassVar[weakref.WeakValueDictionary[tuple[str, ...], Layout]] = weakref.WeakValueDictionary()
    # Reentrant: a garbage collection or a signal inside may run a finalizer that makes a tree.
    _lock = threading.RLock()

    names: tuple[str, ...]
    index: dict[str, int]

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Layout:
        """The one layout of these sorted names."""
        with cls._lock:
            layout = cls._interned.get(names)
            if layout is None:
                layout = object.__new__(cls)
                layout.names = names
                layout.index = {name: i for i, name in enumerate(names)}
                layout._scopes = {}
                layout._children = None
                layout._jax_keys = None
                layout = cls._interned.setdefault(names, layout)
        return layout

    def scope(self, name: str) -> tuple[int, int, Layout | None]:
        """(start, stop, layout of relative names) of scope `name`; the layout is None where there is no such scope."""
        found = self._scopes.get(name)
        if found is None:
            # The character after "/" is "0": everything between is "name/...".
            start, stop = bisect_left(self.names, name + "/"), bisect_left(self.names, name + "0")
            cut = len(name) + 1
            inner = Layout.of(tuple(full[cut:] for full in self.names[start:stop])) if start < stop else None
            found = (start, stop, inner)
            if inner is not None:
                self._scopes[name] = found
        return found

    @property
    def children(self) -> tuple[str, ...]:
        """The first parts of the names, each once, in sorted order of the names."""
        if self._children is None:
            self._children = tuple(dict.fromkeys(name.partition("/")[0] for name in self.names))
        return self._children

    def places(self) -> Iterator[str]:
        """The names of variables and of all scopes around them, as far as they are short enough to be compared."""
        before: list[str] = []
        for name in self.names:
            scopes = list(itertools.accumulate(name[:_COMPARED].split("/")[:-1], "{}/{}".format))
            # In sorted order what lies in one scope stands together.
            yield from (scope for scope in scopes if scope not in before)
            yield name
            before = scopes

    @property
    def jax_keys(self) -> tuple[Any, ...]:
        """The names as JAX has them in the paths of leaves."""
        if self._jax_keys is None:
            self._jax_keys = tuple(map(DictKey, self.names))
        return self._jax_keys

    def __reduce__(self) -> tuple[Any, ...]:
        return Layout.of, (self.names,)

    def __copy__(self) -> Layout:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Layout:
        return self

    def __repr__(self) -> str:
        # What JAX's errors show where two structures differ. The checksum tells long lists with one beginning apart.
        checksum = f", checksum {zlib.crc32(repr(self.names).encode()):08x}" if len(self.names) > _SHOWN else ""
        return f"<{len(self.names)} names: {some(self.names, _SHOWN)}{checksum}>"


def differences(one: Layout, other: Layout, of_one: str, of_other: str) -> list[str]:
    """One line for each name that one of two trees lacks."""
    lines = [f"'{name}' is missing in {of_other}" for name in one.names if name not in other.index]
    return lines + [f"'{name}' of {of_other} is not in {of_one}" for name in other.names if name not in one.index]


def _forget_lock() -> None:
    """In the child of a fork: its copy of the lock may be held by a thread that is not there."""
    Layout._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)
