"""Programs: `transform`, and the same modes opened by hand, `build` and `bind`. Floor 4."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ._ambient import Frame, Hint
from ._compat import needed_only
from ._errors import BadNameError, BadTypeError, InitializerError, user_line
from ._params import Params
from ._scope import new_scopes
from ._show import some
from ._sources import Abstract, Drawn, Given, Source, abstract_key
from ._specs import Specs, params_of
from ._store import Store
from ._values import FromProgram

_RESERVED = ("rng", "warm_start")


class Transformed:
    """A program as pure functions of an explicit tree, made by `transform`. Frozen; equal for equal functions.

    `specs`, `init`, `apply` and `update` are the same objects at every access, so `jax.jit(net.apply)` caches.
    """

    __slots__ = ("__dict__", "_fn", "_hint")

    __name__: str

    def __init__(self, fn: Callable[..., Any]) -> None:
        name = getattr(fn, "__name__", type(fn).__name__)
        members = {"__name__": name, "__qualname__": getattr(fn, "__qualname__", name), "__doc__": fn.__doc__}
        members |= {"__wrapped__": fn, "__module__": getattr(fn, "__module__", __name__)}
        object.__setattr__(self, "_fn", fn)
        object.__setattr__(self, "_hint", Hint())
        # JAX names a compiled program after its function: jit(net.apply) reads as jit(program).
        for member, shown in (("specs", "_specs"), ("init", "_init"), ("apply", ""), ("update", "_update")):
            method = getattr(type(self), member)
            bound = functools.wraps(method)(functools.partial(method, self))
            bound.__name__ = bound.__qualname__ = name + shown  # type: ignore[attr-defined]
            _, *parameters = inspect.signature(method).parameters.values()
            bound.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            members[member] = bound
        self.__dict__.update(members)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a transformed program is frozen: {name!r} can't be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a transformed program is frozen: {name!r} can't be deleted")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transformed) and self._fn == other._fn

    def __hash__(self) -> int:
        try:
            return hash((Transformed, self._fn))
        except TypeError:  # a callable that has no hash, such as a plain dataclass
            return hash((Transformed, type(self._fn)))

    def __reduce__(self) -> str | tuple[Any, ...]:
        module = sys.modules.get(self.__module__)
        if module is not None and getattr(module, self.__name__, None) is self:
            return self.__name__  # it stands where its function would: js.transform as a decorator
        return transform, (self._fn,)

    def __repr__(self) -> str:
        return f"<jscope program {self.__name__}>"

    def specs(self, /, *args: Any, **kwargs: Any) -> Specs:
        """Every variable that the program declares, without running it.

        The program is traced abstractly: JAX and NumPy arrays and `ShapeDtypeStruct`s among the arguments become
        abstract; everything else (Python bools, numbers, strings, ...) is passed through as it is. No array is made.

        Args:
          *args, **kwargs: the program's own.

        Returns:
          The declarations, in order of creation.

        Raises:
          JscopeError: what the program's own calls raise.

        Example:
          >>> net = js.transform(lambda x: x @ js.get_variable("w", [x.shape[-1], 3]))
          >>> net.specs(jax.ShapeDtypeStruct((1, 2), jnp.float32))["w"].shape
          (2, 3)
        """
        return Specs(self._trace(Abstract, abstract_key(), args, kwargs)[0])

    def init(self, key: jax.Array, /, *args: Any, warm_start: Mapping[str, Any] | None = None, **kwargs: Any) -> Params:
        """All initial values; nothing else of the program is computed. Can be jitted, vmapped over keys, `eval_shape`d.

        Haiku: `net.init(key, x)`; Flax: `model.init(key, x)`; TF1: `tf.global_variables_initializer()`.

        Args:
          key: a JAX random key.
          *args, **kwargs: the program's own.
          warm_start: a tree of values to keep; only what it lacks is made, as in `Specs.init`.

        Returns:
          The tree; every leaf is a fresh array of its own, so it may be donated.

        Raises:
          ParamsMismatchError: if `warm_start` does not fit.
          JscopeError: what the program's own calls raise.

        Example:
          >>> net = js.transform(lambda x: x @ js.get_variable("w", [2, 3]))
          >>> net.init(jax.random.key(0), jnp.ones((1, 2)), warm_start={"w": jnp.ones((2, 3))})["w"].sum()
          Array(6., dtype=float32)
        """
        _check_key(key, "init")
        specs = Specs(self._trace(Abstract, key, args, kwargs)[0])
        kept = Params(warm_start or {}).names
        by_program = [
            name for name, spec in specs.items() if isinstance(spec.initializer, FromProgram) and name not in kept
        ]
        computed = self._computed(key, by_program, args, kwargs) if by_program else {}
        return specs.init_with(key, computed, warm_start)

    def apply(self, params: Mapping[str, Any], /, *args: Any, rng: jax.Array | None = None, **kwargs: Any) -> Any:
        """Runs the program on the variables in `params`. Pure; makes no variables.

        TF1: `session.run`; Haiku and Flax: `apply`.

        Args:
          params: the tree, a `Params` or any nested or flat mapping. It may hold more than the program reads.
          *args, **kwargs: the program's own.
          rng: root of `next_key`.

        Returns:
          What the program returns.

        Raises:
          ParamsMismatchError: if the tree lacks a variable or holds it with another shape or dtype; all faults at once.
          AssignError: if the program assigns: call `update`.
          JscopeError: what the program's own calls raise.

        Example:
          >>> net = js.transform(lambda x: x @ js.get_variable("w", [2, 3]))
          >>> net.apply({"w": jnp.ones((2, 3))}, jnp.ones((1, 2)))
          Array([[2., 2., 2.]], dtype=float32)
        """
        tree = params_of(params, "apply")
        return self._run(tree, rng, False, args, kwargs)[0]

    def update(
        self, params: Mapping[str, Any], /, *args: Any, rng: jax.Array | None = None, **kwargs: Any
    ) -> tuple[Any, Params]:
        """As `apply`, returning also the tree with all assignments made.

        Haiku: `transform_with_state`; Flax: `apply(..., mutable=...)`.

        Args:
          params, *args, rng, **kwargs: as in `apply`.

        Returns:
          `(out, params)`; leaves that nobody assigned are the very ones given.

        Raises:
          ParamsMismatchError: as in `apply`.
          JscopeError: what the program's own calls raise.

        Example:
          >>> def count():
          ...     n = js.get_variable("n", [], jnp.int32, trainable=False)
          ...     js.assign(n, n + 1)
          >>> js.transform(count).update({"n": jnp.int32(1)})[1]["n"]
          Array(2, dtype=int32)
        """
        tree = params_of(params, "update")
        out, assigned = self._run(tree, rng, True, args, kwargs)
        return out, tree.replace(assigned)

    def _run(
        self, tree: Params, rng: Any, can_assign: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        def all_faults() -> list[str]:
            try:
                return self.specs(*args, **kwargs).compare(tree).faults(allow_unexpected=True)
            except Exception:  # a program that runs on concrete values only: the first fault has to do
                return []

        if rng is not None:
            _check_key(rng, "rng=")
        # As `specs` and `jax.jit` do: the program sees dicts in JAX's order, whatever order they come in.
        args, kwargs = jax.tree.unflatten(*jax.tree.flatten((args, kwargs))[::-1])
        store = Store(Given(tree, all_faults), new_scopes(shown=True), rng=rng, can_assign=can_assign)
        try:
            with Frame(store, self._hint):
                out = self._fn(*args, **kwargs)
            return out, store.assigned()
        finally:
            store.release()

    def _computed(
        self, key: jax.Array, names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, jax.Array]:
        """The initial values that the program computes, and nothing else of it."""
        _, traced, arrays = self._trace(Drawn, key, args, kwargs, names)
        if any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays):
            raise InitializerError(
                f"The initial values of {some(names)} are computed by the program, from arguments that are abstract.",
                kind="from_program",
                where=user_line(),
                fix="call init with arrays, not with ShapeDtypeStructs",
            )
        values = jax.jit(needed_only(traced))(*jax.tree.leaves((key, arrays)))
        return dict(zip(names, values, strict=True))

    def _trace(
        self,
        source: Callable[[jax.Array], Source],
        key: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wanted: list[str] | None = None,
    ) -> tuple[list[Any], Any, list[Any]]:
        """Runs the program abstractly: its declarations, the trace of `wanted` initial values, its array inputs."""
        leaves, structure = jax.tree.flatten((args, kwargs))
        abstract = [isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct) for leaf in leaves]
        arrays = [leaf for leaf, is_array in zip(leaves, abstract, strict=True) if is_array]
        declared: list[Any] = []

        # A new function each time: JAX caches traces by function, and on a hit the program would not run.
        def traced(key: jax.Array, arrays: list[Any]) -> list[Any]:
            rest = iter(arrays)
            filled = [next(rest) if is_array else leaf for leaf, is_array in zip(leaves, abstract, strict=True)]
            args, kwargs = jax.tree.unflatten(structure, filled)
            store = Store(source(key), new_scopes(shown=False), rng=key)
            try:
                with Frame(store, self._hint):
                    self._fn(*args, **kwargs)
                declared.extend(store.specs())
                return [store.computed[name] for name in wanted or ()]
            finally:
                store.release()

        return declared, jax.make_jaxpr(traced)(key, arrays), arrays


def transform(fn: Callable[..., Any]) -> Transformed:
    """Turns a program, a function that asks for variables by name, into pure functions over one tree.

    Haiku: `hk.transform`; TF1: `tf.Graph` and `tf.Session` together.

    Args:
      fn: any callable. `rng` and `warm_start` are reserved and can't be names of its parameters.

    Returns:
      A `Transformed` with `specs`, `init`, `apply` and `update`, which keeps the function's name and docstring.

    Raises:
      BadTypeError: if `fn` is not callable.
      BadNameError: if a parameter has a reserved name.

    Example:
      >>> def program(x):
      ...     with js.variable_scope("linear"):
      ...         return x @ js.get_variable("w", [x.shape[-1], 3])
      >>> net = js.transform(program)
      >>> params = net.init(jax.random.key(0), jnp.ones((1, 2)))
      >>> params, net.apply(params, jnp.ones((1, 2))).shape
      (Params({linear: {w: f32[2,3]}}), (1, 3))
    """
    if not callable(fn) or isinstance(fn, Transformed):
        raise BadTypeError(
            f"transform takes a function, not {fn!r}.",
            kind="not_a_program",
            where=user_line(),
            fix="pass the function that calls get_variable",
        )
    if inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise BadTypeError(
            f"Program {getattr(fn, '__name__', fn)} is a generator or coroutine: its body runs after it has ended.",
            kind="not_a_program",
            where=user_line(),
            fix="make it a plain function that returns its results",
        )
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        parameters = {}
    for name in _RESERVED:
        if name in parameters:
            raise BadNameError(
                f"Program {getattr(fn, '__name__', fn)} has a parameter called {name!r}, which jscope keeps.",
                kind="reserved",
                where=user_line(),
                fix="rename it; random keys come from js.next_key() and apply(..., rng=key)",
            )
    return Transformed(fn)


class _OpenedByHand:
    """What `build` and `bind` have in common: a store whose calls are made line by line."""

    def __init__(self, store: Store, call: str) -> None:
        self._store = store
        self._frame = Frame(store, Hint(), refuses_inner_calls=call)

    def __exit__(self, *exception: Any) -> None:
        self._frame.__exit__(*exception)

    @property
    def params(self) -> Params:
        """A snapshot of the variables so far, with their current values."""
        return Params(self._store.values())

    @property
    def specs(self) -> Specs:
        """A snapshot of the declarations so far."""
        return Specs(self._store.specs())


class build(_OpenedByHand):  # noqa: N801 (reads as a statement: `with js.build(key):`)
    """Makes variables line by line, for notebooks, tests and ports: inside, `get_variable` makes the array at once.

    A context manager that yields itself; `.params` and `.specs` are immutable snapshots, during and after the block.
    Values are those that `net.init` gives under the same key. Ambient calls inside JAX transforms are refused.

    Args:
      key: a JAX random key, for initial values and `next_key`.

    Raises:
      TransformError: at an ambient call inside a JAX transform.

    Example:
      >>> with js.build(jax.random.key(0)) as built:
      ...     w = js.get_variable("w", [2])
      >>> built.params
      Params({w: f32[2]})
    """

    def __init__(self, key: jax.Array) -> None:
        _check_key(key, "build")
        super().__init__(Store(Drawn(key), new_scopes(shown=True), rng=key), "js.build")

    def __enter__(self) -> build:
        self._frame.__enter__()
        return self


class bind(_OpenedByHand):  # noqa: N801
    """Reads variables line by line from a tree: `apply` opened by hand.

    A context manager that yields itself; `.params` holds what was read so far.

    Args:
      params: the tree, a `Params` or any mapping.
      rng: root of `next_key`.

    Raises:
      ParamsMismatchError: inside, for a variable that the tree does not hold as asked.
      AssignError: inside, at `assign`.
      TransformError: at an ambient call inside a JAX transform.

    Example:
      >>> with js.bind({"w": jnp.ones(2)}):
      ...     js.get_variable("w", [2])
      Array([1., 1.], dtype=float32)
    """

    def __init__(self, params: Mapping[str, Any], rng: jax.Array | None = None) -> None:
        tree = params_of(params, "bind")
        super().__init__(Store(Given(tree), new_scopes(shown=True), rng=rng, can_assign=False), "js.bind")

    def __enter__(self) -> bind:
        self._frame.__enter__()
        return self


def _check_key(key: Any, what: str) -> None:
    if not isinstance(key, jax.Array):
        raise BadTypeError(
            f"{what} takes a JAX random key, not a {type(key).__name__}.",
            kind="bad_key",
            where=user_line(),
            fix="pass jax.random.key(0)",
        )
