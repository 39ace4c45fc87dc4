"""Weights and configurations of GGUF files: the same numbers in a model folder, for every number format and family."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from etude.errors import InputError
from etude.model.config import ModelConfig, preset
from etude.model.folder import load_model_folder
from etude.model.rope import RopeScaling
from etude.pretrained.gguf_model import folder_from_gguf
from etude.pretrained.gguf_weights import PLAIN, QUANTISED
from gguf_files import network_tensors, write_gguf
from llama_cpp import LlamaCpp
from networks import TRANSFORMERS, make_config, make_network, make_tokens

VOCAB = 300
IN_GGUF = [
    name
    for name in TRANSFORMERS
    if make_config(name).family.gguf
    and make_config(name).hidden_act in ("silu", "gelu_new", "gelu_pytorch_tanh")
    # a few frequencies do not determine the parameters of Llama 3.1's scaling; they have a test of their own
    and not name.endswith("llama3-positions")
]

NOT_IN_LLAMA_CPP = ("qwen3-tied-bias", "qwen2-tied", "smollm3-untied-bias")
"""It knows no bias of the attention output of Qwen3 and SmolLM3, and takes width / heads for Qwen2's head_dim."""


def gguf_config(name: str) -> ModelConfig:
    """Return a configuration of a family that llama.cpp can express."""
    changes: dict[str, Any] = {"vocab_size": VOCAB, "rms_norm_eps": 1e-5}
    config = make_config(name, **changes)
    if (
        config.model_type == "gemma3_text"
    ):  # every sixth layer sees all, no biases, scores by the size of a head
        changes |= {"num_hidden_layers": 7, "attention_bias": False, "query_pre_attn_scalar": config.head_dim}
    return make_config(name, **changes)


def imported(path: Path, config: ModelConfig, folder: Path, **options: Any) -> tuple[Any, ModelConfig, Any]:
    """Write a random network as GGUF, import it, load it; returns (the network, the loaded configuration, loaded)."""
    model = make_network(config, seed=3)
    if (
        config.zero_centered_norm
    ):  # the file holds what the norm multiplies by: 1 + weight, here without rounding
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data = (parameter.data * 1024).round() / 1024
    write_gguf(path, config, network_tensors(model, config), **options)
    folder_from_gguf(path, folder)
    loaded, found = load_model_folder(folder)
    return model, found, loaded


@pytest.mark.parametrize("name", IN_GGUF)
def test_a_network_survives_the_way_through_gguf(name: str, tmp_path: Path) -> None:
    config = gguf_config(name)
    model, found, loaded = imported(tmp_path / "a.gguf", config, tmp_path / "a")
    assert found == dataclasses.replace(config, bos_token_id=1, eos_token_id=2)
    for parameter, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[parameter], tensor), parameter
    tokens = make_tokens(2, 17, vocab=VOCAB)
    assert torch.equal(loaded(tokens), model(tokens))


