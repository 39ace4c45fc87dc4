"""``etude runs``: one line a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from etude.config import Settings, load_settings
from etude.errors import InputError
from etude.run import RunFolder
from etude.untrusted import shown
from etude.workflow.history import RunHistory


@dataclass(frozen=True)
class RunLine:
    """What the list says of a run."""

    name: str
    state: str
    step: int
    num_steps: str
    bits_per_byte: float | None
    passed: int
    model: str
    sources: str
    changed: float


def list_runs(folder: Path) -> list[RunLine]:
    """Every run below ``folder``, the last changed first; one whose settings cannot be read stands as damaged.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: train something first with `etude train`")
    lines = []
    for file in folder.glob("*/run.toml"):
        try:
            lines.append(_line(RunFolder(file.parent), load_settings(file)))
        except InputError:
            changed = file.stat().st_mtime
            lines.append(RunLine(file.parent.name, "damaged", 0, "?", None, 0, "", "", changed))
    return sorted(lines, key=lambda line: line.changed, reverse=True)


def show(folder: Path) -> None:
    """Print the list."""
    lines = list_runs(folder)
    if not lines:
        print(f"no runs in {folder}: train something with `etude train`")
        return
    table = Table(box=None, header_style="bold")
    for heading in ("run", "state", "steps", "bits a byte", "passed", "model", "text", "changed"):
        table.add_column(heading, no_wrap=heading in ("run", "changed"))
    for line in lines:
        cells = (
            line.name,
            line.state,
            f"{line.step}/{line.num_steps}",
            "" if line.bits_per_byte is None else f"{line.bits_per_byte:.3f}",
            f"{line.passed}-gram" if line.passed else "",
            line.model,
            line.sources,
            datetime.fromtimestamp(line.changed).strftime("%Y-%m-%d %H:%M"),
        )
        table.add_row(*(Text(shown(cell)) for cell in cells))  # not markup: a run may be called [red]
    Console().print(table)


def _line(run: RunFolder, settings: Settings) -> RunLine:
    status, written = run.status(), run.settings_file.stat().st_mtime
    heartbeat, step = status.get("heartbeat"), status.get("step")
    history = RunHistory.load(run.path)
    evals = history.evals
    return RunLine(
        name=run.name,
        state=str(status.get("state", "not begun")),
        step=step if isinstance(step, int) else 0,
        num_steps=str(history.num_steps or settings.train.steps),
        bits_per_byte=evals[-1].bits_per_byte if evals else None,
        passed=max(history.passed_at, default=0),
        model=f"{settings.model.preset} {settings.model.hidden_size}x{settings.model.num_hidden_layers}",
        sources=" ".join(Path(source).name or source for source in settings.data.sources),
        changed=heartbeat if isinstance(heartbeat, float) and 0 <= heartbeat < 2**32 else written,
    )
