"""The dial: derive from a size every setting that is ``"auto"``, each with its reason.

``resolve`` is a pure function of the user's settings, the text and the device. In its result no setting that shapes the
run is ``"auto"``. Each setting has one derivation below, under its key. ``etude train --dry-run`` prints the reasons,
and the manifest of the run stores them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from etude.config import Resolved, Settings, get_value, with_values
from etude.device import Device
from etude.errors import InputError
from etude.model.config import ModelConfig, preset
from etude.model.cost import count_parameters
from etude.model.families import Family, family_named
from etude.plan.base_values import BASE_EPOCHS, STATES, values_with_base
from etude.plan.sizes import SIZES, Size, batch_tokens_for, context_for, dropout_for, weight_decay_for
from etude.setting_declarations import require_resolved
from etude.train.rules import rates_of, rule_named
from etude.train.rules.chosen import REST

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
    document_id: int


@dataclass(frozen=True)
class Resolution:
    """Resolved settings, the network that they describe, and the reason of each derived value."""

    settings: Resolved
    model: ModelConfig
    reasons: dict[str, str]


Derived = Mapping[str, tuple[Any, str]]
"""Settings derived from measurements, before the dial: their values and reasons."""


@dataclass
class Dial:
    """The inputs of a derivation: the user's settings, text and device, and the settings that were derived before it.

    Attributes:
        timed: the size that ``--time`` has chosen.
        base: the configuration of the base model; None for random weights.
        values, reasons: of the settings derived so far, by key.
    """

    settings: Settings
    facts: Facts
    device: Device
    timed: Size | None
    base: ModelConfig | None = None
    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def value(self, key: str) -> Any:
        """Return the value of a setting: the user's, or the derived one."""
        return self.values.get(key, get_value(self.settings, key))

    def fill(self, key: str, value: Any, reason: str) -> None:
        """Set a setting that the user left open."""
        if self.value(key) == "auto":
            self.values[key] = value
            self.reasons[key] = reason

    @property
    def size(self) -> Size:
        return self.timed or SIZES[self.value("model.size")]

    @property
    def because(self) -> str:
        """Why the run has its size."""
        return "the lowest loss expected in the time" if self.timed else f"size {self.value('model.size')}"

    @property
    def family(self) -> Family:
        return family_named(self.value("model.preset"))

    @property
    def tokens(self) -> int:
        """Tokens that the run is to read."""
        if self.base is not None:
            return BASE_EPOCHS * self.facts.train_tokens
        return min(self.size.tokens, MAX_EPOCHS * self.facts.train_tokens)

    @cached_property
    def network(self) -> ModelConfig:
        """The network, once its shape and the context are known."""
        if self.base is not None:
            return self.base
        return model_config(with_values(self.settings, self.values), self.facts)

    @cached_property
    def reading(self) -> tuple[float, float]:
        """How often the run reads the text, and the network's parameters for each of its tokens."""
        steps, rows, context = (self.value(f"train.{key}") for key in ("steps", "batch_rows", "context"))
        tokens = self.facts.train_tokens
        return steps * rows * context / tokens, count_parameters(self.network).non_embedding / tokens


Derivation = Callable[[Dial, str], tuple[Any, str] | None]
"""From the dial and the key of a setting to its value and the reason; None where the run does not use the setting."""
DERIVATIONS: dict[str, Derivation] = {}
"""By the key of the setting, in the order in which they follow from each other."""


def derives(*keys: str) -> Callable[[Derivation], Derivation]:
    """Register the one derivation of each of ``keys``; a later one may use the values of those before it."""

    def register(derivation: Derivation) -> Derivation:
        for key in keys:
            assert key not in DERIVATIONS, f"{key} has two derivations"
            DERIVATIONS[key] = derivation
        return derivation

    return register


def resolve(
    settings: Settings,
    facts: Facts,
    device: Device,
    timed: Size | None = None,
    derived: Derived | None = None,
    base: ModelConfig | None = None,
) -> Resolution:
    """Replace every ``"auto"`` that shapes the run by a value.

    Args:
        timed: the size that ``--time`` has chosen.
        derived: values for settings that the user has left at "auto", used unchanged.
        base: the configuration of the base model, of a run that has one.

    Raises:
        InputError: the values do not fit together (a width that the heads do not divide, a context longer than
            the text, ...).
    """
    dial = Dial(settings, facts, device, timed, base)
    if base is not None:
        dial.values, dial.reasons = values_with_base(settings, base, facts.train_tokens)
    for key, (value, reason) in (derived or {}).items():
        dial.fill(key, value, reason)
    for key, derivation in DERIVATIONS.items():
        if key in dial.values:
            continue
        result = derivation(dial, key)
        if result is not None:
            dial.fill(key, *result)
    resolved = require_resolved(with_values(settings, dial.values))
    return Resolution(resolved, dial.network, dial.reasons)


