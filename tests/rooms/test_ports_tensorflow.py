"""The cases of `port_cases` and `train_cases` with other random values, in TensorFlow and in jscope side by side.

It needs the extra `jax-scope[tensorflow]`, and is skipped without it.
"""

from __future__ import annotations

import warnings

import numpy as np
import optimizer_cases
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorflow")
    pytest.importorskip("tf_slim")

import test_train
import train_cases
from port_cases import CASES
from record_layers import run_tensorflow
from record_ports import run_recipes, run_steps, train_by_optimizers
from test_layers import check
from test_port_recipes import check as check_recipes

from jscope.checkpoint import load_tf, save_tf

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


def test_tensorflow_trains_on_from_slots_that_optax_gave(tmp_path):
    slots = pytest.importorskip("test_train_slots")
    recorded = train_by_optimizers(str(tmp_path / "theirs"))
    first = {scope: slots.first_params(scope) for scope in optimizer_cases.OPTIMIZERS}
    params, states = slots.trained(first, slots.fresh(first), range(optimizer_cases.STEPS_BEFORE))[-1]
    mine = {"global_step": np.int64(optimizer_cases.STEPS_BEFORE)}
    for scope in optimizer_cases.OPTIMIZERS:
        mine |= params[scope].flat() | slots.to_tf_slots(states[scope], **slots.options(scope))
    assert set(mine) == set(load_tf(tmp_path / "theirs"))
    save_tf(tmp_path / "mine", mine)
    found = train_by_optimizers(str(tmp_path / "mine"), restores=True)
    assert set(found) == set(recorded)
    for name in set(found) - {f"{n}.rmsprop/{v}/RMSProp_1" for n in (4, 5, 6) for v in optimizer_cases.SHAPES}:
        np.testing.assert_allclose(found[name], recorded[name], rtol=2e-5, atol=1e-6, err_msg=name)


def test_recipes_as_in_tensorflow_now():
    check_recipes(run_recipes())
