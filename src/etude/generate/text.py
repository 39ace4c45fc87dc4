"""From token ids to text as they come, without ever showing half a character.

One character may take several tokens, for a byte-level token holds bytes of UTF-8 and not characters.
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
"""Bytes, so tokens, that one character takes at most."""
_LONGEST_VIEW = 64


class TokenStreamDecoder:
    """Feed ids one at a time; each call returns the text that is certain by now.

    All pieces together, `finish()` included, are what `tokenizer.decode` gives for all the ids at once. Bytes
    that cannot become a character show as U+FFFD. Where bytes are the fallback of a character vocabulary,
    `tokenizer.decode` gives up a whole run of bytes for one that is broken; here its sound characters stay,
    for they may have been shown already.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._decoder: _ByteDecoder | _WindowDecoder
        token_bytes = _token_bytes(tokenizer)
        if token_bytes is None:
            self._decoder = _WindowDecoder(tokenizer, skip_special_tokens)
        else:
            self._decoder = _ByteDecoder(tokenizer, skip_special_tokens, token_bytes)

    def feed(self, token_id: int) -> str:
        """The text that this token completes, "" while a character is unfinished."""
        return self._decoder.feed(token_id)

    def finish(self) -> str:
        """What was held back, at the end of the tokens."""
        return self._decoder.finish()

    def decode(self, token_ids: Iterable[int]) -> Iterator[str]:
        """The pieces of a whole stream, those that are not empty."""
        for token_id in token_ids:
            if piece := self.feed(token_id):
                yield piece
        if piece := self.finish():
            yield piece


def bytes_of_tokens(tokenizer: Tokenizer) -> dict[int, bytes] | None:
    """Each ordinary token in bytes, by id; None when that depends on the tokens around it."""
    token_bytes = _token_bytes(tokenizer)
    if token_bytes is None:
        return None
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return {i: token_bytes(token) for token, i in vocabulary.items() if i not in special}


def _token_bytes(tokenizer: Tokenizer) -> Callable[[str], bytes] | None:
    """How a token of this vocabulary is written in bytes; None when it depends on the tokens around it."""
    decoder: dict[str, Any] = json.loads(tokenizer.to_str()).get("decoder") or {}
    steps = [step.get("type") for step in decoder.get("decoders", [decoder])]
    if steps == ["ByteLevel"]:
        return _byte_level_bytes
    return _byte_fallback_bytes if steps == ["ByteFallback", "Fuse"] else None


def _bytes_of_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2's table).

    Bytes that print stand for themselves; the others, in order, for the letters from U+0100 on.
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
    """Exact where each token is some bytes: they go through an incremental UTF-8 decoder."""

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
    """For any other vocabulary: decode the last tokens again with the new one, and show what was added.

    A text that ends in U+FFFD is held back, for the next token may complete the character; but no longer than
    a character can take, so that a stream of broken bytes is shown too.
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
        # A decoder may see the shown tokens anew in the light of the held ones; what is shown cannot be
        # undone.
        return after[len(before) :] if after.startswith(before) else self._decode(self._held)

    def _show(self, text: str) -> str:
        if self._held:
            self._shown, self._held = self._recent(self._shown + self._held), []
        return text

    def _recent(self, ids: list[int]) -> list[int]:
        """The last tokens that show something and do not begin within a character.

        A decoder may join a token to the one before it, or treat the first text differently from the rest (it
        strips a space, say); after something visible, what follows reads as it does in the whole text.
        """
        for count in range(_LONGEST_CHARACTER, min(len(ids), _LONGEST_VIEW)):
            seen = self._decode(ids[-count:])
            if seen.strip() and _REPLACEMENT not in seen:
                return ids[-count:]
        return ids[-_LONGEST_VIEW:]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=self._skip))
