"""A new run and a fork are created complete and verify; a fork has its parent's logs up to its step, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from etude.config import Resolved, with_values
from etude.errors import EtudeError, InputError
from etude.files import hash_file
from etude.run import RunFolder
from etude.run.checkpoints import (
    MARKER,
    OPTIMIZER_FILE,
    Provenance,
    checkpoint_name,
    copy_checkpoint,
    list_checkpoints,
    verify_checkpoint,
    write_marker,
)
from etude.run.create import Origin, create_run, find_origin, inherited_manifest
from etude.run.events import SampleEvent, StepEvent
from etude.run.file_checks import verify
from etude.run.provenance import provenance_of
from etude.run.record import RunRecord
from resolved import resolved_settings

STEPS = range(1, 11)
SAVED = (0, 4, 8)


def some_settings(**values: Any) -> Resolved:
    return resolved_settings({"train.batch_rows": 2, "train.context": 8, **values})


def fill(run: RunFolder) -> None:
    run.tokenizer.mkdir()
    (run.tokenizer / "tokenizer.json").write_text("{}")
    run.ladder_file.write_text("{}")


def save(run: RunFolder, step: int, provenance: Provenance) -> None:
    """Save a checkpoint of a few bytes, with the files of a real one."""
    folder = run.checkpoints / checkpoint_name(step)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes([step]))
    (folder / "tokenizer.json").write_text("{}")
    (folder / OPTIMIZER_FILE).write_bytes(b"")
    checksums = {file.name: hash_file(file) for file in folder.iterdir()}
    counters = {"step": step, "tokens_seen": 16 * step, "wall_time": 0.5, "revisions": [(step, 12)]}
    write_marker(folder, {**counters, "checksums": checksums}, provenance)


@pytest.fixture
def parent(tmp_path: Path) -> RunFolder:
    """A run of ten steps with three checkpoints; its settings changed at the sixth step."""
    run = RunFolder(tmp_path / "parent")
    change = {"from_step": 6, "settings": {"train.max_grad_norm": {"before": 0.5, "after": 1.0}}}
    manifest = {"sessions": [{"from_step": 0}, {"from_step": 6}], "changes": [change]}
    create_run(run, some_settings(), manifest, fill)
    logs = run.logs
    for step in (0, *STEPS):
        place = {"step": step, "tokens_seen": 16 * step, "wall_time": 0.0}
        if step:
            numbers = {"loss": 1 / step, "grad_norm": 1.0, "lr": 0.1, "tokens_per_second": 1.0}
            logs["metrics.jsonl"].append(StepEvent(**place, **numbers).record())
        if step % 2 == 0:
            logs["samples.jsonl"].append(SampleEvent(**place, prompt="a", text=f"b{step}").record())
        if step in SAVED:
            save(run, step, provenance_of(run.read_manifest(), logs))
    return run


def steps_in(run: RunFolder) -> list[int]:
    return [event["step"] for event in run.metrics.read()]


def origin_at(parent: RunFolder, step: int, **options: Any) -> Origin:
    """Return the origin of a fork at any step: its checkpoint is written, not copied."""
    record = RunRecord.open(parent.path).verified()

    def write_checkpoint(fork: RunFolder, provenance: Provenance) -> None:
        save(fork, step, provenance)

    return Origin(record, step, 16 * step, write_checkpoint, **options)


def test_a_new_run_verifies(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "new")
    create_run(run, some_settings(), {"sources": ["a"]}, fill)
    assert all(check.ok for check in verify(run))
    assert sorted(run.read_manifest()["files"]) == ["ladder.json", "tokenizer/tokenizer.json"]
    assert RunRecord.open(run.path).verified().manifest["sources"] == ["a"]
    with pytest.raises(InputError, match="was made by another process meanwhile"):
        create_run(run, some_settings(), {}, fill)


def test_a_run_that_cannot_be_created_leaves_nothing_behind(tmp_path: Path, parent: RunFolder) -> None:
    def failing(fork: RunFolder, provenance: Provenance) -> None:
        raise EtudeError("no space left")

    before = sorted(tmp_path.iterdir())
    with pytest.raises(EtudeError, match="no space left"):
        create_run(
            RunFolder(tmp_path / "fork"),
            some_settings(),
            {},
            fill,
            Origin(RunRecord.open(parent.path).verified(), 4, 64, failing),
        )
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 10])
def test_a_fork_has_the_logs_up_to_its_step(tmp_path: Path, parent: RunFolder, step: int) -> None:
    """At a checkpoint or between two, the logs end at the step, and the fork's checkpoint has their hashes."""
    run, origin = RunFolder(tmp_path / "fork"), origin_at(parent, step, details={"turned": ["x=1"]})
    create_run(run, some_settings(), inherited_manifest(origin.parent, step), fill, origin)
    assert steps_in(run) == list(range(1, step + 1))
    assert [event["step"] for event in run.samples.read()] == list(range(0, step + 1, 2))
    assert all(check.ok for check in verify(run))
    (folder,) = list_checkpoints(run.checkpoints)
    logs = verify_checkpoint(folder).provenance.logs
    assert {name: log.prefix() for name, log in run.logs.items()} == logs
    manifest = run.read_manifest()
    assert manifest["parent"] == {
        "run": str(parent.path.absolute()),
        "step": step,
        "tokens_seen": 16 * step,
        "turned": ["x=1"],
    }
    assert manifest["sessions"] == [
        entry for entry in ({"from_step": 0}, {"from_step": 6}) if entry["from_step"] <= step
    ]
    assert manifest["changes"] == []


