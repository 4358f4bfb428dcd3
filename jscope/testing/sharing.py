"""`assert_uses` and `assert_shared`: every place that reads a parameter reads the same one, and learns with it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

import jscope as js
from jscope._support import run_watched, short_type

from .calls import QUICK, Call, instead, is_inexact, meant_by, moved, names_of, quietly, weighted_sum
from .functions import called
from .trees import is_array, listed

Program = js.Transformed | Callable[..., Any]


def assert_uses(
    function: Callable[..., Any], tree: Any, /, *args: Any, of: str, uses: int | None = None, **kwargs: Any
) -> None:
    """Leaves of a tree are used in as many places as said, and each of them gives the leaf a gradient of its own.

    The function is traced, and in the traced program each operation that reads the leaf is given a copy of it: so one
    learns the gradient that flows through this place alone. A tie that was split into two leaves (fewer uses), copied
    as a constant (fewer uses), or stopped by `stop_gradient` (no gradient) is found, which no test of values can do.

    Args:
      function: of jscope or not: `function(tree, *args, **kwargs)`.
      tree: its parameters: `Params`, nested dicts, the state of a Flax or Haiku model.
      *args, **kwargs: the other arguments.
      of: the leaves: a name such as `tower/kernel`, a scope that they lie in, or a regular expression for the names,
        matched from the start as in TF1's `scope=`. At least one leaf must be meant.
      uses: in how many operations each is read, 0 for none; default any number but zero. A cast, a transposition or a
        change of shape is none, but what reads the result of it is one; what stands in one `scan`, `cond` or
        `checkpoint` is one.

    Raises:
      AssertionError: listing the places that read each leaf, and which of them give it no gradient.

    Example:
      >>> from jscope.testing import assert_uses
      >>> def autoencoder(p, x):
      ...     return jnp.tanh(x @ p["kernel"]) @ p["kernel"].T
      >>> assert_uses(autoencoder, {"kernel": jnp.ones((3, 2))}, jnp.ones(3), of="kernel", uses=2)
      >>> def stopped(p, x):
      ...     return jnp.tanh(x @ jax.lax.stop_gradient(p["kernel"])) @ p["kernel"].T
      >>> try:
      ...     assert_uses(stopped, {"kernel": jnp.ones((3, 2))}, jnp.ones(3), of="kernel", uses=2)
      ... except AssertionError as error:
      ...     print(str(error).splitlines()[0])
      `stopped` does not share what it should:
    """
    __tracebackhide__ = True
    names = names_of(tree)
    faults = _faults(function, tree, args, kwargs, meant_by(of, names), uses)
    if faults:
        raise AssertionError(listed(f"`{called(function)}` does not share what it should:", faults))


def _faults(
    function: Callable[..., Any], tree: Any, args: Any, kwargs: Any, names: Collection[str], uses: int | None
) -> list[str]:
    """What is wrong with the use of the leaves of these names."""
    call, position, faults = Call(function, (tree, *args), kwargs), 0, []
    for name, leaf in zip(names_of(tree), jax.tree.leaves(tree), strict=True):
        if name in names:
            faults += _faults_of_leaf(call, position, name, uses) if is_array(leaf) else [f"'{name}' is no array"]
        position += is_array(leaf)
    return faults


def _faults_of_leaf(call: Call, position: int, name: str, uses: int | None) -> list[str]:
    with quietly():
        places, silent = _places(call, position)
    where = "".join(f"\n      {place}" for place in places)
    if uses is not None and len(places) != uses:
        return [f"'{name}' is read in {len(places)} places, not in {uses}:{where or ' none'}"]
    if not places and uses is None:
        return [f"'{name}' is not read at all"]
    return [f"'{name}' gets no gradient from {place}" for place in silent]


def _places(call: Call, position: int) -> tuple[list[str], list[str]]:
    """The operations that read one of the arrays, and those of them through which it gets no gradient."""
    closed = jax.make_jaxpr(lambda *arrays: call.run(*arrays))(*call.arrays)
    places: list[str] = []

    def count(array: Any, place: str) -> Any:
        places.append(place)
        return array

    jax.eval_shape(lambda *arrays: run_watched(closed, list(arrays), position, count), *call.arrays)
    leaf = call.arrays[position]
    if not places or not is_inexact(leaf):
        return places, []

    def total(copies: list[Any]) -> jax.Array:
        rest = iter(copies)
        return weighted_sum(run_watched(closed, call.arrays, position, lambda *_: next(rest)))

    found = jax.jit(jax.grad(total), compiler_options=QUICK)([jnp.asarray(leaf)] * len(places))
    return places, [place for place, gradient in zip(places, found, strict=True) if not jnp.any(gradient != 0)]


def assert_shared(
    program: Program,
    scope: str,
    /,
    *args: Any,
    uses: int,
    params: Any = None,
    rng: jax.Array | None = None,
    gradients: bool = True,
    **kwargs: Any,
) -> None:
    """The variables of a scope are shared by as many users as said: by name, by count of reads, and by gradient.

    Every variable in the scope must be read `uses` times, and every operation that reads a trainable one must give it a
    gradient of its own (`assert_uses`). So a misspelt scope under `AUTO_REUSE`, a tie that was split, a read whose
    result is not used, and a `stop_gradient` on one side are found. TF1: comparing `tf.trainable_variables()` by eye;
    Haiku and Flax have no names to count reads by.

    Args:
      program: a function or a transformed program.
      scope: the name of a scope, or of one variable.
      *args, **kwargs: arguments of the program, not zeros: those give a kernel no gradient.
      uses: how many times each variable is read with `get_variable`.
      params: the parameters; default those of `init`, moved away from zeros by a little noise.
      rng: as in `apply`.
      gradients: whether every use must give a gradient; False for what is not learned.

    Raises:
      AssertionError: listing the variables that are read more or less often, where, and variables elsewhere that look
        like a copy.

    Example:
      >>> from jscope.testing import assert_shared
      >>> def tower(x, scope="tower"):
      ...     with js.variable_scope(scope, reuse=js.AUTO_REUSE):
      ...         return jnp.tanh(x @ js.get_variable("kernel", [3, 2]))
      >>> assert_shared(lambda a, b: tower(a) - tower(b), "tower", jnp.ones(3), jnp.zeros(3) + 2, uses=2)
      >>> try:
      ...     assert_shared(lambda a, b: tower(a) - tower(b, "towr"), "tower", jnp.ones(3), jnp.ones(3), uses=2)
      ... except AssertionError as error:
      ...     print(str(error).partition(" (at ")[0])
      'tower' is not shared by 2 uses:
        - 'tower/kernel' is read 1 time
    """
    __tracebackhide__ = True
    net = program if isinstance(program, js.Transformed) else js.transform(program)
    specs = net.specs(*args, **kwargs)
    inside = [spec for name, spec in specs.items() if name == scope or name.startswith(f"{scope}/")]
    if not inside:
        scopes = dict.fromkeys(name.rpartition("/")[0] for name in specs)
        raise AssertionError(
            f"There is no variable '{scope}', nor one in a scope of that name{instead(scope, [*scopes])}."
        )
    faults = [_miscounted(spec, specs, inside) for spec in inside if 1 + len(spec.used_at) != uses]
    if faults:
        raise AssertionError(listed(f"'{scope}' is not shared by {uses} uses:", faults))
    if gradients:
        params = net.init(jax.random.key(0), *args, **kwargs) if params is None else js.Params(params)
        params = params.map_with_name(lambda _, leaf: moved(leaf) if is_inexact(leaf) else leaf)
        given = kwargs if rng is None else {**kwargs, "rng": rng}

        def output(*args: Any, **kwargs: Any) -> Any:
            return net.update(*args, **kwargs)[0]  # `apply` refuses to assign

        faults = _faults(output, params, args, given, [spec.name for spec in inside if spec.trainable], None)
    if faults:
        raise AssertionError(listed(f"'{scope}' is not shared by {uses} uses:", faults))


def _miscounted(spec: js.VariableSpec, specs: js.Specs, shared: list[js.VariableSpec]) -> str:
    count = 1 + len(spec.used_at)
    places = ", ".join((spec.created_at, *spec.used_at))
    last = spec.name.rpartition("/")[2]
    own = {inside.name for inside in shared}
    copies = [
        f"\n      '{other.name}' looks like a copy of it: {short_type(other)} (made at {other.created_at})"
        for other in specs.values()
        if other.shape == spec.shape and other.name.rpartition("/")[2] == last and other.name not in own
    ]
    return f"'{spec.name}' is read {count} time{'s' if count != 1 else ''} (at {places}){''.join(copies)}"
