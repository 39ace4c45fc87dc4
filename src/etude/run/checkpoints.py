"""Checkpoints on disk: their names, commit markers, verification and pruning.

``step-00001000/`` is a Hugging Face model folder (:mod:`etude.model.folder`) with two more files:
``optimizer.safetensors``, the state of the update rules by parameter name, and ``train_state.json``. The latter is the
commit marker. It is written last, and holds the checksums of the other files, hashes of the run and its logs
(:mod:`etude.run.provenance`), and the digest of its own content. The folder is written under a temporary name and then
renamed, so a folder with the name of a checkpoint and a valid marker is complete. The model card (README.md) has no
checksum: the user may edit it. A checkpoint that does not verify is set aside, never removed.

A run with an adapter has the base alone at step 0. Its later checkpoints hold the adapter alone, in PEFT's format
(:mod:`etude.model.adapter_folder`).

:mod:`etude.train.checkpoint` saves and loads the tensors.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.files import SEALED_SCHEMA, STAGING_PREFIX, hash_file, read_object, read_sealed, write_sealed
from etude.messages import command, quoted
from etude.run.folder import RunFolder, is_run
from etude.run.log import Prefix
from etude.run.published_history import PublishedHistory
from etude.run.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BASE_FOLDER,
    FIRST_CHECKPOINT,
    OPTIMIZER_FILE,
    OPTIMIZER_INDEX,
    WEIGHTS,
    WEIGHTS_INDEX,
    base_folder,
    is_adapted,
)
from etude.untrusted import Unreadable, inside, readable, shown

MARKER = "train_state.json"
CARD = "README.md"
MODEL_FILES = frozenset(
    {"config.json", "generation_config.json", CARD, WEIGHTS, WEIGHTS_INDEX, ADAPTER_CONFIG, ADAPTER_WEIGHTS}
)
"""The files of a model folder besides its tokenizer."""
EARLY_STEPS = frozenset([0, *(2**power for power in range(10))])
"""Steps whose checkpoints are never pruned: a model learns fastest at first, so replay needs close starting points."""
_NAME = re.compile(r"step-(\d{8,15})")
_SHARD = r"-\d{5}-of-\d{5}\.safetensors"
_STATE_SHARD, _WEIGHTS_SHARD = re.compile("optimizer" + _SHARD), re.compile("model" + _SHARD)


@dataclass(frozen=True)
class Provenance:
    """Hashes of the run and of the logs that a checkpoint was saved with; both empty in the first edition."""

    run: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the run, by file (see :func:`etude.run.provenance.run_hashes`)."""
    logs: Mapping[str, Prefix] = field(default_factory=dict)
    """The length and hash of each log just before the checkpoint was saved, by file."""

    def tokenizer_hashes(self) -> dict[str, str]:
        """Return the hashes of the tokenizer's files, by their names in the tokenizer folder."""
        prefix = "tokenizer/"
        return {
            name.removeprefix(prefix): value for name, value in self.run.items() if name.startswith(prefix)
        }


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint on disk."""

    folder: Path
    step: int
    tokens_seen: int
    wall_time: float
    revisions: tuple[tuple[int, int], ...]  # see etude.train.schedule.Revision
    skipped: int  # consecutive skipped steps up to this one
    micro_batch_rows: int | None
    checksums: dict[str, str]
    provenance: Provenance

    @property
    def has_optimizer_state(self) -> bool:
        """Whether training can continue from it bit for bit. Old checkpoints of large models hold weights alone."""
        return any(map(is_optimizer_file, self.checksums))

    @property
    def ended_early(self) -> bool:
        """Whether ``train.stop_early`` ended the run here."""
        return self.revisions[-1:] == ((self.step, self.step),)


def is_optimizer_file(name: str) -> bool:
    """Return whether a file of a checkpoint belongs to the optimizer's state, which may be in several files."""
    return name in (OPTIMIZER_FILE, OPTIMIZER_INDEX) or _STATE_SHARD.fullmatch(name) is not None


def is_model_file(name: str) -> bool:
    """Return whether a file of a checkpoint belongs to the model folder and not to its tokenizer."""
    return name in MODEL_FILES or _WEIGHTS_SHARD.fullmatch(name) is not None


