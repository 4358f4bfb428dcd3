"""`assign_from`: strict, complete in what it says, and right in what it gives."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA

import jscope as js
from jscope import checkpoint, testing
from jscope.checkpoint import assign_from

GPT2 = DATA / "gpt2_small.ckpt"
MISC = DATA / "misc_v2.ckpt"


def f32(*shape, fill=1.0):
    return np.full(shape, fill, np.float32)


def program():
    with js.variable_scope("tower"):
        w = js.get_variable("kernel", [2, 3])
        b = js.get_variable("bias", [3])
    return w, b, js.get_variable("step", [], jnp.int32, initializer=js.zeros_initializer(), trainable=False)


SPECS = js.transform(program).specs()
SOURCE = {"tower": {"kernel": f32(2, 3, fill=2), "bias": f32(3, fill=5)}, "step": np.int32(7)}


def faults_of(*args, **kwargs):
    with pytest.raises(js.ParamsMismatchError) as info:
        assign_from(*args, **kwargs)
    error = info.value
    assert error.where.startswith(__file__)
    assert error.fix
    assert str(error).count("\n  - ") == len(error.faults)
    return list(error.faults)


# What it gives --------------------------------------------------------------------------------------------------------


def test_all_of_a_source():
    params, report = assign_from(SPECS, SOURCE)
    assert params == js.Params(SOURCE)
    assert all(isinstance(leaf, jax.Array) for leaf in params.flat().values())
    assert report.loaded == tuple(SPECS)
    assert (report.kept, report.initialised, report.unused, report.cast) == ((), (), (), {})
    SPECS.check(params)


def test_a_path_of_any_format(tmp_path):
    checkpoint.save(tmp_path / "m.safetensors", SOURCE)
    checkpoint.save_tf(tmp_path / "m", SOURCE)
    np.savez(tmp_path / "m.npz", **js.Params(SOURCE).flat())
    for path in ("m.safetensors", "m", "m.npz"):
        assert assign_from(SPECS, tmp_path / path).params == js.Params(SOURCE)
    assert assign_from(SPECS, os.fsencode(tmp_path / "m")).params == js.Params(SOURCE)
    assert assign_from(SPECS, checkpoint.load_tf(tmp_path / "m")).params == js.Params(SOURCE)


def test_missing_ones_are_initialised_as_init_would():
    key = jax.random.key(3)
    params, report = assign_from(SPECS, {"tower/bias": f32(3)}, allow_missing=True, key=key)
    assert params == SPECS.init(key).replace({"tower/bias": f32(3)})
    assert (report.loaded, report.initialised, report.kept) == (("tower/bias",), ("tower/kernel", "step"), ())


def test_missing_ones_of_a_tree_stay():
    tree = SPECS.init(jax.random.key(0))
    params, report = assign_from(tree, {"tower/bias": f32(3, fill=9)}, allow_missing="tower/k|step")
    assert params == tree.replace({"tower/bias": f32(3, fill=9)})
    assert params["tower/kernel"] is tree["tower/kernel"]
    assert report.kept == ("step", "tower/kernel")


def test_the_target_says_the_kind_of_array():
    target = {"n": np.zeros(2), "j": jnp.zeros(2), "s": jax.ShapeDtypeStruct((2,), np.int32)}
    source = {"n": np.ones(2), "j": f32(2), "s": jnp.ones(2, jnp.int32)}
    params = assign_from(target, source).params
    assert isinstance(params["n"], np.ndarray)
    assert params["n"].dtype == np.float64
    assert isinstance(params["j"], jax.Array)
    assert isinstance(params["s"], jax.Array)


def test_values_are_arrays_of_their_own():
    """On a CPU, JAX takes over memory of numpy where it can, also under may_alias=False (0.10.2)."""
    room = np.ones(1016, np.float32)
    aligned = room[-(room.ctypes.data // 4) % 16 :][:1000]  # to 64 bytes, as it must be for that
    source = {"a": aligned, "b": jnp.ones(1000), "n": f32(1000)}
    params = assign_from({"a": jnp.zeros(1000), "b": jnp.zeros(1000), "n": f32(1000)}, source).params
    source["a"][:] = source["n"][:] = 7
    np.testing.assert_array_equal(params["a"], 1)
    np.testing.assert_array_equal(params["n"], 1)
    jax.jit(lambda x: x + 1, donate_argnums=0)(params["b"])
    np.testing.assert_array_equal(source["b"], 1)


@pytest.mark.skipif(jax.dtypes.canonicalize_dtype("int64") == np.int64, reason="JAX has 64 bits here")
def test_64_bits_are_refused_where_jax_would_cut_them(tmp_path):
    """`jax.device_put` makes 7 of 2**40 + 7, and infinity of 1e300, without a word."""
    wide = {"f": np.array([1e300, 0.1]), "i": np.array([2**40 + 7, 1])}
    checkpoint.save(tmp_path / "m", wide)
    checkpoint.save_tf(tmp_path / "tf", wide)
    abstract = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in wide.items()}
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    said = [
        "'f' is to be an array of JAX of dtype float64, which it has only with jax_enable_x64",
        "'i' is to be an array of JAX of dtype int64, which it has only with jax_enable_x64",
    ]
    plan = checkpoint.Plan()
    for source in (wide, tmp_path / "m", tmp_path / "tf"):
        assert faults_of(abstract, source) == said
        assert faults_of(wide, source, shardings=dict.fromkeys(wide, one)) == said
        assert assign_from(wide, source).params == js.Params(wide)
        for call in (plan.load, plan.check):
            with pytest.raises(js.ParamsMismatchError) as info:
                call(plan.leads_to(source), source)
            assert list(info.value.faults) == said
            assert info.value.fix == "turn jax_enable_x64 on, or want arrays of numpy there"
        assert plan.check(wide, source).loaded == ("f", "i")
    kept = faults_of(wide, {}, allow_missing=True, shardings={"i": one})
    assert kept == said[1:]


def test_what_shardings_name_is_an_array_of_jax_that_lies_there(tmp_path):
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    there = jax.sharding.NamedSharding(mesh, jax.P("x"))
    checkpoint.save(tmp_path / "m", {"w": f32(4)})
    target = {"w": f32(4, fill=0), "kept": f32(2), "jax": jnp.ones(2), "number": np.int32(3), "alone": f32(2)}
    shardings = {"w": there, "kept": there, "jax": there, "number": jax.sharding.NamedSharding(mesh, jax.P())}
    for source in ({"w": f32(4)}, tmp_path / "m"):
        params, report = assign_from(target, source, allow_missing=True, shardings=shardings)
        for name, sharding in shardings.items():
            assert isinstance(params[name], jax.Array), name
            assert params[name].sharding == sharding, name
        assert params == js.Params(target).replace({"w": f32(4)})
        assert params["alone"] is target["alone"]
        assert set(report.kept) == {"kept", "jax", "number", "alone"}
        target["kept"][:] = 7
        np.testing.assert_array_equal(params["kept"], 1)
        target["kept"][:] = 1
    out = jax.jit(lambda a: assign_from({"a": f32(4)}, {"a": a}, shardings={"a": there}).params)(jnp.ones(4))
    assert out["a"].sharding.is_equivalent_to(there, 1)
    faults = faults_of({"t": "text"}, {}, allow_missing=True, shardings={"t": there})
    assert faults == ["'t' is given a sharding, and is no array"]


def test_the_fix_is_about_what_does_not_fit():
    def fix_of(*args, **options):
        with pytest.raises(js.ParamsMismatchError) as info:
            assign_from(*args, **options)
        return info.value.fix

    target, good = {"a": jnp.zeros(1)}, {"a": f32(1)}
    assert fix_of(target, {"b": f32(1)}).startswith("rename names")
    assert fix_of(target, good, shardings={"a": "data"}) == "correct shardings=, or those of the target"
    values = "give arrays that have values, and a target whose dtypes hold them"
    assert fix_of(target, {"a": np.array([1e300])}, allow_cast=True) == values
    plan = checkpoint.Plan()
    fix = fix_of(target, {"a": np.array([1e300])}, allow_cast=True, plan=plan)
    assert fix == f"{values}; correct the steps of the plan, or add some"


def test_values_go_where_the_target_is():
    device = jax.devices()[0]
    sharding = jax.sharding.NamedSharding(jax.make_mesh((1,), ("x",), devices=[device]), jax.P("x"))
    target = {
        "a": jax.device_put(jnp.zeros(4), sharding),
        "b": jax.ShapeDtypeStruct((4,), np.float32, sharding=sharding),
    }
    params = assign_from(target, {"a": f32(4), "b": f32(4)}).params
    assert params["a"].sharding == params["b"].sharding == sharding


def test_numbers_are_arrays_as_in_tensorflow():
    params = assign_from({"a": jnp.zeros(()), "n": jnp.int32(0)}, {"a": 2.5, "n": 3}).params
    assert (params["a"], params["n"]) == (2.5, 3)


def test_under_jit():
    tree = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
    out = jax.jit(lambda tree, a: assign_from(tree, {"a": a}, allow_missing=True).params)(tree, f32(2))
    assert out == js.Params({"a": f32(2), "b": f32(3, fill=0)})


def test_a_key_of_random_numbers_is_an_array_too():
    key = jax.random.key(1)
    assert assign_from({"k": jax.random.key(0)}, {"k": key}).params == js.Params({"k": key})


# What does not fit ----------------------------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_in_one_error():
    source = {
        "tower/kernal": f32(2, 3),
        "tower/bias": f32(4),
        "step": np.int64(3),
        "other": f32(1),
    }
    assert faults_of(SPECS, source) == [
        "'step' has dtype int64, wanted int32",
        "'tower/bias' has shape (4,), wanted (3,)",
        "'tower/kernel' is missing (near: 'tower/kernal')",
        "'other' is not used",
        "'tower/kernal' is not used (near: 'tower/kernel')",
    ]


def test_nothing_is_read_before_all_fits(tmp_path):
    checkpoint.save(tmp_path / "m", SOURCE)
    raw = bytearray((tmp_path / "m").read_bytes())
    raw[-1] ^= 1  # reading would end in a CheckpointError
    (tmp_path / "m").write_bytes(raw)
    assert faults_of(SPECS, tmp_path / "m", rename={"step": "stop"}) == [
        "'step' is missing (near: 'step')",
        "'step' is not used as 'stop' (near: 'step')",
    ]


def test_what_may_be_missing_or_left_over():
    source = {"tower/kernel": f32(2, 3), "adam/m": f32(1), "adam/v": f32(1), "x": f32(1)}
    assert faults_of(SPECS, source, allow_missing=["step"], allow_unused="adam/") == [
        "'tower/bias' is missing",
        "'step' is missing, and can be initialised only from specs and with key=",
        "'x' is not used",
    ]
    _, report = assign_from(SPECS, source, allow_missing=True, allow_unused=["adam", "x$"], key=jax.random.key(0))
    assert report.unused == ("adam/m", "adam/v", "x")
    abstract = {"a": jax.ShapeDtypeStruct((1,), np.float32)}
    assert "only from specs" in faults_of(abstract, {}, allow_missing=True, key=jax.random.key(0))[0]


def test_names_that_become_one_and_are_not_used_are_all_said():
    assert faults_of({}, {"a": f32(1), "b": f32(1)}, rename=lambda name: "c") == [
        "'a' is not used as 'c'",
        "'b' is not used as 'c'",
    ]


def test_entries_that_are_no_arrays():
    target = {"a/w": f32(2), "str": f32(1)}
    assert faults_of(target, MISC, allow_unused=True) == [
        "'str', from 'str', holds strings",
        "'a/w' has shape (3, 4), wanted (2,)",
        "'str' is missing",
    ]
    _, report = assign_from({"a/w": f32(3, 4)}, MISC, allow_unused=True)
    assert report.skipped == {"str": "holds strings"}
    assert "skipped  str     holds strings" in str(report).splitlines()


def test_a_source_without_values():
    taken = jnp.ones(3)
    taken.delete()
    source = {"tower/kernel": SPECS["tower/kernel"], "tower/bias": taken, "step": jax.ShapeDtypeStruct((), jnp.int32)}
    assert sorted(faults_of(SPECS, source)) == [
        "'step' is abstract, a ShapeDtypeStruct",
        "'tower/bias' is deleted: a jitted function that donates its arguments has taken its memory",
        "'tower/kernel' is what a program declares, and has no value",
    ]
    params = js.Params({"tower/bias": taken})
    with pytest.raises(js.BadArgumentError, match=r"'tower/bias' .* is deleted"):
        assert params == {"tower/bias": jnp.ones(3)}
    net = js.transform(program)
    with pytest.raises(js.ParamsMismatchError, match="'tower/bias' is deleted"):
        net.init(jax.random.key(0), warm_start=params)


def test_values_that_the_program_computes():
    """A spec does not hold them: the tree that net.init gave is filled instead."""
    net = js.transform(lambda x: js.get_variable("w", initializer=x * 2) + js.get_variable("b", [2]))
    x = jnp.ones(2)
    with pytest.raises(js.InitializerError, match=r"call net\.init"):
        assign_from(net.specs(x), {"b": f32(2)}, allow_missing=True, key=jax.random.key(0))
    params, _ = assign_from(net.init(jax.random.key(0), x), {"b": f32(2)}, allow_missing=True)
    np.testing.assert_array_equal(params["w"], 2)


def test_near_names_are_not_looked_for_forever():
    names = [f"model/encoder/layer_{i}/attention/kernel" for i in range(1500)]
    faults = faults_of(dict.fromkeys(names, f32(1)), {name.replace("model", "net"): f32(1) for name in names})
    assert len(faults) == 3000
    assert 2 <= sum("near" in fault for fault in faults) <= 20


def test_what_is_no_array():
    assert faults_of({"a": jnp.ones(1), "b": None}, {"a": "text", "b": f32(1)}) == [
        "'a' is no array but 'text'",
        "'b' is to replace None, which is no array",
    ]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: assign_from(3, {}), js.BadTypeError),
        (lambda: assign_from({}, 3.5), js.BadTypeError),
        (lambda: assign_from({}, {"a": 1}, rename=3), js.BadTypeError),
        (lambda: assign_from({}, {"a": 1}, rename=[("a",)]), js.BadTypeError),
        (lambda: assign_from({}, {"a": 1}, rename={"a": 3}), js.BadTypeError),
        (lambda: assign_from({}, {"a": 1}, rename=lambda name: None), js.BadTypeError),
        (lambda: assign_from({}, {"a": 1}, rename=[("(", "b")]), js.BadArgumentError),
        (lambda: assign_from({}, {"a": 1}, rename=[("a", r"\1")]), js.BadArgumentError),
        (lambda: assign_from({}, {"a": 1}, rename=[("a", None)]), js.BadArgumentError),
        (lambda: assign_from({}, {"a": 1}, rename=[(b"a", "b")]), js.BadArgumentError),
        (lambda: assign_from({}, {"a": 1}, allow_unused="("), js.BadArgumentError),
        (lambda: assign_from({}, {"a": 1}, exclude=["a{99999999999}"]), js.BadArgumentError),
        (lambda: assign_from({}, {"a": 1}, allow_missing=3), js.BadTypeError),
        (lambda: assign_from({}, {"a": 1}, allow_cast=None), js.BadTypeError),
        (lambda: assign_from({}, "no such file"), js.CheckpointError),
    ],
)
def test_arguments_that_can_not_be_meant(call, error):
    with pytest.raises(error) as info:
        call()
    assert info.value.fix
    assert info.value.where.startswith(__file__)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rename",
    [
        {"old/": "tower/", "global_step": "step"},
        {"old/kernel": "tower/kernel", "old/": "tower/", "global_step": "step"},
        [("^old", "tower"), ("global_", "")],
        lambda name: name.replace("old", "tower").replace("global_", ""),
    ],
)
def test_renames(rename):
    source = {"old": SOURCE["tower"], "global_step": SOURCE["step"]}
    params, report = assign_from(SPECS, source, rename=rename)
    assert params == js.Params(SOURCE)
    assert report.sources == {"tower/kernel": "old/kernel", "tower/bias": "old/bias", "step": "global_step"}


@pytest.mark.parametrize(
    ("rename", "old", "new"),
    [
        ({"/": "s/"}, "a/b", "s/a/b"),
        ({"": "s/"}, "a/b", "s/a/b"),
        ({"a/": "/"}, "a/b/c", "b/c"),
        ({"a/": ""}, "a/b/c", "b/c"),
        ({"a/": "x/", "a/b/": "y/"}, "a/b/c", "y/c"),
        ({"a/b/": "y/", "a/": "x/"}, "a/b/c", "y/c"),
        ({"/": "s/", "a/b": "t"}, "a/b", "t"),
        ([("a", "b"), ("b", "c")], "a/b", "c/c"),
        ([(r"layer_(\d+)", r"h\1")], "x/layer_12/w", "x/h12/w"),
    ],
)
def test_which_rename_counts(rename, old, new):
    others = {"a/b/z": f32(1), "a/z": f32(1)}
    _, report = assign_from({new: jnp.ones(1)}, {old: f32(1), **others}, rename=rename, allow_unused=".*z")
    assert report.sources == {new: old}


def test_renames_that_are_wrong():
    target = {"a": jnp.ones(1)}
    assert faults_of(target, {"b": f32(1), "c": f32(1)}, rename={"b": "a", "c": "a"}) == [
        "'b' and 'c' are both to be 'a'",
    ]
    assert faults_of(target, {"a": f32(1)}, rename={"b": "c", "x/": "y/", "/": "z"}) == [
        "rename 'b' -> 'c': the source has no such name",
        "rename 'x/' -> 'y/': the source has no such name",
        "rename '/' -> 'z': both are scopes, which end in '/', or neither is",
        "'a' is missing (near: 'a')",
        "'a' is not used as 'za' (near: 'a')",
    ]


@given(
    names=st.lists(testing.names(), min_size=1, max_size=8, unique=True),
    prefix=testing.names(),
)
@settings(max_examples=50, deadline=None)
def test_a_scope_is_put_around_and_taken_off(names, prefix):
    tree = {name: f32(1, fill=i) for i, name in enumerate(names)}
    inner = {f"{prefix}/{name}": array for name, array in tree.items()}
    assert assign_from(inner, tree, rename={"/": f"{prefix}/"}).params == js.Params(inner)
    assert assign_from(tree, inner, rename={f"{prefix}/": "/"}).params == js.Params(tree)


def test_a_tensorflow_checkpoint_into_a_renamed_model():
    given = checkpoint.load_tf(GPT2)
    target = {name.replace("model/", "gpt/").replace("h0", "block0"): jnp.zeros(a.shape) for name, a in given.items()}
    params, report = assign_from(target, GPT2, rename={"model/": "gpt/", "model/h0/": "gpt/block0/"})
    assert len(report.loaded) == 28
    np.testing.assert_array_equal(params["gpt/block0/attn/c_attn/w"], given["model/h0/attn/c_attn/w"])


# Casts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.float64(1.5), "float32"),
        (np.float32(1.5), "bfloat16"),
        (np.float32([1.5, np.inf, np.nan]), "float16"),
        (np.float32([464, -448]), "float8_e4m3fn"),
        (np.float32([6.5, -6, 0.1]), "float4_e2m1fn"),
        (np.int64(7), "int32"),
        (np.int64(7), "uint8"),
        (np.int32(7), "float32"),
        (np.bool_(True), "int32"),
        (np.bool_([True, False]), "float4_e2m1fn"),
        (np.float32(2), "complex64"),
    ],
)
def test_casts(value, dtype):
    target = {"a": jax.ShapeDtypeStruct(np.shape(value), jnp.dtype(dtype))}
    assert faults_of(target, {"a": value}) == [f"'a' has dtype {value.dtype}, wanted {dtype}"]
    for allowed in (True, "a", ["b", "a$"]):
        params, report = assign_from(target, {"a": value}, allow_cast=allowed)
        assert params["a"].dtype == dtype
        np.testing.assert_array_equal(params["a"], value.astype(dtype))
        assert report.cast == {"a": f"{value.dtype} -> {dtype}"}
    assert faults_of(target, {"a": value}, allow_cast="b")


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (np.float32(1.5), "int32", "can't be cast"),
        (np.complex64(1), "float32", "can't be cast"),
        (np.int32(1), "bool", "can't be cast"),
        (jax.random.key(0), "uint32", "can't be cast"),
        (np.int64(1 << 40), "int32", "out of the range of int32"),
        (np.int32(-1), "uint32", "out of the range of uint32"),
        (np.float64(1e300), "float32", "out of the range of float32"),
        (np.float32([1, 1e6]), "float16", "out of the range of float16"),
        (np.float32(1e6), "float8_e4m3fn", "out of the range of float8_e4m3fn"),
        (np.int32(100_000), "float16", "out of the range of float16"),
        (np.float32(np.inf), "float8_e4m3fn", "out of the range of float8_e4m3fn"),
        (np.float32(480), "float8_e4m3fn", "out of the range of float8_e4m3fn"),
        (np.float32(100), "float4_e2m1fn", "out of the range of float4_e2m1fn"),
        (np.float32(-np.inf), "float4_e2m1fn", "out of the range of float4_e2m1fn"),
        (np.float32(np.nan), "float4_e2m1fn", "out of the range of float4_e2m1fn"),
        (np.float32(-1), "float8_e8m0fnu", "out of the range of float8_e8m0fnu"),
        (np.int32(9), "float4_e2m1fn", "out of the range of float4_e2m1fn"),
        (np.int8(-128), "float4_e2m1fn", "out of the range of float4_e2m1fn"),
        (np.bool_(False), "float8_e8m0fnu", "out of the range of float8_e8m0fnu"),
        (np.uint64(1 << 63), "int64", "out of the range of int64"),
    ],
)
def test_casts_that_would_lose_more_than_precision(value, dtype, text):
    target = {"a": np.zeros(np.shape(value), jnp.dtype(dtype))}
    (fault,) = faults_of(target, {"a": value}, allow_cast=True)
    assert text in fault


# The report -----------------------------------------------------------------------------------------------------------


def test_the_report_is_a_table():
    tree = {"a": jnp.zeros(1), "b": jnp.zeros(2), "c": jnp.zeros(3)}
    source = {"a": np.ones(1), "old": f32(2), "d": 1}
    _, report = assign_from(tree, source, rename={"old": "b"}, allow_missing=True, allow_unused=True, allow_cast=True)
    assert str(report).splitlines() == [
        "state   name  note",
        "cast    a     float64 -> float32",
        "loaded  b     from old",
        "kept    c",
        "unused  d",
        "2 loaded (1 cast), 1 kept, 0 initialised, 1 unused",
    ]
    assert report == assign_from(
        tree, source, rename={"old": "b"}, allow_missing=True, allow_unused=True, allow_cast=True
    )[1]  # fmt: skip
