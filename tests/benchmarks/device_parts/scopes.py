"""A profile of a model's loss and gradients: how much of the device's time is in kernels with the name of a scope.

It is taken twice on a GPU. Usually XLA starts many kernels at once as a CUDA graph (a *command buffer*), where the
profiler knows of some kernels only what they are called; without these graphs it knows each kernel's operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from device_parts import Found, model, traces, where

STEPS = 3
BIG = model.Size(4, 1024, 16, 8192, 4, 512)


def measure(found: Found, what: Sequence[str], small: bool, until: float) -> None:
    """`what` is `graphs` or `alone`."""
    where(found)
    size = model.SMALL["0.3B"]._replace(layers=1) if small else BIG
    net = model.unrolled(size)
    tokens = model.tokens_of(size)
    specs = net.specs(tokens)
    params = net.init(jax.random.key(0), tokens)
    # The loss and its gradients, which are all that the model is: an optimizer is in no scope of it.
    step = jax.jit(jax.value_and_grad(net.loss)).lower(params, tokens).compile()
    names = traces.op_names(step.as_text())
    scopes = scopes_of(specs)
    row = found.add(graphs=what[0] == "graphs", scopes=len(scopes), instructions=len(names))
    row["instructions_named"] = sum(bool(traces.scope_in(words, scopes)) for words in names.values())
    jax.block_until_ready(step(params, tokens))
    with traces.profiled() as folder:
        for _ in range(STEPS):
            gradients = step(params, tokens)
        jax.block_until_ready(gradients)
    # Beside the part's other results: `device.py` puts it where the figures go.
    kernels = traces.kernels_in(folder, keep=Path(found.file).with_suffix(".trace.json.gz"))
    row |= shares(kernels, names, scopes)
    found.write()


def scopes_of(specs: Iterable[str]) -> set[str]:
    """The words of all scopes in which there are variables."""
    return {word for name in specs for word in name.split("/")[:-1]}


def shares(kernels: Sequence[traces.Kernel], names: Mapping[str, str], scopes: set[str]) -> dict[str, Any]:
    """How much of the kernels' time has a scope's name: as the profile itself has it, and with the program's help.

    The program's text says which operations an instruction stands for (`names`). The profile says the instruction, or
    the kernel is called like it.
    """
    if not kernels:
        return {"device_us": None}
    by_kernel = {traces.plain(name): words for name, words in names.items()}
    here, helped, whole = 0.0, 0.0, 0.0
    by_scope: Counter[str] = Counter()
    nameless: Counter[str] = Counter()
    for kernel in kernels:
        whole += kernel.length
        own = traces.scope_in(kernel.words, scopes)
        more = names.get(kernel.operation) or by_kernel.get(traces.plain(kernel.name), "")
        scope = own or traces.scope_in(more, scopes)
        here += kernel.length * bool(own)
        helped += kernel.length * bool(scope)
        (by_scope if scope else nameless)[scope or kernel.name] += kernel.length  # type: ignore[assignment]
    return {
        "device_us": whole / STEPS,
        "kernels": len(kernels) / STEPS,
        "share_in_profile": here / whole if whole else 0.0,
        "share_with_program": helped / whole if whole else 0.0,
        "scopes_by_time": {name: us / whole for name, us in by_scope.most_common(5)},
        "nameless_by_time": {name: us / whole for name, us in nameless.most_common(5)},
    }
