"""Which dimension of a variable is cut along which axis, by names; and where that puts it on a mesh. Floor 1.

A program names axes (`jax.P("embed", "mlp")`), since it does not know on which devices it will run. `shardings` turns
these names into JAX's shardings for one mesh. What does not fit is told for all variables at once, by name: nothing is
replicated that was meant to be cut.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ._callsite import user_line
from ._errors import BadArgumentError, BadTypeError
from ._names import matcher, near
from ._params import Params
from ._show import count_of, short, short_type, some
from ._table import Placed, partition_text
from ._values import is_traced

Rules = Mapping[str, str | tuple[str, ...] | None]


class AxesPartitioner:
    """What `axes_partitioner` makes. Equal for equal rules."""

    __slots__ = ("_rules",)

    def __init__(self, rules: tuple[tuple[str, PartitionSpec | None], ...]) -> None:
        self._rules = rules

    def partition(self, name: str) -> PartitionSpec | None:
        """What the first pattern says that matches the whole name; None where there is none."""
        return next((partition for pattern, partition in self._rules if re.fullmatch(pattern, name)), None)

    def __call__(self, shape: Any, dtype: Any) -> PartitionSpec | None:
        raise BadTypeError(
            "A partitioner of axes_partitioner goes by names, which this call does not tell it.",
            kind="bad_partition",
            where=user_line(),
            fix="give it to variable_scope or get_variable as partitioner=",
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AxesPartitioner) and self._rules == other._rules

    def __hash__(self) -> int:
        return hash(self._rules)

    def __repr__(self) -> str:
        return f"axes_partitioner({list(self._rules)!r})"


def axes_partitioner(
    rules: Iterable[tuple[str, PartitionSpec | None]] | Mapping[str, PartitionSpec | None],
) -> AxesPartitioner:
    """A partitioner that goes by the names of variables: for layers and ports, from outside.

    TF1's partitioners (`tf.variable_axis_size_partitioner`) see shapes only. Flax: `nn.logical_axis_rules`, by axes.

    Args:
      rules: pairs of a regular expression, which has to match the whole full name, and a `jax.P` of names of axes. The
        first that matches counts. None, and no match, say nothing of the variable.

    Returns:
      What `js.variable_scope(partitioner=...)` and `js.get_variable(partitioner=...)` take.

    Raises:
      BadTypeError: for what is no list of such pairs.
      BadArgumentError: for what is no regular expression.

    Example:
      >>> by_name = js.axes_partitioner([(".*kernel", jax.P("embed", "mlp")), (".*bias", jax.P("mlp"))])
      >>> def program(x):
      ...     with js.variable_scope("up", partitioner=by_name):
      ...         return x @ js.get_variable("kernel", [2, 8]) + js.get_variable("bias", [8])
      >>> [tuple(spec.partition) for spec in js.transform(program).specs(jnp.ones((1, 2))).values()]
      [('embed', 'mlp'), ('mlp',)]
    """
    listed = rules.items() if isinstance(rules, Mapping) else rules if isinstance(rules, Iterable) else [rules]
    pairs: tuple[Any, ...] = tuple(listed)
    for pair in pairs:
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)
        if not is_pair or not (pair[1] is None or isinstance(pair[1], PartitionSpec)):
            raise BadTypeError(
                f"axes_partitioner takes pairs of a pattern and a jax.P, not {pair!r:.80}.",
                kind="bad_partition",
                asked=f"axes_partitioner({short(rules)})",
                where=user_line(),
                fix='give a list as in [(".*kernel", jax.P("embed", "mlp")), (".*bias", jax.P("mlp"))]',
            )
        matcher(pair[0])  # which refuses what is none
    return AxesPartitioner(tuple((pattern, partition) for pattern, partition in pairs))


def checked_rules(rules: Any) -> dict[str, Any]:
    """Rules of a user's, as they are now.

    Raises:
      BadTypeError: for what is no mapping of names of axes to names, tuples of names or None.
    """
    if isinstance(rules, Mapping):
        odd = [axis for axis, to in rules.items() if not (isinstance(axis, str) and _is_axis_of_mesh(to))]
        what = f"The rule of axis {odd[0]!r:.80} says {rules[odd[0]]!r:.80}" if odd else ""
    else:
        what = f"Rules are a mapping of names of axes, not a {type(rules).__name__}"
    if what:
        raise BadTypeError(
            f"{what}.",
            kind="bad_rules",
            asked=f"rules={short(rules)}",
            where=user_line(),
            fix='write them as in {"embed": "data", "mlp": ("model", "stage"), "layers": None}',
        )
    return dict(rules)


def _is_axis_of_mesh(to: Any) -> bool:
    return to is None or isinstance(to, str) or (isinstance(to, tuple) and all(isinstance(one, str) for one in to))


class ExplicitTypes:
    """How variables are cut in their types, where the mesh in force has axes of explicit type (`jax.set_mesh`).

    There the sharding is a part of an array's type. So the placeholders of `specs` and the values of `init` are given
    the types that `apply` will see.
    """

    def __init__(self, mesh: Any, explicit: set[str], rules: Rules | None) -> None:
        self._mesh = mesh
        self._explicit = explicit
        self._rules = rules

    @classmethod
    def in_force(cls, rules: Rules | None) -> ExplicitTypes | None:
        """Those of the mesh in force under the rules of `transform`; None where it has no such axes."""
        mesh = jax.sharding.get_abstract_mesh()
        explicit = _explicit(mesh)
        return cls(mesh, explicit, rules) if explicit else None

    def give(self, value: jax.Array, variable: Any) -> jax.Array:
        """The value of a variable, with the type that its partition says.

        Raises:
          BadArgumentError: if the partition does not fit the mesh.
        """
        if variable.partition is None:
            return value
        faults, axes = _placed(variable, self._mesh, self._rules)
        if faults:
            raise BadArgumentError(
                f"The partition P{partition_text(variable.partition)} of '{variable.name}' does not fit the mesh in "
                f"force, {dict(self._mesh.shape)}, whose axes are a part of types.",
                kind="bad_shardings",
                faults=faults,
                asked=f"'{variable.name}' {short_type(variable)} with {_shown(self._rules)}",
                where=user_line(),
                fix='give the rules to the program: js.transform(function, rules={"axis": "axis of the mesh"})',
            )
        return jax.sharding.reshard(value, _cut(axes, self._explicit))

    def shardings(self, specs: Mapping[str, Any], key: Any) -> dict[str, Any]:
        """Where the values of all variables lie by this, if they are drawn from that key."""
        # While JAX traces, it does not say which devices there are.
        mesh = self._mesh if is_traced(key) else jax.sharding.get_mesh()
        return shardings_of(specs, mesh, self._rules).flat()


def typed(value: jax.Array, sharding: Any) -> jax.Array:
    """A value whose type says how it is sharded along the explicit axes of the mesh in force.

    What `jax.jit(out_shardings=)` returns has such a type, but not where that call is a part of a greater trace.
    """
    explicit = _explicit(jax.sharding.get_abstract_mesh()) if is_traced(value) else set()
    if not explicit or not isinstance(sharding, NamedSharding) or not explicit.issubset(sharding.mesh.axis_names):
        return value
    return jax.sharding.reshard(value, _cut(sharding.spec, explicit))


def same_partition(one: Any, other: Any) -> bool:
    """Whether two partitions, or None for no partition, are one; what is not cut at the end need not be said."""
    if one is None or other is None:
        return one is other
    return one + (None,) * (len(other) - len(one)) == other + (None,) * (len(one) - len(other))


def _explicit(mesh: Any) -> set[Any]:
    """The axes of a mesh that are a part of types."""
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name for name, kind in kinds if kind == jax.sharding.AxisType.Explicit}


def _cut(axes: Iterable[Any], explicit: set[Any]) -> PartitionSpec:
    """A partition along these axes alone."""
    cut = (tuple(one for one in _axes(entry) if one in explicit) for entry in axes)
    return PartitionSpec(*(entry or None for entry in cut))


def out_of_mesh(key: Any) -> AbstractContextManager[Any]:
    """Makes a context to draw from a key in: no mesh is in force, of which JAX 0.10's last bits would depend."""
    if is_traced(key) or jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


