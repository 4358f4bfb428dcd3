"""Programs: `transform`, and the same modes opened by hand, `build` and `bind`. Floor 4."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ._ambient import Frame, Hint, caches_here
from ._arguments import Arguments, ByKind
from ._carried import Carried, Rehearsal
from ._compat import needed_only
from ._drawers import Drawers
from ._errors import BadNameError, BadTypeError, InitializerError, user_line
from ._params import Params
from ._replay import Declaring, Reading, Recording
from ._rng import check_key
from ._scope import new_scopes
from ._script import NEVER, Never, Script
from ._show import some
from ._sources import Abstract, Drawn, Given, Source, abstract_key
from ._specs import Specs, VariableSpec, params_of
from ._store import Store
from ._values import FromProgram

# Parameters that a program can't have, and what they are for.
_RESERVED = {
    "rng": "random keys come from js.next_key() and apply(..., rng=key)",
    "warm_start": "values to keep are given as init(key, ..., warm_start=tree)",
}


class _Known(NamedTuple):
    """What earlier abstract runs of a program say, for arguments of one kind.

    Attributes:
      types: name -> type of the variables.
      script: of such a run, in which placeholders of these types were there; None if there was none yet.
      alike: what it declared.
    """

    types: dict[str, jax.ShapeDtypeStruct]
    script: Script | Never | None = None
    alike: Sequence[VariableSpec] = ()

    def after(self, front: Recording | Declaring | None, declared: list[VariableSpec]) -> _Known:
        """What is known after one more run; nothing of the run itself, since no trace may be kept."""
        if isinstance(front, Declaring) and not front.is_aside:
            return self
        if isinstance(front, Recording):
            script = front.script()
            if script is not None:
                return _Known(self.types, script, script.alike(declared))
        types = {spec.name: jax.ShapeDtypeStruct(spec.shape, spec.dtype) for spec in declared}
        # The first run leaves types alone: placeholders for a script are made of them.
        return _Known(types, None if self is _NOTHING_KNOWN else NEVER)


_NOTHING_KNOWN = _Known({})


class Transformed:
    """A program as pure functions of an explicit tree, made by `transform`. Frozen; equal for equal functions.

    `specs`, `init`, `apply` and `update` are the same objects at every access, so `jax.jit(net.apply)` caches.
    """

    __slots__ = ("__dict__", "_fn", "_hint", "_known", "_lifted", "_rehearsed", "_scripts")

    __name__: str

    def __init__(self, fn: Callable[..., Any]) -> None:
        name = getattr(fn, "__name__", type(fn).__name__)
        members = {"__name__": name, "__qualname__": getattr(fn, "__qualname__", name), "__doc__": fn.__doc__}
        members |= {"__wrapped__": fn, "__module__": getattr(fn, "__module__", __name__)}
        object.__setattr__(self, "_fn", fn)
        object.__setattr__(self, "_hint", Hint())
        object.__setattr__(self, "_rehearsed", ByKind())
        object.__setattr__(self, "_known", ByKind())
        object.__setattr__(self, "_scripts", ByKind())
        object.__setattr__(self, "_lifted", ByKind())  # `lift`'s own
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
        return self._declared(abstract_key(), Arguments(args, kwargs), None)[0]

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
        check_key(key, "init")
        arguments = Arguments(args, kwargs)
        kept = frozenset(params_of(warm_start, "warm_start").names if warm_start is not None else ())
        with Drawers(key, caches_here()) as drawers:
            specs, inside = self._declared(key, arguments, None if kept else drawers)
            by_program = [
                name for name, spec in specs.items() if isinstance(spec.initializer, FromProgram) and name not in kept
            ]
            computed = self._computed(key, specs, inside, by_program, arguments) if by_program else {}
            return specs.init_with(drawers, computed, warm_start)

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
            check_key(rng, "rng=")
        arguments = Arguments(args, kwargs)
        source = Given(tree, all_faults)
        carried = Carried(_ENTRY, self._assigned_inside(source, rng, arguments) if can_assign else frozenset())
        carried.start_all(source.start)
        store = Store(source, new_scopes(shown=True), rng=rng, can_assign=can_assign, carried=carried)

        def result(out: Any) -> tuple[Any, dict[str, Any]]:
            return out, store.assigned()

        kind = arguments.kind(plain=True)
        if kind is None or carried.names or not source.is_of_arrays:
            return self._call(store, arguments, result)
        kind = kind, tree._layout  # with the names of the tree, so that leaves of a script are looked up by their place
        script = self._scripts.get(kind)
        front: Reading | Recording | None = None
        if script is None and not self._scripts.is_full:
            front = Recording(store, source)
        elif script is not None and script.fits(source):
            front = Reading(store, script, source)
        returned = self._call(store, arguments, result, front=front)
        if isinstance(front, Recording):
            self._scripts.keep(kind, front.script() or NEVER)
        elif front is not None and front.is_aside:
            self._scripts.keep(kind, NEVER)
        return returned

    def _call(
        self,
        store: Store,
        arguments: Arguments,
        result: Callable[[Any], Any],
        arrays: list[Any] | None = None,
        front: Reading | Recording | None = None,
    ) -> Any:
        """Runs the program: `result(its output)`, while the store still has its values."""
        args, kwargs = arguments.filled(arrays)
        try:
            with Frame(store, self._hint, _ENTRY, front=front):
                out = self._fn(*args, **kwargs)
            return result(out)
        except Exception as error:
            refusal = store.carried.refusal(error)
            if refusal is None:
                raise
            raise refusal from error
        finally:
            store.release()

    def _assigned_inside(self, source: Source, rng: Any, arguments: Arguments) -> frozenset[str]:
        """The variables that the program assigns inside transforms for such arguments, from a rehearsal."""
        kind = arguments.kind(plain=True)
        known = self._rehearsed.get(kind)
        if known is not None:
            return known
        rehearsal = Rehearsal()
        store = Store(source, new_scopes(shown=False), rng=rng, carried=rehearsal)
        try:
            # A new function each time, as in `_declared`.
            jax.eval_shape(lambda: self._call(store, arguments, lambda out: None))
        except Exception:  # the run itself will say what is wrong, or needs concrete values and does without
            return frozenset(rehearsal.names)
        return self._rehearsed.keep(kind, frozenset(rehearsal.names))

    def _declared(self, key: Any, arguments: Arguments, drawers: Drawers | None) -> tuple[Specs, frozenset[str]]:
        """What the program declares, and which variables it assigns inside transforms, from an abstract run.

        What will draw the variables may be told of them at once.
        """
        rehearsal = Rehearsal()
        declared: list[VariableSpec] = []
        kind = arguments.kind(plain=True)
        before: _Known = self._known.get(kind, _NOTHING_KNOWN)
        known = before

        # A new function each time: JAX caches traces by function, and on a hit the program would not run.
        def traced(key: jax.Array, arrays: list[Any]) -> None:
            nonlocal known
            source = Abstract(key, before.types, drawers)
            store = Store(source, new_scopes(shown=False), rng=key, carried=rehearsal)
            front: Recording | Declaring | None = None
            specs = store.specs
            if before.script is not None and before.script.fits(source):
                front = Declaring(store, before.script, source, before.alike, key)
                specs = front.specs
            elif before.script is None and before is not _NOTHING_KNOWN:
                front = Recording(store, source, lifts=False)
            self._call(store, arguments, lambda out: declared.extend(specs()), arrays, front)
            known = before.after(front, declared)

        jax.eval_shape(traced, key, arguments.arrays)
        self._known.keep(kind, known)
        inside = self._rehearsed.keep(kind, frozenset(rehearsal.names))
        return Specs(declared), inside

    def _computed(
        self, key: jax.Array, specs: Specs, inside: frozenset[str], names: list[str], arguments: Arguments
    ) -> dict[str, jax.Array]:
        """The initial values that the program computes, and nothing else of it."""
        if any(isinstance(array, jax.ShapeDtypeStruct) for array in arguments.arrays):
            raise InitializerError(
                f"The initial values of {some(names)} are computed by the program, from arguments that are abstract.",
                kind="from_program",
                where=user_line(),
                fix="call init with arrays, not with ShapeDtypeStructs",
            )

        def traced(key: jax.Array, arrays: list[Any]) -> list[Any]:
            def start(name: str) -> Any:
                return None if isinstance(specs[name].initializer, FromProgram) else specs[name].initial_value(key)

            carried = Carried(_ENTRY, inside)
            carried.start_all(start)
            store = Store(Drawn(key), new_scopes(shown=False), rng=key, carried=carried)
            return self._call(store, arguments, lambda out: [store.computed[name] for name in names], arrays)

        closed = jax.make_jaxpr(traced)(key, arguments.arrays)
        values = jax.jit(needed_only(closed))(*jax.tree.leaves((key, arguments.arrays)))
        return dict(zip(names, values, strict=True))


# The code in which every program is entered: where the stack of transforms within it ends.
_ENTRY = Transformed._call.__code__


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
    for name, use in _RESERVED.items():
        if name in parameters:
            raise BadNameError(
                f"Program {getattr(fn, '__name__', fn)} has a parameter called {name!r}, which jscope keeps.",
                kind="reserved",
                where=user_line(),
                fix=f"rename it; {use}",
            )
    return Transformed(fn)


class _OpenedByHand:
    """What `build` and `bind` have in common: a store whose calls are made line by line."""

    def __init__(self, store: Store, call: str) -> None:
        self._store = store
        self._frame = Frame(store, Hint(), _ENTRY, refuses_inner_calls=call)

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
        check_key(key, "build")
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
        if rng is not None:
            check_key(rng, "rng=")
        super().__init__(Store(Given(tree), new_scopes(shown=True), rng=rng, can_assign=False), "js.bind")

    def __enter__(self) -> bind:
        self._frame.__enter__()
        return self
