"""A language model over bytes, on a mesh of devices: one, eight, or two processes with four each; killed and resumed.

The program names the axes of its variables, rules say where these lie on the mesh, and each device makes and keeps its
own part. The layers are one stacked tree (`js.lift(stack=)`) under `jax.lax.scan` and `jax.checkpoint`; the embedding
is also the last layer. It learns the language reference that Python ships for its `help()`.

On any mesh the losses are those of one device, but for rounding; so are those of a run that was killed and goes on on
another mesh. Orbax saves in the background, each process what it holds. The run prints a table of what each device
holds, and draws it (`sharded_lm.png`).

    pip install "jax-scope[examples]"
    python sharded_lm.py --mesh 4,2 --steps 200 --out out/lm
    python sharded_lm.py --mesh 2,2,2 --steps 300 --out out/lm --resume
    python sharded_lm.py --mesh 4,2 --processes 2 --explicit --out out/two
    python sharded_lm.py --mesh 1

Where there is no accelerator, the CPU plays as many devices as the mesh has.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding

import jscope as js

try:
    import optax
    import orbax.checkpoint as ocp
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from rich.progress import track
except ModuleNotFoundError as error:
    raise SystemExit(f'this example needs {error.name}: pip install "jax-scope[examples]"') from None

BYTES = 256
HELD_OUT = 0.1  # the last part of the text
AXES = {1: ("data",), 2: ("data", "model"), 3: ("data", "shard", "model")}  # of the mesh, by how many sizes are given


@dataclasses.dataclass(frozen=True)
class Config:
    layers: int = 4
    width: int = 64
    heads: int = 8
    length: int = 64
    batch: int = 16


# Where things lie -----------------------------------------------------------------------------------------------------


def rules(mesh: Any) -> dict[str, Any]:
    """Which axis of the mesh each axis of the program is cut along.

    Rows of the batch go over all axes but `model`. So does the width of each variable, over one of them, to save
    memory; heads, hidden units and bytes go over `model`.
    """
    names = mesh.axis_names
    model = "model" if "model" in names else None
    return {
        "batch": tuple(name for name in names if name != "model"),
        "width": "shard" if "shard" in names else "data",
        "heads": model,
        "hidden": model,
        "bytes": model,
        "layers": None,
    }


def placed(x: jax.Array, *axes: str | None, by: Callable[[Any], Any] | None = None) -> jax.Array:
    """`x`, cut along these axes of the program where it runs on a mesh.

    On a mesh of explicit axes that is a part of its type. Some operations, whose result could lie in several ways, have
    to be told when they run: these are given as `by`, a function of the sharding.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x if by is None else by(None)
    to = rules(mesh)
    spec = jax.P(*(to[axis] if axis else None for axis in axes))
    if AxisType.Explicit in mesh.axis_types:
        return jax.sharding.reshard(x, spec) if by is None else by(spec)
    return jax.lax.with_sharding_constraint(x if by is None else by(None), spec)


# The model ------------------------------------------------------------------------------------------------------------


def weight(name: str, shape: list[int], *axes: str | None, initializer: Any = None) -> jax.Array:
    """A variable that lies cut along all its axes, put together along the width for the moment of its use."""
    initializer = initializer or js.random_normal_initializer(stddev=0.05)
    value = js.get_variable(name, shape, initializer=initializer, partitioner=jax.P(*axes))
    return placed(value, *(None if axis == "width" else axis for axis in axes))


def product(equation: str, x: jax.Array, y: jax.Array, *axes: str | None) -> jax.Array:
    """`jnp.einsum`, whose result is cut along these axes."""
    return placed(x, *axes, by=lambda spec: jnp.einsum(equation, x, y, out_sharding=spec))


