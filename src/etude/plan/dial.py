"""The dial: derive from a size every setting that is ``"auto"``, each with its reason.

``resolve`` is a pure function of the user's settings, the text and the device. In its result no setting that shapes the
run is ``"auto"``. ``etude train --dry-run`` prints the reasons, and the manifest of the run stores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etude.config import Settings, get_value, with_values
from etude.device import Device
from etude.errors import InputError
from etude.model.config import ModelConfig, preset
from etude.model.cost import count_parameters
from etude.model.families import Family, family_named
from etude.plan.sizes import SIZES, Size, batch_tokens_for, context_for, dropout_for, weight_decay_for
from etude.train.rules import rates_of

WORTH_COMPILING = 90.0
"""Shortest run that is compiled, in seconds."""
MAX_EPOCHS = 10
"""Most passes over a small text: with more, a model of these sizes memorises it."""
BF16_FROM_WIDTH = 128
"""Narrower networks are not faster in bf16 on a CPU (lab notebook), and fp32 is more precise."""
TOKENS_AT_ONCE = {"cpu": 8192, "cuda": 65_536, "mps": 16_384}
"""Most tokens in a micro-batch: more take more memory, and make no matrix product faster."""
EVALUATIONS = 12
"""Regular evaluations in a run."""
MIN_EVAL_TOKENS, MAX_EVAL_TOKENS = 16_384, 1_048_576
COUNTS = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
SWITCHES = ("attention_bias", "mlp_bias", "qk_norm", "tie_word_embeddings")


@dataclass(frozen=True)
class Facts:
    """The properties of text and tokenizer that the dial depends on."""

    train_tokens: int
    vocab_size: int
    eos_token_id: int


@dataclass(frozen=True)
class Resolution:
    """Resolved settings, the network that they describe, and the reason of each derived value."""

    settings: Settings
    model: ModelConfig
    reasons: dict[str, str]


Derived = Mapping[str, tuple[Any, str]]
"""Settings derived from measurements, before the dial: their values and reasons."""


def resolve(
    settings: Settings,
    facts: Facts,
    device: Device,
    timed: Size | None = None,
    derived: Derived | None = None,
) -> Resolution:
    """Replace every ``"auto"`` that shapes the run by a value.

    Args:
        timed: the size that ``--time`` has chosen.
        derived: values for settings that the user has left at "auto", used unchanged.

    Raises:
        InputError: the values do not fit together (a width that the heads do not divide, a context longer than
            the text, ...).
    """
    chosen = _Choices(settings, derived or {})
    if timed is None:
        usual = "tiny" if device.kind == "cpu" else "small"
        name = chosen("model.size", usual, f"what a {device.kind} trains in minutes")
        size, because = SIZES[name], f"size {name}"
    else:
        size, because = timed, "the lowest loss expected in the time"
    _resolve_shape(chosen, settings, size, because)
    _resolve_steps(chosen, size, facts, device, because)
    chosen("device.kind", device.kind, "a GPU where there is one")
    _resolve_dtype(chosen, device)
    if settings.train.seconds != "auto" and settings.train.seconds < WORTH_COMPILING:
        chosen("device.compile", False, "in so short a time compiling costs more than it saves")
    chosen("device.threads", device.threads, "all the cores that this process may use")
    network = model_config(with_values(settings, chosen.values), facts)
    for switch in SWITCHES:
        if switch not in network.family.unused_settings:
            chosen(f"model.{switch}", getattr(network, switch), f"the default of {network.model_type}")
    _resolve_regularization(chosen, network, facts)
    return Resolution(with_values(settings, chosen.values), network, chosen.reasons)


def _resolve_dtype(chosen: _Choices, device: Device) -> None:
    if device.kind != "cpu":
        chosen("device.dtype", device.dtype, "bf16 products on a GPU that has them, fp32 otherwise")
    elif not device.fast_bf16:
        chosen("device.dtype", "fp32", "bf16 products are not known to be faster on this cpu")
    elif chosen.value("model.hidden_size") < BF16_FROM_WIDTH:
        chosen("device.dtype", "fp32", f"bf16 products gain nothing below a width of {BF16_FROM_WIDTH}")
    else:
        chosen("device.dtype", "bf16", "this cpu multiplies faster in bf16; weights stay fp32")


def model_config(settings: Settings, facts: Facts) -> ModelConfig:
    """Return the validated configuration of the network that resolved ``settings`` describe."""
    model = settings.model
    dims: dict[str, Any] = {
        "vocab_size": facts.vocab_size,
        "bos_token_id": facts.eos_token_id,
        "eos_token_id": facts.eos_token_id,
        "max_position_embeddings": settings.train.context,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
    }
    family = family_named(model.preset)
    _refuse_unused(settings, family)
    for key in (*COUNTS, *SWITCHES):
        if getattr(model, key) != "auto":
            dims[key] = getattr(model, key)
    if family.fixed["position"] == "rope":
        dims["rope_theta"] = model.rope_theta
    return preset(model.preset, **dims)


def _resolve_shape(chosen: _Choices, settings: Settings, size: Size, because: str) -> None:
    width = chosen("model.hidden_size", size.shape.hidden_size, because)
    family = family_named(settings.model.preset)
    chosen("model.intermediate_size", family.inner_size(width), family.inner_size_reason)
    if family.has_attention:
        chosen("model.num_hidden_layers", size.shape.num_hidden_layers, because)
        heads = chosen("model.num_attention_heads", size.shape.num_attention_heads, because)
        chosen("model.num_key_value_heads", heads, "one for each query head")


def _resolve_steps(chosen: _Choices, size: Size, facts: Facts, device: Device, because: str) -> None:
    tokens = min(size.tokens, MAX_EPOCHS * facts.train_tokens)
    context = chosen("train.context", context_for(tokens), f"long enough for what {tokens:,} tokens teach")
    if facts.train_tokens <= context:
        raise InputError(
            f"the training text has {facts.train_tokens} tokens, fewer than one row of {context}: "
            "give more text, or a smaller --set train.context"
        )
    # At most as many rows as a small text has windows: otherwise a step would read the same text twice.
    windows = (facts.train_tokens - 1) // context
    batch_tokens = batch_tokens_for(tokens)
    rows = max(1, min(batch_tokens // context, windows))
    rows = chosen(
        "train.batch_rows",
        rows,
        f"about {batch_tokens:,} tokens per step: longer runs, larger batches",
    )
    at_once = max(1, TOKENS_AT_ONCE[device.kind] // context)
    part = max(divisor for divisor in range(1, min(rows, at_once) + 1) if rows % divisor == 0)
    chosen("train.micro_batch_rows", part, f"what a {device.kind} takes in one pass")
    if rows % chosen.value("train.micro_batch_rows"):
        raise InputError(
            f"train.batch_rows={rows} is not a multiple of "
            f"train.micro_batch_rows={chosen.value('train.micro_batch_rows')}: choose one that divides it"
        )
    epochs = tokens / facts.train_tokens
    reason = f"{tokens:,} tokens for {because}, {epochs:.1f} times through the text"
    if tokens < size.tokens:
        reason = f"{MAX_EPOCHS} times through a small text of {facts.train_tokens:,} tokens, not more"
    steps = chosen("train.steps", max(1, tokens // (rows * context)), reason)
    every = chosen("train.eval_every", max(1, steps // EVALUATIONS), f"{EVALUATIONS} evaluations in the run")
    # Scoring a token takes less than half the time of training on it.
    scored = min(max(MIN_EVAL_TOKENS, every * rows * context // 10), MAX_EVAL_TOKENS)
    chosen("train.eval_tokens", scored, "evaluations take about a twentieth of the time")
    chosen("train.sample_every", every, "with each evaluation")
    chosen("train.checkpoint_every", max(1, steps // 5), "five in the run, and the early powers of two")
    for key, rate in rates_of(chosen.value("train.optimizer")).items():
        chosen(key, rate.value, rate.reason)


def _resolve_regularization(chosen: _Choices, network: ModelConfig, facts: Facts) -> None:
    steps, rows, context = (chosen.value(f"train.{key}") for key in ("steps", "batch_rows", "context"))
    epochs = steps * rows * context / facts.train_tokens
    room = count_parameters(network).non_embedding / facts.train_tokens
    reason = f"the text is read {epochs:.1f} times, by {room:.2g} parameters for each of its tokens"
    dropout = chosen("train.dropout", dropout_for(epochs, room), reason)
    because = "more than usual, as with all dropout" if dropout else "the usual, without dropout"
    chosen("train.weight_decay", weight_decay_for(dropout), because)


def _refuse_unused(settings: Settings, family: Family) -> None:
    """Raise InputError for a setting that the family does not use: it would have no effect."""
    for key in (*COUNTS, *SWITCHES):
        if key in family.unused_settings and getattr(settings.model, key) != "auto":
            raise InputError(f"model.{key} has no meaning for the model '{family.name}': leave it out")


class _Choices:
    """Fill in settings that are ``"auto"``, with reasons. Settings that the user chose stay."""

    def __init__(self, settings: Settings, derived: Derived) -> None:
        self._settings = settings
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}
        for key, (value, reason) in derived.items():
            self(key, value, reason)

    def __call__(self, key: str, value: Any, reason: str) -> Any:
        """Set a setting that is still open; return its value, which may be the user's."""
        if get_value(self._settings, key) == "auto" and key not in self.values:
            self.values[key] = value
            self.reasons[key] = reason
        return self.value(key)

    def value(self, key: str) -> Any:
        """Return the current value of a setting."""
        return self.values.get(key, get_value(self._settings, key))
