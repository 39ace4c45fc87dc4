"""All settings of a run, typed and documented.

1. ``Settings`` is a tree of frozen pydantic models that hold plain values only. It converts to TOML and JSON,
   and is hashable and comparable.
2. Values come from the defaults, a TOML file, and dotted overrides (``train.lr=3e-4``); later ones replace earlier.
3. A setting that depends on something else (the size of the corpus, the size of the model) is ``"auto"`` until
   :mod:`etude.plan.dial` resolves it and reports the reason. Then the settings are ``Resolved``, and are written
   to run.toml before step 0.
4. An unknown key is an error that suggests the most similar key.

The docstring below a setting is its help text, which ``etude settings`` prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Never, TypeAlias

import tomli_w
from pydantic import BaseModel, Field, ValidationError

from etude.errors import InputError
from etude.setting_input import explain, parse_override, refuse_unknown, require_text
from etude.setting_types import (
    AUTO,
    Auto,
    Change,
    ContextLength,
    Count,
    Decay,
    FamilyName,
    Fixed,
    MayDiffer,
    ObjectiveName,
    Observing,
    Open,
    Pattern,
    Rate,
    Rules,
    Section,
    Seed,
    Steering,
    Threads,
    UpdateRuleName,
    WeightDecay,
)
from etude.settings_file import read_toml
from etude.text_settings import DataSettings, TokenizerSettings

NO_BASE = "none"
"""The value of ``model.base`` for a run whose first weights are random."""


class ModelSettings(Section, Generic[Open]):
    """The network. Settings have Hugging Face's names; ``auto`` is derived from ``size``."""

    change = Change.NEVER

    base: str = NO_BASE
    """The model whose weights, tokenizer and sizes the run begins with: a run, ``RUN@STEP``, a model folder, a .gguf
    file or ``hf:owner/name``. ``none``: random weights."""
    preset: FamilyName = "llama"
    """The model family: llama, qwen3, qwen2, smollm3, gemma3_text, gpt2, gpt_neox, olmo2, mlp, or one that a plugin
    registers."""
    size: Literal["auto", "nano", "tiny", "small", "medium", "large"] = "auto"
    """The size by number of parameters; `etude train --dry-run` shows the resulting network."""
    hidden_size: Count | Open = AUTO
    """Width of the residual stream (D): numbers per token."""
    intermediate_size: Count | Open = AUTO
    """Neurons of an MLP (F)."""
    num_hidden_layers: Count | Auto = "auto"
    """Layers (L)."""
    num_attention_heads: Count | Auto = "auto"
    """Query heads of a layer (H)."""
    num_key_value_heads: Count | Auto = "auto"
    """Key and value heads of a layer (K); if fewer than the query heads, these share them."""
    attention_bias: bool | Auto = "auto"
    """Whether the linear maps of attention add a bias."""
    mlp_bias: bool | Auto = "auto"
    """Whether the linear maps of an MLP add a bias."""
    qk_norm: bool | Auto = "auto"
    """Whether queries and keys are normalised before their product."""
    tie_word_embeddings: bool | Auto = "auto"
    """Whether the output layer shares the weights of the token embedding."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the rotary position embedding."""


