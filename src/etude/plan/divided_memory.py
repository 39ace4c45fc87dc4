"""The number of processes that share one copy of a network, and the memory of one of them."""

from __future__ import annotations

from dataclasses import replace

from etude.config import Resolved
from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.model.cost import TrainingMemory, count_parameters
from etude.train.divided import require_divisible

LAYERS_AT_ONCE = 3
"""Layers whose parameters and gradients are whole at a time: the one that runs, the next one, and the one before, whose
gradient is on its way."""
_FP32_BYTES = 4


def memory_of_piece(whole: TrainingMemory, config: ModelConfig, shard: int) -> TrainingMemory:
    """Return the memory of one of ``shard`` processes that share a copy, from that of a process with a whole copy.

    Everything outside the layers stays gathered for a step, and has a gradient of its own.
    """
    counted = count_parameters(config)
    outside = counted.total - counted.non_embedding
    gathered = 2 * outside + 2 * LAYERS_AT_ONCE * counted.non_embedding // max(1, config.num_hidden_layers)
    return replace(
        whole,
        weights=whole.weights // shard,
        gradients=whole.gradients // shard,
        optimizer=whole.optimizer // shard,
        snapshot=whole.snapshot // shard,
        compared=0,  # no summaries are made
        activations=whole.activations + _FP32_BYTES * gathered,
    )


def require_processes(settings: Resolved, count: int) -> None:
    """Raise InputError for a training in one process whose settings divide it among several."""
    shard = settings.parallel.shard
    if count == 1 and shard not in ("auto", 1):
        raise InputError(
            f"parallel.shard={shard} divides the run among {shard} processes, and this is one: start it with "
            f"`torchrun --nproc-per-node={shard} -m etude train`, or use --set parallel.shard=auto"
        )


def chosen_shard(
    settings: Resolved, config: ModelConfig, count: int, whole: TrainingMemory, available: int | None
) -> int:
    """Return how many of the ``count`` processes share one copy, as ``parallel.shard`` says or as memory allows.

    Raises:
        InputError: the run cannot be divided so.
    """
    given = settings.parallel.shard
    if count == 1:  # one process replays, reads and measures what several have trained
        return 1
    if given != "auto":
        require_divisible(config, settings, count, given)
        return given
    if available is None or whole.total <= available:
        return 1
    try:
        require_divisible(config, settings, count, count)
    except InputError:
        return 1  # it does not fit, and the user learns why
    return count
