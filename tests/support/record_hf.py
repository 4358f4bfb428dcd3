"""Records small random models of transformers, and the headers of published ones, for tests/pages/test_published.py.

Run where torch and transformers are installed: `python tests/support/record_hf.py tests/data/hf [NAME ...]`. With
`--check FOLDER` it says what transformers makes of a folder that jscope wrote: see `check`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tr

torch.manual_seed(0)
IDS = np.random.default_rng(0).integers(0, 60, (2, 7))
MASK = np.array([[1] * 7, [1] * 5 + [0] * 2])
T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 2} | {
    "num_decoder_layers": 1,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
}
LLAMA = {
    "vocab_size": 60,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
LLAMA_31 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def small_models() -> dict[str, tuple[Any, dict[str, np.ndarray], list[str]]]:
    """(model, inputs, the outputs that are recorded) by name."""
    gpt2 = tr.GPT2Config(vocab_size=60, n_positions=16, n_embd=16, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    bert = tr.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    ids = {"input_ids": IDS}
    both = ids | {"attention_mask": MASK, "decoder_input_ids": np.flip(IDS, 1).copy()}
    return {
        "gpt2": (tr.GPT2LMHeadModel(gpt2), ids, ["logits"]),
        "bert": (
            tr.BertForPreTraining(bert),
            ids | {"token_type_ids": IDS % 2, "attention_mask": MASK},
            ["prediction_logits", "seq_relationship_logits"],
        ),
        "llama": (tr.LlamaForCausalLM(tr.LlamaConfig(**LLAMA)), ids, ["logits"]),
        "llama_tied": (
            tr.LlamaForCausalLM(
                tr.LlamaConfig(**LLAMA, tie_word_embeddings=True, attention_bias=True, rope_parameters=LLAMA_31)
            ),
            ids,
            ["logits"],
        ),
        "bart": (
            tr.BartForConditionalGeneration(
                tr.BartConfig(
                    vocab_size=60,
                    d_model=16,
                    encoder_layers=1,
                    decoder_layers=1,
                    encoder_attention_heads=2,
                    decoder_attention_heads=2,
                    encoder_ffn_dim=24,
                    decoder_ffn_dim=24,
                    max_position_embeddings=16,
                )
            ),
            ids,
            ["logits"],
        ),
        "gpt_neox": (
            tr.GPTNeoXForCausalLM(
                tr.GPTNeoXConfig(
                    vocab_size=60,
                    hidden_size=16,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    intermediate_size=32,
                    max_position_embeddings=16,
                )
            ),
            ids,
            ["logits"],
        ),
        "t5": (tr.T5ForConditionalGeneration(tr.T5Config(**T5)), both, ["logits"]),
        "t5_gated": (
            tr.T5ForConditionalGeneration(tr.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
            both,
            ["logits"],
        ),
    }


def record_small(out: Path, names: list[str]) -> None:
    models = small_models()
    for name in names or models:
        model, inputs, outputs = models[name]
        model.eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
            got = model(**{key: torch.tensor(value) for key, value in inputs.items()})
        model.save_pretrained(out / name, max_shard_size="20kB")
        (out / name / "generation_config.json").unlink(missing_ok=True)
        np.savez(out / name / "io.npz", **inputs, **{key: getattr(got, key).numpy() for key in outputs})


def published() -> dict[str, tuple[Any, Any]]:
    """(class, configuration) of published models by name. The sizes are those of their config.json."""

    def gpt2(width: int, layers: int, heads: int) -> tuple[Any, Any]:
        return tr.GPT2LMHeadModel, tr.GPT2Config(n_embd=width, n_layer=layers, n_head=heads)

    def bert(vocabulary: int, width: int, layers: int) -> tuple[Any, Any]:
        config = tr.BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
        )
        return tr.BertForPreTraining, config

    def llama(
        vocabulary: int, width: int, inner: int, layers: int, heads: int, groups: int, **more: Any
    ) -> tuple[Any, Any]:
        config = tr.LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            **more,
        )
        return tr.LlamaForCausalLM, config

    def t5(width: int, layers: int, heads: int, inner: int, **more: Any) -> tuple[Any, Any]:
        config = tr.T5Config(
            vocab_size=32128, d_model=width, d_kv=64, d_ff=inner, num_layers=layers, num_heads=heads, **more
        )
        return tr.T5ForConditionalGeneration, config

    llama3 = LLAMA_31 | {"rope_theta": 500000.0, "original_max_position_embeddings": 8192}
    return {
        "gpt2": gpt2(768, 12, 12),
        "gpt2-medium": gpt2(1024, 24, 16),
        "gpt2-large": gpt2(1280, 36, 20),
        "gpt2-xl": gpt2(1600, 48, 25),
        "bert-base-uncased": bert(30522, 768, 12),
        "bert-base-cased": bert(28996, 768, 12),
        "bert-base-multilingual-cased": bert(119547, 768, 12),
        "bert-large-uncased": bert(30522, 1024, 24),
        "TinyLlama-1.1B": llama(32000, 2048, 5632, 22, 32, 4),
        "Llama-2-7b": llama(32000, 4096, 11008, 32, 32, 32),
        "Llama-2-70b": llama(32000, 8192, 28672, 80, 64, 8),
        "Meta-Llama-3-8B": llama(128256, 4096, 14336, 32, 32, 8),
        "Llama-3.1-8B": llama(128256, 4096, 14336, 32, 32, 8, rope_parameters=llama3),
        "Llama-3.2-1B": llama(
            128256,
            2048,
            8192,
            16,
            32,
            8,
            head_dim=64,
            tie_word_embeddings=True,
            rope_parameters=llama3 | {"factor": 32.0},
        ),
        "SmolLM-135M": llama(49152, 576, 1536, 30, 9, 3, tie_word_embeddings=True),
        "t5-small": t5(512, 6, 8, 2048),
        "t5-base": t5(768, 12, 12, 3072),
        "flan-t5-base": t5(768, 12, 12, 2048, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    }


def record_headers(path: Path) -> None:
    """Names and shapes as `save_pretrained` stores them. Names that differ in a number alone stand once, counted."""
    found = {}
    for name, (kind, config) in published().items():
        with torch.device("meta"):
            model = kind(config)
        tied = set(getattr(model, "all_tied_weights_keys", {}))
        tensors = {key: list(value.shape) for key, value in model.state_dict().items() if key not in tied}
        grouped: dict[str, list[Any]] = {}
        for key, shape in tensors.items():
            template = re.sub(r"\.\d+\.", ".{i}.", key, count=1)
            count, other = grouped.setdefault(template, [0, shape])
            assert shape == other
            grouped[template] = [count + 1, shape]
        for template, (count, _) in grouped.items():
            assert count == 1 or all(template.format(i=i) in tensors for i in range(count))
        found[name] = {"config": config.to_diff_dict() | small_config(config), "tensors": grouped}
    lines = [f"{json.dumps(name)}: {json.dumps(entry, default=str)}" for name, entry in found.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def small_config(config: Any) -> dict[str, Any]:
    names = (
        "vocab_size",
        "n_positions",
        "n_embd",
        "n_head",
        "n_layer",
        "hidden_size",
        "num_hidden_layers",
        "hidden_act",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "head_dim",
        "num_key_value_heads",
        "rms_norm_eps",
        "tie_word_embeddings",
        "attention_bias",
        "mlp_bias",
        "rope_parameters",
        "d_model",
        "d_kv",
        "d_ff",
        "num_layers",
        "num_decoder_layers",
        "num_heads",
        "feed_forward_proj",
        "scale_decoder_outputs",
    )
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def check(folder: Path) -> None:
    """Loads a folder, says which keys are missing or unexpected, and writes its outputs to `out.npz` there."""
    config = json.loads((folder / "config.json").read_text())
    kind = getattr(tr, config["architectures"][0])
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    inputs = dict(np.load(folder / "io.npz"))
    names = [name for name in ("input_ids", "token_type_ids", "attention_mask", "decoder_input_ids") if name in inputs]
    with torch.no_grad():
        got = model.eval()(**{name: torch.tensor(inputs[name]) for name in names})
    outputs = [name for name in inputs if name not in names]
    np.savez(folder / "out.npz", **{name: getattr(got, name).numpy() for name in outputs})
    print(json.dumps({key: sorted(map(str, value)) for key, value in info.items() if isinstance(value, set | list)}))


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        check(Path(sys.argv[2]))
    else:
        record_small(Path(sys.argv[1]), sys.argv[2:])
        record_headers(Path(sys.argv[1]) / "headers.json")
