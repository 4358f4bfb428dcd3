"""The random keys of `next_key` in one run. Floor 2."""

from __future__ import annotations

from typing import Any

import jax

from .._callsite import user_line
from .._errors import BadTypeError, MissingRngError
from .._initial_values import call_key
from .._show import short
from .bodies import Body


class CallKeys:
    """The keys of `next_key` in one run.

    Args:
      root: the key they all come from, or None.

    Attributes:
      asked: whether the program has asked for one.
    """

    __slots__ = ("_counts", "_root", "asked")

    def __init__(self, root: jax.Array | None) -> None:
        self.asked = False
        self._root = root
        self._counts: dict[tuple[str, str], int] = {}

    def next(self, scope: str, name: Any, body: Body | None) -> jax.Array:
        """The next key of this scope under `name`.

        Raises:
          MissingRngError: without a root.
          BadTypeError: for a name that is no string.
        """
        if not isinstance(name, str):
            raise BadTypeError(
                f"next_key takes the name of a stream, a string, not {short(name)}.",
                kind="bad_name_type",
                scope=scope,
                where=user_line(),
                fix="leave it out or give a string; the key that all keys come from goes to the call: rng=key",
            )
        self.asked = True
        if self._root is None:
            raise MissingRngError(
                "next_key is called, but this call was given no rng.",
                kind="no_rng",
                asked=f"next_key({short(name)})",
                scope=scope,
                where=user_line(),
                fix="pass one: net.apply(params, ..., rng=jax.random.key(0))",
            )
        stream = scope, name

        def count() -> int:
            self._counts[stream] = number = self._counts.get(stream, -1) + 1
            return number

        number = count() if body is None else body.take(("key", *stream), count)
        return call_key(self._root, scope, name, number)
