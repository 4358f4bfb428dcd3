"""What tests of `examples/sharded_lm.py` run in processes of their own (`processes.py`): a small model of it."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from paths import ROOT

STEPS = 20
EVERY = 5  # steps between checkpoints


@functools.cache
def load() -> ModuleType:
    """The example."""
    spec = importlib.util.spec_from_file_location("sharded_lm", ROOT / "examples" / "sharded_lm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Killed(BaseException):
    """Comes where the process would end."""


@functools.cache
def model_on(sizes: tuple[int, ...], explicit: bool) -> Any:
    """A small one on a mesh of these sizes."""
    example = load()
    config = example.Config(layers=2, width=16, heads=4, length=16, batch=8)
    return example.Model(config, example.make_mesh(sizes, explicit))


def losses(
    sizes: tuple[int, ...], explicit: bool, folder: str | Path, *, resume: bool = False, killed_in: int | None = None
) -> list[float]:
    """Those of all steps on that mesh, saved to a folder; `killed_in` is the step that does not end."""
    example, model, done = load(), model_on(sizes, explicit), [0]

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def step(self, *args: Any) -> Any:
            done[0] += 1
            if done[0] == killed_in:
                raise Killed
            return model.step(*args)

    with example.Saved(Path(folder)) as saved:
        return example.train(Counted(), example.Text.read().train, saved, STEPS, EVERY, 0, resume=resume)[1]


def write_losses(runs: list[tuple[tuple[int, ...], bool]], folder: str) -> None:
    """The losses of each run, a mesh and whether it is explicit, as JSON; of several processes the first writes."""
    found = [losses(sizes, explicit, f"{folder}/{number}") for number, (sizes, explicit) in enumerate(runs)]
    write(found, folder)


def write(found: Any, folder: str) -> None:
    """Keeps what was found for the test."""
    if jax.process_index() == 0:
        Path(folder, "losses.json").write_text(json.dumps(found))


def killed_and_resumed(folder: str) -> None:
    """All on one device; and on a mesh to the eighth step, from where it goes on there, and on one device."""
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    alone = losses((1,), False, f"{folder}/alone")
    try:
        losses((4, 2), True, f"{folder}/run", killed_in=8)
    except Killed:
        shutil.copytree(f"{folder}/run", f"{folder}/copy")
        on_mesh = losses((4, 2), True, f"{folder}/run", resume=True)
        write([alone, on_mesh, losses((1,), False, f"{folder}/copy", resume=True)], folder)


def one_dies_in_a_save(folder: str) -> None:
    """In two processes: one ends when it has begun to save what it holds after the tenth step."""
    example = load()
    save = example.Saved.save

    def dying(self: Any, done: int, *rest: Any) -> None:
        save(self, done, *rest)
        if done == 10 and jax.process_index() == 1:
            os._exit(9)

    example.Saved.save = dying
    losses((4, 2), False, f"{folder}/run")


def resumed(folder: str, sizes: tuple[int, ...], explicit: bool) -> None:
    """Goes on with what `one_dies_in_a_save` left."""
    write([losses(sizes, explicit, f"{folder}/run", resume=True)], folder)
