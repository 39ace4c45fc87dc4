"""etude eval --suite tuning: options that do not fit together, and models that it is not for, get one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bare_models import make_model
from etude.cli.main import app
from watched import Watched, train_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return train_run(tmp_path_factory.mktemp("plain"), "llama", {})


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["eval", *arguments])
    assert result.exit_code != 0
    return " ".join(str(result.exception or result.output).split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "tuning", "--suite", "world"], "--suite tuning stands alone"),
        (["--suite", "tuning", "--text", "a.txt"], "--suite tuning stands alone"),
        (["--suite", "tuning", "--steps", "all", "--step", "3"], "omit one of them"),
        (["--suite", "tuning", "--steps", "last", "--step", "3"], "omit one of them"),
        (["--tasks", "blimp", "--steps", "last"], "omit --suite, --text, --steps"),
        (["--tasks", "blimp", "--processes", "1"], "omit --suite, --text, --steps"),
        (["--suite", "tuning", "--processes", "2"], "omit --processes"),
        (["--step", "3"], "--step belongs to --suite tuning"),
        (["--suite", "world", "--step", "3"], "--step belongs to --suite tuning"),
        (["--suite", "tuning"], "was trained on plain text"),
        (["--suite", "tuning", "--step", "999"], "has no checkpoint of step 999"),
        (["--suite", "turning"], "--suite takes text, world, tasks, modular or tuning"),
    ],
)
def test_a_run_of_plain_text_and_wrong_options(
    run: Watched, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(run.cache))
    assert message in refusal(str(run.path), *arguments)


def test_a_model_without_a_run(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "llama-grouped-tied")
    assert "is a model without a run" in refusal(str(model), "--suite", "tuning")
    assert "stands alone" in refusal(str(model), str(model), "--suite", "tuning")


def test_an_adapter_of_rank_0_is_refused() -> None:
    result = CliRunner().invoke(app, ["train", "a.jsonl", "--from", "model", "--lora", "--lora-r", "0"])
    assert "--lora-r 0 is no adapter" in str(result.exception)
