"""Before a run resumes: whether it is what its checkpoints were saved with. What has a good copy is restored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import Settings
from etude.errors import InputError
from etude.files import hash_file, write_atomic
from etude.messages import command
from etude.run import JsonLines, RunFolder
from etude.show.lines import print_line
from etude.train.checkpoint import Checkpoint, begun_checkpoints, list_checkpoints
from etude.train.provenance import (
    ACCEPTED,
    accepted_record,
    damage_of_log,
    expected_files,
    logs_of,
    newest_of,
)
from etude.untrusted import readable

ACCEPT_FLAG = "--accept-damaged-record"


def mend(
    run: RunFolder, settings: Settings, manifest: dict[str, Any], console: Console, *, accept_record: bool
) -> None:
    """Compare a run with the newest of its checkpoints, and restore the tokenizer's files from there.

    With ``accept_record`` a damaged metrics.jsonl or samples.jsonl is taken as it is, which the manifest then says; the
    damaged file is kept. Only for the process that holds the run.

    Raises:
        InputError: something differs and has no good copy.
        EtudeError: it cannot be written.
    """
    checkpoint = None
    if begun_checkpoints(run.checkpoints):
        checkpoint, _ = newest_of(run, settings, manifest)
    for name, expected in expected_files(checkpoint, manifest).items():
        if name.startswith("tokenizer/"):
            _mend_file(run, name.removeprefix("tokenizer/"), expected, console)
    if checkpoint is not None:
        require_record(run, manifest, checkpoint, console, accept=accept_record)


def _mend_file(run: RunFolder, name: str, expected: str, console: Console) -> None:
    """Restore a file of the tokenizer from the newest checkpoint that has it as it was."""
    file = run.tokenizer / name
    if _hash(file) == expected:
        return
    problem = f"{file} is {'damaged or was edited' if os.path.lexists(file) else 'missing'}"
    for folder in reversed(list_checkpoints(run.checkpoints)):
        if _hash(folder / name) == expected:
            kept = f"; what was there is kept as {run.set_aside(file)}" if os.path.lexists(file) else ""
            write_atomic(file, (folder / name).read_bytes())
            print_line(console, f"{problem}: it was restored from {folder}{kept}")
            return
    raise InputError(f"{problem}, and no checkpoint of the run has a good copy: put it back")


def require_record(
    run: RunFolder,
    manifest: dict[str, Any],
    checkpoint: Checkpoint,
    console: Console,
    *,
    accept: bool = False,
) -> None:
    """See that the logs begin as they did when ``checkpoint`` was saved.

    With ``accept`` what they hold up to its step is taken instead, and the manifest says so.

    Raises:
        InputError: one does not.
    """
    for log in logs_of(run).values():
        problem = damage_of_log(log, checkpoint, manifest)
        if problem is None:
            continue
        if not accept:
            raise _refused(
                log, problem, checkpoint, f"resume without it:  {command('train', '--resume', run.path)}"
            )
        kept = ""
        if os.path.lexists(log.path):
            kept = f"; what was there is kept as {run.set_aside(log.path, copy=log.path.is_file())}"
        log.cut_back(checkpoint.step)
        manifest.setdefault(ACCEPTED, []).append(accepted_record(log, checkpoint.step))
        run.write_manifest(manifest)
        print_line(console, f"{log.path} {problem}: it is accepted as it is, which the manifest says{kept}")


def require_whole_record(run: RunFolder, manifest: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Raises InputError when a fork at ``checkpoint`` would copy a damaged record."""
    for log in logs_of(run).values():
        problem = damage_of_log(log, checkpoint, manifest)
        if problem is not None:
            raise _refused(log, problem, checkpoint, "fork with what is left of it, with ")


def _refused(log: JsonLines, problem: str, checkpoint: Checkpoint, otherwise: str) -> InputError:
    return InputError(
        f"{log.path} {problem}: it is not the record that {checkpoint.folder.name} was saved with. Put it back, or "
        f"{otherwise} {ACCEPT_FLAG}  (the weights are not affected, and the damaged file is kept)"
    )


def _hash(file: Path) -> str | None:
    """Of a file; None where there is none, or the disk cannot read it.

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
