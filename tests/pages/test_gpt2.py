"""examples/gpt2.py against what TensorFlow computed with OpenAI's program: names, numbers, sampling, training."""

from __future__ import annotations

import contextlib
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

for package in ("optax", "matplotlib", "rich"):
    pytest.importorskip(package)


def load():
    spec = importlib.util.spec_from_file_location("gpt2", ROOT / "examples" / "gpt2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpt2 = load()
RECORDED = json.loads((DATA / "gpt2_names.json").read_text())
HPARAMS = gpt2.HParams(**RECORDED["_config"])
NET = js.transform(gpt2.model)
APPLY = jax.jit(NET.apply, static_argnums=1)
TOKENS, LOGITS, PRESENT = (np.load(DATA / "gpt2_small_io.npz")[name] for name in ("tokens", "logits", "present"))


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, js.Params(load_tf(DATA / "gpt2_small.ckpt")))


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


# Names ----------------------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_tensorflows():
    specs = NET.specs(HPARAMS, TOKENS)
    assert [(name, list(spec.shape)) for name, spec in specs.items()] == list(RECORDED["variables"].items())
    assert all(spec.dtype == jnp.float32 and spec.trainable for spec in specs.values())


def test_second_call_without_reuse_is_refused():
    def twice(tokens):
        gpt2.model(HPARAMS, tokens)
        gpt2.model(HPARAMS, tokens)

    with pytest.raises(js.VariableExistsError, match="model/wpe"):
        js.transform(twice).specs(TOKENS)


def test_second_call_with_auto_reuse_and_past_adds_nothing():
    def twice(tokens):
        past = gpt2.model(HPARAMS, tokens)["present"]
        gpt2.model(HPARAMS, tokens, past, reuse=js.AUTO_REUSE)

    assert list(js.transform(twice).specs(TOKENS)) == list(RECORDED["variables"])


def test_default_sizes_are_those_of_the_124_million():
    specs = NET.specs(gpt2.default_hparams(), np.zeros((1, 1), np.int32))
    assert (len(specs), specs.size) == (148, 124_439_808)


# Numbers --------------------------------------------------------------------------------------------------------------


def test_outputs_are_tensorflows(params):
    results = APPLY(params, HPARAMS, TOKENS)
    assert set(results) == {"logits", "present"}
    close(results["logits"], LOGITS)
    close(results["present"], PRESENT)


@pytest.mark.parametrize("unused", [0, 3])
def test_past_stands_for_the_tokens_before(params, unused):
    """Also in a past that is longer than what it holds: what is unused may hold any numbers."""

    def in_parts(tokens):
        first = gpt2.model(HPARAMS, tokens[:, :3])
        garbage = jnp.full((2, 2, 2, 4, unused, 6), 7.0)
        past = jnp.concatenate([garbage, first["present"]], axis=-2)
        length = {"past_length": 3} if unused else {}
        second = gpt2.model(HPARAMS, tokens[:, 3:], past, reuse=js.AUTO_REUSE, **length)
        return [
            jnp.concatenate(parts, axis)
            for parts, axis in [([first["logits"], second["logits"]], 1), ([first["present"], second["present"]], -2)]
        ]

    logits, present = jax.jit(js.transform(in_parts).apply)(params, TOKENS)
    close(logits, LOGITS)
    close(present, PRESENT)


def test_a_token_sees_none_behind_it(params):
    changed = TOKENS.copy()
    changed[:, 5] += 1
    logits = APPLY(params, HPARAMS, changed)["logits"]
    close(logits[:, :5], LOGITS[:, :5])
    assert np.abs(logits[:, 5:] - LOGITS[:, 5:]).max(axis=(0, 2)).min() > 1e-3


def test_more_positions_than_the_model_has(params):
    with pytest.raises(ValueError, match="17 positions; the model has n_ctx=16"):
        NET.apply(params, HPARAMS, np.zeros((1, 1), np.int32), np.zeros((1, 2, 2, 4, 16, 6)))


# Sampling -------------------------------------------------------------------------------------------------------------


def sample_without_past(*, hparams, length, context, temperature=1.0, top_k=0):
    """Each token from all of those before it, which the model reads anew."""

    def body(tokens, turn):
        place, key = turn
        logits = gpt2.model(hparams, tokens, reuse=js.AUTO_REUSE)["logits"][:, place - 1] / temperature
        if top_k:
            logits = jnp.where(jnp.argsort(jnp.argsort(-logits)) < top_k, logits, -jnp.inf)
        return tokens.at[:, place].set(jax.random.categorical(key, logits)), None

    start = context.shape[1]
    tokens = jnp.pad(context, [(0, 0), (0, length)])
    turns = (start + jnp.arange(length), jax.random.split(js.next_key(), length))
    return jax.lax.scan(body, tokens, turns)[0]


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [0, pytest.param(5, marks=pytest.mark.slow)])
def test_sampling_with_past_equals_sampling_without(params, top_k):
    """At temperature 1, and so cold that only the likeliest is left."""
    options = {"hparams": HPARAMS, "length": 8, "top_k": top_k}
    samplers = (gpt2.sample_sequence, sample_without_past)
    with_past, without = (jax.jit(functools.partial(js.transform(each).apply, **options)) for each in samplers)
    samples = {}
    for temperature, seed in [(1.0, 0), (1.0, 1), (1.0, 2), (1e-6, 0), (1e-6, 1)]:
        given = {"context": TOKENS, "temperature": temperature, "rng": jax.random.key(seed)}
        tokens = samples[temperature, seed] = np.asarray(with_past(params, **given))
        assert tokens.shape == (2, 16)
        np.testing.assert_array_equal(tokens[:, :8], TOKENS)
        np.testing.assert_array_equal(tokens, without(params, **given))
    assert (samples[1.0, 0] != samples[1.0, 1]).any()
    np.testing.assert_array_equal(samples[1e-6, 0], samples[1e-6, 1])
    np.testing.assert_array_equal(samples[1e-6, 0][:, 8], np.argmax(LOGITS[:, -1], axis=-1))


