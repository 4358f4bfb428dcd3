"""The checks and defaults on the way to a variable and its values, each a function of its arguments. Floor 2."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._arguments import parameters_for
from .._callsite import user_line
from .._compat import is_differentiated
from .._errors import (
    AssignError,
    BadArgumentError,
    BadInitialValueTypeError,
    BadTypeError,
    DtypeMismatchError,
    InitializerError,
    JscopeError,
    ShapeMismatchError,
    TransformError,
)
from .._leaves import KEEP_IT, without_value
from .._names import OpNames
from .._partitions import AxesPartitioner, same_partition
from .._show import short
from .._table import partition_text
from .._values import (
    FromProgram,
    InitialValue,
    PartialShape,
    Shape,
    as_dtype,
    as_initial_value,
    converted,
    is_compatible,
    is_of_keys,
    is_traced,
)
from ..initializers import glorot_uniform_initializer, zeros_initializer
from .record import TRAINABLE_VARIABLES, Variable

# The fields of an error that say what was asked and where; made only when there is an error to raise.
Asked = Callable[[str], dict[str, Any]]

GLOROT = glorot_uniform_initializer()
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
        return GLOROT
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


def own_shape(found: Shape | None, shape: PartialShape | None, key: Any, asked: Asked) -> Shape | None:
    """The shape of an initial value that brings its own, where that is known.

    Raises:
      InitializerError: if it is not the shape that is asked for, as far as that is known.
    """
    if found is not None and not is_compatible(shape, found):
        raise InitializerError(
            f"The initial value of '{key}' has shape {found}, but shape {shape} is asked for.",
            **asked("init_value"),
            fix="leave shape out, or ask for the shape of the value",
        )
    return found


def own_value(
    key: Any, value: Any, dtype: Any, asked: Asked, *, is_inside: bool, is_kept: bool
) -> tuple[Any, Shape, Any, Any]:
    """(what stands for it in the spec, shape, dtype, itself if the program computes it) of a value given as initial.

    Args:
      key, value, dtype: of the variable; without a dtype, it has that of the value.
      asked: the fields of an error.
      is_inside: whether it is given inside a JAX transform.
      is_kept: whether the value is looked at later on, so that it must not change.

    Raises:
      BadInitialValueTypeError: for what is no number, list or array.
      TransformError: for a value that is computed inside a transform.
    """
    try:
        array = as_initial_value(value, dtype)
        if dtype is not None:
            array = array.astype(dtype) if is_traced(array) else converted(array, dtype, value)
    except JscopeError as error:
        error.complete(asked(error.kind))
        raise
    if not is_traced(array):
        keeps = is_kept and isinstance(array, np.ndarray)
        return InitialValue(array.copy() if keeps else array), array.shape, array.dtype, None
    if is_inside:
        raise TransformError(
            f"The initial value of '{key}' is computed inside a JAX transform, from which it can't be carried out.",
            **asked("initial_value_inside"),
            fix="compute it outside the transformed function, or give an initializer callable",
        )
    return FromProgram(), array.shape, array.dtype, array


def checked_collections(collections: Any, trainable: bool, key: Any, asked: Asked) -> tuple[str, ...]:
    """The collections of a variable that is given some: those, and the trainable one unless it is not trainable.

    Raises:
      BadArgumentError: for what is no list of names.
    """
    is_list = isinstance(collections, list | tuple | set | frozenset)
    if not is_list or not all(isinstance(name, Hashable) for name in collections):
        raise BadArgumentError(
            f"The collections of '{key}' are {short(collections)}, not a list of names.",
            **asked("bad_collections"),
            fix="give a list of strings",
        )
    if isinstance(collections, set | frozenset):
        collections = sorted(collections)  # a set has another order in every process
    return tuple(dict.fromkeys((*collections, TRAINABLE_VARIABLES) if trainable else collections))


def check_constraint(constraint: Any, key: Any, asked: Asked) -> None:
    """Raises BadArgumentError for a constraint that is not callable."""
    if constraint is not None and not callable(constraint):
        raise BadArgumentError(
            f"The constraint of '{key}' is not callable: {short(constraint)}.",
            **asked("bad_constraint"),
            fix="give a function from the value to the constrained value",
        )


def check_getter(getter: Any, name: Any, scope: str) -> None:
    """Raises BadArgumentError for a custom getter that is not callable."""
    if not callable(getter):
        raise BadArgumentError(
            f"custom_getter is not callable: {short(getter)}.",
            kind="bad_getter",
            asked=f"get_variable({short(name)})",
            scope=scope,
            where=user_line(),
            fix="give a function (getter, name, *args, **kwargs) that calls getter(name, *args, **kwargs)",
        )


def partition_of(partitioner: Any, key: Any, shape: PartialShape | None, dtype: Any, asked: Asked) -> Any:
    """What the partitioner says; scalars have no partition, as in TF1.

    Raises:
      BadArgumentError: for a partitioner that is none, gives TF1's list of counts, or names more axes than there are.
      BadTypeError: for one that does not take `shape` and `dtype`.
    """
    if partitioner is None or not shape:
        return None
    if isinstance(partitioner, jax.sharding.PartitionSpec):
        return _fitting(partitioner, key, shape, asked)
    if isinstance(partitioner, AxesPartitioner):
        return _fitting(partitioner.partition(str(key)), key, shape, asked)
    fix = "give a jax.P of names of axes, such as jax.P('data', None), or a callable (shape, dtype) that returns one"
    if not callable(partitioner):
        raise BadArgumentError(
            f"The partitioner of '{key}' is not callable: {short(partitioner)}.", **asked("bad_partition"), fix=fix
        )
    try:
        partition = partitioner(shape=shape, dtype=dtype)
    except TypeError as error:
        parameters, takes_them = parameters_for(partitioner, shape=shape, dtype=dtype)
        if takes_them:
            raise
        raise BadTypeError(  # as in TF1, where Python raises it
            f"The partitioner of '{key}' takes ({', '.join(parameters)}), not (shape, dtype); it is called by keyword.",
            **asked("bad_partition"),
            fix=fix,
        ) from error
    if partition is not None and not isinstance(partition, jax.sharding.PartitionSpec):
        raise BadArgumentError(
            f"The partitioner of '{key}' gave {short(partition)}. "
            "jscope does not cut variables into TF1's counted parts.",
            **asked("bad_partition"),
            fix=fix,
        )
    return _fitting(partition, key, shape, asked)


def _fitting(partition: Any, key: Any, shape: PartialShape, asked: Asked) -> Any:
    if partition is not None and len(partition) > len(shape):
        raise BadArgumentError(
            f"P{partition_text(partition)} names {len(partition)} axes, "
            f"and '{key}' of shape {list(shape)} has {len(shape)}.",
            **asked("bad_partition"),
            fix="name an axis or None for each dimension; js.axes_partitioner says it by names for a whole scope",
        )
    return partition


def check_shared_partition(variable: Variable, partitioner: Any, asked: Asked) -> None:
    """Raises BadArgumentError if a variable is asked for again with another partition (row X15); none asks for none."""
    partition = partition_of(partitioner, variable.key, variable.shape, variable.dtype, asked)
    if partition is not None and not same_partition(partition, variable.partition):
        before = f"P{partition_text(variable.partition)}" if variable.partition is not None else "none"
        raise BadArgumentError(
            f"Variable '{variable.key}' is asked for with P{partition_text(partition)}, and was made with {before}.",
            **asked("partition_mismatch"),
            exists=variable.origin(),
            fix="ask for it with the same partitioner, or with none where it is shared",
        )


def checked_name(name: Any, scope: str) -> str:
    """The name of a `variable`, by default TF1's.

    Raises:
      BadTypeError: for what is no string.
    """
    if name is None:
        return "Variable"
    if isinstance(name, str):
        return name
    # In TF1 `trainable` is the second argument.
    fix = f"give it by keyword: trainable={short(name)}" if isinstance(name, bool) else "give a string"
    raise _no_name(name, scope, fix)


def _no_name(name: Any, scope: str, fix: str) -> BadTypeError:
    what = f"A variable's name is a string, not {short(name)}."
    return BadTypeError(what, kind="bad_name_type", scope=scope, where=user_line(), fix=fix)


def odd_key(name: Any, scope: str) -> Any:
    """The key of a name that is no string: TF1 takes None and bytes at the root, and only there.

    Raises:
      BadTypeError: for anything else.
    """
    if not scope and (name is None or isinstance(name, bytes)):
        return name
    raise _no_name(name, scope, "give a string")


def op_name(key: Any, names: OpNames, scope: str = "") -> str:
    """Takes the op name of a key: from the op root, or from the op scope that a custom getter has opened.

    Raises:
      BadNameError: for a key that TF1 refuses.
    """
    if key is None:
        return names.unique("Variable")
    if not isinstance(key, str):
        key = key.decode()
    # Nothing is left of an empty key; TF1 then falls back to the name of the op's kind.
    return names.open(scope, key) or names.unique("VariableV2")


def check_initial_dtype(initializer: Any, dtype: Any, name: Any, asked: Asked) -> None:
    """Raises InitializerError for a constant whose dtype is not the one given with it."""
    found, wanted = as_initial_value(initializer).dtype, as_dtype(dtype)
    if found != wanted:
        raise InitializerError(
            f"The constant initializer of {short(name)} has dtype {found}, but dtype {wanted} is given explicitly.",
            **asked("init_dtype"),
            fix=f"convert the constant (np.asarray(value, '{wanted}')) or leave dtype out",
        )


_OTHER_TURN = (
    "JAX calls this function more than once, and it has one variable: let it be called with the same shapes and dtypes "
    "each time, such as a loop's carry that starts with those that it ends with"
)


def check_shared(
    variable: Variable, shape: PartialShape | None, dtype: Any, asked: Asked, in_other_turn: bool = False
) -> None:
    """Raises ShapeMismatchError or DtypeMismatchError for a variable that is shared as something it is not.

    `in_other_turn` says that the program asks once, in a function that JAX calls again.
    """
    if not is_compatible(shape, variable.shape):
        raise ShapeMismatchError(
            f"Variable '{variable.key}' is shared with shape {shape}, but it has shape {variable.shape}.",
            **asked("shape_mismatch"),
            exists=variable.origin(),
            fix=_OTHER_TURN
            if in_other_turn
            else "ask for the shape it has, or leave shape out; a different variable needs a name or scope of its own",
        )
    if dtype != variable.dtype:
        raise DtypeMismatchError(
            f"Variable '{variable.key}' is shared with dtype {dtype}, but it has dtype {variable.dtype}.",
            **asked("dtype_mismatch"),
            exists=variable.origin(),
            fix=_OTHER_TURN
            if in_other_turn
            else f"pass dtype={_as_written(variable.dtype)} (where none is given, the scope's default counts)",
        )


def _as_written(dtype: Any) -> str:
    return "key.dtype, that of such a key" if is_of_keys(dtype) else str(dtype)


def check_not_differentiated(variable: Variable, value: Any, asked: Callable[[], dict[str, Any]]) -> None:
    """Raises TransformError for a value that a custom derivative rule can't know of, since it is no argument of it."""
    if is_differentiated(value):
        raise TransformError(
            f"'{variable.name}' is read inside a jax.custom_jvp or jax.custom_vjp function, and is differentiated; but "
            "the function's own rule gives derivatives for its arguments alone.",
            kind="derivative_rule",
            **asked(),
            exists=variable.origin(),
            fix="read it outside and pass it as an argument, or js.lift(net) outside and pass the tree",
        )


