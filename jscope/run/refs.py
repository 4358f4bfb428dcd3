"""Variables that a program assigns inside JAX transforms: JAX carries their values, in refs. Floor 2.

A value that is computed in the body of a `scan` belongs to the trace of that body. What leads out of it is a
`jax.new_ref`: made where the program was entered, read and written in whatever trace is current, and frozen at the
program's end. JAX turns it into one more value that the loop carries.

Which variables need one must be known before the program runs, since a read that comes before the first assignment in
the code may come after it in time, in the next turn of a loop. So whoever runs the program runs it abstractly first, a
*rehearsal*, in which nothing is carried and names are noted.

JAX can't carry refs everywhere; where it can't, it fails late or computes something else. `_OBSTACLES` is the list of
these places; a program that needs one is refused at the line that assigns or reads.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import TransformError
from .._stack import Surroundings, surroundings
from .._values import is_traced
from .record import Variable


class _Obstacle(NamedTuple):
    """A place from which JAX can't carry a value.

    Attributes:
      inside: transforms around the call, the innermost first, among others; the first of them is within the program.
      why: end of the sentence "'name' is ... ".
      fix: the way out.
      reading: whether reading is refused too.
    """

    inside: tuple[str, ...]
    why: str
    fix: str
    reading: bool = True


_PASS_IN = "read it outside and pass it to the transformed function"
_RETURN = "return the new value from the transformed function and assign it outside"
_LIFT = (
    "make what is inside a program of its own: `tree = js.lift(net, x)` outside, `out, new = "
    "jax.checkpoint(net.update)(tree, x)`, and `js.assign(tree, new)`"
)

_REPEATED = _Obstacle(
    ("checkpoint", "derivative"), "inside a jax.checkpoint that is differentiated, which runs it twice", _LIFT
)
_DIFFERENTIATED = _Obstacle(
    ("derivative", "program"),
    "from a value that is differentiated inside the program",
    "assign jax.lax.stop_gradient(value), or return the value from the differentiated function and assign it outside",
)
_HANDED_ON = _Obstacle(
    ("trace", "derivative"),
    "in a function that a jax.custom_vjp function is handed as one of those arguments that it does not differentiate, "
    "as solvers hand on the function that they solve, while something is differentiated",
    "let the solver carry the value as a part of its state, and assign what it returns",
)
_UNFORESEEN = _Obstacle((), "inside a JAX transform", _RETURN)
_AT_ONCE = _Obstacle(
    (),
    "in a loop or a branch under jax.ensure_compile_time_eval, and there is no jax.jit around: so JAX would do it "
    "once, while it traces",
    "leave jax.ensure_compile_time_eval before, or put jax.jit around net.update",
)

_OBSTACLES = (
    _Obstacle(("vmap", "program"), "inside jax.vmap, which gives it a value for each element", _RETURN, reading=False),
    _Obstacle(("cond", "vmap"), "in a branch of lax.cond under jax.vmap, which runs every branch", _RETURN),
    _REPEATED,
    _Obstacle(("cond", "scan", "derivative"), "in a branch of lax.cond in a loop that is differentiated", _RETURN),
    _Obstacle(("while_loop", "derivative"), "in a lax.while_loop that is differentiated, which can run twice", _RETURN),
    _Obstacle(("custom_jvp", "program"), "inside a jax.custom_jvp function", _RETURN),
    _Obstacle(("shard_map", "program"), "inside jax.shard_map", _RETURN),
    _Obstacle(("custom_vjp", "derivative"), "inside a jax.custom_vjp function that is differentiated", _RETURN),
    _Obstacle(
        ("while_condition", "program"),
        "in the condition of lax.while_loop",
        "let the body compute the condition, and carry it as a part of the loop's state",
    ),
)


class Rehearsal:
    """What a run does in which nothing is computed, so that values only need the right shapes: it notes names.

    Attributes:
      names: the variables that were assigned inside transforms.
    """

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: set[str] = set()

    def takes(self, variable: Variable, value: Any) -> bool:
        """Whether the value is carried from now on: never."""
        return False

    def assign_inside(self, variable: Variable, asked: dict[str, Any]) -> None:
        """Notes the name."""
        self.names.add(variable.name)
        variable.bound = True

    def refusal(self, error: Exception) -> None:
        """None: no error can be about a ref."""


class Refs:
    """The refs of one run.

    Args:
      entry: the code that enters programs.
      names: the variables to carry, as a rehearsal found them.
      why_unknown: why there was no rehearsal, or none that went to its end; empty where there was.

    Attributes:
      names: as given.
    """

    __slots__ = ("_entry", "_impls", "_perhaps_differentiated", "_perhaps_handed_on", "_refs", "_why_unknown", "names")

    def __init__(self, entry: CodeType, names: frozenset[str], why_unknown: str = "") -> None:
        self._entry = entry
        self._why_unknown = why_unknown
        self._refs: dict[str, Any] = {}
        self._impls: dict[Any, Any] = {}  # dtype of random keys -> what JAX makes them by
        self._perhaps_differentiated: TransformError | None = None
        self._perhaps_handed_on: TransformError | None = None
        self.names = names

    def start(self, name: str, value: Any) -> None:
        """Makes the ref; call it in the trace that the program is entered in."""
        if _is_key(value.dtype):
            self._impls[value.dtype] = jax.random.key_impl(value)
        self._refs[name] = jax.new_ref(_kept(value))

    def start_all(self, value: Callable[[str], Any]) -> None:
        """Starts all variables of which `value(name)` is not None."""
        for name in self.names:
            start = value(name)
            if start is not None:
                self.start(name, start)

    def takes(self, variable: Variable, value: Any) -> bool:
        """Whether the value of a variable just declared is carried from now on; starts with `value` if need be."""
        if variable.name not in self.names:
            return False
        if variable.name not in self._refs:
            self.start(variable.name, value)
        variable.forget()
        variable.bound = True
        variable.carried = self
        return True

    def assign_inside(self, variable: Variable, asked: dict[str, Any]) -> None:
        """Refuses what the rehearsal did not tell of.

        Raises:
          TransformError: always.
        """
        if self._why_unknown:
            what = f"which must be known before the program runs; but {self._why_unknown}"
            fix = "put jax.jit around net.update, and pass what the program branches on or takes from an iterator as "
            fix += "arguments of their own; or return the value from the transformed function and assign it outside"
        else:
            what = "and was not when the program was run abstractly for such arguments; so JAX does not carry its value"
            fix = "let the program depend on its arguments alone, not on what Python variables hold at the time"
        raise TransformError(
            f"'{variable.name}' is assigned inside a JAX transform, {what}.",
            kind="assign_unforeseen",
            **asked,
            exists=variable.origin(),
            fix=fix,
        )

    def read(self, variable: Variable, asked: dict[str, Any] | None = None) -> Any:
        """The current value, read in the current trace; `asked` are the fields of an error, None in the entry trace.

        Raises:
          TransformError: where JAX can't carry it to.
        """
        if asked is None:
            return self._given(self._refs[variable.name][...], variable.dtype)
        around = self._check(variable, "read", asked)
        try:
            kept = self._refs[variable.name][...]
        except Exception as error:
            raise _refusal(variable, "read", _UNFORESEEN, asked) from error
        if _at_once(kept, around):
            raise _refusal(variable, "read", _AT_ONCE, asked)
        value = self._given(kept, variable.dtype)
        if around.within("checkpoint"):
            value = _not_differentiable(value, _refusal(variable, "read", _REPEATED, asked))
        return value

    def write(self, variable: Variable, value: Any, asked: dict[str, Any] | None = None) -> None:
        """Sets the value in the current trace; `asked` as in `read`.

        Raises:
          TransformError: where JAX can't carry it from.
        """
        if asked is None:
            self._set(variable, value, self._refs[variable.name][...])
            return
        around = self._check(variable, "assigned", asked)
        if around.within("checkpoint"):
            value = _not_differentiable(value, _refusal(variable, "assigned", _REPEATED, asked))
        if around.within("derivative"):
            self._perhaps_differentiated = _refusal(variable, "assigned", _DIFFERENTIATED, asked)
        try:
            old = self._refs[variable.name][...]
            if not _at_once(old, around):
                self._set(variable, value, old)
                return
        except Exception as error:
            raise self.refusal(error) or _refusal(variable, "assigned", _UNFORESEEN, asked) from error
        raise _refusal(variable, "assigned", _AT_ONCE, asked)

    def _set(self, variable: Variable, value: Any, old: Any) -> None:
        value = _kept(value)
        if jnp.issubdtype(value.dtype, jnp.inexact):
            # On JAX 0.10 the transpose of jit, scan and cond fails where a ref has a tangent and what is written to it
            # has none, as after stop_gradient. This gives it one, of zeros; XLA folds it away.
            value = jax.lax.select(True, value, old)
        self._refs[variable.name][...] = value

    def refusal(self, error: Exception) -> TransformError | None:
        """What is to be raised instead of an error of JAX's about a ref; None for any other error.

        If a value that is assigned turns out to be differentiated within the program, JAX says so at the assignment or,
        where that is traced first (by jit, say) and differentiated then, at the end of that. And it says that a tracer,
        the ref, is handed on to a `jax.custom_vjp` function only when that is called.
        """
        if isinstance(error, jax.errors.UnexpectedTracerError) and "nondiff_argnums" in str(error):
            return self._perhaps_handed_on
        # JAX has no class for this error; a program may raise as bare a one of its own.
        is_told = type(error) is Exception and "set/swap operation with a differentiated value" in str(error)
        return self._perhaps_differentiated if is_told else None

    def final(self, variable: Variable) -> Any:
        """The value at the end of the program."""
        return self._given(jax.freeze(self._refs[variable.name]), variable.dtype)

    def _given(self, kept: Any, dtype: Any) -> Any:
        if _is_key(dtype):
            return jax.random.wrap_key_data(_given(kept, np.dtype("uint32")), impl=self._impls[dtype])
        return _given(kept, dtype)

    def _check(self, variable: Variable, done: str, asked: dict[str, Any]) -> Surroundings:
        around = surroundings(self._entry)
        for obstacle in _OBSTACLES:
            if (obstacle.reading or done == "assigned") and around.nested(*obstacle.inside):
                raise _refusal(variable, done, obstacle, asked)
        if around.nested(*_HANDED_ON.inside) and self._perhaps_handed_on is None:
            self._perhaps_handed_on = _refusal(variable, done, _HANDED_ON, asked)
        return around


def _refusal(variable: Variable, done: str, obstacle: _Obstacle, asked: dict[str, Any]) -> TransformError:
    return TransformError(
        f"'{variable.name}' is {done} {obstacle.why}: JAX can't carry its value there.",
        kind="assign_inside" if done == "assigned" else "read_inside",
        **asked,
        exists=variable.origin(),
        fix=f"{_PASS_IN}, or " * (done == "read") + obstacle.fix,
    )


def _at_once(kept: Any, around: Surroundings) -> bool:
    """Whether JAX has read a ref while it traces what it will do another number of times."""
    return not is_traced(kept) and any(around.nested("trace", often) for often in ("scan", "while_loop", "cond"))


# JAX 0.10 can't transpose what writes to a ref of integers: they are kept in floats, 16 bits in each. (Bits of integers
# that are taken for floats are some that mean "no number", at which `jax.debug_nans` stops.) So are random keys.


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _kept(value: Any) -> Any:
    """A value as its ref holds it."""
    if _is_key(value.dtype):
        value = jax.random.key_data(value)
    if jnp.issubdtype(value.dtype, jnp.inexact):
        return value
    if value.dtype.itemsize <= 2:
        return value.astype(np.float32)
    bits = value.astype(f"uint{8 * value.dtype.itemsize}")
    parts = [bits >> np.array(16 * part, bits.dtype) & np.array(0xFFFF, bits.dtype) for part in _parts(value.dtype)]
    return jnp.stack(parts).astype(np.float32)


def _given(kept: Any, dtype: Any) -> Any:
    """The value of this dtype that a ref holds."""
    if kept.dtype == dtype:
        return kept
    if dtype.itemsize <= 2:
        return kept.astype(dtype)
    bits = kept.astype(f"uint{8 * dtype.itemsize}")
    value = bits[0]
    for part in _parts(dtype)[1:]:
        value = value | bits[part] << np.array(16 * part, bits.dtype)
    return value.astype(dtype)


def _parts(dtype: Any) -> range:
    return range(dtype.itemsize // 2)


def _not_differentiable(value: Any, refusal: TransformError) -> Any:
    """`value`, raising `refusal` when somebody differentiates it; nothing of this is in the compiled program."""
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return value  # nothing differentiates these

    @jax.custom_jvp
    def same(value: Any) -> Any:
        return value

    @same.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        raise refusal

    return same(value)
