"""Checkpoints: each is a Hugging Face model folder, plus what it takes to go on bit for bit.

``step-00001000/`` holds the model folder (see :mod:`etude.model.folder`), ``optimizer.safetensors`` with the
state of the update rules by parameter name, and ``train_state.json``. That last file is the commit marker: it
is written after all others and carries their checksums, those of the run and its record
(:mod:`etude.train.provenance`), and the digest of its own content. The folder is filled beside its final name and
renamed, so a folder with the final name and a matching marker is whole. Prose (README.md) may be edited: it has no
checksum. What does not verify is set aside, never removed.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from etude.errors import EtudeError, InputError
from etude.files import SEALED_SCHEMA, STAGING_PREFIX, hash_file, read_sealed, staged_folder, write_sealed
from etude.messages import command
from etude.model.config import ModelConfig
from etude.model.folder import CARD, load_model_folder, save_weights_folder, write_tensors
from etude.run import Prefix, RunFolder
from etude.train.loop import TrainState
from etude.train.schedule import Revision
from etude.untrusted import Unreadable, inside, readable, shown

MARKER = "train_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
EARLY_STEPS = frozenset([0, *(2**power for power in range(10))])
"""Always kept once saved: the first steps are the most interesting, and cannot be recorded afterwards."""
COUNTERS = ("step", "tokens_seen", "wall_time", "revisions", "left_out", "micro_batch_rows")
"""What a checkpoint holds of the state besides weights and optimizer."""
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Provenance:
    """The run and the record that a checkpoint was saved with. Both are empty in checkpoints of the first edition."""

    run: Mapping[str, str] = field(default_factory=dict)
    """Hashes of what the run consists of, by file (see :func:`etude.train.provenance.consists_of`)."""
    logs: Mapping[str, Prefix] = field(default_factory=dict)
    """What each log held when the checkpoint was begun, by file."""

    def of_tokenizer(self) -> dict[str, str]:
        """The hashes of the tokenizer's files, by name in their folder."""
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
    revisions: tuple[Revision, ...]
    left_out: int
    micro_batch_rows: int | None
    checksums: dict[str, str]
    provenance: Provenance


