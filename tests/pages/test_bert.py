"""examples/bert.py against what TensorFlow computed with Google's program: names, numbers, training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import DATA, ROOT

import jscope as js
from jscope.checkpoint import list_tf, load_tf

for package in ("matplotlib", "rich"):
    pytest.importorskip(package)


def load():
    spec = importlib.util.spec_from_file_location("bert", ROOT / "examples" / "bert.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bert = load()
NAMES = json.loads((DATA / "bert_names.json").read_text())
MODEL, HEADS = NAMES["variables"], NAMES["pretraining_heads"]
OPTIMIZER = NAMES["adam_weight_decay_optimizer_extra"]
CONFIG = bert.BertConfig.from_dict(NAMES["_config"])
IDS = np.zeros((1, 3), np.int32)


# What tests/support/record_bert.py recorded ---------------------------------------------------------------------------


@functools.cache
def recorded():
    with np.load(DATA / "bert_small_io.npz") as file:
        return dict(file)


def part(prefix):
    return {name.removeprefix(prefix): value for name, value in recorded().items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, js.Params(load_tf(DATA / "bert_small.ckpt")))


def close(actual, expected, tolerance=1e-5, name=""):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=name)


def declared(specs):
    return {name: list(spec.shape) for name, spec in specs.items()}


# Names ----------------------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_tensorflows():
    specs = js.transform(bert.bert_model).specs(CONFIG, IDS)
    assert list(declared(specs).items()) == list(MODEL.items())
    assert len(specs) == 39
    assert all(spec.dtype == jnp.float32 and spec.trainable for spec in specs.values())


def test_names_of_pretraining_and_of_its_optimizer_are_tensorflows():
    specs = bert.training_net.specs(CONFIG, part("padded/features/"), init_lr=1, num_train_steps=1, num_warmup_steps=1)
    expected = MODEL | HEADS | OPTIMIZER
    assert list(declared(specs).items()) == list(expected.items())
    assert list(specs) == list(recorded()["training/names"])
    assert [spec.trainable for spec in specs.values()] == [name not in OPTIMIZER for name in expected]
    assert len(specs) == 39 + 7 + 93


def test_second_model_gets_a_name_of_its_own():
    def two():
        bert.bert_model(CONFIG, IDS)
        bert.bert_model(CONFIG, IDS)

    expected = [*MODEL, *(name.replace("bert/", "bert_1/", 1) for name in MODEL)]
    assert list(js.transform(two).specs()) == expected


def test_second_model_of_one_scope_is_refused():
    def two():
        bert.bert_model(CONFIG, IDS, scope="bert")
        bert.bert_model(CONFIG, IDS, scope="bert")

    with pytest.raises(js.VariableExistsError, match="bert/embeddings/word_embeddings"):
        js.transform(two).specs()


def test_second_model_under_auto_reuse_is_shared():
    def two():
        with js.variable_scope("", reuse=js.AUTO_REUSE):
            bert.bert_model(CONFIG, IDS, scope="bert")
            bert.bert_model(CONFIG, IDS, scope="bert")

    assert list(js.transform(two).specs()) == list(MODEL)


def test_base_model_has_as_many_numbers_as_published():
    """110 million in the README of google-research/bert."""
    config = bert.BertConfig(vocab_size=30522, type_vocab_size=2)
    assert js.transform(bert.bert_model).specs(config, IDS).size == 109_482_240


# Numbers --------------------------------------------------------------------------------------------------------------


@functools.cache
def apply(one_hot):
    return jax.jit(functools.partial(bert.pretraining_net.apply, use_one_hot_embeddings=one_hot), static_argnums=1)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", ["padded", "one_hot", "plain"])
def test_outputs_are_tensorflows(params, case):
    outputs = apply(case == "one_hot")(params, CONFIG, part(f"{case}/features/"))
    expected = part(f"{case}/outputs/")
    for name in ("embedding_output", "sequence_output", "pooled_output"):
        close(getattr(outputs.model, name), expected.pop(name), name=name)
    close(outputs.model.all_encoder_layers, expected.pop("all_encoder_layers"))
    close(outputs.total_loss, expected.pop("total_loss"))
    for head in ("masked_lm", "next_sentence"):
        for name in ("loss", "per_example_loss", "log_probs"):
            close(getattr(getattr(outputs, head), name), expected.pop(f"{head}/{name}"), name=f"{head}/{name}")
    assert not expected
    assert outputs.model.embedding_table is not None
    close(outputs.model.embedding_table, params["bert/embeddings/word_embeddings"], 0)


@pytest.mark.slow
def test_training_is_tensorflows(params):
    """Losses, variables and the optimizer's averages of four steps, of which two have a rate that goes up."""
    steps, train_steps, warmup_steps = recorded()["steps"].tolist()
    options = {
        "is_training": False,  # without dropout
        "init_lr": float(recorded()["learning_rate"]),
        "num_train_steps": train_steps,
        "num_warmup_steps": warmup_steps,
    }
    features = part("padded/features/")
    all_params = bert.training_net.init(jax.random.key(0), CONFIG, features, **options, warm_start=params)
    step = jax.jit(functools.partial(bert.training_net.update, **options), static_argnums=1)
    losses = []
    for _ in range(steps):
        loss, all_params = step(all_params, CONFIG, features)
        losses.append(loss)
    after = part("training/after/")
    close(losses, after.pop("losses"))
    assert after.keys() == {name for name, leaf in all_params.flat().items() if "/adam_" not in name or leaf.size < 100}
    for name, value in after.items():
        # Softmax does not depend on a bias of the keys: its gradient is rounding, of which Adam makes steps.
        close(all_params[name], value, 1e-4 if name.endswith("key/bias") else 1e-5, name)
    moved = {name: np.abs(all_params[name] - leaf).max() for name, leaf in params.flat().items()}
    assert min(move for name, move in moved.items() if not name.endswith("key/bias")) > 1e-3

    # The rate has gone down to 0 but for rounding, and stays there.
    late = all_params.replace({"global_step": jnp.int32(train_steps + 3)})
    _, later = step(late, CONFIG, features)
    for name in params.names:
        close(later[name], late[name], 1e-8, name)


