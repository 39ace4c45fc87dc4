"""The output of a run with a time budget before it trains."""

from __future__ import annotations

import io

from rich.console import Console

from etude.show.phases import Phases, _Moving, clock_time
from etude.system import process_age


def test_a_phase_is_one_line_in_a_file() -> None:
    out, now = io.StringIO(), [103.0]
    phases = Phases(Console(file=out, width=20), began=100.0, seconds=90.0, clock=lambda: now[0])
    with phases("timing wider and wider networks"):
        now[0] = 165.5
    phases.note("[training]")
    assert out.getvalue() == "0:03 of 1:30   timing wider and wider networks\n1:05 of 1:30   [training]\n"


def test_a_phase_in_a_terminal_is_a_line_whose_clock_moves() -> None:
    out, now = io.StringIO(), [100.0]
    console = Console(file=out, width=80, force_terminal=True)
    phases = Phases(console, began=100.0, seconds=90.0, clock=lambda: now[0])
    moving = _Moving(phases, "timing")
    assert moving.__rich__().plain == "0:00 of 1:30   timing"
    now[0] = 107.0
    assert moving.__rich__().plain == "0:07 of 1:30   timing"
    with phases("timing"):
        pass


def test_clock_times() -> None:
    assert [clock_time(seconds) for seconds in (-1, 0.9, 75.9, 3600)] == ["0:00", "0:00", "1:15", "60:00"]


def test_the_age_of_this_process_grows() -> None:
    first = process_age()
    assert 0 <= first <= process_age() < 1e6