def assignable(variable: Variable, value: Any, asked: dict[str, Any]) -> jax.Array:
    """`value` as an array that fits the variable; Python numbers take its dtype.

    Raises:
      ShapeMismatchError, DtypeMismatchError: for one that does not fit.
      BadTypeError: for what is no array.
    """
    if not isinstance(value, jax.Array):
        try:
            if isinstance(value, bool | int | float) and not is_of_keys(variable.dtype):
                value = converted(np.asarray(value), variable.dtype, value)
            else:
                value = as_initial_value(value, variable.dtype)
        except BadInitialValueTypeError as error:
            if isinstance(value, np.ndarray | np.generic | list | tuple | bool | int | float):
                error.complete(asked)
                raise
            raise BadTypeError(
                f"'{variable.name}' is assigned {short(value)}, which is no array.",
                kind="not_an_array",
                **asked,
                exists=variable.origin(),
                fix="assign an array of the variable's shape and dtype, or a number",
            ) from None
    elif why := without_value(value):
        what = f"'{variable.name}' is assigned an array that {why}."
        raise BadArgumentError(what, kind="deleted", **asked, exists=variable.origin(), fix=KEEP_IT)
    value = jnp.asarray(value, value.dtype)  # a variable is never weakly typed
    if value.shape != variable.shape:
        raise ShapeMismatchError(
            f"'{variable.name}' of shape {variable.shape} is assigned a value of shape {value.shape}.",
            kind="shape_mismatch",
            **asked,
            exists=variable.origin(),
            fix="assign a value of the variable's shape",
        )
    if value.dtype != variable.dtype:
        raise DtypeMismatchError(
            f"'{variable.name}' of dtype {variable.dtype} is assigned a value of dtype {value.dtype}.",
            kind="dtype_mismatch",
            **asked,
            exists=variable.origin(),
            fix="assign a key of that kind"
            if is_of_keys(variable.dtype)
            else f"convert it: value.astype('{variable.dtype}')",
        )
    return value


def check_sharding(variable: Variable, value: jax.Array, given: Any, asked: dict[str, Any]) -> None:
    """Raises AssignError for a value that is sharded otherwise than what the tree gave, where JAX's types tell."""
    wanted, found = (_spec_of(x) for x in (given, value))
    if wanted != found:
        raise AssignError(
            f"'{variable.name}' sharded by jax.P{wanted} is assigned a value sharded by jax.P{found}.",
            kind="sharding_mismatch",
            **asked,
            exists=variable.origin(),
            fix=f"reshard it: jax.sharding.reshard(value, jax.P{wanted})",
        )


def _spec_of(x: Any) -> tuple[Any, ...]:
    spec = list(jax.typeof(x).sharding.spec)
    while spec and spec[-1] is None:
        spec.pop()
    return tuple(spec)
