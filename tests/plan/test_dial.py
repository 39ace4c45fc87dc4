from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.config import Settings, get_value, known_keys, with_values
from etude.device import Device
from etude.errors import InputError
from etude.model.build import empty_model
from etude.model.families import family_named
from etude.plan.derivation import MAX_EPOCHS, Facts, derives
from etude.plan.dial import DERIVATIONS, resolve
from etude.plan.sizes import SIZES
from etude.setting_declarations import declarations
from etude.train.rules.contract import Rate
from etude.workflow.jobs import RESOLVED_LATER

CPU = Device("cpu", "fp32", 2)


def test_every_open_setting_has_one_derivation_and_no_other_has_any() -> None:
    """``derives`` refuses a second one for a key; what no run keeps is resolved where it is used."""
    left_open = {key for key, declaration in declarations().items() if declaration.default == "auto"}
    assert DERIVATIONS.keys() | RESOLVED_LATER.keys() == left_open
    assert DERIVATIONS.keys() & RESOLVED_LATER.keys() == {"device.compile"}  # the dial's in a short time only
    assert {
        key for key, declaration in declarations().items() if declaration.is_derived
    } <= DERIVATIONS.keys()
    with pytest.raises(AssertionError, match=r"train\.steps has two derivations"):
        derives(DERIVATIONS, "train.steps")(lambda dial, key: None)


@pytest.mark.parametrize(
    ("requested", "actual"),
    [
        ({"train.dropout": 0.0}, 0.1),
        ({"train.dropout": 0.05}, 0.3),
        ({"train.dropout": 0.05, "train.weight_decay": 0.2}, 0.2),
        ({"train.steps": 10}, 0.1),  # hardly read once
        ({"train.steps": 400}, 0.3),  # read eight times, by eight parameters for each token
    ],
)
def test_weight_decay_goes_with_dropout(requested: dict[str, object], actual: float) -> None:
    settings = with_values(Settings(), {"train.context": 256, "train.batch_rows": 8, **requested})
    assert (
        resolve(settings, Facts(100_000, 300, 0), Device("cpu", "fp32", 2)).settings.train.weight_decay
        == actual
    )


@pytest.mark.parametrize(
    ("optimizer", "rates"),
    [
        ("muon", {"train.lr": 0.02, "train.muon_lr": 0.025}),
        ("adamw", {"train.lr": 0.02, "train.muon_lr": "auto"}),
    ],
)
def test_the_rates_are_those_of_the_update_rules_in_use(optimizer: str, rates: dict[str, object]) -> None:
    requested = with_values(Settings(), {"train.optimizer": optimizer})
    resolution = resolve(requested, Facts(100_000, 300, 0), CPU)
    assert {key: get_value(resolution.settings, key) for key in rates} == rates
    assert {key for key in rates if key in resolution.reasons} == {k for k, v in rates.items() if v != "auto"}


def test_the_rate_that_the_log_shows_is_there_also_where_no_rule_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("etude.plan.dial.rates_of", lambda name: {"train.muon_lr": Rate(0.5, "its own")})
    train = resolve(Settings(), Facts(100_000, 300, 0), CPU).settings.train
    assert (train.lr, train.muon_lr) == (0.02, 0.5)


@pytest.mark.parametrize(
    ("kind", "does_bf16", "width", "dtype"),
    [
        ("cpu", True, 128, "bf16"),
        ("cpu", True, 96, "fp32"),
        ("cpu", False, 512, "fp32"),
        ("cuda", True, 64, "bf16"),
        ("cuda", False, 512, "fp32"),
    ],
)
def test_products_are_in_bf16_where_that_is_faster(
    kind: Any, does_bf16: bool, width: int, dtype: str
) -> None:
    usual = "bf16" if kind == "cuda" and does_bf16 else "fp32"
    device = Device(kind, usual, 2, fast_bf16=does_bf16)
    requested = with_values(Settings(), {"model.hidden_size": width, "model.num_attention_heads": 4})
    resolution = resolve(requested, Facts(100_000, 300, 0), device)
    assert resolution.settings.device.dtype == dtype
    assert resolution.reasons["device.dtype"]


@given(
    size=st.sampled_from(["auto", *SIZES]),
    preset=st.sampled_from(["llama", "qwen3", "gpt2", "mlp"]),
    tokens=st.integers(2000, 10**10),
    vocab=st.integers(260, 40_000),
)
def test_every_auto_becomes_a_value_with_a_reason(size: str, preset: str, tokens: int, vocab: int) -> None:
    requested = with_values(Settings(), {"model.size": size, "model.preset": preset})
    resolution = resolve(requested, Facts(tokens, vocab, 0), CPU)
    left = {key for key in known_keys() if get_value(resolution.settings, key) == "auto"}
    unused = {f"model.{key}" for key in family_named(preset).unused_settings} | {"train.lora_alpha"}
    assert left == RESOLVED_LATER.keys() | unused
    changed = {k for k in known_keys() if get_value(requested, k) != get_value(resolution.settings, k)}
    assert changed <= set(resolution.reasons)
    train = resolution.settings.train
    assert isinstance(train.steps, int)
    read = train.steps * train.batch_rows * train.context
    assert train.steps == 1 or read <= max(MAX_EPOCHS * tokens * 1.01, train.batch_rows * train.context)
    assert empty_model(resolution.model).config == resolution.model


@given(steps=st.integers(1, 10**6), width=st.sampled_from([64, 128, 192]), heads=st.sampled_from([2, 4, 8]))
def test_settings_of_the_user_stay(steps: int, width: int, heads: int) -> None:
    requested = {"train.steps": steps, "model.hidden_size": width, "model.num_attention_heads": heads}
    resolution = resolve(with_values(Settings(), requested), Facts(10**6, 512, 0), CPU)
    for key, value in requested.items():
        assert get_value(resolution.settings, key) == value
        assert key not in resolution.reasons


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"model.hidden_size": 100, "model.num_attention_heads": 3}, "hidden_size"),
        ({"train.context": 5000}, "train.context"),
        ({"train.batch_rows": 8, "train.micro_batch_rows": 3}, "train.micro_batch_rows"),
        ({"model.num_key_value_heads": 3}, "num_key_value_heads"),
        ({"model.preset": "mlp", "model.num_hidden_layers": 6}, "num_hidden_layers"),
        ({"model.preset": "mlp", "model.tie_word_embeddings": True}, "tie_word_embeddings"),
    ],
)
def test_impossible_combinations_are_one_line(values: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        resolve(with_values(Settings(), values), Facts(3000, 512, 0), CPU)
    assert "\n" not in str(caught.value)


def test_a_small_text_is_not_repeated_until_it_is_memorised() -> None:
    few = resolve(Settings(), Facts(20_000, 512, 0), CPU)
    many = resolve(Settings(), Facts(10**9, 512, 0), CPU)
    assert few.settings.train.steps < many.settings.train.steps
    assert "small text" in few.reasons["train.steps"]
