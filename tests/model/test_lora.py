"""Low-rank adapters in the network: the branch, the sum that readers see, first values, and PEFT's names on disk."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from etude.errors import InputError
from etude.model.adapter import LoRA, adapted_by, adapted_matrices, adapter_parameters, is_factor
from etude.model.build import build_model, empty_model
from etude.model.config import ModelConfig
from etude.model.cost import count_parameters
from etude.model.decoding import Decoding
from etude.model.folder import load_config, load_model_folder, save_weights_folder
from etude.model.lora import LoRALinear, first_factors, merged_state
from networks import TRANSFORMERS, make_config, make_network, make_tokens


def adapted(name: str, rank: int = 3, alpha: Any = 5.0, targets: tuple[str, ...] = ()) -> ModelConfig:
    """Return the configuration of a small network with an adapter."""
    train: Any = SimpleNamespace(lora_rank=rank, lora_alpha=alpha, lora_targets=targets, lora_dropout=0.0)
    return adapted_by(make_config(name), train)


def merged(model: Any) -> Any:
    """Return the network without branches whose matrices are the sums, computed in float64."""
    state = {}
    for name, tensor in model.state_dict().items():
        path, _, leaf = name.rpartition(".")
        layer = model.get_submodule(path)
        if isinstance(layer, LoRALinear) and leaf == "weight":
            product = layer.lora_B.detach().double() @ layer.down.detach().double()
            state[name] = (tensor.double() + layer.scale * product).float()
        elif not is_factor(name):
            state[name] = tensor
    whole = build_model(model.config.base)
    whole.load_state_dict(state)
    return whole


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_every_family_computes_with_the_sum(name: str) -> None:
    model = make_network(adapted(name))
    tokens = make_tokens(2, 11)
    with torch.no_grad():
        expected, actual = merged(model)(tokens), model(tokens)
        without = build_model(model.config.base)
        without.load_state_dict({n: t for n, t in model.state_dict().items() if not is_factor(n)})
        assert (without(tokens) - expected).abs().max() > 0.01
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(TRANSFORMERS)),
    st.integers(1, 8),
    st.floats(0.25, 30),
    st.integers(0, 99),
)
def test_the_weight_is_the_sum_and_decoding_reads_it(name: str, rank: int, alpha: float, seed: int) -> None:
    model = make_network(adapted(name, rank, alpha), seed).double()  # a large factor amplifies rounding
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    assert len(layers) == sum(len(matrix.parts) for matrix in adapted_matrices(model.config))
    for layer in layers:
        product = layer.lora_B.detach().double() @ layer.down.detach().double()
        expected = layer.base_weight.detach().double() + alpha / rank * product
        torch.testing.assert_close(layer.weight.detach().double(), expected, atol=1e-5, rtol=1e-5)
    tokens = make_tokens(2, 6, seed)
    with torch.no_grad():
        expected = model(tokens)
        decoding, cache = Decoding(model), model.new_cache(2, 8)
        for place in range(6):
            logits = decoding.step(tokens[:, place], cache)
            torch.testing.assert_close(logits, expected[:, place], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["llama-grouped-tied", "qwen2", "gpt2", "gpt_neox"])
def test_it_begins_as_its_base_to_the_bit(name: str) -> None:
    config = adapted(name)
    base, model = make_network(config.base, 4), empty_model(config).to_empty(device="cpu")
    state = base.state_dict() | first_factors(model, config, 7)
    assert not any(tensor.any() for key, tensor in state.items() if key.endswith("lora_B"))
    network = build_model(config)
    network.load_state_dict(state)
    tokens = make_tokens(2, 11)
    assert torch.equal(network(tokens), base(tokens))


def test_first_values_depend_on_seed_and_name_alone() -> None:
    config = adapted("llama")
    model = empty_model(config)
    one, again, other = (first_factors(model, config, seed) for seed in (7, 7, 8))
    names = [name for name in one if name.endswith("lora_A")]
    assert all(torch.equal(one[name], again[name]) for name in names)
    assert not any(torch.equal(one[name], other[name]) for name in names)
    few = adapted("llama", targets=("up_proj",))
    shared = first_factors(empty_model(few), few, 7)
    assert all(torch.equal(shared[name], one[name]) for name in shared)
    for name in names:
        bound = one[name].shape[1] ** -0.5
        assert 0.8 * bound < float(one[name].abs().max()) <= bound


def gradients(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.logsumexp(model(tokens), -1).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_no_gradient_of_a_frozen_weight_is_computed() -> None:
    model = make_network(adapted("llama"))
    everything = gradients(model, make_tokens(2, 9))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_factor(name))
    few = gradients(model, make_tokens(2, 9))
    assert few.keys() == {name for name in everything if is_factor(name)}
    for name, gradient in few.items():
        torch.testing.assert_close(gradient, everything[name])
    saved: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(tuple(t.shape)) or t, lambda t: t):
        model.model.layers[0].mlp.down_proj(torch.randn(1, 5, model.config.intermediate_size))
    assert saved.count((5, model.config.intermediate_size)) == 1  # for A, and not again for W


def test_in_bf16_the_sum_is_not_rounded() -> None:
    model = make_network(adapted("llama"))
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(layer, LoRALinear)
    x = torch.randn(4, 32)
    with torch.no_grad():
        exact, inside = layer.weight, None
        with torch.autocast("cpu", torch.bfloat16):
            inside, y = layer.weight, layer(x)
        assert inside.dtype == torch.float32
        assert torch.equal(inside, exact)
        assert y.dtype == torch.bfloat16
        expected = x @ exact.T + layer.bias
        assert (y.float() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_counts_are_those_of_the_network(name: str) -> None:
    config = adapted(name)
    network = empty_model(config)
    assert adapter_parameters(config) == sum(p.numel() for n, p in network.named_parameters() if is_factor(n))
    total = sum(p.numel() for p in network.parameters())
    assert total == adapter_parameters(config) + count_parameters(config).total


def test_a_copy_has_branches_of_its_own() -> None:
    model = make_network(adapted("gpt2"))
    other, tokens = copy.deepcopy(model), make_tokens(1, 7)
    before = model(tokens)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(model(tokens), before)
    assert not other(tokens).any()


def test_the_parameter_called_weight_is_the_base() -> None:
    model = make_network(adapted("llama"))
    name = "model.layers.1.self_attn.q_proj"
    layer = model.get_submodule(name)
    assert isinstance(layer, LoRALinear)
    assert model.get_parameter(f"{name}.weight") is dict(model.named_parameters())[f"{name}.weight"]
    assert not torch.equal(layer.weight, layer.base_weight)


@pytest.mark.parametrize("name", ["llama-grouped-tied", "qwen2", "gpt2", "gpt_neox", "gemma3_text", "olmo2"])
def test_a_folder_holds_the_adapter_alone_and_reads_back(tmp_path: Path, name: str) -> None:
    model = make_network(adapted(name))
    config, base, folder = model.config, tmp_path / "base", tmp_path / "adapter"
    own = {key: tensor for key, tensor in model.state_dict().items() if not is_factor(key)}
    save_weights_folder(base, own, config.base, None)
    save_weights_folder(folder, model.state_dict(), config, None, base="../base")
    assert not (folder / "model.safetensors").exists()
    assert load_config(folder) == config
    read, found = load_model_folder(folder)
    assert found == config
    assert all(torch.equal(tensor, read.state_dict()[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_saved_whole_it_is_merged(tmp_path: Path, name: str) -> None:
    model, tokens = make_network(adapted(name)), make_tokens(2, 9)
    save_weights_folder(tmp_path, model.state_dict(), model.config, None)
    whole, config = load_model_folder(tmp_path)
    assert config == model.config.base
    torch.testing.assert_close(whole(tokens), model(tokens), atol=1e-4, rtol=1e-4)
    expected = merged_state(model.state_dict(), model.config)
    assert all(torch.equal(tensor, whole.state_dict()[key]) for key, tensor in expected.items())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"rank": 33}, "rank 33 is impossible: its smallest matrix has rank 32"),
        ("llama", {"rank": 20, "targets": ("k_proj", "down_proj")}, ""),
        (
            "llama",
            {"targets": ("c_attn",)},
            r"no linear layer is called 'c_attn': choose from q_proj, k_proj",
        ),
        ("gpt2", {"targets": ("q_proj",)}, "choose from c_attn, c_proj, c_fc"),
        ("gpt_neox", {"targets": ("lm_head",)}, "choose from query_key_value, dense, dense_h_to_4h"),
        ("llama", {"alpha": float("nan")}, "alpha of an adapter must be above 0"),
        ("mlp", {}, "family mlp cannot have an adapter"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    if not message:
        adapted(name, **changes)
        return
    with pytest.raises(InputError, match=message):
        adapted(name, **changes)


def test_targets_are_names_or_ends_of_names_as_in_peft() -> None:
    modules = [m.module for m in adapted_matrices(adapted("gpt2", targets=("mlp.c_proj",)))]
    assert modules == [f"transformer.h.{layer}.mlp.c_proj" for layer in range(3)]
    assert len(adapted_matrices(adapted("gpt2", targets=("c_proj",)))) == 6
    with pytest.raises(InputError, match="rank 0"):
        make_config("llama").replace(adapter=LoRA(0, 1.0, ("q_proj",)))
