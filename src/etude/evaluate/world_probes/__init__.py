"""Probes in the vocabulary of the built-in stories (``builtin:primer``), on combinations that no story contains."""

from __future__ import annotations

from etude.evaluate.items import Probe
from etude.evaluate.world_probes.belongings import who_has
from etude.evaluate.world_probes.people import who_told, who_where
from etude.evaluate.world_probes.quantities import arithmetic, word_problems
from etude.evaluate.world_probes.sentences import agreement, pronouns, tenses


def world_probes(seed: int = 0, max_items: int = 256) -> list[Probe]:
    """Make every probe of the stories' world, of at most `max_items` items each; the same for the same seed.

    The items of a block share their answers: each is right once, and the last six bytes before the answer, all that a
    7-gram sees, are the same in all. So a model that looks at no more than those, or prefers some name, is exactly at
    chance. Digits of sums are the exception: counting sees the second number.
    """
    return [
        *who_has(seed, max_items),
        *who_where(seed, max_items),
        *who_told(seed, max_items),
        *agreement(seed, max_items),
        *pronouns(seed, max_items),
        *arithmetic(seed, max_items),
        *word_problems(seed, max_items),
        *tenses(seed, max_items),
    ]
