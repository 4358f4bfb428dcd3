"""The laws that hold for every program: purity, order independence, init and apply agree, zero residue."""

from __future__ import annotations

import contextlib
import gc
import re
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from hypothesis import given, settings
from hypothesis import strategies as st
from leaks import checking_leaks

import jscope as js
from jscope._initial_values import name_words

KEY = jax.random.key(0)


# Law 2: purity --------------------------------------------------------------------------------------------------------


def test_a_call_that_raises_leaves_nothing_behind():
    class Interrupt(BaseException):
        pass

    def program(fail):
        with js.variable_scope("a", reuse=js.AUTO_REUSE):
            js.get_variable_scope().reuse_variables()
            js.get_variable_scope().set_dtype(jnp.float16)
            if fail:
                raise Interrupt
        with js.variable_scope(None, "d"):
            return js.get_variable("v", [])

    net = js.transform(program)
    before = net.specs(False)
    for call in (net.specs, lambda fail: net.init(KEY, fail), lambda fail: net.apply({"d/v": 1.0}, fail)):
        with pytest.raises(Interrupt):
            call(True)
        with pytest.raises(js.OutsideProgramError):
            js.get_variable_scope()
    assert net.specs(False) == before
    assert net.apply({"d/v": 1.0}, False) == 1


def test_scope_objects_and_templates_keep_nothing_between_programs():
    kept = {}

    def make():
        with js.variable_scope("a") as scope:
            pass
        kept["scope"] = scope

    js.transform(make).specs()
    opened = js.variable_scope(kept["scope"])
    template = js.make_template("t", lambda: js.get_variable("w", []))

    def program():
        kept["scope"].reuse_variables()
        assert kept["scope"].reuse is True
        with opened as inner:
            assert inner.reuse is True
        template()
        template()
        return template.variable_scope.name

    net = js.transform(program)
    for _ in range(3):
        assert kept["scope"].reuse is False
        assert list(net.specs()) == ["t/w"]
        assert net.apply({"t/w": 1.0}) == "t"


def test_leaks_nothing():
    def program(x):
        with js.variable_scope("a", reuse=js.AUTO_REUSE) as scope:
            x = x * js.get_variable("w", initializer=jnp.mean(x))
        with js.variable_scope(scope, reuse=True):
            x = jax.checkpoint(lambda x: x * js.get_variable("w", []))(x)
            js.assign("a/w", 2.0)
            js.add_to_collection("c", x)
        return x + jax.random.normal(js.next_key())

    net = js.transform(program)
    with checking_leaks():
        params = jax.jit(net.init)(KEY, jnp.ones(2))
        jax.jit(net.update)(params, jnp.ones(2), rng=KEY)
        jax.grad(lambda p: net.update(p, jnp.ones(2), rng=KEY)[0].sum())(params)


@pytest.mark.parametrize("through", [jax.jit, jax.checkpoint, jax.vmap])
def test_making_inside_transforms_leaks_nothing(through):
    net = js.transform(lambda x: through(lambda x: x * js.get_variable("w", []))(x))
    with checking_leaks():
        net.specs(jnp.ones(2))
        net.init(KEY, jnp.ones(2))


def test_an_initializer_over_values_of_the_program_is_refused():
    net = js.transform(lambda x: js.get_variable("w", [3], initializer=lambda k, s, d: jnp.broadcast_to(x.mean(), s)))
    with pytest.raises(js.InitializerError, match="closes over values that the program computes"):
        net.init(KEY, jnp.ones(3))


def test_big_values_are_freed_without_the_garbage_collector():
    net = js.transform(lambda x: x * js.get_variable("w", [3]))

    class Watched(np.ndarray):
        pass

    leaf = np.ones(3, np.float32).view(Watched)
    watch = weakref.ref(leaf)
    gc.collect()
    gc.disable()
    try:
        net.apply({"w": leaf}, 2.0)
        del leaf
        assert watch() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("leaves_open", [False, True])