def test_dropout_is_in_training_alone(params):
    net = js.transform(bert.bert_model)
    options = {"config": dataclasses.replace(CONFIG, num_hidden_layers=1), "is_training": True}
    train = jax.jit(functools.partial(net.apply, **options))
    pooled = [np.asarray(train(params, input_ids=IDS, rng=jax.random.key(i)).pooled_output) for i in (0, 0, 1)]
    assert (pooled[0] == pooled[1]).all()
    assert (pooled[0] != pooled[2]).any()
    with pytest.raises(js.MissingRngError):
        net.apply(params, CONFIG, IDS, is_training=True)


def test_dropout_keeps_the_mean():
    drop = js.transform(functools.partial(bert.dropout, dropout_prob=0.25))
    x = np.asarray(drop.apply({}, np.ones((1000, 100), np.float32), rng=jax.random.key(0)))
    np.testing.assert_allclose(np.unique(x), [0, 1 / 0.75], rtol=1e-6)
    assert np.mean(x == 0) == pytest.approx(0.25, abs=0.01)


# Configuration --------------------------------------------------------------------------------------------------------


def test_config_is_read_from_a_file(tmp_path):
    path = tmp_path / "bert_config.json"
    path.write_text(json.dumps({**NAMES["_config"], "directionality": "bidi"}))
    assert bert.BertConfig.from_json_file(path) == CONFIG


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "swish"}, "hidden_act='swish' is none of gelu, gelu_erf, relu, tanh, linear"),
        ({"num_attention_heads": 5}, "hidden_size=32 is no multiple of 5 heads"),
        ({"max_position_embeddings": 2}, "3 tokens in a row; the model has 2 positions"),
    ],
)
def test_config_that_means_nothing(fields, message):
    config = bert.BertConfig.from_dict(NAMES["_config"] | fields)
    with pytest.raises(ValueError, match=message):
        js.transform(bert.bert_model).specs(config, IDS)


# The example ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    module = load()
    module.CONFIG = bert.BertConfig(
        vocab_size=module.WORDS,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        type_vocab_size=2,
    )
    module.EXAMPLES = 64
    module.RATE = 1e-2
    return module


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "new" / "folder"
    with contextlib.redirect_stdout(io.StringIO()) as text:
        small.main(["--steps", "40", "--batch", "16", "--seed", "3", "--out", str(out)])
    return out, text.getvalue()


def figures(text, pattern):
    return [float(figure) for figure in re.search(pattern, text).groups()]


@pytest.mark.slow
def test_run_learns(run):
    _, text = run
    first, last = figures(text, r"Training loss: (\S+) in the first steps, (\S+) in the last\.")
    assert abs(first - np.log(2000) - np.log(2)) < 0.3
    assert last < 0.9 * first
    words, words_baseline = figures(text, r"words guessed rightly: (\S+)% \(.*: (\S+)%\)")
    assert words > 0.9 * words_baseline  # the first thing that is learnt is how frequent each word is
    assert words_baseline > 5
    sentences, sentences_baseline = figures(text, r"pairs of passages: (\S+)% \(.*: (\S+)%\)")
    assert 0 <= sentences <= 100
    assert 50 <= sentences_baseline < 75


