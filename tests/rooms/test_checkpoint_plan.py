"""Plans: from the names and arrays of a file to those of a program, and back to the bit."""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT
from random_plans import random_case

import jscope as js
from jscope import checkpoint
from jscope.checkpoint import Plan, files
from jscope.checkpoint.templates import Template


def arrays(**shapes: Any) -> dict[str, np.ndarray]:
    return {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for name, shape in shapes.items()}


def same(one: Any, other: Any) -> bool:
    """Whether names, dtypes and bits are the same."""
    one, other = js.Params(one).flat(), js.Params(other).flat()
    return one.keys() == other.keys() and all(
        np.asarray(one[name]).dtype == np.asarray(other[name]).dtype
        and np.asarray(one[name]).shape == np.asarray(other[name]).shape
        and np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes()
        for name in one
    )


def faults_of(plan: Plan, target: Any, source: Any, **options: Any) -> tuple[str, ...]:
    """Told by `check` and by `load` alike."""
    with pytest.raises(js.ParamsMismatchError) as checked:
        plan.check(target, source, **options)
    with pytest.raises(js.ParamsMismatchError) as loaded:
        plan.load(target, source, **options)
    assert checked.value.faults == loaded.value.faults
    return checked.value.faults


# There and back -------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_random_plan_makes_what_numpy_makes_and_gives_the_file_back(rng):
    case = random_case(rng)
    target = {name: np.zeros_like(array) for name, array in case.program.items()}
    params, report = case.plan.load(target, case.file)
    assert same(params, case.program)
    assert report.loaded == tuple(js.Params(target).names) or set(report.loaded) == set(target)
    assert same(case.plan.back(params, like=case.file), case.file)


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_files_go_there_and_back_as_arrays_do(rng):
    case = random_case(rng)
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder, "m.safetensors"), Path(folder, "again.safetensors")
        checkpoint.save(path, case.file, metadata={"format": "pt", "note": "kept"})
        target = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in case.program.items()}
        assert set(case.plan.check(target, path).loaded) == set(target)
        params, _ = case.plan.load({name: np.zeros_like(array) for name, array in case.program.items()}, path)
        assert same(params, case.program)
        case.plan.save(again, params, like=path)
        assert same(checkpoint.load(again), checkpoint.load(path))
        assert checkpoint.open(again).metadata == {"format": "pt", "note": "kept"}


