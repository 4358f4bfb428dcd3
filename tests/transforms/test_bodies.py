"""Bodies that JAX calls again, by hand: what tells two functions of one call apart, and what a turn leaves to the next.

`test_one_body.py` goes through JAX's functions; here are the corners, each with what must come out.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg
import pytest
from jax import lax
from leaks import checking_leaks

import jscope as js

KEY = jax.random.key(0)
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def names(program: Callable[..., Any], *args: Any) -> list[str]:
    return list(js.transform(program).specs(*args))


def asks(x: Any) -> Any:
    with js.variable_scope(None, "d"):
        return x + 0 * js.get_variable("w", [])


def retraced(body: Callable[[], Any]) -> Any:
    """`body` in a loop that JAX traces twice, since the carry changes its type; its result is added up."""
    return lax.scan(lambda c, _: (c * jnp.float32(1) + body(), None), 0, None, length=1)[0]


# Two functions of one call --------------------------------------------------------------------------------------------


class Loop:
    """Condition and body by one method, told apart by the object."""

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on

    def turn(self, x: Any) -> Any:
        x = asks(x)
        return x < 1 if self.goes_on else x + 1

    __call__ = turn


def step(which: int, x: Any, one: int = 1, zero: int = 0) -> Any:
    x = asks(x)
    return x < one if which == zero else x + one


def closure(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def wraps(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(function)(closure(function))


def default(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, _function: Callable[..., Any] = function) -> Any:
        return _function(*args)

    return wrapper


def of_class(function: Callable[..., Any]) -> Callable[..., Any]:
    class Holder:
        held = staticmethod(function)

        @classmethod
        def run(cls, *args: Any) -> Any:
            return cls.held(*args)

    return Holder.run


def condition(x: Any) -> Any:
    return asks(x) < 1


def body(x: Any) -> Any:
    return asks(x) + 1


def objects(decorate: Callable[..., Any]) -> tuple[Any, Any]:
    """Condition and body as two objects of a class whose `__call__` is decorated."""

    class Decorated(Loop):
        __call__ = decorate(Loop.turn)

    return Decorated(True), Decorated(False)


def methods(decorate: Callable[..., Any]) -> tuple[Any, Any]:
    return tuple(loop.__call__ for loop in objects(decorate))  # type: ignore[return-value]


DECORATED = {
    "jit": functools.partial(jax.jit, static_argnums=0),
    "checkpoint": functools.partial(jax.checkpoint, static_argnums=0),
    "named_scope": jax.named_scope("n"),
    "named_call": jax.named_call,
    "wraps": wraps,
    "closure": closure,
}

PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "plain": (condition, body),
    "methods": (Loop(True).turn, Loop(False).turn),
    "objects": (Loop(True), Loop(False)),
    "partials": (functools.partial(step, 0), functools.partial(step, 1)),
    "partials by name": (functools.partial(step, 0, one=1), functools.partial(step, 0, zero=1)),
    **{f.__name__: (f(condition), f(body)) for f in (closure, wraps, default, of_class, jax.jit)},
    **{f"objects, {name}": objects(decorate) for name, decorate in DECORATED.items()},
    **{f"methods, {name}": methods(decorate) for name, decorate in DECORATED.items()},
}
each_pair = pytest.mark.parametrize("pair", PAIRS)
# Some of the decorated ones in the suite, and all in the long tests.
IN_THE_SUITE = {pair for pair in PAIRS if ", " not in pair} | {"objects, jit", "methods, wraps"}
each_kind_of_pair = pytest.mark.parametrize(
    "pair", [pytest.param(pair, marks=() if pair in IN_THE_SUITE else pytest.mark.slow) for pair in PAIRS]
)


@each_pair
def test_condition_and_body_are_two_functions(pair: str) -> None:
    goes_on, turn = PAIRS[pair]
    assert names(lambda: lax.while_loop(goes_on, turn, 0.0)) == ["d/w", "d_1/w"]
    # And both, traced a second time, are still the two that they were.
    assert names(lambda: lax.while_loop(lambda s: goes_on(s[0]), lambda s: (turn(s[0]), s[1] * 1.5), (0.0, 1))) == [
        "d/w",
        "d_1/w",
    ]
    # Nor does it matter that JAX is what calls the loop.
    for transformed in (jax.jit, jax.checkpoint):
        assert names(lambda by=transformed: by(functools.partial(lax.while_loop, goes_on, turn))(0.0)) == [
            "d/w",
            "d_1/w",
        ]


@each_kind_of_pair
def test_what_the_body_assigns_is_not_taken_for_the_condition_s(pair: str) -> None:
    """Nor is a body that is a function of JAX's, which calls the user's."""
    goes_on, turn = PAIRS[pair]

    def counts(state: Any) -> Any:
        js.assign("n", js.value("n") + 1)
        return state[0] + 1, turn(state[1])

    def program(body: Any) -> Any:
        js.get_variable("n", [], initializer=js.zeros_initializer(), trainable=False)
        return lax.while_loop(lambda state: (state[0] < 3) & goes_on(state[1] * 0), body, (0, 0.0))

    for body in (counts, jax.jit(counts), functools.partial(lax.fori_loop, 0, 1, lambda _, state: counts(state))):
        net = js.transform(lambda body=body: program(body))
        assert net.update(net.init(KEY), rng=KEY)[1]["n"] == 3


@each_kind_of_pair
def test_they_get_keys_of_their_own(pair: str) -> None:
    seen: dict[str, Any] = {}

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any) -> Any:
            seen.setdefault(name, []).append(js.next_key())
            return function(x)

        return call

    goes_on, turn = PAIRS[pair]
    one, two = closure(noted("condition", goes_on)), closure(noted("body", turn))
    with jax.disable_jit():
        js.transform(lambda: lax.while_loop(one, two, 0.0)).apply({"d/w": 0.0, "d_1/w": 0.0}, rng=KEY)
    assert len({int(jax.random.key_data(key)[0]) for key in seen["condition"]}) == 1
    assert len({int(jax.random.key_data(key)[0]) for keys in seen.values() for key in keys}) == 2


def test_functions_that_can_not_be_told_apart_are_refused_where_it_matters() -> None:
    """Partials of one function that differ in what the function has bound to something else by then."""

    def turn(which: int, k: Any, state: Any) -> Any:
        k, which = k + 1, which + 0
        x = asks(state)
        return x < k if which == 0 else x + k

    k = jnp.float32(3)

    def program() -> Any:
        return lax.while_loop(functools.partial(turn, 0, k), functools.partial(turn, 1, k), 0.0)

    with pytest.raises(js.TransformError, match="can't be told apart") as caught:
        names(program)
    assert "lambda" in caught.value.fix
    assert "test_bodies.py" in caught.value.where

    def shared(which: int, k: Any, state: Any) -> Any:
        k, which = k + 1, which + 0
        w = js.value("w")  # reading depends on nothing of the kind
        return state < k + w if which == 0 else state + k

    def reads() -> Any:
        js.get_variable("w", [])
        return lax.while_loop(functools.partial(shared, 0, k), functools.partial(shared, 1, k), 0.0)

    assert names(reads) == ["w"]


def rebound(which: Any, x: Any) -> Any:
    which = which or "body"  # by now it is what the other partial was given
    return asks(x) + (which == "body")


def deleted(which: Any, x: Any) -> Any:
    del which
    return asks(x)


def rebound_inside(which: Any, x: Any) -> Any:
    def default() -> None:
        nonlocal which
        which = which or "body"

    default()
    return asks(x)


@pytest.mark.parametrize("function", [rebound, deleted, rebound_inside])
def test_what_a_function_sets_anew_tells_nothing(function: Callable[..., Any]) -> None:
    none, body = functools.partial(function, None), functools.partial(function, "body")
    with pytest.raises(js.TransformError, match="can't be told apart"):
        names(lambda x: jax.scipy.sparse.linalg.cg(none, x, M=body)[0], jnp.ones(3))


def test_objects_that_wrap_without_end_are_looked_at_for_a_while() -> None:
    class Proxy:
        def __call__(self) -> None: ...

        def __getattr__(self, name: str) -> Any:
            if name == "__wrapped__":
                return Proxy()
            raise AttributeError(name)

    block = jax.jit(lambda one, other, x: asks(x), static_argnums=(0, 1))
    assert names(lambda x: block(Proxy(), Proxy(), x), 1.0) == ["d/w"]


def test_one_method_given_twice_is_one_function() -> None:
    class Solver:
        def solve(self, operator: Any, b: Any) -> Any:
            return asks(b)

    solver, b = Solver(), jnp.ones(3)
    assert names(lambda b: lax.custom_linear_solve(lambda v: v, b, solver.solve, solver.solve), b) == ["d/w"]


def test_an_object_that_jax_asks_for_its_array_is_asked_as_written() -> None:
    class Weight:
        def __jax_array__(self) -> Any:
            return asks(jnp.zeros(2)) + jax.random.uniform(js.next_key())

    def program() -> Any:
        return jnp.stack([Weight(), Weight()])

    assert names(program) == ["d/w", "d_1/w"]
    one, other = js.transform(program).apply({"d/w": 0.0, "d_1/w": 0.0}, rng=KEY)
    assert (one != other).all()


class Operator:
    """Asks in the methods of operators, which Python or JAX calls."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def __matmul__(self, other: Any) -> Any:
        moved = asks(jax.random.uniform(js.next_key()))
        return Operator(self.state + other.state + moved) if isinstance(other, Operator) else 2 * other + 0 * moved

    def __getitem__(self, index: Any) -> Any:
        return asks(jax.random.uniform(js.next_key())) + index

    def __step__(self, carry: Any, x: Any) -> Any:
        return asks(carry) + jax.random.uniform(js.next_key()), x


