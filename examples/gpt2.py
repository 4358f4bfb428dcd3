"""GPT-2 with the names of openai/gpt-2, trained for a minute on the Python documentation.

The model and the sampling loop follow OpenAI's TensorFlow 1 program function by function, so that its checkpoints are
the parameters here. A small model learns, byte by byte, the language reference that Python ships for its `help()`: half
a megabyte of text, of which every tenth topic is held out. It prints the losses and a sample, and writes the checkpoint
in TensorFlow's format (`gpt2.ckpt`) and a picture (`gpt2.png`).

    pip install "jax-scope[examples]"
    python gpt2.py --steps 600 --batch 16 --seed 0 --out out
    python gpt2.py --load out/gpt2.ckpt --steps 600

A published model, as transformers has it, is loaded by a plan (`PLAN`), and goes on from tokens that are given:

    python gpt2.py --checkpoint FOLDER --tokens 464,3290,318
"""

import argparse
import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope.checkpoint import AssignReport, Plan, list_tf, load_tf, save_tf

try:
    import optax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from rich.progress import track
except ModuleNotFoundError as error:
    raise SystemExit(f'this example needs {error.name}: pip install "jax-scope[examples]"') from None


# The model ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HParams:
    """The sizes of a model; those of the smallest that OpenAI published, unless said."""

    n_vocab: int = 50257
    n_ctx: int = 1024
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12


def default_hparams() -> HParams:
    return HParams()


def gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


def norm(x: jax.Array, scope: str, *, axis: int = -1, epsilon: float = 1e-5) -> jax.Array:
    with js.variable_scope(scope):
        n_state = x.shape[-1]
        g = js.get_variable("g", [n_state], initializer=js.constant_initializer(1))
        b = js.get_variable("b", [n_state], initializer=js.constant_initializer(0))
        centred = x - jnp.mean(x, axis, keepdims=True)
        variance = jnp.mean(centred**2, axis, keepdims=True)
        return centred * jax.lax.rsqrt(variance + epsilon) * g + b


def conv1d(x: jax.Array, scope: str, nf: int, *, w_init_stdev: float = 0.02) -> jax.Array:
    """A convolution of width 1, which is a dense layer: hence the 1 in the shape of `w`."""
    with js.variable_scope(scope):
        w = js.get_variable("w", [1, x.shape[-1], nf], initializer=js.random_normal_initializer(stddev=w_init_stdev))
        b = js.get_variable("b", [nf], initializer=js.constant_initializer(0))
        return x @ w[0] + b


def attention_mask(nd: int, ns: int, past_length: int | jax.Array) -> jax.Array:
    """Which of `ns` sources each of the `nd` last ones may see: itself and those before it, as far as they are in use.

    The past comes first among the sources, and only its last `past_length` positions are in use.
    """
    i = jnp.arange(nd)[:, None]
    j = jnp.arange(ns) - (ns - nd)  # below 0 is the past
    return (j <= i) & (j >= -past_length)


def attn(
    x: jax.Array, scope: str, n_state: int, *, past: jax.Array | None, past_length: int | jax.Array, hparams: HParams
) -> tuple[jax.Array, jax.Array]:
    def split_heads(x: jax.Array) -> jax.Array:
        """[batch, sequence, features] to [batch, heads, sequence, features of a head]."""
        return x.reshape(*x.shape[:2], hparams.n_head, -1).swapaxes(1, 2)

    def merge_heads(x: jax.Array) -> jax.Array:
        return x.swapaxes(1, 2).reshape(x.shape[0], -1, n_state)

    def multihead_attn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        w = q @ k.swapaxes(-1, -2) * jax.lax.rsqrt(jnp.asarray(v.shape[-1], q.dtype))
        b = attention_mask(*w.shape[-2:], past_length).astype(w.dtype)
        return jax.nn.softmax(w * b - 1e10 * (1 - b)) @ v

    with js.variable_scope(scope):
        q, k, v = map(split_heads, jnp.split(conv1d(x, "c_attn", n_state * 3), 3, axis=2))
        present = jnp.stack([k, v], axis=1)
        if past is not None:
            pk, pv = jnp.unstack(past, axis=1)
            k = jnp.concatenate([pk, k], axis=-2)
            v = jnp.concatenate([pv, v], axis=-2)
        a = merge_heads(multihead_attn(q, k, v))
        return conv1d(a, "c_proj", n_state), present