def norm(name: str, x: jax.Array) -> jax.Array:
    scale = weight(name, [x.shape[-1]], "width", initializer=js.ones_initializer())
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def attention(x: jax.Array, heads: int) -> jax.Array:
    """Each byte sees itself and what is before it."""
    _, length, width = x.shape
    size = width // heads

    def projected(name: str) -> jax.Array:
        kernel = weight(name, [width, heads, size], "width", "heads", None)
        return product("blw,whs->blhs", x, kernel, "batch", None, "heads", None)

    query, key, value = (projected(name) for name in ("query", "key", "value"))
    scores = jnp.einsum("bqhs,bkhs->bhqk", query, key) / math.sqrt(size)
    scores = jnp.where(jnp.tri(length, dtype=bool), scores, -jnp.inf)
    mixed = jnp.einsum("bhqk,bkhs->bqhs", jax.nn.softmax(scores), value)
    kernel = weight("output", [heads, size, width], "heads", None, "width")
    return product("bqhs,hsw->bqw", mixed, kernel, "batch", None, None)


def feed_forward(x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    up = weight("up", [width, 4 * width], "width", "hidden")
    hidden = jax.nn.gelu(product("blw,wh->blh", x, up, "batch", None, "hidden"))
    return product("blh,hw->blw", hidden, weight("down", [4 * width, width], "hidden", "width"), "batch", None, None)


def layer(x: jax.Array, heads: int) -> jax.Array:
    with js.variable_scope("attention"):
        x = x + attention(norm("norm", x), heads)
    with js.variable_scope("feed_forward"):
        return x + feed_forward(norm("norm", x))


one_layer = js.transform(layer)


def loss(text: jax.Array, config: Config) -> jax.Array:
    """The mean cross-entropy of each byte but the first, in nats. `text` is integers, [batch, length + 1]."""
    table = weight("embedding", [BYTES, config.width], "bytes", "width")

    def embedded(rows: jax.Array) -> jax.Array:
        axes = ("batch", None, None)
        return placed(table, *axes, by=lambda spec: table.at[rows].get(out_sharding=spec))

    x = embedded(text[:, :-1]) + weight("position", [config.length, config.width], None, "width")
    with js.variable_scope("layers"):
        layers = js.lift(one_layer, x, config.heads, stack=config.layers)
    # Of each layer only what goes in is kept for the gradient; the rest is computed again. In a scan JAX need not keep
    # XLA from merging the two computations (`prevent_cse`): they stand in two loops.
    run = jax.checkpoint(functools.partial(one_layer.apply, heads=config.heads), prevent_cse=False)
    x, _ = jax.lax.scan(lambda x, variables: (run(variables, x), None), x, layers)
    x = norm("norm", x)
    scores = product("blw,vw->blv", x, table, "batch", None, "bytes")
    # The scores stay cut along the bytes: that of the right one is computed once more, rather than looked up in them.
    right = jnp.sum(x * embedded(text[:, 1:]), axis=-1)
    return jnp.mean(jax.nn.logsumexp(scores, axis=-1) - right)


# Training -------------------------------------------------------------------------------------------------------------


class State(NamedTuple):
    params: js.Params
    optimizer: optax.OptState


optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))


