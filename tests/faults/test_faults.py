"""A few faults of every kind, from the programme that bench/faults.py runs at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinds import KINDS
from programme import Programme

TRIED = {"kills": ("muon", 6), "power_cuts": ("dropout", 3), "signals": ("adamw", 3)}
OTHERS = ("mlp", 2)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    name, count = TRIED.get(kind, OTHERS)
    result = Programme(tmp_path, seed=len(kind)).try_out(KINDS[kind], count, name)
    if result.impossible:
        pytest.skip(result.impossible)
    assert result.problems == []
    assert result.is_clean
