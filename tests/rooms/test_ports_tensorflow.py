"""The cases of `port_cases` and `train_cases` with other random values, in TensorFlow and in jscope side by side.

It needs the extra `jscope[tensorflow]`, and is skipped without it.
"""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorflow")
    pytest.importorskip("tf_slim")

import test_train
import train_cases
from port_cases import CASES
from record_layers import run_tensorflow
from record_ports import run_steps
from test_layers import check

SEED = 30_000


@pytest.mark.parametrize("name", CASES)
def test_as_in_tensorflow_now(name):
    case = CASES[name]
    if case.error is not None:
        with pytest.raises(case.error):
            run_tensorflow(name, case, SEED)
    check(name, case, {} if case.error else run_tensorflow(name, case, SEED), SEED)


@pytest.mark.parametrize("name", train_cases.CASES)
def test_train_as_in_tensorflow_now(name):
    test_train.check(name, *run_steps(name, train_cases.CASES[name], SEED), SEED)