class Model:
    """The program on a mesh: what it declares, where that lies, and its steps, compiled."""

    def __init__(self, config: Config, mesh: jax.sharding.Mesh) -> None:
        self.config = config
        self.mesh = mesh
        self.net = js.transform(loss, rules=rules(mesh))
        self.rows = NamedSharding(mesh, jax.P(rules(mesh)["batch"]))
        self.everywhere = NamedSharding(mesh, jax.P())
        text = jax.ShapeDtypeStruct((config.batch, config.length + 1), jnp.int32, sharding=self.rows)
        with jax.set_mesh(mesh):
            self.specs = self.net.specs(text, config)
        self.shardings = self.specs.shardings(mesh, rules(mesh))
        # What the optimizer keeps of a variable lies as the variable does.
        shapes = jax.eval_shape(optimizer.init, self.specs.abstract())
        self.places = State(
            self.shardings,
            optax.tree_utils.tree_map_params(
                optimizer,
                lambda _, sharding: sharding,
                shapes,
                self.shardings,
                transform_non_params=lambda _: self.everywhere,
            ),
        )
        self.abstract = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            State(self.specs.abstract(), shapes),
            self.places,
        )
        self._step = jax.jit(self._update, out_shardings=(self.places, self.everywhere), donate_argnums=0)
        self._loss = jax.jit(lambda params, text: self.net.apply(params, text, config), out_shardings=self.everywhere)

    def init(self, seed: int) -> State:
        with jax.set_mesh(self.mesh):
            params = self.specs.init(jax.random.key(seed), out_shardings=self.shardings)
            return State(params, jax.jit(optimizer.init, out_shardings=self.places.optimizer)(params))

    def _update(self, state: State, text: jax.Array) -> tuple[State, jax.Array]:
        value, gradients = jax.value_and_grad(self.net.apply)(state.params, text, self.config)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        return State(optax.apply_updates(state.params, updates), optimizer_state), value

    def step(self, state: State, rows: np.ndarray) -> tuple[State, float]:
        with jax.set_mesh(self.mesh):
            state, value = self._step(state, self.spread(rows))
        return state, float(value)

    def loss(self, params: js.Params, rows: np.ndarray) -> float:
        with jax.set_mesh(self.mesh):
            return float(self._loss(params, self.spread(rows)))

    def spread(self, rows: np.ndarray) -> jax.Array:
        """Every process has all rows, and puts on its own devices what these are to see."""
        return jax.make_array_from_callback(rows.shape, self.rows, lambda index: rows[index])


class Text(NamedTuple):
    train: np.ndarray
    held_out: np.ndarray

    @classmethod
    def read(cls) -> Text:
        text = "\n\n".join(topics[name] for name in sorted(topics)).encode()
        numbers = np.frombuffer(text, np.uint8).astype(np.int32)
        return cls(*np.split(numbers, [round(len(numbers) * (1 - HELD_OUT))]))


def draw(text: np.ndarray, config: Config, *seed: int) -> np.ndarray:
    """Rows of a step. They depend on its number alone, so a run that is resumed sees what it would have seen."""
    starts = np.random.default_rng(seed).integers(len(text) - config.length, size=config.batch)
    return text[starts[:, None] + np.arange(config.length + 1)]


class Saved:
    """The checkpoints of a run: of its state every process writes what it holds, in the background."""

    def __init__(self, folder: Path) -> None:
        self._manager = ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2))

    def __enter__(self) -> Saved:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()  # waits for what is being written

    @property
    def latest(self) -> int | None:
        """After which step the last one was made that is whole."""
        return self._manager.latest_step()

    def save(self, done: int, state: State, losses: list[float]) -> None:
        parts = ocp.args.Composite(state=ocp.args.StandardSave(state), done=ocp.args.JsonSave({"losses": losses}))
        self._manager.save(done, args=parts)

    def restore(self, done: int, abstract: State) -> tuple[State, list[float]]:
        """Onto the devices that `abstract` names, whatever mesh it was saved from."""
        parts = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), done=ocp.args.JsonRestore())
        restored = self._manager.restore(done, args=parts)
        return restored["state"], restored["done"]["losses"]


def train(
    model: Model, text: np.ndarray, saved: Saved, steps: int, every: int, seed: int, *, resume: bool = False
) -> tuple[State, list[float]]:
    """All steps that are not done yet; the losses are those of all steps."""
    if resume and saved.latest is not None:
        state, losses = saved.restore(saved.latest, model.abstract)
        say(f"Going on after step {len(losses)}.")
    else:
        state, losses = model.init(seed), []
    numbers = range(len(losses), steps)
    for number in track(numbers, description="Training", disable=jax.process_index() != 0):
        state, value = model.step(state, draw(text, model.config, seed, number))
        losses.append(value)
        if (number + 1) % every == 0 or number + 1 == steps:
            saved.save(number + 1, state, losses)
            say(f"Step {number + 1}: loss {value:.4f}; being saved.")
    return state, losses


def say(text: str) -> None:
    """Prints in one of the processes."""
    if jax.process_index() == 0:
        print(text, flush=True)


