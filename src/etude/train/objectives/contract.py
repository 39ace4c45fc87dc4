"""What an objective is: the batches of a run, their loss, and which tokens that loss counts.

The loop, the compiler, the time machine, the evaluations and the doctor ask an :class:`Objective` and nothing else.
To add one, register an :class:`ObjectiveKind` in :data:`etude.registry.OBJECTIVES`; ``train.objective`` then names it.
Most need only a :class:`LossScope`: the tokens that count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from etude.config import Resolved, Settings
from etude.data.prepare import PreparedData
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.errors import InputError
from etude.model.language_model import LanguageModel
from etude.registry import OBJECTIVES
from etude.run.events import RowSource
from etude.train.batch import Int64, Mask, MicroBatch, Row, Weights
from etude.train.parallel import Ranks


class Objective(Protocol):
    """What a run is trained to do.

    The loss of a step is a mean, in nats per token, over all tokens that the loss masks of its whole batch leave (all
    micro-batches of all ranks); with weights it is the weighted mean. A step divides the sum of :meth:`loss` by
    the sum of ``MicroBatch.total_weight``.

    Attributes:
        model: the network that is trained.
        num_steps: steps of the run, as planned.
        tokens_per_step: tokens that the network reads in a step, over all ranks, whether the loss counts them or not.
    """

    model: LanguageModel
    num_steps: int
    tokens_per_step: int

    def batch(self, step: int) -> Sequence[MicroBatch]:
        """Return this rank's micro-batches for the update that leads to ``step`` (from 1), on the device.

        They are a function of the settings and the step alone. Another thread may call this, one call at a time.
        """

    def loss(self, part: MicroBatch) -> Tensor:
        """Return the loss of a micro-batch summed over its trained tokens, times their weights, in nats."""

    def token_losses(self, logits: Tensor, row: Row) -> Tensor:
        """Return the loss (1, T) of each token of a row in nats, unweighted, and 0 where it does not count.

        ``logits`` are (1, T, V), those of the row. :meth:`loss` is the sum of this over the rows, times the weights.
        """

    def row(self, part: MicroBatch, place: int) -> Row:
        """Return row ``place`` of a micro-batch as the network reads it, dropout included."""

    def first_row(self, step: int, num_tokens: int) -> Row:
        """Return the start of this rank's first row of ``step``, at most ``num_tokens`` of it, without dropout."""

    def row_sources(self, step: int) -> Sequence[RowSource]:
        """Return where each row of the whole batch of ``step`` came from."""

    def halve_micro_batches(self) -> int | None:
        """Halve the rows of a micro-batch from now on; return their number, or None where it is one already."""

    def compile(self) -> None:
        """Have :meth:`loss` compiled into one graph. Its first use then takes the time of a compilation."""

    def use_eager(self) -> None:
        """Go back to running the model's Python as it is written."""


class LossScope(Protocol):
    """Which tokens of a text a loss counts: in training, in evaluations, and in the n-gram models' scores.

    Everything here is a pure function of the text.

    Attributes:
        name: which they are, in words, such as "what follows '='". Scores of two scopes are not compared.
    """

    name: str

    def mask(self, part: TokenPart, places: Int64) -> Mask | None:
        """Return which of the tokens at ``places`` of a part count as targets, in the same shape. None: all.

        ``places`` are indices of the ring of tokens, and may lie beyond its end.
        """

    def weights(self, part: TokenPart, places: Int64) -> Weights | None:
        """Return how much the loss of the tokens at ``places`` counts, in the same shape. None: 1 each."""

    def bytes_counted(self, document: bytes) -> npt.NDArray[np.bool_]:
        """Return which bytes (N,) of a document's text belong to tokens that count."""


@dataclass(frozen=True)
class ObjectiveParts:
    """What an objective is made from: one run, in one process.

    ``scope`` is that of the objective's kind; ``micro_batch_rows`` may be fewer than the settings say.
    """

    model: LanguageModel
    data: PreparedData
    settings: Resolved
    device: Device
    ranks: Ranks
    micro_batch_rows: int
    scope: LossScope | None


def _whole_text(data: PreparedData, settings: Settings) -> LossScope | None:
    return None


def _any_text(data: PreparedData, settings: Settings) -> None:
    pass


@dataclass(frozen=True)
class ObjectiveKind:
    """An objective that ``train.objective`` can name.

    Attributes:
        make: builds the objective of a run.
        scope: returns which tokens count; None: all of them.
        require: raises InputError where the text, or a setting, does not fit the objective. It runs before a run
            folder is made.
    """

    make: Callable[[ObjectiveParts], Objective]
    scope: Callable[[PreparedData, Settings], LossScope | None] = _whole_text
    require: Callable[[PreparedData, Settings], None] = _any_text


_MEMBERS = (
    *Objective.__annotations__,
    *(name for name, value in vars(Objective).items() if callable(value) and not name.startswith("_")),
)


def objective_kind(name: str) -> ObjectiveKind:
    """Return what ``train.objective`` calls ``name``.

    Raises:
        InputError: nothing is called so.
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


def require_objective(objective: object) -> None:
    """Raise InputError unless ``objective`` has every member of an :class:`Objective`."""
    missing = [name for name in _MEMBERS if not hasattr(objective, name)]
    if missing:
        raise InputError(f"the objective {type(objective).__name__} lacks {', '.join(missing)}")
