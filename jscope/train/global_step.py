"""The variable that counts the steps of training: `tf.train.get_or_create_global_step` and its like."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import jscope as js

from .faults import bad_argument, bad_type


def get_global_step(graph: None = None) -> jax.Array | None:
    """The number of steps so far: what `create_global_step` has made, else a variable `global_step`. None for none.

    TF1: `tf.train.get_global_step`. Count by `js.assign(step, step + 1)`.

    Args:
      graph: no effect.

    Returns:
      A scalar of integers, the current value.

    Raises:
      BadTypeError: if it is no scalar of integers.
      BadArgumentError: if the collection `GLOBAL_STEP` has several.

    Example:
      >>> from jscope.train import get_global_step
      >>> js.transform(get_global_step).apply({}) is None
      True
    """
    listed = js.get_collection(js.GraphKeys.GLOBAL_STEP)
    if len(listed) > 1:
        raise bad_argument(
            f"There are {len(listed)} global steps.",
            asked="get_global_step",
            exists=", ".join(str(getattr(item, "name", item)) for item in listed),
            fix="put one variable only into the collection GLOBAL_STEP",
        )
    if not listed:
        listed = [v for v in js.global_variables() if v.name == js.GraphKeys.GLOBAL_STEP]
    if not listed:
        return None
    step = js.value(listed[0])
    if step.shape != () or not jnp.issubdtype(step.dtype, jnp.integer):
        raise bad_type(
            f"The global step '{js.name_of(step)}' has shape {step.shape} and dtype {step.dtype}.",
            asked="get_global_step",
            fix="make it a scalar of integers, by create_global_step()",
        )
    return step


def create_global_step(graph: None = None) -> jax.Array:
    """Makes the variable that counts the steps: `global_step`, zero at first, not trainable.

    TF1: `tf.train.create_global_step`. It is in the scope in force, and in the collection `GLOBAL_STEP`.

    Args:
      graph: no effect.

    Returns:
      A scalar of int64, or of int32 where 64-bit types are off; a checkpoint's int64 fits both.

    Raises:
      VariableExistsError: if there is one.

    Example:
      >>> from jscope.train import create_global_step
      >>> js.transform(create_global_step).specs()["global_step"].collections
      ('variables', 'global_step')
    """
    found = get_global_step()
    if found is not None:
        raise js.VariableExistsError(
            f"There is a global step already: '{js.name_of(found)}'.",
            kind="exists",
            asked="create_global_step",
            fix="use get_or_create_global_step()",
        )
    return js.get_variable(
        js.GraphKeys.GLOBAL_STEP,
        [],
        jax.dtypes.canonicalize_dtype(jnp.int64),
        initializer=js.zeros_initializer(),
        trainable=False,
        collections=[js.GraphKeys.GLOBAL_VARIABLES, js.GraphKeys.GLOBAL_STEP],
    )


def get_or_create_global_step(graph: None = None) -> jax.Array:
    """The number of steps so far: that of `get_global_step`, else that of `create_global_step`.

    TF1: `tf.train.get_or_create_global_step`.

    Args:
      graph: no effect.

    Returns:
      A scalar of integers, the current value.

    Raises:
      JscopeError: as these two.

    Example:
      >>> from jscope.train import get_or_create_global_step
      >>> def program():
      ...     step = get_or_create_global_step()
      ...     return js.assign(step, step + 1)
      >>> net = js.transform(program)
      >>> out, params = net.update(net.init(jax.random.key(0)))
      >>> int(params["global_step"])
      1
    """
    found = get_global_step()
    return create_global_step() if found is None else found
