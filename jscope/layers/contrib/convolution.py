"""The convolutions of `tf.contrib.layers`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

from ..convolution import conv_layer
from ..core import Activation
from ..faults import bad_argument, check_rank
from ..scopes import Regularizer
from .collections import WEIGHTS, collect_weights, finish
from .initializers import xavier_initializer

_FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}


def layers_format(data_format: str | None, n: int, asked: str) -> str:
    """The name that `tf.layers` has for a data format.

    Raises:
      BadArgumentError: for one that inputs of `n` spatial dimensions can't have.
    """
    last, first = _FORMATS[n]
    if data_format not in (None, last, first):
        raise bad_argument(
            f"data_format={data_format!r} means nothing for {n} spatial dimensions.",
            asked=asked,
            fix=f"give {last!r} or {first!r}",
        )
    return "channels_first" if data_format == first else "channels_last"


def contrib_convolution(
    asked: str,
    default_scope: str,
    n: int | None,
    inputs: Any,
    num_outputs: int,
    kernel_size: Any,
    stride: Any,
    padding: str,
    data_format: str | None,
    rate: Any,
    activation_fn: Activation | None,
    normalizer_fn: Any,
    normalizer_params: dict[str, Any] | None,
    weights_initializer: Any,
    weights_regularizer: Regularizer | None,
    biases_initializer: Any,
    biases_regularizer: Regularizer | None,
    reuse: Any,
    variables_collections: Any,
    outputs_collections: Any,
    trainable: bool | None,
    scope: Any,
    transposed: bool = False,
) -> jax.Array:
    """What all convolutions do; `asked` is the public name, `n` how many spatial dimensions there must be."""
    x = jnp.asarray(inputs)
    check_rank(x, (3, 4, 5) if n is None else (n + 2,), asked)
    n = x.ndim - 2
    with js.variable_scope(scope, default_scope, [inputs], reuse=reuse, custom_getter=WEIGHTS) as entered:
        outputs, variables = conv_layer(
            f"conv{n}d_transpose" if transposed else f"conv{n}d",
            n,
            x,
            num_outputs,
            kernel_size,
            stride,
            padding,
            layers_format(data_format, n, asked),
            rate,
            None,
            use_bias=not normalizer_fn and biases_initializer is not None,
            kernel={"initializer": weights_initializer, "regularizer": weights_regularizer},
            bias={"initializer": biases_initializer, "regularizer": biases_regularizer},
            trainable=trainable,
            name=entered,
            reuse=reuse,
            transposed=transposed,
        )
        collect_weights(variables, variables_collections)
        return finish(outputs, normalizer_fn, normalizer_params, activation_fn, outputs_collections)


@js.add_arg_scope
def convolution(
    inputs: Any,
    num_outputs: int,
    kernel_size: Any,
    stride: Any = 1,
    padding: str = "SAME",
    data_format: str | None = None,
    rate: Any = 1,
    activation_fn: Activation | None = jax.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: dict[str, Any] | None = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    weights_regularizer: Regularizer | None = None,
    biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
    biases_regularizer: Regularizer | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    scope: Any = None,
    conv_dims: int | None = None,
) -> jax.Array:
    """A convolution over one, two or three dimensions, as the inputs have. TF1: `tf.contrib.layers.convolution`.

    Default scope `Conv`; variables `weights` of shape [*kernel_size, channels, num_outputs] and, without a normalizer,
    `biases` of shape [num_outputs], all of them model variables.

    Args:
      inputs: shape [batch, *spatial, channels] or, with the channels first, [batch, channels, *spatial]; floating.
      num_outputs: the number of channels of the output.
      kernel_size: the size of the window: an integer, or one for each spatial dimension.
      stride: by how much the window is moved: an integer, or one for each spatial dimension.
      padding: "SAME" or "VALID", in any case.
      data_format: None for channels last; "NWC", "NHWC" or "NDHWC" for the same; "NCW", "NCHW" or "NCDHW".
      rate: the distance of the elements in the window; above 1 only where the strides are 1.
      activation_fn: a function of the output, default relu; None for none.
      normalizer_fn: called on the output, with `normalizer_params`, in the place of biases; such as `batch_norm`.
      normalizer_params: its keyword arguments.
      weights_initializer, biases_initializer: default xavier and zeros; biases None for no biases.
      weights_regularizer, biases_regularizer: callables from value to scalar loss.
      reuse: as in `js.variable_scope`; needs a scope.
      variables_collections: more collections for the variables: a list, or a dict of lists by "weights" and "biases".
      outputs_collections: a collection or a list of them, to which the output is added.
      trainable: whether the variables are trainable; default as the scope says (`js.variable_scope(trainable=)`).
      scope: the scope's name, or a scope object; None for the default name, made unique.
      conv_dims: the number of spatial dimensions that the inputs must have.

    Returns:
      Shape [batch, *new spatial, num_outputs], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import convolution
      >>> net = js.transform(lambda x: convolution(x, 4, [3, 1], stride=2))
      >>> x = jnp.ones((2, 8, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({Conv: {biases: f32[4], weights: f32[3,1,5,4]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 4, 4, 4)
    """
    return contrib_convolution(
        "convolution",
        "Conv",
        conv_dims,
        inputs,
        num_outputs,
        kernel_size,
        stride,
        padding,
        data_format,
        rate,
        activation_fn,
        normalizer_fn,
        normalizer_params,
        weights_initializer,
        weights_regularizer,
        biases_initializer,
        biases_regularizer,
        reuse,
        variables_collections,
        outputs_collections,
        trainable,
        scope,
    )


@js.add_arg_scope
def conv1d(
    inputs: Any,
    num_outputs: int,
    kernel_size: Any,
    stride: Any = 1,
    padding: str = "SAME",
    data_format: str | None = None,
    rate: Any = 1,
    activation_fn: Activation | None = jax.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: dict[str, Any] | None = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    weights_regularizer: Regularizer | None = None,
    biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
    biases_regularizer: Regularizer | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    scope: Any = None,
) -> jax.Array:
    """A convolution over one dimension. TF1: `tf.contrib.layers.conv1d`, `slim.conv1d`.

    Default scope `Conv`; variables `weights` of shape [*kernel_size, channels, num_outputs] and, without a
    normalizer, `biases` of shape [num_outputs], all of them model variables.

    Args:
      inputs: shape [batch, length, channels] or, with the channels first, [batch, channels, length]; floating.
      data_format: None or "NWC"; "NCW" for channels first.
      num_outputs, kernel_size, stride, padding, rate, activation_fn, normalizer_fn, normalizer_params,
        weights_initializer, weights_regularizer, biases_initializer, biases_regularizer, reuse, variables_collections,
        outputs_collections, trainable, scope: as in `convolution`.

    Returns:
      Shape [batch, new length, num_outputs], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import conv1d
      >>> net = js.transform(lambda x: conv1d(x, 4, 3, stride=2, scope="c"))
      >>> x = jnp.ones((2, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({c: {biases: f32[4], weights: f32[3,5,4]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 4, 4)
    """
    return contrib_convolution(
        "conv1d",
        "Conv",
        1,
        inputs,
        num_outputs,
        kernel_size,
        stride,
        padding,
        data_format,
        rate,
        activation_fn,
        normalizer_fn,
        normalizer_params,
        weights_initializer,
        weights_regularizer,
        biases_initializer,
        biases_regularizer,
        reuse,
        variables_collections,
        outputs_collections,
        trainable,
        scope,
    )


@js.add_arg_scope
def conv2d(
    inputs: Any,
    num_outputs: int,
    kernel_size: Any,
    stride: Any = 1,
    padding: str = "SAME",
    data_format: str | None = None,
    rate: Any = 1,
    activation_fn: Activation | None = jax.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: dict[str, Any] | None = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    weights_regularizer: Regularizer | None = None,
    biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
    biases_regularizer: Regularizer | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    scope: Any = None,
) -> jax.Array:
    """A convolution over two dimensions. TF1: `tf.contrib.layers.conv2d`, `slim.conv2d`.

    Default scope `Conv`; variables `weights` of shape [*kernel_size, channels, num_outputs] and, without a
    normalizer, `biases` of shape [num_outputs], all of them model variables.

    Args:
      inputs: shape [batch, height, width, channels] or, with the channels first, [batch, channels, height, width];
        floating.
      data_format: None or "NHWC"; "NCHW" for channels first.
      num_outputs, kernel_size, stride, padding, rate, activation_fn, normalizer_fn, normalizer_params,
        weights_initializer, weights_regularizer, biases_initializer, biases_regularizer, reuse, variables_collections,
        outputs_collections, trainable, scope: as in `convolution`.

    Returns:
      Shape [batch, new height, new width, num_outputs], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import conv2d
      >>> net = js.transform(lambda x: conv2d(x, 4, 3, stride=2, scope="c"))
      >>> x = jnp.ones((2, 8, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({c: {biases: f32[4], weights: f32[3,3,5,4]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 4, 4, 4)
    """
    return contrib_convolution(
        "conv2d",
        "Conv",
        2,
        inputs,
        num_outputs,
        kernel_size,
        stride,
        padding,
        data_format,
        rate,
        activation_fn,
        normalizer_fn,
        normalizer_params,
        weights_initializer,
        weights_regularizer,
        biases_initializer,
        biases_regularizer,
        reuse,
        variables_collections,
        outputs_collections,
        trainable,
        scope,
    )


@js.add_arg_scope
def conv3d(
    inputs: Any,
    num_outputs: int,
    kernel_size: Any,
    stride: Any = 1,
    padding: str = "SAME",
    data_format: str | None = None,
    rate: Any = 1,
    activation_fn: Activation | None = jax.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: dict[str, Any] | None = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    weights_regularizer: Regularizer | None = None,
    biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
    biases_regularizer: Regularizer | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    scope: Any = None,
) -> jax.Array:
    """A convolution over three dimensions. TF1: `tf.contrib.layers.conv3d`, `slim.conv3d`.

    Default scope `Conv`; variables `weights` of shape [*kernel_size, channels, num_outputs] and, without a
    normalizer, `biases` of shape [num_outputs], all of them model variables.

    Args:
      inputs: shape [batch, depth, height, width, channels] or, with the channels first, [batch, channels, depth,
        height, width]; floating.
      data_format: None or "NDHWC"; "NCDHW" for channels first.
      num_outputs, kernel_size, stride, padding, rate, activation_fn, normalizer_fn, normalizer_params,
        weights_initializer, weights_regularizer, biases_initializer, biases_regularizer, reuse, variables_collections,
        outputs_collections, trainable, scope: as in `convolution`.

    Returns:
      Shape [batch, new depth, new height, new width, num_outputs], or with the channels first; the inputs' dtype.

    Raises:
      BadArgumentError: for arguments that mean nothing.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import conv3d
      >>> net = js.transform(lambda x: conv3d(x, 4, 3, stride=2, scope="c"))
      >>> x = jnp.ones((2, 8, 8, 8, 5))
      >>> net.init(jax.random.key(0), x)
      Params({c: {biases: f32[4], weights: f32[3,3,3,5,4]}})
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 4, 4, 4, 4)
    """
    return contrib_convolution(
        "conv3d",
        "Conv",
        3,
        inputs,
        num_outputs,
        kernel_size,
        stride,
        padding,
        data_format,
        rate,
        activation_fn,
        normalizer_fn,
        normalizer_params,
        weights_initializer,
        weights_regularizer,
        biases_initializer,
        biases_regularizer,
        reuse,
        variables_collections,
        outputs_collections,
        trainable,
        scope,
    )
