"""``etude emergence``: how each ability came over the training, over seeds and sizes, as a table and as a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from etude.errors import InputError
from etude.untrusted import shown
from etude.workflow.emergence_report import write_report
from etude.workflow.emergence_study import Ability, Axis, Study, law_of, load_study
from etude.workflow.emergence_words import changes_of, interval_of, law_lines, score_of


def emergence(
    folders: Sequence[Path], against: str = Axis.STEPS.value, report: Path | None = None, *, console: Console
) -> Study:
    """Print the table, and write the report where one is wanted.

    Raises:
        InputError: runs without records, or an axis that they do not have.
        EtudeError: the report cannot be written.
    """
    axis = _axis(against)
    study = load_study(folders)
    if axis not in study.axes():
        raise InputError(_missing(axis))
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


def _missing(axis: Axis) -> str:
    if axis is Axis.PARAMETERS:
        return "--against parameters needs runs of several sizes: name runs of another size too"
    return "no validation loss stands in these records: use --against steps"


def _heading(study: Study) -> Text:
    runs = sum(len(family.runs) for family in study.families)
    sizes = ", ".join(f"{family.name} parameters x {len(family.runs)} seeds" for family in study.families)
    return Text(f"{runs} runs: {sizes}", style="bold")


def _table(study: Study, axis: Axis) -> Table:
    """A row an ability and size; what is from a file is text, never markup."""
    several = len(study.families) > 1
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("ability", *(("size",) if several else ()), "score", "chance", "n-gram", "random"):
        table.add_column(heading, no_wrap=heading in ("chance", "n-gram", "random"))
    table.add_column(f"change at ({axis.value})" if axis is not Axis.PARAMETERS else "change at (steps)")
    table.add_column("verdict")
    for ability in study.abilities:
        cells = [ability.title]
        if several:
            cells.append(ability.family.name)
        cells += [
            interval_of(ability.verdict.accuracy),
            f"{ability.last.chance:.3f}",
            score_of(ability.counting),
            score_of(ability.random),
            changes_of(ability, Axis.STEPS if axis is Axis.PARAMETERS else axis),
            ability.verdict.word.value,
        ]
        table.add_row(*map(Text, cells))
    return table


def _named(ability: Ability, study: Study) -> str:
    return ability.title + (f" [{ability.family.name}]" if len(study.families) > 1 else "")
