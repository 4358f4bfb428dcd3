"""`jscope.train` gives what TensorFlow 1's `tf.train` gave: the cases of `train_cases`, as recorded, and more."""

from __future__ import annotations

import contextlib
import json
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import train_cases
from layer_cases import random_values
from paths import DATA

import jscope as js
import jscope.train as train

RECORDED = json.loads((DATA / "train.json").read_text())
ARRAYS = np.load(DATA / "train.npz")
MORE = {
    "train": train,
    "assign_moving_average": train.assign_moving_average,
    "int32": jnp.int32,
    "of": lambda variable: variable.name if isinstance(variable, js.VariableSpec) else js.name_of(variable),
    "control_dependencies": lambda ops: contextlib.nullcontext(),
}
NAMES = types.SimpleNamespace(**{**vars(js), **MORE})


def check(name: str, expected: dict[str, Any], arrays: dict[str, np.ndarray], seed: int = 0) -> None:
    """Compares a case with what TensorFlow gave."""
    noted = []

    def program(x):
        noted.append(train_cases.CASES[name](NAMES, x)[1])

    net = js.transform(program)
    specs = net.specs(jnp.zeros(train_cases.SHAPE))
    variables = [[v.name, v.dtype.name, list(v.shape), v.trainable] for v in specs.values()]
    theirs = [[n, "int32" if dtype == "int64" else dtype, *more] for n, dtype, *more in expected["variables"]]
    assert sorted(variables) == sorted(theirs)  # TensorFlow's listing ends in local variables
    assert noted[0] == expected["notes"]
    params = js.Params({v.name: random_values(v.name, v.shape, seed).astype(v.dtype) for v in specs.values()})
    for step in range(train_cases.STEPS):
        _, params = net.update(params, random_values(f"{name}/{step}", train_cases.SHAPE, seed))
        for variable in specs:
            np.testing.assert_allclose(params[variable], arrays[f"{name}.{step}.{variable}"], rtol=1e-5, atol=1e-6)


def test_every_case_is_recorded():
    assert list(RECORDED) == list(train_cases.CASES)


@pytest.mark.parametrize("name", train_cases.CASES)
def test_as_in_tensorflow(name):
    check(name, RECORDED[name], ARRAYS)


# Where TensorFlow is no yardstick -------------------------------------------------------------------------------------

EMA = train.ExponentialMovingAverage(0.5)


def averaged(x):
    w = js.get_variable("w", [], initializer=js.ones_initializer())
    js.assign(w, w + x)
    EMA.apply([w])
    return EMA.average(w)


def test_an_average_starts_at_the_initial_value_of_the_array_that_is_given():
    net = js.transform(averaged)
    params = net.init(jax.random.key(0), 2.0)
    assert params["w/ExponentialMovingAverage"] == params["w"] == 1
    average, params = net.update(params, 2.0)
    assert average == params["w/ExponentialMovingAverage"] == 2
    assert params["w"] == 3


def test_one_object_serves_many_programs():
    def scoped(x):
        with js.variable_scope("s"):
            return averaged(x)

    for _ in range(2):
        assert list(js.transform(averaged).specs(1.0)) == ["w", "w/ExponentialMovingAverage"]
        assert list(js.transform(scoped).specs(1.0)) == ["s/w", "s/s/w/ExponentialMovingAverage"]
    assert EMA.average_name("s/w") == "s/w/ExponentialMovingAverage"
    with pytest.raises(js.OutsideProgramError):
        EMA.average("w")


def test_averages_inside_a_loop():
    def program(x):
        w = js.get_variable("w", [])
        EMA.apply([w])

        def body(carry, _):
            js.assign("w", js.value("w") + x)
            EMA.apply(["w"])
            return carry, None

        jax.lax.scan(body, None, None, length=3)
        return EMA.average("w")

    params = {"w": jnp.float32(0), "w/ExponentialMovingAverage": jnp.float32(0)}
    average, params = jax.jit(js.transform(program).update)(params, 1.0)
    assert average == params["w/ExponentialMovingAverage"] == 0.5 * (0.5 * (0.5 * 0 + 0.5 * 1) + 0.5 * 2) + 0.5 * 3


def test_names_to_restore_outside_of_programs():
    def model(x):
        with js.variable_scope("a"):
            w = js.get_variable("w", [2])
            js.get_variable("moving", [2], trainable=False)
            js.get_variable("kept", [], trainable=False, collections=[js.GraphKeys.MOVING_AVERAGE_VARIABLES])
            js.get_local_variable("local", [])
        return x * w

    names = {name: v.name for name, v in EMA.variables_to_restore(js.transform(model).specs(1.0)).items()}
    assert names == {
        "a/w/ExponentialMovingAverage": "a/w",
        "a/kept/ExponentialMovingAverage": "a/kept",
        "a/moving": "a/moving",
    }


