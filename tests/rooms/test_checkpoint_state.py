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
from jscope.checkpoint.safetensors_file import save_with

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


def test_what_starts_a_run_is_the_template_of_what_it_saved(tmp_path):
    """A jitted step makes arrays of numbers: weak ones of those that it only counts on."""

    def start():
        return {"w": jnp.zeros(2, jnp.bfloat16), "step": 0, "best": float("inf"), "rate": 0.1, "done": False}

    @jax.jit
    def step(state):
        best = jnp.minimum(state["best"], state["w"].sum().astype(jnp.float32))
        w = state["w"] * state["rate"] + 1
        return {"w": w, "step": state["step"] + 1, "best": best, "rate": state["rate"] * 0.5, "done": state["step"] > 9}

    @jax.jit
    def used(state):
        return [state["w"] * state[name] for name in ("step", "best", "rate")]

    state = start()
    for _ in range(3):
        save_state(tmp_path / "s", state)
        for template in (start(), jax.eval_shape(start), jax.eval_shape(step, start()), state, step(state)):
            restored, report = load_state(tmp_path / "s", template)
            assert bits(used(restored)) == bits(used(state))
            assert bits(step(restored)) == bits(step(state))
            assert not report.unverified
        assert type(load_state(tmp_path / "s", start()).state["step"]) is int
        state = step(state)


def test_weak_types_are_those_of_what_was_saved(tmp_path):
    weak, strong = jnp.asarray(1.5), jnp.float32(1.5)
    for saved in ({"a": weak, "b": strong}, {"a": 1.5, "b": strong}):
        save_state(tmp_path / "s", saved)
        for template in (strong, weak, jax.eval_shape(lambda: 0.0), 2.5):
            restored, _ = load_state(tmp_path / "s", dict.fromkeys("ab", template))
            assert jnp.asarray(restored["a"]).weak_type
            assert not jnp.asarray(restored["b"]).weak_type
            assert (restored["a"], restored["b"]) == (1.5, 1.5)


def test_numbers_fill_no_arrays_that_do_not_hold_them(tmp_path):
    int32 = jnp.int32(0)
    save_state(tmp_path / "s", {"n": 2**40})
    with pytest.raises(js.ParamsMismatchError, match="'n' has values that are out of the range of int32") as error:
        load_state(tmp_path / "s", {"n": int32})
    assert error.value.fix == "give a template with a number of Python there"
    assert load_state(tmp_path / "s", {"n": 0}).state["n"] == 2**40
    for saved, template in ((7, jnp.float32(0)), (7.5, int32), (7, jnp.zeros(1, int)), (True, 0), (0, False), (7, 0.0)):
        save_state(tmp_path / "s", {"n": saved})
        with pytest.raises(js.ParamsMismatchError, match="'n' has "):
            load_state(tmp_path / "s", {"n": template})


@pytest.mark.skipif(jax.dtypes.canonicalize_dtype("int64") == np.int64, reason="JAX has 64 bits here")
def test_64_bits_of_numpy_are_not_cut(tmp_path):
    state = {"n": np.int64(2**40), "rows": np.arange(2) + 2**40}
    save_state(tmp_path / "s", state)
    assert bits(load_state(tmp_path / "s", state).state) == bits(state)
    assert load_state(tmp_path / "s", state | {"n": 0}).state["n"] == 2**40
    with pytest.raises(js.ParamsMismatchError, match="'n' has dtype int64, wanted int32"):
        load_state(tmp_path / "s", state | {"n": jnp.int32(0)})
    shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in state.items()}
    with pytest.raises(js.ParamsMismatchError) as error:
        load_state(tmp_path / "s", shapes)
    why = "is to be an array of JAX of dtype int64, which it has only with jax_enable_x64"
    assert error.value.faults == (f"'n' {why}", f"'rows' {why}")
    assert error.value.fix == "turn jax_enable_x64 on, or want arrays of numpy there"


ON_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jscope.checkpoint import load_state, save_state
assert jax.device_count() == 4
for types in jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit:
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(types,) * 2)
    for axes, shape in (("x",), (4, 3)), ((), (4, 3)), ((), ()), (("x", "y"), (4, 4)):
        there = jax.sharding.NamedSharding(mesh, jax.P(*axes))
        for dtype in int, float:
            weak = jax.device_put(jnp.broadcast_to(jnp.asarray(dtype(3)), shape), there)
            strong = weak.astype(weak.dtype)
            assert (weak.weak_type, strong.weak_type) == (True, False)
            state = {"weak": weak, "strong": strong, "key": jax.random.key(1), "step": 7}
            save_state(sys.argv[1], state)
            with jax.set_mesh(mesh):
                for template in state, jax.eval_shape(lambda: state), jax.eval_shape(lambda x: x, state):
                    loaded, _ = load_state(sys.argv[1], template)
                    for name in "weak", "strong":
                        assert loaded[name].weak_type == state[name].weak_type
                        assert loaded[name].dtype == state[name].dtype
                        np.testing.assert_array_equal(loaded[name], state[name])
                        if template is state or (axes and types == jax.sharding.AxisType.Explicit):
                            assert loaded[name].sharding.is_equivalent_to(there, len(shape))
                    assert (loaded["step"], loaded["key"]) == (7, jax.random.key(1))
