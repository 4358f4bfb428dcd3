"""Windows over the spatial dimensions: how sizes, paddings and data formats are given, convolution and pooling."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from .._support import single_or_wider
from .faults import as_array, bad_argument, check_floating, check_rank, items, whole
from .products import shifted
from .shardings import arithmetic, sharding, spec_of


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows that a layer moves over its input. `windows` makes them of a layer's arguments.

    Attributes:
      asked: the layer's public name.
      size, strides, dilation: a number for each spatial dimension.
      padding: "valid", "same" or "causal".
      channels_first: whether the channels are the second dimension instead of the last.
    """

    asked: str
    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str
    channels_first: bool

    def channels(self, x: jax.Array) -> int:
        """How many channels `x` has."""
        return x.shape[1 if self.channels_first else -1]

    def spatial(self, x: jax.Array) -> tuple[int, ...]:
        """The sizes of `x` that the windows move over."""
        return x.shape[2:] if self.channels_first else x.shape[1:-1]

    def check_fits(self, x: jax.Array) -> None:
        """Raises BadArgumentError for windows larger than what is not padded. TensorFlow: a negative dimension.

        Of a size that `jax.export` leaves open nobody knows yet.
        """
        if self.padding != "valid":
            return
        first = 2 if self.channels_first else 1
        for at, (size, step, given) in enumerate(zip(self.size, self.dilation, self.spatial(x), strict=True), first):
            wide = (size - 1) * step + 1
            if isinstance(given, int) and wide > given:
                raise bad_argument(
                    f"A window of size {wide} does not fit into size {given} along dimension {at}.",
                    asked=self.asked,
                    fix="use padding='same', a smaller window, or a larger input",
                )

    def dimension_numbers(self, kernel: str) -> tuple[str, str, str]:
        """What JAX calls the dimensions; those of a kernel are the spatial ones and then `kernel`."""
        spatial = "DHW"[-len(self.size) :]
        layout = f"NC{spatial}" if self.channels_first else f"N{spatial}C"
        return layout, spatial + kernel, layout


def windows(
    asked: str,
    n: int,
    *,
    padding: Any,
    data_format: Any,
    dilation_rate: Any = 1,
    causal: bool = False,
    **given: Any,
) -> Windows:
    """Windows over `n` spatial dimensions.

    Args:
      asked: the layer's public name.
      n: the number of spatial dimensions.
      padding, data_format, dilation_rate: as in `conv2d`.
      causal: whether "causal" is a padding.
      **given: the size, then the strides, under the names that the layer has for them.

    Raises:
      BadArgumentError: for what means nothing.
    """
    size, strides = (sizes(value, n, name, asked) for name, value in given.items())
    dilation = sizes(dilation_rate, n, "dilation_rate", asked)
    name = padding.lower() if isinstance(padding, str) else padding
    allowed = ("valid", "same", "causal") if causal else ("valid", "same")
    if name not in allowed:
        raise bad_argument(f"padding={padding!r} means nothing here.", asked=asked, fix=f"give one of {allowed}")
    if max(strides) > 1 and max(dilation) > 1:
        raise bad_argument(
            f"strides={strides} and dilation_rate={dilation} are both above 1.", asked=asked, fix="make one of them 1"
        )
    return Windows(asked, size, strides, dilation, name, is_channels_first(data_format, asked))


def sizes(value: Any, n: int, name: str, asked: str) -> tuple[int, ...]:
    """One positive integer for each of `n` spatial dimensions, of an integer or `n` of them.

    Raises:
      BadArgumentError: for anything else.
    """
    several = items(value)
    given = (value,) * n if several is None else several
    found = tuple(size for size in map(whole, given) if size is not None and size > 0)
    if not len(found) == len(given) == n:
        raise bad_argument(
            f"{name}={value!r} is neither a positive integer nor {n} of them.", asked=asked, fix=f"give {n} integers"
        )
    return found


def is_channels_first(data_format: Any, asked: str) -> bool:
    """Whether the channels are the second dimension instead of the last.

    Raises:
      BadArgumentError: for a format that there is none of.
    """
    if data_format not in ("channels_last", "channels_first"):
        raise bad_argument(
            f"data_format={data_format!r} means nothing here.",
            asked=asked,
            fix="give 'channels_last' or 'channels_first'",
        )
    return data_format == "channels_first"


