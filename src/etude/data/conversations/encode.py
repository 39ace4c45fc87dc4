"""Examples as tokens, and which of the tokens are trained.

The trained part of an answer lies between two renderings of its conversation: the turns before it with the generation
prompt, and the turns up to it. What the template writes between them, the end of the turn included, is what the model
must write itself. Nothing is trained on a guess: a template whose text for the beginning of a conversation changes
when the conversation continues, or whose ``{% generation %}`` blocks contradict this, is an error.

Contents are text. ``<|im_end|>`` that a user typed is encoded as the characters ``<|im_end|>``, not as the end of a
turn: while the template renders, such text is replaced by private characters (:mod:`.special_text`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from etude.data.conversations.conversation import Example, Message
from etude.data.conversations.special_text import SpecialText, special_text_of
from etude.data.conversations.template import ChatTemplate, special_tokens
from etude.data.conversations.turns import Span, Turns, turns_of
from etude.data.tokens.roles import token_name
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError

Mask = Literal["assistant", "last", "all"]
"""Which tokens of a conversation are trained: all answers, the last answer, or everything."""


@dataclass(frozen=True, eq=False, slots=True)
class Encoded:
    """An example as tokens.

    Attributes:
        ids: the tokens.
        trained: (tokens,) which of them the model learns to predict.
        turn_ends: the numbers of tokens after which the example may end, ascending: after the end of each answer.
            The last is the number of all tokens.
        cuttable: whether it may end after any token: plain text.
        second: of a preference, the number of tokens before its second conversation, that with the rejected answer.
    """

    ids: list[int]
    trained: npt.NDArray[np.bool_]
    turn_ends: tuple[int, ...]
    cuttable: bool = False
    second: int | None = None

    def until(self, end: int) -> Encoded:
        """Return the first ``end`` tokens."""
        ends = (*(place for place in self.turn_ends if place < end), end)
        return replace(self, ids=self.ids[:end], trained=self.trained[:end], turn_ends=ends)


def encode_example(
    example: Example, tokenizer: EtudeTokenizer, template: ChatTemplate | None, mask: Mask
) -> Encoded:
    """Return the tokens of an example with those that are trained.

    1. A conversation is what the ``template`` writes, up to the end of the last answer. What ``mask`` names is trained,
       except for answers that are context only.
    2. A completion is the token that begins documents, the prompt, the completion and the token that ends texts; the
       last two are trained.
    3. Plain text is the token that begins documents and the text, which is trained.
    4. A preference is its two conversations, one after the other. The answers in which they differ are trained.

    Raises:
        InputError: a conversation without a template; the template fails, or its answers cannot be found exactly; or
            no token would be trained.
    """
    special = special_text_of(tokenizer)
    if example.kind in ("conversation", "preference"):
        if template is None:
            raise InputError(
                "the base has no chat template, which writes the turns of a conversation: tune a base that has one, "
                "or give rows of prompt and completion"
            )
        encode = _conversation if example.kind == "conversation" else _preference
        encoded = encode(example, special, template, mask)
    else:
        encoded = _plain(example, tokenizer, special, mask)
    if not encoded.trained.any():
        raise InputError("an example has no token to train: give rows with answers that are not empty")
    return encoded


def encode_prompt(
    messages: Sequence[Message], tokenizer: EtudeTokenizer, template: ChatTemplate
) -> list[int]:
    """Return the tokens of a conversation up to where the assistant's answer begins.

    Raises:
        InputError: the template fails on these turns, or changes special tokens that a message has as text.
    """
    disguise = special_text_of(tokenizer).disguise(messages)
    text = template.render(disguise.messages, add_generation_prompt=True)
    disguise.require_same(text, template, add_generation_prompt=True)
    return disguise.encode(text)[0]


def _plain(example: Example, tokenizer: EtudeTokenizer, special: SpecialText, mask: Mask) -> Encoded:
    ids, offsets = special.encode_plain(example.text + example.completion)
    document = tokenizer.roles.document_id
    if example.kind == "text":
        trained = np.ones(len(ids) + 1, bool)
        trained[0] = False  # it follows nothing
        return Encoded([document, *ids], trained, (len(trained),), cuttable=True)
    span = (0 if mask == "all" else len(example.text), len(example.text) + len(example.completion))
    trained = np.concatenate([[False], _inside(offsets, [span]), [True]])
    return Encoded([document, *ids, _end_of_text(tokenizer)], trained, (len(trained),))


def _end_of_text(tokenizer: EtudeTokenizer) -> int:
    """Return the token that ends a text: the ``eos_token`` of a published model, else what begins documents."""
    eos = token_name(special_tokens(tokenizer.carried or {}).get("eos_token"))
    number = None if eos is None else tokenizer.backend.token_to_id(eos)
    return tokenizer.roles.document_id if number is None else int(number)


def _conversation(example: Example, special: SpecialText, template: ChatTemplate, mask: Mask) -> Encoded:
    disguise = special.disguise(example.messages)
    last = len(example.messages) - 1
    trained = example.trained_turns()
    if mask == "last":
        trained = [number for number in trained if number == last]
    turns = turns_of(disguise.messages, template, special, [last] if mask == "all" else trained)
    disguise.require_same(turns.text.removesuffix(turns.added), template)
    ids, offsets = disguise.encode(turns.text)
    spans: list[Span] = [(0, len(turns.text))] if mask == "all" else [turns.answers[n] for n in trained]
    starts = [first for first, _ in offsets]
    ends = [int(np.searchsorted(starts, end)) for end in _ends(turns)]
    return Encoded(ids, _inside(offsets, spans), tuple(dict.fromkeys([*ends, len(ids)])))


def _preference(example: Example, special: SpecialText, template: ChatTemplate, mask: Mask) -> Encoded:
    # With "all" the common beginning would be trained too: it has the same probability in both, which cancels.
    trains: Mask = "last" if mask == "last" else "assistant"
    chosen, rejected = (_conversation(part, special, template, trains) for part in example.answers())
    if not (chosen.trained[1:].any() and rejected.trained[1:].any()):
        raise InputError(
            "an answer of a pair has no token to train: give rows with answers that are not empty"
        )
    trained = np.concatenate([chosen.trained, rejected.trained])
    trained[len(chosen.ids)] = False  # it follows nothing
    ids = [*chosen.ids, *rejected.ids]
    return Encoded(ids, trained, (len(ids),), second=len(chosen.ids))


def _ends(turns: Turns) -> list[int]:
    return [end for _, (_, end) in sorted(turns.answers.items())]


def _inside(offsets: list[tuple[int, int]], spans: list[Span]) -> npt.NDArray[np.bool_]:
    """Return which tokens lie in one of the spans of characters, at least in part."""
    places = np.array(offsets, np.int64).reshape(-1, 2)
    inside = np.zeros(len(places), bool)
    for start, end in spans:
        inside |= (places[:, 0] < end) & (places[:, 1] > start)
    return inside
