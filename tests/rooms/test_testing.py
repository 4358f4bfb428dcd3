"""jscope.testing: its strategies on the laws themselves, and each assertion both ways."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, find, given, settings
from hypothesis import strategies as st

import jscope as js
from jscope import testing
from jscope.testing import (
    ScopeProgram,
    Statement,
    assert_order_independent,
    assert_pure,
    assert_same_variables,
)

KEY = jax.random.key(0)

# No deadline: the first use of an initializer compiles it.
quick = settings(max_examples=50, deadline=None)
slow = settings(max_examples=20, deadline=None)


# Names and trees ------------------------------------------------------------------------------------------------------


@given(testing.names(), testing.scope_names(), testing.shapes(), testing.dtypes())
@quick
def test_names_are_valid_everywhere(name, scope, shape, dtype):
    def program():
        js.get_variable(name, shape, dtype)
        js.variable(0.0, name)
        with js.variable_scope(scope), js.name_scope(scope):
            js.get_variable(name, shape, dtype)

    specs = js.transform(program).specs()
    assert [spec.key for spec in specs.values()] == [name, None, f"{scope}/{name}"]
    assert (specs[name].shape, specs[name].dtype) == (shape, dtype)


def test_odd_names_can_be_left_out():
    @given(testing.names(odd=False) | testing.scope_names(odd=False))
    @quick
    def plain(name):
        assert name.replace("_", "").isalnum()

    plain()
    assert find(testing.names(), lambda name: "//" in name)
    assert find(testing.scope_names(), lambda name: name.endswith("/"))


@given(testing.arrays())
@quick
def test_arrays_hold_small_exact_numbers(array):
    assert isinstance(array, jax.Array)
    values = np.asarray(array).astype(np.float64)
    assert (abs(values) <= 5).all()
    assert (values * 2 == np.round(values * 2)).all()


@given(testing.params())
@quick
def test_params_survive_every_way_out_and_back(params):
    leaves, structure = jax.tree.flatten(params)
    assert jax.tree.unflatten(structure, leaves) == params
    assert js.Params(params.flat()) == js.Params.from_dict(params.to_dict(flat=True)) == params
    for protocol in (2, pickle.HIGHEST_PROTOCOL):
        assert pickle.loads(pickle.dumps(params, protocol)) == params
    assert copy.deepcopy(params) == params
    assert params | params == params
    assert [params[name] is leaf for name, leaf in params.flat().items()] == [True] * len(params.names)
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)] == [
        f"[{name!r}]" for name in params.names
    ]


@given(testing.params(leaves=st.integers()))
@quick
def test_params_nest_where_no_variable_has_the_name_of_a_scope(params):
    collides = any(other.startswith(name + "/") for name in params.names for other in params.names)
    if collides:
        with pytest.raises(js.BadNameError, match="nested dict can't hold both"):
            params.to_dict()
    else:
        assert js.Params(params.to_dict()) == params
    scopes = [name.rpartition("/")[0] for name in params.names if "/" in name]
    for scope in scopes:
        inside = {name: leaf for name, leaf in params.flat().items() if name.startswith(scope + "/")}
        assert {f"{scope}/{name}": leaf for name, leaf in params.scope(scope).flat().items()} == inside


@given(testing.params(leaves=st.just(0), colliding=False), st.data())
@quick
def test_params_without_collisions_nest(params, data):
    assert js.Params(params.to_dict()) == params
    chosen, rest = params.select(lambda name, _: data.draw(st.booleans()))
    assert chosen | rest == rest | chosen == params
    labels = params.like({}, default="label")
    assert labels.names == params.names


def test_params_collide():
    tree = find(testing.params(leaves=st.just(0)), lambda tree: len(tree.names) > len(tree))
    assert tree.names == ("w", "w/w")


# Programs -------------------------------------------------------------------------------------------------------------


def names_and_errors(got):
    return [next(iter(entry)) for entry in got]


@given(testing.scope_programs())
@slow
def test_valid_programs_are_pure_and_build_bind_init_apply_agree(program):
    net = js.transform(program)
    params = net.init(KEY)
    assert tuple(sorted(net.specs())) == params.names
    with js.build(KEY) as built:
        made = program()
    assert built.params == params
    assert built.specs == net.specs()
    with js.bind(params) as bound:
        read = program()
    assert bound.params == params
    applied = net.apply(params)
    assert names_and_errors(applied) == names_and_errors(read) == names_and_errors(made)
    for entry in applied:
        ((name, value),) = entry.items()
        assert value is params[name]
    assert_pure(program, params)


@given(testing.scope_programs(valid=False))
@slow
def test_any_program_notes_the_same_in_every_mode(program):
    net = js.transform(program)
    params = net.init(KEY)
    noted = []

    def record():
        noted.append(names_and_errors(program()))

    js.transform(record).specs()
    with js.build(KEY) as built:
        record()
    js.transform(record).apply(params)
    jax.jit(js.transform(record).apply)(params)
    assert built.params == params
    assert noted == [noted[0]] * 4
    assert_pure(net, params)


@given(testing.scope_programs(valid=False))
@slow
def test_a_program_is_its_repr(program):
    namespace = {}
    exec(repr(program), namespace)
    assert_same_variables(program, namespace["program"])
    params = js.transform(program).init(KEY)
    again = js.transform(namespace["program"]).apply(params)
    assert names_and_errors(js.transform(program).apply(params)) == names_and_errors(again)
    assert pickle.loads(pickle.dumps(program)) == program
    assert hash(copy.deepcopy(program)) == hash(program)


@given(testing.scope_programs(), testing.scope_programs())
@slow
def test_what_comes_before_changes_no_initial_value(program, other):
    assume(js.transform(program).specs())
    longer = ScopeProgram((Statement('with js.variable_scope("FRESH"):', other.body), *program.body))
    assert_order_independent(program, longer)
    params, more = js.transform(program).init(KEY), js.transform(longer).init(KEY)
    assert more.select(lambda name, _: name in params.names)[0] == params
    # An unused variable more in the tree is no fault.
    js.transform(program).apply(more)


@given(testing.scope_programs())
@settings(max_examples=8, deadline=None)
def test_jitted_init_is_init(program):
    net = js.transform(program)
    assert jax.jit(net.init)(KEY) == net.init(KEY)


@given(testing.scope_programs(odd_names=False), testing.scope_programs(odd_names=False))
@slow
def test_lift_finds_what_apply_finds(program, other):
    """Whatever else runs around it, the lifted tree is the one that the program has on its own."""
    net = js.transform(program)

    def outer():
        with js.variable_scope("LIFTED"):
            tree = js.lift(net)
        with js.variable_scope("OTHER"):
            other()
        return tree, net.apply(tree)

    alone = net.specs()
    around = js.transform(outer)
    params = around.init(KEY)
    tree, got = around.apply(params)
    assert tree.names == tuple(sorted(alone)) == params.get("LIFTED", js.Params()).names
    assert names_and_errors(got) == names_and_errors(net.apply(net.init(KEY)))


def test_programs_of_every_kind_come_up():
    sources = []

    @given(testing.scope_programs())
    @settings(max_examples=200, database=None, derandomize=True)
    def collect(program):
        sources.append(program.source)

    collect()
    kinds = ["reuse=True", "reuse=js.AUTO_REUSE", "get_variable_scope(),", "None, ", "template_", "(scope_"]
    kinds += ["original_name_scope", "reuse_variables", "js.variable(", "ones_initializer", "dtype=", "js.name_scope"]
    missing = {kind for kind in kinds if not any(kind in source for source in sources)}
    assert not missing


def test_any_program_comes_up_with_errors():
    errors = set()

    @given(testing.scope_programs(valid=False))
    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    def collect(program):
        def note():
            errors.update(name for name in names_and_errors(program()) if name.endswith("Error"))

        js.transform(note).specs()

    collect()
    assert {"VariableExistsError", "VariableNotFoundError", "BadNameError"} <= errors


def test_a_failing_program_is_shown_as_code():
    @given(program=testing.scope_programs())
    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    def fails(program):
        assert not any("/" in name for name in js.transform(program).specs())

    with pytest.raises(AssertionError) as caught:
        fails()
    shown = "\n".join(caught.value.__notes__)
    assert "    program=import jax.numpy as jnp, jscope as js\n" in shown
    assert "\n    def program():\n        got = []\n" in shown
    assert "js.get_variable(" in shown


def test_lines_of_a_program_are_the_users_own():
    program = ScopeProgram((Statement('note(js.get_variable("w", []))'), Statement('js.get_variable("w", [])')))
    with pytest.raises(js.VariableExistsError, match=r"<scope program>:10"):
        js.transform(program).specs()
    assert program.source.splitlines()[9] == '    js.get_variable("w", [])'


def test_statements_guard_and_stand_empty():
    empty = ScopeProgram((Statement('with js.variable_scope("a"):'),))
    assert "        pass\n" in empty.source
    assert js.transform(empty).apply({}) == []
    guarded = ScopeProgram((Statement('js.get_variable("w")', guarded=True),))
    assert js.transform(guarded).apply({}) == [{"InitializerError": None}]


# Assertions -----------------------------------------------------------------------------------------------------------


def one(name, shape, dtype=None):
    return lambda *_: js.get_variable(name, shape, dtype)


def test_same_variables():
    assert_same_variables(one("w", [2]), js.transform(one("w", [2])))
    assert_same_variables(one("w", [2]), js.transform(one("w", [2])).specs(), 1, 2)
    assert_same_variables(lambda: [one(name, [])() for name in "ab"], lambda: [one(name, [])() for name in "ba"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (one("w", [3]), r"'w': has shape \(3,\), declared \(2,\)"),
        (one("w", [2], "int32"), "'w': has dtype int32, declared float32"),
        (one("v", [2]), "(?s)'w' is missing.*'v' is not declared"),
        (lambda: None, "'w' is missing"),
    ],
)
def test_other_variables(other, message):
    with pytest.raises(AssertionError, match=message):
        assert_same_variables(one("w", [2]), other)


def test_other_variables_are_listed_up_to_a_point():
    many = js.transform(lambda: [js.get_variable(f"w{i}", []) for i in range(50)])
    with pytest.raises(AssertionError, match="and 30 more") as caught:
        assert_same_variables(many, lambda: None)
    assert len(str(caught.value).splitlines()) == 22


def test_order_independent():
    def in_order(names):
        for name in names:
            js.get_variable(name, [3])

    def computed(x):
        js.get_variable("v", initializer=x)

    net = js.transform(in_order)
    assert_order_independent(net.specs("ab"), net.specs("cba"), key=jax.random.key(3))
    assert_order_independent(in_order, net, "ab")
    assert_order_independent(computed, lambda x: (js.get_variable("u", []), computed(x)), jnp.ones(2))


def test_order_dependent():
    @js.transform
    def counted(names):
        for i, name in enumerate(names):
            js.get_variable(name, [3], initializer=js.constant_initializer(i))

    with pytest.raises(AssertionError, match=r"2 of 2 common variables start differently") as caught:
        assert_order_independent(counted.specs("ab"), counted.specs("ba"))
    assert "'a': 3 of 3 elements differ, by 1 at most" in str(caught.value)
    with pytest.raises(AssertionError, match=r"'w': f32\[2\], then f32\[3\]"):
        assert_order_independent(one("w", [2]), one("w", [3]))
    with pytest.raises(AssertionError, match="no variable in common: w, and v"):
        assert_order_independent(one("w", [2]), one("v", [2]))


def norm(x, scale, training=True):
    mean = js.get_variable("mean", [2], trainable=False)
    if training:
        js.assign(mean, mean + x.mean(0))
    return (x - mean) / scale["by"] + jax.random.normal(js.next_key()), "a text", None


def test_pure():
    arguments = (np.ones((3, 2), np.float32), {"by": 3.0})
    assert_pure(norm, {"mean": np.ones(2, np.float32)}, *arguments, rng=KEY)
    assert_pure(js.transform(norm), js.Params({"mean": jnp.ones(2)}), *arguments, rng=KEY, training=False)
    assert_pure(lambda: js.next_key(), {}, rng=KEY)
    assert_pure(lambda x: x / 0, {}, jnp.array([0.0, 1.0]))
    assert_pure(lambda x: (x.astype(jnp.bfloat16) @ x.T.astype(jnp.bfloat16)).sum(), {}, jnp.ones((5, 7)) / 3)


def test_impure_in_what_it_gives():
    state = [0]

    def counting(x):
        state[0] += 1
        return {"y": x * js.get_variable("w", []) * state[0]}

    with pytest.raises(AssertionError, match=r"differs from the first:\n  - \['out'\]\['y'\]: 2 of 2 elements"):
        assert_pure(counting, {"w": jnp.ones([])}, jnp.ones(2))

    def growing():
        state[0] += 1
        return [0] * state[0]

    with pytest.raises(AssertionError, match="a second run differs from the first"):
        assert_pure(growing, {})

    def drawing(x):
        return x + np.random.default_rng().normal()

    with pytest.raises(AssertionError, match="a second run differs"):
        assert_pure(drawing, {}, jnp.ones(2))


def test_impure_in_what_it_assigns():
    state = [0]

    def program():
        state[0] += 1
        js.assign(js.get_variable("n", [], jnp.int32), state[0])

    with pytest.raises(AssertionError, match=r"- \['params'\]\['n'\]: 1 of 1 elements differ"):
        assert_pure(program, {"n": jnp.int32(0)})


def test_impure_in_what_it_declares():
    state = [0]

    def program():
        state[0] += 1
        js.get_variable("w" if state[0] % 2 else "v", [])

    with pytest.raises(AssertionError, match="declares other variables when asked a second time"):
        assert_pure(program, {"w": 0.0, "v": 0.0})


def test_impure_in_what_it_changes():
    def program(x):
        if isinstance(x, np.ndarray):
            x += 1
        return 0

    with pytest.raises(
        AssertionError, match=r"changed what it was given:\n  - \['args'\]\[1\]: 2 of 2 elements differ"
    ):
        assert_pure(program, {}, np.zeros(2))

    class Box:  # to JAX a leaf; dicts and lists reach a program as copies
        def __init__(self):
            self.items = {}

    def adds(x):
        x.items["more"] = 1

    box = Box()
    js.transform(adds).apply({}, box)
    assert box.items

    def adds_to_a_dict(x):
        x["more"] = 1

    given = {}
    js.transform(adds_to_a_dict).apply({}, given)
    assert not given


def test_impure_under_jit():
    def program(x):
        return x + isinstance(x, jax.core.Tracer)

    with pytest.raises(AssertionError, match=r"gives something else:\n  - \['out'\]: 2 of 2 elements differ"):
        assert_pure(program, {}, jnp.ones(2))
    with pytest.raises(AssertionError, match=r"gives something else:\n  - \['out'\]: 2 of 2 elements differ"):
        assert_pure(lambda x: program(x).astype(int), {}, jnp.ones(2))
    with pytest.raises(AssertionError, match=r"gives something else:\n  - \['out'\]: 'eager', then 'traced'"):
        assert_pure(lambda x: "traced" if isinstance(x, jax.core.Tracer) else "eager", {}, jnp.ones(2))


# The room -------------------------------------------------------------------------------------------------------------


def test_is_not_imported_by_jscope():
    code = "import sys, jscope; print([m for m in sys.modules if m.startswith(('jscope.testing', 'hypothesis'))])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import jscope.testing"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: jscope.testing needs hypothesis" in out.stderr
    assert 'pip install "jax-scope[testing]"' in out.stderr


def test_everything_is_called_by_its_public_name():
    named = set(testing.__all__) - {"profile"}  # an object of hypothesis
    assert {getattr(testing, name).__module__ for name in named} == {"jscope.testing"}
