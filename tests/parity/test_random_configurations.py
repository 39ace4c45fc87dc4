"""Networks of random configurations against the classes of transformers: logits, gradients, folders, formats."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from etude.model.build import build_model
from etude.model.config import ModelConfig, preset
from etude.model.folder import load_model_folder, save_model_folder, stored_state
from etude.model.hf_config import config_from_hf, config_to_hf
from etude.model.language_model import LanguageModel
from etude.model.rope import RopeScaling
from networks import make_tokens

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

SEEDS = range(8)
TOLERANCE = 1e-5


def random_config(family: str, seed: int) -> ModelConfig:
    """Draw sizes and every switch that the family's format can express."""
    draw = Random(f"{family} {seed}")
    heads, layers = draw.choice([1, 2, 4, 6]), draw.randint(1, 5)
    kv_heads = draw.choice([count for count in range(1, heads + 1) if heads % count == 0])
    scalings = [
        None,
        RopeScaling(rope_type="linear", factor=draw.choice([2.0, 8.0])),
        RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=draw.choice([16, 64])),
    ]
    values: dict[str, Any] = {
        "vocab_size": draw.randint(20, 90),
        "hidden_size": heads * 2 * draw.randint(2, 6),
        "intermediate_size": draw.randint(8, 60),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw.randint(2, 8),
        "max_position_embeddings": 48,
        "tie_word_embeddings": draw.random() < 0.5,
        "rms_norm_eps": draw.choice([1e-6, 1e-5, 1e-2]),
        "rope_theta": draw.choice([100.0, 10_000.0, 2e6]),
        "rope_scaling": draw.choice(scalings),
        "bos_token_id": None,
        "eos_token_id": draw.choice([None, 3]),
    }
    if family != "qwen2":
        values["attention_bias"] = draw.random() < 0.5
    if family in ("llama", "smollm3"):
        values["mlp_bias"] = draw.random() < 0.5
    if family == "smollm3":
        values["rotary_layers"] = tuple(draw.random() < 0.6 for _ in range(layers))
    if family == "gemma3_text":
        values |= {
            "sliding_layers": tuple(draw.random() < 0.6 for _ in range(layers)),
            "sliding_window": draw.choice([1, 2, 7, 28, 29, 40]),
            "rope_local_base_freq": draw.choice([50.0, 10_000.0]),
            "query_pre_attn_scalar": draw.choice([values["head_dim"], draw.randint(1, 40)]),
        }
    return preset(family, **values)


def random_network(config: ModelConfig, seed: int) -> LanguageModel:
    """Build a network with all weights far from their initial values."""
    model = build_model(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # The first norm amplifies the rounding of a small embedding, beyond the tolerance.
            size = 1.0 if "embed" in name else 0.1
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def pass_through(
    model: torch.nn.Module, logits: torch.Tensor, targets: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the gradient of every parameter."""
    model.zero_grad()
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "smollm3", "gemma3_text"])
def test_it_is_the_network_of_transformers(family: str, seed: int, tmp_path: Path) -> None:
    config = random_config(family, seed)
    assert config_from_hf(config_to_hf(config)) == config
    ours = random_network(config, seed)
    save_model_folder(tmp_path / "ours", ours, config, None)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", attn_implementation="eager", local_files_only=True
    )
    inputs = make_tokens(2, 29, seed, config.vocab_size)
    targets = make_tokens(2, 29, seed + 1000, config.vocab_size)
    logits, expected = ours(inputs), theirs(inputs).logits
    assert expected.std() > 0.05  # not a comparison of zeros
    assert (logits - expected).abs().max() < TOLERANCE * max(1.0, float(expected.detach().abs().max()))
    own = stored_state(pass_through(ours, logits, targets), config)
    reference = pass_through(theirs, expected, targets)
    assert own.keys() == reference.keys()
    largest = max(gradient.norm() for gradient in reference.values())
    for name, gradient in reference.items():
        # The gradient of a bias of keys without rotation is 0 but for rounding: softmax ignores it.
        assert (own[name] - gradient).norm() < TOLERANCE * gradient.norm() + 1e-7 * largest, name

    theirs.save_pretrained(tmp_path / "theirs")
    back, read = load_model_folder(tmp_path / "theirs")
    assert read == config
    weights = ours.state_dict()
    assert back.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in back.state_dict().items())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "smollm3", "gemma3_text"])
def test_both_formats_of_rotary_positions_are_read(family: str, seed: int, tmp_path: Path) -> None:
    """transformers 4 wrote `rope_theta`, `rope_scaling` and `rope_local_base_freq`; 5 writes `rope_parameters`."""
    config = random_config(family, seed)
    written = config_to_hf(config)
    older = {"rope_theta", "rope_scaling", "rope_local_base_freq"}
    for spared in (older, {"rope_parameters"}):
        rest = {key: value for key, value in written.items() if key not in spared}
        assert config_from_hf(rest) == config
        (tmp_path / "config.json").write_text(json.dumps(rest))
        theirs = transformers.AutoConfig.from_pretrained(tmp_path)
        assert config_from_hf(theirs.to_dict()) == config


@torch.no_grad()
@pytest.mark.parametrize("seed", SEEDS)
def test_generation_with_a_window_is_that_of_transformers(seed: int, tmp_path: Path) -> None:
    """Far beyond the window: by then their cache has dropped the positions that ours masks."""
    from etude.generate.engine import generate
    from etude.generate.sampling import SamplingSettings

    config = random_config("gemma3_text", seed)
    # With a window of 1 the cache of transformers keeps every position, against its own forward pass without a cache.
    config = config.replace(eos_token_id=None, sliding_window=max(2, config.sliding_window))
    ours = random_network(config, seed)
    save_model_folder(tmp_path, ours, config, None)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    prompt = make_tokens(1, 9, seed, config.vocab_size)
    expected = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=39, do_sample=False, pad_token_id=0
    )[0, 9:]
    greedy = SamplingSettings(temperature=0.0, max_new_tokens=39)
    assert generate(ours, prompt.tolist(), greedy, stop_ids=())[0].token_ids == expected.tolist()


@torch.no_grad()
@pytest.mark.parametrize("seed", SEEDS)
def test_in_bf16_it_rounds_where_transformers_rounds(seed: int, tmp_path: Path) -> None:
    """Embeddings are scaled by the rounded root of the width, and 1 + weight of a norm is not rounded."""
    config = random_config("gemma3_text", seed).replace(attention_bias=False)
    save_model_folder(tmp_path, random_network(config, seed), config, None)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.bfloat16, local_files_only=True
    )
    ours, _ = load_model_folder(tmp_path, dtype=torch.bfloat16)
    inputs = make_tokens(1, 12, seed, config.vocab_size)
    hidden = theirs(inputs, output_hidden_states=True).hidden_states[0]
    embedded = ours.get_parameter("model.embed_tokens.weight")[inputs]
    scale = torch.tensor(config.hidden_size**0.5).bfloat16()
    assert torch.equal(hidden, embedded * scale)
    block = ours.get_submodule("model.layers.0.input_layernorm")
    assert torch.equal(block(hidden), theirs.model.layers[0].input_layernorm(hidden))
    from etude.watch.tapped_forward import run_with_taps

    assert torch.equal(run_with_taps(ours, inputs)["model.layers.0.resid_pre"], hidden)
