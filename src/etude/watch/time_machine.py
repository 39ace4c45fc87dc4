"""The time machine: any step of a run made again, on the path that trained it, and held against the record.

From the newest checkpoint before a step (or a replayed state that is closer) the updates up to it are made again as in
training: same function, same batches, same compiled graph, same threads. On the machine that trained a run, on a CPU,
that gives the same bits; each loss, norm and checksum on the way is compared with what was written down.
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
from etude.model.build import empty_model
from etude.model.folder import load_config
from etude.model.language_model import LanguageModel
from etude.plan.plan import Plan, initial_state, make_objective, plan_on
from etude.run.checkpoints import Checkpoint, verify_checkpoint
from etude.run.record import RunRecord
from etude.train.checkpoint import Snapshot, load_state
from etude.train.checksum import checksum
from etude.train.compilation import compile_objective
from etude.train.loop import TrainState, make_step
from etude.train.objectives import Objective
from etude.train.run_data import own_text
from etude.train.schedule import lr_factor_at
from etude.train.step import GradientReader, StepResult
from etude.watch.proof import Comparison, Proof, machine_differences

CACHE_BYTES = 2**30
"""Replayed states kept in memory."""
STOPS = 8
"""States kept on the way through a stretch of steps: going back to any of them is then a fraction of the stretch."""


@dataclass
class Era:
    """The parts of a run for a stretch of its steps in which nothing was set otherwise."""

    key: tuple[Any, ...]
    plan: Plan
    state: TrainState
    objective: Objective
    compiled: bool

    def lr_factor(self, step: int) -> float:
        """What multiplies the peak learning rates for the update that makes ``step``."""
        return lr_factor_at(step, self.objective.num_steps, self.state.revisions, self.plan.settings.train)


@dataclass
class States:
    """Replayed states within a budget of memory; the one that was not used for longest goes first."""

    budget: int
    _kept: OrderedDict[int, tuple[Snapshot, Proof]] = field(default_factory=OrderedDict)

    def put(self, snapshot: Snapshot, proof: Proof) -> None:
        self._kept[snapshot.step] = (snapshot, proof)
        self._kept.move_to_end(snapshot.step)
        while self.num_bytes > self.budget and len(self._kept) > 1:
            self._kept.popitem(last=False)

    def newest_up_to(self, step: int) -> tuple[Snapshot, Proof] | None:
        """The state closest to ``step``, not beyond it, and how far it is proved."""
        found = max((kept for kept in self._kept if kept <= step), default=None)
        if found is None:
            return None
        self._kept.move_to_end(found)
        return self._kept[found]

    @property
    def num_bytes(self) -> int:
        return sum(snapshot.num_bytes for snapshot, _ in self._kept.values())


class TimeMachine:
    """One run, at any step. Opening it reads the run and finds its text; the first replay compiles, as training did.

    Attributes:
        recorded: what the run wrote.
        data: its text, as tokens.
        proof: how the state at hand compares with the record.
        told: called before every step that is made again, with how many have been and how many there are. It may raise
            to end the journey; the state is then that of the step reached.

    Raises:
        InputError: no run there, damaged files, or its text is gone or has changed.
    """

    def __init__(self, run: str | Path, cache_bytes: int = CACHE_BYTES) -> None:
        self.recorded = RunRecord.open(Path(run)).verified()
        self.data = own_text(self.recorded.run.path, self.recorded.settings, self.recorded.manifest)
        self.states = States(cache_bytes)
        self.proof = Proof.nothing_yet()
        self.told: Callable[[int, int], None] = lambda done, count: None
        self._era: Era | None = None

    def catch_up(self) -> bool:
        """Read what the run has written since it was read.

        Returns False where the run was rolled back and continued differently: then this machine is of no more use.
        """
        if self.recorded.is_current:
            return True
        newer = RunRecord.open(self.recorded.run.path).verified()
        if not newer.extends(self.recorded):
            return False
        self.recorded = newer
        return True

    def empty_model(self) -> LanguageModel:
        """Return the run's network without numbers: its names and shapes.

        Raises:
            InputError: there is no checkpoint yet, or its configuration is damaged.
        """
        folder = next(iter(self.recorded.checkpoints.values()), None)
        if folder is None:
            raise InputError(f"{self.recorded.run.path} has no checkpoint yet: train it for a while first")
        return empty_model(load_config(folder))

    @property
    def era(self) -> Era:
        """The parts that the state at hand was made by."""
        assert self._era is not None, "go to a step first"
        return self._era

    @property
    def state(self) -> TrainState:
        """The state at hand. Whoever changes it leaves the run's way: :meth:`go_to` brings it back."""
        return self.era.state

    def go_to(self, step: int) -> TrainState:
        """Bring the state to where it was after ``step``, from the closest state before it.

        Raises:
            InputError: that is not in the run, or cannot be reached.
        """
        if step not in self.recorded.checkpoints:
            self.recorded.require_step(step)
        self._set_out(step)
        stops = max(1, -(-(step - self.state.step) // STOPS))
        begun = self.state.step
        while self.state.step < step:
            try:
                self.told(self.state.step - begun, step - begun)
            except BaseException:  # the journey is ended, perhaps to be resumed: nothing is replayed twice
                if self.state.step > begun:
                    self.states.put(Snapshot.of(self.state), self.proof)
                raise
            self.advance()
            if (self.state.step - begun) % stops == 0 or self.state.step == step:
                self.states.put(Snapshot.of(self.state), self.proof)
        return self.state

    def advance(self, read_gradient: GradientReader | None = None) -> StepResult:
        """Make the next update, and compare it with the record; ``read_gradient`` as in ``update_step``."""
        era = self.enter(self.state.step + 1)
        train, device = era.plan.settings.train, era.plan.device
        result = make_step(era.state, era.objective, train, device, read_gradient=read_gradient)
        self.compare(result)
        return result

    def compare(self, result: StepResult) -> None:
        """Hold the step that was just made against the record."""
        step, recorded = self.state.step, self.recorded
        loss, grad_norm = float(result.loss), float(result.grad_norm)
        told = recorded.checksums.get(step)
        seen = None if told is None else checksum(self.state.model)
        self.proof = self.proof.after(
            Comparison(
                step,
                (recorded.loss_at(step), loss),
                (recorded.grad_norm_at(step), grad_norm),
                (told, seen),
                step in recorded.skipped,
            )
        )

    def enter(self, step: int) -> Era:
        """Have the parts ready with which ``step`` was made; the state stays where it is."""
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
        plan = plan_on(self.data, settings)
        state = initial_state(plan)
        state.micro_batch_rows, state.revisions = rows, self.recorded.revisions
        objective = make_objective(plan, state)
        wanted: Literal["auto", False] = "auto" if compiled else False
        problem = compile_objective(objective, plan.device, wanted)
        return Era(key, plan, state, objective, compiled=problem is None)

    def _set_out(self, step: int) -> None:
        """Bring the state to the closest one that is known, and not beyond ``step``."""
        near = self.states.newest_up_to(step)
        checkpoints = [there for there in self.recorded.checkpoints if there <= step]
        if near is not None and near[0].step >= max(checkpoints, default=0):
            near[0].restore(self.enter(max(1, near[0].step)).state)
            self.state.revisions = self.recorded.revisions  # there may be more since it was kept
            self.proof = near[1]
            return
        checkpoint = self._newest_whole(checkpoints)
        folder = checkpoint.folder
        # Its device is chosen first: the settings are those of the update that led to it, or of the first.
        state = self.enter(max(1, checkpoint.step)).state
        if load_config(folder) != self.era.plan.model:
            raise InputError(
                f"{folder} holds another network than the run's settings: restore one of the two"
            )
        load_state(checkpoint, state)
        state.revisions = self.recorded.revisions
        machine = describe_machine(self.era.plan.device)
        session = self.recorded.session_at(step)
        self.proof = Proof(checkpoint.step, machine_differences(session, machine, self.era.compiled), ())
        self.states.put(Snapshot.of(state), self.proof)

    def _newest_whole(self, steps: list[int]) -> Checkpoint:
        """The newest checkpoint of ``steps`` whose files are as they were written.

        Raises:
            InputError: none is; the newest one's damage is told.
        """
        damage: InputError | None = None
        for step in sorted(steps, reverse=True):
            try:
                return verify_checkpoint(self.recorded.checkpoints[step])
            except InputError as error:
                damage = damage or error
        raise damage or InputError(f"{self.recorded.run.path} has no checkpoint to begin with")
