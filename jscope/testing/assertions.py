"""Assertions about programs and their variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

import jscope as js

from .functions import assert_functional
from .trees import leaf_difference, listed

Program = js.Transformed | Callable[..., Any]


def assert_same_variables(first: Program | js.Specs, second: Program | js.Specs, /, *args: Any, **kwargs: Any) -> None:
    """Two programs declare the same variables: names, shapes and dtypes. So one tree of parameters fits both.

    Args:
      first, second: functions or transformed programs, or, where they take different arguments, the `Specs` of one.
      *args, **kwargs: arguments of the programs.

    Raises:
      AssertionError: listing every variable that one of them lacks or has with another shape or dtype.

    Example:
      >>> from jscope.testing import assert_same_variables
      >>> encode = lambda x: x @ js.get_variable("w", [3, 2])
      >>> decode = lambda x: x @ js.get_variable("w", [2, 3])
      >>> decode_tied = lambda x: x @ js.get_variable("w", [3, 2]).T
      >>> assert_same_variables(js.transform(encode).specs(jnp.ones(3)), js.transform(decode_tied).specs(jnp.ones(2)))
      >>> assert_same_variables(js.transform(encode).specs(jnp.ones(3)), js.transform(decode).specs(jnp.ones(2)))
      Traceback (most recent call last):
      AssertionError: The second program does not have the variables of the first:
        - 'w': has shape (2, 3), declared (3, 2)
    """
    __tracebackhide__ = True
    ours, theirs = (_specs(program, args, kwargs) for program in (first, second))
    faults = ours.compare(theirs.abstract()).faults()
    if faults:
        raise AssertionError(listed("The second program does not have the variables of the first:", faults))


def assert_order_independent(
    first: Program | js.Specs,
    second: Program | js.Specs,
    /,
    *args: Any,
    key: jax.Array | None = None,
    **kwargs: Any,
) -> None:
    """The variables that two programs have in common start with the same values, to the bit.

    Initial values depend on the key and on a variable's own name, shape, dtype and initializer: so a program may be
    reordered, cut or added to without changing how the rest starts, as long as that renames nothing.

    Args:
      first, second: functions or transformed programs, or, where they take different arguments, the `Specs` of one.
      *args, **kwargs: arguments of the programs.
      key: root of the initial values; default `jax.random.key(0)`.

    Raises:
      AssertionError: listing the variables that differ; also if there is no variable in common.

    Example:
      >>> from jscope.testing import assert_order_independent
      >>> def program(order):
      ...     for name in order:
      ...         js.get_variable(name, [3])
      >>> assert_order_independent(js.transform(program).specs("abc"), js.transform(program).specs("cax"))
    """
    __tracebackhide__ = True
    key = jax.random.key(0) if key is None else key
    ours, theirs = (
        (program.init(key) if isinstance(program, js.Specs) else _net(program).init(key, *args, **kwargs)).flat()
        for program in (first, second)
    )
    common = [name for name in ours if name in theirs]
    if not common:
        raise AssertionError(f"The programs have no variable in common: {_few(ours)}, and {_few(theirs)}.")
    found = {name: leaf_difference(ours[name], theirs[name]) for name in common}
    faults = [f"'{name}': {fault}" for name, fault in found.items() if fault]
    if faults:
        raise AssertionError(listed(f"{len(faults)} of {len(common)} common variables start differently:", faults))


def assert_pure(
    program: Program, params: Mapping[str, Any], /, *args: Any, rng: jax.Array | None = None, **kwargs: Any
) -> None:
    """A program is a function of its arguments: it keeps no state, changes none of them, and jitting changes nothing.

    It must declare the same variables twice, and its `update` must be a function as `assert_functional` means it: equal
    runs to the bit, nothing changed that was given, the same under `jax.jit` up to rounding, no tracer kept.

    Args:
      program: a function or a transformed program.
      params: its parameters.
      *args, **kwargs: its arguments. Arrays among them are traced under `jax.jit`, everything else stays as it is.
      rng: as in `apply`.

    Raises:
      AssertionError: saying what differs between which runs.
      BadArgumentError: for arrays of which other processes hold a part.

    Example:
      >>> from jscope.testing import assert_pure
      >>> calls = []
      >>> def program(x):
      ...     calls.append(1)
      ...     return len(calls) * x * js.get_variable("w", [])
      >>> assert_pure(program, {"w": jnp.ones([])}, jnp.ones(2))
      Traceback (most recent call last):
      AssertionError: `program` is no function of its arguments: a second run differs from the first:
        - ['out']: 2 of 2 elements differ, by 1 at most, at [0]: 3.0, then 4.0
    """
    __tracebackhide__ = True
    net = _net(program)
    if _rows(net.specs(*args, **kwargs)) != _rows(net.specs(*args, **kwargs)):
        raise AssertionError("The program is not pure: it declares other variables when asked a second time.")

    def run(params: Any, *args: Any, rng: Any = None, **kwargs: Any) -> Any:
        out, params = net.update(params, *args, rng=rng, **kwargs)
        return {"out": out, "params": params}

    run.__name__ = getattr(net, "__name__", "program")
    assert_functional(run, params, *args, rng=rng, **kwargs)


def _net(program: Program) -> js.Transformed:
    return program if isinstance(program, js.Transformed) else js.transform(program)


def _specs(program: Program | js.Specs, args: tuple[Any, ...], kwargs: dict[str, Any]) -> js.Specs:
    return program if isinstance(program, js.Specs) else _net(program).specs(*args, **kwargs)


def _rows(specs: js.Specs) -> list[tuple[Any, ...]]:
    # Not the initializers: a lambda inside the program is another object each time.
    return [(spec.name, spec.shape, spec.dtype, spec.trainable, spec.collections) for spec in specs.values()]


def _few(names: Mapping[str, Any]) -> str:
    return ", ".join(list(names)[:5]) + (", ..." if len(names) > 5 else "") or "none"