def _axes(entry: Any) -> tuple[Any, ...]:
    """The axes that one dimension is cut along."""
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def shardings_of(specs: Mapping[str, Any], mesh: Any, rules: Rules | None) -> Params:
    """A sharding for each `VariableSpec`; see `Specs.shardings`."""
    if not isinstance(mesh, jax.sharding.Mesh | jax.sharding.AbstractMesh):
        raise BadTypeError(
            f"shardings takes a mesh of devices, not a {type(mesh).__name__}.",
            kind="no_mesh",
            asked=f"shardings({short(mesh)})",
            where=user_line(),
            fix='make one: jax.make_mesh((4, 2), ("data", "model"))',
        )
    rules = None if rules is None else checked_rules(rules)
    faults: list[str] = []
    found: dict[str, NamedSharding] = {}
    for name, spec in specs.items():
        own, axes = _placed(spec, mesh, rules)
        made = f" (made at {spec.created_at})" if spec.created_at else ""
        faults += [
            f"'{name}' {short_type(spec)} by P{partition_text(spec.partition) or '()'}: {fault}{made}" for fault in own
        ]
        if not own:
            found[name] = NamedSharding(mesh, PartitionSpec(*axes))
    if faults:
        raise BadArgumentError(
            f"The partitions of the variables do not fit the mesh {dict(mesh.shape)}: {count_of(faults)}.",
            kind="bad_shardings",
            faults=faults,
            asked=f"shardings with {_shown(rules)}",
            where=user_line(),
            fix='correct the partitioners or the rules; an axis that is not to be cut is written as {"axis": None}',
        )
    return Params(found)


