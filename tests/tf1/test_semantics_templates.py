"""TF1's semantics, rows Z (leaving scopes, exceptions, graphs, misuse) and M (make_template)."""
# ruff: noqa: N802

import threading

import jax
import jax.numpy as jnp
from tf1_rows import AUTO, E, P, cur, gv, names, nm, op, op_scope, row, val, vs

import jscope as js

KEY = jax.random.key(0)

# Z: leaving scopes, exceptions, graphs, misuse ------------------------------------------------------------------------


@row("""
ValueError missing
'' False ''
""")
def test_Z01_exception_restores_the_scopes():
    def o():
        with vs("a", reuse=True), vs("b"):
            gv("v", [])

    E(o)
    P(repr(cur().name), cur().reuse, repr(op_scope()))


@row("""
RuntimeError nesting
a/b ''
""")
def test_Z02_exit_out_of_order():
    a = vs("a")
    a.__enter__()
    b = vs("b")
    b.__enter__()
    E(lambda: a.__exit__(None, None, None))
    P(cur().name, repr(op_scope()))


@row("""
RuntimeError nesting
aa
''
""")
def test_Z03_exit_out_of_order_and_then_in_order():
    with vs("aa"):
        s = vs("bb")
        s.__enter__()
        with vs("cc"):
            E(lambda: s.__exit__(None, None, None))
        s.__exit__(None, None, None)
        P(cur().name)
    P(repr(cur().name))


@row("TypeError")
def test_Z04_variable_scope_is_no_decorator():
    E(lambda: vs("a")(lambda: 1))


@row("""
''
a
""")
def test_Z05_constructing_a_scope_does_nothing():
    vs("a")
    P(repr(cur().name))
    with vs(None, "a") as s:
        P(s.name)


@row("v False")
def test_Z10_thread_has_a_program_of_its_own():
    v = gv("v", [])

    def f():
        with js.build(KEY):  # TF1: the thread's own default graph
            w = gv("v", [])
            P(nm(w), w is v)

    thread = threading.Thread(target=f)
    thread.start()
    thread.join()


@row("""
'' v
a
""")
def test_Z11_each_program_has_its_own_store_and_scopes():
    gv("v", [])
    with vs("a"):
        with js.build(KEY):  # TF1: another graph
            P(repr(cur().name), nm(gv("v", [])))
        P(cur().name)


@row("False")
def test_Z12_fresh_program_forgets_reuse_at_the_root():
    cur().reuse_variables()
    with js.build(KEY):  # TF1: another graph
        P(cur().reuse)


@row("""
g
''
""")
def test_Z15_generator_keeps_its_scope_open():
    def gen():
        with vs("g"):
            yield

    x = gen()
    next(x)
    P(cur().name)
    x.close()
    P(repr(cur().name))


@row("""
AttributeError
AttributeError
""")
def test_Z16_scope_attributes_are_read_only():
    with vs("a") as s:
        pass
    E(lambda: setattr(s, "reuse", True))
    E(lambda: setattr(s, "name", "x"))


@row("AUTO True True True")
def test_Z17_auto_reuse_is_true_and_one_object():
    P(AUTO, bool(AUTO), AUTO is js.AUTO_REUSE, cur().reuse is False)


# M: templates ---------------------------------------------------------------------------------------------------------


def v():
    return gv("v", [])


@row("""
t/v True
t_1/v
""")
def test_M01_first_call_creates_and_later_calls_share():
    t = js.make_template("t", v)
    a, b = t(), t()
    P(nm(a), a is b)
    u = js.make_template("t", v)
    P(nm(u()))


@row("t/Add t_1/Add t_2/Add")
def test_M02_each_call_opens_an_op_scope():
    t = js.make_template("t", lambda: (v(), op("Add"))[1])
    P(t(), t(), t())


@row("""
a/t/v
a/t/v
""")
def test_M03_scope_is_that_of_the_first_call():
    t = js.make_template("t", v)
    with vs("a"):
        P(nm(t()))
    with vs("b"):
        P(nm(t()))


