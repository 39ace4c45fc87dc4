"""From settings to a plan, with progress shown; what a run's manifest says of it; what a run is called."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import Settings, get_value, known_keys
from etude.data.prepare import PreparedData
from etude.device import available_cores, choose_device, describe_machine
from etude.messages import command
from etude.run.folder import SESSIONS
from etude.train.dial import MAX_EPOCHS
from etude.train.own_text import prepared
from etude.train.plan import Plan, plan_on
from etude.workflow.busy import busy_cores, threads_beside
from etude.workflow.display import format_duration, print_line
from etude.workflow.pace import Deadline
from etude.workflow.phases import Phases
from etude.workflow.progress import data_progress
from etude.workflow.timed import choose_size, require_time

WORTH_SAYING = 0.02
"""Of the time asked for, that a run ends early because its text is read out."""


def make_plan(
    settings: Settings, console: Console, phases: Phases | None = None
) -> tuple[Plan, Deadline | None]:
    """Prepare the text (or find it prepared) and resolve the settings; only the cache is written.

    With ``train.seconds`` the size is chosen for what is left of them once the text is prepared, and the run has a
    deadline. ``phases`` knows since when they pass: since now, if it is not given.

    Raises:
        InputError: no usable text, or settings that do not fit together, or less time than a run needs.
    """
    seconds = settings.train.seconds
    if seconds == "auto" or settings.train.steps != "auto":
        return plan_on(_data_with_report(settings, console), settings), None
    require_time(seconds)
    phases = phases or Phases(console, time.monotonic(), seconds)
    if console.is_terminal:
        data = _data_with_report(settings, console)  # it shows how far it is
    else:
        with phases("preparing the text"):
            data = _data_with_report(settings, console)
    derived = threads_for_time(settings)
    for _, reason in derived.values():
        print_line(console, reason)
    promise = choose_size(data, settings, phases.began + seconds, phases, derived)
    console.print(promise.table())
    if promise.time_left_over > WORTH_SAYING * seconds:
        console.print(
            f"read {MAX_EPOCHS} times, this text has nothing more to teach: the run will end about "
            f"{format_duration(promise.time_left_over)} early",
            highlight=False,
            soft_wrap=True,
        )
    return promise.plan, promise.deadline


def _data_with_report(settings: Settings, console: Console) -> PreparedData:
    """Prepare the text, and print in one line what was kept and what was not."""
    data = prepare_data(settings, console)
    print_line(console, f"{data.report.summary()}. {_where_report_is(settings)}")
    return data


def threads_for_time(settings: Settings) -> dict[str, tuple[int, str]]:
    """Fewer threads than cores, with the reason, where other programs keep some busy and the user set none.

    Only a run for a time chooses them: what it comes to depends on the clock anyway. The bits of any other run follow
    from its settings and the machine, whatever else runs there.
    """
    if settings.device.threads != "auto" or choose_device(settings.device).kind != "cpu":
        return {}
    cores, busy = available_cores(), busy_cores()
    threads = threads_beside(busy, cores)
    if threads == cores:
        return {}
    reason = f"other programs keep about {busy:.1f} of the {cores} cores busy, so it trains on {threads}"
    return {"device.threads": (threads, reason)}


def prepare_data(settings: Settings, console: Console) -> PreparedData:
    """The text as tokens, from the cache when nothing has changed; what a person should know of it is printed.

    Raises:
        InputError: no usable text.
    """
    with data_progress(console) as progress:
        data = prepared(settings, progress)
    for note in data.report.notes:
        print_line(console, note)
    return data


def _where_report_is(settings: Settings) -> str:
    """How to see the whole report of the text of ``settings``."""
    if "-" in settings.data.sources:
        return "The run's manifest.json holds the whole report"
    words = ["data", "report", *settings.data.sources]
    usual = Settings()
    sections = ("data", "tokenizer", "model.preset", "run.seed")  # all that the prepared text depends on
    for key in filter(lambda key: key.startswith(sections) and key != "data.sources", known_keys()):
        value = get_value(settings, key)
        if value != get_value(usual, key):
            plain = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += ["--set", f"{key}={plain}"]
    return f"All of it: {command(*words)}"


def manifest(plan: Plan) -> dict[str, Any]:
    """Return the first content of manifest.json: what this run is, and why its settings are as they are."""
    data = plan.data
    return {
        "command": command(*sys.argv[1:]),
        "seed": plan.settings.run.seed,
        "sources": list(plan.settings.data.sources),
        "data_fingerprint": data.fingerprint,
        "corpus_hash": data.corpus_hash,
        "tokenizer_hash": data.tokenizer.hash,
        "vocab_size": data.tokenizer.vocab_size,
        "train_tokens": data.train.num_tokens,
        "train_bytes": data.train.source_bytes,
        "validation_tokens": data.validation.num_tokens,
        "validation_bytes": data.validation.source_bytes,
        "data_report": data.report.as_json(),
        "derived": {
            key: {"value": get_value(plan.settings, key), "reason": reason}
            for key, reason in plan.resolution.reasons.items()
        },
        "expected_bits_per_byte": dataclasses.astuple(plan.expected) if plan.expected else None,
        SESSIONS: [],
    }


def session_entry(
    plan: Plan, step: int, compiled: bool, processes: int, self_test: dict[str, float]
) -> dict[str, Any]:
    """Return the manifest's entry of a session: where it trains, with what, from which step, and the largest errors of
    the device in its self-test.
    """
    return {
        "from_step": step,
        "began": time.time(),
        "compiled": compiled,
        "processes": processes,
        "self_test": self_test,
        "machine": describe_machine(plan.device),
    }


def default_name(settings: Settings) -> str:
    """What a run is called when nobody names it: after its first source."""
    source = settings.data.sources[0]
    if source == "-":
        return "stdin"
    if source.startswith(("builtin:", "hf:")):
        last = source.split(":")[1].rsplit("/", 1)[-1]  # hf:owner/name may go on with :split
    else:
        last = Path(source).resolve().name
    stem = last.split(".", 1)[0]
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem).strip("-")
    return plain or "run"