def row(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


A = np.arange(24, dtype=np.float32)
KINDS = {
    "rename": (Plan().rename({"a.{i}.w": "x/{i+1}/k"}), {"a.0.w": A, "a.10.w": A + 1}, {"x/1/k": A, "x/11/k": A + 1}),
    "separator": (Plan().separator(), {"a.b.w": A, "c": A}, {"a/b/w": A, "c": A}),
    "transpose": (Plan().transpose("w"), {"w": A.reshape(4, 6)}, {"w": A.reshape(4, 6).T}),
    "transpose all but some": (
        Plan().transpose("{*m}.w", but=["table.w", "t.{i}.w"]),
        {"a.b.w": A.reshape(4, 6), "table.w": A.reshape(4, 6), "t.0.w": A.reshape(4, 6), "b": A},
        {"a.b.w": A.reshape(4, 6).T, "table.w": A.reshape(4, 6), "t.0.w": A.reshape(4, 6), "b": A},
    ),
    "rearrange all but some": (
        Plan().rearrange("{*m}.w", "a b -> b a", but="{*m}.norm.w"),
        {"a.w": A.reshape(4, 6), "a.norm.w": A},
        {"a.w": A.reshape(4, 6).T, "a.norm.w": A},
    ),
    "cast all but some": (
        Plan().cast("{*n}", np.float64, stored=np.float32, but="ids"),
        {"w": A, "ids": np.arange(3)},
        {"w": A.astype(np.float64), "ids": np.arange(3)},
    ),
    "a part of a name": (
        Plan().split("{*at}.qkv.{.kind}", ["{*at}.q.{.kind}", "{*at}.k.{.kind}"]),
        {"a.b.qkv.w": A, "qkv.qkv.b": A + 1},
        {"a.b.q.w": A[:12], "a.b.k.w": A[12:], "qkv.q.b": A[:12] + 1, "qkv.k.b": A[12:] + 1},
    ),
    "transpose by order": (
        Plan().transpose("w", (2, 0, 1)),
        {"w": A.reshape(2, 3, 4)},
        {"w": A.reshape(2, 3, 4).transpose(2, 0, 1)},
    ),
    "rearrange": (
        Plan().rearrange("w", "(h d) e -> e h d", h=2),
        {"w": A.reshape(6, 4)},
        {"w": A.reshape(2, 3, 4).transpose(2, 0, 1)},
    ),
    "a dimension of 1": (Plan().rearrange("w", "i o -> 1 i o"), {"w": A.reshape(6, 4)}, {"w": A.reshape(1, 6, 4)}),
    "split": (
        Plan().split("qkv", ["q", "k", "v"], axis=-1),
        {"qkv": row(1, 2, 3, 4, 5, 6)},
        {"q": row(1, 2), "k": row(3, 4), "v": row(5, 6)},
    ),
    "split by head": (
        Plan().split("qkv", ["q", "k", "v"], groups=2),
        {"qkv": row(1, 2, 3, 4, 5, 6)},
        {"q": row(1, 4), "k": row(2, 5), "v": row(3, 6)},
    ),
    "split in shares": (
        Plan().split("qkv", ["q", "k", "v"], shares=(4, 1, 1)),
        {"qkv": row(1, 2, 3, 4, 5, 6)},
        {"q": row(1, 2, 3, 4), "k": row(5), "v": row(6)},
    ),
    "concatenate": (Plan().concatenate(["g", "u"], "gu"), {"g": row(1, 2), "u": row(3, 4)}, {"gu": row(1, 2, 3, 4)}),
    "stack": (
        Plan().stack("h.{i}.{*n}", "h/{*n}"),
        {f"h.{i}.w": row(i, i) for i in range(12)},
        {"h/w": np.repeat(np.arange(12, dtype=np.float32), 2).reshape(12, 2)},
    ),
    "stack two numbers": (
        Plan().stack("h.{i}.e.{e}.w", "h.{i}.e.w").stack("h.{i}.e.w", "h.e.w"),
        {f"h.{i}.e.{e}.w": row(i, e) for i in range(11) for e in range(12)},
        {"h.e.w": np.stack([np.stack([row(i, e) for e in range(12)]) for i in range(11)])},
    ),
    "stack stages": (
        Plan().stack("s.{s}.b.{b}.{*n}", "s.{s}.{*n}"),
        {f"s.{s}.b.{b}.w": row(s, b) for s, depth in enumerate((2, 1, 11)) for b in range(depth)},
        {f"s.{s}.w": np.stack([row(s, b) for b in range(depth)]) for s, depth in enumerate((2, 1, 11))},
    ),
    "stack towers": (
        Plan().stack("{.tower}.h.{i}.{*n}", "{.tower}.h.{*n}"),
        {f"{t}.h.{i}.w": row(i) for t, depth in {"text": 2, "vision": 11}.items() for i in range(depth)},
        {f"{t}.h.w": np.stack([row(i) for i in range(depth)]) for t, depth in {"text": 2, "vision": 11}.items()},
    ),
    "unstack": (Plan().unstack("e", "e.{i}"), {"e": A.reshape(2, 12)}, {"e.0": A[:12], "e.1": A[12:]}),
    "cast": (Plan().cast("w", np.float64, stored=np.float32), {"w": A}, {"w": A.astype(np.float64)}),
    "tie": (Plan().tie("wte", "head"), {"wte": A}, {"wte": A}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_step_goes_both_ways_without_the_file_at_hand(kind):
    plan, file, program = KINDS[kind]
    params, _ = plan.load({name: np.zeros_like(array) for name, array in program.items()}, file)
    assert same(params, program)
    assert same(plan.back(params), file)
    assert same(plan.back(params, like=file), file)


def test_a_prefix_that_some_files_leave_out():
    """Also where a file has it for some of its names, and before a name that has it twice."""
    plan = Plan().also({"head": "head", "{*name}": "m.{*name}"}).separator()
    program = dict.fromkeys(("head", "m/a", "m/m/b"), A)
    target = {name: np.zeros_like(A) for name in program}
    for names in (("head", "m.a", "m.m.b"), ("head", "a", "m.m.b")):
        file = dict.fromkeys(names, A)
        params, _ = plan.load(target, file)
        assert same(params, program)
        assert same(plan.back(params, like=file), file)
        assert same(plan.back(params), {"head": A, "m.a": A, "m.m.b": A})
    (fault, *_) = faults_of(plan, target, dict.fromkeys(("head", "m.a", "a", "m.m.b"), A))
    assert fault == "'m.a' and 'a' are both to be 'm.a'"


# What a tie is --------------------------------------------------------------------------------------------------------

TIED = Plan().tie("wte", "lm_head", "decoder.wte").rename({"wte": "model/wte"})
WTE = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.mark.parametrize("names", [("wte",), ("lm_head",), ("decoder.wte", "wte"), ("wte", "lm_head", "decoder.wte")])
def test_any_of_the_names_will_do_and_the_same_names_are_written_back(names):
    file = dict.fromkeys(names, WTE)
    params, _ = TIED.load({"model/wte": np.zeros_like(WTE)}, file)
    assert same(params, {"model/wte": WTE})
    assert same(TIED.back(params, like=file), file)
    assert same(TIED.back(params), {"wte": WTE})


def test_members_that_differ_in_value_are_told_and_in_shape_before_anything_is_read():
    target = {"model/wte": np.zeros_like(WTE)}
    with pytest.raises(js.ParamsMismatchError) as error:
        TIED.load(target, {"wte": WTE, "lm_head": WTE + 1})
    assert error.value.faults == (
        "'model/wte', from 'wte' and 'lm_head', is one variable, and these differ in value: give each one of its own",
    )
    (fault, *_) = faults_of(TIED, target, {"wte": WTE, "lm_head": WTE.T})
    assert "'wte', 'lm_head' are to be one variable, and are float32 of shape (3, 2), float32 of shape (2, 3)" in fault


def test_values_that_differ_in_the_sign_of_zero_differ():
    with pytest.raises(js.ParamsMismatchError, match="differ in value"):
        TIED.load({"model/wte": np.zeros(1, np.float32)}, {"wte": np.float32([0.0]), "lm_head": np.float32([-0.0])})


def test_nans_of_one_kind_are_equal():
    nan = np.float32([np.nan])
    params, _ = TIED.load({"model/wte": np.zeros(1, np.float32)}, {"wte": nan, "lm_head": nan.copy()})
    assert np.isnan(params["model/wte"]).all()


# Faults ---------------------------------------------------------------------------------------------------------------


def test_every_fault_is_told_at_once():
    plan = (
        Plan()
        .split("qkv", ["q", "k", "v"])
        .transpose("nowhere")
        .rename({"a": "x", "b": "x", "w": "kernel"})
        .stack("h.{i}", "h")
    )
    file = arrays(qkv=7, a=1, b=1, w=(2, 3), left=1, **{"h.0": 2, "h.2": 2})
    target = {"kernel": np.zeros((3, 2), np.float32), "lost": np.zeros(1, np.float32), "q": np.zeros(1, np.float32)}
    assert faults_of(plan, target, file) == (
        "'qkv' has 7 along axis 0, which is not 3 equal shares",
        "transpose nowhere: no name is 'nowhere' at this step",
        "'a' and 'b' are both to be 'x'",
        "'h.1' is missing, of the 2 that are to be 'h'",
        "'kernel', from 'w', has shape (2, 3), wanted (3, 2)",
        "'lost' is missing",
        "'h.0' is not used",
        "'h.2' is not used",
        "'left' is not used",
    )


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (Plan().rename({"a.w": "k"}).transpose("a.w"), ": 'a.w' is called 'k' by now"),
        (Plan().transpose("{m}.w"), ": a field such as {i} is a number, and {.kind} or {*rest} a text, as in '{.m}.w'"),
        (Plan().transpose("*.w"), ": any text is {*rest}, and * is itself"),
        (
            Plan().stack("a.{x}", "a"),
            ": a field such as {i} is a number, and {.kind} or {*rest} a text, as in 'a.{.x}'",
        ),
        (Plan().split("a.{i}.v", ["q.{i}", "k.{i}"]), ""),
        (Plan().split("aw", ["q", "k"]), " (near: 'a.w')"),
        (Plan().transpose("{.m}.w", but="a.w"), ": but= leaves out all that are"),
    ],
)
def test_a_step_that_finds_nothing_says_why(plan, why):
    (fault, *_) = faults_of(plan, {"a": np.zeros(1, np.float32)}, {"a.w": np.zeros((2, 2), np.float32)})
    assert fault.endswith(f" at this step{why}")


def test_rows_of_arrays_of_which_no_part_can_be_read_alone_take_one_read_each(tmp_path, monkeypatch):
    """In any order; else 64 layers would be read 64 times. What comes is memory of its own."""
    file = {name: np.arange(64 * 50, dtype=np.float32).reshape(64, 50) + i for i, name in enumerate(("q", "k", "v"))}
    path, read = tmp_path / "m.npz", []
    np.savez(path, **file)
    original = files.File.read
    monkeypatch.setattr(files.File, "read", lambda self, start, size: read.append(size) or original(self, start, size))
    plain = Plan()
    for plan, name, times in (
        (plain, "{.n}", 1),
        (plain.transpose("{.n}", (0, 1)).cast("{.n}", np.float64), "{.n}", 1),
        (plain.tie("q", "lm_head"), "{.n}", 1),
        (plain.unstack("{.n}", "{.n}.{j}").rename({"{.n}.{j}": "{.n}/{j}"}), "{.n}/{j}", 1),
        (plain.split("{.n}", ["{.n}a", "{.n}b"], axis=1), "{.n}", 2),
    ):
        plan = plan.unstack(name, f"layer_{{i}}/{name}")
        target = {name: np.zeros(spec.shape, spec.dtype) for name, spec in plan.leads_to(path).items()}
        opened = checkpoint.open(path)
        read.clear()
        params, report = plan.load(target, opened)
        assert sum(read) <= (times + 0.5) * path.stat().st_size
        assert not report.unverified
        arrays_of_q = [array for name, array in params.flat().items() if "q" in name]
        assert not any(np.shares_memory(one, other) for one, other in itertools.pairwise(arrays_of_q))
        assert same(plan.back(params, like=file), file)


def test_a_name_that_two_templates_fit_is_found_by_both():
    """The first says what is done; the other is no less of a name that is there."""
    file = arrays(**{"h.0.fc.weight": (2, 3)})
    for names in (["{*m}.weight", "h.{i}.fc.weight"], ["h.{i}.fc.weight", "{*m}.weight"]):
        (spec,) = Plan().transpose(names).leads_to(file).values()
        assert spec.shape == (3, 2)
    (fault,) = faults_of(Plan().transpose(["{*m}.weight", "h.{i}.fx.weight"]), file, file)[:1]
    assert "no name is 'h.{i}.fx.weight' at this step" in fault


@pytest.mark.parametrize(
    "plan",
    [
        Plan().transpose("{*m}.w", but=["table.w", "tabel.w"]),
        Plan().rearrange("{*m}.w", "a b -> b a", but=["table.w", "tabel.w"]),
        Plan().cast("{*m}.w", np.float64, but=["table.w", "tabel.w"]),
    ],
)
def test_a_misspelt_but_is_told_before_what_it_was_to_leave_out_is_changed(plan):
    """A square table would be transposed without a word."""
    file = {"table.w": np.ones((2, 2)), "fc.w": np.ones((2, 2))}
    assert faults_of(plan, file, file) == (f"{plan}: no name is 'tabel.w' at this step (near: 'table.w')",)
    assert Plan().transpose("{*m}.w", but="tabel.w", may_miss=True).leads_to(file).keys() == file.keys()


ALL_STEPS = (
    Plan()
    .rename({"a.{i}": "b.{i}"})
    .also({"a": "b"})
    .separator()
    .transpose("a", (1, 0), but="b")
    .rearrange("a", "b c -> c b", b=2)
    .split("a", ["b", "c"])
    .stack("a.{i}", "a")
    .tie("a", "b")
    .drop("a")
    .cast("a", np.float32, stored=jnp.bfloat16)
    .averages()
)


def test_a_plan_is_kept_in_a_pickle_and_equals_its_like():
    again = pickle.loads(pickle.dumps(ALL_STEPS))
    assert again == ALL_STEPS
    assert hash(again) == hash(ALL_STEPS)
    assert str(again) == str(ALL_STEPS)
    assert Plan().transpose("a", np.array([1, 0])) == Plan().transpose("a", [1, 0])
    assert Plan().transpose("a") != Plan().transpose("b")
    assert Plan().transpose("a") != Plan().transpose("a", (0, 1))


def test_what_is_no_plan_is_refused():
    with pytest.raises(js.BadTypeError, match="takes a Plan as plan, not 'a -> b'"):
        checkpoint.assign_from({"b": np.ones(1)}, {"a": np.ones(1)}, plan="a -> b")


def test_what_to_do_is_what_the_call_can_do():
    target, file = {"a": np.zeros(2)}, {"b": np.zeros(2)}
    plan = Plan().transpose("b", (1, 0))
    calls = {
        checkpoint.assign_from: lambda: checkpoint.assign_from(target, file),
        Plan.check: lambda: plan.check(target, file),
        Plan.load: lambda: plan.load(target, file),
        Plan.leads_to: lambda: plan.leads_to(file),
    }
    for call, run in calls.items():
        with pytest.raises(js.ParamsMismatchError) as error:
            run()
        names = set(re.findall(r"(\w+)=", error.value.fix))
        options = checkpoint.assign_from if call == Plan.load else call
        assert names <= set(inspect.signature(options).parameters), call
        assert ("rename" in names) == (call == checkpoint.assign_from)


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_both_ways_to_match_a_name_give_the_same(rng):
    between, fields = ["", "_", "a", "_x", ".", "/", "1"], ["{.%s}", "{%s}", "{%s:02}", "{*%s}", "{%s+1}"]
    text = "".join(rng.choice(between) + rng.choice(fields) % field for field in "abcd"[: rng.randint(1, 4)])
    try:
        template = Template(text + rng.choice(["", "_", "a"]))
    except js.BadArgumentError:
        return
    given = {
        field: rng.choice(["a", "_", "a_", "x_x", "1"]) if kind else rng.randint(0, 12)
        for field, kind in template.kinds.items()
    }
    for name in (template.fill(given), "".join(rng.choice("_a.x01/9") for _ in range(rng.randint(0, 12)))):
        match = template._pattern.fullmatch(name)
        assert template._walked(name) == (None if match is None else match.groupdict()), (template.text, name)


@pytest.mark.parametrize("form", ["{.a}_{.b}_{.c}_{.d}", "{*a}_{i}_{.b}_{.c}"])
def test_a_name_of_a_stranger_does_not_take_a_power_of_its_length(form):
    start = time.process_time()
    plan = Plan().rename({form: form.replace("_", "/")})
    assert len(plan.leads_to({"_" * 300 + ".": row(1), "1_" * 200 + "1": row(1)})) == 2
    assert time.process_time() - start < 1


def test_a_stage_has_all_of_its_layers():
    file = arrays(**{f"s.{s}.{b}.{name}": 1 for s in range(2) for b in range(2 + s) for name in ("w", "b")})
    del file["s.1.2.b"]
    (fault, *_) = faults_of(Plan().stack("s.{s}.{b}.{*n}", "s.{s}.{*n}"), {"s.0.w": file["s.0.0.w"]}, file)
    assert fault == "'s.1.2.b' is missing, of the 3 that are to be 's.1.b'"


def test_what_a_fault_was_found_with_is_not_told_again():
    plan = Plan().transpose("w", (1, 0)).rename({"w": "k"})
    assert faults_of(plan, {"k": np.zeros((1, 1))}, arrays(w=3)) == ("'w' has shape (3,), and not 2 dimensions",)


def test_many_small_arrays_are_stacked_and_taken_apart_again():
    """Python takes many times the bytes for each."""
    plan = Plan().stack("layers.{i}.{j}", "layers.{j}")
    file = {f"layers.{i}.{j}": np.float16(i) for i in range(300) for j in range(150)}
    assert same(plan.back({f"layers.{j}": np.arange(300, dtype=np.float16) for j in range(150)}), file)


def test_nothing_is_read_before_all_fits(tmp_path):
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, arrays(a=4, b=4))
    data = bytearray(path.read_bytes())
    data[-16:] = b"\xff" * 16  # what is stored of b has no right checksum any more
    path.write_bytes(data)
    plan = Plan().rename({"a": "x", "b": "y"})
    assert faults_of(plan, {"x": np.zeros(3, np.float32), "y": np.zeros(4, np.float32)}, path) == (
        "'x', from 'a', has shape (4,), wanted (3,)",
    )
    with pytest.raises(js.CheckpointError, match="checksum"):
        plan.load({"x": np.zeros(4, np.float32), "y": np.zeros(4, np.float32)}, path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plan().rename({"a.{i}": "b"}),
        lambda: Plan().rename({"a": "b.{i}"}),
        lambda: Plan().rename({"a.{*x}.{*y}": "b.{*x}.{*y}"}),
        lambda: Plan().rename({"a.{i": "b.{i"}),
        lambda: Plan().rename({"a.{I}": "b.{I}"}),
        lambda: Plan().rename(["a"]),
        lambda: Plan().rename({"": "b"}),
        lambda: Plan().rename({1: "b"}),
        lambda: Plan().transpose("a", (0, 2)),
        lambda: Plan().transpose("a", 1),
        lambda: Plan().transpose("a", ("x", 1)),
        lambda: Plan().split("a", ["b", "c"], shares=2),
        lambda: Plan().cast("a", "f4,,f4"),
        lambda: Plan().rearrange("a", "b c"),
        lambda: Plan().rearrange("a", "b c -> c"),
        lambda: Plan().rearrange("a", "b b -> b b"),
        lambda: Plan().rearrange("a", "(b c -> b c"),
        lambda: Plan().rearrange("a", "b c -> c b", d=2),
        lambda: Plan().rearrange("a", "b c -> c b", b=0),
        lambda: Plan().split("a", ["b", "c"], shares=(1,)),
        lambda: Plan().split("a", ["b", "c"], shares=(1, 0)),
        lambda: Plan().split("a", "bc"),
        lambda: Plan().split("a", []),
        lambda: Plan().split("a", ["b", "c"], shares=(True, 1)),
        lambda: Plan().split("a", ["b", "c"], groups=True),
        lambda: Plan().split("a", ["b", "c"], axis=1.0),
        lambda: Plan().rearrange("a", "b c -> c b", b=np.float32(2)),
        lambda: Plan().transpose("a", (True, False)),
        lambda: Plan().split("a.{i}", ["b", "c"]),
        lambda: Plan().stack("a.{i}.{j}", "a"),
        lambda: Plan().stack("a", "a"),
        lambda: Plan().stack("a.{.i}", "a"),
        lambda: Plan().rename({"a.{*x}": "b.{x}"}),
        lambda: Plan().rename({"a.{*x}": "b.{.x}"}),
        lambda: Plan().rename({"a.{.x}{.y}": "b.{.x}{.y}"}),
        lambda: Plan().rename({"a.{*x}{.y}": "b.{*x}{.y}"}),
        lambda: Plan().rename({"a.{.x+1}": "b.{.x}"}),
        lambda: Plan().transpose("a", but=7),
        lambda: Plan().tie("a.{i}", "b"),
        lambda: Plan().cast("a", "no dtype"),
        lambda: Plan().cast("a", None),
        lambda: Plan().separator(".", "."),
        lambda: Plan().averages("{*n}/EMA", "{*m}"),
        lambda: Plan().drop(7),
    ],
)
def test_a_plan_that_can_not_be_meant_is_refused_as_it_is_made(make):
    with pytest.raises(js.BadArgumentError) as error:
        make()
    assert error.value.fix
    assert __file__ in error.value.where


