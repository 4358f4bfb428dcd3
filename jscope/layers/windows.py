"""Windows over the spatial dimensions: how sizes, paddings and data formats are given, and convolution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

from .faults import bad_argument

_PADDINGS = ("valid", "same", "causal")


def sizes(value: Any, n: int, name: str, asked: str) -> tuple[int, ...]:
    """One positive integer for each of `n` spatial dimensions, of an integer or `n` of them.

    Raises:
      BadArgumentError: for anything else.
    """
    given: tuple[Any, ...] = ()
    if isinstance(value, int):
        given = (value,) * n
    elif isinstance(value, Iterable) and not isinstance(value, jax.Array):
        given = tuple(value)
    if len(given) != n or not all(isinstance(size, int) and size > 0 for size in given):
        raise bad_argument(
            f"{name}={value!r} is neither a positive integer nor {n} of them.", asked=asked, fix=f"give {n} integers"
        )
    return given


def padding_name(padding: Any, asked: str, causal: bool = False) -> str:
    """A padding in lower case.

    Raises:
      BadArgumentError: for one that there is none of, or not here.
    """
    allowed = _PADDINGS if causal else _PADDINGS[:2]
    name = padding.lower() if isinstance(padding, str) else padding
    if name not in allowed:
        raise bad_argument(f"padding={padding!r} means nothing here.", asked=asked, fix=f"give one of {allowed}")
    return name


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


def check_fits(
    x: jax.Array,
    window: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: str,
    channels_first: bool,
    asked: str,
) -> None:
    """Raises BadArgumentError for a window that is larger than what is not padded. TensorFlow: a negative dimension."""
    if padding != "valid":
        return
    first = 2 if channels_first else 1
    for dimension, (size, step) in enumerate(zip(window, dilation, strict=True), first):
        wide = (size - 1) * step + 1
        if wide > x.shape[dimension]:
            raise bad_argument(
                f"A window of size {wide} does not fit into size {x.shape[dimension]} along dimension {dimension}.",
                asked=asked,
                fix="use padding='same', a smaller window, or a larger input",
            )


def same_padding(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """What TensorFlow's SAME adds on both sides of a dimension: as even as can be, the odd one behind."""
    total = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _dimensions(n: int, channels_first: bool, kernel: str) -> tuple[str, str, str]:
    spatial = "DHW"[-n:]
    layout = f"NC{spatial}" if channels_first else f"N{spatial}C"
    return layout, spatial + kernel, layout


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    padding: str,
    dilation: tuple[int, ...],
    channels_first: bool,
    asked: str,
    groups: int = 1,
) -> jax.Array:
    """TensorFlow's convolution; the kernel is [*window, in / groups, out].

    Raises:
      BadArgumentError: if the window does not fit.
    """
    n = len(strides)
    check_fits(x, kernel.shape[:n], dilation, padding, channels_first, asked)
    pads: Any = padding.upper()
    if padding == "causal":
        pads = [((window - 1) * step, 0) for window, step in zip(kernel.shape[:n], dilation, strict=True)]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=_dimensions(n, channels_first, "IO"),
        feature_group_count=groups,
    )


def convolve_transposed(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: str, channels_first: bool
) -> jax.Array:
    """The transposed of a convolution from the larger image to `x`; the kernel is [*window, out, in]."""
    n = len(strides)
    spatial = x.shape[2:] if channels_first else x.shape[1:-1]
    pads = []
    for size, window, stride in zip(spatial, kernel.shape[:n], strides, strict=True):
        whole = size * stride + (max(window - stride, 0) if padding == "valid" else 0)
        before = window - 1 - (same_padding(whole, window, stride)[0] if padding == "same" else 0)
        pads.append((before, whole + window - 2 - (size - 1) * stride - before))
    return jax.lax.conv_general_dilated(
        x,
        jax.lax.rev(kernel, tuple(range(n))),
        (1,) * n,
        pads,
        lhs_dilation=strides,
        dimension_numbers=_dimensions(n, channels_first, "OI"),
    )


def add_bias(x: jax.Array, bias: jax.Array, channels_first: bool) -> jax.Array:
    """Adds to each channel."""
    return x + (bias.reshape(-1, *[1] * (x.ndim - 2)) if channels_first else bias)
