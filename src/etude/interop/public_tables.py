"""The scores of public suites as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from etude.evaluate.statistics import Estimate
from etude.interop.public_suites import SuiteScore
from etude.show.named_table import Column, NamedTable
from etude.untrusted import shown


def public_table(scores: Sequence[SuiteScore]) -> NamedTable:
    """Make a row for each task: the library's figures, and Etude's if the task chooses among texts; groups come last.

    The number of items skipped for their words is shown if there are any.
    """
    left_out = any(score.left_out for score in scores)
    columns = [
        Column("items (skipped)" if left_out else "items", right=True, wraps=left_out),
        Column("the library's own", wraps=True),
        *(Column(heading, right=True) for heading in ("ties one half (95 %)", "per token (95 %)", "chance")),
    ]
    rows = []
    for score in scores:
        own = "\n".join(
            f"{name} {value:.3f}" + ("" if error is None else f" ± {error:.3f}")
            for name, (value, error) in score.figures.items()
        )
        ours = score.choices
        cells = [Text(f"{score.items:,} ({score.left_out:,})" if left_out else f"{score.items:,}"), Text(own)]
        cells += map(
            Text,
            ["", "", ""]
            if ours is None
            else [_share(ours.whole), _share(ours.per_token), f"{ours.chance:.3f}"],
        )
        mean = score.tasks > 1
        name = f"{score.task}: mean of {score.tasks} tasks" if mean else score.task
        rows.append((Text(shown(name), style="bold" if mean else ""), cells))
    return NamedTable("task", columns, rows)


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.interval.low:.3f}-{estimate.interval.high:.3f})"
