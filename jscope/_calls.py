"""Variables as a program asks for them: `get_variable`, `assign`, `next_key`, the collections, by TF1's names. Floor 3.

Each call finds the running program and hands over to its `Run`; no rule is decided here.
"""

from __future__ import annotations

import functools
import sys
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

from ._ambient import current, of_another
from ._callsite import Place, user_place
from ._mismatch import mismatch_error
from ._params import Params
from ._specs import params_of
from ._values import sum_of_losses
from ._variable_spec import VariableSpec
from .run import listings
from .run.record import GLOBAL_VARIABLES, LOCAL_VARIABLES, REGULARIZATION_LOSSES, TRAINABLE_VARIABLES
from .run.variables import Run


class GraphKeys:
    """The names of TF1's standard collections. TF1: `tf.GraphKeys`.

    Example:
      >>> js.GraphKeys.TRAINABLE_VARIABLES
      'trainable_variables'
    """

    GLOBAL_VARIABLES = GLOBAL_VARIABLES
    TRAINABLE_VARIABLES = TRAINABLE_VARIABLES
    LOCAL_VARIABLES = LOCAL_VARIABLES
    REGULARIZATION_LOSSES = REGULARIZATION_LOSSES
    MODEL_VARIABLES = "model_variables"
    MOVING_AVERAGE_VARIABLES = "moving_average_variables"
    METRIC_VARIABLES = "metric_variables"
    LOSSES = "losses"
    UPDATE_OPS = "update_ops"
    WEIGHTS = "weights"
    BIASES = "biases"
    ACTIVATIONS = "activations"
    GLOBAL_STEP = "global_step"
    SUMMARIES = "summaries"


def no_regularizer(value: Any) -> None:
    """No loss: switches an inherited regularizer off. TF1: `tf.no_regularizer`.

    Example:
      >>> js.no_regularizer(jnp.ones(2)) is None
      True
    """
    return None


def get_variable(
    name: str,
    shape: Any = None,
    dtype: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    trainable: bool | None = None,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: Any = None,
    custom_getter: Any = None,
    constraint: Any = None,
) -> jax.Array:
    """The variable of that name in the current scope, made or, where the scope reuses, found. TF1: `tf.get_variable`.

    Haiku: `hk.get_parameter` (and, with `trainable=False`, `hk.get_state`); Flax: `self.param`.
    In one trace, asking again for one name gives the same object until it is assigned. One that a program assigns
    inside transforms is another object each time: JAX holds its value, and may set it without jscope.

    Args:
      name: joined to the scope's name with a slash.
      shape: dimensions, an int meaning one; may be left out under reuse, and where the initializer brings its own.
      dtype: default that of the scope, which is float32 unless set.
      initializer: a callable `init(key, shape, dtype)`, which may not call jscope, or a number or array (then without
        `shape`). Default that of the scope, else glorot uniform for floating dtypes and zeros for integers and bool.
      regularizer: a callable from value to scalar loss; see `get_regularization_losses`.
      trainable: False keeps it out of the trainable collection; default that of the scope, which is True unless set.
      collections: default `[GraphKeys.GLOBAL_VARIABLES]`.
      caching_device: no effect.
      partitioner: a `jax.P` of names of axes, what `axes_partitioner` makes, or a callable `(shape, dtype) -> jax.P`;
        kept in the spec, and looked at by `Specs.shardings`. Default that of the scope.
      validate_shape: no effect.
      use_resource: no effect.
      custom_getter: replaces those of the scopes.
      constraint: a callable from value to value; see `Specs.constrain`.

    Returns:
      A plain `jax.Array` (a tracer under tracing) of the variable's shape and dtype; or what a custom getter returns.

    Raises:
      VariableExistsError: it exists, and reuse is off.
      VariableNotFoundError: it does not exist, under `reuse=True`.
      ShapeMismatchError, DtypeMismatchError: it exists with another shape or dtype.
      InitializerError: no shape, shape and constant both, or an initializer that does not fit.
      BadNameError: a name that TF1 refuses.
      ParamsMismatchError: in `apply`, if the given tree does not hold it with this shape and dtype.
      OutsideProgramError: where no program runs.

    Example:
      >>> net = js.transform(lambda x: x @ js.get_variable("w", [2, 3]))
      >>> net.init(jax.random.key(0), jnp.ones((1, 2)))
      Params({w: f32[2,3]})
    """
    caller = sys._getframe(1)
    run = current("get_variable", caller)
    getter = run.scopes.state.custom_getter if custom_getter is None else custom_getter
    if getter is not None:
        getter = _prepared(getter, run, caller, (caching_device, validate_shape, use_resource))
    return run.get_variable(
        caller,
        name,
        shape,
        dtype,
        initializer,
        regularizer,
        trainable,
        collections,
        partitioner,
        constraint,
        getter,
    )


