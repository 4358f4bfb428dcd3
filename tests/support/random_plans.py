"""Random files and random plans for them, with what each plan should make of its file, computed by numpy alone."""

from __future__ import annotations

import dataclasses
import random

import jax.numpy as jnp
import numpy as np

from jscope.checkpoint import Plan

DTYPES = (np.float32, np.float16, jnp.bfloat16, np.int32, np.uint8, np.bool_)
WIDER = {"float16": np.float32, "bfloat16": np.float32, "int32": np.int64, "uint8": np.int16, "bool": np.uint8}


@dataclasses.dataclass
class Case:
    """A file, a plan, and what the plan makes of the file."""

    file: dict[str, np.ndarray]
    plan: Plan
    program: dict[str, np.ndarray]


def random_case(rng: random.Random, steps: int = 6) -> Case:
    """One with up to so many steps of any kind."""
    file = random_file(rng)
    case = Case(file, Plan(), dict(file))
    kinds = [rename, numbered, transpose, rearrange, split, concatenate, stack, unstack, tie, drop, cast, separator]
    for turn in range(rng.randint(1, steps)):
        rng.choice(kinds)(rng, case, turn)
    return case


def random_file(rng: random.Random) -> dict[str, np.ndarray]:
    """A few layers of equal shapes, some single arrays, and perhaps one that is there twice."""
    file = {}
    shape = tuple(rng.choice((1, 2, 3, 4, 6)) for _ in range(rng.randint(1, 3)))
    dtype = rng.choice(DTYPES)
    for i in range(rng.randint(1, 3)):
        for kind in ("w", "b"):
            file[f"h.{i}.{kind}"] = values(rng, shape if kind == "w" else shape[-1:], dtype)
    for i in range(rng.randint(1, 3)):
        file[f"one{i}"] = values(
            rng, [rng.choice((0, 1, 2, 4, 6)) for _ in range(rng.randint(0, 3))], rng.choice(DTYPES)
        )
    if rng.random() < 0.4:
        name = rng.choice(sorted(file))
        file[f"{name}.again"] = file[name].copy()
    return file


def values(rng: random.Random, shape: object, dtype: object) -> np.ndarray:
    array = np.random.default_rng(rng.randrange(2**32)).integers(0, 100, shape)
    return np.asarray(array).astype(dtype)


def any_name(rng: random.Random, case: Case, least: int = 0) -> str | None:
    names = sorted(name for name, array in case.program.items() if array.ndim >= least)
    return rng.choice(names) if names else None


def replaced(case: Case, old: dict[str, object], new: dict[str, np.ndarray]) -> None:
    rest = {name: array for name, array in case.program.items() if name not in old}
    assert not rest.keys() & new.keys()
    case.program = rest | new


# Steps ----------------------------------------------------------------------------------------------------------------


def rename(rng: random.Random, case: Case, turn: int) -> None:
    names = rng.sample(sorted(case.program), min(2, len(case.program)))
    if len(names) == 2 and rng.random() < 0.3:
        pairs = {names[0]: names[1], names[1]: names[0]}  # they change places
    else:
        pairs = {names[0]: f"r{turn}/{names[0]}"}
    case.plan = case.plan.rename(pairs)
    replaced(case, pairs, {pairs[name]: case.program[name] for name in pairs})


def numbered(rng: random.Random, case: Case, turn: int) -> None:
    found = {name: int(name.split(".")[1]) for name in case.program if name.startswith("h.") and name.endswith(".w")}
    found = {name: i for name, i in found.items() if name == f"h.{i}.w"}
    case.plan = case.plan.rename({"h.{i}.w": f"n{turn}/layer_{{i:02}}/w"})
    replaced(case, found, {f"n{turn}/layer_{i:02}/w": case.program[name] for name, i in found.items()})


def transpose(rng: random.Random, case: Case, turn: int) -> None:
    name = any_name(rng, case)
    if name is None:
        return
    array = case.program[name]
    axes = rng.choice((None, tuple(rng.sample(range(array.ndim), array.ndim))))
    case.plan = case.plan.transpose(name, axes)
    case.program[name] = array.transpose(axes)


