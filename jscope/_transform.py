"""Programs: `transform`, and the same modes opened by hand, `build` and `bind`. Floor 4."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Hashable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, overload

import jax

from ._ambient import ENTRY, Frame, caches_here
from ._arguments import Arguments
from ._callsite import user_line
from ._compat import needed_only
from ._errors import BadTypeError, InitializerError
from ._initial_values import Drawers, check_key, jitted
from ._members import Member, check_program
from ._mismatch import without_values
from ._params import Params
from ._partitions import ExplicitTypes, Rules, checked_rules, placements
from ._scope import SUSPENDS, new_scopes
from ._show import printable, some
from ._specs import Specs, params_of
from ._values import FromProgram
from ._variable_spec import VariableSpec
from .run.refs import Refs, Rehearsal
from .run.values_from import Abstract, Drawn, Given, abstract_key
from .run.variables import Run


class _Rehearsed(NamedTuple):
    """What an abstract run found out. It holds for all trees that have these variables, of these shapes and dtypes.

    Attributes:
      names: of the variables that it assigned inside transforms.
      variables: name, shape and dtype of all that it asked for.
    """

    names: frozenset[str]
    variables: list[tuple[str, tuple[int, ...], Any]]


class _Memory:
    """All that is kept of a program from one run to the next.

    Attributes:
      rehearsed: kind of arguments, and whether there is no `rng` -> what an abstract run found out.
      asks_inside: whether it calls jscope inside transforms. Only speed depends on it.
    """

    __slots__ = ("asks_inside", "rehearsed")

    _MOST = 64  # kinds of arguments

    def __init__(self) -> None:
        self.rehearsed: dict[tuple[Hashable | None, bool], _Rehearsed] = {}
        self.asks_inside = False

    def keep(self, kind: tuple[Hashable | None, bool], rehearsed: _Rehearsed) -> None:
        """Notes what was found out, unless the kind can't be told."""
        if kind[0] is not None:
            if len(self.rehearsed) >= self._MOST:
                self.rehearsed.clear()
            self.rehearsed[kind] = rehearsed


