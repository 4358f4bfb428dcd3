"""Assertions about programs and their variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope._support import check_here

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
        raise AssertionError(_listed("The second program does not have the variables of the first:", faults))


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
    faults = {name: _difference(ours[name], theirs[name]) for name in common}
    listed = [f"'{name}': {fault}" for name, fault in faults.items() if fault]
    if listed:
        raise AssertionError(_listed(f"{len(listed)} of {len(common)} common variables start differently:", listed))


def assert_pure(
    program: Program, params: Mapping[str, Any], /, *args: Any, rng: jax.Array | None = None, **kwargs: Any
) -> None:
    """A program is a function of its arguments: it keeps no state, changes none of them, and jitting changes nothing.

    It is declared twice and run three times, by `update`. Two plain runs must agree to the bit. One under `jax.jit`
    must agree up to the square root of a dtype's precision, relative to the largest number of each array; integers and
    bools exactly.

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
      AssertionError: The program is not pure: a second run differs from the first:
        - out: 2 of 2 elements differ, by 1 at most (the largest is 3)
    """
    __tracebackhide__ = True
    net = _net(program)
    if _rows(net.specs(*args, **kwargs)) != _rows(net.specs(*args, **kwargs)):
        raise AssertionError("The program is not pure: it declares other variables when asked a second time.")
    given = (params, args, kwargs)
    before = jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, given)

    def run(given: Any) -> Any:
        params, args, kwargs = given
        return net.update(params, *args, rng=rng, **kwargs)

    first, second = run(given), run(given)
    _agree(before, given, ("params", "args", "kwargs"), "it changed what it was given")
    _agree(first, second, ("out", "params"), "a second run differs from the first")
    _agree(first, _jitted(run, given), ("out", "params"), "jitted, it gives something else", exact=False)


_IN_ONE_PROCESS = "call the assertion with arrays on this process's own devices: jax.local_devices()"


def _agree(first: Any, second: Any, labels: tuple[str, ...], what: str, exact: bool = True) -> None:
    __tracebackhide__ = True
    faults = []
    for label, ours, theirs in zip(labels, first, second, strict=True):
        if jax.tree.structure(ours) != jax.tree.structure(theirs):
            faults.append(f"{label}: {ours!r:.200}, then {theirs!r:.200}")
            continue
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
            for leaf in (a, b):
                check_here(label + jax.tree_util.keystr(path), leaf, "it can't be compared", _IN_ONE_PROCESS)
            fault = _difference(a, b, exact)
            if fault:
                faults.append(f"{label}{jax.tree_util.keystr(path)}: {fault}")
    if faults:
        raise AssertionError(_listed(f"The program is not pure: {what}:", faults))


def _jitted(run: Callable[[Any], Any], given: Any) -> Any:
    """`run(given)` under jit, where only arrays are traced: other leaves go in and come out as they are."""
    leaves, structure = jax.tree.flatten(given)
    arrays = [leaf if _is_array(leaf) else None for leaf in leaves]
    came_out: list[Any] = []

    def traced(arrays: list[Any]) -> list[Any]:
        filled = [leaf if array is None else array for leaf, array in zip(leaves, arrays, strict=True)]
        out, structure_out = jax.tree.flatten(run(jax.tree.unflatten(structure, filled)))
        came_out.append((structure_out, [None if _is_array(leaf) else leaf for leaf in out]))
        return [leaf if _is_array(leaf) else None for leaf in out]

    values = jax.jit(traced)(arrays)
    structure_out, others = came_out[-1]
    return jax.tree.unflatten(
        structure_out, [other if value is None else value for value, other in zip(values, others, strict=True)]
    )


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _difference(a: Any, b: Any, exact: bool = True) -> str:
    """How two leaves differ, `""` if they don't."""
    if not (_is_array(a) and _is_array(b)):
        return "" if a is b or a == b else f"{a!r:.80}, then {b!r:.80}"
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"{_type(a)}, then {_type(b)}"
    if jnp.issubdtype(a.dtype, jax.dtypes.extended):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    a, b = np.asarray(a), np.asarray(b)
    if a.tobytes() == b.tobytes():
        return ""
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return f"{np.sum(a != b)} of {a.size} elements differ"
    tolerance = 0.0 if exact else float(jnp.finfo(a.dtype).eps) ** 0.5
    # Wide enough for all, so that differences of bfloat16 are not rounded.
    a, b = a.astype(np.complex128), b.astype(np.complex128)
    scale = np.max(np.abs(a), initial=0.0, where=np.isfinite(a))
    if not exact and np.allclose(a, b, rtol=0, atol=tolerance * scale, equal_nan=True):
        return ""
    both = np.isfinite(a) & np.isfinite(b)
    largest = np.max(np.abs(a - b), initial=0.0, where=both)
    return f"{np.sum(a != b)} of {a.size} elements differ, by {largest:.3g} at most (the largest is {scale:.3g})"


