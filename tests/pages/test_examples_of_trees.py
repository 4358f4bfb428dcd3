"""The examples of several programs in one tree: they train, they tell the players apart, they go on after a kill."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import ROOT
from sklearn.datasets import load_digits

import jscope as js
from jscope import checkpoint

pytest.importorskip("optax")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLES = {"gan": load("gan_digits"), "byol": load("byol_digits")}
examples = pytest.mark.parametrize("name", EXAMPLES)


def train(name: str, path: Path, steps: int = 5, batch: int = 16) -> None:
    images = () if name == "gan" else (load_digits().data.astype(np.float32) / 16,)
    EXAMPLES[name].train(*images, path / f"{name}.safetensors", steps, batch, 0)


class Killed(BaseException):
    """Comes where the process would end."""


@pytest.mark.parametrize("name", ["gan", pytest.param("byol", marks=pytest.mark.slow)])
def test_killed_and_started_again_it_ends_as_if_nothing_had_happened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = EXAMPLES[name]
    monkeypatch.setattr(module, "SAVE_EVERY", 2)
    step = module.train_step

    def killed_in_the_fourth(state, *data):
        if state.step == 3:
            raise Killed
        return step(state, *data)

    with monkeypatch.context() as context:
        context.setattr(module, "train_step", killed_in_the_fourth)
        with pytest.raises(Killed):
            train(name, tmp_path)
    train(name, tmp_path)
    assert f"Going on after step 2 of {tmp_path}" in capsys.readouterr().out

    (tmp_path / "whole").mkdir()
    train(name, tmp_path / "whole")
    resumed, whole = (checkpoint.load(path / f"{name}.safetensors") for path in (tmp_path, tmp_path / "whole"))
    assert resumed == whole
    assert len(whole["losses"]) == whole["state/step"] == 5


@pytest.mark.parametrize("name", ["byol", pytest.param("gan", marks=pytest.mark.slow)])
def test_as_a_program_it_trains_and_writes_a_picture(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    EXAMPLES[name].main(["--steps", "2", "--batch", "16", "--out", str(tmp_path / "new" / "folder")])
    printed = capsys.readouterr().out
    loss = checkpoint.load(tmp_path / "new" / "folder" / f"{name}.safetensors")["losses"][-1]
    assert "".join(f"{each:.6f}" for each in np.ravel(loss)[:1]) in printed
    assert (tmp_path / "new" / "folder" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@examples
def test_another_run_is_not_gone_on_with(name: str, tmp_path: Path) -> None:
    train(name, tmp_path, steps=1)
    with pytest.raises(SystemExit, match="is of another run"):
        train(name, tmp_path, steps=2, batch=17)


@examples
@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--batch", "x"], ["--out", __file__ + "/folder"]])
def test_wrong_arguments_are_told_in_one_line(name: str, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        EXAMPLES[name].main(wrong)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument {wrong[0]}: " in line


def changed(before: js.Params, after: js.Params) -> set[str]:
    return {name.partition("/")[0] for name in before.names if (before[name] != after[name]).any()}


def test_a_players_turn_trains_its_own_scope_alone() -> None:
    gan = EXAMPLES["gan"]
    state, data = gan.start(0), (jnp.ones((4, 64)), jnp.ones((4, gan.NOISE)))
    assert {name.partition("/")[0] for name in state.params.names} == {"generator", "critic"}
    turn = jax.jit(functools.partial(gan.turn, gan.CRITIC, gan.critic_loss))
    after, _, _ = turn(state.params, state.critic, *data)
    assert changed(state.params, after) == {"critic"}
    assert after.names == state.params.names


def test_the_target_is_trained_by_nothing_and_follows_the_online_network() -> None:
    byol = EXAMPLES["byol"]
    trained, rest = byol.SPECS.split(byol.start(0).params)
    assert {name.partition("/")[0] for name in trained.names} == {"online", "predictor"}
    assert {name.partition("/")[0] for name in rest.names} == {"target"}

    state = byol.start(0)
    assert state.params["target"] == state.params["online"]
    images = np.random.default_rng(0).random((16, 64), np.float32)
    after, _ = byol.train_step(state, images, jax.random.key(0))
    assert changed(state.params, after.params) == {"online", "predictor", "target"}
    for name, leaf in after.params["target"].flat().items():
        expected = byol.DECAY * state.params["target"][name] + (1 - byol.DECAY) * after.params["online"][name]
        np.testing.assert_allclose(leaf, expected, rtol=1e-6)