def test_whole_numbers_of_numpy_are_whole_numbers(tmp_path):
    two = np.int64(2)
    assert Plan().split("a", ["b", "c"], shares=np.array([2, 1]), axis=np.int8(1), groups=two) == (
        Plan().split("a", ["b", "c"], shares=(2, 1), axis=1, groups=2)
    )
    assert Plan().concatenate(["b", "c"], "a", shares=np.array([2, 1])) == (
        Plan().concatenate(["b", "c"], "a", shares=(2, 1))
    )
    assert Plan().rearrange("a", "(b c) -> b c", b=two) == Plan().rearrange("a", "(b c) -> b c", b=2)
    checkpoint.save(tmp_path, arrays(a=4, b=4), max_shard_bytes=np.int64(16))
    assert checkpoint.load(tmp_path) == js.Params(arrays(a=4, b=4))


def test_values_that_the_plan_does_not_lead_to_are_refused():
    plan = Plan().split("qkv", ["q", "k", "v"])
    piece = np.ones(2, np.float32)
    for values, fault in (
        ({"q": piece, "k": piece}, "'v' is missing, which belongs to 'q' and others"),
        ({"q": piece, "k": piece, "v": np.ones(3, np.float32)}, "1:1:1"),
        ({"q": piece, "k": piece, "v": piece.astype(np.int32)}, "int32"),
    ):
        with pytest.raises(js.ParamsMismatchError, match=fault):
            plan.back(values)
    with pytest.raises(js.ParamsMismatchError) as error:
        plan.back({"q": piece, "k": piece, "x": piece}, like={"qkv": np.ones(6, np.float32)})
    assert error.value.faults == (
        "the plan leads to 'v', of which there is no value",
        "the plan does not lead to 'x'",
    )


