"""The tasks of a run between its steps: evaluate, sample, note checksums and summaries, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from rich.console import Console
from torch import Tensor

from etude.config import ResolvedTrain
from etude.data.reference import REFERENCE, ReferenceText
from etude.errors import InputError
from etude.generate.training_samples import sample_task
from etude.messages import command
from etude.plan.busy_cores import BusyWatch
from etude.plan.cadence import checksum_due, evaluation_due, sample_due, save_due, summary_due
from etude.plan.model_card import model_card
from etude.plan.plan import Plan, reference_validation, validation_text
from etude.plan.task_costs import Slowdown, TaskCosts
from etude.run import RunFolder
from etude.run.checkpoints import Provenance
from etude.run.events import CheckpointEvent, Event, Listener
from etude.run.gain_and_cost import Balance
from etude.run.history import RunHistory
from etude.run.ladder import Ladder
from etude.run.provenance import provenance_of
from etude.run.writer import RecordWriter
from etude.show.lines import print_line
from etude.train.control import SAVE, Control
from etude.train.divided_saving import JoinSave, SaveDivided
from etude.train.loop import Task, TrainState
from etude.train.objectives import Objective
from etude.train.objectives.preference import PREFERENCE, HeldOutPairs
from etude.train.objectives.reward import Reward
from etude.train.parallel import ALONE, Ranks
from etude.train.saving import Save
from etude.train.stop_early import StopEarly, drop_early_end
from etude.train.tasks import Evaluate, note_answers, note_checksum, save_on_request
from etude.watch.summaries import Summarise

TaskRun = Callable[[TrainState], Sequence[Event]]
_NO_LADDER = Ladder("byte", 0, 0, 0, ())


def save_task(
    plan: Plan,
    run: RunFolder,
    state: TrainState,
    record: RecordWriter,
    console: Console,
    stop_early: StopEarly | None = None,
    ranks: Ranks = ALONE,
) -> Save:
    """Return the task that saves checkpoints from the current step on, with the manifest's current content.

    It keeps the one that ``stop_early`` calls the best.
    """
    train, manifest = plan.settings.train, run.read_manifest()

    def commit(event: CheckpointEvent) -> Provenance:
        record.commit(event)
        return provenance_of(manifest, record.logs)

    def best() -> Balance | None:
        return None if stop_early is None else stop_early.best

    def card(step: int) -> str:
        return model_card(plan, run, step, manifest, best())

    kind: Callable[..., Save] = partial(SaveDivided, writers=ranks.writers) if ranks.divided else Save
    return kind(
        run,
        plan.model,
        train.keep_checkpoints,
        card,
        _saved_step(plan, state),
        train.keep_every,
        state_every=plan.state_every,
        in_background=plan.saves_in_background,
        spared=lambda: [step.step for step in [best()] if step is not None],
        commit=commit,
        warn=partial(print_line, console),
    )


def _saved_step(plan: Plan, state: TrainState) -> int:
    """Return the step of the newest checkpoint, -1 if it is to be saved.

    The tasks of step 0 run again if a run was stopped there, so its checkpoint is saved again too. That of a base model
    stays: it is the model itself.
    """
    return state.step or (0 if plan.has_base else -1)


def busy_listeners(plan: Plan, run: RunFolder, busy: BusyWatch | None) -> Sequence[Listener]:
    """Return the listener that warns when other programs slow the run down, for a run on the CPU."""
    if busy is None or plan.device.kind != "cpu":  # a GPU does not wait for threads of the CPU
        return ()
    busy.begin(plan.device.threads, command("train", "--resume", run.path))
    return (busy,)


def evaluation_task(
    plan: Plan,
    run: RunFolder,
    ladder: Ladder,
    passed: int,
    constants: Mapping[str, Tensor] | None = None,
    ranks: Ranks = ALONE,
) -> Evaluate:
    """Return the task that scores the validation text, and reference text and held-out pairs of a run that has them.

    Args:
        passed: highest order of an n-gram model that the run passed before this session.
        constants: what its loss needs of the network at step 0.
    """
    entry = run.read_manifest().get(REFERENCE)
    text = None if entry is None else ReferenceText.from_json(entry)
    reference = None if text is None else (text.digest, reference_validation(plan, text))
    pairs, held_out = None, validation_text(plan)
    if constants is not None and plan.settings.train.objective == PREFERENCE:
        pairs = HeldOutPairs.of(held_out, plan.settings, constants)
    return Evaluate(held_out, ladder, reference, pairs, passed, ranks)


def stop_early_task(
    plan: Plan, state: TrainState, evaluate: Evaluate, history: RunHistory
) -> StopEarly | None:
    """Return the task that evaluates and may end the run, with what earlier sessions evaluated; None without it.

    A ``state`` in which the run ended early may continue if the settings have changed.
    """
    train = plan.settings.train
    if not train.stop_early:
        drop_early_end(state, None)
        return None
    if evaluate.reference is None:  # a resumed run whose setting is new
        raise InputError(
            "train.stop_early needs the reference text that a run has from its start: begin a new run with it"
        )
    task = StopEarly(evaluate, train.steps, train.patience, evaluate.reference[0])
    task.read(history)
    drop_early_end(state, task)
    return task


def run_tasks(
    plan: Plan,
    objective: Objective,
    evaluate: TaskRun,
    save: Save,
    control: Control,
    costs: TaskCosts | None = None,
    ranks: Ranks = ALONE,
) -> Sequence[Task]:
    """Return the tasks in their order: note the step, evaluate, sample, save.

    Saving is last, so that a checkpoint covers the results of its step. :func:`divided_tasks` has the same order.

    Args:
        costs: collects the seconds that each task takes.
    """
    train = plan.settings.train
    sample: TaskRun = replace(sample_task(plan), ranks=ranks)
    keep: TaskRun = save
    saves = save_due(train)
    is_best = evaluate.is_best if isinstance(evaluate, StopEarly) else lambda step: False
    if costs is not None:
        costs.writing, costs.slowdown = lambda: save.seconds_writing, Slowdown()
        evaluate, sample = costs.timed("evaluation", evaluate), costs.timed("sample", sample)
        keep = costs.timed("checkpoint", save)
    return (
        *step_tasks(train, objective, ranks),
        Task(evaluate, due=evaluation_due(train)),
        Task(sample, due=sample_due(train)),
        Task(partial(save_on_request, save, control), due=lambda step: SAVE in control.requested()),
        Task(keep, due=lambda step: saves(step) or is_best(step), on_stop=True, finish=save.finish),
    )


def divided_tasks(
    plan: Plan, run: RunFolder, state: TrainState, objective: Objective, ranks: Ranks
) -> Sequence[Task]:
    """Return the part of another rank in the :func:`run_tasks` of rank 0, which decides when each runs.

    Their events are the same, and are not recorded here.
    """
    train = plan.settings.train
    save = JoinSave(plan.model, ranks.writers, _saved_step(plan, state), plan.saves_in_background)
    return (
        *step_tasks(train, objective, ranks),
        Task(evaluation_task(plan, run, _NO_LADDER, 0, ranks=ranks), due=evaluation_due(train)),
        Task(replace(sample_task(plan), ranks=ranks), due=sample_due(train)),
        Task(save, due=lambda step: False),  # on request
        Task(save, due=save_due(train), on_stop=True, finish=save.finish),
    )


def step_tasks(train: ResolvedTrain, objective: Objective, ranks: Ranks = ALONE) -> Sequence[Task]:
    """Return the tasks that note summaries and checksums of steps, that the settings enable."""
    tasks = []
    if isinstance(objective, Reward):
        tasks.append(Task(partial(note_answers, objective), due=lambda step: True))
    # A summary looks inside layers, which a process that holds pieces cannot do by itself.
    if train.summary_every and not ranks.divided:
        summarise = Summarise(objective, train.max_grad_norm)
        tasks.append(Task(summarise, due=summary_due(train), before=summarise.before))
    if train.checksum_every:
        tasks.append(Task(note_checksum, due=checksum_due(train)))
    return tasks
