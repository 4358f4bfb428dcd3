"""`device.py`, which measures on a GPU, runs on a CPU: its plan, what it reads out of profiles, and its page.

The whole of it is a slow test; the pure functions of each part are tested here at once.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import device
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_parts import Found, cold, decode, model, sample, scopes, traces, values

import jscope as js

SCRIPT = Path(device.__file__)


# The plan -----------------------------------------------------------------------------------------------------------


def test_the_plan_fits_its_budget_when_every_job_takes_all_that_it_may():
    left = float(device.BUDGET)
    for index, job in enumerate(device.JOBS):
        seconds = device.limit(index, device.JOBS, left)
        assert job.kept <= seconds <= job.seconds
        left -= seconds
    assert left >= -1e-9


def test_a_late_job_leaves_nothing_to_the_last_but_takes_nothing_of_the_rest():
    assert device.limit(0, device.JOBS, 3.0) == 3.0
    assert device.limit(len(device.JOBS) - 1, device.JOBS, 0.0) == 0.0


def test_a_job_that_is_late_is_ended_and_what_it_found_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    found = {"facts": {}, "rows": [{"here": 1}]}
    script.write_text(
        "import pathlib, sys, time\n"
        f"pathlib.Path(sys.argv[sys.argv.index('--json') + 1]).write_text({json.dumps(found)!r})\n"
        "print('before the end', flush=True)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(device, "__file__", str(script))
    start = time.monotonic()
    got = device.in_process(device.Job("values", (), 1, 1), 1.5, True, tmp_path / "profile")
    assert time.monotonic() - start < 30
    assert got["state"] == "ended, as it was late"
    assert got["rows"] == [{"here": 1}]
    assert got["said"] == "before the end\n"


def test_jobs_that_found_no_time_are_named(tmp_path: Path) -> None:
    result = {"run": device.facts(True, 0, "abc"), "jobs": []}
    device.run_jobs(device.JOBS[:2], 0, True, result, tmp_path / "figures.json")
    written = json.loads((tmp_path / "figures.json").read_text())
    assert [job["state"] for job in written["jobs"]] == ["not started"] * 2
    assert written["run"]["commit"] == "abc"
    assert {"jax", "jaxlib", "python"} <= set(written["run"]["versions"])


# Reading profiles ---------------------------------------------------------------------------------------------------


def named(kind: str, name: str, pid: int, tid: int = 0) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def event(name: str, tid: int, start: float, length: float, pid: int = 2, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": start, "dur": length, "args": args}


EVENTS = [
    named("process_name", "/host:CPU", 1),
    named("thread_name", "python", 1, 7),
    named("process_name", "/device:GPU:0", 2),
    named("thread_name", "Stream #1(Compute)", 2, 1),
    named("thread_name", "Stream #2(MemcpyD2D)", 2, 2),
    named("thread_name", "XLA Ops", 2, 3),
    event("step", 7, 0, 100, pid=1),
    event("loop_add_fusion", 1, 30, 10, hlo_op="loop_add_fusion", tf_op="jit(f)/jvp(layer_1)/attention/add"),
    event("gemm_fusion_dot_3", 1, 10, 10, hlo_op="gemm_fusion_dot.3", source="layer_1/file.py:3"),
    event("Memcpy", 2, 15, 10),
    event("the same once more", 3, 10, 30),
]


def test_kernels_are_those_of_a_devices_streams():
    found = traces.kernels(EVENTS)
    assert [kernel.name for kernel in found] == ["gemm_fusion_dot_3", "Memcpy", "loop_add_fusion"]
    assert traces.busy(found) == 25  # the copy overlaps by 5
    assert traces.kernels(EVENTS[:2] + EVENTS[6:7]) == []


def test_kernels_of_a_saved_profile(tmp_path: Path) -> None:
    folder = tmp_path / "plugins" / "profile" / "now"
    folder.mkdir(parents=True)
    with gzip.open(folder / "host.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": EVENTS}, file)
    assert len(traces.kernels_in(tmp_path, keep=tmp_path.parent / "kept.gz")) == 3
    assert (tmp_path.parent / "kept.gz").exists()
    assert not tmp_path.exists()


def test_a_profile_that_jax_takes_can_be_read():
    with traces.profiled() as folder:
        jax.block_until_ready(jnp.ones(8) + 1)
    assert list(folder.rglob("*.trace.json.gz"))
    assert (traces.kernels_in(folder) == []) == (jax.default_backend() == "cpu")


def test_operations_of_a_compiled_program_have_their_names():
    def program(x: jax.Array) -> jax.Array:
        with js.variable_scope("layer_0"), js.variable_scope("inner"):
            return jnp.tanh(x @ js.get_variable("w", [4, 4])) + 1

    net = js.transform(program)
    x = jnp.ones((2, 4))
    compiled = jax.jit(net.apply).lower(net.init(jax.random.key(0), x), x).compile()
    names = traces.op_names(compiled.as_text())
    assert any("layer_0/inner/tanh" in words for words in names.values())
    assert scopes.scopes_of(net.specs(x)) == {"layer_0", "inner"}
    assert traces.scope_in("jit(f)/transpose(jvp(layer_0))/inner/dot", {"layer_0"}) == "layer_0"
    assert traces.scope_in("jit(f)/layer_01/add", {"layer_0", "layer"}) == ""


def test_a_fusion_has_the_names_of_what_is_fused():
    text = """
