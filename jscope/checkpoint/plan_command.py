"""`python -m jscope plan`: what a plan makes of a checkpoint, and what does not fit. No array is read."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import jscope as js
from jscope._support import table_lines

from .course import Course, planned
from .fitting import fit
from .loaded import Checkpoint
from .opening import open
from .plan import Plan
from .safetensors_file import save_with
from .state import kinds_for


def add_plan(add: Callable[..., argparse.ArgumentParser], say: Callable[[str], None]) -> None:
    """Adds the command.

    Args:
      add: makes a parser, given the name of a command, what runs it, and what it is for.
      say: prints a line that may come out of a file.
    """
    parser = add(
        "plan", lambda options: _plan(options, say), "Show what a plan makes of a checkpoint; no array is read."
    )
    parser.add_argument("path", metavar="PATH")
    parser.add_argument(
        "--plan",
        metavar="FILE:NAME",
        required=True,
        help="a Plan in a file of Python, which is run: examples/gpt2.py:PLAN",
    )
    parser.add_argument("--target", metavar="PATH", help="a checkpoint that has the names and shapes that are wanted")
    parser.add_argument("--write", metavar="DST", help="write what comes out, as safetensors")
    parser.add_argument("--force", action="store_true", help="replace DST if it is there")


def _plan(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    if options.write and not options.write.endswith(".safetensors"):
        raise _bad(f"--write: {options.write} does not end in .safetensors, the format that is written.")
    plan, checkpoint = _plan_of(options.plan), open(options.path)
    course = planned(plan.steps, checkpoint)
    listing = checkpoint.listing()
    taken = {name for origin in course.origins.values() for name in origin}

    def rows() -> Iterator[tuple[str, ...]]:
        for name, spec in sorted(course.header.items()):
            first, *others = course.origins[name]
            more = f" and {len(others)} more" if others else ""
            given = _text(listing[first]) if first in listing else "no array"
            yield first + more, given, name, "?" if spec is None else _text(spec)
        yield from ((name, _text(listing[name]), "", "dropped") for name in listing if name not in taken)

    for line in table_lines(("in the file", "", "in the program", ""), rows):
        say(line)
    faults = list(course.faults)
    if options.target is not None and not faults:
        faults = fit(dict(open(options.target).listing()), checkpoint, plan=plan, can_make=True).faults
    for fault in faults:
        say(f"fault: {fault}")
    say(f"{len(listing)} arrays in the file, {len(course.header)} in the program, {len(faults)} faults")
    if options.write and not faults:
        _write(options, plan, checkpoint, course, say)
    return 1 if faults else 0


def _write(
    options: argparse.Namespace, plan: Plan, checkpoint: Checkpoint, course: Course, say: Callable[[str], None]
) -> None:
    if os.path.exists(options.write) and not options.force:
        raise _bad(f"{options.write} is there already.", "Give --force to replace it.")
    # Arrays of numpy that take no memory: into such a tree all dtypes come, whatever JAX has.
    target = {
        name: np.broadcast_to(np.zeros((), spec.dtype), spec.shape) for name, spec in plan.leads_to(checkpoint).items()
    }
    params, _ = plan.load(target, checkpoint)
    # What is made of several arrays is neither a random key nor a number of Python's any more.
    origins = {name: made_of[0] for name, made_of in course.origins.items() if len(made_of) == 1}
    save_with(kinds_for(checkpoint, origins), options.write, params, metadata=checkpoint.metadata)
    say(f"{len(target)} arrays -> {options.write}")


def _plan_of(text: str) -> Plan:
    """The plan that a file of Python has by a name."""
    file, _, name = text.rpartition(":")
    if not file or not name:
        raise _bad(f"--plan {text!r} is no FILE:NAME.", "Write such as examples/gpt2.py:PLAN.")
    if not os.path.isfile(file):
        raise _bad(f"--plan: there is no file {file}.", "Give the path of a file of Python.")
    sys.path.insert(0, os.path.dirname(os.path.abspath(file)))  # as `python file.py` does
    try:
        found = runpy.run_path(file).get(name)
    except js.JscopeError:
        raise
    except SystemExit as error:
        raise _bad(f"--plan: {file} ends with {error}.") from None
    except Exception as error:
        raise _bad(f"--plan: {file} raises {type(error).__name__}: {error}.") from error
    if not isinstance(found, Plan):
        raise _bad(f"--plan: {name} in {file} is no Plan.", "Name one that the file has.")
    return found


def _text(spec: Any) -> str:
    return f"{spec.dtype.name} {'x'.join(map(str, spec.shape)) or 'scalar'}"


def _bad(what: str, fix: str = "") -> js.BadArgumentError:
    return js.BadArgumentError(f"{what} {fix}".strip(), kind="bad_command", fix=fix)
