"""What the Python stack tells of JAX: the transforms around a call, and which call of which function it is in. Floor 1.

JAX traces a function by calling it. So whatever transforms what runs now has a frame on the stack, unless it is applied
later to what was traced before. All reading of frames of JAX is in this file. It reads names of files, positions and
variables of frames, and never depends on who else looks at them: a debugger, a profiler, coverage.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple

import jax

from ._callsite import AS_WRITTEN, BRANCHES, ENTRY, FILES, HOST, JAX, USER, WRAPPER, owner
from ._compat import differentiating_and_staging

# The transforms around a call -----------------------------------------------------------------------------------------


class Surroundings(NamedTuple):
    """The JAX transforms at work around a call, the innermost first.

    Attributes:
      transforms: some of "checkpoint", "scan" (map and fori_loop too), "while_loop" (fori_loop too) and perhaps
        "while_condition" after that, "cond" (and switch), "vmap", "derivative", "custom_jvp", "custom_vjp",
        "shard_map", "trace" (whatever stages its function out), "callback" (a function that runs on the host), and
        "program" where the program was entered.
    """

    transforms: tuple[str, ...]

    def within(self, name: str) -> bool:
        """Whether a transform is around the call within the program."""
        return name in self.transforms[: self.transforms.index("program")]

    def nested(self, *names: str) -> bool:
        """Whether these transforms are around the call in this order, the first of them within the program."""
        rest = iter(self.transforms)
        return self.within(names[0]) and all(name in rest for name in names)


def surroundings(entry: CodeType | None) -> Surroundings:
    """The JAX transforms around the call in progress.

    Args:
      entry: the code in which programs are entered; None where none runs.
    """
    modules, codes = _landmarks()
    found: list[str] = []
    user = frame = sys._getframe(1)
    while frame is not None:
        code, module = frame.f_code, frame.f_globals.get("__name__", "")
        name = codes.get(id(code)) or modules.get(module)
        if code is entry and "program" not in found:
            found.append("program")
        elif name is not None and found[-1:] != [name]:
            found.append(name)
        if name == "while_loop" and not _is_body(frame, user):
            found.append("while_condition")
        if owner(frame) < JAX:
            user = frame
        frame = frame.f_back
    return Surroundings(tuple(found))


@functools.cache
def _landmarks() -> tuple[dict[str, str], dict[int, str]]:
    """Which modules, and which code (by id: it is slow to hash), stand for which transform."""
    differentiates, stages = differentiating_and_staging()
    of_module: dict[Any, str] = {
        jax.checkpoint: "checkpoint",
        jax.lax.cond: "cond",
        jax.shard_map: "shard_map",
        differentiates: "derivative",
        stages: "trace",
        jax.pure_callback: "callback",
        jax.debug.callback: "callback",
    }
    of_code: dict[Any, str] = {
        jax.lax.scan: "scan",
        jax.lax.while_loop: "while_loop",
        jax.custom_jvp.__call__: "custom_jvp",
        jax.custom_vjp.__call__: "custom_vjp",
    }
    modules = {inspect.unwrap(function).__globals__["__name__"]: name for function, name in of_module.items()}
    codes = {id(inspect.unwrap(function).__code__): name for function, name in of_code.items()}
    # What jax.vmap returns: JAX's module for batching also runs what is not in a vmap, such as custom_vjp functions
    # that are called under one.
    vmapped = [constant for constant in inspect.unwrap(jax.vmap).__code__.co_consts if isinstance(constant, CodeType)]
    return modules, codes | dict.fromkeys(map(id, vmapped), "vmap")


def _is_body(while_loop: FrameType, called: FrameType) -> bool:
    """Whether what a `lax.while_loop` has called is its body, not its condition; False where that can't be told."""
    arguments = while_loop.f_locals
    condition = arguments["cond_fun"]
    if getattr(condition, "__globals__", None) is while_loop.f_globals:
        return True  # the condition of lax.fori_loop, which is no user's
    functions = {name: arguments[name] for name in ("cond_fun", "body_fun")}
    function = _function(called, functions)
    if function in functions or function is UNTOLD:
        return function == "body_fun"
    # Neither is what runs, so one of them is a function of JAX's that calls it. A condition of the user's is not.
    modules = [getattr(inner, "__globals__", {}).get("__name__", "") for inner, _, _ in _layers(condition)]
    return any(module.partition(".")[0] not in ("jax", "jaxlib") for module in modules)


# Which call of which function -----------------------------------------------------------------------------------------


UNTOLD: Any = object()  # a function that can't be told from another one of the same call


class OnHostError(Exception):
    """A call comes from a function that JAX runs on the host, in the middle of a program that runs without jit."""


