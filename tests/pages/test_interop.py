"""`Params` in the hands of the libraries that its users have, each the real one."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import orbax.checkpoint.experimental.v1 as ocp_v1
import pytest
import safetensors.flax
import safetensors.numpy
import treescope
from jax.sharding import NamedSharding

import jscope as js

KEY = jax.random.key(0)
X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)


def dense(x, size):
    kernel = js.get_variable("kernel", [x.shape[-1], size])
    return x @ kernel + js.get_variable("bias", [size], initializer=js.zeros_initializer())


def program(x):
    with js.variable_scope("tower"):
        for _ in range(2):
            with js.variable_scope(None, "dense"):
                x = jnp.tanh(dense(x, 3))
    with js.variable_scope("head"):
        return dense(x, 2)


net = js.transform(program)
specs = net.specs(X)
PARAMS = net.init(KEY, X)
# TF1's optimizers name their slots so; no nested dict can hold both.
COLLIDING = js.Params(
    {"kernel": jnp.ones((2, 3)), "kernel/adam_m": jnp.zeros(3), "a//v": jnp.ones(1), "v/": jnp.ones(2)}
)


def as_dicts(tree):
    """Any tree with its `Params` as nested dicts, as the docs tell."""
    return jax.tree.map(
        lambda node: node.to_dict() if isinstance(node, js.Params) else node,
        tree,
        is_leaf=lambda node: isinstance(node, js.Params),
    )


def loss(params):
    return jnp.mean(net.apply(params, X) ** 2)


# optax ----------------------------------------------------------------------------------------------------------------


def no_bias(tree):
    """Which leaves are no biases, for both kinds of tree."""
    if isinstance(tree, js.Params):
        return tree.like([(".*bias$", False)], default=True)
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "bias", tree)


def tower_or_head(tree):
    if isinstance(tree, js.Params):
        return tree.like({"tower": "tower", "head": "head"})
    return {part: jax.tree.map(lambda _, part=part: part, tree[part]) for part in tree}


OPTIMIZERS = {
    "sgd": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.1),
    "adamw, masked decay": optax.adamw(0.1, weight_decay=0.1, mask=no_bias),
    "masked": optax.masked(optax.adam(0.1), no_bias),
    "multi_transform": optax.multi_transform({"tower": optax.adam(0.1), "head": optax.sgd(0.3)}, tower_or_head),
    "freezing": optax.multi_transform({"tower": optax.set_to_zero(), "head": optax.adam(0.1)}, tower_or_head),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(optax.linear_schedule(0.1, 0.0, 4)),
    "MultiSteps": optax.MultiSteps(optax.adam(0.1), every_k_schedule=2),
    "clipped": optax.chain(optax.clip_by_global_norm(0.01), optax.adam(0.1)),
    "adafactor": optax.adafactor(0.1),
}


gradient = jax.jit(jax.grad(loss))


def train(optimizer, params, steps=4):
    """A few steps and the optimizer's state after them. Not jitted: compiling would be all that takes time here."""
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optax_does_on_params_what_it_does_on_dicts(name):
    params, state = train(OPTIMIZERS[name], PARAMS)
    expected, expected_state = train(OPTIMIZERS[name], PARAMS.to_dict())
    assert isinstance(params, js.Params)
    assert params.names == PARAMS.names
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), params.to_dict(), expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), as_dicts(state), expected_state)
    moved = params.map_with_name(lambda n, leaf: bool((leaf != PARAMS[n]).any()))
    assert moved == PARAMS.like({"tower": name != "freezing", "head": True})


def test_optax_takes_labels_and_masks_as_trees():
    mask, labels = no_bias(PARAMS), tower_or_head(PARAMS)
    for by_tree, by_function in (
        (optax.masked(optax.adam(0.1), mask), OPTIMIZERS["masked"]),
        (
            optax.multi_transform({"tower": optax.adam(0.1), "head": optax.sgd(0.3)}, labels),
            OPTIMIZERS["multi_transform"],
        ),
    ):
        assert train(by_tree, PARAMS)[0] == train(by_function, PARAMS)[0]


def test_optax_in_a_jitted_loop():
    optimizer = OPTIMIZERS["masked"]

    @jax.jit
    def loop(carry):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, carry, None, length=4)[0]

    params, state = loop((PARAMS, optimizer.init(PARAMS)))
    expected, expected_state = train(optimizer, PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(expected_state)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), params, expected)


def test_optax_hyperparameters_are_found_in_the_state():
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    state = optimizer.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)
    updates, _ = optimizer.update(PARAMS, state)
    assert updates == jax.tree.map(jnp.zeros_like, PARAMS)


