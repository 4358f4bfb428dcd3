"""Does random programs with jscope and JAX."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
def combined(lanes: Any) -> Any:
    """Both results of a map or vmap as one."""
    return cut(lanes[0] + 2 * lanes[1])


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


class Runner:
    """Does a case with jscope; the persistent blocks live as long as it does."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.persistent = [self.wrapped(block) for block in case.blocks]
        self.captured: js.VariableScope | None = None
        self.nets = [js.transform(functools.partial(self.program, ops)) for ops in case.programs]
        self.jitted = [(jax.jit(net.apply), jax.jit(net.update)) for net in self.nets]

    def program(self, ops: tuple[Any, ...], x: Any) -> Any:
        self.captured = None
        return self.do_all(ops, x)

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

        return WRAPPERS[block.kind](body, other, block.length)


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


# What is handed to JAX is made here once, so that JAX sees the same functions at every call of a persistent block.


def _scan(body, other, length):
    def turn(carry, _):
        return body(carry), None

    return lambda x: jax.lax.scan(turn, x, None, length=length)[0]


def _fori_loop(body, other, length):
    def turn(_, carry):
        return body(carry)

    return lambda x: jax.lax.fori_loop(0, length, turn, x)


def _while(reads):
    def wrap(body, other, length):
        def goes_on(state):
            going = state[0] < length
            return going & (get_plain("w") >= 0) if reads else going

        def turn(state):
            return state[0] + 1, body(state[1])

        return lambda x: jax.lax.while_loop(goes_on, turn, (0, x))[1]

    return wrap


def _switch(body, other, length):
    branches = [body, other, twice]
    return lambda x: jax.lax.switch(cut(x).astype(jnp.int32) % 3, branches, x)


def _vmap(body, other, length):
    batched = jax.vmap(body)
    return lambda x: combined(batched(pair(x)))


def _value_and_grad(body, other, length):
    both = jax.value_and_grad(body)
    return lambda x: kept(*both(x))


def _grad(body, other, length):
    def with_value(x):
        y = body(x)
        return y, y

    gradient = jax.grad(with_value, has_aux=True)
    return lambda x: kept(*gradient(x)[::-1])


def _vjp(body, other, length):
    def call(x):
        y, pull = jax.vjp(body, x)
        return kept(y, pull(jnp.ones_like(y))[0])

    return call


def _linearize(body, other, length):
    def call(x):
        y, push = jax.linearize(body, x)
        return kept(y, push(jnp.ones_like(x)))

    return call


def _custom_jvp(body, other, length):
    primal = jax.custom_jvp(body)
    primal.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    return primal


def _custom_vjp(body, other, length):
    primal = jax.custom_vjp(body)
    primal.defvjp(lambda x: (x, None), lambda _, slope: (slope,))
    return primal


WRAPPERS: dict[str, Callable[[Any, Any, int], Callable[[Any], Any]]] = {
    "jit": lambda body, other, length: jax.jit(body),
    "checkpoint": lambda body, other, length: jax.checkpoint(body),
    "scan": _scan,
    "fori_loop": _fori_loop,
    "while_loop": _while(reads=False),
    "while_that_reads": _while(reads=True),
    "cond": lambda body, other, length: lambda x: jax.lax.cond(jax.lax.rem(x, jnp.float32(2)) < 1, body, other, x),
    "cond_true": lambda body, other, length: lambda x: jax.lax.cond(True, body, other, x),
    "cond_false": lambda body, other, length: lambda x: jax.lax.cond(False, other, body, x),
    "switch": _switch,
    "map": lambda body, other, length: lambda x: combined(jax.lax.map(body, pair(x))),
    "vmap": _vmap,
    "value_and_grad": _value_and_grad,
    "grad": _grad,
    "vjp": _vjp,
    "linearize": _linearize,
    "jvp": lambda body, other, length: lambda x: kept(*jax.jvp(body, (x,), (jnp.ones_like(x),))),
    "custom_jvp": _custom_jvp,
    "custom_vjp": _custom_vjp,
    "template": lambda body, other, length: js.make_template("t", body),
}