def require_optimizer_state(checkpoint: Checkpoint) -> None:
    """Raise InputError for a checkpoint from which training cannot continue bit for bit."""
    if not checkpoint.has_optimizer_state:
        raise InputError(
            f"{checkpoint.folder} holds weights without the optimizer's state: begin a new run with --from "
            f"{quoted(checkpoint.folder)}, or choose a checkpoint at a multiple of train.state_every"
        )


def checkpoint_name(step: int) -> str:
    """Return the name of the folder for the checkpoint of ``step``."""
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """Return the step in the name of a checkpoint folder."""
    match = _NAME.fullmatch(folder.name)
    assert match is not None, folder
    return int(match.group(1))


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return the folders that have a commit marker, oldest first. Nothing is verified."""
    if not checkpoints.is_dir():
        return []
    committed = [p for p in checkpoints.iterdir() if _NAME.fullmatch(p.name) and (p / MARKER).is_file()]
    return sorted(committed, key=step_of)


def checkpoint_of_step(run: Path, step: str, folders: Mapping[int, Path]) -> Path:
    """Return the folder of the checkpoint of ``step``, as the user typed it. ``folders`` are those of ``run``, by step.

    Raises:
        InputError: there is no such checkpoint; the message lists the newest ones.
    """
    if not step.isdecimal() or int(step) not in folders:
        choice = ", ".join(map(str, list(folders)[-12:]))
        raise InputError(f"{run} has no checkpoint of step {shown(step)}: choose one of {choice}")
    return folders[int(step)]


def checkpoint_folders(checkpoints: Path) -> list[Path]:
    """Return all folders that are named like a checkpoint, with or without a commit marker, oldest first."""
    return sorted((p for p in checkpoints.glob("step-*") if _NAME.fullmatch(p.name)), key=step_of)


def write_marker(folder: Path, content: Mapping[str, Any], provenance: Provenance) -> None:
    """Write the commit marker of ``folder``: ``content`` (counters and checksums), ``provenance``, and their digest."""
    hashes = {"run": dict(provenance.run), "logs": {n: asdict(p) for n, p in provenance.logs.items()}}
    write_sealed(folder / MARKER, {**content, **hashes, "schema": SEALED_SCHEMA})


def copy_checkpoint(
    checkpoint: Checkpoint, checkpoints: Path, provenance: Provenance, *, keep_revisions: bool = True
) -> None:
    """Copy a checkpoint into the folder ``checkpoints`` of another run, with the ``provenance`` of that run.

    Without ``keep_revisions`` the copy drops the changes that a time budget made to the planned number of steps. The
    base of an adapted network is linked beside the copy, or copied to another disk.
    """
    copy = checkpoints / checkpoint.folder.name
    shutil.copytree(checkpoint.folder, copy)
    if is_adapted(copy):
        copy_base(base_folder(checkpoint.folder), checkpoints)
    marker = read_object(copy / MARKER)
    write_marker(copy, marker if keep_revisions else marker | {"revisions": []}, provenance)


def copy_base(base: Path, checkpoints: Path) -> None:
    """Link the base of a run with an adapter beside the ``checkpoints`` of a fork, or copy it to another disk."""
    shutil.copytree(base, checkpoints / BASE_FOLDER, copy_function=_link_weights)


def _link_weights(source: str, target: str) -> None:
    """Link a weight file, and copy any other: an edit of one must not change the others."""
    if source.endswith(".safetensors"):
        with suppress(OSError):  # another disk, or a file system without links
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def base_of_run(checkpoints: Path) -> Path:
    """Return the folder of the base of a run with an adapter: its checkpoint of step 0, or a fork's copy of it."""
    first = checkpoints / FIRST_CHECKPOINT
    return first if first.is_dir() else checkpoints / BASE_FOLDER


def verify_base(folder: Path) -> None:
    """Verify the base of the checkpoint in ``folder`` as :func:`verify_checkpoint`, if it holds an adapter."""
    if is_adapted(folder) and ((base := base_folder(folder)) / MARKER).is_file():
        verify_checkpoint(base)


