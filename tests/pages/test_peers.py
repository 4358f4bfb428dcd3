"""The fault that the page "JAX transforms" shows, in the real Haiku and Flax, and the same programs in jscope.

JAX remembers a function that outlives one call, and does not look at what that function reads from elsewhere. A failure
of what is asserted of another library means that it has changed, and that the page must change.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from paths import ROOT

import jscope as js

hk = pytest.importorskip("haiku")
nn = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")

PAGE = (ROOT / "docs" / "transforms.md").read_text()
X = jnp.float32(1)

# Each makes a function once that JAX then remembers.
PERSISTENT: dict[str, Callable] = {
    "jit": lambda f: jax.jit(f),
    "checkpoint": lambda f: jax.checkpoint(f),
    "scan": lambda f: _fixed(lambda c, _: (f(c), None), lambda body, x: jax.lax.scan(body, x, None, length=1)[0]),
    "cond": lambda f: _fixed(f, lambda body, x: jax.lax.cond(x > 0, body, jnp.negative, x)),
}


def _fixed(body, call):
    return lambda x: call(body, x)


@pytest.fixture(params=PERSISTENT)
def persistent(request):
    return PERSISTENT[request.param]


def haiku_net(block):
    """`init(key, x)` and `apply(params, x)` of a program that calls `block` in the scopes a and b."""

    class Layer(hk.Module):
        def __call__(self, x):
            return block(x)

    return hk.without_apply_rng(hk.transform(lambda x: (Layer(name="a")(x), Layer(name="b")(x))))


def haiku_scale(x):
    return x * hk.get_parameter("w", [], init=jnp.ones)


def haiku_case(transform):
    net = haiku_net(transform(lambda x: haiku_scale(x)))  # JAX would know haiku_scale itself from earlier cases
    return net.init, net.apply


class LinenScale(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("w", nn.initializers.ones, [])


def linen_case(transform):
    block = transform(lambda x: LinenScale(name="scale")(x))

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return block(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Layer(name="a")(x), Layer(name="b")(x)

    def apply(params, x):
        return Net().apply({"params": {name: {"scale": layer} for name, layer in params.items()}}, x)

    def init(key, x):
        return {name: layer["scale"] for name, layer in Net().init(key, x)["params"].items()}

    return init, apply


def jscope_case(transform):
    block = transform(lambda x: x * js.get_variable("w", [], initializer=js.ones_initializer()))

    def program(x):
        with js.variable_scope("a"):
            y = block(x)
        with js.variable_scope("b"):
            return y, block(x)

    net = js.transform(program)
    return net.init, net.apply


def results(apply):
    """What two calls give, in which the parameters of a and b are 2 and 3, then 5 and 7, and x is 1."""
    trees = [{"a": {"w": jnp.float32(a)}, "b": {"w": jnp.float32(b)}} for a, b in [(2, 3), (5, 7)]]
    return [tuple(map(float, apply(tree, X))) for tree in trees]


RIGHT = [(2, 3), (5, 7)]


@pytest.mark.parametrize("case", [haiku_case, linen_case])
def test_the_second_scope_reads_the_first_and_the_second_call_the_first_tree(case, persistent):
    assert results(case(persistent)[1]) == [(2, 2), (2, 2)]
    assert results(jscope_case(persistent)[1]) == RIGHT


@pytest.mark.parametrize("case", [haiku_case, linen_case])
def test_under_an_outer_jit_the_second_scope_reads_the_first(case, persistent):
    assert results(jax.jit(case(persistent)[1])) == [(2, 2), (5, 5)]
    assert results(jax.jit(jscope_case(persistent)[1])) == RIGHT


@pytest.mark.parametrize("case", [haiku_case, linen_case])
def test_init_makes_one_of_two_parameters_and_leaks_a_tracer(case, persistent):
    key = jax.random.key(0)
    params = case(persistent)[0](key, X)
    assert list(params) == ["a"]
    assert isinstance(params["a"]["w"], jax.core.Tracer)
    params = jscope_case(persistent)[0](key, X)
    assert params.names == ("a/w", "b/w")
    assert [float(leaf) for leaf in params.flat().values()] == [1, 1]


@pytest.mark.parametrize("case", [haiku_case, linen_case])
def test_without_a_transform_they_are_right(case):
    """So the fault is not in the programs."""
    assert results(case(lambda f: f)[1]) == RIGHT


def test_nnx_modules_that_are_no_arguments(persistent):
    class Scale(nnx.Module):
        def __init__(self, w):
            self.w = nnx.Param(jnp.float32(w))

        def __call__(self, x):
            return x * self.w[...]

    layer = Scale(2)
    block = persistent(lambda x: layer(x))
    got = [float(block(X))]
    layer.w[...] = jnp.float32(5)
    got.append(float(block(X)))
    assert got == [2, 2]

    for jit in (jax.jit, nnx.jit):
        passed = jit(lambda layer, x: layer(x))
        for w in (5, 7):
            layer.w[...] = jnp.float32(w)
            assert passed(layer, X) == w

    block = persistent(lambda x: x * js.get_variable("w", []))
    net = js.transform(lambda x: block(x))
    assert [float(net.apply({"w": jnp.float32(w)}, X)) for w in (2, 5)] == [2, 5]


class LinenTurn(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x * self.param("w", nn.initializers.ones, []), None


def linen_scan(name):
    scanned = nn.scan(LinenTurn, variable_broadcast="params", split_rngs={"params": False}, length=1)
    return lambda x: scanned(name=name)(x, None)[0]


def test_their_own_transforms_are_right():
    # Module-level use of these is refused, so they are made anew in each call.
    assert results(haiku_net(lambda x: hk.remat(haiku_scale)(x)).apply) == RIGHT
    body = lambda c, _: (haiku_scale(c), None)  # noqa: E731
    assert results(haiku_net(lambda x: hk.scan(body, x, None, length=1)[0]).apply) == RIGHT
    branches = haiku_scale, jnp.negative
    assert results(haiku_net(lambda x: hk.cond(x > 0, *branches, x)).apply) == RIGHT
    for layer in (nn.jit(LinenScale), nn.remat(LinenScale), linen_scan):

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                return layer(name="a")(x), layer(name="b")(x)  # noqa: B023 (called at once)

        assert results(lambda params, x: Net().apply({"params": params}, x)) == RIGHT


def test_haiku_can_check(persistent):
    with hk.config.context(check_jax_usage=True):
        _, apply = haiku_case(persistent)
        with pytest.raises(Exception, match="You need to use a Haiku overloaded transform"):
            results(apply)


BLOCKS = re.findall(r"```py\n(.*?)```\s*```text\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("code", "output"), BLOCKS, ids=["haiku", "haiku-init", "linen", "nnx"])
def test_the_page_shows_what_they_print(code, output):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "page.py", "exec"), {"__name__": "page"})
    assert printed.getvalue() == output


def test_each_of_their_blocks_is_run():
    assert len(BLOCKS) == PAGE.count("```py\n") == PAGE.count("```text\n")