# The picture ----------------------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A part of a variable: what it spans of the two dimensions that are drawn, as shares, and who holds it."""

    rows: tuple[float, float]
    columns: tuple[float, float]
    devices: tuple[int, ...]


def pieces(shape: tuple[int, ...], sharding: NamedSharding) -> tuple[list[int], list[Piece]]:
    """(the dimensions that are drawn, the parts). Drawn are two at most: those that are cut, else the longest."""
    part = sharding.shard_shape(shape)
    by_need = sorted(range(len(shape)), key=lambda i: (part[i] == shape[i], -shape[i]))
    drawn = sorted(by_need[:2])
    holders: dict[tuple[tuple[float, float], ...], list[int]] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        spans = [(0.0, 1.0)] * (2 - len(drawn))  # a vector is drawn as one row
        for dimension in drawn:
            start, stop, _ = index[dimension].indices(shape[dimension])
            spans.append((start / shape[dimension], stop / shape[dimension]))
        holders.setdefault(tuple(spans), []).append(device.id)
    return drawn, [Piece(*spans, tuple(sorted(ids))) for spans, ids in holders.items()]


def picture(model: Model, path: Path) -> None:
    """A square for each variable, in the colours of the devices that hold its parts, and what each device holds."""
    order = [device.id for device in model.mesh.devices.flat]
    colours = {id_: f"C{place % 10}" for place, id_ in enumerate(order)}
    columns = 6
    lines = -(-len(model.specs) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.6 * lines + 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(lines + 1, columns)
    for place, (name, spec) in enumerate(model.specs.items()):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        drawn, parts = pieces(spec.shape, model.shardings[name])
        for piece in parts:
            top, left = piece.rows[0], piece.columns[0]
            height, width = piece.rows[1] - top, piece.columns[1] - left
            for number, id_ in enumerate(piece.devices):  # a stripe for each that holds a copy
                stripe = width / len(piece.devices)
                axes.add_patch(
                    Rectangle((left + number * stripe, top), stripe, height, color=colours[id_], linewidth=0)
                )
            axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="white", linewidth=1.5))
            label = ",".join(map(str, piece.devices)) if len(piece.devices) < len(order) else "all"
            axes.text(left + width / 2, top + height / 2, label, ha="center", va="center", color="white", fontsize=7)
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
        axes.set_title(f"{name}\n{list(spec.shape)}", fontsize=8)
        partition = tuple(spec.partition or ())
        labels = [partition[i] if i < len(partition) else None for i in drawn]
        axes.set_xlabel(labels.pop() or "", fontsize=7)
        axes.set_ylabel((labels.pop() if labels else None) or "", fontsize=7)
    axes = figure.add_subplot(grid[lines, :])
    held = bytes_on_each(model)
    axes.bar([str(id_) for id_ in order], [held[id_] / 1e3 for id_ in order], color=[colours[id_] for id_ in order])
    alone = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(model.abstract)) / 1e3
    axes.axhline(alone, color="black", linewidth=1, linestyle="--")
    axes.text(-0.4, alone, "one device alone", va="bottom", fontsize=8)
    axes.set(xlabel="device", ylabel="kB", ylim=(0, 1.15 * alone))
    axes.set_title("Parameters and the optimizer's state", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    sizes = " x ".join(f"{name} {size}" for name, size in model.mesh.shape.items())
    figure.suptitle(f"Which device holds what: {sizes}")
    figure.savefig(path, dpi=110)


def bytes_on_each(model: Model) -> dict[int, int]:
    """Of parameters and optimizer, by the number of the device, in all processes."""
    held = {device.id: 0 for device in model.mesh.devices.flat}
    for leaf in jax.tree.leaves(model.abstract):
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for device in leaf.sharding.device_set:
            held[device.id] += size
    return held


# The command ----------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def whole_number(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return convert


def mesh_sizes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) not in AXES or not all(part.isdecimal() and 1 <= int(part) <= 4096 for part in parts):
        raise argparse.ArgumentTypeError(f"must be one to three sizes, as in 4,2, not {text!r}")
    return tuple(map(int, parts))


