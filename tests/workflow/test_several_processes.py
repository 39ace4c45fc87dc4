"""Whole runs by two processes of torchrun: one folder, the same numbers as one process, resumed by any number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from etude.config import Settings, to_toml, with_values
from etude.errors import InputError
from etude.files import read_object
from etude.run import RunFolder
from etude.train.loop import Loop
from etude.workflow import jobs
from etude.workflow.prepare import make_plan
from waiting import PATIENCE, wait_until


def by_two(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start ``torchrun --nproc-per-node=2 -m etude train ...``."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*command, "-m", "etude", "train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """Wait until it has ended without an error, and return what it printed."""
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors[:3000]
    return output


def stop_after(patch: pytest.MonkeyPatch, step: int) -> None:
    """Return a stop function that simulates Ctrl-C once the run has reached ``step``."""

    def stopping(loop: Loop, *args: object, **kwargs: object) -> None:
        original(loop, *args, **kwargs)  # type: ignore[arg-type]
        loop.should_stop = lambda: loop.state.step >= step

    original = Loop.__init__
    patch.setattr(Loop, "__init__", stopping)


def assert_same_training(ours: RunFolder, theirs: RunFolder) -> None:
    """Compare, up to rounding, every loss in the log, every evaluation, and the last parameters."""
    logs = [[e for e in run.metrics.read() if e["event"] in ("step", "eval")] for run in (ours, theirs)]
    for event, other in zip(*logs, strict=True):
        assert (event["event"], event["step"], event["tokens_seen"]) == (
            other["event"],
            other["step"],
            other["tokens_seen"],
        )
        loss = "loss" if event["event"] == "step" else "val_loss"
        assert event[loss] == pytest.approx(other[loss], rel=1e-5)
    weights = [load_file(run.checkpoints / "step-00000012" / "model.safetensors") for run in (ours, theirs)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-4)


def test_two_processes_make_the_run_of_one_and_go_on_with_it(
    small_settings: Settings, console: Console, tmp_path: Path
) -> None:
    whole = jobs.grow(small_settings, console).run
    (tmp_path / "my.toml").write_text(to_toml(small_settings))
    output = finished(by_two("--config", tmp_path / "my.toml", "--name", "two"))
    assert output.count("Trained 12 steps") == 1
    two = RunFolder(whole.path.with_name("two"))
    assert sorted(path.name for path in whole.path.parent.iterdir()) == sorted([whole.name, "two"])
    assert two.status()["state"] == "finished"
    (session,) = read_object(two.manifest_file)["sessions"]
    assert session["processes"] == 2
    assert (
        two.settings_file.read_text().replace('name = "two"', 'name = "auto"')
        == whole.settings_file.read_text()
    )
    assert len(two.samples.read()) == len(whole.samples.read())
    assert_same_training(two, whole)

    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 6)
        part = jobs.grow(small_settings, console).run
    finished(by_two("--resume", part.path))
    assert part.status()["state"] == "finished"
    assert [session["processes"] for session in read_object(part.manifest_file)["sessions"]] == [1, 2]
    assert_same_training(part, whole)


@pytest.mark.slow
def test_two_processes_end_early_together(
    small_settings: Settings, text_folder: Path, console: Console, tmp_path: Path
) -> None:
    changes = {
        "stop_early": True,
        "patience": 1,
        "reference": str(next(text_folder.glob("*.txt"))),
        "lr": 5.0,
    }
    settings = with_values(small_settings, {f"train.{key}": value for key, value in changes.items()})
    whole = jobs.grow(settings, console)
    assert whole.step < 12
    (tmp_path / "my.toml").write_text(to_toml(settings))
    finished(by_two("--config", tmp_path / "my.toml", "--name", "two"))
    two = RunFolder(whole.run.path.with_name("two"))
    assert (two.status()["state"], two.status()["step"]) == ("finished", whole.step)


def wait_for_steps(run: RunFolder, launcher: subprocess.Popen[str], steps: int = 9) -> None:
    """Wait until the log has so many steps; the processes must not end before."""

    def ready() -> bool:
        assert launcher.poll() is None
        return any(event["step"] >= steps for event in run.metrics.read())

    wait_until(ready)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a process by Linux's /proc")
def test_a_signal_to_one_process_stops_all_and_one_process_goes_on(
    small_settings: Settings, console: Console, tmp_path: Path
) -> None:
    settings = with_values(
        small_settings, {"train.steps": 50_000, "train.eval_every": 50_000, "train.checkpoint_every": 50_000}
    )
    (tmp_path / "my.toml").write_text(to_toml(settings))
    launcher = by_two("--config", tmp_path / "my.toml", "--name", "two")
    run = RunFolder(Path(settings.run.folder) / "two")
    wait_for_steps(run, launcher)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    (second,) = [c for c in children if b"\0RANK=1\0" in Path(f"/proc/{c}/environ").read_bytes()]
    os.kill(int(second), signal.SIGTERM)
    finished(launcher)
    step = run.status()["step"]
    assert run.status()["state"] == "stopped"
    assert (run.checkpoints / f"step-{step:08d}").is_dir()
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, step + 2)
        assert jobs.resume(run.path, console).step == step + 2
    steps = [event["step"] for event in run.metrics.read() if event["event"] == "step"]
    assert steps == list(range(1, step + 3))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a process by Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL], ids=lambda number: number.name)
def test_processes_whose_torchrun_has_ended_save_and_end(
    number: signal.Signals, small_settings: Settings, tmp_path: Path
) -> None:
    """torchrun handles neither signal: it ends and leaves its processes behind."""
    many = {"train.steps": 50_000, "train.eval_every": 50_000, "train.checkpoint_every": 50_000}
    (tmp_path / "my.toml").write_text(to_toml(with_values(small_settings, many)))
    launcher = by_two("--config", tmp_path / "my.toml", "--name", "two", "--no-studio")
    run = RunFolder(Path(small_settings.run.folder) / "two")
    wait_for_steps(run, launcher)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    launcher.send_signal(number)
    launcher.communicate(timeout=PATIENCE)  # the processes hold its output until they end
    assert launcher.returncode == -number
    wait_until(lambda: not any(Path(f"/proc/{child}/environ").exists() for child in children))
    step = run.status()["step"]
    assert run.status()["state"] == "stopped"
    assert (run.checkpoints / f"step-{step:08d}").is_dir()


UNPLUGGED = """
import os
from etude.train.objectives import NextToken
if os.environ["RANK"] == "1":
    original = NextToken.batch
    def batch(self, step):
        if step == 3:
            raise RuntimeError("the disk of rank 1 was unplugged")
        return original(self, step)
    NextToken.batch = batch
