"""What an evaluation found, as lines and a table to read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from etude.evaluate.results import Measured, ProbeResult
from etude.evaluate.statistics import Estimate
from etude.evaluate.text_measures import Bin, TextMeasures
from etude.interop.public_suites import SuiteScore
from etude.untrusted import shown

_STYLES = {"beyond counting": "green", "at chance": "dim"}


def result_tables(results: Sequence[ProbeResult]) -> list[Table]:
    """A row a probe: the score with its interval, and all that it must be held against; then what could be typed."""
    table = _table("ability", "right (95 %)", "chance", "n-gram", "random", "margin", "so")
    for result in results:
        model = result.model
        interval = model.accuracy.interval
        cells = [
            shown(result.probe.title),
            f"{model.accuracy.value:.2f} ({interval.low:.2f}-{interval.high:.2f})",
            f"{result.probe.chance:.2f}",
            _score(result.counting),
            _score(result.random),
            f"{model.margin.value:+.2f}",
        ]
        table.add_row(*map(Text, cells), Text(result.label, style=_STYLES.get(result.label, "")))
    exacts = [
        (result.probe.title, result.model.exact) for result in results if result.model.exact is not None
    ]
    if not exacts:
        return [table]
    typed = _table("typed answer", "all right", "each token", "all, if tokens were independent")
    for title, exact in exacts:
        figures = (exact.exact.value, exact.token.value, exact.independence)
        typed.add_row(Text(shown(title)), *(Text(f"{figure:.3f}") for figure in figures))
    return [table, typed]


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        words = heading in (headings[0], "so")
        table.add_column(heading, justify="left" if words else "right", no_wrap=heading != headings[0])
    return table


def public_table(scores: Sequence[SuiteScore]) -> Table:
    """A row a task: the library's own figures, and ours where a task is a choice among texts."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("task", "items", "the library's own", "ties one half", "a token", "chance"):
        table.add_column(heading, justify="left" if heading in ("task", "the library's own") else "right")
    for score in scores:
        own = ", ".join(
            f"{name} {value:.3f}" + ("" if error is None else f" ± {error:.3f}")
            for name, (value, error) in score.figures.items()
        )
        ours = score.choices
        cells = [score.task, f"{score.items:,}", own]
        cells += (
            ["", "", ""]
            if ours is None
            else [f"{ours.whole.value:.3f}", f"{ours.per_token.value:.3f}", f"{ours.chance:.3f}"]
        )
        table.add_row(*(Text(shown(cell)) for cell in cells))
    return table


def measure_lines(measures: TextMeasures) -> list[str]:
    """The held-out text as a whole."""
    sure = measures.calibration_error
    lines = [
        f"held-out text: {measures.bits_per_byte.value:.4f} bits a byte ({_interval(measures.bits_per_byte)}), "
        f"{measures.nats_per_token.value:.4f} nats a token, over {measures.documents:,} documents of "
        f"{measures.num_bytes:,} bytes; first guess right {100 * measures.first_guess.value:.1f} % of the time; "
        f"confidence off by {100 * sure.value:.1f} points in the mean",
    ]
    lines += _bins("nats a token by tokens read before", measures.by_seen)
    lines += _bins("nats a token by how often training had the token", measures.by_frequency)
    found = measures.by_document
    if found.best and found.worst:
        lines.append(
            f"documents: {found.mean.value:.3f} bits a byte in the mean, spread {found.spread:.3f}; easiest "
            f"{shown(found.best[0].name)} ({found.best[0].bits_per_byte:.3f}), hardest {shown(found.worst[0].name)} "
            f"({found.worst[0].bits_per_byte:.3f})"
        )
    return lines


def _bins(what: str, bins: Sequence[Bin]) -> list[str]:
    told = [f"{_span(one)}: {one.nats.value:.3f}" for one in bins if one.tokens]
    return [f"{what}: " + ", ".join(told)] if told else []


def _span(one: Bin) -> str:
    return f"{one.low:,}" if one.low == one.high else f"{one.low:,} to {one.high:,}"


def _score(measured: Measured | None) -> str:
    return "?" if measured is None else f"{measured.accuracy.value:.2f}"


def _interval(estimate: Estimate) -> str:
    low, high = estimate.interval.low, estimate.interval.high
    return (
        f"{low:.4f} to {high:.4f}"
        if math.isfinite(low) and math.isfinite(high)
        else "no interval: one document"
    )
