"""What all tests share."""

from __future__ import annotations

import itertools

import jax
import pytest

_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def bounded_caches():
    """JAX keeps what it compiled; after some hundred programs that is gigabytes."""
    yield
    if next(_tests) % 100 == 0:
        jax.clear_caches()
