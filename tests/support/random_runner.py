"""Does random programs with jscope and JAX."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from random_programs import (
    INITIAL,
    PRIME,
    SCOPE_ERRORS,
    Again,
    Assign,
    Attempt,
    Block,
    Call,
    Capture,
    Case,
    Compute,
    Default,
    Double,
    Get,
    Key,
    Losses,
    Peek,
    ReuseOn,
    Scope,
    When,
    is_int,
)

import jscope as js

# Jitted only to be fast: without an outer jit each of their steps would be compiled anew in each trace.


@jax.jit
def cut(x: Any) -> Any:
    """The rest after division by PRIME; its derivative is one."""
    return jax.lax.rem(x, np.asarray(PRIME, x.dtype))


@jax.jit
def mixed(x: Any, value: Any) -> Any:
    return cut(2 * x + 3 * value.astype(x.dtype))


@jax.jit
def multiplied(x: Any, value: Any) -> Any:
    return cut(x * value.astype(x.dtype) + 1)


@jax.jit
def added(value: Any, x: Any) -> Any:
    return cut(value + jnp.asarray(x, value.dtype))


@jax.jit
def digest(key: Any) -> Any:
    """A number that differs for most keys."""
    return jnp.sum(jax.random.key_data(key) % PRIME)


@jax.jit
def joined(first: Any, second: Any) -> Any:
    return cut(first + 2 * second)


@jax.jit
def combined(lanes: Any) -> Any:
    """Both results of a map or vmap as one."""
    return joined(lanes[0], lanes[1])


@jax.jit
def weighed(rows: Any) -> Any:
    """All results of a map as one."""
    return cut(jnp.sum(rows * jnp.arange(1, len(rows) + 1, dtype=rows.dtype)))


@jax.jit
def kept(y: Any, slope: Any) -> Any:
    """y, computed together with its derivative."""
    return y + 0 * jnp.isfinite(slope).astype(y.dtype)


@jax.jit
def pair(x: Any) -> Any:
    return jnp.stack([x, x + 1])


@jax.jit
def twice(x: Any) -> Any:
    return cut(2 * x)


@jax.jit
def loss_of(value: Any) -> Any:
    return 2 * value.astype(jnp.float32)


def argument(form: str, number: int) -> Any:
    """What a program is called with: its leaves add up to the number and what `FORMS` says."""
    x = jnp.float32(number)
    match form:
        case "array":
            return x
        case "numpy":
            return np.float32(number)
        case "float":
            return float(number)
        case "int":
            return jnp.int32(number)
        case "number":
            return number
        case "pair":
            return x, jnp.float32(1)
        case "dict":
            return {"x": x, "n": jnp.int32(3)}
    raise ValueError(form)


class Runner:
    """Does a case with jscope; the persistent blocks live as long as it does."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.persistent = [self.wrapped(block) for block in case.blocks]
        self.captured: js.VariableScope | None = None
        self.seen: dict[str, bool] = {}
        self.nets = [js.transform(functools.partial(self.program, ops)) for ops in case.programs]
        self._jitted: dict[tuple[int, str, str], Callable[..., Any]] = {}

    def jitted(self, program: int, method: str, flag: Any) -> Callable[..., Any]:
        """A method of a net under `jax.jit`, to which True and 1 would be the same static argument."""
        key = (program, method, repr(flag))
        if key not in self._jitted:
            self._jitted[key] = jax.jit(functools.partial(getattr(self.nets[program], method), flag=flag))
        return self._jitted[key]

    def program(self, ops: tuple[Any, ...], x: Any, flag: Any = False) -> Any:
        leaves = jax.tree.leaves(x)
        whole = any(jnp.issubdtype(jnp.result_type(leaf), jnp.integer) for leaf in leaves)
        self.seen = {"flag": flag is True, "whole": whole, "several": len(leaves) > 1}
        self.captured = None
        return self.do_all(ops, cut(sum(jnp.asarray(leaf, jnp.float32) for leaf in leaves)))

    def do_all(self, ops: tuple[Any, ...], x: Any) -> Any:
        for op in ops:
            x = self.do(op, x)
        return x

    def do(self, op: Any, x: Any) -> Any:
        match op:
            case Get():
                return self.get(op, x)
            case Compute():
                return mixed(x, js.get_variable("c", initializer=x))
            case Peek(which):
                spec = self.any_variable(which)
                return x if spec is None else mixed(x, js.value(spec.name))
            case Assign(which, how):
                spec = self.any_variable(which)
                if spec is not None:
                    js.assign(spec.name, self.changed(js.value(spec), how, x))
                return x
            case Key():
                return mixed(x, digest(js.next_key()))
            case Losses():
                return added(x, sum(js.get_regularization_losses()))
            case Double():
                return twice(x)
            case ReuseOn():
                js.get_variable_scope().reuse_variables()
                return x
            case Capture():
                self.captured = js.get_variable_scope()
                return x
            case Scope(name, reuse, body):
                with js.variable_scope(name, reuse=js.AUTO_REUSE if reuse == "auto" else reuse):
                    return self.do_all(body, x)
            case Default(body):
                with js.variable_scope(None, "d"):
                    return self.do_all(body, x)
            case Again(body):
                current = js.get_variable_scope()  # asked for also where it is not used: an ambient call
                with js.variable_scope(self.captured or current):
                    return self.do_all(body, x)
            case Attempt(body):
                try:
                    return self.do_all(body, x)
                except SCOPE_ERRORS:
                    return added(x, 7)
            case When(test, body, other):
                return self.do_all(body if self.seen[test] else other, x)
            case Call(block, fresh):
                transformed = self.wrapped(self.case.blocks[block]) if fresh else self.persistent[block]
                return transformed(x)

    def get(self, op: Get, x: Any) -> Any:
        variable = get_plain(op.name, op.regularized)
        scope = js.get_variable_scope().name
        assert js.name_of(variable) == (f"{scope}/{op.name}" if scope else op.name)
        if op.then:
            js.assign(variable, self.changed(variable, op.then, x))
        return multiplied(x, variable) if op.product else mixed(x, variable)

    def changed(self, value: Any, how: str, x: Any) -> Any:
        if how == "count":
            return added(value, 1)
        if how == "add_stopped":
            x = jax.lax.stop_gradient(x)
        return added(value, x)

    def any_variable(self, which: int) -> Any:
        specs = js.global_variables()
        return specs[which % len(specs)] if specs else None

    def wrapped(self, block: Block) -> Callable[[Any], Any]:
        def body(x: Any) -> Any:
            return self.do_all(block.body, x)

        def other(x: Any) -> Any:
            return self.do_all(block.other, x)

        def asked(x: Any) -> Any:
            return self.do_all(block.condition, x)

        return WRAPPERS[block.kind](Parts(block, body, other, asked if block.condition else None))


