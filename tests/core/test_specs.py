"""`Specs`: what a program declares, where it was declared, and how a tree of parameters fits it."""

from __future__ import annotations

import copy
import inspect
import logging
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leaks import checking_leaks

import jscope as js

KEY = jax.random.key(0)
TABLE = np.arange(4, dtype=np.float32)


def l2(value):
    return 0.5 * jnp.sum(value**2)


def no_loss(value):
    return None


def non_negative(value):
    return jnp.maximum(value, 0)


def halves(shape, dtype):
    return jax.P("x", *[None] * (len(shape) - 1))


def program(x):
    with js.variable_scope("tower", reuse=js.AUTO_REUSE, regularizer=l2):
        for _ in range(3):
            x = x @ js.get_variable("kernel", [3, 3], initializer=js.glorot_uniform_initializer())
        x += js.get_variable("bias", [3], initializer=js.zeros_initializer(), regularizer=no_loss)
    js.get_variable("step", initializer=0, trainable=False)
    js.get_variable("table", initializer=TABLE, constraint=non_negative)
    js.get_variable("half", [5], jnp.bfloat16, initializer=js.ones_initializer(), partitioner=halves)
    return x


X = jnp.ones((2, 3))
net = js.transform(program)
SPECS = net.specs(X)
PARAMS = SPECS.init(KEY)


def line_of(function, text):
    """`file:line` of the one line of `function` that holds `text`."""
    lines, first = inspect.getsourcelines(function)
    (number,) = [first + i for i, line in enumerate(lines) if text in line]
    return f"{__file__}:{number}"


# What is declared -----------------------------------------------------------------------------------------------------


def test_variables_in_order_of_creation():
    assert list(SPECS) == ["tower/kernel", "tower/bias", "step", "table", "half"]
    assert [spec.name for spec in SPECS.values()] == list(SPECS)
    assert PARAMS.names == ("half", "step", "table", "tower/bias", "tower/kernel")
    assert len(SPECS) == 5
    assert SPECS.get("step") is SPECS["step"]
    assert "step" in SPECS
    assert "tower" not in SPECS
    assert SPECS.get("nothing", 7) == 7


def test_each_variable_with_all_about_it():
    kernel = SPECS["tower/kernel"]
    assert kernel == js.VariableSpec(
        name="tower/kernel",
        key="tower/kernel",
        shape=(3, 3),
        dtype=np.dtype("float32"),
        initializer=js.glorot_uniform_initializer(),
        trainable=True,
        collections=(js.GraphKeys.GLOBAL_VARIABLES, js.GraphKeys.TRAINABLE_VARIABLES),
        regularizer=l2,
    )
    assert not SPECS["step"].trainable
    assert SPECS["step"].collections == (js.GraphKeys.GLOBAL_VARIABLES,)
    assert SPECS["table"].constraint is non_negative
    assert SPECS["half"].partition == jax.P("x")
    assert SPECS["half"].dtype == jnp.bfloat16


def test_names_and_keys_differ_where_names_collide():
    def program():
        with js.variable_scope("a"), js.variable_scope("x"):
            pass
        with js.variable_scope("a", auxiliary_name_scope=False):
            js.get_variable("x", [])
        js.variable(1.0, name="free")

    specs = js.transform(program).specs()
    assert [(spec.name, spec.key) for spec in specs.values()] == [("a/x_1", "a/x"), ("free", None)]


def test_size_and_bytes():
    assert [spec.size for spec in SPECS.values()] == [9, 3, 1, 4, 5]
    assert [spec.bytes for spec in SPECS.values()] == [36, 12, 4, 16, 10]
    assert (SPECS.size, SPECS.bytes) == (22, 78)
    assert SPECS.size == sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    assert SPECS.bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(PARAMS))
    empty = js.transform(lambda: js.get_variable("v", [0, 3])).specs()
    assert (empty.size, empty.bytes) == (0, 0)
    assert (js.Specs().size, js.Specs().bytes, len(js.Specs())) == (0, 0, 0)


