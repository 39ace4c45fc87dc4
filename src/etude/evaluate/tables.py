"""The results of an evaluation as lines and tables."""

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
    """A row a probe: the score with its interval, and all that it must be held against; then what could be typed."""
    columns = [
        *(
            Column(heading, right=True)
            for heading in ("right (95 %)", "chance", "n-gram", "random", "margin")
        ),
        Column("so", wraps=True),
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
        so = Text(result.label, style=_STYLES.get(result.label, ""))
        rows.append((Text(shown(result.probe.title)), [*map(Text, cells), so]))
    tables = [NamedTable("ability", columns, rows)] if rows else []
    exacts = [
        (result.probe.title, result.model.exact) for result in results if result.model.exact is not None
    ]
    if exacts:
        figures = ("all right", "each token", "all, if tokens were independent")
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
        tables.append(NamedTable("typed answer", [Column(one, right=True) for one in figures], typed))
    return tables


def measure_lines(measures: TextMeasures, name: str) -> list[str]:
    """A text as a whole."""
    sure = measures.calibration_error
    lines = [
        f"{name}: {measures.bits_per_byte.value:.4f} bits a byte ({_interval(measures.bits_per_byte)}), "
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
