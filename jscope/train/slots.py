"""The variables of TF1's optimizers, called slots, and the states of the same optimizers in optax."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

import jscope as js

from .._support import shown, user_line, without_value
from .faults import bad_argument, bad_type

# A tree of a state -> what takes its place. Called with the optimizer's name in TF1, the number of the slot, and the
# factor by which TF1's is another.
_Tree = Callable[[str, int, Any, int], Any]
_Count = Callable[[Any], Any]

# Powers of beta below this are no longer exact in float32; what they correct is then 1 to all digits.
_LEAST = 1e-30
_KNOWN = "adam, momentum (sgd), rmsprop, adagrad or adadelta"


def to_tf_slots(
    opt_state: Any,
    *,
    name: str | None = None,
    scope: str = "",
    powers: tuple[str, str] | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
    global_step: Any = None,
) -> dict[str, Any]:
    """The variables that TF1's optimizer would have in this state of optax, under their names in TF1.

    What `minimize` of each of TF1's optimizers makes for a variable `a/w`, and what optax has in its place:

    - `AdamOptimizer(lr, beta1, beta2)`: `a/w/Adam`, `a/w/Adam_1`, `beta1_power`, `beta2_power`;
      `optax.adam(lr, beta1, beta2)`.
    - `MomentumOptimizer(lr, m, use_nesterov=n)`: `a/w/Momentum`; `optax.sgd(lr, m, n)`.
    - `RMSPropOptimizer(lr, decay, m, eps, centered=c)`: `a/w/RMSProp`, `a/w/RMSProp_1`, and if centered
      `a/w/RMSProp_2`; `optax.rmsprop(lr, decay, eps, initial_scale=1.0, momentum=m, centered=c)`.
    - `AdagradOptimizer(lr, initial)`: `a/w/Adagrad`; `optax.adagrad(lr, initial, eps=0.0)`.
    - `AdadeltaOptimizer(lr, rho, eps)`: `a/w/Adadelta`, `a/w/Adadelta_1`; `optax.adadelta(lr, rho, eps)`.

    These take the same steps. One thing differs: TF1's Adam divides by `sqrt(v) + epsilon` before it corrects the bias,
    optax after that, which shows where `sqrt(v)` is not far above epsilon.

    Args:
      opt_state: what `optimizer.init` and `optimizer.update` of these gave, also in `optax.chain`, `masked`,
        `multi_transform` and `inject_hyperparams`, for parameters in a `Params` or a dict.
      name: the optimizer's name in TF1, if it is another one than above: `AdamOptimizer(name="Mine")`.
      scope: the variable scope in which TF1's `minimize` was called, which comes before all names.
      powers: the full names of `beta1_power` and `beta2_power`, if they are others: in a `name_scope` they are below
        that, and a second Adam's are `beta1_power_1`, `beta2_power_1`.
      beta1, beta2: those of Adam.
      global_step: the number of steps so far, to be given as `global_step`, a whole number; None to leave that out.

    Returns:
      name -> array, for `save_tf` beside the parameters: `save_tf(path, params | slots)`. Momenta of an rmsprop without
      momentum are zeros.

    Raises:
      BadTypeError: for a state that TF1 has no slots for, or whose steps are traced or those of several members.
      BadArgumentError: for arguments that can't be meant; if there are two states of Adam, whose powers have names of
        their own, or of another optimizer for one variable, whose slots would have one name.

    Example:
      >>> import optax
      >>> from jscope.train import to_tf_slots
      >>> params = js.Params({"a/w": jnp.ones(2)})
      >>> state = optax.adam(0.1).init(params)
      >>> _, state = optax.adam(0.1).update(params, state)
      >>> for name, value in to_tf_slots(state).items(): print(name, value)
      a/w/Adam [0.1 0.1]
      a/w/Adam_1 [0.001 0.001]
      beta1_power 0.81
      beta2_power 0.998001
    """
    power_names = _checked_names(scope, powers, "to_tf_slots")
    slots: dict[str, Any] = {}
    names: list[str] = []
    counts = []

    def note(optimizer: str, number: int, tree: Any, factor: int) -> Any:
        for variable, value in _leaves(tree):
            names.append(_slot_name(scope, variable, name or optimizer, number))
            slots[names[-1]] = value if factor == 1 else factor * value
        return tree

    _walk(opt_state, note, counts.append, lambda count: count, gives_momentum=True)
    _check_one_of_each(counts, names, "to_tf_slots")
    for count in counts:
        _check_count(count, "to_tf_slots", has_value=True)
        for power, beta in zip(power_names, (beta1, beta2), strict=True):
            slots[power] = np.float32(beta ** (int(count) + 1))
    if global_step is not None:
        why = _no_steps(global_step, np.dtype(np.int64))
        if why:
            fix = "give a whole number, or leave it out"
            raise bad_argument(f"The global_step {why}.", asked="to_tf_slots", fix=fix)
        slots["global_step"] = np.asarray(global_step, np.int64)
    return slots


def from_tf_slots(
    slots: Mapping[str, Any],
    opt_state: Any,
    *,
    name: str | None = None,
    scope: str = "",
    powers: tuple[str, str] | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
) -> Any:
    """A state of optax with the values that TF1's optimizer had: the reverse of `to_tf_slots`.

    Args:
      slots: name -> array, such as `load_tf(path)`; what else is in it is left alone.
      opt_state: a state to be filled, of the optimizer that takes the same steps: `optimizer.init(params)`. It says
        which slots are read.
      name, scope, powers, beta1, beta2: as in `to_tf_slots`.

    Returns:
      `opt_state` with the slots' values, in the dtypes that it has, on the default device: for a sharded state give it
      to `jax.device_put` with the shardings of `opt_state`. The number of steps that Adam counts comes from the powers
      of beta, that of learning-rate schedules and `inject_hyperparams` from `global_step`.

    Raises:
      ParamsMismatchError: for slots that are not there or of another shape, and for a `global_step` that is no number
        of steps; `faults` lists all of them.
      BadTypeError, BadArgumentError: as `to_tf_slots`; for slots that are no mapping, such as a path, and for powers
        that are none of `beta1` and `beta2`.

    Example:
      >>> import optax
      >>> from jscope.train import from_tf_slots
      >>> params = js.Params({"a/w": jnp.ones(2)})
      >>> slots = {"a/w": np.ones(2), "a/w/Momentum": np.array([1.0, 3.0]), "global_step": 7}
      >>> from_tf_slots(slots, optax.sgd(0.1, 0.9).init(params))[0].trace["a/w"].tolist()
      [1.0, 3.0]
    """
    if not isinstance(slots, Mapping):
        raise bad_type(
            f"from_tf_slots takes arrays by their names, not {type(slots).__name__}.",
            asked="from_tf_slots",
            fix="give what jscope.checkpoint.load_tf(path) reads of a checkpoint",
        )
    power_names = _checked_names(scope, powers, "from_tf_slots")
    given: Mapping[str, Any] = js.Params(slots) if isinstance(slots, dict) else slots
    faults: list[str] = []
    missing: set[str] = set()
    odd: set[str] = set()
    names: list[str] = []
    counts = []

    def value(wanted: str) -> Any:
        if wanted in given:
            found = given[wanted]
            if isinstance(found, jax.core.Tracer):
                raise _traced(f"The slot {shown(wanted)} is", "from_tf_slots")
            if without_value(found):
                faults.append(f"{shown(wanted)} {without_value(found)}")
                return None
            return np.asarray(found)
        there = given.names if isinstance(given, js.Params) else given
        missing.add(wanted)
        near = [repr(known) for known in there if known.endswith(f"/{wanted}")]
        faults.append(f"'{wanted}' is missing" + (f"; there is {', '.join(near[:3])}" if near else ""))
        return None

    def fill(optimizer: str, number: int, tree: Any, factor: int) -> Any:
        def filled(variable: str, old: Any) -> Any:
            wanted = _slot_name(scope, variable, name or optimizer, number)
            names.append(wanted)
            new = value(wanted)
            if new is None:
                return old
            if new.shape != old.shape:
                faults.append(f"'{wanted}' has shape {new.shape} and the state's has {old.shape}")
            return jnp.asarray(factor * new, old.dtype)

        return _mapped(tree, filled)

    def scalar(wanted: str) -> Any:
        found = value(wanted)
        if found is not None and found.shape != ():
            faults.append(f"{shown(wanted)} has shape {found.shape}, and is to be one number")
            odd.add(wanted)
            return None
        return found

    def updates(old: Any) -> Any:
        counts.append(old)
        _check_count(old, "from_tf_slots")
        power1, power2 = map(scalar, power_names)
        if power1 is None or power2 is None:
            return old
        count = _count(float(power1), float(power2), beta1, beta2)
        if count is not None:
            return jnp.asarray(count, old.dtype)
        # Both corrections are 1 to all digits, and any large number will do.
        found = scalar("global_step") if "global_step" in given else round(math.log(_LEAST) / math.log(beta2))
        return filled_steps(found, old)

    def steps(old: Any) -> Any:
        _check_count(old, "from_tf_slots")
        return filled_steps(scalar("global_step"), old)

    def filled_steps(found: Any, old: Any) -> Any:
        why = "" if found is None else _no_steps(found, old.dtype)
        if why:
            faults.append(f"'global_step' {why}")
            missing.add("global_step")  # what is there is none
        return old if why or found is None else jnp.asarray(found, old.dtype)

    filled = _walk(opt_state, fill, updates, steps, gives_momentum=False)
    _check_one_of_each(counts, names, "from_tf_slots")
    if faults:
        raise js.ParamsMismatchError(
            "The slots do not fit the state.",
            kind="mismatch",
            asked="from_tf_slots",
            where=user_line(),
            faults=faults,
            fix=_fix(missing, odd),
        )
    return filled


def _walk(state: Any, tree: _Tree, updates: _Count, steps: _Count, *, gives_momentum: bool) -> Any:
    """A state with its trees and counts replaced by what these functions give for them.

    Args:
      state: a state of optax, or a part of one.
      tree: called for each tree that is a slot.
      updates: called for the count of Adam's steps.
      steps: called for counts of schedules.
      gives_momentum: whether `tree` is called for the momentum of an rmsprop that has none, too.
    """
    import optax

    rms_states = optax.ScaleByRmsState | optax.ScaleByRStdDevState

    def visit(state: Any, inside: str = "") -> Any:
        if isinstance(state, optax.ScaleByAdamState):
            return state._replace(
                count=updates(state.count), mu=tree("Adam", 0, state.mu, 1), nu=tree("Adam", 1, state.nu, 1)
            )
        if isinstance(state, optax.TraceState):
            return optax.TraceState(tree("Momentum", 0, state.trace, 1))
        if isinstance(state, optax.ScaleByRssState):
            return optax.ScaleByRssState(tree("Adagrad", 0, state.sum_of_squares, 1))
        if isinstance(state, optax.ScaleByAdaDeltaState):
            return optax.ScaleByAdaDeltaState(tree("Adadelta", 0, state.e_g, 1), tree("Adadelta", 1, state.e_x, 1))
        if isinstance(state, optax.ScaleByScheduleState):
            return optax.ScaleByScheduleState(steps(state.count))
        if isinstance(state, optax.InjectStatefulHyperparamsState):
            return state._replace(count=steps(state.count), inner_state=visit(state.inner_state, inside))
        if type(state) is tuple and len(state) == 3 and isinstance(state[0], rms_states):
            return rmsprop(*state)
        if isinstance(state, tuple) and hasattr(state, "_fields"):
            return type(state)(*(visit(part, type(state).__name__) for part in state))
        if isinstance(state, tuple | list):
            return type(state)(visit(part, inside) for part in state)
        if type(state) is dict:
            return {key: visit(part, inside) for key, part in state.items()}
        raise bad_type(
            f"{inside or type(state).__name__} is no state of {_KNOWN}, and TF1 has no slots for it.",
            asked="the slots of an optax state",
            fix="give the part of the state that is of one of these optimizers",
        )

    def rmsprop(scaled: Any, rate: Any, momentum: Any) -> Any:
        trees = [scaled.nu, scaled.mu] if isinstance(scaled, optax.ScaleByRStdDevState) else [scaled.nu]
        found = [tree("RMSProp", number, part, 1) for number, part in enumerate(trees)]
        scaled = type(scaled)(**dict(zip(("nu", "mu"), found, strict=False)))
        # optax keeps the sum of the updates, which are subtracted in TF1.
        if isinstance(momentum, optax.TraceState):
            momentum = optax.TraceState(tree("RMSProp", len(trees), momentum.trace, -1))
        elif gives_momentum:
            tree("RMSProp", len(trees), _mapped(trees[0], lambda _, leaf: jnp.zeros_like(leaf)), 1)
        return scaled, visit(rate), momentum

    return visit(state)


def _mapped(tree: Any, function: Callable[[str, Any], Any], name: str = "") -> Any:
    """A tree of arrays with `function(name, leaf)` for each leaf; what optax has masked stays."""
    import optax

    if isinstance(tree, js.Params):
        return tree.map_with_name(lambda leaf_name, leaf: _mapped(leaf, function, leaf_name))
    if isinstance(tree, Mapping):
        return {key: _mapped(part, function, f"{name}/{key}" if name else key) for key, part in tree.items()}
    if isinstance(tree, optax.MaskedNode):
        return tree
    if name and hasattr(tree, "shape"):
        return function(name, tree)
    raise bad_type(
        f"The state's tree is of {type(tree).__name__}, which has no names.",
        asked="the slots of an optax state",
        fix="initialise optax with a Params or a dict of arrays",
    )


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    _mapped(tree, lambda name, leaf: found.append((name, leaf)) or leaf)
    return found


def _slot_name(scope: str, variable: str, optimizer: str, number: int) -> str:
    return f"{scope}/{variable}/{optimizer}".removeprefix("/") + (f"_{number}" if number else "")


def _fix(missing: set[str], odd: set[str]) -> str:
    """The way out where slots don't fit: these are missing, these are no scalars, or a shape is another."""
    ways = []
    if missing - {"global_step"}:
        ways.append("give name= if TF1's optimizer had another, and scope= if minimize was called in a variable scope")
    if "global_step" in missing:
        ways.append('give the number of steps so far among the slots, as "global_step"')
    if odd:
        ways.append(f"give {' and '.join(map(repr, sorted(odd)))} as scalars among the slots")
    return "; ".join(ways) or "fill a state that optimizer.init made for parameters of the checkpoint's shapes"


