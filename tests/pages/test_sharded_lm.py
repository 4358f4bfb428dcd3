"""`examples/sharded_lm.py`: on each mesh, in one process or two, killed and resumed, the losses of one device."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
from paths import ROOT

pytest.importorskip("optax")
pytest.importorskip("orbax.checkpoint")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

import sharded_runs

EXAMPLE = sharded_runs.load()
MESHES = [(8,), (4, 2), (2, 2, 2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of one device."""
    return sharded_runs.losses((1,), False, tmp_path_factory.mktemp("alone"))


def losses_of(call: str, folder: Path, processes_: int = 1) -> list[list[float]]:
    processes.check(f"import sharded_runs; sharded_runs.{call}", 8 // processes_, processes_)
    return json.loads((folder / "losses.json").read_text())


def check_equal(found: list[list[float]], alone: list[float]) -> None:
    for losses in found:
        np.testing.assert_allclose(losses, alone, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_killed_and_resumed_on_a_mesh_or_on_one_device_it_has_the_losses_of_one_device(tmp_path: Path) -> None:
    alone, *found = losses_of(f"killed_and_resumed({str(tmp_path)!r})", tmp_path)
    assert len(alone) == sharded_runs.STEPS
    assert alone[-1] < alone[0] - 1
    assert len(found) == 2
    check_equal(found, alone)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2], ids=["one process", "two processes"])
@pytest.mark.parametrize("explicit", [False, True], ids=["auto", "explicit"])
def test_every_mesh_has_the_losses_of_one_device(
    explicit: bool, count: int, alone: list[float], tmp_path: Path
) -> None:
    runs = [(sizes, explicit) for sizes in MESHES]
    found = losses_of(f"write_losses({runs!r}, {str(tmp_path)!r})", tmp_path, count)
    assert len(found) == len(MESHES)
    check_equal(found, alone)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "count"), [((2, 2, 2), 2), ((8,), 1)])
def test_a_process_dies_in_a_save_and_the_last_whole_step_is_found_again(
    sizes: tuple[int, ...], count: int, alone: list[float], tmp_path: Path
) -> None:
    codes, errors = processes.run(f"import sharded_runs; sharded_runs.one_dies_in_a_save({str(tmp_path)!r})", 4, 2)
    assert codes[1] == 9, errors
    with EXAMPLE.Saved(tmp_path / "run") as saved:
        assert saved.latest in (5, 10)  # 10 if all was written before the process was gone
    check_equal(losses_of(f"resumed({str(tmp_path)!r}, {sizes!r}, True)", tmp_path, count), alone)


@pytest.mark.slow
def test_as_a_program_in_two_processes_and_resumed_in_one(tmp_path: Path) -> None:
    def printed(*options: str) -> str:
        command = [sys.executable, str(ROOT / "examples" / "sharded_lm.py"), "--out", str(tmp_path), *options]
        done = subprocess.run([*command, "--layers", "2"], capture_output=True, text=True, check=False, timeout=900)
        assert not done.returncode, done.stderr
        return done.stdout

    text = printed("--mesh", "4,2", "--processes", "2", "--steps", "4", "--save-every", "2", "--explicit")
    assert "on each device" in text
    assert re.search(r"Step 4: loss \d\.\d+; being saved\.", text)
    image = (tmp_path / "sharded_lm.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert image.endswith(b"IEND\xaeB`\x82")
    text = printed("--mesh", "2", "--steps", "6", "--resume")
    assert "Going on after step 4." in text
    first, last = re.search(r"Loss: (\S+) in the first step, (\S+) in the last", text).groups()
    assert float(last) < float(first)


def test_the_picture_shows_each_part_by_those_who_hold_it() -> None:
    mesh = EXAMPLE.make_mesh((1, 1), False)
    drawn, parts = EXAMPLE.pieces((4, 6, 2), EXAMPLE.NamedSharding(mesh, sharded_runs.jax.P(None, None, "model")))
    assert drawn == [0, 1]
    assert [(part.rows, part.columns) for part in parts] == [((0, 1), (0, 1))]
    assert [part.rows for part in EXAMPLE.pieces((3,), EXAMPLE.NamedSharding(mesh, sharded_runs.jax.P()))[1]] == [
        (0, 1)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mesh", "4x2"], "argument --mesh: must be one to three sizes, as in 4,2, not '4x2'"),
        (["--mesh", "1,2,3,4"], "argument --mesh: must be one to three sizes"),
        (["--mesh", "0"], "argument --mesh: must be one to three sizes"),
        (["--processes", "3"], "argument --processes: 8 devices can't be shared out to 3 equally"),
        (["--mesh", "8", "--batch", "12"], "argument --batch: 12 rows can't be cut into 8 equal parts"),
        (["--steps", "0"], "argument --steps: must be a whole number from 1 "),
        (["--out", __file__], "argument --out: "),
    ],
)
def test_wrong_argument(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        EXAMPLE.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_another_run_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(SystemExit):
        EXAMPLE.main(["--out", str(tmp_path)])
    assert "go on with it by --resume, or name another folder" in capsys.readouterr().err
