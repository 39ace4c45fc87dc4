"""One step of training: forward, loss, backward, sum over ranks, clip, update."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from etude.device import Device
from etude.errors import EtudeError
from etude.model.pieces import whole
from etude.train.batch import MicroBatch, total_weight
from etude.train.optimizer import UpdateRules
from etude.train.parallel import ALONE, Ranks


@dataclass(frozen=True)
class Seconds:
    """Seconds that this process spent on the parts of a step. A GPU runs asynchronously, so they mean little there."""

    batch: float = 0.0
    forward: float = 0.0  # with the loss
    backward: float = 0.0
    update: float = 0.0  # summing over processes, clipping, and the optimizer


@dataclass(frozen=True)
class StepResult:
    """Result of a step besides the new parameters. The two scalars are on the device."""

    loss: Tensor  # weighted mean over the trained tokens of the whole batch, nats per token
    grad_norm: Tensor  # Euclidean norm of the whole gradient, before clipping
    applied: bool  # False where either is not finite: then no parameter was changed
    seconds: Seconds = Seconds()


@dataclass(frozen=True)
class BatchLoss:
    """The mean loss of a batch, on the device, and the time that it and its gradient took."""

    value: Tensor
    seconds: Seconds


class OutOfMemory(EtudeError):
    """The gradient of a batch did not fit the memory. No parameter was changed."""


class NothingToTrain(EtudeError):
    """The loss mask leaves no token of a batch. No parameter was changed."""


SummedLoss = Callable[[MicroBatch], Tensor]
"""Returns the loss of a micro-batch: the weighted sum over its trained tokens, in nats."""
GradientReader = Callable[[Sequence[MicroBatch]], None]
"""Called with the batch once every parameter has its whole gradient, before clipping."""


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
    """Compute loss and gradient of a batch, and update every parameter.

    An update whose loss or gradient is not finite is skipped. All ranks then skip it: loss and gradient are already
    identical on all of them.

    Args:
        batch: this rank's part of the batch, in any number of micro-batches. Their number changes the gradient only by
            rounding, since each loss is divided by the total weight of the whole batch.
        read_gradient: reads the gradient before it is clipped. It must not change anything.

    Raises:
        OutOfMemory: forward or backward pass ran out of memory.
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
    """Run forward pass, loss and backward pass of all micro-batches, and sum the gradients over the ranks.

    The ``grad`` of each parameter must be None before, and is its gradient afterwards.
    """
    # The total of the whole batch: a mean of means would weigh tokens unequally.
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
            part_loss.backward()  # type: ignore[no-untyped-call]  # adds to each parameter's grad
            forward, backward = forward + halfway - began, backward + time.perf_counter() - halfway
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(OUT_OF_MEMORY) from error
            raise
        loss += part_loss.detach()  # on the device: reading it here would wait for the GPU
    began = time.perf_counter()
    # Of a divided network the backward pass itself sums the gradients, and leaves each rank its pieces.
    gradients = [] if ranks.divided else [p.grad for p in parameters if p.grad is not None]
    ranks.add_up([loss, *gradients])
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
    """Clip the gradients and update every parameter; skip the update where loss or gradient norm is not finite."""
    began = time.perf_counter()
    grad_norm = clip_gradients(parameters, max_grad_norm)
    # This waits for the device. It must: an update from a NaN gradient could not be undone.
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
    """Return whether the device or the machine ran out of memory. PyTorch has an exception class only for GPUs."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "bad_alloc", "out of memory"))


def clip_factor(grad_norm: Tensor, max_grad_norm: float) -> float:
    """Return the factor by which :func:`clip_gradients` scaled a gradient of this norm: at most 1, in fp32."""
    return float(torch.clamp(max_grad_norm / (grad_norm + 1e-6), max=1.0))


def clip_gradients(parameters: Sequence[nn.Parameter], max_grad_norm: float) -> Tensor:
    """Scale the whole gradient to norm ``max_grad_norm`` if it is larger. Returns its norm before."""
    return whole(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm, foreach=True))