def _prepared(getter: Any, run: Run, caller: FrameType, without_effect: tuple[Any, Any, Any]) -> Any:
    """A custom getter with what asks for a variable in the end, on behalf of `caller`, and three without effect."""
    if not callable(getter):
        return getter  # an error that is raised later
    caching_device, validate_shape, use_resource = without_effect
    return functools.partial(
        getter,
        getter=functools.partial(_true_getter, run, user_place(caller)),
        caching_device=caching_device,
        validate_shape=validate_shape,
        use_resource=use_resource,
    )


def _true_getter(
    run: Run,
    asked_at: Place | None,
    name: Any,
    shape: Any = None,
    dtype: Any = jnp.float32,
    initializer: Any = None,
    regularizer: Any = None,
    reuse: Any = None,
    trainable: bool | None = None,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: Any = None,
    constraint: Any = None,
) -> Any:
    """What a custom getter calls: `get_variable` by full key, with the rest as the getter chose it."""
    caller = sys._getframe(1)
    if current("a getter", caller) is not run:
        raise of_another("a getter", "call it within the custom getter that was given it")
    more = initializer, regularizer, trainable, collections, partitioner, constraint
    return run.get_variable(caller, name, shape, dtype, *more, resolved=(reuse, run.scopes.op_scope, asked_at))


def get_local_variable(
    name: str,
    shape: Any = None,
    dtype: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    trainable: bool = False,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: Any = None,
    custom_getter: Any = None,
    constraint: Any = None,
) -> jax.Array:
    """As `get_variable`, never trainable and in the local collection only. TF1: `tf.get_local_variable`.

    Store and reuse checks are those of `get_variable`. TF1 appends to the caller's `collections` list in place; this
    leaves it alone.

    Args:
      name, shape, dtype, initializer, regularizer, caching_device, partitioner, validate_shape, use_resource,
        custom_getter, constraint: as in `get_variable`.
      trainable: no effect, as in TF1.
      collections: more collections.

    Raises:
      JscopeError: as `get_variable`.

    Example:
      >>> specs = js.transform(lambda: js.get_local_variable("seen", [], jnp.int32)).specs()
      >>> specs["seen"].trainable, specs["seen"].collections
      (False, ('local_variables',))
    """
    if isinstance(collections, list | tuple | set | frozenset):
        collections = type(collections)((*collections, LOCAL_VARIABLES))
    elif collections is None:
        collections = (LOCAL_VARIABLES,)
    caller = sys._getframe(1)
    run = current("get_local_variable", caller)
    getter = run.scopes.state.custom_getter if custom_getter is None else custom_getter
    if getter is not None:
        getter = _prepared(getter, run, caller, (caching_device, validate_shape, use_resource))
    more = initializer, regularizer, False, collections, partitioner, constraint, getter
    return run.get_variable(caller, name, shape, dtype, *more)


def variable(
    initial_value: Any,
    name: str | None = None,
    trainable: bool | None = True,
    dtype: Any = None,
    collections: Any = None,
) -> jax.Array:
    """A variable that is never shared: its name is made unique in the op scope. TF1: `tf.Variable`.

    As in TF1, no default of a variable scope reaches it, `trainable=False` of a scope neither.

    Args:
      initial_value: a number, (nested) list, array, or a callable without arguments that returns one.
      name: default "Variable"; a second taker of a name gets `_1`.
      trainable: whether it is in the trainable collection; None means that it is.
      dtype: default that of the value; Python numbers are float32 and int32.
      collections: default `[GraphKeys.GLOBAL_VARIABLES]`.

    Returns:
      A plain `jax.Array`.

    Raises:
      InitializerError: for None, and for a callable that takes arguments, as initializers do.
      BadInitialValueTypeError: for what is no number, list or array.
      BadNameError: for a name that TF1 refuses.
      OutsideProgramError: where no program runs.

    Example:
      >>> def program(): return js.variable(3, name="x"), js.variable(3, name="x")
      >>> list(js.transform(program).specs())
      ['x', 'x_1']
    """
    caller = sys._getframe(1)
    return current("variable", caller).variable(caller, initial_value, name, trainable, dtype, collections)


