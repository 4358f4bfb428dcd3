"""What the layers of `tf.contrib.layers` share: names and collections of variables, and the end of each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

import jscope as js

from ..by_name import Activation, activation_of, initializer_of, regularizer_of
from ..faults import check_keys, of_variables
from ..scopes import names_of

_KINDS = ("weights", "biases", "beta", "gamma", "moving_mean", "moving_variance")
_MODEL = (js.GraphKeys.GLOBAL_VARIABLES, js.GraphKeys.MODEL_VARIABLES)


def model_getter(renamed: Mapping[str, str]) -> Callable[..., Any]:
    """A custom getter: variables made under it are model variables, and those in `renamed` get their other name."""

    def getter(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
        head, slash, last = name.rpartition("/")
        kwargs["collections"] = [*(kwargs.get("collections") or ()), *_MODEL]
        return getter(head + slash + renamed.get(last, last), *args, **kwargs)

    return getter


MODEL = model_getter({})
WEIGHTS = model_getter({"kernel": "weights", "bias": "biases"})


def model_variable(
    name: str,
    shape: Any,
    dtype: Any,
    *,
    collections: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    constraint: Any = None,
    trainable: bool | None = None,
) -> jax.Array:
    """A variable that is a model variable too, in these further collections. slim: `slim.model_variable`."""
    return js.get_variable(
        name,
        shape,
        dtype=dtype,
        collections=[*(collections or ()), *_MODEL],
        initializer=initializer_of(initializer, name),
        regularizer=regularizer_of(regularizer, name),
        constraint=constraint,
        trainable=trainable,
    )


def collections_for(variables_collections: Any, name: str) -> tuple[str, ...]:
    """The names that `variables_collections`, a name, a list or a dict of them by kind of variable, has for a kind.

    Raises:
      BadArgumentError: for a kind that no layer has. One dict may be for several layers, as slim's arg_scopes have it.
    """
    if not isinstance(variables_collections, dict):
        return names_of(variables_collections)
    check_keys(variables_collections, _KINDS, "variables_collections", "variables_collections")
    return names_of(variables_collections.get(name))


def collect_variable(variable: jax.Array, variables_collections: Any, name: str) -> None:
    """Adds a variable to the collections of its kind in which it is not yet."""
    full_name = None
    for collection in collections_for(variables_collections, name):
        with of_variables(name):
            full_name = full_name or js.name_of(variable)
        if all(getattr(item, "name", None) != full_name for item in js.get_collection(collection)):
            js.add_to_collection(collection, variable)


def collect_outputs(outputs_collections: Any, outputs: jax.Array, alias: str | None = None) -> jax.Array:
    """Adds an output to a collection or a list of them, and returns it.

    Args:
      alias: the name of the output there, default that of the variable scope in force.
    """
    for name in names_of(outputs_collections):
        js.add_to_collection(name, outputs)
        js.add_to_collection(_aliases(name), ((alias or js.get_variable_scope().name).removesuffix("/"), outputs))
    return outputs


def named_outputs(collection: str) -> list[tuple[str, jax.Array]]:
    """The names of outputs in a collection, and the outputs."""
    return js.get_collection(_aliases(collection))


def _aliases(collection: str) -> Any:
    """The collection of the names of outputs in a collection; arrays have none. Any hashable is a key, as in TF1."""
    return ("aliases", collection)


def collect_weights(variables: dict[str, jax.Array], variables_collections: Any) -> None:
    """Adds the variables of a layer, by their names in `tf.layers`, to the collections asked for."""
    for name, variable in variables.items():
        collect_variable(variable, variables_collections, "biases" if name == "bias" else "weights")


def finish(
    outputs: jax.Array,
    *,
    normalizer_fn: Any = None,
    normalizer_params: dict[str, Any] | None = None,
    activation_fn: Activation | str | None,
    outputs_collections: Any,
) -> jax.Array:
    """What every layer of this package does with its output."""
    activation = activation_of(activation_fn, "activation_fn", "activation_fn")
    if normalizer_fn is not None:
        outputs = normalizer_fn(outputs, **(normalizer_params or {}))
    if activation is not None:
        outputs = activation(outputs)
    return collect_outputs(outputs_collections, outputs)
