"""etude train: the options of a tuning and the settings that they stand for; wrong ones get one clear line."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from etude.cli import train
from etude.cli.main import app
from etude.config import Settings


@pytest.mark.parametrize(
    ("options", "rank"),
    [([], "auto"), (["--lora"], 16), (["--no-lora"], 0), (["--lora-r", "4"], 4), (["--lora-alpha", "8"], 16)],
)
def test_what_the_options_set(options: list[str], rank: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Settings] = []
    monkeypatch.setattr(train, "_grow", lambda settings, *rest: given.append(settings))
    CliRunner().invoke(app, ["train", "a.jsonl", "--from", "base", "--time", "10m", "--stop-early", *options])
    (settings,) = given
    assert settings.train.lora_rank == rank
    assert settings.train.stop_early
    assert settings.train.seconds == 600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "base", "--no-lora", "--lora-r", "4"], "--no-lora trains all weights: omit --lora-r"),
        (["--stop-early"], "this run has none: begin with a model (--from)"),
        (["--from", "base", "--stop-early", "--set", "train.reference=none"], "omit --stop-early"),
    ],
)
def test_options_that_do_not_fit_together(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["train", "a.jsonl", "--no-studio", *options])
    assert result.exit_code != 0
    assert message in " ".join(str(result.exception or result.output).split())
