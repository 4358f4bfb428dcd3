"""A whole training state in one file: parameters, an optimizer's state, the step, keys, averages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jscope._support import printable, shown

from .faults import Path, damaged, fault
from .fitting import fit, misfit
from .leaves import check_is_here, is_key
from .loaded import tensor_of
from .opening import open
from .progress import bar
from .report import AssignReport
from .safetensors_file import save
from .spread import is_spread, sharding_faults, spread

_KEYS = "random keys"  # metadata: the kind of each key of jax.random, by name, as JSON
_IMPLEMENTATIONS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}
_OF_THAT_FORM = (
    "give a template of the model and the optimizer that the state was saved of; jscope.checkpoint.open(path) reads "
    "arrays one by one"
)
_NUMBERS = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64)}


class LoadedState(NamedTuple):
    """What `load_state` gives: `state, report = load_state(...)`.

    Attributes:
      state: the template's tree with the file's values.
      report: an `AssignReport`.
    """

    state: Any
    report: AssignReport


def save_state(path: Path, state: Any, *, metadata: Mapping[str, str] | None = None) -> None:
    """Saves a training state in one file, in the format of safetensors. Flax: `flax.training.checkpoints`.

    The state is any tree of arrays, numbers and keys of `jax.random`: a dict of `Params`, an optax state, a step and a
    key, say. The names in the file are those of the way to each leaf, `opt_state/0/mu/tower/kernel`, so that
    `python -m jscope ls` shows them and `open` reads them. The file takes the place of an older one at one stroke, as
    with `jscope.checkpoint.save`. Arrays that other processes hold are for orbax.

    Args:
      path: the file. Its directory must exist.
      state: the tree.
      metadata: texts by name, to be kept in the file.

    Raises:
      CheckpointError: if a leaf can't be kept, two leaves have one name, or the file can't be written.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope import checkpoint
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "state.safetensors"
      >>> state = {"params": js.Params({"w": jnp.ones(3)}), "step": 7, "key": jax.random.key(0)}
      >>> checkpoint.save_state(file, state)
      >>> list(checkpoint.open(file))
      ['key', 'params/w', 'step']
    """
    leaves, _ = _named(state)
    arrays, keys = {}, {}
    for name, leaf in leaves.items():
        if is_key(leaf):
            check_is_here(name, leaf)
            keys[name] = str(leaf.dtype)
            arrays[name] = _array(name, jax.random.key_data(leaf))
        else:
            arrays[name] = _array(name, leaf)
    kept = dict(metadata or {})
    if _KEYS in kept:
        raise fault(f"The metadata {_KEYS!r} is jscope's own.", kind="bad_metadata", fix="give it another name")
    save(path, arrays, metadata=kept | ({_KEYS: json.dumps(keys)} if keys else {}))


def load_state(path: Path, template: Any, *, verify: bool = True, progress: bool | None = None) -> LoadedState:
    """A training state from a file that `save_state` wrote. Flax: `restore_checkpoint`.

    Strict: the file has just the leaves that the template has, of their shapes and dtypes. So a run that goes on from
    it is, to the bit, the run that was never interrupted; and where the model has changed, one error says all names
    that differ, before anything is read.

    Args:
      path: the file.
      template: a tree of the same form, such as a new state. Its values are not looked at, so that the shapes that
        `jax.eval_shape` gives will do. Each leaf comes back as the template has it: an array of JAX on the same
        devices, one of numpy, a number of Python, a key.
      verify, progress: as in `jscope.checkpoint.load`.

    Returns:
      `(state, report)`.

    Raises:
      ParamsMismatchError: if the template does not fit; `faults` lists everything.
      CheckpointError: if the file can't be read, or a leaf of the template is nothing that a file holds.

    Example:
      >>> import pathlib, tempfile
      >>> from jscope import checkpoint
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "state.safetensors"
      >>> new = {"params": js.Params({"w": jnp.zeros(3)}), "step": 0}
      >>> checkpoint.save_state(file, {"params": js.Params({"w": jnp.ones(3)}), "step": 7})
      >>> state, report = checkpoint.load_state(file, new)
      >>> state["step"], report.loaded
      (7, ('params/w', 'step'))
    """
    leaves, structure = _named(template)
    opened = open(path, verify=verify)
    kinds = _key_kinds(opened.path, opened.metadata)
    wanted = {name: _spec(name, leaf) for name, leaf in leaves.items()}
    found = fit(wanted, opened)
    faults = [*found.faults, *sharding_faults(leaves, {})]
    for name, leaf in leaves.items():
        kind, other = kinds.get(name, "no key"), str(leaf.dtype) if is_key(leaf) else "no key"
        if name in opened and kind != other:
            faults.append(f"{shown(name)} is {printable(kind)}, wanted {other}")
    if faults:
        raise misfit(faults, fix=_OF_THAT_FORM)
    values, unverified = [], []
    listing = opened.listing()
    with bar("loading", sum(listing[name].size * listing[name].dtype.itemsize for name in wanted), progress) as advance:
        for name, leaf in leaves.items():
            tensor = tensor_of(opened, name)
            sharding = getattr(leaf, "sharding", None)
            if sharding is not None and is_spread(sharding) and not is_key(leaf):
                value, was_verified = spread(tensor, sharding, tensor.dtype, verify)
            else:
                value, was_verified = tensor.read(verify), verify and tensor.has_checksum
            values.append(_as(value, leaf))
            unverified += [name] * (not was_verified)
            advance(tensor.dtype.itemsize * listing[name].size)
    return LoadedState(structure.unflatten(values), found.report(False, unverified))


def _named(tree: Any) -> tuple[dict[str, Any], Any]:
    """(the leaves by the way to them, the structure)."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named: dict[str, Any] = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "state"
        if name in named:
            what = f"Two leaves of the state would have the name {shown(name)}."
            raise fault(what, kind="bad_key", fix="rename one of them: keys of a dict may have / in them, but not so")
        named[name] = leaf
    return named, structure


