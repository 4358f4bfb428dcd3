"""`transform`, `build` and `bind`: the modes in which a program runs."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import pickle
import re
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jscope as js
from jscope import layers

KEY = jax.random.key(0)
X = jnp.arange(6.0).reshape(2, 3)


def dense(x):
    """A dense layer."""
    w = js.get_variable("kernel", [x.shape[-1], 4])
    return x @ w + js.get_variable("bias", [4], initializer=js.zeros_initializer())


net = js.transform(dense)


@js.transform
def decorated():
    return js.get_variable("w", [])


class TestTransformed:
    def test_keeps_name_and_doc(self):
        assert (net.__name__, net.__doc__, net.__wrapped__) == ("dense", "A dense layer.", dense)
        assert "jit(dense)" in jax.jit(net.apply).lower(net.init(KEY, X), X).as_text(debug_info=True)

    def test_members_are_stable_so_that_jit_caches(self):
        assert net.apply is net.apply
        assert net.init is net.init
        params = net.init(KEY, X)
        jax.jit(net.apply)(params, X)
        jax.jit(net.apply)(params, X)
        assert jax.jit(net.apply)._cache_size() == 1

    def test_is_frozen_hashable_and_comparable(self):
        assert net == js.transform(dense)
        assert hash(net) == hash(js.transform(dense))
        assert net != js.transform(lambda x: x)
        with pytest.raises(AttributeError, match="frozen"):
            net.apply = None
        with pytest.raises(AttributeError, match="frozen"):
            del net.apply

    def test_pickles(self):
        assert pickle.loads(pickle.dumps(net)) == net

    def test_pickles_as_a_decorated_function(self):
        assert pickle.loads(pickle.dumps(decorated)) is decorated

    def test_signatures_are_those_of_the_call(self):
        assert next(iter(inspect.signature(net.apply).parameters)) == "params"
        assert next(iter(inspect.signature(net.init).parameters)) == "key"

    def test_a_callable_without_a_hash(self):
        @dataclasses.dataclass
        class Model:
            size: int

            def __call__(self):
                return js.get_variable("w", [self.size])

        assert hash(js.transform(Model(2))) == hash(js.transform(Model(2)))
        assert js.transform(Model(2)) == js.transform(Model(2)) != js.transform(Model(3))

    def test_takes_any_callable(self):
        class Model:
            def __call__(self, x):
                return dense(x)

            def method(self, x):
                return dense(x)

        for fn in (functools.partial(dense), Model(), Model().method, jax.jit(dense)):
            assert js.transform(fn).specs(X) == net.specs(X)

    @pytest.mark.parametrize("bad", [3, None, "program", net])
    def test_refuses_what_is_no_function(self, bad):
        with pytest.raises(js.BadTypeError, match="transform takes a function"):
            js.transform(bad)

    @pytest.mark.parametrize("name", ["rng", "warm_start"])
    def test_refuses_reserved_parameters(self, name):
        program = {"rng": lambda x, rng: x, "warm_start": lambda x, *, warm_start=None: x}[name]
        with pytest.raises(js.BadNameError, match=f"parameter called '{name}'"):
            js.transform(program)


class TestSpecs:
    def test_makes_no_array_and_runs_nothing(self):
        ran = []

        def program(x):
            jax.debug.callback(lambda: ran.append(1))
            return x.sum() * js.get_variable("w", [3, 10**6, 10**6])

        assert js.transform(program).specs(X)["w"].size == 3 * 10**12
        jax.effects_barrier()
        assert not ran

    def test_arrays_become_abstract_and_the_rest_stays(self):
        seen = {}

        def program(x, y, z, training, scale, *, name, items):
            seen.update(locals())
            return js.get_variable("w", [])

        js.transform(program).specs(
            X, np.ones(2), jax.ShapeDtypeStruct((5,), jnp.int32), True, 0.5, name="n", items={"a": [X, None, 3]}
        )
        assert all(isinstance(seen[name], jax.core.Tracer) for name in "xyz")
        assert (seen["x"].shape, seen["y"].dtype, seen["z"].shape) == ((2, 3), jnp.float32, (5,))
        assert (seen["training"], seen["scale"], seen["name"]) == (True, 0.5, "n")
        assert seen["training"] is True
        assert seen["items"]["a"][1:] == [None, 3]

    def test_every_call_runs_the_program(self):
        calls = []
        counted = js.transform(lambda x: calls.append(1))
        counted.specs(X)
        counted.specs(X)
        assert len(calls) == 2

    def test_next_key_needs_no_rng(self):
        js.transform(lambda: jax.random.normal(js.next_key())).specs()

    def test_errors_keep_their_class(self):
        with pytest.raises(ZeroDivisionError):
            js.transform(lambda: 1 / 0).specs()
        assert net.specs(X)  # and leave nothing behind


class TestInit:
    def test_leaves_are_fresh_and_concrete(self):
        source = jnp.ones(3)

        def program():
            js.get_variable("a", initializer=source)
            js.get_variable("b", initializer=source)

        params = js.transform(program).init(KEY)
        pointers = {leaf.unsafe_buffer_pointer() for leaf in (params["a"], params["b"], source)}
        assert len(pointers) == 3
        jax.jit(lambda p: jax.tree.map(jnp.negative, p), donate_argnums=0)(params)
        assert source[0] == 1

    def test_jitted_vmapped_and_abstract(self):
        plain = net.init(KEY, X)
        assert jax.jit(net.init)(KEY, X) == plain
        keys = jax.random.split(KEY, 3)
        many = jax.vmap(net.init, in_axes=(0, None))(keys, X)
        for i in range(3):
            assert jax.tree.map(lambda leaf, i=i: leaf[i], many) == net.init(keys[i], X)
        assert jax.eval_shape(net.init, KEY, X) == net.specs(X).abstract()

    def test_old_style_keys(self):
        old = jax.random.PRNGKey(0)
        assert net.init(old, X) == net.init(KEY, X)

    def test_specs_init_agrees(self):
        assert net.specs(X).init(KEY) == net.init(KEY, X)

    def test_build_agrees(self):
        with js.build(KEY) as built:
            dense(X)
        assert built.params == net.init(KEY, X)
        assert built.specs == net.specs(X)

    def test_initial_values_computed_in_the_program(self):
        ran = []

        def program(x):
            jax.debug.callback(lambda: ran.append(1))
            w = js.get_variable("w", [3, 2], initializer=js.ones_initializer())
            h = x @ w
            js.get_variable("mean", initializer=jnp.mean(h))
            js.get_variable("input", initializer=x)
            js.get_variable("ones", initializer=jnp.ones(2))
            js.get_variable("noise", initializer=jax.random.normal(js.next_key(), (2,)))
            js.variable(jnp.std(h), name="std")
            return h

        data = js.transform(program)
        specs = data.specs(X)
        assert [specs[name].shape for name in ("mean", "input", "ones", "std")] == [(), (2, 3), (2,), ()]
        assert repr(specs["mean"].initializer) == "from the program"
        params = data.init(KEY, X)
        jax.effects_barrier()
        assert not ran  # just what the values need
        h = np.asarray(X) @ np.ones((3, 2))
        np.testing.assert_allclose(params["mean"], h.mean(), rtol=1e-6)
        np.testing.assert_allclose(params["std"], h.std(), rtol=1e-6)
        np.testing.assert_array_equal(params["input"], X)
        assert params["input"].unsafe_buffer_pointer() != X.unsafe_buffer_pointer()
        again = jax.jit(data.init)(KEY, X)
        np.testing.assert_allclose(again["noise"], params["noise"])
        with pytest.raises(js.InitializerError, match="computed by the program") as caught:
            specs.init(KEY)
        assert "net.init" in caught.value.fix

    def test_a_value_computed_by_way_of_a_ref(self):
        def program(x):
            ref = jax.new_ref(jnp.zeros(3))
            ref[...] = x * 2
            js.get_variable("w", initializer=ref[...])

        assert js.transform(program).init(KEY, jnp.ones(3))["w"].tolist() == [2, 2, 2]

    def test_a_value_computed_from_abstract_arguments(self):
        data = js.transform(lambda x: js.get_variable("w", initializer=x * 2))
        with pytest.raises(js.InitializerError, match="from arguments that are abstract"):
            data.init(KEY, jax.ShapeDtypeStruct((3,), jnp.float32))

    @pytest.mark.parametrize("call", [lambda: net.init(0, X), lambda: net.apply({}, X, rng=0), lambda: js.build(0)])
    def test_what_is_no_key(self, call):
        with pytest.raises(js.BadTypeError, match="takes a JAX random key, not a int"):
            call()

    def test_a_bare_initializer_may_read_inside_a_transform(self):
        def program():
            js.get_variable("a", [], initializer=js.ones_initializer())
            js.get_variable("b", initializer=lambda: jax.jit(lambda: js.value("a") * 2)())

        assert js.transform(program).init(KEY).flat() == {"a": 1.0, "b": 2.0}

    def test_a_computed_value_sees_variables_made_inside_transforms(self):
        @jax.jit
        def inner():
            return js.get_variable("w", [], initializer=js.constant_initializer(3.0))

        def program():
            js.get_variable("double", initializer=2 * inner())

        assert js.transform(program).init(KEY).flat() == {"double": 6.0, "w": 3.0}

    def test_warm_start(self, caplog):
        kept = {"kernel": jnp.ones((3, 4))}
        with caplog.at_level(logging.INFO, "jscope"):
            params = net.init(KEY, X, warm_start=kept)
        assert "1 kept, 1 made" in caplog.text
        np.testing.assert_array_equal(params["kernel"], kept["kernel"])
        assert params["bias"].shape == (4,)
        assert params["kernel"].unsafe_buffer_pointer() != kept["kernel"].unsafe_buffer_pointer()

    @pytest.mark.parametrize(
        ("tree", "fault"),
        [
            ({"kernl": jnp.ones((3, 4))}, r"'kernl' is not declared \(near: 'kernel'\)"),
            ({"kernel": jnp.ones((4, 3))}, r"'kernel': has shape \(4, 3\), declared \(3, 4\)"),
            ({"kernel": jnp.ones((3, 4), jnp.int32)}, "'kernel': has dtype int32, declared float32"),
        ],
    )
    def test_warm_start_refuses_what_does_not_fit(self, tree, fault):
        with pytest.raises(js.ParamsMismatchError, match=fault):
            net.init(KEY, X, warm_start=tree)

    def test_warm_start_of_computed_values(self):
        data = js.transform(lambda x: js.get_variable("m", initializer=jnp.mean(x)))
        assert data.init(KEY, X)["m"] == 2.5
        assert data.init(KEY, X, warm_start={"m": jnp.float32(7)})["m"] == 7


class TestApply:
    def test_takes_any_mapping(self):
        params = net.init(KEY, X)
        for tree in (params, params.to_dict(), params.flat(), {k: np.asarray(v) for k, v in params.flat().items()}):
            np.testing.assert_array_equal(net.apply(tree, X), net.apply(params, X))

    def test_a_larger_tree_is_fine(self):
        params = net.init(KEY, X)
        net.apply(params | {"other": {"kernel": jnp.ones(2)}}, X)

    def test_all_faults_at_once(self):
        with pytest.raises(js.ParamsMismatchError) as caught:
            net.apply({"kernal": jnp.ones((3, 4)), "bias": jnp.ones(5)}, X)
        assert caught.value.faults == (
            "'bias': has shape (5,), declared (4,)",
            "'kernel' is missing (near: 'kernal')",
        )
        assert f"{__file__}:" in caught.value.where

    def test_a_program_that_needs_concrete_values_says_what_is_missing(self):
        def program(x):
            w = js.get_variable("w", [])
            return w if x.sum() > 0 else -w

        with pytest.raises(js.ParamsMismatchError, match="'w' is missing"):
            js.transform(program).apply({}, X)

    def test_faults_inside_a_transform(self):
        inside = js.transform(lambda x: jax.jit(dense)(x))
        with pytest.raises(js.ParamsMismatchError, match="'kernel' is missing"):
            jax.jit(inside.apply)({"bias": jnp.ones(4)}, X)

    @pytest.mark.parametrize("bad", [None, 3, [1], jnp.ones(2)])
    def test_no_mapping(self, bad):
        with pytest.raises(js.BadTypeError, match="takes a tree of parameters, a Params"):
            net.apply(bad, X)

    def test_returns_plain_arrays_and_the_same_object(self):
        def program():
            v = js.get_variable("v", [2])
            with js.variable_scope("", reuse=True):
                assert js.get_variable("v") is v
            assert isinstance(v, jax.Array)
            return jax.lax.add(v, v), v

        same = js.transform(program)
        params = same.init(KEY)
        assert same.apply(params)[1] is params["v"]
        jax.jit(same.apply)(params)
        with js.build(KEY):
            program()

    def test_numpy_leaves_read_first_inside_a_transform_do_not_leak(self):
        def program(x):
            inner = jax.jit(lambda x: x * js.get_variable("w", []))
            with js.variable_scope("", reuse=js.AUTO_REUSE):
                return inner(x) + js.get_variable("w", [])

        assert js.transform(program).apply({"w": np.float32(3)}, jnp.float32(2)) == 9

    def test_assign_is_refused_and_names_update(self):
        def program():
            js.assign(js.get_variable("n", []), 1.0)

        with pytest.raises(js.AssignError, match="'n' is assigned") as caught:
            js.transform(program).apply({"n": jnp.float32(0)})
        assert "net.update" in caught.value.fix


class TestUpdate:
    @staticmethod
    def count(step=1):
        n = js.get_variable("n", [], jnp.int32, trainable=False)
        js.get_variable("other", [])
        new = js.assign(n, n + step)
        assert js.value("n") is new
        assert js.value(n) is new  # by the array it was, too
        with js.variable_scope("", reuse=True):
            assert js.get_variable("n", dtype=jnp.int32) is new
        assert js.name_of(new) == js.name_of(n) == "n"
        return new

    def test_returns_the_tree_with_assignments(self):
        counter = js.transform(self.count)
        params = counter.init(KEY)
        assert params["n"] == 0  # init gives initial values, not assigned ones
        out, new = counter.update(params, 3)
        assert (out, new["n"], params["n"]) == (3, 3, 0)
        assert new["other"] is params["other"]
        out, newer = jax.jit(counter.update)(new)
        assert newer["n"] == 4

    def test_keeps_what_it_does_not_read(self):
        counter = js.transform(self.count)
        _, new = counter.update({"n": jnp.int32(1), "other": jnp.float32(0), "more": {"x": 5}})
        assert new["more/x"] == 5

    def test_by_array_spec_and_name(self):
        def program():
            v = js.get_variable("a/v", [2])
            js.assign(v, jnp.ones(2))
            js.assign(js.global_variables()[0], js.value("a/v") + 1)
            js.assign("a/v", js.value("a/v") * 2)

        _, new = js.transform(program).update({"a/v": jnp.zeros(2)})
        np.testing.assert_array_equal(new["a/v"], [4, 4])

    def test_assigning_another_variables_array_keeps_them_apart(self):
        def program():
            online, target = js.get_variable("online", [2]), js.get_variable("target", [2])
            js.assign(target, online)
            assert js.name_of(online) == "online"
            assert js.name_of(js.value("target")) == js.name_of(target) == "target"
            js.assign(online, online + 1)

        _, new = js.transform(program).update({"online": jnp.ones(2), "target": jnp.zeros(2)})
        assert new.map_with_name(lambda _, leaf: leaf.tolist()).flat() == {"online": [2, 2], "target": [1, 1]}
        jax.jit(lambda p: p, donate_argnums=0)(new)

    @pytest.mark.parametrize(
        ("value", "error"),
        [(jnp.ones(3), js.ShapeMismatchError), (jnp.ones(2, jnp.int32), js.DtypeMismatchError)],
    )
    def test_refuses_what_does_not_fit(self, value, error):
        with pytest.raises(error, match="is assigned a value of"):
            js.transform(lambda: js.assign(js.get_variable("v", [2]), value)).update({"v": jnp.zeros(2)})

    def test_grad_through_update_with_aux(self):
        def program(x):
            w = js.get_variable("w", [])
            n = js.get_variable("n", [], trainable=False)
            js.assign(n, n + jax.lax.stop_gradient(x))
            return w * x

        grads, new = jax.grad(js.transform(program).update, has_aux=True)({"w": 2.0, "n": 1.0}, jnp.float32(3))
        assert (grads["w"], new["n"]) == (3, 4)


class TestKeys:
    def test_depends_on_scope_and_count_alone(self):
        def program(before):
            for _ in range(before):
                with js.variable_scope("other"):
                    js.next_key()
            with js.variable_scope("s"):
                return jax.random.key_data(js.next_key()), jax.random.key_data(js.next_key())

        keys = js.transform(program)
        one, two = keys.apply({}, 0, rng=KEY), keys.apply({}, 5, rng=KEY)
        np.testing.assert_array_equal(one, two)
        assert (one[0] != one[1]).any()
        assert (keys.apply({}, 0, rng=jax.random.key(1))[0] != one[0]).any()

    def test_streams(self):
        def program():
            return jax.random.key_data(js.next_key("a")), jax.random.key_data(js.next_key("b"))

        a, b = js.transform(program).apply({}, rng=KEY)
        assert (a != b).any()

    def test_without_rng(self):
        with pytest.raises(js.MissingRngError, match="was given no rng"):
            js.transform(lambda: js.next_key()).apply({})
        with js.bind({}, rng=KEY):
            js.next_key()


class TestBuildAndBind:
    def test_snapshots(self):
        with js.build(KEY) as built:
            js.get_variable("a", [2])
            first, specs = built.params, built.specs
            js.get_variable("b", [])
            js.assign("b", 5.0)
        assert (first.names, list(specs)) == (("a",), ["a"])
        assert built.params.names == ("a", "b")
        assert built.params["b"] == 5

    def test_bind_reads_and_checks(self):
        with js.bind({"a": {"v": jnp.ones(2)}}) as bound:
            with js.variable_scope("a"):
                np.testing.assert_array_equal(js.get_variable("v", [2]), [1, 1])
            with pytest.raises(js.ParamsMismatchError, match="'v' is missing"):
                js.get_variable("v", [2])
            with pytest.raises(js.AssignError):
                js.assign("a/v", jnp.ones(2))
        assert bound.params.names == ("a/v",)

    @pytest.mark.parametrize("open_", [lambda: js.build(KEY), lambda: js.bind({"v": 1.0})])
    def test_inner_calls_are_refused_naming_transform(self, open_):
        @jax.jit
        def block(x):
            return x * js.get_variable("v", [])

        with open_():
            with pytest.raises(js.TransformError, match="inside a JAX transform") as caught:
                block(1.0)
            assert "js.transform" in caught.value.fix
            js.get_variable("v", [])  # and it goes on

    def test_inside_a_trace(self):
        @jax.jit
        def f(key):
            with js.build(key) as built:
                js.get_variable("v", [2])
            return built.params

        np.testing.assert_array_equal(f(KEY)["v"], js.transform(lambda: js.get_variable("v", [2])).init(KEY)["v"])


def test_one_instance_left_more_often_than_entered():
    with js.build(jax.random.key(0)):
        scope = js.variable_scope("a")
        with scope, scope:
            assert js.get_variable_scope().name == "a/a"
        with pytest.raises(js.ScopeExitError, match="not open"):
            scope.__exit__(None, None, None)
        with scope:
            assert js.get_variable_scope().name == "a"


def test_one_instance_keeps_the_reuse_that_it_met():
    """As in TF1, where it is kept in the instance, also by an entry within an open one."""
    with js.build(jax.random.key(0)):
        scope = js.variable_scope("a")
        with scope as first:
            assert first.reuse is False
            with js.variable_scope("b", reuse=True), scope as second:
                assert second.reuse is True
        with scope as third:
            assert (third.name, third.reuse) == ("a", True)


def test_a_scope_that_was_left_is_not_kept():
    """Only what its instance means, so that scopes use memory again; see `Scopes`."""
    with js.build(jax.random.key(0)):
        scope = js.variable_scope("a")
        with scope as entered:
            kept = weakref.ref(entered)
        del entered
        assert kept() is None
        with scope as again:
            assert (again.name, again.original_name_scope) == ("a", "a/")


@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.grad])
@pytest.mark.parametrize("leaf", [jnp.ones(()), np.float32(1), jax.random.key(0)], ids=["array", "numpy", "key"])
def test_one_array_under_two_names_is_two_variables(around, leaf):
    """As in a target network that has just been copied: eagerly, too, each is told by its array, and assigned alone."""
    is_key = isinstance(leaf, jax.Array) and leaf.dtype == KEY.dtype

    def program(x):
        a, b = (js.get_variable(name, initializer=leaf) for name in "ab")
        assert (js.name_of(a), js.name_of(b)) == ("a", "b")
        js.assign(b, jax.random.fold_in(b, 1) if is_key else b + 1)
        js.add_to_collection("mine", b)
        return x

    @around
    def run(x):
        tree = {"a": leaf, "b": leaf}
        out, new = js.transform(program).update(tree, x)
        assert set(new) == {"a", "b"}
        after.append(new)
        return out

    after = []
    run(1.0)
    if not isinstance(after[0]["b"], jax.core.Tracer):
        assert after[0]["a"] is leaf
        assert (jax.random.key_data(after[0]["b"]) != jax.random.key_data(leaf)).any() if is_key else after[0]["b"] == 2


def test_a_tied_tree_runs_eagerly_as_it_does_under_jit():
    def network(x):
        return layers.batch_normalization(x, training=True, name="bn")

    def both(x):
        with js.variable_scope("online"):
            online = network(x)
        with js.variable_scope("target"):
            return jnp.sum(online - network(x))

    program = js.transform(both)
    params = program.init(KEY, X)
    tied = params.replace_scope("target", params["online"])
    for update in (program.update, jax.jit(program.update)):
        assert update(tied, X)[1].names == params.names
    slope = jax.grad(
        lambda w: js.transform(lambda: js.get_variable("a", []) + 2 * js.get_variable("b", [])).apply({"a": w, "b": w})
    )
    assert float(slope(jnp.float32(5))) == 3


def test_an_array_that_is_assigned_to_a_second_variable_stays_that_of_the_first():
    def program():
        one, other = js.get_variable("a", []), js.get_variable("b", [])
        new = js.assign(other, one)
        assert [js.name_of(array) for array in (one, other, new, js.value("b"))] == ["a", "b", "b", "b"]

    js.transform(program).update({"a": jnp.zeros(()), "b": jnp.ones(())})
    with js.build(KEY):
        program()


def donated(*, is_weak: bool = False) -> jax.Array:
    """An array whose memory a jitted function has taken."""
    x = jax.jit(lambda: jnp.full(3, 1.0 if is_weak else np.float32(1)))()
    jax.jit(lambda x: x + 1, donate_argnums=0)(x)
    return x


def reads(x=0.0):
    w = js.get_variable("w", [3], regularizer=jnp.sum, constraint=jnp.abs)
    return x + w, js.get_variable("b", [3])


def writes(x=0.0):
    new, _ = reads(x)
    js.assign("b", new)


def writes_in_a_loop():
    def body(carry, _):
        js.assign("w", js.value("w") + js.value("b"))
        return carry, None

    reads()
    jax.lax.scan(body, 0.0, None, length=2)


def binds(params):
    with js.bind(params):
        return reads()


READS = js.transform(reads)


@pytest.mark.parametrize("is_weak", [False, True])
@pytest.mark.parametrize(
    "call",
    [
        READS.apply,
        READS.update,
        js.transform(writes).update,
        js.transform(writes_in_a_loop).update,
        js.transform(lambda: js.get_variable("w", initializer=lambda: jnp.ones(3)) + 1).apply,
        js.transform(lambda: js.lift(READS)).apply,
        lambda params: jax.vmap(READS.apply, (None, 0))(params, jnp.ones((2, 3))),
        binds,
        READS.specs().check,
        READS.specs().regularization_loss,
        READS.specs().constrain,
    ],
)
def test_a_donated_array_is_told_by_its_name(call: Callable[[Any], Any], is_weak: bool) -> None:
    params = js.Params({"w": donated(is_weak=is_weak), "b": jnp.ones(3)})
    with pytest.raises(js.ParamsMismatchError, match="1 fault") as info:
        call(params)
    assert re.fullmatch("'w' is deleted: a jitted function that donates .*", info.value.faults[0])
    call(params.replace({"w": jnp.ones(3)}))


def test_of_a_donated_tree_types_can_be_told_and_what_is_not_asked_for_does_not_matter() -> None:
    params = {"w": donated(), "b": donated(is_weak=True), "other": donated()}
    assert READS.specs().compare({"w": jnp.ones(3), "b": jnp.ones(3), "other": donated()}).kept == ("w", "b")
    assert [part.names for part in READS.specs().split(params, allow_unexpected=True)] == [("b", "w"), ("other",)]
    assert js.transform(lambda: 1).apply(params) == 1


@pytest.mark.parametrize(
    "program",
    [
        lambda x: js.get_variable("w", initializer=x),
        lambda x: js.variable(x),
        lambda x: js.get_variable("w", initializer=lambda: x),
        lambda x: js.get_variable("w", [3], initializer=lambda key, shape, dtype: x),
    ],
)
def test_a_donated_array_as_initial_value_is_told(program: Callable[[Any], Any]) -> None:
    x = donated()
    for call in (
        lambda: js.transform(lambda: program(x)).init(jax.random.key(0)),
        lambda: exec("with js.build(jax.random.key(0)): program(x)", {**globals(), "x": x, "program": program}),
    ):
        with pytest.raises(js.BadArgumentError, match=r"'initial value' f32\[3\] is deleted"):
            call()


@pytest.mark.parametrize("leaf", [None, jax.ShapeDtypeStruct((3,), jnp.float32)], ids=["None", "abstract"])
@pytest.mark.parametrize("call", ["regularization_loss", "constrain"])
def test_functions_of_variables_are_not_given_what_has_no_value(leaf: Any, call: str) -> None:
    asked = getattr(READS.specs(), call)
    with pytest.raises(js.ParamsMismatchError, match="'w' is ") as info:
        asked({"w": leaf, "b": leaf})
    assert info.value.fix.startswith(f"give {call} the values")
    asked({"b": leaf})  # which has neither


@dataclasses.dataclass
class Scaled:
    """A program that == has no answer for."""

    by: Any

    def __call__(self, x):
        return x * js.get_variable("w", []) * self.by


def test_programs_that_have_no_equality_are_equal_to_themselves() -> None:
    one, other = js.transform(Scaled(np.ones(2))), js.transform(Scaled(np.ones(2)))
    assert one == one
    assert one == js.transform(one.__wrapped__)
    assert one != other
    assert other not in [one]
    assert js.transform(Scaled(2.0)) == js.transform(Scaled(2.0))
    run = jax.jit(lambda net, x: net.apply({"w": 2.0}, x), static_argnums=0)
    for net in (one, other, one):
        np.testing.assert_array_equal(run(net, 3.0), [6, 6])
