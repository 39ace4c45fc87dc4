"""What a run is trained to do: batches, a loss, and a number of steps. The loop is the same for all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.loader import BatchLoader
from etude.device import Device
from etude.model.language_model import LanguageModel
from etude.train.loss import summed_loss
from etude.train.step import MicroBatch


class Objective(Protocol):
    """Given to the loop; everything that makes pretraining differ from finetuning is behind it."""

    num_steps: int
    tokens_per_step: int

    def batch(self, step: int) -> Sequence[MicroBatch]:
        """The batch of the update that makes step ``step`` (from 1), in micro-batches, on the device."""

    def loss(self, part: MicroBatch) -> Tensor:
        """The loss of a micro-batch, summed over its targets, in nats."""


class NextToken:
    """Pretraining: predict each next token of packed documents."""

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
    ) -> None:
        self.num_steps = num_steps
        self.tokens_per_step = loader.batch_rows * loader.context
        self.model = model
        self._loader = loader
        self._device = device
        self._micro_batch_rows = micro_batch_rows
        self._within_documents = within_documents
        self._dropout = dropout
        self._loss: Callable[..., Tensor] = self._model_loss

    def batch(self, step: int) -> list[MicroBatch]:
        """The rows of ``step``: a pure function of the loader's seed and the step."""
        parts = []
        for number, first in enumerate(range(0, self._loader.batch_rows, self._micro_batch_rows)):
            rows = min(self._micro_batch_rows, self._loader.batch_rows - first)
            inputs, targets = self._loader.slice(step - 1, first, rows)
            documents = None
            if self._within_documents:
                documents = self._to_device(self._loader.document_ids(step - 1, first, rows))
            count = int((targets != IGNORE_INDEX).sum())
            seed = _dropout_seed(self._loader.seed, step, number)
            parts.append(
                MicroBatch(self._to_device(inputs), self._to_device(targets), count, seed, documents)
            )
        return parts

    def loss(self, part: MicroBatch) -> Tensor:
        """Cross-entropy summed over the micro-batch, in nats."""
        if self._dropout:
            torch.manual_seed(
                part.dropout_seed
            )  # what is left out is a function of the step, so it can be replayed
        return self._loss(part.inputs, part.targets, part.document_ids)

    def compile(self) -> None:
        """Compile forward and loss into one graph; the first use of it takes the time of a compilation."""
        options: dict[str, str | int | bool | Callable[..., object]] = {
            "fallback_random": True
        }  # dropout leaves out the same numbers compiled and not
        self._loss = torch.compile(self._model_loss, fullgraph=True, dynamic=False, options=options)

    def use_eager(self) -> None:
        """Go back to running the model's Python as it stands."""
        self._loss = self._model_loss

    def _model_loss(self, inputs: Tensor, targets: Tensor, document_ids: Tensor | None) -> Tensor:
        hidden = self.model.hidden(inputs, document_ids=document_ids, dropout=self._dropout)
        return summed_loss(hidden, targets, *self.model.unembedding())

    def _to_device(self, array: object) -> Tensor:
        tensor = torch.as_tensor(array)
        if self._device.kind == "cuda":
            return tensor.pin_memory().to(self._device.torch, non_blocking=True)
        return tensor.to(self._device.torch)


def _dropout_seed(seed: int, step: int, part: int) -> int:
    digest = hashlib.blake2b(f"dropout {seed} {step} {part}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