class Call(NamedTuple):
    """A function of the user's that runs because a function of JAX called it.

    Attributes:
      notes: ours, for this one call of a function of JAX by the user; they go when it returns.
      function: stands for the function that was called, among all that this call of JAX calls; or `UNTOLD`.
      turn: for this one call of that function; another call has another one.
    """

    notes: dict[Any, Any]
    function: Any
    turn: Any


def nearest(caller: FrameType, outer: FrameType | None) -> int:
    """What is nearest from a frame outwards: the outer frame (USER), the program's entry (ENTRY) or code of JAX's."""
    frame: FrameType | None = caller
    while frame is not outer:
        if frame is None:
            return ENTRY
        kind = FILES.get(frame.f_code.co_filename)
        if kind is None:
            kind = owner(frame)
        if kind >= ENTRY:
            return kind
        frame = frame.f_back
    return USER if outer is not None else ENTRY


def calls_between(caller: FrameType, outer: FrameType | None) -> tuple[list[Call], bool]:
    """The calls by JAX between two frames, the outermost first; and whether the outer frame was met.

    Without it, or where it is not met, the search ends where the program was entered. `jax.tree.map` and its like call
    a function as often as the user wrote it, and so do branches of `lax.cond` and `lax.switch`: they don't count.

    Raises:
      OnHostError: if the call comes from a callback, which is no part of the program.
    """
    found: list[tuple[list[FrameType], list[FrameType]]] = []  # frames of JAX, and those that run because of them
    users: list[FrameType] = []
    on_host = False
    frame: FrameType | None = caller
    while frame is not None and frame is not outer:
        kind = owner(frame)
        if kind < ENTRY:
            users.append(frame)
            frame = frame.f_back
        elif kind == ENTRY:
            break
        else:
            of_jax: list[FrameType] = []
            while frame is not None and (kind := owner(frame)) >= JAX:
                if kind == BRANCHES:
                    of_jax, users = [], [*users, frame]
                elif kind == JAX:
                    of_jax.append(frame)
                on_host = on_host or kind == HOST
                frame = frame.f_back
            # A method such as __jax_array__, by which JAX asks an object what it is, is called as the user wrote it.
            if of_jax and not (users and users[-1].f_code.co_name in _ASKED_BY_THEMSELVES):
                found.append((of_jax, users))
                users = []
    if on_host and frame is not None:  # what was opened in the callback, by `build` say, is asked there rightly
        raise OnHostError
    return _calls(found[::-1]), frame is not None and frame is outer


# The methods by which JAX and Python ask an object what it is, or for its value. Others, such as `__matmul__`, may be
# functions that JAX is given: `lax.associative_scan(operator.matmul, ...)`.
_ASKED_BY_THEMSELVES = {
    "__jax_array__", "__array__", "__bool__", "__int__", "__float__", "__complex__", "__index__",
    "__len__", "__iter__", "__next__", "__eq__", "__ne__", "__hash__", "__repr__", "__str__", "__format__",
    "__get__", "__getattr__", "__getattribute__", "__instancecheck__",
}  # fmt: skip


def _calls(found: list[tuple[list[FrameType], list[FrameType]]]) -> list[Call]:
    """The calls, the outermost first, of which frames of JAX and of the user's were found; see `calls_between`."""
    calls: list[Call] = []
    while found:
        (of_jax, users), *found = found
        # JAX may have been handed a function of ours: then nothing of the user's runs.
        called = users[-1] if users else of_jax[0]
        given_to, functions = _functions_given(of_jax, called)
        notes = _notes_in(of_jax[-1])
        function, turn = _function(called, functions), _turn(of_jax[0])
        if id(given_to.f_code) in _handing_on() and users:
            # JAX hands the linear operator to the user's own solver, which calls it. It is one function all the same.
            for number, (inner_jax, inner_users) in enumerate([([], users[:-1]), *found]):
                place = _place_of(functions, function, inner_users, users[-1])
                if place is not None:
                    function = _function(inner_users[place], functions)
                    turn = turn, *map(_turn, inner_jax[:1]), *map(_state, [*inner_users, users[-1]][place + 1 :])
                    found = found[number:] if number else found
                    break
        calls.append(Call(notes, function, turn))
    return calls


