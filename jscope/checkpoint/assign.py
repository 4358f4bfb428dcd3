"""`assign_from`: values of a checkpoint for the names of a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope._support import is_elsewhere, shown

from .faults import Path
from .fitting import ALLOW, CORRECT, WIDEN, Allowed, Fit, as_array, fit, misfit, shape_and_dtype, wide_faults
from .leaves import is_key
from .loaded import Checkpoint, bytes_of_spec, tensor_of
from .near import Near
from .operations import MisfitError, cast_checked, check_has_value
from .progress import bar
from .rename import Rename
from .report import Assigned
from .spread import is_spread, sharding_faults, sharding_of, spread

if TYPE_CHECKING:
    from .plan import Plan


def assign_from(
    target: js.Specs | Mapping[str, Any],
    source: Path | Mapping[str, Any],
    *,
    plan: Plan | None = None,
    rename: Rename | None = None,
    exclude: str | Sequence[str] = (),
    allow_missing: Allowed = False,
    allow_unused: Allowed = False,
    allow_cast: Allowed = False,
    key: jax.Array | None = None,
    shardings: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Assigned:
    """Values of a checkpoint for a program's variables. TF1: `tf.train.init_from_checkpoint`, `Saver(var_list=map)`.

    Strict: each variable must be in the source, with its shape and dtype, and each array of the source must be used,
    unless it is allowed to be otherwise. All that does not fit is in one error, with near names, found before any array
    is read; only what a cast does to values, and whether tied ones are equal, needs the arrays.

    Each array is read where it is needed: where the target, or `shardings`, says how an array is spread over devices,
    each process reads the parts that its own devices hold.

    Args:
      target: what to fill: `net.specs(...)`, or a tree. Values of a tree are only looked at for what the source lacks;
        `jax.ShapeDtypeStruct`s will do for the others.
      source: a path, as in `open`, or a mapping: a `Checkpoint`, a `Params`, a dict of arrays.
      plan: a `Plan`, for files whose arrays are not the program's under other names: transposed, fused, tied.
      rename: from names of the source to those of the target; what it does not speak of keeps its name. One of
        - a mapping as TF1's `assignment_map`, old name to new one. Both end in `/` where they are scopes, the longest
          one counts, and `"/"` is the root: `{"bert/": "encoder/", "global_step": "step"}`.
        - `(pattern, replacement)` pairs, for `re.sub` on the name, one after the other.
        - a function from name to name.
      exclude: regular expressions for `re.match` on names of the target that are not filled, whatever the source has:
        a head of another size. TF1: slim's `checkpoint_exclude_scopes`. It is then as with `allow_missing`.
        A pattern that matches no name, neither of the target nor of the source, does not fit.
      allow_missing: what the source may lack: True, or regular expressions for `re.match` on names of the target. In a
        tree the value stays; with specs it is the one that `specs.init(key)` gives.
        What is allowed by patterns to be missing, and in the source to be unused, may have another shape.
      allow_unused: what of the source may be left over: True, or patterns on its own names, before `rename`.
      allow_cast: what may be converted to the target's dtype: True, or patterns on names of the target. What is lost
        is precision alone: neither kind nor range, so a float is never made an int, and 2**40 no int32.
      key: a JAX random key, for specs and what is missing.
      shardings: a `jax.sharding.Sharding` for each name, nested or flat, of those that are to lie elsewhere than on the
        first device. Each of these becomes an array of JAX, also what the source lacks and the target keeps.
      progress: as in `load`.

    Returns:
      `(params, report)`. The values are arrays of their own, of JAX where the target is specs, and else of the kind
      and with the sharding of the target's leaf. Where `jax_enable_x64` is off, 64 bits fit leaves of numpy alone. The
      report says what was loaded, kept, initialised, unused and cast, and of what no checksum was compared.

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
    found = fit(
        target,
        source,
        plan=plan,
        rename=rename,
        exclude=exclude,
        allow_missing=allow_missing,
        allow_unused=allow_unused,
        allow_cast=allow_cast,
        can_make=isinstance(target, js.Specs) and key is not None,
    )
    where = js.Params(shardings or {}).flat()
    near = Near(found.wanted)
    misplaced = [
        f"{shown(name)} has a sharding, and is not there{near.text(name)}" for name in where if name not in found.wanted
    ] + sharding_faults(found.wanted, where)
    wide = wide_faults(found.jax_leaves(where))
    if faults := [*found.faults, *misplaced, *wide]:
        fixes = [f"{'rename names with rename= or a plan' if plan is None else CORRECT}; {ALLOW}"] * bool(found.faults)
        fixes += ["correct shardings=, or those of the target"] * bool(misplaced) + [WIDEN] * bool(wide)
        raise misfit(faults, found.idle, fix="; ".join(fixes))
    values, unverified, faults = _read(found, where, progress)
    if faults:
        fix = "give arrays that have values, and a target whose dtypes hold them"
        raise misfit(faults, fix=fix if plan is None else f"{fix}; {CORRECT}")
    filled = _filled(target, values, found.missing, key, where)
    return Assigned(filled, found.report(isinstance(target, js.Specs), unverified))


