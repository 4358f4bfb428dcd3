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


class _Tag:
    """Put on a Python frame to know it again: a frame itself would keep what its variables hold alive."""

    __slots__ = ()

    @classmethod
    def of(cls, frame: FrameType) -> _Tag | None:
        """The frame's tag; None if a debugger has taken its place."""
        if frame.f_trace is None:
            frame.f_trace = cls()
        return frame.f_trace if isinstance(frame.f_trace, cls) else None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> _Tag:
        """Frames have one attribute to set, their trace function; a debugger may call it."""
        return self


class LoopPasses:
    """The loops of one run that are being traced.

    Args:
      store: the run's store.
    """

    __slots__ = ("_passes", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store
        # (the loop, code of its body) -> (its body as it runs, the state before it ran)
        self._passes: dict[tuple[_Tag, CodeType], tuple[_Tag, Any]] = {}

    def see(self, loops: tuple[tuple[FrameType, FrameType], ...]) -> None:
        """Takes note of the loops around the first call in a new trace, each with the frame of its body.

        Raises:
          TransformError: if a body runs again, and what it did the first time can't be taken back.
        """
        passes = {}
        for loop, body in reversed(loops):  # the outermost first: it takes back most
            known, this = _Tag.of(loop), _Tag.of(body)
            if known is None or this is None:
                continue
            kind = known, body.f_code
            first, before = self._passes.get(kind, (this, None))
            if before is None:
                before = self._state()
            elif first is not this:
                self._take_back(before)
            passes[kind] = (this, before)
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
