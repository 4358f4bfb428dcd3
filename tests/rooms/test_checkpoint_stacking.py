"""`stack` and `unstack`: one undoes the other, and what is no set of equal layers is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA

import jscope as js
from jscope import testing
from jscope.checkpoint import assign_from, load_tf, stack, unstack

GPT2 = DATA / "gpt2_small.ckpt"


def layers_of(count, name="h%d", **more):
    return {name % i: {"w": np.full((2, 3), i, np.float32), "s/b": np.full((), i)} for i in range(count)} | more


def faults_of(f, *args, **kwargs):
    with pytest.raises(js.ParamsMismatchError) as info:
        f(*args, **kwargs)
    assert info.value.where.startswith(__file__)
    assert info.value.fix
    return list(info.value.faults)


@given(
    names=st.lists(testing.names(), min_size=1, max_size=4, unique=True),
    count=st.integers(1, 12),
    start=st.integers(0, 11),
    width=st.sampled_from(["%d", "%02d", "%03d"]),
)
@settings(max_examples=80, deadline=None)
def test_one_undoes_the_other(names, count, start, width):
    layers = f"encoder/layer_{width}/x"
    tree = js.Params({f"{layers % (start + i)}/{n}": np.full((2, 1), i) for n in names for i in range(count)})
    tree |= {"encoder/layer_x": np.ones(1), "layer_0/w": np.ones(2)}
    stacked = stack(tree, layers, to="layers", start=start)
    assert set(stacked.names) == {f"layers/{n}" for n in names} | {"encoder/layer_x", "layer_0/w"}
    assert {array.shape for array in stacked["layers"].flat().values()} == {(count, 2, 1)}
    assert unstack(stacked, "layers", to=layers, start=start) == tree


def test_values_are_in_order_of_the_numbers():
    stacked = stack(layers_of(12), "h%d", to="h")
    np.testing.assert_array_equal(stacked["h/w"][:, 0, 0], range(12))
    np.testing.assert_array_equal(stacked["h/s/b"], range(12))


@pytest.mark.parametrize("make", [jnp.asarray, lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), np.asarray])
def test_kinds_of_arrays(make):
    tree = js.Params(layers_of(3)).map_with_name(lambda name, leaf: make(leaf))
    stacked = stack(tree, "h%d", to="all")
    assert stacked["all/w"].shape == (3, 2, 3)
    assert type(stacked["all/w"]) is type(tree["h0/w"])
    assert unstack(stacked, "all", to="h%d") == tree


def test_layers_spread_over_an_explicit_axis():
    """JAX refuses to cut such an array by a plain index."""
    for make in (jax.make_mesh, jax.sharding.AbstractMesh):
        sizes = (1, 1) if make is jax.make_mesh else (2, 2)
        mesh = make(sizes, ("stage", "data"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
        spread = jax.sharding.NamedSharding(mesh, jax.P("stage", None, "data"))
        if make is jax.make_mesh:
            stacked = {"h": {"w": jax.device_put(jnp.arange(12, dtype=jnp.float32).reshape(2, 3, 2), spread)}}
            layers = unstack(stacked, "h", to="h%d")
            np.testing.assert_array_equal(layers["h1/w"], np.arange(6, 12).reshape(3, 2))
        else:  # of more devices than there are here
            stacked = {"h": {"w": jax.ShapeDtypeStruct((2, 3, 2), jnp.float32, sharding=spread)}}
            layers = jax.eval_shape(lambda tree: unstack(tree, "h", to="h%d"), stacked)
        assert layers.names == ("h0/w", "h1/w")
        assert {leaf.sharding.spec for leaf in layers.flat().values()} == {jax.P(None, "data")}


def test_under_jit():
    tree = js.Params(layers_of(3))
    np.testing.assert_array_equal(jax.jit(lambda t: stack(t, "h%d", to="h"))(tree)["h/w"][:, 0, 0], range(3))


def test_a_checkpoint_with_layers_into_a_scanned_model():
    """And back: the names of GPT-2 in TensorFlow, and one array for all layers in the program."""
    given = load_tf(GPT2)
    target = stack(given.listing(), "model/h%d", to="model/h")
    params, report = assign_from(target, stack(given, "model/h%d", to="model/h"))
    assert len(report.loaded) == 4 + 12
    np.testing.assert_array_equal(params["model/h/mlp/c_fc/w"][1], given["model/h1/mlp/c_fc/w"])
    back, _ = assign_from(given.listing(), unstack(params, "model/h", to="model/h%d"))
    assert back == js.Params(given)


def test_layers_that_differ():
    tree = layers_of(4)
    del tree["h1"]
    del tree["h3"]["w"]
    tree["h2"]["w"] = np.ones((2, 3))
    tree |= {"all/w": np.ones(1), "all/z": np.ones(1)}
    assert faults_of(stack, tree, "h%d", to="all") == [
        "there are 3 layers, but no 'h1'",
        "'h3/w' is missing",
        "'h2/w' is float64 of shape (2, 3), 'h0/w' is float32 of shape (2, 3)",
        "'all/w' is there already",
        "'all/w' lies in the scope that is to hold the layers",
        "'all/z' lies in the scope that is to hold the layers",
    ]


def test_layers_that_are_not_there():
    assert faults_of(stack, {"a": 1}, "h%d", to="h") == ["no name starts with h0/"]
    assert faults_of(stack, layers_of(3), "h%d", to="h", start=1) == [
        "there is 'h0', before the first one",
        "there are 3 layers, but no 'h3'",
    ]
    assert faults_of(stack, {"h1": 1, "h01/w": np.ones(1)}, "h%d", to="h") == ["no name starts with h0/"]


def without_values():
    gone = jnp.ones(3)
    gone.delete()
    spec = js.VariableSpec("w", "w", (3,), np.dtype(np.float32), None)
    return {
        "no array but None": None,
        "no array but 'text'": "text",
        "what a program declares, and has no value": spec,
        "deleted: a jitted function that donates its arguments has taken its memory": gone,
        "a masked array of numpy, whose mask would be lost: give array.filled(value)": np.ma.array([1, 2, 3], mask=1),
    }


@pytest.mark.parametrize("why", without_values())
def test_what_is_no_array_is_told(why):
    leaf = without_values()[why]
    assert faults_of(stack, {"h0/w": leaf, "h1/w": leaf}, "h%d", to="h") == [f"'h0/w' is {why}", f"'h1/w' is {why}"]
    assert faults_of(unstack, {"h/w": leaf}, "h", to="h%d")[0] == f"'h/w' is {why}"


def test_numbers_as_they_are_written():
    """Else unstack could not give the name back."""
    tree = layers_of(2, "h%02d", **{"h5/w": 1, "h1/w": 1, "h001/w": 1})
    stacked = stack(tree, "h%02d", to="h")
    assert stacked.names == ("h/s/b", "h/w", "h001/w", "h1/w", "h5/w")
    assert unstack(stacked, "h", to="h%02d") == js.Params(tree)


def test_what_can_not_be_taken_apart():
    assert faults_of(unstack, {"a": 1}, "h", to="h%d") == ["no name starts with h/"]
    tree = {"h": {"a": np.ones(3), "b": np.ones(2), "c": np.ones(()), "d": 1.0, "e": np.ones((0, 2))}}
    assert [fault.partition(",")[0] for fault in faults_of(unstack, tree, "h", to="h%d")] == [
        "'h/b'", "'h/c'", "'h/d'", "'h/e'",
    ]  # fmt: skip
    assert faults_of(unstack, {"h/w": np.ones((0, 2))}, "h", to="h%d") == [
        "'h/w', float64 of shape (0, 2), is nothing along a first axis"
    ]
    assert faults_of(unstack, {"h/w": np.ones(2), "h1/w": 1}, "h", to="h%d") == ["'h1/w' is there already"]


def test_what_has_no_bytes_is_not_taken_apart_without_end():
    assert faults_of(unstack, {"h": {"w": np.ones((1_000_000, 0)), "b": np.ones(1_000_000, bool)}}, "h", to="h%d") == [
        "1000000 layers of 2 arrays are too many for their 1000000 bytes"
    ]
    assert len(unstack({"h/w": np.ones((10_000, 0))}, "h", to="h%d").names) == 10_000


def test_many_small_arrays_are_taken_apart():
    """Each is there; Python takes many times their bytes for them, with the layers as with the stack."""
    small = np.arange(200, dtype=np.float16)
    tree = js.Params({f"layer_{i}/scope_of_one/{j}": small[j] for i in range(300) for j in range(150)})
    assert unstack(stack(tree, "layer_%d", to="layers"), "layers", to="layer_%d") == tree


def test_numbers_that_differ_are_stacked_too():
    stacked = stack({"h0": {"a": 1.5, "b": 1, "c": True}, "h1": {"a": -2.5, "b": 2**40, "c": False}}, "h%d", to="h")
    assert {name: leaf.tolist() for name, leaf in stacked.flat().items()} == {
        "h/a": [1.5, -2.5], "h/b": [1, 2**40], "h/c": [True, False],
    }  # fmt: skip
    assert faults_of(stack, {"h0/a": 1, "h1/a": 1.0, "h2/a": 2**63}, "h%d", to="h") == [
        "'h1/a' is float64 of shape (), 'h0/a' is int64 of shape ()",
        "'h2/a' is uint64 of shape (), 'h0/a' is int64 of shape ()",
    ]
    huge = 2**70
    assert faults_of(stack, {"h0/a": huge}, "h%d", to="h") == [f"'h0/a' is {huge}, which no array of numbers holds"]


def test_values_and_shapes_alone_make_no_array():
    array, shape = np.ones(2, np.float32), jax.ShapeDtypeStruct((2,), np.float32)
    for leaves in ((array, shape), (shape, array), (jnp.asarray(array), shape)):
        (fault,) = faults_of(stack, dict(zip(("h0/w", "h1/w"), leaves, strict=True)), "h%d", to="h")
        assert "float32 of shape (2,) without a value" in fault


def test_shapes_keep_their_shardings():
    mesh = jax.sharding.AbstractMesh((2, 2), ("x", "y"))
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    layer = {"w": jax.ShapeDtypeStruct((4, 2), np.float32, sharding=jax.sharding.NamedSharding(mesh, jax.P("x")))}
    layer["b"] = jax.ShapeDtypeStruct((3,), np.float32, sharding=one)
    tree = js.Params({"h0": layer, "h1": layer})
    stacked = stack(tree, "h%d", to="h")
    assert stacked["h/w"].sharding == jax.sharding.NamedSharding(mesh, jax.P(None, "x"))
    assert stacked["h/b"].sharding == one
    assert {n: leaf.sharding for n, leaf in unstack(stacked, "h", to="h%d").flat().items()} == {
        n: leaf.sharding for n, leaf in tree.flat().items()
    }
    other = jax.ShapeDtypeStruct((4, 2), np.float32, sharding=jax.sharding.NamedSharding(mesh, jax.P("y")))
    assert stack({"h0/w": layer["w"], "h1/w": other}, "h%d", to="h")["h/w"].sharding is None


@pytest.mark.parametrize("start", ["1", -1, 1.0, True, None])
def test_the_number_of_the_first_layer(start):
    for call in (lambda: stack({}, "h%d", to="h", start=start), lambda: unstack({}, "h", to="h%d", start=start)):
        with pytest.raises(js.BadArgumentError, match="a whole number from 0 on"):
            call()
    assert stack({"h3/w": np.ones(2)}, "h%d", to="h", start=np.int64(3)).names == ("h/w",)


@pytest.mark.parametrize("layers", ["h", "h%d/%d", "h%s", "h%d/", "100%h%d", 3])
def test_names_of_layers(layers):
    for call in (lambda: stack({}, layers, to="h"), lambda: unstack({}, "h", to=layers)):
        with pytest.raises(js.BadArgumentError, match="one %d in it"):
            call()
    for scope in ("", "h/", 3):
        with pytest.raises(js.BadArgumentError, match="no name of a scope"):
            stack({}, "h%d", to=scope)
        with pytest.raises(js.BadArgumentError, match="no name of a scope"):
            unstack({}, scope, to="h%d")