print("all right")
"""


def test_leaves_on_several_devices_come_back_as_they_were(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ON_DEVICES, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | flags, check=False)
    assert "all right" in done.stdout, done.stderr[-3000:]


def test_a_wrong_sharding_is_no_fault_of_the_model(tmp_path):
    save_state(tmp_path / "s", {"a": jnp.ones(3)})
    nowhere = jax.sharding.NamedSharding(jax.sharding.AbstractMesh((1,), ("d",)), jax.P("d"))
    with pytest.raises(js.ParamsMismatchError, match="a mesh that has no devices") as error:
        load_state(tmp_path / "s", {"a": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=nowhere)})
    assert error.value.fix == "correct the template's shardings"


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
    assert checkpoint.open(tmp_path / "s").metadata == {"note": "kept"}


def test_the_metadata_of_one_state_are_those_of_the_next(tmp_path):
    state = {"key": jax.random.key(1), "w": jnp.ones(2), "step": 7}
    save_state(tmp_path / "s", state, metadata={"note": "kept", "random keys": "mine"})
    opened = checkpoint.open(tmp_path / "s")
    save_state(tmp_path / "t", state, metadata=opened.metadata)
    assert checkpoint.open(tmp_path / "t").metadata == {"note": "kept", "random keys": "mine"}
    assert bits(load_state(tmp_path / "t", state).state) == bits(state)


def test_a_plan_keeps_what_leaves_of_a_state_are(tmp_path):
    state = {"key": jax.random.key(1), "scale": jnp.asarray(0.5), "step": 7}
    save_state(tmp_path / "s", state, metadata={"note": "kept"})
    plan = checkpoint.Plan().rename({"key": "rng"}).drop("scale")
    opened = checkpoint.open(tmp_path / "s")
    for name, options in (("file", {}), ("folder", {"max_shard_bytes": 1})):
        plan.save(tmp_path / name, {"rng": opened["key"], "step": opened["step"]}, like=opened, **options)
        assert bits(load_state(tmp_path / name, state).state) == bits(state)
        assert checkpoint.open(tmp_path / name).metadata == {"note": "kept"}


def test_a_state_from_before_is_read(tmp_path):
    """It had the kinds of keys among the user's metadata, and said nothing of weak types."""
    state = {"key": jax.random.key(1), "scale": jnp.asarray(0.5), "step": 7}
    arrays = {"key": jax.random.key_data(state["key"]), "scale": state["scale"], "step": np.int64(7)}
    checkpoint.save(tmp_path / "s", arrays, metadata={"random keys": '{"key": "key<fry>"}'})
    assert bits(load_state(tmp_path / "s", state).state) == bits(state)
    restored, _ = load_state(tmp_path / "s", jax.eval_shape(lambda: state))
    assert (restored["step"].weak_type, restored["scale"].weak_type) == (True, True)


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
        ({"a": 1j}, "'a' is a complex number of 128 bits"),
        ({"a/b": 1, "a": {"b": 2}}, "would have the name 'a/b'"),
    ],
)
def test_what_a_file_does_not_hold_is_refused_by_name(tmp_path, state, words):
    with pytest.raises(js.CheckpointError, match=words):
        save_state(tmp_path / "s", state)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("metadata", ["seed", 7, ["seed"], [], {"seed": 7}, {"jscope.kinds": "{}"}])
def test_what_are_no_metadata_is_refused(tmp_path, metadata):
    with pytest.raises(js.CheckpointError) as error:
        save_state(tmp_path / "s", {"a": 1}, metadata=metadata)
    assert error.value.kind == "bad_metadata"
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
        with pytest.raises(js.CheckpointError, match="which arrays are keys"):
            load_state(tmp_path / "s", {"w": np.ones(2, np.uint32)})
        save_with({"jscope.kinds": text}, tmp_path / "s", {"w": np.ones(2, np.uint32)}, metadata=None)
        with pytest.raises(js.CheckpointError, match="which arrays are keys"):
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
