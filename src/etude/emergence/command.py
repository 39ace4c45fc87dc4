"""``etude emergence``: print how each ability developed over training, seeds and sizes, and write a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from etude.emergence.report import require_folder, write_report
from etude.emergence.study import Ability, Axis, Study, law_of, load_study
from etude.emergence.words import changes_of, counted, interval_of, law_lines, score_of
from etude.errors import InputError
from etude.show.named_table import Column, NamedTable
from etude.untrusted import shown


def emergence(
    folders: Sequence[Path], against: str = Axis.STEPS.value, report: Path | None = None, *, console: Console
) -> Study:
    """Print the table, and write the report if one is requested.

    Raises:
        InputError: runs without records, an axis that they do not have, or a file in place of the report's folder.
        EtudeError: the report cannot be written.
    """
    axis = _axis(against)
    if report is not None:
        require_folder(report)
    study = load_study(folders)
    if axis not in study.axes():
        raise InputError(_missing(axis, study.axes()))
    law = law_of(study)
    console.print(_heading(study))
    console.print(_table(study, axis))
    for ability in study.abilities:
        console.print(Text(f"{_named(ability, study)}: {ability.verdict.numbers}", style="dim"))
    for line in law_lines(law):
        console.print(Text(line))
    for note in study.notes:
        console.print(Text(f"note: {note}"))
    if report is not None:
        console.print(Text(f"written: {write_report(study, law, report, axis)}"), soft_wrap=True)
    return study


def _axis(name: str) -> Axis:
    try:
        return Axis(name)
    except ValueError:
        known = ", ".join(axis.value for axis in Axis)
        raise InputError(f"--against takes one of {known}, not {shown(name)}: try --against steps") from None


def _missing(axis: Axis, axes: Sequence[Axis]) -> str:
    if axis is Axis.PARAMETERS:
        return "--against parameters needs runs of several sizes: name runs of another size too"
    what = "validation loss" if axis is Axis.LOSS else axis.words
    return f"these records hold no {what}: use --against {' or '.join(known.value for known in axes)}"


def _heading(study: Study) -> Text:
    runs = sum(len(family.runs) for family in study.families)
    sizes = ", ".join(
        f"{family.name} parameters x {counted(len(family.runs), 'seed')}" for family in study.families
    )
    return Text(f"{counted(runs, 'run')}: {sizes}", style="bold")


def _table(study: Study, axis: Axis) -> NamedTable:
    """Make a row for each ability and size; names from files are text, never markup."""
    several = len(study.families) > 1
    change_axis = Axis.STEPS if axis is Axis.PARAMETERS else axis
    columns = [
        *([Column("size")] if several else []),
        Column("score", wraps=True),
        *map(Column, ("chance", "n-gram", "random")),
        Column(f"change at ({change_axis.value})", wraps=True),
        Column("verdict", wraps=True),
    ]
    rows = []
    for ability in study.abilities:
        cells = [
            *([ability.family.name] if several else []),
            interval_of(ability.verdict.accuracy),
            f"{ability.last.chance:.3f}",
            score_of(ability.counting),
            score_of(ability.random),
            changes_of(ability, change_axis),
            ability.verdict.word.value,
        ]
        rows.append((Text(ability.title), list(map(Text, cells))))
    return NamedTable("ability", columns, rows)


def _named(ability: Ability, study: Study) -> str:
    return ability.title + (f" [{ability.family.name}]" if len(study.families) > 1 else "")