from etude.cli.main import run
run()
"""


@pytest.mark.slow
def test_an_error_of_one_process_is_reported_as_itself(small_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(to_toml(with_values(small_settings, {"run.name": "two"})))
    (tmp_path / "unplugged.py").write_text(UNPLUGGED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = ["--config", str(tmp_path / "my.toml"), "--no-studio"]
    done = subprocess.run(
        [*command, str(tmp_path / "unplugged.py"), "train", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode != 0
    assert "RuntimeError: the disk of rank 1 was unplugged" in done.stderr
    run = RunFolder(Path(small_settings.run.folder) / "two")
    assert "another process of this run has ended" in run.status()["reason"]


def test_rows_that_do_not_divide_are_refused_before_anything_is_made(
    small_settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(InputError, match=r"batch_rows=4 does not divide .* --nproc-per-node=2"):
        make_plan(small_settings, console)
    assert not Path(small_settings.run.folder).exists()


def test_two_processes_train_a_base_model_as_one_does(
    small_settings: Settings, console: Console, tmp_path: Path
) -> None:
    """The others have no base of their own: they read the checkpoint of step 0, and the manifest's configuration."""
    parent = jobs.grow(small_settings, console).run
    given = Settings().model_dump()["model"] | {"base": str(parent.path)}
    values = {f"model.{key}": value for key, value in given.items()}
    settings = with_values(
        small_settings, {**values, "tokenizer.vocab_size": "auto", "train.only": "layers", "train.lr": 1e-3}
    )
    whole = jobs.grow(settings, console).run
    (tmp_path / "my.toml").write_text(to_toml(settings))
    output = finished(by_two("--config", tmp_path / "my.toml", "--name", "two"))
    assert output.count("Trained 12 steps") == 1
    two = RunFolder(whole.path.with_name("two"))
    (session,) = read_object(two.manifest_file)["sessions"]
    assert session["processes"] == 2
    assert two.read_manifest()["base"] == whole.read_manifest()["base"]
    last, begun = (
        load_file(run.checkpoints / step / "model.safetensors")
        for run, step in ((parent, "step-00000012"), (two, "step-00000000"))
    )
    assert all(torch.equal(last[name], begun[name]) for name in last)
    assert_same_training(two, whole)
