"""Word order: a held-out sentence, against the same words shuffled or with two neighbours swapped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from etude.data.primer.rng import Rng
from etude.evaluate.items import choice
from etude.evaluate.text_probes.passages import Material, Passage
from etude.evaluate.text_probes.proposal import Draft, Proposal, ready
from etude.evaluate.text_probes.training import WINDOW, stretches

_UNIT = re.compile(r"\S[^\n]*?(?:[.!?।۔؟…]+[\"”’»)\]]*(?=\s)|(?=\n)|\Z)")  # noqa: RUF001
"""A sentence, or the part of it on one line."""

_FEWEST_WORDS, _MOST_WORDS = 6, 24

Disorder = Callable[[list[str], Rng], list[str] | None]


def word_order(material: Material) -> list[Proposal]:
    """Propose the probes. First and last word stay: a capital or full stop in the middle would give the answer away."""
    lacking = (
        f"the text has too few sentences of {_FEWEST_WORDS} words or more"
        if material.separates_words
        else "the text does not put spaces between its words"
    )
    proposals = []
    for condition, disorder in (("far", _shuffled), ("adjacent", _swapped)):
        drafts = _drafts(material, condition, disorder) if material.separates_words else []
        make, known_by = ready(drafts)
        proposals.append(
            Proposal(
                "word order",
                condition,
                "Which order of the same words is the text's?",
                "the training text contains neither the sentence nor 13 of its words in a row",
                make,
                lacking,
                known_by=known_by,
            )
        )
    return proposals


def _drafts(material: Material, condition: str, disorder: Disorder) -> list[Draft]:
    rng = material.rng(f"word order {condition}")
    units = [
        (passage, *unit) for passage in material.passages for unit in _units(passage, material.context_chars)
    ]
    drafts = []
    for passage, start, unit in rng.some(units, material.enough):
        first, *inside, last = unit.split(" ")
        other = disorder(inside, rng)
        if other is None:
            continue
        same = next(at for at, (a, b) in enumerate(zip(inside, other, strict=True)) if a != b)
        before = passage.context(start, material.context_chars - len(unit))
        given = before + " ".join([first, *inside[:same]])
        right, wrong = (" " + " ".join([*words[same:], last]) for words in (inside, other))
        drafts.append(Draft((choice(given, right, wrong, group=passage.group),), stretches(unit)))
    return drafts


def _units(passage: Passage, most: int) -> Iterator[tuple[int, str]]:
    for match in _UNIT.finditer(passage.text):
        words = match[0].split(" ")
        if _FEWEST_WORDS <= len(words) <= _MOST_WORDS and WINDOW <= len(match[0]) <= most and all(words):
            yield match.start(), match[0]


def _shuffled(words: list[str], rng: Rng) -> list[str] | None:
    """Shuffle the words so that at least half of them move; None if that fails."""
    for _ in range(8):
        shuffled = rng.some(words, len(words))
        if 2 * sum(a != b for a, b in zip(words, shuffled, strict=True)) >= len(words):
            return shuffled
    return None


def _swapped(words: list[str], rng: Rng) -> list[str] | None:
    places = [at for at in range(len(words) - 1) if words[at] != words[at + 1]]
    if not places:
        return None
    at = rng.pick(places)
    return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