@pytest.mark.parametrize("mode", ["specs", "init", "apply", "update"])
def test_what_a_program_holds_is_freed_with_its_frame(mode, leaves_open):
    """A run notes the frames of Python that entered scopes, and lets go of them when it ends."""

    class Held:
        pass

    watches = []

    def program():
        held = Held()
        watches.append(weakref.ref(held))
        scope = js.variable_scope("a")
        scope.__enter__()
        js.get_variable("w", [])
        if not leaves_open:
            scope.__exit__(None, None, None)
        js.get_variable("v", [])

    net = js.transform(program)
    first = {"specs": (), "init": (KEY,)}.get(mode, ({"a/w": 1.0, "a/v": 2.0, "v": 2.0},))
    gc.collect()
    gc.disable()
    try:
        getattr(net, mode)(*first)
        assert {watch() for watch in watches} == {None}
    finally:
        gc.enable()


# Law 3: order independence --------------------------------------------------------------------------------------------


def many(names):
    for name in names:
        js.get_variable(name, [4])


def test_3000_variables_start_pairwise_different_and_alone():
    names = [f"layer_{i}/{kind}" for i in range(1000) for kind in ("kernel", "bias", "scale")]
    net = js.transform(many)
    params = net.init(KEY, names)
    rows = np.stack([np.asarray(leaf) for leaf in params.flat().values()])
    assert len(np.unique(rows, axis=0)) == 3000
    others = net.init(KEY, [*reversed(names), "more", "layer_1/extra"])
    assert others.select(lambda name, _: name in set(names))[0] == params


def test_scopes_that_join_to_the_same_letters_differ():
    def program():
        for outer, inner in (("ab", "cdef"), ("abc", "def")):
            with js.variable_scope(outer), js.variable_scope(inner):
                js.get_variable("w", [4])

    params = js.transform(program).init(KEY)
    assert (params["ab/cdef/w"] != params["abc/def/w"]).all()


@given(st.lists(st.text(), max_size=50, unique=True))
@settings(max_examples=50, deadline=None)
def test_the_hash_tells_names_apart(names):
    assert len({name_words(name).tobytes() for name in names}) == len(names)


def test_the_hash_is_the_same_in_every_process():
    code = "from jscope._initial_values import name_words; print(name_words('tower/kernel').tolist())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(name_words("tower/kernel").tolist()) == "[966074911, 3306897757]"


@given(st.permutations(["a", "b/c", "b/d", "e"]), st.lists(st.sampled_from(["x", "b/y", "z/z"]), unique=True))
@settings(max_examples=15, deadline=None)
def test_order_and_siblings_do_not_matter(order, extra):
    params = js.transform(many).init(KEY, [*extra, *order])
    expected = js.transform(many).init(KEY, ["a", "b/c", "b/d", "e"])
    assert params.select(lambda name, _: name in expected.names)[0] == expected


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "initializer",
    [
        None,
        *(
            pytest.param(initializer, marks=pytest.mark.slow)
            for initializer in (
                js.random_normal_initializer(0.5, 2.0),
                js.truncated_normal_initializer,
                js.random_uniform_initializer(-1, 1, seed=3),
                js.he_normal_initializer(),
            )
        ),
        js.orthogonal_initializer(),
        js.constant_initializer([1.0, 2.0]),
        jax.nn.initializers.lecun_normal(),
        lambda key, shape, dtype: jax.random.gamma(key, 2.0, shape, dtype),
    ],
)
def test_eager_and_jitted_init_agree_to_the_bit(initializer):
    net = js.transform(lambda: js.get_variable("w", [5, 3], initializer=initializer))
    assert jax.jit(net.init)(KEY) == net.init(KEY) == jax.vmap(net.init)(KEY[None]).map_with_name(lambda _, x: x[0])


def scaled_normal(scale):
    return lambda key, shape, dtype: scale * jax.random.normal(key, shape, dtype)


