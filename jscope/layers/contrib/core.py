"""`fully_connected`, `dropout` and `flatten` of `tf.contrib.layers`."""

from __future__ import annotations

from typing import Any

import jax

import jscope as js

from ..by_name import Activation, Regularizer
from ..core import dense_layer, dropped
from ..core import flatten as layers_flatten
from ..faults import as_array, as_probability, as_training, as_whole, check_min_rank
from ..scopes import layer_scope, options
from .collections import MODEL, WEIGHTS, collect_outputs, collect_weights, finish
from .initializers import xavier_initializer


@js.add_arg_scope
def fully_connected(
    inputs: Any,
    num_outputs: int,
    activation_fn: Activation | None = jax.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: dict[str, Any] | None = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    weights_regularizer: Regularizer | str | None = None,
    biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
    biases_regularizer: Regularizer | str | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    scope: Any = None,
) -> jax.Array:
    """`activation_fn(inputs @ weights + biases)`. TF1: `tf.contrib.layers.fully_connected`, `slim.fully_connected`.

    Default scope `fully_connected`; variables `weights` of shape [n, num_outputs] and, without a normalizer, `biases`
    of shape [num_outputs], all of them model variables.

    Args:
      inputs: shape [..., n], floating.
      num_outputs: size of the last dimension of the output.
      activation_fn: a function of the output, default relu; None for none.
      normalizer_fn: called on the output, with `normalizer_params`, in the place of biases; such as `batch_norm`.
      normalizer_params: its keyword arguments.
      weights_initializer, biases_initializer: default xavier and zeros, or names in Keras; biases None for no biases.
      weights_regularizer, biases_regularizer: callables from value to scalar loss, or names in Keras.
      reuse: as in `js.variable_scope`; needs a scope.
      variables_collections: more collections for the variables: a name, a list, or a dict by "weights" and "biases".
      outputs_collections: a collection or a list of them, to which the output is added.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      scope: the scope's name, or a scope object; None for the default name, made unique.

    Returns:
      Shape [..., num_outputs], the inputs' dtype.

    Raises:
      BadArgumentError: for inputs that are not floating or have no dimensions, and a `num_outputs` that is no integer.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import fully_connected
      >>> net = js.transform(lambda x: fully_connected(x, 4))
      >>> net.init(jax.random.key(0), jnp.ones((2, 3)))
      Params({fully_connected: {biases: f32[4], weights: f32[3,4]}})
    """
    num_outputs = as_whole(num_outputs, "num_outputs", "fully_connected")
    with js.variable_scope(scope, "fully_connected", [inputs], reuse=reuse, custom_getter=WEIGHTS) as entered:
        outputs, variables = dense_layer(
            inputs=inputs,
            units=num_outputs,
            activation=None,
            use_bias=not normalizer_fn and biases_initializer is not None,
            kernel=options(weights_initializer, weights_regularizer),
            bias=options(biases_initializer, biases_regularizer),
            trainable=trainable,
            name=entered,
            reuse=reuse,
            asked="fully_connected",
        )
        collect_weights(variables, variables_collections)
        return finish(
            outputs,
            normalizer_fn=normalizer_fn,
            normalizer_params=normalizer_params,
            activation_fn=activation_fn,
            outputs_collections=outputs_collections,
        )


@js.add_arg_scope
def dropout(
    inputs: Any,
    keep_prob: Any = 0.5,
    noise_shape: Any = None,
    is_training: Any = True,
    outputs_collections: Any = None,
    scope: Any = None,
    seed: int | None = None,
) -> jax.Array:
    """Sets elements to zero at random and scales the others by `1 / keep_prob`.

    TF1: `tf.contrib.layers.dropout`, `slim.dropout`. Default scope `Dropout`; no variables. The random key is
    `js.next_key()`, so a run that drops needs `rng=`.

    Args:
      inputs: any shape, floating.
      keep_prob: the probability of an element to be kept, a number in (0, 1] or a scalar array.
      noise_shape: as in `jscope.layers.dropout`.
      is_training: whether to drop: a bool, or a scalar array of bool.
      outputs_collections: a collection or a list of them, to which the output is added.
      scope: the scope's name, or a scope object; None for the default name, made unique.
      seed: folded into the key.

    Returns:
      Shape and dtype of the inputs.

    Raises:
      BadArgumentError: for a `keep_prob` outside (0, 1], and what is no flag as `is_training`.
      MissingRngError: if it drops and the call was given no `rng`.

    Example:
      >>> from jscope.layers.contrib import dropout
      >>> net = js.transform(lambda x: dropout(x, 0.5))
      >>> sorted(set(net.apply({}, jnp.ones(99), rng=jax.random.key(0)).tolist()))
      [0.0, 2.0]
    """
    with (
        js.variable_scope(scope, "Dropout", [inputs], custom_getter=MODEL) as entered,
        layer_scope(entered, "dropout"),
    ):
        keep_prob = as_probability(keep_prob, "keep_prob", "dropout", is_kept=True)
        training = as_training(is_training, "dropout", "is_training")
        outputs = dropped(inputs, rate=1 - keep_prob, noise_shape=noise_shape, seed=seed, training=training)
        return collect_outputs(outputs_collections, outputs)


@js.add_arg_scope
def flatten(inputs: Any, outputs_collections: Any = None, scope: str | None = None) -> jax.Array:
    """All dimensions but the first made one. TF1: `tf.contrib.layers.flatten`, `slim.flatten`.

    Opens the op scope `Flatten`; no variables.

    Args:
      inputs: shape [batch, ...].
      outputs_collections: a collection or a list of them, to which the output is added.
      scope: the op scope's name.

    Returns:
      Shape [batch, n]; [batch, 1] for inputs of shape [batch], as in tf_slim.

    Raises:
      BadArgumentError: for inputs without dimensions.

    Example:
      >>> from jscope.layers.contrib import flatten
      >>> js.transform(flatten).apply({}, jnp.ones((2, 3, 4))).shape
      (2, 12)
    """
    x = as_array(inputs, "flatten")
    check_min_rank(x, 1, "flatten")
    with js.name_scope(scope, "Flatten", [inputs]) as name:
        return collect_outputs(outputs_collections, layers_flatten(x), name)
