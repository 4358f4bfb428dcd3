"""TensorFlow 1's initializers, by its names and arguments, over `jax.nn.initializers`. Floor 1.

All are values: frozen, comparable, hashable, and called as JAX calls initializers, `init(key, shape, dtype)`.
Any other callable of that form serves as well, `jax.nn.initializers.*` among them.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._callsite import user_line
from ._describe import arguments_text
from ._errors import BadArgumentError, BadInitialValueTypeError, BadTypeError, InitializerError
from ._leaves import check_here
from ._show import short
from ._values import as_initial_value, is_held, is_of_keys, is_small_float, is_traced, single_or_wider

__all__ = [
    "constant_initializer",
    "glorot_normal_initializer",
    "glorot_uniform_initializer",
    "he_normal_initializer",
    "he_uniform_initializer",
    "identity_initializer",
    "lecun_normal_initializer",
    "lecun_uniform_initializer",
    "ones_initializer",
    "orthogonal_initializer",
    "random_normal_initializer",
    "random_uniform_initializer",
    "truncated_normal_initializer",
    "variance_scaling_initializer",
    "zeros_initializer",
]


class Initializer:
    """What the initializers of this module have in common: they are values, and say what is wrong before they draw."""

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Raises what a call with this shape and dtype would raise; makes nothing."""

    # Comparing is done here: generated methods (eq=True) take most of the time in which a dataclass is made.

    def _identity(self) -> tuple[Any, ...]:
        """What makes it equal to another one of its type."""
        return tuple(vars(self).values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Initializer) and type(other) is type(self) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((type(self), self._identity()))

    def __repr__(self) -> str:
        """The call that makes it, without what is as by default; in short where it holds a table."""
        return type(self).__name__ + (arguments_text(type(self), vars(self)) or "()")

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        raise NotImplementedError


