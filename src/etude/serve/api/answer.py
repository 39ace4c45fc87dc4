"""Answers in the shapes of the API, whole and in chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from etude.serve.api.call import Call, Choice
from etude.serve.api.logprobs import chat_logprobs, completion_logprobs
from etude.serve.api.requests import Asked


def chat_answer(call: Call, asked: Asked) -> dict[str, Any]:
    """Return a whole chat completion."""
    choices = [
        {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": chat_logprobs(call.served, choice.tokens) if asked.logprobs else None,
            "finish_reason": choice.finish_reason,
        }
        for choice in call.choices
    ]
    return {**_head(call, "chat.completion"), "choices": choices, "usage": call.usage()}


async def chat_chunks(call: Call, asked: Asked) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks of a chat completion."""
    head = _head(call, "chat.completion.chunk")
    for choice in call.choices:
        yield _chunk(head, asked, choice, {"delta": {"role": "assistant", "content": ""}})
    async for event in call.events():
        part: dict[str, Any] = {"delta": {"content": event.piece} if event.piece else {}}
        if asked.logprobs and event.token is not None:
            part["logprobs"] = chat_logprobs(call.served, [event.token])
        if event.piece or event.choice.finish_reason or asked.logprobs:
            yield _chunk(head, asked, event.choice, part)
    if asked.usage_chunk:
        yield {**head, "choices": [], "usage": call.usage()}


def completion_answer(call: Call, asked: Asked) -> dict[str, Any]:
    """Return a whole completion."""
    choices = []
    for choice in call.choices:
        prompt = choice.index // asked.samples
        tokens = [*choice.scored_prompt[asked.hidden[prompt] :], *choice.tokens]
        echoed = asked.texts[prompt] if asked.echo else ""
        # Without echo, offsets count from the end of the prompt.
        choices.append(
            {
                "index": choice.index,
                "text": echoed + choice.text,
                "logprobs": completion_logprobs(call.served, tokens) if asked.logprobs else None,
                "finish_reason": choice.finish_reason,
            }
        )
    return {**_head(call, "text_completion"), "choices": choices, "usage": call.usage()}


async def completion_chunks(call: Call, asked: Asked) -> AsyncIterator[dict[str, Any]]:
    """Yield the chunks of a completion. With ``echo``, the first chunk of a choice has its prompt."""
    head = _head(call, "text_completion")
    offsets: dict[int, int] = {}
    echoed: set[int] = set()
    async for event in call.events():
        choice, text, tokens = event.choice, event.piece, [event.token] if event.token else []
        if asked.echo and choice.index not in echoed:
            echoed.add(choice.index)
            prompt = choice.index // asked.samples
            text = asked.texts[prompt] + text
            tokens = [*choice.scored_prompt[asked.hidden[prompt] :], *tokens]
        part: dict[str, Any] = {"text": text}
        if asked.logprobs and tokens:
            part["logprobs"] = completion_logprobs(call.served, tokens, offsets.get(choice.index, 0))
            offsets[choice.index] = part["logprobs"]["text_offset"][-1] + len(part["logprobs"]["tokens"][-1])
        if text or (tokens and asked.logprobs) or choice.finish_reason:
            yield _chunk(head, asked, choice, part)
    if asked.usage_chunk:
        yield {**head, "choices": [], "usage": call.usage()}


def _head(call: Call, kind: str) -> dict[str, Any]:
    return {
        "id": call.id,
        "object": kind,
        "created": call.created,
        "model": call.served.name,
        "system_fingerprint": call.served.version,
    }


def _chunk(head: dict[str, Any], asked: Asked, choice: Choice, part: dict[str, Any]) -> dict[str, Any]:
    whole = {"index": choice.index, "logprobs": None, "finish_reason": choice.finish_reason, **part}
    return {**head, "choices": [whole], **({"usage": None} if asked.usage_chunk else {})}
