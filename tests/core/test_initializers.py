"""TF1's initializers: their numbers, as TF1 defines them, and what they refuse."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js

KEY = jax.random.key(0)
ALL = [getattr(js, name) for name in js.initializers.__all__]


def sample(initializer, shape=(300, 500), dtype=jnp.float32):
    return np.asarray(initializer(KEY, shape, dtype), np.float64)


@pytest.mark.parametrize("cls", ALL)
def test_are_values(cls):
    one, two = cls(), cls()
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one
    assert type(one).__name__ in repr(one)
    with pytest.raises(AttributeError):
        one.dtype = jnp.float16


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_shape_and_dtype(cls, dtype):
    """Also where JAX mixes no dtypes and widens no ranks."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        value = cls()(KEY, (4, 4), dtype)
    assert (value.shape, value.dtype) == ((4, 4), dtype)


@pytest.mark.parametrize("cls", ALL)
def test_zero_size(cls):
    if cls is js.identity_initializer:
        assert cls()(KEY, (0, 3), jnp.float32).shape == (0, 3)
    else:
        assert js.transform(lambda: js.get_variable("v", [0, 3], initializer=cls())).init(KEY)["v"].shape == (0, 3)


@pytest.mark.parametrize(
    ("initializer", "stddev", "limit"),
    [
        (js.glorot_uniform_initializer(), (6 / 800) ** 0.5 / 3**0.5, (6 / 800) ** 0.5),
        (js.glorot_normal_initializer(), (2 / 800) ** 0.5, 2 * (2 / 800) ** 0.5 / 0.87962566103423978),
        (js.he_normal_initializer(), (2 / 300) ** 0.5, 2 * (2 / 300) ** 0.5 / 0.87962566103423978),
        (js.he_uniform_initializer(), (2 / 300) ** 0.5, (6 / 300) ** 0.5),
        (js.lecun_normal_initializer(), (1 / 300) ** 0.5, 2 * (1 / 300) ** 0.5 / 0.87962566103423978),
        (js.lecun_uniform_initializer(), (1 / 300) ** 0.5, (3 / 300) ** 0.5),
        (js.variance_scaling_initializer(3.0, "fan_out", "uniform"), (3 / 500) ** 0.5, (9 / 500) ** 0.5),
        (js.variance_scaling_initializer(distribution="untruncated_normal"), (1 / 300) ** 0.5, np.inf),
        (js.random_normal_initializer(stddev=0.5), 0.5, np.inf),
        (js.truncated_normal_initializer(stddev=0.5), 0.5 * 0.87962566103423978, 1.0),
        (js.random_uniform_initializer(-2, 2), 2 / 3**0.5, 2.0),
    ],
)
def test_distributions(initializer, stddev, limit):
    values = sample(initializer)
    assert abs(values.std() / stddev - 1) < 0.01
    assert abs(values.mean()) < 0.02 * stddev
    assert abs(values).max() <= limit * (1 + 1e-6)
    if limit < np.inf:
        assert abs(values).max() > 0.98 * limit


@pytest.mark.parametrize(
    ("shape", "limit"),
    [((), 3**0.5), ((50000,), (6 / 100000) ** 0.5), ((5, 5, 40, 60), (6 / (25 * 100)) ** 0.5)],
)
def test_fans_of_other_ranks(shape, limit):
    keys = jax.random.split(KEY, 200 if shape == () else 1)
    values = np.stack([js.glorot_uniform_initializer()(key, shape, jnp.float32) for key in keys])
    assert 0.95 * limit < abs(values).max() <= limit * (1 + 1e-6)


def test_mean_and_seed():
    assert abs(sample(js.random_normal_initializer(mean=3.0)).mean() - 3) < 0.02
    assert (sample(js.random_normal_initializer(seed=1)) != sample(js.random_normal_initializer(seed=2))).all()


def test_integers_from_a_range():
    values = sample(js.random_uniform_initializer(3, 6), dtype=jnp.int32)
    assert set(np.unique(values)) == {3, 4, 5}
    with pytest.raises(js.InitializerError, match="needs a maxval"):
        js.random_uniform_initializer()(KEY, (2,), jnp.int32)


