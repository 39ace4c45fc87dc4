"""docs/tuning.md and docs/chat.md: their commands work one after the other, on a small model."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bare_models import make_model
from etude.data.primer.generator import documents
from waiting import PATIENCE

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # a dozen commands, each a new process
QUESTIONS = "When does it open?\n"


def commands(page: str) -> list[list[str]]:
    """Return the words of each call of ``etude`` in the blocks of commands of a page."""
    blocks = re.findall(r"```\n(.*?)```", (REPOSITORY / "docs" / page).read_text(), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("etude ")]


def short(words: list[str]) -> list[str]:
    """Return a call with few steps, unless it has a time; on built-in text with less of it, and a smaller network."""
    if words[0] != "train":
        return words
    if not words[1].startswith("builtin:"):
        return words if {"--steps", "--time"} & {*words} else [*words, "--steps", "8"]
    steps = words.index("--steps") + 1
    words = [*words[:steps], "8", *words[steps + 1 :]]
    for setting in ("data.max_bytes=200000", "device.compile=false", "train.eval_early=false"):
        words += ["--set", setting]
    return ["nano" if word == "tiny" else word for word in words]


def run(folder: Path, words: list[str]) -> str:
    """Run a command in ``folder``; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "etude", *words],
        cwd=folder,
        env=os.environ | {"ETUDE_CACHE": str(folder / "cache")},
        input=QUESTIONS,
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
    )
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def test_the_commands_of_the_guides_work(tmp_path: Path) -> None:
    make_model(tmp_path / "smol", "llama", max_position_embeddings=1024)
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    (tmp_path / "letters").mkdir()
    for number, document in enumerate(documents(3, 30_000)):
        (tmp_path / "letters" / f"{number}.txt").write_text(document.text)
    pairs = [{"prompt": f"Say {n}.", "chosen": f"{n}.", "rejected": f"I say {n} to you."} for n in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    calls = commands("tuning.md")
    assert {words[0] for words in calls} == {"data", "train", "chat", "generate", "eval"}
    printed = "\n".join(run(tmp_path, short(words)) for words in calls)
    for expected in (
        "conversations: 312 to train on, 24 held out",
        "verdict",
        "samples of the base",
        "runs/story@8 has no chat template: it gets ChatML",
    ):
        assert expected in printed
    chats = [words for words in commands("chat.md") if words[1] == "runs/my-run"]
    assert len(chats) >= 3
    for words in chats:
        run(tmp_path, ["runs/faq" if word == "runs/my-run" else word for word in words])
