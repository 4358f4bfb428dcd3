"""A siamese network on handwritten digits: two towers, one set of parameters.

It learns from pairs of images which digits are the same, on the 1,797 real 8x8 images that scikit-learn ships, in a few
seconds on a CPU. It prints how well that works on images that it was not trained on, and writes the parameters
(`siamese.safetensors`) and a picture (`siamese.png`).

    pip install "jax-scope[examples]"
    python siamese_digits.py --steps 1000 --batch 256 --seed 0 --out out
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js

try:
    import optax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator
    from rich.progress import track
    from safetensors.flax import load_file, save_file
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA
    from sklearn.model_selection import train_test_split
except ModuleNotFoundError as error:
    raise SystemExit(f'this example needs {error.name}: pip install "jax-scope[examples]"') from None

MARGIN = 1.0
SUPPORT = 5


def l2(w: jax.Array) -> jax.Array:
    return 1e-3 * jnp.sum(w**2)


def dense(name: str, x: jax.Array, size: int) -> jax.Array:
    with js.variable_scope(name):
        kernel = js.get_variable("kernel", [x.shape[-1], size], initializer=js.he_normal_initializer())
        bias = js.get_variable("bias", [size], initializer=js.zeros_initializer(), regularizer=js.no_regularizer)
        return x @ kernel + bias


def tower(images: jax.Array) -> jax.Array:
    with js.variable_scope("tower", reuse=js.AUTO_REUSE, regularizer=l2):
        x = jax.nn.relu(dense("hidden_1", images, 128))
        x = jax.nn.relu(dense("hidden_2", x, 64))
        return dense("embedding", x, 16)


def contrastive_loss(a: jax.Array, b: jax.Array, same: jax.Array) -> jax.Array:
    """Pulls pairs of one digit together and pushes others apart, up to the margin (Hadsell et al., 2006)."""
    square = jnp.sum((tower(a) - tower(b)) ** 2, axis=-1)
    distance = jnp.sqrt(square + 1e-9)  # the square root alone has no gradient at 0
    pair_loss = jnp.where(same, square, jnp.maximum(MARGIN - distance, 0) ** 2)
    return jnp.mean(pair_loss) + js.get_regularization_loss()


# Two programs over one tree: what `net` trains, `embed` reads, because the names are the same.
net = js.transform(contrastive_loss)
embed = jax.jit(js.transform(tower).apply)
optimizer = optax.adam(2e-3)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def train_step(
    params: js.Params, state: optax.OptState, a: jax.Array, b: jax.Array, same: jax.Array
) -> tuple[js.Params, optax.OptState, jax.Array]:
    loss, gradients = jax.value_and_grad(net.apply)(params, a, b, same)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss


class Digits(NamedTuple):
    images: np.ndarray
    labels: np.ndarray


def load(seed: int) -> tuple[Digits, Digits]:
    """`(train, held out)`: seven images of ten for training, alike in both for every digit."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    split = train_test_split(images, labels, test_size=0.3, stratify=labels, random_state=seed)
    return Digits(split[0], split[2]), Digits(split[1], split[3])


