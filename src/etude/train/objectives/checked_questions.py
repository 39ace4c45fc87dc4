"""Questions whose sampled answers can be checked, as tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from etude.config import Settings
from etude.data.checked.generator import SOURCES, is_right
from etude.data.prepared_data import PreparedData
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import place_in_run
from etude.errors import InputError
from etude.messages import either
from etude.train.batch import Int64

ANSWER_ROOM = 8
"""Tokens by which a sampled answer may be longer than the longest right one: what is longer still is not right."""


@dataclass(frozen=True)
class Answer:
    """A sampled answer: its tokens, the one that ends it included, their log-probabilities, and whether it ended."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    ended: bool


Sampler = Callable[[Sequence[Sequence[int]], Sequence[int], int], Sequence[Answer]]
"""From the tokens of prompts, a seed for each, and the most new tokens to an answer to each, by the current weights."""


@dataclass(frozen=True, eq=False)
class CheckedQuestions:
    """The questions of a part that fit into a row together with an answer.

    Attributes:
        numbers: their numbers in the part.
        most_new: most tokens of a sampled answer.
    """

    part: TokenPart
    tokenizer: EtudeTokenizer
    numbers: Int64
    most_new: int

    @classmethod
    def of(cls, part: TokenPart, tokenizer: EtudeTokenizer, context: int) -> CheckedQuestions:
        """Choose the questions of a part for rows of ``context`` tokens.

        Raises:
            InputError: none fits.
        """
        assert part.examples is not None
        begins = part.documents[:-1]
        trained = np.add.reduceat(part.examples.trained.astype(np.int64), begins)
        most_new = int(trained.max()) + ANSWER_ROOM
        before = (
            np.diff(part.documents) - trained
        )  # an upper bound: a template may write something after an answer
        numbers = np.flatnonzero((trained > 0) & (before + most_new <= context + 1))
        if not len(numbers):
            raise InputError(
                f"no question fits into {context} tokens together with an answer of {most_new}: choose a longer "
                "context (--set train.context)"
            )
        return cls(part, tokenizer, numbers.astype(np.int64), most_new)

    def prompt(self, number: int) -> list[int]:
        """Return the tokens before the answer to a question."""
        begin, first, _ = self._places(number)
        tokens: list[int] = self.part.window(begin, first - begin).tolist()
        return tokens

    def is_right(self, number: int, answer: Answer) -> bool:
        """Return whether a sampled answer to a question is right, and ends."""
        if not answer.ended:
            return False
        _, first, end = self._places(number)
        reference = self._text(self.part.window(first, end - first).tolist())
        return is_right(self._text(answer.token_ids), reference)

    def _text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()

    def _places(self, number: int) -> tuple[int, int, int]:
        """Return the indices of the first token of an example, of its answer, and after its answer."""
        assert self.part.examples is not None
        begin, end = int(self.part.documents[number]), int(self.part.documents[number + 1])
        trained = np.flatnonzero(self.part.examples.trained[begin:end])
        return begin, begin + int(trained[0]), begin + int(trained[-1]) + 1


def answer_seed(seed: int, step: int, row: int) -> int:
    """Return the seed of the answer in a row of a step."""
    digest = hashlib.blake2b(f"answer {seed} {step} {row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def require_checked(data: PreparedData, settings: Settings) -> None:
    """Raise InputError for data whose answers cannot be checked, and for settings that do not fit."""
    train, names = settings.train, set(settings.data.sources)
    rows, rank = train.batch_rows, train.lora_rank
    problems = [
        (settings.data.replay > 0, "--reward trains on sampled answers: omit --replay"),
        (
            not names <= set(SOURCES) or data.train.examples is None,
            f"--reward needs answers that can be checked: train on {either(SOURCES)} with --from MODEL, or omit it",
        ),
        (settings.data.mask == "all", "--reward trains on answers alone: omit data.mask"),
        (train.group < 2, "train.group=1 leaves an answer nothing to be compared with: choose at least 2"),
        (
            rows != "auto" and rows % train.group > 0,
            f"train.batch_rows={rows} is not a multiple of train.group={train.group}, the answers to each question: "
            "choose one that is",
        ),
        (
            train.kl > 0 and rank in ("auto", 0),
            "train.kl compares the network with the same one without its adapter: add --lora, or omit train.kl",
        ),
        (
            train.lora_dropout > 0 or train.dropout not in ("auto", 0),
            "--reward compares the network with the one that sampled, which has no dropout: omit dropout",
        ),
        (place_in_run()[1] > 1, "--reward samples in one process: start it without torchrun"),
    ]
    for applies, problem in problems:
        if applies:
            raise InputError(problem)
