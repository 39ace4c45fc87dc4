"""Format the results of an evaluation as lines and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from etude.evaluate.results import Measured, ProbeResult
from etude.evaluate.statistics import Estimate
from etude.evaluate.text_measures import Bin, TextMeasures
from etude.show.named_table import Column, NamedTable
from etude.untrusted import shown

_STYLES = {"beyond counting": "green", "at chance": "dim"}


def result_tables(results: Sequence[ProbeResult]) -> list[NamedTable]:
    """Make a table with a row for each probe: score, interval and comparisons; then a table of typed answers."""
    columns = [
        *(
            Column(heading, right=True)
            for heading in ("right (95 %)", "chance", "n-gram", "random", "margin")
        ),
        Column("conclusion", wraps=True),
    ]
    rows = []
    for result in results:
        model = result.model
        interval = model.accuracy.interval
        cells = [
            f"{model.accuracy.value:.2f} ({interval.low:.2f}-{interval.high:.2f})",
            f"{result.probe.chance:.2f}",
            _score(result.counting),
            _score(result.random),
            f"{model.margin.value:+.2f}",
        ]
        conclusion = Text(result.label, style=_STYLES.get(result.label, ""))
        rows.append((Text(shown(result.probe.title)), [*map(Text, cells), conclusion]))
    tables = [NamedTable("ability", columns, rows)] if rows else []
    exacts = [
        (result.probe.title, result.model.exact) for result in results if result.model.exact is not None
    ]
    if exacts:
        headings = ("all right", "each token", "all, if tokens were independent")
        typed = [
            (
                Text(shown(title)),
                [
                    Text(f"{figure:.3f}")
                    for figure in (exact.exact.value, exact.token.value, exact.independence)
                ],
            )
            for title, exact in exacts
        ]
        tables.append(
            NamedTable("typed answer", [Column(heading, right=True) for heading in headings], typed)
        )
    return tables


def measure_lines(measures: TextMeasures, name: str) -> list[str]:
    """Describe the measures of a whole text in lines."""
    calibration = measures.calibration_error
    lines = [
        f"{name}: {measures.bits_per_byte.value:.4f} bits per byte ({_interval(measures.bits_per_byte)}), "
        f"{measures.nats_per_token.value:.4f} nats per token, over {measures.documents:,} documents of "
        f"{measures.num_bytes:,} bytes; first guess right {100 * measures.first_guess.value:.1f} % of the time; "
        f"confidence off by {100 * calibration.value:.1f} points on average",
    ]
    lines += _bins("nats per token by tokens read before", measures.by_seen)
    lines += _bins("nats per token by the token's count in training", measures.by_frequency)
    documents = measures.by_document
    if documents.best and documents.worst:
        easiest, hardest = documents.best[0], documents.worst[0]
        lines.append(
            f"documents: {documents.mean.value:.3f} bits per byte on average, spread {documents.spread:.3f}; easiest "
            f"{shown(easiest.name)} ({easiest.bits_per_byte:.3f}), hardest {shown(hardest.name)} "
            f"({hardest.bits_per_byte:.3f})"
        )
    return lines


def _bins(title: str, bins: Sequence[Bin]) -> list[str]:
    parts = [f"{_span(tokens)}: {tokens.nats.value:.3f}" for tokens in bins if tokens.tokens]
    return [f"{title}: " + ", ".join(parts)] if parts else []


def _span(tokens: Bin) -> str:
    return f"{tokens.low:,}" if tokens.low == tokens.high else f"{tokens.low:,} to {tokens.high:,}"


def _score(measured: Measured | None) -> str:
    return "?" if measured is None else f"{measured.accuracy.value:.2f}"


def _interval(estimate: Estimate) -> str:
    low, high = estimate.interval.low, estimate.interval.high
    return (
        f"{low:.4f} to {high:.4f}"
        if math.isfinite(low) and math.isfinite(high)
        else "no interval: one document"
    )
