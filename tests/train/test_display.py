"""The display shows events in a terminal and in a pipe, and no text can control the terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from etude.run.events import CheckpointEvent, EndEvent, EvalEvent, Event, RungEvent, SampleEvent, StepEvent
from etude.show.lines import format_duration, printable, shorten
from etude.train.display import training_display

RUNGS = {1: 4.0, 2: 3.0, 3: 2.5}
EVENTS: list[Event] = [
    EvalEvent(0, 0, 0.0, 6.0, 8.0, 100),
    SampleEvent(0, 0, 0.0, "Once", " [bold]qz[/bold]\x1b[31m"),
    StepEvent(1, 64, 0.5, 5.9, 1.0, 0.1, 128.0),
    StepEvent(2, 128, 1.0, 5.0, 1.0, 0.1, 128.0),
    EvalEvent(2, 128, 1.0, 4.0, 3.5, 100),
    RungEvent(2, 128, 1.0, 1, 4.0),
    CheckpointEvent(2, 128, 1.0, "checkpoints/step-00000002"),
    EndEvent(2, 128, 1.0, "finished"),
]


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_event_is_shown(terminal: bool, width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, color_system=None)
    with training_display(console, "runs/x", 2, RUNGS, {}) as display:
        for event in EVENTS:
            display(event)
            if isinstance(event, CheckpointEvent):
                assert "saved" not in file.getvalue()  # not before it is
                display.committed(event)
    text = file.getvalue()
    for word in ("validation", "qz", "3.5", "2/2"):
        assert word in text
    assert "[bold]" in text  # a sample is text, not markup
    assert "\x1b[31m" not in text
    if terminal:
        assert "1✓" in text
    else:
        assert "passed the 1-gram" in text
        assert "saved checkpoints/step-00000002" in text
        assert "\x1b" not in text


@given(st.text())
def test_printable_text_cannot_move_a_cursor(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert not any(0x7F <= ord(c) < 0xA0 for c in shown)
    assert "\n" not in shorten(text)
    assert len(shorten(text)) <= 160


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (75.2, "1:15"), (59.6, "1:00"), (5025, "1:23:45")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_trouble_is_reported_with_its_documents() -> None:
    from etude.run.events import MicroBatchEvent, RowSource, SkippedEvent, SpikeEvent
    from etude.train.display import trouble

    batch = [RowSource(row, (f"d{row}", "d0")) for row in range(6)]
    assert trouble(SkippedEvent(3, 9, 0.1, "nan", "inf", batch)) == (
        "step 3   loss nan, gradient inf: the update was skipped (documents d0, d1, d2, d3 and 2 more)"
    )
    assert "jumped to 9.000 from 2.000" in str(trouble(SpikeEvent(3, 9, 0.1, 9.0, 2.0, batch)))
    assert "4 rows from now on" in str(trouble(MicroBatchEvent(3, 9, 0.1, 4)))
    assert trouble(EndEvent(3, 9, 0.1, "finished")) is None
