"""BERT with the names of google-research/bert, pretrained for a minute on the Python documentation.

The model, both heads of pretraining and the optimizer follow Google's TensorFlow 1 program, so that its checkpoints are
the parameters here. A small model learns from the language reference that Python ships for its `help()`: to fill in
words that are masked out, and to tell whether one passage follows another. Every tenth topic is held out. It prints how
well it does on those, and writes the checkpoint in TensorFlow's format (`bert.ckpt`) and a picture (`bert.png`).

    pip install "jax-scope[examples]"
    python bert.py --steps 1000 --batch 16 --seed 0 --out out

A published model, as transformers has it, is loaded by a plan (`PLAN`), and says what stands at each place:

    python bert.py --checkpoint FOLDER --tokens 101,2023,103,102
"""

import argparse
import dataclasses
import functools
import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple, NoReturn, Self

import jax
import jax.numpy as jnp
import numpy as np

import jscope as js
from jscope import layers
from jscope.checkpoint import AssignReport, Plan, load_tf, save_tf

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
    from rich.progress import track
except ModuleNotFoundError as error:
    raise SystemExit(f'this example needs {error.name}: pip install "jax-scope[examples]"') from None

# Configuration --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The fields of `bert_config.json`."""

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 16
    initializer_range: float = 0.02

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Published files have further keys, which no part of the model reads: they are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})

    @classmethod
    def from_json_file(cls, path: str | Path) -> Self:
        return cls.from_dict(json.loads(Path(path).read_text()))


def gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_erf": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "linear": None,
}


Features = dict[str, np.ndarray]


