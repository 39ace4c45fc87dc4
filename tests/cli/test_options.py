from __future__ import annotations

import pytest

from etude.cli.options import parse_duration
from etude.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2H", 7200), ("0.5m", 30)]
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "0s", "1:30", "ten m", "1e3s", "nanm", "5 m"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="such as 90s, 10m or 2h"):
        parse_duration(text)
