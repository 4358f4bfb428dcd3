"""`multi_head_attention`, which TF1 has none of: BERT's."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from .core import dense, kept_and_scaled
from .faults import as_input, as_probability, as_size, as_training, as_whole, bad_argument
from .shardings import arithmetic

# What is added to the score of a position that may not be seen, as BERT does it.
_HIDDEN = -10000.0


def multi_head_attention(
    queries: Any,
    memory: Any = None,
    num_heads: int = 1,
    key_depth: int | None = None,
    value_depth: int | None = None,
    output_depth: int | None = None,
    mask: Any = None,
    dropout_rate: Any = 0.0,
    training: bool = False,
    use_bias: bool = True,
    kernel_initializer: Any = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
) -> jax.Array:
    """Attention of several heads: each position of `queries` takes a mean of the positions of `memory`.

    TF1 has no such layer. The scopes are those of BERT's attention: `query`, `key`, `value` and `output`, each a
    `dense` with `kernel` and `bias`. (BERT has the first three in `self/`, and in `output/dense` the last: with
    `name="self"` and the output's `dense` by hand its checkpoints fit.) Default scope `multi_head_attention`.

    Args:
      queries: shape [batch, to, n], floating.
      memory: shape [batch, from, m]; default the queries themselves.
      num_heads: the number of heads, which divides both depths.
      key_depth: the size of all heads' queries and keys together; default n.
      value_depth: the size of all heads' values together; default that of the keys.
      output_depth: the size of the output; default n. 0 leaves the layer `output` out.
      mask: bool or numbers, of a shape that spreads to [batch, heads, to, from], or of shape [batch, to, from] or
        [batch, from]: where it is zero, a position is not seen.
      dropout_rate: the probability of a weight to be dropped in training, in [0, 1); the key is `js.next_key()`.
      training: whether to drop.
      use_bias: whether the four layers have biases.
      kernel_initializer: of the four layers.
      name, reuse: as in `dense`.

    Returns:
      Shape [batch, to, output_depth], the dtype of the queries.

    Raises:
      BadArgumentError: for depths that the heads do not divide, and shapes that do not fit.
      MissingRngError: if it drops and the call was given no `rng`.

    Example:
      >>> from jscope.layers import multi_head_attention
      >>> net = js.transform(lambda x: multi_head_attention(x, num_heads=2))
      >>> x = jnp.ones((1, 5, 4))
      >>> [name for name in net.specs(x) if "kernel" in name][:2]
      ['multi_head_attention/query/kernel', 'multi_head_attention/key/kernel']
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (1, 5, 4)
    """
    asked = "multi_head_attention"
    x = as_input(queries, asked, (3,))
    other = x if memory is None else as_input(memory, asked, (3,))
    dropout_rate = as_probability(dropout_rate, "dropout_rate", asked)
    num_heads = as_size(num_heads, "num_heads", asked)
    drops = as_training(training, asked)
    if other.shape[0] != x.shape[0]:
        raise bad_argument(
            f"queries of shape {x.shape} and a memory of shape {other.shape} are not of one batch.",
            asked=asked,
            fix="give one memory for each example",
        )
    key_depth = x.shape[-1] if key_depth is None else as_size(key_depth, "key_depth", asked)
    value_depth = key_depth if value_depth is None else as_size(value_depth, "value_depth", asked)
    output_depth = x.shape[-1] if output_depth is None else as_whole(output_depth, "output_depth", asked)
    if key_depth % num_heads or value_depth % num_heads:
        raise bad_argument(
            f"{num_heads} heads do not divide {key_depth} and {value_depth}.",
            asked=asked,
            fix="give a number of heads that divides key_depth and value_depth",
        )

    def layer(source: jax.Array, size: int, name: str) -> jax.Array:
        made = dense(source, size, use_bias=use_bias, kernel_initializer=kernel_initializer, name=name)
        return made.reshape(*made.shape[:2], num_heads, size // num_heads)

    with js.variable_scope(name, asked, reuse=reuse):
        query, key = layer(x, key_depth, "query"), layer(other, key_depth, "key")
        value = layer(other, value_depth, "value")
        with arithmetic(asked, x, memory=other, query=query, key=key, value=value):
            scores = jnp.einsum("bthd,bfhd->bhtf", query, key) / math.sqrt(key_depth // num_heads)
            if mask is not None:
                seen = _four_dimensions(mask, scores.shape, asked).astype(bool)
                scores += jnp.where(seen, 0.0, _HIDDEN).astype(scores.dtype)
            weights = jax.nn.softmax(scores, -1)
            if drops and not (isinstance(dropout_rate, float) and dropout_rate == 0):
                weights = kept_and_scaled(weights, dropout_rate, weights.shape, js.next_key())
            heads = jnp.einsum("bhtf,bfhd->bthd", weights, value)
            context = heads.reshape(*heads.shape[:2], value_depth)
        if not output_depth:
            return context
        return dense(context, output_depth, use_bias=use_bias, kernel_initializer=kernel_initializer, name="output")


def _four_dimensions(mask: Any, shape: tuple[int, ...], asked: str) -> jax.Array:
    given = jnp.asarray(mask)
    if given.ndim == 2:
        wide = given[:, None, None, :]
    elif given.ndim == 3:
        wide = given[:, None]
    else:
        wide = given
    if wide.ndim != 4 or any(n not in (1, wanted) for n, wanted in zip(wide.shape, shape, strict=True)):
        raise bad_argument(
            f"A mask of shape {given.shape} does not spread to [batch, heads, to, from] = {list(shape)}.",
            asked=asked,
            fix="give one of shape [batch, from], [batch, to, from] or [batch, heads, to, from]",
        )
    return wide
