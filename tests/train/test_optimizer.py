"""AdamW against its formula in float64; the rule of each parameter; state by name, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from etude.config import TrainSettings
from etude.device import Device
from etude.errors import InputError
from etude.model.build import build_model
from etude.model.config import ModelConfig, preset
from etude.model.language_model import LanguageModel
from etude.train.optimizer import UpdateRules, parameters_of
from etude.train.rules.contract import BASE_WIDTH
from etude.train.rules.muon import blocks_of

CPU = Device("cpu", "fp32", 1)


def config(name: str, **more: object) -> ModelConfig:
    dims: dict[str, object] = {"vocab_size": 19, "hidden_size": 16, "max_position_embeddings": 8, **more}
    if name != "mlp":
        dims |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    return preset(name, **dims)


def with_gradients(model: LanguageModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "mlp"])
def test_every_parameter_has_exactly_one_rule(name: str) -> None:
    model = build_model(config(name))
    rules = UpdateRules(model, TrainSettings(optimizer="muon", lr=1e-2, muon_lr=1e-2, weight_decay=0.1), CPU)
    moved = [rules.names[p] for o in rules.optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(moved) == sorted(dict(model.named_parameters()))
    used, roles = rules.used(), {parameter.name: parameter.role for parameter in parameters_of(model)}
    muon = [key for key in used if used[key].rule == "muon"]
    assert muon == [key for key in used if roles[key] == "hidden"]
    assert all(".weight" in key and "embed" not in key and "lm_head" not in key for key in muon)
    vectors = [key for key in used if roles[key] == "vector"]
    assert all(".bias" in key or "norm" in key for key in vectors)
    assert all((used[key].weight_decay == 0) == (key in vectors) for key in used)
    if name != "mlp":
        assert len(muon) == 2 * (6 if name == "gpt2" else 7)
    assert roles["model.embed_tokens.weight"] == ("output" if name == "gpt2" else "embedding")


def test_a_scaled_embedding_adds_to_the_stream_at_the_usual_rate() -> None:
    """Its rows are smaller by the root of the width, and so are their updates."""
    settings = TrainSettings(lr=1e-2, optimizer="adamw")
    rates = {}
    for name in ("llama", "gemma3_text"):
        model = build_model(config(name, vocab_size=300, tie_word_embeddings=False))
        used = UpdateRules(model, settings, CPU).used()
        width = model.config.hidden_size
        assert used["lm_head.weight"].lr == pytest.approx(1e-2 * BASE_WIDTH / width)
        rates[name] = used["model.embed_tokens.weight"].lr
        spread = float(model.get_parameter("model.embed_tokens.weight").std()) * model.config.embedding_scale
        assert spread == pytest.approx(1.0, rel=0.1)
    assert rates["llama"] == 1e-2
    assert rates["gemma3_text"] == pytest.approx(1e-2 / width**0.5)


@pytest.mark.parametrize(
    ("width", "inner", "expected"),
    [
        (128, 352, {"q": (2, 1), "k": (1, 1), "o": (1, 1), "gate": (1, 1), "down": (1, 1)}),
        (256, 704, {"q": (2, 1), "k": (1, 1), "o": (1, 4), "gate": (11, 1), "down": (1, 11)}),
        (512, 1376, {"q": (2, 1), "k": (1, 1), "o": (1, 8), "gate": (32, 1), "down": (1, 32)}),
        (256, 691, {"q": (2, 1), "k": (1, 1), "o": (1, 4), "gate": (1, 1), "down": (1, 1)}),  # a prime
    ],
)
def test_large_matrices_are_orthogonalised_in_blocks(
    width: int, inner: int, expected: dict[str, tuple[int, int]]
) -> None:
    model = build_model(config("llama", hidden_size=width, intermediate_size=inner, num_key_value_heads=1))
    actual = {
        parameter.name.split(".")[-2].removesuffix("_proj"): blocks_of(parameter, model.config)
        for parameter in parameters_of(model)
        if parameter.role == "hidden"
    }
    assert actual.items() >= expected.items()
    assert (actual["k"], actual["gate"]) == (actual["v"], actual["up"])


def test_adamw_follows_its_formula() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""
    settings = TrainSettings(lr=3e-3, muon_lr=1.0, optimizer="adamw", weight_decay=0.1, betas=(0.9, 0.95))
    model = build_model(config("llama"))
    rules = UpdateRules(model, settings, CPU)
    w = {n: p.detach().double().numpy().copy() for n, p in model.named_parameters()}
    m = {n: np.zeros_like(v) for n, v in w.items()}
    v = {n: np.zeros_like(x) for n, x in w.items()}
    for step in range(1, 6):
        with_gradients(model, step)
        factor = 1.0 / step
        rules.step(factor, momentum=0.9)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            g = parameter.grad.double().numpy()
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.95 * v[name] + 0.05 * g * g
            decay = 0.1 if parameter.ndim == 2 else 0.0
            lr = 3e-3 * factor * (128 / 16 if parameter.ndim == 2 and "embed" not in name else 1)
            w[name] *= 1 - lr * decay
            m_hat, v_hat = m[name] / (1 - 0.9**step), v[name] / (1 - 0.95**step)
            w[name] -= lr * m_hat / (np.sqrt(v_hat) + 1e-8)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), w[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mlp"])
def test_state_survives_a_round_trip_by_name(optimizer: str, name: str) -> None:
    settings = TrainSettings(lr=1e-2, muon_lr=1e-2, weight_decay=0.1, optimizer=optimizer)  # type: ignore[arg-type]
    model = build_model(config(name))
    rules = UpdateRules(model, settings, CPU)
    for step in range(3):
        with_gradients(model, step)
        rules.step(1.0, momentum=0.9)
    other = build_model(config(name), seed=99)
    other.load_state_dict(model.state_dict())
    other_rules = UpdateRules(other, settings, CPU)
    other_rules.load_named_state({k: t.clone() for k, t in rules.named_state().items()})
    for step in range(3, 6):
        for each, its_rules in ((model, rules), (other, other_rules)):
            with_gradients(each, step)
            its_rules.step(0.5, momentum=0.9)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_missing_and_misshapen_state_is_refused_by_name() -> None:
    settings = TrainSettings(optimizer="muon", lr=1e-2, muon_lr=1e-2, weight_decay=0.1)
    model = build_model(config("llama"))
    rules = UpdateRules(model, settings, CPU)
    with_gradients(model, 0)
    rules.step(1.0, momentum=0.9)
    state = rules.named_state()
    key = "model.layers.0.mlp.up_proj.weight.momentum_buffer"
    with pytest.raises(InputError, match=r"up_proj\.weight\.momentum_buffer' is missing"):
        rules.load_named_state({k: v for k, v in state.items() if k != key})
    with pytest.raises(InputError, match="has shape"):
        rules.load_named_state({**state, key: torch.zeros(2, 2)})


def test_the_learning_rates_follow_the_factor() -> None:
    rules = UpdateRules(
        build_model(config("llama")),
        TrainSettings(optimizer="muon", lr=0.25, muon_lr=0.5, weight_decay=0.1),
        CPU,
    )
    rules.step(0.5, momentum=0.9)
    rates = sorted({group["lr"] for o in rules.optimizers for group in o.param_groups})
    assert all(math.isclose(a, b) for a, b in zip(rates, [0.125, 0.25, 0.125 * 128 / 16], strict=True))
    assert {group["momentum"] for group in rules.optimizers[1].param_groups} == {0.9}
