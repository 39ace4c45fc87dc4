"""What a stranger sends is data: it is read, or refused in one line, and nothing else ever happens."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anything import ANYTHING, many, refusal
from etude.config import known_keys, load_settings, to_toml, validated
from etude.data.corpus.cuts import Places
from etude.data.prepared_data import open_prepared
from etude.data.tokens.published import existing_tokenizer
from etude.data.tokens.shards import open_part
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_char
from etude.errors import InputError
from etude.files import write_json
from etude.run import JsonLines, RunFolder
from etude.run.checkpoints import MARKER, verify_checkpoint
from etude.run.ladder import Ladder, Rung
from etude.run.record import RunRecord
from etude.run.runs_table import print_runs
from hostile import DEFECT, READ, REFUSED, Attempt, attack_all, readers

COUNTS = {
    "settings": 150,
    "overrides": 80,
    "history": 120,
    "list of runs": 60,
    "resume": 60,
    "replay": 60,
    "checkpoint": 80,
    "model folder": 80,
    "sharded model": 60,
    "gguf file": 200,
    "tokenizer": 120,
    "token shards": 100,
    "document store": 100,
}


@pytest.fixture(scope="module")
def attempts() -> list[Attempt]:
    return attack_all(COUNTS, seed=4)


def test_every_reader_is_attacked() -> None:
    assert set(COUNTS) == set(readers())


@pytest.mark.parametrize("reader", COUNTS)
def test_bad_files_are_read_or_refused_in_one_line(reader: str, attempts: list[Attempt]) -> None:
    mine = [attempt for attempt in attempts if attempt.reader == reader]
    assert [attempt for attempt in mine if attempt.outcome == DEFECT] == []
    assert len(mine) == COUNTS[reader]
    outcomes = Counter(attempt.outcome for attempt in mine)
    assert outcomes[REFUSED] + outcomes[READ] == COUNTS[reader]
    assert outcomes[REFUSED] > 0 or reader == "list of runs"  # which shows them as damaged


@many
@given(key=st.sampled_from(known_keys()), value=ANYTHING)
@example(key="data.text_field", value=[None])
def test_settings_of_any_value(key: str, value: Any) -> None:
    section, name = key.split(".")
    with refusal():
        to_toml(validated({section: {name: value}}))


@many
@given(tree=ANYTHING, text=st.text(max_size=40))
def test_settings_files_and_overrides_of_any_text(tmp_path: Path, tree: Any, text: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text, encoding="utf-8", errors="replace")
    with refusal():
        load_settings(file)
    with refusal():
        load_settings(None, [text, f"train.{text}", f"train.steps={text}"])
    with refusal():
        validated(tree if isinstance(tree, dict) else {"train": tree})


@pytest.mark.parametrize(
    "content",
    [
        "[train]\nsteps = " + "9" * 5000,
        "[train]\nsteps = 0x" + "f" * 5000,
        "[train]\nsteps = " + "[" * 100_000,
        "a." * 5_000 + "a = 1",
        '"=".' * 100_000 + "a = 1",
        '[train]\n"st\\neps" = 1',
        "[run]\nname = '" + "x" * 100_000 + "'\nseed = '" + "y" * 100_000 + "'",
        "#" * 5_000_000,
    ],
)
def test_absurd_settings_files_are_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(content)
    with refusal():
        load_settings(file)
        raise AssertionError("read")
    with pytest.raises(InputError, match=r"a\.toml"):
        load_settings(file)


@many
@given(
    value=ANYTHING, place=st.sampled_from(["", "rungs", "train_bytes", "order", "bits_per_byte", "schema"])
)
def test_ladders_of_any_value(value: Any, place: str) -> None:
    content: Any = Ladder("byte", 1, 1, 1, (Rung(1, 4.0),)).to_json()
    if place in ("order", "bits_per_byte"):
        content["rungs"][0][place] = value
    elif place:
        content[place] = value
    with refusal():
        Ladder.from_json(content if place else value).passed(2.0)


KINDS_OF_EVENTS = ["step", "eval", "rung", "sample", "length", "end", "checksum", "summary"]
EVENTS = st.fixed_dictionaries(
    {"event": st.sampled_from(KINDS_OF_EVENTS) | ANYTHING},
    optional=dict.fromkeys(
        ("tokens_seen", "bits_per_byte", "val_loss", "order", "prompt", "reason", "parameters", "tensors"),
        ANYTHING,
    )
    | {"step": st.integers(0, 3) | ANYTHING, "num_steps": ANYTHING},
)


@many
@given(events=st.lists(EVENTS, max_size=6), status=ANYTHING, manifest=ANYTHING)
def test_logs_of_any_events(tmp_path: Path, events: list[Any], status: Any, manifest: Any) -> None:
    run = RunFolder(tmp_path / "runs" / "[red]a[/b]")
    run.path.mkdir(parents=True, exist_ok=True)
    run.settings_file.write_text("")
    for log in (run.metrics, run.samples):
        log.path.write_text("".join(json.dumps(event) + "\n" for event in events))
    write_json(run.ladder_file, Ladder("byte", 1, 1, 1, (Rung(1, 4.0), Rung(2, 2.0))).to_json())
    write_json(run.path / "status.json", status)
    write_json(run.manifest_file, manifest)
    history = RunRecord.open(run.path).history
    _ = history.passed_at, history.bits_per_byte_per_nat, history.num_steps
    with contextlib.redirect_stdout(io.StringIO()):
        print_runs(tmp_path / "runs")
    run.metrics.drop_after(2)


def test_a_long_log_of_one_step_is_read_in_linear_time(tmp_path: Path) -> None:
    """With as much as a look back at every earlier line this would take minutes."""
    run = RunFolder(tmp_path)
    run.settings_file.write_text("")
    lines = [{"event": "sample", "step": 1, "prompt": str(n)} for n in range(30_000)]
    run.samples.path.write_text("\n".join(map(json.dumps, [*lines, *lines[:10_000]])))
    history = RunRecord.open(tmp_path).history
    assert [event.prompt for event in history.samples[-3:]] == ["9997", "9998", "9999"]
    assert len(history.samples) == 30_000


def test_a_line_without_end_is_no_event(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    endless = b'{"text": "' + b" " * 3_000_000 + b'{"step": 1}' + b" " * 2_000_000
    log.path.write_bytes(b'{"step": 1}\n' + endless + b'\n{"step": 2}')
    assert log.read() == [{"step": 1}, {"step": 2}]


@many
@given(
    value=ANYTHING, key=st.sampled_from([None, "step", "tokens_seen", "wall_time", "revisions", "checksums"])
)
def test_commit_markers_of_any_value(tmp_path: Path, value: Any, key: str | None) -> None:
    marker: Any = {"step": 1, "tokens_seen": 1, "wall_time": 1.0, "revisions": [], "checksums": {}}
    write_json(tmp_path / MARKER, value if key is None else {**marker, key: value})
    with refusal():
        checkpoint = verify_checkpoint(tmp_path)
        assert 0 <= checkpoint.step < 2**63
        assert 0 <= checkpoint.wall_time < math.inf


def test_a_marker_names_files_of_its_folder_only(tmp_path: Path) -> None:
    marker = {"step": 1, "tokens_seen": 1, "wall_time": 1.0, "checksums": {"../secret": "0"}}
    write_json(tmp_path / MARKER, marker)
    with pytest.raises(InputError, match=r"it names the file \.\./secret"):
        verify_checkpoint(tmp_path)
    write_json(tmp_path / MARKER, {**marker, "checksums": {}, "revisions": [[5, 5], [6, 9]]})
    with pytest.raises(InputError, match="is damaged"):  # the schedule would divide by nothing
        verify_checkpoint(tmp_path)


@many
@given(value=ANYTHING, key=st.sampled_from(["dtype", "document_id", "shards", "file"]))
def test_token_manifests_of_any_value(tmp_path: Path, value: Any, key: str) -> None:
    np.array([0, 1, 2], np.uint16).tofile(tmp_path / "train-00000.bin")
    np.save(tmp_path / "train.documents.npy", np.array([0, 3]))
    np.save(tmp_path / "train.marks.npy", np.array([[0, 3], [0, 2]]))
    facts: Any = {"shards": [{"file": "train-00000.bin", "tokens": 3}]}
    values: Any = {"facts": facts, "dtype": "uint16", "document_id": 0}
    assert open_part(tmp_path, "train", namer=str, **values).window(2, 3).tolist() == [2, 0, 1]
    if key == "file":
        facts["shards"][0]["file"] = value
    else:
        (facts if key == "shards" else values)[key] = value
    with contextlib.suppress(TypeError, KeyError), refusal():  # those two mean a damaged folder to `prepare`
        open_part(tmp_path, "train", namer=str, **values)


def test_a_run_names_its_tokens_and_no_other_place(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    write_json(tmp_path / "manifest.json", {"corpus_key": "x"})
    for name in ("..", str(tmp_path), "../tokens/..", "a" * 31, "\0"):
        assert open_prepared(tmp_path, name) is None


@many
@given(value=ANYTHING, key=st.sampled_from([None, "kind", "eos", "hash", "schema"]))
def test_tokenizer_records_of_any_value(tmp_path: Path, value: Any, key: str | None) -> None:
    train_char(["abc"]).save(tmp_path)
    file = tmp_path / "etude_tokenizer.json"
    record = json.loads(file.read_text())
    write_json(file, value if key is None else {**record, key: value})
    write_json(tmp_path / "tokenizer_config.json", {"eos_token": value})
    with refusal():
        assert isinstance(EtudeTokenizer.load(tmp_path).places, Places)
    assert existing_tokenizer(tmp_path).vocab_size > 256
