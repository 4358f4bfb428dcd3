"""The convolutions of `tf.contrib.layers`, the transposed ones among them."""

from __future__ import annotations

from typing import Any

import jax

import jscope as js

from ..by_name import Activation, Regularizer
from ..convolution import conv_layer
from ..families import member
from ..faults import as_input, as_size, bad_argument
from ..scopes import options
from ..windows import windows
from .collections import WEIGHTS, collect_weights, finish
from .initializers import xavier_initializer

# For each number of spatial dimensions, what TF1 calls channels last and channels first.
FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}


def layers_format(data_format: str | None, n: int, asked: str) -> str:
    """The name that `tf.layers` has for a data format.

    Raises:
      BadArgumentError: for one that inputs of `n` spatial dimensions can't have.
    """
    last, first = FORMATS[n]
    if data_format not in (None, last, first):
        raise bad_argument(
            f"data_format={data_format!r} means nothing for {n} spatial dimensions.",
            asked=asked,
            fix=f"give {last!r} or {first!r}",
        )
    return "channels_first" if data_format == first else "channels_last"


def _convolved(
    asked: str,
    default_scope: str,
    n: int | None,
    *,
    inputs: Any,
    num_outputs: int,
    kernel_size: Any,
    stride: Any,
    padding: str,
    data_format: str | None,
    rate: Any = 1,
    activation_fn: Activation | None,
    normalizer_fn: Any,
    normalizer_params: dict[str, Any] | None,
    weights_initializer: Any,
    weights_regularizer: Regularizer | str | None,
    biases_initializer: Any,
    biases_regularizer: Regularizer | str | None,
    reuse: Any,
    variables_collections: Any,
    outputs_collections: Any,
    trainable: bool | None,
    scope: Any,
    transposed: bool = False,
) -> jax.Array:
    """What all convolutions do; `asked` is the public name, `n` how many spatial dimensions there must be."""
    x = as_input(inputs, asked, (3, 4, 5) if n is None else (n + 2,))
    n = x.ndim - 2
    num_outputs = as_size(num_outputs, "num_outputs", asked)
    how = windows(
        f"conv{n}d_transpose" if transposed else f"conv{n}d",
        n,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        data_format=layers_format(data_format, n, asked),
        dilation_rate=rate,
        causal=n == 1,
    )
    with js.variable_scope(scope, default_scope, [inputs], reuse=reuse, custom_getter=WEIGHTS) as entered:
        outputs, variables = conv_layer(
            how,
            inputs=x,
            filters=num_outputs,
            activation=None,
            use_bias=not normalizer_fn and biases_initializer is not None,
            kernel=options(weights_initializer, weights_regularizer),
            bias=options(biases_initializer, biases_regularizer),
            trainable=trainable,
            name=entered,
            reuse=reuse,
            transposed=transposed,
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
    weights_regularizer: Regularizer | str | None = None,
    biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
    biases_regularizer: Regularizer | str | None = None,
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
      weights_initializer, biases_initializer: default xavier and zeros, or names in Keras; biases None for no biases.
      weights_regularizer, biases_regularizer: callables from value to scalar loss, or names in Keras.
      reuse: as in `js.variable_scope`; needs a scope.
      variables_collections: more collections for the variables: a name, a list, or a dict by "weights" and "biases".
      outputs_collections: a collection or a list of them, to which the output is added.
      trainable: whether the variables are trainable; default as the scope says.
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
    return _convolved(
        "convolution",
        "Conv",
        None if conv_dims is None else as_size(conv_dims, "conv_dims", "convolution"),
        inputs=inputs,
        num_outputs=num_outputs,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        data_format=data_format,
        rate=rate,
        activation_fn=activation_fn,
        normalizer_fn=normalizer_fn,
        normalizer_params=normalizer_params,
        weights_initializer=weights_initializer,
        weights_regularizer=weights_regularizer,
        biases_initializer=biases_initializer,
        biases_regularizer=biases_regularizer,
        reuse=reuse,
        variables_collections=variables_collections,
        outputs_collections=outputs_collections,
        trainable=trainable,
        scope=scope,
    )


def _convolution(asked: str, n: int):
    @js.add_arg_scope
    def convolution_of(
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
        weights_initializer: Any = xavier_initializer(),  # noqa: B008
        weights_regularizer: Regularizer | str | None = None,
        biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
        biases_regularizer: Regularizer | str | None = None,
        reuse: Any = None,
        variables_collections: Any = None,
        outputs_collections: Any = None,
        trainable: bool | None = None,
        scope: Any = None,
    ) -> jax.Array:
        """A convolution over $dimensions. TF1: `tf.contrib.layers.$name`, `slim.$name`.

        Default scope `Conv`; variables `weights` of shape [*kernel_size, channels, num_outputs] and, without a
        normalizer, `biases` of shape [num_outputs], all of them model variables.

        Args:
          inputs: shape $channels_last or, with the channels first, $channels_first; floating.
          data_format: None or "$last"; "$first" for channels first.
          num_outputs, kernel_size, stride, padding, rate, activation_fn, normalizer_fn, normalizer_params,
            weights_initializer, weights_regularizer, biases_initializer, biases_regularizer, reuse,
            variables_collections, outputs_collections, trainable, scope: as in `convolution`.

        Returns:
          Shape [batch, $new, num_outputs], or with the channels first; the inputs' dtype.

        Raises:
          BadArgumentError: for arguments that mean nothing.
          JscopeError: as `js.get_variable`.

        Example:
          >>> from jscope.layers.contrib import $name
          >>> net = js.transform(lambda x: $name(x, 4, 3, stride=2, scope="c"))
          >>> x = jnp.ones((2, $eights, 5))
          >>> net.init(jax.random.key(0), x)
          Params({c: {biases: f32[4], weights: f32[$threes,5,4]}})
          >>> net.apply(net.init(jax.random.key(0), x), x).shape
          (2, $fours, 4)
        """
        return _convolved(
            asked,
            "Conv",
            n,
            inputs=inputs,
            num_outputs=num_outputs,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            data_format=data_format,
            rate=rate,
            activation_fn=activation_fn,
            normalizer_fn=normalizer_fn,
            normalizer_params=normalizer_params,
            weights_initializer=weights_initializer,
            weights_regularizer=weights_regularizer,
            biases_initializer=biases_initializer,
            biases_regularizer=biases_regularizer,
            reuse=reuse,
            variables_collections=variables_collections,
            outputs_collections=outputs_collections,
            trainable=trainable,
            scope=scope,
        )

    last, first = FORMATS[n]
    return member(convolution_of, asked, n, last=last, first=first)


def _transposed_convolution(asked: str, n: int):
    last, first = FORMATS[n]
    default_scope = asked.capitalize()

    @js.add_arg_scope
    def transposed_convolution(
        inputs: Any,
        num_outputs: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: str = "SAME",
        data_format: str | None = last,
        activation_fn: Activation | None = jax.nn.relu,
        normalizer_fn: Any = None,
        normalizer_params: dict[str, Any] | None = None,
        weights_initializer: Any = xavier_initializer(),  # noqa: B008
        weights_regularizer: Regularizer | str | None = None,
        biases_initializer: Any = js.zeros_initializer(),  # noqa: B008
        biases_regularizer: Regularizer | str | None = None,
        reuse: Any = None,
        variables_collections: Any = None,
        outputs_collections: Any = None,
        trainable: bool | None = None,
        scope: Any = None,
    ) -> jax.Array:
        """A transposed convolution over $dimensions, which makes images larger.

        TF1: `tf.contrib.layers.$name`, `slim.$name`. Default scope `$scope`; variables `weights` of shape
        [*kernel_size, num_outputs, channels] and, without a normalizer, `biases` of shape [num_outputs], all of them
        model variables.

        Args:
          inputs: shape $channels_last or, with the channels first, $channels_first; floating.
          data_format: "$last"; "$first" for channels first.
          num_outputs, kernel_size, stride, padding, activation_fn, normalizer_fn, normalizer_params,
            weights_initializer, weights_regularizer, biases_initializer, biases_regularizer, reuse,
            variables_collections, outputs_collections, trainable, scope: as in `convolution`.

        Returns:
          Shape [batch, $new, num_outputs], or with the channels first; the inputs' dtype.

        Raises:
          BadArgumentError: for arguments that mean nothing.
          JscopeError: as `js.get_variable`.

        Example:
          >>> from jscope.layers.contrib import $name
          >>> net = js.transform(lambda x: $name(x, 4, 3, stride=2, scope="c"))
          >>> x = jnp.ones((2, $eights, 5))
          >>> net.init(jax.random.key(0), x)
          Params({c: {biases: f32[4], weights: f32[$threes,4,5]}})
          >>> net.apply(net.init(jax.random.key(0), x), x).shape
          (2, $sixteens, 4)
        """
        return _convolved(
            asked,
            default_scope,
            n,
            inputs=inputs,
            num_outputs=num_outputs,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            data_format=data_format,
            activation_fn=activation_fn,
            normalizer_fn=normalizer_fn,
            normalizer_params=normalizer_params,
            weights_initializer=weights_initializer,
            weights_regularizer=weights_regularizer,
            biases_initializer=biases_initializer,
            biases_regularizer=biases_regularizer,
            reuse=reuse,
            variables_collections=variables_collections,
            outputs_collections=outputs_collections,
            trainable=trainable,
            scope=scope,
            transposed=True,
        )

    return member(transposed_convolution, asked, n, last=last, first=first, scope=default_scope)


conv1d = _convolution("conv1d", 1)
conv2d = _convolution("conv2d", 2)
conv3d = _convolution("conv3d", 3)
conv2d_transpose = _transposed_convolution("conv2d_transpose", 2)
conv3d_transpose = _transposed_convolution("conv3d_transpose", 3)
