"""Reads what `jax.profiler` saves, with plain Python: which kernels ran on a device, for how long, and what for.

A profile has a file `*.trace.json.gz` of events. Those of a GPU are in a process `/device:GPU:0`, with a thread for
each CUDA stream. There may be other threads in it that tell the same time once more (by module, by name): they are left
out. A profile of a CPU has no such process.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Threads of a device that sum up the streams and are no work of their own.
SUMS = re.compile(r"xla modules|xla ops|steps|name scope|framework|source|launch stats", re.IGNORECASE)
# What the profiler knows of a kernel that is about files and threads, not about operations.
NOT_ABOUT_OPERATIONS = {"source", "source_stack", "_src", "kernel_details", "hlo_module", "memcpy_details"}


class Kernel(NamedTuple):
    """One event on a device.

    Attributes:
      start: in microseconds.
      length: in microseconds.
      operation: XLA's name of the instruction (`fusion.3`), empty where the profiler does not know it.
      words: all that the profiler says of the operation, with the kernel's own name first.
    """

    name: str
    start: float
    length: float
    operation: str
    words: str


@contextlib.contextmanager
def profiled() -> Iterator[Path]:
    """A profile of the body; gives the folder that holds it afterwards. The folder goes when the caller's block ends.

    Python's own calls are not traced: they would be most of the file and of the time.
    """
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    folder = Path(tempfile.mkdtemp(prefix="jscope-profile-"))
    with jax.profiler.trace(str(folder), profiler_options=options):
        yield folder


def kernels_in(folder: Path, keep: Path | None = None) -> list[Kernel]:
    """The kernels of the profile in a folder, which is removed; `keep` is where a copy of the events goes."""
    found = []
    for file in sorted(folder.rglob("*.trace.json.gz")):
        with gzip.open(file, "rt") as text:
            found += kernels(json.load(text)["traceEvents"])
        if keep:
            shutil.copy(file, keep)
    shutil.rmtree(folder, ignore_errors=True)
    return found


def kernels(events: Iterable[dict[str, Any]]) -> list[Kernel]:
    """The kernels among the events of a trace, in order of time."""
    events = list(events)
    named = {
        (event["name"], event["pid"], event.get("tid") if event["name"] == "thread_name" else None): event["args"][
            "name"
        ]
        for event in events
        if event.get("ph") == "M" and event.get("name") in ("process_name", "thread_name")
    }
    devices = {
        pid for (kind, pid, _), name in named.items() if kind == "process_name" and re.match(r"/device:(?!CPU)", name)
    }
    threads = {(pid, tid): name for (kind, pid, tid), name in named.items() if kind == "thread_name" and pid in devices}
    streams = {thread for thread, name in threads.items() if "stream" in name.lower() and not SUMS.search(name)}
    streams = streams or {thread for thread, name in threads.items() if not SUMS.search(name)}
    found = []
    for event in events:
        if event.get("ph") == "X" and (event["pid"], event.get("tid")) in streams:
            args = event.get("args", {})
            words = [event["name"], *(str(args[key]) for key in sorted(set(args) - NOT_ABOUT_OPERATIONS))]
            found.append(
                Kernel(event["name"], event["ts"], event.get("dur", 0.0), args.get("hlo_op", ""), " ".join(words))
            )
    return sorted(found, key=lambda kernel: kernel.start)


def busy(found: Iterable[Kernel]) -> float:
    """Microseconds in which at least one kernel ran: kernels of several streams may overlap."""
    total, end = 0.0, float("-inf")
    for kernel in sorted(found, key=lambda kernel: kernel.start):
        last = kernel.start + kernel.length
        total += max(0.0, last - max(kernel.start, end))
        end = max(end, last)
    return total


INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+)\s.*\{$")
OP_NAME = re.compile(r'op_name="([^"]*)"')
CALLS = re.compile(r"calls=%?([\w.\-]+)")


def op_names(text: str) -> dict[str, str]:
    """The `op_name`s of each instruction of a compiled program (`compiled.as_text()`).

    A fusion stands for all that is fused into it, so it has the names of that too.
    """
    own: dict[str, list[str]] = {}
    inside: dict[str, list[str]] = {}
    calls: dict[str, str] = {}
    computation = ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            computation = match[1]
        elif match := INSTRUCTION.match(line):
            name, rest = match.groups()
            own[name] = OP_NAME.findall(rest)
            inside.setdefault(computation, []).extend(own[name])
            if called := CALLS.search(rest):
                calls[name] = called[1]
    return {name: " ".join(names + inside.get(calls.get(name, ""), [])) for name, names in own.items()}


def plain(name: str) -> str:
    """A kernel is called like its instruction, with other signs between the words."""
    return re.sub(r"[^\w]", "_", name)


def scope_in(words: str, scopes: Collection[str]) -> str:
    """The first part of an operation's name that is a scope (`jit(step)/jvp(layer_3)/attn/dot`), or nothing."""
    return next((word for word in re.split(r"[^\w]+", words) if word in scopes), "")
