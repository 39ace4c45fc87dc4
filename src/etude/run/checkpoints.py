"""The checkpoints of a run on disk: how they are named, found, verified and pruned.

``step-00001000/`` is a Hugging Face model folder (:mod:`etude.model.folder`) with ``optimizer.safetensors``, the state
of the update rules by parameter name, and ``train_state.json``. That last file is the commit marker: it is written last
and holds their checksums, those of the run and its record (:mod:`etude.run.provenance`), and the digest of
its own content. The folder is filled beside its final name and renamed, so a folder with that name and a matching
marker is whole. Prose (README.md) may be edited: it has no checksum. What does not verify is set aside, never removed.

:mod:`etude.train.checkpoint` saves and loads the tensors.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.files import SEALED_SCHEMA, STAGING_PREFIX, hash_file, read_object, read_sealed, write_sealed
from etude.run.folder import RunFolder, is_run
from etude.run.log import Prefix
from etude.untrusted import Unreadable, inside, readable

MARKER = "train_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
CARD = "README.md"
MODEL_FILES = frozenset(
    {"config.json", "generation_config.json", CARD, "model.safetensors", "model.safetensors.index.json"}
)
"""The files of a model folder besides its tokenizer."""
EARLY_STEPS = frozenset([0, *(2**power for power in range(10))])
"""Always kept once saved: the first steps are the most interesting, and cannot be recorded afterwards."""
_NAME = re.compile(r"step-(\d{8,15})")


@dataclass(frozen=True)
class Provenance:
    """The run and the record that a checkpoint was saved with. Both are empty in checkpoints of the first edition."""

    run: Mapping[str, str] = field(default_factory=dict)
    """Hashes of what the run consists of, by file (see :func:`etude.run.provenance.consists_of`)."""
    logs: Mapping[str, Prefix] = field(default_factory=dict)
    """What each log held when the checkpoint was begun, by file."""

    def of_tokenizer(self) -> dict[str, str]:
        """Return the hashes of the tokenizer's files, by name in their folder."""
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
    left_out: int  # skipped steps in a row, up to this one
    micro_batch_rows: int | None
    checksums: dict[str, str]
    provenance: Provenance


