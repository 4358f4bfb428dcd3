"""A training state in one file: what goes on from it is the run that was never interrupted."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import ROOT

import jscope as js
from jscope import checkpoint
from jscope.checkpoint import load_state, save_state

optax = pytest.importorskip("optax")


def program(x: jax.Array) -> jax.Array:
    with js.variable_scope("tower"):
        w = js.get_variable("kernel", [4, 3])
        noise = jax.random.normal(js.next_key(), x.shape)
        return jnp.mean((jnp.tanh((x + 0.1 * noise) @ w) + js.get_variable("bias", [3]) - 1) ** 2)


net = js.transform(program)
X = jnp.linspace(-1, 1, 8).reshape(2, 4)

OPTIMIZERS = {
    "adam": lambda: optax.adam(1e-2),
    "schedule": lambda: optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1e-2, 3, 20)),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-2, b1=0.8),
    "inject a schedule": lambda: optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(1e-2, 0.0, 9), momentum=0.9),
    "multi steps": lambda: optax.MultiSteps(optax.adam(1e-2), every_k_schedule=3),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.add_noise(0.1, 0.5, 3), optax.lamb(1e-2)),
    "masked": lambda: optax.masked(optax.adam(1e-2), lambda p: js.Params(p).like([(".*kernel", True), (".*", False)])),
}


def new_state(make: Any) -> dict[str, Any]:
    params = net.specs(X).init(jax.random.key(0))
    return {
        "params": params,
        "opt_state": make().init(params),
        "ema": jax.tree.map(jnp.zeros_like, params),
        "step": 0,
        "key": jax.random.key(7),
        "best": float("inf"),
        "done": False,
    }


def step_of(make: Any) -> Any:
    optimizer = make()

    @jax.jit
    def step(params: Any, opt_state: Any, ema: Any, key: jax.Array) -> tuple[Any, ...]:
        key, rng = jax.random.split(key)
        loss, gradients = jax.value_and_grad(lambda p: net.apply(p, X, rng=rng))(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        return loss, params, opt_state, jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, ema, params), key

    return step


def trained(state: dict[str, Any], step: Any, steps: int) -> dict[str, Any]:
    state = dict(state)
    for _ in range(steps):
        loss, *rest = step(state["params"], state["opt_state"], state["ema"], state["key"])
        state |= dict(zip(("params", "opt_state", "ema", "key"), rest, strict=True))
        state |= {"step": state["step"] + 1, "best": min(state["best"], float(loss))}
    return state


def bits(tree: Any) -> list[Any]:
    def of(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return str(leaf.dtype), np.asarray(jax.random.key_data(leaf)).tobytes()
        weak = getattr(leaf, "weak_type", None)
        return type(leaf), weak, np.asarray(leaf).dtype, np.asarray(leaf).shape, np.asarray(leaf).tobytes()

    return [of(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_that_goes_on_is_the_run_that_was_not_interrupted(tmp_path, name):
    make = OPTIMIZERS[name]
    step = step_of(make)
    new = new_state(make)
    half = trained(new, step, 4)
    save_state(tmp_path / "s", half)
    restored, report = load_state(tmp_path / "s", new)
    assert jax.tree.structure(restored) == jax.tree.structure(half)
    assert bits(restored) == bits(half)
    assert bits(trained(restored, step, 3)) == bits(trained(half, step, 3))
    assert not report.unused
    assert not report.unverified


def test_shapes_alone_will_do_as_a_template(tmp_path):
    make = OPTIMIZERS["adam"]
    state = {name: value for name, value in new_state(make).items() if name not in ("step", "best", "done")}
    state["weak"] = jnp.asarray(0.5)
    save_state(tmp_path / "s", state)
    restored, _ = load_state(tmp_path / "s", jax.eval_shape(lambda: state))
    assert bits(restored) == bits(state)


def test_names_are_the_ways_to_the_leaves(tmp_path, capsys):
    params = js.Params({"tower/kernel": jnp.ones(2)})
    save_state(tmp_path / "s", {"params": params, "opt": optax.adam(1.0).init(params), "more": (1, [2.0, True])})
    assert list(checkpoint.open(tmp_path / "s")) == [
        "more/0",
        "more/1/0",
        "more/1/1",
        "opt/0/count",
        "opt/0/mu/tower/kernel",
        "opt/0/nu/tower/kernel",
        "params/tower/kernel",
    ]
    save_state(tmp_path / "s", 7)
    assert load_state(tmp_path / "s", 0).state == 7


def test_each_leaf_comes_back_as_the_template_has_it(tmp_path):
    state = {
        "numpy": np.arange(3, dtype=np.int64),
        "scalar": np.float32(3),
        "bf16": jnp.ones((2, 2), jnp.bfloat16),
        "weak": jnp.asarray(0.1),
        "weak rows": jnp.broadcast_to(jnp.asarray(2), (3,)),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "raw key": jax.random.PRNGKey(0),
        "int": -(2**62),
        "empty": jnp.zeros((0, 3)),
        "nan": float("nan"),
        "none": None,
    }
    save_state(tmp_path / "s", state, metadata={"note": "kept"})
    restored, _ = load_state(tmp_path / "s", state)
    assert bits(restored) == bits(state)
    assert restored["none"] is None
    assert not restored["weak"].committed
    assert checkpoint.open(tmp_path / "s").metadata["note"] == "kept"


def test_a_changed_model_is_told_by_name_and_at_once(tmp_path):
    params = js.Params({"tower/kernel": jnp.ones((4, 3)), "tower/bias": jnp.ones(3), "gone": jnp.ones(1)})
    save_state(
        tmp_path / "s", {"params": params, "opt": optax.sgd(0.1, momentum=0.9).init(params), "key": jax.random.key(0)}
    )
    new = js.Params(
        {"tower/kernel": jnp.ones((4, 5)), "tower/bias": jnp.ones(3, jnp.bfloat16), "tower/scale": jnp.ones(3)}
    )
    with pytest.raises(js.ParamsMismatchError) as error:
        load_state(tmp_path / "s", {"params": new, "opt": optax.sgd(0.1).init(new), "key": jax.random.PRNGKey(0)})
    assert error.value.faults == (
        "'params/tower/bias' has dtype float32, wanted bfloat16",
        "'params/tower/kernel' has shape (4, 3), wanted (4, 5)",
        "'params/tower/scale' is missing (near: 'params/gone')",
        "'opt/0/trace/gone' is not used",
        "'opt/0/trace/tower/bias' is not used",
        "'opt/0/trace/tower/kernel' is not used",
        "'params/gone' is not used (near: 'params/tower/scale')",
        "'key' is key<fry>, wanted no key",
    )
    assert "template" in error.value.fix
    assert not set(re.findall(r"(\w+)=", error.value.fix)) - set(inspect.signature(load_state).parameters)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": "text"}, "'a' is no array"),
        ({"a": lambda: 1}, "'a' is no array"),
        ({"a": np.array(["x"])}, "'a' is no array"),
        ({"a": 2**64}, "more than 64 bits"),
        ({"a": np.ones(2, np.complex128)}, "complex128"),
        ({"a/b": 1, "a": {"b": 2}}, "would have the name 'a/b'"),
    ],
)
def test_what_a_file_does_not_hold_is_refused_by_name(tmp_path, state, words):
    with pytest.raises(js.CheckpointError, match=words):
        save_state(tmp_path / "s", state)
    assert not os.listdir(tmp_path)


def test_a_state_is_not_saved_while_jax_traces(tmp_path):
    with pytest.raises(js.CheckpointError, match="while JAX traces"):
        jax.jit(lambda x: save_state(tmp_path / "s", {"x": x}))(1.0)


def test_a_key_of_another_kind_is_told(tmp_path):
    save_state(tmp_path / "s", {"key": jax.random.key(0, impl="rbg")})
    with pytest.raises(js.ParamsMismatchError, match="key<rbg>, wanted key<fry>"):
        load_state(tmp_path / "s", {"key": jax.random.key(0)})


def test_metadata_that_lie_about_keys_are_a_fault_of_the_file(tmp_path):
    for text in ("[", "[]", '{"w": 1}', "[" * 100_000):
        checkpoint.save(tmp_path / "s", {"w": np.ones(2, np.uint32)}, metadata={"random keys": text})
        with pytest.raises(js.CheckpointError):
            load_state(tmp_path / "s", {"w": np.ones(2, np.uint32)})


SAVING = """
import sys, jax, numpy as np
from jscope.checkpoint import save_state
number = int(sys.argv[2])
while True:
    save_state(sys.argv[1], {"step": number, "w": np.full(300_000, number, np.float32)})
    print(number, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_a_whole_state(tmp_path):
    path = tmp_path / "state.safetensors"
    rng = np.random.default_rng(0)
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    seen = 0
    for _ in range(50):
        command = [sys.executable, "-c", SAVING, str(path), str(seen + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as child:
            assert child.stdout is not None
            reported = int(child.stdout.readline())
            time.sleep(rng.uniform(0, 0.05))
            child.send_signal(signal.SIGKILL)
            reported = max([reported, *(int(line) for line in child.stdout.read().split())])
        state, _ = load_state(path, {"step": 0, "w": np.zeros(300_000, np.float32)})
        assert state["step"] >= reported > seen
        assert (state["w"] == state["step"]).all()
        seen = state["step"]
    save_state(path, {"step": 0})
    assert os.listdir(tmp_path) == [Path(path).name]
