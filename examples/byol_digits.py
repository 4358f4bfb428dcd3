"""Learning to see digits without labels (BYOL): an online network that learns, and a target that follows it by EMA.

Two views are made of each of scikit-learn's real 8x8 images. A predictor on top of the online network guesses what the
target network sees in the other view (Grill et al., 2020). Nothing trains the target: its scope is frozen, and after
each step it becomes a moving average of the online scope. How much was learnt is told by the labels of three images of
each digit. It takes some seconds on a CPU, and writes all that it needs to go on (`byol.safetensors`) and a picture
(`byol.png`). Killed and started again, it goes on from what was written last, and ends with the same loss to the bit.

    pip install "jax-scope[examples]"
    python byol_digits.py --steps 1500 --batch 128 --seed 0 --out out
"""

from __future__ import annotations

import argparse
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
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
except ModuleNotFoundError as error:
    raise SystemExit(f'this example needs {error.name}: pip install "jax-scope[examples]"') from None

DECAY = 0.99
SHOWN, DRAWS = 3, 5
SAVE_EVERY = 500


def encoder(images: jax.Array) -> jax.Array:
    """What is learnt: [batch, 64] to [batch, 128]."""
    x = layers.dense(images, 256, jax.nn.relu, name="hidden")
    return layers.dense(x, 128, jax.nn.relu, name="features")


def head(x: jax.Array) -> jax.Array:
    """Standardised over the batch in between: without that, all images would soon look alike to the network."""
    x = layers.dense(x, 128, name="hidden")
    x = jax.nn.relu(jax.nn.standardize(x, axis=0))
    return layers.dense(x, 64, name="out")


def network(images: jax.Array) -> jax.Array:
    x = encoder(images)
    with js.variable_scope("projection"):
        return head(x)


def byol_loss(one: jax.Array, other: jax.Array) -> jax.Array:
    """How far the guesses are from what the target sees: 0 for the same direction, 4 for the opposite one."""
    views, swapped = jnp.concatenate([one, other]), jnp.concatenate([other, one])
    with js.variable_scope("online"):
        seen = network(views)
    with js.variable_scope("predictor"):
        guess = head(seen)
    with js.variable_scope("target", trainable=False):
        goal = network(swapped)
    return 2 - 2 * jnp.mean(optax.losses.cosine_similarity(guess, goal, epsilon=1e-6))


def features(images: jax.Array) -> jax.Array:
    """The online encoder alone: a second program over the same tree."""
    with js.variable_scope("online"):
        return encoder(images)


net = js.transform(byol_loss)
see = jax.jit(js.transform(features).apply)
SPECS = net.specs(*2 * [jax.ShapeDtypeStruct((1, 64), jnp.float32)])
optimizer = optax.adamw(2e-3, weight_decay=1e-4)


class State(NamedTuple):
    """All that a step needs: saved whole, training goes on as if nothing had happened."""

    step: jax.Array
    params: js.Params
    optimizer: optax.OptState


def start(seed: int) -> State:
    params = SPECS.init(jax.random.key(seed))
    params = params.replace_scope("target", params["online"])  # it starts where the online network starts
    return State(jnp.int32(0), params, optimizer.init(SPECS.split(params)[0]))


