"""What is done between the steps of a run: score it, sample from it, save it, summarise the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from torch import Tensor

from etude.run.events import ChecksumEvent, EvalEvent, Event, RungEvent, SummaryEvent
from etude.run.ladder import Ladder
from etude.train.checksum import checksum
from etude.train.control import SAVE, Control
from etude.train.loop import TrainState
from etude.train.objectives import Objective
from etude.train.step import clip_factor, is_out_of_memory
from etude.train.validation import ValidationText
from etude.watch.summaries import LOOKED_AT, activity, tensor_norms, weights_before


def save_as_asked(
    save: Callable[[TrainState], Sequence[Event]], control: Control, state: TrainState
) -> Sequence[Event]:
    """Save because somebody asked for it."""
    control.take(SAVE)
    return save(state)


@dataclass
class Evaluate:
    """Score the validation text, and say which rungs of the n-gram ladder are passed for the first time."""

    text: ValidationText
    ladder: Ladder
    passed: int = 0

    def __call__(self, state: TrainState) -> Sequence[Event]:
        score = self.text.score(state.model)
        where = (state.step, state.tokens_seen, state.wall_time)
        events: list[Event] = [EvalEvent(*where, score.loss, score.bits_per_byte, score.num_tokens)]
        reached = self.ladder.passed(score.bits_per_byte)
        for rung in self.ladder.rungs:
            if self.passed < rung.order <= reached:
                events.append(RungEvent(*where, rung.order, rung.bits_per_byte))
        self.passed = max(self.passed, reached)
        return events


def note_checksum(state: TrainState) -> Sequence[Event]:
    """One number that stands for all parameters: whoever comes to the same one later has the same bits."""
    return [ChecksumEvent(state.step, state.tokens_seen, state.wall_time, checksum(state.model))]


@dataclass
class Summarise:
    """Note what a step did to every parameter, for which :meth:`before` keeps the weights that it began with.

    There is nothing to say of step 0, of a step that was left out, or where the memory is short: a run does not end for
    want of a summary.
    """

    objective: Objective
    max_grad_norm: float
    _kept: tuple[int, dict[str, Tensor]] | None = None

    def before(self, state: TrainState) -> None:
        """Keep the weights."""
        self._kept = None
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
    """What finds no memory in the block is given up."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
