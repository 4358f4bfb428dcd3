"""One tree for several programs: specs put together, trees taken apart and put together again by scope."""

from __future__ import annotations

import collections
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jscope as js

KEY = jax.random.key(0)
X = jnp.ones((1, 2))


def linear(scope: str, shape: tuple[int, ...] = (2, 2), **options: Any) -> js.Transformed:
    def program() -> jax.Array:
        with js.variable_scope(scope):
            return js.get_variable("w", shape, **options)

    return js.transform(program)


# Specs of several programs --------------------------------------------------------------------------------------------


def test_a_union_declares_what_both_declare_and_makes_the_same_values() -> None:
    generator, critic = linear("generator"), linear("critic", (3,))
    specs = generator.specs() | critic.specs()
    assert list(specs) == ["generator/w", "critic/w"]
    assert specs.init(KEY) == generator.init(KEY) | critic.init(KEY)
    assert specs.size == 7


def test_a_variable_that_both_declare_alike_counts_once() -> None:
    def tower() -> jax.Array:
        with js.variable_scope("tower", reuse=js.AUTO_REUSE):
            scale = 2.0
            return js.get_variable(
                "w",
                [2],
                initializer=lambda key, shape, dtype: scale * jax.random.normal(key, shape, dtype),
                regularizer=functools.partial(lambda rate, w: rate * jnp.sum(w), 0.1),
                constraint=lambda w, limit=1.0: jnp.clip(w, -limit, limit),
            )

    one = js.transform(lambda: tower() + js.get_variable("a", [2]))
    two = js.transform(lambda: tower() * js.get_variable("b", [2]))
    specs = one.specs() | two.specs()
    assert list(specs) == ["tower/w", "a", "b"]
    assert list(specs | one.specs() | two.specs()) == list(specs)
    assert specs.init(KEY) == one.init(KEY) | two.init(KEY)


def test_where_the_other_program_reads_a_shared_variable_is_told_once() -> None:
    one = js.transform(lambda: js.get_variable("w", [2]))
    two = js.transform(lambda: js.get_variable("w", [2]))
    shared = (one.specs() | two.specs())["w"]
    assert shared.created_at == one.specs()["w"].created_at
    assert shared.used_at == (two.specs()["w"].created_at,)
    assert (one.specs() | two.specs() | two.specs())["w"].used_at == shared.used_at
    assert (one.specs() | one.specs())["w"].used_at == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shape": (3,)}, "shape (2, 2) and (3,)"),
        ({"dtype": jnp.bfloat16}, "dtype dtype('float32') and dtype(bfloat16)"),
        ({"initializer": js.ones_initializer()}, "initializer glorot_uniform_initializer("),
        ({"initializer": lambda key, shape, dtype: jnp.ones(shape, dtype)}, "and <lambda>"),
        ({"trainable": False}, "trainable True and False"),
        ({"regularizer": jnp.sum}, "regularizer None and sum"),
        ({"constraint": jnp.abs}, "constraint None and abs"),
        (
            {"collections": ["mine"]},
            "collections ('variables', 'trainable_variables') and ('mine', 'trainable_variables')",
        ),
        ({"partitioner": lambda shape, dtype: jax.P("x", None)}, "partition None and P"),
    ],
)
def test_another_declaration_of_one_name_is_refused_and_both_are_shown(options: dict[str, Any], says: str) -> None:
    one, other = linear("a"), linear("a", **options)
    with pytest.raises(js.BadArgumentError, match="declare 1 variable of one name differently") as caught:
        one.specs() | other.specs()
    (fault,) = caught.value.faults
    assert says in fault
    assert fault.count(__file__) == 2
    assert "Fix: give one of the programs a scope of its own" in str(caught.value)


def test_functions_of_one_text_that_close_over_other_values_are_other_declarations() -> None:
    def program(scale: Any) -> js.Transformed:
        return linear("a", initializer=lambda key, shape, dtype: jnp.full(shape, scale, dtype))

    def declared(scale: Any) -> js.Specs:
        return program(scale).specs()

    assert len(declared(1.0) | declared(1.0)) == 1
    for one, other in [(1.0, 2.0), (1.0, True), (np.ones((2, 2)), np.zeros((2, 2)))]:
        with pytest.raises(js.BadArgumentError, match="differently"):
            declared(one) | declared(other)