def get_activation(name: str) -> Callable[[jax.Array], jax.Array] | None:
    if name.lower() not in ACTIVATIONS:
        raise ValueError(f"hidden_act={name!r} is none of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name.lower()]


def create_initializer(initializer_range: float) -> js.truncated_normal_initializer:
    return js.truncated_normal_initializer(stddev=initializer_range)


# The model ------------------------------------------------------------------------------------------------------------


def dropout(x: jax.Array, dropout_prob: float) -> jax.Array:
    if dropout_prob == 0:
        return x
    return jnp.where(jax.random.bernoulli(js.next_key(), 1 - dropout_prob, x.shape), x / (1 - dropout_prob), 0)


def layer_norm(x: jax.Array) -> jax.Array:
    """Over the last dimension alone."""
    return layers.layer_norm(x, begin_norm_axis=-1, begin_params_axis=-1)


def embeddings(
    config: BertConfig, input_ids: jax.Array, token_type_ids: jax.Array, use_one_hot_embeddings: bool
) -> tuple[jax.Array, jax.Array]:
    """What the encoder reads: words, segments and positions, added up. And the table of the words."""
    length = input_ids.shape[1]
    if length > config.max_position_embeddings:
        raise ValueError(f"{length} tokens in a row; the model has {config.max_position_embeddings} positions")

    def table(name: str, size: int) -> jax.Array:
        initializer = create_initializer(config.initializer_range)
        return js.get_variable(name, [size, config.hidden_size], initializer=initializer)

    words = table("word_embeddings", config.vocab_size)
    x = jax.nn.one_hot(input_ids, config.vocab_size) @ words if use_one_hot_embeddings else words[input_ids]
    x += jax.nn.one_hot(token_type_ids, config.type_vocab_size) @ table("token_type_embeddings", config.type_vocab_size)
    x += table("position_embeddings", config.max_position_embeddings)[:length]
    return dropout(layer_norm(x), config.hidden_dropout_prob), words


def attention_layer(config: BertConfig, x: jax.Array, attention_mask: jax.Array) -> jax.Array:
    batch, length, _ = x.shape
    size_per_head = config.hidden_size // config.num_attention_heads

    def heads(name: str) -> jax.Array:
        """[batch, heads, length, size of a head]."""
        initializer = create_initializer(config.initializer_range)
        y = layers.dense(x, config.hidden_size, name=name, kernel_initializer=initializer)
        return y.reshape(batch, length, config.num_attention_heads, size_per_head).swapaxes(1, 2)

    query, key, value = heads("query"), heads("key"), heads("value")
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(size_per_head)
    scores += (1 - attention_mask[:, None, None, :]) * -10000.0
    probs = dropout(jax.nn.softmax(scores), config.attention_probs_dropout_prob)
    return (probs @ value).swapaxes(1, 2).reshape(x.shape)


def transformer_layer(config: BertConfig, x: jax.Array, attention_mask: jax.Array) -> jax.Array:
    initializer = create_initializer(config.initializer_range)
    with js.variable_scope("attention"):
        with js.variable_scope("self"):
            y = attention_layer(config, x, attention_mask)
        with js.variable_scope("output"):
            y = dropout(layers.dense(y, config.hidden_size, kernel_initializer=initializer), config.hidden_dropout_prob)
            attention_output = layer_norm(y + x)
    with js.variable_scope("intermediate"):
        activation = get_activation(config.hidden_act)
        y = layers.dense(attention_output, config.intermediate_size, activation, kernel_initializer=initializer)
    with js.variable_scope("output"):
        y = dropout(layers.dense(y, config.hidden_size, kernel_initializer=initializer), config.hidden_dropout_prob)
        return layer_norm(y + attention_output)


class BertModel(NamedTuple):
    """What `bert_model` gives."""

    embedding_output: jax.Array  # [batch, length, hidden_size]
    all_encoder_layers: tuple[jax.Array, ...]  # each the same
    pooled_output: jax.Array  # [batch, hidden_size]
    embedding_table: jax.Array  # [vocab_size, hidden_size]

    @property
    def sequence_output(self) -> jax.Array:
        return self.all_encoder_layers[-1]


def bert_model(
    config: BertConfig,
    input_ids: jax.Array,
    input_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    is_training: bool = False,
    use_one_hot_embeddings: bool = False,
    scope: str | js.VariableScope | None = None,
) -> BertModel:
    """The encoder.

    Args:
      input_ids: integers of shape [batch, length].
      input_mask: of the same shape: 1 for tokens, 0 for padding. All are tokens unless said.
      token_type_ids: of the same shape: the segment of each token. 0 unless said.
      is_training: whether to drop out, which needs `rng=`.
      use_one_hot_embeddings: looks words up by a product with one-hot vectors.
      scope: "bert", made unique, unless said.
    """
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(f"hidden_size={config.hidden_size} is no multiple of {config.num_attention_heads} heads")
    if not is_training:
        config = dataclasses.replace(config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    mask = jnp.ones(input_ids.shape) if input_mask is None else jnp.asarray(input_mask, jnp.float32)
    token_type_ids = jnp.zeros_like(input_ids) if token_type_ids is None else token_type_ids
    with js.variable_scope(scope, default_name="bert"):
        with js.variable_scope("embeddings"):
            embedding_output, embedding_table = embeddings(config, input_ids, token_type_ids, use_one_hot_embeddings)
        all_encoder_layers = []
        with js.variable_scope("encoder"):
            x = embedding_output
            for index in range(config.num_hidden_layers):
                with js.variable_scope(f"layer_{index}"):
                    x = transformer_layer(config, x, mask)
                all_encoder_layers.append(x)
        with js.variable_scope("pooler"):
            initializer = create_initializer(config.initializer_range)
            pooled_output = layers.dense(x[:, 0], config.hidden_size, jnp.tanh, kernel_initializer=initializer)
    return BertModel(embedding_output, tuple(all_encoder_layers), pooled_output, embedding_table)


# Pretraining ----------------------------------------------------------------------------------------------------------


class Head(NamedTuple):
    loss: jax.Array
    per_example_loss: jax.Array
    log_probs: jax.Array


def cross_entropy(log_probs: jax.Array, labels: jax.Array) -> jax.Array:
    """0 for a label that is no class, as TensorFlow's one-hot vectors have it."""
    return -jnp.sum(log_probs * jax.nn.one_hot(labels.reshape(-1), log_probs.shape[-1]), axis=-1)


def masked_lm(
    config: BertConfig,
    sequence_output: jax.Array,
    embedding_table: jax.Array,
    positions: jax.Array,
    label_ids: jax.Array,
    label_weights: jax.Array,
) -> Head:
    """Which words were masked out. The output weights are the table of the words: they are tied.

    Args:
      positions: those of the masked words, [batch, predictions].
      label_ids: the words, of the same shape.
      label_weights: of the same shape: 1 for predictions, 0 for padding.

    Returns:
      One row for each prediction, [batch * predictions, ...], those of padding among them.
    """
    x = jnp.take_along_axis(sequence_output, positions[:, :, None], axis=1).reshape(-1, config.hidden_size)
    with js.variable_scope("cls/predictions"):
        with js.variable_scope("transform"):
            initializer = create_initializer(config.initializer_range)
            x = layers.dense(x, config.hidden_size, get_activation(config.hidden_act), kernel_initializer=initializer)
            x = layer_norm(x)
        output_bias = js.get_variable("output_bias", [config.vocab_size], initializer=js.zeros_initializer())
        log_probs = jax.nn.log_softmax(x @ embedding_table.T + output_bias)
    losses, weights = cross_entropy(log_probs, label_ids), label_weights.reshape(-1)
    return Head(jnp.sum(weights * losses) / (jnp.sum(weights) + 1e-5), losses, log_probs)


def next_sentence(config: BertConfig, pooled_output: jax.Array, labels: jax.Array) -> Head:
    """Whether the second segment follows the first (0) or is any other (1)."""
    with js.variable_scope("cls/seq_relationship"):
        initializer = create_initializer(config.initializer_range)
        output_weights = js.get_variable("output_weights", [2, config.hidden_size], initializer=initializer)
        output_bias = js.get_variable("output_bias", [2], initializer=js.zeros_initializer())
        log_probs = jax.nn.log_softmax(pooled_output @ output_weights.T + output_bias)
    losses = cross_entropy(log_probs, labels)
    return Head(jnp.mean(losses), losses, log_probs)


class Pretraining(NamedTuple):
    total_loss: jax.Array
    masked_lm: Head
    next_sentence: Head
    model: BertModel


def pretraining(
    config: BertConfig,
    features: Mapping[str, jax.Array],
    *,
    is_training: bool = False,
    use_one_hot_embeddings: bool = False,
) -> Pretraining:
    """The model with both heads. `features` are those of Google's `create_pretraining_data.py`, by their names."""
    model = bert_model(
        config,
        features["input_ids"],
        features.get("input_mask"),
        features.get("segment_ids"),
        is_training=is_training,
        use_one_hot_embeddings=use_one_hot_embeddings,
    )
    words = masked_lm(
        config,
        model.sequence_output,
        model.embedding_table,
        features["masked_lm_positions"],
        features["masked_lm_ids"],
        features["masked_lm_weights"],
    )
    sentence = next_sentence(config, model.pooled_output, features["next_sentence_labels"])
    return Pretraining(words.loss + sentence.loss, words, sentence, model)


# Published checkpoints ------------------------------------------------------------------------------------------------

# From the names of transformers' BertForPreTraining to those of Google's program, and back. Older files have Google's
# names of the norms' variables.
_DENSE = ("dense", "query", "key", "value")
PLAN = (
    Plan()
    .also({"{*module}.LayerNorm.gamma": "{*module}.LayerNorm.weight"})
    .also({"{*module}.LayerNorm.beta": "{*module}.LayerNorm.bias"})
    .tie("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
    .tie("cls.predictions.bias", "cls.predictions.decoder.bias")
    .drop("bert.embeddings.position_ids")
    .transpose([f"{{*module}}.{name}.weight" for name in _DENSE])
    .rename({f"{{*module}}.{name}.weight": f"{{*module}}.{name}.kernel" for name in _DENSE})
    .rename({"{*module}.LayerNorm.weight": "{*module}.LayerNorm.gamma"})
    .rename({"{*module}.LayerNorm.bias": "{*module}.LayerNorm.beta"})
    .rename({f"bert.embeddings.{n}_embeddings.weight": f"bert.embeddings.{n}_embeddings" for n in ("word", "position")})
    .rename({"bert.embeddings.token_type_embeddings.weight": "bert.embeddings.token_type_embeddings"})
    .rename({"cls.predictions.bias": "cls.predictions.output_bias"})
    .rename({"cls.seq_relationship.weight": "cls.seq_relationship.output_weights"})
    .rename({"cls.seq_relationship.bias": "cls.seq_relationship.output_bias"})
    .rename({"bert.encoder.layer.{i}.{*name}": "bert.encoder.layer_{i}.{*name}"})
    .separator(".", "/")
)


def published_config(folder: Path) -> BertConfig:
    """That in a folder's `config.json`. What is "gelu" there is computed exactly, and Google's is "gelu_new"."""
    fields = json.loads((folder / "config.json").read_text())
    names = {"gelu": "gelu_erf", "gelu_new": "gelu"}
    return BertConfig.from_dict({**fields, "hidden_act": names.get(fields["hidden_act"], fields["hidden_act"])})


def all_places(tokens: np.ndarray) -> Features:
    """Features of rows of tokens, [batch, length], of which every place is to be predicted."""
    batch, length = tokens.shape
    return {
        "input_ids": tokens.astype(np.int32),
        "masked_lm_positions": np.tile(np.arange(length, dtype=np.int32), (batch, 1)),
        "masked_lm_ids": tokens.astype(np.int32),
        "masked_lm_weights": np.ones(tokens.shape, np.float32),
        "next_sentence_labels": np.zeros((batch, 1), np.int32),
    }


def load_published(folder: Path) -> tuple[BertConfig, js.Params, AssignReport]:
    """The configuration and the parameters in a folder as `save_pretrained` writes it, in one file or several."""
    config = published_config(folder)
    specs = pretraining_net.specs(config, all_places(np.zeros((1, 1), np.int32)))
    return config, *PLAN.load(specs, folder, allow_cast=True)


# The optimizer --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class AdamWeightDecayOptimizer:
    """Adam without bias correction, and with a decay of the weights that does not go through Adam's averages.

    Its averages are variables, in the scope of the variable that they belong to.
    """

    learning_rate: float | jax.Array
    weight_decay_rate: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    exclude_from_weight_decay: Sequence[str] = ()

    def apply_gradients(self, gradients: Mapping[str, jax.Array]) -> None:
        """Assigns every trainable variable its next value, given the gradients by the variables' names."""
        for variable in js.trainable_variables():
            self._step(variable, gradients[variable.name])

    def _step(self, variable: js.VariableSpec, gradient: jax.Array) -> None:
        m, v = (
            js.get_variable(
                f"{variable.name}/{slot}", variable.shape, trainable=False, initializer=js.zeros_initializer()
            )
            for slot in ("adam_m", "adam_v")
        )
        m = js.assign(m, self.beta_1 * m + (1 - self.beta_1) * gradient)
        v = js.assign(v, self.beta_2 * v + (1 - self.beta_2) * gradient**2)
        update = m / (jnp.sqrt(v) + self.epsilon)
        if not any(re.search(pattern, variable.name) for pattern in self.exclude_from_weight_decay):
            update += self.weight_decay_rate * js.value(variable)
        js.assign(variable, js.value(variable) - self.learning_rate * update)


def clip_by_global_norm(gradients: js.Params, clip_norm: float) -> js.Params:
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients)))
    return jax.tree.map(lambda leaf: leaf * (clip_norm / jnp.maximum(norm, clip_norm)), gradients)