def view(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each image turned, stretched and moved a little, in another strength of ink, with noise."""
    grid = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(8.0)], indexing="ij")).reshape(2, 64) - 3.5

    def of_one(key: jax.Array, image: jax.Array) -> jax.Array:
        turn, move, ink, noise = jax.random.split(key, 4)
        stretched = (jnp.eye(2) + 0.2 * jax.random.normal(turn, (2, 2))) @ grid
        places = stretched + 3.5 + 0.7 * jax.random.normal(move, (2, 1))
        moved = jax.scipy.ndimage.map_coordinates(image.reshape(8, 8), list(places), order=1)
        return jax.random.uniform(ink, minval=0.7, maxval=1.3) * moved + 0.1 * jax.random.normal(noise, (64,))

    return jax.vmap(of_one)(jax.random.split(key, len(images)), images)


@jax.jit
def train_step(state: State, images: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
    views = [view(each, images) for each in jax.random.split(jax.random.fold_in(key, state.step))]
    trained, rest = SPECS.split(state.params)
    loss, gradients = jax.value_and_grad(lambda trained: net.apply(trained | rest, *views))(trained)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, trained)
    params = optax.apply_updates(trained, updates) | rest

    def average(_: str, target: jax.Array, online: jax.Array) -> jax.Array:
        return DECAY * target + (1 - DECAY) * online

    # Trees of other names are refused here, and other shapes there: the wrong network can't be averaged in silence.
    target = params["target"].map_with_name(average, params["online"])
    return State(state.step + 1, params.replace_scope("target", target), optimizer_state), loss


def resume(path: Path, state: State, run: dict[str, str]) -> tuple[State, np.ndarray]:
    """The state that was saved last and the losses up to it, or the one given and none."""
    if not path.exists():
        return state, np.zeros(0, np.float32)
    saved = checkpoint.open(path)
    if saved.metadata != run:
        raise SystemExit(f"{path} is of another run, {saved.metadata}, not {run}: give another --out")
    loaded, _ = checkpoint.load_state(path, {"state": state, "losses": saved["losses"]})
    return loaded["state"], loaded["losses"]


def train(images: np.ndarray, path: Path, steps: int, batch: int, seed: int) -> tuple[State, np.ndarray]:
    key, run = jax.random.key(seed), {"batch": str(batch), "seed": str(seed)}
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


def accuracy(points: np.ndarray, labels: np.ndarray, held_out: np.ndarray, asked: np.ndarray) -> float:
    """The share of held-out images read rightly, by linear classifiers that saw `SHOWN` images of each digit."""
    mean, scale = points.mean(axis=0), points.std()
    points, held_out = (points - mean) / scale, (held_out - mean) / scale
    rng, scores = np.random.default_rng(0), []
    for _ in range(DRAWS):
        shown = np.concatenate([rng.choice(np.flatnonzero(labels == digit), SHOWN, False) for digit in range(10)])
        classifier = LogisticRegression(max_iter=2000).fit(points[shown], labels[shown])
        scores.append(classifier.score(held_out, asked))
    return float(np.mean(scores))


def plot(losses: np.ndarray, points: np.ndarray, labels: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    left.plot(np.arange(1, len(losses) + 1), losses, color="#1f4e8c", linewidth=1.2)
    left.set(title="Loss: the guess against the target's view", xlabel="step")
    left.spines[["top", "right"]].set_visible(False)
    flat = PCA(2).fit_transform(points)
    right.scatter(*flat.T, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=16, alpha=0.75, linewidths=0)
    box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": "0.4", "alpha": 0.85}
    for digit in range(10):
        x, y = np.median(flat[labels == digit], axis=0)
        right.text(x, y, str(digit), ha="center", va="center", fontsize=12, fontweight="bold", bbox=box)
    right.set_title(f"{len(points)} held-out images as learnt without labels, by PCA")
    right.set_axis_off()
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
    parser = Parser(description="Learn from scikit-learn's handwritten digits without their labels.")
    parser.add_argument("--steps", type=whole_number(1), default=1500, help="training steps")
    parser.add_argument("--batch", type=whole_number(1), default=128, help="images in a step")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of everything random")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what is written, and read to go on")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --out: {error}")

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    data, held_out, known, asked = train_test_split(images, labels, test_size=0.3, stratify=labels, random_state=0)
    print(SPECS)
    state, losses = train(data, options.out / "byol.safetensors", options.steps, options.batch, options.seed)
    learnt, untrained = (
        (np.asarray(see(params, data)), np.asarray(see(params, held_out)))
        for params in (state.params, start(options.seed).params)
    )
    plot(losses, learnt[1], asked, options.out / "byol.png")
    print(f"Loss of the last step: {losses[-1]:.6f}.")
    right, before, pixels = (accuracy(a, known, b, asked) for a, b in (learnt, untrained, (data, held_out)))
    print(f"Held-out digits read rightly, with the labels of {SHOWN} images of each: {right:.1%} by what was learnt")
    print(f"({before:.1%} by the network before training, {pixels:.1%} by the pixels).")
    print(f"Written to {options.out}: byol.png, byol.safetensors.")


if __name__ == "__main__":
    main()
