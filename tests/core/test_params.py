"""`Params`: a mapping, a value, and one pytree node over interned names."""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import pickle
import subprocess
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding

import jscope as js
from jscope._layout import Layout

PARAMS = js.Params(
    {"tower": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3)}, "head": {"kernel": jnp.ones(3)}}
)
# A variable that has the name of a scope, empty parts, a final slash: all of them names that TF1 gives.
ODD = js.Params({"kernel": 1, "kernel/adam_m": 2, "kernel/adam_m/v": 3, "a//v": 4, "v/": 5, "kernel-2": 6})

# Short parts over few letters: scopes coincide often, and "-" and "." sort before "/", "0" and letters after it.
PARTS = st.text("ab0.-", max_size=2)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
FLATS = st.dictionaries(NAMES, st.integers(), max_size=12)

# On a machine that is busy with other things slowness is no fault.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def scopes_of(names):
    """Every scope around a name."""
    return {name[:cut] for name in names for cut in range(len(name)) if name[cut] == "/"}


def below(flat, scope):
    return {name.removeprefix(scope + "/"): leaf for name, leaf in flat.items() if name.startswith(scope + "/")}


def nest(flat):
    """The nested dict of a flat one, None if there is none."""
    tree = {}
    for name, leaf in flat.items():
        *scopes, last = name.split("/")
        node = tree
        for part in scopes:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                return None
        if last in node:
            return None
        node[last] = leaf
    return tree


# Reading --------------------------------------------------------------------------------------------------------------


def test_nested_slash_and_sub_tree_access():
    assert PARAMS["tower"]["kernel"] is PARAMS["tower/kernel"]
    assert isinstance(PARAMS["tower"], js.Params)
    assert PARAMS["tower"].names == ("bias", "kernel")
    assert PARAMS["tower"] == PARAMS.scope("tower") == {"kernel": PARAMS["tower/kernel"], "bias": jnp.zeros(3)}
    assert PARAMS.names == ("head/kernel", "tower/bias", "tower/kernel")
    assert list(PARAMS) == list(PARAMS.keys()) == ["head", "tower"]
    assert len(PARAMS) == 2
    assert [tree.names for tree in PARAMS.values()] == [("kernel",), ("bias", "kernel")]
    assert dict(PARAMS["tower"].items()).keys() == {"bias", "kernel"}


def test_deep_scopes_by_any_mixture_of_steps():
    tree = js.Params({"a/b/c/d": 1, "a/b/c/e": 2})
    assert tree["a/b"]["c/d"] == tree["a"]["b/c"]["d"] == tree["a/b/c"]["d"] == tree["a"]["b"]["c"]["d"] == 1
    assert tree["a/b/c"].flat() == {"d": 1, "e": 2}


@unhurried
@given(FLATS)
def test_reads_what_it_was_given(flat):
    tree = js.Params(flat)
    assert tree.names == tuple(sorted(flat))
    assert list(tree.flat().items()) == sorted(flat.items())
    assert all(tree[name] == leaf and name in tree for name, leaf in flat.items())
    assert list(tree) == list(dict.fromkeys(name.split("/")[0] for name in sorted(flat)))
    assert len(tree) == len(list(tree))
    assert bool(tree) == bool(flat)


@unhurried
@given(FLATS)
def test_a_scope_is_the_contiguous_slice_of_the_names_below_it(flat):
    tree = js.Params(flat)
    for scope in scopes_of(flat):
        inner = tree.scope(scope)
        assert inner.flat() == below(flat, scope)
        assert scope in tree
        assert tree[scope] == flat.get(scope, inner)
        start = tree.names.index(f"{scope}/{inner.names[0]}")
        assert tree.names[start : start + len(inner.names)] == tuple(f"{scope}/{name}" for name in inner.names)
        assert jax.tree.leaves(tree)[start : start + len(inner.names)] == jax.tree.leaves(inner)


@unhurried
@given(FLATS, NAMES)
def test_names_that_are_not_there(flat, name):
    tree = js.Params(flat)
    there = name in flat or name in scopes_of(flat)
    assert (name in tree) == there
    assert tree.get(name, "default") == (tree[name] if there else "default")
    if not there:
        assert tree.get(name) is None
        with pytest.raises(js.UnknownNameError):
            tree[name]


def test_what_is_no_name_is_not_there():
    for name in (3, None, ("tower",), 1.5):
        assert name not in PARAMS
        assert PARAMS.get(name, 7) == 7
        with pytest.raises(KeyError):
            PARAMS[name]


def test_a_variable_and_a_scope_of_one_name():
    assert ODD["kernel"] == 1
    assert ODD.scope("kernel").flat() == {"adam_m": 2, "adam_m/v": 3}
    assert ODD["kernel/adam_m"] == ODD.scope("kernel")["adam_m"] == 2
    assert ODD.scope("kernel").scope("adam_m").flat() == ODD.scope("kernel/adam_m").flat() == {"v": 3}
    assert list(ODD) == ["a", "kernel", "kernel-2", "v"]
    assert ODD.flat() == ODD.to_dict(flat=True)
    with pytest.raises(js.BadNameError, match=r"'kernel' is a variable and 'kernel/adam_m' lies in a scope.*") as error:
        ODD.to_dict()
    assert "to_dict(flat=True)" in error.value.fix


