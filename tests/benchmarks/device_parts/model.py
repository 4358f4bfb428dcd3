"""A transformer in jscope, with its layers one after another or stacked and scanned over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jscope as js

NORMAL = js.random_normal_initializer(stddev=0.02)


class Size(NamedTuple):
    layers: int
    width: int
    heads: int
    words: int
    batch: int
    time: int


SIZES = {"0.3B": Size(24, 1024, 16, 32768, 4, 512), "1B": Size(24, 1792, 14, 32768, 4, 512)}
SMALL = {"0.3B": Size(2, 32, 2, 64, 2, 8), "1B": Size(2, 48, 2, 64, 2, 8)}


class Net(NamedTuple):
    """A model as functions.

    Attributes:
      specs: `specs(tokens)`, all that the model declares, with nothing made.
      init: `init(key, tokens)` to the tree of parameters.
      loss: `loss(params, tokens)`.
    """

    specs: Callable[[jax.Array], Any]
    init: Callable[[jax.Array, jax.Array], Any]
    loss: Callable[[Any, jax.Array], jax.Array]


def variable(name: str, shape: list[int], initializer: Any = NORMAL) -> jax.Array:
    return js.get_variable(name, shape, jnp.bfloat16, initializer=initializer)


def norm(name: str, x: jax.Array) -> jax.Array:
    with js.variable_scope(name):
        scale = variable("scale", [x.shape[-1]], js.ones_initializer())
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
        return x.astype(jnp.bfloat16) * scale


def block(x: jax.Array, heads: int) -> jax.Array:
    batch, time, width = x.shape
    with js.variable_scope("attention"):
        h = norm("norm", x)
        q, k, v = ((h @ variable(name, [width, width])).reshape(batch, time, heads, -1) for name in "qkv")
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) * (width // heads) ** -0.5
        scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -1e9)
        weights = jax.nn.softmax(scores).astype(jnp.bfloat16)
        x = x + jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ variable("o", [width, width])
    with js.variable_scope("feed_forward"):
        h = jax.nn.gelu(norm("norm", x) @ variable("up", [width, 4 * width]))
        return x + h @ variable("down", [4 * width, width])


def ends(size: Size, tokens: jax.Array, body: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """What is around the layers: the embedding, which is the output's matrix too, and the loss of the next word."""
    with js.variable_scope("embedding"):
        table = variable("table", [size.words, size.width])
        x = table[tokens[:, :-1]]
    x = norm("last_norm", body(x))
    with js.variable_scope("loss"):
        logits = (x @ table.T).astype(jnp.float32)
        right = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - right)


def unrolled(size: Size) -> Net:
    def transformer(tokens: jax.Array) -> jax.Array:
        def body(x: jax.Array) -> jax.Array:
            for i in range(size.layers):
                with js.variable_scope(f"layer_{i:02d}"):
                    x = block(x, size.heads)
            return x

        return ends(size, tokens, body)

    net = js.transform(transformer)
    return Net(net.specs, net.init, net.apply)


def stacked(size: Size) -> Net:
    """The layers' parameters are made by `vmap` of one block's `init` over keys, and handed to the rest as argument."""
    inner = js.transform(lambda x: block(x, size.heads))

    def transformer(tokens: jax.Array, layers: Any) -> jax.Array:
        def one(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
            return inner.apply(layer, x), None

        return ends(size, tokens, lambda x: jax.lax.scan(one, x, layers)[0])

    outer = js.transform(transformer)
    x = jax.ShapeDtypeStruct((size.batch, size.time, size.width), jnp.bfloat16)

    def specs(tokens: jax.Array) -> Any:
        own = inner.specs(x)
        layers = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size.layers, *leaf.shape), leaf.dtype), own.abstract())
        return own, outer.specs(tokens, layers)

    def init(key: jax.Array, tokens: jax.Array) -> Any:
        first, *keys = jax.random.split(key, size.layers + 1)
        layers = jax.vmap(lambda key: inner.init(key, x))(jnp.stack(keys))
        return {"layers": layers, "ends": outer.init(first, tokens, layers)}

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        return outer.apply(params["ends"], tokens, params["layers"])

    return Net(specs, init, loss)


FORMS = {"unrolled": unrolled, "stacked": stacked}


def tokens_of(size: Size) -> jax.Array:
    """One more than `time`: the last is only predicted."""
    return jax.random.randint(jax.random.key(1), (size.batch, size.time + 1), 0, size.words)


def training_step(net: Net) -> Callable[[Any, jax.Array], tuple[Any, jax.Array]]:
    """A step of SGD. Nothing is donated."""

    def step(params: Any, tokens: jax.Array) -> tuple[Any, jax.Array]:
        loss, gradients = jax.value_and_grad(net.loss)(params, tokens)
        return jax.tree.map(lambda p, g: p - jnp.bfloat16(1e-3) * g, params, gradients), loss

    return step
