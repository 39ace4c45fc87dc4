"""How much the held-out loss depends on which text happened to be held out.

The naive standard error of a mean over tokens is too small, since the tokens of one document are alike. So the text is
divided into clusters (documents, or windows where documents are few), and the loss is a ratio of two sums over clusters
(Cochran 1977, "Sampling Techniques", section 6.3). Two checkpoints are compared on the same clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.rows import EvaluationRows
from etude.model.language_model import LanguageModel
from etude.train.loss import token_losses
from etude.train.objectives import LossScope
from etude.train.validation import counted_batch

Float64 = npt.NDArray[np.float64]
SCORED_TOKENS = 65_536
"""Most held-out tokens scored; the standard error of more tokens is extrapolated."""
TOKENS_AT_ONCE = 8192
FEWEST_CLUSTERS = 10
"""Fewer clusters give no reliable standard error."""


@dataclass(frozen=True)
class LossSpread:
    """Summed losses by cluster, of the newest checkpoint and of the one before it on the same text.

    Attributes:
        steps: of the earlier checkpoint (None if there is none) and of the newest.
        tokens: (clusters,) tokens that the loss counts in each, or the sum of their weights.
        nats, earlier_nats: (clusters,) summed losses, times the weights.
        evaluated_tokens: that each evaluation of the run reads; the tokens scored here are the first of them.
        counted: of those, the tokens that the loss counts, or the sum of their weights; None if all.
    """

    steps: tuple[int | None, int]
    unit: Literal["documents", "windows"]
    tokens: Float64
    nats: Float64
    earlier_nats: Float64 | None
    evaluated_tokens: int
    counted: float | None = None

    @property
    def loss(self) -> float:
        """Nats per token of the newest checkpoint."""
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def error(self) -> float:
        """Standard error of an evaluation's loss, nats per token."""
        return self._of_an_evaluation(ratio_error(self.nats, self.tokens))

    @property
    def difference(self) -> tuple[float, float] | None:
        """How far the loss fell from the earlier checkpoint to the newest, and its standard error; None without an
        earlier one."""
        if self.earlier_nats is None:
            return None
        fell = self.earlier_nats - self.nats
        return float(fell.sum() / self.tokens.sum()), self._of_an_evaluation(ratio_error(fell, self.tokens))

    def _of_an_evaluation(self, error: float) -> float:
        evaluated = self.evaluated_tokens if self.counted is None else self.counted
        return error * math.sqrt(self.tokens.sum() / evaluated)


def ratio_error(sums: Float64, sizes: Float64) -> float:
    """Return the standard error of sum(sums) / sum(sizes) over independent clusters, by linearisation."""
    count = len(sums)
    residuals = sums - sums.sum() / sizes.sum() * sizes
    return float(math.sqrt(count / (count - 1) * np.square(residuals).sum()) / sizes.sum())


def spread(
    newest: tuple[int, LanguageModel],
    earlier: tuple[int, LanguageModel] | None,
    windows: EvaluationRows,
    *,
    within_documents: bool = False,
    scope: LossScope | None = None,
) -> LossSpread | None:
    """Score the first :data:`SCORED_TOKENS` of ``windows``; None if they are fewer than FEWEST_CLUSTERS.

    ``scope`` is that of the run's loss: tokens that it does not count are read, but not scored. Sizes of clusters are
    sums of its weights.
    """
    count = min(len(windows), max(1, SCORED_TOKENS // windows.context))
    if count < FEWEST_CLUSTERS:
        return None
    losses, sizes, documents = _losses(newest[1], windows, count, within_documents, scope)
    before = None if earlier is None else _losses(earlier[1], windows, count, within_documents, scope)[0]
    real = sizes > 0
    unit: Literal["documents", "windows"] = "documents"
    clusters = documents - documents.min()
    if len(np.unique(clusters)) < FEWEST_CLUSTERS:
        unit, clusters = "windows", np.broadcast_to(np.arange(count)[:, None], losses.shape)

    def by_cluster(values: Float64) -> Float64:
        totals = np.bincount(clusters[real], weights=values[real]).astype(np.float64)
        nonempty: Float64 = totals[np.bincount(clusters[real]) > 0]
        return nonempty

    return LossSpread(
        (None if earlier is None else earlier[0], newest[0]),
        unit,
        by_cluster(sizes),
        by_cluster(losses),
        None if before is None else by_cluster(before),
        windows.num_targets,
        None if scope is None else _counted(windows, scope),
    )


def _counted(windows: EvaluationRows, scope: LossScope) -> float:
    """Return the number of tokens that the loss counts in all ``windows``, or the sum of their weights."""
    total = 0.0
    for first in range(0, len(windows), 256):
        _, targets, weights = counted_batch(windows, first, 256, scope)
        total += float((targets != IGNORE_INDEX).sum() if weights is None else weights.sum())
    return total


@torch.no_grad()
def _losses(
    model: LanguageModel,
    windows: EvaluationRows,
    count: int,
    within_documents: bool,
    scope: LossScope | None,
) -> tuple[Float64, Float64, npt.NDArray[np.int64]]:
    """Return (count, T) each of the first ``count`` windows: weighted nats, weights (0 if not counted), documents."""
    device = model.unembedding()[0].device
    rows = max(1, TOKENS_AT_ONCE // windows.context)
    nats, sizes, documents = [], [], []
    for first in range(0, count, rows):
        inputs, targets, weights = counted_batch(windows, first, min(rows, count - first), scope)
        numbers = windows.document_ids(first, len(inputs))
        ids = torch.from_numpy(numbers).to(device) if within_documents else None
        logits = model(torch.from_numpy(inputs).to(device), document_ids=ids)
        losses = token_losses(logits, torch.from_numpy(targets).to(device)).double().cpu().numpy()
        sizes.append(
            (targets != IGNORE_INDEX).astype(np.float64) if weights is None else weights.astype(np.float64)
        )
        nats.append(losses * sizes[-1])
        documents.append(numbers)
    return np.concatenate(nats), np.concatenate(sizes), np.concatenate(documents)