def test_empty_parts_of_names():
    assert ODD["a//v"] == ODD["a"]["/v"] == ODD["a/"]["v"] == ODD["a"][""]["v"] == 4
    assert ODD["v/"] == ODD["v"][""] == 5
    tree = js.Params({"a//v": 1, "v/": 2, "/x": 3})
    assert tree.to_dict() == {"a": {"": {"v": 1}}, "v": {"": 2}, "": {"x": 3}}
    assert js.Params(tree.to_dict()) == tree
    assert js.Params({"": 1})[""] == 1


def test_empty_trees():
    for tree in (js.Params(), js.Params({}), js.Params({"a": {}}), js.Params({"a": {"b": {}}})):
        assert tree.names == ()
        assert not tree
        assert tree.to_dict() == tree.flat() == {}
        assert jax.tree.leaves(tree) == []
        assert repr(tree) == "Params({})"
        assert tree == js.Params() == {}


# Conversion -----------------------------------------------------------------------------------------------------------


@unhurried
@given(FLATS)
def test_dicts_both_ways(flat):
    tree = js.Params(flat)
    assert js.Params(tree.to_dict(flat=True)) == js.Params.from_dict(tree.flat()) == tree
    nested = nest(flat)
    if nested is None:
        with pytest.raises(js.BadNameError, match="a nested dict can't hold both"):
            tree.to_dict()
    else:
        assert tree.to_dict() == nested
        assert js.Params(nested) == tree


@unhurried
@given(FLATS, st.data())
def test_names_may_be_given_nested_or_whole_in_any_mixture(flat, data):
    tree = {}
    for name, leaf in flat.items():
        parts = name.split("/")
        cut = data.draw(st.integers(0, len(parts) - 1))
        scope, rest = "/".join(parts[:cut]), "/".join(parts[cut:])
        if cut and isinstance(tree.setdefault(scope, {}), dict):
            tree[scope][rest] = leaf
        elif not isinstance(tree.get(name), dict):
            tree[name] = leaf
        else:
            return  # a nested dict can't hold a leaf beside
    assert js.Params(tree).flat() == dict(sorted(flat.items()))


def test_any_mapping_and_nested_params_are_taken():
    tree = js.Params(types.MappingProxyType({"x": ODD, "y": types.MappingProxyType({"z": 1})}))
    assert tree.flat() == {f"x/{name}": leaf for name, leaf in ODD.flat().items()} | {"y/z": 1}
    assert js.Params(ODD) is ODD
    assert js.Params.from_dict(ODD) is ODD


def test_the_dicts_given_out_are_the_callers_own():
    tree = js.Params({"a": {"b": 1}})
    tree.flat()["a/b"] = tree.to_dict()["a"]["b"] = 2
    tree.to_dict()["a"]["c"] = 3
    assert tree.flat() == {"a/b": 1}
    given_dict = {"a": {"b": 1}}
    tree = js.Params(given_dict)
    given_dict["a"]["b"] = 2
    assert tree["a/b"] == 1


# Making other trees ---------------------------------------------------------------------------------------------------


@unhurried
@given(FLATS, st.data())
def test_replace(flat, data):
    tree = js.Params(flat)
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(flat)), st.just("new"))) if flat else {}
    changed = tree.replace(changes)
    assert changed.flat() == dict(sorted((flat | changes).items()))
    assert jax.tree.structure(changed) == jax.tree.structure(tree)
    assert tree.flat() == dict(sorted(flat.items()))


def test_replace_all_or_nothing():
    with pytest.raises(js.UnknownNameError) as error:
        PARAMS.replace({"tower/bias": 0, "tower/kernl": 1, "nothing": 2})
    assert error.value.near[0] == "tower/kernel"
    assert "'tower/kernl', 'nothing'" in str(error.value)
    assert "params | {...}" in error.value.fix
    with pytest.raises(js.UnknownNameError) as error:
        PARAMS.replace({"tower": {"bias": 0}})  # a scope
    assert "tower" not in error.value.near
    assert "tower/bias" in error.value.near


@unhurried
@given(FLATS, FLATS)
def test_union(left, right):
    expected = dict(sorted((left | right).items()))
    assert (js.Params(left) | js.Params(right)).flat() == expected
    assert (js.Params(left) | right).flat() == expected
    assert (left | js.Params(right)).flat() == expected
    assert isinstance(left | js.Params(right), js.Params)


