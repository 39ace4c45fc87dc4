"""A growing log is read in pieces of whole lines, and its newest events are read from its end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from etude.run import RunFolder, follow
from etude.run.events import EvalEvent, StepEvent
from etude.run.follow import newest_events, read_from


def line(step: int, event: str = "step", **more: object) -> bytes:
    return json.dumps({"schema": 1, "event": event, "step": step, **more}).encode() + b"\n"


def steps(lines: list[bytes]) -> list[int]:
    return [json.loads(line)["step"] for line in lines]


def test_an_incomplete_line_is_read_once_it_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(line(1) + line(2)[:10])
    piece = read_from(file, 0)
    assert steps(piece.lines) == [1]
    assert piece.offset == len(line(1))
    assert not piece.more
    file.write_bytes(line(1) + line(2))
    piece = read_from(file, piece.offset)
    assert steps(piece.lines) == [2]
    assert read_from(file, piece.offset).lines == []


def test_a_log_that_became_shorter_is_read_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(line(1) + line(2) + line(3))
    end = read_from(file, 0).offset
    file.write_bytes(line(1))
    piece = read_from(file, end)
    assert piece.reset
    assert steps(piece.lines) == [1]


def test_a_missing_log_or_one_that_is_no_regular_file_has_no_lines(tmp_path: Path) -> None:
    assert read_from(tmp_path / "nothing", 0).lines == []
    assert read_from(tmp_path / "nothing", 9).reset
    os.mkfifo(tmp_path / "pipe")
    assert read_from(tmp_path / "pipe", 0).lines == []
    assert read_from(tmp_path, 0).lines == []


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"nothing",
        b"[1]",
        b'{"step": 1, "event": 3}',
        b'{"step": NaN, "event": "step"}',
        b"\xff\xfe",
        b"[" * 9999,
    ],
)
def test_a_damaged_line_is_skipped_and_the_others_are_read(damage: bytes, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(line(1) + damage + b"\n" + line(2))
    assert steps(read_from(file, 0).lines) == [1, 2]


def test_a_large_log_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PIECE_BYTES", 500)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"".join(map(line, range(1, 60))))
    read: list[int] = []
    offset, more = 0, True
    while more:
        piece = read_from(file, offset)
        read += steps(piece.lines)
        offset, more = piece.offset, piece.more
    assert read == list(range(1, 60))


def test_a_line_longer_than_a_piece_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PIECE_BYTES", 500)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"x" * 5000 + b"\n" + line(7))
    read: list[int] = []
    offset, more, requests = 0, True, 0
    while more:
        piece = read_from(file, offset)
        read += steps(piece.lines)
        offset, more, requests = piece.offset, piece.more, requests + 1
        assert requests < 50
    assert read == [7]


def test_a_long_log_is_thinned_except_for_rare_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LONG_BYTES", 1000)
    monkeypatch.setattr(follow, "STEPS_KEPT", 50)
    monkeypatch.setattr(follow, "SUMMARIES_KEPT", 5)
    file = tmp_path / "metrics.jsonl"
    written = []
    for step in range(1, 2001):
        written.append(line(step))
        if step % 10 == 0:
            written.append(line(step, "summary"))
        if step % 500 == 0:
            written += [line(step, "eval"), line(step, "spike")]
    file.write_bytes(b"".join(written) + line(2001)[:12])
    piece = read_from(file, 0)
    events = [json.loads(line) for line in piece.lines]
    kept = [event["step"] for event in events if event["event"] == "step"]
    assert piece.stride == kept[1] - kept[0] > 1
    assert 50 <= len(kept) <= 100
    assert kept == list(range(1, 2001, piece.stride))
    assert 5 <= sum(event["event"] == "summary" for event in events) <= 10
    assert [event["step"] for event in events if event["event"] == "spike"] == [500, 1000, 1500, 2000]
    order = [event["step"] for event in events]
    assert order == sorted(order)
    assert piece.offset == sum(map(len, written))
    file.write_bytes(b"".join(written) + line(2001))
    assert steps(read_from(file, piece.offset).lines) == [2001]


def events(count: int) -> list[dict[str, object]]:
    """Return a step and an evaluation for each number below ``count``."""
    return [
        event.record()
        for number in range(1, count)
        for event in (
            StepEvent(number, 64 * number, number / 2, 1.0, 1.0, 0.1, 9.0),
            EvalEvent(number, 64 * number, number / 2, 2.0, 1 + 1 / number, 10),
        )
    ]


@pytest.mark.parametrize("block", [300, 1000, 2**20])
def test_the_newest_events_are_found_from_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Blocks may start anywhere in a line; only a line longer than a block is skipped."""
    monkeypatch.setattr(follow, "MAX_LINE_BYTES", block)
    log = RunFolder(tmp_path).metrics
    log.append(*events(60))
    with log.path.open("ab") as file:
        # The last line is incomplete.
        file.write(
            b'[1]\n{"event": ["eval"]}\n\xff\n' + b"x" * 1000 + b'"eval"\n{"event": "eval", "step": 99'
        )
    newest = newest_events(log.path, ("eval", "step", "length"))
    assert newest["eval"]["step"] == newest["step"]["step"] == 59
    assert set(newest) == {"eval", "step"}
    assert newest_events(tmp_path / "absent", ("eval",)) == {}


@pytest.mark.parametrize("most", [1, 100, 1000, 5000, 10**6])
def test_only_the_allowed_bytes_at_the_end_are_read(tmp_path: Path, most: int) -> None:
    """The result is compared with all whole lines within the last ``most`` bytes."""
    log = RunFolder(tmp_path).metrics
    log.append(*events(60), {"event": "length", "step": 60})
    content = log.path.read_bytes()
    start = max(0, len(content) - most)
    begin = content.index(b"\n", start) + 1 if start else 0
    within = [json.loads(line) for line in content[begin:].splitlines()]
    expected = {event["event"]: event for event in within}
    assert newest_events(log.path, ("eval", "step", "length"), most) == expected


def test_a_pipe_or_a_folder_instead_of_a_log_has_no_events(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert newest_events(tmp_path / "pipe", ("step",)) == {}
    assert newest_events(tmp_path, ("step",)) == {}
