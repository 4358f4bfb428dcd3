"""The pytest plugin: its option, what a failed `==` says, with pytest-xdist, and that it costs nothing unused."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from paths import ROOT

TEST = """
import jax.numpy as jnp, jscope as js
from jscope.testing import assert_golden

def test_golden():
    assert_golden({"tower": {"kernel": jnp.ones((2, WIDTH))}}, "net.txt")
"""
COMPARES = """
import jax, jax.numpy as jnp, jscope as js

def test_params():
    params = js.Params({"tower/kernel": jnp.ones((2, 3)), "tower/bias": jnp.zeros(3)})
    assert params == params.replace({"tower/bias": jnp.array([0.0, 0.5, 0.0])})

def test_specs():
    def program(width):
        return js.get_variable("kernel", [2, width])

    net = js.transform(program)
    assert net.specs(3) == net.specs(4)

def test_state():
    params = js.Params({"w": jnp.ones(2)})
    assert {"params": params, "steps": [1]} == {"params": params.replace({"w": jnp.zeros(2)}), "steps": [2]}

def test_other_way_round():
    assert {"v": jnp.ones(2)} == js.Params({"v": jnp.zeros(2)})

def test_taken():
    taken = jnp.ones(2)
    jax.jit(lambda x: x + 1, donate_argnums=0)(taken)
    assert js.Params({"a": 1.0, "b": taken}) == js.Params({"a": 2.0, "b": jnp.ones(2)})

def test_list_that_holds_itself():
    first, second = [1, js.Params({"a": 1.0})], [2]
    first.append(first)
    second.append(second)
    assert first == second

def test_list_of_nothing_else_that_holds_itself():
    first, second = [3], [4]
    first.append(first)
    second.append(second)
    assert first == second

def test_keys_that_can_not_be_sorted():
    assert {"params": js.Params({"a": 1.0}), 1: 2} == {"params": js.Params({"a": 1.0}), 1: 3}
"""


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("JSCOPE_UPDATE_GOLDEN", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "jscope_pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_comparison_names_what_differs_and_one_option_writes_golden_files_anew(tmp_path: Path) -> None:
    (tmp_path / "test_compares.py").write_text(COMPARES + TEST.replace("WIDTH", "3"))
    out = run_pytest(tmp_path, "--jscope-update").stdout
    assert "assert Params == Params" in out
    assert "['tower/bias']: 1 of 3 elements differ, by 0.5 at most, at [1]: 0.0, then 0.5" in out
    assert "assert Specs == Specs" in out
    assert "~ kernel: f32[2,3] is now f32[2,4]" in out
    assert "['params']['w']: 2 of 2 elements differ, by 1 at most, at [0]: 1.0, then 0.0" in out
    assert "['steps'][0]: 1, then 2" in out
    assert "['v']: 2 of 2 elements differ" in out
    assert "f32[2] is deleted: a jitted function that donates its arguments has taken its memory" in out
    assert "{1: 2} != {1: 3}" in out
    assert "Error" not in out.replace("AssertionError", "")
    assert "At index 0 diff: 1 != 2" in out
    assert "At index 0 diff: 3 != 4" in out
    assert "8 failed, 1 passed" in out
    assert "tower/kernel  f32[2,3]" in (tmp_path / "net.txt").read_text()


@pytest.mark.slow
def test_golden_files_are_written_and_read_under_xdist(tmp_path: Path) -> None:
    file = tmp_path / "test_model.py"
    file.write_text(TEST.replace("WIDTH", "3"))
    xdist = ("-p", "xdist", "-n", "2")
    assert run_pytest(tmp_path, *xdist, "--jscope-update").returncode == 0
    file.write_text(TEST.replace("WIDTH", "4"))
    done = run_pytest(tmp_path, *xdist)
    assert done.returncode == 1
    assert "  ~ tower/kernel: f32[2,3] is now f32[2,4]" in done.stdout
    assert "golden.py" not in done.stdout  # the failure stands in the test, not in jscope


def test_the_plugin_is_installed_and_imports_next_to_nothing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"jscope": "jscope_pytest"}
    assert "jscope_pytest.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    code = (
        "import sys, pytest; before = set(sys.modules); import jscope_pytest; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['jscope_pytest']"


def test_a_run_without_jscope_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_other():\n    assert 'jax' not in sys.modules\n    assert {'a': 1} == {'a': 2}\n"
    )
    done = run_pytest(tmp_path)
    assert "Differing items" in done.stdout
    assert "1 failed" in done.stdout