def test_union_with_nested_dicts():
    both = PARAMS | {"tower": {"bias": 1}, "new": {"x": 2}}
    assert both.names == ("head/kernel", "new/x", "tower/bias", "tower/kernel")
    assert both["tower/bias"] == 1
    assert ({"tower": {"bias": 1}, "new": 2} | PARAMS)["tower/bias"] is PARAMS["tower/bias"]
    assert (types.MappingProxyType({"new": 2}) | PARAMS)["new"] == 2
    for wrong in (3, [("a", 1)], None):
        with pytest.raises(TypeError, match="unsupported operand"):
            PARAMS | wrong
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong | PARAMS


@unhurried
@given(FLATS)
def test_select(flat):
    tree = js.Params(flat)
    chosen, rest = tree.select(lambda name, leaf: "a" in name and leaf >= 0)
    assert chosen.flat() == {name: leaf for name, leaf in sorted(flat.items()) if "a" in name and leaf >= 0}
    assert chosen.names + rest.names == tuple(
        sorted(rest.names + chosen.names, key=lambda n: (n not in chosen.flat(), n))
    )
    assert chosen | rest == rest | chosen == tree
    assert not set(chosen.names) & set(rest.names)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("tower", ["tower/bias", "tower/kernel"]),  # at the start, as TF1's scope= ...
        ("kernel", []),  # ... and not in the middle
        (".*kernel$", ["head/kernel", "tower/kernel"]),
        ("", ["head/kernel", "tower/bias", "tower/kernel"]),
        ("tower/(kernel|x)$", ["tower/kernel"]),
    ],
)
def test_select_by_pattern(pattern, names):
    chosen, rest = PARAMS.select(pattern)
    assert list(chosen.names) == names
    assert chosen | rest == PARAMS


def test_map_with_name():
    mapped = PARAMS.map_with_name(lambda name, leaf: (name, leaf.shape))
    assert mapped["tower"].flat() == {"bias": ("tower/bias", (3,)), "kernel": ("tower/kernel", (2, 3))}
    assert jax.tree.structure(jax.tree.map(lambda _: 0, PARAMS)) == jax.tree.structure(PARAMS)


# like -----------------------------------------------------------------------------------------------------------------


@unhurried
@given(FLATS, st.data())
def test_like_gives_each_leaf_the_innermost_label(flat, data):
    tree = js.Params(flat)
    places = sorted(scopes_of(flat) | set(flat))
    labels = data.draw(st.dictionaries(st.sampled_from(places), st.integers())) if places else {}
    shuffled = dict(data.draw(st.permutations(list(labels.items()))))

    def expected(name):
        around = [place for place in labels if name == place or name.startswith(place + "/")]
        return labels[max(around, key=len)] if around else "default"

    assert tree.like(shuffled, default="default").flat() == {name: expected(name) for name in sorted(flat)}
    unlabelled = [name for name in flat if expected(name) == "default"]
    if unlabelled:
        with pytest.raises(
            js.BadArgumentError, match=rf"^like: {len(unlabelled)} of {len(flat)} variables get no label"
        ):
            tree.like(shuffled)
    else:
        assert tree.like(shuffled).names == tree.names


SPEC = jax.P("x")


@pytest.mark.parametrize(
    ("labels", "default", "expected"),
    [
        ({"tower": 0, "head": None}, ..., (None, 0, 0)),
        ({"tower": {"kernel": 0, "bias": 1}, "head": {"kernel": 2}}, ..., (2, 1, 0)),
        ({"tower/kernel": True}, False, (False, False, True)),
        ({"tower": SPEC, "tower/bias": jax.P()}, jax.P(None), (jax.P(None), jax.P(), SPEC)),
        ({"tower/bias": jax.P(), "tower": SPEC}, None, (None, jax.P(), SPEC)),  # in either order
        (PARAMS.map_with_name(lambda name, _: name), ..., PARAMS.names),
        ({}, None, (None, None, None)),
        ([(".*bias", "b"), ("tower", "t")], "d", ("d", "b", "t")),
        ([("tower", "t"), (".*bias", "b"), ("", "all")], ..., ("all", "t", "t")),  # the first match wins
        ((pair for pair in [("", 1)]), ..., (1, 1, 1)),
    ],
)
def test_like(labels, default, expected):
    labelled = PARAMS.like(labels) if default is ... else PARAMS.like(labels, default=default)
    assert tuple(labelled.flat().values()) == expected
    assert labelled.names == PARAMS.names


