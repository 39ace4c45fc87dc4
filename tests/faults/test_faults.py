"""A few faults of every kind, from the programme that bench/faults.py runs at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinds import KINDS, tried_out

TRIED = {
    "kills": ("muon", 6),
    "power_cuts": ("dropout", 3),
    "signals": ("adamw", 3),
    "refused_operations": ("short", 8),
    "crashes": ("short", 8),
    "damaged_files": ("short", 8),
}
OTHERS = ("mlp", 2)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost(kind: str, tmp_path: Path) -> None:
    name, count = TRIED.get(kind, OTHERS)
    result = tried_out(tmp_path, kind, name, count, seed=len(kind))
    if result.impossible:
        pytest.skip(result.impossible)
    assert result.problems == []
    assert result.is_clean
