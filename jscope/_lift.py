"""`lift`: another program's variables, declared here and handed over as an explicit tree. Floor 4."""

from __future__ import annotations

import dataclasses
import sys
from types import FrameType
from typing import Any, ParamSpec

from ._ambient import current
from ._arguments import Arguments
from ._callsite import user_line, user_place
from ._errors import BadTypeError, InitializerError
from ._layout import Layout
from ._params import Params, make
from ._show import short
from ._specs import Specs, VariableSpec
from ._transform import Transformed
from ._values import FromProgram, InitialValue
from .run.record import TRAINABLE_VARIABLES
from .run.variables import Run

P = ParamSpec("P")


def lift(net: Transformed[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Params:
    """Declares (or, under reuse, finds) the variables of `net` under the current scope, and gives them as a tree.

    `net.apply(tree, ...)` is then an explicit, pure call: a body for transforms that take all inputs as arguments, and
    one function, so that JAX keeps one trace of `jax.checkpoint(net.apply)`, however many scopes it is lifted in. What
    `net` declares is found out once in a run for arguments of one kind, so `net` should depend on its arguments alone.
    It keeps its own defaults: the initializer, regularizer, dtype and getter of the current scope do not reach into it.
    Only `trainable=False` of the scope does: whatever is made in a frozen scope is frozen.

    If `net` assigns: `out, new = net.update(tree, ...)` gives the new values, `js.assign(tree, new)` takes them over.
    Out of `jax.checkpoint` or `jax.jit` all leaves of `new` come as new arrays; take over what the program assigns:
    `js.assign(tree, new.select(pattern)[0])`.

    Args:
      net: a program made by `transform`.
      *args, **kwargs: the program's own; only shapes and dtypes of arrays are looked at.

    Returns:
      A `Params` by the names that `net` has on its own.

    Raises:
      BadTypeError: if `net` is no transformed program.
      InitializerError: if `net` computes an initial value itself.
      OutsideProgramError: where no program runs.
      JscopeError: as `get_variable` of each of the variables.

    Example:
      >>> layer = js.transform(lambda x: jnp.tanh(x @ js.get_variable("w", [2, 2])))
      >>> def program(x):
      ...     for i in range(3):
      ...         with js.variable_scope(f"layer_{i}"):
      ...             x = jax.checkpoint(layer.apply)(js.lift(layer, x), x)
      ...     return x
      >>> js.transform(program).specs(jnp.ones((1, 2))).abstract()
      Params({layer_0: {w: f32[2,2]}, layer_1: {w: f32[2,2]}, layer_2: {w: f32[2,2]}})
    """
    caller = sys._getframe(1)
    run = current("lift", caller)
    if not isinstance(net, Transformed):
        raise BadTypeError(
            f"lift takes a transformed program, not {short(net)}.",
            kind="not_a_program",
            where=user_line(),
            fix="pass js.transform(function)",
        )
    kind = Arguments(args, kwargs).kind()
    lifted = None if kind is None else run.lifted.get((net, kind))
    if lifted is None:
        lifted = _Lifted(net.specs(*args, **kwargs))
        if kind is not None:
            run.lifted[net, kind] = lifted
        run = current("lift", caller)
    return make(lifted.layout, lifted.under(run, caller))


class _Lifted:
    """What a program declares, prepared for many scopes of one run."""

    __slots__ = ("_order", "_specs", "layout")

    def __init__(self, specs: Specs) -> None:
        self._specs = list(specs.values())
        self._order = sorted(range(len(specs)), key=lambda i: self._specs[i].name)
        self.layout = Layout.of(tuple(sorted(specs)))

    def under(self, run: Run, caller: FrameType) -> tuple[Any, ...]:
        """The variables in the current scope, made or, under reuse, found; by sorted names."""
        state, place = run.scopes.state, user_place(caller)
        if state.prefix:
            run.scopes.op_names.check("", state.prefix)
        values = []
        for spec in self._specs if state.trainable else map(_frozen, self._specs):
            key = state.prefix + spec.name
            new = key not in run.by_key and state.reuse is not True and not isinstance(spec.initializer, FromProgram)
            values.append(run.adopt(spec, key, place) if new else _declared(run, caller, spec, key))
        return tuple([values[i] for i in self._order])


def _frozen(spec: VariableSpec) -> VariableSpec:
    collections = tuple(name for name in spec.collections if name != TRAINABLE_VARIABLES)
    return dataclasses.replace(spec, trainable=False, collections=collections)


def _declared(run: Run, caller: FrameType, spec: VariableSpec, key: str) -> Any:
    initializer, shape = spec.initializer, spec.shape
    if isinstance(initializer, FromProgram):
        raise InitializerError(
            f"'{spec.name}' can't be lifted: the lifted program computes its initial value.",
            kind="from_program",
            exists=f"made at {spec.created_at}",
            scope=run.scopes.state.name,
            where=user_line(),
            fix="give that variable an initializer callable, or call the program's function directly",
        )
    if isinstance(initializer, InitialValue):
        initializer, shape = initializer.array, None
    return run.get_variable(
        caller,
        key,
        shape,
        spec.dtype,
        initializer,
        spec.regularizer,
        spec.trainable,
        spec.collections,
        lambda shape, dtype: spec.partition,
        spec.constraint,
        resolved=(run.scopes.state.reuse, "", None),
    )
