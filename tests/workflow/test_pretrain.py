"""Whole runs: the folder that they leave, and that an interruption changes nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from etude import device
from etude.config import Settings, load_settings, with_values
from etude.data import prepared_data
from etude.diagnose.machine.self_test import MAX_GRAD_NORM
from etude.errors import EtudeError, InputError
from etude.files import staged_folder
from etude.model.folder import load_model_folder
from etude.model.layers import ACTIVATION_FUNCTIONS
from etude.run import RunFolder
from etude.run.checkpoints import (
    checkpoint_name,
    list_checkpoints,
    newest_good_checkpoint,
    step_of,
    verify_checkpoint,
)
from etude.train import step
from etude.train.loop import Loop
from etude.train.objectives import NextToken
from etude.train.spikes import LossWatch
from etude.workflow import jobs
from etude.workflow.prepare import make_plan


def files_of(run: RunFolder, step: int) -> dict[str, bytes]:
    folder = run.checkpoints / f"step-{step:08d}"
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def comparable(run: RunFolder) -> list[dict[str, Any]]:
    """Return the log without times."""
    events = [*run.metrics.read(), *run.samples.read()]
    return [
        {
            key: value
            for key, value in event.items()
            if key not in ("wall_time", "tokens_per_second", "seconds")
        }
        for event in sorted(events, key=lambda event: (event["step"], event["event"]))
        if event["event"] not in ("end", "checkpoint")
    ]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Return a stop function that simulates Ctrl-C once the run has reached ``step``."""

    def stopping(loop: Loop, *args: Any, **kwargs: Any) -> None:
        original(loop, *args, **kwargs)
        loop.should_stop = lambda: loop.state.step >= step

    original = Loop.__init__
    monkeypatch.setattr(Loop, "__init__", stopping)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop", [0, 1, 6, 11])
def test_an_interrupted_run_ends_as_the_uninterrupted_one(
    small_settings: Settings, console: Console, optimizer: str, stop: int
) -> None:
    settings = with_values(small_settings, {"train.optimizer": optimizer, "train.micro_batch_rows": 2})
    whole = jobs.grow(settings, console)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, stop)
        part = jobs.grow(settings, console)
    assert (part.reason, part.step) == ("stopped", stop)
    assert part.run.status()["state"] == "stopped"
    # The folder may be moved: a run stores its settings, but not its own path.
    moved = RunFolder(part.run.path.rename(part.run.path.with_name("moved")))
    rest = jobs.resume(moved.path, console)
    assert (rest.reason, rest.step) == ("finished", 12)
    ours, theirs = files_of(moved, 12), files_of(whole.run, 12)
    assert ours.keys() == theirs.keys()
    for name in ("model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.json"):
        assert ours[name] == theirs[name], name
    assert comparable(moved) == comparable(whole.run)


def test_a_killed_run_goes_on_from_its_last_checkpoint(small_settings: Settings, console: Console) -> None:
    """Leave what SIGKILL leaves: a half-written checkpoint, log lines after the last good one, the state "running"."""
    whole = jobs.grow(small_settings, console)
    killed = RunFolder(Path(shutil.copytree(whole.run.path, whole.run.path.with_name("killed"))))
    last = killed.checkpoints / "step-00000012"
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    shutil.copytree(killed.checkpoints / "step-00000010", killed.checkpoints / ".staging-step-x")
    killed.write_status("running", 12)
    good, problems = newest_good_checkpoint(killed.checkpoints)
    assert good.step == 10
    assert len(problems) == 1
    assert "model.safetensors is damaged" in problems[0]
    jobs.resume(killed.path, console)
    assert files_of(killed, 12)["model.safetensors"] == files_of(whole.run, 12)["model.safetensors"]
    assert comparable(killed) == comparable(whole.run)
    assert not list(killed.checkpoints.glob(".staging-*"))


