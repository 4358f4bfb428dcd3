"""The floor with the question which program and which trace a call belongs to: what being right under transforms costs.

A library that keeps scopes at a distance has to ask it at each call. It is asked here as fast as public JAX allows, and
the answer is always the same.
"""

from __future__ import annotations

import contextvars
from typing import Any

import jax
from jax.extend.core import find_top_trace

from models import floor


class Run:
    __slots__ = ("context", "trace")


running: contextvars.ContextVar[Run] = contextvars.ContextVar("running")


def start() -> None:
    run = Run()
    run.trace = find_top_trace(())
    run.context = running.set(run)


def look() -> None:
    run = running.get()
    running.reset(run.context)  # raises in any other context than the one that set it
    run.context = running.set(run)
    if find_top_trace(()) is not run.trace:
        raise NotImplementedError


class Scope(floor.Scope):
    def __enter__(self) -> None:
        look()
        floor.Scope.__enter__(self)


def get(name: str, shape: tuple[int, ...], draw: floor.Draw) -> jax.Array:
    look()
    return floor.get(name, shape, draw)


_library: Any = floor.Library(Scope, get, start)
deep, shared, transformer = _library.deep, _library.shared, _library.transformer
