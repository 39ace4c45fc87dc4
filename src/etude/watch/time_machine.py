"""The time machine: replay any step of a run on the path that trained it, and compare it with the record.

From the newest checkpoint before a step (or a closer replayed state) it makes the updates up to it as in training: same
function, same batches, same compiled graph, same threads. On the CPU that trained the run this gives the same bits;
each loss, norm and checksum on the way is compared with the record.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from etude.config import Resolved
from etude.device import describe_machine
from etude.errors import InputError
from etude.model.adapter import adapted_by, begins
from etude.model.build import empty_model
from etude.model.folder import load_config
from etude.model.language_model import LanguageModel
from etude.plan.constants import read_constants
from etude.plan.plan import Plan, initial_state, make_objective, plan_on
from etude.pretrained.base import base_config
from etude.run.checkpoints import Checkpoint, read_marker, verify_checkpoint
from etude.run.record import RunRecord
from etude.train.checkpoint import Snapshot, load_state
from etude.train.checksum import checksum
from etude.train.compilation import compile_objective
from etude.train.loop import TrainState, make_step
from etude.train.objectives import Objective
from etude.train.run_text import text_of_run
from etude.train.schedule import lr_factor_at
from etude.train.step import GradientReader, StepResult
from etude.watch.proof import Comparison, Proof, machine_differences

CACHE_BYTES = 2**30
"""Memory for replayed states."""
STOPS = 8
"""States kept on the way through a stretch of steps: going back to any step of it then replays only a fraction."""


@dataclass
class Era:
    """The parts of a run for a stretch of its steps in which no setting changed."""

    key: tuple[Any, ...]
    plan: Plan
    state: TrainState
    objective: Objective
    compiled: bool

    def lr_factor(self, step: int) -> float:
        """Return the multiple of the peak learning rates for the update that leads to ``step``."""
        return lr_factor_at(step, self.objective.num_steps, self.state.revisions, self.plan.settings.train)


@dataclass
class States:
    """Replayed states within a memory budget; the least recently used is dropped first."""

    budget: int
    _kept: OrderedDict[int, tuple[Snapshot, Proof]] = field(default_factory=OrderedDict)

    def put(self, snapshot: Snapshot, proof: Proof) -> None:
        """Keep a state, and its proof."""
        self._kept[snapshot.step] = (snapshot, proof)
        self._kept.move_to_end(snapshot.step)
        while self.num_bytes > self.budget and len(self._kept) > 1:
            self._kept.popitem(last=False)

    def newest_up_to(self, step: int) -> tuple[Snapshot, Proof] | None:
        """Return the newest state up to ``step``, with its proof; None if there is none."""
        newest = max((candidate for candidate in self._kept if candidate <= step), default=None)
        if newest is None:
            return None
        self._kept.move_to_end(newest)
        return self._kept[newest]

    @property
    def num_bytes(self) -> int:
        return sum(snapshot.num_bytes for snapshot, _ in self._kept.values())


class TimeMachine:
    """One run, at any step. Opening it reads the run and its text; the first replay compiles, as training did.

    Attributes:
        recorded: what the run wrote.
        data: its text, as tokens.
        proof: how the current state compares with the record.
        on_progress: called as (done, total) before every replayed step. It may raise to stop the replay; the state is
            then that of the last completed step.

    Raises:
        InputError: no run there, damaged files, or its text is gone or has changed.
    """

    def __init__(self, run: str | Path, cache_bytes: int = CACHE_BYTES) -> None:
        self.recorded = RunRecord.open(Path(run)).verified()
        self.data = text_of_run(self.recorded.run.path, self.recorded.settings, self.recorded.manifest)
        self.states = States(cache_bytes)
        self.proof = Proof.nothing_yet()
        self.on_progress: Callable[[int, int], None] = lambda done, count: None
        self._era: Era | None = None

    def catch_up(self) -> bool:
        """Read what the run has written since the last read.

        Returns False if the run was rolled back and continued differently: this machine must then be discarded.
        """
        if self.recorded.is_current:
            return True
        newer = RunRecord.open(self.recorded.run.path).verified()
        if not newer.extends(self.recorded):
            return False
        self.recorded = newer
        return True

    def empty_model(self) -> LanguageModel:
        """Return the run's network without values: its names and shapes.

        Raises:
            InputError: there is no checkpoint yet, or its configuration is damaged.
        """
        folder = next(iter(self.recorded.checkpoints.values()), None)
        if folder is None:
            raise InputError(f"{self.recorded.run.path} has no checkpoint yet: train it for a while first")
        return empty_model(adapted_by(load_config(folder), self.recorded.settings.train))

    @property
    def era(self) -> Era:
        """The parts that made the current state."""
        assert self._era is not None, "go to a step first"
        return self._era

    @property
    def state(self) -> TrainState:
        """The current state. A caller that changes it must call :meth:`go_to` to restore it."""
        return self.era.state

    def go_to(self, step: int) -> TrainState:
        """Bring the state to that after ``step``, from the closest state before it.

        Raises:
            InputError: the run has no such step, or no whole checkpoint before it.
        """
        if step not in self.recorded.checkpoints:
            self.recorded.require_step(step)
        self._load_closest(step)
        stops = max(1, -(-(step - self.state.step) // STOPS))
        begun = self.state.step
        while self.state.step < step:
            try:
                self.on_progress(self.state.step - begun, step - begun)
            except BaseException:  # keep the state, so that a retry does not replay these steps again
                if self.state.step > begun:
                    self.states.put(Snapshot.of(self.state), self.proof)
                raise
            self.advance()
            if (self.state.step - begun) % stops == 0 or self.state.step == step:
                self.states.put(Snapshot.of(self.state), self.proof)
        return self.state

    def advance(self, read_gradient: GradientReader | None = None) -> StepResult:
        """Make the next update and compare it with the record; ``read_gradient`` as in ``update_step``."""
        era = self.enter(self.state.step + 1)
        train, device = era.plan.settings.train, era.plan.device
        result = make_step(era.state, era.objective, train, device, read_gradient=read_gradient)
        self.compare(result)
        return result

    def compare(self, result: StepResult) -> None:
        """Compare the step just made with the record."""
        step, recorded = self.state.step, self.recorded
        loss, grad_norm = float(result.loss), float(result.grad_norm)
        recorded_checksum = recorded.checksums.get(step)
        replayed_checksum = None if recorded_checksum is None else checksum(self.state.model)
        self.proof = self.proof.after(
            Comparison(
                step,
                (recorded.loss_at(step), loss),
                (recorded.grad_norm_at(step), grad_norm),
                (recorded_checksum, replayed_checksum),
                step in recorded.skipped,
            )
        )

    def enter(self, step: int) -> Era:
        """Return the parts with which ``step`` was made. The state keeps its step."""
        settings = self.recorded.settings_at(step)
        rows = self.recorded.micro_batch_rows_at(step)
        compiled = bool(self.recorded.session_at(step).get("compiled"))
        key = (settings.model, settings.train, settings.device, rows, compiled)
        if self._era is not None and self._era.key == key:
            return self._era
        carried = None if self._era is None else Snapshot.of(self._era.state)
        self._era = self._new_era(key, settings, rows, compiled)
        if carried is not None:
            carried.restore(self._era.state)
            self._era.state.micro_batch_rows = rows
            self._era.state.revisions = self.recorded.revisions
        return self._era

    def _new_era(self, key: tuple[Any, ...], settings: Resolved, rows: int | None, compiled: bool) -> Era:
        plan = plan_on(self.data, settings, base=base_config(self.recorded.manifest))
        state = initial_state(plan)
        state.micro_batch_rows, state.revisions = rows, self.recorded.revisions
        constants = read_constants(plan, self.recorded.run, self.recorded.manifest)
        objective = make_objective(plan, state, constants=constants)
        compile_setting: Literal["auto", False] = "auto" if compiled else False
        problem = compile_objective(objective, plan.device, compile_setting)
        return Era(key, plan, state, objective, compiled=problem is None)

    def _load_closest(self, step: int) -> None:
        """Bring the state to the closest known one that is not beyond ``step``."""
        near = self.states.newest_up_to(step)
        saved = sorted((at for at in self.recorded.checkpoints if at <= step), reverse=True)
        newest = next(filter(self._has_state, saved), 0)  # its marker is the last that is read
        if near is not None and near[0].step >= newest:
            near[0].restore(self.enter(max(1, near[0].step)).state)
            self.state.revisions = self.recorded.revisions  # the run may have revised its length since
            self.proof = near[1]
            return
        checkpoint = self._newest_whole([at for at in saved if at <= newest])
        folder = checkpoint.folder
        # Enter first, to choose its device: with the settings of the update that led to it, or of the first.
        state = self.enter(max(1, checkpoint.step)).state
        if not begins(load_config(folder), self.era.plan.model, checkpoint.step):
            raise InputError(
                f"{folder} holds another network than the run's settings: restore one of the two"
            )
        load_state(checkpoint, state)
        state.revisions = self.recorded.revisions
        machine = describe_machine(self.era.plan.device)
        session = self.recorded.session_at(step)
        self.proof = Proof(checkpoint.step, machine_differences(session, machine, self.era.compiled), ())
        self.states.put(Snapshot.of(state), self.proof)

    def _has_state(self, step: int) -> bool:
        """Return whether the checkpoint of ``step`` has an optimizer state, so that steps after it can be replayed."""
        try:
            return read_marker(self.recorded.checkpoints[step]).has_optimizer_state
        except InputError:
            return True  # loading it reports the damage

    def _newest_whole(self, steps: list[int]) -> Checkpoint:
        """Return the newest checkpoint of ``steps`` that has an optimizer state and whose files are intact.

        Raises:
            InputError: none is; the message is that of the newest.
        """
        damage: InputError | None = None
        for step in filter(self._has_state, sorted(steps, reverse=True)):
            try:
                return verify_checkpoint(self.recorded.checkpoints[step])
            except InputError as error:
                damage = damage or error
        raise damage or InputError(f"{self.recorded.run.path} has no checkpoint to begin with")
