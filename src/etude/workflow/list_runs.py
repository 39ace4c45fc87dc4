"""``etude runs``: one line a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from etude.config import load_settings
from etude.errors import InputError
from etude.evaluate.ladder import Ladder
from etude.files import read_json
from etude.run import RunFolder
from etude.train.run_state import changed, runs_in, state_of
from etude.untrusted import Unreadable, refuse_links_out, shown
from etude.workflow.history import last_events


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
    """Every run below ``folder``, the last changed first; one that is damaged or may not be read stands as that.

    Raises:
        InputError: no such folder, or one that may not be read.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: train something first with `etude train`")
    return sorted(map(_line, runs_in(folder)), key=lambda line: line.changed, reverse=True)


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


def _line(run: RunFolder) -> RunLine:
    status = run.status()
    state, step = state_of(run, status), status.get("step")
    line = RunLine(
        run.name, state, step if type(step) is int else 0, "?", None, 0, "", "", changed(run, status)
    )
    try:
        refuse_links_out(run.path)
        settings = load_settings(run.settings_file)
        newest = last_events(run.metrics.path, ("eval", "rung", "length"))
        ladder = Ladder.from_json(read_json(run.ladder_file)) if run.ladder_file.is_file() else None
    except (Unreadable, PermissionError):
        return replace(line, state="unreadable")
    except InputError:
        return replace(line, state="damaged")
    length, bits = newest.get("length", {}).get("num_steps"), newest.get("eval", {}).get("bits_per_byte")
    bits = float(bits) if isinstance(bits, int | float) and abs(bits) < 2**63 else None
    order = newest.get("rung", {}).get("order")
    if type(order) is not int:  # an older record does not hold it
        order = ladder.passed(bits) if ladder is not None and bits is not None else 0
    return replace(
        line,
        num_steps=str(length if type(length) is int else settings.train.steps),
        bits_per_byte=bits,
        passed=order,
        model=f"{settings.model.preset} {settings.model.hidden_size}x{settings.model.num_hidden_layers}",
        sources=" ".join(Path(source).name or source for source in settings.data.sources),
    )