@pytest.mark.parametrize("factory", [jax.nn.initializers.normal, scaled_normal, js.random_normal_initializer])
def test_initializers_that_do_the_same_are_compiled_once(factory):
    def program():
        for i in range(20):
            js.get_variable(f"v{i}", [3, 7], initializer=factory(0.5 if i % 2 else 1))

    net = js.transform(program)
    other_key = jax.random.key(1)
    with compilations() as compiled:
        net.init(KEY)
        net.init(other_key)
    assert len(compiled) <= 2


def test_a_function_is_called_for_each_variable_and_compiled_once():
    calls = []

    def initializer(key, shape, dtype):
        calls.append(1)
        return jnp.ones(shape, dtype)

    def program():
        for i in range(20):
            js.get_variable(f"v{i}", [3], initializer=initializer)

    specs = js.transform(program).specs()
    calls.clear()
    with compilations() as compiled:
        specs.init(KEY)
        specs.init(KEY)
    assert len(calls) == 40
    assert len(compiled) == 1


def test_initializers_that_read_other_things_are_not_taken_for_the_same():
    settings_ = {"fill": 1.0}
    net = js.transform(lambda: js.get_variable("w", [2], initializer=lambda k, s, d: jnp.full(s, settings_["fill"], d)))
    assert net.init(KEY)["w"].tolist() == [1, 1]
    settings_["fill"] = 2.0
    assert net.init(KEY)["w"].tolist() == [2, 2]

    for value in (1.0, 2.0):
        globals_ = {"jnp": jnp, "FILL": value}
        made = eval("lambda key, shape, dtype: jnp.full(shape, FILL, dtype)", globals_)
        assert js.transform(lambda made=made: js.get_variable("w", [2], initializer=made)).init(KEY)["w"][0] == value

    class Mine(js.random_normal_initializer):
        def __init__(self, fill):
            super().__init__()
            object.__setattr__(self, "fill", fill)

        def __call__(self, key, shape, dtype=None):
            return jnp.full(shape, self.fill, dtype)

    def program():
        js.get_variable("a", [2], initializer=Mine(1.0))
        js.get_variable("b", [2], initializer=Mine(2.0))

    params = js.transform(program).init(KEY)
    assert (params["a"][0], params["b"][0]) == (1, 2)


@pytest.mark.parametrize("makes", [(jnp.zeros, jnp.ones), (np.zeros, np.ones)], ids=["jax", "numpy"])
def test_initializers_of_one_text_that_find_other_functions_are_not_the_same(makes):
    """As where a cell of a notebook runs again, or two modules have one text."""
    text = "def initializer(key, shape, dtype): return [make(shape, dtype) for _ in range(1)][0]"
    for make in makes:
        names = {"make": make}
        exec(text, names)
        net = js.transform(lambda names=names: js.get_variable("w", [2], initializer=names["initializer"]))
        np.testing.assert_array_equal(net.init(KEY)["w"], make(2))

    names = {}
    exec(text, names)
    net = js.transform(lambda: js.get_variable("w", [2], initializer=names["initializer"]))
    for make in makes:
        names["make"] = make
        np.testing.assert_array_equal(net.init(KEY)["w"], make(2))


def test_a_named_function_of_jax_is_compiled_once():
    names = {"draw": jax.random.normal, "of": jax.nn.initializers.normal(0.5)}
    with compilations() as compiled:
        for text in ("draw(key, shape, dtype)", "of(key, shape, dtype)"):
            for _ in range(3):
                initializer = eval(f"lambda key, shape, dtype: {text}", names)
                js.transform(lambda i=initializer: js.get_variable("w", [3, 2], initializer=i)).init(KEY)
    assert len(compiled) == 2


def test_an_initializer_may_call_itself():
    def init(key, shape, dtype):
        if len(shape) > 1:
            return jnp.stack([init(key, shape[1:], dtype)] * shape[0])
        return jax.random.normal(key, shape, dtype)

    assert js.transform(lambda: js.get_variable("w", [2, 2], initializer=init)).init(KEY)["w"].shape == (2, 2)