def _checked_names(scope: Any, powers: Any, asked: str) -> tuple[str, str]:
    """The names of the powers of beta.

    Raises:
      BadArgumentError: for a scope or names of powers that can't be meant.
    """
    if not isinstance(scope, str) or scope != scope.strip("/"):
        why = "is the full name of a variable scope, without / at its ends"
        raise bad_argument(f"scope {why}, not {scope!r:.80}.", asked=asked, fix="write such as 'tower/train'")
    if powers is None:
        return f"{scope}/beta1_power".removeprefix("/"), f"{scope}/beta2_power".removeprefix("/")
    if not isinstance(powers, tuple | list) or len(powers) != 2 or not all(isinstance(name, str) for name in powers):
        fix = "write such as ('beta1_power_1', 'beta2_power_1')"
        raise bad_argument(f"powers are two full names, not {powers!r:.80}.", asked=asked, fix=fix)
    return powers[0], powers[1]


def _check_count(count: Any, asked: str, *, has_value: bool = False) -> None:
    """Raises a BadTypeError for what does not count the steps of one state, or has no value that could be read."""
    if tuple(count.shape):
        what = f"A state that counts steps by an array of shape {tuple(count.shape)} is that of several members"
        fix = "give each member's by itself: jax.tree.map(lambda leaf: leaf[0], state)"
        raise bad_type(f"{what}, and TF1 has one for each.", asked=asked, fix=fix)
    if has_value and isinstance(count, jax.core.Tracer):
        raise _traced("The number of steps of the state is", asked)
    if has_value and without_value(count):
        fix = "give a state with values"
        raise bad_type(f"The number of steps of the state {without_value(count)}.", asked=asked, fix=fix)