def test_sampling_declares_the_models_variables_once():
    specs = js.transform(gpt2.sample_sequence).specs(hparams=HPARAMS, length=3, start_token=7, batch_size=2)
    assert list(specs) == list(RECORDED["variables"])


def test_samples_follow_the_logits(params):
    """What comes behind a start token is as frequent as softmax says, at a temperature and among the likeliest."""
    logits = APPLY(params, HPARAMS, np.full((1, 1), 7))["logits"][0, -1] / 0.5
    likeliest = np.argsort(logits)[-3:]
    expected = np.exp(logits[likeliest]) / np.exp(logits[likeliest]).sum()
    options = {"hparams": HPARAMS, "length": 1, "start_token": 7, "batch_size": 4000, "temperature": 0.5, "top_k": 3}
    sample = jax.jit(functools.partial(js.transform(gpt2.sample_sequence).apply, **options))
    tokens = np.asarray(sample(params, rng=jax.random.key(0)))
    assert (tokens.shape, tokens.dtype) == ((4000, 2), np.int32)
    assert set(tokens[:, 0]) == {7}
    assert set(tokens[:, 1]) == set(likeliest)
    np.testing.assert_allclose([np.mean(tokens[:, 1] == token) for token in likeliest], expected, atol=0.03)


@pytest.mark.parametrize("wrong", [{}, {"start_token": 7, "batch_size": 1, "context": TOKENS}], ids=["none", "both"])
def test_sampling_starts_from_one_of_both(wrong):
    with pytest.raises(ValueError, match="either start_token"):
        js.transform(gpt2.sample_sequence).specs(hparams=HPARAMS, length=1, **wrong)


# The example ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    module = load()
    module.HPARAMS = gpt2.HParams(n_vocab=256, n_ctx=16, n_embd=32, n_head=2, n_layer=1)
    module.SAMPLE = 20
    return module


def printed_by(module, *arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        module.main([*map(str, arguments)])
    return out.getvalue()


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "new" / "folder"
    return out, printed_by(small, "--steps", 60, "--batch", 8, "--seed", 3, "--out", out)


def figures(text, pattern):
    return [float(figure) for figure in re.search(pattern, text).groups()]


@pytest.mark.slow
def test_run_learns(run):
    _, text = run
    first, last = figures(text, r"Training loss: (\S+) in the first steps, (\S+) in the last\.")
    before, after, baseline = figures(text, r"Held-out loss: (\S+) before, (\S+) after \(.*: (\S+)\)")
    assert last < 0.8 * first
    assert abs(before - np.log(256)) < 0.2
    assert after < 0.8 * before
    assert 3 < baseline < 4


@pytest.mark.slow
def test_run_writes_what_it_says(run, small):
    out, text = run
    files = {"gpt2.png", "gpt2.ckpt.index", "gpt2.ckpt.data-00000-of-00001"}
    assert {path.name for path in out.iterdir()} == files
    assert (out / "gpt2.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "(loaded again: equal)" in text
    assert text.endswith(f"python -m jscope ls {out}/gpt2.ckpt\n")
    tokens = np.zeros((1, 2), np.int32)
    small.net.specs(tokens, small.HPARAMS).check(js.Params(load_tf(out / "gpt2.ckpt")))
    assert str(list_tf(out / "gpt2.ckpt")) in text
    sample = text.partition("held-out text:\n\n")[2].partition("\nCheckpointList")[0].rstrip("\n")
    assert len(sample.encode(errors="replace")) >= 28


@pytest.mark.slow
def test_run_goes_on_from_a_checkpoint(run, small):
    out, text = run
    _, after, _ = figures(text, r"Held-out loss: (\S+) before, (\S+) after \(.*: (\S+)\)")
    again = printed_by(small, "--steps", 1, "--batch", 2, "--load", out / "gpt2.ckpt", "--out", out / "again")
    before, *_ = figures(again, r"Held-out loss: (\S+) before, (\S+) after \(.*: (\S+)\)")
    assert before == pytest.approx(after, abs=1e-3)


@pytest.mark.parametrize(("name", "message"), [("gpt2_small.ckpt", "argument --load: "), ("none", "argument --load: ")])
def test_checkpoint_that_does_not_fit(tmp_path, capsys, name, message):
    with pytest.raises(SystemExit) as stopped:
        gpt2.main(["--load", str(DATA / name), "--out", str(tmp_path)])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_text_is_split_by_topics(small):
    """And no paragraph of the held-out ones is in training, though topics quote each other."""
    text = small.load_text()
    assert 0.02 < len(text.held_out) / len(text.train) < 0.3
    train, held_out = (bytes(part.tolist()).decode() for part in text)
    names = sorted(small.topics)
    assert held_out == "\n\n".join(small.topics[name] for name in names[::10])
    paragraphs = [{" ".join(each.split()) for each in part.split("\n\n")} for part in (train, held_out)]
    assert not paragraphs[0] & paragraphs[1]
    others = "\n\n".join(small.topics[name] for i, name in enumerate(names) if i % 10)
    assert 0.8 * len(others) < len(train) < len(others)
    assert set(train.split("\n\n")) <= set(others.split("\n\n"))


def test_baseline_is_the_loss_of_byte_frequencies(small):
    text = small.Text(np.array([65] * 255 + [66] * 255 + [67] * 2), np.array([65, 66]))
    assert small.byte_frequency_loss(text) == pytest.approx(np.log(768 / 256))
