"""`python -m jscope plan`: what a plan makes of a checkpoint, from the shell."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jscope as js
from jscope import checkpoint
from jscope.checkpoint.command import main

PLAN = """
from jscope.checkpoint import Plan
PLAN = Plan().drop("mask").split("qkv", ["q", "k", "v"]).transpose("fc").rename({"fc": "dense/kernel"})
OTHER = 7
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "plan.py").write_text(PLAN)
    arrays = {"qkv": np.arange(6), "fc": np.ones((2, 3), np.float32), "mask": np.ones(2, bool)}
    checkpoint.save(tmp_path / "m.safetensors", arrays)
    return tmp_path


def plan(files: Path, *arguments: str, name: str = "PLAN") -> int:
    return main(["plan", str(files / "m.safetensors"), "--plan", f"{files / 'plan.py'}:{name}", *arguments])


def test_it_shows_what_becomes_of_each_array(files, capsys):
    assert plan(files) == 0
    assert capsys.readouterr().out == (
        "in the file               in the program\n"
        "fc           float32 2x3  dense/kernel    float32 3x2\n"
        "qkv          int64 6      k               int64 2\n"
        "qkv          int64 6      q               int64 2\n"
        "qkv          int64 6      v               int64 2\n"
        "mask         bool 2                       dropped\n"
        "3 arrays in the file, 4 in the program, 0 faults\n"
    )


def test_it_says_what_does_not_fit(files, capsys):
    target = files / "target.safetensors"
    assert plan(files, "--write", str(target)) == 0
    assert plan(files, "--target", str(target)) == 0
    params = dict(checkpoint.load(target).flat())
    assert (params["v"] == [4, 5]).all()
    checkpoint.save(target, {**params, "dense/kernel": np.ones((4, 2), np.float32), "more": np.ones(1)})
    capsys.readouterr()
    assert plan(files, "--target", str(target)) == 1
    out = capsys.readouterr().out
    assert "fault: 'dense/kernel', from 'fc', has shape (3, 2), wanted (4, 2)" in out
    assert "fault: 'more' is missing" in out
    assert plan(files, "--write", str(target)) == 2
    assert "--force" in capsys.readouterr().err


def test_metadata_and_keys_are_written_too(files):
    m, out = files / "m.safetensors", files / "out.safetensors"
    arrays = {"qkv": np.arange(6), "fc": np.ones((2, 3), np.float32), "mask": np.ones(2, bool)}
    checkpoint.save(m, arrays, metadata={"made by": "a test"})
    assert plan(files, "--write", str(out)) == 0
    assert checkpoint.open(out).metadata == {"made by": "a test"}

    (files / "plan.py").write_text("from jscope.checkpoint import Plan\nPLAN = Plan().rename({'a': 'b', 'c': 'd'})\n")
    state = {"a": jax.random.key(7, impl="rbg"), "c": 2.5}
    checkpoint.save_state(m, state)
    assert plan(files, "--write", str(out), "--force") == 0
    back, _ = checkpoint.load_state(out, {"b": jax.random.key(0, impl="rbg"), "d": 0.0})
    assert (jax.random.key_data(back["b"]) == jax.random.key_data(state["a"])).all()
    assert type(back["d"]) is float
    with pytest.raises(js.ParamsMismatchError, match="rbg"):  # the kind of key is known still
        checkpoint.load_state(out, {"b": jax.random.key(0, impl="unsafe_rbg"), "d": 0.0})


def test_what_a_step_can_not_do_is_a_fault_and_nothing_is_written(files, capsys):
    checkpoint.save(files / "m.safetensors", {"qkv": np.arange(7), "fc": np.ones(3)})
    assert plan(files, "--write", str(files / "out.safetensors")) == 1
    assert "fault: 'qkv' has 7 along axis 0, which is not 3 equal shares" in capsys.readouterr().out
    assert not (files / "out.safetensors").exists()


@pytest.mark.parametrize("name", ["out.npz", "model.ckpt", "out"])
def test_no_other_format_is_written(files, capsys, name):
    assert plan(files, "--write", str(files / name)) == 2
    assert "does not end in .safetensors" in capsys.readouterr().err
    assert not (files / name).exists()


@pytest.mark.parametrize("code", ["1 / 0", "import no_such_module", "raise SystemExit(3)", "PLAN ="])
def test_a_file_that_fails_is_told_in_one_line(files, capsys, code):
    """Exit status 1 would be a fault of the checkpoint."""
    (files / "plan.py").write_text(code)
    assert plan(files) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_finds_the_modules_beside_it(files, monkeypatch):
    """As `python plan.py` does."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (files / "steps_of_it.py").write_text("MASK = 'mask'")
    (files / "plan.py").write_text("from steps_of_it import MASK\n" + PLAN.replace('"mask"', "MASK"))
    assert plan(files) == 0


@pytest.mark.parametrize("text", ["plan", "nowhere.py:PLAN", "plan.py:OTHER", "plan.py:NONE", "plan.py:"])
def test_a_plan_that_is_none_is_refused(files, text, capsys):
    assert main(["plan", str(files / "m.safetensors"), "--plan", str(files / text)]) == 2
    assert "--plan" in capsys.readouterr().err
