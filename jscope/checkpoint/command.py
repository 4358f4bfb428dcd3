"""`python -m jscope`: looks into checkpoints, converts and compares them."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np

import jscope as js
from jscope._support import format_bytes, matcher, printable, shown, table_lines

from .bundle_writer import save_tf
from .loaded import Checkpoint, bytes_of_spec, read_named
from .npz import save_npz
from .opening import open
from .plan_command import add_plan
from .progress import bar
from .rename import Rename, renamer
from .safetensors_file import save_with
from .state import kinds_for

_PIECE = 1 << 14  # characters
_NUMBERS = 1 << 16  # at a time
_FORMAT: dict[str, Any] = {"separator": ", ", "max_line_width": 100}
_FORMATS = ("safetensors", "tf", "npz")
_EPILOG = """\
PATH is a file of safetensors, a .npz file, a checkpoint of TensorFlow (its prefix, model.ckpt-7, or one of its files)
or a folder: with one file of safetensors, with several and their index, of orbax, or of TensorFlow, where it stands for
the latest. Exit status: 0, or 1 where `diff` finds a difference or `plan` a fault, or 2 where something can't be done.
"""


def main(arguments: Sequence[str] | None = None, more: Iterable[Callable[..., None]] = ()) -> int:
    """Runs a command line. Returns the exit status.

    Args:
      arguments: default those of the process.
      more: what adds commands of other rooms; called with what makes a command, and what lists a checkpoint.
    """
    if sys.stdout is None:  # it was closed by who called
        return _failed("there is no standard output.")
    status = 0
    try:
        try:
            options = _parser(more).parse_args(arguments)
            status = options.run(options)
        finally:
            sys.stdout.flush()  # what does not fit where it goes is to be noticed here, not at the end of Python
    except js.JscopeError as error:
        lines = [error.what, *(f"  - {fault}" for fault in error.faults)]
        lines += [f"  Near: {', '.join(map(shown, error.near))}"] * bool(error.near)
        return _failed("\n".join(map(printable, lines)))
    except BrokenPipeError:
        # Who reads has seen enough, as `head` does.
        _give_up(sys.stdout)
    except OSError as error:
        _give_up(sys.stdout)
        return _failed(f"the output can't be written: {error.strerror or error}.")
    except KeyboardInterrupt:
        return 130
    return status


def _failed(why: str) -> int:
    """Says it on standard error, if that can be done. Returns the exit status."""
    if sys.stderr is not None:
        try:
            print(f"jscope: {why}", file=sys.stderr, flush=True)
        except OSError:
            _give_up(sys.stderr)
    return 2


def _give_up(stream: TextIO) -> None:
    """Lets what could not be written go nowhere: Python would try again at its end, and speak up."""
    with contextlib.suppress(OSError, ValueError):  # in a test a stream may be no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Parser(argparse.ArgumentParser):
    """One that does not keep silent where its help can't be written."""

    def _print_message(self, message: str, file: Any = None) -> None:
        stream = file or sys.stderr
        if stream is not None:
            stream.write("\n".join(map(printable, message.split("\n"))))


