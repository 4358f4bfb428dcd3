"""The small layers of `tf.contrib.layers`: `bias_add`, `one_hot_encoding`, `softmax`, `unit_norm`, `linear`, ..."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from ..by_name import Activation, Regularizer
from ..faults import as_array, as_input, as_size, as_whole, bad_argument, check_min_rank, check_rank, wide
from ..shardings import arithmetic
from .collections import collect_outputs, collections_for, finish, model_variable
from .core import fully_connected


@js.add_arg_scope
def bias_add(
    inputs: Any,
    activation_fn: Activation | None = None,
    initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    regularizer: Regularizer | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    data_format: str = "NHWC",
    scope: Any = None,
) -> jax.Array:
    """Adds a bias to each channel. TF1: `tf.contrib.layers.bias_add`, `slim.bias_add`.

    Default scope `BiasAdd`; variable `biases` of shape [channels], a model variable.

    Args:
      inputs: floating, of shape [batch, ..., channels]; [batch, channels, height, width] with "NCHW".
      activation_fn: a function of the output; None for none.
      initializer, regularizer: of the variable.
      reuse: as in `js.variable_scope`; needs a scope.
      variables_collections: more collections for the variable: a name, a list, or a dict by "biases".
      outputs_collections: a collection or a list of them, to which the output is added.
      trainable: whether the variable is trainable; default as the scope says (`js.variable_scope(trainable=)`).
      data_format: "NHWC" or "NCHW".
      scope: the scope's name, or a scope object; None for the default name, made unique.

    Returns:
      Shape and dtype of the inputs.

    Raises:
      BadArgumentError: for another data format, "NCHW" with other than four dimensions, and inputs of integers.

    Example:
      >>> from jscope.layers.contrib import bias_add
      >>> js.transform(bias_add).init(jax.random.key(0), jnp.ones((2, 3)))
      Params({BiasAdd: {biases: f32[3]}})
    """
    x = as_input(inputs, "bias_add")
    if data_format not in ("NHWC", "NCHW"):
        raise bad_argument(f"data_format={data_format!r} means nothing.", asked="bias_add", fix="give 'NHWC' or 'NCHW'")
    if data_format == "NCHW":
        check_rank(x, (4,), "bias_add")
    check_min_rank(x, 1, "bias_add")
    with js.variable_scope(scope, "BiasAdd", [inputs], reuse=reuse):
        biases = model_variable(
            "biases",
            [x.shape[1 if data_format == "NCHW" else -1]],
            x.dtype,
            initializer=initializer,
            regularizer=regularizer,
            collections=collections_for(variables_collections, "biases"),
            trainable=trainable,
        )
        others = (0, 2, 3) if data_format == "NCHW" else range(x.ndim - 1)
        with arithmetic("bias_add", x, biases=biases):
            outputs = x + jax.lax.expand_dims(biases, others)
        return finish(outputs, activation_fn=activation_fn, outputs_collections=outputs_collections)


@js.add_arg_scope
def one_hot_encoding(
    labels: Any,
    num_classes: int,
    on_value: float = 1.0,
    off_value: float = 0.0,
    outputs_collections: Any = None,
    scope: str | None = None,
) -> jax.Array:
    """Each label as a vector that is `on_value` at the label's place. TF1: `slim.one_hot_encoding`.

    Opens the op scope `OneHotEncoding`; no variables.

    Args:
      labels: integers of any shape. One outside of [0, num_classes) gives `off_value` everywhere.
      num_classes: the size of the vectors.
      on_value, off_value: numbers.
      outputs_collections: a collection or a list of them, to which the output is added.
      scope: the op scope's name.

    Returns:
      Shape [..., num_classes], float32.

    Raises:
      BadArgumentError: for labels that are no integers, and a number of classes that is no positive one.

    Example:
      >>> from jscope.layers.contrib import one_hot_encoding
      >>> js.transform(lambda labels: one_hot_encoding(labels, 3)).apply({}, jnp.array([2, 0])).tolist()
      [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    x = as_array(labels, "one_hot_encoding")
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise bad_argument(
            f"Labels are integers, and these have dtype {x.dtype}.",
            asked="one_hot_encoding",
            fix="convert them: labels.astype(jnp.int32)",
        )
    num_classes = as_size(num_classes, "num_classes", "one_hot_encoding")
    with js.name_scope(scope, "OneHotEncoding", [labels]) as name:
        x = wide(x)
        is_on = x[..., None] == jnp.arange(num_classes, dtype=x.dtype).reshape([1] * x.ndim + [-1])
        outputs = jnp.where(is_on, jnp.float32(on_value), jnp.float32(off_value))
        return collect_outputs(outputs_collections, outputs, name)


@js.add_arg_scope
def softmax(logits: Any, scope: Any = None) -> jax.Array:
    """Softmax over the last dimension. TF1: `tf.contrib.layers.softmax`, `slim.softmax`.

    Default scope `softmax`; no variables.

    Args:
      logits: floating, of two dimensions or more.
      scope: the scope's name, or a scope object; None for the default name, made unique.

    Returns:
      Shape and dtype of the logits.

    Raises:
      BadArgumentError: for fewer dimensions, and logits that are not floating.

    Example:
      >>> from jscope.layers.contrib import softmax
      >>> js.transform(softmax).apply({}, jnp.zeros((1, 4))).tolist()
      [[0.25, 0.25, 0.25, 0.25]]
    """
    x = as_input(logits, "softmax")
    check_min_rank(x, 2, "softmax")
    with js.variable_scope(scope, "softmax", [logits]):
        return jax.nn.softmax(x, -1)


@js.add_arg_scope
def unit_norm(inputs: Any, dim: int, epsilon: float = 1e-7, scope: Any = None) -> jax.Array:
    """The inputs divided by their length along a dimension. TF1: `tf.contrib.layers.unit_norm`, `slim.unit_norm`.

    Default scope `UnitNorm`; no variables.

    Args:
      inputs: floating.
      dim: the dimension, 0 or above.
      epsilon: added to the square of the length.
      scope: the scope's name, or a scope object; None for the default name, made unique.

    Returns:
      Shape and dtype of the inputs.

    Raises:
      BadArgumentError: for a dimension that the inputs don't have, and inputs that are not floating.

    Example:
      >>> from jscope.layers.contrib import unit_norm
      >>> js.transform(lambda x: unit_norm(x, 1)).apply({}, jnp.array([[0.0, 5.0]])).round(4).tolist()
      [[0.0, 1.0]]
    """
    x, dim = as_input(inputs, "unit_norm"), as_whole(dim, "dim", "unit_norm")
    if not 0 <= dim < x.ndim:
        raise bad_argument(
            f"dim={dim} is no dimension of inputs of shape {x.shape}.",
            asked="unit_norm",
            fix=f"give a number from 0 to {x.ndim - 1}",
        )
    with js.variable_scope(scope, "UnitNorm", [inputs]):
        return x / jnp.sqrt(epsilon + jnp.sum(jnp.square(x), dim, keepdims=True))


linear = functools.partial(fully_connected, activation_fn=None)
linear.__doc__ = "`fully_connected` without activation. TF1: `tf.contrib.layers.linear`."
relu = functools.partial(fully_connected, activation_fn=jax.nn.relu)
relu.__doc__ = "`fully_connected` with relu. TF1: `tf.contrib.layers.relu`."
relu6 = functools.partial(fully_connected, activation_fn=jax.nn.relu6)
relu6.__doc__ = "`fully_connected` with relu cut off at 6. TF1: `tf.contrib.layers.relu6`."
elu = functools.partial(fully_connected, activation_fn=jax.nn.elu)
elu.__doc__ = "`fully_connected` with elu. TF1: `tf.contrib.layers.elu`."
