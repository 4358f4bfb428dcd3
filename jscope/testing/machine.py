"""`TrainingMachine`: random histories of a training loop, and `profile`: settings that bound what compiling costs."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.strategies import SearchStrategy

from .calls import bad_argument, is_inexact, names_of
from .trees import Tolerance, copies, is_array, listed, rounding, tree_differences

# A test of JAX compiles in its first example, and again for every new shape: so no time limit for one example, few
# examples, and short histories. Phase.explain runs each failure many times more, under a tracer of lines that makes JAX
# several times slower, to list lines of every library that it went through.
profile = settings(
    max_examples=25,
    stateful_step_count=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""Settings of hypothesis for tests that compile: few examples, short histories, no time limit, no explanations.

It decorates a test as `hypothesis.settings(...)` does, `settings(profile, max_examples=5)` changes one of them, and
`settings.load_profile("jscope")` makes it the default.
"""
settings.register_profile("jscope", profile)

_MOST_REPLAYED = 8


class TrainingMachine(RuleBasedStateMachine):
    """A training loop that hypothesis drives: steps, saving and loading, and starting again, in any order.

    A subclass says what a state is. The machine then holds it against itself: a step gives the same jitted and eagerly;
    a history that is replayed from the start gives the same to the bit; a state that was saved and loaded goes on as if
    it had not been; names, shapes and dtypes never change, and all numbers stay finite; and `check`, the user's own.
    A failure is shown as a short program of its rules. `TrainingMachine.TestCase` of the subclass is what pytest runs.

    `start` and `step` are static methods, since they are compiled once for the class.

    Example:
      >>> from hypothesis.stateful import run_state_machine_as_test
      >>> from jscope.testing import TrainingMachine, arrays, profile
      >>> class Averages(TrainingMachine):
      ...     @staticmethod
      ...     def start(key):
      ...         return {"w": jax.random.normal(key, [3]), "ema": jnp.zeros(3)}
      ...     @staticmethod
      ...     def step(state, batch):
      ...         w = 0.5 * state["w"] + batch
      ...         return {"w": w, "ema": 0.9 * state["ema"] + 0.1 * w}
      ...     def batches(self):
      ...         return arrays([3], jnp.float32)
      ...     def check(self, state):
      ...         assert abs(state["w"]).max() < 100
      >>> run_state_machine_as_test(Averages, settings=profile)
    """

    @staticmethod
    def start(key: jax.Array) -> Any:
        """The state in which training starts: a tree of arrays."""
        raise bad_argument("The machine does not say how training starts.", "give it a static method start(key)")

    @staticmethod
    def step(state: Any, batch: Any) -> Any:
        """The state after one step."""
        raise bad_argument("The machine has no step.", "give it a static method step(state, batch)")

    def batches(self) -> SearchStrategy[Any]:
        """A strategy for batches; few shapes, as each is compiled."""
        raise bad_argument("The machine has no batches.", "give it a method batches()")

    def save_and_load(self, state: Any) -> Any:
        """The state as it comes back from where it is kept. Default: from a pickle."""
        return pickle.loads(pickle.dumps(state))

    def check(self, state: Any) -> None:
        """Raises if a state is not as it should be. Default: every state is good."""

    @initialize(seed=st.integers(0, 3))
    def begin(self, seed: int) -> None:
        """Starts with a key of this seed."""
        for name, arguments in (("start", "key"), ("step", "state, batch")):
            _check_is_static(type(self), name, arguments)
        self.first = type(self).start(jax.random.key(seed))
        self.state = self.first
        self.history: list[Any] = []
        self._holds()

    @rule(batch=st.runner().flatmap(lambda machine: machine.batches()))
    def train(self, batch: Any) -> None:
        """One step, jitted; in the first step also eagerly, which must agree."""
        after = _jitted(type(self))(self.state, batch)
        if not self.history:
            eager = type(self).step(copies(self.state), batch)  # a jitted step may take the memory of what it is given
            within = rounding(self.state, batch, eager)
            _require(eager, after, "a jitted step gives something else than an eager one", within)
        self.state = after
        self.history.append(batch)
        self._holds()

    @rule()
    def resume(self) -> None:
        """Goes on with the state as it comes back from where it is kept."""
        back = self.save_and_load(self.state)
        _require(self.state, back, "a state that was saved and loaded is another")
        self.state = back
        self._holds()

    @precondition(lambda self: 0 < len(self.history) <= _MOST_REPLAYED)
    @rule()
    def replay(self) -> None:
        """All steps once more, from the start."""
        state = self.first
        for batch in self.history:
            state = _jitted(type(self))(state, batch)
        _require(self.state, state, "the same steps from the same start give another state")

    def _holds(self) -> None:
        # No invariant of hypothesis's, since that would stand between any two lines of the program that it shows.
        __tracebackhide__ = True
        _require(_form(self.first), _form(self.state), "a step changed names, shapes or dtypes")
        leaves = zip(names_of(self.state), jax.tree.leaves(self.state), strict=True)
        bad = [f"'{name}'" for name, leaf in leaves if is_inexact(leaf) and not jnp.isfinite(leaf).all()]
        if bad:
            raise AssertionError(listed("These are no longer finite:", bad))
        self.check(self.state)


def _check_is_static(machine: type[TrainingMachine], name: str, arguments: str) -> None:
    """Raises BadArgumentError for a method that also takes the machine itself."""
    function = inspect.getattr_static(machine, name)
    if not inspect.isfunction(function):
        return
    try:
        inspect.signature(function).bind(*arguments.split(", "))
    except TypeError:
        what = f"{machine.__name__}.{name} does not take ({arguments}) alone: it is no static method."
        where = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
        raise bad_argument(what, f"write @staticmethod above def {name}({arguments})", where) from None


@functools.cache
def _jitted(machine: type[TrainingMachine]) -> Callable[[Any, Any], Any]:
    return jax.jit(machine.step)


def _form(state: Any) -> Any:
    return jax.tree.map(
        lambda leaf: f"{leaf.dtype}{list(leaf.shape)}" if is_array(leaf) else type(leaf).__name__, state
    )


def _require(first: Any, second: Any, what: str, within: Tolerance | None = None) -> None:
    __tracebackhide__ = True
    faults = tree_differences(first, second, within)
    if faults:
        raise AssertionError(listed(f"In training, {what}:", faults))