def test_like_labels_a_variable_together_with_the_scope_of_its_name():
    assert ODD.like({"kernel": 0, "kernel/adam_m/v": 1}, default=2).scope("kernel").flat() == {
        "adam_m": 0,
        "adam_m/v": 1,
    }
    assert ODD.like({"kernel": {"adam_m": 1}}, default=2).flat() == {
        "a//v": 2,
        "kernel": 2,
        "kernel-2": 2,
        "kernel/adam_m": 1,
        "kernel/adam_m/v": 1,
        "v/": 2,
    }


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("a", "b"), "a/b"),
        ((jax.tree_util.DictKey("a"), jax.tree_util.SequenceKey(0)), "a/0"),
        (("a", 1), "a/1"),
        (b"a", "a"),
        (b"\xff", "\\xff"),
        (3, "3"),
    ],
)
def test_the_name_that_is_told_for_a_key_is_one_to_use(key: object, name: str) -> None:
    """Of flax's `flatten_dict`, of paths of JAX's, and of what reads bytes."""
    with pytest.raises(js.BadTypeError, match="are strings, not") as caught:
        js.Params({key: 1})  # type: ignore[dict-item]
    assert caught.value.fix == f"use {name!r}"
    assert js.Params({name: 1}).names == (name,)


def test_the_deep_copy_of_a_donated_array_is_refused_by_name() -> None:
    params = js.Params({"w": jnp.ones(3), "v": jnp.ones(2)})
    jax.jit(lambda x: x + 1, donate_argnums=0)(params["w"])
    with pytest.raises(js.BadArgumentError, match=r"'w' f32\[3\] is deleted"):
        copy.deepcopy(params)
    assert copy.deepcopy(params.drop("w")) == {"v": np.ones(2, np.float32)}


# Bad input: what is raised, which builtin it also is, what it says ----------------------------------------------------


def assign(tree, name):
    tree[name] = 1


def delete(tree, name):
    del tree[name]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: js.Params([1]), js.BadTypeError, "Params are made from a mapping of names, not a list."),
        (lambda: js.Params({1: 2}), js.BadTypeError, "Names in a tree of parameters are strings, not 1."),
        (lambda: js.Params({"a": {("b",): 2}}), js.BadTypeError, "are strings, not ('b',)"),
        (
            lambda: js.Params({"a/b": 1, "a": {"b": 2}}),
            js.BadNameError,
            "'a/b' is given twice.",
        ),
        (lambda: PARAMS["tower/kernl"], js.UnknownNameError, "Near:   'tower/kernel'"),
        (lambda: PARAMS["Tower"], js.UnknownNameError, "Near:   'tower'"),
        (lambda: PARAMS["x"], js.UnknownNameError, "Exists: 'head', 'tower'"),
        (lambda: PARAMS["tower/"], js.UnknownNameError, "'tower/' is neither a variable nor a scope of this tree."),
        (lambda: PARAMS.scope("tower/kernel"), js.UnknownNameError, "'tower/kernel' is neither"),
        (lambda: PARAMS["tower"]["x"], js.UnknownNameError, "Exists: 'bias', 'kernel'"),
        (lambda: PARAMS.replace({"tower": 1}), js.UnknownNameError, "replace: the tree has no variable 'tower'."),
        (lambda: PARAMS.replace([1]), js.BadTypeError, "replace takes a mapping of names, not a list."),
        (lambda: PARAMS | {1: 2}, js.BadTypeError, "are strings, not 1"),
        (lambda: PARAMS.select("("), js.BadArgumentError, "'(' is not a regular expression: missing )"),
        (lambda: PARAMS.select(3), js.BadArgumentError, "3 is not a regular expression"),
        (lambda: PARAMS.select(b"tower"), js.BadArgumentError, "b'tower' is not a regular expression"),
        (lambda: PARAMS.select("a{99999999999}"), js.BadArgumentError, "'a{99999999999}' is not a regular expression"),
        (lambda: PARAMS.select(["tower", "head"]), js.BadArgumentError, "one pattern for all of them: 'tower|head'"),
        (lambda: PARAMS.like([("(", 1)]), js.BadArgumentError, "'(' is not a regular expression"),
        (lambda: PARAMS.like({"tower": 1}), js.BadArgumentError, "1 of 3 variables get no label: 'head/kernel'."),
        (lambda: PARAMS.like([("tower", 1)]), js.BadArgumentError, "Fix: label them too, or pass default="),
        (lambda: PARAMS.like({"hed": 1}), js.UnknownNameError, "Near:   'head'"),
        (lambda: PARAMS.like({"tower": {"kernl": 1}}), js.UnknownNameError, "a scope 'tower/kernl'."),
        (lambda: PARAMS.like({3: 1}), js.BadTypeError, "are strings, not 3"),
        (lambda: PARAMS.like("tower"), js.BadTypeError, "like takes a mapping or (pattern, label) pairs, not 'tower'."),
        (lambda: PARAMS.like(0), js.BadTypeError, "pairs, not 0."),
        (lambda: PARAMS.like([("tower", 1, 2)]), js.BadTypeError, 'Fix: write like({"scope": label})'),
        (lambda: assign(PARAMS, "tower/bias"), js.BadTypeError, "params = params.replace({'tower/bias': ...})"),
        (lambda: delete(PARAMS, "tower/bias"), js.BadTypeError, "params = params.drop('tower/bias')"),
    ],
)
def test_bad_input(call, error, says):
    with pytest.raises(error) as raised:
        call()
    assert says in str(raised.value)
    assert f"{__file__}:" in raised.value.where
    builtin = {js.BadTypeError: TypeError, js.UnknownNameError: KeyError}.get(error, ValueError)
    assert isinstance(raised.value, builtin)


