"""`arg_scope`: slim's rules, and that a program starts without and leaves nothing behind."""

from __future__ import annotations

import contextvars
import functools
import threading

import jax
import jax.numpy as jnp
import pytest

import jscope as js


@js.add_arg_scope
def f(x, a=1, b=2):
    """Doc of f."""
    return x, a, b


@js.add_arg_scope
def g(x, a=10, *, c=3):
    return x, a, c


def run(program):
    return js.transform(program).apply({})


def test_rules_of_slim():
    def program():
        assert f(0) == (0, 1, 2)
        with js.arg_scope([f, g], a=5):
            assert (f(0), g(0), f(0, a=6), f(0, b=7)) == ((0, 5, 2), (0, 5, 3), (0, 6, 2), (0, 5, 7))
            with js.arg_scope([f], b=8) as inner:
                assert f(0) == (0, 5, 8)
            with js.arg_scope((f,), a=9):
                assert (f(0), g(0)) == ((0, 9, 2), (0, 5, 3))
            assert f(0) == (0, 5, 2)
            with js.arg_scope({}):
                assert f(0) == (0, 1, 2)
        with js.arg_scope([g], c=4), js.arg_scope(inner):
            assert (f(0), g(0)) == ((0, 5, 8), (0, 5, 3))  # what is captured replaces all that was in force
            with js.arg_scope([f], a=11):
                assert f(0) == (0, 11, 8)
        return f(0)

    assert run(program) == (0, 1, 2)


def test_what_a_block_yields_is_a_copy():
    def program():
        with js.arg_scope([f], a=5) as scope:
            scope[f]["a"] = 6
            scope.clear()
            assert js.current_arg_scope() == {f: {"a": 5}}
            js.current_arg_scope()[f]["a"] = 7
            assert f(0) == (0, 5, 2)
        captured = {f: {"a": 8}}
        with js.arg_scope(captured):
            captured[f]["a"] = 9
            assert f(0) == (0, 8, 2)

    run(program)


def test_one_instance_can_be_entered_again():
    scope = js.arg_scope([f], a=5)

    def program():
        with scope, scope:
            assert f(0) == (0, 5, 2)
        with scope:
            return f(0)

    assert run(program) == run(program) == (0, 5, 2)


def test_decorated_function():
    assert (f.__name__, f.__doc__) == ("f", "Doc of f.")
    assert js.arg_scoped_arguments(f) == ("a", "b")
    assert js.arg_scoped_arguments(g) == ("a", "c")

    @functools.wraps(f)
    def wrapper(*args, **kwargs):
        return f(*args, **kwargs)

    def program():
        with js.arg_scope([wrapper], a=5):  # as in slim: a wrapper stands for what it wraps
            return wrapper(0), f(0)

    assert run(program) == ((0, 5, 2), (0, 5, 2))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "words"),
    [
        (([len],), {}, ValueError, "len is not decorated with add_arg_scope"),
        (([f, print],), {"a": 1}, ValueError, "print is not decorated"),
        (({f: {"a": 1}},), {"a": 2}, ValueError, "no arguments beside"),
        (("f",), {"a": 2}, TypeError, "a list of functions"),
        ((f,), {"a": 2}, TypeError, "a list of functions"),
    ],
)
def test_bad_arguments(arguments, keywords, error, words):
    with pytest.raises(error, match=words) as caught:
        js.arg_scope(*arguments, **keywords)
    assert isinstance(caught.value, js.JscopeError)
    assert caught.value.fix
    assert __file__ in caught.value.where


def test_bad_arguments_of_the_others():
    with pytest.raises(js.BadArgumentError, match="not decorated"):
        js.arg_scoped_arguments(len)
    with pytest.raises(js.BadArgumentError, match="not decorated"), js.arg_scope({len: {"a": 1}}):
        pass


def test_an_argument_the_function_does_not_take():
    def program():
        with js.arg_scope([f], nonsense=5):
            f(0)

    with pytest.raises(TypeError, match="nonsense"):
        run(program)


def test_an_argument_by_position():
    def program():
        with js.arg_scope([f], a=5):
            f(0, 1)

    with pytest.raises(TypeError, match="multiple values"):
        run(program)


# Programs -------------------------------------------------------------------------------------------------------------


def defaults():
    with js.arg_scope([f, g], a=5), js.arg_scope([f], b=6) as scope:
        return scope


def test_defaults_are_built_outside_and_used_inside():
    assert defaults() == {f: {"a": 5, "b": 6}, g: {"a": 5}}
    assert js.current_arg_scope() == {}

    def program():
        with js.arg_scope(defaults()):
            return f(0), g(0)

    assert run(program) == ((0, 5, 6), (0, 5, 3))