def test_a_plan_that_would_not_lead_back_says_so():
    """The file's name can't be told from the value's."""
    plan = Plan().drop("count").rename({"transformer.{*n}": "{*n}"})
    with pytest.raises(js.ParamsMismatchError, match="'w/b' would be 'w/b' in the file, which does not lead to it"):
        Plan().also({"w/b": "c"}).back({"w/b": np.ones(1)})
    assert same(plan.back({"w": np.ones(1)}), {"transformer.w": np.ones(1)})


def test_a_step_for_many_names_that_takes_back_what_another_made_is_told():
    """It is a plan to read with; the way back needs the file, or a narrower name."""
    for wide, narrow, file, told in (
        (
            Plan().stack("a.{e}.{.n}", "a.{.n}"),
            Plan().stack("a.{e}.w", "a.w"),
            {"a.0.w": row(1), "a.1.w": row(2), "a.norm": row(3)},
            "'a.norm' would be 'a.0.norm' in the file, which does not lead to it",
        ),
        (
            Plan().concatenate(["q", "k"], "qk").rename({"n.{.x}": "{.x}"}),
            Plan().concatenate(["q", "k"], "qk").rename({"n.b": "b"}),
            {"q": row(1), "k": row(2), "n.b": row(3)},
            "in the file that this would make: concatenate q, k -> qk: no name is 'q' at this step",
        ),
    ):
        target = {name: np.zeros(spec.shape, spec.dtype) for name, spec in wide.leads_to(file).items()}
        params = wide.load(target, file).params
        with pytest.raises(js.ParamsMismatchError) as error:
            wide.back(params)
        assert error.value.faults[0] == told
        assert "narrower" in error.value.fix
        assert same(wide.back(params, like=file), file)
        assert same(narrow.back(params), file)


