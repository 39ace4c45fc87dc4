"""The chat template of a model: Jinja that writes the turns of a conversation as one text."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.data.conversations.conversation import Message
from etude.data.tokens.roles import token_name
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.untrusted import shown

TEMPLATE_DATE = datetime.date(2024, 7, 26)
"""What a template takes for today (``strftime_now``): training must give the same text on every day.

It is the date that Llama 3.1's template takes where it knows no other.
"""
MOST_SOURCE_CHARS = 1_000_000
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_UNUSED = range(0xF0000, 0xFFFFE)
"""Private characters, of which two that occur nowhere mark the ``{% generation %}`` blocks."""

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
CHATML_SOURCE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the special tokens that it may write.

    Attributes:
        source: the Jinja.
        tokens: the special tokens by the names that templates use, such as ``bos_token``.
        date: what the template takes for today.
    """

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict, hash=False)
    date: datetime.date = TEMPLATE_DATE

    @property
    def has_generation(self) -> bool:
        """Whether it marks what the assistant writes with ``{% generation %}``."""
        return _GENERATION.search(self.source) is not None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the text of the turns; with ``add_generation_prompt``, up to where the assistant's answer begins.

        Raises:
            InputError: the template fails on these turns, refuses them, or takes too much time or memory.
        """
        return self._rendered(messages, add_generation_prompt, None)

    def generation_spans(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Return where each ``{% generation %}`` block begins and ends in the text of :meth:`render`.

        Raises:
            InputError: as :meth:`render`; or the template changes what it has marked.
        """
        used = {character for turn in messages for character in turn.content} | set(self.source)
        free = (character for character in map(chr, _UNUSED) if character not in used)
        begin, end = next(free, ""), next(free, "")
        marked = self._rendered(messages, False, (begin, end))
        spans, position, first = [], 0, 0
        for part in re.split(f"({begin}|{end})", marked):
            if part == begin:
                first = position
            elif part == end:
                spans.append((first, position))
            else:
                position += len(part)
        if marked.replace(begin, "").replace(end, "") != self.render(messages):
            raise InputError(
                "the chat template changes the text of its {% generation %} blocks: use a template without them"
            )
        return spans

    def _rendered(
        self, messages: Sequence[Message], add_generation_prompt: bool, marks: tuple[str, str] | None
    ) -> str:
        from etude.data.conversations import sandbox

        if len(self.source) > MOST_SOURCE_CHARS:
            raise InputError(
                f"the chat template is longer than {MOST_SOURCE_CHARS:,} characters: use another"
            )
        values: dict[str, Any] = {
            **self.tokens,
            "messages": [{"role": turn.role, "content": turn.content} for turn in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            with sandbox.bounded(self.date, marks):
                pieces, length = [], 0
                for piece in sandbox.compiled(self.source).generate(values):
                    length += len(piece)
                    if length > sandbox.MOST_CHARS:
                        raise sandbox.TooMuch("it makes too much text")
                    pieces.append(piece)
        except sandbox.TooMuch as error:
            raise InputError(f"the chat template was stopped: {shown(str(error))}: use another") from None
        except (Exception, RecursionError, MemoryError) as error:  # whatever the code of a stranger raises
            reason = shown(str(error).strip() or type(error).__name__)
            roles = ", ".join(dict.fromkeys(turn.role for turn in messages))
            raise InputError(
                f"the chat template cannot write a conversation of {roles}: {reason}; change the conversation, or "
                "the template of the model"
            ) from None
        return "".join(pieces)


CHATML = ChatTemplate(CHATML_SOURCE)
"""The template for a model without one. Its tokens ``<|im_start|>`` and ``<|im_end|>`` must be in the vocabulary."""


def template_of(tokenizer: EtudeTokenizer) -> ChatTemplate | None:
    """Return the chat template of a published model, from the files that its tokenizer carries; None without one.

    Raises:
        InputError: the file that holds it is damaged.
    """
    files = tokenizer.carried or {}
    source = template_source(files)
    if source is None:
        return None
    return ChatTemplate(source, special_tokens(files))


def template_source(files: Mapping[str, bytes]) -> str | None:
    """Return the chat template in the files of a model; of several by name, the one called ``default``.

    It is the content of chat_template.jinja, else ``chat_template`` in chat_template.json or in
    tokenizer_config.json.

    Raises:
        InputError: a file is not UTF-8.
    """
    if "chat_template.jinja" in files:
        try:
            return files["chat_template.jinja"].decode("utf-8")
        except UnicodeDecodeError:
            raise InputError("chat_template.jinja of the model is not UTF-8: restore it") from None
    for name in ("chat_template.json", "tokenizer_config.json"):
        source = _named(_object(files, name).get("chat_template"))
        if source is not None:
            return source
    return None


def special_tokens(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the special tokens of a model by the names that templates use (``bos_token``, ``eos_token`` ...)."""
    stated = {**_object(files, "special_tokens_map.json"), **_object(files, "tokenizer_config.json")}
    names = {f"{role}_token": token_name(stated.get(f"{role}_token")) for role in _ROLES}
    return {name: token for name, token in names.items() if token is not None}


def _named(value: Any) -> str | None:
    if isinstance(value, list):
        named = {e.get("name"): e.get("template") for e in value if isinstance(e, dict)}
        value = named.get("default")
    elif isinstance(value, dict):
        value = value.get("default")
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else None


def _object(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        value = json.loads(files.get(name, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