def scaled(scale: Any) -> Any:
    return lambda w: scale * jnp.sum(w)


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (
            {"initializer": js.constant_initializer(1.0)},
            {"initializer": js.constant_initializer(1)},
            r"constant_initializer\(value=1\.0, .*\) and constant_initializer\(value=1, ",
        ),
        ({"regularizer": scaled(0.1)}, {"regularizer": scaled(0.2)}, r"with \(0\.1,\) and <lambda> .* with \(0\.2,\)"),
        (
            {"regularizer": lambda w: jnp.sum(w)},
            {"regularizer": scaled(1)},
            r"<lambda> \(.*test_trees_of_programs.py:\d+\) and <lambda> \(.*:\d+\) with \(1,\)",
        ),
        (
            {"shape": None, "initializer": np.ones(9)},
            {"shape": None, "initializer": np.zeros(9)},
            "array and another array",
        ),
    ],
)
def test_two_declarations_that_differ_are_not_shown_alike(one: Any, other: Any, says: str) -> None:
    with pytest.raises(js.BadArgumentError) as caught:
        linear("a", **one).specs() | linear("a", **other).specs()
    assert re.search(says, caught.value.faults[0])


def test_all_differences_come_in_one_short_error() -> None:
    def program(table: Any) -> js.Specs:
        def declare() -> None:
            js.get_variable("table", table.shape, initializer=js.constant_initializer(table))
            js.get_variable("given", initializer=table)

        return js.transform(declare).specs()

    with pytest.raises(js.BadArgumentError, match="declare 2 variables") as caught:
        program(np.ones((300, 400), np.float32)) | program(np.zeros((300, 400), np.float32))
    assert len(caught.value.faults) == 2
    assert len(str(caught.value)) < 1500


def test_only_specs_are_put_together() -> None:
    with pytest.raises(TypeError):
        linear("a").specs() | {}


# A tree that holds more than one program's variables ------------------------------------------------------------------


def program_with_everything(scope: str) -> js.Transformed:
    def program() -> None:
        with js.variable_scope(scope):
            js.get_variable("w", [2], regularizer=lambda w: jnp.sum(w**2), constraint=lambda w: jnp.clip(w, 0, 1))
            js.get_variable("count", [], jnp.int32, trainable=False)

    return js.transform(program)


MINE, OTHERS = program_with_everything("mine").specs(), program_with_everything("others").specs()
TREE = (MINE | OTHERS).abstract().map_with_name(lambda _, leaf: jnp.full(leaf.shape, 2, leaf.dtype))


def test_the_rest_is_left_alone_when_asked() -> None:
    trainable, rest = MINE.split(TREE, allow_unexpected=True)
    assert trainable.names == ("mine/w",)
    assert rest.names == ("mine/count", "others/count", "others/w")
    assert trainable | rest == TREE
    constrained = MINE.constrain(TREE, allow_unexpected=True)
    assert constrained == TREE.replace({"mine/w": jnp.ones(2)})
    assert MINE.regularization_loss(TREE, allow_unexpected=True) == 8
    MINE.check(TREE, allow_unexpected=True)


@pytest.mark.parametrize("call", ["split", "constrain", "regularization_loss", "check"])
def test_strict_is_the_default(call: str) -> None:
    with pytest.raises(js.ParamsMismatchError, match="2 faults") as caught:
        getattr(MINE, call)(TREE)
    assert [fault for fault in caught.value.faults if "'others/w' is not declared" in fault]
    if call != "check":
        assert f"{call}(params, allow_unexpected=True)" in caught.value.fix


def test_select_takes_a_programs_own_variables() -> None:
    mine, rest = MINE.select(TREE)
    assert mine == TREE.select("mine/")[0]
    assert mine | rest == TREE
    MINE.check(mine)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (TREE.drop("mine/w"), "'mine/w' is missing"),
        (TREE.replace({"mine/w": jnp.ones(3)}), "'mine/w': has shape (3,), declared (2,)"),
        (TREE.replace({"mine/w": jnp.ones(2, jnp.float16)}), "'mine/w': has dtype float16"),
    ],
)
def test_select_refuses_a_tree_that_does_not_fit(tree: js.Params, says: str) -> None:
    with pytest.raises(js.ParamsMismatchError) as caught:
        MINE.select(tree)
    assert caught.value.faults == (caught.value.faults[0],)
    assert says in caught.value.faults[0]


