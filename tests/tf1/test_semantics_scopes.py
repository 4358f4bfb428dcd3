"""TF1's semantics, rows D (default names) and C (captured scopes)."""
# ruff: noqa: N802

import jax
import jax.numpy as jnp
from tf1_rows import AUTO, E, P, cur, gv, nm, ns, op, row, spec, val, vs

import jscope as js

# D: default names -----------------------------------------------------------------------------------------------------


@row("""
d/v
d_1/v
d_2/v
""")
def test_D01_default_names_are_numbered():
    for _ in range(3):
        with vs(None, "d"):
            P(nm(gv("v", [])))


@row("ValueError exists")
def test_D02_default_name_is_ignored_where_a_name_is_given():
    with vs("a", "d"):
        gv("v", [])
    with vs("a", "d"):
        E(lambda: gv("v", []))


@row("d_1")
def test_D03_explicit_string_counts():
    with vs("d"):
        pass
    with vs(None, "d") as s:
        P(s.name)


@row("""
d
d_2
""")
def test_D04_explicit_string_equal_to_an_automatic_name_is_skipped():
    with vs("d_1"):
        pass
    with vs(None, "d") as s:
        P(s.name)
    with vs(None, "d") as s:
        P(s.name)


@row("""
a/d
b/d
""")
def test_D05_counts_are_per_parent():
    with vs("a"), vs(None, "d") as s:
        P(s.name)
    with vs("b"), vs(None, "d") as s:
        P(s.name)


@row("""
a/d/v
a/d_1/v
ValueError exists
True
""")
def test_D06_leaving_a_scope_resets_counts_below():
    with vs("a"):
        with vs(None, "d"):
            v = gv("v", [])
            P(nm(v))
        with vs(None, "d"):
            P(nm(gv("v", [])))
    with vs("a"), vs(None, "d"):
        E(lambda: gv("v", []))
    with vs("a", reuse=True), vs(None, "d"):
        P(gv("v", []) is v)


@row("d_1")
def test_D07_counts_at_the_root_are_never_reset():
    with vs(None, "d"):
        pass
    with vs("a"):
        pass
    with vs(None, "d") as s:
        P(s.name)


@row("""
a/d
a/d_1
a/d_2
a/d_2
""")
def test_D08_captured_entry_keeps_counts_and_puts_them_back():
    with vs("a") as a:
        with vs(None, "d") as s:
            P(s.name)
        with vs(None, "d") as s:
            P(s.name)
        with vs(a), vs(None, "d") as s:
            P(s.name)
        with vs(None, "d") as s:
            P(s.name)


@row("""
a/d
a/d_1
a/d
""")
def test_D09_captured_scope_entered_after_it_was_left_restarts():
    with vs("a") as a:
        with vs(None, "d") as s:
            P(s.name)
        with vs(None, "d") as s:
            P(s.name)
    with vs(a), vs(None, "d") as s:
        P(s.name)


@row("d_1/v")
def test_D10_empty_scope_uses_a_number_up():
    with vs(None, "d"):
        pass
    with vs(None, "d"):
        P(nm(gv("v", [])))


@row("d d_1/")
def test_D11_variables_do_not_influence_default_names():
    gv("d", [])
    with vs(None, "d") as s:
        P(s.name, s.original_name_scope)


@row("""
d d_1/
d_1 d_2/
""")
def test_D12_scope_and_op_scope_numbers_are_apart():
    with ns("d"):
        pass
    with vs(None, "d") as s:
        P(s.name, s.original_name_scope)
    with vs(None, "d") as s:
        P(s.name, s.original_name_scope)


@row("""
True
ValueError missing
""")
def test_D13_default_names_under_an_outer_reuse():
    with vs("a") as a, vs(None, "d"):
        v = gv("v", [])
    with vs(a, reuse=True):
        with vs(None, "d"):
            P(gv("v", []) is v)
        with vs(None, "d"):
            E(lambda: gv("v", []))


@row("a_1")
def test_D14_captured_entries_count():
    with vs("a") as a:
        pass
    with vs("p"), vs(a):
        pass
    with vs(None, "a") as s:
        P(s.name)


@row("""
d d/
D D_1/
""")
def test_D15_default_names_compare_with_case():
    with vs(None, "d") as s:
        P(s.name, s.original_name_scope)
    with vs(None, "D") as s:
        P(s.name, s.original_name_scope)


@row("""
a
a/d
""")
def test_D16_multi_part_string_counts_the_whole_only():
    with vs("a/d"):
        pass
    with vs(None, "a") as s:
        P(s.name)
    with vs("a"), vs(None, "d") as s:
        P(s.name)


