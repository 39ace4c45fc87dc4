"""The recorded scores of probes for the page: one curve per ability."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from etude.evaluate.published_scores import read_scores
from etude.evaluate.records import FILE, ProbeRecord, read_records
from etude.evaluate.results import Measured
from etude.run.published_history import PublishedHistory
from etude.serve.run_types import Ability


def abilities_of(run: Path) -> list[Ability]:
    """Return each probe with its scores by step, in the order of their first records; empty without a file.

    If the items of a probe changed, only scores on the newest items are returned: others are not comparable.

    Raises:
        InputError: the file is damaged, or has a newer version.
    """
    if not (run / FILE).is_file():
        return []
    return _abilities(read_records(run).records)


def abilities_of_published(history: PublishedHistory) -> list[Ability]:
    """Return each probe with its scores at the versions of a model, as ``etude eval --steps all`` recorded them.

    Raises:
        InputError: the weights of a version are damaged, or the records have a newer version.
    """
    return _abilities(read_scores(history))


def _abilities(records: Iterable[ProbeRecord]) -> list[Ability]:
    series: dict[tuple[str, str], list[ProbeRecord]] = {}
    for record in records:
        series.setdefault((record.probe, record.condition), []).append(record)
    return [
        _ability([record for record in same if record.items == same[-1].items]) for same in series.values()
    ]


def _ability(records: list[ProbeRecord]) -> Ability:
    last = records[-1]
    return {
        "title": last.title,
        "asks": last.asks,
        "held_out": last.held_out,
        "chance": last.chance,
        "num_items": last.num_items,
        "label": last.label,
        "num_parameters": last.where.num_parameters,
        "counting": None if last.counting is None else last.counting.accuracy.value,
        "random": None if last.random is None else last.random.accuracy.value,
        "steps": [record.where.step for record in records],
        "right": [record.model.accuracy.value for record in records],
        "low": [record.model.accuracy.interval.low for record in records],
        "high": [record.model.accuracy.interval.high for record in records],
        "probability": [_probability(record.model, record.chance) for record in records],
        "exact": [
            None if record.model.exact is None else record.model.exact.exact.value for record in records
        ],
        "independent": [
            None if record.model.exact is None else record.model.exact.independence for record in records
        ],
    }


def _probability(measured: Measured, chance: float) -> float:
    """Return the geometric mean of the correct candidate's share of the probability: `chance` if the margin is 0."""
    return chance * math.exp(min(measured.margin.value, -math.log(chance)))
