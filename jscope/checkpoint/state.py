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
from .fitting import WIDEN, fit, misfit, wide_faults
from .leaves import check_is_here, is_key
from .loaded import Checkpoint, own_of, tensor_of
from .opening import open
from .operations import MisfitError, cast_checked
from .progress import bar
from .report import AssignReport
from .safetensors_file import save_with
from .spread import is_spread, sharding_faults, sharding_of, spread

# Metadata, JSON: what leaves are besides arrays, by name. The dtype of a key of jax.random, and for weak types a word.
_KINDS = "jscope.kinds"
_WEAK = "weak"
_OLD_KEYS = "random keys"  # the same of keys alone, in files from before
_IMPLEMENTATIONS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}
_OF_THAT_FORM = (
    "give a template of the model and the optimizer that the state was saved of; jscope.checkpoint.open(path) reads "
    "arrays one by one"
)
_NUMBERS: dict[type, np.dtype] = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64)}


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
    arrays, kinds = {}, {}
    for name, leaf in leaves.items():
        if is_key(leaf):
            check_is_here(name, leaf)
            kinds[name] = str(leaf.dtype)
            arrays[name] = _array(name, jax.random.key_data(leaf))
        else:
            arrays[name] = _array(name, leaf)
            if _is_weak(leaf):
                kinds[name] = _WEAK
    save_with({_KINDS: json.dumps(kinds)}, path, arrays, metadata=metadata)


