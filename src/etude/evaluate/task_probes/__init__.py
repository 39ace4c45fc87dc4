"""Probes on what the task mixture (``builtin:tasks``) never shows: by length, depth, pairs, hops, shots."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from etude.evaluate.items import Probe
from etude.registry import TASK_PROBES

TaskProbe = Callable[[int, int], list[Probe]]
"""From a seed, and the most items of a probe, to probes: the same for the same numbers on any machine."""


def task_probes(seed: int = 0, max_items: int = 256) -> list[Probe]:
    """Return every probe of :data:`etude.registry.TASK_PROBES`, of at most ``max_items`` items each.

    The items of a block share their answers: each is right once, and the last seven bytes before the answer are the
    same in all. So a model that looks at no more than those, or prefers some answer, is exactly at chance.
    """
    makers: list[TaskProbe] = [TASK_PROBES.get(name) for name in TASK_PROBES.names()]
    return list(chain.from_iterable(make(seed, max_items) for make in makers))
