"""TF1's semantics, rows E (errors of get_variable), B (odd variable names) and S (odd scope names)."""
# ruff: noqa: N802

import jax.numpy as jnp
import numpy as np
from tf1_rows import AUTO, E, P, cur, gv, names, nm, op, op_scope, row, vs

import jscope as js

# E: errors of get_variable --------------------------------------------------------------------------------------------


@row("""
ValueError shape_mismatch
ValueError shape_mismatch
""")
def test_E01_shape_mismatch_under_reuse():
    gv("v", [2])
    cur().reuse_variables()
    E(lambda: gv("v", [3]))
    E(lambda: gv("v", [2, 1]))


@row("ValueError shape_mismatch")
def test_E02_shape_mismatch_under_auto_reuse():
    with vs("a", reuse=AUTO):
        gv("v", [2])
        E(lambda: gv("v", [3]))


@row("True True True")
def test_E03_partial_shapes_are_compatible_under_reuse():
    v = gv("v", [2])
    cur().reuse_variables()
    P(gv("v", [None]) is v, gv("v", None) is v, gv("v") is v)  # an unknown TensorShape is None


@row("ValueError dtype_mismatch")
def test_E04_dtype_mismatch_under_reuse():
    gv("v", [2])
    cur().reuse_variables()
    E(lambda: gv("v", [2], dtype=jnp.int32))


@row("""
ValueError dtype_mismatch
True
""")
def test_E05_omitted_dtype_is_compared_too():
    v = gv("v", [2], dtype=jnp.int32)
    cur().reuse_variables()
    E(lambda: gv("v", [2]))
    P(gv("v", [2], dtype=jnp.int32) is v)


@row("ValueError shape_mismatch")
def test_E06_shape_before_dtype():
    gv("v", [2])
    cur().reuse_variables()
    E(lambda: gv("v", [3], dtype=jnp.int32))


@row("ValueError exists")
def test_E07_exists_before_shape_and_dtype():
    gv("v", [2])
    E(lambda: gv("v", [3], dtype=jnp.int32))


@row("ValueError no_shape")
def test_E08_neither_shape_nor_initializer():
    E(lambda: gv("v"))


@row("ValueError missing")
def test_E09_missing_before_no_shape():
    cur().reuse_variables()
    E(lambda: gv("v"))


@row("""
ValueError const_shape
ValueError const_shape
""")
def test_E10_constant_initializer_and_shape():
    E(lambda: gv("v", [1], initializer=jnp.array([1.0])))
    gv("w", [1])
    cur().reuse_variables()
    E(lambda: gv("w", [1], initializer=jnp.array([1.0])))


@row(
    """
ValueError init_dtype
ValueError init_dtype
""",
    x64=True,
)
def test_E11_constant_initializer_of_another_dtype():
    E(lambda: gv("v", initializer=jnp.array(1, jnp.int32), dtype=jnp.float64))
    E(lambda: gv("v", initializer=1.5, dtype=jnp.int32))


@row("""
ValueError bad_init
ValueError bad_init
""")
def test_E12_partial_shape_and_an_initializer_that_needs_one():
    E(lambda: gv("v", [None, 2], initializer=js.constant_initializer(1.0)))
    E(lambda: gv("v", [None, 2]))


@row("(3,) (2, 3) (4,) ()")
def test_E13_forms_of_shapes():
    P(gv("a", 3).shape, gv("b", (2, 3)).shape, gv("c", np.array([4])).shape, gv("d", ()).shape)


@row("""
ValueError bad_shape
TypeError bad_shape
TypeError bad_shape
""")
def test_E14_bad_dimensions():
    E(lambda: gv("a", [-1]))
    E(lambda: gv("b", [2.5]))
    E(lambda: gv("c", "xy"))


@row("(0, 3)")
def test_E15_zero_size_dimension():
    P(gv("a", [0, 3], initializer=js.zeros_initializer()).shape)


@row("TypeError bad_dtype")
def test_E16_unknown_dtype_name():
    E(lambda: gv("a", [1], dtype="floaty"))


@row("ValueError no_default_init")
def test_E17_no_default_initializer_for_complex():
    E(lambda: gv("a", [1], dtype=jnp.complex64))


@row("TypeError init_value")
def test_E18_dict_as_initializer():
    E(lambda: gv("a", initializer={}))


