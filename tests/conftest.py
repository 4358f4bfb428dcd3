"""What all tests share."""

from __future__ import annotations

import collections
import itertools
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

# The tests are about what JAX traces, not about how well XLA compiles it: so they take a fifth less time. Flags of your
# own come last, and so they win.
QUICK_COMPILER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if QUICK_COMPILER not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{QUICK_COMPILER} {os.environ.get('XLA_FLAGS', '')}"


@pytest.hookimpl(tryfirst=True)  # before those marked as slow are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `sampled(n)`, every n-th cell is in the suite, the others are with the long tests."""
    seen: collections.Counter[str] = collections.Counter()
    for item in items:
        sampled = item.get_closest_marker("sampled")
        if sampled is not None and item.get_closest_marker("slow") is None:
            test = item.nodeid.partition("[")[0]
            if seen[test] % sampled.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1


def pytest_sessionfinish() -> None:
    """pytest-xdist ends its processes if they don't in ten seconds: what coverage counted in them is kept first."""
    coverage = sys.modules.get("coverage")
    counting = coverage and coverage.Coverage.current()
    if counting:
        counting.save()


MOST = 2.5e9  # bytes
HELD = Path("/proc/self/statm")
_tests = itertools.count(1)


def held() -> float:
    """How much memory this process holds, in bytes; infinite where the system does not say it in this way."""
    return int(HELD.read_text().split()[1]) * resource.getpagesize() if HELD.exists() else float("inf")


@pytest.fixture(autouse=True)
def bounded_caches() -> Iterator[None]:
    """JAX keeps what it compiled; after some thousand programs that is gigabytes. To compile anew takes long, too."""
    yield
    if next(_tests) % 100 == 0 and held() > MOST:
        jax.clear_caches()
