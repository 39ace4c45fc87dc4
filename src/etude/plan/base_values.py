"""Settings of a run that begins with the weights of a base model: sizes that are the model's, and how it is trained.

Rates and update rule were compared on one model and three texts, with one to three seeds, in runs of 24 steps
(bench/base_rates.py; lab notebook, 2026-11-30). The other values are cautious choices.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from etude.config import NO_BASE, ModelSettings, Resolved, Settings
from etude.data.reference import BUILT_IN
from etude.data.tokens.packing import LONGEST_EXAMPLE
from etude.data.tokens.vocabulary import BASE
from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.model.cost import training_flops_per_token
from etude.model.run_layer import compiles_by_layer
from etude.plan.cadence import SCORING
from etude.plan.derivation import Dial, Table, derives, require_whole_parts
from etude.text_settings import TokenizerSettings
from etude.train.objectives.checked_questions import ANSWER_ROOM
from etude.train.objectives.preference import PREFERENCE
from etude.train.objectives.reward import REWARD
from etude.train.rules import Rate, rates_of

BASE_EPOCHS = 2
"""Passes over the text: a trained network memorises what it reads more often, and forgets the rest."""
CONVERSATION_EPOCHS = 5
"""Passes over conversations: the form of an answer is learned in the first, facts in later ones. With four, fewer facts
are known; with six, more is forgotten (lab notebook, 2026-11-30)."""
PAIR_EPOCHS = 2
"""Passes over pairs of answers: Rafailov et al. 2023 make one, Tunstall et al. 2023 ("Zephyr: direct distillation of
LM alignment") up to three, of which the first already tells all training pairs apart."""
BASE_CONTEXT = 512
"""Most tokens in a row; the memory of a step grows with it."""
BASE_BATCH_TOKENS = 2048
"""Tokens of a step, where the text is long enough for the fewest updates."""
TOKENS_AT_ONCE = 1024
"""Most tokens in a micro-batch. A step of 1,024 tokens in one pass instead of four is a fifth faster in fp32, and half
as fast again in bf16 (lab notebook)."""
BASE_UPDATES = 32
"""Fewest updates of a run on a short text."""
CONVERSATION_UPDATES = 200
"""The same for conversations, as far as a step still has a row: the sweep of passes had steps of 512 tokens."""
BASE_RATES = {
    "train.lr": Rate(1e-4, "the highest swept rate that cost nothing on the reference text"),
    "train.muon_lr": Rate(3e-3, "the swept rate that learns and forgets about as much as AdamW at its own"),
}
ADAPTER_RATES = {
    "train.lr": Rate(5e-4, "of the swept rates: a lower one learns fewer facts, a higher one forgets more"),
    "train.muon_lr": BASE_RATES["train.muon_lr"],
}
"""For runs with an adapter."""
PAIR_RATES = {
    "train.lr": Rate(5e-6, "five times that of Rafailov et al. 2023, for runs of few updates; not swept"),
    "train.muon_lr": Rate(1.5e-4, "as much lower than for text as that of AdamW; not swept"),
}
"""For runs on pairs of answers. Their loss is a sum over tokens, and what it teaches is easily overdone."""
PAIR_ADAPTER_RATES = {
    "train.lr": Rate(5e-5, "ten times that of all weights, as in TRL's own commands for DPO; not swept"),
    "train.muon_lr": PAIR_RATES["train.muon_lr"],
}
REWARD_RATES = {
    "train.lr": Rate(1e-5, "a tenth of that for text, since a sampled answer says little; not swept"),
    "train.muon_lr": Rate(3e-4, "as much lower than for text as that of AdamW; not swept"),
}
"""For runs on sampled answers."""
REWARD_ADAPTER_RATES = {
    "train.lr": Rate(1e-4, "ten times that of all weights; not swept"),
    "train.muon_lr": REWARD_RATES["train.muon_lr"],
}
REWARD_QUESTIONS, REWARD_STEPS = 4, 200
"""Questions of a step, and steps of a run on sampled answers."""
ADAPTER_EVERY, ADAPTERS = 10, 50
"""Fewest steps between checkpoints that hold only an adapter, and about the most of them in a run."""
STATES = 4
"""Checkpoints of a run from a base model that keep the optimizer's state, besides the newest."""
EVALUATIONS, EVALUATION_SHARE = 6, 0.1
"""Regular evaluations in a run, and the time of all evaluations as a share of that of the steps."""
EVALUATIONS_TO_STOP = 12
"""Regular evaluations of a run that may end early: it ends only at an evaluation."""
WORTH_COMPILING = 6e13
"""Floating-point operations of all updates from which a run is compiled: about 74,000 tokens with 135 M parameters.

Compiling a layer cost as much as compiled steps saved over 45,000 to 50,000 (lab notebook, 2026-11-30).
"""
MIN_EVAL_TOKENS, MAX_EVAL_TOKENS = 2048, 65_536

FROM_BASE: Table = {}
"""The derivations that differ from those for random weights."""


def dial_rates(settings: Resolved) -> dict[str, Rate]:
    """Return the dial's peak learning rates for a run with these settings, by setting."""
    rates = rates_of(settings.train.optimizer)
    if settings.model.base == NO_BASE:
        return rates
    usual = _base_rates(settings.train.objective, settings.train.lora_rank > 0)
    return {key: usual.get(key, rate) for key, rate in rates.items()}


def _base_rates(objective: str, adapter: bool) -> dict[str, Rate]:
    if objective == PREFERENCE:
        return PAIR_ADAPTER_RATES if adapter else PAIR_RATES
    if objective == REWARD:
        return REWARD_ADAPTER_RATES if adapter else REWARD_RATES
    return ADAPTER_RATES if adapter else BASE_RATES


def model_of_base(settings: Settings, base: ModelConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings of the network, which are those of the base model, and the reason of each, by key.

    Raises:
        InputError: the user asks for another network or tokenizer than the base model's.
    """
    _refuse_others(settings, base)
    values: dict[str, Any] = {"model.preset": base.model_type}
    sizes = {field.name for field in fields(ModelConfig)} & ModelSettings.model_fields.keys()
    values |= {f"model.{name}": _size(base, name) for name in sorted(sizes)}
    return values, dict.fromkeys(values, "the base model's")


def _size(base: ModelConfig, name: str) -> Any:
    value = getattr(base, name)
    return value if value or isinstance(value, bool) else "auto"  # 0 heads: a family without attention


@derives(FROM_BASE, "model.size")
def _no_size(dial: Dial, key: str) -> None:
    return None


@derives(FROM_BASE, "train.context")
def _context(dial: Dial, key: str) -> tuple[Any, str]:
    assert dial.base is not None
    longest, positions = dial.facts.longest_example, dial.base.max_position_embeddings
    if longest is not None and _samples(dial):
        whole = longest + 2 * ANSWER_ROOM
        return min(whole, positions), "the longest question with a sampled answer: each row has one"
    if longest is not None:
        # Few conversations go into short rows: otherwise a pass would be one update.
        usual = min(BASE_CONTEXT, _epochs(dial) * dial.facts.train_tokens // BASE_UPDATES)
        whole = max(2, usual, min(LONGEST_EXAMPLE, longest - 1))
        what = "pair of conversations" if dial.facts.has_pairs else "conversation"
        reason = f"the longest {what} has {longest:,} tokens, and at most {LONGEST_EXAMPLE:,} go into a row"
        return min(whole, positions), reason
    most = min(BASE_CONTEXT, positions)
    context = min(most, max(2, (dial.facts.train_tokens - 1) // 4))
    return context, f"at most {BASE_CONTEXT}, which bounds the memory of a step"


@derives(FROM_BASE, "train.batch_rows")
def _batch_rows(dial: Dial, key: str) -> tuple[Any, str]:
    if _samples(dial):
        return REWARD_QUESTIONS * dial.value("train.group"), f"{REWARD_QUESTIONS} questions per step"
    talks = dial.facts.longest_example is not None and not dial.facts.has_pairs
    updates = CONVERSATION_UPDATES if talks else BASE_UPDATES
    tokens = batch_tokens_of(_tokens_to_read(dial), dial.value("train.context"), updates)
    return tokens // dial.value("train.context"), f"about {tokens:,} tokens per step"


def _samples(dial: Dial) -> bool:
    """Return whether the run is trained on sampled answers."""
    return bool(dial.value("train.objective") == REWARD)


def batch_tokens_of(tokens: int, context: int, updates: int) -> int:
    """Return the tokens of a step in a run on so many: whole rows of ``context``, few enough for the ``updates``."""
    wanted = min(BASE_BATCH_TOKENS, tokens // updates)
    return max(1, wanted // context) * context


def base_epochs(has_examples: bool, has_pairs: bool) -> int:
    """Return how often a run from a base model reads its text, its conversations or its pairs."""
    if has_pairs:
        return PAIR_EPOCHS
    return CONVERSATION_EPOCHS if has_examples else BASE_EPOCHS


def _epochs(dial: Dial) -> int:
    return base_epochs(dial.facts.longest_example is not None, dial.facts.has_pairs)


def _tokens_to_read(dial: Dial) -> int:
    """Return the tokens of all passes; of conversations, with what pads their rows."""
    facts, context = dial.facts, dial.value("train.context")
    one = facts.train_tokens if facts.packed_rows is None else facts.packed_rows(context) * context
    return _epochs(dial) * one


@derives(FROM_BASE, "train.micro_batch_rows")
def _micro_batch_rows(dial: Dial, key: str) -> tuple[Any, str]:
    rows, context = dial.value("train.batch_rows"), dial.value("train.context")
    at_once = max(1, TOKENS_AT_ONCE // context)
    part = max(divisor for divisor in range(1, min(rows, at_once) + 1) if rows % divisor == 0)
    return part, f"at most {TOKENS_AT_ONCE:,} tokens in one pass: fewer are slower, more take more memory"


@derives(FROM_BASE, "train.steps")
def _steps(dial: Dial, key: str) -> tuple[Any, str]:
    if _samples(dial):
        require_whole_parts(dial)
        return REWARD_STEPS, "each samples new answers, so the questions may repeat; not swept"
    tokens = require_whole_parts(dial) * dial.value("train.context")
    reason = (
        f"{_epochs(dial)} times through the text: a base model learns a text sooner, and forgets meanwhile"
    )
    if dial.facts.has_pairs:
        reason = (
            f"{_epochs(dial)} times through the pairs: with more, the model only tells them apart by heart"
        )
    elif dial.facts.longest_example is not None:
        reason = f"{_epochs(dial)} times through the conversations: facts are learned later than their form"
    return max(1, _tokens_to_read(dial) // tokens), reason


@derives(FROM_BASE, "train.eval_every")
def _eval_every(dial: Dial, key: str) -> tuple[Any, str]:
    count = EVALUATIONS_TO_STOP if dial.value("train.stop_early") else EVALUATIONS
    return max(1, dial.value("train.steps") // count), f"{count} evaluations in the run"


@derives(FROM_BASE, "train.eval_early")
def _eval_early(dial: Dial, key: str) -> tuple[Any, str]:
    return False, "the first steps change little, and an evaluation takes long"


@derives(FROM_BASE, "train.eval_tokens")
def _eval_tokens(dial: Dial, key: str) -> tuple[Any, str]:
    steps, every, rows, context = (
        dial.value(f"train.{name}") for name in ("steps", "eval_every", "batch_rows", "context")
    )
    times = 1 + steps // every
    scored = int(EVALUATION_SHARE * steps * rows * context / (SCORING * times))
    reason = f"evaluations take about {EVALUATION_SHARE:.0%} of the time of the steps"
    return min(max(MIN_EVAL_TOKENS, scored), MAX_EVAL_TOKENS), reason


@derives(FROM_BASE, "train.reference")
def _reference(dial: Dial, key: str) -> tuple[Any, str]:
    return BUILT_IN, "to see what the model forgets"


@derives(FROM_BASE, "train.sample_every")
def _sample_every(dial: Dial, key: str) -> tuple[Any, str]:
    return max(1, dial.value("train.steps") // 2), "two in the run: they take long"


@derives(FROM_BASE, "train.checkpoint_every")
def _checkpoint_every(dial: Dial, key: str) -> tuple[Any, str]:
    steps = dial.value("train.steps")
    if dial.value("train.lora_rank"):
        return _kept_with_adapter(steps), "those of an adapter are small, so all are kept"
    return max(1, steps // 2), "two in the run, and the early powers of two: they are large"


@derives(FROM_BASE, "train.keep_every")
def _keep_every(dial: Dial, key: str) -> tuple[Any, str]:
    if dial.value("train.lora_rank"):
        return dial.value("train.checkpoint_every"), "all of them: those of an adapter are small"
    return 0, "the newest, and the early powers of two"


def _kept_with_adapter(steps: int) -> int:
    return max(ADAPTER_EVERY, -(-steps // ADAPTERS // ADAPTER_EVERY) * ADAPTER_EVERY)


@derives(FROM_BASE, "train.lr_by_width")
def _lr_by_width(dial: Dial, key: str) -> tuple[Any, str]:
    return False, "one rate for all: the base model was not trained with muP"


@derives(FROM_BASE, "train.state_every")
def _state_every(dial: Dial, key: str) -> tuple[Any, str]:
    longest = dial.value("train.steps") // STATES
    if dial.value("train.lora_rank"):
        every = dial.value("train.checkpoint_every")
        return every * max(1, longest // every), f"about {STATES} states in the run, and the newest"
    # A power of two, as the steps of the checkpoints that are never pruned.
    return 1 << max(0, longest.bit_length() - 1), f"about {STATES} states in the run, and the newest"


@derives(FROM_BASE, "train.optimizer")
def _optimizer(dial: Dial, key: str) -> tuple[Any, str]:
    return "adamw", "Muon learned no more in the same steps, each of which took a quarter longer"


@derives(FROM_BASE, "train.lr", "train.muon_lr")
def _rate(dial: Dial, key: str) -> tuple[Any, str]:
    rate = _base_rates(dial.value("train.objective"), dial.value("train.lora_rank") > 0)[key]
    return rate.value, rate.reason


@derives(FROM_BASE, "train.lora_alpha")
def _lora_alpha(dial: Dial, key: str) -> tuple[Any, str] | None:
    rank = dial.value("train.lora_rank")
    return (2.0 * rank, "twice the rank, so that the rate holds at any") if rank else None


@derives(FROM_BASE, "train.weight_decay")
def _weight_decay(dial: Dial, key: str) -> tuple[Any, str]:
    return 0.0, "in a few passes it would only pull the weights away from the base"


@derives(FROM_BASE, "train.dropout")
def _dropout(dial: Dial, key: str) -> tuple[Any, str]:
    return 0.0, "few passes over the text"


@derives(FROM_BASE, "device.compile")
def _compile(dial: Dial, key: str) -> tuple[Any, str] | None:
    assert dial.base is not None
    tokens = dial.value("train.steps") * dial.value("train.batch_rows") * dial.value("train.context")
    if (
        training_flops_per_token(dial.base, dial.value("train.context"), causal=True) * tokens
        < WORTH_COMPILING
    ):
        return False, "compiling takes longer than so short a run gains"
    dropout = dial.value("train.dropout") or dial.value("train.lora_dropout")
    if dial.base.family.compiles_by_layer and not compiles_by_layer(dial.base, dropout):
        return False, "with dropout each of the many layers would be compiled by itself"
    return None


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
