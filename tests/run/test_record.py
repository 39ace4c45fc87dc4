"""The reader of a run: what it returns for logs, sessions and settings, and for old and damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.config import to_toml, with_values
from etude.errors import InputError
from etude.files import SEALED_SCHEMA, hash_file, json_digest, write_json
from etude.model.folder import OWN_FILES
from etude.run import RunFolder
from etude.run.checkpoints import MODEL_FILES
from etude.run.events import ChecksumEvent, Event, LengthEvent, MicroBatchEvent, SkippedEvent, StepEvent
from etude.run.folder import MANIFEST_SCHEMA
from etude.run.history import Steps
from etude.run.provenance import run_hashes
from etude.run.record import RunRecord
from resolved import resolved_settings


def place(step: int) -> dict[str, Any]:
    return {"step": step, "tokens_seen": 64 * step, "wall_time": step / 2}


def step(number: int, loss: float = 1.0, seconds: float = 0.0) -> StepEvent:
    where = place(number) | {"wall_time": seconds}
    return StepEvent(**where, loss=loss, grad_norm=2 * loss, lr=0.1, tokens_per_second=9.0)


def write_run(folder: Path, *events: Event, **manifest: Any) -> RunFolder:
    """Write a run without a text and without checkpoints."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.settings_file.write_text(to_toml(resolved_settings({"train.steps": 50})))
    run.write_manifest({"settings_hash": hash_file(run.settings_file), **manifest})
    run.metrics.append(*(event.record() for event in events))
    return run


def test_the_events_of_steps(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        LengthEvent(**place(2), num_steps=60),
        *(step(number, 1 / number) for number in (3, 4, 6)),
        SkippedEvent(**place(5), loss="nan", grad_norm="nan", batch=()),
        step(6, 0.5),
        ChecksumEvent(**place(6), parameters="abc"),
        LengthEvent(**place(6), num_steps=70),
        LengthEvent(**place(6), num_steps=5),  # invalid: a run cannot end before its current step
    )
    record = RunRecord.open(run.path)
    assert [record.loss_at(number) for number in range(2, 8)] == [None, 1 / 3, 1 / 4, None, 0.5, None]
    assert record.grad_norm_at(4) == 0.5
    assert record.skipped == {5}
    assert record.checksums == {6: "abc"}
    assert record.revisions == ((2, 60),)
    assert record.last_step == 6


def test_a_smaller_micro_batch_is_logged_before_the_steps_that_precede_it(tmp_path: Path) -> None:
    """With train.log_every above 1 the event precedes earlier steps in the log, without an interruption."""
    rows = [MicroBatchEvent(**place(at), micro_batch_rows=rows) for at, rows in ((2, 8), (4, 4))]
    run = write_run(tmp_path / "run", rows[0], step(1), step(2), step(3), rows[1], step(4), step(5))
    record = RunRecord.open(run.path)
    assert record.micro_batches == ((2, 8), (4, 4))
    assert [record.micro_batch_rows_at(number) for number in range(1, 7)] == [None, None, 8, 8, 4, 4]
    assert [event.step for event in record.history.steps] == [1, 2, 3, 4, 5]


def test_settings_and_session_of_a_step(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        sessions=[
            {"from_step": 0, "machine": {"threads": 3}},
            "damaged",
            {"from_step": 10, "compiled": True, "machine": "damaged"},
        ],
        changes=[{"from_step": 10, "settings": {"train.max_grad_norm": {"before": 0.25, "after": 1.0}}}],
    )
    record = RunRecord.open(run.path).verified()
    assert [record.session_at(at).get("compiled") for at in (0, 1, 10, 11)] == [None, None, None, True]
    assert [record.settings_at(at).train.max_grad_norm for at in (1, 10, 11)] == [0.25, 0.25, 1.0]
    assert record.settings_at(10).device.threads == 3
    assert record.settings_at(11).device.threads == record.settings.device.threads
    assert record.sessions_before(10) == record.sessions[:1]


@pytest.mark.parametrize("schema", [1, SEALED_SCHEMA])
def test_a_manifest_of_an_earlier_edition_gets_the_current_names(tmp_path: Path, schema: int) -> None:
    """Sessions were called "sittings" on disk. The hashes in checkpoints do not depend on the name."""
    sessions = [{"from_step": 0, "compiled": False}]
    run = write_run(tmp_path / "run", sessions=sessions)
    new = run.read_manifest()
    old = {key: value for key, value in new.items() if key not in ("sessions", "digest")}
    old |= {"sittings": sessions, "schema": schema}
    write_json(run.manifest_file, old if schema == 1 else {**old, "digest": json_digest(old)})
    record = RunRecord.open(run.path).verified()
    assert record.sessions == sessions
    assert "sittings" not in record.manifest
    assert run_hashes(record.manifest) == run_hashes(new)
    run.write_manifest(record.manifest)
    written = json.loads(run.manifest_file.read_text())
    assert (written["sessions"], written["schema"]) == (sessions, MANIFEST_SCHEMA)
    assert "sittings" not in written