def test_values_that_the_dtypes_of_the_file_do_not_hold_are_told_by_name():
    plan = Plan().rename({"file.{i}": "own/{i}"}).cast("own/{i}", np.float32, stored=np.float16)
    values = {"own/0": row(1), "own/1": row(1e10)}
    for like in (None, {"file.0": np.ones(1, np.float16), "file.1": np.ones(1, np.float16)}):
        with pytest.raises(js.ParamsMismatchError) as error:
            plan.back(values, like=like)
        assert error.value.faults == ("'file.1', from 'own/1', has values that are out of the range of float16",)
        assert "stored=" in error.value.fix
    integers = {"file.0": np.ones(1, np.int8), "file.1": np.ones(1, np.int8)}
    with pytest.raises(js.ParamsMismatchError, match=r"'file\.0', from 'own/0', has values that are no int8"):
        plan.back({"own/0": row(1.5), "own/1": row(1)}, like=integers)
    with pytest.raises(js.ParamsMismatchError, match="'mask' is abstract"):
        Plan().drop("mask").back({}, like={"mask": jax.ShapeDtypeStruct((1,), np.float32)})


@pytest.mark.filterwarnings("error")
def test_what_the_dtypes_of_the_file_do_not_hold_is_no_warning_of_numpys():
    for to, value, stored in (
        (np.complex64, 1j, np.float32),
        (np.complex64, 1j, np.int8),
        (np.float32, np.nan, np.int32),
        (np.float32, np.inf, np.int32),
        (np.float32, 3e9, np.int32),
    ):
        plan, file = Plan().cast("a", to), {"a": np.ones(1, stored)}
        with pytest.raises(js.ParamsMismatchError, match=f"'a' has values that are no {np.dtype(stored)}"):
            plan.back({"a": np.array([value], to)}, like=file)
        assert same(plan.back({"a": np.array([-7], to)}, like=file), {"a": np.array([-7], stored)})


