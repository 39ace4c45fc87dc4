"""A changed network as a run of its own, which can be trained on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from etude.config import to_toml, with_values
from etude.errors import InputError
from etude.files import hash_file, staged_folder, write_atomic
from etude.model.folder import plain_card
from etude.run import RunFolder, free_name
from etude.train.checkpoint import Snapshot, list_checkpoints, read_marker, save_checkpoint, step_of
from etude.train.frozen import settings_for_step
from etude.train.provenance import ACCEPTED, FILES, damage_of_log, files_of, logs_of, provenance_of
from etude.watch.recorded import Recorded
from etude.watch.time_machine import TimeMachine


def fork(
    machine: TimeMachine,
    step: int,
    weights: Mapping[str, Tensor],
    *,
    name: str | None = None,
    because: Sequence[str] = (),
) -> RunFolder:
    """A new run beside the machine's, which stands at ``step`` with some of its ``weights`` changed.

    It has the settings, the text, the optimizer's state and the record up to ``step`` of its parent, and its manifest
    names that and what was changed (``because``, in words). ``etude train --resume`` goes on with it.

    Raises:
        InputError: no such step or parameter, another shape, or the name is taken.
        EtudeError: it cannot be written.
    """
    parent = machine.recorded
    state = machine.go_to(step)
    snapshot = Snapshot.of(state)
    for key, value in weights.items():
        if key not in snapshot.weights or snapshot.weights[key].shape != value.shape:
            raise InputError(f"no parameter '{key}' of shape {tuple(value.shape)} is in this network")
    changed = {**snapshot.weights, **{key: value.detach().cpu().clone() for key, value in weights.items()}}
    folder = parent.run.path.parent
    run = RunFolder.new(folder, free_name(folder, f"{parent.run.name}-turned") if name is None else name)
    era = machine.era
    # As they were for the next step: what was changed later in the parent is none of this run's past.
    then = settings_for_step(parent.settings, parent.manifest, step + 1)
    settings = with_values(then, {"run.name": run.name, "run.folder": str(folder)})
    origin = {
        "run": str(Path(parent.run.path).absolute()),
        "step": step,
        "tokens_seen": snapshot.counters["tokens_seen"],
        "turned": list(because) or sorted(weights),
    }
    with staged_folder(run.path, replace=False) as staging:
        made = RunFolder(staging)
        shutil.copytree(parent.run.tokenizer, made.tokenizer)
        if parent.run.ladder_file.exists():
            shutil.copyfile(parent.run.ladder_file, made.ladder_file)
        write_atomic(made.settings_file, to_toml(settings))
        _copy_record(parent, made, step)
        its_own = {FILES: files_of(made), "settings_hash": hash_file(made.settings_file), "parent": origin}
        past = {"sittings": parent.sittings_before(step + 1), "changes": [], ACCEPTED: []}
        made.write_manifest({**parent.manifest, **its_own, **past})
        save_checkpoint(
            made.checkpoints,
            replace(snapshot, weights=changed),
            era.plan.model,
            made.tokenizer,
            plain_card(era.plan.model),
            provenance_of(made.read_manifest(), logs_of(made)),
        )
    return run


def _copy_record(parent: Recorded, heir: RunFolder, step: int) -> None:
    """Give ``heir`` the logs up to ``step``.

    Raises:
        InputError: they are not those that the next checkpoint, or the last one before the step, was saved with.
    """
    folders = list_checkpoints(parent.run.checkpoints)
    checkpoint = read_marker(next((one for one in folders if step_of(one) >= step), folders[-1]))
    for name, log in logs_of(parent.run).items():
        problem = damage_of_log(log, checkpoint, parent.manifest)
        if problem is not None:
            raise InputError(
                f"{log.path} {problem}: it is not the record that {checkpoint.folder.name} was saved with. Put it back"
            )
        if log.path.exists():
            copy = logs_of(heir)[name]
            shutil.copyfile(log.path, copy.path)
            copy.cut_back(step)