def read_marker(folder: Path) -> Checkpoint:
    """Read the commit marker of ``folder``, and check it against its own digest and the name of the folder.

    Raises:
        Unreadable: this account may not read the marker.
        InputError: the marker is missing, damaged or edited.
    """
    file = folder / MARKER
    marker = read_sealed(file)
    try:
        checksums = {str(name): str(value) for name, value in marker["checksums"].items()}
        step, seen, wall = int(marker["step"]), int(marker["tokens_seen"]), float(marker["wall_time"])
        revisions = tuple((int(at), int(length)) for at, length in marker.get("revisions", ()))
        # "left_out" is the key since the first edition.
        skipped, rows = int(marker.get("left_out", 0)), marker.get("micro_batch_rows")
        rows = None if rows is None else int(rows)
        provenance = _provenance(marker)
        sizes = [prefix.num_bytes for prefix in provenance.logs.values()]
        counts = (step, seen, skipped, rows or 0, *sizes, *(n for revision in revisions for n in revision))
        # A run cannot end before the step at which its length was revised; only the last revision may end it there.
        possible = all(at <= length for at, length in revisions)
        possible = possible and all(at < length for at, length in revisions[:-1])
        if not possible or not all(0 <= count < 2**63 for count in counts) or not 0 <= wall < math.inf:
            raise ValueError("no run can have these counters")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(f"{file} is damaged: use an older checkpoint of the run") from None
    if _NAME.fullmatch(folder.name) and step_of(folder) != step:
        raise InputError(
            f"{file} is damaged or was edited (it holds step {step}, and its folder is named for step "
            f"{step_of(folder)}): use an older checkpoint of the run"
        )
    return Checkpoint(folder, step, seen, wall, revisions, skipped, rows, checksums, provenance)


def _provenance(marker: Mapping[str, Any]) -> Provenance:
    """Return the provenance in a commit marker."""
    logs = {
        str(name): Prefix(int(prefix["num_bytes"]), str(prefix["hash"]))
        for name, prefix in marker.get("logs", {}).items()
    }
    return Provenance({str(name): str(value) for name, value in marker.get("run", {}).items()}, logs)


def verify_checkpoint(folder: Path) -> Checkpoint:
    """Read the commit marker of ``folder``, and check every file against its checksum, except the model card.

    Raises:
        Unreadable: this account may not read a file.
        InputError: the marker is missing, damaged or edited, or a file is missing or differs from its checksum.
    """
    checkpoint = read_marker(folder)
    for name, expected in checkpoint.checksums.items():
        file = inside(folder, name)
        if name == CARD:  # may be edited; markers of the first edition have a checksum of it all the same
            continue
        if not file.is_file():
            raise InputError(f"{file} is missing: {_instead(checkpoint)}")
        try:
            with readable(file):
                current = hash_file(file)
        except OSError as error:
            current = str(error)
        if current != expected:
            raise InputError(f"{file} is damaged: {_instead(checkpoint)}")
    return checkpoint


def _instead(checkpoint: Checkpoint) -> str:
    """Return what to do about a damaged checkpoint, as the end of a message."""
    if checkpoint.step > 0:
        return "use an older checkpoint of the run"
    resume = command("train", "--resume", checkpoint.folder.parent.parent)
    return f"restore it; if the run begins with a base model, {resume} does"


def newest_good_checkpoint(
    checkpoints: Path, check: Callable[[Checkpoint], None] = lambda checkpoint: None
) -> tuple[Checkpoint, list[str]]:
    """Return the newest checkpoint that verifies, and an error message for each newer one that does not.

    ``check`` raises InputError for a checkpoint that does not belong to the run.

    Raises:
        Unreadable: this account may not read a newer checkpoint, which may well be intact.
        InputError: no checkpoint verifies.
    """
    problems: list[str] = []
    for folder in reversed(checkpoint_folders(checkpoints)):
        try:
            checkpoint = verify_checkpoint(folder)
            check(checkpoint)
            return checkpoint, problems
        except Unreadable:
            raise
        except InputError as error:
            problems.append(str(error))
    detail = f" ({problems[0]})" if problems else ""
    raise InputError(f"no whole checkpoint in {checkpoints}{detail}: start the run again with `etude train`")