class _Random(Initializer):
    """Draws, so only for floating (and complex) dtypes; `seed` is folded into the key."""

    seed: int | None

    def __post_init__(self) -> None:
        if self.seed is not None and not isinstance(self.seed, int | np.integer):
            raise BadTypeError(
                f"{type(self).__name__}: a seed is an integer, not {short(self.seed)}.",
                kind="bad_seed",
                where=user_line(),
                fix="give such as seed=0, or leave it out",
            )

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        # The kind tells most of them apart, and far sooner.
        if getattr(dtype, "kind", "V") not in "fc" and not jnp.issubdtype(dtype, jnp.inexact):
            raise InitializerError(
                f"{type(self).__name__} draws floating numbers, not {jnp.dtype(dtype).name}.",
                kind="init_value",
                where=user_line(),
                fix="ask for a floating dtype, or use zeros_initializer / constant_initializer",
            )
        _check_held(self, dtype, -1)  # it draws numbers of both signs

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        shape = tuple(shape)
        self.check(shape, dtype)
        if not math.prod(shape):
            return jnp.zeros(shape, dtype)  # JAX's initializers divide by the number of elements
        if self.seed is not None:
            key = jax.random.fold_in(key, self.seed % 2**32)
        if is_small_float(dtype):  # for these JAX draws nothing, or truncates at infinities that they don't have
            return self._sample(key, shape, jnp.float32).astype(dtype)
        return self._sample(key, shape, dtype)

    def _sample(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class zeros_initializer(Initializer):  # noqa: N801 (TF1's name)
    """All zeros (`False` for bool). TF1: `tf.zeros_initializer`; JAX: `jax.nn.initializers.zeros`.

    Args:
      dtype: the dtype when called without one; `get_variable` always gives one.

    Example:
      >>> js.zeros_initializer()(None, (2,))
      Array([0., 0.], dtype=float32)
    """

    dtype: Any = jnp.float32

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        _check_held(self, dtype, 0)

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        dtype = self.dtype if dtype is None else dtype
        self.check(shape, dtype)
        return jnp.zeros(shape, dtype)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ones_initializer(Initializer):  # noqa: N801
    """All ones. TF1: `tf.ones_initializer`; JAX: `jax.nn.initializers.ones`.

    Args:
      dtype: the dtype when called without one; `get_variable` always gives one.

    Example:
      >>> js.ones_initializer()(None, (2,))
      Array([1., 1.], dtype=float32)
    """

    dtype: Any = jnp.float32

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        return jnp.ones(shape, self.dtype if dtype is None else dtype)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class constant_initializer(Initializer):  # noqa: N801
    """A constant: a number fills the shape, a list is reshaped into it. TF1: `tf.constant_initializer`.

    A list that is too short is filled up with its last value, as in TensorFlow.

    Args:
      value: number, nested list or array of the values.
      dtype: the dtype when called without one; `get_variable` always gives one.
      verify_shape: with True the shape of `value` must be the shape asked for.

    Raises:
      InitializerError: when called for fewer elements than `value` has, or another shape under `verify_shape`.
      BadInitialValueTypeError: when floats are asked for as integers, even whole ones.

    Example:
      >>> js.constant_initializer([1., 2.])(None, (3,))
      Array([1., 2., 2.], dtype=float32)
    """

    value: Any = 0
    dtype: Any = jnp.float32
    verify_shape: bool = False

    def __post_init__(self) -> None:
        # A copy of its own: a value does not change when the caller's list or array does. One on the host: a copy of
        # an array of JAX, made while a program is traced, would be a part of that trace.
        value = self.value
        if isinstance(value, jax.Array) and is_of_keys(value.dtype):
            raise BadInitialValueTypeError(
                "constant_initializer takes numbers, not random keys.",
                kind="init_value",
                where=user_line(),
                fix="give the key itself, without a shape: initializer=key",
            )
        if isinstance(value, np.ma.MaskedArray):
            as_initial_value(value)  # raises
        if isinstance(value, jax.Array) and not is_traced(value):
            check_here("value", value, "constant_initializer needs all of it", "give a numpy array of the whole")
            value = np.asarray(value)
        object.__setattr__(self, "value", copy.deepcopy(value))

    def _identity(self) -> tuple[Any, ...]:
        array = np.asarray(self.value)
        return array.shape, array.dtype, array.tobytes(), np.dtype(self.dtype), self.verify_shape

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        array = np.asarray(self.value)
        if 0 not in shape and not _fits(array, dtype):
            own = jax.dtypes.canonicalize_dtype(array.dtype) if array.dtype.kind in "biufc" else None
            other = f", or ask for dtype {own}" if own is not None and _fits(array, own) else ""
            raise BadInitialValueTypeError(
                f"constant_initializer({short(self.value)}) can't fill a variable of dtype {np.dtype(dtype).name}.",
                kind="init_value",
                where=user_line(),
                fix=f"give a value of that dtype{other}",
            )
        if array.ndim and array.size > math.prod(shape):
            raise InitializerError(
                f"constant_initializer has {array.size} values, but shape {tuple(shape)} takes {math.prod(shape)}.",
                kind="init_value",
                where=user_line(),
                fix="give as many values as the shape has, or one number",
            )
        if self.verify_shape and array.shape != tuple(shape):
            raise BadInitialValueTypeError(
                f"constant_initializer with verify_shape=True holds shape {array.shape}, not {tuple(shape)}.",
                kind="init_value",
                where=user_line(),
                fix="give a value of the shape asked for, or leave verify_shape out",
            )

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        dtype = self.dtype if dtype is None else dtype
        self.check(shape, dtype)
        flat = np.asarray(self.value).ravel()
        if flat.size == 1:
            return jnp.full(shape, flat[0], dtype)
        if flat.size < math.prod(shape):
            flat = np.concatenate([flat, np.full(math.prod(shape) - flat.size, flat[-1] if flat.size else 0)])
        return jnp.asarray(flat.reshape(shape), dtype)


def _fits(array: np.ndarray, dtype: Any) -> bool:
    """Whether a constant fills a variable of this dtype."""
    kind = array.dtype.kind
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        return kind in "biu" and (not array.size or int(info.min) <= array.min() <= array.max() <= int(info.max))
    is_of_kind = kind == "b" or not jnp.issubdtype(dtype, jnp.bool_)
    is_of_kind &= kind not in "OSUMmT" and (kind != "c" or jnp.issubdtype(dtype, jnp.complexfloating))
    return is_of_kind and is_held(array, dtype)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class random_normal_initializer(_Random):  # noqa: N801
    """Normal numbers. TF1: `tf.random_normal_initializer`; JAX: `jax.nn.initializers.normal`.

    Args:
      mean: their mean.
      stddev: their standard deviation.
      seed: folded into the key of the variable.
      dtype: the dtype when called without one.

    Example:
      >>> js.random_normal_initializer(stddev=0.02)(jax.random.key(0), (2, 3)).shape
      (2, 3)
    """

    mean: float = 0.0
    stddev: float = 1.0
    seed: int | None = None
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        _known(self, mean=self.mean, stddev=self.stddev)

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        super().check(shape, dtype)
        _check_normal(self, self.mean, self.stddev, dtype)

    def _sample(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return _shifted(jax.nn.initializers.normal(self.stddev)(key, shape, dtype), self.mean)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class truncated_normal_initializer(_Random):  # noqa: N801
    """Normal numbers, those beyond two standard deviations drawn again.

    TF1: `tf.truncated_normal_initializer`; JAX: `jax.nn.initializers.truncated_normal`.

    Args:
      mean: the mean before truncation.
      stddev: the standard deviation before truncation.
      seed: folded into the key of the variable.
      dtype: the dtype when called without one.

    Example:
      >>> bool(abs(js.truncated_normal_initializer(stddev=0.02)(jax.random.key(0), (99,))).max() <= 0.04)
      True
    """

    mean: float = 0.0
    stddev: float = 1.0
    seed: int | None = None
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        _known(self, mean=self.mean, stddev=self.stddev)

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        super().check(shape, dtype)
        _check_real(self, dtype)
        _check_normal(self, self.mean, self.stddev, dtype)

    def _sample(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return _shifted(jax.nn.initializers.truncated_normal(self.stddev)(key, shape, dtype), self.mean)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class random_uniform_initializer(_Random):  # noqa: N801
    """Uniform numbers of [minval, maxval). TF1: `tf.random_uniform_initializer`; JAX: `jax.random.uniform`.

    Integer dtypes are drawn too, and then need a `maxval`.

    Args:
      minval: lower bound, inclusive.
      maxval: upper bound, exclusive; None is 1 for floating dtypes.
      seed: folded into the key of the variable.
      dtype: the dtype when called without one.

    Raises:
      BadArgumentError: for a `maxval` below `minval`.
      InitializerError: when called for a dtype that does not hold both; for integers also with bounds that are not
        whole, or are the same.

    Example:
      >>> bool(js.random_uniform_initializer(2, 3)(jax.random.key(0), (9,)).min() >= 2)
      True
    """

    minval: float = 0.0
    maxval: float | None = None
    seed: int | None = None
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = _known(self, minval=self.minval, maxval=self._maxval())
        if bounds is not None and not (isinstance(bounds[0] + bounds[1], int | float) and bounds[0] <= bounds[1]):
            raise BadArgumentError(
                f"random_uniform_initializer can't draw from {short(bounds[0])} up to {short(bounds[1])}.",
                kind="bad_init",
                where=user_line(),
                fix="give a minval below maxval",
            )

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        if not jnp.issubdtype(dtype, jnp.integer):
            super().check(shape, dtype)
            _check_real(self, dtype)
        elif self.maxval is None:
            raise InitializerError(
                "random_uniform_initializer needs a maxval for integer dtypes.",
                kind="init_value",
                where=user_line(),
                fix="give maxval=",
            )
        bounds = _known(self, minval=self.minval, maxval=self._maxval())
        if bounds is None:
            return
        low, high = bounds
        if not jnp.issubdtype(dtype, jnp.integer):
            largest = float(jnp.finfo(dtype).max)
            fine, what = max(abs(low), abs(high), high - low) <= largest, "numbers"
        else:
            info, what = jnp.iinfo(dtype), "whole numbers"
            # What JAX draws with may be the number after the last one where it has more bits than that, which are 32.
            last = int(info.max) + (info.bits < 32)
            fine = all(bound % 1 == 0 for bound in bounds) and int(info.min) <= low < high <= last
        if not fine:
            raise InitializerError(
                f"{self!r} can't draw {what} of {jnp.dtype(dtype).name} from {low} up to {high}.",
                kind="init_value",
                where=user_line(),
                fix=f"give a minval below maxval, both {what} that the dtype holds, or another dtype",
            )

    def _maxval(self) -> Any:
        return 1.0 if self.maxval is None else self.maxval

    def _sample(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        if not jnp.issubdtype(dtype, jnp.integer):
            return jax.random.uniform(key, shape, dtype, self.minval, self._maxval())
        low, high = int(self.minval), int(self._maxval())
        if jnp.iinfo(dtype).bits >= 32:  # Python's own would be taken for int32
            low, high = np.asarray(low, dtype), np.asarray(high, dtype)
        return jax.random.randint(key, shape, low, high, dtype)


_DISTRIBUTIONS: dict[str, Any] = {
    "normal": "truncated_normal",  # TF1's "normal" is the truncated one
    "truncated_normal": "truncated_normal",
    "untruncated_normal": "normal",
    "uniform": "uniform",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class variance_scaling_initializer(_Random):  # noqa: N801
    """Numbers of variance `scale / n`, where n is the fan in, the fan out or their mean.

    TF1: `tf.variance_scaling_initializer`; JAX: `jax.nn.initializers.variance_scaling`. As in TF1, shapes of rank 0 and
    1 are allowed: both fans are 1, or the length.

    Args:
      scale: positive factor.
      mode: "fan_in", "fan_out" or "fan_avg".
      distribution: "normal" or "truncated_normal" (both truncated), "untruncated_normal" or "uniform".
      seed: folded into the key of the variable.
      dtype: the dtype when called without one.

    Raises:
      BadArgumentError: for other values of scale, mode or distribution.

    Example:
      >>> js.variance_scaling_initializer(2.0, "fan_out", "uniform")(jax.random.key(0), (3, 4)).shape
      (3, 4)
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: int | None = None
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        for fine, what, allowed in (
            (_is_number(self.scale) and self.scale > 0, f"scale={short(self.scale)}", "a positive number"),
            (
                self.mode in ("fan_in", "fan_out", "fan_avg"),
                f"mode={self.mode!r}",
                "'fan_in', 'fan_out' or 'fan_avg'",
            ),
            (
                self.distribution in _DISTRIBUTIONS,
                f"distribution={self.distribution!r}",
                f"one of {[*_DISTRIBUTIONS]}",
            ),
        ):
            if not fine:
                raise BadArgumentError(
                    f"{type(self).__name__}: {what} means nothing.",
                    kind="bad_init",
                    where=user_line(),
                    fix=f"give {allowed}",
                )

    def _sample(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        distribution = _DISTRIBUTIONS[self.distribution]
        if len(shape) < 2:
            # JAX refuses rank 0 and 1. As one column the fan in is the length, which is TF1's value of all three modes.
            column = jax.nn.initializers.variance_scaling(self.scale, "fan_in", distribution)
            return column(key, (math.prod(shape), 1), dtype).reshape(shape)
        mode: Any = self.mode  # checked to be one of the three
        return jax.nn.initializers.variance_scaling(self.scale, mode, distribution)(key, shape, dtype)


def _scaled(name: str, scale: float, mode: str, distribution: str, jax_name: str) -> type[variance_scaling_initializer]:
    """One of the named special cases, as a class of its own so that it is a TF1 name, a value and instantiable bare."""

    def __init__(self: Any, seed: int | None = None, dtype: Any = jnp.float32) -> None:  # noqa: N807
        variance_scaling_initializer.__init__(self, scale, mode, distribution, seed, dtype)

    article = {"fan_in": "the fan in", "fan_out": "the fan out", "fan_avg": "the mean of fan in and fan out"}[mode]
    doc = f"""Numbers of variance {scale:g} / {article}, {distribution.replace("_", " ")}.

    TF1: `tf.{name}`; JAX: `jax.nn.initializers.{jax_name}`.

    Args:
      seed: folded into the key of the variable.
      dtype: the dtype when called without one.

    Example:
      >>> js.{name}()(jax.random.key(0), (3, 4)).shape
      (3, 4)
    """
    return type(name, (variance_scaling_initializer,), {"__init__": __init__, "__doc__": doc, "__module__": __name__})


glorot_uniform_initializer = _scaled("glorot_uniform_initializer", 1.0, "fan_avg", "uniform", "glorot_uniform")
glorot_normal_initializer = _scaled("glorot_normal_initializer", 1.0, "fan_avg", "truncated_normal", "glorot_normal")
he_uniform_initializer = _scaled("he_uniform_initializer", 2.0, "fan_in", "uniform", "he_uniform")
he_normal_initializer = _scaled("he_normal_initializer", 2.0, "fan_in", "truncated_normal", "he_normal")
lecun_uniform_initializer = _scaled("lecun_uniform_initializer", 1.0, "fan_in", "uniform", "lecun_uniform")
lecun_normal_initializer = _scaled("lecun_normal_initializer", 1.0, "fan_in", "truncated_normal", "lecun_normal")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class orthogonal_initializer(_Random):  # noqa: N801
    """An orthogonal matrix, or for more dimensions a matrix of orthogonal rows or columns, reshaped.

    TF1: `tf.orthogonal_initializer`; JAX: `jax.nn.initializers.orthogonal`.

    Args:
      gain: factor.
      seed: folded into the key of the variable.
      dtype: the dtype when called without one.

    Raises:
      InitializerError: when called for a shape of fewer than two dimensions.

    Example:
      >>> q = js.orthogonal_initializer()(jax.random.key(0), (3, 3))
      >>> bool(jnp.allclose(q @ q.T, jnp.eye(3), atol=1e-5))
      True
    """

    gain: float = 1.0
    seed: int | None = None
    dtype: Any = jnp.float32

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        super().check(shape, dtype)
        _check_rank(self, shape, len(shape) >= 2, "two or more")

    def _sample(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        # JAX has no QR decomposition of half precision.
        return jax.nn.initializers.orthogonal(self.gain)(key, shape, single_or_wider(dtype)).astype(dtype)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class identity_initializer(Initializer):  # noqa: N801
    """The identity matrix times `gain`, for shapes of two dimensions. TF1: `tf.initializers.identity`; JAX: `jnp.eye`.

    Args:
      gain: factor.
      dtype: the dtype when called without one.

    Raises:
      InitializerError: when called for a shape that has not two dimensions.

    Example:
      >>> js.identity_initializer(2.0)(None, (2, 2)).tolist()
      [[2.0, 0.0], [0.0, 2.0]]
    """

    gain: float = 1.0
    dtype: Any = jnp.float32

    def check(self, shape: tuple[int, ...], dtype: Any) -> None:
        _check_rank(self, shape, len(shape) == 2, "two")
        _check_held(self, dtype, [0, self.gain])

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        self.check(shape, dtype)
        dtype = self.dtype if dtype is None else dtype
        return jnp.asarray(self.gain, dtype) * jnp.eye(*shape, dtype=dtype)


def _check_rank(initializer: Initializer, shape: tuple[int, ...], fine: bool, wanted: str) -> None:
    if not fine:
        raise InitializerError(
            f"{type(initializer).__name__} makes matrices of {wanted} dimensions, not shape {tuple(shape)}.",
            kind="init_value",
            where=user_line(),
            fix=f"ask for a shape of {wanted} dimensions",
        )


def _check_held(initializer: Initializer, dtype: Any, numbers: Any) -> None:
    if not is_held(numbers, dtype):
        raise InitializerError(
            f"{type(initializer).__name__} makes numbers that {jnp.dtype(dtype).name} can't hold, such as {numbers}.",
            kind="init_value",
            where=user_line(),
            fix="ask for another dtype, or use constant_initializer with numbers that it holds",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex | np.generic | np.ndarray | jax.Array)


def _known(initializer: Initializer, **given: Any) -> tuple[Any, ...] | None:
    """Scalars that an initializer is given, as numbers of Python's; None where one is traced, or an array of several.

    Raises:
      BadArgumentError: for what is no number.
    """
    for name, value in given.items():
        if not _is_number(value):
            raise BadArgumentError(
                f"{type(initializer).__name__}: {name}={short(value)} is no number.",
                kind="bad_init",
                where=user_line(),
                fix=f"give a number as {name}=",
            )
    if any(is_traced(value) or np.ndim(value) for value in given.values()):
        return None
    return tuple(value if isinstance(value, int | float | complex) else value.item() for value in given.values())


def _check_normal(initializer: Initializer, mean: Any, stddev: Any, dtype: Any) -> None:
    known = _known(initializer, mean=mean, stddev=stddev)
    # Among a million numbers a few are five standard deviations away.
    if known is not None and not abs(known[0]) + 5 * abs(known[1]) <= float(jnp.finfo(dtype).max):
        raise InitializerError(
            f"{initializer!r} draws numbers that {jnp.dtype(dtype).name} can't hold.",
            kind="init_value",
            where=user_line(),
            fix="give a smaller mean and stddev, or ask for another dtype",
        )


def _check_real(initializer: Initializer, dtype: Any) -> None:
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise InitializerError(
            f"{type(initializer).__name__} draws real numbers, not {jnp.dtype(dtype).name}.",
            kind="init_value",
            where=user_line(),
            fix="ask for a real dtype, or use random_normal_initializer",
        )


def _shifted(sample: jax.Array, mean: float) -> jax.Array:
    return sample + jnp.asarray(mean, sample.dtype) if mean else sample


# Those that `check` passes for any shape of float32. It would find numbers near the end of float32, which only the draw
# refuses: to look for them takes a program with a thousand variables longer than its declarations.
FIT_FLOATS = frozenset(
    {
        ones_initializer,
        random_normal_initializer,
        random_uniform_initializer,
        truncated_normal_initializer,
        variance_scaling_initializer,
        zeros_initializer,
        *variance_scaling_initializer.__subclasses__(),  # glorot, he and lecun
    }
)