def test_the_run_folder_holds_what_the_design_says(small_settings: Settings, console: Console) -> None:
    outcome = jobs.grow(small_settings, console)
    run = outcome.run
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "run.toml", "manifest.json", "tokenizer", "status.json", "metrics.jsonl", "samples.jsonl", "ladder.json",
        "checkpoints",
    }  # fmt: skip
    assert run.status()["state"] == "finished"
    steps = [event for event in run.metrics.read() if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 13))
    assert [event["tokens_seen"] for event in steps] == [step * 4 * 32 for step in range(1, 13)]
    evals = [event["step"] for event in run.metrics.read() if event["event"] == "eval"]
    assert evals == [0, 1, 2, 4, 5, 8, 10, 12]
    assert [event["step"] for event in run.samples.read()] == [0, 6, 12]
    saved = [step_of(folder) for folder in list_checkpoints(run.checkpoints)]
    assert saved == [0, 1, 2, 4, 5, 8, 10, 12]
    for folder in list_checkpoints(run.checkpoints):
        verify_checkpoint(folder)
    recorded = json.loads(run.manifest_file.read_text())
    assert recorded["derived"]["train.lr"]["reason"]
    (session,) = recorded["sessions"]
    assert session["machine"]["versions"]["torch"] == torch.__version__
    assert (session["from_step"], session["compiled"]) == (0, False)
    assert 0 < session["self_test"]["logits"] < 1e-4


def test_a_device_that_computes_wrongly_trains_nothing(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACTIVATION_FUNCTIONS, "silu", lambda x: x * torch.sigmoid(1.01 * x))
    with pytest.raises(EtudeError, match=r"logits are off by .* computes wrongly"):
        jobs.grow(small_settings, console)
    (run,) = map(RunFolder, Path(small_settings.run.folder).iterdir())
    assert run.status()["state"] == "failed"
    assert not run.metrics.read()
    assert not list_checkpoints(run.checkpoints)


