"""The emergence report: one self-contained page, with its tables as CSV and JSON beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import etude
from etude.emergence.page import AXIS_RULES, STYLE
from etude.emergence.panels import law_panel, panel_of
from etude.emergence.picture import COLOURS
from etude.emergence.study import Ability, Axis, LawOfStudy, Study
from etude.emergence.tables import as_csv, as_json
from etude.emergence.verdict import RULES, SeedFinding
from etude.emergence.words import counted, interval_of, law_lines, score_of
from etude.errors import InputError
from etude.evaluate.records import ProbeRecord
from etude.files import write_atomic, write_failure, write_json
from etude.show.lines import printable


def write_report(study: Study, law: LawOfStudy | str, folder: Path, axis: Axis) -> Path:
    """Write index.html, scores.csv and verdicts.json; return the page.

    Raises:
        InputError: `folder` is a file.
        EtudeError: the files cannot be written.
    """
    require_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(folder, error) from error
    write_atomic(folder / "scores.csv", as_csv(study))
    write_json(folder / "verdicts.json", as_json(study, law))
    page = folder / "index.html"
    write_atomic(page, "\n".join(_page(study, law, axis)) + "\n")
    return page


def require_folder(folder: Path) -> None:
    """Raise InputError if the report's folder is an existing file."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the report, such as --report report/")


def _page(study: Study, law: LawOfStudy | str, axis: Axis) -> Iterator[str]:
    runs = sum(len(family.runs) for family in study.families)
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8"><title>How abilities emerged</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield (
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    )
    axes = study.axes()
    rules = "\n".join(AXIS_RULES.format(axis=axis.value) for axis in axes)
    yield f"<style>{STYLE}\n{rules}</style></head><body>"
    yield f"<header><h1>How abilities emerged</h1><p>{counted(runs, 'run')}: "
    sizes = (f"{f.name} parameters, {counted(len(f.runs), 'seed')}" for f in study.families)
    yield escape("; ".join(sizes)) + ".</p>"
    yield "</header>"
    yield from _axis_switch(axes, axis)
    yield "<main>"
    yield from _summary(study)
    for number, abilities in enumerate(study.side_by_side()):
        yield from _ability(number, abilities, axes)
    yield from _law(law)
    yield '<section><h2>The rules</h2><ul class="rules">'
    yield from (f"<li>{escape(rule)}</li>" for rule in RULES)
    yield "<li>The verdict uses steps; the axis above changes only the figures, not the verdict.</li></ul>"
    if study.notes:
        yield "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in study.notes) + "</ul>"
    yield '<p>All scores: <a href="scores.csv">scores.csv</a>; all verdicts with their numbers: '
    yield f'<a href="verdicts.json">verdicts.json</a>. Written by etude {escape(etude.__version__)}.</p>'
    yield "</section></main></body></html>"


def _axis_switch(axes: Sequence[Axis], chosen: Axis) -> Iterator[str]:
    """Yield radio buttons that switch the figures by style alone: the page needs no script."""
    yield '<p class="against">Drawn against</p>'
    for axis in axes:
        checked = " checked" if axis is chosen else ""
        yield f'<input type="radio" name="against" id="by-{axis.value}"{checked}>'
        yield f'<label for="by-{axis.value}">{escape(axis.words.split(" (")[0])}</label>'


def _summary(study: Study) -> Iterator[str]:
    several = len(study.families) > 1
    yield '<section><h2>Verdicts</h2><div class="wide"><table class="verdicts"><thead><tr><th>ability</th>'
    heads = (*(("size",) if several else ()), "verdict", "last score", "chance", "n-gram", "random", "label")
    yield "".join(f"<th>{head}</th>" for head in heads) + "</tr></thead><tbody>"
    for number, abilities in enumerate(study.side_by_side()):
        for ability in abilities:
            cells = [f'<a href="#ability-{number}">{escape(ability.title)}</a>']
            if several:
                cells.append(escape(ability.family.name))
            cells.append(f"<strong>{escape(ability.verdict.word.value)}</strong>")
            cells += map(
                _plain,
                (
                    interval_of(ability.verdict.accuracy),
                    f"{ability.last.chance:.3f}",
                    score_of(ability.counting),
                    score_of(ability.random),
                    ability.label,
                ),
            )
            yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table></div></section>"


