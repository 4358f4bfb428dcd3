"""What type checkers say of a user's file: the errors that it marks, and no others."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT

USER = ROOT / "tests" / "support" / "typed_user.py"


def by_pyright(cache: Path) -> set[int]:
    # A project of its own: the settings of this one are laxer for tests.
    settings = {"extraPaths": [str(ROOT)], "pythonVersion": "3.11", "typeCheckingMode": "standard"}
    (cache / "pyrightconfig.json").write_text(json.dumps(settings))
    (cache / USER.name).write_bytes(USER.read_bytes())
    command = ["pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(cache)]
    found = json.loads(output_of(command))["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}


def by_mypy(cache: Path) -> set[int]:
    command = ["mypy", "--output", "json", "--follow-imports", "silent", "--cache-dir", str(cache), str(USER)]
    found = map(json.loads, output_of(command).splitlines())
    return {one["line"] for one in found if one["severity"] == "error"}


def output_of(command: list[str]) -> str:
    """What a checker prints; it ends with status 1, since there are errors."""
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("checker", [by_pyright, pytest.param(by_mypy, marks=pytest.mark.slow)])
def test_type_checkers_see_arguments_and_results(checker: Callable[[Path], set[int]], tmp_path: Path) -> None:
    name = checker.__name__.removeprefix("by_")
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    marked = {number for number, line in enumerate(USER.read_text().splitlines(), 1) if "# error: " in line}
    assert len(marked) > 20
    assert checker(tmp_path) == marked
