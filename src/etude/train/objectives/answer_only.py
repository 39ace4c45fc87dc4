"""Next-token prediction of answers alone: the loss counts what follows a separator in each document.

This is how networks are trained on small algorithmic datasets (Power et al. 2022, "Grokking: generalization beyond
overfitting on small algorithmic datasets", appendix A.1) and on prompts with completions.

An answer is what follows the first separator of a document, and the end of the document. A token is trained when any of
its text belongs to the answer; one that ends the separator and begins the answer is therefore trained whole. A document
without a separator is refused: training it whole would teach prompts, and skipping it would lose it silently.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from etude.config import Settings
from etude.data.corpus.corpus import Part
from etude.data.prepare import PreparedData
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.train.batch import Int64, Mask
from etude.train.objectives.contract import LossScope, ObjectiveKind
from etude.train.objectives.next_token import next_token
from etude.untrusted import shown

PARTS: tuple[Part, ...] = ("train", "validation")
FIRST_READ = 64
"""Tokens of a document that are read first for its separator; twice as many each time it is not among them."""
REMEMBERED = 2**18
"""Documents whose answers' beginnings are kept: about 200 bytes each."""


class AnswerScope(LossScope):
    """The tokens of answers, found in the token ids themselves through the text that they decode to."""

    def __init__(self, tokenizer: EtudeTokenizer, separator: str) -> None:
        self.name = f"what follows {separator!r}"
        self.separator = separator
        self._tokenizer = tokenizer
        self._remembered = lru_cache(REMEMBERED)(self._find_answer)

    def mask(self, part: TokenPart, places: Int64) -> Mask:
        """Return which of the tokens at ``places`` belong to an answer. ``eos`` belongs to the document that it ends.

        Raises:
            InputError: the tokens of a document do not spell the separator.
        """
        numbers, which = np.unique(part.document_numbers(places), return_inverse=True)
        answers = np.array([self.first_token(part, number) for number in numbers.tolist()])
        indices, which = places % part.num_tokens, which.reshape(places.shape)
        # The eos at a document's beginning ends the document before it, whose answer it belongs to.
        mask: Mask = (indices >= answers[which]) | (indices == part.documents[numbers][which])
        return mask

    def weights(self, part: TokenPart, places: Int64) -> None:
        """Return None: every token of an answer counts the same."""

    def bytes_counted(self, document: bytes) -> npt.NDArray[np.bool_]:
        """Return which bytes (N,) of a document follow its first separator."""
        separator = self.separator.encode()
        found = document.find(separator)
        return np.arange(len(document)) >= (found + len(separator) if found >= 0 else len(document))

    def first_token(self, part: TokenPart, number: int) -> int:
        """Return the index in ``part`` of the first token that holds text of the answer of document ``number``.

        It is that of the next document's beginning where the answer is empty.

        Raises:
            InputError: the tokens of the document do not spell the separator.
        """
        return self._remembered(part, number)

    def _find_answer(self, part: TokenPart, number: int) -> int:
        begin, end = int(part.documents[number]) + 1, int(part.documents[number + 1])
        read = FIRST_READ
        while True:
            ids = part.window(begin, min(read, end - begin)).tolist()
            if self.separator in self._tokenizer.decode(ids):
                break
            if begin + read >= end:
                raise InputError(
                    f"the tokens of document '{shown(part.namer(number))}' spell no {self.separator!r}: set "
                    "train.answer_separator to what the tokenizer keeps, such as a single character"
                )
            read *= 2
        count = bisect_left(range(1, len(ids)), True, key=lambda count: self._spelled(ids, count)) + 1
        text = self._tokenizer.decode(ids[:count])
        spans = text.index(self.separator) + len(self.separator) < len(text)
        return begin + count - spans

    def _spelled(self, ids: list[int], count: int) -> bool:
        """Return whether the first ``count`` tokens spell the separator, or the first of up to three fewer.

        A tokenizer with tokens for single bytes shows a run of them as U+FFFD until the last character is complete,
        and so may hide what fewer tokens spelled. A character has at most four bytes.
        """
        fewer = range(count, max(0, count - 4), -1)
        return any(self.separator in self._tokenizer.decode(ids[:number]) for number in fewer)


def answers(data: PreparedData, settings: Settings) -> AnswerScope:
    """Return the scope of the answers that ``settings`` describe."""
    return AnswerScope(data.tokenizer, settings.train.answer_separator)


def require_answers(data: PreparedData, settings: Settings) -> None:
    """Raise InputError where a document has no separator, or its tokens do not spell it."""
    separator = settings.train.answer_separator
    lacking = _first_without(data, separator)
    if lacking is not None:
        raise InputError(
            f"train.objective=answer-only trains what follows {separator!r} in each document, and '{shown(lacking)}' "
            "has none: set train.answer_separator to what stands before the answers, or leave such documents out"
        )
    answers(data, settings).first_token(data.train, 0)


@lru_cache(4)
def _first_without(data: PreparedData, separator: str) -> str | None:
    """Return the id of the first document without ``separator``, or None. The text is read once."""
    for part in PARTS:
        for number, document in enumerate(data.documents(part)):
            if separator.encode() not in document:
                return data.corpus.name(part, number)[0]
    return None


OBJECTIVE = ObjectiveKind(next_token, answers, require_answers)
