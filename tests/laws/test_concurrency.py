"""Isolation: threads, asyncio tasks, copied contexts, generators, nested programs, and all of it under `python -O`."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback
from paths import ROOT

import jscope as js

KEY = jax.random.key(0)


def in_thread(f):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(f).result()


def test_threads_do_not_see_each_others_scopes():
    barrier = threading.Barrier(4, timeout=30)

    def work(n):
        with js.build(KEY) as built, js.variable_scope(f"t{n}"):
            barrier.wait()
            js.get_variable("v", [n])
            barrier.wait()
            assert js.get_variable_scope().name == f"t{n}"
        return built.params.names

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [(f"t{n}/v",) for n in range(4)]


def test_many_threads_call_one_program():
    def program(x):
        with js.variable_scope(None, "d"), js.variable_scope("s"):
            return x * js.get_variable("w", [])

    net = js.transform(program)
    with ThreadPoolExecutor(8) as pool:
        out = list(pool.map(lambda n: float(net.apply({"d/s/w": float(n)}, 2.0)), range(200)))
    assert out == [2.0 * n for n in range(200)]


def test_a_new_thread_is_outside():
    with js.build(KEY), pytest.raises(js.OutsideProgramError, match="outside any program"):
        in_thread(lambda: js.get_variable("v", []))


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("call", [jax.pure_callback, io_callback, jax.debug.callback], ids=lambda call: call.__name__)
def test_a_callback_is_no_part_of_the_program(call, jitted):
    """It runs on the host, without a trace of its own where nothing is jitted; `specs` never sees what it asks for."""
    said = []

    def on_host(x):
        for ask in (
            lambda: js.get_variable("w", []),
            lambda: jax.tree.map(lambda x: js.get_variable("w", []), x),
            lambda: jax.jit(lambda x: x * js.get_variable("w", []))(x),
            lambda: js.variable_scope("s").__enter__(),
            lambda: js.next_key(),
        ):
            with pytest.raises(js.OutsideProgramError) as caught:
                ask()
            assert "give the array to the callback as an argument" in caught.value.fix
            said.append(caught.value.what)
        with js.build(KEY):  # a program of its own is none of the outer one's
            js.get_variable("own", [])
        return np.asarray(js.transform(lambda: js.get_variable("w", [])).apply({"w": 2.0}), np.float32) * x

    def program(x):
        with js.variable_scope("s"):
            if call is jax.debug.callback:
                return call(on_host, x)
            return call(on_host, jax.ShapeDtypeStruct((), jnp.float32), x)

    net, x = js.transform(program), jnp.float32(3)
    assert not net.specs(x)
    jax.block_until_ready((jax.jit(net.apply) if jitted else net.apply)({"s/w": 1.0, "w": 1.0}, x, rng=KEY))
    jax.effects_barrier()
    assert len(said) == 5
    assert all("outside any program" in what or "in a callback" in what for what in said)


def test_a_frame_is_of_no_use_in_another_thread_or_context():
    with js.build(KEY) as built:
        context = contextvars.copy_context()
        with pytest.raises(js.OutsideProgramError, match="another thread or context"):
            in_thread(lambda: context.run(js.get_variable, "v", []))
        with pytest.raises(js.OutsideProgramError, match="another thread or context"):
            context.run(js.get_variable, "v", [])
        js.get_variable("w", [])
    with pytest.raises(js.OutsideProgramError, match="after its program has ended"):
        context.run(js.get_variable, "v", [])
    assert built.params.names == ("w",)


def test_a_getter_of_another_program_is_told_as_such():
    kept = []

    def keeping(getter, *args, **kwargs):
        kept.append(getter)
        return getter(*args, **kwargs)

    def program():
        with js.variable_scope("s", custom_getter=keeping):
            js.get_variable("v", [])
        return js.transform(lambda: kept[0]("s/w", [])).specs()

    for run in (program, lambda: kept[0]("s/w", [])):  # while the other one runs, and when it has ended
        with pytest.raises(js.OutsideProgramError, match="a getter belongs to another program"):
            js.transform(run).specs()


def test_asyncio_tasks_each_run_their_own_programs():
    net = js.transform(lambda: js.get_variable("w", []))

    async def work(n):
        seen = []
        for _ in range(3):
            with js.build(KEY), js.variable_scope(f"t{n}"):
                seen.append(js.get_variable_scope().name)
            await asyncio.sleep(0)
            seen.append(float(net.apply({"w": float(n)})))
        return seen

    async def main():
        return await asyncio.gather(*map(work, range(3)))

    assert asyncio.run(main()) == [[f"t{n}", float(n)] * 3 for n in range(3)]


def test_a_task_started_inside_a_program_is_outside_it():
    async def child():
        js.get_variable("v", [])

    async def main():
        with js.build(KEY):
            task = asyncio.ensure_future(child())
        await task

    with pytest.raises(js.OutsideProgramError):
        asyncio.run(main())


def test_nested_programs_do_not_see_each_other():
    inner = js.transform(lambda: (js.get_variable_scope().name, js.get_variable("v", [])))

    def program():
        with js.variable_scope("outer", dtype=jnp.float16):
            name, value = inner.apply({"v": 3.0})
            assert (name, value.dtype) == ("", jnp.float32)
            assert list(inner.specs()) == ["v"]
            assert inner.init(KEY).names == ("v",)
            return js.get_variable("v", [])

    net = js.transform(program)
    assert list(net.specs()) == ["outer/v"]
    with js.build(KEY) as built:
        program()
    assert built.params.names == ("outer/v",)


async def _as_coroutine(call):
    return call()


@pytest.mark.parametrize(
    "run",
    [
        lambda call: contextvars.copy_context().run(call),
        lambda call: asyncio.run(_as_coroutine(call)),
        lambda call: asyncio.run(asyncio.to_thread(call)),
        lambda call: in_thread(functools.partial(contextvars.copy_context().run, call)),
    ],
    ids=["copied", "asyncio.run", "asyncio.to_thread", "thread"],
)
def test_a_whole_program_may_run_in_a_copied_context(run):
    inner = js.transform(lambda: js.get_variable("w", []))

    def program():
        with js.variable_scope("s"):
            first = run(lambda: inner.apply({"w": 1.0}))
            return first, js.get_variable("w", []), run(lambda: inner.apply({"w": 3.0})), js.get_variable_scope().name

    assert js.transform(program).apply({"s/w": 2.0}) == (1.0, 2.0, 3.0, "s")
    with js.build(KEY) as built:
        run(lambda: inner.apply({"w": 1.0}))
        js.get_variable("v", [2])
    assert built.params.names == ("v",)


def test_a_program_may_outlive_the_one_whose_context_it_was_given():
    """Each gives back the token of its own, or two programs would be given each other's cached traces."""
    started, go = threading.Event(), threading.Event()

    def slow():
        started.set()
        assert go.wait(30)
        return js.get_variable("w", [])

    @jax.jit
    def block(x):
        return x * js.get_variable("w", [])

    def starts():
        pool.submit(contextvars.copy_context().run, js.transform(slow).apply, {"w": 1.0})
        assert started.wait(30)

    with ThreadPoolExecutor(1) as pool:
        js.transform(starts).apply({})
        go.set()
    one = js.transform(lambda x: block(x))
    between = js.transform(lambda x: one.apply({"w": 100.0}, x))
    both = js.transform(lambda x: (between.apply({}, x), block(x)))
    assert both.apply({"w": 1.0}, jnp.float32(1)) == (100.0, 1.0)


