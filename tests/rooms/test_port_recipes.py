"""The lines of docs/tf1-to-jscope.md on schedules, losses and clipping give what TensorFlow gave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from paths import DATA
from recipe_cases import LOSSES, SCHEDULE_STEPS, SCHEDULES

optax = pytest.importorskip("optax")

RECORDED = dict(np.load(DATA / "recipes.npz"))


def check(recorded: dict[str, Any]) -> None:
    """Compares all of them."""
    assert set(recorded) == {f"schedule.{name}" for name in SCHEDULES} | {f"loss.{name}" for name in LOSSES}
    for name, (_, make) in SCHEDULES.items():
        found = make(optax)(np.arange(SCHEDULE_STEPS))
        np.testing.assert_allclose(found, recorded[f"schedule.{name}"], rtol=1e-5, err_msg=name)
    for name, (_, make) in LOSSES.items():
        np.testing.assert_allclose(make(optax), recorded[f"loss.{name}"], rtol=1e-5, atol=1e-6, err_msg=name)


def test_as_in_tensorflow():
    check(RECORDED)
