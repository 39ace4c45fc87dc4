"""Our adapters against PEFT's, from the same folder: the same matrices, logits, loss, gradients and updates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from etude.config import TrainSettings
from etude.device import Device
from etude.model.adapter import adapted_by, adapted_matrices, is_factor
from etude.model.adapter_folder import adapter_tensors
from etude.model.dropout import Dropout, branch_keep_mask
from etude.model.folder import load_model_folder, save_weights_folder
from etude.model.language_model import LanguageModel
from etude.train.loss import summed_loss
from etude.train.optimizer import UpdateRules, freeze_others
from networks import make_config, make_network, make_tokens

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
FAMILIES = [
    *("llama", "llama-grouped-tied", "qwen2", "qwen2-tied", "qwen3", "gpt2", "gpt2-untied"),
    *("gpt_neox", "gpt_neox-sequential", "gemma3_text", "olmo2", "smollm3"),
]
RANK, ALPHA = 4, 6.0


def pair(
    folder: Path, name: str, targets: Any = "all-linear", dropout: float = 0.0
) -> tuple[LanguageModel, Any]:
    """Return our network and PEFT's, both of one adapter folder that PEFT wrote, with random factors."""
    config = make_config(name)
    base = make_network(config)
    save_weights_folder(folder / "base", base.state_dict(), config, None)
    network = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "base", dtype=torch.float32, attn_implementation="eager"
    )
    options = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=dropout,
        target_modules=targets,
        fan_in_fan_out=config.model_type == "gpt2",
    )
    theirs = peft.get_peft_model(network, options)
    generator = torch.Generator().manual_seed(2)
    for key, parameter in theirs.named_parameters():
        if "lora_" in key:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    theirs.save_pretrained(folder / "adapter")
    ours, _ = load_model_folder(folder / "adapter")
    freeze_others(ours, "")
    return ours, theirs


def theirs_by_name(model: Any, of: str) -> dict[str, Tensor]:
    """Return PEFT's factors, or their gradients, by the names on disk."""
    return {
        name.replace(".default", ""): parameter.detach() if of == "data" else parameter.grad
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }


def require_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        difference = float((tensor - theirs[name]).norm() / (theirs[name].norm() + 1e-12))
        assert difference < tolerance, (name, difference)


def our_loss(model: LanguageModel, tokens: Tensor) -> Tensor:
    weight, bias = model.unembedding()
    hidden = model.hidden(tokens)[:, :-1]
    return summed_loss(hidden, tokens[:, 1:], weight, bias) / tokens[:, 1:].numel()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_loss_gradients_and_updates(tmp_path: Path, name: str) -> None:
    ours, theirs = pair(tmp_path, name)
    config, tokens = ours.config, make_tokens(2, 15)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs.eval()(tokens).logits, atol=1e-5, rtol=1e-4)
    settings = TrainSettings(
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.1,
        lr_by_width=False,
        eps=1e-4,  # rounding of a gradient near zero would otherwise decide the sign of a move
    )
    rules = UpdateRules(ours, settings, Device("cpu", "fp32", 1))
    trained = [p for n, p in theirs.named_parameters() if "lora_" in n]
    assert {n for n, p in theirs.named_parameters() if p.requires_grad} == {
        n for n, _ in theirs.named_parameters() if "lora_" in n
    }
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1, betas=settings.betas, eps=1e-4)
    for step in range(4):
        batch = make_tokens(2, 15, seed=step)
        rules.zero_grad()
        optimizer.zero_grad()
        loss, expected = our_loss(ours, batch), theirs(batch, labels=batch).loss
        assert float((loss - expected).detach().abs()) < 1e-5 * float(expected.detach())
        loss.backward()
        expected.backward()
        gradients = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
        assert set(gradients) == {n for n, _ in ours.named_parameters() if is_factor(n)}
        require_equal(adapter_tensors(gradients, config), theirs_by_name(theirs, "grad"), 2e-5)
        rules.step(1.0, 0.95)
        optimizer.step()
    state = ours.state_dict()
    require_equal(adapter_tensors(state, config), theirs_by_name(theirs, "data"))