def apply_optimizer(gradients: js.Params, init_lr: float, num_train_steps: int, num_warmup_steps: int) -> None:
    """One step of training: a rate that goes up linearly and then down to 0, by the step that the program keeps."""
    global_step = js.get_variable("global_step", [], jnp.int32, initializer=js.zeros_initializer(), trainable=False)
    decayed = init_lr * (1 - jnp.minimum(global_step, num_train_steps) / num_train_steps)
    warmed_up = init_lr * global_step / max(1, num_warmup_steps)
    optimizer = AdamWeightDecayOptimizer(
        learning_rate=jnp.where(global_step < num_warmup_steps, warmed_up, decayed),
        weight_decay_rate=0.01,
        exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"],
    )
    optimizer.apply_gradients(clip_by_global_norm(gradients, 1.0))
    js.assign(global_step, global_step + 1)


pretraining_net = js.transform(pretraining)


def train_step(
    config: BertConfig,
    features: Mapping[str, jax.Array],
    *,
    is_training: bool = True,
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int,
) -> jax.Array:
    """A program whose variables are the model's and the optimizer's. `update` runs one step."""
    # The loss is differentiated as a pure function of the variables, which is what `lift` is for.
    variables = js.lift(pretraining_net, config, features, is_training=is_training)
    rng = js.next_key() if is_training else None

    def loss(variables: js.Params) -> jax.Array:
        return pretraining_net.apply(variables, config, features, is_training=is_training, rng=rng).total_loss

    total_loss, gradients = jax.value_and_grad(loss)(variables)
    apply_optimizer(gradients, init_lr, num_train_steps, num_warmup_steps)
    return total_loss


