"""jscope on a GPU: five parts, one command, at most eight minutes on one card from a bare start.

1. decode: a step as in decoding, with 1,000 and 8,000 leaves: host and device time, jscope beside others;
2. cold: from a new process to the first step of a transformer of 0.3 and 1 billion parameters, and memory at `init`;
3. values: initial values on the GPU and on the CPU, bit for bit, and however they are made;
4. scopes: how much of a profile's device time carries the name of a scope;
5. sample: a part of the suite's matrix of transforms.

Each part is a file in `device_parts`, and runs in processes of its own, one after another, in the order of worth. A
process that is late is ended, and what it had found is kept. The JSON is written after each. It needs jax, numpy, flax
and equinox; for the last part pytest. Run:

    PYTHONPATH=. python tests/benchmarks/device.py --json figures.json [--page docs/gpu.md] [--budget SECONDS]

`--small` goes through every part with sizes that tell nothing about speed, in less than two minutes of two cores.
`--from FILE` measures nothing and writes the page of an earlier run.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- device.py: begin -->", "<!-- device.py: end -->"
GOAL = 1.05  # of the tuple's host time
MEMORY_GOAL = 1.1  # of the parameters' bytes
LEAST = 5.0  # seconds; with fewer left a process is not started
GRACE = 4.0  # seconds before its end by which a process should be done by itself
PACKAGES = ["jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "flax", "equinox", "numpy", "pytest"]

Result = dict[str, Any]
Rows = list[dict[str, Any]]


# The plan -----------------------------------------------------------------------------------------------------------


class Job(NamedTuple):
    """One process.

    Attributes:
      part: what it belongs to.
      what: what it is asked for.
      seconds: that it may take at most.
      kept: seconds of a budget of 480 that the jobs before it must leave for it.
      environment: on top of the process's own.
      small: whether a small run has it too.
    """

    part: str
    what: tuple[str, ...]
    seconds: float
    kept: float
    environment: dict[str, str] = {}  # noqa: RUF012
    small: bool = True

    @property
    def name(self) -> str:
        return " ".join((self.part, *self.what))


# Nearly all of a small run is compiling.
QUICK_COMPILER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
NO_POOL = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
JOBS = [
    Job("decode", ("1000",), 65, 30),
    Job("decode", ("8000",), 120, 60),
    Job("cold", ("0.3B", "unrolled"), 90, 40),
    Job("cold", ("0.3B", "stacked"), 50, 25),
    Job("cold", ("1B", "stacked"), 50, 25, small=False),
    Job("cold", ("1B", "unrolled", "memory"), 40, 20, NO_POOL),
    Job("values", (), 90, 40, NO_POOL),
    Job("scopes", ("graphs",), 40, 20),
    Job("scopes", ("alone",), 40, 20, {"XLA_FLAGS": "--xla_gpu_enable_command_buffer="}, small=False),
    Job("sample", (), 110, 50, NO_POOL),
    Job("cold", ("1B", "unrolled"), 120, 50, small=False),  # it compiles longest: it gets what the others leave
]
BUDGET, SMALL_BUDGET = 480, 115


def limit(index: int, jobs: Sequence[Job], left: float, scale: float = 1) -> float:
    """Seconds that a job may take: its own limit, but what later jobs need at least stays theirs.

    What is kept shrinks with the budget (`scale`).
    """
    later = scale * sum(job.kept for job in jobs[index + 1 :])
    return min(jobs[index].seconds, max(left - later, scale * jobs[index].kept), left)


def run_jobs(jobs: Sequence[Job], budget: float, small: bool, result: Result, file: Path) -> None:
    """Runs the jobs one after another and writes what is there after each."""
    start = time.monotonic()
    scale = budget / BUDGET
    profile = file.with_name(f"{file.stem}-profile.trace.json.gz")
    profile.unlink(missing_ok=True)  # that of an earlier run
    for index, job in enumerate(jobs):
        seconds = limit(index, jobs, start + budget - time.monotonic(), scale)
        if seconds < LEAST:
            result["jobs"].append({"part": job.part, "what": list(job.what), "state": "not started", "rows": []})
        else:
            result["jobs"].append(in_process(job, seconds, small, profile))
        result["seconds"] = round(time.monotonic() - start, 1)
        write(file, result)
        done = result["jobs"][-1]
        said = f"{job.name}: {done['state']}, {len(done['rows'])} rows, {done.get('seconds', 0):.1f} s"
        print(said + (f"\n{done['said']}" if done["state"] == "failed" else ""), flush=True)


def in_process(job: Job, seconds: float, small: bool, profile: Path) -> Result:
    """What one job found, in a process of its own that is ended with all that it started when its time is up."""
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "found.json", Path(folder) / "log"
        command = [sys.executable, __file__, "--job", job.part, *job.what, "--json", str(file)]
        command += ["--budget", str(seconds), *["--small"] * small]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = os.environ | {"PYTHONPATH": path, "DEVICE_STARTED": str(time.time())} | platforms()
        environment |= job.environment
        flags = [os.environ.get("XLA_FLAGS"), job.environment.get("XLA_FLAGS"), QUICK_COMPILER if small else None]
        environment["XLA_FLAGS"] = " ".join(filter(None, flags))
        start = time.monotonic()
        with (
            log.open("w") as out,
            ended(
                subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
            ) as process,
        ):
            try:
                state = "done" if process.wait(seconds) == 0 else "failed"
            except subprocess.TimeoutExpired:
                state = "ended, as it was late"
        found = json.loads(file.read_text()) if file.exists() else {"facts": {}, "rows": []}
        saved = file.with_suffix(".trace.json.gz")
        if saved.exists() and not profile.exists():
            shutil.copy(saved, profile)
        return {
            "part": job.part,
            "what": list(job.what),
            "state": state,
            "seconds": round(time.monotonic() - start, 1),
            "limit": round(seconds, 1),
            **found,
            "said": "" if state == "done" else log.read_text(errors="replace")[-3000:],
        }


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Whatever happens in the body, afterwards the process and those that it started are gone."""
    try:
        yield process
    finally:
        if process.poll() != 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@functools.cache
