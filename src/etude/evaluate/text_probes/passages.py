"""Split held-out documents into passages, which can be cut at the seams between words or clauses."""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from etude.data.primer.rng import Rng

PASSAGE_CHARS = 1024
"""Documents of more than twice this length are split into passages of about this length."""

MAX_PASSAGES = 4096
"""Most passages that are used, evenly chosen if there are more, so that memory and time are bounded."""

SHARED_CHARS = 16
"""Characters before an answer that all candidates share. Counting reads 6 bytes, so it finds the candidates equal."""

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese letters."""


@dataclass(frozen=True)
class Passage:
    """A text with the name of its group: items of one passage are not independent."""

    text: str
    group: str

    @cached_property
    def seams(self) -> list[int]:
        """Places where a word or clause ends and the text continues with a space or a mark.

        In tokenizers that split at words, both parts have the same tokens as in the whole.
        """
        return [match.start() for match in seam_pattern().finditer(self.text)]

    def seam_before(self, place: int) -> int | None:
        """Return the last seam at or before `place`."""
        at = bisect.bisect_right(self.seams, place)
        return self.seams[at - 1] if at else None

    def seam_after(self, place: int) -> int | None:
        """Return the first seam at or after `place`."""
        at = bisect.bisect_left(self.seams, place)
        return self.seams[at] if at < len(self.seams) else None

    def context(self, end: int, most: int) -> str:
        """Return at most `most` characters before `end`, from the start of the passage or from a seam."""
        if end <= most:
            return self.text[:end]
        start = self.seam_after(end - most)
        return self.text[start:end] if start is not None and start < end else ""


@dataclass(frozen=True)
class Material:
    """The source of all probes. `context_chars`: most characters of an item, given and said together."""

    passages: Sequence[Passage]
    seed: int
    max_items: int
    context_chars: int

    def rng(self, name: str) -> Rng:
        """Return the probe's own random generator, so that adding a probe changes no other probe's items."""
        return Rng(f"text probes {self.seed} {name}")

    @property
    def enough(self) -> int:
        """Number of items worth drafting, as some will be dropped."""
        return 3 * self.max_items

    @cached_property
    def separates_words(self) -> bool:
        return separates_words("".join(passage.text for passage in self.passages[:256]))


def passages(held_out: Sequence[str], rng: Rng) -> list[Passage]:
    """Return passages in random order, at most `MAX_PASSAGES`."""
    cut = []
    for number, document in enumerate(held_out):
        parts = _parts(document)
        cut += [
            (f"{number}" if len(parts) == 1 else f"{number}.{at}", start, end, number)
            for at, (start, end) in enumerate(parts)
        ]
    chosen = rng.some(cut, MAX_PASSAGES)
    return [Passage(held_out[number][start:end], group) for group, start, end, number in chosen]


def _parts(document: str) -> list[tuple[int, int]]:
    """Split a document at the end of a line if one ends in the second half, else anywhere."""
    parts, start = [], 0
    while len(document) - start > 2 * PASSAGE_CHARS:
        line = document.rfind("\n", start + PASSAGE_CHARS // 2, start + PASSAGE_CHARS)
        end = start + PASSAGE_CHARS if line < 0 else line + 1
        parts.append((start, end))
        start = end
    return [*parts, (start, len(document))]


def separates_words(text: str) -> bool:
    """Return whether the text puts spaces between words, judging by its letters and the number of spaces."""
    letters = sum(map(str.isalpha, text))
    spaces = sum(map(str.isspace, text))
    return len(_UNSPACED.findall(text)) * 2 < letters and spaces * 16 >= len(text)


def letters_of(word: str) -> list[str]:
    """Split a word into letters, each with its marks (such as a Hindi vowel sign or a combining accent)."""
    letters: list[str] = []
    for char in word:
        if letters and unicodedata.category(char).startswith("M"):
            letters[-1] += char
        else:
            letters.append(char)
    return letters


@cache
def word_pattern() -> re.Pattern[str]:
    r"""Match a run of letters, digits and the marks that belong to them (which `\w` omits)."""
    return re.compile(rf"[\w{_marks()}]+")


@cache
def seam_pattern() -> re.Pattern[str]:
    return re.compile(rf"(?<=\S)(?=[ \n])|(?<=[^\W_])(?=[^\w\s{_marks()}'’\-])")  # noqa: RUF001


@cache
def _marks() -> str:
    """Return all combining marks of the two planes used by living scripts, as the inside of a character class."""
    ranges: list[list[int]] = []
    for code in range(0x300, 0x20000):
        if unicodedata.category(chr(code)).startswith("M"):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges)