def _traced(what: str, asked: str) -> Exception:
    return bad_type(f"{what} traced by JAX, and has no value here.", asked=asked, fix="call it outside of jax.jit")


def _no_steps(given: Any, dtype: Any) -> str:
    """Why that is no number of steps of this dtype, `""` if it is."""
    if isinstance(given, jax.core.Tracer):
        return "is traced by JAX, and has no value here"
    number = np.asarray(given)
    if number.shape != () or number.dtype.kind not in "iuf" or not number >= 0 or number != np.floor(number):
        return f"is {given!s:.40}, which is no number of steps"
    return f"is {number}, which {np.dtype(dtype).name} does not hold" if number > np.iinfo(dtype).max else ""


def _check_one_of_each(counts: list[Any], names: list[str], asked: str) -> None:
    if len(counts) > 1:
        raise bad_argument(
            f"There are {len(counts)} states of Adam, and TF1 has powers of beta for each.",
            asked=asked,
            fix="give each optimizer's state by itself, with powers=",
        )
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise bad_argument(
            f"Two states have a slot '{twice}', and there is one value of that name.",
            asked=asked,
            fix="give each optimizer's state by itself, with the name= that it has in TF1",
        )


def _count(power1: float, power2: float, beta1: float, beta2: float) -> int | None:
    """How many steps Adam has taken, of which the powers of beta tell: `beta ** (steps + 1)`. None where they vanished.

    Raises:
      BadArgumentError: for powers that are none.
    """
    found = [
        math.log(power) / math.log(beta) - 1
        for power, beta in ((power1, beta1), (power2, beta2))
        if 0 < np.float32(beta) < 1 and power > _LEAST
    ]
    apart = max(found, default=0.0) - min(found, default=0.0)
    if not (0 <= power1 <= 1 and 0 <= power2 <= 1):
        raise bad_argument(
            f"{power1} and {power2} are no powers of beta1={beta1} and beta2={beta2}.",
            asked="from_tf_slots",
            fix="give the names of this optimizer's as powers=, or beta ** (steps + 1) in their place among the slots",
        )
    if apart > 0.25 or any(steps < -0.25 for steps in found):
        raise bad_argument(
            f"The powers {power1} and {power2} are of no one number of steps with beta1={beta1} and beta2={beta2}.",
            asked="from_tf_slots",
            fix="give the beta1 and beta2 that TF1's optimizer had",
        )
    return round(found[0]) if found else None