def test_init_and_apply_see_arguments_in_one_order():
    def program(inputs, **more):
        for name in [*inputs, *more]:
            with js.variable_scope(None, "dense"):
                js.get_variable("w", [(inputs | more)[name].size])

    net = js.transform(program)
    inputs, more = {"right": jnp.ones(2), "left": jnp.ones(3)}, {"z": jnp.ones(4), "a": jnp.ones(5)}
    params = net.init(KEY, inputs, **more)
    assert [spec.shape for spec in net.specs(inputs, **more).values()] == [(3,), (2,), (5,), (4,)]
    net.apply(params, inputs, **more)
    jax.jit(net.apply)(params, inputs, **more)


def test_variables_are_never_weakly_typed():
    def program():
        w = js.get_variable("w", initializer=jnp.asarray(2.0))
        assert not w.weak_type
        return js.get_variable("b", initializer=w * jnp.ones(3, jnp.bfloat16))

    net = js.transform(program)
    params = net.init(KEY)
    assert params["b"].dtype == jnp.float32
    net.apply(params)
    scale = js.transform(lambda x: x * js.get_variable("w", []))
    x = jnp.ones(2, jnp.bfloat16)
    assert scale.apply({"w": 1.0}, x).dtype == jax.jit(scale.apply)({"w": 1.0}, x).dtype == jnp.float32
    count = js.transform(lambda: js.assign(js.get_variable("n", []), jnp.where(True, 1.0, 2.0)))
    assert not count.update({"n": jnp.float32(0)})[1]["n"].weak_type


@pytest.mark.parametrize("make", [lambda: jax.random.PRNGKey(0), lambda: jax.random.key(0, impl="rbg")])
def test_keys_of_other_kinds(make):
    key = make()
    seen = []

    def program():
        made = js.next_key()
        seen.append((made.shape, made.dtype))
        js.get_variable("w", [2])
        return js.get_variable("raw", initializer=jax.random.bits(made, (2,)))

    net = js.transform(program)
    params = net.init(key)
    net.apply(params, rng=key)
    assert set(seen) == {(key.shape, key.dtype)}
    assert jax.jit(net.init)(key) == params


def test_numpy_leaves_of_64_bits_fit_eagerly_and_jitted():
    net = js.transform(lambda: js.get_variable("w", [2]))
    tree = {"w": np.ones(2)}
    assert (net.apply(tree) == jax.jit(net.apply)(tree)).all()


def test_a_bare_initializer_that_fails_takes_the_same_way_in_apply():
    def program():
        try:
            return js.get_variable("a", initializer=lambda: 1 / 0)
        except ZeroDivisionError:
            return js.get_variable("b", [2])

    net = js.transform(program)
    assert net.apply(net.init(KEY)).shape == (2,)


def test_derivatives_of_code_that_makes_variables():
    def program(x):
        return jax.jacfwd(lambda x: x * js.get_variable("w", []))(x)

    net = js.transform(program)
    net.init(KEY, jnp.float32(1))
    assert net.apply({"w": 3.0}, jnp.float32(1)) == 3


# Law 4: init and apply agree ------------------------------------------------------------------------------------------


def test_an_error_that_only_the_initializer_raises_takes_the_same_way_in_apply():
    def program():
        with contextlib.suppress(ValueError):
            js.get_variable("v", [1], initializer=js.constant_initializer([1.0, 2.0]))
        return js.get_variable("v", [1])

    net = js.transform(program)
    params = net.init(KEY)
    assert params.names == ("v_1",)
    assert net.apply(params) is params["v_1"]


# Law 5: zero residue --------------------------------------------------------------------------------------------------


def stablehlo(fn, *args):
    """Without locations, and without the notes that say how results are called."""
    text = jax.jit(fn).lower(*args).as_text()
    return re.sub(r' \{jax.result_info = "[^"]*"\}|loc\(.*?\)|#loc.*', "", text)


