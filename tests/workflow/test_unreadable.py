"""Files that an account may not read: one line names the file and what to type, and no other run is affected."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from diagnosed import settings_for, write_text
from etude.cli import main
from etude.run.listing import list_runs
from etude.serve.facts import facts_of, run_lines
from etude.untrusted import Unreadable
from etude.workflow import jobs
from unprivileged import as_ordinary_user

STEP = "checkpoints/step-00000006"
PLACES = [
    ".", "run.toml", "manifest.json", "metrics.jsonl", "samples.jsonl", "ladder.json", "tokenizer",
    "tokenizer/tokenizer.json", "tokenizer/etude_tokenizer.json", "checkpoints", STEP, f"{STEP}/train_state.json",
    f"{STEP}/config.json", f"{STEP}/model.safetensors", f"{STEP}/optimizer.safetensors", f"{STEP}/tokenizer.json",
]  # fmt: skip
COMMANDS = {
    "resume": ["train", "--no-studio", "--resume", "RUN", "--set", "train.steps=8"],
    "generate": ["generate", "RUN", "One day", "--max-new-tokens", "2"],
    "score": ["score", "RUN", "TEXT"],
    "plot": ["plot", "RUN"],
    "doctor": ["doctor", "RUN"],
    "inspect": ["inspect", "RUN", "--step", "5"],
    "eval": ["eval", "RUN", "--suite", "text"],
    "runs": ["runs", "RUNS"],
}
QUICK = {
    ("resume", "manifest.json"), ("resume", f"{STEP}/config.json"), ("generate", f"{STEP}/model.safetensors"),
    ("score", f"{STEP}/tokenizer.json"), ("plot", "metrics.jsonl"), ("doctor", "run.toml"),
    ("inspect", "metrics.jsonl"), ("eval", "ladder.json"), *(("runs", place) for place in PLACES),
}  # fmt: skip
PAIRS = [
    pytest.param(command, place, marks=() if (command, place) in QUICK else pytest.mark.slow)
    for command in COMMANDS
    for place in PLACES
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a text, a cache, and a run of six steps."""
    folder = tmp_path_factory.mktemp("trained")
    write_text(folder / "text", 40_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(folder / "cache"))
        values = {"train.steps": 6, "train.checkpoint_every": 6, "train.eval_every": 3, "train.log_every": 1}
        jobs.grow(settings_for(folder, "kept", **values), Console(file=io.StringIO()))
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy two runs into a folder; a test damages one of them."""
    monkeypatch.setenv("ETUDE_CACHE", str(trained / "cache"))
    for name in ("spoilt", "whole"):
        shutil.copytree(trained / "runs" / "kept", tmp_path / "runs" / name)
    return tmp_path / "runs"


def etude(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, output and errors."""
    with pytest.MonkeyPatch.context() as patch, as_ordinary_user():
        patch.setattr(sys, "argv", ["etude", *words])
        with pytest.raises(SystemExit) as ended:
            main.run()
    out, err = capsys.readouterr()
    code = ended.value.code
    return code if isinstance(code, int) else 0, out, err


@pytest.mark.parametrize(("command", "place"), PAIRS)
def test_one_line_names_the_file_and_what_to_type(
    command: str, place: str, runs: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = runs / "spoilt" / place
    mode = spoilt.stat().st_mode
    spoilt.chmod(0)
    named = {"RUN": str(runs / "spoilt"), "RUNS": str(runs), "TEXT": str(trained / "text" / "0000.txt")}
    try:
        code, out, err = etude(capsys, *(named.get(word, word) for word in COMMANDS[command]))
    finally:
        spoilt.chmod(mode)
    if command == "runs":
        assert code == 0
        assert "whole" in out
        assert "spoilt" in out
    elif err == "":  # it did not need the file
        assert code == 0 or (command == "doctor" and "nothing found" in out)
    else:
        (line,) = err.splitlines()
        assert f"{spoilt}" in line.replace("/./", "/")
        assert "Permission denied" in line
        assert "chmod" in line
        assert code == 2


@pytest.mark.parametrize(
    "place", [".", "run.toml", "status.json", "manifest.json", "metrics.jsonl", "ladder.json"]
)
def test_a_list_names_an_unreadable_run_and_keeps_the_others(place: str, runs: Path) -> None:
    spoilt = runs / "spoilt" / place
    mode = spoilt.stat().st_mode
    spoilt.chmod(0)
    try:
        with as_ordinary_user():
            states = {line.name: line.state for line in list_runs(runs)}
            on_the_page = {line["name"]: line["state"] for line in run_lines(runs)}
            assert facts_of(runs / "whole", True)["state"] == "finished"
    finally:
        spoilt.chmod(mode)
    assert states == on_the_page == {"spoilt": "unreadable", "whole": "finished"}


def test_another_accounts_file_is_to_be_given_to_this_one(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that ran as root leaves such files."""
    file = runs / "spoilt" / "metrics.jsonl"
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    line = str(Unreadable(file, PermissionError(errno.EACCES, "Permission denied")))
    assert line.endswith(f"it belongs to another account; type  sudo chown 12345 {file}")
    folder = Unreadable(runs / "spoilt", PermissionError(errno.EACCES, "Permission denied"))
    assert str(folder).endswith(f"sudo chown -R 12345 {runs / 'spoilt'}")
