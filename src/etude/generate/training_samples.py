"""Samples of a model during training: continuations of the same prompt at different steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from etude.data.tokens.parts import TokenPart
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.generate.divided import continue_together
from etude.generate.engine import generate
from etude.generate.sampling import USUAL_SAMPLING, NotFinite
from etude.plan.cadence import SAMPLE_TOKENS
from etude.plan.plan import Plan
from etude.run.events import Event, SampleEvent
from etude.train.loop import TrainState
from etude.train.parallel import ALONE, Ranks

PROMPT_WORDS, PROMPT_CHARACTERS, PROMPT_CANDIDATES = 6, 60, 16
SAMPLING = dataclasses.replace(USUAL_SAMPLING, max_new_tokens=SAMPLE_TOKENS)


def opening_words(plan: Plan) -> str:
    """Return the first words of the longest of the first held-out documents: typical text, not trained on.

    Of conversations, what the first held-out one has before its first answer.
    """
    if plan.data.validation.examples is not None:
        return plan.data.tokenizer.decode(_opening_turns(plan.data.validation))
    documents = islice(plan.data.documents("validation", 100_000), PROMPT_CANDIDATES)
    beginning = max(documents, key=len)[:1000].decode("utf-8", "ignore")
    words = beginning.lstrip()[:PROMPT_CHARACTERS].split(" ")
    return " ".join(words[:PROMPT_WORDS]).splitlines()[0] if beginning.strip() else ""


def _opening_turns(part: TokenPart) -> list[int]:
    """Return the tokens before the first trained one in the first example."""
    assert part.examples is not None
    trained = part.examples.trained[: int(part.documents[1])]
    tokens: list[int] = part.window(0, max(1, int(trained.argmax()))).tolist()
    return tokens


def sample_task(plan: Plan) -> Sample:
    """Return the samples of a run, with the prompt of its settings."""
    prompt, part = plan.settings.train.sample_prompt, plan.data.validation
    tokens = None
    if prompt == "auto":
        prompt = opening_words(plan)
        tokens = None if part.examples is None else tuple(_opening_turns(part))
    return Sample(plan.data.tokenizer, prompt, plan.settings.run.seed, tokens)


@dataclass(frozen=True)
class Sample:
    """Continue the same prompt with the same seed at every call, so that only the model changes.

    ``tokens`` are those of the prompt where it has special tokens; None: the prompt is text.
    """

    tokenizer: EtudeTokenizer
    prompt: str
    seed: int
    tokens: tuple[int, ...] | None = None
    ranks: Ranks = ALONE

    def __call__(self, state: TrainState) -> Sequence[Event]:
        """Return a sample of the current model; none if its predictions are not finite."""
        prompt = self.tokens or [self.tokenizer.roles.document_id, *self.tokenizer.encode(self.prompt)]
        stop_ids = self.tokenizer.roles.stop_ids
        try:
            if self.ranks.divided:
                ids = continue_together(state.model, prompt, SAMPLING, stop_ids, self.seed, self.ranks)
            else:
                answers = generate(state.model, [list(prompt)], SAMPLING, stop_ids=stop_ids, seed=self.seed)
                ids = answers[0].token_ids
        except NotFinite:
            return []  # the loop decides whether the run continues
        text = self.tokenizer.decode(ids)
        return [SampleEvent(state.step, state.tokens_seen, state.wall_time, self.prompt, text)]
