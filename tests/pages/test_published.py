"""The ports against models of transformers, recorded by tests/support/record_hf.py: names, numbers, and back again."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import DATA, ROOT

import jscope as js
from jscope import checkpoint
from jscope.checkpoint import Plan

optax = pytest.importorskip("optax")
for _package in ("matplotlib", "rich"):
    pytest.importorskip(_package)

HF = DATA / "hf"
HEADERS = json.loads((HF / "headers.json").read_text())


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bert, gpt2, llama, t5 = (example(name) for name in ("bert", "gpt2", "llama", "t5"))
gpt2_net = js.transform(gpt2.model)


def recorded(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(HF / name / "io.npz"))


class Port:
    """A model by its port: its plan and what it computes of the recorded inputs, by the names of the outputs."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        folder, self.io = folder or HF / name, recorded(name)
        if name == "gpt2":
            self.config, self.params, self.report = gpt2.load_published(folder)
            self.plan = gpt2.PLAN
        elif name == "bert":
            self.config, self.params, self.report = bert.load_published(folder)
            self.plan = bert.PLAN
        elif name.startswith("t5"):
            self.config, self.params, self.report = t5.load_published(folder)
            self.plan = t5.plan(self.config)
        else:
            self.config, self.params, self.report = llama.load_published(folder)
            self.plan = llama.plan(self.config)
        self.name = name

    def outputs(self, params: js.Params) -> dict[str, jax.Array]:
        """Logits; BERT's normalised, as its program gives them."""
        tokens = self.io["input_ids"].astype(np.int32)
        if self.name == "gpt2":
            return {"logits": gpt2_net.apply(params, self.config, tokens)["logits"]}
        if self.name.startswith("t5"):
            answer = self.io["decoder_input_ids"].astype(np.int32)
            return {"logits": t5.net.apply(params, tokens, answer, self.config, self.io["attention_mask"])}
        if self.name != "bert":
            return {"logits": llama.net.apply(params, tokens, self.config)}
        features = bert.all_places(tokens)
        features |= {"segment_ids": self.io["token_type_ids"], "input_mask": self.io["attention_mask"]}
        found = bert.pretraining_net.apply(params, self.config, features)
        return {
            "prediction_logits": found.masked_lm.log_probs.reshape(*tokens.shape, -1),
            "seq_relationship_logits": found.next_sentence.log_probs,
        }

    def differ(self, params: js.Params, expected: dict[str, np.ndarray]) -> float:
        """By how much at most, where tokens are no padding."""
        differences = []
        for name, value in self.outputs(params).items():
            wanted = expected[name]
            if self.name == "bert":
                wanted = jax.nn.log_softmax(wanted)
                if value.ndim == 3:
                    value, wanted = (x[self.io["attention_mask"] > 0] for x in (value, wanted))
            differences.append(float(jnp.abs(value - wanted).max()))
        return max(differences)


PORTS = ("gpt2", "bert", "llama", "llama_tied", "t5", "t5_gated")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", PORTS)
def test_a_published_model_computes_what_transformers_computes(name):
    port = Port(name)
    assert port.differ(port.params, port.io) < 1e-5
    assert not (set(port.report.unused) | set(port.report.initialised) | set(port.report.cast))


@pytest.mark.parametrize("name", PORTS)
def test_it_goes_back_to_the_bit(name, tmp_path):
    port = Port(name)
    file = checkpoint.load(HF / name)
    for options in ({}, {"like": HF / name}):
        port.plan.save(tmp_path / "model.safetensors", port.params, **options)
        assert checkpoint.load(tmp_path / "model.safetensors") == file
        assert checkpoint.open(tmp_path / "model.safetensors").metadata == {"format": "pt"}


# Headers of published models ------------------------------------------------------------------------------------------


def header_of(name: str) -> dict[str, jax.ShapeDtypeStruct]:
    tensors = {}
    for template, (count, shape) in HEADERS[name]["tensors"].items():
        names = [template.replace("{i}", str(i)) for i in range(count)]
        tensors |= dict.fromkeys(names, jax.ShapeDtypeStruct(tuple(shape), "float32"))
    return tensors