@pytest.mark.parametrize(
    ("initializer", "dtype", "what"),
    [
        (js.random_uniform_initializer(-3e38, 3e38), jnp.float32, "numbers of float32"),
        (js.random_uniform_initializer(0, 1e6), jnp.float16, "numbers of float16"),
        (js.random_uniform_initializer(0, 300), jnp.uint8, "whole numbers of uint8"),
        (js.random_uniform_initializer(-5, 2), jnp.uint8, "whole numbers of uint8"),
        (js.random_uniform_initializer(0.5, 2.5), jnp.int32, "whole numbers of int32"),
        (js.random_uniform_initializer(5, 5), jnp.int32, "whole numbers of int32"),
        (js.random_uniform_initializer(0, 2**40), jnp.int32, "whole numbers of int32"),
        (js.random_uniform_initializer(0, np.inf), jnp.int32, "whole numbers of int32"),
        (js.random_normal_initializer(stddev=1e6), jnp.float16, "float16 can't hold"),
        (js.truncated_normal_initializer(np.nan), jnp.float32, "float32 can't hold"),
        (js.truncated_normal_initializer(mean=1e39), jnp.float32, "float32 can't hold"),
    ],
)
def test_what_a_dtype_does_not_hold_is_not_drawn(initializer, dtype, what):
    net = js.transform(lambda: js.get_variable("v", [2], dtype, initializer))
    calls = [lambda: net.init(KEY), lambda: initializer(KEY, (2,), dtype)]
    for call in calls if dtype == jnp.float32 else [net.specs, *calls]:  # `specs` does not look for ends of float32
        with pytest.raises(js.InitializerError, match=what) as caught:
            call()
        assert caught.value.fix


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: js.random_uniform_initializer("0", 1), "minval"),
        (lambda: js.random_uniform_initializer(0, "1"), "maxval"),
        (lambda: js.random_normal_initializer(stddev="0.1"), "stddev"),
        (lambda: js.truncated_normal_initializer(None), "mean"),
        (lambda: js.variance_scaling_initializer("2"), "scale"),
        (lambda: js.variance_scaling_initializer(None), "scale"),
    ],
)
def test_what_is_no_number_is_refused(make, name):
    with pytest.raises(js.BadArgumentError, match=f"{name}="):
        js.transform(lambda: js.get_variable("v", [2], initializer=make())).specs()


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (1, np.float32(0)), (0.0, np.nan), (0, 1j)])
def test_bounds_are_in_order(low, high):
    with pytest.raises(js.BadArgumentError, match="can't draw from"):
        js.random_uniform_initializer(low, high)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(jnp.uint8, 254, 256), (jnp.int8, -128, -126), (jnp.uint32, 2**32 - 3, 2**32 - 1)],
)
def test_bounds_at_the_ends_of_a_dtype(dtype, low, high):
    found = js.random_uniform_initializer(low, high)(KEY, (50,), dtype)
    assert set(np.asarray(found).tolist()) == {low, low + 1}


def test_bounds_may_be_the_same_or_traced():
    assert js.random_uniform_initializer(2.0, 2.0)(KEY, (2,)).tolist() == [2, 2]
    traced = jax.jit(lambda high: js.random_uniform_initializer(0.0, high)(KEY, (2,)))
    assert (traced(0.5) < 0.5).all()


def test_constants():
    ci = js.constant_initializer
    assert ci(3.0)(None, (2,)).tolist() == [3, 3]
    assert ci([1.0, 2.0, 3.0, 4.0])(None, (2, 2)).tolist() == [[1, 2], [3, 4]]
    assert ci([1.0, 2.0])(None, (3,)).tolist() == [1, 2, 2]
    assert ci(3)(None, (2,), jnp.int32).tolist() == [3, 3]
    assert ci(True)(None, (2,), jnp.bool_).tolist() == [True, True]
    assert ci(np.ones((2, 2)), verify_shape=True)(None, (2, 2)).shape == (2, 2)
    assert ci([1, 2]) == ci(np.array([1, 2])) != ci([1, 3])
    assert ci(1) != ci(1.0)
    bad = [(3.0, jnp.int32), (1, jnp.bool_), (300, jnp.int8)]
    for value, dtype in [*bad, (2**40, jnp.int32), (2j, jnp.float32), (1.5, jnp.int4)]:
        with pytest.raises(TypeError):
            ci(value)(None, (2,), dtype)
    with pytest.raises(TypeError, match="verify_shape"):
        ci([1.0, 2.0], verify_shape=True)(None, (3,))


