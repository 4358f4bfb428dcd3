"""Runs a test's code in processes of its own: with several devices each, and in several that know each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_START = """
import jax
jax.config.update("jax_num_cpu_devices", {devices})
if {processes} > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize("localhost:{port}", {processes}, {number}, initialization_timeout=60)
"""


def run(code: str, devices: int, processes: int = 1, timeout: float = 900) -> tuple[list[int], list[str]]:
    """(how each process ended, what each wrote to stderr).

    Args:
      code: Python, which finds what this process can import.
      devices: those of each process.
      processes: how many run the same code, with a `jax.distributed` of their own.
      timeout: seconds. Where one process fails, the others are killed: they would wait for it.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "2"}
    env.pop("XLA_FLAGS", None)
    with tempfile.TemporaryDirectory() as folder:
        errors = [Path(folder) / str(number) for number in range(processes)]
        children = []
        for number, file in enumerate(errors):
            start = _START.format(devices=devices, processes=processes, port=port, number=number)
            with file.open("wb") as stderr:
                command = [sys.executable, "-c", start + code]
                children.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=stderr))
        end = time.monotonic() + timeout
        try:
            while any(child.poll() is None for child in children) and not any(child.poll() for child in children):
                assert time.monotonic() < end, [file.read_text()[-4000:] for file in errors]
                time.sleep(0.02)
        finally:
            for child in children:
                child.kill()
            codes = [child.wait() for child in children]
        return codes, [file.read_text(errors="replace") for file in errors]


def check(code: str, devices: int, processes: int = 1) -> None:
    """Runs it, and fails with what a process wrote if that failed."""
    codes, errors = run(code, devices, processes)
    assert not any(codes), f"{codes}\n" + "\n".join(error[-4000:] for error in errors)
