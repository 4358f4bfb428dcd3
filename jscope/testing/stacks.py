"""`Stack`, `stacks` and `assert_same_under`: a function means the same under JAX's transforms, however nested."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .calls import QUICK, Call, bad_argument, first_sentence, is_inexact, quietly, raised_at
from .functions import called
from .trees import Tolerance, listed, rounding, tree_differences

# Each transform in plain JAX, as the text that a failure shows and that is run: `under(f)` takes arrays and gives a
# list of arrays, as `f` does. What it computes is what f computes; those of _DERIVATIVES add derivatives.
_CODE = {
    "jit": """\
        def under(f):
            return jax.jit(f)
    """,
    "checkpoint": """\
        def under(f):
            return jax.checkpoint(f)
    """,
    "checkpoint_dots": """\
        def under(f):
            return jax.checkpoint(f, policy=jax.checkpoint_policies.dots_saveable)
    """,
    "vmap": """\
        def under(f):
            def twice(*arrays):
                results = jax.vmap(f)(*[jnp.stack([jnp.flip(array), array]) for array in arrays])
                return [result[1] for result in results]
            return twice
    """,
    "scan": """\
        def under(f):
            def last(*arrays):
                _, results = jax.lax.scan(lambda carry, _: (carry, f(*carry)), arrays, None, length=2)
                return [result[1] for result in results]
            return last
    """,
    "map": """\
        def under(f):
            def last(*arrays):
                results = jax.lax.map(lambda row: f(*row), tuple(jnp.stack([jnp.flip(a), a]) for a in arrays))
                return [result[1] for result in results]
            return last
    """,
    "while": """\
        def under(f):
            def last(*arrays):
                empty = [jnp.zeros(out.shape, out.dtype) for out in jax.eval_shape(f, *arrays)]
                return jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, f(*arrays)), (0, empty))[1]
            return last
    """,
    "cond": """\
        def under(f):
            return lambda *arrays: jax.lax.cond(jnp.arange(2).sum() > 0, f, lambda *given: f(*given), *arrays)
    """,
    "grad": """\
        def under(f):
            def value_and_gradient(*arrays):
                results, pull = jax.vjp(f, *arrays)
                moved = [wave(result) for result in results]
                return [*results, *[slope for slope in pull(moved) if slope.dtype != jax.dtypes.float0]]
            return value_and_gradient
    """,
    "jvp": """\
        def under(f):
            def value_and_slope(*arrays):
                results, slopes = jax.jvp(f, arrays, tuple(wave(array) for array in arrays))
                return [*results, *[slope for slope in slopes if slope.dtype != jax.dtypes.float0]]
            return value_and_slope
    """,
}
_WAVE = """\
def wave(array):
    if jnp.issubdtype(array.dtype, jnp.inexact):
        heights = jnp.cos(jnp.arange(array.size, dtype=jnp.float32)).reshape(array.shape).astype(array.dtype)
        return heights * (1 + 1j) if jnp.iscomplexobj(array) else heights
    return np.zeros(array.shape, jax.dtypes.float0)
"""
_DERIVATIVES = ("grad", "jvp")


@dataclasses.dataclass(frozen=True)
class Stack:
    """Transforms of JAX around a function, the outermost first: data, which hypothesis can draw and shrink.

    Called with a function, it gives that function under its transforms. `scan`, `while`, `map` and `vmap` run it twice,
    the last two with flipped arrays first, and give what the last run gives; `cond` takes a branch that is known when
    it runs; so these, `jit`, `checkpoint` and `checkpoint_dots` change nothing. `grad` and `jvp` give the function's
    results and, after these, its derivatives in a fixed direction.

    Attributes:
      names: of the transforms, each one of the names above.

    Example:
      >>> from jscope.testing import Stack
      >>> stack = Stack("jit", "scan")
      >>> stack
      Stack('jit', 'scan')
      >>> stack(jnp.sin)(jnp.zeros(3))
      Array([0., 0., 0.], dtype=float32)
      >>> print(Stack("jit").code())
      # the innermost first
      def under(f):
          return jax.jit(f)
      f = under(f)
    """

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        unknown = [name for name in names if name not in _CODE]
        if unknown:
            raise bad_argument(f"There is no transform {unknown[0]!r}.", f"take some of {', '.join(_CODE)}")
        object.__setattr__(self, "names", names)

    def __repr__(self) -> str:
        return f"Stack({', '.join(map(repr, self.names))})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # What hypothesis and IPython ask for; without it hypothesis shows the fields.
        printer.text(repr(self))

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function under these transforms. What is no array among its arguments and results stays as it is."""

        def under(*args: Any, **kwargs: Any) -> Any:
            call = Call(function, args, kwargs)
            results = self._around(call)(*call.arrays)
            extra = len(results) - call.count
            return call.whole(results) if not extra else (call.whole(results[: call.count]), results[call.count :])

        return under

    def _around(self, call: Call) -> Callable[..., list[Any]]:
        """A call's function of arrays under these transforms."""
        # A function of its own, so that JAX knows nothing of it: it files traces by function.
        wrapped: Callable[..., list[Any]] = lambda *arrays: call.run(*arrays)  # noqa: E731
        for name in reversed(self.names):
            if name in ("vmap", "map") and not call.arrays:
                continue  # JAX has no axis to map over
            namespace: dict[str, Any] = {"jax": jax, "jnp": jnp, "np": np}
            exec(_compiled(name), namespace)
            wrapped = namespace["under"](wrapped)
        return wrapped

    def derivatives(self) -> Stack:
        """The transforms that change what is computed: what these give is to be compared with."""
        return Stack(*(name for name in self.names if name in _DERIVATIVES))

    def code(self) -> str:
        """These transforms in plain JAX, from a function `f` of arrays that gives a list of arrays, to one."""
        lines = ["# the innermost first"]
        if self.derivatives().names:
            lines.append(_WAVE.rstrip())
        for name in reversed(self.names):
            lines += [textwrap.dedent(_CODE[name]).rstrip(), "f = under(f)"]
        return "\n".join(lines)


