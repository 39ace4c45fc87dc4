"""Direct preference optimization: a chosen answer gains on a rejected one, compared with the network at step 0.

The loss of a pair is -log sigmoid(beta * ((log p(c) - log q(c)) - (log p(r) - log q(r)))), where p(c) and p(r) are the
probabilities of the chosen and the rejected answer, their ends of turn included, and q those of the reference: the
network at step 0 (Rafailov et al. 2023, "Direct preference optimization: your language model is secretly a reward
model", equation 7). The loss of a step is the mean over the pairs of its batch.

Only the difference of two log-probabilities is trained, so both may fall. :class:`HeldOutPairs` measures each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from etude.config import Resolved, Settings
from etude.data.prepared_data import PreparedData
from etude.data.tokens.coverage import IGNORE_INDEX, is_text
from etude.data.tokens.packing import PackedLoader, PackedWindows, Packing
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.errors import EtudeError, InputError
from etude.model.language_model import LanguageModel
from etude.run.events import PreferenceEvent
from etude.train.batch import Int64, Mask, MicroBatch, Row, to_device
from etude.train.loss import MOST_LOGITS, piece_positions, token_losses, trained_losses
from etude.train.objectives.contract import ObjectiveKind, ObjectiveParts
from etude.train.objectives.conversation import NAMES, TrainedTokens
from etude.train.objectives.next_token import NextToken, next_token_arguments
from etude.train.validation import Score, ValidationText

PREFERENCE = "preference"
CHOSEN = "the chosen answers of pairs"
REFERENCE_PARTS = ("train", "validation")
"""Names of the tables of the reference: (examples, 2) log-probabilities of the chosen and the rejected answer, NaN for
examples that do not fit into a row."""

ROUNDING = 1e-4
"""Nats; a smaller gain of the chosen answer is none. At step 0 all gains are zero but for rounding."""


@dataclass(frozen=True)
class PairBatch(MicroBatch):
    """Rows of pairs.

    Attributes:
        counts: (P, 2) trained tokens of the chosen and the rejected answer of each pair, in the order of the rows.
        reference: (P, 2) log-probabilities of these answers at step 0.
        pairs_before: (B + 1,) number of pairs before each row, then of all.
    """

    counts: tuple[tuple[int, int], ...] = ()
    reference: Float[Tensor, "P 2"] | None = None
    pairs_before: tuple[int, ...] = ()

    @property
    def total_weight(self) -> int:
        """The number of pairs."""
        return len(self.counts)

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor of the micro-batch."""
        return [*super().tensors, *(() if self.reference is None else (self.reference,))]


@dataclass(frozen=True)
class PairRow(Row):
    """A row of pairs; ``counts`` and ``reference`` as in :class:`PairBatch`."""

    counts: tuple[tuple[int, int], ...] = ()
    reference: Float[Tensor, "P 2"] | None = None


def answer_log_probabilities(
    losses: Float[Tensor, " N"], counts: Sequence[tuple[int, int]]
) -> Float[Tensor, "P 2"]:
    """Return the log-probabilities of answers, the negative sums of the cross-entropies of their trained tokens.

    Summed in double precision, where the device has it: the loss depends on small differences of large sums.
    """
    precise = losses if losses.device.type == "mps" else losses.double()
    answers = torch.split(precise, [count for pair in counts for count in pair])
    return -torch.stack([answer.sum() for answer in answers]).view(-1, 2)


def pair_logits(
    log_probabilities: Float[Tensor, "P 2"], reference: Float[Tensor, "P 2"], beta: float
) -> Float[Tensor, " P"]:
    """Return beta times the gain of the chosen answer on the rejected one, relative to the reference."""
    gains = log_probabilities - reference  # (P, 2)
    return beta * (gains[:, 0] - gains[:, 1])