def mlp(x: jax.Array, scope: str, n_state: int) -> jax.Array:
    with js.variable_scope(scope):
        return conv1d(gelu(conv1d(x, "c_fc", n_state)), "c_proj", x.shape[-1])


def block(
    x: jax.Array, scope: str, *, past: jax.Array | None, past_length: int | jax.Array, hparams: HParams
) -> tuple[jax.Array, jax.Array]:
    with js.variable_scope(scope):
        nx = x.shape[-1]
        a, present = attn(norm(x, "ln_1"), "attn", nx, past=past, past_length=past_length, hparams=hparams)
        x = x + a
        return x + mlp(norm(x, "ln_2"), "mlp", nx * 4), present


def past_shape(*, hparams: HParams, batch_size: int, sequence: int) -> tuple[int, ...]:
    return batch_size, hparams.n_layer, 2, hparams.n_head, sequence, hparams.n_embd // hparams.n_head


def model(
    hparams: HParams,
    X: jax.Array,  # noqa: N803  the original's name, which callers use
    past: jax.Array | None = None,
    scope: str = "model",
    reuse: object = False,
    *,
    past_length: int | jax.Array | None = None,
) -> dict[str, jax.Array]:
    """What comes next, after each token of `X`.

    Args:
      X: tokens, integers of shape [batch, sequence].
      past: keys and values of what came before `X`, of `past_shape`: the `present` of earlier calls, joined.
      past_length: how many positions of `past`, counted from its end, are in use: all of them unless said. Shapes are
        static in JAX, so that a loop needs a past of one size, in which the unused positions come first.

    Returns:
      `logits` [batch, sequence, n_vocab], and `present`, the keys and values of `X`.
    """
    room = X.shape[1] + (0 if past is None else past.shape[-2])
    if room > hparams.n_ctx:
        # JAX would read the last row of wpe for every position behind it, and say nothing.
        raise ValueError(f"the past and the tokens have {room} positions; the model has n_ctx={hparams.n_ctx}")
    with js.variable_scope(scope, reuse=reuse):
        wpe = js.get_variable(
            "wpe", [hparams.n_ctx, hparams.n_embd], initializer=js.random_normal_initializer(stddev=0.01)
        )
        wte = js.get_variable(
            "wte", [hparams.n_vocab, hparams.n_embd], initializer=js.random_normal_initializer(stddev=0.02)
        )
        if past_length is None:
            past_length = 0 if past is None else past.shape[-2]
        h = wte[X] + wpe[past_length + jnp.arange(X.shape[1])]

        presents = []
        pasts = [None] * hparams.n_layer if past is None else jnp.unstack(past, axis=1)
        for layer, layer_past in enumerate(pasts):
            h, present = block(h, f"h{layer}", past=layer_past, past_length=past_length, hparams=hparams)
            presents.append(present)
        h = norm(h, "ln_f")
        return {"present": jnp.stack(presents, axis=1), "logits": h @ wte.T}


# Sampling -------------------------------------------------------------------------------------------------------------


def top_k_logits(logits: jax.Array, k: int) -> jax.Array:
    """Rules out all but the `k` likeliest; 0 rules out none."""
    if k == 0:
        return logits
    least = jax.lax.top_k(logits, k)[0][:, -1:]
    return jnp.where(logits < least, -1e10, logits)