P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Transformed(Generic[P, R]):
    """A program as pure functions of an explicit tree, made by `transform`. Frozen; equal for equal functions.

    `specs`, `init`, `apply` and `update` are the same objects at every access, so `jax.jit(net.apply)` caches. They
    have the program's own signature, at run time (`jax.jit(net.apply, static_argnames="training")`) and for type
    checkers: `P` are the program's parameters, `R` is what it returns. Type checkers can't add a keyword to `P`, so a
    call with `rng=` or `warm_start=` has its other arguments unchecked; so has `specs`, which takes
    `jax.ShapeDtypeStruct`s in the place of arrays.
    """

    __slots__ = ("__dict__", "__weakref__", "_fn", "_memory", "_rules")

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(self, fn: Callable[P, R], rules: Rules | None = None) -> None:
        name = _name_of(fn)
        members = {"__name__": name, "__qualname__": getattr(fn, "__qualname__", name), "__doc__": fn.__doc__}
        members |= {"__wrapped__": fn, "__module__": getattr(fn, "__module__", __name__)}
        object.__setattr__(self, "_fn", fn)
        object.__setattr__(self, "_rules", rules)
        object.__setattr__(self, "_memory", _Memory())
        # JAX names a compiled program after its function: jit(net.apply) reads as jit(program).
        self.__dict__.update(members)
        for call, shown, returns in (
            ("specs", "_specs", Specs),
            ("init", "_init", Params),
            ("apply", "", None),
            ("update", "_update", None),
        ):
            self.__dict__[call] = Member(self, call, getattr(type(self), call), fn, name + shown, returns)

    if not TYPE_CHECKING:  # for type checkers it can't be called

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise BadTypeError(
                f"{self!r} is called; it is a program made by transform, no function.",
                kind="not_a_function",
                where=user_line(),
                fix="make its parameters once, params = net.init(key, ...), then call net.apply(params, ...); inside "
                "another program call the function itself, net.__wrapped__(...), or use js.lift(net, ...)",
            )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a transformed program is frozen: {name!r} can't be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a transformed program is frozen: {name!r} can't be deleted")

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Transformed):
            return self is other
        try:
            return (self._fn, self._rules) == (other._fn, other._rules)
        except Exception:  # == has no answer for callables that hold arrays, as dataclasses do
            return False

    def __hash__(self) -> int:
        try:
            return hash((Transformed, self._fn))
        except TypeError:  # a callable that has no hash, such as a plain dataclass
            return hash((Transformed, type(self._fn)))

    def __reduce__(self) -> str | tuple[Any, ...]:
        module = sys.modules.get(self.__module__)
        if module is not None and getattr(module, self.__name__, None) is self:
            return self.__name__  # it stands where its function would: js.transform as a decorator
        return transform, (self._fn,) if self._rules is None else (self._fn, self._rules)

    def __repr__(self) -> str:
        return f"<jscope program {printable(self.__name__)}>"

    def _under_rules(self, rules: Rules | None) -> Transformed[P, R]:
        """This program as a part of one that has rules of axes: under these, unless it has its own."""
        return self if rules is None or self._rules is not None else Transformed(self._fn, rules)

    @overload
    def specs(self, /, *args: P.args, **kwargs: P.kwargs) -> Specs: ...
    @overload
    def specs(self, /, *args: Any, **kwargs: Any) -> Specs: ...
    def specs(self, /, *args: Any, **kwargs: Any) -> Specs:
        """Every variable that the program declares, without running it.

        The program is traced abstractly: JAX and NumPy arrays and `ShapeDtypeStruct`s among the arguments become
        abstract; everything else (Python bools, numbers, strings, arrays of strings, objects or dates, which JAX has no
        dtype for) is passed through as it is. No array is made.

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

    @overload
    def init(self, key: jax.Array, /, *args: P.args, **kwargs: P.kwargs) -> Params: ...
    @overload
    def init(self, key: jax.Array, /, *args: Any, warm_start: Mapping[str, Any] | None, **kwargs: Any) -> Params: ...
    @overload
    def init(self, key: jax.Array, /, *args: Any, out_shardings: Any, **kwargs: Any) -> Params: ...
    def init(
        self,
        key: jax.Array,
        /,
        *args: Any,
        warm_start: Mapping[str, Any] | None = None,
        out_shardings: Any = None,
        **kwargs: Any,
    ) -> Params:
        """All initial values; nothing else of the program is computed. Can be jitted, vmapped over keys, `eval_shape`d.

        Haiku: `net.init(key, x)`; Flax: `model.init(key, x)`; TF1: `tf.global_variables_initializer()`.

        Args:
          key: a JAX random key.
          *args, **kwargs: the program's own.
          warm_start: a tree of values to keep; only what it lacks is made, as in `Specs.init`.
          out_shardings: where the values shall lie, as in `Specs.init`.

        Returns:
          The tree; every leaf is a fresh array of its own, so it may be donated.

        Raises:
          ParamsMismatchError: if `warm_start` does not fit.
          BadArgumentError: if `out_shardings` does not fit.
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
            # What draws is compiled meanwhile, unless it is still to be found out what shall be drawn, and where.
            types = ExplicitTypes.in_force(self._rules)
            is_known = not kept and out_shardings is None and types is None
            specs, inside = self._declared(key, arguments, drawers if is_known else None)
            if out_shardings is not None:
                placed = placements(specs, out_shardings, key, "init(out_shardings=)")
            else:
                placed = None if types is None else types.shardings(specs, key)
            by_program = [
                name for name, spec in specs.items() if isinstance(spec.initializer, FromProgram) and name not in kept
            ]
            computed = self._computed(key, specs, inside, by_program, arguments, placed) if by_program else {}
            return specs.init_with(drawers, computed, warm_start, placed)

    @overload
    def apply(self, params: Mapping[str, Any], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def apply(self, params: Mapping[str, Any], /, *args: Any, rng: jax.Array | None, **kwargs: Any) -> R: ...
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

    @overload
    def update(self, params: Mapping[str, Any], /, *args: P.args, **kwargs: P.kwargs) -> tuple[R, Params]: ...
    @overload
    def update(
        self, params: Mapping[str, Any], /, *args: Any, rng: jax.Array | None, **kwargs: Any
    ) -> tuple[R, Params]: ...
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
                report = self.specs(*args, **kwargs).compare(tree)
                return report.faults(allow_unexpected=True) + without_values(report, tree)
            except Exception:  # a program that runs on concrete values only: the first fault has to do
                return []

        if rng is not None:
            check_key(rng, "rng=")
        arguments = Arguments(args, kwargs)
        source = Given(tree, all_faults)
        refs = self._refs(tree, source, rng, arguments) if can_assign else Refs(ENTRY, frozenset())
        refs.start_all(source.start)
        run = Run(source, new_scopes(shown=True), rng=rng, can_assign=can_assign, refs=refs, rules=self._rules)
        return self._call(run, arguments, lambda out: (out, run.assigned()))

    def _call(
        self, run: Run, arguments: Arguments, result: Callable[[Any], Any], arrays: list[Any] | None = None
    ) -> Any:
        """Runs the program: `result(its output)`, while the run still has its values."""
        args, kwargs = arguments.filled(arrays)
        frame = Frame(run, self._memory.asks_inside)
        try:
            return result(frame.call(self._fn, args, kwargs))
        except Exception as error:
            refusal = run.refs.refusal(error)
            if refusal is None:
                raise
            raise refusal from error
        finally:
            self._memory.asks_inside = frame.spends
            run.release()

    def _refs(self, tree: Params, given: Given, rng: Any, arguments: Arguments) -> Refs:
        """What carries the variables that the program assigns inside transforms, which a rehearsal finds out."""
        kind = arguments.kind(), rng is None
        known = self._memory.rehearsed.get(kind)
        if known is not None and given.has(known.variables):
            return Refs(ENTRY, known.names)
        if used_up := arguments.used_up(self._fn):
            return Refs(ENTRY, frozenset(), f"a rehearsal would use up {used_up}")
        rehearsal = Rehearsal()
        variables: list[tuple[str, tuple[int, ...], Any]] = []

        # A new function each time: JAX caches traces by function, and on a hit the program would not run.
        def traced(tree: Params, rng: Any, arrays: list[Any] | None) -> None:
            nonlocal kind
            source = Given(tree)
            run = Run(source, new_scopes(shown=False), rng=rng, refs=rehearsal, rules=self._rules)
            self._call(run, arguments.spare(), lambda out: variables.extend(run.types()), arrays)
            if source.has_its_say:
                kind = None, False  # another tree may say something else

        try:
            jax.eval_shape(traced, tree, rng, arguments.arrays)
            self._memory.keep(kind, _Rehearsed(frozenset(rehearsal.names), variables))
            return Refs(ENTRY, frozenset(rehearsal.names))
        except Exception:  # it needs concrete values: NumPy's can be had
            pass
        try:
            jax.eval_shape(lambda: traced(tree, rng, None))
        except Exception as error:  # the run itself will say what is wrong, or needs JAX's values and does without
            said = str(error).partition("\n")[0]
            why = f"the program can't be run abstractly: {type(error).__name__}: {said:.200}"
            return Refs(ENTRY, frozenset(rehearsal.names), why)
        return Refs(ENTRY, frozenset(rehearsal.names))

    def _declared(self, key: Any, arguments: Arguments, drawers: Drawers | None) -> tuple[Specs, frozenset[str]]:
        """What the program declares, and which variables it assigns inside transforms, from an abstract run.

        What will draw the variables may be told of them at once.
        """
        rehearsal = Rehearsal()
        declared: list[VariableSpec] = []
        asks_keys: list[bool] = []

        # A new function each time, as in `_refs`.
        def traced(key: jax.Array, arrays: list[Any]) -> None:
            source = Abstract(key, drawers, ExplicitTypes.in_force(self._rules))
            run = Run(source, new_scopes(shown=False), rng=key, refs=rehearsal, rules=self._rules)
            self._call(run, arguments.spare(), lambda out: declared.extend(run.specs()), arrays)
            asks_keys.append(run.keys.asked)

        jax.eval_shape(traced, key, arguments.arrays)
        variables = [(spec.name, spec.shape, spec.dtype) for spec in declared]
        rehearsed = _Rehearsed(frozenset(rehearsal.names), variables)
        self._memory.keep((arguments.kind(), False), rehearsed)
        if asks_keys == [False]:  # so it would be the same without
            self._memory.keep((arguments.kind(), True), rehearsed)
        return Specs(declared), rehearsed.names

    def _computed(
        self,
        key: jax.Array,
        specs: Specs,
        inside: frozenset[str],
        names: list[str],
        arguments: Arguments,
        placed: Mapping[str, Any] | None,
    ) -> dict[str, jax.Array]:
        """The initial values that the program computes, and nothing else of it."""
        if used_up := arguments.used_up(self._fn):
            raise InitializerError(
                f"The initial values of {some(names)} are computed by the program, and finding out what it declares "
                f"has used up {used_up}.",
                kind="from_program",
                where=user_line(),
                fix="take from it outside, and pass what it gives",
            )
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

            refs = Refs(ENTRY, inside)
            refs.start_all(start)
            source = Drawn(key, ExplicitTypes.in_force(self._rules))
            run = Run(source, new_scopes(shown=False), rng=key, refs=refs, rules=self._rules)
            return self._call(run, arguments.spare(), lambda out: [run.computed[name] for name in names], arrays)

        closed = jax.make_jaxpr(traced)(key, arguments.arrays)
        where = None if placed is None else [placed[name] for name in names]
        values = jitted(needed_only(closed), where)(*jax.tree.leaves((key, arguments.arrays)))
        return dict(zip(names, values, strict=True))


def _name_of(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", type(fn).__name__)


def transform(fn: Callable[P, R], *, rules: Rules | None = None) -> Transformed[P, R]:
    """Turns a program, a function that asks for variables by name, into pure functions over one tree.

    Haiku: `hk.transform`; TF1: `tf.Graph` and `tf.Session` together.

    Args:
      fn: any callable. `rng`, `warm_start` and `out_shardings` are reserved and can't be names of its parameters.
      rules: for programs on a mesh whose axes are explicit, a part of types: which axis of the mesh an axis named in a
        partition is cut along, as in `Specs.shardings`. `specs` and `init` then see the types that `apply` sees, and
        `init` makes the values where they lie.

    Returns:
      A `Transformed` with `specs`, `init`, `apply` and `update`, which keeps the function's name and docstring.

    Raises:
      BadTypeError: if `fn` is not callable, or a program or call of one that `transform` made.
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
    check_program(fn, is_made=isinstance(fn, Transformed))
    return Transformed(fn, None if rules is None else checked_rules(rules))


class _OpenedByHand:
    """What `build` and `bind` have in common: a run whose calls are made line by line."""

    def __init__(self, run: Run, call: str) -> None:
        self._run = run
        self._frame = Frame(run, refuses_inner_calls=call)

    def _enter(self, caller: FrameType) -> None:
        self._frame.__enter__()
        if not caller.f_code.co_flags & SUSPENDS:
            self._run.scopes.innermost.frame = caller

    def __exit__(self, *exception: Any, is_ending: Any = sys.is_finalizing) -> None:
        if exception[0] is GeneratorExit and is_ending():
            return  # a generator is closed with Python itself, when nothing works any more
        self._frame.__exit__(*exception)

    @property
    def params(self) -> Params:
        """A snapshot of the variables so far, with their current values."""
        return Params(self._run.values())

    @property
    def specs(self) -> Specs:
        """A snapshot of the declarations so far."""
        return Specs(self._run.specs())


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
        source = Drawn(key, ExplicitTypes.in_force(None))
        super().__init__(Run(source, new_scopes(shown=True), rng=key), "js.build")

    def __enter__(self) -> build:
        self._enter(sys._getframe(1))
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
        super().__init__(Run(Given(tree), new_scopes(shown=True), rng=rng, can_assign=False), "js.bind")

    def __enter__(self) -> bind:
        self._enter(sys._getframe(1))
        return self
