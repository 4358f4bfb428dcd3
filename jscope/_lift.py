"""`lift`: another program's variables, declared here and handed over as an explicit tree. Floor 4."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NamedTuple, ParamSpec, overload

import jax
import jax.numpy as jnp
import numpy as np

from ._ambient import current
from ._arguments import Arguments
from ._callsite import user_line, user_place
from ._errors import BadArgumentError, BadNameError, BadTypeError, InitializerError
from ._initial_values import Stacked
from ._layout import Layout
from ._names import near
from ._params import Params, make
from ._show import short
from ._specs import Specs
from ._transform import Transformed
from ._values import FromProgram, InitialValue, is_of_keys, is_traced
from ._variable_spec import VariableSpec
from .run.record import TRAINABLE_VARIABLES
from .run.variables import Run

P = ParamSpec("P")

_OWN = ("stack", "names", "axis")  # keyword arguments of `lift` itself


@overload
def lift(net: Transformed[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Params: ...
@overload
def lift(
    net: Transformed[..., Any], /, *args: Any, stack: int, names: str = ..., axis: str | None = ..., **kwargs: Any
) -> Params: ...
def lift(net: Any, /, *args: Any, stack: int | None = None, **kwargs: Any) -> Params:
    """Declares (or, under reuse, finds) the variables of `net` under the current scope, and gives them as a tree.

    `net.apply(tree, ...)` is then an explicit, pure call: a body for transforms that take all inputs as arguments, and
    one function, so that JAX keeps one trace of `jax.checkpoint(net.apply)`, however many scopes it is lifted in. What
    `net` declares is found out once in a run for arguments of one kind, so `net` should depend on its arguments alone.
    It keeps its own defaults: the initializer, regularizer, dtype and getter of the current scope do not reach into it.
    Only `trainable=False` of the scope does: whatever is made in a frozen scope is frozen.

    If `net` assigns: `out, new = net.update(tree, ...)` gives the new values, `js.assign(tree, new)` takes them over.
    Out of `jax.checkpoint` or `jax.jit` all leaves of `new` come as new arrays; take over what the program assigns:
    `js.assign(tree, new.select(pattern)[0])`.

    With `stack=n`, the variables of n equal layers, one above the other, to be scanned over: n is the first dimension
    of each leaf. It starts from the values that n layers called `layer_0`, `layer_1`, ... would have in this scope, to
    the bit, so that `jscope.checkpoint.stack` and `unstack` lead from one form to the other. Regularizers and
    constraints act on each layer by itself. Flax: `nn.scan`; Haiku: `hk.layer_stack`.

    Args:
      net: a program made by `transform`.
      *args, **kwargs: the program's own; only shapes and dtypes of arrays are looked at.
      stack: the number of equal layers; None for one layer, as it is.
      names: with `stack`: what the layers would be called, default `"layer_%d"`.
      axis: with `stack`: what partitions call the first dimension, default `"layers"`; None for no name.

    Returns:
      A `Params` by the names that `net` has on its own.

    Raises:
      BadTypeError: if `net` is no transformed program, or `stack` no number.
      BadArgumentError: for `stack` below 1, and for `names` without one place for a number.
      BadNameError: with `stack`, if the program has a parameter of one of these three names.
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
      >>> def scanned(x):
      ...     layers = js.lift(layer, x, stack=3)
      ...     return jax.lax.scan(lambda x, one: (layer.apply(one, x), None), x, layers)[0]
      >>> js.transform(scanned).specs(jnp.ones((1, 2))).abstract()
      Params({w: f32[3,2,2]})
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
    # By identity: equal callable objects may do other things, as those do whose fields are 1 and True.
    program = id(net._fn), id(net._rules)
    net = net._under_rules(run.rules)
    layers = None if stack is None else _Stack.of(net, stack, kwargs)
    kind = Arguments(args, kwargs).kind()
    lifted = None if kind is None else run.lifted.get((program, kind))
    if lifted is None:
        try:
            lifted = _Lifted(net.specs(*args, **kwargs), net)
        except BadTypeError as error:
            unknown = set(kwargs).difference(_parameters(net)) if error.kind == "bad_call" else ()
            if any(near(name, _OWN) for name in unknown):
                error.fix = 'say how many equal layers: js.lift(net, ..., stack=12, names="layer_%d", axis="layers")'
            raise
        if kind is not None:
            run.lifted[program, kind] = lifted
        run = current("lift", caller)
    return make(lifted.layout, lifted.under(run, caller, layers))


