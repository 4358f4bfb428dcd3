"""slim's `arg_scope`: default arguments of functions, set by a `with` block. Floor 3.

The open blocks of a running program are kept in its run and die with it. Those opened where no program runs can only
build defaults for later. `_ambient` keeps both.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ._ambient import arg_scopes, arg_scopes_around, is_running, set_arg_scopes
from ._callsite import user_line
from ._errors import BadArgumentError, BadTypeError, OutsideProgramError, ScopeExitError
from ._show import short

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Function -> its keyword arguments. The dicts of open blocks are never changed: a block inside makes a new one.
Defaults = dict[Callable[..., Any], dict[str, Any]]

# The attribute of a decorated function that names it as a key; functools.wraps carries it on to wrappers of it.
_KEY = "_jscope_arg_scope_key"
_NAMES = "_jscope_arg_scope_names"


class arg_scope:  # noqa: N801 (slim's name)
    """Sets default arguments of functions for the calls inside; a context manager. slim: `slim.arg_scope`.

    The functions are those decorated with `add_arg_scope`, all of `jscope.layers.contrib` among them. Blocks nest: what
    an inner block does not set again stays as it is. What the `with` yields holds all defaults then in force; given to
    another `arg_scope`, by itself, it puts these and no others in force. `arg_scope({})` starts afresh.

    A program starts without defaults. Outside of programs a block only collects them, as functions such as
    `resnet_arg_scope` do: open what it yields inside the program. So `init` and `apply` depend on their arguments
    alone, and what `jax.jit` has compiled is never wrong for the defaults in force.

    Args:
      list_ops_or_scope: a list or tuple of functions, or what another `arg_scope` yielded.
      **kwargs: their default arguments; none with what another `arg_scope` yielded.

    Raises:
      BadArgumentError: for a function that is not decorated, and for arguments beside a mapping.
      BadTypeError: for no list, tuple or mapping.
      ScopeExitError: on leaving out of order.

    Example:
      >>> @js.add_arg_scope
      ... def scaled(x, factor=1.0, offset=0.0):
      ...     return factor * x + offset
      >>> def defaults():
      ...     with js.arg_scope([scaled], factor=2.0) as scope:
      ...         return scope
      >>> def program(x):
      ...     with js.arg_scope(defaults()), js.arg_scope([scaled], offset=1.0):
      ...         return scaled(x), scaled(x, offset=0.0)
      >>> js.transform(program).apply({}, 3.0)
      (7.0, 6.0)
    """

    __slots__ = ("_functions", "_kwargs", "_scope")

    def __init__(self, list_ops_or_scope: Any, **kwargs: Any) -> None:
        self._kwargs = kwargs
        self._functions: list[Any] = []
        self._scope: Defaults | None = None
        if isinstance(list_ops_or_scope, dict):
            if kwargs:
                raise BadArgumentError(
                    "arg_scope takes no arguments beside the defaults that another arg_scope yielded.",
                    kind="arg_scope",
                    where=user_line(),
                    fix="open a second block inside: with arg_scope(scope), arg_scope([function], **arguments):",
                )
            odd = [each for each in list_ops_or_scope.values() if not isinstance(each, Mapping)]
            if odd:
                raise BadTypeError(
                    f"arg_scope takes for each function a dict of its arguments, not {short(odd[0])}.",
                    kind="arg_scope",
                    where=user_line(),
                    fix="give the arguments by keyword: arg_scope([function], **arguments)",
                )
            self._scope = list_ops_or_scope
            return
        if not isinstance(list_ops_or_scope, list | tuple):
            raise BadTypeError(
                f"arg_scope takes a list of functions, or what another one yielded, not {short(list_ops_or_scope)}.",
                kind="arg_scope",
                where=user_line(),
                fix="give a list: arg_scope([function], **arguments)",
            )
        self._functions = [_key(function) for function in list_ops_or_scope]

    def __enter__(self) -> Defaults:
        entries = arg_scopes("arg_scope")
        if self._scope is None:
            scope = dict(entries[-1][1]) if entries else {}
            for function in self._functions:
                scope[function] = {**scope.get(function, {}), **self._kwargs}
        else:
            scope = {_key(function): dict(defaults) for function, defaults in self._scope.items()}
        set_arg_scopes("arg_scope", (*entries, (self, scope)))
        return {function: dict(defaults) for function, defaults in scope.items()}

    def __exit__(self, exception: type[BaseException] | None, *_: Any, is_ending: Any = sys.is_finalizing) -> None:
        if exception is GeneratorExit and is_ending():
            return  # a generator is closed with Python itself, when nothing works any more
        entries = arg_scopes("leaving an arg_scope")
        position = max((i for i, entry in enumerate(entries) if entry[0] is self), default=-1)
        if position < 0 and exception is GeneratorExit:
            return  # a generator is closed after its program has ended: there is nothing to put back
        if position >= 0:
            set_arg_scopes("leaving an arg_scope", (*entries[:position], *entries[position + 1 :]))
        if position < 0 or position != len(entries) - 1:
            raise ScopeExitError(
                "An arg_scope is left out of order.",
                kind="nesting",
                where=user_line(),
                fix="leave arg_scopes in reverse order of entry, in the program that entered them; `with` does",
            )


def add_arg_scope(func: _Function) -> _Function:
    """Makes a function one whose default arguments `arg_scope` can set; a decorator. slim: `slim.add_arg_scope`.

    Arguments that a call gives by name come before those of the blocks, and these before the function's own defaults.
    As in slim, an argument that a block sets can't be given by position.

    Args:
      func: a function.

    Raises:
      OutsideProgramError: at a call, where a block around the running program, or outside any, sets its arguments.

    Example:
      >>> @js.add_arg_scope
      ... def scaled(x, factor=1.0):
      ...     return factor * x
      >>> js.arg_scoped_arguments(scaled)
      ('factor',)
    """

    @functools.wraps(func)
    def with_defaults(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **{**_defaults(with_defaults), **kwargs})

    setattr(with_defaults, _KEY, with_defaults)
    setattr(with_defaults, _NAMES, _names_with_defaults(func))
    return with_defaults  # type: ignore[return-value]  # of the same signature


def has_arg_scope(func: Callable[..., Any]) -> bool:
    """Whether a function is decorated with `add_arg_scope`. slim: `tf.contrib.framework.has_arg_scope`.

    Args:
      func: a function.

    Example:
      >>> js.has_arg_scope(len), js.has_arg_scope(js.add_arg_scope(lambda x, y=0: x))
      (False, True)
    """
    return hasattr(func, _KEY)


def arg_scoped_arguments(func: Callable[..., Any]) -> tuple[str, ...]:
    """The arguments of a decorated function that have defaults. slim: `slim.arg_scoped_arguments`.

    Args:
      func: a function decorated with `add_arg_scope`.

    Raises:
      BadArgumentError: for any other.

    Example:
      >>> js.arg_scoped_arguments(js.add_arg_scope(lambda x, y=0, *, z=1: x))
      ('y', 'z')
    """
    return getattr(_key(func), _NAMES)


def current_arg_scope() -> Defaults:
    """The defaults in force here, by function. slim: `tf.contrib.framework.current_arg_scope`.

    Returns:
      A new dict, as `arg_scope` yields and takes it.

    Example:
      >>> js.current_arg_scope()
      {}
    """
    entries = arg_scopes("current_arg_scope")
    return {function: dict(defaults) for function, defaults in entries[-1][1].items()} if entries else {}


def _key(function: Any) -> Any:
    key = getattr(function, _KEY, None)
    if key is None:
        raise BadArgumentError(
            f"{getattr(function, '__name__', None) or short(function)} is not decorated with add_arg_scope.",
            kind="arg_scope",
            where=user_line(),
            fix=f"name the function that it calls: {base.__name__}"
            if has_arg_scope(base := getattr(function, "func", function))
            else "decorate it with js.add_arg_scope; the layers of jscope.layers.contrib are",
        )
    return key


def _defaults(function: Any) -> dict[str, Any]:
    """What the blocks open here say of a function.

    Raises:
      OutsideProgramError: where blocks say something that can't hold here.
    """
    entries = arg_scopes(function.__name__)
    outside: Iterable[Any] = arg_scopes_around() if is_running() else [entries]
    if any(around and around[-1][1].get(function) for around in outside):
        where = "around the running program" if is_running() else "outside any program"
        raise OutsideProgramError(
            f"An arg_scope {where} sets arguments of {function.__name__}, and would have no effect on what is compiled "
            "already.",
            kind="arg_scope",
            asked=function.__name__,
            where=user_line(),
            fix="open it inside the program, with what it yields: `with js.arg_scope(scope):`; or, for a program that "
            "shall not take it, open `with js.arg_scope({}):` around the call of the program",
        )
    return entries[-1][1].get(function, {}) if entries else {}


def _names_with_defaults(func: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(func).parameters.values()
    return tuple(p.name for p in parameters if p.default is not p.empty)
