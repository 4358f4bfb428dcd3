"""Functions under transforms that live longer than a call, what they do to the world, and the world around them."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from leaks import checking_leaks
from matrix import (
    CHEAP,
    CONTEXTS,
    EAGER_IS_SLOW,
    SINGLES,
    X,
    arrays,
    caller,
    counting,
    in_scopes,
    in_sites,
    may_be_refused,
    over_singles,
    product,
    twice,
)
from transforms import TRANSFORMS, depth, executions, model, name_of, wrapped

import jscope as js


class Layer:
    def product(self, x: Any) -> Any:
        return product(x)


LAYER = Layer()
MODULE_LEVEL = {transform.name: transform.wrap(product) for transform in TRANSFORMS}
CACHED: dict[str, Callable[[Any], Any]] = {}

LIVES: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
    "fresh": lambda transform: lambda x: transform.wrap(lambda x: product(x))(x),
    "module": lambda transform: MODULE_LEVEL[transform.name],
    "method": lambda transform: lambda x: transform.wrap(LAYER.product)(x),  # a new object each time, equal to the last
    "cached": lambda transform: lambda x: CACHED.setdefault(transform.name, transform.wrap(product))(x),
}


def check_life(block: Callable[[Any], Any], depth: int, context: str) -> None:
    """Outside any program, then in two programs, with two trees in turns, and outside again."""
    nets = {scopes: js.transform(in_scopes(block, scopes)) for scopes in ("aab", "bc")}
    calls = {scopes: CONTEXTS[context](lambda tree, x, net=net: net.apply(tree, x)) for scopes, net in nets.items()}
    with pytest.raises(js.OutsideProgramError) as caught:
        block(jnp.float32(X))
    assert Path(caught.value.where.rpartition(":")[0]).name in ("matrix.py", "transforms.py")
    for scopes, net in nets.items():
        assert list(net.specs(jnp.float32(X))) == [f"{scope}/w" for scope in dict.fromkeys(scopes)]
    for tree in ({"a/w": 2.0, "b/w": 4.0, "c/w": 0.5}, {"a/w": -0.5, "b/w": 8.0, "c/w": -1.0}):
        for scopes, call in calls.items():
            want = X
            for scope in scopes:
                want *= tree[f"{scope}/w"] ** depth
            assert call(arrays(tree), jnp.float32(X)) == want
    with pytest.raises(js.OutsideProgramError):
        block(jnp.float32(X))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("context", EAGER_IS_SLOW)
@pytest.mark.parametrize(
    "life", ["module", "method", *(pytest.param(life, marks=pytest.mark.slow) for life in ("fresh", "cached"))]
)
@over_singles
def test_lives(nesting, life, context):
    check_life(LIVES[life](*nesting), depth(nesting), context)


class Decorated:
    """Methods that are decorated where they are defined, as users do."""

    @functools.partial(jax.jit, static_argnums=0)
    def jit(self, x: Any) -> Any:
        return product(x)

    @functools.partial(jax.checkpoint, static_argnums=0)
    def checkpoint(self, x: Any) -> Any:
        return product(x)

    @staticmethod
    @jax.vmap
    def vmap(x: Any) -> Any:
        return product(x)


@pytest.mark.parametrize("context", ["eager", "jit"])
@pytest.mark.parametrize("method", ["jit", "checkpoint", "vmap"])
def test_decorated_methods(method, context):
    block = getattr(Decorated(), method)
    check_life((lambda x: block(x[None])[0]) if method == "vmap" else block, 1, context)


# Effects happen exactly once ------------------------------------------------------------------------------------------


class Noted:
    """What `jax.debug.callback` brought."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def note(self, x: Any) -> None:
        jax.debug.callback(lambda x: self.values.append(float(x)), x)

    def take(self) -> list[float]:
        jax.effects_barrier()
        values, self.values = sorted(self.values), []
        return values


@pytest.mark.sampled(2)
@pytest.mark.parametrize("context", EAGER_IS_SLOW)
@over_singles
def test_effects_happen_once(nesting, context):
    """In `update` as in the same program without variables, whether or not it assigns; in `specs` and `init` never."""
    noted, want = Noted(), []

    def body(x):
        noted.note(x)
        with js.variable_scope("m", reuse=js.AUTO_REUSE):
            x = x * js.get_variable("w", [])
        return counting(x) if assigns else x

    def one_site(x):
        want.append(x)
        return x + assigns * len(want)

    for assigns in (False, True):
        if assigns and may_be_refused(nesting):
            continue
        want.clear()
        model(nesting, lambda: one_site)(X)
        net = js.transform(wrapped(nesting, body))
        assert list(net.specs(jnp.float32(X))) == ["m/w", "m/n", "m/total"][: 3 if assigns else 1]
        net.init(CHEAP, jnp.float32(X))
        assert noted.take() == []
        tree = arrays({"m/w": 1.0, "m/n": 0.0, "m/total": 0.0})
        CONTEXTS[context](caller(net, "update"))(tree, jnp.float32(X))
        assert noted.take() == sorted(want)


