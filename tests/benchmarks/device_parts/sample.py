"""A fixed sample of the suite's matrix of transforms (`tests/transforms/test_transforms_matrix.py`), run on the device.

Each test's outcome is noted when it is there, so that what a part that is ended early has shown is not lost.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from device_parts import Found

TESTS = Path(__file__).parents[2]
FILE = TESTS / "transforms" / "test_transforms_matrix.py"
# Every transform alone, then in pairs of which each has every transform in it somewhere.
PAIRS = ["test_everything_in_pairs", "test_counted_in_pairs"]
SMALL = ["test_everything[scan3-jit]", "test_counted[cond-jit]"]
WORKERS = 4
# Of the plugins that may be installed only the one for several processes: others have warnings, which would be errors.
OUTCOME = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
TEST = re.compile(r"::(\S+)")


def measure(found: Found, what: Sequence[str], small: bool, until: float) -> None:
    # In a process of its own: this one must not hold the device's memory while the tests run.
    look = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep='|')"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    platform, kind = done.stdout.splitlines()[-1].split("|")
    found.fact(platform=platform, device=kind)
    tests = [f"{FILE}::{name}" for name in (SMALL if small else every_test())]
    command = [sys.executable, "-m", "pytest", *tests, "-vv", "-p", "no:cacheprovider", "-o", "filterwarnings=ignore"]
    command += ["-m", ""]  # also the tests that are marked as slow
    if platform != "cpu" and importlib.util.find_spec("xdist"):
        command += ["-p", "xdist.plugin", "-n", str(WORKERS)]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUNBUFFERED": "1"}
    # Several processes share the device.
    environment |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    start = time.monotonic()
    process = subprocess.Popen(
        command, cwd=TESTS.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        for test, outcome in outcomes([line]):
            found.add(test=test, outcome=outcome, at_s=round(time.monotonic() - start, 2))
        if match := re.search(r"\[(\d+) items\]|collected (\d+) items", line):
            found.fact(tests=int(match[1] or match[2]))
    found.fact(ended=process.wait(), end="".join(said)[-2000:])


def every_test() -> list[str]:
    sys.path.insert(0, str(TESTS / "support"))
    from transforms import TRANSFORMS

    return [f"{name}[{one}-jit]" for name in ("test_everything", "test_counted") for one in TRANSFORMS] + PAIRS


def outcomes(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Tests and their outcomes in what pytest says, in one process or in several; not in its summary at the end."""
    for line in lines:
        outcome, test = OUTCOME.search(line), TEST.search(line)
        if outcome and test and "%]" in line:
            yield test[1], outcome[1]