class TrainSettings(Section, Generic[Open]):
    """The training loop and its update step."""

    objective: ObjectiveName = "next-token"
    """Training objective: ``next-token`` (the loss of every token), ``answer-only`` (only of tokens after
    ``answer_separator``), ``conversation`` (of answers in conversations), ``preference`` (that a chosen answer gains on
    a rejected one), ``reward`` (that right ones among sampled answers gain), or one that a plugin registers
    (`etude.registry`). The rows decide between conversation and preference."""
    answer_separator: Annotated[str, Field(min_length=1)] = "="
    """Text before the answer in every document, for the objective ``answer-only``."""
    beta: Rate = 0.1
    """Strength of the objective ``preference``: a smaller one lets the model move further from its base."""
    group: Count = 8
    """Answers that are sampled to each question of a step, for the objective ``reward``."""
    kl: float = Field(0.0, ge=0)
    """Weight of the divergence from the base in the objective ``reward``, for runs with an adapter."""
    shuffle_rewards: bool = False
    """Permute the rewards among the sampled answers of a step: the null of the objective ``reward``."""
    seconds: Rate | Auto = "auto"
    """Time budget of the run, in seconds: size and steps follow from it (with a base model, steps). Auto: none."""
    steps: Steering[Count | Open] = AUTO
    """Optimizer steps."""
    context: ContextLength | Open = AUTO
    """Tokens in a row (T)."""
    batch_rows: Count | Open = AUTO
    """Rows in the batch of a step (B), over all ranks and micro-batches."""
    micro_batch_rows: Steering[Count | Open] = AUTO
    """Rows in a forward pass. Affects memory and speed, and the result only by rounding."""
    activation_checkpointing: Steering[bool] = False
    """Recompute each layer in the backward pass: less memory, a third more arithmetic, the same gradients."""
    only: Pattern = ""
    """Train only parameters whose name has this regular expression in it, such as ``layers.2[0-9]``. Empty: all."""
    lora_rank: Fixed[Annotated[int, Field(ge=0, le=2**20)] | Open] = AUTO
    """Rank of a low-rank adapter (LoRA) of a base model, whose own weights are then frozen. 0: none. Auto: none, except
    for conversations with a time budget."""
    lora_alpha: Fixed[Rate | Auto] = "auto"
    """The adapter counts ``lora_alpha / lora_rank`` times. Auto: 2."""
    lora_targets: Fixed[Rules] = ()
    """Linear layers with an adapter, by their names in the model's folder, such as ``q_proj,v_proj``. Empty: all."""
    lora_dropout: Fixed[Decay] = 0.0
    """Probability, in training, of zeroing each number that an adapter reads."""
    optimizer: UpdateRuleName | Open = AUTO
    """The update rule: ``muon`` for the hidden matrices with AdamW for the rest, ``adamw`` for everything, or one
    that a plugin registers (`etude.registry`). Auto: muon for random weights, adamw for those of a base model."""
    lr: Steering[Rate | Open] = AUTO
    """Peak learning rate of AdamW; `etude.train.rules` has the rates of others."""
    lr_by_width: Steering[bool | Auto] = "auto"
    """Whether ``lr`` is that of a network of width 128, and falls for the matrices of wider ones (muP). Auto: for
    random weights, not for those of a base model."""
    muon_lr: Steering[Rate | Auto] = "auto"
    """Peak learning rate of Muon: the spectral norm of a square matrix's update."""
    betas: Steering[tuple[Decay, Decay]] = (0.8, 0.95)
    """AdamW's decay rates of the running means of the gradient and of its square."""
    eps: Steering[float] = Field(1e-8, gt=0)
    """Number that AdamW adds to the root of the running mean square."""
    momentum: Steering[float] = Field(0.95, ge=0, lt=1)
    """Muon's momentum (Nesterov)."""
    momentum_warmup_steps: Steering[int] = Field(200, ge=0, le=2**48)
    """Updates over which the momentum grows from 0.85 to ``momentum``: early gradients soon become outdated."""
    weight_decay: Steering[WeightDecay | Open] = AUTO
    """Decoupled weight decay of matrices; biases and norms have none. Auto: more with dropout."""
    dropout: Steering[Decay | Open] = AUTO
    """Probability, in training, of zeroing each number that a layer adds to the residual stream. Auto: from the number
    of passes over the text."""
    schedule: Steering[Literal["linear", "cosine", "wsd"]] = "linear"
    """Decay of the learning rate after the warm-up: linear, cosine, or wsd (warm-up, stable, decay)."""
    warmup_fraction: Steering[float] = Field(0.02, ge=0, le=1)
    """Share of the steps over which the learning rate rises to its peak."""
    decay_fraction: Steering[float] = Field(0.4, gt=0, le=1)
    """Share of the steps in the final decay of ``wsd``."""
    min_lr_ratio: Steering[float] = Field(0.0, ge=0, le=1)
    """Learning rate one step after the last, towards which it decays, as a share of the peak."""
    max_grad_norm: Steering[float] = Field(1.0, gt=0)
    """Gradient clipping: a gradient with a larger norm is scaled down to this norm."""
    on_nonfinite: Observing[Literal["stop", "skip"]] = "stop"
    """A step whose loss or gradient is not finite is skipped. After several in a row: stop the run, or continue."""
    nonfinite_in_a_row: Observing[Count] = 3
    """Number of consecutive skipped steps that stop the run."""
    log_every: MayDiffer[Observing[Count]] = 10
    """Steps between writes to the log. Every step is logged; the lines are written together."""
    eval_every: Observing[Count | Open] = AUTO
    """Steps between evaluations."""
    eval_early: Observing[bool | Auto] = "auto"
    """Whether steps 1, 2, 5, 10, 20, 50 and 100 are evaluated too. Auto: for random weights."""
    eval_tokens: Count | Open = AUTO
    """Validation tokens of an evaluation. The n-gram ladder is scored on the text of exactly these tokens."""
    reference: str = "auto"
    """A text that the training text has nothing to do with, such as a file of yours. Each evaluation scores it too and
    so shows what the model forgets. ``builtin``: a text of the package; ``none``. Auto: builtin for a base model."""
    stop_early: Observing[bool] = False
    """End the run once the sum of what it gains on held-out text and loses on the reference text does not fall any
    more, and keep the checkpoint of the least sum. For runs with a reference text."""
    patience: Observing[Count] = 3
    """Evaluations in a row without a lower sum after which ``stop_early`` ends the run."""
    sample_every: MayDiffer[Observing[Count | Open]] = AUTO
    """Steps between samples of generated text."""
    sample_prompt: MayDiffer[Observing[str]] = "auto"
    """Prompt of the samples during training. Auto: the first words of a held-out document."""
    checkpoint_every: Observing[Count | Open] = AUTO
    """Steps between checkpoints; step 0 and the early powers of two are saved too."""
    keep_checkpoints: Observing[Count] = 3
    """Number of newest checkpoints to keep; step 0 and the early powers of two are kept too."""
    keep_every: Observing[Annotated[int, Field(ge=0)] | Open] = AUTO
    """Also keep the checkpoints at multiples of this many steps. 0: off. Auto: off, or all of an adapter."""
    state_every: MayDiffer[Observing[Count | Auto]] = "auto"
    """Of the kept checkpoints, those at multiples of this many steps and the newest hold the optimizer's state; the
    others hold weights alone, and replay starts from the last one before them with a state. Auto: all of them, and for
    a base model about four in the run."""
    checksum_every: Observing[int] = Field(10, ge=0, le=2**48)
    """Steps between checksums of all parameters, with which a replayed step is proven. 0: off."""
    summary_every: Observing[int] = Field(50, ge=0, le=2**48)
    """Steps between summaries: norms of every weight, gradient and update, attention, dead neurons. 0: off."""