def _parser(more: Iterable[Callable[..., None]]) -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
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
    show.add_argument(
        "--slice",
        metavar="SLICE",
        default="",
        help="a part of it, as numpy writes it: 0,:5; with = before a minus: --slice=-1,:5",
    )
    show.add_argument("--all", action="store_true", help="all values, however many there are")

    convert = command("convert", _convert, "Convert a checkpoint to another format, at one stroke.")
    convert.add_argument("source", metavar="SRC")
    convert.add_argument("target", metavar="DST", help="a file; of TensorFlow's format the prefix")
    convert.add_argument(
        "--to",
        choices=_FORMATS,
        help="the format; by default that of DST's ending: .safetensors, .npz, .ckpt or none for tf",
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

    add_plan(command, _say)

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
    """Prints a line of what may come out of a file: nothing in it can steer the terminal."""
    stream = file or sys.stdout
    try:
        for start in range(0, len(text), _PIECE):  # its escapes may be many times as long
            stream.write(printable(text[start : start + _PIECE]))
        stream.write("\n")
    except BrokenPipeError:
        _give_up(stream)  # and go on: the exit status is that of all that would have been said


def _matching(names: Iterable[str], match: str) -> list[str]:
    try:
        pattern = re.compile(match)
    except (re.error, OverflowError) as error:
        raise _bad(f"--match {match!r} is no regular expression: {error}.") from None
    return [name for name in names if pattern.search(name)]


# ls and show ----------------------------------------------------------------------------------------------------------


def _ls(options: argparse.Namespace) -> int:
    checkpoint = open(options.path)
    names, listing = _matching(checkpoint, options.match), checkpoint.listing()

    sizes, counts = [0], [0]

    def rows() -> Iterator[tuple[str, ...]]:
        sizes[:] = counts[:] = [0]
        for name in names:
            spec = listing[name]
            size = bytes_of_spec(spec)
            sizes[0] += size
            counts[0] += math.prod(spec.shape)
            yield name, spec.dtype.name, _shape(spec), format_bytes(size)

    for line in table_lines(("name", "dtype", "shape", "bytes"), rows):
        _say(line)
    _say(f"{len(names)} arrays, {counts[0]:,} numbers, {format_bytes(sizes[0])}")
    for name, why in sorted(checkpoint.skipped.items()):
        _say(f"skipped: '{name}' {why}")
    for name, text in sorted(checkpoint.metadata.items()):
        _say(f"metadata: {name} = {text}")
    return 0


def _shape(spec: Any) -> str:
    return "x".join(map(str, spec.shape)) or "scalar"


def _show(options: argparse.Namespace) -> int:
    array = read_named(open(options.path), [options.name])[options.name]
    lines = [f"{options.name}  {array.dtype.name}  {_shape(array)}  {format_bytes(array.nbytes)}"]
    if options.slice:
        try:
            array = np.asarray(array[_slices(options.slice, array.ndim)])
        except IndexError as error:
            raise _bad(f"--slice {options.slice!r}: {error}.") from None
        lines.append(f"[{options.slice}]  {_shape(array)}")
    for line in [*lines, _statistics(array)]:
        _say(line)
    if options.all and array.size > _NUMBERS:
        _show_rows(array)
    else:
        print(np.array2string(_widened(array), threshold=_NUMBERS if options.all else 1000, **_FORMAT))
    return 0


def _show_rows(array: np.ndarray) -> None:
    """Prints very many numbers piece by piece, each with its place: their text would take many times their size."""
    for index in np.ndindex(array.shape[:-1]):
        row = array[index]
        for start in range(0, len(row), 1000):
            piece = _widened(row[start : start + 1000])
            place = ", ".join([*map(str, index), f"{start}:{start + len(piece)}"])
            print(f"[{place}] {np.array2string(piece, **_FORMAT)}")


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


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """All numbers, a few at a time: what is computed of them takes many times their size."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _NUMBERS):
        yield _widened(flat[start : start + _NUMBERS])


def _statistics(array: np.ndarray) -> str:
    if not array.size:
        return "no numbers"
    nonzero = sum(map(np.count_nonzero, _pieces(array)))
    zeros = f"zeros {array.size - nonzero:,}"
    kind = next(_pieces(array)).dtype.kind
    if kind == "b":
        return f"true {nonzero:,} of {array.size:,}"
    if kind == "c":
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers near the largest there are
            return f"max |x| {np.max([np.abs(piece).max() for piece in _pieces(array)]):.6g}  {zeros}"
    if kind in "iu":
        least, most = min(piece.min() for piece in _pieces(array)), max(piece.max() for piece in _pieces(array))
        mean = sum(piece.sum(dtype=np.float64) for piece in _pieces(array)) / array.size
        return f"min {least}  max {most}  mean {mean:.6g}  {zeros}"

    def finite() -> Iterator[np.ndarray]:
        for piece in _pieces(array):
            numbers = piece[np.isfinite(piece)].astype(np.float64)
            yield from [numbers] * (numbers.size > 0)

    count = sum(piece.size for piece in finite())
    parts = [f"not finite {array.size - count:,}"] * (count < array.size)
    if count:
        least, most = min(piece.min() for piece in finite()), max(piece.max() for piece in finite())
        # Divided by a power of two, which changes no digit: the sum of large numbers, or a square, may be infinite.
        exponent = int(np.frexp(max(-least, most))[1])
        mean = sum(np.ldexp(piece, -exponent).sum() for piece in finite()) / count
        squares = sum(((np.ldexp(piece, -exponent) - mean) ** 2).sum() for piece in finite())
        mean, deviation = np.ldexp(mean, exponent), np.ldexp(math.sqrt(squares / count), exponent)
        parts.append(f"min {least:.6g}  max {most:.6g}  mean {mean:.6g}  std {deviation:.6g}")
    return "  ".join([*parts, zeros])


# convert --------------------------------------------------------------------------------------------------------------


def _convert(options: argparse.Namespace) -> int:
    checkpoint, target = open(options.source), options.target
    to = options.to or _format_of(target)
    # One path may be that of a file and the prefix of a checkpoint of TensorFlow; a folder is no prefix's matter.
    for there in (target, f"{target}.index"):
        if os.path.exists(there) and not (to == "tf" and os.path.isdir(there)) and not options.force:
            raise _bad(f"{there} is there already.", "Give --force to replace it.")
    if checkpoint.skipped and not options.skip:
        name, why = min(checkpoint.skipped.items())
        raise _bad(f"'{name}' {why}, and can't be converted.", "Give --skip to leave such entries out.")
    matching = _matching(checkpoint, options.match)
    if not matching and len(checkpoint):
        raise _bad(f"no name in {options.source} matches --match {options.match!r}.", "`ls` lists the names.")
    names = _renamed(matching, options)
    arrays = {names[old]: array for old, array in read_named(checkpoint, names).items()}
    kinds = kinds_for(checkpoint, {new: old for old, new in names.items()})
    if to == "safetensors":
        save_with(kinds, target, arrays, metadata=checkpoint.metadata)
    else:
        (save_npz if to == "npz" else save_tf)(target, arrays)
        if left := [*checkpoint.metadata, *kinds]:
            _say(f"jscope: {to} holds no metadata: {', '.join(left)} left out", file=sys.stderr)
    _say(f"{len(arrays)} arrays, {format_bytes(sum(array.nbytes for array in arrays.values()))} -> {target} ({to})")
    return 0


def _format_of(target: str) -> str:
    """The format that a path ends in. A prefix of TensorFlow's has no ending, or `.ckpt`, and perhaps a step."""
    ending = os.path.splitext(re.sub(r"-\d+$", "", os.path.basename(target)))[1]
    if ending in ("", ".ckpt"):
        return "tf"
    if ending[1:] not in _FORMATS:
        why = f"{target} ends in {ending}, and no format that is written is called so."
        raise _bad(why, f"Give --to {' or '.join(_FORMATS)}, or another ending.")
    return ending[1:]


def _renamed(names: list[str], options: argparse.Namespace) -> dict[str, str]:
    """New names by old ones."""
    new = _after(dict(_pairs("--rename", options.rename)), {name: name for name in names})
    for pattern, replacement in _pairs("--sub", options.sub):
        if not any(map(matcher(pattern).search, new.values())):
            raise _bad(f"--sub {pattern!r}: no name has that in it.", "`ls` lists the names.")
        new = _after([(pattern, replacement)], new)
    olds: dict[str, str] = {}
    for old, name in new.items():
        if old and not name:
            raise _bad(f"'{old}' would have an empty name.", "Give it another one, or leave it out by --match.")
        if name in olds:
            raise _bad(f"'{olds[name]}' and '{old}' would both be '{name}'.")
        olds[name] = old
    return new


def _after(step: Rename, names: dict[str, str]) -> dict[str, str]:
    """New names by old ones, after another renaming of the new ones."""
    rename, faults = renamer(step, names.values())
    if faults:
        raise _bad(f"{faults[0]}.")
    return {old: rename(name) for old, name in names.items()}


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
    if not options.tolerance >= 0:
        raise _bad(f"--tolerance {options.tolerance} is no difference.", "Give a number from 0 on.")
    here, there = _matching(left, options.match), _matching(right, options.match)
    no_arrays = _no_arrays(left, right, options.match)
    if not (here or there or no_arrays) and len(left) + len(right):
        raise _bad(f"no name in either matches --match {options.match!r}.", "`ls` lists the names.")
    rows = [(name, "only in A", "") for name in here if name not in right and name not in no_arrays]
    rows += [(name, "only in B", "") for name in there if name not in left and name not in no_arrays]
    rows += [(name, *difference) for name, difference in no_arrays.items() if difference is not None]
    lefts, rights = left.listing(), right.listing()
    shared = {name: bytes_of_spec(lefts[name]) for name in here if name in right}
    with bar("comparing", 0 if options.names else sum(shared.values()), None) as advance:
        for name, size in shared.items():
            rows += _differences(name, lefts[name], rights[name], None if options.names else (left, right), options)
            advance(size)
    if rows:
        rows.sort()
        for line in table_lines(("name", "difference", "A, B"), lambda: rows):
            _say(line)
    unread = sorted(name for name, difference in no_arrays.items() if difference is None)
    whys = left.skipped  # asked once: it gives a copy
    for name in unread:
        _say(f"not compared: '{name}' {whys[name]}")
    both = sum(name in right for name in here)
    found = f"{len(rows)} differences" if rows else "no difference"
    _say(f"{both} in both, {found}" + f", {len(unread)} not compared" * bool(unread))
    return 1 if rows else 0


def _no_arrays(left: Checkpoint, right: Checkpoint, match: str) -> dict[str, tuple[str, str] | None]:
    """How entries differ that are no arrays in one of both; None where no more than their kind is known, and is one."""
    whys = left.skipped, right.skipped
    found: dict[str, tuple[str, str] | None] = {}
    for name in _matching({**whys[0], **whys[1]}, match):
        if not any(name in here for here in (whys[0], left)):
            found[name] = "only in B", whys[1][name]
        elif not any(name in here for here in (whys[1], right)):
            found[name] = "only in A", whys[0][name]
        else:
            a, b = (why.get(name, "is an array") for why in whys)
            found[name] = None if a == b else ("kind", f"{a}, {b}")
    return found


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
    largest, count = 0.0, 0
    for left, right in zip(_pieces(a), _pieces(b), strict=True):
        differ = ~((left == right) | ((left != left) & (right != right)))
        if differ.any():
            wide = np.complex128 if "c" in (left.dtype.kind, right.dtype.kind) else np.longdouble  # as 64-bit integers
            with np.errstate(invalid="ignore", over="ignore"):
                apart = np.abs(left[differ].astype(wide) - right[differ].astype(wide))
            largest = max(largest, math.inf if np.isnan(apart).any() else float(apart.max()))
            count += int(differ.sum())
    return largest, count