def test_select_by_names_is_that_of_the_tree() -> None:
    with pytest.raises(js.BadTypeError, match=r"not 'mine/'\.\n.*\n  Fix: params\.select\(pattern\)"):
        MINE.select("mine/")  # type: ignore[arg-type]


def test_a_step_of_one_program_leaves_the_other_alone_under_jit() -> None:
    net = linear("a")
    specs = net.specs()

    @jax.jit
    def step(params: js.Params) -> js.Params:
        trained, rest = specs.split(params, allow_unexpected=True)
        gradients = jax.grad(lambda trained: jnp.sum(net.apply(trained | rest) ** 2))(trained)
        return trained.map_with_name(lambda _, w, gradient: w - gradient, gradients) | rest

    before = specs.init(KEY) | {"b": {"w": jnp.ones(2)}}
    after = step(before)
    assert after["b/w"].tolist() == [1, 1]
    np.testing.assert_allclose(after["a/w"], -before["a/w"])


# Params from pairs ----------------------------------------------------------------------------------------------------

names = st.text("ab/", min_size=1, max_size=4)
pairs = st.lists(st.tuples(names, st.integers()), unique_by=lambda pair: pair[0], max_size=5)


@given(pairs)
@settings(max_examples=30, deadline=None)
def test_pairs_make_the_tree_of_their_dict(items: list[tuple[str, int]]) -> None:
    tree = js.Params(dict(items))
    for form in (items, tuple(items), iter(items), dict(items).items(), (list(pair) for pair in items), dict(items)):
        assert js.Params(form) == tree
    assert type(tree)(tree.flat().items()) == tree


def test_pairs_may_hold_trees() -> None:
    assert js.Params([("a", {"b": 1}), ("c", js.Params({"d": 2}))]).flat() == {"a/b": 1, "c/d": 2}
    assert js.Params(collections.OrderedDict(a=1).items()).flat() == {"a": 1}
    assert js.Params(zip("ab", (1, 2), strict=True)).flat() == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "given_", ["ab", b"ab", ["ab", "cd"], [1, 2], [("a", 1, 2)], 3, None, [("a", 1), "b"], np.ones(2)]
)
def test_what_is_no_pair_is_refused(given_: Any) -> None:
    with pytest.raises(js.BadTypeError, match="Params are made from a mapping of names"):
        js.Params(given_)


def test_a_name_given_twice_is_refused_where_a_dict_takes_the_last() -> None:
    with pytest.raises(js.BadNameError, match="'a/b' is given twice"):
        js.Params([("a/b", 1), ("a", {"b": 2})])


# Counting -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "size", "count"),
    [
        (jnp.ones((2, 3)), 6, 24),
        (jnp.ones((2, 3), jnp.bfloat16), 6, 12),
        (np.ones(3), 3, 24),
        (np.float32(1), 1, 4),
        (1.5, 1, 4),
        (True, 1, 1),
        (jax.ShapeDtypeStruct((4, 5), jnp.int8), 20, 20),
        (jnp.zeros((0, 3)), 0, 0),
        ("a label", 0, 0),
        (None, 0, 0),
    ],
)
def test_size_and_bytes(leaf: Any, size: int, count: int) -> None:
    tree = js.Params({"a": {"b": leaf}, "c": jnp.ones(2)})
    assert (tree.size, tree.bytes) == (size + 2, count + 8)


def test_a_tree_of_values_is_as_large_as_its_specs() -> None:
    for specs in (MINE, OTHERS, MINE | OTHERS):
        for tree in (specs.abstract(), specs.init(KEY)):
            assert (tree.size, tree.bytes, len(tree.names)) == (specs.size, specs.bytes, len(specs))


# Several trees at once, whole scopes ----------------------------------------------------------------------------------

ONLINE = {"w": jnp.ones(2), "deep": {"b": jnp.ones(3, jnp.int32)}}
TARGET = {"w": jnp.zeros(2), "deep": {"b": jnp.zeros(3, jnp.int32)}}
BOTH = js.Params({"online": ONLINE, "target": TARGET, "targets": jnp.zeros(1)})


def test_a_function_of_leaves_of_several_trees() -> None:
    one, two, three = (js.Params({"a": i, "b/c": 10 * i}) for i in (1, 2, 3))
    tree = one.map_with_name(lambda name, *leaves: (name, leaves), two, three.to_dict())
    assert tree.flat() == {"a": ("a", (1, 2, 3)), "b/c": ("b/c", (10, 20, 30))}


