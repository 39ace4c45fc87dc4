"""What is done between the steps of a run: score it, sample from it, save it, summarise the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice

from torch import Tensor

from etude.config import TrainSettings, resolved
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.generate.engine import generate
from etude.generate.sampling import USUAL_SAMPLING, NotFinite
from etude.run.checkpoints import kept_for_good
from etude.run.events import (
    ChecksumEvent,
    EvalEvent,
    Event,
    RungEvent,
    SampleEvent,
    SummaryEvent,
)
from etude.run.ladder import Ladder
from etude.train.checksum import checksum
from etude.train.control import SAVE, Control
from etude.train.loop import TrainState
from etude.train.objectives import NextToken
from etude.train.plan import Plan
from etude.train.step import clip_factor, is_out_of_memory
from etude.train.validation import ValidationText
from etude.watch.summaries import LOOKED_AT, activity, tensor_norms, weights_before

EARLY_EVALUATIONS = frozenset([1, 2, 5, 10, 20, 50, 100])
"""Besides the regular ones: most of what can be seen happens early, and a curve over log-steps needs it."""
PROMPT_WORDS, PROMPT_CHARACTERS, PROMPT_CANDIDATES = 6, 60, 16
SAMPLE_TOKENS = 100
CLOSING_SAMPLES, CLOSING_SAMPLE_TOKENS = 3, 120
"""What a finished model says, and how long."""
SAMPLING = dataclasses.replace(USUAL_SAMPLING, max_new_tokens=SAMPLE_TOKENS)

Due = Callable[[int], bool]
"""Whether something is to be done after a step."""


def evaluation_due(train: TrainSettings) -> Due:
    every = resolved(train.eval_every, "train.eval_every")
    return lambda step: step % every == 0 or step in EARLY_EVALUATIONS


def sample_due(train: TrainSettings) -> Due:
    every = resolved(train.sample_every, "train.sample_every")
    return lambda step: step % every == 0


def save_due(train: TrainSettings) -> Due:
    every = resolved(train.checkpoint_every, "train.checkpoint_every")
    return lambda step: step % every == 0 or kept_for_good(step, train.keep_every)


def save_as_asked(
    save: Callable[[TrainState], Sequence[Event]], control: Control, state: TrainState
) -> Sequence[Event]:
    """Save because somebody asked for it."""
    control.take(SAVE)
    return save(state)


def checksum_due(train: TrainSettings) -> Due:
    """Only where there are to be any."""
    return lambda step: step % train.checksum_every == 0


def summary_due(train: TrainSettings) -> Due:
    """Only where there are to be any."""
    return lambda step: step % train.summary_every == 0 or step in EARLY_EVALUATIONS


def opening_words(plan: Plan) -> str:
    """How the longest of the first held-out documents begins: in the text's own manner, and never trained on."""
    documents = islice(plan.data.documents("validation", 100_000), PROMPT_CANDIDATES)
    beginning = max(documents, key=len)[:1000].decode("utf-8", "ignore")
    words = beginning.lstrip()[:PROMPT_CHARACTERS].split(" ")
    return " ".join(words[:PROMPT_WORDS]).splitlines()[0] if beginning.strip() else ""


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


@dataclass(frozen=True)
class Sample:
    """Continue the same prompt with the same dice at every visit: what changes is the model."""

    tokenizer: EtudeTokenizer
    prompt: str
    seed: int

    def __call__(self, state: TrainState) -> Sequence[Event]:
        prompt = [self.tokenizer.eos_id, *self.tokenizer.encode(self.prompt)]
        try:
            answers = generate(state.model, [prompt], SAMPLING, eos_id=self.tokenizer.eos_id, seed=self.seed)
        except NotFinite:
            return []  # what becomes of the run is for its steps to say
        text = self.tokenizer.decode(answers[0].token_ids)
        return [SampleEvent(state.step, state.tokens_seen, state.wall_time, self.prompt, text)]


def note_checksum(state: TrainState) -> Sequence[Event]:
    """One number that stands for all parameters: whoever comes to the same one later has the same bits."""
    return [ChecksumEvent(state.step, state.tokens_seen, state.wall_time, checksum(state.model))]


@dataclass
class Summarise:
    """Note what a step did to every parameter, for which :meth:`before` keeps the weights that it began with.

    There is nothing to say of step 0, of a step that was left out, or where the memory is short: a run does not end for
    want of a summary.
    """

    objective: NextToken
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
            seen = activity(state.model, *self.objective.first_row(state.step, LOOKED_AT))
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