def make_mesh(sizes: tuple[int, ...], explicit: bool) -> jax.sharding.Mesh:
    kind = AxisType.Explicit if explicit else AxisType.Auto
    devices = jax.devices()[: math.prod(sizes)]
    return jax.make_mesh(sizes, AXES[len(sizes)], axis_types=(kind,) * len(sizes), devices=devices)


def in_processes(count: int, arguments: list[str]) -> None:
    """Runs this file in several processes on this machine. If one of them fails, so do all."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, *arguments, "--port", str(port), "--process"]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    children = [subprocess.Popen([*command, str(number)], env=env) for number in range(count)]
    try:
        while any(child.poll() is None for child in children) and not any(child.poll() for child in children):
            time.sleep(0.1)
    finally:
        for child in children:
            child.kill()
        codes = [child.wait() for child in children]
    if any(codes):
        raise SystemExit("The processes ended with " + ", ".join(map(str, codes)) + ".")


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description="Train a language model over bytes on a mesh of devices.")
    parser.add_argument("--mesh", type=mesh_sizes, default=(4, 2), help="sizes of its axes: data; data,model; ...")
    parser.add_argument("--explicit", action="store_true", help="make the axes of the mesh a part of types")
    parser.add_argument("--processes", type=whole_number(1, 64), default=1, help="on this machine's CPU")
    parser.add_argument("--steps", type=whole_number(1), default=200, help="training steps in all")
    parser.add_argument("--save-every", type=whole_number(1), default=50, metavar="STEPS", help="between checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on after the last checkpoint in --out")
    parser.add_argument("--layers", type=whole_number(1, 10_000), default=Config.layers, help="equal layers")
    parser.add_argument("--batch", type=whole_number(1), default=Config.batch, help="rows of text in a step")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of everything random")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what is written")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)  # which of several this one is
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)  # by which they find each other
    options = parser.parse_args(arguments)
    size = math.prod(options.mesh)
    if size % options.processes:
        parser.error(f"argument --processes: {size} devices can't be shared out to {options.processes} equally")
    rows = size // (options.mesh[-1] if len(options.mesh) > 1 else 1)
    if options.batch % rows:
        parser.error(f"argument --batch: {options.batch} rows can't be cut into {rows} equal parts")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        # A folder that can't be written to is found out now, not after training.
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        parser.error(f"argument --out: {error}")
    folder = options.out / "checkpoints"
    if options.process is None and not options.resume and folder.exists():
        parser.error(f"argument --out: {folder} holds another run; go on with it by --resume, or name another folder")
    if options.process is None and options.processes > 1:
        return in_processes(options.processes, sys.argv[1:] if arguments is None else arguments)

    jax.config.update("jax_num_cpu_devices", size // options.processes)
    if options.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{options.port}", options.processes, options.process)
    if jax.device_count() < size:
        parser.error(
            f"argument --mesh: it has {size} devices, and there are {jax.device_count()} of the kind "
            f"{jax.default_backend()}; with JAX_PLATFORMS=cpu the CPU plays as many as are asked for"
        )
    try:
        model = Model(Config(layers=options.layers, batch=options.batch), make_mesh(options.mesh, options.explicit))
    except js.BadArgumentError as error:  # sizes that the mesh can't cut: all of them, by the names of the variables
        raise SystemExit(str(error)) from None
    say(model.specs.table(model.shardings))
    text = Text.read()
    with Saved(folder) as saved:
        state, losses = train(
            model, text.train, saved, options.steps, options.save_every, options.seed, resume=options.resume
        )
    if jax.process_index() == 0:
        picture(model, options.out / "sharded_lm.png")
    held_out = model.loss(state.params, draw(text.held_out, model.config, 0))
    say(f"Loss: {losses[0]:.4f} in the first step, {losses[-1]:.6f} in the last; {held_out:.4f} on held-out text.")
    say(f"Written to {options.out}: checkpoints, sharded_lm.png.")
    if options.processes > 1:
        jax.distributed.shutdown()


if __name__ == "__main__":
    main()
