"""Probes on what the task mixture (``builtin:tasks``) never shows: by length, depth, pairs, hops, shots."""

from __future__ import annotations

from etude.evaluate.items import Probe
from etude.evaluate.task_probes.facts import fact_probes
from etude.evaluate.task_probes.lookups import lookup_probes
from etude.evaluate.task_probes.strings import string_probes


def task_probes(seed: int = 0, max_items: int = 256) -> list[Probe]:
    """Make every probe of the mixture, of at most `max_items` items each; the same for the same seed on any machine.

    The items of a block share their answers: each is right once, and the last seven bytes before the answer are the
    same in all. So a model that looks at no more than those, or prefers some answer, is exactly at chance.
    """
    return [
        *string_probes(seed, max_items),
        *lookup_probes(seed, max_items),
        *fact_probes(seed, max_items),
    ]