def test_what_to_do_about_values_that_are_not_as_in_the_file_works():
    file = {"w.weight": np.ones((2, 3), jnp.bfloat16), "n.weight": np.ones(3, np.int32)}
    plan = Plan().rename({"{*n}.weight": "{*n}"})
    wide = {"w": jax.ShapeDtypeStruct((2, 3), np.float32), "n": jax.ShapeDtypeStruct((3,), np.int32)}
    for target in (wide, {name: jax.ShapeDtypeStruct(spec.shape, np.float32) for name, spec in wide.items()}):
        params = plan.load(target, file, allow_cast=True).params
        with pytest.raises(js.ParamsMismatchError) as error:
            plan.back(params, like=file)
        steps = error.value.fix.partition(": ")[2]
        assert steps == f""".cast({"'{*name}'" if target is not wide else ["w"]}, jnp.float32)"""
        longer = eval(f"plan{steps}")  # what a user would write
        assert same(longer.load(target, file).params, params)
        assert same(longer.back(params, like=file), file)
    other = {"w": np.ones((2, 4), np.float32), "n": np.ones(3, np.int32)}
    for values in (other, {"w": np.ones((2, 3), jnp.bfloat16), "n": np.ones(3, bool)}):
        with pytest.raises(js.ParamsMismatchError) as error:
            plan.back(values, like=file)
        assert "leave out like=" in error.value.fix
        assert plan.back(values).keys() == file.keys()


@pytest.mark.parametrize("value", ["text", None, object(), jax.random.key(0)])
def test_what_is_no_array_is_not_taken_back(value):
    with pytest.raises(js.JscopeError):
        Plan().rename({"a": "b"}).back({"b": value})


# TF1's habits ---------------------------------------------------------------------------------------------------------


def test_moving_averages_are_taken_in_place_of_what_they_are_of(tmp_path):
    """One line, for all variables; what has no average is taken as it is."""
    file = {
        "conv/w": np.float32([1]),
        "conv/w/ExponentialMovingAverage": np.float32([2]),
        "bn/moving_mean": np.float32([3]),
        "fc/w/ExponentialMovingAverage": np.float32([4]),
    }
    checkpoint.save_tf(tmp_path / "m.ckpt", file)
    names = ("conv/w", "bn/moving_mean", "fc/w")
    params, report = Plan().averages().load({name: np.zeros(1, np.float32) for name in names}, tmp_path / "m.ckpt")
    assert [float(params[name][0]) for name in names] == [2, 3, 4]
    assert report.sources["conv/w"] == "conv/w/ExponentialMovingAverage"
    assert not report.unused
    assert same(Plan().averages().back(params, like=tmp_path / "m.ckpt"), file)


def head(classes: int) -> js.Specs:
    def program() -> None:
        with js.variable_scope("enc"):
            js.get_variable("kernel", [3, 4])
        with js.variable_scope("cls"):
            js.get_variable("kernel", [4, classes])
            js.get_variable("bias", [classes], initializer=js.zeros_initializer())

    return js.transform(program).specs()


@pytest.mark.parametrize(
    "options",
    [
        {"exclude": "cls/"},
        {"exclude": ["cls/kernel", "cls/bias"]},
        {"allow_missing": "cls/", "allow_unused": "cls/"},
        {"allow_missing": ["cls/"], "allow_unused": ".*"},
    ],
)
def test_a_head_of_another_size_is_left_out(options):
    old = head(2).init(jax.random.key(1))
    tuned, report = checkpoint.assign_from(head(5), old, key=jax.random.key(0), **options)
    assert (tuned["enc/kernel"] == old["enc/kernel"]).all()
    assert (tuned["cls/kernel"] == head(5).init(jax.random.key(0))["cls/kernel"]).all()
    assert set(report.initialised) == set(report.unused) == {"cls/kernel", "cls/bias"}
    assert report.loaded == ("enc/kernel",)


def test_what_is_excluded_is_left_out_also_where_it_would_fit():
    old, new = head(2).init(jax.random.key(1)), head(2).init(jax.random.key(2))
    tuned, report = checkpoint.assign_from(new, old, exclude="cls/kernel")
    assert (tuned["cls/kernel"] == new["cls/kernel"]).all()
    assert report.kept == ("cls/kernel",)


def test_a_misspelt_exclude_is_told_before_it_fills_what_was_to_be_left_out():
    specs = head(2)
    with pytest.raises(js.ParamsMismatchError) as error:
        checkpoint.assign_from(specs, specs.init(jax.random.key(1)), exclude="clss/", key=jax.random.key(0))
    assert list(error.value.faults) == ["exclude='clss/' matches no name (near: 'cls/bias')"]


def test_what_only_the_checkpoint_has_may_be_excluded():
    """The program for evaluation has no auxiliary head, and the same flags as the one for training."""
    specs = head(2)
    old = specs.init(jax.random.key(1))
    tuned, _ = checkpoint.assign_from(
        specs, {**old.flat(), "aux/kernel": 1.0}, exclude=["cls/", "aux/"], allow_unused=True, key=jax.random.key(0)
    )
    assert (tuned["enc/kernel"] == old["enc/kernel"]).all()


