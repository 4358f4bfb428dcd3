"""The same three models in every library, under one small protocol.

A library is a module here with three functions, `deep`, `shared` and `transformer`. Each takes the number of layers and
a width and gives a `Model`:

* deep: layers of their own variables `w` and `b`, each three scopes down (`layer_3/mlp/dense/w`);
* shared: one such layer, used as many times as there are layers;
* transformer: blocks of twelve variables each: attention, two norms and an MLP.

A module makes a model anew, of new functions, each time that it is asked: nothing may be known of an earlier one.

They compute the same function with the same arithmetic, `models.maths`. What differs is how a variable is declared and
reached, written as each library's own documentation would write it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

KINDS = ("deep", "shared", "transformer")
WIDTH = 16
BASE = "by_hand"


class Library(NamedTuple):
    """A library that is compared.

    Attributes:
      title: as in the tables.
      imports: what its model imports on top of JAX, as `import` takes it; empty where nothing is.
      extra: the extra of jscope that installs it.
      only_init: another `init`, of a model that is there otherwise.
    """

    title: str
    imports: str = ""
    extra: str = "bench"
    only_init: bool = False


# By the name of the module here. The base comes first.
LIBRARIES = {
    BASE: Library("by hand"),
    "key_by_key": Library("by hand, key by key", only_init=True),
    "floor": Library("floor"),
    "guarded": Library("floor, guarded"),
    "jscope": Library("jscope", "jscope"),
    "haiku": Library("Haiku", "haiku", "peers"),
    "linen": Library("Flax Linen", "flax.linen", "peers"),
    "nnx": Library("Flax NNX", "flax.nnx", "peers"),
    "equinox": Library("Equinox", "equinox"),
    "ninjax": Library("ninjax", "ninjax"),
}


class Model(NamedTuple):
    """One model in one library.

    Attributes:
      init: the tree of variables from a key: `init(key)`.
      apply: the output, a pure function: `apply(params, x)`.
      specs: the abstract tree or the library's own listing, with no array made; None where that is
        `jax.eval_shape(init, key)`.
      draw: for libraries that know their variables beforehand: takes what `specs` gave, and a key; else None.
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    specs: Callable[[], Any] | None = None
    draw: Callable[[Any, jax.Array], Any] | None = None


def installed(library: str) -> bool:
    package = LIBRARIES[library].imports.partition(".")[0]
    return not package or importlib.util.find_spec(package) is not None


def make(library: str, kind: str, layers: int, width: int = WIDTH) -> Model:
    return getattr(importlib.import_module(f"models.{library}"), kind)(layers, width)


@functools.cache
def inputs(kind: str, width: int = WIDTH) -> jax.Array:
    return jnp.ones((2, 8, width) if kind == "transformer" else (4, width))