def _functions_given(of_jax: list[FrameType], called: FrameType) -> tuple[FrameType, dict[Any, Any]]:
    """The functions among which the called one is, and the frame of JAX's function that was given them.

    That is the one that the user called, unless it was given a function that gives several to JAX:
    `jax.jit(partial(while_loop, condition, body))`.
    """
    outermost, functions = of_jax[-1], _functions_given_to(of_jax[-1])
    if any(_runs(function, called.f_code) for function in functions.values()):
        return outermost, functions
    for frame in reversed(of_jax[:-1]):
        if id(frame.f_code) in _taking_several():
            inner = _functions_given_to(frame)
            if any(_runs(function, called.f_code) for function in inner.values()):
                return frame, inner
    return outermost, functions


@functools.cache
def _handing_on() -> frozenset[int]:
    """The code, by id, of JAX's functions that give one of the functions that they are given to another."""
    return _codes_of(jax.lax.custom_linear_solve, jax.lax.custom_root)


@functools.cache
def _taking_several() -> frozenset[int]:
    """The code, by id, of JAX's functions that are given several functions, and call them."""
    linalg = jax.scipy.sparse.linalg
    with_rules = [holding.__call__ for holding in _HOLDING]  # a function and its rules
    return _handing_on() | _codes_of(jax.lax.while_loop, linalg.cg, linalg.gmres, linalg.bicgstab, *with_rules)


def _codes_of(*functions: Any) -> frozenset[int]:
    return frozenset(id(inspect.unwrap(function).__code__) for function in functions)


def _place_of(functions: dict[Any, Any], direct: Any, inner: list[FrameType], called: FrameType) -> int | None:
    """Which of the inner frames, the outermost if several, is a call of another function, given to the one called."""
    for place in range(len(inner) - 1, -1, -1):
        code = inner[place].f_code
        if any(key != direct and _runs(function, code) for key, function in functions.items()):
            given = _functions_given_to(called)
            if any(_runs(function, code) for function in given.values()):
                return place
    return None


_NOTES = "jscope's notes"  # no name that a variable could have


def _notes_in(frame: FrameType) -> dict[Any, Any]:
    """Our notes in a frame of JAX.

    They stand among the frame's variables, since nothing else comes and goes with one call of a function: an id may be
    given again, a reference would keep what the function computes alive, and weak references to frames there are none.
    Code that runs in the frame does not see them.
    """
    variables: Any = frame.f_locals
    notes = variables.get(_NOTES)
    if notes is None:
        notes = variables[_NOTES] = {}
    if type(variables) is dict:
        # Before Python 3.13 this is a copy, which would keep alive what the function lets go.
        variables.clear()
        variables[_NOTES] = notes
    return notes


def _state(frame: FrameType) -> tuple[Any, ...]:
    """Where a frame stands: it stays the same while the frame waits for a call, and is another one for the next.

    Plain values are compared; of others only the id is kept, so that nothing is kept alive.
    """
    plain, shared, get = (bool, int, float, str), frame.f_code.co_cellvars, frame.f_locals.get
    # Not those that inner functions share: in a comprehension, Python 3.13.0 crashes on looking at some of them.
    values = [get(name) for name in frame.f_code.co_varnames if name not in shared]
    return frame.f_lasti, *[value if type(value) in plain else id(value) for value in values]


def _turn(frame: FrameType) -> object:
    """Stands for the call that a frame of JAX is waiting for: another object for each call."""
    seen = _state(frame)
    notes = _notes_in(frame)
    known = notes.get("turn")
    if known is None or known[0] != seen:
        known = notes["turn"] = seen, object()
    return known[1]


def _functions_given_to(frame: FrameType) -> dict[Any, Any]:
    """The functions among the arguments of a function, by key; also those that an object of `jax.custom_vjp` holds."""
    code, variables = frame.f_code, frame.f_locals
    given: list[Any] = []
    for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 2]:
        value: Any = variables.get(name)
        if isinstance(value, _HOLDING):
            value = [getattr(value, name, None) for name in ("fun", "jvp", "fwd", "bwd", "vmap_rule")]
        given.extend(value if type(value) in (tuple, list) else value.values() if type(value) is dict else [value])
    return {_key_of(value): value for value in given if callable(value)}


def _key_of(function: Any) -> Any:
    """What tells a function from others while both live: its id. A method is a new object each time it is asked for."""
    return (id(function.__self__), id(function.__func__)) if inspect.ismethod(function) else id(function)


_HOLDING = jax.custom_jvp, jax.custom_vjp, jax.custom_batching.custom_vmap


def _function(called: FrameType, functions: dict[Any, Any]) -> Any:
    """Stands for the function whose call a frame is, among those that may be called."""
    if len(functions) < 2:
        return called.f_code
    alike = [number for number, function in functions.items() if _runs(function, called.f_code)]
    if len(alike) > 1:  # most are told by their code, and no variables of the user's are read
        alike = [number for number in alike if _is_call_of(functions[number], called)] or alike
    if not alike:
        # Not by a function that shows its code. Two objects of a class whose `__call__` is no function of Python's are
        # then not told apart.
        hidden = [type(one) for one in functions.values() if type(type(one).__call__).__module__ != "builtins"]
        return UNTOLD if len(hidden) > len(set(hidden)) else called.f_code
    return alike[0] if len(alike) == 1 else UNTOLD


