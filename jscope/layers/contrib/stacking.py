"""`repeat` and `stack` of `tf.contrib.layers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

import jscope as js

from ..faults import as_whole, bad_argument

# The names that these layers have in TensorFlow, which become names of scopes.
_LONG_NAMES = {
    "conv1d": "convolution1d",
    "conv2d": "convolution2d",
    "conv3d": "convolution3d",
    "conv2d_transpose": "convolution2d_transpose",
    "conv3d_transpose": "convolution3d_transpose",
    "separable_conv2d": "separable_convolution2d",
}


def _scope_of(layer: Callable[..., jax.Array], default: str) -> str:
    name = getattr(layer, "__name__", default)
    return _LONG_NAMES.get(name, name)


@js.add_arg_scope
def repeat(
    inputs: Any, repetitions: int, layer: Callable[..., jax.Array], *args: Any, scope: Any = None, **kwargs: Any
) -> jax.Array:
    """A layer several times, one after the other, each with variables of its own.

    TF1: `tf.contrib.layers.repeat`, `slim.repeat`. Scopes: `SCOPE/SCOPE_1`, `SCOPE/SCOPE_2`, ...; without a scope
    `Repeat/LAYER_1`, ..., with the name of the layer in TensorFlow.

    Args:
      inputs: of the first layer.
      repetitions: how often.
      layer: a function that takes inputs and `scope=`.
      *args, **kwargs: its further arguments.
      scope: the scope's name.

    Returns:
      The output of the last layer.

    Raises:
      BadArgumentError: for a number of repetitions that is no integer.

    Example:
      >>> from jscope.layers.contrib import conv2d, repeat
      >>> net = js.transform(lambda x: repeat(x, 2, conv2d, 4, 3, scope="conv1", biases_initializer=None))
      >>> list(net.specs(jnp.ones((1, 8, 8, 3))))
      ['conv1/conv1_1/weights', 'conv1/conv1_2/weights']
    """
    repetitions = as_whole(repetitions, "repetitions", "repeat")
    with js.variable_scope(scope, "Repeat", [inputs]):
        base = _scope_of(layer, "repeat") if scope is None else scope
        for number in range(1, repetitions + 1):
            inputs = layer(inputs, *args, scope=f"{base}_{number}", **kwargs)
        return inputs


@js.add_arg_scope
def stack(
    inputs: Any, layer: Callable[..., jax.Array], stack_args: Sequence[Any], scope: Any = None, **kwargs: Any
) -> jax.Array:
    """A layer several times, one after the other, with other arguments each time.

    TF1: `tf.contrib.layers.stack`, `slim.stack`. Scopes: `SCOPE/SCOPE_1`, `SCOPE/SCOPE_2`, ...; without a scope
    `Stack/LAYER_1`, ..., with the name of the layer in TensorFlow.

    Args:
      inputs: of the first layer.
      layer: a function that takes inputs and `scope=`.
      stack_args: for each time, its further argument, or a list or tuple of them.
      scope: the scope's name.
      **kwargs: arguments that are the same each time.

    Returns:
      The output of the last layer.

    Raises:
      BadArgumentError: for `stack_args` that is no list.

    Example:
      >>> from jscope.layers.contrib import fully_connected, stack
      >>> net = js.transform(lambda x: stack(x, fully_connected, [4, 2], biases_initializer=None))
      >>> list(net.specs(jnp.ones((1, 3))))
      ['Stack/fully_connected_1/weights', 'Stack/fully_connected_2/weights']
    """
    if not isinstance(stack_args, Iterable) or isinstance(stack_args, str):
        fix = "give a list with the further argument of each call, such as [32, 32]"
        raise bad_argument(f"stack_args={stack_args!r:.80} is no list.", asked="stack", fix=fix)
    with js.variable_scope(scope, "Stack", [inputs]):
        base = _scope_of(layer, "stack") if scope is None else scope
        for number, further in enumerate(stack_args, start=1):
            args = further if isinstance(further, list | tuple) else [further]
            inputs = layer(inputs, *args, scope=f"{base}_{number}", **kwargs)
        return inputs
