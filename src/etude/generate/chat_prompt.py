"""The prompt of an answer in a conversation: the turns that fit the context, as the chat template writes them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from etude.data.conversations.conversation import ROLES, Message, Role
from etude.data.conversations.encode import encode_prompt
from etude.data.conversations.template import CHATML, CHATML_TOKENS, ChatTemplate, template_of
from etude.data.tokens.roles import TURN_TOKENS
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.tokenizer_json import encodable
from etude.errors import InputError
from etude.generate.sampling import USUAL_SAMPLING, SamplingSettings
from etude.messages import command, either
from etude.untrusted import shown

_SHARE_OF_ANSWER = 4
"""An answer has room for a quarter of the context, or for ``max_new_tokens`` where these are fewer."""


@dataclass(frozen=True)
class ChatPrompt:
    """The prompt of an answer.

    Attributes:
        ids: its tokens.
        dropped: how many of the oldest exchanges it leaves out, because they do not fit.
    """

    ids: list[int]
    dropped: int


@dataclass(frozen=True)
class Chatter:
    """How a model takes part in a conversation.

    Attributes:
        template: writes the turns.
        stop_ids: the tokens that end its answer.
        context: the most tokens that it reads, answer included.
    """

    tokenizer: EtudeTokenizer
    template: ChatTemplate
    stop_ids: frozenset[int]
    context: int

    @classmethod
    def of(cls, tokenizer: EtudeTokenizer, context: int, source: object = "MODEL") -> Chatter:
        """Return it for the tokenizer of a model. ``source`` is what the user typed for the model.

        Raises:
            InputError: the model has no chat template.
        """
        template = chat_template(tokenizer)
        if template is None:
            raise InputError(
                f"{shown(str(source))} has no chat template, so it continues text and knows no turns: type  "
                f"{command('generate', source, 'TEXT')}"
            )
        return cls(tokenizer, template, answer_ends(tokenizer), context)

    def prompt(self, messages: Sequence[Message], most_new: int) -> ChatPrompt:
        """Return the prompt for an answer of up to ``most_new`` tokens to the last message.

        If it leaves too little room for the answer, whole exchanges are dropped, the oldest first. The system prompt
        and the last message stay.

        Raises:
            InputError: the last message does not fit, or the template refuses the conversation.
        """
        ids = self.ids(messages)
        room = max(1, min(most_new, self.context // _SHARE_OF_ANSWER))
        most = self.context - room
        if len(ids) <= most:
            return ChatPrompt(ids, 0)
        system = [message for message in messages[:1] if message.role == "system"]
        turns = list(messages[len(system) :])
        exchanges = len(turns) // 2  # before the last message
        dropped = bisect_left(
            range(exchanges), True, key=lambda count: len(self.ids(system + turns[2 * count :])) <= most
        )
        ids = self.ids(system + turns[2 * dropped :])
        if len(ids) > most:
            what = "the message and the system prompt take" if system else "the message takes"
            raise InputError(
                f"{what} {len(ids):,} tokens; the model reads {self.context:,}, of which an answer needs {room:,}: "
                "shorten the text"
            )
        return ChatPrompt(ids, dropped)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a conversation up to where the answer begins, whatever their number."""
        clean = [replace(turn, content=self.tokenizer.normalise(turn.content)) for turn in messages]
        return encode_prompt(clean, self.tokenizer, self.template)


def chat_template(tokenizer: EtudeTokenizer) -> ChatTemplate | None:
    """Return the chat template of a model; None without one.

    A tokenizer that Etude trained with the tokens of ChatML has that template.

    Raises:
        InputError: the file that holds it is damaged.
    """
    template = template_of(tokenizer)
    if template is None and tokenizer.carried is None:
        known = (tokenizer.backend.token_to_id(token) for token in CHATML_TOKENS)
        template = None if None in known else CHATML
    return template


def answer_sampling(settings: SamplingSettings, retries: int) -> SamplingSettings:
    """Return how the next answer to a question is sampled, after ``retries`` others.

    The likeliest answer is always the same, so others are drawn at the usual temperature.
    """
    if retries and settings.temperature == 0:
        return replace(settings, temperature=USUAL_SAMPLING.temperature)
    return settings


def answer_ends(tokenizer: EtudeTokenizer) -> frozenset[int]:
    """Return the tokens that end an answer: those that stop generation, and every known end of a turn."""
    special = {
        token.content: number
        for number, token in tokenizer.backend.get_added_tokens_decoder().items()
        if token.special
    }
    return tokenizer.roles.stop_ids | {special[token] for token in TURN_TOKENS if token in special}


def dropped_line(dropped: int, context: int) -> str:
    """Return the line that reports dropped exchanges."""
    which = "the oldest exchange does" if dropped == 1 else f"the {dropped:,} oldest exchanges do"
    return f"{which} not fit the context of {context:,} tokens: the model no longer reads {_it(dropped)}"


def _it(count: int) -> str:
    return "it" if count == 1 else "them"


def messages_of(value: Any) -> list[Message]:
    """Return a conversation from a text (one question), or from messages with ``role`` and ``content``.

    Raises:
        InputError: something else, or turns out of order: perhaps a system prompt, then user and assistant in turn.
    """
    if isinstance(value, str):
        value = [Message("user", value)]
    if not isinstance(value, Sequence) or not all(isinstance(item, Message | Mapping) for item in value):
        raise InputError(
            'a conversation is a list of messages, such as [{"role": "user", "content": "Hello"}]'
        )
    messages = [item if isinstance(item, Message) else _message(item) for item in value]
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    for number, turn in enumerate(turns):
        expected: Role = "assistant" if number % 2 else "user"
        if turn.role != expected:
            raise InputError(
                f"turn {number + 1} of the conversation is from {turn.role}, not {expected}: give perhaps a system "
                "prompt, then user and assistant in turn"
            )
    return messages


def require_question(messages: Sequence[Message]) -> None:
    """Raise InputError unless the last message is a question: text from the user."""
    if not messages or messages[-1].role != "user":
        raise InputError("the last message must be from user: it is what the model answers")
    if not messages[-1].content.strip():
        raise InputError("the message is empty: type a question")


def _message(item: Mapping[Any, Any]) -> Message:
    content = item.get("content")
    role = next((role for role in ROLES if role == item.get("role")), None)
    if role is None:
        raise InputError(f"a message is from {either(ROLES)}, not {shown(item.get('role'))}")
    if not isinstance(content, str):
        raise InputError(f"the content of a message must be text, not {shown(content)}")
    return Message(role, encodable(content))
