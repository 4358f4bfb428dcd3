"""What the kit draws: special values, 64 bits where they are on, trees of a size, meshes; and what drives a loop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from paths import ROOT

import jscope as js
from jscope import testing

few = settings(testing.profile, max_examples=8, database=None)


@pytest.mark.parametrize(
    "is_there",
    [np.isnan, np.isposinf, np.isneginf, lambda x: (x == 0) & np.signbit(x), lambda x: (x > 0) & (x < 1e-38)],
    ids=["nan", "inf", "-inf", "-0.0", "subnormal"],
)
def test_special_values_come_up(is_there: Any) -> None:
    assert (
        find(testing.arrays((3,), jnp.float32, special=True), lambda x: bool(is_there(np.asarray(x)).any())).size == 3
    )


def test_special_integers_come_up() -> None:
    assert find(testing.arrays((), jnp.uint8, special=True), lambda x: int(x) == 255) == 255


@given(x=testing.arrays((2, 2), jnp.float32, elements=st.floats(0, 1, width=32)))
@few
def test_elements_are_those_that_are_asked_for(x: jax.Array) -> None:
    assert ((x >= 0) & (x <= 1)).all()
    assert x.shape == (2, 2)


def test_64_bits_come_up_where_they_are_on() -> None:
    drawn = testing.dtypes()
    names: set[str] = set()

    @given(dtype=drawn)
    @settings(few, max_examples=60)
    def collect(dtype: Any) -> None:
        names.add(dtype.name)
        assert jnp.zeros(2, dtype).dtype == dtype

    collect()
    assert not names & {"float64", "int64"}
    with jax.enable_x64(True):
        collect()
    assert names >= {"float64", "int64"}


@given(array=testing.arrays())
@few
def test_an_array_is_what_it_is_shown_as(array: jax.Array) -> None:
    pasted = getattr(jnp, "bool_" if array.dtype == bool else array.dtype.name)(np.asarray(array).tolist())
    assert array.size == 0 or (pasted.dtype == array.dtype and (pasted == array).all())


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (lambda: testing.arrays((-1,), jnp.float32), r"\(-1,\) is no shape"),
        (lambda: testing.arrays(2, jnp.float32), "2 is no shape"),
        (lambda: testing.arrays(st.just("ab"), jnp.float32), "'ab' is no shape"),
        (lambda: testing.arrays((2,), jnp.int32, elements=st.just(0.5)), r"\[0.5, 0.5\], which int32 can't hold"),
        (lambda: testing.arrays((1,), jnp.int8, elements=st.just(200)), "which int8 can't hold"),
        (lambda: testing.arrays((1,), jnp.bool_, elements=st.just(2)), "which bool can't hold"),
        (lambda: testing.arrays((1,), jnp.float16, elements=st.just(1e6)), r"\[1000000.0\], which float16 can't hold"),
        (lambda: testing.arrays((1,), jnp.float8_e4m3fn, elements=st.just(1e6)), "which float8_e4m3fn can't hold"),
        (lambda: testing.arrays((1,), jnp.int32, elements=st.just(float("nan"))), "which int32 can't hold"),
        (lambda: testing.arrays((1,), jnp.float32, elements=st.just(1j)), "which float32 can't hold"),
        (lambda: testing.arrays((1,), jnp.float32, elements=st.just("a")), "which float32 can't hold"),
        (lambda: testing.meshes(axes="data"), r"axes='data' is one name"),
        (lambda: testing.shardings(testing.meshes(), 4), "4 is no shape"),
    ],
)
def test_what_can_not_be_drawn_is_told(strategy: Callable[[], Any], words: str) -> None:
    with pytest.raises(js.BadArgumentError, match=words) as caught:
        find(strategy(), lambda _: True)
    assert caught.value.fix
    assert f"{__file__}:{strategy.__code__.co_firstlineno}" == caught.value.where  # where it is made


def test_elements_may_be_infinite_where_they_are_meant() -> None:
    drawn = find(testing.arrays((2,), jnp.float16, elements=st.just(float("inf"))), lambda _: True)
    assert drawn.tolist() == [float("inf")] * 2


def test_a_strategy_that_is_drawn_by_pytest_is_told_where_it_was_made() -> None:
    @given(x=testing.arrays((1,), jnp.int8, elements=st.just(200)))
    @few
    def test(x: jax.Array) -> None:
        raise AssertionError

    with pytest.raises(js.BadArgumentError) as caught:
        test()
    assert f"{__file__}:" in caught.value.where


@pytest.mark.parametrize("dtype", [jnp.int64, jnp.float64, np.uint64])
def test_wide_arrays_are_as_narrow_as_those_of_jax(dtype: Any) -> None:
    found = find(testing.arrays((3,), dtype, special=True), lambda x: bool((abs(x) > 2**30).any()))
    assert found.dtype == jax.dtypes.canonicalize_dtype(dtype)
    one = find(testing.arrays((1,), dtype, elements=st.just(3)), lambda _: True)
    assert one.tolist() == [3]


@given(tree=testing.params(min_leaves=3, max_leaves=4, colliding=False), data=st.data())
@few
def test_trees_have_the_size_that_is_asked_for(tree: js.Params, data: st.DataObject) -> None:
    assert 3 <= len(tree.names) <= 4
    assert js.Params(tree.to_dict()) == tree


@pytest.mark.slow
def test_meshes_of_eight_devices_split_arrays() -> None:
    code = """
import jax, jax.numpy as jnp
from hypothesis import find, given, settings
from jscope import testing

SHAPE = (4, 6)
seen = set()

@given(testing.shardings(testing.meshes(), SHAPE))
@settings(testing.profile, max_examples=30, database=None, derandomize=True)
def test(sharding):
    array = jax.device_put(jnp.ones(SHAPE), sharding)
    assert array.sharding == sharding
    seen.add((sharding.mesh.size, str(sharding.spec)))