class Preference(NextToken):
    """Rows of pairs, and their loss. See :class:`NextToken` for the other arguments.

    Args:
        reference: (examples, 2) log-probabilities at step 0 of the answers of each training example; None: all 0.
    """

    def __init__(self, *arguments: object, beta: float, reference: Tensor | None, **others: object) -> None:
        super().__init__(*arguments, **others)  # type: ignore[arg-type]
        assert isinstance(self._loader, PackedLoader)
        self._packed = self._loader
        self._beta = beta
        self._reference = None if reference is None else reference.numpy()
        self._compiled = False

    def loss(self, part: MicroBatch) -> Tensor:
        """Return the sum of the losses of the pairs in a micro-batch."""
        assert isinstance(part, PairBatch)
        assert part.reference is not None
        if self._compiled:
            raise EtudeError("the number of pairs changes from batch to batch")
        dropout = self._dropout_of(part.keep_mask, part.branch_rows)
        hidden = self._hidden(part.inputs, part.document_ids, dropout)
        head = self.model.unembedding()
        losses = trained_losses(hidden, part.targets, *head, at_once=answers_at_once(head[0]))
        logits = pair_logits(answer_log_probabilities(losses, part.counts), part.reference, self._beta)
        return F.softplus(-logits).sum().to(head[0].dtype)

    def token_losses(self, logits: Tensor, row: Row) -> Tensor:
        """Return the share (1, T) of each trained token in the losses of the row's pairs.

        The loss belongs to pairs. Its gradient is that of the cross-entropies of tokens, times a slope that all tokens
        of a pair share: minus for the rejected answer. A share is this product, plus the same number for all tokens of
        a pair, such that the shares add up to the loss, and their gradients to its gradient.
        """
        assert isinstance(row, PairRow)
        assert row.reference is not None
        every = token_losses(logits, row.targets)  # (1, T)
        real = row.targets != IGNORE_INDEX
        losses = every[real]  # (N,)
        gains = pair_logits(
            answer_log_probabilities(losses, row.counts), row.reference.to(every.device), self._beta
        ).detach()
        slopes = self._beta * torch.sigmoid(-gains)
        counts = torch.tensor(row.counts, device=every.device)  # (P, 2)
        of_answers = torch.stack([slopes, -slopes], dim=1).flatten()
        products = losses * of_answers.repeat_interleave(counts.flatten()).to(losses.dtype)
        of_pairs = torch.split(products.detach().double(), counts.sum(1).tolist())
        whole = torch.stack([part.sum() for part in of_pairs])
        missing = (F.softplus(-gains) - whole) / counts.sum(1)
        shares = products + missing.repeat_interleave(counts.sum(1)).to(losses.dtype)
        return torch.zeros_like(every).masked_scatter(real, shares)

    def row(self, part: MicroBatch, place: int) -> Row:
        """Return row ``place`` of a micro-batch, as input of the network, with its dropout."""
        assert isinstance(part, PairBatch)
        assert part.reference is not None
        plain, pairs = super().row(part, place), slice(*part.pairs_before[place : place + 2])
        values = {field.name: getattr(plain, field.name) for field in fields(Row)}
        return PairRow(**values, counts=part.counts[pairs], reference=part.reference[pairs])

    def compile(self) -> None:
        """Compile layer by layer. Otherwise let the next :meth:`loss` fail: the number of pairs changes."""
        if self._by_layer:
            super().compile()
        else:
            self._compiled = True

    def use_eager(self) -> None:
        """Switch back to eager mode."""
        super().use_eager()
        self._compiled = False

    def _part(
        self, step: int, first: int, rows: int, keep_mask: Tensor | None, num_tokens: int | None = None
    ) -> MicroBatch:
        part = super()._part(step, first, rows, keep_mask, num_tokens)
        if num_tokens is not None:  # for a look at the network, without a loss
            return part
        of_rows = [self._packed.pairs(step - 1, row, 1) for row in range(first, first + rows)]
        numbers = np.concatenate([numbers for numbers, _ in of_rows])
        counts = np.concatenate([counts for _, counts in of_rows])
        reference = np.zeros(counts.shape) if self._reference is None else self._reference[numbers]
        before = np.cumsum([0, *(len(numbers) for numbers, _ in of_rows)])
        values = {field.name: getattr(part, field.name) for field in fields(MicroBatch)}
        return PairBatch(
            **values,
            counts=tuple((int(chosen), int(rejected)) for chosen, rejected in counts),
            reference=_to_device(reference, self._device),
            pairs_before=tuple(before.tolist()),
        )