def older(name: str, header: dict[str, Any]) -> dict[str, Any]:
    """As such a file was published once: other names, buffers beside, a tie that is there twice."""
    buffer = jax.ShapeDtypeStruct((1, 512), "int64")
    if name.startswith("gpt2"):
        layers = HEADERS[name]["config"]["n_layer"]
        masks = {f"h.{i}.attn.bias": jax.ShapeDtypeStruct((1, 1, 1024, 1024), "uint8") for i in range(layers)}
        masks |= {f"h.{i}.attn.masked_bias": jax.ShapeDtypeStruct((), "float32") for i in range(layers)}
        return {key.removeprefix("transformer."): value for key, value in header.items()} | masks
    if name.startswith("bert"):
        old = {
            key.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v for key, v in header.items()
        }
        twice = {"cls.predictions.decoder.weight": header["bert.embeddings.word_embeddings.weight"]}
        return old | twice | {"bert.embeddings.position_ids": buffer}
    if "t5" in name:
        tied = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
        unread = "decoder.block.0.layer.{}.relative_attention_bias.weight"
        table = header[unread.format("0.SelfAttention")]
        return header | dict.fromkeys(tied, header["shared.weight"]) | {unread.format("1.EncDecAttention"): table}
    layers = HEADERS[name]["config"]["num_hidden_layers"]
    turns = jax.ShapeDtypeStruct((64,), "float32")
    return header | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": turns for i in range(layers)}


def plan_and_specs(name: str) -> tuple[Plan, js.Specs]:
    config, token = HEADERS[name]["config"], np.zeros((1, 1), np.int32)
    if name.startswith("gpt2"):
        sizes = (config[key] for key in ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer"))
        return gpt2.PLAN, gpt2_net.specs(gpt2.HParams(*sizes), token)
    if name.startswith("bert"):
        return bert.PLAN, bert.pretraining_net.specs(bert.BertConfig.from_dict(config), bert.all_places(token))
    if "t5" in name:
        config = t5.Config.from_dict(config)
        return t5.plan(config), t5.specs_of(config)
    config = llama.Config.from_dict(config)
    return llama.plan(config), llama.specs_of(config)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", HEADERS)
def test_the_names_of_a_published_model_fit(name):
    """Nothing missing, nothing left over, all shapes right; as transformers writes it now, and as it was once."""
    plan, specs = plan_and_specs(name)
    header = header_of(name)
    for each in (header, older(name, header)):
        report = plan.check(specs, each)
        assert set(report.loaded) == set(specs)
        assert not report.unused


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"transformer.h.11.mlp.c_fc.bias": None}, "'model/h11/mlp/c_fc/b' is missing"),
        ({"transformer.h.12.ln_1.bias": (768,)}, "'transformer.h.12.ln_1.bias' is not used as 'model/h12/ln_1/b'"),
        ({"transformer.h.0.attn.c_attn.weight": (2304, 768)}, "wanted (1, 768, 2304)"),
        ({"lm_head.weight": (50257, 767)}, "are to be one variable"),
        ({"h.0.ln_1.bias": (768,)}, "are both to be 'transformer.h.0.ln_1.bias'"),
    ],
)
def test_a_header_that_does_not_fit_is_told_before_anything_is_read(change, fault):
    plan, specs = plan_and_specs("gpt2")
    header: dict[str, Any] = header_of("gpt2")
    header |= {name: shape and jax.ShapeDtypeStruct(shape, "float32") for name, shape in change.items()}
    with pytest.raises(js.ParamsMismatchError) as error:
        plan.check(specs, {name: spec for name, spec in header.items() if spec is not None})
    assert any(fault in line for line in error.value.faults)


# Other forms ----------------------------------------------------------------------------------------------------------