def _placed(spec: Any, mesh: Any, rules: Rules | None) -> tuple[list[str], list[Any]]:
    """(what is wrong, which axes of the mesh cut each dimension) of one variable."""
    faults: list[str] = []
    axes: list[Any] = []
    taken: dict[str, int] = {}
    partition = spec.partition or ()
    if len(partition) > len(spec.shape):
        return [f"{len(partition)} axes for {len(spec.shape)} dimensions"], []
    for dimension, entry in enumerate(partition):
        cut: list[str] = []
        for axis in _axes(entry):
            to, fault = _axis_of_mesh(axis, mesh, rules)
            if fault:
                faults.append(fault)
            for one in to:
                if one in taken:
                    both = f"dimensions {taken[one]} and {dimension}" if taken[one] != dimension else "one dimension"
                    faults.append(f"axis '{one}' of the mesh is used twice, for {both}")
                else:
                    taken[one] = dimension
                    cut.append(one)
        parts, size = math.prod(mesh.shape[one] for one in cut), spec.shape[dimension]
        if size % parts:
            faults.append(f"dimension {dimension} of size {size} can't be cut into {parts} equal parts ({_all(cut)})")
        axes.append(tuple(cut) if len(cut) > 1 else cut[0] if cut else None)
    return faults, axes


def _axis_of_mesh(axis: Any, mesh: Any, rules: Rules | None) -> tuple[tuple[str, ...], str]:
    """(the axes of the mesh that a named axis is cut along, what is wrong)."""
    if rules is not None and axis in rules:
        to = rules[axis]
        to = () if to is None else to if isinstance(to, tuple) else (to,)
        absent = [one for one in to if one not in mesh.shape]
        if absent:
            return (), f"the rule of axis '{axis}' says {_all(absent)}, and the mesh has {_all(mesh.shape)}"
        return to, ""
    if axis in mesh.shape:
        return (axis,), ""
    if not isinstance(axis, str):
        return (), f"{axis!r} is no name of an axis"
    known = [*(rules or ()), *mesh.shape]
    close = near(axis, known)
    hint = f" (near: {_all(close)})" if close else ""
    if rules is None:
        return (), f"the mesh has no axis '{axis}'{hint}, and there are no rules"
    return (), f"there is no rule for axis '{axis}'{hint}"


def _shown(rules: Rules | None) -> str:
    return "no rules" if rules is None else f"rules for {_all(rules)}"