def test_names_to_restore_where_averages_were_made_in_a_scope():
    """Those that the checkpoint of that program has; `w` and `a/w` are two."""

    def model(x):
        w = js.get_variable("w", [])
        with js.variable_scope("a"):
            inner = js.get_variable("w", [])
        with js.variable_scope("train/a"):
            EMA.apply()
        return EMA.average(w) * EMA.average(inner)

    specs = js.transform(model).specs(1.0)
    restored = {name: v.name for name, v in EMA.variables_to_restore(specs).items()}
    assert restored == {
        "train/a/w/ExponentialMovingAverage": "w",
        "train/a/a/w/ExponentialMovingAverage": "a/w",
    }
    assert restored.keys() <= set(specs)
    assert EMA.variables_to_restore(js.Specs([specs["w"], specs["a/w"]])).keys() == {
        "w/ExponentialMovingAverage",
        "a/w/ExponentialMovingAverage",
    }


@pytest.mark.parametrize("given", [None, js.transform(averaged), [], ["w"], js.Params({"w": jnp.ones(2)})])
def test_names_to_restore_outside_of_programs_are_those_of_specs(given):
    with pytest.raises(js.OutsideProgramError) as error:
        EMA.variables_to_restore(given)
    assert "variables_to_restore(net.specs(...))" in error.value.fix
    assert error.value.where.startswith(__file__)


def test_no_gradient_through_what_has_moved():
    def program(x):
        mean = js.get_variable("mean", [], initializer=js.zeros_initializer(), trainable=False)
        return x * train.assign_moving_average(mean, x, 0.5, zero_debias=False)

    gradient = jax.grad(lambda x: js.transform(program).update({"mean": jnp.float32(0)}, x)[0])(3.0)
    assert gradient == 1.5


def moved(dtype: Any, value: Any, decay: Any, *, zero_debias: bool = False) -> Any:
    variable = js.get_variable("v", [3], dtype, initializer=js.zeros_initializer())
    return train.assign_moving_average(variable, value, decay, zero_debias)


@pytest.mark.parametrize("value", [2, 2.0, True, np.float64(2), np.full(3, 2.0), jnp.full(3, 2, jnp.int8), jnp.ones(1)])
def test_values_that_an_average_moves_towards(value):
    net = js.transform(lambda: moved(jnp.float32, value, np.float32(0.5)))
    mean, _ = net.update({"v": jnp.zeros(3)})
    np.testing.assert_array_equal(mean, np.broadcast_to(np.asarray(value) / 2, 3))


@pytest.mark.parametrize(
    ("program", "error", "what"),
    [
        (lambda: EMA.apply([jnp.ones(3)]), js.BadArgumentError, "array that is no variable's"),
        (lambda: EMA.apply([js.get_variable("n", [], jnp.int32)]), js.BadTypeError, "'n' has dtype int32"),
        (lambda: EMA.apply(["nobody"]), js.UnknownNameError, "nobody"),
        (lambda: moved(jnp.int32, 1, 0.9), js.BadTypeError, "'v' has dtype int32; averages are of floating numbers"),
        (lambda: moved(jnp.bool_, True, 0.9), js.BadTypeError, "'v' has dtype bool"),
        (lambda: moved(jnp.float32, None, 0.9), js.BadTypeError, "value of a moving average is a number.*not None"),
        (lambda: moved(jnp.float32, "1", 0.9), js.BadTypeError, "value of a moving average is a number.*not '1'"),
        (lambda: moved(jnp.float32, jax.random.key(0), 0.9), js.BadTypeError, "value of a moving average is a number"),
        (lambda: moved(jnp.float32, 1, "0.9"), js.BadTypeError, "decay of a moving average is a number.*not '0.9'"),
        (lambda: moved(jnp.float32, 1, None), js.BadTypeError, "decay of a moving average is a number.*not None"),
        (lambda: moved(jnp.float32, jnp.ones(2), 0.9), js.ShapeMismatchError, r"'v' of shape \(3,\) is moved towards"),
        (lambda: moved(jnp.float32, jnp.ones((2, 3)), 0.9), js.ShapeMismatchError, r"of shape \(2, 3\)"),
        (lambda: train.ExponentialMovingAverage(None), js.BadTypeError, "decay of a moving average"),
        (lambda: train.ExponentialMovingAverage("0.5"), js.BadTypeError, "decay of a moving average"),
        (lambda: train.ExponentialMovingAverage(0.5, "ema"), js.BadTypeError, "number of updates of a moving average"),
        (lambda: train.ExponentialMovingAverage(0.5, name=""), js.BadArgumentError, "name of averages"),
        (lambda: train.ExponentialMovingAverage(0.5, name="ema/"), js.BadArgumentError, "name of averages"),
        (lambda: train.ExponentialMovingAverage(0.5, name=None), js.BadArgumentError, "name of averages"),
        (lambda: train.assign_moving_average(jnp.ones(3), 1, 0.9), js.BadArgumentError, "value"),
        (
            lambda: (
                [js.add_to_collection("global_step", js.get_variable(n, [], jnp.int32)) for n in "ab"]
                and train.get_global_step()
            ),
            js.BadArgumentError,
            "2 global steps",
        ),
    ],
)
def test_errors(program, error, what):
    with pytest.raises(error, match=what) as raised:
        js.transform(program).specs()
    assert "Fix:" in str(raised.value)
    assert __file__ in str(raised.value)


def test_apply_of_a_program_that_moves_averages_is_refused():
    with pytest.raises(js.AssignError, match="update"):
        js.transform(averaged).apply(js.transform(averaged).init(jax.random.key(0), 1.0), 1.0)