def convolve(x: jax.Array, kernel: jax.Array, how: Windows, groups: int = 1) -> jax.Array:
    """TensorFlow's convolution; the kernel is [*window, in / groups, out].

    Raises:
      BadArgumentError: if the window does not fit, and for shardings that JAX has no rule for.
    """
    how.check_fits(x)
    pads: Any = how.padding.upper()
    if how.padding == "causal":
        pads = [((window - 1) * step, 0) for window, step in zip(how.size, how.dilation, strict=True)]
    with arithmetic(how.asked, x, kernel=kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            how.strides,
            pads,
            rhs_dilation=how.dilation,
            dimension_numbers=how.dimension_numbers("IO"),
            feature_group_count=groups,
            out_sharding=_result_sharding(x, kernel, how, -1),
        )


def convolve_transposed(x: jax.Array, kernel: jax.Array, how: Windows) -> jax.Array:
    """The transposed of a convolution from the larger image to `x`; the kernel is [*window, out, in]."""
    pads = []
    for window, stride in zip(how.size, how.strides, strict=True):
        # The larger image has `stride` elements for each one, and with "valid" padding those at the end of the last
        # window as well; with "same" padding half of them are cut off before.
        further = max(window - stride, 0)
        before = window - 1 - (0 if how.padding == "valid" else further // 2)
        pads.append((before, stride + (further if how.padding == "valid" else 0) + window - 2 - before))
    with arithmetic(how.asked, x, kernel=kernel):
        return jax.lax.conv_general_dilated(
            x,
            jax.lax.rev(kernel, tuple(range(len(how.size)))),
            (1,) * len(how.size),
            pads,
            lhs_dilation=how.strides,
            dimension_numbers=how.dimension_numbers("OI"),
            out_sharding=_result_sharding(x, kernel, how, -2),
        )


def _result_sharding(x: jax.Array, kernel: jax.Array, how: Windows, filters: int) -> NamedSharding | None:
    """The sharding of a convolution whose channels or filters are sharded, which JAX asks for; else it has a rule."""
    channels = 1 if how.channels_first else x.ndim - 1
    left, right = spec_of(x) or [None] * x.ndim, spec_of(kernel)
    if right is None and left[channels] is None:
        return None
    spec = list(left)
    spec[channels] = None if right is None else right[filters]
    return sharding(spec, x, kernel)


def taken(average: bool) -> str:
    """What a pooling takes, for its docstring: a mean of integers would be cut off, as TensorFlow knows."""
    return "floating" if average else "floating or integers"


def pooled(inputs: Any, how: Windows, average: bool) -> jax.Array:
    """The maximum or the average of each window; what is padded counts in neither.

    Raises:
      BadArgumentError: for inputs of another rank or dtype, if the window does not fit, and for shardings that JAX has
        no rule for.
    """
    x = as_array(inputs, how.asked)
    check_rank(x, (len(how.size) + 2,), how.asked)
    if average or not jnp.issubdtype(x.dtype, jnp.integer):
        check_floating(x, how.asked)
    how.check_fits(x)
    pads = how.padding.upper()
    spread = (lambda t: (1, 1, *t)) if how.channels_first else (lambda t: (1, *t, 1))
    window, strides = spread(how.size), spread(how.strides)
    with arithmetic(how.asked, x):
        if not average:
            return jax.lax.reduce_window(x, _least(x.dtype), jax.lax.max, window, strides, pads)
        # Sums of half precision are taken in float32.
        wide = x.astype(single_or_wider(x.dtype))
        zero = np.zeros((), wide.dtype)[()]
        total = jax.lax.reduce_window(wide, zero, jax.lax.add, window, strides, pads)
        if pads == "VALID":
            return (total / math.prod(how.size)).astype(x.dtype)
        inside = jnp.ones(spread(how.spatial(x)), wide.dtype)
        count = jax.lax.reduce_window(inside, zero, jax.lax.add, window, strides, pads)
        return (total / count).astype(x.dtype)


def _least(dtype: Any) -> Any:
    """What no number of a dtype is below."""
    if jnp.issubdtype(dtype, jnp.integer):
        return np.asarray(jnp.iinfo(dtype).min, dtype)[()]
    least = np.asarray(-np.inf, dtype)[()]
    return np.asarray(jnp.finfo(dtype).min, dtype)[()] if np.isnan(least) else least  # some of eight bits have no inf


def add_bias(x: jax.Array, bias: jax.Array, how: Windows) -> jax.Array:
    """Adds to each channel."""
    with arithmetic(how.asked, x, bias=bias):
        return shifted(x, jax.lax.expand_dims(bias, range(1, x.ndim - 1)) if how.channels_first else bias)