jax.tree_util.register_pytree_node(Operator, lambda one: ((one.state,), None), lambda _, states: Operator(*states))

OPERATORS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "associative_scan of operator.matmul": (
        lambda xs: lax.associative_scan(operator.matmul, Operator(xs)).state,
        lambda xs: lax.associative_scan(lambda a, b: a @ b, Operator(xs)).state,
    ),
    "cg of a method": (
        lambda xs: jax.scipy.sparse.linalg.cg(Operator().__matmul__, xs)[0],
        lambda xs: jax.scipy.sparse.linalg.cg(lambda v: Operator() @ v, xs)[0],
    ),
    "cg of a partial": (
        lambda xs: jax.scipy.sparse.linalg.cg(functools.partial(operator.matmul, Operator()), xs)[0],
        lambda xs: jax.scipy.sparse.linalg.cg(lambda v: Operator() @ v, xs)[0],
    ),
    "map of __getitem__": (
        lambda xs: lax.map(Operator().__getitem__, xs, batch_size=2),
        lambda xs: lax.map(lambda x: Operator()[x], xs, batch_size=2),
    ),
    "scan of a name with underscores": (
        lambda xs: lax.scan(Operator().__step__, 0, xs)[0],  # traced twice, since the carry changes its type
        lambda xs: lax.scan(lambda carry, x: Operator().__step__(carry, x), 0, xs)[0],
    ),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_the_method_of_an_operator_is_a_body_as_any_other_function(case: str) -> None:
    xs = jnp.arange(1.0, 6.0)
    values = []
    for program in OPERATORS[case]:
        assert names(program, xs) == ["d/w"]
        values.append(js.transform(program).apply({"d/w": 0.0}, xs, rng=KEY).tolist())
    assert values[0] == values[1]


