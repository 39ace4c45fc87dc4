"""Continuing a run: with its own settings, with the few that may be changed, or as a new run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_pretrain import comparable, stop_after

from etude.config import Settings, load_settings, with_values
from etude.errors import InputError
from etude.files import hash_file
from etude.model.folder import load_model_folder
from etude.run import RunFolder
from etude.run.checkpoints import checkpoint_name, list_checkpoints
from etude.train.loop import Loop
from etude.workflow import jobs


@pytest.fixture
def stopped(small_settings: Settings, console: Console) -> RunFolder:
    """Make a run that was stopped at its sixth of twelve steps."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 6)
        return jobs.grow(small_settings, console).run


def steps_of(run: RunFolder) -> list[int]:
    return [event["step"] for event in run.metrics.read() if event["event"] == "step"]


def test_a_change_is_told_written_down_and_stays(stopped: RunFolder, console: Console) -> None:
    before = hash_file(stopped.settings_file)
    outcome = jobs.resume(stopped.path, console, ["train.steps=9", "train.max_grad_norm=0.5"])
    assert (outcome.reason, outcome.step) == ("finished", 9)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "train.steps changes from 12 to 9" in output
    assert load_settings(stopped.settings_file).train.max_grad_norm == 0.5
    recorded = json.loads(stopped.manifest_file.read_text())
    assert recorded["changes"] == [
        {
            "from_step": 6,
            "settings": {
                "train.max_grad_norm": {"before": 1.0, "after": 0.5},
                "train.steps": {"before": 12, "after": 9},
            },
            "settings_hash_before": before,
        }
    ]
    assert recorded["settings_hash"] == hash_file(stopped.settings_file)
    again = jobs.resume(stopped.path, console, ["train.steps=11"])  # more for a finished run
    assert again.step == 11
    assert steps_of(stopped) == list(range(1, 12))


def test_what_is_only_written_down_otherwise_changes_no_bits(
    stopped: RunFolder, small_settings: Settings, console: Console
) -> None:
    whole = jobs.grow(small_settings, console).run
    jobs.resume(stopped.path, console, ["train.log_every=3", "train.keep_checkpoints=7"])
    assert comparable(stopped) == comparable(whole)


@pytest.mark.parametrize(
    "override",
    [
        "data.min_chars=7",
        "data.sources=['other.txt']",
        "tokenizer.vocab_size=400",
        "model.hidden_size=64",
        "train.context=8",
        "train.batch_rows=2",
        "train.optimizer=adamw",
        "run.seed=5",
        "train.eval_tokens=64",
    ],
)
def test_what_would_make_it_another_run_is_refused(
    stopped: RunFolder, console: Console, override: str
) -> None:
    before = {file: file.read_bytes() for file in stopped.path.rglob("*") if file.is_file()}
    advice = "without --resume" if override.startswith(("tokenizer", "model")) else "--fork"
    with pytest.raises(InputError, match=rf"{override.split('=')[0]} = .*{advice}"):
        jobs.resume(stopped.path, console, [override])
    assert before == {file: file.read_bytes() for file in stopped.path.rglob("*") if file.is_file()}


def test_a_change_that_was_cut_off_did_not_come_to_pass(stopped: RunFolder, console: Console) -> None:
    """The manifest is written first: after a kill between the two writes, the run has its old settings."""
    recorded = json.loads(stopped.manifest_file.read_text())
    recorded["settings_hash_before"], recorded["settings_hash"] = (
        recorded["settings_hash"],
        "of what was to come",
    )
    stopped.write_manifest(recorded)
    assert jobs.resume(stopped.path, console).step == 12


def test_a_fork_goes_on_with_the_weights_and_names_its_parent(
    stopped: RunFolder, small_settings: Settings, console: Console
) -> None:
    outcome = jobs.fork(f"{stopped.path}@4", console, ["train.weight_decay=0.5", "train.steps=8"])
    run = outcome.run
    assert run.name == f"{stopped.name}-fork"
    assert (outcome.reason, outcome.step) == ("finished", 8)
    parent = json.loads(run.manifest_file.read_text())["parent"]
    marker = stopped.checkpoints / checkpoint_name(4) / "train_state.json"
    assert parent == {
        "run": str(stopped.path),
        "step": 4,
        "tokens_seen": 4 * 4 * 32,
        "checkpoint_hash": hash_file(marker),
    }
    assert steps_of(run) == list(range(1, 9))  # the first four are its parent's
    first, theirs = (
        load_model_folder(folder / "checkpoints" / checkpoint_name(4))[0].state_dict()
        for folder in (run.path, stopped.path)
    )
    assert all(torch.equal(first[name], theirs[name]) for name in first)
    assert load_settings(run.settings_file).train.weight_decay == 0.5
    assert steps_of(stopped) == list(range(1, 7))  # unchanged


def test_a_fork_that_changes_nothing_makes_the_same_steps(
    stopped: RunFolder, small_settings: Settings, console: Console
) -> None:
    whole = jobs.grow(small_settings, console).run
    fork = jobs.fork(str(stopped.path), console).run
    assert comparable(fork) == comparable(whole)


def test_a_fork_may_read_another_text_with_its_parents_tokenizer(
    stopped: RunFolder, console: Console, tmp_path: Path
) -> None:
    text = tmp_path / "other.txt"
    text.write_text("A ship came in from the sea, and nobody knew its flag. " * 300)
    run = jobs.fork(str(stopped.path), console, values={"data.sources": (str(text),), "run.name": "sea"}).run
    assert run.name == "sea"
    theirs, own = (
        json.loads(folder.manifest_file.read_text())["tokenizer_hash"] for folder in (stopped, run)
    )
    assert own == theirs
    assert steps_of(run) == list(range(7, 13))
    with pytest.raises(InputError, match="is finished"):
        jobs.resume(run.path, console)


@pytest.mark.parametrize(
    ("step", "overrides", "words"),
    [
        ("@3", [], "no checkpoint of step 3: choose one of 0, 1, 2, 4, 5, 6"),
        ("@x", [], "no checkpoint of step x"),
        ("", ["model.hidden_size=64"], "another network"),
        ("", ["tokenizer.kind=char"], "keeps its parent's tokenizer"),
        ("", ["train.steps=6"], "give more with --steps"),
    ],
)
def test_a_fork_that_cannot_be_says_why_and_leaves_nothing(
    stopped: RunFolder, console: Console, step: str, overrides: list[str], words: str
) -> None:
    before = sorted(stopped.path.parent.iterdir())
    with pytest.raises(InputError, match=words):
        jobs.fork(f"{stopped.path}{step}", console, overrides)
    assert sorted(stopped.path.parent.iterdir()) == before
    assert len(list_checkpoints(stopped.checkpoints)) == 6


def test_a_length_that_follows_a_clock_is_kept_or_given_up(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Loop.__init__

    def revising(loop: Loop, *arguments: Any, **keywords: Any) -> None:
        original(loop, *arguments, **keywords)
        loop.revised_length = lambda step, steps, seconds: 15 if step == 3 and steps == 12 else None

    monkeypatch.setattr(Loop, "__init__", revising)
    stop_after(monkeypatch, 6)
    settings = with_values(small_settings, {"train.seconds": 60, "train.log_every": 1})
    run = jobs.grow(settings, console).run
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"train\.steps = 12.*--fork"):
        jobs.resume(run.path, console, ["train.steps=20"])
    assert jobs.fork(str(run.path), console).step == 15
    assert jobs.fork(str(run.path), console, ["train.steps=9"]).step == 9
