"""The checksums and summaries of a run: correct, the same after an interruption, and without effect on the weights."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from rich.console import Console
from test_pretrain import comparable, files_of, stop_after

from etude.config import Settings, with_values
from etude.data.tokens.vocabulary import train_char
from etude.errors import EtudeError
from etude.generate.training_samples import Sample
from etude.model.folder import load_model_folder
from etude.model.language_model import LanguageModel
from etude.plan.plan import initial_state, make_objective
from etude.run import RunFolder
from etude.run.listing import list_runs
from etude.run.record import RunRecord
from etude.train.checksum import checksum
from etude.train.loop import TrainState
from etude.train.optimizer import UpdateRules
from etude.watch import summaries
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs
from etude.workflow.prepare import make_plan
from networks import make_config, make_network

EVERY_STEP = {"train.checksum_every": 1, "train.summary_every": 1, "train.keep_every": 1}


def events_of(run: RunFolder, name: str) -> dict[int, dict[str, Any]]:
    """Return the events of a name, by step."""
    events = [event for event in run.metrics.read() if event["event"] == name]
    assert len({event["step"] for event in events}) == len(events)
    return {event["step"]: event for event in events}


def model_at(run: RunFolder, step: int) -> LanguageModel:
    return load_model_folder(run.checkpoints / f"step-{step:08d}")[0]


@pytest.mark.parametrize("preset", ["llama", "gpt2", "mlp"])
def test_what_is_noted_is_what_the_checkpoints_hold(
    small_settings: Settings, console: Console, preset: str
) -> None:
    values = EVERY_STEP | {"model.preset": preset, "train.max_grad_norm": 0.1, "train.micro_batch_rows": 2}
    settings = with_values(small_settings, values)
    run = jobs.grow(settings, console).run
    sums, summaries, steps = (events_of(run, name) for name in ("checksum", "summary", "step"))
    assert list(sums) == list(range(13))
    assert list(summaries) == list(range(1, 13))
    plan, _ = make_plan(settings, console)
    for step in (1, 2, 7, 12):
        old, new, summary = model_at(run, step - 1), model_at(run, step), summaries[step]
        assert sums[step]["parameters"] == checksum(new) != checksum(old)
        state = dataclasses.replace(initial_state(plan), model=old)
        objective = make_objective(plan, state)
        parts = objective.batch(step)
        count = sum(part.num_targets for part in parts)
        for part in parts:
            (objective.loss(part) / count).backward()
        squares = 0.0
        for (name, before), after in zip(old.named_parameters(), new.parameters(), strict=True):
            norms = summary["tensors"][name]
            weight, update = (
                after.detach().double().norm(),
                (after.detach().double() - before.detach()).norm(),
            )
            assert norms["weight_norm"] == pytest.approx(float(weight), rel=6e-6)
            assert norms["update_norm"] == pytest.approx(float(update), rel=6e-6)
            assert norms["grad_norm"] == pytest.approx(float(before.grad.norm()), rel=1e-4, abs=1e-8)
            squares += norms["grad_norm"] ** 2
        # A clipped gradient would have at most a tenth of this norm.
        assert squares**0.5 == pytest.approx(steps[step]["grad_norm"], rel=1e-5)
        assert squares**0.5 > 0.1
    for summary in summaries.values():
        layers = plan.model.num_hidden_layers
        assert len(summary["attention_entropy"]) == (0 if preset == "mlp" else layers)
        assert len(summary["dead_units"]) == (1 if preset == "mlp" else layers)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_weights_are_the_same_with_and_without(
    small_settings: Settings, console: Console, optimizer: str
) -> None:
    both = {"train.dropout": 0.1, "train.optimizer": optimizer}
    watched = jobs.grow(with_values(small_settings, EVERY_STEP | both), console).run
    alone = {"train.checksum_every": 0, "train.summary_every": 0, "train.keep_every": 1}
    unwatched = jobs.grow(with_values(small_settings, alone | both), console).run
    assert not events_of(unwatched, "checksum")
    assert not events_of(unwatched, "summary")
    for step in range(13):
        ours, theirs = files_of(watched, step), files_of(unwatched, step)
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert ours[name] == theirs[name]
    noted = ("checksum", "summary")
    assert [event for event in comparable(watched) if event["event"] not in noted] == comparable(unwatched)


@pytest.mark.parametrize("stop", [0, 4, 5, 6, 11])
def test_an_interruption_leaves_no_trace_in_what_is_noted(
    small_settings: Settings, console: Console, stop: int
) -> None:
    values = {"train.checksum_every": 2, "train.summary_every": 5, "data.cross_document_attention": False}
    settings = with_values(small_settings, values)
    whole = jobs.grow(settings, console).run
    assert list(events_of(whole, "checksum")) == [0, 2, 4, 6, 8, 10, 12]
    assert list(events_of(whole, "summary")) == [1, 2, 5, 10, 12]  # the first few, and the last
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, stop)
        part = jobs.grow(settings, console).run
    jobs.resume(part.path, console)
    assert comparable(part) == comparable(whole)


def test_how_often_may_be_changed_when_a_run_goes_on(small_settings: Settings, console: Console) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 6)
        run = jobs.grow(small_settings, console).run
    jobs.resume(run.path, console, ["train.checksum_every=1", "train.summary_every=0"])
    assert list(events_of(run, "checksum")) == [0, *range(7, 13)]
    assert list(events_of(run, "summary")) == [1, 2, 5]


def test_a_step_that_was_left_out_has_no_summary(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(self: UpdateRules) -> None:
        original(self)
        calls.append(1)

    original, calls = UpdateRules.zero_grad, list[int]()
    monkeypatch.setattr(UpdateRules, "zero_grad", spoiled)
    real = torch.isfinite
    monkeypatch.setattr(torch, "isfinite", lambda x: real(x) & (len(calls) not in (3, 12)))
    settings = with_values(small_settings, EVERY_STEP | {"train.on_nonfinite": "skip"})
    run = jobs.grow(settings, console).run
    skipped = events_of(run, "left_out")
    assert skipped
    assert sorted([*skipped, *events_of(run, "summary")]) == list(range(1, 13))
    sums = events_of(run, "checksum")
    for step in skipped:
        assert sums[step]["parameters"] == sums[step - 1]["parameters"]


@pytest.mark.parametrize("where", ["weights_before", "tensor_norms", "activity"])
def test_a_run_does_not_end_for_want_of_a_summary(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def no_memory(*args: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    whole = jobs.grow(small_settings, console).run
    monkeypatch.setattr(summaries, where, no_memory)
    run = jobs.grow(small_settings, console).run
    assert not events_of(run, "summary")
    assert files_of(run, 12)["model.safetensors"] == files_of(whole, 12)["model.safetensors"]


def test_another_fault_of_a_summary_is_not_hidden(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(summaries, "activity", broken)
    with pytest.raises((RuntimeError, EtudeError), match="shapes do not fit"):
        jobs.grow(small_settings, console)


def test_who_reads_a_record_is_not_troubled(small_settings: Settings, console: Console) -> None:
    run = jobs.grow(with_values(small_settings, EVERY_STEP), console).run
    before = RunRecord.open(run.path).history
    assert [event.step for event in before.steps] == list(range(1, 13))
    odd: list[dict[str, Any]] = [
        {"event": "summary", "step": 12, "tensors": 7, "attention_entropy": {"a": None}, "dead_units": "x"},
        {"event": "summary", "step": 12},
        {"event": "checksum", "step": 12, "parameters": {"x": []}},
        {"event": "checksum", "step": 12, "parameters": "[red]" * 1000},
    ]
    with run.metrics.path.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in odd))
    after = RunRecord.open(run.path).history
    assert (after.steps, after.evals, after.rungs) == (before.steps, before.evals, before.rungs)
    (line,) = list_runs(Path(small_settings.run.folder))
    assert (line.state, line.step) == ("finished", 12)


def test_a_replayed_run_is_proved_by_its_checksums(small_settings: Settings, console: Console) -> None:
    run = jobs.grow(with_values(small_settings, {"train.checksum_every": 1}), console).run
    machine = TimeMachine(run.path)
    machine.go_to(7)
    assert machine.proof.holds
    assert machine.proof.checksums == 2  # from the checkpoint of step 5


def test_a_network_of_no_numbers_writes_no_sample() -> None:
    """A sample must not end a run that skips such steps."""
    tokenizer = train_char(["once upon a time"])
    state = make_state(tokenizer.vocab_size)
    sample = Sample(tokenizer, "once", 1)
    assert len(sample(state)) == 1
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.fill_(math.nan)
    assert sample(state) == []


def make_state(vocab_size: int) -> TrainState:
    """The same holds for text that a sample shows."""
    model = make_network(make_config("llama", vocab_size=vocab_size, max_position_embeddings=256))
    return cast(TrainState, SimpleNamespace(model=model, step=3, tokens_seen=30, wall_time=1.0))
