"""Fork a run with changed parameters."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from etude.config import with_values
from etude.errors import InputError
from etude.model.adapter import is_factor
from etude.model.folder import plain_card
from etude.run import RunFolder, free_name
from etude.run.checkpoints import Provenance, base_of_run, copy_base
from etude.run.create import Origin, create_run, inherited_manifest
from etude.run.settings import settings_for_step
from etude.train.checkpoint import Snapshot, save_checkpoint
from etude.watch import knobs
from etude.watch.knobs import Knob
from etude.watch.opened_step import model_at
from etude.watch.time_machine import TimeMachine


def fork(machine: TimeMachine, step: int, turned: Sequence[Knob | str], name: str | None = None) -> RunFolder:
    """Return a new run at ``step`` with some parameters changed; ``etude train --resume`` continues it.

    Raises:
        InputError: no such step, a knob on an activation (checkpoints hold only parameters), or a name that is taken.
        EtudeError: the run cannot be written.
    """
    if name is not None:  # refuse an impossible name before the replay, which takes long
        RunFolder.new(machine.recorded.run.path.parent, name)
    parsed = [knobs.parse_knob(knob) if isinstance(knob, str) else knob for knob in turned]
    changed = knobs.turn(model_at(machine, step), parsed)
    if changed.changes:
        raise InputError(
            f"{next(iter(changed.changes))} is an activation, and a run stores only parameters: turn a weight or a bias"
        )
    return fork_with(machine, step, changed.parameters, name=name, because=[str(knob) for knob in parsed])


def fork_with(
    machine: TimeMachine,
    step: int,
    weights: Mapping[str, Tensor],
    *,
    name: str | None = None,
    because: Sequence[str] = (),
) -> RunFolder:
    """Return a new run beside the machine's, at ``step``, with ``weights`` in place of some of its own.

    It inherits its parent's settings, text, optimizer state and record up to ``step``. Its manifest names the parent
    and what changed (``because``, in words).

    Raises:
        InputError: no such step or parameter, another shape, or a name that is taken.
        EtudeError: the run cannot be written.
    """
    parent = machine.recorded
    snapshot = Snapshot.of(machine.go_to(step))
    for key, value in weights.items():
        if key not in snapshot.weights or snapshot.weights[key].shape != value.shape:
            raise InputError(f"no parameter '{key}' of shape {tuple(value.shape)} is in this network")
    _require_saved(machine, step, weights)
    changed = {**snapshot.weights, **{key: value.detach().cpu().clone() for key, value in weights.items()}}
    folder = parent.run.path.parent
    run = RunFolder.new(folder, free_name(folder, f"{parent.run.name}-turned") if name is None else name)
    model = machine.era.plan.model
    # The settings in force for the next step: later changes to the parent are not part of this run's past.
    settings = settings_for_step(parent.settings, parent.manifest, step + 1)

    def fill(made: RunFolder) -> None:
        shutil.copytree(parent.run.tokenizer, made.tokenizer)
        if parent.run.ladder_file.exists():
            shutil.copyfile(parent.run.ladder_file, made.ladder_file)
        if parent.run.constants_file.exists():
            shutil.copyfile(parent.run.constants_file, made.constants_file)

    def write_checkpoint(made: RunFolder, provenance: Provenance) -> None:
        turned = replace(snapshot, weights=changed)
        card, base = plain_card(model), None
        if model.adapter is not None:
            base = base_of_run(parent.run.checkpoints)
            copy_base(base, made.checkpoints)
        save_checkpoint(made.checkpoints, turned, model, made.tokenizer, card, provenance, base)

    create_run(
        run,
        with_values(settings, {"run.name": run.name, "run.folder": str(folder)}),
        inherited_manifest(parent, step),
        fill,
        Origin(
            parent,
            step,
            snapshot.counters["tokens_seen"],
            write_checkpoint,
            details={"turned": list(because) or sorted(weights)},
        ),
    )
    return run


def _require_saved(machine: TimeMachine, step: int, names: Iterable[str]) -> None:
    """Raise InputError for weights that the checkpoint of a fork would not hold: frozen ones beside an adapter."""
    if machine.era.plan.model.adapter is None:
        return
    frozen = next((name for name in names if not is_factor(name)), None)
    if frozen is not None:
        raise InputError(
            f"'{frozen}' is frozen, and a run with an adapter stores only its factors: turn one whose name ends with "
            "lora_A or lora_B"
        )
    if step == 0:
        raise InputError("step 0 of a run with an adapter is the base model: choose a later step")