def test_abstract():
    assert SPECS.abstract() == jax.eval_shape(net.init, KEY, X)
    assert SPECS["half"].abstract() == jax.ShapeDtypeStruct((5,), jnp.bfloat16)
    assert jax.eval_shape(net.apply, SPECS.abstract(), X).shape == (2, 3)


# Where ----------------------------------------------------------------------------------------------------------------


def test_created_at_and_used_at_are_the_lines_of_the_calls():
    def program():
        with js.variable_scope("s"):
            js.get_variable("a", [])  # makes a
            js.get_variable("b", [])  # makes b
        with js.variable_scope("s", reuse=True):
            for _ in range(2):
                js.get_variable("a", [])  # reads a twice
            js.get_variable("a")  # reads a again

    specs = js.transform(program).specs()
    assert specs["s/a"].created_at == line_of(program, "makes a")
    assert specs["s/b"].created_at == line_of(program, "makes b")
    assert specs["s/b"].used_at == ()
    again = line_of(program, "reads a twice")
    assert specs["s/a"].used_at == (again, again, line_of(program, "reads a again"))


def test_lines_of_calls_over_several_lines_helpers_and_transforms():
    def helper(name):
        return js.get_variable(  # in the helper
            name,
            [],
        )

    def program():
        helper("h")  # not here
        js.variable(1.0, "v")  # a variable
        js.get_local_variable("l", [])  # a local one
        jax.jit(lambda: js.get_variable("j", []))()  # inside jit
        template = js.make_template("t", helper, name="v")
        template()
        with js.variable_scope("s") as scope:
            js.get_variable("g", [])
            scope.reuse_variables()
            jax.checkpoint(lambda: js.get_variable("g", []))()  # inside checkpoint

    specs = js.transform(program).specs()
    for name, function, text in (
        ("h", helper, "in the helper"),
        ("v", program, "a variable"),
        ("l", program, "a local one"),
        ("j", program, "inside jit"),
        ("t/v", helper, "in the helper"),
    ):
        assert specs[name].created_at == line_of(function, text), name
    assert specs["s/g"].used_at == (line_of(program, "inside checkpoint"),)


def test_a_typo_under_auto_reuse_shows_as_a_variable_read_once():
    def program():
        for name in ("kernel", "kernel", "kernl"):
            with js.variable_scope("s", reuse=js.AUTO_REUSE):
                js.get_variable(name, [])

    specs = js.transform(program).specs()
    assert {name: len(spec.used_at) for name, spec in specs.items()} == {"s/kernel": 1, "s/kernl": 0}
    rows = {line.split()[0]: line.split()[4:6] for line in str(specs).splitlines()[2:4]}
    assert rows["kernel"][0] == "2"
    assert rows["kernl"] == ["1", "?"]


# Being a value --------------------------------------------------------------------------------------------------------


def test_two_runs_are_equal():
    assert net.specs(X) == SPECS
    assert net.specs(jnp.ones((9, 3))) == SPECS  # shapes of inputs don't matter where no variable has them
    assert js.transform(lambda x: program(x)).specs(X) == SPECS
    assert js.transform(lambda: js.get_variable("step", initializer=0, trainable=False)).specs() != SPECS


@pytest.mark.parametrize(
    "other",
    [
        lambda: js.get_variable("w", [2]),
        lambda: js.get_variable("v", [3]),
        lambda: js.get_variable("v", [2], jnp.int32),
        lambda: js.get_variable("v", [2], trainable=False),
        lambda: js.get_variable("v", [2], initializer=js.ones_initializer()),
        lambda: js.get_variable("v", [2], regularizer=l2),
        lambda: js.get_variable("v", [2], constraint=non_negative),
        lambda: js.get_variable("v", [2], partitioner=halves),
        lambda: js.get_variable("v", [2], collections=["mine"]),
        lambda: js.variable(jnp.zeros(2), "v"),
    ],
)
def test_whatever_is_declared_otherwise_is_unequal(other):
    def program():
        js.get_variable("v", [2])

    same = js.transform(lambda: js.get_variable("v", [2])).specs()  # from another line
    specs = js.transform(program).specs()
    assert specs == same
    assert hash(specs["v"]) == hash(same["v"])
    assert specs["v"].created_at != same["v"].created_at
    assert js.transform(other).specs() != specs