def sample_sequence(
    *,
    hparams: HParams,
    length: int,
    start_token: int | None = None,
    batch_size: int | None = None,
    context: jax.Array | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
) -> jax.Array:
    """The context, or a batch of the start token, and `length` sampled tokens behind it: one at a time, under `scan`.

    Each token's keys and values are computed once and kept in a past of fixed size. `top_k=1` is greedy.
    """
    if (start_token is None) == (context is None):
        raise ValueError("give either start_token and batch_size, or context")
    if context is None:
        context = jnp.full([batch_size, 1], start_token)

    def step(
        past: jax.Array | None, past_length: int | jax.Array, prev: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        results = model(hparams, prev, past, reuse=js.AUTO_REUSE, past_length=past_length)
        logits = top_k_logits(results["logits"][:, -1] / temperature, top_k)
        return results["present"], jax.random.categorical(key, logits).astype(context.dtype)

    def body(carry: tuple[jax.Array, ...], turn: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, ...], jax.Array]:
        (past, prev), (past_length, key) = carry, turn
        present, sample = step(past, past_length, prev[:, None], key)
        # As long as before: one unused position less.
        return (jnp.concatenate([past[..., 1:, :], present], axis=-2), sample), sample

    # All keys are asked for here, since JAX traces the body of a scan once: next_key in it would be one key for every
    # token.
    keys = jax.random.split(js.next_key(), length)
    present, first = step(None, 0, context, keys[0])
    batch, start = context.shape
    unused = jnp.zeros(past_shape(hparams=hparams, batch_size=batch, sequence=length - 1), present.dtype)
    past = jnp.concatenate([unused, present], axis=-2)
    _, others = jax.lax.scan(body, (past, first), (start + jnp.arange(length - 1), keys[1:]))
    return jnp.concatenate([context, first[:, None], others.T], axis=1)


# Published checkpoints ------------------------------------------------------------------------------------------------

_CONVOLUTIONS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_NORMS = ("h.{i}.ln_1", "h.{i}.ln_2", "ln_f")

# From the names of transformers' GPT2LMHeadModel to those of OpenAI's program, and back. Older files have no
# "transformer." before the names, and masks beside the weights.
PLAN = (
    Plan()
    .also({name: f"transformer.{name}" for name in ("wte.weight", "wpe.weight", "ln_f.{*kind}", "h.{i}.{*name}")})
    .tie("transformer.wte.weight", "lm_head.weight")
    .drop("transformer.h.{i}.attn.bias", "transformer.h.{i}.attn.masked_bias")
    .rearrange([f"transformer.h.{{i}}.{name}.weight" for name in _CONVOLUTIONS], "in out -> 1 in out")
    .rename({f"transformer.{name}.weight": f"transformer.{name}" for name in ("wte", "wpe")})
    .rename({f"transformer.h.{{i}}.{name}.weight": f"transformer.h.{{i}}.{name}.w" for name in _CONVOLUTIONS})
    .rename({f"transformer.h.{{i}}.{name}.bias": f"transformer.h.{{i}}.{name}.b" for name in _CONVOLUTIONS})
    .rename({f"transformer.{name}.weight": f"transformer.{name}.g" for name in _NORMS})
    .rename({f"transformer.{name}.bias": f"transformer.{name}.b" for name in _NORMS})
    .rename({"transformer.h.{i}.{*name}": "transformer.h{i}.{*name}"})
    .rename({"transformer.{*name}": "model.{*name}"})
    .separator(".", "/")
)


def published_hparams(folder: Path) -> HParams:
    """The sizes in a folder's `config.json`."""
    config = json.loads((folder / "config.json").read_text())
    sizes = {name: config[name] for name in ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer")}
    return HParams(sizes["vocab_size"], sizes["n_positions"], sizes["n_embd"], sizes["n_head"], sizes["n_layer"])


def load_published(folder: Path) -> tuple[HParams, js.Params, AssignReport]:
    """The sizes and the parameters in a folder as `save_pretrained` writes it, in one file or several."""
    hparams = published_hparams(folder)
    specs = js.transform(model).specs(hparams, jax.ShapeDtypeStruct((1, 1), jnp.int32))
    return hparams, *PLAN.load(specs, folder, allow_cast=True)


def greedy(params: js.Params, hparams: HParams, tokens: np.ndarray, length: int) -> np.ndarray:
    """The tokens, and the likeliest ones behind them."""
    sample = jax.jit(functools.partial(sampler.apply, hparams=hparams, length=length, top_k=1))
    return np.asarray(sample(params, context=jnp.asarray(tokens)[None], rng=jax.random.key(0)))[0]


# Training -------------------------------------------------------------------------------------------------------------

HPARAMS = HParams(n_vocab=256, n_ctx=64, n_embd=128, n_head=4, n_layer=3)
HELD_OUT = 10  # one topic of ten
SAMPLE = 400  # bytes


def cross_entropy(tokens: jax.Array, hparams: HParams) -> jax.Array:
    """The mean over all tokens but the first of a row, each given those before it. In nats."""
    logits = model(hparams, tokens)["logits"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:]))