def rearrange(rng: random.Random, case: Case, turn: int) -> None:
    name = any_name(rng, case, least=1)
    if name is None:
        return
    array = case.program[name]
    axis = rng.randrange(array.ndim)
    size = array.shape[axis]
    divisor = rng.choice([d for d in range(1, size + 1) if size % d == 0] or [1])
    axes = [f"a{i}" for i in range(array.ndim)]
    cut = [*axes[:axis], "p", "q", *axes[axis + 1 :]]
    after = rng.sample(cut, len(cut))
    grouped = [f"({after[0]} {after[1]})", *after[2:], "1"] if rng.random() < 0.5 else after
    before = [*axes[:axis], "(p q)", *axes[axis + 1 :]]
    case.plan = case.plan.rearrange(name, f"{' '.join(before)} -> {' '.join(grouped)}", p=divisor)
    shape = [*array.shape[:axis], divisor, size // divisor, *array.shape[axis + 1 :]]
    array = array.reshape(shape).transpose([cut.index(each) for each in after])
    if grouped != after:
        array = array.reshape(array.shape[0] * array.shape[1], *array.shape[2:], 1)
    case.program[name] = array


def split(rng: random.Random, case: Case, turn: int) -> None:
    name = any_name(rng, case, least=1)
    if name is None:
        return
    array = case.program[name]
    axis = rng.randrange(-array.ndim, array.ndim)
    shares = [rng.randint(1, 2) for _ in range(rng.randint(1, 3))]
    size = array.shape[axis]
    choices = [g for g in (1, 2, 3) if size % (g * sum(shares)) == 0]
    if not choices:
        return
    groups = rng.choice(choices)
    into = [f"s{turn}.{i}/{name}" for i in range(len(shares))]
    case.plan = case.plan.split(name, into, axis=axis, shares=shares, groups=groups)
    unit = size // (groups * sum(shares))
    moved = np.moveaxis(array, axis, 0)
    moved = moved.reshape(groups, unit * sum(shares), *moved.shape[1:])
    pieces = np.split(moved, np.cumsum(np.array(shares[:-1], int) * unit), axis=1)
    shapes = [(groups * piece.shape[1], *piece.shape[2:]) for piece in pieces]
    new = [np.moveaxis(piece.reshape(shape), 0, axis) for piece, shape in zip(pieces, shapes, strict=True)]
    replaced(case, {name: None}, dict(zip(into, new, strict=True)))


def concatenate(rng: random.Random, case: Case, turn: int) -> None:
    name = any_name(rng, case, least=1)
    if name is None:
        return
    one = case.program[name]
    names = [other for other in sorted(case.program) if alike(case.program[other], one)]
    names = rng.sample(names, min(len(names), rng.randint(1, 3)))
    axis = rng.randrange(one.ndim)
    groups = rng.choice([g for g in (1, 2) if one.shape[axis] % g == 0])
    to = f"c{turn}"
    case.plan = case.plan.concatenate(names, to, axis=axis, groups=groups)
    parts = [np.moveaxis(case.program[each], axis, 0) for each in names]
    parts = [part.reshape(groups, part.shape[0] // groups, *part.shape[1:]) for part in parts]
    joined = np.concatenate(parts, axis=1)
    joined = joined.reshape(joined.shape[0] * joined.shape[1], *joined.shape[2:])
    replaced(case, dict.fromkeys(names), {to: np.moveaxis(joined, 0, axis)})


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def stack(rng: random.Random, case: Case, turn: int) -> None:
    names = [f"h.{i}.b" for i in range(3)]
    names = [name for name in names if name in case.program]
    fits = names == [f"h.{i}.b" for i in range(len(names))]
    if not names or not fits or not all(alike(case.program[name], case.program[names[0]]) for name in names):
        return
    case.plan = case.plan.stack("h.{i}.b", f"st{turn}")
    replaced(case, dict.fromkeys(names), {f"st{turn}": np.stack([case.program[name] for name in names])})


def unstack(rng: random.Random, case: Case, turn: int) -> None:
    name = any_name(rng, case, least=1)
    if name is None or not case.program[name].shape[0]:
        return
    case.plan = case.plan.unstack(name, f"u{turn}.{{i}}")
    replaced(case, {name: None}, {f"u{turn}.{i}": row for i, row in enumerate(case.program[name])})


def tie(rng: random.Random, case: Case, turn: int) -> None:
    name = any_name(rng, case)
    if name is None:
        return
    one = case.program[name]
    same = [n for n, other in sorted(case.program.items()) if n != name and alike(one, other) and same_bits(one, other)]
    names = [name, f"absent{turn}", *same[:1]]
    first = rng.choice(names)
    case.plan = case.plan.tie(first, *(each for each in names if each != first))
    replaced(case, dict.fromkeys([name, *same[:1]]), {first: one})


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def drop(rng: random.Random, case: Case, turn: int) -> None:
    name = any_name(rng, case)
    if name is not None and len(case.program) > 1:
        case.plan = case.plan.drop(name, "absent.{i}")
        replaced(case, {name: None}, {})


def cast(rng: random.Random, case: Case, turn: int) -> None:
    name = any_name(rng, case)
    if name is not None and case.program[name].dtype.name in WIDER:
        to = WIDER[case.program[name].dtype.name]
        case.plan = case.plan.cast(name, to)
        case.program[name] = case.program[name].astype(to)


def separator(rng: random.Random, case: Case, turn: int) -> None:
    if not any("|" in name for name in case.program):
        case.plan = case.plan.separator(".", "|")
        case.program = {name.replace(".", "|"): array for name, array in case.program.items()}


def random_cuts(rng: random.Random, shape: tuple[int, ...], devices: int) -> tuple[int, ...]:
    """In how many parts each dimension is cut: `devices` of them at most, and each divides."""
    parts = []
    for size in shape:
        choices = [n for n in (1, 2, 4) if size and size % n == 0 and n <= devices]
        parts.append(rng.choice(choices or [1]))
        devices //= parts[-1]
    return tuple(parts)