def test_a_manifest_of_a_later_edition_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    later = {**run.read_manifest(), "schema": MANIFEST_SCHEMA + 1}
    write_json(run.manifest_file, {**later, "digest": json_digest(later)})
    with pytest.raises(InputError, match=rf"reads up to {MANIFEST_SCHEMA}: update it"):
        RunRecord.open(run.path).verified()


def test_an_edited_manifest_is_readable_but_does_not_verify(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sources=["a"])
    write_json(run.manifest_file, json.loads(run.manifest_file.read_text()) | {"sources": ["b"]})
    record = RunRecord.open(run.path)
    assert record.manifest["sources"] == ["b"]
    with pytest.raises(InputError, match="was edited"):
        record.verified()


def test_damage_of_one_part_leaves_the_others_readable(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", step(1, 0.5))
    run.write_status("finished", 1)
    assert RunRecord.open(run.path).state == "finished"
    run.ladder_file.write_text("{")
    record = RunRecord.open(run.path)
    assert record.loss_at(1) == 0.5
    assert record.settings.train.steps == 50
    assert record.state == "damaged"
    for read in (lambda: record.ladder, lambda: record.history):
        with pytest.raises(InputError, match=r"ladder\.json is damaged"):
            read()


def test_the_cache_of_parsed_files_follows_their_changes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sources=["a"])
    read = [RunRecord.open(run.path, remember=True) for _ in range(2)]
    assert read[0].settings is read[1].settings
    assert read[0].manifest is read[1].manifest
    run.settings_file.write_text(to_toml(with_values(read[0].settings, {"train.steps": 51})))
    run.write_manifest(read[0].manifest | {"sources": ["b"]})
    newer = RunRecord.open(run.path, remember=True)
    assert (newer.settings.train.steps, newer.manifest["sources"]) == (51, ["b"])
    assert (read[0].settings.train.steps, read[0].manifest["sources"]) == (50, ["a"])


def test_a_record_extends_an_earlier_one_unless_the_run_was_rolled_back(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", *(step(number, 1 / number) for number in range(1, 5)))
    before = RunRecord.open(run.path)
    assert before.extends(before)
    assert before.is_current
    run.metrics.append(step(5).record())
    after = RunRecord.open(run.path)
    assert not before.is_current
    assert after.extends(before)
    assert not before.extends(after)
    run.metrics.drop_after(2)
    assert not RunRecord.open(run.path).extends(before)
    # Resumed from step 2 with the same bits at other times: everything in the earlier record is still true.
    run.metrics.append(*(step(number, 1 / number, seconds=99.0).record() for number in range(3, 6)))
    assert RunRecord.open(run.path).extends(before)
    run.metrics.drop_after(2)
    run.metrics.append(*(step(number, 7.0).record() for number in range(3, 6)))
    assert not RunRecord.open(run.path).extends(before)


losses = st.lists(st.floats(width=32, allow_nan=False) | st.just(float("nan")), max_size=6)


@given(losses, losses)
@settings(max_examples=200)
def test_steps_start_with_others_as_lists_do(mine: list[float], theirs: list[float]) -> None:
    """Losses are compared bit for bit: NaN equals NaN, and 0 differs from -0."""
    ours, others = (Steps([step(at, loss) for at, loss in enumerate(part)]) for part in (mine, theirs))
    same = [loss.hex() for loss in mine[: len(theirs)]] == [loss.hex() for loss in theirs]
    assert ours.starts_with(others) == same
    for at in range(-1, 8):
        event = ours.at(at)
        assert (event is None) == (not 0 <= at < len(mine))
        assert event is None or event.step == at


def test_a_run_and_its_checkpoints_have_the_same_record_and_other_folders_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    checkpoint = run.checkpoints / "step-00000007"
    checkpoint.mkdir(parents=True)
    for path in (run.path, checkpoint):
        record = RunRecord.containing(path)
        assert record is not None
        assert record.run.path.resolve() == run.path.resolve()
    assert RunRecord.containing(tmp_path) is None


def test_both_lists_of_the_files_of_a_model_folder_are_equal() -> None:
    """The layout of a run has a list of its own: the code that writes the files needs PyTorch."""
    assert MODEL_FILES == OWN_FILES