@row("""
ValueError init_value
a_1
""")
def test_E19_failed_initializer_uses_the_op_name_up():
    E(lambda: gv("a", [1], initializer=js.constant_initializer([1.0, 2.0, 3.0])))
    P(nm(gv("a", [1])))


@row("""
ValueError no_shape
a
""")
def test_E20_failure_before_creation_uses_nothing_up():
    E(lambda: gv("a"))
    P(nm(gv("a", [1])))


@row("float16 float64", x64=True)
def test_E22_dtype_as_string_or_numpy_type():
    P(gv("a", [1], dtype="float16").dtype, gv("b", [1], dtype=np.float64).dtype)


@row("""
ValueError const_shape
TypeError bad_dtype
ValueError bad_shape
ValueError exists
ValueError exists
""")
def test_E23_order_of_checks_where_the_name_is_taken():
    gv("v", [2])
    E(lambda: gv("v", [2], initializer=jnp.array(1.0)))
    E(lambda: gv("v", [2], dtype="floaty"))
    E(lambda: gv("v", [-1]))
    E(lambda: gv("v"))
    E(lambda: gv("v", [None]))


@row("""
ValueError const_shape
ValueError bad_shape
ValueError missing
ValueError missing
""")
def test_E24_order_of_checks_under_reuse_where_the_name_is_unknown():
    cur().reuse_variables()
    E(lambda: gv("v", [2], initializer=jnp.array(1.0)))
    E(lambda: gv("v", [-1]))
    E(lambda: gv("a b", [1]))
    E(lambda: gv("v", [None]))


@row("ValueError init_dtype")
def test_E25_initializer_dtype_is_checked_first_of_all():
    E(lambda: gv("v", [2], initializer=jnp.array(1.0), dtype=jnp.int32, custom_getter=3))


@row("""
ValueError bad_init
ValueError no_default_init
a
TypeError init_value
b_1
KeyError: 'mine'
c_1
ValueError bad_name
['a', 'b_1', 'c_1']
""")
def test_E26_which_failures_use_op_names_up():
    def bad(key, shape, dtype):
        raise KeyError("mine")

    E(lambda: gv("a", [None]))
    E(lambda: gv("a", [1], dtype=jnp.complex64))
    P(nm(gv("a", [1])))
    E(lambda: gv("b", [1], dtype=jnp.int32, initializer=js.constant_initializer(0.5)))
    P(nm(gv("b", [1])))
    E(lambda: gv("c", [1], initializer=bad))
    P(nm(gv("c", [1])))
    E(lambda: gv("d e", [1]))
    P(names(js.global_variables()))


# B: odd variable names ------------------------------------------------------------------------------------------------


@row("""
VariableV2
ValueError exists
""")
def test_B01_empty_name_at_the_root():
    P(nm(gv("", [])))
    E(lambda: gv("", []))


@row("a")
def test_B02_empty_name_in_a_scope():
    with vs("a"):
        P(nm(gv("", [])))


@row("""
ValueError bad_name
a//v
""")
def test_B03_leading_slash():
    E(lambda: gv("/v", []))
    with vs("a"):
        P(nm(gv("/v", [])))


@row("ValueError bad_name\n" * 11)
def test_B04_refused_characters():
    for name in ["a b", "a:0", "a$b", "a,b", "é", "a\n", "a@b", "a[0]", "a(b)", "a=b", "a+b"]:
        E(lambda name=name: P(repr(name), nm(gv(name, []))))


@row(r"""
'a.b' a.b
'a-b' a-b
'a_b' a_b
'a>b' a>b
'a\\b' a\b
'9a' 9a
'.a' .a
ValueError bad_name
ValueError bad_name
'a/' a
ValueError bad_name
-- inside a scope
'_a' s/_a
'-a' s/-a
'.b' s/.b
'9b' s/9b
'>c' s/>c
""")
def test_B05_allowed_characters():
    for name in ["a.b", "a-b", "a_b", "a>b", "a\\b", "9a", ".a", "_a", "-a", "a/", ">a"]:
        E(lambda name=name: P(repr(name), nm(gv(name, []))))
    P("-- inside a scope")
    with vs("s"):
        for name in ["_a", "-a", ".b", "9b", ">c"]:
            E(lambda name=name: P(repr(name), nm(gv(name, []))))