def test_specs_are_immutable():
    with pytest.raises(TypeError):
        SPECS["step"] = SPECS["half"]
    with pytest.raises(TypeError):
        del SPECS["step"]
    for name, value in (("size", 1), ("extra", 1)):
        with pytest.raises(AttributeError):
            setattr(SPECS, name, value)
    with pytest.raises(AttributeError):
        SPECS["step"].name = "x"
    with pytest.raises(TypeError, match="unhashable"):
        hash(SPECS)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol):
    again = pickle.loads(pickle.dumps(SPECS, protocol))
    assert again == SPECS
    assert list(again) == list(SPECS)
    assert [spec.created_at for spec in again.values()] == [spec.created_at for spec in SPECS.values()]
    assert [spec.used_at for spec in again.values()] == [spec.used_at for spec in SPECS.values()]
    assert again.init(KEY) == PARAMS
    assert copy.deepcopy(SPECS) == copy.copy(SPECS) == SPECS


@pytest.mark.parametrize(
    "initializer",
    [
        js.zeros_initializer,
        js.ones_initializer(),
        js.constant_initializer([1.0, 2.0, 3.0, 4.0]),
        js.random_normal_initializer(stddev=0.1),
        js.truncated_normal_initializer(stddev=0.1),
        js.random_uniform_initializer(-1, 1),
        js.variance_scaling_initializer(2.0),
        js.glorot_normal_initializer(),
        js.he_uniform_initializer(),
        js.lecun_normal_initializer(),
        js.orthogonal_initializer(),
        js.identity_initializer(),
    ],
)
def test_specs_with_tf1s_initializers_pickle(initializer):
    specs = js.transform(lambda: js.get_variable("v", [2, 2], initializer=initializer)).specs()
    again = pickle.loads(pickle.dumps(specs))
    assert again == specs
    assert again.init(KEY) == specs.init(KEY)


# Texts ----------------------------------------------------------------------------------------------------------------


def test_str_is_a_table():
    head, *rows, foot = str(SPECS).splitlines()
    assert head.split("  ")[0] == "variable"
    assert [column.strip() for column in head.split("  ") if column] == [
        "variable",
        "type",
        "trainable",
        "initializer",
        "partition",
        "reads",
        "created at",
    ]
    columns = [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows]
    lines = [spec.created_at.rpartition("/")[2] for spec in SPECS.values()]
    assert columns == [
        ["step", "i32[]", "no", "array 0", "1", lines[2]],
        ["table", "f32[4]", "yes", "array [0.0, 1.0, 2.0, 3.0]", "1", lines[3]],
        ["half", "bf16[5]", "yes", "ones", "('x')", "1", lines[4]],
        ["tower/", "2 variables, 12 elements, 48 B"],
        ["kernel", "f32[3,3]", "yes", "glorot_uniform", "3", lines[0]],
        ["bias", "f32[3]", "yes", "zeros", "1", lines[1]],
    ]
    assert foot == "5 variables, 22 elements, 78 B"
    for row in (row for row in rows if "tower/" not in row):  # columns are aligned
        assert row.index("test_specs.py") == head.index("created at")


def test_repr_is_short():
    assert repr(SPECS) == "<Specs: 5 variables, 22 elements, 78 B>"
    assert str(js.Specs()).splitlines()[-1] == "0 variables, 0 elements, 0 B"
    large = js.transform(lambda: js.get_variable("v", [1000, 1500])).specs()
    assert repr(large) == "<Specs: 1 variables, 1,500,000 elements, 6 MB>"


# Initial values -------------------------------------------------------------------------------------------------------


def test_init_is_that_of_the_program():
    assert SPECS.init(KEY) == net.init(KEY, X) == PARAMS
    assert jax.jit(SPECS.init)(KEY) == PARAMS
    assert SPECS.init(jax.random.key(1)) != PARAMS
    assert PARAMS["table"].dtype == jnp.float32
    np.testing.assert_array_equal(PARAMS["table"], TABLE)