def test_nothing_else_can_be_set_either():
    for name in ("kernel", "names"):
        with pytest.raises(AttributeError):
            setattr(PARAMS, name, 1)
    for method in ("update", "pop", "setdefault", "clear"):
        assert not hasattr(PARAMS, method)


# Being a value --------------------------------------------------------------------------------------------------------

KEYS = [jax.random.key(0), jax.random.key(0), jax.random.key(1)]
SHAPE = jax.ShapeDtypeStruct((3,), jnp.float32)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (jnp.ones(3), jnp.ones(3), True),
        (jnp.ones(3), np.ones(3, np.float32), True),
        (jnp.ones(3), jnp.zeros(3), False),
        (jnp.ones(3), jnp.ones(3, jnp.bfloat16), False),
        (jnp.ones(3), jnp.ones((3, 1)), False),
        (jnp.ones(()), jnp.ones(1), False),
        (jnp.ones(0), jnp.zeros(0), True),
        (jnp.array(jnp.nan), jnp.array(jnp.nan), False),  # as in NumPy
        (jnp.float32(1), 1.0, True),
        (1, jnp.int32(1), True),
        (jnp.ones(3), 1.0, False),
        (jnp.ones(3), [1.0, 1.0, 1.0], False),
        (np.ones(3), "x", False),
        (jnp.ones(3), None, False),
        (jnp.ones(3), SHAPE, False),
        (SHAPE, jax.ShapeDtypeStruct((3,), jnp.float32), True),
        (SHAPE, jax.ShapeDtypeStruct((3,), jnp.int32), False),
        (KEYS[0], KEYS[1], True),
        (KEYS[0], KEYS[2], False),
        (KEYS[0], jax.random.key_data(KEYS[0]), False),
        ("x", "x", True),
        (None, None, True),
        (None, 0, False),
        (jax.P("x"), jax.P("x"), True),
        (jax.P("x"), jax.P("y"), False),
        ((np.ones(2), 1), (np.ones(2), 1), True),
        ([KEYS[0], "x"], [KEYS[1], "x"], True),
        ((np.ones(2), 1), (np.ones(2), 2), False),
        ((np.ones(2), np.ones(2)), [np.ones(2), np.ones(2)], False),
        ((np.ones(2),), (np.ones(2), np.ones(2)), False),
        ((np.ones(2),), 1, False),
    ],
)
def test_equality_of_leaves(a, b, same):
    for left, right in ((a, b), (b, a)):
        assert (js.Params({"v": left}) == js.Params({"v": right})) is same
        assert (js.Params({"v": left}) != js.Params({"v": right})) is not same
        assert (js.Params({"v": left}) == {"v": right}) is same


@unhurried
@given(FLATS, FLATS)
def test_equality_is_that_of_the_flat_dicts(a, b):
    assert (js.Params(a) == js.Params(b)) == (a == b)
    assert js.Params(a) == js.Params(dict(reversed(a.items())))


def test_equality_with_other_things():
    assert PARAMS == PARAMS.to_dict() == PARAMS == PARAMS.flat()
    assert PARAMS.to_dict() == PARAMS
    assert PARAMS != {"tower": 1}
    assert PARAMS != {1: 2}
    assert PARAMS != {"a/b": 1, "a": {"b": 1}}
    assert PARAMS != 3
    assert PARAMS != None  # noqa: E711
    nan = js.Params({"v": jnp.array(jnp.nan)})
    assert nan == nan.replace({})  # one object is equal to itself, as in a list


def test_equality_of_the_same_tracers():
    @jax.jit
    def same(tree):
        assert tree == tree.replace({}) == jax.tree.map(lambda leaf: leaf, tree)
        assert tree != tree.replace({"tower/bias": jnp.zeros(4)})
        with pytest.raises(jax.errors.TracerArrayConversionError):
            tree == jax.tree.map(lambda leaf: leaf + 1, tree)  # noqa: B015
        return tree

    assert same(PARAMS) == PARAMS


def test_no_hash():
    with pytest.raises(TypeError, match="unhashable"):
        hash(PARAMS)


def test_copies():
    assert copy.copy(PARAMS) is PARAMS
    deep = copy.deepcopy({"one": PARAMS, "two": PARAMS})
    assert deep["one"] == PARAMS
    assert deep["one"] is deep["two"]
    for leaf, original in zip(deep["one"].flat().values(), PARAMS.flat().values(), strict=True):
        assert leaf.unsafe_buffer_pointer() != original.unsafe_buffer_pointer()
    mutable = js.Params({"v": np.zeros(2)})
    copy.deepcopy(mutable)["v"][:] = 1
    assert mutable["v"].sum() == 0


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("tree", [PARAMS, ODD, js.Params(), js.Params({"a": None, "b": "text", "c": {"d": (1, 2)}})])
def test_pickle(tree, protocol):
    again = pickle.loads(pickle.dumps(tree, protocol))
    assert again == tree
    assert type(again) is js.Params
    structure = jax.tree.structure(tree)
    assert jax.tree.structure(again) == structure
    if protocol >= 2:  # JAX's own limit
        assert pickle.loads(pickle.dumps(structure, protocol)) == structure


