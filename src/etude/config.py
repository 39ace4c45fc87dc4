"""Every setting of a run: typed, documented, and written down before step 0.

1. ``Settings`` is a tree of frozen pydantic models holding plain values only, so it is TOML, JSON,
   hashable and comparable.
2. Values come from the defaults, then a TOML file, then dotted overrides (``train.lr=3e-4``); later wins.
3. A setting that follows from something else (the size of the corpus, the chosen size of the model) is
   ``"auto"`` until :mod:`etude.plan.dial` resolves it and says why. Then the settings are ``Resolved``.
4. An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Never, TypeAlias

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from etude.errors import InputError
from etude.setting_input import explain, parse_override, refuse_unknown, require_text
from etude.setting_types import (
    AUTO,
    Auto,
    ByteVocabulary,
    Change,
    ContextLength,
    Count,
    Decay,
    Delimiter,
    FamilyName,
    MayDiffer,
    Names,
    ObjectiveName,
    Observing,
    Open,
    Rate,
    Rules,
    Seed,
    Steering,
    Threads,
    UpdateRuleName,
    WeightDecay,
)
from etude.settings_file import read_toml
from etude.untrusted import shown


class Section(BaseModel):
    """A group of settings: frozen, and strict about unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    change: ClassVar[Change] = Change.FORK
    """When its settings may be changed, but for those that say so themselves."""

    def __class_getitem__(cls, item: Any) -> Any:
        """Return the class itself: what is resolved has a type of its own for mypy, and no class of its own."""
        return cls


class DataSettings(Section):
    """Which text, how it is cleaned, and what is held out."""

    sources: tuple[str, ...] = ("builtin:primer",)
    """Files, folders, ``-`` (stdin), ``hf:owner/name``, or ``builtin:`` and primer, python, tasks, repeats, modular."""
    text_field: Names = "text"
    """The field or column that holds the text in JSON, tables, Parquet and Hub data sets: a name, a path such as
    messages.content, or several with commas between, whose texts become paragraphs."""
    encoding: Rules = ("auto",)
    """Of text files: auto (UTF-8, else detected and reported), a name such as windows-1252, or FILE=NAME for files."""
    csv_delimiter: Delimiter = "auto"
    """Between the cells of a table: comma, semicolon, tab, pipe, or a character. Auto: as the first rows have it."""
    csv_header: bool | Auto = "auto"
    """Whether the first row of a table names its columns; without it they are called 1, 2, 3 ..."""
    max_bytes: Count | Auto = "auto"
    """Read at most this many bytes of text (UTF-8). Auto: everything, or the usual amount of a built-in."""
    normalization: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode normalisation of every document."""
    seed: Seed | Auto = "auto"
    """Of a generated built-in text. Auto: the run's; runs that are compared over seeds read one and the same text."""
    min_chars: Count = 1
    """Documents with fewer characters are dropped."""
    deduplicate: Literal["near", "exact", "none"] = "near"
    """Drop repeated documents: near copies (MinHash), exact copies only, or keep all."""
    split: Literal["hash", "tail"] = "hash"
    """Hold out whole documents by hash of their content, or the last part of the whole text."""
    validation_fraction: float = Field(0.05, gt=0.0, lt=1.0)
    """Share of the text held out for validation."""
    section_bytes: int = Field(8192, ge=256, le=2**48)
    """A corpus of one long document (or a few) is cut into sections of about this size first."""
    cross_document_attention: bool = True
    """Whether attention may look across the boundary between packed documents."""
    workers: MayDiffer[Threads | Auto] = "auto"
    """Processes that encode text. Auto: one per core."""


class TokenizerSettings(Section):
    """How text becomes tokens."""

    change = Change.NEVER

    kind: str = "bpe"
    """``bpe`` (byte-level, trained on the training part), ``char``, or a path to a tokenizer.json."""
    vocab_size: ByteVocabulary | Auto = "auto"
    """Vocabulary of a trained BPE. Auto: from the size of the training text."""
    pattern: Literal["auto", "gpt2", "llama3", "qwen2"] = "auto"
    """Pre-tokenizer expression. Auto: the one that runners expect of the model's family."""


