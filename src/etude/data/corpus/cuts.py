"""Cut a text so that its pieces, encoded one by one, give the tokens of the whole.

The tokenizer decides which kinds of place are safe: :mod:`etude.data.tokens.cutting` proves it from its pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

PIECE_BYTES = 16_384
"""Text is encoded in pieces of at most about this many bytes; tokens and bytes can be counted at their ends."""
REACH = 262_144
"""A usual place within this many characters is preferred to any other place."""

AFTER_LINE = re.compile(r"(?<=\S\n)(?=\S)")
BEFORE_SPACE = re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])")
ANY = re.compile(r"(?<=[\s\S])(?=[\s\S])")


@dataclass(frozen=True)
class Places:
    """Expressions that match the places where a text may be cut.

    ``usual`` places are tried first, in their order; ``others`` where no usual place is near. Without any expression,
    a text is encoded as a whole.
    """

    usual: tuple[re.Pattern[str], ...]
    others: tuple[re.Pattern[str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.usual or self.others)

    @cached_property
    def all(self) -> tuple[re.Pattern[str], ...]:
        """One expression that matches any of the places."""
        return (re.compile("|".join(place.pattern for place in self.usual + self.others)),) if self else ()


USUAL = Places((AFTER_LINE, BEFORE_SPACE))


def pieces(text: str, size: int = PIECE_BYTES, places: Places = USUAL) -> Iterator[str]:
    """Yield ``text`` in pieces of at most ``size`` UTF-8 bytes, longer where no safe place comes in time."""
    position = 0
    num_bytes = len(text) if text.isascii() else len(text.encode("utf-8"))
    room = max(1, size * len(text) // max(num_bytes, 1))
    without_usual = 0  # no usual place lies before this position, so that no stretch is searched twice
    while len(text) - position > room and places:
        low, high = position + 1, position + room
        cut = _last(places.usual, text, low, high) if high >= without_usual else None
        if cut is None:
            stop = min(position + REACH, len(text) - 1)
            cut = _next(places.usual, text, max(high, without_usual), stop)
            without_usual = max(without_usual, stop)
        if cut is None:
            cut = _last(places.others, text, low, high) or _next(places.all, text, high, len(text) - 1)
        if cut is None:
            break
        yield text[position:cut]
        position = cut
    if position < len(text):
        yield text[position:]


def segments(
    read: Callable[[int, int], bytes], start: int, end: int, size: int, longest: int, places: Places
) -> Iterator[tuple[int, int, bool]]:
    """Yield ranges of about ``size`` bytes that tile [start, end) of UTF-8 text and end at safe places.

    Args:
        read: returns the bytes of a range.
        longest: a stretch without a safe place is cut between two characters after this many bytes.

    Yields:
        (start, end, whether the range ends at a safe place or at ``end``).
    """
    position = start
    while end - position > 2 * size and places:
        cut, safe = _segment_end(read, position, end, size, longest, places)
        if cut >= end:
            break
        yield position, cut, safe
        position = cut
    yield position, end, True


def _segment_end(
    read: Callable[[int, int], bytes], position: int, end: int, size: int, longest: int, places: Places
) -> tuple[int, bool]:
    """Return (end of the segment that begins at ``position``, whether it is a safe place or ``end``)."""
    begin = position + size // 2
    while begin < min(end, position + longest):
        stop = min(begin + size // 2, end)
        # Read some bytes more: a place is recognised by the characters on both sides of it.
        window, before = read(max(position, begin - 16), stop), min(16, begin - position)
        cut = last_safe_byte(window, places.usual) or last_safe_byte(window, places.others)
        if cut is not None and cut > 0:
            return begin - before + cut, True
        begin = stop
    if begin >= end:
        return end, True
    cut = position + longest
    while read(cut, cut + 1)[0] & 0xC0 == 0x80:
        cut -= 1
    return cut, False


def last_safe_byte(window: bytes, patterns: Sequence[re.Pattern[str]] = USUAL.usual) -> int | None:
    """Return the byte offset of the last safe place in a stretch of UTF-8 text, whose ends may cut characters."""
    lead = 0
    while lead < min(4, len(window)) and window[lead] & 0xC0 == 0x80:
        lead += 1
    text = window[lead:].decode("utf-8", "ignore")
    cut = _last(patterns, text, 1, len(text))
    return None if cut is None else lead + len(text[:cut].encode("utf-8"))


def _last(patterns: Sequence[re.Pattern[str]], text: str, low: int, high: int) -> int | None:
    """Return the last safe place in [low, high], searching backwards in growing stretches."""
    reach = 256
    end = high
    while end >= low and patterns:
        begin = max(low, high - reach)
        # The expressions look two characters to each side, so match inside the whole text.
        for pattern in patterns:
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


def _next(patterns: Sequence[re.Pattern[str]], text: str, low: int, high: int) -> int | None:
    """Return the first safe place in [low, high]."""
    stop = min(len(text), high + 2)
    places = [m.start() for p in patterns if (m := p.search(text, low, stop)) is not None]
    return min((place for place in places if place <= high), default=None)
