"""`dense`, `dropout` and `flatten` of `tf.layers`."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

import jscope as js

from .by_name import Activation, Regularizer, activation_of
from .faults import (
    as_array,
    as_flag,
    as_input,
    as_probability,
    as_training,
    bad_argument,
    both_ways,
    check_min_rank,
    items,
    refuse,
)
from .products import affine, multiplied
from .scopes import add_weight, layer_scope, options
from .shardings import arithmetic, spread_sharding

NO_ACTIVITY = "leave it out, and add the penalty of the output to your loss"


def dense(
    inputs: Any,
    units: int,
    activation: Activation | str | None = None,
    use_bias: bool = True,
    kernel_initializer: Any = None,
    bias_initializer: Any = js.zeros_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    kernel_regularizer: Regularizer | str | None = None,
    bias_regularizer: Regularizer | str | None = None,
    activity_regularizer: None = None,
    kernel_constraint: Any = None,
    bias_constraint: Any = None,
    trainable: bool | None = None,
    name: str | js.VariableScope | None = None,
    reuse: Any = None,
) -> jax.Array:
    """`activation(inputs @ kernel + bias)`: a densely connected layer. TF1: `tf.layers.dense`.

    Default scope `dense`; variables `kernel` of shape [n, units] and `bias` of shape [units], of the inputs' dtype.

    Args:
      inputs: shape [..., n], floating.
      units: size of the last dimension of the output.
      activation: a function of the output, or its name in Keras ("relu", "tanh", "softmax", ...); None for none.
      use_bias: whether there is a `bias`.
      kernel_initializer, bias_initializer: default those of the scope (glorot uniform), and zeros; or names in Keras.
      kernel_regularizer, bias_regularizer: callables from value to scalar loss, or "l1", "l2", "l1_l2" (of 0.01).
      activity_regularizer: not supported; None only.
      kernel_constraint, bias_constraint: callables from value to value; see `Specs.constrain`.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      name: the scope's name, or a scope object; None for the default name, made unique.
      reuse: as in `js.variable_scope`. Without a name, a layer that reuses is the one of the default name itself.

    Returns:
      Shape [..., units], the inputs' dtype.

    Raises:
      BadArgumentError: for inputs that are not floating or have no dimensions, and for `activity_regularizer`.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers import dense
      >>> net = js.transform(lambda x: dense(dense(x, 4, jax.nn.relu), 1, name="out"))
      >>> net.init(jax.random.key(0), jnp.ones((2, 3)))
      Params({dense: {bias: f32[4], kernel: f32[3,4]}, out: {bias: f32[1], kernel: f32[4,1]}})
    """
    refuse("dense", NO_ACTIVITY, activity_regularizer=activity_regularizer)
    outputs, _ = dense_layer(
        inputs=inputs,
        units=units,
        activation=activation,
        use_bias=use_bias,
        kernel=options(kernel_initializer, kernel_regularizer, kernel_constraint),
        bias=options(bias_initializer, bias_regularizer, bias_constraint),
        trainable=trainable,
        name=name,
        reuse=reuse,
    )
    return outputs


def dense_layer(
    *,
    inputs: Any,
    units: int,
    activation: Activation | str | None,
    use_bias: bool,
    kernel: dict[str, Any],
    bias: dict[str, Any],
    trainable: bool | None,
    name: Any,
    reuse: Any,
    asked: str = "dense",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What `dense` gives, and its variables; `kernel` and `bias` are further arguments of `add_weight`."""
    x = as_input(inputs, asked)
    check_min_rank(x, 2, asked)
    activation = activation_of(activation, asked)
    use_bias = as_flag(use_bias, "use_bias", asked)
    more: dict[str, Any] = {"trainable": trainable, "at": name}
    with layer_scope(name, "dense", reuse):
        variables = {"kernel": add_weight("kernel", [x.shape[-1], units], x.dtype, **more, **kernel)}
        if use_bias:
            variables["bias"] = add_weight("bias", [units], x.dtype, **more, **bias)
        with arithmetic(asked, x, **variables):
            outputs = (affine if use_bias else multiplied)(x, **variables)
        return outputs if activation is None else activation(outputs), variables


