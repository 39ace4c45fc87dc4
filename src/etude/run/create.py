"""Create the folder of a run: of a new one, or of a fork, which begins with the state of another run.

Both are whole before they take their name, so no reader meets a half-made run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.config import Settings, to_toml
from etude.errors import InputError
from etude.files import hash_file, staged_folder, write_atomic
from etude.run.checkpoints import (
    Checkpoint,
    Provenance,
    list_checkpoints,
    read_marker,
    step_of,
    verify_checkpoint,
)
from etude.run.folder import SESSIONS, RunFolder, is_run
from etude.run.provenance import ACCEPTED, FILES, copy_record, files_of, provenance_of
from etude.run.record import RunRecord


@dataclass(frozen=True)
class Origin:
    """Where a fork begins: at a step of another run, its parent.

    Attributes:
        parent: the verified record of the parent.
        write_checkpoint: writes the first checkpoint of the fork into its folder, with what it vouches for.
        same_text: the fork trains on the parent's text. The record up to the step is then its own past.
        accept_record: copy the readable lines of a damaged record.
        details: what the manifest says of the origin, besides the run, the step and its tokens.
    """

    parent: RunRecord
    step: int
    tokens_seen: int
    write_checkpoint: Callable[[RunFolder, Provenance], None]
    same_text: bool = True
    accept_record: bool = False
    details: Mapping[str, Any] | None = None

    def entry(self) -> dict[str, Any]:
        """Return the manifest's entry of the origin."""
        run = str(self.parent.run.path.absolute())
        return {"run": run, "step": self.step, "tokens_seen": self.tokens_seen, **(self.details or {})}

    def checkpoint(self) -> Checkpoint:
        """Return the parent's checkpoint that vouches for the record up to the step: of the step, or the next.

        Raises:
            InputError: it is damaged.
        """
        folders = list_checkpoints(self.parent.run.checkpoints)
        return read_marker(next((there for there in folders if step_of(there) >= self.step), folders[-1]))


def create_run(
    run: RunFolder,
    settings: Settings,
    manifest: Mapping[str, Any],
    fill: Callable[[RunFolder], None],
    origin: Origin | None = None,
) -> None:
    """Create the folder of ``run``, whole: tokenizer, ladder, settings, manifest, and what a fork has from its origin.

    ``fill`` writes the tokenizer and the ladder into the folder that it is given. The ``manifest`` gains the hashes of
    all files, and the origin.

    Raises:
        InputError: another process has taken the name meanwhile, or the record of the parent is damaged.
        EtudeError: the folder cannot be written.
    """
    with staged_folder(run.path, replace=False) as staging:
        made = RunFolder(staging)
        fill(made)
        write_atomic(made.settings_file, to_toml(settings))
        content = {**manifest, "settings_hash": hash_file(made.settings_file), FILES: files_of(made)}
        if origin is None:
            made.write_manifest(content)
            return
        if origin.same_text:
            parent = origin.parent
            copy_record(
                parent.run,
                parent.manifest,
                origin.checkpoint(),
                made,
                origin.step,
                accept=origin.accept_record,
            )
        made.write_manifest({**content, "parent": origin.entry()})
        origin.write_checkpoint(made, provenance_of(made.read_manifest(), made.logs))


def past_manifest(parent: RunRecord, step: int) -> dict[str, Any]:
    """Return the manifest of a fork at ``step`` that shares its past with its parent: later entries are dropped."""
    return {**parent.manifest, SESSIONS: parent.sessions_before(step + 1), "changes": [], ACCEPTED: []}


def find_origin(text: str) -> tuple[RunRecord, Checkpoint]:
    """Return the verified record and the verified checkpoint of ``RUN@STEP``, or the newest checkpoint of ``RUN``.

    Raises:
        InputError: there is no such run or checkpoint, or it is damaged.
    """
    path, _, step = text.rpartition("@")
    if not path or is_run(Path(text)):  # a folder whose name has an @
        path, step = text, ""
    record = RunRecord.open(Path(path)).verified()
    folders = record.checkpoints
    if not folders:
        raise InputError(f"{record.run.path} has no checkpoint yet: train it for a while first")
    if step and (not step.isdecimal() or int(step) not in folders):
        choice = ", ".join(map(str, list(folders)[-12:]))
        raise InputError(f"{record.run.path} has no checkpoint of step {step}: choose one of {choice}")
    return record, verify_checkpoint(folders[int(step) if step else max(folders)])
