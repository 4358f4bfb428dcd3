"""What a plan does to arrays: each operation has one that takes it back, and none reads before it is asked to.

An operation gives the shapes and dtypes of its results from those of its sources, and results that read no more of the
sources than what is asked for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import jscope as js
from jscope._support import is_elsewhere, without_value

from .casting import cast_array, cast_fault
from .tensors import Index, Tensor, empty

_BLOCK = 1 << 24  # bytes that are compared at a time


class Spec(NamedTuple):
    """What an array is: a `jax.ShapeDtypeStruct` takes ten times as much, and a file may list very many."""

    shape: tuple[int, ...]
    dtype: np.dtype


class MisfitError(ValueError):
    """What is wrong with the shapes, dtypes or values of a plan's arrays. Callers know the names."""


class Operation:
    """From some arrays to others."""

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        """What the results are.

        Raises:
          MisfitError: if it can't be done.
        """
        raise NotImplementedError

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The results."""
        raise NotImplementedError

    def inverse(self, given: Sequence[Spec]) -> Operation:
        """What takes the results of these sources back."""
        raise NotImplementedError


def whole(shape: Sequence[int]) -> Index:
    """All of an array of that shape."""
    return tuple(slice(0, size) for size in shape)


def result(spec: Spec, given: Sequence[Tensor], read: object, read_part: object) -> Tensor:
    """A `Tensor` that is made of others."""
    summed = all(tensor.has_checksum for tensor in given)
    more = any(tensor.is_of_more for tensor in given)
    if len(given) == 1 and given[0].read_part is None:
        read_part = None  # all is read for any part, and who takes many parts has to know
    return Tensor(spec.shape, np.dtype(spec.dtype), read, read_part, summed, more)  # type: ignore[arg-type]


def spec_of(tensor: Tensor) -> Spec:
    """Its shape and dtype."""
    return Spec(tensor.shape, tensor.dtype)


@dataclasses.dataclass(frozen=True)
class Same(Operation):
    """The array itself, under another name."""

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        return list(given)

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        return list(given)

    def inverse(self, given: Sequence[Spec]) -> Operation:
        return self


@dataclasses.dataclass(frozen=True)
class Axes(Operation):
    """Other axes: `left` and `right` are groups of the same axes, each group one dimension.

    Attributes:
      sizes: those of axes that are given; of the others one in each group of `left` may be left open.
    """

    left: tuple[tuple[str, ...], ...]
    right: tuple[tuple[str, ...], ...]
    sizes: tuple[tuple[str, int], ...] = ()

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        (spec,) = given
        sizes = self._sizes(spec.shape)
        return [Spec(tuple(math.prod(sizes[axis] for axis in group) for group in self.right), spec.dtype)]

    def _sizes(self, shape: Sequence[int]) -> dict[str, int]:
        if len(shape) != len(self.left):
            raise MisfitError(f"has shape {tuple(shape)}, and not {len(self.left)} dimensions")
        sizes = dict(self.sizes)
        for group, size in zip(self.left, shape, strict=True):
            known = math.prod(sizes[axis] for axis in group if axis in sizes)
            unknown = [axis for axis in group if axis not in sizes]
            if len(unknown) > 1:
                raise MisfitError(f"has shape {tuple(shape)}, of which {' and '.join(unknown)} do not follow")
            if unknown and known and size % known == 0:
                sizes[unknown[0]] = size // known
            elif unknown or known != size:
                raise MisfitError(f"has shape {tuple(shape)}, of which {size} is not made of {known}")
        return sizes

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        (tensor,) = given
        sizes = self._sizes(tensor.shape)
        before = [axis for group in self.left for axis in group]
        after = [axis for group in self.right for axis in group]
        order = [before.index(axis) for axis in after]
        (spec,) = self.specs([spec_of(tensor)])

        def moved(array: np.ndarray, had: dict[str, tuple[int, int]]) -> np.ndarray:
            return array.reshape([had[axis][1] - had[axis][0] for axis in before]).transpose(order)

        full = {axis: (0, size) for axis, size in sizes.items()}

        def read(checked: bool) -> np.ndarray:
            return moved(tensor.read(checked), full).reshape(spec.shape)

        def read_part(index: Index) -> np.ndarray:
            # Of a group that is cut, its first axis is; of the source more may have to be read than that.
            wanted: dict[str, tuple[int, int]] = {}
            for group, along in zip(self.right, index, strict=True):
                wanted |= _cut(group, along, sizes)
            had, cuts = {}, []
            for group in self.left:
                covered, along = _covered(group, wanted, sizes)
                had |= covered
                cuts.append(along)
            array = moved(tensor.part(tuple(cuts)), had)
            crop = tuple(slice(wanted[a][0] - had[a][0], wanted[a][1] - had[a][0]) for a in after)
            array = array[crop]
            shape, rest = [], []
            for group, along in zip(self.right, index, strict=True):
                shape.append(math.prod(wanted[axis][1] - wanted[axis][0] for axis in group))
                start = wanted[group[0]][0] * math.prod(sizes[axis] for axis in group[1:]) if group else 0
                rest.append(slice(along.start - start, along.stop - start))
            return array.reshape(shape)[tuple(rest)]

        return [result(spec, given, read, read_part)]

    def inverse(self, given: Sequence[Spec]) -> Operation:
        sizes = self._sizes(given[0].shape)
        return Axes(self.right, self.left, tuple(sizes.items()))


def _cut(group: Sequence[str], along: slice, sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Of each axis of a group as much as covers a part of the group."""
    cut = {axis: (0, sizes[axis]) for axis in group}
    if group:
        inner = math.prod(sizes[axis] for axis in group[1:])
        start = along.start // inner if inner else 0
        cut[group[0]] = start, max(-(-along.stop // inner) if inner else 0, start)
    return cut


def _covered(
    group: Sequence[str], wanted: dict[str, tuple[int, int]], sizes: dict[str, int]
) -> tuple[dict[str, tuple[int, int]], slice]:
    """(of each axis what is read, where that is in the group), so that it is one piece of the group."""
    covered = {axis: (0, sizes[axis]) for axis in group}
    for place, axis in enumerate(group):
        if sizes[axis] != 1:
            covered[axis] = wanted[axis]
            inner = math.prod(sizes[each] for each in group[place + 1 :])
            return covered, slice(wanted[axis][0] * inner, wanted[axis][1] * inner)
    return covered, slice(0, 1)


@dataclasses.dataclass(frozen=True)
class Stack(Operation):
    """Arrays that are alike into one, along a new first axis."""

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        if len({(spec.shape, spec.dtype) for spec in given}) > 1:
            raise MisfitError(f"can't be stacked: they are {listed(given)}")
        return [Spec((len(given), *given[0].shape), given[0].dtype)]

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        (spec,) = self.specs([spec_of(tensor) for tensor in given])

        def read(checked: bool) -> np.ndarray:
            whole = empty(spec.shape, np.dtype(spec.dtype))
            for row, tensor in enumerate(given):
                whole[row] = tensor.read(checked)
            return whole

        def read_part(index: Index) -> np.ndarray:
            part = empty([along.stop - along.start for along in index], np.dtype(spec.dtype))
            for row in range(index[0].start, index[0].stop):
                part[row - index[0].start] = given[row].part(index[1:])
            return part

        return [result(spec, given, read, read_part)]

    def inverse(self, given: Sequence[Spec]) -> Operation:
        return Unstack(len(given))


@dataclasses.dataclass(frozen=True)
class Unstack(Operation):
    """One array into what lies along its first axis."""

    count: int

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        (spec,) = given
        if not spec.shape or spec.shape[0] != self.count:
            raise MisfitError(f"has shape {spec.shape}, and not {self.count} along its first axis")
        return [Spec(spec.shape[1:], spec.dtype)] * self.count

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        (tensor,) = given
        shape, dtype = tensor.shape[1:], tensor.dtype
        if tensor.read_part is None:
            read_whole = _kept(tensor.read, self.count)

            def row(number: int) -> Tensor:
                return Tensor(
                    shape, dtype, lambda checked: copied(read_whole(checked)[number]), None, tensor.has_checksum
                )

        else:

            def row(number: int) -> Tensor:
                # Only where all rows are read one after the other would a checksum cost no more than the rows.
                def read_part(index: Index) -> np.ndarray:
                    return tensor.part((slice(number, number + 1), *index))[0]

                return Tensor(shape, dtype, lambda checked: read_part(whole(shape)), read_part, False)

        return [row(number) for number in range(self.count)]

    def inverse(self, given: Sequence[Spec]) -> Operation:
        return Stack()


def _kept(read: Callable[[bool], np.ndarray], times: int) -> Callable[[bool], np.ndarray]:
    """Reads once for so many times, and then lets go of the array."""
    held: dict[bool, np.ndarray] = {}
    left = times

    def read_or_held(checked: bool) -> np.ndarray:
        nonlocal left
        array = held.get(checked)
        if array is None:
            array = held[checked] = read(checked)
        left -= 1
        if not left:
            held.clear()
            left = times
        return array

    return read_or_held


@dataclasses.dataclass(frozen=True)
class Cast(Operation):
    """The same numbers in another dtype."""

    dtype: np.dtype

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        (spec,) = given
        why = cast_fault(spec.dtype, self.dtype)
        if why:
            raise MisfitError(why)
        return [Spec(spec.shape, self.dtype)]

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        (tensor,) = given

        def cast(array: np.ndarray) -> np.ndarray:
            return array if array.dtype == self.dtype else cast_checked(array, self.dtype)

        def read_part(index: Index) -> np.ndarray:
            return cast(tensor.part(index))

        def read(checked: bool) -> np.ndarray:
            return cast(tensor.read(checked))

        return [result(self.specs([spec_of(tensor)])[0], given, read, read_part)]

    def inverse(self, given: Sequence[Spec]) -> Operation:
        return CastBack(np.dtype(given[0].dtype))


@dataclasses.dataclass(frozen=True)
class CastBack(Cast):
    """The same numbers in the dtype that they were cast from, which may be of another kind."""

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        return [Spec(given[0].shape, self.dtype)]


def check_has_value(given: Any) -> None:
    """Raises a `MisfitError` for what has a type and no value, and for what would lose a part of it."""
    if isinstance(given, js.VariableSpec):
        raise MisfitError("is what a program declares, and has no value")
    if why := without_value(given):
        raise MisfitError(why)
    if isinstance(given, np.ma.MaskedArray):
        raise MisfitError("is a masked array of numpy, whose mask would be lost: give array.filled(value)")


def cast_checked(array: Any, dtype: Any) -> np.ndarray:
    """The array in that dtype.

    Raises:
      MisfitError: if a value is out of its range, or other processes hold a part of the array.
    """
    if is_elsewhere(array):
        raise MisfitError("is spread over processes: convert it there first, by jax.jit(lambda x: x.astype(...))")
    array = np.asarray(array)
    if cast_fault(array.dtype, dtype):  # back to another kind, where the numbers have to be of it
        numbers = array if np.issubdtype(dtype, np.complexfloating) else array.real
        with np.errstate(over="ignore", invalid="ignore"):  # of what is refused in the next line
            new = numbers.astype(dtype)
        if not np.array_equal(new.astype(array.dtype), array):
            raise MisfitError(f"has values that are no {dtype}")
        return new
    try:
        return cast_array(array, dtype)
    except ValueError as error:
        raise MisfitError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class Tie(Operation):
    """Arrays that have to be one and the same: the first stands for all."""

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        if len({(spec.shape, spec.dtype) for spec in given}) > 1:
            raise MisfitError(f"are to be one variable, and are {listed(given)}")
        return [given[0]]

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        first, *others = given

        def read(checked: bool) -> np.ndarray:
            array = first.read(checked)
            row = math.prod(array.shape[1:]) * array.dtype.itemsize
            step = max(_BLOCK // max(row, 1), 1)
            for other in others:
                rows = array.shape[0] if array.ndim else 1
                for start in range(0, rows, step):
                    index = whole(array.shape)
                    if index:
                        index = (slice(start, min(start + step, rows)), *index[1:])
                    _compare(array[index], other.part(index))
            return array

        def read_part(index: Index) -> np.ndarray:
            array = first.part(index)
            for other in others:
                _compare(array, other.part(index))
            return array

        return [result(spec_of(first), given, read, None if first.read_part is None else read_part)]

    def inverse(self, given: Sequence[Spec]) -> Operation:
        return Copies(len(given))


def _compare(one: np.ndarray, other: np.ndarray) -> None:
    """Raises a `MisfitError` if two arrays differ in a bit."""
    one, other = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, other))
    if not np.array_equal(one, other):
        raise MisfitError("is one variable, and these differ in value: give each one of its own")


@dataclasses.dataclass(frozen=True)
class Copies(Operation):
    """One array under several names."""

    count: int

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        return [given[0]] * self.count

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        return [given[0]] * self.count

    def inverse(self, given: Sequence[Spec]) -> Operation:
        return Tie()


@dataclasses.dataclass(frozen=True)
class Drop(Operation):
    """Arrays that nothing takes."""

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        return []

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        return []

    def inverse(self, given: Sequence[Spec]) -> Operation:
        raise MisfitError("was dropped")


def copied(array: np.ndarray) -> np.ndarray:
    """In memory of its own, so that what it was a part of need not be kept."""
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def listed(given: Sequence[Spec]) -> str:
    """What arrays are, each kind once."""
    kinds = dict.fromkeys(f"{np.dtype(spec.dtype).name} of shape {spec.shape}" for spec in given)
    return ", ".join([*kinds][:3]) + (", ..." if len(kinds) > 3 else "")
