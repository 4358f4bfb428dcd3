"""TF1's semantics, rows N (naming and nesting) and R (reuse)."""
# ruff: noqa: N802

import pytest
from tf1_rows import AUTO, E, P, cur, gv, nm, op, row, spec, vs

import jscope as js

# N: naming and nesting ------------------------------------------------------------------------------------------------


@row("v v (2,) float32")
def test_N01_full_name_at_the_root():
    v = gv("v", [2])
    P(nm(v), spec(v).key, v.shape, v.dtype.name)


@row("a/v")
def test_N02_full_name_in_a_scope():
    with vs("a"):
        P(nm(gv("v", [2])))


@row("a/b/c/v a/b/c")
def test_N03_nesting_joins_names():
    with vs("a"), vs("b"), vs("c") as s:
        P(nm(gv("v", [2])), s.name)


@row("""
a/b/v a/b
True
""")
def test_N04_slash_in_a_scope_name_is_the_namespace_of_nesting():
    with vs("a/b"):
        v = gv("v", [2])
        P(nm(v), cur().name)
    with vs("a"), vs("b", reuse=True):
        P(gv("v", [2]) is v)


@row("""
a/b
True
ValueError exists
""")
def test_N05_slash_in_a_variable_name_is_the_key_of_scope_plus_name():
    v = gv("a/b", [2])
    P(nm(v))
    with vs("a", reuse=True):
        P(gv("b", [2]) is v)
    with vs("a"):
        E(lambda: gv("b", [2]))


@row("""
a/w
ValueError exists
""")
def test_N06_same_string_is_the_same_namespace():
    with vs("a"):
        gv("v", [2])
    with vs("a"):
        P(nm(gv("w", [2])))
        E(lambda: gv("v", [2]))


@row("a/a/v a/a")
def test_N07_string_scopes_are_relative():
    with vs("a"), vs("a"):
        P(nm(gv("v", [])), cur().name)


@row("a a/v a a_1/ a_1/add")
def test_N08_variable_then_scope_of_its_name():
    v = gv("a", [])
    with vs("a") as s:
        P(nm(v), nm(gv("v", [])), s.name, s.original_name_scope, op("add"))


@row("""
a_1
True
ValueError missing
""")
def test_N09_scope_then_variable_of_its_name():
    with vs("a"):
        gv("v", [])
    v = gv("a", [])
    P(nm(v))
    cur().reuse_variables()
    P(gv("a", []) is v)
    E(lambda: gv("a_1", []))


@row("""
s/v_1
True
""")
def test_N10_sub_scope_then_variable_of_its_name():
    with vs("s"):
        with vs("v"):
            pass
        v = gv("v", [])
        P(nm(v))
    with vs("s", reuse=True):
        P(gv("v", []) is v)


@row("""
v V_1 False
True
""")
def test_N11_op_names_ignore_case_and_keys_do_not():
    v = gv("v", [])
    w = gv("V", [])
    P(nm(v), nm(w), v is w)
    with vs("", reuse=True):
        P(gv("V", []) is w)


@row("v v_1 v_1_1")
def test_N12_key_equal_to_a_uniquified_op_name_is_a_variable_of_its_own():
    a = js.variable(1.0, name="v")
    b = gv("v", [])
    c = gv("v_1", [])
    P(nm(a), nm(b), nm(c))


@row("'' False float32 None ''")
def test_N13_root_scope():
    s = cur()
    P(repr(s.name), s.reuse, s.dtype.name, s.initializer, repr(s.original_name_scope))


@row("""
True
True
""")
def test_N14_previous_scope_object_is_current_again():
    r = cur()
    with vs("a") as a:
        with vs("b"):
            pass
        P(cur() is a)
    P(cur() is r)


@row("v v_1")
def test_N15_op_that_has_the_name_pushes_the_variable_to_a_suffix():
    P(op("v"), nm(gv("v", [])))


# R: reuse -------------------------------------------------------------------------------------------------------------


@row("""
ValueError exists
True
""")
def test_R01_same_name_twice():
    gv("v", [2])
    E(lambda: gv("v", [2]))
    with pytest.raises(js.VariableExistsError) as caught:
        gv("v", [2])
    P("test_semantics_naming.py:" in caught.value.exists)  # TF1's message has the place of the first creation too


@row("ValueError exists")
def test_R02_same_name_twice_for_resource_variables():
    gv("v", [2], use_resource=True)
    E(lambda: gv("v", [2]))


@row("True True")
def test_R03_reuse_returns_the_identical_object():
    with vs("a"):
        v = gv("v", [2])
    with vs("a", reuse=True):
        P(gv("v", [2]) is v, gv("v") is v)


@row("ValueError missing")
def test_R04_reuse_of_an_unknown_variable():
    with vs("a", reuse=True):
        E(lambda: gv("v", [2]))


@row("a/v True AUTO")
def test_R05_auto_reuse_creates_or_shares():
    with vs("a", reuse=AUTO):
        v = gv("v", [2])
        P(nm(v), gv("v", [2]) is v, cur().reuse)


