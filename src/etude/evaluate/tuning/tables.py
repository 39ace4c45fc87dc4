"""Show reports on a tuning as tables and lines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from etude.evaluate.statistics import Estimate
from etude.evaluate.tuning.asking import SHORT_TOKENS
from etude.evaluate.tuning.summary import Figures, TuningReport
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


def print_reports(reports: Sequence[TuningReport], as_json: bool, console: Console) -> None:
    """Print reports on one run, of ascending steps, as tables and lines or as one JSON object."""
    if as_json:
        print(json.dumps({"steps": [report.to_json() for report in reports]}, ensure_ascii=False))
        return
    console.print(systems_table(reports))
    console.print(texts_table(reports))
    for line in lines_of(reports):
        print_line(console, line)


def systems_table(reports: Sequence[TuningReport]) -> NamedTable:
    """Make a table with a row for each system: the base once, then the tuned model at each step."""
    systems = [*reports[0].systems[:-1], *(report.systems[-1] for report in reports)]
    rows = [(Text(system.name), list(map(Text, _cells(system)))) for system in systems]
    for name, share in reports[-1].nulls:
        rows.append((Text(name), list(map(Text, ["", _share(share), *[""] * (len(HEADINGS) - 2)]))))
    return NamedTable("system", [Column(heading, right=True, wraps=True) for heading in HEADINGS], rows)


def texts_table(reports: Sequence[TuningReport]) -> NamedTable:
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
