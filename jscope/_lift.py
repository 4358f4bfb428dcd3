"""`lift`: another program's variables, declared here and handed over as an explicit tree. Floor 4."""

from __future__ import annotations

from typing import Any

from ._ambient import current
from ._arguments import Arguments, ByKind
from ._errors import BadTypeError, InitializerError, user_line
from ._layout import Layout
from ._params import Params, make
from ._specs import Specs, VariableSpec
from ._store import Store
from ._transform import Transformed
from ._values import FromProgram, InitialValue


def lift(net: Transformed, /, *args: Any, **kwargs: Any) -> Params:
    """Declares (or, under reuse, finds) the variables of `net` under the current scope, and gives them as a tree.

    `net.apply(tree, ...)` is then an explicit, pure call: a body for transforms that take all inputs as arguments, and
    one function, so that JAX keeps one trace of `jax.checkpoint(net.apply)`, however many scopes it is lifted in. What
    `net` declares is found out once for arguments of one kind, so `net` should depend on its arguments alone. It keeps
    its own defaults: the initializer, regularizer, dtype and getter of the current scope do not reach into it.

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
    store = current("lift")
    if not isinstance(net, Transformed):
        raise BadTypeError(
            f"lift takes a transformed program, not {net!r}.",
            kind="not_a_program",
            where=user_line(),
            fix="pass js.transform(function)",
        )
    arguments = Arguments(args, kwargs)
    known, kind = net._lifted, arguments.kind(plain=True)
    lasts = kind is not None
    if not lasts:  # what such arguments mean may change, but not within this run
        known, kind = store.lifted.setdefault(net, ByKind()), arguments.kind(plain=False)
    lifted = known.get(kind)
    if lifted is None:
        lifted = known.keep(kind, _Lifted(net.specs(*args, **kwargs), lasts))
        store = current("lift")
    return make(lifted.layout, store.lift(lifted))


class _Lifted:
    """What a program declares, prepared for many scopes: a `Lifted` of the store's."""

    __slots__ = ("_order", "_specs", "lasts", "layout", "names")

    def __init__(self, specs: Specs, lasts: bool) -> None:
        self._specs = list(specs.values())
        self._order = sorted(range(len(specs)), key=lambda i: self._specs[i].name)
        self.layout = Layout.of(tuple(sorted(specs)))
        self.names = self.layout.names
        self.lasts = lasts

    def under(self, store: Store, place: tuple[str, int] | None) -> tuple[Any, ...]:
        """The variables in the current scope, made or, under reuse, found."""
        state, known = store.scopes.state, store.registry.by_key
        if state.prefix:
            store.scopes.op_names.check("", state.prefix)
        values = []
        for spec in self._specs:
            key = state.prefix + spec.name
            new = key not in known and state.reuse is not True and not isinstance(spec.initializer, FromProgram)
            values.append(store.adopt(spec, key, place) if new else _declared(store, spec, key))
        return tuple([values[i] for i in self._order])


def _declared(store: Store, spec: VariableSpec, key: str) -> Any:
    initializer, shape = spec.initializer, spec.shape
    if isinstance(initializer, FromProgram):
        raise InitializerError(
            f"'{spec.name}' can't be lifted: the lifted program computes its initial value.",
            kind="from_program",
            exists=f"made at {spec.created_at}",
            scope=store.scopes.state.name,
            where=user_line(),
            fix="give that variable an initializer callable, or call the program's function directly",
        )
    if isinstance(initializer, InitialValue):
        initializer, shape = initializer.array, None
    return store.get_by_key(
        key,
        shape,
        spec.dtype,
        initializer,
        spec.regularizer,
        store.scopes.state.reuse,
        spec.trainable,
        spec.collections,
        lambda shape, dtype: spec.partition,
        spec.constraint,
    )