class ModelSettings(Section, Generic[Open]):
    """The network. Names are Hugging Face's; ``auto`` follows from ``size``."""

    change = Change.NEVER

    preset: FamilyName = "llama"
    """The model family: llama, qwen3, qwen2, smollm3, gemma3_text, gpt2, gpt_neox, olmo2, mlp, or one that a plugin
    registers."""
    size: Literal["auto", "nano", "tiny", "small", "medium", "large"] = "auto"
    """The dial by parameters; see `etude train --dry-run`."""
    hidden_size: Count | Open = AUTO
    """Numbers in the residual stream for each token: the width (D)."""
    intermediate_size: Count | Open = AUTO
    """Neurons of an MLP (F)."""
    num_hidden_layers: Count | Auto = "auto"
    """Layers (L)."""
    num_attention_heads: Count | Auto = "auto"
    """Query heads of a layer (H)."""
    num_key_value_heads: Count | Auto = "auto"
    """Key and value heads of a layer (K); query heads share them where they are fewer."""
    attention_bias: bool | Auto = "auto"
    """Whether the linear maps of attention add a bias."""
    mlp_bias: bool | Auto = "auto"
    """Whether the linear maps of an MLP add a bias."""
    qk_norm: bool | Auto = "auto"
    """Whether queries and keys are normalised before their product."""
    tie_word_embeddings: bool | Auto = "auto"
    """Whether the output layer has the weights of the token embedding."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the rotary position embedding."""


class TrainSettings(Section, Generic[Open]):
    """The update step and the loop around it."""

    objective: ObjectiveName = "next-token"
    """What is learned: ``next-token`` (every token), ``answer-only`` (only what follows ``answer_separator``), or one
    that a plugin registers (`etude.registry`)."""
    answer_separator: Annotated[str, Field(min_length=1)] = "="
    """What stands before the answer in every document, where its loss alone is trained (answer-only)."""
    seconds: Rate | Auto = "auto"
    """How long the whole run may take; size, shape and steps follow from it. Auto: as long as its size takes."""
    steps: Steering[Count | Open] = AUTO
    """Optimizer steps."""
    context: ContextLength | Open = AUTO
    """Tokens in a row (T)."""
    batch_rows: Count | Open = AUTO
    """Rows in the whole batch of a step (B), over all ranks and micro-batches."""
    micro_batch_rows: Steering[Count | Open] = AUTO
    """Rows in one forward pass; changes memory and speed, never the result beyond rounding."""
    activation_checkpointing: Steering[bool] = False
    """Recompute each layer in the backward pass: less memory, a third more arithmetic, the same gradients."""
    optimizer: UpdateRuleName = "muon"
    """The update rule: ``muon`` for the hidden matrices with AdamW for the rest, ``adamw`` for everything, or one
    that a plugin registers (`etude.registry`)."""
    lr: Steering[Rate | Open] = AUTO
    """Peak learning rate of AdamW, for a network of width 128; `etude.train.rules` has the rates of others."""
    muon_lr: Steering[Rate | Auto] = "auto"
    """Peak learning rate of Muon: the spectral norm of a square matrix's update."""
    betas: Steering[tuple[Decay, Decay]] = (0.8, 0.95)
    """AdamW's decay of the running mean of the gradient, and of that of its square."""
    eps: Steering[float] = Field(1e-8, gt=0)
    """What AdamW adds to the root of the running mean square."""
    momentum: Steering[float] = Field(0.95, ge=0, lt=1)
    """Muon's momentum (Nesterov)."""
    momentum_warmup_steps: Steering[int] = Field(200, ge=0, le=2**48)
    """Updates over which the momentum grows from 0.85 to ``momentum``: early gradients are soon out of date."""
    weight_decay: Steering[WeightDecay | Open] = AUTO
    """Decoupled; applied to matrices, not to biases and norms. Auto: more where there is dropout."""
    dropout: Steering[Decay | Open] = AUTO
    """Probability of leaving out each number that a layer adds, in training. Auto: by how often the text is read."""
    schedule: Steering[Literal["linear", "cosine", "wsd"]] = "linear"
    """How the learning rate falls after the warm-up: in a line, as a cosine, or late (warm-up, stable, decay)."""
    warmup_fraction: Steering[float] = Field(0.02, ge=0, le=1)
    """Share of the steps over which the learning rate rises to its peak."""
    decay_fraction: Steering[float] = Field(0.4, gt=0, le=1)
    """Share of the steps in the final decay of ``wsd``."""
    min_lr_ratio: Steering[float] = Field(0.0, ge=0, le=1)
    """What the learning rate falls towards, as a share of the peak: it would be reached one step after the last."""
    max_grad_norm: Steering[float] = Field(1.0, gt=0)
    """A longer gradient is scaled down to this norm."""
    on_nonfinite: Observing[Literal["stop", "skip"]] = "stop"
    """A step whose loss or gradient is not a finite number changes nothing. Stop after some in a row, or go on."""
    nonfinite_in_a_row: Observing[Count] = 3
    """Such steps in a row that stop the run."""
    log_every: MayDiffer[Observing[Count]] = 10
    """Steps between writes of the log; every step has its line in it all the same."""
    eval_every: Observing[Count | Open] = AUTO
    """Steps between evaluations; a few early steps are evaluated besides."""
    eval_tokens: Count | Open = AUTO
    """Validation tokens of an evaluation. The n-gram ladder is scored on the text of exactly these tokens."""
    sample_every: MayDiffer[Observing[Count | Open]] = AUTO
    """Steps between samples of generated text."""
    sample_prompt: MayDiffer[Observing[str]] = "auto"
    """What the sample that is shown while it learns begins with. Auto: the first words of a held-out document."""
    checkpoint_every: Observing[Count | Open] = AUTO
    """Steps between checkpoints; step 0 and the early powers of two are saved besides."""
    keep_checkpoints: Observing[Count] = 3
    """Newest checkpoints kept; step 0 and the early powers of two are kept besides."""
    keep_every: Observing[int] = Field(0, ge=0)
    """Checkpoints at multiples of this many steps are kept too. 0: none."""
    checksum_every: Observing[int] = Field(10, ge=0, le=2**48)
    """Steps between checksums of all parameters, which prove a step that is made again later. 0: none."""
    summary_every: Observing[int] = Field(50, ge=0, le=2**48)
    """Steps between summaries: norms of every weight, gradient and update, attention, dead nodes. 0: none."""


