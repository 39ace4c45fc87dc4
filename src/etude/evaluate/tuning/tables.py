"""Show reports on a tuning as tables and lines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from etude.evaluate.statistics import Estimate
from etude.evaluate.tuning.asking import SHORT_TOKENS
from etude.evaluate.tuning.pair_report import PairsReport
from etude.evaluate.tuning.pair_verdict import ERROR_RATES as PAIR_ERROR_RATES
from etude.evaluate.tuning.summary import Figures, ProbeCost, TuningReport
from etude.evaluate.tuning.verdict import error_rates
from etude.show.lines import print_line
from etude.show.named_table import Column, NamedTable
from etude.untrusted import shown

FORMS = {
    "ChatML": "in ChatML, which answers training questions no worse than plain text (Question: ... Answer: ...)",
    "plain text": "in plain text (Question: ... Answer: ...), which answers training questions better than ChatML",
}
"""How a base without a chat template was asked."""
HEADINGS = (
    *("loss (95 %)", "right (95 %)", "ended by itself", "copied", "wrong copies"),
    "own answer over another's",
)
PROBES_NOTE = (
    "abilities: probes that have nothing to do with the tuning; both models answered the same items, and the verdict "
    "does not count them"
)
PROBES_DROPPED = "abilities: not asked, for want of time; `etude eval RUN --suite tuning` asks them"
PAIR_HEADINGS = (
    "chosen one more probable (95 %)",
    "gained",
    "chosen, nats per token",
    "rejected, nats per token",
)


def print_reports(reports: Sequence[TuningReport | PairsReport], as_json: bool, console: Console) -> None:
    """Print reports on one run, of ascending steps, as tables and lines or as one JSON object."""
    if as_json:
        print(json.dumps({"steps": [report.to_json() for report in reports]}, ensure_ascii=False))
        return
    of_pairs = [report for report in reports if isinstance(report, PairsReport)]
    others = [report for report in reports if isinstance(report, TuningReport)]
    console.print(pairs_table(of_pairs) if of_pairs else systems_table(others))
    if others and others[-1].kinds:
        console.print(kinds_table(others[-1]))
    console.print(texts_table(reports))
    if reports[-1].probes:
        console.print(probes_table(reports[-1].probes))
        print_line(console, PROBES_NOTE)
    elif reports[-1].probes_dropped:
        print_line(console, PROBES_DROPPED)
    for line in lines_of_pairs(of_pairs) if of_pairs else lines_of(others):
        print_line(console, line)


def pairs_table(reports: Sequence[PairsReport]) -> NamedTable:
    """Make a table of the held-out pairs: a row for the base, then for the tuned model at each step."""
    models = [reports[0].models[0], *(report.models[1] for report in reports)]
    rows = [
        (
            Text(model.name),
            [
                Text(_share(model.won)),
                Text(_share(model.gained)),
                Text(_with_interval(model.chosen)),
                Text(_with_interval(model.rejected)),
            ],
        )
        for model in models
    ]
    return NamedTable("model", [Column(heading, right=True, wraps=True) for heading in PAIR_HEADINGS], rows)


def lines_of_pairs(reports: Sequence[PairsReport]) -> list[str]:
    """Return the verdict on each step, and what limits the conclusions, in lines."""
    last = reports[-1]
    chosen = "" if last.asked == last.held_out else f" of {last.held_out:,}"
    return [
        *(f"verdict, step {report.step:,}: {report.verdict.sentence}" for report in reports),
        f"{last.asked:,}{chosen} held-out pairs with {last.groups:,} different questions ({last.questions[:16]}); "
        "gained: share of pairs whose chosen answer gained on the rejected one since the base; nats per token: "
        "log-probability of the answers, summed over pairs, by their tokens",
        *(f"not scored: {count:,}: {reason}" for reason, count in last.skipped.items()),
        PAIR_ERROR_RATES,
        f"base: {shown(last.base)} ({last.base_hash[:16]}); computed in fp32",
    ]


def systems_table(reports: Sequence[TuningReport]) -> NamedTable:
    """Make a table with a row for each system: the base once, then the tuned model at each step."""
    systems = [*reports[0].systems[:-1], *(report.systems[-1] for report in reports)]
    rows = [(Text(system.name), list(map(Text, _cells(system)))) for system in systems]
    for name, share in reports[-1].nulls:
        rows.append((Text(name), list(map(Text, ["", _share(share), *[""] * (len(HEADINGS) - 2)]))))
    return NamedTable("system", [Column(heading, right=True, wraps=True) for heading in HEADINGS], rows)


def kinds_table(report: TuningReport) -> NamedTable:
    """Make a table of the share of right answers to each kind of question."""
    headings = ["questions", "base (95 %)", f"base, {report.best} examples", "tuned (95 %)"]
    rows = []
    for kind in report.kinds:
        cells = [f"{kind.asked:,}", *map(_share, (kind.base, kind.prompted, kind.tuned))]
        rows.append(
            (Text(shown(kind.name)), [Text(cell) for at, cell in enumerate(cells) if at != 2 or report.best])
        )
    columns = [Column(heading, right=True) for at, heading in enumerate(headings) if at != 2 or report.best]
    return NamedTable(f"right answers, step {report.step:,}", columns, rows)


def texts_table(reports: Sequence[TuningReport | PairsReport]) -> NamedTable:
    """Make a table of bits per byte on the reference texts."""
    headings = ("base", "tuned", "rise (95 %)")
    rows = [
        (
            Text(f"{text.name}, step {report.step:,}"),
            [
                Text(f"{text.base:.3f}"),
                Text(f"{text.tuned:.3f}"),
                Text(_with_interval(text.rise.rise, "+.3f"), style="red" if text.rise.is_forgetting else ""),
            ],
        )
        for report in reports
        for text in report.texts
    ]
    return NamedTable("bits per byte", [Column(heading, right=True) for heading in headings], rows)


def probes_table(probes: Sequence[ProbeCost]) -> NamedTable:
    """Make a table of the share of right answers to the probes of general abilities."""
    headings = ("chance", "base (95 %)", "tuned (95 %)", "change (95 %)")
    rows = [
        (
            Text(probe.title),
            [
                Text(f"{probe.chance:.2f}"),
                Text(_share(probe.base)),
                Text(_share(probe.tuned)),
                Text(
                    _with_interval(probe.change, "+.2f"),
                    style="red" if probe.change.interval.high < 0 else "",
                ),
            ],
        )
        for probe in probes
    ]
    return NamedTable("abilities, share right", [Column(heading, right=True) for heading in headings], rows)


def lines_of(reports: Sequence[TuningReport]) -> list[str]:
    """Return the verdict on each step, and what limits the conclusions, in lines."""
    last = reports[-1]
    lines = [f"verdict, step {report.step:,}: {report.verdict.sentence}" for report in reports]
    chosen = "" if last.asked == last.held_out else f" of {last.held_out:,}"
    lines.append(
        f"{last.asked:,}{chosen} held-out questions with {last.answers:,} different answers ({last.questions[:16]}); "
        f"answers of at most {SHORT_TOKENS} tokens, {last.short:,} of them, are compared exactly, without case, white "
        "space and final punctuation"
    )
    lines += [f"not asked: {count:,}: {reason}" for reason, count in last.skipped.items()]
    if last.best:
        lines.append(
            f"the base's best prompt has {last.best} examples; it was chosen on the same questions, which favours the "
            "base"
        )
    if last.form in FORMS:
        lines.append(f"the base has no chat template: it was asked {FORMS[last.form]}")
    lines.append(
        "loss: nats per trained token of the held-out answers; own answer over another's: by how many nats per token "
        "the answer to another question is less likely"
    )
    lines.append(error_rates(last.answers))
    return [
        *lines,
        f"base: {shown(last.base)} ({last.base_hash[:16]}); answers computed in {last.decoding}, texts in fp32",
    ]


def _cells(system: Figures) -> list[str]:
    return [
        _with_interval(system.loss),
        _share(system.exact),
        "" if system.ended is None else f"{system.ended.value:.2f}",
        "" if system.copies is None else f"{system.copies.value:.2f}",
        "" if system.wrong_copies is None else f"{system.wrong_copies.value:.2f}",
        "" if system.contrast is None else f"{system.contrast.value:+.2f}",
    ]


def _share(estimate: Estimate | None) -> str:
    return "" if estimate is None else _with_interval(estimate, ".2f")


def _with_interval(estimate: Estimate, form: str = ".3f") -> str:
    low, high = estimate.interval.low, estimate.interval.high
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({low:{form}} to {high:{form}})"
