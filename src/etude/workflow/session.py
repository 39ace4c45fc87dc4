"""Begin a session of a run: test the device, compile, call the other processes, record the session in the manifest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from etude.config import Resolved
from etude.device import describe_machine, peak_memory_bytes, reset_peak_memory
from etude.diagnose.machine.self_test import require_sound
from etude.errors import EtudeError, InputError
from etude.plan.measuring import note_compiled_plan
from etude.plan.pace import Deadline
from etude.plan.plan import Plan
from etude.run import RunFolder
from etude.run.checkpoints import checkpoint_name
from etude.run.folder import SESSIONS
from etude.run.provenance import FILES, file_hashes
from etude.run.settings import record_changes
from etude.show.lines import print_line
from etude.show.phases import Phases
from etude.train.compilation import compile_objective
from etude.train.divided import make_mesh
from etude.train.loop import TrainState
from etude.train.objectives import Objective
from etude.train.parallel import Ranks
from etude.train.pieces_snapshot import Writers
from etude.train.schedule import last_step
from etude.workflow.start import with_absolute_paths


@dataclass(frozen=True)
class Invitation:
    """The job that the first process sends to the others: all that they need to reach the same state."""

    settings: Resolved
    data_fingerprint: str
    run: Path
    checkpoint: Path | None
    compile: bool | Literal["auto"]


@dataclass(frozen=True)
class Division:
    """What the first process sends before the job of a run that is divided: how many processes share one copy."""

    shard: int
    kind: str  # of device


def divide_ranks(ranks: Ranks, division: Division | None) -> None:
    """Divide the network among the ranks, if it is to be divided. The first process sends the division first."""
    if division is None:
        return
    if ranks.leads:
        ranks.send_job(division, last=False)
    ranks.mesh = make_mesh(division.kind, ranks.count, division.shard)
    ranks.writers = Writers.of(ranks.mesh, ranks.rank)


def receive_invitation(ranks: Ranks) -> Invitation | None:
    """Return the job that the first process sends, once the network is divided as it says; None where it has none."""
    job: Invitation | Division | None = ranks.receive_job()
    if isinstance(job, Division):
        divide_ranks(ranks, job)
        return receive_invitation(ranks)
    return job


def division_of(plan: Plan) -> Division | None:
    """Return how the plan divides its network among processes; None if each has a whole copy."""
    return None if plan.shard == 1 else Division(plan.shard, plan.device.kind)


def begin_session(
    plan: Plan,
    run: RunFolder,
    state: TrainState,
    objective: Objective,
    console: Console,
    ranks: Ranks,
    deadline: Deadline | None = None,
    phases: Phases | None = None,
) -> None:
    """Test the device, call the other ranks, compile, and record this session in the manifest.

    A resumed run is compiled if its last session was: otherwise its rounding would change. A new run is compiled where
    that works and its ``deadline`` leaves time for it.

    Raises:
        EtudeError: the run was compiled before and compilation fails on this machine, or the device computes wrongly.
    """
    if state.step >= last_step(objective.num_steps, state.revisions):
        return
    recorded = run.read_manifest()
    recorded.setdefault(FILES, file_hashes(run))  # a run of the first edition has none
    sessions = recorded.setdefault(SESSIONS, [])
    if not isinstance(sessions, list) or not all(isinstance(s, dict) and "compiled" in s for s in sessions):
        raise InputError(f"{run.manifest_file} is damaged (its sessions are not valid): restore it")
    wanted: bool | Literal["auto"] = plan.settings.device.compile
    if ranks.divided:
        wanted = False
    elif sessions and state.step > 0:
        wanted = bool(sessions[-1]["compiled"])
    _note_conditions(plan, ranks, console)
    if phases is not None:
        phases.note("checking that this device computes rightly")
    optimizer = plan.settings.train.optimizer
    errors = require_sound(plan.device, optimizer).errors
    if plan.device.dtype == "bf16":  # its wide tolerances hide small faults, so test fp32 as well
        require_sound(replace(plan.device, dtype="fp32"), optimizer)
    newest = run.checkpoints / checkpoint_name(state.step)
    checkpoint = newest if newest.is_dir() else None
    ranks.send_job(Invitation(plan.settings, plan.data.fingerprint, run.path, checkpoint, wanted))
    limit = None if deadline is None or wanted is True else deadline.compile_until - time.monotonic()
    if phases is not None and wanted is not False:
        phases.note("compiling" if limit is None else f"compiling, for {max(0.0, limit):.0f} s at most")
    problem = compile_objective(objective, plan.device, wanted, ranks, limit)
    if problem is None:
        note_compiled_plan(plan)
    elif wanted == "auto":
        console.print(f"training without torch.compile ({problem})", markup=False)
    if phases is not None:
        phases.note("training")
    entry = session_entry(plan, state.step, compiled=problem is None, processes=ranks.count, self_test=errors)
    sessions.append(entry | ({"shard": plan.shard} if ranks.divided else {}))
    record_changes(run, recorded, with_absolute_paths(plan.settings, run), state.step)


def _note_conditions(plan: Plan, ranks: Ranks, console: Console) -> None:
    """Print what the user should know of how this session computes."""
    if ranks.divided:
        print_line(
            console,
            f"the network is divided among {plan.shard} processes: it is not compiled, and no summaries are recorded",
        )
    if plan.device.dtype == "bf16" and not plan.device.fast_bf16:
        console.print(
            f"this run multiplies in bf16, which is not known to be fast on this {plan.device.kind} and may be a "
            "hundred times slower than fp32: a fork of it, or a new run, may take --set device.dtype=fp32",
            highlight=False,
            soft_wrap=True,
        )
    if plan.scope is not None:
        print_line(console, f"losses, bits per byte and n-gram models count only {plan.scope.name}")


def session_entry(
    plan: Plan, step: int, compiled: bool, processes: int, self_test: dict[str, float]
) -> dict[str, Any]:
    """Return the entry of a session in the manifest. ``self_test`` holds the largest errors of the device."""
    return {
        "from_step": step,
        "began": time.time(),
        "compiled": compiled,
        "processes": processes,
        "self_test": self_test,
        "machine": describe_machine(plan.device),
    }


@contextmanager
def memory_noted(plan: Plan, run: RunFolder) -> Iterator[None]:
    """Note the peak memory of the session in the manifest when the block ends, beside the prediction."""
    reset_peak_memory(plan.device)
    before, sessions = peak_memory_bytes(plan.device), run.read_manifest().get(SESSIONS)
    try:
        yield
    finally:
        with suppress(EtudeError):  # a failure here must neither end the run nor hide the run's own error
            recorded = run.read_manifest()
            if recorded.get(SESSIONS) != sessions:
                recorded[SESSIONS][-1]["memory"] = {
                    "predicted_bytes": plan.memory.total,
                    "bytes_before": before,
                    "peak_bytes": peak_memory_bytes(plan.device),
                }
                run.write_manifest(recorded)