def test_a_scope_object_may_cross_threads():
    def other(scope):
        with js.build(KEY) as built, js.variable_scope(scope):
            js.get_variable("v", [])
        return built.params.names

    with js.build(KEY), js.variable_scope("a") as scope:
        assert in_thread(lambda: other(scope)) == ("a/v",)


# Generators -----------------------------------------------------------------------------------------------------------


def scopes():
    with js.variable_scope("g"), js.name_scope("n"):
        yield js.get_variable_scope().name
        yield "never"


def test_a_suspended_generator_keeps_its_scope_open_and_closing_it_unwinds():
    with js.build(KEY):
        generator = scopes()
        assert next(generator) == "g"
        assert js.get_variable_scope().name == "g"
        generator.close()
        assert js.get_variable_scope().name == ""


def test_a_generator_that_outlives_its_program_can_be_dropped():
    kept = []

    def program():
        generator = scopes()
        next(generator)
        kept.append(generator)

    net = js.transform(program)
    for _ in range(2):
        net.specs()
    kept.clear()
    gc.collect()  # pytest makes an error of whatever a generator raises here
    with pytest.raises(js.OutsideProgramError):
        js.get_variable_scope()


def test_a_generator_is_no_program():
    with pytest.raises(js.BadTypeError, match="its body runs after it has ended"):
        js.transform(scopes)
    generator = js.transform(lambda: scopes()).apply({})
    with pytest.raises(js.OutsideProgramError):
        next(generator)