def _variables(call: str, collection: str, scope: str | None) -> list[VariableSpec]:
    return listings.collection(current(call, sys._getframe(2)), collection, scope)


def global_variables(scope: str | None = None) -> list[VariableSpec]:
    """All variables that are not local, in order of creation. TF1: `tf.global_variables`.

    Args:
      scope: a regular expression, matched by `re.match` as TF1 does: on the full name followed by `:0`.

    Example:
      >>> def program():
      ...     js.get_variable("b", []); js.get_variable("a", [], trainable=False)
      ...     return print([v.name for v in js.global_variables()], [v.name for v in js.trainable_variables()])
      >>> _ = js.transform(program).specs()
      ['b', 'a'] ['b']
    """
    return _variables("global_variables", GLOBAL_VARIABLES, scope)


def trainable_variables(scope: str | None = None) -> list[VariableSpec]:
    """The trainable variables, in order of creation. TF1: `tf.trainable_variables`.

    Args:
      scope: as in `global_variables`.

    Example:
      >>> def program():
      ...     js.get_variable("a/w", []); js.get_variable("b/w", [])
      ...     return print([v.name for v in js.trainable_variables("a/")])
      >>> _ = js.transform(program).specs()
      ['a/w']
    """
    return _variables("trainable_variables", TRAINABLE_VARIABLES, scope)


def local_variables(scope: str | None = None) -> list[VariableSpec]:
    """The variables of `get_local_variable`, in order of creation. TF1: `tf.local_variables`.

    Args:
      scope: as in `global_variables`.

    Example:
      >>> def program():
      ...     js.get_local_variable("seen", [])
      ...     return print([v.name for v in js.local_variables()])
      >>> _ = js.transform(program).specs()
      ['seen']
    """
    return _variables("local_variables", LOCAL_VARIABLES, scope)


def get_collection(key: str, scope: str | None = None) -> list[Any]:
    """The items of a collection in order; variables as `VariableSpec`s. TF1: `tf.get_collection`.

    Args:
      key: its name, one of `GraphKeys` or any other.
      scope: as in `global_variables`; items without a name are left out then.

    Example:
      >>> def program():
      ...     js.get_variable("v", [], collections=["mine"])
      ...     return print([v.name for v in js.get_collection("mine")])
      >>> _ = js.transform(program).specs()
      ['v']
    """
    return listings.collection(current("get_collection", sys._getframe(1)), key, scope)


def add_to_collection(key: str, value: Any) -> None:
    """Appends to a collection. TF1: `tf.add_to_collection`.

    Args:
      key: the collection's name.
      value: anything; an array of `get_variable` stands for its variable.

    Raises:
      TransformError: for another array made inside a JAX transform, where nobody outside could use it.

    Example:
      >>> def program():
      ...     js.add_to_collection("mine", js.get_variable("v", []))
      ...     return print([v.name for v in js.get_collection("mine")])
      >>> _ = js.transform(program).specs()
      ['v']
    """
    listings.add_to_collection(current("add_to_collection", sys._getframe(1)), key, value)


def get_regularization_losses(scope: str | None = None) -> list[jax.Array]:
    """The loss of each regularizer on its variable's current value. TF1: `tf.losses.get_regularization_losses`.

    Args:
      scope: a regular expression, matched by `re.match` as TF1 does: on the variable's key followed by `/Regularizer/`.

    Returns:
      Scalars, computed now, in the current trace; regularizers that return None give none. Behind them what the program
      added to the collection `REGULARIZATION_LOSSES`, unless a `scope` is given: arrays have no names.

    Example:
      >>> def program():
      ...     js.get_variable("w", [2], initializer=js.ones_initializer(), regularizer=lambda w: jnp.sum(w**2))
      ...     return js.get_regularization_losses()
      >>> net = js.transform(program)
      >>> net.apply(net.init(jax.random.key(0)))
      [Array(2., dtype=float32)]
    """
    return listings.losses(current("get_regularization_losses", sys._getframe(1)), scope)


def get_regularization_loss(scope: str | None = None) -> jax.Array:
    """The sum of `get_regularization_losses`: a scalar, 0 for none. TF1: `tf.losses.get_regularization_loss`.

    Example:
      >>> float(js.transform(lambda: js.get_regularization_loss()).apply({}))
      0.0
    """
    return sum_of_losses(listings.losses(current("get_regularization_loss", sys._getframe(1)), scope))


