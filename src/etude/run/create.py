"""Create the folder of a new run, or of a fork, which starts from the state of another run.

The folder is completed under a temporary name and then renamed, so no reader sees an incomplete run.
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
    checkpoint_of_step,
    list_checkpoints,
    read_marker,
    require_optimizer_state,
    step_of,
    verify_checkpoint,
)
from etude.run.folder import SESSIONS, RunFolder, is_run
from etude.run.provenance import ACCEPTED, FILES, copy_record, file_hashes, provenance_of
from etude.run.record import RunRecord


@dataclass(frozen=True)
class Origin:
    """The start of a fork: a step of another run, its parent.

    Attributes:
        parent: the verified record of the parent.
        write_checkpoint: writes the first checkpoint of the fork into its folder, with the given provenance.
        same_text: whether the fork trains on the parent's text. Then the parent's logs up to the step are copied.
        accept_record: copy the readable lines of damaged logs, instead of refusing them.
        details: further keys of the manifest's entry.
    """

    parent: RunRecord
    step: int
    tokens_seen: int
    write_checkpoint: Callable[[RunFolder, Provenance], None]
    same_text: bool = True
    accept_record: bool = False
    details: Mapping[str, Any] | None = None

    def entry(self) -> dict[str, Any]:
        """Return the origin as an entry of the fork's manifest."""
        run = str(self.parent.run.path.absolute())
        return {"run": run, "step": self.step, "tokens_seen": self.tokens_seen, **(self.details or {})}

    def checkpoint(self) -> Checkpoint:
        """Return the parent's first checkpoint at or after the step, else its newest.

        It holds the hashes of the logs up to that point, which vouch for the lines that the fork copies.

        Raises:
            InputError: the checkpoint is damaged.
        """
        folders = list_checkpoints(self.parent.run.checkpoints)
        return read_marker(next((folder for folder in folders if step_of(folder) >= self.step), folders[-1]))


def create_run(
    run: RunFolder,
    settings: Settings,
    manifest: Mapping[str, Any],
    fill: Callable[[RunFolder], None],
    origin: Origin | None = None,
    first_checkpoint: Callable[[RunFolder, Provenance], None] | None = None,
) -> None:
    """Create the folder of ``run``: tokenizer, ladder, settings, manifest, and for a fork the logs and a checkpoint.

    ``fill`` writes the tokenizer and the ladder into the folder that it is given. The hashes of all files and the
    origin are added to the ``manifest``. ``first_checkpoint`` writes the checkpoint of step 0 of a run that begins with
    the weights of a base model.

    Raises:
        InputError: another process has taken the name meanwhile, or the logs of the parent are damaged.
        EtudeError: the folder cannot be written.
    """
    with staged_folder(run.path, replace=False) as staging:
        new = RunFolder(staging)
        fill(new)
        write_atomic(new.settings_file, to_toml(settings))
        content = {**manifest, "settings_hash": hash_file(new.settings_file), FILES: file_hashes(new)}
        if origin is None:
            new.write_manifest(content)
            if first_checkpoint is not None:
                first_checkpoint(new, provenance_of(new.read_manifest(), new.logs))
            return
        if origin.same_text:
            parent = origin.parent
            copy_record(
                parent.run,
                parent.manifest,
                origin.checkpoint(),
                new,
                origin.step,
                accept=origin.accept_record,
            )
        new.write_manifest({**content, "parent": origin.entry()})
        # Last: the checkpoint holds hashes of the manifest and the logs.
        origin.write_checkpoint(new, provenance_of(new.read_manifest(), new.logs))


def inherited_manifest(parent: RunRecord, step: int) -> dict[str, Any]:
    """Return the parent's manifest without its later sessions and its changes, for a fork at ``step`` on its text."""
    return {**parent.manifest, SESSIONS: parent.sessions_before(step + 1), "changes": [], ACCEPTED: []}


def find_origin(text: str) -> tuple[RunRecord, Checkpoint]:
    """Return the verified record and checkpoint of ``RUN@STEP``, or of ``RUN`` with its newest checkpoint.

    Raises:
        InputError: the run or the checkpoint does not exist, or is damaged.
    """
    path, _, step = text.rpartition("@")
    if not path or is_run(Path(text)):  # a folder whose name has an @
        path, step = text, ""
    record = RunRecord.open(Path(path)).verified()
    folders = record.checkpoints
    if not folders:
        raise InputError(f"{record.run.path} has no checkpoint yet: train it for a while first")
    newest = folders[max(folders)]
    checkpoint = verify_checkpoint(checkpoint_of_step(record.run.path, step, folders) if step else newest)
    require_optimizer_state(checkpoint)
    return record, checkpoint