def _implementation(leaf: Any) -> str:
    """The name of a key's implementation. Of shapes alone JAX does not give it."""
    return str(jax.random.key_impl(leaf)) if isinstance(leaf, jax.Array) else _IMPLEMENTATIONS[str(leaf.dtype)]


def _array(name: str, leaf: Any) -> Any:
    """A leaf as it is saved."""
    if isinstance(leaf, jax.core.Tracer):
        what = "A state can't be saved while JAX traces the function that computes it."
        raise fault(what, kind="traced", fix="save outside of jax.jit and JAX's other transforms")
    check_is_here(name, leaf)
    if type(leaf) in _NUMBERS:
        try:
            return np.asarray(leaf, _NUMBERS[type(leaf)])
        except OverflowError:
            what = f"{shown(name)} is a whole number of more than 64 bits."
            raise fault(what, kind="bad_dtype", fix="keep it as a text in metadata=") from None
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return leaf
    what = f"{shown(name)} is no array, number or key, but {leaf!r:.60}."
    raise fault(what, kind="bad_leaf", fix="keep texts in metadata=, and leave functions out of the state")


def _spec(name: str, leaf: Any) -> Any:
    """What the file is to hold for a leaf of the template."""
    if is_key(leaf):
        return jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    if type(leaf) in _NUMBERS:
        return jax.ShapeDtypeStruct((), _NUMBERS[type(leaf)])
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        return _array(name, leaf)  # which says what is wrong
    return jax.ShapeDtypeStruct(tuple(shape or ()), dtype)


def _key_kinds(path: str, metadata: Mapping[str, str]) -> dict[str, str]:
    try:
        kinds = json.loads(metadata.get(_KEYS, "{}"))
    except (ValueError, RecursionError):
        kinds = None
    if not isinstance(kinds, dict) or not all(isinstance(kind, str) for kind in kinds.values()):
        raise damaged(path, 8, "its metadata do not say which arrays are keys")
    return kinds


def _as(value: Any, leaf: Any) -> Any:
    """A value as the template has its leaf."""
    if is_key(leaf):
        keys = jax.random.wrap_key_data(jnp.asarray(value), impl=_implementation(leaf))
        return keys if _is_free(leaf) else jax.device_put(keys, leaf.sharding)
    if type(leaf) in _NUMBERS:
        return type(leaf)(value)
    if isinstance(leaf, np.generic):
        return value[()]
    if isinstance(leaf, np.ndarray) or isinstance(value, jax.Array):
        return value
    array = jax.device_put(value, None if _is_free(leaf) else leaf.sharding, may_alias=True)
    if getattr(leaf, "weak_type", False):
        # JAX has no function that makes an array weak. An update of one that is weak gives such a one.
        weak = jnp.broadcast_to(jnp.asarray(_zero(array.dtype)), array.shape)
        array = weak.at[...].set(array)
    return array


def _zero(dtype: Any) -> Any:
    """The number of Python of which JAX makes a weak array of that dtype."""
    kinds = ((jnp.bool_, False), (jnp.integer, 0), (jnp.floating, 0.0), (jnp.complexfloating, 0j))
    return next(zero for kind, zero in kinds if jnp.issubdtype(dtype, kind))


def _is_free(leaf: Any) -> bool:
    """Whether JAX may move an array of the template, since nobody placed it."""
    return getattr(leaf, "sharding", None) is None or not getattr(leaf, "committed", True)
