"""The benchmarks run, at sizes that tell nothing about speed; and their counts, which have no noise, are right.

The models of the suite compute the same in every library: that is what makes its figures comparable.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import clock
import jax
import models
import numpy as np
import pytest
import reading
import suite
import way
from models import by_hand, maths
from models.variants import VARIANTS
from paths import TESTS

import jscope as js

BENCHMARKS = TESTS / "benchmarks"


def run(folder: Path, name: str, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What the script prints, and what it writes."""
    file = folder / "figures.json"
    command = [sys.executable, str(BENCHMARKS / name), *arguments, "--json", str(file)]
    paths = [str(BENCHMARKS.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    return run(tmp_path_factory.mktemp("guard"), "guard.py", "--layers", "1", "--repeats", "2")


@pytest.fixture(scope="module")
def growth(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    sizes = ["--calls", "4", "--grads", "2", "--inner", "2", "4", "--repeats", "2", "--together"]
    return run(tmp_path_factory.mktemp("growth"), "growth.py", *sizes)


@pytest.mark.slow
def test_sizes_shows_every_operation(tmp_path: Path) -> None:
    printed, figures = run(tmp_path, "sizes.py", "--sizes", "10", "20", "--least", "0")
    assert figures["sizes"] == [10, 20]
    assert {"specs", "specs.init", "apply", "flatten", "params[name]", "get_variable, new"} <= {
        row["name"] for row in figures["rows"]
    }
    assert all(f"| {row['name']} |" in printed and len(row["us"]) == 2 for row in figures["rows"])


@pytest.mark.slow
def test_guard_measures_every_group(guard: tuple[str, dict[str, Any]]) -> None:
    printed, figures = guard
    groups = {row["group"] for row in figures["times"]}
    assert groups == {f"{kind}, {way}" for kind in ("checkpoint", "lift") for way in ("forward", "grad")}
    assert all(group in printed for group in groups)
    # One goal in each group, and the same base twice.
    for group in groups:
        rows = [row for row in figures["times"] if row["group"] == group]
        assert [row["case"] for row in rows if row["goal"]] == ["jscope"]
        assert rows[1]["calls_ratio"] == pytest.approx(1, abs=0.02)


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    return run(tmp_path_factory.mktemp("way"), "way.py")


def test_the_way_of_a_call_is_counted_in_each_mode(ways: tuple[str, dict[str, Any]]) -> None:
    printed, found = ways
    assert list(found) == list(way.MODES)
    for mode, calls in found.items():
        for call in way.CALLS:
            steps = [way.Step(**step) for step in calls[call]]
            count, files = len(steps), way.files(steps)
            assert f"{call}, {mode}: {count} functions, {len(files)} files" in printed
            assert re.search(rf"\| {call} \| {mode} \| {count} \|.*\| {len(files)} \|", printed)
            assert count > 0
            assert all(step.file.startswith("jscope/") for step in steps)
            assert steps[0].depth == 0
        assert calls["create"][0]["function"] == calls["found"][0]["function"] == "get_variable"
        functions, most_files = way.GOALS["create", mode]
        assert len(calls["create"]) <= functions
        assert len(way.files([way.Step(**step) for step in calls["create"]])) <= most_files
        assert len(calls["found"]) < len(calls["create"])


def test_the_way_of_a_call_is_the_same_each_time(ways: tuple[str, dict[str, Any]]) -> None:
    _, found = ways
    assert way.way("bind") == {call: [way.Step(**step) for step in found["bind"][call]] for call in way.CALLS}


def test_watching_notes_jscope_only_and_gives_back_who_watched_before() -> None:
    before, steps = sys.getprofile(), []
    with way.watching(steps):
        sorted([2, 1], key=lambda number: number)
        js.Params({"a": 1})
    assert sys.getprofile() is before
    assert {step.file.partition("/")[0] for step in steps} == {"jscope"}


@pytest.mark.slow
def test_an_eager_call_traces_the_block_once_in_each_scope(growth: tuple[str, dict[str, Any]]) -> None:
    printed, figures = growth
    traces = {name: row["per call"]["traces"] for name, row in figures["growth"].items()}
    assert traces == {"eager": 2, "eager jax.grad": 2, "jax.jit(net.apply)": 0, "by hand, new functions kept": 2}
    assert figures["growth"]["jax.jit(net.apply)"]["traces before"] == 2
    assert all(name in printed for name in traces)


@pytest.mark.slow
def test_the_library_keeps_nothing_of_an_eager_call(growth: tuple[str, dict[str, Any]]) -> None:
    _, figures = growth
    assert [row["per call"]["own"] for row in figures["growth"].values()] == [0, 0, 0, 0]


@pytest.mark.slow
def test_arrays_are_free_without_the_block_and_without_the_caches(growth: tuple[str, dict[str, Any]]) -> None:
    _, figures = growth
    for freeing in ("the block dropped", "jax.clear_caches()"):
        held = figures["freeing"][freeing]
        assert held["after the calls"]["array_bytes"] > 0
        assert held[freeing]["array_bytes"] == 0


# The suite ----------------------------------------------------------------------------------------------------------

# What is quick, and in this process. Those of libraries are against by hand, which is there twice.
LIBRARIES = ["first", "trace", "calls", "equations", "specs", "init", "call"]
FIGURES = [*LIBRARIES, "variants", "checkpointed", "trees"]
TITLES = {"by hand", suite.AGAIN, "floor", "floor, guarded", "jscope"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    libraries = ["--libraries", "by_hand", "floor", "guarded", "jscope"]
    sizes = ["--layers", "1", "--repeats", "3", "--leaves", "4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "ROUND", 0)
        suite.main([*sizes, *libraries, "--only", *FIGURES, "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "figures.json").read_text())["rows"]


def of(found: list[dict[str, Any]], figure: str) -> list[dict[str, Any]]:
    return [row for row in found if row["figure"] == figure]


@pytest.mark.slow
@pytest.mark.parametrize("figure", FIGURES)
def test_the_suite_measures_every_library_against_the_mean_of_by_hand(found: list[dict[str, Any]], figure: str) -> None:
    rows = of(found, figure)
    for case in {row["case"] for row in rows}:
        own = {row["library"]: row for row in rows if row["case"] == case}
        assert figure not in LIBRARIES or own.keys() >= TITLES
        twins = [next(iter(own.values())), own[clock.again(next(iter(own)))]]
        assert sum(row["ratio"][1] for row in twins) == pytest.approx(2)
        assert all(row["quartiles"][0] > 0 for row in own.values())


@pytest.mark.slow
def test_goals_stand_beside_the_figures_of_jscope(found: list[dict[str, Any]]) -> None:
    goals = {(row["figure"], row["case"]): row["goal"] for row in found if row["library"] == "jscope" and "goal" in row}
    cases = {(figure, f"{kind}, 1 layers") for figure, kind in suite.GOALS}
    cases |= {("specs", f"{kind}, 1 layers") for kind in models.KINDS}
    cases |= {("checkpointed", row["case"]) for row in of(found, "checkpointed")}
    assert goals.keys() == cases


@pytest.mark.slow
def test_variants_stand_beside_plain_deep(found: list[dict[str, Any]]) -> None:
    rows = {row["library"]: row for row in of(found, "variants")}
    assert rows.keys() >= {"jscope", *VARIANTS}
    assert all(rows[name]["goal"] == variant.goal for name, variant in VARIANTS.items())
    assert all(len(rows[name]["beside"]["above plain"]) == 3 for name in VARIANTS)


@pytest.mark.slow
def test_specs_stand_beside_first_traces_by_hand_and_of_the_same_model(found: list[dict[str, Any]]) -> None:
    rows = {row["library"]: row for row in of(found, "specs") if row["model"] == "deep"}
    assert rows[suite.traced("by hand")]["beside"] == {"to the first trace by hand": [1, 1, 1]}
    assert rows["jscope"]["beside"].keys() == {"to the first trace by hand", "to its own first trace"}


def test_a_first_trace_makes_the_model_anew() -> None:
    made = []

    def make() -> models.Model:
        made.append(models.make("jscope", "deep", 1))
        return made[-1]

    action = suite.first_trace(make, make().init(suite.KEY), models.inputs("deep"))
    action()
    action()
    assert len({model.apply for model in made}) == 3


@pytest.mark.slow
def test_the_counts_of_the_suite_have_no_noise(found: list[dict[str, Any]]) -> None:
    again = [row for row in of(found, "calls") if row["library"] == suite.AGAIN]
    assert [row["ratio"][1] for row in again] == [pytest.approx(1, abs=0.02)] * 3
    assert {row["ratio"][1] for row in of(found, "equations")} == {1}


@pytest.mark.slow
def test_the_suite_sees_who_writes_op_names(found: list[dict[str, Any]]) -> None:
    writes = {row["library"]: row["op_names"] for row in of(found, "first")}
    assert writes == {name: name not in ("by hand", suite.AGAIN) for name in TITLES}


@pytest.mark.slow
def test_the_suite_writes_tables_and_a_picture(out: Path) -> None:
    text = (out / "figures.md").read_text()
    assert all(suite.FIGURES[figure].title in text for figure in FIGURES)
    assert (out / "first.png").read_bytes().startswith(b"\x89PNG")


def test_a_library_that_is_not_installed_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "installed", lambda library: library not in ("haiku", "equinox"))
    libraries, _, notes = suite.left_out(["haiku", "equinox", "jscope"], ["first"])
    assert libraries == ["by_hand", "jscope"]
    assert re.search(r"Haiku is left out.*jax-scope\[peers\]", notes[0])
    assert re.search(r"Equinox is left out.*jax-scope\[bench\]", notes[1])


@pytest.mark.slow
def test_a_first_init_is_measured_in_a_process_of_its_own() -> None:
    first = suite.in_new_process("init", "jscope", 2, 8)
    assert first["seconds"] > 0
    assert first["compiles"] > 0


@pytest.mark.slow
def test_the_whole_suite_runs(tmp_path: Path) -> None:
    sizes = ["--layers", "2", "--repeats", "2", "--processes", "1", "--leaves", "4", "--megabytes", "8"]
    paths = [str(BENCHMARKS.parents[1]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, str(BENCHMARKS / "suite.py"), *sizes, "--out", str(tmp_path)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, check=True)
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    installed = {models.LIBRARIES[library].title for library in models.LIBRARIES if models.installed(library)}
    for figure in suite.FIGURES:
        libraries = {row["library"] for row in of(rows, figure)}
        if figure == "import":
            assert libraries == installed - {"by hand", "by hand, key by key", "floor", "floor, guarded"}
        elif figure not in ("trees", "variants", "checkpointed") and (figure != "memory" or libraries):
            assert libraries >= (installed | {suite.AGAIN}) - {"by hand, key by key"}


# Its models ---------------------------------------------------------------------------------------------------------


def name_of(path: Any) -> str:
    """The name of a leaf by its place, in words that all libraries share: `layer_0/mlp/dense/w`."""
    name = re.sub(r"\W+", "/", jax.tree_util.keystr(path)).strip("/")
    return re.sub(r"^params/|/value$", "", re.sub(r"layers/(\d+)", r"layer_\1", name))


def filled(tree: Any) -> Any:
    """The tree with numbers in it that depend on the names of the leaves only."""

    def numbers(path: Any, leaf: jax.Array) -> jax.Array:
        seed = zlib.crc32(name_of(path).encode())
        return jax.random.normal(jax.random.key(seed), leaf.shape)

    return jax.tree_util.tree_map_with_path(numbers, tree)


MODELS = [
    pytest.param(name, marks=() if name in ("by_hand", "floor", "jscope") else pytest.mark.slow)
    for name in models.LIBRARIES
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", models.KINDS)
@pytest.mark.parametrize("library", MODELS)
def test_models_agree_with_by_hand(library: str, kind: str) -> None:
    if not models.installed(library):
        pytest.skip(f"{library} is not installed")
    x = 0.5 * models.inputs(kind)
    base, model = models.make(models.BASE, kind, 3), models.make(library, kind, 3)
    theirs, params = base.init(jax.random.key(0)), model.init(jax.random.key(0))
    shapes = [
        {name_of(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (theirs, params)
    ]
    assert shapes[0] == shapes[1]
    np.testing.assert_allclose(model.apply(filled(params), x), base.apply(filled(theirs), x), rtol=1e-6)
    assert jax.tree.structure(jax.eval_shape(model.init, jax.random.key(0))) == jax.tree.structure(params)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_compute_what_by_hand_does(name: str) -> None:
    variant, x = VARIANTS[name], 0.5 * models.inputs("deep")
    model, base = variant.make(3, models.WIDTH), getattr(by_hand, variant.hand)(3, models.WIDTH)
    theirs = filled(base.init(jax.random.key(0)))
    layers = [theirs[f"layer_{i}"]["mlp"]["dense"] for i in range(3)]
    specs = model.specs()
    params = js.Params(dict(zip(specs, [layer[name] for layer in layers for name in "wb"], strict=True)))
    specs.check(params)
    found, wanted = (jax.tree.leaves(own.apply(tree, x)) for own, tree in ((model, params), (base, theirs)))
    for a, b in zip(found, wanted, strict=False):  # without losses, only one has their sum
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert len(found) - len(wanted) == (name == "listings")
    counts = [suite.equations(suite.trace_of(own, tree, x).jaxpr) for own, tree in ((model, params), (base, theirs))]
    assert counts[0] == counts[1]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("library", MODELS)
def test_initial_values_of_models_are_alike(library: str) -> None:
    if not models.installed(library):
        pytest.skip(f"{library} is not installed")
    params = models.make(library, "transformer", 8).init(jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = name_of(path).rpartition("/")[2]
        if name == "w":
            assert leaf.std() == pytest.approx(maths.STDDEV, rel=0.25)
        else:
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, name == "scale", np.float32))


@pytest.mark.slow
def test_reading_checkpoints(tmp_path: Path) -> None:
    rounds = reading.measured(tmp_path, 1 << 20, 2)
    assert {len(taken) for taken in rounds.values()} == {2}
    table = reading.report(rounds, 1 << 20).splitlines()
    assert table[0] == "0.00 GB, 2 rounds, checksums by google-crc32c"
    assert [line.partition("  ")[0] for line in table[1:]] == list(rounds)


@pytest.mark.slow
def test_forms_of_equal_layers_compute_the_same_and_are_measured(tmp_path: Path) -> None:
    pytest.importorskip("haiku")
    pytest.importorskip("flax")
    printed, figures = run(tmp_path, "stacked.py", "--layers", "2", "--rounds", "2", "--compiled", "1")
    assert figures["difference"] < 1e-5
    forms = {row["form"]: row for row in figures["rows"]}
    assert len(forms) == 11
    assert all(row["lower"] > 0 and row["compile"] > 0 for row in forms.values())
    assert {form for form, row in forms.items() if row["rounds"] == 1} == {"jscope, unrolled"}
    assert all(form in printed for form in forms)
    # What a checkpoint is for; and what is kept for the gradient is the same in every library.
    for form in ("by hand", "jscope", "hk.layer_stack", "nn.scan", "nnx.scan"):
        assert forms[f"{form}, checkpoint"]["temporary"] < forms[form]["temporary"]
        assert forms["jscope"]["temporary"] <= 1.1 * forms[form]["temporary"]
        assert forms["jscope, checkpoint"]["temporary"] <= 1.1 * forms[f"{form}, checkpoint"]["temporary"]


@pytest.mark.slow
def test_sharded_init_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("flax")
    printed, figures = run(tmp_path, "sharded_init.py", "--counts", "4", "8", "--repeats", "1")
    assert [(row["case"], row["variables"]) for row in figures["rows"]] == [
        ("specs.init(out_shardings=)", 4),
        ("jax.jit(specs.init)", 4),
        ("Linen, jax.jit(init)", 4),
        ("specs.init(out_shardings=)", 8),
    ]
    assert printed.count("CPU s") == 4
