"""One run of a plan's steps over the names, shapes and dtypes of a file or a program: all its moves, and its faults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.core
import numpy as np

from jscope._support import is_elsewhere, shown

from .casting import cast_fault
from .leaves import is_key
from .loaded import Checkpoint, CheckpointList, tensor_of
from .operations import Drop, MisfitError, Spec, check_has_value, spec_of
from .steps import Header, Move, Step
from .tensors import Contents, Tensor
from .unmatched import Unmatched

_Batch = list[tuple[Move, list[Spec]]]  # of one step: moves, and what their sources are


@dataclasses.dataclass(frozen=True)
class Course:
    """What the steps come to.

    Attributes:
      header: the names at the end, with shapes and dtypes; None of what a fault was found with.
      origins: the names at the start that each name at the end is made of.
      batches: the moves of each step. A step takes all its sources before it gives a target: names may change places.
      faults: what can't be done.
      idle: the steps that found no name, in words; a fault only where something does not fit in the end.
    """

    header: dict[str, Spec | None]
    origins: dict[str, tuple[str, ...]]
    batches: list[_Batch]
    faults: list[str]
    idle: list[str]

    def tensors(self, given: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[tuple[int, int], Tensor]]:
        """(the arrays at the end, those that were dropped, by step and move). None is read."""
        tensors, dropped = dict(given), {}
        for step, batch in enumerate(self.batches):
            taken = [[tensors.pop(name) for name in move.sources] for move, _ in batch]
            for row, ((move, _), sources) in enumerate(zip(batch, taken, strict=True)):
                if isinstance(move.operation, Drop):
                    (dropped[step, row],) = sources
                else:
                    tensors |= zip(move.targets, move.operation.tensors(sources), strict=True)
        return tensors, dropped

    def back(self, given: Mapping[str, Tensor], dropped: Mapping[tuple[int, int], Tensor]) -> dict[str, Tensor]:
        """The arrays at the start, of those at the end and those that were dropped. None is read."""
        tensors = dict(given)
        for step, batch in reversed([*enumerate(self.batches)]):
            taken = [[tensors.pop(name) for name in move.targets] for move, _ in batch]
            for row, ((move, specs), targets) in enumerate(zip(batch, taken, strict=True)):
                if isinstance(move.operation, Drop):
                    results = [dropped[step, row]]
                else:
                    results = move.operation.inverse(specs).tensors(targets)
                tensors |= zip(move.sources, results, strict=True)
        return tensors


def run(steps: Sequence[Step], header: Header, *, ahead: bool = True) -> Course:
    """The course of these steps over a header: ahead, from a file to a program, or back."""
    course = Course(dict(header), {name: (name,) for name in header}, [], [], [])
    for step in steps if ahead else reversed(steps):
        course = _after(course, step, ahead)
    return course


def _after(course: Course, step: Step, ahead: bool) -> Course:
    """The course with one step more."""
    header, faults = course.header, list(course.faults)
    moves: list[Move] = []
    consumed: set[str] = set()
    for move in step.forward(header) if ahead else step.backward(header):
        if isinstance(move, str):
            faults.append(move)
        elif isinstance(move, Unmatched):
            faults.append(move.told(header, course.origins))
        elif consumed.isdisjoint(move.sources):
            consumed |= set(move.sources)
            moves.append(move)
        else:
            name = next(name for name in move.sources if name in consumed)
            faults.append(f"{shown(name)} is taken twice: {step}")
    after = {name: spec for name, spec in header.items() if name not in consumed}
    origins = {name: course.origins[name] for name in after}
    batch: _Batch = []
    for move in moves:
        sources = [header[name] for name in move.sources]
        origin = course.origins[move.sources[0]]
        if len(move.sources) > 1:
            origin = tuple(dict.fromkeys(first for name in move.sources for first in course.origins[name]))
        results, fault = _results(move, sources)
        faults += [fault] * bool(fault)
        if not fault and all(spec is not None for spec in sources):
            batch.append((move, [spec for spec in sources if spec is not None]))
        for name, spec in zip(move.targets, results, strict=True):
            if name in after:
                both = " and ".join(_some([*origins[name], *origin]))
                faults.append(f"{both} are both to be {shown(name)}")
                after[name] = None
            else:
                after[name], origins[name] = spec, origin
    found_none = len(faults) == len(course.faults) and not moves
    return Course(after, origins, [*course.batches, batch], faults, [*course.idle, *[str(step)] * found_none])


def _results(move: Move, sources: Sequence[Spec | None]) -> tuple[list[Spec | None], str]:
    """(what a move gives, why it gives nothing)."""
    known = [spec for spec in sources if spec is not None]
    if len(known) < len(sources):
        return [None] * len(move.targets), ""
    try:
        return [*move.operation.specs(known)], ""
    except MisfitError as error:
        return [None] * len(move.targets), f"{', '.join(_some(move.sources))} {error}"


def _some(names: Sequence[str]) -> list[str]:
    return [shown(name) for name in names[:3]] + [f"{len(names) - 3} more"] * (len(names) > 3)


def made_of(name: str, origin: tuple[str, ...]) -> str:
    """A name, and those that it is made of where they are others."""
    return shown(name) if origin == (name,) else f"{shown(name)}, from {' and '.join(_some(origin))},"


def planned(steps: Sequence[Step], source: Mapping[str, Any]) -> Course:
    """The course over what a checkpoint, or a mapping of arrays, holds."""
    header: dict[str, Spec | None] = {name: spec_of(tensor) for name, tensor in tensors_of(source).items()}
    skipped = left_out(source)
    course = run(steps, {**header, **dict.fromkeys(skipped)})
    for name, origin in course.origins.items():
        why = next((f"{shown(first)} {skipped[first]}" for first in origin if first in skipped), "")
        course.faults.extend([f"{why}, and is to be {shown(name)}"] * bool(why and origin != (name,)))
    return course


def tensors_of(source: Mapping[str, Any]) -> dict[str, Tensor]:
    """The arrays of a checkpoint, or of a mapping, unread."""
    if isinstance(source, Checkpoint):
        return {name: tensor_of(source, name) for name in source}
    return {name: in_memory(value) for name, value in source.items() if not is_key(value)}


def left_out(source: Mapping[str, Any]) -> dict[str, str]:
    """Why entries of a checkpoint, or of a mapping, are no arrays to which steps are done, by name."""
    if isinstance(source, Checkpoint | CheckpointList):
        return source.skipped
    return {name: "is a key of jax.random, which no plan loads" for name, value in source.items() if is_key(value)}


def in_memory(value: Any) -> Tensor:
    """An array in memory, as one of a file is; also what has a shape and a dtype alone, which can't be read."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        value = np.asarray(value)
        shape, dtype = value.shape, value.dtype

    def read(checked: bool) -> np.ndarray:
        check_has_value(value)
        if isinstance(value, jax.core.Tracer):
            raise MisfitError("is traced by JAX, and a plan's steps are done by numpy: load outside of jax.jit")
        if is_elsewhere(value):
            raise MisfitError("is spread over processes, and a plan's steps are done in one")
        return np.array(value)

    return Tensor(tuple(shape), np.dtype(dtype), read, None, False)