SHARED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
OTHERS = {
    "bart": Plan().tie("model.shared.weight", *SHARED).drop("final_logits_bias").separator(),
    "gpt_neox": (
        Plan()
        .drop("{*module}.rotary_emb.inv_freq", "{*module}.masked_bias")
        .split(
            "gpt_neox.layers.{i}.attention.query_key_value.{*kind}",
            [f"gpt_neox.layers.{{i}}.attention.{name}.{{*kind}}" for name in ("query", "key", "value")],
            groups=4,
        )
        .transpose(["{*module}.query.weight", "{*module}.dense.weight"])
        .stack("gpt_neox.layers.{i}.{*name}", "gpt_neox.layers.{*name}")
        .separator()
    ),
}


def through(plan: Plan, folder: Path) -> js.Params:
    """What a plan makes of a folder."""
    shapes = {name: np.zeros(spec.shape, spec.dtype) for name, spec in plan.leads_to(folder).items()}
    return plan.load(shapes, folder).params


@pytest.mark.parametrize("name", OTHERS)
def test_ties_of_three_and_heads_side_by_side_go_there_and_back(name, tmp_path):
    params = through(OTHERS[name], HF / name)
    OTHERS[name].save(tmp_path / "m.safetensors", params, like=HF / name)
    assert checkpoint.load(tmp_path / "m.safetensors") == checkpoint.load(HF / name)
    if name == "gpt_neox":
        fused = checkpoint.open(HF / name)["gpt_neox.layers.1.attention.query_key_value.bias"].reshape(4, 3, 4)
        np.testing.assert_array_equal(params["gpt_neox/layers/attention/key/bias"][1], fused[:, 1].ravel())
        assert params["gpt_neox/layers/attention/query/weight"].shape == (2, 16, 16)


# The real thing -------------------------------------------------------------------------------------------------------

PYTHON = os.environ.get("TRANSFORMERS_PYTHON", "")
live = pytest.mark.skipif(not PYTHON, reason="TRANSFORMERS_PYTHON names no Python with torch and transformers")


def loaded_by_transformers(folder: Path) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """(what it says of keys, its outputs)."""
    command = [PYTHON, str(ROOT / "tests" / "support" / "record_hf.py"), "--check", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), dict(np.load(folder / "out.npz"))


@live
@pytest.mark.slow
@pytest.mark.parametrize("name", PORTS)
def test_a_model_that_was_trained_a_step_is_loaded_by_transformers(name, tmp_path):
    port = Port(name)
    optimizer = optax.adam(1e-2)

    def loss(params: js.Params) -> jax.Array:
        return sum(jnp.mean(jax.nn.log_softmax(value)[..., 0]) for value in port.outputs(params).values())

    gradients = jax.grad(loss)(port.params)
    updates, _ = optimizer.update(gradients, optimizer.init(port.params), port.params)
    trained = optax.apply_updates(port.params, updates)
    assert port.differ(trained, port.io) > 1e-3
    for file in ("config.json", "io.npz"):
        shutil.copy(HF / name / file, tmp_path / file)
    port.plan.save(tmp_path / "model.safetensors", trained)
    said, outputs = loaded_by_transformers(tmp_path)
    assert not (set(said["missing_keys"]) | set(said["unexpected_keys"]) | set(said["mismatched_keys"]))
    assert port.differ(trained, outputs) < 1e-4
    assert Port(name, tmp_path).params == trained


@live
@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("file", ["one", "several"])
def test_other_forms_are_loaded_by_transformers(name, file, tmp_path):
    for beside in ("config.json", "io.npz"):
        shutil.copy(HF / name / beside, tmp_path / beside)
    params = through(OTHERS[name], HF / name)
    if file == "one":
        OTHERS[name].save(tmp_path / "model.safetensors", params, like=HF / name)
    else:
        OTHERS[name].save(tmp_path, params, like=HF / name, max_shard_bytes=20_000)
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
    said, outputs = loaded_by_transformers(tmp_path)
    assert not (set(said["missing_keys"]) | set(said["unexpected_keys"]) | set(said["mismatched_keys"]))
    np.testing.assert_allclose(outputs["logits"], recorded(name)["logits"], atol=1e-5)


