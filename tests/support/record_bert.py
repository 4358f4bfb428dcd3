"""Records what google-research/bert's own files compute in TensorFlow, for `test_bert`.

    git clone https://github.com/google-research/bert
    TF_USE_LEGACY_KERAS=1 python tests/support/record_bert.py --bert-dir bert

It needs TensorFlow 2 with its graph mode, `tf_keras` and `tf_slim`, which has `tf.contrib.layers.layer_norm`. It writes
into tests/data: a checkpoint of random values, and inputs, outputs, losses and some steps of training.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any

from paths import DATA

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    # BERT's optimizer reads global_step and counts it up in one step, in no order. With the first kind of variables the
    # count was seen to come first; those of the second kind are read before.
    tf.enable_resource_variables()
    import tf_slim

logging.getLogger("tensorflow").setLevel(logging.ERROR)

CONFIG = json.loads((DATA / "bert_names.json").read_text())["_config"]
STEPS = 4
SMALL = 100  # the slots of variables with fewer elements are recorded
LEARNING_RATE, TRAIN_STEPS, WARMUP_STEPS = 1e-2, 10, 2


def bert_files(directory: str) -> types.SimpleNamespace:
    """BERT's modules; the `tensorflow` that they import is TensorFlow 1 as far as they use it."""
    first_version = types.ModuleType("tensorflow")
    first_version.__getattr__ = lambda name: getattr(tf, name)
    first_version.contrib = types.SimpleNamespace(layers=types.SimpleNamespace(layer_norm=tf_slim.layer_norm))
    second_version = sys.modules["tensorflow"]
    sys.modules["tensorflow"] = first_version
    sys.path.insert(0, directory)
    try:
        names = ("modeling", "optimization", "run_pretraining")
        return types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.modules["tensorflow"] = second_version
        sys.path.remove(directory)


