"""What to say of a call of a program that goes wrong: arguments in the wrong place, flags that JAX traces. Floor 1.

Nothing here runs unless there is an error already. One of Python's or JAX's that says too little becomes one of ours,
`from` the first, and stays a `TypeError` where it was one. All other errors of a program are its own, and stay as they
are: whatever it raises itself is among them.
"""

from __future__ import annotations

import dis
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import Parameter, Signature
from types import CodeType, TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._arguments import Argument, Arguments, each_argument
from ._callsite import OURS, USER, owner, user_line
from ._errors import (
    STATIC_ARGNAMES,
    AssignError,
    BadArgumentError,
    BadTypeError,
    DtypeMismatchError,
    InitializerError,
    JscopeError,
    MissingRngError,
    ParamsMismatchError,
    ShapeMismatchError,
    UnknownNameError,
)
from ._names import near, shows_traced
from ._params import Params
from ._values import is_traced

# What JAX raises where Python asks for a value that is only known when the compiled program runs.
_NOT_KNOWN_YET = jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError

# What Python and JAX raise for a value of another kind than they take. Classes under these say something else.
_OF_THE_WRONG_KIND = AttributeError, IndexError, TypeError, ValueError

# Keywords that other libraries take, and what does the same here.
_ELSEWHERE = {
    "mutable": "call net.update(params, ...), which returns (out, params with all assignments)",
    "method": "make a program of that function: js.transform(function)",
    "is_training": "the program has no such parameter; give it one if it is to know",
    "warm_start": "values to keep are given to init: net.init(key, ..., warm_start=tree)",
}
# Errors of ours that a key or a tree in the wrong place can end in.
_ENDED_IN = (
    BadTypeError,
    BadArgumentError,
    InitializerError,
    ShapeMismatchError,
    DtypeMismatchError,
    ParamsMismatchError,
    UnknownNameError,
    MissingRngError,
)
_KEYWORDS_FOR_KEYS = ("key", "keys", "rngs", "rng_key", "seed", "prng_key")