def answers_at_once(weight: Tensor) -> int:
    """Return the positions whose logits are in memory together: three tables of that size are, in the backward pass."""
    return max(1, piece_positions(weight.shape[0], lean=True) // 3)


def _to_device(values: np.ndarray, device: Device) -> Tensor:  # type: ignore[type-arg]
    return to_device(values.astype(np.float32 if device.kind == "mps" else np.float64), device)  # type: ignore[arg-type]


class ChosenTokens(TrainedTokens):
    """The trained tokens of chosen answers: what evaluations score as text, beside the pairs."""

    def mask(self, part: TokenPart, places: Int64) -> Mask:
        """Return which of the tokens at ``places`` are trained tokens of a chosen answer."""
        assert part.examples is not None
        assert part.examples.rejected is not None
        second = part.examples.rejected[part.document_numbers(places)]
        mask: Mask = super().mask(part, places) & (places < second)
        return mask


def chosen_tokens(data: PreparedData, settings: Settings) -> ChosenTokens:
    """Return the scope of evaluations: the chosen answers."""
    assert data.validation.examples is not None
    return ChosenTokens(CHOSEN, data.validation.examples)


def require_pairs(data: PreparedData, settings: Settings) -> None:
    """Raise InputError for data that are no pairs of answers."""
    for part in (data.train, data.validation):
        if part.examples is None or part.examples.rejected is None:
            raise InputError(
                f"train.objective={PREFERENCE} is for pairs of answers: omit it, or give rows with prompt, chosen and "
                "rejected"
            )


def preference(parts: ObjectiveParts) -> Preference:
    """Build the objective on the training pairs of a run."""
    examples = parts.data.train.examples
    assert examples is not None
    arguments, options = next_token_arguments(parts)
    options["scope"] = TrainedTokens(NAMES[parts.settings.data.mask], examples)  # of both answers
    reference = None if parts.constants is None else parts.constants[REFERENCE_PARTS[0]]
    return Preference(*arguments, **options, beta=parts.settings.train.beta, reference=reference)


@torch.no_grad()
def _answers(
    model: LanguageModel, packing: Packing, device: Device
) -> Iterator[tuple[Int64, list[tuple[int, int]], Float[Tensor, " N"], Int64]]:
    """Yield the answers in packed rows, some rows at a time.

    Yields:
        The numbers of the pairs; the trained tokens of both answers of each; the cross-entropies of these tokens, in
        order; and their ids.
    """
    examples = packing.part.examples
    assert examples is not None
    head = model.unembedding()
    vocabulary = head[0].shape[0]
    rows_at_once = max(1, MOST_LOGITS // vocabulary // packing.context)
    for first in range(0, len(packing.rows), rows_at_once):
        rows = np.arange(first, min(first + rows_at_once, len(packing.rows)))
        inputs, targets = packing.batch(rows)
        trained = examples.trained[packing.stacked(rows, 2)]
        targets = np.where(trained, targets, IGNORE_INDEX)
        owners = to_device(packing.stacked(rows, 3), device)
        with device.autocast():
            hidden = model.hidden(to_device(inputs, device), document_ids=owners)
            losses = trained_losses(
                hidden, to_device(targets, device), *head, at_once=answers_at_once(head[0])
            )
        numbers, counts = packing.pairs(rows)
        pairs = [(int(chosen), int(rejected)) for chosen, rejected in counts]
        yield numbers, pairs, losses, targets[targets != IGNORE_INDEX]


def log_probabilities(
    model: LanguageModel, packing: Packing, device: Device
) -> tuple[Int64, Float[Tensor, "P 2"]]:
    """Return the numbers of the pairs in packed rows, and the log-probabilities of their answers, in float64."""
    numbers, found = [], []
    for in_rows, counts, losses, _ in _answers(model, packing, device):
        numbers.append(in_rows)
        found.append(answer_log_probabilities(losses, counts).cpu().double())
    return np.concatenate(numbers), torch.cat(found)


def reference_log_probabilities(
    model: LanguageModel, data: PreparedData, settings: Resolved, device: Device
) -> Mapping[str, Tensor]:
    """Return the log-probabilities of all answers under ``model``, that of step 0, for both parts of the data."""
    tables = {}
    for name, part in zip(REFERENCE_PARTS, (data.train, data.validation), strict=True):
        packing = Packing.of(part, settings.train.context)
        numbers, values = log_probabilities(model, packing, device)
        tables[name] = torch.full((part.num_documents, 2), torch.nan, dtype=torch.float64)
        tables[name][torch.from_numpy(numbers)] = values
    return tables


@dataclass(frozen=True)
class HeldOutPairs:
    """Measure the held-out pairs: their loss, how often the chosen answer gains, and the probability of each.

    Attributes:
        text: the chosen answers, which evaluations score as text.
        reference: (examples, 2) log-probabilities at step 0.
    """

    text: ValidationText
    beta: float
    reference: Tensor

    @classmethod
    def of(cls, text: ValidationText, settings: Resolved, constants: Mapping[str, Tensor]) -> HeldOutPairs:
        """Return the measure of a run with these settings, whose reference is in ``constants``."""
        return cls(text, settings.train.beta, constants[REFERENCE_PARTS[1]])

    def __call__(
        self, model: LanguageModel, step: int, tokens_seen: int, wall_time: float
    ) -> tuple[PreferenceEvent, Score]:
        """Return the means over the pairs, for the log, and the score of the text. Each answer is read once."""
        windows, not_text = self.text.windows, self.text.part.not_text
        assert isinstance(windows, PackedWindows)
        chosen_nats, text_nats, num_chosen = 0.0, 0.0, 0
        numbers, found = [], []
        for in_rows, counts, losses, ids in _answers(model, windows.packing, self.text.device):
            numbers.append(in_rows)
            found.append(answer_log_probabilities(losses, counts).cpu().double())
            of_chosen = torch.tensor([True, False]).repeat(len(counts))
            of_chosen = of_chosen.repeat_interleave(torch.tensor(counts).flatten())
            nats = losses.cpu().double()[of_chosen]
            chosen_nats += nats.sum().item()
            text_nats += nats[torch.from_numpy(is_text(ids, not_text))[of_chosen]].sum().item()
            num_chosen += len(nats)
        answers = torch.cat(found)
        logits = pair_logits(answers, self.reference[torch.from_numpy(np.concatenate(numbers))], self.beta)
        event = PreferenceEvent(
            step,
            tokens_seen,
            wall_time,
            float(F.softplus(-logits).mean()),
            float((logits > self.beta * ROUNDING).double().mean()),
            float(answers[:, 0].mean()),
            float(answers[:, 1].mean()),
            len(answers),
        )
        bits_per_byte = text_nats / math.log(2) / self.text.source_bytes
        return event, Score(chosen_nats / num_chosen, bits_per_byte, num_chosen)


OBJECTIVE = ObjectiveKind(preference, chosen_tokens, require_pairs, reference_log_probabilities)
