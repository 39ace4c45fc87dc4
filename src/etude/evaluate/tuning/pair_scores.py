"""Score held-out pairs with a model: the log-probabilities of the chosen and of the rejected answer."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.data.conversations.conversation import Example
from etude.data.conversations.encode import Mask, encode_example
from etude.data.conversations.template import template_of
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.evaluate.statistics import TIE
from etude.evaluate.tuning.asking import Respondent
from etude.generate.scoring import score_sequences

Floats = NDArray[np.float64]
ROWS = 4
"""Answers that are read together."""


@dataclass(frozen=True)
class AnswerTokens:
    """A conversation in tokens, with the places of those of its answer that are trained: none is the first."""

    ids: tuple[int, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class HeldOutPair:
    """A pair of answers to the same turns.

    Attributes:
        key: a hash of the content.
        question: the turns that both share; pairs with the same ones count as one.
        asked: the last turn of the user.
    """

    key: str
    question: str
    asked: str
    chosen: AnswerTokens
    rejected: AnswerTokens


@dataclass(frozen=True)
class PairScores:
    """The log-probabilities of P pairs under one model, in nats, with the tokens of their answers: (P, 2) each.

    The first column is that of the chosen answers, the second that of the rejected ones.
    """

    nats: Floats
    tokens: Floats

    @property
    def won(self) -> list[float]:
        """1 for each pair whose chosen answer is the more probable one, 0 for the others, one half for a tie."""
        chosen, rejected = self.nats.T
        tied = np.abs(chosen - rejected) < TIE * np.maximum(1, np.abs(self.nats).max(axis=1))
        values: list[float] = np.where(tied, 0.5, chosen > rejected).tolist()
        return values


def held_out_pairs(
    documents: Iterable[bytes], tokenizer: EtudeTokenizer, mask: Mask, most: int, room: int
) -> tuple[list[HeldOutPair], int, Counter[str]]:
    """Return at most ``most`` of the pairs in the lines of a corpus, a fixed random choice.

    Returns:
        The pairs; how many there are in all; and why some of the chosen ones cannot be scored, with their number.
    """
    examples: dict[str, Example] = {}
    for document in documents:
        example = Example.from_json(document.decode("utf-8"))
        if example.kind == "preference":
            examples[hashlib.blake2b(document, digest_size=16).hexdigest()] = example
    pairs: list[HeldOutPair] = []
    skipped: Counter[str] = Counter()
    for key in sorted(examples)[:most]:
        try:
            pairs.append(_pair(key, examples[key], tokenizer, mask, room))
        except InputError as error:
            skipped[str(error)] += 1
    return pairs, len(examples), skipped


def _pair(key: str, example: Example, tokenizer: EtudeTokenizer, mask: Mask, room: int) -> HeldOutPair:
    encoded = encode_example(example, tokenizer, template_of(tokenizer), mask)
    assert encoded.second is not None
    parts = []
    for part in (slice(0, encoded.second), slice(encoded.second, None)):
        ids = tuple(encoded.ids[part])
        if len(ids) - 1 > room:  # the last token is not read
            raise InputError(
                f"an answer of a pair and its prompt need more than the {room:,} tokens that the model reads"
            )
        places = encoded.trained[part].nonzero()[0]
        parts.append(AnswerTokens(ids, tuple(int(place) for place in places if place > 0)))
    shared = example.messages[: example.num_shared]
    asked = next((turn.content for turn in reversed(shared) if turn.role == "user"), "")
    return HeldOutPair(key, repr([(turn.role, turn.content) for turn in shared]), asked, *parts)


def score_pairs(respondent: Respondent, pairs: Sequence[HeldOutPair]) -> PairScores:
    """Return the scores of one block of pairs; known ones are not computed again."""
    answers = [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]

    def compute() -> list[float]:
        scores = score_sequences(
            respondent.trained.model,
            [answer.ids for answer in answers],
            batch_size=ROWS,
            firsts=[answer.places[0] for answer in answers],
        )
        return [
            float(score.logprobs[np.array(answer.places) - 1].sum())
            for score, answer in zip(scores, answers, strict=True)
        ]

    request = [[pair.key, pair.chosen.places, pair.rejected.places] for pair in pairs]
    nats = respondent.saved(["pairs", request], compute)
    tokens = [len(answer.places) for answer in answers]
    return PairScores(np.array(nats, np.float64).reshape(-1, 2), np.array(tokens, np.float64).reshape(-1, 2))


def joined(scores: Sequence[PairScores]) -> PairScores:
    """Return the scores of several blocks as one."""
    return PairScores(
        np.concatenate([score.nats for score in scores]), np.concatenate([score.tokens for score in scores])
    )