@pytest.mark.parametrize(
    ("value", "dtype", "told"),
    [(1, jnp.bool_, "int32"), (1.0, jnp.bool_, "float32"), (1.5, jnp.int32, "float32"), (1j, jnp.float32, "complex64")],
)
def test_the_dtype_that_is_told_for_a_constant_takes_it(value, dtype, told):
    initializer = js.constant_initializer(value)
    with pytest.raises(js.BadInitialValueTypeError) as caught:
        js.transform(lambda: js.get_variable("v", [2], dtype, initializer)).init(KEY)
    assert caught.value.fix == f"give a value of that dtype, or ask for dtype {told}"
    made = js.transform(lambda: js.get_variable("v", [2], told, initializer)).init(KEY)["v"]
    assert made.tolist() == [value, value]
    with pytest.raises(js.BadInitialValueTypeError) as caught:  # no dtype has it, without JAX's 64 bits
        js.constant_initializer(2**40)(KEY, (2,), jnp.int32)
    assert caught.value.fix == "give a value of that dtype"


@pytest.mark.parametrize("value", [2**40, 2**63, [1, 2**40]])
def test_numbers_that_do_not_fit(value):
    with js.build(KEY), pytest.raises(TypeError, match="can't be held by dtype int32"):
        js.get_variable("v", initializer=value)
    with js.build(KEY), pytest.raises(TypeError, match="can't be held by dtype int32"):
        js.variable(1.7, dtype="int32")
    with js.build(KEY):
        count = js.get_variable("n", [], jnp.int32)
        with pytest.raises(TypeError, match="can't be held by dtype int32"):
            js.assign(count, 1.5)


@pytest.mark.parametrize("value", [jax.random.key(3), np.float32("nan"), np.array([np.nan, 1], np.float32)])
def test_given_values_compare_by_their_bytes(value):
    net = js.transform(lambda: js.get_variable("v", initializer=value))
    specs = net.specs()
    assert specs == net.specs()
    assert "v" in str(specs)
    made = net.init(KEY)["v"]
    assert (made.shape, made.dtype) == (value.shape, value.dtype)
    assert net.apply({"v": made}) is made
    zero, minus = (js.transform(lambda z=z: js.get_variable("v", initializer=z)).specs() for z in (0.0, -0.0))
    assert zero != minus


def test_a_constant_is_a_copy():
    array = np.ones(2, np.float32)
    specs = js.transform(
        lambda: (js.get_variable("a", initializer=array), js.get_variable("b", [2], initializer=constant))
    )
    constant = js.constant_initializer(array)
    specs = specs.specs()
    array[:] = 5
    assert specs.init(KEY).map_with_name(lambda _, leaf: leaf.tolist()).flat() == {"a": [1, 1], "b": [1, 1]}


def test_matrices():
    q = sample(js.orthogonal_initializer(2.0), (3, 4, 20))
    flat = q.reshape(12, 20)
    np.testing.assert_allclose(flat @ flat.T, 4 * np.eye(12), atol=1e-5)
    assert sample(js.identity_initializer(3.0), (2, 3)).tolist() == [[3, 0, 0], [0, 3, 0]]
    for cls in (js.orthogonal_initializer, js.identity_initializer):
        with pytest.raises(js.InitializerError, match="dimensions"):
            cls()(KEY, (3,), jnp.float32)


@pytest.mark.parametrize("arguments", [{"scale": 0}, {"mode": "fan"}, {"distribution": "gamma"}])
def test_bad_arguments(arguments):
    with pytest.raises(js.BadArgumentError, match=next(iter(arguments))):
        js.variance_scaling_initializer(**arguments)


