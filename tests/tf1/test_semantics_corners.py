"""TF1's semantics in corners that no recorded row shows. Expected is what tf.compat.v1 of TensorFlow 2.21 does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import jscope as js

KEY = jax.random.key(0)


def names_of(program):
    """The names that a program declares, in each mode and also in later runs."""
    net = js.transform(program)
    found = [list(net.specs()) for _ in range(3)]
    params = net.init(KEY)
    for _ in range(3):
        net.apply(params)
    with js.build(KEY) as built:
        program()
    assert found[0] == found[1] == found[2] == list(built.specs)
    return found[0]


def get(name="v", *args, **kwargs):
    return js.get_variable(name, [], *args, **kwargs)


class TestGetters:
    """They are called at the op root, and what they open there is part of the name."""

    def test_what_a_getter_makes_is_named_from_the_root(self):
        def getter(getter, name, **kwargs):
            js.variable(1.0, name="x")
            return getter(name, **kwargs)

        def program():
            with js.variable_scope("a", custom_getter=getter):
                get()
                js.variable(1.0, name="y")

        assert names_of(program) == ["x", "a/v", "a/y"]

    def test_an_op_scope_that_a_getter_opens(self):
        def getter(getter, name, **kwargs):
            with js.name_scope("n"):
                return getter(name, **kwargs)

        def program():
            with js.variable_scope("a", custom_getter=getter):
                get()
                get("w")

        assert names_of(program) == ["n/a/v", "n_1/a/w"]
        with js.build(KEY) as built:
            program()
        assert [spec.key for spec in built.specs.values()] == ["a/v", "a/w"]

    def test_a_getter_that_raises_leaves_the_op_scope(self):
        def getter(getter, name, **kwargs):
            raise KeyError(name)

        with js.build(KEY) as built, js.variable_scope("a"):
            with pytest.raises(KeyError):
                get(custom_getter=getter)
            js.variable(1.0, name="y")
            assert list(built.specs) == ["a/y"]


class TestTemplates:
    def test_one_that_calls_itself_shares_its_variables(self):
        def program():
            def function(depth):
                v = get()
                return v if depth == 0 else template(depth - 1)

            template = js.make_template("t", function)
            template(2)
            template(1)

        assert names_of(program) == ["t/v"]

    def test_a_first_call_that_fails_is_no_first_call(self):
        def program():
            def function():
                get()
                if len(calls) < 2:
                    raise KeyError

            calls = []
            template = js.make_template("t", function)
            for _ in range(2):
                calls.append(1)
                try:
                    template()
                except (KeyError, ValueError) as error:
                    raised.append(type(error))

        raised = []
        with js.build(KEY):
            program()
        assert raised == [KeyError, js.VariableExistsError]

    def test_one_that_was_not_called_has_no_variables(self):
        with js.build(KEY):
            with js.variable_scope("d"):
                get()
            template = js.make_template("a", get, create_scope_now_=True, unique_name_="d")
            assert template.variables == []
            with pytest.raises(js.VariableExistsError):
                template()
            assert template.variables == []


class TestNumbers:
    """Of `tf.Variable` with a dtype: converted once, and only to what holds their kind."""

    @pytest.mark.parametrize("value", [0.1, 1e40, [0.1, 1e-300]])
    def test_doubles(self, value):
        with jax.enable_x64(True), js.build(KEY):
            assert js.variable(value, dtype="float64").tolist() == value

    def test_large_unsigned_integers(self):
        with js.build(KEY):
            assert js.variable(4000000000, dtype="uint32").tolist() == 4000000000

    @pytest.mark.parametrize(
        ("value", "dtype"), [(3.0, "int32"), (1, "bool"), (1.0, "bool"), (1j, "float32"), (2**40, "int32")]
    )
    def test_what_does_not_fit(self, value, dtype):
        """TF1 takes the last of these, and wraps it around."""
        with js.build(KEY), pytest.raises(TypeError, match="can't be held by dtype") as caught:
            js.variable(value, name="x", dtype=dtype)
        assert "Asked:  variable('x'" in str(caught.value)

    @pytest.mark.parametrize(
        ("value", "dtype"), [(True, "int32"), (True, "float32"), (3, "float16"), (1.5, "complex64")]
    )
    def test_kinds_that_fit(self, value, dtype):
        with js.build(KEY):
            made = js.variable(value, dtype=dtype)
            assert (made.tolist(), made.dtype) == (value, dtype)

    def test_lists_are_assigned_in_the_dtype_of_the_variable(self):
        with js.build(KEY):
            half = js.get_variable("half", [1], jnp.float16)
            assert js.assign(half, [0.5]).dtype == jnp.float16

    def test_constants_of_true(self):
        for dtype in (jnp.int32, jnp.float32):
            assert js.constant_initializer(True)(None, (2,), dtype).tolist() == [1, 1]

    def test_a_constant_that_fills_nothing(self):
        assert js.constant_initializer(0.5)(None, (0,), jnp.int32).shape == (0,)


def test_losses_are_found_by_the_key():
    """TF1 names a loss after the name that was asked for, whatever the variable came to be called."""
    with js.build(KEY):
        with js.variable_scope("v"):
            pass
        get(regularizer=lambda v: 2 * v, initializer=js.ones_initializer())
        assert js.name_of(js.value("v_1")) == "v_1"
        assert js.get_regularization_losses("v/") == [2]
        assert js.get_regularization_losses("v_1/") == []


def test_a_value_of_another_shape_than_asked_for():
    with js.build(KEY), pytest.raises(ValueError, match=r"has shape \(1,\), but shape \(None, 2\) is asked for"):
        js.get_variable("v", [None, 2], initializer=lambda: [1.0])


def test_a_scope_that_opens_no_op_scope_puts_none_back():
    def program():
        with js.variable_scope(""):
            js.name_scope("n").__enter__()
        js.variable(1.0, name="w")

    assert names_of(program) == ["n/w"]


def test_an_empty_name_of_a_variable():
    assert names_of(lambda: js.variable(1.0, name="")) == ["VariableV2"]


def test_the_op_scope_of_a_scope_called_slash():
    with js.build(KEY), js.variable_scope("a"), js.variable_scope("/") as scope:
        assert scope.original_name_scope == "/"
