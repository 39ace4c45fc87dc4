"""docs/published-models.md: its commands work one after the other, on a small file and on a real language model."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from smollm2 import smollm2

from bare_models import make_versions
from etude.data.primer.generator import documents
from gguf_files import network_tensors, write_gguf
from networks import make_config, make_network
from waiting import PATIENCE

PAGE = (Path(__file__).parents[2] / "docs" / "published-models.md").read_text()
pytestmark = pytest.mark.slow  # six commands, each a new process
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
STAYS_OPEN = {"studio"}
"""Commands that run until they are interrupted; tests/browser has them."""


def commands() -> list[list[str]]:
    """Return the words of each call of ``etude`` in the blocks of commands."""
    blocks = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("etude ")]


def walk(folder: Path) -> str:
    """Run the page's commands in ``folder``, and return what they print."""
    texts = [document.text for document in documents(3, 30_000)]
    (folder / "letter.txt").write_text(texts[0])
    (folder / "notes.txt").write_text("\n\n".join(texts[1:]))
    make_versions(folder / "pythia", "llama-plain", {1000: 0, 2000: 1, 3000: 1}, "step{}")
    printed = []
    environment = os.environ | {"ETUDE_CACHE": str(folder / "cache")}
    for words in commands():
        if words[0] in STAYS_OPEN:
            continue
        called = [sys.executable, "-m", "etude", *words]
        done = subprocess.run(
            called, cwd=folder, env=environment, capture_output=True, text=True, timeout=10 * PATIENCE
        )
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        printed.append(done.stdout)
    return "\n".join(printed)


def test_its_commands_work_on_a_small_file(tmp_path: Path) -> None:
    assert {words[0] for words in commands()} >= {"import", "generate", "score", "eval", "inspect", "train"}
    config = make_config("llama-plain", vocab_size=300, num_hidden_layers=21)  # layers.2[0-9] must name one
    write_gguf(tmp_path / FILE, config, network_tensors(make_network(config), config), kind="Q4_1")
    printed = walk(tmp_path)
    assert "rounded when the file was made: Q4_1" in printed
    assert "step 3000 has the same weights as step 2000" in printed
    assert f"recorded in {tmp_path / 'cache' / 'scores'}" in printed
    assert "On the reference text" in printed


def test_its_commands_work_on_a_real_model(tmp_path: Path) -> None:
    shutil.copyfile(smollm2(tmp_path), tmp_path / FILE)
    printed = walk(tmp_path)
    assert "Paris" in printed
    assert "On the reference text" in printed
