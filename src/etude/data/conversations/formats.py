"""Rows of data as examples. The format of each row is found by its keys.

    text                                      plain text
    chosen, rejected (prompt)                 two answers to one prompt, of which the first is preferred: strings, or
                                              messages, whose prompt may be their common beginning
    messages [{role, content}]                a conversation; a turn with weight 0 is context only
    conversations [{from, value}] (system)    a conversation, as ShareGPT writes it
    prompt, completion                        strings: plain text, of which the completion is trained;
                                              messages: a conversation, of which the prompt is context only
    instruction, input, output (system, history)  two turns, as Alpaca writes them
    question, answer                          two turns

A row that fits several is the first of these. In a table, a list of messages is written as JSON in one cell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etude.data.conversations.conversation import Example, Message, Role
from etude.data.reading.piece import Unusable
from etude.untrusted import shown

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "ai", "model", "bing", "bard"), "assistant"),
}
_TOOL_ROLES = {
    "tool",
    "function",
    "function_call",
    "function_response",
    "observation",
    "ipython",
    "tool_call",
}
_TOOL_KEYS = ("tools", "functions", "tool_calls", "function_call")
_MEDIA_KEYS = ("images", "image", "audios", "audio", "videos", "video")
_PROMPTS = ("instruction", "question")
_ANSWERS = ("output", "response", "answer")
_INPUTS = ("input", "context")
KIND_KEYS = ("category", "kind")
"""Either names the kind of a row, by which right answers are counted; it is not trained."""
_LONGEST_KIND = 60
TEXT = "text"
CONVERSATION_KEYS = ("messages", "conversations", "completion", "instruction", "question", "chosen")
"""Each format but plain text has one of these keys."""
ROW_KEYS = frozenset(
    {
        TEXT,
        "messages",
        "conversations",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "system",
        "system_prompt",
        "history",
    }
    | {*_PROMPTS, *_INPUTS, *_ANSWERS, *_TOOL_KEYS, *_MEDIA_KEYS}
)
"""Every key that counts."""
_MOST_SHOWN = 12
_MOST_PARTS = 100_000

Clean = Callable[[str], str]


def example_of(row: Mapping[str, Any], clean: Clean = str) -> Example:
    """Return the example that a row holds.

    A system turn without content counts as none. Turns after the last of the assistant teach nothing and are removed.
    ``clean`` is applied to every content.

    Raises:
        Unusable: the row has no known format, or is not usable as what it is, with the reason.
    """
    row = {str(key): value for key, value in row.items() if not _blank(value)}
    _refuse_tools_and_media(row)
    if isinstance(row.get(TEXT), str):
        return Example("text", text=_filled(row[TEXT], "text without content", clean))
    if "chosen" in row and "rejected" in row:
        return _preference(row, clean)
    if "messages" in row:
        turns = _turns(row["messages"], "messages", "role", "content")
        return _conversation(_with_system(row, turns), clean)
    if "conversations" in row:
        return _sharegpt(row, clean)
    if "completion" in row:
        return _completion(row, clean)
    prompt = _first(row, _PROMPTS) or _first(row, _INPUTS)
    if any(key in row for key in _PROMPTS) or (prompt and _first(row, _ANSWERS)):
        return _question(row, clean)
    raise unknown_format(list(row))


def kind_in(row: Mapping[str, Any]) -> str:
    """Return what a row calls itself, on one line; empty where it does not, or at length."""
    named = (row.get(key) for key in KIND_KEYS)
    kind = next((" ".join(value.split()) for value in named if isinstance(value, str) and value.strip()), "")
    return kind if len(kind) <= _LONGEST_KIND else ""


def is_conversation(row: object) -> bool:
    """Return whether a row has a known format that is not plain text, by its keys alone."""
    if not isinstance(row, Mapping) or not _blank(row.get(TEXT)):
        return False
    return any(not _blank(row.get(key)) for key in CONVERSATION_KEYS)


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _first(row: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if key in row), None)


def unknown_format(fields: Sequence[str]) -> Unusable:
    """Return the error for a row or table of which no format is known."""
    keys = ", ".join(f"'{shown(key)}'" for key in fields[:_MOST_SHOWN]) or "none"
    known = (
        "messages, conversations, instruction and output, prompt and completion, question and answer, chosen and "
        "rejected, or text"
    )
    return Unusable("no known format", f"its fields: {keys}; needed: {known}")


def _refuse_tools_and_media(row: Mapping[str, Any]) -> None:
    for key in _TOOL_KEYS:
        if key in row:
            raise Unusable("tools", f"'{key}': training on the use of tools does not exist")
    for key in _MEDIA_KEYS:
        if key in row and not isinstance(row[key], bool | int | float):
            raise Unusable("images or audio", f"'{key}': Etude reads text only")


def _filled(value: object, reason: str, clean: Clean) -> str:
    """Return a cleaned text. Raises Unusable with the ``reason`` where it holds only white space."""
    if not isinstance(value, str):
        raise Unusable("text is not a string", f"a {type(value).__name__}")
    text = clean(value)
    if not text.strip():
        raise Unusable(reason)
    return text


def _turns(value: object, key: str, role_key: str, content_key: str) -> list[tuple[str, Any, bool]]:
    """Return (role, content, whether it may be trained) of each entry of a list of messages."""
    if isinstance(value, str):
        value = _json_in(value, key)
    if not isinstance(value, list):
        raise Unusable("no list of messages", f"'{key}' holds a {type(value).__name__}")
    return [_turn(entry, key, role_key, content_key) for entry in value]


def _json_in(text: str, key: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable("no list of messages", f"'{key}' holds text that is not JSON") from None


def _turn(entry: object, key: str, role_key: str, content_key: str) -> tuple[str, Any, bool]:
    if not isinstance(entry, Mapping):
        raise Unusable("no list of messages", f"'{key}' has an entry that is a {type(entry).__name__}")
    if role_key not in entry and {"from", "value", "role", "content"} & set(entry):
        # Files named for one format often hold the keys of the other.
        role_key, content_key = ("role", "content") if "role" in entry else ("from", "value")
    _refuse_tools_and_media({str(name): value for name, value in entry.items() if not _blank(value)})
    weight = entry.get("weight")
    trained = (weight is None or weight != 0) and entry.get("train") is not False
    return str(entry.get(role_key)), entry.get(content_key), trained


def _text_of(content: object) -> str:
    """Return the text of a message; of a list of parts, their texts joined."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or len(content) > _MOST_PARTS:
        raise Unusable("text is not a string", f"a message holds a {type(content).__name__}")
    return "".join(map(_text_of_part, content))


