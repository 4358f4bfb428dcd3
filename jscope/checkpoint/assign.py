"""`assign_from`: values of a checkpoint for the names of a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

import jscope as js

from .casting import cast_array, cast_fault
from .faults import Path, user_line
from .loaded import Checkpoint, bytes_of_spec
from .near import Near
from .opening import open
from .progress import bar
from .rename import Rename, compiled, renamer
from .report import Assigned, AssignReport

Allowed = bool | str | Sequence[str]


def assign_from(
    target: js.Specs | Mapping[str, Any],
    source: Path | Mapping[str, Any],
    *,
    rename: Rename | None = None,
    allow_missing: Allowed = False,
    allow_unused: Allowed = False,
    allow_cast: Allowed = False,
    key: jax.Array | None = None,
    progress: bool | None = None,
) -> Assigned:
    """Values of a checkpoint for a program's variables. TF1: `tf.train.init_from_checkpoint`, `Saver(var_list=map)`.

    Strict: each variable must be in the source, with its shape and dtype, and each array of the source must be used,
    unless it is allowed to be otherwise. All that does not fit is in one error, with near names, found before any array
    is read; only what a cast does to values needs the arrays.

    Args:
      target: what to fill: `net.specs(...)`, or a tree. Values of a tree are only looked at for what the source lacks;
        `jax.ShapeDtypeStruct`s will do for the others.
      source: a path, as in `open`, or a mapping: a `Checkpoint`, a `Params`, a dict of arrays.
      rename: from names of the source to those of the target; what it does not speak of keeps its name. One of
        - a mapping as TF1's `assignment_map`, old name to new one. Both end in `/` where they are scopes, the longest
          one counts, and `"/"` is the root: `{"bert/": "encoder/", "global_step": "step"}`.
        - `(pattern, replacement)` pairs, for `re.sub` on the name, one after the other.
        - a function from name to name.
      allow_missing: what the source may lack: True, or regular expressions for `re.match` on names of the target. In a
        tree the value stays; with specs it is the one that `specs.init(key)` gives.
      allow_unused: what of the source may be left over: True, or patterns on its own names, before `rename`.
      allow_cast: what may be converted to the target's dtype: True, or patterns on names of the target. What is lost
        is precision alone: neither kind nor range, so a float is never made an int, and 2**40 no int32.
      key: a JAX random key, for specs and what is missing.
      progress: as in `load`.

    Returns:
      `(params, report)`. The values are arrays of their own, of JAX where the target is specs, and else of the kind
      and with the sharding of the target's leaf. The report says what was loaded, kept, initialised, unused and cast.

    Raises:
      ParamsMismatchError: if something does not fit; `faults` lists everything.
      CheckpointError: if the checkpoint can't be read.
      InitializerError: if the program computes the initial value of what is missing: fill `net.init(...)` instead.
      BadTypeError, BadArgumentError: for arguments that can't be meant.

    Example:
      >>> from jscope.checkpoint import assign_from
      >>> def program(x):
      ...     with js.variable_scope("tower"):
      ...         w = js.get_variable("kernel", [2, 3])
      ...     return x @ w + js.get_variable("bias", [3])
      >>> specs = js.transform(program).specs(jnp.ones((1, 2)))
      >>> source = {"net": {"kernel": np.ones((2, 3), np.float32)}, "global_step": 7}
      >>> params, report = assign_from(
      ...     specs, source, rename={"net/": "tower/"}, allow_missing="bias", allow_unused=True, key=jax.random.key(0)
      ... )
      >>> print(report)
      state        name          note
      loaded       tower/kernel  from net/kernel
      initialised  bias
      unused       global_step
      1 loaded (0 cast), 0 kept, 1 initialised, 1 unused
    """
    wanted = _wanted(target)
    given = _given(source)
    shapes = _shapes(given)
    renamed, faults = renamer(rename, shapes)
    may_lack, may_leave, may_cast = map(_allows, (allow_missing, allow_unused, allow_cast))

    sources: dict[str, str] = {}
    cast: dict[str, str] = {}
    unused: list[str] = []
    for name in shapes:
        new = renamed(name)
        if new not in wanted:
            unused.append(name)
        elif new in sources:
            faults.append(f"'{sources[new]}' and '{name}' are both to be '{new}'")
        else:
            sources[new] = name
    missing = [name for name in wanted if name not in sources]
    skipped = given.skipped if isinstance(given, Checkpoint) else {}
    faults += [f"'{renamed(name)}', from '{name}', {why}" for name, why in skipped.items() if renamed(name) in wanted]
    for name, old in sources.items():
        fault, how = _mismatch(shapes[old], wanted[name], may_cast(name))
        if fault:
            faults.append(f"'{name}'{f', from {old!r},' if old != name else ''} {fault}")
        elif how:
            cast[name] = how
    faults += _missing_faults(missing, unused, wanted, may_lack, isinstance(target, js.Specs) and key is not None)
    near = Near(missing)
    for name in unused:
        if not may_leave(name):
            new = renamed(name)
            faults.append(f"'{name}' is not used{f' as {new!r}' if new != name else ''}{near.text(new)}")
    if faults:
        raise _error(faults)

    values, faults = _read(given, sources, wanted, cast, progress)
    if faults:
        raise _error(faults)
    filled, kept, initialised = _filled(target, values, missing, key)
    order = [name for name in wanted if name in sources]
    sources = {name: sources[name] for name in order}
    return Assigned(filled, AssignReport(tuple(order), kept, initialised, tuple(unused), skipped, cast, sources))


def _wanted(target: Any) -> dict[str, Any]:
    """What is to be filled, by name: things that have a shape and a dtype, or are numbers."""
    if isinstance(target, js.Specs):
        return {name: spec.abstract() for name, spec in target.items()}
    if isinstance(target, Mapping):
        return js.Params(target).flat()
    what = f"assign_from fills specs or a tree of parameters, not a {type(target).__name__}."
    raise js.BadTypeError(what, kind="bad_target", where=user_line(), fix="pass net.specs(...) or net.init(...)")


def _given(source: Any) -> Mapping[str, Any]:
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, Mapping):
        return js.Params(source).flat()
    if isinstance(source, str | os.PathLike):
        return open(source)
    what = f"assign_from takes a path or a mapping as source, not a {type(source).__name__}."
    fix = "pass the path of a checkpoint, or arrays by name"
    raise js.BadTypeError(what, kind="bad_source", where=user_line(), fix=fix)


def _shapes(given: Mapping[str, Any]) -> dict[str, Any]:
    return dict(given.listing() if isinstance(given, Checkpoint) else given)


def _allows(allowed: Allowed) -> Callable[[str], bool]:
    if isinstance(allowed, bool):
        return lambda name: allowed
    patterns = [compiled(pattern) for pattern in ([allowed] if isinstance(allowed, str) else allowed)]
    return lambda name: any(pattern.match(name) for pattern in patterns)


def _mismatch(given: Any, wanted: Any, may_cast: bool) -> tuple[str, str]:
    """(what is wrong, how it has to be cast)."""
    shape, dtype = _shape_and_dtype(given)
    wanted_shape, wanted_dtype = _shape_and_dtype(wanted)
    if shape is None:
        return f"is no array but {given!r:.40}", ""
    if wanted_shape is None:
        return f"is to replace {wanted!r:.40}, which is no array", ""
    if shape != wanted_shape:
        return f"has shape {shape}, wanted {wanted_shape}", ""
    if dtype == wanted_dtype:
        return "", ""
    if not may_cast:
        return f"has dtype {dtype}, wanted {wanted_dtype}", ""
    return cast_fault(dtype, wanted_dtype), f"{dtype} -> {wanted_dtype}"


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...] | None, Any]:
    """(None, None) of what is no array."""
    leaf = _as_array(leaf)
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    return (None, None) if shape is None or dtype is None else (tuple(shape), dtype)


def _as_array(value: Any) -> Any:
    """Of a number the array that TensorFlow 1 makes of it, float32 or int32; anything else as it is."""
    if isinstance(value, np.generic) or not isinstance(value, bool | int | float | complex):
        return value
    kinds = {bool: np.bool_, int: np.int32, float: np.float32, complex: np.complex64}
    try:
        return np.asarray(value, kinds[type(value)])
    except OverflowError:
        return np.asarray(value)


def _missing_faults(
    missing: list[str],
    unused: list[str],
    wanted: Mapping[str, Any],
    may_lack: Callable[[str], bool],
    can_make: bool,
) -> list[str]:
    faults, near = [], Near(unused)
    for name in missing:
        if not may_lack(name):
            faults.append(f"'{name}' is missing{near.text(name)}")
        elif isinstance(wanted[name], jax.ShapeDtypeStruct) and not can_make:
            faults.append(f"'{name}' is missing, and can be initialised only from specs and with key=")
    return faults


def _error(faults: list[str]) -> js.ParamsMismatchError:
    return js.ParamsMismatchError(
        f"The source does not fit: {len(faults)} fault{'s' if len(faults) > 1 else ''}. Nothing was assigned.",
        kind="params_mismatch",
        faults=faults,
        where=user_line(),
        fix="rename names with rename=, or allow what is meant by allow_missing=, allow_unused=, allow_cast=",
    )


def _read(
    given: Mapping[str, Any],
    sources: Mapping[str, str],
    wanted: Mapping[str, Any],
    cast: Mapping[str, str],
    progress: bool | None,
) -> tuple[dict[str, Any], list[str]]:
    """(the values by new name, what can't be cast after all)."""
    values, faults = {}, []
    listing = given.listing() if isinstance(given, Checkpoint) else {}
    sizes = {name: bytes_of_spec(spec) for name, spec in listing.items()}
    with bar("assigning", sum(sizes.get(old, 0) for old in sources.values()), progress) as advance:
        for name, old in sources.items():
            value = _as_array(given[old])
            if name in cast:
                try:
                    value = cast_array(value, _shape_and_dtype(wanted[name])[1])
                except ValueError as error:
                    faults.append(f"'{name}' {error}")
            values[name] = _placed(value, wanted[name], bool(listing) or name in cast)
            advance(sizes.get(old, 0))
    return values, faults


def _placed(value: Any, leaf: Any, is_fresh: bool) -> Any:
    """An array of JAX, where the leaf is; or one of numpy, as the leaf is."""
    if isinstance(leaf, np.ndarray | np.generic):
        return value if is_fresh else np.array(value)
    if isinstance(value, np.ndarray) and not is_fresh:
        value = value.copy()  # on a CPU, JAX takes over memory of numpy where it can
    if isinstance(value, jax.core.Tracer) or isinstance(leaf, jax.core.Tracer):
        return jnp.array(value)
    return jax.device_put(value, getattr(leaf, "sharding", None), may_alias=False)


def _filled(
    target: Any, values: dict[str, Any], missing: list[str], key: Any
) -> tuple[js.Params, tuple[str, ...], tuple[str, ...]]:
    """(the tree, names that were kept, names that were made)."""
    if not isinstance(target, js.Specs):
        return js.Params(target).replace(values), tuple(missing), ()
    if missing:
        made = js.Specs(target[name] for name in missing).init(key)
        return made | values, (), tuple(missing)
    return js.Params(values), (), ()
