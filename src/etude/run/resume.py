"""Prepare an existing run for a resume: choose its checkpoint, and cut its logs back to that step."""

from __future__ import annotations

from collections.abc import Callable

from etude.config import NO_BASE
from etude.errors import InputError
from etude.run.checkpoints import Checkpoint, checkpoint_folders, set_aside_checkpoints_after
from etude.run.folder import RunFolder
from etude.run.follow import newest_events
from etude.run.provenance import expected_prefix, newest_own_checkpoint
from etude.run.repair import Report, require_record
from etude.run.settings import verified_settings


def prepare_resume(run: RunFolder, load: Callable[[Checkpoint], None], report: Report) -> Checkpoint | None:
    """Load the newest good checkpoint with ``load``, cut the logs back to its step, and return it.

    Returns None for a run without checkpoints, which starts at step 0. Checkpoints that do not verify are set aside,
    and leftovers of killed processes are removed. ``load`` may raise: the logs are not cut before it returns. Requires
    the lock of the run.

    Raises:
        InputError: no checkpoint verifies, or the logs are not those that it was saved with.
    """
    run.remove_leftovers()
    settings, manifest = verified_settings(run)
    checkpoint = None
    if checkpoint_folders(run.checkpoints):
        checkpoint, problems = newest_own_checkpoint(run, settings, manifest)
        require_record(run, manifest, checkpoint)
        load(checkpoint)
        for line in (*problems, *set_aside_checkpoints_after(run.checkpoints, checkpoint.step)):
            report(line)
        if checkpoint.step > 0:
            report(f"{run.path} continues from step {checkpoint.step}")
    elif settings.model.base != NO_BASE:  # its first weights are nowhere else in the run
        raise InputError(
            f"{run.checkpoints} has no checkpoints, and the run begins with the one of step 0: restore it, or start a "
            "new run with --from"
        )
    elif _had_checkpoints(run):
        raise InputError(
            f"{run.checkpoints} has no checkpoints, and {run.metrics.path} lists some: restore them, or start a new run"
        )
    for name, log in run.logs.items():
        if checkpoint is None or checkpoint.step == 0:  # the loop logs its evaluation of step 0 again
            log.path.unlink(missing_ok=True)
            continue
        prefix = expected_prefix(checkpoint, manifest, name)
        if prefix is None:  # a checkpoint of the first edition, or a log that the user accepted
            log.drop_after(checkpoint.step)
        else:
            log.truncate_to(prefix)
    return checkpoint


def _had_checkpoints(run: RunFolder) -> bool:
    """Return whether the log has a checkpoint after step 0.

    One at step 0 does not count: its line is written before it is saved, and a run that was killed between the two just
    starts again.
    """
    step = newest_events(run.metrics.path, ["checkpoint"]).get("checkpoint", {}).get("step", 0)
    return isinstance(step, int) and step > 0