def test_pickle_keeps_dicts_that_are_leaves():
    moments = jax.tree.map(lambda leaf: {"mu": leaf, "nu": leaf}, js.Params({"a": 1}))
    assert pickle.loads(pickle.dumps(moments)).flat() == {"a": {"mu": 1, "nu": 1}}


def test_pickle_into_another_process(tmp_path):
    (tmp_path / "in").write_bytes(pickle.dumps((PARAMS, ODD, jax.tree.structure(PARAMS), jax.tree.structure(ODD))))
    script = """if True:
        import pickle, sys
        params, odd, structure, odd_structure = pickle.load(open(sys.argv[1], "rb"))
        import jax
        assert jax.tree.structure(params) == structure != odd_structure == jax.tree.structure(odd)
        assert odd.scope("kernel")["adam_m/v"] == 3 and odd["a//v"] == 4
        twice = jax.jit(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree))(params)
        pickle.dump((twice, structure.unflatten("abc")), open(sys.argv[2], "wb"))
    """
    command = [sys.executable, "-c", script, str(tmp_path / "in"), str(tmp_path / "out")]
    subprocess.run(command, check=True, timeout=120)
    twice, letters = pickle.loads((tmp_path / "out").read_bytes())
    assert twice == jax.tree.map(lambda leaf: 2 * leaf, PARAMS)
    assert letters.flat() == dict(zip(PARAMS.names, "abc", strict=True))


# repr -----------------------------------------------------------------------------------------------------------------


def test_repr_shows_nesting_shapes_and_dtypes():
    assert repr(PARAMS) == "Params({head: {kernel: f32[3]}, tower: {bias: f32[3], kernel: f32[2,3]}})"
    assert str(PARAMS) == repr(PARAMS)
    assert repr(PARAMS["tower"]) == "Params({bias: f32[3], kernel: f32[2,3]})"
    assert repr(js.Params({"kernel": 1, "kernel/m": 2, "a//v": 3, "v/": 4})) == (
        "Params({a: {'': {v: 3}}, kernel: 1, kernel/: {m: 2}, v: {'': 4}})"
    )


def test_repr_of_a_large_tree_is_indented():
    tree = js.Params({f"layer_{i}": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)} for i in range(3)} | {"x": 1})
    assert repr(tree) == (
        "Params({\n"
        "  layer_0: {bias: f32[3], kernel: f32[2,3]},\n"
        "  layer_1: {bias: f32[3], kernel: f32[2,3]},\n"
        "  layer_2: {bias: f32[3], kernel: f32[2,3]},\n"
        "  x: 1,\n"
        "})"
    )
    wide = js.Params({"outer": {f"a_long_name_{i}": jnp.ones(()) for i in range(6)}})
    assert repr(wide).splitlines()[1:4] == ["  outer: {", "    a_long_name_0: f32[],", "    a_long_name_1: f32[],"]
    assert repr(wide).splitlines()[-2:] == ["  },", "})"]


@pytest.mark.parametrize(
    ("leaf", "text"),
    [
        (jnp.ones((), jnp.bfloat16), "bf16[]"),
        (jnp.ones((2, 1), bool), "bool[2,1]"),
        (jnp.ones(2, jnp.int8), "i8[2]"),
        (jnp.ones(2, jnp.uint32), "u32[2]"),
        (jnp.ones(2, jnp.complex64), "c64[2]"),
        (jnp.ones(2, jnp.float8_e4m3fn), "float8_e4m3fn[2]"),
        (np.ones(2), "f64[2]"),
        (jax.random.key(0), "key<fry>[]"),
        (SHAPE, "f32[3]"),
        (None, "None"),
        ("decay", "'decay'"),
        (2.5, "2.5"),
    ],
)
def test_repr_of_leaves(leaf, text):
    assert repr(js.Params({"v": leaf})) == f"Params({{v: {text}}})"


def test_repr_of_tracers_and_deleted_arrays():
    texts = []
    jax.jit(lambda tree: texts.append(repr(tree)))(PARAMS)
    assert texts == [repr(PARAMS)]
    gone = js.Params({"v": jnp.arange(3.0)})
    gone["v"].delete()
    assert repr(gone) == "Params({v: f32[3]})"


# One pytree node ------------------------------------------------------------------------------------------------------


def test_leaves_are_in_order_of_the_names():
    leaves, structure = jax.tree.flatten(PARAMS)
    assert [id(leaf) for leaf in leaves] == [id(leaf) for leaf in PARAMS.flat().values()]
    assert structure.num_nodes == 4  # the leaves and one
    assert structure.unflatten(leaves) == PARAMS


