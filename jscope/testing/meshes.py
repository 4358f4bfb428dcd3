"""Strategies for meshes of the devices that there are, and for shardings that fit a shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .calls import bad_argument
from .strategies import check_shape


def meshes(*, axes: Sequence[str] = ("data", "model"), max_devices: int = 8) -> SearchStrategy[jax.sharding.Mesh]:
    """Meshes of the first few devices, of every shape that they can have; they shrink to one device.

    On one CPU there is one device, and one mesh: `XLA_FLAGS=--xla_force_host_platform_device_count=8` in the
    environment of the tests makes eight.

    Args:
      axes: names of the axes, all of which each mesh has.
      max_devices: most devices.

    Returns:
      A strategy for `jax.sharding.Mesh`.

    Example:
      >>> from hypothesis import given, settings
      >>> from jscope.testing import meshes
      >>> @given(meshes(axes=("data",)))
      ... @settings(max_examples=5, deadline=None)
      ... def test(mesh):
      ...     assert mesh.axis_names == ("data",) and mesh.size <= 8
      >>> test()
    """
    if isinstance(axes, str):
        raise bad_argument(f"axes={axes!r} is one name, where a tuple of names is meant.", f"give axes=({axes!r},)")

    @st.composite
    def drawn(draw: st.DrawFn) -> jax.sharding.Mesh:
        left, sides = min(len(jax.devices()), max_devices), []
        for _ in axes:
            sides.append(draw(st.integers(1, left)))
            left //= sides[-1]
        devices = np.array(jax.devices()[: math.prod(sides)], dtype=object).reshape(sides)
        return jax.sharding.Mesh(devices, tuple(axes))

    return drawn()


def shardings(
    mesh: jax.sharding.Mesh | SearchStrategy[jax.sharding.Mesh], shape: Sequence[int]
) -> SearchStrategy[jax.sharding.NamedSharding]:
    """Shardings of one shape over a mesh, each of which JAX can do: a dimension is split by what divides it.

    Args:
      mesh: a mesh or a strategy for meshes.
      shape: the shape of the array.

    Returns:
      A strategy for `jax.sharding.NamedSharding`; they shrink to one copy on every device.

    Example:
      >>> from hypothesis import given, settings
      >>> from jscope.testing import meshes, shardings
      >>> @given(shardings(meshes(), (4, 6)))
      ... @settings(max_examples=5, deadline=None)
      ... def test(sharding):
      ...     assert jax.device_put(jnp.ones((4, 6)), sharding).sharding == sharding
      >>> test()
    """
    check_shape(shape)

    @st.composite
    def drawn(draw: st.DrawFn) -> jax.sharding.NamedSharding:
        found = draw(mesh) if isinstance(mesh, SearchStrategy) else mesh
        left = list(found.axis_names)
        parts: list[Any] = []
        for side in shape:
            fitting = [axis for axis in left if side % found.shape[axis] == 0]
            axis = draw(st.sampled_from([None, *fitting]))
            if axis is not None:
                left.remove(axis)
            parts.append(axis)
        return jax.sharding.NamedSharding(found, jax.sharding.PartitionSpec(*parts))

    return drawn()