class TestZeroResidue:
    """The compiled program is the hand-written one: same StableHLO, locations aside."""

    X = jnp.ones((4, 6))

    def check(self, scoped, by_hand, *args):
        net = js.transform(scoped)
        params = net.init(KEY, *args)

        # Named like the program, and called with the same leaves in the same order.
        def named(leaves, *args):
            return by_hand(dict(zip(params.names, leaves, strict=True)), *args)

        named.__name__ = scoped.__name__
        leaves = jax.tree.leaves(params)
        assert stablehlo(net.apply, params, *args) == stablehlo(named, leaves, *args)
        ours = stablehlo(jax.grad(lambda p, *a: net.apply(p, *a).sum()), params, *args)
        theirs = stablehlo(jax.grad(lambda p, *a: named(p, *a).sum()), leaves, *args)
        assert ours == theirs

    def test_mlp(self):
        def mlp(x):
            for i, size in enumerate((8, 8, 3)):
                with js.variable_scope(f"layer_{i}"):
                    w = js.get_variable("w", [x.shape[-1], size])
                    x = jax.nn.relu(x @ w + js.get_variable("b", [size], regularizer=jnp.sum))
            return x

        def by_hand(p, x):
            for i in range(3):
                x = jax.nn.relu(x @ p[f"layer_{i}/w"] + p[f"layer_{i}/b"])
            return x

        self.check(mlp, by_hand, self.X)

    def test_tied_autoencoder(self):
        def autoencoder(x):
            with js.variable_scope("code"):
                w = js.get_variable("w", [6, 2])
            h = jnp.tanh(x @ w)
            with js.variable_scope("code", reuse=True):
                return h @ js.get_variable("w").T + js.get_variable("w")[:, 0]

        def by_hand(p, x):
            w = p["code/w"]
            return jnp.tanh(x @ w) @ w.T + w[:, 0]

        self.check(autoencoder, by_hand, self.X)

    def test_siamese(self):
        def tower(x):
            with js.variable_scope("tower", reuse=js.AUTO_REUSE):
                return jax.nn.relu(x @ js.get_variable("kernel", [6, 5]) + js.get_variable("bias", [5]))

        def distance(a, b):
            return jnp.sum((tower(a) - tower(b)) ** 2, axis=-1)

        def by_hand(p, a, b):
            one = jax.nn.relu(a @ p["tower/kernel"] + p["tower/bias"])
            two = jax.nn.relu(b @ p["tower/kernel"] + p["tower/bias"])
            return jnp.sum((one - two) ** 2, axis=-1)

        self.check(distance, by_hand, self.X, self.X + 1)

    def test_batch_statistics(self):
        def norm(x):
            mean = js.get_variable("mean", [6], trainable=False)
            js.assign(mean, 0.9 * mean + 0.1 * x.mean(0))
            return x - mean

        def norm_update(leaves, x):
            new = 0.9 * leaves[0] + 0.1 * x.mean(0)
            return x - leaves[0], [new]

        net = js.transform(norm)
        params = net.init(KEY, self.X)
        ours = stablehlo(net.update, params, self.X)
        theirs = stablehlo(norm_update, [params["mean"]], self.X)
        assert ours == theirs

    def test_op_names(self):
        def f(x):
            for _ in range(2):
                with js.variable_scope("tower", reuse=js.AUTO_REUSE):
                    x = x + js.get_variable("b", [6])
                    with js.name_scope("inner"):
                        x = x * 2
            return x

        net = js.transform(f)
        text = jax.jit(net.apply).lower(net.init(KEY, self.X), self.X).as_text(debug_info=True)
        for name in ("jit(f)/tower/add", "jit(f)/tower/inner/mul", "jit(f)/tower_1/add", "jit(f)/tower_1/inner/mul"):
            assert f'"{name}"' in text
