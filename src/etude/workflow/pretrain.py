"""The main job: from a person's own text to a language model.

1. ``start`` makes the run folder; :mod:`etude.workflow.continuing` finds the one that an earlier sitting left.
2. ``fit`` goes round the loop with the tasks and listeners that make it a run.
3. Other processes of ``torchrun`` ``follow``: the same loop without tasks and listeners, on their rows of the batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from etude.config import Settings, TrainSettings, to_toml
from etude.data.files import default_cache
from etude.data.prepare import open_prepared
from etude.device import forget_peak_memory, peak_memory_bytes
from etude.errors import EtudeError, InputError
from etude.evaluate.ladder import Ladder, build_ladder
from etude.files import (
    hash_file,
    read_json,
    read_object,
    staged_folder,
    sweep_staging,
    write_atomic,
    write_json,
)
from etude.model.cost import count_parameters
from etude.run import RunFolder, free_name
from etude.train.checkpoint import (
    checkpoint_name,
    forget_checkpoints_after,
    load_state,
    newest_good_checkpoint,
    verify_checkpoint,
)
from etude.train.compilation import compile_objective
from etude.train.control import SAVE, Control, Held
from etude.train.loop import Loop, Task, TrainState
from etude.train.objectives import NextToken, made_ahead
from etude.train.parallel import ALONE, Ranks
from etude.train.plan import Plan, initial_state, next_token_objective, plan_on, validation_text
from etude.train.schedule import last_step
from etude.train.self_test import require_sound
from etude.train.spikes import WINDOW, LossWatch
from etude.train.step import OUT_OF_MEMORY, OutOfMemory
from etude.workflow.card import model_card
from etude.workflow.continuing import Parent, from_any_folder, record_changes
from etude.workflow.display import training_display
from etude.workflow.history import RunHistory
from etude.workflow.pace import Deadline, Pace
from etude.workflow.plan import default_name, manifest, sitting
from etude.workflow.saving import Save, require_disk
from etude.workflow.signals import asked_to_stop
from etude.workflow.tasks import (
    Evaluate,
    Record,
    Sample,
    Summarise,
    checksum_due,
    evaluation_due,
    note_checksum,
    opening_words,
    sample_due,
    save_as_asked,
    save_due,
    summary_due,
)


@dataclass(frozen=True)
class Outcome:
    """How a sitting ended."""

    run: RunFolder
    reason: str  # finished or stopped
    step: int


@dataclass(frozen=True)
class Invitation:
    """What the first process tells the others: all that they need to come to the same state."""

    settings: Settings
    data_fingerprint: str
    run: Path
    checkpoint: Path | None
    compile: bool | Literal["auto"]


def start(plan: Plan, console: Console, parent: Parent | None = None) -> RunFolder:
    """Make the run folder, whole: tokenizer, n-gram ladder, manifest and settings, before step 0.

    A run that is forked off a ``parent`` begins with what that leaves it.

    Raises:
        InputError: the name is taken.
        EtudeError: the folder cannot be written, or has no room for the checkpoints of the run.
    """
    settings = plan.settings
    folder, name = Path(settings.run.folder), settings.run.name
    run = RunFolder.new(folder, free_name(folder, default_name(settings)) if name == "auto" else name)
    require_disk(plan, folder)
    sweep_staging(folder)  # what processes that were killed while they did this have left
    ladder = cached_ladder(plan, console)
    with staged_folder(run.path, replace=False) as staging:
        made = RunFolder(staging)
        plan.data.tokenizer.save(made.tokenizer)
        write_json(made.ladder_file, ladder.to_json())
        write_atomic(made.settings_file, to_toml(from_any_folder(settings)))
        record = {**manifest(plan), "settings_hash": hash_file(made.settings_file)}
        if parent is not None:
            record["parent"] = parent.record()
            parent.bequeath(made)
        write_json(made.manifest_file, record)
    return run


def fit(
    plan: Plan,
    run: RunFolder,
    console: Console,
    ranks: Ranks = ALONE,
    deadline: Deadline | None = None,
    stop_at: float | None = None,
) -> Outcome:
    """Train from where the run stands to its last step, or until it is asked to stop; the other ``ranks`` follow.

    With a ``deadline`` the number of steps follows the clock. A run that goes on in another sitting has none: it keeps
    the number that it came to. ``stop_at`` (of ``time.monotonic``) stops this sitting whatever its number of steps.

    Raises:
        EtudeError: a failure at run time; the run goes on from its last checkpoint with ``--resume``.
    """
    with run.held():
        return _fit(plan, run, console, ranks, deadline, stop_at)


def _fit(
    plan: Plan,
    run: RunFolder,
    console: Console,
    ranks: Ranks,
    deadline: Deadline | None,
    stop_at: float | None,
) -> Outcome:
    """:func:`fit` by the process that holds the run."""
    state = initial_state(plan)
    tasks: Sequence[Task] = ()
    try:
        restore(run, state, console)
        objective = next_token_objective(plan, state, ranks)
        history = RunHistory.load(run.path)  # after restore: nothing in it lies beyond the checkpoint
        ladder, passed = history.ladder, history.passed_at
        if ladder is None:
            raise InputError(f"{run.ladder_file} is missing: put it back, or start a new run")
        title = f"{run.path}: {plan.model.model_type}, {count_parameters(plan.model).total:,} parameters"
        num_steps = last_step(objective.num_steps, state.revisions)
        display = training_display(console, title, num_steps, ladder, passed)
        control = Control(run.path)
        for problem in control.clear():
            console.print(problem, markup=False, highlight=False, soft_wrap=True)
        with (
            display as panel,
            asked_to_stop(stop_at, control, ranks.orphaned) as should_stop,
            memory_noted(plan, run),
        ):
            begin_sitting(plan, run, state, objective, console, ranks)
            save = checkpoints_of(plan, run, state)
            save.committed = panel.committed
            tasks = run_tasks(plan, objective, ladder, save, max(passed, default=0), control)
            loop = Loop(
                state,
                made_ahead(objective, plan.device),
                plan.settings.train,
                plan.device,
                tasks=tasks,
                listeners=[Record(run), save.hear, panel],
                should_stop=should_stop,
                revised_length=None if deadline is None else Pace(deadline),
                ranks=ranks,
                watch=LossWatch(event.loss for event in history.steps[-WINDOW:]),
                hold=Held(control, should_stop, partial(run.write_status, "running")),
            )
            reason = loop.run()
    except BaseException as error:
        with suppress(EtudeError):  # a checkpoint that is being written is still worth having
            for task in tasks:
                task.finish()
        with suppress(EtudeError):  # a disk that is full would hide why the run ended
            run.write_status("failed", state.step, str(error) or type(error).__name__)
        if isinstance(error, MemoryError):
            raise OutOfMemory(OUT_OF_MEMORY) from error
        raise
    run.write_status(reason, state.step)
    return Outcome(run, reason, state.step)


def follow(ranks: Ranks) -> Outcome:
    """Train with the first process as it says; it alone evaluates, prints and writes.

    Raises:
        SystemExit: the first process came to nothing, or had nothing to do; it says so itself.
        EtudeError: the first process ended before its time.
    """
    told: Invitation | None = ranks.invitation()
    if told is None:
        raise SystemExit(0)
    data = open_prepared(default_cache(), told.data_fingerprint)
    if data is None:
        raise EtudeError(f"the text that the first process prepared is not in {default_cache()}: try again")
    plan = plan_on(data, told.settings)
    require_sound(plan.device)
    state = initial_state(plan)
    if told.checkpoint is not None:
        load_state(verify_checkpoint(told.checkpoint), state)
    objective = next_token_objective(plan, state, ranks)
    with asked_to_stop(orphaned=ranks.orphaned) as should_stop:
        compile_objective(objective, plan.device, told.compile, ranks)
        loop = Loop(
            state,
            made_ahead(objective, plan.device),
            plan.settings.train,
            plan.device,
            should_stop=should_stop,
            ranks=ranks,
        )
        reason = loop.run()
    return Outcome(RunFolder(told.run), reason, state.step)


def restore(run: RunFolder, state: TrainState, console: Console) -> None:
    """Bring ``state`` to the newest whole checkpoint, and the logs back to its step; a new run stays as it is.

    What a killed process left half-written goes: nobody else has the run.
    """
    run.remove_leftovers()
    if any(run.checkpoints.glob("step-*")):
        checkpoint, problems = newest_good_checkpoint(run.checkpoints)
        for problem in problems:
            console.print(problem, markup=False, highlight=False, soft_wrap=True)
        load_state(checkpoint, state)
        forget_checkpoints_after(run.checkpoints, state.step)
        console.print(f"{run.path} goes on from step {state.step}", markup=False, highlight=False)
    for log in (run.metrics, run.samples):
        if state.step > 0:
            log.cut_back(state.step)
        else:  # the loop begins again, with what it does at step 0
            log.path.unlink(missing_ok=True)


def begin_sitting(
    plan: Plan, run: RunFolder, state: TrainState, objective: NextToken, console: Console, ranks: Ranks
) -> None:
    """Call the other ranks, compile as the run was compiled before (or try to, the first time), and note this
    sitting in the manifest.

    Raises:
        EtudeError: the run was compiled before and cannot be here: it would go on with other rounding; or the device
            computes wrongly.
    """
    if state.step >= last_step(objective.num_steps, state.revisions):
        return
    recorded = read_object(run.manifest_file)
    sittings = recorded.setdefault("sittings", [])
    if not isinstance(sittings, list) or not all(isinstance(s, dict) and "compiled" in s for s in sittings):
        raise InputError(f"{run.manifest_file} is damaged (its sittings are none): restore it")
    wanted: bool | Literal["auto"] = plan.settings.device.compile
    if sittings and state.step > 0:
        wanted = bool(sittings[-1]["compiled"])
    if plan.device.dtype == "bf16" and not plan.device.fast_bf16:
        console.print(
            f"this run multiplies in bf16, which is not known to be fast on this {plan.device.kind} and may be a "
            "hundred times slower than fp32: a fork of it, or a new run, may take --set device.dtype=fp32",
            highlight=False,
            soft_wrap=True,
        )
    errors = require_sound(plan.device).errors
    if plan.device.dtype == "bf16":  # whose tolerances hide small faults
        require_sound(replace(plan.device, dtype="fp32"))
    newest = run.checkpoints / checkpoint_name(state.step)
    checkpoint = newest if newest.is_dir() else None
    ranks.invite(Invitation(plan.settings, plan.data.fingerprint, run.path, checkpoint, wanted))
    problem = compile_objective(objective, plan.device, wanted, ranks)
    if problem is not None and wanted == "auto":
        console.print(f"training without torch.compile ({problem})", markup=False)
    sittings.append(
        sitting(plan, state.step, compiled=problem is None, processes=ranks.count, self_test=errors)
    )
    record_changes(run, recorded, from_any_folder(plan.settings), state.step)


@contextmanager
def memory_noted(plan: Plan, run: RunFolder) -> Iterator[None]:
    """At the end the manifest says how much memory the sitting took, beside what was predicted."""
    forget_peak_memory(plan.device)
    before, sittings = peak_memory_bytes(plan.device), read_object(run.manifest_file).get("sittings")
    try:
        yield
    finally:
        with suppress(EtudeError):  # not worth ending a run for, and never in place of its own error
            recorded = read_object(run.manifest_file)
            if recorded.get("sittings") != sittings:
                recorded["sittings"][-1]["memory"] = {
                    "predicted_bytes": plan.memory.total,
                    "bytes_before": before,
                    "peak_bytes": peak_memory_bytes(plan.device),
                }
                write_json(run.manifest_file, recorded)


def checkpoints_of(plan: Plan, run: RunFolder, state: TrainState) -> Save:
    """What saves the run from where it stands."""
    train = plan.settings.train
    saved = state.step or -1  # what is done at step 0 is done again by a run that was stopped there
    card = partial(model_card, plan, run)
    return Save(run, plan.model, train.keep_checkpoints, card, saved, train.keep_every)


def run_tasks(
    plan: Plan, objective: NextToken, ladder: Ladder, save: Save, passed: int, control: Control
) -> Sequence[Task]:
    """Look at the step, evaluate, sample, save: a checkpoint is then never ahead of what was written about it.

    ``passed`` is the highest order of an n-gram model that was passed before this sitting.
    """
    settings, train = plan.settings, plan.settings.train
    evaluate = Evaluate(validation_text(plan), ladder, passed)
    prompt = opening_words(plan) if train.sample_prompt == "auto" else train.sample_prompt
    sample = Sample(plan.data.tokenizer, prompt, settings.run.seed)
    return (
        *watching_tasks(train, objective),
        Task(evaluate, due=evaluation_due(train)),
        Task(sample, due=sample_due(train)),
        Task(partial(save_as_asked, save, control), due=lambda step: SAVE in control.asked()),
        Task(save, due=save_due(train), on_stop=True, finish=save.finish),
    )


def watching_tasks(train: TrainSettings, objective: NextToken) -> Sequence[Task]:
    """What is noted of the steps themselves, as far as it is wanted."""
    tasks = []
    if train.summary_every:
        summarise = Summarise(objective, train.max_grad_norm)
        tasks.append(Task(summarise, due=summary_due(train), before=summarise.before))
    if train.checksum_every:
        tasks.append(Task(note_checksum, due=checksum_due(train)))
    return tasks


def cached_ladder(plan: Plan, console: Console) -> Ladder:
    """The n-gram ladder of this text, scored on what the model is scored on: counted once, then kept in the cache."""
    wanted, scored_bytes = plan.settings.ladder, validation_text(plan).source_bytes
    key = f"{plan.data.corpus_hash}-{wanted.max_order}-{wanted.max_train_bytes}-{scored_bytes}"
    file = default_cache() / "ladders" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        try:
            return Ladder.from_json(read_json(file))
        except InputError:
            file.unlink()
    with console.status("counting n-grams"):
        ladder = build_ladder(
            plan.data.documents("train"),
            plan.data.documents("validation", scored_bytes),
            orders=range(1, wanted.max_order + 1),
            max_train_bytes=wanted.max_train_bytes,
            max_validation_bytes=scored_bytes,
        )
    assert ladder.validation_bytes == scored_bytes, "model and ladder are scored on the same bytes"
    write_atomic(file, json.dumps(ladder.to_json()))
    return ladder
