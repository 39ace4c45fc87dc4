"""A probe from outside Etude: after a full stop a capital, within a sentence a small letter.

Every item has a mirror: the start of one sentence is asked with a word from within another, and each is right where the
other is wrong. So a preference for capitals, or for small letters, is at chance exactly.

ETUDE_PLUGINS=sentence_starts.py etude eval runs/notes
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from etude.evaluate.items import Item, choice
from etude.evaluate.text_probes.passages import Material, Passage
from etude.evaluate.text_probes.proposal import Draft, Proposal, ready
from etude.evaluate.text_probes.training import WINDOW, stretches
from etude.registry import TEXT_PROBES

_START = re.compile(r"(?<=[a-z][.!?]) [A-Z][a-z]+(?= )")
_WITHIN = re.compile(r"(?<=[a-z]) [a-z]+(?= )")


def sentence_starts(material: Material) -> list[Proposal]:
    """Return one proposal: which of two spellings of a word continues the text?"""
    rng = material.rng("sentence starts")
    starts, within = (
        rng.some(
            [
                place
                for passage in material.passages
                for place in _places(passage, pattern, material.context_chars)
            ],
            material.enough,
        )
        for pattern in (_START, _WITHIN)
    )
    pairs = zip(starts, within, strict=False)
    make, known_by = ready([_draft(*start, *inside) for start, inside in pairs])
    return [
        Proposal(
            "sentence starts",
            "",
            "A capital or a small letter: which of these continues the text?",
            "the training text nowhere has the text before the word: not 13 words of it in a row, and not all of it",
            make,
            "the text has too few sentences that begin with a capital",
            known_by=known_by,
        )
    ]


def _places(passage: Passage, pattern: re.Pattern[str], most: int) -> Iterator[tuple[str, str, str]]:
    """Yield (text before a word, the word with its space, the group of the passage)."""
    for match in pattern.finditer(passage.text):
        given = passage.context(match.start(), most - len(match[0]))
        if len(given) >= WINDOW:
            yield given, match[0], passage.group


def _draft(given: str, word: str, group: str, given_2: str, word_2: str, group_2: str) -> Draft:
    items: tuple[Item, ...] = (
        choice(given, word, word.lower(), group=group),
        choice(given_2, word_2, word_2.title(), group=group_2),
    )
    return Draft(items, (*stretches(given), *stretches(given_2)))


TEXT_PROBES.register("sentence-starts", sentence_starts)