def dropout(
    inputs: Any,
    rate: Any = 0.5,
    noise_shape: Any = None,
    seed: int | None = None,
    training: Any = False,
    name: str | None = None,
) -> jax.Array:
    """Sets elements to zero at random and scales the others by `1 / (1 - rate)`. TF1: `tf.layers.dropout`.

    Default scope `dropout`; no variables. The random key is `js.next_key()`, so a run that drops needs `rng=`.

    Args:
      inputs: any shape, floating.
      rate: the probability of an element to be dropped, a number in [0, 1) or a scalar array.
      noise_shape: the shape of the mask, as far as it differs from that of the inputs: a list with 1 where one draw
        holds for a whole dimension; None for the size of the input there.
      seed: folded into the key. Other than in TF1, what is drawn depends on `rng` as well.
      training: whether to drop: a bool, or a scalar array of bool.
      name: the scope's name, made unique as TF1 does.

    Returns:
      Shape and dtype of the inputs.

    Raises:
      BadArgumentError: for a rate outside [0, 1), inputs that are not floating, and what is no flag as `training`.
      MissingRngError: if it drops and the call was given no `rng`.

    Example:
      >>> from jscope.layers import dropout
      >>> net = js.transform(lambda x, training: dropout(x, 0.75, training=training))
      >>> x = jnp.ones(4)
      >>> net.apply({}, x, False).tolist()
      [1.0, 1.0, 1.0, 1.0]
      >>> sorted(set(net.apply({}, jnp.ones(99), True, rng=jax.random.key(0)).tolist()))
      [0.0, 4.0]
    """
    with layer_scope(None, name or "dropout"):
        rate = as_probability(rate, "rate", "dropout")
        return dropped(inputs, rate=rate, noise_shape=noise_shape, seed=seed, training=training)


def dropped(inputs: Any, *, rate: float | jax.Array, noise_shape: Any, seed: int | None, training: Any) -> jax.Array:
    """What `dropout` computes, in the scope in force."""
    x = as_input(inputs, "dropout")
    training = as_training(training, "dropout")
    if (isinstance(rate, float) and rate == 0) or (not isinstance(training, jax.Array) and not training):
        return x
    with both_ways(training):
        key = js.next_key()
    if seed is not None:
        key = jax.random.fold_in(key, seed % 2**32)
    with arithmetic("dropout", x):
        outputs = kept_and_scaled(x, rate, noise_dimensions(x, noise_shape), key)
    return jnp.where(training, outputs, x) if isinstance(training, jax.Array) else outputs


def kept_and_scaled(x: jax.Array, rate: Any, noise_shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """`x` with elements set to zero with probability `rate`, the others divided by that of being kept."""
    keep_prob, sharding = 1 - jnp.asarray(rate, jnp.float32), spread_sharding(x, noise_shape)
    if sharding is None or isinstance(x, jax.core.Tracer):
        kept = jax.random.bernoulli(key, keep_prob, noise_shape, out_sharding=sharding)
    else:  # outside jax.jit, JAX draws on the devices of the key
        kept = jax.sharding.reshard(jax.random.bernoulli(key, keep_prob, noise_shape), sharding)
    return jnp.where(kept, x / (1 - jnp.asarray(rate, x.dtype)), jnp.zeros_like(x))


def noise_dimensions(x: jax.Array, noise_shape: Any) -> tuple[int, ...]:
    """The shape of the mask of `x`.

    Raises:
      BadArgumentError: for one that does not spread over `x`.
    """
    if noise_shape is None:
        return x.shape
    given = items(noise_shape) or ()
    if len(given) == x.ndim:
        given = tuple(n if wanted is None else wanted for wanted, n in zip(given, x.shape, strict=True))
        if all(wanted in (1, n) for wanted, n in zip(given, x.shape, strict=True)):
            return given
    raise bad_argument(
        f"noise_shape={noise_shape} does not spread over inputs of shape {x.shape}.",
        asked="dropout",
        fix="give one number for each dimension: 1, or the size of the input there",
    )


def flatten(inputs: Any, name: str | None = None, data_format: str = "channels_last") -> jax.Array:
    """All dimensions but the first made one. TF1: `tf.layers.flatten`.

    Default scope `flatten`; no variables.

    Args:
      inputs: shape [batch, ...].
      name: the scope's name, made unique as TF1 does.
      data_format: "channels_last"; or "channels_first" for inputs [batch, channels, ...], whose channels are moved to
        the end first.

    Returns:
      Shape [batch, n]; [batch, 1] for inputs of shape [batch].

    Raises:
      BadArgumentError: for inputs without dimensions, and another data format.

    Example:
      >>> from jscope.layers import flatten
      >>> js.transform(flatten).apply({}, jnp.ones((2, 3, 4))).shape
      (2, 12)
    """
    x = as_array(inputs, "flatten")
    check_min_rank(x, 1, "flatten")
    if data_format not in ("channels_last", "channels_first"):
        raise bad_argument(
            f"data_format={data_format!r} means nothing.",
            asked="flatten",
            fix="give 'channels_last' or 'channels_first'",
        )
    with layer_scope(None, name or "flatten"):
        if data_format == "channels_first" and x.ndim > 1:
            x = jnp.moveaxis(x, 1, -1)
        with arithmetic("flatten", x):
            return x.reshape(x.shape[0], math.prod(x.shape[1:]))