class LadderSettings(Section):
    """The n-gram models that the network has to beat."""

    max_order: int = Field(7, ge=1, le=7)
    """Tokens in the longest n-grams."""
    max_train_bytes: Count = 16_000_000
    """Training text that the n-gram models are built from, at most."""


class DeviceSettings(Section, Generic[Open]):
    """Where the arithmetic happens."""

    kind: Literal["cpu", "cuda", "mps"] | Open = AUTO
    """Auto: an NVIDIA GPU where there is one, otherwise the CPU."""
    dtype: Literal["fp32", "bf16"] | Open = AUTO
    """Arithmetic of matrix products; parameters are always fp32. auto: bf16 on a GPU that has it, and on a CPU that is
    known to be faster in it where the network is wide enough."""
    threads: MayDiffer[Steering[Threads | Open]] = AUTO
    """Of all the processes of the run together."""
    compile: MayDiffer[bool | Auto] = "auto"
    """``torch.compile``: auto probes it once and falls back to eager."""


class RunSettings(Section):
    """The run's folder and its seed."""

    name: MayDiffer[str] = "auto"
    """The run's folder in ``folder``. Auto: after the first source of its text."""
    folder: MayDiffer[str] = "runs"
    """The folder that holds the runs."""
    seed: MayDiffer[Seed] = 1337
    """Seed of the first weights and of the order of the text."""


class Settings(Section, Generic[Open]):
    """All settings of a run: as the user gives them, or as :data:`Resolved`."""

    run: RunSettings = RunSettings()
    data: DataSettings = DataSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    model: ModelSettings[Open] = ModelSettings()
    train: TrainSettings[Open] = TrainSettings()
    ladder: LadderSettings = LadderSettings()
    device: DeviceSettings[Open] = DeviceSettings()


Resolved: TypeAlias = Settings[Never]
"""Settings in which the dial has resolved all that is ``Open``, from where every reader takes plain values:
:func:`etude.setting_declarations.require_resolved` is the only way there."""
ResolvedTrain: TypeAlias = TrainSettings[Never]


def recipe_file(name: str) -> Path:
    """The settings of a study that comes with the package.

    Raises:
        InputError: there is none of that name.
    """
    folder = Path(__file__).parent / "recipes"
    names = sorted(file.stem for file in folder.glob("*.toml"))
    if name not in names:
        raise InputError(f"there is no recipe '{shown(name)}': there is {' and '.join(names)}")
    return folder / f"{name}.toml"


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Every dotted key, such as ``train.lr``."""
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
    """Defaults, then the TOML ``file``, then ``overrides`` such as ``"train.lr=3e-4"``, then dotted ``values``.

    Raises:
        InputError: a file that cannot be read, an unknown key (the nearest is named), or a bad value.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = read_toml(file)
        try:
            refuse_unknown(_flatten(tree), known_keys())
            validated(tree)
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
    """Settings from nested plain values; the first thing wrong is one line.

    Raises:
        InputError: an unknown key or a bad value.
    """
    for section, branch in tree.items():
        for name, value in branch.items() if isinstance(branch, Mapping) else ():
            require_text(f"{section}.{name}", value)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise InputError(explain(error, known_keys())) from None


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """A copy of ``settings`` with dotted keys replaced, validated again."""
    tree = settings.model_dump()
    for key, value in values.items():
        section, name = key.split(".")
        tree[section][name] = value
    return validated(tree)


def get_value(settings: Settings, key: str) -> Any:
    """The value behind a dotted key."""
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def to_toml(settings: Settings) -> str:
    """The settings as TOML text that :func:`load_settings` reads back unchanged."""
    return tomli_w.dumps(settings.model_dump(mode="json"))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            keys += _flatten(value, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys
