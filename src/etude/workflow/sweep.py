"""``etude sweep``: train a family of sizes by seeds, evaluate every checkpoint, predict the largest size beforehand.

Each member is trained, and then evaluated, by processes of its own. So a member that crashes does not affect the
others; a stopped sweep continues where it was; and several machines that share the folder can work on it at once: each
takes the next unlocked member. The largest size waits until the others are finished and its loss is predicted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from etude.config import NO_BASE, Settings, with_values
from etude.emergence.sweep_law import predict_largest, print_outcome
from etude.emergence.sweep_plan import Member, SweepPlan, plan_family
from etude.errors import EtudeError, InputError
from etude.evaluate.questions import questions_for, suites_for
from etude.files import file_lock
from etude.messages import command
from etude.run import RunFolder
from etude.run.settings import read_settings
from etude.show.lines import format_duration
from etude.train.run_text import text_with_progress
from etude.train.stop_requests import STOPPED

POLL_SECONDS = 15.0
"""Seconds between two checks for a free member, while other processes hold all that are left."""


@dataclass(frozen=True)
class SweepRequest:
    """The options of a new sweep."""

    num_sizes: int
    num_seeds: int
    seconds: float  # for the whole sweep
    suites: tuple[str, ...]  # of probes; empty: those that fit the text
    num_items: int  # of each probe
    name: str


def begin(settings: Settings, request: SweepRequest, console: Console) -> None:
    """Plan a sweep, write the plan to its folder, and work on it.

    Raises:
        InputError: the name is taken, the time too short, or the settings fit no family.
        EtudeError: members failed.
    """
    began = time.monotonic()
    if settings.model.base != NO_BASE:
        raise InputError(
            "a sweep trains networks of several sizes from random weights, and a base model has one size: leave out "
            "model.base, or type  etude train TEXT --from MODEL  once for each --set run.seed=N"
        )
    folder = RunFolder.new(Path(settings.run.folder), request.name).path
    if settings.data.seed == "auto":  # every seed of the family reads the same text
        settings = with_values(settings, {"data.seed": settings.run.seed})
    data = text_with_progress(settings, console)
    suites = request.suites or suites_for(settings)
    seeds = range(settings.run.seed, settings.run.seed + request.num_seeds)
    with console.status("making the probes, and timing each size on this machine"):
        members, chosen, tokens, questions = plan_family(
            data,
            settings,
            request.num_sizes,
            seeds,
            request.seconds - (time.monotonic() - began),
            lambda context: questions_for(data, suites, request.num_items, context),
        )
    settings_by_name = {
        member.name: with_values(
            chosen[member.name], {"run.folder": str(folder), "run.name": member.name, "run.seed": member.seed}
        )
        for member in members
    }
    plan = SweepPlan(folder, tokens, suites, request.num_items, questions.hash, tuple(members))
    plan.write(settings_by_name)
    total = sum(member.seconds for member in members)
    console.print(
        f"{len(plan.sizes)} sizes by {request.num_seeds} seeds, {tokens:,} tokens each: about "
        f"{format_duration(total)}, including the probes at every checkpoint; stop it at any time and continue with "
        f"`{command('sweep', '--resume', folder)}`",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    work(plan, console)


def resume(folder: Path, console: Console) -> None:
    """Continue a stopped sweep, or work on one beside other processes and machines.

    Raises:
        InputError: there is no sweep in ``folder``.
        EtudeError: members failed.
    """
    work(SweepPlan.load(folder), console)


def work(plan: SweepPlan, console: Console) -> None:
    """Train and evaluate members until all are done.

    Raises:
        EtudeError: a member failed. All members that do not depend on it are done first.
    """
    failed: dict[str, str] = {}
    while True:
        member = next(_to_do(plan, failed), None)
        if member is None:
            if failed or not _is_incomplete(plan):
                break
            time.sleep(POLL_SECONDS)  # other processes work on the remaining members
            continue
        if member in plan.largest:
            predict_largest(plan, console)
        problem = _do(plan, member, console)
        if problem:
            failed[member.name] = problem
            console.print(f"{member.name}: {problem}", markup=False, highlight=False)
    if failed:
        raise EtudeError(
            f"{len(failed)} of {len(plan.members)} runs failed ({', '.join(failed)}): see their .log in "
            f"{plan.progress}, and continue with `{command('sweep', '--resume', plan.folder)}`"
        )
    print_outcome(plan, console)


def is_trained(plan: SweepPlan, member: Member) -> bool:
    """Return whether the run of the member is finished."""
    return _state(plan, member) == "finished"


def is_done(plan: SweepPlan, member: Member) -> bool:
    """Return whether the member is trained and evaluated."""
    return is_trained(plan, member) and _evaluated_marker(plan, member).is_file()


def _to_do(plan: SweepPlan, failed: dict[str, str]) -> Iterator[Member]:
    """Yield the members that can be worked on now. The largest size follows once all others are trained."""
    smaller_are_trained = all(is_trained(plan, member) for member in plan.smaller)
    for member in plan.members:
        may_begin = member not in plan.largest or smaller_are_trained
        if may_begin and member.name not in failed and not is_done(plan, member) and _is_free(plan, member):
            yield member


def _is_incomplete(plan: SweepPlan) -> bool:
    return not all(is_done(plan, member) for member in plan.members)


def _do(plan: SweepPlan, member: Member, console: Console) -> str:
    """Train and evaluate a member unless another process does. Returns the problem, empty if there was none."""
    run, begun = plan.folder / member.name, time.monotonic()
    with file_lock(_lock_file(plan, member), wait=False) as lock:
        if lock is None or is_done(plan, member):
            return ""
        if not is_trained(plan, member):
            options = (
                ["--resume", str(run)] if run.exists() else ["--config", str(plan.settings_file(member))]
            )
            problem = _etude(plan, member, lock, ["train", *options, "--no-studio"])
            if problem:
                return problem
        trained = time.monotonic()
        problem = _etude(plan, member, lock, _evaluation(plan, member))
        if problem:
            return problem
        _evaluated_marker(plan, member).touch()
    done = sum(is_done(plan, other) for other in plan.members)
    console.print(
        f"{done} of {len(plan.members)}  {member.name}  {member.num_parameters:,} parameters  trained in "
        f"{format_duration(trained - begun)}, evaluated in {format_duration(time.monotonic() - trained)}",
        markup=False,
        highlight=False,
    )
    return ""


def _etude(plan: SweepPlan, member: Member, lock: int, arguments: Sequence[str]) -> str:
    """Run an ``etude`` command for a member. Returns the last line of its output if it fails, else an empty text.

    The command inherits the lock, so that no other process takes the member if this one is killed.
    """
    log = plan.progress / f"{member.name}.log"
    with log.open("a") as file:
        inherited = () if sys.platform == "win32" else (lock,)
        done = subprocess.run(
            [sys.executable, "-m", "etude", *arguments], stdout=file, stderr=file, pass_fds=inherited
        )
    if done.returncode == STOPPED:
        raise SystemExit(STOPPED)
    if done.returncode == 0:
        return ""
    lines = [line.strip("│ ") for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line[:1].isalnum()), f"ended with {done.returncode}")


def _evaluation(plan: SweepPlan, member: Member) -> list[str]:
    """Return the arguments of ``etude`` that evaluate every checkpoint of a member.

    It uses as many threads as the training, because the plan timed both with them.
    """
    threads = read_settings(plan.settings_file(member)).device.threads
    suites = [argument for suite in plan.suites for argument in ("--suite", suite)]
    options = ["--items", str(plan.num_items), "--expect", plan.probes_hash, "--threads", str(threads)]
    return ["eval", str(plan.folder / member.name), "--steps", "all", *suites, *options]


def _lock_file(plan: SweepPlan, member: Member) -> Path:
    return plan.progress / f"{member.name}.lock"


def _is_free(plan: SweepPlan, member: Member) -> bool:
    with file_lock(_lock_file(plan, member), wait=False) as lock:
        return lock is not None


def _evaluated_marker(plan: SweepPlan, member: Member) -> Path:
    """Return the empty file that exists once every checkpoint of the member is evaluated."""
    return plan.progress / f"{member.name}.examined"


def _state(plan: SweepPlan, member: Member) -> str:
    """Return the state in status.json of the member's run; empty if there is no run yet."""
    try:
        return str(RunFolder.open(plan.folder / member.name).status().get("state", ""))
    except InputError:
        return ""