class _Stack(NamedTuple):
    """Some equal layers: how many, what they would be called, and what partitions call their dimension."""

    layers: int
    names: str
    axis: str | None

    @classmethod
    def of(cls, net: Transformed, count: Any, kwargs: dict[str, Any]) -> _Stack:
        """What the user said; takes `names` and `axis` out of the keyword arguments."""
        own = [name for name in _OWN if name in _parameters(net)]
        if own:
            raise BadNameError(
                f"lift(stack=...) of program {net.__name__}, which has a parameter called {own[0]!r} itself.",
                kind="reserved",
                where=user_line(),
                fix=f"lift js.transform(functools.partial(function, {own[0]}=...)), or rename the parameter",
            )
        names, axis = kwargs.pop("names", "layer_%d"), kwargs.pop("axis", "layers")
        where = {
            "kind": "bad_stack",
            "asked": f"lift of program {net.__name__} with "
            f"stack={short(count)}, names={short(names)}, axis={short(axis)}",
            "where": user_line(),
        }
        if isinstance(count, bool) or is_traced(count) or not hasattr(count, "__index__"):
            fix = "give an int: it has to be known while the program is traced"
            raise BadTypeError(f"stack is the number of layers, not {short(count)}.", **where, fix=fix)
        if not (axis is None or isinstance(axis, str)):
            fix = 'give a name as in axis="layers", or None'
            raise BadTypeError(f"axis is the name of a dimension, not {short(axis)}.", **where, fix=fix)
        if operator.index(count) < 1:
            fix = "leave the layers out where there are none"
            raise BadArgumentError(f"stack={count}: there must be one layer at least.", **where, fix=fix)
        try:
            is_pattern = isinstance(names, str) and names % 0 != names % 1
        except (TypeError, ValueError):
            is_pattern = False
        if not is_pattern:
            fix = 'write it as in names="layer_%d"'
            what = f"names={short(names)} has no one place for the number of a layer."
            raise BadArgumentError(what, **where, fix=fix)
        return cls(operator.index(count), names, axis)

    def spec(self, spec: VariableSpec, prefix: str) -> VariableSpec:
        """The declaration of a variable of all layers, from that of one."""
        initializer = spec.initializer
        if isinstance(initializer, InitialValue):
            array = initializer.array
            broadcast_to = jnp.broadcast_to if is_of_keys(array.dtype) else np.broadcast_to
            with jax.ensure_compile_time_eval():  # a declaration holds no value of a trace
                initializer = InitialValue(broadcast_to(array, (self.layers, *array.shape)))
        elif not isinstance(initializer, FromProgram):
            names = [f"{prefix}{self.names % number}/{spec.name}" for number in range(self.layers)]
            initializer = Stacked(initializer, tuple(names))
        partition = spec.partition
        if partition is not None or self.axis is not None:
            partition = jax.sharding.PartitionSpec(self.axis, *(partition or ()))
        return dataclasses.replace(
            spec,
            shape=(self.layers, *spec.shape),
            initializer=initializer,
            regularizer=spec.regularizer and _PerLayer(spec.regularizer, is_sum=True),
            constraint=spec.constraint and _PerLayer(spec.constraint, is_sum=False),
            partition=partition,
        )


class _PerLayer:
    """A function of one layer's value, done to each of the layers that are stacked in a value; their sum, if asked for.

    Equal for equal functions, as what is declared in each run has to be.
    """

    def __init__(self, function: Callable[[Any], Any], is_sum: bool) -> None:
        self._function = function
        self._is_sum = is_sum

    def __call__(self, value: Any) -> Any:
        results = jax.vmap(self._function)(value)
        return jnp.sum(results) if self._is_sum and results is not None else results

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _PerLayer) and self._function == other._function

    def __hash__(self) -> int:
        return hash((_PerLayer, self._function))


def _parameters(net: Any) -> Iterable[str]:
    try:
        return inspect.signature(net.__wrapped__).parameters
    except (TypeError, ValueError):
        return ()


class _Lifted:
    """What a program declares, prepared for many scopes of one run."""

    __slots__ = ("_net", "_order", "_specs", "layout")

    def __init__(self, specs: Specs, net: Transformed[..., Any]) -> None:
        self._net = net  # kept alive, so that no other program is given its id
        self._specs = list(specs.values())
        self._order = sorted(range(len(specs)), key=lambda i: self._specs[i].name)
        self.layout = Layout.of(tuple(sorted(specs)))

    def under(self, run: Run, caller: FrameType, layers: _Stack | None) -> tuple[Any, ...]:
        """The variables in the current scope, made or, under reuse, found; by sorted names."""
        state, place = run.scopes.state, user_place(caller)
        if state.prefix:
            run.scopes.op_names.check("", state.prefix)
        values = []
        for spec in self._specs if state.trainable else map(_frozen, self._specs):
            key = state.prefix + spec.name
            if layers is not None:
                spec = layers.spec(spec, state.prefix)
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
        spec.partition,
        spec.constraint,
        resolved=(run.scopes.state.reuse, "", None),
    )
