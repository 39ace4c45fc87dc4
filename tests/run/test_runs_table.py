"""The list of real runs, and the cleanup of staging folders when a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from etude.config import Settings, with_values
from etude.errors import InputError
from etude.files import STAGING_PREFIX, staged_folder
from etude.run.listing import list_runs
from etude.run.runs_table import print_runs
from etude.workflow import jobs


def test_every_run_has_its_line(small_settings: Settings, console: Console) -> None:
    folder = Path(small_settings.run.folder)
    with pytest.raises(InputError, match="etude train"):
        print_runs(folder)
    jobs.grow(with_values(small_settings, {"run.name": "first"}), console)
    jobs.grow(with_values(small_settings, {"run.name": "second", "train.steps": 3}), console)
    (folder / "first" / "run.toml").write_text("[train\n")
    (folder / "not-a-run").mkdir()
    lines = {line.name: line for line in list_runs(folder)}
    assert set(lines) == {"first", "second"}
    assert lines["first"].state == "damaged"
    assert (lines["second"].state, lines["second"].step, lines["second"].num_steps) == ("finished", 3, 3)
    assert lines["second"].bits_per_byte is not None


def test_killed_starts_are_swept_at_the_next(small_settings: Settings, console: Console) -> None:
    folder = Path(small_settings.run.folder)
    left = folder / f"{STAGING_PREFIX}mine-abc"
    left.mkdir(parents=True)
    (left / "ladder.json").write_text("{}")
    with staged_folder(folder / "other") as alive:  # as if another process were writing it
        run = jobs.grow(with_values(small_settings, {"train.steps": 1}), console).run
        assert {path.name for path in folder.iterdir()} == {run.name, alive.name}