@pytest.mark.slow
def test_run_writes_what_it_says(run, small):
    out, text = run
    assert {path.name for path in out.iterdir()} == {"bert.png", "bert.ckpt.index", "bert.ckpt.data-00000-of-00001"}
    assert (out / "bert.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "(loaded again: equal)" in text
    assert text.endswith(f"python -m jscope ls {out}/bert.ckpt\n")
    saved = list_tf(out / "bert.ckpt")
    assert len([name for name in saved if name.endswith("/adam_m")]) == 30
    assert load_tf(out / "bert.ckpt")["global_step"] == 40


# The text of the example ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text(small):
    return small.load_text()


def test_text_is_split_by_topics(small, text):
    """And no paragraph of the held-out ones is in training, though topics quote each other."""
    topics = [small.topics[name] for name in sorted(small.topics)]
    train, held_out = small.split_topics()
    assert held_out == topics[::10]
    assert len(train) + len(held_out) == len(topics)
    others = " ".join(" ".join(topics).split())
    assert 0.7 * len(others) < sum(map(len, train)) < 0.95 * len(others)
    long = {" ".join(each.split()) for topic in held_out for each in topic.split("\n\n") if len(each) > 200}
    assert len(long) > 20
    assert not [paragraph for paragraph in long if any(paragraph in topic for topic in train)]
    assert 3 < len(text.held_out) < len(text.train) / 5


def test_vocabulary_is_of_the_most_frequent_words(small, text):
    assert small.words_of("A_b == --- (x.y)") == ["a_b", "==", "---", "(", "x", ".", "y", ")"]
    assert len(text.vocabulary) == len(set(text.vocabulary)) == small.WORDS
    everything = np.concatenate(text.train)
    counts = np.bincount(everything, minlength=small.WORDS)
    assert (np.diff(counts[len(small.SPECIAL) :]) <= 0).all()
    assert not counts[[small.PAD, small.CLS, small.SEP, small.MASK]].any()
    assert counts[small.UNK] < 0.2 * len(everything)


def test_examples_are_as_published(small):
    """On documents of which each word occurs once, so that every token says where it is from."""
    documents = [np.arange(start, start + 400, dtype=np.int32) for start in (10, 410, 810, 1210)]
    rng = np.random.default_rng(0)
    rows = [small.example(rng, documents) for _ in range(400)]
    kept = masked = predictions = 0
    for row in rows:
        ids, count = row["input_ids"].copy(), int(row["masked_lm_weights"].sum())
        size = row["input_mask"].sum()
        assert (row["input_mask"][:size] == 1).all()
        assert not ids[size:].any()
        positions, labels = row["masked_lm_positions"][:count], row["masked_lm_ids"][:count]
        assert not row["masked_lm_positions"][count:].any()
        masked += np.sum(ids[positions] == small.MASK)
        kept += np.sum(ids[positions] == labels)
        predictions += count
        assert count == min(small.PREDICTIONS, round(0.15 * (size - 3)))
        ids[positions] = labels
        first_end, second_end = np.flatnonzero(ids == small.SEP)
        assert (ids[0], second_end) == (small.CLS, size - 1)
        np.testing.assert_array_equal(
            row["segment_ids"], (np.arange(small.LENGTH) > first_end) & (row["input_mask"] == 1)
        )
        first, second = ids[1:first_end], ids[first_end + 1 : second_end]
        for passage in (first, second):
            assert small.SEGMENT // 2 <= len(passage) <= small.SEGMENT
            assert (np.diff(passage) == 1).all()
            assert (passage[0] - 10) // 400 == (passage[-1] - 10) // 400
        if row["next_sentence_labels"][0]:
            assert (first[0] - 10) // 400 != (second[0] - 10) // 400
        else:
            assert second[0] == first[-1] + 1
    assert masked / predictions == pytest.approx(0.8, abs=0.03)
    assert kept / predictions == pytest.approx(0.1, abs=0.03)
    assert np.mean([row["next_sentence_labels"] for row in rows]) == pytest.approx(0.5, abs=0.1)


def test_filled_in_shows_guesses_and_words(small):
    example = {
        "input_ids": np.array([2, 5, 4, 3, 0]),
        "input_mask": np.array([1, 1, 1, 1, 0]),
        "masked_lm_positions": np.array([1, 2, 0]),
        "masked_lm_ids": np.array([5, 6, 0]),
        "masked_lm_weights": np.array([1.0, 1.0, 0.0]),
    }
    vocabulary = [*small.SPECIAL, "the", "cat"]
    shown = small.filled_in(vocabulary, example, np.array([5, 5, 5]))
    assert shown == "[CLS] the <the, was the> [MASK] <the, was cat> [SEP]"


def test_accuracy_counts_rightly(small):
    features = {
        "masked_lm_ids": np.array([[7, 8, 0], [7, 0, 0]]),
        "masked_lm_weights": np.array([[1.0, 1, 0], [1, 0, 0]]),
        "next_sentence_labels": np.array([[1], [1]]),
    }
    words, sentences = small.accuracy(np.array([7, 7, 0, 8, 0, 0]), np.array([1, 0]), features)
    assert (words, sentences) == (pytest.approx(1 / 3), 0.5)
    assert small.without_reading(features) == (pytest.approx(2 / 3), 1.0)
