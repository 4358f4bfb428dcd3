"""TF1's semantics, rows I (initializers), T (dtypes) and G (regularizers)."""
# ruff: noqa: N802

import jax
import jax.numpy as jnp
import numpy as np
from tf1_rows import LOSSES, E, P, cur, gv, names, nm, row, spec, val, vs

import jscope as js

ci = js.constant_initializer


def loss(scale=1.0):
    return lambda t: jnp.sum(t) * scale


# I: initializers ------------------------------------------------------------------------------------------------------


@row("""
[] True
[4] True
[3, 5] True
[2, 3, 4] True
[2, 2, 3, 4] True
0.0866 0.0866 0.05 0.05
0.00775 0.00775
True
0.049 0.049
""")
def test_I01_floats_start_glorot_uniform():
    def limit(fan_in, fan_out):
        return (6 / (fan_in + fan_out)) ** 0.5

    fans = [([], 1, 1), ([4], 4, 4), ([3, 5], 3, 5), ([2, 3, 4], 6, 8), ([2, 2, 3, 4], 12, 16)]
    for shape, fan_in, fan_out in fans:  # TensorFlow's row prints the largest value it happened to draw
        most = limit(fan_in, fan_out)
        P(shape, val(gv(f"v{len(shape)}", shape), lambda x, most=most: bool(0 < np.abs(x).max() <= most)))
    big, exact = gv("big", [300, 500]), (6 / 800) ** 0.5
    largest = val(big, lambda x: round(float(np.abs(x).max()), 4))
    P(largest, round(exact, 4), val(big, lambda x: round(float(x.std()), 3)), round(exact / 3**0.5, 3))
    P(val(gv("big1", [50000]), lambda x: round(float(np.abs(x).max()), 5)), round((6 / 100000) ** 0.5, 5))
    scalars = jnp.stack([gv(f"s{i}", []) for i in range(60)])
    P(val(scalars, lambda x: bool(1.4 < np.abs(x).max() <= 3**0.5)))
    P(val(gv("big4", [5, 5, 40, 60]), lambda x: round(float(np.abs(x).max()), 4)), round(limit(25 * 40, 25 * 60), 4))


@row(
    """
int8 [0, 0]
uint8 [0, 0]
int16 [0, 0]
int32 [0, 0]
int64 [0, 0]
bool [False, False]
""",
    x64=True,
)
def test_I02_integers_and_bools_start_at_zero():
    for dtype in ("int8", "uint8", "int16", "int32", "int64", "bool"):  # JAX has no strings
        P(dtype, val(gv("v_" + dtype, [2], dtype=dtype), np.ndarray.tolist))


@row(
    """
float16 True
bfloat16 True
float64 True
ValueError no_default_init
""",
    x64=True,
)
def test_I03_default_initializer_by_dtype():
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float64):
        v = gv("v_" + jnp.dtype(dtype).name, [2], dtype=dtype)
        P(v.dtype, spec(v).initializer == js.glorot_uniform_initializer())
    E(lambda: gv("c", [2], dtype=jnp.complex64))  # JAX has no qint8 and no resource


@row("""
[0.4] [0.3]
[0.4]
[0.2]
[0.4]
""")
def test_I04_scope_initializer_is_inherited():
    with vs("s", initializer=ci(0.4)):
        P(val(gv("v", [1])), val(gv("w", [1], initializer=ci(0.3))))
        with vs("t"):
            P(val(gv("v", [1])))
        with vs("u", initializer=ci(0.2)):
            P(val(gv("v", [1])))
        P(val(gv("x", [1])))


@row("[0. 0.] [1. 1.]")
def test_I05_initializer_class_is_instantiated():
    P(val(gv("a", [2], initializer=js.zeros_initializer)), val(gv("b", [2], initializer=js.ones_initializer())))


@row("(2,) int64 [1 2]", x64=True)
def test_I06_array_sets_shape_and_dtype():
    v = gv("a", initializer=jnp.array([1, 2], jnp.int64))
    P(v.shape, v.dtype.name, val(v))