@row("""
True
False
""")
def test_R06_reuse_is_inherited():
    with vs("a", reuse=True), vs("b"):
        P(cur().reuse)
    P(cur().reuse)


@row("True")
def test_R07_explicit_false_keeps_an_inherited_true():
    with vs("a", reuse=True), vs("b", reuse=False):
        P(cur().reuse)


@row("""
AUTO
AUTO
""")
def test_R08_explicit_false_keeps_an_inherited_auto():
    with vs("a", reuse=AUTO):
        with vs("b", reuse=False):
            P(cur().reuse)
        with vs("b", reuse=None):
            P(cur().reuse)


@row("""
AUTO a/b/v
True
""")
def test_R09_auto_inside_true_wins():
    with vs("a", reuse=True):
        with vs("b", reuse=AUTO):
            P(cur().reuse, nm(gv("v", [])))
        P(cur().reuse)


@row("""
True
ValueError missing
""")
def test_R10_true_inside_auto_wins():
    with vs("a", reuse=AUTO), vs("b", reuse=True):
        P(cur().reuse)
        E(lambda: gv("v", []))


@row("""
False
False
""")
def test_R11_no_outer_reuse():
    with vs("a", reuse=False):
        P(cur().reuse)
    with vs("a", reuse=None):
        P(cur().reuse)


@row("""
True True
False
False
""")
def test_R12_reuse_variables_lasts_until_the_scope_is_left():
    with vs("a"):
        v = gv("v", [])
        cur().reuse_variables()
        P(cur().reuse, gv("v", []) is v)
    P(cur().reuse)
    with vs("a"):
        P(cur().reuse)


@row("""
True True
True
ValueError missing
""")
def test_R13_reuse_variables_at_the_root_stays():
    v = gv("v", [])
    cur().reuse_variables()
    P(cur().reuse, gv("v", []) is v)
    with vs("a"):
        P(cur().reuse)
        E(lambda: gv("w", []))


@row("""
False True
True
""")
def test_R14_reuse_variables_does_not_reach_an_open_sub_scope():
    with vs("a") as a:
        with vs("b"):
            a.reuse_variables()
            P(cur().reuse, a.reuse)
        P(cur().reuse)


@row("""
True
ValueError missing
""")
def test_R15_reuse_variables_under_auto_is_true():
    with vs("a", reuse=AUTO):
        cur().reuse_variables()
        P(cur().reuse)
        E(lambda: gv("v", []))


@row("""
True
False
""")
def test_R16_reuse_variables_on_a_captured_object_sticks_to_the_object():
    with vs("a") as s:
        gv("v", [])
    s.reuse_variables()
    with vs(s):
        P(cur().reuse)
    with vs("a"):
        P(cur().reuse)


@row("False True False")
def test_R17_entering_a_captured_scope_copies_it():
    with vs("a") as s:
        pass
    with vs(s) as t:
        t.reuse_variables()
        P(t is s, t.reuse, s.reuse)


@row("""
False
True
""")
def test_R18_captured_scope_brings_its_own_flag():
    with vs("a") as s:
        pass
    with vs("z", reuse=True), vs(s):
        P(cur().reuse)
    with vs("a", reuse=True) as t:
        pass
    with vs(t):
        P(cur().reuse)


@row("""
True
AUTO
True
False
""")
def test_R19_true_and_auto_override_the_flag_of_a_captured_scope():
    with vs("a", reuse=True) as s:
        pass
    with vs(s, reuse=False):
        P(cur().reuse)
    with vs(s, reuse=AUTO):
        P(cur().reuse)
    with vs("b") as t:
        pass
    with vs(t, reuse=True):
        P(cur().reuse)
    with vs(t, reuse=False):
        P(cur().reuse)


@row("""
ValueError bad_reuse
ValueError bad_reuse
ValueError bad_reuse
""")
def test_R20_bad_reuse_values():
    E(lambda: vs("a", reuse="yes"))
    E(lambda: vs("a", reuse=1))
    E(lambda: vs("a", reuse=0))


@row("""
ValueError reuse_default_name
ValueError reuse_default_name
''
False ok
""")
def test_R21_reuse_with_a_default_name():
    def f(reuse):
        with vs(None, "d", reuse=reuse):
            pass

    E(lambda: f(True))
    E(lambda: f(AUTO))
    P(repr(cur().name))
    f(False)
    P("False ok")


@row("True")
def test_R22_shape_may_be_omitted_under_reuse():
    v = gv("v", [2])
    cur().reuse_variables()
    P(gv("v") is v)


@row("True True []")
def test_R23_reusing_call_ignores_the_rest():
    v = gv("v", [2], initializer=js.constant_initializer(1.0))
    cur().reuse_variables()
    w = gv("v", [2], initializer=js.constant_initializer(5.0), trainable=False, collections=["c"])
    P(w is v, spec(w).trainable, js.get_collection("c"))


@row("ValueError missing")
def test_R24_plain_variables_are_not_in_the_store():
    js.variable(1.0, name="v")
    cur().reuse_variables()
    E(lambda: gv("v", []))


@row("TypeError")
def test_R25_get_variable_has_no_reuse_argument():
    E(lambda: gv("v", [], reuse=True))
