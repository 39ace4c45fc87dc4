"""Wordness: a word that training never had, against its own letters in disorder."""

from __future__ import annotations

from collections.abc import Sequence

from etude.data.primer.rng import Rng
from etude.evaluate.items import choice
from etude.evaluate.text_probes.passages import Material, Passage, letters_of, word_pattern
from etude.evaluate.text_probes.proposal import Draft, Proposal
from etude.evaluate.text_probes.training import Training

_FEWEST_LETTERS = 5
_MAX_WORDS = 8192
_SCRAMBLES = 4
_CONTEXT_CHARS = 32
_WITHIN = {"'", "’", "-"}  # noqa: RUF001
"""Marks that a word goes on behind."""


def wordness(material: Material) -> list[Proposal]:
    """Names are left out: a word in a script with capitals begins with a small letter."""
    asked: list[tuple[str, str, list[str], str]] = []
    if material.separates_words:
        rng = material.rng("wordness")
        words = list(_words(material.passages).items())
        for word, (passage, start) in rng.some(words, _MAX_WORDS):
            scrambles = _scrambles(word, rng)
            given = passage.context(start - 1, _CONTEXT_CHARS)
            if scrambles and given:
                asked.append((given, word, scrambles, passage.group))

    def drafts(training: Training) -> Sequence[Draft]:
        found = []
        for given, word, scrambles, group in asked:
            new = [one for one in scrambles if not training.counts.get(one)]
            if new:
                item = choice(given, f" {word}", f" {new[0]}", group=group)
                found.append(Draft((item,), known=bool(training.counts.get(word))))
        return found

    return [
        Proposal(
            "wordness",
            "",
            "Which of these is a word?",
            "neither the word nor its letters in disorder stands in the training text",
            drafts,
            f"the text has too few words of {_FEWEST_LETTERS} letters or more that training lacks"
            if material.separates_words
            else "the text does not put spaces between its words",
            words=frozenset(one for _, word, scrambles, _ in asked for one in (word, *scrambles)),
            per_token=True,
        )
    ]


def _words(passages: Sequence[Passage]) -> dict[str, tuple[Passage, int]]:
    """Each word that stands between a space and the next word or mark, with where it first does."""
    found: dict[str, tuple[Passage, int]] = {}
    for passage in passages:
        for match in word_pattern().finditer(passage.text):
            word, start = match[0], match.start()
            follows = passage.text[match.end() : match.end() + 1]
            if (
                word not in found
                and start > 1
                and passage.text[start - 1] == " "
                and follows not in _WITHIN
                and word.casefold() == word
                and all(one[0].isalpha() for one in letters_of(word))
            ):
                found[word] = (passage, start)
    return found


def _scrambles(word: str, rng: Rng) -> list[str]:
    letters = letters_of(word)
    if len(letters) < _FEWEST_LETTERS:
        return []
    made = ("".join(rng.some(letters, len(letters))) for _ in range(_SCRAMBLES))
    return [one for one in dict.fromkeys(made) if one != word]
