"""Put the held-out questions to a model, in blocks whose results are saved, and score the reference texts with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from etude.data.conversations.conversation import Example
from etude.data.conversations.encode import encode_example
from etude.data.conversations.template import CHATML_SOURCE, ChatTemplate, template_of
from etude.data.files import key_of
from etude.data.reference import ReferenceText
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import Dtype, has_fast_bf16
from etude.errors import InputError
from etude.evaluate.resumable_parts import Parts, identity_of
from etude.evaluate.text_scoring import require_same_text
from etude.evaluate.tuning.held_out import Question, comparable
from etude.evaluate.tuning.prompting import EXAMPLES, Shot, TrainingAnswers, as_plain_text, prompted
from etude.files import hash_file
from etude.generate.answers import Answered, Asked, answer
from etude.generate.scoring import score_sequences
from etude.pretrained.load_model import Trained, load_trained
from etude.setting_types import Auto

SCHEMA = 1
SHORT_TOKENS = 64
"""Most tokens of a reference answer that is compared exactly, and most tokens that are generated."""
LEAST_ROOM = 16
BLOCK = 12
"""Questions whose results are saved together."""


@dataclass(frozen=True)
class Asking:
    """A question in tokens.

    Attributes:
        question: the question.
        other: the answer to another question.
        shots: the training questions that resemble it.
        special: ids of the special tokens: one at the end of the reference ends the answer.
    """

    question: Question
    other: str | None
    shots: tuple[Shot, ...]
    special: frozenset[int] = field(repr=False)

    def tokens(
        self,
        answer: str,
        examples: int,
        tokenizer: EtudeTokenizer,
        template: ChatTemplate | None,
        room: int,
        plain: bool = False,
    ) -> tuple[list[int], list[int]]:
        """Return the tokens before an answer and those of the answer, in at most ``room`` tokens.

        The least similar examples are dropped until they fit. A conversation that is ``plain`` is written without the
        template (:func:`as_plain_text`).

        Raises:
            InputError: they do not fit even without examples, or the template cannot write them.
        """
        for count in range(examples, -1, -1):
            example = prompted(self.question, answer, self.shots[:count])
            if plain and self.is_conversation:
                before, own = _split(as_plain_text(example), tokenizer, template)
                own = own[:-1]  # a line end is its end, and no token that ends texts
            else:
                before, own = _split(example, tokenizer, template)
            if len(before) + max(len(own), self.most_new(own)) <= room:
                return before, own
        raise InputError(f"a question and its answer need more than the {room:,} tokens that the model reads")

    @property
    def is_conversation(self) -> bool:
        """Whether a chat template writes it."""
        return self.question.example.kind == "conversation"

    @staticmethod
    def most_new(reference: Sequence[int]) -> int:
        """Return the most tokens to generate: none for a long reference."""
        return min(SHORT_TOKENS, LEAST_ROOM + 2 * len(reference)) if len(reference) <= SHORT_TOKENS else 0

    def stops(self, reference: Sequence[int], tokenizer: EtudeTokenizer) -> frozenset[int]:
        """Return the tokens that end an answer: those of the model, and what ends the reference."""
        return tokenizer.roles.stop_ids | ({reference[-1]} & self.special)


def _split(
    example: Example, tokenizer: EtudeTokenizer, template: ChatTemplate | None
) -> tuple[list[int], list[int]]:
    """Return the tokens before the last answer, and those of it, its end of turn included."""
    encoded = encode_example(example, tokenizer, template, "last")
    trained = encoded.trained.nonzero()[0]
    first, last = int(trained[0]), int(trained[-1])
    return encoded.ids[:first], encoded.ids[first : last + 1]


@dataclass(frozen=True)
class Result:
    """What a system does with one question.

    Attributes:
        nats: of the reference answer, summed.
        tokens: of the reference answer.
        other: nats per token of the answer to another question; None where there is none.
        answer: what it writes; None if the reference is long.
        ended: whether it ended by itself.
    """

    nats: float
    tokens: int
    other: float | None
    answer: str | None
    ended: bool | None


@dataclass(frozen=True)
class TextBits:
    """bits of each document of a reference text, and its bytes."""

    bits: tuple[float, ...]
    sizes: tuple[int, ...]


def askings_of(
    questions: Sequence[Question], training: TrainingAnswers, tokenizer: EtudeTokenizer, room: int
) -> tuple[list[Asking], Counter[str]]:
    """Return the questions that can be put to the model, and the reasons why others cannot with their number."""
    template = template_of(tokenizer)
    added = tokenizer.backend.get_added_tokens_decoder()
    special = frozenset({tokenizer.roles.document_id, *(i for i, token in added.items() if token.special)})
    forms = (False, True) if got_chatml(tokenizer) else (False,)
    askings: list[Asking] = []
    skipped: Counter[str] = Counter()
    for at, question in enumerate(questions):
        other = _other_answer(questions, at)
        asking = Asking(question, other, training.similar[at], special)
        try:
            for answer in (question.answer, *([] if other is None else [other])):
                for plain in forms:
                    asking.tokens(answer, 0, tokenizer, template, room, plain)
        except InputError as error:
            skipped[str(error)] += 1
            continue
        askings.append(asking)
    return askings, skipped


def got_chatml(tokenizer: EtudeTokenizer) -> bool:
    """Return whether a base has the template that one without a template gets, which it has never seen."""
    template = template_of(tokenizer)
    return template is not None and template.source == CHATML_SOURCE


def _other_answer(questions: Sequence[Question], at: int) -> str | None:
    """Return the answer of the next question with a different answer; None if all answers are the same."""
    own = comparable(questions[at].answer)
    following = (questions[(at + step) % len(questions)].answer for step in range(1, len(questions)))
    return next((answer for answer in following if comparable(answer) != own), None)


@dataclass
class Respondent:
    """A model that answers, loaded at its first new answer; known answers are read from ``within``."""

    folder: Path
    within: Path
    threads: int | Auto = "auto"
    dtypes: set[str] = field(default_factory=set)
    """The dtypes in which the known answers were computed."""

    @cached_property
    def trained(self) -> Trained:
        return load_trained(self.folder, self.threads)

    def release(self) -> None:
        """Free the memory of the model until it is needed again."""
        self.__dict__.pop("trained", None)

    @cached_property
    def _model(self) -> str:
        files = sorted(self.folder.glob("*.safetensors"))  # of an adapter too
        return identity_of(self.folder, [SCHEMA, [[file.name, hash_file(file)] for file in files]])

    @property
    def _dtype(self) -> Dtype:
        """bf16 for the questions where it is known to be fast; the reference texts are always read in fp32."""
        model = self.trained.model
        fast = model.config.family.decodes_fast and has_fast_bf16(model.unembedding()[0].device.type)  # type: ignore[arg-type]
        return "bf16" if fast else "fp32"

    def ask(self, askings: Sequence[Asking], examples: int, plain: bool = False) -> list[Result]:
        """Return the results of one block of questions, each after so many examples; ``plain``: as plain text."""
        request = [
            [asking.question.key, asking.other, [asdict(shot) for shot in asking.shots[:examples]]]
            for asking in askings
        ]
        kind = "questions in plain text" if plain else "questions"
        content = self.saved([kind, request], lambda: self._ask(askings, examples, plain))
        self.dtypes.add(content["dtype"])
        return [Result(**row) for row in content["results"]]

    def read(self, text: ReferenceText) -> TextBits:
        """Return the bits of a reference text."""
        content = self.saved(["text", text.digest], lambda: self._read(text))
        return TextBits(tuple(content["bits"]), tuple(content["sizes"]))

    def saved(self, request: Any, compute: Callable[[], Any]) -> Any:
        """Return what was computed for a request to this model (plain values), computing it if it is not known."""
        parts = Parts(self.within, key_of([self._model, request]), 1)
        known = parts.load(0)
        if known is None:
            parts.folder.mkdir(parents=True, exist_ok=True)
            parts.write(0, compute())
            known = parts.load(0)
        assert known is not None
        return known[0]

    def _ask(self, askings: Sequence[Asking], examples: int, plain: bool) -> dict[str, Any]:
        trained = self.trained
        tokenizer, room = trained.tokenizer, trained.model.config.max_position_embeddings
        template = template_of(tokenizer)
        rows: list[Asked] = []
        stops: set[int] = set()
        for asking in askings:
            before, own = asking.tokens(asking.question.answer, examples, tokenizer, template, room, plain)
            continuations = [own]
            if asking.other is not None:
                context, other = asking.tokens(asking.other, examples, tokenizer, template, room, plain)
                if context == before:  # a longer answer may leave room for fewer examples
                    continuations.append(other)
            rows.append(Asked(before, continuations, asking.most_new(own)))
            stops |= asking.stops(own, tokenizer)
        dtype = self._dtype
        try:
            answers = answer(trained.model, rows, stops, dtype)
        except InputError:  # no room for rounded copies of the weights
            dtype = "fp32"
            answers = answer(trained.model, rows, stops, dtype)
        one_line = [plain and asking.is_conversation for asking in askings]
        results = _results(rows, answers, tokenizer, one_line)
        return {"dtype": dtype, "results": [asdict(result) for result in results]}

    def _read(self, text: ReferenceText) -> dict[str, list[Any]]:
        tokenizer = self.trained.tokenizer
        documents = [tokenizer.normalise(document) for document in text.documents]
        encoded = tokenizer.encode_batch(documents)
        for number, (document, ids) in enumerate(zip(documents, encoded, strict=True), 1):
            require_same_text(f"{number} of {text.name}", document, tokenizer.decode(ids))
        whole = [[tokenizer.roles.document_id, *ids] for ids in encoded]
        scores = score_sequences(self.trained.model, whole, batch_size=4)
        bits = [-float(score.logprobs.sum()) / math.log(2) for score in scores]
        return {"bits": bits, "sizes": [len(document.encode()) for document in documents]}


def _results(
    rows: Sequence[Asked], answers: Sequence[Answered], tokenizer: EtudeTokenizer, one_line: Sequence[bool]
) -> list[Result]:
    results = []
    for row, done, ends_with_line in zip(rows, answers, one_line, strict=True):
        other = done.nats[1] / len(row.continuations[1]) if len(done.nats) > 1 else None
        text, stopped = tokenizer.decode(done.token_ids, skip_special_tokens=True), done.ended
        if ends_with_line:
            text, line_end, _ = text.partition("\n")
            stopped = stopped or bool(line_end)
        tokens, generated = len(row.continuations[0]), row.max_new_tokens > 0
        answer, ended = (text.strip(), stopped) if generated else (None, None)
        results.append(Result(done.nats[0], tokens, other, answer, ended))
    return results


def numbers_of_examples(training: TrainingAnswers) -> list[int]:
    """Return the numbers of examples that are tried with the base; 0 is none."""
    most = training.most_examples
    return [0, *sorted({min(count, most) for count in EXAMPLES if most})]