@row(
    """
(1, 2) float64
int8
""",
    x64=True,
)
def test_I07_numpy_array_keeps_its_dtype():
    v = gv("a", initializer=np.array([[1.0, 2.0]]))
    P(v.shape, v.dtype.name)
    v = gv("b", initializer=np.array([1, 2], np.int8))
    P(v.dtype.name)


@row("""
float32 int32 (2,) bool
float32
""")
def test_I08_python_values_ignore_the_scope_dtype():
    a, b, d = (gv(name, initializer=value) for name, value in (("a", 1.5), ("b", 4), ("d", True)))
    P(a.dtype.name, b.dtype.name, gv("c", initializer=[1.0, 2.0]).shape, d.dtype.name)
    with vs("s", dtype=jnp.float16):
        P(gv("a", initializer=1.5).dtype.name)


@row(
    """
int32
ValueError init_dtype
int64
ValueError init_dtype
""",
    x64=True,
)
def test_I09_constant_and_explicit_dtype():
    E(lambda: P(gv("a", initializer=4, dtype=jnp.int32).dtype))
    E(lambda: P(gv("b", initializer=4, dtype=jnp.float32).dtype))
    E(lambda: P(gv("c", initializer=np.array([1, 2, 3]), dtype=jnp.int64).dtype))
    E(lambda: P(gv("d", initializer=1.5, dtype=jnp.float16).dtype))


@row("""
(1,) int32
(1,) float32
""")
def test_I10_callable_without_arguments_sets_shape_and_dtype():
    v = gv("a", initializer=lambda: [2])
    P(v.shape, v.dtype.name)
    v = gv("b", initializer=lambda x=True: jnp.array([2.5]))
    P(v.shape, v.dtype.name)


@row("TypeError init_value")
def test_I11_callable_without_arguments_and_a_shape():
    E(lambda: gv("a", [1], initializer=lambda: [2.0]))


@row("""
ValueError bad_init
ValueError bad_init
""")
def test_I12_callable_with_arguments_and_no_shape():
    E(lambda: gv("a", initializer=lambda key, shape, dtype: jnp.zeros(shape)))
    E(lambda: gv("b", initializer=ci(1.0)))


def test_I13_what_a_callable_receives():
    """TF1: a list as shape, the dtype, and partition_info on request; here JAX's protocol, init(key, shape, dtype)."""
    calls = []

    def program():
        def f(key, shape, dtype=None):
            calls.append(("f", shape, dtype))
            return jnp.ones(shape, dtype)

        def g(key, shape, dtype):
            calls.append(("g", shape, dtype))
            return jnp.ones(shape, dtype)

        gv("a", [2, 3], initializer=f)
        gv("b", [2], jnp.float16, initializer=g)
        gv("c", np.array([2]), initializer=f)

    expected = [("f", (2, 3), jnp.float32), ("g", (2,), jnp.float16), ("f", (2,), jnp.float32)]
    net = js.transform(program)
    net.specs()
    assert calls == expected
    calls.clear()
    with js.build(jax.random.key(0)) as built:
        program()
    assert calls == expected
    calls.clear()
    net.apply(built.params)
    assert calls == []  # the values are given


@row("""
ValueError init_value
ValueError init_value
""")
def test_I14_callable_that_returns_another_shape_or_dtype():
    E(lambda: gv("a", [2], initializer=lambda key, shape, dtype: jnp.ones([3])))
    E(lambda: P(gv("b", [2], initializer=lambda key, shape, dtype: jnp.ones([2], jnp.int32)).dtype))


@row("""
() 0.1
ValueError const_shape
""")
def test_I15_constant_as_scope_initializer():
    with vs("s", initializer=jnp.array(0.1)):
        P(gv("v").shape, val(gv("w")))
        E(lambda: gv("x", [1]))


@row("float32", x64=True)
def test_I16_constant_scope_initializer_is_not_checked_against_dtype():
    with vs("s", initializer=jnp.array(0.1, jnp.float32)):
        P(gv("v", dtype=jnp.float64).dtype)