def test_the_method_of_an_operator_is_one_body_without_jit() -> None:
    with jax.disable_jit():
        assert names(lambda xs: lax.scan(Operator().__step__, 0.0, xs)[0], jnp.ones(3)) == ["d/w"]


def test_a_class_that_jax_calls_is_a_function() -> None:
    class Row(tuple):  # which JAX takes apart and puts together without calling its class
        def __new__(cls, value: Any) -> Row:
            return tuple.__new__(tuple, (asks(value),))

    assert names(lambda: lax.map(Row, jnp.ones(5), batch_size=2)) == ["d/w"]


@pytest.mark.parametrize("shaped", [False, True])
def test_a_variable_that_is_another_one_in_the_next_turn_is_told_so(shaped: bool) -> None:
    def turn(carry: Any, _: Any) -> Any:
        return carry * js.get_variable("w", [], carry.dtype) * 1.5, None

    def row(xs: Any) -> Any:
        return xs * js.get_variable("w", xs.shape)

    def program() -> Any:
        if shaped:
            return lax.associative_scan(lambda a, b: a + row(b), jnp.ones(5))
        return lax.scan(turn, 1, None, length=2)[0]

    with pytest.raises(js.ShapeMismatchError if shaped else js.DtypeMismatchError) as caught:
        names(program)
    assert "called with the same shapes and dtypes each time" in caught.value.fix


