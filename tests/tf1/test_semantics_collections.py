"""TF1's semantics, rows K (collections and trainable) and X (custom getters, constraints, partitioners)."""
# ruff: noqa: N802

import jax.numpy as jnp
from tf1_rows import AUTO, E, P, cur, gv, names, nm, row, spec, val, vs

import jscope as js


def all_names():
    return names(js.global_variables())


def trainable_names():
    return names(js.trainable_variables())


# K: collections and trainable -----------------------------------------------------------------------------------------


@row("['b', 'a', 'z/c', 'd'] ['b', 'z/c', 'd']")
def test_K01_listings_are_in_order_of_creation():
    gv("b", [])
    gv("a", [], trainable=False)
    with vs("z"):
        gv("c", [])
    js.variable(1.0, name="d")
    with vs("", reuse=True):
        gv("b", [])
    P(all_names(), trainable_names())


@row("False True True")
def test_K02_trainable_false():
    a, b, c = gv("a", [], trainable=False), gv("b", [], trainable=None), gv("c", [])
    P(spec(a).trainable, spec(b).trainable, spec(c).trainable)


@row("False []")
def test_K03_trainable_of_a_reusing_call_is_ignored():
    gv("a", [], trainable=False)
    cur().reuse_variables()
    P(spec(gv("a", [], trainable=True)).trainable, trainable_names())


@row("""
['a'] [] ['a']
['a', 'b'] ['a']
[] ['a', 'c']
""")
def test_K04_collections_replace_the_global_one():
    gv("a", [], collections=["mine"])
    P(names(js.get_collection("mine")), all_names(), trainable_names())
    gv("b", [], collections=["mine"], trainable=False)
    P(names(js.get_collection("mine")), trainable_names())
    gv("c", [], collections=[])
    P(all_names(), trainable_names())


@row("a False ['a'] [] []")
def test_K05_local_variables_are_never_trainable():
    v = js.get_local_variable("a", [], trainable=True)
    P(nm(v), spec(v).trainable, names(js.local_variables()), all_names(), trainable_names())


@row("""
ValueError exists
True True
""")
def test_K06_local_variables_share_the_store():
    v = js.get_local_variable("a", [])
    E(lambda: gv("a", []))
    cur().reuse_variables()
    P(gv("a", []) is v, js.get_local_variable("a", []) is v)


@row("""
['x']
['a'] ['a']
""")
def test_K07_local_variable_with_collections():
    collections = ["x"]
    js.get_local_variable("a", [], collections=collections)
    P(collections)  # TensorFlow adds 'local_variables' to the caller's list
    P(names(js.get_collection("x")), names(js.local_variables()))


@row("""
['a/v'] ['a/v', 'a/w'] []
['a/v', 'a/w', 'a/b/v'] ['a/v', 'a/w', 'ab/v', 'a/b/v']
""")
def test_K08_listings_of_a_scope():
    with vs("a") as a:
        gv("v", [])
        gv("w", [], trainable=False)
    with vs("ab"):
        gv("v", [])
    P(names(a.trainable_variables()), names(a.global_variables()), names(a.local_variables()))
    with vs("a"), vs("b"):
        gv("v", [])
    P(names(a.global_variables()), names(cur().global_variables()))


@row("['s/v_1', 's/t'] ['s/v_1', 's/t']")
def test_K09_listings_of_a_scope_go_by_op_name():
    with vs("s") as s:
        with vs("v"):
            pass
        gv("v", [])
        js.variable(1.0, name="t")
    with vs("s") as s2:
        js.variable(1.0, name="t")
    P(names(s.global_variables()), names(s2.global_variables()))


@row("['a/v', 'ab/v'] ['a/v'] ['a/v', 'b/a/v'] ['a/v', 'ab/v', 'b/a/v'] [] ['b/a/v']")
def test_K10_scope_argument_is_a_regular_expression():
    for name in ("a/v", "ab/v", "b/a/v"):
        gv(name, [])
    P(*(names(js.trainable_variables(pattern)) for pattern in ("a", "a/", ".*a/", "", "b.*v$", "b.*:0$")))


@row("['a.b/v', 'axb/v']")
def test_K11_scope_prefix_is_a_regular_expression():
    with vs("a.b") as s:
        gv("v", [])
    with vs("axb"):
        gv("v", [])
    P(names(s.global_variables()))


@row("['v']")
def test_K12_listing_is_a_fresh_list():
    gv("v", [])
    js.global_variables().clear()
    P(all_names())


@row("[] ['w']")
def test_K13_other_collections_are_empty_unless_asked_for():
    key = js.GraphKeys.MODEL_VARIABLES
    gv("v", [])
    before = js.get_collection(key)
    gv("w", [], collections=["model_variables", "variables"])
    P(before, names(js.get_collection(key)))


@row("['a/v', 'w'] ['a/v'] ['a/v']")
def test_K15_custom_collection():
    with vs("a") as a:
        gv("v", [], collections=["mine", "variables"])
    gv("w", [], collections=["mine"])
    P(names(js.get_collection("mine")), names(a.get_collection("mine")), all_names())


@row("['a'] ['b'] ['b']")
def test_K16_trainable_and_collections_of_variable():
    js.variable(1.0, name="a", trainable=False)
    js.variable(1.0, name="b", collections=["mine"])
    P(all_names(), trainable_names(), names(js.get_collection("mine")))