test()
assert max(size for size, _ in seen) > 1 and len(seen) > 5, seen
assert find(testing.meshes(), lambda mesh: True).size == 1
"""
    flags = {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "PYTHONPATH": str(ROOT),
    }
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **flags}, check=True)


def test_the_profile_leaves_no_explanation_to_hypothesis() -> None:
    assert Phase.explain not in testing.profile.phases
    assert testing.profile.deadline is None
    # By its text: each has a database of its own, and the lowest version of hypothesis tells these apart.
    assert repr(settings.get_profile("jscope")) == repr(testing.profile)


class Loop(testing.TrainingMachine):
    """A loop that is right; each test below breaks one thing in it."""

    @staticmethod
    def start(key: jax.Array) -> Any:
        return {"w": jnp.ones(2), "count": jnp.zeros([], jnp.int32)}

    @staticmethod
    def step(state: Any, batch: Any) -> Any:
        return {"w": 0.5 * state["w"] + batch, "count": state["count"] + 1}

    def batches(self) -> Any:
        return testing.arrays((2,), jnp.float32)


def failure(machine: type[testing.TrainingMachine]) -> str:
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(machine, settings=settings(few, max_examples=25, derandomize=True))
    return str(caught.value)


def test_a_right_loop_passes() -> None:
    run_state_machine_as_test(Loop, settings=settings(few, max_examples=5))


def test_a_step_may_take_the_memory_of_its_state() -> None:
    class Donates(Loop):
        step = staticmethod(jax.jit(Loop.step, donate_argnums=0))

    run_state_machine_as_test(Donates, settings=settings(few, derandomize=True))


def test_what_is_lost_in_a_file_is_told() -> None:
    class Lossy(Loop):
        def save_and_load(self, state: Any) -> Any:
            return {"w": state["w"], "count": 0 * state["count"]}

    assert failure(Lossy) == (
        "In training, a state that was saved and loaded is another:\n"
        "  - ['count']: 1 of 1 elements differ, first at []: 1, then 0"
    )


def test_a_step_that_changes_a_dtype_is_told() -> None:
    class Widens(Loop):
        @staticmethod
        def step(state: Any, batch: Any) -> Any:
            return {"w": state["w"].astype(jnp.bfloat16), "count": state["count"]}

    assert failure(Widens) == (
        "In training, a step changed names, shapes or dtypes:\n  - ['w']: 'float32[2]', then 'bfloat16[2]'"
    )


def test_a_step_that_means_something_else_under_jit_is_told() -> None:
    class Traced(Loop):
        @staticmethod
        def step(state: Any, batch: Any) -> Any:
            return {**state, "w": state["w"] + isinstance(batch, jax.core.Tracer)}

    assert failure(Traced).startswith("In training, a jitted step gives something else than an eager one:\n  - ['w']")


def test_what_is_left_where_large_numbers_cancel_is_rounding() -> None:
    """Zero but for rounding, which is not the same under jit: no fault, however small the result itself is."""

    def cancels(x: jax.Array) -> jax.Array:
        # XLA without its optimizations computes the same jitted: so it is asked for another order of the sum.
        order = -1 if isinstance(x, jax.core.Tracer) else 1
        return jnp.mean(x * 3.3) - 3 * jnp.mean(x[::order] * 1.1)

    class Cancels(Loop):
        @staticmethod
        def step(state: Any, batch: Any) -> Any:
            return {**state, "w": state["w"] + 0 * batch, "rest": cancels(jnp.sin(jnp.arange(1000.0)) + batch[0])}

        @staticmethod
        def start(key: jax.Array) -> Any:
            return {**Loop.start(key), "rest": jnp.zeros([])}

    x = jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)
    assert cancels(x) != jax.jit(cancels)(x)
    testing.assert_functional(cancels, x)
    testing.assert_same_under(cancels, x, atol=0)
    run_state_machine_as_test(Cancels, settings=settings(few, max_examples=5))
    with pytest.raises(AssertionError, match=r"by (1e-05|9.99e-06) at most"):
        testing.assert_functional(lambda x: cancels(x) + 1e-5 * isinstance(x, jax.core.Tracer), x)


@pytest.mark.slow
def test_a_loop_that_goes_on_elsewhere_is_told() -> None:
    class Restarts(Loop):
        @staticmethod
        def start(key: jax.Array) -> Any:
            return {"w": jnp.array(np.random.default_rng().normal(size=2)), "count": jnp.zeros([], jnp.int32)}

        def save_and_load(self, state: Any) -> Any:
            self.first = type(self).start(jax.random.key(0))
            return state

    assert failure(Restarts).startswith("In training, the same steps from the same start give another state:")


@pytest.mark.parametrize(("name", "bound"), [("start", lambda self, key: None), ("step", lambda self, state, batch: 0)])
def test_a_method_that_takes_the_machine_itself_is_told(name: str, bound: Any) -> None:
    with pytest.raises(js.BadArgumentError, match=rf"(?s)Bound\.{name} .* no static method.*@staticmethod") as caught:
        run_state_machine_as_test(type("Bound", (Loop,), {name: bound}), settings=few)
    assert __file__ in caught.value.where
    # A function that does not take it is right as it is.
    free = type("Free", (Loop,), {name: lambda *args: getattr(Loop, name)(*args)})
    run_state_machine_as_test(free, settings=settings(few, max_examples=1, stateful_step_count=2))


def test_a_machine_says_what_it_lacks() -> None:
    with pytest.raises(js.BadArgumentError, match=r"(?s)how training starts.*Fix: give it a static method start"):
        testing.TrainingMachine.start(jax.random.key(0))
