"""Special tokens that a template writes, and the same characters when they are part of a text.

A conversation is encoded as one text, because that is what the model was trained on: how a tokenizer cuts a text
depends on what stands before it. So that ``<|im_end|>`` of the template is the token, and ``<|im_end|>`` in a message
is ten characters, two disguises of equal length are used:

1. In the messages that a template is given, each special token is replaced by a private character, repeated as often
   as the token has characters. The template cannot confuse it with its own, and all places stay the same.
2. The text is encoded by a copy of the tokenizer whose special tokens are called by private characters as well. In
   the rendered text, the template's special tokens get these names, and then those of the messages become plain
   again. Tokens found by the copy get the ids of the original.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from etude.data.conversations.conversation import Message
from etude.data.conversations.place import Untrainable, place
from etude.data.conversations.template import ChatTemplate
from etude.data.tokens.roles import token_of
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.tokenizer_json import FILE, encodable, failures_in_one_line, usable_backend
from etude.errors import InputError
from etude.untrusted import shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PRIVATE = range(0xF0000, 0x10FFFE)
"""Characters without a meaning of their own (two planes), which texts hardly ever hold."""


class SpecialText:
    """The special tokens of one tokenizer, and its copy in which they are called by private characters."""

    def __init__(self, tokenizer: EtudeTokenizer) -> None:
        self._tokenizer = ref(tokenizer)  # the tokenizer is the key under which this is kept
        self._backend = tokenizer.backend
        added = tokenizer.backend.get_added_tokens_decoder()
        self.tokens = sorted({token.content for token in added.values() if token.special and token.content})
        if 2 * len(self.tokens) > len(_PRIVATE) // 4:
            raise InputError(
                f"the tokenizer has {len(self.tokens):,} special tokens, too many for conversations"
            )
        self._known = frozenset(self.tokens)
        self.stops = frozenset(token_of(tokenizer.backend, i) for i in tokenizer.roles.stop_ids)
        self._lengths = sorted({len(token) for token in self.tokens}, reverse=True)
        self._special = _any_of(self._known)
        self._added = _any_of({token.content for token in added.values() if token.content})
        self._copies: dict[int, _Copy] = {}

    @property
    def _size(self) -> int:
        return max(1, len(self.tokens))

    @cached_property
    def _number(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    def ending(self, text: str, end: int) -> str:
        """Return the special token that ends at ``end``; empty when none does."""
        for length in self._lengths:
            if length <= end and text[end - length : end] in self._known:
                return text[end - length : end]
        return ""

    def beginning(self, text: str, start: int) -> str:
        """Return the special token that begins at ``start``; empty when none does."""
        for length in self._lengths:
            if text[start : start + length] in self._known:
                return text[start : start + length]
        return ""

    def disguise(self, messages: Sequence[Message]) -> Disguise:
        """Return the messages with their special text in disguise."""
        turns = tuple(replace(turn, content=encodable(turn.content)) for turn in messages)
        used = {ord(c) for turn in turns if not turn.content.isascii() for c in turn.content}
        return Disguise(self, turns, *self._free(used))

    def _free(self, used: set[int]) -> tuple[int, int]:
        """Return where two blocks of private characters begin that no message uses."""
        private = sorted(code for code in used if code in _PRIVATE)
        free: list[int] = []
        for start in range(_PRIVATE.start, _PRIVATE.stop - self._size, self._size):
            if not any(start <= code < start + self._size for code in private):
                free.append(start)
                if len(free) == 2:
                    return free[0], free[1]
        raise InputError("a conversation has nearly every private character: leave them out")

    def encode_plain(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the tokens of a text without special tokens, and where each begins and ends."""
        with failures_in_one_line():
            encoding = self._backend.encode(encodable(text), add_special_tokens=False)
        return list(encoding.ids), list(encoding.offsets)

    def copy(self, start: int) -> _Copy:
        """Return the copy of the tokenizer whose special tokens have the private characters from ``start``."""
        if start not in self._copies:
            tokenizer = self._tokenizer()
            assert tokenizer is not None, "the tokenizer lives as long as its encoding"
            self._copies[start] = _Copy(tokenizer, self.tokens, start)
        return self._copies[start]