def checkpoint_name(step: int) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """Return the step in a checkpoint folder's name."""
    match = _NAME.fullmatch(folder.name)
    assert match is not None, folder
    return int(match.group(1))


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return the folders of committed checkpoints, oldest first (their checksums are not verified here)."""
    if not checkpoints.is_dir():
        return []
    committed = [p for p in checkpoints.iterdir() if _NAME.fullmatch(p.name) and (p / MARKER).is_file()]
    return sorted(committed, key=step_of)


def begun_checkpoints(checkpoints: Path) -> list[Path]:
    """Return all folders with the name of a checkpoint, also those without a commit marker, oldest first."""
    return sorted((p for p in checkpoints.glob("step-*") if _NAME.fullmatch(p.name)), key=step_of)


def write_marker(folder: Path, content: Mapping[str, Any], provenance: Provenance) -> None:
    """Write the commit marker of ``folder``: counters and checksums, the provenance, and the digest of it all."""
    known = {"run": dict(provenance.run), "logs": {n: asdict(p) for n, p in provenance.logs.items()}}
    write_sealed(folder / MARKER, {**content, **known, "schema": SEALED_SCHEMA})


def copy_checkpoint(
    checkpoint: Checkpoint, checkpoints: Path, provenance: Provenance, *, keep_revisions: bool = True
) -> None:
    """Copy a checkpoint into the folder ``checkpoints`` of another run, where it vouches for ``provenance``.

    Without ``keep_revisions`` the copy forgets the number of steps that the clock made of its run.
    """
    copy = checkpoints / checkpoint.folder.name
    shutil.copytree(checkpoint.folder, copy)
    marker = read_object(copy / MARKER)
    write_marker(copy, marker if keep_revisions else marker | {"revisions": []}, provenance)


def read_marker(folder: Path) -> Checkpoint:
    """Return what the commit marker of ``folder`` says, once it agrees with itself and with the folder's name.

    Raises:
        Unreadable: this account may not read it.
        InputError: it is missing, damaged or edited.
    """
    file = folder / MARKER
    marker = read_sealed(file)
    try:
        checksums = {str(name): str(value) for name, value in marker["checksums"].items()}
        step, seen, wall = int(marker["step"]), int(marker["tokens_seen"]), float(marker["wall_time"])
        revisions = tuple((int(at), int(length)) for at, length in marker.get("revisions", ()))
        left_out, rows = int(marker.get("left_out", 0)), marker.get("micro_batch_rows")
        rows = None if rows is None else int(rows)
        provenance = _provenance(marker)
        sizes = [prefix.num_bytes for prefix in provenance.logs.values()]
        counts = (step, seen, left_out, rows or 0, *sizes, *(n for revision in revisions for n in revision))
        forward = all(at <= length for at, length in revisions)
        forward = forward and all(at < length for at, length in revisions[:-1])
        if not forward or not all(0 <= count < 2**63 for count in counts) or not 0 <= wall < math.inf:
            raise ValueError("not where a run can be")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(f"{file} is damaged: use an older checkpoint of the run") from None
    if _NAME.fullmatch(folder.name) and step_of(folder) != step:
        raise InputError(
            f"{file} is damaged or was edited (it says step {step}, in the folder of another): use an older checkpoint "
            "of the run"
        )
    return Checkpoint(folder, step, seen, wall, revisions, left_out, rows, checksums, provenance)


def _provenance(marker: Mapping[str, Any]) -> Provenance:
    logs = {
        str(name): Prefix(int(prefix["num_bytes"]), str(prefix["hash"]))
        for name, prefix in marker.get("logs", {}).items()
    }
    return Provenance({str(name): str(value) for name, value in marker.get("run", {}).items()}, logs)


def verify_checkpoint(folder: Path) -> Checkpoint:
    """Read the commit marker of ``folder`` and check every file against it, except prose.

    Raises:
        Unreadable: this account may not read a file.
        InputError: the marker is missing, damaged or edited, or a file is missing or differs from its checksum.
    """
    checkpoint = read_marker(folder)
    for name, expected in checkpoint.checksums.items():
        file = inside(folder, name)
        if name == CARD:  # the first edition has a checksum of it
            continue
        if not file.is_file():
            raise InputError(f"{file} is missing: use an older checkpoint of the run")
        try:
            with readable(file):
                current = hash_file(file)
        except OSError as error:
            current = str(error)
        if current != expected:
            raise InputError(f"{file} is damaged: use an older checkpoint of the run")
    return checkpoint


def newest_good_checkpoint(
    checkpoints: Path, agrees: Callable[[Checkpoint], None] = lambda checkpoint: None
) -> tuple[Checkpoint, list[str]]:
    """Return the newest checkpoint that verifies, and a line for each newer one that does not.

    ``agrees`` raises InputError for one that does not belong to the run.

    Raises:
        Unreadable: this account may not read a newer one, which may well be intact.
        InputError: there is none.
    """
    problems: list[str] = []
    for folder in reversed(begun_checkpoints(checkpoints)):
        try:
            checkpoint = verify_checkpoint(folder)
            agrees(checkpoint)
            return checkpoint, problems
        except Unreadable:
            raise
        except InputError as error:
            problems.append(str(error))
    detail = f" ({problems[0]})" if problems else ""
    raise InputError(f"no whole checkpoint in {checkpoints}{detail}: start the run again with `etude train`")


def kept_for_good(step: int, every: int) -> bool:
    """Return whether a checkpoint is never pruned: an early one, or at a multiple of ``every`` (0: none is)."""
    return step in EARLY_STEPS or (every > 0 and step % every == 0)


def set_aside_checkpoints_after(checkpoints: Path, step: int) -> list[str]:
    """Set aside the checkpoints beyond the step that a run resumes from: not whole, they would still count as newest.

    Returns a line for each.
    """
    beyond = [folder for folder in begun_checkpoints(checkpoints) if step_of(folder) > step]
    return [_set_aside(folder) for folder in beyond]


def prune_checkpoints(checkpoints: Path, keep: int, every: int = 0) -> list[str]:
    """Remove all but the ``keep`` newest and those kept for good, and what an interrupted write left behind.

    One that does not verify is set aside instead. Returns a line for each of these.
    """
    # The first always stays: what a run began with (a fork somewhere in the middle) is the way to its first steps.
    later = [
        folder for folder in list_checkpoints(checkpoints)[1:] if not kept_for_good(step_of(folder), every)
    ]
    leftovers, lines = list(checkpoints.glob(f"{STAGING_PREFIX}*")), []
    for folder in later[: max(0, len(later) - keep)]:
        try:
            verify_checkpoint(folder)
        except InputError as error:
            lines.append(f"{error}; {_set_aside(folder)}")
            continue
        # Renamed first: a folder whose removal is interrupted is then no longer a checkpoint.
        leftovers.append(folder.rename(folder.with_name(f"{STAGING_PREFIX}{folder.name}-pruned")))
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    return lines


def _set_aside(folder: Path) -> str:
    """Set a checkpoint aside, and return a line about it."""
    run = RunFolder(folder.parent.parent)
    return f"{folder} does not verify and is set aside as {run.set_aside(folder)}"


def find_checkpoint(path: Path) -> Path:
    """Return the model folder that the user means by ``path``: of a run (its newest), a checkpoint, or a model folder.

    Raises:
        InputError: there is nothing of the kind at ``path``.
    """
    if (path / "config.json").is_file():
        return path
    newest: Sequence[Path] = list_checkpoints(path / "checkpoints")
    if newest:
        return newest[-1]
    what = "has no checkpoint yet" if is_run(path) else "is not a run or a model folder"
    raise InputError(f"{path} {what}: `etude runs` lists the runs there are")
