"""Runs that were asked the same items, sorted into families of seeds and sizes, with the verdict of each ability."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from etude.config import Settings
from etude.emergence.curves import Curve
from etude.emergence.law import EndOfRun, LossLaw, fit_law
from etude.emergence.verdict import Verdict, verdict
from etude.errors import InputError
from etude.evaluate.records import ProbeRecord, read_records
from etude.evaluate.results import Measured
from etude.evaluate.statistics import Estimate
from etude.run.record import RunRecord
from etude.setting_declarations import declarations
from etude.show.layout import short_number, thinned
from etude.untrusted import shown

MOST_POINTS = 200
"""Checkpoints of a curve."""
Asked = tuple[str, str]
"""The name of a probe and its condition."""


class Axis(StrEnum):
    """What the scores are drawn against."""

    STEPS = "steps"
    TOKENS = "tokens"
    FLOPS = "flops"
    PARAMETERS = "parameters"
    LOSS = "loss"

    @property
    def words(self) -> str:
        return {"flops": "FLOPs", "loss": "validation loss (nats a token)"}.get(self.value, self.value)

    def of(self, record: ProbeRecord) -> float | None:
        """Where a record stands on it; None where that is not known."""
        where = record.where
        found = {
            Axis.STEPS: where.step,
            Axis.TOKENS: where.tokens_seen,
            Axis.FLOPS: where.flops,
            Axis.PARAMETERS: where.num_parameters,
            Axis.LOSS: where.val_loss,
        }[self]
        return None if found is None else float(found)


@dataclass(frozen=True)
class ScoredRun:
    """A run with its records; `family` is equal for runs that differ in their seed only."""

    folder: Path
    seed: int
    family: str
    records: tuple[ProbeRecord, ...]
    damaged: int

    @property
    def last(self) -> ProbeRecord:
        return self.records[-1]


@dataclass(frozen=True)
class Family:
    """Runs that differ in their seed only."""

    runs: tuple[ScoredRun, ...]
    name: str

    @property
    def num_parameters(self) -> int:
        return self.runs[0].last.where.num_parameters


@dataclass(frozen=True)
class Ability:
    """One probe in one family: `series` holds the records of each seed, and `curves` their scores against steps."""

    family: Family
    series: tuple[tuple[ProbeRecord, ...], ...]
    curves: tuple[Curve, ...]
    verdict: Verdict

    @property
    def last(self) -> ProbeRecord:
        return self.series[0][-1]

    @property
    def title(self) -> str:
        return shown(self.last.title)

    @property
    def asked(self) -> Asked:
        return _asked(self.last)

    @property
    def label(self) -> str:
        """What most seeds are labelled at their last checkpoint; beyond counting only where all together are."""
        label = Counter(records[-1].label for records in self.series).most_common(1)[0][0]
        together = self.verdict.accuracy.interval.low > self.last.chance
        return "at chance" if label == "beyond counting" and not together else label

    @property
    def counting(self) -> Measured | None:
        return next((s[-1].counting for s in self.series if s[-1].counting is not None), None)

    @property
    def random(self) -> Measured | None:
        return next((s[-1].random for s in self.series if s[-1].random is not None), None)

    def changes(self, axis: Axis) -> list[float | None]:
        """Where on `axis` each seed changed; None for one that did not, or where that is not known."""
        places: list[float | None] = []
        for records, found in zip(self.series, self.verdict.seeds, strict=True):
            at = [(r.where.step, axis.of(r)) for r in records]
            known = [(step, value) for step, value in at if value is not None]
            if not found.changed or found.changed_at is None or not known:
                places.append(None)
            else:
                steps, values = zip(*known, strict=True)
                places.append(float(np.interp(found.changed_at, steps, values)))
        return places


@dataclass(frozen=True)
class Study:
    """All that the runs say. `notes` are things left out, each in a sentence."""

    families: tuple[Family, ...]
    abilities: tuple[Ability, ...]
    notes: tuple[str, ...]

    def axes(self) -> list[Axis]:
        """Those on which the records can be drawn."""
        axes: list[Axis] = [axis for axis in Axis if axis is not Axis.PARAMETERS]
        if not any(r.where.val_loss is not None for r in self._records()):
            axes.remove(Axis.LOSS)
        if len({family.num_parameters for family in self.families}) > 1:
            axes.append(Axis.PARAMETERS)
        return axes

    def side_by_side(self) -> list[list[Ability]]:
        """The abilities, each in all families that were asked."""
        found: dict[Asked, list[Ability]] = {}
        for ability in self.abilities:
            found.setdefault(ability.asked, []).append(ability)
        return list(found.values())

    def _records(self) -> Iterator[ProbeRecord]:
        for ability in self.abilities:
            for records in ability.series:
                yield from records


def load_study(folders: Sequence[Path]) -> Study:
    """Read probes.jsonl of each run and judge.

    Raises InputError where a folder is no run, has no records, or two runs of one family have the same seed.
    """
    if not folders:
        raise InputError("no runs: name some, such as `etude emergence runs/seed-1 runs/seed-2 runs/seed-3`")
    runs = [_scored(folder) for folder in {_place(folder): folder for folder in folders}.values()]
    families = _families(runs)
    notes = [
        f"{shown(str(run.folder))}: {run.damaged} damaged lines of probes.jsonl were left out"
        for run in runs
        if run.damaged
    ]
    asked, differing = _same_items(runs)
    notes += differing
    abilities = []
    for what, items in asked.items():
        for family in families:
            series = [(run.seed, _series(run, what, items)) for run in family.runs]
            told = [(seed, records) for seed, records in series if records]
            if told:
                abilities.append(_ability(family, told))
            if 0 < len(told) < len(series):
                notes.append(f"{_title(what)}: asked of {len(told)} of {len(series)} seeds of {family.name}")
    if not abilities:
        raise InputError(f"nothing to compare: {'; '.join(notes)}; ask all runs with the same `etude eval`")
    return Study(tuple(families), tuple(abilities), tuple(notes))


def _place(folder: Path) -> Path:
    """Where a folder really is, so that it counts once however it is named."""
    try:
        return folder.resolve()
    except (OSError, RuntimeError, ValueError):  # a name that no folder can have; who opens it says so
        return folder


def _scored(folder: Path) -> ScoredRun:
    record = RunRecord.open(folder)
    found, seed = read_records(record.run.path), record.settings.run.seed
    family = _family(record.settings)
    return ScoredRun(record.run.path.absolute(), seed, family, found.records, found.damaged)


def _family(settings: Settings) -> str:
    content: dict[str, Any] = settings.model_dump(mode="json")
    for key, declaration in declarations().items():
        if declaration.may_differ:
            section, name = key.split(".")
            del content[section][name]
    return repr(content)


def _families(runs: Sequence[ScoredRun]) -> list[Family]:
    """By size; named by their size, and by a run where sizes are equal."""
    groups: dict[str, list[ScoredRun]] = {}
    for run in runs:
        groups.setdefault(run.family, []).append(run)
    families = []
    for members in groups.values():
        members.sort(key=lambda run: run.seed)
        seeds = Counter(run.seed for run in members)
        for seed, many in seeds.items():
            if many > 1:
                same = ", ".join(shown(run.folder.name) for run in members if run.seed == seed)
                raise InputError(
                    f"{same} are the same run with the same seed {seed}: name one of them, or train with "
                    f"another `--set run.seed`"
                )
        families.append(Family(tuple(members), f"{short_number(members[0].last.where.num_parameters)}"))
    names = Counter(family.name for family in families)
    named = [
        Family(
            one.runs, one.name if names[one.name] == 1 else f"{one.name} ({shown(one.runs[0].folder.name)})"
        )
        for one in families
    ]
    return sorted(named, key=lambda family: (family.num_parameters, family.name))


def _same_items(runs: Sequence[ScoredRun]) -> tuple[dict[Asked, str], list[str]]:
    """For each ability the hash of the items that all runs asked were asked, and a note where there is none."""
    hashes: dict[Asked, list[set[str]]] = {}
    sizes: dict[str, int] = {}
    for run in runs:
        own: dict[Asked, set[str]] = {}
        for record in run.records:
            own.setdefault(_asked(record), set()).add(record.items)
            sizes[record.items] = record.num_items
        for what, items in own.items():
            hashes.setdefault(what, []).append(items)
    asked, notes = {}, []
    for what, of_runs in hashes.items():
        common = set.intersection(*of_runs)
        if common:
            asked[what] = max(common, key=lambda items: (sizes[items], items))
        else:
            notes.append(f"{_title(what)}: the runs were asked different items, so they are not compared")
    return asked, notes


def _asked(record: ProbeRecord) -> Asked:
    return record.probe, record.condition


def _title(what: Asked) -> str:
    return shown(", ".join(part for part in what if part))


def _series(run: ScoredRun, what: Asked, items: str) -> tuple[ProbeRecord, ...]:
    """In the order of steps; of very many, some that are evenly spread over a logarithmic axis."""
    found = [record for record in run.records if _asked(record) == what and record.items == items]
    steps = np.array([record.where.step for record in found], np.float64)
    return tuple(found[at] for at in thinned(steps, MOST_POINTS, logarithmic=True)) if found else ()


def _ability(family: Family, told: Sequence[tuple[int, tuple[ProbeRecord, ...]]]) -> Ability:
    curves = tuple(_curve(records, seed) for seed, records in told)
    return Ability(family, tuple(records for _, records in told), curves, verdict(curves))


def _curve(records: Sequence[ProbeRecord], seed: int) -> Curve:
    exacts = [record.model.exact for record in records]
    known = [exact for exact in exacts if exact is not None]
    open_answer = len(known) == len(records)
    return Curve(
        seed,
        tuple(float(record.where.step) for record in records),
        tuple(record.model.margin for record in records),
        tuple(record.model.accuracy for record in records),
        records[-1].chance,
        tuple(exact.exact for exact in known) if open_answer else None,
        tuple(exact.independence for exact in known) if open_answer else None,
    )


@dataclass(frozen=True)
class LawOfStudy:
    """The loss law of the runs' ends, and what the smaller sizes foretold of the largest."""

    law: LossLaw
    largest: float
    foretold: Estimate | None
    measured: tuple[float, ...]
    why_not: str


def law_of(study: Study) -> LawOfStudy | str:
    """The law, or why there is none in a sentence."""
    ends = []
    for family in study.families:
        for run in family.runs:
            where = run.last.where
            if (
                where.val_loss is not None
                and where.val_loss > 0
                and where.num_parameters
                and where.tokens_seen
            ):
                ends.append(EndOfRun(where.num_parameters, where.tokens_seen, where.val_loss))
    try:
        law = fit_law(ends)
    except InputError as error:
        return str(error)
    largest = max(end.parameters for end in ends)
    of_largest = [end for end in ends if end.parameters == largest]
    foretold, why_not = None, ""
    try:
        smaller = fit_law([end for end in ends if end.parameters < largest])
        foretold = smaller.predict(largest, float(np.median([end.tokens for end in of_largest])))
    except InputError as error:
        why_not = str(error)
    return LawOfStudy(law, largest, foretold, tuple(end.loss for end in of_largest), why_not)


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
