"""A checkpoint straight onto a mesh of two processes: each reads the rows of its own devices, counted in bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import processes
import pytest

from jscope import checkpoint
from jscope.checkpoint import Plan

COUNTS = Path("/proc/self/io")
if not COUNTS.exists():
    pytest.skip("the system does not count what a process reads", allow_module_level=True)

ROWS, COLUMNS, LAYERS = 512, 2048, 4
PLAN = (
    Plan()
    .transpose("{*module}.weight", but="table.weight")
    .split("layers.{i}.qkv.weight", ["layers.{i}.q", "layers.{i}.k"], axis=1)
    .stack("layers.{i}.{.name}", "layers.{.name}")
    .rename({"table.weight": "table", "head.weight": "head", "mlp.weight": "mlp"})
    .separator()
)
# What the program has: how it is cut, and how much of it each of two processes holds.
PARTS = {
    "table": (jax.P("all"), 0.5),  # its rows are the file's
    "head": (jax.P(None, "all"), 0.5),  # the file's rows are its columns
    "mlp": (jax.P("all"), 0.5),  # and its columns are its rows, in pieces of 2 KB
    "layers/q": (jax.P("all"), 0.5),  # whole layers, each in an array of its own
    "layers/k": (jax.P("half", None, "other"), 0.5),  # both
    "scale": (jax.P(), 1.0),  # a copy on each device
}
SLACK = 200_000  # bytes: headers, the index, and what the threads of JAX read meanwhile


def stored() -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(0)
    shapes = {
        "table.weight": (ROWS, COLUMNS),
        "head.weight": (ROWS, COLUMNS),
        "mlp.weight": (ROWS, COLUMNS),
        "scale": (ROWS * COLUMNS,),
    }
    shapes |= {f"layers.{i}.qkv.weight": (2 * ROWS, COLUMNS // 2) for i in range(LAYERS)}
    return {name: numbers.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder: Path, count: int) -> None:
    """In so many files and an index."""
    folder.mkdir()
    parts: list[dict[str, np.ndarray]] = [{f"small.{number}": np.zeros(1)} for number in range(count)]
    for row, (name, array) in enumerate(stored().items()):
        parts[row % count][name] = array
    where = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05}-of-{count:05}.safetensors"
        checkpoint.save(folder / file, part)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def bytes_read() -> int:
    """What this process has read from files and pipes, and from whatever else there is."""
    return int(COUNTS.read_text().split()[1])


def each_reads_its_own(folder: str, names: Sequence[str]) -> None:
    """In each of two processes with two devices."""
    file = stored()
    whole, _ = PLAN.load({name: np.zeros(spec.shape, spec.dtype) for name, spec in PLAN.leads_to(file).items()}, file)
    meshes = (jax.make_mesh((4,), ("all",)), jax.make_mesh((2, 2), ("half", "other")))
    for name in names:
        partition, share = PARTS[name]
        mesh = meshes["half" in partition]
        sharding = jax.sharding.NamedSharding(mesh, partition)
        target = {name: jax.ShapeDtypeStruct(whole[name].shape, np.float32, sharding=sharding)}
        if name == names[0]:
            PLAN.load(target, folder, allow_unused=True)  # what is imported when it is first needed is not counted
        begun = bytes_read()
        params, report = PLAN.load(target, folder, allow_unused=True)
        read = bytes_read() - begun
        assert share * whole[name].nbytes <= read <= share * whole[name].nbytes + SLACK, (name, read)
        assert report.loaded == (name,)
        for part in params[name].addressable_shards:
            np.testing.assert_array_equal(part.data, whole[name][part.index], err_msg=name)


def test_each_process_reads_only_the_rows_that_its_own_devices_hold(tmp_path):
    """Of a few files, which stay open, and of more than that."""
    code = "import test_checkpoint_processes as test"
    for count, names in {2: tuple(PARTS), 70: ("table", "mlp")}.items():
        write(tmp_path / str(count), count)
        code += f"\ntest.each_reads_its_own({str(tmp_path / str(count))!r}, {names})"
    processes.check(code, 2, 2)


COPIES = """
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import multihost_utils
import jscope as js
from jscope import checkpoint
mesh = jax.make_mesh((jax.device_count(),), ("all",))
copies, parts = (jax.sharding.NamedSharding(mesh, axes) for axes in (jax.P(), jax.P("all")))
rows = jax.jit(lambda: jnp.broadcast_to(jnp.asarray(2), (4,)), out_shardings=parts)()
scale = jax.device_put(0.5, copies)
assert scale.weak_type and rows.weak_type
if jax.process_index() == 0:
    checkpoint.save_state(PATH, {"scale": scale, "rows": jnp.broadcast_to(jnp.asarray(2), (4,)), "step": 7})
multihost_utils.sync_global_devices("saved")
loaded, _ = checkpoint.load_state(PATH, {"scale": scale, "rows": rows, "step": 0})
for name, sharding, value in (("scale", copies, 0.5), ("rows", parts, 2)):
    assert loaded[name].weak_type and loaded[name].sharding == sharding
    assert all((np.asarray(shard.data) == value).all() for shard in loaded[name].addressable_shards)
assert loaded["step"] == 7

def program():
    return js.get_variable("a", [4]), js.get_variable("b", [4]), js.get_variable("c", [4])

specs = js.transform(program).specs()
shardings = {"a": copies, "b": copies, "c": parts}
for target in specs, {name: jnp.ones(4) for name in "abc"}:
    source = {"a": jnp.ones(4)}
    params, _ = checkpoint.assign_from(target, source, allow_missing=True, key=jax.random.key(0), shardings=shardings)
    for name, sharding in shardings.items():
        assert params[name].sharding == sharding
        assert all(np.isfinite(shard.data).all() for shard in params[name].addressable_shards)
"""


def test_what_every_process_has_comes_to_all_of_them(tmp_path: Path) -> None:
    """Weak types, what is made anew, and arrays of JAX in the source and in the target."""
    code = COPIES.replace("PATH", repr(str(tmp_path / "s")))
    for devices in (1, 2):
        statuses, errors = processes.run(code, devices, processes=2)
        assert statuses == [0, 0], errors[0][-3000:] + errors[1][-3000:]
