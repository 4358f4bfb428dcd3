"""The functions that a program is turned into, as objects: called like it, named like it. Floor 1."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any

import jax

from ._callsite import user_line
from ._errors import BadNameError, BadTypeError
from ._hints import Call, explained, first_is_missing, misfit
from ._params import Params
from ._show import short

_KEY = Parameter("key", Parameter.POSITIONAL_ONLY, annotation=jax.Array)
_PARAMS = Parameter("params", Parameter.POSITIONAL_ONLY, annotation=Mapping[str, Any])
_RNG = Parameter("rng", Parameter.KEYWORD_ONLY, default=None, annotation=jax.Array | None)
_WARM_START = Parameter("warm_start", Parameter.KEYWORD_ONLY, default=None, annotation=Mapping[str, Any] | None)
_OUT_SHARDINGS = Parameter("out_shardings", Parameter.KEYWORD_ONLY, default=None, annotation=Any)

# What each call takes beside the program's arguments: before them, and by keyword.
_BESIDE: dict[str, tuple[Parameter | None, tuple[Parameter, ...]]] = {
    "specs": (None, ()),
    "init": (_KEY, (_WARM_START, _OUT_SHARDINGS)),
    "apply": (_PARAMS, (_RNG,)),
    "update": (_PARAMS, (_RNG,)),
}
_ANYTHING = (Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD))

# Parameters that a program can't have, and what they are for.
_RESERVED = {
    "rng": "random keys come from js.next_key() and apply(..., rng=key)",
    "warm_start": "values to keep are given as init(key, ..., warm_start=tree)",
    "out_shardings": "where values shall lie is given as init(key, ..., out_shardings=net.specs(...).shardings(mesh))",
}


def check_program(fn: Any, *, is_made: bool) -> None:
    """Raises BadTypeError for what is no program, or is made one already; BadNameError for reserved parameters."""
    is_made = is_made or isinstance(fn, Member)
    if not callable(fn) or is_made:
        raise BadTypeError(
            f"transform takes a function, not {short(fn)}.",
            kind="not_a_program",
            where=user_line(),
            fix="pass the function that calls get_variable" + ", which is its __wrapped__" * is_made,
        )
    if inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise BadTypeError(
            f"Program {getattr(fn, '__name__', fn)} is a generator or coroutine: its body runs after it has ended.",
            kind="not_a_program",
            where=user_line(),
            fix="make it a plain function that returns its results",
        )
    signature = signature_of(fn)
    parameters = {} if signature is None else signature.parameters
    for name, use in _RESERVED.items():
        if name in parameters:
            raise BadNameError(
                f"Program {getattr(fn, '__name__', fn)} has a parameter called {name!r}, which jscope keeps.",
                kind="reserved",
                where=user_line(),
                fix=f"rename it; {use}",
            )


def signature_of(program: Callable[..., Any]) -> Signature | None:
    """The signature of a program; None where Python can't tell it, as of some builtins."""
    try:
        return inspect.signature(program)
    except (TypeError, ValueError, NameError):  # the last for annotations that name what is not there
        return None


def member_signature(call: str, program: Signature | None, returns: Any) -> Signature:
    """The signature of one of the four calls: the program's own, with what the call takes beside it.

    A first parameter whose name the program has itself gets an underscore: it is passed by position alone.
    """
    parameters = list(_ANYTHING if program is None else program.parameters.values())
    before, by_keyword = _BESIDE[call]
    end = -1 if parameters and parameters[-1].kind is Parameter.VAR_KEYWORD else len(parameters)
    parameters[end:end] = by_keyword
    if before is not None:
        name, taken = before.name, {parameter.name for parameter in parameters}
        while name in taken:
            name += "_"
        parameters.insert(0, before.replace(name=name))
    result = Signature.empty if program is None else program.return_annotation
    if call == "update":
        result = tuple[Any if result is Signature.empty else result, Params]
    elif call != "apply":
        result = returns
    return Signature(parameters, return_annotation=result)


class Member:
    """One call of a transformed program (`net.apply`, ...): the same object at every access, so `jax.jit` caches.

    Args:
      net: the transformed program; pickling goes by way of it.
      call: the member's name.
      method: what is called, with `net` first.
      program: the user's function.
      name: the function's name as JAX shows it.
      returns: what the call returns, where that is the same for all programs.
    """

    def __init__(
        self, net: Any, call: str, method: Callable[..., Any], program: Callable[..., Any], name: str, returns: Any
    ) -> None:
        self.__name__ = self.__qualname__ = name
        self.__doc__ = method.__doc__
        self.__module__ = net.__module__
        self.__wrapped__ = program  # by which JAX's errors tell where the function stands
        self._net, self._call, self._method, self._returns = net, call, method, returns
        self._kept = frozenset(_RESERVED) - {parameter.name for parameter in _BESIDE[call][1]}

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if not args and _BESIDE[self._call][0] is not None:
            raise first_is_missing(self._as_called(args, kwargs))
        if not self._kept.isdisjoint(kwargs):  # a program with **kwargs would be given them
            names = ", ".join(f"{name}=" for name in kwargs if name in self._kept)
            raise misfit(f"{names} is none of {self._call}, and kept by jscope", self._as_called(args, kwargs))
        try:
            return self._method(self._net, *args, **kwargs)
        except Exception as error:
            better = explained(error, self._as_called(args, kwargs))
            if better is None:
                raise
            raise better from error

    def _as_called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        before, by_keyword = _BESIDE[self._call]
        own = {parameter.name for parameter in by_keyword}
        first, rest = (args[:1], args[1:]) if before is not None else ((), args)
        return Call(
            self._call,
            self._net.__name__,
            self.__wrapped__,
            signature_of(self.__wrapped__),
            self.__signature__,
            first,
            rest,
            {name: value for name, value in kwargs.items() if name not in own},
            has_rng=kwargs.get("rng") is not None,
        )

    @property
    def __signature__(self) -> Signature:
        known = self.__dict__.get("_signature")
        if known is None:
            known = self._signature = member_signature(self._call, signature_of(self.__wrapped__), self._returns)
        return known

    # With this, Python takes it for a function, so that `help` shows what it takes; it binds to nothing.
    def __get__(self, instance: Any, owner: Any = None) -> Member:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._net, self._call)

    def __repr__(self) -> str:
        return f"<{self._call} of {self._net!r}>"