@row("""
[3. 3.] [[1.0, 2.0], [3.0, 4.0]]
[1. 2. 2.]
ValueError init_value
""")
def test_I17_constant_initializer_fills_and_reshapes():
    a, b = gv("a", [2], initializer=ci(3.0)), gv("b", [2, 2], initializer=ci([1.0, 2.0, 3.0, 4.0]))
    P(val(a), val(b, np.ndarray.tolist))
    E(lambda: P(val(gv("c", [3], initializer=ci([1.0, 2.0])))))
    E(lambda: gv("d", [1], initializer=ci([1.0, 2.0])))


@row("""
[3 3]
TypeError init_value
TypeError init_value
""")
def test_I18_float_constant_for_an_integer_dtype():
    E(lambda: P(val(gv("a", [2], dtype=jnp.int32, initializer=ci(3)))))
    E(lambda: P(val(gv("b", [2], dtype=jnp.int32, initializer=ci(3.0)))))
    E(lambda: P(val(gv("b", [2], dtype=jnp.int32, initializer=ci(3.7)))))


@row("""
2.0
None
""")
def test_I19_set_initializer():
    with vs("a"):
        cur().set_initializer(ci(2.0))
        P(val(gv("v", [])))
    P(cur().initializer)


@row("2.0")
def test_I20_inherited_initializer_cannot_be_switched_off():
    with vs("a", initializer=ci(2.0)), vs("b", initializer=None):
        P(val(gv("v", [], initializer=None)))


@row("(2,) [1. 1.]")
def test_I21_value_of_another_variable_as_initializer():
    a = gv("a", [2], initializer=js.ones_initializer())
    b = gv("b", initializer=a)
    P(b.shape, val(b))


# T: dtypes ------------------------------------------------------------------------------------------------------------


@row(
    """
float32
float16
float16 int32
float64
float32
""",
    x64=True,
)
def test_T01_scope_dtype_is_inherited():
    P(gv("v", [1]).dtype.name)
    with vs("a", dtype=jnp.float16):
        P(gv("v", [1]).dtype.name)
        with vs("b"):
            P(gv("v", [1]).dtype.name, gv("w", [1], jnp.int32).dtype.name)
        with vs("c", dtype=jnp.float64):
            P(gv("v", [1]).dtype.name)
    P(cur().dtype.name)


@row("ValueError dtype_mismatch")
def test_T02_scope_dtype_is_compared_under_reuse():
    with vs("a"):
        gv("v", [1])
    with vs("a", reuse=True, dtype=jnp.float16):
        E(lambda: gv("v", [1]))


@row("float16 float16")
def test_T03_scope_dtype_as_a_string():
    with vs("a", dtype="float16"):
        P(cur().dtype, gv("v", [1]).dtype)


@row("int32")
def test_T04_set_dtype():
    with vs("a"):
        cur().set_dtype(jnp.int32)
        P(gv("v", [1]).dtype.name)


@row("[2 2]")
def test_T05_integer_scope_dtype_with_a_constant_initializer():
    with vs("a", dtype=jnp.int32, initializer=ci(2)):
        P(val(gv("v", [2])))


@row("float16")
def test_T06_dtype_none_inherits():
    with vs("a", dtype=np.dtype("float16")), vs("b", dtype=None):
        P(cur().dtype.name)


@row("""
ValueError dtype_mismatch
True
""")
def test_T07_constant_without_dtype_is_compared_with_the_scope_default():
    v = gv("v", initializer=jnp.array(1))
    cur().reuse_variables()
    E(lambda: gv("v", initializer=jnp.array(1)))
    P(gv("v", initializer=jnp.array(1), dtype=jnp.int32) is v)


# G: regularizers. They are called when losses are asked for, not when the variable is made. ---------------------------


