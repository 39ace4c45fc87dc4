"""Runs that answered the same items, grouped into families by size, with a verdict for each ability."""

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
from etude.messages import command
from etude.run.published_history import PublishedHistory
from etude.run.record import RunRecord
from etude.setting_declarations import declarations
from etude.show.layout import short_number, thinned
from etude.untrusted import shown

MOST_POINTS = 200
"""Most checkpoints of a curve."""
ALONE = (
    "not recorded by Etude: its seed and the tokens that it read are not known, so it is drawn over steps, and not "
    "together with other seeds"
)
ProbeKey = tuple[str, str]
"""The name of a probe and its condition."""


class Axis(StrEnum):
    """The axis against which scores are drawn."""

    STEPS = "steps"
    TOKENS = "tokens"
    FLOPS = "flops"
    PARAMETERS = "parameters"
    LOSS = "loss"

    @property
    def words(self) -> str:
        return {"flops": "FLOPs", "loss": "validation loss (nats per token)"}.get(self.value, self.value)

    def of(self, record: ProbeRecord) -> float | None:
        """Return the value of a record on this axis; None when unknown."""
        where = record.where
        if self in (Axis.TOKENS, Axis.FLOPS) and not where.knows_tokens:
            return None
        value = {
            Axis.STEPS: where.step,
            Axis.TOKENS: where.tokens_seen,
            Axis.FLOPS: where.flops,
            Axis.PARAMETERS: where.num_parameters,
            Axis.LOSS: where.val_loss,
        }[self]
        return None if value is None else float(value)


@dataclass(frozen=True)
class ScoredRun:
    """A run with its records, or saved versions that Etude did not record (`published`).

    `family` is equal for runs that differ only in their seed.
    """

    folder: Path
    seed: int
    family: str
    records: tuple[ProbeRecord, ...]
    damaged: int
    published: bool = False

    @property
    def last(self) -> ProbeRecord:
        return self.records[-1]


@dataclass(frozen=True)
class Family:
    """Runs that differ only in their seed."""

    runs: tuple[ScoredRun, ...]
    name: str

    @property
    def num_parameters(self) -> int:
        return self.runs[0].last.where.num_parameters


@dataclass(frozen=True)
class Ability:
    """One probe in one family: `series` holds each seed's records, and `curves` their scores against steps."""

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
    def key(self) -> ProbeKey:
        return _key_of(self.last)

    @property
    def label(self) -> str:
        """The most common last label of the seeds; "beyond counting" only if the seeds together are above chance."""
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
        """Return where on `axis` each seed changed; None for one that did not, or if the place is unknown."""
        places: list[float | None] = []
        for records, finding in zip(self.series, self.verdict.seeds, strict=True):
            at = [(r.where.step, axis.of(r)) for r in records]
            known = [(step, value) for step, value in at if value is not None]
            if not finding.changed or finding.changed_at is None or len(known) < 2:
                places.append(None)
            else:
                steps, values = zip(*known, strict=True)
                places.append(float(np.interp(finding.changed_at, steps, values)))
        return places


@dataclass(frozen=True)
class Study:
    """The abilities of all families. `notes` lists what was skipped, each in a sentence."""

    families: tuple[Family, ...]
    abilities: tuple[Ability, ...]
    notes: tuple[str, ...]

    def axes(self) -> list[Axis]:
        """Return the axes on which the records can be drawn."""
        axes: list[Axis] = [axis for axis in Axis if axis is not Axis.PARAMETERS]
        if not any(r.where.val_loss is not None for r in self._records()):
            axes.remove(Axis.LOSS)
        if all(run.published for family in self.families for run in family.runs):
            axes.remove(Axis.TOKENS)
            axes.remove(Axis.FLOPS)
        if len({family.num_parameters for family in self.families}) > 1:
            axes.append(Axis.PARAMETERS)
        return axes

    def side_by_side(self) -> list[list[Ability]]:
        """Group the abilities by probe, each group in the order of the families."""
        groups: dict[ProbeKey, list[Ability]] = {}
        for ability in self.abilities:
            groups.setdefault(ability.key, []).append(ability)
        return list(groups.values())

    def _records(self) -> Iterator[ProbeRecord]:
        for ability in self.abilities:
            for records in ability.series:
                yield from records


def load_study(folders: Sequence[Path]) -> Study:
    """Read probes.jsonl of each run, or the recorded scores of a history, and judge every ability.

    Raises InputError if a folder is neither or has no records, or if two runs of one family have the same seed.
    """
    if not folders:
        raise InputError("no runs: name them, such as `etude emergence runs/seed-1 runs/seed-2 runs/seed-3`")
    runs = [_scored(folder) for folder in {_place(folder): folder for folder in folders}.values()]
    families = _families(runs)
    notes = [
        f"{shown(str(run.folder))}: {run.damaged} damaged lines of probes.jsonl were skipped"
        for run in runs
        if run.damaged
    ]
    notes += [f"{shown(str(run.folder))}: {ALONE}" for run in runs if run.published]
    items_of, differing = _same_items(runs)
    notes += differing
    abilities = []
    for probe, items in items_of.items():
        for family in families:
            series = [(run.seed, _series(run, probe, items)) for run in family.runs]
            answered = [(seed, records) for seed, records in series if records]
            if answered:
                abilities.append(_ability(family, answered))
            if 0 < len(answered) < len(series):
                notes.append(
                    f"{_title(probe)}: answered by {len(answered)} of {len(series)} seeds of {family.name}"
                )
    if not abilities:
        raise InputError(f"nothing to compare: {'; '.join(notes)}; run the same `etude eval` on all runs")
    return Study(tuple(families), tuple(abilities), tuple(notes))


