"""Whose code a Python frame runs, and which line of the user's a call comes from. Floor 0: no jax here."""

from __future__ import annotations

import re
import sys
import warnings
from types import CodeType, FrameType
from typing import Any

from ._errors import RetraceWarning

# Whose code a file holds. AS_WRITTEN is code of JAX's that calls functions just as often as the user wrote it, BRANCHES
# that of lax.cond, WRAPPER what stands around most functions of JAX, HOST calls what the user runs on the host. What is
# not the program's is ENTRY or greater, so that one comparison finds it.
USER, OURS, PLUMBING, AS_WRITTEN, ENTRY, JAX, BRANCHES, WRAPPER, HOST = range(9)

_BY_PACKAGE = {"jscope": OURS, "jax": JAX, "jaxlib": JAX}
_BY_PACKAGE |= dict.fromkeys(("contextlib", "functools", "hypothesis"), PLUMBING)

# File name -> whose it is, for the files seen so far: a call looks at several frames. `_stack` tells JAX's files apart.
FILES: dict[str, int] = {}

Place = tuple[CodeType, int]  # code and offset in it: finding the line takes longest, and few lines are asked for


def owner(frame: FrameType) -> int:
    """Whose code a frame runs: USER, OURS, and so on."""
    name = frame.f_code.co_filename
    found = FILES.get(name)
    if found is None:
        module = frame.f_globals.get("__name__", "")
        found = _BY_PACKAGE.get(module.partition(".")[0], USER)
        if module.startswith("jax.example_libraries"):
            found = AS_WRITTEN  # it calls functions as a user's code would
        if not name.startswith("<"):  # "<string>" and the like name no file: anybody's code may be called so
            FILES[name] = found
    return found


def user_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame, from this one outwards, that belongs to neither jscope nor JAX."""
    while frame is not None and owner(frame) != USER:
        frame = frame.f_back
    return frame


def user_place(frame: FrameType | None) -> Place | None:
    """Where the user's code is, from this frame outwards; `located` gives the line."""
    if frame is not None and FILES.get(frame.f_code.co_filename) != USER:
        frame = user_frame(frame)
    return None if frame is None else (frame.f_code, frame.f_lasti)


def located(place: Place | None) -> str:
    """`file:line` of a place, as editors and terminals link it, or its notebook cell; `""` for none."""
    if place is None:
        return ""
    code, offset = place
    lines = (line for start, end, line in code.co_lines() if start <= offset < end)
    return _file_and_line(code.co_filename, next(lines, None) or code.co_firstlineno)


_CELL_FILE = re.compile(r"<ipython-input-(\d+)-\w+>")  # as IPython names cells itself; ipykernel makes up a path
_CELL_LABEL = re.compile(r"In\[(\d+)\]")


def _file_and_line(file: str, line: int) -> str:
    """`file:line`, or `cell 3, line 2` in a cell of a notebook, whose file is made up and tells its reader nothing."""
    number = _CELL_FILE.fullmatch(file)
    if number is None:
        ipython: Any = sys.modules.get("IPython")  # where nobody has imported it, there are no cells
        shell = getattr(ipython, "get_ipython", lambda: None)()
        label = getattr(getattr(shell, "compile", None), "format_code_name", lambda file: None)(file)
        number = _CELL_LABEL.fullmatch(label[1]) if label else None
    return f"cell {number[1]}, line {line}" if number else f"{file}:{line}"


def user_location() -> tuple[str, int] | None:
    """(file, line) of the user's call in progress, None if there is none."""
    frame = user_frame(sys._getframe(1))
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else None


def user_line() -> str:
    """The user's `file:line` of the call in progress, or the notebook cell; `""` if there is none."""
    location = user_location()
    return _file_and_line(*location) if location else ""


def warn_retrace() -> None:
    """Warns at the user's line that a program with calls inside transforms runs without `jax.jit`.

    Python shows it once for each line, as any warning.
    """
    frame = user_frame(sys._getframe(1))
    message = (
        "This program calls jscope inside JAX transforms and runs without jax.jit: it is right, but each call traces "
        "and compiles those functions anew. jax.jit(net.apply), or jax.jit around the whole step, does it once."
    )
    if frame is None:
        warnings.warn(message, RetraceWarning, stacklevel=1)
        return
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, RetraceWarning, frame.f_code.co_filename, frame.f_lineno, registry=registry)