class Masked(torch.nn.Module):
    """Dropout with our mask of one matrix, in place of random numbers."""

    def __init__(self, rows: Tensor, number: int) -> None:
        super().__init__()
        self.rows, self.number = rows, number

    def forward(self, x: Tensor) -> Tensor:
        return x * branch_keep_mask(0.25, self.rows, -1 - self.number, *x.shape[1:]) / 0.75


@pytest.mark.parametrize("name", ["llama-grouped-tied", "gpt2", "gpt_neox"])
def test_dropout_zeroes_the_input_of_the_branch(tmp_path: Path, name: str) -> None:
    ours, theirs = pair(tmp_path, name, dropout=0.25)
    tokens, rows = make_tokens(2, 15), torch.tensor([[12345, 6], [12345, 7]])
    assert ours.config.adapter is not None
    assert ours.config.adapter.dropout == 0.25
    for number, matrix in enumerate(adapted_matrices(ours.config)):
        layer = theirs.get_submodule(f"base_model.model.{matrix.module}")
        assert isinstance(layer.lora_dropout["default"], torch.nn.Dropout)
        layer.lora_dropout["default"] = Masked(rows, number)
    logits = ours.head(ours.hidden(tokens, dropout=Dropout(None, 1.0, rows)))
    expected = theirs.train()(tokens).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    assert (logits - ours(tokens)).abs().max() > 0.01
    for result in (logits, expected):
        F.cross_entropy(result[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    gradients = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    require_equal(adapter_tensors(gradients, ours.config), theirs_by_name(theirs, "grad"))


@pytest.mark.parametrize("name", FAMILIES)
def test_all_linear_layers_are_those_of_peft(tmp_path: Path, name: str) -> None:
    pair(tmp_path, name)
    files = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    train: Any = SimpleNamespace(lora_rank=RANK, lora_alpha=ALPHA, lora_targets=(), lora_dropout=0.0)
    config = adapted_by(make_config(name), train)
    factors = {n: t for n, t in make_network(config).state_dict().items() if is_factor(n)}
    assert {n: t.shape for n, t in adapter_tensors(factors, config).items()} == {
        n: t.shape for n, t in files.items()
    }


@pytest.mark.parametrize(
    ("name", "targets"), [("llama", ["q_proj", "v_proj"]), ("gpt2", ["c_proj"]), ("gpt2", ["mlp.c_proj"])]
)
def test_named_layers_are_those_of_peft(tmp_path: Path, name: str, targets: list[str]) -> None:
    ours, theirs = pair(tmp_path, name, targets)
    tokens = make_tokens(2, 15)
    torch.testing.assert_close(ours(tokens), theirs.eval()(tokens).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_peft_reads_what_we_write(tmp_path: Path, name: str) -> None:
    train: Any = SimpleNamespace(lora_rank=RANK, lora_alpha=ALPHA, lora_targets=(), lora_dropout=0.0)
    model = make_network(adapted_by(make_config(name), train))
    own = {key: tensor for key, tensor in model.state_dict().items() if not is_factor(key)}
    save_weights_folder(tmp_path / "base", own, model.config.base, None)
    save_weights_folder(
        tmp_path / "adapter", model.state_dict(), model.config, None, base=str(tmp_path / "base")
    )
    tokens = make_tokens(2, 15)
    with torch.no_grad():
        expected = model(tokens)
        network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
        torch.testing.assert_close(network(tokens).logits, expected, atol=2e-5, rtol=1e-4)
        base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        torch.testing.assert_close(theirs(tokens).logits, expected, atol=2e-5, rtol=1e-4)
        merged = theirs.merge_and_unload()
        save_weights_folder(tmp_path / "merged", model.state_dict(), model.config, None)
        ours, _ = load_model_folder(tmp_path / "merged")
        torch.testing.assert_close(ours(tokens), merged(tokens).logits, atol=2e-5, rtol=1e-4)
    assert F.mse_loss(model(tokens), load_model_folder(tmp_path / "base")[0](tokens)) > 1e-3
    assert not re.search("lora", " ".join(load_file(tmp_path / "merged" / "model.safetensors")))
