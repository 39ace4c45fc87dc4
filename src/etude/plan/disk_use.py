"""Predict the disk space of the checkpoints of a planned run, and require that it is free."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from etude.config import ResolvedTrain
from etude.errors import InputError
from etude.plan.plan import Plan
from etude.pretrained.store import new_bytes
from etude.run.checkpoints import EARLY_STEPS, is_never_pruned
from etude.show.lines import format_bytes
from etude.train.optimizer import saved_weights
from etude.train.saving import FIXED_BYTES, header_bytes

MOST_SAVES = 1000
"""Checkpoints on disk up to which their space is predicted exactly."""


@dataclass(frozen=True)
class DiskUse:
    """Predicted disk space of the checkpoints of a whole run.

    Attributes:
        checkpoint: bytes of one with the optimizer's state.
        kept: checkpoints at the end.
        with_state: of these, the ones with the optimizer's state.
        final: bytes at the end.
        most: bytes at most, while a new checkpoint is written before old ones are removed.
    """

    checkpoint: int
    kept: int
    with_state: int
    final: int
    most: int

    def __str__(self) -> str:
        states = "" if self.with_state >= self.kept - 1 else f", {self.with_state} with the optimizer's state"
        return (
            f"checkpoints: {self.kept} kept{states}, up to {format_bytes(self.checkpoint)} each: "
            f"at most {format_bytes(self.most)} on disk"
        )


def disk_use(plan: Plan, begins: int = 0) -> DiskUse:
    """Predict the disk space by going through the saves that matter, and what each removes.

    A fork ``begins`` with a copy of its parent's checkpoint of that step. For more than :data:`MOST_SAVES` checkpoints
    it is an upper bound, with the optimizer's state in each.
    """
    train, header = plan.settings.train, header_bytes(plan.model)
    weights = 4 * saved_weights(plan.model) + _tokenizer_bytes(plan) + FIXED_BYTES + header
    whole = weights + plan.memory.optimizer + 2 * header
    for_good = range(0, train.steps + 1, train.keep_every or train.steps + 1)
    newest = _newest_saves(train)
    if (count := len(for_good) + len(newest)) > MOST_SAVES:
        return DiskUse(whole, count, count, whole * count, whole * count)
    kept: dict[int, int] = {}
    most = 0
    early = {step for step in EARLY_STEPS if step <= train.steps}
    for step in sorted({begins, *(step for step in {*for_good, *newest, *early} if step > begins)}):
        kept[step] = whole
        if step == 0:  # no optimizer has a state yet
            folder = Path(plan.settings.run.folder)
            kept[step] = weights if plan.base is None else new_bytes(plan.base, folder) + FIXED_BYTES
        most = max(most, sum(kept.values()))
        prunable = [old for old in list(kept)[1:] if not is_never_pruned(old, train.keep_every)]
        for old in prunable[: max(0, len(prunable) - train.keep_checkpoints)]:
            del kept[old]
        for old in list(kept)[1 : -train.keep_checkpoints]:
            if old % plan.state_every:
                kept[old] = weights
    with_state = sum(size == whole for size in kept.values())
    best = int(train.stop_early)  # one checkpoint more, and two while another step becomes the best
    return DiskUse(
        whole, len(kept) + best, with_state, sum(kept.values()) + best * whole, most + 2 * best * whole
    )


def _newest_saves(train: ResolvedTrain) -> range | list[int]:
    """Return the last regular saves of a run: enough that those which are not kept for good include the newest ones.

    At least every second regular save is not at a multiple of ``keep_every``, or none is.
    """
    last = range(0, train.steps + 1, train.checkpoint_every)[-2 * train.keep_checkpoints - len(EARLY_STEPS) :]
    return last if len(last) > MOST_SAVES else [*last, train.steps]


def require_disk(plan: Plan, folder: Path, begins: int = 0) -> DiskUse:
    """Return the predicted disk space of the run, which ``folder`` has free; ``begins`` as for :func:`disk_use`.

    Raises:
        InputError: ``folder`` has less space free.
    """
    use = disk_use(plan, begins)
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if use.most > free:
        raise InputError(
            f"{use}, and {existing} has {format_bytes(free)} free: free some space, choose another --set run.folder, "
            "or a smaller --set train.keep_checkpoints"
        )
    return use


def _tokenizer_bytes(plan: Plan) -> int:
    """Return the bytes of the tokenizer's files, which every checkpoint holds."""
    tokenizer = plan.data.tokenizer
    if tokenizer.carried is None:
        return len(tokenizer.to_json().encode("utf-8"))
    return sum(map(len, tokenizer.carried.values()))
