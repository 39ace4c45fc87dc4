"""Small random networks of every family, with all weights far from their initial values.

A zero-initialised projection or a norm of ones would hide a wrong one; so the tests move every tensor.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from etude.model.build import build_model
from etude.model.config import ModelConfig, preset
from etude.model.language_model import LanguageModel
from etude.model.rope import RopeScaling

VOCAB = 61
ALPHABET: Any = SimpleNamespace(
    roles=SimpleNamespace(document_id=0, stop_ids=frozenset({0})),
    encode=lambda text: [ord(c) % VOCAB for c in text],
    decode=lambda ids: chr(97 + ids[0] % 26),
)
"""A tokenizer for them, with one token per character."""

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "llama": {"preset": "llama"},
    "llama-grouped-tied": {"preset": "llama", "num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama-plain": {"preset": "llama", "attention_bias": False, "mlp_bias": False, "rope_theta": 500.0},
    "llama-one-kv-head-relu2": {"preset": "llama", "num_key_value_heads": 1, "hidden_act": "relu2"},
    "qwen3": {"preset": "qwen3", "num_key_value_heads": 2, "head_dim": 12},
    "qwen3-tied-bias": {"preset": "qwen3", "tie_word_embeddings": True, "attention_bias": True},
    "gpt2": {"preset": "gpt2"},
    "gpt2-untied": {"preset": "gpt2", "tie_word_embeddings": False, "intermediate_size": 40},
    "llama-linear-positions": {
        "preset": "llama",
        "rope_scaling": RopeScaling(rope_type="linear", factor=4.0),
    },
    "llama-llama3-positions": {
        "preset": "llama",
        "rope_scaling": RopeScaling(
            rope_type="llama3", factor=8.0, high_freq_factor=4.0, original_max_position_embeddings=24
        ),
    },
    "gpt_neox": {"preset": "gpt_neox", "partial_rotary_factor": 0.5},
    "gpt_neox-sequential": {"preset": "gpt_neox", "parallel_residual": False, "attention_bias": False},
    "olmo2": {"preset": "olmo2", "num_key_value_heads": 2},
    "olmo2-bias": {"preset": "olmo2", "attention_bias": True, "tie_word_embeddings": True},
    "qwen2": {"preset": "qwen2", "num_key_value_heads": 2},
    "qwen2-tied": {"preset": "qwen2", "tie_word_embeddings": True, "hidden_size": 16, "head_dim": 6},
    "smollm3": {
        "preset": "smollm3",
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 24,  # wider, so deep a tied network amplifies rounding above tolerances of 1e-5
    },
    "smollm3-untied-bias": {
        "preset": "smollm3",
        "num_hidden_layers": 5,
        "hidden_size": 16,
        "head_dim": 6,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "gemma3_text": {"preset": "gemma3_text", "num_key_value_heads": 2},
    "gemma3_text-untied-bias": {
        "preset": "gemma3_text",
        "num_key_value_heads": 1,
        "head_dim": 12,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "query_pre_attn_scalar": 20,
        "sliding_window": 5,
        "rope_local_base_freq": 300.0,
        "rope_theta": 5000.0,
        "rope_scaling": RopeScaling(rope_type="linear", factor=4.0),
    },
}
WINDOWS: dict[str, dict[str, Any]] = {
    "mlp": {"preset": "mlp"},
    "mlp-direct": {"preset": "mlp", "direct_connections": True, "context_size": 3},
}
EVERY = TRANSFORMERS | WINDOWS


def make_config(name: str, **changes: Any) -> ModelConfig:
    """Return a configuration of a family; the defaults are width 32, 4 heads, 3 layers, 48 positions."""
    values = dict(EVERY[name])
    kind = values.pop("preset")
    sizes: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 32, "max_position_embeddings": 48}
    if kind != "mlp":
        sizes |= {"num_attention_heads": 4, "num_hidden_layers": 3}
    return preset(kind, **(sizes | values | changes))


def make_network(config: ModelConfig, seed: int = 0) -> LanguageModel:
    """Build a network and add random numbers to every parameter: weights, biases and norms."""
    model = build_model(config, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def make_tokens(rows: int, count: int, seed: int = 0, vocab: int = VOCAB) -> Tensor:
    return torch.randint(0, vocab, (rows, count), generator=torch.Generator().manual_seed(seed))
