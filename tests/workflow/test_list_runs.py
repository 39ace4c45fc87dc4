"""The list of runs: what each is, the last changed first, damage named and not hidden."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from etude.config import Settings, with_values
from etude.errors import InputError
from etude.workflow import jobs
from etude.workflow.list_runs import list_runs


def test_every_run_has_its_line(small_settings: Settings, console: Console) -> None:
    folder = Path(small_settings.run.folder)
    with pytest.raises(InputError, match="etude train"):
        list_runs(folder)
    jobs.grow(with_values(small_settings, {"run.name": "first"}), console)
    jobs.grow(with_values(small_settings, {"run.name": "second", "train.steps": 3}), console)
    (folder / "first" / "run.toml").write_text("[train\n")
    (folder / "not-a-run").mkdir()
    lines = {line.name: line for line in list_runs(folder)}
    assert set(lines) == {"first", "second"}
    assert lines["first"].state == "damaged"
    assert (lines["second"].state, lines["second"].step, lines["second"].num_steps) == ("finished", 3, "3")
    assert lines["second"].bits_per_byte is not None
