"""The networks against the classes of transformers: the same logits and gradients, saved by either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from etude.model.config import ModelConfig
from etude.model.folder import load_model_folder, save_model_folder, stored_state
from etude.model.hf_config import config_from_hf, config_to_hf
from etude.model.language_model import LanguageModel
from networks import TRANSFORMERS, make_config, make_network, make_tokens

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

CASES = [(name, seed) for seed, name in enumerate(TRANSFORMERS)] + [("llama-grouped-tied", 90), ("qwen3", 91)]


IN_MEMORY = {"embed_out.weight": "lm_head.weight"}
"""Stored names that transformers changes when it loads GPT-NeoX."""


def reference(folder: Path) -> Any:
    """Load a folder in transformers, with its eager attention."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", local_files_only=True
    )


def gradients(model: torch.nn.Module, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: LanguageModel, theirs: Any, config: ModelConfig, seed: int) -> None:
    inputs, targets = make_tokens(3, 29, seed), make_tokens(3, 29, seed + 1000)
    logits, expected = ours(inputs), theirs(inputs).logits
    assert expected.std() > 0.5  # not a comparison of zeros
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    own = stored_state(gradients(ours, logits, targets), config)
    own = {IN_MEMORY.get(name, name): gradient for name, gradient in own.items()}
    reference_gradients = gradients(theirs, expected, targets)
    assert own.keys() == reference_gradients.keys()
    unrotated = [f"model.layers.{layer}." for layer, rotary in enumerate(config.rotary_layers) if not rotary]
    for name, gradient in reference_gradients.items():
        if name.endswith("k_proj.bias") and name.startswith(tuple(unrotated)):
            # It adds the same to all scores of a query, which softmax ignores: what is left is rounding.
            assert max(own[name].norm(), gradient.norm()) < 1e-6, name
            continue
        error = (own[name] - gradient).norm() / gradient.norm()
        assert error < 1e-5, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_saved_by_etude_and_loaded_by_transformers(name: str, seed: int, tmp_path: Path) -> None:
    config = make_config(name)
    model = make_network(config, seed)
    save_model_folder(tmp_path, model, config, None)
    theirs = reference(tmp_path)
    assert type(theirs).__name__ == config_to_hf(config)["architectures"][0]
    assert_same(model, theirs, config, seed)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_saved_by_transformers_and_loaded_by_etude(name: str, seed: int, tmp_path: Path) -> None:
    config = make_config(name)
    hf_class = getattr(transformers, config_to_hf(config)["architectures"][0])
    torch.manual_seed(seed)
    theirs = hf_class(hf_class.config_class(**config_to_hf(config), attn_implementation="eager"))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    ours, loaded = load_model_folder(tmp_path)
    assert loaded == config
    assert_same(ours, theirs, config, seed)


@pytest.mark.parametrize("name", ["llama-plain", "qwen3", "gpt2", "qwen2", "smollm3", "gemma3_text"])
def test_greedy_continuation_is_the_same(name: str, tmp_path: Path) -> None:
    from etude.generate.engine import generate
    from etude.generate.sampling import SamplingSettings

    config = make_config(name, max_position_embeddings=64)
    model = make_network(config, 5)
    save_model_folder(tmp_path, model, config, None)
    prompt = make_tokens(1, 7)
    expected = reference(tmp_path).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=40,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, 7:]
    ours = generate(
        model, prompt.tolist(), SamplingSettings(temperature=0.0, max_new_tokens=40), stop_ids=()
    )[0]
    assert ours.token_ids == expected.tolist()


def test_missing_settings_have_the_defaults_of_transformers() -> None:
    """A config.json may omit values that equal the defaults of the class; Etude must use the same defaults."""
    for name in ("Llama", "Qwen3", "GPT2", "GPTNeoX", "Olmo2", "Qwen2", "SmolLM3", "Gemma3Text"):
        theirs = getattr(transformers, f"{name}Config")()
        full = theirs.to_dict()
        required = {
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
        }
        required |= {"n_embd", "n_layer", "n_head", "n_positions", "model_type"}
        spare = {key: value for key, value in full.items() if key in required}
        bare, complete = config_from_hf(spare), config_from_hf(full)
        assert bare.replace(bos_token_id=None, eos_token_id=None) == complete.replace(
            bos_token_id=None, eos_token_id=None
        )