def through(course: Course, source: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint with a program's names: what the file's arrays are at the end of a course."""
    tensors, _ = course.tensors(tensors_of(source))
    led_to = sorted(name for name, spec in course.header.items() if spec is not None and name in tensors)
    path = source.path if isinstance(source, Checkpoint) else "the source"
    contents = Contents(path, {name: tensors[name] for name in led_to}, {})
    return Checkpoint(contents, source.verifies if isinstance(source, Checkpoint) else True)


def differences(values: Mapping[str, Spec], led_to: Mapping[str, Spec | None]) -> list[str]:
    """How values are not what a plan leads to."""
    faults = [f"the plan leads to {shown(name)}, of which there is no value" for name in led_to if name not in values]
    for name, spec in values.items():
        other = led_to.get(name)
        if other is None:
            faults.append(f"the plan does not lead to {shown(name)}")
        elif (other.shape, other.dtype) != (spec.shape, spec.dtype):
            faults.append(f"the plan leads to {shown(name)} as {_text(other)}, and the value is {_text(spec)}")
    return faults


def way_to_form(values: Mapping[str, Spec], led_to: Mapping[str, Spec | None]) -> str:
    """What to do where values have the names that a plan leads to, and are not as the file's; `""` for other names."""
    pairs = {name: (led_to.get(name), spec) for name, spec in values.items()}
    known = {name: (old, new) for name, (old, new) in pairs.items() if old is not None}
    if known.keys() != led_to.keys() or known.keys() != values.keys():
        return ""
    if any(old.shape != new.shape for old, new in known.values()):
        return "leave out like=: a file of its form holds no arrays of other shapes"
    other = {name: new.dtype for name, (old, new) in known.items() if old.dtype != new.dtype}
    if any(cast_fault(known[name][0].dtype, dtype) for name, dtype in other.items()):
        return "give values of the dtypes that the plan leads to, or leave out like="
    casts = []
    for dtype in dict.fromkeys(other.values()):
        names: Any = [name for name in other if other[name] == dtype]
        if all(spec.dtype == dtype for spec in values.values()):
            names = "{*name}"
        casts.append(f".cast({names!r}, jnp.{dtype.name})")
    return f"add to the end of the plan what gives these dtypes: {''.join(casts)}"


def not_copied(source: Mapping[str, Any]) -> list[str]:
    """What a file of the form of another would lack."""
    return [f"{shown(name)} {why}, and can't be copied" for name, why in left_out(source).items()]


def lost(values: Mapping[str, Spec], back: Course, again: Course) -> list[str]:
    """What is wrong with a file that values were taken back to: the steps have to lead from it to the values again."""
    faults = []
    for name, spec in values.items():
        if again.header.get(name) != spec:
            files = [file for file, origin in back.origins.items() if name in origin]
            faults.append(f"{shown(name)} would be {', '.join(_some(files))} in the file, which does not lead to it")
    return faults or [f"in the file that this would make: {fault}" for fault in again.faults]


def _text(spec: Spec) -> str:
    return f"{np.dtype(spec.dtype).name} of shape {spec.shape}"