def test_structures_of_equal_names_are_one_layout():
    one, other = jax.tree.structure(PARAMS), jax.tree.structure(js.Params(PARAMS.to_dict()))
    assert one == other
    assert hash(one) == hash(other)
    assert one.node_data()[1] is other.node_data()[1]
    assert one != jax.tree.structure(js.Params(dict.fromkeys(("head/kernel", "tower/bias", "tower/kerneL"))))
    assert jax.tree.structure(PARAMS["tower"]).node_data()[1] is Layout.of(("bias", "kernel"))


SENTINEL = object()
MESH = Mesh(np.array(jax.devices()[:1]), ("x",))


@pytest.mark.parametrize(
    "leaf", [None, "text", SENTINEL, 0, -1, jax.P("x"), NamedSharding(MESH, SPEC), {"m": 1}, (1, 2)]
)
def test_unflattens_with_any_leaves(leaf):
    tree = jax.tree.unflatten(jax.tree.structure(PARAMS), [leaf] * 3)
    assert tree.flat() == dict.fromkeys(PARAMS.names, leaf)
    assert all(found is leaf for found in tree.flat().values())
    assert jax.tree.leaves(tree) == jax.tree.leaves([leaf] * 3)
    assert jax.tree.map(lambda x: x, tree) == tree


def test_none_is_no_leaf_as_in_a_dict():
    tree = PARAMS.replace({"tower/bias": None})
    assert len(jax.tree.leaves(tree)) == 2
    assert jax.tree.map(lambda leaf: leaf + 1, tree)["tower/bias"] is None
    assert len(jax.tree.leaves(tree, is_leaf=lambda leaf: leaf is None)) == 3


def test_key_paths_read_as_names():
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path({"params": PARAMS})]
    assert [jax.tree_util.keystr(path) for path in paths] == [
        "['params']['head/kernel']",
        "['params']['tower/bias']",
        "['params']['tower/kernel']",
    ]
    simple = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
    assert simple == [f"params/{name}" for name in PARAMS.names]
    named = jax.tree_util.tree_map_with_path(lambda path, _: path[0].key, PARAMS)
    assert named.flat() == {name: name for name in PARAMS.names}


def test_jax_errors_name_the_variable():
    with pytest.raises(TypeError, match="tower/kernel"):
        jax.jit(lambda tree: tree)(PARAMS.replace({"tower/kernel": "text"}))
    with pytest.raises(ValueError, match=r"tower/bias.*"):
        jax.vmap(lambda tree: tree)(js.Params({"tower/bias": jnp.ones(3), "tower/kernel": jnp.ones(2)}))


def test_jax_errors_show_how_two_trees_differ():
    other = js.Params({"head/new": 1, "tower": PARAMS["tower"]})
    with pytest.raises(ValueError, match=r"(?s)'head/kernel', 'tower/bias'.*'head/new', 'tower/bias'"):
        jax.tree.map(lambda a, b: None, PARAMS, other)
    with pytest.raises(TypeError, match="'head/new'"):
        jax.lax.scan(lambda carry, _: (other, None), PARAMS, None, length=1)


def test_structures_of_many_names_read_short_and_different():
    texts = []
    for last in ("y", "z"):
        structure = jax.tree.structure(js.Params({f"l{i:03}": 0 for i in range(400)} | {last: 0}))
        texts.append(repr(structure.node_data()[1]))
        assert texts[-1] in repr(structure)
    assert texts[0] != texts[1]
    assert len(texts[0]) < 300
    assert texts[0].startswith("<401 names: 'l000', 'l001'")
    assert "and 381 more" in texts[0]


def test_through_the_transforms():
    def loss(tree, x):
        return jnp.sum((x @ tree["tower"]["kernel"] + tree["tower/bias"]) * tree["head"]["kernel"])

    x = jnp.ones((1, 2))
    nested = jax.tree.map(lambda leaf: leaf, PARAMS.to_dict())

    def reference(tree, x):
        return jnp.sum((x @ tree["tower"]["kernel"] + tree["tower"]["bias"]) * tree["head"]["kernel"])

    assert jax.jit(loss)(PARAMS, x) == reference(nested, x)
    grads = jax.grad(loss)(PARAMS, x)
    assert isinstance(grads, js.Params)
    assert grads == jax.grad(reference)(nested, x)
    assert jax.eval_shape(lambda tree: tree, PARAMS)["tower/kernel"].shape == (2, 3)
    carried, _ = jax.lax.scan(lambda tree, _: (jax.tree.map(lambda leaf: leaf + 1, tree), None), PARAMS, None, length=2)
    assert carried == jax.tree.map(lambda leaf: leaf + 2, PARAMS)
    chosen = jax.lax.cond(True, lambda tree: tree["tower"], lambda tree: tree.scope("tower"), PARAMS)
    assert chosen == PARAMS["tower"]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), PARAMS, PARAMS)
    assert jax.vmap(loss, in_axes=(0, None))(stacked, x).shape == (2,)
    outer, inner = jax.tree.structure(PARAMS), jax.tree.structure({"mu": 0, "nu": 0})
    moments = jax.tree.map(lambda leaf: {"mu": leaf, "nu": leaf + 1}, PARAMS)
    assert jax.tree.transpose(outer, inner, moments)["mu"] == PARAMS