def get_plain(name: str, regularized: bool = False) -> Any:
    """`get_variable` with all that belongs to a variable of this name."""
    return js.get_variable(
        name,
        [],
        jnp.int32 if is_int(name) else jnp.float32,
        initializer=js.constant_initializer(INITIAL[name]),
        regularizer=loss_of if regularized else None,
        trainable=not is_int(name),
    )


# What functions are put into before JAX gets them ---------------------------------------------------------------------


def with_wraps(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def with_closure(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@dataclass(frozen=True)
class Caller:
    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


DRESSERS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "": lambda function: function,
    "wraps": with_wraps,
    "closure": with_closure,
    "partial": lambda function: functools.partial(call, function),
    "object": Caller,
    "jit": lambda function: jax.jit(function),
    "checkpoint": lambda function: jax.checkpoint(function),
}


@dataclass(frozen=True)
class Parts:
    """The functions of a block; `asked` is what the condition of a while loop asks, if it asks anything."""

    block: Block
    body: Callable[[Any], Any]
    other: Callable[[Any], Any]
    asked: Callable[[Any], Any] | None

    def dressed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return DRESSERS[self.block.dress](function)

    def dressed_condition(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """In the same as the body, if it is not a transform that has nothing to do with conditions."""
        return DRESSERS["closure" if self.block.dress == "checkpoint" else self.block.dress](function)

    def carry(self, x: Any) -> tuple[Any, ...]:
        """The carry of a loop, which may have a part that changes its type."""
        return (x,) if self.block.start is None else (x, self.block.start)

    def turn(self, function: Callable[[Any], Any], carry: tuple[Any, ...]) -> tuple[Any, ...]:
        return (function(carry[0]), *(part + jnp.float32(1) for part in carry[1:]))

    def result(self, carry: tuple[Any, ...]) -> Any:
        return carry[0] if self.block.start is None else added(carry[0], carry[1])


# What is handed to JAX is made here once, so that JAX sees the same functions at every call of a persistent block.


def _scan(parts):
    @parts.dressed
    def turn(carry, _):
        return parts.turn(parts.body, carry), None

    return lambda x: parts.result(jax.lax.scan(turn, parts.carry(x), None, length=parts.block.length)[0])


def _scan_tree(parts):
    leaves = functools.partial(jax.tree.map, parts.dressed(parts.body))

    def turn(carry, _):
        return parts.turn(leaves, carry), None

    def call(x):
        carry, _ = jax.lax.scan(turn, parts.carry(two_leaves(x)), None, length=parts.block.length)
        return parts.result((joined(carry[0]["a"], carry[0]["b"]), *carry[1:]))

    return call


def two_leaves(x):
    return {"a": x, "b": added(x, 2)}


def _fori_loop(parts):
    @parts.dressed
    def turn(_, carry):
        return parts.turn(parts.body, carry)

    return lambda x: parts.result(jax.lax.fori_loop(0, parts.block.length, turn, parts.carry(x)))


def _while_loop(parts):
    @parts.dressed_condition
    def goes_on(state):
        length = parts.block.length
        if parts.asked is not None:
            length = length + parts.asked(jnp.float32(1)).astype(jnp.int32) % 2
        return state[0] < length

    @parts.dressed
    def turn(state):
        return state[0] + 1, parts.turn(parts.body, state[1])

    return lambda x: parts.result(jax.lax.while_loop(goes_on, turn, (0, parts.carry(x)))[1])


def _cond(parts):
    branches = parts.dressed(parts.body), parts.dressed(parts.other)
    return lambda x: jax.lax.cond(jax.lax.rem(x, jnp.float32(2)) < 1, *branches, x)


def _cond_true(parts):
    branches = parts.dressed(parts.body), parts.dressed(parts.other)
    return lambda x: jax.lax.cond(True, *branches, x)


def _cond_false(parts):
    branches = parts.dressed(parts.other), parts.dressed(parts.body)
    return lambda x: jax.lax.cond(False, *branches, x)


def _switch(parts):
    branches = [parts.dressed(parts.body), parts.dressed(parts.other), twice]
    return lambda x: jax.lax.switch(cut(x).astype(jnp.int32) % 3, branches, x)


def _map(parts):
    body = parts.dressed(parts.body)
    return lambda x: combined(jax.lax.map(body, pair(x)))


def _map_tree(parts):
    leaves = functools.partial(jax.tree.map, parts.dressed(parts.body))

    def call(x):
        mapped = jax.lax.map(leaves, jax.tree.map(pair, two_leaves(x)))
        return joined(combined(mapped["a"]), combined(mapped["b"]))

    return call


def _map_rows(parts):
    body = parts.dressed(parts.body)
    return lambda x: weighed(jax.lax.map(body, rows(x, parts.block.length), batch_size=2))


def rows(x, length):
    return x + jnp.arange(length + 2, dtype=x.dtype)


def _associative_scan(parts):
    @parts.dressed
    def combine(first, second):
        return parts.body(joined(first, second))

    return lambda x: weighed(jax.lax.associative_scan(combine, rows(x, parts.block.length)))


def _tree_map(parts):
    body = parts.dressed(parts.body)

    def call(x):
        leaves = jax.tree.map(body, two_leaves(x))
        return joined(leaves["a"], leaves["b"])

    return call


def _vmap(parts):
    batched = jax.vmap(parts.dressed(parts.body))
    return lambda x: combined(batched(pair(x)))


def _value_and_grad(parts):
    both = jax.value_and_grad(parts.dressed(parts.body))
    return lambda x: kept(*both(x))


def _grad(parts):
    @parts.dressed
    def with_value(x):
        y = parts.body(x)
        return y, y

    gradient = jax.grad(with_value, has_aux=True)
    return lambda x: kept(*gradient(x)[::-1])


def _vjp(parts):
    body = parts.dressed(parts.body)

    def call(x):
        y, pull = jax.vjp(body, x)
        return kept(y, pull(jnp.ones_like(y))[0])

    return call


def _linearize(parts):
    body = parts.dressed(parts.body)

    def call(x):
        y, push = jax.linearize(body, x)
        return kept(y, push(jnp.ones_like(x)))

    return call


def _jvp(parts):
    body = parts.dressed(parts.body)
    return lambda x: kept(*jax.jvp(body, (x,), (jnp.ones_like(x),)))


def _custom_jvp(parts):
    primal = jax.custom_jvp(parts.dressed(parts.body))
    primal.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    return primal


def _custom_vjp(parts):
    primal = jax.custom_vjp(parts.dressed(parts.body))
    primal.defvjp(lambda x: (x, None), lambda _, slope: (slope,))
    return primal


WRAPPERS: dict[str, Callable[[Parts], Callable[[Any], Any]]] = {
    "jit": lambda parts: jax.jit(parts.dressed(parts.body)),
    "checkpoint": lambda parts: jax.checkpoint(parts.dressed(parts.body)),
    "scan": _scan,
    "scan_tree": _scan_tree,
    "fori_loop": _fori_loop,
    "while_loop": _while_loop,
    "cond": _cond,
    "cond_true": _cond_true,
    "cond_false": _cond_false,
    "switch": _switch,
    "map": _map,
    "map_tree": _map_tree,
    "map_rows": _map_rows,
    "associative_scan": _associative_scan,
    "tree_map": _tree_map,
    "vmap": _vmap,
    "value_and_grad": _value_and_grad,
    "grad": _grad,
    "vjp": _vjp,
    "linearize": _linearize,
    "jvp": _jvp,
    "custom_jvp": _custom_jvp,
    "custom_vjp": _custom_vjp,
    "template": lambda parts: js.make_template("t", parts.dressed(parts.body)),
}
