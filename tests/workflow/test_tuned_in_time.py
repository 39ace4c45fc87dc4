"""A run on conversations with a time budget, in reality: what it chose is printed, and it ends with its report."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console
from test_base import published, settings
from test_tuned_runs import conversations

from etude.config import Settings, load_settings, with_values
from etude.errors import InputError
from etude.evaluate.tuning.records import read_reports
from etude.plan.base_values import CONVERSATION_EPOCHS
from etude.plan.tuning_values import CHOICES
from etude.run.record import RunRecord
from etude.workflow import jobs
from etude.workflow.prepare import make_plan

__all__ = ["conversations", "published", "settings"]


@pytest.fixture
def timed(settings: Settings, conversations: Path) -> Settings:
    """Return settings of a run in ten minutes, which the few conversations do not need."""
    values = {
        "data.sources": (str(conversations),),
        "data.validation_fraction": 0.3,
        "data.workers": 1,
        "model.base": settings.model.base,
        "train.seconds": 600.0,
        "device.kind": "cpu",
        "device.dtype": "fp32",
        "device.threads": 1,
        "run.folder": settings.run.folder,
    }
    return load_settings(values=values)


@pytest.mark.slow
def test_a_run_in_time_trains_an_adapter_and_reports(timed: Settings, console: Console) -> None:
    began = time.monotonic()
    outcome = jobs.grow(timed, console)
    assert outcome.reason == "finished"
    assert time.monotonic() - began < 600
    record = RunRecord.open(outcome.run.path)
    train, rows = record.settings.train, record.history.steps
    assert train.lora_rank == CHOICES[-1].rank
    assert len(rows) == train.steps
    seen = train.steps * train.batch_rows * train.context
    assert seen >= (CONVERSATION_EPOCHS - 0.5) * record.manifest["train_tokens"]
    printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for part in (
        "train.lora_rank = 16: the usual rank",
        "the usual number",
        "report at the end: ",
        "verdict, step",
    ):
        assert part in printed
    assert "Asked for 10:00" in printed
    (report,) = read_reports(outcome.run.path)
    assert report.asked >= 1


def test_a_time_too_short_is_refused_before_the_run_exists(
    timed: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.plan.tuning_time.LEAST_UPDATES", 10**9)
    with pytest.raises(InputError, match=r"too short for this model on this machine.* or more"):
        jobs.grow(timed, console)
    assert not any(Path(timed.run.folder).glob("*/run.toml"))


def test_without_a_time_the_estimate_counts_the_report(timed: Settings, console: Console) -> None:
    jobs.explain(with_values(timed, {"train.seconds": "auto", "train.steps": 4}), console)
    printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "for 4 steps" in printed
    assert "for evaluations, samples and the report at the end" in printed


def test_a_model_with_new_tokens_trains_all_weights(
    timed: Settings, published: Path, tmp_path: Path, console: Console
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(published, bare)
    (bare / "chat_template.jinja").unlink()
    file = bare / "tokenizer.json"
    file.write_text(file.read_text().replace("<|im_", "<|xm_"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (bare / name).is_file():
            content = json.loads((bare / name).read_text().replace("<|im_", "<|xm_"))
            content.pop("chat_template", None)
            (bare / name).write_text(json.dumps(content))
    plan, deadline = make_plan(with_values(timed, {"model.base": str(bare)}), console)
    assert deadline is not None
    assert plan.model.adapter is None
