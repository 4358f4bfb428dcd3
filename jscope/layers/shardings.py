"""Arrays whose JAX types say how they are sharded (a mesh with explicit axes): what layers have to add for them.

Everywhere else `spec_of` gives None, and a layer computes as if this file were not there.
"""

from __future__ import annotations

from typing import Any

import jax

from .._support import is_sharding_error, short_type
from .faults import bad_argument


def spec_of(x: jax.Array) -> tuple[Any, ...] | None:
    """For each dimension the mesh axes that it is sharded over, or None; None alone where no dimension is sharded."""
    spec = jax.typeof(x).sharding.spec
    return None if all(axes is None for axes in spec) else (*spec, *[None] * (x.ndim - len(spec)))


def spread_spec(x: jax.Array, shape: tuple[Any, ...]) -> jax.P | None:
    """The sharding of what has `shape` and is to spread over `x`: not sharded where it has one element."""
    spec = spec_of(x)
    if spec is None:
        return None
    return jax.P(*(axes if n == size else None for axes, n, size in zip(spec, shape, x.shape, strict=True)))


def as_sharded(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x`, sharded as an array of the same shape."""
    return x if spec_of(x) == spec_of(like) else jax.sharding.reshard(x, jax.P(*(spec_of(like) or ())))


def by_batch(x: jax.Array, batch: Any) -> jax.Array:
    """`x` with its first dimension sharded over the mesh axes `batch`, and no other."""
    spec = (batch, *[None] * (x.ndim - 1))
    return x if (spec_of(x) or (None,) * x.ndim) == spec else jax.sharding.reshard(x, jax.P(*spec))


class arithmetic:  # noqa: N801 (read as `with arithmetic("dense", ...):`)
    """A context manager around what a layer computes, which says in this room's words what JAX can't shard.

    Args:
      asked: the layer's public name.
      x: its input.
      **others: its variables and further inputs.

    Raises:
      BadArgumentError: in the place of JAX's error.
    """

    __slots__ = ("_asked", "_others", "_x")

    def __init__(self, asked: str, x: jax.Array, **others: jax.Array) -> None:
        self._asked, self._x, self._others = asked, x, others

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if error is None or not is_sharding_error(error):
            return
        arrays = {"inputs": self._x, **self._others}
        sharded = ", ".join(
            f"{name} {short_type(x)} by {_shown(spec)}" for name, x in arrays.items() if (spec := spec_of(x))
        )
        raise bad_argument(
            f"{self._asked} does not know how to shard its result. Sharded are: {sharded}. JAX says: {error}",
            asked=self._asked,
            fix=self._fix(),
        ) from error

    def _fix(self) -> str:
        """The inputs sharded over the batch alone, if no variable has its mesh axes; else the variables not sharded."""
        given = spec_of(self._x) or (None,) * self._x.ndim
        others = {name: spec for name, x in self._others.items() if (spec := spec_of(x))}
        used = {axis for spec in others.values() for axes in spec for axis in _axes(axes)}
        wanted = (None if used.intersection(_axes(given[0])) else given[0], *[None] * (self._x.ndim - 1))
        if wanted != given:
            return f"reshard the inputs: jax.sharding.reshard(inputs, {_shown(wanted)})"
        return f"give {' and '.join(others)} not sharded: jax.sharding.reshard({next(iter(others), 'inputs')}, jax.P())"


def _axes(axes: Any) -> tuple[Any, ...]:
    return axes if isinstance(axes, tuple) else (axes,) if axes is not None else ()


def _shown(spec: tuple[Any, ...]) -> str:
    return f"jax.P({', '.join(map(repr, spec))})"
