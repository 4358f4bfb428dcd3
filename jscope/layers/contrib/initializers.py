"""The initializers of `tf.contrib.layers`, which are not those of the same names in `tf`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from ..._support import user_line
from ..faults import as_flag, bad_argument, check_numbers

_MODES = ("FAN_IN", "FAN_OUT", "FAN_AVG")


@dataclasses.dataclass(frozen=True)
class variance_scaling_initializer:  # noqa: N801 (TF1's name)
    """Numbers of variance about `factor / n`, where n is the fan in, the fan out or their mean.

    TF1: `tf.contrib.layers.variance_scaling_initializer`. The truncated normal distribution is scaled by 1.3 for what
    truncation takes away; `js.variance_scaling_initializer`, TF1's own of this name, is more exact there.

    Args:
      factor: a number of at least 0.
      mode: "FAN_IN", "FAN_OUT" or "FAN_AVG".
      uniform: uniform instead of truncated normal numbers.
      seed: folded into the key of the variable.
      dtype: the dtype when called without one.

    Raises:
      BadTypeError: for another mode, as in TF1.
      BadArgumentError: for another factor, and what is no flag as `uniform`.
      InitializerError: when it is called for a dtype that holds no floating numbers.

    Example:
      >>> from jscope.layers.contrib import variance_scaling_initializer
      >>> draw = variance_scaling_initializer(factor=3.0, mode="FAN_OUT", uniform=True)
      >>> bool(abs(draw(jax.random.key(0), (99, 9))).max() <= 1)
      True
    """

    factor: float = 2.0
    mode: str = "FAN_IN"
    uniform: bool = False
    seed: int | None = None
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise js.BadTypeError(
                f"mode={self.mode!r} means nothing.", kind="bad_init", where=user_line(), fix=f"give one of {_MODES}"
            )
        asked = "variance_scaling_initializer"
        check_numbers(asked, factor=self.factor)
        if not self.factor >= 0:
            raise bad_argument(f"factor={self.factor} is no number of at least 0.", asked=asked, fix="give 0 or more")
        as_flag(self.uniform, "uniform", asked)

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        dtype = self.dtype if dtype is None else dtype
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise js.InitializerError(
                f"{type(self).__name__} draws floating numbers, not {jnp.dtype(dtype).name}.",
                kind="init_value",
                where=user_line(),
                fix="ask for a floating dtype, or use js.zeros_initializer / js.constant_initializer",
            )
        size = math.prod(shape[:-2])
        fan_in = size * (shape[-2] if len(shape) > 1 else shape[-1] if shape else 1)
        fan_out = size * (shape[-1] if shape else 1)
        n = {"FAN_IN": fan_in, "FAN_OUT": fan_out, "FAN_AVG": (fan_in + fan_out) / 2}[self.mode]
        if not n:
            return jnp.zeros(shape, dtype)
        if self.uniform:
            limit = math.sqrt(3.0 * self.factor / n)
            return js.random_uniform_initializer(-limit, limit, self.seed)(key, shape, dtype)
        return js.truncated_normal_initializer(0.0, math.sqrt(1.3 * self.factor / n), self.seed)(key, shape, dtype)


@dataclasses.dataclass(frozen=True)
class xavier(variance_scaling_initializer):  # noqa: N801 (a class of its own, so that tables show it by this name)
    factor: float = 1.0
    mode: str = "FAN_AVG"
    uniform: bool = True


def xavier_initializer(uniform: bool = True, seed: int | None = None, dtype: Any = jnp.float32) -> Any:
    """Numbers of variance about 2 / (fan in + fan out). TF1: `tf.contrib.layers.xavier_initializer`.

    Args:
      uniform: uniform instead of truncated normal numbers.
      seed: folded into the key of the variable.
      dtype: the dtype when called without one.

    Returns:
      An initializer `init(key, shape, dtype)`, for dtypes that hold floating numbers.

    Example:
      >>> from jscope.layers.contrib import xavier_initializer
      >>> xavier_initializer()(jax.random.key(0), (3, 4)).shape
      (3, 4)
    """
    return xavier(uniform=uniform, seed=seed, dtype=dtype)
