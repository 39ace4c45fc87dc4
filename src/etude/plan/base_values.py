"""Settings of a run that begins with the weights of a base model: sizes that are the model's, and how it is trained.

The values are cautious choices, tried in short runs of one model (lab notebook, 2026-11-30). No sweep has compared
rates or update rules for trained weights.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from etude.config import NO_BASE, ModelSettings, Resolved, Settings, TokenizerSettings
from etude.data.tokens.vocabulary import BASE
from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.train.rules import Rate, rates_of

BASE_EPOCHS = 2
"""Passes over the text: a trained network memorises what it reads more often, and forgets the rest."""
BASE_CONTEXT = 512
"""Most tokens in a row; the memory of a step grows with it."""
BASE_BATCH_TOKENS = 2048
"""Tokens of a step, where the text is long enough for :data:`BASE_UPDATES`."""
BASE_UPDATES = 32
"""Fewest updates of a run on a short text."""
BASE_RATES = {
    "train.lr": Rate(5e-5, "small steps: the weights are trained already"),
    "train.muon_lr": Rate(5e-4, "small steps; not measured for trained weights"),
}
STATES = 4
"""Checkpoints of a run from a base model that keep the optimizer's state, besides the newest."""


def dial_rates(settings: Resolved) -> dict[str, Rate]:
    """Return the dial's peak learning rates for a run with these settings, by setting."""
    rates = rates_of(settings.train.optimizer)
    if settings.model.base == NO_BASE:
        return rates
    return {key: BASE_RATES.get(key, rate) for key, rate in rates.items()}


def values_with_base(
    settings: Settings, base: ModelConfig, train_tokens: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings that follow from a base model, and the reason of each, by key.

    They do not include settings that the user has given.

    Raises:
        InputError: the user asks for another network or tokenizer than the base model's.
    """
    _refuse_others(settings, base)
    of_model = "the base model's"
    values: dict[str, Any] = {"model.preset": base.model_type}
    sizes = {field.name for field in fields(ModelConfig)} & ModelSettings.model_fields.keys()
    values |= {f"model.{name}": _size(base, name) for name in sorted(sizes)}
    reasons = dict.fromkeys(values, of_model)
    for key, (value, reason) in _training(settings, base, train_tokens).items():
        section, name = key.split(".")
        if getattr(getattr(settings, section), name) == "auto":
            values[key], reasons[key] = value, reason
    return values, reasons


def _size(base: ModelConfig, name: str) -> Any:
    value = getattr(base, name)
    return value if value or isinstance(value, bool) else "auto"  # 0 heads: a family without attention


def _training(settings: Settings, base: ModelConfig, train_tokens: int) -> dict[str, tuple[Any, str]]:
    context = min(BASE_CONTEXT, base.max_position_embeddings)
    context = min(context, max(2, (train_tokens - 1) // 4))
    if settings.train.context != "auto":
        context = settings.train.context
    tokens = min(BASE_BATCH_TOKENS, max(context, BASE_EPOCHS * train_tokens // BASE_UPDATES))
    return {
        "train.context": (context, f"at most {BASE_CONTEXT}, which bounds the memory of a step"),
        "train.batch_rows": (max(1, tokens // context), f"about {tokens:,} tokens per step"),
        "train.micro_batch_rows": (1, "the least memory"),
        "train.optimizer": ("adamw", "with which most published models were trained; Muon was not compared"),
        **{key: (rate.value, rate.reason) for key, rate in BASE_RATES.items()},
        "train.lr_by_width": (False, "one rate for all: the base model was not trained with muP"),
        "train.weight_decay": (0.0, "in a few passes it would only pull the weights away from the base"),
        "train.dropout": (0.0, "few passes over the text"),
        "device.compile": (False, "compiling so deep a network takes longer than a short run gains"),
    }


def _refuse_others(settings: Settings, base: ModelConfig) -> None:
    """Raise InputError for a setting of the network or the tokenizer that only the base model can have."""
    sections = (
        ("model", settings.model, ModelSettings()),
        ("tokenizer", settings.tokenizer, TokenizerSettings()),
    )
    for section, given, usual in sections:
        for name in type(given).model_fields:
            value = getattr(given, name)
            own = {"base": value, "preset": base.model_type, "kind": BASE}.get(
                name, getattr(base, name, None)
            )
            if value in (getattr(usual, name), own):
                continue
            raise InputError(f"{section}.{name} is the base model's: leave it out, or leave out --from")
