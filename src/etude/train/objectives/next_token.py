"""Next-token prediction: predict each token of packed documents, or only those that count, from those before it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.config import NO_BASE
from etude.data.tokens.rows import TrainingRows, training_rows
from etude.device import Device, return_free_pages
from etude.model.dropout import Dropout, keep_masks, keep_scale
from etude.model.language_model import LanguageModel
from etude.model.run_layer import RunLayer, apply_layer, compiled_layer, compiles_by_layer
from etude.run.events import RowSource
from etude.train.batch import MicroBatch, Row, to_device
from etude.train.loss import summed_loss, token_losses
from etude.train.objectives.contract import LossScope, Objective, ObjectiveKind, ObjectiveParts
from etude.train.parallel import ALONE, Ranks

NEXT_TOKEN = "next-token"


class NextToken(Objective):
    """Predict the tokens of packed documents that ``scope`` counts; None counts all.

    Args:
        within_documents: limit attention to one document.
        dropout: probability.
        recompute: activation checkpointing: recompute each layer in the backward pass.
        lean: compute the loss as for a large vocabulary (:func:`etude.train.loss.summed_loss`).
        ranks: each of them has its own rows of a batch.
    """

    def __init__(
        self,
        model: LanguageModel,
        loader: TrainingRows,
        device: Device,
        *,
        num_steps: int,
        micro_batch_rows: int,
        scope: LossScope | None = None,
        within_documents: bool = False,
        dropout: float = 0.0,
        recompute: bool = False,
        lean: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self.num_steps = num_steps
        self.tokens_per_step = loader.batch_rows * loader.context
        self._loader = loader
        self._device = device
        self._scope = scope
        self._rows = ranks.rows(loader.batch_rows)
        self._micro_batch_rows = micro_batch_rows
        self._within_documents = within_documents
        self._dropout = dropout
        self._recompute = recompute
        self._lean = lean
        self._loss: Callable[..., Tensor] = self._model_loss  # or its compiled form
        self._run_layer: RunLayer = apply_layer  # or its compiled form

    def batch(self, step: int) -> list[MicroBatch]:
        """Return this rank's micro-batches, a pure function of the loader's seed and the step."""
        parts = []
        for first in self._rows[:: self._micro_batch_rows]:
            rows = min(self._micro_batch_rows, self._rows.stop - first)
            keep_mask = self._keep_mask(step, first, rows) if self._dropout else None
            part = self._part(step, first, rows, keep_mask)
            parts.append(replace(part, branch_rows=self._branch_rows(step, first, rows)))
        return parts

    def loss(self, part: MicroBatch) -> Tensor:
        """Return the weighted sum of the cross-entropies of a micro-batch, in nats."""
        masks = (part.keep_mask, part.branch_rows)
        return self._loss(part.inputs, part.targets, part.document_ids, masks, part.weights)

    def token_losses(self, logits: Tensor, row: Row) -> Tensor:
        """Return the cross-entropy (1, T) of each token of a row, in nats."""
        return token_losses(logits, row.targets)

    def row(self, part: MicroBatch, place: int) -> Row:
        """Return row ``place`` of a micro-batch, as input of the network, with its dropout."""
        row = slice(place, place + 1)
        return Row(
            part.inputs[row],
            part.targets[row],
            None if part.document_ids is None else part.document_ids[row],
            self._dropout_of(
                None if part.keep_mask is None else part.keep_mask[:, row],
                None if part.branch_rows is None else part.branch_rows[row],
            ),
            None if part.weights is None else part.weights[row],
        )

    def first_row(self, step: int, num_tokens: int) -> Row:
        """Return the first ``num_tokens`` of this rank's first row of ``step``, without dropout."""
        part = self._part(step, self._rows.start, 1, None, num_tokens)
        return Row(part.inputs, part.targets, part.document_ids, None, part.weights)

    def row_sources(self, step: int) -> list[RowSource]:
        """Return the documents in each row of the whole batch of ``step``."""
        return [RowSource(window.row, window.documents) for window in self._loader.windows_at(step - 1)]

    def halve_micro_batches(self) -> int | None:
        """Halve the rows of all further micro-batches. Returns their number, None if it is already 1."""
        if self._micro_batch_rows == 1:
            return None
        self._micro_batch_rows //= 2
        return self._micro_batch_rows

    def compile(self) -> None:
        """Compile at the next call of :meth:`loss`: forward pass and loss into one graph, or layer by layer."""
        if self._by_layer:
            self._run_layer = compiled_layer()
        else:
            self._loss = torch.compile(self._model_loss, fullgraph=True, dynamic=False)

    def use_eager(self) -> None:
        """Switch back to eager mode."""
        self._loss, self._run_layer = self._model_loss, apply_layer

    @property
    def _by_layer(self) -> bool:
        """Whether one compiled layer serves all: with a lean loss, as a large network has many layers."""
        return self._lean and compiles_by_layer(self.model.config, self._dropout)

    def _part(
        self, step: int, first: int, rows: int, keep_mask: Tensor | None, num_tokens: int | None = None
    ) -> MicroBatch:
        """Return rows [first, first + rows) of ``step``, or the first ``num_tokens`` of each."""
        loader, of_rows = self._loader, (step - 1, first, rows)  # the loader counts steps from 0
        inputs, targets = (np.ascontiguousarray(array[:, :num_tokens]) for array in loader.slice(*of_rows))
        documents = mask = weights = None
        if self._within_documents:
            documents = np.ascontiguousarray(loader.document_ids(*of_rows)[:, :num_tokens])
        if self._scope is not None:
            places = loader.target_places(*of_rows)[:, :num_tokens]
            mask, weights = self._scope.mask(loader.part, places), self._scope.weights(loader.part, places)
        return MicroBatch.of(
            inputs,
            targets,
            self._device,
            loss_mask=mask,
            weights=weights,
            document_ids=documents,
            keep_mask=keep_mask,
        )

    def _model_loss(
        self,
        inputs: Tensor,
        targets: Tensor,
        document_ids: Tensor | None,
        masks: tuple[Tensor | None, Tensor | None],
        weights: Tensor | None,
    ) -> Tensor:
        """Run the forward pass and return the summed loss. :meth:`compile` compiles this method."""
        dropout = self._dropout_of(*masks)
        hidden = self._hidden(inputs, document_ids, dropout)
        if self._lean and not torch.compiler.is_compiling():
            return_free_pages()  # most memory is in use now
        head = self.model.unembedding()
        return summed_loss(hidden, targets, *head, token_weights=weights, lean=self._lean)

    def _hidden(self, inputs: Tensor, document_ids: Tensor | None, dropout: Dropout | None) -> Tensor:
        """Return the hidden states of a micro-batch (B, T, D)."""
        takes_runner = self.model.config.family.compiles_by_layer
        options: dict[str, Any] = {"run_layer": self._run_layer} if takes_runner else {}
        return self.model.hidden(
            inputs, document_ids=document_ids, dropout=dropout, recompute=self._recompute, **options
        )

    def _dropout_of(self, keep_mask: Tensor | None, branch_rows: Tensor | None) -> Dropout | None:
        if keep_mask is None and branch_rows is None:
            return None
        return Dropout(keep_mask, keep_scale(self._dropout), branch_rows)

    def _branch_rows(self, step: int, first_row: int, rows: int) -> Tensor | None:
        """Return the dropout seed and the number (rows, 2) of each row; None without dropout in branches."""
        adapter = self.model.config.adapter
        if adapter is None or not adapter.dropout:
            return None
        seed, numbers = _dropout_seed(self._loader.seed, step), np.arange(first_row, first_row + rows)
        return to_device(np.stack([np.full(rows, seed), numbers], axis=1), self._device)

    def _keep_mask(self, step: int, first_row: int, rows: int) -> Tensor:
        """Return the dropout masks (P, rows, T, D) of rows [first_row, first_row + rows) of ``step``."""
        shape = self.model.dropout_shape(rows, self._loader.context)
        seed = _dropout_seed(self._loader.seed, step)
        return keep_masks(self._dropout, seed, first_row, shape, self._device.torch)


def next_token(parts: ObjectiveParts) -> NextToken:
    """Build next-token prediction on the training text of a run, for the tokens of its scope."""
    arguments, options = next_token_arguments(parts)
    return NextToken(*arguments, **options)


def next_token_arguments(parts: ObjectiveParts) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a :class:`NextToken` on the training text of a run, by position and by name."""
    train = parts.settings.train
    loader = training_rows(
        parts.data.train,
        context=train.context,
        batch_rows=train.batch_rows,
        seed=parts.settings.run.seed,
    )
    options = {
        "num_steps": train.steps,
        "micro_batch_rows": parts.micro_batch_rows,
        "scope": parts.scope,
        "within_documents": not parts.settings.data.cross_document_attention,
        "dropout": train.dropout,
        "recompute": train.activation_checkpointing,
        "lean": parts.settings.model.base != NO_BASE,
        "ranks": parts.ranks,
    }
    return (parts.model, loader, parts.device), options


OBJECTIVE = ObjectiveKind(next_token)


def _dropout_seed(seed: int, step: int) -> int:
    """Hash run seed and step into the 32-bit dropout seed of the step."""
    digest = hashlib.blake2b(f"dropout {seed} {step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little", signed=True)