def test_blocks_around_a_program_are_refused_not_ignored():
    def program():
        return g(0), f(0)

    with js.arg_scope([f], a=5):
        with pytest.raises(js.OutsideProgramError, match="around the running program sets arguments of f") as caught:
            run(program)
        assert "arg_scope({})" in caught.value.fix
        with js.arg_scope({}):
            assert run(program) == ((0, 10, 3), (0, 1, 2))
        assert run(lambda: g(0)) == (0, 10, 3)
        assert run(js.current_arg_scope) == {}
    assert run(program) == ((0, 10, 3), (0, 1, 2))


def test_blocks_of_an_outer_program_are_refused():
    inner = js.transform(lambda: f(0))

    def program(inside):
        with js.arg_scope([f], a=5), js.arg_scope({} if inside else {f: {"a": 5}}):
            return inner.apply({})

    assert js.transform(program).apply({}, True) == (0, 1, 2)
    with pytest.raises(js.OutsideProgramError, match="around the running program"):
        js.transform(program).apply({}, False)


def test_calls_outside_programs():
    assert f(0) == (0, 1, 2)
    with js.arg_scope([f], a=5), pytest.raises(js.OutsideProgramError, match="outside any program"):
        f(0)


def test_nothing_outlives_an_error():
    def program():
        with js.arg_scope([f], a=5), js.arg_scope([f], b=6):
            raise KeyError

    def caught():
        try:
            program()
        except KeyError:
            return f(0)

    assert run(caught) == (0, 1, 2)
    with pytest.raises(KeyError):
        run(program)
    with pytest.raises(KeyError):
        program()
    assert js.current_arg_scope() == run(js.current_arg_scope) == {}


def test_a_cached_trace_is_never_wrong():
    """The block's own JAX cache does not know of the defaults; it must not be hit under others."""

    @jax.jit
    def block(x):
        return f(x)

    def program(x):
        results = []
        for a in (5, 6, 5):
            with js.arg_scope([f], a=a):
                results.append(block(x)[1])
        return [*results, block(x)[1]]

    net = js.transform(program)
    for call in (net.apply, jax.jit(net.apply)):
        assert [int(a) for a in call({}, jnp.ones(()))] == [5, 6, 5, 1]


def test_in_a_scan_body():
    def program(x):
        def body(carry, _):
            with js.arg_scope([f], a=carry):
                return f(0)[1] + 1, f(0)[1]

        return jax.lax.scan(body, x, length=3)

    last, all_of_them = js.transform(program).apply({}, jnp.int32(4))
    assert (int(last), all_of_them.tolist()) == (7, [4, 5, 6])


# Order, threads, generators -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False])
def test_leaving_out_of_order(inside):
    def program():
        first, second = js.arg_scope([f], a=5), js.arg_scope([f], b=6)
        first.__enter__()
        second.__enter__()
        with pytest.raises(js.ScopeExitError, match="out of order"):
            first.__exit__(None, None, None)
        assert js.current_arg_scope() == {f: {"a": 5, "b": 6}}  # the second is still open, as it was entered
        second.__exit__(None, None, None)
        assert js.current_arg_scope() == {}
        with pytest.raises(js.ScopeExitError, match="out of order"):
            second.__exit__(None, None, None)

    run(program) if inside else program()


def test_threads_do_not_see_each_other():
    seen = []

    def other():
        seen.append(js.current_arg_scope())
        with js.arg_scope([f], a=6):
            seen.append(run(lambda: js.current_arg_scope()))

    with js.arg_scope([f], a=5):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert js.current_arg_scope() == {f: {"a": 5}}
    assert seen == [{}, {}]


def test_a_copied_context_has_a_copy():
    with js.arg_scope([f], a=5):
        context = contextvars.copy_context()

    def change():
        js.arg_scope([f], b=6).__enter__()
        return js.current_arg_scope()

    assert context.run(change) == {f: {"a": 5, "b": 6}}
    assert js.current_arg_scope() == {}


def test_a_generator_keeps_it_open():
    def generator():
        with js.arg_scope([f], a=5):
            yield

    kept = []

    def program(close):
        suspended = generator()
        next(suspended)
        inside = f(0)
        suspended.close() if close else kept.append(suspended)
        return inside, f(0)

    assert js.transform(program).apply({}, True) == ((0, 5, 2), (0, 1, 2))
    assert js.transform(program).apply({}, False) == ((0, 5, 2), (0, 5, 2))
    kept.pop().close()  # after the program's end: there is nothing to put back
    assert run(lambda: f(0)) == (0, 1, 2)
