"""Slots of TF1's optimizers to states of optax and back: a checkpoint that TensorFlow wrote is trained on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimizer_cases
import pytest
from optimizer_cases import OPTIMIZERS, STEPS_AFTER, STEPS_BEFORE
from paths import DATA

import jscope as js
from jscope.checkpoint import load_tf
from jscope.train import from_tf_slots, to_tf_slots

optax = pytest.importorskip("optax")

CHECKPOINT = js.Params(load_tf(DATA / "optimizers.ckpt"))
AFTER = np.load(DATA / "optimizers.npz")
BETAS = {"beta1": 0.8, "beta2": 0.99}


def options(scope: str) -> dict[str, Any]:
    return {"name": OPTIMIZERS[scope].name, **(BETAS if scope == "adam" else {})}


def variables_of(scope: str, tree: Any = CHECKPOINT) -> js.Params:
    names = [f"{scope}/{name}" for name in optimizer_cases.SHAPES]
    return js.Params({name: jnp.asarray(tree[name]) for name in names})


@jax.jit
def train(params: dict[str, js.Params], states: dict[str, Any], x: Any) -> Any:
    """One step of each optimizer, compiled together."""
    found = {}
    for scope, optimizer in OPTIMIZERS.items():
        gradients = jax.grad(lambda p, scope=scope: optimizer_cases.loss(p[scope], x, jnp.sum))(params[scope])
        updates, state = optimizer.optax(optax).update(gradients, states[scope], params[scope])
        found[scope] = optax.apply_updates(params[scope], updates), state
    return {scope: new for scope, (new, _) in found.items()}, {scope: state for scope, (_, state) in found.items()}


def trained(params: dict[str, js.Params], states: dict[str, Any], steps: range) -> list[Any]:
    """The variables and states of all optimizers after each step."""
    found = []
    for number in steps:
        params, states = train(params, states, optimizer_cases.inputs(number))
        found.append((params, states))
    return found


@pytest.fixture(scope="module")
def from_the_first_step():
    params = {scope: first_params(scope) for scope in OPTIMIZERS}
    return trained(params, fresh(params), range(STEPS_BEFORE))[-1]


@pytest.fixture(scope="module")
def from_the_checkpoint():
    params = {scope: variables_of(scope) for scope in OPTIMIZERS}
    states = {scope: from_tf_slots(CHECKPOINT, state, **options(scope)) for scope, state in fresh(params).items()}
    return trained(params, states, range(STEPS_BEFORE, STEPS_BEFORE + STEPS_AFTER))


def first_params(scope: str) -> js.Params:
    return js.Params({f"{scope}/{name}": value for name, value in optimizer_cases.first_values(scope).items()})


def fresh(params: dict[str, js.Params]) -> dict[str, Any]:
    return {scope: optimizer.optax(optax).init(params[scope]) for scope, optimizer in OPTIMIZERS.items()}


def slots_of(scope: str, tree: Any) -> dict[str, Any]:
    """What TF1 has beside the variables of a scope."""
    powers = ["beta1_power", "beta2_power"] if scope == "adam" else []
    own = [n for n in tree if n.startswith(f"{scope}/") and n.removeprefix(f"{scope}/") not in optimizer_cases.SHAPES]
    return {name: tree[name] for name in [*own, *powers]}


def assert_same(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("scope", OPTIMIZERS)
def test_training_goes_on_from_a_checkpoint_of_tensorflow(scope, from_the_checkpoint):
    for number, (params, states) in enumerate(from_the_checkpoint, STEPS_BEFORE + 1):
        after = {key.partition(".")[2]: AFTER[key] for key in AFTER.files if key.startswith(f"{number}.")}
        assert_same(params[scope].flat(), variables_of(scope, after).flat())
        found, expected = to_tf_slots(states[scope], **options(scope)), slots_of(scope, after)
        if scope == "rmsprop":  # without momentum TF1 keeps the last update, of no use to the next one
            found, expected = ({n: v for n, v in slots.items() if "Prop_1" not in n} for slots in (found, expected))
        assert_same(found, expected)


@pytest.mark.parametrize("scope", OPTIMIZERS)
def test_training_from_the_first_step_gives_the_slots_of_tensorflow(scope, from_the_first_step):
    params, states = from_the_first_step[0][scope], from_the_first_step[1][scope]
    assert_same(params.flat(), variables_of(scope).flat())
    found = to_tf_slots(states, **options(scope))
    assert set(found) == set(slots_of(scope, CHECKPOINT.flat()))
    again = from_tf_slots(found, OPTIMIZERS[scope].optax(optax).init(params), **options(scope))
    jax.tree.map(np.testing.assert_array_equal, again, states)


ADAM = optax.adam(0.1)
PARAMS = js.Params({"a/w": jnp.ones((2, 3)), "b": jnp.ones(3)})


def test_a_state_inside_others():
    def schedule(step):
        return 0.1 / (1 + step)

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.multi_transform(
            {"adam": optax.inject_hyperparams(optax.adam)(0.1), "rest": optax.sgd(schedule, 0.9)},
            PARAMS.like({"a": "adam", "b": "rest"}),
        ),
    )
    _, state = jax.jit(optimizer.update)(PARAMS, jax.jit(optimizer.init)(PARAMS), PARAMS)
    slots = to_tf_slots(state, global_step=1, scope="opt")
    assert set(slots) == {
        "opt/a/w/Adam",
        "opt/a/w/Adam_1",
        "opt/b/Momentum",
        "opt/beta1_power",
        "opt/beta2_power",
        "global_step",
    }
    again = from_tf_slots(slots, jax.jit(optimizer.init)(PARAMS), scope="opt")
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_trees_that_are_dicts():
    params = {"a": {"w": jnp.ones(2)}, "b": jnp.ones(3)}
    _, state = jax.jit(ADAM.update)(params, ADAM.init(params))
    slots = to_tf_slots(state)
    assert set(slots) >= {"a/w/Adam", "b/Adam_1"}
    jax.tree.map(np.testing.assert_array_equal, from_tf_slots(slots, ADAM.init(params)), state)


@pytest.mark.parametrize("steps", [0, 1, 3, 10, 100, 640, 700, 3_000, 20_000])
def test_steps_are_told_by_the_powers_of_beta(steps):
    """TF1 multiplies in float32. What matters is that the next steps' corrections are the same."""
    powers = [np.float32(0.9), np.float32(0.999)]
    for _ in range(steps):
        powers = [powers[0] * np.float32(0.9), powers[1] * np.float32(0.999)]
    slots = to_tf_slots(ADAM.init(PARAMS)) | {"beta1_power": powers[0], "beta2_power": powers[1]}
    count = int(from_tf_slots(slots, ADAM.init(PARAMS))[0].count)
    assert abs(count - steps) <= (1 if steps > 640 else 0)
    for beta in (0.9, 0.999):
        assert (1 - beta ** (count + 1)) == pytest.approx(1 - beta ** (steps + 1), rel=1e-6)


