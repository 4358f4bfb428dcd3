"""The layer classes of `tf.layers`, but for the convolutions.

Each computes by the function of its name, so that there is one text of what a layer does. Its arguments are fields, in
TF1's order and under its names, which are the names of TF1's attributes too: `layer.units`, `layer.filters`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

import jscope as js

from . import core, normalization, pooling
from .by_name import Activation, Regularizer
from .faults import as_array, bad_argument
from .layer import Layer
from .scopes import Here

# Values, as the defaults in TF1's signatures.
ZEROS = js.zeros_initializer()
ONES = js.ones_initializer()


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class OfFunction(Layer):
    """A layer that computes by a function of this room, which it gives its fields as arguments."""

    function: ClassVar[Callable[..., jax.Array]]
    made: ClassVar[tuple[str, ...]] = ("kernel", "bias")  # names of variables, which become attributes

    dtype: Any = None
    _scope: str | js.VariableScope | None = None
    _reuse: Any = None

    def __post_init__(self) -> None:
        super().__init__(self.trainable, self.name, self.dtype, _scope=self._scope, _reuse=self._reuse)

    def call(self, inputs: Any, *args: Any, **at_call: Any) -> jax.Array:
        """What the function gives, in the scope of the layer."""
        x = self._of_own_dtype(as_array(inputs, type(self).__name__))
        # Kept by the run, as all that a call sets on the copy that it works on.
        here = vars(self).setdefault("_here", Here()) if self._kept_by else Here()
        return type(self).function(x, *args, **self._arguments(), **at_call, name=here)

    def __getattr__(self, name: str) -> Any:
        if name not in type(self).made:
            return super().__getattr__(name)
        here = getattr(self, "_here", None)
        if here is not None and name in here:
            return here[name].again()
        raise AttributeError(
            f"{type(self).__name__!r} has no attribute {name!r}. This class makes its variables in call(), where it "
            "computes, not in build(): they are attributes after super().call(inputs), or after the first call of the "
            "layer, in the program that called it."
        )

    def _arguments(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _OF_THE_LAYER}

    def _of_own_dtype(self, x: jax.Array) -> jax.Array:
        if x.dtype != self.dtype:
            raise bad_argument(
                f"The layer has dtype {self.dtype}, and its inputs {x.dtype}.",
                asked=type(self).__name__,
                fix="convert the inputs, or leave dtype= out: the layer then takes theirs",
            )
        return x


_OF_THE_LAYER = {"name", *(field.name for field in dataclasses.fields(OfFunction))}


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class _WithoutVariables(OfFunction):
    """The same for a function that takes no `trainable`."""

    trainable: bool | None = None

    def _arguments(self) -> dict[str, Any]:
        return {name: value for name, value in super()._arguments().items() if name != "trainable"}

    def _of_own_dtype(self, x: jax.Array) -> jax.Array:
        return x


@dataclasses.dataclass(eq=False, repr=False)
class Dense(OfFunction):
    """A densely connected layer, as `dense`. TF1: `tf.layers.Dense`. Haiku: `hk.Linear`; Flax: `nn.Dense`.

    Default scope `dense`; variables `kernel` and `bias`, made at the first call and shared at every later one.

    Args:
      units: size of the last dimension of the output.
      activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
        activity_regularizer, kernel_constraint, bias_constraint: as in `dense`.
      trainable, name, _scope, _reuse: as in `Layer`.
      dtype: the inputs are converted to it.

    Example:
      >>> from jscope.layers import Dense
      >>> encode = Dense(4, name="encode")
      >>> def autoencoder(x):
      ...     return encode(x) @ encode.kernel.T
      >>> js.transform(autoencoder).init(jax.random.key(0), jnp.ones((2, 3)))
      Params({encode: {bias: f32[4], kernel: f32[3,4]}})
    """

    function = staticmethod(core.dense)

    units: int
    activation: Activation | str | None = None
    use_bias: bool = True
    kernel_initializer: Any = None
    bias_initializer: Any = ZEROS
    kernel_regularizer: Regularizer | str | None = None
    bias_regularizer: Regularizer | str | None = None
    activity_regularizer: None = None
    kernel_constraint: Any = None
    bias_constraint: Any = None
    trainable: bool | None = None
    name: str | None = None

    def _of_own_dtype(self, x: jax.Array) -> jax.Array:
        return jnp.asarray(x, self.dtype)


@dataclasses.dataclass(eq=False, repr=False)
class BatchNormalization(OfFunction):
    """Each channel made of mean 0 and variance 1, as `batch_normalization`. TF1: `tf.layers.BatchNormalization`.

    Default scope `batch_normalization`; variables `gamma`, `beta`, `moving_mean` and `moving_variance`, made at the
    first call and shared at every later one. Called with `training=True` it moves the last two at once, so run the
    program by `net.update`; `layer.updates` lists them.

    Args:
      axis, momentum, epsilon, center, scale, beta_initializer, gamma_initializer, moving_mean_initializer,
        moving_variance_initializer, beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint, renorm,
        renorm_clipping, renorm_momentum, fused, virtual_batch_size, adjustment: as in `batch_normalization`.
      trainable, name, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import BatchNormalization
      >>> norm = BatchNormalization(momentum=0.5)
      >>> net = js.transform(lambda x, training: norm(x, training=training))
      >>> x = jnp.array([[1.0], [3.0]])
      >>> params = net.init(jax.random.key(0), x, True)
      >>> net.update(params, x, True)[1]["batch_normalization/moving_mean"].tolist()
      [1.0]
    """

    function = staticmethod(normalization.batch_normalization)
    made = ("gamma", "beta", "moving_mean", "moving_variance")

    axis: Any = -1
    momentum: Any = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    beta_initializer: Any = ZEROS
    gamma_initializer: Any = ONES
    moving_mean_initializer: Any = ZEROS
    moving_variance_initializer: Any = ONES
    beta_regularizer: Regularizer | str | None = None
    gamma_regularizer: Regularizer | str | None = None
    beta_constraint: Any = None
    gamma_constraint: Any = None
    renorm: bool = False
    renorm_clipping: None = None
    renorm_momentum: float = 0.99
    fused: bool | None = None
    trainable: bool | None = None
    virtual_batch_size: None = None
    adjustment: None = None
    name: str | None = None

    def call(self, inputs: Any, training: Any = False) -> jax.Array:
        """What `batch_normalization` gives.

        Args:
          inputs: as there.
          training: a bool, or a scalar array of bool.
        """
        return super().call(inputs, training=training)


@dataclasses.dataclass(eq=False, repr=False)
class Dropout(_WithoutVariables):
    """Sets elements to zero at random, as `dropout`. TF1: `tf.layers.Dropout`.

    Default scope `dropout`; no variables. Call it with `training=True` to drop, in a run that is given `rng=`.

    Args:
      rate, noise_shape, seed: as in `dropout`.
      name, trainable, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import Dropout
      >>> net = js.transform(lambda x, training: Dropout(0.75)(x, training=training))
      >>> net.apply({}, jnp.ones(4), False).tolist()
      [1.0, 1.0, 1.0, 1.0]
      >>> sorted(set(net.apply({}, jnp.ones(99), True, rng=jax.random.key(0)).tolist()))
      [0.0, 4.0]
    """

    function = staticmethod(core.dropout)

    rate: Any = 0.5
    noise_shape: Any = None
    seed: int | None = None
    name: str | None = None

    def call(self, inputs: Any, training: Any = False) -> jax.Array:
        """What `dropout` gives.

        Args:
          inputs: as there.
          training: a bool, or a scalar array of bool.
        """
        return super().call(inputs, training=training)


@dataclasses.dataclass(eq=False, repr=False)
class Flatten(_WithoutVariables):
    """All dimensions but the first made one, as `flatten`. TF1: `tf.layers.Flatten`.

    Default scope `flatten`; no variables.

    Args:
      data_format: None for "channels_last".
      name, trainable, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import Flatten
      >>> js.transform(Flatten()).apply({}, jnp.ones((2, 3, 4))).shape
      (2, 12)
    """

    function = staticmethod(core.flatten)

    data_format: str | None = None
    name: str | None = dataclasses.field(default=None, kw_only=True)

    def _arguments(self) -> dict[str, Any]:
        return {"data_format": self.data_format or "channels_last"}


@dataclasses.dataclass(eq=False, repr=False)
class _Pooling(_WithoutVariables):
    """The arguments of the poolings."""

    pool_size: Any
    strides: Any
    padding: str = "valid"
    data_format: str = "channels_last"
    name: str | None = None


@dataclasses.dataclass(eq=False, repr=False)
class MaxPooling1D(_Pooling):
    """The maximum of each window over one dimension, as `max_pooling1d`. TF1: `tf.layers.MaxPooling1D`.

    Default scope `max_pooling1d`; no variables.

    Args:
      pool_size, strides, padding, data_format: as in `max_pooling1d`.
      name, trainable, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import MaxPooling1D
      >>> js.transform(MaxPooling1D(2, 2)).apply({}, jnp.ones((2, 8, 3))).shape
      (2, 4, 3)
    """

    function = staticmethod(pooling.max_pooling1d)


@dataclasses.dataclass(eq=False, repr=False)
class MaxPooling2D(_Pooling):
    """The maximum of each window over two dimensions, as `max_pooling2d`. TF1: `tf.layers.MaxPooling2D`.

    Default scope `max_pooling2d`; no variables.

    Args:
      pool_size, strides, padding, data_format: as in `max_pooling2d`.
      name, trainable, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import MaxPooling2D
      >>> js.transform(MaxPooling2D(2, 2)).apply({}, jnp.ones((2, 8, 8, 3))).shape
      (2, 4, 4, 3)
    """

    function = staticmethod(pooling.max_pooling2d)


@dataclasses.dataclass(eq=False, repr=False)
class MaxPooling3D(_Pooling):
    """The maximum of each window over three dimensions, as `max_pooling3d`. TF1: `tf.layers.MaxPooling3D`.

    Default scope `max_pooling3d`; no variables.

    Args:
      pool_size, strides, padding, data_format: as in `max_pooling3d`.
      name, trainable, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import MaxPooling3D
      >>> js.transform(MaxPooling3D(2, 2)).apply({}, jnp.ones((2, 4, 4, 4, 3))).shape
      (2, 2, 2, 2, 3)
    """

    function = staticmethod(pooling.max_pooling3d)


@dataclasses.dataclass(eq=False, repr=False)
class AveragePooling1D(_Pooling):
    """The average of each window over one dimension, as `average_pooling1d`. TF1: `tf.layers.AveragePooling1D`.

    Default scope `average_pooling1d`; no variables.

    Args:
      pool_size, strides, padding, data_format: as in `average_pooling1d`.
      name, trainable, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import AveragePooling1D
      >>> js.transform(AveragePooling1D(2, 2)).apply({}, jnp.ones((2, 8, 3))).shape
      (2, 4, 3)
    """

    function = staticmethod(pooling.average_pooling1d)


@dataclasses.dataclass(eq=False, repr=False)
class AveragePooling2D(_Pooling):
    """The average of each window over two dimensions, as `average_pooling2d`. TF1: `tf.layers.AveragePooling2D`.

    Default scope `average_pooling2d`; no variables.

    Args:
      pool_size, strides, padding, data_format: as in `average_pooling2d`.
      name, trainable, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import AveragePooling2D
      >>> js.transform(AveragePooling2D(2, 2)).apply({}, jnp.ones((2, 8, 8, 3))).shape
      (2, 4, 4, 3)
    """

    function = staticmethod(pooling.average_pooling2d)


@dataclasses.dataclass(eq=False, repr=False)
class AveragePooling3D(_Pooling):
    """The average of each window over three dimensions, as `average_pooling3d`. TF1: `tf.layers.AveragePooling3D`.

    Default scope `average_pooling3d`; no variables.

    Args:
      pool_size, strides, padding, data_format: as in `average_pooling3d`.
      name, trainable, dtype, _scope, _reuse: as in `Layer`.

    Example:
      >>> from jscope.layers import AveragePooling3D
      >>> js.transform(AveragePooling3D(2, 2)).apply({}, jnp.ones((2, 4, 4, 4, 3))).shape
      (2, 2, 2, 2, 3)
    """

    function = staticmethod(pooling.average_pooling3d)