class Disguise:
    """The messages of one conversation with their special text in disguise (``messages``).

    ``original`` holds them without disguise. ``hidden`` and ``named`` are the first characters of the two blocks.
    """

    def __init__(self, special: SpecialText, original: tuple[Message, ...], named: int, hidden: int) -> None:
        self.special, self.original, self.named, self.hidden = special, original, named, hidden
        self.messages = tuple(replace(turn, content=self._hide(turn.content)) for turn in original)

    def _hide(self, content: str) -> str:
        return self.special._special.sub(lambda found: self._disguised(found[0], self.hidden), content)

    def _disguised(self, token: str, start: int) -> str:
        return chr(start + self.special._number[token]) * len(token)

    def _plain(self, text: str) -> str:
        """Return a rendered text with the special text of messages as it was written."""
        first, last = chr(self.hidden), chr(self.hidden + self.special._size - 1)

        def plain(found: re.Match[str]) -> str:
            run, tokens, position = found[0], [], 0
            while position < len(run):
                token = self.special.tokens[ord(run[position]) - self.hidden]
                whole = run[position : position + len(token)] == run[position] * len(token)
                tokens.append(
                    token if whole else "\ufffd"
                )  # the template has cut it: no text equals this one
                position += len(token) if whole else 1
            return "".join(tokens)

        return re.sub(f"[{first}-{last}]+", plain, text)

    def require_same(self, text: str, template: ChatTemplate, *, add_generation_prompt: bool = False) -> None:
        """Raise InputError unless the template writes the messages without disguise in the same way."""
        if self.messages == self.original:
            return
        plain = self._plain(text)
        original = template.render(self.original, add_generation_prompt=add_generation_prompt)
        if original.startswith(plain):
            return
        position = next(
            (i for i, (a, b) in enumerate(zip(plain, original, strict=False)) if a != b), len(original)
        )
        raise Untrainable(
            "the chat template treats special tokens in a message unlike other text",
            place(original, position),
            "take them out of the message",
        )

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the tokens of a text that a template rendered from ``messages``, and where each begins and ends."""

        def name(found: re.Match[str]) -> str:
            return self._disguised(found[0], self.named) if found[0] in self.special._known else found[0]

        return self.special.copy(self.named).encode(self._plain(self.special._added.sub(name, text)))


class _Copy:
    """A copy of a tokenizer whose special tokens are called by private characters."""

    def __init__(self, tokenizer: EtudeTokenizer, tokens: Sequence[str], start: int) -> None:
        stated = _stated(tokenizer)
        names = {token: chr(start + number) * len(token) for number, token in enumerate(tokens)}
        originals: dict[str, int] = {}
        entries = []
        for entry in stated["added_tokens"]:
            name = names.get(entry["content"], entry["content"])
            originals[name] = int(entry["id"])
            entries.append({**entry, "content": name})
        stated.update(added_tokens=entries, post_processor=None, truncation=None, padding=None)
        with failures_in_one_line():
            try:
                self.backend: Tokenizer = usable_backend(json.dumps(stated))
            except ValueError as error:
                raise InputError(f"the tokenizer cannot encode conversations ({shown(str(error))})") from None
        self.ids = {self.backend.token_to_id(name): number for name, number in originals.items()}
        self.roles = {tokenizer.roles.document_id, *tokenizer.roles.stop_ids}
        special = set(names.values())
        self.special = {name: number for name, number in originals.items() if name in special}

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the tokens of a text, as ids of the original, and where each begins and ends.

        Raises:
            InputError: the tokenizer's rules read ordinary text as a token with a role, or a special token as text.
        """
        with failures_in_one_line():
            encoding = self.backend.encode(text, add_special_tokens=False)
        ids = [self.ids.get(number, number) for number in encoding.ids]
        used = set(text)
        for name, number in self.special.items():
            if (number in self.roles or name[0] in used) and ids.count(number) != text.count(name):
                raise InputError("the tokenizer confuses special tokens with ordinary text: use another base")
        return ids, list(encoding.offsets)


def _stated(tokenizer: EtudeTokenizer) -> dict[str, Any]:
    """Return the JSON of a tokenizer with all its special tokens: a published one as it was published."""
    carried = (tokenizer.carried or {}).get(FILE)
    stated: dict[str, Any] = json.loads(tokenizer.to_json() if carried is None else carried)
    entries = {entry["content"]: entry for entry in stated.get("added_tokens") or []}
    for number, token in sorted(tokenizer.backend.get_added_tokens_decoder().items()):
        entry = entries.setdefault(
            token.content,
            {
                "id": number,
                "content": token.content,
                "single_word": token.single_word,
                "lstrip": token.lstrip,
                "rstrip": token.rstrip,
                "normalized": token.normalized,
            },
        )
        # Tokens with a role are special, and found before the text is normalised, whatever the file states.
        entry.update(special=bool(token.special), normalized=bool(token.normalized))
    stated["added_tokens"] = sorted(entries.values(), key=lambda entry: int(entry["id"]))
    return stated


def _any_of(tokens: set[str] | frozenset[str]) -> re.Pattern[str]:
    """Return an expression for any of the tokens; at one place, the longest."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


_KNOWN: WeakKeyDictionary[EtudeTokenizer, SpecialText] = WeakKeyDictionary()


def special_text_of(tokenizer: EtudeTokenizer) -> SpecialText:
    """Return the special text of a tokenizer, which is kept as long as the tokenizer."""
    if tokenizer not in _KNOWN:
        _KNOWN[tokenizer] = SpecialText(tokenizer)
    return _KNOWN[tokenizer]