@row("""
a/t/v
a/t
""")
def test_M04_create_scope_now():
    with vs("a"):
        t = js.make_template("t", v, create_scope_now_=True)
    with vs("b"):
        P(nm(t()))
    P(t.variable_scope.name)


@row("a/t/")
def test_M04_second_column_variable_scope_name():
    with vs("a"):
        t = js.make_template("t", v, create_scope_now_=True)
    P(t.variable_scope_name)


@row("""
u/v u/v
ValueError exists
""")
def test_M05_unique_name_is_used_as_it_is():
    t = js.make_template("t", v, unique_name_="u")
    P(nm(t()), nm(t()))
    s = js.make_template("t", v, unique_name_="u")
    E(lambda: s())


@row("""
t/v1
ValueError missing
""")
def test_M06_later_call_that_asks_for_a_new_variable():
    calls = []

    def f():
        calls.append(1)
        return gv(f"v{len(calls)}", [])

    t = js.make_template("t", f)
    P(nm(t()))
    E(t)


@row("""
t/x
ValueError template_trainable
u/x u_1/x
""")
def test_M07_later_call_that_makes_a_trainable_variable():
    t = js.make_template("t", lambda: js.variable(1.0, name="x"))
    P(nm(t()))
    E(t)
    u = js.make_template("u", lambda: js.variable(1.0, name="x", trainable=False))
    P(nm(u()), nm(u()))


@row("""
KeyError: 'x'
ValueError exists
""")
def test_M08_first_call_that_raises():
    calls = []

    def f():
        made = v()
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("x")
        return made

    t = js.make_template("t", f)
    E(t)
    E(lambda: P(nm(t())))


@row("""
ValueError template_name
(3, 5)
""")
def test_M09_name_none_and_keyword_arguments():
    E(lambda: js.make_template(None, lambda: 1))
    t = js.make_template("t", lambda x, k: (x, k), k=5)
    P(t(3))


@row("t ['t/v', 't/w'] ['t/v'] ['t/v', 't/w'] t")
def test_M10_attributes():
    t = js.make_template("t", lambda: (v(), gv("w", [], trainable=False)))
    t()
    P(t.name, names(t.variables), names(t.trainable_variables), names(t.global_variables), t.variable_scope.name)


@row("t/v_x t/v_x")
def test_M11_custom_getter_of_a_template():
    t = js.make_template(
        "t", v, custom_getter_=lambda getter, name, *args, **kwargs: getter(name + "_x", *args, **kwargs)
    )
    P(nm(t()), nm(t()))


@row("ValueError missing")
def test_M12_template_called_first_under_reuse():
    t = js.make_template("t", v)
    with vs("a", reuse=True):
        E(lambda: t())


@row("o/i/v o/i/v o/i/v")
def test_M13_template_in_another():
    inner = js.make_template("i", v)
    o = js.make_template("o", lambda: inner())
    P(nm(o()), nm(o()), nm(inner()))


@row("t_1/v t/v")
def test_M14_create_scope_now_numbers_at_construction():
    a = js.make_template("t", v, create_scope_now_=True)
    b = js.make_template("t", v, create_scope_now_=True)
    P(nm(b()), nm(a()))


@row("a/t/v float32 2.0 a/u/v float16")
def test_M15_create_scope_now_resets_the_dtype():
    with vs("a", dtype=jnp.float16, initializer=js.constant_initializer(2.0)):
        t, u = js.make_template("t", v, create_scope_now_=True), js.make_template("u", v)
        a, b = t(), u()
        P(nm(a), a.dtype.name, val(a), nm(b), b.dtype.name)


@row("t t/Add t_1/Add")
def test_M16_create_scope_now_opens_no_op_scope():
    with vs("a"):
        t = js.make_template("t", lambda: (v(), op("Add"))[1], create_scope_now_=True)
    P(t.variable_scope.original_name_scope, t(), t())


@row("""
False True
True
AUTO True
""")
def test_M17_flag_of_the_first_and_of_later_calls():
    def f():
        v()
        return cur().reuse

    t = js.make_template("t", f)
    P(t(), t())
    with vs("a", reuse=AUTO):
        P(t())
    u = js.make_template("u", f)
    with vs("a", reuse=AUTO):
        P(u(), u())
