"""The config.json of published models of each family, as their authors wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from etude.errors import InputError
from etude.model.cost import count_parameters
from etude.model.hf_config import config_from_hf, config_to_hf

PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B-Instruct": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0",
        "use_cache": True,
        "vocab_size": 128256,
    },
    "SmolLM2-135M-Instruct": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 576,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536,
        "is_llama_config": True,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "pad_token_id": 2,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
        "transformers_version": "4.42.3",
        "use_cache": True,
        "vocab_size": 49152,
    },
    "Qwen2.5-0.5B-Instruct": {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 896,
        "initializer_range": 0.02,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 21,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "SmolLM3-3B": {
        "architectures": ["SmolLM3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": 128012,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 11008,
        "layer_types": ["full_attention"] * 36,
        "max_position_embeddings": 65536,
        "max_window_layers": 28,
        "mlp_bias": False,
        "model_type": "smollm3",
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1, 1, 0] * 9,
        "num_attention_heads": 16,
        "num_hidden_layers": 36,
        "num_key_value_heads": 4,
        "pad_token_id": 128004,
        "pretraining_tp": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 5000000.0,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.54.0.dev0",
        "use_cache": False,
        "use_sliding_window": False,
        "vocab_size": 128256,
    },
    "gemma-3-270m": {
        "_sliding_window_pattern": 6,
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "final_logit_softcapping": None,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 640,
        "initializer_range": 0.02,
        "intermediate_size": 2048,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
        "max_position_embeddings": 32768,
        "model_type": "gemma3_text",
        "num_attention_heads": 4,
        "num_hidden_layers": 18,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": 512,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.55.0.dev0",
        "use_bidirectional_attention": False,
        "use_cache": True,
        "vocab_size": 262144,
    },
    "gemma-3-1b-pt": {
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "eos_token_id": 1,
        "final_logit_softcapping": None,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "initializer_range": 0.02,
        "intermediate_size": 6912,
        "max_position_embeddings": 32768,
        "model_type": "gemma3_text",
        "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "use_cache": True,
        "vocab_size": 262144,
    },
}
PARAMETERS = {
    "Llama-3.2-1B-Instruct": 1_235_814_400,
    "SmolLM2-135M-Instruct": 134_515_008,
    "Qwen2.5-0.5B-Instruct": 494_032_768,
    "SmolLM3-3B": 3_075_098_624,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b-pt": 999_885_952,
}
"""As the model cards' safetensors metadata count them."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_read_as_transformers_reads_it(name: str, tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    import json

    import torch

    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    config = config_from_hf(PUBLISHED[name])
    assert count_parameters(config).total == PARAMETERS[name]
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config_from_hf(theirs.to_dict()) == config
    assert config_from_hf(config_to_hf(config)) == config
    with torch.device("meta"):
        network = transformers.AutoModelForCausalLM.from_config(theirs)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]


def test_the_switches_of_published_models() -> None:
    llama, smollm2 = (
        config_from_hf(PUBLISHED[name]) for name in ("Llama-3.2-1B-Instruct", "SmolLM2-135M-Instruct")
    )
    assert llama.rope_scaling is not None
    assert (llama.rope_scaling.factor, llama.rope_theta, llama.head_dim) == (32.0, 5e5, 64)
    assert (smollm2.rope_scaling, smollm2.rope_theta, smollm2.head_dim) == (None, 1e5, 64)
    assert llama.tie_word_embeddings
    assert smollm2.tie_word_embeddings
    qwen = config_from_hf(PUBLISHED["Qwen2.5-0.5B-Instruct"])
    assert qwen.attention_bias
    assert not qwen.attention_output_bias
    smollm3 = config_from_hf(PUBLISHED["SmolLM3-3B"])
    assert smollm3.rotary_layers == (True, True, True, False) * 9
    for name in ("gemma-3-270m", "gemma-3-1b-pt"):
        gemma = config_from_hf(PUBLISHED[name])
        assert gemma.sliding_window == 512
        assert [layer for layer, sliding in enumerate(gemma.sliding_layers) if not sliding] == list(
            range(5, gemma.num_hidden_layers, 6)
        )
        assert (gemma.rope_theta, gemma.rope_local_base_freq, gemma.score_scale) == (1e6, 1e4, 1 / 16)


@pytest.mark.parametrize("kind", ["mistral", "gemma3", "gemma2", "qwen2_moe", "phi3"])
def test_another_family_is_refused_by_name_with_the_list(kind: str) -> None:
    with pytest.raises(InputError, match=f"model_type '{kind}' is not supported: only llama, .*gemma3_text"):
        config_from_hf(PUBLISHED["SmolLM2-135M-Instruct"] | {"model_type": kind})