def model_config(settings: Settings, facts: Facts) -> ModelConfig:
    """Return the validated configuration of the network that resolved ``settings`` describe."""
    model = settings.model
    dims: dict[str, Any] = {
        "vocab_size": facts.vocab_size,
        "bos_token_id": facts.document_id,
        "eos_token_id": facts.document_id,
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


def _refuse_unused(settings: Settings, family: Family) -> None:
    """Raise InputError for a setting that the family does not use: it would have no effect."""
    for key in (*COUNTS, *SWITCHES):
        if key in family.unused_settings and getattr(settings.model, key) != "auto":
            raise InputError(f"model.{key} has no meaning for the model '{family.name}': leave it out")


@derives("model.size")
def _size(dial: Dial, key: str) -> tuple[Any, str] | None:
    usual = "tiny" if dial.device.kind == "cpu" else "small"
    return None if dial.timed or dial.base else (usual, f"what a {dial.device.kind} trains in minutes")


@derives("model.hidden_size")
def _width(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.size.shape.hidden_size, dial.because


@derives("model.intermediate_size")
def _inner_size(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.family.inner_size(dial.value("model.hidden_size")), dial.family.inner_size_reason


@derives("model.num_hidden_layers", "model.num_attention_heads")
def _depth_and_heads(dial: Dial, key: str) -> tuple[Any, str] | None:
    shape = dial.size.shape
    return (getattr(shape, key.removeprefix("model.")), dial.because) if dial.family.has_attention else None


@derives("model.num_key_value_heads")
def _key_value_heads(dial: Dial, key: str) -> tuple[Any, str] | None:
    heads = dial.value("model.num_attention_heads")
    return (heads, "one for each query head") if dial.family.has_attention else None


@derives("train.context")
def _context(dial: Dial, key: str) -> tuple[Any, str]:
    return context_for(dial.tokens), f"long enough for what {dial.tokens:,} tokens teach"


@derives("train.batch_rows")
def _batch_rows(dial: Dial, key: str) -> tuple[Any, str]:
    tokens, context = dial.facts.train_tokens, dial.value("train.context")
    if tokens <= context:
        raise InputError(
            f"the training text has {tokens} tokens, fewer than one row of {context}: "
            "give more text, or a smaller --set train.context"
        )
    # At most as many rows as a small text has windows: otherwise a step would read the same text twice.
    windows = (tokens - 1) // context
    batch_tokens = batch_tokens_for(dial.tokens)
    reason = f"about {batch_tokens:,} tokens per step: longer runs, larger batches"
    return max(1, min(batch_tokens // context, windows)), reason


@derives("train.micro_batch_rows")
def _micro_batch_rows(dial: Dial, key: str) -> tuple[Any, str]:
    rows, kind = dial.value("train.batch_rows"), dial.device.kind
    at_once = max(1, TOKENS_AT_ONCE[kind] // dial.value("train.context"))
    part = max(divisor for divisor in range(1, min(rows, at_once) + 1) if rows % divisor == 0)
    return part, f"what a {kind} takes in one pass"


@derives("train.steps")
def _steps(dial: Dial, key: str) -> tuple[Any, str]:
    rows, part = dial.value("train.batch_rows"), dial.value("train.micro_batch_rows")
    if rows % part:
        raise InputError(
            f"train.batch_rows={rows} is not a multiple of train.micro_batch_rows={part}: choose one that divides it"
        )
    text = dial.facts.train_tokens
    if dial.base is not None:
        reason = (
            f"{BASE_EPOCHS} times through the text: a base model learns a text sooner, and forgets meanwhile"
        )
        return max(1, dial.tokens // (rows * dial.value("train.context"))), reason
    reason = f"{dial.tokens:,} tokens for {dial.because}, {dial.tokens / text:.1f} times through the text"
    if dial.tokens < dial.size.tokens:
        reason = f"{MAX_EPOCHS} times through a small text of {text:,} tokens, not more"
    return max(1, dial.tokens // (rows * dial.value("train.context"))), reason


@derives("train.eval_every")
def _eval_every(dial: Dial, key: str) -> tuple[Any, str]:
    return max(1, dial.value("train.steps") // EVALUATIONS), f"{EVALUATIONS} evaluations in the run"


@derives("train.eval_tokens")
def _eval_tokens(dial: Dial, key: str) -> tuple[Any, str]:
    every, rows, context = (dial.value(f"train.{name}") for name in ("eval_every", "batch_rows", "context"))
    # Scoring a token takes less than half the time of training on it.
    scored = min(max(MIN_EVAL_TOKENS, every * rows * context // 10), MAX_EVAL_TOKENS)
    return scored, "evaluations take about a twentieth of the time"


@derives("train.sample_every")
def _sample_every(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.value("train.eval_every"), "with each evaluation"


@derives("train.checkpoint_every")
def _checkpoint_every(dial: Dial, key: str) -> tuple[Any, str]:
    steps = dial.value("train.steps")
    if dial.base is not None:
        return max(1, steps // 2), "two in the run, and the early powers of two: they are large"
    return max(1, steps // 5), "five in the run, and the early powers of two"


@derives("train.lr_by_width")
def _lr_by_width(dial: Dial, key: str) -> tuple[Any, str]:
    return True, "random weights: the rate found at one width then holds at any (muP)"


@derives("train.state_every")
def _state_every(dial: Dial, key: str) -> tuple[Any, str]:
    if dial.base is None:
        return 1, "all kept checkpoints: those of a small network are small"
    steps = dial.value("train.steps")  # a power of two, as the steps of the checkpoints that are never pruned
    return 1 << max(
        0, (steps // STATES).bit_length() - 1
    ), f"about {STATES} states in the run, and the newest"


@derives("train.optimizer")
def _optimizer(dial: Dial, key: str) -> tuple[Any, str]:
    return "muon", "the lowest loss for random weights of these sizes, swept"


@derives("train.lr", "train.muon_lr")
def _rate(dial: Dial, key: str) -> tuple[Any, str] | None:
    # The log and the pictures show train.lr of every run, also where a rule has a rate of its own.
    rate = {**rule_named(REST).rates, **rates_of(dial.value("train.optimizer"))}.get(key)
    return None if rate is None else (rate.value, rate.reason)


@derives("device.kind")
def _device_kind(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.device.kind, "a GPU where there is one"


@derives("device.dtype")
def _dtype(dial: Dial, key: str) -> tuple[Any, str]:
    device = dial.device
    if device.kind != "cpu":
        return device.dtype, "bf16 products on a GPU that has them, fp32 otherwise"
    if not device.fast_bf16:
        return "fp32", "bf16 products are not known to be faster on this cpu"
    if dial.value("model.hidden_size") < BF16_FROM_WIDTH:
        return "fp32", f"bf16 products gain nothing below a width of {BF16_FROM_WIDTH}"
    return "bf16", "this cpu multiplies faster in bf16; weights stay fp32"


@derives("device.compile")
def _compile(dial: Dial, key: str) -> tuple[Any, str] | None:
    seconds = dial.settings.train.seconds
    short = seconds != "auto" and seconds < WORTH_COMPILING
    return (False, "in so short a time compiling costs more than it saves") if short else None


@derives("device.threads")
def _threads(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.device.threads, "all the cores that this process may use"


@derives(*(f"model.{switch}" for switch in SWITCHES))
def _switch(dial: Dial, key: str) -> tuple[Any, str] | None:
    network, switch = dial.network, key.removeprefix("model.")
    if switch in network.family.unused_settings:
        return None
    return getattr(network, switch), f"the default of {network.model_type}"


@derives("train.dropout")
def _dropout(dial: Dial, key: str) -> tuple[Any, str]:
    epochs, room = dial.reading
    reason = f"the text is read {epochs:.1f} times, by {room:.2g} parameters for each of its tokens"
    return dropout_for(epochs, room), reason


@derives("train.weight_decay")
def _weight_decay(dial: Dial, key: str) -> tuple[Any, str]:
    dropout = dial.value("train.dropout")
    because = "more than usual, as with all dropout" if dropout else "the usual, without dropout"
    return weight_decay_for(dropout), because