def value(variable: jax.Array | VariableSpec | str) -> jax.Array:
    """The current value of a variable.

    Args:
      variable: a `VariableSpec`, a full name, or an array of `get_variable` (whose value may have been assigned since).

    Raises:
      UnknownNameError: for a name that this program has not declared so far.
      BadArgumentError: for any other array.

    Example:
      >>> def program():
      ...     js.get_variable("w", [2], initializer=js.ones_initializer())
      ...     return sum(jnp.sum(js.value(v) ** 2) for v in js.trainable_variables())
      >>> net = js.transform(program)
      >>> float(net.apply(net.init(jax.random.key(0))))
      2.0
    """
    run = current("value", sys._getframe(1))
    return run.read(run.find(variable, "value"))


def assign(variable: jax.Array | VariableSpec | str | Params, value: Any) -> Any:
    """Sets a variable: later reads in this call see the new value, and `update` returns it. TF1: `tf.assign`.

    Inside `lax.scan` and other transforms too: JAX then carries the value along.

    Args:
      variable: an array of `get_variable`, a `VariableSpec`, or a full name; or the tree that `lift` gave.
      value: an array of the variable's shape and dtype, or a Python number; for a tree, a mapping of all or some of its
        names, of which those are assigned that are another array than the variable's own.

    Returns:
      The new value; for a tree, the tree with the new values.

    Raises:
      AssignError: in `apply` and `bind`, which give no tree back.
      TransformError: inside a transform out of which JAX can't carry the value.
      ShapeMismatchError, DtypeMismatchError: for a value that does not fit.
      ParamsMismatchError: for names that the tree does not have.
      UnknownNameError: for a name that this program has not declared so far.

    Example:
      >>> def program():
      ...     count = js.get_variable("count", [], jnp.int32)
      ...     return js.assign(count, count + 1)
      >>> net = js.transform(program)
      >>> out, params = net.update({"count": jnp.int32(4)})
      >>> int(out), int(params["count"])
      (5, 5)
    """
    run = current("assign", sys._getframe(1))
    if not isinstance(variable, Params):
        return run.assign(variable, value)
    old, new = variable.flat(), params_of(value, "assign").flat()
    unknown = [f"'{name}' is not in the tree that is assigned" for name in new if name not in old]
    if unknown:
        raise mismatch_error(unknown)
    changed = {name: run.assign(old[name], leaf) for name, leaf in new.items() if leaf is not old[name]}
    return variable.replace(changed)


def name_of(array: jax.Array) -> str:
    """The full name of the variable whose array this is. TF1: `v.op.name` (`v.name` is that plus `:0`).

    Args:
      array: the very object that `get_variable` or `variable` returned in this program. Functions of JAX that change
        nothing may give that object or another one, under `jax.jit` another answer than without.

    Raises:
      BadArgumentError: for any other array.

    Example:
      >>> with js.build(jax.random.key(0)), js.variable_scope("a"):
      ...     js.name_of(js.get_variable("v", [2]))
      'a/v'
    """
    return current("name_of", sys._getframe(1)).find(array, "name_of").name


def next_key(name: str = "default") -> jax.Array:
    """A fresh random key, from the call's `rng`. Haiku: `hk.next_rng_key`; Flax: `self.make_rng`.

    It depends on the rng, the scope's name and how often this was called there under `name`, and on nothing that other
    scopes do. `specs` and `init` need no rng: there the keys come out of the key of `init`.

    JAX traces the body of a loop once, so a call in it gives one key for all turns. For a key for each turn, split it
    outside and scan over the keys, or fold the turn's number in: `jax.random.fold_in(js.next_key(), i)`. The body of a
    `jax.shard_map` gets the same key on every device; for others fold the device's place in:
    `jax.random.fold_in(js.next_key(), jax.lax.axis_index("data"))`.

    Args:
      name: a stream of its own.

    Returns:
      A JAX random key of the rng's kind.

    Raises:
      MissingRngError: if the call was given no `rng`.

    Example:
      >>> net = js.transform(lambda: (js.next_key(), js.next_key()))
      >>> a, b = net.apply({}, rng=jax.random.key(0))
      >>> bool(a == b)
      False
    """
    run = current("next_key", sys._getframe(1))
    return run.keys.next(run.scopes.state.name, name, run.body)
