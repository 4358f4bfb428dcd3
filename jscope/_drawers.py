"""What draws initial values, compiled side by side and while the program is still being traced. Floor 1.

XLA takes some 0.2 s for each kind of draw (initializer, shape and dtype), far more than the draws themselves, and needs
no lock of Python's for it. So each kind is compiled in another thread, as soon as it is known that it will be drawn.
What is compiled, and under which of JAX's settings, is decided in the calling thread: where the two would not be the
same, the draw does not find what was compiled, and compiles again.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from ._rng import drawer, name_words
from ._values import is_traced

# XLA keeps more than one processor busy with one compilation. With more threads than this, twelve kinds took a tenth
# less on two idle processors, and a quarter more beside other work.
_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
_THREADS = max(1, _PROCESSORS // 2)

# What some thread has begun to compile. For other settings it is compiled where it is called, as any jitted function.
_begun: weakref.WeakSet[Any] = weakref.WeakSet()


class Drawers:
    """Initial values out of one key. A context manager, so that no thread outlives it.

    Args:
      key: the root key. If it is traced, nothing is compiled here.
      settings: makes a context in which JAX is set as it is for the draws, where kinds are expected in other ones.

    Attributes:
      key: as given.
    """

    __slots__ = ("_compiled", "_drawers", "_may_compile", "_settings", "_threads", "key")

    def __init__(
        self,
        key: jax.Array,
        settings: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        config: Any = jax.config
        self.key = key
        self._settings = settings
        self._may_compile = not is_traced(key) and not config.jax_disable_jit
        self._threads: ThreadPoolExecutor | None = None
        # By the initializer's id, since few have a hash; it is kept alive beside it. Most variables of a program differ
        # in nothing but their names.
        self._drawers: dict[Any, tuple[Any, Callable[..., jax.Array]]] = {}
        self._compiled: dict[Any, Future[Any]] = {}

    def __enter__(self) -> Drawers:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            _begun.difference_update(draw for draw, compiled in self._compiled.items() if compiled.cancelled())

    def expect(self, initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any) -> None:
        """Begins to compile what draws such variables, if nobody has."""
        kind = id(initializer), shape, dtype
        if kind not in self._drawers:
            draw = drawer(initializer, shape, dtype)
            self._drawers[kind] = initializer, draw
            lower = getattr(draw, "lower", None)  # what initializers do that are no known functions is left to draws
            if lower is not None and self._may_compile and draw not in _begun:
                _begun.add(draw)
                self._compile(draw, lower)

    def _compile(self, draw: Callable[..., jax.Array], lower: Callable[..., Any]) -> None:
        try:
            with self._settings():
                lowered = lower(self.key, name_words(""))
        except Exception:  # the draw says it
            return
        self._threads = self._threads or ThreadPoolExecutor(_THREADS, "jscope")
        try:
            self._compiled[draw] = self._threads.submit(lowered.compile)
        except RuntimeError:  # no thread can start: there are too many, or the interpreter is about to end
            self._may_compile = False

    def draw(self, initializer: Callable[..., Any], shape: tuple[int, ...], dtype: Any, name: str) -> jax.Array:
        """The initial value of variable `name`.

        Raises:
          InitializerError, BadInitialValueTypeError: as `_rng.draw`.
        """
        kind = id(initializer), shape, dtype
        if kind not in self._drawers:
            self.expect(initializer, shape, dtype)
        draw = self._drawers[kind][1]
        if self._compiled:
            compiled = self._compiled.pop(draw, None)
            if compiled is not None:
                compiled.exception()  # waits; what fails here fails in the draw again, where it can be told
        return draw(self.key, name_words(name))
