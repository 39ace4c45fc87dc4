"""Costs counted from the configuration against those of the real network."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from etude.model.build import build_model
from etude.model.cost import (
    count_parameters,
    forward_flops_per_token,
    hidden_matrix_parameters,
    kept_per_token,
    training_flops_per_token,
    training_memory,
)
from etude.train.optimizer import (
    freeze_others,
    layers_in_backward,
    parameters_of,
    state_bytes,
    trains_head,
)
from kept_bytes import kept_bytes
from networks import EVERY, TRANSFORMERS, make_config, make_network, make_tokens
from waiting import PATIENCE

PARTS = {
    "embedding": ("embed_tokens",),
    "positions": ("embed_positions",),
    "attention": ("_proj.",),
    "mlp": (".mlp.", "model.hidden."),
    "norms": ("norm",),
    "head": ("lm_head",),
}


@pytest.mark.parametrize("name", EVERY)
def test_parameters(name: str) -> None:
    config = make_config(name)
    counted = count_parameters(config)
    actual = dict.fromkeys(PARTS, 0)
    matrices = 0
    for key, parameter in build_model(config).named_parameters():
        part = next(
            part
            for part in ("mlp", "norms", "embedding", "positions", "head", "attention")
            if any(word in key for word in PARTS[part])
        )
        actual[part] += parameter.numel()
        matrices += parameter.numel() if part in ("mlp", "attention") and parameter.ndim == 2 else 0
    assert {part: getattr(counted, part) for part in PARTS} == actual
    assert counted.total == sum(actual.values())
    assert counted.non_embedding == actual["attention"] + actual["mlp"] + actual["norms"]
    assert hidden_matrix_parameters(config) == matrices


@pytest.mark.parametrize("name", EVERY)
def test_flops(name: str) -> None:
    """PyTorch's counter counts the two products of plain attention over all T keys."""
    config = make_config(name)
    model, tokens = build_model(config), make_tokens(3, 17)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        logits = model(tokens)
        forward = counter.get_total_flops()
        logits.sum().backward()
        both = counter.get_total_flops()
    assert forward == tokens.numel() * forward_flops_per_token(config, 17)
    assert both == tokens.numel() * training_flops_per_token(config, 17)


def test_causal_attention_is_about_half() -> None:
    config = make_config("llama")
    without = forward_flops_per_token(config, 0)
    full, causal = (forward_flops_per_token(config, 15, causal=c) - without for c in (False, True))
    assert causal * 15 == full * 8  # (1 + 2 + ... + 15) / 15 keys instead of 15


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_kept_activations(name: str, recompute: bool) -> None:
    config = make_config(name)
    estimate = 4 * 3 * 40 * kept_per_token(config, recompute=recompute)
    if not recompute:
        estimate += 4 * config.family.cost.masks(config, 40)
    actual = kept_bytes(make_network(config), 3, 40, recompute=recompute)
    assert actual == pytest.approx(estimate, rel=0.01)


@pytest.mark.parametrize("count", [40, 600])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_kept_in_bf16(name: str, count: int) -> None:
    """Attention saves its patterns there, of all pairs of tokens, and every product a copy of its matrix."""
    config = make_config(name, max_position_embeddings=600)
    model = make_network(config)
    with torch.autocast("cpu", torch.bfloat16):
        actual = kept_bytes(model, 3, count)
    memory = training_memory(config, batch_size=3, context=count, in_blocks=True, rounded=True)
    assert memory.activations + memory.rounded == pytest.approx(actual, rel=0.05)


@pytest.mark.slow
def test_kept_by_compiled_layers() -> None:
    """In a process of its own, because the shape checks that the tests install cannot be traced."""
    names = ["llama", "qwen3", "gpt2", "gpt_neox", "olmo2", "gemma3_text"]
    script = Path(__file__).parent.parent / "kept_bytes.py"
    done = subprocess.run([sys.executable, script, *names], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for name, rounded, kept in json.loads(done.stdout):
        fewer, config = (make_config(name, num_hidden_layers=layers) for layers in (2, 3))
        cost = config.family.cost
        per_token = cost.kept_per_compiled_layer(config, rounded=rounded)
        masks = 0 if rounded else cost.masks(config, 40) - cost.masks(fewer, 40)
        if rounded:
            per_token += cost.patterns_per_token(config, 40, compiled=True)
            copies = hidden_matrix_parameters(config) / config.num_hidden_layers / 2
            per_token += copies / (3 * 40)
        assert kept == pytest.approx(4 * (3 * 40 * per_token + masks), rel=1e-3), (name, rounded)


def test_only_layers_above_the_first_trained_one_keep_activations() -> None:
    config = make_config("llama", num_hidden_layers=4, tie_word_embeddings=False)
    model = make_network(config)
    freeze_others(model, r"layers\.[23]")
    actual = kept_bytes(model, 3, 40)
    layers = layers_in_backward(config, r"layers\.[23]")
    assert (layers, trains_head(config, r"layers\.[23]")) == (2, False)
    estimate = 4 * 3 * 40 * kept_per_token(config, layers=layers)
    assert actual == pytest.approx(estimate, rel=0.1)  # frozen norms keep a little less
    assert layers_in_backward(config, "") == 4
    assert layers_in_backward(config, "lm_head") == 0


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_what_one_layer_keeps(name: str) -> None:
    """With activation checkpointing this counts once, for the layer that is recomputed."""
    fewer, more = (make_config(name, num_hidden_layers=layers) for layers in (2, 3))
    actual = kept_bytes(make_network(more), 3, 40) - kept_bytes(make_network(fewer), 3, 40)
    cost = more.family.cost
    masks = 4 * (cost.masks(more, 40) - cost.masks(fewer, 40))
    counted = 4 * 3 * 40 * cost.kept_per_layer(more) + masks
    assert actual == pytest.approx(counted, rel=0.01)
    memory = training_memory(more, batch_size=3, context=40, recompute=True)
    recomputed = counted - 4 * 3 * 40 * more.hidden_size
    assert memory.activations == 4 * 3 * 40 * kept_per_token(more, recompute=True) + recomputed


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("fused", [False, True])
def test_memory_of_weights_and_optimizer(name: str, fused: bool) -> None:
    config = make_config(name)
    memory = training_memory(config, batch_size=3, context=40, state_bytes=state_bytes(config, "adamw"))
    model = build_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    model(make_tokens(1, 4)).sum().backward()
    optimizer.step()
    states: list[dict[str, Any]] = list(optimizer.state.values())
    assert memory.optimizer == sum(tensor.nbytes for state in states for tensor in state.values())
    assert memory.weights == memory.gradients == sum(p.nbytes for p in model.parameters())
    masks = config.family.cost.masks(config, 40)
    assert memory.activations == 4 * (3 * 40 * kept_per_token(config) + masks)
    always = memory.weights + memory.optimizer
    assert memory.total == always + max(memory.gradients, memory.activations + memory.logits)
    accumulated = dataclasses.replace(memory, accumulated=True)
    assert accumulated.total == always + memory.gradients + memory.activations + memory.logits
    matrices = [parameter for parameter in parameters_of(model) if parameter.role == "hidden"]
    assert sum(math.prod(matrix.shape) for matrix in matrices) == hidden_matrix_parameters(config)
    less = memory.optimizer - state_bytes(config, "muon")
    assert less == 4 * (hidden_matrix_parameters(config) + len(matrices))  # v and the counter of each
    with_snapshot = training_memory(config, batch_size=3, context=40, state_bytes=7, snapshot=True)
    assert with_snapshot.snapshot == memory.weights + 7