@pytest.mark.parametrize("fast", [True, False])
def test_slow_bf16_is_said(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setattr(device, "has_fast_bf16", lambda kind: fast)
    jobs.grow(with_values(small_settings, {"device.dtype": "bf16", "train.steps": 2}), console)
    assert isinstance(console.file, io.StringIO)
    assert ("not known to be fast" in console.file.getvalue()) == (not fast)


@pytest.mark.parametrize(("width", "dtype"), [(96, "fp32"), (128, "bf16")])
def test_a_run_computes_in_the_dtype_of_its_settings(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch, width: int, dtype: str
) -> None:
    monkeypatch.setattr(device, "has_fast_bf16", lambda kind: True)
    settings = with_values(small_settings, {"device.dtype": "auto", "model.hidden_size": width})
    plan = make_plan(settings, console)[0]
    assert plan.device.dtype == plan.settings.device.dtype == dtype


def test_the_ladder_and_the_model_are_scored_on_the_same_text(
    small_settings: Settings, console: Console
) -> None:
    import etude
    from etude.files import read_json
    from etude.run.ladder import Ladder

    run = jobs.grow(small_settings, console).run
    ladder = Ladder.from_json(read_json(run.ladder_file))
    evaluation = [event for event in run.metrics.read() if event["event"] == "eval"][-1]
    assert evaluation["val_tokens"] < 500
    data = make_plan(small_settings, console)[0].data
    documents = list(data.documents("validation", ladder.validation_bytes))
    assert sum(map(len, documents)) == ladder.validation_bytes
    # Compare the bits of one document from the command line with the sum that the run recorded.
    language = etude.load(run.path)
    nats = sum(-sum(language.score(document.decode()).logprobs) for document in documents)
    bits_per_byte = nats / 0.6931471805599453 / ladder.validation_bytes
    assert evaluation["bits_per_byte"] == pytest.approx(bits_per_byte, rel=0.1)  # windows end elsewhere


def test_a_run_can_be_repeated_from_its_settings_file(small_settings: Settings, console: Console) -> None:
    first = jobs.grow(small_settings, console)
    again = jobs.grow(load_settings(first.run.settings_file), console)
    assert again.run.path != first.run.path
    assert files_of(again.run, 12)["model.safetensors"] == files_of(first.run, 12)["model.safetensors"]


def test_another_seed_is_another_run(small_settings: Settings, console: Console) -> None:
    first = jobs.grow(small_settings, console)
    other = jobs.grow(with_values(small_settings, {"run.seed": 1}), console)
    assert files_of(other.run, 12)["model.safetensors"] != files_of(first.run, 12)["model.safetensors"]


def test_what_cannot_be_resumed_says_so(
    small_settings: Settings, console: Console, text_folder: Path
) -> None:
    outcome = jobs.grow(small_settings, console)
    with pytest.raises(InputError, match="finished at step 12"):
        jobs.resume(outcome.run.path, console)
    with pytest.raises(InputError, match="not a run folder"):
        jobs.resume(text_folder, console)


def test_a_run_goes_on_with_its_own_text_or_not_at_all(
    small_settings: Settings, console: Console, text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        outcome = jobs.grow(small_settings, console)
    whole = jobs.grow(small_settings, console)
    for file in text_folder.iterdir():
        file.unlink()
    (text_folder / "000.txt").write_text("Another text has taken the place of the first one. " * 200)
    monkeypatch.chdir(text_folder)
    jobs.resume(outcome.run.path, console)  # from the cache, although the files have changed
    assert files_of(outcome.run, 12)["model.safetensors"] == files_of(whole.run, 12)["model.safetensors"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(text_folder.parent / "another-cache"))
        outcome.run.write_status("stopped", 12)
        with pytest.raises(InputError, match="has changed since"):
            jobs.resume(outcome.run.path, console)


def test_a_run_whose_text_another_version_prepared_goes_on_with_the_same_text(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The fingerprint also covers the way in which the text was prepared, and the cache has been removed."""
    whole = jobs.grow(small_settings, console)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        outcome = jobs.grow(small_settings, console)
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "another-cache"))
    monkeypatch.setattr(prepared_data, "SCHEMA", prepared_data.SCHEMA + 1)
    assert jobs.resume(outcome.run.path, console).reason == "finished"
    assert files_of(outcome.run, 12)["model.safetensors"] == files_of(whole.run, 12)["model.safetensors"]


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(
    small_settings: Settings, console: Console
) -> None:
    settings = with_values(
        small_settings, {"train.lr": 1e30, "train.max_grad_norm": 1e30, "train.optimizer": "adamw"}
    )
    with pytest.raises(EtudeError, match=r"3 steps in a row, up to step \d+: the weights are as they were"):
        jobs.grow(settings, console)
    run = RunFolder(next(Path(settings.run.folder).iterdir()))
    assert run.status()["state"] == "failed"
    checkpoint, _ = newest_good_checkpoint(run.checkpoints)
    left_out = [event for event in run.metrics.read() if event["event"] == "left_out"]
    assert checkpoint.step == left_out[-1]["step"] < 12
    assert checkpoint.skipped == len(left_out) == 3
    assert [source["row"] for source in left_out[0]["batch"]] == list(range(len(left_out[0]["batch"])))
    assert all(source["documents"] for source in left_out[0]["batch"])
    before, after = (
        load_model_folder(run.checkpoints / checkpoint_name(step))[0].state_dict()
        for step in (left_out[0]["step"] - 1, checkpoint.step)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_steps_that_are_no_number_may_be_left_out(small_settings: Settings, console: Console) -> None:
    values = {"train.lr": 1e30, "train.max_grad_norm": 1e30, "train.optimizer": "adamw"}
    settings = with_values(small_settings, values | {"train.on_nonfinite": "skip"})
    outcome = jobs.grow(settings, console)
    assert outcome.reason == "finished"
    events = outcome.run.metrics.read()
    steps = [event["step"] for event in events if event["event"] in ("step", "left_out")]
    assert steps == list(range(1, 13))


def test_a_step_that_does_not_fit_goes_through_the_memory_in_smaller_pieces(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds with dropout, too: its masks do not depend on the size of the micro-batches."""
    settings = with_values(small_settings, {"train.micro_batch_rows": 4, "train.dropout": 0.2})
    whole = jobs.grow(settings, console).run
    loss = NextToken.loss

    def with_little_memory(self: NextToken, part: Any) -> torch.Tensor:
        if part.inputs.shape[0] > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")
        return loss(self, part)

    monkeypatch.setattr(NextToken, "loss", with_little_memory)
    stop_after(monkeypatch, 6)
    run = jobs.grow(settings, console).run
    rows = [event["micro_batch_rows"] for event in run.metrics.read() if event["event"] == "micro_batch"]
    assert rows == [2, 1]
    assert newest_good_checkpoint(run.checkpoints)[0].micro_batch_rows == 1
    monkeypatch.undo()
    assert jobs.resume(run.path, console).reason == "finished"  # with the micro-batches that it had reached
    losses, expected = (
        [event["loss"] for event in each.metrics.read() if event["event"] == "step"] for each in (run, whole)
    )
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses != expected
    assert len([event for event in run.metrics.read() if event["event"] == "micro_batch"]) == 2


def test_a_single_row_that_does_not_fit_ends_the_run_in_one_line(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(self: NextToken, part: Any) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(NextToken, "loss", without_memory)
    with pytest.raises(EtudeError, match=r"not enough for a step: use a smaller --size"):
        jobs.grow(small_settings, console)


def test_the_manifest_says_how_much_memory_a_session_took(small_settings: Settings, console: Console) -> None:
    run = jobs.grow(small_settings, console).run
    memory = json.loads(run.manifest_file.read_text())["sessions"][-1]["memory"]
    assert 0 < memory["predicted_bytes"] < memory["peak_bytes"]
    assert (
        0 < memory["bytes_before"] < 1.05 * memory["peak_bytes"]
    )  # the kernel counts memory in blocks, separately for each thread


def test_a_spike_is_reported_with_its_batch(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossWatch, "spike", lambda self, step, loss: 1.5 if loss < 4 else None)
    run = jobs.grow(small_settings, console).run
    spikes = [event for event in run.metrics.read() if event["event"] == "spike"]
    assert spikes
    assert {source["row"] for source in spikes[0]["batch"]} == set(range(len(spikes[0]["batch"])))
    assert spikes[0]["usual"] == 1.5


def test_old_checkpoints_go_and_the_early_ones_stay(small_settings: Settings, console: Console) -> None:
    settings = with_values(
        small_settings, {"train.steps": 40, "train.checkpoint_every": 3, "train.keep_checkpoints": 2}
    )
    run = jobs.grow(settings, console).run
    saved = [step_of(folder) for folder in list_checkpoints(run.checkpoints)]
    assert saved == [0, 1, 2, 4, 8, 16, 32, 39, 40]


def test_attention_within_documents_trains_and_resumes(small_settings: Settings, console: Console) -> None:
    settings = with_values(small_settings, {"data.cross_document_attention": False})
    run = jobs.grow(settings, console).run
    across = jobs.grow(small_settings, console).run
    assert files_of(run, 12)["model.safetensors"] != files_of(across, 12)["model.safetensors"]
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 5)
        part = jobs.grow(settings, console).run
    jobs.resume(part.path, console)
    assert files_of(part, 12)["model.safetensors"] == files_of(run, 12)["model.safetensors"]


def test_an_infinite_gradient_is_never_saved(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a step is computed before its update: only the norm of the gradient shows that the update is bad."""
    original = step.clip_gradients

    def poisoned(parameters: Any, max_grad_norm: float) -> torch.Tensor:
        if max_grad_norm == small_settings.train.max_grad_norm != MAX_GRAD_NORM:  # not in the self-test
            calls.append(1)
        if len(calls) == 4:
            parameters[0].grad[0] = float("inf")
        return original(parameters, max_grad_norm)

    calls: list[int] = []
    monkeypatch.setattr(step, "clip_gradients", poisoned)
    run = jobs.grow(small_settings, console).run
    left_out = [event for event in run.metrics.read() if event["event"] == "left_out"]
    assert [event["step"] for event in left_out] == [4]
    assert left_out[0]["grad_norm"] in ("inf", "nan")
    before, after = (
        load_model_folder(run.checkpoints / checkpoint_name(step))[0].state_dict() for step in (2, 4)
    )
    assert not all(torch.equal(before[name], after[name]) for name in before)  # step 3 was made
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_a_kill_just_before_the_end_is_noted_leaves_no_step_twice(
    small_settings: Settings, console: Console
) -> None:
    run = jobs.grow(small_settings, console).run
    before = comparable(run)
    lines = run.metrics.path.read_text().splitlines(keepends=True)
    run.metrics.path.write_text("".join(line for line in lines if '"event": "end"' not in line))
    run.write_status("running", 12)
    assert jobs.resume(run.path, console).reason == "finished"
    assert comparable(run) == before
    assert run.status()["state"] == "finished"


def test_changed_settings_stop_a_resume(small_settings: Settings, console: Console) -> None:
    """A truncated run.toml can be valid TOML: without its hash, the missing settings would take their defaults."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        run = jobs.grow(small_settings, console).run
    run.settings_file.write_bytes(run.settings_file.read_bytes()[:20])
    with pytest.raises(InputError, match=r"run\.toml is damaged"):
        jobs.resume(run.path, console)


def test_checkpoints_without_a_marker_are_not_trained_over(
    small_settings: Settings, console: Console
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        run = jobs.grow(small_settings, console).run
    before = comparable(run)
    for marker in run.checkpoints.glob("*/train_state.json"):
        marker.unlink()
    with pytest.raises(InputError, match="no whole checkpoint"):
        jobs.resume(run.path, console)
    assert comparable(run) == before


def test_a_good_checkpoint_is_not_pruned_for_damaged_ones_beyond_it(
    small_settings: Settings, console: Console
) -> None:
    settings = with_values(small_settings, {"train.steps": 30, "train.checkpoint_every": 5})
    run = jobs.grow(settings, console).run
    for step_number in (25, 30):
        os.truncate(run.checkpoints / checkpoint_name(step_number) / "model.safetensors", 100)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 22)
        # The run is finished, but its newest checkpoint is damaged: it continues from the newest intact one.
        assert jobs.resume(run.path, console, ["train.keep_checkpoints=1"]).step == 22
    checkpoint, problems = newest_good_checkpoint(run.checkpoints)
    assert (checkpoint.step, problems) == (22, [])
    assert jobs.resume(run.path, console).reason == "finished"
    whole = jobs.grow(settings, console).run
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert files_of(run, 30)[name] == files_of(whole, 30)[name]


def test_fewer_steps_than_were_made_are_refused(small_settings: Settings, console: Console) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 8)
        run = jobs.grow(small_settings, console).run
    with pytest.raises(InputError, match="has made 8 steps already"):
        jobs.resume(run.path, console, ["train.steps=7"])


def test_a_name_that_is_taken_meanwhile_stays_with_who_took_it(tmp_path: Path) -> None:
    def make_while_another_does() -> None:
        with staged_folder(tmp_path / "x", replace=False) as mine:
            (mine / "a").write_text("mine")
            (tmp_path / "x").mkdir()
            (tmp_path / "x" / "a").write_text("theirs")

    with pytest.raises(InputError, match="by another process"):
        make_while_another_does()
    assert (tmp_path / "x" / "a").read_text() == "theirs"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_run_that_was_killed_before_its_first_step_tells_of_its_first_checkpoint(
    small_settings: Settings, console: Console
) -> None:
    whole = jobs.grow(small_settings, console).run
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 0)
        run = jobs.grow(small_settings, console).run
    jobs.resume(run.path, console)
    first, expected = (
        [event["folder"] for event in each.metrics.read() if event["event"] == "checkpoint"]
        for each in (run, whole)
    )
    assert first == expected


def test_a_checkpoint_without_its_marker_is_named_and_the_one_before_it_used(
    small_settings: Settings, console: Console
) -> None:
    whole = jobs.grow(small_settings, console).run
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 8)
        run = jobs.grow(small_settings, console).run
    (run.checkpoints / checkpoint_name(8) / "train_state.json").unlink()
    assert jobs.resume(run.path, console).reason == "finished"
    assert "step-00000008/train_state.json is missing" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "continues from step 5" in console.file.getvalue()  # type: ignore[attr-defined]
    assert comparable(run) == comparable(whole)


def test_a_compiled_run_does_not_go_on_uncompiled(small_settings: Settings, console: Console) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        run = jobs.grow(small_settings, console).run
    recorded = json.loads(run.manifest_file.read_text())
    recorded["sessions"][-1]["compiled"] = True
    run.write_manifest(recorded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            NextToken, "compile", lambda self: setattr(self, "_loss", None)
        )  # as without a compiler
        with pytest.raises(EtudeError, match="which this run requires, failed"):
            jobs.resume(run.path, console)


def test_a_failed_start_leaves_no_run(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise EtudeError("no space")

    monkeypatch.setattr("etude.run.create.file_hashes", full)
    with pytest.raises(EtudeError, match="no space"):
        jobs.grow(with_values(small_settings, {"run.name": "mine"}), console)
    monkeypatch.undo()
    assert not list(Path(small_settings.run.folder).iterdir())
    assert jobs.grow(with_values(small_settings, {"run.name": "mine"}), console).reason == "finished"


@pytest.mark.parametrize("preset", ["qwen3", "gpt2", "gemma3_text", "mlp"])
def test_the_other_families_train(small_settings: Settings, console: Console, preset: str) -> None:
    settings = with_values(small_settings, {"model.preset": preset})
    outcome = jobs.grow(settings, console)
    events = [event for event in outcome.run.metrics.read() if event["event"] == "eval"]
    assert events[-1]["bits_per_byte"] < events[0]["bits_per_byte"]


def test_dry_run_writes_no_run(small_settings: Settings, console: Console) -> None:
    jobs.explain(small_settings, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "train.muon_lr" in text
    assert "memory: about" in text
    assert "time: about" in text
    assert not Path(small_settings.run.folder).exists()
