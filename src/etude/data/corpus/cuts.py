"""Where a text may be cut so that its pieces, encoded one by one, give the tokens of the whole.

The pre-tokenizer expressions of GPT-2, Llama 3 and Qwen 2 always end a word between a line end and what follows when
both neighbours of the line end are not white space, and before a single space between two letters. Nothing before
such a place depends on what comes after it, so pieces cut there give exactly the same tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

PIECE_BYTES = 16_384
"""Text is encoded in pieces of at most about this many bytes; between them tokens and bytes can be counted."""
HARD_PIECE_BYTES = 262_144
"""A stretch of this length without a safe place (a million characters without a space) is cut anyway."""

_AFTER_LINE = re.compile(r"(?<=\S\n)(?=\S)")
_BEFORE_SPACE = re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])")


def pieces(text: str, size: int = PIECE_BYTES, hard: int = HARD_PIECE_BYTES) -> Iterator[str]:
    """``text`` in consecutive pieces of at most ``size`` UTF-8 bytes, more where no safe place comes so soon."""
    position = 0
    num_bytes = len(text) if text.isascii() else len(text.encode("utf-8"))
    room = max(1, size * len(text) // max(num_bytes, 1))
    while len(text) - position > room:
        cut = _last_safe(text, position + 1, position + room) or _next_safe(
            text, position + room, position + hard
        )
        if cut is None:
            break
        yield text[position:cut]
        position = cut
    if position < len(text):
        yield text[position:]


def last_safe_byte(window: bytes) -> int | None:
    """The last safe place in a stretch of UTF-8 text, in bytes from its beginning; its edges may cut characters."""
    lead = 0
    while lead < min(4, len(window)) and window[lead] & 0xC0 == 0x80:
        lead += 1
    text = window[lead:].decode("utf-8", "ignore")
    cut = _last_safe(text, 1, len(text))
    return None if cut is None else lead + len(text[:cut].encode("utf-8"))


def _last_safe(text: str, low: int, high: int) -> int | None:
    """The last safe place in [low, high], looked for from the end in growing stretches."""
    reach = 256
    end = high
    while end >= low:
        begin = max(low, high - reach)
        # The expressions look two characters to each side, so the stretch is matched inside the whole text.
        for pattern in (_AFTER_LINE, _BEFORE_SPACE):
            places = [
                m.start()
                for m in pattern.finditer(text, begin, min(len(text), high + 2))
                if m.start() <= high
            ]
            if places:
                return places[-1]
        if begin == low:
            return None
        reach *= 8
    return None


def _next_safe(text: str, low: int, high: int) -> int | None:
    """The first safe place in [low, high]; ``high`` itself when the text is longer and has none."""
    stop = min(len(text), high)
    found = [m.start() for p in (_AFTER_LINE, _BEFORE_SPACE) if (m := p.search(text, low, stop)) is not None]
    if found:
        return min(found)
    return high if len(text) > high else None