@pytest.mark.parametrize("options", [{}, {"allow_missing": True, "allow_unused": True}, {"allow_missing": "cls/"}])
def test_another_size_is_still_a_fault_where_nobody_named_it(options):
    with pytest.raises(js.ParamsMismatchError, match=r"wanted \(4, 5\)") as error:
        checkpoint.assign_from(head(5), head(2).init(jax.random.key(1)), key=jax.random.key(0), **options)
    assert "exclude=" in error.value.fix


def test_a_plan_and_rename_together_are_refused():
    with pytest.raises(js.BadArgumentError, match="not both"):
        checkpoint.assign_from({"b": np.ones(1)}, {"a": np.ones(1)}, plan=Plan(), rename={"a": "b"})


# Entries that are no arrays -------------------------------------------------------------------------------------------


def test_entries_that_are_no_arrays_can_be_dropped_and_are_told_where_wanted(tmp_path):
    np.savez(tmp_path / "m.npz", w=np.ones(2, np.float32), note=np.array("text"))
    plan = Plan().rename({"w": "kernel", "note": "remark"})
    target = {"kernel": np.zeros(2, np.float32), "remark": np.zeros(2, np.float32)}
    assert any("'note' holds" in fault for fault in faults_of(plan, target, tmp_path / "m.npz"))
    kept = {"kernel": target["kernel"], "note": target["remark"]}
    assert faults_of(Plan().rename({"w": "kernel"}), kept, tmp_path / "m.npz") == ("'note', from 'note', holds <U4",)
    params, _ = Plan().drop("note").rename({"w": "kernel"}).load({"kernel": target["kernel"]}, tmp_path / "m.npz")
    assert same(params, {"kernel": np.ones(2, np.float32)})


def test_a_file_of_the_form_of_one_with_text_would_lack_it(tmp_path):
    np.savez(tmp_path / "m.npz", w=np.ones(2, np.float32), note=np.array("text"), mask=np.ones(3, np.uint8))
    plan, target = Plan().drop("note", "mask").rename({"w": "kernel"}), {"kernel": np.zeros(2, np.float32)}
    values = plan.load(target, tmp_path / "m.npz").params
    with pytest.raises(js.ParamsMismatchError) as error:
        plan.save(tmp_path / "out", values, like=tmp_path / "m.npz")
    assert error.value.faults == ("'note' holds <U4, and can't be copied",)
    assert "like= takes jscope.checkpoint.open(path).read()" in error.value.fix
    plan.save(tmp_path / "out", values, like=checkpoint.open(tmp_path / "m.npz").read())
    assert checkpoint.load(tmp_path / "out") == checkpoint.open(tmp_path / "m.npz").read()
    with pytest.raises(js.ParamsMismatchError, match=r"'rng' is a key of jax\.random"):
        Plan().drop("rng").back({}, like={"rng": jax.random.key(0)})


def sources_without_values() -> dict[str, tuple[Any, str]]:
    gone = jnp.ones(2)
    gone.delete()
    spec = js.VariableSpec("a", "a", (2,), np.dtype(np.float32), None)
    return {
        "header": (jax.ShapeDtypeStruct((2,), np.float32), "is abstract, a ShapeDtypeStruct"),
        "specs": (spec, "is what a program declares, and has no value"),
        "deleted": (gone, "is deleted: a jitted function that donates its arguments has taken its memory"),
        "masked": (np.ma.array(row(1, 2), mask=[0, 1]), "is a masked array of numpy, whose mask would be lost: give "),
    }


@pytest.mark.parametrize("kind", sources_without_values())
@pytest.mark.parametrize("make", [np.zeros, jnp.zeros])
def test_what_has_no_value_is_told_by_name(kind, make):
    value, why = sources_without_values()[kind]
    for plan, told in (
        (None, "'b', from 'a', "),
        (Plan().rename({"a": "b"}), "'b', from 'a', "),
        (Plan().split("a", ["b", "c"]), "'b', from 'a', "),
    ):
        rename = {"a": "b"} if plan is None else None
        size = 1 if "split" in str(plan) else 2
        target = {name: make(size, np.float32) for name in ("b", "c")[: 3 - size]}
        with pytest.raises(js.ParamsMismatchError) as error:
            checkpoint.assign_from(target, {"a": value}, plan=plan, rename=rename)
        assert error.value.faults[0].startswith(told + why)
    assert Plan().drop("x").rename({"a": "b"}).check({"b": make(2, np.float32)}, {"a": value, "x": value})


def test_values_that_are_traced_do_not_go_through_a_plan():
    plan = Plan().rename({"a": "b"})
    with pytest.raises(js.ParamsMismatchError, match="'b', from 'a', is traced by JAX"):
        jax.jit(lambda a: plan.load({"b": jnp.zeros(2)}, {"a": a}).params)(jnp.ones(2))


def test_random_keys_are_left_out_and_told_where_wanted():
    source, target = {"a": row(1), "rng": jax.random.key(1)}, {"b": row(0)}
    plan = Plan().rename({"a": "b"})
    key = {"rng": jax.random.key(0)}
    assert plan.load(target, source)[1].skipped == {"rng": "is a key of jax.random, which no plan loads"}
    assert plan.drop("rng").load(target | key, source, allow_missing="rng").params == js.Params({"b": row(1)} | key)
    assert faults_of(plan, target | key, source) == ("'rng', from 'rng', is a key of jax.random, which no plan loads",)
    assert faults_of(plan.rename({"rng": "key"}), target | {"key": key["rng"]}, source) == (
        "'rng' is a key of jax.random, which no plan loads, and is to be 'key'",
    )


# Straight to devices --------------------------------------------------------------------------------------------------

