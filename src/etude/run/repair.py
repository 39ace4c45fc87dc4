"""Check a run before it resumes: compare it with what its checkpoints were saved with, and restore the tokenizer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.config import Resolved
from etude.errors import InputError
from etude.files import hash_file, write_atomic
from etude.messages import command
from etude.run.checkpoints import Checkpoint, checkpoint_folders, list_checkpoints
from etude.run.folder import RunFolder
from etude.run.provenance import (
    ACCEPTED,
    accepted_entry,
    expected_files,
    log_damage,
    newest_own_checkpoint,
    require_log,
)
from etude.untrusted import readable

ACCEPT_FLAG = "--accept-damaged-record"
Report = Callable[[str], object]
"""Callback for messages to the user, one for each repair."""


def repair_run(
    run: RunFolder, settings: Resolved, manifest: dict[str, Any], report: Report, *, accept_record: bool
) -> None:
    """Compare a run with its newest checkpoint, and restore damaged files of the tokenizer from checkpoints.

    With ``accept_record`` the readable lines of a damaged metrics.jsonl or samples.jsonl are accepted, and the manifest
    records this; the damaged file is set aside. Requires the lock of the run.

    Raises:
        InputError: something differs and cannot be restored.
        EtudeError: a file cannot be written.
    """
    checkpoint = None
    if checkpoint_folders(run.checkpoints):
        checkpoint, _ = newest_own_checkpoint(run, settings, manifest)
    for name, expected in expected_files(checkpoint, manifest).items():
        if name.startswith("tokenizer/"):
            _restore_tokenizer_file(run, name.removeprefix("tokenizer/"), expected, report)
    if checkpoint is not None:
        if accept_record:
            _accept_record(run, manifest, checkpoint, report)
        require_record(run, manifest, checkpoint)


def _restore_tokenizer_file(run: RunFolder, name: str, expected: str, report: Report) -> None:
    """Restore a file of the tokenizer, unless it is intact, from the newest checkpoint that has a good copy."""
    file = run.tokenizer / name
    if _hash(file) == expected:
        return
    problem = f"{file} is {'damaged or was edited' if os.path.lexists(file) else 'missing'}"
    for folder in reversed(list_checkpoints(run.checkpoints)):
        if _hash(folder / name) == expected:
            kept = f"; the previous file is kept as {run.set_aside(file)}" if os.path.lexists(file) else ""
            write_atomic(file, (folder / name).read_bytes())
            report(f"{problem}: it was restored from {folder}{kept}")
            return
    raise InputError(f"{problem}, and no checkpoint of the run has a good copy: restore it")


def require_record(
    run: RunFolder, manifest: dict[str, Any], checkpoint: Checkpoint, instead: str | None = None
) -> None:
    """Raise InputError if a log does not start with the lines that it had when ``checkpoint`` was saved.

    The message ends with ``instead``, a command to which ``--accept-damaged-record`` is added. Default: resume the run.
    """
    instead = instead or f"resume without it:  {command('train', '--resume', run.path)}"
    for log in run.logs.values():
        require_log(
            log,
            checkpoint,
            manifest,
            f"{instead} {ACCEPT_FLAG}  (the weights are not affected, and the damaged file is kept)",
        )


def _accept_record(run: RunFolder, manifest: dict[str, Any], checkpoint: Checkpoint, report: Report) -> None:
    """Keep only the readable lines of damaged logs up to ``checkpoint``, and record this in the manifest."""
    for log in run.logs.values():
        problem = log_damage(log, checkpoint, manifest)
        if problem is None:
            continue
        kept = ""
        if os.path.lexists(log.path):
            kept = f"; the previous file is kept as {run.set_aside(log.path, copy=log.path.is_file())}"
        log.drop_after(checkpoint.step)
        manifest.setdefault(ACCEPTED, []).append(accepted_entry(log, checkpoint.step))
        run.write_manifest(manifest)
        report(f"{log.path} {problem}: its readable lines are accepted, and the manifest records this{kept}")


def _hash(file: Path) -> str | None:
    """Return the hash of a file; None if it is missing, or the disk cannot read it.

    Raises:
        Unreadable: this account may not read it, so its content is unknown and must not count as damaged.
    """
    with readable(file):
        try:
            return hash_file(file) if file.is_file() else None
        except PermissionError:
            raise
        except OSError:
            return None