@row("ab_1")
def test_D17_leaving_a_does_not_reset_ab():
    with vs("ab"):
        pass
    with vs("a"):
        pass
    with vs(None, "ab") as s:
        P(s.name)


@row("a/d")
def test_D18_variable_names_with_slashes_do_not_count():
    gv("a/d/v", [])
    with vs("a"), vs(None, "d") as s:
        P(s.name)


@row("""
d/d
d_1/d
""")
def test_D19_recursion_of_one_default_name():
    with vs(None, "d"), vs(None, "d") as s:
        P(s.name)
    with vs(None, "d"), vs(None, "d") as s:
        P(s.name)


@row("""
KeyError: 'x'
a/d
""")
def test_D20_leaving_by_an_exception_resets_counts():
    def o():
        with vs("a"):
            with vs(None, "d"):
                pass
            raise KeyError("x")

    E(o)
    with vs("a"), vs(None, "d") as s:
        P(s.name)


@row("""
d
d d_1/
""")
def test_D21_names_opened_in_a_re_entered_root_are_forgotten():
    r = cur()
    with vs(r), vs(None, "d") as s:
        P(s.name)
    with vs(None, "d") as s:
        P(s.name, s.original_name_scope)


@row("""
d_1
d_3
d_4
""")
def test_D22_number_is_found_by_trying():
    with vs(None, "d"):
        pass
    with vs("d_2"):
        pass
    for _ in range(3):
        with vs(None, "d") as s:
            P(s.name)


# C: captured scopes ---------------------------------------------------------------------------------------------------


@row("a a/v False")
def test_C01_captured_entry_ignores_the_place():
    with vs("a") as a:
        pass
    with vs("b"), vs(a) as s:
        P(s.name, nm(gv("v", [])), s is a)


@row("b True")
def test_C02_place_of_entry_is_current_again():
    with vs("a") as a:
        pass
    with vs("b") as b:
        with vs(a):
            pass
        P(cur().name, cur() is b)


@row("""
q/a/Add
b/a/Add q/a/
a/Add q/a/
""")
def test_C03_op_scope_of_a_captured_entry_is_below_the_one_in_force():
    with vs("q"), vs("a") as a:
        P(op("Add"))
    with vs("b"), vs(a) as s:
        P(op("Add"), s.original_name_scope)
    with vs(a) as s:
        P(op("Add"), s.original_name_scope)


@row("""
n/a/
n/a/
n/a/
""")
def test_C04_original_name_scope_is_kept_over_captured_entries():
    with ns("n"), vs("a") as a:
        P(a.original_name_scope)
    with vs(a) as b:
        P(b.original_name_scope)
    with vs(b) as c:
        P(c.original_name_scope)


@row("""
a/
a_1/
""")
def test_C05_string_entry_makes_a_new_original_name_scope():
    with vs("a") as a:
        P(a.original_name_scope)
    with vs("a") as a:
        P(a.original_name_scope)


@row("""
'' a/v Add
'o/' o/a/v o/Add
""")
def test_C06_without_the_auxiliary_name_scope():
    with vs("a", auxiliary_name_scope=False) as a:
        P(repr(a.original_name_scope), nm(gv("v", [])), op("Add"))
    with vs("o"), vs("a", auxiliary_name_scope=False) as a:
        P(repr(a.original_name_scope), nm(gv("v", [])), op("Add"))


@row("""
a/Add
a/Add_1
""")
def test_C07_original_op_scope_is_re_entered_without_a_suffix():
    with vs("a") as a:
        P(op("Add"))
    with vs(a, auxiliary_name_scope=False) as s, ns(s.original_name_scope):
        P(op("Add"))


@row("b/ b/Add")
def test_C08_auxiliary_name_scope_is_not_inherited():
    with vs("a", auxiliary_name_scope=False), vs("b") as s:
        P(s.original_name_scope, op("Add"))


@row(
    """
2.0 float64
1.0 float16
1.0 float64
""",
    x64=True,
)
def test_C09_arguments_of_a_captured_entry_override():
    with vs("a", initializer=js.constant_initializer(1.0), dtype=jnp.float64) as a:
        pass
    with vs(a, initializer=js.constant_initializer(2.0)):
        P(val(gv("v", [])), gv("w", []).dtype.name)
    with vs(a, dtype=jnp.float16):
        P(val(gv("x", [])), gv("y", []).dtype.name)
    with vs(a):
        P(val(gv("z", [])), gv("zz", []).dtype.name)