class LadderSettings(Section):
    """The n-gram models that the network is compared with."""

    max_order: int = Field(7, ge=1, le=7)
    """Order of the largest n-gram model: tokens in its n-grams."""
    max_train_bytes: Count = 16_000_000
    """Most bytes of training text for the n-gram models; a longer text is sampled."""


class DeviceSettings(Section, Generic[Open]):
    """The device, and its arithmetic."""

    kind: Literal["cpu", "cuda", "mps"] | Open = AUTO
    """Device. Auto: an NVIDIA GPU if there is one, otherwise the CPU."""
    dtype: Literal["fp32", "bf16"] | Open = AUTO
    """Arithmetic of matrix products; parameters are always fp32. Auto: bf16 on a GPU that supports it, and for a wide
    network on a CPU that is known to be faster with it."""
    threads: MayDiffer[Steering[Threads | Open]] = AUTO
    """Threads of all processes of the run together."""
    compile: MayDiffer[bool | Auto] = "auto"
    """Whether to use ``torch.compile``. Auto: tries it once, and falls back to eager mode if it fails."""


class ParallelSettings(Section):
    """The division of a run among the processes of `torchrun`."""

    change = Change.STEERING

    shard: MayDiffer[Count | Auto] = "auto"
    """Processes that share one copy of the network, the gradient and the optimizer's state, each with a piece of every
    tensor. 1: a whole copy in each process. It must divide the number of processes. Auto: 1 if a copy fits the memory,
    otherwise all processes."""


