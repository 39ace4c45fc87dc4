"""Before a run resumes: compare it with what its checkpoints were saved with, and restore what has a good copy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.config import Resolved
from etude.errors import InputError
from etude.files import hash_file, write_atomic
from etude.messages import command
from etude.run.checkpoints import Checkpoint, begun_checkpoints, list_checkpoints
from etude.run.folder import RunFolder
from etude.run.provenance import (
    ACCEPTED,
    accepted_record,
    damage_of_log,
    expected_files,
    newest_of,
    require_log,
)
from etude.untrusted import readable

ACCEPT_FLAG = "--accept-damaged-record"
Report = Callable[[str], object]
"""Receives a line for the user about each thing that was done."""


def mend(
    run: RunFolder, settings: Resolved, manifest: dict[str, Any], report: Report, *, accept_record: bool
) -> None:
    """Compare a run with the newest of its checkpoints, and restore the tokenizer's files from there.

    With ``accept_record`` a damaged metrics.jsonl or samples.jsonl is taken as it is, which the manifest then records;
    the damaged file is kept. Only for the process that holds the run.

    Raises:
        InputError: something differs and has no good copy.
        EtudeError: it cannot be written.
    """
    checkpoint = None
    if begun_checkpoints(run.checkpoints):
        checkpoint, _ = newest_of(run, settings, manifest)
    for name, expected in expected_files(checkpoint, manifest).items():
        if name.startswith("tokenizer/"):
            _mend_file(run, name.removeprefix("tokenizer/"), expected, report)
    if checkpoint is not None:
        if accept_record:
            _accept_record(run, manifest, checkpoint, report)
        require_record(run, manifest, checkpoint)


def _mend_file(run: RunFolder, name: str, expected: str, report: Report) -> None:
    """Restore a file of the tokenizer from the newest checkpoint that has a good copy."""
    file = run.tokenizer / name
    if _hash(file) == expected:
        return
    problem = f"{file} is {'damaged or was edited' if os.path.lexists(file) else 'missing'}"
    for folder in reversed(list_checkpoints(run.checkpoints)):
        if _hash(folder / name) == expected:
            kept = f"; what was there is kept as {run.set_aside(file)}" if os.path.lexists(file) else ""
            write_atomic(file, (folder / name).read_bytes())
            report(f"{problem}: it was restored from {folder}{kept}")
            return
    raise InputError(f"{problem}, and no checkpoint of the run has a good copy: put it back")


def require_record(
    run: RunFolder, manifest: dict[str, Any], checkpoint: Checkpoint, instead: str | None = None
) -> None:
    """Raise InputError where a log does not begin as it did when ``checkpoint`` was saved.

    ``instead`` is what the user may do with ``--accept-damaged-record``, in words; usually to resume with it.
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
    """Keep the readable lines of damaged logs up to ``checkpoint``, and record that in the manifest."""
    for log in run.logs.values():
        problem = damage_of_log(log, checkpoint, manifest)
        if problem is None:
            continue
        kept = ""
        if os.path.lexists(log.path):
            kept = f"; what was there is kept as {run.set_aside(log.path, copy=log.path.is_file())}"
        log.cut_back(checkpoint.step)
        manifest.setdefault(ACCEPTED, []).append(accepted_record(log, checkpoint.step))
        run.write_manifest(manifest)
        report(f"{log.path} {problem}: it is accepted as it is, and the manifest records that{kept}")


def _hash(file: Path) -> str | None:
    """Return the hash of a file; None where there is none, or the disk cannot read it.

    Raises:
        Unreadable: this account may not read it, so nothing is known of its content.
    """
    with readable(file):
        try:
            return hash_file(file) if file.is_file() else None
        except PermissionError:
            raise
        except OSError:
            return None
