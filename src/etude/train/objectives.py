"""What a run is trained to do: batches, a loss, and a number of steps. The loop is the same for all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.loader import BatchLoader
from etude.device import Device
from etude.model.dropout import Dropout, kept_masks, kept_scale
from etude.model.language_model import LanguageModel
from etude.run.events import RowSource
from etude.train.loss import summed_loss
from etude.train.parallel import ALONE, Ranks
from etude.train.step import MicroBatch


class Objective(Protocol):
    """Given to the loop; everything that makes pretraining differ from finetuning is behind it."""

    num_steps: int
    tokens_per_step: int

    def batch(self, step: int) -> Sequence[MicroBatch]:
        """The batch of the update that makes step ``step`` (from 1), in micro-batches, on the device."""

    def loss(self, part: MicroBatch) -> Tensor:
        """The loss of a micro-batch, summed over its targets, in nats."""

    def row_sources(self, step: int) -> Sequence[RowSource]:
        """Where each row of the whole batch of ``step`` came from."""

    def halve_micro_batches(self) -> int | None:
        """Make smaller micro-batches from now on; the number of their rows, None where they have one only."""


class NextToken:
    """Pretraining: predict each next token of packed documents. Of several ranks each has its rows of a batch."""

    def __init__(
        self,
        model: LanguageModel,
        loader: BatchLoader,
        device: Device,
        *,
        num_steps: int,
        micro_batch_rows: int,
        within_documents: bool = False,
        dropout: float = 0.0,
        recompute: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.num_steps = num_steps
        self.tokens_per_step = loader.batch_rows * loader.context
        self.model = model
        self._loader = loader
        self._device = device
        self._rows = ranks.rows(loader.batch_rows)
        self._micro_batch_rows = micro_batch_rows
        self._within_documents = within_documents
        self._dropout = dropout
        self._recompute = recompute
        self._loss: Callable[..., Tensor] = self._model_loss

    def batch(self, step: int) -> list[MicroBatch]:
        """The rows of ``step``: a pure function of the loader's seed and the step."""
        parts = []
        for first in self._rows[:: self._micro_batch_rows]:
            rows = min(self._micro_batch_rows, self._rows.stop - first)
            inputs, targets = self._loader.slice(step - 1, first, rows)
            documents = None
            if self._within_documents:
                documents = self._to_device(self._loader.document_ids(step - 1, first, rows))
            count = int((targets != IGNORE_INDEX).sum())
            kept = self._kept(step, first, rows) if self._dropout else None
            parts.append(
                MicroBatch(self._to_device(inputs), self._to_device(targets), count, kept, documents)
            )
        return parts

    def loss(self, part: MicroBatch) -> Tensor:
        """Cross-entropy summed over the micro-batch, in nats."""
        return self._loss(part.inputs, part.targets, part.document_ids, part.kept)

    def row_sources(self, step: int) -> list[RowSource]:
        """The documents that each row of the whole batch of ``step`` is of."""
        return [RowSource(window.row, window.documents) for window in self._loader.windows_at(step - 1)]

    def first_row(self, step: int, num_tokens: int) -> tuple[Tensor, Tensor | None]:
        """How this rank's first row of ``step`` begins: token ids, and of which document each is where that matters.

        Both (1, T), of at most ``num_tokens``.
        """
        first = self._rows.start
        inputs, _ = self._loader.slice(step - 1, first, 1)
        documents = self._loader.document_ids(step - 1, first, 1) if self._within_documents else None
        return (
            self._to_device(inputs[:, :num_tokens].copy()),
            None if documents is None else self._to_device(documents[:, :num_tokens].copy()),
        )

    def halve_micro_batches(self) -> int | None:
        """From now on half as many rows at once; None where it is one row already."""
        if self._micro_batch_rows == 1:
            return None
        self._micro_batch_rows //= 2
        return self._micro_batch_rows

    def compile(self) -> None:
        """Compile forward and loss into one graph; the first use of it takes the time of a compilation."""
        self._loss = torch.compile(self._model_loss, fullgraph=True, dynamic=False)

    def use_eager(self) -> None:
        """Go back to running the model's Python as it stands."""
        self._loss = self._model_loss

    def _model_loss(
        self, inputs: Tensor, targets: Tensor, document_ids: Tensor | None, kept: Tensor | None
    ) -> Tensor:
        dropout = None if kept is None else Dropout(kept, kept_scale(self._dropout))
        hidden = self.model.hidden(
            inputs, document_ids=document_ids, dropout=dropout, recompute=self._recompute
        )
        return summed_loss(hidden, targets, *self.model.unembedding())

    def _kept(self, step: int, first_row: int, rows: int) -> Tensor:
        shape = self.model.dropout_shape(rows, self._loader.context)
        seed = _dropout_seed(self._loader.seed, step)
        return kept_masks(self._dropout, seed, first_row, shape, self._device.torch)

    def _to_device(self, array: object) -> Tensor:
        tensor = torch.as_tensor(array)
        if self._device.kind == "cuda":
            return tensor.pin_memory().to(self._device.torch, non_blocking=True)
        return tensor.to(self._device.torch)


class MadeAhead:
    """An objective whose next batch is made, and sent to the GPU, while the step before it runs.

    The copies go beside the arithmetic, on a stream of their own; a batch is a function of its step all the same.
    """

    def __init__(self, objective: Objective, device: Device) -> None:
        self.num_steps, self.tokens_per_step = objective.num_steps, objective.tokens_per_step
        self.loss = objective.loss
        self.row_sources = objective.row_sources
        self._objective = objective
        self._copies: Any = torch.cuda.Stream(device.torch) if device.kind == "cuda" else None  # type: ignore[no-untyped-call]
        self._worker = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[list[MicroBatch]]] = {}

    def batch(self, step: int) -> list[MicroBatch]:
        """The batch of ``step``, which is there already if the one before it was asked for last."""
        parts = (self._ahead.pop(step, None) or self._worker.submit(self._make, step)).result()
        if self._copies is not None:
            here = torch.cuda.current_stream(self._copies.device)
            here.wait_stream(self._copies)
            for tensor in chain.from_iterable(map(_tensors, parts)):
                tensor.record_stream(here)  # its memory is given out again only when the step has read it
        self._ahead = {step + 1: self._worker.submit(self._make, step + 1)}
        return parts

    def halve_micro_batches(self) -> int | None:
        """As the objective's; what was made ahead is made anew."""
        rows = self._objective.halve_micro_batches()
        for future in self._ahead.values():
            future.result()
        self._ahead.clear()
        return rows

    def _make(self, step: int) -> list[MicroBatch]:
        with torch.cuda.stream(self._copies):  # of None it is nothing
            return list(self._objective.batch(step))


def made_ahead(objective: Objective, device: Device) -> Objective:
    """``objective`` for the loop: with batches made ahead on a GPU. On a CPU all cores are busy with the step."""
    return MadeAhead(objective, device) if device.kind == "cuda" else objective


def _tensors(part: MicroBatch) -> list[Tensor]:
    return [
        tensor for tensor in (part.inputs, part.targets, part.document_ids, part.kept) if tensor is not None
    ]


def _dropout_seed(seed: int, step: int) -> int:
    """Of one step: any number of 32 bits."""
    digest = hashlib.blake2b(f"dropout {seed} {step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little", signed=True)
