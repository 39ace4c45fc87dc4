"""probes.jsonl: a network's scores are read back as written, and untrusted records are checked."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.data.tokens.vocabulary import train_bpe
from etude.errors import InputError
from etude.evaluate.answerers import CountingAnswerer
from etude.evaluate.items import Probe, choice
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.ngram import KneserNey
from etude.evaluate.records import FILE, ProbeRecord, Where, from_json, read_records, to_json, write_records
from etude.evaluate.results import ProbeResult, measure
from networks import make_config, make_network

TEXT = "one two three. Ann gives the ball to Ben. "
WHERE = Where(3, 16, 4096, 1.5e9, 12345, 2.5, "own 1", "abc123")


def results() -> list[ProbeResult]:
    """Measure a small network, counts of the text, and other random weights, on probes of different kinds."""
    tokenizer = train_bpe([TEXT * 4], 280, "llama3")
    config = make_config("llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=64)
    answerers = (
        ModelAnswerer(make_network(config, 2), tokenizer),
        CountingAnswerer(KneserNey.fit([TEXT.encode() * 3], 4), 4),
        ModelAnswerer(make_network(config, 5), tokenizer),
    )
    pairs = (choice("Who has it? ", "Ben", "Ann", group="1"), choice("one two ", "three", "ball", group="2"))
    probes = (
        Probe("holds", "moves 1", "Who has it?", pairs, "No such move was in the text.", open_answer=True),
        Probe("alone", "", "?", pairs[:1], dropped=4),
    )
    return [
        ProbeResult(probe, *(measure(probe, answerer.answer(probe.items)) for answerer in answerers))
        for probe in probes
    ]


@pytest.fixture(scope="module")
def scored() -> list[ProbeResult]:
    return results()


@pytest.fixture(scope="module")
def line(scored: list[ProbeResult]) -> dict[str, Any]:
    return to_json(scored[0], WHERE)


def test_what_was_scored_is_read_back(scored: list[ProbeResult], tmp_path: Path) -> None:
    write_records(tmp_path, scored, WHERE)
    found = read_records(tmp_path)
    assert found.damaged == 0
    for record, result in zip(found.records, scored, strict=True):
        probe = result.probe
        assert (record.model, record.counting, record.random) == (
            result.model,
            result.counting,
            result.random,
        )
        assert (record.where, record.chance, record.label) == (WHERE, probe.chance, result.label)
        assert (record.title, record.items, record.num_items) == (probe.title, probe.hash, len(probe.items))
        assert (record.asks, record.held_out, record.dropped) == (probe.asks, probe.held_out, probe.dropped)
    assert found.records[0].model.exact is not None
    assert found.records[1].model.margin.standard_error == math.inf  # of a single group


def test_a_line_is_plain_json(scored: list[ProbeResult], tmp_path: Path) -> None:
    write_records(tmp_path, scored, WHERE)
    for line in (tmp_path / FILE).read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_counts_have_no_typed_answers_and_may_be_missing(scored: list[ProbeResult]) -> None:
    result = scored[0]
    bare = from_json(to_json(ProbeResult(result.probe, result.model, None, None), WHERE))
    assert (bare.counting, bare.random, bare.label) == (None, None, "no null measured")
    with_counts = from_json(to_json(result, WHERE))
    assert with_counts.counting is not None
    assert with_counts.counting.exact is None


def test_the_later_of_two_counts_and_steps_are_in_order(scored: list[ProbeResult], tmp_path: Path) -> None:
    for step, loss in ((8, 2.0), (4, 3.0), (8, 2.25), (0, None)):
        write_records(tmp_path, scored[:1], Where(3, step, step, 1.0, 9, loss, "own"))
    found = read_records(tmp_path).records
    assert [(r.where.step, r.where.val_loss) for r in found] == [(0, None), (4, 3.0), (8, 2.25)]


BAD: dict[str, Any] = {
    "step": -1,
    "seed": "3",
    "tokens_seen": 2**70,
    "flops": math.nan,
    "num_parameters": 1.5,
    "val_loss": math.inf,
    "probe": "",
    "condition": "x" * 10_000,
    "asks": ["?"],
    "accuracy": {"value": 1.5, "standard_error": 0.1, "low": 1, "high": 2, "count": 3},
    "margin": {"value": 0.0, "standard_error": -1, "low": 0, "high": 0, "count": 3},
    "brier": True,
    "exact": [],
    "chance": 2,
    "counting": 7,
    "label": None,
    "items": 3,
    "num_items": -4,
    "event": "step",
}


@pytest.mark.parametrize("name", BAD)
def test_impossible_records_are_skipped(
    name: str, line: dict[str, Any], scored: list[ProbeResult], tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text(json.dumps({**line, name: BAD[name]}) + "\n")
    with pytest.raises(InputError, match="no record"):
        read_records(tmp_path)
    write_records(tmp_path, scored, WHERE)
    assert len(read_records(tmp_path).records) == 2


@pytest.mark.parametrize("name", [*BAD, "schema", "suite"])
def test_every_field_is_needed(name: str, line: dict[str, Any]) -> None:
    with pytest.raises(KeyError):
        from_json({key: value for key, value in line.items() if key != name})


def test_an_interval_holds_its_value(line: dict[str, Any]) -> None:
    wrong = {**line["margin"], "low": line["margin"]["value"] + 1}
    with pytest.raises(ValueError, match="not a number"):
        from_json({**line, "margin": wrong})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab\x1b", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\x1b", max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=80)
@given(data=st.data())
def test_any_change_is_a_record_or_a_known_error(line: dict[str, Any], data: st.DataObject) -> None:
    changed = dict(line)
    for name in data.draw(st.lists(st.sampled_from(sorted(line)), max_size=3)):
        changed[name] = data.draw(json_values)
    try:
        found = from_json(changed)
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    assert isinstance(found, ProbeRecord)
    assert math.isfinite(found.model.margin.value)
    assert 0 <= found.model.accuracy.value <= 1


def test_files_that_are_none(tmp_path: Path, line: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="etude eval"):
        read_records(tmp_path)
    file = tmp_path / FILE
    os.mkfifo(file)
    with pytest.raises(InputError, match="etude eval"):
        read_records(tmp_path)
    file.unlink()
    file.write_bytes(b"\x00\xff no record")
    assert read_records(tmp_path, allow_none=True).records == ()
    file.write_text(json.dumps({**line, "schema": 2}) + "\n")
    with pytest.raises(InputError, match="update it"):
        read_records(tmp_path)
    with file.open("wb") as huge:
        huge.truncate(2**40)
    with pytest.raises(InputError, match="longer than"):
        read_records(tmp_path)
    file.write_bytes(b'{"a": \xff}\n[1, 2]\n' + b"[" * 5000 + b"\n" + json.dumps(line).encode() + b'\n{"torn')
    assert len(read_records(tmp_path).records) == 1