def assert_golden(variables: Mapping[str, Any], path: str | os.PathLike[str], *, update: bool | None = None) -> None:
    """Names, shapes and dtypes equal those in a text file: a test that fails when a checkpoint would no longer load.

    The file has one line for each variable, sorted by name, such as `tower/kernel  f32[64,32]`, and goes into version
    control. Lines that start with `#` are comments.

    Args:
      variables: `Specs`, `Params`, or any nested or flat mapping of arrays.
      path: the file.
      update: whether to write the file instead of comparing; default: whether the environment variable
        `JSCOPE_UPDATE_GOLDEN` is set to anything but `0`.

    Raises:
      AssertionError: showing the lines that differ; also if there is no such file.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope.testing import assert_golden
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "net.txt"
      >>> assert_golden({"tower": {"kernel": jnp.ones((2, 3))}}, file, update=True)
      >>> print(file.read_text())
      # name, dtype and shape of each variable; written by jscope.testing.assert_golden
      tower/kernel  f32[2,3]
      <BLANKLINE>
      >>> assert_golden({"tower": {"kernel": jnp.ones((2, 3))}}, file)
    """
    __tracebackhide__ = True
    path = Path(path)
    now = [f"{name}  {_type(leaf)}" for name, leaf in js.Params(variables).flat().items()]
    if os.environ.get("JSCOPE_UPDATE_GOLDEN", "0") not in ("", "0") if update is None else update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([_GOLDEN_HEAD, *now, ""]), encoding="utf-8")
        return
    how = "run the test once with JSCOPE_UPDATE_GOLDEN=1 in the environment, or call assert_golden(..., update=True)"
    if not path.exists():
        raise AssertionError(f"There is no golden file {path}.\n  To create it, {how}.")
    lines = path.read_text(encoding="utf-8").splitlines()
    then = ["  ".join(line.rsplit(maxsplit=1)) for line in lines if line.strip() and not line.startswith("#")]
    changes = [f"- {line}" for line in then if line not in now] + [f"+ {line}" for line in now if line not in then]
    if changes:
        changes.sort(key=lambda line: (line[2:].rpartition("  ")[0], line[0] == "+"))
        shown = "\n".join("  " + line for line in changes)
        raise AssertionError(
            f"The variables differ from {path} (- in the file, + now):\n{shown}\n  If that is meant, {how}."
        )


_GOLDEN_HEAD = "# name, dtype and shape of each variable; written by jscope.testing.assert_golden"
_SHORT = {"bfloat": "bf", "float": "f", "int": "i", "uint": "u", "complex": "c"}


def _type(leaf: Any) -> str:
    """`f32[2,3]`, as jscope's own listings write it."""
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        return type(leaf).__name__
    name = getattr(leaf.dtype, "name", str(leaf.dtype))
    kind = name.rstrip("0123456789")
    return f"{_SHORT.get(kind, kind)}{name[len(kind) :]}[{','.join(map(str, leaf.shape))}]"


def _net(program: Program) -> js.Transformed:
    return program if isinstance(program, js.Transformed) else js.transform(program)


def _specs(program: Program | js.Specs, args: tuple[Any, ...], kwargs: dict[str, Any]) -> js.Specs:
    return program if isinstance(program, js.Specs) else _net(program).specs(*args, **kwargs)


def _rows(specs: js.Specs) -> list[tuple[Any, ...]]:
    # Not the initializers: a lambda inside the program is another object each time.
    return [(spec.name, spec.shape, spec.dtype, spec.trainable, spec.collections) for spec in specs.values()]


def _listed(head: str, lines: list[str], most: int = 20) -> str:
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([head, *(f"  - {line}" for line in [*lines[:most], *more])])


def _few(names: Mapping[str, Any]) -> str:
    return ", ".join(list(names)[:5]) + (", ..." if len(names) > 5 else "") or "none"
