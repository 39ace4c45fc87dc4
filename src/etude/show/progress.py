"""Progress bars for work in stages, such as the preparation of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

ProgressListener = Callable[[str, int, int | None], None]
"""Callback (stage, done, total). The total is None if it is not known."""


@contextmanager
def data_progress(console: Console) -> Iterator[ProgressListener]:
    """Yield a callback that shows a bar for each stage, until the block ends. Shows nothing in a file or a pipe."""
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def listen(stage: str, done: int, total: int | None) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total, amount="")
        amount = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        bars.update(tasks[stage], completed=done, total=total, amount=amount)

    with bars:
        yield listen
