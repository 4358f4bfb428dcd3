"""A generator and a critic that train against each other on handwritten digits: two programs, one tree, two optimizers.

The generator makes images out of noise, the critic tells them from the 1,797 real 8x8 images that scikit-learn ships.
Both live in one tree by their scopes, and each step trains one and leaves the other alone. It takes some seconds on a
CPU, and writes all that it needs to go on (`gan.safetensors`) and a picture (`gan.png`). Killed and started again, it
goes on from what was written last, and ends with the same loss to the bit.

    pip install "jax-scope[examples]"
    python gan_digits.py --steps 4000 --batch 128 --seed 0 --out out
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope import checkpoint, layers

try:
    import optax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from rich.progress import track
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier
except ModuleNotFoundError as error:
    raise SystemExit(f'this example needs {error.name}: pip install "jax-scope[examples]"') from None

NOISE = 16
SAVE_EVERY = 500

leaky_relu = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)


def generator(noise: jax.Array) -> jax.Array:
    """Images out of noise: [batch, 64], 0 for paper and 1 for ink."""
    with js.variable_scope("generator"):
        x = layers.dense(noise, 128, leaky_relu, name="hidden_1")
        x = layers.dense(x, 128, leaky_relu, name="hidden_2")
        return layers.dense(x, 64, jax.nn.sigmoid, name="image")


def critic(images: jax.Array) -> jax.Array:
    """How real the images look: [batch], positive for real."""
    with js.variable_scope("critic", reuse=js.AUTO_REUSE):
        x = layers.dense(images, 128, leaky_relu, name="hidden_1")
        x = layers.dense(x, 64, leaky_relu, name="hidden_2")
        return layers.dense(x, 1, name="judgement")[:, 0]


def critic_loss(images: jax.Array, noise: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.softplus(-critic(images)) + jax.nn.softplus(critic(generator(noise))))


def generator_loss(images: jax.Array, noise: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.softplus(-critic(generator(noise))))


# What each player owns. All four programs read one tree, because the names are the same.
generate = js.transform(generator)
GENERATOR = generate.specs(jax.ShapeDtypeStruct((1, NOISE), jnp.float32))
CRITIC = js.transform(critic).specs(jax.ShapeDtypeStruct((1, 64), jnp.float32))
optimizer = optax.adam(1e-3, b1=0.5)


class State(NamedTuple):
    """All that a step needs: saved whole, training goes on as if nothing had happened."""

    step: jax.Array
    params: js.Params
    generator: optax.OptState
    critic: optax.OptState


def start(seed: int) -> State:
    params = (GENERATOR | CRITIC).init(jax.random.key(seed))
    states = (optimizer.init(specs.select(params)[0]) for specs in (GENERATOR, CRITIC))
    return State(jnp.int32(0), params, *states)


def turn(
    specs: js.Specs, loss: Callable[..., jax.Array], params: js.Params, state: optax.OptState, *data: jax.Array
) -> tuple[js.Params, optax.OptState, jax.Array]:
    """One player's move: trains what `specs` declares, and hands on the other's variables as they are."""
    mine, others = specs.split(params, allow_unexpected=True)
    value, gradients = jax.value_and_grad(lambda mine: js.transform(loss).apply(mine | others, *data))(mine)
    updates, state = optimizer.update(gradients, state, mine)
    return optax.apply_updates(mine, updates) | others, state, value


@jax.jit
def train_step(state: State, images: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
    """Both players' moves on one batch, and their losses."""
    noise = jax.random.normal(jax.random.fold_in(key, state.step), (len(images), NOISE))
    params, critic_state, criticism = turn(CRITIC, critic_loss, state.params, state.critic, images, noise)
    params, generator_state, deceit = turn(GENERATOR, generator_loss, params, state.generator, images, noise)
    return State(state.step + 1, params, generator_state, critic_state), jnp.stack([criticism, deceit])


def resume(path: Path, state: State, run: dict[str, str]) -> tuple[State, np.ndarray]:
    """The state that was saved last and the losses up to it, or the one given and none."""
    if not path.exists():
        return state, np.zeros((0, 2), np.float32)
    saved = checkpoint.open(path)
    if saved.metadata != run:
        raise SystemExit(f"{path} is of another run, {saved.metadata}, not {run}: give another --out")
    loaded, _ = checkpoint.load_state(path, {"state": state, "losses": saved["losses"]})
    return loaded["state"], loaded["losses"]


def train(path: Path, steps: int, batch: int, seed: int) -> tuple[State, np.ndarray]:
    images, key, run = load_images(), jax.random.key(seed), {"batch": str(batch), "seed": str(seed)}
    state, losses = resume(path, start(seed), run)
    if len(losses):
        print(f"Going on after step {len(losses)} of {path}.")
    new: list[jax.Array] = []
    for step in track(range(len(losses), steps), description="Training"):
        # What a step draws depends on its number alone, so a run that goes on draws what it would have drawn.
        chosen = np.random.default_rng((seed, step)).integers(len(images), size=batch)
        state, loss = train_step(state, images[chosen], key)
        new.append(loss)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            losses, new = np.concatenate([losses, np.array(new)]), []
            # It takes the place of the older file at one stroke: whoever kills the program leaves one or the other.
            checkpoint.save_state(path, {"state": state, "losses": losses}, metadata=run)
    return state, losses


def load_images() -> np.ndarray:
    return (load_digits().data / 16).astype(np.float32)


def plot(losses: np.ndarray, drawn: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, *sheets = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    for column, (label, color) in zip(losses.T, (("critic", "#b4451f"), ("generator", "#1f4e8c")), strict=True):
        smooth = np.convolve(column, np.ones(25) / 25, "valid") if len(column) > 25 else column
        left.plot(np.arange(1, len(smooth) + 1), smooth, label=label, color=color, linewidth=1.2)
    left.set(title="Losses, over 25 steps", xlabel="step")
    left.legend(frameon=False)
    left.spines[["top", "right"]].set_visible(False)
    for sheet, images, title in zip(sheets, (load_images(), drawn), ("Real", "Generated"), strict=True):
        grid = np.pad(images[:100].reshape(10, 10, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
        sheet.imshow(grid.transpose(0, 2, 1, 3).reshape(100, 100), cmap="gray_r", vmin=0, vmax=1)
        sheet.set_title(title)
        sheet.set_axis_off()
    figure.savefig(path, dpi=130)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def whole_number(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return convert


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description="Train a generator and a critic on scikit-learn's handwritten digits.")
    parser.add_argument("--steps", type=whole_number(1), default=4000, help="training steps")
    parser.add_argument("--batch", type=whole_number(1), default=128, help="images in a step")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of everything random")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what is written, and read to go on")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --out: {error}")

    print(GENERATOR | CRITIC)
    state, losses = train(options.out / "gan.safetensors", options.steps, options.batch, options.seed)
    noise = jax.random.normal(jax.random.key(options.seed + 1), (1000, NOISE))
    drawn = np.asarray(jax.jit(generate.apply)(state.params, noise))
    plot(losses, drawn, options.out / "gan.png")
    read_as = KNeighborsClassifier(3).fit(load_images(), load_digits().target).predict(drawn)
    print(f"Losses of the last step: critic {losses[-1, 0]:.6f}, generator {losses[-1, 1]:.6f}.")
    print(f"Digits that 1,000 generated images look like: {len(set(read_as))} of 10.")
    print(f"Written to {options.out}: gan.png, gan.safetensors.")


if __name__ == "__main__":
    main()
