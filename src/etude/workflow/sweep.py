"""``etude sweep``: train a family, ask every checkpoint the same questions, predict the largest before it is trained.

Each member is trained, and then examined, by a process of its own. So a member that dies takes nothing with it; a sweep
that was stopped goes on where it stood; and several machines that share the folder can work on it at once: each takes
the next member that nobody holds. The largest size waits until the others are finished and its loss is predicted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from etude.config import Settings, with_values
from etude.emergence.sweep_law import predict_largest, print_outcome
from etude.emergence.sweep_plan import Member, SweepPlan, plan_family
from etude.errors import EtudeError, InputError
from etude.evaluate.questions import questions_for, suites_for
from etude.files import file_lock
from etude.messages import command
from etude.run import RunFolder
from etude.run.settings import read_settings
from etude.show.lines import format_duration
from etude.workflow.prepare import prepare_data

STOPPED = 75
LOOK_AGAIN_SECONDS = 15.0


@dataclass(frozen=True)
class Asked:
    """What a person wants of a sweep."""

    num_sizes: int
    num_seeds: int
    seconds: float
    suites: tuple[str, ...]
    num_items: int
    name: str


def begin(settings: Settings, asked: Asked, console: Console) -> None:
    """Plan a sweep, write the plan down, and work on it.

    Raises:
        InputError: the name is taken, the time too short, or the settings fit no family.
        EtudeError: members failed.
    """
    began = time.monotonic()
    folder = RunFolder.new(Path(settings.run.folder), asked.name).path
    if settings.data.seed == "auto":  # every seed of the family reads the same text
        settings = with_values(settings, {"data.seed": settings.run.seed})
    data = prepare_data(settings, console)
    suites = asked.suites or suites_for(settings)
    seeds = range(settings.run.seed, settings.run.seed + asked.num_seeds)
    with console.status("making the questions, and timing each size on this machine"):
        members, chosen, tokens, questions = plan_family(
            data,
            settings,
            asked.num_sizes,
            seeds,
            asked.seconds - (time.monotonic() - began),
            lambda context: questions_for(data, suites, asked.num_items, context),
        )
    named = {
        member.name: with_values(
            chosen[member.name], {"run.folder": str(folder), "run.name": member.name, "run.seed": member.seed}
        )
        for member in members
    }
    plan = SweepPlan(folder, tokens, suites, asked.num_items, questions.hash, tuple(members))
    plan.write(named)
    total = sum(member.seconds for member in members)
    console.print(
        f"{len(plan.sizes)} sizes by {asked.num_seeds} seeds, {tokens:,} tokens each: about {format_duration(total)}, "
        f"probes at every checkpoint included; stop it when you like, `{command('sweep', '--resume', folder)}` goes on",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    work(plan, console)


def go_on(folder: Path, console: Console) -> None:
    """Go on with a sweep, or join in.

    Raises:
        InputError: no sweep there.
        EtudeError: members failed.
    """
    work(SweepPlan.load(folder), console)


def work(plan: SweepPlan, console: Console) -> None:
    """Train and examine until every member is trained and examined.

    Raises:
        EtudeError: a member failed; the others that can be done are done first.
    """
    failed: dict[str, str] = {}
    while True:
        member = next(_to_do(plan, failed), None)
        if member is None:
            if failed or not _waits(plan):
                break
            time.sleep(LOOK_AGAIN_SECONDS)  # others are at work on what is left
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
            f"{plan.progress}, and go on with `{command('sweep', '--resume', plan.folder)}`"
        )
    print_outcome(plan, console)


def is_trained(plan: SweepPlan, member: Member) -> bool:
    return _state(plan, member) == "finished"


def is_done(plan: SweepPlan, member: Member) -> bool:
    """Trained and examined."""
    return is_trained(plan, member) and _examined(plan, member).is_file()


def _to_do(plan: SweepPlan, failed: dict[str, str]) -> Iterator[Member]:
    """What can be begun or gone on with now; the largest once all others are trained."""
    smaller_are_trained = all(is_trained(plan, member) for member in plan.smaller)
    for member in plan.members:
        may_begin = member not in plan.largest or smaller_are_trained
        if may_begin and member.name not in failed and not is_done(plan, member) and _is_free(plan, member):
            yield member


def _waits(plan: SweepPlan) -> bool:
    return not all(is_done(plan, member) for member in plan.members)


def _do(plan: SweepPlan, member: Member, console: Console) -> str:
    """Train and examine; what went wrong, if anything did."""
    run, begun = plan.folder / member.name, time.monotonic()
    with file_lock(_lock_file(plan, member), wait=False) as lock:
        if lock is None or is_done(plan, member):
            return ""
        if not is_trained(plan, member):
            words = ["--resume", str(run)] if run.exists() else ["--config", str(plan.settings_file(member))]
            problem = _etude(plan, member, lock, ["train", *words, "--no-studio"])
            if problem:
                return problem
        trained = time.monotonic()
        problem = _etude(plan, member, lock, _examination(plan, member))
        if problem:
            return problem
        _examined(plan, member).touch()
    done = sum(is_done(plan, one) for one in plan.members)
    console.print(
        f"{done} of {len(plan.members)}  {member.name}  {member.num_parameters:,} parameters  trained in "
        f"{format_duration(trained - begun)}, examined in {format_duration(time.monotonic() - trained)}",
        markup=False,
        highlight=False,
    )
    return ""


def _etude(plan: SweepPlan, member: Member, lock: int, words: Sequence[str]) -> str:
    """Run a command of ours, which holds the lock even if this process is killed; its last line where it fails."""
    log = plan.progress / f"{member.name}.log"
    with log.open("a") as file:
        passed_on = () if sys.platform == "win32" else (lock,)
        done = subprocess.run(
            [sys.executable, "-m", "etude", *words], stdout=file, stderr=file, pass_fds=passed_on
        )
    if done.returncode == STOPPED:
        raise SystemExit(STOPPED)
    if done.returncode == 0:
        return ""
    lines = [line.strip("│ ") for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line[:1].isalnum()), f"ended with {done.returncode}")


def _examination(plan: SweepPlan, member: Member) -> list[str]:
    """The words that examine every checkpoint, with the threads of the training: the plan timed both with them."""
    threads = read_settings(plan.settings_file(member)).device.threads
    suites = [word for suite in plan.suites for word in ("--suite", suite)]
    asked = ["--items", str(plan.num_items), "--expect", plan.probes_hash, "--threads", str(threads)]
    return ["eval", str(plan.folder / member.name), "--steps", "all", *suites, *asked]


def _lock_file(plan: SweepPlan, member: Member) -> Path:
    return plan.progress / f"{member.name}.lock"


def _is_free(plan: SweepPlan, member: Member) -> bool:
    with file_lock(_lock_file(plan, member), wait=False) as lock:
        return lock is not None


def _examined(plan: SweepPlan, member: Member) -> Path:
    return plan.progress / f"{member.name}.examined"


def _state(plan: SweepPlan, member: Member) -> str:
    try:
        return str(RunFolder.open(plan.folder / member.name).status().get("state", ""))
    except InputError:
        return ""
