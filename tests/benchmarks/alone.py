"""What needs a process of its own: import, the first `init` of a process, and the peak of its memory.

`suite.py` starts it and reads the JSON that it prints. By hand:

    python tests/benchmarks/alone.py {import,init,memory} LIBRARY LAYERS WIDTH
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import models

_compiles = 0


def _count_compiles(event: str, seconds: float, **kwargs: Any) -> None:
    global _compiles
    _compiles += event == "/jax/core/compile/backend_compile_duration"


def imported(library: str) -> dict[str, float]:
    """Seconds to import the library when JAX is there already."""
    name = models.LIBRARIES[library].imports
    start = time.perf_counter()
    if name:
        importlib.import_module(name)
    return {"seconds": time.perf_counter() - start}


def first_init(library: str, layers: int, width: int) -> dict[str, float]:
    """Seconds and compilations of the first `init`; the key is made before."""
    model = models.make(library, "deep", layers, width)
    key = jax.block_until_ready(jax.random.key(0))
    jax.monitoring.register_event_duration_secs_listener(_count_compiles)
    start = time.perf_counter()
    jax.block_until_ready(model.init(key))
    return {"seconds": time.perf_counter() - start, "compiles": _compiles}


def peak_of_init(library: str, layers: int, width: int) -> dict[str, float]:
    """How many bytes of memory `init` adds at its peak, and the bytes of the tree.

    One layer is made and dropped before, so that what the compiler takes does not count.
    """
    key = jax.random.key(0)
    jax.block_until_ready(models.make(library, "deep", 1, width).init(key))
    model = models.make(library, "deep", layers, width)
    before = _forget_peak()
    params = jax.block_until_ready(model.init(key))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return {"peak": _kilobytes("VmHWM") * 1024 - before, "bytes": size}


def _forget_peak() -> int:
    """Makes the peak of resident memory what it is now, and gives it in bytes.

    The peak in `resource.getrusage` can't be used: it starts with that of the process that started this one.
    """
    Path("/proc/self/clear_refs").write_text("5")
    return _kilobytes("VmRSS") * 1024


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def main() -> None:
    what, library, layers, width = sys.argv[1:]
    jnp.zeros(()).block_until_ready()  # the backend is started before anything is measured
    if what == "import":
        found = imported(library)
    else:
        found = (first_init if what == "init" else peak_of_init)(library, int(layers), int(width))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