%fused_computation (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %sin.1 = f32[2]{0} sine(%p), metadata={op_name="jit(f)/layer_0/sin" source_line=3}
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0), metadata={op_name="x"}
  ROOT %loop_fusion.2 = f32[2]{0} fusion(%x), kind=kLoop, calls=%fused_computation
}
"""
    assert traces.op_names(text)["loop_fusion.2"] == "jit(f)/layer_0/sin"


def test_shares_of_a_profile():
    kernels = traces.kernels(EVENTS)
    names = {"gemm_fusion_dot.3": "jit(f)/layer_1/dot", "loop_add_fusion": ""}
    found = scopes.shares(kernels, names, {"layer_1", "attention"})
    assert found["share_in_profile"] == pytest.approx(1 / 3)
    assert found["share_with_program"] == pytest.approx(2 / 3)
    assert found["nameless_by_time"] == {"Memcpy": pytest.approx(1 / 3)}
    assert scopes.shares([], names, set()) == {"device_us": None}


# The parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [1000, 8000])
def test_decoding_has_the_leaves_that_it_says(leaves: int) -> None:
    assert decode.size_of(leaves, small=False).leaves() == leaves
    assert decode.size_of(leaves, small=True).leaves() < 100


@pytest.mark.parametrize("library", [name for name in decode.LIBRARIES if name != decode.AGAIN])
def test_every_library_decodes_with_the_same_program(library: str) -> None:
    pytest.importorskip({"Flax NNX": "flax.nnx", "Equinox": "equinox"}.get(library, "jax"))
    size = decode.size_of(400, small=True)

    def text(library: str) -> str:
        abstract, apply = decode.LIBRARIES[library](size)
        cache, x = decode.inputs(size)
        assert [leaf.shape for leaf in jax.tree.leaves(abstract)] == size.all_shapes()

        def step(params: Any, x: jax.Array, cache: decode.Cache) -> Any:
            return apply(params, cache, x)

        return jax.jit(step, donate_argnums=2).lower(abstract, x, cache).as_text()

    assert text(library) == text(decode.BASE)


def test_ratios_are_of_single_rounds():
    row = decode.spread_of("step", [2e-6, 4e-6, 6e-6], [1e-6, 2e-6, 3e-6])
    assert row["step_us"][1] == pytest.approx(4)
    assert row["step_ratio"] == [2, 2, 2]


@pytest.mark.parametrize("form", model.FORMS)
def test_the_transformer_has_one_size_in_both_forms(form: str) -> None:
    size = model.SIZES["1B"]
    net = model.FORMS[form](size)
    tokens = jax.ShapeDtypeStruct((size.batch, size.time + 1), jnp.int32)
    tree = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros(tokens.shape, tokens.dtype)))
    count = sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert count == 983_652_096
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(jnp.bfloat16)}


def test_a_device_that_says_nothing_of_its_memory():
    class Silent:
        def memory_stats(self) -> None:
            return None

    class Talking:
        def memory_stats(self) -> dict[str, int]:
            return {"bytes_in_use": 1, "peak_bytes_in_use": 2}

    assert cold.in_use(Silent()) is None
    assert (cold.in_use(Talking()), cold.in_use(Talking(), peak=True)) == (1, 2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_ulps_count_the_numbers_between(dtype: Any) -> None:
    one = np.asarray(jnp.asarray([1, -1, 0, 1, -0.0], dtype))
    step = float(jnp.finfo(dtype).eps)
    tiny = float(jnp.finfo(dtype).smallest_subnormal)
    other = np.asarray([1 + 2 * step, -1 - step, tiny, 1, 0], one.dtype)
    assert values.ulps(one, other).tolist() == [2, 1, 1, 0, 1]
    assert values.ulps(np.asarray([3, -1], np.int32), np.asarray([5, 1], np.int32)).tolist() == [2, 2]


def test_what_differs_is_told_by_name_and_size(tmp_path: Path) -> None:
    found = Found(tmp_path / "found.json")
    one = np.asarray([1, 2], np.float32)
    values.compare(found, "zeros_initializer/matrix", "float32", "GPU to CPU", one, one + np.float32([0, 2**-22]))
    row = json.loads(found.file.read_text())["rows"][0]
    assert (row["initializer"], row["promised"], row["differ"], row["size"], row["ulps"]) == (
        "zeros_initializer",
        True,
        1,
        2,
        1,
    )


def test_every_initializer_is_compared():
    assert list(values.initializers()) == js.initializers.__all__
    specs = js.transform(values.program(False, jnp.float32, "kernel")).specs()
    assert len(specs) == len(js.initializers.__all__) - 1


def test_outcomes_of_tests_are_read_with_and_without_workers():
    lines = [
        "tests/test_x.py::test_a[scan3-jit] PASSED    [ 50%]\n",
        "[gw1] [ 75%] FAILED tests/test_x.py::test_b[cond-jit] \n",
        "tests/test_x.py::test_c[cond-jit] \n",
        "FAILED tests/test_x.py::test_b[cond-jit] - AssertionError\n",
    ]
    assert list(sample.outcomes(lines)) == [("test_a[scan3-jit]", "PASSED"), ("test_b[cond-jit]", "FAILED")]


# The page -----------------------------------------------------------------------------------------------------------


def canned(small: bool = False, platform: str = "gpu") -> dict[str, Any]:
    """A result as a run on a GPU would write it, with numbers of no meaning."""
    spread = {"step_us": [1.0, 2.0, 3.0], "step_ratio": [0.9, 1.0, 1.1]}
    spread |= {"return_us": [1.0, 2.0, 3.0], "return_ratio": [1.0, 1.0, 1.0]}
    step = {"case": "step", "leaves": 1000, "device_us": 1234.5, "same_program": True, **spread}
    decoded = [step | {"library": name} for name in ("tuple", "tuple, again", "jscope")]
    decoded += [{"case": "step", "leaves": 1000, "library": "Equinox", "error": "ImportError('equinox')"}]
    decoded += [{"case": "handing over", "leaves": 1000, "library": "jscope", **spread}]
    started = {"case": "cold", "size": "1B", "form": "stacked", "seconds": {"specs": 0.5, "all": 9.0}}
    memory = {"parameters": 1000, "leaves": 10, "bytes": 2 << 20, "peak": 3 << 20, "peak_ratio": 1.5}
    equal = {"initializer": "zeros_initializer", "shape": "matrix", "dtype": "float32", "pair": "GPU to CPU"}
    equal |= {"promised": True, "size": 4, "differ": 0, "ulps": 0, "largest": 0.0}
    other = equal | {"initializer": "orthogonal_initializer", "promised": False, "differ": 3, "ulps": 17}
    profile = {"graphs": True, "instructions": 9, "instructions_named": 8, "kernels": 7.0, "device_us": 5.0}
    profile |= {"share_in_profile": 0.5, "share_with_program": 0.9}
    profile |= {"scopes_by_time": {"layer_00": 0.9}, "nameless_by_time": {"Memset": 0.1}}
    tests = [{"test": "test_a", "outcome": "PASSED"}, {"test": "test_b", "outcome": "FAILED"}]
    rows = {"decode": decoded, "cold": [started | memory, started], "values": [equal, other], "scopes": [profile]}
    facts = {"platform": platform, "tests": 62}
    jobs = [
        {"part": part, "what": [], "state": "done", "facts": facts, "rows": own}
        for part, own in (rows | {"sample": tests}).items()
    ]
    run = device.facts(small, 480, "0123456789abcdef") | {"card": "H100", "driver": "580", "memory": "80 GB"}
    return {"run": run, "seconds": 400.0, "jobs": jobs}


def test_the_page_of_a_run():
    text = device.page_of(canned())
    for part in device.PARTS.values():
        assert f"## {part.title}" in text
    assert "H100, driver 580, 80 GB" in text
    assert "commit `0123456789ab`" in text
    assert "Goal of 1.05 with 1,000 leaves: **met**, 1.00 (the tuple against itself: 1.00 (0.90 to 1.10))." in text
    assert "Goal of 1.1 for the peak at `init`: **missed**, 1.50" in text
    assert "| orthogonal_initializer | float32 | matrix |  | 3 of 4 | 17 |" in text
    assert "What is promised: **kept**." in text
    assert "2 of 62 tests ran: 1 passed, 1 failed." in text
    assert "* failed: `test_b`" in text
    assert "Every part has run on this one card." in text
    heads = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(heads) > 12
    for above, below in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if above.startswith("|") and below.startswith("|"):
            assert above.count("|") == below.count("|"), (above, below)


@pytest.mark.parametrize("result", [{}, canned(small=True), canned(platform="cpu")], ids=["none", "small", "CPU"])
def test_the_page_says_what_is_not_proven(result: dict[str, Any]) -> None:
    text = device.page_of(result)
    assert all(f"* {part.shows}" in text for part in device.PARTS.values())


def test_a_part_that_was_late_is_named_and_not_proven():
    result = canned()
    result["jobs"][1] |= {"state": "ended, as it was late", "what": ["1B"], "rows": []}
    text = device.page_of(result)
    assert "`cold 1B`: ended, as it was late." in text
    assert f"* {device.PARTS['cold'].shows}" in text
    assert f"* {device.PARTS['decode'].shows}" not in text


def test_tables_go_between_the_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "gpu.md"
    figures.write_text(json.dumps(canned()))
    page.write_text(f"# Title\n\n{device.BEGIN}\nold\n{device.END}\n\nafter\n")
    for _ in range(2):
        device.main(["--from", str(figures), "--page", str(page)])
        text = page.read_text()
        assert text.startswith(f"# Title\n\n{device.BEGIN}\n\nH100")
        assert text.endswith(f"{device.END}\n\nafter\n")
        assert "old" not in text
    assert "H100" in capsys.readouterr().out
    page.write_text("# No marks\n")
    with pytest.raises(SystemExit, match="has no lines"):
        device.main(["--from", str(figures), "--page", str(page)])


def test_the_documentation_has_the_marks_and_the_command():
    text = (SCRIPT.parents[2] / "docs" / "gpu.md").read_text()
    assert text.count(device.BEGIN) == text.count(device.END) == 1
    assert "python tests/benchmarks/device.py --json" in text


# All of it ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_small_run_goes_through_every_part(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--small", "--budget", "400", "--json", str(figures)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [*command, "--page", str(tmp_path / "page.md")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(figures.read_text())
    assert [job["state"] for job in result["jobs"]] == ["done"] * len(result["jobs"]), done.stdout
    assert {job["part"] for job in result["jobs"]} == set(device.PARTS)
    steps = [row for row in device.rows_of(result, "decode") if row["case"] == "step"]
    assert {row["library"] for row in steps} == set(decode.LIBRARIES)
    assert all(row.get("error") or (row["same_program"] and row["same_numbers"]) for row in steps)
    assert {row["form"] for row in device.rows_of(result, "cold")} == set(model.FORMS)
    assert not [row for row in device.rows_of(result, "values") if row["differ"]]
    assert {row["outcome"] for row in device.rows_of(result, "sample")} == {"PASSED"}
    assert device.BEGIN in (tmp_path / "page.md").read_text()
