"""How the benchmarks measure: cases interleaved in rounds, ratios of single rounds, and functions counted."""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Action = Callable[[], Any]

ROUND = 0.01  # seconds that a case takes in one round at least, of its own


class Case(NamedTuple):
    """One row of a table: what it is called, and what is measured."""

    name: str
    action: Action


def measure(
    cases: Sequence[Case],
    rounds: int,
    clock: Callable[[], float] = time.thread_time,
    tick: Callable[[float], object] = lambda part: None,
) -> list[list[float]]:
    """Seconds of each case in each round; every round has another order. Each case runs twice before."""
    for case in cases:
        case.action()
    times = [times_of(case.action, clock) for case in cases]
    seconds: list[list[float]] = [[] for _ in cases]
    order, shuffle = list(range(len(cases))), random.Random(0).shuffle
    gc.collect()
    gc.freeze()  # what is there by now is not looked through again
    for _ in range(rounds):
        shuffle(order)  # what runs before a case leaves the processor's caches to it
        for index in order:
            action = cases[index].action
            gc.collect()
            gc.disable()
            start = clock()
            for _ in range(times[index]):
                action()
            seconds[index].append((clock() - start) / times[index])
            gc.enable()
        tick(1 / rounds)
    gc.unfreeze()
    return seconds


def times_of(action: Action, clock: Callable[[], float]) -> int:
    """How often in one round: what is short would else tell how cold the processor is after the case before it."""
    start = clock()
    action()
    return max(1, min(50, round(ROUND / max(clock() - start, 1e-6))))


def quartiles(values: Sequence[float]) -> list[float]:
    return [float(values[0])] * 3 if len(values) == 1 else statistics.quantiles(values, n=4)


def again(name: str) -> str:
    """What the second row of the same is called."""
    return f"{name}, again"


def base_of(names: Sequence[str], values: Sequence[Sequence[float]], base: str) -> list[float]:
    """What ratios are to, round by round: the case `base`, or the mean of its two rows where it is there twice."""
    twins = [own for name, own in zip(names, values, strict=True) if name in (base, again(base))]
    return [statistics.mean(own) for own in zip(*twins, strict=True)]


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """The quartiles of the ratios of single rounds."""
    return quartiles([own / other for own, other in zip(values, base, strict=True)])


def calls(action: Action) -> int:
    """Python and C functions that are called while `action` runs, itself among them."""
    count = 0

    def counter(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counter)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count - 1  # setprofile itself