@dataclass(frozen=True)
class Snapshot:
    """A copy of the state of a run in main memory, which can be written while the run goes on."""

    step: int
    counters: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]

    @classmethod
    def of(cls, state: TrainState) -> Snapshot:
        counters = {name: getattr(state, name) for name in COUNTERS}
        copies = (
            {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            for tensors in (state.model.state_dict(), state.rules.named_state())
        )
        return cls(state.step, counters, *copies)

    def restore(self, state: TrainState) -> None:
        """Bring ``state`` to where it was when this was taken."""
        state.model.load_state_dict(self.weights)
        state.rules.load_named_state(self.optimizer)
        for name, value in self.counters.items():
            setattr(state, name, value)

    @property
    def num_bytes(self) -> int:
        """Of its tensors, in memory and on disk."""
        tensors = chain(self.weights.values(), self.optimizer.values())
        return sum(tensor.nbytes for tensor in tensors)


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def save_checkpoint(
    checkpoints: Path,
    snapshot: Snapshot,
    config: ModelConfig,
    tokenizer: Path,
    card: str,
    provenance: Provenance | None = None,
) -> None:
    """Write and commit the checkpoint of ``snapshot`` below ``checkpoints``.

    Raises:
        EtudeError: it could not be written (disk full, no permission), or the tokenizer is no longer that of
            ``provenance``; the earlier ones are as they were.
    """
    provenance = provenance or Provenance()
    with staged_folder(checkpoints / checkpoint_name(snapshot.step)) as folder:
        save_weights_folder(folder, snapshot.weights, config, tokenizer_files=tokenizer, card=card)
        write_tensors(folder / OPTIMIZER_FILE, snapshot.optimizer)
        checksums = {file.name: hash_file(file) for file in sorted(folder.iterdir()) if file.name != CARD}
        for name, expected in provenance.of_tokenizer().items():
            if checksums.get(name) != expected:
                raise EtudeError(
                    f"{tokenizer / name} was changed or damaged while the run trained, and no checkpoint is saved "
                    f"with it: continue with  {command('train', '--resume', checkpoints.parent)}"
                )
        write_marker(folder, {**snapshot.counters, "checksums": checksums}, provenance)


def write_marker(folder: Path, content: Mapping[str, Any], provenance: Provenance) -> None:
    """Write the commit marker of ``folder``: counters and checksums, the provenance, and the digest of it all."""
    known = {"run": dict(provenance.run), "logs": {n: asdict(p) for n, p in provenance.logs.items()}}
    write_sealed(folder / MARKER, {**content, **known, "schema": SEALED_SCHEMA})


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """The folders of committed checkpoints, oldest first (their checksums are not verified here)."""
    if not checkpoints.is_dir():
        return []
    found = [p for p in checkpoints.iterdir() if _NAME.fullmatch(p.name) and (p / MARKER).is_file()]
    return sorted(found, key=step_of)


def begun_checkpoints(checkpoints: Path) -> list[Path]:
    """All folders with the name of a checkpoint, also those without a commit marker, oldest first."""
    return sorted((p for p in checkpoints.glob("step-*") if _NAME.fullmatch(p.name)), key=step_of)


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    match = _NAME.fullmatch(folder.name)
    assert match is not None, folder
    return int(match.group(1))


def read_marker(folder: Path) -> Checkpoint:
    """What the commit marker of ``folder`` says, once it agrees with itself and with the folder's name.

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
    """Read the commit marker of ``folder`` and check every file against it, but for prose.

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
                found = hash_file(file)
        except OSError as error:
            found = str(error)
        if found != expected:
            raise InputError(f"{file} is damaged: use an older checkpoint of the run")
    return checkpoint


def newest_good_checkpoint(
    checkpoints: Path, agrees: Callable[[Checkpoint], None] = lambda checkpoint: None
) -> tuple[Checkpoint, list[str]]:
    """The newest checkpoint that verifies, and a line for each newer one that does not.

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


def load_state(checkpoint: Checkpoint, state: TrainState) -> None:
    """Put ``checkpoint`` into ``state``: parameters, optimizer state and counters, bit for bit.

    Raises:
        InputError: the checkpoint is of another architecture, or damaged.
    """
    loaded, _ = load_model_folder(checkpoint.folder)
    try:
        state.model.load_state_dict(loaded.state_dict())
    except RuntimeError:
        raise InputError(f"{checkpoint.folder} holds another architecture than the run's settings") from None
    try:
        named = load_file(checkpoint.folder / OPTIMIZER_FILE)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{checkpoint.folder / OPTIMIZER_FILE} is damaged ({shown(str(error))}): use an older one"
        ) from None
    try:
        state.rules.load_named_state(named)
    except InputError as error:
        raise InputError(f"{checkpoint.folder / OPTIMIZER_FILE}: {error}") from None
    for name in COUNTERS:
        setattr(state, name, getattr(checkpoint, name))


def kept_for_good(step: int, every: int) -> bool:
    """Whether a checkpoint is never pruned: an early one, or at a multiple of ``every`` (0: none is)."""
    return step in EARLY_STEPS or (every > 0 and step % every == 0)


def set_aside_checkpoints_after(checkpoints: Path, step: int) -> list[str]:
    """Set aside what lies beyond the step that a run resumes from: not whole, it would still count as newest.

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
    leftovers, told = list(checkpoints.glob(f"{STAGING_PREFIX}*")), []
    for folder in later[: max(0, len(later) - keep)]:
        try:
            verify_checkpoint(folder)
        except InputError as error:
            told.append(f"{error}; {_set_aside(folder)}")
            continue
        # Renamed first: a folder whose removal is interrupted is then no checkpoint any more.
        leftovers.append(folder.rename(folder.with_name(f"{STAGING_PREFIX}{folder.name}-pruned")))
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    return told


def _set_aside(folder: Path) -> str:
    """Set a checkpoint aside; what was done, in a line."""
    run = RunFolder(folder.parent.parent)
    return f"{folder} does not verify and is set aside as {run.set_aside(folder)}"


def find_checkpoint(path: Path) -> Path:
    """The model folder that a person means by ``path``: a run (its newest), a checkpoint, or a model folder.

    Raises:
        InputError: there is nothing of the kind at ``path``.
    """
    if (path / "config.json").is_file():
        return path
    newest: Sequence[Path] = list_checkpoints(path / "checkpoints")
    if newest:
        return newest[-1]
    what = "has no checkpoint yet" if (path / "run.toml").is_file() else "is not a run or a model folder"
    raise InputError(f"{path} {what}: `etude runs` lists the runs there are")