def load_state(path: Path, template: Any, *, verify: bool = True, progress: bool | None = None) -> LoadedState:
    """A training state from a file that `save_state` wrote. Flax: `restore_checkpoint`.

    Strict: the file has just the leaves that the template has, of their shapes and dtypes. So a run that goes on from
    it is, to the bit, the run that was never interrupted; and where the model has changed, one error says all names
    that differ, before anything is read.

    A number of Python and an array of JAX that stands for one fill each other's place, as they do in a function under
    `jax.jit`: a step may be 0 in the template, and `jnp.int32(7)` in the file.

    Args:
      path: the file.
      template: a tree of the same form, such as a new state. Its values are not looked at, so that the shapes that
        `jax.eval_shape` gives will do, if arrays of numpy have no 64 bits. Each leaf comes back as the template has it:
        an array of JAX on the same devices, one of numpy, a number of Python, a key. Weak types are those of what was
        saved; so a number comes back as an array where that array was of no weak type.
      verify, progress: as in `jscope.checkpoint.load`.

    Returns:
      `(state, report)`.

    Raises:
      ParamsMismatchError: if the template does not fit, or a number is too large for the array in its place; `faults`
        lists everything.
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
    kinds, listing = kinds_of(opened), opened.listing()
    keys = _old_keys(opened) if kinds is None else {name: kind for name, kind in kinds.items() if kind != _WEAK}
    # Files from before do not say which types are weak: the template does.
    weak = {name for name, leaf in leaves.items() if kinds is None and _is_weak(leaf)}
    weak |= {name for name, kind in (kinds or {}).items() if kind == _WEAK}
    may_be_number = leaves.keys() if kinds is None else weak
    saved = {name: listing[name] for name in leaves if name in listing}
    wanted = {name: _spec(name, leaf, saved.get(name), name in may_be_number) for name, leaf in leaves.items()}
    found = fit(wanted, opened)
    misfits = list(found.faults)
    for name, leaf in leaves.items():
        kind, other = keys.get(name, "no key"), str(leaf.dtype) if is_key(leaf) else "no key"
        if name in opened and kind != other:
            misfits.append(f"{shown(name)} is {printable(kind)}, wanted {other}")
    on_devices = {name: leaf for name, leaf in leaves.items() if _is_of_jax(leaf)}
    misplaced, wide = sharding_faults(leaves, {}), wide_faults(on_devices)
    if faults := [*misfits, *misplaced, *wide]:
        fixes = [_OF_THAT_FORM] * bool(misfits) + ["correct the template's shardings"] * bool(misplaced)
        raise misfit(faults, fix="; ".join(fixes + [WIDEN] * bool(wide)))
    values, unverified = [], []
    with bar("loading", sum(listing[name].size * listing[name].dtype.itemsize for name in wanted), progress) as advance:
        for name, leaf in leaves.items():
            tensor, sharding = tensor_of(opened, name), sharding_of(leaf)
            dtype = leaf.dtype if name in on_devices else tensor.dtype
            try:
                if name in on_devices and name not in weak and is_spread(sharding):
                    value, was_verified = spread(tensor, sharding, dtype, verify)
                else:
                    value, was_verified = tensor.read(verify), verify and tensor.has_checksum
                    value = value if value.dtype == dtype else cast_checked(value, dtype)
            except MisfitError as error:
                raise misfit([f"{shown(name)} {error}"], fix="give a template with a number of Python there") from None
            values.append(_as(value, leaf, sharding, name in weak))
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
    if type(leaf) is complex:
        what = f"{shown(name)} is a complex number of 128 bits, which the file does not hold."
        raise fault(what, kind="bad_dtype", fix="keep it as np.complex64(number)")
    what = f"{shown(name)} is no array, number or key, but {leaf!r:.60}."
    raise fault(what, kind="bad_leaf", fix="keep texts in metadata=, and leave functions out of the state")


def _is_weak(leaf: Any) -> bool:
    """Whether its dtype gives way to that of what it is used with."""
    return type(leaf) in _NUMBERS or bool(getattr(leaf, "weak_type", False))


def _is_of_jax(leaf: Any) -> bool:
    """Whether an array of JAX takes the place of a leaf of the template; not of keys, which are made of arrays."""
    return not (is_key(leaf) or type(leaf) in _NUMBERS or isinstance(leaf, np.ndarray | np.generic))


def _spec(name: str, leaf: Any, saved: Any, may_be_number: bool) -> Any:
    """What the file is to hold for a leaf of the template: where numbers fill arrays and arrays numbers, what is saved.

    Args:
      name: of the leaf.
      leaf: of the template.
      saved: shape and dtype in the file, None if it has none of that name.
      may_be_number: whether what was saved may be a number of Python.
    """
    if is_key(leaf):
        return jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    if type(leaf) in _NUMBERS:
        is_of_kind = saved is not None and saved.shape == () and type(_zero(saved.dtype)) is type(leaf)
        return saved if is_of_kind else jax.ShapeDtypeStruct((), _NUMBERS[type(leaf)])
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        return _array(name, leaf)  # which says what is wrong
    numbers = _NUMBERS.values() if may_be_number and _is_of_jax(leaf) else ()
    if saved is not None and saved.shape == tuple(shape) == () and saved.dtype in numbers:
        dtype = saved.dtype if jax.dtypes.canonicalize_dtype(saved.dtype) == dtype else dtype
    return jax.ShapeDtypeStruct(tuple(shape), dtype)


def kinds_of(opened: Checkpoint) -> dict[str, str] | None:
    """What leaves of a state are besides arrays, by name. None if the file does not say."""
    text = own_of(opened).get(_KINDS)
    return None if text is None else _parsed(opened.path, text)


def kinds_for(opened: Checkpoint, origins: Mapping[str, str]) -> dict[str, str]:
    """Metadata with which another file says of its arrays what this one says (`kinds_of`).

    Args:
      opened: this file.
      origins: name of an array there -> its name here.
    """
    kinds = kinds_of(opened)
    if kinds is None:
        return {}
    return {_KINDS: json.dumps({name: kinds[origin] for name, origin in origins.items() if origin in kinds})}


def _old_keys(opened: Checkpoint) -> dict[str, str]:
    return _parsed(opened.path, opened.metadata.get(_OLD_KEYS, "{}"))


def _parsed(path: str, text: str) -> dict[str, str]:
    try:
        kinds = json.loads(text)
    except (ValueError, RecursionError):
        kinds = None
    if not isinstance(kinds, dict) or not all(isinstance(kind, str) for kind in kinds.values()):
        raise damaged(path, 8, "its metadata do not say which arrays are keys")
    return kinds


def _as(value: Any, leaf: Any, sharding: Any, is_weak: bool) -> Any:
    """A value as the template has its leaf."""
    if is_key(leaf):
        keys = jax.random.wrap_key_data(jnp.asarray(value), impl=_implementation(leaf))
        return keys if _is_free(leaf) else jax.device_put(keys, sharding)
    # A dtype that JAX has not was no array of its.
    if type(leaf) in _NUMBERS and (is_weak or jax.dtypes.canonicalize_dtype(value.dtype) != value.dtype):
        return type(leaf)(value)
    if isinstance(leaf, np.generic):
        return value[()]
    if isinstance(leaf, np.ndarray) or isinstance(value, jax.Array):
        return value
    sharding = None if _is_free(leaf) else sharding
    # `device_put` of an array of JAX to all processes gives one that can't be read, where each has one device (0.12).
    return jax.jit(_weak, out_shardings=sharding)(value) if is_weak else jax.device_put(value, sharding, may_alias=True)


def _weak(value: Any) -> Any:
    """An array of a weak type; as it is where JAX has no such type of that dtype."""
    zero = jnp.asarray(_zero(value.dtype))
    if zero.dtype != value.dtype:
        return value
    # JAX has no function that makes an array weak. An update of one that is weak gives such a one.
    return jnp.broadcast_to(zero, value.shape).at[...].set(value)


def _zero(dtype: Any) -> Any:
    """The number of Python of which JAX makes a weak array of that dtype."""
    kinds = ((jnp.bool_, False), (jnp.integer, 0), (jnp.floating, 0.0), (jnp.complexfloating, 0j))
    return next(zero for kind, zero in kinds if jnp.issubdtype(dtype, kind))


def _is_free(leaf: Any) -> bool:
    """Whether JAX may move an array of the template, since nobody placed it."""
    return getattr(leaf, "sharding", None) is None or not getattr(leaf, "committed", True)