def _compiled(name: str) -> Any:
    return compile(_WAVE + textwrap.dedent(_CODE[name]), f"<transform {name}>", "exec")


def stacks(
    *, max_size: int = 3, transforms: Iterable[str] | None = None, derivatives: bool = True
) -> SearchStrategy[Stack]:
    """Random stacks of transforms; they shrink to few, and to `jit` before others.

    Args:
      max_size: most transforms.
      transforms: names of those to take, of `Stack`; default all.
      derivatives: whether to take those that differentiate.

    Returns:
      A strategy for `Stack`. No stack differentiates a `while` loop in reverse mode, which JAX can't.

    Example:
      >>> from hypothesis import given, settings
      >>> from jscope.testing import assert_same_under, stacks
      >>> @given(stacks())
      ... @settings(max_examples=5, deadline=None)
      ... def test(stack):
      ...     assert_same_under(jnp.tanh, jnp.ones(3), stack=stack)
      >>> test()
    """
    names = [name for name in (_CODE if transforms is None else transforms) if derivatives or name not in _DERIVATIVES]
    drawn = st.lists(st.sampled_from(names), min_size=1, max_size=max_size).filter(_possible)
    return st.builds(lambda chosen: Stack(*chosen), drawn)


def _possible(names: Iterable[str]) -> bool:
    names = list(names)
    inside_grad = names[names.index("grad") :] if "grad" in names else []
    return "while" not in inside_grad and sum(name in _DERIVATIVES for name in names) < 3


def assert_same_under(
    function: Callable[..., Any],
    /,
    *args: Any,
    stack: Stack | None = None,
    rtol: float | None = None,
    atol: float = 1e-6,
    **kwargs: Any,
) -> None:
    """A function gives under JAX's transforms what it gives eagerly, and so do its derivatives.

    Args:
      function: any function, of jscope or not. Its arrays are transformed, keys too; what is no array stays as it is.
      *args, **kwargs: its arguments.
      stack: the transforms; default the commonest, each alone and under a derivative: the first that fails is told.
        Give those of `stacks()` to try more.
      rtol, atol: as in `assert_close`. `atol` is not 0, since a gradient may be nothing but rounding.

    Raises:
      AssertionError: with the stack, as it can be pasted, what differs, and the transforms in plain JAX. Also for what
        the function raises under a stack and not without.
      BadArgumentError: for a stack that is no `Stack`.

    Example:
      >>> from jscope.testing import assert_same_under
      >>> assert_same_under(lambda x: jnp.tanh(x).sum(), jnp.ones(3))
      >>> def nearly(x):
      ...     return x + isinstance(x, jax.core.Tracer)
      >>> try:
      ...     assert_same_under(nearly, jnp.zeros(3))
      ... except AssertionError as error:
      ...     print("\\n".join(str(error).splitlines()[:2]))
      `nearly` gives something else under Stack('jit'):
        - 3 of 3 elements differ, by 1 at most, at [0]: 0.0, then 1.0
    """
    __tracebackhide__ = True
    if stack is not None and not isinstance(stack, Stack):
        raise bad_argument(f"stack={stack!r:.80} is no Stack.", 'give one, such as jscope.testing.Stack("jit", "scan")')
    call = Call(function, args, kwargs)
    with quietly():
        plain = call.run(*call.arrays)
        again = call.run(*call.arrays)
    faults = tree_differences(plain, again)
    if faults:
        raise AssertionError(listed(f"`{called(function)}` gives something else when it is called again:", faults))
    has_slopes = any(map(is_inexact, call.arrays)) and any(map(is_inexact, plain))
    expected: dict[Stack, list[Any]] = {Stack(): plain}
    within = rounding(call.arrays, plain, rtol=rtol, atol=atol)
    for one in _few(has_slopes) if stack is None else [stack]:
        _compare(call, one, expected, within)


# What a model is most likely to meet. Others are near one of these: `map` is a scan, and so on.
_PLAIN = ("jit", "vmap", "scan", "checkpoint", "cond")


def _few(has_slopes: bool) -> list[Stack]:
    slopes = [*(Stack("grad", name) for name in _PLAIN[1:]), Stack("jvp", "while")]
    return [*map(Stack, _PLAIN), *(slopes if has_slopes else [Stack("while")])]


def _run(call: Call, stack: Stack) -> list[Any]:
    with quietly():
        return jax.jit(stack._around(call), compiler_options=QUICK)(*call.arrays)


def _compare(call: Call, stack: Stack, expected: dict[Stack, list[Any]], within: Tolerance) -> None:
    __tracebackhide__ = True
    name, slopes = f"`{called(call.function)}`", stack.derivatives()
    if slopes not in expected:
        expected[slopes] = _run(call, slopes)
    try:
        results = _run(call, stack)
    except Exception as error:
        text = f"{name} can't run under {stack}: {first_sentence(error)}{raised_at(error)}"
        raise AssertionError(f"{text}\n\n{_shown(stack)}") from error
    count = call.count
    faults = tree_differences(call.whole(expected[Stack()]), call.whole(results[:count]), within)
    more = tree_differences(expected[slopes][count:], results[count:], within)
    faults += [f"derivative {fault}" for fault in more]
    if faults:
        raise AssertionError(f"{listed(f'{name} gives something else under {stack}:', faults)}\n\n{_shown(stack)}")


def _shown(stack: Stack) -> str:
    return "In plain JAX:\n" + textwrap.indent(stack.code(), "  ")
