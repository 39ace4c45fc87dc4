"""The tasks between the steps of a run that need nothing but the model: evaluate, save on request, note the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from torch import Tensor

from etude.device import return_free_pages
from etude.run.events import ChecksumEvent, EvalEvent, Event, ReferenceEvent, RungEvent, SummaryEvent
from etude.run.ladder import Ladder
from etude.train.checksum import checksum
from etude.train.control import SAVE, Control
from etude.train.loop import TrainState
from etude.train.objectives import Objective
from etude.train.step import clip_factor, is_out_of_memory
from etude.train.validation import ValidationText
from etude.watch.summaries import LOOKED_AT, activity, tensor_norms, weights_before

LARGE_MATRIX = 2**24
"""Smallest embedding, in numbers, of a network for which freed memory is returned before the weights are copied."""


def save_on_request(
    save: Callable[[TrainState], Sequence[Event]], control: Control, state: TrainState
) -> Sequence[Event]:
    """Save a checkpoint that the user requested on the page, and remove the request."""
    control.take(SAVE)
    return save(state)


@dataclass
class Evaluate:
    """Score the validation text, and note each n-gram model that the model passes for the first time.

    ``reference``: the digest of a text that is scored too, and the text, of a run that has one.
    """

    text: ValidationText
    ladder: Ladder
    reference: tuple[str, ValidationText] | None = None
    passed: int = 0  # highest order that was passed so far

    def __call__(self, state: TrainState) -> Sequence[Event]:
        where = (state.step, state.tokens_seen, state.wall_time)
        events: list[Event] = []
        if self.reference is not None:
            digest, text = self.reference
            score = text.score(state.model)
            events.append(ReferenceEvent(*where, score.loss, score.bits_per_byte, score.num_tokens, digest))
        score = self.text.score(state.model)
        events.append(EvalEvent(*where, score.loss, score.bits_per_byte, score.num_tokens))
        reached = self.ladder.passed(score.bits_per_byte)
        for rung in self.ladder.rungs:
            if self.passed < rung.order <= reached:
                events.append(RungEvent(*where, rung.order, rung.bits_per_byte))
        self.passed = max(self.passed, reached)
        return events


def note_checksum(state: TrainState) -> Sequence[Event]:
    """Note a checksum of all parameters. A replay that arrives at the same checksum has the same bits."""
    return [ChecksumEvent(state.step, state.tokens_seen, state.wall_time, checksum(state.model))]


@dataclass
class Summarise:
    """Note how a step changed every parameter. :meth:`before` keeps a copy of the weights from before the update.

    Step 0 and skipped steps have no summary. Where memory is short the summary is omitted, so that the run continues.
    """

    objective: Objective
    max_grad_norm: float
    _kept: tuple[int, dict[str, Tensor]] | None = None

    def before(self, state: TrainState) -> None:
        """Copy the weights before the update of a step."""
        self._kept = None
        if state.model.config.vocab_size * state.model.config.hidden_size > LARGE_MATRIX:
            return_free_pages()  # those of the activations, which the copy would not fill
        with suppress_out_of_memory():
            self._kept = (state.step, weights_before(state.model))

    def __call__(self, state: TrainState) -> Sequence[Event]:
        kept, self._kept = self._kept, None
        if state.last is None or not state.last.applied or kept is None or kept[0] != state.step - 1:
            return []
        factor = clip_factor(state.last.grad_norm, self.max_grad_norm)
        with suppress_out_of_memory():
            tensors = tensor_norms(state.model, kept[1], factor)
            row = self.objective.first_row(state.step, LOOKED_AT)
            seen = activity(state.model, row.inputs, row.document_ids)
            where = (state.step, state.tokens_seen, state.wall_time)
            seconds = {name: round(value, 6) for name, value in asdict(state.last.seconds).items()}
            return [SummaryEvent(*where, tensors, seen.attention_entropy, seen.dead_units, seconds)]
        return []


@contextmanager
def suppress_out_of_memory() -> Iterator[None]:
    """Leave the block without an error where memory runs out in it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
