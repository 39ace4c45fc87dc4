"""etude eval --suite tuning on runs tuned by the workflow, of all weights and of an adapter."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tuned_folders import FACTS, make_base, write_data
from typer.testing import CliRunner

from etude.cli.main import app
from etude.config import load_settings
from etude.evaluate.tuning import report as report_module
from etude.evaluate.tuning.report import tuned_run
from etude.model.folder import CARD
from etude.run.checkpoints import list_checkpoints, step_of, verify_checkpoint
from etude.workflow import jobs


@pytest.fixture(scope="module", params=[0, 4], ids=["full", "lora"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tuned")
    values = {
        "data.sources": (str(write_data(folder / "rows")),),
        "data.workers": 1,
        "model.base": str(make_base(folder / "base")),
        "train.lora_rank": request.param,
        "train.steps": 8,
        "train.context": 96,
        "train.batch_rows": 2,
        "train.sample_every": 1000,
        "train.checkpoint_every": 4,
        "train.keep_checkpoints": 3,
        "run.folder": str(folder / "runs"),
        "run.name": "tuned",
        "device.kind": "cpu",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(folder / "cache"))
        yield jobs.grow(load_settings(values=values), Console(file=io.StringIO())).run.path


def evaluated(*arguments: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, ["eval", *arguments, "--suite", "tuning", "--json", "--threads", "1"])
    assert result.exit_code == 0, result.output + str(result.exception)
    steps: list[dict[str, Any]] = json.loads(result.stdout)["steps"]
    return steps


def test_the_newest_chosen_and_every_checkpoint(run: Path) -> None:
    (newest,) = evaluated(str(run))
    assert (newest["step"], newest["questions"]["asked"]) == (8, FACTS)
    chosen = evaluated(str(run), "--step", "4", "--step", "1")
    assert [step["step"] for step in chosen] == [1, 4]
    later = [step_of(folder) for folder in list_checkpoints(run / "checkpoints") if step_of(folder)]
    every = evaluated(str(run), "--steps", "all")
    assert [step["step"] for step in every] == later
    assert every[-1] == newest, "nothing was computed anew"
    assert len({json.dumps(step["systems"][0]) for step in every}) == 1
    losses = [step["systems"][-1]["loss"]["value"] for step in every]
    assert len(set(losses)) == len(losses), "every checkpoint answers for itself"
    assert evaluated(f"{run}@4") == [step for step in chosen if step["step"] == 4]


def test_the_base_is_the_model_that_the_run_began_with(run: Path) -> None:
    tuned = tuned_run(run, threads=1)
    assert tuned.base.source.endswith("base")
    assert step_of(tuned.base.folder) == 0


def test_the_card_of_a_checkpoint_says_it_and_the_checkpoint_still_verifies(run: Path) -> None:
    (newest,) = evaluated(str(run))
    folder = list_checkpoints(run / "checkpoints")[-1]
    assert newest["verdict"]["sentence"] in (folder / CARD).read_text()
    verify_checkpoint(folder)


def test_the_function_for_the_end_of_a_run(run: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = report_module.tuning_report(
        run, most_questions=6, seconds=0.0, progress=lambda done, of: seen.append((done, of)), threads=1
    )
    assert report.step == 8
    assert report.asked == 6
    assert report.held_out == FACTS
    assert seen[-1][0] == seen[-1][1] == len(seen)