def test_optax_on_a_part_of_the_tree():
    """Trainable and the rest, apart under grad and together again."""
    trainable, rest = PARAMS.select("head")
    optimizer = optax.adam(0.1)
    grads = jax.grad(lambda part: loss(part | rest))(trainable)
    updates, _ = optimizer.update(grads, optimizer.init(trainable))
    params = optax.apply_updates(trainable, updates) | rest
    assert params["tower"] == PARAMS["tower"]
    assert params["head"] != PARAMS["head"]
    assert loss(params) < loss(PARAMS)


def test_optax_tree_functions():
    assert optax.tree.norm(PARAMS) == optax.tree.norm(PARAMS.to_dict())
    assert optax.tree.add(PARAMS, PARAMS) == jax.tree.map(lambda leaf: 2 * leaf, PARAMS)
    assert isinstance(optax.tree.zeros_like(PARAMS), js.Params)
    assert optax.incremental_update(PARAMS, jax.tree.map(jnp.zeros_like, PARAMS), 1.0) == PARAMS
    _, state = train(optax.adam(0.1), PARAMS)
    assert optax.tree.get(state, "mu").names == PARAMS.names


# orbax ----------------------------------------------------------------------------------------------------------------


def standard(path):
    def save(tree):
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, tree)

    def restore(target=None):
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path, target)

    return save, restore


def pytree(path):
    def save(tree):
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(path, tree)

    def restore(target=None):
        with ocp.PyTreeCheckpointer() as checkpointer:
            if target is None:
                return checkpointer.restore(path)
            arguments = ocp.checkpoint_utils.construct_restore_args(target)
            return checkpointer.restore(path, item=target, restore_args=arguments)

    return save, restore


def manager(path):
    def save(tree):
        with ocp.CheckpointManager(path) as checkpoints:
            checkpoints.save(0, args=ocp.args.StandardSave(tree))

    def restore(target=None):
        with ocp.CheckpointManager(path) as checkpoints:
            return checkpoints.restore(0, args=ocp.args.StandardRestore(target))

    return save, restore


def v1(path):
    return functools.partial(ocp_v1.save, path), functools.partial(ocp_v1.load, path)


