"""Evaluate a model on held-out text: loss and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from etude.data.tokens.coverage import IGNORE_INDEX, is_text
from etude.data.tokens.packing import PackedWindows
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.rows import EvaluationRows, evaluation_windows
from etude.device import Device
from etude.errors import InputError
from etude.model.language_model import LanguageModel
from etude.train.batch import Int64, Weights
from etude.train.divided import release_gathered
from etude.train.loss import token_losses
from etude.train.objectives import LossScope
from etude.train.parallel import ALONE, Ranks

TOKENS_AT_ONCE = 8192
"""Tokens in one forward pass, at most; limits the memory of the logits."""


@dataclass(frozen=True)
class Score:
    """The result of scoring a text."""

    loss: float  # nats per counted token, including the ends of documents, as in training
    bits_per_byte: float  # without the ends of documents, which are not text
    num_tokens: int  # counted tokens


@dataclass(frozen=True)
class ValidationText:
    """The first ``max_tokens`` tokens (or all) of the held-out part, in consecutive windows of ``context`` tokens.

    Every token is predicted exactly once, from the tokens before it in its window. All evaluations use the same text,
    so differences come from the model alone.

    Attributes:
        scope: the tokens and bytes that count; None: all. With the scope of the objective, the loss is comparable with
            that of training.
        at_once: tokens in one forward pass, at most.
        documents: returns the documents in the first so many bytes of the part. Only :meth:`texts` of a text needs it.
    """

    part: TokenPart
    context: int
    device: Device
    max_tokens: int | None = None
    within_documents: bool = False
    scope: LossScope | None = None
    documents: Callable[[int], Iterable[bytes]] | None = None
    at_once: int = TOKENS_AT_ONCE

    @cached_property
    def windows(self) -> EvaluationRows:
        """The windows that cover the text."""
        return evaluation_windows(self.part, self.context, self.max_tokens)

    @property
    def covered_bytes(self) -> int:
        """UTF-8 bytes of the text in the windows, whether counted or not."""
        return self.windows.source_bytes

    def texts(self) -> Iterable[bytes]:
        """Return the texts of the documents in the windows."""
        if isinstance(self.windows, PackedWindows):
            return self.windows.texts()
        assert self.documents is not None, "this text is scored without its documents"
        return self.documents(self.covered_bytes)

    @cached_property
    def source_bytes(self) -> int:
        """UTF-8 bytes of the counted text.

        Raises:
            InputError: no byte counts.
        """
        if self.scope is None:
            return self.covered_bytes
        num_bytes = sum(int(self.scope.bytes_counted(document).sum()) for document in self.texts())
        if not num_bytes:
            raise InputError(
                f"the loss counts nothing ({self.scope.name}) of the held-out text that is evaluated: evaluate on more "
                "of it (--set train.eval_tokens), or hold out more (--set data.validation_fraction)"
            )
        return num_bytes

    @torch.no_grad()
    def score(self, model: LanguageModel, ranks: Ranks = ALONE) -> Score:
        """Return loss and bits per byte of ``model`` on the text.

        Of a network that is divided among ``ranks``, each rank scores a share of the windows, and all get the result.

        Raises:
            InputError: no token counts.
        """
        source_bytes, device = self.source_bytes, self.device.torch
        rows = max(1, self.at_once // self.context)
        all_nats, text_nats, total_weight, num_tokens = 0.0, 0.0, 0.0, 0
        for first, counts in _shares(len(self.windows), rows, ranks):
            inputs, targets, weights = counted_batch(self.windows, first, rows, self.scope)
            documents = None
            if self.within_documents:
                documents = torch.from_numpy(self.windows.document_ids(first, rows)).to(device)
            with self.device.autocast():
                logits = model(torch.from_numpy(inputs).to(device), document_ids=documents)
            if not counts:
                continue
            losses = token_losses(logits, torch.from_numpy(targets).to(device)).cpu().double()  # (rows, T)
            text_nats += losses[torch.from_numpy(is_text(targets, self.part.not_text))].sum().item()
            counted = int((targets != IGNORE_INDEX).sum())
            if weights is not None:
                losses = losses * torch.from_numpy(weights)
            all_nats += losses.sum().item()
            total_weight += counted if weights is None else weights.sum(dtype=np.float64).item()
            num_tokens += counted
        if ranks.divided:
            release_gathered(model)
            sums = ranks.totals([all_nats, text_nats, total_weight, num_tokens])
            all_nats, text_nats, total_weight, num_tokens = *sums[:3], int(sums[3])
        return Score(
            loss=all_nats / total_weight,
            bits_per_byte=text_nats / math.log(2) / source_bytes,
            num_tokens=num_tokens,
        )


def _shares(num_windows: int, rows: int, ranks: Ranks) -> Iterator[tuple[int, bool]]:
    """Yield the first window of each batch of this rank, and whether it counts.

    The ranks take turns, and all run the network equally often, since it gathers its parameters from all of them: a
    rank for which no batch is left runs the first one again.
    """
    if not ranks.divided:
        yield from ((first, True) for first in range(0, num_windows, rows))
        return
    for turn in range(0, num_windows, rows * ranks.count):
        first = turn + rows * ranks.rank
        yield (first, True) if first < num_windows else (0, False)


def counted_batch(
    windows: EvaluationRows, first: int, count: int, scope: LossScope | None
) -> tuple[Int64, Int64, Weights | None]:
    """Return windows [first, first + count): (inputs, targets, weights), each (rows, T).

    Targets are ``IGNORE_INDEX`` after the last token and where ``scope`` does not count them; weights are 0 there, or
    None if all counted tokens have the same weight.
    """
    inputs, targets = windows.batch(first, count)
    if scope is None:
        return inputs, targets, None
    places = windows.target_places(first, count)
    mask, weights = scope.mask(windows.part, places), scope.weights(windows.part, places)
    counted = targets != IGNORE_INDEX
    if mask is not None:
        counted &= mask
    if weights is not None:
        counted &= weights > 0
        weights = np.where(counted, weights, 0).astype(np.float32)
    return inputs, np.where(counted, targets, IGNORE_INDEX), weights