def _all(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def shardings_for(names: Iterable[str], shardings: Any, call: str) -> dict[str, Any]:
    """Which sharding each variable shall have: as the user gave it by name, or one for all.

    Raises:
      BadTypeError: for what is neither a sharding nor a tree of them.
      BadArgumentError: for names that are not declared, or have no sharding.
    """
    names = list(names)
    if isinstance(shardings, jax.sharding.Sharding):
        return dict.fromkeys(names, shardings)
    if not isinstance(shardings, Mapping):
        raise BadTypeError(
            f"{call} takes shardings by name, or one for all, not a {type(shardings).__name__}.",
            kind="bad_shardings",
            where=user_line(),
            fix="pass net.specs(...).shardings(mesh, rules)",
        )
    given = Params(shardings).flat()
    faults = [f"'{name}' has no sharding" for name in names if name not in given]
    declared = set(names)
    for name, sharding in given.items():
        if name not in declared:
            close = near(name, names) if len(faults) < 20 else []
            faults.append(f"'{name}' is not declared" + (f" (near: {_all(close)})" if close else ""))
        elif not isinstance(sharding, jax.sharding.Sharding):
            faults.append(f"'{name}' is given a {type(sharding).__name__}, no sharding")
    if faults:
        raise BadArgumentError(
            f"The shardings for {call} do not fit the program: {count_of(faults)}.",
            kind="bad_shardings",
            faults=faults,
            asked=call,
            where=user_line(),
            exists=f"the program declares {some(names)}",
            fix="pass net.specs(...).shardings(mesh, rules) of this very program and these arguments",
        )
    return given


def misplaced(sharding: Any, shape: tuple[int, ...]) -> str:
    """Why a sharding does not fit a shape, `""` if it does."""
    partition = getattr(sharding, "spec", ())
    if len(partition) > len(shape):
        return f"P{partition_text(partition)} has more axes than shape {shape}"
    try:
        sharding.shard_shape(shape)
    except ValueError as error:
        return str(error)
    return ""


def placed_by(specs: Mapping[str, Any], shardings: Any, call: str) -> dict[str, Placed]:
    """What each device holds of each `VariableSpec`.

    Raises:
      BadTypeError, BadArgumentError: as `shardings_for`; also where a sharding does not fit a shape.
    """
    given = shardings_for(specs, shardings, call)
    found: dict[str, Placed] = {}
    faults: list[str] = []
    for name, spec in specs.items():
        sharding = given[name]
        if why := misplaced(sharding, spec.shape):
            faults.append(f"'{name}' {short_type(spec)}: {why}")
            continue
        part = sharding.shard_shape(spec.shape)
        text = partition_text(sharding.spec) if isinstance(sharding, NamedSharding) else type(sharding).__name__
        found[name] = Placed(text or "()", math.prod(part) * spec.dtype.itemsize)
    if faults:
        raise BadArgumentError(
            f"The shardings for {call} do not fit the shapes of the variables: {count_of(faults)}.",
            kind="bad_shardings",
            faults=faults,
            asked=call,
            where=user_line(),
            fix="pass net.specs(...).shardings(mesh, rules), which says which partitions do not fit the mesh",
        )
    return found


def placements(names: Iterable[str], shardings: Any, key: Any, call: str) -> dict[str, Any]:
    """As `shardings_for`, where the values are drawn from a key.

    Raises:
      BadArgumentError: if the key is bound to other devices: JAX could not draw from it there.
    """
    placed = shardings_for(names, shardings, call)
    if is_traced(key) or not getattr(key, "committed", False):
        return placed
    for name, sharding in placed.items():
        if sharding.device_set != key.sharding.device_set:
            raise BadArgumentError(
                f"The key is bound to {len(key.sharding.device_set)} device(s), and '{name}' shall be made on "
                f"{len(sharding.device_set)}.",
                kind="bad_shardings",
                asked=call,
                where=user_line(),
                fix="make the key without a device, jax.random.key(0), or put it on all of them: "
                "jax.device_put(key, NamedSharding(mesh, jax.P()))",
            )
    return placed


def copied(value: Any, dtype: Any, sharding: Any) -> jax.Array:
    """A new array of a value, placed as said; where nothing is said, as JAX does it."""
    if sharding is None:
        return jnp.array(value, dtype, copy=True)
    is_abstract = isinstance(getattr(sharding, "mesh", None), jax.sharding.AbstractMesh)
    if is_traced(value) or is_abstract:  # of the mesh in force
        return jax.jit(lambda value: jnp.array(value, dtype, copy=True), out_shardings=sharding)(value)
    if isinstance(value, jax.Array):
        return jax.device_put(value.astype(dtype), sharding, may_alias=False)
    array = np.asarray(value, dtype)
    # Each process copies its own parts, and need not ask the others.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
