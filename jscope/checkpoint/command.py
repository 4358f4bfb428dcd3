"""`python -m jscope`: looks into checkpoints, converts and compares them."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

import numpy as np

import jscope as js

from .bundle_writer import save_tf
from .loaded import Checkpoint, bytes_of_spec, format_bytes, read_named, text_table
from .npz import save_npz
from .opening import open
from .rename import Rename, renamer
from .safetensors_file import save

_FORMATS = ("safetensors", "tf", "npz")
_EPILOG = """\
PATH is a file of safetensors, a .npz file, or a checkpoint of TensorFlow: its prefix (model.ckpt-1000), one of its
files, or a directory, which stands for its latest. Exit status: 0, or 1 where `diff` finds a difference, or 2 where
something can't be done.
"""


def main(arguments: Sequence[str] | None = None, more: Iterable[Callable[..., None]] = ()) -> int:
    """Runs a command line. Returns the exit status.

    Args:
      arguments: default those of the process.
      more: what adds commands of other rooms; called with what makes a command, and what lists a checkpoint.
    """
    try:
        options = _parser(more).parse_args(arguments)
        return options.run(options)
    except js.JscopeError as error:
        lines = [error.what, *(f"  - {fault}" for fault in error.faults)]
        lines += [f"  Near: {', '.join(map(repr, error.near))}"] * bool(error.near)
        _say("\n".join([f"jscope: {lines[0]}", *lines[1:]]), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Who reads has seen enough, as `head` does; Python would speak up when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser(more: Iterable[Callable[..., None]]) -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m jscope",
        description="Looks into checkpoints and programs; converts and compares checkpoints.",
        epilog=_EPILOG,
        formatter_class=form,
    )
    parser.add_argument("--version", action="version", version=js.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about, epilog=_EPILOG, formatter_class=form)
        sub.set_defaults(run=run)
        return sub

    ls = command("ls", _ls, "List the arrays of a checkpoint: name, dtype, shape, bytes.")
    ls.add_argument("path", metavar="PATH")
    _add_match(ls)

    show = command("show", _show, "Show an array: its values, and what they are like.")
    show.add_argument("path", metavar="PATH")
    show.add_argument("name", metavar="NAME", help="its full name, as ls lists it")
    show.add_argument("--slice", metavar="SLICE", default="", help="a part of it, as numpy writes it: 0,:5,-1")
    show.add_argument("--all", action="store_true", help="all values, however many there are")

    convert = command("convert", _convert, "Convert a checkpoint to another format, at one stroke.")
    convert.add_argument("source", metavar="SRC")
    convert.add_argument("target", metavar="DST", help="a file; of TensorFlow's format the prefix")
    convert.add_argument(
        "--to", choices=_FORMATS, help="the format; by default that of DST's ending: .safetensors, .npz, else tf"
    )
    _add_match(convert)
    convert.add_argument(
        "--rename",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="rename an array, or with / at the end of both a scope; / alone is the root. Can be given again",
    )
    convert.add_argument(
        "--sub",
        metavar="PATTERN=NEW",
        action="append",
        default=[],
        help=r"rename by regular expression: 'layer_(\d+)=h\1'. Can be given again",
    )
    convert.add_argument("--skip", action="store_true", help="leave out what is no array of numbers, such as strings")
    convert.add_argument("--force", action="store_true", help="replace DST if it is there")

    diff = command("diff", _diff, "Compare two checkpoints: names, shapes, dtypes, values.")
    diff.add_argument("left", metavar="A")
    diff.add_argument("right", metavar="B")
    _add_match(diff)
    diff.add_argument("--tolerance", type=float, default=0.0, help="a difference of values that is none (default: 0)")
    diff.add_argument("--names", action="store_true", help="compare names, shapes and dtypes only; read no array")
    for add in more:
        add(command, list_any)
    return parser


def _add_match(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--match", metavar="REGEX", default="", help="only names in which this is found")


def list_any(path: str) -> Mapping[str, Any]:
    """Shape and dtype by name of what a checkpoint of any format holds."""
    return open(path).listing()


def _bad(what: str, fix: str = "") -> js.BadArgumentError:
    return js.BadArgumentError(f"{what} {fix}".strip(), kind="bad_command", fix=fix)


def _say(text: str, file: TextIO | None = None) -> None:
    """Prints what may come out of a file: nothing in it can steer the terminal."""
    print("".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text), file=file)


def _table(rows: list[tuple[str, ...]]) -> str:
    """As `text_table`, each row in one line whatever the names are."""
    return text_table([tuple(cell.replace("\n", "\\n") for cell in row) for row in rows])


def _matching(checkpoint: Checkpoint, match: str) -> list[str]:
    try:
        pattern = re.compile(match)
    except re.error as error:
        raise _bad(f"--match {match!r} is no regular expression: {error}.") from None
    return [name for name in checkpoint if pattern.search(name)]


# ls and show ----------------------------------------------------------------------------------------------------------


def _ls(options: argparse.Namespace) -> int:
    checkpoint = open(options.path)
    names, listing = _matching(checkpoint, options.match), checkpoint.listing()
    rows = [(n, listing[n].dtype.name, _shape(listing[n]), format_bytes(bytes_of_spec(listing[n]))) for n in names]
    _say(_table([("name", "dtype", "shape", "bytes"), *rows]))
    size, count = sum(bytes_of_spec(listing[name]) for name in names), sum(listing[name].size for name in names)
    _say(f"{len(names)} arrays, {count:,} numbers, {format_bytes(size)}")
    for name, why in sorted(checkpoint.skipped.items()):
        _say(f"skipped: '{name}' {why}")
    for name, text in sorted(checkpoint.metadata.items()):
        _say(f"metadata: {name} = {text}")
    return 0


def _shape(spec: Any) -> str:
    return "x".join(map(str, spec.shape)) or "scalar"


def _show(options: argparse.Namespace) -> int:
    array = open(options.path)[options.name]
    lines = [f"{options.name}  {array.dtype.name}  {_shape(array)}  {format_bytes(array.nbytes)}"]
    if options.slice:
        try:
            array = np.asarray(array[_slices(options.slice, array.ndim)])
        except IndexError as error:
            raise _bad(f"--slice {options.slice!r}: {error}.") from None
        lines.append(f"[{options.slice}]  {_shape(array)}")
    _say("\n".join([*lines, _statistics(array)]))
    wide = _widened(array)
    threshold = max(wide.size, 1) if options.all else 1000
    _say(np.array2string(wide, threshold=threshold, separator=", ", max_line_width=100))
    return 0


def _slices(text: str, dimensions: int) -> tuple[int | slice, ...]:
    """`0,:5,::2`: whole numbers and slices of them; nothing else."""
    indices: list[int | slice] = []
    for part in text.strip("[] ").split(","):
        numbers = [piece.strip() for piece in part.split(":")]
        if len(numbers) > 3 or not all(re.fullmatch(r"[+-]?[0-9]{1,18}|", number) for number in numbers):
            raise _bad(f"--slice {text!r} is none.", "Write such as 0,:5,::2.")
        values = [int(number) if number else None for number in numbers]
        if len(values) == 1 and values[0] is None:
            raise _bad(f"--slice {text!r} is none.", "Write such as 0,:5,::2.")
        if len(values) == 3 and values[2] == 0:
            raise _bad(f"--slice {text!r} has a step of 0.")
        indices.append(slice(*values) if len(values) > 1 else values[0] or 0)
    if len(indices) > dimensions:
        raise _bad(f"--slice {text!r} has {len(indices)} indices, and the array {dimensions} dimensions.")
    return tuple(indices)


def _widened(array: np.ndarray) -> np.ndarray:
    """Small kinds of floats as numbers that numpy can print and sum."""
    is_small = array.dtype.kind == "V" or (array.dtype.itemsize == 1 and _is_float(array))
    return array.astype(np.float32) if is_small else array


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.name.startswith(("float", "bfloat"))


def _statistics(array: np.ndarray) -> str:
    wide = _widened(array)
    if not wide.size:
        return "no numbers"
    zeros = f"zeros {wide.size - np.count_nonzero(wide):,}"
    if wide.dtype.kind == "b":
        return f"true {np.count_nonzero(wide):,} of {wide.size:,}"
    if wide.dtype.kind == "c":
        return f"max |x| {np.abs(wide).max():.6g}  {zeros}"
    if wide.dtype.kind in "iu":
        return f"min {wide.min()}  max {wide.max()}  mean {wide.mean(dtype=np.float64):.6g}  {zeros}"
    finite = wide[np.isfinite(wide)].astype(np.float64)
    parts = [f"not finite {wide.size - finite.size:,}"] * (finite.size < wide.size)
    if finite.size:
        parts.append(
            f"min {finite.min():.6g}  max {finite.max():.6g}  mean {finite.mean():.6g}  std {finite.std():.6g}"
        )
    return "  ".join([*parts, zeros])


# convert --------------------------------------------------------------------------------------------------------------


def _convert(options: argparse.Namespace) -> int:
    checkpoint, target = open(options.source), options.target
    to = options.to or next((form for form in _FORMATS if target.endswith(f".{form}")), "tf")
    there = target + ".index" if to == "tf" else target
    if os.path.exists(there) and not options.force:
        raise _bad(f"{there} is there already.", "Give --force to replace it.")
    if checkpoint.skipped and not options.skip:
        name, why = min(checkpoint.skipped.items())
        raise _bad(f"'{name}' {why}, and can't be converted.", "Give --skip to leave such entries out.")
    matching = _matching(checkpoint, options.match)
    if not matching and len(checkpoint):
        raise _bad(f"no name in {options.source} matches --match {options.match!r}.", "`ls` lists the names.")
    names = _renamed(matching, options)
    arrays = {names[old]: array for old, array in read_named(checkpoint, names).items()}
    if to == "safetensors":
        save(target, arrays, metadata=checkpoint.metadata)
    else:
        (save_npz if to == "npz" else save_tf)(target, arrays)
        if checkpoint.metadata:
            _say(f"jscope: {to} holds no metadata: {', '.join(checkpoint.metadata)} left out", file=sys.stderr)
    _say(f"{len(arrays)} arrays, {format_bytes(sum(array.nbytes for array in arrays.values()))} -> {target} ({to})")
    return 0


def _renamed(names: list[str], options: argparse.Namespace) -> dict[str, str]:
    """New names by old ones."""
    new = {name: name for name in names}
    steps: list[Rename] = [dict(_pairs("--rename", options.rename)), _pairs("--sub", options.sub)]
    for step in steps:
        rename, faults = renamer(step, new.values())
        if faults:
            raise _bad(f"{faults[0]}.")
        new = {old: rename(name) for old, name in new.items()}
    olds: dict[str, str] = {}
    for old, name in new.items():
        if name in olds:
            raise _bad(f"'{olds[name]}' and '{old}' would both be '{name}'.")
        olds[name] = old
    return new


def _pairs(option: str, given: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in given:
        old, _, new = text.rpartition("=")
        if not old:
            raise _bad(f"{option} {text!r} is no pair.", "Write OLD=NEW.")
        pairs.append((old, new))
    return pairs


# diff -----------------------------------------------------------------------------------------------------------------


def _diff(options: argparse.Namespace) -> int:
    left, right = open(options.left), open(options.right)
    here, there = _matching(left, options.match), _matching(right, options.match)
    rows = [(name, "only in A", "") for name in here if name not in right]
    rows += [(name, "only in B", "") for name in there if name not in left]
    lefts, rights = left.listing(), right.listing()
    for name in here:
        if name in right:
            rows += _differences(name, lefts[name], rights[name], None if options.names else (left, right), options)
    if rows:
        _say(_table([("name", "difference", "A, B"), *sorted(rows)]))
    both = sum(name in right for name in here)
    _say(f"{both} in both, {len(rows)} differences" if rows else f"{both} in both, no difference")
    return 1 if rows else 0


def _differences(
    name: str, a: Any, b: Any, checkpoints: tuple[Mapping[str, Any], ...] | None, options: argparse.Namespace
) -> list[tuple[str, str, str]]:
    rows = []
    if a.dtype != b.dtype:
        rows.append((name, "dtype", f"{a.dtype.name}, {b.dtype.name}"))
    if a.shape != b.shape:
        return [*rows, (name, "shape", f"{_shape(a)}, {_shape(b)}")]
    if checkpoints is None:
        return rows
    largest, count = _distance(*(checkpoint[name] for checkpoint in checkpoints))
    if not largest <= options.tolerance:
        rows.append((name, "values", f"{count:,} of {math.prod(a.shape):,} differ, by {largest:.6g} at most"))
    return rows


def _distance(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """(the largest difference of two numbers, how many differ). What is not a number equals another such."""
    a, b = _widened(a), _widened(b)
    differ = ~((a == b) | ((a != a) & (b != b)))
    if not differ.any():
        return 0.0, 0
    wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.longdouble  # that holds 64-bit integers, too
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(a[differ].astype(wide) - b[differ].astype(wide))
    return (math.inf if np.isnan(apart).any() else float(apart.max())), int(differ.sum())