@pytest.mark.parametrize(
    ("other", "faults"),
    [
        ({"a": 1}, ("'b/c' is missing in tree 3",)),
        ({"a": 1, "b": {"c": 2, "d": 3}}, ("'b/d' of tree 3 is not in the first tree",)),
        ({"a": 1, "b/x": 2}, ("'b/c' is missing in tree 3", "'b/x' of tree 3 is not in the first tree")),
    ],
)
def test_trees_of_other_names_are_refused(other: Any, faults: tuple[str, ...]) -> None:
    tree = js.Params({"a": 1, "b/c": 2})
    with pytest.raises(js.ParamsMismatchError, match="the trees have different names") as caught:
        tree.map_with_name(lambda name, *leaves: leaves, tree, other)
    assert caught.value.faults == faults


def test_a_scope_is_replaced_whole() -> None:
    tree = BOTH.replace_scope("target", BOTH["online"])
    assert tree["target"] == tree["online"] == BOTH["online"]
    assert tree["targets"] is BOTH["targets"]
    assert tree.names == BOTH.names
    assert BOTH.replace_scope("target/deep", {"b": np.ones(3, np.int64)})["target/deep/b"].tolist() == [1, 1, 1]
    labels = js.Params({"a": {"b": "old"}, "a/b": {"c": 1.0}})
    assert labels.replace_scope("a", {"b": "new", "b/c": 2.0}).flat() == {"a/b": "new", "a/b/c": 2.0}


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"w": jnp.ones(2)}, "'deep/b' is missing in the new tree"),
        (ONLINE | {"more": 1}, "'more' of the new tree is not in scope 'target'"),
        (ONLINE | {"w": jnp.ones(1)}, "'w' is f32[1], in scope 'target' f32[2]"),
        (ONLINE | {"w": jnp.ones(2, jnp.bfloat16)}, "'w' is bf16[2], in scope 'target' f32[2]"),
        (ONLINE | {"w": 1.0}, "'w' is 1.0, in scope 'target' f32[2]"),
        ({"online": ONLINE}, "'online/w' of the new tree is not in scope 'target'"),
    ],
)
def test_a_scope_is_not_replaced_by_what_is_not_like_it(tree: Any, says: str) -> None:
    with pytest.raises(js.ParamsMismatchError, match="the tree is not one of scope 'target'") as caught:
        BOTH.replace_scope("target", tree)
    assert says in caught.value.faults


def test_a_scope_that_is_not_there_is_not_made() -> None:
    with pytest.raises(js.UnknownNameError) as caught:
        BOTH.replace_scope("targte", ONLINE)
    assert "'target'" in str(caught.value)
    with pytest.raises(js.UnknownNameError):
        BOTH.replace_scope("target/w", {})


def test_an_average_that_spreads_to_another_shape_is_caught() -> None:
    online = js.Params({"w": jnp.ones((2, 2)), "deep": {"b": jnp.ones(3, jnp.int32)}})
    mean = BOTH["target"].map_with_name(lambda _, target, online: 0.9 * target + 0.1 * online, online)
    with pytest.raises(js.ParamsMismatchError, match="replace_scope"):
        BOTH.replace_scope("target", mean)


def test_names_and_scopes_are_dropped() -> None:
    assert BOTH.drop("online").names == ("target/deep/b", "target/w", "targets")
    assert BOTH.drop("online", "target/deep", "targets").names == ("target/w",)
    assert BOTH.drop() == BOTH
    one_name = js.Params({"a": 1, "a/b": 2, "ab": 3})
    assert one_name.drop("a").flat() == {"ab": 3}
    renamed = BOTH.drop("online") | {"main": BOTH["online"]}
    assert renamed.names == ("main/deep/b", "main/w", "target/deep/b", "target/w", "targets")


@pytest.mark.parametrize("names_", [("onlin",), ("online", "x"), ("online/x",), (3,)])
def test_unknown_names_are_not_dropped(names_: tuple[Any, ...]) -> None:
    with pytest.raises(js.UnknownNameError, match=r"drop: .* is neither a variable nor a scope"):
        BOTH.drop(*names_)


def test_all_of_it_works_under_jit() -> None:
    @jax.jit
    def follow(tree: js.Params) -> js.Params:
        mean = tree["target"].map_with_name(lambda _, a, b: (a + b) // 2, tree["online"])
        return tree.replace_scope("target", mean).drop("targets")

    assert follow(BOTH).names == BOTH.drop("targets").names