class RunSettings(Section):
    """The run's folder and its seed."""

    name: MayDiffer[str] = "auto"
    """Name of the run's folder in ``folder``. Auto: from the first source of its text."""
    folder: MayDiffer[str] = "runs"
    """Folder that holds the runs."""
    seed: MayDiffer[Seed] = 1337
    """Seed of the initial weights and of the order of the text."""


class Settings(Section, Generic[Open]):
    """All settings of a run: those of the user, or :data:`Resolved` ones."""

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    model: ModelSettings[Open] = ModelSettings()
    train: TrainSettings[Open] = TrainSettings()
    ladder: LadderSettings = LadderSettings()
    device: DeviceSettings[Open] = DeviceSettings()
    parallel: ParallelSettings = ParallelSettings()


Resolved: TypeAlias = Settings[Never]
"""Settings in which the dial has resolved every ``Open`` value, so that readers get plain values. Only
:func:`etude.setting_declarations.require_resolved` returns them."""
ResolvedTrain: TypeAlias = TrainSettings[Never]


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Return the dotted keys of all settings, such as ``train.lr``."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys += known_keys(annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def load_settings(
    file: Path | None = None, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> Settings:
    """Return settings from the defaults, the TOML ``file``, ``overrides`` such as ``"train.lr=3e-4"``, and ``values``.

    Later sources replace earlier ones. The keys of ``values`` are dotted.

    Raises:
        InputError: the file is unreadable, a key is unknown, or a value is invalid.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = read_toml(file)
        try:
            refuse_unknown(_flatten(tree), known_keys())
            tree = _without_defaults(tree)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    typed = [parse_override(override, known_keys()) for override in overrides]
    for key, value in [*typed, *(values or {}).items()]:
        section, _, name = key.partition(".")
        branch = tree.setdefault(section, {})
        if not isinstance(branch, dict):
            raise InputError(f"'{section}' must be a table in {file}, such as [{section}]")
        branch[name] = value
    return validated(tree)


def validated(tree: Mapping[str, Any]) -> Settings:
    """Return the settings with the nested plain values of ``tree``.

    Raises:
        InputError: a key is unknown or a value is invalid; the message is about the first problem.
    """
    for section, branch in tree.items():
        for name, value in branch.items() if isinstance(branch, Mapping) else ():
            require_text(f"{section}.{name}", value)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise InputError(explain(error, known_keys())) from None


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return a copy of ``settings`` with the ``values`` of dotted keys replaced, validated again."""
    tree = settings.model_dump(exclude_unset=True)
    for key, value in values.items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = value
    return validated(tree)


def is_given(settings: Settings, key: str) -> bool:
    """Return whether a setting was typed, whatever its value, or has another value than its default.

    A file counts for its values that are not defaults: that of a run names every setting. So does a section in which
    every setting is set: it is a copy.
    """
    section, name = key.split(".")
    branch = getattr(settings, section)
    if len(branch.model_fields_set) == len(type(branch).model_fields):
        return bool(get_value(settings, key) != get_value(Settings(), key))
    return name in branch.model_fields_set


def get_value(settings: Settings, key: str) -> Any:
    """Return the value of the dotted ``key``."""
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def to_toml(settings: Settings) -> str:
    """Return the settings as TOML, which :func:`load_settings` reads back unchanged."""
    return tomli_w.dumps(settings.model_dump(mode="json"))


def _without_defaults(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested plain values that are not defaults, after validating them."""
    settings, usual = validated(tree), Settings()
    return {
        section: {
            name: value
            for name, value in branch.items()
            if get_value(settings, f"{section}.{name}") != get_value(usual, f"{section}.{name}")
        }
        for section, branch in tree.items()
    }


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of a nested mapping."""
    keys: list[str] = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            keys += _flatten(value, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys
