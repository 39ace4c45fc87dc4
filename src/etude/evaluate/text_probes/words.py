"""Wordness: a word that training never contained, against its own letters in another order."""

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
"""Marks after which a word continues."""


def wordness(material: Material) -> list[Proposal]:
    """Propose the probe, without names: in a script with capitals, only words in lower case are used."""
    chosen: list[tuple[str, str, list[str], str]] = []
    if material.separates_words:
        rng = material.rng("wordness")
        words = list(_words(material.passages).items())
        for word, (passage, start) in rng.some(words, _MAX_WORDS):
            scrambles = _scrambles(word, rng)
            given = passage.context(start - 1, _CONTEXT_CHARS)
            if scrambles and given:
                chosen.append((given, word, scrambles, passage.group))

    def drafts(training: Training) -> Sequence[Draft]:
        made = []
        for given, word, scrambles, group in chosen:
            new = [scramble for scramble in scrambles if not training.counts.get(scramble)]
            if new:
                item = choice(given, f" {word}", f" {new[0]}", group=group)
                made.append(Draft((item,), known=bool(training.counts.get(word))))
        return made

    return [
        Proposal(
            "wordness",
            "",
            "Which of these is a word?",
            "the training text contains neither the word nor its letters in the other order",
            drafts,
            f"the text has too few words of {_FEWEST_LETTERS} letters or more that training lacks"
            if material.separates_words
            else "the text does not put spaces between its words",
            words=frozenset(text for _, word, scrambles, _ in chosen for text in (word, *scrambles)),
            per_token=True,
        )
    ]


def _words(passages: Sequence[Passage]) -> dict[str, tuple[Passage, int]]:
    """Return each word between a space and the next word or mark, with its first occurrence."""
    first: dict[str, tuple[Passage, int]] = {}
    for passage in passages:
        for match in word_pattern().finditer(passage.text):
            word, start = match[0], match.start()
            follows = passage.text[match.end() : match.end() + 1]
            if (
                word not in first
                and start > 1
                and passage.text[start - 1] == " "
                and follows not in _WITHIN
                and word.casefold() == word
                and all(letter[0].isalpha() for letter in letters_of(word))
            ):
                first[word] = (passage, start)
    return first


def _scrambles(word: str, rng: Rng) -> list[str]:
    letters = letters_of(word)
    if len(letters) < _FEWEST_LETTERS:
        return []
    made = ("".join(rng.some(letters, len(letters))) for _ in range(_SCRAMBLES))
    return [scramble for scramble in dict.fromkeys(made) if scramble != word]