# X: custom getters, constraints, partitioners -------------------------------------------------------------------------


def suffix(text):
    return lambda getter, name, *args, **kwargs: getter(name + text, *args, **kwargs)


@row(
    "s/v () ['caching_device', 'collections', 'constraint', 'dtype', 'initializer', 'partitioner', 'regularizer', "
    "'reuse', 'shape', 'trainable', 'use_resource', 'validate_shape']"
)
def test_X01_getter_is_called_with_keywords():
    def cg(getter, name, *args, **kwargs):
        P(name, args, sorted(kwargs))  # TensorFlow has 'aggregation' and 'synchronization' too: for distribution
        return getter(name, *args, **kwargs)

    with vs("s"):
        gv("v", [2], custom_getter=cg)


@row("""
in inner
in outer
out outer
out inner
--
in call
out call
""")
def test_X02_getters_of_scopes_compose_and_one_in_the_call_replaces_them():
    def mk(text):
        def cg(getter, name, *args, **kwargs):
            P("in", text)
            result = getter(name, *args, **kwargs)
            P("out", text)
            return result

        return cg

    with vs("a", custom_getter=mk("outer")), vs("b", custom_getter=mk("inner")):
        gv("v", [])
        P("--")
        gv("w", [], custom_getter=mk("call"))


@row("""
s/v_x
ValueError exists
True
ValueError missing
""")
def test_X03_getter_can_rename():
    with vs("s", custom_getter=suffix("_x")):
        v = gv("v", [])
        P(nm(v))
        E(lambda: gv("v", []))
    with vs("s", reuse=True):
        P(gv("v_x", []) is v)
        E(lambda: gv("v", []))


@row("a/b/v_i_o")
def test_X04_two_renaming_getters():
    with vs("a", custom_getter=suffix("_o")), vs("b", custom_getter=suffix("_i")):
        P(nm(gv("v", [])))


@row("""
a/v_n_c
a/w_c
""")
def test_X05_getter_of_a_captured_entry_wraps_the_captured_one():
    with vs("a", custom_getter=suffix("_c")) as a:
        pass
    with vs("z", custom_getter=suffix("_z")):
        with vs(a, custom_getter=suffix("_n")):
            P(nm(gv("v", [])))
        with vs(a):
            P(nm(gv("w", [])))


@row("""
entered
ValueError bad_getter
ValueError bad_getter
""")
def test_X06_getter_that_is_not_callable():
    def o():
        with vs("s", custom_getter=3):
            P("entered")
            gv("v", [])

    E(o)
    E(lambda: gv("v", [], custom_getter=3))


@row("42 []")
def test_X07_getter_may_return_anything():
    P(gv("v", [], custom_getter=lambda getter, *args, **kwargs: 42), all_names())


@row("""
ValueError not_a_variable
['s/v/0', 's/v/1']
""")
def test_X08_getter_may_create_several_variables():
    def cg(getter, name, *args, **kwargs):
        return getter(name + "/0", *args, **kwargs) + getter(name + "/1", *args, **kwargs)

    with vs("s", custom_getter=cg):
        v = gv("v", [2])
        E(lambda: nm(v))  # TensorFlow: the name of the addition
    P(all_names())


@row("""
False float16 None None True [2]
True float16 None None True None
""")
def test_X09_arguments_that_a_getter_sees():
    def cg(getter, name, **k):
        P(k["reuse"], k["dtype"].name, k["initializer"], k["regularizer"], k["trainable"], k["shape"])
        return getter(name, **k)

    with vs("s", custom_getter=cg, dtype=jnp.float16):
        gv("v", [2])
    with vs("s", reuse=True, custom_getter=cg, dtype=jnp.float16):
        gv("v")


@row("True False [1. 1.]")
def test_X10_getter_can_change_arguments():
    def cg(getter, name, **kwargs):
        return getter(name, **{**kwargs, "trainable": False, "initializer": js.ones_initializer(), "reuse": AUTO})

    with vs("s", custom_getter=cg):
        v, w = gv("v", [2]), gv("v", [2])
        P(v is w, spec(v).trainable, val(v))


@row("""
True [1. 1.]
True
""")
def test_X11_constraint_is_stored_and_not_applied():
    def k(t):
        return t * 0.0

    v = gv("v", [2], constraint=k, initializer=js.ones_initializer())
    P(spec(v).constraint is k, val(v))
    with vs("s", constraint=k):
        P(spec(gv("v", [])).constraint is k)


@row("ValueError bad_constraint")
def test_X12_constraint_that_is_not_callable():
    E(lambda: gv("v", [2], constraint=3))


@row("s/v")
def test_X14_scalars_ignore_the_partitioner():
    with vs("s", partitioner=lambda shape, dtype: [2]):
        P(nm(gv("v", [])))


@row("ValueError bad_partition\n" * 5)
def test_X17_bad_partitioners():
    E(lambda: gv("a", [4], partitioner=lambda shape, dtype: 2))
    E(lambda: gv("b", [4], partitioner=lambda shape, dtype: [1, 2]))
    E(lambda: gv("c", [4, 4], partitioner=lambda shape, dtype: [2, 2]))
    E(lambda: gv("d", [4], partitioner=3))
    E(lambda: gv("e", [4], partitioner=lambda shape, dtype: [0]))
