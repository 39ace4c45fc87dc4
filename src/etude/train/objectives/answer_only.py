"""Next-token prediction of answers alone: the loss counts what follows a separator in each document.

Small algorithmic datasets are trained so (Power et al. 2022, "Grokking: generalization beyond overfitting on small
algorithmic datasets", appendix A.1), and prompts with completions.

An answer is the text after the first separator of a document, and the end of the document. A token counts if any of
its text belongs to the answer; so a token that spans separator and answer counts. A document without separator is an
error: counting all of it would train on prompts, and skipping it would lose it silently.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from etude.config import Settings
from etude.data.corpus.corpus import Part
from etude.data.prepared_data import PreparedData
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.train.batch import Int64, Mask
from etude.train.objectives.contract import LossScope, ObjectiveKind
from etude.train.objectives.next_token import next_token
from etude.untrusted import shown

PARTS: tuple[Part, ...] = ("train", "validation")
FIRST_READ = 64
"""Tokens at the start of a document in which to search the separator; the number doubles until it is found."""
REMEMBERED = 2**18
"""Documents for which to cache the start of the answer: about 200 bytes each."""


class AnswerScope(LossScope):
    """The tokens of answers, located by decoding the token ids."""

    def __init__(self, tokenizer: EtudeTokenizer, separator: str) -> None:
        self.name = f"what follows {separator!r}"
        self.separator = separator
        self._tokenizer = tokenizer
        self._remembered = lru_cache(REMEMBERED)(self._find_answer)

    def mask(self, part: TokenPart, places: Int64) -> Mask:
        """Return which of the tokens at ``places`` belong to an answer. An ``eos`` belongs to the document before it.

        Raises:
            InputError: the tokens of a document do not spell the separator.
        """
        numbers, which = np.unique(part.document_numbers(places), return_inverse=True)
        answers = np.array([self.first_token(part, number) for number in numbers.tolist()])
        indices, which = places % part.num_tokens, which.reshape(places.shape)
        # The eos at the start of a document ends the one before it, and belongs to that one's answer.
        mask: Mask = (indices >= answers[which]) | (indices == part.documents[numbers][which])
        return mask

    def weights(self, part: TokenPart, places: Int64) -> None:
        """Return None: every token of an answer counts the same."""

    def bytes_counted(self, document: bytes) -> npt.NDArray[np.bool_]:
        """Return which bytes (N,) of a document follow its first separator."""
        separator = self.separator.encode()
        at = document.find(separator)
        return np.arange(len(document)) >= (at + len(separator) if at >= 0 else len(document))

    def first_token(self, part: TokenPart, number: int) -> int:
        """Return the index in ``part`` of the first token with text of the answer in document ``number``.

        For an empty answer it is the start of the next document.

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
        # Decoded text grows with the number of tokens, so bisection finds the fewest that spell the separator.
        count = bisect_left(range(1, len(ids)), True, key=lambda count: self._spelled(ids, count)) + 1
        text = self._tokenizer.decode(ids[:count])
        # Whether the last of these tokens also holds the beginning of the answer.
        spans = text.index(self.separator) + len(self.separator) < len(text)
        return begin + count - spans

    def _spelled(self, ids: list[int], count: int) -> bool:
        """Return whether the first ``count`` tokens, or up to three fewer, spell the separator.

        Byte tokens decode to U+FFFD until their character is complete, which may hide what fewer tokens spelled. A
        character has at most four bytes.
        """
        fewer = range(count, max(0, count - 4), -1)
        return any(self.separator in self._tokenizer.decode(ids[:number]) for number in fewer)


def answers(data: PreparedData, settings: Settings) -> AnswerScope:
    """Return the scope of answers with the separator in ``settings``."""
    return AnswerScope(data.tokenizer, settings.train.answer_separator)


def require_answers(data: PreparedData, settings: Settings) -> None:
    """Raise InputError if a document has no separator, or if tokens do not spell it."""
    separator = settings.train.answer_separator
    lacking = _first_without(data, separator)
    if lacking is not None:
        raise InputError(
            f"train.objective=answer-only trains what follows {separator!r} in each document, and '{shown(lacking)}' "
            "has none: set train.answer_separator to the text before the answers, or remove such documents"
        )
    answers(data, settings).first_token(data.train, 0)


@lru_cache(4)
def _first_without(data: PreparedData, separator: str) -> str | None:
    """Return the id of the first document without ``separator``, or None. Reads the text once per separator."""
    for part in PARTS:
        for number, document in enumerate(data.documents(part)):
            if separator.encode() not in document:
                return data.corpus.name(part, number)[0]
    return None


OBJECTIVE = ObjectiveKind(next_token, answers, require_answers)