def test_a_generator_can_be_closed_in_another_program():
    with js.build(KEY):
        generator = scopes()
        next(generator)
    with js.build(KEY), js.variable_scope("other"):
        generator.close()
        assert js.get_variable_scope().name == "other"


def test_a_getter_is_of_no_use_outside_its_program():
    kept = []

    def getter(getter, name, *args, **kwargs):
        kept.append(getter)
        return getter(name, *args, **kwargs)

    js.transform(lambda: js.get_variable("v", [2], custom_getter=getter)).specs()
    with pytest.raises(js.OutsideProgramError):
        kept[0]("w", [2])
    with js.build(KEY) as built, pytest.raises(js.OutsideProgramError):
        kept[0]("w", [2])
    assert not built.params.names


def test_one_build_is_not_entered_twice_at_once():
    built = js.build(KEY)
    with built, pytest.raises(js.ScopeExitError, match="running already"):
        built.__enter__()
    with pytest.raises(js.OutsideProgramError):
        js.get_variable_scope()


def test_programs_left_out_of_order():
    def session():
        with js.build(KEY):
            yield js.get_variable_scope()

    first, second = session(), session()
    next(first)
    next(second)
    with pytest.raises(js.ScopeExitError, match="opened later still runs"):
        first.close()
    js.get_variable("v", [])  # in the second
    second.close()
    with pytest.raises(js.OutsideProgramError, match="outside any program"):
        js.get_variable("v", [])
    assert js.transform(lambda: js.get_variable("v", [])).apply({"v": 1.0}) == 1


# Leaving --------------------------------------------------------------------------------------------------------------


def test_exceptions_unwind():
    with js.build(KEY):
        with pytest.raises(KeyError), js.variable_scope("a"), js.name_scope("b"), js.variable_scope("c"):
            raise KeyError
        assert js.get_variable_scope().name == ""
        with js.name_scope("d") as name:
            assert name == "d/"


def test_out_of_order():
    with js.build(KEY):
        outer, inner = js.variable_scope("a"), js.variable_scope("b")
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(js.ScopeExitError, match="Improper nesting: scope 'a' is left while 'a/b'"):
            outer.__exit__(None, None, None)
        assert js.get_variable_scope().name == "a/b"
        inner.__exit__(None, None, None)
        outer.__exit__(None, None, None)
        assert js.get_variable_scope().name == ""
        with pytest.raises(js.ScopeExitError, match="not open"):
            outer.__exit__(None, None, None)
        with pytest.raises(js.ScopeExitError, match="not open"):
            js.name_scope("n").__exit__(None, None, None)


def test_jax_names_come_out_right_after_a_scope_left_out_of_order():
    def program(x):
        outer, inner = js.variable_scope("a"), js.variable_scope("b")
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(js.ScopeExitError):
            outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        x = jnp.sin(x)
        outer.__exit__(None, None, None)
        return jnp.cos(x)

    text = jax.jit(js.transform(program).apply).lower({}, 1.0).as_text(debug_info=True)
    assert '"jit(program)/a/sin"' in text
    assert '"jit(program)/cos"' in text


def test_jax_names_come_out_right_after_op_scopes_left_in_the_order_of_entry():
    def program(x):
        first, second = js.name_scope("first"), js.name_scope("second")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        x = jnp.sin(x)
        second.__exit__(None, None, None)
        return jnp.cos(x)

    def two(x):
        return jnp.tan(js.transform(program).apply({}, x))

    text = jax.jit(two).lower(1.0).as_text(debug_info=True)
    assert '"jit(two)/second/sin"' in text
    assert '"jit(two)/cos"' in text
    assert '"jit(two)/tan"' in text


def test_all_of_it_under_python_minus_o():
    """Nothing of it hangs on an `assert`: these tests, their own asserts kept, run in a process with -O."""
    this = Path(__file__)
    code = f"""
import sys
assert False, "-O must skip this"
import pytest
options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestConfigWarning", "-k", "not python_minus_o"]
sys.exit(pytest.main([*options, r"{this}"]))
"""
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