def draw_pairs(rng: np.random.Generator, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(a, b, same)`: indices of `count` random pairs, half of them of one digit, never an image with itself."""
    by_digit, sizes = np.argsort(labels), np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    same = np.arange(count) < count // 2
    digit = rng.integers(10, size=count)
    other = np.where(same, digit, (digit + rng.integers(1, 10, size=count)) % 10)
    place = rng.integers(sizes[digit])
    other_place = np.where(same, place + rng.integers(1, sizes[digit]), rng.integers(sizes[other])) % sizes[other]
    return by_digit[starts[digit] + place], by_digit[starts[other] + other_place], same


def train(data: Digits, steps: int, batch: int, seed: int) -> tuple[js.Params, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = jnp.asarray(data.images)
    params = net.init(jax.random.key(seed), images[:1], images[:1], np.array([True]))
    state = optimizer.init(params)
    losses = []
    for _ in track(range(steps), description="Training"):
        a, b, same = draw_pairs(rng, data.labels, batch)
        params, state, loss = train_step(params, state, images[a], images[b], same)
        losses.append(loss)
    return params, np.array(losses)


def best_threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """The distance up to which calling a pair "the same" is right most often."""
    order = np.argsort(distance)
    best = np.argmax(np.cumsum(np.where(same[order], 1, -1)))
    # Any distance before the next pair's serves the training pairs as well; the middle is fairest to others.
    return float(distance[order][best : best + 2].mean())


def verification(data: Digits, held_out: Digits, seed: int) -> float:
    """The share of held-out pairs judged rightly, by the threshold that is best on training pairs."""
    rng = np.random.default_rng(seed)

    def distances(points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, same = draw_pairs(rng, labels, 10_000)
        return np.linalg.norm(points[a] - points[b], axis=-1), same

    threshold = best_threshold(*distances(*data))
    distance, same = distances(*held_out)
    return float(np.mean((distance <= threshold) == same))


def few_shot(points: np.ndarray, labels: np.ndarray) -> float:
    """The share of images nearest to the mean of their own digit's first `SUPPORT` images, these left out.

    The images were not trained on; the digits were, by other images of them.
    """
    shown = [np.flatnonzero(labels == digit)[:SUPPORT] for digit in range(10)]
    centres = np.stack([points[indices].mean(axis=0) for indices in shown])
    asked = np.setdiff1d(np.arange(len(labels)), np.concatenate(shown))
    distance = np.linalg.norm(points[asked, None] - centres, axis=-1)
    return float(np.mean(np.argmin(distance, axis=1) == labels[asked]))


def plot(losses: np.ndarray, points: np.ndarray, labels: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    left.plot(np.arange(1, len(losses) + 1), losses, color="#1f4e8c", linewidth=1.2)
    left.set(title="Training loss (contrastive, with penalty)", xlabel="step", yscale="log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_locator(NullLocator())
    left.grid(axis="y", alpha=0.25)
    left.spines[["top", "right"]].set_visible(False)
    flat = PCA(2).fit_transform(points)
    right.scatter(*flat.T, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=16, alpha=0.75, linewidths=0)
    box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": "0.4", "alpha": 0.85}
    for digit in range(10):
        x, y = np.median(flat[labels == digit], axis=0)
        right.text(x, y, str(digit), ha="center", va="center", fontsize=12, fontweight="bold", bbox=box)
    right.set_title(f"Embeddings of {len(points)} held-out images, {points.shape[1]} dimensions in 2 by PCA")
    right.set_aspect("equal", adjustable="datalim")
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
    parser = Parser(description="Train a siamese network on scikit-learn's handwritten digits.")
    parser.add_argument("--steps", type=whole_number(1), default=1000, help="training steps")
    parser.add_argument("--batch", type=whole_number(2), default=256, help="pairs in a step")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of everything random")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what is written")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        # A folder that can't be written to is found out now, not after training.
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        parser.error(f"argument --out: {error}")

    data, held_out = load(options.seed)
    print(net.specs(held_out.images, held_out.images, np.ones(len(held_out.labels), bool)))
    params, losses = train(data, options.steps, options.batch, options.seed)
    save_file(params.flat(), options.out / "siamese.safetensors")
    loaded = js.Params(load_file(options.out / "siamese.safetensors"))
    points, held_out_points = (np.asarray(embed(params, part.images)) for part in (data, held_out))
    plot(losses, held_out_points, held_out.labels, options.out / "siamese.png")

    tail = max(1, options.steps // 20)
    print(f"Loss: {losses[:tail].mean():.4f} in the first steps, {losses[-tail:].mean():.4f} in the last.")
    pixels = verification(data, held_out, options.seed)
    right = verification(Digits(points, data.labels), Digits(held_out_points, held_out.labels), options.seed)
    print(f"Same digit or not, for pairs of held-out images: {right:.1%} right (raw pixels: {pixels:.1%}).")
    right, pixels = few_shot(held_out_points, held_out.labels), few_shot(*held_out)
    print(f"Which digit, given {SUPPORT} held-out images of each: {right:.1%} right (raw pixels: {pixels:.1%}).")
    verdict = "equal" if loaded == params else "DIFFERENT"
    print(f"Written to {options.out}: siamese.png, siamese.safetensors (loaded again: {verdict}).")


if __name__ == "__main__":
    main()