def test_draws_need_a_floating_dtype():
    with pytest.raises(js.InitializerError, match="draws floating numbers, not int32"):
        js.transform(lambda: js.get_variable("v", [2], jnp.int32, js.he_normal_initializer())).specs()


SMALL = {8: jnp.float8_e4m3fn, 4: jnp.float4_e2m1fn}
POWERS = jnp.float8_e8m0fnu  # which has neither zero nor sign


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2fnuz, jnp.float4_e2m1fn])
@pytest.mark.parametrize(
    "initializer",
    [
        js.random_normal_initializer(),
        js.random_uniform_initializer(),
        js.truncated_normal_initializer(),
        js.glorot_normal_initializer(),
    ],
    ids=lambda initializer: type(initializer).__name__,
)
def test_draws_of_eight_bits_and_fewer_are_numbers(initializer, dtype):
    values = initializer(KEY, (30, 50), dtype)
    assert values.dtype == dtype
    wide = np.asarray(values, np.float32)
    assert np.isfinite(wide).all()
    np.testing.assert_array_equal(wide, np.asarray(initializer(KEY, (30, 50)).astype(dtype), np.float32))


@pytest.mark.parametrize(
    ("initializer", "dtype", "error"),
    [
        (None, POWERS, js.InitializerError),
        (js.zeros_initializer(), POWERS, js.InitializerError),
        (js.identity_initializer(), POWERS, js.InitializerError),
        (js.orthogonal_initializer(), POWERS, js.InitializerError),
        (js.constant_initializer([1.0, -1.0]), POWERS, js.BadInitialValueTypeError),
        (js.constant_initializer(1000), SMALL[8], js.BadInitialValueTypeError),
        (js.constant_initializer(np.inf), SMALL[8], js.BadInitialValueTypeError),
        (js.constant_initializer(7.0), SMALL[4], js.BadInitialValueTypeError),
        (js.constant_initializer("a"), jnp.float32, js.BadInitialValueTypeError),
        (js.random_uniform_initializer(), jnp.complex64, js.InitializerError),
        (js.truncated_normal_initializer(), jnp.complex64, js.InitializerError),
    ],
)
def test_what_a_dtype_does_not_have_is_refused(initializer, dtype, error):
    net = js.transform(lambda: js.get_variable("v", [2, 2], dtype, initializer))
    for call in (net.specs, lambda: net.init(KEY)):
        with pytest.raises(error, match=np.dtype(dtype).name) as caught:
            call()
        assert caught.value.fix
    with pytest.raises(error):
        (initializer or js.glorot_uniform_initializer())(KEY, (2, 2), dtype)


def test_what_a_dtype_of_eight_bits_has_is_taken():
    for value, dtype in ((4.0, POWERS), (np.nan, POWERS), (-448, SMALL[8]), (np.inf, jnp.float8_e5m2), (6, SMALL[4])):
        found = js.constant_initializer(value)(KEY, (2,), dtype)
        np.testing.assert_array_equal(np.asarray(found, np.float32), np.float32(value))
    assert js.ones_initializer()(KEY, (2,), POWERS).tolist() == [1, 1]
    assert js.zeros_initializer()(KEY, (2,), SMALL[8]).tolist() == [0, 0]
    with js.build(KEY), pytest.raises(TypeError, match="can't be held by dtype float8_e8m0fnu"):
        js.variable(0.0, dtype=POWERS)


def test_initializers_are_equal_by_type_and_values():
    assert js.zeros_initializer() == js.zeros_initializer()
    assert js.zeros_initializer() != js.ones_initializer()  # the same fields
    assert js.glorot_uniform_initializer() != js.variance_scaling_initializer(1.0, "fan_avg", "uniform")
    assert js.glorot_uniform_initializer(1) != js.glorot_uniform_initializer(2)
    assert js.constant_initializer([1, 2]) == js.constant_initializer(np.array([1, 2])) != js.constant_initializer([1])
    assert len({js.zeros_initializer(), js.zeros_initializer(), js.ones_initializer()}) == 2
