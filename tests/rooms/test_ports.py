"""What ports of TF1 programs use gives what TensorFlow gave: the cases of `port_cases`, as recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
from paths import DATA
from port_cases import CASES
from test_layers import check, recorded

RECORDED = json.loads((DATA / "ports.json").read_text())
ARRAYS = np.load(DATA / "ports.npz")


def test_every_case_is_recorded():
    assert list(RECORDED) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_as_in_tensorflow(name):
    check(name, CASES[name], recorded(name, RECORDED, ARRAYS))