def _place(folder: Path) -> Path:
    """Return the resolved path of a folder, so that it counts once however it is named."""
    try:
        return folder.resolve()
    except (OSError, RuntimeError, ValueError):  # not a possible name; opening it will raise a clear error
        return folder


def _scored(folder: Path) -> ScoredRun:
    if (history := PublishedHistory.at(folder)) is not None:
        return _scored_versions(history)
    record = RunRecord.open(folder)
    found, seed = read_records(record.run.path), record.settings.run.seed
    family = _family(record.settings)
    return ScoredRun(record.run.path.absolute(), seed, family, found.records, found.damaged)


def _scored_versions(history: PublishedHistory) -> ScoredRun:
    """Return the scores of the saved versions of a model. Each history is a family of its own."""
    from etude.evaluate.published_scores import NO_SEED, read_scores

    records = tuple(read_scores(history))
    if not records:
        evaluation = command("eval", history.path, "--steps", "all")
        raise InputError(f"{history.path} has no recorded scores: `{evaluation}` measures every version")
    path = history.path.absolute()
    return ScoredRun(path, NO_SEED, str(path.resolve()), records, 0, published=True)


def _family(settings: Settings) -> str:
    content: dict[str, Any] = settings.model_dump(mode="json")
    for key, declaration in declarations().items():
        if declaration.may_differ:
            section, name = key.split(".")
            del content[section][name]
    return repr(content)


def _families(runs: Sequence[ScoredRun]) -> list[Family]:
    """Group runs by size; name each family by its size, and also by a run when sizes are equal."""
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
            family.runs,
            family.name
            if names[family.name] == 1
            else f"{family.name} ({shown(family.runs[0].folder.name)})",
        )
        for family in families
    ]
    return sorted(named, key=lambda family: (family.num_parameters, family.name))


def _same_items(runs: Sequence[ScoredRun]) -> tuple[dict[ProbeKey, str], list[str]]:
    """Return, for each probe, the hash of the items that all its runs answered, and a note if there is none."""
    hashes: dict[ProbeKey, list[set[str]]] = {}
    sizes: dict[str, int] = {}
    for run in runs:
        own: dict[ProbeKey, set[str]] = {}
        for record in run.records:
            own.setdefault(_key_of(record), set()).add(record.items)
            sizes[record.items] = record.num_items
        for probe, items in own.items():
            hashes.setdefault(probe, []).append(items)
    items_of, notes = {}, []
    for probe, of_runs in hashes.items():
        common = set.intersection(*of_runs)
        if common:
            items_of[probe] = max(common, key=lambda items: (sizes[items], items))
        else:
            notes.append(f"{_title(probe)}: the runs answered different items, so they are not compared")
    return items_of, notes


def _key_of(record: ProbeRecord) -> ProbeKey:
    return record.probe, record.condition


def _title(probe: ProbeKey) -> str:
    return shown(", ".join(part for part in probe if part))


def _series(run: ScoredRun, probe: ProbeKey, items: str) -> tuple[ProbeRecord, ...]:
    """Return the records in the order of steps; if very many, a subset evenly spaced on a logarithmic axis."""
    records = [record for record in run.records if _key_of(record) == probe and record.items == items]
    steps = np.array([record.where.step for record in records], np.float64)
    return tuple(records[at] for at in thinned(steps, MOST_POINTS, logarithmic=True)) if records else ()


def _ability(family: Family, answered: Sequence[tuple[int, tuple[ProbeRecord, ...]]]) -> Ability:
    curves = tuple(_curve(records, seed) for seed, records in answered)
    return Ability(family, tuple(records for _, records in answered), curves, verdict(curves))


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
    """The loss law of the runs' ends, and what the smaller sizes predicted for the largest."""

    law: LossLaw
    largest: float
    predicted: Estimate | None
    measured: tuple[float, ...]
    why_not: str


def law_of(study: Study) -> LawOfStudy | str:
    """Return the law, or one sentence about why there is none."""
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
    predicted, why_not = None, ""
    try:
        smaller = fit_law([end for end in ends if end.parameters < largest])
        predicted = smaller.predict(largest, float(np.median([end.tokens for end in of_largest])))
    except InputError as error:
        why_not = str(error)
    return LawOfStudy(law, largest, predicted, tuple(end.loss for end in of_largest), why_not)


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