def random_features(rng: np.random.Generator, batch: int, length: int, predictions: int) -> dict[str, np.ndarray]:
    """As a pretraining example: padded at the end, two segments, some predictions that don't count."""
    lengths = rng.integers(length // 2, length + 1, size=batch)
    place = np.arange(length)
    counted = np.arange(predictions) < rng.integers(1, predictions + 1, size=(batch, 1))
    return {
        "input_ids": rng.integers(CONFIG["vocab_size"], size=(batch, length), dtype=np.int32),
        "input_mask": (place < lengths[:, None]).astype(np.int32),
        "segment_ids": (place >= lengths[:, None] // 2).astype(np.int32),
        "masked_lm_positions": rng.integers(length // 2, size=(batch, predictions), dtype=np.int32) * counted,
        "masked_lm_ids": rng.integers(CONFIG["vocab_size"], size=(batch, predictions), dtype=np.int32) * counted,
        "masked_lm_weights": counted.astype(np.float32),
        "next_sentence_labels": rng.integers(2, size=(batch, 1), dtype=np.int32),
    }


def cases() -> dict[str, tuple[dict[str, np.ndarray], dict[str, bool]]]:
    """Features, and whether word embeddings are looked up as one-hot vectors."""
    rng = np.random.default_rng(7)
    padded = random_features(rng, 3, 11, 4)
    one_hot = random_features(rng, 1, CONFIG["max_position_embeddings"], 3)
    plain = random_features(rng, 2, 5, 2)
    del plain["input_mask"], plain["segment_ids"]
    return {"padded": (padded, False), "one_hot": (one_hot, True), "plain": (plain, False)}


def random_value(rng: np.random.Generator, variable: Any) -> np.ndarray:
    """Large enough for every variable to show in the outputs, in all of the digits that are compared."""
    value = rng.normal(size=variable.shape.as_list()) * 0.2
    return (value + 1 if variable.op.name.endswith("gamma") else value).astype(np.float32)


def build(bert: types.SimpleNamespace, features: dict[str, np.ndarray], one_hot: bool) -> dict[str, Any]:
    """The graph of pretraining, without dropout: its outputs by name."""
    config = bert.modeling.BertConfig.from_dict(CONFIG)
    inputs = {name: tf.constant(value) for name, value in features.items()}
    model = bert.modeling.BertModel(
        config=config,
        is_training=False,
        input_ids=inputs["input_ids"],
        input_mask=inputs.get("input_mask"),
        token_type_ids=inputs.get("segment_ids"),
        use_one_hot_embeddings=one_hot,
    )
    masked_lm = bert.run_pretraining.get_masked_lm_output(
        config,
        model.get_sequence_output(),
        model.get_embedding_table(),
        inputs["masked_lm_positions"],
        inputs["masked_lm_ids"],
        inputs["masked_lm_weights"],
    )
    next_sentence = bert.run_pretraining.get_next_sentence_output(
        config, model.get_pooled_output(), inputs["next_sentence_labels"]
    )
    outputs = {
        "embedding_output": model.get_embedding_output(),
        "all_encoder_layers": tf.stack(model.get_all_encoder_layers()),
        "sequence_output": model.get_sequence_output(),
        "pooled_output": model.get_pooled_output(),
        "total_loss": masked_lm[0] + next_sentence[0],
    }
    for head, values in (("masked_lm", masked_lm), ("next_sentence", next_sentence)):
        parts = ("loss", "per_example_loss", "log_probs")
        outputs |= {f"{head}/{part}": value for part, value in zip(parts, values, strict=True)}
    return outputs


def record_checkpoint(bert: types.SimpleNamespace, prefix: str, features: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(11)
    with tf.Graph().as_default(), tf.Session() as session:
        build(bert, features, False)
        for variable in tf.global_variables():
            variable.load(random_value(rng, variable), session)
        tf.train.Saver().save(session, prefix, write_meta_graph=False, write_state=False)


def record_outputs(
    bert: types.SimpleNamespace, prefix: str, features: dict[str, np.ndarray], one_hot: bool
) -> dict[str, np.ndarray]:
    with tf.Graph().as_default(), tf.Session() as session:
        outputs = build(bert, features, one_hot)
        tf.train.Saver().restore(session, prefix)
        return session.run(outputs)


def record_training(
    bert: types.SimpleNamespace, prefix: str, features: dict[str, np.ndarray]
) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names of all variables in their order; the losses, and what is in the variables after the steps."""
    with tf.Graph().as_default(), tf.Session() as session:
        outputs = build(bert, features, False)
        loader = tf.train.Saver()
        step = bert.optimization.create_optimizer(
            outputs["total_loss"], LEARNING_RATE, TRAIN_STEPS, WARMUP_STEPS, use_tpu=False
        )
        session.run(tf.global_variables_initializer())
        loader.restore(session, prefix)
        losses = []
        for _ in range(STEPS):
            losses.append(session.run(outputs["total_loss"]))
            session.run(step)
        variables = tf.global_variables()
        after = {v.op.name: v for v in variables if "/adam_" not in v.op.name or v.shape.num_elements() < SMALL}
        return [v.op.name for v in variables], {"losses": np.array(losses), **session.run(after)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what google-research/bert computes.")
    parser.add_argument("--bert-dir", required=True, help="a clone of google-research/bert")
    parser.add_argument("--out", type=Path, default=DATA, help="folder for what is recorded")
    options = parser.parse_args()
    bert = bert_files(options.bert_dir)
    prefix = str(options.out / "bert_small.ckpt")
    recorded: dict[str, Any] = {"learning_rate": LEARNING_RATE, "steps": (STEPS, TRAIN_STEPS, WARMUP_STEPS)}
    record_checkpoint(bert, prefix, cases()["padded"][0])
    for name, (features, one_hot) in cases().items():
        outputs = record_outputs(bert, prefix, features, one_hot)
        recorded |= {f"{name}/features/{key}": value for key, value in features.items()}
        recorded |= {f"{name}/outputs/{key}": value for key, value in outputs.items()}
    names, after = record_training(bert, prefix, cases()["padded"][0])
    recorded |= {"training/names": np.array(names)} | {f"training/after/{key}": value for key, value in after.items()}
    np.savez_compressed(options.out / "bert_small_io.npz", **recorded)


if __name__ == "__main__":
    main()
