"""`embed_sequence` of `tf.contrib.layers`."""

from __future__ import annotations

from typing import Any

import jax

import jscope as js

from ..by_name import Regularizer
from ..embedding import embedding_lookup
from .collections import model_variable


@js.add_arg_scope
def embed_sequence(
    ids: Any,
    vocab_size: int | None = None,
    embed_dim: int | None = None,
    unique: bool = False,
    initializer: Any = None,
    regularizer: Regularizer | str | None = None,
    trainable: bool | None = None,
    scope: Any = None,
    reuse: Any = None,
) -> jax.Array:
    """Embeddings of ids: rows of a table that the layer makes. TF1: `tf.contrib.layers.embed_sequence`.

    Default scope `EmbedSequence`; variable `embeddings` of shape [vocab_size, embed_dim], a model variable.

    Args:
      ids: integers, any shape.
      vocab_size, embed_dim: the shape of the table; may be left out under reuse.
      unique: no effect.
      initializer: default that of the scope (glorot uniform).
      regularizer: a callable from value to scalar loss.
      trainable: whether the table is trainable; default as the scope says.
      scope: the scope's name, or a scope object; None for the default name, made unique.
      reuse: as in `js.variable_scope`; needs a scope.

    Returns:
      Shape [*ids, embed_dim], float32.

    Raises:
      BadArgumentError: for ids that are not integers.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import embed_sequence
      >>> net = js.transform(lambda ids: embed_sequence(ids, 7, 3))
      >>> net.init(jax.random.key(0), jnp.array([[1, 2]]))
      Params({EmbedSequence: {embeddings: f32[7,3]}})
    """
    with js.variable_scope(scope, "EmbedSequence", [ids], reuse=reuse):
        shape = None if reuse and (vocab_size is None or embed_dim is None) else [vocab_size, embed_dim]
        table = model_variable(
            "embeddings", shape, None, initializer=initializer, regularizer=regularizer, trainable=trainable
        )
        return embedding_lookup(table, ids)
