"""The initialisation table, checked on real tensors."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from etude.model.build import build_model, empty_model
from etude.model.init import InitSettings, init_table, rule_for, rule_std
from networks import EVERY, make_config, make_tokens

CHOICES = [
    InitSettings(*choice)
    for choice in itertools.product(
        ("fan_in", "initializer_range"),
        ("zeros", "residual"),
        ("embedding", "initializer_range"),
        ("zeros", "initializer_range"),
    )
]


@pytest.mark.parametrize("settings", CHOICES, ids=str)
@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "gpt2", "mlp-direct", "gemma3_text", "gemma3_text-untied-bias"]
)
def test_every_tensor_has_the_statistics_of_its_rule(name: str, settings: InitSettings) -> None:
    config = make_config(name, initializer_range=0.05)
    table = init_table(settings)
    for key, parameter in build_model(config, seed=3, init=settings).named_parameters():
        rule = rule_for(key, table).rule
        values = parameter.detach()
        mean, spread = float(values.mean()), float(values.std())
        if rule in ("zeros", "ones"):
            one = rule == "ones" and not config.zero_centered_norm
            assert torch.all(parameter == (1.0 if one else 0.0)), key
            continue
        std = rule_std(rule, parameter.shape, config)
        count = parameter.numel()
        # Five standard errors of the mean and of the standard deviation of normal numbers.
        assert abs(mean) < 5 * std / math.sqrt(count), key
        assert abs(spread - std) < 5 * std / math.sqrt(2 * count), key


def test_the_rules_are_what_their_names_say() -> None:
    config, shape = make_config("llama", initializer_range=0.05), torch.Size([50, 25])
    assert rule_std("initializer_range", shape, config) == 0.05
    assert rule_std("fan_in", shape, config) == pytest.approx(0.2)
    assert rule_std("residual", shape, config) == pytest.approx(0.2 / math.sqrt(6))
    assert rule_std("embedding", shape, config) == 1.0
    tied = make_config("llama", initializer_range=0.05, tie_word_embeddings=True)
    assert rule_std("embedding", shape, tied) == 0.05
    scaled = make_config("gemma3_text", initializer_range=0.05, tie_word_embeddings=False)
    assert rule_std("embedding", shape, scaled) == pytest.approx(1 / math.sqrt(32))


@pytest.mark.parametrize("name", EVERY)
def test_by_default_a_fresh_network_predicts_almost_uniformly(name: str) -> None:
    config = make_config(name)
    model = build_model(config)
    for key, parameter in model.named_parameters():
        if key.endswith(("o_proj.weight", "down_proj.weight", ".bias")):
            assert not parameter.any(), key
    tokens = make_tokens(4, 20)
    loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), make_tokens(4, 20, 1).flatten())
    assert abs(loss.item() - math.log(config.vocab_size)) < 0.2


@pytest.mark.parametrize("name", EVERY)
def test_the_same_seed_gives_the_same_network(name: str) -> None:
    config = make_config(name)
    torch.manual_seed(1)
    first = build_model(config, seed=5).state_dict()
    torch.manual_seed(2)
    again, other = build_model(config, seed=5).state_dict(), build_model(config, seed=6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_building_does_not_use_the_global_generator() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build_model(make_config("llama"))
    assert torch.equal(torch.rand(3), expected)


def test_a_deeper_network_starts_with_the_same_layers() -> None:
    settings = InitSettings(output_projections="residual", matrices="initializer_range")
    shallow = build_model(make_config("llama", num_hidden_layers=2), init=settings).state_dict()
    deep = build_model(make_config("llama", num_hidden_layers=4), init=settings).state_dict()
    scaled = ("o_proj.weight", "down_proj.weight")
    assert all(torch.equal(shallow[key], deep[key]) for key in shallow if not key.endswith(scaled))


def test_an_unknown_parameter_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rule of initialisation"):
        rule_for("model.new_thing.weight", init_table())


def test_an_empty_model_takes_no_memory_at_any_size() -> None:
    config = make_config(
        "llama", hidden_size=8192, num_attention_heads=64, num_hidden_layers=80, vocab_size=128_000
    )
    model = empty_model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) > 50e9
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
