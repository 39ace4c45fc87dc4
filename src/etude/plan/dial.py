"""The dial: derive from a size every setting that is ``"auto"``, each with its reason.

``resolve`` is a pure function of the user's settings, the text and the device. In its result no setting that shapes the
run is ``"auto"``. Each setting has one derivation below, under its key. ``etude train --dry-run`` prints the reasons,
and the manifest of the run stores them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from etude.config import Resolved, Settings, with_values
from etude.data.reference import NONE
from etude.device import Device
from etude.errors import InputError
from etude.model.adapter import adapted_by
from etude.model.config import ModelConfig
from etude.plan.base_values import FROM_BASE, model_of_base
from etude.plan.derivation import (
    MAX_EPOCHS,
    SWITCHES,
    Derived,
    Dial,
    Facts,
    Table,
    derives,
    require_whole_parts,
)
from etude.plan.sizes import Size, batch_tokens_for, context_for, dropout_for, weight_decay_for
from etude.setting_declarations import (
    require_model_to_adapt,
    require_resolved,
    require_text_to_forget,
)
from etude.train.rules import rates_of, rule_named
from etude.train.rules.chosen import REST

WORTH_COMPILING = 90.0
"""Shortest run that is compiled, in seconds."""
BF16_FROM_WIDTH = 128
"""Narrower networks are not faster in bf16 on a CPU (lab notebook), and fp32 is more precise."""
TOKENS_AT_ONCE = {"cpu": 8192, "cuda": 65_536, "mps": 16_384}
"""Most tokens in a micro-batch: more take more memory, and make no matrix product faster."""
EVALUATIONS = 12
"""Regular evaluations in a run."""
MIN_EVAL_TOKENS, MAX_EVAL_TOKENS = 16_384, 1_048_576


@dataclass(frozen=True)
class Resolution:
    """Resolved settings, the network that they describe, and the reason of each derived value."""

    settings: Resolved
    model: ModelConfig
    reasons: dict[str, str]


DERIVATIONS: Table = {}
"""For random weights; :data:`etude.plan.base_values.FROM_BASE` replaces some of them."""


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
    require_model_to_adapt(settings)
    require_text_to_forget(settings)
    dial = Dial(settings, facts, device, timed, base)
    table = DERIVATIONS
    if base is not None:
        dial.values, dial.reasons = model_of_base(settings, base)
        table = DERIVATIONS | FROM_BASE
    for key, (value, reason) in (derived or {}).items():
        dial.fill(key, value, reason)
    dial.left = table.keys() - dial.values.keys()
    for key, derivation in table.items():
        if key not in dial.left:
            continue
        result = derivation(dial, key)
        dial.left.remove(key)
        if result is not None:
            dial.fill(key, *result)
    resolved = require_resolved(with_values(settings, dial.values))
    return Resolution(resolved, adapted_by(dial.network, resolved.train), dial.reasons)


@derives(DERIVATIONS, "model.size")
def _size(dial: Dial, key: str) -> tuple[Any, str] | None:
    usual = "tiny" if dial.device.kind == "cpu" else "small"
    return None if dial.timed else (usual, f"what a {dial.device.kind} trains in minutes")


@derives(DERIVATIONS, "train.lora_rank")
def _lora_rank(dial: Dial, key: str) -> tuple[Any, str]:
    return 0, "all weights are trained"


@derives(DERIVATIONS, "model.hidden_size")
def _width(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.size.shape.hidden_size, dial.because


@derives(DERIVATIONS, "model.intermediate_size")
def _inner_size(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.family.inner_size(dial.value("model.hidden_size")), dial.family.inner_size_reason


@derives(DERIVATIONS, "model.num_hidden_layers", "model.num_attention_heads")
def _depth_and_heads(dial: Dial, key: str) -> tuple[Any, str] | None:
    shape = dial.size.shape
    return (getattr(shape, key.removeprefix("model.")), dial.because) if dial.family.has_attention else None


@derives(DERIVATIONS, "model.num_key_value_heads")
def _key_value_heads(dial: Dial, key: str) -> tuple[Any, str] | None:
    heads = dial.value("model.num_attention_heads")
    return (heads, "one for each query head") if dial.family.has_attention else None


@derives(DERIVATIONS, "train.context")
def _context(dial: Dial, key: str) -> tuple[Any, str]:
    return context_for(dial.tokens), f"long enough for what {dial.tokens:,} tokens teach"


@derives(DERIVATIONS, "train.batch_rows")
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


@derives(DERIVATIONS, "train.micro_batch_rows")
def _micro_batch_rows(dial: Dial, key: str) -> tuple[Any, str]:
    rows, kind = dial.value("train.batch_rows"), dial.device.kind
    at_once = max(1, TOKENS_AT_ONCE[kind] // dial.value("train.context"))
    part = max(divisor for divisor in range(1, min(rows, at_once) + 1) if rows % divisor == 0)
    return part, f"what a {kind} takes in one pass"


@derives(DERIVATIONS, "train.steps")
def _steps(dial: Dial, key: str) -> tuple[Any, str]:
    rows, text = require_whole_parts(dial), dial.facts.train_tokens
    reason = f"{dial.tokens:,} tokens for {dial.because}, {dial.tokens / text:.1f} times through the text"
    if dial.tokens < dial.size.tokens:
        reason = f"{MAX_EPOCHS} times through a small text of {text:,} tokens, not more"
    return max(1, dial.tokens // (rows * dial.value("train.context"))), reason


@derives(DERIVATIONS, "train.eval_every")
def _eval_every(dial: Dial, key: str) -> tuple[Any, str]:
    return max(1, dial.value("train.steps") // EVALUATIONS), f"{EVALUATIONS} evaluations in the run"


@derives(DERIVATIONS, "train.eval_early")
def _eval_early(dial: Dial, key: str) -> tuple[Any, str]:
    return True, "most changes happen early"


@derives(DERIVATIONS, "train.eval_tokens")
def _eval_tokens(dial: Dial, key: str) -> tuple[Any, str]:
    every, rows, context = (dial.value(f"train.{name}") for name in ("eval_every", "batch_rows", "context"))
    # Scoring a token takes less than half the time of training on it.
    scored = min(max(MIN_EVAL_TOKENS, every * rows * context // 10), MAX_EVAL_TOKENS)
    return scored, "evaluations take about a twentieth of the time"


@derives(DERIVATIONS, "train.reference")
def _reference(dial: Dial, key: str) -> tuple[Any, str]:
    return NONE, "random weights have nothing to forget"


@derives(DERIVATIONS, "train.sample_every")
def _sample_every(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.value("train.eval_every"), "with each evaluation"


@derives(DERIVATIONS, "train.checkpoint_every")
def _checkpoint_every(dial: Dial, key: str) -> tuple[Any, str]:
    steps = dial.value("train.steps")
    return max(1, steps // 5), "five in the run, and the early powers of two"


@derives(DERIVATIONS, "train.keep_every")
def _keep_every(dial: Dial, key: str) -> tuple[Any, str]:
    return 0, "the newest, and the early powers of two"


@derives(DERIVATIONS, "train.lr_by_width")
def _lr_by_width(dial: Dial, key: str) -> tuple[Any, str]:
    return True, "random weights: the rate found at one width then holds at any (muP)"


@derives(DERIVATIONS, "train.state_every")
def _state_every(dial: Dial, key: str) -> tuple[Any, str]:
    return 1, "all kept checkpoints: those of a small network are small"


@derives(DERIVATIONS, "train.lora_alpha")
def _no_adapter(dial: Dial, key: str) -> None:
    return None


@derives(DERIVATIONS, "train.optimizer")
def _optimizer(dial: Dial, key: str) -> tuple[Any, str]:
    return "muon", "the lowest loss for random weights of these sizes, swept"


@derives(DERIVATIONS, "train.lr", "train.muon_lr")
def _rate(dial: Dial, key: str) -> tuple[Any, str] | None:
    # The log and the pictures show train.lr of every run, also where a rule has a rate of its own.
    rate = {**rule_named(REST).rates, **rates_of(dial.value("train.optimizer"))}.get(key)
    return None if rate is None else (rate.value, rate.reason)


@derives(DERIVATIONS, "device.kind")
def _device_kind(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.device.kind, "a GPU where there is one"


@derives(DERIVATIONS, "device.dtype")
def _dtype(dial: Dial, key: str) -> tuple[Any, str]:
    device = dial.device
    if device.kind != "cpu":
        return device.dtype, "bf16 products on a GPU that has them, fp32 otherwise"
    if not device.fast_bf16:
        return "fp32", "bf16 products are not known to be faster on this cpu"
    if dial.value("model.hidden_size") < BF16_FROM_WIDTH:
        return "fp32", f"bf16 products gain nothing below a width of {BF16_FROM_WIDTH}"
    return "bf16", "this cpu multiplies faster in bf16; weights stay fp32"


@derives(DERIVATIONS, "device.threads")
def _threads(dial: Dial, key: str) -> tuple[Any, str]:
    return dial.device.threads, "all the cores that this process may use"


@derives(DERIVATIONS, *(f"model.{switch}" for switch in SWITCHES))
def _switch(dial: Dial, key: str) -> tuple[Any, str] | None:
    network, switch = dial.network, key.removeprefix("model.")
    if switch in network.family.unused_settings:
        return None
    return getattr(network, switch), f"the default of {network.model_type}"


@derives(DERIVATIONS, "train.dropout")
def _dropout(dial: Dial, key: str) -> tuple[Any, str]:
    epochs, room = dial.reading
    reason = f"the text is read {epochs:.1f} times, by {room:.2g} parameters for each of its tokens"
    return dropout_for(epochs, room), reason


@derives(DERIVATIONS, "train.weight_decay")
def _weight_decay(dial: Dial, key: str) -> tuple[Any, str]:
    dropout = dial.value("train.dropout")
    because = "more than usual, as with all dropout" if dropout else "the usual, without dropout"
    return weight_decay_for(dropout), because


@derives(DERIVATIONS, "device.compile")
def _compile(dial: Dial, key: str) -> tuple[Any, str] | None:
    seconds = dial.settings.train.seconds
    short = seconds != "auto" and seconds < WORTH_COMPILING
    return (False, "in so short a time compiling costs more than it saves") if short else None
