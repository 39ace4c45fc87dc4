"""Samples of a model during training: continuations of the same prompt at different steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.generate.engine import generate
from etude.generate.sampling import USUAL_SAMPLING, NotFinite
from etude.plan.cadence import SAMPLE_TOKENS
from etude.plan.plan import Plan
from etude.run.events import Event, SampleEvent
from etude.train.loop import TrainState

PROMPT_WORDS, PROMPT_CHARACTERS, PROMPT_CANDIDATES = 6, 60, 16
SAMPLING = dataclasses.replace(USUAL_SAMPLING, max_new_tokens=SAMPLE_TOKENS)


def opening_words(plan: Plan) -> str:
    """Return the first words of the longest of the first held-out documents: typical text, not trained on."""
    documents = islice(plan.data.documents("validation", 100_000), PROMPT_CANDIDATES)
    beginning = max(documents, key=len)[:1000].decode("utf-8", "ignore")
    words = beginning.lstrip()[:PROMPT_CHARACTERS].split(" ")
    return " ".join(words[:PROMPT_WORDS]).splitlines()[0] if beginning.strip() else ""


@dataclass(frozen=True)
class Sample:
    """Continue the same prompt with the same seed at every call, so that only the model changes."""

    tokenizer: EtudeTokenizer
    prompt: str
    seed: int

    def __call__(self, state: TrainState) -> Sequence[Event]:
        """Return a sample of the current model; none if its predictions are not finite."""
        prompt = [self.tokenizer.roles.document_id, *self.tokenizer.encode(self.prompt)]
        try:
            answers = generate(
                state.model, [prompt], SAMPLING, stop_ids=self.tokenizer.roles.stop_ids, seed=self.seed
            )
        except NotFinite:
            return []  # the loop decides whether the run continues
        text = self.tokenizer.decode(answers[0].token_ids)
        return [SampleEvent(state.step, state.tokens_seen, state.wall_time, self.prompt, text)]