@pytest.mark.parametrize(("more", "count"), [({"global_step": 10**6}, 10**6), ({}, 69043)])
def test_powers_that_have_vanished(more, count):
    slots = to_tf_slots(ADAM.init(PARAMS)) | {"beta1_power": 0.0, "beta2_power": 0.0, **more}
    assert int(from_tf_slots(slots, ADAM.init(PARAMS))[0].count) == count


def without(slots: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in slots.items() if name not in names}


def test_all_that_does_not_fit_is_in_one_error():
    slots = without(to_tf_slots(ADAM.init(PARAMS)), "b/Adam") | {"a/w/Adam": jnp.ones(5), "opt/b/Adam": 1}
    with pytest.raises(js.ParamsMismatchError) as raised:
        from_tf_slots(slots, ADAM.init(PARAMS))
    assert raised.value.faults == (
        "'a/w/Adam' has shape (5,) and the state's has (2, 3)",
        "'b/Adam' is missing; there is 'opt/b/Adam'",
    )
    with pytest.raises(js.ParamsMismatchError, match="global_step"):
        from_tf_slots({}, optax.sgd(lambda step: 0.1).init(PARAMS))


def test_the_way_out_is_that_of_what_is_wrong():
    scheduled = optax.adam(lambda step: 0.1).init(PARAMS)
    slots = to_tf_slots(scheduled)
    for given, words in (
        (slots, ['"global_step"']),
        (without(slots, "b/Adam"), ["name=", '"global_step"']),
        ({**slots, "global_step": 3} | {"b/Adam": jnp.ones(5)}, ["shapes"]),
    ):
        with pytest.raises(js.ParamsMismatchError) as raised:
            from_tf_slots(given, scheduled)
        assert [word for word in ("name=", '"global_step"', "shapes") if word in raised.value.fix] == words
    assert int(from_tf_slots({**slots, "global_step": 3}, scheduled)[1].count) == 3


@pytest.mark.parametrize(
    "powers",
    [
        {"beta1_power": np.float32(np.nan)},
        {"beta1_power": np.float32(3), "beta2_power": np.float32(-1)},
        {"beta1_power": np.float32(1), "beta2_power": np.float32(1)},
        {"beta2_power": np.float32(-1)},
        {"beta2_power": np.float32(np.inf)},
    ],
)
def test_powers_that_are_none_are_refused(powers):
    with pytest.raises(js.BadArgumentError, match=r"are no powers of beta1=0\.9|are of no one number"):
        from_tf_slots(to_tf_slots(ADAM.init(PARAMS)) | powers, ADAM.init(PARAMS))


@pytest.mark.parametrize("steps", [1.7, np.float32(np.nan), -1, np.int64(2**40), np.inf, "7", True, np.ones(1)])
def test_what_is_no_number_of_steps_is_refused(steps):
    scheduled = optax.adam(lambda step: 0.1).init(PARAMS)
    slots = to_tf_slots(scheduled) | {"global_step": steps}
    for given in (slots, slots | {"beta1_power": 0.0, "beta2_power": 0.0}):  # which Adam's count is taken of, too
        with pytest.raises(js.ParamsMismatchError) as raised:
            from_tf_slots(given, scheduled)
        assert raised.value.faults[0].startswith("'global_step' ")
        assert "global_step" in raised.value.fix
    if np.ndim(steps) or not isinstance(steps, np.int64):
        with pytest.raises(js.BadArgumentError, match=r"no number of steps|does not hold"):
            to_tf_slots(scheduled, global_step=steps)
    assert to_tf_slots(scheduled, global_step=np.float32(7))["global_step"] == 7