def is_never_pruned(step: int, every: int) -> bool:
    """Return whether the checkpoint of ``step`` is never pruned: early steps, and multiples of ``every`` unless 0."""
    return step in EARLY_STEPS or (every > 0 and step % every == 0)


def set_aside_checkpoints_after(checkpoints: Path, step: int) -> list[str]:
    """Set aside the checkpoints after ``step``, because the run resumes from ``step``. Return a message for each.

    They did not verify, and would otherwise still count as the newest.
    """
    later = [folder for folder in checkpoint_folders(checkpoints) if step_of(folder) > step]
    return [_set_aside(folder) for folder in later]


def prune_checkpoints(
    checkpoints: Path, keep: int, every: int = 0, state_every: int = 1, spared: Collection[int] = ()
) -> list[str]:
    """Remove old checkpoints and the leftovers of interrupted writes.

    The ``keep`` newest checkpoints stay, those that are never pruned, and those of the steps ``spared``. Of the latter
    two, those at multiples of ``state_every`` keep their optimizer state. A checkpoint that does not verify is set
    aside instead. Returns a message for each of these.
    """
    # The first checkpoint always stays: the first steps are replayed from it. That of a fork is at any step.
    later = [
        folder
        for folder in list_checkpoints(checkpoints)[1:]
        if not is_never_pruned(step_of(folder), every) and step_of(folder) not in spared
    ]
    leftovers, lines = list(checkpoints.glob(f"{STAGING_PREFIX}*")), []
    for folder in later[: max(0, len(later) - keep)]:
        try:
            verify_checkpoint(folder)
        except InputError as error:
            lines.append(f"{error}; {_set_aside(folder)}")
            continue
        # Rename first: if the removal is interrupted, the rest does not look like a checkpoint.
        leftovers.append(folder.rename(folder.with_name(f"{STAGING_PREFIX}{folder.name}-pruned")))
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in list_checkpoints(checkpoints)[1:-keep]:  # replay of a fork starts at its first, at any step
        if step_of(folder) % state_every:
            lines += _drop_optimizer_state(folder)
    return lines


def _drop_optimizer_state(folder: Path) -> list[str]:
    """Remove the optimizer state of an old checkpoint, whose weights stay. Return a message if it does not verify."""
    try:
        checkpoint = read_marker(folder)
        if not checkpoint.has_optimizer_state:
            _remove_optimizer_files(folder)  # of an interrupted removal
            return []
        verify_checkpoint(folder)
    except InputError as error:
        return [f"{error}; {_set_aside(folder)}"]
    marker = read_object(folder / MARKER)
    checksums = marker["checksums"]
    marker["checksums"] = {name: checksums[name] for name in checksums if not is_optimizer_file(name)}
    # The marker first: in between, the checkpoint is whole and has a file too many.
    write_marker(folder, marker, checkpoint.provenance)
    _remove_optimizer_files(folder)
    return []


def _remove_optimizer_files(folder: Path) -> None:
    for file in list(folder.iterdir()):
        if is_optimizer_file(file.name):
            file.unlink()


def _set_aside(folder: Path) -> str:
    """Set a checkpoint aside, and return a message about it."""
    run = RunFolder(folder.parent.parent)
    return f"{folder} does not verify and is set aside as {run.set_aside(folder)}"


def find_checkpoint(path: Path) -> Path:
    """Return the model folder of ``path``: a run or a history (its newest checkpoint), a checkpoint, or a model folder.

    Raises:
        InputError: ``path`` is none of these, or a run without a checkpoint.
    """
    if (path / "config.json").is_file() or (is_adapted(path) and (path / MARKER).is_file()):
        return path
    newest: Sequence[Path] = list_checkpoints(path / "checkpoints")
    if newest:
        return newest[-1]
    if history := PublishedHistory.at(path):
        return list(history.checkpoints.values())[-1]
    problem = "has no checkpoint yet" if is_run(path) else "is not a run or a model folder"
    raise InputError(f"{path} {problem}: `etude runs` lists the existing runs")
