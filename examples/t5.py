"""T5, which turns one text into another: published weights by a plan, trained and given back.

After the paper (arXiv 1910.10683). One table is what the encoder reads, what the decoder reads and, turned around, what
the decoder answers with: three places ask for it by its name. The layers of a stack share what they know of distances.
The names of the variables are this program's own; `plan` leads to them from those of transformers'
T5ForConditionalGeneration, and back.

    pip install "jax-scope[examples]"
    python t5.py --checkpoint FOLDER --tokens 13959,1566,12,2968,10,1 --length 20
    python t5.py --checkpoint FOLDER --tokens 7,8,9,1 --answer 9,8,7,1 --steps 10 --save tuned.safetensors
    python t5.py --steps 200
"""

import argparse
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NoReturn, Self

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope import checkpoint
from jscope.checkpoint import AssignReport, Plan

try:
    import optax
except ModuleNotFoundError as error:
    raise SystemExit(f'this example needs {error.name}: pip install "jax-scope[examples]"') from None

PAD = 0  # what a decoder begins with, and what fills a row; byte 0 is in no text


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of a model, by the names of its `config.json`. The defaults are small."""

    vocab_size: int = 258
    d_model: int = 64
    d_kv: int = 16
    d_ff: int = 128
    num_layers: int = 2
    num_decoder_layers: int = 2
    num_heads: int = 4
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"  # or "gated-gelu", as in version 1.1
    scale_decoder_outputs: bool = True
    own_head: bool = False  # the answer has a table of its own, as published for version 1.1

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], **more: Any) -> Self:
        """Of a published file. What this program does not do is refused, not passed over."""
        known = {field.name for field in dataclasses.fields(cls)}
        if fields.get("model_type", "t5") != "t5":
            raise ValueError(f"{fields['model_type']} is no T5")
        if fields.get("feed_forward_proj", "relu") not in _ACTIVATIONS:
            raise ValueError(f"layers of the kind {fields['feed_forward_proj']!r} are not known here")
        sizes = {name: value for name, value in fields.items() if name in known}
        sizes["num_decoder_layers"] = fields.get("num_decoder_layers") or fields["num_layers"]
        # Files that do not say it do so by a tie: version 1.1 has none, and does not scale.
        sizes.setdefault("scale_decoder_outputs", fields.get("tie_word_embeddings") is not False)
        return cls(**sizes | more)


_ACTIVATIONS = {"relu": jax.nn.relu, "gated-gelu": functools.partial(jax.nn.gelu, approximate=True)}


# The model ------------------------------------------------------------------------------------------------------------


def dense(x: jax.Array, name: str, size: int, scale: float = 1.0) -> jax.Array:
    with js.variable_scope(name):
        initializer = js.random_normal_initializer(stddev=scale * x.shape[-1] ** -0.5)
        return x @ js.get_variable("kernel", [x.shape[-1], size], initializer=initializer)


def rms_norm(x: jax.Array, config: Config) -> jax.Array:
    """Divided by the root of the mean square, in float32 whatever `x` is."""
    with js.variable_scope("norm"):
        scale = js.get_variable("scale", [x.shape[-1]], initializer=js.ones_initializer())
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide**2, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean + config.layer_norm_epsilon)).astype(x.dtype) * scale


def buckets(length: int, config: Config, *, behind_too: bool) -> np.ndarray:
    """The number of each distance, [queries, keys]: near ones have their own, far ones share one with their like."""
    distance = np.arange(length) - np.arange(length)[:, None]
    count, first = config.relative_attention_num_buckets, 0
    if behind_too:
        count //= 2
        first = np.where(distance > 0, count, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    own = count // 2
    ratio = np.log(np.maximum(distance, own).astype(np.float32) / own, dtype=np.float32)
    far = own + (ratio / math.log(config.relative_attention_max_distance / own) * (count - own)).astype(int)
    return first + np.where(distance < own, distance, np.minimum(far, count - 1))


def attention(x: jax.Array, source: jax.Array, bias: jax.Array, config: Config) -> jax.Array:
    """Of `x` to `source`; `bias` is added to the scores, which are not scaled: [batch or 1, heads, queries, keys]."""
    heads = (config.num_heads, config.d_kv)
    inner = config.num_heads * config.d_kv
    query = dense(x, "query", inner, config.d_kv**-0.5).reshape(*x.shape[:2], *heads)
    key, value = (dense(source, name, inner).reshape(*source.shape[:2], *heads) for name in ("key", "value"))
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32) + bias
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(x.dtype), value)
    return dense(mixed.reshape(*x.shape[:2], inner), "output", config.d_model)


def feed_forward(x: jax.Array, config: Config) -> jax.Array:
    inner = _ACTIVATIONS[config.feed_forward_proj](dense(x, "inner", config.d_ff))
    if config.feed_forward_proj.startswith("gated"):
        inner *= dense(x, "gate", config.d_ff)
    return dense(inner, "outer", config.d_model)


def stack(
    x: jax.Array, layers: int, allowed: jax.Array, config: Config, across: tuple[jax.Array, jax.Array] | None = None
) -> jax.Array:
    """An encoder; or a decoder that looks across at what an encoder gave, (its output, what of it is no padding)."""
    initializer = js.random_normal_initializer(stddev=config.d_model**-0.5)
    table = js.get_variable("distances", [config.relative_attention_num_buckets, config.num_heads], None, initializer)
    distances = jnp.moveaxis(table[buckets(x.shape[1], config, behind_too=across is None)], -1, 0)
    own_bias = jnp.where(allowed, distances, -jnp.inf)
    for index in range(layers):
        with js.variable_scope(f"layer_{index}"):
            with js.variable_scope("attention"):
                normed = rms_norm(x, config)
                x = x + attention(normed, normed, own_bias, config)
            if across is not None:
                with js.variable_scope("across"):
                    bias = jnp.where(across[1][:, None, None, :], 0.0, -jnp.inf)
                    x = x + attention(rms_norm(x, config), across[0], bias, config)
            with js.variable_scope("feed_forward"):
                x = x + feed_forward(rms_norm(x, config), config)
    return rms_norm(x, config)


def tokens_table(config: Config) -> jax.Array:
    """What each token is, [vocab_size, d_model]: one table for all who ask for it, by its name."""
    with js.variable_scope("shared", reuse=js.AUTO_REUSE):
        initializer = js.random_normal_initializer(stddev=1.0)
        return js.get_variable("tokens", [config.vocab_size, config.d_model], initializer=initializer)


def model(source: jax.Array, answer: jax.Array, config: Config, is_text: jax.Array | None = None) -> jax.Array:
    """What comes next in an answer: logits [batch, answer length, vocab_size].

    `source` and `answer` are integers [batch, length], `is_text` says where `source` is no padding.
    """
    is_text = jnp.ones(source.shape, bool) if is_text is None else is_text.astype(bool)
    with js.variable_scope("t5"):
        x = tokens_table(config)[source]
        with js.variable_scope("encoder"):
            encoded = stack(x, config.num_layers, is_text[:, None, None, :], config)
        x = tokens_table(config)[answer]
        before = jnp.tri(answer.shape[1], dtype=bool)
        with js.variable_scope("decoder"):
            x = stack(x, config.num_decoder_layers, before, config, across=(encoded, is_text))
        if config.scale_decoder_outputs:
            x = x * config.d_model**-0.5
        return dense(x, "head", config.vocab_size) if config.own_head else x @ tokens_table(config).T


net = js.transform(model)


# Published checkpoints ------------------------------------------------------------------------------------------------

_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "output"}


def plan(config: Config) -> Plan:
    """From the names of transformers' T5ForConditionalGeneration to this program's, and back. Theirs are [out, in]."""
    inner = (
        {"wi_0": "inner", "wi_1": "gate", "wo": "outer"}
        if config.feed_forward_proj.startswith("gated")
        else {"wi": "inner", "wo": "outer"}
    )
    kinds = {
        "encoder": [("SelfAttention", "attention", _ATTENTION), ("DenseReluDense", "feed_forward", inner)],
        "decoder": [
            ("SelfAttention", "attention", _ATTENTION),
            ("EncDecAttention", "across", _ATTENTION),
            ("DenseReluDense", "feed_forward", inner),
        ],
    }
    matrices, others = {}, {"shared.weight": "t5.shared.tokens"}
    for side, layers in kinds.items():
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        others |= {first: f"t5.{side}.distances", f"{side}.final_layer_norm.weight": f"t5.{side}.norm.scale"}
        for number, (theirs, ours, names) in enumerate(layers):
            layer, own = f"{side}.block.{{i}}.layer.{number}", f"t5.{side}.layer_{{i}}.{ours}"
            others[f"{layer}.layer_norm.weight"] = f"{own}.norm.scale"
            matrices |= {f"{layer}.{theirs}.{old}.weight": f"{own}.{new}.kernel" for old, new in names.items()}
    tied = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    if config.own_head:
        matrices["lm_head.weight"] = "t5.head.kernel"
    else:
        tied.append("lm_head.weight")
    return (
        Plan()
        # Old files have distances across, too, which nobody reads.
        .drop("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight")
        .tie("shared.weight", *tied)
        .transpose(list(matrices))
        .rename(matrices | others)
        .separator(".", "/")
    )


def specs_of(config: Config) -> js.Specs:
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return net.specs(tokens, tokens, config)


def load_published(folder: Path, **options: Any) -> tuple[Config, js.Params, AssignReport]:
    """The sizes and the parameters in a folder as `save_pretrained` writes it, in one file or several.

    `options` are those of `assign_from`, such as `shardings`.
    """
    fields = json.loads((folder / "config.json").read_text())
    file = checkpoint.open(folder)
    # Version 1.1 was published with a head of its own, and says so by having one. Others have the one table twice.
    own = "lm_head.weight" in file and not np.array_equal(file["lm_head.weight"], file["shared.weight"])
    config = Config.from_dict(fields, own_head=own)
    return config, *plan(config).load(specs_of(config), folder, allow_cast=True, **options)


# What it is used for --------------------------------------------------------------------------------------------------


def greedy(params: js.Params, config: Config, source: np.ndarray, length: int) -> np.ndarray:
    """The likeliest answer: each token computed from all before it, in rows of one size."""
    logits = jax.jit(functools.partial(net.apply, config=config))
    answer = np.full(length + 1, PAD, np.int32)
    for place in range(length):
        answer[place + 1] = np.argmax(np.asarray(logits(params, source[None], answer[None]))[0, place])
    return answer[1:]


def loss(source: jax.Array, answer: jax.Array, config: Config) -> jax.Array:
    """The mean over all tokens of the answers, each given those before it. In nats."""
    before = jnp.pad(answer[:, :-1], ((0, 0), (1, 0)), constant_values=PAD)
    logits = model(source, before, config).astype(jnp.float32)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, answer))


loss_net = js.transform(loss)
Rows = Callable[[int], tuple[np.ndarray, np.ndarray]]


def train(params: js.Params, config: Config, rows: Rows, steps: int) -> tuple[js.Params, list[float]]:
    """Steps of AdamW on the sources and answers that `rows` gives for each step."""
    optimizer = optax.adamw(3e-3 if steps > 50 else 1e-3)

    @jax.jit
    def step(
        params: js.Params, state: optax.OptState, source: jax.Array, answer: jax.Array
    ) -> tuple[js.Params, optax.OptState, jax.Array]:
        value, gradients = jax.value_and_grad(loss_net.apply)(params, source, answer, config)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for number in range(steps):
        params, state, value = step(params, state, *rows(number))
        losses.append(value)
    return params, [float(value) for value in losses]


def rows_of_text(length: int = 48, span: int = 6, batch: int = 16) -> Rows:
    """Bytes of the language reference that Python ships for its `help()`, with a gap; the answer is what was there."""
    text = np.frombuffer("\n\n".join(topics[name] for name in sorted(topics)).encode(), np.uint8).astype(np.int32)
    gap, end = 256, 257

    def rows(number: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(number)
        starts = generator.integers(len(text) - length, size=batch)
        whole = text[starts[:, None] + np.arange(length)]
        place = generator.integers(length - span)
        source = np.concatenate([whole[:, :place], np.full((batch, 1), gap), whole[:, place + span :]], 1)
        return source.astype(np.int32), np.pad(whole[:, place : place + span], ((0, 0), (0, 1)), constant_values=end)

    return rows


# The command ----------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def whole_number(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def token_list(text: str) -> list[int]:
    return [whole_number(part) for part in text.split(",")]


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description="T5: a published one by a plan, or a small one that learns to fill gaps in a text.")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="a published model, with its config.json")
    parser.add_argument("--tokens", type=token_list, default=[1], help="of the source, with commas between them")
    parser.add_argument("--answer", type=token_list, help="what is to be learnt for --tokens")
    parser.add_argument("--length", type=whole_number, default=10, help="how many tokens to answer with")
    parser.add_argument("--steps", type=whole_number, default=0, help="training steps: on --answer, else on text")
    parser.add_argument("--save", type=Path, metavar="FILE", help="for the parameters, by the published names")
    options = parser.parse_args(arguments)
    if options.checkpoint is None:
        config = Config()
        params = specs_of(config).init(jax.random.key(0))
    else:
        try:
            config, params, report = load_published(options.checkpoint)
        except (OSError, KeyError, TypeError, ValueError) as error:
            parser.error(f"argument --checkpoint: {error}")
        print(f"{len(report.loaded)} arrays from {options.checkpoint}.")
    if max(options.tokens + (options.answer or [])) >= config.vocab_size:
        parser.error(f"argument --tokens, --answer: there are {config.vocab_size} tokens")
    if options.steps and options.checkpoint is not None and options.answer is None:
        parser.error("argument --steps: say with --answer what a published model is to learn")
    if options.steps:
        rows = rows_of_text()
        if options.answer is not None:
            pair = np.array([options.tokens], np.int32), np.array([options.answer], np.int32)
            rows = functools.partial(lambda pair, number: pair, pair)
        params, losses = train(params, config, rows, options.steps)
        print(f"Loss: {losses[0]:.4f} in the first step, {losses[-1]:.4f} in the last.")
    print(*greedy(params, config, np.array(options.tokens, np.int32), options.length), sep=",")
    if options.save is not None:
        plan(config).save(options.save, params, like=options.checkpoint)
        print(f"Written to {options.save}, by the published names.")


if __name__ == "__main__":
    main()
