"""Decode a stream of token ids to text, without ever emitting half a character.

A token of a byte-level vocabulary holds bytes of UTF-8, so a character may take several tokens.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

_REPLACEMENT = "\ufffd"
_LONGEST_CHARACTER = 4
"""Most bytes, and so most tokens, of one character."""
_LONGEST_VIEW = 64
"""Most tokens that are decoded again with each new one."""


class TokenStreamDecoder:
    """Feed ids one at a time; each call returns the text that is certain now.

    All pieces together, with `finish()`, equal `tokenizer.decode` of all ids. Invalid bytes become U+FFFD. One
    difference: in a character vocabulary with byte fallback, `tokenizer.decode` replaces a whole run of bytes if one of
    them is invalid. This class keeps the valid characters, since it may have emitted them already.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._decoder: _ByteDecoder | _WindowDecoder
        token_bytes = _token_bytes(tokenizer)
        if token_bytes is None:
            self._decoder = _WindowDecoder(tokenizer, skip_special_tokens)
        else:
            self._decoder = _ByteDecoder(tokenizer, skip_special_tokens, token_bytes)

    def feed(self, token_id: int) -> str:
        """Add a token; return the text that it completes, "" within a character."""
        return self._decoder.feed(token_id)

    def finish(self) -> str:
        """Return the text that was held back, at the end of the stream."""
        return self._decoder.finish()

    def decode(self, token_ids: Iterable[int]) -> Iterator[str]:
        """Yield the non-empty pieces of a whole stream."""
        for token_id in token_ids:
            if piece := self.feed(token_id):
                yield piece
        if piece := self.finish():
            yield piece


def bytes_of_tokens(tokenizer: Tokenizer) -> dict[int, bytes] | None:
    """Return the bytes of each ordinary token, by id; None if they depend on neighbouring tokens."""
    token_bytes = _token_bytes(tokenizer)
    if token_bytes is None:
        return None
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return {i: token_bytes(token) for token, i in vocabulary.items() if i not in special}


def _token_bytes(tokenizer: Tokenizer) -> Callable[[str], bytes] | None:
    """Return the function from token to bytes of this vocabulary; None if bytes depend on neighbouring tokens."""
    decoder: dict[str, Any] = json.loads(tokenizer.to_str()).get("decoder") or {}
    steps = [step.get("type") for step in decoder.get("decoders", [decoder])]
    if steps == ["ByteLevel"]:
        return _byte_level_bytes
    return _byte_fallback_bytes if steps == ["ByteFallback", "Fuse"] else None


def _bytes_of_letters() -> dict[str, int]:
    """Return the byte of each letter in a byte-level vocabulary (GPT-2's table).

    Printable bytes are written as themselves; the others, in order, as the letters from U+0100 on.
    """
    alphabet = set(ByteLevel.alphabet())
    table = {chr(byte): byte for byte in range(256) if chr(byte) in alphabet}
    rest = (byte for byte in range(256) if chr(byte) not in alphabet)
    return table | {chr(256 + index): byte for index, byte in enumerate(rest)}


_LETTERS = _bytes_of_letters()
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


def _byte_level_bytes(token: str) -> bytes:
    if all(letter in _LETTERS for letter in token):
        return bytes(_LETTERS[letter] for letter in token)
    return token.encode()


def _byte_fallback_bytes(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.encode()


class _ByteDecoder:
    """For vocabularies with fixed bytes for each token: an incremental UTF-8 decoder, which is exact."""

    def __init__(
        self, tokenizer: Tokenizer, skip_special_tokens: bool, token_bytes: Callable[[str], bytes]
    ) -> None:
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        added = tokenizer.get_added_tokens_decoder()
        self._skipped = {i for i, token in added.items() if token.special} if skip_special_tokens else set()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        token = None if token_id in self._skipped else self._tokenizer.id_to_token(token_id)
        return "" if token is None else self._utf8.decode(self._token_bytes(token))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class _WindowDecoder:
    """For any other vocabulary: decode the last tokens again with each new one, and emit the difference.

    Text that ends in U+FFFD is held back, since the next token may complete the character; but for at most the length
    of a character, so that a stream of invalid bytes is emitted too.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._shown: list[int] = []
        self._held: list[int] = []

    def feed(self, token_id: int) -> str:
        self._held.append(token_id)
        new = self._new_text()
        if new.endswith(_REPLACEMENT) and len(self._held) < _LONGEST_CHARACTER:
            return ""
        return self._show(new)

    def finish(self) -> str:
        return self._show(self._new_text())

    def _new_text(self) -> str:
        before, after = self._decode(self._shown), self._decode(self._shown + self._held)
        # Held tokens may change how the decoder renders the emitted ones; these cannot be taken back.
        return after[len(before) :] if after.startswith(before) else self._decode(self._held)

    def _show(self, text: str) -> str:
        if self._held:
            self._shown, self._held = self._recent(self._shown + self._held), []
        return text

    def _recent(self, ids: list[int]) -> list[int]:
        """Return the last tokens that decode to visible text and do not begin within a character.

        A decoder may merge a token with the one before it, or treat the beginning of a text differently (strip a space,
        for example). After some visible text, further tokens decode as they do within the whole text.
        """
        for count in range(_LONGEST_CHARACTER, min(len(ids), _LONGEST_VIEW)):
            seen = self._decode(ids[-count:])
            if seen.strip() and _REPLACEMENT not in seen:
                return ids[-count:]
        return ids[-_LONGEST_VIEW:]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=self._skip))
