"""A conversation as a file of JSON: ``{"messages": [...]}`` with the model's source, the settings and the seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etude.data.conversations.conversation import Message
from etude.errors import InputError
from etude.files import write_json
from etude.generate.chat_prompt import messages_of
from etude.untrusted import MAX_JSON_BYTES, read_plain, shown

SCHEMA = 1
_ADVICE = "give a file that /save wrote"


@dataclass(frozen=True)
class SavedChat:
    """A saved conversation.

    Attributes:
        messages: perhaps a system prompt, then questions and answers in turn.
        model: the source of the model that answered; empty where the file has none.
        settings: how tokens were sampled, with the list ``stop``.
        retries: how many answers to the last question were replaced.
    """

    messages: list[Message]
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    retries: int = 0


def write_chat(path: Path, chat: SavedChat) -> None:
    """Write a conversation to ``path``, atomically.

    Raises:
        InputError: the file exists and holds something else, which stays.
        EtudeError: the disk is full or not writable.
    """
    if path.exists():
        try:
            read_chat(path)
        except InputError:
            raise InputError(f"{path} exists and is no saved conversation: choose another name") from None
    write_json(
        path,
        {
            "schema": SCHEMA,
            "model": chat.model,
            "settings": dict(chat.settings),
            "seed": chat.seed,
            "retries": chat.retries,
            "messages": [asdict(message) for message in chat.messages],
        },
    )


def read_chat(path: Path) -> SavedChat:
    """Read a saved conversation. Only ``messages`` are required, so other programs can write one.

    Raises:
        InputError: the file is missing, damaged or holds something else.
    """
    try:
        value = json.loads(read_plain(path, MAX_JSON_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: {_ADVICE}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {_ADVICE}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or "messages" not in value:
        raise InputError(f"{path} is no saved conversation, or is damaged: {_ADVICE}")
    if value.get("schema", SCHEMA) != SCHEMA:
        raise InputError(f"{path} has schema {shown(value['schema'])}; this etude reads {SCHEMA}: update it")
    try:
        messages = messages_of(value["messages"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    model, settings = value.get("model", ""), value.get("settings", {})
    seed, retries = value.get("seed", 0), value.get("retries", 0)
    right = isinstance(model, str) and isinstance(settings, dict) and type(seed) is int
    if not right or type(retries) is not int or not 0 <= retries < 2**63:
        raise InputError(f"{path} is damaged (its model, settings or seed is none): {_ADVICE}")
    if messages and messages[-1].role == "user":
        raise InputError(f"{path} ends with a question without an answer: remove its last message")
    return SavedChat(messages, model, settings, seed, retries)