def test_init_does_not_depend_on_the_other_variables():
    alone = js.Specs([SPECS["tower/kernel"]]).init(KEY)
    assert alone["tower/kernel"].tobytes() == PARAMS["tower/kernel"].tobytes()
    backwards = js.Specs(list(SPECS.values())[::-1]).init(KEY)
    assert backwards == PARAMS


def test_init_over_keys():
    keys = jax.random.split(KEY, 2)
    stacked = jax.vmap(SPECS.init)(keys)
    assert jax.tree.map(lambda leaf: leaf[1], stacked) == SPECS.init(keys[1])


class TestWarmStart:
    def test_keeps_what_is_given_and_makes_the_rest(self, caplog):
        given = {"tower": {"bias": np.full(3, 7.0, np.float32)}, "step": 5}
        with caplog.at_level(logging.INFO, "jscope"):
            params = SPECS.init(KEY, warm_start=given)
        assert params == PARAMS.replace({"tower/bias": jnp.full(3, 7.0), "step": jnp.int32(5)})
        (record,) = caplog.records
        assert "2 kept, 3 made" in record.getMessage()
        assert [line.split() for line in record.getMessage().splitlines()[2:]] == [
            ["kept", "tower/bias"],
            ["kept", "step"],
            ["missing", "tower/kernel"],
            ["missing", "table"],
            ["missing", "half"],
        ]

    def test_all_none_and_nothing(self, caplog):
        other = SPECS.init(jax.random.key(1))
        assert SPECS.init(KEY, warm_start=other) == other
        assert SPECS.init(KEY, warm_start={}) == PARAMS
        with caplog.at_level(logging.INFO, "jscope"):
            SPECS.init(KEY)
        assert caplog.records == []

    def test_leaves_are_copies(self):
        given = SPECS.init(KEY)
        params = SPECS.init(KEY, warm_start=given)
        jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)(params)
        assert all(leaf.is_deleted() for leaf in params.flat().values())
        assert given == PARAMS

    def test_under_jit(self):
        made = jax.jit(lambda start: SPECS.init(KEY, warm_start=start))({"tower/bias": jnp.ones(3)})
        assert made == PARAMS.replace({"tower/bias": jnp.ones(3)})

    def test_refuses_everything_that_does_not_fit_in_one_error(self):
        start = {"tower": {"kernl": 1.0, "bias": jnp.ones(4)}, "step": 1.0, "half": "text", "table": None}
        with pytest.raises(js.ParamsMismatchError, match=r"^warm_start does not fit the program: 5 faults\.") as error:
            SPECS.init(KEY, warm_start=start)
        assert error.value.faults == (
            "'tower/bias': has shape (4,), declared (3,)",
            "'step': has dtype float32, declared int32",
            "'table': is no array but None",
            "'half': is no array but 'text'",
            "'tower/kernl' is not declared (near: 'tower/kernel')",
        )
        assert isinstance(error.value, ValueError)
        assert "params.select" in error.value.fix
        assert f"{__file__}:" in error.value.where
        with pytest.raises(js.ParamsMismatchError, match=r"1 fault\."):
            SPECS.init(KEY, warm_start={"nothing": 1})
        with pytest.raises(js.BadTypeError, match="not a list"):
            SPECS.init(KEY, warm_start=[])


def test_what_the_program_computes_its_specs_cannot_make():
    def program(x):
        js.get_variable("mean", initializer=x.mean())
        js.get_variable("v", [])

    net = js.transform(program)
    specs = net.specs(X)
    with pytest.raises(js.InitializerError, match=r"net\.init\(key, \*args\) instead of specs\.init") as error:
        specs.init(KEY)
    assert "'mean'" in str(error.value)
    assert specs["mean"].created_at in error.value.exists
    assert net.init(KEY, X)["mean"] == 1
    assert specs.init(KEY, warm_start={"mean": 3.0})["mean"] == 3
    assert pickle.loads(pickle.dumps(specs)) == specs == net.specs(X)