@row("""
Variable
TypeError bad_name_type
by
TypeError bad_name_type
TypeError bad_name_type
TypeError bad_name_type
""")
def test_B06_names_that_are_no_strings():
    for name in [None, 5, b"by"]:
        E(lambda name=name: P(nm(gv(name, []))))
    with vs("s"):
        for name in [None, 5, b"by"]:
            E(lambda name=name: P(nm(gv(name, []))))


@row("""
v
ValueError other
""")
def test_B07_trailing_slash_takes_a_name_without_marking_it():
    P(nm(gv("v/", [])))
    E(lambda: P(nm(gv("v", []))))


# S: odd scope names ---------------------------------------------------------------------------------------------------


@row("""
ValueError bad_name
ValueError bad_name
ValueError bad_name
ValueError bad_name
ValueError bad_name
'.x' '.x' '.x/' .x/v
ValueError bad_name
'x/' 'x/' 'x/' x//v
'x//y' 'x//y' 'x//y/' x//y/v
'9' '9' '9/' 9/v
ValueError bad_name
-- inside a scope
ValueError bad_name
'_x' 's/_x' 's/_x/' s/_x/v
'-x' 's/-x' 's/-x/' s/-x/v
'/x' 's//x' 's//x/' s//x/v
'x/' 's/x/' 'x/' s/x//v
""")
def test_S01_scope_names_follow_the_op_name_pattern():
    def o(name):
        with vs(name) as s:
            v = gv("v", [], initializer=js.zeros_initializer())
            P(repr(name), repr(s.name), repr(s.original_name_scope), nm(v))

    for name in ["a b", "a:0", "$x", "_x", "-x", ".x", "/x", "x/", "x//y", "9", "é"]:
        E(lambda name=name: o(name))
    P("-- inside a scope")
    with vs("s"):
        for name in ["a b", "_x", "-x", "/x", "x/"]:
            E(lambda name=name: o(name))


@row("""
ValueError bad_name
q q/v q
""")
def test_S02_refused_scope_name_changes_nothing():
    def o():
        with vs("a b"):
            pass

    with vs("q"):
        E(o)
        P(cur().name, nm(gv("v", [])), op_scope())


@row("""
TypeError no_name
TypeError no_name
""")
def test_S03_neither_name_nor_default_name():
    E(lambda: vs(None))
    E(lambda: vs(None, None))


@row("TypeError bad_scope_type\n" * 4)
def test_S04_scope_of_another_type_is_refused_at_entry():
    def o(name):
        with vs(name):
            pass

    vs(5)
    for name in [5, b"x", ["a"], True]:
        E(lambda name=name: o(name))


@row("'' '' v Add True")
def test_S05_empty_scope_name_at_the_root():
    with vs("") as s:
        P(repr(s.name), repr(s.original_name_scope), nm(gv("v", [])), op("Add"), s is cur())


@row("'a/' '' a//v a/Add")
def test_S06_empty_scope_name_in_a_scope():
    with vs("a"), vs("") as s:
        P(repr(s.name), repr(s.original_name_scope), nm(gv("v", [])), op("Add"))


@row("""
True
False
""")
def test_S07_empty_scope_name_reuses_at_the_root():
    v = gv("v", [])
    with vs("", reuse=True):
        P(gv("v", []) is v)
    P(cur().reuse)


@row("""
'a/' 'a/' a//v a/Add
'q/a/' 'a/' q/a//v a/Add_1
""")
def test_S08_scope_name_with_a_final_slash():
    with vs("a/") as s:
        P(repr(s.name), repr(s.original_name_scope), nm(gv("v", [])), op("Add"))
    with vs("q"), vs("a/") as s:
        P(repr(s.name), repr(s.original_name_scope), nm(gv("v", [])), op("Add"))


@row("'' v")
def test_S09_empty_default_name():
    with vs(None, "") as s:
        P(repr(s.name), nm(gv("v", [])))


@row("""
TypeError bad_name_type
''
""")
def test_S10_default_name_that_is_no_string():
    def o():
        with vs(None, 5) as s:
            P(repr(s.name))

    E(o)
    P(repr(cur().name))


@row("""
TypeError bad_aux
TypeError bad_aux
""")
def test_S11_auxiliary_name_scope_must_be_a_bool():
    E(lambda: vs("a", auxiliary_name_scope="x"))
    E(lambda: vs("a", auxiliary_name_scope=None))


@row("a")
def test_S12_values_is_the_third_argument():
    with vs("a", "d", [jnp.array(1.0)]) as s:  # the rest of the row is about TF1's graphs
        P(s.name)