def test_powers_are_scalars():
    state = ADAM.init(PARAMS)
    with pytest.raises(js.ParamsMismatchError) as raised:
        from_tf_slots(to_tf_slots(state) | {"beta1_power": np.array([0.9], np.float32)}, state)
    assert raised.value.faults == ("'beta1_power' has shape (1,), and is to be one number",)
    assert "'beta1_power' as scalars" in raised.value.fix


def test_states_of_several_members_are_told():
    """TF1 has powers of beta for one."""
    members = jax.vmap(ADAM.init)(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), PARAMS))
    one = jax.tree.map(lambda leaf: leaf[0], members)
    for call in (lambda state: to_tf_slots(state), lambda state: from_tf_slots(to_tf_slots(one), state)):
        with pytest.raises(js.BadTypeError, match=r"shape \(2,\) is that of several members") as raised:
            call(members)
        assert "jax.tree.map(lambda leaf: leaf[0], state)" in raised.value.fix
        call(one)


@pytest.mark.parametrize("one", [optax.trace(0.9), optax.scale_by_rss(), optax.scale_by_adadelta()])
def test_states_that_would_share_a_slot_are_refused(one):
    both = optax.chain(one, one).init(PARAMS)
    with pytest.raises(js.BadArgumentError, match="Two states have a slot 'a/w/"):
        to_tf_slots(both)
    slots = to_tf_slots(both[0])
    with pytest.raises(js.BadArgumentError, match="by itself"):
        from_tf_slots(slots, both)
    slots |= to_tf_slots(both[1], name="Mine")
    again = from_tf_slots(slots, both[0]), from_tf_slots(slots, both[1], name="Mine")
    assert jax.tree.structure(again) == jax.tree.structure(both)
    each = optax.multi_transform({"a": one, "b": one}, {"a": {"w": "a"}, "b": "b"}).init(PARAMS.to_dict())
    assert to_tf_slots(each).keys() == to_tf_slots(both[0]).keys()  # no variable has two


@pytest.mark.parametrize(
    ("call", "error", "what"),
    [
        (lambda: to_tf_slots(optax.lion(0.1).init(PARAMS)), js.BadTypeError, "ScaleByLionState"),
        (lambda: to_tf_slots(optax.scale_by_rms().init(PARAMS)), js.BadTypeError, "ScaleByRmsState"),
        (lambda: to_tf_slots(optax.MultiSteps(ADAM, 2).init(PARAMS)), js.BadTypeError, "MultiStepsState"),
        (lambda: to_tf_slots(optax.chain(ADAM, ADAM).init(PARAMS)), js.BadArgumentError, "2 states of Adam"),
        (lambda: to_tf_slots(ADAM.init([jnp.ones(2)])), js.BadTypeError, "no names"),
        (lambda: from_tf_slots("/some/Adam", ADAM.init(PARAMS)), js.BadTypeError, "by their names, not str"),
        (lambda: from_tf_slots([1], ADAM.init(PARAMS)), js.BadTypeError, "by their names, not list"),
        (
            lambda: from_tf_slots(to_tf_slots(ADAM.init(PARAMS), beta1=0.8), ADAM.init(PARAMS)),
            js.BadArgumentError,
            "beta1=0.9",
        ),
        (lambda: jax.jit(to_tf_slots)(ADAM.init(PARAMS)), js.BadTypeError, "is traced by JAX"),
        (
            lambda: jax.jit(lambda slots: from_tf_slots(slots, ADAM.init(PARAMS)))(to_tf_slots(ADAM.init(PARAMS))),
            js.BadTypeError,
            "is traced by JAX",
        ),
        (lambda: to_tf_slots(jax.eval_shape(ADAM.init, PARAMS)), js.BadTypeError, "is abstract"),
        (lambda: to_tf_slots(ADAM.init(PARAMS), scope="tr/"), js.BadArgumentError, "scope is the full name"),
        (lambda: from_tf_slots({}, ADAM.init(PARAMS), scope="/tr"), js.BadArgumentError, "scope is the full name"),
        (lambda: to_tf_slots(ADAM.init(PARAMS), scope=None), js.BadArgumentError, "not None"),
        (lambda: to_tf_slots(ADAM.init(PARAMS), powers="ab"), js.BadArgumentError, "powers are two full names"),
        (lambda: from_tf_slots({}, ADAM.init(PARAMS), powers=["a"]), js.BadArgumentError, "powers are two"),
    ],
)
def test_errors(call, error, what):
    with pytest.raises(error, match=what) as raised:
        call()
    assert "Fix:" in str(raised.value)
    assert __file__ in str(raised.value)
