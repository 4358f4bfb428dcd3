"""jscope's `deep`, written in the other ways that programs are written in: what each of them costs.

Each asks for the same variables in the same order and computes the same. All but `template` and `default names` differ
from `deep` in the outer scope of a layer only; there are three scopes to a layer in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jscope as js
from jscope.layers import dense
from models import Model, inputs, maths
from models.jscope import NORMAL, ZEROS, mlp, model


class Variant(NamedTuple):
    """One way of writing.

    Attributes:
      make: the model of so many layers and of a width.
      goal: what the first trace should not exceed: in all, or above that of `deep`, with a sign.
      hand: what of `models.by_hand` computes the same.
    """

    make: Callable[[int, int], Model]
    goal: str = "+0.15"
    hand: str = "deep"


def with_layers(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            with js.variable_scope(f"layer_{i}"), js.variable_scope("mlp"):
                x = dense(x, width, jnp.tanh, kernel_initializer=NORMAL, name="dense")
        return x

    return model(program, inputs("deep", width))


def scoped(plain: bool = True, **arguments: Any) -> Callable[[int, int], Model]:
    """Layers whose outer scope is given `arguments`; unless `plain`, no variable is given an initializer."""
    body = mlp if plain else inheriting

    def deep(layers: int, width: int) -> Model:
        def program(x: jax.Array) -> jax.Array:
            for i in range(layers):
                with js.variable_scope(f"layer_{i}", **arguments):
                    x = body(x)
            return x

        return model(program, inputs("deep", width))

    return deep


def inheriting(x: jax.Array) -> jax.Array:
    with js.variable_scope("mlp"), js.variable_scope("dense"):
        width = x.shape[-1]
        return maths.dense(x, js.get_variable("w", [width, width]), js.get_variable("b", [width]))


def captured(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        with js.variable_scope("mlp") as scope:
            pass
        for i in range(layers):
            with js.variable_scope(scope), js.variable_scope(f"layer_{i}"), js.variable_scope("dense"):
                w = js.get_variable("w", [width, width], initializer=NORMAL)
                x = maths.dense(x, w, js.get_variable("b", [width], initializer=ZEROS))
        return x

    return model(program, inputs("deep", width))


def templates(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for i in range(layers):
            x = js.make_template(f"layer_{i}", mlp)(x)
        return x

    return model(program, inputs("deep", width))


def default_names(layers: int, width: int) -> Model:
    def program(x: jax.Array) -> jax.Array:
        for _ in range(layers):
            with js.variable_scope(None, "layer"):
                x = mlp(x)
        return x

    return model(program, inputs("deep", width))


def listings(regularizer: Callable[[jax.Array], jax.Array] | None = None) -> Callable[[int, int], Model]:
    """Lists the variables at the end and adds up the losses."""

    def deep(layers: int, width: int) -> Model:
        def program(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            with js.variable_scope("", regularizer=regularizer):
                for i in range(layers):
                    with js.variable_scope(f"layer_{i}"):
                        x = mlp(x)
            js.trainable_variables()
            return x, js.get_regularization_loss()

        return model(program, inputs("deep", width))

    return deep


def passing(getter: Callable[..., jax.Array], name: str, *args: Any, **kwargs: Any) -> jax.Array:
    return getter(name, *args, **kwargs)


VARIANTS = {
    "layers.dense": Variant(with_layers, "1.45"),
    "initializer=": Variant(scoped(plain=False, initializer=NORMAL)),
    "regularizer=": Variant(scoped(regularizer=maths.decay)),
    "dtype=": Variant(scoped(dtype=jnp.float32)),
    "captured scope": Variant(captured),
    "make_template": Variant(templates),
    "default names": Variant(default_names),
    "listings": Variant(listings()),
    "listings, with losses": Variant(listings(maths.decay), hand="with_losses"),
    "custom getter": Variant(scoped(custom_getter=passing), "+0.5"),
}