@row("1 1.0")
def test_G01_regularizer_adds_one_loss():
    with vs("a", regularizer=loss(0.5)):
        gv("v", [2], initializer=js.ones_initializer())
    losses = js.get_collection(LOSSES)
    P(len(losses), val(losses[0]))


@row("1")
def test_G02_reuse_adds_no_loss():
    with vs("a", regularizer=loss(0.5)):
        gv("v", [2])
    with vs("a", regularizer=loss(0.5), reuse=True):
        gv("v", [2], regularizer=loss(0.5))
    P(len(js.get_collection(LOSSES)))


@row("[1.0, 1.0, 3.0, 4.0, 5.0]")
def test_G03_regularizer_is_inherited():
    with vs("a", regularizer=loss(1.0), initializer=js.ones_initializer()):
        gv("v", [])
        with vs("b"):
            gv("v", [])
        with vs("c", regularizer=loss(3.0)):
            gv("v", [])
        gv("w", [], regularizer=loss(4.0))
        gv("x", [], regularizer=js.no_regularizer)
        with vs("d", regularizer=js.no_regularizer):
            gv("v", [])
            gv("w", [], regularizer=loss(5.0))
    P([val(each, float) for each in js.get_collection(LOSSES)])


@row("[]")
def test_G04_regularizer_that_returns_none():
    gv("v", [], regularizer=lambda t: None)
    P(js.get_collection(LOSSES))


@row("""
0
1
""")
def test_G05_how_often_a_regularizer_is_called():
    calls = []

    def r(t):
        calls.append(1)
        return jnp.sum(t)

    gv("v", [], regularizer=r)
    P(len(calls))  # TensorFlow: 2
    js.get_regularization_losses()
    P(len(calls))


@row("0")
def test_G06_regularizer_of_a_reusing_call_is_ignored():
    gv("v", [])
    cur().reuse_variables()
    gv("v", [], regularizer=loss())
    P(len(js.get_collection(LOSSES)))


@row("1")
def test_G07_variables_that_are_not_trainable_are_regularized():
    gv("v", [], trainable=False, regularizer=loss())
    P(len(js.get_collection(LOSSES)))


@row("2 1 5.0")
def test_G08_losses_by_scope_and_their_sum():
    with vs("a", regularizer=loss(), initializer=js.ones_initializer()):
        gv("v", [2])
    with vs("b", regularizer=loss(), initializer=js.ones_initializer()):
        gv("v", [3])
    P(len(js.get_regularization_losses()), len(js.get_regularization_losses("a/")), val(js.get_regularization_loss()))


@row("1")
def test_G09_set_regularizer():
    with vs("a"):
        gv("u", [])
        cur().set_regularizer(loss())
        gv("v", [])
    P(len(js.get_collection(LOSSES)))


@row("a/v (2,)")
def test_G10_regularizer_sees_the_variable():
    def r(t):
        P(nm(t), t.shape)

    with vs("a"):
        gv("v", [2], regularizer=r)
    js.get_regularization_losses()


@row("""
TypeError bad_regularizer
['v']
ValueError exists
""")
def test_G12_regularizer_that_is_not_callable():
    E(lambda: gv("v", [2], regularizer=3))
    P(names(js.global_variables()))
    E(lambda: gv("v", [2]))


@row("""
['v']
v
KeyError: 'mine'
""")
def test_G13_regularizer_that_raises():
    def bad(t):
        raise KeyError("mine")

    gv("v", [2], regularizer=bad)  # TensorFlow: raises here, and the variable exists nevertheless
    P(names(js.global_variables()))
    with vs("", reuse=True):
        P(nm(gv("v")))
    E(js.get_regularization_losses)


@row("[1.0, 3.0]")
def test_G14_regularizer_of_a_captured_entry():
    with vs("a", regularizer=loss(1.0), initializer=js.ones_initializer()) as a:
        pass
    with vs("b", regularizer=loss(2.0)):
        with vs(a):
            gv("v", [])
        with vs(a, regularizer=loss(3.0)):
            gv("w", [])
    P([val(each, float) for each in js.get_collection(LOSSES)])
