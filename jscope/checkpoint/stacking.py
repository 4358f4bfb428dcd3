"""Between variables of each layer (`layer_0/kernel`, `layer_1/kernel`) and one array for all (`layers/kernel`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope._support import count_of, shown

from .allowance import bytes_of_rows, room_for
from .faults import user_line
from .loaded import bytes_of_spec
from .operations import MisfitError, check_has_value

_Number = bool | int | float | complex
_NUMBER = re.compile(r"%(0\d+)?d")


def stack(tree: Mapping[str, Any], layers: str, to: str, *, start: int = 0) -> js.Params:
    """Puts the variables of numbered layers into one array each, along a new first axis: what `lax.scan` takes.

    `unstack` with the same arguments gives the tree back.

    Args:
      tree: arrays or numbers by name, nested or flat, or `jax.ShapeDtypeStruct`s, which keep their shardings. A
        `Checkpoint` will do: it is read.
      layers: the full name of the layers' scopes with `%d` for the number, also `%02d`: `"encoder/layer_%d"`.
      to: the scope of what is stacked: `"encoder/layers"`.
      start: the number of the first layer, from 0 on.

    Returns:
      The tree with the stacked arrays in place of the layers'; all else stays. Of numpy arrays they are numpy's, of
      others JAX's.

    Raises:
      ParamsMismatchError: if there are no such layers, numbers are left out, or the layers differ in names, shapes or
        dtypes; `faults` lists everything.
      BadArgumentError: if `layers`, `to` or `start` has no such form.

    Example:
      >>> from jscope.checkpoint import stack, unstack
      >>> tree = {"h0": {"w": np.ones((2, 3))}, "h1": {"w": np.zeros((2, 3))}, "out": np.ones(3)}
      >>> stack(tree, "h%d", to="h")
      Params({h: {w: f64[2,2,3]}, out: f64[3]})
      >>> unstack(stack(tree, "h%d", to="h"), "h", to="h%d") == js.Params(tree)
      True
    """
    before, width, after = _split(layers)
    to, start = _scope(to), _first(start)
    pattern = re.compile(f"{re.escape(before)}(0|[1-9][0-9]*|[0-9]{{{width}}}){re.escape(after)}/(.*)", re.DOTALL)
    found: dict[str, dict[int, Any]] = {}
    rest: dict[str, Any] = {}
    for name, leaf in _flat(tree).items():
        match = pattern.fullmatch(name)
        if match is not None and match[1] == f"{int(match[1]):0{width}d}":
            found.setdefault(match[2], {})[int(match[1])] = leaf
        else:
            rest[name] = leaf
    numbers = sorted({number for leaves in found.values() for number in leaves})
    faults = [f"no name starts with {layers % start}/"] * (not numbers)
    faults += _gaps(layers, numbers, start)
    for name, leaves in found.items():
        for i, leaf in leaves.items():
            faults += _no_array(f"{layers % i}/{name}", leaf)
        faults += [f"'{layers % i}/{name}' is missing" for i in numbers if i not in leaves]
        first, shape = min(leaves), _short(leaves[min(leaves)])
        differ = [(i, _short(leaf)) for i, leaf in sorted(leaves.items()) if _short(leaf) != shape]
        faults += [f"'{layers % i}/{name}' is {other}, '{layers % first}/{name}' is {shape}" for i, other in differ]
        faults += [f"'{to}/{name}' is there already"] * (f"{to}/{name}" in rest)
    faults += [f"'{name}' lies in the scope that is to hold the layers" for name in rest if name.startswith(f"{to}/")]
    _refuse(faults, f"{layers!r} can't be stacked")
    stacked = {f"{to}/{name}": _stacked([leaves[i] for i in numbers]) for name, leaves in found.items()}
    return js.Params({**rest, **stacked})


def unstack(tree: Mapping[str, Any], layers: str, to: str, *, start: int = 0) -> js.Params:
    """Takes the arrays of a scope apart along their first axis: one scope for each layer, as TensorFlow 1 has them.

    Args:
      tree: arrays by name, nested or flat, or `jax.ShapeDtypeStruct`s, which keep their shardings.
      layers: the scope of what is stacked: `"encoder/layers"`.
      to: the full name of the layers' scopes with `%d` for the number: `"encoder/layer_%d"`.
      start: the number of the first layer, from 0 on.

    Returns:
      The tree with the layers in place of what was stacked.

    Raises:
      ParamsMismatchError: if there is no such scope, its arrays differ in their first axis, or names are taken.
      BadArgumentError: if `layers`, `to` or `start` has no such form.

    Example:
      >>> from jscope.checkpoint import unstack
      >>> unstack({"h": {"w": np.ones((2, 3)), "b": np.zeros(2)}}, "h", to="layer_%d")
      Params({layer_0: {b: f64[], w: f64[3]}, layer_1: {b: f64[], w: f64[3]}})
    """
    _split(to)
    layers, start = _scope(layers), _first(start)
    flat = _flat(tree)
    stacked = {name.removeprefix(f"{layers}/"): leaf for name, leaf in flat.items() if name.startswith(f"{layers}/")}
    rest = {name: leaf for name, leaf in flat.items() if not name.startswith(f"{layers}/")}
    faults = [f"no name starts with {layers}/"] * (not stacked)
    counts = {name: (tuple(getattr(leaf, "shape", None) or ()) or (0,))[0] for name, leaf in stacked.items()}
    usual = max(counts.values(), default=0)
    for name, count in counts.items():
        faults += _no_array(f"{layers}/{name}", stacked[name])
        if not count or count != usual:
            wanted = f"not {usual} along its first axis" if usual else "nothing along a first axis"
            faults.append(f"'{layers}/{name}', {_short(stacked[name])}, is {wanted}")
    _refuse(faults, f"{layers!r} can't be taken apart")
    # What has bytes pays for its layers; what has none may say that there are any number.
    size = sum(map(bytes_of_spec, stacked.values()))
    bare = [name for name, leaf in stacked.items() if not bytes_of_spec(leaf)]
    if sum(bytes_of_rows(f"{to}/{name}", usual) for name in bare) > room_for(size):
        faults.append(f"{usual} layers of {count_of([*stacked], 'array')} are too many for their {size} bytes")
    _refuse(faults, f"{layers!r} can't be taken apart")
    stacked = {name: _together(leaf) for name, leaf in stacked.items()}
    taken = {f"{to % (start + i)}/{name}": _layer(leaf, i) for name, leaf in stacked.items() for i in range(usual)}
    _refuse([f"'{name}' is there already" for name in taken if name in rest], f"{layers!r} can't be taken apart")
    return js.Params({**rest, **taken})


def _flat(tree: Any) -> dict[str, Any]:
    return js.Params(tree).flat()


def _split(layers: Any) -> tuple[str, int, str]:
    """What comes before the number, how many digits it has at least, what comes after it."""
    found = list(_NUMBER.finditer(layers)) if isinstance(layers, str) else []
    if len(found) != 1 or layers.count("%") != 1 or layers.endswith("/"):
        what = f"The name of numbered layers has one %d in it and no / at its end: {layers!r} is none."
        fix = "write such as 'encoder/layer_%d'"
        raise js.BadArgumentError(what, kind="bad_layers", where=user_line(), fix=fix)
    (match,) = found
    return layers[: match.start()], int(match[1] or 1), layers[match.end() :]


def _scope(name: Any) -> str:
    if not isinstance(name, str) or not name or name.endswith("/"):
        what = f"{name!r} is no name of a scope for stacked layers."
        raise js.BadArgumentError(what, kind="bad_scope", where=user_line(), fix="write such as 'encoder/layers'")
    return name


def _first(start: Any) -> int:
    if not isinstance(start, int | np.integer) or isinstance(start, bool) or start < 0:
        what = f"The number of the first layer is a whole number from 0 on, not {start!r:.40}."
        raise js.BadArgumentError(what, kind="bad_start", where=user_line(), fix="write such as start=1")
    return int(start)


def _gaps(layers: str, numbers: list[int], start: int) -> list[str]:
    wanted = range(start, start + len(numbers))
    lacking = [layers % number for number in wanted if number not in numbers]
    early = [layers % number for number in numbers if number < start]
    faults = [f"there is {early[0]!r}, before the first one"] if early else []
    return faults + ([f"there are {len(numbers)} layers, but no {lacking[0]!r}"] if lacking else [])


def _short(leaf: Any) -> str:
    """What may differ between layers. A number is the array that numpy makes of it."""
    leaf = np.asarray(leaf) if isinstance(leaf, _Number) else leaf
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        return f"{leaf!r:.40}"
    return f"{dtype} of shape {tuple(shape)}" + " without a value" * isinstance(leaf, jax.ShapeDtypeStruct)


def _no_array(name: str, leaf: Any) -> list[str]:
    """Why a leaf is no array that can be put beside others, or cut; numbers, and shapes alone, can."""
    if isinstance(leaf, _Number) and np.asarray(leaf).dtype == object:
        return [f"{shown(name)} is {leaf!r:.40}, which no array of numbers holds"]
    if isinstance(leaf, jax.ShapeDtypeStruct | _Number):
        return []
    if getattr(leaf, "shape", None) is None:
        return [f"{shown(name)} is no array but {leaf!r:.40}"]
    try:
        check_has_value(leaf)
    except MisfitError as error:
        return [f"{shown(name)} {error}"]
    return []


def _stacked(leaves: list[Any]) -> Any:
    first = leaves[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        is_one = all(leaf.sharding == first.sharding for leaf in leaves)
        sharding = _sharding(first, lambda spec: (None, *spec)) if is_one else None
        return jax.ShapeDtypeStruct((len(leaves), *first.shape), first.dtype, sharding=sharding)
    return (jnp if any(isinstance(leaf, jax.Array) for leaf in leaves) else np).stack(leaves)


def _layer(leaf: Any, number: int) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        sharding = _sharding(leaf, lambda spec: spec[1:])
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=sharding)
    return leaf[number]


def _sharding(leaf: jax.ShapeDtypeStruct, changed: Callable[[Any], Any]) -> Any:
    """That of a shape with an axis more, or less, in front; None for a kind that says not how axes lie."""
    sharding = leaf.sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        spec = jax.sharding.PartitionSpec(*changed(tuple(sharding.spec)))
        return jax.sharding.NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)
    return sharding if isinstance(sharding, jax.sharding.SingleDeviceSharding) else None


def _together(leaf: Any) -> Any:
    """An array whose first axis is spread over no explicit axis of a mesh, along which JAX cuts nothing off."""
    sharding: Any = jax.typeof(leaf).sharding if isinstance(leaf, jax.Array) else None
    if sharding is None or not any(sharding.spec[:1]):  # other axes than explicit ones stand in no type
        return leaf
    spec = jax.sharding.PartitionSpec(None, *sharding.spec[1:])
    return jax.sharding.reshard(leaf, jax.sharding.NamedSharding(sharding.mesh, spec))


def _refuse(faults: list[str], what: str) -> None:
    if faults:
        raise js.ParamsMismatchError(
            f"{what}: {count_of(faults)}.",
            kind="bad_layers",
            faults=faults,
            where=user_line(),
            fix="give the full name of the layers' scopes; what differs between layers can't be one array",
        )