def _read(
    found: Fit, shardings: Mapping[str, Any], progress: bool | None
) -> tuple[dict[str, Any], list[str], list[str]]:
    """(the values by new name, of what no checksum was compared, what can't be used after all).

    What stays in a tree is among the values where `shardings` has it lie elsewhere.
    """
    values, unverified, faults = {}, [], []
    given, wanted = found.given, found.wanted
    listing = given.listing() if isinstance(given, Checkpoint) else {}
    sizes = {name: bytes_of_spec(listing[old]) if listing else 0 for name, old in found.sources.items()}
    with bar("assigning", sum(sizes.values()), progress) as advance:
        # The largest first: what is copied on its way to a device then adds least to what is held already.
        for name, old in sorted(found.sources.items(), key=lambda item: -sizes[item[0]]):
            dtype = shape_and_dtype(wanted[name])[1]
            # What shardings= names becomes an array of JAX, whatever the target has there.
            leaf = None if name in shardings else wanted[name]
            sharding = shardings[name] if leaf is None else sharding_of(leaf)
            try:
                if isinstance(given, Checkpoint) and is_spread(sharding):
                    values[name], was_verified = spread(tensor_of(given, old), sharding, dtype, given.verifies)
                else:
                    value = as_array(given[old])
                    check_has_value(value)
                    value = cast_checked(value, dtype) if name in found.cast else value
                    values[name] = _placed(value, leaf, sharding, bool(listing) or name in found.cast)
                    was_verified = not isinstance(given, Checkpoint) or (
                        given.verifies and tensor_of(given, old).has_checksum
                    )
                unverified += [name] * (not was_verified)
            except MisfitError as error:
                faults.append(f"{found.told(name)} {error}")
            advance(sizes[name])
    for name in found.missing:
        if name in shardings and not isinstance(wanted[name], jax.ShapeDtypeStruct):
            try:
                values[name] = _placed(as_array(wanted[name]), None, shardings[name], False)
            except MisfitError as error:
                faults.append(f"{shown(name)} {error}")
    return values, unverified, faults


def _placed(value: Any, leaf: Any, sharding: Any, is_fresh: bool) -> Any:
    """An array of JAX, where the leaf is; or one of numpy, as the leaf is. None for a leaf: of JAX, by its sharding."""
    if is_elsewhere(value):
        if isinstance(leaf, np.ndarray | np.generic) or (sharding is not None and sharding.is_fully_addressable):
            raise MisfitError("is spread over processes, and wanted in this one alone: give shardings over all of them")
        if sharding is None:
            return jnp.array(value)
    if isinstance(leaf, np.ndarray | np.generic):
        return value if is_fresh else np.array(value)
    if isinstance(value, np.ndarray) and not is_fresh:
        value = value.copy()  # on a CPU, JAX takes over memory of numpy where it can
    if isinstance(value, jax.core.Tracer) or isinstance(leaf, jax.core.Tracer):
        return jnp.array(value) if leaf is not None else jax.device_put(value, sharding)
    return _moved(value, sharding, may_alias=is_fresh)


def _moved(value: Any, sharding: Any, *, may_alias: bool) -> jax.Array:
    """The array where `sharding` has it."""
    if sharding is not None and not (sharding.is_fully_addressable or is_elsewhere(value) or is_key(value)):
        value = np.asarray(value)  # of one of JAX, `device_put` makes one for all processes that can't be read (0.12)
    return jax.device_put(value, sharding, may_alias=may_alias)


def _filled(
    target: Any, values: dict[str, Any], missing: Sequence[str], key: Any, shardings: Mapping[str, Any]
) -> js.Params:
    """The tree. What is missing is made of specs, and stays in a tree."""
    if not isinstance(target, js.Specs):
        return js.Params(target).replace(values)
    if missing:
        made = js.Specs(target[name] for name in missing).init(key).flat()
        made = {name: _moved(leaf, shardings.get(name), may_alias=True) for name, leaf in made.items()}
        return js.Params(made | values)
    return js.Params(values)
