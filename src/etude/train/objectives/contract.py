"""The contract of an objective: the batches of a run, their loss, and the tokens that this loss counts.

The loop, the compiler, the time machine, the evaluations and the doctor depend only on :class:`Objective`. To add one,
register an :class:`ObjectiveKind` in :data:`etude.registry.OBJECTIVES`; ``train.objective`` can then name it. Most need
only a :class:`LossScope`: the tokens that count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from etude.config import Resolved, Settings
from etude.data.prepared_data import PreparedData
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.errors import InputError
from etude.model.language_model import LanguageModel
from etude.registry import OBJECTIVES
from etude.run.events import RowSource
from etude.train.batch import Int64, Mask, MicroBatch, Row, Weights
from etude.train.parallel import Ranks


class Objective(Protocol):
    """The batches and the loss of a run.

    The loss of a step is the mean, in nats per token, over all tokens in the loss masks of its whole batch (all
    micro-batches of all ranks); with weights, the weighted mean. A step divides the sum of :meth:`loss` by the sum of
    ``MicroBatch.total_weight``.

    Attributes:
        model: the network that is trained.
        num_steps: planned number of steps of the run.
        tokens_per_step: tokens that the network reads in a step, over all ranks, counted by the loss or not.
        reads_weights: whether a batch depends on the weights before its step; then it cannot be prefetched.
    """

    model: LanguageModel
    num_steps: int
    tokens_per_step: int
    reads_weights: bool = False

    def batch(self, step: int) -> Sequence[MicroBatch]:
        """Return this rank's micro-batches for the update that leads to ``step`` (from 1), on the device.

        They depend on the settings and the step alone, or on the weights too (``reads_weights``). Another thread may
        call this method, one call at a time.
        """

    def loss(self, part: MicroBatch) -> Tensor:
        """Return the loss of a micro-batch: the weighted sum over its trained tokens, in nats."""

    def token_losses(self, logits: Tensor, row: Row) -> Tensor:
        """Return the unweighted loss (1, T) of each token of a row in nats, 0 for tokens that do not count.

        ``logits`` are those of the row, (1, T, V). :meth:`loss` is the weighted sum of these losses over the rows.
        """

    def row(self, part: MicroBatch, place: int) -> Row:
        """Return row ``place`` of a micro-batch, as input of the network, with its dropout."""

    def first_row(self, step: int, num_tokens: int) -> Row:
        """Return the first ``num_tokens`` of this rank's first row of ``step``, without dropout."""

    def row_sources(self, step: int) -> Sequence[RowSource]:
        """Return the source of each row in the whole batch of ``step``."""

    def halve_micro_batches(self) -> int | None:
        """Halve the rows of all further micro-batches. Returns their number, None if it is already 1."""

    def compile(self) -> None:
        """Compile :meth:`loss`, or parts of it. Its next call triggers the compilation."""

    def use_eager(self) -> None:
        """Switch back to eager mode."""


class LossScope(Protocol):
    """The tokens of a text that a loss counts: in training, in evaluations, and in the scores of n-gram models.

    All methods are pure functions of the text.

    Attributes:
        name: describes these tokens, such as "what follows '='". Scores of different scopes are not comparable.
    """

    name: str

    def mask(self, part: TokenPart, places: Int64) -> Mask | None:
        """Return which of the tokens at ``places`` of a part count as targets, in the same shape. None: all.

        ``places`` are indices into the tokens as a ring: they may exceed its length, and wrap around.
        """

    def weights(self, part: TokenPart, places: Int64) -> Weights | None:
        """Return the weights of the tokens at ``places`` in the loss, in the same shape. None: 1 each."""

    def bytes_counted(self, document: bytes) -> npt.NDArray[np.bool_]:
        """Return which bytes (N,) of a document's text belong to tokens that count."""


@dataclass(frozen=True)
class ObjectiveParts:
    """The arguments from which an objective is built, in one process of a run.

    ``scope`` is the one of the objective's kind; ``micro_batch_rows`` may be fewer than in the settings. ``constants``
    are those of the run, if its kind has some; None to measure the speed of a step, which does not depend on them.
    """

    model: LanguageModel
    data: PreparedData
    settings: Resolved
    device: Device
    ranks: Ranks
    micro_batch_rows: int
    scope: LossScope | None
    constants: Mapping[str, Tensor] | None = None


Constants = Callable[[LanguageModel, PreparedData, Resolved, Device], Mapping[str, Tensor]]
"""Computes what a loss needs of the network at step 0. It is computed once, and stored with the run."""


def _whole_text(data: PreparedData, settings: Settings) -> LossScope | None:
    return None


def _any_text(data: PreparedData, settings: Settings) -> None:
    pass


@dataclass(frozen=True)
class ObjectiveKind:
    """An objective that ``train.objective`` can name.

    Attributes:
        make: builds the objective of a run.
        scope: returns the scope of the loss; None: all tokens count.
        require: raises InputError where text or settings do not fit the objective. It is called before the run folder
            is created.
        constants: computes the numbers of the network at step 0 that the loss needs; None: it needs none.
    """

    make: Callable[[ObjectiveParts], Objective]
    scope: Callable[[PreparedData, Settings], LossScope | None] = _whole_text
    require: Callable[[PreparedData, Settings], None] = _any_text
    constants: Constants | None = None


_MEMBERS = (
    *(name for name in Objective.__annotations__ if not hasattr(Objective, name)),  # others have a default
    *(name for name, value in vars(Objective).items() if callable(value) and not name.startswith("_")),
)


def objective_kind(name: str) -> ObjectiveKind:
    """Return the objective kind that ``train.objective`` calls ``name``.

    Raises:
        InputError: unknown name.
    """
    kind: ObjectiveKind = OBJECTIVES.get(name)
    return kind


def require_kind(kind: object) -> None:
    """Raise InputError unless ``kind`` can be registered."""
    if not isinstance(kind, ObjectiveKind):
        raise InputError(f"an objective is registered as an ObjectiveKind, not as {type(kind).__name__}")
    for name in ("make", "scope", "require"):
        if not callable(getattr(kind, name)):
            raise InputError(f"'{name}' of an ObjectiveKind must be a function")
    if kind.constants is not None and not callable(kind.constants):
        raise InputError("'constants' of an ObjectiveKind must be a function or None")


def require_objective(objective: object) -> None:
    """Raise InputError unless ``objective`` has every member of an :class:`Objective`."""
    missing = [name for name in _MEMBERS if not hasattr(objective, name)]
    if missing:
        raise InputError(f"the objective {type(objective).__name__} lacks {', '.join(missing)}")
