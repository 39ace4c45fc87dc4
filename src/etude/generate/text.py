"""From token ids to text as they come, without ever showing half a character.

One character may take several tokens, for a byte-level token holds bytes of UTF-8 and not characters.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

_REPLACEMENT = "\ufffd"
_LONGEST_CHARACTER = 4
"""Bytes, so tokens, that one character takes at most."""


class TokenStreamDecoder:
    """Feed ids one at a time; each call returns the text that is certain by now.

    All pieces together, `finish()` included, are what `tokenizer.decode` gives for all the ids at once. Bytes
    that cannot become a character show as U+FFFD, as they do there.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._decoder = (
            _ByteDecoder(tokenizer, skip_special_tokens)
            if _is_byte_level(tokenizer)
            else _WindowDecoder(tokenizer, skip_special_tokens)
        )

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


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    decoder: dict[str, Any] | None = json.loads(tokenizer.to_str()).get("decoder")
    return decoder is not None and decoder.get("type") == "ByteLevel"


def _bytes_of_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2's table).

    Bytes that print stand for themselves; the others, in order, for the letters from U+0100 on.
    """
    alphabet = set(ByteLevel.alphabet())
    table = {chr(byte): byte for byte in range(256) if chr(byte) in alphabet}
    rest = (byte for byte in range(256) if chr(byte) not in alphabet)
    return table | {chr(256 + index): byte for index, byte in enumerate(rest)}


class _ByteDecoder:
    """Exact for byte-level vocabularies: the bytes of each token go through an incremental UTF-8 decoder."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._letters = _bytes_of_letters()
        added = tokenizer.get_added_tokens_decoder()
        self._skipped = {i for i, token in added.items() if token.special} if skip_special_tokens else set()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        token = None if token_id in self._skipped else self._tokenizer.id_to_token(token_id)
        return "" if token is None else self._utf8.decode(self._bytes(token))

    def _bytes(self, token: str) -> bytes:
        if all(letter in self._letters for letter in token):
            return bytes(self._letters[letter] for letter in token)
        return token.encode()

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
        before = self._decode(self._shown)
        return self._decode(self._shown + self._held)[len(before) :]

    def _show(self, text: str) -> str:
        # The last shown tokens stay in view, because a decoder may join a token to the one before it.
        if self._held:
            self._shown, self._held = (self._shown + self._held)[-_LONGEST_CHARACTER:], []
        return text

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=self._skip))