# Two programs over one tree: what `net` trains, `sampler` reads, because the names are the same.
net = js.transform(cross_entropy)
sampler = js.transform(sample_sequence)


def optimizer(steps: int) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(3e-4, 3e-3, max(1, steps // 10), steps + 1, 1e-4)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))


class Text(NamedTuple):
    train: np.ndarray
    held_out: np.ndarray


def load_text() -> Text:
    """The topics of Python's `help()` as bytes.

    Topics quote each other: paragraphs that are held out are taken out of training.
    """
    names = sorted(topics)
    held_out = "\n\n".join(topics[name] for name in names[::HELD_OUT])

    def paragraph(text: str) -> str:
        return " ".join(text.split())

    known = {paragraph(each) for each in held_out.split("\n\n")}
    train = "\n\n".join(topics[name] for i, name in enumerate(names) if i % HELD_OUT)
    train = "\n\n".join(each for each in train.split("\n\n") if paragraph(each) not in known)
    return Text(*(np.frombuffer(part.encode(), np.uint8).astype(np.int32) for part in (train, held_out)))


def rows(text: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    return text[starts[:, None] + np.arange(length)]


def byte_frequency_loss(text: Text) -> float:
    """The loss on the held-out text of a model that knows nothing but how frequent each byte is in training."""
    counts = np.bincount(text.train, minlength=256) + 1
    return float(-np.mean(np.log(counts / counts.sum())[text.held_out]))


class History(NamedTuple):
    losses: np.ndarray
    held_out: dict[int, float]  # by the number of steps done


def train(
    params: js.Params, hparams: HParams, text: Text, steps: int, batch: int, seed: int
) -> tuple[js.Params, History]:
    transformation = optimizer(steps)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(
        params: js.Params, state: optax.OptState, tokens: jax.Array
    ) -> tuple[js.Params, optax.OptState, jax.Array]:
        loss, gradients = jax.value_and_grad(net.apply)(params, tokens, hparams)
        updates, state = transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    loss_of = jax.jit(functools.partial(net.apply, hparams=hparams))
    spread = np.linspace(0, len(text.held_out) - hparams.n_ctx, 64).astype(int)
    held_out_rows = rows(text.held_out, spread, hparams.n_ctx)
    rng = np.random.default_rng(seed)
    state = transformation.init(params)
    losses, held_out = [], {0: float(loss_of(params, held_out_rows))}
    every = max(1, steps // 10)
    for number in track(range(1, steps + 1), description="Training"):
        starts = rng.integers(len(text.train) - hparams.n_ctx, size=batch)
        params, state, loss = train_step(params, state, rows(text.train, starts, hparams.n_ctx))
        losses.append(loss)
        if number % every == 0 or number == steps:
            held_out[number] = float(loss_of(params, held_out_rows))
    return params, History(np.array(losses), held_out)


def continued(params: js.Params, hparams: HParams, prompt: np.ndarray, length: int, seed: int) -> str:
    """The prompt and `length` sampled bytes, as text: half a context at a time, given the half before it."""
    half = hparams.n_ctx // 2
    sample = jax.jit(functools.partial(sampler.apply, hparams=hparams, length=half, top_k=40))
    written = prompt
    for key in jax.random.split(jax.random.key(seed), -(-length // half)):
        written = np.append(written, sample(params, context=written[None, -half:], rng=key)[0, -half:])
    return bytes(written[: len(prompt) + length].tolist()).decode(errors="replace")


def plot(history: History, baseline: float, path: Path) -> None:
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(np.arange(1, len(history.losses) + 1), history.losses, color="#9db8d9", linewidth=1, label="training")
    axes.plot(
        list(history.held_out), list(history.held_out.values()), color="#1f4e8c", marker=".", label="held-out topics"
    )
    axes.axhline(baseline, color="#c4601d", linestyle="--", linewidth=1, label="held out, by the frequency of bytes")
    axes.set(title="GPT-2 on the Python documentation", xlabel="step", ylabel="nats per byte", ylim=(0, None))
    axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


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


def token_list(text: str) -> list[int]:
    return [whole_number(0)(part) for part in text.split(",")]


def continue_published(parser: Parser, folder: Path, tokens: list[int]) -> None:
    try:
        hparams, params, report = load_published(folder)
    except (OSError, KeyError, ValueError) as error:
        parser.error(f"argument --checkpoint: {error}")
    room = hparams.n_ctx - len(tokens)
    if max(tokens) >= hparams.n_vocab or room < 1:
        parser.error(f"argument --tokens: {hparams.n_vocab} tokens are known, and a row has {hparams.n_ctx} at most")
    print(f"{len(report.loaded)} arrays from {folder}.")
    print(*greedy(params, hparams, np.array(tokens), min(room, 20)), sep=",")


def start(parser: Parser, specs: js.Specs, checkpoint: Path | None, seed: int) -> js.Params:
    """New parameters, or those of a checkpoint."""
    if checkpoint is None:
        return specs.init(jax.random.key(seed))
    try:
        params = js.Params(load_tf(checkpoint))
        specs.check(params)
    except js.JscopeError as error:
        parser.error(f"argument --load: {str(error).splitlines()[0]}")
    return jax.tree.map(jnp.asarray, params)


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description="Train a small GPT-2 on the Python documentation.")
    parser.add_argument("--steps", type=whole_number(1), default=600, help="training steps")
    parser.add_argument("--batch", type=whole_number(2), default=16, help="rows of text in a step")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of everything random")
    parser.add_argument("--load", type=Path, metavar="CHECKPOINT", help="go on from what an earlier run wrote")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what is written")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="a published model, to go on from --tokens")
    parser.add_argument("--tokens", type=token_list, default=[0], help="their numbers, with commas between them")
    options = parser.parse_args(arguments)
    if options.checkpoint is not None:
        continue_published(parser, options.checkpoint, options.tokens)
        return
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        # A folder that can't be written to is found out now, not after training.
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        parser.error(f"argument --out: {error}")

    text = load_text()
    specs = net.specs(rows(text.train, np.zeros(1, int), HPARAMS.n_ctx), HPARAMS)
    params = start(parser, specs, options.load, options.seed)
    print(specs)
    print(f"Text: {len(text.train):,} bytes to train on, {len(text.held_out):,} held out.")

    params, history = train(params, HPARAMS, text, options.steps, options.batch, options.seed)
    baseline = byte_frequency_loss(text)
    plot(history, baseline, options.out / "gpt2.png")
    tail = max(1, options.steps // 20)
    first, last = history.losses[:tail].mean(), history.losses[-tail:].mean()
    before, after = history.held_out[0], history.held_out[options.steps]
    print(f"Training loss: {first:.4f} in the first steps, {last:.4f} in the last.")
    print(f"Held-out loss: {before:.4f} before, {after:.4f} after (by the frequency of bytes: {baseline:.4f}).")

    prompt = text.held_out[: HPARAMS.n_ctx // 2]
    print(f"\nA sample, behind the first {len(prompt)} bytes of the held-out text:\n")
    print(continued(params, HPARAMS, prompt, SAMPLE, options.seed))

    prefix = options.out / "gpt2.ckpt"
    save_tf(prefix, params)
    print(f"\n{list_tf(prefix)}\n")
    verdict = "equal" if js.Params(load_tf(prefix)) == params else "DIFFERENT"
    print(f"Written to {options.out}: gpt2.png, gpt2.ckpt (loaded again: {verdict}).")
    print(f"List it with: python -m jscope ls {prefix}")


if __name__ == "__main__":
    main()