training_net = js.transform(train_step)


# Text -----------------------------------------------------------------------------------------------------------------

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
WORDS = 2000
SEGMENT = 30  # words at most in one of the two passages of an example
LENGTH = 2 * SEGMENT + 3
PREDICTIONS = 10  # masked words at most
HELD_OUT = 10  # one topic of ten


class Text(NamedTuple):
    vocabulary: list[str]
    train: list[np.ndarray]  # the words of each topic
    held_out: list[np.ndarray]


def split_topics() -> tuple[list[str], list[str]]:
    """For training, and held out. Topics quote each other: paragraphs that are held out are taken out of training."""
    names = sorted(topics)
    held_out = [topics[name] for name in names[::HELD_OUT]]

    def paragraphs(topic: str) -> list[str]:
        return [" ".join(paragraph.split()) for paragraph in topic.split("\n\n")]

    known = {paragraph for topic in held_out for paragraph in paragraphs(topic)}
    train = [topics[name] for i, name in enumerate(names) if i % HELD_OUT]
    return [" ".join(each for each in paragraphs(topic) if each not in known) for topic in train], held_out


def words_of(text: str) -> list[str]:
    """Words and marks; a mark that is repeated, as in the line below a heading, is one."""
    return [match[0] for match in re.finditer(r"\w+|([^\w\s])\1*", text.lower())]


