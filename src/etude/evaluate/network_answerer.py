"""Answer the items of a probe with a network and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.evaluate.answerers import ItemScore, Report
from etude.evaluate.items import Candidate, Item
from etude.generate.scoring import first_beyond, score_sequences
from etude.model.language_model import LanguageModel

_ITEMS_AT_A_TIME = 256


@dataclass(frozen=True)
class ModelAnswerer:
    """A network that scores items in its own tokens and in float32, each text as a document from its start.

    A text longer than the context loses its beginning. Repeated texts are scored once.
    """

    model: LanguageModel
    tokenizer: EtudeTokenizer
    batch_size: int = 32

    def answer(self, items: Sequence[Item], report: Report | None = None) -> list[ItemScore]:
        answered: list[ItemScore] = []
        for start in range(0, len(items), _ITEMS_AT_A_TIME):
            answered += self._some(items[start : start + _ITEMS_AT_A_TIME])
            if report is not None:
                report(len(answered), len(items))
        return answered

    def _some(self, items: Sequence[Item]) -> list[ItemScore]:
        plans = [_in_tokens(item, self.tokenizer) for item in items]
        length = self.model.config.max_position_embeddings
        wanted: dict[tuple[int, ...], int] = {}  # the texts, and the first token of each that is scored
        for plan in plans:
            for ids, first in zip(plan.ids, plan.firsts, strict=True):
                text = tuple(ids[-length - 1 :])
                begin = max(1, first - len(ids) + len(text))
                wanted[text] = min(begin, wanted.get(text, begin))
        texts, firsts = list(wanted), list(wanted.values())
        scores = score_sequences(self.model, texts, batch_size=self.batch_size, firsts=firsts)
        scored = dict(zip(texts, scores, strict=True))
        answered = []
        for item, plan in zip(items, plans, strict=True):
            scores_of = [scored[tuple(ids[-length - 1 :])] for ids in plan.ids]
            said = [first - len(ids) for ids, first in zip(plan.ids, plan.firsts, strict=True)]
            parts = [score.logprobs[tail:] for score, tail in zip(scores_of, said, strict=True)]
            answered.append(
                ItemScore(
                    np.array([part.sum() for part in parts]),
                    np.array([len(part) for part in parts]),
                    parts[item.right],
                    scores_of[item.right].credits[said[item.right] :],
                    cut=any(len(ids) > length + 1 for ids in plan.ids),
                )
            )
        return answered


@dataclass(frozen=True)
class _InTokens:
    """ids: of each candidate's whole text, after the token that begins a document; firsts: where `said` begins."""

    ids: list[list[int]]
    firsts: list[int]


def _in_tokens(item: Item, tokenizer: EtudeTokenizer) -> _InTokens:
    """Encode an item; `said` begins with the first token that reaches into it.

    If the candidates share `given`, all are scored from the first of these places, because a token may cross the border
    in one candidate and not in another; everything before is the same text in the same tokens.
    """
    encoded = tokenizer.encode_batch([candidate.given + candidate.said for candidate in item.candidates])
    ids = [[tokenizer.roles.document_id, *tokens] for tokens in encoded]
    given = {candidate.given for candidate in item.candidates}
    firsts = [
        1 + _first_said(tokens, candidate, tokenizer)
        for tokens, candidate in zip(encoded, item.candidates, strict=True)
    ]
    if len(given) == 1:
        firsts = [min(*firsts, 1 + _shared(encoded))] * len(firsts)
    return _InTokens(ids, firsts)


def _first_said(ids: Sequence[int], candidate: Candidate, tokenizer: EtudeTokenizer) -> int:
    """Return the index of the first token that is not wholly within `given`; at least the last one is scored."""
    before = tokenizer.encode(candidate.given) if candidate.given else []
    return min(first_beyond(ids, before), len(ids) - 1)


def _shared(encoded: Sequence[Sequence[int]]) -> int:
    """Return the length of the common prefix of all token lists, excluding the last token of each."""
    shortest = min(map(len, encoded)) - 1
    for at in range(shortest):
        if len({ids[at] for ids in encoded}) > 1:
            return at
    return shortest
