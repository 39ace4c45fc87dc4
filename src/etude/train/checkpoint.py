"""Save and load the training state as a checkpoint. :mod:`etude.run.checkpoints` describes its files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from etude.errors import EtudeError, InputError
from etude.files import hash_file, staged_folder, write_atomic
from etude.messages import command
from etude.model.adapter import is_factor
from etude.model.config import ModelConfig
from etude.model.folder import CARD, load_model_folder, save_weights_folder, write_tensors
from etude.model.lora import first_factors
from etude.pretrained.base import Base
from etude.pretrained.store import put_files
from etude.run.checkpoints import (
    Checkpoint,
    Provenance,
    base_of_run,
    checkpoint_name,
    verify_base,
    write_marker,
)
from etude.run.weight_files import OPTIMIZER_FILE, optimizer_files
from etude.train.loop import TrainState
from etude.untrusted import shown

COUNTERS = {
    "step": "step",
    "tokens_seen": "tokens_seen",
    "wall_time": "wall_time",
    "revisions": "revisions",
    "left_out": "skipped",
    "micro_batch_rows": "micro_batch_rows",
}
"""What a checkpoint holds besides weights and optimizer: key in its file -> attribute of `TrainState`."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of the training state in main memory, which can be written to disk while training continues."""

    step: int
    counters: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    shared: frozenset[str] = frozenset()
    """Names of weights that are not copies but those of the network: the frozen ones beside an adapter."""

    @classmethod
    def of(cls, state: TrainState, *, copy: bool = True, whole: bool = True) -> Snapshot:
        """Copy ``state``; without ``copy`` hold its own tensors, which the next step changes.

        If not ``whole``, the frozen weights beside an adapter are left out, as in a checkpoint.
        """
        counters = {key: getattr(state, attribute) for key, attribute in COUNTERS.items()}
        adapted = state.model.config.adapter is not None
        shared = frozenset(name for name in state.model.state_dict() if adapted and not is_factor(name))
        weights = {
            name: tensor.detach().to("cpu", copy=copy and name not in shared)
            for name, tensor in state.model.state_dict().items()
            if whole or name not in shared
        }
        optimizer = {
            name: tensor.detach().to("cpu", copy=copy) for name, tensor in state.rules.named_state().items()
        }
        return cls(state.step, counters, weights, optimizer, shared)

    def restore(self, state: TrainState) -> None:
        """Restore ``state`` from this copy."""
        state.model.load_state_dict(self.weights)
        state.rules.load_named_state(self.optimizer)
        for key, value in self.counters.items():
            setattr(state, COUNTERS[key], value)

    @property
    def num_bytes(self) -> int:
        """Size of the tensors in bytes, in memory and on disk."""
        own = (tensor for name, tensor in self.weights.items() if name not in self.shared)
        return sum(tensor.nbytes for tensor in chain(own, self.optimizer.values()))


def save_checkpoint(
    checkpoints: Path,
    snapshot: Snapshot,
    config: ModelConfig,
    tokenizer: Path,
    card: str,
    provenance: Provenance | None = None,
    base: Path | None = None,
) -> None:
    """Write and commit the checkpoint of ``snapshot`` below ``checkpoints``: of an adapted network, its adapter alone.

    ``base`` is the folder of its base that adapter_config.json names; by default the run's own.

    Raises:
        EtudeError: it cannot be written (disk full, no permission), or the tokenizer has changed since ``provenance``.
            Earlier checkpoints stay as they are.
    """
    provenance = provenance or Provenance()
    with staged_folder(checkpoints / checkpoint_name(snapshot.step)) as folder:
        place = None if config.adapter is None else str((base or base_of_run(checkpoints)).absolute())
        save_weights_folder(
            folder, snapshot.weights, config, tokenizer_files=tokenizer, card=card, base=place
        )
        write_tensors(folder / OPTIMIZER_FILE, snapshot.optimizer)
        checksums = {file.name: hash_file(file) for file in sorted(folder.iterdir()) if file.name != CARD}
        require_tokenizer(checksums, provenance, tokenizer, checkpoints)
        write_marker(folder, {**snapshot.counters, "checksums": checksums}, provenance)


def require_tokenizer(
    checksums: Mapping[str, str], provenance: Provenance, tokenizer: Path, checkpoints: Path
) -> None:
    """Raise EtudeError unless the files of a checkpoint have the tokenizer that its run began with."""
    for name, expected in provenance.tokenizer_hashes().items():
        if checksums.get(name) != expected:
            raise EtudeError(
                f"{tokenizer / name} was changed or damaged while the run trained, and no checkpoint is saved "
                f"with it: continue with  {command('train', '--resume', checkpoints.parent)}"
            )


def save_base_checkpoint(
    checkpoints: Path, base: Base, tokenizer: Path, card: str, provenance: Provenance
) -> None:
    """Commit the files of ``base``, unchanged, as the checkpoint of step 0.

    Raises:
        EtudeError: it cannot be written.
    """
    counters: dict[str, Any] = dict.fromkeys(("step", "tokens_seen", "left_out"), 0)
    counters |= {"wall_time": 0.0, "revisions": (), "micro_batch_rows": None}
    with staged_folder(checkpoints / checkpoint_name(0)) as folder:
        put_files(base, folder)
        for file in tokenizer.iterdir():
            if not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)
        write_atomic(folder / CARD, card)  # in place of the publisher's
        write_tensors(folder / OPTIMIZER_FILE, {})
        # The hashes of the base are known: its weights may be gigabytes.
        checksums = {
            file.name: base.files.get(file.name) or hash_file(file)
            for file in sorted(folder.iterdir())
            if file.name != CARD
        }
        write_marker(folder, {**counters, "checksums": checksums}, provenance)


def load_state(checkpoint: Checkpoint, state: TrainState) -> None:
    """Load ``checkpoint`` into ``state``: parameters, optimizer state and counters, bit for bit.

    Step 0 of a run with an adapter is the base alone: its factors follow from the seed of ``state``.

    Raises:
        InputError: the checkpoint has another architecture, or is damaged.
    """
    verify_base(checkpoint.folder)
    loaded, found = load_model_folder(checkpoint.folder)
    weights, config = loaded.state_dict(), state.model.config
    if found.adapter is None and checkpoint.step == 0:
        weights |= first_factors(state.model, config, state.seed)
    try:
        state.model.load_state_dict(weights)
    except RuntimeError:
        raise InputError(f"{checkpoint.folder} holds another architecture than the run's settings") from None
    named: dict[str, Tensor] = {}
    for file in optimizer_files(checkpoint.folder):
        try:
            named |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file} is damaged ({shown(str(error))}): use an older one") from None
    try:
        state.rules.load_named_state(named)
    except InputError as error:
        raise InputError(f"{checkpoint.folder / OPTIMIZER_FILE}: {error}") from None
    for attribute in COUNTERS.values():
        setattr(state, attribute, getattr(checkpoint, attribute))
