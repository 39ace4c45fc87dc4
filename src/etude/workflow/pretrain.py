"""The main job: from a person's own text to a language model.

1. ``start`` makes the run folder; ``reopen`` finds the one that an earlier sitting left.
2. ``fit`` goes round the loop with the tasks and listeners that make it a run.
3. Other processes of ``torchrun`` ``follow``: the same loop without tasks and listeners, on their rows of the batches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from etude.config import Settings, load_settings, to_toml, with_values
from etude.data.files import default_cache
from etude.data.prepare import open_prepared
from etude.data.reading.sources import absolute_source
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import EtudeError, InputError
from etude.evaluate.ladder import Ladder, build_ladder
from etude.model.cost import count_parameters
from etude.run import (
    RunFolder,
    free_name,
    hash_file,
    read_json,
    read_object,
    staged_folder,
    write_atomic,
    write_json,
)
from etude.train.checkpoint import (
    checkpoint_name,
    list_checkpoints,
    load_state,
    newest_good_checkpoint,
    verify_checkpoint,
)
from etude.train.compilation import compile_objective
from etude.train.loop import Loop, Task, TrainState
from etude.train.objectives import NextToken, made_ahead
from etude.train.parallel import ALONE, Ranks
from etude.train.plan import Plan, initial_state, next_token_objective, plan_on, validation_text
from etude.train.schedule import last_step
from etude.workflow.card import model_card
from etude.workflow.display import training_display
from etude.workflow.history import RunHistory
from etude.workflow.pace import Deadline, Pace
from etude.workflow.plan import default_name, manifest, prepare_data, sitting
from etude.workflow.signals import stop_on_signals
from etude.workflow.tasks import (
    Evaluate,
    Record,
    Sample,
    Save,
    evaluation_due,
    opening_words,
    sample_due,
    save_due,
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


def start(plan: Plan, console: Console) -> RunFolder:
    """Make the run folder, whole: tokenizer, n-gram ladder, manifest and settings, before step 0.

    Raises:
        InputError: the name is taken.
        EtudeError: the folder cannot be written.
    """
    settings = plan.settings
    folder, name = Path(settings.run.folder), settings.run.name
    run = RunFolder.new(folder, free_name(folder, default_name(settings)) if name == "auto" else name)
    ladder = cached_ladder(plan, console)
    with staged_folder(run.path) as staging:
        made = RunFolder(staging)
        plan.data.tokenizer.save(made.tokenizer)
        write_json(made.ladder_file, ladder.to_json())
        write_atomic(made.settings_file, to_toml(from_any_folder(settings)))
        write_json(made.manifest_file, {**manifest(plan), "settings_hash": hash_file(made.settings_file)})
    return run


def from_any_folder(settings: Settings) -> Settings:
    """The same settings with absolute paths."""
    kind = settings.tokenizer.kind
    values: dict[str, Any] = {"data.sources": tuple(map(absolute_source, settings.data.sources))}
    if kind not in ("bpe", "char"):
        values["tokenizer.kind"] = str(Path(kind).expanduser().absolute())
    return with_values(settings, values)


def reopen(path: Path, console: Console) -> tuple[Plan, RunFolder]:
    """The plan of an existing run, from its own settings, on the same text.

    The tokens are found in the cache by their fingerprint; only when they are gone are the sources read again.

    Raises:
        InputError: no run there, its tokenizer is damaged, or its tokens are gone and its text has changed.
    """
    run = RunFolder.open(path)
    recorded = read_object(run.manifest_file)
    if hash_file(run.settings_file) != recorded.get("settings_hash"):
        raise InputError(
            f"{run.settings_file} is damaged or was changed since the run began: put it back, or begin a new run "
            f"from it with --config {run.settings_file}"
        )
    settings = load_settings(run.settings_file)
    EtudeTokenizer.load(run.tokenizer, str(recorded.get("tokenizer_hash")))
    fingerprint = str(recorded.get("data_fingerprint"))
    data = open_prepared(default_cache(), fingerprint)
    if data is None and "-" in settings.data.sources:
        raise InputError(
            f"the text of {path} came on standard input and is gone from the cache: train it anew"
        )
    data = data or prepare_data(settings, console)
    if data.fingerprint != fingerprint:
        raise InputError(
            f"the text of {path} has changed since it began: put the old text back, or start a new run"
        )
    return plan_on(data, settings), run


def fit(
    plan: Plan, run: RunFolder, console: Console, ranks: Ranks = ALONE, deadline: Deadline | None = None
) -> Outcome:
    """Train from where the run stands to its last step, or until Ctrl-C; the other ``ranks`` follow.

    With a ``deadline`` the number of steps follows the clock. A run that goes on in another sitting has none: it keeps
    the number that it came to.

    Raises:
        EtudeError: a failure at run time; the run goes on from its last checkpoint with ``--resume``.
    """
    with run.held():
        return _fit(plan, run, console, ranks, deadline)


def _fit(plan: Plan, run: RunFolder, console: Console, ranks: Ranks, deadline: Deadline | None) -> Outcome:
    """:func:`fit` by the process that holds the run."""
    state = initial_state(plan)
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
        with display as panel, stop_on_signals() as should_stop:
            begin_sitting(plan, run, state, objective, console, ranks)
            loop = Loop(
                state,
                made_ahead(objective, plan.device),
                plan.settings.train,
                plan.device,
                tasks=run_tasks(plan, run, ladder, state, max(passed, default=0)),
                listeners=[Record(run), panel],
                should_stop=should_stop,
                revised_length=None if deadline is None else Pace(deadline),
                ranks=ranks,
            )
            reason = loop.run()
    except BaseException as error:
        run.write_status("failed", state.step, str(error) or type(error).__name__)
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
    state = initial_state(plan)
    if told.checkpoint is not None:
        load_state(verify_checkpoint(told.checkpoint), state)
    objective = next_token_objective(plan, state, ranks)
    with stop_on_signals() as should_stop:
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
    """Bring ``state`` to the newest whole checkpoint, and the logs back to its step; a new run stays as it is."""
    if any(run.checkpoints.glob("step-*")):
        checkpoint, problems = newest_good_checkpoint(run.checkpoints)
        for problem in problems:
            console.print(problem, markup=False)
        load_state(checkpoint, state)
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
        EtudeError: the run was compiled before and cannot be here: it would go on with other rounding.
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
    newest = run.checkpoints / checkpoint_name(state.step)
    checkpoint = newest if newest.is_dir() else None
    ranks.invite(Invitation(plan.settings, plan.data.fingerprint, run.path, checkpoint, wanted))
    problem = compile_objective(objective, plan.device, wanted, ranks)
    if problem is not None and wanted == "auto":
        console.print(f"training without torch.compile ({problem})", markup=False)
    sittings.append(sitting(plan, state.step, compiled=problem is None, processes=ranks.count))
    write_json(run.manifest_file, recorded)


def run_tasks(plan: Plan, run: RunFolder, ladder: Ladder, state: TrainState, passed: int) -> Sequence[Task]:
    """Evaluate, then sample, then save: a checkpoint is then never ahead of what was written about it.

    ``passed`` is the highest order of an n-gram model that was passed before this sitting.
    """
    settings, train = plan.settings, plan.settings.train
    evaluate = Evaluate(validation_text(plan), ladder, passed)
    prompt = opening_words(plan) if train.sample_prompt == "auto" else train.sample_prompt
    sample = Sample(plan.data.tokenizer, prompt, settings.run.seed)
    saved = state.step if list_checkpoints(run.checkpoints) else -1
    save = Save(run, plan.model, train.keep_checkpoints, partial(model_card, plan, run), saved_step=saved)
    return (
        Task(evaluate, due=evaluation_due(train)),
        Task(sample, due=sample_due(train)),
        Task(save, due=save_due(train), on_stop=True),
    )


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
