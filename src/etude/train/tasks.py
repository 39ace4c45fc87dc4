"""Tasks between the steps of a run: evaluate, note the checksum of the weights, save on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from etude.run.events import ChecksumEvent, EvalEvent, Event, ReferenceEvent, RewardEvent, RungEvent
from etude.run.ladder import Ladder
from etude.train.checksum import checksum
from etude.train.control import SAVE, Control
from etude.train.loop import TrainState
from etude.train.objectives.preference import HeldOutPairs
from etude.train.objectives.reward import Reward
from etude.train.parallel import ALONE, Ranks
from etude.train.validation import ValidationText


def save_on_request(
    save: Callable[[TrainState], Sequence[Event]], control: Control, state: TrainState
) -> Sequence[Event]:
    """Save a checkpoint that the user requested on the page, and remove the request."""
    control.take(SAVE)
    return save(state)


@dataclass
class Evaluate:
    """Score the validation text, and note each n-gram model that the model passes for the first time.

    ``reference``: the digest of a text that is scored too, and the text, of a run that has one. ``pairs``: the held-out
    pairs, of a run that trains on pairs.
    """

    text: ValidationText
    ladder: Ladder
    reference: tuple[str, ValidationText] | None = None
    pairs: HeldOutPairs | None = None
    passed: int = 0  # highest order that was passed so far
    ranks: Ranks = ALONE

    def __call__(self, state: TrainState) -> Sequence[Event]:
        where = (state.step, state.tokens_seen, state.wall_time)
        events: list[Event] = []
        if self.reference is not None:
            digest, text = self.reference
            score = text.score(state.model, self.ranks)
            events.append(ReferenceEvent(*where, score.loss, score.bits_per_byte, score.num_tokens, digest))
        if self.pairs is None:
            score = self.text.score(state.model, self.ranks)
        else:
            pairs, score = self.pairs(state.model, *where)
            events.append(pairs)
        events.append(EvalEvent(*where, score.loss, score.bits_per_byte, score.num_tokens))
        reached = self.ladder.passed(score.bits_per_byte)
        for rung in self.ladder.rungs:
            if self.passed < rung.order <= reached:
                events.append(RungEvent(*where, rung.order, rung.bits_per_byte))
        self.passed = max(self.passed, reached)
        return events


def note_answers(objective: Reward, state: TrainState) -> Sequence[Event]:
    """Note what became of the answers that were sampled for this step."""
    figures = objective.figures
    if figures is None or figures.step != state.step:  # step 0
        return []
    values = asdict(figures)
    return [RewardEvent(values.pop("step"), state.tokens_seen, state.wall_time, **values)]


def note_checksum(state: TrainState) -> Sequence[Event]:
    """Note a checksum of all parameters. A replay that arrives at the same checksum has the same bits."""
    return [ChecksumEvent(state.step, state.tokens_seen, state.wall_time, checksum(state.model))]
