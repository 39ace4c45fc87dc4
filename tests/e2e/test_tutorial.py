"""The tutorial is correct: its code runs in order on a real run, and its assertions hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from watched import train_run

PAGE = Path(__file__).parent.parent.parent / "docs" / "time-machine.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_its_code_runs_and_its_assertions_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train_run(tmp_path, "first", {})
    monkeypatch.setenv("ETUDE_CACHE", str(run.cache))
    names: dict[str, object] = {}
    assert len(BLOCKS) >= 10
    assert sum(block.count("assert ") for block in BLOCKS) >= 10
    for block in BLOCKS:
        code = block.replace('"runs/first"', repr(str(run.path)))
        exec(compile(code, str(PAGE), "exec"), names)
    assert (run.path.parent / "turned" / "run.toml").is_file()
