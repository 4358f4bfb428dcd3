"""The least that a library by names can do: a string prefix, one dict look-up, and the scope's name on the operations.

No reuse, no checks, no thread has its own scope. The difference to by hand is what names cost at least, and the
difference of another library to this is what it does besides. That holds for `apply`; `init` is the plain way to have
names there too, an abstract run and then one draw after another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from models import Model, inputs, maths

Draw = Callable[[jax.Array, tuple[int, ...]], jax.Array]

prefix = ""
leaves: dict[str, jax.Array] = {}
wanted: dict[str, tuple[tuple[int, ...], Draw]] | None = None  # filled instead, where the variables are looked for


class Scope:
    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        global prefix
        self.outside = prefix
        prefix = f"{prefix}{self.name}/"
        self.on_operations = jax.named_scope(self.name)
        self.on_operations.__enter__()

    def __exit__(self, *error: Any) -> None:
        global prefix
        self.on_operations.__exit__(*error)
        prefix = self.outside


def get(name: str, shape: tuple[int, ...], draw: Draw) -> jax.Array:
    if wanted is None:
        return leaves[prefix + name]
    wanted[prefix + name] = shape, draw
    return jnp.zeros(shape)


def zeros(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.zeros(shape)


def ones(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.ones(shape)


def model(program: Callable[[jax.Array], jax.Array], x: jax.Array, start: Callable[[], object]) -> Model:
    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        global leaves
        leaves = params
        start()
        return program(x)

    def specs() -> dict[str, tuple[tuple[int, ...], Draw]]:
        global wanted
        found = wanted = {}

        def abstract(x: jax.Array) -> None:
            start()
            program(x)

        jax.eval_shape(abstract, x)
        wanted = None
        return found

    def drawn(found: dict[str, tuple[tuple[int, ...], Draw]], key: jax.Array) -> dict[str, jax.Array]:
        keys = jax.random.split(key, len(found))
        return {name: draw(key, shape) for key, (name, (shape, draw)) in zip(keys, found.items(), strict=True)}

    return Model(lambda key: drawn(specs(), key), apply, specs, drawn)


class Library:
    """The three models over one way to enter a scope and one way to get a variable.

    Args:
      scope: a context manager of a name.
      get: gives a variable by name, shape and what draws it.
      start: called at the beginning of each run.
    """

    def __init__(self, scope: Any, get: Callable[..., jax.Array], start: Callable[[], object] = lambda: None) -> None:
        def layer(name: str, x: jax.Array) -> jax.Array:
            with scope(name), scope("mlp"), scope("dense"):
                width = x.shape[-1]
                return maths.dense(x, get("w", (width, width), maths.normal), get("b", (width,), zeros))

        def block(x: jax.Array) -> jax.Array:
            h = norm("attn_norm", x)
            with scope("attn"):
                x = x + project("o", maths.attend(project("q", h), project("k", h), project("v", h)))
            h = norm("mlp_norm", x)
            with scope("mlp"):
                h = jnp.tanh(linear("up", h, maths.WIDER * x.shape[-1]))
                return x + linear("down", h, x.shape[-1])

        def norm(name: str, x: jax.Array) -> jax.Array:
            with scope(name):
                shape = (x.shape[-1],)
                return maths.norm(x, get("scale", shape, ones), get("bias", shape, zeros))

        def project(name: str, x: jax.Array) -> jax.Array:
            with scope(name):
                return x @ get("w", (x.shape[-1], x.shape[-1]), maths.normal)

        def linear(name: str, x: jax.Array, size: int) -> jax.Array:
            with scope(name):
                return maths.linear(x, get("w", (x.shape[-1], size), maths.normal), get("b", (size,), zeros))

        self._layer, self._block, self._scope, self._start = layer, block, scope, start

    def deep(self, layers: int, width: int) -> Model:
        def program(x: jax.Array) -> jax.Array:
            for i in range(layers):
                x = self._layer(f"layer_{i}", x)
            return x

        return model(program, inputs("deep", width), self._start)

    def shared(self, layers: int, width: int) -> Model:
        def program(x: jax.Array) -> jax.Array:
            for _ in range(layers):
                x = self._layer("layer", x)
            return x

        return model(program, inputs("shared", width), self._start)

    def transformer(self, layers: int, width: int) -> Model:
        def program(x: jax.Array) -> jax.Array:
            for i in range(layers):
                with self._scope(f"layer_{i}"):
                    x = self._block(x)
            return x

        return model(program, inputs("transformer", width), self._start)


_library = Library(Scope, get)
deep, shared, transformer = _library.deep, _library.shared, _library.transformer
