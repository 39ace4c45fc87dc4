"""The text of a run: the one that its settings name, or the one that an existing run was trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import NO_BASE, Settings, is_given, with_values
from etude.data.prepared_data import PreparedData, Progress, open_prepared, prepare
from etude.errors import InputError
from etude.model.families import family_named
from etude.places import cache_folder
from etude.pretrained.chat_tokens import base_tokenizer
from etude.run.checkpoints import list_checkpoints
from etude.show.lines import print_line
from etude.show.progress import data_progress
from etude.train.objectives.conversation import CONVERSATION, NAMES
from etude.train.objectives.next_token import NEXT_TOKEN
from etude.train.objectives.preference import PREFERENCE
from etude.train.objectives.reward import REWARD

_KINDS = {"conversation": "conversations", "completion": "completions of prompts", "text": "plain texts"}
"""The kinds of examples that are trained together."""


def text_of_settings(settings: Settings, progress: Progress | None = None) -> PreparedData:
    """Tokenize the text that ``settings`` name, or load its tokens from the cache if nothing has changed.

    Raises:
        InputError: no usable text, or no such base model.
    """
    base = settings.model.base
    return prepare(
        settings.data,
        settings.tokenizer,
        family_pattern=family_named(settings.model.preset).tokenizer_pattern,
        seed=settings.run.seed if settings.data.seed == "auto" else settings.data.seed,
        cache=cache_folder(),
        progress=progress,
        published=None if base == NO_BASE else partial(base_tokenizer, base),
    )


def text_with_progress(settings: Settings, console: Console) -> PreparedData:
    """Return :func:`text_of_settings` with its progress shown. Print what the user should know about the text.

    Raises:
        InputError: no usable text, or no such base model.
    """
    with data_progress(console) as progress:
        data = text_of_settings(settings, progress)
    for note in data.report.notes:
        print_line(console, note)
    return data


def text_of_run(
    run: Path,
    settings: Settings,
    manifest: Mapping[str, Any],
    prepare_again: Callable[[Settings], PreparedData] = text_of_settings,
) -> PreparedData:
    """Load the tokens of the run with ``manifest``: from the cache, or from its sources if the cache lacks them.

    Tokens from the sources are compared with the manifest by the hashes of text and tokenizer, because another version
    of Etude may have another fingerprint for the same data.

    Raises:
        InputError: the text of ``run`` has changed, or came on standard input and is no longer in the cache.
    """
    cached = open_prepared(cache_folder(), str(manifest.get("data_fingerprint")))
    if cached is not None:
        return cached
    if "-" in settings.data.sources:
        raise InputError(
            f"the text of {run} came on standard input and is no longer in the cache: train a new run"
        )
    data = prepare_again(with_own_base(settings, run))
    if not is_text_of(data, manifest):
        raise InputError(
            f"the text of {run} has changed since it began: put the old text back, or start a new run"
        )
    return data


def with_own_base(settings: Settings, run: Path) -> Settings:
    """Return the settings of ``run`` with its first checkpoint as the base model: the original may be gone.

    That of a fork is at any step.
    """
    if settings.model.base == NO_BASE:
        return settings
    folders = list_checkpoints(run.absolute() / "checkpoints")
    return with_values(settings, {"model.base": str(folders[0])}) if folders else settings


def is_text_of(data: PreparedData, manifest: Mapping[str, Any]) -> bool:
    """Return whether ``data`` are the tokens that the run with this manifest was trained on."""
    return (data.corpus_hash, data.tokenizer.hash) == (
        manifest.get("corpus_hash"),
        manifest.get("tokenizer_hash"),
    )


def describe_examples(data: PreparedData, settings: Settings) -> list[str]:
    """Return what the user should know of conversations or pairs: how many there are, and what is trained."""
    examples = data.train.examples
    assert examples is not None
    if examples.rejected is not None:
        numbers = (int(part.examples.pairs) for part in (data.train, data.validation) if part.examples)
        return [
            "pairs of a chosen and a rejected answer: {:,} to train on, {:,} held out".format(*numbers),
            "the loss compares the probabilities of both answers with those of the base (DPO, train.beta="
            f"{settings.train.beta:g})",
        ]
    if settings.train.objective == REWARD:
        train, null = (
            settings.train,
            "; the rewards are shuffled: this is the null" * settings.train.shuffle_rewards,
        )
        return [
            f"questions: {data.train.num_documents:,} to train on, {data.validation.num_documents:,} held out; each "
            f"step samples {train.group} answers to a question, and right ones gain on the others (GRPO){null}"
        ]
    trained, tokens = int(examples.trained.sum()), data.train.num_tokens
    kinds: Mapping[str, int] = data.corpus.facts.get("kinds", {})
    names = [f"{count:,} {_KINDS[kind]}" for kind, count in kinds.items() if kind in _KINDS]
    what = names[0].partition(" ")[2] if len(names) == 1 else f"examples ({', '.join(names)})"
    counted = [_trained_of(kind, settings.data.mask) for kind in kinds if kind in _KINDS]
    return [
        f"{what}: {data.train.num_documents:,} to train on, {data.validation.num_documents:,} held out; "
        f"the loss counts {trained:,} of {tokens:,} tokens ({trained / tokens:.0%}): {' and '.join(counted)}"
    ]


def _trained_of(kind: str, mask: str) -> str:
    """Return what the loss counts of examples of a kind."""
    if kind == "conversation":
        return NAMES[mask]
    if kind == "text":
        return "plain texts"
    return "prompts with their completions" if mask == "all" else "the completions of prompts"


def require_used(settings: Settings, data: PreparedData, keys: Collection[str] | None = None) -> None:
    """Raise InputError for a setting of the user that has no effect on these data, whatever its value.

    ``keys``: the settings that the user gave, of a fork; else :func:`etude.config.is_given` decides.
    """
    reasons = {}
    if settings.train.objective != PREFERENCE:
        reasons["train.beta"] = (
            "--beta is for pairs of answers (DPO): give rows with prompt, chosen and rejected, or omit it"
        )
    if settings.train.objective in (NEXT_TOKEN, CONVERSATION, PREFERENCE):
        reasons["train.answer_separator"] = (
            "train.answer_separator is for --set train.objective=answer-only: add that, or omit it"
        )
    if not settings.train.stop_early:
        reasons["train.patience"] = "train.patience is for --stop-early: add that, or omit it"
    if settings.train.objective != REWARD:
        for key in ("train.group", "train.kl", "train.shuffle_rewards"):
            reasons[key] = f"{key} is for sampled answers: add --reward, or omit it"
    if data.train.examples is None:
        reasons["data.mask"] = (
            "data.mask chooses among the tokens of conversations, and this is plain text: give rows with messages, or "
            "omit it"
        )
    for key, reason in reasons.items():
        if is_given(settings, key) if keys is None else key in keys:
            raise InputError(reason)


def with_objective_of(settings: Settings, data: PreparedData) -> Settings:
    """Return the settings that training on ``data`` needs: conversations and pairs have objectives of their own.

    Examples share rows, but never see each other.
    """
    if data.train.examples is None:
        return settings
    values: dict[str, Any] = {"data.cross_document_attention": False}
    if data.train.examples.rejected is not None:
        if settings.train.objective in (NEXT_TOKEN, CONVERSATION):
            values["train.objective"] = PREFERENCE
    elif settings.train.objective == NEXT_TOKEN:
        values["train.objective"] = CONVERSATION
    return with_values(settings, values)