def test_each_variable_alone():
    for name, spec in SPECS.items():
        assert (spec.initial_value(KEY) == PARAMS[name]).all()
    table = SPECS["table"].initial_value(KEY)
    assert table.unsafe_buffer_pointer() != SPECS["table"].initial_value(KEY).unsafe_buffer_pointer()


# How a tree fits ------------------------------------------------------------------------------------------------------

OFF = {"tower": {"kernl": PARAMS["tower/kernel"], "bias": jnp.zeros(4)}, "step": 1.0, "half": PARAMS["half"], "x": None}


def test_compare():
    report = SPECS.compare(OFF)
    assert report.kept == ("half",)
    assert report.missing == ("tower/kernel", "table")
    assert report.unexpected == ("tower/kernl", "x")
    assert report.mismatched == {
        "tower/bias": "has shape (4,), declared (3,)",
        "step": "has dtype float32, declared int32",
    }
    assert report.suggestions["tower/kernel"] == ("tower/kernl",)
    assert report.suggestions["tower/kernl"] == ("tower/kernel",)
    assert report.suggestions["x"] == ()
    assert SPECS.compare(PARAMS).kept == tuple(SPECS)
    assert SPECS.compare(PARAMS).faults() == []
    assert pickle.loads(pickle.dumps(report)) == report == SPECS.compare(OFF)


def test_faults_can_be_forgiven():
    report = SPECS.compare(OFF)
    assert len(report.faults()) == 6
    assert [f.split("'")[1] for f in report.faults(allow_missing=True)] == ["tower/bias", "step", "tower/kernl", "x"]
    assert [f.split("'")[1] for f in report.faults(allow_unexpected=True)] == [
        "tower/bias",
        "step",
        "tower/kernel",
        "table",
    ]


def test_a_comparison_prints_as_a_table():
    assert str(SPECS.compare(OFF)).splitlines() == [
        "state       name          note",
        "kept        half",
        "missing     tower/kernel  near: 'tower/kernl'",
        "missing     table",
        "unexpected  tower/kernl   near: 'tower/kernel'",
        "unexpected  x",
        "mismatched  tower/bias    has shape (4,), declared (3,)",
        "mismatched  step          has dtype float32, declared int32",
    ]


def test_check_lists_every_fault_at_once():
    SPECS.check(PARAMS)
    SPECS.check(PARAMS.to_dict())
    SPECS.check(SPECS.abstract())
    SPECS.check(jax.tree.map(np.asarray, PARAMS))
    with pytest.raises(js.ParamsMismatchError, match=r"do not fit the program: 6 faults\.") as error:
        SPECS.check(OFF)
    assert error.value.faults == tuple(SPECS.compare(OFF).faults())
    for fault in error.value.faults:
        assert f"  - {fault}" in str(error.value)
    assert "'tower/kernel' is missing (near: 'tower/kernl')" in error.value.faults
    assert f"{__file__}:" in error.value.where
    assert pickle.loads(pickle.dumps(error.value)).faults == error.value.faults
    with pytest.raises(js.ParamsMismatchError, match=r"1 fault\."):
        SPECS.check(PARAMS | {"x": 1})
    with pytest.raises(js.BadTypeError, match="compare takes a tree of parameters"):
        SPECS.check([PARAMS])


def test_check_under_jit_sees_shapes():
    @jax.jit
    def checked(tree):
        SPECS.check(tree)
        return tree

    assert checked(PARAMS) == PARAMS
    with pytest.raises(js.ParamsMismatchError, match="tower/bias"):
        checked(PARAMS.replace({"tower/bias": jnp.ones(4)}))


def test_suggestions_are_limited(monkeypatch):
    """Each takes a pass over all names: a tree of another model must not take minutes to refuse."""
    asked = []
    monkeypatch.setattr("jscope._specs.near", lambda name, names: asked.append(name) or [])
    many = js.Specs(
        js.VariableSpec(f"v{i}", f"v{i}", (), np.dtype("float32"), js.zeros_initializer()) for i in range(99)
    )
    report = many.compare({f"w{i}": 0.0 for i in range(99)})
    assert len(report.missing) == len(report.unexpected) == 99
    assert len(asked) == 40


SPEC_NAMES = st.sampled_from("abcdef")

# On a machine that is busy with other things slowness is no fault.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(st.sets(SPEC_NAMES), st.dictionaries(SPEC_NAMES, st.sampled_from([1.0, 1, np.zeros(2, np.float32)])))
def test_compare_sorts_every_name_into_one_heap(declared, tree):
    specs = js.Specs(js.VariableSpec(n, n, (), np.dtype("float32"), js.zeros_initializer()) for n in sorted(declared))
    report = specs.compare(tree)
    fits = {name for name, value in tree.items() if isinstance(value, float)}
    assert set(report.kept) == declared & fits
    assert set(report.missing) == declared - set(tree)
    assert set(report.unexpected) == set(tree) - declared
    assert set(report.mismatched) == (declared & set(tree)) - fits
    if declared == set(tree) == fits:
        specs.check(tree)
    else:
        with pytest.raises(js.ParamsMismatchError):
            specs.check(tree)


def test_an_unknown_name_is_an_error_with_close_ones():
    with pytest.raises(js.UnknownNameError, match="declares no variable 'tower/kernl'") as error:
        SPECS["tower/kernl"]
    assert isinstance(error.value, KeyError)
    assert error.value.near[0] == "tower/kernel"
    with pytest.raises(KeyError):
        SPECS[3]


# What is done by what is declared -------------------------------------------------------------------------------------


def test_split_and_join():
    trainable, rest = SPECS.split(PARAMS)
    assert rest.names == ("step",)
    assert trainable.names == ("half", "table", "tower/bias", "tower/kernel")
    assert trainable | rest == rest | trainable == PARAMS
    assert [part.names for part in SPECS.split({"tower": {"bias": 1.0}})] == [("tower/bias",), ()]
    grads = jax.grad(lambda part: net.apply(part | rest, X).sum())(trainable)
    assert grads.names == trainable.names


def test_regularization_loss():
    expected = 0.5 * jnp.sum(PARAMS["tower/kernel"] ** 2)  # once, though it is read three times
    assert SPECS.regularization_loss(PARAMS) == expected
    assert SPECS.regularization_loss(PARAMS.to_dict()) == expected
    grads = jax.jit(jax.grad(SPECS.regularization_loss, allow_int=True))(PARAMS)
    np.testing.assert_allclose(grads["tower/kernel"], PARAMS["tower/kernel"], rtol=1e-6)
    for nothing in ({}, {"table": TABLE}, SPECS.split(PARAMS)[1]):
        loss = SPECS.regularization_loss(nothing)
        assert isinstance(loss, jax.Array)
        assert (loss.dtype, loss.shape, float(loss)) == (jnp.float32, (), 0.0)


def test_losses_of_several_dtypes_are_added_where_jax_mixes_none():
    def program():
        for name, dtype in (("half", jnp.bfloat16), ("single", jnp.float32)):
            js.get_variable(name, [2], dtype, js.ones_initializer(), regularizer=jnp.sum)
        return js.get_regularization_loss()

    net = js.transform(program)
    with jax.numpy_dtype_promotion("strict"):
        params = net.init(jax.random.key(0))
        for loss in (net.apply(params), net.specs().regularization_loss(params)):
            assert (loss, loss.dtype) == (4, jnp.float32)
        assert net.specs().regularization_loss(params.select("half")[0]) == 2


def test_regularization_loss_is_that_of_the_program():
    def with_loss(x):
        program(x)
        return js.get_regularization_loss()

    assert js.transform(with_loss).apply(PARAMS, X) == SPECS.regularization_loss(PARAMS)


def test_constrain():
    below = PARAMS.replace({"table": -jnp.ones(4), "tower/bias": -jnp.ones(3)})
    constrained = SPECS.constrain(below)
    assert constrained == below.replace({"table": jnp.zeros(4)})
    assert SPECS.constrain({"table": -TABLE}).names == ("table",)
    assert constrained["tower/kernel"] is PARAMS["tower/kernel"]


