"""Arrays whose JAX types say how they are sharded (a mesh with explicit axes): what layers have to add for them.

Everywhere else `spec_of` gives None, and a layer computes as if this file were not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.core
from jax.sharding import NamedSharding

from .._support import is_sharding_error, short_type
from .faults import bad_argument


def spec_of(x: jax.Array) -> tuple[Any, ...] | None:
    """For each dimension the mesh axes that it is sharded over, or None; None alone where no dimension is sharded."""
    spec = jax.typeof(x).sharding.spec
    return None if all(axes is None for axes in spec) else (*spec, *[None] * (x.ndim - len(spec)))


def sharding(spec: Iterable[Any], *arrays: jax.Array) -> NamedSharding:
    """The sharding over mesh axes, of the mesh of the first of `arrays` that is sharded."""
    sharded = next((x for x in arrays if spec_of(x)), arrays[0])
    # The type of an array has a mesh without devices, which does where `jax.set_mesh` or `jax.jit` brings them.
    own: Any = jax.typeof(sharded) if isinstance(sharded, jax.core.Tracer) else sharded
    return NamedSharding(own.sharding.mesh, jax.P(*spec))


def spread_sharding(x: jax.Array, shape: tuple[Any, ...]) -> NamedSharding | None:
    """The sharding of what has `shape` and is to spread over `x`: not sharded where it has one element."""
    spec = spec_of(x)
    if spec is None:
        return None
    return sharding((axes if n == size else None for axes, n, size in zip(spec, shape, x.shape, strict=True)), x)


def as_sharded(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x`, sharded as an array of the same shape."""
    wanted = spec_of(like)
    return x if spec_of(x) == wanted else jax.sharding.reshard(x, sharding(wanted or (), like, x))


def by_batch(x: jax.Array, like: jax.Array, batch: int = 0) -> jax.Array:
    """`x` with its first dimension sharded as the dimension `batch` of `like`, and no other."""
    spec = ((spec_of(like) or (None,) * like.ndim)[batch], *[None] * (x.ndim - 1))
    return x if (spec_of(x) or (None,) * x.ndim) == spec else jax.sharding.reshard(x, sharding(spec, like, x))


def whole(x: jax.Array) -> jax.Array:
    """`x`, not sharded."""
    return x if spec_of(x) is None else jax.sharding.reshard(x, sharding((), x))


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