def card() -> dict[str, str]:
    """The GPU's name, its driver and its memory, as its own tool says them; nothing where there is no such tool."""
    if not shutil.which("nvidia-smi"):
        return {}
    ask = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    first = done.stdout.splitlines()[0].split(", ") if done.returncode == 0 and done.stdout.strip() else []
    return dict(zip(("card", "driver", "memory"), first, strict=False))


def platforms() -> dict[str, str]:
    """Where there is a card it must be used: JAX would else take the CPU and say nothing. The CPU is there too."""
    return {"JAX_PLATFORMS": "cuda,cpu"} if card() and not os.environ.get("JAX_PLATFORMS") else {}


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def commit() -> str | None:
    """The commit of the checkout, with a plus where files differ from it; None where there is no repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def sources() -> str:
    """A sum of the library's files, which says what was measured also where there is no repository."""
    total = hashlib.sha256()
    for file in sorted((ROOT / "jscope").rglob("*.py")):
        total.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()[:16]


def facts(small: bool, budget: float, said_commit: str | None) -> Result:
    run: Result = {"when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "small": small, "budget": budget}
    run |= {**card(), "cores": os.cpu_count(), "versions": versions()}
    return run | {"commit": said_commit or commit(), "sources": sources()}


def write(file: Path, result: Result) -> None:
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(beside, file)


# The page -----------------------------------------------------------------------------------------------------------


def rows_of(result: Result, part: str) -> Rows:
    """The rows that a part has, of all its processes."""
    return [row for job in result["jobs"] if job["part"] == part for row in job["rows"]]


def on_gpu(result: Result, part: str) -> bool:
    """Whether a part has anything from a GPU."""
    return any(
        job["rows"] and job.get("facts", {}).get("platform", "cpu") != "cpu"
        for job in result["jobs"]
        if job["part"] == part
    )


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [line(head), line(["---"] * len(head)), *map(line, lines)]


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    """Three digits that count, with commas in what is long; a dash for what is not there."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def ratio(quarters: Sequence[float] | None) -> str:
    """`1.02 (1.01 to 1.04)`: the median and the quartiles."""
    if not quarters:
        return "-"
    low, middle, high = (f"{value:.2f}" for value in quarters)
    return middle if low == middle == high else f"{middle} ({low} to {high})"


def middle(quarters: Sequence[float] | None) -> str:
    return number(quarters[1]) if quarters else "-"


def decode_page(rows: Rows, result: Result) -> list[str]:
    lines = []
    for row in rows:
        title = [f"{row['case']}, {row['leaves']:,} leaves", row["library"]]
        if "error" in row:
            lines.append([*title, f"failed: `{row['error'].splitlines()[0][:80]}`", *"-----"])
            continue
        device = number(row.get("device_us")) if row["case"] == "step" else ""
        same = {True: "yes", False: "no", None: ""}[row.get("same_program")]
        host = [middle(row["step_us"]), ratio(row["step_ratio"]), middle(row["return_us"]), ratio(row["return_ratio"])]
        lines.append([*title, *host, device, same])
    head = ["program", "tree", "µs a step", "to tuple", "µs until the call returns", "to tuple"]
    text = table([*head, "µs of the device a step", "same program"], lines)
    for row in rows if not result["run"]["small"] else ():
        if row["library"] == "jscope" and row["case"] == "step" and "step_ratio" in row:
            again = [one for one in rows if one["library"] == "tuple, again" and one["case"] == row["case"]]
            noise = next((ratio(one["step_ratio"]) for one in again if one["leaves"] == row["leaves"]), "-")
            text += ["", f"Goal of {GOAL} with {row['leaves']:,} leaves: {verdict(row['step_ratio'][1], GOAL)}"]
            text[-1] += f" (the tuple against itself: {noise})."
    steps = [row for row in rows if row["case"] == "step" and "error" not in row]
    if steps and all(row.get("device_us") is None for row in steps):
        text += ["", "There is no device time on a CPU."]
    return text


def verdict(value: float, goal: float) -> str:
    return f"**{'met' if value <= goal else 'missed'}**, {value:.2f}"


SECONDS = ["Python", "imports", "device", "specs", "init", "trace", "compile", "first step", "all", "second step"]


def cold_page(rows: Rows, result: Result) -> list[str]:
    cold = [row for row in rows if row["case"] == "cold"]
    lines = [
        [row["size"], row["form"], number(row.get("parameters")), number(row.get("leaves"))]
        + [seconds(row["seconds"].get(step)) for step in SECONDS]
        for row in cold
    ]
    text = table(["size", "layers", "parameters", "leaves", *(f"{step}, s" for step in SECONDS)], lines)
    memory = [row for row in rows if row.get("bytes")]
    if memory and all(row.get("peak") is None for row in memory):
        return [*text, "", "A CPU does not say how much of its memory is in use."]
    lines = []
    for row in memory:
        if row.get("peak"):
            pool = "without a pool" if row["case"] == "memory" else "JAX's pool"
            sizes = [number(row["bytes"] / 2**20), number(row["peak"] / 2**20)]
            lines.append([row["size"], row["form"], pool, *sizes, f"{row['peak_ratio']:.3f}"])
    text += ["", *table(["size", "layers", "memory", "parameters, MiB", "peak at `init`, MiB", "ratio"], lines)]
    worst = max(row["peak_ratio"] for row in memory if row.get("peak"))
    return [*text, "", f"Goal of {MEMORY_GOAL} for the peak at `init`: {verdict(worst, MEMORY_GOAL)} at most."]


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def values_page(rows: Rows, result: Result) -> list[str]:
    across = [row for row in rows if row["pair"] == "GPU to CPU"]
    text = []
    if across:
        lines = [
            [row["initializer"], row["dtype"], row["shape"], "yes" if row["promised"] else ""]
            + (["equal", "", ""] if not row["differ"] else [f"{row['differ']:,} of {row['size']:,}"])
            + ([f"{row['ulps']:,}", f"{row['largest']:.2g}"] if row["differ"] else [])
            for row in across
        ]
        head = ["initializer", "dtype", "variable", "promised", "GPU to CPU", "at most, ulp", "at most"]
        text += table(head, lines)
        broken = sorted({row["initializer"] for row in across if row["promised"] and row["differ"]})
        text += ["", f"What is promised: {'**broken** for ' + ', '.join(broken) if broken else '**kept**'}."]
    else:
        text += ["There was no GPU: only the ways to make values are compared."]
    made = [row for row in rows if row["pair"] != "GPU to CPU"]
    pairs = dict.fromkeys((row["pair"], row["dtype"]) for row in made)
    lines = []
    for pair, dtype in pairs:
        own = [row for row in made if (row["pair"], row["dtype"]) == (pair, dtype)]
        differ = [f"{row['initializer']}/{row['shape']} (≤ {row['ulps']:,} ulp)" for row in own if row["differ"]]
        lines.append([pair, dtype, f"{len(own) - len(differ)} of {len(own)}", ", ".join(differ)])
    return [*text, "", *table(["two ways", "dtype", "equal variables", "those that differ"], lines)]


def scopes_page(rows: Rows, result: Result) -> list[str]:
    lines = []
    for row in rows:
        named = f"{row['instructions_named']:,} of {row['instructions']:,}"
        title = ["with CUDA graphs" if row["graphs"] else "without CUDA graphs", named]
        if row.get("device_us") is None:
            lines.append([*title, *"----", "there is no device time on a CPU"])
            continue
        most = ", ".join(f"`{name}` {share:.0%}" for name, share in row["scopes_by_time"].items())
        without = ", ".join(f"`{name[:40]}` {share:.1%}" for name, share in row["nameless_by_time"].items())
        shares = [f"{row['share_in_profile']:.1%}", f"{row['share_with_program']:.1%}"]
        which = f"most: {most}; without: {without or 'none'}"
        lines.append([*title, number(row["device_us"]), number(row["kernels"]), *shares, which])
    head = ["profile", "instructions with a scope", "µs of the device a step", "kernels a step"]
    return table([*head, "time with a scope, by the profile", "and by the compiled program", "which"], lines)


def sample_page(rows: Rows, result: Result) -> list[str]:
    outcomes = [row["outcome"] for row in rows]
    wanted = next((job["facts"]["tests"] for job in result["jobs"] if "tests" in job.get("facts", {})), len(rows))
    text = [f"{len(rows)} of {wanted} tests ran: " + (", ".join(count(outcomes)) or "none") + "."]
    bad = [row["test"] for row in rows if row["outcome"] in ("FAILED", "ERROR")]
    return text + ([""] + [f"* failed: `{test}`" for test in bad] if bad else [])


def count(outcomes: Sequence[str]) -> list[str]:
    return [f"{outcomes.count(outcome)} {outcome.lower()}" for outcome in dict.fromkeys(outcomes)]


class Section(NamedTuple):
    """A part on the page: its title, what its table says, what it must show on a GPU, and what writes it."""

    title: str
    about: str
    shows: str
    write: Callable[[Rows, Result], list[str]]


PARTS = {
    "decode": Section(
        "A step as in decoding",
        "Small matrices, a donated cache, very many leaves. *Handing over* is a call with the same parameters that "
        "adds one to a number. Medians of interleaved rounds; ratios are of single rounds, with quartiles.",
        f"the host time of a step with 1,000 and 8,000 leaves is at most {GOAL} of a bare tuple's",
        decode_page,
    ),
    "cold": Section(
        "From a new process to the first step",
        "A transformer of 24 layers in bfloat16, one step of SGD. *Stacked*: one `lax.scan` over all layers.",
        f"how long a cold start takes, and that `init` needs at most {MEMORY_GOAL} of the parameters' memory",
        cold_page,
    ),
    "values": Section(
        "Initial values",
        "Bit for bit. JAX promises equal random bits, and constants are equal; the last digits of functions are not "
        "promised across devices.",
        "initial values equal those on a CPU where JAX promises it, and are equal however they are made",
        values_page,
    ),
    "scopes": Section(
        "Scope names in a profile",
        "The loss of a transformer of 4 layers, and its gradients. The profile knows of a kernel's operation, and the "
        "text of the compiled program (`compiled.as_text()`) says what was fused into it. Where a profile has only a "
        "kernel's name, equal layers can share a kernel, which is called after the first of them.",
        "the kernels of a saved profile carry the names of the scopes",
        scopes_page,
    ),
    "sample": Section(
        "JAX's transforms",
        "A fixed sample of `tests/transforms/test_transforms_matrix.py`.",
        "what a program does inside JAX's transforms is right on the device",
        sample_page,
    ),
}


def page_of(result: Result) -> str:
    """What stands between the marks of the page: the figures, and what they do not show."""
    text: list[str] = []
    if result.get("jobs"):
        run = result["run"]
        packages = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        gpu = f"{run['card']}, driver {run['driver']}, {run['memory']}" if run.get("card") else "No GPU"
        what = f"commit `{run['commit'][:12]}`" if run.get("commit") else f"sources `{run['sources']}`"
        text += [f"{gpu}; {run['cores']} cores; {packages}; jscope's {what}; {run['when']}; {result['seconds']:.0f} s."]
        text += ["", "**A small run: its figures tell nothing about speed.**"] * bool(run["small"])
        for part, section in PARTS.items():
            jobs = [job for job in result["jobs"] if job["part"] == part]
            if not jobs:
                continue
            text += ["", f"## {section.title}", "", section.about, ""]
            rows = rows_of(result, part)
            if rows:
                text += section.write(rows, result)
            for job in jobs:
                if job["state"] != "done":
                    text += ["", f"`{' '.join([part, *job['what']])}`: {job['state']}."]
        text += ["", "## What is not proven", ""]
    missing = [section.shows for part, section in PARTS.items() if not shown(result, part)]
    if missing:
        text += ["No run on a GPU has shown yet that or how:", "", *(f"* {shows}" for shows in missing)]
    else:
        text += ["Every part has run on this one card. Other cards, and several at once, have not been tried."]
    return "\n".join([*text, ""])


def shown(result: Result, part: str) -> bool:
    """Whether all processes of a part came to their end on a GPU, at full size."""
    jobs = [job for job in result.get("jobs", []) if job["part"] == part]
    done = all(job["state"] == "done" for job in jobs)
    return bool(jobs) and done and not result["run"]["small"] and on_gpu(result, part)


def write_page(page: Path, text: str) -> None:
    """Puts the text between the marks of the page, or makes a page of it where there is none."""
    old = page.read_text() if page.exists() else f"# On a GPU\n\n{BEGIN}\n{END}\n"
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{page} has no lines {BEGIN} and {END}: nothing was written")
    before, _, rest = old.partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")


# The command --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--page", type=Path, help="a page in Markdown: the tables go between its marks")
    parser.add_argument("--from", type=Path, dest="given", help="the figures of an earlier run: nothing is measured")
    parser.add_argument("--budget", type=float, help=f"seconds for everything: {BUDGET}, of a small run {SMALL_BUDGET}")
    parser.add_argument("--small", action="store_true", help="sizes that tell nothing about speed, for a CPU")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--commit", help="of jscope, where the checkout has no repository")
    parser.add_argument("--job", nargs="+", help=argparse.SUPPRESS)  # what a process of this script is started with
    options = parser.parse_args(arguments)
    budget = options.budget or (SMALL_BUDGET if options.small else BUDGET)
    if options.job:
        until = time.monotonic() + budget - GRACE
        part, *what = options.job
        from device_parts import Found

        importlib.import_module(f"device_parts.{part}").measure(Found(options.json), what, options.small, until)
        return
    if options.given:
        result = json.loads(options.given.read_text())
    elif options.json:
        jobs = [job for job in JOBS if job.part in options.only and (job.small or not options.small)]
        result = {"run": facts(options.small, budget, options.commit), "seconds": 0.0, "jobs": []}
        write(options.json, result)
        run_jobs(jobs, budget, options.small, result, options.json)
    else:
        parser.error("say --json, where the figures go, or --from, where they are")
    print(page_of(result))
    if options.page:
        write_page(options.page, page_of(result))


if __name__ == "__main__":
    main()
