"""Prepare a run: turn its text into tokens and its settings into a plan, with progress shown, and name it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from etude.config import NO_BASE, Settings, get_value, is_given, known_keys, with_values
from etude.data.prepared_data import PreparedData
from etude.data.reference import reference_text
from etude.data.tokens.packing import pieces_of
from etude.data.tokens.vocabulary import BASE
from etude.errors import InputError
from etude.evaluate.tuning.report_work import report_work
from etude.messages import command
from etude.plan.base_steps import choose_steps
from etude.plan.busy_cores import threads_for_time
from etude.plan.pace import Deadline
from etude.plan.plan import Plan, plan_on
from etude.plan.time_budget import TimedPlan, choose_size, most_epochs, require_time
from etude.plan.tuning_time import choose_tuning, describe_choices
from etude.pretrained.base import Base, describe_base, open_base
from etude.pretrained.chat_tokens import new_tokens, with_chat_template
from etude.show.lines import format_duration, print_line
from etude.show.phases import Phases
from etude.text_settings import TokenizerSettings
from etude.train.objectives.reward import REWARD
from etude.train.run_text import describe_examples, require_used, text_with_progress, with_objective_of
from etude.workflow.replay import with_samples

REPORTED_SHARE_LEFT = 0.02
"""Share of the time budget that must be left over for a message that the run ends early for want of text."""


def make_plan(
    settings: Settings, console: Console, phases: Phases | None = None
) -> tuple[Plan, Deadline | None]:
    """Prepare the text (or load it from the cache) and resolve the settings. Writes only to the cache.

    With ``train.seconds``, the size (with a base model: the steps) is chosen for the time that is left once the text is
    prepared, and the run has a deadline. Without ``phases``, the time begins now.

    Raises:
        InputError: no usable text or base model, settings that do not fit together, or less time than a run needs.
    """
    reference_text(settings.train.reference)  # a bad file is reported before the text is read
    seconds, base = settings.train.seconds, None
    if seconds == "auto" or settings.train.steps != "auto":
        if settings.model.base != NO_BASE:
            base, settings = _open_base(settings, console)
        data, settings, base = _data_with_report(settings, base, console)
        config = None if base is None else base.config
        plan = plan_on(data, settings, base=config)
        _require_adapter(plan, settings)
        _report_cut_examples(plan, console)
        return replace(plan, base=base), None
    if settings.train.objective == REWARD:
        raise InputError(
            "the time to sample answers is not predicted: with --reward give --steps, not --time"
        )
    require_time(seconds)
    phases = phases or Phases(console, time.monotonic(), seconds)
    if settings.model.base != NO_BASE:
        with phases("opening the base model"):
            base, settings = _open_base(settings, console)
    if console.is_terminal:
        data, settings, base = _data_with_report(settings, base, console)  # shows its own progress
    else:
        with phases("preparing the text"):
            data, settings, base = _data_with_report(settings, base, console)
    promise = _plan_in_time(data, settings, base, phases, console)
    _require_adapter(promise.plan, settings)
    if promise.time_left_over > REPORTED_SHARE_LEFT * seconds:
        console.print(
            f"read {most_epochs(promise.plan)} times, this text has nothing more to teach: the run will end about "
            f"{format_duration(promise.time_left_over)} early",
            highlight=False,
            soft_wrap=True,
        )
    _report_cut_examples(promise.plan, console)
    return replace(promise.plan, base=base), promise.deadline


def _require_adapter(plan: Plan, settings: Settings) -> None:
    """Raise InputError for ``settings`` of the user that describe an adapter, in a run without one."""
    given = any(is_given(settings, f"train.lora_{key}") for key in ("alpha", "targets", "dropout"))
    if not plan.settings.train.lora_rank and given:
        raise InputError(
            "lora_alpha, lora_targets and lora_dropout describe an adapter, and this run has none: add --lora or omit "
            "them"
        )


def _report_cut_examples(plan: Plan, console: Console) -> None:
    """Print how many examples are longer than a row of the run: pairs of answers, and others with no turn that fits."""
    part, context = plan.data.train, plan.settings.train.context
    if part.examples is None:
        return
    pieces = pieces_of(part, context)
    long = np.flatnonzero(np.diff(part.documents) > context + 1)
    unused = len(np.setdiff1d(long, pieces.numbers))
    pairs = part.examples.rejected is not None
    what = "pairs of answers with their prompts" if pairs else "conversations"
    for count, outcome in (
        (pieces.shortened, "end after their last turn that fits"),
        (unused, "are not used"),
    ):
        if count:
            print_line(
                console,
                f"{count:,} {what} {outcome}: they have more than train.context={context} tokens",
            )


def _plan_in_time(
    data: PreparedData, settings: Settings, base: Base | None, phases: Phases, console: Console
) -> TimedPlan:
    """Choose what follows from the time budget, and print the candidates of a run whose size is chosen."""
    derived = threads_for_time(settings)
    for _, reason in derived.values():
        print_line(console, reason)
    ends_at = phases.began + phases.seconds
    if base is not None:
        given = (data, settings, base.config, ends_at, phases)
        examples = data.train.examples
        if examples is None or examples.rejected is not None:
            return choose_steps(*given, derived)
        promise = choose_tuning(*given, report_work(data), derived)
        for line in describe_choices(promise):
            print_line(console, line)
        return promise
    promise = choose_size(data, settings, ends_at, phases, derived)
    console.print(promise.table())
    return promise


def _open_base(settings: Settings, console: Console) -> tuple[Base, Settings]:
    """Open the base model, and return it with the settings that name it exactly. Print what it is."""
    base = open_base(settings.model.base)
    for line in describe_base(base):
        print_line(console, line)
    settings = with_values(settings, {"model.base": base.source})
    if settings.tokenizer.kind == TokenizerSettings().kind:
        settings = with_values(settings, {"tokenizer.kind": BASE})
    return base, settings


def _data_with_report(
    settings: Settings, base: Base | None, console: Console
) -> tuple[PreparedData, Settings, Base | None]:
    """Prepare the text, and print one line about what was kept and what was dropped.

    Returns:
        The text; the settings for the objective that it needs; and the base, for conversations with a chat template.

    Raises:
        InputError: no usable text, or the base needs new tokens that the run would not train.
    """
    data = text_with_progress(settings, console)
    print_line(console, f"{data.report.summary()}. {_where_report_is(settings)}")
    settings = with_objective_of(settings, data)
    require_used(settings, data)
    if base is None or data.train.examples is None:
        return data, with_samples(settings, data, base, console), base
    for line in describe_examples(data, settings):
        print_line(console, line)
    chat = with_chat_template(base)
    if chat is not base:
        added = new_tokens(base)
        if added and settings.train.lora_rank == "auto":
            settings = with_values(settings, {"train.lora_rank": 0})
        if added and (settings.train.lora_rank or settings.train.only):
            raise InputError(
                f"{base.source} has no chat template and no tokens {' and '.join(added)}, which must be trained with "
                "all weights: omit --lora and --train, or choose a base that has a chat template"
            )
        words = f", with the new tokens {' and '.join(added)}, which are trained" if added else ""
        print_line(console, f"{base.source} has no chat template: it gets ChatML{words}")
        settings = with_values(settings, {"model.base": chat.source})
    if settings.data.replay:
        settings = with_samples(settings, data, chat, console, knows_turns=chat is base)
        data = text_with_progress(settings, console)
    return data, settings, chat


def _where_report_is(settings: Settings) -> str:
    """Return a sentence on how to see the whole report of the text of ``settings``."""
    if "-" in settings.data.sources:
        return "The run's manifest.json holds the whole report"
    words = ["data", "report", *settings.data.sources]
    usual = Settings()
    sections = (
        "data",
        "tokenizer",
        "model.base",
        "model.preset",
        "run.seed",
    )  # all that the prepared text depends on
    for key in filter(lambda key: key.startswith(sections) and key != "data.sources", known_keys()):
        value = get_value(settings, key)
        if value != get_value(usual, key):
            plain = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += ["--set", f"{key}={plain}"]
    return f"All of it: {command(*words)}"


def default_name(settings: Settings) -> str:
    """Return the name of a run that the user did not name: that of its first source."""
    source = settings.data.sources[0]
    if source == "-":
        return "stdin"
    if source.startswith(("builtin:", "hf:")):
        last = source.split(":")[1].rsplit("/", 1)[-1]  # hf:owner/name may be followed by :split
    else:
        last = Path(source).resolve().name
    stem = last.split(".", 1)[0]
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem).strip("-")
    return plain or "run"
