"""Runs on sampled answers: resumed and replayed as any other run, beside their null."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from test_base import published, settings
from test_pretrain import comparable, stop_after
from typer.testing import CliRunner

from etude.cli import train
from etude.cli.main import app
from etude.config import Settings, with_values
from etude.diagnose.run.verdicts import diagnose
from etude.errors import InputError
from etude.evaluate.loss_plot.plot import plot_runs
from etude.evaluate.tuning.records import read_reports
from etude.plan.base_values import REWARD_ADAPTER_RATES, REWARD_RATES
from etude.run.record import RunRecord
from etude.train.objectives import checked_questions
from etude.watch.inspect import Question, look_at
from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs
from etude.workflow.prepare import make_plan

__all__ = ["published", "settings"]


@pytest.fixture
def sampling(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings of six steps; a network of random weights cannot add, so any answer that ends is right."""
    monkeypatch.setattr(checked_questions, "is_right", lambda answer, reference: True)
    values = {
        "data.sources": ("builtin:sums",),
        "data.max_bytes": 20_000,
        "train.objective": "reward",
        "train.context": "auto",
        "train.steps": 6,
        "train.batch_rows": 8,
        "train.group": 4,
        "train.eval_every": 3,
        "train.checkpoint_every": 2,
        "train.checksum_every": 1,
        "train.summary_every": 2,
        "train.reference": "none",
    }
    return with_values(settings, values)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_an_interruption_changes_nothing_and_a_step_is_replayed(
    sampling: Settings, console: Console, rank: int
) -> None:
    tuning = with_values(sampling, {"train.lora_rank": rank, "train.kl": 0.1 if rank else 0.0})
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 5)  # before its end, so that no report is made
        whole = jobs.grow(tuning, console).run
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        run = jobs.grow(tuning, console).run
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 5)
        assert jobs.resume(run.path, console).step == 5
    assert comparable(run) == comparable(whole)
    rewards = RunRecord.open(whole.path).history.rewards
    assert [event.step for event in rewards] == list(range(1, 6))
    assert any(event.mixed for event in rewards)
    assert (rewards[-1].divergence >= 0) is bool(rank)
    machine = TimeMachine(run.path)
    for step in (1, 4):
        machine.go_to(step)
        assert machine.proof.holds, machine.proof
    opened = open_step(machine, 5)
    assert opened.proof.holds
    result = reconcile(opened)
    assert result.holds, result
    assert "answers were sampled" in str(look_at(Question(run.path, step=5)).parts)


@pytest.mark.slow  # two runs, each with its report
def test_what_is_rewarded_grows_and_the_null_is_compared(
    sampling: Settings, console: Console, tmp_path: Path
) -> None:
    values = {"train.steps": 40, "train.lr": 1e-2, "train.batch_rows": 16, "train.group": 8}
    true = with_values(sampling, {**values, "train.checksum_every": 0, "train.summary_every": 0})
    null = with_values(true, {"train.shuffle_rewards": True, "run.name": "null"})
    run, other = (
        jobs.grow(chosen, console).run for chosen in (null, with_values(true, {"run.name": "true"}))
    )
    before, after = (RunRecord.open(path).history.rewards for path in (other.path, run.path))
    first, last = (sum(event.right for event in part) / 5 for part in (before[:5], before[-5:]))
    assert last > first + 0.2
    assert last > sum(event.right for event in after[-5:]) / 5
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for words in (
        "each step samples 8 answers to a question",
        "the rewards are shuffled: this is the null",
        "Of the answers that it sampled",
        "shuffled rewards (null)",
    ):
        assert words in printed
    assert "shuffled rewards (null)" in read_reports(other.path)[-1].sentence
    assert "shuffled" not in read_reports(run.path)[-1].sentence
    pictures = plot_runs([other.path], tmp_path)
    assert pictures[2].name == "loss-answers.png"
    assert all(path.stat().st_size > 5000 for path in pictures)
    verdicts = {verdict.rule: verdict for verdict in diagnose(other.path)}
    assert verdicts["diverged"].severity == "not judged"
    assert "samples" in verdicts["overfitting"].finding


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train.group": 1}, "train.group=1 leaves an answer nothing to be compared with"),
        ({"train.batch_rows": 6}, "train.batch_rows=6 is not a multiple of train.group=4"),
        ({"train.kl": 0.1}, "add --lora, or omit train.kl"),
        ({"train.dropout": 0.1}, "omit dropout"),
        ({"train.lora_rank": 4, "train.lora_dropout": 0.1}, "omit dropout"),
        ({"data.replay": 0.2}, "omit --replay"),
        ({"data.mask": "all"}, "omit data.mask"),
        ({"data.sources": ("builtin:primer-instructions",)}, "train on builtin:sums, builtin:copying or"),
        ({"train.objective": "next-token"}, "train.group is for sampled answers: add --reward"),
    ],
)  # fmt: skip
def test_what_does_not_fit_gets_one_line(
    sampling: Settings, console: Console, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        jobs.grow(with_values(sampling, values), console)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_text_and_pairs_are_refused(sampling: Settings, console: Console, text_folder: Path) -> None:
    pairs = text_folder.parent / "pairs.jsonl"
    rows = [{"prompt": f"{n}?", "chosen": f"a{n}", "rejected": "b"} for n in range(12)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for source in (str(text_folder), str(pairs)):
        with pytest.raises(InputError, match="--reward needs answers that can be checked"):
            make_plan(with_values(sampling, {"data.sources": (source,)}), console)
    with pytest.raises(InputError, match=r"give --steps, not --time"):
        make_plan(with_values(sampling, {"train.steps": "auto", "train.seconds": 60.0}), console)


def test_the_dial_has_rates_and_rows_for_answers(sampling: Settings, console: Console) -> None:
    values = {"train.steps": "auto", "train.batch_rows": "auto", "train.lr": "auto"}
    for rank, rates in ((0, REWARD_RATES), (4, REWARD_ADAPTER_RATES)):
        plan, _ = make_plan(with_values(sampling, {**values, "train.lora_rank": rank}), console)
        train = plan.settings.train
        assert train.lr == rates["train.lr"].value
        assert train.batch_rows % train.group == 0
        assert train.context >= int((plan.data.train.documents[1:] - plan.data.train.documents[:-1]).max())


def test_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Settings] = []
    monkeypatch.setattr(train, "_grow", lambda settings, *rest: given.append(settings))
    for options in ([], ["--reward"], ["--reward", "--shuffle-rewards"]):
        CliRunner().invoke(app, ["train", "builtin:sums", "--from", "base", *options])
    assert [settings.train.objective for settings in given] == ["next-token", "reward", "reward"]
    assert [settings.train.shuffle_rewards for settings in given] == [False, False, True]