def _ability(number: int, abilities: Sequence[Ability], axes: Sequence[Axis]) -> Iterator[str]:
    last = abilities[0].last
    yield f'<section id="ability-{number}"><h2>{escape(abilities[0].title)}</h2><p>{_plain(last.asks)}'
    if last.held_out:
        yield f" <em>Held out:</em> {_plain(last.held_out)}"
    yield f' <span class="faint">{last.num_items} items, hash {_plain(last.items)}.</span></p>'
    for ability in abilities:
        size = f"{escape(ability.family.name)} parameters: " if len(abilities) > 1 else ""
        yield f'<p class="verdict"><strong>{size}{escape(ability.verdict.word.value)}</strong><br>'
        yield f'<span class="faint">{escape(ability.verdict.numbers)}</span></p>'
    for axis in axes:
        yield f'<div class="figures on-{axis.value}">'
        yield from _legend(abilities, axis)
        for thresholded in (False, True):
            panel = panel_of(abilities, axis, thresholded)
            yield f"<figure><figcaption>{escape(panel.title)}</figcaption>{panel.svg()}</figure>"
        yield "</div>"
    yield from _raw(abilities)
    yield "</section>"


def _legend(abilities: Sequence[Ability], axis: Axis) -> Iterator[str]:
    """Yield the legend: colours are seeds, or sizes when several sizes are drawn over training."""
    yield '<ul class="legend">'
    seeds = dict.fromkeys(curve.seed for ability in abilities for curve in ability.curves)
    names = [f"seed {seed}" for seed in seeds]
    if len(abilities) > 1 and axis is not Axis.PARAMETERS:
        names = [f"{ability.family.name} ({counted(len(ability.series), 'seed')})" for ability in abilities]
    for place, name in enumerate(names):
        yield f'<li><i class="seed{place % COLOURS}"></i>{escape(name)}</li>'
    if axis is Axis.PARAMETERS:
        yield "</ul>"
        return
    if any(finding.changed for ability in abilities for finding in ability.verdict.seeds):
        yield "<li><b>▼</b> change point</li>"
    if any(curve.independence for ability in abilities for curve in ability.curves):
        yield '<li><i class="nulls"></i>p<sup>L</sup>: tokens right independently of each other</li>'
    yield "</ul>"


def _raw(abilities: Sequence[Ability]) -> Iterator[str]:
    """Yield every number of the ability, collapsed."""
    yield '<details><summary>numbers</summary><div class="wide"><table><thead><tr>'
    heads = (
        "size",
        "seed",
        "BIC for a change point",
        "BIC for a smooth rise",
        "change at (steps)",
        "best shape",
        "rise",
        "last margin",
        "last score",
    )
    yield "".join(f"<th>{head}</th>" for head in heads) + "</tr></thead><tbody>"
    for ability in abilities:
        for finding in ability.verdict.seeds:
            cells = (ability.family.name, *_of_seed(finding))
            yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table></div>"
    yield '<div class="wide"><table><thead><tr>'
    columns = ("size", "seed", "step", "tokens", "validation loss", "margin", "score", "exact", "p^L")
    yield "".join(f"<th>{head}</th>" for head in columns) + "</tr></thead><tbody>"
    for ability in abilities:
        for records, curve in zip(ability.series, ability.curves, strict=True):
            for record in records:
                cells = (ability.family.name, str(curve.seed), *_of_record(record))
                yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table></div></details>"


def _of_seed(finding: SeedFinding) -> tuple[str, ...]:
    return (
        str(finding.seed),
        *(
            f"{bic:+.1f}" if math.isfinite(bic) else "no rise"
            for bic in (finding.advantage, finding.smoothness)
        ),
        f"{finding.changed_at:,.0f}" if finding.changed and finding.changed_at is not None else "-",
        finding.shape,
        f"{finding.rise:.3g} x" if math.isfinite(finding.rise) else "-",
        interval_of(finding.margin),
        interval_of(finding.accuracy),
    )


def _of_record(record: ProbeRecord) -> tuple[str, ...]:
    where, exact = record.where, record.model.exact
    return (
        f"{where.step:,}",
        f"{where.tokens_seen:,}" if where.knows_tokens else "-",
        "-" if where.val_loss is None else f"{where.val_loss:.3f}",
        interval_of(record.model.margin),
        interval_of(record.model.accuracy),
        "-" if exact is None else interval_of(exact.exact),
        "-" if exact is None else f"{exact.independence:.3f}",
    )


def _law(law: LawOfStudy | str) -> Iterator[str]:
    yield "<section><h2>The loss law</h2>"
    yield from (f"<p>{escape(line)}</p>" for line in law_lines(law))
    if not isinstance(law, str):
        yield '<figure class="law"><figcaption>Validation loss of every run at its end, in nats per token; dotted, '
        yield f"the law; shaded, the range of 95 % of new runs.</figcaption>{law_panel(law).svg()}</figure>"
    yield "</section>"


def _plain(text: str) -> str:
    """Escape untrusted text for the page."""
    return escape(printable(text))
