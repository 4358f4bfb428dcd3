"""The checks and defaults on the way to a new variable, each a function of its arguments. Floor 2."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._errors import BadArgumentError, InitializerError
from ._values import PartialShape
from .initializers import glorot_uniform_initializer, zeros_initializer

GLOBAL_VARIABLES = "variables"
TRAINABLE_VARIABLES = "trainable_variables"

# The fields of an error that say what was asked and where; made only when there is an error to raise.
Asked = Callable[[str], dict[str, Any]]

_GLOROT = glorot_uniform_initializer()
_ZEROS = zeros_initializer()


def default_initializer(key: Any, shape: PartialShape | None, dtype: Any, asked: Asked) -> Any:
    """TF1's: glorot uniform for floating dtypes, zeros for integers and bool.

    Raises:
      InitializerError: without a shape, and for other dtypes.
    """
    if shape is None:
        raise InitializerError(
            f"Variable '{key}' has no initializer, so its shape must be given.",
            **asked("no_shape"),
            fix="give shape=, or an initializer that brings one (a number or an array)",
        )
    kind = getattr(dtype, "kind", "V")
    if kind == "f" or (kind == "V" and jnp.issubdtype(dtype, jnp.floating)):  # bfloat16 and float8 are of kind V
        return _GLOROT
    if kind in "iub" or jnp.issubdtype(dtype, jnp.integer):
        return _ZEROS
    raise InitializerError(
        f"There is no default initializer for dtype {dtype}, which '{key}' has.",
        **asked("no_default_init"),
        fix="give an initializer",
    )


def checked_initializer(initializer: Any, key: Any, shape: PartialShape | None, asked: Asked) -> tuple[Any, bool]:
    """(initializer, whether it is called with the shape); a class is instantiated.

    Raises:
      InitializerError: for a callable that needs a shape where that is not fully known.
    """
    if not callable(initializer):
        return initializer, False
    if isinstance(initializer, type):
        initializer = initializer()
    if shape is not None and None not in shape:
        return initializer, True
    if not _needs_no_arguments(initializer):
        raise InitializerError(
            f"The initializer of '{key}' needs a shape, and the shape is not fully known.",
            **asked("bad_init"),
            fix="give the full shape; only a callable without arguments, a number or an array brings its own",
        )
    return initializer, False


def _needs_no_arguments(initializer: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(initializer).parameters.values()
    except (TypeError, ValueError):
        return False
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in optional for p in parameters)


_DEFAULT_COLLECTIONS = {True: (GLOBAL_VARIABLES, TRAINABLE_VARIABLES), False: (GLOBAL_VARIABLES,)}


def collections_of(collections: Any, trainable: bool, key: Any, asked: Asked) -> tuple[str, ...]:
    """The collections of a variable: those given or the global one, and the trainable one unless it is not trainable.

    Raises:
      BadArgumentError: for what is no list of names.
    """
    if collections is None:
        return _DEFAULT_COLLECTIONS[trainable]
    if not isinstance(collections, list | tuple | set | frozenset):
        raise BadArgumentError(
            f"The collections of '{key}' are {collections!r}, not a list of names.",
            **asked("bad_collections"),
            fix="give a list of strings",
        )
    return tuple(dict.fromkeys((*collections, TRAINABLE_VARIABLES) if trainable else collections))


def check_constraint(constraint: Any, key: Any, asked: Asked) -> None:
    """Raises BadArgumentError for a constraint that is not callable."""
    if constraint is not None and not callable(constraint):
        raise BadArgumentError(
            f"The constraint of '{key}' is not callable: {constraint!r}.",
            **asked("bad_constraint"),
            fix="give a function from the value to the constrained value",
        )


def partition_of(partitioner: Any, key: Any, shape: PartialShape | None, dtype: Any, asked: Asked) -> Any:
    """What the partitioner says; scalars have no partition, as in TF1.

    Raises:
      BadArgumentError: for a partitioner that is not callable, or gives TF1's list of counts.
    """
    if partitioner is None or not shape:
        return None
    fix = "give a callable (shape, dtype) -> jax.sharding.PartitionSpec, such as lambda shape, dtype: P('data', None)"
    if not callable(partitioner):
        raise BadArgumentError(
            f"The partitioner of '{key}' is not callable: {partitioner!r}.", **asked("bad_partition"), fix=fix
        )
    partition = partitioner(shape=shape, dtype=dtype)
    if partition is not None and not isinstance(partition, jax.sharding.PartitionSpec):
        raise BadArgumentError(
            f"The partitioner of '{key}' gave {partition!r}. jscope does not cut variables into TF1's counted parts.",
            **asked("bad_partition"),
            fix=fix,
        )
    return partition
