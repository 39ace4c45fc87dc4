"""One step of training: forward, loss, backward, sum, clip, update. The heart of the project, on one page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from etude.device import Device
from etude.errors import EtudeError
from etude.train.batch import MicroBatch, total_weight
from etude.train.optimizer import UpdateRules
from etude.train.parallel import ALONE, Ranks


@dataclass(frozen=True)
class Seconds:
    """What this process spent on the parts of a step. A GPU works on meanwhile: there they say little."""

    batch: float = 0.0
    forward: float = 0.0  # with the loss
    backward: float = 0.0
    update: float = 0.0  # summing over processes, clipping, and the optimizer


@dataclass(frozen=True)
class StepResult:
    """What a step leaves behind besides the new parameters: two scalars, still on the device."""

    loss: Tensor  # weighted mean over the trained tokens of the whole batch, nats per token
    grad_norm: Tensor  # Euclidean norm of the whole gradient, before clipping
    applied: bool  # False when either is not a finite number: then nothing was changed
    seconds: Seconds = Seconds()


@dataclass(frozen=True)
class BatchLoss:
    """The mean loss of a batch, still on the device, and what its gradient took."""

    value: Tensor
    seconds: Seconds


class OutOfMemory(EtudeError):
    """The gradient of a batch did not fit the memory; nothing was changed."""


class NothingToTrain(EtudeError):
    """The loss of a batch counts no token, so there is no mean; nothing was changed."""


SummedLoss = Callable[[MicroBatch], Tensor]
"""The objective's loss of a micro-batch: the sum over its trained tokens, times their weights, in nats."""
GradientReader = Callable[[Sequence[MicroBatch]], None]
"""Called with the batch when every parameter holds its whole gradient, before the gradient is clipped."""


def update_step(
    parameters: Sequence[nn.Parameter],
    summed_loss: SummedLoss,
    batch: Sequence[MicroBatch],
    rules: UpdateRules,
    *,
    lr_factor: float,
    momentum: float,
    max_grad_norm: float,
    device: Device,
    ranks: Ranks = ALONE,
    read_gradient: GradientReader | None = None,
) -> StepResult:
    """Predict the batch, compare with what came, send the error back, and move every parameter.

    Args:
        batch: the whole batch of the step in any number of micro-batches, or this rank's share of it. The gradient is
            the same up to rounding, since each part is divided by the total weight of the whole batch.
        read_gradient: reads the gradient before it is clipped. It must change nothing.

    Every rank skips an update whose loss or gradient is not finite: both are the same on all ranks by then.

    Raises:
        OutOfMemory: forward or backward pass found no memory.
        NothingToTrain: the loss mask leaves no token of the whole batch.
    """
    rules.zero_grad()
    loss = batch_gradient(parameters, summed_loss, batch, device, ranks)
    if read_gradient is not None:
        read_gradient(batch)
    return apply_gradient(
        parameters, loss, rules, lr_factor=lr_factor, momentum=momentum, max_grad_norm=max_grad_norm
    )


def batch_gradient(
    parameters: Sequence[nn.Parameter],
    summed_loss: SummedLoss,
    batch: Sequence[MicroBatch],
    device: Device,
    ranks: Ranks = ALONE,
) -> BatchLoss:
    """Run forward, loss and backward of all micro-batches, and sum over the ranks.

    Each parameter's ``grad``, which was None, holds its gradient afterwards.
    """
    total = ranks.total(total_weight(batch))
    if not total:
        raise NothingToTrain(NOTHING_TO_TRAIN)
    loss = torch.zeros((), device=device.torch)
    forward = backward = 0.0
    for part in batch:
        try:
            began = time.perf_counter()
            with device.autocast():
                part_loss = summed_loss(part) / total  # forward, loss
            halfway = time.perf_counter()
            part_loss.backward()  # type: ignore[no-untyped-call]
            forward, backward = forward + halfway - began, backward + time.perf_counter() - halfway
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(OUT_OF_MEMORY) from error
            raise
        loss += part_loss.detach()
    began = time.perf_counter()
    ranks.add_up([loss, *(p.grad for p in parameters if p.grad is not None)])
    return BatchLoss(loss, Seconds(0.0, forward, backward, time.perf_counter() - began))


def apply_gradient(
    parameters: Sequence[nn.Parameter],
    loss: BatchLoss,
    rules: UpdateRules,
    *,
    lr_factor: float,
    momentum: float,
    max_grad_norm: float,
) -> StepResult:
    """Clip the gradient that the parameters hold and move every one of them, unless a number is not finite."""
    began = time.perf_counter()
    grad_norm = clip_gradients(parameters, max_grad_norm)
    # Waits for the device, for an update from a gradient that is no number could not be taken back.
    applied = bool(torch.isfinite(loss.value) & torch.isfinite(grad_norm))
    if applied:
        rules.step(lr_factor, momentum)
    spent = loss.seconds.update + time.perf_counter() - began
    return StepResult(loss.value, grad_norm, applied, replace(loss.seconds, update=spent))


OUT_OF_MEMORY = (
    "the memory is not enough for a step: use a smaller --size, --set train.context or --set train.batch_rows, "
    "or --set train.activation_checkpointing=true"
)

NOTHING_TO_TRAIN = (
    "the loss counts no token of this batch, so there is nothing to learn from: begin a run, or a fork, with more rows "
    "(--set train.batch_rows) or a longer context (--set train.context), so that every batch has tokens to train on"
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or this machine, had no memory left: PyTorch has a class of its own for GPUs only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "bad_alloc", "out of memory"))


def clip_factor(grad_norm: Tensor, max_grad_norm: float) -> float:
    """What :func:`clip_gradients` multiplied a gradient of this length by: never above 1, in fp32 as PyTorch has it."""
    return float(torch.clamp(max_grad_norm / (grad_norm + 1e-6), max=1.0))


def clip_gradients(parameters: Sequence[nn.Parameter], max_grad_norm: float) -> Tensor:
    """Shorten the whole gradient to ``max_grad_norm`` if it is longer; returns its length before."""
    return torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm, foreach=True)