@pytest.mark.parametrize("kind", [*PLAIN, *QUANTISED])
def test_every_number_format_is_read_to_the_bit(kind: str, tmp_path: Path) -> None:
    config = preset(
        "llama",
        **{"vocab_size": VOCAB, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "tie_word_embeddings": True},
    )
    tensors = network_tensors(make_network(config), config)
    write_gguf(tmp_path / "a.gguf", config, tensors, kind=kind)
    folder_from_gguf(tmp_path / "a.gguf", tmp_path / "a")
    stored = load_file(tmp_path / "a" / "model.safetensors")
    dtype = {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)
    assert (tmp_path / "a" / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert stored.keys() == tensors.keys()
    reader = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for name, tensor in stored.items():
        source = reader[names.get_name(name, (".weight", ".bias"))]
        with np.errstate(all="ignore"):  # random bytes, where the package cannot quantise
            expected = gguf.quants.dequantize(source.data, source.tensor_type)
        heads = 4 if "q_proj" in name else 2 if "k_proj" in name else 0
        if heads:
            paired = expected.reshape(heads, len(expected.reshape(tensor.shape)) // heads // 2, 2, -1)
            expected = paired.swapaxes(1, 2)
        assert tensor.dtype == (dtype if tensor.ndim > 1 else torch.float32)
        assert np.array_equal(tensor.float().numpy(), expected.reshape(tensor.shape), equal_nan=True), name
        if kind in ("F32", "F16", "BF16"):
            assert torch.equal(tensor, tensors[name].to(tensor.dtype)), name
    facts = json.loads((tmp_path / "a" / "origin.json").read_text())
    matrices = sum(tensor.ndim > 1 for tensor in tensors.values())
    assert facts["quantisation"][kind]["tensors"] == (len(tensors) if kind == "F32" else matrices)
    assert facts["rounded"] is (kind in QUANTISED)
    config_json = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config_json["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("name", [name for name in IN_GGUF if name not in NOT_IN_LLAMA_CPP])
def test_predictions_are_those_of_llama_cpp(name: str, tmp_path: Path) -> None:
    """Which holds keys and values in 16 bits; with a wrong permutation or bias they would be off by whole nats."""
    config = gguf_config(name)
    _, _, loaded = imported(tmp_path / "a.gguf", config, tmp_path / "a")
    reference, tokens = LlamaCpp(tmp_path / "a.gguf"), make_tokens(12, 19, seed=5, vocab=VOCAB)
    with torch.no_grad():
        predictions = loaded(tokens)[:, -1].log_softmax(-1)
    compared = 0
    for row, ids in zip(predictions, tokens.tolist(), strict=True):
        for token, logprob in reference.next_token(ids, 40).items():
            assert abs(row[token].item() - logprob) < 0.05
            compared += 1
    assert compared >= 3 * 40


def test_logits_are_those_of_transformers_reading_the_same_file(tmp_path: Path) -> None:
    """Without biases, which transformers drops from a GGUF file."""
    transformers = pytest.importorskip("transformers")
    reading = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    transformers.utils.logging.disable_progress_bar()
    config = make_config("llama-plain", vocab_size=VOCAB, num_key_value_heads=2, rms_norm_eps=1e-5)
    _, _, loaded = imported(tmp_path / "a.gguf", config, tmp_path / "a", kind="Q8_0")
    # Its parts, since `from_pretrained(gguf_file=...)` needs accelerate.
    values = reading.load_gguf_checkpoint(tmp_path / "a.gguf")["config"]
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**values, attn_implementation="eager"))
    state = reading.load_gguf_checkpoint(tmp_path / "a.gguf", return_tensors=True, model_to_load=theirs)[
        "tensors"
    ]
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a", attn_implementation="eager")
    tokens = make_tokens(2, 21, vocab=VOCAB)
    with torch.no_grad():
        expected, logits, folder = theirs(tokens).logits, loaded(tokens), again(tokens).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(folder, expected, atol=1e-5, rtol=0)


def _factors(config: ModelConfig, scaling: RopeScaling) -> torch.Tensor:
    """Compute the divisors as llama.cpp's converter does."""
    frequencies = config.rope_theta ** -(torch.arange(0, config.head_dim, 2) / config.head_dim)
    factors = []
    for wavelength in (2 * torch.pi / frequencies).tolist():
        original = scaling.original_max_position_embeddings
        if wavelength < original / scaling.high_freq_factor:
            factors.append(1.0)
        elif wavelength > original / scaling.low_freq_factor:
            factors.append(scaling.factor)
        else:
            smooth = (original / wavelength - scaling.low_freq_factor) / (
                scaling.high_freq_factor - scaling.low_freq_factor
            )
            factors.append(1 / ((1 - smooth) / scaling.factor + smooth))
    return torch.tensor(factors)


@pytest.mark.parametrize(
    ("factor", "high", "original"), [(8.0, 4.0, 8192), (32.0, 4.0, 8192), (16.0, 3.0, 2000)]
)
def test_the_scaling_of_llama_3_is_found_from_its_factors(
    factor: float, high: float, original: int, tmp_path: Path
) -> None:
    scaling = RopeScaling(
        rope_type="llama3", factor=factor, high_freq_factor=high, original_max_position_embeddings=original
    )
    plain = make_config("llama-plain", vocab_size=VOCAB, head_dim=64, rope_theta=500_000.0, rms_norm_eps=1e-5)
    factors = _factors(plain, scaling).numpy()
    model, found, loaded = imported(
        tmp_path / "a.gguf",
        plain.replace(rope_scaling=scaling),
        tmp_path / "a",
        extra=lambda writer: writer.add_tensor("rope_freqs.weight", factors),
    )
    assert found.rope_scaling == scaling
    tokens = make_tokens(2, 40, vocab=VOCAB)
    assert torch.equal(loaded(tokens), model(tokens))


def test_other_factors_are_refused(tmp_path: Path) -> None:
    config = make_config("llama-plain", vocab_size=VOCAB, head_dim=64)
    factors = np.linspace(1, 4, 32, dtype=np.float32) ** 2
    with pytest.raises(InputError, match=r"a\.gguf: its rotary positions are scaled by rope_freqs\.weight"):
        imported(
            tmp_path / "a.gguf",
            config,
            tmp_path / "a",
            extra=lambda writer: writer.add_tensor("rope_freqs.weight", factors),
        )
    assert not (tmp_path / "a").exists()


def test_a_copy_of_the_embedding_as_output_matrix_is_tied(tmp_path: Path) -> None:
    """Older converters wrote GPT-2's embedding twice."""
    config = make_config("gpt2", vocab_size=VOCAB)
    model = make_network(config)
    embedding = model.state_dict()["model.embed_tokens.weight"].numpy()
    write_gguf(
        tmp_path / "a.gguf",
        config,
        network_tensors(model, config),
        extra=lambda writer: writer.add_tensor("output.weight", embedding),
    )
    folder_from_gguf(tmp_path / "a.gguf", tmp_path / "a")
    assert load_model_folder(tmp_path / "a")[1].tie_word_embeddings