def test_a_variable_that_could_not_be_made_takes_nothing_from_the_next_turn() -> None:
    tried: list[str] = []

    def makes() -> Any:
        try:
            js.variable("text", name="v")
        except js.JscopeError as error:
            tried.append(type(error).__name__)
        return js.variable(1.0, name="v") + js.variable(2.0, name="v")

    want = names(makes)
    assert want == ["v_1", "v_2"]
    assert names(lambda: retraced(makes)) == want
    assert len(tried) == 3  # once, and in each of the two turns


def test_a_function_that_the_user_calls_is_called_as_written() -> None:
    assert names(lambda: lax.while_loop(condition, lambda x: x + 1 + 0 * condition(x), 0.0)) == ["d/w", "d_1/w"]


@pytest.mark.parametrize("pair", ["plain", "closure", "default", "of_class"])
def test_a_linear_operator_that_the_user_s_solver_calls_is_one(pair: str) -> None:
    wrap = {"plain": lambda f: f, "closure": closure, "default": default, "of_class": of_class}[pair]
    operator = wrap(lambda v: 2 * asks(v))
    b = jnp.ones(3)
    cg = jax.scipy.sparse.linalg.cg

    def solved(solve: Callable[..., Any]) -> Callable[..., Any]:
        return lambda b: lax.custom_linear_solve(operator, b, solve, symmetric=True)

    assert names(solved(lambda operator, b: operator(operator(b))), b) == ["d/w"]
    assert names(solved(lambda operator, b: cg(operator, b)[0]), b) == ["d/w"]
    assert names(lambda b: cg(operator, b, M=wrap(lambda v: asks(v)))[0], b) == ["d/w", "d_1/w"]
    net = js.transform(solved(lambda operator, b: cg(operator, b)[0]))
    assert net.apply({"d/w": 0.0}, b).tolist() == [0.5] * 3


def stacked(layer: Callable[..., Any], activation: Callable[..., Any], x: Any) -> Any:
    for _ in range(2):
        x = activation(layer(x))
    return x


PASSED_ON: dict[str, Callable[[], Any]] = {
    "static arguments": lambda: jax.jit(stacked, static_argnums=(0, 1))(asks, jnp.tanh, 1.0),
    "in a carry": lambda: lax.fori_loop(
        0, 2, lambda _, s: (s[0], s[0](s[0](s[1]))), (jax.tree_util.Partial(asks), 1.0)
    ),
    "closed over": lambda: jax.grad(lambda x: stacked(asks, jnp.tanh, x))(1.0),
}


@pytest.mark.parametrize("how", PASSED_ON)
def test_functions_among_the_arguments_are_called_as_written(how: str) -> None:
    assert names(PASSED_ON[how]) == ["d/w", "d_1/w"]