def abstract(tree):
    """What is restored into; the sharding says where to."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)


orbax = pytest.mark.parametrize("checkpoint", [standard, pytree, manager, v1])
# A restore without a target has no shardings to go by; orbax warns of the file's own.
without_target = pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")


@orbax
@without_target
@pytest.mark.parametrize("params", [PARAMS, COLLIDING], ids=["nested", "colliding"])
class TestOrbaxSavesParams:
    def test_and_restores_into_params(self, checkpoint, params, tmp_path):
        save, restore = checkpoint(tmp_path / "c")
        save(params)
        for target in (abstract(params), jax.tree.map(jnp.zeros_like, params)):
            restored = restore(target)
            assert type(restored) is js.Params
            assert restored == params

    def test_and_restores_without_a_target(self, checkpoint, params, tmp_path):
        save, restore = checkpoint(tmp_path / "c")
        save(params)
        restored = restore()
        assert sorted(restored) == list(params.names)
        assert js.Params(restored) == params

    def test_and_gives_them_to_who_knows_no_jscope(self, checkpoint, params, tmp_path):
        save, restore = checkpoint(tmp_path / "c")
        save(params)
        assert js.Params(restore(abstract(params).flat())) == params


@orbax
@without_target
class TestOrbaxSavesDicts:
    def test_nested_ones_are_restored_as_such_and_converted(self, checkpoint, tmp_path):
        save, restore = checkpoint(tmp_path / "c")
        save(PARAMS.to_dict())
        assert js.Params(restore(abstract(PARAMS).to_dict())) == PARAMS
        assert js.Params(restore()) == PARAMS
        with pytest.raises(ValueError, match=r"(?s)(do not match|Structure mismatch|structure).*tower/dense/bias"):
            restore(abstract(PARAMS))

    def test_flat_ones_are_params(self, checkpoint, tmp_path):
        save, restore = checkpoint(tmp_path / "c")
        save(COLLIDING.flat())
        assert restore(abstract(COLLIDING)) == COLLIDING


@orbax
@without_target
def test_orbax_keeps_a_whole_training_state(checkpoint, tmp_path):
    params, opt_state = train(optax.masked(optax.adam(0.1), no_bias), PARAMS)
    state = {"params": params, "opt": opt_state, "step": jnp.int32(4)}
    save, restore = checkpoint(tmp_path / "params")
    save(state)
    restored = restore(abstract(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), restored, state)).count(False) == 0
    # A checkpoint of the same program whose parameters were nested dicts.
    save, restore = checkpoint(tmp_path / "dicts")
    save(as_dicts(state))
    restored = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(restore(as_dicts(abstract(state)))))
    assert restored["params"] == params
    assert restored["opt"].inner_state[0].mu == opt_state.inner_state[0].mu


@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")  # specs know of no devices
def test_orbax_restores_into_what_the_program_declares(tmp_path):
    save, restore = standard(tmp_path / "c")
    save(PARAMS)
    restored = restore(specs.abstract())
    specs.check(restored)
    assert restored == PARAMS


# safetensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [PARAMS, COLLIDING, js.Params({"a": jnp.ones(3, jnp.bfloat16)})])
def test_safetensors(params, tmp_path):
    safetensors.flax.save_file(params.flat(), tmp_path / "p.safetensors", metadata={"by": "jscope"})
    assert js.Params(safetensors.flax.load_file(tmp_path / "p.safetensors")) == params


def test_safetensors_and_npz_through_numpy(tmp_path):
    params = jax.tree.map(np.asarray, PARAMS)
    safetensors.numpy.save_file(params.flat(), tmp_path / "p.safetensors")
    assert js.Params(safetensors.numpy.load_file(tmp_path / "p.safetensors")) == PARAMS
    np.savez(tmp_path / "p.npz", **PARAMS.flat())
    with np.load(tmp_path / "p.npz") as archive:
        assert js.Params(archive) == PARAMS


def test_a_shared_variable_is_stored_once(tmp_path):
    def tied(x):
        with js.variable_scope("tower", reuse=js.AUTO_REUSE):
            return dense(x, 3) + dense(x + 1, 3)

    safetensors.flax.save_file(js.transform(tied).init(KEY, X).flat(), tmp_path / "p.safetensors")
    assert sorted(safetensors.flax.load_file(tmp_path / "p.safetensors")) == ["tower/bias", "tower/kernel"]


# jax.export -----------------------------------------------------------------------------------------------------------


def test_export_into_another_process(tmp_path):
    def step(state, x):
        return {"out": net.apply(state["params"], x), "params": state["params"], "odd": state["odd"]}

    state = {"params": PARAMS, "odd": COLLIDING}
    exported = jax.export.export(jax.jit(step))(state, X)
    data = bytes(exported.serialize())
    again = jax.export.deserialize(bytearray(data))
    assert again.in_tree == exported.in_tree == jax.tree.structure(((state, X), {}))
    assert again.out_tree == exported.out_tree
    out = again.call(state, X)
    assert out["params"] == PARAMS
    assert out["odd"] == COLLIDING
    np.testing.assert_allclose(out["out"], net.apply(PARAMS, X), rtol=1e-6)

    (tmp_path / "exported").write_bytes(data)
    safetensors.flax.save_file(PARAMS.flat(), tmp_path / "params")
    safetensors.flax.save_file(COLLIDING.flat(), tmp_path / "odd")
    script = """if True:
        import sys, jax.export, numpy as np, jscope as js
        from pathlib import Path
        from safetensors.flax import load_file
        exported = jax.export.deserialize(bytearray(Path("exported").read_bytes()))
        state = {"params": js.Params(load_file("params")), "odd": js.Params(load_file("odd"))}
        out = exported.call(state, np.load("x.npy"))
        assert type(out["params"]) is js.Params and out["params"] == state["params"]
        assert out["odd"].scope("kernel").names == ("adam_m",) and out["odd"] == state["odd"]
        np.save("out.npy", out["out"])
    """
    np.save(tmp_path / "x.npy", X)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), net.apply(PARAMS, X), rtol=1e-6)


def test_exported_functions_can_be_differentiated():
    exported = jax.export.export(jax.jit(loss))(PARAMS)
    again = jax.export.deserialize(exported.serialize(vjp_order=1))
    grads = jax.grad(again.call)(PARAMS)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), grads, jax.grad(loss)(PARAMS))


# treescope ------------------------------------------------------------------------------------------------------------

# treescope looks at every public name of NumPy at its first use, deprecated ones among them.
looks_through_numpy = pytest.mark.filterwarnings("ignore:The chararray class is deprecated:DeprecationWarning")


@looks_through_numpy
@pytest.mark.parametrize("tree", [PARAMS, COLLIDING, specs.abstract(), PARAMS.like({}, default="label")])
def test_treescope_shows_names(tree):
    text = treescope.render_to_text({"params": tree})
    html = treescope.render_to_html({"params": tree}, compressed=False)
    assert "Params({" in text
    for name in tree.names:
        assert f"'{name}': " in text
        assert name in html


@looks_through_numpy
def test_treescope_shows_an_optimizer_and_an_empty_tree():
    text = treescope.render_to_text(optax.adam(0.1).init(PARAMS))
    assert "mu=Params({" in text
    assert "'tower/dense_1/kernel': " in text
    assert treescope.render_to_text(js.Params()).splitlines()[0] == "Params({})"  # what is HTML in notebooks follows


@looks_through_numpy
def test_treescope_round_trip_mode_gives_the_tree_back():
    text = treescope.render_to_text(js.Params({"a": {"b": 1}}), roundtrip_mode=True)
    assert eval(text, {"jscope": js}) == {"a": {"b": 1}}


# Donation -------------------------------------------------------------------------------------------------------------

double = jax.jit(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree), donate_argnums=0)


def test_params_can_be_donated():
    params = jax.tree.map(jnp.array, PARAMS)
    doubled = double(params)
    assert all(leaf.is_deleted() for leaf in params.flat().values())
    assert not any(leaf.is_deleted() for leaf in PARAMS.flat().values())
    assert doubled == jax.tree.map(lambda leaf: 2 * leaf, PARAMS)


@pytest.mark.parametrize("make", ["init", "specs.init", "update", "jitted init"])
def test_what_init_gives_can_be_donated(make):
    shared, start = jnp.arange(3.0), jnp.ones(3)

    def twice():
        a = js.get_variable("a", initializer=shared)
        b = js.get_variable("b", initializer=shared)
        return a + b + js.get_variable("c", [3]) + js.get_variable("d", [3])

    net = js.transform(twice)
    warm = {"c": start, "d": start}
    params = {
        "init": lambda: net.init(KEY, warm_start=warm),
        "specs.init": lambda: net.specs().init(KEY, warm_start=warm),
        "update": lambda: net.update(net.init(KEY, warm_start=warm))[1],
        "jitted init": lambda: jax.jit(functools.partial(net.init, warm_start=warm))(KEY),
    }[make]()
    pointers = {leaf.unsafe_buffer_pointer() for leaf in (*params.flat().values(), shared, start)}
    assert len(pointers) == 6
    double(params)
    assert all(leaf.is_deleted() for leaf in params.flat().values())
    assert shared.sum() == 3
    assert start.sum() == 3


# Axes and shardings ---------------------------------------------------------------------------------------------------


def test_ensembles():
    keys = jax.random.split(KEY, 3)
    stacked = jax.vmap(lambda key: net.init(key, X))(keys)
    assert stacked["head/kernel"].shape == (3, 3, 2)
    assert jax.tree.map(lambda leaf: leaf[1], stacked) == net.init(keys[1], X)
    out = jax.vmap(net.apply, in_axes=(0, None))(stacked, X)
    assert out.shape == (3, 4, 2)
    np.testing.assert_allclose(out[1], net.apply(net.init(keys[1], X), X), rtol=1e-5, atol=1e-6)


def test_axes_per_part():
    """One tower under three heads."""
    keys = jax.random.split(KEY, 3)
    heads = jax.vmap(lambda key: net.init(key, X)["head"])(keys)
    mixed = PARAMS | {"head": heads}
    axes = PARAMS.like({"tower": None, "head": 0})
    out, back = jax.vmap(lambda params: (net.apply(params, X), params), in_axes=(axes,), out_axes=(0, axes))(mixed)
    assert out.shape == (3, 4, 2)
    assert back == mixed
    for i in range(3):
        one = PARAMS | {"head": jax.tree.map(lambda leaf, i=i: leaf[i], heads)}
        np.testing.assert_allclose(out[i], net.apply(one, X), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="vmap in_axes"):
        jax.vmap(lambda params: params, in_axes=({"tower": None, "head": 0},))(mixed)  # what `like` is for


def test_axes_of_scanned_layers():
    layer = js.transform(lambda x: jnp.tanh(dense(x, 3)))
    stacked = jax.vmap(lambda key: layer.init(key, X))(jax.random.split(KEY, 5))
    out, _ = jax.lax.scan(lambda x, params: (layer.apply(params, x), None), X, stacked)
    expected = X
    for i in range(5):
        expected = layer.apply(jax.tree.map(lambda leaf, i=i: leaf[i], stacked), expected)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def on_a_mesh(folder):
    """Runs in a process of its own, with eight devices."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def wide(x):
        with js.variable_scope("tower"):
            x = jnp.tanh(dense(x, 8))
        with js.variable_scope("head"):
            return dense(x, 4)

    model = js.transform(wide)
    x = jnp.linspace(-1.0, 1.0, 8 * 6).reshape(8, 6)
    params = model.init(KEY, x)
    plain = model.apply(params, x)
    parts = params.like({"tower/kernel": jax.P(None, "model"), "tower/bias": jax.P("model"), "head": jax.P()})
    shardings = jax.tree.map(functools.partial(NamedSharding, mesh), parts)
    whole, batch = NamedSharding(mesh, jax.P()), NamedSharding(mesh, jax.P("data"))

    def shards(tree):
        return tree.map_with_name(lambda name, leaf: leaf.addressable_shards[0].data.shape).flat()

    expected = {"head/bias": (4,), "head/kernel": (8, 4), "tower/bias": (4,), "tower/kernel": (6, 4)}

    # Per part and whole, going in and coming out.
    made = jax.jit(model.init, out_shardings=shardings)(KEY, x)
    assert shards(made) == expected
    assert made == params
    assert made.map_with_name(lambda name, leaf: leaf.sharding == shardings[name]) == params.like({}, default=True)
    spread = jax.device_put(params, shardings)
    assert shards(spread) == expected
    for given, sharding in ((made, shardings), (spread, shardings), (jax.device_put(params, whole), whole)):
        apply = jax.jit(model.apply, in_shardings=(sharding, batch), out_shardings=batch)
        np.testing.assert_allclose(apply(given, jax.device_put(x, batch)), plain, rtol=1e-5, atol=1e-6)
    back = jax.jit(lambda tree: tree, in_shardings=(shardings,), out_shardings=whole)(spread)
    assert shards(back) == {name: leaf.shape for name, leaf in params.flat().items()}

    # A pytree of specs in shard_map: the head split by columns, each shard computing its own.
    specs = params.like({"tower": jax.P(), "head/kernel": jax.P(None, "model"), "head/bias": jax.P("model")})

    def by_hand(tree, x):
        hidden = jnp.tanh(x @ tree["tower/kernel"] + tree["tower/bias"])
        return hidden @ tree["head/kernel"] + tree["head/bias"]

    for specs_in in (specs, jax.P()):
        columns = "model" if specs_in is specs else None
        split = jax.shard_map(by_hand, mesh=mesh, in_specs=(specs_in, jax.P("data")), out_specs=jax.P("data", columns))
        np.testing.assert_allclose(split(params, x), plain, rtol=1e-5, atol=1e-6)

    # Training, the state of the optimizer sharded as the parameters are, and donated.
    optimizer = optax.adam(0.1)
    state = jax.jit(optimizer.init)(spread)

    @functools.partial(jax.jit, donate_argnums=(0, 1), out_shardings=(shardings, None))
    def step(params, state):
        grads = jax.grad(lambda tree: jnp.mean(model.apply(tree, x) ** 2))(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    single, _ = jax.jit(step.__wrapped__)(params, optimizer.init(params))
    stepped, state = step(spread, state)
    assert spread["tower/kernel"].is_deleted()
    assert shards(stepped) == expected
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), stepped, single)

    # warm_start keeps where its arrays lie, orbax restores to where the target says.
    assert shards(model.init(KEY, x, warm_start=stepped)) == expected
    save, restore = standard(folder / "c")
    save(stepped)
    target = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), params, shardings
    )
    restored = restore(target)
    assert shards(restored) == expected
    assert restored == stepped

    # Asynchronously: training goes on, and donates the arrays, while orbax still writes them.
    path = folder / "asynchronous"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, stepped)
        later, _ = step(stepped, state)
        assert stepped["tower/kernel"].is_deleted()
        checkpointer.wait_until_finished()
        again = checkpointer.restore(path, target)
        whole = checkpointer.restore(path, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=jax.sharding.NamedSharding(mesh, jax.P())), target))  # fmt: skip
    assert shards(again) == expected
    assert again == whole == restored
    assert later != restored


def test_on_a_mesh_of_eight_devices(tmp_path):
    command = f"import pathlib, test_interop; test_interop.on_a_mesh(pathlib.Path({str(tmp_path)!r}))"
    more = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    flags = os.environ | {"XLA_FLAGS": more, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=Path(__file__).parent,
        env=flags,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert not done.returncode, done.stderr
