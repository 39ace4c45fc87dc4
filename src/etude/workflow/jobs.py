"""The jobs behind ``etude train`` and ``etude data report``, from settings to the last line printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from etude.config import Settings, get_value, known_keys
from etude.data.report import DataReport
from etude.data.report_picture import draw_report
from etude.device import available_cores, place_in_run
from etude.errors import InputError
from etude.evaluate.tuning.report_work import report_work
from etude.files import file_errors_in_one_line, write_json
from etude.generate.training_samples import opening_words
from etude.model.cost import count_parameters
from etude.places import expand_home
from etude.plan.busy_cores import BusyWatch
from etude.plan.disk_use import disk_use
from etude.plan.measuring import fastest_step
from etude.plan.plan import Plan
from etude.plan.tuning_time import seconds_besides
from etude.run import RunFolder, free_name
from etude.show.lines import format_duration, say
from etude.show.phases import Phases
from etude.train.objectives.conversation import CONVERSATION
from etude.train.optimizer import trained_parameters
from etude.train.parallel import Ranks, join_ranks
from etude.train.run_text import text_with_progress
from etude.workflow.close import TUNING_SECONDS, close, promise_sentence
from etude.workflow.fit import Outcome, fit, follow
from etude.workflow.prepare import default_name, make_plan
from etude.workflow.restarts import forget_run, note_run, run_of_restart
from etude.workflow.start import plan_fork, reopen, require_steps_left, start


def grow(
    settings: Settings,
    console: Console | None = None,
    *,
    stop_after: float | None = None,
    began: float | None = None,
) -> Outcome:
    """Grow a language model: prepare the text, make the run folder, train, and report how it went.

    Under ``torchrun`` the other processes follow the first one, here and in :func:`resume` and :func:`fork`.

    Args:
        stop_after: seconds after which the run stops and saves, as on a stop request.
        began: start of the time budget ``train.seconds`` (of ``time.monotonic``); None: now.
    """
    stop_at = _from_now(stop_after)
    began = time.monotonic() if began is None else began
    with join_ranks() as ranks, file_errors_in_one_line():
        return _grow(settings, console or Console(), ranks, stop_at, began) if ranks.leads else follow(ranks)


def _grow(settings: Settings, console: Console, ranks: Ranks, stop_at: float | None, began: float) -> Outcome:
    seconds, busy = settings.train.seconds, BusyWatch(partial(say, console))
    folder = Path(settings.run.folder)
    if (begun := run_of_restart(folder)) is not None:
        return _continue(begun, console, ranks, stop_at)
    if settings.run.name != "auto":
        RunFolder.new(folder, settings.run.name)  # raises for a taken name, before any work
    phases = None if seconds == "auto" else Phases(console, began, seconds)
    plan, deadline = make_plan(settings, console, phases)
    if deadline is None:
        busy.look(plan.device.threads)
    say(console, f"{describe(plan)}\n{disk_use(plan)}")
    run = start(plan, console)
    note_run(run)
    outcome = fit(plan, run, console, ranks, deadline, stop_at, busy, phases)
    forget_run(folder)
    close(outcome, console, deadline)
    if phases is not None and deadline is not None and outcome.reason == "finished":
        say(console, promise_sentence(plan, run, phases.seconds, time.monotonic() - began))
    return outcome


def resume(
    path: Path,
    console: Console | None = None,
    overrides: Sequence[str] = (),
    *,
    stop_after: float | None = None,
    accept_record: bool = False,
) -> Outcome:
    """Continue a run from its last intact checkpoint, with its own settings except for the few that may be changed.

    Raises InputError if the record of the run is damaged, unless ``accept_record``.
    """
    stop_at = _from_now(stop_after)
    with join_ranks() as ranks, file_errors_in_one_line():
        if not ranks.leads:
            return follow(ranks)
        console = console or Console()
        plan, run = reopen(path, overrides, console, accept_record=accept_record)
        require_steps_left(plan, run)
        outcome = fit(plan, run, console, ranks, stop_at=stop_at, busy=BusyWatch(partial(say, console)))
        close(outcome, console)
        return outcome


def fork(
    origin: str,
    console: Console | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    *,
    stop_after: float | None = None,
    accept_record: bool = False,
) -> Outcome:
    """Start a new run from a checkpoint of another one: ``RUN`` (the newest checkpoint) or ``RUN@STEP``."""
    stop_at = _from_now(stop_after)
    with join_ranks() as ranks, file_errors_in_one_line():
        if not ranks.leads:
            return follow(ranks)
        console = console or Console()
        if (begun := run_of_restart(_folder_of_fork(origin, values or {}))) is not None:
            return _continue(begun, console, ranks, stop_at)
        plan, begins = plan_fork(origin, overrides, dict(values or {}), console, accept_record=accept_record)
        say(console, f"{describe(plan)}\n{disk_use(plan, begins.step)}")
        run, busy = start(plan, console, begins), BusyWatch(partial(say, console))
        note_run(run)
        outcome = fit(plan, run, console, ranks, stop_at=stop_at, busy=busy)
        forget_run(run.path.parent)
        close(outcome, console)
        return outcome


def _folder_of_fork(origin: str, values: Mapping[str, Any]) -> Path:
    """Return the folder of a fork: that of its parent, unless another is named."""
    return Path(values.get("run.folder") or expand_home(origin.partition("@")[0]).absolute().parent)


def _continue(path: Path, console: Console, ranks: Ranks, stop_at: float | None) -> Outcome:
    """Continue the run that an earlier attempt of the same torchrun began, and perhaps finished."""
    say(console, f"torchrun has started this command again: it continues {path}")
    plan, run = reopen(path, (), console)
    status = run.status()
    if status.get("state") in ("finished", "stopped"):
        forget_run(path.parent)
        return Outcome(run, str(status["state"]), int(status.get("step", 0)))
    outcome = fit(plan, run, console, ranks, stop_at=stop_at, busy=BusyWatch(partial(say, console)))
    forget_run(path.parent)
    close(outcome, console)
    return outcome


def _from_now(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def explain(settings: Settings, console: Console | None = None) -> None:
    """Print every setting with its reason, what the model costs, and how long it takes (``--dry-run``)."""
    if place_in_run()[0] > 0:
        return  # the first process prints for all
    console = console or Console()
    plan, _ = make_plan(settings, console)
    table = Table(box=None, header_style="bold")
    table.add_column("setting")
    table.add_column("value")
    table.add_column("why")
    defaults = Settings()
    for key in known_keys():
        value = get_value(plan.settings, key)
        chosen = "default" if get_value(defaults, key) == value else "you chose it"
        reason = plan.resolution.reasons.get(key, chosen)
        if value == "auto":
            reason = RESOLVED_LATER[key](plan) if key in RESOLVED_LATER else "not used by this run"
        table.add_row(key, _plain(value), reason)
    console.print(table)
    say(console, "\n" + describe(plan))
    memory = plan.memory.total / 2**20
    say(
        console,
        f"memory: about {memory:,.0f} MiB for parameters, gradients, optimizer state and activations\n{disk_use(plan)}",
    )
    seconds = fastest_step(plan)
    steps = plan.settings.train.steps
    say(
        console,
        f"time: about {format_duration(seconds * steps)} for {steps:,} steps"
        f" ({1000 * seconds:.0f} ms per step, measured just now without torch.compile)",
    )
    if plan.has_base and plan.settings.train.objective == CONVERSATION:
        besides = seconds_besides(plan, seconds, report_work(plan.data), TUNING_SECONDS)
        say(
            console,
            f"and about {format_duration(besides)} for evaluations, samples and the report at the end",
        )


RESOLVED_LATER: Mapping[str, Callable[[Plan], str]] = {
    "run.name": lambda plan: f"{_free_name(plan)}, the first free name after the text",
    "data.seed": lambda plan: f"{plan.settings.run.seed}, the run's",
    "data.max_bytes": lambda plan: (
        "everything; 12 MB of builtin:primer and of builtin:primer-instructions, 3 MB of builtin:repeats, 1 MB of "
        "builtin:tasks, 0.4 MB of builtin:sums, builtin:copying and builtin:format"
    ),
    "data.csv_delimiter": lambda plan: "detected from the first rows of a table",
    "data.csv_header": lambda plan: "detected from the first rows of a table",
    "data.workers": lambda plan: f"{available_cores()}, one for each core",
    "tokenizer.vocab_size": lambda plan: (
        f"{plan.data.tokenizer.vocab_size:,}, for {plan.data.train.source_bytes:,} bytes of text"
    ),
    "tokenizer.pattern": lambda plan: f"the one that other programs expect of {plan.settings.model.preset}",
    "train.seconds": lambda plan: "as long as its size takes",
    "train.sample_prompt": lambda plan: f"{opening_words(plan)!r}, how a held-out document begins",
    "device.compile": lambda plan: "compiled where that works, tried once on the first batch",
    "parallel.shard": lambda plan: (
        f"{plan.shard}, a whole copy in each process"
        if plan.shard == 1
        else f"{plan.shard}, since a whole copy does not fit one process"
    ),
}
"""Explains each setting that stays ``"auto"`` in a run, because its value follows from the text or the machine."""


def _free_name(plan: Plan) -> str:
    return free_name(Path(plan.settings.run.folder), default_name(plan.settings))


def describe(plan: Plan) -> str:
    """Describe the text and the model in two lines, and the expected result in a third if it is known."""
    data, settings = plan.data, plan.settings
    parameters = count_parameters(plan.model)
    expected = ""
    if plan.expected is not None:
        low, high = plan.expected.low, plan.expected.high
        expected = (
            f"\nexpected at the end: {low:.3f} to {high:.3f} bits per byte on text that it has not seen"
        )
    return (
        f"text: {data.train.source_bytes:,} bytes to learn from, {data.validation.source_bytes:,} held out; "
        f"{data.train.num_tokens:,} tokens, vocabulary {data.tokenizer.vocab_size:,} ({settings.tokenizer.kind})\n"
        f"model: {plan.model.model_type}, {parameters.total:,} parameters "
        f"({parameters.non_embedding:,} outside the embeddings){_adapter(plan)}, {settings.train.steps:,} steps of "
        f"{settings.train.batch_rows} x {settings.train.context} tokens on {plan.device.kind}{expected}"
    )


def _adapter(plan: Plan) -> str:
    """Return what is trained of a network with an adapter."""
    adapter = plan.model.adapter
    if adapter is None:
        return ""
    trained = trained_parameters(plan.model, plan.settings.train.only)
    return f", frozen, with an adapter of rank {adapter.rank} ({trained:,} trained)"


def report_data(settings: Settings, picture: Path | None, json_file: Path | None) -> None:
    """Print the data report of a text, or the one that a run keeps; draw and write it to the given files."""
    console = Console()
    first = expand_home(settings.data.sources[0])
    is_run = len(settings.data.sources) == 1 and (first / "run.toml").is_file()
    report = _report_of_run(first) if is_run else text_with_progress(settings, console).report
    console.print(report.table())
    if picture is not None:
        draw_report(report, picture)
        say(console, str(picture))
    if json_file is not None:
        write_json(json_file, report.as_json())
        say(console, str(json_file))


def _report_of_run(folder: Path) -> DataReport:
    """Read the report from the manifest of a run.

    Raises:
        InputError: the manifest has no report, or a damaged one.
    """
    run = RunFolder.open(folder)
    facts = run.read_manifest().get("data_report")
    if facts is None:
        raise InputError(
            f"{folder} was trained by a version of Etude that kept no report: type `etude data report` with its text"
        )
    report = DataReport(facts)
    try:
        report.text()
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{run.manifest_file} is damaged (its report of the text is not valid): restore it"
        ) from None
    return report


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
