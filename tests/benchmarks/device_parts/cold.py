"""From a new process to the first step of training a transformer: where the seconds go.

The clock starts where the process was started (`DEVICE_STARTED`). The same process says how much memory of the device
was in use at most when `init` was done: nothing but the key and the words was made before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from device_parts import Found, Row, where

STARTED = "DEVICE_STARTED"


def measure(found: Found, what: Sequence[str], small: bool, until: float) -> None:
    """`what` is the size and the form, and `memory` where only the peak of `init` is asked for."""
    name, form, *rest = what
    seconds: Row = {}
    only_memory = "memory" in rest
    row = found.add(case="memory" if only_memory else "cold", size=name, form=form, seconds=seconds)

    @contextmanager
    def timing(step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[step] = time.perf_counter() - start
        found.write()

    seconds["Python"] = time.time() - float(os.environ.get(STARTED, time.time()))
    with timing("imports"):
        import jax

        from device_parts import model
    with timing("device"):
        device = where(found)
        size = (model.SMALL if small else model.SIZES)[name]
        key, tokens = jax.block_until_ready((jax.random.key(0), model.tokens_of(size)))
    net = model.FORMS[form](size)
    before = in_use(device)
    with timing("specs"):
        net.specs(tokens)
    with timing("init"):
        params = jax.block_until_ready(net.init(key, tokens))
    leaves = jax.tree.leaves(params)
    row |= {"parameters": sum(leaf.size for leaf in leaves), "leaves": len(leaves)}
    row |= {"bytes": sum(leaf.nbytes for leaf in leaves), "peak": in_use(device, peak=True), "before": before}
    row["peak_ratio"] = row["peak"] / row["bytes"] if row["peak"] else None
    found.write()
    if only_memory:
        return
    with timing("trace"):
        lowered = jax.jit(model.training_step(net)).lower(params, tokens)
    with timing("compile"):
        step = lowered.compile()
    with timing("first step"):
        params, loss = jax.block_until_ready(step(params, tokens))
    seconds["all"] = time.time() - float(os.environ.get(STARTED, time.time()))
    with timing("second step"):
        jax.block_until_ready(step(params, tokens))
    row["loss"] = float(loss)
    found.write()


def in_use(device: object, peak: bool = False) -> int | None:
    """Bytes of the device's memory; None where the device does not tell, as a CPU."""
    stats = device.memory_stats()  # type: ignore[attr-defined]
    return stats.get("peak_bytes_in_use" if peak else "bytes_in_use") if stats else None
