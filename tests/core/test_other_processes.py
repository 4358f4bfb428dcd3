"""Arrays of which other processes hold a part, in two processes: refused by name where all of one would be read.

Reading one would take all processes at once, and one that reads alone would wait for ever. What needs no values, and
what every process holds a whole copy of, goes through.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax.sharding import AxisType, NamedSharding

import jscope as js
from jscope import checkpoint, testing

VALUES = np.arange(16, dtype=np.float32).reshape(8, 2)
KEY = jax.random.key(0)


def weights(x: jax.Array) -> jax.Array:
    return x + js.get_variable("tower/w", [8, 2], partitioner=jax.P("data"), regularizer=lambda w: jnp.sum(w**2))


NET = js.transform(weights)


def tree(partition: jax.P) -> js.Params:
    """On a mesh over all processes."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, partition)
    return js.Params({"tower": {"w": jax.make_array_from_callback((8, 2), sharding, lambda index: VALUES[index])}})


def reads(params: js.Params, other: js.Params, folder: Path) -> dict[str, Callable[[], Any]]:
    """What reads all values of a tree."""
    plan = checkpoint.Plan().rename({"weight": "tower/w"})
    return {
        "==": lambda: params == other,
        "!=": lambda: params != other,
        "== with numpy": lambda: params == {"tower/w": VALUES},
        "save": lambda: checkpoint.save(folder / "a.safetensors", params),
        "save_state": lambda: checkpoint.save_state(folder / "b.safetensors", {"params": params}),
        "save_tf": lambda: checkpoint.save_tf(folder / "c.ckpt", params),
        "Plan.save": lambda: plan.save(folder / "d.safetensors", params),
        "Plan.back": lambda: plan.back(params),
        "pickle": lambda: pickle.dumps(params),
        "assert_pure": lambda: testing.assert_pure(NET, params, jnp.ones([])),
        "constant_initializer": lambda: js.constant_initializer(params["tower/w"]),
    }


def check_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, read in reads(tree(jax.P("data")), tree(jax.P("data")), folder).items():
            with pytest.raises(js.JscopeError, match="is spread over processes") as caught:
                read()
            error = caught.value
            assert error.kind == "other_processes", (what, error)
            assert error.where.startswith(__file__), what
            if what != "constant_initializer":
                assert "tower/w'" in error.what, what
            if "save" in what or what == "pickle":
                assert "orbax" in error.fix, what
        assert not list(folder.iterdir())


def check_the_fix_of_a_comparison() -> None:
    params, other = tree(jax.P("data")), tree(jax.P("data"))
    with pytest.raises(js.BadArgumentError) as caught:
        bool(params == other)
    compare = caught.value.fix.partition(": ")[2].partition(";")[0]
    for a, b, equal in ((params, other, True), (params, other.map_with_name(lambda _, leaf: leaf + 1), False)):
        assert bool(eval(compare, {"jax": jax, "jnp": jnp, "a": a, "b": b})) is equal


def check_assigned_from_a_tree() -> None:
    """Taken over as they are; what would have to be read here is a fault of that name."""
    params = tree(jax.P("data"))
    for target, fault in (
        ({"tower/w": jax.ShapeDtypeStruct((8, 2), jnp.bfloat16)}, "'tower/w' is spread over processes: convert it"),
        ({"tower/w": VALUES}, "'tower/w' is spread over processes, and wanted in this one alone"),
        ({"tower/w": jnp.asarray(VALUES)}, "'tower/w' is spread over processes, and wanted in this one alone"),
    ):
        with pytest.raises(js.ParamsMismatchError) as caught:
            checkpoint.assign_from(target, params, allow_cast=True)
        assert caught.value.faults[0].startswith(fault), caught.value.faults
    # Where nobody says where it shall lie, it stays where it is.
    taken = checkpoint.assign_from(NET.specs(jnp.ones([])), params).params["tower/w"]
    assert taken.sharding == params["tower/w"].sharding
    assert taken is not params["tower/w"]


def check_initial_values_are_shown() -> None:
    sharding = tree(jax.P("data"))["tower/w"].sharding

    def declared() -> js.Specs:
        value = jax.make_array_from_callback((4,), sharding, lambda index: VALUES[:4, 0][index])
        return js.transform(lambda: js.get_variable("v", initializer=value)).specs()

    specs, same = declared(), declared()
    assert "f32[4]" in str(specs)
    assert specs == specs | specs
    with pytest.raises(js.BadArgumentError, match="'initial value' f32\\[4\\] is spread over processes"):
        bool(specs == same)


def check_copies_are_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        params = tree(jax.P())
        for read in reads(params, tree(jax.P()), Path(name)).values():
            read()
        assert params == tree(jax.P())
        assert checkpoint.load(Path(name) / "a.safetensors") == {"tower/w": VALUES}


def check_what_needs_no_values() -> None:
    params = tree(jax.P("data"))
    sharding = params["tower/w"].sharding
    specs = NET.specs(jnp.ones([]))
    specs.check(params)
    assert repr(params) == "Params({tower: {w: f32[8,2]}})"
    assert params == params.replace({})
    assert params != {"tower/v": VALUES}
    assert params != {"tower/w": VALUES[:4]}
    assert params != specs.abstract()
    made = NET.init(KEY, jnp.ones([]), out_shardings=sharding)
    assert made["tower/w"].sharding == sharding
    alone = NET.init(KEY, jnp.ones([]))["tower/w"]
    for part in made["tower/w"].addressable_shards:
        assert np.array_equal(part.data, np.asarray(alone)[part.index])
    assert NET.init(KEY, jnp.ones([]), out_shardings=sharding, warm_start=params)["tower/w"].sharding == sharding
    assert NET.apply(params, jnp.ones([])).sharding == sharding
    with tempfile.TemporaryDirectory() as name:
        testing.assert_golden(params, Path(name) / "golden.txt", update=True)
        testing.assert_golden(params, Path(name) / "golden.txt")
    loaded, report = checkpoint.assign_from(specs.abstract(sharding), {"tower/w": VALUES})
    assert report.loaded == ("tower/w",)
    for part in loaded["tower/w"].addressable_shards:
        assert np.array_equal(part.data, VALUES[part.index])


def check_all() -> None:
    check_refused()
    check_the_fix_of_a_comparison()
    check_assigned_from_a_tree()
    check_initial_values_are_shown()
    check_copies_are_read()
    check_what_needs_no_values()
    jax.distributed.shutdown()


def test_in_two_processes() -> None:
    processes.check("import test_other_processes; test_other_processes.check_all()", 2, 2)


def test_in_one_process_all_of_it_is_read(tmp_path: Path) -> None:
    for read in reads(tree(jax.P("data")), tree(jax.P()), tmp_path).values():
        read()


def test_a_constant_given_as_an_array_of_jax_is_kept_on_the_host() -> None:
    values = jnp.arange(4.0)
    net = js.transform(lambda: js.get_variable("v", [4], initializer=js.constant_initializer(values)))
    assert np.array_equal(net.init(KEY)["v"], [0.0, 1.0, 2.0, 3.0])
    assert js.constant_initializer(values) == js.constant_initializer(np.arange(4, dtype=np.float32))


def test_a_traced_tree_is_jax_s_to_refuse() -> None:
    params = js.Params({"w": jnp.ones(2)})
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda a, b: jnp.float32(a == b))(params, params)
