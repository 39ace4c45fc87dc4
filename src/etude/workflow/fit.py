"""Train a run that :mod:`etude.workflow.start` created or reopened.

1. ``fit`` runs the loop in the first process, with the tasks and listeners that write a run folder.
2. ``follow`` runs it in the other processes of ``torchrun``, on their rows of the batches, without tasks or listeners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from etude.data.prepared_data import open_prepared
from etude.diagnose.machine.self_test import require_sound
from etude.errors import EtudeError, InputError
from etude.evaluate.run_ladder import mend_ladder
from etude.files import file_errors_in_one_line
from etude.model.cost import count_parameters
from etude.places import cache_folder
from etude.plan.busy_cores import BusyWatch
from etude.plan.constants import read_constants
from etude.plan.pace import Deadline, Pace
from etude.plan.plan import (
    Plan,
    initial_state,
    make_objective,
    plan_on,
)
from etude.pretrained.base import base_config
from etude.run import RunFolder
from etude.run.checkpoints import read_marker, verify_checkpoint
from etude.run.events import Event
from etude.run.history import RunHistory
from etude.run.ladder import Ladder
from etude.run.record import RunRecord
from etude.run.resume import prepare_resume
from etude.run.writer import RecordWriter
from etude.show.lines import print_line
from etude.show.phases import Phases
from etude.train.checkpoint import load_state
from etude.train.compilation import compile_objective
from etude.train.control import Control, ControlledPause
from etude.train.display import training_display
from etude.train.divided_checkpoint import load_divided
from etude.train.loop import LONGEST_SILENCE, Loop, Task, TrainState
from etude.train.objectives import prefetched
from etude.train.parallel import ALONE, Ranks
from etude.train.schedule import last_step
from etude.train.spikes import MEMORY, LossWatch, sampled_shares
from etude.train.step import OUT_OF_MEMORY, OutOfMemory
from etude.train.stop_early import drop_early_end
from etude.train.stop_requests import stop_requests
from etude.workflow.run_tasks import (
    busy_listeners,
    divided_tasks,
    evaluation_task,
    run_tasks,
    save_task,
    stop_early_task,
)
from etude.workflow.session import (
    begin_session,
    divide_ranks,
    division_of,
    memory_noted,
    receive_invitation,
)

TaskRun = Callable[[TrainState], Sequence[Event]]


@dataclass(frozen=True)
class Outcome:
    """The end of a session."""

    run: RunFolder
    reason: str  # "finished" or "stopped"
    step: int  # the last one that was made
    divided: bool = False  # among processes, none of which may have room for the whole network


def fit(
    plan: Plan,
    run: RunFolder,
    console: Console,
    ranks: Ranks = ALONE,
    deadline: Deadline | None = None,
    stop_at: float | None = None,
    busy: BusyWatch | None = None,
    phases: Phases | None = None,
) -> Outcome:
    """Train from the newest checkpoint to the last step, or until a stop is requested; the other ``ranks`` follow.

    Args:
        deadline: adapts the number of steps to the clock. A resumed run has none: it keeps its last number of steps.
        stop_at: time (of ``time.monotonic``) at which this session stops, whatever its number of steps.
        busy: warns when other programs slow the run down.
        phases: shows the work before step 1.

    Raises:
        EtudeError: a failure at run time; ``--resume`` continues from its last checkpoint.
    """
    with run.locked(), file_errors_in_one_line():
        divide_ranks(ranks, division_of(plan))
        return _fit(plan, run, console, ranks, deadline, stop_at, busy, phases)


def _fit(
    plan: Plan,
    run: RunFolder,
    console: Console,
    ranks: Ranks,
    deadline: Deadline | None,
    stop_at: float | None,
    busy: BusyWatch | None,
    phases: Phases | None,
) -> Outcome:
    """Do the work of :func:`fit` while the run folder is locked."""
    state = initial_state(plan, ranks)
    tasks: Sequence[Task] = ()
    try:
        restore(run, state, console, ranks)
        mend_ladder(plan, run, run.read_manifest(), console)
        constants = read_constants(plan, run, run.read_manifest(), restore=True)
        objective = make_objective(plan, state, ranks, constants)
        history = RunRecord.open(run.path).history  # after restore, which cuts the log at the checkpoint
        ladder, passed = _required(run, history.ladder), history.passed_at
        evaluate = evaluation_task(plan, run, ladder, max(passed, default=0), constants, ranks)
        stop_early = stop_early_task(plan, state, evaluate, history)
        title = f"{run.path}: {plan.model.model_type}, {count_parameters(plan.model).total:,} parameters"
        num_steps = last_step(objective.num_steps, state.revisions)
        rungs = {rung.order: rung.bits_per_byte for rung in ladder.rungs}
        display = training_display(console, title, num_steps, rungs, passed)
        control = Control(run.path)
        for problem in control.clear():
            print_line(console, problem)
        stopping = stop_requests(stop_at, control, ranks.orphaned)
        with display as panel, stopping as should_stop, memory_noted(plan, run):
            begin_session(plan, run, state, objective, console, ranks, deadline, phases)
            record = RecordWriter(run)
            save = save_task(plan, run, state, record, console, stop_early, ranks)
            save.committed = panel.committed
            costs = None if deadline is None else deadline.costs
            tasks = run_tasks(plan, objective, stop_early or evaluate, save, control, costs, ranks)
            listeners = [record, panel, *busy_listeners(plan, run, busy)]  # their order does not matter
            loop = Loop(
                state,
                prefetched(objective, plan.device),
                plan.settings.train,
                plan.device,
                tasks=tasks,
                listeners=listeners,
                should_stop=should_stop,
                revised_length=None if deadline is None else Pace(deadline),
                longest_silence=LONGEST_SILENCE if deadline is None else deadline.silence,
                ranks=ranks,
                watch=_watch(plan, history),
                pause=ControlledPause(control, should_stop, partial(run.write_status, "running")),
            )
            reason = loop.run()
    except BaseException as error:
        _note_failure(run, state, tasks, error)
        if isinstance(error, MemoryError):
            raise OutOfMemory(OUT_OF_MEMORY) from error
        raise
    run.write_status(reason, state.step)
    return Outcome(run, reason, state.step, ranks.divided)


def _watch(plan: Plan, history: RunHistory) -> LossWatch:
    """Return what finds spikes of the loss, with the losses of earlier sessions."""
    before = ((event.step, event.loss) for event in history.steps[-MEMORY:])
    return LossWatch(before, sampled_shares(plan.data, plan.settings))


def _required(run: RunFolder, ladder: Ladder | None) -> Ladder:
    """Return the ladder of a run. Raises InputError where it has none."""
    if ladder is None:
        raise InputError(f"{run.ladder_file} is missing: put it back, or start a new run")
    return ladder


def _note_failure(run: RunFolder, state: TrainState, tasks: Sequence[Task], error: BaseException) -> None:
    """Finish the background work of the tasks, and write to status.json why the run failed."""
    with suppress(EtudeError, MemoryError):  # a checkpoint that is being written is still worth keeping
        for task in tasks:
            task.finish()
    with suppress(EtudeError):  # an error of a full disk would hide why the run failed
        run.write_status("failed", state.step, str(error) or type(error).__name__)


def follow(ranks: Ranks) -> Outcome:
    """Take part in the training that the first process sends. Only that process evaluates, prints and writes.

    Raises:
        SystemExit: the first process failed before the job, or had nothing to do. It prints the reason itself.
        EtudeError: the first process ended early, or its prepared text is not in the cache of this process.
    """
    job = receive_invitation(ranks)
    if job is None:
        raise SystemExit(0)
    data = open_prepared(cache_folder(), job.data_fingerprint)
    if data is None:
        raise EtudeError(f"the text that the first process prepared is not in {cache_folder()}: try again")
    run = RunFolder(job.run)
    plan = plan_on(data, job.settings, base=base_config(run.read_manifest()))
    require_sound(plan.device, plan.settings.train.optimizer)
    state = initial_state(plan, ranks)
    if job.checkpoint is not None:
        if ranks.divided:  # the first process has verified it for all
            load_divided(read_marker(job.checkpoint), state)
        else:
            load_state(verify_checkpoint(job.checkpoint), state)
        drop_early_end(state, None)  # the first process would not continue a run that ends here
    objective = make_objective(plan, state, ranks, read_constants(plan, run, run.read_manifest()))
    with stop_requests(orphaned=ranks.orphaned) as should_stop:
        compile_objective(objective, plan.device, job.compile, ranks)
        loop = Loop(
            state,
            prefetched(objective, plan.device),
            plan.settings.train,
            plan.device,
            tasks=divided_tasks(plan, run, state, objective, ranks) if ranks.divided else (),
            should_stop=should_stop,
            ranks=ranks,
        )
        reason = loop.run()
    return Outcome(run, reason, state.step)


def restore(run: RunFolder, state: TrainState, console: Console, ranks: Ranks = ALONE) -> None:
    """Load the newest intact checkpoint of the run into ``state``, if there is one: see :func:`prepare_resume`.

    Raises:
        InputError: no checkpoint verifies, or the record is not the one that the checkpoint was saved with.
    """
    load = load_divided if ranks.divided else load_state
    prepare_resume(run, lambda checkpoint: load(checkpoint, state), partial(print_line, console))
