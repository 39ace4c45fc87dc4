"""A network of transformers, trained by it for a few steps, has the activations that its own hooks record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from etude.model.folder import load_model_folder
from etude.model.language_model import LOGITS
from etude.watch.tapped_forward import run_with_taps

SIZES = {"vocab_size": 61, "max_position_embeddings": 48, "bos_token_id": 0, "eos_token_id": 0}
LLAMA = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
CONFIGS: dict[str, Any] = {
    "llama": transformers.LlamaConfig(
        **SIZES, **LLAMA, num_key_value_heads=2, attention_bias=True, mlp_bias=True
    ),
    "qwen3": transformers.Qwen3Config(**SIZES, **LLAMA, num_key_value_heads=2, head_dim=12),
    "qwen2": transformers.Qwen2Config(**SIZES, **LLAMA, num_key_value_heads=2),
    "smollm3": transformers.SmolLM3Config(
        **SIZES, **LLAMA, num_key_value_heads=2, no_rope_layers=[1, 0, 1], pad_token_id=None
    ),
    "gemma3_text": transformers.Gemma3TextConfig(
        **SIZES, **LLAMA, num_key_value_heads=2, head_dim=12, sliding_window=6, sliding_window_pattern=2
    ),
    "gpt2": transformers.GPT2Config(**SIZES, n_embd=32, n_layer=3, n_head=4, n_positions=48),
}


def trained_elsewhere(name: str, folder: Path) -> Any:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(5):
        batch = torch.randint(61, (4, 24))
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_activations_are_those_of_its_own_hooks(name: str, tmp_path: Path) -> None:
    theirs = trained_elsewhere(name, tmp_path)
    ours, _ = load_model_folder(tmp_path)
    inputs = torch.randint(61, (2, 17))
    seen: dict[str, torch.Tensor] = {}

    def keep(key: str, which: int | None = None) -> Any:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            value = arguments[0] if which == -1 else output if which is None else output[which]
            seen[key] = value.detach()

        return hook

    gpt2 = name == "gpt2"
    layers = theirs.transformer.h if gpt2 else theirs.model.layers
    for number, layer in enumerate(layers):
        path = f"model.layers.{number}"
        attention = layer.attn if gpt2 else layer.self_attn
        if name == "gemma3_text":  # its norms after the sublayers give what is added
            layer.post_attention_layernorm.register_forward_hook(keep(f"{path}.attn_out"))
            layer.post_feedforward_layernorm.register_forward_hook(keep(f"{path}.mlp_out"))
        else:
            attention.register_forward_hook(keep(f"{path}.attn_out", 0))
            layer.mlp.register_forward_hook(keep(f"{path}.mlp_out"))
        (layer.ln_1 if gpt2 else layer.input_layernorm).register_forward_hook(
            keep(f"{path}.input_layernorm.normalized")
        )
        last = layer.mlp.c_proj if gpt2 else layer.mlp.down_proj
        last.register_forward_hook(keep(f"{path}.mlp.post", -1))
        if not gpt2:
            layer.mlp.gate_proj.register_forward_hook(keep(f"{path}.mlp.pre"))
            layer.mlp.up_proj.register_forward_hook(keep(f"{path}.mlp.pre_linear"))
    with torch.no_grad():
        output = theirs(input_ids=inputs, output_attentions=True, output_hidden_states=True)
        opened = run_with_taps(ours, inputs)
    for number in range(3):
        path = f"model.layers.{number}"
        seen[f"{path}.self_attn.pattern"] = output.attentions[number]
        seen[f"{path}.resid_pre"] = output.hidden_states[number]
    seen["model.norm.normalized"] = output.hidden_states[-1]
    seen[LOGITS] = output.logits
    assert len(seen) >= 20
    for key, value in seen.items():
        torch.testing.assert_close(opened[key], value, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")