@row("None float32")
def test_C10_captured_scope_carries_its_own_defaults():
    with vs("a") as a:
        pass
    with vs("b", initializer=js.constant_initializer(7.0), dtype=jnp.float16), vs(a):
        P(cur().initializer, gv("v", []).dtype.name)


@row("""
'' v a/Add
v True
False
""")
def test_C11_captured_root_scope():
    r = cur()
    with vs("a"), vs(r) as s:
        P(repr(s.name), nm(gv("v", [])), op("Add"))
    with vs("a"), vs(r, reuse=True):
        P(nm(gv("v", [])), cur().reuse)
    P(r.reuse)


@row("a/c/v")
def test_C12_sub_scope_below_a_captured_entry():
    with vs("a") as a:
        pass
    with vs("b"), vs(a), vs("c"):
        P(nm(gv("v", [])))


@row("True")
def test_C13_copy_is_made_at_entry():
    with vs("a") as a:
        pass
    c = vs(a)
    a.reuse_variables()
    with c:
        P(cur().reuse)


@row("""
a a/Add
a a_1/Add False
""")
def test_C14_one_instance_entered_twice():
    c = vs("a")
    with c as s1:
        P(s1.name, op("Add"))
    with c as s2:
        P(s2.name, op("Add"), s1 is s2)


@row("""
'a/'
'a/'
''
""")
def test_C15_original_name_scope_ends_with_a_slash():
    with vs("a") as a:
        P(repr(a.original_name_scope))
        P(repr(cur().original_name_scope))
    P(repr(cur().original_name_scope))


@row("TypeError")
def test_C16_scope_object_is_no_context_manager():
    with vs("a") as a:
        pass

    def o():
        with a:
            pass

    E(o)


@row("""
True
None
None
""")
def test_C17_constraint_is_not_inherited():
    def k(x):
        return x

    with vs("a", constraint=k) as a:
        P(spec(gv("v", [])).constraint is k)
        with vs("b"):
            P(spec(gv("v", [])).constraint)
    with vs(a):
        P(spec(gv("w", [])).constraint)


@row("True True False")
def test_C18_one_instance_of_a_captured_scope_yields_one_object():
    with vs("a") as a:
        pass
    c = vs(a)
    with c as s1:
        s1.reuse_variables()
    with c as s2:
        P(s1 is s2, s2.reuse, a.reuse)


@row("'a/' a//v q/Add ''")
def test_C19_captured_scope_that_ends_in_a_slash_opens_no_op_scope():
    with vs("a"), vs("") as s:
        pass
    with vs("q"), vs(s) as t:
        P(repr(t.name), nm(gv("v", [])), op("Add"), repr(t.original_name_scope))


@row("o/a o/a/ z/Add")
def test_C20_captured_entry_without_the_auxiliary_name_scope():
    with vs("o"), vs("a") as a:
        pass
    with vs("z"), vs(a, auxiliary_name_scope=False) as s:
        P(s.name, s.original_name_scope, op("Add"))


@row("""
a/b/
b/Add
""")
def test_C21_last_part_of_the_captured_name_is_the_op_scope():
    with vs("a/b") as s:
        P(s.original_name_scope)
    with vs(s):
        P(op("Add"))


@row("""
d_1 d_1/
d_1 d_1_1/Add
""")
def test_C22_captured_default_name_scope():
    with vs(None, "d"):
        pass
    with vs(None, "d") as s:
        P(s.name, s.original_name_scope)
    with vs(s):
        P(cur().name, op("Add"))


@row("""
AUTO Add
a a/a/Add
""")
def test_C23_scope_of_the_current_scope():
    with vs(cur(), reuse=AUTO):
        P(cur().reuse, op("Add"))
    with vs("a"), vs(cur()):
        P(cur().name, op("Add"))


@row("""
True
False
""")
def test_C24_reuse_variables_at_the_root_limited_by_a_scope():
    v = gv("v", [])
    with vs(cur()):
        cur().reuse_variables()
        P(gv("v", []) is v)
    P(cur().reuse)


@row("a True")
def test_C25_default_name_is_ignored_with_a_captured_scope():
    with vs("a") as a:
        pass
    with vs(a, "d", reuse=True) as s:
        P(s.name, s.reuse)


@row("a/v")
def test_C26_scope_captured_in_another_program():
    with vs("a") as a:
        pass
    with js.build(jax.random.key(0)), vs(a):  # TF1: another graph
        P(nm(gv("v", [])))