def load_text() -> Text:
    """The vocabulary is of the words most frequent in training."""
    train, held_out = (
        [words for topic in part if len(words := words_of(topic)) >= 2 * SEGMENT] for part in split_topics()
    )
    frequent = Counter(word for topic in train for word in topic).most_common(WORDS - len(SPECIAL))
    vocabulary = [*SPECIAL, *(word for word, _ in frequent)]
    number = {word: i for i, word in enumerate(vocabulary)}

    def numbers(topic: list[str]) -> np.ndarray:
        return np.array([number.get(word, UNK) for word in topic], np.int32)

    return Text(vocabulary, [numbers(topic) for topic in train], [numbers(topic) for topic in held_out])


def two_passages(rng: np.random.Generator, documents: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Two passages, and whether the second is of any other document, which it is in one case of two."""
    weights = np.array([len(document) for document in documents], float)
    document = rng.choice(len(documents), p=weights / weights.sum())
    sizes = rng.integers(SEGMENT // 2, SEGMENT + 1, size=2)
    start = rng.integers(len(documents[document]) - sizes.sum() + 1)
    first, rest = np.split(documents[document][start:], [sizes[0]])
    if rng.random() < 0.5:
        return first, rest[: sizes[1]], False
    weights[document] = 0
    other = documents[rng.choice(len(documents), p=weights / weights.sum())]
    start = rng.integers(len(other) - sizes[1] + 1)
    return first, other[start : start + sizes[1]], True


def example(rng: np.random.Generator, documents: list[np.ndarray]) -> Features:
    """One row of each feature: some words of two passages are to be predicted, most of which are masked out."""
    first, second, is_random = two_passages(rng, documents)
    ids = np.concatenate([[CLS], first, [SEP], second, [SEP]])
    segments = np.repeat([0, 1], [len(first) + 2, len(second) + 1])
    candidates = rng.permutation(np.flatnonzero(ids >= len(SPECIAL)))
    positions = np.sort(candidates[: min(PREDICTIONS, max(1, round(0.15 * len(candidates))))])
    labels = ids[positions]
    # As published: eight of ten are masked, one is any word, one is left.
    chance = rng.random(len(positions))
    any_word = rng.integers(len(SPECIAL), WORDS, size=len(positions))
    ids[positions] = np.where(chance < 0.8, MASK, np.where(chance < 0.9, any_word, labels))

    def padded(values: Any, size: int) -> np.ndarray:
        return np.pad(values, (0, size - len(values)))

    return {
        "input_ids": padded(ids.astype(np.int32), LENGTH),
        "input_mask": padded(np.ones(len(ids), np.int32), LENGTH),
        "segment_ids": padded(segments.astype(np.int32), LENGTH),
        "masked_lm_positions": padded(positions.astype(np.int32), PREDICTIONS),
        "masked_lm_ids": padded(labels.astype(np.int32), PREDICTIONS),
        "masked_lm_weights": padded(np.ones(len(positions), np.float32), PREDICTIONS),
        "next_sentence_labels": np.array([is_random], np.int32),
    }


def draw(rng: np.random.Generator, documents: list[np.ndarray], count: int) -> Features:
    rows = [example(rng, documents) for _ in range(count)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


# Training -------------------------------------------------------------------------------------------------------------

# A minute is too short for dropout to pay (measured in 500 steps of 32: 13.7% of held-out words right, 15.7% without).
# The initial values are wider spread than published, since the layers are narrower.
CONFIG = BertConfig(
    vocab_size=WORDS,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=256,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=64,
    type_vocab_size=2,
    initializer_range=0.1,
)
RATE = 1e-3
EXAMPLES = 256  # held-out ones


class Accuracy(NamedTuple):
    words: float
    sentences: float


@functools.partial(jax.jit, static_argnums=1)
def guesses(params: js.Params, config: BertConfig, features: Features) -> tuple[jax.Array, jax.Array]:
    outputs = pretraining_net.apply(params, config, features)
    return jnp.argmax(outputs.masked_lm.log_probs, -1), jnp.argmax(outputs.next_sentence.log_probs, -1)


def accuracy(words: np.ndarray, sentences: np.ndarray, features: Features) -> Accuracy:
    """The share of masked words, and of pairs of passages, that are guessed rightly."""
    right = np.asarray(words).reshape(features["masked_lm_ids"].shape) == features["masked_lm_ids"]
    sentences_right = np.asarray(sentences) == features["next_sentence_labels"][:, 0]
    return Accuracy(float(np.average(right, weights=features["masked_lm_weights"])), float(np.mean(sentences_right)))


def without_reading(features: Features) -> Accuracy:
    """The accuracy of the best answers that are always the same."""
    words = np.full(features["masked_lm_ids"].shape, frequent(features["masked_lm_ids"], features["masked_lm_weights"]))
    sentences = np.full(len(words), frequent(features["next_sentence_labels"]))
    return accuracy(words, sentences, features)


def frequent(values: np.ndarray, weights: np.ndarray | None = None) -> int:
    return int(np.argmax(np.bincount(values.ravel(), None if weights is None else weights.ravel())))


class History(NamedTuple):
    losses: np.ndarray
    held_out: dict[int, Accuracy]  # by the number of steps done


def train(
    params: js.Params, config: BertConfig, text: Text, held_out: Features, steps: int, batch: int, seed: int
) -> tuple[js.Params, History]:
    schedule = {"init_lr": RATE, "num_train_steps": steps, "num_warmup_steps": steps // 10}
    step = jax.jit(functools.partial(training_net.update, **schedule), static_argnums=1, donate_argnums=0)
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    measured = {0: accuracy(*guesses(params, config, held_out), held_out)}
    losses = []
    every = max(1, steps // 10)
    for number in track(range(1, steps + 1), description="Pretraining"):
        loss, params = step(params, config, draw(rng, text.train, batch), rng=jax.random.fold_in(key, number))
        losses.append(loss)
        if number % every == 0 or number == steps:
            measured[number] = accuracy(*guesses(params, config, held_out), held_out)
    return params, History(np.array(losses), measured)


def filled_in(vocabulary: list[str], example: Features, guessed: np.ndarray) -> str:
    """The tokens of one example, and at each word to predict what was guessed and what stood there."""
    words = [vocabulary[i] for i in example["input_ids"][example["input_mask"] > 0]]
    for i in np.flatnonzero(example["masked_lm_weights"]):
        right = vocabulary[example["masked_lm_ids"][i]]
        words[example["masked_lm_positions"][i]] += f" <{vocabulary[guessed[i]]}, was {right}>"
    return " ".join(words)


def plot(history: History, baseline: Accuracy, path: Path) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(np.arange(1, len(history.losses) + 1), history.losses, color="#1f4e8c", linewidth=1)
    left.set(title="Training loss, both heads", xlabel="step", ylim=(0, None))
    steps, measured = list(history.held_out), list(history.held_out.values())
    for kind, color in (("words", "#1f4e8c"), ("sentences", "#c4601d")):
        right.plot(steps, [getattr(each, kind) for each in measured], color=color, marker=".", label=kind)
        right.axhline(
            getattr(baseline, kind), color=color, linestyle="--", linewidth=1, label=f"{kind}, without reading"
        )
    right.set(title="Guessed rightly in held-out topics", xlabel="step", ylim=(0, 1.02))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    right.legend(frameon=False)
    for axes in (left, right):
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


def read_published(parser: Parser, folder: Path, tokens: list[int]) -> None:
    try:
        config, params, report = load_published(folder)
    except (OSError, KeyError, ValueError) as error:
        parser.error(f"argument --checkpoint: {error}")
    if max(tokens) >= config.vocab_size or len(tokens) > config.max_position_embeddings:
        what = f"{config.vocab_size} tokens are known, and a row has {config.max_position_embeddings} at most"
        parser.error(f"argument --tokens: {what}")
    print(f"{len(report.loaded)} arrays from {folder}.")
    words, _ = guesses(params, config, all_places(np.array([tokens])))
    print(*np.asarray(words), sep=",")


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description="Pretrain a small BERT on the Python documentation.")
    parser.add_argument("--steps", type=whole_number(1), default=1000, help="training steps")
    parser.add_argument("--batch", type=whole_number(2), default=16, help="pairs of passages in a step")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of everything random")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for what is written")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="a published model, which reads --tokens")
    parser.add_argument("--tokens", type=token_list, default=[0], help="their numbers, with commas between them")
    options = parser.parse_args(arguments)
    if options.checkpoint is not None:
        read_published(parser, options.checkpoint, options.tokens)
        return
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        # A folder that can't be written to is found out now, not after training.
        tempfile.TemporaryFile(dir=options.out).close()
    except OSError as error:
        parser.error(f"argument --out: {error}")

    text = load_text()
    held_out = draw(np.random.default_rng(options.seed), text.held_out, EXAMPLES)
    specs = training_net.specs(CONFIG, held_out, init_lr=RATE, num_train_steps=1, num_warmup_steps=0)
    model_specs = pretraining_net.specs(CONFIG, held_out)
    print(model_specs)
    print(f"The optimizer has {len(specs) - len(model_specs)} more.")

    params = specs.init(jax.random.key(options.seed))
    params, history = train(params, CONFIG, text, held_out, options.steps, options.batch, options.seed)
    baseline, found = without_reading(held_out), history.held_out[options.steps]
    plot(history, baseline, options.out / "bert.png")
    tail = max(1, options.steps // 20)
    first, last = history.losses[:tail].mean(), history.losses[-tail:].mean()
    print(f"Training loss: {first:.4f} in the first steps, {last:.4f} in the last.")
    print(f"Held-out words guessed rightly: {found.words:.1%} (always the most frequent: {baseline.words:.1%}).")
    print(f"Held-out pairs of passages: {found.sentences:.1%} (always the same answer: {baseline.sentences:.1%}).")
    first_example = {name: values[0] for name, values in held_out.items()}
    guessed, _ = guesses(params, CONFIG, held_out)
    print(f"\n{filled_in(text.vocabulary, first_example, np.asarray(guessed)[:PREDICTIONS])}\n")

    prefix = options.out / "bert.ckpt"
    save_tf(prefix, params)
    verdict = "equal" if js.Params(load_tf(prefix)) == params else "DIFFERENT"
    print(f"Written to {options.out}: bert.png, bert.ckpt (loaded again: {verdict}).")
    print(f"List it with: python -m jscope ls {prefix}")


if __name__ == "__main__":
    main()
