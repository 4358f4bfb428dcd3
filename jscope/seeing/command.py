"""`python -m jscope report`: the sharing picture of a program, or of the arrays of a checkpoint."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

import jscope as js

_ABOUT = "Write the sharing picture of a program or checkpoint: one HTML file that needs nothing else."
_TYPE = re.compile(r"([a-z]\w*)\[([\d, ]*)\]")
_KINDS = {"f": "float", "bf": "bfloat", "i": "int", "u": "uint", "c": "complex"}


def add(command: Callable[..., argparse.ArgumentParser], listing: Callable[[str], Mapping[str, Any]]) -> None:
    """Adds the command.

    Args:
      command: makes a command of a name, what runs it and what it is about, and gives its parser.
      listing: from the path of a checkpoint, what has `shape` and `dtype` by name.
    """

    def run(options: argparse.Namespace) -> int:
        return _report(options, listing)

    parser = command("report", run, _ABOUT)
    parser.add_argument(
        "what",
        metavar="PROGRAM_OR_CHECKPOINT",
        help="module:function or file.py:function (a program, or Specs), or the PATH of a checkpoint",
    )
    parser.add_argument(
        "arguments",
        metavar="ARGUMENT",
        nargs="*",
        help="what the program is called with: f32[8,28,28] for an array, else a Python literal; also name=ARGUMENT",
    )
    parser.add_argument("--out", metavar="FILE", help="where to write (default: NAME.html)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser.add_argument("--text", action="store_true", help="print the picture as text; write no file")


def _report(options: argparse.Namespace, listing: Callable[[str], Mapping[str, Any]]) -> int:
    if ":" in options.what and not os.path.exists(options.what):
        try:
            specs, name = _declared(options.what, options.arguments)
        except js.JscopeError:
            raise
        except (Exception, SystemExit) as error:  # of code of the user's
            what = f"{options.what} raises {type(error).__name__}: {error}."
            raise _bad(what, "Call it from Python to see where.") from error
    else:
        specs, name = _stored(options.what, options.arguments, listing)
    if options.text:
        print(specs.to_text())
        return 0
    path = options.out or f"{name}.html"
    if os.path.exists(path) and not options.force:
        raise _bad(f"{path} is there already.", "Give --force to replace it.")
    try:
        specs.to_html(path=path, title=options.what)
    except OSError as error:
        raise _bad(f"{path} can't be written: {error.strerror}.", "Give another file by --out.") from None
    print(f"{repr(specs).strip('<>')} -> {path}")
    return 0


def _bad(what: str, fix: str) -> js.BadArgumentError:
    return js.BadArgumentError(f"{what} {fix}", kind="bad_command", fix=fix)


# A program ------------------------------------------------------------------------------------------------------------


def _declared(what: str, arguments: list[str]) -> tuple[js.Specs, str]:
    """What a program declares, and its name."""
    module, _, name = what.rpartition(":")
    found: Any = _module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise _bad(f"{module} has no {name!r}.", "Name a function or a transformed program that it holds.")
        if not isinstance(found, js.Transformed):  # else it is one of its calls
            found = getattr(found, part)
    if isinstance(found, js.Specs):
        if arguments:
            raise _bad(f"{what} is a Specs, which takes no arguments.", "Leave them out, or name its program.")
        return found, name
    if not callable(found):
        raise _bad(f"{what} is no program but a {type(found).__name__}.", "Name a function, or what js.transform gave.")
    net = found if isinstance(found, js.Transformed) else js.transform(found)
    positional, named = [], {}
    for text in arguments:
        keyword, separator, value = text.partition("=")
        if separator and keyword.isidentifier():
            named[keyword] = _argument(value)
        else:
            positional.append(_argument(text))
    return net.specs(*positional, **named), name


def _module(name: str) -> Any:
    if not name.endswith(".py"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # of an import in it
            raise _bad(
                f"{error}.", "Name a module that can be imported from here, or a file: file.py:function."
            ) from None
    if not os.path.isfile(name):
        raise _bad(f"There is no file {name}.", "Write file.py:function.")
    sys.path.insert(0, os.path.dirname(os.path.abspath(name)))  # as `python file.py` does
    spec: Any = importlib.util.spec_from_file_location(os.path.basename(name)[:-3], name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _argument(text: str) -> Any:
    """`f32[2,3]` is an array of that type, anything else a Python literal."""
    array = _TYPE.fullmatch(text)
    if array is not None:
        letters = array[1].rstrip("0123456789")
        try:
            dtype = jnp.dtype(_KINDS.get(letters, letters) + array[1][len(letters) :])
            return jax.ShapeDtypeStruct([int(size) for size in array[2].split(",") if size.strip()], dtype)
        except (TypeError, ValueError):
            raise _bad(
                f"{text!r} is no array: there is no dtype {array[1]!r}.", "Write such as f32[8,28,28]."
            ) from None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise _bad(f"{text!r} is no argument.", "Write f32[8,28,28] for an array, else a Python literal.") from None


# A checkpoint ---------------------------------------------------------------------------------------------------------


def _stored(what: str, arguments: list[str], listing: Callable[[str], Mapping[str, Any]]) -> tuple[js.Specs, str]:
    """The arrays of a checkpoint as if a program had declared them, and its name."""
    if arguments:
        raise _bad(f"A checkpoint takes no arguments, and {what} is no program.", "Write module:function.")
    if what.endswith(".py"):
        raise _bad(f"{what} is a file of Python.", f"Write which program of it: {what}:function.")
    arrays = listing(what)
    specs = (js.VariableSpec(name, name, array.shape, array.dtype, None) for name, array in arrays.items())
    return js.Specs(specs), os.path.basename(os.path.normpath(what))
