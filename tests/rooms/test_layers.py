"""The layers give what TensorFlow 1 gave: names, shapes, trainable flags, collections, losses, outputs, gradients."""

from __future__ import annotations

import inspect
import json
import pickle
from typing import Any

import numpy as np
import pytest
from layer_cases import CASES, Case
from layer_runs import run_jscope
from paths import DATA

import jscope as js
import jscope.layers

RECORDED = json.loads((DATA / "layers.json").read_text())
ARRAYS = np.load(DATA / "layers.npz")


def recorded(name: str, notes: Any = RECORDED, arrays: Any = ARRAYS) -> dict[str, Any]:
    """What TensorFlow gave, in the form of `run_jscope`."""
    result: dict[str, Any] = dict(notes[name])
    for key in arrays.files:
        case, kind, _ = key.split(".")
        if case == name:
            result.setdefault(kind, []).append(arrays[key])
    return result


def check(name: str, case: Case, expected: dict[str, Any], seed: int = 0) -> None:
    """Compares a case with what TensorFlow gave."""
    if case.error is not None:
        with pytest.raises(case.error):
            run_jscope(name, case, seed)
        return
    found = run_jscope(name, case, seed)
    assert found["variables"] == expected["variables"]
    assert found["collections"] == expected["collections"]
    if case.one_loss_each:
        assert len(found["losses"]) < len(expected["losses"])
        found["losses"], expected["losses"] = [sum(found["losses"])], [sum(expected["losses"])]
    for kind in ("losses", "outputs", "gradients", "updates"):
        assert len(found.get(kind, [])) == len(expected.get(kind, [])), kind
        # Sums of large numbers that cancel are as exact as the largest; so are the gradients of one objective.
        largest = max((float(abs(theirs).max()) for theirs in expected.get(kind, [])), default=0.0)
        for mine, theirs in zip(found.get(kind, []), expected.get(kind, []), strict=True):
            assert mine.shape == theirs.shape
            assert mine.dtype == theirs.dtype
            atol = 1e-5 * max(1.0, largest if kind == "gradients" else float(abs(theirs).max()))
            if theirs.dtype == np.float16:
                atol *= 200  # a float16 has three digits
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=atol, err_msg=kind)


def test_every_case_is_recorded():
    assert list(RECORDED) == [*CASES, "_signatures"]


@pytest.mark.parametrize("name", CASES)
def test_as_in_tensorflow(name):
    check(name, CASES[name], recorded(name))


@pytest.mark.parametrize("name", RECORDED["_signatures"])
def test_signature(name):
    """Arguments have TensorFlow's names, order and defaults; further ones come last.

    `trainable` alone has another default: None, which leaves it to the scope (`js.variable_scope(trainable=False)`).
    """
    place, _, function = name.partition(".")
    thing = getattr(js.layers if place == "layers" else js.layers.contrib, function)
    parameters = inspect.signature(thing).parameters.values()
    mine = [(p.name, p.default) for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    theirs = RECORDED["_signatures"][name]
    assert [argument for argument, _ in mine][: len(theirs)] == [argument for argument, _ in theirs]
    assert {argument for argument, _ in mine[len(theirs) :]} <= FURTHER.get(function, set())
    for (argument, default), (_, wanted) in zip(mine, theirs, strict=False):
        if argument == "trainable":
            assert default is None  # as the scope says, which is True unless it is frozen
        elif wanted != "...":
            assert default == (tuple(wanted) if isinstance(wanted, list) else wanted), argument


FUNCTIONS = [
    (room, name)
    for room in (js.layers, js.layers.contrib)
    for name in room.__all__
    if inspect.isfunction(vars(room)[name])
]


@pytest.mark.parametrize(("room", "name"), FUNCTIONS, ids=[f"{room.__name__}.{name}" for room, name in FUNCTIONS])
def test_each_layer_is_a_function_of_its_own(room: Any, name: str) -> None:
    """Also where a family makes it: it has its own name and docstring, and can be pickled."""
    function = vars(room)[name]
    assert function.__name__ == function.__qualname__
    assert vars(room)[function.__name__] is function  # of two names of one function, the one that it has
    assert "$" not in function.__doc__
    assert pickle.loads(pickle.dumps(function)) is function
    assert not {"args", "kwargs"} & set(inspect.signature(function).parameters) or name in ("repeat", "stack")


# What comes after TensorFlow's arguments, which takes these by `**kwargs`, or has them nowhere.
FURTHER = {
    "BasicRNNCell": {"trainable"},
    "GRUCell": {"trainable"},
    "LSTMCell": {"trainable"},
    "BasicLSTMCell": {"trainable"},
    "RNNCell": {"_reuse"},
    "repeat": {"scope"},
    "stack": {"scope"},
    "Layer": {"_scope", "_reuse"},
}
for _name in js.layers.__all__:
    _class = getattr(js.layers, _name)
    if inspect.isclass(_class) and issubclass(_class, js.layers.Layer) and _class is not js.layers.Layer:
        FURTHER[_name] = {"trainable", "name", "dtype", "_scope", "_reuse"}
