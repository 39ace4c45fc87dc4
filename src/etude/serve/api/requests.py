"""Read the bodies of completions and chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.data.conversations.conversation import Message
from etude.data.tokens.tokenizer_json import encodable
from etude.errors import InputError
from etude.generate.chat_prompt import Chatter, messages_of, require_question
from etude.serve.api.call import Call, Options
from etude.serve.api.fields import (
    MOST_ALTERNATIVES,
    MOST_ROWS,
    Fields,
    bias_of,
    new_tokens,
    sampling,
    seed_of,
    stops_of,
)
from etude.serve.api.json_schema import schema_of
from etude.serve.api.models import Served
from etude.serve.api.problem import Problem
from etude.untrusted import shown

DEFAULT_NEW = 16
"""New tokens of a completion that gives no number, as in OpenAI's API."""
_ROLES = {"developer": "system"}


@dataclass(frozen=True)
class Asked:
    """A checked request.

    Attributes:
        texts: for each prompt, its text, to repeat with ``echo``.
        logprobs: whether log-probabilities are reported.
    """

    kind: str
    prompts: list[list[int]]
    texts: list[str]
    options: list[Options]
    samples: int
    stream: bool
    usage_chunk: bool
    logprobs: bool
    echo: bool = False
    hidden: tuple[int, ...] = ()
    """For each prompt, the number of tokens before its text (the beginning of a document)."""

    def call(self, served: Served) -> Call:
        """Return its rows."""
        return Call(served, self.kind, self.prompts, self.options, self.samples)


def chat_request(fields: Fields, served: Served) -> Asked:
    """Read a chat completion. Raises Problem for what is wrong."""
    prompt = conversation_ids(fields.take("messages"), served)
    logprobs = fields.truth("logprobs")
    alternatives = fields.whole("top_logprobs", 0, 0, MOST_ALTERNATIVES) or 0
    if alternatives and not logprobs:
        raise Problem("top_logprobs needs logprobs: true", param="top_logprobs")
    room = served.context - len(prompt)
    count = new_tokens(fields, None, room, len(prompt), served.context)
    stop_ids = served.answer_ends
    stream, usage_chunk, samples = _delivery(fields, 1)
    options = _options(fields, served, count, stop_ids, alternatives)
    fields.require_no_more()
    return Asked("chatcmpl", [prompt], [""], [options], samples, stream, usage_chunk, logprobs)


def completion_request(fields: Fields, served: Served) -> Asked:
    """Read a completion of text. Raises Problem for what is wrong."""
    given = _prompts(fields.take("prompt"), served)
    echo = fields.truth("echo")
    alternatives = fields.whole("logprobs", None, 0, MOST_ALTERNATIVES)
    longest = max(len(ids) for ids, _, _ in given)
    count = new_tokens(fields, DEFAULT_NEW, served.context - longest, longest, served.context)
    stream, usage_chunk, samples = _delivery(fields, len(given))
    best_of = fields.whole("best_of", samples, 1, MOST_ROWS)
    if best_of != samples:
        raise Problem("best_of is not supported by this server: leave it out", param="best_of")
    scored = echo and alternatives is not None
    stop_ids = frozenset(served.tokenizer.roles.stop_ids)
    options = _options(fields, served, count, stop_ids, alternatives or 0, scored)
    fields.require_no_more()
    prompts = [ids for ids, _, _ in given]
    texts = [text for _, text, _ in given]
    hidden = [count for _, _, count in given]
    return Asked(
        "cmpl",
        prompts,
        texts,
        [options] * len(prompts),
        samples,
        stream,
        usage_chunk,
        alternatives is not None,
        echo,
        tuple(hidden),
    )


def conversation_ids(value: Any, served: Served) -> list[int]:
    """Return the tokens of a conversation up to where the answer begins. Raises Problem for what is wrong."""
    template = served.require_chat()
    if not isinstance(value, list) or not value:
        raise Problem("messages must be a list with at least one message", param="messages")
    try:
        messages = messages_of([_message(item) for item in value])
        require_question(messages)
        chatter = Chatter(served.tokenizer, template, served.answer_ends, served.context)
        return chatter.ids(messages)
    except InputError as error:
        raise Problem(str(error), param="messages") from None


def _message(item: Any) -> Message | dict[str, Any]:
    if not isinstance(item, dict):
        raise Problem(f"a message must be an object, not {shown(item)}", param="messages")
    if item.get("tool_calls") or item.get("function_call"):
        raise Problem("tool calls are not supported by this server", param="messages")
    role = item.get("role")
    return {"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": _content(item)}


def _content(item: dict[str, Any]) -> Any:
    content = item.get("content")
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Problem(
                "a part of a message must be text: this server reads no other kind", param="messages"
            )
        parts.append(part["text"])
    return "".join(parts)


def _prompts(value: Any, served: Served) -> list[tuple[list[int], str, int]]:
    """Return tokens, text, and number of hidden tokens of each prompt."""
    if isinstance(value, str) or (isinstance(value, list) and value and _is_ids(value)):
        value = [value]
    if not isinstance(value, list) or not value:
        raise Problem(
            "prompt must be a text, a list of token ids, or a list of these with at least one", param="prompt"
        )
    if len(value) > MOST_ROWS:
        raise Problem(f"a request may have up to {MOST_ROWS} prompts, not {len(value)}", param="prompt")
    return [_prompt(one, served) for one in value]


def _prompt(value: Any, served: Served) -> tuple[list[int], str, int]:
    tokenizer = served.tokenizer
    if isinstance(value, str):
        text = tokenizer.normalise(encodable(value))
        return [tokenizer.roles.document_id, *tokenizer.encode(text)], text, 1
    if not isinstance(value, list) or not value or not _is_ids(value):
        raise Problem(f"a prompt must be text or token ids, not {shown(value)}", param="prompt")
    if not all(0 <= token < served.vocab_size for token in value):
        raise Problem(f"token ids must be from 0 to {served.vocab_size - 1}", param="prompt")
    return value, tokenizer.decode(value), 0


def _is_ids(value: Sequence[Any]) -> bool:
    return all(isinstance(token, int) and not isinstance(token, bool) for token in value)


def _delivery(fields: Fields, prompts: int) -> tuple[bool, bool, int]:
    """Return whether to stream, whether with a usage chunk, and the number of answers to each prompt."""
    stream = fields.truth("stream")
    options = fields.take("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Problem("stream_options must be an object", param="stream_options")
    if options and not stream:
        raise Problem("stream_options needs stream: true", param="stream_options")
    usage = bool(options and options.get("include_usage"))
    samples = fields.whole("n", 1, 1, MOST_ROWS) or 1
    if samples * prompts > MOST_ROWS:
        raise Problem(f"n times the number of prompts may be up to {MOST_ROWS}", param="n")
    return stream, usage, samples


def _options(
    fields: Fields,
    served: Served,
    count: int,
    stop_ids: frozenset[int],
    alternatives: int,
    scored: bool = False,
) -> Options:
    return Options(
        settings=sampling(fields, count),
        seed=seed_of(fields),
        stops=stops_of(fields),
        stop_ids=stop_ids,
        alternatives=alternatives,
        score_prompt=scored,
        # A scored prompt is followed by its prediction, also where that is the end: lm-eval drops the last token.
        ignore_end=fields.truth("ignore_eos") or scored,
        bias=bias_of(fields, served.vocab_size),
        presence=fields.number("presence_penalty", 0.0, -2.0, 2.0),
        frequency=fields.number("frequency_penalty", 0.0, -2.0, 2.0),
        schema=schema_of(fields),
    )
