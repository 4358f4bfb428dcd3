"""`separable_conv2d` of `tf.contrib.layers`."""

from __future__ import annotations

from typing import Any

import jax

import jscope as js

from ..by_name import Activation, Regularizer
from ..faults import as_input, as_size
from ..scopes import options
from ..separable import depthwise, separable_layer
from ..windows import add_bias, windows
from .collections import collect_weights, collections_for, finish, model_getter, model_variable
from .convolution import layers_format
from .initializers import xavier_initializer

_GETTER = model_getter(
    {"bias": "biases", "depthwise_kernel": "depthwise_weights", "pointwise_kernel": "pointwise_weights"}
)


@js.add_arg_scope
def separable_conv2d(
    inputs: Any,
    num_outputs: int | None,
    kernel_size: Any,
    depth_multiplier: int = 1,
    stride: Any = 1,
    padding: str = "SAME",
    data_format: str = "NHWC",
    rate: Any = 1,
    activation_fn: Activation | None = jax.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: dict[str, Any] | None = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008 (a frozen value, as in TF1's signature)
    pointwise_initializer: Any = None,
    weights_regularizer: Regularizer | str | None = None,
    biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
    biases_regularizer: Regularizer | str | None = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool | None = None,
    scope: Any = None,
) -> jax.Array:
    """A convolution of each channel by itself, then one over the channels of each point.

    TF1: `tf.contrib.layers.separable_conv2d`, `slim.separable_conv2d`. Default scope `SeparableConv2d`; variables
    `depthwise_weights` of shape [*kernel_size, channels, depth_multiplier], `pointwise_weights` of shape
    [1, 1, channels * depth_multiplier, num_outputs] and, without a normalizer, `biases` of shape [num_outputs], all of
    them model variables.

    Args:
      num_outputs: the number of channels of the output; None leaves the second convolution out.
      depth_multiplier: how many channels the first convolution makes of each.
      weights_initializer, pointwise_initializer: of the first and the second convolution; default xavier, and the same.
      inputs, kernel_size, stride, padding, data_format, rate, activation_fn, normalizer_fn, normalizer_params,
        weights_regularizer, biases_initializer, biases_regularizer, reuse, variables_collections, outputs_collections,
        trainable, scope: as in `conv2d`.

    Returns:
      Shape [batch, new height, new width, num_outputs], or with the channels first; the inputs' dtype. Without
      `num_outputs` there are channels * depth_multiplier channels.

    Raises:
      BadArgumentError: for arguments that mean nothing.
      JscopeError: as `js.get_variable`.

    Example:
      >>> from jscope.layers.contrib import separable_conv2d
      >>> net = js.transform(lambda x: separable_conv2d(x, None, 3, 2, scope="s"))
      >>> net.init(jax.random.key(0), jnp.ones((2, 8, 8, 5)))
      Params({s: {biases: f32[10], depthwise_weights: f32[3,3,5,2]}})
    """
    asked = "separable_conv2d"
    x = as_input(inputs, asked, (4,))
    how = windows(
        asked,
        2,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        data_format=layers_format(data_format, 2, asked),
        dilation_rate=rate,
    )
    use_bias = not normalizer_fn and biases_initializer is not None
    depthwise_options = options(weights_initializer, weights_regularizer)
    pointwise = pointwise_initializer if pointwise_initializer is not None else weights_initializer
    bias = options(biases_initializer, biases_regularizer)
    with js.variable_scope(scope, "SeparableConv2d", [inputs], reuse=reuse, custom_getter=_GETTER) as entered:
        if num_outputs is not None:
            num_outputs = as_size(num_outputs, "num_outputs", asked)
            outputs, variables = separable_layer(
                how,
                inputs=x,
                filters=num_outputs,
                depth_multiplier=depth_multiplier,
                activation=None,
                use_bias=use_bias,
                depthwise_kernel=depthwise_options,
                pointwise_kernel=options(pointwise, weights_regularizer),
                bias=bias,
                trainable=trainable,
                name=entered,
                reuse=reuse,
            )
            collect_weights(variables, variables_collections)
        else:
            depth_multiplier = as_size(depth_multiplier, "depth_multiplier", asked)
            shape = [*how.size, how.channels(x), depth_multiplier]
            collections = collections_for(variables_collections, "weights")
            weights = model_variable(
                "depthwise_weights", shape, x.dtype, collections=collections, trainable=trainable, **depthwise_options
            )
            outputs = depthwise(x, weights, how)
            if use_bias:
                shape = [depth_multiplier * how.channels(x)]
                collections = collections_for(variables_collections, "biases")
                biases = model_variable("biases", shape, x.dtype, collections=collections, trainable=trainable, **bias)
                outputs = add_bias(outputs, biases, how)
        return finish(
            outputs,
            normalizer_fn=normalizer_fn,
            normalizer_params=normalizer_params,
            activation_fn=activation_fn,
            outputs_collections=outputs_collections,
        )
