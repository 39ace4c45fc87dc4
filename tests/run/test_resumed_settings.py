"""A resume may change those settings of a run that are declared so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etude.config import get_value, to_toml
from etude.errors import InputError
from etude.files import hash_file
from etude.run import RunFolder
from etude.run.record import RunRecord
from etude.run.settings import record_changes, resumed_settings, verified_settings
from etude.setting_declarations import declarations
from resolved import resolved_settings


def write_run(folder: Path, **values: Any) -> RunFolder:
    run = RunFolder(folder)
    folder.mkdir()
    given = {key.replace("__", "."): value for key, value in values.items()}
    run.settings_file.write_text(to_toml(resolved_settings(given)))
    run.write_manifest({"settings_hash": hash_file(run.settings_file)})
    return run


@pytest.mark.parametrize(
    ("key", "value", "effect"),
    [
        ("train.log_every", 3, ""),
        ("train.sample_prompt", "Once", ""),
        ("train.lr", 0.5, ": this changes the training from the resumed step on"),
        ("train.steps", 777, ": this changes the training from the resumed step on"),
        ("device.threads", 3, ": this changes the training from the resumed step on"),
    ],
)
def test_observing_and_steering_settings_may_be_changed(
    tmp_path: Path, key: str, value: object, effect: str
) -> None:
    run = write_run(tmp_path / "run")
    own, manifest = verified_settings(run)
    settings, lines = resumed_settings(run, own, [f"{key}={value}"])
    assert get_value(settings, key) == value
    assert lines == [f"{key} changes from {get_value(own, key)!r} to {value!r}{effect}"]
    record_changes(run, manifest, settings, 5)
    record = RunRecord.open(run.path).verified()
    assert [get_value(record.settings_at(step), key) for step in (5, 6)] == [get_value(own, key), value]


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("train.context", 16, "start a fork with --fork"),
        ("run.seed", 2, "start a fork with --fork"),
        ("data.seed", 2, "start a fork with --fork"),
        ("model.hidden_size", 64, "start a new run without --resume"),
        ("tokenizer.kind", "char", "start a new run without --resume"),
    ],
)
def test_other_settings_are_refused_with_advice(tmp_path: Path, key: str, value: object, advice: str) -> None:
    run = write_run(tmp_path / "run", model__hidden_size=32)
    own, _ = verified_settings(run)
    with pytest.raises(InputError, match=f"cannot become {value!r} on a resume") as caught:
        resumed_settings(run, own, [f"{key}={value}"])
    assert advice in str(caught.value)


def test_the_number_of_steps_of_a_run_with_a_time_budget_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", train__seconds=60)
    with pytest.raises(InputError, match="cannot become 777 on a resume"):
        resumed_settings(run, verified_settings(run)[0], ["train.steps=777"])


def test_unresolved_settings_in_a_run_are_damage(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    text = run.settings_file.read_text()
    run.settings_file.write_text(
        text.replace(f"context = {verified_settings(run)[0].train.context}", 'context = "auto"')
    )
    with pytest.raises(
        InputError, match=r"run\.toml is damaged \(train\.context is not resolved\): restore it"
    ):
        _ = RunRecord.open(run.path).settings
    assert RunRecord.open(run.path).state == "damaged"


def test_settings_that_a_run_is_older_than_are_no_changes(tmp_path: Path) -> None:
    """Its run.toml lacks them; it trained as they are now, so its family and its record stay the same."""
    run = write_run(tmp_path / "run")
    lines = run.settings_file.read_text().splitlines(keepends=True)
    older = [line for line in lines if not line.startswith(("lr_by_width", "state_every"))]
    assert len(older) == len(lines) - 2
    run.settings_file.write_text("".join(older))
    run.write_manifest({"settings_hash": hash_file(run.settings_file)})
    own, manifest = verified_settings(run)
    assert (own.train.lr_by_width, own.train.state_every) == (True, 1)
    settings, changes = resumed_settings(run, own, [])
    assert changes == []
    record_changes(run, manifest, settings, 5)
    assert "changes" not in run.read_manifest()
    assert run.settings_file.read_text() == "".join(older)
    settings, changes = resumed_settings(run, own, ["train.state_every=4"])
    assert changes == ["train.state_every changes from 1 to 4"]


def test_how_often_states_are_kept_does_not_part_runs_over_seeds() -> None:
    assert declarations()["train.state_every"].may_differ
    assert not declarations()["train.lr_by_width"].may_differ  # it changes the training