SPREAD = """
import random, sys, tempfile
from pathlib import Path
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from random_plans import random_case, random_cuts
import jscope as js
from jscope import checkpoint
assert jax.device_count() == 8
for seed in range(int(sys.argv[1])):
    rng = random.Random(seed)
    case = random_case(rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.safetensors")
        checkpoint.save(path, case.file)
        target, shardings = {}, {}
        for name, array in case.program.items():
            cuts = random_cuts(rng, array.shape, 8)
            devices = np.array(rng.sample(jax.devices(), 8)[: max(int(np.prod(cuts)), 1)]).reshape(cuts)
            mesh = jax.sharding.Mesh(devices, [f"m{i}" for i in range(len(cuts))])
            shardings[name] = jax.sharding.NamedSharding(mesh, jax.P(*mesh.axis_names))
            target[name] = jax.ShapeDtypeStruct(array.shape, array.dtype)
        params, report = case.plan.load(target, path, shardings=shardings)
        for name, array in case.program.items():
            assert params[name].sharding.is_equivalent_to(shardings[name], array.ndim), (seed, name)
            assert np.asarray(params[name]).tobytes() == np.ascontiguousarray(array).tobytes(), (seed, name)
            whole = shardings[name].is_fully_replicated
            assert (name in report.unverified) <= (not whole) or "unstack" in str(case.plan), (seed, name)
eighths = jax.sharding.NamedSharding(jax.make_mesh((8,), ("m",)), jax.P("m"))
for target in ({"a": jax.ShapeDtypeStruct((3,), np.float32, sharding=eighths)}, {"a": np.zeros(3, np.float32)}):
    try:
        checkpoint.assign_from(target, {"a": np.zeros(3, np.float32)}, shardings={"a": eighths})
    except js.ParamsMismatchError as error:
        assert error.faults[0].startswith("'a' does not fit its sharding: "), error
    else:
        raise AssertionError("what does not divide was accepted")
print("all right")
"""


def spread_cases(count: int) -> str:
    paths = [str(ROOT), str(ROOT / "tests" / "support")]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run([sys.executable, "-c", SPREAD, str(count)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_parts_of_arrays_come_to_the_devices_that_hold_them():
    assert "all right" in spread_cases(60)


@pytest.mark.slow
def test_many_parts_of_arrays_come_to_the_devices_that_hold_them():
    assert "all right" in spread_cases(1000)


def test_shardings_of_names_that_are_not_there_are_told():
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with pytest.raises(js.ParamsMismatchError, match=r"'kernl' has a sharding, and is not there \(near: 'kernel'\)"):
        checkpoint.assign_from({"kernel": jnp.ones(1)}, {"kernel": np.ones(1, np.float32)}, shardings={"kernl": one})


def test_shardings_that_do_not_fit_are_told_by_name_before_anything_is_read(tmp_path):
    mesh = jax.make_mesh((1, 1), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    wide = jax.sharding.NamedSharding(mesh, jax.P("data", "model"))
    nowhere = jax.sharding.NamedSharding(jax.sharding.AbstractMesh((1,), ("data",)), jax.P("data"))
    shardings = {"a": wide, "b": jax.P("data"), "c": "data", "d": nowhere}
    file = {name: row(1) for name in "abcd"}
    checkpoint.save(tmp_path / "m", file)
    data = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(data[:-16] + b"\xff" * 16)  # reading would end in an error about checksums
    with pytest.raises(js.ParamsMismatchError) as error:
        checkpoint.assign_from(file, tmp_path / "m", shardings=shardings)
    no_sharding = "which is no sharding: write such as NamedSharding(mesh, jax.P('data'))"
    assert error.value.faults == (
        "'a' does not fit its sharding: P('data', 'model') has more axes than shape (1,)",
        f"'b' is given {jax.P('data')!r}, {no_sharding}",
        f"'c' is given 'data', {no_sharding}",
        "'d' is given a sharding over a mesh that has no devices",
    )
    checkpoint.save_state(tmp_path / "s", {"a": row(1)})
    with pytest.raises(js.ParamsMismatchError, match="'a' is given a sharding over a mesh that has no devices"):
        checkpoint.load_state(tmp_path / "s", {"a": jax.ShapeDtypeStruct((1,), np.float32, sharding=nowhere)})


@pytest.mark.slow
def test_a_file_of_many_names_takes_no_more_memory_than_it_may(tmp_path):
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, {f"layer_{i}/w": np.zeros(1, np.float32) for i in range(20_000)})
    plan = Plan().rename({"layer_{i}/w": "h/{i}/k"}).transpose("h/{i}/k").separator("/", ".")
    tracemalloc.start()
    try:
        with pytest.raises(js.ParamsMismatchError) as error:
            plan.check({f"h.{i}.kk": np.zeros(1, np.float32) for i in range(10)}, path)
        assert len(error.value.faults) == 20_010
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 32_000_000 + 8 * path.stat().st_size


def test_steps_that_found_no_name_are_told_where_something_does_not_fit() -> None:
    """A prefix that the pattern lacks: every name is at fault, and one line says why."""
    plan = Plan().rename({"h.{i}.{*rest}": "h{i}/{*rest}"}).rename({"{*n}.gamma": "{*n}.scale"})
    target = {f"h{i}/w": np.zeros(2, np.float32) for i in range(3)}
    file = {f"model.h.{i}.w": np.zeros(2, np.float32) for i in range(3)}
    with pytest.raises(js.ParamsMismatchError) as error:
        plan.check(target, file)
    assert error.value.exists == (
        "no name that these steps ask for: rename h.{i}.{*rest} -> h{i}/{*rest}; rename {*n}.gamma -> {*n}.scale"
    )
    assert len(error.value.faults) == 6
    fits = {name.removeprefix("model."): value for name, value in file.items()}
    assert not plan.check(target, fits).unused
