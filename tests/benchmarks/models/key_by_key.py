"""By hand, but with a new key split off for each variable: slower when it is warm, and compiled sooner."""

from __future__ import annotations

from collections.abc import Iterator

import jax

from models import Model, by_hand


def split_off(key: jax.Array, count: int) -> Iterator[jax.Array]:
    for _ in range(count):
        key, part = jax.random.split(key)
        yield part


def deep(layers: int, width: int) -> Model:
    return by_hand.deep(layers, width, split_off)


def shared(layers: int, width: int) -> Model:
    return by_hand.shared(layers, width)


def transformer(layers: int, width: int) -> Model:
    return by_hand.transformer(layers, width, split_off)