def _layers(function: Any) -> Iterator[tuple[Any, list[Any], dict[str, Any]]]:
    """The functions of Python's that run when a function is called, the outermost first, with what they are given.

    Through partials, methods, wrappers that say what they wrap, objects with `__call__`, and those whose class has it
    wrapped; each with the arguments, by position and by name, that are bound to it.
    """
    bound: list[Any] = []
    named: dict[str, Any] = {}
    for _ in range(100):  # not without end: there are objects that say of each other, or of anything, that they wrap it
        if function is None:
            return
        if isinstance(function, functools.partial):
            bound, named = [*function.args, *bound], {**function.keywords, **named}
            function = function.func
        elif inspect.ismethod(function):
            bound, function = [function.__self__, *bound], function.__func__
        elif hasattr(function, "__code__"):
            yield function, bound, named
            function = getattr(function, "__wrapped__", None)
        else:
            call = getattr(type(function), "__call__", None)  # noqa: B004 (what it is, not whether there is one)
            if hasattr(call, "__code__"):
                yield call, [function, *bound], named
            wrapped = getattr(function, "__wrapped__", None)
            if wrapped is None:
                bound = [function, *bound]
                wrapped = getattr(call, "__wrapped__", None) if hasattr(call, "__code__") else call
                if not hasattr(wrapped, "__wrapped__") and not hasattr(wrapped, "__code__"):
                    return  # a function in C
            function = wrapped


def _runs(function: Any, code: CodeType) -> bool:
    """Whether a call of a function runs that code, directly or in what it wraps."""
    return any(inner.__code__ is code for inner, _, _ in _layers(function))


def _is_call_of(function: Any, frame: FrameType) -> bool:
    """Whether a frame may be a call of a function: of that very object, not of one that only has the same code.

    It is none if it was given other arguments. What the code sets anew says nothing.
    """
    code, variables = frame.f_code, frame.f_locals
    inner, bound, named = next(layer for layer in _layers(function) if layer[0].__code__ is code)
    count = code.co_argcount
    names = code.co_varnames[: count + code.co_kwonlyargcount]
    defaults = inner.__defaults__ or ()
    want = dict(zip(names[count - len(defaults) : count], defaults, strict=False))
    want |= {**(inner.__kwdefaults__ or {}), **named, **dict(zip(names[:count], bound, strict=False))}
    want = {name: value for name, value in want.items() if name in names and name not in _set_anew(code)}
    want |= {name: _content(cell) for name, cell in zip(code.co_freevars, inner.__closure__ or (), strict=True)}
    if code.co_flags & inspect.CO_VARARGS and code.co_varnames[len(names)] not in _set_anew(code):
        rest = variables.get(code.co_varnames[len(names)], ())
        if any(one is not other for one, other in zip(bound[count:], rest, strict=False)):
            return False
    return all(variables.get(name) is value for name, value in want.items())


@functools.lru_cache(maxsize=1 << 8)
def _set_anew(code: CodeType) -> frozenset[str]:
    """The variables that code sets or deletes, or functions within it do."""
    found: set[str] = set()
    for step in dis.get_instructions(code):
        if step.opname.startswith(("STORE_FAST", "STORE_DEREF", "DELETE_FAST", "DELETE_DEREF")):
            names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
            found.update(names[:1] if step.opname.endswith("LOAD_FAST") else names)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found.update(_set_anew(inner) & set(inner.co_freevars))
    return frozenset(found)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None


def tell_files_apart(entry: CodeType) -> None:
    """Notes which files of JAX count in another way than the rest, and the file in which programs are entered."""
    for function, kind in (
        (jax.tree.map, AS_WRITTEN),
        (jax.tree_util.tree_map, AS_WRITTEN),
        (jax.lax.cond, BRANCHES),
        (jax.pure_callback, HOST),
        (jax.debug.callback, HOST),
    ):
        FILES[inspect.unwrap(function).__code__.co_filename] = kind
    shortens_tracebacks: Any = jax.grad  # as the wrapper around most functions of JAX does
    if shortens_tracebacks.__code__ is not inspect.unwrap(shortens_tracebacks).__code__:
        FILES[shortens_tracebacks.__code__.co_filename] = WRAPPER
    FILES[entry.co_filename] = ENTRY