class Call(NamedTuple):
    """A call of a member of a transformed program, as the user wrote it.

    Attributes:
      name: of the member: `"apply"`, ...
      net: the program's name.
      program: the user's function.
      takes: its signature; None where Python can't tell it.
      signature: that of the member.
      first: the tree or key that the member takes first; empty for `specs`, or where it is missing.
      args, kwargs: the program's own.
      has_rng: whether `rng=` was given.
    """

    name: str
    net: str
    program: Callable[..., Any]
    takes: Signature | None
    signature: Signature
    first: tuple[Any, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    has_rng: bool

    def form(self) -> str:
        """How it is called: `net.apply(params, x, training=False, *, rng=None)`."""
        plain = [parameter.replace(annotation=Parameter.empty) for parameter in self.signature.parameters.values()]
        text = str(Signature(plain)).replace("(/, ", "(").replace(", /", "")
        return f"{self.net if self.net.isidentifier() else 'net'}.{self.name}{text}"

    def asked(self) -> str:
        """Which call it was."""
        return f"{self.name} of program '{self.net}'"

    def fits(self, args: tuple[Any, ...]) -> bool:
        """Whether the program takes these positional arguments, and the keywords given."""
        if self.takes is None:
            return False
        try:
            self.takes.bind(*args, **self.kwargs)
        except TypeError:
            return False
        return True

    def arguments(self) -> list[Argument]:
        """The program's arguments, one by one."""
        return each_argument(self.signature, len(self.first), self.args, self.kwargs)

    def without(self, index: int) -> tuple[Any, ...]:
        """The positional arguments, one left out."""
        return self.args[:index] + self.args[index + 1 :]


def explained(error: Exception, call: Call) -> JscopeError | None:
    """What to raise instead of an error that a call ended in; None for the error itself, which may say more now."""
    if isinstance(error, JscopeError):
        _say_more(error, call)
        return None
    if isinstance(error, _NOT_KNOWN_YET):
        return _tested(error, call)
    does_not_fit = isinstance(error, TypeError) and call.takes is not None and not call.fits(call.args)
    if does_not_fit and not _ran(call.program, error):
        return misfit(str(error), call)
    return _failed_on(error, call)


def first_is_missing(call: Call) -> BadTypeError:
    """The error of a call without any positional argument, whose first one is given by position only."""
    first = next(iter(call.signature.parameters))
    by_keyword = f", not as {first}=" if first in call.kwargs else ""
    return BadTypeError(
        f"{call.name} takes {_a_tree_or_key(call)} as its first argument, by position{by_keyword}.",
        kind="bad_call",
        asked=call.asked(),
        where=user_line(),
        exists=call.form(),
        fix=f"call it as {call.form()}",
    )


def _a_tree_or_key(call: Call) -> str:
    return "a random key" if call.name == "init" else "a tree of parameters"


# Arguments that the program does not take -----------------------------------------------------------------------------


def misfit(what: str, call: Call) -> BadTypeError:
    """The error of a call with arguments that the program does not take."""
    return BadTypeError(
        f"{call.name} got arguments that the program does not take: {what.rstrip('.?')}.",
        kind="bad_call",
        asked=call.asked(),
        where=user_line(),
        exists=call.form(),
        fix=next(_hints(call), f"call it as {call.form()}"),
    )


def _hints(call: Call) -> Iterator[str]:
    """What may have been meant, the likeliest first."""
    runs = call.name in ("apply", "update")
    parameters = call.takes.parameters if call.takes is not None else {}
    for index, value in enumerate(call.args):
        if not call.fits(call.without(index)):
            continue
        if is_key(value):
            yield _where_keys_go(call)
        elif value is None and runs and index == 0:
            yield "leave the None out: there is no key unless it is given, by keyword, rng=key"
        elif isinstance(value, Params) or (isinstance(value, Mapping) and index == 0):
            yield (
                "one tree holds parameters and state: join the two, params | state; update returns what is assigned"
                if runs
                else f"{call.name} makes the tree and takes none; values to keep are given to init, warm_start=tree"
            )
    for name in call.kwargs:
        if name in parameters:
            continue
        if name in _KEYWORDS_FOR_KEYS or name == "rng":
            yield _where_keys_go(call)
        elif close := near(name, parameters):
            yield f"the parameter is called {close[0]!r}: call it as {call.form()}"
        elif name in _ELSEWHERE:
            yield _ELSEWHERE[name]
    if call.name in ("init", "specs") and not call.args and not call.kwargs:
        yield f"give inputs too, arrays or jax.ShapeDtypeStruct: {call.form()}"


def _where_keys_go(call: Call) -> str:
    if call.name == "specs":
        return "leave the key out: specs makes no values and takes none"
    if call.name == "init":
        return "give one key, the first argument: next_key and all initializers get keys of their own from it"
    return "keys go by keyword: " + call.form().partition("(")[0] + "(params, ..., rng=key)"


def is_key(value: Any) -> bool:
    """Whether a value is a random key of JAX, or looks like one of the old kind."""
    if not isinstance(value, jax.Array):
        return False
    return is_typed_key(value) or (value.dtype == jnp.uint32 and value.shape in ((2,), (4,)))


def is_typed_key(value: Any) -> bool:
    """Whether a value is an array of random keys of JAX's new kind."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _ran(program: Callable[..., Any], error: BaseException) -> bool:
    """Whether the program's own code was entered before the error: then its arguments were taken."""
    code = _code(program)
    return code is not None and any(place.tb_frame.f_code is code for place in _places(error))


def _places(error: BaseException) -> Iterator[TracebackType]:
    """Where an error passed through, the outermost first."""
    place = error.__traceback__
    while place is not None:
        yield place
        place = place.tb_next


def _code(program: Any) -> CodeType | None:
    while isinstance(program, functools.partial):
        program = program.func
    program = inspect.unwrap(program)
    program = getattr(program, "__func__", program)
    return getattr(program, "__code__", None) or getattr(type(program).__call__, "__code__", None)


def _failed_on(error: Exception, call: Call) -> BadTypeError | None:
    """For a program that failed with a key or a tree where it takes something else; None where that can't be told."""
    mistaken = _mistaken(call)
    if mistaken is None or type(error) not in _OF_THE_WRONG_KIND or _is_raised_by_user(error):
        return None
    what, fix = mistaken
    return BadTypeError(
        f"{call.name} got {what}, and the program failed: {type(error).__name__}: {error}.",
        kind="bad_call",
        asked=call.asked(),
        where=user_line(),
        exists=call.form(),
        fix=fix,
    )


def _is_raised_by_user(error: Exception) -> bool:
    """Whether an error comes from a `raise` (or an `assert`) in code that is neither jscope's nor JAX's."""
    *_, innermost = _places(error)
    code, at = innermost.tb_frame.f_code.co_code, innermost.tb_lasti
    return owner(innermost.tb_frame) == USER and code[at : at + 1] == bytes([dis.opmap["RAISE_VARARGS"]])


def _mistaken(call: Call) -> tuple[str, str] | None:
    """(what is where a key or a tree hardly belongs, the way out), if anything is."""
    for index, value in enumerate(call.args):
        if is_typed_key(value) and not call.has_rng and call.fits(call.without(index)):
            what, usual, fix = "a random key", "key|rng|seed|random", _where_keys_go(call)
        elif isinstance(value, Params) and call.first and not isinstance(call.first[0], Params):
            what, usual, fix = "a tree of parameters", "param|tree|weight|state|target|teacher", _tree_first(call)
        else:
            continue
        name = next((each.name for each in call.arguments() if each.name and each.value is value), "")
        if name and not re.search(usual, name):
            return f"{what} as `{name}`", fix
    return None


def _tree_first(call: Call) -> str:
    return f"the tree comes first: {call.form()}"


# The tree or key that comes first -------------------------------------------------------------------------------------


def _say_more(error: JscopeError, call: Call) -> None:
    """Adds to an error of ours what only the whole call tells; of several calls around it, the innermost that can."""
    if error.told_by_call:
        return
    before, runs = error.fix, call.name in ("apply", "update")
    first = call.first[0] if call.first else None
    if error.kind == "not_a_mapping" and runs and not isinstance(first, Mapping):
        if isinstance(first, tuple) and any(isinstance(part, Params) for part in first):
            error.fix = "update returns (out, params): pass the second of the two"
        elif is_key(first) or any(isinstance(value, Params) for value in call.args):
            error.fix = _tree_first(call)
    elif error.kind == "bad_key" and call.name == "init" and not is_key(first):
        if isinstance(first, Params):
            error.fix = "init makes the tree, from a key; values to keep are given so: init(key, ..., warm_start=tree)"
        elif isinstance(first, Mapping):
            error.fix = "give one key: next_key and all initializers get keys of their own from it"
        elif any(map(is_key, call.args)):
            error.fix = f"the key comes first: {call.form()}"
    else:
        _say_which_is_traced(error, call)
        if error.fix == before and isinstance(error, _ENDED_IN) and (mistaken := _mistaken(call)):
            what, fix = mistaken
            error.exists = error.exists or f"{call.name} got {what}"
            error.fix += f"; or, if {what} is a mistake, {fix}"
    error.told_by_call = error.fix != before


# Flags that are traced ------------------------------------------------------------------------------------------------


def _tested(error: Exception, call: Call) -> BadTypeError | None:
    """For a program that asks in Python for a value that JAX traces; None if that can't be one of its flags."""
    flags = _not_known_yet(_flags(call, only_bools=False), call)
    told = _depends_on(error, call)
    if told is not None:
        if told and call.name in ("init", "specs"):  # JAX knows these arguments by other names
            error.add_note(f"In {call.asked()}, the value depends on {_listed(sorted(told))}.")
        flags = {path: leaf for path, leaf in flags.items() if path in told} if told <= flags.keys() else {}
    if not flags:
        return None
    fix = _static(flags, call)
    if told is None:
        fix = f"if it comes from {_listed(flags)}, {fix}; if not, let jnp.where or jax.lax.cond decide"
    return BadTypeError(
        "The program asks in Python, as `if` does, for a value that JAX traces; "
        f"{'among its arguments ' * (told is None)}{_what_they_are(flags, call)}.",
        kind="traced",
        asked=call.asked(),
        where=_user_line_of(error) or user_line(),
        exists=call.form(),
        fix=fix,
    )


def _depends_on(error: Exception, call: Call) -> set[str] | None:
    """The program's arguments on which, as JAX says, a value depends that it does not know yet; by path.

    There are none of them if JAX says that of a function within the program. If it does of one around, or says nothing,
    it can't be told which they are: None.
    """
    told = re.search(r"tracing the function \S+ at (.+):(\d+) for (.+)", str(error))
    if told is None:
        return None
    frames = [place.tb_frame for place in _places(error) if _begins(place) == (told[1], int(told[2]))]
    if not frames:
        return None
    named = re.search(r"arguments? (.+)\.$", told[3])
    names = set(re.split(r", and | and |, ", named[1])) if named else set()
    if frames[0].f_code is _code(call.program):
        return names
    if owner(frames[0]) != OURS or len(frames) > 1:
        return set()
    paths = {id(leaf): path for path, leaf in _leaves(call.arguments())}
    arrays = Arguments(call.args, call.kwargs).arrays
    as_traced = {f"arrays[{number}]": paths.get(id(array), "") for number, array in enumerate(arrays)}
    return {as_traced.get(name, name) for name in names}


def _begins(place: TracebackType) -> tuple[str, int]:
    """Where the function begins that an error passed through."""
    code = place.tb_frame.f_code
    return code.co_filename, code.co_firstlineno


def _leaves(arguments: Iterable[Argument]) -> Iterator[tuple[str, Any]]:
    """The leaves of a program's arguments, each after its path."""
    for argument in arguments:
        for path, leaf in jax.tree_util.tree_flatten_with_path(argument.value)[0]:
            yield argument.path + jax.tree_util.keystr(path), leaf


def _flags(call: Call, *, only_bools: bool) -> dict[str, Any]:
    """The arguments that are single bools or integers in arrays, by path; bools only, if asked so."""
    found: dict[str, Any] = {}
    for path, leaf in _leaves(call.arguments()):
        is_scalar = isinstance(leaf, jax.Array | np.ndarray) and leaf.shape == ()
        if is_scalar and (leaf.dtype == bool or (not only_bools and jnp.issubdtype(leaf.dtype, jnp.integer))):
            found[path] = leaf
    return found


def _not_known_yet(flags: dict[str, Any], call: Call) -> dict[str, Any]:
    """Those whose values the program can't have: in `apply` and `update`, arrays that are not traced have theirs."""
    return {path: leaf for path, leaf in flags.items() if call.name in ("init", "specs") or is_traced(leaf)}


def _listed(paths: Iterable[str]) -> str:
    return " and ".join(f"`{path}`" for path in paths)


def _what_they_are(flags: dict[str, Any], call: Call) -> str:
    names = _listed(flags)
    be, its = ("is", "its value is") if len(flags) == 1 else ("are", "their values are")
    if any(map(is_traced, flags.values())):
        return f"{names} {be} traced: {its} known only when the compiled program runs"
    if call.name in ("init", "specs"):
        return f"{names} {be} given in an array, and {call.name} looks at shapes of arrays, not at what is in them"
    return f"{names} {be} given in an array"


def _static(flags: dict[str, Any], call: Call) -> str:
    if not any(map(is_traced, flags.values())):
        return f"give {_listed(flags)} as plain Python (True, False, a number), not as an array"
    called = f"net.{'apply' if call.name == 'specs' else call.name}"
    return (
        f"make it static in the jax.jit around: jax.jit({called}, {_static_arguments(flags, call)}); for other "
        f"transforms bind it before: {_bound(called, flags, call)}"
    )


def _holding(flags: dict[str, Any], call: Call) -> list[Argument]:
    return [each for each in call.arguments() if any(path in flags for path, _ in _leaves([each]))]


def _static_arguments(flags: dict[str, Any], call: Call) -> str:
    """What `jax.jit` is told: names where all have one; else numbers, beside which names hold for what is so given."""
    holding = _holding(flags, call)
    by_name = all(each.name for each in call.arguments())
    names = [each.name for each in holding if by_name or each.number is None]
    numbers = [each.number for each in holding if not by_name and each.number is not None]
    told = [
        f"{keyword}={given[0]!r}" if len(given) == 1 else f"{keyword}=({', '.join(map(repr, given))})"
        for keyword, given in (("static_argnums", numbers), ("static_argnames", names))
        if given
    ]
    inside = flags.keys() - {each.path for each in holding}
    return ", ".join(told) + " (a static argument can't be a dict or a list: give it alone)" * bool(inside)


def _bound(called: str, flags: dict[str, Any], call: Call) -> str:
    """The member with the flags given: by name, unless they have none or others come after them by position."""
    holding = _holding(flags, call)
    held = {each.path for each in holding}
    others = [each for each in call.arguments() if each.path not in held]
    last = max((each.number for each in others if each.number is not None), default=0)
    if all(each.name and (each.number is None or each.number > last) for each in holding):
        return f"functools.partial({called}, {', '.join(f'{each.name}=...' for each in holding)})"
    taken = ["params"] if call.name == "specs" else list(call.signature.parameters)[:1]
    given = [*taken]
    for each in call.arguments():
        name = each.name or re.sub(r"\W+", "_", each.path).strip("_")
        value = "..." if each.path in held else name
        taken += [name] * (each.path not in held)
        given.append(value if each.number is not None else f"{name}={value}")
    if call.has_rng:
        taken.append("rng")
        given.append("rng=rng")
    return f"lambda {', '.join(taken)}: {called}({', '.join(given)})"


def _say_which_is_traced(error: JscopeError, call: Call) -> None:
    """Names the arguments that may be behind an error about something that is traced."""
    is_told, is_shown = STATIC_ARGNAMES in error.fix, shows_traced(error.what)
    may_be_flag = isinstance(error, AssignError | MissingRngError)
    flags = _flags(call, only_bools=may_be_flag) if is_told or is_shown or may_be_flag else {}
    if is_told or is_shown:
        flags = _not_known_yet(flags, call)
    if not flags:
        return
    if is_told:
        static = _static_arguments(flags, call)
        error.fix = error.fix.replace(STATIC_ARGNAMES, f"{static} if it comes from {_listed(flags)}")
    elif is_shown:
        error.fix += f"; if it comes from {_listed(flags)}, {_static(flags, call)}"
    else:
        error.fix += f"; or, if `{next(iter(flags))}` decides about it, {_static(flags, call)}"
    error.exists = error.exists or _what_they_are(flags, call)


def _user_line_of(error: BaseException) -> str:
    """The innermost line of the user's that an error passed through."""
    found = ""
    for place in _places(error):
        if owner(place.tb_frame) == USER:
            found = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
    return found