def test_a_function_and_its_rule_through_one_decorator_are_two() -> None:
    def program(x: Any) -> Any:
        doubled = jax.custom_batching.custom_vmap(closure(lambda x: 2 * asks(x)))
        doubled.def_vmap(closure(lambda size, batched, xs: (2 * asks(xs), batched[0])))
        return doubled(x[0]), jax.vmap(doubled)(x)

    assert len(names(program, jnp.ones(2))) == len(set(names(program, jnp.ones(2)))) >= 2


@pytest.mark.parametrize("wrap", [lambda f: f, closure, wraps, default, of_class], ids=lambda wrap: wrap.__name__)
def test_they_are_where_a_function_of_jax_calls_them(wrap: Wrap) -> None:
    def program(x: Any) -> Any:
        doubled = jax.custom_batching.custom_vmap(wrap(lambda x: 2 * asks(x)))
        doubled.def_vmap(wrap(lambda size, batched, xs: (2 * asks(xs), batched[0])))
        return jax.vmap(doubled)(x)

    assert names(program, jnp.ones(2)) == ["d/w", "d_1/w"]


def test_calls_at_one_line_are_separate() -> None:
    scanned = lambda x: lax.scan(lambda c, _: (asks(c), None), x, None, length=1)[0]  # noqa: E731
    assert names(lambda: [scanned(0) for _ in range(3)]) == ["d/w", "d_1/w", "d_2/w"]
    assert names(lambda: list(map(scanned, [0.0, 0.0]))) == ["d/w", "d_1/w"]
    assert names(lambda: functools.reduce(lambda c, f: f(c), [scanned] * 2, 0)) == ["d/w", "d_1/w"]


# What a turn leaves to the next one -----------------------------------------------------------------------------------


def test_an_instance_of_variable_scope_means_the_same_in_each_turn() -> None:
    def program() -> Any:
        scope = js.variable_scope(None, "d")

        def body() -> Any:
            with scope:
                u = js.get_variable("u", [])
            return u + asks(0)

        return retraced(body)

    assert names(program) == ["d/u", "d_1/w"]


def test_an_instance_inherits_in_each_turn_what_it_did_in_the_first() -> None:
    def program() -> Any:
        scope = js.variable_scope("s")

        def body() -> Any:
            for reuse in (None, True):
                with js.variable_scope("o", reuse=reuse), scope:
                    a = js.get_variable("a", [])
            return a

        return retraced(body)

    assert names(program) == ["o/s/a"]


SETTERS: dict[str, Callable[[js.VariableScope], None]] = {
    "set_custom_getter": lambda scope: scope.set_custom_getter(lambda getter, *a, **k: 100 * getter(*a, **k)),
    "reuse_variables": lambda scope: scope.reuse_variables(),
    "set_dtype": lambda scope: scope.set_dtype(jnp.bfloat16),
    "set_initializer": lambda scope: scope.set_initializer(js.zeros_initializer()),
    "set_regularizer": lambda scope: scope.set_regularizer(lambda v: 100 * v),
}


@pytest.mark.parametrize("setter", SETTERS)
def test_what_a_body_sets_holds_from_there_on_in_each_turn(setter: str) -> None:
    def program(once: bool) -> Any:
        def body() -> Any:
            a = js.get_variable("a", [], initializer=None if setter == "set_initializer" else js.ones_initializer())
            SETTERS[setter](js.get_variable_scope())
            return a

        return body() if once else retraced(body)

    net = js.transform(program)
    assert list(net.specs(False)) == ["a"]
    assert net.specs(False)["a"].dtype == jnp.float32
    assert net.init(KEY, False) == net.init(KEY, True)
    params = {"a": jnp.float32(3)}
    assert net.apply(params, False) == net.apply(params, True) == 3


def test_a_template_that_is_called_first_in_a_body() -> None:
    scale = js.make_template("t", lambda: js.get_variable("s", []))

    def program() -> Any:
        return retraced(lambda: scale() + scale()) + scale() + retraced(lambda: scale())

    assert names(program) == ["t/s"]