# The commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["gpt2", "bert", "llama_tied", "t5_gated"])
def test_an_example_takes_a_folder(name, capsys):
    example(name.partition("_")[0]).main(["--checkpoint", str(HF / name), "--tokens", "1,2,3"])
    first, tokens = capsys.readouterr().out.splitlines()
    assert "arrays from" in first
    assert all(0 <= int(token) < 60 for token in tokens.split(","))


@pytest.mark.parametrize("name", ["gpt2", "bert", "llama", "t5"])
@pytest.mark.parametrize("arguments", [["--checkpoint", "nowhere"], ["--checkpoint", "HF", "--tokens", "60"]])
def test_an_example_says_what_is_wrong_with_its_arguments(name, arguments, capsys):
    arguments = [argument.replace("HF", str(HF / name)) for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        example(name).main(arguments)
    assert stopped.value.code == 2
    assert "argument --" in capsys.readouterr().err


def test_the_llama_learns_and_is_saved_by_the_published_names(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    folder = str(HF / "llama_tied")
    llama.main(["--checkpoint", folder, "--tokens", "1,2,3,4", "--steps", "5", "--length", "2", "--save", str(path)])
    losses = capsys.readouterr().out.splitlines()[1].split()
    assert float(losses[1]) > float(losses[6])
    assert list(checkpoint.open(path)) == list(checkpoint.open(folder))


@pytest.mark.slow
def test_the_t5_learns_and_is_saved_by_the_published_names(tmp_path, capsys):
    path, folder = tmp_path / "model.safetensors", str(HF / "t5")
    t5.main(["--checkpoint", folder, "--tokens", "7,8", "--answer", "9,8", "--steps", "5", "--save", str(path)])
    losses = capsys.readouterr().out.splitlines()[1].split()
    assert float(losses[1]) > float(losses[6])
    assert list(checkpoint.open(path)) == list(checkpoint.open(folder))
    with pytest.raises(SystemExit):
        t5.main(["--checkpoint", folder, "--steps", "5"])
    assert "say with --answer" in capsys.readouterr().err


def test_a_t5_with_a_head_of_its_own_is_told_from_one_that_has_its_table_twice(tmp_path):
    config, params, _ = t5.load_published(HF / "t5_gated")
    shutil.copy(HF / "t5_gated" / "config.json", tmp_path)
    for head in ({}, {"t5/head/kernel": jnp.ones([16, 60])}):
        own = dataclasses.replace(config, own_head=bool(head))
        file = t5.plan(own).back(params | head)
        checkpoint.save(tmp_path / "model.safetensors", {"lm_head.weight": file["shared.weight"]} | file)
        found, again, _ = t5.load_published(tmp_path)
        assert found == own
        assert again == params | head


@pytest.mark.slow
def test_the_small_t5_has_one_table_and_learns_to_fill_gaps():
    specs = t5.specs_of(t5.Config())
    assert [name for name in specs if name.endswith("tokens")] == ["t5/shared/tokens"]
    assert len(specs["t5/shared/tokens"].used_at) == 2  # beside the place that made it
    assert len([name for name in specs if name.endswith("distances")]) == 2
    config = dataclasses.replace(t5.Config(), num_layers=1, num_decoder_layers=1)
    _, losses = t5.train(t5.specs_of(config).init(jax.random.key(0)), config, t5.rows_of_text(batch=4), 51)
    assert losses[-1] < 0.85 * losses[0]


def test_a_model_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no T5"):
        t5.Config.from_dict({"model_type": "mt5"})
    with pytest.raises(ValueError, match="gated-silu"):
        t5.Config.from_dict({"feed_forward_proj": "gated-silu"})
    with pytest.raises(ValueError, match="mistral"):
        llama.Config.from_dict({"model_type": "mistral"})
    with pytest.raises(ValueError, match="yarn"):
        llama.Config.from_dict({"rope_parameters": {"rope_type": "yarn"}})
