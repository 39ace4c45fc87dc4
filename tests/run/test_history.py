"""The history of a run is read from its logs, even if they are damaged or the run was interrupted."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.files import write_json
from etude.run import RunFolder
from etude.run.events import EndEvent, EvalEvent, Event, RungEvent, SampleEvent, StepEvent
from etude.run.history import Steps, collect_events
from etude.run.ladder import Ladder, Rung
from etude.run.record import RunRecord


def place(step: int) -> dict[str, Any]:
    return {"step": step, "tokens_seen": 64 * step, "wall_time": step / 2}


def step(number: int, loss: float = 1.0) -> StepEvent:
    return StepEvent(**place(number), loss=loss, grad_norm=1.0, lr=0.1, tokens_per_second=9.0)


def evaluation(number: int, bits: float, nats: float | None = None) -> EvalEvent:
    return EvalEvent(**place(number), val_loss=nats or bits * 2, bits_per_byte=bits, val_tokens=10)


def write(folder: Path, *events: Event) -> RunFolder:
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.settings_file.write_text("")
    for event in events:
        (run.samples if isinstance(event, SampleEvent) else run.metrics).append(event.record())
    return run


def test_events_are_read_back_unchanged(tmp_path: Path) -> None:
    steps = [step(number, 1 / number) for number in range(1, 6)]
    evals = [evaluation(0, 8.0), evaluation(5, 2.0)]
    rung = RungEvent(**place(5), order=1, bits_per_byte=4.0)
    samples = [SampleEvent(**place(n), prompt="é", text="text\n") for n in (0, 5)]
    end = EndEvent(**place(5), reason="finished")
    ladder = Ladder("byte", 1, 1, 1, (Rung(1, 4.0), Rung(2, 1.0)))
    run = write(tmp_path / "run", evals[0], samples[0], *steps, evals[1], rung, samples[1], end)
    write_json(run.ladder_file, ladder.to_json())
    history = RunRecord.open(run.path).history
    assert (history.steps, history.evals, history.rungs) == (steps, evals, [rung])
    assert (history.samples, history.end, history.ladder) == (samples, end, ladder)
    assert history.name == "run"
    assert history.passed_at == {1: 5}


def test_incomplete_unknown_and_invalid_lines_are_skipped(tmp_path: Path) -> None:
    run = write(tmp_path / "run", step(1), evaluation(1, 3.0))
    with run.metrics.path.open("ab") as file:
        file.write(b'{"event": "weather", "step": 2}\n[1, 2]\n{"event": "step"}\n{"event": 7, "step": 3}\n')
        file.write(b'{"event": "step", "step": -1}\n{"event": "step", "step": %d}\n' % 10**30)
        file.write(b'{"event": "step", "step": 4, "loss": null, "lr": 1' + b"0" * 400)
        file.write(b'}\n\xff\xfe\n{"event": "step", "st')
    history = RunRecord.open(run.path).history
    assert [event.step for event in history.steps] == [1, 4]
    assert math.isnan(history.steps[1].loss)
    assert math.isnan(history.steps[1].lr)
    assert len(history.evals) == 1


def test_events_that_a_resume_superseded_are_dropped(tmp_path: Path) -> None:
    before = [step(n, 1.0) for n in range(1, 9)]
    before[4:4] = [evaluation(4, 3.0), RungEvent(**place(4), order=1, bits_per_byte=4.0)]
    before.append(evaluation(8, 2.5))
    again = [evaluation(4, 3.0), *(step(n, 2.0) for n in range(5, 8))]
    history = RunRecord.open(write(tmp_path / "run", *before, *again).path).history
    assert [(event.step, event.loss) for event in history.steps] == [
        *((n, 1.0) for n in range(1, 5)),
        *((n, 2.0) for n in range(5, 8)),
    ]
    assert [event.step for event in history.evals] == [4]
    assert [event.order for event in history.rungs] == [1]


def test_the_factor_to_bits_per_byte_is_the_median_of_the_evaluations(tmp_path: Path) -> None:
    run = write(
        tmp_path / "run", *(evaluation(n, 3.0 + n, 6.0 + 2 * n) for n in range(5)), evaluation(6, 9.0, 1.0)
    )
    assert RunRecord.open(run.path).history.bits_per_byte_per_nat == 0.5
    assert RunRecord.open(write(tmp_path / "other", step(1)).path).history.bits_per_byte_per_nat is None


def test_passed_rungs_follow_from_the_evaluations_if_none_were_logged(tmp_path: Path) -> None:
    run = write(
        tmp_path / "run", *(evaluation(n, bits) for n, bits in [(0, 8.0), (10, 2.9), (20, 3.5), (30, 1.0)])
    )
    write_json(
        run.ladder_file, Ladder("byte", 1, 1, 1, tuple(map(Rung, (1, 2, 3), (4.0, 3.0, 2.0)))).to_json()
    )
    assert RunRecord.open(run.path).history.passed_at == {1: 10, 2: 10, 3: 30}


def test_a_run_without_logs_is_empty_and_another_folder_is_an_error(tmp_path: Path) -> None:
    history = RunRecord.open(write(tmp_path / "run").path).history
    assert (history.steps, history.samples, history.end, history.ladder) == ([], [], None, None)
    with pytest.raises(InputError, match="not a run folder"):
        _ = RunRecord.open(tmp_path).history


def test_steps_are_a_sequence_of_events(tmp_path: Path) -> None:
    events = [step(number, 1 / number) for number in range(1, 9)]
    steps = Steps(events)
    assert list(steps) == events
    assert steps == events
    assert steps != events[:-1]
    assert steps[-1] == events[-1]
    assert list(steps[2:5]) == events[2:5]
    assert list(steps.where(steps.column("loss") < 0.3)) == events[3:]
    assert steps.column("step").tolist() == list(range(1, 9))
    assert not Steps()


def test_a_long_record_takes_only_the_memory_of_its_numbers(tmp_path: Path) -> None:
    """Seven numbers of eight bytes per step; the line of a step alone is two hundred characters."""
    run = write(tmp_path / "run", *(step(number) for number in range(1, 20_001)))
    _ = RunRecord.open(run.path).history  # memory for imports and compiled patterns does not count
    tracemalloc.start()
    try:
        history = RunRecord.open(run.path).history
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(history.steps) == 20_000
    assert peak < 20_000 * 7 * 8 * 1.25 + 300_000  # a growing array reserves an eighth more


@given(
    st.lists(
        st.tuples(st.sampled_from(["step", "eval", "rung", "other"]), st.integers(0, 6), st.integers(0, 3)),
        max_size=30,
    )
)
def test_superseded_events_are_those_of_a_simple_implementation(logged: list[tuple[str, int, int]]) -> None:
    """The reference keeps all records in a list, and cuts it back whenever a lower step follows."""
    records, kept = [], list[dict[str, Any]]()
    for kind, number, value in logged:
        record = {
            "event": kind,
            **place(number),
            "loss": float(value),
            "bits_per_byte": float(value),
            "order": value,
        }
        if kind != "rung":
            del record["order"]
        records.append(record)
        kept = [earlier for earlier in kept if earlier["step"] <= number]
        identity = (kind, number, record.get("order"))
        kept = [
            earlier
            for earlier in kept
            if (earlier["event"], earlier["step"], earlier.get("order")) != identity
        ]
        kept.append(record)
    collected = collect_events(records, (EvalEvent, RungEvent))
    assert [(e.step, e.loss) for e in collected.steps] == [
        (r["step"], r["loss"]) for r in kept if r["event"] == "step"
    ]
    for kind in ("eval", "rung"):
        expected = [(r["step"], r["bits_per_byte"]) for r in kept if r["event"] == kind]
        assert [(e.step, e.bits_per_byte) for e in collected.events[kind]] == expected
