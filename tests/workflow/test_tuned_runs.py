"""Runs tuned on conversations: resumed, replayed and forked as any other, and only their answers are trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file
from test_base import published, settings
from test_pretrain import comparable, stop_after

from etude.config import Settings, load_settings, to_toml, with_values
from etude.data.conversations.conversation import SAMPLED
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.packing import Pieces, num_trained, pieces_of
from etude.data.tokens.rows import training_rows
from etude.errors import InputError
from etude.evaluate.tuning.report import tuning_report
from etude.places import cache_folder
from etude.plan.plan import initial_state, make_objective
from etude.pretrained.data_preview import preview_for
from etude.run import RunFolder
from etude.run.record import RunRecord
from etude.train.spikes import sampled_shares
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs, replay
from etude.workflow.prepare import make_plan

__all__ = ["published", "settings"]
NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "Jana", "Kim", "Lea"]
PLAIN = {"data.sources": ("builtin:primer",), "data.max_bytes": 9000}
THINGS = ["kite", "drum", "map", "lamp", "coat", "ring"]


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    """Return a file of conversations, of one and of two turns, with a bad row."""
    rows = []
    for number, name in enumerate(NAMES):
        thing = THINGS[number % len(THINGS)]
        turns = [(f"What has {name}?", f"{name} has a {thing}.")]
        if number % 3 == 0:
            turns.append((f"Who has the {thing}?", f"The {thing} is {name}'s."))
        pairs = [
            {"role": role, "content": content}
            for turn in turns
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ]
        rows.append({"messages": pairs})
    file = tmp_path / "talk.jsonl"
    bad = {"messages": [{"role": "user", "content": "nobody answers this"}]}
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, bad]))
    return file


@pytest.fixture(params=[0, 4], ids=["full", "lora"])
def tuning(request: pytest.FixtureRequest, settings: Settings, conversations: Path) -> Settings:
    """Return settings of twelve steps on the conversations, of all weights or of an adapter."""
    return with_values(
        settings,
        {
            "data.sources": (str(conversations),),
            "data.validation_fraction": 0.3,
            "train.context": 96,
            "train.batch_rows": 2,
            "train.lora_rank": request.param,
        },
    )


def test_conversations_are_found_and_only_answers_are_trained(tuning: Settings, console: Console) -> None:
    plan, _ = make_plan(tuning, console)
    assert plan.settings.train.objective == "conversation"
    assert not plan.settings.data.cross_document_attention
    objective = make_objective(plan, initial_state(plan))
    tokenizer = plan.data.tokenizer
    for part in objective.batch(1):
        for targets in part.targets:
            trained = tokenizer.decode(targets[targets != IGNORE_INDEX].tolist())
            answers = trained.split("<|im_end|>")
            assert answers.pop() == ""  # the end of each turn is trained
            assert all(answer.endswith(".") and "?" not in answer for answer in answers)
    dropped = plan.data.report.as_json()
    assert "no assistant turn" in json.dumps(dropped) or "assistant" in json.dumps(dropped["dropped"])


def test_an_interruption_changes_nothing(
    tuning: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = jobs.grow(tuning, console).run
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        run = jobs.grow(tuning, console).run
    assert jobs.resume(run.path, console).reason == "finished"
    assert comparable(run) == comparable(whole)


def test_any_step_is_replayed_with_proof(tuning: Settings, console: Console) -> None:
    run = jobs.grow(tuning, console).run
    machine = TimeMachine(run.path)
    for step in (1, 7, 12):
        machine.go_to(step)
        assert machine.proof.holds, machine.proof


def test_the_run_ends_with_what_the_tuning_gained_and_cost(tuning: Settings, console: Console) -> None:
    run = jobs.grow(tuning, console).run
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "conversations: " in printed
    assert "etude chat" in printed
    assert "base" in printed
    assert "held-out" in printed
    assert (run.path / "tuning.jsonl").is_file()
    losses = [event.val_loss for event in RunRecord.open(run.path).history.evals]
    assert losses[-1] < losses[0]


def test_a_fork_onto_other_conversations_keeps_the_objective(
    tuning: Settings, conversations: Path, tmp_path: Path, console: Console
) -> None:
    run = jobs.grow(tuning, console).run
    other = tmp_path / "other.jsonl"
    other.write_text(conversations.read_text().replace("has a", "owns a"))
    with pytest.raises(InputError, match="a fork takes no new samples of a base"):
        jobs.fork(str(run.path), console, values={"data.replay": 0.1})
    forked = jobs.fork(str(run.path), console, values={"data.sources": (str(other),), "train.steps": 15}).run
    assert 'objective = "conversation"' in RunFolder(forked.path).settings_file.read_text()


def test_plain_text_is_no_conversation(settings: Settings, console: Console) -> None:
    with pytest.raises(InputError, match="is for conversations, and this is plain text"):
        make_plan(with_values(settings, {"train.objective": "conversation"}), console)


def test_samples_of_the_base_are_trained_on_and_kept_with_the_run(
    tuning: Settings, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaying = with_values(tuning, {"data.replay": 0.2})
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        run = jobs.grow(replaying, console).run
    samples = run.path / SAMPLED
    assert samples.is_file()
    plan, _ = make_plan(replaying, console)
    held_out = [plan.data.corpus.name("validation", n)[1] for n in range(plan.data.validation.num_documents)]
    assert not any(SAMPLED in name for name in held_out)
    trained = [plan.data.corpus.name("train", n)[1] for n in range(plan.data.train.num_documents)]
    assert any(SAMPLED in name for name in trained)
    share = sampled_shares(plan.data, plan.settings)
    assert share is not None
    rows = training_rows(plan.data.train, 96, 2, plan.settings.run.seed)
    examples = plan.data.train.examples
    assert examples is not None
    counted = []
    for step in range(6):
        places = rows.target_places(step, 0, 2)
        numbers = plan.data.train.document_numbers(places[examples.trained[places]])
        counted.append(np.mean([SAMPLED in trained[number] for number in numbers]))
    assert [share(step) for step in range(1, 7)] == pytest.approx(counted)
    assert len(set(counted)) > 1
    shutil.rmtree(cache_folder())  # the run does not need it
    assert jobs.resume(run.path, console).reason == "finished"
    whole = jobs.grow(replaying, console).run
    assert comparable(run) == comparable(whole)


def test_replay_is_for_tunings(settings: Settings, console: Console) -> None:
    with pytest.raises(InputError, match="--replay samples the base model of a tuning"):
        make_plan(with_values(settings, {"data.replay": 0.1}), console)


def test_conversations_longer_than_a_row_are_counted(tuning: Settings, console: Console) -> None:
    make_plan(with_values(tuning, {"train.context": 44}), console)
    printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "end after their last turn that fits: they have more than train.context=44 tokens" in printed


def places_of(pieces: Pieces) -> set[int]:
    """Return the places of the tokens in pieces; two of one text share a token."""
    rows = zip(pieces.starts.tolist(), pieces.lengths.tolist(), strict=True)
    return {place for start, length in rows for place in range(start, start + length)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train.beta": 0.2}, "--beta is for pairs of answers"),
        ({"train.beta": 0.1}, "--beta is for pairs of answers"),
        ({"train.lora_alpha": 8.0}, "this run has none: add --lora"),
        ({"train.lora_targets": ("q_proj",)}, "this run has none: add --lora"),
        ({"train.lora_dropout": 0.0}, "this run has none: add --lora"),
        ({"train.patience": 3}, "train.patience is for --stop-early"),
        ({"train.answer_separator": "="}, "is for --set train.objective=answer-only"),
        ({**PLAIN, "data.mask": "last"}, "this is plain text"),
        ({**PLAIN, "data.mask": "assistant"}, "this is plain text"),
    ],
)
def test_a_setting_without_an_effect_is_refused(
    settings: Settings, conversations: Path, console: Console, values: dict[str, object], message: str
) -> None:
    named = {"data.sources": (str(conversations),), "data.validation_fraction": 0.3, "train.context": 96}
    with pytest.raises(InputError, match=message):
        make_plan(with_values(settings, named | values), console)


def test_a_file_of_a_run_names_every_setting(
    settings: Settings, conversations: Path, tmp_path: Path, console: Console
) -> None:
    named = {"data.sources": (str(conversations),), "data.validation_fraction": 0.3, "train.context": 96}
    file = tmp_path / "run.toml"
    file.write_text(to_toml(with_values(settings, named)))
    make_plan(load_settings(file), console)
    for typed in ("train.beta=0.1", "train.patience=3"):
        with pytest.raises(InputError, match="omit it"):
            make_plan(load_settings(file, [typed]), console)


def test_only_what_fits_into_a_row_counts(
    settings: Settings, conversations: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(
        replay,
        "base_samples",
        lambda model, tokenizer, count, *_, **__: drawn.append(count) or iter([{"text": "x"}]),
    )
    rows = conversations.read_text()
    text = {"text": "a plain text that is longer than a row, and continues in another " * 3}
    long = [{"question": f"{number} {'and so on ' * 40}", "answer": "Yes."} for number in range(9)]
    steps = []
    for name, more in (("few", [text]), ("many", [text, *long])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.jsonl").write_text(rows + "".join(json.dumps(row) + "\n" for row in more))
        (folder / "valid.jsonl").write_text(rows.splitlines()[0].replace("Ada", "Ana"))
        values = {"data.sources": (str(folder),), "train.context": 96, "train.batch_rows": 1}
        plan, _ = make_plan(
            with_values(settings, values | {"train.steps": "auto", "data.replay": 0.5}), console
        )
        steps.append(plan.settings.train.steps)
        preview = preview_for(plan.settings, settings.model.base, 0)
        parts = [(part, pieces_of(part, 96)) for part in (plan.data.train, plan.data.validation)]
        assert preview.trained == sum(num_trained(*part) for part in parts)
        assert preview.tokens == sum(len(places_of(pieces)) for _, pieces in parts)
    assert steps[0] == steps[1] > 4
    assert len(drawn) == 1  # as many for both, which the cache has
    printed = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "examples (13 conversations, 1 plain texts): 13 to train on, 1 held out" in printed


def test_conversations_without_a_model_name_the_option(conversations: Path, console: Console) -> None:
    with pytest.raises(InputError, match=r"these rows are conversations.*--from"):
        make_plan(load_settings(values={"data.sources": (str(conversations),)}), console)


def test_a_fork_is_not_compared_with_another_base(
    tuning: Settings, published: Path, tmp_path: Path, console: Console
) -> None:
    base = tmp_path / "base"
    shutil.copytree(published, base)
    run = jobs.grow(with_values(tuning, {"model.base": str(base)}), console).run
    forked = jobs.fork(str(run.path), console, values={"train.steps": 15}).run
    other = load_file(base / "model.safetensors")
    other["model.norm.weight"] = other["model.norm.weight"] * 2
    save_file(other, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="is not the model that"):
        tuning_report(forked.path)