def test_jit_compiles_once_for_equal_names():
    f = jax.jit(lambda tree: tree["a"] + tree["b/c"])
    f(js.Params({"a": 1.0, "b": {"c": 2.0}}))
    f(js.Params({"b/c": 3.0, "a": 4.0}))
    f(pickle.loads(pickle.dumps(js.Params({"b/c": 3.0, "a": 4.0}))))
    f(js.Params({"x": {"b/c": 3.0, "a": 4.0}})["x"])
    assert f._cache_size() == 1


# Interning ------------------------------------------------------------------------------------------------------------


def test_threads_agree_on_one_layout():
    threads, rounds = 8, 20
    found = [[] for _ in range(rounds)]
    barrier = threading.Barrier(threads)

    def work():
        for i in range(rounds):
            flat = {f"interned/{i}/{j}": j for j in range(300)}
            barrier.wait()
            found[i].append(js.Params(flat))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    for trees in found:
        assert len(trees) == threads
        assert len({id(jax.tree.structure(tree).node_data()[1]) for tree in trees}) == 1
        assert len({jax.tree.structure(tree["interned"]) for tree in trees}) == 1


def test_a_finalizer_may_make_trees_while_a_layout_is_made():
    done = threading.Event()

    def work():
        with Layout._lock:  # where a garbage collection runs the finalizer
            js.Params({"made/in/a/finalizer": 1})
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(20)


def test_layouts_live_as_long_as_their_trees():
    names = ("short/lived/a", "short/lived/b")
    tree = js.Params(dict.fromkeys(names, 0))
    inner = tree["short"]["lived"]
    assert names in Layout._interned
    del tree
    gc.collect()
    assert names not in Layout._interned
    assert inner.names == ("a", "b")


def test_no_layout_is_made_beside_another_thread():
    """Else two trees of the same names could get two layouts, and differ for JAX."""
    done = threading.Event()

    def work():
        js.Params({"made/beside/another/thread": 1})
        done.set()

    with Layout._lock:
        threading.Thread(target=work, daemon=True).start()
        assert not done.wait(0.2)
    assert done.wait(20)


# Scaling: counted in Python calls, which no machine changes -----------------------------------------------------------


def calls(f):
    """How many functions, Python's or C's, `f()` calls."""
    count = itertools.count()

    def profile(frame, event, arg):
        if event in ("call", "c_call"):
            next(count)

    sys.setprofile(profile)
    try:
        f()
    finally:
        sys.setprofile(None)
    return next(count)


@functools.cache
def large(size):
    return js.Params({f"scope_{i % 300}/layer_{i}/kernel": i for i in range(size)})


def test_one_hundred_thousand_names():
    tree = large(100_000)
    assert len(tree.names) == 100_000
    assert len(tree) == 300
    structure = jax.tree.structure(tree)
    tree["scope_3"], tree.scope("scope_3/layer_3")  # the first look makes the layouts of the scopes
    constant = {
        "flatten": lambda: jax.tree.leaves(tree),
        "unflatten": lambda: structure.unflatten(tree._leaves),
        "compare": lambda: jax.tree.structure(tree) == structure,
        "leaf": lambda: tree["scope_3/layer_3/kernel"],
        "sub-tree": lambda: tree["scope_3"],
        "nested": lambda: tree["scope_3"]["layer_3"]["kernel"],
        "in": lambda: "scope_3" in tree,
        "not in": lambda: "scope_3/nothing" in tree,
        "get nothing": lambda: tree.get("scope_3/nothing"),
        "children": lambda: list(tree),
        "replace": lambda: tree.replace({"scope_3/layer_3/kernel": 0}),
    }
    assert {what: count for what, f in constant.items() if (count := calls(f)) > 40} == {}


def test_what_is_made_is_made_in_linear_time():
    def work(size):
        flat = large(size).flat()
        tree = large(size)
        return {
            "construct": lambda: js.Params(flat),
            "nest": lambda: tree.to_dict(),
            "union": lambda: tree | tree,
            "select": lambda: tree.select(lambda name, leaf: leaf % 2),
            "label": lambda: tree.like({"scope_3": 1}, default=0),
            "compare": lambda: tree == js.Params(flat),
            "pickle": lambda: pickle.loads(pickle.dumps(tree)),
        }

    for (what, small), big in zip(work(1_000).items(), work(8_000).values(), strict=True):
        assert calls(big) <= 9 * calls(small) + 100, what
