"""End a stream of text before a stop string, without ever emitting a part of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer

from etude.errors import InputError
from etude.generate.text import TokenStreamDecoder
from etude.untrusted import shown


def stop_strings(stop: Any) -> tuple[str, ...]:
    """Return one stop string or several as a tuple. Raises InputError for a value that is not text, and for ""."""
    texts = (stop,) if isinstance(stop, str) else () if stop is None else stop
    if not isinstance(texts, Iterable):
        raise InputError(f"stop must be a text or several, not {shown(stop)}")
    texts = tuple(texts)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"a stop string must be text, not {shown(text)}")
        if not text:
            raise InputError("a stop string must have a character: an empty one would end every text at once")
    return texts


class StopStrings:
    """Feed text in pieces; each call returns the text that is certain to precede any stop string.

    The text ends before the stop string that is complete first (if two end together, the longer one). The result does
    not depend on how the text is divided into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stopped = False
        self._stops = stops
        self._held = ""

    def feed(self, piece: str) -> str:
        """Add a piece; return the text that is certain now, "" after a stop string."""
        if self.stopped:
            return ""
        text = self._held + piece
        places = [(text.find(stop), len(stop)) for stop in self._stops]
        ends = [(begin + length, begin) for begin, length in places if begin >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        certain = len(text) - self._beginning_of_a_stop(text)
        self._held = text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """Return the text that was held back, at the end of the stream."""
        held, self._held = self._held, ""
        return held

    def _beginning_of_a_stop(self, text: str) -> int:
        """Return how many characters at the end of `text` may be the beginning of a stop string."""
        longest = min(len(text), max(map(len, self._stops), default=0) - 1)
        for count in range(longest, 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stops):
                return count
        return 0


class GeneratedText:
    """The text of a stream of new tokens, up to a stop string, without `given`, which the prompt already has."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], given: str = "") -> None:
        self._decoder = TokenStreamDecoder(tokenizer)
        self._stops = StopStrings(stops)
        self._given = given

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete."""
        return self._stops.stopped

    def feed(self, token_id: int) -> str:
        """Add a token; return the text that is certain now."""
        return self._stops.feed(self._without_given(self._decoder.feed(token_id)))

    def finish(self) -> str:
        """Return the text that was held back, at the end of the stream."""
        return self._stops.feed(self._without_given(self._decoder.finish())) + self._stops.finish()

    def _without_given(self, piece: str) -> str:
        if piece and self._given:
            piece, self._given = piece.removeprefix(self._given), ""
        return piece
