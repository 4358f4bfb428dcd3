"""A Llama-like language model: published weights by a plan, trained and given back.

Norms by the root of the mean square, rotary positions, heads that share keys and values in groups, and a gated
feed-forward layer, after the papers (RMSNorm: arXiv 1910.07467, RoPE: 2104.09864, GQA: 2305.13245, SwiGLU: 2002.05202).
The names of the variables are this program's own; `plan` leads to them from those of transformers' LlamaForCausalLM,
and back.

    pip install "jax-scope[examples]"
    python llama.py --checkpoint FOLDER --tokens 1,15043,3186 --length 20
    python llama.py --checkpoint FOLDER --tokens 1,15043,3186 --steps 10 --save tuned.safetensors
    python llama.py --steps 200
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
from jscope.checkpoint import AssignReport, Plan

try:
    import optax
except ModuleNotFoundError as error:
    raise SystemExit(f'this example needs {error.name}: pip install "jax-scope[examples]"') from None


# Configuration --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How a model that was trained on short texts reads long ones: slow rotations are slowed down (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of a model, by the names of its `config.json`. The defaults are small."""

    vocab_size: int = 256
    hidden_size: int = 96
    intermediate_size: int = 256
    num_hidden_layers: int = 2
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 16
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: Scaling | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Of a published file. What this program does not do is refused, not passed over."""
        known = {field.name for field in dataclasses.fields(cls)}
        rope = dict(fields.get("rope_parameters") or fields.get("rope_scaling") or {})
        kind = rope.pop("rope_type", rope.pop("type", "default"))
        if fields.get("model_type", "llama") != "llama" or fields.get("hidden_act", "silu") != "silu":
            raise ValueError(f"{fields.get('model_type')} with {fields.get('hidden_act')} is no Llama with silu")
        if kind not in ("default", "llama3"):
            raise ValueError(f"rotary positions of the kind {kind!r} are not known here")
        sizes = {name: value for name, value in fields.items() if name in known and name != "rope_scaling"}
        sizes["rope_theta"] = rope.pop("rope_theta", fields.get("rope_theta", 10000.0))
        sizes["rope_scaling"] = Scaling(**rope) if kind == "llama3" else None
        sizes["num_key_value_heads"] = fields.get("num_key_value_heads") or fields["num_attention_heads"]
        sizes["head_dim"] = fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]
        return cls(**sizes)


# The model ------------------------------------------------------------------------------------------------------------


def dense(x: jax.Array, name: str, size: int, *, bias: bool = False) -> jax.Array:
    with js.variable_scope(name):
        y = x @ js.get_variable("kernel", [x.shape[-1], size], initializer=js.random_normal_initializer(stddev=0.02))
        return y + js.get_variable("bias", [size], initializer=js.zeros_initializer()) if bias else y


def rms_norm(x: jax.Array, name: str, epsilon: float) -> jax.Array:
    """Divided by the root of the mean square, in float32 whatever `x` is."""
    with js.variable_scope(name):
        scale = js.get_variable("scale", [x.shape[-1]], initializer=js.ones_initializer())
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + epsilon)).astype(x.dtype) * scale


def frequencies(config: Config) -> np.ndarray:
    """By how much each pair of features is turned from one position to the next."""
    speed = config.rope_theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    if config.rope_scaling is None:
        return speed
    scaling = config.rope_scaling
    turns = scaling.original_max_position_embeddings * speed / (2 * math.pi)
    share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    share = np.clip(share, 0, 1)  # 1 for what turns fast, which stays as it is
    return speed * (share + (1 - share) / scaling.factor)


def rotated(x: jax.Array, config: Config) -> jax.Array:
    """Each pair of features turned by its position: x is [batch, length, heads, head_dim], its halves are the pairs."""
    angle = jnp.asarray(np.arange(x.shape[1])[:, None] * frequencies(config), jnp.float32)[:, None, :]
    one, other = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([one * cos - other * sin, other * cos + one * sin], axis=-1).astype(x.dtype)


def attention(x: jax.Array, config: Config) -> jax.Array:
    """Each query sees itself and what is before it. A group of heads shares one head of keys and values."""
    batch, length, _ = x.shape
    groups = config.num_key_value_heads

    def heads(name: str, count: int) -> jax.Array:
        return dense(x, name, count * config.head_dim, bias=config.attention_bias).reshape(batch, length, count, -1)

    query = rotated(heads("query", config.num_attention_heads), config)
    key, value = rotated(heads("key", groups), config), heads("value", groups)
    query = query.reshape(batch, length, groups, -1, config.head_dim)
    scores = jnp.einsum("bqghd,bkgd->bghqk", query, key) / math.sqrt(config.head_dim)
    scores = jnp.where(jnp.tri(length, dtype=bool), scores.astype(jnp.float32), -jnp.inf)
    mixed = jnp.einsum("bghqk,bkgd->bqghd", jax.nn.softmax(scores).astype(x.dtype), value)
    return dense(mixed.reshape(batch, length, -1), "output", config.hidden_size, bias=config.attention_bias)


def feed_forward(x: jax.Array, config: Config) -> jax.Array:
    gate, up = (dense(x, name, config.intermediate_size, bias=config.mlp_bias) for name in ("gate", "up"))
    return dense(jax.nn.silu(gate) * up, "down", config.hidden_size, bias=config.mlp_bias)


def model(tokens: jax.Array, config: Config) -> jax.Array:
    """What comes next after each token: logits [batch, length, vocab_size], of integers [batch, length]."""
    with js.variable_scope("llama"):
        initializer = js.random_normal_initializer(stddev=0.02)
        table = js.get_variable("tokens", [config.vocab_size, config.hidden_size], initializer=initializer)
        x = table[tokens]
        for index in range(config.num_hidden_layers):
            with js.variable_scope(f"layer_{index}"):
                with js.variable_scope("attention"):
                    x = x + attention(rms_norm(x, "norm", config.rms_norm_eps), config)
                with js.variable_scope("feed_forward"):
                    x = x + feed_forward(rms_norm(x, "norm", config.rms_norm_eps), config)
        x = rms_norm(x, "norm", config.rms_norm_eps)
        return x @ table.T if config.tie_word_embeddings else dense(x, "head", config.vocab_size)


net = js.transform(model)


# Published checkpoints ------------------------------------------------------------------------------------------------

_ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
_FEED_FORWARD = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def plan(config: Config) -> Plan:
    """From the names of transformers' LlamaForCausalLM to this program's, and back. Its matrices are [out, in]."""
    layers = {f"self_attn.{old}": f"attention.{new}" for old, new in _ATTENTION.items()}
    layers |= {f"mlp.{old}": f"feed_forward.{new}" for old, new in _FEED_FORWARD.items()}
    norms = {"input_layernorm": "attention.norm", "post_attention_layernorm": "feed_forward.norm"}
    steps = Plan().drop("{*module}.rotary_emb.inv_freq")
    if config.tie_word_embeddings:
        steps = steps.tie("model.embed_tokens.weight", "lm_head.weight")
    else:
        steps = steps.transpose("lm_head.weight").rename({"lm_head.weight": "llama.head.kernel"})
    return (
        steps.transpose([f"model.layers.{{i}}.{old}.weight" for old in layers])
        .rename({f"model.layers.{{i}}.{old}.weight": f"llama.layer_{{i}}.{new}.kernel" for old, new in layers.items()})
        .rename({f"model.layers.{{i}}.{old}.bias": f"llama.layer_{{i}}.{new}.bias" for old, new in layers.items()})
        .rename({f"model.layers.{{i}}.{old}.weight": f"llama.layer_{{i}}.{new}.scale" for old, new in norms.items()})
        .rename({"model.embed_tokens.weight": "llama.tokens", "model.norm.weight": "llama.norm.scale"})
        .separator(".", "/")
    )


def specs_of(config: Config) -> js.Specs:
    return net.specs(jax.ShapeDtypeStruct((1, 1), jnp.int32), config)


def load_published(folder: Path, **options: Any) -> tuple[Config, js.Params, AssignReport]:
    """The sizes and the parameters in a folder as `save_pretrained` writes it, in one file or several.

    `options` are those of `assign_from`, such as `shardings`.
    """
    config = Config.from_dict(json.loads((folder / "config.json").read_text()))
    return config, *plan(config).load(specs_of(config), folder, allow_cast=True, **options)


# What it is used for --------------------------------------------------------------------------------------------------


def greedy(params: js.Params, config: Config, tokens: np.ndarray, length: int) -> np.ndarray:
    """The tokens, and the likeliest ones behind them: each computed from all before it, in rows of one size."""
    logits = jax.jit(functools.partial(net.apply, config=config))
    row = np.zeros(len(tokens) + length, np.int32)
    row[: len(tokens)] = tokens
    for place in range(len(tokens), len(row)):
        row[place] = np.argmax(np.asarray(logits(params, row[None]))[0, place - 1])
    return row


def loss(tokens: jax.Array, config: Config) -> jax.Array:
    """The mean over all tokens but the first of a row, each given those before it. In nats."""
    logits = model(tokens, config).astype(jnp.float32)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:]))


loss_net = js.transform(loss)


def train(
    params: js.Params, config: Config, rows: Callable[[int], np.ndarray], steps: int
) -> tuple[js.Params, list[float]]:
    """Steps of AdamW on the rows of tokens that `rows` gives for each step."""
    optimizer = optax.adamw(3e-3 if steps > 50 else 1e-4)

    @jax.jit
    def step(
        params: js.Params, state: optax.OptState, tokens: jax.Array
    ) -> tuple[js.Params, optax.OptState, jax.Array]:
        value, gradients = jax.value_and_grad(loss_net.apply)(params, tokens, config)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for number in range(steps):
        params, state, value = step(params, state, rows(number))
        losses.append(value)
    return params, [float(value) for value in losses]


def rows_of_text(length: int = 64, batch: int = 8) -> Callable[[int], np.ndarray]:
    """Bytes of the language reference that Python ships for its `help()`."""
    text = np.frombuffer("\n\n".join(topics[name] for name in sorted(topics)).encode(), np.uint8).astype(np.int32)

    def rows(number: int) -> np.ndarray:
        starts = np.random.default_rng(number).integers(len(text) - length, size=batch)
        return text[starts[:, None] + np.arange(length)]

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
    parser = Parser(description="A Llama-like model: a published one by a plan, or a small one trained on text.")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="a published model, with its config.json")
    parser.add_argument("--tokens", type=token_list, default=[0], help="their numbers, with commas between them")
    parser.add_argument("--length", type=whole_number, default=10, help="how many tokens are to follow")
    parser.add_argument("--steps", type=whole_number, default=0, help="training steps: on --tokens, else on text")
    parser.add_argument("--save", type=Path, metavar="FILE", help="for the parameters, by the published names")
    options = parser.parse_args(arguments)
    if options.checkpoint is None:
        config, rows = Config(), rows_of_text()
        params = specs_of(config).init(jax.random.key(0))
    else:
        try:
            config, params, report = load_published(options.checkpoint)
        except (OSError, KeyError, TypeError, ValueError) as error:
            parser.error(f"argument --checkpoint: {error}")
        print(f"{len(report.loaded)} arrays from {options.checkpoint}.")
        rows = functools.partial(lambda tokens, number: tokens, np.array([options.tokens], np.int32))
    if max(options.tokens) >= config.vocab_size:
        parser.error(f"argument --tokens: there are {config.vocab_size} tokens")
    if options.steps:
        params, losses = train(params, config, rows, options.steps)
        print(f"Loss: {losses[0]:.4f} in the first step, {losses[-1]:.4f} in the last.")
    print(*greedy(params, config, np.array(options.tokens), options.length), sep=",")
    if options.save is not None:
        plan(config).save(options.save, params, like=options.checkpoint)
        print(f"Written to {options.save}, by the published names.")


if __name__ == "__main__":
    main()
