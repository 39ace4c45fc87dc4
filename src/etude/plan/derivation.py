"""The derivation of a setting that is ``"auto"``: its inputs and its type.

:mod:`etude.plan.dial` has the derivations for random weights, :mod:`etude.plan.base_values` those that differ for a run
that begins with the weights of a base model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from etude.config import Settings, get_value, with_values
from etude.device import Device
from etude.errors import InputError
from etude.model.config import ModelConfig, preset
from etude.model.cost import count_parameters
from etude.model.families import Family, family_named
from etude.plan.sizes import SIZES, Size

MAX_EPOCHS = 10
"""Most passes over a small text: with more, a model of these sizes memorises it."""
COUNTS = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
SWITCHES = ("attention_bias", "mlp_bias", "qk_norm", "tie_word_embeddings")


@dataclass(frozen=True)
class Facts:
    """The properties of text and tokenizer that the dial depends on."""

    train_tokens: int
    vocab_size: int
    document_id: int
    longest_example: int | None = None  # tokens of the longest conversation, or pair of them; None: text
    has_pairs: bool = False  # of a chosen and a rejected answer
    packed_rows: Callable[[int], int] | None = (
        None  # from the context to the rows of one pass over conversations
    )


Derived = Mapping[str, tuple[Any, str]]
"""Settings derived from measurements, before the dial: their values and reasons."""


@dataclass
class Dial:
    """The inputs of a derivation: the user's settings, text and device, and the settings that were derived before it.

    Attributes:
        timed: the size that ``--time`` has chosen.
        base: the configuration of the base model; None for random weights.
        values, reasons: of the settings derived so far, by key.
        left: keys that are still to be derived.
    """

    settings: Settings
    facts: Facts
    device: Device
    timed: Size | None
    base: ModelConfig | None = None
    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)

    def value(self, key: str) -> Any:
        """Return the value of a setting: the user's, or the derived one. "auto": the run does not use the setting."""
        value = self._value(key)
        assert value != "auto" or key not in self.left, f"{key} is derived later: move its derivation up"
        return value

    def _value(self, key: str) -> Any:
        return self.values.get(key, get_value(self.settings, key))

    def fill(self, key: str, value: Any, reason: str) -> None:
        """Set a setting that the user left open."""
        if self._value(key) == "auto":
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
        """Tokens that a run of its size is to read."""
        return min(self.size.tokens, MAX_EPOCHS * self.facts.train_tokens)

    @cached_property
    def network(self) -> ModelConfig:
        """The network, once its shape and the context are known."""
        return self.base or model_config(with_values(self.settings, self.values), self.facts)

    @cached_property
    def reading(self) -> tuple[float, float]:
        """How often the run reads the text, and the network's parameters for each of its tokens."""
        steps, rows, context = (self.value(f"train.{key}") for key in ("steps", "batch_rows", "context"))
        tokens = self.facts.train_tokens
        return steps * rows * context / tokens, count_parameters(self.network).non_embedding / tokens


Derivation = Callable[[Dial, str], tuple[Any, str] | None]
"""From the dial and the key of a setting to its value and the reason; None where the run does not use the setting."""
Table = dict[str, Derivation]
"""Derivations by the key of the setting, in the order in which they follow from each other."""


def derives(table: Table, *keys: str) -> Callable[[Derivation], Derivation]:
    """Register the one derivation of each of ``keys`` in ``table``; a later one may use the values of those before."""

    def register(derivation: Derivation) -> Derivation:
        for key in keys:
            assert key not in table, f"{key} has two derivations"
            table[key] = derivation
        return derivation

    return register


def require_whole_parts(dial: Dial) -> int:
    """Return the rows of a batch, after checking that they are a whole number of micro-batches.

    Raises:
        InputError: they are not.
    """
    rows: int = dial.value("train.batch_rows")
    part = dial.value("train.micro_batch_rows")
    if rows % part:
        raise InputError(
            f"train.batch_rows={rows} is not a multiple of train.micro_batch_rows={part}: choose one that divides it"
        )
    return rows


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
