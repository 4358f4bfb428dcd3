"""`slim.utils`, as far as it is about end points: outputs collected under the names of their layers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import jax

import jscope as js

from ..faults import as_flag, bad_argument, refuse
from .collections import collect_outputs, named_outputs


def collect_named_outputs(collections: Any, alias: str, outputs: jax.Array) -> jax.Array:
    """Adds an array to a collection or a list of them, under a name. TF1: `slim.utils.collect_named_outputs`.

    Args:
      collections: a collection's name, a list of them, or None for none.
      alias: the name that `convert_collection_to_dict` gives it; a final slash is left out.
      outputs: the array.

    Returns:
      `outputs`.

    Raises:
      TransformError: for an array made inside a JAX transform, where nobody outside could use it.

    Example:
      >>> from jscope.layers.contrib import utils
      >>> def program(x):
      ...     utils.collect_named_outputs("ends", "doubled", 2 * x)
      ...     return dict(utils.convert_collection_to_dict("ends"))
      >>> js.transform(program).apply({}, jnp.ones(2))
      {'doubled': Array([2., 2.], dtype=float32)}
    """
    return collect_outputs(collections, outputs, alias)


def convert_collection_to_dict(collection: str, clear_collection: bool = False) -> OrderedDict[str, Any]:
    """The outputs in a collection by the names of their layers. TF1: `slim.utils.convert_collection_to_dict`.

    Args:
      collection: its name, as given to layers by `outputs_collections=` and to `collect_named_outputs`.
      clear_collection: not supported; False only.

    Returns:
      name -> array, in the order of collecting. A layer's name is that of its scope: `vgg_16/conv1/conv1_1`.

    Raises:
      BadArgumentError: for what `js.add_to_collection` has added, which has no name; and for `clear_collection`.

    Example:
      >>> from jscope.layers import contrib as slim
      >>> def program(x):
      ...     with js.variable_scope("net"):
      ...         x = slim.fully_connected(x, 4, outputs_collections="ends")
      ...         x = slim.fully_connected(x, 2, scope="logits", outputs_collections="ends")
      ...     return slim.utils.convert_collection_to_dict("ends")
      >>> net = js.transform(program)
      >>> x = jnp.ones((3, 5))
      >>> {name: end.shape for name, end in net.apply(net.init(jax.random.key(0), x), x).items()}
      {'net/fully_connected': (3, 4), 'net/logits': (3, 2)}
    """
    asked = "convert_collection_to_dict"
    clears = as_flag(clear_collection, "clear_collection", asked)
    refuse(asked, "leave it out, and collect under another name", clear_collection=clears or None)
    named = named_outputs(collection)
    found: OrderedDict[str, Any] = OrderedDict()
    for item in js.get_collection(collection):
        if isinstance(item, js.VariableSpec):
            found[item.name] = js.value(item)
            continue
        names = [alias for alias, outputs in named if outputs is item]
        if not names:
            raise bad_argument(
                f"The collection {collection!r} has an array that was added without a name.",
                asked=asked,
                fix="add it by utils.collect_named_outputs(collection, name, array)",
            )
        found.update(dict.fromkeys(names, item))
    return found
