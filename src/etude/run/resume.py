"""Take up an existing run: find the checkpoint that it continues from, and cut its logs back to there."""

from __future__ import annotations

from collections.abc import Callable

from etude.errors import InputError
from etude.run.checkpoints import Checkpoint, begun_checkpoints, set_aside_checkpoints_after
from etude.run.folder import RunFolder
from etude.run.follow import newest_events
from etude.run.mending import Report, require_record
from etude.run.provenance import expected_prefix, newest_of
from etude.run.settings import own_settings


def take_up(run: RunFolder, load: Callable[[Checkpoint], None], report: Report) -> Checkpoint | None:
    """Return the newest whole checkpoint, once ``load`` has loaded it and the logs end at its step.

    Returns None for a run that has none yet: it begins at step 0. What a killed process left half-written is removed,
    which only the process that holds the run may do. What does not verify is set aside. ``load`` is called before
    anything is cut, and may raise.

    Raises:
        InputError: no checkpoint verifies, or the record is not the one that it was saved with.
    """
    run.remove_leftovers()
    settings, manifest = own_settings(run)
    checkpoint = None
    if begun_checkpoints(run.checkpoints):
        checkpoint, problems = newest_of(run, settings, manifest)
        require_record(run, manifest, checkpoint)
        load(checkpoint)
        for line in (*problems, *set_aside_checkpoints_after(run.checkpoints, checkpoint.step)):
            report(line)
        report(f"{run.path} continues from step {checkpoint.step}")
    elif _had_checkpoints(run):
        raise InputError(
            f"{run.checkpoints} is empty, and {run.metrics.path} has lines of some: put them back, or start a new run"
        )
    for name, log in run.logs.items():
        if checkpoint is None or checkpoint.step == 0:  # the loop starts over, with what it does at step 0
            log.path.unlink(missing_ok=True)
            continue
        prefix = expected_prefix(checkpoint, manifest, name)
        if prefix is None:
            log.cut_back(checkpoint.step)
        else:
            log.cut_to(prefix)
    return checkpoint


def _had_checkpoints(run: RunFolder) -> bool:
    """Return whether the log has a checkpoint after step 0.

    The line of one at step 0 is there before it is saved: a run that was killed in between starts over.
    """
    step = newest_events(run.metrics.path, ["checkpoint"]).get("checkpoint", {}).get("step", 0)
    return isinstance(step, int) and step > 0
