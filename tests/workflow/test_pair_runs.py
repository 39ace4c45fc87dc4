"""Runs on pairs of a chosen and a rejected answer: resumed, replayed and forked as any other run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_base import published, settings
from test_pretrain import comparable, stop_after

from etude.config import Settings, with_values
from etude.diagnose.run.verdicts import diagnose
from etude.errors import InputError
from etude.evaluate.loss_plot.plot import plot_runs
from etude.evaluate.tuning.records import read_reports
from etude.plan.base_values import PAIR_ADAPTER_RATES, PAIR_EPOCHS, PAIR_RATES
from etude.run import RunFolder
from etude.run.events import PreferenceEvent
from etude.run.history import RunHistory
from etude.run.record import RunRecord
from etude.serve.answers import Answers
from etude.serve.look_types import ANSWERS
from etude.serve.request import Question as Asked
from etude.serve.tensor_files import TensorFiles
from etude.watch.inspect import Question, look_at
from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs
from etude.workflow.close import about_pairs
from etude.workflow.prepare import make_plan
from serving import require_type

__all__ = ["published", "settings"]
NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "Jana", "Kim", "Lea"]
THINGS = ["kite", "drum", "map", "lamp", "coat", "ring"]


def rows() -> list[dict[str, object]]:
    return [
        {
            "prompt": f"What has {name}?",
            "chosen": f"A {THINGS[number % 6]}.",
            "rejected": f"I do not know {name}." if number % 2 else "No.",
        }
        for number, name in enumerate(NAMES)
    ]


def write(file: Path, lines: list[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def pairs(settings: Settings, tmp_path: Path) -> Settings:
    """Return settings of twelve steps on pairs, one of which is none."""
    file = write(tmp_path / "pairs.jsonl", [*rows(), {"prompt": "Hi", "chosen": "x", "rejected": "x"}])
    values = {
        "data.sources": (str(file),),
        "data.validation_fraction": 0.3,
        "train.context": 120,
        "train.batch_rows": 2,
    }
    return with_values(settings, values)


@pytest.fixture(params=[0, 4], ids=["full", "lora"])
def tuning(request: pytest.FixtureRequest, pairs: Settings) -> Settings:
    return with_values(pairs, {"train.lora_rank": request.param})


def test_an_interruption_changes_nothing_and_any_step_is_replayed(
    tuning: Settings, console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = jobs.grow(tuning, console).run
    assert 'objective = "preference"' in whole.settings_file.read_text()
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        run = jobs.grow(tuning, console).run
    reference = run.constants_file.read_bytes()
    run.constants_file.unlink()  # computed again, from step 0
    assert jobs.resume(run.path, console).reason == "finished"
    assert run.constants_file.read_bytes() == reference == whole.constants_file.read_bytes()
    assert comparable(run) == comparable(whole)
    machine = TimeMachine(run.path)
    for step in (1, 7, 12):
        machine.go_to(step)
        assert machine.proof.holds, machine.proof
    require_its_parts_on_the_page(run.path, tmp_path / "tensors")


def require_its_parts_on_the_page(run: Path, folder: Path) -> None:
    """Require what the page shows of a step: both answers of a pair, and of an adapter the product of its factors."""
    folder.mkdir()
    answers = Answers(run.parent, TensorFiles(folder))

    def answer(**question: object) -> Any:
        found = answers.answer(Asked({"run": run.name, "step": 7, **question}), lambda message: None)
        require_type(ANSWERS[str(question["look"])], found)
        return found

    step = answer(look="step", row=0)
    kinds = [part["kind"] for part in step["parts"]]
    assert kinds[:2] == ["chosen", "rejected"]
    assert bool(step["adapted"]) == ("lora_rank = 4" in (run / "run.toml").read_text())
    for matrix in step["adapted"][:2]:
        product = answer(look="matrix", name=matrix["name"], what="product")
        assert product["norm"] == pytest.approx(matrix["product_norm"], rel=1e-5)
        assert answer(look="weight", name=matrix["name"], index=[1, 2])["at"]["rule"] == "frozen"
    with pytest.raises(InputError, match="has no adapter"):
        answer(look="matrix", name="model.norm.weight", what="product")


def test_the_chosen_answers_gain_and_both_are_recorded(pairs: Settings, console: Console) -> None:
    run = jobs.grow(pairs, console).run
    history = RunRecord.open(run.path).history
    first, last = history.preferences[0], history.preferences[-1]
    assert history.steps[0].loss == pytest.approx(math.log(2), abs=1e-5)  # step 0 is the reference
    assert first.loss == pytest.approx(math.log(2), abs=1e-5)
    assert first.accuracy == 0
    assert history.steps[-1].loss < history.steps[0].loss
    assert [event.step for event in history.preferences] == [event.step for event in history.evals]
    assert (last.chosen, last.rejected) != (first.chosen, first.rejected)
    assert history.bits_per_byte_per_nat is None  # the training loss is not that of a text
    pictures = plot_runs([run.path])
    assert [path.name for path in pictures] == ["loss.png", "loss.svg", "loss-pairs.png", "loss-pairs.svg"]
    assert all(path.stat().st_size > 5000 for path in pictures)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for words in (
        "pairs of a chosen and a rejected answer: ",
        "held-out pairs",
        "chosen answers",
        "etude chat",
        f"verdict, step {last.step}: ",
        "chosen, nats per token",
    ):
        assert words in printed
    (reported,) = read_reports(run.path)
    assert reported.step == last.step
    assert reported.pair_changes is not None
    assert [model.name for model in reported.pairs] == ["base", f"tuned, step {last.step}"]


def test_both_probabilities_falling_is_said() -> None:
    def history(*events: PreferenceEvent) -> RunHistory:
        return RunHistory(Path(), "r", [], [], [], [], [], None, None, preferences=list(events))  # type: ignore[arg-type]

    before = PreferenceEvent(0, 0, 0.0, 0.693, 0.0, -40.0, -50.0, 8)
    fell = about_pairs(history(before, PreferenceEvent(9, 1, 1.0, 0.4, 1.0, -45.0, -80.0, 8)))
    rose = about_pairs(history(before, PreferenceEvent(9, 1, 1.0, 0.4, 1.0, -38.0, -80.0, 8)))
    still = about_pairs(history(before, PreferenceEvent(9, 1, 1.0, 0.69, 1.0, -40.0, -50.01, 8)))
    assert "hardly a change" in still[-1]
    assert "became less probable too" in fell[-1]
    assert not any("less probable" in line for line in rose)
    assert about_pairs(history()) == []


def test_a_step_is_explained_in_float64(pairs: Settings, console: Console) -> None:
    run = jobs.grow(with_values(pairs, {"train.steps": 3}), console).run
    opened = open_step(TimeMachine(run.path), 2)
    result = reconcile(opened)
    assert result.holds, result
    shown = "\n".join(str(part) for part in look_at(Question(run.path, step=2)).parts)
    assert "nats per pair" in shown
    assert "the loss belongs to pairs" in shown


def test_the_doctor_compares_pairs_with_pairs(pairs: Settings, console: Console) -> None:
    run = jobs.grow(with_values(pairs, {"train.steps": 40, "train.eval_every": 4}), console).run
    verdicts = {verdict.rule: verdict.finding for verdict in diagnose(run.path)}
    assert "trained to prefer answers" in verdicts["still above the n-gram ladder"]
    held_out = RunRecord.open(run.path).history.preferences
    assert f"{min(event.loss for event in held_out):.3f}" in verdicts["overfitting"]


def test_pairs_that_do_not_fit_are_counted(pairs: Settings, console: Console) -> None:
    plan, _ = make_plan(with_values(pairs, {"train.context": 70}), console)
    lengths = plan.data.train.documents[1:] - plan.data.train.documents[:-1]
    assert 0 < int((lengths > 71).sum()) < len(lengths)
    count = int((lengths > 71).sum())
    assert f"{count} pairs of answers with their prompts are not used" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_lost_reference_that_cannot_be_computed_again_is_said(pairs: Settings, console: Console) -> None:
    run = jobs.grow(with_values(pairs, {"train.steps": 2}), console).run
    run.constants_file.write_bytes(b"x")
    first = run.checkpoints / "step-00000000" / "model.safetensors"
    damaged = bytearray(first.read_bytes())
    damaged[-3] ^= 1
    first.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match=r"reference\.safetensors is damaged"):
        TimeMachine(run.path).go_to(1)


def test_beta_stays_on_a_resume_and_may_change_in_a_fork(
    pairs: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        run = jobs.grow(pairs, console).run
    with pytest.raises(InputError, match=r"train\.beta"):
        jobs.resume(run.path, console, overrides=["train.beta=0.5"])
    with pytest.raises(InputError, match=r"keeps its data and train\.context"):
        jobs.fork(str(run.path), console, overrides=["train.context=127"])
    forked = jobs.fork(str(run.path), console, values={"train.beta": 0.5}).run
    assert forked.constants_file.read_bytes() == run.constants_file.read_bytes()
    assert "beta = 0.5" in RunFolder(forked.path).settings_file.read_text()


def test_a_run_on_conversations_is_forked_onto_pairs(
    tuning: Settings, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = [
        {"prompt": [{"role": "user", "content": row["prompt"]}], "completion": row["chosen"]}
        for row in rows()
    ]
    values = {"data.sources": (str(write(tmp_path / "talk.jsonl", talk)),), "train.steps": 4}
    run = jobs.grow(with_values(tuning, values), console).run
    forked = jobs.fork(
        f"{run.path}@4", console, values={"data.sources": tuning.data.sources, "train.steps": 8}
    ).run
    record = RunRecord.open(forked.path)
    assert 'objective = "preference"' in forked.settings_file.read_text()
    # Its reference is the tuned model with which it begins, not the base.
    assert record.loss_at(5) == pytest.approx(math.log(2), abs=1e-5)
    reference = forked.constants_file.read_bytes()
    forked.constants_file.unlink()
    machine = TimeMachine(forked.path)
    machine.go_to(7)
    assert machine.proof.holds, machine.proof
    assert jobs.resume(forked.path, console, overrides=["train.steps=9"]).reason == "finished"
    assert forked.constants_file.read_bytes() == reference


def test_the_fewer_of_pairs_and_others_are_dropped(pairs: Settings, tmp_path: Path, console: Console) -> None:
    other = {"prompt": [{"role": "user", "content": "Who?"}], "completion": "Nobody."}
    few = write(tmp_path / "few.jsonl", [*rows(), other])
    plan, _ = make_plan(with_values(pairs, {"data.sources": (str(few),), "data.split": "tail"}), console)
    assert plan.settings.train.objective == "preference"
    many = [{**other, "completion": f"{name} did."} for name in NAMES * 2]
    many = write(tmp_path / "many.jsonl", [rows()[0], *many])  # type: ignore[assignment]
    values = {"data.sources": (str(many),), "data.deduplicate": "none"}
    plan, _ = make_plan(with_values(pairs, values), console)
    assert plan.settings.train.objective == "conversation"
    notes = " ".join(plan.data.report.notes)
    assert "1 examples were dropped: a pair of answers among other examples" in notes
    with pytest.raises(InputError, match="is for pairs of answers"):
        make_plan(with_values(pairs, {**values, "train.objective": "preference"}), console)


def test_the_dial_is_cautious_with_pairs(tuning: Settings, console: Console) -> None:
    values = {"train.steps": "auto", "train.context": "auto", "train.batch_rows": "auto", "train.lr": "auto"}
    plan, _ = make_plan(with_values(tuning, values), console)
    train = plan.settings.train
    rates = PAIR_ADAPTER_RATES if train.lora_rank else PAIR_RATES
    assert train.lr == rates["train.lr"].value
    assert train.beta == 0.1
    assert (
        plan.settings.train.context >= max(plan.data.train.documents[1:] - plan.data.train.documents[:-1]) - 1
    )
    read = train.steps * train.batch_rows * train.context
    assert read <= PAIR_EPOCHS * plan.pass_tokens
    with pytest.raises(InputError, match="the loss of pairs of answers is in another unit"):
        make_plan(with_values(tuning, {"train.stop_early": True}), console)