def _text_of_part(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise Unusable("text is not a string", f"a part of a message is a {type(part).__name__}")
    kind = part.get("type", "text")
    if kind not in {"text", "input_text", "output_text"} or not isinstance(part.get("text"), str):
        raise Unusable("images or audio", f"a part of a message is '{shown(kind)}': Etude reads text only")
    return str(part["text"])


def _messages(turns: list[tuple[str, Any, bool]], clean: Clean) -> list[tuple[Message, bool]]:
    """Return (message, whether it may be trained) of turns, without system turns that have no content."""
    messages = []
    for name, content, trained in turns:
        folded = name.strip().lower()
        if folded in _TOOL_ROLES:
            raise Unusable("tools", f"a turn of the role '{shown(name)}'")
        role = _ROLES.get(folded)
        if role is None:
            raise Unusable("unknown role", f"'{shown(name)}'; known: system, user, assistant")
        text = clean(_text_of(content))
        if text.strip():
            messages.append((Message(role, text), trained))
        elif role != "system":
            raise Unusable("empty message", f"a turn of the {role} has no content")
    return messages


def _conversation(turns: list[tuple[str, Any, bool]], clean: Clean) -> Example:
    messages = _messages(turns, clean)
    while messages and messages[-1][0].role != "assistant":
        messages.pop()
    if not messages:
        raise Unusable("no assistant turn")
    _require_order([message.role for message, _ in messages])
    untrained = tuple(
        number
        for number, (message, trained) in enumerate(messages)
        if message.role == "assistant" and not trained
    )
    if len(untrained) == sum(message.role == "assistant" for message, _ in messages):
        raise Unusable("no assistant turn to train", "each has the weight 0, or belongs to the prompt")
    return Example("conversation", tuple(message for message, _ in messages), untrained)


def _require_order(roles: list[Role]) -> None:
    """Raise Unusable unless a system turn comes at most first, and the user and the assistant take turns."""
    turns = roles[1:] if roles[0] == "system" else roles
    for number, role in enumerate(turns):
        expected = "assistant" if number % 2 else "user"
        if role != expected:
            place = number + 1 + len(roles) - len(turns)
            raise Unusable("roles out of order", f"turn {place} is {role} and should be {expected}")


def _sharegpt(row: Mapping[str, Any], clean: Clean) -> Example:
    turns = _turns(row["conversations"], "conversations", "from", "value")
    return _conversation(_with_system(row, turns), clean)


def _with_system(row: Mapping[str, Any], turns: list[tuple[str, Any, bool]]) -> list[tuple[str, Any, bool]]:
    system = row.get("system", row.get("system_prompt"))
    has_system = bool(turns) and _ROLES.get(turns[0][0].strip().lower()) == "system"
    return turns if system is None or has_system else [("system", system, False), *turns]


def _completion(row: Mapping[str, Any], clean: Clean) -> Example:
    if row.get("label") is False:  # as data of Kahneman-Tversky optimization marks what is not wanted
        raise Unusable("completion with a label of false", "only wanted answers can be trained")
    prompt, completion = _parsed_list(row.get("prompt", "")), _parsed_list(row["completion"])
    if isinstance(prompt, str) and isinstance(completion, str):
        return Example(
            "completion", text=clean(prompt), completion=_filled(completion, "empty completion", clean)
        )
    before = (
        [("user", prompt, False)]
        if isinstance(prompt, str)
        else [(role, content, False) for role, content, _ in _turns(prompt, "prompt", "role", "content")]
    )
    after = (
        [("assistant", completion, True)]
        if isinstance(completion, str)
        else _turns(completion, "completion", "role", "content")
    )
    return _conversation(_with_system(row, [*before, *after]), clean)


def _preference(row: Mapping[str, Any], clean: Clean) -> Example:
    """Return a pair of conversations that differ from an answer of the assistant on."""
    prompt = _parsed_list(row.get("prompt", []))
    before = (
        [("user", prompt, False)] if isinstance(prompt, str) else _turns(prompt, "prompt", "role", "content")
    )
    chosen, rejected = (
        _conversation(_with_system(row, _whole(before, row[key], key)), clean).messages
        for key in ("chosen", "rejected")
    )
    example = Example("preference", chosen, rejected=rejected)
    if chosen == rejected:
        raise Unusable("equal answers", "the chosen and the rejected one")
    remaining = [turns[example.num_shared :] for turns in (chosen, rejected)]
    if not all(turns and turns[0].role == "assistant" for turns in remaining):
        raise Unusable("no common prompt", "the two conversations must differ from an answer on")
    return example


def _whole(before: list[tuple[str, Any, bool]], value: object, key: str) -> list[tuple[str, Any, bool]]:
    """Return the turns of a conversation of a pair: messages that begin with the assistant continue the prompt."""
    value = _parsed_list(value)
    turns = [("assistant", value, True)] if isinstance(value, str) else _turns(value, key, "role", "content")
    continues = bool(turns) and _ROLES.get(turns[0][0].strip().lower()) == "assistant"
    if continues and not before:
        raise Unusable("no prompt", "needed: 'prompt', or lists of messages with a common beginning")
    return [*before, *turns] if continues else turns


def _parsed_list(value: object) -> object:
    """Return the list of messages that a cell of a table holds as JSON; any other value unchanged."""
    if isinstance(value, str) and value.lstrip().startswith("[{") and value.rstrip().endswith("}]"):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if all(isinstance(entry, Mapping) and "role" in entry for entry in parsed):
            return parsed
    return value


def _question(row: Mapping[str, Any], clean: Clean) -> Example:
    answer = _first(row, _ANSWERS)
    if answer is None:
        raise Unusable("no assistant turn", "the answer is empty")
    parts = [_first(row, _PROMPTS), _first(row, _INPUTS)]
    texts = [_filled(part, "empty message", clean) for part in parts if part is not None]
    turns: list[tuple[str, Any, bool]] = []
    history = row.get("history", [])
    if isinstance(history, str):
        history = _json_in(history, "history")
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise Unusable("bad history", "needed: a list of pairs of a question and its answer")
        turns += [("user", pair[0], True), ("assistant", pair[1], True)]
    turns += [("user", "\n\n".join(texts), True), ("assistant", answer, True)]
    return _conversation(_with_system(row, turns), clean)