@pytest.mark.sampled(2)
@over_singles
def test_effects_happen_once_where_errors_are_swallowed(nesting):
    noted, want = Noted(), []

    def body(x):
        noted.note(x)
        try:
            return x + js.get_variable("w", [])  # without reuse: only the first site makes it
        except:  # noqa: E722
            return x + 1000

    def one_site(i, x):
        want.append(x)
        return x + (1000 if i else 7)

    value = in_sites(nesting, one_site)
    net = js.transform(twice(wrapped(nesting, body)))
    assert list(net.specs(jnp.float32(X))) == ["a/w"]
    assert noted.take() == []
    for call in (jax.jit(net.apply), jax.jit(lambda *args: net.update(*args)[0])):
        assert call({"a/w": jnp.float32(7)}, jnp.float32(X)) == value
        assert noted.take() == sorted(want)


@over_singles
def test_a_refused_assignment_that_is_swallowed_changes_nothing(nesting):
    def body(x):
        try:
            n = js.get_variable("n", [], trainable=False)
            js.assign(n, n + 1)
        except:  # noqa: E722
            return x - 1
        return x + 1

    net = js.transform(in_scopes(wrapped(nesting, body), "a"))
    out, after = jax.jit(net.update)({"a/n": jnp.float32(5)}, jnp.float32(X))
    if may_be_refused(nesting):
        assert (out, after["a/n"]) == (X - depth(nesting), 5)
    else:
        assert (out, after["a/n"]) == (X + depth(nesting), 5 + executions(nesting))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("context", EAGER_IS_SLOW)
@over_singles
def test_a_ref_of_the_caller(nesting, context):
    """Is added to as often as the program says, whether or not jscope carries refs of its own."""
    if may_be_refused(nesting):
        pytest.skip(may_be_refused(nesting))
    if name_of(nesting) == "compile_time_eval":
        pytest.skip("what depends on no argument is done while tracing, at each trace: that is what it is for")
    for f in (product, counting):
        ref = jax.new_ref(jnp.float32(0))
        net = js.transform(in_scopes(wrapped(nesting, adding_to(ref, f)), "ab"))
        tree = arrays(dict.fromkeys(net.specs(jnp.float32(X)), 1.0))
        call = CONTEXTS[context](caller(net, "update"))
        for times in (1, 2):
            call(tree, jnp.float32(X))
            assert ref[...] == times * 2 * executions(nesting)


def adding_to(ref: Any, f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def body(x: Any) -> Any:
        ref[...] += 1
        return f(x)

    return body


# Surroundings ---------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@over_singles
def test_nothing_leaks(nesting):
    """With functions that end with the program: for those that live on, JAX keeps what they closed over."""
    net = js.transform(lambda x: in_scopes(wrapped(nesting, lambda x: counting(x) if counted else product(x)), "ab")(x))
    for counted in (False, True):
        if counted and may_be_refused(nesting):
            continue
        names = ("a/m/n", "a/m/total", "b/m/n", "b/m/total") if counted else ("a/w", "b/w")
        gc.freeze()  # JAX looks for leaks by collecting garbage: not among all that is there before
        try:
            with checking_leaks():
                assert net.init(CHEAP, jnp.float32(X)).names == names
                jax.jit(net.update)(arrays(dict.fromkeys(names, 1.0)), jnp.float32(X))
        finally:
            gc.unfreeze()


def all_blocks(scope: str) -> Callable[[Any], Any]:
    """A program that calls every block of the module, in a scope for each."""

    def program(x: Any) -> Any:
        for name, block in MODULE_LEVEL.items():
            with js.variable_scope(f"{scope}/{name}", reuse=js.AUTO_REUSE):
                x = block(x)
        return x

    return program


def check_all_blocks(scope: str, context: str) -> None:
    """Each block's own variable is 2, or 1, in a different place each time."""
    call = CONTEXTS[context](js.transform(all_blocks(scope)).apply)
    for two in ("scan3", "associative_scan", "jit"):
        tree = {f"{scope}/{name}/w": jnp.float32(2 if name == two else 1) for name in MODULE_LEVEL}
        (nesting,) = (row for row in SINGLES if name_of(row) == two)
        assert call(tree, jnp.float32(X)) == X * 2 ** depth(nesting)


@pytest.mark.parametrize("context", EAGER_IS_SLOW)
def test_threads(context):
    """Four at once, each with programs and trees of its own, through the same blocks."""
    start, faults = threading.Barrier(4), []

    def work(scope):
        try:
            start.wait()
            check_all_blocks(scope, context)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(scope,)) for scope in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.mark.slow
def test_the_cache_on_disk(tmp_path):
    """Two processes, the second of which compiles nothing that the first has compiled."""
    script = f"""
import jax
jax.config.update("jax_compilation_cache_dir", {str(tmp_path)!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import test_transforms_lives as lives
lives.check_all_blocks("a", "jit")
lives.check_all_blocks("b", "jit")
lives.check_life(lives.MODULE_LEVEL["scan3"], 3, "eager")
"""
    here = Path(__file__).parent
    kept = []
    for _ in range(2):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        kept.append(len([file for file in tmp_path.iterdir() if file.name.endswith("-cache")]))
    assert kept[0] > 4
    assert kept[1] == kept[0]
