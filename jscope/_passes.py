"""Bodies of loops that JAX traces a second time, and what the first time has left behind. Floor 2.

If the carry of a `lax.scan` or `lax.while_loop` changes its type in the body (0.0 becomes a float32, say), JAX forgets
the trace it has just made and traces the body again. The program runs a second time then, and must not see that it ran
before. Most of what it did is harmless to do twice. Random keys are counted back; for what can't be taken back, the
program is refused.
"""

from __future__ import annotations

from types import CodeType, FrameType
from typing import Any

from ._errors import TransformError, user_line
from ._store import Store


class LoopPasses:
    """The loops of one run that are being traced.

    Args:
      store: the run's store.
    """

    __slots__ = ("_passes", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store
        # The frames are kept, so that they are known again for sure; only while their loops run.
        self._passes: dict[tuple[FrameType, CodeType], tuple[FrameType, Any]] = {}

    def see(self, loops: tuple[tuple[FrameType, FrameType], ...]) -> None:
        """Takes note of the loops around the first call in a new trace, each with the frame of its body.

        Raises:
          TransformError: if a body runs again, and what it did the first time can't be taken back.
        """
        passes = {}
        for loop, body in reversed(loops):  # the outermost first: it takes back most
            kind = (loop, body.f_code)
            first, before = self._passes.get(kind, (body, None))
            if before is None:
                before = self._state()
            elif first is not body:
                self._take_back(before)
            passes[kind] = (body, before)
        self._passes = passes

    def _state(self) -> Any:
        """The counts of keys, and of what would be done twice."""
        store = self._store
        return store.keys.counts(), (store.scopes.default_names, store.registry.extras)

    def _take_back(self, before: Any) -> None:
        counts, done = before
        if self._state()[1] != done:
            raise TransformError(
                "JAX traces the body of this loop a second time, since its carry changes type, and forgets the first. "
                "In that one the program took a default name, made a js.variable or added to a collection.",
                kind="traced_twice",
                scope=self._store.scopes.state.name,
                where=user_line(),
                fix="start the loop with a carry of the types that the body returns: jnp.float32(0), say, for 0.0",
            )
        self._store.keys.restore(counts)