@pytest.mark.parametrize("call", [SPECS.split, SPECS.regularization_loss, SPECS.constrain])
def test_undeclared_names_are_refused(call):
    with pytest.raises(js.ParamsMismatchError, match=r"1 fault") as error:
        call(PARAMS | {"tower": {"kernl": 1.0}})
    assert error.value.faults == ("'tower/kernl' is not declared",)
    with pytest.raises(js.BadTypeError, match="takes a tree of parameters"):
        call(3)


def test_specs_of_a_program_that_changes():
    """What the last `specs` found is only used to be quick: what is asked for is what counts."""
    shapes = {"a": [2], "b": [3]}
    net = js.transform(lambda x: [js.get_variable(name, shape, dtype) for name, shape in shapes.items()])
    dtype = jnp.float32
    seen = []
    for shapes, dtype in (
        ({"a": [2], "b": [3]}, jnp.float32),
        ({"b": [3], "a": [2]}, jnp.float32),
        ({"a": [4], "c": []}, jnp.float32),
        ({"a": [4]}, jnp.int32),
    ):
        specs = net.specs(1.0)
        seen.append([(name, spec.shape, spec.dtype) for name, spec in specs.items()])
        assert seen[-1] == [(name, tuple(shape), dtype) for name, shape in shapes.items()]
        assert net.init(jax.random.key(0), 1.0) == js.transform(net.__wrapped__).init(jax.random.key(0), 1.0)


def test_specs_again_under_transforms():
    """The placeholders of a later run come from outside of every transform within the program."""

    def program(x):
        block = jax.checkpoint(lambda x: jax.vmap(lambda x: x * js.get_variable("w", [2]))(x))
        x, _ = jax.lax.scan(lambda x, _: (block(x), js.next_key()), x, None, length=2)
        return x + js.get_variable("b", [2], initializer=js.ones_initializer())

    net = js.transform(program)
    x = jnp.ones((3, 2))
    first, again = net.specs(x), net.specs(x)
    assert [(s.name, s.shape, s.dtype, s.used_at) for s in first.values()] == [
        (s.name, s.shape, s.dtype, s.used_at) for s in again.values()
    ]
    with checking_leaks():
        assert jax.jit(net.init)(jax.random.key(0), x) == net.init(jax.random.key(0), x)


def test_placeholders_in_inner_traces():
    """Those that are left over from outside are good inside; those that are made inside are good there only."""

    def program(x):
        def body(x, _):
            with js.variable_scope("inside"):
                for name in "abcdefghij":
                    x = x * js.get_variable(name, [2]) + js.get_variable(f"{name}_other", [2, 2])[0]
            return jax.checkpoint(lambda x: jnp.sin(x) + js.get_variable("deeper", [2]))(x), None

        for name in "abcde":
            x = x * js.get_variable(name, [2])
        x, _ = jax.lax.scan(body, x, None, length=2)
        grad = jax.grad(lambda w: jnp.sum(w * js.get_variable("z", [2])))(js.get_variable("y", [2]))
        return x + grad

    net, x = js.transform(program), jnp.ones(2)
    with checking_leaks():
        first = list(net.specs(x))
        assert [list(net.specs(x)) for _ in range(3)] == [first] * 3
    assert len(first) == 5 + 20 + 3


@pytest.mark.parametrize("value", [np.ones(2), np.ones(2, np.float32), jnp.ones(2), jnp.ones(2, jnp.bfloat16)])
def test_constraints_of_other_arrays(value):
    """Values that JAX has not converted yet, and trees in another precision."""
    specs = js.transform(lambda: js.get_variable("w", [2], constraint=lambda w: jnp.clip(w, 0, 0.5))).specs()
    for constrain in (specs.constrain, jax.jit(specs.constrain)):
        assert constrain({"w": value})["w"].tolist() == [0.5, 0.5]
    by_row = jax.vmap(specs.constrain)(js.Params({"w": jnp.ones((3, 2))}))
    assert by_row["w"].shape == (3, 2)
    assert specs.constrain(by_row) == by_row
