"""Operations of a plan that cut an array into pieces along an axis, or put pieces together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .operations import MisfitError, Operation, Spec, copied, listed, result, spec_of, whole
from .tensors import Index, Tensor, empty


@dataclasses.dataclass(frozen=True)
class _Cutting(Operation):
    """Pieces of one array along an axis, in given proportions.

    Attributes:
      axis: along which.
      shares: the proportions.
      groups: the axis is so many groups, and each of them is cut alike: 1 for pieces one behind the other.
    """

    axis: int
    shares: tuple[int, ...]
    groups: int = 1

    def _place(self, shape: Sequence[int]) -> int:
        if not -len(shape) <= self.axis < len(shape):
            raise MisfitError(f"has shape {tuple(shape)}, and no axis {self.axis}")
        return self.axis % len(shape)

    def _unit(self, size: int) -> int:
        """How large one share is."""
        parts = self.groups * sum(self.shares)
        if size % parts:
            kind = f" in {self.groups} groups" if self.groups > 1 else ""
            raise MisfitError(f"has {size} along axis {self.axis}, which is not {sum(self.shares)} equal shares{kind}")
        return size // parts


@dataclasses.dataclass(frozen=True)
class Split(_Cutting):
    """One array into pieces."""

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        (spec,) = given
        axis = self._place(spec.shape)
        unit = self._unit(spec.shape[axis])
        return [Spec(_with(spec.shape, axis, share * unit * self.groups), spec.dtype) for share in self.shares]

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        (tensor,) = given
        axis = self._place(tensor.shape)
        unit = self._unit(tensor.shape[axis])
        each = unit * sum(self.shares)  # along the axis, of a group
        results, start = [], 0
        for spec, share in zip(self.specs([spec_of(tensor)]), self.shares, strict=True):
            results.append(self._piece(tensor, spec, axis, each, start, share * unit))
            start += share * unit
        return results

    def _piece(self, tensor: Tensor, spec: Spec, axis: int, each: int, start: int, size: int) -> Tensor:
        def picked(array: np.ndarray, groups: int) -> np.ndarray:
            piece = _grouped(array, axis, groups, each)[(slice(None),) * (axis + 1) + (slice(start, start + size),)]
            return piece.reshape(_with(array.shape, axis, groups * size))

        def read(checked: bool) -> np.ndarray:
            if self.groups == 1 and tensor.read_part and not (checked and tensor.has_checksum):
                return read_part(whole(spec.shape))
            return copied(picked(tensor.read(checked), self.groups))  # not to keep all the others in memory

        def read_part(index: Index) -> np.ndarray:
            along = index[axis]
            if self.groups == 1 or not size:
                cut = slice(start + along.start, start + along.stop) if size else slice(0, 0)
                return tensor.part(_with(index, axis, cut))
            low, high = along.start // size, -(-along.stop // size)
            array = picked(tensor.part(_with(index, axis, slice(low * each, high * each))), high - low)
            return array[(slice(None),) * axis + (slice(along.start - low * size, along.stop - low * size),)]

        # What lies interleaved is read with all that is between.
        return dataclasses.replace(result(spec, [tensor], read, read_part), is_of_more=self.groups == 1)

    def inverse(self, given: Sequence[Spec]) -> Operation:
        return Join(self._place(given[0].shape), self.shares, self.groups)


@dataclasses.dataclass(frozen=True)
class Join(_Cutting):
    """Pieces into one array."""

    def specs(self, given: Sequence[Spec]) -> list[Spec]:
        axis = self._place(given[0].shape)
        if len({(_with(spec.shape, axis, 0) if len(spec.shape) > axis else (), spec.dtype) for spec in given}) > 1:
            raise MisfitError(f"are to be one array along axis {self.axis}, and are {listed(given)}")
        sizes = [spec.shape[axis] for spec in given]
        total, shares = sum(sizes), sum(self.shares)
        in_shares = all(size * shares == total * share for size, share in zip(sizes, self.shares, strict=True))
        if not in_shares or total % (self.groups * shares):
            groups = f" in {self.groups} groups" if self.groups > 1 else ""
            proportions = ":".join(map(str, self.shares))
            what = f"are not in the proportions {proportions}{groups} along axis {self.axis}: they are"
            raise MisfitError(f"{what} {listed(given)}")
        return [Spec(_with(given[0].shape, axis, total), given[0].dtype)]

    def tensors(self, given: Sequence[Tensor]) -> list[Tensor]:
        (spec,) = self.specs([spec_of(tensor) for tensor in given])
        axis = self._place(spec.shape)
        sizes = [tensor.shape[axis] // self.groups for tensor in given]
        each = sum(sizes)

        def filled(shape: Sequence[int], groups: int, piece: Callable[[Tensor, int], np.ndarray]) -> np.ndarray:
            whole, start = empty(_with(shape, axis, groups * each), np.dtype(spec.dtype)), 0
            target = _grouped(whole, axis, groups, each)
            for tensor, size in zip(given, sizes, strict=True):
                place = (slice(None),) * (axis + 1) + (slice(start, start + size),)
                target[place] = _grouped(piece(tensor, size), axis, groups, size)
                start += size
            return whole

        def read(checked: bool) -> np.ndarray:
            return filled(spec.shape, self.groups, lambda tensor, size: tensor.read(checked))

        def read_part(index: Index) -> np.ndarray:
            along, shape = index[axis], [cut.stop - cut.start for cut in index]
            if self.groups > 1:
                low, high = (along.start // each, -(-along.stop // each)) if each else (0, 0)

                def rows(tensor: Tensor, size: int) -> np.ndarray:
                    return tensor.part(_with(index, axis, slice(low * size, high * size)))

                array = filled(shape, high - low, rows)
                return array[(slice(None),) * axis + (slice(along.start - low * each, along.stop - low * each),)]
            part, start = empty(shape, np.dtype(spec.dtype)), 0
            for tensor, size in zip(given, sizes, strict=True):
                first, last = max(along.start, start), min(along.stop, start + size)
                if first < last:
                    place = (slice(None),) * axis + (slice(first - along.start, last - along.start),)
                    part[place] = tensor.part(_with(index, axis, slice(first - start, last - start)))
                start += size
            return part

        return [result(spec, given, read, read_part)]

    def inverse(self, given: Sequence[Spec]) -> Operation:
        return Split(self._place(given[0].shape), self.shares, self.groups)


def _with(items: Sequence[Any], axis: int, item: Any) -> tuple[Any, ...]:
    """With another item at that place."""
    return (*items[:axis], item, *items[axis + 1 :])


def _grouped(array: np.ndarray, axis: int, groups: int, size: int) -> np.ndarray:
    """An axis as two: so many groups of that size."""
    return array.reshape(*array.shape[:axis], groups, size, *array.shape[axis + 1 :])
