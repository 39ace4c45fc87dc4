"""Save and load the state of a network that is divided among ranks, as an ordinary checkpoint.

Every byte is written once: each tensor is sent whole to one rank, which writes it into its own file. The weights are
the usual shards of a Hugging Face model folder with their index, the optimizer's state likewise. Rank 0 writes the
small files, and the commit marker when all ranks have reported the hashes of theirs.

Nothing in the folder depends on the number of ranks that will read it: any number loads it, each its pieces only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from etude.errors import EtudeError, InputError
from etude.files import file_errors_in_one_line, flush_file, hash_file, staged_folder, write_json
from etude.model.build import empty_model
from etude.model.config import ModelConfig
from etude.model.folder import stored_state, write_model_files, write_tensors
from etude.model.pieces import fill, is_piece, local, place
from etude.model.weights import StoredWeights
from etude.run.checkpoints import (
    CARD,
    Checkpoint,
    Provenance,
    checkpoint_name,
    write_marker,
)
from etude.run.weight_files import OPTIMIZER_FILE, OPTIMIZER_INDEX, WEIGHTS_INDEX, optimizer_files
from etude.train.checkpoint import COUNTERS, require_tokenizer
from etude.train.loop import TrainState
from etude.train.pieces_snapshot import PiecesSnapshot, Writers, loads, owners, units

WEIGHTS_SHARD, OPTIMIZER_SHARD = (
    "model-{:05d}-of-{:05d}.safetensors",
    "optimizer-{:05d}-of-{:05d}.safetensors",
)


def save_divided(
    checkpoints: Path,
    snapshot: PiecesSnapshot,
    config: ModelConfig,
    tokenizer: Path,
    card: str,
    provenance: Provenance,
    writers: Writers,
) -> None:
    """Write and commit a checkpoint with all ranks; the others call :func:`join_saving`.

    Raises:
        EtudeError: it cannot be written, here or by another rank. Earlier checkpoints stay as they are.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(staged_folder(checkpoints / checkpoint_name(snapshot.step)))
        except BaseException:
            writers.send(None)
            raise
        writers.send(str(folder.absolute()))
        written = writers.collect(_try_to_write(folder, snapshot, config, writers))
        problems = [problem for _, _, problem in written if problem]
        if problems:
            raise EtudeError(problems[0])
        write_model_files(folder, config, tokenizer, card)
        places = {name: file for placed, _, _ in written for name, file in placed.items()}
        _write_index(folder / WEIGHTS_INDEX, places, "model-", snapshot.weights)
        if snapshot.optimizer:
            _write_index(folder / OPTIMIZER_INDEX, places, "optimizer-", snapshot.optimizer)
        else:  # before the first update
            write_tensors(folder / OPTIMIZER_FILE, {})
        checksums = {file: value for _, hashes, _ in written for file, value in hashes.items()}
        checksums |= {
            file.name: hash_file(file)
            for file in sorted(folder.iterdir())
            if file.name != CARD and file.name not in checksums
        }
        require_tokenizer(checksums, provenance, tokenizer, checkpoints)
        write_marker(folder, {**snapshot.counters, "checksums": checksums}, provenance)


def join_saving(snapshot: PiecesSnapshot, config: ModelConfig, writers: Writers) -> None:
    """Take part in :func:`save_divided` of rank 0. A failure is reported there."""
    folder = writers.send(None)
    if folder is not None:
        writers.collect(_try_to_write(Path(folder), snapshot, config, writers))


Written = tuple[dict[str, str], dict[str, str], str]
"""What a rank has written: the file of each tensor, the hash of each file, and why it failed ("" if it did not)."""


def _try_to_write(folder: Path, snapshot: PiecesSnapshot, config: ModelConfig, writers: Writers) -> Written:
    """Gather the tensors of which this rank is the owner, and write them."""
    weight_owners = owners(snapshot.weights, writers.count)
    busy = loads(snapshot.weights, weight_owners, writers.count)
    state_owners = owners(snapshot.optimizer, writers.count, busy)
    weights = writers.gathered(snapshot.weights, weight_owners)
    state = writers.gathered(snapshot.optimizer, state_owners)
    placed: dict[str, str] = {}
    hashes: dict[str, str] = {}
    try:
        with file_errors_in_one_line():
            if not folder.is_dir():
                raise EtudeError(
                    f"{folder.parent} is not on this machine: a run on several machines needs a folder that all share"
                )
            for tensors, used, pattern in (
                (stored_state(weights, config), weight_owners, WEIGHTS_SHARD),
                (state, state_owners, OPTIMIZER_SHARD),
            ):
                if not tensors:
                    continue
                files = sorted(set(used.values()))
                name = pattern.format(files.index(writers.index) + 1, len(files))
                write_tensors(folder / name, tensors)
                flush_file(folder / name)
                hashes[name] = hash_file(folder / name)
                placed |= dict.fromkeys(tensors, name)
    except (EtudeError, InputError) as error:
        return {}, {}, str(error)
    return placed, hashes, ""


def _write_index(path: Path, places: dict[str, str], prefix: str, pieces: dict[str, Any]) -> None:
    """Write the index of the files whose names begin with ``prefix``, in the format of Hugging Face."""
    total = sum(piece.num_bytes for piece in pieces.values())
    table = {name: file for name, file in sorted(places.items()) if file.startswith(prefix)}
    write_json(path, {"metadata": {"total_size": total}, "weight_map": table})


def load_divided(checkpoint: Checkpoint, state: TrainState) -> None:
    """Load this rank's pieces of ``checkpoint``, of whatever number of ranks, into ``state``. It sends nothing.

    Raises:
        InputError: the checkpoint has another architecture, or is damaged.
    """
    config = state.model.config
    weights = StoredWeights.open(checkpoint.folder, config)
    meta = dict(empty_model(config).named_parameters())
    expected = stored_state({name: tensor.data for name, tensor in meta.items()}, config)
    weights.require({name: tuple(tensor.shape) for name, tensor in expected.items()})
    parameters = dict(state.model.named_parameters())
    for names in units(meta).values():
        own = {name: meta[name].data for name in names}
        saved = stored_state(own, config)
        if all(saved.get(name) is tensor for name, tensor in own.items()):  # saved as they are
            for name in names:
                local(parameters[name].detach()).copy_(weights.read_part(name, place(parameters[name])))
            continue
        found = config.family.from_saved(weights.read(saved), config)
        for name in names:
            fill(parameters[name], found[name])
    state.rules.load_parts(_state_reader(checkpoint.folder))
    for attribute in COUNTERS.values():
        setattr(state, attribute, getattr(checkpoint, attribute))


def _state_reader(folder: Path) -> Callable[[str, Tensor | None], Tensor | None] | None:
    """Return what reads a part of the optimizer's state by name; None before the first update.

    It is called with a name and the parameter whose division the part has (None: all of the tensor).
    """
    files: dict[str, Path] = {}
    for file in optimizer_files(folder):
        with safe_open(file, framework="pt") as content:
            files |= dict.fromkeys(content.keys(), file)
    if not files:
        return None

    def read(name: str, divided: Tensor | None) -> Tensor | None:
        if name not in files:
            return None
        with safe_open(files[name], framework="pt") as content:
            if divided is None or not is_piece(divided):
                return content.get_tensor(name)  # type: ignore[no-any-return]
            part = content.get_slice(name)
            if tuple(part.get_shape()) != tuple(divided.shape):
                return content.get_tensor(name)  # type: ignore[no-any-return] # of a wrong shape
            return part[place(divided)]  # type: ignore[no-any-return]

    return read
