"""What of a checkpoint goes where in a program, and everything that does not fit: by names, shapes and dtypes alone."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import jscope as js
from jscope._support import count_of, matcher, shown

from .casting import cast_fault
from .course import left_out, made_of, planned, through
from .faults import user_line
from .loaded import Checkpoint, CheckpointList
from .near import Near
from .rename import Rename, renamer
from .report import AssignReport

if TYPE_CHECKING:
    from .plan import Plan

Allowed = bool | str | Sequence[str]

CORRECT = "correct the steps of the plan, or add some"
ALLOW = (
    "allow what is meant by allow_missing=, allow_unused=, allow_cast=; leave variables out with exclude=, such as a "
    "head of another size"
)


WIDEN = "turn jax_enable_x64 on, or want arrays of numpy there"


@dataclasses.dataclass(frozen=True)
class Fit:
    """What was found.

    Attributes:
      given: the source, with the names that a plan gives it.
      wanted: what is to be filled, by name: things that have a shape and a dtype, or are numbers.
      sources: from each name that is filled to its name in `given`.
      cast: from name to how its dtype is changed.
      missing: names that the source does not fill.
      unused: names of the source that nothing takes.
      faults: everything that does not fit.
      origins: from names in `given` to those in the file, where a plan gave them others.
      idle: the steps of the plan that found no name.
    """

    given: Mapping[str, Any]
    wanted: dict[str, Any]
    sources: dict[str, str]
    cast: dict[str, str]
    missing: list[str]
    unused: list[str]
    faults: list[str]
    skipped: dict[str, str]
    origins: Mapping[str, tuple[str, ...]]
    idle: Sequence[str]

    def told(self, name: str) -> str:
        """A name that is filled, and what it is filled from, for a fault."""
        return made_of(name, self.origins.get(self.sources[name], (self.sources[name],)))

    def jax_leaves(self, placed: Container[str] = ()) -> dict[str, Any]:
        """What becomes an array of JAX: all that is filled but arrays of numpy, and what is `placed` on devices."""
        return {
            name: leaf
            for name, leaf in self.wanted.items()
            if name in placed or (name in self.sources and not isinstance(leaf, np.ndarray | np.generic))
        }

    def report(self, makes: bool, unverified: Sequence[str] = ()) -> AssignReport:
        """What was done; `makes` says whether what was missing was made, or stayed."""
        order = [name for name in self.wanted if name in self.sources]
        missing = tuple(self.missing)
        sources = {name: _origin(self.origins, self.sources[name]) for name in order}
        unused = tuple(name for old in self.unused for name in self.origins.get(old, (old,)))
        kept, made = ((), missing) if makes else (missing, ())
        return AssignReport(
            tuple(order), kept, made, unused, self.skipped, self.cast, sources, unverified=tuple(unverified)
        )


def fit(
    target: Any,
    source: Any,
    *,
    plan: Plan | None = None,
    rename: Rename | None = None,
    exclude: str | Sequence[str] = (),
    allow_missing: Allowed = False,
    allow_unused: Allowed = False,
    allow_cast: Allowed = False,
    can_make: bool = False,
) -> Fit:
    """What goes where.

    Args:
      target, source, plan, rename, exclude, allow_missing, allow_unused, allow_cast: as in `assign_from`.
      can_make: whether what is missing can be made.

    Raises:
      CheckpointError: if the checkpoint can't be read.
      BadTypeError, BadArgumentError: for arguments that can't be meant.
    """
    wanted, given = wanted_of(target), opened(source)
    origins: Mapping[str, tuple[str, ...]] = {}
    skipped = given.skipped if isinstance(given, Checkpoint | CheckpointList) else {}
    faults: list[str] = []
    told: set[str] = set()
    if plan is not None:
        from .plan import Plan  # here, since plan.py imports this file

        if not isinstance(plan, Plan):
            what = f"assign_from takes a Plan as plan, not {plan!r:.80}."
            fix = "write such as checkpoint.Plan().transpose(...).rename({...})"
            raise js.BadTypeError(what, kind="bad_plan", where=user_line(), fix=fix)
        if rename is not None:
            what = "assign_from takes a plan or rename, not both."
            raise js.BadArgumentError(
                what, kind="bad_plan", where=user_line(), fix="add plan.rename({...}) to the plan"
            )
        course, skipped = planned(plan.steps, given), left_out(given)
        faults += course.faults
        told = {name for name, spec in course.header.items() if spec is None}
        origins = course.origins
        shapes = {name: spec for name, spec in sorted(course.header.items()) if spec is not None}
    else:
        course, shapes = None, _shapes(given)
    renamed, wrong = renamer(rename, shapes)
    faults += wrong
    excluded = allows(exclude or False)
    faults += _excludes_nothing(exclude, [*wanted, *map(renamed, [*shapes, *skipped])])
    may_lack, may_leave, may_cast = map(allows, (allow_missing, allow_unused, allow_cast))

    sources: dict[str, str] = {}
    cast: dict[str, str] = {}
    unused: list[str] = []
    left: set[str] = set()
    for name in shapes:
        new = renamed(name)
        if new in wanted and excluded(new):
            left.add(name)
        if new not in wanted or name in left:
            unused.append(name)
        elif new in sources:
            faults.append(f"{shown(sources[new])} and {shown(name)} are both to be {shown(new)}")
        else:
            sources[new] = name
    # What the plan gives another name it has told, and what it drops nobody wants.
    reasons = (
        (renamed(name), name, why)
        for name, why in skipped.items()
        if course is None or course.origins.get(name) == (name,)
    )
    faults += [f"{shown(new)}, from {shown(name)}, {why}" for new, name, why in reasons if new in wanted]
    by_name = not isinstance(allow_missing, bool) and not isinstance(allow_unused, bool)
    for name, old in [*sources.items()]:
        fault, how = _mismatch(shapes[old], wanted[name], may_cast(name))
        first = _origin(origins, old)
        if fault and by_name and may_lack(name) and all(map(may_leave, origins.get(old, (old,)))):
            del sources[name]  # both sides are told by name to go without each other: a new head
            unused.append(old)
        elif fault:
            faults.append(f"{shown(name)}{f', from {_shown(first)},' if first != name else ''} {fault}")
        elif how:
            cast[name] = how
    missing = [name for name in wanted if name not in sources]
    lacking = [name for name in missing if name not in told]
    faults += _missing_faults(lacking, unused, wanted, lambda name: excluded(name) or may_lack(name), can_make)
    near = Near(lacking)
    for name in unused:
        if name not in left and not all(map(may_leave, origins.get(name, (name,)))):
            new, first = renamed(name), _origin(origins, name)
            faults.append(f"{_shown(first)} is not used{f' as {shown(new)}' if new != first else ''}{near.text(new)}")
    if course is not None and not faults:
        given = through(course, given)
    idle = course.idle if course is not None else []
    return Fit(given, wanted, sources, cast, missing, unused, faults, skipped, origins, idle)


def wide_faults(leaves: Mapping[str, Any]) -> list[str]:
    """Which of these can be no arrays of JAX, which cuts numbers of 64 bits to 32 unless it is told to keep them."""
    dtypes = {name: shape_and_dtype(leaf)[1] for name, leaf in leaves.items()}
    return [
        f"{shown(name)} is to be an array of JAX of dtype {dtype}, which it has only with jax_enable_x64"
        for name, dtype in dtypes.items()
        if isinstance(dtype, np.dtype) and jax.dtypes.canonicalize_dtype(dtype) != dtype
    ]


def wanted_of(target: Any) -> dict[str, Any]:
    """What is to be filled, by name: things that have a shape and a dtype, or are numbers."""
    if isinstance(target, js.Specs):
        return {name: spec.abstract() for name, spec in target.items()}
    if isinstance(target, Mapping):
        return js.Params(target).flat()
    what = f"assign_from fills specs or a tree of parameters, not a {type(target).__name__}."
    raise js.BadTypeError(what, kind="bad_target", where=user_line(), fix="pass net.specs(...) or net.init(...)")


def opened(source: Any) -> Mapping[str, Any]:
    """The source: a checkpoint, or things by name."""
    from .opening import open

    if isinstance(source, Checkpoint | CheckpointList):
        return source
    if isinstance(source, Mapping):
        return js.Params(source).flat()
    if isinstance(source, str | bytes | os.PathLike):
        return open(source)  # type: ignore[arg-type]
    what = f"assign_from takes a path or a mapping as source, not a {type(source).__name__}."
    fix = "pass the path of a checkpoint, or arrays by name"
    raise js.BadTypeError(what, kind="bad_source", where=user_line(), fix=fix)


def allows(allowed: Allowed) -> Callable[[str], bool]:
    """Whether a name is allowed."""
    if isinstance(allowed, bool):
        return lambda name: allowed
    patterns = _patterns(allowed)
    return lambda name: any(pattern.match(name) for pattern in patterns)


def _patterns(given: str | Sequence[str]) -> list[re.Pattern[str]]:
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, Iterable):
        what = f"{given!r:.80} is neither True or False nor regular expressions."
        fix = 'give one, "head/", or a list of them'
        raise js.BadTypeError(what, kind="bad_pattern", where=user_line(), fix=fix)
    return [matcher(pattern) for pattern in given]


def _excludes_nothing(exclude: Allowed, names: Sequence[str]) -> list[str]:
    """The patterns of `exclude` that speak of nothing: a typing error would fill what is to be left out.

    What is in the checkpoint alone counts as spoken of, such as a head that only the program for training has.
    """
    near = Near(names)
    return [
        f"exclude={pattern.pattern!r} matches no name{near.text(pattern.pattern)}"
        for pattern in ([] if isinstance(exclude, bool) else _patterns(exclude or ()))
        if not any(map(pattern.match, names))
    ]


def misfit(faults: Sequence[str], idle: Sequence[str] = (), *, fix: str) -> js.ParamsMismatchError:
    """The error that lists everything.

    Args:
      faults: what does not fit.
      idle: the steps of the plan that found no name, which may be why.
      fix: what the caller's user can do.
    """
    return js.ParamsMismatchError(
        f"The source does not fit: {count_of(faults)}. Nothing was assigned.",
        kind="params_mismatch",
        faults=faults,
        where=user_line(),
        exists=f"no name that these steps ask for: {'; '.join(idle)}" if idle else "",
        fix=fix,
    )


def shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...] | None, Any]:
    """(None, None) of what is no array."""
    leaf = as_array(leaf)
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    return (None, None) if shape is None or dtype is None else (tuple(shape), dtype)


def as_array(value: Any) -> Any:
    """Of a number the array that TensorFlow 1 makes of it, float32 or int32; anything else as it is."""
    if isinstance(value, np.generic) or not isinstance(value, bool | int | float | complex):
        return value
    kinds = {bool: np.bool_, int: np.int32, float: np.float32, complex: np.complex64}
    try:
        return np.asarray(value, kinds[type(value)])
    except OverflowError:
        return np.asarray(value)


def _shapes(given: Mapping[str, Any]) -> dict[str, Any]:
    return dict(given.listing() if isinstance(given, Checkpoint) else given)


def _mismatch(given: Any, wanted: Any, may_cast: bool) -> tuple[str, str]:
    """(what is wrong, how it has to be cast)."""
    shape, dtype = shape_and_dtype(given)
    wanted_shape, wanted_dtype = shape_and_dtype(wanted)
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


def _missing_faults(
    missing: Sequence[str],
    unused: Sequence[str],
    wanted: Mapping[str, Any],
    may_lack: Callable[[str], bool],
    can_make: bool,
) -> list[str]:
    faults, near = [], Near(unused)
    for name in missing:
        if not may_lack(name):
            faults.append(f"{shown(name)} is missing{near.text(name)}")
        elif isinstance(wanted[name], jax.ShapeDtypeStruct) and not can_make:
            faults.append(f"{shown(name)} is missing, and can be initialised only from specs and with key=")
    return faults


def _origin(origins: Mapping[str, tuple[str, ...]], name: str) -> str:
    """How what a name stands for is called in the file."""
    first, *others = origins.get(name, (name,))
    return f"{first} and {len(others)} more" if others else first


def _shown(origin: str) -> str:
    name, _, more = origin.partition(" and ")
    return shown(name) + (f" and {more}" if more else "")