@pytest.mark.parametrize("step", [4, 6, 10])
def test_a_fork_copies_damaged_logs_only_if_they_are_accepted(
    tmp_path: Path, parent: RunFolder, step: int
) -> None:
    content = bytearray(parent.metrics.path.read_bytes())
    content[1] = 0  # the line of step 1
    parent.metrics.path.write_bytes(content)
    run = RunFolder(tmp_path / "fork")
    with pytest.raises(InputError, match=r"metrics\.jsonl was changed .* Restore it"):
        create_run(run, some_settings(), {}, fill, origin_at(parent, step))
    assert not run.path.exists()
    create_run(run, some_settings(), {}, fill, origin_at(parent, step, accept_record=True))
    assert steps_in(run) == list(range(2, step + 1))
    assert all(check.ok for check in verify(run))


def test_a_fork_on_another_text_has_no_logs(tmp_path: Path, parent: RunFolder) -> None:
    run = RunFolder(tmp_path / "fork")
    create_run(run, some_settings(), {}, fill, origin_at(parent, 4, same_text=False))
    assert not run.metrics.path.exists()
    assert all(check.ok for check in verify(run))


@pytest.mark.parametrize("keep", [True, False])
def test_a_copied_checkpoint_has_the_provenance_of_its_new_run(
    tmp_path: Path, parent: RunFolder, keep: bool
) -> None:
    record, checkpoint = find_origin(f"{parent.path}@4")
    assert checkpoint.step == 4
    run = RunFolder(tmp_path / "fork")
    origin = Origin(
        record,
        4,
        64,
        lambda fork, provenance: copy_checkpoint(
            checkpoint, fork.checkpoints, provenance, keep_revisions=keep
        ),
    )
    create_run(run, with_values(some_settings(), {"run.seed": 5}), {}, fill, origin)
    copy = verify_checkpoint(run.checkpoints / checkpoint_name(4))
    assert copy.revisions == (((4, 12),) if keep else ())
    assert copy.provenance.run["run.toml"] == hash_file(run.settings_file)
    assert copy.checksums == checkpoint.checksums
    assert all(check.ok for check in verify(run))
    assert json.loads((checkpoint.folder / MARKER).read_text())["revisions"] == [[4, 12]]  # unchanged


def test_an_origin_is_a_run_or_a_run_at_a_step(tmp_path: Path, parent: RunFolder) -> None:
    assert find_origin(str(parent.path))[1].step == 8
    named = parent.path.rename(tmp_path / "with@4")
    assert find_origin(str(named))[1].step == 8
    assert find_origin(f"{named}@0")[1].step == 0
    for text, words in (
        ("@5", "no checkpoint of step 5: choose one of 0, 4, 8"),
        ("@x", "no checkpoint of step x"),
    ):
        with pytest.raises(InputError, match=words):
            find_origin(f"{named}{text}")
    with pytest.raises(InputError, match="not a run folder"):
        find_origin(str(tmp_path / "absent"))
