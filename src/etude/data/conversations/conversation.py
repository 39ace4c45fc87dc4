"""One example to learn from: a conversation, a prompt with its completion, a pair of answers, or plain text.

Examples are stored as text, one line of JSON each (:meth:`Example.to_json`), so that they go through the same corpus
as every other text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePath
from typing import Any, Literal, get_args

Role = Literal["system", "user", "assistant"]
Kind = Literal["conversation", "completion", "text", "preference"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ROLES: tuple[Role, ...] = get_args(Role)


SAMPLED = "samples-of-base.jsonl"
"""The name of a file that is only trained on: what the base model wrote is no measure of what was learned."""


def is_sampled(origin: str) -> bool:
    """Return whether the base model wrote the documents of this origin."""
    return PurePath(origin).name.startswith(SAMPLED)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: who speaks, and what."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the data.

    Attributes:
        kind: which of the other fields count.
        messages: the turns of a conversation: perhaps a system turn, then user and assistant in turn. The last is the
            assistant's. Of a preference, those of the conversation with the chosen answer.
        untrained: the numbers of assistant turns that are context only, ascending.
        text: plain text, all of it trained; of a completion, the prompt before it, which is not trained.
        completion: the text to write after the prompt ``text``.
        rejected: the turns of a preference's other conversation, with the rejected answer. Both conversations begin
            alike, and differ from an answer of the assistant on.
    """

    kind: Kind
    messages: tuple[Message, ...] = ()
    untrained: tuple[int, ...] = ()
    text: str = ""
    completion: str = ""
    rejected: tuple[Message, ...] = ()

    def to_json(self) -> str:
        """Return the example as one line of JSON. Equal examples give equal lines."""
        value: dict[str, Any] = {"kind": self.kind}
        if self.kind in ("conversation", "preference"):
            value["messages"] = _as_json(self.messages)
            if self.untrained:
                value["untrained"] = list(self.untrained)
            if self.kind == "preference":
                value["rejected"] = _as_json(self.rejected)
        else:
            value["text"] = self.text
            if self.kind == "completion":
                value["completion"] = self.completion
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Example:
        """Return the example that :meth:`to_json` wrote.

        Raises:
            ValueError: the line is something else.
        """
        try:
            value = json.loads(line)
        except RecursionError:
            value = None
        if not isinstance(value, Mapping) or value.get("kind") not in KINDS:
            raise ValueError("not an example")
        example = _from_fields(value)
        if example.to_json() != line:
            raise ValueError("not an example in the form in which Etude writes it")
        return example

    def trained_turns(self) -> list[int]:
        """Return the numbers of the assistant turns that are trained, ascending."""
        return [
            number
            for number, turn in enumerate(self.messages)
            if turn.role == "assistant" and number not in self.untrained
        ]

    @property
    def num_shared(self) -> int:
        """Number of turns with which both conversations of a preference begin."""
        pairs = zip(self.messages, self.rejected, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def answers(self) -> tuple[Example, Example]:
        """Return the conversations of a preference, chosen and rejected, whose common beginning is context only."""
        shared = self.num_shared
        context = tuple(n for n, turn in enumerate(self.messages[:shared]) if turn.role == "assistant")
        return Example("conversation", self.messages, context), Example(
            "conversation", self.rejected, context
        )

    def questions(self) -> list[str]:
        """Return what the user asks; of a completion the prompt, of plain text the text.

        Two wordings of a question that share their answer are two examples, and not near copies.
        """
        if self.kind in ("completion", "text"):
            return [self.text]
        return [turn.content for turn in self.messages if turn.role == "user"]

    def texts(self) -> list[str]:
        """Return what tells examples apart: the contents of all turns but the system's, or prompt and completion."""
        if self.kind in ("conversation", "preference"):
            turns = (*self.messages, *self.rejected[self.num_shared :])
            return [turn.content for turn in turns if turn.role != "system"]
        return [self.text, self.completion] if self.kind == "completion" else [self.text]


def _from_fields(value: Mapping[str, Any]) -> Example:
    if value["kind"] not in ("conversation", "preference"):
        text, completion = value.get("text"), value.get("completion", "")
        if not isinstance(text, str) or not isinstance(completion, str):
            raise ValueError("the text of an example is not a string")
        return Example(value["kind"], text=text, completion=completion)
    messages, untrained = value.get("messages"), value.get("untrained", [])
    if not isinstance(messages, list) or not isinstance(untrained, list):
        raise ValueError("an example without turns")
    if not all(type(number) is int for number in untrained):
        raise ValueError("the numbers of turns are not integers")
    rejected = value.get("rejected", [])
    if not isinstance(rejected, list) or bool(rejected) != (value["kind"] == "preference"):
        raise ValueError("a preference without two conversations")
    turns, others = (tuple(map(_message, part)) for part in (messages, rejected))
    return Example(value["kind"], turns, tuple(untrained), rejected=others)


def _as_json(turns: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping) or value.get("role") not in ROLES:
        raise ValueError("a turn without a known role")
    if not isinstance(value.get("content"), str):
        raise ValueError("a turn without content")
    return Message(value["role"], value["content"])
