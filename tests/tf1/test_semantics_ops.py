"""TF1's semantics, rows O (op names and tf.name_scope) and V (tf.Variable)."""
# ruff: noqa: N802

import jax
import jax.numpy as jnp
import numpy as np
from tf1_rows import LOSSES, E, P, cur, gv, names, nm, ns, op, op_scope, row, vs

import jscope as js

# O: op names ----------------------------------------------------------------------------------------------------------


@row("""
variable_name/add
variable_name_1/add
variable_name_2/add
""")
def test_O01_variable_scope_opens_an_op_scope():
    with vs("variable_name"):
        gv("v", [1])
        P(op("add"))
    for _ in range(2):
        with vs("variable_name", reuse=True):
            gv("v", [1])
            P(op("add"))


@row("op_name/v op_name/name_scope/add")
def test_O02_name_scope_does_not_name_variables():
    with vs("op_name"), ns("name_scope"):
        P(nm(gv("v", [1])), op("add"))


@row("""
add add_1
a/add a/add_1
""")
def test_O03_several_ops_of_one_kind():
    gv("v", [1])
    P(op("add"), op("add"))
    with vs("a"):
        P(op("add"), op("add"))


@row("n/ n_1/ n_2/n/")
def test_O04_name_scope_entered_twice():
    with ns("n") as a:
        pass
    with ns("n") as b:
        pass
    with ns("n"), ns("n") as c:
        pass
    P(a, b, c)


@row("""
n/ n/c
 c
'' c_1
""")
def test_O05_absolute_name_scopes():
    with ns("n") as a:
        pass
    with ns("m"):
        with ns(a) as b:
            P(b, op("c"))
        with ns(None) as c:
            P(c, op("c"))
        with ns("") as d:
            P(repr(d), op("c"))


@row("a n/a/ a/v n/a/Add")
def test_O06_name_scope_around_variable_scope():
    with ns("n"), vs("a") as s:
        P(s.name, s.original_name_scope, nm(gv("v", [])), op("Add"))


@row("""
a a_1/
b b_1/
c c_1/
""")
def test_O07_scopes_ops_and_variables_share_the_op_names():
    with ns("a"):
        pass
    with vs("a") as s:
        P(s.name, s.original_name_scope)
    op("b")
    with vs("b") as s:
        P(s.name, s.original_name_scope)
    gv("c", [])
    with vs("c") as s:
        P(s.name, s.original_name_scope)


@row("""
a/
A A_1/
""")
def test_O08_op_scopes_compare_without_case():
    with vs("a") as s:
        P(s.original_name_scope)
    with vs("A") as s:
        P(s.name, s.original_name_scope)


@row("""
x/y/
x/
x_1/y/
""")
def test_O09_implied_parent_is_not_in_use():
    with vs("x/y") as s:
        P(s.original_name_scope)
    with vs("x") as s:
        P(s.original_name_scope)
    with vs("x"), vs("y") as s:
        P(s.original_name_scope)


def test_O12_reusing_a_variable_creates_no_op():
    def program(reads):
        gv("v", [2])
        cur().reuse_variables()
        for _ in range(reads):
            gv("v", [2])

    params = {"v": jnp.ones(2)}
    once, often = (jax.make_jaxpr(lambda p, n=n: js.transform(program).apply(p, n))(params) for n in (0, 3))
    assert len(often.eqns) - len(once.eqns) == 0


@row("a/k a/k_1")
def test_O13_op_of_an_explicit_name():
    with vs("a"):
        P(op("k"), op("k"))


@row("a_1/ a/ a_2/")
def test_O15_taken_numbers_are_skipped():
    with ns("a_1") as x:
        pass
    with ns("a") as y:
        pass
    with ns("a") as z:
        pass
    P(x, y, z)


@row("['a/', 'a_1/', 'a_1_1/', 'a_2/', 'a_1_2/']")
def test_O16_numbers_beside_a_scope_of_a_numbered_name():
    out = []
    for name in ["a", "a", "a_1", "a", "a_1"]:
        with ns(name) as s:
            out.append(s)
    P(out)


@row("'dn/' 'dn_1/' ''")
def test_O17_name_scope_with_a_default_name():
    with ns(None, "dn") as a:
        pass
    with ns(None, "dn") as b:
        pass
    with ns("q"), ns(None) as c:
        pass
    P(repr(a), repr(b), repr(c))


@row("""
ValueError bad_name
ValueError bad_name
''
""")
def test_O18_bad_name_scopes_change_nothing():
    def o(name):
        with ns(name):
            pass

    E(lambda: o("a b"))
    E(lambda: o("_a"))
    P(repr(op_scope()))


@row("a/Add_1")
def test_O19_original_name_scope_is_re_entered_from_anywhere():
    with vs("a") as a:
        op("Add")
    with ns("z"), ns(a.original_name_scope):
        P(op("Add"))


@row("""
a
a_1/a
a_2
""")
def test_O20_op_and_scope_names_share_one_namespace():
    P(op("a"))
    with vs("a"):
        P(op("a"))
    P(op("a"))


# V: tf.Variable -------------------------------------------------------------------------------------------------------


@row("x_scalar x_scalar_1")
def test_V01_variable_never_shares():
    P(nm(js.variable(3, name="x_scalar")), nm(js.variable(3, name="x_scalar")))


@row("Variable Variable_1")
def test_V02_default_name():
    P(nm(js.variable(1.0)), nm(js.variable(1.0)))


@row("""
a/x
a_1/x
n/x
b/n/x
""")
def test_V03_op_scope_is_the_prefix():
    with vs("a"):
        P(nm(js.variable(1.0, name="x")))
    with vs("a"):
        P(nm(js.variable(1.0, name="x")))
    with ns("n"):
        P(nm(js.variable(1.0, name="x")))
    with vs("b"), ns("n"):
        P(nm(js.variable(1.0, name="x")))


@row("""
a/x float32
['a/x'] ['a/x'] []
""")
def test_V04_scope_settings_do_not_matter():
    with vs("a", reuse=True, dtype=jnp.float16, regularizer=jnp.sum):
        v = js.variable(1.0, name="x")
        P(nm(v), v.dtype.name)
    P(names(js.global_variables()), names(js.trainable_variables()), js.get_collection(LOSSES))


@row("""
v v_1
True
""")
def test_V05_get_variable_after_variable():
    a = js.variable(1.0, name="v")
    b = gv("v", [])
    P(nm(a), nm(b))
    cur().reuse_variables()
    P(gv("v", []) is b)


@row("v v_1 v_1_1")
def test_V06_variable_after_get_variable():
    a = gv("v", [])
    b = js.variable(1.0, name="v")
    c = gv("v_1", [])
    P(nm(a), nm(b), nm(c))


@row("int32 float32 float64 bool", x64=True)
def test_V07_dtype_follows_the_value():
    P(*(js.variable(value).dtype for value in (3, 3.0, np.array([1.0]), True)))


@row("add_function add_function_1")
def test_V10_op_of_an_explicit_name_at_the_root():
    js.variable(3, name="x")
    P(op("add_function"), op("add_function"))


@row("x")
def test_V11_variable_without_the_auxiliary_name_scope():
    with vs("a", auxiliary_name_scope=False):
        P(nm(js.variable(1.0, name="x")))


@row("""
a/x
a_1/x
""")
def test_V12_variable_in_a_captured_entry():
    with vs("a") as a:
        P(nm(js.variable(1.0, name="x")))
    with vs(a):
        P(nm(js.variable(1.0, name="x")))
