"""`tf.nn.embedding_lookup`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .faults import as_array, bad_argument, check_bounds, check_min_rank, wide
from .shardings import arithmetic, sharding, spec_of


def embedding_lookup(
    params: Any,
    ids: Any,
    partition_strategy: str = "mod",
    name: str | None = None,
    validate_indices: bool = True,
    max_norm: float | None = None,
) -> jax.Array:
    """The rows of a table, by their numbers. TF1: `tf.nn.embedding_lookup`.

    A number that the table does not have gives a row of nan, or of the least number that a table of integers can hold
    (TensorFlow stops with an error on a CPU, and gives zeros on a GPU).

    Args:
      params: the table, shape [vocabulary, ...]; or a list of one table.
      ids: integers, any shape.
      partition_strategy, name, validate_indices: no effect.
      max_norm: rows of a larger norm are scaled down to it; a positive number.

    Returns:
      Shape [*ids, ...], the dtype of the table.

    Raises:
      BadArgumentError: for several tables, one without rows, ids that are not integers, and a `max_norm` that is not
        positive.

    Example:
      >>> from jscope.layers import embedding_lookup
      >>> net = js.transform(lambda ids: embedding_lookup(js.get_variable("table", [7, 3]), ids))
      >>> ids = jnp.array([[1, 2], [6, 0]])
      >>> net.apply(net.init(jax.random.key(0), ids), ids).shape
      (2, 2, 3)
    """
    if isinstance(params, list | tuple):
        if len(params) != 1:
            raise bad_argument(
                f"There are {len(params)} tables; jscope does not cut variables into parts.",
                asked="embedding_lookup",
                fix="give one table, of all rows",
            )
        (params,) = params
    table, ids = as_array(params, "embedding_lookup"), as_array(ids, "embedding_lookup")
    check_min_rank(table, 1, "embedding_lookup")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise bad_argument(
            f"ids have dtype {ids.dtype}.", asked="embedding_lookup", fix="give integers: ids.astype(jnp.int32)"
        )
    check_bounds("embedding_lookup", max_norm=max_norm)
    ids = wide(ids)
    # A negative number would count from the end.
    known = jnp.where(ids < 0, table.shape[0], ids) if jnp.issubdtype(ids.dtype, jnp.signedinteger) else ids
    rows = _rows(table, known)
    if max_norm is not None:
        axes = tuple(range(ids.ndim, rows.ndim))
        squares = jnp.sum(jnp.square(rows), axes, keepdims=True)
        # The square root has no gradient at 0, where there is nothing to scale down.
        norms = jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares)))
        rows = rows * (max_norm / jnp.maximum(norms, max_norm))
    return rows


def _rows(table: jax.Array, ids: jax.Array) -> jax.Array:
    of_table, of_ids = spec_of(table), spec_of(ids)
    if of_table is None and of_ids is None:
        return jnp.take(table, ids, axis=0, mode="fill")
    # Each row where its number is, with its elements where they are in the table.
    spec = (*(of_ids or [None] * ids.ndim), *(of_table or [None] * table.ndim)[1:])
    with arithmetic("embedding_lookup", ids, params=table):
        return table.at[ids].get(mode="fill", out_sharding=sharding(spec, ids, table))
