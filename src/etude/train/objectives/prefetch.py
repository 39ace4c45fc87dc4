"""Prefetch batches: build the next one, and copy it to the GPU, while the current step runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from etude.device import Device
from etude.run.events import RowSource
from etude.train.batch import MicroBatch, Row
from etude.train.objectives.contract import Objective


class Prefetched(Objective):
    """Wrap an objective so that another thread prefetches the next batch.

    Copies to the GPU use a separate CUDA stream. The content of a batch still depends on its step alone.
    """

    def __init__(self, objective: Objective, device: Device) -> None:
        self.model = objective.model
        self.num_steps, self.tokens_per_step = objective.num_steps, objective.tokens_per_step
        self._objective = objective
        self._copies: Any = torch.cuda.Stream(device.torch) if device.kind == "cuda" else None  # type: ignore[no-untyped-call]
        self._worker = ThreadPoolExecutor(1)
        self._prefetched: dict[int, Future[list[MicroBatch]]] = {}

    def batch(self, step: int) -> list[MicroBatch]:
        """Return the batch of ``step``, prefetched if the last call was for the step before."""
        parts = (self._prefetched.pop(step, None) or self._worker.submit(self._make, step)).result()
        if self._copies is not None:
            current = torch.cuda.current_stream(self._copies.device)
            current.wait_stream(self._copies)
            for part in parts:
                for tensor in part.tensors:
                    # Otherwise the allocator may reuse its memory before the step has read it.
                    tensor.record_stream(current)
        self._prefetched = {step + 1: self._worker.submit(self._make, step + 1)}
        return parts

    def halve_micro_batches(self) -> int | None:
        """Halve the wrapped objective's micro-batches and drop prefetched batches."""
        rows = self._objective.halve_micro_batches()
        for future in self._prefetched.values():
            future.result()  # wait: the thread must not use the old size any more
        self._prefetched.clear()
        return rows

    def loss(self, part: MicroBatch) -> Tensor:
        return self._objective.loss(part)

    def token_losses(self, logits: Tensor, row: Row) -> Tensor:
        return self._objective.token_losses(logits, row)

    def row(self, part: MicroBatch, place: int) -> Row:
        return self._objective.row(part, place)

    def first_row(self, step: int, num_tokens: int) -> Row:
        return self._objective.first_row(step, num_tokens)

    def row_sources(self, step: int) -> Sequence[RowSource]:
        return self._objective.row_sources(step)

    def compile(self) -> None:
        self._objective.compile()

    def use_eager(self) -> None:
        self._objective.use_eager()

    def _make(self, step: int) -> list[MicroBatch]:
        with torch.cuda.stream(self._copies):  # a no-op for None
            return list(self._objective.batch(step))


def prefetched(objective: Objective, device: Device) -> Objective:
    """Wrap ``objective`` for training on a GPU. On a CPU prefetching gains nothing: the step uses all cores."""
    if device.kind != "cuda" or getattr(objective, "reads_weights", False):
        return objective
    return Prefetched(objective, device)
