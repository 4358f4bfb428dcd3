"""`init` on eight devices, in a process of its own: each value lies where its sharding says, the same to the bit."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding

import jscope as js

KEY = jax.random.key(3)
X = jnp.ones((4, 16))
RULES = {"a": "data", "b": "model", "layers": None}
INITIALIZERS = [
    js.random_normal_initializer(stddev=0.02),
    js.constant_initializer(np.arange(64 * 32.0).reshape(64, 32)),
    lambda key, shape, dtype: jax.random.uniform(key, shape, dtype),
]
MORE = [
    js.orthogonal_initializer(),
    js.truncated_normal_initializer(),
    js.zeros_initializer(),
    js.identity_initializer(),
    jax.nn.initializers.lecun_normal(),
    lambda key, shape, dtype: jax.random.gamma(key, 2.0, shape, dtype),
]


def program(x: jax.Array) -> None:
    for number, initializer in enumerate(INITIALIZERS):
        js.get_variable(f"drawn_{number}", [64, 32], initializer=initializer, partitioner=jax.P("a", "b"))
    js.get_variable("given", initializer=np.ones((8, 4), np.float32), partitioner=lambda shape, dtype: jax.P("a"))
    js.get_variable("computed", initializer=jnp.mean(x, 0), partitioner=lambda shape, dtype: jax.P("b"))
    layer = js.transform(lambda: js.get_variable("w", [16, 8], partitioner=jax.P("a", "b")))
    with js.variable_scope("layers"):
        js.lift(layer, stack=4)


PARTITIONS = {"given": jax.P("data"), "computed": jax.P("model"), "layers/w": jax.P(None, "data", "model")}


def mesh_of(kind: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)


def check_init(kind: AxisType) -> None:
    net = js.transform(program, rules=RULES)
    plain, mesh = net.init(KEY, X), mesh_of(kind)
    specs = net.specs(X)
    shardings = specs.shardings(mesh, RULES)
    assert {name: shardings[name].spec for name in PARTITIONS} == PARTITIONS
    for params in (
        net.init(KEY, X, out_shardings=shardings),
        net.init(KEY, X, out_shardings=shardings, warm_start=plain.select("drawn")[0]),
    ):
        assert {name: leaf.sharding for name, leaf in params.flat().items()} == shardings.flat()
        same_values(params, plain)
    everywhere = NamedSharding(mesh, jax.P())
    params = net.init(KEY, X, out_shardings=everywhere)
    assert {leaf.sharding for leaf in params.flat().values()} == {everywhere}
    same_values(params, plain)


def check_default_of_explicit_programs() -> None:
    net = js.transform(program, rules=RULES)
    plain, mesh = net.init(KEY, X), mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        params = net.init(KEY, X)
        assert params["drawn_0"].sharding.spec == jax.P("data", "model")
        same_values(params, plain)
        # In a greater trace, too, what is made has its type, and each device its part.
        shardings = net.specs(X).shardings(mesh, RULES)
        for more in {}, {"out_shardings": shardings, "warm_start": {"drawn_0": plain["drawn_0"]}}:
            assert types(jax.eval_shape(functools.partial(net.init, **more), KEY, X)) == types(params)
        jitted = jax.jit(net.init)(KEY, X)
        assert types(jitted) == types(params)
        assert jitted["drawn_0"].addressable_shards[0].data.shape == (16, 16)
        # In a mesh, which a jitted function is bound to, JAX 0.10 gives other last bits.
        np.testing.assert_allclose(jitted["drawn_0"], plain["drawn_0"], rtol=1e-6)
        same_values(net.specs(X).init(KEY, out_shardings=net.specs(X).shardings(mesh, RULES), warm_start=params), plain)


def check_types_are_seen_alike() -> None:
    seen: list[str] = []

    def explicit(x: jax.Array) -> jax.Array:
        w = js.get_variable("w", [16, 8], partitioner=jax.P("a", "b"))
        seen.append(str(jax.typeof(w)))
        return jnp.einsum("bi,io->bo", x, jax.sharding.reshard(w, jax.P(None, "model")), out_sharding=jax.P())

    net = js.transform(explicit, rules=RULES)
    with jax.set_mesh(mesh_of(AxisType.Explicit)):
        params = net.init(KEY, X)
        net.specs(X)
        jax.jit(net.apply)(params, X)
        net.update(params, X)
        state = jax.jit(optax.adam(1e-3).init)(params)
    assert state[0].mu["w"].sharding.spec == state[0].nu["w"].sharding.spec == jax.P("data", "model")
    assert set(seen) == {"float32[16@data,8@model]"}


def check_a_key_that_is_bound_elsewhere() -> None:
    net = js.transform(program)
    shardings = net.specs(X).shardings(mesh_of(AxisType.Auto), RULES)
    bound = jax.device_put(KEY, jax.devices()[0])
    with pytest.raises(js.BadArgumentError, match="The key is bound to 1 device"):
        net.init(bound, X, out_shardings=shardings)
    everywhere = NamedSharding(shardings["given"].mesh, jax.P())
    same_values(net.init(jax.device_put(KEY, everywhere), X, out_shardings=shardings), net.init(KEY, X))


def check_keys_in_a_shard_map_body() -> None:
    mesh = mesh_of(AxisType.Auto)

    def noise(folded: bool) -> jax.Array:
        def body() -> jax.Array:
            key = js.next_key()
            key = jax.random.fold_in(key, jax.lax.axis_index(("data", "model"))) if folded else key
            return jax.random.uniform(key, (1,))

        return jax.shard_map(body, mesh=mesh, in_specs=(), out_specs=jax.P(("data", "model")), check_vma=False)()

    run = jax.jit(js.transform(noise).apply, static_argnums=1)
    assert len(set(run({}, False, rng=KEY).tolist())) == 1
    assert len(set(run({}, True, rng=KEY).tolist())) == 8


def types(params: js.Params) -> list[object]:
    return [jax.typeof(params[name]).sharding.spec for name in ("drawn_0", "computed", "given", "layers/w")]


def same_values(params: js.Params, plain: js.Params) -> None:
    assert params.names == plain.names
    for name in plain.names:
        assert np.array_equal(np.asarray(params[name]), np.asarray(plain[name])), name


def check_more_initializers() -> None:
    INITIALIZERS[:] = MORE
    check_init(AxisType.Auto)


def check_all() -> None:
    check_init(AxisType.Auto)
    check_init(AxisType.Explicit)
    check_default_of_explicit_programs()
    check_types_are_seen_alike()
    check_a_key_that_is_bound_elsewhere()
    check_keys_in_a_shard_map_body()


@pytest.mark.parametrize("checks", ["check_all", pytest.param("check_more_initializers", marks=pytest.mark.slow)])
def test_on_eight_devices(checks: str) -> None:
    command = f"import test_sharded_init; test_sharded_init.{checks}()"
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = os.environ | {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": here,
    }
    done = subprocess.run([sys.executable, "-c", command], env=env, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr


def test_without_rules_an_explicit_program_is_told_what_is_missing() -> None:
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh), pytest.raises(js.BadArgumentError, match="does not fit the mesh in force") as caught:
        js.transform(program).specs(X)
    assert "js.transform(function, rules=" in caught.value.fix


@pytest.mark.parametrize("rules", [["a"], {"a": 1}, {1: "data"}, {"a": ["data"]}])
def test_rules_are_names(rules: object) -> None:
    with pytest.raises(js.BadTypeError, match="ule") as caught:
        js.transform(program, rules=rules)
    assert caught.value.kind == "bad_rules"


def test_a_program_with_rules_is_another_one() -> None:
    assert js.transform(program, rules=RULES) == js.transform(program, rules=dict(RULES))
    assert js.transform(program, rules=RULES) != js.transform(program)