def test_errors_that_a_body_catches_come_in_each_turn() -> None:
    """The second turn looks for what the first one looked for, and does not find it either."""
    caught = []

    def body() -> Any:
        try:
            with js.variable_scope("s", reuse=True):
                js.get_variable("a", [])
        except js.VariableNotFoundError:
            caught.append(1)
        with js.variable_scope("s"):
            a = js.get_variable("a", [])
        caught.append([v.name for v in js.global_variables()])
        return a

    assert names(lambda: retraced(body)) == ["s/a"]
    assert caught == [1, ["s/a"]] * 2


def test_regularizers_and_collections_hold_what_the_last_turn_gave() -> None:
    """They may hold what the turn computes, which nobody can use after it."""

    def body(c: Any, _: Any) -> Any:
        x = c * jnp.float32(1)
        js.get_variable("v", [], regularizer=lambda v: v * x)
        return x + js.get_regularization_loss(), None

    net = js.transform(lambda: lax.scan(body, 1, None, length=2)[0])
    assert net.apply({"v": 1.0}) == 4
    assert js.transform(lambda: lax.scan(body, 1, None, length=2)).specs()["v"].used_at == ()

    def sums(xs: Any) -> Any:
        def combine(a: Any, b: Any) -> Any:
            js.get_variable("v", [], regularizer=lambda v: v * a.sum())
            return a + b + js.get_regularization_loss()

        return lax.associative_scan(combine, xs)

    def by_hand(xs: Any) -> Any:
        return lax.associative_scan(lambda a, b: a + b + a.sum(), xs)

    xs = jnp.arange(5.0)
    assert js.transform(sums).apply({"v": 1.0}, xs).tolist() == by_hand(xs).tolist()


@pytest.mark.parametrize("call", [js.value, js.name_of, lambda name: js.assign(name, 1.0)])
def test_a_turn_begins_with_whatever_call_comes_first(call: Callable[[Any], Any]) -> None:
    unknown = []

    def body() -> Any:
        try:
            call("m")
        except (js.UnknownNameError, js.BadArgumentError):
            unknown.append(1)
        return js.get_variable("m", [])

    js.transform(lambda: retraced(body)).specs()
    assert unknown == [1, 1]


def test_an_array_that_was_first_made_inside_tells_its_variable_outside() -> None:
    def program(x: Any) -> Any:
        with js.variable_scope("a", reuse=js.AUTO_REUSE):
            jax.jit(lambda x: x * js.get_variable("w", []))(x)
            js.name_of(js.get_variable("v", []))
            return js.name_of(js.get_variable("w", []))

    seen = []
    js.transform(lambda x: seen.append(program(x))).specs(1.0)
    assert seen == ["a/w"]


@pytest.mark.parametrize("through", [retraced, lambda body: lax.map(lambda _: body(), jnp.zeros(3), batch_size=2)])
def test_bodies_leak_nothing(through: Callable[..., Any]) -> None:
    def block() -> Any:
        with js.variable_scope(None, "d"):
            w = js.get_variable("w", [], regularizer=lambda w: w)
        return w * jax.random.uniform(js.next_key())

    def program(x: Any) -> Any:
        return x + jnp.sum(jax.checkpoint(lambda x: x * jnp.sum(through(block)))(x))

    net = js.transform(program)
    with checking_leaks():
        assert list(net.specs(1.0)) == ["d/w"]
        net.init(KEY, 1.0)
        jax.jit(jax.grad(lambda x: net.apply({"d/w": 2.0}, x, rng=KEY)))(1.0)


def test_what_variables_there_are_shows_nothing_of_ours() -> None:
    def turn(carry: Any, x: Any) -> Any:
        before = sorted(locals())
        asks(x)
        after = sorted(locals())
        assert after == sorted({*before, "before"})
        return carry, (lambda carry, x, **_: x)(**locals())

    with jax.disable_jit():
        js.transform(lambda xs: lax.scan(turn, 0.0, xs)).apply({"d/w": 0.0}, jnp.ones(3))
