"""How one definition serves all layers of a family, such as the convolutions over one, two and three dimensions.

A family is a function that defines the layer, with all its arguments and a docstring, and gives it back. It is called
once for each member. So each public name is a function of its own, with the signature that `inspect.signature`,
editors and type checkers see, and with a docstring in which what differs among the members is filled in.
"""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable
from typing import Any, TypeVar

Layer = TypeVar("Layer", bound=Callable[..., Any])

_SIZES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def member(layer: Layer, name: str, n: int, **words: str) -> Layer:
    """The member of a family for `n` spatial dimensions, under its public name.

    Args:
      layer: the function, new for each member. Its docstring has `$name` and what `words_for` and `words` say.
      name: its public name.
      n: the number of spatial dimensions.
      **words: what else is filled in, by name.
    """
    layer.__name__ = layer.__qualname__ = name
    if layer.__doc__:  # python -OO has none
        words |= {"name": name, **_words_for(n)}
        layer.__doc__ = string.Template(inspect.cleandoc(layer.__doc__)).substitute(words)
    return layer


def _words_for(n: int) -> dict[str, str]:
    """What docstrings say of `n` spatial dimensions."""
    spatial = ", ".join(_SIZES[n])
    return {
        "n": str(n),
        "dimensions": ("one dimension", "two dimensions", "three dimensions")[n - 1],
        "integers": ("a list of one", "two of them", "three of them")[n - 1],
        "channels_last": f"[batch, {spatial}, channels]",
        "channels_first": f"[batch, channels, {spatial}]",
        "new": ", ".join(f"new {size}" for size in _SIZES[n]),
        "ones": ",".join("1" * n),
        "threes": ",".join("3" * n),
        "fours": ", ".join("4" * n),
        "eights": ", ".join("8" * n),
        "sixteens": ", ".join(["16"] * n),
    }
